"""What the tests of the network side share."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest

from streamfold.net import clock, retry


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between attempts stay at the shortest that the policy has (0.05 s)."""
    monkeypatch.setattr(retry, "_LONGEST", 0.06)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may trail a finish reason is waited for but 0.3 s."""
    monkeypatch.setattr(clock, "GRACE", 0.3)


@pytest.fixture
def every_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that is logged, ours and that of the HTTP stack, down to DEBUG."""
    caplog.set_level(logging.DEBUG)
    return caplog


@pytest.fixture(scope="module", autouse=True)
def _late_warnings() -> Iterator[None]:
    """What is left to the garbage collector warns in the test that left it: collecting is cheap
    where nothing older is looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.collect()
