"""The error tree.

    StreamfoldError                      has .partial: the message folded so far, or None
    ├── ConfigurationError               the caller's mistake, found before any request
    │   ├── UnknownParameterError        (also a TypeError)
    │   └── JournalError                 the journal of a batch cannot be used, or not go on
    ├── ProviderError                    the provider said no, by HTTP status or inside a stream
    │   ├── InvalidRequestError          400 and every other 4xx not named here
    │   │   ├── ContextOverflowError     the prompt is too long for the model
    │   │   └── ContentFilterError       the prompt was blocked and nothing was answered
    │   ├── AuthenticationError          401
    │   ├── PermissionDeniedError        403
    │   ├── NotFoundError                404
    │   ├── RateLimitError               429
    │   ├── OverloadedError              503, 529
    │   └── ServerError                  any other 5xx
    ├── TransportError                   the network
    │   ├── ConnectError                 no connection, or it broke before an answer
    │   ├── RedirectRefusedError         a 3xx answer: it is never followed
    │   └── RequestTimeoutError          .limit: connect, first_event, idle or total
    ├── StreamError                      the answer itself is broken
    │   ├── StreamInterruptedError       ended with neither finish reason nor end marker
    │   ├── StreamProtocolError          unreadable: not JSON, not UTF-8, not this dialect
    │   └── SizeLimitError               past one of `Limits`
    ├── BudgetExceededError              a `Budget` is used up; .limit says which figure
    ├── StructuredOutputError            the answer does not fit the schema; .raw has the message
    ├── ToolException                    raised by a tool to tell the model what went wrong
    └── RecursionLimitError              runnables nested deeper than `recursion_limit`

Errors hold plain data only (never a request, a response or a key) and survive pickling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from .messages import AIMessage

__all__ = [
    "AuthenticationError",
    "BudgetExceededError",
    "ConfigurationError",
    "ConnectError",
    "ContentFilterError",
    "ContextOverflowError",
    "InvalidRequestError",
    "JournalError",
    "NotFoundError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProviderError",
    "RateLimitError",
    "RecursionLimitError",
    "RedirectRefusedError",
    "RequestTimeoutError",
    "ServerError",
    "SizeLimitError",
    "StreamError",
    "StreamInterruptedError",
    "StreamProtocolError",
    "StreamfoldError",
    "StructuredOutputError",
    "ToolException",
    "TransportError",
    "UnknownParameterError",
    "provider_error",
]

MAX_MESSAGE: Final = 500  # characters of a vendor's message that str(error) shows


class StreamfoldError(Exception):
    """Base of every error that streamfold raises on purpose."""

    #: What had been received when it broke, folded; None if nothing had.
    partial: AIMessage | None = None
    #: Whether the same call may succeed if it is made again.
    retryable: bool = False
    #: Seconds that the server asked to wait, if it did.
    retry_after: float | None = None

    def __init__(self, message: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.__dict__.update(fields)

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""


class ConfigurationError(StreamfoldError, ValueError):
    """A parameter, message or setting that cannot be right. Nothing was sent."""


class UnknownParameterError(ConfigurationError, TypeError):
    """A parameter that neither streamfold nor the vendor knows; the text suggests the nearest."""


class JournalError(ConfigurationError):
    """The journal of a batch is another batch's, in use, or no journal: nothing was sent then. Or a
    result cannot be written to it, which ends the batch; the results are in `finished`, as ever."""


class ProviderError(StreamfoldError):
    """The provider answered with an error: as an HTTP status, or as an event inside a stream.

    `status` is the HTTP status (200 for an error inside a stream), `type` and `code` are the
    vendor's own words, `body` is what it sent (at most `Limits.error_body_bytes`, keys removed).
    """

    status: int | None = None
    request_id: str | None = None
    type: str | None = None
    code: str | None = None
    body: str | None = None
    provider: str | None = None
    model: str | None = None

    def __str__(self) -> str:
        text = self.message
        if len(text) > MAX_MESSAGE:
            text = text[:MAX_MESSAGE] + "…"
        where = " ".join(str(part) for part in (self.provider, self.status, self.type) if part)
        return f"[{where}] {text}" if where else text


class InvalidRequestError(ProviderError):
    """The provider rejects the request itself: 400 and the other 4xx."""


class ContextOverflowError(InvalidRequestError):
    """The prompt does not fit the model's context window."""


class ContentFilterError(InvalidRequestError):
    """The prompt was blocked by a content filter, and there is no answer."""


class AuthenticationError(ProviderError):
    """401: the key is missing, wrong or expired."""


class PermissionDeniedError(ProviderError):
    """403: the key may not do this."""


class NotFoundError(ProviderError):
    """404: no such model, deployment or path."""


class RateLimitError(ProviderError):
    """429: too many requests or tokens, or the quota is used up (then `retryable` is False)."""


class OverloadedError(ProviderError):
    """503 or 529: the provider has no capacity now."""


class ServerError(ProviderError):
    """Any other 5xx: the provider failed."""


class TransportError(StreamfoldError):
    """The network failed; no answer, or none that is whole."""


class ConnectError(TransportError):
    """No connection could be made, or it broke before the answer began."""


class RedirectRefusedError(TransportError):
    """The server answered with a redirect. It is not followed: key and prompt would go along."""


class RequestTimeoutError(TransportError, TimeoutError):
    """A time limit of `Timeouts` ran out; `limit` says which and `seconds` how long it was."""

    limit: Literal["connect", "first_event", "idle", "total"] = "total"
    seconds: float | None = None


class StreamError(StreamfoldError):
    """The connection held, but the answer is broken."""


class StreamInterruptedError(StreamError):
    """The answer ended with neither a finish reason nor an end marker: it is cut off."""


class StreamProtocolError(StreamError):
    """What arrived cannot be read as this provider's dialect."""


class SizeLimitError(StreamError):
    """Something received is larger than `Limits` allows; the text names the limit."""


class BudgetExceededError(StreamfoldError):
    """A request would pass its `Budget`, or its answer has: `limit` says which figure, `maximum`
    how much that allows; `tokens` and `cost` are what was used of the budget at that time."""

    limit: Literal["max_tokens", "max_cost"] = "max_tokens"
    maximum: float = 0
    tokens: int = 0
    cost: float = 0.0


class StructuredOutputError(StreamfoldError):
    """The answer does not fit the schema; `raw` is the message as it came."""

    raw: AIMessage | None = None


class ToolException(StreamfoldError):
    """Raise it inside a tool to hand the model an error message instead of a result."""


class RecursionLimitError(StreamfoldError):
    """Runnables are nested deeper than the `recursion_limit` of the config."""


_BY_STATUS: Final[dict[int, type[ProviderError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
    503: OverloadedError,
    529: OverloadedError,
}

# Words that vendors use in `type` or `code`, mapped to the status they stand for. They decide when
# an error comes inside a stream, where there is no status (docs of OpenAI, Anthropic, Gemini).
_BY_WORD: Final[dict[str, int]] = {
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "overloaded_error": 529,
    "overloaded": 529,
    "service_unavailable": 503,
    "api_error": 500,
    "server_error": 500,
    "internal_server_error": 500,
    "timeout_error": 504,
    "invalid_request_error": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "billing_error": 400,
    "request_too_large": 413,
    "api_key_invalid": 401,
    # Google's status words
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "aborted": 409,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "invalid_argument": 400,
    "failed_precondition": 400,
    "out_of_range": 400,
}

_OVERFLOW: Final = (
    "context_length_exceeded",
    "maximum context length",
    "prompt is too long",
    "context window",
    "input length and `max_tokens` exceed",
    "too many tokens",
    "exceeds the maximum number of tokens",
    "input is too long",  # Bedrock, for several makers' models
    "input tokens exceeded",  # Amazon Nova
)
_QUOTA: Final = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit balance is too low",
    "perday",  # in the names of Gemini's quotas: used up until tomorrow
    "spend_limit_reached",  # Anthropic's workspaces
    "per month request limit",  # Cohere, and of its trial keys:
    "api calls / month",
)
#: Words that say that the prompt was blocked (OpenAI's and Azure's; Alibaba's is the last).
BLOCKED: Final = frozenset(
    {"content_filter", "content_policy_violation", "image_content_policy_violation"}
    | {"bio_policy", "cyber_policy", "misalignment_policy_violation", "moderation_blocked"}
    | {"data_inspection_failed"}
)
_RETRIED: Final = frozenset({408, 409, 429})
_WRONG_KEY: Final = "API_KEY_INVALID"  # Google's reason for a 400 that others call 401


def effective_status(status: int | None, *words: str | None) -> int:
    """The status that an error stands for: the HTTP one, else what its type or code says."""
    if status is not None and status >= 400:
        return 401 if status == 400 and _WRONG_KEY in words else status
    for word in words:
        if word is None:
            continue
        if word.isdigit() and 400 <= int(word) < 600:
            return int(word)
        if word.lower() in _BY_WORD:
            return _BY_WORD[word.lower()]
    return 500


def _class_for(status: int, text: str, *words: str | None) -> type[ProviderError]:
    """`words` may say that the prompt was blocked."""
    if 400 <= status < 500 and any(word and word.lower() in BLOCKED for word in words):
        return ContentFilterError
    if status in (400, 413, 422) and any(mark in text for mark in _OVERFLOW):
        return ContextOverflowError
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    return ServerError if status >= 500 else InvalidRequestError


def provider_error(
    message: str,
    *,
    status: int | None,
    type: str | None = None,
    code: str | None = None,
    means: str | None = None,
    answered: bool = False,
    decision: bool | None = None,
    **fields: Any,
) -> ProviderError:
    """The error class for what a provider reported.

    `status` is the HTTP status, or 200 for an error inside a stream: then `type` and `code` decide.
    `means`: the word that decides instead, for a status that the vendor alone gives that meaning.
    `answered`: something was said before, so it is no blocked prompt.
    Retryable: 408, 409, 429 and 5xx, or what the server's own `decision` is; but never a used-up
    quota, for which waiting cannot help.
    """
    meant = effective_status(status, code, type) if means is None else effective_status(None, means)
    text = f"{message} {type} {code}".lower()
    quota = any(mark in text for mark in _QUOTA)
    worth_it = (meant in _RETRIED or meant >= 500) if decision is None else decision
    retryable = worth_it and not quota
    words = () if answered else (code, type, means)
    return _class_for(meant, text, *words)(
        message, status=status, type=type, code=code, retryable=retryable, **fields
    )
