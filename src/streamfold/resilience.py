"""`with_retry` and `with_fallbacks`: trying again, and trying another, streams included.

Both go by one rule: once a chunk was handed over, nothing is started again behind the consumer's
back. `restart_streams=True` allows it: then a `Restart` event comes first, which says that what
had come before no longer counts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import anyio

from .chunks import fold_events
from .config import merge_configs
from .deltas import Restart
from .errors import ConfigurationError
from .net.retry import MAX_SERVER_PAUSE, backoff
from .runnables import Runnable
from .runs import begin

__all__ = ["RunnableRetry", "RunnableWithFallbacks"]

Start = Callable[[], AsyncGenerator[list[Any], None]]


def _exceptions(given: Any) -> tuple[type[BaseException], ...]:
    types = given if isinstance(given, tuple) else (given,)
    if not types or not all(isinstance(t, type) and issubclass(t, BaseException) for t in types):
        raise ConfigurationError(f"exception types are {given!r}: expected exception classes")
    return types


class RunnableRetry(Runnable):
    """A runnable that is tried again when it fails. Made by `with_retry`."""

    def __init__(
        self,
        bound: Any,
        *,
        retry_if_exception_type: Any = (Exception,),
        wait_exponential_jitter: bool = True,
        stop_after_attempt: int = 3,
        restart_streams: bool = False,
    ) -> None:
        if not isinstance(stop_after_attempt, int) or stop_after_attempt < 1:
            raise ConfigurationError(
                f"stop_after_attempt is {stop_after_attempt!r}: expected an int of 1 or more"
            )
        self.bound = bound
        self._config = bound._config
        self._types = _exceptions(retry_if_exception_type)
        self._wait = wait_exponential_jitter
        self._attempts = stop_after_attempt
        self._restart = restart_streams

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The result of the first attempt that succeeds, or the error of the last."""
        for attempt in range(self._attempts):
            try:
                return await self.bound.ainvoke(input, config, **kwargs)
            except self._types as error:
                await self._again(attempt, error, config)
        raise AssertionError("the last attempt returns or raises")

    def _stream(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Start:
        return lambda: self._attempted(input, config, kwargs)

    async def _attempted(
        self, input: Any, config: Mapping[str, Any] | None, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        for attempt in range(self._attempts):
            shown = False
            try:
                async with aclosing(self.bound._stream(input, config, **kwargs)()) as batches:
                    async for batch in batches:
                        shown = True
                        yield batch
                return
            except self._types as error:
                if shown and not self._restart:
                    raise
                await self._again(attempt, error, config)
                if shown:
                    reason = f"{type(error).__name__}: {error}"
                    yield [fold_events([Restart(attempt=attempt + 2, reason=reason)])]

    async def _again(
        self, attempt: int, error: BaseException, config: Mapping[str, Any] | None
    ) -> None:
        """Wait before the next attempt; raise the error if there is none."""
        if attempt + 1 >= self._attempts or isinstance(error, ConfigurationError):
            raise error  # what was wrong before anything was sent stays wrong
        pause = backoff(attempt) if self._wait else 0.0
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            if asked > MAX_SERVER_PAUSE:
                raise error
            pause = asked
        merged = merge_configs(self._config, config)
        run = begin("retry", type(self.bound).__name__, merged)
        if run is not None:
            state = {"attempt": attempt + 1, "error": error, "pause": pause}
            await run.tell("on_retry", state)
        await anyio.sleep(pause)

    def __getattr__(self, name: str) -> Any:
        return _mapped(self, name, lambda bound: self._copy(bound[0]), lambda: (self.bound,))

    def _copy(self, bound: Any) -> RunnableRetry:
        return RunnableRetry(
            bound,
            retry_if_exception_type=self._types,
            wait_exponential_jitter=self._wait,
            stop_after_attempt=self._attempts,
            restart_streams=self._restart,
        )

    async def aclose(self) -> None:
        await self.bound.aclose()


class RunnableWithFallbacks(Runnable):
    """A runnable and those that are asked when it fails. Made by `with_fallbacks`."""

    def __init__(
        self,
        runnables: Sequence[Any],
        *,
        exceptions_to_handle: Any = (Exception,),
        restart_streams: bool = False,
    ) -> None:
        if len(runnables) < 2:
            raise ConfigurationError("fallbacks is empty: expected at least one runnable")
        self.runnables = tuple(runnables)
        self._config = self.runnables[0]._config
        self._types = _exceptions(exceptions_to_handle)
        self._restart = restart_streams

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The result of the first that succeeds; all get the same input and configuration."""
        first: BaseException | None = None
        for runnable in self.runnables:
            try:
                return await runnable.ainvoke(input, config, **kwargs)
            except self._types as error:
                first = first or error
        assert first is not None
        raise first

    def _stream(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Start:
        return lambda: self._attempted(input, config, kwargs)

    async def _attempted(
        self, input: Any, config: Mapping[str, Any] | None, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        first: BaseException | None = None
        last: BaseException | None = None
        shown = False
        for place, runnable in enumerate(self.runnables):
            void = shown
            try:
                async with aclosing(runnable._stream(input, config, **kwargs)()) as batches:
                    async for batch in batches:
                        if void:
                            void = False
                            reason = f"{type(last).__name__}: {last}"
                            yield [fold_events([Restart(attempt=place + 1, reason=reason)])]
                        shown = True
                        yield batch
                return
            except self._types as error:
                last = error
                first = first or error
                if shown and not self._restart:
                    raise
        assert first is not None
        raise first

    def __getattr__(self, name: str) -> Any:
        return _mapped(
            self,
            name,
            lambda bound: RunnableWithFallbacks(
                bound, exceptions_to_handle=self._types, restart_streams=self._restart
            ),
            lambda: self.runnables,
        )

    async def aclose(self) -> None:
        for runnable in self.runnables:
            await runnable.aclose()


#: Operations that make a new model: on a combination they are done to each part of it.
_MAKERS = ("bind", "bind_tools", "with_config", "with_structured_output", "model_copy")


def _mapped(
    owner: Any, name: str, make: Callable[[Any], Any], parts: Callable[[], tuple[Any, ...]]
) -> Any:
    if name not in _MAKERS:
        raise AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}")

    def on_each(*args: Any, **kwargs: Any) -> Any:
        return make([getattr(part, name)(*args, **kwargs) for part in parts()])

    return on_each
