"""Requests to Google Gemini: the body and its parameters (the messages: `gemini_contents`).

Reference: https://ai.google.dev/api/generate-content, the types of the vendor's SDK and the
recordings. What is sent:

- Parameters go where the API has them: into `generationConfig`, its `thinkingConfig`, or the body
  itself. The vendor's fields may be named in camel or in snake case.
- Tools with plain JSON schemas, as `parametersJsonSchema`, and `responseJsonSchema` likewise: both
  APIs take them, with `$ref`, `anyOf` and the rest, for which `parameters` has no fields. A schema
  in Gemini's own form, with types in capitals, goes into `parameters`.
- Google's own tools in its own form, or by the names they have with others (`web_search`).
- `strict` functions by the mode in which the arguments are bound to their schemas.

The quirk `vertex` leaves out the one field that Vertex AI does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from ..coercion import shown
from ..errors import ConfigurationError
from .encoding import Dropped, FunctionTool, ToolChoice, function_tool, json_bytes, read_choice
from .gemini_contents import DIALECT, conversation, is_before_3
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode"]


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /models/{model}:generateContent``, or `streamGenerateContent`.

    Fields of `extra` go where they belong: into `generationConfig` and its `thinkingConfig`, or
    into the body itself. Raises ConfigurationError for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    extra = _Extra.of(request.extra)
    system, contents = conversation(request, dropped)
    body: dict[str, Any] = {"systemInstruction": {"parts": system}} if system else {}
    body |= {"contents": contents, **_tools(request, dropped)}
    config = {**_config(request, extra), **extra.config}
    thinking = {**_thinking(request, extra), **extra.thinking}
    if thinking:
        config["thinkingConfig"] = thinking
    if config:
        body["generationConfig"] = config
    tool_config = extra.body.pop("toolConfig", None)
    if tool_config is not None:
        body["toolConfig"] = {**body.get("toolConfig", {}), **_camel_keys(tool_config)}
    dropped.warn()
    return HTTPRequest(path=_path(request), body=json_bytes({**body, **extra.body}))


def _path(request: ChatRequest) -> str:
    """Tuned models have a folder of their own; that of the others may be named or not."""
    where, _, name = request.model.rpartition("/")
    if where.rpartition("/")[2] != "models" and where != "tunedModels":
        name = request.model
    folder = "tunedModels" if where == "tunedModels" else "models"
    method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
    return f"/{folder}/{quote(name, safe='@')}:{method}"


# ---- parameters ----------------------------------------------------------------------------------

_CONFIG_FIELDS: Final = frozenset(
    {
        "audioTimestamp",
        "audioTranscriptionConfig",
        "candidateCount",
        "continuationToken",
        "enableAffectiveDialog",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "imageConfig",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "modelConfig",
        "presencePenalty",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "routingConfig",
        "seed",
        "speechConfig",
        "stopSequences",
        "temperature",
        "topK",
        "topP",
        "translationConfig",
    }
)
_THINKING_FIELDS: Final = frozenset({"includeThoughts", "thinkingBudget", "thinkingLevel"})
_TOP_FIELDS: Final = frozenset(
    {
        "cachedContent",
        "generationConfig",
        "labels",
        "modelArmorConfig",
        "safetySettings",
        "serviceTier",
        "store",
        "systemInstruction",
        "thinkingConfig",
        "toolConfig",
    }
)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _snake(name: str) -> str:
    return re.sub("([A-Z])", r"_\1", name).lower()


def _camel_keys(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise ConfigurationError(f"{shown(fields)} is {type(fields).__name__}: expected a dict")
    return {_camel(str(key)): value for key, value in fields.items()}


class _Extra(msgspec.Struct):
    """The further fields of a request, each where it belongs and under its name on the wire."""

    config: dict[str, Any]
    thinking: dict[str, Any]
    body: dict[str, Any]

    @classmethod
    def of(cls, extra: Mapping[str, Any]) -> _Extra:
        found = cls({}, {}, {})
        for name, value in extra.items():
            found.add(name, value)
        # What the caller wrote as the vendor's own objects wins.
        found.config |= _camel_keys(found.body.pop("generationConfig", {}))
        for place in (found.body, found.config):
            found.thinking |= _camel_keys(place.pop("thinkingConfig", {}))
        return found

    def add(self, name: str, value: Any) -> None:
        camel = "candidateCount" if name == "n" else _camel(name)
        if camel in ("logprobs", "topLogprobs"):
            self.config |= _logprobs(value)
        elif camel in _CONFIG_FIELDS:
            self.config[camel] = value
        elif camel in _THINKING_FIELDS:
            self.thinking[camel] = _level(value) if camel == "thinkingLevel" else value
        elif camel == "safetySettings":
            self.body[camel] = _safety(value)
        else:
            self.body[camel if camel in _TOP_FIELDS else name] = value


def _logprobs(value: Any) -> dict[str, Any]:
    """OpenAI's users say True, or how many of each there shall be; here, these are two fields."""
    if isinstance(value, bool):
        return {"responseLogprobs": value}
    return {"responseLogprobs": True, "logprobs": value} if value else {}


def _level(word: Any) -> Any:
    return word.upper() if isinstance(word, str) else word


def _safety(settings: Any) -> Any:
    """A list of ``{"category", "threshold"}``, or the same as a dict from one to the other."""
    if not isinstance(settings, Mapping):
        return settings
    return [
        {"category": _word(category), "threshold": _word(threshold)}
        for category, threshold in settings.items()
    ]


def _word(value: Any) -> Any:
    """The value of a member of some enum, as other libraries give it."""
    return getattr(value, "value", value)


def _config(request: ChatRequest, extra: _Extra) -> dict[str, Any]:
    if request.parallel_tool_calls is False:
        raise ConfigurationError(
            "parallel_tool_calls is False, but Gemini cannot be told to make one call at a time"
        )
    fields = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": request.stop,
        "seed": request.seed,
        **_format(request.response_format),
    }
    if "responseSchema" in extra.config:
        del fields["responseJsonSchema"]
    if {"responseSchema", "responseJsonSchema"} & extra.config.keys():
        fields["responseMimeType"] = "application/json"  # required with a schema
    return {name: value for name, value in fields.items() if value is not None}


def _format(response_format: dict[str, Any] | None) -> dict[str, Any]:
    kind = "text" if response_format is None else response_format.get("type")
    schema = None
    if kind == "json_schema" and response_format is not None:
        named = response_format.get("json_schema")
        schema = (named if isinstance(named, Mapping) else response_format).get("schema")
    if kind not in ("text", "json_object") and not isinstance(schema, Mapping):
        raise ConfigurationError(
            f"response_format is {shown(response_format)}: expected a dict with the type text, "
            "json_object, or json_schema and then a schema"
        )
    return {
        "responseMimeType": None if kind == "text" else "application/json",
        "responseJsonSchema": None if schema is None else _plain_schema(schema),
    }


def _plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without the name of its standard, which is not one of the keywords that count."""
    return {key: value for key, value in schema.items() if key != "$schema"}


#: What an effort is worth in tokens of thought, as Google's own OpenAI endpoint has it.
_BUDGETS: Final = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def _thinking(request: ChatRequest, extra: _Extra) -> dict[str, Any]:
    """Gemini 3 has levels of thinking, Gemini 2.5 a budget for it; neither takes both. Who asks for
    thoughts by the parameter that all vendors share sees them, as with those."""
    effort = request.reasoning_effort
    if effort is None or {"thinkingBudget", "thinkingLevel"} & extra.thinking.keys():
        return {}
    if effort == "none":
        return {"thinkingBudget": 0}
    if not is_before_3(request.model):
        return {"includeThoughts": True, "thinkingLevel": _level(effort)}
    if effort not in _BUDGETS:
        raise ConfigurationError(
            f"reasoning_effort is {effort!r}: for {request.model} expected one of none, "
            f"{', '.join(_BUDGETS)}; thinking_budget= says it in tokens"
        )
    return {"includeThoughts": True, "thinkingBudget": _BUDGETS[effort]}


# ---- tools ---------------------------------------------------------------------------------------

#: Google's own tools by the names that users of other vendors know.
_SERVER_TOOLS: Final = {
    "web_search": "googleSearch",
    "google_search": "googleSearch",
    "google_search_retrieval": "googleSearchRetrieval",
    "google_maps": "googleMaps",
    "enterprise_web_search": "enterpriseWebSearch",
    "code_execution": "codeExecution",
    "code_interpreter": "codeExecution",
    "url_context": "urlContext",
    "web_fetch": "urlContext",
    "file_search": "fileSearch",
    "computer_use": "computerUse",
}
_DECLARATIONS: Final = ("functionDeclarations", "function_declarations")


def _tools(request: ChatRequest, dropped: Dropped) -> dict[str, Any]:
    tools = [(tool, function_tool(tool)) for tool in request.tools or ()]
    functions = [function for _, function in tools if function is not None]
    sent = [_native_tool(tool) for tool, function in tools if function is None]
    if functions:
        declared = [_declaration(function, dropped) for function in functions]
        sent.insert(0, {"functionDeclarations": declared})
    fields: dict[str, Any] = {"tools": sent} if sent else {}
    config = _tool_config(request, functions, sent)
    return {**fields, "toolConfig": config} if config else fields


def _native_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind is None:
        return dict(tool)
    name = _SERVER_TOOLS.get(str(kind))
    if name is None:
        raise ConfigurationError(
            f"the tool {shown(tool)} has the type {kind!r}: expected function, one of "
            f'{", ".join(_SERVER_TOOLS)}, or Gemini\'s own form, such as {{"googleSearch": {{}}}}'
        )
    return {name: {key: value for key, value in tool.items() if key not in ("type", "name")}}


def _declaration(function: FunctionTool, dropped: Dropped) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    schema = function.parameters
    if schema is not None:
        native = str(schema.get("type", "")).isupper()
        plain = schema if native else {"type": "object", **_plain_schema(schema)}
        declared["parameters" if native else "parametersJsonSchema"] = plain
    for key, value in function.rest.items():
        if _camel(key) in _DECLARATION_FIELDS:
            declared[key] = value
        else:
            dropped.note(f"{key} of a tool")
    return declared


_DECLARATION_FIELDS: Final = frozenset(
    {"behavior", "parametersJsonSchema", "response", "responseJsonSchema"}
)


def _tool_config(
    request: ChatRequest, functions: list[FunctionTool], sent: list[dict[str, Any]]
) -> dict[str, Any]:
    config: dict[str, Any] = {}
    calling = _calling(request, functions)
    if calling:
        config["functionCallingConfig"] = calling
    kinds = {key in _DECLARATIONS for tool in sent for key in tool}
    if len(kinds) == 2 and "vertex" not in request.quirks:
        # The two may be combined only if the answer tells what the server's tools did.
        config["includeServerSideToolInvocations"] = True
    return config


_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}


def _calling(request: ChatRequest, functions: list[FunctionTool]) -> dict[str, Any]:
    named = _with_declarations(request)
    choice = read_choice(named)
    if choice is not None and choice.kind == "native":
        return _native_choice(choice)
    callable_here = functions or any(map(_declares, named.tools or ()))
    if not callable_here and choice is not None:
        return _without_functions(choice, request)
    strict = any(function.strict for function in functions)
    if choice is None or choice.kind == "auto":
        # In this mode the arguments are bound to fit the schema; in ANY they are anyway.
        return {"mode": "VALIDATED"} if strict else {"mode": "AUTO"} if choice else {}
    calling: dict[str, Any] = {"mode": _MODES[choice.kind]}
    if choice.kind == "named":
        if choice.tool is not None and function_tool(choice.tool) is None:
            raise _not_forced(request)
        calling["allowedFunctionNames"] = [choice.name]
    return calling


def _with_declarations(request: ChatRequest) -> ChatRequest:
    """The request with the functions that native tools declare as tools of their own, so that
    their names count."""
    tools = [*(request.tools or ()), *(request.extra.get("tools") or ())]
    declared = [each for tool in tools for key in _DECLARATIONS for each in tool.get(key) or ()]
    return msgspec.structs.replace(request, tools=[*tools, *declared]) if declared else request


def _declares(tool: Mapping[str, Any]) -> bool:
    return any(tool.get(key) for key in _DECLARATIONS)


def _native_choice(choice: ToolChoice) -> dict[str, Any]:
    """Gemini's own form: ``{"mode": ...}``, or that under `functionCallingConfig`."""
    fields = _camel_keys(choice.native)
    calling = fields.get("functionCallingConfig", fields)
    if not isinstance(calling, Mapping) or "mode" not in calling:
        raise ConfigurationError(
            f"tool_choice is {shown(choice.native)}: expected a dict with the type auto, any, "
            "none or function (with a name), or Gemini's own with a mode"
        )
    return _camel_keys(calling)


def _without_functions(choice: ToolChoice, request: ChatRequest) -> dict[str, Any]:
    """Google's own tools are the model's to use; the API rejects a mode where no function is."""
    if choice.kind in ("auto", "none"):
        return {}
    raise _not_forced(request)


def _not_forced(request: ChatRequest) -> ConfigurationError:
    return ConfigurationError(
        f"tool_choice is {shown(request.tool_choice)}: Gemini can be made to call functions only, "
        "not its own tools"
    )


_FIELDS: Final = _CONFIG_FIELDS | _THINKING_FIELDS | _TOP_FIELDS

#: Fields of the request body, besides the standard parameters, that are sent as they are.
BODY_FIELDS: Final = _FIELDS | {_snake(name) for name in _FIELDS} | {"n", "top_logprobs"}

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset({"image", "audio", "video", "file", "text-plain"})
