"""Newline-delimited JSON: bytes in, a frame per line out, cut wherever the network cut them.

Lines end in LF; the CR of a CRLF before it is white space to JSON and stays. Blank lines say
nothing. The last line may lack its newline, but counts only if it is complete JSON: half a line
means that the stream broke off.
"""

from __future__ import annotations

import json
from typing import ClassVar, Final

import msgspec

from ..errors import SizeLimitError, StreamfoldError
from .sse import Frame

__all__ = ["NDJSONFramer", "is_json"]

_BOM: Final = b"\xef\xbb\xbf"
_loads = msgspec.json.Decoder().decode


class NDJSONFramer:
    """`feed` bytes, get frames. After a failure `error` is set and nothing more comes out."""

    #: What ends each line in `complete`.
    separator: ClassVar[bytes] = b"\n"

    __slots__ = ("_held", "_held_size", "_max", "error")

    def __init__(self, event_bytes: int) -> None:
        self._max = event_bytes
        self._held: list[bytes] = []  # the pieces of a line that is not complete
        self._held_size = 0
        self.error: StreamfoldError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The lines that `data` completes."""
        frames = (self.read(block) for block in self.split(self.complete(data)))
        return [frame for frame in frames if frame is not None]

    def complete(self, data: bytes) -> bytes:
        """The lines that `data` completes, as they came."""
        if self.error is not None:
            return b""
        end = data.rfind(b"\n") + 1
        if not end:
            self._hold(data)
            return b""
        lines, rest = data[:end], data[end:]
        if self._held:
            self._held.append(lines)
            lines = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
        self._hold(rest)
        return lines

    def split(self, complete: bytes) -> list[bytes]:
        """The bytes of each line, without its newline."""
        lines = complete.split(b"\n")
        lines.pop()
        return self._small_enough(lines) if len(complete) > self._max else lines

    def read(self, block: bytes) -> Frame | None:
        """The frame of a line; None if it is blank."""
        if block.startswith(_BOM):
            block = block[3:]
        return Frame(None, block) if block.strip() else None

    def close(self) -> bytes:
        """The bytes have ended: the last line, if it is there in full but for its newline."""
        line = b"".join(self._held)
        self._held.clear()
        return line + b"\n" if self.error is None and is_json(line) else b""

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > self._max:
            self.error = self._too_large()
            self._held.clear()

    def _small_enough(self, lines: list[bytes]) -> list[bytes]:
        for place, line in enumerate(lines):
            if len(line) > self._max:
                self.error = self._too_large()
                return lines[:place]
        return lines

    def _too_large(self) -> SizeLimitError:
        return SizeLimitError(f"an event is larger than Limits.event_bytes ({self._max} bytes)")


def is_json(line: bytes) -> bool:
    """Whether `line` is complete JSON."""
    try:
        _loads(line.removeprefix(_BOM))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _is_odd_json(line)
    except RecursionError:
        pass  # deep, and whether it is too deep the decoder says
    return True


def _is_odd_json(line: bytes) -> bool:
    """JSON that msgspec rejects and the decoder reads all the same: half surrogates, NaN."""
    try:
        json.loads(line, strict=False)
    except (ValueError, RecursionError):
        return False
    return True
