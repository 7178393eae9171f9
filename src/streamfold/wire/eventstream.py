"""AWS event streams: bytes in, frames out, cut wherever the network cut them.

A message on the wire, all numbers big-endian:

    total length (4) | length of the headers (4) | CRC32 of these 8 bytes (4)
    headers | payload | CRC32 of everything before it (4)

The lengths of a prelude are trusted only when its checksum holds, else one flipped bit would have
the reader wait for gigabytes; the rest of a message when the second checksum holds. This reader is
ours because API keys of AWS work without botocore; a property test holds the two equal.

The plan: a message that has arrived and is sound is written anew as a server-sent event, with its
type as the event and its payload, which is JSON and so fits on a line, as the data. In this form
the text of a stream goes the short way, like that of all others (see `template`).

Format: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar, Final
from zlib import crc32

import msgspec

from ..errors import SizeLimitError, StreamfoldError, StreamProtocolError
from .sse import Frame

__all__ = ["EventStreamFramer", "encode_message"]

PRELUDE: Final = 12
#: A message without headers and payload: prelude and checksum.
_LEAST: Final = 16
#: What AWS allows, and botocore enforces.
MAX_HEADERS: Final = 128 * 1024

_LF: Final = 0x0A  # looked for as a number, it is found six times faster than as bytes
_prelude = struct.Struct("!III").unpack_from
_number = struct.Struct("!I").unpack_from

#: Bytes of a header's value by its type; byte arrays (6) and strings (7) say theirs themselves.
_VALUE_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES: Final = 6
_STRING: Final = 7
#: Streams repeat a handful of header blocks; a stream that does not is not remembered for ever.
_MAX_KNOWN: Final = 64


class EventStreamFramer:
    """`feed` bytes, get frames. After a failure `error` is set and nothing more comes out.

    The `event` of a frame is the message's `:event-type`; of an exception it is "exception:" and
    its type; of an error "error:" and its code, and the data is ``{"message": ...}``.
    """

    #: What ends each message in `complete`.
    separator: ClassVar[bytes] = b"\n\n"

    __slots__ = ("_held", "_held_size", "_known", "_max", "_needed", "error")

    def __init__(self, event_bytes: int) -> None:
        self._max = event_bytes
        self._held: list[bytes] = []  # the pieces of a message that is not complete
        self._held_size = 0
        self._needed = PRELUDE  # how many bytes it takes to know more than now
        self._known: dict[bytes, tuple[bytes, bytes]] = {}  # header blocks that have been read
        self.error: StreamfoldError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that `data` completes."""
        return [self.read(block) for block in self.split(self.complete(data))]

    def complete(self, data: bytes) -> bytes:
        """The messages that `data` completes, each with the separator."""
        if self.error is not None or not data:
            return b""
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size < self._needed:
            return b""
        if len(self._held) > 1:
            data = b"".join(self._held)
        self._held.clear()
        events: list[bytes] = []
        rest = data[self._read(data, events) :]
        self._held_size = len(rest)
        if rest and self.error is None:
            self._held.append(rest)
        return b"".join(events)

    def _read(self, data: bytes, events: list[bytes]) -> int:
        """Write the complete messages of `data` to `events`. Where the last of them ends; the next
        one is checked as far as it is there."""
        place, size, known, most = 0, len(data), self._known, self._max + _LEAST
        while size - place >= PRELUDE:
            total, headers, checksum = _prelude(data, place)
            if crc32(data[place : place + 8]) != checksum:
                self._damaged("the prelude")
                return place
            if not _LEAST <= total - headers <= most or headers > MAX_HEADERS:
                self.error = self._impossible(total, headers)
                return place
            end = place + total
            if end > size:
                self._needed = total
                return place
            if crc32(data[place : end - 4]) != _number(data, end - 4)[0]:
                self._damaged("a message")
                return place
            start = place + PRELUDE + headers
            raw = data[place + PRELUDE : start]
            around = known.get(raw) or self._headers(raw)
            if around is None:
                return place
            payload = data[start : end - 4]
            if _LF in payload:
                payload = payload.replace(b"\n", b" ")  # in JSON, it can only stand between tokens
            events += (around[0], payload or around[1], b"\n\n")
            place = end
        self._needed = PRELUDE
        return place

    def split(self, complete: bytes) -> list[bytes]:
        """The bytes of each message."""
        blocks = complete.split(b"\n\n")
        blocks.pop()
        return blocks

    def read(self, block: bytes) -> Frame:
        """The frame of a message."""
        name, _, data = block.partition(b"\ndata: ")
        return Frame(name[7:].decode(), data)

    def close(self) -> bytes:
        """The bytes have ended. Half a message says nothing."""
        self._held.clear()
        return b""

    def _impossible(self, total: int, headers: int) -> StreamfoldError:
        """Why no message can have these lengths."""
        if headers > MAX_HEADERS or total < _LEAST + headers:
            return StreamProtocolError(
                f"a message claims {total} bytes, {headers} of them headers: expected at least "
                f"{_LEAST} besides the headers, and at most {MAX_HEADERS} of headers"
            )
        return SizeLimitError(f"an event is larger than Limits.event_bytes ({self._max} bytes)")

    def _damaged(self, what: str) -> None:
        self.error = StreamProtocolError(
            f"the checksum of {what} of the stream is wrong: the stream is damaged"
        )

    def _headers(self, raw: bytes) -> tuple[bytes, bytes] | None:
        """What to write before the payload, and instead of it if there is none."""
        try:
            headers = read_headers(raw)
        except (ValueError, IndexError, struct.error) as error:
            self.error = StreamProtocolError(f"the headers of a message are unreadable: {error}")
            return None
        around = _event_line(headers), _no_payload(headers)
        if len(self._known) < _MAX_KNOWN:
            self._known[raw] = around
        return around


#: The header that says what a message of this type is.
_NAMES: Final = {
    "event": ":event-type",
    "exception": ":exception-type",
    "error": ":error-code",
}


def _event_line(headers: Mapping[str, str]) -> bytes:
    kind = headers.get(":message-type", "event")
    name = headers.get(_NAMES.get(kind, ""), "")
    kind, name = (" ".join(each.split()) for each in (kind, name))  # on one line, whatever they are
    event = name if kind == "event" else f"{kind}:{name}"
    return f"event: {event}\ndata: ".encode()


def _no_payload(headers: Mapping[str, str]) -> bytes:
    """An error has no payload, its text is in a header."""
    text = headers.get(":error-message")
    return b"{}" if text is None else msgspec.json.encode({"message": text})


def read_headers(raw: bytes) -> dict[str, str]:
    """The headers whose values are strings, which all are that matter here. The others are checked
    and passed over. Raises ValueError, IndexError or struct.error for what is no header block."""
    headers: dict[str, str] = {}
    seen: set[str] = set()
    place = 0
    while place < len(raw):
        name, place = _sized(raw, place + 1, raw[place])
        kind = raw[place]
        place += 1
        size = _VALUE_SIZES.get(kind)
        if kind in (_BYTES, _STRING):
            size = struct.unpack_from("!H", raw, place)[0]
            place += 2
        if size is None:
            raise ValueError(f"a value has the type {kind}: expected 0 to 9")
        value, place = _sized(raw, place, size)
        key = name.decode()
        if key in seen:
            raise ValueError(f"{key} is there twice")
        seen.add(key)
        if kind == _STRING:
            headers[key] = value.decode()
    return headers


def _sized(raw: bytes, place: int, size: int) -> tuple[bytes, int]:
    end = place + size
    if end > len(raw):
        raise ValueError(f"a value of {size} bytes goes past the end of the headers")
    return raw[place:end], end


def encode_message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message as it travels, with string headers: for servers that play AWS in tests."""
    written = b"".join(
        bytes([len(name)]) + name + bytes([_STRING]) + struct.pack("!H", len(value)) + value
        for name, value in ((k.encode(), v.encode()) for k, v in headers.items())
    )
    lengths = struct.pack("!II", _LEAST + len(written) + len(payload), len(written))
    message = lengths + struct.pack("!I", crc32(lengths)) + written + payload
    return message + struct.pack("!I", crc32(message))
