"""Gemini requests: what is sent for what was asked."""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire.gemini import BODY_FIELDS, encode
from streamfold.wire.request import ChatRequest

HI = HumanMessage("hi")
CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
SENT_CALL = {"functionCall": {"id": "c1", "name": "add", "args": {"a": 1}}}
BAD_CALL = {"type": "invalid_tool_call", "name": "f", "args": '{"a', "id": "c2", "error": "cut"}
MADE_UP = "call_0123456789abcdef01234567"
SIGNED = {"thoughtSignature": "c2ln"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
SENT_ADD = {"name": "add", "description": "d", "parametersJsonSchema": SCHEMA}
SEARCH = {"type": "web_search"}
IMAGE = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
OWN = {"model_provider": "google_genai"}


def body(*messages: BaseMessage, model: str = "gemini-2.5-flash", **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model=model, messages=list(messages) or [HI], **fields))
    assert request.path == f"/models/{model}:generateContent"
    assert request.headers == {}
    found: dict[str, Any] = json.loads(request.body)
    return found


def sent(*messages: BaseMessage, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(*messages, **fields)["contents"]
    return found


def answer(content: Sequence[Any] | str, **fields: Any) -> list[dict[str, Any]]:
    """The parts that are sent for an AI message with this content, its calls answered."""
    message = AIMessage(list(content) if not isinstance(content, str) else content)
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    results = [ToolMessage("r", tool_call_id=str(call["id"])) for call in calls]
    found = sent(message, *results, **fields)
    return found[0]["parts"] if found and found[0]["role"] == "model" else []


def config(**fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = body(**fields).get("generationConfig", {})
    return found


def rows(table: list[Any]) -> list[Any]:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# ---- where it goes -------------------------------------------------------------------------------

PATHS = [
    ("gemini-x", "/models/gemini-x"),
    ("models/gemini-x", "/models/gemini-x"),
    ("tunedModels/mine", "/tunedModels/mine"),
    ("publishers/google/models/gemini-x@001", "/models/gemini-x@001"),
    ("a b/c?d", "/models/a%20b%2Fc%3Fd"),
    ("../secrets", "/models/..%2Fsecrets"),
]


@pytest.mark.parametrize(("model", "path"), PATHS)
def test_path(model: str, path: str) -> None:
    whole, stream = (
        encode(ChatRequest(model=model, messages=[HI], stream=stream)) for stream in (False, True)
    )
    assert whole.path == path + ":generateContent"
    assert stream.path == path + ":streamGenerateContent?alt=sse"
    assert whole.body == stream.body


# ---- messages ------------------------------------------------------------------------------------


def test_roles() -> None:
    found = body(SystemMessage("s"), HI, AIMessage("a"), HumanMessage("b"), SystemMessage("t"))
    assert found == {
        "systemInstruction": {"parts": [{"text": "s"}, {"text": "t"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"text": "a"}]},
            {"role": "user", "parts": [{"text": "b"}]},
        ],
    }


def test_what_says_nothing_is_left_out() -> None:
    found = body(SystemMessage(""), HumanMessage(""), AIMessage(""), AIMessage([]), HI)
    assert found == {
        "contents": [
            {"role": "user", "parts": [{"text": ""}]},  # the API's error says what is missing
            {"role": "user", "parts": [{"text": "hi"}]},
        ]
    }


def test_a_system_message_is_text() -> None:
    developer = SystemMessage("s", extras={"role": "developer"})
    assert body(developer)["systemInstruction"] == {"parts": [{"text": "s"}]}
    with pytest.raises(ConfigurationError, match="only text"):
        body(SystemMessage([IMAGE]))


def test_fields_that_its_messages_have_not_are_named() -> None:
    with pytest.warns(UserWarning, match="Gemini takes no such thing: cache of a message, name"):
        sent(HumanMessage("hi", name="Bo", extras={"cache": 1}), AIMessage("a", name="Bo"))


ANSWERS = [
    ("text", "a", [{"text": "a"}]),
    ("texts stay apart", [{"type": "text", "text": "a"},
                          {"type": "text", "text": "b", "extras": SIGNED}],
     [{"text": "a"}, {"text": "b", **SIGNED}]),
    ("signed text", [{"type": "text", "text": "", "extras": SIGNED}], [{"text": "", **SIGNED}]),
    ("empty text", [{"type": "text", "text": ""}], []),
    ("citations stay", [{"type": "text", "text": "a", "annotations": [{"type": "citation"}]}],
     [{"text": "a"}]),
    ("thought", [{"type": "reasoning", "reasoning": "r", "extras": SIGNED}],
     [{"text": "r", "thought": True, **SIGNED}]),
    ("empty thought", [{"type": "reasoning", "reasoning": ""}], []),
    ("call", [CALL], [SENT_CALL]),
    ("call with extras", [{**CALL, "extras": {**SIGNED, "functionCall": {"x": 1}, "type": "f"}}],
     [{"functionCall": {**SENT_CALL["functionCall"], "x": 1}, **SIGNED}]),
    ("call with a made-up id", [{**CALL, "id": MADE_UP}],
     [{"functionCall": {"name": "add", "args": {"a": 1}}}]),
    ("odd name", [{**CALL, "name": "a/b c"}],
     [{"functionCall": {**SENT_CALL["functionCall"], "name": "a_b_c"}}]),
    ("unreadable call", [BAD_CALL], [{"functionCall": {"id": "c2", "name": "f", "args": {}}}]),
    ("image", [IMAGE], [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]),
    ("code", [{"type": "server_tool_call", "id": "x", "name": "code_execution",
               "args": {"language": "PYTHON", "code": "1"},
               "extras": {"block_type": "executableCode", **SIGNED}}],
     [{"executableCode": {"language": "PYTHON", "code": "1", "id": "x"}, **SIGNED}]),
    ("code result", [{"type": "server_tool_result", "tool_call_id": f"srv_{'0' * 24}",
                      "status": "success", "output": "2", "extras": {
                          "block_type": "codeExecutionResult",
                          "codeExecutionResult": {"outcome": "OUTCOME_OK"}}}],
     [{"codeExecutionResult": {"output": "2", "outcome": "OUTCOME_OK"}}]),
    ("tool call", [{"type": "server_tool_call", "id": "t", "name": "google_search", "args": {},
                    "extras": {"block_type": "toolCall", "toolCall": {"toolType": "X"}}}],
     [{"toolCall": {"args": {}, "id": "t", "toolType": "X"}}]),
    ("tool response", [{"type": "server_tool_result", "tool_call_id": "t", "status": "success",
                        "output": {"a": 1}, "extras": {"block_type": "toolResponse", **SIGNED}}],
     [{"toolResponse": {"id": "t", "response": {"a": 1}}, **SIGNED}]),
    ("search that no part told of", [
        {"type": "server_tool_call", "id": "t", "name": "google_search", "args": {},
         "extras": {"block_type": "groundingMetadata"}},
        {"type": "server_tool_result", "tool_call_id": "t", "status": "success",
         "extras": {"block_type": "groundingMetadata"}}], []),
    ("non-standard", [{"type": "non_standard", "value": {"hologram": 1}}], [{"hologram": 1}]),
    ("native", [{"functionCall": {"name": "f", "args": {}}}, {"text": "a", "thought": True}],
     [{"functionCall": {"name": "f", "args": {}}}, {"text": "a", "thought": True}]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), rows(ANSWERS))
def test_answer(content: Any, expected: Any) -> None:
    assert answer(content) == expected


def test_what_only_another_provider_understands_stays_behind() -> None:
    message = AIMessage(
        [
            {"type": "reasoning", "reasoning": "r", "extras": SIGNED},
            {"type": "text", "text": "a", "extras": SIGNED},
            {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {},
             "extras": {"block_type": "server_tool_use"}},
            {"type": "non_standard", "value": {"type": "odd"}},
            {**CALL, "extras": SIGNED},
        ],
        response_metadata={"model_provider": "anthropic"},
    )  # fmt: skip
    result = ToolMessage("1", tool_call_id="c1")
    with pytest.warns(UserWarning, match="server_tool_call block .*, odd block of another"):
        found = sent(message, result, provider="google_genai")
    assert found[0]["parts"] == [{"text": "a"}, SENT_CALL]


def test_an_unreadable_call_that_nothing_answers_is_left_out() -> None:
    with pytest.warns(UserWarning, match="unreadable tool call without a result"):
        assert sent(AIMessage([{"type": "text", "text": "a"}, BAD_CALL]), HI)[0] == {
            "role": "model",
            "parts": [{"text": "a"}],
        }


UNSIGNED = "skip_thought_signature_validator"
SIGNATURES = [
    ("gemini-3-pro", [CALL], [UNSIGNED]),
    ("gemini-flash-latest", [CALL, {**CALL, "id": "c2"}], [UNSIGNED, None]),
    ("models/gemini-3.1-pro", [{**CALL, "extras": SIGNED}, {**CALL, "id": "c2"}], ["c2ln", None]),
    ("gemini-2.5-flash", [CALL], [None]),
    ("models/gemini-2.0-flash", [CALL], [None]),
    ("gemma-3-27b-it", [CALL], [None]),
]


@pytest.mark.parametrize(("model", "calls", "expected"), SIGNATURES)
def test_calls_made_elsewhere_are_signed_as_such(model: str, calls: Any, expected: Any) -> None:
    message = AIMessage([{"type": "text", "text": "a"}, *calls])
    native = AIMessage([{"functionCall": {"name": "f", "args": {}, "id": "n"}}])
    results = [ToolMessage("r", tool_call_id=call["id"]) for call in calls]
    request = ChatRequest(model=model, messages=[message, *results, native])
    contents = json.loads(encode(request).body)["contents"]
    assert [part.get("thoughtSignature") for part in contents[0]["parts"]] == [None, *expected]
    assert native.content == [{"functionCall": {"name": "f", "args": {}, "id": "n"}}]  # not changed


# ---- results -------------------------------------------------------------------------------------


def results(*messages: ToolMessage, calls: Sequence[Any] = (CALL,)) -> list[dict[str, Any]]:
    first, second = sent(AIMessage(list(calls)), *messages)
    assert (first["role"], second["role"]) == ("model", "user")
    parts: list[dict[str, Any]] = second["parts"]
    return parts


RESULTS = [
    ("text", "sunny", {"output": "sunny"}),
    ("empty", "", {"output": ""}),
    ("number", "42", {"output": "42"}),
    ("list", "[1]", {"output": "[1]"}),
    ("object", '{"t": 20}', {"t": 20}),
    ("broken object", '{"t": 20', {"output": '{"t": 20'}),
    ("texts", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], {"output": "ab"}),
]


@pytest.mark.parametrize(("content", "response"), rows(RESULTS))
def test_result(content: Any, response: Any) -> None:
    (part,) = results(ToolMessage(content, tool_call_id="c1"))
    assert part == {"functionResponse": {"id": "c1", "name": "add", "response": response}}


@pytest.mark.parametrize(
    ("content", "error"), [("no", "no"), ('{"why": 1}', {"why": 1}), ("5", "5")]
)
def test_a_failed_call(content: str, error: Any) -> None:
    (part,) = results(ToolMessage(content, tool_call_id="c1", status="error"))
    assert part["functionResponse"]["response"] == {"error": error}


def test_results_are_one_content_in_the_order_of_their_calls() -> None:
    """Without ids it is their order that tells them apart."""
    ids = [f"call_{n:024x}" for n in range(3)]
    calls = [{**CALL, "id": id} for id in ids]
    messages = [ToolMessage(id[-1], tool_call_id=id) for id in reversed(ids)]
    parts = results(*messages, calls=calls)
    assert [part["functionResponse"] for part in parts] == [
        {"name": "add", "response": {"output": str(n)}} for n in range(3)
    ]


def test_images_follow_the_results() -> None:
    first = ToolMessage([IMAGE, {"type": "text", "text": "see"}], tool_call_id="c1")
    second = ToolMessage("2", tool_call_id="c2")
    parts = results(first, second, calls=[CALL, {**CALL, "id": "c2"}])
    assert [next(iter(part)) for part in parts] == [
        "functionResponse",
        "functionResponse",
        "inlineData",
    ]
    assert parts[0]["functionResponse"]["response"] == {"output": "see"}


def test_a_result_has_the_name_of_its_call() -> None:
    orphan = ToolMessage("r", tool_call_id="x", name="f")
    assert sent(orphan)[0]["parts"][0]["functionResponse"]["name"] == "f"
    native = AIMessage([{"functionCall": {"name": "g", "id": "n", "args": {}}}])
    result = ToolMessage("r", tool_call_id="n")
    assert sent(native, result)[1]["parts"][0]["functionResponse"]["name"] == "g"
    with pytest.raises(ConfigurationError, match=r"'x'.*name of the tool"):
        sent(ToolMessage("r", tool_call_id="x"))


def test_fields_of_a_result() -> None:
    message = ToolMessage("r", tool_call_id="c1", extras={"scheduling": "SILENT", "odd": 1})
    with pytest.warns(UserWarning, match="odd of a message"):
        (part,) = results(message)
    assert part["functionResponse"]["scheduling"] == "SILENT"


# ---- parts ---------------------------------------------------------------------------------------

FILES = "https://generativelanguage.googleapis.com/v1beta/files/f"
NATIVE = [
    {"text": "a"},
    {"inlineData": {"mimeType": "image/png", "data": "AA"}, "mediaResolution": {"level": "x"}},
    {"file_data": {"file_uri": "gs://b/x"}, "video_metadata": {"fps": 1}},
]
PARTS = [
    ("image", IMAGE, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    ("image url", {"type": "image", "url": "https://x/y.PNG?z"},
     {"fileData": {"mimeType": "image/png", "fileUri": "https://x/y.PNG?z"}}),
    ("data url", {"type": "image", "url": "data:image/gif;base64,AA"},
     {"inlineData": {"mimeType": "image/gif", "data": "AA"}}),
    ("video", {"type": "video", "url": "https://youtu.be/x",
               "extras": {"videoMetadata": {"fps": 5}}},
     {"fileData": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"fps": 5}}),
    ("audio", {"type": "audio", "base64": "AA", "mime_type": "audio/wav"},
     {"inlineData": {"mimeType": "audio/wav", "data": "AA"}}),
    ("file id", {"type": "file", "file_id": "files/f", "mime_type": "text/csv"},
     {"fileData": {"mimeType": "text/csv", "fileUri": FILES}}),
    ("file uri", {"type": "file", "file_id": "gs://b/x.pdf"},
     {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://b/x.pdf"}}),
    ("pdf", {"type": "file", "base64": "AA", "extras": {"filename": "a.pdf"}},
     {"inlineData": {"mimeType": "application/pdf", "data": "AA"}}),
    ("inner fields", {**IMAGE, "extras": {"inlineData": {"displayName": "x"}}},
     {"inlineData": {"mimeType": "image/png", "data": "AAAA", "displayName": "x"}}),
    ("plain text", {"type": "text-plain", "text": "t", "title": "T", "context": "C"},
     {"text": "T\n\nC\n\nt"}),
    ("plain base64", {"type": "text-plain", "base64": "w6k=", "mime_type": "text/plain"},
     {"text": "é"}),
    ("plain url", {"type": "text-plain", "url": "https://x/y"},
     {"fileData": {"mimeType": "text/plain", "fileUri": "https://x/y"}}),
    ("OpenAI's image", {"type": "image_url", "image_url": {"url": "https://x/y.png",
                                                           "detail": "low"}},
     {"fileData": {"mimeType": "image/png", "fileUri": "https://x/y.png"}}),
    ("OpenAI's audio", {"type": "input_audio", "input_audio": {"data": "AA", "format": "mp3"}},
     {"inlineData": {"mimeType": "audio/mp3", "data": "AA"}}),
    ("OpenAI's file", {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA",
                                                "filename": "a.pdf"}},
     {"inlineData": {"mimeType": "application/pdf", "data": "AA"}}),
    ("LangChain's media", {"type": "media", "mime_type": "video/mp4", "file_uri": "gs://b/x"},
     {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://b/x"}}),
    ("LangChain's data", {"type": "media", "mime_type": "video/mp4", "data": "AA"},
     {"inlineData": {"mimeType": "video/mp4", "data": "AA"}}),
    ("cache mark", {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
     {"text": "a"}),
    ("non-standard", {"type": "non_standard", "value": {"odd": 1}}, {"odd": 1}),
    *((f"native {next(iter(part))}", part, part) for part in NATIVE),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(PARTS))
def test_part(block: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(HumanMessage([block])) == [{"role": "user", "parts": [expected]}]


BAD_PARTS = [
    ("unknown type", {"type": "imge_url", "x": 1}, ["'imge_url'", "'image'", "non_standard"]),
    ("no type", {"x": 1}, ["no type", "Gemini"]),
    ("Anthropic's", {"type": "tool_use", "id": "1"}, ["'tool_use'", "Gemini"]),
    ("image without data", {"type": "image"}, ["base64 or url or file_id"]),
    ("image without type", {"type": "image", "base64": "AA"}, ["mime_type None"]),
    ("text that is none", {"type": "text-plain", "base64": "/w=="}, ["not UTF-8"]),
    ("non-standard without value", {"type": "non_standard"}, ["no value"]),
]


@pytest.mark.parametrize(("block", "texts"), rows(BAD_PARTS))
def test_bad_part(block: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(HumanMessage([block]))
    for expected in texts:
        assert expected in str(caught.value)


# ---- parameters ----------------------------------------------------------------------------------


def test_standard_parameters() -> None:
    assert body() == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    found = config(temperature=0, max_tokens=5, stop=["x"], top_p=0.5, seed=0)
    assert found == {
        "temperature": 0,
        "maxOutputTokens": 5,
        "stopSequences": ["x"],
        "topP": 0.5,
        "seed": 0,
    }


class Category(enum.Enum):
    HARASSMENT = "HARM_CATEGORY_HARASSMENT"


SAFETY = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
EXTRA = [
    ("configuration", {"top_k": 3, "presencePenalty": 1}, {"topK": 3, "presencePenalty": 1}),
    ("what it wins over", {"temperature": 1, "max_output_tokens": 7, "seed": 3},
     {"temperature": 1, "maxOutputTokens": 7, "seed": 3}),
    ("thinking", {"include_thoughts": True, "thinking_budget": 0},
     {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 0}}),
    ("level", {"thinking_level": "low"}, {"thinkingConfig": {"thinkingLevel": "LOW"}}),
    ("thinking object", {"thinking_config": {"include_thoughts": True}, "thinkingBudget": 5},
     {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 5}}),
    ("configuration object", {"generation_config": {"top_k": 3, "new_field": {"a_b": 1}},
                              "top_k": 2},
     {"topK": 3, "newField": {"a_b": 1}}),
    ("both objects", {"generationConfig": {"thinkingConfig": {"thinkingBudget": 1}},
                      "thinking_budget": 2}, {"thinkingConfig": {"thinkingBudget": 1}}),
    ("modalities", {"response_modalities": ["AUDIO"], "speech_config": {"x": 1}},
     {"responseModalities": ["AUDIO"], "speechConfig": {"x": 1}}),
    ("OpenAI's n", {"n": 2}, {"candidateCount": 2}),
    ("log probabilities", {"logprobs": True}, {"responseLogprobs": True}),
    ("how many", {"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
    ("no rivals", {"top_logprobs": 0, "logprobs": True}, {"responseLogprobs": True}),
    ("as Gemini has it", {"response_logprobs": True, "logprobs": 2},
     {"responseLogprobs": True, "logprobs": 2}),
    ("a schema", {"response_schema": {"type": "OBJECT"}},
     {"responseMimeType": "application/json", "responseSchema": {"type": "OBJECT"}}),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "expected"), rows(EXTRA))
def test_further_fields_of_the_configuration(extra: Any, expected: Any) -> None:
    said = {"temperature": 0.5, "max_tokens": 1, "seed": 2} if "temperature" in extra else {}
    assert config(**said, extra=extra) == expected


BODY = [
    ("safety settings", {"safety_settings": SAFETY}, {"safetySettings": SAFETY}),
    ("safety as a dict", {"safety_settings": {Category.HARASSMENT: "BLOCK_NONE"}},
     {"safetySettings": SAFETY}),
    ("cache", {"cached_content": "cachedContents/x"}, {"cachedContent": "cachedContents/x"}),
    ("labels", {"labels": {"a_b": "c"}}, {"labels": {"a_b": "c"}}),
    ("unknown", {"new_field": 1}, {"new_field": 1}),
    ("contents", {"contents": []}, {"contents": []}),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "expected"), rows(BODY))
def test_further_fields_of_the_body(extra: Any, expected: Any) -> None:
    assert body(extra=extra) == {**body(), **expected}


def test_an_object_must_be_one() -> None:
    for name in ("generation_config", "thinking_config", "tool_config"):
        with pytest.raises(ConfigurationError, match="expected a dict"):
            body(extra={name: 5})


def test_fields_are_known_in_both_cases() -> None:
    assert {"top_k", "topK", "safety_settings", "includeThoughts", "n", "cached_content"} <= (
        BODY_FIELDS
    )
    assert "contents" not in BODY_FIELDS


EFFORTS = [
    ("gemini-3-pro", "low", {"thinkingLevel": "LOW"}),
    ("gemini-3-pro", "xhigh", {"thinkingLevel": "XHIGH"}),
    ("gemini-flash-latest", "none", {"thinkingBudget": 0}),
    ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
    ("gemini-2.5-flash", "minimal", {"thinkingBudget": 1024}),
    ("models/gemini-2.5-pro", "medium", {"thinkingBudget": 8192}),
    ("gemini-2.5-flash", "high", {"thinkingBudget": 24576}),
]


@pytest.mark.parametrize(("model", "effort", "expected"), EFFORTS)
def test_effort(model: str, effort: str, expected: Any) -> None:
    """Who asks for thoughts sees them, but if told not to show them."""

    def thinking(**extra: Any) -> Any:
        request = ChatRequest(model=model, messages=[HI], reasoning_effort=effort, extra=extra)
        return json.loads(encode(request).body)["generationConfig"]["thinkingConfig"]

    assert thinking() == expected | ({} if effort == "none" else {"includeThoughts": True})
    assert thinking(include_thoughts=True) == {**expected, "includeThoughts": True}
    assert thinking(include_thoughts=False) == {**expected, "includeThoughts": False}


def test_the_vendors_own_word_on_thinking_wins() -> None:
    found = config(reasoning_effort="high", extra={"thinking_budget": 5})
    assert found == {"thinkingConfig": {"thinkingBudget": 5}}
    with pytest.raises(ConfigurationError, match=r"'huge'.*minimal, low, medium, high"):
        config(reasoning_effort="huge")


def test_formats() -> None:
    schema = {"$schema": "x", "$defs": {"A": {"type": "string"}}, "$ref": "#/$defs/A"}
    plain = {key: value for key, value in schema.items() if key != "$schema"}
    json_mode = {"responseMimeType": "application/json"}
    nested = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    for given in (nested, {"type": "json_schema", "schema": schema}):
        assert config(response_format=given) == {**json_mode, "responseJsonSchema": plain}
    assert config(response_format={"type": "json_object"}) == json_mode
    assert config(response_format={"type": "text"}) == {}
    own = config(response_format=nested, extra={"response_schema": {"type": "OBJECT"}})
    assert own == {**json_mode, "responseSchema": {"type": "OBJECT"}}
    for bad in ({"type": "grammar"}, {"type": "json_schema"}, {"type": "json_schema", "schema": 5}):
        with pytest.raises(ConfigurationError, match="json_schema and then a schema"):
            config(response_format=bad)


def test_one_call_at_a_time_cannot_be_had() -> None:
    assert "toolConfig" not in body(tools=[ADD], parallel_tool_calls=True)
    with pytest.raises(ConfigurationError, match="parallel_tool_calls is False"):
        body(tools=[ADD], parallel_tool_calls=False)


# ---- tools ---------------------------------------------------------------------------------------

NATIVE_SCHEMA = {"type": "OBJECT", "properties": {"a": {"type": "INTEGER"}}}
TOOLS = [
    ("function", [ADD], [{"functionDeclarations": [SENT_ADD]}]),
    ("functions are one tool", [ADD, {"name": "f"}],
     [{"functionDeclarations": [SENT_ADD, {"name": "f"}]}]),
    ("a dialect in the schema", [{"name": "f", "parameters": {"$schema": "x", **SCHEMA}}],
     [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}]),
    ("a schema without a type", [{"name": "f", "input_schema": {"properties": {}}}],
     [{"functionDeclarations": [
         {"name": "f", "parametersJsonSchema": {"type": "object", "properties": {}}}]}]),
    ("Gemini's schema", [{"name": "f", "parameters": NATIVE_SCHEMA}],
     [{"functionDeclarations": [{"name": "f", "parameters": NATIVE_SCHEMA}]}]),
    ("Gemini's fields", [{"name": "f", "parametersJsonSchema": SCHEMA, "behavior": "BLOCKING"}],
     [{"functionDeclarations": [
         {"name": "f", "parametersJsonSchema": SCHEMA, "behavior": "BLOCKING"}]}]),
    ("Gemini's tool", [{"function_declarations": [{"name": "f", "parameters": SCHEMA}]}],
     [{"function_declarations": [{"name": "f", "parameters": SCHEMA}]}]),
    ("search", [SEARCH], [{"googleSearch": {}}]),
    ("search with fields", [{**SEARCH, "name": "web_search", "excludeDomains": ["x"]}],
     [{"googleSearch": {"excludeDomains": ["x"]}}]),
    ("Gemini's search", [{"google_search": {}}], [{"google_search": {}}]),
    ("code", [{"type": "code_execution"}, {"type": "code_interpreter"}],
     [{"codeExecution": {}}, {"codeExecution": {}}]),
    ("pages", [{"type": "url_context"}], [{"urlContext": {}}]),
    ("something new", [{"newTool": {"x": 1}}], [{"newTool": {"x": 1}}]),
]  # fmt: skip


@pytest.mark.parametrize(("tools", "expected"), rows(TOOLS))
def test_tools(tools: Any, expected: Any) -> None:
    found = body(tools=tools)
    assert found["tools"] == expected
    assert "toolConfig" not in found


def test_tools_that_cannot_be_had() -> None:
    with pytest.raises(ConfigurationError, match=r"'web_serch'.*web_search"):
        body(tools=[{"type": "web_serch"}])
    with pytest.warns(UserWarning, match="cache_control of a tool"):
        body(tools=[{**ADD, "cache_control": {}}])


def test_both_kinds_of_tools_need_a_word() -> None:
    found = body(tools=[ADD, SEARCH])
    assert found["tools"] == [{"functionDeclarations": [SENT_ADD]}, {"googleSearch": {}}]
    assert found["toolConfig"] == {"includeServerSideToolInvocations": True}
    native = {"functionDeclarations": [{"name": "f"}], "googleSearch": {}}
    assert body(tools=[native])["toolConfig"] == found["toolConfig"]
    assert "toolConfig" not in body(tools=[ADD, SEARCH], quirks=frozenset({"vertex"}))
    own = {"tool_config": {"include_server_side_tool_invocations": False}}
    assert body(tools=[ADD, SEARCH], extra=own)["toolConfig"] == {
        "includeServerSideToolInvocations": False
    }


NAMED = {"mode": "ANY", "allowedFunctionNames": ["add"]}
CHOICES = [
    ("auto", {"mode": "AUTO"}),
    ("none", {"mode": "NONE"}),
    ("any", {"mode": "ANY"}),
    ("required", {"mode": "ANY"}),
    (True, {"mode": "ANY"}),
    ("add", NAMED),
    ({"type": "function", "function": {"name": "add"}}, NAMED),
    ({"type": "tool", "name": "add"}, NAMED),
    ({"type": "any"}, {"mode": "ANY"}),
    ({"mode": "ANY", "allowed_function_names": ["add"]}, NAMED),
    ({"functionCallingConfig": NAMED}, NAMED),
    ({"function_calling_config": NAMED}, NAMED),
]


@pytest.mark.parametrize(("choice", "expected"), CHOICES, ids=str)
def test_choice(choice: Any, expected: Any) -> None:
    for tools in ([ADD], [{"functionDeclarations": [{"name": "add"}]}]):
        found = body(tools=tools, tool_choice=choice)
        assert found["toolConfig"] == {"functionCallingConfig": expected}
        assert len(found["tools"]) == 1


BAD_CHOICES = [
    ("unknown", [ADD], "ad", "'add'"),
    ("no tools", None, "any", "no tools are bound"),
    ("only Google's tools", [SEARCH], "any", "functions only"),
    ("one of Google's tools", [ADD, SEARCH], "web_search", "functions only"),
    ("odd dict", [ADD], {"x": 1}, "with a mode"),
    ("odd mode", [ADD], {"functionCallingConfig": 5}, "with a mode"),
    ("odd type", [ADD], 5, "expected 'auto'"),
]


@pytest.mark.parametrize(("tools", "choice", "text"), rows(BAD_CHOICES))
def test_bad_choice(tools: Any, choice: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        body(tools=tools, tool_choice=choice)


def test_googles_own_tools_are_the_models_to_use() -> None:
    """The API rejects a mode where there is no function."""
    for choice in ("auto", "none"):
        assert "toolConfig" not in body(tools=[SEARCH], tool_choice=choice)


def test_strict_functions() -> None:
    strict = {"type": "function", "function": {**ADD["function"], "strict": True}}
    validated = {"functionCallingConfig": {"mode": "VALIDATED"}}
    assert body(tools=[strict])["toolConfig"] == validated
    assert body(tools=[strict], tool_choice="auto")["toolConfig"] == validated
    required = body(tools=[strict], tool_choice="any")["toolConfig"]
    assert required == {"functionCallingConfig": {"mode": "ANY"}}
    assert "strict" not in json.dumps(body(tools=[strict]))


def test_tool_configs_are_joined() -> None:
    found = body(
        tools=[ADD],
        tool_choice="any",
        extra={"tool_config": {"retrieval_config": {"x": 1}}},
    )
    assert found["toolConfig"] == {
        "functionCallingConfig": {"mode": "ANY"},
        "retrievalConfig": {"x": 1},
    }


def test_messages_and_tools_are_not_changed() -> None:
    message = AIMessage([{"type": "text", "text": "a"}, {**CALL, "extras": {"functionCall": {}}}])
    extra = {"generation_config": {"thinking_config": {"thinking_budget": 1}}}
    before = message.to_dict()
    result = ToolMessage("r", tool_call_id="c1")
    body(message, result, model="gemini-3-pro", tools=[ADD], tool_choice="auto", extra=extra)
    assert message.to_dict() == before
    assert ADD["function"]["parameters"] == SCHEMA
    assert extra == {"generation_config": {"thinking_config": {"thinking_budget": 1}}}
