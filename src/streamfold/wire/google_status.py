"""What Google's errors say in their `details`: why, and when to come back.

All of Google's APIs report errors as `google.rpc.Status`: a code, a status word, a message, and
details of known types (https://cloud.google.com/apis/design/errors).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["status_pause", "status_reason"]

_TYPES: Final = "type.googleapis.com/google.rpc."


def status_reason(error: Mapping[str, Any]) -> str | None:
    """The word that says best what was wrong: a reason such as API_KEY_INVALID, or the quota that
    is used up."""
    for detail in _details(error, "ErrorInfo"):
        if isinstance(detail.get("reason"), str):
            return str(detail["reason"])
    for detail in _details(error, "QuotaFailure"):
        violations = detail.get("violations")
        found = (
            violation["quotaId"]
            for violation in (violations if isinstance(violations, list) else ())
            if isinstance(violation, dict) and isinstance(violation.get("quotaId"), str)
        )
        # A daily quota outlasts any pause, so it counts before one per minute.
        return min(found, key=lambda quota: "PerDay" not in quota, default=None)
    return None


def status_pause(error: Any) -> float | None:
    """Seconds to wait before the next attempt, as `RetryInfo` has them: "34.4s"."""
    for detail in _details(error, "RetryInfo") if isinstance(error, Mapping) else ():
        delay = detail.get("retryDelay")
        try:
            seconds = float(delay.removesuffix("s")) if isinstance(delay, str) else math.nan
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    return None


def _details(error: Mapping[str, Any], kind: str) -> Iterator[Mapping[str, Any]]:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and detail.get("@type") == _TYPES + kind:
            yield detail
