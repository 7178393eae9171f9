"""AWS event streams: our reader next to botocore's, and what damage becomes."""

from __future__ import annotations

import struct
import time
import tracemalloc
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer, ParserError
from hypothesis import example, given
from hypothesis import strategies as st

from strategies import pieces_of
from streamfold.errors import SizeLimitError, StreamProtocolError
from streamfold.wire import eventstream
from streamfold.wire.eventstream import EventStreamFramer, encode_message

MIB = 1024 * 1024

EVENT = {":event-type": "messageStart", ":content-type": "application/json"}


def message(headers: bytes, payload: bytes, **wrong: int) -> bytes:
    """A message with any headers, its numbers right but for those given."""
    total = wrong.get("total", 16 + len(headers) + len(payload))
    lengths = struct.pack("!II", total, wrong.get("of_headers", len(headers)))
    prelude = lengths + struct.pack("!I", wrong.get("prelude_crc", crc32(lengths)))
    whole = prelude + headers + payload
    return whole + struct.pack("!I", wrong.get("crc", crc32(whole)))


def header(name: str, kind: int, value: bytes) -> bytes:
    return bytes([len(name.encode())]) + name.encode() + bytes([kind]) + value


def sized(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def ours(reads: list[bytes], limit: int = MIB) -> tuple[list[tuple[str, bytes]], Any]:
    framer = EventStreamFramer(limit)
    frames = [frame for data in reads for frame in framer.feed(data)]
    assert framer.close() == b""
    return [(frame.event or "", frame.data) for frame in frames], framer.error


def theirs(body: bytes) -> tuple[list[tuple[str, bytes]], bool]:
    """What botocore reads, in our words, and whether it gave up."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    read: list[tuple[str, bytes]] = []
    try:
        for found in buffer:
            read.append(_as_frame(found.headers, found.payload))
    except (ParserError, ValueError, KeyError, struct.error):
        return read, True
    return read, False


def _as_frame(headers: dict[str, Any], payload: bytes) -> tuple[str, bytes]:
    kind = headers.get(":message-type", "event")
    names = {"event": ":event-type", "exception": ":exception-type", "error": ":error-code"}
    name = " ".join(str(headers.get(names.get(kind, ""), "")).split())
    return (name if kind == "event" else f"{kind}:{name}"), payload.replace(b"\n", b" ") or b"{}"


# ---- next to botocore ----------------------------------------------------------------------------

_names = st.sampled_from(
    [":event-type", ":exception-type", ":content-type", "x", "ключ", "y" * 255]
)
_texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=12).map(str.encode)
_values = st.one_of(
    st.sampled_from([(0, b""), (1, b"")]),
    st.binary(min_size=1, max_size=1).map(lambda b: (2, b)),
    st.binary(min_size=2, max_size=2).map(lambda b: (3, b)),
    st.binary(min_size=4, max_size=4).map(lambda b: (4, b)),
    st.binary(min_size=8, max_size=8).map(lambda b: (5, b)),
    st.binary(max_size=9).map(lambda b: (6, sized(b))),
    _texts.map(lambda b: (7, sized(b))),
    st.binary(min_size=8, max_size=8).map(lambda b: (8, b)),
    st.binary(min_size=16, max_size=16).map(lambda b: (9, b)),
)
_kinds = st.sampled_from(["event", "exception", "error", "other"])


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    headers = draw(st.dictionaries(_names, _values, max_size=4))
    kind = draw(_kinds)
    raw = b"".join(header(name, *value) for name, value in headers.items())
    raw += header(":message-type", 7, sized(kind.encode()))
    return message(raw, draw(st.binary(max_size=40)))


streams = st.lists(_messages(), max_size=5)


def _text_headers_only(body: bytes) -> bool:
    """botocore gives the names of events in whatever type their headers have; ours are strings."""
    buffer = EventStreamBuffer()
    buffer.add_data(body)
    return all(
        isinstance(m.headers.get(name, ""), str)
        for m in buffer
        for name in (":event-type", ":exception-type")
    )


class TestLikeBotocore:
    @given(streams, st.data())
    def test_the_same_messages_however_they_are_cut(
        self, messages: list[bytes], data: st.DataObject
    ) -> None:
        body = b"".join(messages)
        if not _text_headers_only(body):
            return
        frames, error = ours(data.draw(pieces_of(body)))
        assert error is None
        assert frames == theirs(body)[0]

    @given(streams.filter(bool), st.data())
    def test_a_flipped_bit_is_found_by_both(
        self, messages: list[bytes], data: st.DataObject
    ) -> None:
        """In the prelude, the headers, the payload or a checksum: what came before it is there,
        nothing of the message is, and both give up; unless both wait for more."""
        body = b"".join(messages)
        if not _text_headers_only(body):
            return
        bit = data.draw(st.integers(0, len(body) * 8 - 1))
        damaged = bytearray(body)
        damaged[bit // 8] ^= 1 << bit % 8
        frames, error = ours(data.draw(pieces_of(bytes(damaged))))
        wanted, gave_up = theirs(bytes(damaged))
        assert gave_up
        assert isinstance(error, StreamProtocolError)
        assert frames == wanted
        place, before = 0, 0
        for each in messages:
            place += len(each)
            before += place <= bit // 8
        assert len(frames) == before

    @given(streams, st.integers(0, 200), st.data())
    def test_half_a_message_says_nothing(
        self, messages: list[bytes], missing: int, data: st.DataObject
    ) -> None:
        body = b"".join(messages)
        body = body[: max(0, len(body) - missing)]
        if not _text_headers_only(body):
            return
        frames, error = ours(data.draw(pieces_of(body)))
        assert (frames, error) == (theirs(body)[0], None)

    @given(st.binary(max_size=60))
    @example(b"")
    @example(bytes(12))
    def test_any_bytes(self, body: bytes) -> None:
        """Whoever reads something, reads the same; ours raises nothing."""
        frames, error = ours([body])
        wanted, gave_up = theirs(body)
        assert frames == wanted
        assert (error is not None) == gave_up

    @given(st.binary(max_size=24))
    def test_any_headers(self, raw: bytes) -> None:
        """Headers whose checksum is right but which are none: ours reads only what botocore reads.
        (botocore lets a value end where the headers end, whatever length it claims.)"""
        body = message(raw, b"{}")
        frames, error = ours([body])
        assert len(frames) == (error is None)
        assert error is None or isinstance(error, StreamProtocolError)
        if error is None:
            assert not theirs(body)[1]


def test_what_we_write_botocore_reads() -> None:
    headers = {**EVENT, ":message-type": "event", "ключ": "значение"}
    buffer = EventStreamBuffer()
    buffer.add_data(encode_message(headers, b'{"a":1}'))
    (read,) = list(buffer)
    assert (read.headers, read.payload) == (headers, b'{"a":1}')


# ---- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "payload", "expected"),
    [
        ({":message-type": "event", **EVENT}, b'{"a":1}', ("messageStart", b'{"a":1}')),
        (EVENT, b"", ("messageStart", b"{}")),
        ({":message-type": "event"}, b"{}", ("", b"{}")),
        (
            {":message-type": "exception", ":exception-type": "throttlingException"},
            b'{"message":"slow"}',
            ("exception:throttlingException", b'{"message":"slow"}'),
        ),
        (
            {":message-type": "error", ":error-code": "Internal", ":error-message": 'a "b"'},
            b"",
            ("error:Internal", b'{"message":"a \\"b\\""}'),
        ),
        ({":message-type": "new"}, b"{}", ("new:", b"{}")),
        # One line each, whatever is in it: JSON may be written over several lines.
        (
            {":message-type": "exception", ":exception-type": "\rx"},
            b"{}",
            ("exception:x", b"{}"),
        ),
        ({":event-type": "a\ndata: b"}, b'{\n"a": 1\n}', ("a data: b", b'{ "a": 1 }')),
    ],
)
def test_frames(headers: dict[str, str], payload: bytes, expected: tuple[str, bytes]) -> None:
    assert ours([encode_message(headers, payload)]) == ([expected], None)


# ---- damage and limits ---------------------------------------------------------------------------

GOOD = encode_message(EVENT, b"{}")


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (message(b"", b"{}", prelude_crc=1), "the checksum of the prelude"),
        (message(b"", b"{}", crc=1), "the checksum of a message"),
        (message(b"", b"{}", total=15), "claims 15 bytes, 0 of them headers"),
        (message(b"", b"{}", total=0), "claims 0 bytes"),
        (message(b"", b"{}", total=30, of_headers=15), "claims 30 bytes, 15 of them headers"),
        (message(b"", b"{}", total=2**31, of_headers=2**20), "at most 131072 of headers"),
        (message(b"\x05ab", b""), "goes past the end of the headers"),
        (message(b"\x01a", b""), "unreadable"),
        (message(header("a", 10, b""), b""), "type 10: expected 0 to 9"),
        (message(header("a", 7, b"\x00\x09abc"), b""), "goes past the end"),
        (message(header("a", 7, b"\x00"), b""), "unreadable"),
        (message(header("a", 7, sized(b"\xff")), b""), "unreadable"),
        (message(header("a", 4, b"123"), b""), "goes past the end"),
        (message(header("a", 0, b"") * 2, b""), "a is there twice"),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_damage(damaged: bytes, says: str, bytewise: bool) -> None:
    """What came before the damage counts, what comes after it does not."""
    body = GOOD + damaged + GOOD
    frames, error = ours([body[n : n + 1] for n in range(len(body))] if bytewise else [body])
    assert [name for name, _ in frames] == ["messageStart"]
    assert isinstance(error, StreamProtocolError)
    assert says in str(error)


def test_a_large_event_is_refused_before_it_has_arrived() -> None:
    """By what its prelude says, so that nothing is kept of it."""
    framer = EventStreamFramer(1000)
    assert len(framer.feed(GOOD + encode_message(EVENT, b"x" * 1000))) == 2
    assert framer.feed(encode_message(EVENT, b"x" * 1001)[:12]) == []
    assert isinstance(framer.error, SizeLimitError)
    assert "event_bytes (1000 bytes)" in str(framer.error)
    assert framer.feed(GOOD) == []


def test_what_a_read_completes_are_events_as_a_server_sends_them() -> None:
    """And nothing where it completes none, as after damage."""
    event = b"event: messageStart\ndata: {}\n\n"
    framer = EventStreamFramer(MIB)
    reads = (GOOD, b"", GOOD + GOOD[:7], GOOD[7:], GOOD[:20], GOOD[20:] + bytes(12) + GOOD, GOOD)
    completed = [framer.complete(read) for read in reads]
    assert completed == [event, b"", event, event, b"", event, b""]
    assert framer._held == []


@pytest.mark.parametrize(("size", "passes"), [(128 * 1024, True), (128 * 1024 + 1, False)])
def test_the_most_bytes_of_headers(size: int, passes: bool) -> None:
    """As many as AWS allows, in values as large as there can be."""
    around = len(header("a", 6, sized(b"")))
    values = [40_000, 40_000, size - 80_000 - 3 * around]
    raw = b"".join(header(name, 6, sized(b"x" * each)) for name, each in zip("abc", values))
    frames, error = ours([message(raw, b"{}")])
    assert (len(raw), len(frames), error is None) == (size, int(passes), passes)


def test_headers_of_the_most_bytes_do_not_make_a_large_event_another_fault() -> None:
    framer = EventStreamFramer(1000)
    framer.feed(message(b"", b"", of_headers=131072, total=131072 + 16 + 1001))
    assert isinstance(framer.error, SizeLimitError)


@pytest.mark.parametrize("size", [0, 1, 32767, 32768, 65535])
def test_headers_as_long_as_their_length_can_say(size: int) -> None:
    name = "x" * size
    assert ours([encode_message({":event-type": name}, b"{}")]) == ([(name, b"{}")], None)


def test_a_large_event_in_small_reads_takes_linear_time_and_little_memory() -> None:
    """0.1 s here; joined at every read, it would be half a minute."""
    body = encode_message(EVENT, b"x" * 4 * MIB)
    framer = EventStreamFramer(8 * MIB)
    began = time.process_time()
    frames = [f for n in range(0, len(body), 64) for f in framer.feed(body[n : n + 64])]
    assert time.process_time() - began < 3
    assert [len(frame.data) for frame in frames] == [4 * MIB]
    framer = EventStreamFramer(8 * MIB)
    tracemalloc.start()
    for n in range(0, len(body), 4096):
        framer.feed(body[n : n + 4096])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 * MIB


def test_headers_that_repeat_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    read = eventstream.read_headers
    monkeypatch.setattr(eventstream, "read_headers", lambda raw: seen.append(raw) or read(raw))
    frames, _ = ours([GOOD] * 10 + [encode_message({":event-type": "b"}, b"{}") + GOOD])
    assert [name for name, _ in frames] == ["messageStart"] * 10 + ["b", "messageStart"]
    assert len(seen) == 2


def test_headers_that_never_repeat_are_not_kept() -> None:
    framer = EventStreamFramer(MIB)
    for number in range(1000):
        framer.feed(encode_message({":event-type": f"event {number}"}, b"{}"))
    assert len(framer._known) <= 64
