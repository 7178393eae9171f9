"""Schemas in the words of a vendor, against those that the vendor's own SDK makes.

The SDKs are not among the dependencies: what is not installed is skipped.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from schema_models import LEAVES, models, shape
from streamfold.schema import schema_of, translate
from streamfold.schema.rules import CLAUDE, GEMINI, OPENAI
from streamfold.testing.examples import example

TWO_HUNDRED = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def needs(sdk: str) -> Any:
    try:
        found = importlib.util.find_spec(sdk) is not None
    except ModuleNotFoundError:
        found = False
    return pytest.mark.skipif(not found, reason=f"{sdk} is not installed")


def values_of(schema: Any) -> Iterator[Any]:
    for text in ("one", "two"):
        yield example(schema, nouns=["Noun"], text=text)


def fits(value: Any, schema: Any) -> None:
    jsonschema.Draft202012Validator(schema).validate(value)


@needs("openai")
class TestOpenAI:
    """`openai.lib`: strict mode. There a property that may be left out is required and not
    nullable; ours may be null, so that the model can leave it out."""

    @TWO_HUNDRED
    @given(model=models())
    def test_the_shape_is_theirs_but_for_nulls(self, model: Any) -> None:
        from openai.lib._pydantic import to_strict_json_schema

        theirs, ours = to_strict_json_schema(model), translate(schema_of(model), OPENAI)
        assert shape(ours, nulls=False) == shape(theirs, nulls=False)
        for value in values_of(theirs):
            fits(value, ours)

    def test_what_refers_to_itself(self) -> None:
        from openai.lib._pydantic import to_strict_json_schema

        theirs, ours = to_strict_json_schema(_tree()), translate(schema_of(_tree()), OPENAI)
        assert _with_refs(ours) == _with_refs(theirs)


@needs("anthropic")
class TestAnthropic:
    """`anthropic.transform_schema`: structured output, and strict tools."""

    @TWO_HUNDRED
    @given(model=models())
    def test_the_shape_is_theirs(self, model: Any) -> None:
        from anthropic import transform_schema

        theirs, ours = transform_schema(model), translate(schema_of(model), CLAUDE)
        assert shape(ours) == shape(theirs)
        for value in values_of(theirs):
            fits(value, ours)

    @TWO_HUNDRED
    @given(model=models())
    def test_the_same_is_told_in_words(self, model: Any) -> None:
        """All that their grammar does not hold the model to, but for defaults."""
        from anthropic import transform_schema

        assert told(translate(schema_of(model), CLAUDE)) == told(transform_schema(model))


@needs("google.genai")
class TestGemini:
    """`google.genai`: it says schemas in Google's own form, without references."""

    @TWO_HUNDRED
    @given(model=models(LEAVES))
    def test_the_shape_is_theirs(self, model: Any) -> None:
        from google.genai import _transformers

        theirs = _transformers.t_schema(None, copy.deepcopy(model.model_json_schema()))
        assert theirs is not None
        dumped = theirs.model_dump(exclude_none=True, by_alias=True, mode="json")
        assert shape(translate(schema_of(model), GEMINI)) == shape(dumped)

    @TWO_HUNDRED
    @given(model=models())
    def test_only_words_of_the_api_are_used(self, model: Any) -> None:
        from google.genai import types

        known = {field.alias or name for name, field in types.JSONSchema.model_fields.items()}
        known |= {"$ref", "$defs", "additionalProperties"}
        ours = translate(schema_of(model), GEMINI)
        assert set(words(ours)) <= known | {"prefixItems", "minItems", "maxItems", "anyOf"}
        for value in values_of(schema_of(model)):
            fits(value, ours)


def told(schema: Any) -> list[str]:
    """What the descriptions of a schema say in braces, defaults apart."""
    found: list[str] = []
    for part in parts(schema):
        for listed in re.findall(r"\{([^{}]*)\}$", part.get("description", "")):
            found += [item for item in listed.split(", ") if not item.startswith("default:")]
    return sorted(found)


def parts(schema: Any) -> Iterator[Any]:
    """A schema and all schemas in it."""
    yield schema
    inner = [schema["items"]] if "items" in schema else []
    for word in ("properties", "$defs"):
        inner += schema.get(word, {}).values()
    for part in (*inner, *schema.get("anyOf", ())):
        yield from parts(part)


def words(schema: Any) -> Iterator[str]:
    for part in parts(schema):
        yield from part


def _tree() -> Any:
    import pydantic

    class Tree(pydantic.BaseModel):
        name: str
        children: list[Tree]

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    return Tree


def _with_refs(schema: Any) -> Any:
    """What the definitions say, references as they are."""
    return {
        name: {
            "properties": {key: part.get("items", part) for key, part in d["properties"].items()},
            "required": d["required"],
            "further": d["additionalProperties"],
        }
        for name, d in schema["$defs"].items()
    }
