"""Unfinished JSON, strict JSON, and how deep it may be."""

from __future__ import annotations

import contextlib
import json
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
