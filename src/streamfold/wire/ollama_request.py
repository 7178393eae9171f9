"""Requests to Ollama's chat API.

Reference: https://docs.ollama.com/api/chat and the server's own types (`api/types.go`). What is
sent:

- The content of a message as one str, for there is nothing else: texts of an assistant joined as
  they came, other texts on lines of their own, text documents among them.
- Images as base64 in `images` beside it. The server fetches nothing, so a URL is an error.
- Reasoning of Ollama's own answers as `thinking`, tool calls with their arguments as an object, and
  tool results with the name and the id of the call.
- Sampling parameters, and every other option of a model, in `options`.
- `think` from `reasoning_effort` or `reasoning`, `format` from `response_format`.
- The value of a `non_standard` block as fields of the message: it has no parts.

An unreadable tool call is sent with empty arguments if a result answers it, else left out. What
this API has no place for is left out with one warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

import msgspec

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from .encoding import (
    Dropped,
    Turn,
    encoded,
    function_tool,
    json_bytes,
    merged,
    native_value,
    other_fields,
    read_choice,
    turns,
    unknown_part,
)
from .media import decoded_text, media, unpacked
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode"]

DIALECT: Final = "Ollama"

#: Options of a model: they are sent inside `options`, wherever they were given.
OPTIONS: Final = frozenset(
    [
        "draft_num_predict",
        "frequency_penalty",
        "main_gpu",
        "min_p",
        "num_batch",
        "num_ctx",
        "num_gpu",
        "num_keep",
        "num_predict",
        "num_thread",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "use_mmap",
        # of older servers
        "embedding_only",
        "f16_kv",
        "logits_all",
        "low_vram",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "numa",
        "penalize_newline",
        "tfs_z",
        "use_mlock",
        "vocab_only",
    ]
)


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /api/chat``.

    Fields of `extra` that are options of a model go into `options`; `reasoning` there is another
    name for `think`. Raises ConfigurationError for what cannot be sent, a forced tool call among
    it: the API has no `tool_choice`.
    """
    dropped = Dropped(DIALECT)
    names = _call_names(request)
    body = {
        "model": request.model,
        "messages": [_message(turn, names) for turn in turns(request, dropped)],
        "stream": request.stream,  # the default is a stream
        **_parameters(request, dropped),
    }
    own = {*OPTIONS, "options", "reasoning"}
    body.update({k: v for k, v in request.extra.items() if k not in own})
    dropped.warn()
    accept = "application/x-ndjson" if request.stream else "application/json"
    return HTTPRequest(path="/api/chat", body=json_bytes(body), headers={"accept": accept})


# ---- parameters ----------------------------------------------------------------------------------


def _parameters(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    fields = {
        "tools": _tools(request, dropped),
        "format": _format(request.response_format),
        "think": _think(request),
        "options": _options(request) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _options(request: ChatRequest) -> dict[str, Any]:
    standard = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "num_predict": request.max_tokens,
        "stop": request.stop,
    }
    said = {name: value for name, value in standard.items() if value is not None}
    given = {name: value for name, value in request.extra.items() if name in OPTIONS}
    body = {"options": {**said, **given}}
    extra = {k: v for k, v in request.extra.items() if k == "options" and v is not None}
    options: dict[str, Any] = merged(body, extra, deep=("options",))["options"]
    return options


#: How hard to think. The words that servers know are low, medium and high, new ones also max.
_EFFORTS: Final[dict[Any, bool | str]] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "max",
}


def _think(request: ChatRequest) -> bool | str | None:
    wanted = request.extra.get("reasoning")
    if isinstance(wanted, Mapping):  # {"effort": "low"}
        wanted = wanted.get("effort")
    if wanted is None:
        wanted = request.reasoning_effort
    if wanted is None or isinstance(wanted, bool):
        return wanted
    if wanted not in _EFFORTS:
        raise ConfigurationError(
            f"the reasoning effort is {shown(wanted)}: Ollama takes True, False, or one of "
            f"{', '.join(_EFFORTS)}"
        )
    return _EFFORTS[wanted]


def _format(response_format: dict[str, Any] | None) -> Any:
    kind = None if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return "json"
    named = response_format.get("json_schema")
    schema = (named if isinstance(named, Mapping) else response_format).get("schema")
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"response_format is {shown(response_format)}: expected "
            '{"type": "json_object"} or {"type": "json_schema", "json_schema": {"schema": {...}}}'
        )
    return schema


# ---- tools ---------------------------------------------------------------------------------------


def _tools(request: ChatRequest, dropped: Dropped) -> list[dict[str, Any]] | None:
    choice = read_choice(request)
    if choice is not None and choice.kind not in ("auto", "none"):
        raise ConfigurationError(
            f"tool_choice is {shown(request.tool_choice)}: Ollama cannot be made to call a tool, "
            "only 'auto' and 'none' are possible; for an answer in a given form use response_format"
        )
    if not request.tools or (choice is not None and choice.kind == "none"):
        return None
    if request.parallel_tool_calls is False:
        raise ConfigurationError("parallel_tool_calls is False: Ollama cannot be told so")
    return [_tool(tool, dropped) for tool in request.tools]


def _tool(tool: dict[str, Any], dropped: Dropped) -> dict[str, Any]:
    function = function_tool(tool)
    if function is None:
        raise ConfigurationError(
            f"the tool {shown(tool)} cannot be sent: Ollama has no tools of its own, only functions"
        )
    for name in (*(["strict"] if function.strict else []), *function.rest):
        dropped.note(f"{name} of a tool")
    shape = {
        "name": function.name,
        "description": function.description,
        "parameters": {"type": "object", "properties": {}, **(function.parameters or {})},
    }
    return {"type": "function", "function": {k: v for k, v in shape.items() if v is not None}}


# ---- messages ------------------------------------------------------------------------------------


class _Parts(msgspec.Struct):
    """What a message holds, while its blocks are read."""

    texts: list[str] = []
    thinking: list[str] = []
    images: list[str] = []
    calls: list[Block] = []
    fields: dict[str, Any] = {}


def _message(turn: Turn, names: Mapping[str, str]) -> dict[str, Any]:
    message, parts = turn.message, _parts(turn)
    text = ("" if isinstance(message, AIMessage) else "\n").join(parts.texts)
    sent: dict[str, Any] = {"role": message.role, "content": text}
    if parts.thinking:
        sent["thinking"] = "".join(parts.thinking)
    if parts.images:
        sent["images"] = parts.images
    if parts.calls:
        sent["tool_calls"] = parts.calls
    if isinstance(message, ToolMessage):
        sent.update(_answered(message, names))
    elif message.name is not None:
        turn.dropped.note("name of a message")
    return {**sent, **_extras(message), **parts.fields}


def _extras(message: BaseMessage) -> dict[str, Any]:
    """Fields of a message that only its author knows. There is no role `developer`."""
    role = isinstance(message, SystemMessage)
    return {key: value for key, value in message.extras.items() if not (role and key == "role")}


def _call_names(request: ChatRequest) -> dict[str, str]:
    """The tool that each call of the conversation calls, by the call's id."""
    said = [m for m in request.messages if isinstance(m, AIMessage)]
    calls = [call for m in said for call in (*m.tool_calls, *m.invalid_tool_calls)]
    return {str(call["id"]): str(call["name"]) for call in calls if call["id"] and call["name"]}


def _answered(message: ToolMessage, names: Mapping[str, str]) -> dict[str, Any]:
    name = message.name or names.get(message.tool_call_id)
    named = {} if name is None else {"tool_name": name}
    return {**named, "tool_call_id": message.tool_call_id}


def _parts(turn: Turn) -> _Parts:
    parts, content = _Parts(), turn.message.content
    if isinstance(content, str):
        parts.texts.append(content)
        return parts
    for block in content:
        _block(block, turn, parts)
    return parts


def _block(block: Block, turn: Turn, parts: _Parts) -> None:
    kind = str(block.get("type"))
    readers = _ANSWER_BLOCKS if isinstance(turn.message, AIMessage) else _BLOCKS
    if kind in readers:
        encoded(readers, block, turn, parts)
    elif kind in KNOWN_BLOCK_TYPES:
        whose = "an assistant" if isinstance(turn.message, AIMessage) else f"a {turn.message.role}"
        turn.dropped.note(f"{kind} block in {whose} message")
    else:
        unknown_part(block, DIALECT, ())


def _text(block: Block, turn: Turn, parts: _Parts) -> None:
    parts.texts.append(block.get("text") or "")
    if not isinstance(turn.message, AIMessage):
        for name in other_fields(block, turn, "text", "annotations"):
            turn.dropped.note(f"{name} of a text block")


def _plain_text(block: Block, turn: Turn, parts: _Parts) -> None:
    """A text document: its title and context, then its text."""
    block = unpacked(block)
    kind, value = media(block, DIALECT, "text", "base64")
    head = [str(block[key]) for key in ("title", "context") if block.get(key)]
    text = value if kind == "text" else decoded_text(block)
    parts.texts.append("\n\n".join([*head, text]))


def _file(block: Block, turn: Turn, parts: _Parts) -> None:
    block = unpacked(block)
    if not str(block.get("mime_type")).startswith("text/"):
        _refused(block, turn, parts)
    _plain_text(block, turn, parts)


def _image(block: Block, turn: Turn, parts: _Parts) -> None:
    block = unpacked(block)
    parts.images.append(media(block, DIALECT, "base64")[1])


def _answer_image(block: Block, turn: Turn, parts: _Parts) -> None:
    if turn.own and block.get("base64"):
        parts.images.append(str(block["base64"]))
    else:
        turn.dropped.note("image block in an assistant message")


def _refused(block: Block, turn: Turn, parts: _Parts) -> NoReturn:
    raise ConfigurationError(
        f"the {block['type']} block {shown(block)} cannot be sent: Ollama takes text and images"
    )


def _native(block: Block, turn: Turn, parts: _Parts) -> None:
    parts.fields.update(native_value(block, turn) or {})


# ---- what the model said -------------------------------------------------------------------------


def _reasoning(block: Block, turn: Turn, parts: _Parts) -> None:
    if not turn.own:
        turn.dropped.note("reasoning of another provider")
    elif block.get("reasoning"):
        parts.thinking.append(block["reasoning"])


def _tool_call(block: Block, turn: Turn, parts: _Parts) -> None:
    parts.calls.append(_wire_call(block, block.get("args") or {}, turn))


def _invalid_call(block: Block, turn: Turn, parts: _Parts) -> None:
    """The server wants an object; what was wrong with the call, its result says."""
    if block.get("id") in turn.answered:
        parts.calls.append(_wire_call(block, {}, turn))
    else:
        turn.dropped.note("unreadable tool call without a result")


def _wire_call(block: Block, args: Any, turn: Turn) -> Block:
    extras = dict(block.get("extras") or {}) if turn.own else {}
    rest = extras.pop("function", None)
    function = {"name": block.get("name") or "", "arguments": args}
    id = {} if block.get("id") is None else {"id": block["id"]}
    inner = {**rest, **function} if isinstance(rest, Mapping) else function
    return {**id, "function": inner, **extras}


_Reader = Callable[[Block, Turn, _Parts], None]

_BLOCKS: Final[dict[str, _Reader]] = {
    "text": _text,
    "image": _image,
    "audio": _refused,
    "video": _refused,
    "file": _file,
    "text-plain": _plain_text,
    "non_standard": _native,
}

_ANSWER_BLOCKS: Final[dict[str, _Reader]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool_call": _tool_call,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "image": _answer_image,
    "non_standard": _native,
}


#: Fields of the request body, besides the standard parameters, that are sent as they are; the
#: options of a model inside `options`.
BODY_FIELDS: Final = OPTIONS | {
    "_debug_render_only",
    "format",
    "keep_alive",
    "logprobs",
    "options",
    "reasoning",
    "shift",
    "think",
    "top_logprobs",
    "truncate",
}

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset()
