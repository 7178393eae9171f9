"""Requests in OpenAI Responses, and which calls need this API rather than Chat Completions.

Reference: https://platform.openai.com/docs/api-reference/responses/create. What is sent:

- The conversation as `input` items, in its order: system messages under their role, what the user
  says, the items of earlier answers, and tool results as items of their own kind, which is told by
  the call they answer. A message of one plain text is sent as a str.
- The items of an answer of this API as they came, put together from its blocks and their `extras`;
  an answer of any other as plain text and calls, without ids.
- Reasoning that nothing follows is left out, for the API rejects it, and so is reasoning that the
  server has not kept (`store` was false) and did not send encrypted; the ids of what follows it go
  with it, for one is not taken without the other.
- Function tools are not strict unless they say so, as with Chat Completions: here the API's default
  would make every optional argument a required one. A tool in this API's own form is sent as it is.
- OpenAI's Chat parts translated, this API's own parts and items as they are.
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import AIMessage, ToolMessage
from .encoding import (
    RESPONSES,
    Dropped,
    ToolChoice,
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
from .media import decoded_text, media, media_type, unpacked
from .openai_responses_answer import NATIVE_ITEMS, answer_items
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode", "use_responses"]

#: This API's own parts of messages, passed on as they are.
NATIVE_PARTS: Final = frozenset(
    {"input_text", "input_image", "input_file", "output_text", "refusal"}
)


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /responses``.

    `logprobs` and `verbosity` in `extra` mean what they mean for Chat Completions. Raises
    ConfigurationError for what cannot be sent, stop words among it.
    """
    dropped = Dropped(RESPONSES)
    items = _input(turns(request, dropped))
    extra = _extra(request)
    body = {"model": request.model, "input": items, **_parameters(request, dropped)}
    if "max_output_tokens" in extra:
        body.pop("max_output_tokens", None)
    body = merged(body, extra, deep=("reasoning", "text"))
    dropped.warn()
    return HTTPRequest(path="/responses", body=json_bytes(body))


def _extra(request: ChatRequest) -> dict[str, Any]:
    """Further fields of the body, those of Chat Completions under this API's names."""
    extra = dict(request.extra)
    verbosity = extra.pop("verbosity", None)
    if verbosity is not None:
        extra["text"] = {"verbosity": verbosity, **(extra.get("text") or {})}
    if extra.pop("logprobs", None):
        extra["include"] = [*(extra.get("include") or ()), "message.output_text.logprobs"]
    options = extra.get("stream_options")
    if isinstance(options, Mapping):  # usage is always reported; asking for it is an error here
        extra["stream_options"] = {k: v for k, v in options.items() if k != "include_usage"}
        if not extra["stream_options"]:
            del extra["stream_options"]
    return extra


# ---- parameters ----------------------------------------------------------------------------------


def _parameters(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    if request.stop:
        raise ConfigurationError(
            f"stop is {shown(request.stop)}, but the Responses API has no stop words: leave it "
            "out, or use Chat Completions (use_responses_api=False)"
        )
    if request.seed is not None:
        dropped.note("seed")
    effort, form = request.reasoning_effort, request.response_format
    fields = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_tokens,
        "reasoning": None if effort is None else {"effort": effort},
        "text": None if form is None else {"format": _format(form)},
        **_tools(request),
        "stream": request.stream or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _format(response_format: Mapping[str, Any]) -> Mapping[str, Any]:
    named = response_format.get("json_schema")
    if response_format.get("type") != "json_schema" or not isinstance(named, Mapping):
        return response_format
    return {"type": "json_schema", "name": "response", **named}


def _tools(request: ChatRequest) -> dict[str, Any]:
    choice = read_choice(request)
    fields: dict[str, Any] = {"tool_choice": None if choice is None else _choice(choice)}
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
    if request.tools or request.extra.get("tools"):
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") == "function" and isinstance(tool.get("name"), str):
        return tool
    function = function_tool(tool)
    if function is None:
        return dict(_flat(tool, "custom", "grammar"))
    shape = {
        "type": "function",
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters or {"type": "object", "properties": {}},
        "strict": bool(function.strict),
    }
    return {**{k: v for k, v in shape.items() if v is not None}, **function.rest}


def _flat(value: Any, *wrappers: str) -> Any:
    """Chat Completions' ``{"type": "custom", "custom": {...}}`` without its inner dict, as it is
    written here; likewise what is inside."""
    if not isinstance(value, Mapping):
        return [_flat(each, *wrappers) for each in value] if isinstance(value, list) else value
    kind = value.get("type")
    inner = value.get(kind) if kind in wrappers else None
    if not isinstance(inner, Mapping):
        return (
            {**value, "format": _flat(value["format"], *wrappers)} if "format" in value else value
        )
    rest = {k: v for k, v in value.items() if k != kind}
    return _flat({**rest, **inner}, *wrappers)


def _choice(choice: ToolChoice) -> Any:
    if choice.kind == "native":
        native = _flat(choice.native, "custom", "allowed_tools")
        if isinstance(native.get("tools"), list):
            native = {**native, "tools": _flat(native["tools"], "custom", "function")}
        return native
    if choice.kind != "named":
        return choice.kind
    tool = choice.tool or {}
    if function_tool(tool) is not None:
        return {"type": "function", "name": choice.name}
    kind = tool.get("type")
    named = {"custom": {"name": choice.name}, "mcp": {"server_label": tool.get("server_label")}}
    return {"type": kind, **named.get(str(kind), {})}


# ---- messages ------------------------------------------------------------------------------------

Item = dict[str, Any]


def _input(said: Iterable[Turn]) -> list[Item]:
    items: list[Item] = []
    calls: dict[str, Item] = {}  # by `call_id`, and by id
    for turn in said:
        if isinstance(turn.message, AIMessage):
            sent = answer_items(turn)
            calls |= {key: item for item in sent for key in _names(item)}
            items.extend(sent)
            continue
        _end_answer(items)
        if isinstance(turn.message, ToolMessage):
            items.append(_result(turn.message, turn, calls))
        else:
            items.extend(_said(turn))
    _end_answer(items)
    return items


def _end_answer(items: list[Item]) -> None:
    """Reasoning that nothing of the answer follows is an error to the API."""
    while items and items[-1].get("type") == "reasoning":
        items.pop()


def _names(call: Item) -> list[str]:
    return [call[key] for key in ("id", "call_id") if "call_id" in call and call.get(key)]


def _said(turn: Turn) -> list[Item]:
    """A message that is not the model's; items among its parts stand on their own."""
    message = turn.message
    head = {"role": message.role, **message.extras}
    if message.name is not None:
        turn.dropped.note("name of a message")
    if isinstance(message.content, str):
        return [{**head, "content": message.content}]
    found = [part for block in message.content if (part := _part(block, turn)) is not None]
    sent: list[Item] = []
    for is_item, run in groupby(found, key=_is_item):
        parts = list(run)
        sent.extend(parts if is_item else [{**head, "content": _plainest(parts)}])
    return sent


def _is_item(part: Block) -> bool:
    return part.get("type") in NATIVE_ITEMS


def _plainest(parts: list[Block]) -> str | list[Block]:
    """A str for one plain text."""
    if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
        return str(parts[0]["text"])
    return parts


# ---- tool results --------------------------------------------------------------------------------


def _result(message: ToolMessage, turn: Turn, calls: Mapping[str, Item]) -> Item:
    """The result of a call, in the form of the call's kind."""
    call = calls.get(message.tool_call_id, {})
    head = {"call_id": call.get("call_id", message.tool_call_id)}
    parts: list[Block] = []
    if isinstance(message.content, str):
        parts = [{"type": "input_text", "text": message.content}]
    else:
        parts = [part for block in message.content if (part := _part(block, turn)) is not None]
    native = next((part for part in parts if _is_item(part)), None)
    if native is not None:
        return {**head, **native, **message.extras}
    make = _RESULTS.get(str(call.get("type")), _function_result)
    return {**make(head, parts, message), **message.extras}


def _function_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    return {"type": "function_call_output", **head, "output": _plainest(parts)}


def _custom_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    return {"type": "custom_tool_call_output", **head, "output": _plainest(parts)}


def _computer_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    for part in parts:
        if part["type"] == "input_image":
            shot: Item = {key: part[key] for key in ("image_url", "file_id") if key in part}
            shot["type"] = "computer_screenshot"
            return {"type": "computer_call_output", **head, "output": shot}
    raise ConfigurationError(
        f"the result of the computer call {message.tool_call_id!r} has no image: expected a "
        "screenshot as an image block"
    )


def _local_shell_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    return {"type": "local_shell_call_output", "id": head["call_id"], "output": _texts(parts)}


def _shell_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    failed = message.status == "error"
    output: Item = {
        "stdout": "",
        "stderr": "",
        "outcome": {"type": "exit", "exit_code": int(failed)},
    }
    output["stderr" if failed else "stdout"] = _texts(parts)
    return {"type": "shell_call_output", **head, "output": [output]}


def _patch_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    status = "failed" if message.status == "error" else "completed"
    sent = {"type": "apply_patch_call_output", **head, "status": status}
    return {**sent, "output": _texts(parts)}


def _search_result(head: Item, parts: list[Block], message: ToolMessage) -> Item:
    raise ConfigurationError(
        f"the result of the tool search {message.tool_call_id!r} is {shown(message.content)}: "
        'expected [{"type": "tool_search_output", "execution": "client", "status": "completed", '
        '"tools": [...]}]'
    )


def _texts(parts: Iterable[Block]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "input_text")


_RESULTS: Final[dict[str, Callable[[Item, list[Block], ToolMessage], Item]]] = {
    "custom_tool_call": _custom_result,
    "computer_call": _computer_result,
    "local_shell_call": _local_shell_result,
    "shell_call": _shell_result,
    "apply_patch_call": _patch_result,
    "tool_search_call": _search_result,
}


# ---- parts ---------------------------------------------------------------------------------------


def _part(block: Block, turn: Turn) -> Block | None:
    """A block as a part of a message, or an item that stands among them; None if it is neither."""
    kind = block.get("type")
    if kind in NATIVE_PARTS or kind in NATIVE_ITEMS:
        return block
    if kind in _PARTS:
        return encoded(_PARTS, block, turn)
    if kind not in KNOWN_BLOCK_TYPES:
        unknown_part(block, RESPONSES, NATIVE_PARTS | NATIVE_ITEMS)
    turn.dropped.note(f"{kind} block in a {turn.message.role} message")
    return None


def _text(block: Block, turn: Turn) -> Block:
    rest = other_fields(block, turn, "text", "annotations")
    return {"type": "input_text", "text": block.get("text") or "", **rest}


_MEDIA_FIELDS: Final = ("url", "base64", "file_id", "mime_type")


def _data_url(block: Block, dialect: str = "") -> str:
    return f"data:{media_type(block, dialect)};base64,{block['base64']}"


def _image(block: Block, turn: Turn) -> Block:
    kind, value = media(block, RESPONSES, "url", "base64", "file_id")
    name = "file_id" if kind == "file_id" else "image_url"
    source = {name: _data_url(block, RESPONSES) if kind == "base64" else value}
    return {"type": "input_image", **source, **other_fields(block, turn, *_MEDIA_FIELDS)}


def _file(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    kind, value = media(block, RESPONSES, "url", "base64", "file_id")
    rest = other_fields(block, turn, *_MEDIA_FIELDS, "text", "title", "context")
    if kind != "base64":
        return {"type": "input_file", "file_url" if kind == "url" else kind: value, **rest}
    block = {"mime_type": "application/pdf", **block}
    extension = mimetypes.guess_extension(media_type(block)) or ""
    name = {"filename": f"document{extension}"}  # data without a name is rejected
    return {"type": "input_file", **name, "file_data": _data_url(block), **rest}


def _plain_text(block: Block, turn: Turn) -> Block:
    """A text document: what is not a file is text, after its title and context."""
    block = unpacked(block)
    kind, value = media(block, RESPONSES, "text", "base64", "url", "file_id")
    if kind in ("url", "file_id"):
        return _file(block, turn)
    text = value if kind == "text" else decoded_text(block)
    head = [str(block[key]) for key in ("title", "context") if block.get(key)]
    rest = other_fields(block, turn, *_MEDIA_FIELDS, "text", "title", "context")
    return {"type": "input_text", "text": "\n\n".join([*head, text]), **rest}


def _refused(block: Block, turn: Turn) -> Block:
    raise ConfigurationError(
        f"the {block['type']} block {shown(block)} cannot be sent: the Responses API takes text, "
        "images and files"
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


# ---- which API -----------------------------------------------------------------------------------

#: Parameters that only this API takes.
_ONLY_HERE: Final = frozenset(
    "background background_options context_management conversation include instructions "
    "max_tool_calls previous_response_id prompt reasoning text truncation".split()
)
#: Models that only this API serves.
_MODELS_HERE: Final = re.compile(
    r"codex|deep-research|computer-use|(^|[/.:])(o\d+|gpt-[\d.]+)-pro(-\d|$)", re.IGNORECASE
)
#: Models that take no function tools elsewhere, unless they are told not to reason
#: (github.com/openai/openai-openapi/issues/541).
_TOOLS_HERE: Final = re.compile(r"(^|[/.:])gpt-(5\.([4-9]|\d\d)|[6-9]|\d\d)", re.IGNORECASE)
_TOOLS_ELSEWHERE: Final = (None, "function", "custom", "object")


def use_responses(params: Mapping[str, Any], tools: Iterable[Any] | None = None) -> bool:
    """Whether a call of OpenAI needs this API: `params` by their names, the model among them.

    It does for tools that the provider runs and other tools in this API's own form, for parameters
    that only this API has, and for models that are served, or take tools, only here.
    """
    bound = list(tools or params.get("tools") or ())
    model = str(params.get("model") or "")
    named = (params[name] for name in _ONLY_HERE & params.keys())
    if any(value is not None for value in named) or _MODELS_HERE.search(model):
        return True
    if any(_is_only_here(tool) for tool in bound):
        return True
    reasons = params.get("reasoning_effort") != "none"
    return bool(bound) and reasons and _TOOLS_HERE.search(model) is not None


def _is_only_here(tool: Any) -> bool:
    if not isinstance(tool, Mapping):
        return False
    kind = tool.get("type")
    return kind not in _TOOLS_ELSEWHERE or (kind == "custom" and "custom" not in tool)


#: Fields of the request body, besides the standard parameters, that are sent as they are.
BODY_FIELDS: Final = frozenset(
    "access_programs background background_options context_management conversation image include "
    "instructions logprobs max_tool_calls moderation previous_response_id prompt prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store "
    "stream_options text top_logprobs truncation user verbosity "
    # fields that vendors which speak this dialect add
    "include_reasoning models plugins presence_penalty frequency_penalty provider route "
    "search_parameters session_id top_k transforms".split()
)

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset({"image", "file", "text-plain"})
