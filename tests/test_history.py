"""Conversations made shorter; a call and its result stay together or go together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.errors import ConfigurationError
from streamfold.history import (
    count_tokens_approximately,
    filter_messages,
    merge_message_runs,
    trim_messages,
)
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

BOTH = AIMessage(
    "Let me see.",
    id="ai1",
    tool_calls=[{"name": "f", "args": {}, "id": "1"}, {"name": "g", "args": {}, "id": "2"}],
)
ONE, TWO = ToolMessage("one", tool_call_id="1"), ToolMessage("two", tool_call_id="2")
BAD = AIMessage(
    "", invalid_tool_calls=[{"name": "f", "args": "{", "id": "9", "error": "not valid JSON"}]
)
NINE = ToolMessage("unreadable", tool_call_id="9", status="error")
TALK: list[Any] = [
    SystemMessage("be nice"),
    HumanMessage("hi", name="ann"),
    BOTH,
    ONE,
    TWO,
    AIMessage("done", id="ai2"),
    HumanMessage("more", name="bob"),
    BAD,
    NINE,
    AIMessage("again"),
]


def each(messages: list[Any]) -> int:
    """Every message is one token."""
    return len(messages)


def calls_of(messages: list[BaseMessage]) -> list[Any]:
    return [
        call["id"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in (*message.tool_calls, *message.invalid_tool_calls)
    ]


def results_of(messages: list[BaseMessage]) -> list[Any]:
    return [m.tool_call_id for m in messages if isinstance(m, ToolMessage)]


def assert_paired(kept: list[BaseMessage], whole: list[BaseMessage]) -> None:
    """Every result has its call before it, every call that was answered has its result."""
    for place, message in enumerate(kept):
        if isinstance(message, ToolMessage):
            assert message.tool_call_id in calls_of(kept[:place])
    answered = set(calls_of(whole)) & set(results_of(whole))
    assert set(calls_of(kept)) & answered <= set(results_of(kept))


KINDS = ["human", "ai", "tool", "system", None]


@given(
    budget=st.integers(0, 12),
    strategy=st.sampled_from(["first", "last"]),
    start_on=st.sampled_from(KINDS),
    end_on=st.sampled_from(KINDS),
    include_system=st.booleans(),
    partial=st.booleans(),
    start=st.integers(0, 9),
)
def test_trimming_never_splits_a_call_from_its_result(
    budget: int,
    strategy: Any,
    start_on: Any,
    end_on: Any,
    include_system: bool,
    partial: bool,
    start: int,
) -> None:
    """Within the budget, in order, beginning and ending as asked."""
    last = strategy == "last"
    messages = TALK[start:]
    if start in (3, 4, 8):  # an orphan result at the start is nobody's
        messages = TALK
    kept = trim_messages(
        messages,
        max_tokens=budget,
        token_counter=each,
        strategy=strategy,
        end_on=end_on,
        start_on=start_on if last else None,
        include_system=include_system and last,
        allow_partial=partial,
    )
    assert len(kept) <= max(budget, 1 if include_system else 0)
    assert_paired(kept, messages)
    places = [messages.index(message) for message in kept]
    assert places == sorted(places)
    body = kept[1:] if include_system and last and kept[:1] == TALK[:1] else kept
    if body and end_on:
        assert body[-1].type == end_on
    if body and start_on and last:
        assert body[0].type == start_on


def test_everything_stays_where_everything_fits() -> None:
    """Answers to unreadable calls and calls that wait for their answer included."""
    waiting = [
        *TALK,
        HumanMessage("x"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "7"}]),
    ]
    for strategy in ("first", "last"):
        kept = trim_messages(
            waiting,
            max_tokens=99,
            token_counter=each,
            strategy=strategy,  # type: ignore[arg-type]
        )
        assert kept == waiting


@pytest.mark.parametrize(
    ("strategy", "budget", "expected"),
    [
        ("first", 2, TALK[:2]),
        ("first", 3, TALK[:2]),
        ("first", 4, TALK[:2]),
        ("first", 5, TALK[:5]),
        ("last", 1, TALK[9:]),
        ("last", 2, TALK[9:]),
        ("last", 3, TALK[7:]),
        ("last", 6, TALK[5:]),
        ("last", 7, TALK[5:]),
        ("last", 8, TALK[2:]),
    ],
)
def test_the_most_that_fits_in_whole_exchanges(strategy: Any, budget: int, expected: Any) -> None:
    """From either end."""
    kept = trim_messages(TALK, max_tokens=budget, token_counter=each, strategy=strategy)
    assert kept == expected


def test_the_system_message_can_stay() -> None:
    """It counts, and it comes first."""
    kept = trim_messages(
        TALK, max_tokens=4, token_counter=each, include_system=True, start_on="human"
    )
    assert kept == TALK[:1]
    kept = trim_messages(
        TALK, max_tokens=5, token_counter=each, include_system=True, start_on=HumanMessage
    )
    assert kept == [TALK[0], *TALK[6:]]


@pytest.mark.parametrize(("strategy", "text"), [("first", "a\nb\n"), ("last", "c\nd")])
def test_a_part_of_the_next_message_can_fill_the_rest(strategy: Any, text: str) -> None:
    """Cut at lines, from the side that is kept."""

    def lines(messages: list[Any]) -> int:
        return sum(len(message.text.splitlines()) for message in messages)

    long = HumanMessage("a\nb\nc\nd")
    messages = [AIMessage("x"), long] if strategy == "first" else [long, AIMessage("x")]
    kept = trim_messages(
        messages, max_tokens=3, token_counter=lines, strategy=strategy, allow_partial=True
    )
    assert sorted(m.text for m in kept) == sorted(["x", text])


def test_parameters_that_do_not_fit_are_refused() -> None:
    """Instead of being ignored."""
    for params in (
        {"strategy": "middle"},
        {"strategy": "first", "start_on": "human"},
        {"strategy": "first", "include_system": True},
        {"token_counter": 5},
    ):
        with pytest.raises(ConfigurationError):
            trim_messages(TALK, max_tokens=5, **params)  # type: ignore[arg-type]


@given(
    include_types=st.none() | st.lists(st.sampled_from(["human", "ai", "tool", "system"])),
    exclude_types=st.none() | st.lists(st.sampled_from(["human", "ai", "tool", "system"])),
    include_names=st.none() | st.lists(st.sampled_from(["ann", "bob"])),
    exclude_ids=st.none() | st.lists(st.sampled_from(["ai1", "ai2"])),
    exclude_tool_calls=st.none() | st.booleans() | st.lists(st.sampled_from(["1", "2", "9"])),
)
def test_filtering_never_splits_a_call_from_its_result(**filters: Any) -> None:
    """Whatever is left out."""
    kept = filter_messages(TALK, **filters)
    assert_paired(kept, TALK)
    excluded = filters["exclude_tool_calls"]
    if excluded is True:
        assert calls_of(kept) == []
    elif excluded:
        assert not set(calls_of(kept)) & set(excluded)


def test_filters() -> None:
    """Includes are alternatives, excludes win."""
    assert filter_messages(TALK, include_types="human") == [TALK[1], TALK[6]]
    assert filter_messages(TALK, include_names=["ann"], include_ids=["ai2"]) == [TALK[1], TALK[5]]
    assert filter_messages(TALK, include_types=[HumanMessage], exclude_names=["bob"]) == [TALK[1]]
    assert filter_messages(TALK, exclude_types=SystemMessage) == TALK[1:]
    assert filter_messages(TALK) == TALK
    assert [m.text for m in filter_messages(TALK, exclude_types="tool")] == [
        *("be nice", "hi", "Let me see.", "done", "more", "again")
    ]


def test_excluding_one_call_leaves_the_other() -> None:
    """With the text around it."""
    kept = filter_messages(TALK, exclude_tool_calls=["1", "9"])
    assert calls_of(kept) == ["2"]
    assert results_of(kept) == ["2"]
    assert "Let me see." in [m.text for m in kept]


def test_merging_keeps_calls_and_order() -> None:
    """Neighbours of one kind become one; tool results stay apart."""
    merged = merge_message_runs(
        [HumanMessage("a"), HumanMessage("b"), BOTH, AIMessage("c"), ONE, TWO, SystemMessage("s")]
    )
    assert [m.type for m in merged] == ["human", "ai", "tool", "tool", "system"]
    assert merged[0].text == "a\nb"
    assert calls_of(merged) == ["1", "2"]
    assert "Let me see." in merged[1].text
    assert merged[1].text.endswith("c")
    two = merge_message_runs(
        [BOTH, AIMessage("", tool_calls=[{"name": "h", "args": {}, "id": "3"}])]
    )
    assert calls_of(two) == ["1", "2", "3"]
    assert merge_message_runs(["a", "b"], chunk_separator="")[0].text == "ab"


def test_nothing_that_was_given_changes() -> None:
    """Messages are values."""
    before = [m.to_dict() for m in TALK]
    merge_message_runs(TALK)
    filter_messages(TALK, exclude_tool_calls=["1"])
    trim_messages(TALK, max_tokens=3, token_counter=each)
    assert [m.to_dict() for m in TALK] == before


def test_counting() -> None:
    """A quarter of the characters, three per message, more for images and calls."""
    assert count_tokens_approximately([HumanMessage("x" * 40)]) == (40 + 4) / 4 + 3
    plain = count_tokens_approximately([HumanMessage("look")])
    image = {"type": "image", "url": "https://example.com/a.png"}
    seen = count_tokens_approximately([HumanMessage([{"type": "text", "text": "look"}, image])])
    assert seen == plain + 85
    assert count_tokens_approximately([BOTH]) > count_tokens_approximately(["Let me see."])
    assert count_tokens_approximately(TALK) == sum(count_tokens_approximately([m]) for m in TALK)


def test_no_messages_are_no_error() -> None:
    """Nothing in, nothing out."""
    assert count_tokens_approximately([]) == 0
    assert trim_messages([], max_tokens=5) == []
    assert filter_messages([], include_types="human") == []
    assert merge_message_runs([]) == []
