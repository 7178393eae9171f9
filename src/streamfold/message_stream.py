"""`MessageStream`: one answer, read as typed events, as text, as tool calls, or as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import anyio

from .chunks import AIMessageChunk, fold_events
from .content import ToolCall
from .deltas import ChunkEvent, ReasoningDelta, TextDelta
from .messages import AIMessage

__all__ = ["MessageStream"]


class MessageStream:
    """An answer while it arrives. Several readers may iterate it and its projections at once: each
    sees everything from the beginning, and whoever needs more reads on for all.

    It is an async context manager; leaving it closes the connection.
    """

    def __init__(self, start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]]) -> None:
        self._source = start()
        self._events: list[ChunkEvent] = []
        self._lock = anyio.Lock()
        self._reading: anyio.CancelScope | None = None  # around the wait for more
        self._over = False
        self._cancelled = False
        self._error: BaseException | None = None

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    def __aiter__(self) -> AsyncIterator[ChunkEvent]:
        return _Reader(self, lambda event: event)

    @property
    def text(self) -> AsyncIterator[str]:
        """The visible text, piece by piece."""
        return _Reader(self, lambda e: e.text if isinstance(e, TextDelta) else None)

    @property
    def reasoning(self) -> AsyncIterator[str]:
        """The reasoning text, piece by piece."""
        return _Reader(self, lambda e: e.text if isinstance(e, ReasoningDelta) else None)

    @property
    def tool_calls(self) -> AsyncIterator[ToolCall]:
        """The tool calls that are complete and readable, once the answer has ended."""
        return _Calls(self)

    async def message(self) -> AIMessage:
        """The whole answer, once it has arrived. After `cancel`, what had arrived, with
        ``finish_reason="cancelled"``. Raises what broke the stream."""
        seen = 0
        while await self._more(seen):
            seen = len(self._events)
        return fold_events(self._events).to_message("cancelled" if self._cancelled else None)

    async def cancel(self) -> None:
        """Stop the answer: the connection is closed, and every reader comes to its end."""
        await self._close()

    async def _close(self) -> None:
        if not self._over:
            self._over = self._cancelled = True
        if self._reading is not None:
            self._reading.cancel()
        with anyio.CancelScope(shield=True):
            async with self._lock:
                await self._source.aclose()

    async def _more(self, seen: int) -> bool:
        """Whether there are events after the first `seen`; reads on if need be."""
        while len(self._events) <= seen:
            async with self._lock:
                if len(self._events) > seen:
                    break
                if self._error is not None:
                    raise self._error
                if self._over:
                    return False
                await self._pull()
        return True

    async def _pull(self) -> None:
        batch = None
        try:
            with anyio.CancelScope() as self._reading:
                batch = await anext(self._source, None)
        except Exception as error:
            self._error = error
            self._over = True
            raise
        except BaseException:
            # The reader was cancelled while it read for all, and with it the source.
            self._over = self._cancelled = True
            raise
        finally:
            self._reading = None
        if batch is None:
            self._over = True
            return
        for chunk in batch:
            self._events.extend(chunk.events)


class _Reader:
    """What `pick` makes of the events, from the first one on; None is left out. Not a generator:
    leaving it half way must cost nothing."""

    def __init__(self, stream: MessageStream, pick: Callable[[ChunkEvent], Any]) -> None:
        self._stream = stream
        self._pick = pick
        self._seen = 0

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> Any:
        while await self._stream._more(self._seen):
            picked = self._pick(self._stream._events[self._seen])
            self._seen += 1
            if picked is not None:
                return picked
        raise StopAsyncIteration


class _Calls:
    """The tool calls of a stream, once it is over."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream
        self._calls: Iterator[ToolCall] | None = None

    def __aiter__(self) -> _Calls:
        return self

    async def __anext__(self) -> ToolCall:
        if self._calls is None:
            self._calls = iter((await self._stream.message()).tool_calls)
        call = next(self._calls, None)
        if call is None:
            raise StopAsyncIteration
        return call
