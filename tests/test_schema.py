"""Types to JSON schema and back, and OpenAI's strict mode."""

from __future__ import annotations

import dataclasses
import enum
import keyword
import sys
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
    Union,
)

import jsonschema
import msgspec
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st

from streamfold.errors import ConfigurationError
from streamfold.schema import (
    check,
    convert,
    describe,
    function_schema,
    schema_of,
    strict_schema,
    without_nulls,
)
from streamfold.testing.examples import example

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Actor(TypedDict):
    name: Annotated[str, ..., "who"]
    role: NotRequired[str]


class Loose(TypedDict, total=False):
    must: Required[int]
    may: str


class Old(typing_extensions.TypedDict):
    """From typing_extensions."""

    actors: Annotated[list[Actor], ..., "all of them"]
    color: Color
    note: typing_extensions.NotRequired[str]


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class Tree(msgspec.Struct):
    """A tree."""

    name: str
    children: list[Tree] = []


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str


class PTree(pydantic.BaseModel):
    name: str
    children: list[PTree] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int | None = None


class Owner(pydantic.BaseModel):
    """Has a pet."""

    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    others: list[Cat] | None = None


@dataclasses.dataclass
class Holder:
    cat: Cat


class Box(msgspec.Struct, Generic[T]):
    item: T


def meets_draft(schema: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


def test_typeddicts_of_both_kinds() -> None:
    """Nested ones are shared, texts of `Annotated[T, ..., "text"]` are descriptions."""
    schema = schema_of(Old)
    meets_draft(schema)
    assert schema["title"] == "Old"
    assert schema["description"] == "From typing_extensions."
    assert schema["required"] == ["actors", "color"]
    assert schema["properties"]["actors"]["description"] == "all of them"
    assert schema["properties"]["color"] == {"type": "string", "enum": ["red", "blue"]}
    assert schema["$defs"]["Actor"]["properties"]["name"] == {
        "type": "string",
        "description": "who",
    }
    assert schema["$defs"]["Actor"]["required"] == ["name"]


def test_required_counts_where_annotations_are_postponed() -> None:
    """`Required` in a TypedDict that is not total, and `NotRequired` in one that is."""
    assert schema_of(Loose)["required"] == ["must"]


@pytest.mark.parametrize("type_", [Node, Tree, PTree])
def test_recursive_classes_are_objects_at_the_top(type_: Any) -> None:
    """The class is in `$defs` for its own references, and spelled out at the top."""
    schema = schema_of(type_)
    meets_draft(schema)
    assert schema["type"] == "object"
    assert "$ref" not in schema
    assert set(schema["$defs"]) == {type_.__name__}
    strict = strict_schema(schema)
    assert strict is not None
    assert_openai(strict)


def test_renamed_fields_and_defaults() -> None:
    """Structs by their encoded names; plain defaults of dataclasses are told."""
    assert list(schema_of(Renamed)["properties"]) == ["firstName"]
    assert schema_of(Node)["properties"]["next"]["default"] is None
    assert schema_of(Node)["required"] == ["value"]


def test_generic_classes_and_constrained_lists_of_classes() -> None:
    """What msgspec spells out itself has its classes in our `$defs`."""

    def function(
        box: Box[int], nodes: Annotated[list[Tree], msgspec.Meta(max_length=2)]
    ) -> None: ...

    schema, _, _ = function_schema(function)
    meets_draft(schema)
    assert "$defs" not in str(schema["properties"]).replace("#/$defs/", "")
    jsonschema.validate({"box": {"item": 1}, "nodes": [{"name": "a"}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"box": {"item": "x"}, "nodes": []}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"box": {"item": 1}, "nodes": [{}]}, schema)


def test_two_classes_of_one_name_stay_two() -> None:
    """The second gets another name in `$defs`."""

    def make(field: Any) -> Any:
        return msgspec.defstruct("Same", [("x", field)])

    one, two = make(int), make(str)
    both = msgspec.defstruct("Both", [("a", one), ("b", two)])
    schema = schema_of(both)
    assert len(schema["$defs"]) == 2
    jsonschema.validate({"a": {"x": 1}, "b": {"x": "s"}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": {"x": "s"}, "b": {"x": "s"}}, schema)


@pytest.mark.parametrize(
    ("type_", "schema"),
    [
        (Literal[1, "a"], {"type": ["integer", "string"], "enum": [1, "a"]}),
        (Literal["a", None], {"type": ["string", "null"], "enum": ["a", None]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Union[str, None], {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP007
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (list, {"type": "array"}),
        (dict, {"type": "object"}),
        (None, {"type": "null"}),
        (Any, {}),
    ],
)
def test_plain_types(type_: Any, schema: Any) -> None:
    """What JSON has words for."""
    meets_draft(schema_of(type_))
    assert schema_of(type_) == schema


def test_what_json_cannot_hold_is_refused_by_place() -> None:
    """The field is named."""

    class Bad(TypedDict):
        deep: list[object.__class__]

    Bad.__annotations__["deep"] = list[type(sys)]
    with pytest.raises(ConfigurationError, match=r"Bad\.deep"):
        schema_of(Bad)


def test_descriptions_are_those_of_the_author() -> None:
    """None that Python or a library made up."""
    assert describe(Tree) == "A tree."
    assert describe(Node) == ""
    assert describe(Actor) == ""
    assert describe(Cat) == ""
    assert describe(None) == ""
    assert describe(Owner) == "Has a pet."


def test_google_style_docstrings_are_read() -> None:
    """Sections after Args stay in the description; types in brackets are skipped."""

    def function(a: int, b: str = "") -> None:
        """Does things.

        More on that: with a colon.

        Args:
            a (int): the a: with a colon
            b: the b
                that goes on

        Returns:
            Nothing.
        """

    schema, _, text = function_schema(function)
    assert schema["properties"]["a"]["description"] == "the a: with a colon"
    assert schema["properties"]["b"]["description"] == "the b that goes on"
    assert text.startswith("Does things.\n\nMore on that: with a colon.")
    assert "Returns:" in text
    assert "Args" not in text


@pytest.mark.parametrize(
    ("type_", "value", "result"),
    [
        (Tree, {"name": "a", "children": [{"name": "b"}]}, Tree("a", [Tree("b")])),
        (Node, {"value": 1, "next": {"value": 2}}, Node(1, Node(2))),
        (list[Cat], [{"kind": "cat"}], [Cat()]),
        (dict[str, Cat | None], {"a": None, "b": {"lives": 1}}, {"a": None, "b": Cat(lives=1)}),
        (Holder, {"cat": {"lives": 2}}, Holder(Cat(lives=2))),
        (Cat | Dog, {"kind": "dog"}, Dog()),
        (Tree | Renamed, {"firstName": "x"}, Renamed("x")),
        (Box[int], {"item": 1}, Box(1)),
    ],
)
def test_data_becomes_values(type_: Any, value: Any, result: Any) -> None:
    """By msgspec, by pydantic, or by trying the options of a union."""
    assert convert(value, type_) == result


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Tree, {"children": []}),
        (int, "1"),
        (int, True),
        (list[Cat], [{"kind": "dog"}]),
        (Holder, {"cat": {"lives": "many"}}),
        (Tree | Renamed, {"x": 1}),
        (Annotated[list[Annotated[int, pydantic.Field(ge=1)]], "text"], [0]),
    ],
)
def test_data_that_does_not_fit_is_a_value_error(type_: Any, value: Any) -> None:
    """Never another exception."""
    with pytest.raises(ValueError):
        convert(value, type_)


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
        ({"type": "string", "minLength": 2, "format": "uri"}, {"type": "string"}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"enum": ["a", 1]}, {"type": ["string", "integer"], "enum": ["a", 1]}),
        ({"const": 1}, {"type": "integer", "const": 1}),
        ({"allOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}]}),
        ({"type": "string", "pattern": "(?=a)"}, {"type": "string"}),
        ({"type": "string", "default": "x"}, {"type": "string"}),
    ],
)
def test_parts_are_said_in_the_words_of_strict_mode(part: Any, strict: Any) -> None:
    """What is not known there is left out or said otherwise; the answer is checked here, too."""
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


@pytest.mark.parametrize(
    ("type_", "answered", "wanted"),
    [
        (Cat, {"kind": None, "lives": None}, {}),
        (Dog, {"kind": "dog", "lives": None}, {"kind": "dog", "lives": None}),
        (
            Owner,
            {"pet": {"kind": "cat", "lives": None}, "others": [{"kind": "cat", "lives": None}]},
            {"pet": {"kind": "cat"}, "others": [{"kind": "cat"}]},
        ),
        (
            Owner,
            {"pet": {"kind": "dog", "lives": None}, "others": None},
            {"pet": {"kind": "dog", "lives": None}, "others": None},
        ),
        (
            PTree,
            {"name": "a", "children": [{"name": "b", "children": None}]},
            {"name": "a", "children": [{"name": "b"}]},
        ),
    ],
)
def test_nulls_go_where_they_are_not_wanted(type_: Any, answered: Any, wanted: Any) -> None:
    """Also inside lists, unions and references; a null that means something stays."""
    schema = schema_of(type_)
    assert without_nulls(answered, schema) == wanted
    convert(wanted, type_)


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


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"a": 1}, True),
        ({"a": 1.0}, True),
        ({"a": True}, False),
        ({"a": float("nan")}, False),
        ({"a": float("inf")}, False),
        ({"a": None}, False),
        ({}, False),
        ({"a": 1, "b": ["x"]}, True),
        ({"a": 1, "b": [1]}, False),
        ({"a": 1, "c": {"d": "u"}}, True),
        ({"a": 1, "c": {"d": "v"}}, False),
        ({"a": 1, "e": 1}, False),
        ([], False),
    ],
)
def test_check_looks_at_the_shape(value: Any, fits: bool) -> None:
    """Types, required and further properties, items, enums and references."""
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "array", "items": {"type": "string"}},
            "c": {"anyOf": [{"$ref": "#/$defs/C"}, {"type": "null"}]},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"C": {"type": "object", "properties": {"d": {"enum": ["u"]}}}},
    }
    if fits:
        check(value, schema)
    else:
        with pytest.raises(ValueError, match=r"`\$"):
            check(value, schema)


# ---- any model -----------------------------------------------------------------------------------

LEAVES: list[Any] = [int, str, bool, float, Color, Literal["a", "b"], Literal[1, "x"]]
NAMES = st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(lambda n: not keyword.iskeyword(n))


def wrapped(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        types.map(lambda t: list[t]),
        types.map(lambda t: t | None),
        types.map(lambda t: list[t] | None),
        st.lists(
            st.tuples(NAMES, types, st.booleans()), min_size=1, max_size=4, unique_by=lambda f: f[0]
        ).map(_model),
    )


def _model(fields: list[tuple[str, Any, bool]]) -> Any:
    made = {name: (type_, ... if needed else None) for name, type_, needed in fields}
    optional = {
        name: (type_, pydantic.Field(default_factory=lambda: None))
        for name, (type_, default) in made.items()
        if default is None
    }
    return pydantic.create_model("M", **{**made, **optional})


TYPES = st.recursive(st.sampled_from(LEAVES), wrapped, max_leaves=6)
MODELS = st.lists(
    st.tuples(NAMES, TYPES, st.booleans()), min_size=1, max_size=4, unique_by=lambda f: f[0]
).map(_model)


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
@given(model=MODELS)
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
