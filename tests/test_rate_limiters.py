"""Rate limiters over a clock that the test turns, and models that use them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from streamfold import init_chat_model, runnable
from streamfold.errors import ConfigurationError, RateLimitError, StreamfoldError
from streamfold.rate_limiters import InMemoryRateLimiter, RateLimiter, TokenRateLimiter
from streamfold.rate_limiters.headers import Left, read_left, seconds
from streamfold.testing import Answer, EmbeddedProvider, Failure, Reply, Request


class Clock:
    """Seconds that only pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def simulated(main: Callable[[], Awaitable[Any]]) -> Any:
    """The result of `main`, in a world where time passes only while everybody waits."""
    clock = MockClock(autojump_threshold=0)
    return anyio.run(main, backend="trio", backend_options={"clock": clock})


async def turns(limiter: Any, count: int) -> list[float]:
    """When each of `count` who ask at once has its turn, from now."""
    begin = trio.current_time()
    at: list[float] = []

    async def one() -> None:
        await limiter.aacquire()
        at.append(trio.current_time() - begin)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return at


# ---- the laws ------------------------------------------------------------------------------------


class Visit(msgspec.Struct, frozen=True):
    """Somebody who asks at `start`, and after `patience` seconds gives up (None: never)."""

    start: float
    patience: float | None
    blocking: bool


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """Times are tenths of a second; nobody asks or leaves when another does or a turn is due."""
    made = []
    for place in range(draw(st.integers(0, 25))):
        start = draw(st.integers(0, 60)) / 10 + place / 10_000
        patience = draw(st.none() | st.integers(0, 30).map(lambda n: n / 10 + 0.05))
        made.append(Visit(start, patience, draw(st.sampled_from([True, True, True, False]))))
    return sorted(made, key=lambda visit: visit.start)


async def visited(limiter: InMemoryRateLimiter, who: list[Visit]) -> dict[int, float]:
    """When each of them has its turn; those who get none are left out. In the order of turns."""
    got: dict[int, float] = {}

    async def visit(place: int, one: Visit) -> None:
        await anyio.sleep(one.start)
        with anyio.move_on_after(one.patience):
            if await limiter.aacquire(blocking=one.blocking):
                got[place] = trio.current_time()

    async with anyio.create_task_group() as group:
        for place, one in enumerate(who):
            group.start_soon(visit, place, one)
    return got


def expected(interval: float, burst: int, who: list[Visit]) -> dict[int, float]:
    """The same by the plainest of queues: one after the other, in the order of asking."""
    got: dict[int, float] = {}
    level, at, free = float(burst), 0.0, 0.0
    for place, one in enumerate(who):
        now = max(one.start, free)  # nobody is served before those who came earlier
        level, at = min(burst, level + (now - at) / interval), now
        turn = now + max(0.0, 1 - level) * interval
        leaves = one.start + (1e9 if one.patience is None else one.patience)
        served = turn <= leaves if one.blocking else turn - one.start < 1e-6
        if served:
            got[place] = free = turn
            level, at = min(burst, level + (turn - at) / interval) - 1, turn
    return got


@given(tenths=st.integers(1, 15), burst=st.integers(1, 4), who=visits())
def test_turns_are_those_of_a_queue_at_a_bucket(tenths: int, burst: int, who: list[Visit]) -> None:
    """First come, first served; who gives up is as if never there, and nobody waits in vain; and
    no window of any length has more turns than the rate for its length and the burst."""
    interval = tenths / 10

    async def main() -> dict[int, float]:
        begin = trio.current_time()
        limiter = InMemoryRateLimiter(
            requests_per_second=1 / interval, max_bucket_size=burst, clock=trio.current_time
        )
        got = await visited(limiter, who)
        return {place: at - begin for place, at in got.items()}

    got = simulated(main)
    assert list(got) == sorted(got)
    assert got == pytest.approx(expected(interval, burst, who), abs=1e-6)
    at = list(got.values())
    for first in range(len(at)):
        for last in range(first, len(at)):
            assert last - first + 1 <= (at[last] - at[first]) / interval + burst + 1e-6


@given(
    who=st.lists(
        st.tuples(st.integers(0, 300), st.integers(1, 600), st.integers(0, 900)), max_size=15
    )
)
def test_tokens_are_reserved_in_order_and_put_right(who: list[tuple[int, int, int]]) -> None:
    """However wrong the estimates: first come, first served, and in no window more is used than
    the rate for its length and the bucket allow, but for what nobody could know yet."""

    async def main() -> list[tuple[int, float, int, int]]:
        limiter = TokenRateLimiter(tokens_per_minute=600, clock=trio.current_time)
        got: list[tuple[int, float, int, int]] = []

        async def one(place: int, start: int, reserve: int, use: int) -> None:
            await anyio.sleep(start / 10 + place / 10_000)
            reserved = await limiter.reserve(0, reserve)
            got.append((place, trio.current_time(), reserve, use))
            await anyio.sleep(1)
            limiter.settle(reserved, use)

        async with anyio.create_task_group() as group:
            for place, visit in enumerate(sorted(who)):
                group.start_soon(one, place, *visit)
        return sorted(got)

    got = simulated(main)
    times = [at for _, at, *_ in got]
    assert times == sorted(times)
    for first in range(len(got)):
        for last in range(first, len(got)):
            window = got[first : last + 1]
            end = window[-1][1]
            unknown = sum(max(0, use - kept) for _, at, kept, use in window if at + 1 > end - 1e-6)
            allowed = (end - window[0][1]) * 10 + 600 + unknown + 1e-6
            assert sum(used for *_, used in window) <= allowed


# ---- requests ------------------------------------------------------------------------------------


def test_a_burst_then_the_rate_and_after_a_rest_again() -> None:
    """As many at once as the bucket holds, then one per interval; an hour does not add up."""

    async def main() -> None:
        limiter = InMemoryRateLimiter(
            requests_per_second=2, max_bucket_size=3, clock=trio.current_time
        )
        assert await turns(limiter, 6) == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])
        await anyio.sleep(3600)
        assert await turns(limiter, 5) == pytest.approx([0, 0, 0, 0.5, 1.0])

    simulated(main)


def test_nobody_polls() -> None:
    """A long queue looks at the clock a few times for each turn, however long it waits."""
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return trio.current_time()

    async def main() -> None:
        limiter = InMemoryRateLimiter(
            requests_per_second=0.01, check_every_n_seconds=0.001, clock=clock
        )
        assert (await turns(limiter, 200))[-1] == pytest.approx(19_900)

    simulated(main)
    assert looks <= 200 * 6


def test_not_blocking_takes_nothing_if_it_is_not_its_turn() -> None:
    """False at once, and the next one waits no longer for it."""
    clock = Clock()
    limiter = InMemoryRateLimiter(requests_per_second=1, clock=clock)
    assert limiter.acquire(blocking=False) is True
    for _ in range(100):
        assert limiter.acquire(blocking=False) is False
    clock.now += 1
    assert limiter.acquire(blocking=False) is True


def test_back_off_holds_everybody_back() -> None:
    """Those who wait already, too; and then there is no burst."""

    async def main() -> None:
        limiter = InMemoryRateLimiter(
            requests_per_second=10, max_bucket_size=2, clock=trio.current_time
        )
        at: list[float] = []
        begin = trio.current_time()

        async def one() -> None:
            await limiter.aacquire()
            at.append(trio.current_time() - begin)

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)
            await anyio.sleep(0.05)
            limiter.back_off(7)
            assert await limiter.aacquire(blocking=False) is False
            group.start_soon(one)
        assert at == pytest.approx([0, 0, 7.05, 7.15, 7.25])

    simulated(main)


def test_those_who_oversleep_together_do_not_go_together() -> None:
    """A turn counts from when it is had: a loop that hung for a while makes no burst."""
    clock = Clock()
    limiter = InMemoryRateLimiter(requests_per_second=1, clock=clock)
    queue = limiter._queue
    assert limiter.acquire(blocking=False)
    waiting = [queue.join((1,), lambda: None) for _ in range(3)]
    first, second, third = waiting
    pauses = [queue.pause(one) for one in waiting]
    assert pauses[0] == pytest.approx(1)
    clock.now += 60
    assert [queue.pause(one) for one in (third, first, second)][1:] == [None, pytest.approx(1)]
    clock.now += 1
    assert (queue.pause(third), queue.pause(second)) == (pytest.approx(1), None)


def test_a_loop_that_died_holds_nobody_up() -> None:
    """Its turn comes and is lost; the next has the one after."""
    limiter = InMemoryRateLimiter(requests_per_second=50)
    limiter.acquire()
    dead = asyncio.new_event_loop()
    try:
        task = dead.create_task(limiter.aacquire())
        dead.run_until_complete(asyncio.sleep(0))  # now it is the first in the queue
        limiter.acquire()
        task.cancel()
        dead.run_until_complete(asyncio.wait([task]))
    finally:
        dead.close()
    limiter.acquire()


def test_threads_and_loops_share_one_limit() -> None:
    """Sync callers, asyncio and trio: each request has a turn of its own."""
    turns: list[float] = []

    clock = time.monotonic
    limiter = InMemoryRateLimiter(requests_per_second=200, max_bucket_size=1)

    def sync() -> None:
        for _ in range(5):
            limiter.acquire()
            turns.append(clock())

    async def many() -> None:
        async def one() -> None:
            await limiter.aacquire()
            turns.append(clock())

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(one)

    started = clock()
    threads = [threading.Thread(target=sync) for _ in range(2)]
    threads += [
        threading.Thread(target=anyio.run, args=(many,), kwargs={"backend": backend})
        for backend in ("asyncio", "trio")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.sort()
    assert len(turns) == 20
    for place, at in enumerate(turns):
        assert at - started >= place / 200 - 0.002


@pytest.mark.parametrize(
    "params",
    [
        {"requests_per_second": 0},
        {"requests_per_second": -1},
        {"requests_per_second": float("nan")},
        {"requests_per_second": float("inf")},
        {"requests_per_second": "1"},
        {"requests_per_second": True},
        {"max_bucket_size": 0.5},
        {"max_bucket_size": float("nan")},
        {"check_every_n_seconds": 0},
    ],
)
def test_limits_that_cannot_be_are_refused(params: Any) -> None:
    """A bucket that holds no request would wait for ever."""
    with pytest.raises(ConfigurationError, match=next(iter(params))):
        InMemoryRateLimiter(**params)


# ---- tokens --------------------------------------------------------------------------------------


def test_both_limits_hold() -> None:
    """Whichever is reached first; what was not used comes back at once, to those who wait, too."""

    async def main() -> None:
        limiter = TokenRateLimiter(
            requests_per_minute=5, tokens_per_minute=6000, clock=trio.current_time
        )
        begin = trio.current_time()
        reserved = [await limiter.reserve(1000, 1000) for _ in range(3)]
        assert [one.amount for one in reserved] == [2000] * 3
        async with anyio.create_task_group() as group:
            group.start_soon(limiter.reserve, 1000, 1000)
            await anyio.sleep(1)
            limiter.settle(reserved[0], 100)
        assert trio.current_time() - begin == pytest.approx(1)
        await limiter.reserve(1, 1)
        assert trio.current_time() - begin == pytest.approx(1.02)
        await limiter.reserve(1, 1)
        assert trio.current_time() - begin == pytest.approx(12)

    simulated(main)


def test_what_was_used_beyond_the_estimate_is_waited_for() -> None:
    """The next request waits for it."""

    async def main() -> None:
        limiter = TokenRateLimiter(tokens_per_minute=6000, clock=trio.current_time)
        begin = trio.current_time()
        limiter.settle(await limiter.reserve(500, 500), 8000)
        await limiter.reserve(500, 500)
        assert trio.current_time() - begin == pytest.approx((2000 + 1000) / 100)

    simulated(main)


def test_what_comes_back_is_no_more_than_was_ever_missing() -> None:
    """What would have run over, had it never been reserved, does not come back."""

    async def main() -> None:
        limiter = TokenRateLimiter(tokens_per_minute=600, clock=trio.current_time)
        first = await limiter.reserve(0, 600)
        await anyio.sleep(30)
        await limiter.reserve(0, 300)
        limiter.settle(first, 0)
        begin = trio.current_time()
        await limiter.reserve(0, 400)
        assert trio.current_time() - begin == pytest.approx(10)

    simulated(main)


def test_a_reservation_that_is_never_settled_costs_no_memory() -> None:
    """After very many others it is taken for used; what was used beyond it still counts."""

    async def main() -> None:
        limiter = TokenRateLimiter(tokens_per_minute=600_000, clock=trio.current_time)
        first = await limiter.reserve(0, 1000)
        for _ in range(2500):
            limiter.settle(await limiter.reserve(0, 100), 100)
        kept = limiter._token_bucket._kept
        assert len(kept) < 2200
        before = limiter._token_bucket._full_at
        limiter.settle(first, 500)
        assert limiter._token_bucket._full_at == before
        limiter.settle(first, 3000)
        assert limiter._token_bucket._full_at == pytest.approx(before + 2000 / 10_000)

    simulated(main)


def test_the_estimate_stands_for_what_nobody_says() -> None:
    """For a request without `max_tokens`, and for a bare `acquire`."""

    async def main() -> None:
        limiter = TokenRateLimiter(tokens_per_minute=3000, estimate=400, clock=trio.current_time)
        assert (await limiter.reserve(100, None)).amount == 500
        assert (await limiter.reserve(100, 50)).amount == 150
        limiter = TokenRateLimiter(tokens_per_minute=3000, estimate=400, clock=trio.current_time)
        assert [limiter.acquire(blocking=False) for _ in range(8)] == [True] * 7 + [False]
        small = TokenRateLimiter(tokens_per_minute=300, clock=trio.current_time)
        guessed = await small.reserve(100, None)
        assert guessed.amount == 300, "a guess never makes a request impossible"

    simulated(main)


def test_requests_per_minute_alone_and_tokens_alone() -> None:
    """Either limit may stand alone; neither may not."""
    clock = Clock()
    made = TokenRateLimiter(requests_per_minute=2, clock=clock)
    assert [made.acquire(blocking=False) for _ in range(3)] == [True, True, False]
    slow = TokenRateLimiter(requests_per_minute=0.5, clock=clock)
    assert [slow.acquire(blocking=False) for _ in range(2)] == [True, False]
    tokens = TokenRateLimiter(tokens_per_minute=2000, clock=clock)
    assert [tokens.acquire(blocking=False) for _ in range(3)] == [True, True, False]
    made.back_off(120)
    clock.now += 61
    assert made.acquire(blocking=False) is False


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "requests_per_minute"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": float("nan")}, "requests_per_minute"),
        ({"tokens_per_minute": -5}, "tokens_per_minute"),
        ({"tokens_per_minute": 0.5}, "tokens_per_minute"),
        ({"tokens_per_minute": 10, "estimate": 1000}, "estimate"),
        ({"tokens_per_minute": 10, "estimate": 0}, "estimate"),
    ],
)
def test_token_limits_that_cannot_be_are_refused(params: Any, name: str) -> None:
    """Named, when the limiter is made."""
    with pytest.raises(ConfigurationError, match=name):
        TokenRateLimiter(**params)


# ---- the vendor's headers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("2d", 172800),
        ("12", 12),
        ("11.382867097854614", 11.382867097854614),
        ("2026-03-01T12:00:30Z", 30),
        ("2026-03-01t12:00:30+00:00", 30),
        ("2026-03-01T11:59:00Z", 0),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_times_to_reset(text: str | None, expected: float | None) -> None:
    """All the ways in which vendors write them; nonsense is nothing."""
    found = seconds(text, datetime(2026, 3, 1, 12, tzinfo=UTC))
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.text(max_size=20))
def test_no_header_is_too_strange(text: str) -> None:
    """Whatever a server sends, it is a number of seconds or nothing."""
    found = seconds(text)
    assert found is None or found >= 0
    left = read_left({"x-ratelimit-remaining-tokens": text})
    assert not left or left["tokens"].remaining >= 0


OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-tokens-limit": "60000",
    "anthropic-ratelimit-tokens-remaining": "54000",
}
AZURE = {
    "x-ratelimit-remaining-requests": "79",
    "x-ratelimit-remaining-tokens": "61353",
    "x-ratelimit-limit-tokens": "-1",
}
MISTRAL = {
    "x-ratelimit-limit-req-minute": "720",
    "x-ratelimit-remaining-req-minute": "717",
    "x-ratelimit-limit-tokens-minute": "5000000",
    "x-ratelimit-remaining-tokens-minute": "4999911",
}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (OPENAI, {"requests": Left(59, 60, 1), "tokens": Left(149984, 150000, 360)}),
        (ANTHROPIC, {"requests": Left(49, 50, None), "tokens": Left(54000, 60000, None)}),
        (AZURE, {"requests": Left(79, None, None), "tokens": Left(61353, None, None)}),
        (MISTRAL, {"requests": Left(717, 720, None), "tokens": Left(4999911, 5000000, None)}),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, {}),
        ({}, {}),
    ],
)
def test_what_vendors_say_is_left(headers: dict[str, str], expected: Any) -> None:
    """OpenAI's names, which most others use, Anthropic's, and those of a few more."""
    assert read_left(headers) == expected


def test_what_the_vendor_has_left_counts() -> None:
    """When others use the same key, this limiter slows down; it never speeds up by it."""

    async def main() -> None:
        limiter = TokenRateLimiter(
            requests_per_minute=60, tokens_per_minute=60_000, clock=trio.current_time
        )
        limiter.observe(OPENAI)
        limiter.observe({**OPENAI, "x-ratelimit-remaining-requests": "3"})
        limiter.observe(OPENAI)
        assert await turns(limiter, 5) == pytest.approx([0, 0, 0, 1, 2])
        await anyio.sleep(3600)
        limiter.observe({"anthropic-ratelimit-tokens-remaining": "500"})
        assert await turns(limiter, 2) == pytest.approx([0.5, 1.5])

    simulated(main)


@pytest.mark.parametrize(
    ("limit", "reset", "hold"),
    [
        (None, "20s", 20),
        ("60", "3s", 3),
        ("600", "60s", 5),
        ("2", "30s", 15),
        (None, "2h", 0),  # a day's quota: who asks hears of it from the vendor
        (None, None, 0),
    ],
)
def test_nothing_left_is_waited_for(limit: str | None, reset: str | None, hold: float) -> None:
    """Until it is back; where that is long and comes bit by bit, until a bit is there."""
    said = {"limit": limit, "remaining": "0", "reset": reset}
    headers = {f"x-ratelimit-{k}-requests": v for k, v in said.items() if v is not None}

    async def main() -> None:
        limiter = TokenRateLimiter(requests_per_minute=6000, clock=trio.current_time)
        limiter.observe(headers)
        assert (await turns(limiter, 1))[0] == pytest.approx(max(hold, 0.01))

    simulated(main)


# ---- models --------------------------------------------------------------------------------------


class Recorder:
    """A limiter that has everything a limiter may have, and writes down what it hears."""

    def __init__(self) -> None:
        self.turns: list[tuple[int, int | None]] = []
        self.settled: list[tuple[Any, int]] = []
        self.headers: list[Mapping[str, str]] = []
        self.pauses: list[float] = []

    def acquire(self, *, blocking: bool = True) -> bool:
        raise AssertionError("the engine is async")

    async def aacquire(self, *, blocking: bool = True) -> bool:
        raise AssertionError("it can reserve")

    async def reserve(self, input_tokens: int, max_tokens: int | None) -> int:
        self.turns.append((input_tokens, max_tokens))
        return len(self.turns)

    def settle(self, reservation: Any, tokens: int) -> None:
        self.settled.append((reservation, tokens))

    def observe(self, headers: Mapping[str, str]) -> None:
        self.headers.append(headers)

    async def back_off(self, seconds: float) -> None:
        self.pauses.append(seconds)


def model(provider: EmbeddedProvider, **params: Any) -> Any:
    params = {"base_url": f"{provider.url}/v1", "api_key": "k", "max_retries": 0, **params}
    return init_chat_model("gpt-4.1", **params)


def test_both_are_rate_limiters() -> None:
    """By the protocol that `rate_limiter=` asks for."""
    assert isinstance(InMemoryRateLimiter(), RateLimiter)
    assert isinstance(TokenRateLimiter(requests_per_minute=1), RateLimiter)
    assert not isinstance(object(), RateLimiter)
    with EmbeddedProvider() as provider, pytest.raises(ConfigurationError, match="rate_limiter"):
        model(provider, rate_limiter=object())


async def drained(source: AsyncIterator[Any]) -> None:
    async for _ in source:
        pass


SCHEMA = {"title": "answer", "type": "object", "properties": {"x": {"type": "integer"}}}


def search(query: str) -> str:
    """Search."""
    return query


def _asking(model: Any) -> Callable[[str], Awaitable[Any]]:
    async def ask(text: str) -> Any:
        return await model.ainvoke(text)

    return ask


WAYS: dict[str, Callable[[Any], Any]] = {
    "ainvoke": lambda m: m.ainvoke("hi"),
    "astream": lambda m: drained(m.astream("hi")),
    "abatch": lambda m: m.abatch(["hi", "there"]),
    "abatch_as_completed": lambda m: drained(m.abatch_as_completed(["hi", "there"])),
    "astream_events": lambda m: drained(m.astream_events("hi")),
    "structured": lambda m: m.with_structured_output(SCHEMA).ainvoke("hi"),
    "structured stream": lambda m: drained(m.with_structured_output(SCHEMA).astream("hi")),
    "tools": lambda m: m.bind_tools([search]).ainvoke("hi"),
    "bound": lambda m: m.bind(temperature=0).ainvoke("hi"),
    "retry": lambda m: m.with_retry().ainvoke("hi"),
    "fallbacks": lambda m: m.with_fallbacks([m]).ainvoke("hi"),
    "copy": lambda m: m.model_copy(update={"temperature": 0}).ainvoke("hi"),
    "runnable": lambda m: runnable(_asking(m)).ainvoke("hi"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_limiter_given_is_a_limiter_used(way: str) -> None:
    """By every method there is: a turn for every request, settled and told of the answer."""
    limiter = Recorder()
    async with EmbeddedProvider() as provider:
        await WAYS[way](model(provider, rate_limiter=limiter))
        requests = len(provider.requests)
    assert requests > 0
    assert len(limiter.turns) == len(limiter.settled) == len(limiter.headers) == requests


def test_a_limiter_given_is_a_limiter_used_by_the_sync_methods() -> None:
    """And by a model that is chosen at run time."""
    limiter = Recorder()
    with EmbeddedProvider() as provider:
        one = model(provider, rate_limiter=limiter, configurable_fields=["temperature"])
        one.invoke("hi")
        list(one.stream("hi"))
        one.batch(["hi", "there"])
        list(one.stream_events("hi"))
    assert len(limiter.turns) == 5


@pytest.mark.anyio
async def test_every_attempt_takes_a_turn() -> None:
    """Retries of the model, of `with_retry`, and fallbacks."""
    limiter = Recorder()
    script = [Answer(error=500), Answer(error=500), Answer(error=503), "fine"]
    async with EmbeddedProvider(script=script) as provider:
        one = model(provider, rate_limiter=limiter, max_retries=1)
        again = one.with_retry(wait_exponential_jitter=False).with_fallbacks([one])
        assert (await again.ainvoke("hi")).text == "fine"
    assert len(limiter.turns) == 4


@pytest.mark.anyio
async def test_what_was_used_is_settled_however_it_ends() -> None:
    """As reported; estimated for a stream that was left or broke; nothing if it was refused."""
    long = "one two three four five six seven eight nine ten " * 20
    script = ["fine", "fine", long, Answer(long, error="server"), Answer(error=500)]
    limiter = Recorder()
    async with EmbeddedProvider(script=script, chunk_delay=0.002) as provider:
        one = model(provider, rate_limiter=limiter, max_tokens=3000)
        whole = await one.ainvoke("hi")
        await drained(one.astream("hi"))
        read = 0
        async with one.astream("hi") as stream:
            async for chunk in stream:
                read += len(chunk.text)
                if read > 400:
                    break
        for _ in range(2):
            with pytest.raises(StreamfoldError):
                await drained(one.astream("hi"))
    assert [reservation for reservation, _ in limiter.settled] == [1, 2, 3, 4, 5]
    first, second, left, broken, refused = (tokens for _, tokens in limiter.settled)
    assert first == second == whole.usage_metadata["total_tokens"]
    assert 100 <= left < 200
    assert broken == pytest.approx(len(long) / 4, abs=20)
    assert refused == 0
    input_tokens, max_tokens = limiter.turns[0]
    assert (4 <= input_tokens <= 8, max_tokens) == (True, 3000)


@pytest.mark.anyio
async def test_the_estimate_counts_what_is_sent() -> None:
    """Messages, tools and the schema of the answer."""
    limiter = Recorder()
    async with EmbeddedProvider() as provider:
        one = model(provider, rate_limiter=limiter)
        await one.ainvoke("hi")
        await one.ainvoke("word " * 400)
        await one.bind_tools([search]).ainvoke("hi")
        await one.with_structured_output(SCHEMA).ainvoke("hi")
    plain, long, tools, schema = (tokens for tokens, _ in limiter.turns)
    assert long == pytest.approx(plain + 500, abs=10)
    assert tools > plain + 10
    assert schema > plain + 10


@pytest.mark.anyio
async def test_a_429_is_for_all_who_share_the_limiter() -> None:
    """They pause as long as the vendor asks, or a moment if it does not say; not for a day."""
    failures = [
        Failure("rate_limit", retry_after=0.25),
        Failure("rate_limit", retry_after=3600),
        Failure("server", retry_after=7),
    ]
    limiter = Recorder()
    async with EmbeddedProvider(script=[Answer(error=f) for f in failures]) as provider:
        for _ in failures:
            with pytest.raises(StreamfoldError):
                await model(provider, rate_limiter=limiter).ainvoke("hi")
    assert limiter.pauses == [0.25]


@pytest.mark.anyio
async def test_a_429_holds_a_second_model_back() -> None:
    """With the limiter of the library: the others wait before they ask."""
    limiter = InMemoryRateLimiter(requests_per_second=1000, max_bucket_size=10)
    script = [Answer(error=Failure("rate_limit", retry_after=0.4)), "fine"]
    async with EmbeddedProvider(script=script) as provider:
        with pytest.raises(RateLimitError):
            await model(provider, rate_limiter=limiter).ainvoke("hi")
        begin = anyio.current_time()
        await model(provider, rate_limiter=limiter).ainvoke("hi")
        assert anyio.current_time() - begin >= 0.35


class Scarce(EmbeddedProvider):
    """A provider that says how little is left."""

    def _respond(self, request: Request) -> Reply:
        reply = super()._respond(request)
        said = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
        return msgspec.structs.replace(reply, headers={**reply.headers, **said})


@pytest.mark.anyio
async def test_the_headers_of_an_answer_reach_the_limiter() -> None:
    """Streamed or not: the next request waits for what is to come back."""
    limiter = TokenRateLimiter(requests_per_minute=60_000)
    async with Scarce() as provider:
        one = model(provider, rate_limiter=limiter)
        await one.ainvoke("hi")
        begin = anyio.current_time()
        await drained(one.astream("hi"))
        await one.ainvoke("hi")
        assert anyio.current_time() - begin >= 0.55


@pytest.mark.anyio
async def test_a_request_that_never_fits_is_not_sent() -> None:
    """It would wait for ever: said with both figures, before the request."""
    async with EmbeddedProvider() as provider:
        one = model(provider, rate_limiter=TokenRateLimiter(tokens_per_minute=500))
        with pytest.raises(
            ConfigurationError, match=r"needs about \d+ tokens.*max_tokens=600.*500"
        ):
            await one.ainvoke("hi", max_tokens=600)
        with pytest.raises(ConfigurationError, match="tokens_per_minute"):
            await one.ainvoke("word " * 1000)
        assert provider.requests == []
        await one.ainvoke("hi")


@pytest.mark.anyio
async def test_a_limiter_that_refuses_sends_nothing() -> None:
    """One of the user's own, with the two methods and no more."""

    class Never:
        def acquire(self, *, blocking: bool = True) -> bool:
            return False

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return False

    async with EmbeddedProvider() as provider:
        with pytest.raises(RateLimitError, match="rate_limiter"):
            await model(provider, rate_limiter=Never()).ainvoke("hi")
        assert provider.requests == []


@pytest.mark.anyio
async def test_calls_that_are_cancelled_in_the_queue_leave_it() -> None:
    """And the limiter has the turns that they did not take."""
    limiter = InMemoryRateLimiter(requests_per_second=5)
    async with EmbeddedProvider() as provider:
        one = model(provider, rate_limiter=limiter)
        await one.ainvoke("hi")
        with anyio.move_on_after(0.02):
            await one.abatch(["hi"] * 50)
        begin = anyio.current_time()
        await one.ainvoke("hi")
        assert anyio.current_time() - begin < 2
        assert len(provider.requests) == 2
