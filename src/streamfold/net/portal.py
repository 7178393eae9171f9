"""One background event loop for the sync API: `run` a coroutine, `iterate` an async iterator.

The loop runs in a thread of its own and outlives each call, so connections are reused. It serves
scripts, notebooks (where a loop is already running in the caller's thread) and many threads at
once alike, and it is made anew after a fork. Nothing here knows about models.

Items cross threads by the list: all that the async side has ready goes over in one hop, and the
sync side hands it out item by item.

Ctrl-C may strike between any two steps of the calling thread. What it shares with the loop is
therefore made of queues and callbacks, which no interrupt leaves half done; a lock, or a future,
which has one, could be left locked, and the loop would hang on it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from anyio.lowlevel import EventLoopToken

if TYPE_CHECKING:
    import asyncio

__all__ = ["CLOSE_WAIT", "Owner", "is_waiting", "iterate", "owned", "post", "run"]

T = TypeVar("T")

# Lists that may wait for a slow consumer before the reader waits for it: back-pressure.
_AHEAD: Final = 16
# Seconds that leaving early waits for the stream to be closed on the other side.
CLOSE_WAIT: Final = 5.0
# Seconds after which a wait is begun anew: a signal that comes just before it is seen no sooner.
_TURN: Final = 1.0


# ---- the loop ------------------------------------------------------------------------------------


class _Background:
    """The loop, its thread and the task group of all that runs in it."""

    loop: asyncio.AbstractEventLoop
    group: anyio.abc.TaskGroup

    def __init__(self) -> None:
        self._ready: SimpleQueue[BaseException | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="streamfold-portal", daemon=True)
        self.thread.start()
        error = self._ready.get()
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except BaseException as error:
            self._ready.put(error)  # nobody looks once it has been ready

    async def _serve(self) -> None:
        import asyncio

        async with anyio.create_task_group() as self.group:
            self.loop = asyncio.get_running_loop()
            self._ready.put(None)
            await anyio.sleep_forever()

    def stop(self) -> None:
        """Cancel what still runs and wait for the end."""
        self.loop.call_soon_threadsafe(self.group.cancel_scope.cancel)
        self.thread.join(CLOSE_WAIT)


_lock = threading.Lock()
_background: _Background | None = None


def _get_background() -> _Background:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
        return _background


def _stop() -> None:
    """A program that ends does not wait for its streams."""
    global _background
    stopped, _background = _background, None
    if stopped is not None:
        with suppress(BaseException):
            stopped.stop()


def _forget() -> None:
    """After a fork the thread is gone, and its sockets are the parent's."""
    global _background, _lock
    _background = None
    _lock = threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ---- one task in it ------------------------------------------------------------------------------


class _End:
    """The last answer of a job: it is over, with a value or an error."""

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class _Job:
    """A task on the background loop. `answers` has what it hands over and, whatever becomes of it,
    one `_End`."""

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self.answers: SimpleQueue[Any] = SimpleQueue()
        self._function = function
        self._background: _Background | None = None
        self._scope: anyio.CancelScope | None = None
        self._process = os.getpid()
        self._cancelled = False
        self.owner: Owner | None = None

    def start(self) -> None:
        background = _get_background()
        if threading.current_thread() is background.thread:
            raise RuntimeError(
                "a sync method was called on the event loop that serves the sync methods: it would "
                "wait for itself; await the async method, or call it in a thread of its own"
            )
        self._background = background
        owner = _owner.get()
        if owner is not None:
            owner.take(self)
        context = copy_context()
        context.run(_waiting.set, (*_waiting.get(), threading.get_ident()))
        background.loop.call_soon_threadsafe(self._begin, context=context)

    def answer(self) -> Any:
        """Wait for the next answer."""
        while True:
            try:
                return self.answers.get(timeout=_TURN)
            except Empty:
                pass

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run `callback` on the loop, after all that was asked of it before."""
        if self._background is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._background.loop.call_soon_threadsafe(callback)

    def end(self) -> None:
        """Cancel the task, and wait until it is gone."""
        if self._background is None or self._process != os.getpid():
            return
        if threading.current_thread() is self._background.thread:
            self._cancel()  # the garbage collector found it there
            return
        self.call_soon(self._cancel)
        last = time.monotonic() + CLOSE_WAIT
        with suppress(Empty, KeyboardInterrupt):
            while not isinstance(self.answers.get(timeout=max(last - time.monotonic(), 0)), _End):
                pass

    # Callbacks of the loop, which runs them in the order in which they were asked for.

    def _begin(self) -> None:
        if self._cancelled:
            return
        try:
            sniffio = sys.modules.get("sniffio")
            if sniffio is not None:  # the calling thread's context may say trio
                sniffio.current_async_library_cvar.set("asyncio")
            self._scope = anyio.CancelScope()
            assert self._background is not None
            self._background.group.start_soon(self._run)
        except Exception as error:
            self._over(_End(error=error))

    def _cancel(self) -> None:
        self._cancelled = True
        if self._scope is None:
            self._over(_End(error=RuntimeError(_CANCELLED)))  # it was not begun, and will not be
        else:
            self._scope.cancel()

    def _over(self, end: _End) -> None:
        self.answers.put(end)
        if self.owner is not None:
            self.owner.jobs.discard(self)

    async def _run(self) -> None:
        assert self._scope is not None
        end = _End()
        try:
            with self._scope:
                end = _End(await self._function())
            if self._scope.cancelled_caught:  # read only by a thread that was left to itself
                end = _End(error=RuntimeError(_CANCELLED))
        except Exception as error:
            end = _End(error=error)
        except (KeyboardInterrupt, SystemExit) as error:
            end = _End(error=error)  # for the caller, not for the loop
        finally:
            self._over(end)


# ---- who made a call -----------------------------------------------------------------------------

_CANCELLED: Final = "the run that made this call was cancelled"


class Owner:
    """The jobs of the sync calls that one context makes, until it is `over`."""

    def __init__(self) -> None:
        self.jobs: set[_Job] = set()
        self._over = False

    def take(self, job: _Job) -> None:
        job.owner = self
        self.jobs.add(job)
        if self._over:
            self.jobs.discard(job)
            raise RuntimeError(_CANCELLED)

    async def end(self) -> None:
        """Cancel the jobs, and wait until they are gone. They end on another loop: it is asked
        again and again whether they have, which cannot fail, and not for long."""
        self._over = True
        with anyio.move_on_after(CLOSE_WAIT, shield=True):
            while self.jobs:
                for job in list(self.jobs):
                    job.call_soon(job._cancel)
                await anyio.sleep(0.01)


_owner: ContextVar[Owner | None] = ContextVar("streamfold_owner", default=None)
_waiting: ContextVar[tuple[int, ...]] = ContextVar("streamfold_waiting", default=())


@asynccontextmanager
async def owned(owner: Owner | None = None) -> AsyncGenerator[None, None]:
    """When this block is cancelled, so are the sync calls made in its context: those of a thread
    that it waits for. Calls that such a thread makes later are refused with a RuntimeError."""
    owner = owner or Owner()
    token = _owner.set(owner)
    try:
        yield
    except anyio.get_cancelled_exc_class():
        await owner.end()
        raise
    finally:
        _owner.reset(token)


def is_waiting(thread: int) -> bool:
    """Whether the thread with this id waits in a sync call for what runs here."""
    return thread in _waiting.get()


def post(token: EventLoopToken, function: Callable[[], object]) -> None:
    """Have `function` called in the loop of `token`, from any thread, without waiting. A loop that
    is closed needs to know nothing any more."""
    native: Any = token.native_token
    soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    with suppress(RuntimeError):
        soon(function)


# ---- one call ------------------------------------------------------------------------------------


def run(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await ``function(*args)`` on the background loop and return its result here.

    An exception in this thread while it waits (Ctrl-C) cancels the call, and is raised on once the
    call is over.
    """
    job = _Job(lambda: function(*args))
    try:
        job.start()
        end = job.answer()
    except BaseException:
        job.end()
        raise
    if end.error is not None:
        raise end.error
    return end.value  # type: ignore[no-any-return]


# ---- many items ----------------------------------------------------------------------------------


class _Gate:
    """Lets the reader go on until it is too far ahead of the consumer; then it waits here.

    Each side counts for itself. The reader looks again after it has said that it waits, so one of
    the two sees the other; only then does a hop to the loop cost anything.
    """

    def __init__(self) -> None:
        self._made = 0
        self._used = 0
        self._waiting: anyio.Event | None = None

    async def enter(self) -> None:
        """On the loop: one more list is handed over, when there is room."""
        self._made += 1
        while self._made - self._used > _AHEAD:
            waiting = self._waiting = anyio.Event()
            if self._made - self._used > _AHEAD:
                await waiting.wait()
            self._waiting = None

    def leave(self, job: _Job) -> None:
        """In the consumer's thread: one list is used up."""
        self._used += 1
        waiting = self._waiting
        if waiting is not None:
            job.call_soon(waiting.set)


def iterate(source: Callable[[], AsyncIterator[list[T]]]) -> Iterator[T]:
    """Iterate in this thread over the items of an async iterator of lists.

    `source` is called, and its iterator read and closed, on the background loop, in one task.
    Leaving early (break, close, an exception, Ctrl-C) cancels that task and waits until the
    stream is closed.
    """
    gate = _Gate()
    job = _Job(lambda: _pump(source, job.answers, gate))
    got: Any = []
    try:
        job.start()
        while not isinstance(got := job.answer(), _End):
            gate.leave(job)
            yield from got
    finally:
        if not isinstance(got, _End):
            job.end()
    if got.error is not None:
        raise got.error


async def _pump(
    source: Callable[[], AsyncIterator[list[Any]]], lists: SimpleQueue[Any], gate: _Gate
) -> None:
    iterator = source()
    try:
        async for items in iterator:
            await gate.enter()
            lists.put(items)
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            with anyio.CancelScope(shield=True):
                await close()
