"""`@runnable`: a function as a runnable, whose inner model calls are traced and streamed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, overload

import anyio

from .chunks import AIMessageChunk
from .config import merge_configs
from .errors import ConfigurationError
from .net import portal
from .runnables import Runnable
from .runs import Run, begin, in_thread, inherited, inside, told
from .stored import Stored, returned_class

__all__ = ["RunnableFunction", "runnable"]


class RunnableFunction(Runnable):
    """A function with the call methods of a runnable.

    Its first argument is the input; a parameter named `config` gets the run's configuration. It may
    be sync (then it runs in a thread) or async, a plain function or a generator, whose items
    `astream` hands out as they come and `ainvoke` adds up, if they can be added, else lists.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(function):
            raise ConfigurationError(f"@runnable got {function!r:.60}: expected a function")
        self.function = function
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        self._config = merge_configs(config)
        self._takes_config = "config" in inspect.signature(function).parameters
        self._items = _items_of(function)
        self.__doc__ = function.__doc__

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        """A function goes by its name: what it does may be mended between two runs."""
        identity = {"runnable": self.name, **kwargs}
        return Stored(identity=identity, type=returned_class(self.function))

    def __repr__(self) -> str:
        return f"RunnableFunction({self.name!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, called as it was before it was decorated."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> RunnableFunction:
        """A decorated method, bound to its object."""
        if instance is None:
            return self
        bound = self.function.__get__(instance, owner)
        return RunnableFunction(bound, name=self.name, config=self._config)

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """A runnable whose runs have this configuration."""
        merged = merge_configs(self._config, config, kwargs)
        return RunnableFunction(self.function, name=self.name, config=merged)

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """What the function returns for `input`."""
        items: list[Any] = []
        async with aclosing(self._traced(input, config, kwargs, streamed=False)) as batches:
            async for batch in batches:
                items.extend(batch)
        return _whole(items) if self._items in _GENERATORS else items[0]

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        batches = self._traced(input, config, kwargs, streamed=True)
        return lambda: batches

    def _traced(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        kwargs: dict[str, Any],
        *,
        streamed: bool,
    ) -> AsyncGenerator[list[Any], None]:
        """The run is begun here, and with it the config is checked; the rest when it is read."""
        merged = merge_configs(self._config, config)
        run = begin("chain", self.name, merged, counts=True, streamed=streamed)
        assert run is not None  # a run that counts is always there
        if self._takes_config:
            kwargs = {**kwargs, "config": inherited(run)}
        return _traced(run, input, self._items(run, partial(self.function, input, **kwargs)))


# ---- what a function gives, each step of it inside its run ---------------------------------------

Call = Callable[[], Any]


async def _awaited(run: Run, call: Call) -> AsyncGenerator[Any, None]:
    with inside(run):
        result = await call()
    yield result


async def _threaded(run: Run, call: Call) -> AsyncGenerator[Any, None]:
    with inside(run):
        result = await in_thread(run, call)
        if inspect.isawaitable(result):
            result = await result
    yield result


async def _async_items(run: Run, call: Call) -> AsyncGenerator[Any, None]:
    source: AsyncIterator[Any] = call()
    try:
        while True:
            with inside(run):
                item = await anext(source, _END)
            if item is _END:
                return
            yield item
    finally:
        with inside(run):
            await source.aclose()  # type: ignore[attr-defined]


async def _threaded_items(run: Run, call: Call) -> AsyncGenerator[Any, None]:
    source: Generator[Any, None, None] = call()
    owner = portal.Owner()  # a stream begun in one step is waited for in others
    busy = False
    try:
        while True:
            with inside(run):
                busy = True
                item = await in_thread(run, next, source, _END, owner=owner)
                busy = False
            if item is _END:
                return
            yield item
    finally:
        if not busy:  # else its thread was left to itself in the middle of a step
            with inside(run), anyio.CancelScope(shield=True):
                await in_thread(run, source.close, owner=owner)


_END: Any = object()
_GENERATORS: Final = (_async_items, _threaded_items)


def _items_of(function: Callable[..., Any]) -> Callable[[Run, Call], AsyncGenerator[Any, None]]:
    """How to get at what `function` gives, by its kind; an object is as its `__call__` is."""
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, partial):
        inner = inner.func
    if not inspect.isroutine(inner):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004 - which kind, not whether
    for is_kind, items in _KINDS:
        if is_kind(inner):
            return items
    return _threaded


_KINDS: Final = (
    (inspect.iscoroutinefunction, _awaited),
    (inspect.isasyncgenfunction, _async_items),
    (inspect.isgeneratorfunction, _threaded_items),
)


async def _traced(
    run: Run, input: Any, items: AsyncGenerator[Any, None]
) -> AsyncGenerator[list[Any], None]:
    """`items` one by one, with one start and one end told to the handlers."""
    seen: list[Any] = []  # for the handlers: without any, a long stream is not kept

    def partial(error: Exception | None) -> dict[str, Any]:
        return {"outputs": _whole(seen)}

    begun = told(run, {"name": run.name}, input, partial=partial)
    async with begun as outcome, aclosing(items):
        async for item in items:
            if run.handlers:
                seen.append(item)
                await run.tell("on_chain_stream", item)
            yield [item]
        outcome.result = _whole(seen)


def _whole(items: list[Any]) -> Any:
    """The sum of the items, or the list of them if they cannot be added; chunks add up to their
    message."""
    if not items:
        return None
    if len(items) == 1 and not isinstance(items[0], AIMessageChunk):
        return items[0]
    if all(isinstance(item, str) for item in items):
        return "".join(items)
    total = items[0]
    try:
        for item in items[1:]:
            total = total + item
    except TypeError:
        return items
    return total.to_message() if isinstance(total, AIMessageChunk) else total


@overload
def runnable(function: Callable[..., Any]) -> RunnableFunction: ...
@overload
def runnable(*, name: str | None = None) -> Callable[[Callable[..., Any]], RunnableFunction]: ...


def runnable(function: Any = None, *, name: str | None = None) -> Any:
    """Make a function a runnable: ``@runnable`` or ``@runnable(name="answer")``.

    Model calls inside it are its nested runs: they inherit its tags, metadata, callbacks and
    `configurable`, show in its `astream_events`, and stream under the hood when it is streamed.
    """
    if function is None:
        return lambda wrapped: RunnableFunction(wrapped, name=name)
    return RunnableFunction(function, name=name)
