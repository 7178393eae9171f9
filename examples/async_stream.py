"""Stream an answer: as chunks, as text with the message at the end, and only the beginning."""

import asyncio

from example_model import example_model


async def main() -> None:
    async with example_model() as model:
        # Chunks, as they arrive.
        async for chunk in model.astream("Why do parrots talk?"):
            print(chunk.text, end="", flush=True)
        print("\n")

        # A stream object: its text piece by piece, then the whole message.
        async with model.astream_message("Why do parrots have bright feathers?") as stream:
            async for text in stream.text:
                print(text, end="", flush=True)
            message = await stream.message()
        print("\n\nusage:", message.usage_metadata, "\n")

        # Leaving the block closes the connection: the rest is neither sent nor paid for.
        async with model.astream("Tell me all about parrots.") as chunks:
            async for chunk in chunks:
                print(chunk.text, end="", flush=True)
                if "parrots" in chunk.text:
                    break
        print(" ... enough.")


asyncio.run(main())
