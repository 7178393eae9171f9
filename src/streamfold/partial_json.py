"""JSON that is not finished yet, and JSON that must be right.

`best_reading` shows what can be seen of an unfinished document; `strict_object` accepts one
complete JSON object and nothing else, `strict_value` one value of any type; `ObjectScanner` says,
piece by piece and in linear time, whether an object has closed; `nesting` bounds how deep a
document may be.
"""

from __future__ import annotations

import re
from typing import Any, Final

import jiter
import msgspec

__all__ = ["ObjectScanner", "best_reading", "nesting", "strict_object", "strict_value"]

_decode = msgspec.json.Decoder().decode


def strict_object(raw: str, *, max_depth: int = 64) -> dict[str, Any]:
    """The object that `raw` is. Raises ValueError, with the reason, for anything else: other JSON
    types, and what `strict_value` refuses."""
    value = strict_value(raw, max_depth=max_depth)
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {_kind(value)}")
    return value


def strict_value(raw: str, *, max_depth: int = 64) -> Any:
    """The value that `raw` is. Raises ValueError, with the reason, for anything else: text before
    or after, NaN, Infinity, half surrogates, more than `max_depth` levels."""
    if nesting(raw, max_depth) > max_depth:
        raise ValueError(f"nested deeper than {max_depth} levels")
    try:
        return _decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    except UnicodeEncodeError:
        raise ValueError("not valid JSON: half a surrogate pair") from None


def best_reading(raw: str) -> Any:
    """What has arrived of an unfinished document: an unfinished string shows its beginning and a
    number the digits so far, an unfinished key is left out, and what follows a closed document is
    not looked at. Raises ValueError where no continuation could be valid."""
    return jiter.from_json(
        raw.encode("utf-8", "replace"), partial_mode="trailing-strings", allow_inf_nan=False
    )


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


_TOKENS: Final = re.compile(r'["\\{}\[\]]')
# A string (to its end, or to the end of the document) or a bracket; possessive, so linear.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)|[{}\[\]]', re.S)


def nesting(document: str, enough: int = 64) -> int:
    """How deep objects and arrays are nested in `document`; counting stops past `enough`."""
    if document.count("{") + document.count("[") <= enough:
        return 0  # it cannot be deeper than it has brackets
    depth = deepest = 0
    for match in _BRACKETS.finditer(document):
        mark = match.group()
        if mark in "{[":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > enough:
                break
        elif mark in "}]":
            depth -= 1
    return deepest


class ObjectScanner:
    """Follows one JSON object over the pieces in which it arrives. Each character is seen once."""

    __slots__ = ("_depth", "_escaped", "_in_string", "_seen", "closed")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._seen = 0  # pieces scanned so far
        self.closed = False

    def scan(self, pieces: list[str]) -> bool:
        """Whether the object has closed, after all of `pieces`; those seen before are skipped."""
        for piece in pieces[self._seen :]:
            self._scan(piece)
        self._seen = len(pieces)
        return self.closed

    def _scan(self, piece: str) -> None:
        position = 1 if self._escaped and piece else 0
        self._escaped = self._escaped and not piece
        while match := _TOKENS.search(piece, position):
            mark, position = match.group(), match.end()
            if self._in_string:
                if mark == "\\":
                    self._escaped = position == len(piece)
                    position += 1
                elif mark == '"':
                    self._in_string = False
            elif mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                self.closed = self.closed or self._depth == 0
