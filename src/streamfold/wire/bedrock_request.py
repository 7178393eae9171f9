"""Requests in Bedrock Converse.

Reference: the API reference of `Converse` at docs.aws.amazon.com/bedrock and the service model in
botocore. What is sent:

- System messages, wherever they stand, in order as the top-level `system`.
- Messages of one role in a row as one message, since the API wants roles to alternate, tool results
  first. Texts of nothing but white space join their neighbours, for the API rejects them.
- Standard blocks as the API's, others' translated, the API's own blocks as they are.
  Signatures, citations and native types come from `extras`, where the decoder put them.
- A `cache_control` mark as a `cachePoint` after what it marks.
- What only one maker's models know (`thinking`, `top_k`, ...) in `additionalModelRequestFields`.
- Tool calls and results of the history as text where no tools are bound, or none may be called:
  the API takes them only together with tools, and has no choice "none".
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ..coercion import shown
from ..content import Block
from ..errors import ConfigurationError
from .bedrock_media import DIALECT
from .bedrock_messages import cache_point, conversation, without_tools
from .claude import MAX_CACHE_MARKS, check_cache_marks, reasoning_fields
from .encoding import (
    Dropped,
    FunctionTool,
    ToolChoice,
    function_tool,
    json_bytes,
    json_text,
    merged,
    read_choice,
)
from .request import ChatRequest, HTTPRequest, path_segment

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode"]

EVENT_STREAM: Final = "application/vnd.amazon.eventstream"

#: Fields of the body under the names of Python's LangChain, and the API's.
_CAMEL: Final = {
    "additional_model_request_fields": "additionalModelRequestFields",
    "additional_model_response_field_paths": "additionalModelResponseFieldPaths",
    "guardrail_config": "guardrailConfig",
    "guardrails": "guardrailConfig",
    "output_config": "outputConfig",
    "performance_config": "performanceConfig",
    "prompt_variables": "promptVariables",
    "request_metadata": "requestMetadata",
    "service_tier": "serviceTier",
}
#: Fields of one maker's models: they travel in `additionalModelRequestFields`.
_MODEL_FIELDS: Final = frozenset({"anthropic_beta", "reasoningConfig", "thinking", "top_k"})
#: Read here and not sent.
_READ: Final = frozenset({"base_model", "base_model_id", "cache_control", "system"})

#: Fields of the request body, besides the standard parameters, that are accepted as parameters.
BODY_FIELDS: Final = (
    frozenset(_CAMEL) | frozenset(_CAMEL.values()) | _MODEL_FIELDS | _READ
) | frozenset({"inferenceConfig", "toolConfig"})


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /model/{modelId}/converse`` or ``/converse-stream``.

    `base_model_id` names the model behind an ARN, whose family decides what can be asked of it.
    `system` goes before the system messages. Raises ConfigurationError for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    extra = _extra(request)
    family = str(extra.get("base_model_id") or extra.get("base_model") or request.model).lower()
    additional = _additional(request, extra, family)
    tools = _tools(request, family, additional, dropped)
    system, messages = conversation(request, family, dropped)
    system = [*_system(extra.get("system")), *system]
    if "cache_control" in extra:
        _cache(extra["cache_control"], family, system, messages, tools)
    check_cache_marks(_cache_points(system, messages, tools))
    body = {
        "messages": messages,
        "system": system,
        "inferenceConfig": _inference(request, additional, dropped),
        "toolConfig": tools,
        "outputConfig": _output(request, family),
        _ADDITIONAL: additional,
    }
    rest = {k: v for k, v in extra.items() if k not in _READ | _MODEL_FIELDS | {_ADDITIONAL}}
    body = merged({k: v for k, v in body.items() if v}, rest, deep=_DEEP)
    _check_tools(body, dropped)
    dropped.warn()
    return HTTPRequest(
        path=f"/model/{path_segment(request.model, 'model')}/converse{'-stream' * request.stream}",
        body=json_bytes(body),
        headers={"accept": EVENT_STREAM if request.stream else "application/json"},
    )


_ADDITIONAL: Final = "additionalModelRequestFields"
_DEEP: Final = ("inferenceConfig", "toolConfig", "outputConfig")


def _extra(request: ChatRequest) -> dict[str, Any]:
    """The further fields under the API's names."""
    extra = {_CAMEL.get(key, key): value for key, value in request.extra.items()}
    if isinstance(extra.get("serviceTier"), str):
        extra["serviceTier"] = {"type": extra["serviceTier"]}
    guardrail = extra.get("guardrailConfig")
    if isinstance(guardrail, Mapping):
        extra["guardrailConfig"] = {_camel(key): value for key, value in guardrail.items()}
    return extra


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _system(given: Any) -> list[Block]:
    if given is None:
        return []
    entries = [given] if isinstance(given, str | Mapping) else given
    return [{"text": entry} if isinstance(entry, str) else dict(entry) for entry in entries]


# ---- parameters ----------------------------------------------------------------------------------


def _inference(request: ChatRequest, additional: dict[str, Any], dropped: Dropped) -> Block:
    if request.seed is not None:
        dropped.note("seed")
    fields = {
        "maxTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": request.stop,
    }
    reasoning = additional.get("reasoningConfig")
    if isinstance(reasoning, Mapping) and reasoning.get("maxReasoningEffort") == "high":
        # Nova 2 rejects them then (user guide, "Extended thinking").
        for name in ("maxTokens", "temperature", "topP"):
            if fields.pop(name) is not None:
                dropped.note(f"{name} with high reasoning effort")
    return {name: value for name, value in fields.items() if value is not None}


def _additional(request: ChatRequest, extra: Mapping[str, Any], family: str) -> dict[str, Any]:
    """What only this maker's models know. What the caller says wins over what we make of it."""
    given = {key: extra[key] for key in sorted(_MODEL_FIELDS & extra.keys())}
    native = extra.get(_ADDITIONAL)
    return {**_effort(request, family), **given, **(native if isinstance(native, Mapping) else {})}


def _effort(request: ChatRequest, family: str) -> dict[str, Any]:
    effort = request.reasoning_effort
    if effort is None:
        return {}
    write = next((write for mark, write in _EFFORTS.items() if mark in family), None)
    return write(effort, family, request.max_tokens) if write else {}


def _nova_effort(effort: str, family: str, max_tokens: int | None) -> dict[str, Any]:
    if effort == "none":
        return {"reasoningConfig": {"type": "disabled"}}
    return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}}


def _plain_effort(effort: str, family: str, max_tokens: int | None) -> dict[str, Any]:
    return {"reasoning_effort": effort}


def _openai_effort(effort: str, family: str, max_tokens: int | None) -> dict[str, Any]:
    return {"reasoning": {"effort": effort}}


#: How the makers' models are told how hard to think, by a part of their names. For all others
#: there is the API's own `outputConfig.effort`.
_EFFORTS: Final[dict[str, Callable[[str, str, int | None], dict[str, Any]]]] = {
    "claude": reasoning_fields,
    "amazon.nova-2": _nova_effort,
    "openai.gpt-oss": _plain_effort,
    "openai.gpt-": _openai_effort,
    "moonshot": _plain_effort,
    "zai.glm-": _plain_effort,
    "deepseek.v3": _plain_effort,
}


def _output(request: ChatRequest, family: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.reasoning_effort is not None and not any(mark in family for mark in _EFFORTS):
        config["effort"] = request.reasoning_effort
    named = _named_schema(request.response_format)
    if named is not None:
        structure = {"jsonSchema": named}
        config["textFormat"] = {"type": "json_schema", "structure": structure}
    return config


def _named_schema(response_format: dict[str, Any] | None) -> dict[str, Any] | None:
    if response_format is None or response_format.get("type") == "text":
        return None
    inner = response_format.get("json_schema")
    named = inner if isinstance(inner, Mapping) else response_format
    schema = named.get("schema")
    if response_format.get("type") != "json_schema" or not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"response_format is {shown(response_format)}: {DIALECT} takes "
            '{"type": "json_schema", "json_schema": {"schema": {...}}} only, no free JSON mode; '
            "or ask for a tool call"
        )
    shape = {
        "schema": json_text(_closed(dict(schema))),
        "name": named.get("name"),
        "description": named.get("description"),
    }
    return {key: value for key, value in shape.items() if value}


def _closed(schema: Any) -> Any:
    """The API rejects object schemas that do not say ``additionalProperties: false``."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


# ---- tools ---------------------------------------------------------------------------------------

#: Server tools by their plain names: Amazon Nova's.
_SYSTEM_TOOLS: Final = {
    "web_search": "nova_grounding",
    "nova_grounding": "nova_grounding",
    "code_execution": "nova_code_interpreter",
    "code_interpreter": "nova_code_interpreter",
    "nova_code_interpreter": "nova_code_interpreter",
}
_NATIVE_TOOLS: Final = frozenset({"toolSpec", "systemTool", "cachePoint"})


def _tools(
    request: ChatRequest, family: str, additional: dict[str, Any], dropped: Dropped
) -> dict[str, Any]:
    """`toolConfig`. Tools that only Claude has, and how it shall use tools, join `additional`."""
    choice = read_choice(_with_names(request))
    if choice is not None and choice.kind == "none":
        return {}
    config: dict[str, Any] = {}
    specs = [s for tool in request.tools or () for s in _tool(tool, family, additional, dropped)]
    if specs:
        config["tools"] = specs
    sent = None if choice is None else _wire_choice(choice, request, additional)
    single = request.parallel_tool_calls is False and bool(request.tools)
    if single or (choice is not None and choice.native.get("disable_parallel_tool_use")):
        sent = _one_at_a_time(sent, family, additional)
    if sent and specs:
        config["toolChoice"] = sent
    elif sent:  # there are only Claude's own tools
        (kind, fields), *_ = sent.items()
        additional["tool_choice"] = {**additional.get("tool_choice", {}), "type": kind, **fields}
    return config


def _with_names(request: ChatRequest) -> ChatRequest:
    """The request with the API's own tools in a form whose names `read_choice` finds."""
    found = [
        {"type": "function", "name": name} if (name := _spec_name(tool)) else tool
        for tool in request.tools or ()
    ]
    return msgspec.structs.replace(request, tools=found) if request.tools else request


def _spec_name(tool: Mapping[str, Any]) -> Any:
    spec = tool.get("toolSpec") or tool.get("systemTool")
    return spec.get("name") if isinstance(spec, Mapping) else None


def _tool(
    tool: dict[str, Any], family: str, additional: dict[str, Any], dropped: Dropped
) -> list[Block]:
    function = function_tool(tool)
    if function is not None:
        return _spec(function, dropped)
    if tool.keys() & _NATIVE_TOOLS:
        return [tool]
    kind = str(tool.get("type"))
    if kind in _SYSTEM_TOOLS and "claude" not in family:
        return [{"systemTool": {"name": _SYSTEM_TOOLS[kind]}}]
    if "claude" in family and "name" in tool:  # computer, bash, text editor
        additional.setdefault("tools", []).append(tool)
        return []
    raise ConfigurationError(
        f"the tool {shown(tool)} is unknown: on Bedrock expected a function tool, a toolSpec, a "
        "systemTool, or 'web_search' or 'code_execution' with Amazon Nova"
    )


def _spec(function: FunctionTool, dropped: Dropped) -> list[Block]:
    schema = {"type": "object", **(function.parameters or {"properties": {}})}
    shape = {
        "name": function.name,
        "description": function.description or None,
        "inputSchema": {"json": schema},
        "strict": function.strict,
    }
    rest = dict(function.rest)
    mark = rest.pop("cache_control", None)
    for name in rest:
        dropped.note(f"{name} of a tool")
    spec = {"toolSpec": {key: value for key, value in shape.items() if value is not None}}
    return [spec] if mark is None else [spec, cache_point(mark)]


_CHOICES: Final = {"auto": "auto", "required": "any"}


def _wire_choice(choice: ToolChoice, request: ChatRequest, additional: Mapping[str, Any]) -> Block:
    if choice.kind == "native":
        if len(choice.native) != 1 or not choice.native.keys() & {"auto", "any", "tool"}:
            raise ConfigurationError(
                f"tool_choice is {shown(choice.native)}: expected a dict with the one key auto, "
                "any or tool, or one of OpenAI's or Anthropic's"
            )
        sent: Block = choice.native
    elif choice.kind == "named":
        sent = {"tool": {"name": choice.name}}
    else:
        sent = {_CHOICES[choice.kind]: {}}
    thinking = additional.get("thinking")
    thinks = isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
    if thinks and "auto" not in sent:
        raise ConfigurationError(
            f"tool_choice is {shown(request.tool_choice)}, but thinking is on: Claude then takes "
            "only 'auto' and 'none'"
        )
    return sent


def _one_at_a_time(sent: Block | None, family: str, additional: dict[str, Any]) -> Block | None:
    """No parallel calls: only Claude can be told, in Anthropic's words, beside the API's choice,
    which must not say the same thing twice (BerriAI/litellm#34347, #36536)."""
    if "claude" not in family:
        raise ConfigurationError(
            f"parallel_tool_calls is False, but on Bedrock only Claude can do that, not {family}"
        )
    choice: dict[str, Any] = {"disable_parallel_tool_use": True}
    additional["tool_choice"] = choice
    if sent is not None and "auto" not in sent:
        return sent
    choice["type"] = "auto"
    return None


def _check_tools(body: dict[str, Any], dropped: Dropped) -> None:
    """Without tools there can be no tool calls in the history: they become text."""
    named = body.get("additionalModelRequestFields") or {}
    if (body.get("toolConfig") or {}).get("tools") or named.get("tools"):
        return
    told = without_tools(body["messages"])
    if told is not None:
        body["messages"] = told
        dropped.note("tool calls and results without tools (they are sent as text)")


# ---- caching -------------------------------------------------------------------------------------


def _cache_points(system: list[Block], messages: list[Block], tools: dict[str, Any]) -> int:
    everything = [system, *(message["content"] for message in messages), tools.get("tools", [])]
    return sum(_is_point(block) for blocks in everything for block in blocks)


def _cache(
    control: Any, family: str, system: list[Block], messages: list[Block], tools: dict[str, Any]
) -> None:
    """Cache points after all that stays the same from turn to turn: instructions, the messages so
    far, tools. Places that have one already are left alone. Nova caches no tools, and all its
    caches last five minutes."""
    nova = "nova" in family
    point = cache_point({} if nova else control)
    last = messages[-1]["content"] if messages else []
    places = [system, last, [] if nova else tools.get("tools", [])]
    left = MAX_CACHE_MARKS - _cache_points(system, messages, tools)
    for place in places:
        if left > 0 and place and not any(_is_point(block) for block in place):
            place.append(point)
            left -= 1


def _is_point(block: Block) -> bool:
    return "cachePoint" in block


#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset()
