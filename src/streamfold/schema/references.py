"""References in a schema: which there are, which are circular, and how to do without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..errors import ConfigurationError
from .types import JSONSchema
from .values import definitions

__all__ = ["Inexpressible", "check_depth", "cyclic_names", "inlined", "references", "target_of"]

_DEEPEST: Final = 100  # levels of dicts and lists; an object takes two of them


class Inexpressible(ConfigurationError):
    """A schema says what the vendor has no words for; the text names the part."""


def target_of(ref: Any) -> str:
    """The name under which `definitions` has what a reference is to."""
    return str(ref).rpartition("/")[2]


def references(schema: Any) -> Iterator[str]:
    """The targets of all references in a part of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from references(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield target_of(schema["$ref"])
        for key, item in schema.items():
            if key not in ("$defs", "definitions"):
                yield from references(item)


def cyclic_names(defs: Mapping[str, Any]) -> frozenset[str]:
    """The definitions that hold themselves."""
    edges = {name: set(references(schema)) for name, schema in defs.items()}
    return frozenset(name for name in edges if name in _reached(edges[name], edges))


def _reached(start: Iterable[str], edges: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    left = list(start)
    while left:
        name = left.pop()
        if name not in seen:
            seen.add(name)
            left.extend(edges.get(name, ()))
    return seen


def inlined(schema: JSONSchema) -> JSONSchema:
    """`schema` with its definitions in the places that refer to them, but for those that hold
    themselves: Ollama drops references from the parameters of tools. As it is if that would be more
    than `_MOST_PLACES` definitions."""
    defs = definitions(schema)
    cyclic = cyclic_names(defs)
    places = 0

    def put(part: Any) -> Any:
        nonlocal places
        if isinstance(part, list):
            return [put(item) for item in part]
        if not isinstance(part, dict):
            return part
        ref = part.get("$ref")
        target = target_of(ref) if isinstance(ref, str) else None
        if target not in defs or target in cyclic or places > _MOST_PLACES:
            return {key: put(item) for key, item in part.items()}
        places += 1
        beside = {key: put(item) for key, item in part.items() if key != "$ref"}
        return {**put(defs[target]), **beside}

    rest = {key: put(item) for key, item in schema.items() if key not in ("$defs", "definitions")}
    kept = {key: put(item) for key, item in schema.get("$defs", {}).items() if key in cyclic}
    if places > _MOST_PLACES:
        return schema
    return {**rest, "$defs": kept} if kept else rest


_MOST_PLACES: Final = 1000


def check_depth(schema: Any, name: str) -> None:
    level: list[Any] = [schema]
    for _ in range(_DEEPEST + 1):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise Inexpressible(
        f"{name!r} is nested deeper than {_DEEPEST} levels: expected a schema that refers to its "
        "parts by $ref"
    )
