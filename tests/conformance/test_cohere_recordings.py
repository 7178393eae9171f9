"""Every recorded exchange with Cohere's chat API.

Answers, however they are cut, must say what the vendor's SDK makes of them, and go back as they
came; requests written by the encoder must mean what was recorded. The recordings lie outside the
repository; without them these tests are skipped. `STREAMFOLD_SHARED` names their folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import AuthenticationError, StreamInterruptedError
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
from streamfold.wire import cohere
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] == "cohere_chat"
]

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


ANSWERS = [r for r in RECORDINGS if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if r["stream"]]
WHOLE = [r for r in ANSWERS if not r["stream"]]
ERRORS = [r for r in RECORDINGS if r["response"]["status"] != 200]
REQUESTS = [r for r in RECORDINGS if isinstance(r["request"]["body"], dict)]


def test_all_exchanges_are_there() -> None:
    assert (len(STREAMS), len(WHOLE), len(ERRORS), len(REQUESTS)) == (4, 2, 1, 6)


# ---- answers -------------------------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    text: str = recording["response"]["body_text"]
    return text.encode()


def streamed(body: bytes, chunking: Any = "whole") -> list[AIMessageChunk]:
    decoder = cohere.Decoder()
    chunks = [chunk for piece in cut(body, chunking) for chunk in decoder.feed(piece)]
    chunks += decoder.close()
    assert decoder.error is None
    return chunks


def whole(body: bytes) -> list[AIMessageChunk]:
    decoder = cohere.Decoder()
    chunks = decoder.whole(body)
    assert decoder.error is None
    return chunks


def answer(recording: Body) -> AIMessage:
    read = streamed if recording["stream"] else whole
    return sum(read(body_of(recording)), AIMessageChunk()).to_message()


def events(recording: Body) -> list[Body]:
    blocks = recording["response"]["body_text"].split("\n\n")
    data = (block.partition("data: ")[2] for block in blocks)
    return [json.loads(each) for each in data if each.startswith("{")]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_says_what_the_sdk_reads(recording: Body) -> None:
    message, expected = answer(recording), recording["expected"]
    reasoning = [b["reasoning"] for b in message.content_blocks if b["type"] == "reasoning"]
    assert message.text == expected["text"]
    assert ("".join(reasoning) or None) == expected["reasoning"]
    assert [{k: c[k] for k in ("id", "name", "args")} for c in message.tool_calls] == (
        expected["tool_calls"]
    )
    assert not message.invalid_tool_calls
    metadata = message.response_metadata
    assert metadata["finish_reason"] == expected["stop_reason"]
    assert metadata["usage"] == expected["usage"]
    assert metadata.get("model_name") == expected["model"]
    assert expected["server_tool_calls"] == []
    assert message.finish_reason == cohere.FINISH_REASONS[expected["stop_reason"]]
    assert message.id == metadata["id"]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_usage(recording: Body) -> None:
    raw, usage = recording["expected"]["usage"], answer(recording).usage_metadata
    assert usage is not None
    tokens = raw["tokens"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (
        tokens["input_tokens"],
        tokens["output_tokens"],
    )
    assert usage.get("input_token_details", {}).get("cache_read") == raw.get("cached_tokens")
    assert usage.get("output_token_details", {}).get("reasoning") == tokens.get("reasoning_tokens")


@pytest.mark.parametrize("chunking", ["bytes", 1, 2, 3, 4, 5])
@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_may_be_cut_anywhere(recording: Body, chunking: Any) -> None:
    body = body_of(recording)
    expected = [chunk.events for chunk in streamed(body)]
    assert [chunk.events for chunk in streamed(body, chunking)] == expected
    sizes = recording["response"].get("chunk_sizes")
    if sizes:
        assert [chunk.events for chunk in streamed(body, sizes)] == expected
    assert len(events(recording)) + 1 == recording["expected"]["n_events"]  # and the end marker


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_cut_off_stream_is_an_error(recording: Body) -> None:
    body = body_of(recording)
    decoder = cohere.Decoder()
    decoder.feed(body[: body.rindex(b"finish_reason")])
    decoder.close()
    assert isinstance(decoder.error, StreamInterruptedError)


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    end = events(recording)[-1]["delta"]
    body = {"id": events(recording)[0]["id"], "message": joined(recording), **end}
    message = sum(whole(json.dumps(body).encode()), AIMessageChunk()).to_message()
    assert message == answer(recording)


def joined(recording: Body) -> Body:
    """The message of a stream as it is in an answer that comes whole, as the vendor describes."""
    message: Body = {"role": "assistant", "content": [], "tool_calls": [], "citations": []}
    for event in events(recording):
        said = (event.get("delta") or {}).get("message", {})
        if event["type"] == "content-start":
            message["content"].append(said["content"])
        elif event["type"] == "content-delta":
            block = message["content"][event["index"]]
            block[block["type"]] += said["content"][block["type"]]
        elif event["type"] == "tool-plan-delta":
            message["tool_plan"] = message.get("tool_plan", "") + said["tool_plan"]
        elif event["type"] == "tool-call-start":
            message["tool_calls"].append(said["tool_calls"])
        elif event["type"] == "tool-call-delta":
            function = message["tool_calls"][event["index"]]["function"]
            function["arguments"] += said["tool_calls"]["function"]["arguments"]
        elif event["type"] == "citation-start":
            message["citations"].append(said["citations"])
    return {key: value for key, value in message.items() if value}


def test_citations_point_at_the_text_they_are_on() -> None:
    found = 0
    for recording in ANSWERS:
        for block in answer(recording).content_blocks:
            for note in block.get("annotations", ()):
                start, end = note["start_index"], note["end_index"]
                assert block["text"][start:end] == note["cited_text"]
                assert note["title"]
                assert note["extras"]["sources"]
                found += 1
    assert found == 7


def test_the_tool_plan_is_kept() -> None:
    plans = [answer(recording).response_metadata.get("tool_plan") for recording in ANSWERS]
    (plan,) = filter(None, plans)
    assert plan.startswith("I will search for the")
    assert plan.endswith("weather in Tokyo.")


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_model_reads_the_same_from_the_network(recording: Body) -> None:
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        model = init_chat_model("cohere:command-r", base_url=server.url, api_key="k")
        message = sum(model.stream("hi"), AIMessageChunk()).to_message()
    assert message.content_blocks == answer(recording).content_blocks
    assert message.usage_metadata == answer(recording).usage_metadata


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("recording", params(ERRORS))
def test_error(recording: Body, stream: bool) -> None:
    expected = recording["expected"]["error"]
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        model = init_chat_model("cohere:command-r", base_url=server.url, api_key="k", max_retries=0)
        with pytest.raises(AuthenticationError) as caught:
            list(model.stream("hi")) if stream else model.invoke("hi")
    error = caught.value
    assert (error.status, error.type, error.message) == tuple(expected.values())[:3]
    assert not error.retryable


# ---- answers as history --------------------------------------------------------------------------


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    message = message_from_dict(json.loads(json.dumps(answer(recording).to_dict())))
    assert isinstance(message, AIMessage)
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    request = ChatRequest(
        model="m", messages=[HumanMessage("hi"), message, *results], provider="cohere"
    )
    _, sent, *_ = json.loads(cohere.encode(request).body)["messages"]
    came = joined(recording) if recording["stream"] else json.loads(body_of(recording))["message"]
    assert message_meaning(sent) == message_meaning(came)


# ---- requests ------------------------------------------------------------------------------------


def request_of(body: Body, messages: list[BaseMessage]) -> ChatRequest:
    """The recorded body with its parameters under the neutral names."""
    rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
    return ChatRequest(
        model=body["model"],
        messages=messages,
        stream=bool(rest.pop("stream", False)),
        temperature=rest.pop("temperature", None),
        tools=rest.pop("tools", None),
        extra=rest,
    )


def meaning(body: Body) -> Body:
    """No stream is the default."""
    meant = {k: v for k, v in body.items() if (k, v) != ("stream", False)}
    meant["messages"] = [message_meaning(message) for message in body["messages"]]
    return meant


def message_meaning(message: Body) -> Body:
    """A str is a text part, an empty text next to calls nothing, and arguments are JSON."""
    content = message.get("content") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    meant = {**message, "content": [part for part in parts if part.get("text") != ""]}
    if "tool_calls" in message:
        meant["tool_calls"] = [call_meaning(call) for call in message["tool_calls"]]
    return meant


def call_meaning(call: Body) -> Body:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_request_means_what_was_recorded(recording: Body) -> None:
    body = recording["request"]["body"]
    request = cohere.encode(request_of(body, coerce_messages(body["messages"])))
    assert meaning(json.loads(request.body)) == meaning(body)
    assert recording["request"]["url"] == "https://api.cohere.com" + request.path


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    body = recording["request"]["body"]
    messages = coerce_messages(body["messages"])
    back = messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    first, second = (request_of(body, each) for each in (messages, back))
    assert cohere.encode(first) == cohere.encode(second)


def in_standard_blocks(body: Body) -> Iterator[BaseMessage]:
    """The recorded messages as a user of standard messages would write them."""
    for message in body["messages"]:
        content = message["content"]
        if message["role"] == "assistant":
            calls = [
                {
                    "id": call["id"],
                    "name": call["function"]["name"],
                    "args": json.loads(call["function"]["arguments"]),
                }
                for call in message.get("tool_calls", ())
            ]
            yield AIMessage(content, tool_calls=calls)
        elif message["role"] == "tool":
            parts = content if isinstance(content, str) else [standard(part) for part in content]
            yield ToolMessage(parts, tool_call_id=message["tool_call_id"])
        else:
            yield {"user": HumanMessage, "system": SystemMessage}[message["role"]](content)


def standard(part: Body) -> Body:
    held = part["document"]
    fields = {key: value for key, value in held["data"].items() if key in ("title", "text")}
    if fields != held["data"]:
        return part  # with fields that a text document has not
    return {"type": "text-plain", "id": held["id"], **fields}


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_standard_messages_mean_the_same(recording: Body) -> None:
    body = recording["request"]["body"]
    sent = cohere.encode(request_of(body, coerce_messages(list(in_standard_blocks(body)))))
    assert meaning(json.loads(sent.body)) == meaning(body)
