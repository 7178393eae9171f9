"""Many questions at once: answers in order, as they become ready, and with their failures."""

import asyncio

from example_model import example_model

from streamfold.errors import StreamfoldError

QUESTIONS = [f"What is {number} times {number}?" for number in range(1, 9)]


async def main() -> None:
    async with example_model() as model:
        # In the order of the questions; at most four calls at once.
        answers = await model.abatch(QUESTIONS, {"max_concurrency": 4})
        for question, answer in zip(QUESTIONS, answers, strict=True):
            print(f"{question}  {answer.text[:50]}")

        # Each as soon as it is ready. Leaving the loop would cancel the others.
        async for index, answer in model.abatch_as_completed(QUESTIONS[:3]):
            print(f"ready: {QUESTIONS[index]}  {answer.usage_metadata['total_tokens']} tokens")

        # Errors in the place of answers. Without the option the first one cancels the rest.
        questions = ["Is this fine?", [{"role": "nobody", "content": "Is this?"}]]
        for outcome in await model.abatch(questions, return_exceptions=True):
            failed = isinstance(outcome, StreamfoldError)
            print("failed:" if failed else "worked:", outcome if failed else outcome.text)


asyncio.run(main())
