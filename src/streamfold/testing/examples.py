"""Example values for JSON schemas: what a model would fill in, and always the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeAlias

import msgspec

__all__ = ["example"]

Schema: TypeAlias = Any

# Below this depth optional parts are left out and the flattest alternative is taken, so that
# recursive schemas end.
_DEEP = 4
# A schema that requires itself has no finite example; give up instead of recursing for ever.
_BOTTOM = 64

_FORMATS = {
    "date": "2024-05-17",
    "time": "12:30:00Z",
    "date-time": "2024-05-17T12:30:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "url": "https://example.com/",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
# How many more items to try where they have to be distinct.
_SPARE = 32
# Tried in turn on a `pattern`: no generator of strings from patterns, only the usual suspects.
_PATTERN_GUESSES = (
    "a", "A", "1", "abc", "ABC", "Abc", "12", "123", "1234", "12345", "123456", "AB-12", "ABC-123",
    "a-b", "a_b", "1.0", "1.0.0", "#aabbcc", "2024-05-17", "12:30", "+12025550123",
    "someone@example.com", "https://example.com/",
)  # fmt: skip


def example(schema: Schema, *, nouns: list[str], text: str) -> Any:
    """A value that fits `schema`, made of the prompt.

    The first string of an object is the first noun (without one, the text); the others name
    their property as well. Numbers are the ones the text has, while they last and fit. Where an
    enum value is mentioned, it is the one. Required properties are filled in, and of the
    optional ones those that have no default.

    Understood: type, properties, required, additionalProperties, items, prefixItems, minItems,
    maxItems, uniqueItems, enum, const, anyOf, oneOf, allOf, $ref within the document, format,
    length and number bounds, multipleOf. `pattern` is guessed at; conditions are not looked at.
    """
    return _Maker(schema, nouns, text).make(schema, _Place())


class _Place(msgspec.Struct, frozen=True):
    """Where in the value we are; at one that leads, the first string is the subject itself."""

    name: str = ""
    depth: int = 0
    index: int = 0
    leads: bool = True

    def into(self, name: str = "", index: int | None = None, leads: bool = True) -> _Place:
        return _Place(
            name or self.name,
            self.depth + 1,
            self.index if index is None else index,
            self.leads and leads,
        )


class _Maker:
    def __init__(self, root: Schema, nouns: list[str], text: str) -> None:
        self.root = root
        self.nouns = nouns
        self.text = " ".join(text.split())
        self.numbers = [float(n) for n in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)", text)]

    def make(self, schema: Schema, place: _Place) -> Any:
        schema = self.resolved(schema)
        if place.depth > _BOTTOM:
            return None
        for keyword, maker in _KEYWORDS.items():
            if keyword in schema:
                return maker(self, schema, place)
        return _TYPES[_type_of(schema)](self, schema, place)

    def resolved(self, schema: Schema) -> dict[str, Any]:
        """Follow references and fold `allOf` in; `true` and the like become `{}`."""
        if not isinstance(schema, dict):
            return {}
        for _ in range(_BOTTOM):
            if "$ref" not in schema:
                break
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**self.pointed(schema["$ref"]), **rest}
        parts = [self.resolved(part) for part in schema.get("allOf", [])]
        return _merged({k: v for k, v in schema.items() if k != "allOf"}, parts)

    def pointed(self, reference: str) -> dict[str, Any]:
        target = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key, {}) if key and isinstance(target, dict) else target
        return target if isinstance(target, dict) else {}

    # -- keywords that decide by themselves

    def const(self, schema: Schema, place: _Place) -> Any:
        return schema["const"]

    def enum(self, schema: Schema, place: _Place) -> Any:
        options = schema["enum"] or [None]
        spoken = self.text.lower()
        named = [o for o in options if isinstance(o, str) and o and o.lower() in spoken]
        # The items of an array after the first go through the options, so that they differ.
        return (named or options)[0] if place.index == 0 else options[place.index % len(options)]

    def choice(self, schema: Schema, place: _Place) -> Any:
        options = schema.get("anyOf") or schema.get("oneOf") or [{}]
        outer = {k: v for k, v in schema.items() if k not in ("anyOf", "oneOf")}
        if place.depth >= _DEEP:
            chosen = min(options, key=lambda option: self.height(option, ()))
        else:
            chosen = next(
                (o for o in options if self.resolved(o).get("type") != "null"), options[0]
            )
        return self.make(_merged(self.resolved(chosen), [outer]), place)

    def height(self, schema: Schema, above: tuple[int, ...]) -> float:
        """How many levels the smallest value has; infinite for one that needs itself."""
        references = id(self.pointed(schema["$ref"])) if _is_reference(schema) else 0
        if references in above or len(above) > _BOTTOM:
            return math.inf
        above = (*above, references) if references else above
        schema = self.resolved(schema)
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return min(self.height(option, above) for option in options)
        needed = [schema.get("properties", {}).get(name, {}) for name in schema.get("required", [])]
        needed += [schema.get("items", {})] * min(1, schema.get("minItems", 0))
        levels = 0 if schema.get("type") == "null" else 1
        return levels + max((self.height(part, above) for part in needed), default=0)

    # -- types

    def object(self, schema: Schema, place: _Place) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        value: dict[str, Any] = {}
        leads = True
        for name, part in properties.items():
            if name in required or (place.depth < _DEEP and "default" not in self.resolved(part)):
                value[name] = self.make(part, place.into(name, leads=leads))
                leads = leads and not isinstance(value[name], str)
        free = schema.get("additionalProperties")
        if not properties and isinstance(free, dict):
            value["key"] = self.make(free, place.into("key"))
        return value | {
            name: self.make({}, place.into(name)) for name in required if name not in value
        }

    def array(self, schema: Schema, place: _Place) -> list[Any]:
        first = [
            self.make(part, place.into(index=i))
            for i, part in enumerate(schema.get("prefixItems") or [])
        ]
        if schema.get("items", True) is False or (
            "prefixItems" in schema and "items" not in schema
        ):
            return first
        items = self.resolved(schema.get("items", {}))
        wanted = max(schema.get("minItems", 0), 2 if place.depth < _DEEP else 0)
        count = min(wanted, schema.get("maxItems", wanted))
        made: Iterator[Any] = (
            self.make(items, place.into(index=i)) for i in range(len(first), count + _SPARE)
        )
        if schema.get("uniqueItems"):
            made = _distinct(made)
        return first + list(islice(made, max(0, count - len(first))))

    def string(self, schema: Schema, place: _Place) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        value = self.subject(place)
        if "pattern" in schema:
            value = _guess(schema["pattern"], value)
        shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
        while len(value) < shortest:
            value += " " + value if value else "text"
        # Padding may have gone past the lower bound, never past the upper one.
        return value[:longest].ljust(shortest, ".") if longest is not None else value

    def subject(self, place: _Place) -> str:
        subject = self.nouns[0] if self.nouns else self.text[:80].strip()
        name = "" if place.leads and subject else place.name
        return " ".join(filter(None, [subject, name, str(place.index + 1) * (place.index > 0)]))

    def integer(self, schema: Schema, place: _Place) -> int:
        low, high = _bounds(schema, 1)
        usual = 1990 + _hash(place.name) % 35 if "year" in place.name else 1 + _hash(place.name) % 9
        value = self.spoken(low, high, whole=True)
        value = _within(usual + place.index if value is None else value, low, high)
        step = schema.get("multipleOf")
        return round(math.ceil(value / step) * step) if step else math.ceil(value)

    def number(self, schema: Schema, place: _Place) -> float:
        low, high = _bounds(schema, 0)
        value = self.spoken(low, high, whole=False)
        if value is None:
            value = (10 + _hash(place.name) % 90) / 10 + place.index
        value = _between(schema, _within(value, low, high))
        step = schema.get("multipleOf")
        return math.ceil(value / step) * step if step else value

    def spoken(self, low: float, high: float, *, whole: bool) -> float | None:
        """The next number of the prompt, if it will do; a number is used once."""
        if self.numbers and low <= self.numbers[0] <= high:
            if whole and not self.numbers[0].is_integer():
                return None
            return self.numbers.pop(0)
        return None

    def boolean(self, schema: Schema, place: _Place) -> bool:
        return place.index % 2 == 0

    def null(self, schema: Schema, place: _Place) -> None:
        return None


_Make: TypeAlias = Callable[[_Maker, Schema, _Place], Any]

_KEYWORDS: dict[str, _Make] = {
    "const": _Maker.const,
    "enum": _Maker.enum,
    "anyOf": _Maker.choice,
    "oneOf": _Maker.choice,
}
_TYPES: dict[str, _Make] = {
    "object": _Maker.object,
    "array": _Maker.array,
    "string": _Maker.string,
    "integer": _Maker.integer,
    "number": _Maker.number,
    "boolean": _Maker.boolean,
    "null": _Maker.null,
}
# What a schema without a type is about, by a keyword it has.
_HINTS = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minimum": "number",
    "maximum": "number",
}


def _type_of(schema: dict[str, Any]) -> str:
    declared = schema.get("type")
    if isinstance(declared, list):
        declared = next((name for name in declared if name != "null"), "null")
    if declared in _TYPES:
        return str(declared)
    return next((kind for hint, kind in _HINTS.items() if hint in schema), "string")


def _is_reference(schema: Schema) -> bool:
    return isinstance(schema, dict) and "$ref" in schema


def _merged(schema: dict[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    for part in parts:
        properties = {**schema.get("properties", {}), **part.get("properties", {})}
        required = [*schema.get("required", []), *part.get("required", [])]
        schema = {**schema, **part}
        if properties:
            schema["properties"] = properties
        if required:
            schema["required"] = list(dict.fromkeys(required))
    return schema


def _bounds(schema: dict[str, Any], gap: int) -> tuple[float, float]:
    """The least and the greatest value; exclusive bounds move in by `gap`."""
    lows = [schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf) + gap]
    highs = [schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf) - gap]
    return max(lows), min(highs)


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _between(schema: dict[str, Any], value: float) -> float:
    """Move a number off an exclusive bound."""
    low, high = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and value <= low:
        return low + 1 if high is None else (low + high) / 2  # type: ignore[no-any-return]
    if high is not None and value >= high:
        return high - 1 if low is None else (low + high) / 2  # type: ignore[no-any-return]
    return value


def _distinct(values: Iterable[Any]) -> Iterator[Any]:
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
            yield value


def _guess(pattern: str, value: str) -> str:
    try:
        found = re.compile(pattern)
    except re.error:
        return value
    return next((guess for guess in (value, *_PATTERN_GUESSES) if found.search(guess)), value)


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")
