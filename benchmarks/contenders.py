"""Who takes part, and how each runs one stream.

A contender is made once from the base URL of its scenario; it runs once to warm up, and then as
often, and as many at once, as the scenario says, in the same event loop. A run reads the text of
every chunk and returns its length, so that the driver knows that nothing was skipped.

    python benchmarks/contenders.py NAME URL [STREAMS]

measures one contender in this process and prints one line of JSON; STREAMS is how many streams run
at once, or, as -N, one after the other. Imports are inside the functions: only what is measured is
loaded, and what is not installed is reported as absent.
"""

import asyncio
import importlib
import json
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from counter import Counter, cpu_us

Run = Callable[[], Awaitable[int]]
RunSync = Callable[[], int]


@dataclass(frozen=True)
class Contender:
    """`make(url)` gives a function that runs one stream; `url` is the scenario's, without /v1."""

    make: Callable[[str], Run] | None = None
    make_sync: Callable[[str], RunSync] | None = None
    peer: bool = False


@dataclass(frozen=True)
class Provider:
    """Where a provider's answers are, its hand-written reader, and how it is named here."""

    path: str
    read: str
    model: str
    base: str = ""
    fields: tuple[tuple[str, Any], ...] = ()


PROVIDERS = {
    "openai": Provider("/v1/chat/completions", "read_openai", "openai:gpt-4.1", "/v1"),
    "anthropic": Provider("/v1/messages", "read_anthropic", "anthropic:claude-sonnet-4-5"),
    "responses": Provider(
        "/v1/responses",
        "read_responses",
        "openai:gpt-4.1",
        "/v1",
        (("use_responses_api", True),),
    ),
    "gemini": Provider(
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
        "read_gemini",
        "google_genai:gemini-2.5-flash",
    ),
    "bedrock": Provider(
        "/model/m/converse-stream",
        "read_bedrock",
        "bedrock_converse:anthropic.claude-sonnet-4-5-20250929-v1:0",
        fields=(("region_name", "us-east-1"),),
    ),
    "ollama": Provider("/api/chat", "read_ollama", "ollama:llama3.2"),
    "cohere": Provider("/v2/chat", "read_cohere", "cohere:command-a-03-2025"),
}


def _floor(url: str, provider: str = "openai") -> Run:
    import floor

    row = PROVIDERS[provider]
    return floor.stream(url + row.path, getattr(floor, row.read))


def _floor_lines(url: str) -> Run:
    import floor

    return floor.stream(url + "/v1/chat/completions", floor.read_openai_lines)


def _floor_ask(url: str) -> Run:
    import floor

    return floor.ask(url + "/v1/chat/completions")


def _floor_sync(url: str) -> RunSync:
    import floor

    return floor.stream_sync(url + "/v1/chat/completions", floor.read_openai)


def _model(url: str, provider: str = "openai", **more: Any) -> Any:
    from streamfold import init_chat_model

    row = PROVIDERS[provider]
    fields = {"timeout": 120, **dict(row.fields), **more}
    return init_chat_model(row.model, base_url=url + row.base, api_key="x", **fields)


def _streamfold(url: str, provider: str = "openai") -> Run:
    return _astream(_model(url, provider))


def _streamfold_fold(url: str) -> Run:
    from streamfold.messages import AIMessageChunk

    model = _model(url)

    async def run() -> int:
        full = AIMessageChunk()
        async for chunk in model.astream("hi"):
            full = full + chunk
        return len(full.text)

    return run


def _streamfold_pipe(url: str) -> Run:
    """What is under `astream`: the network, the decoder, and nobody who could listen."""
    from streamfold.net.transport import stream_batches

    model = _model(url)

    async def chunks() -> AsyncIterator[Any]:
        call = model._call("hi", None, None, {}, stream=True, run=None)
        async with aclosing(stream_batches(call)) as batches:
            async for batch in batches:
                for chunk in batch:
                    yield chunk

    async def run() -> int:
        size = 0
        async for chunk in chunks():
            size += len(chunk.text)
        return size

    return run


def _streamfold_events(url: str) -> Run:
    model = _model(url)

    async def run() -> int:
        size = 0
        async for event in model.astream_events("hi"):
            if event["event"] == "on_chat_model_stream":
                size += len(event["data"]["chunk"].text)
        return size

    return run


def _streamfold_ask(url: str) -> Run:
    return _ainvoke(_model(url))


def _streamfold_aiohttp(url: str) -> Run:
    importlib.import_module("aiohttp")
    return _astream(_model(url, transport="aiohttp"))


def _streamfold_aiohttp_ask(url: str) -> Run:
    importlib.import_module("aiohttp")
    return _ainvoke(_model(url, transport="aiohttp"))


def _streamfold_sync(url: str) -> RunSync:
    model = _model(url)

    def run() -> int:
        size = 0
        for chunk in model.stream("hi"):
            size += len(chunk.text)
        return size

    return run


def _langchain_openai(url: str) -> Run:
    chat = importlib.import_module("langchain_openai").ChatOpenAI
    return _astream(chat(model="gpt-4.1", base_url=url + "/v1", api_key="x"))


def _langchain_anthropic(url: str) -> Run:
    chat = importlib.import_module("langchain_anthropic").ChatAnthropic
    return _astream(chat(model="claude-sonnet-4-5", base_url=url, api_key="x"))


def _astream(model: Any) -> Run:
    async def run() -> int:
        size = 0
        async for chunk in model.astream("hi"):
            size += len(chunk.text)
        return size

    return run


def _ainvoke(model: Any) -> Run:
    async def run() -> int:
        return len((await model.ainvoke("hi")).text)

    return run


def _openai(url: str) -> Run:
    client = importlib.import_module("openai").AsyncOpenAI(base_url=url + "/v1", api_key="x")
    ask: Any = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]}

    async def run() -> int:
        size = 0
        async for chunk in await client.chat.completions.create(**ask, stream=True):
            for choice in chunk.choices:
                size += len(choice.delta.content or "")
        return size

    return run


def _anthropic(url: str) -> Run:
    client = importlib.import_module("anthropic").AsyncAnthropic(base_url=url, api_key="x")
    ask: Any = {"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]}

    async def run() -> int:
        size = 0
        async for event in await client.messages.create(**ask, max_tokens=64000, stream=True):
            if event.type == "content_block_delta":
                size += len(event.delta.text)
        return size

    return run


def _of_each(make: Callable[..., Run], name: str) -> dict[str, Contender]:
    others = [provider for provider in PROVIDERS if provider != "openai"]
    return {f"{name}_{each}": Contender(make=partial(make, provider=each)) for each in others}


CONTENDERS = {
    "floor": Contender(make=_floor),
    **_of_each(_floor, "floor"),
    "floor_lines": Contender(make=_floor_lines),
    "floor_ask": Contender(make=_floor_ask),
    "floor_sync": Contender(make_sync=_floor_sync),
    "streamfold": Contender(make=_streamfold),
    **_of_each(_streamfold, "streamfold"),
    "streamfold_fold": Contender(make=_streamfold_fold),
    "streamfold_pipe": Contender(make=_streamfold_pipe),
    "streamfold_events": Contender(make=_streamfold_events),
    "streamfold_ask": Contender(make=_streamfold_ask),
    "streamfold_aiohttp": Contender(make=_streamfold_aiohttp),
    "streamfold_aiohttp_ask": Contender(make=_streamfold_aiohttp_ask),
    "streamfold_sync": Contender(make_sync=_streamfold_sync),
    "openai": Contender(make=_openai, peer=True),
    "anthropic": Contender(make=_anthropic, peer=True),
    "langchain_openai": Contender(make=_langchain_openai, peer=True),
    "langchain_anthropic": Contender(make=_langchain_anthropic, peer=True),
}


@dataclass(frozen=True)
class _Reading:
    """Both clocks at one moment, and the most memory so far, in MiB."""

    cost: float
    cpu_us: float
    memory: float

    def since(self, before: "_Reading", size: int) -> dict[str, float]:
        return {
            "cost": self.cost - before.cost,
            "cpu_us": self.cpu_us - before.cpu_us,
            "memory": self.memory - before.memory,
            "size": size,
        }


def _read(counter: Counter) -> _Reading:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return _Reading(counter.read(), cpu_us(), memory)


async def _measure(
    make: Callable[[str], Run], url: str, streams: int, counter: Counter
) -> dict[str, float]:
    run = make(url)
    await run()
    before = _read(counter)
    if streams == 1:
        size = await run()
    elif streams < 0:
        size = sum([await run() for _ in range(-streams)])
    else:
        size = sum(await asyncio.gather(*(run() for _ in range(streams))))
    return _read(counter).since(before, size)


def _measure_sync(make: Callable[[str], RunSync], url: str, counter: Counter) -> dict[str, float]:
    run = make(url)
    run()
    before = _read(counter)
    size = run()
    return _read(counter).since(before, size)


def _result(contender: Contender, url: str, streams: int) -> dict[str, Any]:
    counter = Counter()
    try:
        if contender.make is not None:
            figures = asyncio.run(_measure(contender.make, url, streams, counter))
        else:
            assert contender.make_sync is not None
            figures = _measure_sync(contender.make_sync, url, counter)
    except ImportError as error:
        return {"absent": str(error)}
    return {"unit": counter.unit, "why": counter.why, **figures}


if __name__ == "__main__":
    how_many = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    print(json.dumps(_result(CONTENDERS[sys.argv[1]], sys.argv[2], how_many)))
