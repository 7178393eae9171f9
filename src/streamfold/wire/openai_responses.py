"""OpenAI Responses, as OpenAI, Azure, xAI, DeepSeek, OpenRouter, Bedrock and LM Studio answer.

Reference: https://platform.openai.com/docs/api-reference/responses-streaming and the types of the
vendor's SDK. An answer is a list of items. A stream is SSE of events that tell an item in pieces
(`response.output_item.added`, deltas, `response.output_item.done`), and that ends with the answer
as a whole (`response.completed`, `.incomplete` or `.failed`). A body that is not streamed is that
last object, and both are read by the same code: at the end of a stream, items and parts that have
been told are passed over, and those that have not are taken from there.

What becomes of the items: each text of a `message` is a text block, each summary or text of a
`reasoning` a reasoning block; a `function_call` or `custom_tool_call` is a tool call with the
item's `call_id` as its id; any other ``<name>_call`` is a server tool call, followed by its result
where the provider ran it, and by an image where it made one; a refusal and any other item are
`non_standard`. The item's id and further fields are in the `extras` of its blocks. Where one plain
text is all there is, they are in ``response_metadata["message_item"]``, so that the text stays
plain. Events of progress say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..deltas import ProviderData
from ..errors import BLOCKED
from .codec import error_fields, text_or_none
from .openai_chat import read_usage
from .openai_responses_calls import CallDecoder, as_list, as_object, place
from .openai_responses_items import CLIENT_CALLS, RESULT_FIELDS, Item, citation, item_fields
from .openai_responses_request import BODY_FIELDS, URL_BLOCKS, encode, use_responses
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode", "use_responses"]

NAME: Final = "openai_responses"

#: `incomplete_details.reason`, else `status`, normalised. A word not listed is kept as it came.
FINISH_REASONS: Final = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "cancelled": "cancelled",
    "failed": "error",
}


class Decoder(CallDecoder):
    """The state of one Responses answer.

    What is told belongs to the item at an `output_index`; a text or a summary has the key
    ``(output_index, "content" or "summary", its place there)``.
    """

    provider: ClassVar[str] = "openai"
    text_path = ("delta",)
    counter_key = "sequence_number"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._complete: set[Any] = set()  # output indexes of items that are complete
        self._told_ids: set[str] = set()  # and their ids
        self._notes: dict[Any, int] = {}  # text -> how many citations have been told
        self._parts: dict[Any, list[tuple[str, int]]] = {}  # item -> kinds and numbers of blocks
        self._refusals: dict[Any, str] = {}
        self._transcript = ""

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        if frame.data.strip() == b"[DONE]":  # OpenRouter sends it after the end
            self.done = True
        else:
            super()._frame(frame, chunks)
        if self.done:
            chunks.extend(self.close())

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            if event == "error":
                self.fail(self.provider_failure(payload))
            return
        kind = payload.get("type") or event
        handler = _EVENTS.get(kind) if isinstance(kind, str) else None
        if handler is not None:
            handler(self, payload)
        elif payload.get("error"):
            self._fail(payload["error"], None)
        elif payload.keys() - _PROGRESS_FIELDS:
            self.metadata({"unknown_events": [payload]}, visible=False)

    def _whole(self, payload: dict[str, Any]) -> None:
        if isinstance(payload.get("output"), list):
            self._begin(payload)
            self._end(payload)
        elif payload.get("error"):
            self._fail(payload["error"], payload)

    # ---- the answer ------------------------------------------------------------------------------

    def _started_event(self, payload: dict[str, Any]) -> None:
        self._begin(as_object(payload.get("response")))

    def _begin(self, response: dict[str, Any]) -> None:
        self.start(text_or_none(response.get("id")), text_or_none(response.get("model")))

    def _end_event(self, payload: dict[str, Any]) -> None:
        response = as_object(payload.get("response"))
        self._begin(response)
        self._end(response)
        self.done = True

    def _end(self, response: dict[str, Any]) -> None:
        """The answer as a whole: what has not been told yet, the figures and the reason."""
        output = response.get("output")
        for index, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict):
                self._settle(index, item)
        usage = response.get("usage")
        if isinstance(usage, dict) and usage:
            self.usage(read_usage(usage))
            self.metadata({"usage": usage})
        rest = {k: v for k, v in response.items() if k not in _READ_FIELDS and v is not None}
        reason = as_object(response.get("incomplete_details")).get("reason")
        word = str(reason or response.get("status") or "completed")
        if response.get("error") or word == "failed":
            self.metadata(rest)
            self._fail(response.get("error") or "the response failed", response)
        elif word == "content_filter" and not self._blocks:
            self._fail({"message": "the content filter blocked it", "code": word}, response)
        else:
            self._close_messages()
            meant = self._meant() if word == "completed" else FINISH_REASONS.get(word, word)
            self.finish(meant, {"object": "response", **rest, "finish_reason": word})

    def _meant(self) -> str:
        if self._refusals:
            return "refusal"
        return "tool_calls" if self._books["tool_call"].calls else "stop"

    def _settle(self, index: int, item: Item) -> None:
        """An item of the whole answer. What the stream told of it is not told again."""
        known = self._items.get(index)
        if index in self._complete and known is not None:
            if item != known and item.get("type") == known.get("type") == "reasoning":
                self._extend(index, item_fields(item))  # it is encrypted anew
        elif text_or_none(item.get("id")) not in self._told_ids:  # under another index
            self._item_done({"output_index": index, "item": item})

    def _finish_up(self) -> None:
        if not self.finished:
            self._close_messages()
            self.finish(None)

    def _error_event(self, payload: dict[str, Any]) -> None:
        told = {k: v for k, v in payload.items() if k not in ("type", "sequence_number")}
        self._fail(payload.get("error") or told, None)

    def _fail(self, error: Any, response: dict[str, Any] | None) -> None:
        message, kind, code = error_fields(error)
        kind = _OVERLOADED.get(code or "", kind)
        if (code or "").lower() in BLOCKED or (code or "").startswith(_INVALID):
            kind = kind or "invalid_request_error"
        told = {"message": message, "type": kind, "code": code}
        self.fail(self.provider_failure(told, model=text_or_none((response or {}).get("model"))))

    # ---- items -----------------------------------------------------------------------------------

    def _item_added(self, payload: dict[str, Any]) -> None:
        index, item = place(payload), as_object(payload.get("item"))
        if index not in self._items:
            self._items[index] = item
            kind = str(item.get("type"))
            if kind in CLIENT_CALLS:
                self._open_client_call(index, item)
            elif kind.endswith("_call"):
                self._open_server_call(index, item)
            elif kind not in _ITEMS:
                self._other_item(index, item)

    def _item_done(self, payload: dict[str, Any]) -> None:
        index, item = place(payload), as_object(payload.get("item"))
        if index in self._complete:
            return
        if index not in self._items:
            self._item_added(payload)
        kind = str(item.get("type"))
        reader = _ITEMS.get(kind)
        if reader is None:
            reader = Decoder._server_call_done if kind.endswith("_call") else Decoder._other_item
        reader(self, index, item)
        self._items[index] = item
        self._complete.add(index)
        if text_or_none(item.get("id")):
            self._told_ids.add(item["id"])
        self.end_blocks(index)

    def _message(self, index: Any, item: Item) -> None:
        for number, part in enumerate(as_list(item.get("content"))):
            if isinstance(part, dict):
                self._part((index, "content", number), part)

    def _part_done(self, payload: dict[str, Any]) -> None:
        self._part(_key(payload), as_object(payload.get("part")))

    def _part(self, key: Any, part: Item) -> None:
        """A part of a message, whole: what was not told in pieces is told now."""
        kind = part.get("type")
        if kind == "output_text":
            self._text_part(key, part)
        elif kind == "refusal":
            self._refused(key, part.get("refusal"))
        elif kind not in ("reasoning_text", "output_audio") and self._is_new(key):
            self._belongs(key, "non_standard", self.block("non_standard", {"value": part}, key=key))

    def _text_part(self, key: Any, part: Item) -> None:
        self._all_text(key, part.get("text"))
        self._all_logprobs(key, part.get("logprobs"))
        for note in as_list(part.get("annotations"))[self._notes.get(key, 0) :]:
            self._annotate(key, note)
        rest = {k: v for k, v in part.items() if k not in _PART_FIELDS and v is not None}
        if rest and key in self._given and self._is_new(("part", key)):
            self._add(ProviderData({"part": rest}, self._number("text", key), "text"))

    def _refused(self, key: Any, refusal: Any) -> None:
        if self._is_new(("refusal", key)):
            text = self._refusals.get(key) or (refusal if isinstance(refusal, str) else "")
            self._refusals[key] = text
            value = {"type": "refusal", "refusal": text}
            number = self.block("non_standard", {"value": value}, key=key)
            self._belongs(key, "non_standard", number)

    def _close_messages(self) -> None:
        """The ids of messages go to their texts, unless one plain text turns out to be all."""
        if self._refusals:
            self.metadata({"refusal": "".join(self._refusals.values())})
        blocks = [(index, *block) for index, blocks in self._parts.items() for block in blocks]
        for index, kind, number in blocks:
            item = self._items[index] if index in self._complete else {}
            fields = item_fields(item) if item.get("type") == "message" else {}
            if fields and self._blocks == 1 and kind == "text" and not self._notes:
                self.metadata({"message_item": fields})
            elif fields:
                self._add(ProviderData(fields, number, kind))

    def _reasoning_item(self, index: Any, item: Item) -> None:
        for field in ("content", "summary"):
            for number, part in enumerate(as_list(item.get(field))):
                self._all_reasoning((index, field, number), as_object(part).get("text"))
        if index not in self._parts:
            fields = item_fields(item)
            self._belongs((index,), "reasoning", self.block("reasoning", {"extras": fields}))
        else:
            self._extend(index, item_fields(item))

    def _extend(self, index: Any, fields: Item) -> None:
        """Fields of a reasoning item: its id on each of its blocks, the others on the first."""
        for kind, number in self._parts.get(index, ()):
            if fields:
                self._add(ProviderData(fields, number, kind))
            fields = {k: v for k, v in fields.items() if k == "id"}

    def _other_item(self, index: Any, item: Item) -> None:
        """An item as it is: shown when it is announced, so that it keeps its place, and again when
        it is done."""
        if self._is_new((index, "item")) or item != self._items[index]:
            self.block("non_standard", {"value": item}, key=(index, "item"))

    # ---- pieces ----------------------------------------------------------------------------------

    def _text_delta(self, payload: dict[str, Any]) -> None:
        key, delta = _key(payload), payload.get("delta")
        if isinstance(delta, str) and delta:
            self._told_text(key, delta)
        if payload.get("logprobs"):
            self._given.add(("logprobs", key))
            self.metadata({"logprobs": {"content": payload["logprobs"]}})
        rest = {k: v for k, v in payload.items() if k not in _DELTA_FIELDS and v is not None}
        if rest:
            self.metadata(rest)

    def _text_done(self, payload: dict[str, Any]) -> None:
        self._all_text(_key(payload), payload.get("text"))
        self._all_logprobs(_key(payload), payload.get("logprobs"))

    def _all_text(self, key: Any, text: Any) -> None:
        if isinstance(text, str) and text and key not in self._given:
            self._told_text(key, text)

    def _told_text(self, key: Any, text: str) -> None:
        self.text(text, key)
        if self._is_new(key):
            self._belongs(key, "text", self._number("text", key))

    def _all_logprobs(self, key: Any, logprobs: Any) -> None:
        if logprobs and isinstance(logprobs, list) and self._is_new(("logprobs", key)):
            self.metadata({"logprobs": {"content": logprobs}})

    def _annotation(self, payload: dict[str, Any]) -> None:
        self._annotate(_key(payload), payload.get("annotation"))

    def _annotate(self, key: Any, note: Any) -> None:
        self._notes[key] = self._notes.get(key, 0) + 1
        if isinstance(note, dict):
            self.annotate(citation(note), key)
            self._belongs(key, "text", self._number("text", key))

    def _refusal_delta(self, payload: dict[str, Any]) -> None:
        key = _key(payload)
        self._refusals[key] = self._refusals.get(key, "") + str(payload.get("delta") or "")

    def _refusal_done(self, payload: dict[str, Any]) -> None:
        self._refused(_key(payload), payload.get("refusal"))

    def _summary_delta(self, payload: dict[str, Any]) -> None:
        self._told_reasoning(_key(payload, "summary"), payload.get("delta"))

    def _summary_done(self, payload: dict[str, Any]) -> None:
        self._all_reasoning(_key(payload, "summary"), payload.get("text"))

    def _reasoning_delta(self, payload: dict[str, Any]) -> None:
        self._told_reasoning(_key(payload), payload.get("delta"))

    def _reasoning_done(self, payload: dict[str, Any]) -> None:
        self._all_reasoning(_key(payload), payload.get("text"))

    def _all_reasoning(self, key: Any, text: Any) -> None:
        if key not in self._given:
            self._told_reasoning(key, text)

    def _told_reasoning(self, key: Any, text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        if self._is_new(key):
            number = self._number("reasoning", key)
            self._belongs(key, "reasoning", number)
            if key[1] == "content":  # not a summary: it goes back where it came
                self._add(ProviderData({"type": "reasoning_text"}, number, "reasoning"))
        self.reasoning(text, key)

    def _audio_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        if isinstance(delta, str) and delta:
            if self._is_new("audio"):
                self.block("audio", {"base64": delta}, key="audio")
            else:
                self.data(delta, "audio", "audio")

    def _transcript_delta(self, payload: dict[str, Any]) -> None:
        self._transcript += str(payload.get("delta") or "")

    def _transcript_done(self, payload: dict[str, Any]) -> None:
        if self._transcript:
            self.block_data("audio", {"transcript": self._transcript}, "audio")

    def _nothing(self, payload: dict[str, Any]) -> None:
        """Progress, or what the item says again when it is done."""

    def _belongs(self, key: Any, kind: str, number: int) -> None:
        """The block `number` is one of its item's."""
        blocks = self._parts.setdefault(key[0], [])
        if (kind, number) not in blocks[-1:]:
            blocks.append((kind, number))


def _key(payload: dict[str, Any], field: str = "content") -> tuple[int | None, str, int | None]:
    """The key of the part, or the summary, that an event is about."""
    return place(payload), field, place(payload, f"{field}_index")


#: Fields that are read by name, and those that say again what was asked.
_READ_FIELDS: Final = frozenset(
    {"id", "model", "output", "output_text", "usage", "error", "instructions", "tools", "text"}
)
_PROGRESS_FIELDS: Final = frozenset(
    {"type", "sequence_number", "item_id", "output_index", "content_index", "obfuscation"}
)
_DELTA_FIELDS: Final = _PROGRESS_FIELDS | {"delta", "logprobs"}
_PART_FIELDS: Final = frozenset({"type", "text", "annotations", "logprobs"})

#: How codes of errors begin that mean a bad request.
_INVALID: Final = (
    "context_length_exceeded",
    "empty_image",
    "failed_to_download",
    "image_",
    "invalid_",
    "unsupported_",
)
_OVERLOADED: Final[dict[str, str]] = {
    "server_is_overloaded": "overloaded_error",
    "slow_down": "overloaded_error",
}

Handler = Callable[[Decoder, dict[str, Any]], None]

_EVENTS: Final[dict[str, Handler]] = {
    "error": Decoder._error_event,
    "response.queued": Decoder._started_event,
    "response.created": Decoder._started_event,
    "response.in_progress": Decoder._started_event,
    "response.completed": Decoder._end_event,
    "response.incomplete": Decoder._end_event,
    "response.failed": Decoder._end_event,
    "response.cancelled": Decoder._end_event,
    "response.output_item.added": Decoder._item_added,
    "response.output_item.done": Decoder._item_done,
    "response.content_part.added": Decoder._nothing,
    "response.content_part.done": Decoder._part_done,
    "response.output_text.delta": Decoder._text_delta,
    "response.output_text.done": Decoder._text_done,
    "response.output_text.annotation.added": Decoder._annotation,
    "response.refusal.delta": Decoder._refusal_delta,
    "response.refusal.done": Decoder._refusal_done,
    "response.reasoning_summary_part.added": Decoder._nothing,
    "response.reasoning_summary_part.done": Decoder._nothing,
    "response.reasoning_summary_text.delta": Decoder._summary_delta,
    "response.reasoning_summary_text.done": Decoder._summary_done,
    "response.reasoning_text.delta": Decoder._reasoning_delta,
    "response.reasoning_text.done": Decoder._reasoning_done,
    "response.function_call_arguments.delta": Decoder._args_delta,
    "response.function_call_arguments.done": Decoder._args_done,
    "response.custom_tool_call_input.delta": Decoder._args_delta,
    "response.custom_tool_call_input.done": Decoder._args_done,
    "response.mcp_call_arguments.delta": Decoder._args_delta,
    "response.mcp_call_arguments.done": Decoder._args_done,
    "response.code_interpreter_call_code.delta": Decoder._code_delta,
    "response.code_interpreter_call_code.done": Decoder._nothing,
    "response.image_generation_call.partial_image": Decoder._partial_image,
    "response.shell_call_command.added": Decoder._nothing,
    "response.shell_call_command.delta": Decoder._nothing,
    "response.shell_call_command.done": Decoder._nothing,
    "response.shell_call_output_content.delta": Decoder._nothing,
    "response.shell_call_output_content.done": Decoder._nothing,
    "response.audio.delta": Decoder._audio_delta,
    "response.audio.transcript.delta": Decoder._transcript_delta,
    "response.audio.transcript.done": Decoder._transcript_done,
}

_ITEMS: Final[dict[str, Callable[[Decoder, Any, Item], None]]] = {
    "message": Decoder._message,
    "reasoning": Decoder._reasoning_item,
    **dict.fromkeys(CLIENT_CALLS, Decoder._client_call_done),
    **dict.fromkeys(RESULT_FIELDS, Decoder._result_item),
}
