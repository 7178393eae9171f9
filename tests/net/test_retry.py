"""When to try again and how long to wait: the policy as pure functions."""

from __future__ import annotations

import gc
import math
import random
import weakref
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.errors import (
    ConnectError,
    InvalidRequestError,
    RateLimitError,
    StreamfoldError,
    provider_error,
)
from streamfold.net.retry import (
    RetryBudget,
    backoff,
    budget_of,
    pause_before,
    retry_after,
    should_retry_header,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NEVER = math.inf


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "1"}, 1.0),
            ({"retry-after": " 20 "}, 20.0),
            ({"retry-after": "0.7"}, 0.7),
            ({"retry-after": "86400"}, 86400.0),
            ({"retry-after-ms": "200"}, 0.2),
            ({"retry-after-ms": "1500.5"}, 1.5005),
            ({"retry-after-ms": "200", "retry-after": "30"}, 0.2),
            ({"retry-after-ms": "nan", "retry-after": "30"}, 30.0),
            ({"retry-after-ms": "0", "retry-after": "30"}, 30.0),
            ({"retry-after-ms": "-1"}, None),
            ({"retry-after-ms": "soon"}, None),
            ({"retry-after": "0"}, None),
            ({"retry-after": "-5"}, None),
            ({"retry-after": "nan"}, None),
            ({"retry-after": "inf"}, None),
            ({"retry-after": "-inf"}, None),
            ({"retry-after": "1e400"}, None),
            ({"retry-after": "1e-400"}, None),
            ({"retry-after": ""}, None),
            ({"retry-after": " "}, None),
            ({"retry-after": "soon"}, None),
            ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
            ({"retry-after": "Sun, 01 Mar 2026 12:00:30 -0000"}, 30.0),
            ({"retry-after": "Sun, 01 Mar 2026 13:00:30 +0100"}, 30.0),
            ({"retry-after": "Sun, 01 Mar 2026 12:00:00 GMT"}, None),
            ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, None),
            ({"retry-after": "Fri, 99 Foo 99999 99:99:99 GMT"}, None),
            ({"retry-after": "Sun, 01 Mar 99999 12:00:00 GMT"}, None),
            ({"retry-after": "Sun, 01 Mar 2026"}, None),
            ({"retry-after": "9" * 5000}, None),
        ],
    )
    def test_every_form(self, headers: dict[str, str], seconds: float | None) -> None:
        """Milliseconds first, then seconds or a date; what is no time to wait is no answer."""
        assert retry_after(headers, NOW) == seconds

    @given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str))
    def test_any_text(self, text: str) -> None:
        """Whatever a server writes, the answer is a finite time ahead, or none."""
        for name in ("retry-after", "retry-after-ms"):
            seconds = retry_after({name: text}, NOW)
            assert seconds is None or 0 < seconds < math.inf

    @given(st.integers(1, 10_000_000))
    def test_dates(self, ahead: int) -> None:
        """A date says how many seconds lie between now and then."""
        date = format_datetime(NOW + timedelta(seconds=ahead), usegmt=True)
        assert retry_after({"retry-after": date}, NOW) == ahead

    def test_without_a_clock_the_date_counts_from_now(self) -> None:
        """The present is the system's unless a test says otherwise."""
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        assert 28 < (retry_after({"retry-after": date}) or 0) <= 30


@pytest.mark.parametrize(
    ("value", "decision"),
    [("true", True), ("false", False), (" TRUE ", True), ("maybe", None), ("", None), (None, None)],
)
def test_should_retry_header(value: str | None, decision: bool | None) -> None:
    """The server's own decision is read, and nothing is read into it."""
    headers = {} if value is None else {"x-should-retry": value}
    assert should_retry_header(headers) is decision


class TestBackoff:
    @pytest.mark.parametrize(
        ("attempt", "longest"),
        [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (999, 8)],
    )
    def test_bounds(self, attempt: int, longest: float) -> None:
        """Pauses are spread over all of 0.05 s to the doubling bound, at most 8 s."""
        rng = random.Random(attempt)
        pauses = [backoff(attempt, rng) for _ in range(2000)]
        assert min(pauses) >= 0.05
        assert max(pauses) <= longest
        assert min(pauses) < 0.05 + longest * 0.02
        assert max(pauses) > longest * 0.98
        assert sum(pauses) / len(pauses) == pytest.approx((0.05 + longest) / 2, rel=0.05)

    def test_no_two_clients_agree(self) -> None:
        """Without a generator of its own each call draws anew."""
        assert len({backoff(3) for _ in range(50)}) == 50


def _error(**fields: object) -> StreamfoldError:
    return ConnectError("no connection", **{"retryable": True, **fields})


class TestPauseBefore:
    def test_backs_off(self) -> None:
        """What may succeed the next time is tried again, after a pause of our own."""
        pause = pause_before(_error(), 0, 2, NEVER)
        assert pause is not None
        assert 0.05 <= pause <= 0.5

    @pytest.mark.parametrize(("attempt", "again"), [(0, True), (1, True), (2, False), (3, False)])
    def test_attempts_are_counted(self, attempt: int, again: bool) -> None:
        """`max_retries` more attempts follow the first, and no more."""
        assert (pause_before(_error(), attempt, 2, NEVER) is not None) is again

    def test_no_retries_at_all(self) -> None:
        """`max_retries=0` means one attempt."""
        assert pause_before(_error(), 0, 0, NEVER) is None

    def test_hopeless(self) -> None:
        """An error that would come again is not tried again, whatever pause the server names."""
        assert pause_before(InvalidRequestError("no"), 0, 9, NEVER) is None
        assert pause_before(InvalidRequestError("no", retry_after=1.0), 0, 9, NEVER) is None

    @pytest.mark.parametrize(
        ("asked", "pause"),
        [(0.001, 0.001), (1.5, 1.5), (60.0, 60.0), (60.01, None), (86400.0, None)],
    )
    def test_the_server_names_the_pause(self, asked: float, pause: float | None) -> None:
        """Up to a minute is waited exactly; beyond it the caller decides."""
        error = RateLimitError("slow down", retryable=True, retry_after=asked)
        assert pause_before(error, 0, 2, NEVER) == pause

    @pytest.mark.parametrize(
        ("left", "pause"), [(NEVER, 2.0), (2.5, 2.0), (2.0, None), (-1.0, None)]
    )
    def test_within_the_deadline(self, left: float, pause: float | None) -> None:
        """A pause that would not end before the deadline is not begun."""
        error = RateLimitError("slow down", retryable=True, retry_after=2.0)
        assert pause_before(error, 0, 2, left) == pause

    def test_our_own_pause_keeps_to_the_deadline_too(self) -> None:
        """With no time left there is no next attempt."""
        assert pause_before(_error(), 0, 2, 0.01) is None


@pytest.mark.parametrize(
    ("status", "words", "retryable"),
    [
        *((status, (), True) for status in (408, 409, 429, 500, 501, 502, 503, 504, 520, 529, 599)),
        *((status, (), False) for status in (400, 401, 402, 403, 404, 405, 413, 422, 451)),
        (429, ("insufficient_quota",), False),
        (429, ("billing_hard_limit_reached",), False),
        (400, ("rate_limit_error",), False),
        (200, ("overloaded_error",), True),
        (200, ("rate_limit_error",), True),
        (200, ("server_error",), True),
        (200, ("503",), True),
        (200, ("insufficient_quota",), False),
        (200, ("invalid_request_error",), False),
        (200, ("authentication_error",), False),
    ],
)
def test_what_is_worth_another_attempt(
    status: int, words: tuple[str, ...], retryable: bool
) -> None:
    """408, 409, 429 and 5xx are, by status or by the vendor's word in a stream; quotas are not."""
    error = provider_error("no", status=status, type=words[0] if words else None)
    assert error.retryable is retryable


@pytest.mark.parametrize("decision", [True, False, None])
def test_a_used_up_quota_is_never_tried_again(decision: bool | None) -> None:
    """Not even where the server says so."""
    error = provider_error("no", status=429, code="insufficient_quota", decision=decision)
    assert not error.retryable


class Client:
    """What budgets belong to."""


class TestBudget:
    """Retries to a host that fails every call end; those to one that recovers begin again."""

    @pytest.mark.parametrize(
        ("error", "most"), [(_error(), 35), (RateLimitError("slow down", retryable=True), 100)]
    )
    def test_it_is_used_up(self, error: StreamfoldError, most: int) -> None:
        """35 failures in a row, or 100 rate limits."""
        budget = RetryBudget()
        assert all(budget.spend(error) for _ in range(most))
        assert budget.spend(error) == 0
        assert budget.spend(error) == 0

    def test_success_earns_it_back(self) -> None:
        """What the retry had cost, or one token where there was none."""
        budget = RetryBudget()
        costs = [budget.spend(_error()) for _ in range(35)]
        budget.earn(costs[-1])
        assert budget.spend(_error()) == costs[-1]
        assert budget.spend(_error()) == 0
        left = budget.tokens
        for _ in range(14 - left):
            assert budget.spend(_error()) == 0
            budget.earn(0)
        assert budget.spend(_error())

    @given(st.lists(st.sampled_from(["fail", "throttle", "earn"]), max_size=200))
    def test_it_stays_in_bounds(self, steps: list[str]) -> None:
        """Whatever happens in whatever order."""
        budget, cost = RetryBudget(), 0
        for step in steps:
            if step == "earn":
                budget.earn(cost)
                cost = 0
            else:
                error = _error() if step == "fail" else RateLimitError("slow down")
                cost = budget.spend(error)
            assert 0 <= budget.tokens <= 500

    def test_one_for_each_client_and_host(self) -> None:
        """The same for all paths of a host, another one for every other host and client."""
        one, other = Client(), Client()
        budget = budget_of(one, "https://a.example/v1")
        assert budget_of(one, "https://a.example/v2?x=1") is budget
        assert budget_of(one, "https://a.example:444/v1") is not budget
        assert budget_of(one, "https://b.example/v1") is not budget
        assert budget_of(other, "https://a.example/v1") is not budget
        assert budget_of(one, "https://a.example/v1") is budget

    def test_they_do_not_pile_up(self) -> None:
        """Neither with clients that are gone, nor with hosts without end."""
        client = Client()
        first = weakref.ref(budget_of(client, "https://a.example"))
        for number in range(99):
            budget_of(client, f"https://{number}.example")
        assert first() is not None
        assert budget_of(client, "https://a.example") is first()
        budget_of(client, "https://one-more.example")
        assert first() is None
        first = weakref.ref(budget_of(client, "https://a.example"))
        del client
        gc.collect()
        assert first() is None
