"""The chunked coding, held against h11's reading of it."""

from __future__ import annotations

from typing import Any

import h11
import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.net.chunked import ChunkedBody

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def ours(reads: list[bytes]) -> tuple[bytes, bool, bytes, bool]:
    """Body, whether it is complete, what came after it, whether it failed."""
    body = ChunkedBody()
    got = b"".join(body.feed(data) for data in reads)
    return got, body.done, body.rest, body.error is not None


def theirs(data: bytes) -> tuple[bytes, bool, bytes, bool]:
    """The same by h11."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(HEAD + data)
    got = b""
    event: Any = None
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return got, False, b"", True
        if isinstance(event, h11.Data):
            got += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return got, True, connection.trailing_data[0], False
        elif event is h11.NEED_DATA:
            return got, False, b"", False


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if a < b]


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    """Chunks with headers of all kinds that are allowed, and a trailer now and then."""
    written = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=6)):
        size = draw(st.sampled_from(["%x", "%X", "0%x", "%08x"])) % len(data)
        extra = draw(st.sampled_from(["", ";a=b", ";a", '; q="x y"', " ", "\t "]))
        written += f"{size}{extra}\r\n".encode() + data + b"\r\n"
    trailer = draw(st.sampled_from([b"", b"x-time: 3\r\n", b"a: b\r\nc:\r\n", b"a: b\n"]))
    return written + b"0\r\n" + trailer + b"\r\n"


CUTS = st.lists(st.integers(0, 500), max_size=8)
MANGLED = st.lists(
    st.sampled_from([b"\r\n", b"\n", b"\r", b"0", b"5", b"a", b"hello", b";", b":", b" ", b"\0"]),
    max_size=14,
).map(b"".join)


@given(well_formed(), st.binary(max_size=9), CUTS)
def test_however_it_is_cut(data: bytes, after: bytes, places: list[int]) -> None:
    """The body is what h11 says it is, in any reads, and what comes after it is told apart."""
    expected = theirs(data + after)
    assert expected[1]
    assert ours(cut(data + after, places)) == expected


@given(well_formed(), MANGLED, st.integers(0, 500), CUTS)
def test_what_is_damaged(data: bytes, noise: bytes, place: int, places: list[int]) -> None:
    """Nothing is read as complete that h11 does not read so, and whatever is read before the
    damage is what h11 reads before it."""
    place %= len(data) + 1
    damaged = data[:place] + noise + data[place:]
    got, done, rest, failed = ours(cut(damaged, places))
    body, complete, after, _ = theirs(damaged)
    assert got == ours([damaged])[0]
    assert body.startswith(got)
    if done:
        assert (got, rest) == (body, after)
        assert complete
    elif not failed:
        assert (got, complete) == (body, False)


@given(well_formed(), CUTS)
def test_the_end_of_the_connection_is_no_end(data: bytes, places: list[int]) -> None:
    """A body that the connection ends in is cut off: never a short answer."""
    body = ChunkedBody()
    for part in cut(data, places)[:-1]:
        body.feed(part)
    complete = body.done
    body.feed(b"")
    assert complete or isinstance(body.error, httpcore.RemoteProtocolError)


@pytest.mark.parametrize(
    "data",
    [b"1" * 21 + b"\r\n", b"5;" + b"x" * 20_000, b"0\r\na: " + b"x" * 20_000, b"0\r\nno field\r\n"],
)
def test_what_is_refused(data: bytes) -> None:
    body = ChunkedBody()
    for byte in range(0, len(data), 1000):
        body.feed(data[byte : byte + 1000])
    assert body.error is not None
    assert not body.done


def test_what_came_before_the_damage_comes_out() -> None:
    body = ChunkedBody()
    assert body.feed(b"5\r\nhello\r\n5\r\nworld!!") == b"helloworld"
    assert body.error is not None
    assert body.feed(b"\r\n0\r\n\r\n") == b""
