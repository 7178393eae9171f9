"""The fold: tables of (events, what is read), block by block and field by field."""

from __future__ import annotations

from typing import Any

import msgspec
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
    Restart,
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
    "a server tool call with arguments that came whole, and more": (
        [
            BlockStart("server_tool_call", 0, id="s", data={"args": {"q": 1}}),
            ProviderData({"a": 1}, 0, "server_tool_call"),
        ],
        [{"type": "server_tool_call", "id": "s", "name": "", "args": {"q": 1}, "extras": {"a": 1}}],
    ),
    "a server tool call without an index or a name, and what only the provider knows": (
        [
            ToolCallDelta('{"q"', kind="server_tool_call", fallback_id="made-up"),
            ProviderData({"a": 1}, None, "server_tool_call"),
        ],
        [
            {
                "type": "server_tool_call_chunk",
                "id": "made-up",
                "name": "",
                "args": '{"q"',
                "extras": {"a": 1},
            }
        ],
    ),
    "a server tool call that is unreadable, and what only the provider knows": (
        [
            BlockStart("server_tool_call", 0, id="s", name="f", data={"extras": {"a": 1}}),
            ToolCallDelta("[]", 0, kind="server_tool_call"),
            MessageEnd("stop"),
        ],
        [
            {
                "type": "server_tool_call",
                "id": "s",
                "name": "f",
                "args": {},
                "extras": {
                    "raw_args": "[]",
                    "error": "the arguments are unreadable: expected a JSON object, got an array",
                    "a": 1,
                },
            }
        ],
    ),
    "media that begins anew, and text that goes on": (
        [
            BlockStart("image", 0, data={"base64": "QUFB"}),
            BlockStart("text", 1, data={"text": "a"}),
            BlockStart("image", 0, data={"base64": "QkJC"}),
            BlockStart("text", 1, data={"text": "b"}),
        ],
        [{"type": "image", "base64": "QkJC"}, text("ab")],
    ),
    "another id is another call, and the same id the same": (
        [
            ToolCallDelta('{"x"', 0, id="a", name="f"),
            ToolCallDelta('{"y"', 0, id="b", name="f"),
            ToolCallDelta(": 1}", id="a"),
            ToolCallDelta(": 2}", id="b"),
            MessageEnd("tool_calls"),
        ],
        [
            {"type": "tool_call", "id": "a", "name": "f", "args": {"x": 1}},
            {"type": "tool_call", "id": "b", "name": "f", "args": {"y": 2}},
        ],
    ),
    "media of two indexes": (
        [
            DataDelta("QU", 0, "image"),
            DataDelta("QQ==", 1, "image"),
            DataDelta("JD", 0, "image"),
            DataDelta("", 2, "image"),
        ],
        [{"type": "image", "base64": "QUJD"}, {"type": "image", "base64": "QQ=="}],
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


def _with_index(event: Any) -> Any:
    return msgspec.structs.replace(event, index=event.index or 0)


def _belongs(event: Any) -> tuple[str, int]:
    """The kind and index of the block that an event is for."""
    kind = {TextDelta: "text", Annotation: "text", ReasoningDelta: "reasoning"}.get(type(event))
    return kind or event.kind, event.index


_for_a_block = own.chunk_events.filter(
    lambda event: (
        isinstance(event, TextDelta | Annotation | ReasoningDelta)
        or getattr(event, "kind", None) not in (None, "tool_call", "server_tool_call")
    )
).map(_with_index)


@given(st.lists(_for_a_block, max_size=8))
def test_each_block_is_what_its_own_events_say(events: list[Any]) -> None:
    """However they are mixed with those of others."""
    groups: dict[tuple[str, int], list[Any]] = {}
    for event in events:
        groups.setdefault(_belongs(event), []).append(event)
    alone = [block for group in groups.values() for block in folded(*group).blocks()]
    assert sorted(folded(*events).blocks(), key=repr) == sorted(alone, key=repr)


def _all(fold: Fold) -> list[Any]:
    return [
        *(fold.blocks(), fold.blocks(final=True), fold.text(), fold.reasoning()),
        *(fold.tool_calls(), fold.invalid_tool_calls(), fold.tool_call_chunks()),
        *(fold.usage(), fold.metadata(), fold.id, fold.name, fold.finish_reason, fold.finished),
    ]


_events = st.lists(own.chunk_events, max_size=6)


@given(_events, _events)
def test_a_restart_leaves_nothing_of_what_came_before(before: list[Any], after: list[Any]) -> None:
    assert _all(folded(*before, Restart(), *after)) == _all(folded(*after))


@given(_events, _events, st.sampled_from(["text", "tool_call", "image"]), st.integers(0, 2))
def test_the_end_of_a_block_changes_nothing(
    before: list[Any], after: list[Any], kind: str, index: int
) -> None:
    ended = folded(*before, BlockEnd(kind, index), *after)
    assert _all(ended) == _all(folded(*before, *after))


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


class TestCalls:
    def test_each_call_as_raw_pieces(self) -> None:
        """Whether it is finished or not; calls of the server are not among them."""
        fold = folded(
            TextDelta("t", 0),
            ToolCallDelta('{"x"', 1, id="a", name="f"),
            ToolCallDelta("{}", 2, kind="server_tool_call"),
            ToolCallDelta("", 3, name="g", fallback_id="made-up"),
            ToolCallDelta(": 1}", 1),
        )
        first = {"type": "tool_call_chunk", "id": "a", "name": "f", "args": '{"x": 1}', "index": 1}
        second = {"type": "tool_call_chunk", "id": "made-up", "name": "g", "args": "", "index": 3}
        assert fold.tool_call_chunks() == [first, second]
        fold.take([MessageEnd("tool_calls")])
        assert fold.tool_call_chunks() == [first, second]

    def test_arguments_that_can_never_be_an_object_are_invalid_at_once(self) -> None:
        fold = folded(
            ToolCallDelta("[1", 0, id="a", name="f"), ToolCallDelta('{"x": [1', 1, id="b")
        )
        assert fold.invalid_tool_calls() == [
            {
                "type": "invalid_tool_call",
                "id": "a",
                "name": "f",
                "args": "[1",
                "error": "the arguments can never be a JSON object",
            }
        ]
        assert fold.tool_calls() == [
            {"type": "tool_call", "id": "b", "name": "", "args": {"x": [1]}}
        ]

    def test_ids_that_were_made_up_can_be_left_out(self) -> None:
        fold = folded(
            ToolCallDelta("{}", 0, name="f", fallback_id="made-up"),
            ToolCallDelta("{}", 1, id="b", name="g", fallback_id="no"),
            TextDelta("t", 2),
            MessageEnd("tool_calls"),
        )
        assert [block.get("id", "none") for block in fold.blocks()] == ["made-up", "b", "none"]
        left_out = fold.blocks(made_up_ids=False)
        assert [block.get("id", "none") for block in left_out] == [None, "b", "none"]

    def test_the_end_of_the_call_may_be_told_by_the_reader(self) -> None:
        """The provider's word goes before it."""
        piece = ToolCallDelta('{"x', 0, id="a", name="f")
        assert "token limit" in folded(piece).blocks(final=True, reason="length")[0]["error"]
        assert "token limit" not in folded(piece).blocks(final=True)[0]["error"]
        ended = folded(piece, MessageEnd("length"))
        assert "token limit" in ended.blocks(reason="cancelled")[0]["error"]


def test_what_has_been_read_is_the_readers_own() -> None:
    """Also what still grows: a reader who changes it changes no other reading."""
    grown = {"logprobs": {"content": [1], "refusal": None}, "unknown_events": [{"n": 1}], "a": 1}
    fold = folded(
        ProviderData(grown),
        ProviderData(grown, 0, "text"),
        ProviderData(grown, 1, "reasoning"),
        ProviderData(grown, 2, "tool_call"),
        ProviderData(grown, 3, "server_tool_call"),
        Annotation(NOTE, 0),
        MessageEnd("stop"),
    )
    before = repr((fold.metadata(), fold.blocks()))
    blocks = fold.blocks()
    for fields in (fold.metadata(), *(block["extras"] for block in blocks)):
        fields["logprobs"]["content"].append(2)
        fields["logprobs"]["more"] = 1
        fields["unknown_events"].append(2)
        fields["more"] = 1
    blocks[0]["annotations"].append(NOTE)
    assert repr((fold.metadata(), fold.blocks())) == before


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
        assert folded(MessageStart(id="a")).metadata() == {}  # by hand, not by a provider
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
