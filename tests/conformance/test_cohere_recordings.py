"""Every recorded exchange with Cohere's chat API.

Streams say what whole answers say, answers go back as they came, and requests written by the
encoder mean what was recorded. That answers say what the vendor's SDK reads, however they are cut,
is in `test_recordings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from decoding import decode_whole
from recordings import (
    Body,
    all_stored,
    answer,
    answers,
    body_of,
    needs_recordings,
    params,
    requests,
    stored,
    streams,
)
from streamfold.coercion import coerce_messages
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire import cohere
from streamfold.wire.request import ChatRequest

ANSWERS = answers("cohere_chat")
STREAMS = streams("cohere_chat")
REQUESTS = requests("cohere_chat")

pytestmark = needs_recordings


# ---- answers -------------------------------------------------------------------------------------


def events(recording: Body) -> list[Body]:
    blocks = recording["response"]["body_text"].split("\n\n")
    data = (block.partition("data: ")[2] for block in blocks)
    return [json.loads(each) for each in data if each.startswith("{")]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    end = events(recording)[-1]["delta"]
    body = {"id": events(recording)[0]["id"], "message": joined(recording), **end}
    assert decode_whole("cohere", json.dumps(body).encode()).message == answer(recording)
    assert answer(recording).id == body["id"]
    assert len(events(recording)) + 1 == recording["expected"]["n_events"]  # and the end marker


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


# ---- answers as history --------------------------------------------------------------------------


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    message = stored(answer(recording))
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
    first, second = (request_of(body, each) for each in (messages, all_stored(messages)))
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
