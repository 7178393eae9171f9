"""Usage arithmetic: figures of vendors in, totals out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import usages
from streamfold.usage import add_usage, make_usage, total_usage

reported = st.none() | usages


def completed(usage: Any) -> Any:
    """`usage` as a sum shows it: all three counts there."""
    counts = ("input_tokens", "output_tokens", "total_tokens")
    return None if usage is None else {**dict.fromkeys(counts, 0), **usage}


class TestAdd:
    @given(reported, reported, reported)
    def test_order_and_grouping_do_not_matter(self, a: Any, b: Any, c: Any) -> None:
        left, right = add_usage(add_usage(a, b), c), add_usage(a, add_usage(b, c))
        assert completed(left) == completed(right)
        assert add_usage(a, b) == add_usage(b, a)

    @given(reported)
    def test_nothing_reported_changes_nothing(self, usage: Any) -> None:
        assert add_usage(usage, None) == usage == add_usage(None, usage)

    @given(reported, reported)
    def test_no_operand_changes(self, a: Any, b: Any) -> None:
        before = copy.deepcopy((a, b))
        add_usage(a, b)
        assert (a, b) == before

    def test_details_add_key_by_key_and_zeros_stay(self) -> None:
        """A detail that only one side reports is in the sum; one that none reports is not."""
        a = make_usage(5, 2, input_details={"cache_read": 0}, output_details={"reasoning": 1})
        b = make_usage(1, 1, input_details={"cache_read": 0, "audio": 3})
        assert add_usage(a, b) == {
            "input_tokens": 6,
            "output_tokens": 3,
            "total_tokens": 9,
            "input_token_details": {"cache_read": 0, "audio": 3},
            "output_token_details": {"reasoning": 1},
        }

    @given(st.lists(reported, max_size=5))
    def test_the_total_of_many(self, many: list[Any]) -> None:
        total = total_usage(many)
        known = [usage for usage in many if usage is not None]
        assert (total is None) == (not known)
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            assert (total or {}).get(name, 0) == sum(usage.get(name, 0) for usage in known)

    def test_the_total_of_none_is_none(self) -> None:
        assert total_usage([]) is None
        assert total_usage([None, None]) is None


class TestMake:
    @pytest.mark.parametrize(
        ("figures", "usage"),
        [
            ((1, 2, 3), {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
            ((1, 2), {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
            ((1, 2, 9), {"input_tokens": 1, "output_tokens": 2, "total_tokens": 9}),
            ((1, 2, 0), {"input_tokens": 1, "output_tokens": 2, "total_tokens": 0}),
            ((None, 2), {"input_tokens": 0, "output_tokens": 2, "total_tokens": 2}),
            ((None, None), {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}),
        ],
    )
    def test_counts(self, figures: tuple[Any, ...], usage: dict[str, int]) -> None:
        """What is not reported counts as 0; a total that is reported is believed."""
        assert make_usage(*figures) == usage

    def test_only_reported_details_are_there(self) -> None:
        usage = make_usage(
            1, 1, input_details={"cache_read": None, "audio": 0}, output_details={"reasoning": None}
        )
        assert usage.get("input_token_details") == {"audio": 0}
        assert "output_token_details" not in usage
