"""Every recorded exchange in OpenAI Responses, with all vendors that speak it.

Answers, however they are cut, must say what the vendor's SDK makes of them, and go back as they
came; requests written by the encoder must mean what was recorded. The recordings lie outside the
repository; without them these tests are skipped. `STREAMFOLD_SHARED` names their folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from streamfold import ChatOpenAI
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    ProviderError,
)
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
from streamfold.wire import openai_responses
from streamfold.wire.openai_chat import read_usage
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] == "openai_responses"
]

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")

#: One file holds four exchanges: the source joined the streams of four requests. Each is whole by
#: itself, with an id of its own, and what is expected is what the SDK reads from the last.
JOINED = "azure-openai-azure-reasoning-encrypted-content-1-f6b0ecf8"


def apart(recordings: list[Body]) -> Iterator[Body]:
    """The exchanges, those of the joined file each by itself."""
    for recording in recordings:
        if recording["id"] != JOINED:
            yield recording
            continue
        start = "event: response.created\n"
        head, *streams = recording["response"]["body_text"].split(start)
        assert head == ""
        for number, stream in enumerate(streams):
            body = start + stream
            expected = recording["expected"] if number == len(streams) - 1 else None
            yield {
                **recording,
                "id": f"{JOINED}-{number}",
                "response": {**recording["response"], "body_text": body},
                "expected": expected,
            }


ANSWERS = list(apart([r for r in RECORDINGS if r["response"]["status"] == 200]))
STREAMS = [r for r in ANSWERS if r["stream"]]
ERRORS = [r for r in RECORDINGS if r["response"]["status"] != 200]
REQUESTS = [r for r in RECORDINGS if isinstance(r["request"].get("body"), dict)]
#: A request that no conversation of ours can be: a message of the role "tool" that names no call.
#: The API rejected it too.
NOT_A_CONVERSATION = "openai-responses-o1-pro-tool-round-trip-2-eaac5dec"


def params(recordings: Iterable[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


def test_all_exchanges_are_there() -> None:
    assert (len(RECORDINGS), len(ANSWERS), len(STREAMS), len(ERRORS)) == (58, 54, 37, 7)
    assert len(REQUESTS) == 47
    joined = [body_id(r) for r in STREAMS if r["id"].startswith(JOINED)]
    assert len(set(joined)) == len(joined) == 4


def body_id(recording: Body) -> str:
    found: str = final(recording)["id"]
    return found


# ---- answers -------------------------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    text: str = recording["response"]["body_text"]
    return text.encode()


def chunks_of(recording: Body, chunking: Any = "whole") -> list[AIMessageChunk]:
    decoder, body = openai_responses.Decoder(), body_of(recording)
    if recording["stream"]:
        chunks = [chunk for piece in cut(body, chunking) for chunk in decoder.feed(piece)]
        chunks += decoder.close()
    else:
        chunks = decoder.whole(body)
    assert decoder.error is None
    return chunks


def folded(chunks: list[AIMessageChunk]) -> AIMessage:
    return sum(chunks, AIMessageChunk()).to_message()


def answer(recording: Body) -> AIMessage:
    return folded(chunks_of(recording))


def payloads(recording: Body) -> list[Body]:
    lines = body_of(recording).decode().splitlines()
    data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def final(recording: Body) -> Body:
    """The answer as a whole, which is the last event of a stream."""
    if not recording["stream"]:
        body: Body = json.loads(body_of(recording))
        return body
    (response,) = (
        payload["response"]
        for payload in payloads(recording)
        if payload["type"] in ("response.completed", "response.incomplete")
    )
    return dict(response)


def args_of(call: Body) -> Any:
    return json.loads(call["args_raw"]) if call.get("args_raw") else call["args"]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_says_what_the_sdk_reads(recording: Body) -> None:
    message, expected = answer(recording), recording["expected"]
    if expected is None:
        assert message.tool_calls
        return
    blocks = message.content_blocks
    reasoning = "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")
    calls = [(call["id"], call["name"], call["args"]) for call in message.tool_calls]
    assert message.text == expected["text"]
    assert (reasoning or None) == expected["reasoning"]
    assert calls == [(c["id"], c["name"], args_of(c)) for c in expected["tool_calls"]]
    assert not message.invalid_tool_calls
    server = [b["name"] for b in blocks if b["type"] == "server_tool_call"]
    assert server == expected["server_tool_calls"]
    metadata = message.response_metadata
    assert metadata["finish_reason"] == expected["stop_reason"]
    assert metadata["usage"] == expected["usage"]
    assert message.usage_metadata == read_usage(expected["usage"])
    assert metadata["model_name"] == expected["model"]
    assert "unknown_events" not in metadata


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_finish_reasons(recording: Body) -> None:
    message = answer(recording)
    usual = "tool_calls" if message.tool_calls else "stop"
    words = {"completed": usual, "max_output_tokens": "length"}
    assert message.finish_reason == words[message.response_metadata["finish_reason"]]


@pytest.mark.parametrize("chunking", ["bytes", "recorded", 1, 2, 3, 4])
@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_may_be_cut_anywhere(recording: Body, chunking: Any) -> None:
    if chunking == "recorded" and not recording["response"].get("chunk_sizes"):
        pytest.skip("how it arrived is not known")
    whole, pieces = chunks_of(recording), chunks_of(recording, chunking)
    assert [chunk.events for chunk in pieces] == [chunk.events for chunk in whole]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_cut_off_stream_is_an_error(recording: Body) -> None:
    decoder, body = openai_responses.Decoder(), body_of(recording)
    decoder.feed(body[: body.rindex(b'"status":')])
    decoder.close()
    assert type(decoder.error).__name__ == "StreamInterruptedError"


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    """Log probabilities excepted: the vendor rounds those of the whole answer."""
    decoder = openai_responses.Decoder()
    whole = folded(decoder.whole(json.dumps(final(recording)).encode()))
    one, other = answer(recording).to_dict(), whole.to_dict()
    some, others = (m["response_metadata"].pop("logprobs", {}) for m in (one, other))
    assert one == other
    assert some.keys() == others.keys()
    for left, right in zip(some.get("content", ()), others.get("content", ()), strict=True):
        assert left.pop("logprob") == pytest.approx(right.pop("logprob"), abs=1e-6)
        assert left == right


@pytest.mark.parametrize("recording", params(STREAMS))
def test_each_piece_of_text_is_a_chunk(recording: Body) -> None:
    deltas = [p for p in payloads(recording) if p["type"] == "response.output_text.delta"]
    pieces = [chunk.text for chunk in chunks_of(recording) if chunk.text]
    assert pieces == [payload["delta"] for payload in deltas if payload["delta"]]


def test_citations_are_told_as_in_the_guide() -> None:
    found = [
        note
        for recording in ANSWERS
        for block in answer(recording).content_blocks
        for note in block.get("annotations", ())
    ]
    native = [
        note
        for recording in ANSWERS
        for item in final(recording)["output"]
        for part in item.get("content") or ()
        for note in part.get("annotations", ())
    ]
    assert len(found) == len(native) == 14
    assert {note["type"] for note in found} == {"citation"}
    urls = [note for note in found if "extras" not in note]
    assert all(note.keys() <= {"type", "url", "title", "start_index", "end_index"} for note in urls)
    files = [note for note in found if "extras" in note]
    assert {note["extras"]["type"] for note in files} == {
        "file_citation",
        "container_file_citation",
    }


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("recording", params(ERRORS))
def test_error(recording: Body, stream: bool) -> None:
    expected = recording["expected"]["error"]
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        model = ChatOpenAI(
            "gpt-x", base_url=server.url, api_key="k", max_retries=0, use_responses_api=True
        )
        with pytest.raises(ProviderError) as caught:
            list(model.stream("hi")) if stream else model.invoke("hi")
    error = caught.value
    assert (error.status, error.type, error.message) == (
        expected["status"],
        expected["type"],
        expected["message"],
    )
    usual = AuthenticationError if expected["status"] == 401 else InvalidRequestError
    assert type(error) is usual


# ---- answers as history --------------------------------------------------------------------------


def without_nulls(value: Any) -> Any:
    """Null says what a missing field says, and so does the empty content of reasoning."""
    if isinstance(value, dict):
        return {
            k: without_nulls(v)
            for k, v in value.items()
            if v is not None and (k, v) != ("content", []) and k != "logprobs"
        }
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def items_meant(items: list[Body]) -> list[Body]:
    """Items without the white space of JSON in arguments."""
    meant = []
    for item in without_nulls(items):
        if isinstance(item.get("arguments"), str) and item["type"] == "function_call":
            item = {**item, "arguments": json.loads(item["arguments"] or "{}")}
        meant.append(item)
    return meant


def sent_back(recording: Body) -> list[Body]:
    """The items of an answer that the next request holds."""
    message = message_from_dict(json.loads(json.dumps(answer(recording).to_dict())))
    assert isinstance(message, AIMessage)
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    request = ChatRequest(
        model="m", messages=[HumanMessage("hi"), message, *results], provider="openai"
    )
    items: list[Body] = json.loads(openai_responses.encode(request).body)["input"]
    end = len(items) - len(results)
    assert [item["call_id"] for item in items[end:]] == [call["id"] for call in message.tool_calls]
    return items[1:end]


def is_lost(item: Body, response: Body) -> bool:
    """Reasoning that the server did not keep and that was not sent encrypted."""
    told = item.get("encrypted_content") or item.get("content")
    return item["type"] == "reasoning" and response.get("store") is False and not told


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    response = final(recording)
    came = response["output"]
    if came[-1]["type"] == "reasoning":
        came = []  # nothing follows it: the API rejects it
    if any(is_lost(item, response) for item in came):
        kept = [item for item in came if not is_lost(item, response)]
        assert [plainest(item) for item in kept] == [plainest(i) for i in sent_back(recording)]
        return
    assert items_meant(sent_back(recording)) == items_meant(came)


def plainest(item: Body) -> Any:
    """What an item says, without its id."""
    if item.get("role") == "assistant":
        content = item["content"]
        return content if isinstance(content, str) else "".join(part["text"] for part in content)
    return [item["name"], item["call_id"], json.loads(item["arguments"])]


# ---- requests ------------------------------------------------------------------------------------


def input_of(body: Body) -> list[Body]:
    said = body["input"]
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


def is_answer(item: Body) -> bool:
    return item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")


def native(body: Body) -> list[BaseMessage]:
    """The input as a user writes it who has the vendor's own items."""
    messages: list[Any] = []
    for of_model, run in groupby(input_of(body), key=is_answer):
        if of_model:
            messages.append(AIMessage([block for item in run for block in own_blocks(item)]))
        for item in [] if of_model else run:
            is_result = item.get("type") == "function_call_output"
            messages.append(
                ToolMessage(item["output"], tool_call_id=item["call_id"]) if is_result else item
            )
    return coerce_messages(messages)


def own_blocks(item: Body) -> list[Body]:
    if "role" not in item:
        return [item]
    content = item["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def standard(body: Body) -> list[BaseMessage]:
    """The same in standard blocks."""
    messages: list[BaseMessage] = []
    for message in native(body):
        if isinstance(message, AIMessage):
            content = (
                message.content if isinstance(message.content, list) else message.content_blocks
            )
            message = AIMessage([block for item in content for block in standard_blocks(item)])
        elif isinstance(message.content, list):
            blocks = [block for part in message.content for block in standard_blocks(part)]
            data = {**message.to_dict(), "content": blocks}
            message = message_from_dict(data)
        messages.append(message)
    return messages


def standard_blocks(item: Body) -> list[Body]:
    kind = item["type"]
    extras = {k: v for k, v in item.items() if k in ("id", "encrypted_content", "phase")}
    if kind == "reasoning":
        texts = [part["text"] for part in item["summary"]] or [""]
        return [{"type": kind, "reasoning": text, "extras": extras} for text in texts]
    if kind == "function_call":
        args = json.loads(item["arguments"])
        call = {"type": "tool_call", "id": item["call_id"], "name": item["name"], "args": args}
        return [{**call, "extras": extras}]
    if kind in ("input_text", "output_text"):
        rest = {k: v for k, v in item.items() if k not in ("type", "text")}
        return [{"type": "text", "text": item["text"], "extras": rest}]
    if kind == "input_image":
        return [{"type": "image_url", "image_url": {"url": item["image_url"]}}]
    if kind == "input_file":
        if "file_url" in item:
            return [{"type": "file", "url": item["file_url"]}]
        file = {key: item[key] for key in ("file_data", "filename")}
        return [{"type": "file", "file": file}]
    return [item]


NAMES = {
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "tools": "tools",
    "tool_choice": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
}


def request_of(body: Body, messages: list[BaseMessage]) -> ChatRequest:
    rest = {k: v for k, v in body.items() if k not in ("input", "model", "stream")}
    fields = {ours: rest.pop(name) for name, ours in NAMES.items() if name in rest}
    reasoning, text = dict(rest.pop("reasoning", {})), dict(rest.pop("text", {}))
    extra = {"reasoning": {k: v for k, v in reasoning.items() if k != "effort"}, "text": text}
    return ChatRequest(
        model=body["model"],
        messages=messages,
        stream=bool(body.get("stream")),
        reasoning_effort=reasoning.get("effort"),
        response_format=text.pop("format", None),
        extra={**rest, **{k: v for k, v in extra.items() if v}},
        **fields,
    )


def meaning(body: Body) -> Body:
    meant = {k: v for k, v in body.items() if v is not None and (k, v) != ("stream", False)}
    meant["input"] = [item_meaning(item) for item in items_meant(input_of(body))]
    return meant


def item_meaning(item: Body) -> Body:
    item = {k: v for k, v in item.items() if (k, v) != ("status", "completed")}
    content = item.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        item["content"] = content[0]["text"]
    return item


def without_warnings(recording: Body) -> Body:
    if recording["id"] == NOT_A_CONVERSATION:
        with pytest.raises(ConfigurationError, match="tool_call_id"):
            native(recording["request"]["body"])
        pytest.skip("the request is none, as the API said")
    body: Body = recording["request"]["body"]
    return body


@pytest.mark.parametrize("spoken", [native, standard])
@pytest.mark.parametrize("recording", params(REQUESTS))
def test_a_request_means_what_was_recorded(recording: Body, spoken: Any) -> None:
    body = without_warnings(recording)
    sent = openai_responses.encode(request_of(body, spoken(body)))
    assert sent.path == "/responses"
    assert meaning(json.loads(sent.body)) == meaning(body)


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    body = without_warnings(recording)
    messages = standard(body)
    stored = messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    first, second = (request_of(body, each) for each in (messages, stored))
    assert openai_responses.encode(first) == openai_responses.encode(second)
