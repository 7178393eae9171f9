"""The background loop of the sync API: results, errors, leaving early, threads, forks, exits."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from streamfold.net import portal

SRC = os.path.join(os.path.dirname(portal.__file__), "..", "..")


def lists_of(count: int, size: int = 3) -> Callable[[], AsyncIterator[list[int]]]:
    async def source() -> AsyncIterator[list[int]]:
        for start in range(0, count, size):
            await anyio.lowlevel.checkpoint()
            yield list(range(start, min(start + size, count)))

    return source


class Endless:
    """A source that ends only by being closed, slowly; it notes what happens to it."""

    def __init__(self) -> None:
        self.made = 0
        self.closed = threading.Event()
        self.thread: str | None = None

    async def __call__(self) -> AsyncIterator[list[int]]:
        self.thread = threading.current_thread().name
        try:
            while True:
                self.made += 1
                yield [self.made]
                await anyio.lowlevel.checkpoint()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            self.closed.set()


async def alive() -> int:
    """Tasks of the portal's loop."""
    return len(asyncio.all_tasks())


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    before = portal.run(alive)
    yield
    assert portal.run(alive) <= before


class TestRun:
    def test_returns_the_result(self) -> None:
        """What the coroutine returns comes back, from the one background thread."""

        async def where(one: int, two: int) -> tuple[int, str]:
            await anyio.lowlevel.checkpoint()
            return one + two, threading.current_thread().name

        assert portal.run(where, 1, 2) == (3, "streamfold-portal")

    def test_raises_the_error(self) -> None:
        """What it raises is raised here, the same object."""
        error = ValueError("no")

        async def fail() -> None:
            raise error

        with pytest.raises(ValueError, match="no") as caught:
            portal.run(fail)
        assert caught.value is error

    def test_works_inside_a_running_loop(self) -> None:
        """A notebook cell has a loop of its own; it is blocked, not broken."""

        async def cell() -> int:
            return portal.run(alive)

        assert asyncio.run(cell()) >= 1

    def test_survives_an_exit_in_a_call(self) -> None:
        """What ends a thread is raised to the caller, and the next call has a loop again."""

        async def leave() -> None:
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            portal.run(leave)
        assert portal.run(alive) >= 1

    def test_refuses_to_wait_for_itself(self) -> None:
        """A sync call on the background loop would block it for ever: it is an error."""

        async def inside() -> None:
            portal.run(alive)

        with pytest.raises(RuntimeError, match="wait for itself"):
            portal.run(inside)

    def test_many_threads_share_it(self) -> None:
        """Calls of many threads run at once, on one thread."""
        together = threading.Barrier(20, timeout=5)
        count = 0

        async def call(number: int) -> tuple[int, str]:
            nonlocal count
            count += 1
            while count < 20:  # all are here before any leaves
                await anyio.lowlevel.checkpoint()
            return number, threading.current_thread().name

        def one(number: int) -> tuple[int, str]:
            together.wait()
            return portal.run(call, number)

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(one, range(20)))
        assert results == [(number, "streamfold-portal") for number in range(20)]


class TestIterate:
    @pytest.mark.parametrize("count", [0, 1, 3, 1000])
    def test_hands_out_all_in_order(self, count: int) -> None:
        """Items come one by one, in the order of the lists."""
        assert list(portal.iterate(lists_of(count))) == list(range(count))

    def test_raises_after_what_came_before(self) -> None:
        """Nothing that was handed over before an error is lost."""

        async def source() -> AsyncIterator[list[int]]:
            yield [1, 2]
            raise ValueError("no")

        iterator = portal.iterate(source)
        assert (next(iterator), next(iterator)) == (1, 2)
        with pytest.raises(ValueError, match="no"):
            next(iterator)
        assert list(iterator) == []

    def test_a_source_that_cannot_start(self) -> None:
        """An error before the first item is raised, and nobody waits for ever."""

        def source() -> AsyncIterator[list[int]]:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            next(portal.iterate(source))

    def test_a_source_that_cannot_be_closed(self) -> None:
        """An error while closing does not keep the consumer waiting."""

        class Source:
            def __aiter__(self) -> Source:
                return self

            async def __anext__(self) -> list[int]:
                return [1]

            async def aclose(self) -> None:
                raise ValueError("no")

        before = time.monotonic()
        for _ in portal.iterate(Source):
            break
        assert time.monotonic() - before < 1

    @pytest.mark.parametrize("leave", ["break", "close", "error", "drop"])
    def test_leaving_waits_until_it_is_closed(self, leave: str) -> None:
        """When the consumer is out of the loop, the source has been closed, by its own task."""
        source = Endless()

        def read() -> None:
            iterator = portal.iterate(source)
            for item in iterator:
                if item == 3:
                    if leave == "error":
                        raise ValueError("enough")
                    break
            if leave == "close":
                iterator.close()

        if leave == "error":
            with pytest.raises(ValueError, match="enough"):
                read()
        else:
            read()
        assert source.closed.is_set()
        assert source.thread == "streamfold-portal"

    def test_waits_for_a_slow_consumer(self) -> None:
        """Only so much is read ahead of a consumer that takes its time."""
        source = Endless()
        iterator = portal.iterate(source)
        assert next(iterator) == 1
        made = -1
        while made != source.made:  # until it stands still
            made = source.made
            for _ in range(100):
                portal.run(alive)
        assert made < 40
        assert [next(iterator) for _ in range(100)] == list(range(2, 102))
        iterator.close()
        assert source.closed.is_set()

    def test_one_that_is_never_read_starts_nothing(self) -> None:
        """The source is called when the first item is asked for."""
        source = Endless()
        iterator = portal.iterate(source)
        iterator.close()
        assert source.thread is None

    def test_many_at_once(self) -> None:
        """Iterations of many threads do not mix."""

        def one(number: int) -> bool:
            return list(portal.iterate(lists_of(200, number + 1))) == list(range(200))

        with ThreadPoolExecutor(10) as pool:
            assert all(pool.map(one, range(10)))

    def test_two_in_one_thread(self) -> None:
        """Two iterations may be read in turns."""
        one, two = portal.iterate(lists_of(50, 1)), portal.iterate(lists_of(50, 7))
        assert [*zip(one, two, strict=True)] == [(n, n) for n in range(50)]


# ---- signals, forks and exits: in a process of their own -----------------------------------------


def python(
    code: str, *, interrupt_at: str | None = None, measured: bool = True
) -> tuple[str, str, int, float]:
    """Run `code`; once it has printed `interrupt_at`, send it a Ctrl-C. What it printed, its exit
    code, and the seconds from then (or the start) to its end. Coverage follows it if `measured`."""
    env = {**os.environ, "PYTHONPATH": SRC}
    if not measured:
        env = {name: value for name, value in env.items() if not name.startswith("COV")}
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    before = ""
    if interrupt_at is not None:
        before = process.stdout.readline()
        assert before.strip() == interrupt_at, process.communicate(timeout=10)
        process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    out, err = process.communicate(timeout=20)
    return before + out, err, process.returncode, time.monotonic() - begin


def test_ctrl_c_in_a_call() -> None:
    """Ctrl-C cancels the call, waits for its end, and the loop goes on to serve."""
    out, err, code, _ = python(
        """
        import anyio
        from streamfold.net import portal

        async def hang():
            try:
                print("waiting", flush=True)
                await anyio.sleep(60)
            finally:
                print("cancelled", flush=True)

        async def hello():
            return "hello"

        try:
            portal.run(hang)
        except KeyboardInterrupt:
            print(portal.run(hello))
        """,
        interrupt_at="waiting",
    )
    assert out.split() == ["waiting", "cancelled", "hello"]
    assert (err, code) == ("", 0)


def test_exit_with_an_open_iteration() -> None:
    """A program that ends in the middle of a stream ends at once, and says nothing."""
    out, err, code, seconds = python(
        """
        import anyio
        from streamfold.net import portal

        async def source():
            try:
                yield [1]
                await anyio.sleep(60)
            finally:
                print("closed", flush=True)

        iterator = portal.iterate(source)
        print(next(iterator), flush=True)
        """
    )
    assert out.split() == ["1", "closed"]
    assert (err, code) == ("", 0)
    assert seconds < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork_the_loop_is_made_anew() -> None:
    """Parent and child each have a loop that works, also if the fork came in the middle of one."""
    out, err, code, _ = python(
        """
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads
        from streamfold.net import portal

        async def where():
            return threading.get_native_id()

        async def source():
            yield [1]
            yield [2]

        parent = portal.run(where)
        iterator = portal.iterate(source)
        next(iterator)
        child = os.fork()
        if child == 0:
            again = portal.run(where)
            print("child", again != parent and list(portal.iterate(source)) == [1, 2], flush=True)
            sys.exit()  # with an iteration open that is the parent's
        begin = time.monotonic()
        code = os.waitpid(child, 0)[1]
        print(code, time.monotonic() - begin < 4, flush=True)
        print("parent", portal.run(where) == parent and list(iterator) == [2], flush=True)
        """
    )
    assert out.split() == ["child", "True", "0", "True", "parent", "True"]
    assert (err, code) == ("", 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")
def test_an_interrupt_at_any_moment_leaves_nothing() -> None:
    """Wherever an interrupt strikes, while a call starts, waits or ends, no task is left."""
    out, err, code, _ = python(
        """
        import anyio, asyncio, random, signal, time
        from streamfold.net import portal

        async def alive():
            return len(asyncio.all_tasks())

        async def source():
            while True:
                yield [1]
                await anyio.sleep(0)

        def strike(*_):
            raise KeyboardInterrupt

        before = portal.run(alive)
        signal.signal(signal.SIGALRM, strike)
        rng = random.Random(1)
        struck = 0
        for turn in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 1.5e-3))
                if turn % 2:
                    portal.run(anyio.sleep, 60)
                else:
                    for _ in portal.iterate(source):
                        pass
            except KeyboardInterrupt:
                struck += 1
        for _ in range(1000):
            left = portal.run(alive) - before
            if not left:
                break
        print(struck, left)
        """,
        measured=False,  # an interrupt within a lock of coverage would leave it locked
    )
    assert out.split() == ["300", "0"]
    assert (err, code) == ("", 0)
