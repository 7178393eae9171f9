"""An answer while it arrives, block by block: what LangChain's two kinds of stream are made from.

What grows (text, reasoning, arguments of calls) is passed on piece by piece. All else about a block
is told when the answer has ended, for LangChain's chunks can be added to but nothing in them can be
replaced: it is the fold of the block's own events, so it is what the whole message says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ...chunks import AIMessageChunk, fold_events
from ...content import Block
from ...deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    ProviderData,
    ReasoningDelta,
    Restart,
    TextDelta,
    ToolCallDelta,
)
from ...errors import StreamInterruptedError
from ...messages import AIMessage

__all__ = ["GROWING", "Arriving", "Piece"]

#: The kinds of blocks that are passed on while they grow.
GROWING: Final = frozenset({"text", "reasoning", "tool_call"})

_KINDS: Final = {TextDelta: "text", ReasoningDelta: "reasoning", Annotation: "text"}
_OF_BLOCKS: Final = (*_KINDS, BlockStart, BlockEnd, ToolCallDelta, DataDelta, ProviderData)


class Piece:
    """One block of the answer, as far as it has arrived. `number` is its place in the stream that
    is made of it, None until it is given one; `told` is what has been said of it already."""

    __slots__ = ("events", "kind", "number", "told")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.number: int | None = None
        self.told: Block = {}
        self.events: list[ChunkEvent] = []

    def opens(self, event: ChunkEvent) -> bool:
        """Whether with this event there is something of the block."""
        if isinstance(event, BlockStart):
            growing = self.kind in ("text", "reasoning")
            return not growing or bool(event.data or (event.id and self.kind == "reasoning"))
        if isinstance(event, TextDelta | ReasoningDelta):
            return bool(event.text)
        return not isinstance(event, BlockEnd)

    def news(self, event: BlockStart | ToolCallDelta) -> Block:
        """Id and name of a call, each when it comes first."""
        made_up = event.fallback_id if isinstance(event, ToolCallDelta) else None
        said = {"id": event.id or made_up, "name": event.name}
        new = {key: value for key, value in said.items() if value and key not in self.told}
        self.told.update(new)
        return new

    def read(self, finish_reason: str | None) -> Block | None:
        """The block; None if it turned out to be nothing."""
        whole = fold_events([*self.events, MessageEnd(finish_reason)]).to_message().content_blocks
        return whole[0] if whole else None


class Arriving:
    """The state of an answer: `take` its chunks, then look at `message`."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[str, int | None], Piece] = {}
        self._full = fold_events(())
        self._numbers = 0

    @property
    def so_far(self) -> AIMessageChunk:
        """All that has arrived."""
        return self._full

    def message(self) -> AIMessage:
        """The whole answer, at its end."""
        return self._full.to_message()

    def take(self, chunk: AIMessageChunk) -> Iterator[tuple[Piece | None, ChunkEvent]]:
        """The events of a chunk, each with the block that it belongs to, or None."""
        for event in chunk.events:
            if isinstance(event, Restart) and self.pieces:
                raise StreamInterruptedError(
                    "the stream was begun anew, and LangChain's chunks cannot be taken back: use "
                    "with_retry and with_fallbacks without restart_streams",
                    partial=self.message(),
                )
            yield self._piece(event), event
        self._full = self._full + chunk

    def numbered(self, piece: Piece) -> int:
        """The number of a block in the stream, given when it is first asked for."""
        if piece.number is None:
            piece.number = self._numbers
            self._numbers += 1
        return piece.number

    def _piece(self, event: Any) -> Piece | None:
        if not isinstance(event, _OF_BLOCKS):
            return None
        kind = _KINDS.get(type(event)) or event.kind
        if kind is None:
            return None  # of the message
        piece = self.pieces.get((kind, event.index))
        if piece is None:
            piece = self.pieces[kind, event.index] = Piece(kind)
        piece.events.append(event)
        return piece
