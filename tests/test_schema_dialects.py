"""Schemas in the words of each vendor: what it takes, what is told, what it cannot express."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings

from schema_models import models
from streamfold.errors import ConfigurationError
from streamfold.schema import (
    Inexpressible,
    check,
    for_tool,
    schema_of,
    translate,
    without_nulls,
)
from streamfold.schema.references import inlined
from streamfold.schema.rules import CLAUDE, COHERE, GEMINI, OLLAMA, OPENAI
from streamfold.testing.examples import example
from test_schema import Cat, Loose, Node, Old, Owner, PTree, Renamed, Tree, meets_draft


def strict_schema(schema: Any) -> Any:
    """In the words of OpenAI's strict mode; None if it has none for it."""
    try:
        return translate(schema, OPENAI)
    except Inexpressible:
        return None


# ---- strict mode ---------------------------------------------------------------------------------

#: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
ALLOWED = {
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const"),
    *("$ref", "$defs", "definitions", "title", "description", "pattern", "format", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def assert_openai(schema: Any, *, root: bool = True) -> None:
    """The rules of strict mode, as the vendor's page states them."""
    assert isinstance(schema, dict)
    assert schema.keys() <= ALLOWED, schema
    if root:
        assert schema["type"] == "object"
        assert "anyOf" not in schema
    if "$ref" in schema:
        assert len(schema) == 1, "a reference has no company"
        return
    assert "type" in schema or "anyOf" in schema, schema
    assert schema.get("format", "date") in FORMATS
    if "properties" in schema or schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    if schema.get("type") == "array":
        assert "items" in schema
    for part in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
        assert_openai(part, root=False)
    for part in schema.get("$defs", {}).values():
        assert_openai(part, root=False)
    if "items" in schema:
        assert_openai(schema["items"], root=False)


@pytest.mark.parametrize("type_", [Old, Node, Tree, PTree, Owner, Cat, Loose, Renamed])
def test_classes_have_strict_schemas(type_: Any) -> None:
    """All rules hold, discriminated unions and recursion included."""
    strict = strict_schema(schema_of(type_))
    meets_draft(strict)
    assert_openai(strict)


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"type": "object"},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {}, "patternProperties": {"a": {}}},
        {"type": "array"},
        {"type": "array", "items": {}},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"allOf": [{"type": "string"}, {"type": "string"}]},
        {"not": {"type": "string"}},
        {"enum": [[1]]},
        True,
    ],
)
def test_what_strict_mode_cannot_say_has_no_strict_schema(part: Any) -> None:
    """None, at any depth, and never a schema that the vendor rejects."""
    inside = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    deep = {"type": "object", "properties": {"b": {"type": "array", "items": inside}}}
    assert strict_schema(inside) is None
    assert strict_schema(deep) is None


@pytest.mark.parametrize(
    ("part", "strict"),
    [
        (
            {"type": "string", "minLength": 2, "format": "uri"},
            {"type": "string", "description": "{minLength: 2, format: uri}"},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"enum": ["a", 1]}, {"type": ["string", "integer"], "enum": ["a", 1]}),
        ({"const": 1}, {"type": "integer", "const": 1}),
        ({"allOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}]}),
        (
            {"type": "string", "pattern": "(?=a)", "description": "An a."},
            {"type": "string", "description": "An a.\n\n{pattern: (?=a)}"},
        ),
        ({"type": "string", "default": "x"}, {"type": "string"}),
    ],
)
def test_parts_are_said_in_the_words_of_strict_mode(part: Any, strict: Any) -> None:
    """What is not known there is told in the description or said otherwise; the answer is checked
    here, too."""
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    assert strict_schema(schema)["properties"]["a"] == strict  # type: ignore[index]


def test_a_nullable_object_stays_nullable() -> None:
    """`type: [object, null]` keeps its null."""
    part = {"type": ["object", "null"], "properties": {"x": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    strict = strict_schema(schema)
    jsonschema.validate({"a": None}, strict)


def test_properties_named_like_keywords_are_properties() -> None:
    """A property called `default`, `not` or `enum` is one."""
    names = ["default", "not", "enum", "anyOf", "$ref", "required", "title"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    strict = strict_schema(schema)
    assert strict is not None
    assert list(strict["properties"]) == names


def test_the_given_schema_is_left_alone() -> None:
    """A new one is made."""
    schema = schema_of(Owner)
    before = msgspec.json.encode(schema)
    strict_schema(schema)
    without_nulls({"pet": {"kind": "cat", "lives": None}}, schema)
    assert msgspec.json.encode(schema) == before


def test_a_reference_to_the_whole_is_followed() -> None:
    """`$ref: "#"`, as the vendor's page writes recursion."""
    schema = {
        "type": "object",
        "properties": {
            "note": {"type": "string"},
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        },
    }
    answered = {"note": None, "next": {"note": None, "next": None}}
    assert without_nulls(answered, schema) == {"next": {"next": None}}
    assert_openai(strict_schema(schema))


# ---- any model -----------------------------------------------------------------------------------


def nulled(value: Any, schema: Any, defs: Any) -> Any:
    """`value` as a strict model answers: every property there, null for what is left out."""
    while isinstance(schema, dict) and "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        options = [schema, *schema.get("anyOf", ())]
        items = next((o["items"] for o in options if "items" in o), {})
        return [nulled(item, items, defs) for item in value]
    if not isinstance(value, dict):
        return value
    for option in schema.get("anyOf", ()):
        found = option
        while "$ref" in found:
            found = defs[found["$ref"].rpartition("/")[2]]
        if "properties" in found:
            schema = found
    return {
        name: nulled(value[name], part, defs) if name in value else None
        for name, part in schema["properties"].items()
    }


@settings(max_examples=100)
@given(model=models())
def test_any_model_has_a_strict_schema_that_is_sound(model: Any) -> None:
    """It keeps the vendor's rules; what fits the plain schema fits it with nulls, and comes back
    through `without_nulls` as it was and validates."""
    schema = schema_of(model)
    strict = strict_schema(schema)
    assert strict is not None
    meets_draft(strict)
    assert_openai(strict)
    fits = jsonschema.Draft202012Validator(schema).validate
    fits_strict = jsonschema.Draft202012Validator(strict).validate
    for text in ("one", "two"):
        value = example(schema, nouns=["N"], text=text)
        fits(value)
        check(value, schema)
        least = _least(value, schema, schema.get("$defs", {}))
        for given_value in (value, least):
            answered = nulled(given_value, strict, strict.get("$defs", {}))
            fits_strict(answered)
            back = without_nulls(answered, schema)
            assert back == _without_meaningless(given_value, back)
            model.model_validate(back)


def _least(value: Any, schema: Any, defs: Any) -> Any:
    """`value` with nothing that may be left out, at the outermost level."""
    return {name: item for name, item in value.items() if name in schema.get("required", ())}


def _without_meaningless(given_value: Any, back: Any) -> Any:
    """Left-out properties that may be null come back as null: that says the same."""
    if isinstance(given_value, list):
        return [_without_meaningless(a, b) for a, b in zip(given_value, back, strict=True)]
    if not isinstance(given_value, dict):
        return given_value
    added = {name: None for name, item in back.items() if name not in given_value and item is None}
    kept = {name: _without_meaningless(item, back.get(name)) for name, item in given_value.items()}
    return {**kept, **added}


# ---- every vendor --------------------------------------------------------------------------------

ALL = [OPENAI, CLAUDE, GEMINI, COHERE, OLLAMA]
VENDORS = [rules.vendor for rules in ALL]
KNOWN = {
    CLAUDE.vendor: {
        *"type properties required additionalProperties items anyOf enum const $ref $defs".split()
    }
    | {"title", "description", "format", "minItems"},
    GEMINI.vendor: {
        *"type properties required additionalProperties items prefixItems anyOf enum".split()
    }
    | {*"$ref $defs title description format minimum maximum minItems maxItems".split()},
    COHERE.vendor: {
        *"type properties required additionalProperties items anyOf enum const $ref $defs".split()
    }
    | {"title", "description", "format", "pattern", "default"},
}


def parts(schema: Any) -> Iterator[Any]:
    """A schema and all schemas in it."""
    yield schema
    inner = [schema[word] for word in ("items",) if word in schema]
    for word in ("properties", "$defs"):
        inner += schema.get(word, {}).values()
    for word in ("anyOf", "prefixItems"):
        inner += schema.get(word, ())
    for part in inner:
        yield from parts(part)


@pytest.mark.parametrize("rules", ALL[1:], ids=VENDORS[1:])
@settings(max_examples=25, deadline=None)
@given(model=models())
def test_what_fits_a_model_fits_its_schema_in_any_words(rules: Any, model: Any) -> None:
    """Translating never forbids what was allowed, and uses only words that the vendor knows."""
    schema = schema_of(model)
    said = translate(schema, rules)
    meets_draft(said)
    for part in parts(said):
        assert part.keys() <= KNOWN.get(rules.vendor, part.keys())
        if "$ref" in part:
            assert len(part) == 1
        elif rules is CLAUDE and "properties" in part:
            assert part["additionalProperties"] is False
        elif rules is COHERE and part.get("properties"):
            assert part["required"]
    for text in ("one", "two"):
        jsonschema.Draft202012Validator(said).validate(example(schema, nouns=["N"], text=text))


def of(part: Any, **more: Any) -> Any:
    return {"type": "object", "properties": {"a": part}, "required": ["a"], **more}


SAID: list[tuple[Any, Any, Any]] = [
    (CLAUDE, {"type": "string", "format": "uri"}, {"type": "string", "format": "uri"}),
    (CLAUDE, {"type": "string", "pattern": "a+"},
     {"type": "string", "description": "{pattern: a+}"}),
    (CLAUDE, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
     {"type": "array", "items": {"type": "string"}, "minItems": 1,
      "description": "{maxItems: 3}"}),
    (CLAUDE, {"type": "integer", "minimum": 1, "description": "How many."},
     {"type": "integer", "description": "How many.\n\n{minimum: 1}"}),
    (CLAUDE, {"oneOf": [{"type": "string"}, {"type": "null"}]},
     {"anyOf": [{"type": "string"}, {"type": "null"}]}),
    (CLAUDE, {"$ref": "#/$defs/D", "description": "x"},
     {"anyOf": [{"$ref": "#/$defs/D"}], "description": "x"}),
    (GEMINI, {"const": "a"}, {"type": "string", "enum": ["a"]}),
    (GEMINI, {"type": "boolean", "const": True},
     {"type": "boolean", "description": "{enum: [True]}"}),
    (GEMINI, {"type": ["string", "null"], "enum": ["a", None], "description": "x"},
     {"anyOf": [{"type": "string", "enum": ["a"]}, {"type": "null"}], "description": "x"}),
    (GEMINI, {"enum": [1, "a"]}, {"enum": [1, "a"], "type": ["integer", "string"]}),
    (GEMINI, {"type": "string", "maxLength": 3, "default": "x"},
     {"type": "string", "description": "{maxLength: 3}"}),
    (GEMINI, {}, {}),
    (GEMINI, {"type": "object", "additionalProperties": {"const": 1}},
     {"type": "object", "additionalProperties": {"type": "integer", "enum": [1]}}),
    (GEMINI, {"type": "array", "prefixItems": [{"const": "a"}]},
     {"type": "array", "prefixItems": [{"type": "string", "enum": ["a"]}]}),
    (COHERE, {"type": "integer", "minimum": 1}, {"type": "integer", "description": "{minimum: 1}"}),
    (COHERE, {"type": "string", "pattern": "^a$"},
     {"type": "string", "description": "{pattern: ^a$}"}),
    (COHERE, {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}},
     {"type": "object", "properties": {"b": {"type": "string"}, "c": {}}, "required": ["b"]}),
    (COHERE, {"type": "object", "additionalProperties": {"type": "integer"}},
     {"type": "object", "additionalProperties": {"type": "integer"}}),
    (OLLAMA, {"type": "string", "pattern": "a"}, {"type": "string", "description": "{pattern: a}"}),
    (OLLAMA, {"type": "string", "pattern": "^a$", "minLength": 1},
     {"type": "string", "pattern": "^a$", "minLength": 1}),
    (OLLAMA, {"allOf": [{"type": "object"}, {"oneOf": [{"type": "object"}]}]},
     {"allOf": [{"type": "object"}, {"oneOf": [{"type": "object"}]}]}),
    (OLLAMA, True, {}),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "part", "said"), SAID)
def test_parts_in_the_words_of_a_vendor(rules: Any, part: Any, said: Any) -> None:
    """As its page has them; what it has no keyword for is told."""
    defs = {"D": {"type": "object", "properties": {"x": {"type": "string"}}}}
    schema = of(part, **{"$defs": defs})
    before = msgspec.json.encode(schema)
    assert translate(schema, rules)["properties"]["a"] == said
    assert msgspec.json.encode(schema) == before


CANNOT: list[tuple[Any, Any, str]] = [
    (CLAUDE, {}, r"`\$\.a` is a value of any type"),
    (CLAUDE, {"type": "array", "items": {}}, r"`\$\.a\[\]` is a value of any type"),
    (CLAUDE, {"type": "object"}, r"`\$\.a` is an object of any shape"),
    (CLAUDE, of({"type": "object", "additionalProperties": True}), r"`\$\.a\.a` is an object of"),
    (CLAUDE, {"type": "object", "additionalProperties": {"type": "string"}}, "any shape"),
    (CLAUDE, {"enum": [{"x": 1}]}, r"`\$\.a` may be {'x': 1}"),
    (CLAUDE, {"allOf": [{"type": "object"}, {"type": "object"}]}, "several schemas at once"),
    (CLAUDE, {"type": "array", "prefixItems": [{"type": "string"}]}, "has `prefixItems`"),
    (CLAUDE, {"$ref": "https://example.com/s"}, "refers to 'https://example.com/s'"),
    (CLAUDE, {"$ref": "#/$defs/Nowhere"}, "refers to '#/.defs/Nowhere'"),
    (CLAUDE, {"$ref": "#"}, r"`\$\.a` is recursive: '#' holds itself"),
    (OPENAI, {"anyOf": [{"type": "string"}, {}]}, r"`\$\.a\|1` is a value of any type"),
    *((rules, {"not": {"type": "string"}}, "has `not`") for rules in ALL),
    *((rules, {"type": "object", "patternProperties": {}}, "`patternProp") for rules in ALL),
    *((rules, False, "is False, which is no schema of values") for rules in ALL),
]


@pytest.mark.parametrize(("rules", "part", "told"), CANNOT)
def test_what_a_vendor_cannot_express_is_refused_by_place(rules: Any, part: Any, told: str) -> None:
    """Typed, before any request; but for tools that are not strict, where it is left out."""
    with pytest.raises(Inexpressible, match=told) as caught:
        translate(of(part), rules, name="Answer")
    assert "'Answer' cannot be said to " + rules.vendor in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)
    meets_draft(translate(of(part), rules, lenient=True))


@pytest.mark.parametrize("rules", ALL, ids=VENDORS)
def test_a_schema_nested_without_end_is_refused(rules: Any) -> None:
    """Ten thousand levels: an error of ours, not of Python's."""
    deep: Any = {"type": "string"}
    for _ in range(10_000):
        deep = {"type": "array", "items": deep}
    for lenient in (False, True):
        with pytest.raises(Inexpressible, match="nested deeper than 100 levels"):
            translate(of(deep), rules, lenient=lenient)
    with pytest.raises(Inexpressible, match="'f' is nested deeper"):
        for_tool(of(deep), rules, name="f")


def test_where_a_class_may_hold_itself() -> None:
    """Anywhere, in optional properties, or nowhere, as the vendor has it."""
    schema = schema_of(PTree)
    schema["$defs"]["PTree"]["required"] = schema["required"] = ["name", "children"]
    assert translate(schema, OLLAMA)["$defs"]["PTree"]["required"] == ["name", "children"]
    said = translate(schema, GEMINI)
    assert said["required"] == said["$defs"]["PTree"]["required"] == ["name"]
    with pytest.raises(Inexpressible, match=r"`PTree\.children\[\]` is recursive: 'PTree' holds"):
        translate(schema, CLAUDE)


@pytest.mark.parametrize(
    ("part", "most", "told"),
    [
        ({"type": "string"}, 24, "25 properties that may be left out in all: expected at most 24"),
        ({"type": ["string", "null"]}, 16, "17 properties of several types in all"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 16, "17 properties of several types"),
    ],
)
def test_how_much_of_a_kind_a_vendor_takes(part: Any, most: int, told: str) -> None:
    """In all classes together; the others take any number."""
    names = [f"p{n}" for n in range(most)]
    inner = {"type": "object", "properties": dict.fromkeys(names[3:], part)}
    outer = {"type": "object", "properties": {**dict.fromkeys(names[:3], part), "inner": inner}}
    schema = {**outer, "required": ["inner"]}
    assert translate(schema, CLAUDE)["properties"].keys() == outer["properties"].keys()
    outer["properties"]["more"] = part
    with pytest.raises(Inexpressible, match=told):
        translate(schema, CLAUDE)
    assert translate(schema, GEMINI)
    assert translate(schema, OPENAI)


def test_two_classes_that_hold_each_other_hold_themselves() -> None:
    """By way of the other."""
    defs = {name: of({"$ref": f"#/$defs/{other}"}) for name, other in ("AB", "BA")}
    with pytest.raises(Inexpressible, match="recursive"):
        translate(of({"$ref": "#/$defs/A"}, **{"$defs": defs}), CLAUDE)


class TestTools:
    """Whose schemas nobody holds the model to, unless they are strict."""

    @pytest.mark.parametrize("rules", [OPENAI, CLAUDE, COHERE], ids=lambda rules: rules.vendor)
    def test_they_go_out_as_they_are(self, rules: Any) -> None:
        schema = of({"not": {"type": "string"}})
        assert for_tool(schema, rules) is schema
        with pytest.raises(Inexpressible, match="'f' cannot be said"):
            for_tool(schema, rules, name="f", strict=True)

    def test_gemini_reads_a_part_of_json_schema_only(self) -> None:
        schema = of({"const": "a", "not": {"type": "string"}}, additionalProperties=False)
        assert for_tool(schema, GEMINI) == of(
            {"type": "string", "enum": ["a"]}, additionalProperties=False
        )

    def test_ollama_reads_no_references(self) -> None:
        """They are put in place, but for those of a class that holds itself."""
        schema = schema_of(Old)
        said = for_tool(schema, OLLAMA)
        assert "$ref" not in json.dumps(said)
        assert said["properties"]["actors"]["items"]["properties"]["name"]["description"] == "who"
        assert said["properties"]["actors"]["description"] == "all of them"
        tree = for_tool(
            of({"$ref": "#/$defs/PTree"}, **{"$defs": schema_of(PTree)["$defs"]}), OLLAMA
        )
        assert tree["properties"]["a"] == {"$ref": "#/$defs/PTree"}
        assert set(tree["$defs"]) == {"PTree"}

    def test_references_that_would_become_too_many_stay(self) -> None:
        """Each class holds the next one twice: a billion copies of the last."""
        defs: dict[str, Any] = {
            f"D{n}": {"properties": {k: {"$ref": f"#/$defs/D{n + 1}"} for k in "ab"}}
            for n in range(30)
        }
        schema = of({"$ref": "#/$defs/D0"}, **{"$defs": {**defs, "D30": {"type": "string"}}})
        assert inlined(schema) is schema
