"""Earlier answers as input items of OpenAI Responses: from blocks and their `extras` to items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from .encoding import RESPONSES, Turn, json_text, native_value, other_fields, unknown_part
from .openai_responses_items import (
    CLIENT_CALLS,
    RESULT_FIELDS,
    SERVER_CALLS,
    Item,
    native_annotation,
    server_call,
)

__all__ = ["NATIVE_ITEMS", "answer_items"]

#: This API's own items, passed on as they are. A `reasoning` is one of them if it has a `summary`.
NATIVE_ITEMS: Final = frozenset(
    {
        *CLIENT_CALLS,
        *SERVER_CALLS,
        *RESULT_FIELDS,
        "additional_tools",
        "compaction",
        "compaction_trigger",
        "configuration_update",
        "custom_tool_call_output",
        "function_call_output",
        "item_reference",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_list_tools",
        "message",
        "program",
        "program_output",
    }
)
_MESSAGE_PARTS: Final = frozenset({"output_text", "refusal"})


class _Answer(msgspec.Struct):
    """An answer while its blocks are read. `sent` are its items."""

    sent: list[Item] = []

    def message_part(self, part: Block, fields: Item) -> None:
        """A part of a message with these fields; parts of one message follow one another."""
        head = {"role": "assistant", **fields}
        if "id" in fields:
            head = {"type": "message", "status": "completed", **head}
        last = self.sent[-1] if self.sent else {}
        if {k: v for k, v in last.items() if k != "content"} == head:
            last["content"].append(part)
        else:
            self.sent.append({**head, "content": [part]})

    def find(self, id: Any) -> Item | None:
        return next((item for item in reversed(self.sent) if item.get("id") == id), None)


def answer_items(turn: Turn) -> list[Item]:
    """The items of an assistant message."""
    message, answer = turn.message, _Answer()
    content = message.content
    if isinstance(content, str):
        extras = message.response_metadata.get("message_item")
        content = [{"type": "text", "text": content, "extras": extras}]
    for block in content:
        _read(block, turn, answer)
    if message.name is not None:
        turn.dropped.note("name of a message")
    return [_plainest(_with_extras(item, turn)) for item in _accepted(answer.sent, turn)]


def _read(block: Block, turn: Turn, answer: _Answer) -> None:
    kind = str(block.get("type"))
    reader = _READERS.get(kind)
    if kind in NATIVE_ITEMS or (kind == "reasoning" and "summary" in block):
        answer.sent.append(dict(block))
    elif kind in _MESSAGE_PARTS:
        answer.message_part(dict(block), {})
    elif reader is not None:
        reader(block, turn, answer)
    elif kind in KNOWN_BLOCK_TYPES:
        turn.dropped.note(f"{kind} block in an assistant message")
    else:
        unknown_part(block, RESPONSES, NATIVE_ITEMS | _MESSAGE_PARTS)


def _with_extras(item: Item, turn: Turn) -> Item:
    """Fields that the caller gave the message, such as `phase`, are those of its texts."""
    return {**item, **turn.message.extras} if item.get("role") == "assistant" else item


def _plainest(item: Item) -> Item:
    """A message without an id and with plain text only has a str for its content."""
    content = item.get("content")
    if item.get("role") != "assistant" or "type" in item or not isinstance(content, list):
        return item
    if any(part.keys() - {"annotations"} != {"type", "text"} for part in content):
        return item
    if any(part.get("annotations") for part in content):
        return item
    return {**item, "content": "".join(part["text"] for part in content)}


def _accepted(items: list[Item], turn: Turn) -> list[Item]:
    """The items without reasoning that the API cannot find; then the others have no ids either."""
    kept = [item for item in items if not _is_lost(item, turn)]
    return kept if len(kept) == len(items) else [_without_id(item) for item in kept]


def _is_lost(item: Item, turn: Turn) -> bool:
    """Whether it is reasoning of which neither the server nor the item holds anything."""
    kept = turn.message.response_metadata.get("store") is not False
    return item.get("type") == "reasoning" and not (
        kept or item.get("encrypted_content") or item.get("content")
    )


def _without_id(item: Item) -> Item:
    if item.get("type") not in ("message", *CLIENT_CALLS):
        return item
    drop = ("id", "status", "type") if item["type"] == "message" else ("id", "status")
    return {k: v for k, v in item.items() if k not in drop}


# ---- blocks --------------------------------------------------------------------------------------


def _extras(block: Block, turn: Turn) -> Item:
    return dict(block.get("extras") or {}) if turn.own else {}


def _text(block: Block, turn: Turn, answer: _Answer) -> None:
    fields = other_fields(block, turn, "text", "annotations")
    part: Block = {"type": "output_text", "text": block.get("text") or ""}
    notes = [note for each in block.get("annotations") or () if (note := native_annotation(each))]
    if turn.own and (notes or "id" in fields):
        part["annotations"] = notes
    part |= fields.pop("part", {})
    if part["text"] or "id" in fields:
        answer.message_part(part, fields)


def _reasoning(block: Block, turn: Turn, answer: _Answer) -> None:
    """Reasoning goes back to who sent it; without an id or its encrypted form it says nothing."""
    if not turn.own:
        turn.dropped.note("reasoning of another provider")
        return
    fields = _extras(block, turn)
    kind = fields.pop("type", "summary_text")
    if not ("id" in fields or "encrypted_content" in fields):
        return
    last = answer.sent[-1] if answer.sent else {}
    anew = last.get("type") != "reasoning" or last.get("id") != fields.get("id")
    if anew or (fields.keys() & last.keys()) - {"id"}:  # only the first block has the others
        last = {"type": "reasoning", **fields, "summary": []}
        answer.sent.append(last)
    if block.get("reasoning"):
        place = last.setdefault("content" if kind == "reasoning_text" else "summary", [])
        place.append({"type": kind, "text": block["reasoning"]})


def _tool_call(block: Block, turn: Turn, answer: _Answer) -> None:
    _send_call(block, json_text(block.get("args") or {}), turn, answer)


def _invalid_call(block: Block, turn: Turn, answer: _Answer) -> None:
    if block.get("id") in turn.answered:
        _send_call(block, block.get("args") or "", turn, answer)
    else:
        turn.dropped.note("unreadable tool call without a result")


def _send_call(block: Block, args: str, turn: Turn, answer: _Answer) -> None:
    if not block.get("id"):
        raise ConfigurationError(
            f"a tool call of {block.get('name')!r} has the id {block.get('id')!r}: expected a str, "
            "for its result names it"
        )
    fields = _extras(block, turn)
    kind = "custom_tool_call" if fields.pop("type", None) == "custom" else "function_call"
    call = {"type": kind, "call_id": block["id"], "name": block.get("name") or ""}
    status = {"status": "completed"} if "id" in fields else {}
    answer.sent.append({**call, CLIENT_CALLS[kind]: args, **status, **fields})


def _server_call(block: Block, turn: Turn, answer: _Answer) -> None:
    if not turn.own:
        turn.dropped.note(f"server tool call {block.get('name')} of another provider")
        return
    fields, args = _extras(block, turn), dict(block.get("args") or {})
    raw = fields.pop("raw_args", None)
    if raw is not None:
        fields.pop("error", None)  # ours: why it cannot be read
    kind = f"{block.get('name')}_call"
    shape = server_call(kind)
    item: Item = {"type": kind, "id": block.get("id"), "status": "completed"}
    if shape.as_text:
        item[shape.args] = json_text(args) if raw is None else raw
    elif shape.parts and args.keys() <= set(shape.parts):
        item |= args
    elif shape.args and "arguments" not in fields:
        item[shape.args] = args
    answer.sent.append({**item, **fields})


def _server_result(block: Block, turn: Turn, answer: _Answer) -> None:
    fields = _extras(block, turn)
    item = answer.find(block.get("tool_call_id"))
    if fields.get("type") in RESULT_FIELDS:
        answer.sent.append({RESULT_FIELDS[fields["type"]]: block.get("output"), **fields})
    elif turn.own and item is not None:
        output = server_call(str(item.get("type"))).output
        item |= {output: block["output"]} if output and "output" in block else {}
        item |= fields
    else:
        turn.dropped.note("server tool result of another provider")


def _image(block: Block, turn: Turn, answer: _Answer) -> None:
    """An image that the model made is a field of its call."""
    call = answer.find(_extras(block, turn).get("id"))
    if call is not None and call.get("type") == "image_generation_call":
        call["result"] = block.get("base64")
    else:
        turn.dropped.note("image block in an assistant message")


def _audio(block: Block, turn: Turn, answer: _Answer) -> None:
    transcript = (block.get("extras") or {}).get("transcript")
    if transcript:
        answer.message_part({"type": "output_text", "text": transcript}, {})
    else:
        turn.dropped.note("audio block in an assistant message")


def _non_standard(block: Block, turn: Turn, answer: _Answer) -> None:
    value = native_value(block, turn)
    if value is None:
        return
    if value.get("type") in _MESSAGE_PARTS or "id" in (block.get("extras") or {}):
        answer.message_part(value, _extras(block, turn))
    else:
        answer.sent.append(value)


Reader = Callable[[Block, Turn, _Answer], None]

_READERS: Final[Mapping[str, Reader]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool_call": _tool_call,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "server_tool_call": _server_call,
    "server_tool_result": _server_result,
    "image": _image,
    "audio": _audio,
    "non_standard": _non_standard,
}
