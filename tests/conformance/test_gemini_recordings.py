"""Every recorded exchange with Gemini, on the Gemini API and Vertex AI.

Streams say what whole answers say, answers go back as they came, and requests written by the
encoder mean what was recorded. That answers say what the vendor's SDK reads, however they are cut,
is in `test_recordings.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from decoding import decode, decode_whole
from recordings import (
    APIS,
    BY_HAND,
    Body,
    all_stored,
    answer,
    answers,
    body_of,
    errors,
    model_of,
    needs_recordings,
    params,
    requests,
    stored,
    streams,
)
from streamfold.coercion import coerce_messages
from streamfold.errors import ProviderError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.testing import Exchange, ReplayServer
from streamfold.wire import gemini
from streamfold.wire.request import ChatRequest

ANSWERS = answers("gemini")
STREAMS = streams("gemini")
WHOLE = [recording for recording in ANSWERS if not recording["stream"]]
ERRORS = errors("gemini")
REQUESTS = requests("gemini")

pytestmark = needs_recordings


# ---- answers -------------------------------------------------------------------------------------


def streamed(body: bytes) -> AIMessage:
    return decode("gemini", body).message


def events(recording: Body) -> list[Body]:
    """The payloads of a recorded stream, in either framing."""
    text = recording["response"]["body_text"]
    if text.startswith("["):
        found: list[Body] = json.loads(text)
        return found
    return [json.loads(block[5:]) for block in re.split(r"\r?\n\r?\n", text) if block]


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
    assert decode_whole("gemini", json.dumps(body).encode()).message == answer(recording)


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


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_array", [False, True])
@pytest.mark.parametrize("recording", params(ERRORS))
def test_error(recording: Body, stream: bool, in_array: bool) -> None:
    """Also as the only item of an array; with the pause and the quota that its details name."""
    exchange = Exchange.from_recording(recording)
    if in_array:
        exchange = msgspec.structs.replace(exchange, body=b"[" + exchange.body + b"]")
    expected = recording["expected"]["error"]
    with (
        ReplayServer([exchange]) as server,
        model_of(APIS["gemini"], server.url) as model,
        pytest.raises(ProviderError) as caught,
    ):
        list(model.stream("hi")) if stream else model.invoke("hi")
    error = caught.value
    assert (error.status, error.type, error.message) == tuple(expected.values())[:3]
    if expected["status"] == 429:
        assert error.retry_after == 34.4
        assert error.code == "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"


# ---- answers as history --------------------------------------------------------------------------


def camel(value: Any) -> Any:
    """The API reads both forms of its own names."""
    if isinstance(value, list):
        return [camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("_([a-z])", lambda m: m[1].upper(), k): camel(v) for k, v in value.items()}


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
    first, second = (request_of(recording, each) for each in (messages, all_stored(messages)))
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
