"""A short, deterministic run of every fuzz target; all that has ever been found is tried first."""

from __future__ import annotations

import os
from itertools import islice

import pytest
from driver import inputs
from targets import TARGETS, seeds

RUNS = 2_000 if os.environ.get("HYPOTHESIS_PROFILE") == "matrix" else 60


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    """Seeds, found inputs and mutations of them, the same in every run."""
    for data in islice(inputs(name, 0), len(seeds(name)) + RUNS):
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name} breaks on {data[:2000]!r}") from error


def test_the_inputs_are_the_same_every_time() -> None:
    """And others with another seed."""
    one, other, third = (list(islice(inputs("sse", seed), 200)) for seed in (1, 1, 2))
    assert one == other != third


def test_a_target_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that looks away would find nothing."""
    from streamfold.wire.sse import SSEFramer

    def careless(self: SSEFramer, data: bytes) -> bytes:
        return data

    monkeypatch.setattr(SSEFramer, "complete", careless)

    def all_of_them() -> None:
        for data in islice(inputs("sse", 0), 200):
            TARGETS["sse"](data)

    with pytest.raises(AssertionError):
        all_of_them()
