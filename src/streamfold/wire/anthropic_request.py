"""Requests in Anthropic Messages.

Reference: https://docs.anthropic.com/en/api/messages and the types of the vendor's SDK. What is
sent:

- System messages, wherever they stand, in order as the top-level `system`.
- Tool results as `tool_result` blocks at the head of one user message, together with what the user
  says next: the API wants all results of a turn there. Other messages stay apart.
- Standard blocks as Anthropic's, OpenAI's parts translated, Anthropic's own blocks as they are.
  Signatures, citations and native types come from `extras`, where the decoder put them.
- Blank text blocks are left out where there is other content, and so are assistant messages with
  no content: the API rejects both. Reasoning without a signature cannot be sent back.
- An unreadable tool call is sent with an empty input if a result answers it, else left out.
- Ids of tool calls that other vendors made are rewritten to the characters that are allowed.
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Final, NoReturn
from urllib.parse import quote

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block, standard_block
from ..errors import ConfigurationError
from ..messages import AIMessage, SystemMessage, ToolMessage
from .encoding import (
    Dropped,
    ToolChoice,
    Turn,
    decoded_text,
    function_tool,
    json_bytes,
    media,
    media_type,
    merged,
    native_value,
    other_fields,
    read_choice,
    turns,
    unknown_part,
    unpacked,
)
from .request import ChatRequest, HTTPRequest

__all__ = ["DEFAULT_MAX_TOKENS", "encode"]

DIALECT: Final = "Anthropic"
API_VERSION: Final = "2023-06-01"

#: `max_tokens` is required; this is sent where the caller says nothing.
DEFAULT_MAX_TOKENS: Final = 4096

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


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /v1/messages``.

    `max_tokens` defaults to `DEFAULT_MAX_TOKENS`, plus the thinking budget if there is one.
    The quirk `vertex` sends it as Vertex AI wants it. `extra["betas"]`, a list of names, becomes
    the `anthropic-beta` header. Raises ConfigurationError for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    system, messages = _conversation(request, dropped)
    body: dict[str, Any] = {"model": request.model, "max_tokens": _max_tokens(request)}
    if system:
        body["system"] = _plainest(system)
    body = {**body, "messages": messages, **_parameters(request, dropped)}
    extra = {key: value for key, value in request.extra.items() if key != "betas"}
    body = merged(body, extra, deep=("output_config",))
    dropped.warn()
    if "vertex" in request.quirks:
        return _for_vertex(request, body)
    headers = {"anthropic-version": API_VERSION, **_beta_header(request)}
    return HTTPRequest(path="/v1/messages", body=json_bytes(body), headers=headers)


def _for_vertex(request: ChatRequest, body: dict[str, Any]) -> HTTPRequest:
    """Vertex AI has the model in the path and the version in the body."""
    del body["model"]
    body.setdefault("anthropic_version", "vertex-2023-10-16")
    method = "streamRawPredict" if request.stream else "rawPredict"
    path = f"/models/{quote(request.model, safe='@')}:{method}"
    return HTTPRequest(path=path, body=json_bytes(body), headers=_beta_header(request))


def _beta_header(request: ChatRequest) -> dict[str, str]:
    betas = request.extra.get("betas")
    if not betas:
        return {}
    return {"anthropic-beta": betas if isinstance(betas, str) else ",".join(betas)}


# ---- parameters ----------------------------------------------------------------------------------


def _thinking(request: ChatRequest) -> Mapping[str, Any]:
    thinking = request.extra.get("thinking")
    return thinking if isinstance(thinking, Mapping) else {}


def _max_tokens(request: ChatRequest) -> int:
    if request.max_tokens is not None:
        return request.max_tokens
    budget = _thinking(request).get("budget_tokens")  # it counts towards max_tokens
    return DEFAULT_MAX_TOKENS + (budget if isinstance(budget, int) else 0)


def _parameters(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    if request.seed is not None:
        dropped.note("seed")
    fields = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": request.stop,
        "tools": [_tool(tool) for tool in request.tools] if request.tools else None,
        "tool_choice": _tool_choice(request),
        "output_config": _output_config(request) or None,
        "stream": request.stream or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _output_config(request: ChatRequest) -> dict[str, Any]:
    """How much effort and which format. Thinking itself is set by `thinking`, in `extra`."""
    config: dict[str, Any] = {}
    if request.reasoning_effort is not None:
        config["effort"] = request.reasoning_effort
    schema = _schema(request.response_format)
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    return config


def _schema(response_format: dict[str, Any] | None) -> Any:
    if response_format is None or response_format.get("type") == "text":
        return None
    named = response_format.get("json_schema")
    schema = (named if isinstance(named, Mapping) else response_format).get("schema")
    if response_format.get("type") != "json_schema" or not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"response_format is {shown(response_format)}: Anthropic takes "
            '{"type": "json_schema", "json_schema": {"schema": {...}}} only, no free JSON mode; '
            "or ask for a tool call"
        )
    return schema


# ---- tools ---------------------------------------------------------------------------------------

#: Server tools by their plain name, as the version that is sent. Newer ones: by their own type.
_SERVER_TOOLS: Final = {
    "web_search": "web_search_20250305",
    "web_fetch": "web_fetch_20250910",
    "code_execution": "code_execution_20250825",
}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = function_tool(tool)
    if function is None:
        version = _SERVER_TOOLS.get(str(tool.get("type")))
        return {"name": tool["type"], **tool, "type": version} if version else tool
    schema = function.parameters or {"properties": {}}
    shape = {
        "name": function.name,
        "description": function.description,
        "input_schema": {"type": "object", **schema},
        "strict": function.strict,
    }
    return {**{k: v for k, v in shape.items() if v is not None}, **function.rest}


def _tool_choice(request: ChatRequest) -> dict[str, Any] | None:
    choice = read_choice(request)
    single = request.parallel_tool_calls is False and bool(request.tools)
    if choice is None:
        return {"type": "auto", "disable_parallel_tool_use": True} if single else None
    sent = _wire_choice(choice)
    if sent["type"] in ("any", "tool") and _thinking(request).get("type") in _THINKS:
        raise ConfigurationError(
            f"tool_choice is {shown(request.tool_choice)}, but thinking is on: Anthropic then "
            "takes only 'auto' and 'none'"
        )
    if single and sent["type"] != "none":
        sent["disable_parallel_tool_use"] = True
    return {**sent, **choice.native}


_THINKS: Final = ("enabled", "adaptive")
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}


def _wire_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.kind == "named":
        return {"type": "tool", "name": choice.name}
    if choice.kind == "native":
        raise ConfigurationError(
            f"tool_choice is {shown(choice.native)}: expected a dict with the type auto, any, "
            "none, tool (with a name) or function"
        )
    return {"type": _CHOICES[choice.kind]}


# ---- messages ------------------------------------------------------------------------------------


def _conversation(request: ChatRequest, dropped: Dropped) -> tuple[list[Block], list[Block]]:
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
            yield {"role": role, "content": _plainest(blocks)}


def _is_result(block: Block) -> bool:
    return block.get("type") == "tool_result"


def _plainest(blocks: list[Block]) -> str | list[Block]:
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
    if mark is not None and blocks:
        blocks = [*blocks[:-1], {"cache_control": mark, **blocks[-1]}]
    if turn.message.name is not None and not isinstance(turn.message, ToolMessage):
        fields["name"] = turn.message.name
    for name in fields:
        turn.dropped.note(f"{name} of a message")
    return blocks


def _tool_result(message: ToolMessage, turn: Turn) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": _wire_id(message.tool_call_id)}
    if isinstance(message.content, str):
        block["content"] = message.content
    else:
        block["content"] = _plainest([b for b in _blocks(turn) if b.get("text") != ""])
    if message.status == "error":
        block["is_error"] = True
    return block


# ---- blocks --------------------------------------------------------------------------------------


def _block(block: Block, turn: Turn) -> Block | None:
    """A block as Anthropic takes it; None if it has no place in the request."""
    kind = block.get("type")
    if kind in NATIVE_BLOCKS or (kind == "image" and "source" in block):
        return block
    if kind in ("image_url", "input_audio") or (kind == "file" and "file" in block):
        block = standard_block(block)
        kind = block["type"]
    if kind in _INPUT_ONLY and isinstance(turn.message, AIMessage):
        turn.dropped.note(f"{kind} block in an assistant message")
        return None
    encoder = _BLOCKS.get(str(kind))
    if encoder is not None:
        return encoder(block, turn)
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


def _source(block: Block, kind: str, value: str) -> Block:
    if kind == "file_id":
        return {"type": "file", "file_id": value}
    if kind == "url":
        return {"type": "url", "url": value}
    return {"type": "base64", "media_type": media_type(block), "data": value}


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
    return _document(_source({"mime_type": "application/pdf", **block}, kind, value), block, turn)


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


#: Fields of the request body, besides the standard parameters, that are sent as they are.
BODY_FIELDS: Final = frozenset(
    [
        "anthropic_version",
        "betas",
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "mcp_servers",
        "output_config",
        "output_format",
        "service_tier",
        "speed",
        "system",
        "thinking",
        "thread",
        "top_k",
        "user_profile_id",
        "workspace_id",
    ]
)
