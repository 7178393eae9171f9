"""How an error is told to a client: the status, the words, OpenAI's shape of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from ...errors import (
    BudgetExceededError,
    ConfigurationError,
    ProviderError,
    RequestTimeoutError,
    StreamError,
    StreamfoldError,
    TransportError,
    effective_status,
)

__all__ = ["OnError", "Refusal", "openai_error", "refusal_headers", "status_of", "words"]

#: What a client reads of an exception.
OnError: TypeAlias = Callable[[Exception], str]

#: For errors that no provider gave a status to. The first class that fits counts.
_STATUSES: Final[tuple[tuple[type[Exception], int], ...]] = (
    (ConfigurationError, 400),
    (BudgetExceededError, 429),
    (RequestTimeoutError, 504),
    (TransportError, 502),
    (StreamError, 502),
)

#: OpenAI's `type` for a status, where the provider said none.
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}


class Refusal(msgspec.Struct, frozen=True):
    """A whole response that says why there is no stream."""

    status: int
    body: bytes
    media_type: str
    headers: dict[str, str] = {}


def status_of(error: Exception) -> int:
    """The HTTP status that says what `error` says; the provider's own where it gave one."""
    if isinstance(error, ProviderError):
        return effective_status(error.status, error.code, error.type)
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def words(error: Exception, on_error: OnError | None) -> str:
    """What `on_error` says; without it the text of our errors, which holds no key, and of any other
    nothing: it may say what is no client's business."""
    if on_error is not None:
        return on_error(error)
    return str(error) if isinstance(error, StreamfoldError) else "internal error"


def refusal_headers(error: Exception) -> dict[str, str]:
    """What the server asked to wait, and whether the same request is any use: clients that retry by
    themselves read both (OpenAI's SDKs do)."""
    retry_after = getattr(error, "retry_after", None)
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    if not getattr(error, "retryable", False):
        headers["x-should-retry"] = "false"
    return headers


def openai_error(error: Exception, text: str, param: str | None = None) -> dict[str, Any]:
    """``{"error": {...}}`` as OpenAI's API has it."""
    status = status_of(error)
    usual = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    fields = {
        "message": text,
        "type": getattr(error, "type", None) or usual,
        "param": param,
        "code": getattr(error, "code", None),
    }
    return {"error": fields}
