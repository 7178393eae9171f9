"""What a model is told of its tools: every kind of definition in one shape, names checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from .coercion import shown
from .errors import ConfigurationError
from .schema import (
    Rules,
    describe,
    for_tool,
    function_name,
    function_schema,
    is_object_type,
    rules_of,
    schema_of,
)
from .wire.encoding import function_tool, read_choice, tool_name
from .wire.request import ChatRequest

__all__ = ["bound_tools", "checked_description", "checked_name", "tool_definition"]

#: Names that some vendor takes: letters of any script, digits, `_`, `-`, `.` and `:`.
ANY_NAME: Final = re.compile(r"[\w.:-]{1,128}")

#: Names that a vendor, or all vendors of a dialect, take.
_NAMES: Final = {
    "openai": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    "azure_openai": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    "anthropic": re.compile(r"[a-zA-Z0-9_-]{1,128}"),
    "bedrock": re.compile(r"[a-zA-Z0-9_-]{1,64}"),
    "gemini": re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}"),
    "cohere": re.compile(r"[a-zA-Z0-9_.:-]{1,128}"),
}


#: The `extras` of a tool that a vendor, or all vendors of a dialect, take beside its definition;
#: the others are for other vendors.
_EXTRAS: Final = {
    "anthropic": frozenset(
        {
            "allowed_callers",
            "cache_control",
            "defer_loading",
            "eager_input_streaming",
            "input_examples",
        }
    ),
    "bedrock": frozenset({"cache_control"}),
    "openai": frozenset({"defer_loading"}),
    "openrouter": frozenset({"cache_control"}),
}


@runtime_checkable
class Described(Protocol):
    """A tool that knows what there is to tell of it, as `Tool` does."""

    name: str
    description: str
    schema: dict[str, Any]
    extras: dict[str, Any]


def bound_tools(
    tools: Any,
    choice: Any = None,
    *,
    strict: bool | None = None,
    vendor: str = "",
    dialect: str = "",
) -> list[dict[str, Any]]:
    """The definitions of `tools` as a request carries them; see `tool_definition`.

    Raises ConfigurationError for what is no tool, for a name that the vendor does not take or that
    two tools share, and for a `choice` of a tool that is not among them.
    """
    if not isinstance(tools, Iterable) or isinstance(tools, str | Mapping):
        raise ConfigurationError(f"tools is {shown(tools)}: expected a list of tools")
    rules = rules_of(dialect)
    taken = _EXTRAS.get(vendor) or _EXTRAS.get(dialect) or frozenset()
    definitions = [
        tool_definition(given, strict=strict, rules=rules) | _extras(given, taken)
        for given in tools
    ]
    pattern = _NAMES.get(vendor) or _NAMES.get(dialect) or ANY_NAME
    names = [found.name for found in map(function_tool, definitions) if found is not None]
    for name in names:
        checked_name(name, pattern, vendor or dialect)
        if names.count(name) > 1:
            raise ConfigurationError(f"two tools are named {name!r}: names must differ")
    # A dict of the vendor's own may hold names that only its dialect can read.
    if choice is not None and all(map(tool_name, definitions)):
        read_choice(ChatRequest(model="", messages=[], tools=definitions, tool_choice=choice))
    return definitions


def _extras(given: Any, taken: frozenset[str]) -> dict[str, Any]:
    extras = given.extras if isinstance(given, Described) else {}
    return {name: value for name, value in extras.items() if name in taken}


def checked_name(name: str, pattern: re.Pattern[str] = ANY_NAME, whose: str = "") -> str:
    """`name`. Raises ConfigurationError if a tool cannot be called so."""
    if pattern.fullmatch(name):
        return name
    takes = f"{whose} takes names that match" if whose else "vendors take names that match"
    raise ConfigurationError(
        f"the tool name {shown(name)} cannot be sent: {takes} {pattern.pattern}"
    )


def tool_definition(
    given: Any, *, strict: bool | None = None, rules: Rules | None = None
) -> dict[str, Any]:
    """What a model is told of a tool: ``{"type": "function", "function": {...}}``, or the dict that
    was given, for tools of the provider.

    `given` may be a `Tool`, a function, a pydantic class, TypedDict, msgspec Struct, dataclass, a
    JSON schema with a title, or a dict in OpenAI's or the vendor's form. `strict` asks for calls
    that are held to the schema, which is then said by the `rules` of the vendor.
    """
    rules = rules or rules_of("")
    if isinstance(given, Mapping):
        return _from_dict(dict(given), strict, rules)
    if is_object_type(given):
        schema = {k: v for k, v in schema_of(given).items() if k not in ("title", "description")}
        return _function(given.__name__, describe(given), schema, strict, rules)
    if isinstance(given, Described):
        return _function(given.name, given.description, given.schema, strict, rules)
    if callable(given):
        schema, _, text = function_schema(given)
        name = function_name(given)
        return _function(name, checked_description(text, name), schema, strict, rules)
    raise ConfigurationError(
        f"tool {shown(given)} is not understood: expected a @tool, a function, a class with "
        "fields, or a dict"
    )


def checked_description(text: str | None, name: str) -> str:
    """`text`. Raises ConfigurationError if there is none: the model chooses by it."""
    if text:
        return text
    raise ConfigurationError(
        f"tool {name!r} has no description: give it a docstring or description=, the model "
        "chooses by it"
    )


def _from_dict(given: dict[str, Any], strict: bool | None, rules: Rules) -> dict[str, Any]:
    found = function_tool(given)
    if found is None:
        return given
    asked = strict if found.strict is None else None  # a dict that says it itself is ready
    parameters = found.parameters
    if parameters is not None and not str(parameters.get("type", "")).isupper():  # not Gemini's
        parameters = for_tool(parameters, rules, name=found.name, strict=asked)
    if asked is None and parameters is found.parameters:
        return given
    strict = found.strict if asked is None else asked
    told = {"description": found.description, "parameters": parameters, "strict": strict}
    function = {"name": found.name, **{k: v for k, v in told.items() if v is not None}}
    return {**found.rest, "type": "function", "function": function}


def _function(
    name: str, description: str, schema: dict[str, Any], strict: bool | None, rules: Rules
) -> dict[str, Any]:
    parameters = for_tool(schema, rules, name=name, strict=strict)
    function: dict[str, Any] = {"name": name, "description": description, "parameters": parameters}
    if not description:
        del function["description"]
    if strict is not None:
        function["strict"] = strict
    return {"type": "function", "function": function}
