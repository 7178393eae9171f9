"""Streams and faults, many at once: nothing leaks, nothing is mixed up, every error is of ours."""

from __future__ import annotations

import sys

import pytest

from soak import Report, soak


def sound(report: Report) -> None:
    assert report.problems == []
    assert report.ends["whole"] > 0
    failed = sum(count for name, count in report.ends.items() if name != "whole")
    assert 0 < failed < report.ends["whole"]


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
class TestSoak:
    def test_a_few_seconds(self) -> None:
        """Fifty streams at a time; a fifth of the replies is spoilt."""
        sound(soak(streams=50, seconds=4.0, share=0.2))

    @pytest.mark.matrix
    def test_a_minute(self) -> None:
        """Three hundred at a time; memory stays where it is once all connections are there."""
        report = soak(streams=300, seconds=60.0, share=0.05)
        sound(report)
        assert report.slope < 10.0
