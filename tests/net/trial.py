"""Running a row of the catalogue: the calls, and what must be true after them.

Whatever happens: the error is of our tree, what had arrived is in `.partial`, nothing keeps
running, no connection stays open that should not, and the key is in no text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from catalogue import Fault
from faults import FaultServer
from says import DIALECTS

from streamfold import AIMessageChunk, init_chat_model
from streamfold.errors import ConnectError, StreamfoldError
from streamfold.net import portal

KEY = "canary-7f3a-0123456789-key"  # of no vendor's shape: only its value can give it away

#: Seconds that no call may outlive its limit by (reliability.md, "Time"). Where coverage follows
#: each line, seconds are no measure of the code; then only a call that hangs is found.
SLACK = 0.25 if sys.gettrace() is None else 20.0


@dataclass
class Outcome:
    """What a call came to."""

    message: Any = None
    error: StreamfoldError | None = None
    seconds: float = 0.0


def make_model(fault: Fault, server: FaultServer, **fields: Any) -> Any:
    told = {**server.say.fields, **fault.model, **fields}
    given = {"api_key": KEY, "base_url": server.url, **told}
    return init_chat_model(server.say.model, **given)


@contextmanager
def timed(outcome: Outcome) -> Iterator[None]:
    begin = time.monotonic()
    try:
        yield
    except StreamfoldError as error:
        outcome.error = error
    finally:
        outcome.seconds = time.monotonic() - begin


async def stream_once(model: Any, server: FaultServer) -> Outcome:
    outcome, full = Outcome(), AIMessageChunk()
    with timed(outcome):
        async for chunk in model.astream("hi"):
            full = full + chunk
            server.show(full.text)
        outcome.message = full.to_message()
    return outcome


def stream_once_sync(model: Any, server: FaultServer) -> Outcome:
    outcome, full = Outcome(), AIMessageChunk()
    with timed(outcome):
        for chunk in model.stream("hi"):
            full = full + chunk
            server.show(full.text)
        outcome.message = full.to_message()
    return outcome


def tasks_alive() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


def settled(server: FaultServer, fault: Fault) -> None:
    """Wait until the server sees what the client did to its connections."""
    low, high = fault.open

    def right() -> bool:
        most = max(high, 1) if fault.read_ahead and server.whole else high
        return low <= server.open_connections <= most

    server.wait_for(right, timeout=0.5)
    gc.collect()  # what was dropped half way warns now


async def in_loop(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The calls of a row in the running loop, and that nothing of them is left in it."""
    return await called(fault, server, make_model(fault, server))


async def by_own_client(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The same through a client that the caller has made."""
    async with httpx.AsyncClient() as client:
        return await called(fault, server, make_model(fault, server, http_client=client))


async def over_aiohttp(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The same over the other transport of ours."""
    return await called(fault, server, make_model(fault, server, transport="aiohttp"))


#: What the second half of a mode says.
WAYS = {"": in_loop, "own": by_own_client, "aiohttp": over_aiohttp}


async def called(fault: Fault, server: FaultServer, model: Any) -> list[Outcome]:
    outcomes = []
    with anyio.fail_after(20):
        for _ in range(fault.calls):
            before = tasks_alive()
            outcomes.append(await stream_once(model, server))
            await anyio.to_thread.run_sync(settled, server, fault)
            await anyio.lowlevel.checkpoint()
            assert tasks_alive() <= before
    return outcomes


async def _portal_tasks() -> int:
    return len(asyncio.all_tasks())


def in_thread(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The same by the sync methods."""
    model = make_model(fault, server)
    outcomes = []
    watchdog = threading.Timer(20, server.stop)
    watchdog.start()
    try:
        for _ in range(fault.calls):
            before = portal.run(_portal_tasks)
            outcomes.append(stream_once_sync(model, server))
            settled(server, fault)
            assert portal.run(_portal_tasks) <= before
    finally:
        watchdog.cancel()
        model.close()
    return outcomes


def run(fault: Fault, server: FaultServer, mode: str) -> list[Outcome]:
    if mode == "sync":
        return in_thread(fault, server)
    backend, _, way = mode.partition("-")
    return anyio.run(WAYS[way], fault, server, backend=backend)


#: What comes of a row over aiohttp, where that is something else. It takes no answer that has two
#: lengths, where we go by the chunks and by nothing else that comes on the connection.
OVER_AIOHTTP: dict[str, dict[str, Any]] = {
    "two-framings": {"error": ConnectError, "text": None, "says": {}, "calls": 1}
    | {"requests": 3, "connections": 3, "open": (0, 0)},
}


def judge(fault: Fault, server: FaultServer, outcomes: list[Outcome]) -> None:
    """What came of it is what the row says."""
    for outcome in outcomes:
        if outcome.error is not None and fault.error is None:
            raise outcome.error
        expected = fault.error or type(None)
        assert type(outcome.error) in (expected if isinstance(expected, tuple) else (expected,))
        result = outcome.message if outcome.error is None else outcome.error.partial
        if fault.text is None:
            assert result is None
        elif fault.check is None or fault.text == "":
            assert result.text == fault.text
        if outcome.error is not None and result is not None:
            assert result.finish_reason == "error"
        if fault.check is not None:
            fault.check(result)
        said = outcome.message if outcome.error is None else outcome.error
        says = dict(fault.says)
        if says.get("type") is not None:
            says["type"] = server.say.word(says["type"])
        assert {name: getattr(said, name) for name in says} == says
        low, high = fault.seconds
        if fault.pause is not None:
            low, high = min(low, fault.pause[0]), high + fault.pause[1]
        assert low <= outcome.seconds <= high + SLACK
    bounds = fault.requests if isinstance(fault.requests, tuple) else (fault.requests,) * 2
    assert bounds[0] <= len(server.requests) <= bounds[1]
    if fault.connections is not None:
        assert server.connections == fault.connections
    if fault.bytes_sent is not None:
        assert server.bytes_sent <= fault.bytes_sent
    if fault.pause is not None:
        waited = server.requests[1].at - server.requests[0].at
        assert fault.pause[0] <= waited <= fault.pause[1] + SLACK


def texts_of(error: BaseException, *, with_locals: bool) -> Iterator[str]:
    """All text that an error can be turned into, and that of whatever it stands in a chain with;
    also what the frames of its traceback hold, as crash reporters show it."""
    seen: BaseException | None = error
    while seen is not None:
        yield str(seen)
        yield repr(seen)
        yield repr(seen.args)
        yield repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    yield "".join(traceback.format_exception(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in shown.stack:
        if with_locals and "/streamfold/" in frame.filename:
            yield repr(frame.locals)
    yield pickle.dumps(error).decode("latin-1")


def no_key_in(
    outcomes: list[Outcome], log: pytest.LogCaptureFixture, *, with_locals: bool = True
) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            texts = texts_of(outcome.error, with_locals=with_locals)
            assert not [text for text in texts if KEY in text]
            again = pickle.loads(pickle.dumps(outcome.error))
            assert (type(again), str(again)) == (type(outcome.error), str(outcome.error))
            assert again.partial == outcome.error.partial
    assert KEY not in log.text


def trial(
    fault: Fault, dialect: str, mode: str, log: pytest.LogCaptureFixture
) -> tuple[FaultServer, list[Outcome]]:
    if mode.endswith("-aiohttp"):
        pytest.importorskip("aiohttp")
        fault = dataclasses.replace(fault, read_ahead=True, **OVER_AIOHTTP.get(fault.name, {}))
    with FaultServer(fault.act, DIALECTS[dialect]) as server:
        outcomes = run(fault, server, mode)
        judge(fault, server, outcomes)
        no_key_in(outcomes, log)
        if mode != "sync":
            server.wait_open(0)  # the loop has ended, and its connections with it
    return server, outcomes
