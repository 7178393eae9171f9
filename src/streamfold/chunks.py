"""`AIMessageChunk`: a message while it arrives, and the algebra that adds chunks up.

A chunk is a view of an append-only log of chunk events: `(log, length)`. ``full + chunk`` appends
to the log when `full` is its newest view and copies it otherwise; which of two threads may append
is decided by one atomic ``dict.pop``. So `+` never changes an operand and costs what the right
side holds, and since adding is concatenation and reading is a function of the sequence, `+` is
associative with the empty chunk as identity, whatever the events are.

A log folds lazily: reading continues from where the last reading stopped (`fold.Fold`).

Most chunks hold one piece of text and are never added to. They are `TextChunk`s, a leaf class that
keeps the piece in plain fields and takes part in logs as it is.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec
from msgspec.structs import force_setattr

from .content import Block, InvalidToolCall, ToolCall, ToolCallChunk
from .deltas import (
    Annotation,
    BlockStart,
    ChunkEvent,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from .errors import ConfigurationError
from .fold import _HANDLERS, Fold
from .messages import AIMessage, known_call
from .usage import USAGE_IS_PARTIAL, UsageMetadata

__all__ = [
    "AIMessageChunk",
    "NotedChunk",
    "Received",
    "TextChunk",
    "fold_events",
    "message_from_fold",
]

T = TypeVar("T")
_PIECES: Final = 8  # of text, before they are joined


class _Log:
    """Events that views share. `ends` has one key: the length of the newest view."""

    __slots__ = ("ends", "fold", "folded", "items", "lock")

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.ends: dict[int, bool] = {len(items): True}
        self.lock = threading.Lock()
        self.fold: Fold | None = None  # most logs of one chunk are never read
        self.folded = 0

    def read(self, length: int, reader: Callable[[Fold], T]) -> T | None:
        """`reader` of the fold of the first `length` items; None if it has gone past them."""
        with self.lock:
            if self.folded > length:
                return None
            fold = self.fold
            if fold is None:
                fold = self.fold = Fold()
            if self.folded < length:
                fold.take(self.items[self.folded : length])
                self.folded = length
            return reader(fold)


class _ChunkFields(AIMessage, frozen=True, kw_only=True, tag="AIMessageChunk"):
    """Where the constructor's arguments lie. What the attributes show instead is what the events
    fold to: see `_ATTRIBUTES`.

    Defaults that are containers would be built for every chunk, so they are None here.
    """

    response_metadata: dict[str, Any] = None  # type: ignore[assignment]
    extras: dict[str, Any] = None  # type: ignore[assignment]
    tool_calls: list[ToolCall] = None  # type: ignore[assignment]
    invalid_tool_calls: list[InvalidToolCall] = None  # type: ignore[assignment]
    tool_call_chunks: list[ToolCallChunk] = None  # type: ignore[assignment]
    chunk_position: Literal["last"] | None = None
    events: list[ChunkEvent] = None  # type: ignore[assignment]
    _log: Any = None
    _length: int = 0


class AIMessageChunk(_ChunkFields, frozen=True, tag="AIMessageChunk"):
    """A piece of an answer, or many added up; an `AIMessage` as far as it has arrived.

    ``a + b`` never raises on provider data and never changes `a` or `b`. Made by hand from the
    fields of a message, or from `events`.
    """

    if TYPE_CHECKING:  # the constructor's fields; what reading them gives is below

        def __init__(
            self,
            content: str | list[Block] = "",
            *,
            id: str | None = None,
            name: str | None = None,
            response_metadata: Mapping[str, Any] | None = None,
            tool_calls: Iterable[Mapping[str, Any]] | None = None,
            invalid_tool_calls: Iterable[Mapping[str, Any]] | None = None,
            tool_call_chunks: Iterable[Mapping[str, Any]] | None = None,
            usage_metadata: UsageMetadata | None = None,
            finish_reason: str | None = None,
            chunk_position: Literal["last"] | None = None,
            events: Iterable[ChunkEvent] | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        events = _raw(self, "events")
        events = _events_from_fields(self) if events is None else tuple(events)
        for event in events:
            if type(event) not in _HANDLERS:
                raise ConfigurationError(
                    f"AIMessageChunk(events=...) has a {type(event).__name__}: "
                    "expected chunk events such as TextDelta"
                )
        force_setattr(self, "_length", len(events))
        force_setattr(self, "_log", _Log(list(events)))

    # ---- the algebra -----------------------------------------------------------------------------

    def __add__(self, other: object) -> AIMessageChunk:
        if other.__class__ is TextChunk:
            return _appended(self, (other,), 1)
        if not isinstance(other, AIMessageChunk):
            return NotImplemented
        tail = _items(other)
        return _appended(self, tail, len(tail)) if tail else self

    def __radd__(self, other: object) -> AIMessageChunk:
        if other == 0:  # sum() without a start value
            return self
        return NotImplemented

    # ---- reading ---------------------------------------------------------------------------------

    def _fold(self, reader: Callable[[Fold], T]) -> T:
        result: T | None = self._log.read(self._length, reader)
        if result is not None:
            return result
        # The log was folded past this view (or the reader gave None): move the view to its own.
        log = _Log(self._log.items[: self._length])
        force_setattr(self, "_log", log)
        return log.read(self._length, reader)  # type: ignore[return-value]

    @property
    def reasoning(self) -> str:
        """All reasoning text that has arrived."""
        return self._fold(Fold.reasoning)

    def to_message(self, finish_reason: str | None = None) -> AIMessage:
        """The message that has arrived, as an `AIMessage`: tool calls are judged for good.

        `finish_reason` is used where the provider gave none ("error" for a broken stream). Usage
        that was reported before such an end is not the final figure: the message then has
        ``response_metadata["usage_is_partial"]``.
        """
        return self._fold(lambda fold: message_from_fold(fold, finish_reason))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: the chunk's events."""
        return {"type": "AIMessageChunk", "events": msgspec.to_builtins(self.events)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AIMessageChunk:
        """The chunk that `to_dict` wrote. Raises ConfigurationError if it is not one."""
        try:
            events = msgspec.convert(data.get("events", []), list[ChunkEvent])
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"stored chunk is not readable: {error}") from None
        return AIMessageChunk(events=events)

    # ---- a value ---------------------------------------------------------------------------------

    def _key(self) -> tuple[Any, ...]:
        return self._fold(_reading)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AIMessageChunk):
            return self._key() == other._key()
        if isinstance(other, AIMessage):
            return self.to_message() == other
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = [repr(self.content)]
        for field in ("id", "name", "finish_reason", "usage_metadata", "response_metadata"):
            value = getattr(self, field)
            if value is not None and value != {}:
                shown.append(f"{field}={value!r}")
        return f"AIMessageChunk({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return fold_events, (tuple(self.events),)

    def __copy__(self) -> AIMessageChunk:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> AIMessageChunk:
        return AIMessageChunk(events=self.events)


def _read_content(fold: Fold) -> Any:
    blocks = fold.blocks()
    if all(block.keys() == {"type", "text"} for block in blocks):
        return "".join(block["text"] for block in blocks)
    return blocks


# What the attributes of a chunk show. They have the names of the constructor's arguments, which
# are slots of the struct; these properties hide the slots. A reader gives a tuple of one where its
# value may be None, which `_Log.read` takes for "not from here".
_ATTRIBUTES: Final[dict[str, tuple[Callable[[Fold], Any], str]]] = {
    "content": (_read_content, "A str if there is only text, else the content blocks."),
    "text": (Fold.text, "All visible text that has arrived."),
    "content_blocks": (Fold.blocks, "What has arrived, as blocks of one shape for all providers."),
    "tool_calls": (
        Fold.tool_calls,
        "The best reading so far of the calls that are arriving; strict once they are finished.",
    ),
    "invalid_tool_calls": (Fold.invalid_tool_calls, "The calls that must not be run, and why."),
    "tool_call_chunks": (
        Fold.tool_call_chunks,
        "The tool calls as raw pieces: one per call, `args` as far as they have arrived.",
    ),
    "response_metadata": (Fold.metadata, "What else the provider said about the answer."),
    "extras": (lambda fold: {}, "Nothing: what only one vendor knows is in the blocks."),
    "usage_metadata": (lambda fold: (fold.usage(),), "Tokens, as far as they were reported."),
    "id": (lambda fold: (fold.id,), "The provider's id of the answer."),
    "name": (lambda fold: (fold.name,), "The name of the speaker, if it has one."),
    "finish_reason": (lambda fold: (fold.finish_reason,), "Why the answer ended; None before."),
    "chunk_position": (
        lambda fold: ("last" if fold.finished else None,),
        "`last` once the message has ended.",
    ),
}


def _attribute(reader: Callable[[Fold], Any], doc: str) -> property:
    def read(chunk: AIMessageChunk) -> Any:
        value = chunk._fold(reader)
        return value[0] if value.__class__ is tuple else value

    return property(read, doc=doc)


for _name, _described in _ATTRIBUTES.items():
    setattr(AIMessageChunk, _name, _attribute(*_described))
setattr(  # noqa: B010 - as those above, but it shows the events themselves
    AIMessageChunk,
    "events",
    property(
        lambda chunk: [_as_event(item) for item in _items(chunk)],
        doc="The typed chunk events this chunk was made of.",
    ),
)


class _NoPostInit:
    """msgspec calls `__post_init__` if the class has one; the leaf says that it has none."""

    def __get__(self, instance: object, owner: type) -> Any:
        raise AttributeError("__post_init__")


class TextChunk(AIMessageChunk, frozen=True, gc=False, tag="AIMessageChunk"):
    """One piece of text, in plain fields: what nearly all chunks of a stream are."""

    text: str = ""  # pyright: ignore[reportIncompatibleMethodOverride]
    index: int | None = None

    __post_init__ = _NoPostInit()  # type: ignore[misc]

    def _fold(self, reader: Callable[[Fold], T]) -> T:
        fold = Fold()
        fold.take((self,))
        return reader(fold)


class NotedChunk(AIMessageChunk, frozen=True, gc=False, tag="AIMessageChunk"):
    """One piece of text, and a `note` of what else the wire said with it, whose ``events()`` are
    made when somebody asks for more than the text."""

    text: str = ""  # pyright: ignore[reportIncompatibleMethodOverride]
    index: int | None = None
    note: Any = None

    __post_init__ = _NoPostInit()  # type: ignore[misc]

    def _fold(self, reader: Callable[[Fold], T]) -> T:
        fold = Fold()
        fold.take(_items(self))
        return reader(fold)


def _take_text(fold: Fold, chunk: TextChunk) -> None:
    fold._text(chunk)  # type: ignore[arg-type]  # it has `text` and `index`, as a delta has


_HANDLERS[TextChunk] = _take_text


def _items(chunk: AIMessageChunk) -> list[Any] | tuple[Any, ...]:
    if chunk.__class__ is TextChunk:
        return (chunk,)
    if isinstance(chunk, NotedChunk):
        return (TextDelta(chunk.text, chunk.index), *chunk.note.events())
    return chunk._log.items[: chunk._length]  # type: ignore[no-any-return]


def _as_event(item: Any) -> ChunkEvent:
    return TextDelta(item.text, item.index) if item.__class__ is TextChunk else item


class _View(AIMessageChunk, frozen=True, gc=False, tag="AIMessageChunk"):
    """A chunk made from a log: nothing to translate, nothing to check. `_View("", log, length)`."""

    _log: Any = None
    _length: int = 0

    __post_init__ = _NoPostInit()  # type: ignore[misc]


# How a chunk is held is nobody's business: users who print its type see the one that is public.
for _leaf in (TextChunk, NotedChunk, _View):
    _leaf.__name__ = _leaf.__qualname__ = AIMessageChunk.__name__


def _appended(left: AIMessageChunk, tail: Any, count: int) -> AIMessageChunk:
    """`left` with `tail`, on the same log if `left` is its newest view."""
    log, length = left._log, left._length
    if log is None:  # one piece of text: its first `+`
        items = list(_items(left))
        log, length = _Log(items), len(items)
    ends = log.ends
    if ends.pop(length, None) is None:
        log = _Log(log.items[:length])
        ends = log.ends
        ends.clear()
    log.items.extend(tail)
    length += count
    ends[length] = True
    return _View("", log, length)


def fold_events(events: Iterable[Any]) -> AIMessageChunk:
    """A chunk made of `events` (or `TextChunk`s), which are taken as they are."""
    items = list(events)
    return _View("", _Log(items), len(items))


class Received:
    """The chunks of one answer so far, for the message that they make: pieces of text that follow
    one another are kept as one, for a reader may hold thousands of streams and no chunk of them."""

    __slots__ = ("_chunks", "_merged")

    def __init__(self) -> None:
        self._chunks: list[AIMessageChunk] = []
        self._merged = 0  # so many are not looked at again

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def extend(self, chunks: list[AIMessageChunk]) -> None:
        """The next chunks."""
        self._chunks.extend(chunks)
        if len(self._chunks) - self._merged >= _PIECES:
            self._merge()

    def _merge(self) -> None:
        new = self._chunks[self._merged :]
        if {chunk.__class__ for chunk in new} == {TextChunk}:
            groups: Iterable[Any] = [(TextChunk, new)]
        else:
            groups = groupby(new, key=type)
        del self._chunks[self._merged :]
        for kind, chunks in groups:
            self._chunks.extend(_joined(list(chunks)) if kind is TextChunk else chunks)
        self._merged = len(self._chunks)

    def to_message(self, finish_reason: str | None) -> AIMessage | None:
        """See `AIMessageChunk.to_message`; None if nothing has been received."""
        if not self._chunks:
            return None
        items = [item for chunk in self._chunks for item in _items(chunk)]
        return fold_events(items).to_message(finish_reason)


def _joined(chunks: list[Any]) -> list[Any]:
    """`TextChunk`s as one, if they belong to one block."""
    indexes = {chunk.index for chunk in chunks}
    if len(indexes) > 1:
        return chunks
    return [TextChunk("", "".join([chunk.text for chunk in chunks]), indexes.pop())]


def message_from_fold(fold: Fold, finish_reason: str | None = None) -> AIMessage:
    """The message a fold has come to. See `AIMessageChunk.to_message`."""
    metadata, usage = fold.metadata(), fold.usage()
    if finish_reason is not None and usage is not None and not fold.finished:
        metadata[USAGE_IS_PARTIAL] = True
    return AIMessage(
        fold.blocks(final=True, reason=finish_reason),
        id=fold.id,
        name=fold.name,
        response_metadata=metadata,
        usage_metadata=usage,
        finish_reason=fold.finish_reason or finish_reason,
    )


def _reading(fold: Fold) -> tuple[Any, ...]:
    """What can be read: two chunks that read the same are equal. Ids that were made up here for
    calls that came without one do not count."""
    return (
        fold.blocks(made_up_ids=False),
        fold.id,
        fold.name,
        fold.metadata(),
        fold.usage(),
        fold.finish_reason,
        fold.finished,
    )


# ---- chunks made by hand -----------------------------------------------------------------------


def _raw(chunk: AIMessageChunk, field: str) -> Any:
    """The constructor's argument, behind the property of the same name."""
    return getattr(_ChunkFields, field).__get__(chunk)


def _events_from_fields(chunk: AIMessageChunk) -> tuple[ChunkEvent, ...]:
    events: list[ChunkEvent] = []
    id, name = _raw(chunk, "id"), _raw(chunk, "name")
    if id or name:
        events.append(MessageStart(id=id, name=name))
    content = _raw(chunk, "content")
    events.extend(_content_events(content))
    for piece in _raw(chunk, "tool_call_chunks") or ():
        events.append(_piece_event(piece))
    # As in a message, a call may be both in the content and here: it is the same call.
    inside = [] if isinstance(content, str) else [b for b in content if isinstance(b, Mapping)]
    for call in _raw(chunk, "tool_calls") or ():
        if not known_call(call, inside):
            events.extend(_call_events(call))
    for call in _raw(chunk, "invalid_tool_calls") or ():
        if not known_call(call, inside):
            events.append(_piece_event(call))
    metadata = _raw(chunk, "response_metadata")
    if metadata:
        events.append(ProviderData(dict(metadata)))
    usage = _raw(chunk, "usage_metadata")
    if usage:
        events.append(UsageReport(usage))
    finish = _raw(chunk, "finish_reason")
    if finish or _raw(chunk, "chunk_position") == "last":
        events.append(MessageEnd(finish))
    return tuple(events)


def _content_events(content: Any) -> Iterable[ChunkEvent]:
    if isinstance(content, str):
        return [TextDelta(content)] if content else []
    if not isinstance(content, Iterable):
        raise ConfigurationError(
            f"AIMessageChunk.content is {type(content).__name__}: expected a str or a list"
        )
    events: list[ChunkEvent] = []
    for block in content:
        events.extend([TextDelta(block)] if isinstance(block, str) else _block_events(block))
    return events


def _block_events(block: Mapping[str, Any]) -> list[ChunkEvent]:
    kind, index = block.get("type"), block.get("index")
    rest = {k: v for k, v in block.items() if k not in ("type", "index", "id")}
    if kind == "text":
        return _text_events(rest, index, block.get("id"))
    if kind == "reasoning":
        return _reasoning_events(rest, index, block.get("id"))
    if kind in ("tool_call_chunk", "invalid_tool_call"):
        return [_piece_event(block)]
    if kind == "server_tool_call_chunk":
        return [_piece_event(block, "server_tool_call")]
    if kind == "tool_call":
        return _call_events(block)
    id, name = block.get("id"), rest.get("name")
    if kind == "server_tool_call":
        rest.pop("name", None)
        return [BlockStart(kind, index, id=id, name=name, data=rest)]
    return [BlockStart(str(kind), _own_index(index), id=id, data=rest)]


def _own_index(index: Any) -> int:
    # A block that comes whole never continues another, so without an index it gets one of its own.
    return index if index is not None else -(uuid.uuid4().int >> 80)


def _text_events(rest: dict[str, Any], index: int | None, id: str | None) -> list[ChunkEvent]:
    text = rest.pop("text", None) or ""
    events: list[ChunkEvent] = [TextDelta(text, index)] if text else []
    events.extend(Annotation(note, index) for note in rest.pop("annotations", None) or ())
    return _with_rest(events, "text", rest, index, id)


def _reasoning_events(rest: dict[str, Any], index: int | None, id: str | None) -> list[ChunkEvent]:
    text = rest.pop("reasoning", None) or ""
    events: list[ChunkEvent] = [ReasoningDelta(text, index)] if text else []
    return _with_rest(events, "reasoning", rest, index, id)


def _with_rest(
    events: list[ChunkEvent], kind: str, rest: dict[str, Any], index: int | None, id: str | None
) -> list[ChunkEvent]:
    if id or rest:
        events.append(BlockStart(kind, index, id=id, data=rest))
    return events


def _piece_event(
    piece: Mapping[str, Any], kind: Literal["tool_call", "server_tool_call"] = "tool_call"
) -> ToolCallDelta:
    return ToolCallDelta(
        args=piece.get("args") or "",
        index=piece.get("index"),
        id=piece.get("id") or None,
        name=piece.get("name") or None,
        kind=kind,
        fallback_id=None if piece.get("id") else f"call_{uuid.uuid4().hex[:24]}",
    )


def _call_events(call: Mapping[str, Any]) -> list[ChunkEvent]:
    args = msgspec.json.encode(call.get("args", {})).decode()
    events: list[ChunkEvent] = [_piece_event({**call, "args": args})]
    if call.get("extras"):
        events.append(ProviderData(dict(call["extras"]), call.get("index"), "tool_call"))
    return events
