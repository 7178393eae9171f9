"""Cohere's chat API, version 2.

Reference: https://docs.cohere.com/v2/docs/streaming and the types of the vendor's SDK. A stream is
SSE of named events: `message-start`, then per content block `content-start`, `content-delta`s and
`content-end`, per call `tool-call-start`, `-delta`s and `-end`, citations anywhere, and at last
`message-end` with finish reason and usage; an error is a `message-end` that says so. A body that is
not streamed holds the same message whole.

What becomes of it: `text` is text and `thinking` reasoning; a citation of a text is an annotation,
its indexes counting in that text and its sources in `extras`; any other citation is kept in
``response_metadata["citations"]``. `tool_plan`, what the model says about the calls it is going to
make, is no content, and to the vendor's SDK no thinking either: it is
``response_metadata["tool_plan"]``, which grows while it arrives.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..deltas import Annotation, join_text
from ..usage import UsageMetadata, make_usage
from .codec import Decoder as BaseDecoder
from .codec import args_text, text_or_none
from .cohere_request import BODY_FIELDS, URL_BLOCKS, encode
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "cohere"

#: Finish reasons, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_LIMIT": "length",  # the context is full
    "ERROR_TOXIC": "content_filter",
    "USER_CANCEL": "cancelled",
}
#: These say that the generation failed: what came before it is no answer.
_FAILURES: Final = frozenset({"ERROR", "TIMEOUT"})

_READ_FIELDS: Final = frozenset({"id", "message", "finish_reason", "usage", "logprobs", "error"})
_READ_MESSAGE_FIELDS: Final = frozenset({"role", "content", "citations", "tool_plan", "tool_calls"})
#: The key of a content block's text, and the kind of block that it is.
_CONTENT_KINDS: Final = {"text": "text", "thinking": "reasoning"}
_SMALL_PLAN: Final = 2048  # characters: nearly all plans are a sentence


class Decoder(BaseDecoder):
    """The state of one chat answer."""

    provider: ClassVar[str] = "cohere"
    text_path = ("delta", "message", "content", "text")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._contents: dict[Any, tuple[str, int]] = {}  # wire index -> kind and number of a block
        self._native: dict[Any, dict[str, Any]] = {}  # blocks of unknown types
        self._citations: list[dict[str, Any]] = []  # those that are on no text
        self._plan: list[str] = []
        self._planned = 0  # characters of it that have come, and that have been told
        self._told = 0

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        if frame.data.strip() == b"[DONE]":
            self.done = True
        else:
            super()._frame(frame, chunks)
        if self.done:
            chunks.extend(self.close())

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            return  # null, a number, a list: it says nothing
        kind = payload.get("type", event)
        if kind != "tool-plan-delta" and self._planned > self._told:
            self._tell_plan(visible=False)
        handler = _EVENTS.get(kind) if isinstance(kind, str) else None
        if handler is not None:
            handler(self, payload)
        elif isinstance(payload.get("message"), str) or payload.get("error"):
            self.fail(self.provider_failure(payload.get("error") or payload))
        else:
            self.metadata({"unknown_events": [payload]}, visible=False)

    def _whole(self, payload: dict[str, Any]) -> None:
        message = payload.get("message")
        if isinstance(message, dict):
            self.start(text_or_none(payload.get("id")), text_or_none(payload.get("model")))
            rest = _others(payload, *_READ_FIELDS)
            if rest:
                self.metadata(rest)
            self._message(message)
            for item in _items(payload.get("logprobs")):
                self._logprobs(item)
            self._end(payload)
        elif message or payload.get("error"):
            self.fail(self.provider_failure(payload.get("error") or payload))

    # ---- events ----------------------------------------------------------------------------------

    def _message_start(self, payload: dict[str, Any]) -> None:
        self.start(text_or_none(payload.get("id")), text_or_none(payload.get("model")))
        self._message(_delta_message(payload))

    def _content_start(self, payload: dict[str, Any]) -> None:
        content = _delta_message(payload).get("content")
        if isinstance(content, dict):
            self._content(payload.get("index"), content)

    def _content_delta(self, payload: dict[str, Any]) -> None:
        self._content_start(payload)
        if payload.get("logprobs"):
            self._logprobs(payload["logprobs"])

    def _content_end(self, payload: dict[str, Any]) -> None:
        """Not the end of a text: citations may follow."""
        self.end_block("reasoning", payload.get("index"))

    def _citation_start(self, payload: dict[str, Any]) -> None:
        for citation in _items(_delta_message(payload).get("citations")):
            self._citation(citation)

    def _tool_plan_delta(self, payload: dict[str, Any]) -> None:
        self._take_plan(_delta_message(payload).get("tool_plan"))

    def _tool_call(self, payload: dict[str, Any]) -> None:
        for call in _items(_delta_message(payload).get("tool_calls")):
            self._tool_piece(payload.get("index"), call)

    def _message_end(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        fields = delta if isinstance(delta, dict) else {}
        rest = _others(fields, *_READ_FIELDS)
        if rest:
            self.metadata(rest)
        self._end(fields)
        self.done = self.error is None

    def _debug(self, payload: dict[str, Any]) -> None:
        """What the model was really asked, for those who may see it."""
        self.metadata(_others(payload, "type"), visible=False)

    def _says_nothing(self, payload: dict[str, Any]) -> None:
        """The end of a citation or of a call: all of it has been said."""

    # ---- the message -----------------------------------------------------------------------------

    def _message(self, message: dict[str, Any]) -> None:
        rest = _others(message, *_READ_MESSAGE_FIELDS)
        if rest:
            self.metadata(rest, visible=False)
        self._take_plan(message.get("tool_plan"))
        for index, content in enumerate(_items(message.get("content"))):
            self._content(index, {"text": content} if isinstance(content, str) else content)
        for citation in _items(message.get("citations")):
            self._citation(citation)
        for place, call in enumerate(_items(message.get("tool_calls"))):
            self._tool_piece(place, call)

    def _content(self, index: Any, content: dict[str, Any]) -> None:
        """A content block, or a piece of one: `type` comes with the first, the key with each."""
        pieces = {key: content[key] for key in _CONTENT_KINDS if text_or_none(content.get(key))}
        first = next(iter(pieces), content.get("type"))
        kind = _CONTENT_KINDS.get(first) if isinstance(first, str) else None
        known, _ = self._contents.get(index, (None, 0))
        rest = _others(content, "type", *_CONTENT_KINDS)
        if kind is None and known in (None, "non_standard"):
            self._native_content(index, content)
            return
        if kind is not None and kind != known:
            self._contents[index] = kind, self._number(kind, index)
        for key, piece in pieces.items():
            (self.text if key == "text" else self.reasoning)(piece, index)
        if rest:
            self.block_data(self._contents[index][0], rest, index)

    def _native_content(self, index: Any, content: dict[str, Any]) -> None:
        """A block, or a piece of one, of a type that nobody knows yet."""
        value = self._native[index] = {**self._native.get(index, {}), **content}
        number = self.block("non_standard", {"value": value}, key=index)
        self._contents[index] = "non_standard", number

    def _citation(self, citation: Any) -> None:
        """A citation of a text block, which may have ended, or of something else."""
        if not isinstance(citation, dict):
            return
        number = self._cited(citation)
        if number is not None:
            self._add(Annotation(_annotation(citation), number))
        else:
            self._citations.append(citation)
            self.metadata({"citations": list(self._citations)})

    def _cited(self, citation: dict[str, Any]) -> int | None:
        """The number of the text block that is cited; old models have but one and do not say."""
        if citation.get("type") not in (None, "TEXT_CONTENT"):
            return None
        texts = {key: number for key, (kind, number) in self._contents.items() if kind == "text"}
        index = citation.get("content_index")
        return texts.get(index) if index is not None else next(iter(texts.values()), None)

    def _tool_piece(self, index: Any, call: Any) -> None:
        if not isinstance(call, dict):
            return
        given = call.get("function")
        function = given if isinstance(given, dict) else {}
        extras = _others(call, "id", "function")
        if extras.get("type") == "function":
            del extras["type"]
        self.tool_call(
            index=index if isinstance(index, int | str) else None,
            id=text_or_none(call.get("id")),
            name=text_or_none(function.get("name")),
            args=args_text(function.get("arguments")),
            extras=extras or None,
        )

    def _take_plan(self, piece: Any) -> None:
        if not isinstance(piece, str) or not piece:
            return
        self._plan.append(piece)
        self._planned += len(piece)
        # A long one is not told anew with each piece: that would be quadratic.
        if self._planned < _SMALL_PLAN or self._planned > 1.25 * self._told:
            self._tell_plan()

    def _tell_plan(self, *, visible: bool = True) -> None:
        plan = join_text(self._plan)
        self._told = self._planned
        self.metadata({"tool_plan": plan}, visible=visible)

    def _logprobs(self, item: Any) -> None:
        self.metadata({"logprobs": {"content": [item]}})

    # ---- the end ---------------------------------------------------------------------------------

    def _end(self, fields: dict[str, Any]) -> None:
        """Usage and finish reason, or what went wrong."""
        usage = fields.get("usage")
        if isinstance(usage, dict) and usage:
            self.usage(read_usage(usage))
            self.metadata({"usage": usage})
        reason, error = text_or_none(fields.get("finish_reason")), fields.get("error")
        if error or reason in _FAILURES:
            message = error if error else f"the generation failed ({reason})"
            if isinstance(message, str):
                message = {"message": message, "type": reason}
            self.fail(self.provider_failure(message))
            return
        said = {} if reason is None else {"finish_reason": reason}
        self.finish(FINISH_REASONS.get(reason, reason) if reason else None, said)

    def _finish_up(self) -> None:
        if self._planned > self._told:
            self._tell_plan()
        if not self.finished:
            self.finish(None)


def _others(fields: dict[str, Any], *read: str) -> dict[str, Any]:
    return {k: v for k, v in fields.items() if k not in read and v is not None}


def _items(value: Any) -> list[Any]:
    """A list as it is; what is alone, or a str, as a list of one; nothing as an empty one."""
    if isinstance(value, list):
        return value
    return [] if value in (None, "", {}) else [value]


def _delta_message(payload: dict[str, Any]) -> dict[str, Any]:
    delta = payload.get("delta")
    message = delta.get("message") if isinstance(delta, dict) else None
    return message if isinstance(message, dict) else {}


def _annotation(citation: dict[str, Any]) -> dict[str, Any]:
    """A citation block; what it has no key for is in `extras`, and goes back from there."""
    note: dict[str, Any] = {"type": "citation"}
    for name, ours in _CITATION_FIELDS.items():
        if citation.get(name) is not None:
            note[ours] = citation[name]
    for name in ("title", "url"):
        found = next((s[name] for s in _cited_documents(citation) if s.get(name)), None)
        if isinstance(found, str):
            note[name] = found
    extras = _others(citation, *_CITATION_FIELDS)
    return {**note, "extras": extras} if extras else note


_CITATION_FIELDS: Final = {"start": "start_index", "end": "end_index", "text": "cited_text"}


def _cited_documents(citation: dict[str, Any]) -> list[dict[str, Any]]:
    """What the sources of a citation hold: documents, and outputs of tools."""
    sources = [source for source in _items(citation.get("sources")) if isinstance(source, dict)]
    held = [source.get("document") or source.get("tool_output") for source in sources]
    return [each for each in held if isinstance(each, dict)]


def read_usage(usage: dict[str, Any]) -> UsageMetadata:
    """Cohere's usage: `tokens` is what the model read and wrote, `billed_units` what is paid for,
    which leaves the vendor's own prompt out. Figures may be floats."""
    tokens = usage.get("tokens") or usage.get("billed_units")
    figures = tokens if isinstance(tokens, dict) else {}
    return make_usage(
        _count(figures.get("input_tokens")),
        _count(figures.get("output_tokens")),
        input_details={"cache_read": _count(usage.get("cached_tokens"))},
        output_details={"reasoning": _count(figures.get("reasoning_tokens"))},
    )


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and value == value else None


_EVENTS: Final[dict[str, Any]] = {
    "message-start": Decoder._message_start,
    "content-start": Decoder._content_start,
    "content-delta": Decoder._content_delta,
    "content-end": Decoder._content_end,
    "citation-start": Decoder._citation_start,
    "citation-end": Decoder._says_nothing,
    "tool-plan-delta": Decoder._tool_plan_delta,
    "tool-call-start": Decoder._tool_call,
    "tool-call-delta": Decoder._tool_call,
    "tool-call-end": Decoder._says_nothing,
    "message-end": Decoder._message_end,
    "debug": Decoder._debug,
}
