"""Streams that are one JSON array: elements out, cut wherever the network cut them."""

from __future__ import annotations

import json
import re
import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import bytewise
from strategies import pieces_of
from streamfold.errors import SizeLimitError, StreamProtocolError
from streamfold.wire.json_array import JSONArrayFramer, _nested


def read(reads: bytes | list[bytes], event_bytes: int = 1 << 20) -> tuple[list[bytes], str]:
    framer = JSONArrayFramer(event_bytes)
    found: list[bytes] = []
    for data in [reads] if isinstance(reads, bytes) else reads:
        found += [frame.data for frame in framer.feed(data) if frame is not None]
    assert framer.close() == b""
    return found, repr(framer.error)


texts = st.text(st.characters(codec="utf-8"), max_size=6) | st.text('a"\\{}[]', max_size=6)
names = st.text('a{}[]"\\,', max_size=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Elements of a list, with what may stand between them."""
    between = ',"a", '
    return st.lists(inner, min_size=1, max_size=3).map(lambda each: f"[1, {between.join(each)}]")


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


def test_an_element_may_be_cut_twice_anywhere() -> None:
    """Quotes, brackets and backslashes in strings, each of them first and last in a read."""
    first, second = rb'{"\\":["\"]}",{"[":"x\\\""}]}', rb'[["",{}],"\\"]'
    body = b"[" + first + b" ,\n" + second + b"]"
    for one, other in combinations(range(len(body) + 1), 2):
        reads = [body[:one], body[one:other], body[other:]]
        assert read(reads) == ([first, second], "None")


@given(st.lists(elements, max_size=4), st.data())
def test_what_a_read_completes_are_the_elements_and_what_ends_them(
    values: list[Any], data: st.DataObject
) -> None:
    """And nothing where it completes none."""
    one, other = JSONArrayFramer(1 << 20), JSONArrayFramer(1 << 20)
    for piece in data.draw(pieces_of(json.dumps(values).encode())):
        frames = [frame.data for frame in other.feed(piece) if frame is not None]
        assert one.complete(piece) == b"".join(each + one.separator for each in frames)


@given(st.recursive(st.just("{}") | st.just("[]") | st.just('["]{"]'), _wrapped, max_leaves=8))
def test_the_short_way_finds_what_is_no_deeper_than_it_looks(element: str) -> None:
    """One level more than it is asked for, strings left aside; and all of the element."""
    depth = deepest = 0
    for char in element.replace('"]{"', ""):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(char, 0)
        deepest = max(deepest, depth)
    for levels in range(5):
        found = re.match(_nested(levels), element.encode(), re.S)
        assert (found is not None) == (deepest <= levels + 1)
        assert found is None or found[0] == element.encode()


def test_gemini_cuts_between_its_elements() -> None:
    body = b'[{\n  "a": "}"\n}\n,\r\n{\n  "b": [{}]\n}\n]'
    assert read([body[:17], body[17:20], body[20:]])[0] == [
        b'{\n  "a": "}"\n}',
        b'{\n  "b": [{}]\n}',
    ]


@pytest.mark.parametrize(
    "body", [b"[1]", b'["a"]', b"[{}1]", b"[{} 'x' {}]", b'{"a":1}', b"x[{}]", b",[{}]"]
)
def test_anything_but_objects_is_an_error(body: bytes) -> None:
    for reads in (body, bytewise(body)):
        framer = JSONArrayFramer(100)
        for data in [reads] if isinstance(reads, bytes) else reads:
            framer.feed(data)
        assert isinstance(framer.error, StreamProtocolError)
        assert "not a JSON array of objects" in str(framer.error)
        assert framer.feed(b"[{}]") == []


def test_nothing_is_read_behind_the_end() -> None:
    assert read(b'[{"a":1}] [{"b":2}] x')[0] == [b'{"a":1}']
    assert read([b'[{"a":1}', b"]", b'{"b":2}'])[0] == [b'{"a":1}']


@pytest.mark.parametrize("text", [r"\"", r"\\", r"\\\"]", r"}\"{"])
def test_a_read_may_end_at_any_backslash(text: str) -> None:
    """What it escapes comes with the next one, and an empty one between them changes nothing."""
    first = b'{"a":"' + text.encode() + b'"}'
    body = b"[" + first + b",{}]"
    for place in range(len(body) + 1):
        assert read([body[:place], b"", body[place:]]) == ([first, b"{}"], "None")


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
    assert JSONArrayFramer(100).complete(b'[{"a":"x\x1ey"},{}]') == b'{"a":"x\\u001ey"}\x1e{}\x1e'


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_the_limit_is_per_element(size: int) -> None:
    body = b'[{"a":1},{"a":"' + b"x" * 50 + b'"},{}]'
    reads = [body[n : n + size] for n in range(0, len(body), size)]
    assert read(reads, 58)[0] == [b'{"a":1}', b'{"a":"' + b"x" * 50 + b'"}', b"{}"]
    found, error = read(reads, 57)
    assert found == [b'{"a":1}']
    assert SizeLimitError.__name__ in error


@pytest.mark.parametrize("before", [[b"["], [b"[{", b"},"]])
def test_an_element_may_be_as_large_as_the_limit_before_it_ends(before: list[bytes]) -> None:
    """And no larger, whatever came before it."""
    framer = JSONArrayFramer(10)
    for data in (*before, b'{"a":"', b"xxxx"):
        framer.feed(data)
    assert framer.error is None
    framer.feed(b"x")
    assert isinstance(framer.error, SizeLimitError)
    assert "Limits.event_bytes (10 bytes)" in str(framer.error)
    assert framer.complete(b'"},{}') == b""


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
