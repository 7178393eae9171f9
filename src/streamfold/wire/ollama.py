"""Ollama's chat API, as a local server and ollama.com answer in it.

Reference: https://docs.ollama.com/api/chat and the server's own types (`api/types.go`). A stream is
a JSON object a line, each with a `message` that holds the next piece; the last one says `done`,
with the reason, the counts and the timings. A body that is not streamed is one such object with the
whole message, and both are read by the same code. An error is a line, or a body, with `error`.

What becomes of a message: `content` is text and `thinking` reasoning, one block of each; a tool
call always comes whole, its arguments as an object, and often without an id (then one is made up);
its `index` says only which of the calls it is, and not even that with servers that write 0 for
all, so it is not read; `images` are image blocks. Each line has a `created_at`: that of the last
one counts.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any, ClassVar, Final, Literal

import msgspec

from ..chunks import AIMessageChunk, TextChunk
from ..usage import UsageMetadata, make_usage
from .codec import Decoder as BaseDecoder
from .codec import args_text, text_or_none
from .ndjson import NDJSONFramer, is_json
from .ollama_request import BODY_FIELDS, URL_BLOCKS, encode
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "ollama"

#: Reasons for being done, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "load": "stop",  # an empty request, which only loads the model
    "unload": "stop",
}

#: Figures of the last line: token counts, and durations in nanoseconds.
_USAGE_FIELDS: Final = (
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
)
_END_FIELDS: Final = ("created_at", "done_reason", *_USAGE_FIELDS)
#: Top-level fields that are read by name; any other one joins `response_metadata`.
_READ_FIELDS: Final = frozenset({"model", "message", "done", "logprobs", "error", *_END_FIELDS})
_READ_MESSAGE_FIELDS: Final = frozenset({"role", "content", "thinking", "images", "tool_calls"})


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: Literal["assistant"]
    content: str


class _TextLine(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A line that holds a piece of text and nothing else: of the fields around it the first or the
    last value counts, and both the first and the last line go the complete way."""

    message: _Message
    done: bool
    model: str
    created_at: str


_text_line = msgspec.json.Decoder(_TextLine).decode


class Decoder(BaseDecoder):
    """The state of one chat answer."""

    framer_type: ClassVar[type[Any]] = NDJSONFramer
    text_path = ("message", "content")
    provider: ClassVar[str] = "ollama"
    stream_types: ClassVar[tuple[str, ...]] = ("ndjson", "jsonl")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: dict[str, Any] = {}  # metadata as last reported: what repeats says nothing new
        self._calls = 0
        self._time: Any = None

    def whole(self, body: bytes) -> list[AIMessageChunk]:
        """The chunks of an answer in one body; several lines are a stream that lost its type."""
        first, _, rest = body.strip().partition(b"\n")
        if rest and is_json(first):
            return [*self.feed(body), *self.close()]
        return super().whole(body)

    def _take(self, complete: bytes) -> list[AIMessageChunk]:
        """The chunks of all lines of one read: the short way if they are nothing but text."""
        chunks = self._texts(complete) if complete else None
        return super()._take(complete) if chunks is None else chunks

    def _learn(self, block: bytes, chunk: AIMessageChunk) -> None:
        """No template: no two lines are alike, for each has its time."""

    def _texts(self, complete: bytes) -> list[AIMessageChunk] | None:
        """The short way of this dialect: a typed decoder. A read with anything that it does not
        know, or that must be reported, goes the complete way."""
        index = self._open.get(("text", None)) if self.text_path else None
        if index is None or self._half or self._pending or len(complete) > self.limits.event_bytes:
            return None
        if not self._model:  # the next line may name it
            return None
        chunks: list[AIMessageChunk] = []
        try:
            for line in map(_text_line, BytesIO(complete)):
                if line.done:
                    return None
                text = line.message.content
                if text:
                    chunks.append(TextChunk("", text, index))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return chunks

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        super()._frame(frame, chunks)
        if self.done:
            chunks.extend(self.close())

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            return  # null, a number, a list: it says nothing
        self.start(None, text_or_none(payload.get("model")))
        self._report({k: v for k, v in payload.items() if k not in _READ_FIELDS})
        message = payload.get("message")
        if isinstance(message, dict):
            self._time = payload.get("created_at")
            self._message(message)
        if payload.get("logprobs"):
            self.metadata({"logprobs": {"content": payload["logprobs"]}})
        if payload.get("error"):
            self._error(payload)
        elif payload.get("done") is True:
            self._end(payload)

    def _whole(self, payload: dict[str, Any]) -> None:
        self._event(None, payload)
        if self.error is None and not self.finished and "message" in payload:
            self.finish(None)  # the body is whole, even where it does not say so

    def _report(self, fields: dict[str, Any]) -> None:
        """Metadata that is new since it was last reported; it travels with the next content."""
        new = {k: v for k, v in fields.items() if v is not None and self._seen.get(k) != v}
        if new:
            self._seen.update(new)
            self.metadata(new, visible=False)

    # ---- the fields of a message -----------------------------------------------------------------

    def _message(self, message: dict[str, Any]) -> None:
        self._report({k: v for k, v in message.items() if k not in _READ_MESSAGE_FIELDS})
        # In this order, which is that of a stream, whatever the order in the object is.
        if thinking := text_or_none(message.get("thinking")):
            self.reasoning(thinking)
        if content := text_or_none(message.get("content")):
            self.text(content)
        for image in _items(message.get("images")):
            if isinstance(image, str):
                self.block("image", {"base64": image, **_image_type(image)})
        for call in _items(message.get("tool_calls")):
            if isinstance(call, dict):
                self._tool_call(call)

    def _tool_call(self, call: dict[str, Any]) -> None:
        given = call.get("function")
        function = given if isinstance(given, dict) else {}
        extras = {k: v for k, v in call.items() if k not in ("id", "function") and v is not None}
        rest = {k: v for k, v in function.items() if k not in ("index", "name", "arguments")}
        if rest:
            extras["function"] = rest
        self._calls += 1
        if self._time:
            # Answers have no id, but a time in microseconds: an id made of it is the same however
            # the bytes were cut, and another one in each answer.
            self._seed = f"{self._time}/{function}"
        self.tool_call(
            index=self._calls,
            id=text_or_none(call.get("id")),
            name=text_or_none(function.get("name")),
            args=args_text(function.get("arguments")),
            extras=extras or None,
        )

    # ---- the end ---------------------------------------------------------------------------------

    def _end(self, payload: dict[str, Any]) -> None:
        usage = {k: payload[k] for k in _USAGE_FIELDS if payload.get(k) is not None}
        if usage.keys() & {"prompt_eval_count", "eval_count"}:
            self.usage(read_usage(usage))
            self.metadata({"usage": usage})
        reason = text_or_none(payload.get("done_reason"))
        end = {k: payload[k] for k in _END_FIELDS if payload.get(k) is not None}
        if reason:
            end["finish_reason"] = reason
        self.finish(self._meaning(reason), end)
        self.done = True

    def _meaning(self, reason: str | None) -> str | None:
        meant = FINISH_REASONS.get(reason, reason) if reason else None
        # Ollama says "stop" also where it stopped for the results of calls.
        return "tool_calls" if meant == "stop" and self._calls else meant

    def _error(self, payload: dict[str, Any]) -> None:
        error = payload["error"]
        status = payload.get("status_code", payload.get("status"))
        if isinstance(error, str) and status is not None:
            error = {"message": error, "code": status}
        self.fail(self.provider_failure(error, model=text_or_none(payload.get("model"))))


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


#: How base64 begins that holds an image of a type: the API does not name it.
_IMAGE_STARTS: Final = {
    "iVBORw0KGgo": "image/png",
    "/9j/": "image/jpeg",
    "UklGR": "image/webp",
    "R0lGOD": "image/gif",
}


def _image_type(data: str) -> dict[str, str]:
    found = [mime for start, mime in _IMAGE_STARTS.items() if data.startswith(start)]
    return {"mime_type": found[0]} if found else {}


def read_usage(usage: dict[str, Any]) -> UsageMetadata:
    """Ollama's counts. A prompt that was in its cache as a whole is not counted by old servers."""
    return make_usage(_count(usage.get("prompt_eval_count")), _count(usage.get("eval_count")))


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None
