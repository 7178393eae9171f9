"""Cohere's requests: what is sent for what was asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_from_dict,
)
from streamfold.wire.cohere import BODY_FIELDS, Decoder, encode
from streamfold.wire.request import ChatRequest

HI = HumanMessage("hi")
CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
SENT_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "add", "arguments": '{"a":1}'},
}
BAD_CALL = {"type": "invalid_tool_call", "name": "f", "args": '{"a', "id": "c2", "error": "cut"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
SUB = {"type": "function", "function": {"name": "sub", "parameters": SCHEMA}}
IMAGE = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
TEXT = {"type": "text", "text": "a"}
DOCUMENT = {"type": "document", "document": {"id": "d", "data": {"text": "t"}}}


def body(*messages: BaseMessage, **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model="m", messages=list(messages) or [HI], **fields))
    assert request.path == "/v2/chat"
    assert request.headers == {}
    found: dict[str, Any] = json.loads(request.body)
    return found


def sent(*messages: BaseMessage, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(*messages, **fields)["messages"]
    return found


def answer(content: Sequence[Any] | str = "", **fields: Any) -> dict[str, Any]:
    """What is sent for an AI message with this content, its calls answered."""
    message = AIMessage(list(content) if not isinstance(content, str) else content, **fields)
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    results = [ToolMessage("r", tool_call_id=str(call["id"])) for call in calls]
    return sent(message, *results)[0]


def rows(table: list[Any]) -> list[Any]:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# ---- messages ------------------------------------------------------------------------------------

MESSAGES = [
    ("human", HI, {"role": "user", "content": "hi"}),
    ("system", SystemMessage("s"), {"role": "system", "content": "s"}),
    ("developer", SystemMessage("s", extras={"role": "developer"}),
     {"role": "system", "content": "s"}),
    ("extras", HumanMessage("hi", extras={"x": 1}), {"role": "user", "x": 1, "content": "hi"}),
    ("one text part", HumanMessage([TEXT]), {"role": "user", "content": "a"}),
    ("texts", HumanMessage([TEXT, TEXT]), {"role": "user", "content": [TEXT, TEXT]}),
    ("image", HumanMessage([TEXT, {**IMAGE, "extras": {"detail": "low"}}]),
     {"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {
         "url": "data:image/png;base64,AAAA", "detail": "low"}}]}),
    ("image URL", HumanMessage([{"type": "image", "url": "https://x/y"}]),
     {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}),
    ("OpenAI's image", HumanMessage([
        {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "high"}}]),
     {"role": "user", "content": [{"type": "image_url", "image_url": {
         "url": "https://x/y", "detail": "high"}}]}),
    ("text document", HumanMessage([{"type": "text-plain", "text": "t", "title": "T"}]),
     {"role": "user", "content": "T\n\nt"}),
    ("text file", HumanMessage([{"type": "file", "base64": "w6k=", "mime_type": "text/csv"}]),
     {"role": "user", "content": "é"}),
    ("native", HumanMessage([DOCUMENT, {"type": "non_standard", "value": {"type": "odd"}}]),
     {"role": "user", "content": [DOCUMENT, {"type": "odd"}]}),
    ("result", ToolMessage("1", tool_call_id="c1", name="add", status="error", artifact=[1]),
     {"role": "tool", "tool_call_id": "c1", "content": "1"}),
    ("result with documents", ToolMessage([
        DOCUMENT, {"type": "text-plain", "text": "t", "title": "T", "id": "d"}], tool_call_id="c1"),
     {"role": "tool", "tool_call_id": "c1", "content": [DOCUMENT, {
         "type": "document", "document": {"id": "d", "data": {"title": "T", "text": "t"}}}]}),
    ("result with a text file", ToolMessage([
        {"type": "file", "url": "data:text/plain;base64,w6k="}], tool_call_id="c1"),
     {"role": "tool", "tool_call_id": "c1", "content": [
         {"type": "document", "document": {"data": {"text": "é"}}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), rows(MESSAGES))
def test_message(message: BaseMessage, expected: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent(message) == [expected]


CITED = {
    "type": "citation",
    "start_index": 0,
    "end_index": 1,
    "cited_text": "a",
    "title": "T",
    "extras": {"sources": [{"type": "document", "id": "d"}], "content_index": 0},
}
NATIVE_CITATION = {
    "start": 0,
    "end": 1,
    "text": "a",
    "sources": [{"type": "document", "id": "d"}],
    "content_index": 0,
}

ANSWERS = [
    ("text", "a", {"content": "a"}),
    ("texts", [TEXT, TEXT, CALL], {"content": [TEXT, TEXT], "tool_calls": [SENT_CALL]}),
    ("thinking", [{"type": "reasoning", "reasoning": "r"}, TEXT],
     {"content": [{"type": "thinking", "thinking": "r"}, TEXT]}),
    ("calls only", [CALL], {"tool_calls": [SENT_CALL]}),
    ("blank text and calls", [{"type": "text", "text": ""}, CALL], {"tool_calls": [SENT_CALL]}),
    ("call fields", [{**CALL, "extras": {"mark": 1}}], {"tool_calls": [{**SENT_CALL, "mark": 1}]}),
    ("unreadable call", [BAD_CALL], {"tool_calls": [
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"a'}}]}),
    ("citations", [{**TEXT, "annotations": [CITED, {"type": "citation", "url": "https://x"}]}],
     {"content": "a", "citations": [NATIVE_CITATION]}),
    ("unknown block", [{"type": "non_standard", "value": {"type": "odd"}}],
     {"content": [{"type": "odd"}]}),
    ("native thinking", [{"type": "thinking", "thinking": "r"}, TEXT],
     {"content": [{"type": "thinking", "thinking": "r"}, TEXT]}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), rows(ANSWERS))
def test_answer(content: Any, expected: dict[str, Any]) -> None:
    assert answer(content) == {"role": "assistant", **expected}


def test_the_plan_and_other_citations_go_back() -> None:
    metadata = {"tool_plan": "I will add.", "citations": [{"start": 0, "type": "PLAN"}]}
    assert answer([CALL], response_metadata=metadata) == {
        "role": "assistant",
        "tool_calls": [SENT_CALL],
        **metadata,
    }
    assert "tool_plan" not in answer("a", response_metadata=metadata)  # nothing was planned


def test_fields_that_a_user_wrote_go_along() -> None:
    assert answer([CALL], extras={"tool_plan": "p"})["tool_plan"] == "p"


def test_an_empty_answer_is_left_out() -> None:
    """The API rejects a message with neither content nor calls."""
    assert sent(HI, AIMessage(""), HI) == [{"role": "user", "content": "hi"}] * 2


def test_what_belongs_to_another_provider_stays_behind() -> None:
    blocks = [
        {"type": "reasoning", "reasoning": "r"},
        {**TEXT, "annotations": [CITED]},
        {**CALL, "extras": {"secret": 1}},
        {"type": "non_standard", "value": {"type": "odd"}},
    ]
    metadata = {"model_provider": "openai", "tool_plan": "p", "citations": [{}]}
    message = AIMessage(blocks, response_metadata=metadata)
    with pytest.warns(UserWarning, match="odd block of another provider"):
        (found,) = sent(message, provider="cohere")
    assert found == {"role": "assistant", "content": "a", "tool_calls": [SENT_CALL]}


def test_what_has_no_place_is_left_out_with_one_warning() -> None:
    message = AIMessage(
        [{"type": "server_tool_call", "id": "s", "name": "x", "args": {}}, IMAGE, BAD_CALL, TEXT]
    )
    blocks = [{"type": "reasoning", "reasoning": "r"}, {**TEXT, "cache_control": {}}]
    human = HumanMessage(blocks, name="Bo")
    with pytest.warns(UserWarning, match="left out, for Cohere") as caught:
        assert [m["content"] for m in sent(message, human)] == ["a", "a"]
    (warning,) = caught
    for what in (
        "server_tool_call block",
        "image block in an assistant message",
        "unreadable tool call without a result",
        "reasoning block",
        "cache_control of a text block",
        "name of a message",
    ):
        assert str(warning.message).count(what) == 1


BAD_PARTS = [
    ("image file", {"type": "image", "file_id": "f"}, ["url or base64"]),
    ("image without type", {"type": "image", "base64": "AA"}, ["mime_type None"]),
    ("audio", {"type": "audio", "base64": "AA", "mime_type": "audio/wav"}, ["audio", "images"]),
    ("OpenAI's audio", {"type": "input_audio", "input_audio": {"data": "AA"}}, ["audio"]),
    ("video", {"type": "video", "url": "https://x/y"}, ["video"]),
    ("pdf", {"type": "file", "base64": "AA", "mime_type": "application/pdf"}, ["file block"]),
    ("file id", {"type": "file", "file": {"file_id": "f"}}, ["file block"]),
    ("text that is none", {"type": "text-plain", "base64": "/w=="}, ["not UTF-8"]),
    ("unknown type", {"type": "documnt", "x": 1}, ["'documnt'", "'document'", "non_standard"]),
    ("non-standard without value", {"type": "non_standard"}, ["no value"]),
]


@pytest.mark.parametrize(("block", "texts"), rows(BAD_PARTS))
def test_bad_part(block: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(HumanMessage([block]))
    for text in texts:
        assert text in str(caught.value)


def test_a_tool_result_takes_no_image() -> None:
    with pytest.raises(ConfigurationError, match="tool result"):
        sent(ToolMessage([IMAGE], tool_call_id="c1"))


# ---- parameters ----------------------------------------------------------------------------------


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


PARAMETERS = [
    ("none", {}, {}),
    ("all", {"temperature": 0, "max_tokens": 5, "stop": ["x"], "top_p": 0.5, "seed": 0},
     {"temperature": 0, "max_tokens": 5, "stop_sequences": ["x"], "p": 0.5, "seed": 0}),
    ("native", {"extra": {"k": 5, "p": 0.1, "safety_mode": "OFF", "documents": ["d"],
                          "citation_options": {"mode": "OFF"}, "logprobs": True,
                          "frequency_penalty": 0.1, "presence_penalty": 0.2, "priority": 1}},
     {"k": 5, "p": 0.1, "safety_mode": "OFF", "documents": ["d"],
      "citation_options": {"mode": "OFF"}, "logprobs": True, "frequency_penalty": 0.1,
      "presence_penalty": 0.2, "priority": 1}),
    ("top_k", {"extra": {"top_k": 5}}, {"k": 5}),
    ("k wins", {"extra": {"top_k": 5, "k": 6}}, {"k": 6}),
    ("p wins", {"top_p": 0.5, "extra": {"p": 0.1}}, {"p": 0.1}),
    ("stream", {"stream": True}, {"stream": True}),
    ("JSON", {"response_format": {"type": "json_object"}},
     {"response_format": {"type": "json_object"}}),
    ("native JSON", {"response_format": {"type": "json_object", "json_schema": SCHEMA}},
     {"response_format": {"type": "json_object", "json_schema": SCHEMA}}),
    ("schema", {"response_format": schema_format(SCHEMA)},
     {"response_format": {"type": "json_object", "json_schema": SCHEMA}}),
    ("flat schema", {"response_format": {"type": "json_schema", "schema": SCHEMA}},
     {"response_format": {"type": "json_object", "json_schema": SCHEMA}}),
    ("no effort", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    ("little effort", {"reasoning_effort": "low"},
     {"thinking": {"type": "enabled", "token_budget": 2048}}),
    ("some effort", {"reasoning_effort": "medium"},
     {"thinking": {"type": "enabled", "token_budget": 8192}}),
    ("full effort", {"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}}),
    ("thinking wins", {"reasoning_effort": "high", "extra": {"thinking": {"type": "disabled"}}},
     {"thinking": {"type": "disabled"}}),
    ("tools", {"tools": [ADD], "tool_choice": "auto", "parallel_tool_calls": True},
     {"tools": [ADD]}),
    ("no tools", {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
    ("any", {"tools": [ADD], "tool_choice": "any"}, {"tools": [ADD], "tool_choice": "REQUIRED"}),
    ("Cohere's required", {"tools": [ADD], "tool_choice": "REQUIRED"},
     {"tools": [ADD], "tool_choice": "REQUIRED"}),
    ("none of them", {"tools": [ADD], "tool_choice": "none"},
     {"tools": [ADD], "tool_choice": "NONE"}),
    ("Cohere's none", {"tools": [ADD], "tool_choice": "NONE"},
     {"tools": [ADD], "tool_choice": "NONE"}),
    ("one of them", {"tools": [ADD, SUB], "tool_choice": "sub"},
     {"tools": [SUB], "tool_choice": "REQUIRED"}),
    ("OpenAI's choice", {"tools": [ADD, SUB], "tool_choice": {
        "type": "function", "function": {"name": "add"}}},
     {"tools": [ADD], "tool_choice": "REQUIRED"}),
    ("strict", {"tools": [{"name": "sub", "parameters": SCHEMA, "strict": True}]},
     {"tools": [SUB], "strict_tools": True}),
    ("not strict", {"tools": [{"name": "sub", "parameters": SCHEMA, "strict": False}]},
     {"tools": [SUB]}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), rows(PARAMETERS))
def test_parameters(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert body(**fields) == {"model": "m", "messages": messages, **expected}


def test_a_preamble_is_the_first_system_message() -> None:
    found = body(SystemMessage("s"), HI, extra={"preamble": "p"})
    assert [message["content"] for message in found["messages"]] == ["p", "s", "hi"]
    assert "preamble" not in found


TOOLS = [
    ("without type", {"function": ADD["function"]}),
    ("flat", {"type": "function", **ADD["function"]}),
    ("bare", ADD["function"]),
    ("Anthropic", {"name": "add", "description": "d", "input_schema": SCHEMA}),
    ("JSON schema", {"title": "add", "description": "d", **SCHEMA}),
]


@pytest.mark.parametrize("tool", rows(TOOLS))
def test_tool(tool: dict[str, Any]) -> None:
    assert body(tools=[tool])["tools"] == [ADD]


def test_a_tool_without_parameters_has_an_empty_schema() -> None:
    (tool,) = body(tools=[{"name": "f"}])["tools"]
    assert tool["function"] == {"name": "f", "parameters": {"type": "object", "properties": {}}}


def test_marks_on_a_tool_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="cache_control of a tool"):
        assert body(tools=[{**ADD, "cache_control": {}}])["tools"] == [ADD]


BAD_FIELDS = [
    ("unbound", {"tools": [ADD], "tool_choice": "ad"}, ["'ad'", "not bound", "'add'"]),
    ("no tools", {"tool_choice": "any"}, ["'any'", "no tools"]),
    ("native choice", {"tools": [ADD], "tool_choice": {"type": "x"}}, ["'x'", "'any'"]),
    ("single call", {"tools": [ADD], "parallel_tool_calls": False}, ["parallel_tool_calls"]),
    ("server tool", {"tools": [{"type": "web_search"}]}, ["web_search", "only functions"]),
    ("odd effort", {"reasoning_effort": "hard"}, ["'hard'", "medium", "thinking="]),
    ("format without schema", {"response_format": {"type": "json_schema"}}, ["json_schema"]),
    ("not JSON", {"extra": {"x": object()}}, ["object", "JSON"]),
]


@pytest.mark.parametrize(("fields", "texts"), rows(BAD_FIELDS))
def test_bad_fields(fields: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(**fields)
    for text in texts:
        assert text in str(caught.value)


def test_fields_of_the_body_are_accepted_as_parameters() -> None:
    assert {"k", "p", "documents", "safety_mode", "thinking", "citation_options"} <= BODY_FIELDS


def test_messages_are_not_changed() -> None:
    message = AIMessage([{**TEXT, "annotations": [CITED]}, {**CALL, "extras": {"mark": 1}}])
    before = message.to_dict()
    sent(message, ToolMessage("r", tool_call_id="c1"))
    assert message.to_dict() == before


# ---- an answer goes back as it came --------------------------------------------------------------


def test_an_answer_goes_back_as_it_came() -> None:
    """Also after a round trip through a database."""
    came = {
        "role": "assistant",
        "tool_plan": "I will add.",
        "content": [{"type": "thinking", "thinking": "Riga it is"}, {"type": "text", "text": "a"}],
        "tool_calls": [SENT_CALL, {**SENT_CALL, "id": "c2", "mark": 1}],
        "citations": [
            {**NATIVE_CITATION, "type": "TEXT_CONTENT", "content_index": 1},
            {**NATIVE_CITATION, "type": "THINKING_CONTENT", "content_index": 0},
        ],
    }
    payload = {"id": "m", "message": came, "finish_reason": "TOOL_CALL"}
    (chunk,) = Decoder().whole(json.dumps(payload).encode())
    message = message_from_dict(json.loads(json.dumps(chunk.to_message().to_dict())))
    results = [ToolMessage("1", tool_call_id=id) for id in ("c1", "c2")]
    assert sent(message, *results, provider="cohere")[0] == came
