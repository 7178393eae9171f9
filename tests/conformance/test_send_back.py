"""Every recorded answer, read by the decoder and sent back as history by the encoder.

The next turn must hold what the provider sent: text, citations, signatures, redacted thinking,
server tools and their results, tool calls, and the reasoning fields of those who want them back.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from streamfold.chunks import AIMessageChunk
from streamfold.messages import AIMessage, HumanMessage, ToolMessage, message_from_dict
from streamfold.wire import anthropic, openai_chat
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]


def answers(api: str, *, stream: bool) -> list[Any]:
    found = []
    for path in sorted((SHARED / "recordings").glob("*/*.json")):
        recording = json.loads(path.read_text(encoding="utf-8"))
        response = recording["response"]
        good = response["status"] == 200 and not (recording["expected"] or {}).get("error")
        if recording["api"] == api and recording["stream"] is stream and good:
            found.append(pytest.param(response["body_text"], id=recording["id"]))
    return found


ANTHROPIC = answers("anthropic_messages", stream=False)
ANTHROPIC_STREAMS = answers("anthropic_messages", stream=True)
OPENAI = answers("openai_chat", stream=False)

pytestmark = pytest.mark.skipif(not ANTHROPIC, reason="the recordings are not there")


def folded(decoder: Any, body: str, *, stream: bool) -> AIMessage:
    data = body.encode()
    chunks = decoder.feed(data) + decoder.close() if stream else decoder.whole(data)
    if decoder.error is not None:
        pytest.skip(f"the answer is broken: {decoder.error}")
    message = sum(chunks, AIMessageChunk()).to_message()
    back = message_from_dict(json.loads(json.dumps(message.to_dict())))  # through a database
    assert isinstance(back, AIMessage)
    return back


def sent_back(dialect: Any, body: str, *, stream: bool = False) -> Body:
    """The assistant message that the next request holds."""
    answer = folded(dialect.Decoder(), body, stream=stream)
    calls = [*answer.tool_calls, *answer.invalid_tool_calls]
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in calls]
    request = ChatRequest(model="m", messages=[HumanMessage("hi"), answer, *results])
    messages = json.loads(dialect.encode(request).body)["messages"]
    return messages[1] if len(messages) > 1 else {"role": "assistant", "content": []}


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


@pytest.mark.parametrize("body", ANTHROPIC)
def test_anthropic_answer_goes_back_as_it_came(body: str) -> None:
    assert native_blocks(sent_back(anthropic, body)) == said(json.loads(body)["content"])


@pytest.mark.parametrize("body", ANTHROPIC_STREAMS)
def test_anthropic_stream_goes_back_as_its_blocks(body: str) -> None:
    assert native_blocks(sent_back(anthropic, body, stream=True)) == said(blocks_of_stream(body))


def blocks_of_stream(body: str) -> list[Body]:
    """The content blocks of a stream, put together as Anthropic's documentation says."""
    blocks: dict[int, Body] = {}
    inputs: dict[int, str] = {}
    for line in body.splitlines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line[5:])
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


@pytest.mark.parametrize("body", OPENAI)
def test_openai_answer_goes_back_as_it_came(body: str) -> None:
    came = openai_fields(json.loads(body)["choices"][0].get("message") or {})
    sent = openai_fields(sent_back(openai_chat, body))
    if came.get("reasoning") == came.get("reasoning_content"):
        came.pop("reasoning", None)  # sent twice under two names: once is enough
        sent.pop("reasoning", None)
    assert sent == came


def openai_fields(message: Body) -> Body:
    fields = {key: message[key] for key in SENT_BACK if message.get(key)}
    if message.get("refusal"):
        fields["content"] = [{"type": "refusal", "refusal": message["refusal"]}]
    if isinstance(fields.get("content"), str):
        fields["content"] = fields["content"].strip() and fields["content"]
    if "tool_calls" in fields:
        fields["tool_calls"] = [openai_call(call) for call in fields["tool_calls"]]
    return without_nulls(fields)


def openai_call(call: Body) -> Body:
    """A call without its place in the list, and without vendors' empty alternatives."""
    function = {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}
    rest = {k: v for k, v in call.items() if k not in ("index", "custom")}
    return {"type": "function", **rest, "function": function}
