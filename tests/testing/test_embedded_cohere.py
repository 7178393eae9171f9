"""The embedded provider as Cohere's API: by rules, by script, and through a model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streamfold import errors, init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.messages import HumanMessage, ToolMessage
from streamfold.testing import Answer, Call, EmbeddedProvider, Found, Usage

HTTP = httpx.Client(trust_env=False)
LOCATION = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather", "parameters": LOCATION},
}
PARROTS = "Why do parrots talk?"
CITIES = "What is the weather in Boston and Tokyo?"
THINKING = {"thinking": {"type": "enabled"}}


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with HTTP:
        yield


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def post(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {body.pop('key', 'any')}"}
    messages = [{"role": "user", "content": text}]
    body = {"model": "command-a-03-2025", "messages": messages, **body}
    return HTTP.post(provider.url + "/v2/chat", json=body, headers=headers)


def whole(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> dict[str, Any]:
    reply = post(provider, text, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def events(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> list[dict[str, Any]]:
    reply = post(provider, text, stream=True, **body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    found = re.findall(r"event: (.+)\ndata: (.+)\n\n", reply.text)
    assert (
        "".join(f"event: {e}\ndata: {d}\n\n" for e, d in found) + "data: [DONE]\n\n" == reply.text
    )
    payloads = [json.loads(data) for _, data in found]
    assert [payload["type"] for payload in payloads] == [event for event, _ in found]
    return payloads


def folded(payloads: list[dict[str, Any]]) -> dict[str, Any]:
    """The stream put together as the vendor describes; the same keys as a body."""
    message: dict[str, Any] = {"role": "assistant", "content": [], "tool_calls": []}
    citations, plan = [], ""
    for payload in payloads:
        said = (payload.get("delta") or {}).get("message", {})
        if payload["type"] == "content-start":
            assert payload["index"] == len(message["content"])
            message["content"].append(said["content"])
        elif payload["type"] == "content-delta":
            block = message["content"][payload["index"]]
            block[block["type"]] += said["content"][block["type"]]
        elif payload["type"] == "tool-call-start":
            message["tool_calls"].append(said["tool_calls"])
        elif payload["type"] == "tool-call-delta":
            call = message["tool_calls"][payload["index"]]
            call["function"]["arguments"] += said["tool_calls"]["function"]["arguments"]
        elif payload["type"] == "citation-start":
            citations.append(said["citations"])
        plan += said.get("tool_plan", "")
    parts = {**message, "citations": citations, "tool_plan": plan}
    said = {key: value for key, value in parts.items() if value}
    return {"id": payloads[0]["id"], "message": said, **payloads[-1]["delta"]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        THINKING,
        {"documents": ["Parrots are birds."]},
        {"max_tokens": 3},
        {"stop_sequences": ["parrots"]},
        {"response_format": {"type": "json_object", "json_schema": LOCATION}},
        {"text": CITIES, "tools": [WEATHER]},
        {"text": CITIES, "tools": [WEATHER], **THINKING},
        {"text": CITIES, "tools": [WEATHER], "tool_choice": "NONE"},
    ],
)
def test_a_stream_says_what_a_body_says(provider: EmbeddedProvider, body: dict[str, Any]) -> None:
    assert folded(events(provider, **body)) == whole(provider, **body)


def test_thinking_comes_first_and_is_counted(provider: EmbeddedProvider) -> None:
    answer = whole(provider, **THINKING)
    assert [block["type"] for block in answer["message"]["content"]] == ["thinking", "text"]
    assert answer["usage"]["tokens"]["reasoning_tokens"] > 0
    assert "reasoning_tokens" not in whole(provider)["usage"]["tokens"]


def test_calls(provider: EmbeddedProvider) -> None:
    answer = whole(provider, CITIES, tools=[WEATHER])
    calls = answer["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [
        {"location": "Boston"},
        {"location": "Tokyo"},
    ]
    assert answer["finish_reason"] == "TOOL_CALL"
    assert answer["message"]["tool_plan"] == "I will use get_weather to answer."
    assert "content" not in answer["message"]
    asked = [{"role": "user", "content": CITIES}]
    document = {"type": "document", "document": {"data": {"text": "21 degrees"}}}
    results = [{"role": "tool", "tool_call_id": "x", "content": [document]}]
    said = whole(provider, messages=asked + results, tools=[WEATHER])["message"]["content"]
    assert "21 degrees" in said[0]["text"]
    forced = {"tools": [WEATHER], "tool_choice": "REQUIRED"}
    assert "tool_calls" in whole(provider, messages=asked + results, **forced)["message"]


def test_endings(provider: EmbeddedProvider) -> None:
    cut = whole(provider, max_tokens=3)
    assert (cut["finish_reason"], cut["usage"]["tokens"]["output_tokens"]) == ("MAX_TOKENS", 3)
    assert whole(provider, stop_sequences=["parrots"])["finish_reason"] == "STOP_SEQUENCE"
    assert whole(provider)["finish_reason"] == "COMPLETE"


def test_documents_are_cited(provider: EmbeddedProvider) -> None:
    documents = [{"id": "d", "data": {"title": "T", "text": "x"}}, "y"]
    message = whole(provider, documents=documents, **THINKING)["message"]
    (citation,) = message["citations"]
    text = message["content"][citation["content_index"]]["text"]
    assert text[citation["start"] : citation["end"]] == citation["text"]
    (source,) = citation["sources"]
    assert source["document"] == {"id": "d", "title": "T", "text": "x"}
    assert "2 files" in text


def test_log_probabilities(provider: EmbeddedProvider) -> None:
    pieces = [event["logprobs"] for event in events(provider, logprobs=True) if "logprobs" in event]
    answer = whole(provider, logprobs=True)
    assert answer["logprobs"] == pieces
    assert "".join(piece["text"] for piece in pieces) == answer["message"]["content"][0]["text"]
    assert "logprobs" not in whole(provider)


def test_images_are_counted(provider: EmbeddedProvider) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}]
    assert "1 image" in whole(provider, messages=messages)["message"]["content"][0]["text"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model": "missing"}, 404, "model 'missing' not found"),
        ({"model": "overloaded"}, 503, "overloaded"),
        ({"model": "rate-limited"}, 429, "Trial key"),
        ({"key": "wrong"}, 401, "invalid api token"),
        ({"messages": []}, 400, "nonempty"),
        ({"messages": [{"role": "ai", "content": "x"}]}, 400, "'ai'"),
        ({"messages": [{"role": "assistant", "content": ""}]}, 400, "either content or tool_calls"),
        ({"tool_choice": "auto"}, 400, "'auto'"),
        ({"tool_choice": "REQUIRED"}, 400, "needs tools"),
        ({"response_format": {"type": "json_schema"}}, 400, "'json_schema'"),
        ({"model": 5}, 400, "model"),
    ],
)
def test_errors(provider: EmbeddedProvider, body: dict[str, Any], status: int, text: str) -> None:
    for stream in (True, False):
        reply = post(provider, stream=stream, **body)
        assert reply.status_code == status
        assert reply.json().keys() == {"id", "message"}
        assert text in reply.json()["message"]


def test_a_script() -> None:
    found = Found("parrots", "About parrots", "https://example.com/p", "They talk.")
    answer = Answer("Half", found=found, usage=Usage(input=3, output=4, cache_read=2))
    failed = Answer("Half", tool_calls=[Call("f", '{"a', "call_x")], error="server")
    with EmbeddedProvider([answer, failed, failed]) as provider:
        (citation,) = whole(provider)["message"]["citations"]
        assert citation["sources"][0]["document"]["url"] == "https://example.com/p"
        payloads = events(provider)
        assert folded(payloads)["message"]["tool_calls"][0]["id"] == "call_x"
        assert payloads[-1]["delta"]["finish_reason"] == "ERROR"
        assert "internal server error" in payloads[-1]["delta"]["error"]
        assert post(provider).status_code == 500


# ---- through a model -----------------------------------------------------------------------------


def model(provider: EmbeddedProvider, name: str = "command-a", **params: Any) -> Any:
    return init_chat_model(
        f"cohere:{name}", base_url=provider.url, api_key="k", max_retries=0, **params
    )


def test_a_model_gets_the_same_by_stream_and_invoke(provider: EmbeddedProvider) -> None:
    llm = model(provider, reasoning_effort="low", documents=["Parrots are birds."], logprobs=True)
    message = llm.invoke(PARROTS)
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert message.content_blocks[1]["annotations"][0]["start_index"] == 0
    assert sum(llm.stream(PARROTS), AIMessageChunk()).to_message() == message
    sent = json.loads(provider.requests[-1].body)
    assert sent["thinking"] == {"type": "enabled", "token_budget": 2048}


def test_a_tool_loop(provider: EmbeddedProvider) -> None:
    llm = model(provider).bind(tools=[WEATHER])
    answer = llm.invoke([HumanMessage(CITIES)])
    assert answer.finish_reason == "tool_calls"
    assert answer.response_metadata["tool_plan"]
    results = [ToolMessage("sunny", tool_call_id=call["id"]) for call in answer.tool_calls]
    assert "sunny" in llm.invoke([HumanMessage(CITIES), answer, *results]).text
    sent = json.loads(provider.requests[-1].body)["messages"][1]
    assert sent["tool_plan"] == answer.response_metadata["tool_plan"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", errors.NotFoundError),
        ("overloaded", errors.OverloadedError),
        ("rate-limited", errors.RateLimitError),
    ],
)
def test_a_model_raises(provider: EmbeddedProvider, name: str, expected: type) -> None:
    with pytest.raises(expected):
        model(provider, name).invoke("hi")


def test_too_long_a_prompt_is_a_context_overflow() -> None:
    script = [Answer(error="context_overflow")]
    with EmbeddedProvider(script) as provider, pytest.raises(errors.ContextOverflowError):
        model(provider).invoke("hi")


def test_an_error_in_the_middle_keeps_what_came() -> None:
    with EmbeddedProvider([Answer("Half an", error="server")]) as provider:
        with pytest.raises(errors.ServerError) as caught:
            list(model(provider).stream("hi"))
        assert caught.value.partial.text == "Half an"
