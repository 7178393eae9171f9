"""Every recorded exchange with Ollama's chat API.

Answers, however they are cut, must say what the vendor's SDK makes of them, and go back as they
came; requests written by the encoder must mean what was recorded. The recordings lie outside the
repository; without them these tests are skipped. `STREAMFOLD_SHARED` names their folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import NotFoundError, StreamInterruptedError
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
    message_from_dict,
    messages_from_dict,
    messages_to_dict,
)
from streamfold.testing import Exchange, ReplayServer, cut
from streamfold.wire import ollama
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] == "ollama_chat"
]

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


ANSWERS = [r for r in RECORDINGS if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if r["stream"]]
ERRORS = [r for r in RECORDINGS if r["response"]["status"] != 200]
REQUESTS = [r for r in RECORDINGS if isinstance(r["request"]["body"], dict)]


def test_all_exchanges_are_there() -> None:
    assert (len(STREAMS), len(ANSWERS) - len(STREAMS), len(ERRORS)) == (8, 4, 1)
    assert len(REQUESTS) == 10


# ---- answers -------------------------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    text: str = recording["response"]["body_text"]
    return text.encode()


def streamed(body: bytes, chunking: Any = "whole") -> list[AIMessageChunk]:
    decoder = ollama.Decoder()
    chunks = [chunk for piece in cut(body, chunking) for chunk in decoder.feed(piece)]
    chunks += decoder.close()
    assert decoder.error is None
    return chunks


def whole(body: bytes) -> list[AIMessageChunk]:
    decoder = ollama.Decoder()
    chunks = decoder.whole(body)
    assert decoder.error is None
    return chunks


def answer(recording: Body) -> AIMessage:
    read = streamed if recording["stream"] else whole
    return sum(read(body_of(recording)), AIMessageChunk()).to_message()


def lines(recording: Body) -> list[Body]:
    return [json.loads(line) for line in body_of(recording).splitlines() if line]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_says_what_the_sdk_reads(recording: Body) -> None:
    message, expected = answer(recording), recording["expected"]
    reasoning = [b["reasoning"] for b in message.content_blocks if b["type"] == "reasoning"]
    assert message.text == expected["text"]
    assert ("".join(reasoning) or None) == expected["reasoning"]
    assert [{"name": c["name"], "args": c["args"]} for c in message.tool_calls] == [
        {"name": c["name"], "args": c["args"]} for c in expected["tool_calls"]
    ]
    made = [call["id"] for call in message.tool_calls]
    assert len(set(made)) == len(made)
    assert all(made)
    assert not message.invalid_tool_calls
    metadata = message.response_metadata
    assert metadata.get("finish_reason") == expected["stop_reason"]
    assert metadata["usage"] == expected["usage"]
    assert metadata["model_name"] == expected["model"]
    assert expected["server_tool_calls"] == []
    stopped = {"stop": "tool_calls"} if expected["tool_calls"] else {}
    assert message.finish_reason == stopped.get(expected["stop_reason"], expected["stop_reason"])


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_usage(recording: Body) -> None:
    raw = recording["expected"]["usage"]
    into, out = raw["prompt_eval_count"], raw["eval_count"]
    assert answer(recording).usage_metadata == {
        "input_tokens": into,
        "output_tokens": out,
        "total_tokens": into + out,
    }


@pytest.mark.parametrize("chunking", ["bytes", 1, 2, 3, 4, 5])
@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_may_be_cut_anywhere(recording: Body, chunking: Any) -> None:
    """Also where it was cut on its way; a chunk a line."""
    body = body_of(recording)
    events = [chunk.events for chunk in streamed(body)]
    assert len(events) == recording["expected"]["n_events"]
    assert [chunk.events for chunk in streamed(body, chunking)] == events
    sizes = recording["response"].get("chunk_sizes")
    if sizes:
        assert [chunk.events for chunk in streamed(body, sizes)] == events


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_cut_off_stream_is_an_error(recording: Body) -> None:
    body = body_of(recording)
    decoder = ollama.Decoder()
    decoder.feed(body[: body.rindex(b'"done":true')])
    decoder.close()
    assert isinstance(decoder.error, StreamInterruptedError)


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    body = {**lines(recording)[-1], "message": joined(recording)}
    message = sum(whole(json.dumps(body).encode()), AIMessageChunk()).to_message()
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


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_model_reads_the_same_from_the_network(recording: Body) -> None:
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        model = init_chat_model("ollama:llama3", base_url=server.url)
        message = sum(model.stream("hi"), AIMessageChunk()).to_message()
    assert message == answer(recording)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("recording", params(ERRORS))
def test_error(recording: Body, stream: bool) -> None:
    expected = recording["expected"]["error"]
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        model = init_chat_model("ollama:llama3", base_url=server.url, max_retries=0)
        with pytest.raises(NotFoundError) as caught:
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


def with_ids(messages: list[Body]) -> list[Body]:
    """The recorded messages with ids for their calls, as ours must have them: results name them."""
    found: list[Body] = []
    ids: list[str] = []
    for message in messages:
        message = dict(message)
        if "tool_calls" in message:
            calls = [{"id": f"call_{n}", **c} for n, c in enumerate(message["tool_calls"])]
            ids += [call["id"] for call in calls]
            message["tool_calls"] = calls
        if message["role"] == "tool":
            message["tool_call_id"] = ids.pop(0)
        found.append(message)
    return found


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
    request = ollama.encode(request_of(body, coerce_messages(with_ids(body["messages"]))))
    assert meaning(json.loads(request.body)) == meaning(body)
    assert recording["request"]["url"].endswith(":11434" + request.path)


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    body = recording["request"]["body"]
    messages = coerce_messages(with_ids(body["messages"]))
    back = messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    first, second = (request_of(body, each) for each in (messages, back))
    assert ollama.encode(first) == ollama.encode(second)
