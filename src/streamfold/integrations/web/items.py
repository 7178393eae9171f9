"""What a stream may consist of, read as chunk events and tool results.

A source is whatever a program has: `model.astream(...)`, `model.astream_message(...)`, what
`astream_events(...)` of a runnable gives, or an async generator of its own that yields chunks,
chunk events, text, whole messages and tool messages.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Any, Final, TypeAlias

from ...chunks import AIMessageChunk, fold_events
from ...deltas import BlockStart, ChunkEvent, MessageEnd, TextDelta, ToolCallDelta, UsageReport
from ...errors import ConfigurationError
from ...message_stream import MessageStream
from ...messages import AIMessage, ToolMessage
from ...tool_calls import Call, CallBook
from ...usage import UsageMetadata, add_usage

__all__ = ["Calls", "Item", "Source", "Tally", "items", "parts"]

Source: TypeAlias = AsyncIterable[Any]
#: A chunk event, the result of a tool, or an event of `astream_events`.
Item: TypeAlias = ChunkEvent | ToolMessage | Mapping[str, Any]

_EVENTS: Final = ChunkEvent.__args__


async def items(source: Source) -> AsyncGenerator[Item, None]:
    """The items of `source`, which is closed at the end. The answer of a `MessageStream` that was
    cancelled ends by saying so. Raises ConfigurationError for what is no item of a stream."""
    last: Item | None = None
    async with AsyncExitStack() as stack:
        if isinstance(source, AbstractAsyncContextManager):
            await stack.enter_async_context(source)
        elif isinstance(source, AsyncGenerator):
            await stack.enter_async_context(aclosing(source))
        async for given in source:
            for item in _read(given):
                last = item
                yield item
        if isinstance(source, MessageStream) and not isinstance(last, MessageEnd):
            message = await source.message()
            if message.finish_reason == "cancelled":
                yield MessageEnd("cancelled")


def _read(given: Any) -> Iterable[Item]:
    if isinstance(given, AIMessageChunk):
        return given.events
    if isinstance(given, _EVENTS):
        return (given,)
    if isinstance(given, str):
        return (TextDelta(given),)
    if isinstance(given, ToolMessage | Mapping):
        return (given,)
    if isinstance(given, AIMessage):
        return _whole(given).events
    raise ConfigurationError(
        f"the stream has a {type(given).__name__} ({given!r:.60}): expected chunks, chunk events, "
        "messages, text, or the dicts of astream_events"
    )


def _whole(message: AIMessage) -> AIMessageChunk:
    return AIMessageChunk(
        message.content,
        id=message.id,
        response_metadata=message.response_metadata,
        invalid_tool_calls=message.invalid_tool_calls,
        usage_metadata=message.usage_metadata,
        finish_reason=message.finish_reason or "stop",
    )


def parts(item: Item) -> Iterable[ChunkEvent | ToolMessage]:
    """The same in the terms of one conversation: of `astream_events`, what models said and what
    tools gave."""
    if not isinstance(item, Mapping):
        return (item,)
    data = item.get("data") or {}
    if item.get("event") == "on_chat_model_stream":
        chunk = data.get("chunk")
        return chunk.events if isinstance(chunk, AIMessageChunk) else ()
    if item.get("event") == "on_tool_end" and isinstance(data.get("output"), ToolMessage):
        return (data["output"],)
    if item.get("event") == "on_tool_error" and data.get("tool_call_id"):
        said = str(data.get("error"))
        return (ToolMessage(said, tool_call_id=data["tool_call_id"], status="error"),)
    return ()


class Calls:
    """The tool calls of a stream, over all its messages. `number` of a call is its place there."""

    def __init__(self) -> None:
        self._books = {"tool_call": CallBook(), "server_tool_call": CallBook()}

    def take(self, event: BlockStart | ToolCallDelta) -> tuple[Call, bool]:
        """The call that a piece belongs to, and whether it opens it. Every call has an id."""
        book = self._books[event.kind]
        is_new = book.find(event.id, event.index, event.name) is None
        args = event.args if isinstance(event, ToolCallDelta) else ""
        call = book.place(event.id, event.index, event.name, args)
        if call.id is None:
            fallback = event.fallback_id if isinstance(event, ToolCallDelta) else None
            call.id = fallback or f"call_{uuid.uuid4().hex[:24]}"
            book.note(call)
        return call, is_new

    def end_message(self) -> None:
        for book in self._books.values():
            book.end_message()


class Tally:
    """The usage of a stream, over all its messages. Figures of a message may come after its end."""

    def __init__(self) -> None:
        self._before: UsageMetadata | None = None
        self._reports: list[ChunkEvent] = []

    def take(self, report: UsageReport) -> None:
        self._reports.append(report)

    def next_message(self) -> None:
        self._before, self._reports = self.total(), []

    def total(self) -> UsageMetadata | None:
        """None if nothing was reported."""
        return add_usage(self._before, fold_events(self._reports).usage_metadata)
