"""What every dialect shares: the `Dialect` protocol, and `Decoder`, the state of one answer.

A dialect is a module of `wire/` with `encode` (a `ChatRequest` to an `HTTPRequest`) and a subclass
of `Decoder`, which says how its payloads become chunk events. The decoder numbers content blocks
in the order in which they open, sorts the pieces of tool calls, joins the halves of surrogate
pairs, watches the limits, and knows whether the answer came to its end. All of it is pure: bytes
are fed, chunks come out, and a failure is a value in `error`, after which nothing more comes.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Final, Protocol

import msgspec

from ..chunks import AIMessageChunk, TextChunk, fold_events
from ..deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    join_text,
)
from ..errors import (
    ProviderError,
    SizeLimitError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
    provider_error,
)
from ..limits import DEFAULT_LIMITS, Limits
from ..partial_json import nesting
from ..tool_calls import Call, CallBook
from ..usage import UsageMetadata
from .google_status import status_pause, status_reason
from .request import ChatRequest, HTTPRequest
from .sse import Frame, SSEFramer
from .template import Template

__all__ = ["Decoder", "Dialect", "Framer", "args_text", "error_fields", "text_or_none"]


class Framer(Protocol):
    """Bytes to whole blocks, blocks apart, a block to its frame: `SSEFramer` and its like."""

    separator: ClassVar[bytes]
    error: StreamfoldError | None

    def complete(self, data: bytes) -> bytes: ...
    def split(self, complete: bytes) -> list[bytes]: ...
    def read(self, block: bytes) -> Frame | None: ...
    def close(self) -> bytes: ...


class _ShortWay(Protocol):
    def chunks(self, payloads: bytes) -> list[AIMessageChunk] | None: ...


class Dialect(Protocol):
    """A module of `wire/`: how one API is spoken."""

    NAME: str
    Decoder: type[Decoder]
    #: Fields of the request body, besides the standard parameters, that are sent as they are.
    BODY_FIELDS: frozenset[str]
    #: Kinds of blocks whose URLs go to the vendor, which fetches them.
    URL_BLOCKS: frozenset[str]

    def encode(self, request: ChatRequest) -> HTTPRequest: ...


_loads = msgspec.json.Decoder().decode
_MAX_LESSONS: Final = 16  # a stream in which no two payloads are alike is not studied for ever
_TIGHT: Final = (",", ":")
_HIGH: Final = ("\ud800", "\udbff")


class Decoder:
    """One answer, from its bytes to its chunks.

    `feed` the bytes of a stream as they come and `close` at their end, or give a body that is not
    a stream to `whole`. Each returns the chunks that became complete. Then look at `error`
    (something broke: stop), `done` (the end marker came: stop reading) and `finished` (the finish
    reason came: only trailing figures may follow).
    """

    #: How this dialect frames a stream.
    framer_type: ClassVar[type[Any]] = SSEFramer
    #: Where a stream's payload has its piece of text; None if the short way is not for it.
    text_path: ClassVar[tuple[str | int, ...] | None] = None
    #: Its field with a number that only counts the payloads.
    counter_key: ClassVar[str | None] = None
    #: Parts of content types that announce a stream of this dialect.
    stream_types: ClassVar[tuple[str, ...]] = ("event-stream",)
    #: Whether a JSON body that is an array is a stream of this dialect.
    array_streams: ClassVar[bool] = False
    #: What `model_provider` says unless the vendor's row says otherwise.
    provider: ClassVar[str] = ""

    def __init__(
        self,
        limits: Limits = DEFAULT_LIMITS,
        *,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        self.limits = limits
        self.model_provider = provider or self.provider
        self.asked_model = model  # the model that answered, where the wire names none
        self.error: StreamfoldError | None = None
        self.done = False
        self.finished = False
        self._framer: Framer = self.framer_type(limits.event_bytes)
        self._received = 0
        self._pending: list[ChunkEvent] = []  # events that wait for content to travel with
        self._events: list[ChunkEvent] = []  # events of the frame at hand
        self._visible = False  # whether the frame at hand carries something for the message
        self._started = False
        self._closed = False
        self._id: str | None = None
        self._model: str | None = None
        self._seed = uuid.uuid4().hex  # for the ids of calls, where the answer has no id either
        self._blocks = 0
        self._open: dict[tuple[str, Any], int] = {}
        self._current: tuple[str, Any] | None = None
        self._books = {"tool_call": CallBook(), "server_tool_call": CallBook()}
        self._arg_sizes: dict[int, int] = {}
        self._half: dict[tuple[str, int], str] = {}
        self._untidy = False  # JSON came that may hold what JSON in UTF-8 cannot
        self._template: _ShortWay | None = None
        self._lessons = 0  # templates learnt since one was last of use

    # ---- what the network side calls -------------------------------------------------------------

    def feed(self, data: bytes) -> list[AIMessageChunk]:
        """The chunks that `data` completes."""
        if self.error is not None or self.done:
            return []
        self._received += len(data)
        excess = self._received - self.limits.message_bytes
        if excess > 0:
            data = data[:-excess]
        chunks = self._take(self._framer.complete(data))
        if self.error is None and not self.done:
            self.error = self._framer.error or (self._too_large() if excess > 0 else None)
        return chunks

    def close(self) -> list[AIMessageChunk]:
        """The bytes have ended: the last chunks, and the verdict on whether the answer is whole."""
        if self.error is not None or self._closed:
            return []
        self._closed = True
        chunks: list[AIMessageChunk] = []
        if not self.done:  # what was held back when the end marker came is behind it
            chunks = self._take(self._framer.close())
        if self.error is None and not self.done:
            self.error = self._framer.error
        if self.error is None and not (self.done or self.finished):
            self.error = StreamInterruptedError(
                "the stream ended with neither a finish reason nor an end marker: "
                "the answer is cut off"
            )
        if self.error is None:
            self._safely(self._finish_up)
            chunks.extend(self._flush())
        return chunks

    def whole(self, body: bytes) -> list[AIMessageChunk]:
        """The chunks of an answer that came in one JSON body."""
        if len(body) > self.limits.message_bytes:
            self.error = self._too_large()
            return []
        payload = self._payload(body)
        if self.error is not None:
            return []
        if not isinstance(payload, dict):
            self.error = StreamProtocolError(f"the answer is not a JSON object: {_excerpt(body)}")
            return []
        self._safely(self._whole, payload)
        if self.error is None and not (self.finished or self._blocks):
            self.error = StreamProtocolError(f"the answer has no message: {_excerpt(body)}")
        if self.error is None:
            self._safely(self._finish_up)
        return self._flush()

    def _too_large(self) -> SizeLimitError:
        limit = self.limits.message_bytes
        return SizeLimitError(f"the answer is larger than Limits.message_bytes ({limit} bytes)")

    # ---- what a dialect writes -------------------------------------------------------------------

    def _take(self, complete: bytes) -> list[AIMessageChunk]:
        """The chunks of all blocks of one read: the short way if it is nothing but text."""
        if not complete:
            return []
        short = self._template
        if short is not None and len(complete) <= self.limits.event_bytes:
            told = short.chunks(complete)
            if told is not None:
                self._lessons = 0
                return told
        self._template = None  # what it takes for granted may change now
        chunks: list[AIMessageChunk] = []
        before, kept, block = 0, 0, b""
        for block in self._framer.split(complete):
            frame = self._framer.read(block)
            before, kept = len(chunks), self._kept()
            if frame is not None:
                self._frame(frame, chunks)
            if self.error is not None or self.done:
                return chunks
        told_all = self._kept() == kept  # and kept nothing of it to tell later
        if told_all and len(chunks) > before and self._may_learn():
            self._learn(block, chunks[-1])
        return chunks

    def _kept(self) -> int:
        """How many pieces wait to be told at the end of the answer, without a pending event."""
        return 0

    def _may_learn(self) -> bool:
        """Whether what comes next depends on nothing but itself: there is no half of a character
        and no event that the next content takes along."""
        return self._lessons < _MAX_LESSONS and not (self._half or self._pending)

    def _learn(self, block: bytes, chunk: AIMessageChunk) -> None:
        """Take the short way from here on, if the blocks are such that it can be taken."""
        if not isinstance(chunk, TextChunk) or self.text_path is None:
            return
        self._lessons += 1
        self._template = Template.learn(
            block,
            chunk.text,
            self.text_path,
            self._framer.separator,
            chunk.index,
            self.counter_key,
        )

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        """One frame by the complete way: parse it to plain data and let the dialect look at it."""
        payload = self._payload(frame.data)
        if self.error is None:
            self._safely(self._event, frame.event, payload)
        self._emit(chunks)

    def _safely(self, reader: Callable[..., None], *args: Any) -> None:
        """Let `reader` look at parsed data. Dialects look before they leap where vendors are known
        to differ; any other value of a type that no vendor sends is an error of the answer."""
        try:
            reader(*args)
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            what = f"{type(error).__name__}: {error}"
            self.fail(StreamProtocolError(f"the answer has a value of an unknown shape ({what})"))

    def _event(self, event: str | None, payload: Any) -> None:
        """Take one parsed event of a stream."""
        raise NotImplementedError

    def _whole(self, payload: dict[str, Any]) -> None:
        """Take the parsed body of an answer that was not streamed."""
        raise NotImplementedError

    def _finish_up(self) -> None:
        """The answer is at its end: events that had to wait until then."""

    # ---- the words a dialect uses ----------------------------------------------------------------

    def start(self, id: str | None, model: str | None) -> None:
        """The answer's id and model. The first of each counts."""
        known = (self._id or not id) and (self._model or not model)
        if self._started and known:
            return
        self._pending.append(
            MessageStart(id=id or None, model=model or None, provider=self.model_provider or None)
        )
        self._id = self._id or id
        self._model = self._model or model
        self._started = True

    def text(self, text: str, key: Any = None) -> None:
        """A piece of text of the block `key`."""
        number = self._number("text", key)
        text = self._whole_pairs(text, "text", number)
        if text:
            self._add(TextDelta(text, number))

    def reasoning(self, text: str, key: Any = None) -> None:
        """A piece of reasoning of the block `key`."""
        number = self._number("reasoning", key)
        text = self._whole_pairs(text, "reasoning", number)
        if text:
            self._add(ReasoningDelta(text, number))

    def annotate(self, annotation: dict[str, Any], key: Any = None) -> None:
        """A citation on the text block `key`."""
        self._add(Annotation(annotation, self._number("text", key)))

    def block(
        self, kind: str, data: dict[str, Any], *, key: Any = None, id: str | None = None
    ) -> int:
        """A block that comes whole, or that begins with data. Its number."""
        number = self._number(kind, key if key is not None else ("whole", self._blocks), quiet=True)
        self._add(BlockStart(kind, number, id=id, data=data))
        return number

    def tool_call(
        self,
        *,
        index: Any = None,
        id: str | None = None,
        name: str | None = None,
        args: str = "",
        kind: str = "tool_call",
        extras: dict[str, Any] | None = None,
    ) -> None:
        """A piece of a tool call, as the wire has it; the book decides which call it belongs to."""
        if not (id or name or args or extras):
            return  # an empty piece opens nothing
        book = self._books[kind]
        call = book.find(id, index, name)
        late_name = None
        if call is None:
            call = self._open_call(book, kind, id, index, name, extras)
        else:
            if extras:
                self._add(ProviderData(extras, call.number, kind))
            late_name = None if call.name else name or None
            call.take(id, index, name, args)
            book.note(call)
        if args:
            args = self._whole_pairs(args, kind, call.number)
            self._count_args(call, args)
        if args or late_name:
            self._add(
                ToolCallDelta(args, call.number, name=late_name, kind=kind)  # type: ignore[arg-type]
            )

    def data(self, piece: str, kind: str, key: Any) -> None:
        """A piece of base64 data of the media block `key`."""
        self._add(DataDelta(piece, self._number(kind, key, quiet=True), kind))

    def block_data(self, kind: str, data: dict[str, Any], key: Any = None) -> None:
        """What only this provider says about the block `key`: it joins the block's extras."""
        self._add(ProviderData(data, self._number(kind, key), kind))

    def metadata(self, data: dict[str, Any], *, visible: bool = True) -> None:
        """Fields of `response_metadata`. Not `visible`: they wait for the next content."""
        event = ProviderData(data)
        if visible:
            self._add(event)
        else:
            self._pending.append(event)

    def usage(self, usage: UsageMetadata, *, visible: bool = True) -> None:
        """Running totals so far."""
        event = UsageReport(usage)
        if visible:
            self._add(event)
        else:
            self._pending.append(event)

    def end_block(self, kind: str, key: Any) -> None:
        """The block is complete. What would be a second end says nothing. The `key` of a tool call
        is the index of its pieces."""
        place = (kind, key)
        if kind in self._books and place not in self._open:
            call = self._books[kind].find(None, key, None)
            place = (kind, ("call", call.number)) if call is not None else place
        number = self._open.pop(place, None)
        if number is not None:
            self._drop_half(kind, number)
            self._pending.append(BlockEnd(kind, number))
        if self._current == place:
            self._current = None

    def finish(self, reason: str | None, metadata: dict[str, Any] | None = None) -> None:
        """The answer is complete. Open blocks end first."""
        for kind, key in list(self._open):
            self.end_block(kind, key)
        self._events.extend(self._pending)
        self._pending.clear()
        if self.asked_model and not self._model:
            metadata = {**(metadata or {}), "model_name": self.asked_model}
        if metadata:
            self._add(ProviderData(metadata))
        self._add(MessageEnd(text_or_none(reason)))
        for book in self._books.values():
            book.end_message()
        self.finished = True

    def fail(self, error: StreamfoldError) -> None:
        """The answer broke. What the frame had added before still counts."""
        if self.error is None:
            self.error = error

    # ---- inside ----------------------------------------------------------------------------------

    def _add(self, event: ChunkEvent) -> None:
        if self._pending:
            self._events.extend(self._pending)
            self._pending.clear()
        self._events.append(event)
        self._visible = True

    def _emit(self, chunks: list[AIMessageChunk]) -> None:
        """One chunk of the events of the frame, if it carries something for the message."""
        events = self._events
        if not events:
            return
        self._events = []
        if not self._visible:
            self._pending.extend(events)
            return
        self._visible = False
        if self._untidy:
            events = [_storable_event(event) for event in events]
        first = events[0]
        if len(events) == 1 and isinstance(first, TextDelta):
            chunks.append(TextChunk("", first.text, first.index))
        else:
            chunks.append(fold_events(events))

    def _flush(self) -> list[AIMessageChunk]:
        self._events.extend(self._pending)
        self._pending.clear()
        events, self._events = self._events, []
        self._visible = False
        if self._untidy:
            events = [_storable_event(event) for event in events]
        return [fold_events(events)] if events else []

    def _number(self, kind: str, key: Any, *, quiet: bool = False) -> int:
        """The number of the block (kind, key); it opens if it is new."""
        place = (kind, key)
        number = self._open.get(place)
        if number is None:
            number = self._open[place] = self._blocks
            self._blocks += 1
            if not quiet:
                self._pending.append(BlockStart(kind, number))
        self._current = place
        return number

    def _open_call(
        self,
        book: CallBook,
        kind: str,
        id: str | None,
        index: Any,
        name: str | None,
        extras: dict[str, Any] | None,
    ) -> Call:
        call = book.open(self._blocks)
        self._blocks += 1
        call.take(id, index, name, "")
        book.note(call)
        self._open[kind, ("call", call.number)] = call.number
        data = {"extras": extras} if extras else {}
        made = id or self._made_up_id(kind, call.number)
        self._add(BlockStart(kind, call.number, id=made, name=name or None, data=data))
        return call

    def _made_up_id(self, kind: str, number: int) -> str:
        """An id for a call that came without one: unique, the same however the bytes were cut."""
        seed = join_text([self._id or self._seed])
        prefix = "call" if kind == "tool_call" else "srv"
        return f"{prefix}_{uuid.uuid5(uuid.NAMESPACE_OID, f'{seed}/{number}').hex[:24]}"

    def _count_args(self, call: Call, args: str) -> None:
        new = len(args) if args.isascii() else len(args.encode())
        size = self._arg_sizes.get(call.number, 0) + new
        self._arg_sizes[call.number] = size
        if size > self.limits.tool_args_bytes:
            self.fail(
                SizeLimitError(
                    "the arguments of a tool call are larger than Limits.tool_args_bytes "
                    f"({self.limits.tool_args_bytes} bytes)"
                )
            )

    def _whole_pairs(self, text: str, kind: str, number: int) -> str:
        """`text` with surrogate halves joined; a first half at its end waits for the second."""
        if not self._half and text.isascii():
            return text
        text = self._half.pop((kind, number), "") + text
        if text and _HIGH[0] <= text[-1] <= _HIGH[1]:
            self._half[kind, number] = text[-1]
            text = text[:-1]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def _drop_half(self, kind: str, number: int) -> None:
        """A first half whose second never came is shown as what it is: unreadable."""
        if self._half.pop((kind, number), None) is None:
            return
        if kind == "text":
            self._pending.append(TextDelta("\ufffd", number))
        elif kind == "reasoning":
            self._pending.append(ReasoningDelta("\ufffd", number))

    def _payload(self, data: bytes) -> Any:
        """Parsed JSON, or None with `error` set."""
        depth = self.limits.json_depth
        try:
            if data.count(b"{") + data.count(b"[") > depth:
                text = data.decode("utf-8")
                if nesting(text, depth) > depth:
                    self.fail(
                        SizeLimitError(f"JSON nested deeper than Limits.json_depth ({depth})")
                    )
                    return None
            return _loads(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return self._unusual(data, error)

    def _unusual(self, data: bytes, error: Exception) -> Any:
        """JSON that msgspec rejects: half surrogates, NaN, raw control characters."""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as bad:
            self.fail(StreamProtocolError(f"the answer is not UTF-8: {bad}"))
            return None
        self._untidy = True
        try:
            return json.loads(text, strict=False)
        except (ValueError, RecursionError):
            self.fail(StreamProtocolError(f"the answer is not JSON ({error}): {_excerpt(data)}"))
            return None

    def _tidy(self, value: Any) -> Any:
        """`value` as it can be kept, for what does not travel in an event (events are tidied)."""
        return _storable(value) if self._untidy else value

    def provider_failure(self, error: Any, status: int = 200, **fields: Any) -> ProviderError:
        """The error that the payload of an in-band error stands for."""
        message, type, code = error_fields(self._tidy(error))
        return provider_error(
            message,
            status=status,
            type=type,
            code=code,
            answered=self._blocks > 0,
            provider=self.model_provider or None,
            retry_after=status_pause(error),
            **fields,
        )


def _storable_event(event: ChunkEvent) -> ChunkEvent:
    fields = {name: _storable(getattr(event, name)) for name in event.__struct_fields__}
    return msgspec.structs.replace(event, **fields)


def _storable(value: Any) -> Any:
    """`value` without half surrogates, NaN and infinities, in keys and values of any depth."""
    if isinstance(value, str):
        return join_text([value])
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    return [_storable(inner) for inner in value] if isinstance(value, list) else value


def error_fields(error: Any) -> tuple[str, str | None, str | None]:
    """Message, type and code of what vendors put under `error`: an object, a string, anything."""
    if isinstance(error, dict):
        names = ("message", "Message", "detail", "error")  # AWS writes it large now and then
        message = next((error[name] for name in names if error.get(name)), None)
        if isinstance(message, dict):
            return error_fields(message)
        text = message if isinstance(message, str) and message else _dumps(error)
        type = error.get("type") or text_or_none(error.get("status"))  # Google calls it so
        type = type or str(error.get("__type") or "").rpartition("#")[2]  # and AWS so
        return text, _word(type), status_reason(error) or _word(error.get("code"))
    return (error if isinstance(error, str) else _dumps(error)), None, None


def _word(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _excerpt(data: bytes) -> str:
    text = data[:120].decode("utf-8", "replace")
    return repr(text + ("…" if len(data) > 120 else ""))


def text_or_none(value: Any) -> str | None:
    """`value` if it is a str with something in it."""
    return value if isinstance(value, str) and value else None


def args_text(args: Any) -> str:
    """Tool arguments as JSON text: a few vendors send an object where a string is due."""
    if args is None:
        return ""
    # Not msgspec: it would write null for NaN, and the call would seem to be valid.
    return (
        args if isinstance(args, str) else json.dumps(args, ensure_ascii=False, separators=_TIGHT)
    )
