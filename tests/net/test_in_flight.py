"""Places for calls: never too many, first come, first served, and none is ever lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.net.in_flight import InFlight

pytestmark = pytest.mark.anyio


class Count:
    """How many hold a place now, and the most that ever did."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        yield
        with self._lock:
            self.now -= 1


async def all_free(places: InFlight) -> bool:
    """Whether every place can be taken, and no more than that."""
    with anyio.fail_after(2):
        for _ in range(places.size):
            await places.acquire()
    with anyio.move_on_after(0) as scope:
        await places.acquire()
    for _ in range(places.size):
        places.release()
    return scope.cancelled_caught


async def test_first_come_first_served() -> None:
    """Places are given in the order in which they were asked for."""
    places, order = InFlight(1), []
    await places.acquire()

    async def one(number: int) -> None:
        await places.acquire()
        order.append(number)
        places.release()

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
            await anyio.wait_all_tasks_blocked()
        places.release()
    assert order == list(range(10))


async def test_nobody_overtakes_the_queue() -> None:
    """A place that is handed on is not free for whoever comes by meanwhile."""
    places, order = InFlight(1), []
    await places.acquire()

    async def one(name: str) -> None:
        await places.acquire()
        order.append(name)
        places.release()

    async with anyio.create_task_group() as group:
        group.start_soon(one, "first")
        await anyio.wait_all_tasks_blocked()
        places.release()
        await one("late")
    assert order == ["first", "late"]


@pytest.mark.parametrize("given_place", [False, True])
async def test_cancelled_while_waiting(given_place: bool) -> None:
    """Whoever is cancelled in the queue has no place, also if one was just being handed over."""
    places = InFlight(2)
    await places.acquire()
    await places.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(places.acquire)
        await anyio.wait_all_tasks_blocked()
        if given_place:
            places.release()
        group.cancel_scope.cancel()
    places.release()
    if not given_place:
        places.release()
    assert await all_free(places)


@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=20))
def test_none_is_lost(size: int, calls: list[tuple[int, bool]]) -> None:
    """Whatever is held and cancelled, the limit holds, and in the end every place is free."""

    async def main() -> None:
        places, count = InFlight(size), Count()

        async def one(turns: int) -> None:
            await places.acquire()
            try:
                with count.one():
                    for _ in range(turns):
                        await anyio.lowlevel.cancel_shielded_checkpoint()
            finally:
                places.release()

        async with anyio.create_task_group() as group:
            for turns, cancelled in calls:
                if cancelled:
                    with anyio.move_on_after(0):
                        await one(turns)
                else:
                    group.start_soon(one, turns)
                await anyio.lowlevel.checkpoint()
        assert count.most <= size
        assert await all_free(places)

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)


def test_many_loops_at_once() -> None:
    """Threads with loops of both kinds share one limit."""
    places, count = InFlight(3), Count()

    async def one() -> None:
        await places.acquire()
        with count.one():
            await anyio.lowlevel.checkpoint()
        places.release()

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(one)

    threads = [
        threading.Thread(target=anyio.run, args=(main,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio") * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert 1 <= count.most <= 3
    assert anyio.run(all_free, places)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_has_ended(backend: str) -> None:
    """Who waited in it is passed over."""
    import asyncio

    places = InFlight(1)
    anyio.run(places.acquire, backend=backend)
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(places.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    places.release()
    assert anyio.run(all_free, places, backend=backend)
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]
    waiting.get_coro().close()  # type: ignore[union-attr]
    assert anyio.run(all_free, places, backend=backend)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_process_starts_anew() -> None:
    """The calls that were under way are the parent's."""
    places = InFlight(1)
    anyio.run(places.acquire)
    child = os.fork()
    if child == 0:
        os._exit(0 if anyio.run(all_free, places) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
