"""`MessageStream`: one answer, read as typed events, as text, as tool calls, or as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
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
        self._over = False
        self._cancelled = False
        self._error: BaseException | None = None

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._close()

    def __aiter__(self) -> AsyncIterator[ChunkEvent]:
        return self._read(lambda event: event)

    @property
    def text(self) -> AsyncIterator[str]:
        """The visible text, piece by piece."""
        return self._read(lambda e: e.text if isinstance(e, TextDelta) else None)

    @property
    def reasoning(self) -> AsyncIterator[str]:
        """The reasoning text, piece by piece."""
        return self._read(lambda e: e.text if isinstance(e, ReasoningDelta) else None)

    @property
    def tool_calls(self) -> AsyncIterator[ToolCall]:
        """The tool calls, each once it is complete and readable."""
        return self._calls()

    async def message(self) -> AIMessage:
        """The whole answer, once it has arrived. After `cancel`, what had arrived, with
        ``finish_reason="cancelled"``. Raises what broke the stream."""
        seen = 0
        while await self._more(seen):
            seen = len(self._events)
        return fold_events(self._events).to_message("cancelled" if self._cancelled else None)

    async def cancel(self) -> None:
        """Stop the answer: the connection is closed, and every reader comes to its end."""
        self._cancelled = not self._over
        await self._close()

    async def _close(self) -> None:
        self._over = True
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
        try:
            batch = await anext(self._source, None)
        except Exception as error:
            self._error = error
            self._over = True
            raise
        if batch is None:
            self._over = True
            return
        for chunk in batch:
            self._events.extend(chunk.events)

    async def _read(self, pick: Callable[[ChunkEvent], Any]) -> AsyncGenerator[Any, None]:
        seen = 0
        while await self._more(seen):
            event = pick(self._events[seen])
            seen += 1
            if event is not None:
                yield event

    async def _calls(self) -> AsyncGenerator[ToolCall, None]:
        shown = seen = 0
        while await self._more(seen):
            seen = len(self._events)
            chunk = fold_events(self._events)
            if not chunk.finish_reason:
                continue
            calls = chunk.tool_calls
            for call in calls[shown:]:
                yield call
            shown = len(calls)
