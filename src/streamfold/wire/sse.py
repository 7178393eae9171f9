"""Server-sent events: bytes in, frames out, cut wherever the network cut them.

The plan: line ends become LF as they arrive, events are cut at blank lines, and an event that is
just `data:`, or `event:` and `data:`, is read here, as bytes. That is nearly all that providers
send. Every other event (comments inside, several data lines, id, retry, fields without a colon)
goes through httpx-sse, the authority on the grammar. Two departures, where the WHATWG rules win:
a byte-order mark is dropped, and so is an event without data.

Rules: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec

from ..errors import SizeLimitError, StreamfoldError, StreamProtocolError

__all__ = ["Frame", "SSEFramer"]

_BOM: Final = b"\xef\xbb\xbf"
_BLANK_LINES: Final = re.compile(rb"\n{3,}")
_TINY: Final = 16  # bytes of a block in which hardly anything can be said


class Frame(msgspec.Struct, gc=False):
    """One event: its name (None where it has none) and its data."""

    event: str | None
    data: bytes


class SSEFramer:
    """`feed` bytes, get frames. After a failure `error` is set and nothing more comes out."""

    #: What ends each event in `complete`.
    separator: ClassVar[bytes] = b"\n\n"

    __slots__ = ("_head", "_held", "_held_size", "_max", "_skip_lf", "_stopped", "error")

    def __init__(self, event_bytes: int) -> None:
        self._max = event_bytes
        self._head: bytes | None = b""  # the first bytes, while they may be a byte-order mark
        self._held: list[bytes] = []  # the pieces of an event that is not complete
        self._held_size = 0
        self._skip_lf = False  # the last read ended in CR: an LF that follows belongs to it
        self._stopped = False  # an event could not be read: those behind it are not looked at
        self.error: StreamfoldError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The events that `data` completes."""
        frames = (self.read(block) for block in self.cut(data))
        return [frame for frame in frames if frame is not None]

    def cut(self, data: bytes) -> list[bytes]:
        """The blocks that `data` completes, without their blank lines. Give each to `read`."""
        return self.split(self.complete(data))

    def complete(self, data: bytes) -> bytes:
        """The events that `data` completes, as they came, blank lines included; lines end in LF."""
        if self._head is not None:
            data = self._without_bom(data)
        if self._skip_lf or b"\r" in data:
            data = self._only_lf(data)
        if not data or self.error is not None:
            return b""
        ends = data.endswith(b"\n\n")  # as nearly all reads do
        if not ends and not self._ends_an_event(data):
            self._hold(data)
            return b""
        if self._held:
            self._held.append(data)
            data = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
        if not ends:
            end = data.rfind(b"\n\n") + 2
            if end < len(data):
                self._hold(data[end:])
                data = data[:end]
        return data

    def split(self, complete: bytes) -> list[bytes]:
        """The bytes of each event."""
        if b"\n\n\n" in complete:  # blank lines and nothing between them: there may be very many
            complete = _BLANK_LINES.sub(b"\n\n", complete)
        blocks = complete.split(b"\n\n")
        blocks.pop()
        if len(blocks) * _TINY > len(complete) <= self._max:  # a flood of comments and the like
            return [block for block in blocks if b"data" in block or b"{" in block]
        return blocks

    def read(self, block: bytes) -> Frame | None:
        """The event of a block; None if there is none in it, or if it or one before it failed."""
        if self._stopped:
            return None
        if len(block) > self._max + block.startswith(b"\n"):
            self._stop(self._too_large())
            return None
        if block.startswith(b"data: ") and b"\n" not in block:
            return Frame(None, block[6:])
        return self._odd(block)

    def close(self) -> bytes:
        """The bytes have ended. An event without its blank line is dropped, as the rules say."""
        self._held.clear()
        return b""

    def _stop(self, error: StreamfoldError) -> None:
        self.error = error
        self._stopped = True

    def _odd(self, block: bytes) -> Frame | None:
        """Any event but the plainest; None if there is nothing in it."""
        block = block.strip(b"\n")
        if block.startswith(b"event: "):
            name, _, rest = block.partition(b"\n")
            if rest.startswith(b"data: ") and b"\n" not in rest:
                event = name[7:].decode("utf-8", "replace")
                return Frame(None if event in ("", "message") else event, rest[6:])
        if b"\n" not in block:
            if not block or block.startswith(b":"):
                return None
            if block.startswith(b"data:"):
                return Frame(None, block[6:] if block.startswith(b"data: ") else block[5:])
        return self._by_the_book(block)

    def _by_the_book(self, block: bytes) -> Frame | None:
        lines = [line for line in block.split(b"\n") if not line.startswith(b":")]
        if not any(line == b"data" or line.startswith(b"data:") for line in lines):
            return None
        try:
            b"\n".join(lines).decode("utf-8")
        except UnicodeDecodeError as error:
            self._stop(StreamProtocolError(f"the stream is not UTF-8: {error}"))
            return None
        import httpx
        import httpx_sse

        response = httpx.Response(
            200,
            headers={"content-type": "text/event-stream"},
            content=b"\n".join(lines) + b"\n\n",
        )
        event = next(httpx_sse.EventSource(response).iter_sse())  # there is a line of data
        return Frame(None if event.event == "message" else event.event, event.data.encode())

    # ---- cutting -------------------------------------------------------------------------------

    def _ends_an_event(self, data: bytes) -> bool:
        if b"\n\n" in data:
            return True
        return bool(self._held) and data.startswith(b"\n") and self._held[-1].endswith(b"\n")

    def _hold(self, data: bytes) -> None:
        if not self._held:
            data = data.lstrip(b"\n")  # further blank lines before an event belong to none
            if not data:
                return
        self._held.append(data)
        self._held_size += len(data)
        # A line end may turn out to be the first of the two that end the event.
        if self._held_size - data.endswith(b"\n") > self._max:
            self.error = self._too_large()
            self._held.clear()

    def _too_large(self) -> SizeLimitError:
        return SizeLimitError(f"an event is larger than Limits.event_bytes ({self._max} bytes)")

    def _only_lf(self, data: bytes) -> bytes:
        if self._skip_lf and data:
            self._skip_lf = False
            if data.startswith(b"\n"):
                data = data[1:]
        plain = b"\n\n".join(data.split(b"\r\n\r\n"))  # faster than replacing
        if b"\r" in plain:
            self._skip_lf = data.endswith(b"\r")
            plain = b"\n".join(data.split(b"\r\n")).replace(b"\r", b"\n")
        return plain

    def _without_bom(self, data: bytes) -> bytes:
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)
