"""Functions to JSON schema: their parameters, with what their docstrings say of each."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from ..errors import ConfigurationError
from .types import JSONSchema, SchemaBuilder, annotations_of, is_plain

__all__ = ["function_name", "function_schema", "read_docstring"]

#: Parameters that are filled in by the library and not by the model.
_INJECTED: Final = frozenset({"config", "self", "cls"})


def function_name(function: Any) -> str:
    """The name of a function, of a partial one, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def function_schema(function: Callable[..., Any]) -> tuple[JSONSchema, dict[str, Any], str]:
    """The schema of a function's arguments, their types by name, and the function's description.

    Raises ConfigurationError for what a model cannot fill in: parameters without an annotation
    (`Any` takes any value) and positional-only ones.
    """
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    is_function = hasattr(inner, "__name__")  # else an object that can be called
    hints = annotations_of(inner if is_function else type(inner).__call__)
    where = function_name(function)
    text, notes = read_docstring(inspect.getdoc(inner) or "")
    builder = SchemaBuilder()
    properties: dict[str, JSONSchema] = {}
    required: list[str] = []
    kinds: dict[str, Any] = {}
    for name, parameter in _signature(function, where).parameters.items():
        if name in _INJECTED or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kinds[name] = _annotation(parameter, hints, where)
        schema = builder.read(kinds[name], f"{where}({name})")
        if name in notes:
            schema = {"description": notes[name], **schema}
        if parameter.default is parameter.empty:
            required.append(name)
        elif is_plain(parameter.default):
            schema = {**schema, "default": parameter.default}
        properties[name] = schema
    whole: JSONSchema = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required
    return builder.finished(whole), kinds, text


def _signature(function: Callable[..., Any], where: str) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except ValueError:  # some that are written in C have none
        raise ConfigurationError(
            f"{where}() does not say which arguments it has: expected a function with annotations"
        ) from None


def _annotation(parameter: inspect.Parameter, hints: dict[str, Any], where: str) -> Any:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigurationError(
            f"{where}() has the positional-only parameter {parameter.name!r}: a model calls with "
            "names"
        )
    if parameter.name not in hints:
        raise ConfigurationError(
            f"parameter {parameter.name!r} of {where}() has no annotation: expected a type, for "
            "the model is told what to fill in (Any takes any value)"
        )
    return hints[parameter.name]


# ---- docstrings ----------------------------------------------------------------------------------

_GOOGLE: Final = re.compile(r"^(?:Args|Arguments|Parameters):[ \t]*$", re.M)
_NUMPY: Final = re.compile(r"^Parameters[ \t]*\n-{3,}[ \t]*$", re.M)
_SPHINX: Final = re.compile(r"^:param\b[^:\n]*?(\w+)[ \t]*:", re.M)
_GOOGLE_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?::.*)?()$")


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring without its section of arguments, and what that section says of each.

    Sections are read as Google and NumPy write them, and Sphinx's ``:param name: text``.
    """
    if found := _NUMPY.search(doc):
        return _section(doc, found, _NUMPY_ENTRY)
    if found := _GOOGLE.search(doc):
        return _section(doc, found, _GOOGLE_ENTRY)
    return _fields(doc)


def _section(
    doc: str, heading: re.Match[str], entry: re.Pattern[str]
) -> tuple[str, dict[str, str]]:
    notes: dict[str, str] = {}
    name = ""
    lines = doc[heading.end() :].lstrip("\n").split("\n")
    margin = len(lines[0]) - len(lines[0].lstrip())
    if entry is _GOOGLE_ENTRY and not margin:
        return doc, {}  # a heading with nothing under it
    place = 0
    for place, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() and (indent < margin or _begins_section(lines, place)):
            break  # the next section
        match = entry.fullmatch(line.strip()) if indent == margin else None
        if match:
            name = match[1]
            notes[name] = match[2].strip()
        elif name and line.strip():
            notes[name] = f"{notes[name]} {line.strip()}".strip()
    else:
        place = len(lines)
    rest = "\n".join(lines[place:])
    return f"{doc[: heading.start()].rstrip()}\n\n{rest}".strip(), notes


def _begins_section(lines: list[str], place: int) -> bool:
    """Whether NumPy's underline follows."""
    below = lines[place + 1].strip() if place + 1 < len(lines) else ""
    return len(below) >= 3 and not below.strip("-")


def _fields(doc: str) -> tuple[str, dict[str, str]]:
    notes: dict[str, str] = {}
    kept: list[str] = []
    current: str | None = None
    for line in doc.split("\n"):
        match = _SPHINX.match(line)
        if match:
            current = str(match[1])
            notes[current] = line[match.end() :].strip()
        elif current is not None and line[:1].isspace() and line.strip():
            notes[current] = f"{notes[current]} {line.strip()}".strip()
        elif not line.startswith(":type "):
            current = None
            kept.append(line)
    return "\n".join(kept).strip(), notes
