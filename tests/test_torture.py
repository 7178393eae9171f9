"""Five hundred streams at once, of which many are left, cancelled, broken or badly listened to: the
tree of runs is right, each has one end, and nothing is left of any of them."""

from __future__ import annotations

import gc
import logging
import os
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    adispatch_custom_event,
    get_usage_metadata_callback,
)
from streamfold.errors import StreamfoldError
from streamfold.testing import Answer, Call, EmbeddedProvider

pytestmark = pytest.mark.anyio

STREAMS = 500


class Book(BaseCallbackHandler):
    """Every start and end that is heard, from whatever thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.parents: dict[UUID, UUID | None] = {}
        self.children: defaultdict[UUID | None, list[UUID]] = defaultdict(list)
        self.names: dict[UUID, str] = {}
        self.owners: dict[UUID, Any] = {}  # the number of the stream, inherited as metadata
        self.ends: Counter[UUID] = Counter()
        self.wrong: list[str] = []

    def begin(self, run: dict[str, Any]) -> None:
        id, parent = run["run_id"], run["parent_run_id"]
        with self.lock:
            if id in self.parents:
                self.wrong.append(f"{run['name']} starts twice")
            if parent is not None and (parent not in self.parents or self.ends[parent]):
                self.wrong.append(f"{run['name']} starts in a run that is not going on")
            self.parents[id], self.names[id] = parent, run["name"]
            self.children[parent].append(id)
            self.owners[id] = run["metadata"]["stream"]

    def end(self, run: dict[str, Any]) -> None:
        id = run["run_id"]
        with self.lock:
            self.ends[id] += 1
            early = [self.names[child] for child in self.children[id] if not self.ends[child]]
            if early:
                self.wrong.append(f"{run['name']} ends before {early}")

    def on_chat_model_start(self, *args: Any, **run: Any) -> None:
        self.begin(run)

    on_chain_start = on_tool_start = on_chat_model_start

    def on_llm_end(self, *args: Any, **run: Any) -> None:
        self.end(run)

    on_llm_error = on_llm_cancel = on_llm_end
    on_chain_end = on_chain_error = on_chain_cancel = on_llm_end
    on_tool_end = on_tool_error = on_tool_cancel = on_llm_end


class Bad(AsyncCallbackHandler):
    """Raises now and then; if it means it, the run stops."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.raise_error = self._random.random() < 0.5

    async def _perhaps(self, *args: Any, **kwargs: Any) -> None:
        if self._random.random() < 0.2:
            await anyio.lowlevel.checkpoint()
            raise ArithmeticError("a handler's own mistake")

    on_chat_model_start = on_llm_new_token = on_llm_end = on_llm_error = on_llm_cancel = _perhaps
    on_chain_start = on_chain_stream = on_chain_end = on_chain_error = on_chain_cancel = _perhaps
    on_tool_start = on_tool_end = on_tool_error = on_tool_cancel = on_custom_event = _perhaps


#: What the program expects of a bad network and of bad handlers.
EXPECTED = (StreamfoldError, ArithmeticError, RuntimeError)


class Program:
    """Models, tools and functions that nest, and the ways in which a stream is read."""

    def __init__(self, url: str) -> None:
        self.model = asked = init_chat_model(
            "gpt-4.1", base_url=f"{url}/v1", api_key="k", max_retries=0
        )

        @tool
        async def look(city: str) -> str:
            """Look."""
            return str((await asked.ainvoke(city)).text)

        @tool
        def look_up(city: str) -> str:
            """Look in a thread."""
            return str(asked.invoke(city).text)

        @runnable
        async def inner(city: str) -> Any:
            await adispatch_custom_event("note", city)
            return await look.ainvoke({"city": city})

        @runnable
        async def app(city: str) -> AsyncIterator[Any]:
            yield await inner.ainvoke(city)
            async for chunk in asked.astream(city):
                yield chunk.text

        @runnable
        def plain(city: str) -> Any:
            return look_up.invoke({"city": city})

        self.app, self.plain = app, plain
        self.paths: set[tuple[str, ...]] = {
            ("ChatOpenAI",),
            ("app",),
            ("app", "ChatOpenAI"),
            ("app", "inner"),
            ("app", "inner", "look"),
            ("app", "inner", "look", "ChatOpenAI"),
            ("plain",),
            ("plain", "look_up"),
            ("plain", "look_up", "ChatOpenAI"),
        }

    async def read_chunks(self, text: str, config: Any, until: int) -> None:
        seen = 0
        async with self.model.astream(text, config) as stream:
            async for _ in stream:
                seen += 1
                if seen == until:
                    break

    async def read_events(self, text: str, config: Any, until: int) -> None:
        await self._events(self.app, text, config, until)

    async def read_sync_events(self, text: str, config: Any, until: int) -> None:
        await self._events(self.plain, text, config, until)

    async def _events(self, called: Any, text: str, config: Any, until: int) -> None:
        seen = 0
        events = called.astream_events(text, config)
        try:
            async for _ in events:
                seen += 1
                if seen == until:
                    break
        finally:
            with anyio.CancelScope(shield=True):
                await events.aclose()

    async def read_message(self, text: str, config: Any, until: int) -> None:
        """Two readers, one of which leaves; then it is cancelled, or asked for."""
        async with self.model.astream_message(text, config) as stream:

            async def reader() -> None:
                with suppress(*EXPECTED):
                    async for _ in stream.text:
                        pass

            async with anyio.create_task_group() as group:
                group.start_soon(reader)
                seen = 0
                with suppress(*EXPECTED):
                    async for _ in stream.text:
                        seen += 1
                        if seen == until:
                            await stream.cancel()
                    await stream.message()

    async def invoke(self, text: str, config: Any, until: int) -> None:
        with get_usage_metadata_callback() as usage:
            await self.app.ainvoke(text, config)
            assert usage.usage_metadata

    async def invoke_model(self, text: str, config: Any, until: int) -> None:
        await self.model.ainvoke(text, config)

    @property
    def ways(self) -> list[Callable[[str, Any, int], Awaitable[None]]]:
        often = [self.read_chunks, self.read_events, self.read_message]
        return [*often, *often, self.invoke, self.invoke_model, self.read_sync_events]


async def one_stream(program: Program, book: Book, number: int) -> None:
    chance = random.Random(number)
    config: dict[str, Any] = {"callbacks": [book], "metadata": {"stream": number}}
    if chance.random() < 0.3:
        config["callbacks"].insert(chance.randrange(2), Bad(number))
    read = chance.choice(program.ways)
    until = chance.choice((1, 2, 5, 1000))
    patience = chance.choice((0.02, 0.2, 1.0, 60.0))
    with anyio.move_on_after(patience), suppress(*EXPECTED):
        await read(f"Question {number}", config, until)


def answers(count: int) -> list[Answer]:
    chance = random.Random(7)
    good = Answer("some words for an answer of the usual length", usage=None)
    kinds = [
        *[good] * 6,
        Answer(error=500),
        Answer("half an", error="server"),
        Answer("", tool_calls=[Call("look", {"city": "Oslo"})]),
    ]
    return [chance.choice(kinds) for _ in range(count)]


async def storm(provider: EmbeddedProvider, size: int) -> Book:
    """All streams at once; when it is over, so are the connections."""
    program, book = Program(provider.url), Book()
    async with program.model:
        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for number in range(size):
                    group.start_soon(one_stream, program, book, number)
    for _ in range(3):  # the model of sync calls lives on the other loop
        await anyio.to_thread.run_sync(program.model.close)
        await anyio.lowlevel.checkpoint()
    await anyio.to_thread.run_sync(provider.wait_closed, 20)
    check(book, program)
    return book


def check(book: Book, program: Program) -> None:
    assert book.wrong == []
    assert set(book.ends) == set(book.parents)
    assert set(book.ends.values()) == {1}
    for id, parent in book.parents.items():
        path = [book.names[id]]
        while parent is not None:
            assert book.owners[parent] == book.owners[id]
            path.append(book.names[parent])
            parent = book.parents[parent]
        assert tuple(reversed(path)) in program.paths


def leftovers() -> dict[str, Any]:
    """What must be the same before and after."""
    gc.collect()
    names = (f"{type(thing).__module__}.{type(thing).__name__}" for thing in gc.get_objects())
    ours = Counter(
        name
        for name in names
        if name.startswith("streamfold.") and not name.startswith("streamfold.testing.")
    )
    threads = Counter(
        thread.name.rstrip("0123456789-") for thread in threading.enumerate() if thread.is_alive()
    )
    threads.pop("AnyIO worker thread", None)  # kept for later use, up to a number
    threads = Counter({name: n for name, n in threads.items() if not name.startswith("Trio")})
    return {
        "tasks": tasks(),
        "sockets": sockets(),
        "threads": threads,
        "context": {
            var.name: value
            for var, value in copy_context().items()
            if var.name.startswith("streamfold")
        },
        "objects": ours,
    }


def tasks() -> int:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return int(trio.lowlevel.current_statistics().tasks_living)
    import asyncio

    return len(asyncio.all_tasks())


def sockets() -> int:
    here = "/proc/self/fd"
    if not os.path.isdir(here):
        return 0
    found = 0
    for name in os.listdir(here):
        with suppress(OSError):  # the one that lists the directory
            found += os.readlink(f"{here}/{name}").startswith("socket:")
    return found


async def settled() -> dict[str, Any]:
    """What is left, once threads and connections that are on their way out have gone."""
    last = None
    for _ in range(200):
        now = leftovers()
        if now == last:
            break
        last = now
        await anyio.sleep(0.1)
    return now


async def added(before: dict[str, Any]) -> dict[str, Any]:
    """What there is more than `before`, once what is on its way out has gone. Less is no fault:
    things of other tests may go meanwhile."""
    for _ in range(200):
        now = leftovers()
        more = {
            "tasks": max(now["tasks"] - before["tasks"], 0),
            "sockets": max(now["sockets"] - before["sockets"], 0),
            "threads": now["threads"] - before["threads"],  # of Counters: what is positive
            "objects": now["objects"] - before["objects"],
            "context": dict(now["context"].items() - before["context"].items()),
        }
        more = {what: extra for what, extra in more.items() if extra}
        if not more:
            break
        await anyio.sleep(0.1)
    return more


async def test_nothing_is_left_of_five_hundred_streams(caplog: pytest.LogCaptureFixture) -> None:
    """A small storm first, for what is made once; then a great one, after which everything is as
    it was: tasks, sockets, threads, context variables, objects and memory."""
    logging.getLogger("streamfold").setLevel(logging.CRITICAL)
    try:
        async with EmbeddedProvider(script=answers(8000), chunk_delay=0.002) as provider:
            await storm(provider, 60)
            before = await settled()
            blocks = sys.getallocatedblocks()
            begun = time.monotonic()
            book = await storm(provider, STREAMS)
            assert len(book.parents) > STREAMS  # it was a storm
            assert len(set(book.owners.values())) > 0.9 * STREAMS
            del book
            assert await added(before) == {}
            assert time.monotonic() - begun < 100
            provider.requests.clear()
            gc.collect()
            # Each stream made some hundred blocks; what stays are caches of the interpreter.
            assert sys.getallocatedblocks() - blocks < 20 * STREAMS
    finally:
        logging.getLogger("streamfold").setLevel(logging.NOTSET)
