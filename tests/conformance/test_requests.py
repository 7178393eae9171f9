"""Every recorded request, read by the public coercion and written again by the encoder.

What comes out must mean what was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest

from recordings import Body, all_stored, needs_recordings, requests
from streamfold.coercion import coerce_messages
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from streamfold.wire import anthropic_request, openai_chat_request
from streamfold.wire.request import ChatRequest


def recorded(api: str) -> list[Any]:
    """The bodies of the requests that were recorded whole."""
    return [
        pytest.param(recording["request"]["body"], id=recording["id"])
        for recording in requests(api)
        if recording["request"].get("body_recorded", True)
        and recording["request"]["body"]["messages"]
    ]


OPENAI = recorded("openai_chat")
ANTHROPIC = recorded("anthropic_messages")

pytestmark = needs_recordings


def without_nulls(value: Body) -> Body:
    """`stream: false` and null say what is so anyway."""
    return {k: v for k, v in value.items() if v is not None and (k, v) != ("stream", False)}


def as_sent(encode: Any, request: ChatRequest) -> Body:
    body: Body = json.loads(encode(request).body)
    return body


# ---- what a body means ---------------------------------------------------------------------------


def openai_meaning(body: Body) -> Body:
    meaning = without_nulls(body)
    meaning["messages"] = [openai_message(message) for message in body["messages"]]
    if "tools" not in meaning:
        # It says nothing then, and OpenAI rejects it: "only allowed when 'tools' are specified"
        # (openai/swarm#30).
        meaning.pop("parallel_tool_calls", None)
    else:
        meaning["tools"] = [{"type": "function", **tool} for tool in meaning["tools"]]
    if meaning.get("tool_choice") == "any":
        meaning["tool_choice"] = "required"  # Mistral's first word for it; it knows both
    return meaning


def openai_message(message: Body) -> Body:
    meaning = without_nulls(message)
    parts = meaning.get("content") or ""
    if isinstance(parts, list) and (
        len(parts) == 1 or message["role"] == "assistant"  # one stream of text
    ):
        plain = all(part.keys() == {"type", "text"} for part in parts)
        parts = "".join(part["text"] for part in parts) if plain else parts
    meaning["content"] = parts
    if "tool_calls" in meaning:
        meaning["tool_calls"] = [openai_call(call) for call in meaning["tool_calls"]]
    return meaning


def openai_call(call: Body) -> Body:
    function = {**call["function"], "arguments": json.loads(call["function"]["arguments"] or "{}")}
    return {**call, "function": function}


def anthropic_meaning(body: Body) -> Body:
    meaning = without_nulls(body)
    meaning["system"] = blocks(body.get("system") or [])
    said = ((message["role"], blocks(message["content"])) for message in body["messages"])
    meaning["messages"] = [  # the API merges what one role says in a row
        (role, [block for _, content in run for block in content])
        for role, run in groupby(said, key=lambda one: one[0])
    ]
    choice = dict(meaning.pop("tool_choice", {}))
    if choice.get("disable_parallel_tool_use") is False:
        del choice["disable_parallel_tool_use"]  # the default
    meaning["tool_choice"] = choice
    return meaning


def blocks(content: Any) -> list[Body]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block_meaning(block) for block in content]


def block_meaning(block: Body) -> Body:
    if block["type"] != "tool_result":
        return block
    result = {**block, "content": blocks(block.get("content", ""))}
    if result.get("is_error") is False:
        del result["is_error"]  # the default
    return result


# ---- a body as a request of ours -----------------------------------------------------------------


def openai_request(body: Body, messages: list[BaseMessage]) -> ChatRequest:
    rest = {key: value for key, value in body.items() if key != "messages"}
    tokens = "max_completion_tokens" if "max_completion_tokens" in rest else "max_tokens"
    options = rest.pop("stream_options", None) or {}
    fields = {key: rest.pop(key, None) for key in COMMON_FIELDS}
    return ChatRequest(
        model=rest.pop("model", ""),
        messages=messages,
        stream=bool(rest.pop("stream", False)),
        stream_usage=bool(options.get("include_usage")),
        max_tokens=rest.pop(tokens, None),
        quirks=frozenset({tokens}),
        extra=rest,
        **fields,
    )


COMMON_FIELDS = (
    "temperature",
    "stop",
    "top_p",
    "seed",
    "reasoning_effort",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
)


def anthropic_request_of(body: Body, messages: list[BaseMessage]) -> ChatRequest:
    rest = {key: value for key, value in body.items() if key not in ("messages", "system")}
    config = dict(rest.pop("output_config", {}))
    form = config.pop("format", None)
    if config:  # what it says of effort, `reasoning_effort` would say with thinking beside it
        rest["output_config"] = config
    return ChatRequest(
        model=rest.pop("model", ""),
        messages=messages,
        stream=bool(rest.pop("stream", False)),
        max_tokens=rest.pop("max_tokens"),
        temperature=rest.pop("temperature", None),
        tools=rest.pop("tools", None),
        tool_choice=rest.pop("tool_choice", None),
        response_format=form,
        extra=rest,
    )


def anthropic_input(body: Body) -> list[Any]:
    system = body.get("system")
    return [*([{"role": "system", "content": system}] if system else []), *body["messages"]]


def in_standard_blocks(body: Body) -> Iterator[BaseMessage]:
    """Anthropic's recorded messages as a user of standard messages would write them."""
    for message in anthropic_input(body):
        content = blocks(message["content"])
        if message["role"] == "system":
            yield SystemMessage(content)
        elif message["role"] == "assistant":
            yield AIMessage([standard(block) for block in content])
        else:
            results = [block for block in content if block["type"] == "tool_result"]
            for block in results:
                yield ToolMessage(
                    [standard(part) for part in block["content"]],
                    tool_call_id=block["tool_use_id"],
                    status="error" if block.get("is_error") else "success",
                )
            said = [standard(block) for block in content if block not in results]
            if said:
                yield HumanMessage(said)


def standard(block: Body) -> Body:
    source = block.get("source") or {}
    if block["type"] == "tool_use":
        fields = {key: block[key] for key in ("id", "name")}
        return {"type": "tool_call", **fields, "args": block["input"]}
    if block["type"] == "image":
        return {"type": "image", "base64": source["data"], "mime_type": source["media_type"]}
    if block["type"] == "document":
        extras = {key: block[key] for key in ("title", "citations")}
        return {"type": "text-plain", "text": source["data"], "extras": extras}
    return block


# ---- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", OPENAI)
def test_openai_request_means_what_was_recorded(body: Body) -> None:
    messages = coerce_messages(body["messages"])
    sent = as_sent(openai_chat_request.encode, openai_request(body, messages))
    assert openai_meaning(sent) == openai_meaning({"model": "", **body})


@pytest.mark.parametrize("body", OPENAI)
def test_openai_messages_survive_storage(body: Body) -> None:
    messages = coerce_messages(body["messages"])
    first, second = (openai_request(body, each) for each in (messages, all_stored(messages)))
    assert openai_chat_request.encode(first) == openai_chat_request.encode(second)


@pytest.mark.parametrize("body", OPENAI)
def test_openai_parts_as_standard_blocks_mean_the_same(body: Body) -> None:
    if "document_url" in json.dumps(body):
        pytest.skip("Mistral's own part has no standard block")
    messages = [
        HumanMessage(message.content_blocks) if isinstance(message, HumanMessage) else message
        for message in coerce_messages(body["messages"])
    ]
    sent = as_sent(openai_chat_request.encode, openai_request(body, messages))
    assert openai_meaning(sent) == openai_meaning({"model": "", **body})


@pytest.mark.parametrize("body", ANTHROPIC)
def test_anthropic_request_means_what_was_recorded(body: Body) -> None:
    messages = coerce_messages(anthropic_input(body))
    sent = as_sent(anthropic_request.encode, anthropic_request_of(body, messages))
    assert anthropic_meaning(sent) == anthropic_meaning({"model": "", **body})


@pytest.mark.parametrize("body", ANTHROPIC)
def test_anthropic_messages_survive_storage(body: Body) -> None:
    messages = coerce_messages(anthropic_input(body))
    first, second = (anthropic_request_of(body, each) for each in (messages, all_stored(messages)))
    assert anthropic_request.encode(first) == anthropic_request.encode(second)


@pytest.mark.parametrize("body", ANTHROPIC)
def test_anthropic_request_from_standard_messages_means_the_same(body: Body) -> None:
    messages = coerce_messages(list(in_standard_blocks(body)))
    sent = as_sent(anthropic_request.encode, anthropic_request_of(body, messages))
    assert anthropic_meaning(sent) == anthropic_meaning({"model": "", **body})
