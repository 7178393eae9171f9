"""Every recorded exchange with Bedrock Converse.

Answers, however they are cut, must say what botocore makes of them, and go back as they came;
requests written by the encoder must mean what was recorded. The recordings lie outside the
repository; without them these tests are skipped. `STREAMFOLD_SHARED` names their folder.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.coercion import coerce_messages
from streamfold.errors import InvalidRequestError, PermissionDeniedError, ProviderError
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
from streamfold.testing import Exchange, Pieces, ReplayServer, cut
from streamfold.wire import bedrock
from streamfold.wire.eventstream import EventStreamFramer
from streamfold.wire.request import ChatRequest

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] == "bedrock_converse"
]

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


ANSWERS = [r for r in RECORDINGS if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if "body_base64" in r["response"]]
WHOLE = [r for r in ANSWERS if "body_text" in r["response"]]
ERRORS = [r for r in RECORDINGS if r["response"]["status"] != 200]


def test_all_exchanges_are_there() -> None:
    assert (len(STREAMS), len(WHOLE), len(ERRORS)) == (12, 5, 4)
    assert all(isinstance(r["request"]["body"], dict) for r in RECORDINGS)


# ---- answers -------------------------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    response = recording["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    text: str = response["body_text"]
    return text.encode()


def streamed(pieces: list[bytes]) -> AIMessage:
    decoder = bedrock.Decoder()
    chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
    assert decoder.done, "the figures are the end marker"
    chunks += decoder.close()
    assert decoder.error is None
    return sum(chunks, AIMessageChunk()).to_message()


def whole(body: bytes) -> AIMessage:
    decoder = bedrock.Decoder()
    chunks = decoder.whole(body)
    assert decoder.error is None
    return sum(chunks, AIMessageChunk()).to_message()


def answer(recording: Body) -> AIMessage:
    body = body_of(recording)
    return streamed([body]) if recording["stream"] else whole(body)


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_an_answer_says_what_botocore_reads(recording: Body) -> None:
    message, expected = answer(recording), recording["expected"]
    blocks = message.content_blocks
    reasoning = "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")
    calls = [{k: call[k] for k in ("id", "name", "args")} for call in message.tool_calls]
    usage = message.response_metadata["usage"]
    assert message.text == expected["text"]
    assert reasoning == (expected["reasoning"] or "")
    assert calls == expected["tool_calls"]
    assert message.invalid_tool_calls == []
    assert [b["name"] for b in blocks if b["type"] == "server_tool_call"] == (
        expected["server_tool_calls"]
    )
    assert message.response_metadata["stop_reason"] == expected["stop_reason"]
    assert message.response_metadata.get("model_name") == expected["model"]
    # botocore leaves out what its service model does not have.
    assert {k: v for k, v in usage.items() if k in expected["usage"]} == expected["usage"]
    assert "unknown_events" not in message.response_metadata
    assert expected["error"] is None


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_usage_adds_up(recording: Body) -> None:
    usage, raw = answer(recording).usage_metadata, recording["expected"]["usage"]
    cached = raw.get("cacheReadInputTokens", 0) + raw.get("cacheWriteInputTokens", 0)
    assert usage is not None
    assert usage["input_tokens"] == raw["inputTokens"] + cached
    assert usage["output_tokens"] == raw["outputTokens"]
    assert usage["total_tokens"] == raw["totalTokens"]


@pytest.mark.parametrize("recording", params(STREAMS))
@pytest.mark.parametrize("chunking", ["bytes", "recorded", Pieces(7), 1, 2, 3, 4, 5], ids=str)
def test_a_stream_is_the_same_however_it_is_cut(recording: Body, chunking: Any) -> None:
    body, sizes = body_of(recording), recording["response"].get("chunk_sizes")
    assert streamed(cut(body, chunking, sizes)) == streamed([body])


@pytest.mark.parametrize("recording", params(STREAMS))
def test_as_many_messages_as_botocore_counts(recording: Body) -> None:
    framer = EventStreamFramer(1 << 20)
    assert len(framer.feed(body_of(recording))) == recording["expected"]["n_events"]
    assert framer.error is None


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


ERROR_CLASSES = {400: InvalidRequestError, 403: PermissionDeniedError}


@pytest.mark.anyio
@pytest.mark.parametrize("recording", params(ERRORS))
async def test_an_error_is_of_its_class_and_says_what_the_vendor_says(recording: Body) -> None:
    expected, response = recording["expected"]["error"], recording["response"]
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        async with served(recording, server) as model:
            with pytest.raises(ProviderError) as caught:
                await model.ainvoke("hi")
    error = caught.value
    assert type(error) is ERROR_CLASSES[expected["status"]]
    assert (error.status, error.message) == (expected["status"], expected["message"])
    # Where the type is not said, botocore gives the status for it.
    assert (error.type or str(error.status)) == expected["type"]
    assert error.request_id == response["headers"].get("x-amzn-requestid")
    assert not error.retryable


# ---- answers as history --------------------------------------------------------------------------


def sent_back(recording: Body) -> list[Body]:
    """The assistant's blocks that the next request holds, after a round trip through a database."""
    message = message_from_dict(json.loads(json.dumps(answer(recording).to_dict())))
    assert isinstance(message, AIMessage)
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


@pytest.mark.parametrize("recording", params(RECORDINGS))
def test_a_request_means_what_was_recorded(recording: Body) -> None:
    body = recording["request"]["body"]
    request = bedrock.encode(request_of(recording, coerce_messages(as_input(body))))
    assert meaning(json.loads(request.body)) == meaning(body)
    assert unquote(request.path) == unquote(urlsplit(recording["request"]["url"]).path)


@pytest.mark.parametrize("recording", params(RECORDINGS))
def test_messages_survive_storage(recording: Body) -> None:
    messages = coerce_messages(as_input(recording["request"]["body"]))
    stored = messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))
    first, second = (request_of(recording, each) for each in (messages, stored))
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


@pytest.mark.parametrize("recording", params(RECORDINGS))
def test_a_request_from_standard_messages_means_the_same(recording: Body) -> None:
    body = recording["request"]["body"]
    messages = coerce_messages(list(in_standard_blocks(body)))
    sent = json.loads(bedrock.encode(request_of(recording, messages)).body)
    assert meaning(sent) == meaning(body)
