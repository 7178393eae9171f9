"""How many calls of one model may be under way at once, counted over all threads and event loops.

First come, first served, and without polling: who has to wait stands in one queue, and whoever is
done hands the place to the first in it, in whatever loop that one waits. One call does not wait: a
sync method that blocks the thread of an event loop, in which a call under way has a place or will
get one. That place could not be given back before the sync method is done.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from typing import Any

import anyio
from anyio.lowlevel import current_token

from .portal import is_waiting

__all__ = ["InFlight"]


class InFlight:
    """Places for `size` calls. Every `acquire` that returns is followed by one `release`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._busy: Counter[int] = Counter()  # places taken, by the thread of who has them
        self._queue: deque[_Turn] = deque()

    async def acquire(self) -> None:
        """Wait for a place. Whoever is cancelled while waiting has none."""
        if self._process != os.getpid():
            self._start()  # a child process: the calls that were under way are its parent's
        with self._lock:
            if self._busy.total() < self.size or self._would_wait_for_itself():
                self._busy[threading.get_ident()] += 1
                return
            turn = _Turn()
            self._queue.append(turn)
        try:
            await turn.wait()
        except BaseException:
            self._leave(turn)
            raise

    def release(self) -> None:
        """Hand the place to the first who waits."""
        with self._lock:
            self._busy[threading.get_ident()] -= 1
            while self._queue and self._busy.total() < self.size:
                turn = self._queue.popleft()
                if turn.give():
                    self._busy[turn.thread] += 1

    def _would_wait_for_itself(self) -> bool:
        threads = {*(+self._busy), *(turn.thread for turn in self._queue)}
        return any(map(is_waiting, threads))

    def _leave(self, turn: _Turn) -> None:
        """Out of the queue; a place that came at the last moment goes on to the next."""
        with self._lock:
            if turn in self._queue:
                self._queue.remove(turn)
        if turn.given:
            self.release()


class _Turn:
    """Somebody in the queue, and the loop in which to wake them."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._loop: Any = current_token().native_token
        self._event = anyio.Event()
        self.given = False

    async def wait(self) -> None:
        await self._event.wait()

    def give(self) -> bool:
        """Wake them. False if their loop has ended, and they with it."""
        soon = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        try:
            soon(self._event.set)
        except RuntimeError:
            return False
        self.given = True
        return True
