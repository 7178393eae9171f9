"""Conversations made shorter; a call and its result stay together or go together."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import init_chat_model
from streamfold.errors import ConfigurationError
from streamfold.history import (
    count_tokens_approximately,
    filter_messages,
    merge_message_runs,
    trim_messages,
)
from streamfold.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
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


# ---- laws over conversations of any shape --------------------------------------------------------


@st.composite
def conversations(draw: st.DrawFn) -> list[BaseMessage]:
    """Turns of a person, answers, and calls of tools: some at once, some unreadable, some that are
    not answered. Ids come again in later turns, as some providers' do."""
    messages: list[BaseMessage] = []
    if draw(st.booleans()):
        messages.append(SystemMessage("be nice"))
    for turn in range(draw(st.integers(0, 5))):
        messages.append(HumanMessage(f"q{turn}", name=draw(st.sampled_from([None, "ann", "bob"]))))
        for step in range(draw(st.integers(0, 2))):
            ids = draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1))
            good = [id for id in ids if draw(st.booleans())]
            bad = [id for id in ids if id not in good]
            calls = [{"name": "f", "args": {}, "id": id} for id in good]
            broken = [{"name": "f", "args": "{", "id": id, "error": "cut off"} for id in bad]
            text = draw(st.sampled_from(["", "let me see\nnow"]))
            id = f"{turn}.{step}"
            messages.append(AIMessage(text, id=id, tool_calls=calls, invalid_tool_calls=broken))
            answered = draw(st.permutations(ids))[: draw(st.integers(0, len(ids)))]
            messages += [ToolMessage(f"r{id}.{a}", tool_call_id=a) for a in answered]
        if draw(st.booleans()):
            messages.append(AIMessage(f"a{turn}", id=f"{turn}"))
    return messages


Exchanges = dict[str, set[str]]


def exchanges(messages: list[BaseMessage]) -> Exchanges:
    """The results of each call, by the text of the results, which is unlike any other; the call is
    the nearest before them. Raises KeyError for a result without a call."""
    found: Exchanges = {}
    asked: dict[str, str] = {}
    for message in messages:
        if isinstance(message, AIMessage):
            for id in calls_of([message]):
                asked[id] = f"{message.id}.{id}"
                found[asked[id]] = set()
        elif isinstance(message, ToolMessage):
            found[asked[message.tool_call_id]].add(message.text)
    return found


def assert_whole(kept: list[BaseMessage], talk: list[BaseMessage]) -> None:
    """Every call that is kept has the results it had, and every result its call."""
    before = exchanges(talk)
    for call, results in exchanges(kept).items():
        assert results == before[call]


kinds = st.none() | st.sampled_from(["human", "ai", "tool", "system"])


@given(
    talk=conversations(),
    budget=st.integers(0, 20),
    last=st.booleans(),
    start_on=kinds,
    end_on=kinds,
    include_system=st.booleans(),
    allow_partial=st.booleans(),
)
def test_what_is_trimmed_is_within_the_budget_and_whole(
    talk: list[BaseMessage],
    budget: int,
    last: bool,
    start_on: Any,
    end_on: Any,
    include_system: bool,
    allow_partial: bool,
) -> None:
    """A run of the conversation, from the side that was asked for."""

    def lines(messages: list[Any]) -> int:
        return sum(1 + m.text.count("\n") for m in messages)

    kept = trim_messages(
        talk,
        max_tokens=budget,
        token_counter=lines,
        strategy="last" if last else "first",
        start_on=start_on if last else None,
        end_on=end_on,
        include_system=include_system and last,
        allow_partial=allow_partial,
    )
    assert_whole(kept, talk)
    body = list(kept)
    if include_system and last and body and isinstance(body[0], SystemMessage):
        body = body[1:]
    assert lines(kept) <= max(budget, len(kept) - len(body))
    if body and end_on:
        assert body[-1].type == end_on
    if body and last and start_on:
        assert body[0].type == start_on
    texts = [m.text for m in talk]
    if not allow_partial:  # in order, each as it was
        left = iter(texts)
        assert all(m.text in left for m in kept)
    if lines(talk) <= budget and not start_on and not end_on:
        assert kept == talk


@given(talk=conversations(), budget=st.integers(0, 20), last=st.booleans())
def test_trimming_twice_is_trimming_once(talk: list[BaseMessage], budget: int, last: bool) -> None:
    """What fits stays as it is."""
    strategy: Any = "last" if last else "first"
    kept = trim_messages(talk, max_tokens=budget, token_counter=each, strategy=strategy)
    assert trim_messages(kept, max_tokens=budget, token_counter=each, strategy=strategy) == kept


@given(
    talk=conversations(),
    include_types=st.none() | st.lists(st.sampled_from(["human", "ai", "tool"])),
    exclude_types=st.none() | st.lists(st.sampled_from(["human", "ai", "tool"])),
    exclude_ids=st.none() | st.lists(st.sampled_from(["0.0", "1.0", "1.1", "2"])),
    exclude_names=st.none() | st.just(["ann"]),
    exclude_tool_calls=st.none() | st.booleans() | st.lists(st.sampled_from("abc")),
)
def test_what_is_filtered_is_whole(talk: list[BaseMessage], **filters: Any) -> None:
    """Nothing that is excluded stays, no exchange is torn, and filtering again changes nothing."""
    kept = filter_messages(talk, **filters)
    assert_whole(kept, talk)
    for message in kept:
        assert message.type not in (filters["exclude_types"] or ())
        assert filters["include_types"] is None or message.type in filters["include_types"]
        assert message.id is None or message.id not in (filters["exclude_ids"] or ())
        assert message.name not in (filters["exclude_names"] or ("",))
    excluded = filters["exclude_tool_calls"]
    assert excluded is not True or calls_of(kept) == results_of(kept) == []
    assert not set(calls_of(kept)) & set(excluded if isinstance(excluded, list) else ())
    assert filter_messages(kept, **filters) == kept


@given(talk=conversations())
def test_merging_loses_nothing(talk: list[BaseMessage]) -> None:
    """Neighbours differ in kind afterwards, texts and calls are all there, in their order."""
    merged = merge_message_runs(talk, chunk_separator="")
    for one, two in pairwise(merged):
        assert one.type != two.type or one.type == "tool"
    assert "".join(m.text for m in merged) == "".join(m.text for m in talk)
    assert results_of(merged) == results_of(talk)
    assert sorted(calls_of(merged)) == sorted(calls_of(talk)) or _a_run_repeats_an_id(talk)
    assert merge_message_runs(merged, chunk_separator="") == merged


def _a_run_repeats_an_id(talk: list[BaseMessage]) -> bool:
    """Two answers in a row that call by the same id: in one message that is one call."""
    return any(
        isinstance(two, AIMessage) and set(calls_of([one])) & set(calls_of([two]))
        for one, two in pairwise(talk)
    )


@given(talk=conversations())
def test_stored_conversations_come_back(talk: list[BaseMessage]) -> None:
    """Through JSON, equal and of the same types."""
    back = messages_from_dict(json.loads(json.dumps(messages_to_dict(talk))))
    assert back == talk
    assert [type(m) for m in back] == [type(m) for m in talk]


# ---- rows ----------------------------------------------------------------------------------------


def test_ids_that_come_again_belong_to_the_nearest_call() -> None:
    """A result of an earlier turn is not saved by a later call with the same id."""
    turns: list[BaseMessage] = []
    for n in range(2):
        turns.append(AIMessage("", id=str(n), tool_calls=[{"name": "f", "args": {}, "id": "0"}]))
        turns.append(ToolMessage(f"r{n}", tool_call_id="0"))
    assert trim_messages(turns, max_tokens=3, token_counter=each) == turns[2:]
    assert filter_messages(turns, exclude_ids=["0"]) == turns[2:]


def test_counters_of_every_kind() -> None:
    """Of a list, of one message by its annotation, of a model, or none."""
    talk = [HumanMessage("a" * 40), AIMessage("b" * 40), HumanMessage("c" * 4)]

    def of_one(message: BaseMessage) -> int:
        return len(message.text)

    class Model:
        def get_num_tokens_from_messages(self, messages: list[BaseMessage]) -> int:
            return sum(len(m.text) for m in messages)

    for counter in (of_one, Model(), Model().get_num_tokens_from_messages):
        assert trim_messages(talk, max_tokens=44, token_counter=counter) == talk[1:]
    assert trim_messages(talk, max_tokens=22) == talk[1:]
    asked = init_chat_model("gpt-4.1", api_key="k")
    assert trim_messages(talk, max_tokens=22, token_counter=asked) == talk[1:]
    assert asked.get_num_tokens("x" * 40) == 10


def test_parts_between_blocks() -> None:
    """`allow_partial` cuts a list of blocks between them, and a text in it at lines."""
    image = {"type": "image", "url": "https://example.com/a.png"}
    seen = HumanMessage([{"type": "text", "text": "one\ntwo"}, image])

    def weight(messages: list[Any]) -> int:
        return sum(
            1 if b["type"] == "image" else len(b["text"].split())
            for m in messages
            for b in m.content_blocks
        )

    def parts(strategy: Any, budget: int) -> Any:
        return trim_messages(
            [seen], max_tokens=budget, token_counter=weight, strategy=strategy, allow_partial=True
        )

    assert parts("first", 1) == [HumanMessage("one\n")]
    assert parts("last", 1) == [HumanMessage([image])]
    assert parts("last", 2) == [HumanMessage([{"type": "text", "text": "two"}, image])]
    assert parts("last", 3) == [seen]


def test_a_splitter_of_ones_own() -> None:
    """A function, or an object with `split_text`."""

    class Words:
        def split_text(self, text: str) -> list[str]:
            return [f"{word} " for word in text.split()]

    def words(messages: list[Any]) -> int:
        return sum(len(m.text.split()) for m in messages)

    for splitter in (Words(), Words().split_text):
        (kept,) = trim_messages(
            ["a b c d"],
            max_tokens=2,
            token_counter=words,
            strategy="first",
            allow_partial=True,
            text_splitter=splitter,
        )
        assert kept.text == "a b "


@pytest.mark.parametrize("bad", [-1, "5", 1.5, True, None])
def test_impossible_budgets_are_refused(bad: Any) -> None:
    """Instead of a comparison that fails somewhere inside."""
    with pytest.raises(ConfigurationError, match="max_tokens"):
        trim_messages(TALK, max_tokens=bad)


def test_merged_answers_add_up_their_usage() -> None:
    """The first id, the last finish reason; a folded chunk is a message like any other."""
    usage: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    chunk = AIMessageChunk("a", id="1") + AIMessageChunk("b", usage_metadata=usage)
    two = AIMessage("c", id="2", usage_metadata=usage, finish_reason="stop")
    (merged,) = merge_message_runs([chunk, two])
    assert (merged.text, merged.id) == ("ab\nc", "1")
    assert isinstance(merged, AIMessage)
    assert merged.finish_reason == "stop"
    assert merged.usage_metadata == {key: 2 * n for key, n in usage.items()}
