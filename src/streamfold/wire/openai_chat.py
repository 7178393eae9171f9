"""OpenAI Chat Completions, as OpenAI and some twenty other vendors answer in it.

Reference: https://platform.openai.com/docs/api-reference/chat-streaming and the recordings of the
vendors. A stream is SSE of `chat.completion.chunk` objects that ends with `[DONE]`, or, with some
vendors, after the finish reason. A body that is not streamed holds `message` where a chunk holds
`delta`, and both are read by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..usage import UsageMetadata, make_usage, token_count
from .codec import Decoder as BaseDecoder
from .codec import args_text, text_or_none
from .openai_chat_request import BODY_FIELDS, URL_BLOCKS, encode
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "openai_chat"

#: Vendors' finish reasons, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "stop": "stop",
    "eos_token": "stop",  # Text Generation Inference, and the next
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral: the context is full
    "model_context_window_exceeded": "length",  # Z.ai, and the next two
    "sensitive": "content_filter",
    "network_error": "error",
    "insufficient_system_resource": "error",  # DeepSeek
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}


#: Top-level fields that are read by name; any other one joins `response_metadata`.
_READ_FIELDS: Final = frozenset(
    {"choices", "usage", "id", "model", "object", "error", "obfuscation", "p", "x_groq", "type"}
)
_READ_CHOICE_FIELDS: Final = frozenset(
    {"index", "delta", "message", "finish_reason", "logprobs", "text"}
)


class Decoder(BaseDecoder):
    """The state of one Chat Completions answer."""

    provider: ClassVar[str] = "openai"
    text_path = ("choices", 0, "delta", "content")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seen: dict[str, Any] = {}  # metadata as last reported: what repeats says nothing new
        self._refusal: list[str] = []
        self._details: list[dict[str, Any]] = []
        self._transcript: list[str] = []
        self._stop_reason: str | None = None
        self._is_whole = False

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        if frame.data.strip() == b"[DONE]":
            self.done = True
            chunks.extend(self.close())
            return
        super()._frame(frame, chunks)

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            if event == "error":
                self.fail(self.provider_failure(payload))
            return  # null, a number, a list: it says nothing
        self._fields(payload)
        error = payload.get("error")
        choices = payload.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if _is_first(choice):
                    self._choice(choice, broken=bool(error))
        usage = _usage_of(payload)
        if usage is not None:
            self._usage(usage)
        if error:
            self.fail(self.provider_failure(error, model=payload.get("model")))
        elif event == "error":
            self.fail(self.provider_failure(payload))

    def _whole(self, payload: dict[str, Any]) -> None:
        self._is_whole = True
        self._event(None, payload)
        choices = payload.get("choices")
        answered = isinstance(choices, list) and any(_is_first(choice) for choice in choices)
        if self.error is None and not self.finished and answered:
            self.finish(None)  # the body is whole, even where it gives no reason

    def _fields(self, payload: dict[str, Any]) -> None:
        self.start(text_or_none(payload.get("id")), text_or_none(payload.get("model")))
        rest = {key: value for key, value in payload.items() if key not in _READ_FIELDS}
        self._report(rest)

    def _report(self, fields: dict[str, Any]) -> None:
        """Metadata that is new since it was last reported; it travels with the next content."""
        new = {k: v for k, v in fields.items() if v is not None and self._seen.get(k) != v}
        if new:
            self._seen.update(new)
            self.metadata(new, visible=False)

    def _choice(self, choice: dict[str, Any], *, broken: bool) -> None:
        """The first choice. In a `broken` payload, one with an error, its end does not count."""
        self._report({k: v for k, v in choice.items() if k not in _READ_CHOICE_FIELDS})
        # Perplexity has both: in a stream the delta counts, in a body the message.
        first, second = ("message", "delta") if self._is_whole else ("delta", "message")
        delta = choice.get(first, choice.get(second))
        # Reasoning first, as in a stream, whatever the order in the object is.
        fields = delta.items() if isinstance(delta, dict) else ()
        for key, value in sorted(fields, key=_after_reasoning):
            if value is not None:
                reader = _FIELDS.get(key)
                if reader is not None:
                    reader(self, value, delta)
                else:
                    self._report({key: value})
        logprobs = choice.get("logprobs")
        if logprobs:
            self.metadata({"logprobs": logprobs})
        reason = choice.get("finish_reason")
        if reason and not broken:
            self._finish_reason(str(reason))
        elif self._is_whole and reason is not None:
            self._report({"finish_reason": reason})

    def _finish_reason(self, reason: str) -> None:
        if reason == self._stop_reason:
            return  # some vendors repeat it
        self._stop_reason = reason
        meant = FINISH_REASONS.get(reason, reason)
        if self._refusal and meant == "stop":
            meant = "refusal"
        self._close_extras()
        self.finish(meant, {"finish_reason": reason})

    def _kept(self) -> int:
        return len(self._refusal) + len(self._details) + len(self._transcript)

    def _close_extras(self) -> None:
        """What can be said only when all of it has arrived."""
        if self._details:
            self.block_data("reasoning", {"reasoning_details": _merged_details(self._details)})
            self._details = []
        if self._transcript:
            self.block_data("audio", {"transcript": "".join(self._transcript)}, "audio")
            self._transcript = []
        if self._refusal:
            refusal = "".join(self._refusal)
            self.block("non_standard", {"value": {"type": "refusal", "refusal": refusal}})
            self.metadata({"refusal": refusal})
            self._refusal = []

    def _finish_up(self) -> None:
        self._close_extras()
        if not self.finished:
            self.finish(None)

    # ---- the fields of a delta -------------------------------------------------------------------

    def _content(self, value: Any, delta: dict[str, Any]) -> None:
        if isinstance(value, str):
            if value:
                self.text(value)
        elif isinstance(value, list):
            for part in value:
                self._part(part)

    def _part(self, part: Any) -> None:
        """A part of list-shaped content (Mistral, and audio or image models)."""
        if isinstance(part, str):
            self.text(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind == "thinking":
                self._reasoning_text("".join(_texts(part.get("thinking"))), "thinking")
            elif kind == "text":
                self.text(part.get("text") or "")
            elif kind == "image_url":
                self._images([part], {})
            else:
                self.block("non_standard", {"value": part})

    def _reasoning(self, value: Any, delta: dict[str, Any]) -> None:
        if isinstance(value, str):
            self._reasoning_text(value, "reasoning")

    def _reasoning_content(self, value: Any, delta: dict[str, Any]) -> None:
        if isinstance(value, str) and value != delta.get("reasoning"):  # some vendors send both
            self._reasoning_text(value, "reasoning_content")

    def _reasoning_text(self, text: str, field: str) -> None:
        if text:
            if ("reasoning", None) not in self._open:
                # The field it came in is the field in which the vendor wants it back.
                self.block_data("reasoning", {"field": field})
            self.reasoning(text)

    def _reasoning_details(self, value: Any, delta: dict[str, Any]) -> None:
        """OpenRouter's structured form of what `reasoning` holds as text, with signatures."""
        if _is_list(value):
            self._details.extend(item for item in value if isinstance(item, dict))

    def _refused(self, value: Any, delta: dict[str, Any]) -> None:
        if isinstance(value, str) and value:
            self._refusal.append(value)

    def _tool_calls(self, value: Any, delta: dict[str, Any]) -> None:
        if not _is_list(value):
            return
        for place, call in enumerate(value):
            if isinstance(call, dict):
                # In a whole message the calls have no index: their place is it.
                self._tool_piece(call, place if self._is_whole else None)

    def _tool_piece(self, call: dict[str, Any], place: int | None) -> None:
        function = call.get("function") or call.get("custom") or {}
        if not isinstance(function, Mapping):
            return
        args = function.get("arguments", function.get("input"))
        extras = {
            k: v
            for k, v in call.items()
            if k not in ("id", "index", "function", "custom") and v not in (None, "function")
        }
        index = call.get("index")
        self.tool_call(
            index=index if isinstance(index, int | str) else place,
            id=text_or_none(call.get("id")),
            name=text_or_none(function.get("name")),
            args=args_text(args),
            extras=extras or None,
        )

    def _function_call(self, value: Any, delta: dict[str, Any]) -> None:
        if isinstance(value, dict) and (value.get("name") or value.get("arguments")):
            self._tool_piece({"function": value, "index": 0}, 0)

    def _audio(self, value: Any, delta: dict[str, Any]) -> None:
        if not isinstance(value, dict) or not (value.get("data") or value.get("transcript")):
            return
        data = {"base64": value["data"]} if value.get("data") else {}
        rest = {k: v for k, v in value.items() if k not in ("data", "transcript") and v}
        if ("audio", "audio") not in self._open:
            extras = {"extras": rest} if rest else {}
            self.block("audio", {**data, **extras}, key="audio", id=text_or_none(value.get("id")))
        elif data:
            self.data(data["base64"], "audio", "audio")
        if value.get("transcript"):
            self._transcript.append(str(value["transcript"]))

    def _images(self, value: Any, delta: dict[str, Any]) -> None:
        from ..parts import standard_block

        for part in value if _is_list(value) else ():
            if isinstance(part, dict):
                block = standard_block(part)
                self.block(block.pop("type"), block)

    def _annotations(self, value: Any, delta: dict[str, Any]) -> None:
        for note in value if _is_list(value) else ():
            if isinstance(note, dict):
                self.annotate(_citation(note))

    def _ignored(self, value: Any, delta: dict[str, Any]) -> None:
        """The role: it is always the assistant."""

    def _usage(self, usage: dict[str, Any]) -> None:
        if usage != self._seen.get("usage"):
            self._seen["usage"] = usage
            self.usage(read_usage(usage))
            self.metadata({"usage": usage})


def _after_reasoning(field: tuple[str, Any]) -> bool:
    return not field[0].startswith("reasoning")


def _is_first(choice: Any) -> bool:
    """Only the first choice is the message; with `n` > 1 the others are not mixed into it."""
    return isinstance(choice, dict) and choice.get("index") in (0, None, "0")


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _texts(parts: Any) -> list[str]:
    """The texts of Mistral's ``thinking: [{"type": "text", "text": ...}]``."""
    if isinstance(parts, str):
        return [parts]
    found = (part.get("text") for part in parts or () if isinstance(part, dict))
    return [text for text in found if isinstance(text, str)]


def _merged_details(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenRouter's `reasoning_details` as it wants them back: the pieces of one index joined."""
    merged: dict[Any, dict[str, Any]] = {}
    for piece in pieces:
        detail = merged.setdefault((piece.get("type"), piece.get("index")), {})
        for key, value in piece.items():
            if key in ("text", "summary") and isinstance(detail.get(key), str):
                detail[key] += value or ""
            elif value is not None or key not in detail:
                detail[key] = value
    return list(merged.values())


def _citation(note: dict[str, Any]) -> dict[str, Any]:
    """An annotation as a citation block: ``{"type": "url_citation", "url_citation": {...}}``."""
    cited = note.get("url_citation")
    if note.get("type") != "url_citation" or not isinstance(cited, dict):
        return {"type": "non_standard_annotation", "value": note}
    fields = {key: value for key, value in cited.items() if value is not None}
    if "content" in fields:
        fields["cited_text"] = fields.pop("content")
    return {"type": "citation", **fields}


def _usage_of(payload: dict[str, Any]) -> dict[str, Any] | None:
    """The usage object: Groq streams put it under `x_groq`."""
    usage = payload.get("usage")
    if not isinstance(usage, dict):
        groq = payload.get("x_groq")
        usage = groq.get("usage") if isinstance(groq, dict) else None
    return usage if isinstance(usage, dict) and usage else None


def read_usage(usage: Mapping[str, Any]) -> UsageMetadata:
    """OpenAI's usage object, and what other vendors made of it.

    xAI and a few others leave reasoning out of `completion_tokens` and count it in the total only;
    `output_tokens` includes it always. Cached tokens are in one of five places.
    """
    into = _details(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    out = _details(usage.get("completion_tokens_details") or usage.get("output_tokens_details"))
    for field, key in _CACHE_FIELDS.items():
        if field in usage and key not in into and token_count(usage[field]) is not None:
            into[key] = usage[field]
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    reasoning = out.get("reasoning")
    if reasoning and total is not None and (prompt or 0) + (completion or 0) + reasoning == total:
        completion = (completion or 0) + reasoning
    return make_usage(prompt, completion, total, input_details=into, output_details=out)


_CACHE_FIELDS: Final = {
    "prompt_cache_hit_tokens": "cache_read",  # DeepSeek
    "cached_tokens": "cache_read",  # Together, Moonshot
    "num_cached_tokens": "cache_read",  # Mistral
    "cache_creation_input_tokens": "cache_creation",  # Vercel's gateway
}
_DETAIL_NAMES: Final = {
    "cached_tokens": "cache_read",
    "cache_write_tokens": "cache_creation",
    "audio_tokens": "audio",
    "image_tokens": "image",
    "video_tokens": "video",
    "text_tokens": "text",
    "reasoning_tokens": "reasoning",
}


def _details(details: Any) -> dict[str, int]:
    if not isinstance(details, dict):
        return {}
    return {
        _DETAIL_NAMES[field]: value
        for field, value in details.items()
        if field in _DETAIL_NAMES and type(value) is int
    }


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        count = token_count(usage.get(name))
        if count is not None:
            return count
    return None


_FIELDS: Final[dict[str, Any]] = {
    "content": Decoder._content,
    "reasoning": Decoder._reasoning,
    "reasoning_content": Decoder._reasoning_content,
    "reasoning_details": Decoder._reasoning_details,
    "refusal": Decoder._refused,
    "tool_calls": Decoder._tool_calls,
    "function_call": Decoder._function_call,
    "audio": Decoder._audio,
    "images": Decoder._images,
    "annotations": Decoder._annotations,
    "role": Decoder._ignored,
}
