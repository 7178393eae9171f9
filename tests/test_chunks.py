"""The chunk algebra: its laws, the defects it must not share, and what it costs."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
import threading
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold import chunks as chunks_module
from streamfold import fold as fold_module
from streamfold import tool_calls as calls_module
from streamfold.chunks import AIMessageChunk, Received, TextChunk, fold_events
from streamfold.deltas import (
    Annotation,
    BlockStart,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    decode_events,
    encode_events,
)
from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, messages_from_dict, messages_to_dict
from streamfold.partial_json import ObjectScanner

EMPTY = AIMessageChunk()


def reading(chunk: AIMessageChunk) -> dict[str, Any]:
    """Everything that can be read of a chunk."""
    names = (
        "text reasoning content content_blocks tool_calls invalid_tool_calls tool_call_chunks "
        "usage_metadata response_metadata id name finish_reason chunk_position events"
    )
    return {name: getattr(chunk, name) for name in names.split()}


def piece(args: str = "", **fields: Any) -> AIMessageChunk:
    """A chunk with one piece of a tool call, as a user makes it."""
    return AIMessageChunk(tool_call_chunks=[{"args": args, **fields}])


def calls(chunk: AIMessageChunk) -> list[tuple[Any, Any]]:
    return [(call["name"], call["args"]) for call in chunk.tool_calls]


class TestLaws:
    @given(own.chunks)
    def test_the_empty_chunk_on_either_side_changes_nothing(self, chunk: AIMessageChunk) -> None:
        assert EMPTY + chunk == chunk == chunk + EMPTY
        assert reading(EMPTY + chunk) == reading(chunk) == reading(chunk + EMPTY)

    @given(own.chunks, own.chunks, own.chunks)
    def test_adding_is_associative(self, a: Any, b: Any, c: Any) -> None:
        left, right = (a + b) + c, a + (b + c)
        assert left == right
        assert reading(left) == reading(right)

    @given(own.chunks, own.chunks, own.chunks)
    def test_adding_is_associative_also_when_parts_were_read_before(
        self, a: Any, b: Any, c: Any
    ) -> None:
        untouched = reading((a + b) + c)
        left = a + b
        reading(left)
        reading(b)
        right = b + c
        reading(right)
        assert reading(left + c) == untouched == reading(a + right)

    @given(st.lists(own.chunks, max_size=6))
    def test_sum_with_and_without_a_start_equals_any_way_of_adding(self, parts: list[Any]) -> None:
        total = sum(parts, AIMessageChunk())
        assert isinstance(total, AIMessageChunk)
        assert reading(total) == reading(fold_events([e for part in parts for e in part.events]))
        if parts:
            from_the_right = reduce(lambda right, left: left + right, reversed(parts))
            assert reading(sum(parts)) == reading(total) == reading(from_the_right)

    @given(own.chunks, own.chunks)
    def test_no_operand_changes(self, a: AIMessageChunk, b: AIMessageChunk) -> None:
        before = copy.deepcopy((reading(a), reading(b)))
        assert reading(a + b)["events"] == [*a.events, *b.events]
        assert (reading(a), reading(b)) == before

    @given(st.lists(own.chunks, min_size=1, max_size=6), st.data())
    def test_old_views_keep_reading_the_same(self, parts: list[Any], data: st.DataObject) -> None:
        views = [AIMessageChunk()]
        for part in parts:
            views.append(views[-1] + part)
        fresh = [fold_events(view.events) for view in views]
        for place in data.draw(st.permutations(range(len(views)))):
            assert reading(views[place]) == reading(fresh[place])
        for view, same in zip(views, fresh):
            assert reading(view) == reading(same)

    @given(own.chunks, own.chunks, own.chunks)
    def test_a_view_that_was_continued_can_be_continued_otherwise(
        self, a: Any, b: Any, c: Any
    ) -> None:
        base = AIMessageChunk() + a
        one, other = base + b, base + c
        assert reading(one) == reading(fold_events([*a.events, *b.events]))
        assert reading(other) == reading(fold_events([*a.events, *c.events]))

    @given(own.chunks)
    def test_a_chunk_can_be_added_to_itself(self, chunk: AIMessageChunk) -> None:
        twice = fold_events([*chunk.events, *chunk.events])
        assert reading(chunk + chunk) == reading(twice)

    @given(st.lists(own.metadata, max_size=5), st.lists(own.json_objects, max_size=3))
    def test_no_metadata_and_no_block_can_make_adding_or_reading_raise(
        self, metadata: list[Any], blocks: list[Any]
    ) -> None:
        parts = [AIMessageChunk(response_metadata=fields) for fields in metadata]
        parts += [fold_events([BlockStart("text", 0, data=data)]) for data in blocks]
        parts += [fold_events([ProviderData(data, 0, "text")]) for data in blocks]
        whole = sum(parts, AIMessageChunk())
        reading(whole)
        assert whole.to_message() == whole

    @given(st.lists(own.chunk_events, max_size=8))
    def test_text_and_content_agree(self, events: list[Any]) -> None:
        chunk = fold_events(events)
        for view in (chunk, chunk.to_message()):
            blocks = view.content_blocks
            assert view.text == "".join(b["text"] for b in blocks if b["type"] == "text")
        assert chunk.text == chunk.to_message().text
        shown = [b["reasoning"] for b in chunk.content_blocks if b["type"] == "reasoning"]
        assert chunk.reasoning == "".join(shown)

    def test_only_chunks_can_be_added(self) -> None:
        """A chunk and anything else is a TypeError, on both sides."""
        for other in ("text", 1, None, AIMessage("hi"), ["x"]):
            with pytest.raises(TypeError):
                EMPTY + other
            with pytest.raises(TypeError):
                other + EMPTY


class TestSplitInvariance:
    """Deltas may be cut anywhere between code points and empty ones put in."""

    @given(st.lists(own.chunk_events, max_size=8), st.data())
    def test_cutting_deltas_changes_nothing(self, events: list[Any], data: st.DataObject) -> None:
        cut = [piece for event in events for piece in self.cut(event, data)]
        assert fold_events(cut) == fold_events(events)

    @given(st.lists(own.chunk_events, max_size=8), st.data())
    def test_empty_deltas_change_nothing(self, events: list[Any], data: st.DataObject) -> None:
        empty = st.builds(TextDelta, st.just(""), st.none() | st.integers(0, 3))
        empty |= st.builds(ReasoningDelta, st.just(""), st.none() | st.integers(0, 3))
        empty |= st.builds(ToolCallDelta, st.just(""), st.none() | st.integers(0, 3))
        stuffed: list[Any] = []
        for event in [*events, None]:
            stuffed += data.draw(st.lists(empty, max_size=2))
            stuffed += [event] if event is not None else []
        assert fold_events(stuffed) == fold_events(events)

    @staticmethod
    def cut(event: Any, data: st.DataObject) -> list[Any]:
        """`event` in pieces. A tool's name comes once; its id and index come with each piece."""
        field = "args" if isinstance(event, ToolCallDelta) else "text"
        whole = getattr(event, field, None)
        if whole is None or isinstance(event, BlockStart):
            return [event]
        first, *rest = data.draw(own.pieces_of(whole))
        more = {"name": None} if field == "args" else {}
        replace = msgspec.structs.replace
        return [
            replace(event, **{field: first}),
            *(replace(event, **{field: part}, **more) for part in rest),
        ]

    def test_halves_of_a_surrogate_pair_are_joined(self) -> None:
        """Text, reasoning and arguments come out whole, whatever is read in between."""
        halves = ["a\ud83d", "\ude00b"]
        text = sum(AIMessageChunk(half) for half in halves)
        assert text.text == "a😀b"
        reasoning = fold_events([ReasoningDelta(half, 0) for half in halves])
        assert reasoning.reasoning == "a😀b"
        args = piece('{"x": "a\ud83d', id="1", name="f") + piece('\ude00b"}')
        assert args.tool_calls[0]["args"] == {"x": "a😀b"}

    def test_reading_half_a_pair_does_not_lose_it(self) -> None:
        """What has been read as unfinished is joined all the same when the rest comes."""
        start = AIMessageChunk("x") + AIMessageChunk("\ud83d")
        start.text.encode()
        assert (start + AIMessageChunk("\ude00")).text == "x😀"
        call = piece('{"x": "', id="1", name="f") + piece("\ud83d")
        assert call.tool_calls
        assert (call + piece('\ude00"}')).tool_calls[0]["args"] == {"x": "😀"}

    @given(st.lists(st.sampled_from(["a", "\ud83d", "\ude00", "я", ""]), max_size=6))
    def test_text_can_always_be_encoded(self, texts: list[str]) -> None:
        chunk = sum((AIMessageChunk(text) for text in texts), AIMessageChunk())
        chunk.text.encode()
        assert chunk.text.replace("\ufffd", "") == "".join(texts).encode(
            "utf-16", "surrogatepass"
        ).decode("utf-16", "replace").replace("\ufffd", "")


class TestTheTenDefects:
    """features.md A5: what LangChain's chunks do wrong, each as a test of what ours do."""

    def test_1_empty_content_of_any_form_loses_no_text(self) -> None:
        empty_text, empty_list, text = (AIMessageChunk(c) for c in ("", [], "x"))
        for order in ((empty_text, empty_list, text), (empty_list, empty_text, text)):
            a, b, c = order
            assert ((a + b) + c).content == (a + (b + c)).content == "x"
        assert (empty_list + text).content == "x"

    def test_2_a_repeated_last_chunk_doubles_no_field(self) -> None:
        last = AIMessageChunk(
            response_metadata={"finish_reason": "stop", "model_name": "gpt", "model": "m"},
            finish_reason="stop",
            chunk_position="last",
        )
        twice = AIMessageChunk("hi") + last + last
        assert twice.response_metadata == last.response_metadata
        assert twice.finish_reason == "stop"

    @pytest.mark.parametrize(
        ("one", "two"), [(0.1, 0.2), (True, False), (1, "1"), ({}, []), (None, 1)]
    )
    def test_3_differing_metadata_values_raise_nothing_and_the_last_wins(
        self, one: Any, two: Any
    ) -> None:
        parts = [AIMessageChunk(response_metadata={"temperature": value}) for value in (one, two)]
        assert sum(parts).response_metadata == {"temperature": two}

    def test_4_reasoning_and_text_under_one_index_stay_two_blocks(self) -> None:
        parts = [
            AIMessageChunk([{"type": "reasoning", "reasoning": "hm", "index": 0}]),
            AIMessageChunk([{"type": "text", "text": "so", "index": 0}]),
            AIMessageChunk([{"type": "reasoning", "reasoning": "m", "index": 0}]),
        ]
        assert sum(parts).content_blocks == [
            {"type": "reasoning", "reasoning": "hmm"},
            {"type": "text", "text": "so"},
        ]

    def test_5_pieces_without_an_index_are_one_call(self) -> None:
        start = piece('{"x"', id="1", name="get")
        whole = start + piece(": 1") + piece("}") + AIMessageChunk(finish_reason="tool_calls")
        assert calls(whole) == [("get", {"x": 1})]
        assert whole.invalid_tool_calls == []

    @pytest.mark.parametrize("id", ["1", None])
    def test_6_a_name_that_is_repeated_is_not_doubled(self, id: str | None) -> None:
        parts = [piece(args, id=id, name="get", index=0) for args in ('{"x"', ": 1", "}")]
        assert calls(sum(parts)) == [("get", {"x": 1})]

    def test_7_a_piece_without_id_continues_the_newest_call_of_its_index(self) -> None:
        parts = [
            piece('{"x": 1}', id="1", name="get", index=0),
            piece('{"x"', id="2", name="get", index=0),
            piece(": 2}", index=0),
        ]
        assert calls(sum(parts)) == [("get", {"x": 1}), ("get", {"x": 2})]

    def test_8_running_totals_of_usage_are_not_added_up(self) -> None:
        totals = [
            AIMessageChunk(
                usage_metadata={"input_tokens": 5, "output_tokens": n, "total_tokens": n}
            )
            for n in (1, 2, 7)
        ]
        assert sum(totals).usage_metadata == totals[-1].usage_metadata

    @pytest.mark.parametrize("raw", ['{"file": "repor', '{"amount": 12', '{"x"', "{"])
    @pytest.mark.parametrize("finish", ["length", None])
    def test_9_arguments_that_were_cut_off_are_invalid_on_every_path(
        self, raw: str, finish: str | None
    ) -> None:
        streamed = piece(raw, id="1", name="f", index=0) + AIMessageChunk(
            finish_reason=finish, chunk_position="last"
        )
        for message in (streamed, streamed.to_message(), (EMPTY + streamed).to_message()):
            assert message.tool_calls == []
            (call,) = message.invalid_tool_calls
            assert (call["name"], call["args"], call["id"]) == ("f", raw, "1")
            assert "cut off" in (call["error"] or "")

    @pytest.mark.parametrize("fragments", [250, 500, 1000, 2000])
    def test_10_tool_arguments_cost_as_much_as_they_are_long(
        self, fragments: int, counted: Counter
    ) -> None:
        full = piece('{"text": "', id="1", name="write", index=0)
        for _ in range(fragments):
            full = full + piece("ab", index=0)
        full = full + piece('"}', index=0) + AIMessageChunk(finish_reason="tool_calls")
        assert len(full.tool_calls[0]["args"]["text"]) == 2 * fragments
        assert counted.events == fragments + 3
        assert counted.copied == 0
        assert counted.parses == 1


class TestFields:
    def test_first_last_and_appended_fields(self) -> None:
        """Each field merges as declared, whatever the types are."""
        a = {"id": "1", "model_name": "m", "created": 1, "logprobs": {"content": [1]}, "tier": "a"}
        b = {"id": "2", "model_name": "n", "created": 2, "logprobs": {"content": [2]}, "tier": "b"}
        both = AIMessageChunk(response_metadata=a) + AIMessageChunk(response_metadata=b)
        assert both.response_metadata == {**a, "logprobs": {"content": [1, 2]}, "tier": "b"}

    def test_none_in_metadata_says_nothing(self) -> None:
        known = AIMessageChunk(response_metadata={"tier": "a"})
        assert (known + AIMessageChunk(response_metadata={"tier": None})) == known

    def test_id_and_name_are_the_first_ones(self) -> None:
        parts = [AIMessageChunk(), AIMessageChunk(id="a"), AIMessageChunk(id="b", name="n")]
        assert (sum(parts).id, sum(parts).name) == ("a", "n")

    def test_the_last_finish_reason_wins_and_an_end_without_one_keeps_it(self) -> None:
        stop = AIMessageChunk(finish_reason="stop")
        assert (stop + AIMessageChunk(finish_reason="length")).finish_reason == "length"
        assert (stop + AIMessageChunk(chunk_position="last")).finish_reason == "stop"
        assert AIMessageChunk("x").chunk_position is None
        assert AIMessageChunk(chunk_position="last").chunk_position == "last"

    def test_usage_deltas_add_to_the_last_total(self) -> None:
        """Only deltas add; a total or a final figure replaces what came before."""
        usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        delta, total = UsageReport(usage, "delta"), UsageReport(usage, "total")
        final = UsageReport({**usage, "input_tokens": 9}, "final")
        double = {"input_tokens": 2, "output_tokens": 4, "total_tokens": 6}
        assert fold_events([delta, delta]).usage_metadata == double
        assert fold_events([delta, total]).usage_metadata == usage
        assert fold_events([total, delta]).usage_metadata == double
        assert fold_events([delta, final, total, final]).usage_metadata == final.usage

    def test_metadata_that_was_read_is_the_readers_own(self) -> None:
        """Neither a reader who changes it nor a later chunk reaches into the other."""
        one = AIMessageChunk(response_metadata={"logprobs": {"content": [1]}, "a": {"b": [1]}})
        seen = one.response_metadata
        two = one + AIMessageChunk(response_metadata={"logprobs": {"content": [2]}})
        assert two.response_metadata["logprobs"] == {"content": [1, 2]}
        assert seen["logprobs"] == {"content": [1]}
        seen["new"] = 1
        assert "new" not in one.response_metadata


NOTE = {"type": "citation", "url": "u"}

EVENTS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "text": (
        [{"type": "text", "text": "a", "annotations": [NOTE], "index": 1, "id": "t", "x": 2}],
        [TextDelta("a", 1), Annotation(NOTE, 1), BlockStart("text", 1, id="t", data={"x": 2})],
    ),
    "text with an id alone": (
        [{"type": "text", "text": "a", "id": "t"}],
        [TextDelta("a"), BlockStart("text", id="t")],
    ),
    "text that says nothing": ([{"type": "text"}, {"type": "text", "text": None}], []),
    "reasoning": (
        [{"type": "reasoning", "reasoning": "a", "index": 1, "id": "r", "extras": {"x": 2}}],
        [ReasoningDelta("a", 1), BlockStart("reasoning", 1, id="r", data={"extras": {"x": 2}})],
    ),
    "reasoning that says nothing": ([{"type": "reasoning"}], []),
    "a piece of a call": (
        [{"type": "tool_call_chunk", "args": "{", "index": 2, "id": "c", "name": "f"}],
        [ToolCallDelta("{", 2, id="c", name="f")],
    ),
    "a call that could not be read": (
        [{"type": "invalid_tool_call", "args": "{", "id": "c", "name": None, "error": "no"}],
        [ToolCallDelta("{", id="c")],
    ),
    "a piece of a call without arguments": (
        [{"type": "tool_call_chunk", "args": None, "index": 0, "id": "c", "name": "f"}],
        [ToolCallDelta("", 0, id="c", name="f")],
    ),
    "a piece of a server's call": (
        [{"type": "server_tool_call_chunk", "args": "{", "index": 2, "id": "c", "name": "f"}],
        [ToolCallDelta("{", 2, id="c", name="f", kind="server_tool_call")],
    ),
    "a call": (
        [{"type": "tool_call", "args": {"x": 1}, "index": 2, "id": "c", "name": "f"}],
        [ToolCallDelta('{"x":1}', 2, id="c", name="f")],
    ),
    "a call with what only the provider knows": (
        [{"type": "tool_call", "index": 2, "id": "c", "name": "f", "extras": {"a": 1}}],
        [ToolCallDelta("{}", 2, id="c", name="f"), ProviderData({"a": 1}, 2, "tool_call")],
    ),
    "a server's call": (
        [{"type": "server_tool_call", "id": "s", "name": "f", "args": {}, "index": 2}],
        [BlockStart("server_tool_call", 2, id="s", name="f", data={"args": {}})],
    ),
    "a server's call without a name": (
        [{"type": "server_tool_call", "id": "s", "args": {}}],
        [BlockStart("server_tool_call", id="s", data={"args": {}})],
    ),
    "a block that comes whole": (
        [{"type": "image", "url": "u", "index": 2, "id": "i"}],
        [BlockStart("image", 2, id="i", data={"url": "u"})],
    ),
}


def test_each_attribute_says_what_it_shows() -> None:
    for name in reading(EMPTY):
        assert getattr(AIMessageChunk, name).__doc__.endswith(".")


class TestByHand:
    def test_a_chunk_made_of_a_messages_fields_is_that_message(self) -> None:
        """Calls that are in the content and in `tool_calls` are the same calls, once."""
        message = AIMessage(
            [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "ok"}],
            id="m1",
            tool_calls=[{"name": "f", "args": {"x": 1}, "id": "1"}],
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            response_metadata={"model_name": "m"},
            finish_reason="tool_calls",
        )
        chunk = AIMessageChunk(
            message.content,
            id=message.id,
            tool_calls=message.tool_calls,
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            finish_reason=message.finish_reason,
        )
        assert chunk.to_message() == message
        assert chunk == message

    def test_every_block_type_comes_back(self) -> None:
        """Blocks given whole are read as they were given."""
        blocks: list[dict[str, Any]] = [
            {"type": "text", "text": "a", "annotations": [{"type": "citation", "url": "u"}]},
            {"type": "reasoning", "reasoning": "r", "extras": {"signature": "s"}},
            {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
            {"type": "image", "url": "https://x.example/1"},
            {"type": "audio", "base64": "QUJD", "id": "au"},
            {"type": "server_tool_call", "id": "s1", "name": "search", "args": {"q": 1}},
            {"type": "server_tool_result", "tool_call_id": "s1", "status": "success"},
            {"type": "non_standard", "value": {"type": "odd"}},
            {"type": "tool_call", "id": "1", "name": "f", "args": {"x": [1, None]}},
        ]
        assert AIMessageChunk(blocks, chunk_position="last").content_blocks == blocks

    @pytest.mark.parametrize(("content", "events"), EVENTS.values(), ids=EVENTS)
    def test_blocks_say_what_events_they_are(
        self, content: list[dict[str, Any]], events: list[Any]
    ) -> None:
        """Pieces are deltas, which go on; what comes whole is a start. All keep index and id."""
        assert AIMessageChunk(content).events == events

    def test_blocks_with_the_same_index_are_one(self) -> None:
        """Also where only the last piece says what else there is."""
        note, extras = {"type": "citation", "url": "u"}, {"signature": "s"}
        parts = [
            AIMessageChunk([{"type": kind, kind: text, "index": index}])
            for text in "ab"
            for index, kind in enumerate(("text", "reasoning"))
        ]
        parts.append(AIMessageChunk([{"type": "text", "annotations": [note], "index": 0}]))
        parts.append(AIMessageChunk([{"type": "reasoning", "extras": extras, "index": 1}]))
        assert sum(parts).content_blocks == [
            {"type": "text", "text": "ab", "annotations": [note]},
            {"type": "reasoning", "reasoning": "ab", "extras": extras},
        ]

    def test_fields_say_what_events_they_are(self) -> None:
        """In the order in which a provider would send them."""
        call = {"args": "{", "id": "1", "name": "f", "index": 0}
        bad = {"args": "[", "id": "3", "name": "g", "error": "no"}
        chunk = AIMessageChunk(
            ["a", {"type": "text", "text": "b"}],
            id="m",
            name="n",
            tool_call_chunks=[call],
            tool_calls=[{"name": "f", "args": {"x": 1}, "id": "2"}],
            invalid_tool_calls=[bad],
            response_metadata={"a": 1},
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            finish_reason="stop",
        )
        assert chunk.events == [
            MessageStart(id="m", name="n"),
            TextDelta("a"),
            TextDelta("b"),
            ToolCallDelta("{", 0, id="1", name="f"),
            ToolCallDelta('{"x":1}', id="2", name="f"),
            ToolCallDelta("[", id="3", name="g"),
            ProviderData({"a": 1}),
            UsageReport({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
            MessageEnd("stop"),
        ]
        assert AIMessageChunk().events == []
        assert AIMessageChunk(id="m").events == [MessageStart(id="m")]
        assert AIMessageChunk(name="n").events == [MessageStart(name="n")]
        assert AIMessageChunk(chunk_position="last").events == [MessageEnd()]

    @pytest.mark.parametrize("field", ["tool_calls", "invalid_tool_calls"])
    def test_a_call_in_the_content_and_in_a_field_is_one(self, field: Any) -> None:
        """By its id, wherever else in the content there is text; another id is another call."""
        kind = field.removesuffix("s")
        call = {"type": kind, "name": "f", "args": {} if kind == "tool_call" else "[", "id": "1"}
        for fields, ids in (([call], ["1"]), ([call, {**call, "id": "2"}], ["1", "2"])):
            made = AIMessageChunk(["text", call], **{field: fields}, chunk_position="last")
            assert [each["id"] for each in getattr(made, field)] == ids

    def test_an_id_is_made_up_where_none_came(self) -> None:
        """Once for each piece that may open a call, and it is no index of a provider's."""
        parts = [piece("{}", name="f") for _ in range(50)]
        ids = [part.tool_call_chunks[0]["id"] for part in parts]
        assert len(set(ids)) == 50
        assert all(re.fullmatch("call_[0-9a-f]{24}", id or "") for id in ids)
        image = {"type": "image", "url": "u"}
        indexes = [AIMessageChunk([image]).events[0].index for _ in range(50)]  # type: ignore[union-attr]
        assert len(set(indexes)) == 50
        assert all(-(2**63) <= (index or 0) < 0 for index in indexes)

    def test_blocks_without_index_do_not_fuse(self) -> None:
        """Two images are two blocks; two pieces of text are one."""
        image = {"type": "image", "url": "u"}
        parts = [AIMessageChunk([image, "a"]), AIMessageChunk(["b", image])]
        assert sum(parts).content_blocks == [image, {"type": "text", "text": "ab"}, image]

    def test_calls_with_the_same_name_and_no_id_stay_apart(self) -> None:
        made = AIMessageChunk(
            tool_calls=[{"name": "f", "args": {}}, {"name": "f", "args": {"x": 1}}]
        )
        assert calls(made) == [("f", {}), ("f", {"x": 1})]
        first, second = (call["id"] for call in made.tool_calls)
        assert first
        assert second
        assert first != second

    @pytest.mark.parametrize("content", [None, 5, object()])
    def test_content_of_another_type_is_refused(self, content: Any) -> None:
        says = f"content is {type(content).__name__}: expected a str or a list"
        with pytest.raises(ConfigurationError, match=says):
            AIMessageChunk(content)

    def test_events_that_are_none_are_refused(self) -> None:
        with pytest.raises(
            ConfigurationError, match="a str: expected chunk events such as TextDelta"
        ):
            AIMessageChunk(events=["text"])  # type: ignore[list-item]


class TestValues:
    @given(own.chunks)
    def test_pickle_and_copy_give_an_equal_chunk(self, chunk: AIMessageChunk) -> None:
        for twin in (pickle.loads(pickle.dumps(chunk)), copy.copy(chunk), copy.deepcopy(chunk)):
            assert isinstance(twin, AIMessageChunk)
            assert reading(twin) == reading(chunk)

    @given(st.lists(own.chunks, max_size=3))
    def test_plain_json_and_back(self, parts: list[AIMessageChunk]) -> None:
        """Through text, as a database keeps it, and still the type it was."""
        back = messages_from_dict(json.loads(json.dumps(messages_to_dict(parts))))
        assert all(isinstance(chunk, AIMessageChunk) for chunk in back)
        assert [reading(chunk) for chunk in back] == [reading(chunk) for chunk in parts]  # type: ignore[arg-type]

    @given(st.lists(own.chunk_events, max_size=8))
    def test_events_encode_and_decode(self, events: list[Any]) -> None:
        try:
            repr(events).encode()
            data = encode_events(events)
        except UnicodeEncodeError:  # half a surrogate pair: JSON in UTF-8 has none
            return
        assert decode_events(data) == events
        assert pickle.loads(pickle.dumps(events)) == events

    def test_a_stored_chunk_may_lack_its_events(self) -> None:
        assert AIMessageChunk.from_dict({"type": "AIMessageChunk"}) == EMPTY

    def test_a_stored_chunk_that_is_none_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="stored chunk"):
            messages_from_dict([{"type": "AIMessageChunk", "events": [{"type": "nonsense"}]}])

    def test_chunk_and_message_compare_by_what_they_say(self) -> None:
        chunk = AIMessageChunk("hi") + AIMessageChunk(finish_reason="stop")
        assert chunk == AIMessage("hi", finish_reason="stop") == chunk
        assert chunk != AIMessage("ho", finish_reason="stop")
        assert chunk != "hi"
        assert isinstance(chunk, AIMessage)
        with pytest.raises(TypeError):
            hash(chunk)

    def test_ids_that_were_made_up_do_not_count(self) -> None:
        """Two foldings of one answer are equal though each made up an id for the call."""
        one, two = (piece("{}", name="f", index=0) for _ in range(2))
        assert one == two
        assert one.tool_calls[0]["id"] != two.tool_calls[0]["id"]

    def test_one_piece_of_text_reads_as_any_chunk_does(self) -> None:
        plain, other = (
            TextChunk(text="a\u0301", index=3),
            AIMessageChunk(events=[TextDelta("a\u0301", 3)]),
        )
        assert reading(plain) == reading(other)
        assert plain == other
        assert repr(plain) == repr(other) == "AIMessageChunk('a\u0301')"
        assert plain.to_message() == AIMessage("a\u0301")
        assert plain.type == "AIMessageChunk"

    def test_repr_shows_what_is_there(self) -> None:
        chunk = AIMessageChunk("hi", id="1", response_metadata={"a": 1}, finish_reason="stop")
        assert repr(chunk) == (
            "AIMessageChunk('hi', id='1', finish_reason='stop', response_metadata={'a': 1})"
        )

    @given(own.chunks)
    def test_repr_never_raises(self, chunk: AIMessageChunk) -> None:
        assert repr(chunk).startswith("AIMessageChunk(")

    def test_a_chunk_cannot_be_changed(self) -> None:
        chunk = AIMessageChunk("hi")
        for name in ("id", "content", "tool_calls"):
            with pytest.raises(AttributeError):
                setattr(chunk, name, "x")


class TestToMessage:
    def test_it_is_a_message_and_equals_the_chunk(self) -> None:
        events = [
            MessageStart(id="1", model="m", provider="p"),
            ReasoningDelta("hm", 0),
            TextDelta("hi", 1),
            ToolCallDelta('{"x": 1}', 2, id="c", name="f"),
            UsageReport({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}),
            MessageEnd("tool_calls"),
        ]
        chunk = fold_events(events)
        message = chunk.to_message()
        assert type(message) is AIMessage
        assert message == chunk
        assert message.text == "hi"
        assert message.tool_calls == chunk.tool_calls
        assert message.response_metadata == {"id": "1", "model_name": "m", "model_provider": "p"}

    def test_the_providers_finish_reason_goes_before_the_given_one(self) -> None:
        assert AIMessageChunk("x").to_message("error").finish_reason == "error"
        done = AIMessageChunk("x", finish_reason="stop")
        assert done.to_message("error").finish_reason == "stop"

    def test_usage_that_was_reported_before_a_break_is_marked(self) -> None:
        """Not where the answer ended, nor where nothing was reported or nothing broke."""
        usage = AIMessageChunk(usage_metadata={"input_tokens": 1}, response_metadata={"a": 1})
        broken = usage.to_message("error")
        assert broken.response_metadata == {"a": 1, "usage_is_partial": True}
        assert usage.to_message().response_metadata == {"a": 1}
        ended = usage + AIMessageChunk(chunk_position="last")
        assert ended.to_message("error").response_metadata == {"a": 1}
        assert AIMessageChunk("x").to_message("error").response_metadata == {}

    @pytest.mark.parametrize(
        ("reason", "why"), [("cancelled", "was cancelled"), ("error", "broke off"), (None, "broke")]
    )
    def test_an_unfinished_call_says_why(self, reason: str | None, why: str) -> None:
        message = piece('{"x": ', id="1", name="f").to_message(reason)
        assert message.tool_calls == []
        assert why in (message.invalid_tool_calls[0]["error"] or "")


class TestReceived:
    @given(
        st.lists(st.lists(own.chunks, max_size=9), max_size=5),
        st.sampled_from([None, "error"]),
    )
    def test_it_is_the_sum(self, reads: list[list[Any]], reason: str | None) -> None:
        """However many chunks come at once, whatever stands between their texts."""
        received, total = Received(), AIMessageChunk()
        assert not received
        assert received.to_message(reason) is None
        for chunks in reads:
            received.extend(chunks)
            total = sum(chunks, total)
        assert bool(received) == any(reads)
        if received:
            assert received.to_message(reason) == total.to_message(reason)

    @pytest.mark.parametrize("at_once", [1, 5, 100])
    def test_text_is_kept_in_few_pieces(self, at_once: int) -> None:
        """Also where something else comes in between now and then."""
        received = Received()
        other = AIMessageChunk(response_metadata={"a": 1})
        chunks = [TextChunk(text=f"{n},", index=n // 500) if n % 20 else other for n in range(1000)]
        for n in range(0, len(chunks), at_once):
            received.extend(chunks[n : n + at_once])
        assert len(received._chunks) < len(chunks) / 2
        message = received.to_message(None)
        assert message is not None
        assert message.text == "".join(chunk.text for chunk in chunks)


class TestThreads:
    def test_two_threads_that_extend_one_view_get_two_right_results(self) -> None:
        """One of them gets the log, the other a copy; neither sees the other's text."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for round in range(200):
                self.race(round)
        finally:
            sys.setswitchinterval(interval)

    @staticmethod
    def race(round: int) -> None:
        base = sum((TextChunk(text=str(n), index=0) for n in range(round % 7)), AIMessageChunk())
        start = threading.Barrier(2)
        results: dict[str, list[str]] = {"a": [], "b": []}

        def extend(letter: str) -> None:
            start.wait()
            full = base
            for _ in range(5):
                full = full + TextChunk(text=letter, index=0)
                results[letter].append(full.text)

        threads = [threading.Thread(target=extend, args=(letter,)) for letter in results]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        text = "".join(str(n) for n in range(round % 7))
        assert base.text == text
        for letter, seen in results.items():
            assert seen == [text + letter * n for n in range(1, 6)]

    def test_threads_that_read_views_of_one_log_see_each_its_own(self) -> None:
        views = [AIMessageChunk()]
        for n in range(50):
            views.append(views[-1] + TextChunk(text=f"{n},", index=0))
        wrong: list[int] = []

        def read(order: range) -> None:
            wrong.extend(n for n in order if views[n].text != "".join(f"{m}," for m in range(n)))

        threads = [
            threading.Thread(target=read, args=(order,))
            for order in (range(51), range(50, -1, -1), range(0, 51, 3))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


class Counter:
    """What adding and reading did: events folded, log items copied, arguments parsed, characters
    of arguments scanned."""

    def __init__(self) -> None:
        self.events = self.copied = self.parses = self.scanned = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """Counts of work instead of seconds: the same on every machine."""
    count = Counter()

    def folding(handler: Any) -> Any:
        def handle(fold: Any, event: Any) -> None:
            count.events += 1
            handler(fold, event)

        return handle

    for kind, handler in list(fold_module._HANDLERS.items()):
        monkeypatch.setitem(fold_module._HANDLERS, kind, folding(handler))

    class Log(chunks_module._Log):
        __slots__ = ()

        def __init__(self, items: list[Any]) -> None:
            # One item is a new chunk or the first `+`; more is a copy of what was there.
            count.copied += len(items) if len(items) > 1 else 0
            super().__init__(items)

    monkeypatch.setattr(chunks_module, "_Log", Log)

    def parsing(function: Any) -> Any:
        def parse(*args: Any) -> Any:
            count.parses += 1
            return function(*args)

        return parse

    for name in ("judge", "read_unfinished"):
        monkeypatch.setattr(calls_module, name, parsing(getattr(calls_module, name)))

    scan = ObjectScanner._scan

    def scanning(scanner: ObjectScanner, text: str) -> None:
        count.scanned += len(text)
        scan(scanner, text)

    monkeypatch.setattr(ObjectScanner, "_scan", scanning)
    return count


class TestCost:
    @pytest.mark.parametrize("n", [1_000, 10_000, 50_000])
    def test_a_loop_of_adding_folds_each_event_once_and_copies_nothing(
        self, n: int, counted: Counter
    ) -> None:
        full = AIMessageChunk()
        for _ in range(n):
            full = full + TextChunk(text="x", index=0)
        assert len(full.text) == n
        assert full.content == full.text
        assert counted.events == n
        assert counted.copied == 0

    def test_reading_after_each_step_folds_each_event_once_too(self, counted: Counter) -> None:
        full = AIMessageChunk()
        for n in range(1, 2_001):
            full = full + AIMessageChunk(response_metadata={"n": n}) + TextChunk(text="x", index=0)
            assert full.response_metadata["n"] == n
            assert len(full.text) == n
        assert counted.events == 4_000
        assert counted.copied == 0

    @pytest.mark.parametrize("n", [1_000, 10_000])
    def test_an_older_view_is_copied_once(self, n: int, counted: Counter) -> None:
        """Going on from an old view costs its length once, not at each further step."""
        old = AIMessageChunk()
        for _ in range(n):
            old = old + TextChunk(text="x", index=0)
        newer = old + TextChunk(text="y", index=0)
        branch = old
        for _ in range(100):
            branch = branch + TextChunk(text="z", index=0)
        assert counted.copied == n
        assert newer.text == "x" * n + "y"
        assert branch.text == "x" * n + "z" * 100

    @pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000])
    @pytest.mark.parametrize("name", [None, "write"], ids=["name once", "name in each piece"])
    def test_tool_arguments_are_scanned_once_and_parsed_once(
        self, size: int, name: str | None, counted: Counter
    ) -> None:
        pieces = size // 20
        events = [
            ToolCallDelta('{"text": "', 0, name="write"),
            *(ToolCallDelta("x" * 20, 0, name=name) for _ in range(pieces)),
            ToolCallDelta('"}', 0, name=name),
            MessageEnd("tool_calls"),
        ]
        full = AIMessageChunk()
        for event in events:
            full = full + fold_events([event])
        assert full.tool_calls[0]["args"] == {"text": "x" * pieces * 20}
        assert counted.events == pieces + 3
        assert counted.parses == 1
        assert counted.scanned <= size + 20
        assert counted.copied == 0

    def test_a_reading_is_parsed_once_until_more_arrives(self, counted: Counter) -> None:
        """However often it is looked at, and by whichever attribute."""
        full = fold_events([ToolCallDelta("", 0, id="a", name="write")])
        for n in range(1, 101):
            full = full + fold_events([ToolCallDelta('{"text": "' if n == 1 else "x", 0)])
            readings = [full.tool_calls for _ in range(3)]
            assert readings == [readings[0]] * 3
            readings[0][0]["args"]["text"] = "changed"
            assert full.tool_calls == readings[1]
            assert counted.parses == n
        full = full + fold_events([ToolCallDelta('"}', 0), MessageEnd("tool_calls")])
        for _ in range(3):
            assert full.tool_calls[0]["args"] == {"text": "x" * 99}
            assert full.to_message().tool_calls[0]["args"] == {"text": "x" * 99}
            assert full.content_blocks[0]["args"] == {"text": "x" * 99}
        assert counted.parses == 101

    def test_lists_in_metadata_grow_in_place(self) -> None:
        """A stream with logprobs is not copied again with every token."""
        fold = fold_module.Fold()
        fold.take([ProviderData({"logprobs": {"content": [0]}})] * 2)
        places = []
        for n in range(100):
            fold.take([ProviderData({"logprobs": {"content": [n]}})])
            places.append(id(fold._meta["logprobs"]["content"]))
        assert len(set(places)) == 1
        assert len(fold.metadata()["logprobs"]["content"]) == 102


def test_adding_is_what_plus_is() -> None:
    """`operator.add` over chunks is the fold."""
    parts = [AIMessageChunk(text) for text in ("a", "b", "c")]
    assert reduce(add, parts).text == "abc"
