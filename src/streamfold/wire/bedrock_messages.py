"""Messages as Bedrock Converse takes them: the conversation, block by block.

What is sent is said in `bedrock_request`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final

from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import AIMessage, SystemMessage, ToolMessage
from .bedrock_media import (
    DIALECT,
    encode_file,
    encode_media,
    encode_text,
    further_fields,
    leave_out,
    with_names,
)
from .encoding import Dropped, Turn, encoded, native_value, turns, unknown_part
from .request import ChatRequest

__all__ = ["cache_point", "conversation", "without_tools"]

#: The API's own blocks, by their one key; passed on as they are.
NATIVE_BLOCKS: Final = frozenset(
    {
        "audio",
        "cachePoint",
        "citationsContent",
        "document",
        "guardContent",
        "image",
        "json",  # in tool results
        "reasoningContent",
        "searchResult",
        "text",
        "toolAddition",
        "toolRemoval",
        "toolResult",
        "toolUse",
        "video",
    }
)

#: Stands for a tool result that says nothing, since blank texts are rejected.
NO_OUTPUT: Final = "(no output)"


class _Turn(Turn, frozen=True):
    """A turn, and the model that will read it."""

    model: str


def conversation(
    request: ChatRequest, model: str, dropped: Dropped
) -> tuple[list[Block], list[Block]]:
    """The `system` blocks and the `messages`. `model` is the name that tells the model's family."""
    system: list[Block] = []
    said: list[tuple[str, list[Block]]] = []
    for plain in turns(request, dropped):
        turn = _Turn(plain.message, plain.own, plain.answered, dropped, plain.past, model)
        blocks = _marked(_message_blocks(turn), turn)
        if isinstance(turn.message, SystemMessage):
            system.extend(_system_block(block) for block in blocks if not _is_blank(block))
        elif isinstance(turn.message, AIMessage):
            if blocks:
                said.append(("assistant", blocks))
        else:
            said.append(("user", blocks))
    return system, with_names(_messages(said))


def _messages(said: Iterable[tuple[str, list[Block]]]) -> list[Block]:
    """Roles must alternate, and the results of a turn come before what is said next."""
    messages = []
    for role, run in groupby(said, key=lambda one: one[0]):
        contents = sorted((blocks for _, blocks in run), key=lambda blocks: not _results(blocks))
        messages.append({"role": role, "content": [b for blocks in contents for b in blocks]})
    return messages


def _results(blocks: list[Block]) -> bool:
    return any("toolResult" in block for block in blocks)


def _message_blocks(turn: _Turn) -> list[Block]:
    if isinstance(turn.message, ToolMessage):
        return _tool_result(turn.message, turn)
    blocks = _blocks(turn)
    kept = _without_blanks(blocks)
    # An empty user message is the caller's to mend; the API's error says so.
    return kept if kept or isinstance(turn.message, AIMessage) else blocks


def _blocks(turn: _Turn) -> list[Block]:
    content = turn.message.content
    if isinstance(content, str):
        return [{"text": content}]
    return [sent for block in content for sent in _block(block, turn)]


def _without_blanks(blocks: list[Block]) -> list[Block]:
    """The API rejects texts of nothing but white space: they join the text before or after them,
    and where there is none, they are left out."""
    kept: list[Block] = []
    ahead = ""
    for block in blocks:
        text = block.get("text")
        if not isinstance(text, str):
            kept.append(block)
            ahead = ""
        elif text.strip():
            kept.append({**block, "text": ahead + text})
            ahead = ""
        elif kept and "text" in kept[-1]:
            kept[-1] = {**kept[-1], "text": kept[-1]["text"] + text}
        else:
            ahead += text
    return kept


def _system_block(block: Block) -> Block:
    if not block.keys() & {"text", "guardContent", "cachePoint"}:
        raise ConfigurationError(
            f"a system message has a {next(iter(block), None)} block: {DIALECT} takes text, "
            "guardContent and cachePoint there"
        )
    return block


def _marked(blocks: list[Block], turn: _Turn) -> list[Block]:
    """The message's own fields: only a cache mark has a place, after its last block."""
    fields = dict(turn.message.extras)
    if isinstance(turn.message, SystemMessage):
        fields.pop("role", None)
    mark = fields.pop("cache_control", None)
    if turn.message.name is not None and not isinstance(turn.message, ToolMessage):
        fields["name"] = turn.message.name
    for name in fields:
        turn.dropped.note(f"{name} of a message")
    return [*blocks, cache_point(mark)] if mark is not None and blocks else blocks


def cache_point(mark: Any) -> Block:
    """What Anthropic writes as a `cache_control` mark on a block is a block of its own here."""
    ttl = mark.get("ttl") if isinstance(mark, dict) else None
    return {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl else {})}}


def _tool_result(message: ToolMessage, turn: _Turn) -> list[Block]:
    """The result, and after it the cache points, which may not be inside."""
    blocks = _blocks(turn)
    points = [block for block in blocks if "cachePoint" in block]
    content = [block for block in blocks if block not in points and not _is_blank(block)]
    result: Block = {
        "toolUseId": wire_id(message.tool_call_id),
        "content": content or [{"text": NO_OUTPUT}],
    }
    if message.status == "error":  # not every model takes a status
        result["status"] = "error"
    return [{"toolResult": result}, *points]


def _is_blank(block: Block) -> bool:
    text = block.get("text")
    return isinstance(text, str) and not text.strip()


def wire_id(id: Any) -> str:
    """Ids must match ``[a-zA-Z0-9_.:-]{1,64}``; other vendors' do not always."""
    if not isinstance(id, str) or not id:
        raise ConfigurationError(
            f"a tool call has the id {id!r}: expected a str, for its result names it"
        )
    sent = re.sub(r"[^a-zA-Z0-9_.:-]", "_", id)
    if len(sent) > 64:
        sent = f"{sent[:47]}_{hashlib.sha256(id.encode()).hexdigest()[:16]}"
    return sent


# ---- blocks --------------------------------------------------------------------------------------


def _block(block: Block, turn: _Turn) -> list[Block]:
    """A block as the API takes it, and the cache point that it asks for."""
    kind = block.get("type")
    if kind in ("image", "document", "video", "audio") and kind in block:
        return [{kind: block[kind]}]  # as LangChain writes the API's own
    if kind is None and block.keys() & NATIVE_BLOCKS:
        return [block]
    if kind in _INPUT_ONLY and isinstance(turn.message, AIMessage) and not turn.own:
        turn.dropped.note(f"{kind} block in an assistant message")
        return []
    if kind not in _BLOCKS:
        if kind not in KNOWN_BLOCK_TYPES:
            unknown_part(block, DIALECT, NATIVE_BLOCKS)
        turn.dropped.note(f"{kind} block")
        return []
    sent = encoded(_BLOCKS, block, turn)
    mark = {**block, **(block.get("extras") or {})}.get("cache_control")
    return [] if sent is None else [sent] if mark is None else [sent, cache_point(mark)]


_INPUT_ONLY: Final = frozenset({"image", "audio", "video", "file", "text-plain"})


def _text(block: Block, turn: _Turn) -> Block:
    text = block.get("text") or ""
    leave_out(further_fields(block, turn, "text", "annotations", "citations"), block, turn)
    citations = [native for native in _natives(block, turn) if _can_return(native)]
    if not citations:
        return {"text": text}
    content = {"content": [{"text": text}]} if text else {}
    return {"citationsContent": {**content, "citations": citations}}


def _natives(block: Block, turn: _Turn) -> list[Block]:
    notes = (note.get("extras") or {} for note in block.get("annotations") or ())
    return [extras["native"] for extras in notes if turn.own and extras.get("native")]


def _can_return(citation: Block) -> bool:
    # Bedrock gives Claude these back in a form that Claude rejects (langchain-aws, 1.9).
    return "searchResultLocation" not in (citation.get("location") or {})


#: Models that take reasoning back without a signature (langchain-aws, 1.9). All others reject it.
_UNSIGNED: Final = ("openai.gpt-oss", "amazon.nova-2", "deepseek.v3", "minimax", "kimi")


def _reasoning(block: Block, turn: _Turn) -> Block | None:
    extras = block.get("extras") or {}
    if not _same_maker(turn):
        turn.dropped.note("reasoning of another provider")
        return None
    if "redacted_content" in extras:
        return {"reasoningContent": {"redactedContent": extras["redacted_content"]}}
    if "redacted_data" in extras:  # Anthropic's own API has it as text
        data = base64.b64encode(str(extras["redacted_data"]).encode()).decode()
        return {"reasoningContent": {"redactedContent": data}}
    inner = {"text": block.get("reasoning") or ""}
    if extras.get("signature"):
        inner["signature"] = extras["signature"]
    elif not inner["text"] or not any(name in turn.model for name in _UNSIGNED):
        return None
    return {"reasoningContent": {"reasoningText": inner}}


def _same_maker(turn: _Turn) -> bool:
    """Reasoning is sealed for its maker. Claude's seals hold at Anthropic, Bedrock and Vertex."""
    name = turn.message.response_metadata.get("model_name")
    if name is None:
        return turn.own
    by_claude = "claude" in str(name).lower()
    return by_claude == ("claude" in turn.model) and (turn.own or by_claude)


def _tool_use(block: Block, turn: _Turn) -> Block:
    use = {
        "toolUseId": wire_id(block.get("id")),
        "name": block.get("name"),
        "input": block.get("args") or {},
    }
    fields = further_fields(block, turn, "name", "args")
    fields.pop("type", None)  # OpenAI's kind of call
    return {"toolUse": {**use, **fields}}


def _invalid_call(block: Block, turn: _Turn) -> Block | None:
    """The API wants an object and a decent name; what was wrong with the call, its result says."""
    if block.get("id") not in turn.answered:
        turn.dropped.note("unreadable tool call without a result")
        return None
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", block.get("name") or "unknown")[:64]
    return _tool_use({**block, "args": {}, "name": name}, turn)


def _server_call(block: Block, turn: _Turn) -> Block | None:
    kind = (block.get("extras") or {}).get("block_type")
    if kind is None or not turn.own:
        turn.dropped.note(f"server tool call {block.get('name')} of another provider")
        return None
    sent = _tool_use(block, turn)
    sent["toolUse"]["type"] = kind
    return sent


def _server_result(block: Block, turn: _Turn) -> Block | None:
    kind = (block.get("extras") or {}).get("block_type")
    if kind is None or not turn.own:
        turn.dropped.note("server tool result of another provider")
        return None
    result = {
        "toolUseId": wire_id(block.get("tool_call_id")),
        "content": block.get("output") or [],
        "status": block.get("status") or "success",
        "type": kind,
    }
    return {
        "toolResult": {**result, **further_fields(block, turn, "tool_call_id", "status", "output")}
    }


_BLOCKS: Final[dict[str, Callable[[Block, _Turn], Block | None]]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool_call": _tool_use,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "server_tool_call": _server_call,
    "server_tool_result": _server_result,
    "image": encode_media("image"),
    "audio": encode_media("audio"),
    "video": encode_media("video"),
    "file": encode_file,
    "text-plain": encode_text,
    "non_standard": native_value,
}


# ---- tool calls where there are no tools ---------------------------------------------------------


def without_tools(messages: list[Block]) -> list[Block] | None:
    """The messages with tool calls and results as text, as the API wants them in a request without
    tools; None if there are none in them."""
    if not any(b.keys() & {"toolUse", "toolResult"} for m in messages for b in m["content"]):
        return None
    return [
        {**message, "content": [sent for block in message["content"] for sent in _as_text(block)]}
        for message in messages
    ]


def _as_text(block: Block) -> list[Block]:
    if "toolUse" in block:
        use = block["toolUse"]
        args = json.dumps(use.get("input") or {}, ensure_ascii=False)
        return [{"text": f"[Called {use.get('name')} with {args}]"}]
    if "toolResult" not in block:
        return [block]
    texts, others = [], []
    for part in block["toolResult"].get("content") or ():
        if "text" in part:
            texts.append(str(part["text"]))
        elif "json" in part:
            texts.append(json.dumps(part["json"], ensure_ascii=False))
        else:
            others.append(part)
    return [{"text": f"[Result: {' '.join(texts) or NO_OUTPUT}]"}, *others]
