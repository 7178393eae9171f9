"""A stream that is one JSON array: bytes in, its elements out, cut wherever the network cut them.

Gemini streams so where it is not asked for server-sent events. The plan: brackets are counted,
strings are skipped, and what lies between two brackets of depth one is an element. An element that
is there as a whole is found by one regular expression, in C. Where it is not, the brackets that
have come are counted, and a string that has not ended is remembered as such, so the next read goes
on where this one ended: no byte is looked at more than twice.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

from ..errors import SizeLimitError, StreamfoldError, StreamProtocolError
from .sse import Frame

__all__ = ["JSONArrayFramer"]

_BETWEEN: Final = b" \t\r\n,"

_LEVELS: Final = 12  # how deep an element may be nested to be found in one go

#: The inside of a string, up to its closing quote or as far as it has come.
_INSIDE: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.S)
#: Anything but brackets, strings as a whole.
_PLAIN: Final = rb'[^{}\[\]"]*+(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"[^{}\[\]"]*+)*+'
_TO_BRACKET: Final = re.compile(_PLAIN + rb"([{}\[\]])", re.S)
_TO_QUOTE: Final = re.compile(_PLAIN + rb'"', re.S)


def _nested(levels: int) -> bytes:
    pattern = rb"[{\[]" + _PLAIN + rb"[}\]]"
    for _ in range(levels):
        pattern = rb"[{\[]" + _PLAIN + rb"(?:" + pattern + _PLAIN + rb")*+[}\]]"
    return pattern


#: A whole element and what stands before it.
_ELEMENT: Final = re.compile(rb"[ \t\r\n,]*+(" + _nested(_LEVELS) + rb")", re.S)


class JSONArrayFramer:
    """`feed` bytes, get frames. After a failure `error` is set and nothing more comes out."""

    #: What ends each element in `complete`: a byte that no valid JSON has outside of escapes.
    separator: ClassVar[bytes] = b"\x1e"

    __slots__ = (
        "_depth",
        "_escaped",
        "_held",
        "_held_size",
        "_in_string",
        "_max",
        "_over",
        "error",
    )

    def __init__(self, event_bytes: int) -> None:
        self._max = event_bytes
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last read ended in a backslash: what follows belongs to it
        self._over = False  # the array has been closed: nothing that follows counts
        self._held: list[bytes] = []  # the pieces of an element that is not complete
        self._held_size = 0
        self.error: StreamfoldError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The elements that `data` completes."""
        return [self.read(block) for block in self.split(self.complete(data))]

    def complete(self, data: bytes) -> bytes:
        """The elements that `data` completes, each with a separator after it."""
        elements = self._elements(data)
        if not elements:
            return b""
        complete = self.separator.join((*elements, b""))
        if complete.count(self.separator) == len(elements):
            return complete
        # It is in a string as it is. That is not valid JSON, but readers may forgive it.
        escaped = (element.replace(self.separator, b"\\u001e") for element in elements)
        return self.separator.join((*escaped, b""))

    def split(self, complete: bytes) -> list[bytes]:
        """The bytes of each element."""
        blocks = complete.split(self.separator)
        blocks.pop()
        if len(complete) > self._max:
            for place, block in enumerate(blocks):
                if len(block) > self._max:
                    self.error = self._too_large()
                    return blocks[:place]
        return blocks

    def read(self, block: bytes) -> Frame:
        """The element as a frame; it has no name."""
        return Frame(None, block)

    def close(self) -> bytes:
        """The bytes have ended. An element that is not complete is dropped."""
        self._held.clear()
        return b""

    # ---- cutting -------------------------------------------------------------------------------

    def _elements(self, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        if self.error is not None or self._over:
            return found
        place = after = self._end_of_string(data) if self._in_string else 0
        start = 0  # where the element at hand begins in `data`
        while True:
            while self._depth == 1 and (whole := _ELEMENT.match(data, place)) is not None:
                found.append(whole[1])
                place = after = whole.end()
            match = _TO_BRACKET.match(data, place)
            if match is None:
                break
            if self._depth <= 1 and not self._is_between(data[after : match.start(1)]):
                return found
            place = after = match.end()
            if match[1] in b"{[":
                self._depth += 1
                if self._depth == 2:
                    start = place - 1
                continue
            self._depth -= 1
            if self._depth == 1:
                found.append(self._whole(data[start:place]))
            elif self._depth <= 0:
                self._over = True
                return found
        if self._depth > 1:
            self._remember(data, place, start)
        else:
            self._is_between(data[after:])
        return found

    def _is_between(self, between: bytes) -> bool:
        """Whether these bytes may stand between two elements; else `error` is set."""
        odd = between.strip(_BETWEEN if self._depth else None)[:1]
        if odd:
            self.error = StreamProtocolError(
                f"the stream is not a JSON array of objects: {odd!r} stands between them"
            )
        return self.error is None

    def _remember(self, data: bytes, place: int, start: int) -> None:
        """What has come of an element, and whether it ends inside a string."""
        if not self._in_string:
            quote = _TO_QUOTE.match(data, place)
            if quote is not None:
                self._in_string = True
                self._end_of_string(data, quote.end())
        self._held.append(data[start:])
        self._held_size += len(data) - start
        if self._held_size > self._max:
            self.error = self._too_large()
            self._held.clear()

    def _end_of_string(self, data: bytes, place: int = 0) -> int:
        """Where the open string has ended in `data`; all of `data` if it has not."""
        if place >= len(data):
            return place  # an empty read: a backslash before it still counts
        if self._escaped:
            self._escaped = False
            place += 1
        match = _INSIDE.match(data, place)
        place = match.end() if match is not None else len(data)
        if data[place : place + 1] == b'"':
            self._in_string = False
            return place + 1
        self._escaped = place < len(data)  # at a backslash with nothing after it
        return len(data)

    def _whole(self, last: bytes) -> bytes:
        if not self._held:
            return last
        self._held.append(last)
        element = b"".join(self._held)
        self._held.clear()
        self._held_size = 0
        return element

    def _too_large(self) -> SizeLimitError:
        return SizeLimitError(f"an event is larger than Limits.event_bytes ({self._max} bytes)")
