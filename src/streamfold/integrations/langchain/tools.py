"""LangChain's tools as streamfold is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from ...schema import is_object_type
from ...tools import Tool
from ...wire.encoding import function_tool

__all__ = ["as_tool", "has_server_tools"]


class _Described(msgspec.Struct):
    """What there is to tell of a tool of LangChain, as `streamfold.Tool` has it."""

    name: str
    description: str
    schema: dict[str, Any]
    extras: dict[str, Any]


def as_tool(tool: Any) -> Any:
    """A tool as `bind_tools` of streamfold takes it.

    LangChain reads its own tools, and functions, for it knows which arguments are not the model's
    (injected state and the like). Classes with fields, dicts and streamfold's tools stay.
    """
    if isinstance(tool, Tool | _Described | Mapping) or is_object_type(tool):
        return tool
    definition = convert_to_openai_tool(tool)
    function = definition.get("function")
    extras = getattr(tool, "extras", None) if isinstance(tool, BaseTool) else None
    if not extras or function is None:
        return definition
    schema = function.get("parameters", {"type": "object", "properties": {}})
    return _Described(function["name"], function.get("description", ""), schema, dict(extras))


def has_server_tools(tools: Sequence[Any]) -> bool:
    """Whether one of the tools is run by the provider, so that answers may have blocks of it."""
    return any(isinstance(tool, Mapping) and function_tool(dict(tool)) is None for tool in tools)
