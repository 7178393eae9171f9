"""An answer as the chunks of LangChain, which add up to the message that `ainvoke` gives.

LangChain adds by the type of a value: of equal keys, texts are joined and numbers summed. So the
metadata and the usage are said once, in the last chunk, and so is what else there is to say of a
block that has grown (its signature, its id).

Content is text as a str, as with LangChain's own classes, until a block comes that is neither text
nor a call; then, or from the beginning where that is asked for, it is lists of blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from langchain_core.messages import AIMessageChunk as LangChainChunk
from langchain_core.utils.json import parse_partial_json

from ...chunks import AIMessageChunk
from ...content import Block
from ...deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from .messages import KEPT, provider_shows_calls, to_langchain
from .pieces import GROWING, Arriving, Piece

__all__ = ["Chunks"]

#: What each event adds to its block, in LangChain's words.
_GROWTH: Final[dict[type, Callable[[Any], Block]]] = {
    TextDelta: lambda event: {"type": "text", "text": event.text},
    ReasoningDelta: lambda event: {"type": "reasoning", "reasoning": event.text},
    Annotation: lambda event: {"type": "text", "text": "", "annotations": [event.annotation]},
}
#: How a block begins that has its place before it has anything to show.
_EMPTY: Final[dict[str, Block]] = {"text": {"text": ""}, "reasoning": {"reasoning": ""}}
#: What a block that grows is called in a chunk, and its keys that are said while it does.
_SAID_OTHERWISE: Final = {
    "text": ("text", frozenset({"type", "text", "annotations"})),
    "reasoning": ("reasoning", frozenset({"type", "reasoning"})),
    "tool_call": ("tool_call_chunk", frozenset({"type", "name", "args", "id", "error"})),
}
_GROWING_KEYS: Final = frozenset({"text", "reasoning", "annotations", "args"})
#: What makes arguments unreadable also for a reader that completes what is unfinished.
_REFUSALS: Final = ("]", "}", '"]', '"}', '\\"]', '\\"}')


class Chunks:
    """Makes LangChain's chunks of streamfold's. `blocks`: content is lists from the beginning;
    `calls`: so it is for vendors whose calls LangChain looks for in the content."""

    def __init__(self, *, blocks: bool = False, calls: bool = False) -> None:
        self._arriving = Arriving()
        self._blocks = blocks
        self._calls = calls
        self._begun = False
        self._plain = False  # whether a chunk went out whose content is a str
        self._logprobs = False
        self._exact = True  # whether nothing has changed that had been said

    def take(self, chunk: AIMessageChunk) -> LangChainChunk | None:
        """The chunk for `chunk`; None if nothing of it is to be seen before the end."""
        events = list(self._arriving.take(chunk))
        if not self._begun:
            self._begin()
        if any(piece is not None and _is_rich(piece, event) for piece, event in events):
            self._blocks = True
        content: list[Block] = []
        calls: list[Block] = []
        metadata: dict[str, Any] = {}
        for piece, event in events:
            if piece is not None:
                self._add(piece, event, content, calls)
            elif isinstance(event, ProviderData) and event.data.get("logprobs") is not None:
                metadata["logprobs"] = event.data["logprobs"]
                self._logprobs = True
        if not content and not calls and not metadata:
            return None
        return self._chunk(_joined(content), _joined(calls), metadata)

    def _begin(self) -> None:
        self._begun = True
        provider = self._arriving.so_far.response_metadata.get("model_provider")
        self._blocks = self._blocks or (self._calls and not provider_shows_calls(provider))

    def _add(
        self, piece: Piece, event: ChunkEvent, content: list[Block], calls: list[Block]
    ) -> None:
        if piece.number is None and not piece.opens(event):
            return
        begins = piece.number is None
        index = self._arriving.numbered(piece)
        grow = _GROWTH.get(type(event))
        if piece.kind == "tool_call":
            if isinstance(event, BlockStart | ToolCallDelta):
                args = event.args if isinstance(event, ToolCallDelta) else ""
                calls.append(_call_piece(index, args, **piece.news(event)))
        elif grow is not None:
            content.append({**grow(event), "index": index})
        elif piece.kind == "non_standard":
            content += self._rest(piece, None)
        elif begins:  # it has its place in the list from now on
            content.append({"type": piece.kind, **_EMPTY.get(piece.kind, {}), "index": index})
        if piece.kind not in GROWING and isinstance(event, BlockEnd):
            content += self._rest(piece, None)

    def _rest(self, piece: Piece, finish_reason: str | None) -> list[Block]:
        """What there is to say of a block and has not been said."""
        block = piece.read(finish_reason)
        if block is None or piece.number is None:
            return []
        kind, grown = _SAID_OTHERWISE.get(piece.kind, (piece.kind, frozenset({"type"})))
        told = {key: value for key, value in block.items() if key not in grown}
        rest = {key: value for key, value in told.items() if key not in piece.told}
        changed = [key for key in told.keys() & piece.told.keys() if told[key] != piece.told[key]]
        self._exact = self._exact and not changed
        piece.told |= rest
        return [{"type": kind, **rest, "index": piece.number}] if rest else []

    def _chunk(
        self, content: list[Block], calls: list[Any], metadata: dict[str, Any], **more: Any
    ) -> LangChainChunk:
        said: Any
        if self._blocks:
            told = [{k: v for k, v in call.items() if v is not None} for call in calls]
            said = [*content, *told]
        else:
            said = "".join(block["text"] for block in content)
            self._plain = True
        if self._blocks and not self._plain:
            metadata = {**metadata, "output_version": "v1"}
        return LangChainChunk(
            content=said,
            tool_call_chunks=calls,
            response_metadata=metadata,
            id=self._arriving.so_far.id,
            **more,
        )

    def end(self) -> LangChainChunk | None:
        """The last chunk, with all that was held back; None if nothing has come at all."""
        if not self._begun:
            return None
        message = self._arriving.message()
        whole: Any = to_langchain(message)
        metadata = {k: v for k, v in whole.response_metadata.items() if k != "output_version"}
        if self._logprobs:
            del metadata["logprobs"]
        rest: list[Block] = []
        refusals: list[Any] = []
        for piece in self._arriving.pieces.values():
            rest += self._rest(piece, message.finish_reason) if self._blocks else []
            refusals += self._refusal(piece, message.finish_reason)
        kept = dict(whole.additional_kwargs.get(KEPT, {}))
        in_order = not self._plain or (not self._blocks and isinstance(whole.content, str))
        if refusals or not (in_order and self._exact):
            kept["content"] = message.content_blocks
        return self._chunk(
            rest,
            refusals,
            metadata,
            usage_metadata=whole.usage_metadata,
            additional_kwargs={**whole.additional_kwargs, **({KEPT: kept} if kept else {})},
            chunk_position="last",
        )

    def _refusal(self, piece: Piece, finish_reason: str | None) -> list[Block]:
        """The last piece of a call that must not be run. LangChain completes arguments that were
        cut off and has the call run with them; here they are made such that it cannot."""
        block = piece.read(finish_reason) if piece.kind == "tool_call" else None
        if block is None or block["type"] != "invalid_tool_call":
            return []
        raw = block["args"] or ""
        ends = (end for end in _REFUSALS if not _is_readable(raw + end))
        return [_call_piece(self._arriving.numbered(piece), next(ends, ""))]


def _joined(pieces: list[Block]) -> list[Block]:
    """Pieces of one block as one: LangChain adds up chunks, and not what is inside of one."""
    joined: dict[int, Block] = {}
    for piece in pieces:
        known = joined.setdefault(piece["index"], piece)
        if known is not piece:
            for key, value in piece.items():
                grown = key in _GROWING_KEYS and known.get(key) is not None
                known[key] = known[key] + value if grown else known.get(key) or value
    return list(joined.values())


def _is_rich(piece: Piece, event: ChunkEvent) -> bool:
    """Whether an event is of a block that a str cannot have."""
    return piece.kind not in ("text", "tool_call") or isinstance(event, Annotation)


def _call_piece(index: int, args: str, id: str | None = None, name: str | None = None) -> Block:
    return {"type": "tool_call_chunk", "id": id, "name": name, "args": args, "index": index}


def _is_readable(args: str) -> bool:
    """As LangChain reads arguments."""
    try:
        return isinstance(parse_partial_json(args), dict)
    except ValueError:
        return False
