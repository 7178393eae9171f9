"""Messages as Anthropic takes them: the conversation, block by block.

What is sent is said in `anthropic_request`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, Final, NoReturn

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import AIMessage, SystemMessage, ToolMessage
from .encoding import Dropped, Turn, encoded, native_value, other_fields, turns, unknown_part
from .media import decoded_text, media, media_type, unpacked
from .request import ChatRequest

__all__ = ["DIALECT", "NATIVE_BLOCKS", "conversation", "plainest"]

DIALECT: Final = "Anthropic"

#: Anthropic's own blocks, passed on as they are. An `image` is one of them if it has a `source`.
NATIVE_BLOCKS: Final = frozenset(
    {
        "advisor_tool_result",
        "bash_code_execution_tool_result",
        "browser_state",
        "code_execution_tool_result",
        "compaction",
        "container_upload",
        "document",
        "fallback",
        "mcp_tool_listing",
        "mcp_tool_result",
        "mcp_tool_use",
        "redacted_thinking",
        "search_result",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "thinking",
        "tool_addition",
        "tool_reference",
        "tool_removal",
        "tool_result",
        "tool_search_tool_result",
        "tool_use",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)


# ---- messages ------------------------------------------------------------------------------------


def conversation(request: ChatRequest, dropped: Dropped) -> tuple[list[Block], list[Block]]:
    """The `system` blocks and the messages."""
    system: list[Block] = []
    said: list[tuple[str, list[Block]]] = []
    for turn in turns(request, dropped):
        if isinstance(turn.message, SystemMessage):
            system.extend(_system_blocks(turn))
            continue
        role = "assistant" if isinstance(turn.message, AIMessage) else "user"
        blocks = _marked(_message_blocks(turn), turn)
        if blocks or role == "user":
            said.append((role, blocks))
    return system, list(_messages(said))


def _messages(said: Iterable[tuple[str, list[Block]]]) -> Iterable[Block]:
    for role, run in groupby(said, key=lambda one: one[0]):
        contents = [blocks for _, blocks in run]
        if any(_is_result(block) for blocks in contents for block in blocks):
            together = [block for blocks in contents for block in blocks]
            contents = [sorted(together, key=lambda block: not _is_result(block))]
        for blocks in contents:
            yield {"role": role, "content": plainest(blocks)}


def _is_result(block: Block) -> bool:
    return block.get("type") == "tool_result"


def plainest(blocks: list[Block]) -> str | list[Block]:
    """A str for one plain text."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _message_blocks(turn: Turn) -> list[Block]:
    if isinstance(turn.message, ToolMessage):
        return [_tool_result(turn.message, turn)]
    return _without_blanks(_blocks(turn), turn)


def _blocks(turn: Turn) -> list[Block]:
    content = turn.message.content
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [sent for block in content if (sent := _block(block, turn)) is not None]


def _without_blanks(blocks: list[Block], turn: Turn) -> list[Block]:
    """The API rejects an empty text always, and white space where it is all the text there is."""
    spoken = any(_is_text(block) and block["text"].strip() for block in blocks)
    kept = [
        block
        for block in blocks
        if not _is_text(block) or (block["text"] if spoken else block["text"].strip())
    ]
    # An empty user message is the caller's to mend; the API's error says so.
    return kept if kept or isinstance(turn.message, AIMessage) else blocks


def _is_text(block: Block) -> bool:
    return block.get("type") == "text" and isinstance(block.get("text"), str)


def _system_blocks(turn: Turn) -> list[Block]:
    blocks = _marked([block for block in _blocks(turn) if block.get("text") != ""], turn)
    for block in blocks:
        if block.get("type") != "text":
            raise ConfigurationError(
                f"a system message has a {block.get('type')} block: Anthropic takes only text there"
            )
    return blocks


def _marked(blocks: list[Block], turn: Turn) -> list[Block]:
    """The message's own fields: Anthropic's messages have none but role and content. A cache mark
    on a message is meant for all of it, and so belongs on its last block."""
    fields = dict(turn.message.extras)
    if isinstance(turn.message, SystemMessage):
        fields.pop("role", None)
    mark = fields.pop("cache_control", None)
    place = max((n for n, block in enumerate(blocks) if _takes_mark(block)), default=None)
    if mark is not None and place is not None:
        marked = {"cache_control": mark, **blocks[place]}
        blocks = [*blocks[:place], marked, *blocks[place + 1 :]]
    if turn.message.name is not None and not isinstance(turn.message, ToolMessage):
        fields["name"] = turn.message.name
    for name in fields:
        turn.dropped.note(f"{name} of a message")
    return blocks


def _takes_mark(block: Block) -> bool:
    """The API rejects cache marks on thinking."""
    return block.get("type") not in ("thinking", "redacted_thinking")


def _tool_result(message: ToolMessage, turn: Turn) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": _wire_id(message.tool_call_id)}
    if isinstance(message.content, str):
        block["content"] = message.content
    else:
        block["content"] = plainest([b for b in _blocks(turn) if b.get("text") != ""])
    if message.status == "error":
        block["is_error"] = True
    return block


# ---- blocks --------------------------------------------------------------------------------------


def _block(block: Block, turn: Turn) -> Block | None:
    """A block as Anthropic takes it; None if it has no place in the request."""
    kind = block.get("type")
    if kind in NATIVE_BLOCKS or (kind == "image" and "source" in block):
        return block
    if kind in _INPUT_ONLY and isinstance(turn.message, AIMessage):
        turn.dropped.note(f"{kind} block in an assistant message")
        return None
    if kind in _BLOCKS:
        return encoded(_BLOCKS, block, turn)
    if kind not in KNOWN_BLOCK_TYPES:
        unknown_part(block, DIALECT, NATIVE_BLOCKS)
    turn.dropped.note(f"{kind} block")
    return None


_INPUT_ONLY: Final = frozenset({"image", "audio", "video", "file", "text-plain"})

#: Fields that other vendors' parts have, and what our own decoders note: never sent.
_FOREIGN: Final = frozenset(
    {"detail", "error", "extra_content", "field", "filename", "index", "raw_args", "block_type"}
)


def _rest(block: Block, turn: Turn, *read: str) -> Block:
    """The further fields of a block: cache marks, callers, and whatever Anthropic added."""
    rest = other_fields(block, turn, *read)
    return {k: v for k, v in rest.items() if k not in _FOREIGN and not k.endswith("_delta")}


def _text(block: Block, turn: Turn) -> Block:
    sent = {"type": "text", "text": block.get("text") or ""}
    notes = (note.get("extras") or {} for note in block.get("annotations") or ())
    citations = [extras["native"] for extras in notes if extras.get("native")]
    if citations and turn.own:
        sent["citations"] = citations
    return {**sent, **_rest(block, turn, "text", "annotations")}


def _reasoning(block: Block, turn: Turn) -> Block | None:
    """Thinking counts only with its signature, which no one but Claude gives."""
    extras = block.get("extras") or {}
    if not _by_claude(turn):
        turn.dropped.note("reasoning of another provider")
        return None
    if "redacted_data" in extras:
        return {"type": "redacted_thinking", "data": extras["redacted_data"]}
    if "signature" not in extras:
        return None
    thinking = block.get("reasoning") or ""
    return {"type": "thinking", "thinking": thinking, "signature": extras["signature"]}


def _by_claude(turn: Turn) -> bool:
    # Signatures hold across Anthropic, Bedrock and Vertex.
    model = turn.message.response_metadata.get("model_name")
    return turn.own or "claude" in str(model).lower()


def _tool_use(block: Block, turn: Turn) -> Block:
    rest = _rest(block, turn, "name", "args")
    rest.pop("type", None)  # OpenAI's kind of call
    sent = {"type": "tool_use", "id": _wire_id(block.get("id")), "name": block.get("name")}
    return {**sent, "input": block.get("args") or {}, **rest}


def _invalid_call(block: Block, turn: Turn) -> Block | None:
    """The API wants an object and a decent name; what was wrong with the call, its result says."""
    if block.get("id") not in turn.answered:
        turn.dropped.note("unreadable tool call without a result")
        return None
    name = re.sub(r"[^a-zA-Z0-9_-]", "_", block.get("name") or "unknown")[:64]
    return {**_tool_use({**block, "args": {}}, turn), "name": name}


def _wire_id(id: Any) -> str:
    """Ids must match ``[a-zA-Z0-9_-]+``; other vendors' do not always."""
    if not isinstance(id, str) or not id:
        raise ConfigurationError(
            f"a tool call has the id {id!r}: expected a str, for its result names it"
        )
    return re.sub(r"[^a-zA-Z0-9_-]", "_", id)


def _server_call(block: Block, turn: Turn) -> Block | None:
    kind = (block.get("extras") or {}).get("block_type")
    if kind is None or not turn.own:
        turn.dropped.note(f"server tool call {block.get('name')} of another provider")
        return None
    sent = {"type": kind, "id": block.get("id"), "name": block.get("name")}
    return {**sent, "input": block.get("args") or {}, **_rest(block, turn, "name", "args")}


def _server_result(block: Block, turn: Turn) -> Block | None:
    kind = (block.get("extras") or {}).get("block_type")
    if kind is None or not turn.own:
        turn.dropped.note("server tool result of another provider")
        return None
    content = {"content": block["output"]} if "output" in block else {}
    rest = _rest(block, turn, "tool_call_id", "status", "output")
    return {"type": kind, "tool_use_id": block.get("tool_call_id"), **content, **rest}


# ---- media ---------------------------------------------------------------------------------------

_MEDIA_FIELDS: Final = ("url", "base64", "file_id", "mime_type")
PDF: Final = "application/pdf"


def _source(block: Block, kind: str, value: str) -> Block:
    if kind == "file_id":
        return {"type": "file", "file_id": value}
    if kind == "url":
        return {"type": "url", "url": value}
    return {"type": "base64", "media_type": media_type(block, DIALECT), "data": value}


def _text_source(text: str) -> Block:
    return {"type": "text", "media_type": "text/plain", "data": text}


def _image(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    source = _source(block, *media(block, DIALECT, "url", "base64", "file_id"))
    return {"type": "image", "source": source, **_rest(block, turn, *_MEDIA_FIELDS)}


def _file(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    kind, value = media(block, DIALECT, "url", "base64", "file_id")
    if kind == "base64" and str(block.get("mime_type")).startswith("text/"):
        return _document(_text_source(decoded_text(block)), block, turn)
    source = _source({"mime_type": PDF, **block}, kind, value)
    if source.get("media_type", PDF) != PDF:
        raise ConfigurationError(
            f"the file block has the mime_type {source['media_type']!r}: Anthropic reads PDF and "
            "text documents; images go as image blocks"
        )
    return _document(source, block, turn)


def _plain_text(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    kind, value = media(block, DIALECT, "text", "base64", "file_id")
    if kind == "file_id":
        return _document(_source(block, kind, value), block, turn)
    return _document(_text_source(value if kind == "text" else decoded_text(block)), block, turn)


def _document(source: Block, block: Block, turn: Turn) -> Block:
    name = other_fields(block, turn).get("filename")
    title = {"title": name} if name else {}
    return {"type": "document", "source": source, **title, **_rest(block, turn, *_DOCUMENT_FIELDS)}


_DOCUMENT_FIELDS: Final = (*_MEDIA_FIELDS, "text")


def _refused(block: Block, turn: Turn) -> NoReturn:
    raise ConfigurationError(
        f"the {block['type']} block {shown(block)} cannot be sent: Anthropic takes text, images "
        "and documents"
    )


_BLOCKS: Final[dict[str, Callable[[Block, Turn], Block | None]]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool_call": _tool_use,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "server_tool_call": _server_call,
    "server_tool_result": _server_result,
    "image": _image,
    "audio": _refused,
    "video": _refused,
    "file": _file,
    "text-plain": _plain_text,
    "non_standard": native_value,
}
