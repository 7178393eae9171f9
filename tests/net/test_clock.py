"""The time limits of a call: which wait may last how long, and what ran out."""

from __future__ import annotations

import math
import time

import pytest

from streamfold import Timeouts
from streamfold.net.clock import GRACE, Clock


class Time:
    """The monotonic clock of a test: it goes on by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Time:
    moving = Time()
    monkeypatch.setattr(time, "monotonic", moving)
    return moving


LIMITS = Timeouts(connect=1.0, first_event=10.0, idle=3.0, total=60.0)


def test_the_first_content_is_due_from_sending_on(now: Time) -> None:
    """Waits before the first content share one limit, however many there are."""
    clock = Clock(LIMITS)
    clock.send()
    assert clock.left() == 10.0
    now.now += 4
    assert clock.left() == 6.0
    now.now += 7
    assert clock.left() == 0.0
    error = clock.error()
    assert (error.limit, error.seconds, error.retryable) == ("first_event", 10.0, True)
    assert "Timeouts.first_event" in str(error)


def test_a_new_attempt_waits_anew(now: Time) -> None:
    """Each request has the whole time for its first content."""
    clock = Clock(LIMITS)
    clock.send()
    now.now += 9
    clock.send()
    assert clock.left() == 10.0


def test_idle_counts_from_the_wait_after_content(now: Time) -> None:
    """The time that the consumer takes between two chunks is not the provider's."""
    clock = Clock(LIMITS)
    clock.send()
    clock.content()
    now.now += 30
    assert clock.left() == 3.0
    now.now += 2
    assert clock.left() == 1.0  # what came was no content
    clock.content()
    assert clock.left() == 3.0
    now.now += 3
    assert clock.left() == 0.0
    assert (clock.error().limit, clock.error().seconds) == ("idle", 3.0)


def test_the_total_is_the_wall_clock(now: Time) -> None:
    """It runs while the consumer works, through attempts, and is not worth another attempt."""
    clock = Clock(LIMITS)
    clock.send()
    clock.content()
    now.now += 59
    assert clock.left() == 1.0
    assert clock.total_left() == 1.0
    now.now += 1
    assert clock.left() == 0.0
    error = clock.error()
    assert (error.limit, error.seconds, error.retryable) == ("total", 60.0, False)


def test_connecting_has_its_own_limit(now: Time) -> None:
    """The shorter of `connect` and what is left of the total."""
    clock = Clock(LIMITS)
    assert clock.connect_left() == 1.0
    error = clock.error(connecting=True)
    assert (error.limit, error.seconds) == ("connect", 1.0)
    now.now += 59.5
    assert clock.connect_left() == 0.5
    now.now += 5
    assert clock.connect_left() == 0.0
    assert clock.error(connecting=True).limit == "total"


def test_after_the_finish_reason_little_is_waited_for(now: Time) -> None:
    """Trailing figures have a few seconds, or `idle` where that is less."""
    clock = Clock(Timeouts(idle=300.0))
    clock.send()
    clock.content()
    clock.finished()
    assert clock.left() == GRACE == 5.0
    now.now += 4
    assert clock.left() == 1.0
    short = Clock(Timeouts(idle=2.0))
    short.finished()
    assert short.left() == 2.0
    endless = Clock(Timeouts(idle=None))
    endless.finished()
    assert endless.left() == GRACE


def test_after_the_end_marker_next_to_nothing(now: Time) -> None:
    """The end of the body is due at once: then the connection can be kept."""
    clock = Clock(LIMITS)
    clock.content()
    clock.draining()
    assert clock.left() == pytest.approx(0.05)


def test_no_limits(now: Time) -> None:
    """None waits for ever, in each of the four."""
    clock = Clock(Timeouts(connect=None, first_event=None, idle=None, total=None))
    clock.send()
    assert clock.left() is None
    clock.content()
    assert clock.left() is None
    assert clock.connect_left() is None
    assert clock.total_left() == math.inf
    now.now += 1e9
    assert clock.left() is None


def test_a_number_bounds_all_three_waits() -> None:
    """`timeout=30` is no more than 30 s for connecting, the first content and idling."""
    assert Timeouts.of(30) == Timeouts(connect=5.0, first_event=30.0, idle=30.0)
    assert Timeouts.of(2) == Timeouts(connect=2.0, first_event=2.0, idle=2.0)
    assert Timeouts.of(None) == Timeouts(connect=5.0, first_event=600.0, idle=300.0, total=None)
    assert Timeouts.of(LIMITS) is LIMITS
