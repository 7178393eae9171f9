"""The limiters of one process, and what a limiter is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from ..errors import ConfigurationError
from .headers import Left, read_left
from .queue import Bucket, Loan, Queue, await_turn, wait_for_turn

__all__ = ["InMemoryRateLimiter", "RateLimiter", "TokenRateLimiter"]

#: Seconds that the vendor's word on when its limit resets is obeyed for.
_LONGEST_HOLD: Final = 60.0
#: Seconds: a limit that is back so soon is waited for whole.
_SHORT_RESET: Final = 5.0
_ANSWER: Final = 1000  # tokens that an answer is taken to need where nobody says


@runtime_checkable
class RateLimiter(Protocol):
    """What a model's ``rate_limiter=`` must have: these two methods. The engine is async and awaits
    `aacquire` before every request, retries included; `acquire` is for programs.

    Both return True when the request may go out. With ``blocking=True`` they wait until it may;
    False then means that it never may, and the call fails with a RateLimitError.

    A limiter may have more, and is then told more:

    - ``async def reserve(self, input_tokens: int, max_tokens: int | None) -> object`` is awaited in
      place of `aacquire`, with an estimate of the request and the limit of its answer (None: it has
      none). What it returns stands for this request in
    - ``def settle(self, reservation, tokens: int) -> None``: the request is over and has used
      `tokens`, as the vendor reported or, where it did not (a stream left early), as estimated.
    - ``def observe(self, headers: Mapping[str, str]) -> None``: the headers of every answer.
    - ``def back_off(self, seconds: float) -> None``, or ``async def``: the vendor answered 429 and
      asks for a pause, which should hold for all who share the limiter.

    All of them may be called from any thread and event loop.
    """

    def acquire(self, *, blocking: bool = True) -> bool: ...
    async def aacquire(self, *, blocking: bool = True) -> bool: ...


class _QueueLimiter:
    """A limiter whose turns come from a `Queue`."""

    _queue: Queue
    _turn: tuple[int, ...]  # what a request takes of which nothing is known
    _counts_requests = True  # in the first bucket

    def acquire(self, *, blocking: bool = True) -> bool:
        """Wait in this thread for the turn of one request; False at once if not `blocking`."""
        if not blocking:
            return self._queue.try_now(self._turn)
        wait_for_turn(self._queue, self._turn)
        return True

    async def aacquire(self, *, blocking: bool = True) -> bool:
        """The same in a task. Whoever is cancelled leaves the queue, and the others move up."""
        if not blocking:
            return self._queue.try_now(self._turn)
        await await_turn(self._queue, self._turn)
        return True

    def back_off(self, seconds: float) -> None:
        """Nobody's turn comes before `seconds` have passed: the provider asked to wait. Then there
        is no burst, but one request, and the others at the usual rate."""
        self._queue.hold(seconds)
        if self._counts_requests:
            self._queue.keep(0, 1, after=seconds)


class InMemoryRateLimiter(_QueueLimiter):
    """At most `requests_per_second` on average, and `max_bucket_size` at once after a rest.

    First come, first served; for threads, tasks and event loops of one process together. No window
    of time has more requests than the rate for its length and the bucket: turns that a busy loop
    takes late are not made up for, unless the bucket is larger than 1.
    `check_every_n_seconds` is accepted for programs written for LangChain: nothing is polled here.
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
        rate = check_positive("requests_per_second", requests_per_second)
        check_positive("check_every_n_seconds", check_every_n_seconds)
        size = check_bucket("max_bucket_size", max_bucket_size)
        self._queue = Queue([Bucket(rate, size)], clock)
        self._turn = (1,)


class TokenRateLimiter(_QueueLimiter):
    """At most `requests_per_minute` and `tokens_per_minute`, as providers count them: a minute's
    worth at once after a rest, and then as it comes back.

    Before a request its tokens are reserved by estimate: the messages and tools, and `max_tokens`,
    or `estimate` tokens (default 1000, or what fits) where it has none. Afterwards this is
    corrected by what was really used. The vendor's headers count, too: when less is left than
    this limiter thinks, because others use the same key, it slows down.

    Raises ConfigurationError if there is neither limit, if one is no positive number, and, before a
    request is sent, if that request needs more tokens than a minute has.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        estimate: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if requests_per_minute is None and tokens_per_minute is None:
            raise ConfigurationError("give requests_per_minute, tokens_per_minute, or both")
        if estimate is not None:
            check_positive("estimate", estimate)
        limits = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._limits = {
            kind: check_positive(f"{kind}_per_minute", limit)
            for kind, limit in limits.items()
            if limit is not None
        }
        most = self._limits.get("tokens", math.inf)
        if most < (estimate or 1):
            raise ConfigurationError(
                f"estimate is {estimate or 1}: more than tokens_per_minute ({most:g}), so no "
                "request ever fits"
            )
        self._estimate = int(min(estimate or _ANSWER, most))
        buckets = {kind: Bucket(limit / 60, max(limit, 1)) for kind, limit in self._limits.items()}
        self._counts_requests = "requests" in buckets
        self._token_bucket = buckets.get("tokens")
        self._queue = Queue(tuple(buckets.values()), clock)
        self._turn = self._amounts(self._estimate)

    async def reserve(self, input_tokens: int, max_tokens: int | None) -> Loan:
        """Wait for the turn of a request. What is reserved for it (its `amount` of tokens) is for
        `settle`, which must follow."""
        tokens = self._tokens_for(input_tokens, max_tokens)
        loan = Loan(tokens, self._token_bucket)
        await await_turn(self._queue, self._amounts(tokens), loan)
        return loan

    def settle(self, reservation: Loan, tokens: int) -> None:
        """A request is over: it has used `tokens`, which need not be what was reserved."""
        self._queue.settle(reservation, tokens)

    def observe(self, headers: Mapping[str, str]) -> None:
        """What the vendor says is left: less than we think, and we think so, too."""
        left = read_left(headers)
        for place, kind in enumerate(self._limits):
            if kind in left:
                self._queue.keep(place, left[kind].remaining)
                self._queue.hold(_hold(left[kind]))

    def _tokens_for(self, input_tokens: int, max_tokens: int | None) -> int:
        most = self._limits.get("tokens", math.inf)
        need = input_tokens + (max_tokens or 0)
        if need > most:
            answer = f" and max_tokens={max_tokens}" if max_tokens else ""
            raise ConfigurationError(
                f"the request needs about {need} tokens ({input_tokens} for the input{answer}), "
                f"more than tokens_per_minute ({most:g}): its turn would never come"
            )
        return int(min(need if max_tokens else need + self._estimate, most))

    def _amounts(self, tokens: int) -> tuple[int, ...]:
        asked = {"requests": 1, "tokens": tokens}
        return tuple(asked[kind] for kind in self._limits)


def _hold(left: Left) -> float:
    """Seconds to send nothing, by what is left.

    The vendors' buckets refill all the time and `reset` is when they are full, so a long one is
    waited for in part: long enough that one request more fits, and a few.
    """
    reset = left.reset or 0.0
    if left.remaining >= 1 or reset > _LONGEST_HOLD:
        return 0.0
    share = reset / left.limit if left.limit else reset
    return min(reset, max(share, _SHORT_RESET))


def check_positive(name: str, value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} is {value!r}: expected a number greater than 0")
    return float(value)


def check_bucket(name: str, value: Any) -> float:
    size = check_positive(name, value)
    if size < 1:
        raise ConfigurationError(f"{name} is {value!r}: below 1 no request ever fits")
    return size
