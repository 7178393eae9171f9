"""Rate limiters: how often a model may be asked.

Fair and without polling: whoever asks is given the time at which it is their turn, first come,
first served, and sleeps until then. One lock guards the arithmetic, so a limiter may be shared by
threads, event loops and tasks. A model's limiter is asked before every request, retries included.
"""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import anyio

from .errors import ConfigurationError
from .usage import UsageMetadata

__all__ = ["InMemoryRateLimiter", "RateLimiter", "TokenRateLimiter"]


@runtime_checkable
class RateLimiter(Protocol):
    """What a model's `rate_limiter=` must have. Both return whether the request may go out; with
    ``blocking=True`` they wait until it may."""

    def acquire(self, *, blocking: bool = True) -> bool: ...
    async def aacquire(self, *, blocking: bool = True) -> bool: ...


class _Bucket:
    """A token bucket that may be overdrawn: what is missing is the wait of the one who took it."""

    def __init__(self, per_second: float, size: float, clock: Callable[[], float]) -> None:
        self._rate = per_second
        self._size = size
        self._clock = clock
        self._level = size
        self._at = clock()

    def take(self, amount: float) -> float:
        """Take `amount`; the seconds until it is there."""
        self._refill()
        self._level -= amount
        return max(0.0, -self._level / self._rate)

    def wait_for(self, amount: float) -> float:
        """The seconds that taking `amount` now would wait."""
        self._refill()
        return max(0.0, (amount - self._level) / self._rate)

    def give(self, amount: float) -> None:
        """Put back what was not used (or take more, if negative)."""
        self._refill()
        self._level = min(self._size, self._level + amount)

    def pause(self, seconds: float) -> None:
        """Nobody's turn comes before `seconds` from now."""
        self._refill()
        self._level = min(self._level, -seconds * self._rate)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now


class _Turns:
    """The turns of those who wait. A turn that is given back goes to whoever comes next: it must
    not become a turn at the end of the queue, where somebody may have one at the same time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._free: list[float] = []

    def take(self, make: Callable[[], float], *, blocking: bool) -> float | None:
        """The seconds until the next turn; `make` says how long a new one waits. None if that is
        not now and there shall be no waiting."""
        now = self._clock()
        while self._free and self._free[0] < now:
            heapq.heappop(self._free)  # nobody came in time
        if not self._free:
            return make()
        return max(heapq.heappop(self._free) - now, 0.0) if blocking else None

    def give(self, turn: float) -> None:
        if turn > self._clock():
            heapq.heappush(self._free, turn)


def _check(name: str, value: Any, low: float = 0.0) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or math.isnan(value) or value <= low or math.isinf(value):
        raise ConfigurationError(f"{name} is {value!r}: expected a number greater than {low:g}")
    return float(value)


class InMemoryRateLimiter:
    """At most `requests_per_second` on average, and `max_bucket_size` at once after a rest.

    `check_every_n_seconds` is accepted for programs written for LangChain; nothing is polled here.
    Raises ConfigurationError for a bucket that could never hold a request.
    """

    def __init__(
        self,
        *,
        requests_per_second: float = 1,
        check_every_n_seconds: float = 0.1,
        max_bucket_size: float = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rate = _check("requests_per_second", requests_per_second)
        _check("check_every_n_seconds", check_every_n_seconds)
        if _check("max_bucket_size", max_bucket_size) < 1:
            raise ConfigurationError(
                f"max_bucket_size is {max_bucket_size!r}: below 1 no request ever fits"
            )
        self._lock = threading.Lock()
        self._bucket = _Bucket(rate, max_bucket_size, clock)
        self._clock = clock
        self._turns = _Turns(clock)

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait for the turn of one request in this thread; False at once if not `blocking`."""
        wait = self._turn(blocking)
        if wait is None:
            return False
        if wait > 0:
            time.sleep(wait)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The same in a task. A task that is cancelled while it waits gives its turn back."""
        wait = self._turn(blocking)
        if wait is None:
            return False
        if wait > 0:
            turn = self._clock() + wait
            try:
                await anyio.sleep(wait)
            except BaseException:
                with self._lock:
                    self._turns.give(turn)
                raise
        return True

    def _turn(self, blocking: bool) -> float | None:
        with self._lock:
            if not blocking and self._bucket.wait_for(1) > 0:
                return None
            return self._turns.take(lambda: self._bucket.take(1), blocking=blocking)

    def back_off(self, seconds: float) -> None:
        """The provider asked to wait: nobody's turn comes before."""
        with self._lock:
            self._turns = _Turns(self._clock)
            self._bucket.pause(seconds)


class TokenRateLimiter:
    """At most `requests_per_minute` and `tokens_per_minute`, as providers count them.

    Tokens are reserved by an estimate before a request and corrected by the real usage after it.
    `estimate` is the reservation per request where none is given.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        estimate: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if requests_per_minute is None and tokens_per_minute is None:
            raise ConfigurationError("give requests_per_minute, tokens_per_minute, or both")
        self._estimate = int(_check("estimate", estimate))
        self._lock = threading.Lock()
        self._clock = clock
        self._turns = _Turns(clock)
        self._requests = _per_minute("requests_per_minute", requests_per_minute, clock)
        self._tokens = _per_minute("tokens_per_minute", tokens_per_minute, clock)
        if tokens_per_minute is not None and estimate > tokens_per_minute:
            raise ConfigurationError(
                f"estimate is {estimate}: more than tokens_per_minute ({tokens_per_minute:g}), so "
                "no request ever fits"
            )

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait for the turn of one request of `estimate` tokens in this thread."""
        wait = self._turn(blocking)
        if wait is None:
            return False
        time.sleep(wait)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The same in a task."""
        wait = self._turn(blocking)
        if wait is None:
            return False
        if wait > 0:
            turn = self._clock() + wait
            try:
                await anyio.sleep(wait)
            except BaseException:
                with self._lock:
                    self._turns.give(turn)
                raise
        return True

    def correct(self, usage: UsageMetadata) -> None:
        """What the request that was reserved for has really used."""
        if self._tokens is not None:
            with self._lock:
                self._tokens.give(self._estimate - usage.get("total_tokens", self._estimate))

    def back_off(self, seconds: float) -> None:
        """The provider asked to wait: nobody's turn comes before."""
        with self._lock:
            self._turns = _Turns(self._clock)
            for bucket in (self._requests, self._tokens):
                if bucket is not None:
                    bucket.pause(seconds)

    def _turn(self, blocking: bool) -> float | None:
        asked = [(self._requests, 1), (self._tokens, self._estimate)]
        with self._lock:
            there = [(bucket, amount) for bucket, amount in asked if bucket is not None]
            if not blocking and any(bucket.wait_for(amount) > 0 for bucket, amount in there):
                return None
            return self._turns.take(
                lambda: max(bucket.take(amount) for bucket, amount in there), blocking=blocking
            )


def _per_minute(name: str, limit: float | None, clock: Callable[[], float]) -> _Bucket | None:
    if limit is None:
        return None
    amount = _check(name, limit)
    return _Bucket(amount / 60, amount, clock)
