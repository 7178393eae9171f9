"""What no fault may cost: memory over the limits, other tasks' time, more than linear work."""

from __future__ import annotations

import sys
import time
import tracemalloc

import anyio
import anyio.lowlevel
import pytest
from catalogue import FAULTS
from catalogue.base import KIB, MIB, SMALL
from catalogue.compression import bomb
from faults import FaultServer
from says import DIALECTS
from trial import make_model, stream_once

from streamfold.errors import StreamfoldError
from streamfold.vendors import DIALECTS as MODULES
from streamfold.vendors import dialect
from streamfold.wire.sse import SSEFramer

#: The faults whose size is what is wrong with them.
LARGE = (
    "line-unbounded event-unbounded body-unbounded comments-unbounded tool-args-unbounded "
    "json-unbounded json-deep head-huge head-many gzip-bomb http-400-flood http-400-gzip-bomb "
    "frame-too-large frame-over-the-limit many-deltas event-1-mib-small-reads"
).split()
#: Seconds; where coverage follows each line, they are no measure of the code.
BLOCKED = 0.05 if sys.gettrace() is None else 1.0
EXTRA = 16 * MIB  # of memory, beyond what the limits allow to be kept


#: In one dialect each that they apply to; in all of them in the matrix.
each_large = pytest.mark.parametrize(
    ("name", "say"),
    [
        pytest.param(name, say, marks=[pytest.mark.matrix] if place else [])
        for name in LARGE
        for place, say in enumerate(FAULTS[name].dialects)
    ],
)


@pytest.mark.usefixtures("quick_retries", "transport")
@each_large
def test_memory(name: str, say: str) -> None:
    """A size fault takes no more than the limits and a few MiB, however much was sent."""
    fault = FAULTS[name]
    bomb(DIALECTS[say])  # it is made once, and not by the client
    with FaultServer(fault.act, DIALECTS[say]) as server:
        model = make_model(fault, server, limits=SMALL, max_retries=0)

        async def main() -> int:
            await stream_once(model, server)  # what is loaded or learnt once does not count
            tracemalloc.start()
            try:
                await stream_once(model, server)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        assert anyio.run(main) < SMALL.message_bytes + EXTRA


@pytest.mark.usefixtures("quick_retries", "transport")
@each_large
def test_other_tasks_go_on(name: str, say: str) -> None:
    """No fault keeps the loop to itself for more than 50 ms of its thread's time, which does not
    count what other threads and processes do."""
    fault = FAULTS[name]
    bomb(DIALECTS[say])
    gaps: list[float] = []
    longest: list[float] = []

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await anyio.lowlevel.checkpoint()
            gaps.append(time.thread_time() - before)

    async def main(server: FaultServer) -> None:
        model = make_model(fault, server, max_retries=0)
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            for _ in range(6):
                gaps.clear()
                outcome = await stream_once(model, server)
                assert (outcome.error is None) == (fault.error is None)
                longest.append(max(gaps))
                if longest[-1] < BLOCKED:
                    break  # what is done once does not count, nor does a slow moment
            group.cancel_scope.cancel()

    with FaultServer(fault.act, DIALECTS[say]) as server:
        anyio.run(main, server)
    assert min(longest) < BLOCKED


#: What dialects are called here whose module has another name.
SPOKEN = {"openai_chat": "openai", "openai_responses": "responses"}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("ended", [True, False])
def test_a_long_line_takes_linear_time(name: str, ended: bool) -> None:
    """Six times the bytes of one event, in small reads, take about six times the time: far from the
    36 times of a line that is looked at again with each read."""
    say = DIALECTS[SPOKEN.get(name, name)]

    def seconds(size: int) -> float:
        frames = b"".join(say.start()) + say.delta("x" * size)
        body = frames if ended else frames[: len(frames) - 40]
        reads = [body[place : place + 4 * KIB] for place in range(0, len(body), 4 * KIB)]
        best = float("inf")
        for _ in range(3):
            decoder = dialect(name).Decoder()
            begin = time.process_time()
            for read in reads:
                decoder.feed(read)
            best = min(best, time.process_time() - begin)
            assert decoder.error is None
        return best

    assert seconds(12 * MIB) < 15 * max(seconds(2 * MIB), 0.005)


def test_an_endless_line_is_not_read_again() -> None:
    """The framer looks at each byte once, and keeps no more than its limit."""
    framer = SSEFramer(MIB)
    tracemalloc.start()
    try:
        framer.feed(b"data: ")
        while framer.error is None:
            framer.feed(b"x" * KIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB
    assert isinstance(framer.error, StreamfoldError)
