"""Chat Completions requests: what is sent for what was asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire.openai_chat_request import encode
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
IMAGE = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}


def body(*messages: BaseMessage, **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model="m", messages=list(messages) or [HI], **fields))
    assert request.path == "/chat/completions"
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
    ("named", HumanMessage("hi", name="Bo"), {"role": "user", "name": "Bo", "content": "hi"}),
    ("extras", HumanMessage("hi", extras={"x": 1}), {"role": "user", "x": 1, "content": "hi"}),
    ("system", SystemMessage("s"), {"role": "system", "content": "s"}),
    ("developer", SystemMessage("s", extras={"role": "developer"}),
     {"role": "developer", "content": "s"}),
    ("one text part", HumanMessage([{"type": "text", "text": "hi"}]),
     {"role": "user", "content": "hi"}),
    ("result", ToolMessage("1", tool_call_id="c1", status="error", artifact=[1]),
     {"role": "tool", "tool_call_id": "c1", "content": "1"}),
    ("result with parts", ToolMessage([{"type": "text", "text": "1"}, IMAGE], tool_call_id="c1"),
     {"role": "tool", "tool_call_id": "c1", "content": [
         {"type": "text", "text": "1"},
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), rows(MESSAGES))
def test_message(message: BaseMessage, expected: dict[str, Any]) -> None:
    assert sent(message) == [expected]


ANSWERS = [
    ("text", "a", {"content": "a"}),
    ("nothing", "", {"content": ""}),
    ("texts are one text", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, CALL],
     {"content": "ab", "tool_calls": [SENT_CALL]}),
    ("calls only", [CALL], {"content": None, "tool_calls": [SENT_CALL]}),
    ("call fields", [{**CALL, "extras": {"index": 0, "extra_content": {"s": 1}}}],
     {"content": None, "tool_calls": [{**SENT_CALL, "index": 0, "extra_content": {"s": 1}}]}),
    ("unreadable call", [BAD_CALL], {"content": None, "tool_calls": [
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"a'}}]}),
    ("custom call", [{**BAD_CALL, "args": "ls", "extras": {"type": "custom"}}],
     {"content": None, "tool_calls": [
         {"id": "c2", "type": "custom", "custom": {"name": "f", "input": "ls"}}]}),
    ("marked text", [{"type": "text", "text": "a", "extras": {"cache_control": {"t": 1}}}],
     {"content": [{"type": "text", "text": "a", "cache_control": {"t": 1}}]}),
    ("citations stay", [{"type": "text", "text": "a", "annotations": [{"type": "citation"}]}],
     {"content": "a"}),
    ("refusal", [{"type": "non_standard", "value": {"type": "refusal", "refusal": "no"}}],
     {"content": [{"type": "refusal", "refusal": "no"}]}),
    ("reasoning without a field", [{"type": "reasoning", "reasoning": "r"}], {"content": ""}),
    ("reasoning_content", [{"type": "reasoning", "reasoning": "r",
                            "extras": {"field": "reasoning_content"}}, CALL],
     {"reasoning_content": "r", "content": None, "tool_calls": [SENT_CALL]}),
    ("reasoning and details", [
        {"type": "reasoning", "reasoning": "r", "extras": {
            "field": "reasoning", "reasoning_details": [{"type": "t"}]}},
        {"type": "text", "text": "a"}],
     {"reasoning": "r", "reasoning_details": [{"type": "t"}], "content": "a"}),
    ("details without text", [{"type": "reasoning", "reasoning": "", "extras": {
        "field": "reasoning", "reasoning_details": [{"data": "x"}]}}],
     {"reasoning_details": [{"data": "x"}], "content": ""}),
    ("Mistral's thinking", [
        {"type": "reasoning", "reasoning": "r", "extras": {"field": "thinking"}},
        {"type": "text", "text": "a"}],
     {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
                  {"type": "text", "text": "a"}]}),
    ("image", [{"type": "text", "text": "a"}, IMAGE],
     {"content": "a", "images": [
         {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}),
    ("audio", [{"type": "audio", "id": "au", "base64": "AA", "extras": {"transcript": "t"}}],
     {"audio": {"id": "au"}, "content": None}),
    ("audio without id", [{"type": "audio", "base64": "AA", "extras": {"transcript": "t"}}],
     {"content": "t"}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), rows(ANSWERS))
def test_answer(content: Any, expected: dict[str, Any]) -> None:
    assert answer(content) == {"role": "assistant", **expected}


def test_fields_of_an_answer_go_back() -> None:
    message = AIMessage("a", name="Bo", extras={"reasoning_content": "r", "prefix": True})
    assert sent(message) == [
        {
            "role": "assistant",
            "name": "Bo",
            "reasoning_content": "r",
            "prefix": True,
            "content": "a",
        }
    ]


def test_what_only_another_provider_understands_stays_behind() -> None:
    message = AIMessage(
        [
            {"type": "reasoning", "reasoning": "r", "extras": {"field": "reasoning_content"}},
            {"type": "text", "text": "a", "extras": {"x": 1}},
            {"type": "non_standard", "value": {"type": "odd"}},
            {**CALL, "extras": {"caller": {}}},
        ],
        response_metadata={"model_provider": "deepseek"},
    )
    with pytest.warns(UserWarning, match="odd block of another provider"):
        (found,) = sent(message, provider="openai")
    assert found == {"role": "assistant", "content": "a", "tool_calls": [SENT_CALL]}
    assert "reasoning_content" in sent(message, provider="deepseek")[0]


def test_media_of_another_provider_stay_behind() -> None:
    blocks = [{"type": "text", "text": "a"}, IMAGE, {"type": "audio", "id": "x", "base64": "AA"}]
    message = AIMessage(blocks, response_metadata={"model_provider": "google_genai"})
    with pytest.warns(UserWarning, match="image block in an assistant message, audio block"):
        assert sent(message, provider="openai") == [{"role": "assistant", "content": "a"}]


def test_what_has_no_place_is_left_out_with_one_warning() -> None:
    message = AIMessage(
        [
            {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
            {"type": "server_tool_result", "tool_call_id": "s", "status": "success"},
            {"type": "server_tool_result", "tool_call_id": "t", "status": "success"},
            {"type": "file", "file_id": "f"},
            {"type": "text", "text": "a"},
        ]
    )
    human = HumanMessage([{"type": "reasoning", "reasoning": "r"}, {"type": "text", "text": "b"}])
    with pytest.warns(UserWarning, match="left out, for Chat Completions") as caught:
        assert [m["content"] for m in sent(message, human)] == ["a", "b"]
    (warning,) = caught
    for what in ("server_tool_call block", "server_tool_result block", "file block", "reasoning"):
        assert str(warning.message).count(what) == 1


def test_an_unreadable_call_that_nothing_answers_is_left_out() -> None:
    message = AIMessage([{"type": "text", "text": "a"}, BAD_CALL])
    with pytest.warns(UserWarning, match="unreadable tool call without a result"):
        assert sent(message, HI)[0] == {"role": "assistant", "content": "a"}


# ---- parts ---------------------------------------------------------------------------------------

NATIVE = [
    {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}, "other": 1},
    {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "f"}},
    {"type": "document_url", "document_url": "https://x/y"},
    {"type": "video_url", "video_url": {"url": "https://x/y"}},
    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
]
PARTS = [
    ("image url", {"type": "image", "url": "https://x/y", "extras": {"detail": "low", "z": 1}},
     {"type": "image_url", "image_url": {"detail": "low", "url": "https://x/y"}, "z": 1}),
    ("image base64", {**IMAGE, "detail": "high"}, {"type": "image_url", "image_url": {
        "detail": "high", "url": "data:image/png;base64,AAAA"}}),
    ("image file", {"type": "image", "file_id": "f"}, {"type": "file", "file": {"file_id": "f"}}),
    ("wav", {"type": "audio", "base64": "AA", "mime_type": "audio/x-wav"},
     {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
    ("mp3 data url", {"type": "audio", "url": "data:audio/mpeg;base64,AA"},
     {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}}),
    ("pdf", {"type": "file", "base64": "AA", "mime_type": "application/pdf"},
     {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA",
                               "filename": "document.pdf"}}),
    ("named pdf", {"type": "file", "url": "data:application/pdf;base64,AA", "extras": {
        "filename": "a.pdf"}},
     {"type": "file", "file": {"filename": "a.pdf",
                               "file_data": "data:application/pdf;base64,AA"}}),
    ("file id", {"type": "file", "file_id": "f"}, {"type": "file", "file": {"file_id": "f"}}),
    ("video", {"type": "video", "url": "https://x/y"},
     {"type": "video_url", "video_url": {"url": "https://x/y"}}),
    ("video data", {"type": "video", "base64": "AA", "mime_type": "video/mp4"},
     {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}),
    ("plain text", {"type": "text-plain", "text": "t", "title": "T", "context": "C"},
     {"type": "text", "text": "T\n\nC\n\nt"}),
    ("plain text id", {"type": "text-plain", "file_id": "f"},
     {"type": "file", "file": {"file_id": "f"}}),
    ("plain base64", {"type": "text-plain", "base64": "w6k=", "mime_type": "text/plain"},
     {"type": "text", "text": "é"}),
    ("non-standard", {"type": "non_standard", "value": {"type": "odd", "x": [1]}},
     {"type": "odd", "x": [1]}),
    *((str(part["type"]), part, part) for part in NATIVE),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(PARTS))
def test_part(block: dict[str, Any], expected: dict[str, Any]) -> None:
    text = {"type": "text", "text": "see"}
    assert sent(HumanMessage([text, block]))[0]["content"] == [text, expected]


BAD_PARTS = [
    ("unknown type", {"type": "imge_url", "x": 1}, ["'imge_url'", "'image_url'", "non_standard"]),
    ("no type", {"words": "a"}, ["no type", "{'words': 'a'}"]),
    ("Anthropic's", {"type": "tool_use", "id": "1"}, ["'tool_use'", "Chat Completions"]),
    ("image without data", {"type": "image"}, ["url or base64 or file_id"]),
    ("image without type", {"type": "image", "base64": "AA"}, ["mime_type None", "image/png"]),
    ("bytes", {"type": "image", "base64": b"\x89PNG"}, ["PNG", "as its base64", "image_block()"]),
    ("data URL", {"type": "image", "base64": "data:image/png;base64,AA"}, ["no data: before it"]),
    ("no base64", {"type": "image", "base64": "***", "mime_type": "image/png"}, ["base64 text"]),
    ("audio url", {"type": "audio", "url": "https://x/y"}, ["expects base64"]),
    ("file url", {"type": "file", "url": "https://x/y"}, ["base64 or file_id"]),
    ("video file", {"type": "video", "file_id": "f"}, ["url or base64"]),
    ("text that is none", {"type": "text-plain", "base64": "/w=="}, ["not UTF-8"]),
    ("non-standard without value", {"type": "non_standard"}, ["no value"]),
]


@pytest.mark.parametrize(("block", "texts"), rows(BAD_PARTS))
def test_bad_part(block: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(HumanMessage([block]))
    for text in texts:
        assert text in str(caught.value)


# ---- parameters ----------------------------------------------------------------------------------

PARAMETERS = [
    ("none", {}, {}),
    ("all", {"temperature": 0, "max_tokens": 5, "stop": ["x"], "top_p": 0.5, "seed": 0,
             "reasoning_effort": "low", "response_format": {"type": "json_object"}},
     {"temperature": 0, "max_tokens": 5, "stop": ["x"], "top_p": 0.5, "seed": 0,
      "reasoning_effort": "low", "response_format": {"type": "json_object"}}),
    ("long name", {"max_tokens": 5, "quirks": frozenset({"max_completion_tokens"})},
     {"max_completion_tokens": 5}),
    ("one name only", {"max_tokens": 5, "extra": {"max_completion_tokens": 6}},
     {"max_completion_tokens": 6}),
    ("stream", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ("stream, no usage", {"stream": True, "stream_usage": False}, {"stream": True}),
    ("stream, quirk", {"stream": True, "quirks": frozenset({"no_stream_options"})},
     {"stream": True}),
    ("extra wins", {"temperature": 0, "extra": {"temperature": 1, "x": {"y": 1}}},
     {"temperature": 1, "x": {"y": 1}}),
    ("options merge", {"stream": True, "extra": {"stream_options": {"include_obfuscation": False}}},
     {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}),
    ("nothing to choose from", {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
     {}),
    ("parallel", {"tools": [ADD], "parallel_tool_calls": False},
     {"tools": [ADD], "parallel_tool_calls": False}),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), rows(PARAMETERS))
def test_parameters(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = body(**fields)
    assert found.pop("model") == "m"
    assert found.pop("messages") == [{"role": "user", "content": "hi"}]
    assert found == expected


TOOLS = [
    ("OpenAI", {**ADD, "cache_control": {}}, {**ADD, "cache_control": {}}),
    ("without type", {"function": ADD["function"]}, ADD),
    ("flat", {"type": "function", **ADD["function"], "strict": True},
     {"type": "function", "function": {**ADD["function"], "strict": True}}),
    ("bare", ADD["function"], ADD),
    ("Anthropic", {"name": "add", "description": "d", "input_schema": SCHEMA,
                   "cache_control": {"type": "ephemeral"}},
     {**ADD, "cache_control": {"type": "ephemeral"}}),
    ("Anthropic with type", {"type": "custom", "name": "add", "description": "d",
                             "input_schema": SCHEMA}, ADD),
    ("name only", {"name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ("JSON schema", {"title": "add", "description": "d", **SCHEMA}, ADD),
    ("custom", {"type": "custom", "custom": {"name": "sh"}},
     {"type": "custom", "custom": {"name": "sh"}}),
    ("native", {"type": "web_search", "x": 1}, {"type": "web_search", "x": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "expected"), rows(TOOLS))
def test_tool(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(tools=[tool])["tools"] == [expected]


CHOICES = [
    *((word, word, word) for word in ("auto", "none", "required")),
    ("any", "any", "required"),
    ("True", True, "required"),
    ("name", "add", {"type": "function", "function": {"name": "add"}}),
    ("custom tool", "sh", {"type": "custom", "custom": {"name": "sh"}}),
    ("native tool", "web_search", {"type": "web_search"}),
    ("OpenAI", {"type": "function", "function": {"name": "add"}},
     {"type": "function", "function": {"name": "add"}}),
    ("Anthropic", {"type": "tool", "name": "add"},
     {"type": "function", "function": {"name": "add"}}),
    ("Anthropic's any", {"type": "any"}, "required"),
    ("allowed tools", {"type": "allowed_tools", "allowed_tools": {}},
     {"type": "allowed_tools", "allowed_tools": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "expected"), rows(CHOICES))
def test_tool_choice(choice: Any, expected: Any) -> None:
    tools = [ADD, {"type": "custom", "custom": {"name": "sh"}}, {"type": "web_search"}]
    assert body(tools=tools, tool_choice=choice)["tool_choice"] == expected


def test_no_choice_says_nothing() -> None:
    assert "tool_choice" not in body(tools=[ADD], tool_choice=False)


BAD_FIELDS = [
    ("unbound", {"tools": [ADD], "tool_choice": "ad"}, ["'ad'", "not bound", "'add'"]),
    ("unbound in a dict", {"tools": [ADD], "tool_choice": {"type": "tool", "name": "x"}}, ["'x'"]),
    ("no tools", {"tool_choice": "any"}, ["'any'", "no tools"]),
    ("no such choice", {"tools": [ADD], "tool_choice": 3}, ["tool_choice is 3"]),
    ("tool without name", {"tools": [{"function": {}}]}, ["name None"]),
    ("schema without title", {"tools": [SCHEMA]}, ["without a title"]),
    ("not JSON", {"extra": {"x": object()}}, ["object", "JSON"]),
    ("half a surrogate", {"extra": {"x": ["\ud83d"]}}, ["x[0]", "surrogate"]),
]


@pytest.mark.parametrize(("fields", "texts"), rows(BAD_FIELDS))
def test_bad_fields(fields: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(**fields)
    for text in texts:
        assert text in str(caught.value)


# ---- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (HumanMessage("a \ud83d b"), "messages[0].content"),
        (HumanMessage([{"type": "text", "text": "\udc00"}, IMAGE]), "messages[0].content[0].text"),
        (AIMessage("", tool_calls=[{**CALL, "args": {"x": "\ud83d"}}]), "x"),
    ],
)
def test_half_a_surrogate_pair_is_named(message: BaseMessage, place: str) -> None:
    with pytest.raises(ConfigurationError, match="half a surrogate pair") as caught:
        sent(message)
    assert place in str(caught.value)
    str(caught.value).encode()  # the error itself can be printed


def test_a_body_nested_without_end_is_an_error() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfigurationError, match="JSON"):
        body(extra={"x": deep})


class Markup(str):
    """As template engines make them."""


class Count(int):
    """As libraries of numbers make them."""


class Share(float):
    """Likewise."""


def test_subclasses_of_plain_types_are_sent_as_those() -> None:
    found = body(HumanMessage(Markup("hi")), max_tokens=Count(3), top_p=Share(0.5))
    assert found["messages"] == [{"role": "user", "content": "hi"}]
    assert (found["max_tokens"], found["top_p"]) == (3, 0.5)


def test_the_body_is_compact_utf8() -> None:
    request = encode(ChatRequest(model="m", messages=[HumanMessage("é😀")]))
    assert request.body == ('{"model":"m","messages":[{"role":"user","content":"é😀"}]}'.encode())
    assert request.headers == {}


def test_messages_are_not_changed() -> None:
    message = AIMessage([{"type": "text", "text": "a"}, CALL], extras={"x": {}})
    before = message.to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sent(message, ToolMessage("r", tool_call_id="c1"))
    assert message.to_dict() == before
