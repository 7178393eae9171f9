"""Usage arithmetic: figures of vendors in, totals out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import usages
from streamfold import UsageMetadataCallbackHandler, init_chat_model, usage_cost
from streamfold.chunks import fold_events
from streamfold.deltas import MessageEnd, MessageStart, TextDelta, UsageReport
from streamfold.errors import StreamInterruptedError
from streamfold.testing.server import LoopbackServer, Reply, Request
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


# ---- answers that did not come to their end ------------------------------------------------------

COUNTED: list[Any] = [MessageStart(id="m"), UsageReport(make_usage(5, 1)), TextDelta("half", 0)]


class TestPartial:
    @pytest.mark.parametrize("reason", ["error", "cancelled"])
    def test_figures_of_an_unfinished_answer_say_so(self, reason: str) -> None:
        """The mark is beside the figures, which compare as ever."""
        message = fold_events(COUNTED).to_message(reason)
        assert message.response_metadata["usage_is_partial"] is True
        assert message.usage_metadata == make_usage(5, 1)
        assert message.finish_reason == reason

    @pytest.mark.parametrize(
        ("events", "reason"),
        [
            ([*COUNTED, MessageEnd("stop")], "error"),  # it broke when all had been said
            ([*COUNTED, MessageEnd("stop")], None),
            (COUNTED, None),
            ([TextDelta("half", 0)], "error"),  # there are no figures
        ],
    )
    def test_no_others_do(self, events: list[Any], reason: str | None) -> None:
        message = fold_events(events).to_message(reason)
        assert "usage_is_partial" not in message.response_metadata


CLAUDE_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
    b'"role":"assistant","model":"claude-sonnet-4-5","content":[],"usage":{"input_tokens":100,'
    b'"cache_creation_input_tokens":50,"cache_creation":{"ephemeral_5m_input_tokens":20,'
    b'"ephemeral_1h_input_tokens":30},"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    b'"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
    b'"delta":{"type":"text_delta","text":"half"}}\n\n'
)
EVENTS = {"content-type": "text/event-stream"}
HALF = {
    "input_tokens": 150,
    "output_tokens": 1,
    "total_tokens": 151,
    "input_token_details": {"cache_creation": 50, "ephemeral_1h_input_tokens": 30},
}


@pytest.mark.anyio
class TestOverTheWire:
    async def test_a_stream_that_breaks_off(self) -> None:
        """The error, the handlers and the money all know what had been counted."""

        def cut(request: Request) -> Reply:
            return Reply(headers=EVENTS, body=CLAUDE_STREAM, end="cut")

        counted = UsageMetadataCallbackHandler()
        with LoopbackServer(cut) as server:
            async with init_chat_model(
                "claude-sonnet-4-5", base_url=server.url, api_key="k", max_retries=0
            ) as model:
                with pytest.raises(StreamInterruptedError) as caught:
                    async for _ in model.astream("hi", {"callbacks": [counted]}):
                        pass
        partial = caught.value.partial
        assert partial is not None
        assert partial.usage_metadata == HALF
        assert partial.response_metadata["usage_is_partial"] is True
        assert counted.usage_metadata == {"claude-sonnet-4-5": HALF}
        # 100 x 3 + 20 x 3.75 + 30 x 6 + 1 x 15 millionths
        assert counted.cost == {"claude-sonnet-4-5": pytest.approx(570e-6)}
        assert usage_cost(partial) == pytest.approx(570e-6)

    async def test_a_stream_that_is_cancelled(self) -> None:
        def endless(request: Request) -> Reply:
            return Reply(headers=EVENTS, body=CLAUDE_STREAM, end="hang")

        with LoopbackServer(endless) as server:
            async with (
                init_chat_model("claude-sonnet-4-5", base_url=server.url, api_key="k") as model,
                model.astream_message("hi") as stream,
            ):
                async for _ in stream.text:
                    await stream.cancel()
                message = await stream.message()
        assert message.finish_reason == "cancelled"
        assert message.usage_metadata == HALF
        assert message.response_metadata["usage_is_partial"] is True
