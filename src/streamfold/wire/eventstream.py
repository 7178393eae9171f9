"""AWS event streams: bytes in, frames out, cut wherever the network cut them.

A message on the wire, all numbers big-endian:

    total length (4) | length of the headers (4) | CRC32 of these 8 bytes (4)
    headers | payload | CRC32 of everything before it (4)

The lengths of a prelude are trusted only when its checksum holds, else one flipped bit would have
the reader wait for gigabytes; the rest of a message when the second checksum holds. This reader is
ours because API keys of AWS work without botocore; a property test holds the two equal.

Format: https://docs.aws.amazon.com/transcribe/latest/dg/event-stream.html
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import ClassVar, Final
from zlib import crc32

from ..errors import SizeLimitError, StreamfoldError, StreamProtocolError
from .sse import Frame

__all__ = ["EventMessage", "EventStreamFramer", "encode_message"]

PRELUDE: Final = 12
#: A message without headers and payload: prelude and checksum.
_LEAST: Final = 16
#: What AWS allows, and botocore enforces.
MAX_HEADERS: Final = 128 * 1024

_prelude = struct.Struct("!III").unpack_from
_number = struct.Struct("!I")

#: Bytes of a header's value by its type; strings and byte arrays (6, 7) have a length of their own.
_VALUE_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES: Final = 6
_STRING: Final = 7
#: Streams repeat a handful of header blocks; a stream that does not is not remembered for ever.
_MAX_KNOWN: Final = 64


class EventMessage(Frame, gc=False):
    """One message. `kind` is its `:message-type`: "event", "exception" or "error"; `event` is the
    type of the event or exception, or the code of the error, whose text is `text`."""

    kind: str = "event"
    text: str = ""


class EventStreamFramer:
    """`feed` bytes, get messages. After a failure `error` is set and nothing more comes out."""

    #: Nothing: the length of a message is in its prelude.
    separator: ClassVar[bytes] = b""

    __slots__ = ("_broken", "_held", "_held_size", "_known", "_max", "_needed", "error")

    def __init__(self, event_bytes: int) -> None:
        self._max = event_bytes
        self._held: list[bytes] = []  # the pieces of a message that is not complete
        self._held_size = 0
        self._needed = PRELUDE  # how many bytes it takes to know more than now
        self._known: dict[bytes, dict[str, str]] = {}  # header blocks that have been read
        self._broken = False  # a message could not be read: none after it counts
        self.error: StreamfoldError | None = None

    def feed(self, data: bytes) -> list[EventMessage]:
        """The messages that `data` completes."""
        messages = (self.read(block) for block in self.split(self.complete(data)))
        return [message for message in messages if message is not None]

    def complete(self, data: bytes) -> bytes:
        """The messages that `data` completes, as they came."""
        if self.error is not None or not data:
            return b""
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size < self._needed:
            return b""
        if len(self._held) > 1:
            data = b"".join(self._held)
        self._held.clear()
        end = self._end(data)
        rest = data[end:]
        self._held_size = len(rest)
        if rest and self.error is None:
            self._held.append(rest)
        return data[:end] if rest else data

    def _end(self, data: bytes) -> int:
        """Where the last complete message ends. The next is checked as far as it is there."""
        place = 0
        while len(data) - place >= PRELUDE:
            total = self._length(data, place)
            if total is None:
                return place
            if len(data) - place < total:
                self._needed = total
                return place
            place += total
        self._needed = PRELUDE
        return place

    def _length(self, data: bytes, place: int) -> int | None:
        """The length of the message that begins at `place`; None, with `error`, if it is none."""
        total, headers, checksum = _prelude(data, place)
        if crc32(data[place : place + 8]) != checksum:
            self.error = StreamProtocolError(
                "the checksum of a message's prelude is wrong: the stream is damaged"
            )
        elif headers > MAX_HEADERS or total < _LEAST + headers:
            self.error = StreamProtocolError(
                f"a message claims {total} bytes of which {headers} are headers: expected at least "
                f"{_LEAST} besides the headers, and at most {MAX_HEADERS} of headers"
            )
        elif total - _LEAST - headers > self._max:
            self.error = SizeLimitError(
                f"an event is larger than Limits.event_bytes ({self._max} bytes)"
            )
        return total if self.error is None else None

    def split(self, complete: bytes) -> list[bytes]:
        """The bytes of each message."""
        blocks = []
        place = 0
        while place < len(complete):
            end = place + _number.unpack_from(complete, place)[0]
            blocks.append(complete[place:end])
            place = end
        return blocks

    def read(self, block: bytes) -> EventMessage | None:
        """The message of a block; None, with `error`, if it is damaged."""
        if self._broken:
            return None
        if crc32(block[:-4]) != _number.unpack_from(block, len(block) - 4)[0]:
            self._fail("the checksum of a message is wrong: the stream is damaged")
            return None
        start = PRELUDE + _number.unpack_from(block, 4)[0]
        headers = self._headers(block[PRELUDE:start])
        if headers is None:
            return None
        payload = block[start:-4]
        kind = headers.get(":message-type", "event")
        name = headers.get(_NAMES.get(kind, ":event-type"))
        return EventMessage(name, payload, kind, headers.get(":error-message", ""))

    def close(self) -> bytes:
        """The bytes have ended. Half a message says nothing."""
        self._held.clear()
        return b""

    def _headers(self, raw: bytes) -> dict[str, str] | None:
        known = self._known.get(raw)
        if known is not None:
            return known
        try:
            headers = read_headers(raw)
        except (ValueError, IndexError, struct.error) as error:
            self._fail(f"the headers of a message are unreadable: {error}")
            return None
        if len(self._known) < _MAX_KNOWN:
            self._known[raw] = headers
        return headers

    def _fail(self, message: str) -> None:
        self._broken = True
        self.error = StreamProtocolError(message)


#: The header that says what a message of this type is.
_NAMES: Final = {
    "event": ":event-type",
    "exception": ":exception-type",
    "error": ":error-code",
}


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
    message = lengths + _number.pack(crc32(lengths)) + written + payload
    return message + _number.pack(crc32(message))
