"""An answer as the events of LangChain's typed stream, `astream_events(version="v3")`.

The events are those of `langchain_protocol`: a start of the message, for each block a start, deltas
and a finish with the whole block, and a finish of the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from ...chunks import AIMessageChunk
from ...content import Block
from ...deltas import BlockStart, ChunkEvent, ReasoningDelta, TextDelta, ToolCallDelta
from .messages import KEPT, to_langchain
from .pieces import GROWING, Arriving, Piece

__all__ = ["Events"]

Event = dict[str, Any]

_DELTAS: Final[dict[type, Callable[[Any], Event]]] = {
    TextDelta: lambda event: {"type": "text-delta", "text": event.text},
    ReasoningDelta: lambda event: {"type": "reasoning-delta", "reasoning": event.text},
    ToolCallDelta: lambda event: {"type": "tool-call-delta", "args": event.args},
}
#: A block at its start; those of other kinds start with what says what they are.
_EMPTY: Final[dict[str, Block]] = {
    "text": {"type": "text", "text": ""},
    "reasoning": {"type": "reasoning", "reasoning": ""},
    "tool_call": {"type": "tool_call_chunk", "id": None, "name": None, "args": ""},
    "server_tool_call": {"type": "server_tool_call", "args": {}},
    "non_standard": {"type": "non_standard", "value": {}},
}
_NAMING: Final = ("tool_call_id", "mime_type", "status")


class Events:
    """Makes the events of LangChain's typed stream of streamfold's chunks."""

    def __init__(self) -> None:
        self._arriving = Arriving()
        self._begun = False

    def take(self, chunk: AIMessageChunk) -> Iterator[Event]:
        """The events for `chunk`."""
        events = list(self._arriving.take(chunk))
        if not self._begun:
            self._begun = True
            yield self._start()
        for piece, event in events:
            if piece is not None and (piece.number is not None or piece.opens(event)):
                yield from self._of_block(piece, event)

    def _start(self) -> Event:
        so_far = self._arriving.so_far
        said = so_far.response_metadata
        names = {"provider": "model_provider", "model": "model_name"}
        about = {theirs: said[ours] for theirs, ours in names.items() if ours in said}
        event: Event = {"event": "message-start", "role": "ai", "id": so_far.id or ""}
        return {**event, "metadata": about} if about else event

    def _of_block(self, piece: Piece, event: ChunkEvent) -> Iterator[Event]:
        if piece.number is None:
            yield self._block_start(piece, event)
        delta = _DELTAS.get(type(event)) if piece.kind in GROWING else None
        if delta is not None and (said := delta(event)).get("args") != "":
            yield {"event": "content-block-delta", "index": piece.number, "delta": said}

    def _block_start(self, piece: Piece, event: ChunkEvent) -> Event:
        number = self._arriving.numbered(piece)
        block = dict(_EMPTY.get(piece.kind, {"type": piece.kind}))
        if isinstance(event, BlockStart | ToolCallDelta):
            data = event.data if isinstance(event, BlockStart) else {}
            block |= {key: data[key] for key in _NAMING if key in data} | piece.news(event)
        if piece.kind == "tool_call":
            block["index"] = number
        return {"event": "content-block-start", "index": number, "content": block}

    def end(self) -> Iterator[Event]:
        """The events that follow the last chunk."""
        if not self._begun:
            return
        message = self._arriving.message()
        for piece in self._arriving.pieces.values():
            yield from self._finish(piece, message.finish_reason)
        whole: Any = to_langchain(message)
        kept = {k: v for k, v in whole.additional_kwargs.get(KEPT, {}).items() if k != "beside"}
        event: Event = {"event": "message-finish", "metadata": dict(whole.response_metadata)}
        if whole.usage_metadata is not None:
            event["usage"] = whole.usage_metadata
        event["additional_kwargs"] = {KEPT: kept} if kept else {}
        yield event

    def _finish(self, piece: Piece, finish_reason: str | None) -> Iterator[Event]:
        if piece.number is not None:
            block = piece.read(finish_reason) or _EMPTY[piece.kind]
            yield {
                "event": "content-block-finish",
                "index": piece.number,
                "content": dict(block),
            }
