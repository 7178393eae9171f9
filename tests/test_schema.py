"""Types to JSON schema and back."""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NewType,
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

from streamfold.errors import ConfigurationError
from streamfold.schema import (
    check,
    convert,
    describe,
    function_schema,
    schema_of,
    unfit,
    without_nulls,
)
from streamfold.schema.signatures import read_docstring

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


def of_structs(field: Any) -> Any:
    same = msgspec.defstruct("Same", [("x", field)])
    return msgspec.defstruct(f"Has{field.__name__}", [("same", same)])


def of_pydantic(field: Any) -> Any:
    same = pydantic.create_model("Same", x=(field, ...))
    return pydantic.create_model(f"Holds{field.__name__}", same=(same, ...))


@pytest.mark.parametrize("make", [of_structs, of_pydantic])
@pytest.mark.parametrize("make_other", [of_structs, of_pydantic])
def test_two_classes_of_one_name_stay_two(make: Any, make_other: Any) -> None:
    """The second gets another name in `$defs`."""
    both = msgspec.defstruct("Both", [("a", make(int)), ("b", make_other(str))])
    schema = schema_of(both)
    assert {"Same", "Same_"} <= set(schema["$defs"])
    jsonschema.validate({"a": {"same": {"x": 1}}, "b": {"same": {"x": "s"}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": {"same": {"x": "s"}}, "b": {"same": {"x": "s"}}}, schema)


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


Celsius = NewType("Celsius", float)


def test_names_for_other_types_are_those_types() -> None:
    """`NewType`, also in a field."""
    assert schema_of(list[Celsius]) == {"type": "array", "items": {"type": "number"}}


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float = 1.0


def test_the_tag_of_a_struct_is_told() -> None:
    """By which the classes of a union are told apart; defaults of Structs are told as well."""
    schema = schema_of(msgspec.defstruct("Drawing", [("shapes", list[Circle | Square])]))
    meets_draft(schema)
    square = schema["$defs"]["Square"]
    assert square["properties"]["type"] == {"type": "string", "enum": ["square"]}
    assert square["required"] == ["type"]
    assert square["properties"]["side"] == {"type": "number", "default": 1.0}
    fitting = {"shapes": [{"type": "circle", "radius": 2}, {"type": "square"}]}
    jsonschema.validate(fitting, schema)
    assert convert(fitting["shapes"], list[Circle | Square]) == [Circle(2), Square()]


class Noted(TypedDict):
    """With defaults, as LangChain writes them."""

    a: Annotated[str, ..., "the a"]
    b: Annotated[int | None, None, "the b"]
    c: Annotated[str, "x", "the c"]
    d: Annotated[str, "the d"]


def test_defaults_in_the_notes_of_a_typeddict() -> None:
    """``Annotated[T, default, "text"]``: `...` is none, and one text alone describes."""
    schema = schema_of(Noted)
    assert schema["required"] == ["a", "d"]
    described = {name: part["description"] for name, part in schema["properties"].items()}
    assert described == {name: f"the {name}" for name in "abcd"}
    assert schema["properties"]["b"]["default"] is None
    assert schema["properties"]["c"]["default"] == "x"


def test_what_pydantic_has_no_schema_for_is_a_configuration_error() -> None:
    """The class is named."""

    class Socket(pydantic.BaseModel, arbitrary_types_allowed=True):
        sock: type(sys)  # type: ignore[valid-type]

    with pytest.raises(ConfigurationError, match="Socket has no JSON schema"):
        schema_of(Socket)


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


DOCSTRINGS = {
    "google": """Does things.

        Arguments:
          a (int): the a
            goes on
          b: the b

        Raises:
          KeyError: never
        """,
    "numpy": """Does things.

        Parameters
        ----------
        a : int
            the a
            goes on
        b
            the b

        Raises
        ------
        KeyError
            never
        """,
    "sphinx": """Does things.

        :param int a: the a
            goes on
        :type b: str
        :param b: the b
        :raises KeyError: never
        """,
}


@pytest.mark.parametrize("doc", DOCSTRINGS.values(), ids=DOCSTRINGS)
def test_docstrings_of_every_style_are_read(doc: str) -> None:
    """What they say of each argument describes it; the other sections stay in the description."""

    def function(a: int, b: str) -> None: ...

    function.__doc__ = doc
    schema, _, text = function_schema(function)
    described = {name: part["description"] for name, part in schema["properties"].items()}
    assert described == {"a": "the a goes on", "b": "the b"}
    assert text.startswith("Does things.")
    assert "never" in text
    assert "the a" not in text


@pytest.mark.parametrize("doc", ["Args:", "Does it.\n\nArgs:\nnothing here", "Args: as text", ""])
def test_a_docstring_with_no_section_to_read_is_a_description(doc: str) -> None:
    """Nothing of it is lost."""
    assert read_docstring(doc) == (doc, {})


def test_a_parameter_without_an_annotation_is_refused_by_name() -> None:
    """The model would not know what to fill in; `Any` says that it may be anything."""

    def function(a: int, b, c: Any = None) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(ConfigurationError, match=r"'b' of function\(\) has no annotation"):
        function_schema(function)


def test_a_partial_function_is_read_like_the_function() -> None:
    """What is bound by name has become a default."""

    def function(a: int, b: str) -> None:
        """Does it."""

    schema, _, text = function_schema(functools.partial(function, b="x"))
    assert text == "Does it."
    assert schema["required"] == ["a"]
    assert schema["properties"]["b"] == {"type": "string", "default": "x"}


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


# ---- data against a schema -----------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, {"b": None}]}, None),
        ({"a": [float("nan")]}, "nan is no JSON number"),
        ((1, {"a": float("-inf")}), "-inf is no JSON number"),
        (functools.reduce(lambda inner, _: [inner], range(63), 1), None),
        (functools.reduce(lambda inner, _: [inner], range(10_000), 1), "deeper than 64"),
        (functools.reduce(lambda inner, _: {"a": inner}, range(10_000), 1), "deeper than 64"),
    ],
    ids=range(6),
)
def test_data_that_json_cannot_hold(value: Any, told: str | None) -> None:
    """Numbers that are not finite and nesting without end, found without recursion."""
    found = unfit(value)
    assert found is None if told is None else told in str(found)


def test_alternatives_inside_alternatives_are_tried_once() -> None:
    """Sixty levels of a class that is one of four: not four to the power of sixty ways."""
    names = ["A", "B", "C", "D"]
    inner = {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names] + [{"type": "null"}]}
    defs: dict[str, Any] = {
        name: {
            "type": "object",
            "properties": {"inner": inner, f"only_{name}": {"type": "integer"}},
            "required": ["inner", f"only_{name}"],
        }
        for name in names
    }
    schema = {"type": "object", "properties": {"root": inner}, "$defs": defs}
    good = functools.reduce(lambda value, _: {"inner": value, "only_D": 1}, range(60), None)
    bad = functools.reduce(lambda value, _: {"inner": value, "only_E": 1}, range(60), None)
    assert without_nulls({"root": good}, schema) == {"root": good}
    check({"root": good}, schema)
    assert without_nulls({"root": bad}, schema) == {"root": bad}
    with pytest.raises(ValueError):
        check({"root": bad}, schema)
