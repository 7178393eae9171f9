"""`@runnable`: a function as a runnable, whose inner model calls are traced and streamed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, overload

import anyio
import anyio.to_thread

from .config import merge_configs
from .errors import ConfigurationError
from .runnables import Runnable
from .runs import Run, begin, inherited, inside

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
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        return f"RunnableFunction({self.name!r})"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, called as it was before it was decorated."""
        return self.function(*args, **kwargs)

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """A runnable whose runs have this configuration."""
        merged = merge_configs(self._config, config, kwargs)
        return RunnableFunction(self.function, name=self.name, config=merged)

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """What the function returns for `input`."""
        items: list[Any] = []
        async for batch in self._stream(input, config, **kwargs)():
            items.extend(batch)
        if not self._yields:
            return items[0]
        return _added(items)

    @property
    def _yields(self) -> bool:
        function = inspect.unwrap(self.function)
        return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        run = begin("chain", self.name, merge_configs(self._config, config), counts=True)
        assert run is not None  # a run that counts is always there
        if self._takes_config:
            kwargs = {**kwargs, "config": inherited(run)}
        return lambda: _traced(run, input, self._items(run, input, kwargs))

    async def _items(
        self, run: Run, input: Any, kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """What the function gives, each step of it inside the run."""
        call = partial(self.function, input, **kwargs)
        if inspect.iscoroutinefunction(inspect.unwrap(self.function)):
            with inside(run):
                result = await call()
            yield result
            return
        if not self._yields:
            with inside(run):
                result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
                if inspect.isawaitable(result):
                    result = await result
            yield result
            return
        source = call()
        steps = source if isinstance(source, AsyncIterator) else _threaded(source)
        try:
            while True:
                with inside(run):
                    item = await anext(steps, _END)
                if item is _END:
                    return
                yield item
        finally:
            await steps.aclose()  # type: ignore[attr-defined]


_END: Any = object()


async def _threaded(source: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """A sync generator, each step in a thread."""
    while True:
        item = await anyio.to_thread.run_sync(next, source, _END)
        if item is _END:
            return
        yield item


async def _traced(
    run: Run, input: Any, items: AsyncGenerator[Any, None]
) -> AsyncGenerator[list[Any], None]:
    """`items` one by one, with one start and one end told to the handlers."""
    await run.tell("on_chain_start", {"name": run.name}, input)
    seen: list[Any] = []
    try:
        async with aclosing(items):
            async for item in items:
                seen.append(item)
                await run.tell("on_chain_stream", item)
                yield [item]
    except Exception as error:
        await run.tell("on_chain_error", error)
        raise
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run.tell("on_chain_cancel")
        raise
    await run.tell("on_chain_end", seen[0] if len(seen) == 1 else _added(seen))


def _added(items: list[Any]) -> Any:
    """The sum of the items, or the list of them if they cannot be added."""
    if not items:
        return None
    total = items[0]
    try:
        for item in items[1:]:
            total = total + item
    except TypeError:
        return items
    return total


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
