"""Token usage: its shape and its arithmetic.

`input_tokens` includes cached tokens and `output_tokens` includes reasoning, whatever the vendor
does. Detail keys are there only where the vendor reports them; reported zeros are kept.

An answer that was cancelled or broke off has the figures that had been reported until then, which
vendors bill at least: its ``response_metadata["usage_is_partial"]`` is True.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict

__all__ = [
    "USAGE_IS_PARTIAL",
    "UsageMetadata",
    "add_usage",
    "make_usage",
    "token_count",
    "total_usage",
]

#: The field of `response_metadata` that says so.
USAGE_IS_PARTIAL: Final = "usage_is_partial"


class UsageMetadata(TypedDict, total=False):
    """Tokens of one answer, or of many added up."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: dict[str, int]
    output_token_details: dict[str, int]


_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS = ("input_token_details", "output_token_details")


def make_usage(
    input_tokens: int | None,
    output_tokens: int | None,
    total_tokens: int | None = None,
    *,
    input_details: Mapping[str, int | None] | None = None,
    output_details: Mapping[str, int | None] | None = None,
) -> UsageMetadata:
    """Usage from a vendor's figures; None, and what is no count, means "not reported" and becomes 0
    or is left out."""
    into, out = token_count(input_tokens) or 0, token_count(output_tokens) or 0
    total = token_count(total_tokens)
    usage: UsageMetadata = {
        "input_tokens": into,
        "output_tokens": out,
        "total_tokens": into + out if total is None else total,
    }
    reported_in = _reported(input_details)
    if reported_in:
        usage["input_token_details"] = reported_in
    reported_out = _reported(output_details)
    if reported_out:
        usage["output_token_details"] = reported_out
    return usage


def _reported(details: Mapping[str, int | None] | None) -> dict[str, int]:
    return {key: value for key, value in (details or {}).items() if type(value) is int}


def token_count(value: object) -> int | None:
    """`value` if it is a count; a vendor may send anything."""
    return value if type(value) is int else None


def add_usage(left: UsageMetadata | None, right: UsageMetadata | None) -> UsageMetadata | None:
    """The sum of two usages, for totals over messages. None is "nothing reported"."""
    if left is None or right is None:
        return right if left is None else left
    a: Mapping[str, Any] = left
    b: Mapping[str, Any] = right
    out: dict[str, Any] = {key: a.get(key, 0) + b.get(key, 0) for key in _COUNTS}
    for name in _DETAILS:
        one, two = a.get(name), b.get(name)
        if one is not None or two is not None:
            one, two = one or {}, two or {}
            out[name] = {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
    return out  # type: ignore[return-value]


def total_usage(usages: Iterable[UsageMetadata | None]) -> UsageMetadata | None:
    """All of `usages` added up; None if none was reported."""
    total: UsageMetadata | None = None
    for usage in usages:
        total = add_usage(total, usage)
    return total
