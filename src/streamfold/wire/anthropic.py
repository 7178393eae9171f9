"""Anthropic Messages, as Anthropic, Vertex AI and Azure answer in it.

Reference: https://docs.anthropic.com/en/api/messages-streaming and the types of the vendor's SDK.
A stream is SSE of named events: `message_start`, then per content block `content_block_start`,
`content_block_delta`s and `content_block_stop`, then `message_delta` with the stop reason and
`message_stop`. A body that is not streamed holds the same blocks whole.

What becomes of the blocks: `thinking` is a reasoning block with its signature in `extras`;
`redacted_thinking` is one without text and with ``extras["redacted_data"]``; `tool_use` is a tool
call; `server_tool_use` and `mcp_tool_use` are server tool calls and every `*_tool_result` a server
tool result, with the native type in ``extras["block_type"]``; anything else is `non_standard`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..errors import StreamProtocolError
from ..usage import UsageMetadata, make_usage, token_count
from .anthropic_request import BODY_FIELDS, URL_BLOCKS, encode
from .codec import Decoder as BaseDecoder
from .codec import args_text, text_or_none
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "anthropic"

#: Stop reasons, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
}


class Decoder(BaseDecoder):
    """The state of one Messages answer."""

    provider: ClassVar[str] = "anthropic"
    text_path = ("delta", "text")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kinds: dict[Any, str] = {}  # wire index of a block -> kind, while it is open
        self._inputs: dict[Any, Any] = {}  # input that came with the start of a tool call
        self._native: dict[Any, dict[str, Any]] = {}  # blocks that only Anthropic knows
        self._usage: dict[str, Any] = {}

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        super()._frame(frame, chunks)
        if self.done:
            chunks.extend(self.close())

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            return
        kind = payload.get("type", event)
        handler = _EVENTS.get(kind)
        if handler is not None:
            handler(self, payload)
        else:
            self.metadata({"unknown_events": [payload]}, visible=False)

    def _whole(self, payload: dict[str, Any]) -> None:
        if payload.get("type") == "error" or "error" in payload:
            self._error(payload)
            return
        self._message(payload)
        self._end(payload)
        if not self.finished and "content" in payload:
            self.finish(None)

    # ---- events ----------------------------------------------------------------------------------

    def _message_start(self, payload: dict[str, Any]) -> None:
        message = payload.get("message")
        if isinstance(message, dict):
            self._message(message)
            self._count(message.get("usage"), visible=False)

    def _message(self, message: dict[str, Any]) -> None:
        self.start(text_or_none(message.get("id")), text_or_none(message.get("model")))
        self._started = True
        rest = {k: v for k, v in message.items() if k not in _READ_FIELDS and v is not None}
        if rest:
            self.metadata(rest, visible=False)
        for index, block in enumerate(message.get("content") or ()):
            if isinstance(block, dict):
                self._block(index, block)
                self._stop(index)

    def _block_start(self, payload: dict[str, Any]) -> None:
        block = payload.get("content_block")
        if not self._started:
            self.fail(StreamProtocolError("a content block came before message_start"))
        elif isinstance(block, dict):
            self._block(payload.get("index"), block)

    def _block_delta(self, payload: dict[str, Any]) -> None:
        index, delta = payload.get("index"), payload.get("delta")
        if index not in self._kinds:
            self.fail(
                StreamProtocolError(f"a delta for content block {index!r}, which is not open")
            )
        elif isinstance(delta, dict):
            reader = _DELTAS.get(delta.get("type", ""), Decoder._unknown_delta)
            reader(self, index, delta)

    def _block_stop(self, payload: dict[str, Any]) -> None:
        self._stop(payload.get("index"))

    def _message_delta(self, payload: dict[str, Any]) -> None:
        rest = {
            k: v
            for k, v in payload.items()
            if k not in ("type", "delta", "usage") and v is not None
        }
        if rest:
            self.metadata(rest)
        delta = payload.get("delta")
        self._end({**(delta if isinstance(delta, dict) else {}), "usage": payload.get("usage")})

    def _message_stop(self, payload: dict[str, Any]) -> None:
        self.done = True

    def _ping(self, payload: dict[str, Any]) -> None:
        """Keeps the connection warm; says nothing."""

    def _error(self, payload: dict[str, Any]) -> None:
        self.fail(
            self.provider_failure(
                payload.get("error", payload), request_id=text_or_none(payload.get("request_id"))
            )
        )

    def _end(self, fields: dict[str, Any]) -> None:
        """Stop reason, usage and what else comes at the end."""
        self._count(fields.get("usage"))
        end = {
            k: v for k, v in fields.items() if k not in _READ_FIELDS - _END_FIELDS and v is not None
        }
        reason = end.get("stop_reason")
        if reason:
            self._complete_calls()
            self.finish(FINISH_REASONS.get(reason, reason), end)
        elif end:
            self.metadata(end)

    def _count(self, usage: Any, *, visible: bool = True) -> None:
        """Running totals: the figures of the end replace those of the start, field by field."""
        if isinstance(usage, dict):
            self._usage.update({k: v for k, v in usage.items() if v is not None})
            self.usage(read_usage(self._usage), visible=visible)
            self.metadata({"usage": dict(self._usage)}, visible=visible)

    def _finish_up(self) -> None:
        if not self.finished:
            self._complete_calls()
            self.finish(None)

    # ---- blocks ----------------------------------------------------------------------------------

    def _block(self, index: Any, block: dict[str, Any]) -> None:
        kind = block.get("type", "")
        reader = _BLOCKS.get(kind)
        if reader is None:
            reader = Decoder._tool_result if kind.endswith("tool_result") else Decoder._other
        reader(self, index, block)

    def _text_block(self, index: Any, block: dict[str, Any]) -> None:
        self._kinds[index] = "text"
        self._number("text", index)
        if block.get("text"):
            self.text(block["text"], index)
        for citation in block.get("citations") or ():
            self.annotate(_citation(citation), index)

    def _thinking_block(self, index: Any, block: dict[str, Any]) -> None:
        self._kinds[index] = "reasoning"
        self._number("reasoning", index)
        if block.get("thinking"):
            self.reasoning(block["thinking"], index)
        if block.get("signature"):
            self.block_data("reasoning", {"signature": block["signature"]}, index)

    def _redacted_block(self, index: Any, block: dict[str, Any]) -> None:
        self._kinds[index] = "reasoning"
        self.block("reasoning", {"extras": {"redacted_data": block.get("data")}}, key=index)

    def _tool_use(self, index: Any, block: dict[str, Any]) -> None:
        self._call(index, block, "tool_call", {})

    def _server_tool_use(self, index: Any, block: dict[str, Any]) -> None:
        self._call(index, block, "server_tool_call", {"block_type": block["type"]})

    def _call(self, index: Any, block: dict[str, Any], kind: str, extras: dict[str, Any]) -> None:
        self._kinds[index] = kind
        self._inputs[index] = block.get("input")
        extras = {**extras, **_others(block, "type", "id", "name", "input")}
        self.tool_call(
            index=index,
            id=text_or_none(block.get("id")),
            name=text_or_none(block.get("name")),
            kind=kind,
            extras=extras or None,
        )

    def _tool_result(self, index: Any, block: dict[str, Any]) -> None:
        self._kinds[index] = "server_tool_result"
        content = block.get("content")
        failed = block.get("is_error") or (
            isinstance(content, dict) and str(content.get("type", "")).endswith("_error")
        )
        data = {
            "tool_call_id": block.get("tool_use_id"),
            "status": "error" if failed else "success",
            "output": content,
            "extras": {
                "block_type": block["type"],
                **_others(block, "type", "tool_use_id", "content"),
            },
        }
        self.block("server_tool_result", data, key=index)

    def _other(self, index: Any, block: dict[str, Any]) -> None:
        self._kinds[index] = "non_standard"
        self._native[index] = dict(block)
        self.block("non_standard", {"value": self._native[index]}, key=index)

    def _stop(self, index: Any) -> None:
        kind = self._kinds.pop(index, None)
        if kind is None:
            return
        self._complete_call(index, kind)
        self.end_block(kind, index)

    def _complete_call(self, index: Any, kind: str) -> None:
        """The input came whole with the start of the block, if no piece of it followed."""
        given = self._inputs.pop(index, None)
        if given:
            self.tool_call(index=index, args=args_text(given), kind=kind)

    def _complete_calls(self) -> None:
        """The answer ends, and there are blocks that were not closed."""
        for index in list(self._inputs):
            self._complete_call(index, self._kinds[index])

    # ---- deltas ----------------------------------------------------------------------------------

    def _text_delta(self, index: Any, delta: dict[str, Any]) -> None:
        self.text(delta.get("text") or "", index)

    def _thinking_delta(self, index: Any, delta: dict[str, Any]) -> None:
        self.reasoning(delta.get("thinking") or "", index)

    def _signature_delta(self, index: Any, delta: dict[str, Any]) -> None:
        self.block_data("reasoning", {"signature": delta.get("signature")}, index)

    def _input_delta(self, index: Any, delta: dict[str, Any]) -> None:
        piece = delta.get("partial_json") or ""
        kind = self._kinds[index]
        if piece and kind in ("tool_call", "server_tool_call"):
            self._inputs.pop(index, None)
            self.tool_call(index=index, args=piece, kind=kind)

    def _citations_delta(self, index: Any, delta: dict[str, Any]) -> None:
        citation = delta.get("citation")
        if isinstance(citation, dict):
            self.annotate(_citation(citation), index)

    def _unknown_delta(self, index: Any, delta: dict[str, Any]) -> None:
        """A delta nobody knows yet: kept with its block."""
        kind = self._kinds[index]
        fields = {k: v for k, v in delta.items() if k != "type"}
        if kind == "non_standard":
            self._native[index] = {**self._native[index], **fields}
            self.block(kind, {"value": self._native[index]}, key=index)
        elif kind not in ("tool_call", "server_tool_call"):
            self.block_data(kind, {str(delta.get("type")): fields}, index)


_READ_FIELDS: Final = frozenset(
    {
        "id",
        "model",
        "type",
        "role",
        "content",
        "usage",
        "stop_reason",
        "stop_sequence",
        "stop_details",
    }
)
_END_FIELDS: Final = frozenset({"stop_reason", "stop_sequence", "stop_details"})


def _others(block: dict[str, Any], *read: str) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k not in read and v is not None}


def _citation(native: Any) -> dict[str, Any]:
    """A citation block. The native citation is kept in `extras`, to be sent back as it came."""
    fields = native if isinstance(native, dict) else {}
    citation: dict[str, Any] = {"type": "citation"}
    for name, sources in _CITATION_FIELDS.items():
        value = next((fields[key] for key in sources if fields.get(key) is not None), None)
        if value is not None:
            citation[name] = value
    citation["extras"] = {"native": native}
    return citation


# The indexes of Anthropic's citations count in the cited document, not in the text of the answer,
# so they are not `start_index` and `end_index`; they stay in the native citation.
_CITATION_FIELDS: Final = {
    "url": ("url", "source"),
    "title": ("title", "document_title"),
    "cited_text": ("cited_text",),
}


def read_usage(usage: dict[str, Any]) -> UsageMetadata:
    """Anthropic counts cached input apart from `input_tokens`; here the sum includes it."""
    read = token_count(usage.get("cache_read_input_tokens"))
    created = token_count(usage.get("cache_creation_input_tokens"))
    details = usage.get("output_tokens_details")
    details = details if isinstance(details, dict) else {}
    into = (token_count(usage.get("input_tokens")) or 0) + (read or 0) + (created or 0)
    return make_usage(
        into,
        usage.get("output_tokens"),
        input_details={"cache_read": read, "cache_creation": created, **_for_an_hour(usage)},
        output_details={"reasoning": details.get("thinking_tokens")},
    )


def _for_an_hour(usage: dict[str, Any]) -> dict[str, int]:
    """How much of what went into the cache stays there for an hour: it has a price of its own."""
    lives = usage.get("cache_creation")
    hour = token_count(lives.get("ephemeral_1h_input_tokens")) if isinstance(lives, dict) else None
    return {"ephemeral_1h_input_tokens": hour} if hour else {}


_EVENTS: Final[dict[Any, Any]] = {
    "message_start": Decoder._message_start,
    "content_block_start": Decoder._block_start,
    "content_block_delta": Decoder._block_delta,
    "content_block_stop": Decoder._block_stop,
    "message_delta": Decoder._message_delta,
    "message_stop": Decoder._message_stop,
    "ping": Decoder._ping,
    "error": Decoder._error,
}

_BLOCKS: Final[dict[str, Any]] = {
    "text": Decoder._text_block,
    "thinking": Decoder._thinking_block,
    "redacted_thinking": Decoder._redacted_block,
    "tool_use": Decoder._tool_use,
    "server_tool_use": Decoder._server_tool_use,
    "mcp_tool_use": Decoder._server_tool_use,
}

_DELTAS: Final[dict[str, Any]] = {
    "text_delta": Decoder._text_delta,
    "thinking_delta": Decoder._thinking_delta,
    "signature_delta": Decoder._signature_delta,
    "input_json_delta": Decoder._input_delta,
    "citations_delta": Decoder._citations_delta,
}
