"""Server-sent events: the framer against the rules, against httpx-sse, and against every cut."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import httpx
import httpx_sse
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import pieces_of
from streamfold.errors import SizeLimitError, StreamProtocolError
from streamfold.wire.sse import SSEFramer

BOM = b"\xef\xbb\xbf"
PLENTY = 1 << 20

Frames = list[tuple[str | None, bytes]]


def framed(reads: list[bytes], limit: int = PLENTY) -> tuple[Frames, type | None]:
    """(event, data) of every frame, and the class of the error if there was one."""
    framer = SSEFramer(limit)
    frames = [frame for read in reads for frame in framer.feed(read)]
    framer.close()
    return [(f.event, f.data) for f in frames], type(framer.error) if framer.error else None


def bytewise(body: bytes) -> list[bytes]:
    return [body[n : n + 1] for n in range(len(body))]


def by_the_rules(body: bytes) -> Frames:
    """The WHATWG rules, line by line, for valid UTF-8: slow and plain."""
    text = body.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    frames: Frames = []
    event, data = b"", None
    for line in text.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data is not None:
                frames.append((event.decode() if event not in (b"", b"message") else None, data))
            event, data = b"", None
        elif name == b"data":
            data = value if data is None else data + b"\n" + value
        elif name == b"event":
            event = value
    return frames


def by_httpx_sse(body: bytes) -> Frames:
    headers = {"content-type": "text/event-stream"}
    response = httpx.Response(200, headers=headers, content=body)
    return [
        (None if event.event == "message" else event.event, event.data.encode())
        for event in httpx_sse.EventSource(response).iter_sse()
    ]


def blocks(text: bytes) -> list[bytes]:
    return [block for block in re.split(b"\n\n+", text.strip(b"\n")) if block]


def with_data(frames: Frames) -> Frames:
    return [frame for frame in frames if frame[1]]


_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
_names = st.sampled_from([b"data", b"event", b"id", b"retry", b"", b"dat", b"datax", b" data"])
_values = st.lists(
    st.sampled_from(
        [
            *(
                b"x",
                b"X",
                b" ",
                b":",
                b"message",
                b"error",
                b"7",
                "я".encode(),
                "😀".encode(),
                b"\0",
                BOM,
            ),
            # Ends of lines elsewhere, not in a stream of events.
            *("\u2028".encode(), "\u2029".encode(), "\x85".encode(), b"\x0b", b"\x0c"),
        ]
    ),
    max_size=3,
).map(b"".join)
_lines = st.builds(
    lambda name, colon, value, end: name + (colon + value if colon else b"") + end,
    _names,
    st.sampled_from([b":", b": ", b""]),
    _values,
    _ends,
)
_plain = st.builds(lambda value: b"data: " + value + b"\n\n", _values)
_named = st.builds(
    lambda name, value, more: b"event: " + name + b"\ndata: " + value + b"\n" + more + b"\n",
    _values,
    _values,
    st.sampled_from([b"", b"data: x\n", b"event\n", b":\n"]),
)
_tokens = st.one_of(_lines, _plain, _named, _ends, st.sampled_from([b"\n\n", b"data", b":", BOM]))
bodies = st.builds(
    lambda bom, tokens: (BOM if bom else b"") + b"".join(tokens),
    st.booleans(),
    st.lists(_tokens, max_size=10),
)


class TestAgainstTheRules:
    @given(bodies)
    def test_any_stream_is_read_as_the_rules_say(self, body: bytes) -> None:
        assert framed([body]) == (by_the_rules(body), None)

    @given(bodies)
    def test_any_stream_is_read_as_httpx_sse_reads_it(self, body: bytes) -> None:
        """But for a byte-order mark and for events without data."""
        frames, _ = framed([body])
        assert with_data(frames) == with_data(by_httpx_sse(body.removeprefix(BOM)))

    @given(bodies, st.data())
    def test_cuts_do_not_matter(self, body: bytes, data: st.DataObject) -> None:
        whole = framed([body])
        assert framed(data.draw(pieces_of(body))) == whole
        assert framed(bytewise(body)) == whole

    @given(bodies, st.data())
    def test_what_reads_complete_is_the_stream_in_whole_events(
        self, body: bytes, data: st.DataObject
    ) -> None:
        """In lines that end in LF; only blank lines that end no event may be missing."""
        framer = SSEFramer(PLENTY)
        reads = [framer.complete(read) for read in data.draw(pieces_of(body))]
        assert all(read.endswith(b"\n\n") for read in reads if read)
        text = body.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        whole, end, _ = text.rpartition(b"\n\n")
        assert blocks(b"".join(reads)) == blocks(whole + end)

    @given(st.binary(max_size=60), st.data())
    def test_any_bytes_give_frames_or_an_error_of_ours(
        self, body: bytes, data: st.DataObject
    ) -> None:
        whole = framed([body])
        assert whole[1] in (None, StreamProtocolError)
        assert framed(data.draw(pieces_of(body))) == whole


EVENTS: dict[str, tuple[bytes, Frames]] = {
    "one line": (b"data: {}\n\n", [(None, b"{}")]),
    "no space": (b"data:{}\n\n", [(None, b"{}")]),
    "two spaces, one is the payload's": (b"data:  {}\n\n", [(None, b" {}")]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [(None, b"a"), (None, b"b")]),
    "cr": (b"data: a\r\rdata: b\r\r", [(None, b"a"), (None, b"b")]),
    "mixed ends": (b"data: a\n\r\ndata: b\r\ndata: c\r\n\r", [(None, b"a"), (None, b"b\nc")]),
    "byte-order mark": (BOM + b"data: a\n\n", [(None, b"a")]),
    "a second byte-order mark is not one": (BOM + BOM + b"data: a\n\ndata: b\n\n", [(None, b"b")]),
    "named": (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
    "named message": (b"event: message\ndata: {}\n\n", [(None, b"{}")]),
    "named nothing": (b"event: \ndata: {}\n\nevent:\ndata: b\n\n", [(None, b"{}"), (None, b"b")]),
    "named, many data lines": (b"event: a\ndata: {\ndata: }\n\n", [("a", b"{\n}")]),
    "the name after the data": (b"data: {}\nevent: ping\n\n", [("ping", b"{}")]),
    "the last name": (b"event: a\nevent: b\ndata: {}\n\n", [("b", b"{}")]),
    "names do not outlive their event": (b"event: a\n\ndata: {}\n\n", [(None, b"{}")]),
    "many data lines": (b"data: {\ndata: \ndata:}\n\n", [(None, b"{\n\n}")]),
    "a data line without a colon": (b"data\ndata: {}\n\n", [(None, b"\n{}")]),
    "empty data is an event": (b"data:\n\ndata\n\n", [(None, b""), (None, b"")]),
    "no data is none": (b"event: a\nid: 1\n\n\n\nretry: 5\n\n", []),
    "comments": (b": hi\n\n:\ndata: a\n: in between\ndata: b\n\n", [(None, b"a\nb")]),
    "ids and retries": (b"id: 1\nid: \0\nretry: x\nretry: 9\ndata: a\n\n", [(None, b"a")]),
    "unknown fields": (b"foo: 1\nbar\nData: no\n data: no\ndata: a\n\n", [(None, b"a")]),
    "not ended": (b"data: a\n\ndata: b\n", [(None, b"a")]),
    "not ended, nor the line": (b"data: a\n\ndata: b", [(None, b"a")]),
    "other separators stay in the line": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
        [(None, "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg".encode())],
    ),
    "zero bytes in data": (b"id: a\0\ndata: x\0y\n\n", [(None, b"x\0y")]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize(("body", "frames"), EVENTS.values(), ids=EVENTS)
def test_events(body: bytes, frames: Frames) -> None:
    """Whole, byte by byte, and cut in two at every place."""
    assert framed([body]) == (frames, None)
    assert framed(bytewise(body)) == (frames, None)
    for place in range(len(body)):
        assert framed([body[:place], body[place:]]) == (frames, None)


class TestBadText:
    def test_bytes_that_are_not_utf8_in_a_plain_event_are_left_to_the_decoder(self) -> None:
        """It reports them, with what the event was about."""
        assert framed([b"data: a\xffb\n\n"]) == ([(None, b"a\xffb")], None)

    @pytest.mark.parametrize(
        ("body", "frame"),
        [
            (b"event: a\xff\ndata: {}\n\n", ("a\ufffd", b"{}")),
            (b": \xff\nid: 1\ndata: {}\n\n", (None, b"{}")),
            (b": \xff\ndata: {}\n\n", (None, b"{}")),
        ],
    )
    def test_bytes_that_are_not_utf8_in_names_and_comments_do_no_harm(
        self, body: bytes, frame: tuple[str | None, bytes]
    ) -> None:
        assert framed([body]) == ([frame], None)

    @pytest.mark.parametrize("body", [b"data: a\ndata: \xff\n\n", b"id: 1\ndata: \xed\xa0\x80\n\n"])
    def test_bytes_that_are_not_utf8_in_an_odd_event_are_an_error(self, body: bytes) -> None:
        """What came before counts, what comes after does not."""
        frames = framed([b"data: ok\n\n" + body + b"data: late\n\n"])
        assert frames == ([(None, b"ok")], StreamProtocolError)
        framer = SSEFramer(PLENTY)
        framer.feed(body)
        assert "not UTF-8" in str(framer.error)
        assert framer.feed(b"data: late\n\n") == []


class TestLimits:
    @given(bodies, st.integers(1, 12), st.data())
    def test_the_verdict_does_not_depend_on_cuts(
        self, body: bytes, limit: int, data: st.DataObject
    ) -> None:
        whole = framed([body], limit)
        assert framed(data.draw(pieces_of(body)), limit) == whole
        assert framed(bytewise(body), limit) == whole

    @pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
    def test_an_event_of_exactly_the_limit_passes(self, end: bytes) -> None:
        good = b"data: 1234" + end
        for body in (good, good * 2, end[: len(end) // 2] + good):
            for reads in ([body], bytewise(body)):
                assert framed(reads, 10) == ([(None, b"1234")] * body.count(b"1234"), None)
        bad = b"data: 12345" + end
        for reads in ([bad], bytewise(bad)):
            assert framed(reads, 10) == ([], SizeLimitError)

    def test_events_before_the_large_one_count_and_none_after_it(self) -> None:
        body = b"data: a\n\ndata: " + b"x" * 50 + b"\n\ndata: b\n\n"
        assert framed([body], 20) == ([(None, b"a")], SizeLimitError)

    def test_an_endless_line_is_not_kept(self) -> None:
        """Once it is too large nothing of it stays in memory."""
        framer = SSEFramer(1000)
        for _ in range(1000):
            assert framer.feed(b"x" * 100) == []
        assert isinstance(framer.error, SizeLimitError)
        assert sum(map(len, framer._held)) == 0

    def test_the_error_names_the_limit(self) -> None:
        framer = SSEFramer(10)
        framer.feed(b"x" * 11)
        assert "Limits.event_bytes (10 bytes)" in str(framer.error)

    def test_a_stream_may_be_longer_than_an_event_may_be(self) -> None:
        body = b"data: 1234\n\n" * 100
        assert len(framed([body], 10)[0]) == 100


class TestCost:
    @pytest.mark.parametrize("reads_of", [1, 64, 4096])
    def test_a_long_line_in_small_reads_is_kept_once(
        self, reads_of: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each byte is put aside once and joined once, however many reads bring it."""
        kept, asked = 0, 0
        hold, ends = SSEFramer._hold, SSEFramer._ends_an_event

        def holding(self: Any, data: bytes) -> None:
            nonlocal kept
            kept += len(data)
            hold(self, data)

        def ending(self: Any, data: bytes) -> bool:
            nonlocal asked
            asked += len(data)
            return ends(self, data)

        monkeypatch.setattr(SSEFramer, "_hold", holding)
        monkeypatch.setattr(SSEFramer, "_ends_an_event", ending)
        line = b"data: " + b"x" * 200_000
        body = line + b"\n\n"
        reads = [body[n : n + reads_of] for n in range(0, len(body), reads_of)]
        assert framed(reads) == ([(None, line[6:])], None)
        assert kept <= len(body)
        assert asked <= len(body)

    def test_plain_events_are_read_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What providers send all day: httpx-sse would take a hundred times as long."""
        monkeypatch.delattr(SSEFramer, "_by_the_book")
        comments = b": hi\n\n" + b": the model is being loaded\n\n"
        body = b"event: a\ndata: {}\n\ndata: {}\n\n%b\n\ndata:{}\n\n\ndata: b\n\n" % comments
        frames = [("a", b"{}"), (None, b"{}"), (None, b"{}"), (None, b"b")]
        for reads in ([body], bytewise(body), [body.replace(b"\n", b"\r\n")]):
            assert framed(reads) == (frames, None)
        with pytest.raises(AttributeError):
            framed([b"id: 1\ndata: {}\n\n"])
        monkeypatch.delattr(SSEFramer, "_odd")
        assert framed([b"data: {}\n\ndata: b\n\n"]) == ([(None, b"{}"), (None, b"b")], None)

    def test_a_flood_of_what_says_nothing_is_no_flood_of_blocks(self) -> None:
        """Blank lines are none; of many tiny blocks those count that may hold data or an error."""
        framer = SSEFramer(PLENTY)
        assert len(framer.cut(b"\n" * 10_000 + b"data: a" + b"\n" * 10_000)) <= 2
        said = [b"data: a", b'{"error":1}']
        assert framer.cut(b":\n\n" * 100 + b"\n\n".join(said) + b"\n\n") == said

    def test_plain_streams_do_without_the_http_stack(self) -> None:
        """httpx-sse is loaded for odd events only."""
        code = (
            "import sys; from streamfold.wire.sse import SSEFramer; f = SSEFramer(99); "
            "assert len(f.feed(b': hi\\n\\nevent: a\\ndata: {}\\n\\ndata: {}\\r\\n\\r\\n')) == 2; "
            "assert 'httpx' not in sys.modules; "
            "assert f.feed(b'id: 1\\ndata: {}\\n\\n'); assert 'httpx_sse' in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_comes_out_after_the_close() -> None:
    """An event that was not ended is dropped, as the rules say."""
    framer = SSEFramer(PLENTY)
    assert framer.feed(b"data: a\n") == []
    assert framer.close() == b""
    assert framer.error is None
