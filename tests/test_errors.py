"""The error tree: its shape, what errors say, and that they survive a pickle."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

from streamfold import errors
from streamfold.errors import (
    AuthenticationError,
    ConfigurationError,
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    StreamfoldError,
    StreamInterruptedError,
    UnknownParameterError,
    effective_status,
    provider_error,
)
from streamfold.messages import AIMessage

CLASSES = [
    c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
]


def drawn_tree() -> dict[str, str]:
    """Class name -> name of its parent, as the module's docstring draws it."""
    tree: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ├└─]*)([A-Z]\w+)", line)
        if found:
            depth = len(found.group(1)) // 4
            path = [*path[:depth], found.group(2)]
            if depth:
                tree[path[-1]] = path[-2]
    return tree


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """The picture at the top of the module names every class under its parent."""
    drawn = drawn_tree()
    real = {c.__name__: c.__bases__[0].__name__ for c in CLASSES if c is not StreamfoldError}
    assert drawn == real


def test_everything_public_is_exported() -> None:
    assert {c.__name__ for c in CLASSES} | {"provider_error"} == set(errors.__all__)


def test_builtin_bases() -> None:
    """So that `except ValueError`, `TypeError` and `TimeoutError` work as one expects."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(UnknownParameterError, TypeError)
    assert issubclass(RequestTimeoutError, TimeoutError)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_errors_survive_pickle_and_copy(kind: type[StreamfoldError]) -> None:
    """With every field, the partial message included."""
    error = kind(
        "it broke",
        partial=AIMessage("half", finish_reason="error"),
        retryable=True,
        retry_after=1.5,
    )
    if isinstance(error, ProviderError):
        error.status, error.request_id, error.body = 429, "req_1", "{}"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is kind
        assert vars(twin) == vars(error)
        assert twin.args == error.args
        assert str(twin) == str(error)
        assert repr(twin) == repr(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_fields_are_there_without_being_given(kind: type[StreamfoldError]) -> None:
    error = kind("why")
    assert error.partial is None
    assert error.retryable is False
    assert error.retry_after is None
    assert error.message == "why"
    assert "why" in str(error)
    assert kind().message == ""


class TestText:
    def test_it_says_who_and_what(self) -> None:
        error = ProviderError("no such model", provider="acme", status=404, type="not_found")
        assert str(error) == "[acme 404 not_found] no such model"
        assert str(ProviderError("no such model")) == "no such model"

    def test_a_long_message_is_cut_in_the_text_only(self) -> None:
        error = ProviderError("x" * 2000)
        assert len(str(error)) == 501
        assert error.message == "x" * 2000


TABLE: list[tuple[dict[str, Any], type[ProviderError], bool]] = [
    ({"status": 400}, InvalidRequestError, False),
    ({"status": 401}, AuthenticationError, False),
    ({"status": 402}, InvalidRequestError, False),
    ({"status": 403}, PermissionDeniedError, False),
    ({"status": 404}, NotFoundError, False),
    ({"status": 408}, InvalidRequestError, True),
    ({"status": 409}, InvalidRequestError, True),
    ({"status": 413}, InvalidRequestError, False),
    ({"status": 418}, InvalidRequestError, False),
    ({"status": 422}, InvalidRequestError, False),
    ({"status": 429}, RateLimitError, True),
    ({"status": 429, "code": "insufficient_quota"}, RateLimitError, False),
    ({"status": 500}, ServerError, True),
    ({"status": 502}, ServerError, True),
    ({"status": 503}, OverloadedError, True),
    ({"status": 504}, ServerError, True),
    ({"status": 529}, OverloadedError, True),
    ({"status": 599}, ServerError, True),
    ({"status": 400, "code": "context_length_exceeded"}, ContextOverflowError, False),
    ({"status": 413, "message": "Prompt is too long: 3 tokens"}, ContextOverflowError, False),
    ({"status": 500, "message": "prompt is too long"}, ServerError, True),
    ({"status": 400, "code": "content_filter"}, ContentFilterError, False),
    ({"status": 400, "code": "moderation_blocked", "type": "x"}, ContentFilterError, False),
    ({"status": 500, "code": "content_filter"}, ServerError, True),
    ({"status": 429, "message": "You are past the per month request limit"}, RateLimitError, False),
    ({"status": 429, "message": "limited to 1000 API calls / month"}, RateLimitError, False),
    ({"status": 429, "message": "limited to 40 API calls / minute"}, RateLimitError, True),
    ({"status": 498}, InvalidRequestError, False),
    ({"status": 498, "means": "content_filter"}, ContentFilterError, False),
    ({"status": 498, "means": "overloaded"}, OverloadedError, True),
    # Inside a stream the status is 200, and the words decide.
    ({"status": 200, "code": "content_filter"}, ContentFilterError, False),
    ({"status": 200, "code": "content_filter", "answered": True}, InvalidRequestError, False),
    ({"status": 200, "type": "overloaded_error"}, OverloadedError, True),
    ({"status": 200, "type": "rate_limit_error"}, RateLimitError, True),
    ({"status": 200, "type": "authentication_error"}, AuthenticationError, False),
    ({"status": 200, "type": "invalid_request_error"}, InvalidRequestError, False),
    ({"status": 200, "type": "api_error"}, ServerError, True),
    ({"status": 200, "type": "Overloaded_Error"}, OverloadedError, True),
    ({"status": 200, "code": "502"}, ServerError, True),
    ({"status": 200, "code": "429", "type": "odd"}, RateLimitError, True),
    ({"status": 200, "code": "insufficient_quota"}, RateLimitError, False),
    (
        {"status": 200, "code": "context_length_exceeded", "type": "invalid_request_error"},
        ContextOverflowError,
        False,
    ),
    ({"status": 200}, ServerError, True),
    ({"status": 200, "type": "never heard of"}, ServerError, True),
    ({"status": None, "type": "not_found_error"}, NotFoundError, False),
]


@pytest.mark.parametrize(("fields", "kind", "retryable"), TABLE, ids=lambda value: str(value)[:50])
def test_the_class_for_what_a_provider_reported(
    fields: dict[str, Any], kind: type[ProviderError], retryable: bool
) -> None:
    """By status, or inside a stream by the vendor's words; a used-up quota is never retryable."""
    message = fields.pop("message", "it broke")
    error = provider_error(message, **fields)
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.status == fields["status"]
    assert error.message == message


@pytest.mark.parametrize(
    ("status", "words", "meant"),
    [
        (404, ("overloaded",), 404),
        (200, (None, "429"), 429),
        (200, ("200", "99"), 500),
        (None, (), 500),
    ],
)
def test_the_status_that_an_error_stands_for(status: Any, words: Any, meant: int) -> None:
    assert effective_status(status, *words) == meant


def test_errors_hold_nothing_but_plain_data() -> None:
    """A field that cannot be pickled would take requests and keys along."""
    error = StreamInterruptedError("cut", partial=AIMessage("half"))
    assert set(vars(error)) == {"partial"}
    assert error.__cause__ is None
