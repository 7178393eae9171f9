"""What is left of a vendor's limits, by the headers of its answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

__all__ = ["Left", "read_left", "seconds"]


class Left(NamedTuple):
    """`remaining` of `limit` (None if not said); `reset`: seconds until all of it is back."""

    remaining: float
    limit: float | None
    reset: float | None


#: OpenAI, Azure, Groq, Fireworks and others; Anthropic; Mistral and Cerebras.
_NAMES: Final = {
    "requests": (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-req-minute",
    ),
    "tokens": (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens-minute",
    ),
}
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def read_left(headers: Mapping[str, str]) -> dict[str, Left]:
    """What the headers say, by kind: ``requests`` and ``tokens``.

    What is no number of 0 or more is not said: Azure sends -1 for limits that it does not count.
    """
    return {
        kind: left
        for kind, names in _NAMES.items()
        for left in [next(filter(None, (_left(headers, name) for name in names)), None)]
        if left is not None
    }


def _left(headers: Mapping[str, str], name: str) -> Left | None:
    remaining = _number(headers.get(name.format("remaining")))
    if remaining is None:
        return None
    limit = _number(headers.get(name.format("limit")))
    return Left(remaining, limit, seconds(headers.get(name.format("reset"))))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def seconds(text: str | None, now: datetime | None = None) -> float | None:
    """A time to wait: ``6m0s``, ``20ms``, seconds as a number, or a moment in RFC 3339."""
    text = (text or "").strip().lower()
    plain = _number(text)
    if plain is not None:
        return plain
    if _DURATION.fullmatch(text):
        return sum(float(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    try:
        when = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - (now or datetime.now(UTC))).total_seconds(), 0.0)
