"""Every recorded exchange with Ollama's chat API.

Streams say what whole answers say, answers go back as they came, and requests written by the
encoder mean what was recorded. That answers say what the vendor's SDK reads, however they are cut,
is in `test_recordings.py`.
"""

from __future__ import annotations

import json

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
    whole_of,
)
from streamfold.coercion import coerce_messages
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from streamfold.wire import ollama
from streamfold.wire.request import ChatRequest

ANSWERS = answers("ollama_chat")
STREAMS = streams("ollama_chat")
REQUESTS = requests("ollama_chat")

pytestmark = needs_recordings


# ---- answers -------------------------------------------------------------------------------------


def lines(recording: Body) -> list[Body]:
    return [json.loads(line) for line in body_of(recording).splitlines() if line]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_chunk_a_line(recording: Body) -> None:
    assert len(whole_of(recording).chunks) == recording["expected"]["n_events"]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    body = {**lines(recording)[-1], "message": joined(recording)}
    message = decode_whole("ollama", json.dumps(body).encode()).message
    expected = answer(recording)
    assert without_ids(message) == without_ids(expected)
    assert message.response_metadata == expected.response_metadata
    assert message.usage_metadata == expected.usage_metadata
    assert message.finish_reason == expected.finish_reason


def joined(recording: Body) -> Body:
    """The message of a stream as it is in an answer that comes whole."""
    message: Body = {"role": "assistant", "content": ""}
    for line in lines(recording):
        for key, value in line["message"].items():
            if key != "role" and value:
                message[key] = message.get(key, type(value)()) + value
    return message


def without_ids(message: AIMessage) -> list[Body]:
    return [{k: v for k, v in b.items() if k != "id"} for b in message.content_blocks]


# ---- answers as history --------------------------------------------------------------------------


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    message = stored(answer(recording))
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    request = ChatRequest(
        model="m", messages=[HumanMessage("hi"), message, *results], provider="ollama"
    )
    _, sent, *sent_results = json.loads(ollama.encode(request).body)["messages"]
    ids = [call.pop("id") for call in sent.get("tool_calls", ())]  # those were made up
    assert sent == joined(recording)
    assert [result["tool_call_id"] for result in sent_results] == ids
    assert [result["tool_name"] for result in sent_results] == [
        call["function"]["name"] for call in sent.get("tool_calls", ())
    ]


# ---- requests ------------------------------------------------------------------------------------


def request_of(body: Body, messages: list[BaseMessage]) -> ChatRequest:
    """The recorded body with its parameters under the neutral names."""
    rest = {key: value for key, value in body.items() if key not in ("model", "messages")}
    options = dict(rest.pop("options", {}))
    return ChatRequest(
        model=body["model"],
        messages=messages,
        stream=bool(rest.pop("stream", True)),
        temperature=options.pop("temperature", None),
        max_tokens=options.pop("num_predict", None),
        seed=options.pop("seed", None),
        tools=rest.pop("tools", None),
        extra={**rest, "options": options},
    )


def meaning(body: Body) -> Body:
    """Null, no tools, no options and the empty format say what is so anyway; a stream is the
    default; ids and names of calls were added by us."""
    meant = {k: v for k, v in body.items() if v not in (None, "", [], {})}
    meant["stream"] = body.get("stream", True)
    meant["messages"] = [message_meaning(message) for message in body["messages"]]
    return meant


def message_meaning(message: Body) -> Body:
    meant = {k: v for k, v in message.items() if k not in ("tool_call_id", "tool_name")}
    if "tool_calls" in meant:
        meant["tool_calls"] = [{"function": call["function"]} for call in meant["tool_calls"]]
    return meant


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_request_means_what_was_recorded(recording: Body) -> None:
    body = recording["request"]["body"]
    request = ollama.encode(request_of(body, coerce_messages(body["messages"])))
    assert meaning(json.loads(request.body)) == meaning(body)
    assert recording["request"]["url"].endswith(":11434" + request.path)


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    body = recording["request"]["body"]
    messages = coerce_messages(body["messages"])
    first, second = (request_of(body, each) for each in (messages, all_stored(messages)))
    assert ollama.encode(first) == ollama.encode(second)
