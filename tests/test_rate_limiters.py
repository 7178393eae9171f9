"""Rate limiters over a clock that the test turns."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import init_chat_model, rate_limiters
from streamfold.errors import ConfigurationError
from streamfold.rate_limiters import InMemoryRateLimiter, RateLimiter, TokenRateLimiter
from streamfold.testing import Answer, EmbeddedProvider


class Clock:
    """Seconds that only pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(rate: float, burst: float = 1) -> tuple[InMemoryRateLimiter, Clock]:
    clock = Clock()
    return (
        InMemoryRateLimiter(requests_per_second=rate, max_bucket_size=burst, clock=clock),
        clock,
    )


def turn(made: Any, clock: Clock) -> float:
    """When the next one who asks has its turn."""
    return float(clock.now + made._turn(True))


def test_a_burst_then_the_rate() -> None:
    """As many at once as the bucket holds, from the first request on, then one per interval."""
    made, clock = limiter(2, burst=3)
    turns = [turn(made, clock) - 1000 for _ in range(6)]
    assert turns == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])


def test_a_rest_fills_the_bucket_and_no_more() -> None:
    """After an hour there is one burst, not an hour's worth."""
    made, clock = limiter(1, burst=2)
    for _ in range(5):
        made._turn(True)
    clock.now += 3600
    turns = [turn(made, clock) - clock.now for _ in range(4)]
    assert turns == pytest.approx([0, 0, 1, 2])


@given(
    rate=st.floats(0.1, 50),
    burst=st.integers(1, 5),
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["ask", "ask", "try", "cancel"])), max_size=60
    ),
)
def test_no_window_exceeds_the_rate_and_the_burst(
    rate: float, burst: int, steps: list[tuple[float, str]]
) -> None:
    """However requests come, give up and come again: in any window, at most rate times its length
    plus the burst."""
    made, clock = limiter(rate, burst)
    waiting: list[float] = []
    gone: list[float] = []
    for pause, what in steps:
        clock.now += pause
        gone += [t for t in waiting if t <= clock.now]
        waiting = [t for t in waiting if t > clock.now]
        if what == "cancel" and waiting:
            made._turns.give(waiting.pop(len(waiting) // 2))
        elif what == "try":
            if made.acquire(blocking=False):
                gone.append(clock.now)
        else:
            waiting.append(turn(made, clock))
    gone = sorted(gone + waiting)
    for first in range(len(gone)):
        for last in range(first, len(gone)):
            allowed = rate * (gone[last] - gone[first]) + burst
            assert last - first + 1 <= allowed + 1e-6


@given(pauses=st.lists(st.floats(0, 2), max_size=40))
def test_first_come_first_served(pauses: list[float]) -> None:
    """Turns are in the order in which they were asked for."""
    made, clock = limiter(1, burst=2)
    turns = []
    for pause in pauses:
        clock.now += pause
        turns.append(turn(made, clock))
    assert turns == sorted(turns)


def test_not_blocking_takes_nothing_if_it_is_not_its_turn() -> None:
    """False at once, and the next one waits no longer for it."""
    made, clock = limiter(1)
    assert made.acquire(blocking=False) is True
    for _ in range(100):
        assert made.acquire(blocking=False) is False
    clock.now += 1
    assert made.acquire(blocking=False) is True


def test_back_off_holds_everybody_back() -> None:
    """Nobody's turn comes before."""
    made, clock = limiter(10, burst=5)
    made.back_off(7)
    assert made.acquire(blocking=False) is False
    assert turn(made, clock) - clock.now >= 7


class _Sleeper:
    """Stands in for the module's sleep: asks the test's clock, hangs where nobody turns it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[float] = []
        monkeypatch.setattr(rate_limiters.anyio, "sleep", self)
        self.real = anyio.sleep_forever

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)
        await self.real()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["requests", "tokens"])
async def test_a_cancelled_wait_gives_its_turn_to_the_next(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing is lost by it, and nobody who waits is disturbed."""
    clock = Clock()
    made: Any = InMemoryRateLimiter(requests_per_second=1, clock=clock)
    if kind == "tokens":
        made = TokenRateLimiter(
            requests_per_minute=60, tokens_per_minute=60_000, estimate=1000, clock=clock
        )
        for _ in range(59):
            assert made.acquire(blocking=False)
    sleeper = _Sleeper(monkeypatch)
    assert await made.aacquire()
    async with anyio.create_task_group() as group:
        scopes = [anyio.CancelScope() for _ in range(3)]

        async def wait(scope: anyio.CancelScope) -> None:
            with scope:
                await made.aacquire()

        for scope in scopes:
            group.start_soon(wait, scope)
            await anyio.wait_all_tasks_blocked()
        assert sleeper.waits == pytest.approx([1, 2, 3])
        scopes[1].cancel()
        await anyio.wait_all_tasks_blocked()
        assert turn(made, clock) - clock.now == pytest.approx(2)
        assert turn(made, clock) - clock.now == pytest.approx(4)
        group.cancel_scope.cancel()


def test_threads_and_loops_share_one_limit() -> None:
    """Sync callers, asyncio and trio: each request has a turn of its own."""
    made = InMemoryRateLimiter(requests_per_second=200, max_bucket_size=1)
    turns: list[float] = []
    clock = made._clock

    def sync() -> None:
        for _ in range(5):
            made.acquire()
            turns.append(clock())

    async def many() -> None:
        async def one() -> None:
            await made.aacquire()
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
        {"max_bucket_size": 0.5},
        {"check_every_n_seconds": 0},
    ],
)
def test_limits_that_cannot_be_are_refused(params: Any) -> None:
    """A bucket that holds no request would wait for ever."""
    with pytest.raises(ConfigurationError, match=next(iter(params))):
        InMemoryRateLimiter(**params)


def test_token_limits() -> None:
    """Both limits hold; tokens are reserved by the estimate and corrected afterwards."""
    clock = Clock()
    made = TokenRateLimiter(
        requests_per_minute=600, tokens_per_minute=6000, estimate=2000, clock=clock
    )
    assert [made.acquire(blocking=False) for _ in range(4)] == [True, True, True, False]
    made.correct({"input_tokens": 500, "output_tokens": 500, "total_tokens": 1000})
    assert made.acquire(blocking=False) is False
    made.correct({"input_tokens": 500, "output_tokens": 500, "total_tokens": 1000})
    assert made.acquire(blocking=False) is True
    made.correct({"input_tokens": 4000, "output_tokens": 0, "total_tokens": 4000})
    assert made._turn(True) == pytest.approx((2000 + 2000) / 100)


def test_requests_per_minute_alone_and_tokens_alone() -> None:
    """Either limit may stand alone; neither may not."""
    clock = Clock()
    made = TokenRateLimiter(requests_per_minute=2, clock=clock)
    assert [made.acquire(blocking=False) for _ in range(3)] == [True, True, False]
    tokens = TokenRateLimiter(tokens_per_minute=2000, clock=clock)
    assert [tokens.acquire(blocking=False) for _ in range(3)] == [True, True, False]
    with pytest.raises(ConfigurationError, match="requests_per_minute"):
        TokenRateLimiter()
    with pytest.raises(ConfigurationError, match="estimate"):
        TokenRateLimiter(tokens_per_minute=10)
    made.back_off(120)
    clock.now += 61
    assert made.acquire(blocking=False) is False


def test_both_are_rate_limiters() -> None:
    """By the protocol that `rate_limiter=` asks for."""
    assert isinstance(InMemoryRateLimiter(), RateLimiter)
    assert isinstance(TokenRateLimiter(requests_per_minute=1), RateLimiter)
    assert not isinstance(object(), RateLimiter)


def test_a_model_asks_before_every_request() -> None:
    """Retries included; whoever else has the limiter waits for it, too."""
    asked: list[bool] = []

    class Counting:
        def acquire(self, *, blocking: bool = True) -> bool:
            raise AssertionError("the engine is async")

        async def aacquire(self, *, blocking: bool = True) -> bool:
            asked.append(blocking)
            return True

    with EmbeddedProvider(script=[Answer(error=500), "fine", "fine"]) as provider:
        model = init_chat_model(
            "gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", rate_limiter=Counting()
        )
        model.invoke("hi")
        list(model.stream("hi"))
    assert asked == [True] * 3
