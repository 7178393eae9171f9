"""Arguments that come as values at paths, written as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.wire.partial_args import ArgsWriter

Piece = dict[str, Any]


def written(pieces: list[Piece]) -> str:
    writer = ArgsWriter()
    return "".join(writer.write([piece]) for piece in pieces) + writer.close()


def leaves(value: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    """The values of `value` that hold no others, in order; an empty container has none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            quoted = key.replace("\\", "\\\\").replace("'", "\\'")
            yield from leaves(inner, f"{path}.{key}" if key.isalpha() else f"{path}['{quoted}']")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def pieces_of(value: Any, draw: Any) -> Iterator[Piece]:
    kinds = {bool: "boolValue", int: "numberValue", float: "numberValue"}
    for path, leaf in leaves(value):
        if not isinstance(leaf, str):
            kind = kinds.get(type(leaf))
            yield {"jsonPath": path, **({kind: leaf} if kind else {"nullValue": "NULL_VALUE"})}
            continue
        cut = draw(st.integers(0, len(leaf)))
        if draw(st.booleans()):
            yield {"jsonPath": path, "stringValue": leaf}
        else:
            yield {"jsonPath": path, "stringValue": leaf[:cut], "willContinue": True}
            yield {"jsonPath": path, "stringValue": leaf[cut:], "willContinue": True}
            if draw(st.booleans()):  # the end may be told, or be plain from what follows
                yield {"jsonPath": path, "stringValue": ""}


names = st.text("ab .']\\\"é", min_size=1, max_size=4)
objects = st.dictionaries(
    names,
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.just(1.5) | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3)
            | st.dictionaries(names, inner, min_size=1, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


@given(objects, st.data())
def test_the_text_is_the_object(value: dict[str, Any], data: st.DataObject) -> None:
    text = written(list(pieces_of(value, data.draw)))
    assert json.loads(text) == value
    assert list(leaves(json.loads(text))) == list(leaves(value))  # in the same order


def test_what_has_come_is_written_at_once() -> None:
    writer = ArgsWriter()
    assert not writer.started
    assert writer.write([{"jsonPath": "$.a", "stringValue": "x\n", "willContinue": True}]) == (
        '{"a":"x\\n'
    )
    assert writer.started
    assert writer.write([{"jsonPath": "$.a", "stringValue": "y"}]) == 'y"'
    assert writer.write([{"jsonPath": '$["b"][0].c', "numberValue": 2}]) == ',"b":[{"c":2'
    assert writer.write([{"jsonPath": "$.b[1]", "boolValue": False}]) == "},false"
    assert writer.write(None) == ""
    assert writer.close() == "]}"


def test_a_call_without_values_has_no_arguments() -> None:
    assert written([]) == "{}"


def test_a_value_that_is_not_there_ends_a_text() -> None:
    path = {"jsonPath": "$.a"}
    assert written([{**path, "stringValue": "x", "willContinue": True}, path]) == '{"a":"x"}'


BAD = [
    ["$.a", "$.a"],
    ["$.a.b", "$.a"],
    ["$.a", "$.a.b"],
    ["$.a.b", "$.c", "$.a.d"],
    ["$.a", "$.b", "$.a"],
    ["$.a[1]"],
    ["$.a[0]", "$.a[2]"],
    ["$.a[0]", "$.a.b"],
    ["$.a.b", "$.a[0]"],
    ["$"],
    ["$[0]"],
    ["a"],
    [""],
    ["$.a..b"],
    ["$.a["],
    ["$['a"],
    [None],
    [5],
]


@pytest.mark.parametrize("paths", BAD, ids=str)
def test_what_makes_no_object(paths: list[Any]) -> None:
    *good, bad = ({"jsonPath": path, "numberValue": 1} for path in paths)
    writer = ArgsWriter()
    writer.write(good)
    with pytest.raises(ValueError):
        writer.write([bad])
