"""The embedded provider as an Ollama server: by rules, by script, and through a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streamfold import errors, init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.messages import HumanMessage, ToolMessage
from streamfold.testing import Answer, Call, EmbeddedProvider, Usage

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
    body = {"model": "llama3", "messages": messages, **body}
    return HTTP.post(provider.url + "/api/chat", json=body, headers=headers)


def lines(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.text.endswith("}\n")
    return [json.loads(each) for each in reply.text.splitlines()]


def whole(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> dict[str, Any]:
    reply = post(provider, text, stream=False, **body)
    assert reply.headers["content-type"] == "application/json"
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


# ---- the wire ------------------------------------------------------------------------------------


def test_a_stream_is_the_default_and_says_what_a_body_says(provider: EmbeddedProvider) -> None:
    *pieces, last = lines(post(provider, think=True))
    answer = whole(provider, think=True)
    assert {piece["done"] for piece in pieces} == {False}
    for field in ("content", "thinking"):
        said = "".join(piece["message"].get(field, "") for piece in pieces)
        assert said == answer["message"][field] != ""
    assert last == {**answer, "message": {"role": "assistant", "content": ""}}
    assert (last["done"], last["done_reason"]) == (True, "stop")
    times = [piece["created_at"] for piece in (*pieces, last)]
    assert len(set(times)) == len(times)
    assert times[0].endswith("Z")


def test_calls_come_whole(provider: EmbeddedProvider) -> None:
    text = "What is the weather in Boston and Tokyo?"
    *pieces, last = lines(post(provider, text, tools=[WEATHER]))
    calls = [call for piece in pieces for call in piece["message"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [
        {"index": n, "name": "get_weather", "arguments": {"location": city}}
        for n, city in enumerate(("Boston", "Tokyo"))
    ]
    assert len({call["id"] for call in calls}) == 2
    assert last["done_reason"] == "stop"
    assert whole(provider, text, tools=[WEATHER])["message"]["tool_calls"] == calls


def test_formats(provider: EmbeddedProvider) -> None:
    content = whole(provider, format=LOCATION)["message"]["content"]
    assert json.loads(content).keys() == {"location"}
    assert isinstance(json.loads(whole(provider, format="json")["message"]["content"]), dict)
    assert whole(provider, format="")["message"]["content"].startswith("Here")


def test_limits(provider: EmbeddedProvider) -> None:
    cut = whole(provider, options={"num_predict": 3})
    assert (cut["done_reason"], cut["eval_count"]) == ("length", 3)
    assert whole(provider, options={"num_predict": -1})["done_reason"] == "stop"
    stopped = whole(provider, options={"stop": ["parrots"]})
    assert stopped["done_reason"] == "stop"
    assert "parrots" not in stopped["message"]["content"]
    calls = whole(provider, "Boston?", tools=[WEATHER], options={"num_predict": 1})
    assert calls["done_reason"] == "length"
    assert "tool_calls" not in calls["message"]


def test_log_probabilities(provider: EmbeddedProvider) -> None:
    body = {"logprobs": True, "top_logprobs": 2}
    *pieces, last = lines(post(provider, **body))
    entries = [entry for piece in pieces for entry in piece["logprobs"]]
    assert "logprobs" not in last
    assert whole(provider, **body)["logprobs"] == entries
    assert "".join(e["token"] for e in entries) == whole(provider)["message"]["content"]
    assert {len(entry["top_logprobs"]) for entry in entries} == {2}


def test_images_and_results(provider: EmbeddedProvider) -> None:
    image = [{"role": "user", "content": "Look", "images": ["AAAA"]}]
    assert "1 image" in whole(provider, messages=image)["message"]["content"]
    assert whole(provider, messages=image)["prompt_eval_count"] > 85
    results = [{"role": "user", "content": "?"}, {"role": "tool", "content": "21 degrees"}]
    answer = whole(provider, messages=results, tools=[WEATHER])
    assert "21 degrees" in answer["message"]["content"]


def test_an_empty_request_loads_the_model(provider: EmbeddedProvider) -> None:
    assert whole(provider, messages=[])["done_reason"] == "load"
    assert [line["done_reason"] for line in lines(post(provider, messages=[]))] == ["load"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model": "missing"}, 404, "model 'missing' not found"),
        ({"model": "overloaded"}, 503, "server busy"),
        ({"model": "rate-limited"}, 429, "too many requests"),
        ({"key": "wrong"}, 401, "unauthorized"),
        ({"format": "xml"}, 400, "invalid format"),
        ({"think": "hard"}, 400, "invalid think value"),
        ({"messages": "hi"}, 400, "array"),
        ({"model": 5}, 400, "model"),
    ],
)
def test_errors(provider: EmbeddedProvider, body: dict[str, Any], status: int, text: str) -> None:
    for stream in (True, False):
        reply = post(provider, stream=stream, **body)
        assert reply.status_code == status
        assert reply.json().keys() == {"error"}
        assert text in reply.json()["error"]


def test_a_script() -> None:
    answer = Answer(
        "Half",
        tool_calls=[Call("f", '{"a', "call_x")],
        usage=Usage(input=3, output=4),
        error="server",
    )
    with EmbeddedProvider([answer, answer]) as provider:
        text, call, error = lines(post(provider))
        assert text["message"]["content"] == "Half"
        assert call["message"]["tool_calls"] == [
            {"id": "call_x", "function": {"index": 0, "name": "f", "arguments": '{"a'}}
        ]
        assert error == {"error": "model runner has unexpectedly stopped"}
        assert post(provider, stream=False).status_code == 500


# ---- through a model -----------------------------------------------------------------------------


def model(provider: EmbeddedProvider, name: str = "llama3", **params: Any) -> Any:
    return init_chat_model(f"ollama:{name}", base_url=provider.url, max_retries=0, **params)


def test_a_model_gets_the_same_by_stream_and_invoke(provider: EmbeddedProvider) -> None:
    llm = model(provider, reasoning=True, num_ctx=2048, logprobs=True)
    message = llm.invoke(PARROTS)
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert sum(llm.stream(PARROTS), AIMessageChunk()).to_message() == message
    sent = json.loads(provider.requests[-1].body)
    assert (sent["think"], sent["options"], sent["stream"]) == (True, {"num_ctx": 2048}, True)


def test_a_tool_loop(provider: EmbeddedProvider) -> None:
    llm = model(provider).bind(tools=[WEATHER])
    asked = HumanMessage("What is the weather in Boston and Tokyo?")
    answer = llm.invoke([asked])
    assert answer.finish_reason == "tool_calls"
    results = [ToolMessage("sunny", tool_call_id=call["id"]) for call in answer.tool_calls]
    assert "sunny" in llm.invoke([asked, answer, *results]).text
    roles = [
        (m["role"], m.get("tool_name")) for m in json.loads(provider.requests[-1].body)["messages"]
    ]
    assert roles == [("user", None), ("assistant", None), *[("tool", "get_weather")] * 2]


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


def test_an_error_in_the_middle_keeps_what_came() -> None:
    with EmbeddedProvider([Answer("Half an", error="server")]) as provider:
        with pytest.raises(errors.ServerError) as caught:
            list(model(provider).stream("hi"))
        assert caught.value.partial.text == "Half an"


def test_no_server_says_where_and_how_to_start_one() -> None:
    with EmbeddedProvider() as provider:
        address = provider.url
    with pytest.raises(errors.ConnectError) as caught:
        init_chat_model("ollama:llama3", base_url=address, max_retries=0).invoke("hi")
    assert f"no connection to {address} " in str(caught.value)
    assert "`ollama serve`" in str(caught.value)
