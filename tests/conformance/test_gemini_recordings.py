"""Every recorded exchange with Gemini, on the Gemini API and Vertex AI.

Answers, however they are cut, must say what the vendor's SDK makes of them, and go back as they
came; requests written by the encoder must mean what was recorded. The recordings lie outside the
repository; without them these tests are skipped. `STREAMFOLD_SHARED` names their folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import (
    AuthenticationError,
    ContextOverflowError,
    NotFoundError,
    ProviderError,
    RateLimitError,
)
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_from_dict,
    messages_from_dict,
    messages_to_dict,
)
from streamfold.testing import Exchange, ReplayServer, cut
from streamfold.wire import gemini
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] == "gemini"
]

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


ANSWERS = [r for r in RECORDINGS if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if r["stream"]]
WHOLE = [r for r in ANSWERS if not r["stream"]]
ERRORS = [r for r in RECORDINGS if r["response"]["status"] != 200]
REQUESTS = [r for r in RECORDINGS if isinstance(r["request"]["body"], dict)]

#: What the vendor's SDK cannot put together, read by hand from the recorded events.
PARTIAL_VERTEX = (
    "vertex-gemini-ai-should-stream-generate-content-enabled-streamfunctioncallarguments-f7aa0326"
)
BY_HAND: dict[str, list[Body]] = {
    "gemini-google-stream-no-args-tool-call-d5fe2c3d": [
        {"name": "read_theme", "args": {}},
        {"name": "read_screen", "args": {"id": "A"}},
        {"name": "read_screen", "args": {"id": "B"}},
        {"name": "read_screen", "args": {"id": "C"}},
    ],
    PARTIAL_VERTEX: [
        {
            "name": "getCurrentWeather",
            "args": {
                "country": "USA",
                "location": "NewYorkCity",
                "purpose": "to know what to wear today",
                "unit": "C",
            },
        }
    ],
}


def test_all_exchanges_are_there() -> None:
    assert (len(STREAMS), len(WHOLE), len(ERRORS), len(REQUESTS)) == (22, 9, 5, 33)
    assert {r["id"] for r in ANSWERS if r["expected"] is None} == BY_HAND.keys()


# ---- answers -------------------------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    text: str = recording["response"]["body_text"]
    return text.encode()


def streamed(body: bytes, chunking: Any = "whole") -> AIMessage:
    decoder = gemini.Decoder()
    chunks = [chunk for piece in cut(body, chunking) for chunk in decoder.feed(piece)]
    chunks += decoder.close()
    if decoder.error is not None:
        raise decoder.error
    return sum(chunks, AIMessageChunk()).to_message()


def whole(body: bytes) -> AIMessage:
    decoder = gemini.Decoder()
    chunks = decoder.whole(body)
    if decoder.error is not None:
        raise decoder.error
    return sum(chunks, AIMessageChunk()).to_message()


def answer(recording: Body) -> AIMessage:
    read = streamed if recording["stream"] else whole
    return read(body_of(recording))


def events(recording: Body) -> list[Body]:
    """The payloads of a recorded stream, in either framing."""
    text = recording["response"]["body_text"]
    if text.startswith("["):
        found: list[Body] = json.loads(text)
        return found
    return [json.loads(block[5:]) for block in re.split(r"\r?\n\r?\n", text) if block]


def without_ids(calls: list[Any]) -> list[Body]:
    return [{"name": call["name"], "args": call["args"]} for call in calls]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_says_what_the_sdk_reads(recording: Body) -> None:
    message, expected = answer(recording), recording["expected"]
    if expected is None:
        assert without_ids(message.tool_calls) == BY_HAND[recording["id"]]
        assert message.finish_reason == "tool_calls"
        return
    blocks = message.content_blocks
    reasoning = "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")
    server = [b["name"] for b in blocks if b["type"] == "server_tool_call"]
    assert message.text == expected["text"]
    assert (reasoning or None) == expected["reasoning"]
    assert without_ids(message.tool_calls) == without_ids(expected["tool_calls"])
    for call, known in zip(message.tool_calls, expected["tool_calls"]):
        assert call["id"] == (known["id"] or call["id"])
        assert call["id"]
    assert not message.invalid_tool_calls
    assert server == expected["server_tool_calls"]
    assert message.response_metadata.get("finish_reason") == expected["stop_reason"]
    assert message.response_metadata.get("usage") == expected["usage"]
    assert message.response_metadata.get("model_name") == expected["model"]
    media = [b["mime_type"] for b in blocks if b["type"] in ("image", "audio", "video")]
    assert media == expected.get("media_out", [])


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_usage_adds_up(recording: Body) -> None:
    usage = answer(recording).usage_metadata
    assert usage is not None
    raw = (recording["expected"] or {}).get("usage") or events(recording)[-1]["usageMetadata"]
    assert usage["total_tokens"] == raw["totalTokenCount"]
    assert usage["input_tokens"] + usage["output_tokens"] == raw["totalTokenCount"]


@pytest.mark.parametrize("chunking", ["bytes", 1, 2, 3, 4, 5])
@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_may_be_cut_anywhere(recording: Body, chunking: Any) -> None:
    body = body_of(recording)
    assert streamed(body, chunking) == streamed(body)


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_cut_off_stream_is_an_error(recording: Body) -> None:
    body = body_of(recording)
    decoder = gemini.Decoder()
    decoder.feed(body[: body.rindex(b"finishReason")])
    decoder.close()
    assert type(decoder.error).__name__ == "StreamInterruptedError"


@pytest.mark.parametrize("recording", params(STREAMS))
def test_both_framings_say_the_same(recording: Body) -> None:
    payloads = events(recording)
    expected = recording["expected"]
    assert expected is None or len(payloads) == expected["n_events"]
    array = json.dumps(payloads, indent=2).encode()
    sse = b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in payloads)
    assert streamed(array) == streamed(sse) == answer(recording)


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    *_, last = payloads = events(recording)
    if any("partialArgs" in part.get("functionCall", {}) for part in parts_of(payloads)):
        pytest.skip("arguments come in pieces only in a stream")
    (candidate,) = last["candidates"]
    content = {"role": "model", "parts": joined(parts_of(payloads))}
    body = {**last, "candidates": [{**candidate, "content": content}]}
    assert whole(json.dumps(body).encode()) == answer(recording)


def parts_of(payloads: list[Body]) -> list[Body]:
    return [
        part
        for payload in payloads
        for candidate in payload["candidates"]
        for part in candidate["content"]["parts"]
    ]


def joined(parts: list[Body]) -> list[Body]:
    """The parts of a stream as they are in an answer that comes whole: texts joined."""
    result: list[Body] = []
    for part in parts:
        same = result and {"text", "thought"} >= result[-1].keys() - {"thoughtSignature"}
        if "text" in part and same and result[-1].get("thought") == part.get("thought"):
            result[-1] = {**result[-1], **part, "text": result[-1]["text"] + part["text"]}
        elif part.get("text") != "" or "thoughtSignature" in part:
            result.append(part)
    return result


def test_citations_point_at_the_text_they_support() -> None:
    found = 0
    for recording in ANSWERS:
        message = answer(recording)
        metadata = message.response_metadata.get("grounding_metadata", {})
        supports = metadata.get("groundingSupports", [])
        cited = [
            block["text"][note["start_index"] : note["end_index"]]
            for block in message.content_blocks
            for note in block.get("annotations", ())
        ]
        urls = [
            note["url"] for block in message.content_blocks for note in block.get("annotations", ())
        ]
        chunks = metadata.get("groundingChunks", [])
        indices = [(s, i) for s in supports for i in s["groundingChunkIndices"]]
        assert cited == [support["segment"]["text"] for support, _ in indices]
        assert urls == [chunks[index]["web"]["uri"] for _, index in indices]
        found += len(cited)
    assert found == 21


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_the_same_over_the_network(recording: Body) -> None:
    """The type of the body tells the framing: an array comes as plain JSON."""
    exchange = Exchange.from_recording(recording)
    with ReplayServer([exchange], chunking=11) as server:
        model = init_chat_model("google_genai:gemini-x", base_url=server.url, api_key="k")
        if recording["stream"]:
            *first, last = model.stream("hi")
            message = sum([*first, last], AIMessageChunk()).to_message()
        else:
            message = model.invoke("hi")
    expected = answer(recording)
    if expected.id is None:  # ids of calls are made from it
        assert not expected.tool_calls
    assert message == expected


# ---- errors --------------------------------------------------------------------------------------

CLASSES: dict[str, type[ProviderError]] = {
    "NOT_FOUND": NotFoundError,
    "RESOURCE_EXHAUSTED": RateLimitError,
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("recording", params(ERRORS))
def test_error(recording: Body, stream: bool, in_array: bool) -> None:
    exchange = Exchange.from_recording(recording)
    if in_array:
        body = b"[" + exchange.body + b"]"
        exchange = Exchange(status=exchange.status, headers=exchange.headers, body=body)
    expected = recording["expected"]["error"]
    with ReplayServer([exchange]) as server:
        model = init_chat_model(
            "google_genai:gemini-x", base_url=server.url, api_key="k", max_retries=0
        )
        with pytest.raises(ProviderError) as caught:
            list(model.stream("hi")) if stream else model.invoke("hi")
    error = caught.value
    assert (error.status, error.type, error.message) == (
        expected["status"],
        expected["type"],
        expected["message"],
    )
    usual = ContextOverflowError if "token count" in error.message else AuthenticationError
    assert type(error) is CLASSES.get(expected["type"], usual)
    if expected["status"] == 429:
        assert (error.retryable, error.retry_after) == (True, 34.4)
        assert error.code == "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"


# ---- answers as history --------------------------------------------------------------------------


def camel(value: Any) -> Any:
    """The API reads both forms of its own names."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("_([a-z])", lambda m: m[1].upper(), k): camel(v) for k, v in value.items()}


def stored(message: AIMessage) -> AIMessage:
    back = message_from_dict(json.loads(json.dumps(message.to_dict())))
    assert isinstance(back, AIMessage)
    return back


def sent_back(recording: Body) -> list[Body]:
    """The parts of the model's content that the next request holds."""
    message = stored(answer(recording))
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    request = ChatRequest(
        model="gemini-2.5-flash", messages=[HumanMessage("hi"), message, *results]
    )
    contents = json.loads(gemini.encode(request).body)["contents"]
    assert [content["role"] for content in contents] == ["user", "model", "user"][: len(contents)]
    assert len(contents) == 2 + bool(results)
    if results:
        answers = [part["functionResponse"] for part in contents[2]["parts"]]
        calls = [part["functionCall"] for part in contents[1]["parts"] if "functionCall" in part]
        assert [a["name"] for a in answers] == [c["name"] for c in calls]
        assert [a.get("id") for a in answers] == [c.get("id") for c in calls]
    parts: list[Body] = contents[1]["parts"]
    return parts


def with_args(part: Body) -> Body:
    """A call without arguments has none, or an empty object: that means the same."""
    if "functionCall" not in part:
        return part
    return {**part, "functionCall": {"args": {}, **part["functionCall"]}}


@pytest.mark.parametrize("recording", params(WHOLE))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    (candidate,) = json.loads(body_of(recording))["candidates"]
    assert sent_back(recording) == candidate["content"]["parts"]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_goes_back_as_its_parts(recording: Body) -> None:
    parts = joined(parts_of(events(recording)))
    if recording["id"] in BY_HAND:
        signatures = [
            p.get("thoughtSignature") for p in parts if "name" in p.get("functionCall", {})
        ]
        calls = [
            {"functionCall": call, **({"thoughtSignature": mark} if mark else {})}
            for call, mark in zip(BY_HAND[recording["id"]], signatures)
        ]
        parts = [part for part in parts if "functionCall" not in part] + calls
    assert sent_back(recording) == [with_args(part) for part in parts]


# ---- requests ------------------------------------------------------------------------------------


def request_of(recording: Body, messages: list[BaseMessage]) -> ChatRequest:
    """The recorded body with its parameters under the neutral names."""
    body = dict(recording["request"]["body"])
    config = dict(body.pop("generationConfig", {}))
    thinking = dict(config.pop("thinkingConfig", {}))
    url = recording["request"]["url"]
    tool_config = dict(body.pop("toolConfig", {}))
    mode = tool_config.pop("functionCallingConfig", {})
    extra = {key: body.pop(key) for key in ("safetySettings",) if key in body}
    if tool_config.keys() - {"includeServerSideToolInvocations"} or "mode" not in mode:
        extra |= {"tool_config": {**tool_config, "functionCallingConfig": mode}} if mode else {}
    tools = [each for tool in body.get("tools", ()) for each in neutral_tools(camel(tool))]
    return ChatRequest(
        model=re.search(r"models/([^:]+):", url)[1],  # type: ignore[index]
        messages=messages,
        stream=recording["stream"],
        temperature=config.pop("temperature", None),
        max_tokens=config.pop("maxOutputTokens", None),
        top_p=config.pop("topP", None),
        reasoning_effort=str(thinking.pop("thinkingLevel")).lower()
        if "thinkingLevel" in thinking
        else None,
        tools=tools or None,
        tool_choice={"AUTO": "auto"}.get(mode.get("mode")),
        response_format=format_of(config),
        extra={**extra, **snake(config), **snake(thinking)},
    )


def snake(fields: Body) -> Body:
    return {re.sub("([A-Z])", r"_\1", key).lower(): value for key, value in fields.items()}


def format_of(config: Body) -> Body | None:
    if "responseJsonSchema" not in config:
        return None
    config.pop("responseMimeType")
    schema = config.pop("responseJsonSchema")
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def neutral_tools(tool: Body) -> Iterator[Body]:
    for declared in tool.pop("functionDeclarations", ()):
        schema = declared.pop("parametersJsonSchema", None)
        function = {**declared, **({"parameters": schema} if schema else {})}
        yield {"type": "function", "function": function}
    if tool:
        yield {"type": "web_search"} if tool == {"googleSearch": {}} else tool


def inputs(recording: Body) -> list[Any]:
    """The recorded messages, parts as they are."""
    body = camel(recording["request"]["body"])
    system = body.get("systemInstruction")
    found: list[Any] = [{"role": "system", "content": system["parts"]}] if system else []
    for content in body["contents"]:
        role = {"model": "assistant"}.get(content["role"], content["role"])
        found.append({"role": role, "content": content["parts"]})
    return found


def meaning(body: Body) -> Body:
    meant = camel(body)
    meant.pop("model", None)  # the path has it
    meant.get("systemInstruction", {}).pop("role", None)  # it is ignored there
    if not meant.get("generationConfig", True):
        del meant["generationConfig"]
    for tool in meant.get("tools", ()):
        for declared in tool.get("functionDeclarations", ()):
            schema = declared.pop("parametersJsonSchema", None) or declared.pop("parameters")
            declared["parameters"] = lower(schema)
    meant["tools"] = sorted(meant.get("tools", ()), key=str)
    if meant.get("toolConfig", {}).get("functionCallingConfig") == {"mode": "AUTO"}:
        del meant["toolConfig"]["functionCallingConfig"]  # the default
    meant["toolConfig"] = meant.get("toolConfig", {})
    meant["contents"] = [content_meaning(content) for content in meant["contents"]]
    return meant


def content_meaning(content: Body) -> Body:
    parts = [part for part in content["parts"] if part != {"text": ""}]
    return {**content, "parts": parts}


def lower(schema: Any) -> Any:
    """Types in capitals are the same types."""
    if isinstance(schema, list):
        return [lower(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else lower(value)
        for key, value in schema.items()
    }


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_request_means_what_was_recorded(recording: Body) -> None:
    request = request_of(recording, coerce_messages(inputs(recording)))
    sent = gemini.encode(request)
    assert meaning(json.loads(sent.body)) == meaning(recording["request"]["body"])
    path = recording["request"]["url"].partition("/models/")[2].partition("?")[0]
    assert sent.path.partition("?")[0] == "/models/" + path


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    messages = coerce_messages(inputs(recording))
    back = messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    first, second = (request_of(recording, each) for each in (messages, back))
    assert gemini.encode(first) == gemini.encode(second)


def in_standard_blocks(recording: Body) -> Iterator[BaseMessage]:
    """The recorded messages as a user of standard messages would write them."""
    ids: dict[str, list[str]] = {}
    for message in inputs(recording):
        if message["role"] == "system":
            yield SystemMessage("".join(part["text"] for part in message["content"]))
        elif message["role"] == "assistant":
            yield AIMessage([standard(part, ids) for part in message["content"]])
        else:
            results = [part for part in message["content"] if "functionResponse" in part]
            for part in results:
                result = part["functionResponse"]
                id = ids[result["name"]].pop(0)
                yield ToolMessage(json.dumps(result["response"]), tool_call_id=id)
            said = [standard(part, ids) for part in message["content"] if part not in results]
            if said:
                yield HumanMessage(said)


def standard(part: Body, ids: dict[str, list[str]]) -> Body:
    if "functionCall" in part:
        call = part["functionCall"]
        id = call.get("id") or f"call_{len(ids):024x}"  # as the decoder makes one up
        ids.setdefault(call["name"], []).append(id)
        extras = {k: v for k, v in part.items() if k != "functionCall"}
        return {
            "type": "tool_call",
            "id": id,
            "name": call["name"],
            "args": call["args"],
            "extras": extras,
        }
    if "inlineData" in part:
        blob = part["inlineData"]
        kind = blob["mimeType"].partition("/")[0]
        kind = kind if kind in ("image", "audio") else "file"
        return {"type": kind, "base64": blob["data"], "mime_type": blob["mimeType"]}
    return {"type": "text", **part}


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_standard_messages_mean_the_same(recording: Body) -> None:
    request = request_of(recording, coerce_messages(list(in_standard_blocks(recording))))
    sent = json.loads(gemini.encode(request).body)
    assert meaning(sent) == meaning(recording["request"]["body"])
