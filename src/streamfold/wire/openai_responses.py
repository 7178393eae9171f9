"""OpenAI Responses, as OpenAI, Azure, xAI, DeepSeek, OpenRouter, Bedrock and LM Studio answer in it.

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

import json
from collections.abc import Callable
from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..deltas import ProviderData
from ..errors import ContentFilterError, StreamProtocolError
from .codec import Decoder as BaseDecoder
from .codec import args_text, error_fields, text_or_none
from .openai_chat import read_usage
from .openai_responses_items import (
    CLIENT_CALLS,
    RESULT_FIELDS,
    Item,
    citation,
    item_fields,
    server_call,
)
from .openai_responses_request import BODY_FIELDS, encode, use_responses
from .sse import Frame

__all__ = ["BODY_FIELDS", "NAME", "Decoder", "encode", "use_responses"]

NAME: Final = "openai_responses"

#: `incomplete_details.reason`, else `status`, normalised. A word not listed is kept as it came.
FINISH_REASONS: Final = {
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "cancelled": "cancelled",
    "failed": "error",
}


class Decoder(BaseDecoder):
    """The state of one Responses answer.

    What is told belongs to the item at an `output_index`; a text or a summary has the key
    ``(output_index, "content" or "summary", its place there)``.
    """

    provider: ClassVar[str] = "openai"
    text_path = ("delta",)
    counter_key = "sequence_number"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._items: dict[Any, Item] = {}  # output index -> item, as it was last told
        self._complete: set[Any] = set()  # output indexes of items that are complete
        self._given: set[Any] = set()  # keys of what has been told, at least in part
        self._notes: dict[Any, int] = {}  # text -> how many citations have been told
        self._parts: dict[Any, list[tuple[str, int]]] = {}  # item -> kinds and numbers of blocks
        self._ids: dict[Any, str] = {}  # `call_id` -> id of the server tool call
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
        self._begin(_object(payload.get("response")))

    def _begin(self, response: dict[str, Any]) -> None:
        self.start(text_or_none(response.get("id")), text_or_none(response.get("model")))

    def _end_event(self, payload: dict[str, Any]) -> None:
        response = _object(payload.get("response"))
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
        reason = _object(response.get("incomplete_details")).get("reason")
        word = str(reason or response.get("status") or "completed")
        if response.get("error") or word == "failed":
            self.metadata(rest)
            self._fail(response.get("error") or "the response failed", response)
        elif word == "content_filter" and not self._blocks:
            self._fail({"message": "the content filter blocked it", "code": word}, response)
        else:
            self._tell_message_items()
            meant = self._meant() if word == "completed" else FINISH_REASONS.get(word, word)
            self.finish(meant, {**rest, "finish_reason": word})

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
        elif not self._is_known(item.get("id")):
            self._item_done({"output_index": index, "item": item})

    def _is_known(self, id: Any) -> bool:
        """Whether an item of this id has been told, under another index."""
        return id is not None and any(self._items[i].get("id") == id for i in self._complete)

    def _finish_up(self) -> None:
        if not self.finished:
            self._tell_message_items()
            self.finish(None)

    def _error_event(self, payload: dict[str, Any]) -> None:
        told = {k: v for k, v in payload.items() if k not in ("type", "sequence_number")}
        self._fail(payload.get("error") or told, None)

    def _fail(self, error: Any, response: dict[str, Any] | None) -> None:
        message, kind, code = error_fields(error)
        model = text_or_none((response or {}).get("model"))
        if code in _BLOCKED and not self._blocks:
            self.fail(
                ContentFilterError(
                    message,
                    status=200,
                    type=kind,
                    code=code,
                    provider=self.model_provider or None,
                    model=model,
                )
            )
            return
        if code in _BLOCKED or (code or "").startswith(_INVALID):
            kind = kind or "invalid_request_error"
        self.fail(self.provider_failure({"message": message, "type": kind, "code": code}, model=model))

    # ---- items -----------------------------------------------------------------------------------

    def _item_added(self, payload: dict[str, Any]) -> None:
        index, item = _place(payload), _object(payload.get("item"))
        if index not in self._items:
            self._items[index] = item
            kind = str(item.get("type"))
            if kind in CLIENT_CALLS:
                self._open_client_call(index, item)
            elif kind.endswith("_call"):
                self._open_server_call(index, item)

    def _item_done(self, payload: dict[str, Any]) -> None:
        index, item = _place(payload), _object(payload.get("item"))
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
        for block_kind, key in list(self._open):
            if isinstance(key, tuple) and key[0] == index:
                self.end_block(block_kind, key)

    def _message(self, index: Any, item: Item) -> None:
        for place, part in enumerate(_list(item.get("content"))):
            if isinstance(part, dict):
                self._part((index, "content", place), part)

    def _part_done(self, payload: dict[str, Any]) -> None:
        self._part(_key(payload), _object(payload.get("part")))

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
        for note in _list(part.get("annotations"))[self._notes.get(key, 0) :]:
            self._annotate(key, note)
        rest = {k: v for k, v in part.items() if k not in _PART_FIELDS and v is not None}
        if rest and key in self._given and self._is_new(("part", key)):
            self._add(ProviderData({"part": rest}, self._number("text", key), "text"))

    def _refused(self, key: Any, refusal: Any) -> None:
        if self._is_new(("refusal", key)):
            text = self._refusals.get(key) or (refusal if isinstance(refusal, str) else "")
            self._refusals[key] = text
            value = {"type": "refusal", "refusal": text}
            self._belongs(key, "non_standard", self.block("non_standard", {"value": value}, key=key))
            self.metadata({"refusal": "".join(self._refusals.values())})

    def _tell_message_items(self) -> None:
        """The ids of messages, which are known by now, but whether they are all there is, only
        at the end."""
        blocks = [(index, *block) for index, blocks in self._parts.items() for block in blocks]
        for index, kind, number in blocks:
            item = self._items.get(index, {})
            fields = item_fields(item) if item.get("type") == "message" else {}
            if fields and self._blocks == 1 and kind == "text" and not self._notes:
                self.metadata({"message_item": fields})
            elif fields:
                self._add(ProviderData(fields, number, kind))

    def _reasoning_item(self, index: Any, item: Item) -> None:
        for field in ("content", "summary"):
            for place, part in enumerate(_list(item.get(field))):
                self._all_reasoning((index, field, place), _object(part).get("text"))
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
        self.block("non_standard", {"value": item}, key=(index, "item"))

    def _result_item(self, index: Any, item: Item) -> None:
        """What came of a call, as an item of its own."""
        field = RESULT_FIELDS[item["type"]]
        call_id = item.get("call_id")
        data = {
            "tool_call_id": self._ids.get(call_id) or call_id or item.get("id"),
            "status": _success(item),
            "output": item.get(field),
            "extras": {k: v for k, v in item.items() if k != field and v is not None},
        }
        self.block("server_tool_result", data, key=(index, "item"))

    # ---- calls -----------------------------------------------------------------------------------

    def _open_client_call(self, index: Any, item: Item) -> None:
        kind = item["type"]
        fields = {k: v for k, v in item_fields(item).items() if k not in _CALL_FIELDS}
        fields.pop("status", None)  # it is in progress, of course
        extras = {**fields, "type": "custom"} if kind == "custom_tool_call" else fields
        self.tool_call(
            index=index,
            id=text_or_none(item.get("call_id")),
            name=text_or_none(item.get("name")),
            extras=extras or None,
        )

    def _client_call_done(self, index: Any, item: Item) -> None:
        self._all_args(index, "tool_call", item.get(CLIENT_CALLS[item["type"]]))
        told = self._items[index]
        fields = {k: v for k, v in item_fields(item).items() if k not in _CALL_FIELDS}
        new = {k: v for k, v in fields.items() if k == "status" or told.get(k) != v}
        if new:
            self.tool_call(index=index, extras=new)

    def _open_server_call(self, index: Any, item: Item) -> None:
        id = text_or_none(item.get("id"))
        self.tool_call(
            index=index, id=id, name=str(item["type"]).removesuffix("_call"), kind="server_tool_call"
        )
        if id and text_or_none(item.get("call_id")):
            self._ids[item["call_id"]] = id

    def _server_call_done(self, index: Any, item: Item) -> None:
        shape = server_call(item["type"])
        if (index, "code") in self._given:
            self.tool_call(index=index, args='"}', kind="server_tool_call")
        else:
            self._all_args(index, "server_tool_call", shape.arguments(item))
        fields = {k: v for k, v in shape.fields(item).items() if k != "id"}
        if fields:
            self.tool_call(index=index, extras=fields, kind="server_tool_call")
        if item["type"] == "image_generation_call":
            self._image(index, item.get("result"), item)
        if shape.answers:
            self._result(index, item, shape.output)

    def _result(self, index: Any, item: Item, field: str) -> None:
        data = {"tool_call_id": item.get("id"), "status": _success(item)}
        if item.get(field) is not None and item["type"] != "image_generation_call":
            data["output"] = item[field]
        if item.get("error") is not None:
            data["extras"] = {"error": item["error"]}
        self.block("server_tool_result", data, key=(index, "result"))

    def _image(self, index: Any, data: Any, told: Item) -> None:
        """An image, or for the time being a sketch of it, which the next one replaces."""
        if isinstance(data, str) and data:
            form = text_or_none(told.get("output_format")) or "png"
            block = {"base64": data, "mime_type": f"image/{_IMAGE_TYPES.get(form, form)}"}
            id = {"id": self._items[index].get("id")}
            self.block("image", {**block, "extras": id}, key=(index, "image"))

    def _all_args(self, index: Any, kind: str, args: Any) -> None:
        """The arguments, if none of them have come in pieces."""
        if args is not None and self._is_new((index, "args")):
            self.tool_call(index=index, args=args_text(args), kind=kind)

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
            if self._is_new(key):
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

    def _args_delta(self, payload: dict[str, Any]) -> None:
        index = _place(payload)
        item, delta = self._items.get(index), payload.get("delta")
        if item is None:
            self.fail(StreamProtocolError(f"arguments for output item {index!r}, which is not there"))
        elif isinstance(delta, str) and delta:
            self._given.add((index, "args"))
            kind = "tool_call" if item.get("type") in CLIENT_CALLS else "server_tool_call"
            self.tool_call(index=index, args=delta, kind=kind)

    def _args_done(self, payload: dict[str, Any]) -> None:
        index = _place(payload)
        item = self._items.get(index)
        if item is not None:
            kind = "tool_call" if item.get("type") in CLIENT_CALLS else "server_tool_call"
            self._all_args(index, kind, payload.get("arguments", payload.get("input")))

    def _code_delta(self, payload: dict[str, Any]) -> None:
        """Code for the code interpreter, written as the JSON that its arguments are told as."""
        index, delta = _place(payload), payload.get("delta")
        if isinstance(delta, str) and delta and index in self._items:
            start = '{"code":"' if self._is_new((index, "code")) else ""
            args = start + json.dumps(delta)[1:-1]
            self.tool_call(index=index, args=args, kind="server_tool_call")

    def _partial_image(self, payload: dict[str, Any]) -> None:
        if _place(payload) in self._items:
            self._image(_place(payload), payload.get("partial_image_b64"), payload)

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

    # ---- bookkeeping -----------------------------------------------------------------------------

    def _is_new(self, key: Any) -> bool:
        """Whether `key` is told for the first time; it is from here on."""
        if key in self._given:
            return False
        self._given.add(key)
        return True

    def _belongs(self, key: Any, kind: str, number: int) -> None:
        """The block `number` is one of its item's."""
        self._parts.setdefault(key[0], []).append((kind, number))
