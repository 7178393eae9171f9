"""Amazon Bedrock Converse, as all models on Bedrock answer in it.

Reference: the API reference of `ConverseStream` at docs.aws.amazon.com/bedrock and the service
model in botocore. A stream is an AWS event stream: `messageStart`, then per content block
`contentBlockStart` (tools and images only), `contentBlockDelta`s and `contentBlockStop`, then
`messageStop` with the stop reason and `metadata` with the usage. A body that is not streamed holds
the same blocks whole. A block is a dict with one key, which says what it is.

What becomes of the blocks: `reasoningContent` is a reasoning block with its signature, or its
`redacted_content`, in `extras`; `toolUse` is a tool call, or a server tool call where its type says
so; `toolResult`, which only server tools have here, a server tool result; `citationsContent` a text
block with annotations, as which it is streamed anyway; `image`, `audio` and `video` are what they
are called; anything else is `non_standard`.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..deltas import join_text
from ..errors import ContentFilterError, ProviderError, provider_error
from .bedrock_media import MIME_TYPES
from .bedrock_pieces import (
    Result,
    at,
    dicts,
    is_count,
    joined_base64,
    others,
    read_citation,
    read_usage,
    texts,
)
from .bedrock_request import BODY_FIELDS, URL_BLOCKS, encode
from .codec import Decoder as BaseDecoder
from .codec import args_text, error_fields, text_or_none
from .eventstream import EventStreamFramer
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "bedrock"

#: Stop reasons, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
    "pause_turn": "pause",
    "refusal": "refusal",
}

#: The HTTP status that an exception inside a stream has where it comes before one.
EXCEPTIONS: Final = {
    "accessdeniedexception": 403,
    "internalserverexception": 500,
    "modelerrorexception": 500,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": 500,  # 424, and "retry your request", says the reference
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "validationexception": 400,
}


class Decoder(BaseDecoder):
    """The state of one Converse answer."""

    provider: ClassVar[str] = "bedrock"
    framer_type: ClassVar[type[Any]] = EventStreamFramer
    stream_types: ClassVar[tuple[str, ...]] = ("vnd.amazon.eventstream",)
    text_path = ("delta", "text")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kinds: dict[Any, str] = {}  # index of a block -> kind, while it is open
        self._sealed: dict[tuple[Any, str], list[str]] = {}  # signatures and encrypted reasoning
        self._results: dict[Any, Result] = {}  # server tool results
        self._odd_bytes: dict[Any, bytes] = {}  # of media, what does not fill three bytes
        self._counted = False
        self._thinking_tokens: Any = None

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        kind, colon, name = (frame.event or "").partition(":")
        if colon and kind in ("exception", "error"):
            self.fail(self._exception(name, _read_json(frame.data)))
            return
        super()._frame(frame, chunks)
        if self.done:
            chunks.extend(self.close())

    def _event(self, event: str | None, payload: Any) -> None:
        handler = _EVENTS.get(event)
        if handler is not None and isinstance(payload, dict):
            handler(self, payload)
        else:
            self._unknown(event, payload)

    def _whole(self, payload: dict[str, Any]) -> None:
        output = payload.get("output")
        message = output.get("message") if isinstance(output, dict) else None
        if not isinstance(message, dict):
            if "__type" in payload or "message" in payload:
                name = str(payload.get("__type") or "").rpartition("#")[2]
                self.fail(self._exception(name, payload))
            return
        self.start(None, None)
        for index, block in enumerate(dicts(message.get("content"))):
            self._block(index, block)
            self._stop(index)
        self._ending(payload)
        if self.error is None:
            self._figures(payload)

    # ---- events ----------------------------------------------------------------------------------

    def _message_start(self, payload: dict[str, Any]) -> None:
        self.start(None, None)
        self._rest(payload, visible=False)

    def _block_start(self, payload: dict[str, Any]) -> None:
        self._by_key(payload, "start", _STARTS)

    def _block_delta(self, payload: dict[str, Any]) -> None:
        self._by_key(payload, "delta", _DELTAS)

    def _by_key(self, payload: dict[str, Any], part: str, readers: dict[str, Any]) -> None:
        """Starts and deltas are dicts with one key, which says what the value is."""
        fields = payload.get(part)
        for key, value in fields.items() if isinstance(fields, dict) else ():
            takes, reader = readers.get(key, _NO_READER)
            if isinstance(value, takes):
                reader(self, _index(payload), value)
            elif value is not None:
                self._unknown(f"contentBlock{part.title()}", payload)

    def _block_stop(self, payload: dict[str, Any]) -> None:
        self._stop(_index(payload))

    def _message_stop(self, payload: dict[str, Any]) -> None:
        self._ending(payload)
        self.done = self._counted

    def _metadata(self, payload: dict[str, Any]) -> None:
        self._figures(payload)
        self._counted = True
        self.done = self.finished  # it is the last event

    def _unknown(self, event: str | None, payload: Any) -> None:
        self.metadata({"unknown_events": [{str(event): payload}]}, visible=False)

    def _exception(self, name: str, payload: Any) -> ProviderError:
        """The error that an exception event stands for."""
        text, _, code = error_fields(payload or name)
        status = EXCEPTIONS.get(name.lower(), 500)
        original = at(payload, "originalStatusCode")
        if status == 500 and is_count(original) and 400 <= original < 600:
            status = original  # what the model's own server said
        error = provider_error(
            join_text([text]),
            status=status,
            type=name or None,
            code=code,
            provider=self.model_provider or None,
        )
        error.status = 200  # it came inside a stream
        return error

    def _ending(self, payload: dict[str, Any]) -> None:
        """The stop reason, and what the model says besides its answer."""
        for index in list(self._kinds):
            self._stop(index)
        extra = payload.get("additionalModelResponseFields")
        self._thinking_tokens = _thinking_tokens(extra)
        reason = text_or_none(payload.get("stopReason"))
        meant = FINISH_REASONS.get(reason, reason) if reason else None
        if meant == "content_filter" and not self._blocks:
            self._blocked(str(reason))
            return
        fields = {"stop_reason": reason, "additionalModelResponseFields": extra}
        self.finish(meant, {k: v for k, v in fields.items() if v is not None})

    def _blocked(self, reason: str) -> None:
        self._pending.clear()  # it is not even an answer that has begun
        text = f"the prompt was blocked and there is no answer ({reason})"
        provider = self.model_provider or None
        self.fail(ContentFilterError(text, status=200, type=reason, provider=provider))

    def _figures(self, payload: dict[str, Any]) -> None:
        """Usage, and the notes of the service: metrics, trace, latency, tier."""
        usage = payload.get("usage")
        if isinstance(usage, dict):
            self.usage(read_usage(usage, self._thinking_tokens))
            self.metadata({"usage": usage})
        tier = payload.get("serviceTier")
        if isinstance(tier, dict) and "type" in tier:
            self.metadata({"service_tier": tier["type"]})
        routed = at(payload, "trace", "promptRouter", "invokedModelId")
        if routed:  # the only place where Converse says which model answered
            self.metadata({"model_name": routed})
        self._rest(payload)

    def _rest(self, payload: dict[str, Any], *, visible: bool = True) -> None:
        rest = {k: v for k, v in payload.items() if k not in _READ_FIELDS and v is not None}
        if rest:
            self.metadata(rest, visible=visible)

    def _finish_up(self) -> None:
        if not self.finished:
            self.finish(None)

    # ---- blocks ----------------------------------------------------------------------------------

    def _block(self, index: Any, block: dict[str, Any]) -> None:
        for key, value in block.items():
            takes, reader = _BLOCKS.get(key, _NO_READER)
            if isinstance(value, takes):
                reader(self, index, value)
            elif value is not None:
                self.block("non_standard", {"value": {key: value}}, key=index)
                self._kinds[index] = "non_standard"

    def _text(self, index: Any, text: str) -> None:
        self._kinds[index] = "text"
        self.text(text, index)

    def _cited_text(self, index: Any, cited: dict[str, Any]) -> None:
        self._text(index, texts(cited.get("content")))
        for citation in dicts(cited.get("citations")):
            self._citation(index, citation)

    def _citation(self, index: Any, citation: dict[str, Any]) -> None:
        self._kinds[index] = "text"
        self.annotate(read_citation(citation), index)

    def _reasoning(self, index: Any, reasoning: dict[str, Any]) -> None:
        """A whole block has its text under `reasoningText`, a delta has it on its own."""
        self._kinds[index] = "reasoning"
        inner = reasoning.get("reasoningText")
        for key, value in {**reasoning, **(inner if isinstance(inner, dict) else {})}.items():
            if key == "text" and isinstance(value, str):
                self.reasoning(value, index)
            elif key in _SEALS and isinstance(value, str):
                self._seal(index, _SEALS[key], value)
            elif key != "reasoningText" and value is not None:
                self.block_data("reasoning", {key: value}, index)

    def _seal(self, index: Any, name: str, piece: str) -> None:
        """A signature, or encrypted reasoning. It comes in one piece; should there be more, they
        are put together when the block ends."""
        pieces = self._sealed.setdefault((index, name), [])
        pieces.append(piece)
        if len(pieces) > 1:
            return
        if ("reasoning", index) in self._open:
            self.block_data("reasoning", {name: piece}, index)
        else:
            self.block("reasoning", {"extras": {name: piece}}, key=index)

    def _tool_use(self, index: Any, use: dict[str, Any]) -> None:
        kind = "tool_call"
        extras = others(use, "toolUseId", "name", "input", "type")
        if use.get("type") not in (None, "tool_use"):
            kind = "server_tool_call"
            extras["block_type"] = use["type"]
        self._kinds[index] = kind
        given = use.get("input")
        self.tool_call(
            index=index,
            id=text_or_none(use.get("toolUseId")),
            name=text_or_none(use.get("name")),
            args=args_text(given) if given else "",
            kind=kind,
            extras=extras or None,
        )

    def _tool_input(self, index: Any, delta: dict[str, Any]) -> None:
        piece = args_text(delta.get("input"))
        if piece:
            self.tool_call(index=index, args=piece, kind=self._kinds.get(index, "tool_call"))

    def _tool_result(self, index: Any, result: dict[str, Any]) -> None:
        self._kinds[index] = "server_tool_result"
        held = self._results[index] = Result(result)
        if isinstance(result.get("content"), list):
            held.add(result["content"])
            self._show_result(index, held)

    def _result_content(self, index: Any, content: list[Any]) -> None:
        self._kinds[index] = "server_tool_result"
        held = self._results.setdefault(index, Result({}))
        held.add(content)
        if not held.shown:
            self._show_result(index, held)

    def _show_result(self, index: Any, held: Result) -> None:
        self.block("server_tool_result", held.data(), key=index)
        held.shown = True
        held.changed = False

    def _image(self, index: Any, media: dict[str, Any]) -> None:
        self._media("image", index, media)

    def _audio(self, index: Any, media: dict[str, Any]) -> None:
        self._media("audio", index, media)

    def _video(self, index: Any, media: dict[str, Any]) -> None:
        self._media("video", index, media)

    def _media(self, kind: str, index: Any, media: dict[str, Any]) -> None:
        """A block, its start or a delta of it: a format, a source, or both."""
        self._kinds[index] = kind
        source = media.get("source")
        source = source if isinstance(source, dict) else {}
        data: dict[str, Any] = {}
        if media.get("format"):
            name = str(media["format"])
            data["mime_type"] = MIME_TYPES.get((kind, name), f"{kind}/{name}")
        if at(source, "s3Location", "uri"):
            data["url"] = source["s3Location"]["uri"]
        extras = others(media, "format", "source")
        if extras:
            data["extras"] = extras
        if data:
            self.block(kind, data, key=index)
        if isinstance(source.get("bytes"), str):
            self._bytes(kind, index, source["bytes"])

    def _bytes(self, kind: str, index: Any, piece: str) -> None:
        """Base64 whose pieces were encoded one by one: written anew so that they can be joined."""
        try:
            data = self._odd_bytes.pop(index, b"") + base64.b64decode(piece, validate=True)
        except binascii.Error:
            self.data(piece, kind, index)
            return
        whole = len(data) - len(data) % 3
        if whole:
            self.data(base64.b64encode(data[:whole]).decode(), kind, index)
        if data[whole:]:
            self._odd_bytes[index] = data[whole:]

    def _stop(self, index: Any) -> None:
        """The block has ended: what could only be said then."""
        kind = self._kinds.pop(index, None)
        if kind is None:
            return
        odd = self._odd_bytes.pop(index, None)
        if odd:
            self.data(base64.b64encode(odd).decode(), kind, index)
        for name in _SEALS.values():
            pieces = self._sealed.pop((index, name), ())
            if len(pieces) > 1:
                self.block_data("reasoning", {name: _JOINED[name](pieces)}, index)
        held = self._results.pop(index, None)
        if held is not None and held.changed:
            self._show_result(index, held)
        self.end_block(kind, self._place(kind, index))

    def _place(self, kind: str, index: Any) -> Any:
        """Under which key the base keeps an open block."""
        book = self._books.get(kind)
        call = book.find(None, index, None) if book is not None else None
        return index if call is None else ("call", call.number)


_READ_FIELDS: Final = frozenset(
    {"output", "usage", "stopReason", "serviceTier", "additionalModelResponseFields"}
    | {"p", "role"}  # padding against guesses from the length; and always the assistant
)

#: What seals reasoning, as the wire has it, and its name in `extras`.
_SEALS: Final = {"signature": "signature", "redactedContent": "redacted_content"}


def _index(payload: dict[str, Any]) -> int | None:
    index = payload.get("contentBlockIndex")
    return index if isinstance(index, int) else None


_JOINED: Final[dict[str, Any]] = {"signature": "".join, "redacted_content": joined_base64}


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", "replace").strip()


def _thinking_tokens(extra: Any) -> Any:
    """Claude's count, if it was asked for with ``additionalModelResponseFieldPaths=["/usage"]``."""
    return at(extra, "usage", "output_tokens_details", "thinking_tokens")


_EVENTS: Final[dict[str | None, Any]] = {
    "messageStart": Decoder._message_start,
    "contentBlockStart": Decoder._block_start,
    "contentBlockDelta": Decoder._block_delta,
    "contentBlockStop": Decoder._block_stop,
    "messageStop": Decoder._message_stop,
    "metadata": Decoder._metadata,
}

#: What a block, its start or a delta of it is by its key, and how it is read.
_BLOCKS: Final[dict[str, Any]] = {
    "text": (str, Decoder._text),
    "reasoningContent": (dict, Decoder._reasoning),
    "toolUse": (dict, Decoder._tool_use),
    "toolResult": (dict, Decoder._tool_result),
    "citationsContent": (dict, Decoder._cited_text),
    "image": (dict, Decoder._image),
    "audio": (dict, Decoder._audio),
    "video": (dict, Decoder._video),
}

_STARTS: Final[dict[str, Any]] = {
    "toolUse": (dict, Decoder._tool_use),
    "toolResult": (dict, Decoder._tool_result),
    "image": (dict, Decoder._image),
}

_DELTAS: Final[dict[str, Any]] = {
    "text": (str, Decoder._text),
    "reasoningContent": (dict, Decoder._reasoning),
    "toolUse": (dict, Decoder._tool_input),
    "toolResult": (list, Decoder._result_content),
    "citation": (dict, Decoder._citation),
    "image": (dict, Decoder._image),
}

_NO_READER: Final = ((), None)
