"""Python types to JSON schema, and data back to Python types.

Pydantic models speak for themselves (pydantic is used where its models are given, and needed
nowhere else); TypedDicts, dataclasses, msgspec Structs and the signatures of functions are read
here, with the descriptions that ``Annotated[T, ..., "text"]`` and docstrings give.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from .errors import ConfigurationError

__all__ = [
    "check",
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
    elif "$ref" in schema:  # a pydantic model that holds itself: the outermost has to be an object
        schema = {**builder.defs[schema.pop("$ref").rpartition("/")[2]], **schema}
    if builder.defs:
        schema = {**schema, "$defs": builder.defs}
    return schema


def describe(type_: Any) -> str:
    """The docstring that its author gave a class; none that a library made up."""
    doc = (getattr(type_, "__doc__", None) or "") if isinstance(type_, type) else ""
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
        if origin is not None and is_object_type(origin):  # a generic class with its parameters
            return self._hoisted(_leaf(type_, where))
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
        if any(map(_is_pydantic_note, notes)):
            schema = self._hoisted(_adapter(type_).json_schema())
        elif meta and not is_object_type(base):
            schema = self._hoisted(msgspec.json.schema(typing.Annotated[(base, *meta)]))
        else:
            schema = self.read(base, where)
        for note in notes:
            text = note if isinstance(note, str) else getattr(note, "description", None)
            if isinstance(text, str):
                schema = {**schema, "description": text}
        return schema

    def _hoisted(self, schema: JSONSchema) -> JSONSchema:
        """`schema` without the classes that it defines: they join ours."""
        self.defs.update(schema.get("$defs", {}))
        return {key: value for key, value in schema.items() if key != "$defs"}

    def _reference(self, type_: Any) -> JSONSchema:
        if is_pydantic(type_):
            return self._hoisted(type_.model_json_schema())
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


_KINDS: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def _of_values(values: list[Any]) -> JSONSchema:
    found = list(dict.fromkeys(_KINDS.get(type(value)) for value in values))
    if None in found:
        return {"enum": values}
    return {"type": found[0] if len(found) == 1 else found, "enum": values}


def _hints(type_: Any) -> dict[str, Any]:
    hints = _annotations(type_)
    if dataclasses.is_dataclass(type_):
        return {field.name: hints[field.name] for field in dataclasses.fields(type_)}
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        names = zip(type_.__struct_fields__, type_.__struct_encode_fields__, strict=True)
        return {encoded: hints[name] for name, encoded in names}
    return hints


def _annotations(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner, include_extras=True)
    except NameError as error:
        name = getattr(owner, "__qualname__", owner)
        raise ConfigurationError(
            f"the annotations of {name} name {error.name!r}, which is not defined"
        ) from None


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
        marked = {name: get_origin(hint) for name, hint in hints.items()}
        needed = {name for name, mark in marked.items() if mark is typing.Required}
        return [
            name
            for name, mark in marked.items()
            if mark is not typing.NotRequired and name in needed | type_.__required_keys__
        ]
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
    named = hasattr(function, "__name__")  # else an object that can be called
    hints = _annotations(function if named else type(function).__call__)
    where = function.__name__ if named else type(function).__name__
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
                f"{where}() has the positional-only parameter {name!r}: a model calls with names"
            )
        kinds[name] = hints.get(name, Any)
        schema = builder.read(kinds[name], f"{where}({name})")
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
        adapter = _adapter(type_)
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


def _adapter(type_: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(type_)


def _is_pydantic_note(note: Any) -> bool:
    return type(note).__module__.partition(".")[0] in ("pydantic", "annotated_types")


def _mentions_pydantic(type_: Any) -> bool:
    """Whether the annotation says something that only pydantic understands."""
    notes = getattr(type_, "__metadata__", ())
    return any(map(_is_pydantic_note, notes)) or any(map(_mentions_pydantic, get_args(type_)))


# ---- OpenAI's strict mode ------------------------------------------------------------------------


def strict_schema(schema: JSONSchema) -> JSONSchema | None:
    """`schema` by the rules of OpenAI's strict mode: no further properties, every property
    required, optional ones nullable instead. None if it cannot say that: free-form objects.

    Rules: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if "$ref" in schema:  # the outermost has to be an object
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**_resolved(schema, _definitions(schema)), **rest}
    try:
        strict = _strict(schema)
    except _NotStrict:
        return None
    return strict if strict.get("type") == "object" else None


class _NotStrict(Exception):
    pass


#: What strict mode does not know and can do without: the answer is checked here, too.
_DROPPED: Final = frozenset(
    """$schema contains contentEncoding contentMediaType default discriminator maxContains maxLength
    maxProperties minContains minLength minProperties propertyNames unevaluatedItems
    unevaluatedProperties uniqueItems""".split()
)
#: What it does not know and the answer's shape hangs on.
_BEYOND: Final = frozenset(
    "dependentRequired dependentSchemas else if not patternProperties prefixItems then".split()
)
_FORMATS: Final = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid".split())


def _strict(schema: Any) -> JSONSchema:
    if not isinstance(schema, dict) or schema.keys() & _BEYOND:
        raise _NotStrict
    if schema.get("additionalProperties") not in (None, False):
        raise _NotStrict
    kept = {key: value for key, value in schema.items() if key not in _DROPPED}
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    if "(?" in str(kept.get("pattern", "")):  # no look-around there
        del kept["pattern"]
    for name in ("$defs", "definitions"):
        if name in kept:
            kept[name] = {key: _strict(item) for key, item in kept[name].items()}
    return _strict_kind(_as_any_of(kept))


def _as_any_of(schema: JSONSchema) -> JSONSchema:
    """`schema` with its other combinators, and a reference that has company, as `anyOf`."""
    for name in ("oneOf", "allOf", "$ref"):
        alone = name == "$ref" and len(schema) == 1
        if name not in schema or alone:
            continue
        options = [{"$ref": schema["$ref"]}] if name == "$ref" else schema[name]
        if "anyOf" in schema or (name == "allOf" and len(options) > 1):
            raise _NotStrict
        rest = {key: value for key, value in schema.items() if key != name}
        schema = {"anyOf": options, **rest}
    return schema


def _strict_kind(schema: JSONSchema) -> JSONSchema:
    kinds = _types(schema)
    if "anyOf" in schema:
        schema = {**schema, "anyOf": [_strict(option) for option in schema["anyOf"]]}
    elif "object" in kinds or "properties" in schema:
        schema = _strict_object(schema)
    elif "array" in kinds:
        schema = {**schema, "items": _strict(schema.get("items"))}
    elif not kinds and "$ref" not in schema:
        values = schema["enum"] if "enum" in schema else [schema.get("const", ...)]
        typed = _of_values(list(values))
        if "type" not in typed:
            raise _NotStrict
        schema = {"type": typed["type"], **schema}
    return schema


def _types(schema: Mapping[str, Any]) -> list[str]:
    kinds = schema.get("type") or []
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _strict_object(schema: JSONSchema) -> JSONSchema:
    if "properties" not in schema and "additionalProperties" not in schema:
        raise _NotStrict
    required = schema.get("required", [])
    properties = {
        name: _strict(item) if name in required else _nullable(_strict(item))
        for name, item in schema.get("properties", {}).items()
    }
    return {
        **schema,
        "type": schema.get("type", "object"),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _nullable(schema: JSONSchema) -> JSONSchema:
    options = schema.get("anyOf", [schema])
    if any("null" in _types(option) for option in options):
        return schema
    text = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [*options, {"type": "null"}], **text}


# ---- JSON data against a schema ------------------------------------------------------------------


def without_nulls(value: Any, schema: JSONSchema) -> Any:
    """`value`, answered under `strict_schema`, as `schema` itself wants it: properties that may be
    left out and may not be null are left out where they are null."""
    return _without_nulls(value, schema, _definitions(schema))


def _definitions(schema: JSONSchema) -> dict[str, Any]:
    return {"#": schema, **schema.get("definitions", {}), **schema.get("$defs", {})}


def _without_nulls(value: Any, schema: Any, defs: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, defs)
    if not isinstance(value, list | dict):
        return value
    options = [option for name in _COMBINED for option in schema.get(name, ())]
    if options:
        return _as_an_option(value, options, defs)
    if isinstance(value, list):
        items = schema.get("items", {})
        return [_without_nulls(item, items, defs) for item in value]
    properties, required = schema.get("properties", {}), schema.get("required", ())
    further = schema.get("additionalProperties", {})
    return {
        name: _without_nulls(item, properties.get(name, further), defs)
        for name, item in value.items()
        if item is not None or name in required or _may_be_null(properties.get(name, {}), defs)
    }


_COMBINED: Final = ("anyOf", "oneOf", "allOf")


def _as_an_option(value: Any, options: list[Any], defs: Mapping[str, Any]) -> Any:
    """As the first of the options that then fits; as it is if none does."""
    for option in options:
        cleaned = _without_nulls(value, option, defs)
        try:
            _check(cleaned, option, defs, "")
        except ValueError:
            continue
        if isinstance(value, list) or set(value) <= set(_keys(option, defs) or value):
            return cleaned
    return value


def _keys(schema: Any, defs: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, defs)
    open_ended = schema.get("additionalProperties") not in (None, False)
    return None if open_ended else schema.get("properties")


def _resolved(schema: Any, defs: Mapping[str, Any]) -> Any:
    if not isinstance(schema, dict):
        return {}
    ref = schema.get("$ref")
    return defs.get(str(ref).rpartition("/")[2], {}) if ref else schema


def _may_be_null(schema: Any, defs: Mapping[str, Any]) -> bool:
    schema = _resolved(schema, defs)
    if "enum" in schema or "const" in schema:
        return None in schema.get("enum", (schema.get("const", ...),))
    options = [option for name in _COMBINED for option in schema.get(name, ())]
    if options:
        return any(_may_be_null(option, defs) for option in options)
    return not _types(schema) or "null" in _types(schema)


def check(value: Any, schema: JSONSchema) -> None:
    """Raises ValueError, naming the place, if the shape of JSON data is not that of `schema`:
    types, required and further properties, items, enums and alternatives. (Formats, patterns and
    bounds are not looked at.)"""
    _check(value, schema, _definitions(schema), "$")


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


def _check(value: Any, schema: Any, defs: Mapping[str, Any], where: str) -> None:
    schema = _resolved(schema, defs)
    kinds = _types(schema)
    if kinds and not any(_IS[kind](value) for kind in kinds if kind in _IS):
        raise ValueError(f"expected {' or '.join(kinds)} at `{where}`, got {value!r:.40}")
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    if allowed is not None and value not in allowed:
        raise ValueError(f"expected one of {allowed!r} at `{where}`, got {value!r:.40}")
    for name in ("anyOf", "oneOf"):
        if name in schema:
            _check_any(value, schema[name], defs, where)
    for part in schema.get("allOf", ()):
        _check(value, part, defs, where)
    if isinstance(value, Mapping):
        _check_object(value, schema, defs, where)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _check(item, schema.get("items", {}), defs, f"{where}[{place}]")


def _check_any(value: Any, options: list[Any], defs: Mapping[str, Any], where: str) -> None:
    problems = []
    for option in options:
        try:
            return _check(value, option, defs, where)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(problems))


def _check_object(
    value: Mapping[str, Any], schema: JSONSchema, defs: Mapping[str, Any], where: str
) -> None:
    properties, further = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name in schema.get("required", ()):
        if name not in value:
            raise ValueError(f"{name!r} is missing at `{where}`")
    for name, item in value.items():
        if name not in properties and further is False:
            raise ValueError(f"{name!r} is not expected at `{where}`")
        _check(item, properties.get(name, further), defs, f"{where}.{name}")
