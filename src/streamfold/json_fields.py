"""The fields of a JSON object while it arrives.

A `FieldReader` is fed the pieces of a document and tells of each field and list element once it is
complete: a text with its closing quote, a number with what comes after it, an object or a list
after all that is in it. Each character is looked at once, whatever the pieces.

It reads what is well formed and stops at the first thing that is not: whether the document is
right is for its strict reading to say, when all of it is there.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = ["Field", "FieldReader", "Path"]

#: Where a value is: the keys and list indexes that lead to it from the outermost object.
Path: TypeAlias = tuple[str | int, ...]
Field: TypeAlias = tuple[Path, Any]

_decode = msgspec.json.Decoder().decode
_IN_STRING: Final = re.compile(r'["\\]')
_OUTSIDE: Final = re.compile(r'["{}\[\],:]')
#: What models write before JSON that they were asked for in words.
_LEAD: Final = re.compile(r"\s*(?:```(?:json)?\s*)?")
_DEEPEST: Final = 64


class _Malformed(Exception):
    pass


class FieldReader:
    """Reads one object, piece by piece; see the module."""

    def __init__(self) -> None:
        self._parts: list[str] = []  # of the token that is still open
        self._in_string = False
        self._escaped = False
        self._open: list[dict[str, Any] | list[Any]] = []
        self._path: list[Any] = []  # in each open container, the key or index of what comes next
        # `first` is `key` or `value` right after the bracket, where it may also close again
        self._expects: Literal["start", "first", "key", "colon", "value", "after", "nothing"]
        self._expects = "start"
        self._found: list[Field] = []

    def feed(self, piece: str) -> list[Field]:
        """The fields that are complete with `piece`, inner ones before those that hold them."""
        if self._expects == "nothing":
            return []
        self._found = []
        try:
            self._scan(piece)
        except (_Malformed, msgspec.DecodeError, ValueError, RecursionError):
            self._expects = "nothing"
        return self._found

    def _scan(self, piece: str) -> None:
        start = position = 0
        if self._escaped and piece:
            position, self._escaped = 1, False
        while match := (_IN_STRING if self._in_string else _OUTSIDE).search(piece, position):
            mark, position = match.group(), match.end()
            if mark == "\\":
                self._escaped = position == len(piece)
                position += 1
                continue
            self._parts.append(piece[start : match.start()])
            start = position
            token = "".join(self._parts)
            self._parts.clear()
            if self._in_string:
                self._string(token)
            else:
                self._mark(mark, token)
            if self._expects == "nothing":
                return
        self._parts.append(piece[start:])

    def _string(self, token: str) -> None:
        self._in_string = False
        text = _decode(f'"{token}"')
        if self._expects == "key" or (self._expects == "first" and self._in_object):
            self._path[-1] = text
            self._expects = "colon"
        else:
            self._complete(text)

    def _mark(self, mark: str, before: str) -> None:
        """A mark outside of strings, and what stood between it and the mark before."""
        if self._expects == "start":
            if mark != "{" or not _LEAD.fullmatch(before):
                raise _Malformed
        elif before.strip():
            if mark not in ",]}":
                raise _Malformed
            self._complete(_decode(before))
        _MARKS[mark](self, mark)

    @property
    def _in_object(self) -> bool:
        return isinstance(self._open[-1], dict)

    def _expect(self, *states: str) -> None:
        if self._expects not in states:
            raise _Malformed

    def _quote(self, mark: str) -> None:
        self._expect("first", "key", "value")
        self._in_string = True

    def _begin(self, mark: str) -> None:
        if not (self._expects == "first" and not self._in_object):
            self._expect("start", "value")
        if len(self._open) == _DEEPEST:
            raise _Malformed
        self._open.append({} if mark == "{" else [])
        self._path.append(None if mark == "{" else 0)
        self._expects = "first"

    def _end(self, mark: str) -> None:
        self._expect("first", "after")
        if self._in_object is not (mark == "}"):
            raise _Malformed
        self._path.pop()
        whole = self._open.pop()
        if self._open:
            self._expects = "value"
            self._complete(whole)
        else:
            self._expects = "nothing"

    def _comma(self, mark: str) -> None:
        self._expect("after")
        if self._in_object:
            self._expects = "key"
        else:
            self._path[-1] += 1
            self._expects = "value"

    def _colon(self, mark: str) -> None:
        self._expect("colon")
        self._expects = "value"

    def _complete(self, value: Any) -> None:
        if not (self._expects == "first" and not self._in_object):
            self._expect("value")
        container = self._open[-1]
        if isinstance(container, dict):
            container[self._path[-1]] = value
        else:
            container.append(value)
        self._found.append((tuple(self._path), value))
        self._expects = "after"


_MARKS: Final = {
    '"': FieldReader._quote,
    "{": FieldReader._begin,
    "[": FieldReader._begin,
    "}": FieldReader._end,
    "]": FieldReader._end,
    ",": FieldReader._comma,
    ":": FieldReader._colon,
}
