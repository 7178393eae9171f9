"""One background event loop for the sync API: `run` a coroutine, `iterate` an async iterator.

The loop runs in a thread of its own and outlives each call, so connections are reused. It serves
scripts, notebooks (where a loop is already running in the caller's thread) and many threads at
once alike, and it is made anew after a fork. Nothing here knows about models.

Items cross threads by the list: all that the async side has ready goes over in one hop, and the
sync side hands it out item by item.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

__all__ = ["iterate", "run"]

T = TypeVar("T")

# Lists that may wait for a slow consumer before the reader waits for it: back-pressure.
_AHEAD: Final = 16
# Seconds that leaving early waits for the stream to be closed on the other side.
_CLOSE_WAIT: Final = 5.0

_lock = threading.Lock()
_portal: BlockingPortal | None = None
_thread: threading.Thread | None = None


def _get_portal() -> BlockingPortal:
    global _portal, _thread
    with _lock:
        if _portal is None:
            ready: Future[BlockingPortal] = Future()
            _thread = threading.Thread(
                target=_serve, args=(ready,), name="streamfold-portal", daemon=True
            )
            _thread.start()
            _portal = ready.result()
        return _portal


def _serve(ready: Future[BlockingPortal]) -> None:
    """The thread. (anyio's `start_blocking_portal` is a generator, which would wait for this thread
    where it is dropped: in the child of a fork, for ever.)"""

    async def serve() -> None:
        async with BlockingPortal() as portal:
            ready.set_result(portal)
            await portal.sleep_until_stopped()

    try:
        anyio.run(serve, backend="asyncio")
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        # Else a call has raised it in its own thread. The next call begins anew.


def _start(function: Callable[..., Awaitable[T]], *args: Any) -> tuple[BlockingPortal, Future[T]]:
    portal = _get_portal()
    try:
        return portal, portal.start_task_soon(function, *args)
    except RuntimeError:
        if threading.current_thread() is _thread:
            raise  # it would wait for itself
        _discard(portal)  # a call has ended it, by `sys.exit` perhaps
        portal = _get_portal()
        return portal, portal.start_task_soon(function, *args)


def _discard(portal: BlockingPortal) -> None:
    global _portal, _thread
    with _lock:
        if _portal is portal and _thread is not None:
            _thread.join(_CLOSE_WAIT)
            _portal = _thread = None


def _stop() -> None:
    global _portal, _thread
    with _lock:
        portal, thread, _portal, _thread = _portal, _thread, None, None
    if portal is not None and thread is not None:
        with suppress(BaseException):
            # Cancels what still runs: a program that ends does not wait for its streams.
            portal.call(portal.stop, True)
            thread.join(_CLOSE_WAIT)


def _forget() -> None:
    """After a fork the thread is gone, and its sockets are the parent's."""
    global _portal, _thread, _lock
    _portal = _thread = None
    _lock = threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await ``function(*args)`` on the portal's loop and return its result here.

    An exception in this thread while it waits (Ctrl-C) cancels the call, and is raised on once the
    call is over.
    """
    over = threading.Event()  # a cancelled future says nothing about when its task has ended

    async def call() -> T:
        try:
            return await function(*args)
        finally:
            over.set()

    _, future = _start(call)
    try:
        return future.result()
    except BaseException:
        if future.cancel():
            with suppress(BaseException):
                over.wait(_CLOSE_WAIT)
        raise


class _Gate:
    """Lets the reader go on until it is too far ahead of the consumer; then it waits here."""

    def __init__(self) -> None:
        self.portal: BlockingPortal
        self._lock = threading.Lock()
        self._ahead = 0
        self._room: anyio.Event | None = None

    async def enter(self) -> None:
        """On the loop: one more list is handed over, when there is room."""
        with self._lock:
            self._ahead += 1
            if self._ahead <= _AHEAD:
                return
            room = self._room = anyio.Event()
        await room.wait()

    def leave(self) -> None:
        """In the consumer's thread: one list is used up."""
        with self._lock:
            self._ahead -= 1
            room, self._room = self._room, None
        if room is not None:
            self.portal.start_task_soon(room.set)


class _End:
    """The last thing in the queue: the stream is over, with or without an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def iterate(source: Callable[[], AsyncIterator[list[T]]]) -> Iterator[T]:
    """Iterate in this thread over the items of an async iterator of lists.

    `source` is called, and its iterator read and closed, on the portal's loop, in one task.
    Leaving early (break, close, an exception, Ctrl-C) cancels that task and waits until the
    stream is closed.
    """
    lists: queue.SimpleQueue[list[T] | _End] = queue.SimpleQueue()
    gate = _Gate()
    portal, future = _start(_pump, source, lists, gate)
    gate.portal = portal
    got: list[T] | _End = []
    try:
        while not isinstance(got := lists.get(), _End):
            gate.leave()
            yield from got
        if got.error is not None:
            raise got.error
    finally:
        if not isinstance(got, _End) and portal is _portal:  # else it was left behind by a fork
            future.cancel()
            with suppress(BaseException):
                while not isinstance(lists.get(timeout=_CLOSE_WAIT), _End):
                    pass


async def _pump(
    source: Callable[[], AsyncIterator[list[Any]]],
    lists: queue.SimpleQueue[Any],
    gate: _Gate,
) -> None:
    error: BaseException | None = None
    iterator: Any = None
    try:
        iterator = source()
        async for items in iterator:
            await gate.enter()
            lists.put(items)
    except BaseException as raised:
        error = raised
        if not isinstance(raised, Exception):
            raise
    finally:
        try:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()
        finally:
            lists.put(_End(error))
