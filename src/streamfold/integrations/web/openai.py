"""OpenAI's vocabulary: `chat.completion.chunk` objects, and the whole `chat.completion`.

Reference: https://platform.openai.com/docs/api-reference/chat-streaming. Beside what OpenAI's own
models say there are the fields that clients of other vendors know: `reasoning_content` (DeepSeek)
and `images` (OpenRouter). Tools that the provider runs itself, and results of tools, have no place
in it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from ...chunks import fold_events
from ...content import Block
from ...deltas import (
    Annotation,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    Restart,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from ...errors import StreamInterruptedError
from ...messages import AIMessage, ToolMessage
from .failures import Refusal, openai_error, refusal_headers, status_of
from .items import Calls, Item, Tally, parts
from .sse import json_line

__all__ = ["OpenAIVocabulary", "completion", "refusal_text"]

#: Finish reasons that OpenAI has too; of the others, `_finish_word` knows what to say.
_SHARED: Final = frozenset({"stop", "length", "tool_calls", "content_filter"})
#: OpenAI's tiers; other vendors have others under the same name.
_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
#: Ends that are none: the client must not take what it has for an answer.
_BROKEN: Final = {
    "error": "the provider broke the answer off",
    "cancelled": "the answer was cancelled",
}


class OpenAIVocabulary:
    """Chat Completions chunks.

    `model`: what `model` says where the provider does not name itself. `include_usage`: a chunk
    with the usage comes last, and all others have ``"usage": null``. Several messages in one stream
    (an agent's) are one completion, with the finish reason of the last.
    """

    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, model: str = "", include_usage: bool = False) -> None:
        self._common: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        self._calls = Calls()
        self._tally = Tally()
        self._images: list[ChunkEvent] = []  # they may come in pieces, and are told whole
        self._role_told = self._refused = self._called = self._ended = False
        self._finish: str | None = None

    def feed(self, item: Item) -> list[bytes]:
        payloads: list[bytes] = []
        for part in parts(item):
            if not isinstance(part, ToolMessage):
                payloads.extend(map(self._chunk, self._deltas(part)))
        return payloads

    def close(self) -> list[bytes]:
        images = _images(fold_events(self._images).content_blocks)
        deltas: list[dict[str, Any]] = [{"delta": {"images": images}}] if images else []
        word = _finish_word(self._finish, self._refused, self._called)
        payloads = [self._chunk(choice) for choice in (*deltas, {"finish_reason": word})]
        usage = self._tally.total()
        if self._include_usage and usage is not None:
            payloads.append(self._payload([], _usage(usage)))
        return [*payloads, b"[DONE]"]

    def fail(self, error: Exception, text: str) -> list[bytes]:
        return [json_line(openai_error(error, text))]

    def refuse(self, error: Exception, text: str) -> Refusal:
        body = json_line(openai_error(error, text))
        return Refusal(status_of(error), body, "application/json", refusal_headers(error))

    # ---- chunks ----------------------------------------------------------------------------------

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        delta = choice.get("delta", {})
        if not self._role_told:
            self._role_told = True
            delta = {"role": "assistant", "content": "", **delta}
        full = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}
        return self._payload([{**full, **choice, "delta": delta}], None)

    def _payload(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        told = {"usage": usage} if self._include_usage else {}
        return json_line({**self._common, "choices": choices, **told})

    def _deltas(self, event: ChunkEvent) -> Iterable[dict[str, Any]]:
        """The choices that say what `event` says; most are one, with a delta."""
        reader = _READERS.get(type(event))
        return () if reader is None else reader(self, event)

    # ---- events ----------------------------------------------------------------------------------

    def _message_start(self, event: MessageStart) -> Iterable[dict[str, Any]]:
        if not self._role_told:  # every chunk has the same
            told = {"id": event.id, "model": event.model}
            self._common |= {key: value for key, value in told.items() if value}
        if self._ended:
            self._tally.next_message()
            self._ended = False
        return ()

    def _provider_data(self, event: ProviderData) -> Iterable[dict[str, Any]]:
        if event.kind is not None:
            return
        self._common |= _common(event.data)
        logprobs = _logprobs(event.data)
        if logprobs is not None:
            yield {"logprobs": logprobs}

    def _text(self, event: TextDelta) -> Iterable[dict[str, Any]]:
        if event.text:
            yield {"delta": {"content": event.text}}

    def _reasoning(self, event: ReasoningDelta) -> Iterable[dict[str, Any]]:
        if event.text:
            yield {"delta": {"reasoning_content": event.text}}

    def _block_start(self, event: BlockStart) -> Iterable[dict[str, Any]]:
        if event.kind == "tool_call":
            yield from self._call(event)
        elif (refusal := refusal_text(event.data)) is not None:
            self._refused = True
            yield {"delta": {"refusal": refusal}}
        elif event.kind == "image":
            self._images.append(event)

    def _call(self, event: BlockStart | ToolCallDelta) -> Iterable[dict[str, Any]]:
        if event.kind != "tool_call":
            return
        self._called = True
        call, is_new = self._calls.take(event)
        args = event.args if isinstance(event, ToolCallDelta) else ""
        piece: dict[str, Any] = {"index": call.number, "function": {"arguments": args}}
        if is_new:
            piece["function"]["name"] = call.name or ""
            piece = {**piece, "id": call.id, "type": "function"}
        elif not args:
            return
        yield {"delta": {"tool_calls": [piece]}}

    def _data(self, event: DataDelta) -> Iterable[dict[str, Any]]:
        if event.kind == "image":
            self._images.append(event)
        return ()

    def _annotation(self, event: Annotation) -> Iterable[dict[str, Any]]:
        notes = _notes([event.annotation])
        if notes:
            yield {"delta": {"annotations": notes}}

    def _usage_report(self, event: UsageReport) -> Iterable[dict[str, Any]]:
        self._tally.take(event)
        return ()

    def _message_end(self, event: MessageEnd) -> Iterable[dict[str, Any]]:
        _check_end(event.finish_reason)
        self._finish, self._ended = event.finish_reason, True
        self._calls.end_message()
        return ()

    def _restart(self, event: Restart) -> Iterable[dict[str, Any]]:
        if self._role_told:
            raise StreamInterruptedError(
                f"the answer broke and began anew ({event.reason}), after a part of it was sent"
            )
        self._tally = Tally()
        return ()


_READERS: Final[dict[type, Callable[[OpenAIVocabulary, Any], Iterable[dict[str, Any]]]]] = {
    MessageStart: OpenAIVocabulary._message_start,
    ProviderData: OpenAIVocabulary._provider_data,
    TextDelta: OpenAIVocabulary._text,
    ReasoningDelta: OpenAIVocabulary._reasoning,
    BlockStart: OpenAIVocabulary._block_start,
    ToolCallDelta: OpenAIVocabulary._call,
    DataDelta: OpenAIVocabulary._data,
    Annotation: OpenAIVocabulary._annotation,
    UsageReport: OpenAIVocabulary._usage_report,
    MessageEnd: OpenAIVocabulary._message_end,
    Restart: OpenAIVocabulary._restart,
}


# ---- the whole answer ----------------------------------------------------------------------------


def completion(message: AIMessage, *, model: str = "") -> dict[str, Any]:
    """The `chat.completion` object that says what `message` says. Raises StreamInterruptedError for
    one that broke off."""
    _check_end(message.finish_reason)
    blocks = message.content_blocks
    refusal = "".join(filter(None, map(refusal_text, blocks))) or None
    calls = [_whole_call(b) for b in blocks if b["type"] in ("tool_call", "invalid_tool_call")]
    told = message.response_metadata
    spoken: dict[str, Any] = {
        "role": "assistant",
        "content": message.text or (None if calls or refusal else ""),
        "refusal": refusal,
        "annotations": _notes(n for b in blocks for n in b.get("annotations") or ()),
    }
    further = {
        "tool_calls": calls,
        "reasoning_content": "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning"),
        "images": _images(blocks),
    }
    choice = {
        "index": 0,
        "message": {**spoken, **{key: value for key, value in further.items() if value}},
        "logprobs": _logprobs(told),
        "finish_reason": _finish_word(message.finish_reason, bool(refusal), bool(calls)),
    }
    whole: dict[str, Any] = {
        "id": message.id or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": told.get("model_name") or model,
        "choices": [choice],
        **_common(told),
    }
    if message.usage_metadata is not None:
        whole["usage"] = _usage(message.usage_metadata)
    return whole


def _whole_call(block: Block) -> dict[str, Any]:
    args = block["args"]
    text = (args or "") if block["type"] == "invalid_tool_call" else json_line(args).decode()
    function = {"name": block.get("name") or "", "arguments": text}
    return {"id": block.get("id") or "", "type": "function", "function": function}


# ---- what both say -------------------------------------------------------------------------------


def _check_end(reason: str | None) -> None:
    if reason in _BROKEN:
        raise StreamInterruptedError(_BROKEN[reason])


def _finish_word(reason: str | None, refused: bool, called: bool) -> str:
    if reason in _SHARED:
        return str(reason)
    if reason == "refusal":  # OpenAI ends with "stop" where it has words for the refusal
        return "stop" if refused else "content_filter"
    return "tool_calls" if called else "stop"


def refusal_text(data: Mapping[str, Any]) -> str | None:
    """The words of a refusal, of a `non_standard` block that is one."""
    value = data.get("value")
    if isinstance(value, Mapping) and value.get("type") == "refusal":
        return str(value.get("refusal") or "")
    return None


def _common(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the provider says of the whole answer and OpenAI says in every chunk."""
    told = {}
    if isinstance(data.get("system_fingerprint"), str):
        told["system_fingerprint"] = data["system_fingerprint"]
    if isinstance(data.get("service_tier"), str) and data["service_tier"] in _TIERS:
        told["service_tier"] = data["service_tier"]
    return told


def _logprobs(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Log probabilities, if they are in OpenAI's form."""
    found = data.get("logprobs")
    entries = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(e, Mapping) for e in entries):
        return None
    known = all({"token", "logprob", "top_logprobs"} <= entry.keys() for entry in entries)
    return {"content": entries, "refusal": None} if known else None


def _notes(annotations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The citations of web pages, in OpenAI's form; it has none for others. An empty span, where
    the vendor says not where in the text they belong."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "url": note["url"],
                "title": str(note.get("title") or ""),
                "start_index": note.get("start_index") or 0,
                "end_index": note.get("end_index") or 0,
            },
        }
        for note in annotations
        if note.get("url")
    ]


def _images(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    urls = (_image_url(block) for block in blocks if block["type"] == "image")
    return [{"type": "image_url", "image_url": {"url": url}} for url in urls if url]


def _image_url(block: Block) -> str | None:
    if block.get("url"):
        return str(block["url"])
    data = block.get("base64")
    return f"data:{block.get('mime_type') or 'image/png'};base64,{data}" if data else None


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    into, out = usage.get("input_token_details", {}), usage.get("output_token_details", {})
    told: dict[str, Any] = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "total_tokens": usage.get("total_tokens", 0),
    }
    details = {
        "prompt_tokens_details": {"cached_tokens": into.get("cache_read")},
        "completion_tokens_details": {"reasoning_tokens": out.get("reasoning")},
    }
    details["prompt_tokens_details"]["audio_tokens"] = into.get("audio")
    details["completion_tokens_details"]["audio_tokens"] = out.get("audio")
    for name, counts in details.items():
        known = {key: count for key, count in counts.items() if count is not None}
        if known:
            told[name] = known
    return told
