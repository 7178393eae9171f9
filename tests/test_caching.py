"""Cache breakpoints: where `cache_prompt` puts them, and what each vendor is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    cache_prompt,
    init_chat_model,
    tool,
)
from streamfold.errors import ConfigurationError
from streamfold.messages import BaseMessage, messages_from_dict, messages_to_dict
from streamfold.testing import EmbeddedProvider
from streamfold.tool_definitions import bound_tools
from streamfold.vendors import DIALECTS, dialect, vendor
from streamfold.wire.request import ChatRequest

MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}

messages = st.one_of(
    st.builds(SystemMessage, st.text(min_size=1)),
    st.builds(HumanMessage, st.text(min_size=1)),
    st.builds(AIMessage, st.text(min_size=1)),
    st.builds(lambda text: HumanMessage(text, extras={"cache_control": MARK}), st.text(min_size=1)),
)
conversations = st.lists(messages, min_size=1, max_size=6)


def marked(said: list[BaseMessage]) -> list[int]:
    return [place for place, message in enumerate(said) if "cache_control" in message.extras]


# ---- where ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "places"),
    [
        ("hi", [0]),
        ([SystemMessage("s")], [0]),
        ([SystemMessage("s"), HumanMessage("a")], [0, 1]),
        ([SystemMessage("s"), SystemMessage("t"), HumanMessage("a")], [1, 2]),
        ([HumanMessage("a"), AIMessage("b"), SystemMessage("s"), HumanMessage("c")], [3]),
        ([{"role": "system", "content": "s"}, ("user", "a"), ("assistant", "b")], [0, 2]),
    ],
)
def test_after_the_instructions_and_after_all(said: Any, places: list[int]) -> None:
    assert marked(cache_prompt(said)) == places


@given(conversations)
def test_it_marks_two_at_most_and_changes_nothing_else(said: list[BaseMessage]) -> None:
    before = messages_to_dict(said)
    cached = cache_prompt(said)
    assert len(marked(cached)) <= 2
    assert marked(cached)[-1] == len(said) - 1
    assert [(m.role, m.content) for m in cached] == [(m.role, m.content) for m in said]
    assert messages_to_dict(said) == before


@given(conversations, conversations)
def test_breakpoints_move_with_the_conversation(
    said: list[BaseMessage], more: list[BaseMessage]
) -> None:
    """Twice is once, and what was marked before leaves no trace, also after a database."""
    cached = cache_prompt(said)
    assert cache_prompt(cached) == cached
    assert cache_prompt([*messages_from_dict(messages_to_dict(cached)), *more]) == cache_prompt(
        [*said, *more]
    )


def test_lifetime_and_the_least_number_of_messages() -> None:
    said = [HumanMessage("a"), AIMessage("b"), HumanMessage("c")]
    assert cache_prompt(said, ttl="1h")[2].extras == {"cache_control": HOUR}
    assert marked(cache_prompt(said, min_messages=4)) == []
    assert marked(cache_prompt(cache_prompt(said), min_messages=4)) == []
    assert marked(cache_prompt(said, min_messages=3)) == [2]


@pytest.mark.parametrize(
    "fields", [{"ttl": "2h"}, {"ttl": 300}, {"min_messages": -1}, {"min_messages": True}]
)
def test_what_cannot_be(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"ttl is|min_messages is"):
        cache_prompt("hi", **fields)


# ---- what the vendors are told -------------------------------------------------------------------

CALL: Any = {"name": "f", "args": {}, "id": "c1", "type": "tool_call"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SAID: list[BaseMessage] = [
    SystemMessage("rules"),
    HumanMessage("a"),
    AIMessage("b"),
    HumanMessage("c"),
]
CLAUDE = "anthropic.claude-sonnet-4-5"


def body(name: str, said: Any, **fields: Any) -> Any:
    request = ChatRequest(model=fields.pop("model", "m"), messages=said, **fields)
    return json.loads(dialect(name).encode(request).body)


@pytest.mark.parametrize(
    "name", [name for name in DIALECTS if name not in ("anthropic", "bedrock")]
)
def test_those_who_need_no_telling_get_the_same_request(name: str) -> None:
    assert body(name, cache_prompt(SAID)) == body(name, SAID)


def test_claude_by_anthropic() -> None:
    sent = body("anthropic", cache_prompt(SAID, ttl="1h"))
    assert sent["system"] == [{"type": "text", "text": "rules", "cache_control": HOUR}]
    assert [message["content"] for message in sent["messages"]] == [
        "a",
        "b",
        [{"type": "text", "text": "c", "cache_control": HOUR}],
    ]


@pytest.mark.parametrize(
    ("last", "block"),
    [
        (
            ToolMessage("r", tool_call_id="c1"),
            {"type": "tool_result", "tool_use_id": "c1", "content": "r", "cache_control": MARK},
        ),
        (
            AIMessage("", tool_calls=[CALL]),
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}, "cache_control": MARK},
        ),
        (
            HumanMessage([{"type": "text", "text": "x", "cache_control": HOUR}]),
            {"type": "text", "text": "x", "cache_control": HOUR},  # its own mark counts
        ),
    ],
)
def test_the_last_block_whatever_it_is(last: Any, block: Any) -> None:
    said = [HumanMessage("a"), AIMessage("", tool_calls=[CALL]), last]
    assert body("anthropic", cache_prompt(said))["messages"][-1]["content"][-1] == block


def test_thinking_takes_no_mark() -> None:
    thought = {"type": "reasoning", "reasoning": "r", "extras": {"signature": "s"}}
    said = [HumanMessage("a"), AIMessage([{"type": "text", "text": "b"}, thought])]
    text, thinking = body("anthropic", cache_prompt(said))["messages"][-1]["content"]
    assert (text.get("cache_control"), thinking.get("cache_control")) == (MARK, None)
    alone = cache_prompt([HumanMessage("a"), AIMessage([thought])])
    assert "cache_control" not in json.dumps(body("anthropic", alone))


def test_claude_by_bedrock() -> None:
    sent = body("bedrock", cache_prompt(SAID, ttl="1h"), model=CLAUDE)
    point = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert sent["system"] == [{"text": "rules"}, point]
    assert sent["messages"][-1]["content"] == [{"text": "c"}, point]
    assert body("bedrock", cache_prompt(SAID), model=CLAUDE)["system"][1] == {
        "cachePoint": {"type": "default"}
    }


def test_claude_by_openrouter() -> None:
    with EmbeddedProvider() as provider:
        url = f"{provider.url}/v1"
        init_chat_model("openrouter:claude", base_url=url, api_key="k").invoke(cache_prompt(SAID))
        init_chat_model("openai:gpt-4.1", base_url=url, api_key="k").invoke(cache_prompt(SAID))
        theirs, openais = (request.json()["messages"] for request in provider.requests)
    assert theirs[0]["content"] == [{"type": "text", "text": "rules", "cache_control": MARK}]
    assert theirs[1]["content"] == "a"
    assert theirs[3]["content"] == [{"type": "text", "text": "c", "cache_control": MARK}]
    assert "cache_control" not in json.dumps(openais)
    assert "cache_marks" in vendor("openrouter").quirks


# ---- marks by hand -------------------------------------------------------------------------------


def by_hand(count: int) -> Iterator[BaseMessage]:
    for number in range(count):
        text = {"type": "text", "text": str(number), "cache_control": MARK}
        yield (
            HumanMessage([text])
            if number % 2
            else HumanMessage([{"type": "text", "text": "-"}, text])
        )


@pytest.mark.parametrize(("name", "model"), [("anthropic", "claude-x"), ("bedrock", CLAUDE)])
def test_a_breakpoint_too_many(name: str, model: str) -> None:
    tool = {**TOOL, "cache_control": MARK}
    body(name, list(by_hand(4)), model=model)
    body(name, list(by_hand(3)), model=model, tools=[tool])
    for said, tools in ((by_hand(5), []), (by_hand(4), [tool])):
        with pytest.raises(ConfigurationError, match=r"has 5 cache breakpoints.* at most 4"):
            body(name, list(said), model=model, tools=tools)


def test_marks_inside_a_result_and_for_all_count_too() -> None:
    result = ToolMessage([{"type": "text", "text": "r", "cache_control": MARK}], tool_call_id="c1")
    said = [*by_hand(3), AIMessage("", tool_calls=[CALL]), result]
    assert "cache_control" in json.dumps(body("anthropic", said))
    with pytest.raises(ConfigurationError, match="has 5 cache breakpoints"):
        body("anthropic", said, extra={"cache_control": MARK})


def test_a_field_of_that_name_in_data_is_no_breakpoint() -> None:
    call: Any = {**CALL, "args": {"cache_control": 1, "content": [{"cache_control": 1}] * 9}}
    said = [*by_hand(4), AIMessage("", tool_calls=[call]), ToolMessage("r", tool_call_id="c1")]
    body("anthropic", said)


@pytest.mark.parametrize(
    ("vendor", "dialect", "taken"),
    [
        ("anthropic", "anthropic", {"cache_control", "defer_loading"}),
        ("bedrock", "bedrock", {"cache_control"}),
        ("openrouter", "openai_chat", {"cache_control"}),
        ("openai", "openai_chat", {"defer_loading"}),
        ("google_genai", "gemini", set()),
        ("ollama", "ollama", set()),
    ],
)
def test_extras_of_a_tool_go_to_the_vendors_that_know_them(
    vendor: str, dialect: str, taken: set[str]
) -> None:
    @tool(extras={"cache_control": MARK, "defer_loading": True, "odd": 1})
    def look(at: str) -> str:
        """Look."""
        return at

    (definition,) = bound_tools([look], vendor=vendor, dialect=dialect)
    assert definition.keys() == {"type", "function"} | taken


def test_a_mark_in_the_extras_of_a_tool_is_sent() -> None:
    marked = tool("look", description="Look.", extras={"cache_control": MARK})(lambda: "")
    with EmbeddedProvider() as provider:
        model = init_chat_model("anthropic:claude-sonnet-4-5", base_url=provider.url, api_key="k")
        model.bind_tools([marked]).invoke("hi")
        assert provider.requests[-1].json()["tools"][0]["cache_control"] == MARK
