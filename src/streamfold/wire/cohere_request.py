"""Requests to Cohere's chat API, version 2.

Reference: https://docs.cohere.com/v2/reference/chat and the types of the vendor's SDK. What is
sent:

- Standard blocks as Cohere's, others' translated, Cohere's own (`thinking`, `image_url`,
  `document`) as they are. A message of one plain text is sent as a str.
- A text document inside a tool result as a `document`, which the model can cite; elsewhere as text,
  for documents belong in the parameter `documents`.
- Of Cohere's own answers also the thinking, the tool plan and the citations.
- Assistant messages without content and calls are left out: the API rejects them.
- An unreadable tool call goes back with its raw text if a result answers it, else it is left out.
- `preamble`, as LangChain has it, as a system message before all others.

What this API has no place for is left out with one warning.
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
    json_text,
    native_value,
    other_fields,
    read_choice,
    turns,
    unknown_part,
)
from .media import decoded_text, media, media_type, unpacked
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode"]

DIALECT: Final = "Cohere"

#: Cohere's own parts, passed on as they are.
NATIVE_PARTS: Final = frozenset({"document", "image_url", "thinking"})

#: How many tokens a thought may take, for each effort; None: as many as it wants.
THINKING_BUDGETS: Final[dict[str, int | None]] = {
    "minimal": 512,
    "low": 2048,
    "medium": 8192,
    "high": None,
    "xhigh": None,
    "max": None,
}


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /v2/chat``.

    A choice of one tool among several is sent as that tool alone, required. Raises
    ConfigurationError for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    said = (_message(turn) for turn in turns(request, dropped))
    messages = [message for message in said if message is not None]
    extra = dict(request.extra)
    preamble = extra.pop("preamble", None)
    if preamble:
        messages.insert(0, {"role": "system", "content": preamble})
    if "top_k" in extra:
        extra.setdefault("k", extra.pop("top_k"))
    body = {"model": request.model, "messages": messages, **_parameters(request, dropped), **extra}
    dropped.warn()
    return HTTPRequest(path="/v2/chat", body=json_bytes(body))


# ---- parameters ----------------------------------------------------------------------------------


def _parameters(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    fields = {
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "p": request.top_p,
        "seed": request.seed,
        "stop_sequences": request.stop,
        "thinking": _thinking(request.reasoning_effort),
        "response_format": _response_format(request.response_format),
        **_tools(request, dropped),
        "stream": request.stream or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _thinking(effort: str | None) -> dict[str, Any] | None:
    if effort is None:
        return None
    if effort == "none":
        return {"type": "disabled"}
    if effort not in THINKING_BUDGETS:
        raise ConfigurationError(
            f"reasoning_effort is {shown(effort)}: expected one of none, "
            f"{', '.join(THINKING_BUDGETS)}; or give thinking= as Cohere takes it"
        )
    budget = THINKING_BUDGETS[effort]
    return {"type": "enabled", **({} if budget is None else {"token_budget": budget})}


def _response_format(response_format: dict[str, Any] | None) -> Any:
    """Cohere has one type for JSON of any form and of a given one."""
    if response_format is None or response_format.get("type") != "json_schema":
        return response_format
    named = response_format.get("json_schema")
    schema = (named if isinstance(named, Mapping) else response_format).get("schema")
    if not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"response_format is {shown(response_format)}: expected "
            '{"type": "json_schema", "json_schema": {"schema": {...}}}'
        )
    return {"type": "json_object", "json_schema": schema}


# ---- tools ---------------------------------------------------------------------------------------


def _tools(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    if request.tool_choice in ("REQUIRED", "NONE"):
        request = msgspec.structs.replace(request, tool_choice=request.tool_choice.lower())
    choice = read_choice(request)
    if choice is not None and choice.kind == "native":
        raise ConfigurationError(
            f"tool_choice is {shown(choice.native)}: Cohere takes 'auto', 'any', 'none', or the "
            "name of a tool"
        )
    if request.parallel_tool_calls is False and request.tools:
        raise ConfigurationError("parallel_tool_calls is False: Cohere cannot be told so")
    named = choice.tool if choice is not None and choice.kind == "named" else None
    tools = [named] if named is not None else request.tools or ()
    functions = [_tool(tool, dropped) for tool in tools]
    strict = any(tool["function"].pop("strict", None) for tool in functions)
    word = None if choice is None else _CHOICES[choice.kind]
    return {
        "tools": functions or None,
        "strict_tools": True if strict else None,
        "tool_choice": word,
    }


_CHOICES: Final = {"auto": None, "none": "NONE", "required": "REQUIRED", "named": "REQUIRED"}


def _tool(tool: dict[str, Any], dropped: Dropped) -> dict[str, Any]:
    function = function_tool(tool)
    if function is None:
        raise ConfigurationError(
            f"the tool {shown(tool)} cannot be sent: Cohere has no tools of its own, only functions"
        )
    for name in function.rest:
        dropped.note(f"{name} of a tool")
    shape = {
        "name": function.name,
        "description": function.description,
        "parameters": {"type": "object", "properties": {}, **(function.parameters or {})},
        "strict": function.strict,
    }
    return {"type": "function", "function": {k: v for k, v in shape.items() if v is not None}}


# ---- messages ------------------------------------------------------------------------------------


def _message(turn: Turn) -> dict[str, Any] | None:
    message = turn.message
    if message.name is not None and not isinstance(message, ToolMessage):
        turn.dropped.note("name of a message")
    if isinstance(message, AIMessage):
        return _assistant(turn)
    sent: dict[str, Any] = {"role": message.role, **_extras(message)}
    if isinstance(message, ToolMessage):
        sent["tool_call_id"] = message.tool_call_id
    sent["content"] = _content(turn)
    return sent


def _extras(message: BaseMessage) -> dict[str, Any]:
    """Fields of a message that only its author knows. There is no role `developer`."""
    role = isinstance(message, SystemMessage)
    return {key: value for key, value in message.extras.items() if not (role and key == "role")}


def _content(turn: Turn) -> str | list[Block]:
    content = turn.message.content
    if isinstance(content, str):
        return content
    parts = [part for block in content if (part := _part(block, turn)) is not None]
    return str(parts[0]["text"]) if len(parts) == 1 and _is_plain(parts[0]) else parts


def _is_plain(part: Block) -> bool:
    return part.keys() == {"type", "text"} and part["type"] == "text"


def _part(block: Block, turn: Turn) -> Block | None:
    """A block as a part of a message; None if it has no place there."""
    kind = str(block.get("type"))
    if kind in NATIVE_PARTS:
        return block
    if kind in _PARTS:
        return encoded(_PARTS, block, turn)
    if kind not in KNOWN_BLOCK_TYPES:
        unknown_part(block, DIALECT, NATIVE_PARTS)
    turn.dropped.note(f"{kind} block in a {turn.message.role} message")
    return None


def _text(block: Block, turn: Turn) -> Block:
    if not isinstance(turn.message, AIMessage):
        for name in other_fields(block, turn, "text", "annotations"):
            turn.dropped.note(f"{name} of a text block")
    return {"type": "text", "text": block.get("text") or ""}


def _image(block: Block, turn: Turn) -> Block:
    kind, value = media(block, DIALECT, "url", "base64")
    if isinstance(turn.message, ToolMessage):
        raise ConfigurationError(
            f"the image block {shown(block)} cannot be sent in a tool result: Cohere takes text "
            "and documents there"
        )
    url = value if kind == "url" else f"data:{media_type(block)};base64,{value}"
    detail = other_fields(block, turn).get("detail")
    return {
        "type": "image_url",
        "image_url": {"url": url, **({"detail": detail} if detail else {})},
    }


def _plain_text(block: Block, turn: Turn) -> Block:
    """A text document: a `document` where the API takes one, else text after title and context."""
    block = unpacked(block)
    kind, value = media(block, DIALECT, "text", "base64")
    text = value if kind == "text" else decoded_text(block)
    named = {key: str(block[key]) for key in ("title", "context") if block.get(key)}
    if isinstance(turn.message, ToolMessage):
        id = {} if block.get("id") is None else {"id": str(block["id"])}
        return {"type": "document", "document": {**id, "data": {**named, "text": text}}}
    return {"type": "text", "text": "\n\n".join([*named.values(), text])}


def _file(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    if not str(block.get("mime_type")).startswith("text/"):
        _refused(block, turn)
    return _plain_text(block, turn)


def _refused(block: Block, turn: Turn) -> NoReturn:
    raise ConfigurationError(
        f"the {block['type']} block {shown(block)} cannot be sent: Cohere takes text, images and "
        "text documents"
    )


_PARTS: Final[dict[str, Callable[[Block, Turn], Block | None]]] = {
    "text": _text,
    "image": _image,
    "audio": _refused,
    "video": _refused,
    "file": _file,
    "text-plain": _plain_text,
    "non_standard": native_value,
}


# ---- what the model said -------------------------------------------------------------------------


class _Answer(msgspec.Struct):
    """An assistant message while its blocks are read."""

    parts: list[Block] = []
    calls: list[Block] = []
    citations: list[Block] = []


def _assistant(turn: Turn) -> dict[str, Any] | None:
    message, answer = turn.message, _Answer()
    if isinstance(message.content, str):
        answer.parts = [{"type": "text", "text": message.content}] if message.content else []
    else:
        for block in message.content:
            _answer_block(block, turn, answer)
    parts = [part for part in answer.parts if not _is_plain(part) or part["text"]]
    sent: dict[str, Any] = {"role": message.role, **message.extras}
    if parts:
        sent["content"] = parts[0]["text"] if len(parts) == 1 and _is_plain(parts[0]) else parts
    if answer.calls:
        sent["tool_calls"] = answer.calls
    sent.update(_kept(turn, answer))
    return sent if "content" in sent or "tool_calls" in sent else None


def _kept(turn: Turn, answer: _Answer) -> dict[str, Any]:
    """What the decoder kept beside the content, to go back to Cohere: plan and citations."""
    if not turn.own:
        return {}
    metadata = turn.message.response_metadata
    kept: dict[str, Any] = {}
    if answer.calls and metadata.get("tool_plan"):
        kept["tool_plan"] = metadata["tool_plan"]
    citations = [*answer.citations, *(metadata.get("citations") or ())]
    if citations:
        kept["citations"] = citations
    return kept


def _answer_block(block: Block, turn: Turn, answer: _Answer) -> None:
    kind = str(block.get("type"))
    reader = _ANSWER_BLOCKS.get(kind)
    if reader is not None:
        reader(block, turn, answer)
    elif kind in _INPUT_ONLY and kind not in block:
        turn.dropped.note(f"{kind} block in an assistant message")
    elif (part := _part(block, turn)) is not None:
        answer.parts.append(part)


_INPUT_ONLY: Final = frozenset({"image", "audio", "video", "file", "text-plain"})


def _answer_text(block: Block, turn: Turn, answer: _Answer) -> None:
    answer.parts.append(_text(block, turn))
    if turn.own:
        notes = (_native_citation(note) for note in block.get("annotations") or ())
        answer.citations.extend(note for note in notes if note)


def _native_citation(note: Mapping[str, Any]) -> Block | None:
    """A citation as it came; None for notes that Cohere did not make."""
    extras = note.get("extras") or {}
    if note.get("type") != "citation" or not isinstance(extras.get("sources"), list):
        return None
    fields = {"start": "start_index", "end": "end_index", "text": "cited_text"}
    return {**{name: note[ours] for name, ours in fields.items() if ours in note}, **extras}


def _reasoning(block: Block, turn: Turn, answer: _Answer) -> None:
    if not turn.own:
        turn.dropped.note("reasoning of another provider")
    elif block.get("reasoning"):
        answer.parts.append({"type": "thinking", "thinking": block["reasoning"]})


def _tool_call(block: Block, turn: Turn, answer: _Answer) -> None:
    answer.calls.append(_wire_call(block, json_text(block.get("args") or {}), turn))


def _invalid_call(block: Block, turn: Turn, answer: _Answer) -> None:
    if block.get("id") in turn.answered:
        answer.calls.append(_wire_call(block, block.get("args") or "", turn))
    else:
        turn.dropped.note("unreadable tool call without a result")


def _wire_call(block: Block, args: str, turn: Turn) -> Block:
    extras = dict(block.get("extras") or {}) if turn.own else {}
    id = {} if block.get("id") is None else {"id": block["id"]}
    function = {"name": block.get("name") or "", "arguments": args}
    return {**id, "type": "function", "function": function, **extras}


_ANSWER_BLOCKS: Final[dict[str, Callable[[Block, Turn, _Answer], None]]] = {
    "text": _answer_text,
    "reasoning": _reasoning,
    "tool_call": _tool_call,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
}


#: Fields of the request body, besides the standard parameters, that are sent as they are.
BODY_FIELDS: Final = frozenset(
    {
        "citation_options",
        "documents",
        "frequency_penalty",
        "k",
        "logprobs",
        "p",
        "preamble",
        "presence_penalty",
        "priority",
        "raw_prompting",
        "safety_mode",
        "strict_tools",
        "thinking",
        "top_k",
    }
)

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset({"image"})
