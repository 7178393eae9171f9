"""The fold: chunk events in, the readable message out.

A `Fold` takes events one after the other and keeps what they add up to; reading never changes it.
It is a function of the sequence of events alone, which is why `+` on chunks, being concatenation,
is associative. How two values of a field become one is declared in `MERGE_MODES`, by the name of
the field and never by the type of a value; a field that is not listed keeps its last value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .content import Block, InvalidToolCall, ToolCall, ToolCallChunk, whole_base64
from .deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    Restart,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    join_text,
)
from .tool_calls import Call, CallBook, judge
from .usage import UsageMetadata, add_usage

__all__ = ["MERGE_MODES", "Fold"]


def _first(old: Any, new: Any) -> Any:
    return new if old is None else old


def _last(old: Any, new: Any) -> Any:
    return new


def _append(old: Any, new: Any) -> Any:
    """Lists under the same keys are joined: `logprobs` is ``{"content": [...], "refusal": ...}``.
    What has been joined belongs to the fold and grows in place."""
    if not isinstance(new, Mapping):
        return new
    joined: dict[str, Any] = old if isinstance(old, dict) else {}
    for key, value in new.items():
        before = joined.get(key)
        if isinstance(before, list) and isinstance(value, list):
            before.extend(value)
        elif value is not None or key not in joined:
            joined[key] = list(value) if isinstance(value, list) else value
    return joined


def _extend(old: Any, new: Any) -> Any:
    """Lists are joined: `unknown_events` are kept in the order in which they came."""
    joined: list[Any] = [] if old is None else old
    joined.extend(new if isinstance(new, list) else [new])
    return joined


#: How the fields of `response_metadata` merge. Not listed: the last value wins.
MERGE_MODES: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "id": _first,
    "model_name": _first,
    "model_provider": _first,
    "created": _first,
    "logprobs": _append,
    "unknown_events": _extend,
    "finish_reason": _last,
    "stop_reason": _last,
}


def merge_into(target: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Merge `new` into `target` by the declared modes. None says nothing and changes nothing."""
    for key, value in new.items():
        if value is not None:
            mode = MERGE_MODES.get(key, _last)
            target[key] = mode(target.get(key), value)


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` for a reader: what still grows in the fold is copied."""
    shown = dict(fields)
    for key in _GROWING & shown.keys():
        value = shown[key]
        if isinstance(value, dict):
            shown[key] = {k: list(v) if isinstance(v, list) else v for k, v in value.items()}
        elif isinstance(value, list):
            shown[key] = list(value)
    return shown


_GROWING: Final = frozenset({"logprobs", "unknown_events"})


class _Block:
    """A content block as it grows."""

    __slots__ = ("annotations", "call", "data", "extras", "id", "index", "kind", "parts")

    def __init__(self, kind: str, index: int | None) -> None:
        self.kind = kind
        self.index = index
        self.id: str | None = None
        self.parts: list[str] = []
        self.data: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.annotations: list[dict[str, Any]] = []
        self.call: Call | None = None

    def text(self) -> str:
        """What has arrived, joined. The parts are replaced by it, so the next join is short; half a
        surrogate pair stays in it as it is, for the other half may come."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return join_text(self.parts)

    def begin(self, data: Mapping[str, Any]) -> None:
        """Take the keys that the block starts with; a value that does not fit goes to `extras`."""
        text_key = _TEXT_KEYS.get(self.kind, "base64")
        for key, value in data.items():
            if key == text_key and isinstance(value, str):
                if key == "base64":  # it begins anew: the sketch of an image gives way to the image
                    self.parts.clear()
                self.parts.append(value)
            elif key == "annotations" and self.kind == "text" and isinstance(value, list):
                self.annotations.extend(value)
            elif key == "extras" and isinstance(value, Mapping):
                self.extras.update(value)
            elif key == text_key or key in _OWN_KEYS or (self.call is not None and key != "args"):
                self.extras[key] = value
            else:
                self.data[key] = value


#: The key under which a block of this kind has what its deltas add up to; "base64" if not listed.
_TEXT_KEYS: Final = {
    "text": "text",
    "reasoning": "reasoning",
    "tool_call": "",
    "server_tool_call": "",
}
_OWN_KEYS: Final = frozenset({"type", "id", "index", "extras"})


class Fold:
    """The state of a message after some events."""

    __slots__ = (
        "_blocks",
        "_books",
        "_by_key",
        "_delta_usage",
        "_ends",
        "_latest",
        "_meta",
        "_usage",
        "finish_reason",
        "id",
        "name",
    )

    def __init__(self) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.finish_reason: str | None = None
        self._blocks: list[_Block] = []
        self._by_key: dict[tuple[str, int | None], _Block] = {}
        self._latest: dict[str, _Block] = {}
        self._books = {"tool_call": CallBook(), "server_tool_call": CallBook()}
        self._meta: dict[str, Any] = {}
        self._usage: UsageMetadata | None = None
        self._delta_usage: UsageMetadata | None = None
        self._ends: list[str | None] = []  # the finish reason of each message that has ended

    # ---- taking events -------------------------------------------------------------------------

    def take(self, events: Iterable[Any]) -> None:
        """Add events, in order. Objects that carry `text` and `index` like a delta are welcome."""
        handlers = _HANDLERS
        for event in events:
            handlers[event.__class__](self, event)

    def _message_start(self, event: MessageStart) -> None:
        self.id = self.id or event.id
        self.name = self.name or event.name
        # A message made by hand has an id too, but its metadata says what a provider said.
        id = event.id if event.provider else None
        merge_into(
            self._meta, {"id": id, "model_name": event.model, "model_provider": event.provider}
        )

    def _message_end(self, event: MessageEnd) -> None:
        if event.finish_reason is not None:
            self.finish_reason = event.finish_reason
        self._ends.append(event.finish_reason)
        for book in self._books.values():
            book.end_message()

    # An empty delta changes nothing: it does not even open a block.

    def _text(self, event: TextDelta) -> None:
        if event.text:
            self._block("text", event.index).parts.append(event.text)

    def _reasoning(self, event: ReasoningDelta) -> None:
        if event.text:
            self._block("reasoning", event.index).parts.append(event.text)

    def _data(self, event: DataDelta) -> None:
        if event.data:
            self._block(event.kind, event.index).parts.append(event.data)

    def _annotation(self, event: Annotation) -> None:
        self._block("text", event.index).annotations.append(event.annotation)

    def _block_start(self, event: BlockStart) -> None:
        if event.kind in self._books:
            block = self._place_call(event.kind, event.id, event.index, event.name, "", None)
        else:
            block = self._block(event.kind, event.index)
            block.id = block.id or event.id
        if event.data:
            block.begin(event.data)

    def _tool_call(self, event: ToolCallDelta) -> None:
        if event.args or event.id or event.name:
            self._place_call(
                event.kind, event.id, event.index, event.name, event.args, event.fallback_id
            )

    def _usage_report(self, event: UsageReport) -> None:
        if event.mode == "delta":
            self._delta_usage = add_usage(self._delta_usage, event.usage)
        else:
            self._usage, self._delta_usage = event.usage, None

    def _provider_data(self, event: ProviderData) -> None:
        if event.kind is None:
            merge_into(self._meta, event.data)
        else:
            merge_into(self._block(event.kind, event.index).extras, event.data)

    def _restart(self, event: Restart) -> None:
        """The message begins anew; nothing of what came before is left."""
        self.__init__()  # type: ignore[misc]

    def _block_end(self, event: BlockEnd) -> None:
        """Only the message's end matters to the fold; the event is for those who watch."""

    def _block(self, kind: str, index: int | None) -> _Block:
        if kind in self._books:
            return self._place_call(kind, None, index, None, "", None)
        if index is None:
            block = self._latest.get(kind)
        else:
            block = self._by_key.get((kind, index))
        return block if block is not None else self._open(kind, index)

    def _open(self, kind: str, index: int | None) -> _Block:
        block = self._by_key[kind, index] = self._latest[kind] = _Block(kind, index)
        self._blocks.append(block)
        return block

    def _place_call(
        self,
        kind: str,
        id: str | None,
        index: int | None,
        name: str | None,
        args: str,
        fallback_id: str | None,
    ) -> _Block:
        book = self._books[kind]
        call = book.find(id, index, name)
        if call is None:
            call = book.open(len(self._blocks))
            call.fallback_id = fallback_id
            self._open(kind, index).call = call
        call.take(id, index, name, args)
        book.note(call)
        return self._blocks[call.number]

    # ---- reading -------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether the message has ended, as the provider said."""
        return bool(self._ends)

    def text(self) -> str:
        texts = [block.text() for block in self._blocks if block.kind == "text"]
        return texts[0] if len(texts) == 1 else "".join(texts)

    def reasoning(self) -> str:
        return "".join(block.text() for block in self._blocks if block.kind == "reasoning")

    def usage(self) -> UsageMetadata | None:
        return add_usage(self._usage, self._delta_usage)

    def metadata(self) -> dict[str, Any]:
        return _shown(self._meta)

    def blocks(
        self, *, final: bool = False, reason: str | None = None, made_up_ids: bool = True
    ) -> list[Block]:
        """The content as standard blocks; tool calls that are not finished show as chunks unless
        `final`, which judges them as they are. `reason`: why the message ended, where the provider
        does not say."""
        blocks: list[Block] = []
        for block in self._blocks:
            read = self._read(block, final, reason)
            if read is None:
                continue
            if not made_up_ids and block.call is not None and not block.call.id:
                read["id"] = None
            blocks.append(read)
        return blocks

    def tool_calls(self) -> list[ToolCall]:
        """The calls that can be read: best reading while they arrive, strict once finished."""
        return [b for b in self._verdicts() if b["type"] == "tool_call"]  # type: ignore[misc]

    def invalid_tool_calls(self) -> list[InvalidToolCall]:
        return [b for b in self._verdicts() if b["type"] == "invalid_tool_call"]  # type: ignore[misc]

    def tool_call_chunks(self) -> list[ToolCallChunk]:
        """The tool calls as raw pieces, one for each call."""
        return [_chunk_of(block) for block in self._blocks if block.kind == "tool_call"]

    def _verdicts(self) -> Iterable[Block]:
        for block in self._blocks:
            if block.kind == "tool_call":
                yield self._judged(block) if self._over(block) else _unfinished(block)

    def _over(self, block: _Block) -> bool:
        return block.call is not None and block.call.turn < len(self._ends)

    def _judged(self, block: _Block, reason: str | None = None) -> Block:
        call = block.call
        assert call is not None
        ended = self._ends[call.turn] if self._over(block) else None
        args, error = call.verdict(ended or self.finish_reason or reason)
        return _verdict(block, call, args, error)

    def _read(self, block: _Block, final: bool, reason: str | None) -> Block | None:
        if block.call is None:
            return _READERS.get(block.kind, _read_data)(block)
        if block.kind == "server_tool_call":
            return _server_call(block, final or self._over(block))
        if final or self._over(block):
            return self._judged(block, reason)
        return dict(_chunk_of(block))


def _with_common(block: _Block, read: Block) -> Block:
    if block.id:
        read["id"] = block.id
    if block.extras:
        read["extras"] = _shown(block.extras)
    return read


def _read_text(block: _Block) -> Block | None:
    text = block.text()
    if not (text or block.annotations or block.extras or block.data):
        return None  # nothing has come but the news that it begins
    read: Block = {"type": "text", "text": text, **block.data}
    if block.annotations:
        read["annotations"] = list(block.annotations)
    return _with_common(block, read)


def _read_reasoning(block: _Block) -> Block | None:
    text = block.text()
    if not (text or block.extras or block.data or block.id):
        return None
    return _with_common(block, {"type": "reasoning", "reasoning": text, **block.data})


def _read_data(block: _Block) -> Block:
    read: Block = {"type": block.kind, **block.data}
    if block.parts:
        read["base64"] = whole_base64(block.text())
    return _with_common(block, read)


_READERS: Final[dict[str, Callable[[_Block], Block | None]]] = {
    "text": _read_text,
    "reasoning": _read_reasoning,
}


def _chunk_of(block: _Block) -> ToolCallChunk:
    call = block.call
    assert call is not None
    return {
        "type": "tool_call_chunk",
        "id": call.id or call.fallback_id,
        "name": call.name,
        "args": call.raw,
        "index": block.index,
    }


def _unfinished(block: _Block) -> Block:
    call = block.call
    assert call is not None
    args = call.reading()
    error = "the arguments can never be a JSON object" if args is None else None
    return _verdict(block, call, args, error)


def _verdict(block: _Block, call: Call, args: dict[str, Any] | None, error: str | None) -> Block:
    id = call.id or call.fallback_id
    if args is None:
        read: Block = {
            "name": call.name,
            "args": call.raw,
            "id": id,
            "error": error,
            "type": "invalid_tool_call",
        }
    else:
        read = {"name": call.name or "", "args": args, "id": id, "type": "tool_call"}
    if block.extras:
        read["extras"] = _shown(block.extras)
    return read


def _server_call(block: _Block, whole: bool) -> Block:
    call = block.call
    assert call is not None
    common: Block = {"id": call.id or call.fallback_id, "name": call.name or ""}
    if "args" in block.data:
        read = {"type": "server_tool_call", **common, "args": block.data["args"]}
    elif not whole:
        read = {"type": "server_tool_call_chunk", **common, "args": call.raw}
        if block.index is not None:
            read["index"] = block.index
    else:
        args, error = judge(call.raw, call.name, "stop")
        read = {"type": "server_tool_call", **common, "args": args or {}}
        if error:
            read["extras"] = {"raw_args": call.raw, "error": error}
    if block.extras:
        read["extras"] = {**read.get("extras", {}), **_shown(block.extras)}
    return read


_HANDLERS: Final[dict[type, Callable[[Fold, Any], None]]] = {
    MessageStart: Fold._message_start,
    BlockStart: Fold._block_start,
    TextDelta: Fold._text,
    ReasoningDelta: Fold._reasoning,
    ToolCallDelta: Fold._tool_call,
    DataDelta: Fold._data,
    Annotation: Fold._annotation,
    BlockEnd: Fold._block_end,
    UsageReport: Fold._usage_report,
    MessageEnd: Fold._message_end,
    ProviderData: Fold._provider_data,
    Restart: Fold._restart,
}
