"""Python types to JSON schema.

Pydantic models speak for themselves; TypedDicts, dataclasses and msgspec Structs are read here,
with the descriptions that ``Annotated[T, ..., "text"]`` and docstrings give.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from ..errors import ConfigurationError

__all__ = [
    "JSONSchema",
    "SchemaBuilder",
    "annotations_of",
    "describe",
    "is_object_type",
    "is_plain",
    "is_pydantic",
    "is_pydantic_note",
    "is_typeddict",
    "pydantic_adapter",
    "schema_of",
    "schema_of_values",
]

JSONSchema: TypeAlias = dict[str, Any]


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
    builder = SchemaBuilder()
    schema = builder.read(type_)
    if is_object_type(type_) and not is_pydantic(type_):
        schema = {**builder.inlined(type_)}
    elif "$ref" in schema:  # a pydantic model that holds itself: the outermost has to be an object
        schema = {**builder.defs[schema.pop("$ref").rpartition("/")[2]], **schema}
    return builder.finished(schema)


def describe(type_: Any) -> str:
    """The docstring that its author gave a class; none that a library made up."""
    doc = (getattr(type_, "__doc__", None) or "") if isinstance(type_, type) else ""
    if dataclasses.is_dataclass(type_) and doc.startswith(f"{getattr(type_, '__name__', '')}("):
        return ""
    return inspect.cleandoc(doc) if doc not in (dict.__doc__, msgspec.Struct.__doc__) else ""


class SchemaBuilder:
    """Schemas of classes are collected in `defs`, once each, so that types may be recursive."""

    def __init__(self) -> None:
        self.defs: dict[str, JSONSchema] = {}
        self._names: dict[Any, str] = {}

    def finished(self, schema: JSONSchema) -> JSONSchema:
        """`schema` with the classes that it refers to."""
        return {**schema, "$defs": self.defs} if self.defs else schema

    def read(self, type_: Any, where: str = "") -> JSONSchema:
        """The schema of `type_`, which is found at `where`."""
        origin = get_origin(type_)
        if origin is typing.Annotated:
            return self._annotated(type_, where)
        reader = _READERS.get(origin) if origin is not None else None
        if reader is not None:
            return reader(self, type_, where)
        if origin is not None and is_object_type(origin):  # a generic class with its parameters
            return self._hoisted(_leaf(type_, where))
        if type_ is Any:
            return {}
        if isinstance(type_, type) and issubclass(type_, enum.Enum):
            return schema_of_values([member.value for member in type_])
        if is_object_type(type_):
            return self._reference(type_)
        named = getattr(type_, "__supertype__", None) or getattr(type_, "__value__", None)
        if named is not None and not isinstance(type_, type):  # NewType, or `type X = ...`
            return self.read(named, where)
        return self._hoisted(_leaf(type_, where))

    def inlined(self, type_: Any) -> JSONSchema:
        """The schema of the outermost class itself, where it is not referred to from inside."""
        name = self._names[type_]
        used = f'"#/$defs/{name}"' in msgspec.json.encode(self.defs).decode()
        return self.defs[name] if used else self.defs.pop(name)

    def _annotated(self, type_: Any, where: str) -> JSONSchema:
        base, *notes = get_args(type_)
        meta = [note for note in notes if isinstance(note, msgspec.Meta)]
        if any(map(is_pydantic_note, notes)):
            schema = self._hoisted(pydantic_adapter(type_).json_schema())
        elif meta and not is_object_type(base):
            schema = self._hoisted(_leaf(typing.Annotated[(base, *meta)], where))
        else:
            schema = self.read(base, where)
        for note in notes:
            text = note if isinstance(note, str) else getattr(note, "description", None)
            if isinstance(text, str):
                schema = {**schema, "description": text}
        return schema

    def _hoisted(self, schema: JSONSchema) -> JSONSchema:
        """`schema` without the classes that it defines: they join ours, under names of their own
        where two classes have the same."""
        given = schema.get("$defs", {})
        names = {}
        for name, definition in given.items():
            free = name
            while self.defs.get(free, definition) != definition or free in self._names.values():
                free += "_"
            names[f"#/$defs/{name}"] = f"#/$defs/{free}"
        for name, definition in given.items():
            free = names[f"#/$defs/{name}"].removeprefix("#/$defs/")
            self.defs[free] = _renamed(definition, names)
        kept = {key: value for key, value in schema.items() if key != "$defs"}
        return dict(_renamed(kept, names))

    def _reference(self, type_: Any) -> JSONSchema:
        if is_pydantic(type_):
            return self._hoisted(_pydantic_schema(type_))
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
        properties: dict[str, JSONSchema] = {}
        required: list[str] = []
        tag = _tag(type_)
        if tag is not None:  # by which msgspec tells the classes of a union apart
            properties[tag[0]] = schema_of_values([tag[1]])
            required.append(tag[0])
        for field in _fields(type_):
            schema = self.read(field.type, f"{type_.__name__}.{field.name}")
            if is_plain(field.default):
                schema = {**schema, "default": field.default}
            properties[field.name] = schema
            if field.required:
                required.append(field.name)
        whole: JSONSchema = {"title": type_.__name__, "type": "object", "properties": properties}
        if required:
            whole["required"] = required
        text = describe(type_)
        return {**whole, "description": text} if text else whole

    def _union(self, type_: Any, where: str) -> JSONSchema:
        options = [self.read(option, where) for option in get_args(type_)]
        return {"anyOf": options}

    def _literal(self, type_: Any, where: str) -> JSONSchema:
        return schema_of_values(list(get_args(type_)))

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


_LISTS: Final = ("Sequence", "Iterable", "Collection", "MutableSequence", "Set")
_READERS: Final[dict[Any, Callable[[SchemaBuilder, Any, str], JSONSchema]]] = {
    Union: SchemaBuilder._union,
    types.UnionType: SchemaBuilder._union,
    Literal: SchemaBuilder._literal,
    list: SchemaBuilder._list,
    set: SchemaBuilder._list,
    frozenset: SchemaBuilder._list,
    **{getattr(collections.abc, name): SchemaBuilder._list for name in _LISTS},
    tuple: SchemaBuilder._tuple,
    dict: SchemaBuilder._dict,
    collections.abc.Mapping: SchemaBuilder._dict,
    typing.Required: SchemaBuilder._unwrapped,
    typing.NotRequired: SchemaBuilder._unwrapped,
}


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


def _pydantic_schema(type_: Any) -> JSONSchema:
    from pydantic.errors import PydanticUserError

    try:
        return dict(type_.model_json_schema())
    except PydanticUserError as error:  # a field that JSON has no words for
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(f"{type_.__name__} has no JSON schema: {reason}") from None


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    """`schema` with its references under other names."""
    if all(old == new for old, new in names.items()):
        return schema
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: names.get(value, value)
        if key == "$ref" and isinstance(value, str)
        else _renamed(value, names)
        for key, value in schema.items()
    }


_KINDS: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def schema_of_values(values: list[Any]) -> JSONSchema:
    """The schema of one of `values`, with the types that they have."""
    found = list(dict.fromkeys(_KINDS.get(type(value)) for value in values))
    if None in found:
        return {"enum": values}
    return {"type": found[0] if len(found) == 1 else found, "enum": values}


# ---- the fields of a class -----------------------------------------------------------------------

_NOTHING: Final = object()


class _Field(typing.NamedTuple):
    """A field as JSON has it. `default`: `_NOTHING` if there is none that JSON can show."""

    name: str
    type: Any
    required: bool
    default: Any = _NOTHING


def _fields(type_: Any) -> list[_Field]:
    hints = annotations_of(type_)
    if is_typeddict(type_):
        return [_dict_field(type_, name, hint) for name, hint in hints.items()]
    if dataclasses.is_dataclass(type_):
        return [_data_field(field, hints) for field in dataclasses.fields(type_) if field.init]
    return [
        _Field(f.encode_name, hints[f.name], f.required, f.default)
        for f in msgspec.structs.fields(type_)
    ]


def _dict_field(type_: Any, name: str, hint: Any) -> _Field:
    # With postponed annotations the class itself does not see Required and NotRequired.
    mark = get_origin(hint)
    required = mark is typing.Required or name in type_.__required_keys__
    required = required and mark is not typing.NotRequired
    inner = get_args(hint)[0] if mark in (typing.Required, typing.NotRequired) else hint
    notes: tuple[Any, ...] = getattr(inner, "__metadata__", ())
    # ``Annotated[T, default, "description"]``, where `...` says that there is no default
    if len(notes) < 2 or notes[0] is ... or not (is_plain(notes[0]) and isinstance(notes[1], str)):
        return _Field(name, hint, required)
    return _Field(name, hint, False, notes[0])


def _data_field(field: dataclasses.Field[Any], hints: dict[str, Any]) -> _Field:
    missing = dataclasses.MISSING
    required = field.default is missing and field.default_factory is missing
    return _Field(field.name, hints[field.name], required, field.default)


def _tag(type_: Any) -> tuple[str, Any] | None:
    config = getattr(type_, "__struct_config__", None)
    return None if config is None or config.tag is None else (config.tag_field, config.tag)


def annotations_of(owner: Any) -> dict[str, Any]:
    """The annotations of a class or function, resolved. Raises ConfigurationError for a name in
    them that is not defined."""
    try:
        return get_type_hints(owner, include_extras=True)
    except NameError as error:
        name = getattr(owner, "__qualname__", owner)
        raise ConfigurationError(
            f"the annotations of {name} name {error.name!r}, which is not defined"
        ) from None


def is_plain(value: Any) -> bool:
    """Whether a default can be shown in a schema as it is."""
    return value is None or isinstance(value, str | int | float | bool)


# ---- pydantic ------------------------------------------------------------------------------------


def pydantic_adapter(type_: Any) -> Any:
    """Pydantic's reader of any type. Raises ImportError where pydantic is not installed."""
    from pydantic import TypeAdapter

    return TypeAdapter(type_)


def is_pydantic_note(note: Any) -> bool:
    """Whether a note of ``Annotated[T, note]`` is one that pydantic understands."""
    return type(note).__module__.partition(".")[0] in ("pydantic", "annotated_types")
