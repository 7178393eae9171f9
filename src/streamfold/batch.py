"""Many calls at once, under a limit and in one structure: none outlives the batch.

`abatch` is a task group. `BatchStream` hands results out while calls run, so its task group lives
in a supervisor task of its own: a task group must not span a `yield`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from .config import DEFAULT_CONCURRENCY, config_for_each
from .errors import ConfigurationError

__all__ = ["BatchStream", "abatch", "spawn"]

Invoke = Callable[..., Awaitable[Any]]
Configs = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


def _checked_inputs(inputs: Any) -> list[Any]:
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Sequence):
        raise ConfigurationError(
            f"the inputs of a batch are {type(inputs).__name__} ({inputs!r:.60}): expected a list"
        )
    return list(inputs)


class _Runner:
    """The calls of a batch: runs each under the limit and reports ``(index, result, failed)``."""

    def __init__(
        self,
        invoke: Invoke,
        inputs: Sequence[Any],
        config: Configs,
        return_exceptions: bool,
        kwargs: Mapping[str, Any],
        own_config: Mapping[str, Any],
    ) -> None:
        self.inputs = _checked_inputs(inputs)
        self.configs = config_for_each(config, len(self.inputs))
        self._concurrency = _concurrency(*self.configs[:1], own_config)
        self.finished: dict[int, Any] = {}
        self._invoke = invoke
        self._kwargs = kwargs
        self._keep_errors = return_exceptions

    async def run(self, done: Callable[[int, Any], Awaitable[None]] | None = None) -> None:
        """Run all calls. Raises the first failure, after the others were cancelled, unless errors
        are kept as results."""
        if not self.inputs:
            return
        failure: list[Exception] = []
        slots = anyio.CapacityLimiter(self._concurrency)

        async def one(index: int) -> None:
            try:
                result = await self._invoke(self.inputs[index], self.configs[index], **self._kwargs)
            except Exception as error:
                if not self._keep_errors:
                    failure.append(error)
                    group.cancel_scope.cancel()
                    return
                result = error
            slots.release_on_behalf_of(index)
            self.finished[index] = result
            if done is not None:
                await done(index, result)

        async with anyio.create_task_group() as group:
            for index in range(len(self.inputs)):  # in their order, and no task before its turn
                await slots.acquire_on_behalf_of(index)
                group.start_soon(one, index)
        if failure:
            failure[0].finished = self.finished  # type: ignore[attr-defined]
            raise failure[0]


def _concurrency(*configs: Mapping[str, Any]) -> float:
    """What the first of `configs` says that says something; None is no limit."""
    said = (config["max_concurrency"] for config in configs if "max_concurrency" in config)
    limit = next(said, DEFAULT_CONCURRENCY)
    return math.inf if limit is None else limit


async def abatch(
    invoke: Invoke,
    inputs: Sequence[Any],
    config: Configs,
    return_exceptions: bool,
    kwargs: Mapping[str, Any],
    own_config: Mapping[str, Any],
) -> list[Any]:
    """See `Runnable.abatch`. `own_config` is that of the runnable itself."""
    runner = _Runner(invoke, inputs, config, return_exceptions, kwargs, own_config)
    await runner.run()
    return [runner.finished[index] for index in range(len(runner.inputs))]


class BatchStream:
    """``(index, result)`` as results become ready. See `Runnable.abatch_as_completed`."""

    _state: _Supervised | None = None

    def __init__(
        self,
        invoke: Invoke,
        inputs: Sequence[Any],
        config: Configs,
        return_exceptions: bool,
        kwargs: Mapping[str, Any],
        own_config: Mapping[str, Any],
    ) -> None:
        self._runner = _Runner(invoke, inputs, config, return_exceptions, kwargs, own_config)

    def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
        return _Loop(self)

    async def __anext__(self) -> tuple[int, Any]:
        if self._state is None:
            self._state = _Supervised(self._runner)
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

    def __init__(self, runner: _Runner) -> None:
        self.scope = anyio.CancelScope()
        self._gone = anyio.Event()
        self._error: BaseException | None = None
        self._send, self._results = anyio.create_memory_object_stream[tuple[int, Any]](
            len(runner.inputs)
        )
        spawn(_supervise, runner, self.scope, self._send, self._ended)

    def _ended(self, error: BaseException | None) -> None:
        self._error = error
        self._gone.set()

    async def next(self) -> tuple[int, Any]:
        try:
            return await self._results.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            await self.stop()
            if self._error is not None:
                error, self._error = self._error, None
                raise error from None
            raise StopAsyncIteration from None
        except BaseException:
            await self.stop()
            raise

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
    runner: _Runner,
    scope: anyio.CancelScope,
    send: MemoryObjectSendStream[tuple[int, Any]],
    ended: Callable[[BaseException | None], None],
) -> None:
    error: BaseException | None = None
    try:
        with scope:
            await runner.run(lambda index, result: send.send((index, result)))
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
