"""Turns: first come, first served, and nobody polls.

The first in the queue has a timer for when its turn comes. Whoever wakes hands out all turns that
are due, in order, the own one or not, and wakes the one who is first then, to set a timer. The
others have timers, too, but later ones than they should need: so a loop that hangs or has died,
with the first in the queue on it, holds nobody up for long.

A turn counts from when it is handed out and not from when it was due, so those who oversleep
together do not go together: no window of time ever has more turns than the rate allows.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
from anyio.lowlevel import EventLoopToken, current_token

__all__ = ["Bucket", "Loan", "Queue", "Take", "await_turn", "wait_for_turn"]

_EXACT: Final = 1e-9  # seconds: what times may be off by rounding
_SHORTEST, _LONGEST = 1e-6, 86_400.0  # seconds that one sleep may take
_SPARE, _SPARE_SECONDS = 1.25, 0.1  # how much longer those sleep who are not the first
_KEPT: Final = 2000  # takes that are kept for the sake of one that is not settled


class Take:
    """An amount that is taken from a bucket at a time; `open` while it is only an estimate."""

    __slots__ = ("amount", "at", "open")

    def __init__(self, amount: float, at: float = -math.inf, *, open: bool = False) -> None:
        self.amount = amount
        self.at = at
        self.open = open


class Bucket:
    """`per_second` in the long run, and `size` at once after a rest.

    What it holds is written as the time at which it is full again, which needs no refilling. From
    the oldest estimate on, the takes are kept: once it is known what was used, the bucket is as if
    that had been taken in the first place. (To put back the difference would be too much: in the
    meantime the bucket may have been full, and what then runs over is gone.)
    """

    def __init__(self, per_second: float, size: float) -> None:
        self.size = size
        self._interval = 1 / per_second
        self._full_at = -math.inf
        self._before = -math.inf  # the same without the takes that are kept
        self._kept: deque[Take] = deque()

    def due(self, amount: float, now: float) -> float:
        """The time from which on `amount` is there."""
        return max(self._full_at, now) + (amount - self.size) * self._interval

    def add(self, take: Take) -> None:
        """Take it, there or not."""
        self._full_at = self._after(self._full_at, take)
        self._kept.append(take)
        self._forget()

    def give(self, amount: float) -> None:
        """Put back what was taken a moment ago."""
        self.add(Take(-amount))

    def keep(self, amount: float, at: float) -> None:
        """See to it that at the time `at` no more than `amount` is there."""
        full_at = at + (self.size - amount) * self._interval
        if full_at > self._full_at:
            self.add(Take(0, full_at))

    def settle(self, take: Take, used: float, now: float) -> None:
        """An estimate comes to its end."""
        if take.open:
            take.amount, take.open = used, False
            self._full_at = self._before
            for kept in self._kept:
                self._full_at = self._after(self._full_at, kept)
            self._forget()
        elif used > take.amount:  # it was too long ago
            self.add(Take(used - take.amount, now))

    def _after(self, full_at: float, take: Take) -> float:
        return max(full_at, take.at) + take.amount * self._interval

    def _forget(self) -> None:
        while self._kept and (not self._kept[0].open or len(self._kept) > _KEPT):
            oldest = self._kept.popleft()
            oldest.open = False
            self._before = self._after(self._before, oldest)


class Loan(Take):
    """A take whose amount is an estimate, from the bucket that it is settled with."""

    __slots__ = ("bucket",)

    def __init__(self, amount: int, bucket: Bucket | None) -> None:
        super().__init__(amount, open=True)
        self.bucket = bucket


class _Waiter:
    """Somebody in the queue. `wake` may be called from any thread."""

    __slots__ = ("amounts", "end", "granted", "left", "loan", "timer", "wake")

    def __init__(
        self,
        amounts: tuple[int, ...],
        end: list[int],
        wake: Callable[[], Any],
        loan: Loan | None,
    ) -> None:
        self.amounts = amounts
        self.loan = loan
        self.end = end  # all that was asked for up to here, by those before and by this one
        self.wake = wake
        self.granted = False
        self.left = False
        self.timer = -math.inf  # when it wakes by itself; it is awake now


class Queue:
    """Who waits for the buckets. Each asks for an amount of each bucket at once."""

    def __init__(self, buckets: Sequence[Bucket], clock: Callable[[], float]) -> None:
        self._buckets = tuple(buckets)
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._asked = [0] * len(self._buckets)  # by all who ever came
        self._passed = [0] * len(self._buckets)  # of that, what is not waited for any more
        self._held_until = -math.inf

    def try_now(self, amounts: tuple[int, ...], loan: Loan | None = None) -> bool:
        """Take a turn if it is there and nobody waits. `loan`: one of the amounts is only an
        estimate, see `settle`."""
        with self._lock:
            now = self._clock()
            self._hand_out(now)
            if self._waiting or self._due(amounts, now) > now + _EXACT:
                return False
            self._take(amounts, loan, now)
            return True

    def join(
        self, amounts: tuple[int, ...], wake: Callable[[], Any], loan: Loan | None = None
    ) -> _Waiter:
        with self._lock:
            self._asked = [asked + a for asked, a in zip(self._asked, amounts)]
            waiter = _Waiter(amounts, self._asked, wake, loan)
            self._waiting.append(waiter)
            return waiter

    def pause(self, waiter: _Waiter) -> float | None:
        """Seconds that `waiter` is to sleep; None if it has its turn."""
        with self._lock:
            now = self._clock()
            waiter.timer = -math.inf
            self._hand_out(now)
            if waiter.granted:
                return None
            ahead = tuple(end - passed for end, passed in zip(waiter.end, self._passed))
            seconds = self._due(ahead, now) - now
            if waiter is not self._waiting[0]:
                seconds = seconds * _SPARE + _SPARE_SECONDS
            seconds = min(max(seconds, _SHORTEST), _LONGEST)
            waiter.timer = now + seconds
            return seconds

    def leave(self, waiter: _Waiter) -> None:
        """`waiter` gives up; a turn that it was just given goes to the next."""
        with self._lock:
            now = self._clock()
            if waiter.granted:
                self._give(waiter, now)
            waiter.left = True
            while self._waiting and self._waiting[-1].left:
                last = self._waiting.pop()
                self._asked = [asked - a for asked, a in zip(self._asked, last.amounts)]
            self._hand_out(now)

    def settle(self, loan: Loan, used: int) -> None:
        """`used` is what was really used of `loan`, or beyond it."""
        if loan.bucket is not None:
            with self._lock:
                now = self._clock()
                loan.bucket.settle(loan, used, now)
                self._hand_out(now)

    def keep(self, place: int, amount: float, after: float = 0.0) -> None:
        """See to it that no more than `amount` is in the bucket at `place`, in `after` seconds."""
        with self._lock:
            self._buckets[place].keep(amount, self._clock() + after)

    def hold(self, seconds: float) -> None:
        """No turn before `seconds` have passed, for those who wait, too."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def _due(self, amounts: Sequence[int], now: float) -> float:
        there = max(bucket.due(amount, now) for bucket, amount in zip(self._buckets, amounts))
        return max(there, self._held_until)

    def _take(self, amounts: Sequence[int], loan: Loan | None, now: float) -> None:
        for bucket, amount in zip(self._buckets, amounts):
            if loan is not None and loan.bucket is bucket:
                loan.at = now
                bucket.add(loan)
            else:
                bucket.add(Take(amount, now))

    def _give(self, waiter: _Waiter, now: float) -> None:
        for bucket, amount in zip(self._buckets, waiter.amounts):
            if waiter.loan is not None and waiter.loan.bucket is bucket:
                bucket.settle(waiter.loan, 0, now)
            else:
                bucket.give(amount)

    def _hand_out(self, now: float) -> None:
        while self._waiting:
            head = self._waiting[0]
            if not head.left:
                due = self._due(head.amounts, now)
                if due > now + _EXACT:
                    if due < head.timer - _EXACT:
                        head.timer = -math.inf
                        head.wake()
                    return
                self._take(head.amounts, head.loan, now)
                head.granted = True
                head.wake()
            self._waiting.popleft()
            self._passed = [passed + a for passed, a in zip(self._passed, head.amounts)]


def wait_for_turn(queue: Queue, amounts: tuple[int, ...]) -> None:
    """Wait in this thread."""
    if queue.try_now(amounts):
        return
    news = threading.Event()
    waiter = queue.join(amounts, news.set)
    try:
        while True:
            news.clear()
            pause = queue.pause(waiter)
            if pause is None:
                return
            news.wait(pause)
    except BaseException:
        queue.leave(waiter)
        raise


async def await_turn(queue: Queue, amounts: tuple[int, ...], loan: Loan | None = None) -> None:
    """Wait in this task; being cancelled is leaving."""
    if queue.try_now(amounts, loan):
        return
    news = _News()
    waiter = queue.join(amounts, news.post, loan)
    try:
        while True:
            news.event = anyio.Event()
            pause = queue.pause(waiter)
            if pause is None:
                return
            with anyio.move_on_after(pause):
                await news.event.wait()
    except BaseException:
        queue.leave(waiter)
        raise


class _News:
    """An event that any thread may set in the loop where it is awaited."""

    def __init__(self) -> None:
        self._home: EventLoopToken = current_token()
        self.event = anyio.Event()

    def post(self) -> None:
        native: Any = self._home.native_token
        soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        with suppress(RuntimeError):  # its loop is over, and so is whoever waited there
            soon(lambda: self.event.set())
