"""Which call a piece belongs to, and what a call's arguments are worth."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold.chunks import fold_events
from streamfold.deltas import MessageEnd, ToolCallDelta
from streamfold.tool_calls import CallBook, judge, read_unfinished

Piece = dict[str, Any]
END: Piece = {"end": True}


def sorted_out(*pieces: Piece) -> list[tuple[Any, Any, str]]:
    """(id, name, args) of the calls that the book makes of the pieces."""
    book = CallBook()
    for piece in pieces:
        if piece is END:
            book.end_message()
            continue
        id, index, name = piece.get("id"), piece.get("index"), piece.get("name")
        call = book.find(id, index, name)
        if call is None:
            call = book.open(len(book.calls))
        call.take(id, index, name, piece.get("args", ""))
        book.note(call)
    return [(call.id, call.name, call.raw) for call in book.calls]


A, B = '{"x": 1}', '{"y": 2}'

PIECES: dict[str, tuple[list[Piece], list[tuple[Any, Any, str]]]] = {
    "one call in pieces under an index": (
        [
            {"index": 0, "id": "a", "name": "f"},
            {"index": 0, "args": '{"x"'},
            {"index": 0, "args": ": 1}"},
        ],
        [("a", "f", A)],
    ),
    "pieces of two calls take turns": (
        [
            {"index": 0, "id": "a", "name": "f", "args": "{"},
            {"index": 1, "id": "b", "name": "f", "args": "["},
            {"index": 0, "args": "}"},
            {"index": 1, "args": "]"},
        ],
        [("a", "f", "{}"), ("b", "f", "[]")],
    ),
    "indexes with a gap": (
        [
            {"index": 1, "id": "a", "name": "f", "args": A},
            {"index": 5, "id": "b", "name": "g", "args": B},
        ],
        [("a", "f", A), ("b", "g", B)],
    ),
    "two whole calls without an index": (
        [{"id": "a", "name": "f", "args": A}, {"id": "b", "name": "f", "args": B}],
        [("a", "f", A), ("b", "f", B)],
    ),
    "fragments with neither index nor id": (
        [{"id": "a", "name": "f", "args": '{"x"'}, {"args": ": "}, {"args": "1}"}],
        [("a", "f", A)],
    ),
    "two whole calls with different ids under one index": (
        [
            {"index": 0, "id": "a", "name": "f", "args": A},
            {"index": 0, "id": "b", "name": "f", "args": B},
        ],
        [("a", "f", A), ("b", "f", B)],
    ),
    "the second call of an index goes on without an id": (
        [
            {"index": 0, "id": "a", "name": "f", "args": A},
            {"index": 0, "id": "b", "name": "f", "args": '{"y"'},
            {"index": 0, "args": ": 2}"},
        ],
        [("a", "f", A), ("b", "f", B)],
    ),
    "id and name in every fragment": (
        [{"index": 0, "id": "a", "name": "f", "args": part} for part in ('{"x"', ": 1", "}")],
        [("a", "f", A)],
    ),
    "id and name in every fragment, no index": (
        [{"id": "a", "name": "f", "args": part} for part in ('{"x"', ": 1", "}")],
        [("a", "f", A)],
    ),
    "ids find their call also when calls take turns without an index": (
        [
            {"id": "a", "name": "f", "args": "{"},
            {"id": "b", "name": "f", "args": "["},
            {"id": "a", "args": "}"},
            {"id": "b", "args": "]"},
        ],
        [("a", "f", "{}"), ("b", "f", "[]")],
    ),
    "a name in every fragment, no id": (
        [{"index": 0, "name": "f", "args": part} for part in ('{"x"', ": 1", "}")],
        [(None, "f", A)],
    ),
    "the name again once the arguments are closed": (
        [{"index": 0, "name": "f", "args": A}, {"index": 0, "name": "f", "args": B}],
        [(None, "f", A), (None, "f", B)],
    ),
    "the name again once the arguments are closed, no index": (
        [{"name": "f", "args": A}, {"name": "f", "args": '{"y"'}, {"name": "f", "args": ": 2}"}],
        [(None, "f", A), (None, "f", B)],
    ),
    "a closing brace in a string closes nothing": (
        [{"index": 0, "name": "f", "args": '{"x": "}'}, {"index": 0, "name": "f", "args": '"}'}],
        [(None, "f", '{"x": "}"}')],
    ),
    "another name under the same index": (
        [{"index": 0, "name": "f", "args": "{"}, {"index": 0, "name": "g", "args": B}],
        [(None, "f", "{"), (None, "g", B)],
    ),
    "another name without index and id": (
        [{"name": "f"}, {"name": "g", "args": B}],
        [(None, "f", ""), (None, "g", B)],
    ),
    "the name comes after the first arguments": (
        [{"index": 0, "args": "{"}, {"index": 0, "name": "f", "args": "}"}],
        [(None, "f", "{}")],
    ),
    "the id comes after the first arguments": (
        [{"index": 0, "name": "f", "args": "{"}, {"index": 0, "id": "a", "args": "}"}],
        [("a", "f", "{}")],
    ),
    "an id for a call that closed without one is another call": (
        [{"index": 0, "name": "f", "args": A}, {"index": 0, "id": "b", "name": "f", "args": B}],
        [(None, "f", A), ("b", "f", B)],
    ),
    "an id alone, for a call that closed without one, is another call": (
        [{"index": 0, "name": "f", "args": A}, {"index": 0, "id": "b", "args": B}],
        [(None, "f", A), ("b", None, B)],
    ),
    "the index comes after the first piece": (
        [{"id": "a", "name": "f", "args": "{"}, {"index": 0, "args": "}"}],
        [("a", "f", "{}")],
    ),
    "an empty id and name are none": (
        [
            {"index": 0, "id": "a", "name": "f", "args": "{"},
            {"index": 0, "id": "", "name": "", "args": "}"},
        ],
        [("a", "f", "{}")],
    ),
    "indexes that are words": (
        [{"index": "x", "name": "f", "args": A}, {"index": "y", "name": "f", "args": B}],
        [(None, "f", A), (None, "f", B)],
    ),
    "an id after the message has ended": (
        [
            {"index": 0, "id": "a", "name": "f", "args": A},
            END,
            {"index": 0, "id": "a", "name": "f", "args": B},
        ],
        [("a", "f", A), ("a", "f", B)],
    ),
    "another index with the same id is another call": (
        [
            {"index": 0, "id": "a", "name": "f", "args": A},
            {"index": 1, "id": "a", "name": "f", "args": B},
        ],
        [("a", "f", A), ("a", "f", B)],
    ),
}


@pytest.mark.parametrize(("pieces", "calls"), PIECES.values(), ids=PIECES)
def test_a_piece_finds_its_call(pieces: list[Piece], calls: list[tuple[Any, Any, str]]) -> None:
    """Parallel calls never fuse where the wire tells them apart, and one call never splits."""
    assert sorted_out(*pieces) == calls


@given(st.lists(own.tool_pieces, max_size=8))
def test_no_arguments_are_lost_or_doubled(pieces: list[ToolCallDelta]) -> None:
    """However the pieces are numbered, every character is in exactly one call, in order."""
    pieces = [piece for piece in pieces if piece.kind == "tool_call"]
    calls = fold_events(pieces).tool_call_chunks
    assert sorted("".join(c["args"] or "" for c in calls)) == sorted(
        "".join(p.args for p in pieces)
    )
    names = {piece.name for piece in pieces if piece.name}
    assert {call["name"] for call in calls if call["name"]} == names


@given(st.lists(st.tuples(st.integers(0, 3), own.json_objects), min_size=1, max_size=4), st.data())
def test_parallel_calls_in_any_interleaving(
    calls: list[tuple[int, dict[str, Any]]], data: st.DataObject
) -> None:
    """Calls with an id and an index each come out whole, whatever the order of their pieces."""
    queues = []
    for n, (_, args) in enumerate(calls):
        first, *rest = data.draw(own.pieces_of(json.dumps(args)))
        start = ToolCallDelta(first, n, id=f"c{n}", name="f")
        queues.append([start, *(ToolCallDelta(part, n) for part in rest)])
    events: list[Any] = [queue.pop(0) for queue in queues]
    while any(queues):
        queue = data.draw(st.sampled_from([queue for queue in queues if queue]))
        events.append(queue.pop(0))
    message = fold_events([*events, MessageEnd("tool_calls")]).to_message()
    assert message.invalid_tool_calls == []
    assert [(call["id"], call["args"]) for call in message.tool_calls] == [
        (f"c{n}", args) for n, (_, args) in enumerate(calls)
    ]


GOOD = [
    ("{}", "stop", {}),
    ("", "stop", {}),
    ("", "tool_calls", {}),
    ("  \n", "pause", {}),
    ('{"x": 1}', None, {"x": 1}),
    ('{"x": 1}', "length", {"x": 1}),
    (' {"x": [1, {"y": null}]}\n', "error", {"x": [1, {"y": None}]}),
    ('{"a": "\\u0000\\ud83d\\ude00"}', "stop", {"a": "\0😀"}),
    ('{"n": 123456789012345678901234567890}', "stop", {"n": 123456789012345678901234567890}),
    ('{"x": 1, "x": 2}', "stop", {"x": 2}),
]

BAD = [
    ("", "length", "cut off by the token limit"),
    ("", None, "cut off because the stream broke off"),
    ("", "content_filter", "cut off by a content filter"),
    ("", "refusal", "cut off by a refusal"),
    ("", "cancelled", "cut off when the stream was cancelled"),
    ('{"x"', "length", "cut off by the token limit"),
    ('{"x": "y', None, "cut off because the stream broke off"),
    ('{"x": 1', "error", "cut off because"),
    ('{"x": 1', "stop", "unreadable"),
    ("[1]", "stop", "expected a JSON object, got an array"),
    ("1", "stop", "got a number"),
    ("null", "stop", "got null"),
    ('"{}"', "stop", "got a string"),
    ("true", "stop", "got a boolean"),
    ('{"x": NaN}', "stop", "not valid JSON"),
    ('{"x": Infinity}', "stop", "not valid JSON"),
    ('{"x": -Infinity}', "length", "not valid JSON"),
    ('{"x": 1e999}', "stop", "not valid JSON"),
    ('{"x": 1}{"x": 1}', "stop", "not valid JSON"),
    ('{"x": 1}{"x": 1}', "length", "not valid JSON"),
    ("{'x': 1}", "stop", "not valid JSON"),
    ('{"x": 1,}', "stop", "not valid JSON"),
    ("{}}", "stop", "not valid JSON"),
    ("hello", "stop", "not valid JSON"),
    ('{"x": "\\ud800"}', "stop", "not valid JSON"),
    ('{"x": "a\nb"}', "stop", "not valid JSON"),
    ('{"x":' + "[" * 64 + "]" * 64 + "}", "stop", "nested deeper than 64 levels"),
    ('{"x":' + "[" * 100_000, "stop", "nested deeper than 64 levels"),
]


class TestJudge:
    @pytest.mark.parametrize(("raw", "reason", "args"), GOOD)
    def test_good_arguments(self, raw: str, reason: str | None, args: Any) -> None:
        """One object, or nothing after a normal end; a closed object whatever ended the stream."""
        assert judge(raw, "f", reason) == (args, None)

    @pytest.mark.parametrize(("raw", "reason", "why"), BAD)
    def test_bad_arguments(self, raw: str, reason: str | None, why: str) -> None:
        """Everything else is invalid and says why."""
        args, error = judge(raw, "f", reason)
        assert args is None
        assert why in (error or "")

    @pytest.mark.parametrize("name", ["", None, "a/b", "a\\b", "a\nb", "a\0", "\x7f", "../f"])
    def test_bad_names(self, name: str | None) -> None:
        args, error = judge("{}", name, "stop")
        assert args is None
        assert "name" in (error or "")

    @pytest.mark.parametrize("name", ["get_weather", "a.b", "a:b", "a-b", "погода", "f()", "a b"])
    def test_odd_names_that_are_fine(self, name: str) -> None:
        assert judge("{}", name, "stop") == ({}, None)

    @given(st.text(max_size=20), st.sampled_from([None, "stop", "length", "tool_calls"]))
    def test_there_is_always_exactly_one_verdict(self, raw: str, reason: str | None) -> None:
        args, error = judge(raw, "f", reason)
        assert (args is None) == (error is not None)

    @given(own.json_objects, st.data())
    def test_no_proper_beginning_of_an_object_is_ever_valid(
        self, value: dict[str, Any], data: st.DataObject
    ) -> None:
        """However the stream ended: half an argument is not run."""
        raw = json.dumps(value)
        end = data.draw(st.integers(1, len(raw) - 1))
        reason = data.draw(st.sampled_from([None, "stop", "length", "tool_calls", "error"]))
        assert judge(raw[:end], "f", reason)[0] is None


class TestReadUnfinished:
    @pytest.mark.parametrize(
        ("raw", "value"),
        [
            ("", {}),
            ("{", {}),
            ('{"x', {}),
            ('{"x": "half a', {"x": "half a"}),
            ('{"x": 12', {"x": 12}),
            ('{"x": 12,', {"x": 12}),
            ('{"x": [1, {"y": "z', {"x": [1, {"y": "z"}]}),
            ('{"x": 1}', {"x": 1}),
            ("[1", None),
            ("nonsense", None),
            ('{"x": NaN', None),
            ('{"x": 1}{', {"x": 1}),
            ('{"x": nul', {}),
        ],
    )
    def test_the_best_reading(self, raw: str, value: Any) -> None:
        """An unfinished string shows what has come; what can never be an object is None. (What
        follows a closed object shows in the verdict, when the message has ended.)"""
        assert read_unfinished(raw) == value

    @given(own.json_objects)
    def test_it_grows_into_the_object(self, value: dict[str, Any]) -> None:
        """Each beginning can be read; of the keys that were seen only the last may go again."""
        raw = json.dumps(value, ensure_ascii=False)
        readings = [read_unfinished(raw[:end]) for end in range(len(raw) + 1)]
        assert None not in readings
        assert readings[-1] == value
        keys = [list(reading or {}) for reading in readings]
        assert all(
            before[:-1] == after[: len(before) - 1] for before, after in pairwise(keys) if before
        )
