"""Unfinished JSON, strict JSON, and how deep it may be."""

from __future__ import annotations

import contextlib
import json
import re
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold.partial_json import ObjectScanner, best_reading, nesting, strict_object


class TestStrictObject:
    @given(own.json_objects, st.booleans(), st.sampled_from([None, 1, "\t"]))
    def test_every_object_comes_back(self, value: Any, ascii: bool, indent: Any) -> None:
        assert strict_object(json.dumps(value, ensure_ascii=ascii, indent=indent)) == value

    @given(st.text(max_size=30) | own.json_values.map(json.dumps))
    def test_what_it_takes_is_json_and_an_object(self, raw: str) -> None:
        """Nothing that the standard library would not read, and nothing but objects."""
        try:
            value = strict_object(raw)
        except ValueError:
            return
        assert isinstance(value, dict)
        assert json.loads(raw) == value

    @pytest.mark.parametrize(
        "raw",
        [
            *("", " ", "[]", "1", "null", "NaN", "{}{}", "{} x", "\ufeff{}", "{a: 1}", "{'a': 1}"),
            *('{"a": NaN}', '{"a": -Infinity}', '{"a": 1e400}', '{"a": 01}', '{"a": .5}'),
            *('{"a": 1.}', '{"a": 0x1}', '{"a": 1 /* */}', '{"n": ' + "1" * 5000 + "}"),
            *('{"a": "\\ud800"}', '{"a": "\\udc00x"}', '{"\\ud800": 1}', '{"a": "\ud800"}'),
            *('{"a": "\x00"}', '{"a": "\\x"}'),
        ],
        ids=lambda raw: ascii(raw[:20]),
    )
    def test_everything_else_is_refused_with_a_reason(self, raw: str) -> None:
        with pytest.raises(ValueError, match=r"not valid JSON|expected a JSON object"):
            strict_object(raw)

    def test_depth_is_bounded(self) -> None:
        """Exactly `max_depth` levels pass; brackets inside strings do not count."""
        deep = '{"a":' * 64 + "1" + "}" * 64
        assert strict_object(deep)
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            strict_object('{"a":' + deep + "}")
        assert strict_object('{"a": "' + "[" * 1000 + '"}')
        assert strict_object('{"a":{"b":1}}', max_depth=2)
        assert strict_object('{"a":{"b":1},"c":{},"d":[[]]}', max_depth=3)
        with pytest.raises(ValueError, match="deeper than 1 "):
            strict_object('{"a":{"b":1}}', max_depth=1)


class TestBestReading:
    @given(own.json_objects, st.data())
    def test_every_beginning_can_be_read(self, value: Any, data: st.DataObject) -> None:
        raw = json.dumps(value, ensure_ascii=False)
        end = data.draw(st.integers(1, len(raw)))
        assert isinstance(best_reading(raw[:end]), dict)

    @pytest.mark.parametrize("raw", ["nonsense", '{"a" 1', "{,", '{"a": NaN', "{]"])
    def test_what_can_never_be_json_is_refused(self, raw: str) -> None:
        with pytest.raises(ValueError):
            best_reading(raw)

    def test_an_unfinished_string_shows_its_beginning(self) -> None:
        assert best_reading('{"a": "b\\u0041c\\') == {"a": "bAc"}
        assert best_reading('{"a": "я😀') == {"a": "я😀"}

    def test_half_a_surrogate_pair_does_not_stop_it(self) -> None:
        assert list(best_reading('{"a": "b\ud83d')) == ["a"]

    @pytest.mark.parametrize("depth", [1_000, 100_000])
    def test_deep_documents_are_a_value_error_at_worst(self, depth: int) -> None:
        with contextlib.suppress(ValueError):
            best_reading("[" * depth)


class TestNesting:
    """It is exact where it matters: on which side of `enough` a document is."""

    @given(own.json_values, st.integers(0, 5))
    def test_it_is_the_depth_of_the_value(self, value: Any, enough: int) -> None:
        def depth(inner: Any) -> int:
            if isinstance(inner, dict):
                inner = list(inner.values())
            return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0

        assert (nesting(json.dumps(value), enough) > enough) == (depth(value) > enough)

    @pytest.mark.parametrize(
        ("document", "depth"),
        [
            ('["' + "[" * 99 + '"]', 1),
            ('["\\"' + "[" * 99 + '"]', 1),
            ('["\\\\", ' + "[" * 50 + '"' + "]" * 99, 51),
            ('["' + "[" * 99, 1),
            ('["' + "[" * 99 + "\\", 1),
            ("[]" * 99, 1),
        ],
    )
    def test_strings_do_not_count(self, document: str, depth: int) -> None:
        assert nesting(document, depth) <= depth
        assert nesting(document, depth - 1) > depth - 1

    def test_counting_stops_once_it_is_enough(self) -> None:
        assert nesting("[" * 1_000_000, 64) == 65


class TestObjectScanner:
    @given(own.json_objects, st.text(max_size=5), st.data())
    def test_it_closes_with_the_object_however_it_is_cut(
        self, value: Any, after: str, data: st.DataObject
    ) -> None:
        raw = json.dumps(value)
        pieces = data.draw(own.pieces_of(raw))
        scanner, fed = ObjectScanner(), []
        for piece in pieces[:-1]:
            fed.append(piece)
            assert scanner.scan(fed) == ("".join(fed) == raw)
        fed.append(pieces[-1])
        assert scanner.scan(fed)
        fed.append(after)
        assert scanner.scan(fed)

    @pytest.mark.parametrize(
        ("pieces", "closed"),
        [
            ([], False),
            (["{"], False),
            (['{"a": "}"'], False),
            (['{"a": "', "}", '"'], False),
            (['{"a": "\\', '"', "}"], False),
            (['{"a": "\\', "", '"', '"}'], True),
            (['{"a": "\\\\', '"}'], True),
            (['{"a": "\\u007', 'd"}'], True),
            (["{[", "]", "}"], True),
            (["[]"], True),
        ],
    )
    def test_strings_and_escapes_over_pieces(self, pieces: list[str], closed: bool) -> None:
        assert ObjectScanner().scan(pieces) is closed


# ---- against a strict parser ---------------------------------------------------------------------


class Completion:
    """The beginning of a document, completed by the plain rules: an open text is closed where its
    last whole character ends, an open number counts if it is one, what cannot be told yet (keys,
    half words) is left out, brackets are closed."""

    def __init__(self) -> None:
        self.text = ""
        self.closers: list[str] = []
        self.cut = 0  # what can be closed as it is: up to the last whole value or bracket
        self.key_next = False
        self.token = 0  # where the open scalar or text starts
        self.in_text = self.is_key = False
        self.escape = ""
        self.whole = 0  # where the last whole character of an open text ends

    def add(self, char: str) -> None:
        self.text += char
        if self.in_text:
            self._in_text(char)
        elif char == '"':
            self.in_text, self.is_key = True, self.key_next
            self.token, self.whole, self.escape = len(self.text) - 1, len(self.text), ""
        elif char in "{[":
            self.closers.append("}" if char == "{" else "]")
            self.key_next = char == "{"
            self.token = self.cut = len(self.text)
        elif char in "}],: \n":
            self._ends(char)

    def _in_text(self, char: str) -> None:
        self.escape += char if self.escape or char == "\\" else ""
        if not self.escape and char == '"':
            self.in_text = False
            self.token = len(self.text)
            self.cut = self.cut if self.is_key else len(self.text)
        elif not self.escape:
            self.whole = len(self.text)
        elif self._is_whole(self.escape):
            self.whole, self.escape = len(self.text), ""

    @staticmethod
    def _is_whole(escape: str) -> bool:
        if not escape.startswith("\\u"):
            return len(escape) == 2
        is_high = escape[2:4].lower() in ("d8", "d9", "da", "db")
        return len(escape) == (12 if is_high else 6)

    def _ends(self, char: str) -> None:
        if self.text[self.token : -1].strip():
            self.cut = len(self.text) - 1
        if char in "}]":
            self.closers.pop()
            self.cut = len(self.text)
        if char == ",":
            self.key_next = self.closers[-1] == "}"
        elif char == ":":
            self.key_next = False
        self.token = len(self.text)

    def document(self) -> str:
        ends = "".join(reversed(self.closers))
        if self.in_text and not self.is_key:
            return f'{self.text[: self.whole]}"{ends}'
        token = self.text[self.token :]
        if not self.in_text and re.fullmatch(self._SCALAR, token.strip()):
            return self.text + ends
        return self.text[: self.cut] + ends

    _SCALAR = r"true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?"


def document(random: Random, depth: int = 0) -> Any:
    """A value of any type; the outermost is an object."""
    words = ["", "plain", 'quo"te\\', "\n\t/", "привет", "a😀b", "]}{[,:", "\u2028\x7f"]
    scalars = [True, False, None, 0, -1, 12345, -0.5, 1e-7, 2.5e20, random.random()]
    kind = "object" if depth == 0 else random.choice(["text", "scalar", "object", "list"])
    if kind == "text" or (kind != "scalar" and depth > 3):
        return "".join(random.choices(words, k=random.randrange(3)))
    if kind == "scalar":
        return random.choice(scalars)
    if kind == "list":
        return [document(random, depth + 1) for _ in range(random.randrange(4))]
    keys = random.sample(["a", "b", "key", 'k"', "ж", ""], k=random.randrange(1, 4))
    return {key: document(random, depth + 1) for key in keys}


@pytest.mark.parametrize("seed", range(4))
def test_every_beginning_reads_as_a_strict_parser_reads_its_completion(seed: int) -> None:
    """Of a thousand documents, after every character; no two seeds make the same ones."""
    random = Random(seed)
    for _ in range(250):
        value = document(random)
        raw = json.dumps(value, ensure_ascii=random.random() < 0.5, indent=random.choice([None, 1]))
        completion = Completion()
        for char in raw:
            completion.add(char)
            assert best_reading(completion.text) == json.loads(completion.document())
        assert best_reading(raw) == value
