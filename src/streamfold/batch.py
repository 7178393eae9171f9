"""Many calls at once, under a limit and in one structure: none outlives the batch.

`Batch` is a task group in one task, which pulls an input only when there is a slot for its call. So
inputs may come from anywhere and be any number: no more of them are in memory than calls may be in
flight. A slot is given back when the result is taken. `BatchStream` hands results out while calls
run, so its task group lives in a supervisor task of its own: a task group must not span a `yield`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .config import DEFAULT_CONCURRENCY, RunnableConfig, config_for_each, merge_configs
from .errors import ConfigurationError
from .journal import MISSING, Journal, NoJournal, checked_path, opened
from .progress import progress_for
from .runs import current_run, inherited
from .stored import Stored, fingerprint

__all__ = ["Batch", "BatchStream", "Configs", "Inputs", "in_hand", "spawn"]

Configs: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
Inputs: TypeAlias = Iterable[Any] | AsyncIterable[Any]


def _check_inputs(inputs: Any) -> None:
    several = isinstance(inputs, Iterable | AsyncIterable)
    if isinstance(inputs, str | bytes | bytearray | Mapping) or not several:
        raise ConfigurationError(
            f"the inputs of a batch are {type(inputs).__name__} ({inputs!r:.60}): expected a list "
            "or any other iterable, async or not"
        )


def in_hand(inputs: Inputs) -> Inputs:
    """`inputs`, a plain generator as a list: it is run here, in the thread to which it may belong
    (as a database's cursor does)."""
    _check_inputs(inputs)
    if isinstance(inputs, AsyncIterable | Sized):
        return inputs
    return list(inputs)


class Batch:
    """The calls of a batch. `finished` has the results so far, by index; of inputs whose number
    nobody knows, only those that were not taken by whoever they were handed to."""

    def __init__(
        self,
        runnable: Any,
        inputs: Inputs,
        config: Configs,
        *,
        return_exceptions: bool,
        progress: Any,
        journal: Any,
        kwargs: Mapping[str, Any],
    ) -> None:
        _check_inputs(inputs)
        self.finished: dict[int, Any] = {}
        self._runnable = runnable
        self._inputs = inputs
        self._total = len(inputs) if isinstance(inputs, Sized) else None
        self._configs = config_for_each(config, self._total)
        self._config_varies = isinstance(config, Sequence)
        self._keep_errors = return_exceptions
        self._path = checked_path(journal)
        self._progress = progress_for(progress, self._total)
        self._kwargs = kwargs
        self._failure: Exception | None = None

    async def collect(self) -> list[Any]:
        """Run all calls; the results in the order of the inputs."""
        await self.run(lambda index, result: self._slots.release_on_behalf_of(index))
        return [self.finished[index] for index in range(len(self.finished))]

    def taken(self, index: int) -> None:
        """A result that was handed out has been taken: there is room for another call."""
        self._slots.release_on_behalf_of(index)
        if self._total is None:
            del self.finished[index]

    async def run(self, hand_out: Callable[[int, Any], None]) -> None:
        """Run all calls; `hand_out` gets each result and gives back its slot, in time.

        Raises the first failure, after the others were cancelled, unless errors are results.
        """
        if self._total == 0:
            await self._progress.end()
            return
        self._hand_out = hand_out
        self._slots = anyio.CapacityLimiter(self._concurrency())
        try:
            async with self._opened() as self._journal, self._progress:
                async with anyio.create_task_group() as self._group:
                    await self._begin_all()
                if self._failure is not None:
                    raise self._failure
        except Exception as error:
            error.finished = self.finished  # type: ignore[attr-defined]
            raise

    def _concurrency(self) -> float:
        """What the call says, else the runnable, else the run around them; None is no limit."""
        configs = (self._configs(0), self._runnable._config, inherited(current_run()))
        said = (config["max_concurrency"] for config in configs if "max_concurrency" in config)
        limit = next(said, DEFAULT_CONCURRENCY)
        return math.inf if limit is None else limit

    # ---- one item --------------------------------------------------------------------------------

    async def _begin_all(self) -> None:
        try:
            async with aclosing(_pulled(self._inputs)) as items:
                index = 0
                await self._slots.acquire_on_behalf_of(index)  # no input before its turn
                async for item in items:
                    await self._begin(index, item)
                    index += 1
                    await self._slots.acquire_on_behalf_of(index)
        except Exception as error:
            self._fail(error)

    async def _begin(self, index: int, item: Any) -> None:
        result = await self._journal.recall(index, lambda: self._mark(index, item))
        if result is MISSING:
            self._group.start_soon(self._one, index, item)
        else:
            await self._done(index, result, resumed=True)

    async def _one(self, index: int, item: Any) -> None:
        try:
            result = await self._runnable.ainvoke(item, self._config(index), **self._kwargs)
        except Exception as error:
            if self._keep_errors:
                await self._done(index, error, failed=True)
            else:
                self._progress.count(failed=True)
                self._fail(error)
            return
        self.finished[index] = result  # whatever becomes of the journal
        try:
            await self._journal.save(index, lambda: self._mark(index, item), result)
        except Exception as error:
            self._fail(error)
        else:
            await self._done(index, result)

    async def _done(
        self, index: int, result: Any, *, failed: bool = False, resumed: bool = False
    ) -> None:
        self.finished[index] = result
        self._hand_out(index, result)
        self._progress.count(failed=failed, resumed=resumed)
        await self._progress.show()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._group.cancel_scope.cancel()

    def _config(self, index: int) -> RunnableConfig:
        config = self._configs(index)
        followed = self._progress.handlers
        return merge_configs(config, {"callbacks": followed}) if followed else config

    # ---- the journal -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Journal | NoJournal, None]:
        """The journal, if there is one. A list of inputs is compared with it as a whole before
        anything is sent; others as they come."""
        if self._path is None:
            yield NoJournal()
            return
        async with opened(self._path, self._stored(0)) as journal:
            if isinstance(self._inputs, Sequence):
                marks = (self._mark(index, item) for index, item in enumerate(self._inputs))
                await journal.check(marks)
            yield journal

    def _stored(self, index: int) -> Stored:
        stored: Stored = self._runnable._stored(self._configs(index), self._kwargs)
        return stored

    def _mark(self, index: int, item: Any) -> bytes:
        """What an item is known by: its input, and what is chosen for it alone."""
        chosen = self._config_varies and self._configs(index).get("configurable")
        try:
            return fingerprint([item, self._stored(index).identity] if chosen else item)
        except TypeError as error:
            raise ConfigurationError(
                f"input {index} cannot be told from others, which a journal must: {error}"
            ) from None


async def _pulled(inputs: Inputs) -> AsyncGenerator[Any, None]:
    """The inputs one by one. An async generator is closed at the end: nobody else holds it."""
    if not isinstance(inputs, AsyncIterable):
        for item in inputs:
            yield item
        return
    source = aiter(inputs)
    try:
        async for item in source:
            yield item
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


class BatchStream:
    """``(index, result)`` as results become ready. See `Runnable.abatch_as_completed`."""

    _state: _Supervised | None = None

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        return _Loop(self)

    async def __anext__(self) -> tuple[int, Any]:
        if self._state is None:
            self._state = _Supervised(self._batch)
        return await self._state.next()

    async def aclose(self) -> None:
        """Cancel the calls that still run and wait until they are gone."""
        if self._state is not None:
            await self._state.stop()

    async def __aenter__(self) -> BatchStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def drop(self) -> None:
        """Cancel the calls that still run, without waiting."""
        if self._state is not None:
            self._state.drop()

    def __del__(self) -> None:
        self.drop()


class _Loop:
    """What ``async for`` holds of a `BatchStream`. Leaving the loop drops it, in the thread of the
    event loop, and that ends the batch even where the stream is kept in a variable."""

    def __init__(self, stream: BatchStream) -> None:
        self._stream = stream

    def __aiter__(self) -> _Loop:
        return self

    async def __anext__(self) -> tuple[int, Any]:
        return await anext(self._stream)

    def __del__(self) -> None:
        self._stream.drop()


class _Supervised:
    """The supervisor task of a `BatchStream`, and what goes between the two."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self.scope = anyio.CancelScope()
        self._gone = anyio.Event()
        self._error: BaseException | None = None
        # It never holds more than there are slots: a slot is free again once its result is taken.
        send, self._results = anyio.create_memory_object_stream[tuple[int, Any]](math.inf)
        spawn(_supervise, batch, self.scope, send, self._ended)

    def _ended(self, error: BaseException | None) -> None:
        self._error = error
        self._gone.set()

    async def next(self) -> tuple[int, Any]:
        try:
            index, result = await self._results.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            await self.stop()
            if self._error is not None:
                error, self._error = self._error, None
                raise error from None
            raise StopAsyncIteration from None
        except BaseException:
            await self.stop()
            raise
        self._batch.taken(index)
        return index, result

    def drop(self) -> None:
        self._results.close()
        if not self._gone.is_set():
            with suppress(RuntimeError):  # the loop has ended, and the calls with it
                self.scope.cancel()

    async def stop(self) -> None:
        self.scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._gone.wait()
        self._results.close()


async def _supervise(
    batch: Batch,
    scope: anyio.CancelScope,
    send: MemoryObjectSendStream[tuple[int, Any]],
    ended: Callable[[BaseException | None], None],
) -> None:
    def hand_out(index: int, result: Any) -> None:
        with suppress(anyio.BrokenResourceError):  # nobody takes any more
            send.send_nowait((index, result))

    error: BaseException | None = None
    try:
        with scope:
            await batch.run(hand_out)
    except Exception as raised:
        error = raised
    finally:
        send.close()
        ended(error)


_tasks: set[Any] = set()


def spawn(function: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Start a task that no task group owns; its function bounds its own life.

    anyio has no word for it on purpose. It is needed where results are handed out while work goes
    on, and the handing out is an iterator that its user may drop at any time.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        trio.lowlevel.spawn_system_task(function, *args, context=copy_context())
        return
    import asyncio

    task = asyncio.ensure_future(function(*args))
    _tasks.add(task)  # asyncio keeps only weak references
    task.add_done_callback(_tasks.discard)
