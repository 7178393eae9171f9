"""JSON data back to Python values, and JSON data against a schema."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from ..errors import ConfigurationError
from .types import JSONSchema, is_pydantic, is_pydantic_note, pydantic_adapter

__all__ = [
    "MAX_DEPTH",
    "check",
    "convert",
    "definitions",
    "resolved",
    "types_of",
    "unfit",
    "without_nulls",
]

#: How deep data from a model may be nested, as with `Limits.json_depth`.
MAX_DEPTH: Final = 64


def unfit(value: Any) -> str | None:
    """What keeps plain data from being JSON that a model may send: numbers that are not finite, or
    more than `MAX_DEPTH` levels. None if nothing does. Never recurses."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        for item in level:
            if isinstance(item, float) and not math.isfinite(item):
                return f"{item!r} is no JSON number"
        level = [part for item in level for part in _parts(item)]
        if not level:
            return None
    return f"nested deeper than {MAX_DEPTH} levels"


def _parts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


# ---- data to values ------------------------------------------------------------------------------


def convert(value: Any, type_: Any) -> Any:
    """JSON data as a value of `type_`. Raises ValueError, naming the place, if it does not fit."""
    if type_ is Any:
        return value
    if is_pydantic(type_):
        return type_.model_validate(value)
    if _mentions_pydantic(type_):
        return _by_pydantic(value, type_)
    try:
        return msgspec.convert(value, type_, dec_hook=_nested)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except TypeError:
        return _by_pydantic(value, type_)


def _nested(type_: Any, value: Any) -> Any:
    """A pydantic model inside a type that msgspec reads."""
    if is_pydantic(type_):
        return type_.model_validate(value)
    if isinstance(value, type_):
        return value
    raise ValueError(f"expected {type_.__name__}, got {type(value).__name__}")


def _by_pydantic(value: Any, type_: Any) -> Any:
    """For types that hold pydantic models, or that msgspec does not know."""
    try:
        adapter = pydantic_adapter(type_)
    except (ImportError, RuntimeError):  # pydantic's own errors of this kind are RuntimeErrors
        if get_origin(type_) in (Union, types.UnionType):
            return _first_that_fits(value, get_args(type_))
        raise ConfigurationError(
            f"values of type {type_!r:.80} cannot be checked: give the classes of a union a tag, "
            "or use pydantic models"
        ) from None
    return adapter.validate_python(value)


def _first_that_fits(value: Any, options: tuple[Any, ...]) -> Any:
    problems = []
    for option in options:
        try:
            return convert(value, option)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(problems))


def _mentions_pydantic(type_: Any) -> bool:
    """Whether the annotation says something that only pydantic understands."""
    notes = getattr(type_, "__metadata__", ())
    return any(map(is_pydantic_note, notes)) or any(map(_mentions_pydantic, get_args(type_)))


# ---- data against a schema -----------------------------------------------------------------------


def check(value: Any, schema: JSONSchema) -> None:
    """Raises ValueError, naming the place, if the shape of JSON data is not that of `schema`:
    types, required and further properties, items, enums and alternatives. (Formats, patterns and
    bounds are not looked at.)"""
    problem = _Data(schema).problem(value, schema, "$")
    if problem is not None:
        raise ValueError(problem)


def without_nulls(value: Any, schema: JSONSchema) -> Any:
    """`value`, answered under a schema in which every property is required, as `schema` itself
    wants it: properties that may be left out and may not be null are left out where they are
    null."""
    return _Data(schema).cleaned(value, schema)


def definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What `$ref`s of a schema may name, by the last part of the name; "#" is the whole."""
    return {"#": schema, **schema.get("definitions", {}), **schema.get("$defs", {})}


def resolved(schema: Any, defs: Mapping[str, Any]) -> Any:
    """What a schema refers to, or the schema itself; `{}` for `true` and the like."""
    if not isinstance(schema, dict):
        return _ANYTHING
    ref = schema.get("$ref")
    return defs.get(str(ref).rpartition("/")[2], _ANYTHING) if ref else schema


def types_of(schema: Mapping[str, Any]) -> list[str]:
    """The types that a schema names."""
    kinds = schema.get("type") or []
    return [kinds] if isinstance(kinds, str) else list(kinds)


_ANYTHING: Final[JSONSchema] = {}
_COMBINED: Final = ("anyOf", "oneOf", "allOf")
_IS: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list | tuple),
    "object": lambda value: isinstance(value, Mapping),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": lambda value: _is_number(value),
}


def _is_number(value: Any) -> bool:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return good and (isinstance(value, int) or math.isfinite(value))


class _Data:
    """Data against one schema and its definitions.

    What was found of a value and a part of the schema is kept: alternatives inside alternatives
    would be tried once for each way that leads to them, which are exponentially many.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._defs = definitions(schema)
        self._problems: dict[tuple[int, int], str | None] = {}
        # With the value itself, so that it lives as long as its id counts.
        self._cleaned: dict[tuple[int, int], tuple[Any, Any]] = {}

    def problem(self, value: Any, schema: Any, where: str) -> str | None:
        """What is wrong with `value`, or None."""
        schema = resolved(schema, self._defs)
        key = (id(value), id(schema))
        if not isinstance(value, list | dict):
            return self._problem(value, schema, where)
        if key not in self._problems:
            self._problems[key] = self._problem(value, schema, where)
        return self._problems[key]

    def _problem(self, value: Any, schema: JSONSchema, where: str) -> str | None:
        kinds = types_of(schema)
        if kinds and not any(_IS[kind](value) for kind in kinds if kind in _IS):
            return f"expected {' or '.join(kinds)} at `{where}`, got {value!r:.40}"
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if allowed is not None and value not in allowed:
            return f"expected one of {allowed!r} at `{where}`, got {value!r:.40}"
        return next(filter(None, self._inner_problems(value, schema, where)), None)

    def _inner_problems(self, value: Any, schema: JSONSchema, where: str) -> Iterator[str | None]:
        for name in ("anyOf", "oneOf"):
            if name in schema:
                problems = [self.problem(value, option, where) for option in schema[name]]
                yield None if None in problems else "; ".join(map(str, problems))
        for part in schema.get("allOf", ()):
            yield self.problem(value, part, where)
        if isinstance(value, Mapping):
            yield from self._property_problems(value, schema, where)
        elif isinstance(value, list | tuple):
            items = schema.get("items", _ANYTHING)
            for place, item in enumerate(value):
                yield self.problem(item, items, f"{where}[{place}]")

    def _property_problems(
        self, value: Mapping[str, Any], schema: JSONSchema, where: str
    ) -> Iterator[str | None]:
        properties = schema.get("properties", _ANYTHING)
        further = schema.get("additionalProperties", _ANYTHING)
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{name!r} is missing at `{where}`"
        for name, item in value.items():
            if name not in properties and further is False:
                yield f"{name!r} is not expected at `{where}`"
            yield self.problem(item, properties.get(name, further), f"{where}.{name}")

    def cleaned(self, value: Any, schema: Any) -> Any:
        """`value` without the nulls that `schema` does not want."""
        if not isinstance(value, list | dict):
            return value
        schema = resolved(schema, self._defs)
        key = (id(value), id(schema))
        if key not in self._cleaned:
            self._cleaned[key] = (value, self._clean(value, schema))
        return self._cleaned[key][1]

    def _clean(self, value: list[Any] | dict[str, Any], schema: JSONSchema) -> Any:
        options = [option for name in _COMBINED for option in schema.get(name, ())]
        if options:
            return self._as_an_option(value, options)
        if isinstance(value, list):
            items = schema.get("items", _ANYTHING)
            return [self.cleaned(item, items) for item in value]
        properties, required = schema.get("properties", _ANYTHING), schema.get("required", ())
        further = schema.get("additionalProperties", _ANYTHING)
        return {
            name: self.cleaned(item, properties.get(name, further))
            for name, item in value.items()
            if item is not None
            or name in required
            or self._may_be_null(properties.get(name, _ANYTHING))
        }

    def _as_an_option(self, value: list[Any] | dict[str, Any], options: list[Any]) -> Any:
        """As the first of the options that then fits; as it is if none does."""
        for option in options:
            cleaned = self.cleaned(value, option)
            if self.problem(cleaned, option, "") is not None:
                continue
            if isinstance(value, list) or set(value) <= set(self._keys(option) or value):
                return cleaned
        return value

    def _keys(self, schema: Any) -> Any:
        schema = resolved(schema, self._defs)
        open_ended = schema.get("additionalProperties") not in (None, False)
        return None if open_ended else schema.get("properties")

    def _may_be_null(self, schema: Any) -> bool:
        schema = resolved(schema, self._defs)
        if "enum" in schema or "const" in schema:
            return None in schema.get("enum", (schema.get("const", ...),))
        options = [option for name in _COMBINED for option in schema.get(name, ())]
        if options:
            return any(self._may_be_null(option) for option in options)
        return not types_of(schema) or "null" in types_of(schema)
