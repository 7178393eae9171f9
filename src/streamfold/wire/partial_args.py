"""Tool arguments that come as values at paths, written as JSON text.

Gemini may stream the arguments of a call as a list of ``{"jsonPath": "$.place.city", "stringValue":
"Par", "willContinue": true}``. They come in the order of the document they describe, for the model
writes one; so the text can be written as they come, and its pieces add up to the JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["ArgsWriter"]

#: A step of a path: ``.name``, ``[0]``, ``['name']`` or ``["name"]`` (RFC 9535).
_STEP: Final = re.compile(
    r"""\.([^.\[\]]+)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""", re.S
)
_ESCAPED: Final = re.compile(r"\\(.)", re.S)

Path = list[str | int]


class ArgsWriter:
    """`write` the partial values of one call as they come, `close` at its end. Both return the
    piece of JSON text that is due, and raise ValueError for what cannot be part of one object."""

    __slots__ = ("_in_string", "_keys", "_path")

    def __init__(self) -> None:
        self._path: Path = []  # of the value that was written last
        self._keys: list[set[str]] = []  # the keys there are in each open object on the way to it
        self._in_string = False

    @property
    def started(self) -> bool:
        """Whether anything has been written."""
        return bool(self._path)

    def write(self, pieces: Any) -> str:
        """The text of some values: the `partialArgs` of one part."""
        written = (self._value(piece) for piece in pieces or () if isinstance(piece, Mapping))
        return "".join(written)

    def close(self) -> str:
        """The call is complete: what closes the object."""
        text = self._end_of_string()
        return text + self._end_to(0) if self._path else "{}"

    def _value(self, piece: Mapping[str, Any]) -> str:
        path = _read(piece.get("jsonPath"))
        text = "" if self._in_string and path == self._path else self._move_to(path)
        more = bool(piece.get("willContinue"))
        value = _scalar(piece)
        if not isinstance(value, str):
            return text + self._end_of_string() + json.dumps(value)
        quoted = json.dumps(value, ensure_ascii=False)
        start, self._in_string = self._in_string, more
        return text + (quoted[1:] if start else quoted)[: -1 if more else None]

    def _end_of_string(self) -> str:
        ended, self._in_string = self._in_string, False
        return '"' if ended else ""

    def _move_to(self, path: Path) -> str:
        """What stands between the value that was written last and the one at `path`."""
        last, shared = self._path, 0
        while shared < min(len(path), len(last)) and path[shared] == last[shared]:
            shared += 1
        if last and (shared == len(path) or shared == len(last)):
            raise ValueError(f"there is a value at {path!r} already, or above or below it")
        text = self._end_of_string()
        if last:
            text += self._end_to(shared + 1) + "," + self._step(path[shared], last[shared])
        for depth in range(shared + 1 if last else 0, len(path)):
            step = path[depth]
            text += "[" if isinstance(step, int) else "{"
            self._keys.append(set())
            text += self._step(step, None)
        self._path = path
        return text

    def _step(self, step: str | int, before: str | int | None) -> str:
        """The key of a member, or the place of an item, in the innermost open container."""
        if isinstance(step, int):
            if step != (before + 1 if isinstance(before, int) else 0) or isinstance(before, str):
                raise ValueError(f"item {step} of an array does not follow on {before!r}")
            return ""
        if step in self._keys[-1] or isinstance(before, int):
            raise ValueError(f"the member {step!r} of an object comes twice, or after an item")
        self._keys[-1].add(step)
        return json.dumps(step, ensure_ascii=False) + ":"

    def _end_to(self, depth: int) -> str:
        """Close the containers below this depth; the one that holds all of them is at depth 0."""
        open_steps = self._path[depth:]
        del self._keys[depth:]
        return "".join("]" if isinstance(step, int) else "}" for step in reversed(open_steps))


def _read(path: Any) -> Path:
    """The steps of a path; the first one is a name, for arguments are an object."""
    text = path if isinstance(path, str) else ""
    steps: Path = []
    place = 1
    while place < len(text):
        match = _STEP.match(text, place)
        if match is None:
            break
        name, item, *quoted = match.groups()
        if item is not None:
            steps.append(int(item))
        else:
            steps.append(name or _ESCAPED.sub(r"\1", next(q for q in quoted if q is not None)))
        place = match.end()
    if not text.startswith("$") or place < len(text) or not steps or isinstance(steps[0], int):
        raise ValueError(f"{path!r} is not the path of a value in an object")
    return steps


def _scalar(piece: Mapping[str, Any]) -> Any:
    """The value. One that is not there is the empty text that ends a string."""
    for key in ("stringValue", "numberValue", "boolValue"):
        if piece.get(key) is not None:
            return piece[key]
    return None if "nullValue" in piece else ""
