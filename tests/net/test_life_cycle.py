"""What life does to a client: streams left, dropped, cancelled and never closed; a failure at every
single await. Afterwards the same sockets, tasks and threads are there as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import warnings
from collections.abc import Coroutine, Generator, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from faults import Act, FaultServer, Wire
from says import DIALECTS, HALF, WHOLE, Dialect, half

from streamfold import init_chat_model
from streamfold.errors import StreamfoldError
from streamfold.net import clock

pytestmark = pytest.mark.usefixtures("transport")

KEY = "canary-0123456789"
SAY = DIALECTS["openai"]
MODES = ["asyncio", "trio", "sync"]


async def fine(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


async def silent(wire: Wire, say: Dialect) -> None:
    await wire.hang()


async def endless(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(half(say))
    while True:
        await wire.part(say.delta("."))
        await wire.pause(0.01)


async def refused_once(wire: Wire, say: Dialect) -> None:
    if wire.number % 2:
        await wire.reply(503, say.failure("server_error"), {"retry-after-ms": "1"})
    else:
        await wire.answer(say)


async def cut(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(half(say))


async def packed(wire: Wire, say: Dialect) -> None:
    import gzip

    await wire.reply(200, gzip.compress(say.whole()), {"content-encoding": "gzip"})


@contextlib.contextmanager
def serving(act: Act, **fields: Any) -> Iterator[tuple[FaultServer, Any]]:
    """A server and a model of it; the server is left with no connection open."""
    with FaultServer(act, SAY) as server:
        yield server, init_chat_model(SAY.model, api_key=KEY, base_url=server.url, **fields)
        server.wait_open(0)


# ---- left and dropped ----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_twenty_streams_left_and_kept(backend: str) -> None:
    """Leaving the loop closes the connection, even of streams that are kept (L1)."""
    with serving(endless) as (server, model):

        async def main() -> None:
            streams = [model.astream("hi") for _ in range(20)]
            for stream in streams:
                text = ""
                async for chunk in stream:
                    text += chunk.text
                    if text == HALF:
                        break
                await anyio.to_thread.run_sync(server.wait_open, 0, 0.5)
            assert len(server.requests) == len(server.left) == 20

        with warnings.catch_warnings():  # trio warns of every generator that is dropped
            warnings.filterwarnings("ignore", "Async generator .* was garbage collected")
            anyio.run(main, backend=backend)
            gc.collect()


def test_a_stream_that_is_dropped_says_so() -> None:
    """A stream that was begun by hand and is dropped closes its connection, and warns once (L2);
    one that came to its end, was closed, or was never begun does not."""
    with serving(endless) as (server, model):

        async def main() -> None:
            stream = model.astream("hi")
            await anext(stream)
            with pytest.warns(ResourceWarning, match="never closed") as caught:
                del stream
            assert len(caught) == 1
            await anyio.to_thread.run_sync(server.wait_open, 0, 0.5)
            stream = model.astream("hi")
            await anext(stream)
            await stream.aclose()
            del stream
            stream = model.astream("hi")
            del stream

        anyio.run(main)


# ---- cancelled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "rounds",
    [pytest.param(20, id="some"), pytest.param(1000, id="all", marks=pytest.mark.matrix)],
)
def test_cancelled_in_the_middle_again_and_again(backend: str, rounds: int) -> None:
    """Five streams at once, cancelled once each has text: no trace, and the next round is as quick
    as the first (L3)."""
    with serving(endless) as (server, model):

        async def read(ready: anyio.Semaphore) -> None:
            text = ""
            async for chunk in model.astream("hi"):
                text += chunk.text
                if text == HALF:
                    ready.release()

        async def main() -> None:
            for number in range(1, rounds + 1):
                ready = anyio.Semaphore(0)
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(read, ready)
                    for _ in range(5):
                        await ready.acquire()
                    group.cancel_scope.cancel()
                assert len(server.requests) == 5 * number
            await anyio.to_thread.run_sync(server.wait_open, 0, 1.0)

        anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_while_they_wait(backend: str) -> None:
    """150 calls of which five may be in flight, cancelled as they wait: for their turn, or for the
    head of an answer (L4)."""
    with serving(silent) as (server, model):

        async def main() -> None:
            async with anyio.create_task_group() as group:
                inputs, config = ["hi"] * 150, {"max_concurrency": 5}
                group.start_soon(lambda: model.abatch(inputs, config))
                await anyio.to_thread.run_sync(server.wait_for, lambda: len(server.requests) == 5)
                group.cancel_scope.cancel()
            await anyio.to_thread.run_sync(server.wait_open, 0, 0.5)
            assert len(server.requests) == 5

        anyio.run(main, backend=backend)


# ---- a failure at every await --------------------------------------------------------------------


class Torture(OSError):
    """What fails."""


class Failing:
    """Awaits a coroutine, and raises an error inside it at its `place`-th suspension (from 1), as
    if what it waits for had failed. `reached` says whether there was one."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], place: int, error: Exception) -> None:
        self.reached = False
        self._coroutine = coroutine
        self._place = place
        self._error = error

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        try:
            waits_for = next(steps)
            count = 1
            while True:
                if count == self._place:
                    self.reached = True
                    self._forget(waits_for)
                    waits_for = steps.throw(self._error)
                else:
                    try:
                        value = yield waits_for
                    except BaseException as error:
                        waits_for = steps.throw(error)
                    else:
                        waits_for = steps.send(value)
                count += 1
        except StopIteration as stop:
            return stop.value

    @staticmethod
    def _forget(waits_for: Any) -> None:
        if waits_for is not None:  # None: it only lets others have their turn
            waits_for._asyncio_future_blocking = False


@pytest.mark.parametrize(
    ("method", "act"),
    [
        *(("astream", act) for act in (fine, refused_once, cut, packed)),
        ("ainvoke", fine),
        # One step of the engine serves both methods: these differ in how the answer is folded.
        *(
            pytest.param("ainvoke", act, marks=pytest.mark.matrix)
            for act in (refused_once, cut, packed)
        ),
    ],
)
def test_torture(act: Act, method: str, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each await of a call fails in turn. What comes out is that failure or an error of ours, and
    no socket, task or thread stays."""
    monkeypatch.setattr(clock, "GRACE", 0.05)
    threads = threading.active_count()
    with FaultServer(act, SAY) as server:

        async def call(model: Any) -> None:
            if method == "ainvoke":
                await model.ainvoke("hi")
            else:
                async for _ in model.astream("hi"):
                    pass

        async def main(place: int) -> bool:
            model = init_chat_model(SAY.model, api_key=KEY, base_url=server.url, max_retries=1)
            failing = Failing(call(model), place, Torture())
            with contextlib.suppress(Torture, StreamfoldError):
                await failing
            await model.aclose()
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(asyncio.all_tasks()) == 1
            return failing.reached

        place = 1
        while asyncio.run(main(place)):
            place += 1
            assert place < 2000
        server.wait_open(0)
        assert place > (5 if transport == "auto" else 3)  # aiohttp waits less often
        gc.collect()
    assert threading.active_count() <= threads


# ---- in a row ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    ["asyncio", *(pytest.param(mode, marks=pytest.mark.matrix) for mode in ("trio", "sync"))],
)
def test_a_thousand_streams_on_one_connection(mode: str) -> None:
    """Streams one after the other share a connection (L14)."""
    with serving(fine) as (server, model):

        async def main() -> None:
            for _ in range(1000):
                async for _ in model.astream("hi"):
                    pass

        if mode == "sync":
            for _ in range(1000):
                assert "".join(chunk.text for chunk in model.stream("hi")) == WHOLE
            model.close()
        else:
            anyio.run(main, backend=mode)
        assert (len(server.requests), server.connections) == (1000, 1)
