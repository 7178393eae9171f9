"""Requests in Anthropic Messages.

Reference: https://docs.anthropic.com/en/api/messages and the types of the vendor's SDK. What is
sent:

- System messages, wherever they stand, in order as the top-level `system`.
- Tool results as `tool_result` blocks at the head of one user message, together with what the user
  says next: the API wants all results of a turn there. Other messages stay apart.
- Standard blocks as Anthropic's, others' translated, Anthropic's own blocks as they are.
  Signatures, citations and native types come from `extras`, where the decoder put them.
- Blank text blocks are left out where there is other content, and so are assistant messages with
  no content: the API rejects both. Reasoning without a signature cannot be sent back.
- An unreadable tool call is sent with an empty input if a result answers it, else left out.
- `reasoning_effort` as an effort with adaptive thinking, for older models as a budget of tokens.
- Ids of tool calls that other vendors made are rewritten to the characters that are allowed.
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from ..coercion import shown
from ..errors import ConfigurationError
from .anthropic_messages import DIALECT, conversation, plainest
from .claude import check_cache_marks, reasoning_fields
from .encoding import (
    Dropped,
    ToolChoice,
    function_tool,
    json_bytes,
    merged,
    read_choice,
)
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "DEFAULT_MAX_TOKENS", "URL_BLOCKS", "encode"]

API_VERSION: Final = "2023-06-01"

#: `max_tokens` is required; this is sent where the caller says nothing.
DEFAULT_MAX_TOKENS: Final = 4096


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /v1/messages``.

    `max_tokens` defaults to `DEFAULT_MAX_TOKENS`, plus the thinking budget if there is one.
    The quirk `vertex` sends it as Vertex AI wants it. `extra["betas"]`, a list of names, becomes
    the `anthropic-beta` header. Raises ConfigurationError for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    system, messages = conversation(request, dropped)
    body: dict[str, Any] = {"model": request.model, "max_tokens": _max_tokens(request)}
    if system:
        body["system"] = plainest(system)
    body = {**body, "messages": messages, **_parameters(request, dropped)}
    extra = {key: value for key, value in request.extra.items() if key != "betas"}
    body = merged(body, extra, deep=("output_config",))
    check_cache_marks(_cache_marks(body))
    dropped.warn()
    if "vertex" in request.quirks:
        return _for_vertex(request, body)
    headers = {"anthropic-version": API_VERSION, **_beta_header(request)}
    return HTTPRequest(path="/v1/messages", body=json_bytes(body), headers=headers)


def _cache_marks(body: Mapping[str, Any]) -> int:
    """The breakpoints of the cache: those in blocks and tools, and the one for all of it."""
    system = body.get("system")
    blocks = [*(system if isinstance(system, list) else ()), *(body.get("tools") or ())]
    for message in body["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else ():
            inside = block.get("content")
            blocks += [block, *(inside if isinstance(inside, list) else ())]
    marked = sum(bool(isinstance(b, Mapping) and b.get("cache_control")) for b in blocks)
    return marked + bool(body.get("cache_control"))


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
    """What the request says of thinking: the caller's own words, else what the effort means."""
    thinking = request.extra.get("thinking")
    if thinking is None:
        thinking = _effort_fields(request).get("thinking")
    return thinking if isinstance(thinking, Mapping) else {}


def _effort_fields(request: ChatRequest) -> dict[str, Any]:
    effort, model = request.reasoning_effort, request.model.lower()
    if effort is None:
        return {}
    if "claude" not in model and effort != "none":  # behind some proxy: who knows which it is
        return {"output_config": {"effort": effort}}
    fields = reasoning_fields(effort, model, request.max_tokens)
    if fields["thinking"]["type"] == "adaptive":
        if _is_forced(request.tool_choice):  # a forced call leaves no room for thinking
            return {"output_config": fields["output_config"]}
        fields["thinking"]["display"] = "summarized"  # later models show none unless asked
    return fields


def _is_forced(choice: Any) -> bool:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind not in (None, False, "auto", "none")


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
        "thinking": _thinking(request) or None,
        "stream": request.stream or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _output_config(request: ChatRequest) -> dict[str, Any]:
    """How much effort and which format."""
    config: dict[str, Any] = dict(_effort_fields(request).get("output_config", {}))
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

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset({"image", "file"})
