"""Values as text and back: what comes back is equal, and what would not be is refused."""

from __future__ import annotations

import dataclasses
import datetime
import math
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.stored import Stored, described, fingerprint, returned_class

PLAIN = Stored(identity={})

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
surrogates = st.text(st.characters(categories=["Cs", "L"]))
keys = st.text(max_size=5) | st.sampled_from(["$message", "$tuple", "$object", "$", "a"])
data = st.recursive(
    scalars | surrogates | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(keys | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)
blocks = st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=5))
messages = st.one_of(
    st.builds(HumanMessage, st.text() | st.lists(blocks, max_size=3)),
    st.builds(SystemMessage, st.text()),
    st.builds(
        AIMessage,
        st.text(),
        usage_metadata=st.just({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
        tool_calls=st.just([{"name": "f", "args": {"a": [1, None]}, "id": "c1"}]),
        finish_reason=st.sampled_from(["stop", None]),
        extras=st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    ),
    st.builds(ToolMessage, st.text(), tool_call_id=st.just("c1")),
)


@given(data | messages | st.lists(data | messages, max_size=3))
def test_what_comes_back_is_equal(value: Any) -> None:
    """Plain data and messages, whatever is nested in what."""
    again = PLAIN.read(PLAIN.write(value))
    assert again == value
    assert type(again) is type(value)
    assert PLAIN.write(again) == PLAIN.write(value)


@given(data, data)
def test_fingerprints_tell_values_apart(one: Any, two: Any) -> None:
    """Equal text, equal fingerprint, and the other way round."""
    same = fingerprint(one) == fingerprint(two)
    assert same == (sorted_text(one) == sorted_text(two))
    assert len(fingerprint(one)) == 16


def sorted_text(value: Any) -> str:
    """`value` with its types to be seen, and the dicts that JSON has, too, in order."""
    if isinstance(value, dict):
        items = [(sorted_text(k), sorted_text(v)) for k, v in value.items()]
        as_json = all(type(key) is str and not key.startswith("$") for key in value)
        return repr(sorted(items) if as_json else items)
    if isinstance(value, list | tuple):
        return type(value).__name__ + repr([sorted_text(item) for item in value])
    return repr(value)


def test_not_a_number() -> None:
    """What is not even equal to itself is kept all the same."""
    assert math.isnan(PLAIN.read(PLAIN.write([math.nan]))[0])
    assert PLAIN.read(PLAIN.write(math.inf)) == math.inf


# ---- objects -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date | None = None


@dataclasses.dataclass(eq=False)
class Identical:
    x: int


class Shape(msgspec.Struct):
    points: list[Point]
    names: dict[int, str] = {}
    raw: bytes = b""


class Answer(pydantic.BaseModel):
    text: str = pydantic.Field(alias="Text")
    when: datetime.datetime
    inner: list[Point] = []


class Holder(msgspec.Struct):
    answer: Answer


class Row(TypedDict):
    x: int


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ANSWER = Answer(Text="a", when=NOW, inner=[Point(1)])
OBJECTS = [
    Point(1, datetime.date(2026, 1, 2)),
    Shape([Point(1), Point(2)], {1: "a"}, b"\x00\xff"),
    ANSWER,
    Holder(ANSWER),
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_objects_with_fields(value: Any) -> None:
    """Alone and inside of other things, where the runnable says of which class they are."""
    stored = Stored(identity={}, type=type(value))
    assert stored.read(stored.write(value)) == value
    assert stored.read(stored.write({"found": [value, None]})) == {"found": [value, None]}
    with pytest.raises(ValueError, match="not known of which class"):
        PLAIN.write(value)


def test_objects_that_compare_by_identity() -> None:
    stored = Stored(identity={}, type=Identical)
    assert stored.read(stored.write(Identical(3))).x == 3


class Secretive(pydantic.BaseModel):
    x: int = 0
    hidden: int = pydantic.Field(default=0, exclude=True)


@pytest.mark.parametrize(
    ("value", "type_", "says"),
    [
        ({1, 2}, None, "set"),
        (object(), None, "object"),
        (datetime.date(2026, 1, 2), None, "date"),
        (Secretive(hidden=5), Secretive, "not read back equal"),
        (Point(1), Shape, "points"),
        ([lambda: 1], None, "function"),
    ],
)
def test_what_would_not_come_back_is_refused(value: Any, type_: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Stored(identity={}, type=type_).write(value)


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"$message":{"type":"ghost"}}', '{"$object":{"x":"one"}}', '{"$bytes":"a"}'],
)
def test_unreadable_text(text: str) -> None:
    with pytest.raises(ValueError):
        Stored(identity={}, type=Point).read(text)


def test_what_is_kept_and_what_is_restored() -> None:
    """A runnable may keep less than its result, and make the rest again."""
    stored = Stored(identity={}, keep=lambda both: both["raw"], restore=lambda raw: {"raw": raw})
    assert stored.write({"raw": [1], "more": object()}) == "[1]"
    assert stored.read("[1]") == {"raw": [1]}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Point, Point),
        (list[Shape] | None, Shape),
        (dict[str, Answer], Answer),
        (Point | Shape, None),
        (Row, None),
        (AIMessage, None),
        (list[int], None),
        (None, None),
        (Any, None),
    ],
)
def test_the_class_in_an_annotation(annotation: Any, expected: Any) -> None:
    def function(x: int) -> Any: ...

    function.__annotations__["return"] = annotation
    assert returned_class(function) is expected


def test_functions_without_annotations() -> None:
    """Or with names that nobody can resolve: then there is no class."""

    def unresolved() -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821

    assert [returned_class(f) for f in (unresolved, print, lambda: 1)] == [None] * 3


# ---- identities ----------------------------------------------------------------------------------


def test_inputs_of_every_kind_have_fingerprints() -> None:
    """They need not be read back: their content is enough."""
    values = [{1, 2}, datetime.date(2026, 1, 2), datetime.date(2026, 1, 3), Point(1), Shape([])]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint({"b": 1, "a": {2, 1}}) == fingerprint({"a": {1, 2}, "b": 1})
    with pytest.raises(TypeError, match="object"):
        fingerprint([object()])


def test_an_identity_as_it_is_kept() -> None:
    """Numbers and the names of models can be read; of the rest there is a fingerprint."""
    identity = {"model": "gpt-4.1", "temperature": 0.5, "tools": [{"key": "sk-1"}], "user": "me"}
    kept = described(identity)
    assert (kept["model"], kept["temperature"]) == ("gpt-4.1", 0.5)
    assert "sk-1" not in repr(kept)
    assert "me" not in repr(kept["user"])
    assert kept["tools"] != described({**identity, "tools": []})["tools"]
