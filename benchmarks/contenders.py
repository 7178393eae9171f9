"""Who takes part, and how each runs one stream.

A contender is made once from the base URL of its scenario and then run twice in the same event
loop: a warm-up, then the measured stream. A run reads the text of every chunk and returns its
length, so that the driver knows that nothing was skipped.

    python benchmarks/contenders.py NAME URL

measures one contender in this process and prints one line of JSON. Imports are inside the
functions: only what is measured is loaded, and what is not installed is reported as absent.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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


def _floor(url: str) -> Run:
    import floor

    return floor.stream(url + "/v1/chat/completions", floor.read_openai)


def _floor_lines(url: str) -> Run:
    import floor

    return floor.stream(url + "/v1/chat/completions", floor.read_openai_lines)


def _floor_anthropic(url: str) -> Run:
    import floor

    return floor.stream(url + "/v1/messages", floor.read_anthropic)


def _floor_sync(url: str) -> RunSync:
    import floor

    return floor.stream_sync(url + "/v1/chat/completions", floor.read_openai)


def _model(name: str, url: str) -> Any:
    from streamfold import init_chat_model

    base_url = url if name.startswith("anthropic") else url + "/v1"
    return init_chat_model(name, base_url=base_url, api_key="x")


def _streamfold(url: str) -> Run:
    return _astream(_model("openai:gpt-4.1", url))


def _streamfold_anthropic(url: str) -> Run:
    return _astream(_model("anthropic:claude-sonnet-4-5", url))


def _streamfold_fold(url: str) -> Run:
    from streamfold.messages import AIMessageChunk

    model = _model("openai:gpt-4.1", url)

    async def run() -> int:
        full = AIMessageChunk()
        async for chunk in model.astream("hi"):
            full = full + chunk
        return len(full.text)

    return run


def _streamfold_sync(url: str) -> RunSync:
    model = _model("openai:gpt-4.1", url)

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


CONTENDERS = {
    "floor": Contender(make=_floor),
    "floor_lines": Contender(make=_floor_lines),
    "floor_anthropic": Contender(make=_floor_anthropic),
    "floor_sync": Contender(make_sync=_floor_sync),
    "streamfold": Contender(make=_streamfold),
    "streamfold_anthropic": Contender(make=_streamfold_anthropic),
    "streamfold_fold": Contender(make=_streamfold_fold),
    "streamfold_sync": Contender(make_sync=_streamfold_sync),
    "openai": Contender(make=_openai, peer=True),
    "anthropic": Contender(make=_anthropic, peer=True),
    "langchain_openai": Contender(make=_langchain_openai, peer=True),
    "langchain_anthropic": Contender(make=_langchain_anthropic, peer=True),
}


@dataclass(frozen=True)
class _Reading:
    """Both clocks at one moment."""

    cost: float
    cpu_us: float

    def since(self, before: "_Reading", size: int) -> dict[str, float]:
        return {
            "cost": self.cost - before.cost,
            "cpu_us": self.cpu_us - before.cpu_us,
            "size": size,
        }


def _read(counter: Counter) -> _Reading:
    return _Reading(counter.read(), cpu_us())


async def _measure(make: Callable[[str], Run], url: str, counter: Counter) -> dict[str, float]:
    run = make(url)
    await run()
    before = _read(counter)
    size = await run()
    return _read(counter).since(before, size)


def _measure_sync(make: Callable[[str], RunSync], url: str, counter: Counter) -> dict[str, float]:
    run = make(url)
    run()
    before = _read(counter)
    size = run()
    return _read(counter).since(before, size)


def _result(contender: Contender, url: str) -> dict[str, Any]:
    counter = Counter()
    try:
        if contender.make is not None:
            figures = asyncio.run(_measure(contender.make, url, counter))
        else:
            assert contender.make_sync is not None
            figures = _measure_sync(contender.make_sync, url, counter)
    except ImportError as error:
        return {"absent": str(error)}
    return {"unit": counter.unit, "why": counter.why, **figures}


if __name__ == "__main__":
    print(json.dumps(_result(CONTENDERS[sys.argv[1]], sys.argv[2])))
