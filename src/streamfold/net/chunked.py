"""The chunked transfer coding (RFC 9112, section 7.1): what came off the wire in, the body out.

All chunks of a read are taken apart at once, which costs a tenth of what h11 asks for an event per
chunk; servers that stream send a chunk for each token. It is at least as strict as h11.
"""

from __future__ import annotations

import re
from typing import Final

import httpcore

__all__ = ["ChunkedBody"]

_LINE_BYTES: Final = 16 * 1024  # a chunk's header, and all of the trailer

#: The size of a chunk, with the end of the one before it. Extensions mean nothing to us.
_FIRST: Final = re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\r\n]*+)?[ \t]*+\r\n")
_NEXT: Final = re.compile(rb"\r\n" + _FIRST.pattern)
#: The same, as far as it has come.
_FIRST_BEGUN: Final = re.compile(rb"(?:[0-9A-Fa-f]{1,20}+(?:;[^\r\n]*+)?[ \t]*+\r?)?")
_NEXT_BEGUN: Final = re.compile(rb"\r?|\r\n" + _FIRST_BEGUN.pattern)

_FIELD: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\r\n\0]*+\r?\n"
_TRAILER: Final = re.compile(rb"(?:" + _FIELD + rb")*+\r?\n")
_TRAILER_BEGUN: Final = re.compile(rb"(?:" + _FIELD + rb")*+[^\r\n\0]*+\r?")


class ChunkedBody:
    """`feed` bytes, get those of the body. At its end `done` is true and `rest` has what came after
    it; after a failure `error` is set and nothing more comes out."""

    __slots__ = ("_begun", "_header", "_held", "_left", "_trailing", "done", "error", "rest")

    def __init__(self) -> None:
        self._header = _FIRST
        self._begun = _FIRST_BEGUN
        self._held = b""  # a header that is not complete
        self._left = 0  # bytes of a chunk that are to come
        self._trailing = False
        self.done = False
        self.rest = b""
        self.error: httpcore.RemoteProtocolError | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body that `data` brings. Without any, the connection has ended."""
        if self.done or self.error is not None:
            self.rest += data
            return b""
        if not data:
            self._fail(
                "peer closed connection without sending complete message body "
                "(incomplete chunked read)"
            )
            return b""
        if self._left > len(data):
            self._left -= len(data)
            return data
        data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        place = self._left
        if place:
            pieces.append(data[:place])
            self._left = 0
        if not self._trailing:
            place = self._chunks(data, place, pieces)
        if self._trailing:
            self._trailer(data[place:])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _chunks(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        """Add the chunks from `place` on to `pieces`. Where they end in `data`."""
        size = len(data)
        while True:
            header = self._header.match(data, place)
            if header is None:
                self._hold(data[place:])
                return size
            self._header, self._begun = _NEXT, _NEXT_BEGUN
            place = header.end()
            end = place + int(header[1], 16)
            if end == place:
                self._trailing = True
                return place
            pieces.append(data[place:end])
            if end > size:
                self._left = end - size
                return size
            place = end

    def _hold(self, header: bytes) -> None:
        if self._begun.fullmatch(header) is None:
            self._fail(f"illegal chunk header: {header[:40]!r}")
        elif len(header) > _LINE_BYTES:
            self._fail("a chunk header is too long")
        self._held = header

    def _trailer(self, data: bytes) -> None:
        whole = _TRAILER.match(data)
        if whole is not None:
            self.done = True
            self.rest = data[whole.end() :]
        elif _TRAILER_BEGUN.fullmatch(data) is None:
            self._fail("the trailer of the answer is unreadable")
        elif len(data) > _LINE_BYTES:
            self._fail("the trailer of the answer is too long")
        self._held = data

    def _fail(self, message: str) -> None:
        self.error = httpcore.RemoteProtocolError(message)
