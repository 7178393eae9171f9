"""One limit for several processes, with a real server: Debian's `redis-server`."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from streamfold import init_chat_model
from streamfold.errors import ConfigurationError, ConnectError, RequestTimeoutError
from streamfold.limits import Timeouts
from streamfold.rate_limiters import RateLimiter, RedisRateLimiter
from streamfold.testing import Answer, EmbeddedProvider, Failure

redis = pytest.importorskip("redis", reason="the package redis is not installed")

BINARY = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(BINARY is None, reason="redis-server is not installed")

#: Seconds by which a turn may be late and still counts (see `redis._GRACE`).
GRACE = 0.1


class Server:
    """A `redis-server` on a free port of the loopback interface, which keeps nothing."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        keep = ["--save", "", "--appendonly", "no"]
        command = [str(BINARY), *where, *keep, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server does not start"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.client.close()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """One server for all tests, empty for each."""
    shared_server.client.flushall()
    return shared_server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.stop()


def assert_within(times: list[float], rate: float, burst: float) -> None:
    """No window of any length has more turns than the rate for its length and the burst."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            window = times[last] - times[first] + GRACE
            assert last - first + 1 <= rate * window + burst + 1e-6


# ---- one process ---------------------------------------------------------------------------------


def test_a_burst_then_the_rate(server: Server) -> None:
    """As the limiter of one process does it; a rest fills the bucket and no more."""
    limiter = RedisRateLimiter(server.url, requests_per_second=25, max_bucket_size=3)
    assert isinstance(limiter, RateLimiter)
    for _ in range(2):
        begin = time.monotonic()
        times = []
        for _ in range(6):
            assert limiter.acquire()
            times.append(time.monotonic() - begin)
        assert times[5] >= 3 / 25
        assert_within(times, 25, 3)
        time.sleep(0.3)


@pytest.mark.anyio
async def test_a_full_queue_is_served_in_its_order(server: Server) -> None:
    """Tasks of asyncio and trio: first come, first served."""
    limiter = RedisRateLimiter(server.url, requests_per_second=25)
    got: list[int] = []

    async def one(place: int) -> None:
        await limiter.aacquire()
        got.append(place)

    async with anyio.create_task_group() as group:
        for place in range(10):
            group.start_soon(one, place)
            await anyio.sleep(0.002)
    assert got == list(range(10))


@pytest.mark.anyio
async def test_not_blocking(server: Server) -> None:
    """False at once, and the next one waits no longer for it."""
    limiter = RedisRateLimiter(server.url, requests_per_second=4)
    assert await limiter.aacquire(blocking=False) is True
    for _ in range(20):
        assert await limiter.aacquire(blocking=False) is False
        assert limiter.acquire(blocking=False) is False
    begin = time.monotonic()
    await limiter.aacquire()
    assert time.monotonic() - begin < 2


@pytest.mark.anyio
async def test_a_cancelled_wait_gives_its_turn_back(server: Server) -> None:
    """To whoever comes next."""
    limiter = RedisRateLimiter(server.url, requests_per_second=2)
    await limiter.aacquire()
    begin = time.monotonic()
    with anyio.move_on_after(0.05):
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(limiter.aacquire)
    assert time.monotonic() - begin < 2
    await limiter.aacquire()
    assert time.monotonic() - begin < 2, "ten turns of half a second were given back"


@pytest.mark.anyio
async def test_back_off_holds_those_who_wait_too(server: Server) -> None:
    """In every process that has the limit; one client stands for another process here."""
    waiting = RedisRateLimiter(server.url, requests_per_second=4)
    other = RedisRateLimiter(server.url, requests_per_second=4)
    waiting.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(waiting.aacquire)
        group.start_soon(waiting.aacquire)
        await anyio.sleep(0.05)
        begin = time.monotonic()
        await other.back_off(0.7)
    assert time.monotonic() - begin >= 0.7 + 0.25


def test_names_and_prefixes_are_limits_of_their_own(server: Server) -> None:
    """And all keys are under the prefix, and go by themselves."""
    limits = [
        RedisRateLimiter(server.url, name="a"),
        RedisRateLimiter(server.url, name="b"),
        RedisRateLimiter(server.client, name="a", prefix="app:"),
    ]
    assert [limiter.acquire(blocking=False) for limiter in limits] == [True] * 3
    assert [limiter.acquire(blocking=False) for limiter in limits] == [False] * 3
    keys = {key.decode(): server.client.pttl(key) for key in server.client.scan_iter()}
    assert set(keys) == {"streamfold:limiter:{a}", "streamfold:limiter:{b}", "app:{a}"}
    assert all(0 < left <= 62_000 for left in keys.values())


@pytest.mark.anyio
async def test_a_model_with_the_limiter(server: Server) -> None:
    """Its requests take turns, and a 429 holds the next one back."""
    limiter = RedisRateLimiter(server.url, requests_per_second=100, max_bucket_size=10)
    script = [Answer(error=Failure("rate_limit", retry_after=0.3)), "fine"]
    async with EmbeddedProvider(script=script) as provider:
        model = init_chat_model(
            "gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", rate_limiter=limiter
        )
        begin = time.monotonic()
        assert (await model.ainvoke("hi")).text == "fine"
        assert time.monotonic() - begin >= 0.3


# ---- four processes ------------------------------------------------------------------------------

WORKER = """
import sys, time
import anyio
from streamfold.rate_limiters import RedisRateLimiter

limiter = RedisRateLimiter(sys.argv[1], requests_per_second=40, max_bucket_size=4)

def line(asked):
    print(asked, time.monotonic(), flush=True)

async def one():
    asked = time.monotonic()
    await limiter.aacquire()
    line(asked)

async def main():
    async with anyio.create_task_group() as group:
        for _ in range(15):
            group.start_soon(one)
            await anyio.sleep(0.01)

if sys.argv[2] == "sync":
    for _ in range(15):
        asked = time.monotonic()
        limiter.acquire()
        line(asked)
else:
    anyio.run(main, backend=sys.argv[2])
"""


def test_four_processes_share_a_limit(server: Server) -> None:
    """Sync, asyncio and trio together: no window exceeds the limit and the burst, nobody is
    starved, and who asked long before another is served before."""
    kinds = ["sync", "sync", "asyncio", "trio"]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, server.url, kind], stdout=subprocess.PIPE, text=True
        )
        for kind in kinds
    ]
    lines = [line for worker in workers for line in worker.communicate(timeout=60)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0] * 4
    visits = sorted(tuple(map(float, line.split())) for line in lines)
    assert len(visits) == 60
    assert_within(sorted(got for _, got in visits), 40, 4)
    for (asked, got), (later, later_got) in pairwise(visits):
        assert later_got >= got - GRACE or later - asked < GRACE


# ---- when it is gone -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_server_that_is_gone_is_a_clear_error(own_server: Server) -> None:
    """By default: it says where, and shows no password."""
    url = own_server.url.replace("redis://", "redis://:secret-word@")
    limiter = RedisRateLimiter(url)
    own_server.stop()
    for acquire in (limiter.aacquire, lambda: anyio.to_thread.run_sync(limiter.acquire)):
        with pytest.raises(ConnectError, match=f"Redis at 127.0.0.1:{own_server.port}") as caught:
            await acquire()
        assert "secret-word" not in f"{caught.value!r} {limiter!r}"
    await limiter.back_off(1)
    async with EmbeddedProvider() as provider:
        model = init_chat_model(
            "gpt-4.1",
            base_url=f"{provider.url}/v1",
            api_key="k",
            rate_limiter=limiter,
            max_retries=0,
        )
        with pytest.raises(ConnectError, match="rate limiter"):
            await model.ainvoke("hi")
        assert provider.requests == []


@pytest.mark.anyio
async def test_waiting_until_it_is_back(own_server: Server) -> None:
    """By choice; the time limits of a call hold."""
    limiter = RedisRateLimiter(own_server.url, when_gone="wait", requests_per_second=1000)
    assert limiter.acquire()
    own_server.stop()
    with anyio.move_on_after(0.2) as scope:
        await limiter.aacquire()
    assert scope.cancelled_caught
    async with EmbeddedProvider() as provider:
        model = init_chat_model(
            "gpt-4.1",
            base_url=f"{provider.url}/v1",
            api_key="k",
            rate_limiter=limiter,
            timeout=Timeouts(total=0.3),
        )
        with pytest.raises(RequestTimeoutError):
            await model.ainvoke("hi")
        assert provider.requests == []
    async with anyio.create_task_group() as group:
        group.start_soon(limiter.aacquire)
        await anyio.sleep(0.1)
        await anyio.to_thread.run_sync(own_server.start)


def test_a_server_that_refuses(tmp_path: Path) -> None:
    """A wrong password stays wrong: no waiting for it."""
    server = Server(tmp_path, "--requirepass", "right")
    server.start()
    try:
        for url in (server.url, server.url.replace("//", "//:wrong-word@")):
            limiter = RedisRateLimiter(url, when_gone="wait")
            with pytest.raises(ConfigurationError, match="Redis at 127") as caught:
                limiter.acquire()
            assert "wrong-word" not in str(caught.value)
        right = RedisRateLimiter(server.url.replace("//", "//:right@"))
        assert right.acquire()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({"requests_per_second": -1}, "requests_per_second"),
        ({"requests_per_second": float("nan")}, "requests_per_second"),
        ({"max_bucket_size": 0.9}, "max_bucket_size"),
        ({"when_gone": "panic"}, "when_gone"),
        ({"name": ""}, "name"),
        ({"redis": "http://nowhere"}, "URL"),
        ({"redis": 7}, "redis.Redis"),
        ({"redis": redis.asyncio.Redis() if hasattr(redis, "asyncio") else 7}, "async"),
    ],
)
def test_limits_that_cannot_be_are_refused(params: Any, name: str) -> None:
    """When the limiter is made."""
    with pytest.raises(ConfigurationError, match=name):
        RedisRateLimiter(**{"redis": "redis://127.0.0.1:1/0", **params})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"streamfold\[redis\]"):
        RedisRateLimiter("redis://127.0.0.1/0")
