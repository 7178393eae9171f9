"""When to try again, and how long to wait: pure functions, and the budget that retries share.

The policy: connection failures, time-outs and cuts before the first chunk, 408, 409, 429, 5xx and
overload errors inside a stream; the server's word on when (`retry-after-ms`, `retry-after`) or a
random pause that doubles; never once a chunk was handed over.

A host that fails every call must not be asked three times as often for it: retries cost tokens of a
budget that all calls of a client to that host share, and successes earn them back. The figures are
botocore's (its `retries/quota.py`).
"""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from ..errors import RateLimitError, StreamfoldError

__all__ = [
    "MAX_SERVER_PAUSE",
    "RetryBudget",
    "backoff",
    "budget_of",
    "pause_before",
    "retry_after",
    "should_retry_header",
]

#: Seconds: what the server may ask for. Past it, the caller decides: the error is raised at once.
MAX_SERVER_PAUSE: Final = 60.0
_SHORTEST: Final = 0.05
_LONGEST: Final = 8.0


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that the server asks to wait; None if it does not say, or not sensibly.

    `retry-after-ms` (milliseconds) goes before `retry-after` (seconds, with or without fractions,
    or an HTTP date). What is not a finite number greater than 0 is no answer.
    """
    seconds = _positive(headers.get("retry-after-ms"), 1 / 1000)
    if seconds is not None:
        return seconds
    text = headers.get("retry-after")
    if not text:
        return None
    try:
        float(text)
    except ValueError:
        return _seconds_until(text, now)
    return _positive(text)


def _positive(text: str | None, unit: float = 1.0) -> float | None:
    try:
        value = float(text or "") * unit
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _seconds_until(date: str, now: datetime | None) -> float | None:
    try:
        when = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return seconds if seconds > 0 else None


def should_retry_header(headers: Mapping[str, str]) -> bool | None:
    """The server's own decision, `x-should-retry`; None if it leaves it to us."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def backoff(attempt: int, rng: random.Random | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 0): uniform between 0.05 and
    ``min(8, 0.5 * 2 ** attempt)``."""
    longest = min(_LONGEST, 0.5 * 2 ** min(attempt, 10))
    return (rng or random).uniform(_SHORTEST, longest)


def pause_before(
    error: StreamfoldError, attempt: int, max_retries: int, total_left: float
) -> float | None:
    """Seconds to wait before the next attempt, or None if there shall be none.

    `attempt` counts failures from 0, `total_left` is what remains of the call's deadline.
    """
    if attempt >= max_retries or not error.retryable:
        return None
    pause = error.retry_after
    if pause is None:
        pause = backoff(attempt)
    elif pause > MAX_SERVER_PAUSE:
        return None
    return pause if pause < total_left else None


_BUDGET: Final = 500  # tokens of a budget that nothing has been taken from
_RETRY_COST: Final = 14
_THROTTLED_COST: Final = 5  # the host is well, and says when to come back
_EARNED: Final = 1  # by a call that needed no retry
_MOST_HOSTS: Final = 100  # of one client; a client with more of them has no use for budgets


class RetryBudget:
    """The tokens for retries to one host. 35 failures in a row use it up, or 100 rate limits; from
    then on errors are raised at once, until calls succeed again.

    Calls of several threads may share one: a count that is off by a retry does no harm.
    """

    __slots__ = ("__weakref__", "tokens")

    def __init__(self) -> None:
        self.tokens = _BUDGET

    def spend(self, error: StreamfoldError) -> int:
        """Take what a retry after `error` costs; 0 if there is too little left for it."""
        cost = _THROTTLED_COST if isinstance(error, RateLimitError) else _RETRY_COST
        if cost > self.tokens:
            return 0
        self.tokens -= cost
        return cost

    def earn(self, cost: int) -> None:
        """A call has succeeded: its last retry, which had this cost (0: none), was worth it."""
        self.tokens = min(self.tokens + (cost or _EARNED), _BUDGET)


_budgets: weakref.WeakKeyDictionary[object, dict[str, RetryBudget]] = weakref.WeakKeyDictionary()


def budget_of(client: object, url: str) -> RetryBudget:
    """The budget of `client` (anything that lives as long as its calls) for the host of `url`."""
    hosts = _budgets.get(client)
    if hosts is None:
        hosts = _budgets.setdefault(client, {})
    host = urlsplit(url).netloc
    budget = hosts.get(host)
    if budget is None:
        if len(hosts) >= _MOST_HOSTS:
            hosts.clear()
        budget = hosts.setdefault(host, RetryBudget())
    return budget
