"""How many calls of one model may be under way at once, counted over all threads and event loops.

First come, first served, and without polling: who has to wait stands in one queue, and whoever is
done hands the place to the first in it, in whatever loop that one waits.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

import anyio
from anyio.lowlevel import current_token

__all__ = ["InFlight"]


class InFlight:
    """Places for `size` calls. Every `acquire` that returns is followed by one `release`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._free = self.size
        self._queue: deque[_Turn] = deque()

    async def acquire(self) -> None:
        """Wait for a place. Whoever is cancelled while waiting has none."""
        if self._process != os.getpid():
            self._start()  # a child process: the calls that were under way are its parent's
        with self._lock:
            if self._free:  # then nobody waits
                self._free -= 1
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
            while self._queue:
                if self._queue.popleft().give():
                    return
            self._free += 1

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
