"""Python types to JSON schema, and data back to Python types.

Pydantic models speak for themselves (pydantic is used where its models are given, and needed
nowhere else); TypedDicts, dataclasses, msgspec Structs and the signatures of functions are read
here, with the descriptions that ``Annotated[T, ..., "text"]`` and docstrings give.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import ConfigurationError

__all__ = [
    "convert",
    "describe",
    "function_schema",
    "is_object_type",
    "is_pydantic",
    "is_typeddict",
    "schema_of",
    "strict_schema",
    "without_nulls",
]

JSONSchema = dict[str, Any]


def is_pydantic(type_: Any) -> bool:
    """Whether `type_` is a pydantic model class."""
    return isinstance(type_, type) and callable(getattr(type_, "model_json_schema", None))


def is_typeddict(type_: Any) -> bool:
    """Whether `type_` is a TypedDict, of `typing` or of `typing_extensions`."""
    return (
        isinstance(type_, type) and issubclass(type_, dict) and hasattr(type_, "__required_keys__")
    )


def is_object_type(type_: Any) -> bool:
    """Whether `type_` is a class with named fields: these become JSON objects."""
    return (
        is_pydantic(type_)
        or is_typeddict(type_)
        or (isinstance(type_, type) and dataclasses.is_dataclass(type_))
        or (isinstance(type_, type) and issubclass(type_, msgspec.Struct))
    )


def schema_of(type_: Any) -> JSONSchema:
    """The JSON schema of a type, with shared and recursive classes in `$defs`.

    Raises ConfigurationError, naming the part, for what JSON cannot hold.
    """
    builder = _Builder()
    schema = builder.read(type_)
    if is_object_type(type_) and not is_pydantic(type_):
        schema = {**builder.inlined(type_)}
    if builder.defs:
        schema = {**schema, "$defs": builder.defs}
    return schema


def describe(type_: Any) -> str:
    """The docstring that its author gave a class; none that a library made up."""
    doc = getattr(type_, "__doc__", None) or ""
    if dataclasses.is_dataclass(type_) and doc.startswith(f"{getattr(type_, '__name__', '')}("):
        return ""
    return inspect.cleandoc(doc) if doc not in (dict.__doc__, msgspec.Struct.__doc__) else ""


class _Builder:
    """Schemas of classes are collected in `defs`, once each, so that types may be recursive."""

    def __init__(self) -> None:
        self.defs: dict[str, JSONSchema] = {}
        self._names: dict[Any, str] = {}

    def read(self, type_: Any, where: str = "") -> JSONSchema:
        origin = get_origin(type_)
        if origin is typing.Annotated:
            return self._annotated(type_, where)
        reader = _READERS.get(origin) if origin is not None else None
        if reader is not None:
            return reader(self, type_, where)
        if type_ is Any or type_ is inspect.Parameter.empty:
            return {}
        if isinstance(type_, type) and issubclass(type_, enum.Enum):
            return _of_values([member.value for member in type_])
        if is_object_type(type_):
            return self._reference(type_)
        return _leaf(type_, where)

    def inlined(self, type_: Any) -> JSONSchema:
        """The schema of the outermost class itself, where it is not referred to from inside."""
        name = self._names[type_]
        used = f'"#/$defs/{name}"' in msgspec.json.encode(self.defs).decode()
        return self.defs[name] if used else self.defs.pop(name)

    def _annotated(self, type_: Any, where: str) -> JSONSchema:
        base, *notes = get_args(type_)
        meta = [note for note in notes if isinstance(note, msgspec.Meta)]
        if meta and not is_object_type(base):
            schema = dict(msgspec.json.schema(typing.Annotated[(base, *meta)]))
        else:
            schema = self.read(base, where)
        for note in notes:
            text = note if isinstance(note, str) else getattr(note, "description", None)
            if isinstance(text, str):
                schema = {**schema, "description": text}
        return schema

    def _reference(self, type_: Any) -> JSONSchema:
        if is_pydantic(type_):
            schema = dict(type_.model_json_schema())
            self.defs.update(schema.pop("$defs", {}))
            return schema
        name = self._names.get(type_)
        if name is None:
            name = type_.__name__
            while name in self.defs:
                name += "_"
            self._names[type_] = name
            self.defs[name] = {}  # so that a class that holds itself finds its name
            self.defs[name] = self._object(type_)
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, type_: Any) -> JSONSchema:
        hints = _hints(type_)
        properties = {
            name: self.read(hint, f"{type_.__name__}.{name}") for name, hint in hints.items()
        }
        schema: JSONSchema = {"title": type_.__name__, "type": "object", "properties": properties}
        for name, default in _defaults(type_).items():
            if name in properties and _is_plain(default):
                properties[name] = {**properties[name], "default": default}
        required = _required(type_, hints)
        if required:
            schema["required"] = required
        text = describe(type_)
        return {**schema, "description": text} if text else schema

    def _union(self, type_: Any, where: str) -> JSONSchema:
        options = [self.read(option, where) for option in get_args(type_)]
        return {"anyOf": options}

    def _literal(self, type_: Any, where: str) -> JSONSchema:
        return _of_values(list(get_args(type_)))

    def _list(self, type_: Any, where: str) -> JSONSchema:
        items = get_args(type_)
        schema: JSONSchema = {"type": "array"}
        if items:
            schema["items"] = self.read(items[0], f"{where}[]")
        if get_origin(type_) in (set, frozenset):
            schema["uniqueItems"] = True
        return schema

    def _tuple(self, type_: Any, where: str) -> JSONSchema:
        items = get_args(type_)
        if len(items) == 2 and items[1] is Ellipsis:
            return {"type": "array", "items": self.read(items[0], f"{where}[]")}
        return {
            "type": "array",
            "prefixItems": [self.read(item, f"{where}[{i}]") for i, item in enumerate(items)],
            "minItems": len(items),
            "maxItems": len(items),
        }

    def _dict(self, type_: Any, where: str) -> JSONSchema:
        args = get_args(type_)
        values = self.read(args[1], f"{where}{{}}") if len(args) == 2 else {}
        return {"type": "object", "additionalProperties": values or True}

    def _unwrapped(self, type_: Any, where: str) -> JSONSchema:
        return self.read(get_args(type_)[0], where)


_READERS: Final[dict[Any, Callable[[_Builder, Any, str], JSONSchema]]] = {
    Union: _Builder._union,
    types.UnionType: _Builder._union,
    Literal: _Builder._literal,
    list: _Builder._list,
    set: _Builder._list,
    frozenset: _Builder._list,
    tuple: _Builder._tuple,
    dict: _Builder._dict,
    typing.Required: _Builder._unwrapped,
    typing.NotRequired: _Builder._unwrapped,
}
for _name in ("Sequence", "Iterable", "Collection", "MutableSequence", "Set"):
    _READERS[getattr(__import__("collections.abc").abc, _name)] = _Builder._list
_READERS[__import__("collections.abc").abc.Mapping] = _Builder._dict


def _leaf(type_: Any, where: str) -> JSONSchema:
    plain = {list: {"type": "array"}, dict: {"type": "object"}, None: {"type": "null"}}
    if type_ in plain:
        return dict(plain[type_])
    try:
        return dict(msgspec.json.schema(type_))
    except (TypeError, NotImplementedError):
        shown = f" (in {where})" if where else ""
        raise ConfigurationError(
            f"type {type_!r}{shown} has no JSON schema: expected plain types, Literal, enums, "
            "TypedDicts, dataclasses, msgspec Structs or pydantic models"
        ) from None


def _of_values(values: list[Any]) -> JSONSchema:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
    found = {kinds.get(type(value)) for value in values}
    if len(found) == 1 and None not in found:
        return {"type": found.pop(), "enum": values}
    return {"enum": values}


def _hints(type_: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(type_, include_extras=True)
    except NameError as error:
        raise ConfigurationError(
            f"the annotations of {type_.__name__} name {error.name!r}, which is not defined"
        ) from None
    if dataclasses.is_dataclass(type_):
        return {field.name: hints[field.name] for field in dataclasses.fields(type_)}
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        names = zip(type_.__struct_fields__, type_.__struct_encode_fields__, strict=True)
        return {encoded: hints[name] for name, encoded in names}
    return hints


def _defaults(type_: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(type_):
        return {
            field.name: field.default
            for field in dataclasses.fields(type_)
            if field.default is not dataclasses.MISSING
        }
    return {}


def _required(type_: Any, hints: Mapping[str, Any]) -> list[str]:
    if is_typeddict(type_):
        # With postponed annotations the class itself does not see Required and NotRequired.
        marked = {name for name, hint in hints.items() if get_origin(hint) is typing.NotRequired}
        return [name for name in hints if name in type_.__required_keys__ and name not in marked]
    if dataclasses.is_dataclass(type_):
        missing = dataclasses.MISSING
        return [
            field.name
            for field in dataclasses.fields(type_)
            if field.default is missing and field.default_factory is missing
        ]
    info = msgspec.inspect.type_info(type_)
    return [field.encode_name for field in getattr(info, "fields", ()) if field.required]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


# ---- functions -----------------------------------------------------------------------------------

#: Parameters that are filled in by the library and not by the model.
_INJECTED: Final = frozenset({"config", "self", "cls"})
_ARGUMENT: Final = re.compile(r"^(?P<name>\*{0,2}\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)$")


def function_schema(function: Callable[..., Any]) -> tuple[JSONSchema, dict[str, Any], str]:
    """The schema of a function's arguments, their types by name, and the function's description.

    Raises ConfigurationError for what a model cannot fill in: positional-only parameters.
    """
    hints = get_type_hints(function, include_extras=True)
    text, notes = _docstring(inspect.getdoc(function) or "")
    builder = _Builder()
    properties: dict[str, JSONSchema] = {}
    required: list[str] = []
    kinds: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _INJECTED or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(
                f"{function.__name__}() has the positional-only parameter {name!r}: a model calls "
                "with names"
            )
        kinds[name] = hints.get(name, Any)
        schema = builder.read(kinds[name], f"{function.__name__}({name})")
        if name in notes:
            schema = {"description": notes[name], **schema}
        if parameter.default is parameter.empty:
            required.append(name)
        elif _is_plain(parameter.default):
            schema = {**schema, "default": parameter.default}
        properties[name] = schema
    whole: JSONSchema = {"type": "object", "properties": properties}
    if required:
        whole["required"] = required
    if builder.defs:
        whole["$defs"] = builder.defs
    return whole, kinds, text


def _docstring(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring without its section of arguments, and what that section says of each."""
    head, found, rest = doc.partition("\nArgs:\n")
    if not found:
        return doc, {}
    notes: dict[str, str] = {}
    name = ""
    lines = rest.split("\n")
    for place, line in enumerate(lines):
        if line and not line[0].isspace():  # the next section
            head += "\n" + "\n".join(lines[place:])
            break
        match = _ARGUMENT.match(line.strip())
        deeper = len(line) - len(line.lstrip()) > 4
        if match and not deeper:
            name = match["name"].lstrip("*")
            notes[name] = match["text"]
        elif name and line.strip():
            notes[name] = f"{notes[name]} {line.strip()}".strip()
    return head.strip(), notes


# ---- data back to types --------------------------------------------------------------------------


def convert(value: Any, type_: Any) -> Any:
    """JSON data as a value of `type_`. Raises ValueError, naming the place, if it does not fit."""
    if type_ is Any or type_ is inspect.Parameter.empty:
        return value
    if is_pydantic(type_):
        return type_.model_validate(value)
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except TypeError:
        return _by_pydantic(value, type_)


def _by_pydantic(value: Any, type_: Any) -> Any:
    """For types that hold pydantic models, or that msgspec does not know."""
    try:
        from pydantic import TypeAdapter
    except ImportError:
        return value
    return TypeAdapter(type_).validate_python(value)


# ---- OpenAI's strict mode ------------------------------------------------------------------------


def strict_schema(schema: JSONSchema) -> JSONSchema | None:
    """`schema` by the rules of OpenAI's strict mode: no further properties, every property
    required, optional ones nullable instead. None if it cannot say that: free-form objects.

    Rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    try:
        strict: JSONSchema = _strict(schema)
    except _NotStrict:
        return None
    return strict


class _NotStrict(Exception):
    pass


_DROPPED: Final = frozenset({"default", "uniqueItems"})


def _strict(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "$ref" in kept and len(kept) > 1:
        kept = {"anyOf": [{"$ref": kept.pop("$ref")}], **kept}
    if kept.get("additionalProperties") not in (None, False) or "allOf" in kept:
        raise _NotStrict
    if kept.get("type") == "object" or "properties" in kept:
        return _strict_object(kept)
    return {key: _strict_part(key, value) for key, value in kept.items()}


def _strict_part(key: str, value: Any) -> Any:
    if key in ("$defs", "definitions", "properties"):
        return {name: _strict(item) for name, item in value.items()}
    return value if key in ("enum", "const", "examples", "required") else _strict(value)


def _strict_object(schema: JSONSchema) -> JSONSchema:
    if "properties" not in schema:
        raise _NotStrict
    required = schema.get("required", [])
    properties = {
        name: _strict(item) if name in required else _nullable(_strict(item))
        for name, item in schema["properties"].items()
    }
    rest = {k: _strict_part(k, v) for k, v in schema.items() if k not in ("properties", "required")}
    return {
        **rest,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nullable(schema: JSONSchema) -> JSONSchema:
    options = schema.get("anyOf", [schema])
    if any(option.get("type") == "null" for option in options) or not schema:
        return schema
    text = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [*options, {"type": "null"}], **text}


def without_nulls(value: Any, schema: JSONSchema) -> Any:
    """`value`, answered under `strict_schema`, as `schema` itself wants it: properties that may be
    left out and may not be null are left out where they are null."""
    return _without_nulls(
        value, schema, {**schema.get("definitions", {}), **schema.get("$defs", {})}
    )


def _without_nulls(value: Any, schema: Any, defs: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, defs)
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_without_nulls(item, items, defs) for item in value]
    if not isinstance(value, dict):
        return value
    for option in schema.get("anyOf", ()):
        found = _resolved(option, defs)
        if set(value) <= set(found.get("properties", ())):
            schema = found
            break
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: _without_nulls(item, properties.get(name, {}), defs)
        for name, item in value.items()
        if item is not None or name in required or _may_be_null(properties.get(name, {}), defs)
    }


def _resolved(schema: Any, defs: Mapping[str, Any]) -> Any:
    if not isinstance(schema, dict):
        return {}
    ref = schema.get("$ref")
    return defs.get(str(ref).rpartition("/")[2], {}) if ref else schema


def _may_be_null(schema: Any, defs: Mapping[str, Any]) -> bool:
    schema = _resolved(schema, defs)
    if not schema or schema.get("type") == "null" or "null" in (schema.get("type") or ()):
        return True
    if None in schema.get("enum", ()):
        return True
    return any(_may_be_null(option, defs) for option in schema.get("anyOf", ()))
