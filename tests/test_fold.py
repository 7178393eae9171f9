"""The fold: tables of (events, what is read), block by block and field by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold.deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    join_text,
)
from streamfold.fold import Fold


def folded(*events: Any) -> Fold:
    fold = Fold()
    fold.take(events)
    return fold


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def reasoning(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning", "reasoning": value, **more}


NOTE = {"type": "citation", "url": "https://x.example"}

BLOCKS: dict[str, tuple[list[Any], list[dict[str, Any]]]] = {
    "nothing": ([], []),
    "pieces of one block": ([TextDelta("a", 0), TextDelta("b", 0)], [text("ab")]),
    "no index is the newest of its kind": (
        [TextDelta("a", 3), ReasoningDelta("r"), TextDelta("b"), TextDelta("c", 4), TextDelta("d")],
        [text("ab"), reasoning("r"), text("cd")],
    ),
    "a lower index after a higher one keeps the order of arrival": (
        [TextDelta("b", 1), TextDelta("a", 0), TextDelta("B", 1)],
        [text("bB"), text("a")],
    ),
    "kinds do not share an index": (
        [ReasoningDelta("r", 0), TextDelta("t", 0), DataDelta("QQ==", 0, "image")],
        [reasoning("r"), text("t"), {"type": "image", "base64": "QQ=="}],
    ),
    "a block that only opened is not there": (
        [BlockStart("text", 0), BlockStart("reasoning", 1), BlockEnd("text", 0)],
        [],
    ),
    "a text block may begin with text and notes": (
        [
            BlockStart("text", 0, data={"text": "a", "annotations": [NOTE], "mark": 1}),
            TextDelta("b", 0),
            Annotation({"n": 2}, 0),
        ],
        [text("ab", mark=1, annotations=[NOTE, {"n": 2}])],
    ),
    "reasoning without text but with a signature": (
        [BlockStart("reasoning", 0), ProviderData({"signature": "s"}, 0, "reasoning")],
        [reasoning("", extras={"signature": "s"})],
    ),
    "reasoning that begins with text": (
        [BlockStart("reasoning", 0, id="rs_1", data={"reasoning": "a"}), ReasoningDelta("b", 0)],
        [reasoning("ab", id="rs_1")],
    ),
    "the last value of an extra field wins": (
        [ProviderData({"a": 1, "b": None}, 0, "text"), ProviderData({"a": 2}, 0, "text")],
        [text("", extras={"a": 2})],
    ),
    "a block that comes whole": (
        [BlockStart("image", 0, id="i", data={"url": "u", "extras": {"detail": "low"}})],
        [{"type": "image", "url": "u", "id": "i", "extras": {"detail": "low"}}],
    ),
    "media that begins with data and goes on": (
        [
            BlockStart("audio", 0, data={"base64": "QU", "mime_type": "audio/wav"}),
            DataDelta("JD", 0),
        ],
        [{"type": "audio", "mime_type": "audio/wav", "base64": "QUJD"}],
    ),
    "keys of a block that do not fit are kept as extras": (
        [
            BlockStart("text", 0, data={"text": 5, "annotations": "no", "extras": [1], "type": 2}),
            BlockStart("image", 1, data={"type": "video", "base64": None, "url": "u"}),
        ],
        [
            text("", annotations="no", extras={"text": 5, "extras": [1], "type": 2}),
            {"type": "image", "url": "u", "extras": {"type": "video", "base64": None}},
        ],
    ),
    "a tool call that is not finished": (
        [BlockStart("tool_call", 2, id="c", name="f"), ToolCallDelta('{"x"', 2)],
        [{"type": "tool_call_chunk", "id": "c", "name": "f", "args": '{"x"', "index": 2}],
    ),
    "a tool call with what only the provider knows": (
        [
            BlockStart("tool_call", 0, id="c", name="f", data={"extras": {"a": 1}, "b": 2}),
            ToolCallDelta("{}", 0),
            ProviderData({"signature": "s"}, 0, "tool_call"),
            MessageEnd("tool_calls"),
        ],
        [
            {
                "type": "tool_call",
                "id": "c",
                "name": "f",
                "args": {},
                "extras": {"a": 1, "b": 2, "signature": "s"},
            }
        ],
    ),
    "provider data for a call that never opened": (
        [ProviderData({"a": 1}, 0, "tool_call"), MessageEnd("stop")],
        [
            {
                "type": "invalid_tool_call",
                "id": None,
                "name": None,
                "args": "",
                "error": "the call has no name",
                "extras": {"a": 1},
            }
        ],
    ),
    "a server tool call while it arrives": (
        [
            BlockStart("server_tool_call", 0, id="s", name="search"),
            TextDelta("t", 1),
            ToolCallDelta('{"q"', 0, kind="server_tool_call"),
        ],
        [
            {
                "type": "server_tool_call_chunk",
                "id": "s",
                "name": "search",
                "args": '{"q"',
                "index": 0,
            },
            text("t"),
        ],
    ),
    "a server tool call and its result": (
        [
            BlockStart("server_tool_call", 0, id="s", name="search"),
            ToolCallDelta('{"q": 1}', 0, kind="server_tool_call"),
            BlockStart("server_tool_result", 1, data={"tool_call_id": "s", "status": "success"}),
            MessageEnd("stop"),
        ],
        [
            {"type": "server_tool_call", "id": "s", "name": "search", "args": {"q": 1}},
            {"type": "server_tool_result", "tool_call_id": "s", "status": "success"},
        ],
    ),
    "a server tool call whose arguments cannot be read": (
        [
            ToolCallDelta('{"q": ', 0, id="s", name="search", kind="server_tool_call"),
            MessageEnd("length"),
        ],
        [
            {
                "type": "server_tool_call",
                "id": "s",
                "name": "search",
                "args": {},
                "extras": {
                    "raw_args": '{"q": ',
                    "error": "the arguments are unreadable: not valid JSON: "
                    "Input data was truncated",
                },
            }
        ],
    ),
    "client and server calls under one index": (
        [
            ToolCallDelta("{}", 0, id="a", name="f"),
            ToolCallDelta("{}", 0, id="b", name="g", kind="server_tool_call"),
            MessageEnd("tool_calls"),
        ],
        [
            {"type": "tool_call", "id": "a", "name": "f", "args": {}},
            {"type": "server_tool_call", "id": "b", "name": "g", "args": {}},
        ],
    ),
}


@pytest.mark.parametrize(("events", "blocks"), BLOCKS.values(), ids=BLOCKS)
def test_blocks(events: list[Any], blocks: list[dict[str, Any]]) -> None:
    """What the events add up to, also when it is read after each of them."""
    assert folded(*events).blocks() == blocks
    fold = Fold()
    for event in events:
        fold.take([event])
        fold.blocks()
        fold.text()
        fold.tool_calls()
    assert fold.blocks() == blocks


METADATA: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "the first id, model, vendor and time": (
        [
            {"id": "a", "model_name": "m", "model_provider": "p", "created": 1},
            {"id": "b", "model_name": "n", "model_provider": "q", "created": 2},
        ],
        {"id": "a", "model_name": "m", "model_provider": "p", "created": 1},
    ),
    "the last of what is not declared": (
        [{"tier": "a", "flag": True}, {"tier": "b"}, {"flag": False}],
        {"tier": "b", "flag": False},
    ),
    "the last finish field": (
        [{"finish_reason": "a"}, {"finish_reason": "b"}],
        {"finish_reason": "b"},
    ),
    "log probabilities are joined list by list": (
        [
            {"logprobs": {"content": [1], "refusal": None}},
            {"logprobs": {"content": [2, 3]}},
            {"logprobs": {"content": None, "refusal": [4]}},
        ],
        {"logprobs": {"content": [1, 2, 3], "refusal": [4]}},
    ),
    "log probabilities of other shapes": (
        [{"logprobs": [1]}, {"logprobs": 2}, {"logprobs": {"content": 1}}],
        {"logprobs": {"content": 1}},
    ),
    "unknown events are kept in their order": (
        [{"unknown_events": [{"n": 1}]}, {"unknown_events": [{"n": 2}]}],
        {"unknown_events": [{"n": 1}, {"n": 2}]},
    ),
    "unknown events that are no list": (
        [{"unknown_events": "ab"}, {"unknown_events": 5}],
        {"unknown_events": ["ab", 5]},
    ),
    "none says nothing": ([{"a": 1}, {"a": None}, {"b": None}], {"a": 1}),
}


@pytest.mark.parametrize(("parts", "result"), METADATA.values(), ids=METADATA)
def test_metadata(parts: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """Fields merge by their declared mode."""
    assert folded(*(ProviderData(part) for part in parts)).metadata() == result


@given(st.lists(own.chunk_events, max_size=8))
def test_taking_and_reading_change_no_event(events: list[Any]) -> None:
    """Events are shared by all views of a log: the fold may not grow into them."""
    before = repr(events)
    fold = folded(*events, *events)
    fold.blocks(final=True)
    assert repr(events) == before


def test_two_folds_of_the_same_events_share_nothing() -> None:
    """A log that is folded twice gives the same, whichever fold went on."""
    events = [ProviderData({"logprobs": {"content": [1]}, "unknown_events": [1]})] * 2
    events += [ProviderData({"logprobs": {"content": [2]}}, 0, "text")] * 2
    one = folded(*events)
    one.take(events)
    assert folded(*events).metadata()["logprobs"] == {"content": [1, 1]}
    assert folded(*events).blocks()[0]["extras"]["logprobs"] == {"content": [2, 2]}


class TestEnd:
    def test_finished_once_a_message_end_came(self) -> None:
        assert not folded(TextDelta("a", 0)).finished
        assert folded(MessageEnd()).finished

    def test_start_fields_are_the_first_ones(self) -> None:
        fold = folded(
            MessageStart(),
            MessageStart(id="a", model="m", provider="p"),
            MessageStart(id="b", model="n", provider="q", name="x"),
        )
        assert (fold.id, fold.name) == ("a", "x")
        assert fold.metadata() == {"id": "a", "model_name": "m", "model_provider": "p"}

    def test_a_call_is_judged_by_the_end_of_its_own_message(self) -> None:
        """Cut off by the limit in the first message, without arguments in the second."""
        fold = folded(
            ToolCallDelta('{"x"', 0, id="a", name="f"),
            MessageEnd("length"),
            ToolCallDelta("", 0, id="b", name="g"),
            MessageEnd("tool_calls"),
        )
        assert [c["name"] for c in fold.tool_calls()] == ["g"]
        assert ["token limit" in (c["error"] or "") for c in fold.invalid_tool_calls()] == [True]

    def test_calls_of_a_second_message_show_as_unfinished(self) -> None:
        fold = folded(
            ToolCallDelta("{}", 0, id="a", name="f"),
            MessageEnd("tool_calls"),
            ToolCallDelta('{"x": "y', 0, id="b", name="g"),
        )
        assert [b["type"] for b in fold.blocks()] == ["tool_call", "tool_call_chunk"]
        assert fold.tool_calls()[1]["args"] == {"x": "y"}
        assert [b["type"] for b in fold.blocks(final=True)] == ["tool_call", "invalid_tool_call"]


class TestJoinText:
    @pytest.mark.parametrize(
        ("parts", "joined"),
        [
            ([], ""),
            (["a"], "a"),
            (["я", "ю"], "яю"),
            (["\ud83d", "\ude00"], "😀"),
            (["\ud83d"], "\ufffd"),
            (["\ude00b"], "\ufffdb"),
            (["\ufeff\ud83d"], "\ufeff\ufffd"),
            (["a\ud83d", "b"], "a\ufffdb"),
            (["\ude00\ud83d", "\ude00"], "\ufffd😀"),
            (["\ufeffa", "\ufeff"], "\ufeffa\ufeff"),
        ],
    )
    def test_pairs_are_joined_and_lone_halves_replaced(self, parts: list[str], joined: str) -> None:
        assert join_text(parts) == joined

    @given(st.lists(st.text()))
    def test_whole_text_is_only_joined(self, parts: list[str]) -> None:
        assert join_text(parts) == "".join(parts)
