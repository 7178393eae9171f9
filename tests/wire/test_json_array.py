"""Streams that are one JSON array: elements out, cut wherever the network cut them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import bytewise
from strategies import pieces_of
from streamfold.errors import SizeLimitError, StreamProtocolError
from streamfold.wire.json_array import JSONArrayFramer


def read(reads: bytes | list[bytes], event_bytes: int = 1 << 20) -> tuple[list[bytes], str]:
    framer = JSONArrayFramer(event_bytes)
    found: list[bytes] = []
    for data in [reads] if isinstance(reads, bytes) else reads:
        found += [frame.data for frame in framer.feed(data) if frame is not None]
    assert framer.close() == b""
    return found, repr(framer.error)


texts = st.text(st.characters(codec="utf-8"), max_size=6)
names = st.text('a{}[]"\\,', max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
elements = st.dictionaries(st.text(max_size=3), json_values, max_size=3) | st.lists(json_values)


@given(st.lists(elements, max_size=4), st.sampled_from([None, 0, 2]), st.booleans(), st.data())
def test_elements_come_out_as_they_went_in(
    values: list[Any], indent: int | None, ascii: bool, data: st.DataObject
) -> None:
    body = json.dumps(values, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace")
    found, error = read(body)
    assert error == "None"
    assert [json.loads(each) for each in found] == json.loads(body)
    assert read(data.draw(pieces_of(body))) == (found, error)
    assert read(bytewise(body)) == (found, error)


@given(st.lists(st.sampled_from([*b'[]{}",\\ \n1a', 0x1E, 0xC3, 0xA9]), max_size=40), st.data())
def test_any_bytes_give_the_same_however_they_are_cut(body: list[int], data: st.DataObject) -> None:
    raw = b"[" + bytes(body)
    assert read(data.draw(pieces_of(raw))) == read(raw) == read(bytewise(raw))


def test_gemini_cuts_between_its_elements() -> None:
    body = b'[{\n  "a": "}"\n}\n,\r\n{\n  "b": [{}]\n}\n]'
    assert read([body[:17], body[17:20], body[20:]])[0] == [
        b'{\n  "a": "}"\n}',
        b'{\n  "b": [{}]\n}',
    ]


@pytest.mark.parametrize("body", [b"[1]", b'["a"]', b"[{}1]", b"[{} 'x' {}]", b'{"a":1}', b"x[{}]"])
def test_anything_but_objects_is_an_error(body: bytes) -> None:
    for reads in (body, bytewise(body)):
        framer = JSONArrayFramer(100)
        for data in [reads] if isinstance(reads, bytes) else reads:
            framer.feed(data)
        assert isinstance(framer.error, StreamProtocolError)
        assert framer.feed(b"[{}]") == []


def test_nothing_is_read_behind_the_end() -> None:
    assert read(b'[{"a":1}] [{"b":2}] x')[0] == [b'{"a":1}']
    assert read([b'[{"a":1}', b"]", b'{"b":2}'])[0] == [b'{"a":1}']


def test_an_element_that_breaks_off_is_dropped() -> None:
    assert read(b'[{"a":1},{"b":') == ([b'{"a":1}'], "None")


def test_elements_deeper_than_one_look_finds() -> None:
    deep = b"[" * 200 + b'"]"' + b"]" * 200
    assert read(b"[" + deep + b",{}]")[0] == [deep, b"{}"]


def test_the_separator_may_stand_in_a_string() -> None:
    """Raw, it is not valid JSON; readers that forgive it see the same text."""
    for reads in (b'[{"a":"x\x1ey"},{}]', bytewise(b'[{"a":"x\x1ey"},{}]')):
        first, second = read(reads)[0]
        assert json.loads(first) == {"a": "x\x1ey"}
        assert second == b"{}"


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_the_limit_is_per_element(size: int) -> None:
    body = b'[{"a":1},{"a":"' + b"x" * 50 + b'"},{}]'
    reads = [body[n : n + size] for n in range(0, len(body), size)]
    assert read(reads, 58)[0] == [b'{"a":1}', b'{"a":"' + b"x" * 50 + b'"}', b"{}"]
    found, error = read(reads, 57)
    assert found == [b'{"a":1}']
    assert SizeLimitError.__name__ in error


def test_an_element_without_an_end_is_not_waited_for() -> None:
    framer = JSONArrayFramer(100)
    framer.feed(b'[{"a":"')
    for _ in range(20):
        assert framer.feed(b"x" * 10) == []
    assert isinstance(framer.error, SizeLimitError)


def test_the_time_is_linear() -> None:
    """One string of a few megabytes, many quotes, many brackets: in small reads."""
    bodies = [
        b'[{"a":"' + b"x" * 2_000_000 + b'"}]',
        b'[{"a":"' + b'\\"' * 1_000_000 + b'"}]',
        b"[" + b"[" * 300_000 + b"]" * 300_000 + b"]",
        b"[{" + b'"":"",' * 300_000 + b"}]",
    ]
    for body in bodies:
        start = time.process_time()
        found, _ = read([body[n : n + 1024] for n in range(0, len(body), 1024)], 1 << 24)
        assert len(found) == 1
        assert time.process_time() - start < 5
