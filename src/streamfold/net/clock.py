"""The four time limits of one call, and which of them a wait runs into.

Only waiting counts: `left` is asked when a wait begins and says how long it may last. The wait for
content starts anew with the first wait after content, so a consumer that takes its time between
two chunks is never timed out; the total is the wall clock.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import Final, Literal

from ..errors import RequestTimeoutError
from ..limits import Timeouts

__all__ = ["CLOCK", "GRACE", "Clock"]

Limit = Literal["connect", "first_event", "idle", "total"]

#: Seconds to wait for trailing figures once the finish reason is there but no end marker.
GRACE: Final = 5.0

#: The clock of the call that is sending; read by connections until the answer's head has come.
CLOCK: ContextVar[Clock | None] = ContextVar("streamfold_clock", default=None)


class Clock:
    """Started when the call starts; lives through its retries."""

    __slots__ = ("_due", "_end", "_limit", "_seconds", "_stale", "timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self.timeouts = timeouts
        total = timeouts.total
        self._end = math.inf if total is None else time.monotonic() + total
        self._due = math.inf
        self._limit: Limit = "first_event"
        self._seconds: float | None = None
        self._stale = False

    def send(self) -> None:
        """A request goes out: the wait for its first content begins."""
        self._wait("first_event", self.timeouts.first_event)

    def content(self) -> None:
        """Content came: the next wait is an idle one, counted from its own beginning."""
        self._stale = True

    def finished(self) -> None:
        """The answer is complete but for figures that may trail: wait a moment and no more."""
        self._wait("idle", min(GRACE, self.timeouts.idle or GRACE))

    def draining(self) -> None:
        """The end marker came. The end of the body is due at once; then the connection is kept."""
        self._wait("idle", 0.05)

    def connect_left(self) -> float | None:
        """Seconds that making the connection may take."""
        return _shorter(self.timeouts.connect, self._end)

    def total_left(self) -> float:
        """Seconds until the whole call must be over; infinity without a total limit."""
        return self._end - time.monotonic()

    def left(self) -> float | None:
        """Seconds that a wait which begins now may last; None is for ever, at least 0."""
        if self._stale:
            self._stale = False
            self._wait("idle", self.timeouts.idle)
        due = min(self._due, self._end)
        return None if due == math.inf else max(due - time.monotonic(), 0.0)

    def error(self, *, connecting: bool = False) -> RequestTimeoutError:
        """The limit that has run out, as an error."""
        if self._end <= time.monotonic():
            return _timeout("total", self.timeouts.total)
        if connecting:
            return _timeout("connect", self.timeouts.connect)
        return _timeout(self._limit, self._seconds)

    def _wait(self, limit: Limit, seconds: float | None) -> None:
        self._stale = False
        self._limit = limit
        self._seconds = seconds
        self._due = math.inf if seconds is None else time.monotonic() + seconds


def _shorter(seconds: float | None, end: float) -> float | None:
    left = end - time.monotonic()
    if seconds is None:
        return None if left == math.inf else max(left, 0.0)
    return max(min(seconds, left), 0.0)


_MEANING: Final = {
    "connect": "no connection within {} s",
    "first_event": "no content within {} s of sending the request",
    "idle": "no content for {} s in the middle of the answer",
    "total": "the call was not over within {} s",
}


def _timeout(limit: Limit, seconds: float | None) -> RequestTimeoutError:
    shown = f"{seconds:g}" if seconds is not None else "?"
    return RequestTimeoutError(
        f"{_MEANING[limit].format(shown)} (Timeouts.{limit})",
        limit=limit,
        seconds=seconds,
        retryable=limit != "total",
    )
