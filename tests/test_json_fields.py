"""The fields of a JSON object while it arrives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold import json_fields
from streamfold.json_fields import Field, FieldReader


def read(*pieces: str) -> list[Field]:
    reader = FieldReader()
    return [field for piece in pieces for field in reader.feed(piece)]


def fields_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[Field]:
    """All that a document holds, inner values before those that hold them."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, dict | list):
            yield from fields_of(item, (*path, key))
        yield (*path, key), item


@given(own.json_objects, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_every_field_comes_once_in_order_however_it_is_cut(
    value: Any, ascii: bool, indent: Any, data: st.DataObject
) -> None:
    """The same as from the whole document."""
    raw = json.dumps(value, ensure_ascii=ascii, indent=indent)
    assert read(*data.draw(own.pieces_of(raw))) == list(fields_of(value))


@given(own.json_objects, st.data())
def test_what_has_come_of_a_beginning_is_complete(value: Any, data: st.DataObject) -> None:
    """A cut document gives the first fields of the whole, and nothing half."""
    raw = json.dumps(value)
    found = read(raw[: data.draw(st.integers(0, len(raw)))])
    assert found == list(fields_of(value))[: len(found)]


def test_a_field_comes_with_the_character_that_completes_it() -> None:
    """A text with its quote, a number with what follows it, a list after its elements."""
    steps = [
        ('{"a": "x', []),
        ('y"', [(("a",), "xy")]),
        (', "n": 1', []),
        ("2", []),
        (" ", []),
        (",", [(("n",), 12)]),
        ('"l":[true', []),
        (",", [(("l", 0), True)]),
        ('{"b":null}', [(("l", 1, "b"), None), (("l", 1), {"b": None})]),
        ("]", [(("l",), [True, {"b": None}])]),
        (',"e":{},"f":[]', [(("e",), {}), (("f",), [])]),
        ("}", []),
        ("} trailing", []),
    ]
    reader = FieldReader()
    assert [(piece, reader.feed(piece)) for piece, _ in steps] == steps


@pytest.mark.parametrize("lead", ["", " \n", "```json\n", "```\n", " ```json "])
def test_a_fence_before_the_object_is_passed_over(lead: str) -> None:
    """As models write it that have no JSON mode."""
    assert read(*f'{lead}{{"a": 1}}\n```') == [(("a",), 1)]


@pytest.mark.parametrize(
    "raw",
    [
        *("[1]", "Sure: {}", '"a"', "1", "{]", "{,", '{"a"}', '{"a" "b": 1', '{"a" 1, "b": 2}'),
        *('{"a": 1 "b": 2}', '{"a": 1,}', '{"a": [1,]}', '{"a": [1 2]}', '{"a": nul, "b": 1}'),
        *("{1: 2}", '{"a": NaN, "b": 1}', '{"a": 1}}', '{"a": "\\x", "b": 1}', "{'a': 1}"),
        *('{"a": 01, "b": 1}', '{"a":: 1}', '{"a": "\\ud800", "b": 1}', '{"a": 1]', '{"a": {1}}'),
        *('{"a": {}{}}', '{"a": "x"1}', '{"a": 1e999, "b": 2}'),
    ],
)
def test_it_stops_at_what_is_no_json(raw: str) -> None:
    """What came before counts; nothing is made up, nothing is raised."""
    found = read(*raw)
    assert read(raw) == found
    assert found in ([], [(("a",), 1)], [(("a",), "x")], [(("a", 0), 1)], [(("a",), {})])


def test_deep_documents_end_at_the_limit() -> None:
    """Ten thousand levels: nothing more is read, nothing is raised."""
    assert read('{"a":' * 10_000) == []
    assert read('{"a":' + "[" * 10_000 + "]" * 10_000 + "}") == []
    deep = '{"a":' * 64 + "1" + "}" * 64
    assert len(read(deep)) == 64


@pytest.mark.parametrize("size", [1_000, 100_000])
def test_each_character_is_decoded_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces a text has, and however much is in an object."""
    decoded = 0
    real = json_fields._decode

    def counting(token: str) -> Any:
        nonlocal decoded
        decoded += len(token)
        return real(token)

    monkeypatch.setattr(json_fields, "_decode", counting)
    raw = json.dumps({"text": "x" * size, "list": [{"n": n} for n in range(size // 10)]})
    found = read(*(raw[place : place + 7] for place in range(0, len(raw), 7)))
    assert found[0] == (("text",), "x" * size)
    assert len(found) == 2 + 2 * (size // 10)
    assert decoded <= len(raw)
