"""`with_retry` and `with_fallbacks`: trying again, and trying another, streams included.

Both go by one rule: once a chunk was handed over, nothing is started again behind the consumer's
back. `restart_streams=True` allows it: then a `Restart` event comes first, which says that what
had come before no longer counts. Handlers and events are told by `on_retry`, and of another model
its name. A budget that is used up ends all attempts.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import anyio

from .chunks import AIMessageChunk, fold_events
from .config import checked_config, for_other_runs, merge_configs
from .deltas import Restart
from .errors import BudgetExceededError, ConfigurationError
from .net.retry import MAX_SERVER_PAUSE, backoff
from .runnables import FieldStreams, Runnable
from .runs import begin
from .stored import Stored, described

__all__ = ["RunnableRetry", "RunnableWithFallbacks"]

Start = Callable[[], AsyncGenerator[list[Any], None]]


def _exceptions(given: Any) -> tuple[type[Exception], ...]:
    types = tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)
    if not types or not all(isinstance(t, type) and issubclass(t, Exception) for t in types):
        raise ConfigurationError(
            f"exception types are {given!r}: expected one or more subclasses of Exception"
        )
    return types


#: The parameters of LangChain's `exponential_jitter_params`, in seconds, and their defaults.
_JITTER: Final = {"initial": 1.0, "max": 60.0, "exp_base": 2.0, "jitter": 1.0}


def _pauses(params: Any) -> Callable[[int], float]:
    """The pause after a failed attempt (counted from 0), as `params` say; else as for requests."""
    if params is None:
        return backoff
    if not isinstance(params, Mapping) or not set(params) <= set(_JITTER):
        raise ConfigurationError(
            f"exponential_jitter_params is {params!r}: expected a dict with some of "
            f"{', '.join(_JITTER)}"
        )
    for name, value in params.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise ConfigurationError(
                f"exponential_jitter_params {name} is {value!r}: expected a number of 0 or more"
            )
    initial, longest, base, jitter = ({**_JITTER, **params}[name] for name in _JITTER)
    return lambda n: float(min(longest, initial * base ** min(n, 64) + random.uniform(0, jitter)))


def _restart(runnable: Any, last: Any, attempt: int, error: BaseException | None) -> list[Any]:
    """What tells the reader of a stream that all before is void; `last` is what was read last.

    Among chunks that is a chunk. Where each item stands for the whole, the next one says it all;
    among other items it is the event itself.
    """
    event = Restart(attempt=attempt, reason=f"{type(error).__name__}: {error}")
    if isinstance(last, AIMessageChunk):
        return [fold_events([event])]
    return [] if runnable._grows else [event]


async def _tell(runnable: Any, config: Mapping[str, Any] | None, state: Mapping[str, Any]) -> None:
    """Tell the handlers of `config`, and those around, that something is tried again."""
    run = begin("retry", type(runnable).__name__, merge_configs(runnable._config, config))
    if run is not None:
        await run.tell("on_retry", dict(state))


#: What stays wrong however often it is tried.
_HOPELESS: Final = (ConfigurationError, BudgetExceededError)


class RunnableRetry(FieldStreams):
    """A runnable that is tried again when it fails. Made by `with_retry`."""

    def __init__(
        self,
        bound: Any,
        *,
        retry_if_exception_type: Any = (Exception,),
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Mapping[str, float] | None = None,
        stop_after_attempt: int = 3,
        restart_streams: bool = False,
    ) -> None:
        good = isinstance(stop_after_attempt, int) and not isinstance(stop_after_attempt, bool)
        if not good or stop_after_attempt < 1:
            raise ConfigurationError(
                f"stop_after_attempt is {stop_after_attempt!r}: expected an int of 1 or more"
            )
        self.bound = bound
        self._config = bound._config
        self._types = _exceptions(retry_if_exception_type)
        self._pause = _pauses(exponential_jitter_params)
        self._attempts = stop_after_attempt
        self._restarts = restart_streams
        self._options: dict[str, Any] = {
            "retry_if_exception_type": self._types,
            "wait_exponential_jitter": wait_exponential_jitter,
            "exponential_jitter_params": exponential_jitter_params,
            "stop_after_attempt": stop_after_attempt,
            "restart_streams": restart_streams,
        }

    def __repr__(self) -> str:
        return f"RunnableRetry({self.bound!r}, stop_after_attempt={self._attempts})"

    @property
    def _grows(self) -> bool:
        return bool(self.bound._grows)

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The result of the first attempt that succeeds, or the error of the last."""
        attempt = 0
        while True:
            try:
                return await self.bound.ainvoke(input, config, **kwargs)
            except self._types as error:
                await self._again(attempt, error, config)
            attempt += 1
            config = for_other_runs(config)

    def _stream(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Start:
        return lambda: self._attempted(
            lambda each: self.bound._stream(input, each, **kwargs), config
        )

    def _field_stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Start:
        return lambda: self._attempted(
            lambda each: self.bound._field_stream(input, each, **kwargs), config
        )

    async def _attempted(
        self, start: Callable[[Any], Start], config: Mapping[str, Any] | None
    ) -> AsyncGenerator[list[Any], None]:
        """`start`: how an attempt with a configuration is begun."""
        attempt = 0
        while True:
            batch: list[Any] = []
            try:
                async with aclosing(start(config)()) as batches:
                    async for batch in batches:
                        yield batch
                return
            except self._types as error:
                if batch and not self._restarts:
                    raise
                await self._again(attempt, error, config)
                void = _restart(self, batch[-1], attempt + 2, error) if batch else []
            if void:
                yield void
            attempt += 1
            config = for_other_runs(config)

    async def _again(
        self, attempt: int, error: Exception, config: Mapping[str, Any] | None
    ) -> None:
        """Wait before the next attempt; raise the error if there is none."""
        if attempt + 1 >= self._attempts or isinstance(error, _HOPELESS):
            raise error
        pause = self._pause(attempt) if self._options["wait_exponential_jitter"] else 0.0
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            if asked > MAX_SERVER_PAUSE:
                raise error
            pause = asked
        await _tell(self.bound, config, {"attempt": attempt + 1, "error": error, "pause": pause})
        await anyio.sleep(pause)

    def __getattr__(self, name: str) -> Any:
        return _mapped(self, name, lambda bound: self._copy(bound[0]), lambda: (self.bound,))

    def _copy(self, bound: Any) -> RunnableRetry:
        return RunnableRetry(bound, **self._options)

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        stored: Stored = self.bound._stored(config, kwargs)
        return stored

    async def aclose(self) -> None:
        await self.bound.aclose()


class RunnableWithFallbacks(FieldStreams):
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
        for runnable in runnables:
            if not isinstance(runnable, Runnable):
                raise ConfigurationError(
                    f"fallback {runnable!r:.60} is {type(runnable).__name__}: expected a model or "
                    "another runnable"
                )
        self.runnables = tuple(runnables)
        self._config = self.runnables[0]._config
        self._types = _exceptions(exceptions_to_handle)
        self._restarts = restart_streams

    def __repr__(self) -> str:
        return f"RunnableWithFallbacks({', '.join(map(repr, self.runnables))})"

    @property
    def _grows(self) -> bool:
        return all(runnable._grows for runnable in self.runnables)

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """The result of the first that succeeds; all get the same input and configuration.

        Raises what the first of them raised if all fail, with notes of what the others did.
        """
        config = checked_config(config)  # what is wrong with it is so for all of them
        failures: list[Exception] = []
        for runnable in self.runnables:
            await self._next(failures, runnable, config)
            try:
                return await runnable.ainvoke(input, config, **kwargs)
            except self._types as error:
                self._keep(error, failures)
            config = for_other_runs(config)
        raise _noted(failures)

    def _stream(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Start:
        checked = checked_config(config)
        return lambda: self._attempted(
            lambda runnable, each: runnable._stream(input, each, **kwargs), checked
        )

    def _field_stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Start:
        checked = checked_config(config)
        return lambda: self._attempted(
            lambda runnable, each: runnable._field_stream(input, each, **kwargs), checked
        )

    async def _attempted(
        self, start: Callable[[Any, Any], Start], config: Mapping[str, Any]
    ) -> AsyncGenerator[list[Any], None]:
        """`start`: how a stream of a runnable with a configuration is begun."""
        failures: list[Exception] = []
        shown: list[Any] = []  # the last batch that was handed over
        for place, runnable in enumerate(self.runnables):
            void = shown
            await self._next(failures, runnable, config)
            try:
                async with aclosing(start(runnable, config)()) as batches:
                    async for batch in batches:
                        if void and (told := _restart(self, void[-1], place + 1, failures[-1])):
                            yield told
                        void, shown = [], batch
                        yield batch
                return
            except self._types as error:
                self._keep(error, failures)
                if shown and not self._restarts:
                    raise
            config = for_other_runs(config)
        raise _noted(failures)

    async def _next(
        self, failures: list[Exception], runnable: Any, config: Mapping[str, Any] | None
    ) -> None:
        """Tell the handlers who is asked, if that is not the first."""
        if failures:
            state = {"attempt": len(failures), "error": failures[-1], "pause": 0.0}
            await _tell(self, config, {**state, "fallback": _name(runnable)})

    def _keep(self, error: Exception, failures: list[Exception]) -> None:
        """Keep the error and go on; raise it if a budget is used up, unless that was named."""
        if isinstance(error, BudgetExceededError) and BudgetExceededError not in self._types:
            raise error
        failures.append(error)

    def __getattr__(self, name: str) -> Any:
        return _mapped(
            self,
            name,
            lambda bound: RunnableWithFallbacks(
                bound, exceptions_to_handle=self._types, restart_streams=self._restarts
            ),
            lambda: self.runnables,
        )

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        """Whoever answers, results are alike; which ones may answer is part of what they are."""
        first, *others = (runnable._stored(config, kwargs) for runnable in self.runnables)
        fallbacks = [described(stored.identity) for stored in others]
        identity = {**first.identity, "fallbacks": fallbacks}
        return Stored(identity=identity, type=first.type, keep=first.keep, restore=first.restore)

    async def aclose(self) -> None:
        for runnable in self.runnables:
            await runnable.aclose()


def _name(runnable: Any) -> str:
    """How handlers are told who is asked: the model's name, inside whatever it is wrapped in."""
    inner = getattr(runnable, "bound", None) or getattr(runnable, "_model", None)
    if isinstance(inner, Runnable):
        return _name(inner)
    names = (getattr(runnable, name, None) for name in ("model_name", "name"))
    return next((name for name in names if isinstance(name, str)), type(runnable).__name__)


def _noted(failures: Sequence[Exception]) -> Exception:
    """The first error, which says what went wrong with what was asked for."""
    first, *others = failures
    for error in others:
        if error is not first:
            first.add_note(f"a fallback failed, too: {type(error).__name__}: {error}")
    return first


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
