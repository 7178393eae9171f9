"""Pydantic models made by Hypothesis, and the shape of a schema, for comparing two of them."""

from __future__ import annotations

import datetime
import enum
import keyword
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import pydantic
from hypothesis import strategies as st
from pydantic import Field


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


LEAVES: tuple[Any, ...] = (
    int,
    str,
    bool,
    float,
    Color,
    Literal["a", "b"],
    Literal["only"],
    datetime.date,
    uuid.UUID,
    Annotated[int, Field(ge=1, le=9)],
    Annotated[str, Field(min_length=2, max_length=40, description="Some text.")],
)
#: What Gemini's SDK has no words for.
MIXED: tuple[Any, ...] = (Literal[1, "x"], Literal[1, 2], Literal[True], Literal["a", None])

NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name) and not hasattr(pydantic.BaseModel, name)
)


def _model(fields: list[tuple[str, Any, bool]]) -> Any:
    made = {
        name: (type_, ... if needed else Field(default_factory=lambda: None))
        for name, type_, needed in fields
    }
    return pydantic.create_model("M", **made)


def _fields(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    field = st.tuples(NAMES, types, st.booleans())
    return st.lists(field, min_size=1, max_size=4, unique_by=lambda f: f[0]).map(_model)


def _wrapped(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        types.map(lambda t: list[t]),
        types.map(lambda t: t | None),
        types.map(lambda t: list[t] | None),
        types.map(lambda t: Annotated[list[t], Field(min_length=1)]),
        _fields(types),
    )


def models(leaves: Sequence[Any] = (*LEAVES, *MIXED)) -> st.SearchStrategy[Any]:
    """Classes with up to four fields: of the leaves, lists, optional ones, and further classes."""
    return _fields(st.recursive(st.sampled_from(leaves), _wrapped, max_leaves=6))


def shape(schema: Any, defs: Any = None, *, nulls: bool = True) -> Any:
    """What a schema says, whatever words it uses: types in small letters, references followed,
    alternatives in one order, one value as a list of one. Without `nulls`, whether something may be
    null does not count."""
    defs = {**schema.get("definitions", {}), **schema.get("$defs", {})} if defs is None else defs
    while "$ref" in schema:
        schema = {**defs[schema["$ref"].rpartition("/")[2]], **_without(schema, "$ref")}
    options = [shape(option, defs, nulls=nulls) for option in schema.get("anyOf", ())]
    kinds = schema.get("type") or []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    kinds = [kind.lower() for kind in kinds]
    nullable = bool(schema.get("nullable")) or "null" in kinds or {"null": True} in options
    nullable = nullable or None in schema.get("enum", ())
    options = [option for option in options if option != {"null": True}]
    options = [_without(option, "null") for option in options]
    said: dict[str, Any] = {}
    if len(options) == 1:
        said.update(options[0])
    elif options:
        said["options"] = sorted(options, key=repr)
    elif kinds == ["null"]:
        return {"null": True}
    said.update(_itself(schema, [kind for kind in kinds if kind != "null"], defs, nulls))
    if nullable and nulls:
        said["null"] = True
    return said


def _itself(schema: Any, kinds: list[str], defs: Any, nulls: bool) -> dict[str, Any]:
    said: dict[str, Any] = {}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        said["values"] = sorted(repr(value) for value in values if value is not None)
    elif kinds:
        said["types"] = sorted(kinds)
    if "properties" in schema:
        said["properties"] = {
            name: shape(part, defs, nulls=nulls) for name, part in schema["properties"].items()
        }
        said["required"] = sorted(schema.get("required", ()))
        if "additionalProperties" in schema:
            said["further"] = schema["additionalProperties"]
    if "items" in schema:
        said["items"] = shape(schema["items"], defs, nulls=nulls)
    for bound in ("minimum", "maximum", "minItems", "maxItems", "format"):
        if schema.get(bound) is not None:
            said[bound] = schema[bound]
    return said


def _without(schema: Any, *keys: str) -> Any:
    return {key: value for key, value in schema.items() if key not in keys}
