"""Keys that cannot be printed by accident, and text cleaned of the keys that others echo.

`Secret` shows ``***`` wherever it is turned into text; only the code that builds request headers
calls `reveal`. `redact` cleans text that came from outside (an error body that quotes the key).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NoReturn

__all__ = ["MASK", "Secret", "redact"]

MASK: Final = "***"

# Shapes that are keys whoever they belong to; the caller's own keys are cleaned by value.
_KEY_SHAPES: Final = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_\-]{16,}|AIza[A-Za-z0-9_\-]{30,}|hf_[A-Za-z0-9]{20,}"
    r"|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})"
    r"|(?i:(?<=bearer )[A-Za-z0-9_\-.=+/]{12,})"
)


class Secret:
    """A key. `repr`, `str`, `format`, pickling and copying never show it; `reveal()` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the request header and nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: pass the key again where it is needed")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Secret:
        return self


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` with every one of `secrets`, and whatever has the shape of a key, replaced by ***."""
    for secret in secrets:
        if len(secret) >= 4:  # a shorter "key" would blank out ordinary words
            text = text.replace(secret, MASK)
    return _KEY_SHAPES.sub(MASK, text)
