"""Every recorded exchange in OpenAI Responses, with all vendors that speak it.

Streams say what whole answers say, answers go back as they came, and requests written by the
encoder mean what was recorded. That answers say what the vendor's SDK reads, however they are cut,
is in `test_recordings.py`.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

import pytest

from decoding import decode_whole
from recordings import (
    JOINED,
    Body,
    all_stored,
    answer,
    answers,
    body_of,
    needs_recordings,
    params,
    requests,
    stored,
    whole_of,
)
from streamfold.coercion import coerce_messages
from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, message_from_dict
from streamfold.wire import openai_responses
from streamfold.wire.request import ChatRequest

pytestmark = needs_recordings


#: Without the file of four exchanges: its parts are here, too.
ANSWERS = [recording for recording in answers("openai_responses") if recording["id"] != JOINED]
STREAMS = [recording for recording in ANSWERS if recording["stream"]]
REQUESTS = requests("openai_responses")
#: A request that no conversation of ours can be: a message of the role "tool" that names no call.
#: The API rejected it too.
NOT_A_CONVERSATION = "openai-responses-o1-pro-tool-round-trip-2-eaac5dec"


# ---- answers -------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("recording", params(STREAMS))
def test_a_stream_says_what_a_whole_answer_would(recording: Body) -> None:
    """Log probabilities excepted: the vendor rounds those of the whole answer."""
    whole = decode_whole("openai_responses", json.dumps(final(recording)).encode()).message
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
    pieces = [chunk.text for chunk in whole_of(recording).chunks if chunk.text]
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
    message = stored(answer(recording))
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
    first, second = (request_of(body, each) for each in (messages, all_stored(messages)))
    assert openai_responses.encode(first) == openai_responses.encode(second)
