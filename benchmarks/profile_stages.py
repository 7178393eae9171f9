"""Where the instructions of a streamed chunk go, stage by stage.

    python benchmarks/profile_stages.py [--chunks 20000]

The stages nest, so each is counted with those below it, and the difference is its own:

    read    the network: bytes of the body, as they come
    frame   lines to whole events
    decode  the text out of them
    chunk   the chunk that holds it
    delta   what else the decoder does
    yield   from the decoder to the loop of the user: `astream`
    listen  an event for each chunk: `astream_events`
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import answers
import server
from contenders import CONTENDERS
from counter import CPU, Counter, describe
from tables import table

FRAMINGS = ("burst", "event", "paced")


def framed(reads: Sequence[bytes]) -> list[bytes]:
    """The whole events of each read."""
    from streamfold.wire.sse import SSEFramer

    framer = SSEFramer(1 << 24)
    return [whole for data in reads if (whole := framer.complete(data))]


def decoder_of(events: Sequence[bytes]) -> Any:
    """A decoder that has seen how the stream begins, and takes the short way from here on."""
    from streamfold.wire.openai_chat import Decoder

    decoder = Decoder()
    for event in events[:3]:
        decoder.feed(event)
    return decoder


def decoded(reads: Sequence[bytes], events: Sequence[bytes]) -> list[list[str]]:
    """The texts of each read, by the short way."""
    template = decoder_of(events)._template
    assert template is not None
    return [texts for whole in framed(reads) if (texts := template.texts(whole)) is not None]


def chunked(reads: Sequence[bytes], events: Sequence[bytes]) -> list[Any]:
    """The chunks of each read."""
    from streamfold.chunks import TextChunk

    return [[TextChunk("", text, 0) for text in texts] for texts in decoded(reads, events)]


def fed(reads: Sequence[bytes], events: Sequence[bytes]) -> list[Any]:
    """The same by the decoder."""
    decoder = decoder_of(events)
    return [decoder.feed(data) for data in reads]


async def read(url: str) -> list[bytes]:
    """The body, read by read, through our connections."""
    import httpx

    from streamfold.net.pool import PoolTransport

    transport = PoolTransport(ssl_context=None)
    async with (
        httpx.AsyncClient(transport=transport, timeout=None) as client,
        client.stream("POST", url + "/v1/chat/completions", json={}) as response,
    ):
        return [data async for data in response.stream]  # type: ignore[union-attr]


async def cost_of(counter: Counter, run: Callable[[], Awaitable[Any]]) -> float:
    """What the second of two runs costs."""
    await run()
    before = counter.read()
    await run()
    return counter.read() - before


async def stages(counter: Counter, url: str, chunks: int) -> list[tuple[str, float]]:
    """The cost of each stage, by itself."""
    events = list(answers.openai(chunks))
    reads = await read(url)

    def costs(run: Callable[[], object]) -> float:
        run()
        before = counter.read()
        run()
        return counter.read() - before

    reading = await cost_of(counter, lambda: read(url))
    framing = costs(lambda: framed(reads))
    decoding = costs(lambda: decoded(reads, events))
    making = costs(lambda: chunked(reads, events))
    feeding = costs(lambda: fed(reads, events))
    totals = []
    for name in ("streamfold", "streamfold_events"):
        make = CONTENDERS[name].make
        assert make is not None
        totals.append(await cost_of(counter, make(url)))
    return [
        ("read", reading),
        ("frame", framing),
        ("decode", decoding - framing),
        ("chunk", making - decoding),
        ("delta", feeding - making),
        ("yield", totals[0] - reading - feeding),
        ("listen", totals[1] - totals[0]),
    ]


def main() -> None:
    """Print one column for each framing."""
    parser = argparse.ArgumentParser(description="Where the cost of a chunk goes.")
    parser.add_argument("--chunks", type=int, default=20_000)
    chunks = parser.parse_args().chunks
    columns = {}
    with server.running() as root:
        counter = Counter()  # it counts the processes that are started after it, too
        unit, scale = ("us", 1.0) if counter.unit == CPU else ("k instr", 1e3)
        print(describe(counter.unit, counter.why) + "\n")
        for framing in FRAMINGS:
            count = min(chunks, 2_000) if framing == "paced" else chunks
            found = asyncio.run(stages(counter, f"{root}/{framing}/{count}", count))
            columns[framing] = {name: cost / count / scale for name, cost in found}
    names = [*columns[FRAMINGS[0]]]
    rows = [[name, *(f"{columns[each][name]:.2f}" for each in FRAMINGS)] for name in names]
    print(table([f"{unit} a chunk", *FRAMINGS], rows))


if __name__ == "__main__":
    main()
