"""Every recorded answer, read by the decoder and sent back as history by the encoder.

The next turn must hold what the provider sent: text, citations, signatures, redacted thinking,
server tools and their results, tool calls, and the reasoning fields of those who want them back.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from recordings import Body, answer, answers, body_of, needs_recordings, params, stored, whole_of
from streamfold.messages import HumanMessage, ToolMessage
from streamfold.wire import anthropic, openai_chat
from streamfold.wire.request import ChatRequest

pytestmark = needs_recordings


def complete(api: str, *, stream: bool) -> list[Any]:
    """The recordings of answers that did not break."""
    return params(r for r in answers(api) if r["stream"] is stream and whole_of(r).error is None)


ANTHROPIC = complete("anthropic_messages", stream=False)
ANTHROPIC_STREAMS = complete("anthropic_messages", stream=True)
OPENAI = complete("openai_chat", stream=False)
OPENAI_STREAMS = complete("openai_chat", stream=True)


def sent_back(dialect: Any, recording: Body) -> Body:
    """The assistant message that the next request holds."""
    message = stored(answer(recording))
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in calls]
    request = ChatRequest(model="m", messages=[HumanMessage("hi"), message, *results])
    messages = json.loads(dialect.encode(request).body)["messages"]
    return messages[1] if len(messages) > 1 else {"role": "assistant", "content": []}


def payloads(recording: Body) -> list[Body]:
    """The events of a recorded stream."""
    lines = body_of(recording).decode().splitlines()
    data = [line[5:].strip() for line in lines if line.startswith("data:")]
    return [json.loads(each) for each in data if each.startswith("{")]


def without_nulls(value: Any) -> Any:
    """Null says what a missing field says."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


# ---- Anthropic -----------------------------------------------------------------------------------


def native_blocks(sent: Body) -> list[Body]:
    content = sent["content"]
    return without_nulls(
        [{"type": "text", "text": content}] if isinstance(content, str) else content
    )


def said(content: list[Body]) -> list[Body]:
    """Content without what the API rejects when it is sent: empty texts, reasoning unsigned."""
    return without_nulls(
        [
            block
            for block in content
            if (block["type"] != "text" or block["text"])
            and (block["type"] != "thinking" or block.get("signature"))
        ]
    )


@pytest.mark.parametrize("recording", ANTHROPIC)
def test_anthropic_answer_goes_back_as_it_came(recording: Body) -> None:
    came = json.loads(body_of(recording))["content"]
    assert native_blocks(sent_back(anthropic, recording)) == said(came)


@pytest.mark.parametrize("recording", ANTHROPIC_STREAMS)
def test_anthropic_stream_goes_back_as_its_blocks(recording: Body) -> None:
    came = blocks_of_stream(recording)
    assert native_blocks(sent_back(anthropic, recording)) == said(came)


def blocks_of_stream(recording: Body) -> list[Body]:
    """The content blocks of a stream, put together as Anthropic's documentation says."""
    blocks: dict[int, Body] = {}
    inputs: dict[int, str] = {}
    for event in payloads(recording):
        if event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"]
        elif event["type"] == "content_block_delta":
            add_delta(event["delta"], event["index"], blocks[event["index"]], inputs)
    for index, text in inputs.items():
        blocks[index]["input"] = json.loads(text) if text else blocks[index].get("input", {})
    return list(blocks.values())


def add_delta(delta: Body, index: int, block: Body, inputs: dict[int, str]) -> None:
    kind = delta["type"]
    if kind == "input_json_delta":
        inputs[index] = inputs.get(index, "") + delta["partial_json"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
    else:
        field = kind.removesuffix("_delta")
        block[field] = (block.get(field) or "") + delta[field]


# ---- OpenAI --------------------------------------------------------------------------------------

#: Fields of a message that are sent back. Not: citations, and a vendor's notes about the answer.
SENT_BACK = ("content", "tool_calls", "reasoning", "reasoning_content", "reasoning_details")


@pytest.mark.parametrize("recording", OPENAI)
def test_openai_answer_goes_back_as_it_came(recording: Body) -> None:
    check_openai(recording, json.loads(body_of(recording))["choices"][0].get("message") or {})


@pytest.mark.parametrize("recording", OPENAI_STREAMS)
def test_openai_stream_goes_back_as_its_pieces(recording: Body) -> None:
    check_openai(recording, message_of_stream(recording))


def check_openai(recording: Body, message: Body) -> None:
    came, sent = openai_fields(message), openai_fields(sent_back(openai_chat, recording))
    if came.get("reasoning") == came.get("reasoning_content"):
        came.pop("reasoning", None)  # sent twice under two names: once is enough
        sent.pop("reasoning", None)
    assert sent == came


def message_of_stream(recording: Body) -> Body:
    """The first choice of a stream, put together as OpenAI's documentation says: strings and lists
    are appended; calls are one where the index is and no other id comes."""
    message: Body = {"tool_calls": []}
    for event in payloads(recording):
        for choice in event.get("choices") or ():
            delta = (choice.get("delta") or {}) if not choice.get("index") else {}
            for key, value in delta.items():
                if key == "tool_calls":
                    for piece in value or ():
                        add_call(message["tool_calls"], piece)
                elif value and key in SENT_BACK:
                    # One vendor says a thing of two types in turn: parts, and then text.
                    old = message.get(key, type(value)())
                    message[key] = joined_parts(old, value)
    return message


def joined_parts(old: Any, new: Any) -> Any:
    if type(old) is type(new):
        return old + new
    return [*as_parts(old), *as_parts(new)]


def as_parts(said: Any) -> list[Body]:
    return [{"type": "text", "text": said}] if isinstance(said, str) else said


def merged(parts: list[Body]) -> list[Body]:
    """Parts in a row that continue each other, as one; `closed` is for answers only."""
    found: list[Body] = []
    for part in parts:
        part = {k: v for k, v in part.items() if k != "closed"}
        last = found[-1] if found else {}
        if (part["type"], part.get("index")) != (last.get("type"), last.get("index")):
            found.append(part)
            continue
        for key, value in part.items():
            grows = key in ("text", "summary", "data", "thinking", "signature")
            last[key] = last[key] + value if grows and last.get(key) else value
    for part in found:
        if isinstance(part.get("thinking"), list):
            part["thinking"] = merged(part["thinking"])
    return found


def add_call(calls: list[Body], piece: Body) -> None:
    index, id = piece.get("index"), piece.get("id")
    old = next((c for c in reversed(calls) if c.get("index") == index), None)
    if old is None or (id and old["id"] and id != old["id"]):
        calls.append({**piece, "function": {"arguments": "", **piece["function"]}})
        return
    arguments = old["function"]["arguments"] + (piece["function"].get("arguments") or "")
    old["function"] = {**old["function"], "arguments": arguments}


def openai_fields(message: Body) -> Body:
    fields = {key: message[key] for key in SENT_BACK if message.get(key)}
    if message.get("refusal"):
        fields["content"] = [{"type": "refusal", "refusal": message["refusal"]}]
    if isinstance(fields.get("content"), str):
        fields["content"] = fields["content"].strip() and fields["content"]
    for key in ("content", "reasoning_details"):
        if isinstance(fields.get(key), list):
            fields[key] = merged(fields[key])
    if "tool_calls" in fields:
        fields["tool_calls"] = [openai_call(call) for call in fields["tool_calls"]]
    return without_nulls(fields)


def openai_call(call: Body) -> Body:
    """A call without its place in the list, and without vendors' empty alternatives."""
    function = {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}
    rest = {k: v for k, v in call.items() if k not in ("index", "custom")}
    return {"type": "function", **rest, "function": function}
