"""Ollama's requests: what is sent for what was asked."""

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
from streamfold.wire.ollama import BODY_FIELDS, Decoder, encode
from streamfold.wire.request import ChatRequest

HI = HumanMessage("hi")
CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
SENT_CALL = {"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}}
BAD_CALL = {"type": "invalid_tool_call", "name": "f", "args": '{"a', "id": "c2", "error": "cut"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
IMAGE = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
PLAIN_ROW = {"type": "text-plain", "text": "t", "title": "T", "context": "C"}


def body(*messages: BaseMessage, **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model="m", messages=list(messages) or [HI], **fields))
    assert request.path == "/api/chat"
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
    ("extras", HumanMessage("hi", extras={"x": 1}), {"role": "user", "content": "hi", "x": 1}),
    ("texts", HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
     {"role": "user", "content": "a\nb"}),
    ("image", HumanMessage([{"type": "text", "text": "a"}, IMAGE]),
     {"role": "user", "content": "a", "images": ["AAAA"]}),
    ("two images", HumanMessage([IMAGE, {**IMAGE, "base64": "BBBB"}]),
     {"role": "user", "content": "", "images": ["AAAA", "BBBB"]}),
    ("image as data URL", HumanMessage([{"type": "image", "url": "data:image/png;base64,AAAA"}]),
     {"role": "user", "content": "", "images": ["AAAA"]}),
    ("OpenAI's image", HumanMessage([
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]),
     {"role": "user", "content": "", "images": ["AAAA"]}),
    ("text document", HumanMessage([PLAIN_ROW, {"type": "text", "text": "a"}]),
     {"role": "user", "content": "T\n\nC\n\nt\na"}),
    ("text file", HumanMessage([{"type": "file", "base64": "w6k=", "mime_type": "text/csv"}]),
     {"role": "user", "content": "é"}),
    ("OpenAI's text file", HumanMessage([
        {"type": "file", "file": {"file_data": "data:text/plain;base64,w6k="}}]),
     {"role": "user", "content": "é"}),
    ("fields as they are", HumanMessage([
        {"type": "text", "text": "a"}, {"type": "non_standard", "value": {"images": ["x"]}}]),
     {"role": "user", "content": "a", "images": ["x"]}),
    ("named result", ToolMessage("1", tool_call_id="c1", name="add", status="error", artifact=[1]),
     {"role": "tool", "content": "1", "tool_name": "add", "tool_call_id": "c1"}),
    ("result of an unknown call", ToolMessage("1", tool_call_id="c1"),
     {"role": "tool", "content": "1", "tool_call_id": "c1"}),
    ("result with an image", ToolMessage([{"type": "text", "text": "1"}, IMAGE], tool_call_id="c1"),
     {"role": "tool", "content": "1", "images": ["AAAA"], "tool_call_id": "c1"}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), rows(MESSAGES))
def test_message(message: BaseMessage, expected: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sent(message) == [expected]


ANSWERS = [
    ("text", "a", {"content": "a"}),
    ("texts are one text", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
     {"content": "ab"}),
    ("thinking", [{"type": "reasoning", "reasoning": "r"}, {"type": "text", "text": "a"}],
     {"content": "a", "thinking": "r"}),
    ("calls", [{"type": "text", "text": "a"}, CALL], {"content": "a", "tool_calls": [SENT_CALL]}),
    ("call fields", [{**CALL, "extras": {"type": "function", "function": {"strict": True}}}],
     {"content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {
         "strict": True, "name": "add", "arguments": {"a": 1}}}]}),
    ("unreadable call", [BAD_CALL], {"content": "", "tool_calls": [
        {"id": "c2", "function": {"name": "f", "arguments": {}}}]}),
    ("image", [IMAGE], {"content": "", "images": ["AAAA"]}),
    ("citations stay", [{"type": "text", "text": "a", "annotations": [{"type": "citation"}]}],
     {"content": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), rows(ANSWERS))
def test_answer(content: Any, expected: dict[str, Any]) -> None:
    assert answer(content) == {"role": "assistant", **expected}


def test_a_result_names_its_tool() -> None:
    messages = sent(AIMessage("", tool_calls=[CALL]), ToolMessage("2", tool_call_id="c1"))
    assert messages[1] == {
        "role": "tool",
        "content": "2",
        "tool_name": "add",
        "tool_call_id": "c1",
    }


def test_a_call_without_id_is_sent_without_one() -> None:
    (found,) = sent(AIMessage("", tool_calls=[{**CALL, "id": None}]))
    assert found["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]


def test_what_belongs_to_another_provider_stays_behind() -> None:
    blocks = [
        {"type": "reasoning", "reasoning": "r"},
        {"type": "text", "text": "a"},
        IMAGE,
        {**CALL, "extras": {"secret": 1}},
        {"type": "non_standard", "value": {"type": "odd"}},
    ]
    message = AIMessage(blocks, response_metadata={"model_provider": "openai"})
    with pytest.warns(UserWarning, match="image block in an assistant message, odd block of"):
        (found,) = sent(message, provider="ollama")
    assert found == {"role": "assistant", "content": "a", "tool_calls": [SENT_CALL]}


def test_what_has_no_place_is_left_out_with_one_warning() -> None:
    message = AIMessage(
        [
            {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
            {"type": "file", "file_id": "f"},
            BAD_CALL,
            {"type": "text", "text": "a"},
        ]
    )
    human = HumanMessage(
        [
            {"type": "reasoning", "reasoning": "r"},
            {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
        ],
        name="Bo",
    )
    with pytest.warns(UserWarning, match="left out, for Ollama") as caught:
        assert [m["content"] for m in sent(message, human)] == ["a", "b"]
    (warning,) = caught
    for what in (
        "server_tool_call block",
        "file block in an assistant message",
        "unreadable tool call without a result",
        "reasoning block in a user message",
        "cache_control of a text block",
        "name of a message",
    ):
        assert str(warning.message).count(what) == 1


BAD_PARTS = [
    ("image URL", {"type": "image", "url": "https://x/y.png"}, ["https://x", "URL", "base64"]),
    ("OpenAI's image URL", {"type": "image_url", "image_url": "https://x/y.png"}, ["URL"]),
    ("image file", {"type": "image", "file_id": "f"}, ["expects base64"]),
    ("audio", {"type": "audio", "base64": "AA", "mime_type": "audio/wav"}, ["audio", "text and"]),
    ("OpenAI's audio", {"type": "input_audio", "input_audio": {"data": "AA"}}, ["audio"]),
    ("video", {"type": "video", "url": "https://x/y"}, ["video"]),
    ("pdf", {"type": "file", "base64": "AA", "mime_type": "application/pdf"}, ["file block"]),
    ("text that is none", {"type": "text-plain", "base64": "/w=="}, ["not UTF-8"]),
    ("unknown type", {"type": "imge", "x": 1}, ["'imge'", "'image'", "non_standard"]),
    ("non-standard without value", {"type": "non_standard"}, ["no value"]),
]


@pytest.mark.parametrize(("block", "texts"), rows(BAD_PARTS))
def test_bad_part(block: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(HumanMessage([block]))
    for text in texts:
        assert text in str(caught.value)


# ---- parameters ----------------------------------------------------------------------------------


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


PARAMETERS = [
    ("none", {}, {}),
    ("all", {"temperature": 0, "max_tokens": 5, "stop": ["x"], "top_p": 0.5, "seed": 0},
     {"options": {"temperature": 0, "num_predict": 5, "stop": ["x"], "top_p": 0.5, "seed": 0}}),
    ("options by name", {"extra": {"num_ctx": 4096, "top_k": 1, "mirostat_tau": 2.0}},
     {"options": {"num_ctx": 4096, "top_k": 1, "mirostat_tau": 2.0}}),
    ("options as they are", {"temperature": 0, "extra": {"num_ctx": 1, "options": {"num_ctx": 2}}},
     {"options": {"temperature": 0, "num_ctx": 2}}),
    ("an option wins over a parameter", {"max_tokens": 5, "extra": {"num_predict": -1}},
     {"options": {"num_predict": -1}}),
    ("top level", {"extra": {"keep_alive": "5m", "logprobs": True, "top_logprobs": 2,
                             "truncate": False, "shift": False, "other": 1}},
     {"keep_alive": "5m", "logprobs": True, "top_logprobs": 2, "truncate": False, "shift": False,
      "other": 1}),
    ("stream", {"stream": True}, {"stream": True}),
    ("JSON", {"response_format": {"type": "json_object"}}, {"format": "json"}),
    ("text", {"response_format": {"type": "text"}}, {}),
    ("schema", {"response_format": schema_format(SCHEMA)}, {"format": SCHEMA}),
    ("flat schema", {"response_format": {"type": "json_schema", "schema": SCHEMA}},
     {"format": SCHEMA}),
    ("format wins", {"response_format": {"type": "json_object"}, "extra": {"format": SCHEMA}},
     {"format": SCHEMA}),
    ("think", {"reasoning_effort": "low", "extra": {"think": False}}, {"think": False}),
    ("effort", {"reasoning_effort": "medium"}, {"think": "medium"}),
    ("no effort", {"reasoning_effort": "none"}, {"think": False}),
    ("least effort", {"reasoning_effort": "minimal"}, {"think": "low"}),
    ("most effort", {"reasoning_effort": "max"}, {"think": "max"}),
    ("much effort", {"reasoning_effort": "xhigh"}, {"think": "high"}),
    ("reasoning", {"extra": {"reasoning": True}}, {"think": True}),
    ("no reasoning", {"extra": {"reasoning": False}}, {"think": False}),
    ("reasoning level", {"extra": {"reasoning": "high"}}, {"think": "high"}),
    ("OpenAI's reasoning", {"extra": {"reasoning": {"effort": "low"}}}, {"think": "low"}),
    ("tools", {"tools": [ADD], "tool_choice": "auto", "parallel_tool_calls": True},
     {"tools": [ADD]}),
    ("no tools", {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
    ("tools that are not to be called", {"tools": [ADD], "tool_choice": "none"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), rows(PARAMETERS))
def test_parameters(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(**fields) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
        **expected,
    }


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
    marked = {"type": "function", "cache_control": {}, "function": {**ADD["function"]}}
    marked["function"]["strict"] = True
    with pytest.warns(UserWarning, match="strict of a tool, cache_control of a tool"):
        assert body(tools=[marked])["tools"] == [ADD]


BAD_FIELDS = [
    ("forced call", {"tools": [ADD], "tool_choice": "any"}, ["'any'", "cannot be made", "'none'"]),
    ("named call", {"tools": [ADD], "tool_choice": "add"}, ["'add'", "cannot be made"]),
    ("native choice", {"tools": [ADD], "tool_choice": {"type": "x"}}, ["cannot be made"]),
    ("unbound", {"tools": [ADD], "tool_choice": "ad"}, ["not bound"]),
    ("single call", {"tools": [ADD], "parallel_tool_calls": False}, ["parallel_tool_calls"]),
    ("server tool", {"tools": [{"type": "web_search"}]}, ["web_search", "only functions"]),
    ("odd effort", {"reasoning_effort": "hard"}, ["'hard'", "medium"]),
    ("odd reasoning", {"extra": {"reasoning": "hard"}}, ["'hard'", "medium"]),
    ("odd format", {"response_format": {"type": "xml"}}, ["'xml'", "json_schema"]),
    ("format without schema", {"response_format": {"type": "json_schema"}}, ["json_schema"]),
    ("not JSON", {"extra": {"x": object()}}, ["object", "JSON"]),
]


@pytest.mark.parametrize(("fields", "texts"), rows(BAD_FIELDS))
def test_bad_fields(fields: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(**fields)
    for text in texts:
        assert text in str(caught.value)


def test_options_are_accepted_as_parameters() -> None:
    assert {"num_ctx", "num_predict", "mirostat", "min_p", "keep_alive", "think", "reasoning"} <= (
        BODY_FIELDS
    )


def test_what_is_accepted_is_what_was_asked_for() -> None:
    for stream, accept in ((True, "application/x-ndjson"), (False, "application/json")):
        request = encode(ChatRequest(model="m", messages=[HI], stream=stream))
        assert request.headers == {"accept": accept}


def test_messages_are_not_changed() -> None:
    message = AIMessage([{"type": "text", "text": "a"}, {**CALL, "extras": {"function": {"x": 1}}}])
    before = message.to_dict()
    sent(message, ToolMessage("r", tool_call_id="c1"))
    assert message.to_dict() == before


# ---- an answer goes back as it came --------------------------------------------------------------


def test_an_answer_goes_back_as_it_came() -> None:
    """Also after a round trip through a database."""
    came = {
        "role": "assistant",
        "content": "Let me see.",
        "thinking": "Riga it is",
        "images": ["/9j/AAAA"],
        "tool_calls": [
            {"id": "call_1", "function": {"name": "add", "arguments": {"b": 1, "a": [{}]}}},
            {"id": "call_2", "function": {"name": "add", "arguments": {}}},
        ],
    }
    payload = {"model": "m", "created_at": "t", "message": came, "done": True}
    chunks = Decoder().whole(json.dumps(payload).encode())
    message = message_from_dict(json.loads(json.dumps(chunks[0].to_message().to_dict())))
    results = [ToolMessage("1", tool_call_id=f"call_{n}") for n in (1, 2)]
    assert sent(message, *results, provider="ollama")[0] == came
