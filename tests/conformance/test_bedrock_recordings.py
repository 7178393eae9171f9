"""Every recorded exchange with Bedrock Converse.

Streams say what whole answers say, answers go back as they came, and requests written by the
encoder mean what was recorded. That answers say what the vendor's SDK reads, however they are cut,
is in `test_recordings.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from decoding import decode
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
from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.testing import Exchange, ReplayServer
from streamfold.wire import bedrock
from streamfold.wire.eventstream import EventStreamFramer
from streamfold.wire.request import ChatRequest

ANSWERS = answers("bedrock_converse")
STREAMS = streams("bedrock_converse")
REQUESTS = requests("bedrock_converse")

pytestmark = needs_recordings


# ---- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recording", params(STREAMS))
def test_as_many_messages_as_botocore_counts(recording: Body) -> None:
    framer = EventStreamFramer(1 << 20)
    assert len(framer.feed(body_of(recording))) == recording["expected"]["n_events"]
    assert framer.error is None
    assert decode("bedrock", body_of(recording)).decoder.done, "the figures are the end marker"


@pytest.mark.parametrize("recording", params(STREAMS))
def test_no_cut_stream_is_a_short_answer(recording: Body) -> None:
    """Only the stop reason and the figures may be missing at the end."""
    body, full = body_of(recording), answer(recording)
    for end in range(0, len(body), 97):
        decoder = bedrock.Decoder()
        chunks = [*decoder.feed(body[:end]), *decoder.close()]
        names = [frame.event for frame in EventStreamFramer(1 << 20).feed(body[:end])]
        assert (decoder.error is None) == ("messageStop" in names)
        partial = sum(chunks, AIMessageChunk()).to_message("error")
        assert full.text.startswith(partial.text)
        assert all(call in full.tool_calls for call in partial.tool_calls)


# ---- over the network ----------------------------------------------------------------------------


def model_of(recording: Body) -> str:
    return unquote(urlsplit(recording["request"]["url"]).path).split("/")[2]


def served(recording: Body, server: ReplayServer) -> Any:
    return init_chat_model(
        model_of(recording),
        model_provider="bedrock_converse",
        base_url=server.url,
        api_key="any-key",
        max_retries=0,
    )


@pytest.mark.anyio
@pytest.mark.parametrize("recording", params(ANSWERS))
async def test_an_exchange_through_a_model(recording: Body) -> None:
    """The same answer, asked for on the path that was recorded."""
    with ReplayServer([Exchange.from_recording(recording)], chunking=3) as server:
        async with served(recording, server) as model:
            if recording["stream"]:
                chunks = [chunk async for chunk in model.astream("hi")]
                message = sum(chunks, AIMessageChunk()).to_message()
            else:
                message = await model.ainvoke("hi")
    direct = answer(recording)
    assert message.content_blocks == direct.content_blocks
    assert message.usage_metadata == direct.usage_metadata
    assert message.finish_reason == direct.finish_reason
    assert server.requests[0].path == unquote(urlsplit(recording["request"]["url"]).path)
    assert server.requests[0].headers["authorization"] == "Bearer any-key"


# ---- answers as history --------------------------------------------------------------------------


def sent_back(recording: Body) -> list[Body]:
    """The assistant's blocks that the next request holds, after a round trip through a database."""
    message = stored(answer(recording))
    results = [ToolMessage("done", tool_call_id=str(c["id"])) for c in message.tool_calls]
    request = ChatRequest(
        model=model_of(recording),
        messages=[HumanMessage("hi"), message, *results],
        provider="bedrock",
        extra={"toolConfig": {"tools": [{"toolSpec": {"name": "x", "inputSchema": {}}}]}},
    )
    content: list[Body] = json.loads(bedrock.encode(request).body)["messages"][1]["content"]
    return content


def native(recording: Body) -> list[Body]:
    """The blocks of an answer as the API would have sent them whole."""
    if not recording["stream"]:
        content: list[Body] = json.loads(body_of(recording))["output"]["message"]["content"]
        return content
    blocks: dict[int, Body] = {}
    for frame in EventStreamFramer(1 << 20).feed(body_of(recording)):
        payload = json.loads(frame.data)
        if frame.event == "contentBlockStart":
            blocks[payload["contentBlockIndex"]] = payload["start"]
        elif frame.event == "contentBlockDelta":
            block = blocks.setdefault(payload["contentBlockIndex"], {})
            for key, value in payload["delta"].items():
                add_delta(block, key, value)
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"].get("input") or "{}")
        if "citationsContent" in block and "text" in block:
            block["citationsContent"]["content"] = [{"text": block.pop("text")}]
    return [blocks[index] for index in sorted(blocks)]


def add_delta(block: Body, key: str, value: Any) -> None:
    if key == "text":
        block["text"] = block.get("text", "") + value
    elif key == "toolUse":
        block["toolUse"]["input"] = block["toolUse"].get("input", "") + value["input"]
    elif key == "toolResult":
        block["toolResult"].setdefault("content", []).extend(value)
    elif key == "citation":
        cited = block.setdefault("citationsContent", {"citations": []})
        cited["citations"].append(value)
    elif "redactedContent" in value:
        block["reasoningContent"] = value
    else:
        inner = block.setdefault("reasoningContent", {"reasoningText": {}})["reasoningText"]
        for name, piece in value.items():
            inner[name] = inner.get(name, "") + piece


def as_sent(blocks: list[Body]) -> list[Body]:
    """Without what the API rejects (blank texts) and what it takes for granted (the usual type)."""
    kept = []
    for block in blocks:
        if block.get("text", "x").strip():
            use = {
                k: v for k, v in block.get("toolUse", {}).items() if (k, v) != ("type", "tool_use")
            }
            kept.append({**block, "toolUse": use} if use else block)
    return kept


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_goes_back_as_it_came(recording: Body) -> None:
    assert sent_back(recording) == as_sent(native(recording))


# ---- requests ------------------------------------------------------------------------------------


def meaning(body: Body) -> Body:
    """A body without what says what is so anyway."""
    kept = {key: value for key, value in body.items() if value not in ({}, [])}
    kept["messages"] = [
        {**message, "content": [block_meaning(block) for block in message["content"]]}
        for message in body["messages"]
    ]
    return kept


def block_meaning(block: Body) -> Body:
    result = block.get("toolResult")
    if result is None or result.get("status") != "success":
        return block
    return {"toolResult": {key: value for key, value in result.items() if key != "status"}}


def request_of(recording: Body, messages: list[BaseMessage]) -> ChatRequest:
    rest = {
        key: value
        for key, value in recording["request"]["body"].items()
        if key not in ("messages", "system", "inferenceConfig", "toolConfig")
    }
    config = recording["request"]["body"].get("inferenceConfig", {})
    tools = recording["request"]["body"].get("toolConfig", {})
    return ChatRequest(
        model=model_of(recording),
        messages=messages,
        stream=recording["request"]["url"].endswith("-stream"),
        max_tokens=config.get("maxTokens"),
        temperature=config.get("temperature"),
        top_p=config.get("topP"),
        stop=config.get("stopSequences"),
        tools=tools.get("tools"),
        tool_choice=tools.get("toolChoice"),
        extra=rest,
    )


def as_input(body: Body) -> list[Any]:
    system = body.get("system")
    return [*([{"role": "system", "content": system}] if system else []), *body["messages"]]


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_a_request_means_what_was_recorded(recording: Body) -> None:
    body = recording["request"]["body"]
    request = bedrock.encode(request_of(recording, coerce_messages(as_input(body))))
    assert meaning(json.loads(request.body)) == meaning(body)
    assert unquote(request.path) == unquote(urlsplit(recording["request"]["url"]).path)


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_messages_survive_storage(recording: Body) -> None:
    messages = coerce_messages(as_input(recording["request"]["body"]))
    first, second = (request_of(recording, each) for each in (messages, all_stored(messages)))
    assert bedrock.encode(first) == bedrock.encode(second)


def in_standard_blocks(body: Body) -> Iterator[BaseMessage]:
    """Recorded messages as a user of standard messages would write them."""
    for message in as_input(body):
        content = [standard(block) for block in message["content"]]
        if message["role"] == "system":
            yield SystemMessage(content)
        elif message["role"] == "assistant":
            yield AIMessage(content)
        else:
            said = []
            for block in message["content"]:
                result = block.get("toolResult")
                if result is None:
                    said.append(standard(block))
                    continue
                yield ToolMessage(
                    [standard(part) for part in result["content"]],
                    tool_call_id=result["toolUseId"],
                    status=result.get("status", "success"),
                )
            if said:
                yield HumanMessage(said)


def standard(block: Body) -> Body:
    ((key, value),) = block.items()
    if key == "text":
        return {"type": "text", "text": value}
    if key == "toolUse":
        call = {"id": value["toolUseId"], "name": value["name"], "args": value["input"]}
        return {"type": "tool_call", **call}
    if key in ("image", "video"):
        source = value["source"]
        mime = {"mime_type": f"{key}/{value['format']}"}
        if "bytes" in source:
            return {"type": key, "base64": source["bytes"], **mime}
        return {"type": key, "url": source["s3Location"]["uri"], **mime}
    if key == "document" and "text" in value["source"]:
        extras = {name: value[name] for name in ("context", "citations") if name in value}
        text = {"type": "text-plain", "text": value["source"]["text"], "title": value["name"]}
        return {**text, "extras": extras}
    if key == "document":
        named = {"name": value["name"], "extras": {"citations": value["citations"]}}
        return {"type": "file", "base64": value["source"]["bytes"], **named}
    return block


@pytest.mark.parametrize("recording", params(REQUESTS))
def test_a_request_from_standard_messages_means_the_same(recording: Body) -> None:
    body = recording["request"]["body"]
    messages = coerce_messages(list(in_standard_blocks(body)))
    sent = json.loads(bedrock.encode(request_of(recording, messages)).body)
    assert meaning(sent) == meaning(body)
