"""Newline-delimited JSON: the framer against the rules and against every cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import json_objects, pieces_of
from streamfold.errors import SizeLimitError
from streamfold.wire.ndjson import NDJSONFramer, is_json

PLENTY = 1 << 20


def framed(reads: list[bytes], limit: int = PLENTY) -> tuple[list[bytes], type | None]:
    """The data of every frame, also that of the close, and the class of the error if any."""
    framer = NDJSONFramer(limit)
    frames = [frame.data for read in reads for frame in framer.feed(read)]
    last = [framer.read(block) for block in framer.split(framer.close())]
    frames += [frame.data for frame in last if frame is not None]
    return frames, type(framer.error) if framer.error else None


ROWS = [
    ("lines", b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    ("CRLF stays, for it is white space to JSON", b'{"a":1}\r\n', [b'{"a":1}\r']),
    ("blank lines", b'\n  \n\r\n{"a":1}\n\n', [b'{"a":1}']),
    ("a last line without newline", b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
    ("a last line that is cut off", b'{"a":1}\n{"b":', [b'{"a":1}']),
    ("a last line cut in a character", b'{"a":1}\n"\xf0\x9f', [b'{"a":1}']),
    ("odd JSON at the end", b'{"a":"\\ud83d"}', [b'{"a":"\\ud83d"}']),
    ("a control character in a string at the end", b'{"a":"\x01"}', [b'{"a":"\x01"}']),
    ("a line end inside JSON ends the line", b'{"a":\n1}\n', [b'{"a":', b"1}"]),
    ("byte-order mark", b'\xef\xbb\xbf{"a":1}\n', [b'{"a":1}']),
    ("byte-order mark, and no newline", b'\xef\xbb\xbf{"a":1}', [b'{"a":1}']),
    ("nothing", b"", []),
    ("blanks at the end", b"  ", []),
]


@pytest.mark.parametrize(("body", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ROWS])
def test_frames(body: bytes, expected: list[bytes]) -> None:
    assert framed([body]) == (expected, None)
    assert framed([body[n : n + 1] for n in range(len(body))]) == (expected, None)


@given(st.lists(json_objects, max_size=5), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), st.data())
def test_objects_come_back_however_they_are_cut(
    objects: list[dict[str, object]], end: bytes, data: st.DataObject
) -> None:
    body = b"".join(json.dumps(value).encode() + end for value in objects)
    frames, error = framed(data.draw(pieces_of(body)))
    assert error is None
    assert [json.loads(frame) for frame in frames] == objects


@given(st.binary(max_size=60), st.data())
def test_any_bytes_give_the_same_frames_however_they_are_cut(
    body: bytes, data: st.DataObject
) -> None:
    assert framed(data.draw(pieces_of(body))) == framed([body])


@given(st.lists(st.sampled_from([b"\n", b"{}", b"1", b" ", b"["])).map(b"".join), st.data())
def test_whole_lines_come_as_they_are_and_each_once(body: bytes, data: st.DataObject) -> None:
    """What reads complete, put together, is the body; only a last line gets its newline."""
    framer = NDJSONFramer(PLENTY)
    reads = [framer.complete(read) for read in data.draw(pieces_of(body))]
    assert all(read.endswith(b"\n") for read in reads if read)
    assert b"".join(reads) == body[: body.rfind(b"\n") + 1]
    last = body[body.rfind(b"\n") + 1 :]
    assert framer.close() == (last + b"\n" if is_json(last) else b"")


def test_a_line_may_be_as_large_as_the_limit() -> None:
    """And no larger: whether it has come to its end, and whatever came before it."""
    for before in ([], [b"[", b"1]\n"]):
        framer = NDJSONFramer(10)
        for data in (*before, b'{"a":', b"12345"):
            framer.feed(data)
        assert framer.error is None
        framer.feed(b"6")
        assert isinstance(framer.error, SizeLimitError)
        assert "Limits.event_bytes (10 bytes)" in str(framer.error)
        assert framer.complete(b"}\n{}\n") == framer.close() == b""
    for end in (b"\n", b""):
        assert framed([b'{"a":1234}' + end], 10) == ([b'{"a":1234}'], None)


def test_a_line_without_an_end_is_not_waited_for() -> None:
    """Once it is too large nothing of it stays in memory."""
    framer = NDJSONFramer(1000)
    for _ in range(100):
        assert framer.feed(b"x" * 100) == []
    assert isinstance(framer.error, SizeLimitError)
    assert framer._held == []


def test_a_line_that_is_too_large() -> None:
    """What came before it counts; it may be cut, or come in one read with others."""
    body = b'{"a":1}\n{"b":"' + b"x" * 100 + b'"}\n{"c":1}\n'
    for reads in ([body], [body[:40], body[40:]], [body[n : n + 1] for n in range(len(body))]):
        assert framed(reads, 60) == ([b'{"a":1}'], SizeLimitError)
    assert framed([b"x" * 61], 60) == ([], SizeLimitError)


def test_lines_of_the_limit_in_one_read() -> None:
    """The limit is a line's, however many of them come together."""
    body = b'{"a":1}\n' * 100
    assert framed([body], 7) == ([b'{"a":1}'] * 100, None)
    assert framed([body], 6) == ([], SizeLimitError)


def test_deep_json_at_the_end_is_left_to_the_decoder() -> None:
    body = b"[" * 100_000 + b"]" * 100_000
    assert framed([body]) == ([body], None)


def test_small_reads_cost_no_more_than_their_sum() -> None:
    """A megabyte, a byte at a time: quadratic work would take minutes."""
    program = """
from streamfold.wire.ndjson import NDJSONFramer
framer = NDJSONFramer(1 << 22)
body = b'{"a":"' + b"x" * 1_000_000 + b'"}\\n'
frames = [frame for n in range(len(body)) for frame in framer.feed(body[n : n + 1])]
assert [len(frame.data) for frame in frames] == [len(body) - 1]
"""
    # It is timed, so where coverage is measured it is not followed line by line.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20, env=env)
