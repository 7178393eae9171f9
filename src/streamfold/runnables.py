"""`Runnable`: the methods by which everything here is called, async first.

A runnable has `ainvoke` and `_stream`; the rest follows from these two. The sync methods run the
async ones on the portal's loop: there is no second engine to keep in step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from .batch import BatchStream, abatch
from .chunks import AIMessageChunk
from .message_stream import MessageStream
from .net import portal

__all__ = ["ChunkStream", "Runnable"]

T = TypeVar("T")


class Runnable:
    """Call it with `invoke`, `stream` and `batch`, or their async twins with an `a` before."""

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        raise NotImplementedError

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[AIMessageChunk], None]]:
        """Check the call; return what starts it: chunks, a list for each network read."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Give back what this object holds in the running loop."""

    # ---- async -----------------------------------------------------------------------------------

    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> ChunkStream:
        """The answer chunk by chunk: ``async for chunk in model.astream("hi")``.

        Leaving the loop early closes the connection. Keep the stream in a variable and it is also
        an async context manager and has `aclose()`.
        """
        return ChunkStream(self._stream(input, config, **kwargs))

    def astream_message(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> MessageStream:
        """The answer as an object: ``async with model.astream_message("hi") as stream``, then
        iterate it for typed events, or its `text`, `reasoning`, `tool_calls`; `message()` has the
        result and `cancel()` ends it."""
        return MessageStream(self._stream(input, config, **kwargs))

    async def abatch(
        self,
        inputs: Sequence[Any],
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """The answers to many inputs, in their order; at most `max_concurrency` at once.

        The first failure cancels the others and is raised, with the answers that were ready in its
        `finished` (index to answer); with `return_exceptions` errors take the answers' places.
        """
        return await abatch(self.ainvoke, inputs, config, return_exceptions, kwargs)

    def abatch_as_completed(
        self,
        inputs: Sequence[Any],
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Any]]:
        """``(index, answer)`` of many inputs as they become ready. Leaving the loop cancels the
        calls that still run."""
        return BatchStream(self.ainvoke, inputs, config, return_exceptions, kwargs)

    # ---- sync ------------------------------------------------------------------------------------

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """`ainvoke`, waited for. Works in scripts, notebooks and threads; Ctrl-C cancels."""
        return portal.run(lambda: self.ainvoke(input, config, **kwargs))

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """`astream` as a plain iterator: ``for chunk in model.stream("hi")``."""
        return portal.iterate(self._stream(input, config, **kwargs))

    def batch(
        self,
        inputs: Sequence[Any],
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`abatch`, waited for."""
        return portal.run(
            lambda: self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        )

    def batch_as_completed(
        self,
        inputs: Sequence[Any],
        config: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """`abatch_as_completed` as a plain iterator."""
        return portal.iterate(
            lambda: _singly(
                self.abatch_as_completed(
                    inputs, config, return_exceptions=return_exceptions, **kwargs
                )
            )
        )

    def close(self) -> None:
        """`aclose` for the connections of the sync methods."""
        portal.run(self.aclose)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


async def _singly(source: Any) -> AsyncGenerator[list[Any], None]:
    async with aclosing(source):
        async for item in source:
            yield [item]


class ChunkStream:
    """An async iterator of chunks. Iterating hands out one generator, so a chunk costs no more
    than it must; the object itself adds `aclose` and ``async with``."""

    def __init__(self, start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]]) -> None:
        self._chunks = _flat(start)

    def __aiter__(self) -> AsyncGenerator[AIMessageChunk, None]:
        return self._chunks

    async def __anext__(self) -> AIMessageChunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Close the connection; nothing more comes."""
        await self._chunks.aclose()

    async def __aenter__(self) -> ChunkStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _flat(
    start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]],
) -> AsyncGenerator[AIMessageChunk, None]:
    async with aclosing(start()) as batches:
        async for batch in batches:
            for chunk in batch:
                yield chunk
