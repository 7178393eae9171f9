"""A JSON schema in the words that a vendor takes.

Each vendor holds answers to a subset of JSON schema, and each to another one. `translate` says the
same in the subset: alternatives as `anyOf`, a reference that has company beside it as one, objects
closed where they must be. What only narrows the values (bounds, patterns, lengths) and is not in
the subset is told in the description, as the vendors' SDKs do; the answer is checked here anyway.
What the shape itself hangs on and the vendor cannot say raises `Inexpressible`, with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..errors import ConfigurationError
from .references import (
    Inexpressible,
    check_depth,
    cyclic_names,
    inlined,
    references,
    target_of,
)
from .rules import GEMINI, OLLAMA, Rules, any_value
from .types import JSONSchema, schema_of_values
from .values import definitions, types_of

__all__ = ["for_tool", "translate"]

#: What narrows values only: where it is not taken, the description tells it.
_NARROWING: Final = frozenset(
    """format pattern minLength maxLength minItems maxItems uniqueItems contains minContains
    maxContains minProperties maxProperties propertyNames contentEncoding contentMediaType
    minimum maximum exclusiveMinimum exclusiveMaximum multipleOf""".split()
)
#: What the shape hangs on and nobody takes; `prefixItems` some do.
_SHAPING: Final = frozenset(
    """dependentRequired dependentSchemas else if not patternProperties prefixItems then
    unevaluatedItems unevaluatedProperties""".split()
)


def for_tool(
    schema: JSONSchema, rules: Rules, *, name: str = "schema", strict: bool | None = None
) -> JSONSchema:
    """The schema of a tool's arguments. Nobody holds calls to it unless they are strict, so it goes
    out as it is but where the API itself reads only a part of JSON schema."""
    check_depth(schema, name)
    if strict and not rules.strict_tools:
        raise ConfigurationError(
            f"strict is asked for tool {name!r}, but {rules.vendor} are for answers: no call can "
            "be held to a schema there"
        )
    if strict:
        return translate(schema, rules, name=name)
    if rules is GEMINI:
        return translate(schema, rules, name=name, lenient=True)
    return inlined(schema) if rules is OLLAMA else schema


def translate(
    schema: JSONSchema, rules: Rules, *, name: str = "schema", lenient: bool = False
) -> JSONSchema:
    """`schema` as `rules` have it; a new one.

    Raises Inexpressible, with the place, for what cannot be said; if `lenient` it is left out
    instead (for tools, whose arguments are checked before they run).
    """
    return _Translator(schema, rules, name, lenient).whole()


class _Translator:
    def __init__(self, schema: JSONSchema, rules: Rules, name: str, lenient: bool) -> None:
        self._schema = schema
        self._rules = rules
        self._name = name
        self._lenient = lenient
        self._defs: dict[str, Any] = {}
        self._cyclic: frozenset[str] = frozenset()
        self._optional = 0  # properties that may be left out
        self._unions = 0  # properties of several types

    def whole(self) -> JSONSchema:
        check_depth(self._schema, self._name)
        self._defs = definitions(self._schema)
        self._cyclic = cyclic_names(self._defs)
        schema = self._schema
        if "$ref" in schema:  # the outermost has to be an object
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            target = self._defs.get(target_of(schema["$ref"]))
            schema = {**(target if isinstance(target, dict) else {}), **rest}
        whole = self._part(schema, "$")
        if self._rules.complete and whole.get("type") != "object":
            self._cannot("$", "is no object")
        self._at_most(self._rules.most_optional, self._optional, "that may be left out")
        self._at_most(self._rules.most_unions, self._unions, "of several types")
        return whole

    def _at_most(self, most: int | None, count: int, what: str) -> None:
        if most is not None and count > most:
            self._cannot("$", f"has {count} properties {what} in all: expected at most {most}")

    def _cannot(self, where: str, what: str) -> None:
        if not self._lenient:
            raise Inexpressible(
                f"{self._name!r} cannot be said to {self._rules.vendor}: `{where}` {what}"
            )

    def _part(self, schema: Any, where: str) -> JSONSchema:
        if schema is True:
            schema = {}
        if not isinstance(schema, dict):
            self._cannot(where, f"is {schema!r:.40}, which is no schema of values")
            return {}
        for word in sorted(schema.keys() & _SHAPING - self._rules.takes.keys()):
            self._cannot(where, f"has `{word}`")
        schema = self._combined(schema, where)
        if "$ref" in schema:
            return self._reference(schema["$ref"], where)
        said = self._values(schema, where)
        if "anyOf" in said:  # what `_values` made of an enum
            return said
        for word in ("$defs", "definitions"):
            if word in schema:
                said[word] = {key: self._part(item, key) for key, item in schema[word].items()}
        for word in self._rules.combines & schema.keys():
            said[word] = [
                self._part(option, f"{where}|{place}") for place, option in enumerate(schema[word])
            ]
        kinds = types_of(schema)
        if "object" in kinds or "properties" in schema:
            said.update(self._object(schema, where))
        if "array" in kinds:
            said.update(self._array(schema, where))
        if self._rules.typed and not said.keys() & {"type", "anyOf"}:
            self._cannot(where, "is a value of any type")
        return said

    def _combined(self, schema: JSONSchema, where: str) -> JSONSchema:
        """`schema` with the combinators that the vendor takes, and references that stand alone."""
        for word in ("oneOf", "allOf", "$ref"):
            alone = word == "$ref" and len(schema) == 1
            if word not in schema or alone or word in self._rules.combines:
                continue
            options = [{"$ref": schema["$ref"]}] if word == "$ref" else schema[word]
            rest = {key: value for key, value in schema.items() if key != word}
            if "anyOf" in schema or (word == "allOf" and len(options) > 1):
                self._cannot(where, f"is several schemas at once (`{word}`)")
                schema = rest
            else:
                schema = {**rest, "anyOf": options}
        return schema

    def _reference(self, ref: Any, where: str) -> JSONSchema:
        target = target_of(ref)
        if not str(ref).startswith("#") or target not in self._defs:
            self._cannot(where, f"refers to {ref!r:.60}, which is not in the schema")
        if self._rules.cycles == "nowhere" and target in self._cyclic:
            self._cannot(where, f"is recursive: {target!r} holds itself")
        return {"$ref": ref}

    def _values(self, schema: JSONSchema, where: str) -> JSONSchema:
        """What the schema says of values whatever their type."""
        takes = self._rules.takes
        said = _only_type(schema)
        for word, value in schema.items():
            if word in takes and takes[word](value):
                said[word] = value
        told = {word: schema[word] for word in schema if word in _NARROWING and word not in said}
        values = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if values is not None and not said.keys() & {"enum", "const"}:
            options = self._by_type(values, where)
            if len(options) > 1:
                whole: JSONSchema = {"anyOf": [_told(*option) for option in options]}
                return whole | {key: said[key] for key in ("title", "description") if key in said}
            for narrowed, more in options:
                said.update(narrowed)
                told.update(more)
        elif values is not None and "type" not in said:
            said.update(_only_type(schema_of_values(list(values))))
        if "prefixItems" in said:
            said["prefixItems"] = [
                self._part(item, f"{where}[{place}]")
                for place, item in enumerate(schema["prefixItems"])
            ]
        return _told(said, told)

    def _by_type(self, values: Iterable[Any], where: str) -> list[tuple[JSONSchema, JSONSchema]]:
        """Values that the vendor does not take in one `enum`, those of each type by themselves:
        what is said of them, and what is told."""
        by_type: dict[str, list[Any]] = {}
        for value in values:
            kind = schema_of_values([value]).get("type")
            if kind is None:
                self._cannot(where, f"may be {value!r:.40}, which is neither a text nor a number")
            else:
                by_type.setdefault(kind, []).append(value)
        takes = self._rules.takes.get("enum", any_value)
        options: list[tuple[JSONSchema, JSONSchema]] = []
        for kind, found in by_type.items():
            if takes(found):
                options.append(({"type": kind, "enum": found}, {}))
            else:
                options.append(({"type": kind}, {} if kind == "null" else {"enum": found}))
        return options

    def _object(self, schema: JSONSchema, where: str) -> JSONSchema:
        rules, further = self._rules, schema.get("additionalProperties")
        if rules.closed and (
            further not in (None, False) or (further is None and "properties" not in schema)
        ):
            self._cannot(where, "is an object of any shape: expected properties and none besides")
        given, required = schema.get("properties", {}), schema.get("required", [])
        properties = {name: self._part(item, f"{where}.{name}") for name, item in given.items()}
        self._optional += sum(name not in required for name in properties)
        self._unions += sum(map(_is_union, properties.values()))
        said: JSONSchema = {"type": schema.get("type", "object")}
        if rules.complete:
            properties = {
                name: item if name in required else _nullable(item)
                for name, item in properties.items()
            }
            required = list(properties)
        if rules.cycles == "optional":
            required = [name for name in required if not self._holds_a_cycle(given.get(name))]
        if rules.some_required and properties and not required:
            required = list(properties)[:1]
        if properties or rules.closed:
            said["properties"] = properties
        if required or rules.complete:
            said["required"] = list(required)
        if rules.closed:
            said["additionalProperties"] = False
        elif isinstance(further, dict):
            said["additionalProperties"] = self._part(further, f"{where}{{}}")
        elif further is not None:
            said["additionalProperties"] = further
        return said

    def _array(self, schema: JSONSchema, where: str) -> JSONSchema:
        if "items" not in schema and not self._rules.typed:
            return {}
        return {"items": self._part(schema.get("items", {}), f"{where}[]")}

    def _holds_a_cycle(self, schema: Any) -> bool:
        return any(target in self._cyclic for target in references(schema))


def _told(said: JSONSchema, told: Mapping[str, Any]) -> JSONSchema:
    """`said`, with what the vendor does not take told in the description."""
    if not told:
        return said
    listed = ", ".join(f"{word}: {value}" for word, value in told.items())
    before = f"{said['description']}\n\n" if said.get("description") else ""
    return {**said, "description": f"{before}{{{listed}}}"}


def _only_type(schema: JSONSchema) -> JSONSchema:
    return {"type": schema["type"]} if "type" in schema else {}


def _is_union(schema: JSONSchema) -> bool:
    return len(schema.get("anyOf", ())) > 1 or len(types_of(schema)) > 1


def _nullable(schema: JSONSchema) -> JSONSchema:
    options = schema.get("anyOf", [schema])
    if any("null" in types_of(option) for option in options):
        return schema
    text = {"description": schema["description"]} if "description" in schema else {}
    return {"anyOf": [*options, {"type": "null"}], **text}
