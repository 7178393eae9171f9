"""What Google's errors say in their details, and what becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from streamfold.errors import AuthenticationError, RateLimitError, provider_error
from streamfold.wire.codec import error_fields
from streamfold.wire.google_status import status_pause, status_reason

RPC = "type.googleapis.com/google.rpc."


def detail(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": RPC + kind, **fields}


def quotas(*names: Any) -> dict[str, Any]:
    return detail("QuotaFailure", violations=[{"quotaId": name} for name in names])


PAUSES = [
    ([detail("RetryInfo", retryDelay="34.4s")], 34.4),
    ([detail("Help"), detail("RetryInfo", retryDelay="2s")], 2.0),
    ([detail("RetryInfo", retryDelay="0s")], None),
    ([detail("RetryInfo", retryDelay="-1s")], None),
    ([detail("RetryInfo", retryDelay="infs")], None),
    ([detail("RetryInfo", retryDelay="nans")], None),
    ([detail("RetryInfo", retryDelay="soon")], None),
    ([detail("RetryInfo", retryDelay=5)], None),
    ([detail("RetryInfo")], None),
    ([{"retryDelay": "5s"}], None),
    (["x", None], None),
    ("x", None),
    (None, None),
]


@pytest.mark.parametrize(("details", "expected"), PAUSES)
def test_pause(details: Any, expected: float | None) -> None:
    assert status_pause({"details": details}) == expected


@pytest.mark.parametrize("error", ["text", None, 5, [], {}])
def test_errors_without_details(error: Any) -> None:
    assert status_pause(error) is None


REASONS = [
    ([detail("ErrorInfo", reason="API_KEY_INVALID"), quotas("a")], "API_KEY_INVALID"),
    ([quotas("PerMinute", "RequestsPerDay")], "RequestsPerDay"),
    ([quotas("PerMinute", "Other")], "PerMinute"),
    ([quotas(5), quotas("a")], None),
    ([detail("QuotaFailure", violations="x")], None),
    ([detail("ErrorInfo", reason=5)], None),
    (None, None),
]


@pytest.mark.parametrize(("details", "expected"), REASONS)
def test_reason(details: Any, expected: str | None) -> None:
    assert status_reason({"details": details}) == expected


def test_the_fields_of_an_error() -> None:
    error = {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED"}
    assert error_fields(error) == ("m", "RESOURCE_EXHAUSTED", "429")
    assert error_fields({**error, "details": [quotas("q")]})[2] == "q"
    assert error_fields({"message": "m", "status": 400}) == ("m", None, None)
    assert error_fields({"message": "m", "type": "t", "status": "S"})[1] == "t"


WORDS = {
    "UNAUTHENTICATED": "AuthenticationError",
    "PERMISSION_DENIED": "PermissionDeniedError",
    "NOT_FOUND": "NotFoundError",
    "RESOURCE_EXHAUSTED": "RateLimitError",
    "UNAVAILABLE": "OverloadedError",
    "INTERNAL": "ServerError",
    "DEADLINE_EXCEEDED": "ServerError",
    "INVALID_ARGUMENT": "InvalidRequestError",
    "FAILED_PRECONDITION": "InvalidRequestError",
}


@pytest.mark.parametrize("word", WORDS)
def test_the_status_word_decides_inside_a_stream(word: str) -> None:
    assert type(provider_error("m", status=200, type=word)).__name__ == WORDS[word]


def test_a_wrong_key_is_not_a_bad_request() -> None:
    error = provider_error("m", status=400, type="INVALID_ARGUMENT", code="API_KEY_INVALID")
    assert type(error) is AuthenticationError
    assert error.status == 400
    assert not error.retryable


def test_a_daily_quota_is_not_waited_for() -> None:
    name = "GenerateRequests{}PerProjectPerModel-FreeTier"
    daily, minutely = (
        provider_error("m", status=429, code=name.format(span)) for span in ("PerDay", "PerMinute")
    )
    assert type(daily) is type(minutely) is RateLimitError
    assert (daily.retryable, minutely.retryable) == (False, True)
