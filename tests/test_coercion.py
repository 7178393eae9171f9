"""What callers may pass as input, and what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import ConfigurationError
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_to_dict,
)

HI = HumanMessage("hi")
CALL = {"name": "add", "args": {"a": 1}, "id": "call_1", "type": "tool_call"}
WIRE_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a": 1}'},
}
PARTS = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://x/y"}}]

ACCEPTED: list[tuple[str, Any, list[BaseMessage]]] = [
    ("str", "hi", [HI]),
    ("empty str", "", [HumanMessage("")]),
    ("message", HI, [HI]),
    ("dict", {"role": "user", "content": "hi"}, [HI]),
    ("strings", ["hi", "there"], [HI, HumanMessage("there")]),
    ("tuple of messages", (HI, AIMessage("yes")), [HI, AIMessage("yes")]),
    ("pairs", [("system", "s"), ["human", "hi"]], [SystemMessage("s"), HI]),
    ("pair with parts", [("user", PARTS)], [HumanMessage(PARTS)]),
    ("mixed", ["hi", ("ai", "yes"), HI], [HI, AIMessage("yes"), HI]),
    ("type for role", [{"type": "human", "content": "hi"}], [HI]),
    ("role before type", [{"role": "user", "type": "message", "content": "hi"}], [HI]),
    ("ids and names", {"role": "user", "content": "hi", "id": "m", "name": "Bo"},
     [HumanMessage("hi", id="m", name="Bo")]),
    ("nulls say nothing", {"role": "user", "content": "hi", "tool_calls": None}, [HI]),
    ("developer", [("developer", "d")], [SystemMessage("d", extras={"role": "developer"})]),
    ("assistant without content", [{"role": "assistant", "content": None}], [AIMessage("")]),
    ("assistant with calls only", [{"role": "assistant", "tool_calls": [WIRE_CALL]}],
     [AIMessage("", tool_calls=[CALL])]),
    ("standard calls", [{"role": "ai", "content": "", "tool_calls": [CALL]}],
     [AIMessage("", tool_calls=[CALL])]),
    ("arguments as a dict", [{"role": "ai", "tool_calls": [
        {"id": "call_1", "function": {"name": "add", "arguments": {"a": 1}}}]}],
     [AIMessage("", tool_calls=[CALL])]),
    ("no arguments", [{"role": "ai", "tool_calls": [
        {"id": "call_1", "function": {"name": "add", "arguments": ""}}]}],
     [AIMessage("", tool_calls=[{**CALL, "args": {}}])]),
    ("further fields of a call", [{"role": "ai", "tool_calls": [{**WIRE_CALL, "index": 0}]}],
     [AIMessage("", tool_calls=[{**CALL, "extras": {"index": 0}}])]),
    ("unknown fields", [{"role": "assistant", "content": "a", "reasoning_content": "r",
                         "refusal": None, "prefix": True}],
     [AIMessage("a", extras={"reasoning_content": "r", "prefix": True})]),
    ("refusal only", [{"role": "assistant", "refusal": "no"}],
     [AIMessage("", extras={"refusal": "no"})]),
    ("tool result", [{"role": "assistant", "tool_calls": [WIRE_CALL]},
                     {"role": "tool", "tool_call_id": "call_1", "content": "1", "name": "add"}],
     [AIMessage("", tool_calls=[CALL]), ToolMessage("1", tool_call_id="call_1", name="add")]),
    ("Ollama's calls and results, which have no ids", [
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": 1}}},
            {"function": {"name": "g", "arguments": {}}},
            {"function": {"name": "f", "arguments": {"a": 2}}}]},
        {"role": "tool", "content": "of g", "tool_name": "g"},
        {"role": "tool", "content": "first of f", "tool_name": "f"},
        {"role": "tool", "content": "what is left"}],
     [AIMessage("", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "call_0"},
                                {"name": "g", "args": {}, "id": "call_0_1"},
                                {"name": "f", "args": {"a": 2}, "id": "call_0_2"}]),
      ToolMessage("of g", tool_call_id="call_0_1", name="g"),
      ToolMessage("first of f", tool_call_id="call_0", name="f"),
      ToolMessage("what is left", tool_call_id="call_0_2")]),
    ("function call and result", ["hi",
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "1"}],
     [HI, AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "call_1"}]),
      ToolMessage("1", tool_call_id="call_1", name="f")]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), [pytest.param(*r[1:], id=r[0]) for r in ACCEPTED])
def test_accepted(given: Any, expected: list[BaseMessage]) -> None:
    assert coerce_messages(given) == expected
    assert [type(message) for message in coerce_messages(given)] == [type(m) for m in expected]


def test_a_folded_chunk_is_a_message() -> None:
    chunk = AIMessageChunk("he") + AIMessageChunk("llo", finish_reason="stop")
    for given in (chunk, [chunk]):
        (message,) = coerce_messages(given)
        assert type(message) is AIMessage
        assert message == AIMessage("hello", finish_reason="stop")


def test_stored_messages_are_read_back() -> None:
    messages = [
        HI,
        AIMessage(
            [{"type": "reasoning", "reasoning": "r"}],
            tool_calls=[CALL],
            usage_metadata={"input_tokens": 1},
            response_metadata={"model_name": "m"},
        ),
        ToolMessage("1", tool_call_id="call_1", status="error", artifact=[1]),
        AIMessageChunk("chunk"),
    ]
    assert coerce_messages(messages_to_dict(messages)) == [*messages[:3], AIMessage("chunk")]


def test_langchain_nests_the_fields() -> None:
    assert coerce_messages([{"type": "human", "data": {"content": "hi"}}]) == [HI]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [('{"a": ', "unreadable"), ("[1]", "array"), ('{"a": NaN}', "JSON"), ("plain", "JSON")],
)
def test_unreadable_arguments_are_kept_as_text(arguments: str, why: str) -> None:
    call = {"id": "call_1", "function": {"name": "add", "arguments": arguments}}
    (message,) = coerce_messages([{"role": "assistant", "tool_calls": [call]}])
    assert isinstance(message, AIMessage)
    assert message.tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert (invalid["id"], invalid["name"], invalid["args"]) == ("call_1", "add", arguments)
    assert why in str(invalid["error"])


def test_a_custom_call_keeps_its_kind() -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}
    (message,) = coerce_messages([{"role": "assistant", "tool_calls": [call]}])
    assert isinstance(message, AIMessage)
    assert message.invalid_tool_calls[0]["args"] == "ls -l"
    assert message.invalid_tool_calls[0]["extras"] == {"type": "custom"}  # type: ignore[typeddict-item]


CALLERS: list[tuple[str, Any]] = [
    ("call", AIMessage("", tool_calls=[CALL])),
    ("unreadable call", AIMessage("", invalid_tool_calls=[{"name": "f", "args": "{", "id": "call_1",
                                                           "error": "e"}])),
    ("piece", AIMessage([{"type": "tool_call_chunk", "id": "call_1", "name": "f", "args": "{"}])),
    ("Anthropic", {"role": "assistant", "content": [
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {}}]}),
    ("Bedrock", {"role": "assistant", "content": [{"toolUse": {"toolUseId": "call_1"}}]}),
    ("Responses", {"role": "assistant", "content": [{"type": "function_call",
                                                     "call_id": "call_1"}]}),
    ("non_standard", {"role": "assistant", "content": [
        {"type": "non_standard", "value": {"type": "tool_use", "id": "call_1"}}]}),
]  # fmt: skip


@pytest.mark.parametrize("caller", [pytest.param(call, id=name) for name, call in CALLERS])
def test_a_result_may_answer_a_call_of_any_shape(caller: Any) -> None:
    assert len(coerce_messages([caller, ToolMessage("1", tool_call_id="call_1")])) == 2


REFUSED: list[tuple[str, Any, list[str]]] = [
    ("None", None, ["NoneType", "expected a str"]),
    ("number", 3, ["int (3)"]),
    ("bytes", b"hi", ["bytes"]),
    ("generator", (m for m in [HI]), ["generator", "list"]),
    ("empty list", [], ["empty list", "at least one message"]),
    ("a pair that is not in a list", ("user", "hi"), ["('user', 'hi')", "put it in a list"]),
    ("a list like a pair", ["system", "be brief"], ["put it in a list"]),
    ("None inside", [HI, None], ["NoneType"]),
    ("number inside", [1], ["int (1)"]),
    ("pair of one", [("user",)], ["tuple of 1", "pair"]),
    ("triple", [("user", "a", "b")], ["tuple of 3"]),
    ("nested list", [[HI, HI]], ["pair"]),
    ("unknown role", [("usr", "hi")], ["'usr'", "did you mean 'user'"]),
    ("capital role", [{"role": "Assistant", "content": "x"}], ["did you mean 'assistant'"]),
    ("no role", [{"content": "hi"}], ["no role", "'role'"]),
    ("role of a wrong type", [{"role": 1, "content": "hi"}], ["no role"]),
    ("no content", [{"role": "user"}], ["no content", "'content'"]),
    ("misspelt content", [{"role": "user", "contents": "x"}], ["under 'content', not 'contents'"]),
    ("assistant with nothing", [{"role": "assistant", "name": "x"}], ["no content"]),
    ("content None", [("user", None)], ["content None"]),
    ("content a number", [{"role": "user", "content": 5}], ["int (5)", "HumanMessage.content"]),
    ("content a dict", [{"role": "user", "content": {"type": "text"}}], ["dict"]),
    ("part a number", [("user", [5])], ["part of type int"]),
    ("name a number", [{"role": "user", "content": "x", "name": 5}], ["name 5"]),
    ("tool without id", [{"role": "tool", "content": "x", "tool_use_id": "a"}],
     ["tool_call_id None", "under 'tool_call_id', not 'tool_use_id'"]),
    ("tool pair", [("tool", "x")], ["tool_call_id"]),
    ("a result more than calls", [AIMessage("", tool_calls=[CALL]),
                                  ToolMessage("1", tool_call_id="call_1"),
                                  {"role": "tool", "content": "2"}], ["tool_call_id None"]),
    ("a result of a name that was not called", [
        AIMessage("", tool_calls=[CALL]), {"role": "tool", "content": "2", "tool_name": "sub"}],
     ["tool_call_id None"]),
    ("tool status", [{"role": "tool", "content": "x", "tool_call_id": "a", "status": "bad"}],
     ["status 'bad'"]),
    ("orphan result", [HI, ToolMessage("x", tool_call_id="a")], ["message 1", "'a'"]),
    ("misspelt id", [AIMessage("", tool_calls=[CALL]), ToolMessage("x", tool_call_id="call_2")],
     ["'call_2'", "did you mean 'call_1'"]),
    ("result before its call", [ToolMessage("x", tool_call_id="call_1"),
                                AIMessage("", tool_calls=[CALL])], ["message 0"]),
    ("calls not a list", [{"role": "ai", "tool_calls": "x"}], ["tool_calls 'x'", "a list"]),
    ("call not a dict", [{"role": "ai", "tool_calls": ["x"]}], ["tool call 'x'"]),
    ("call without a function", [{"role": "ai", "tool_calls": [{"id": "1"}]}], ["'function'"]),
    ("function nobody called", [HI, {"role": "function", "name": "f", "content": "1"}], ["'f'"]),
    ("stored of an unknown kind", [{"type": "martian", "data": {}}], ["'martian'"]),
]  # fmt: skip


@pytest.mark.parametrize(("given", "texts"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused_by_name(given: Any, texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        coerce_messages(given)
    for text in texts:
        assert text in str(caught.value)


def test_results_may_stand_alone_where_the_provider_keeps_the_conversation() -> None:
    result = ToolMessage("x", tool_call_id="a")
    assert coerce_messages([result], orphan_results=True) == [result]


def test_the_input_is_not_changed() -> None:
    given = {"role": "assistant", "content": None, "tool_calls": [dict(WIRE_CALL)], "x": 1}
    before = repr(given)
    coerce_messages([given])
    assert repr(given) == before
