"""The gateway, asked by plain HTTP: what it takes, what it refuses, and in what words."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_tools import parts_of, serving

from strategies import json_values
from streamfold import ChatModel, init_chat_model
from streamfold.errors import ConfigurationError
from streamfold.integrations.web import gateway
from streamfold.integrations.web.chat_request import RequestError, read_body
from streamfold.testing import Answer, EmbeddedProvider, Failure

LONG = " ".join(["word"] * 400)
HI = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

Ask = Callable[..., httpx.Response]


def models(provider: EmbeddedProvider) -> dict[str, ChatModel]:
    """One of each kind: a vendor of OpenAI's dialect, one of its own, one with signatures."""
    rows: dict[str, dict[str, Any]] = {
        "openai:gpt-4.1": {"base_url": provider.url + "/v1"},
        "anthropic:claude-sonnet-4-5": {
            "base_url": provider.url,
            "max_tokens": 4096,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
        "google_genai:gemini-3-pro-preview": {"base_url": provider.url + "/v1beta"},
        "groq:gpt-4.1": {"base_url": provider.url + "/v1"},
    }
    more: dict[str, Any] = {"api_key": "any", "max_retries": 0}
    return {name: init_chat_model(name, **row, **more) for name, row in rows.items()}


class Gateway:
    """A gateway that runs, and the provider behind it."""

    def __init__(self, url: str, provider: EmbeddedProvider) -> None:
        self.url = url
        self.provider = provider

    def ask(self, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """A chat completion; "Hi" unless the body says otherwise."""
        full = {"model": "openai:gpt-4.1", "messages": HI, **body}
        return self.post(content=json.dumps(full), headers=headers)

    def post(
        self, *, content: bytes | str, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = {"content-type": "application/json", **(headers or {})}
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, content=content, headers=headers, trust_env=False)

    @property
    def sent(self) -> Any:
        """What the provider got last."""
        return self.provider.requests[-1].json()


@contextmanager
def gateway_over(*script: Answer | str, **options: float) -> Iterator[Gateway]:
    """A gateway over a provider that says what is in the script."""
    with (
        EmbeddedProvider(script, **options) as provider,
        serving(gateway(models(provider))) as url,
    ):
        yield Gateway(url, provider)


@pytest.fixture(scope="module")
def running() -> Iterator[Gateway]:
    with gateway_over() as running:
        yield running


# ---- models --------------------------------------------------------------------------------------


def test_models(running: Gateway) -> None:
    """They are listed and found, by OpenAI's form of it."""
    listed = httpx.get(running.url + "/v1/models", trust_env=False).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]][:2] == [
        "openai:gpt-4.1",
        "anthropic:claude-sonnet-4-5",
    ]
    one = httpx.get(running.url + "/v1/models/openai:gpt-4.1", trust_env=False).json()
    assert one == listed["data"][0]
    assert one.keys() == {"id", "object", "created", "owned_by"}
    assert (one["object"], one["owned_by"]) == ("model", "openai")


@pytest.mark.parametrize("name", ["gpt-9", "gpt-4.1", "openai:", ""])
def test_an_unknown_model(running: Gateway, name: str) -> None:
    """404, with its name; so is a name without a provider that two providers have."""
    response = running.ask(model=name)
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert repr(name) in error["message"]


def test_the_provider_may_be_left_out(running: Gateway) -> None:
    """Where that is clear."""
    response = running.ask(model="claude-sonnet-4-5", max_tokens=2000)
    assert response.json()["model"].startswith("claude-sonnet-4-5")


@pytest.mark.parametrize("bad", [[], {}, "openai:gpt-4.1", ["nobody:x"], {"a": "openai:gpt-4.1"}])
def test_models_that_cannot_be(bad: Any) -> None:
    with pytest.raises(ConfigurationError):
        gateway(bad)


# ---- what is taken -------------------------------------------------------------------------------


def test_fields_reach_the_provider(running: Gateway) -> None:
    """Those of every vendor, and those that the vendor has; bookkeeping where it is wanted."""
    fields = {"temperature": 0.5, "stop": ["END"], "seed": 7, "user": "me", "top_p": 0.9}
    assert running.ask(**fields, max_tokens=9, metadata={"a": "b"}).status_code == 200
    assert running.sent.items() >= {**fields, "max_completion_tokens": 9}.items()
    assert "metadata" not in running.sent
    kept = {"temperature": 1, "user": "me", "store": False, "service_tier": "auto", "n": 1}
    silent = {
        "frequency_penalty": 0,
        "logprobs": False,
        "logit_bias": {},
        "tools": [],
        "seed": None,
    }
    assert running.ask(model="claude-sonnet-4-5", **kept, **silent).status_code == 200
    assert not {"user", "store", "service_tier", "n", "logprobs"} & running.sent.keys()


def test_log_probabilities(running: Gateway) -> None:
    """The same in a stream and in one piece, in OpenAI's form."""
    asked = {"logprobs": True, "top_logprobs": 2}
    whole = running.ask(**asked).json()["choices"][0]["logprobs"]["content"]
    chunks = parts_of(running.ask(**asked, stream=True).text)[:-1]
    told = [chunk["choices"][0]["logprobs"] for chunk in chunks]
    assert [entry for each in told if each for entry in each["content"]] == whole
    assert len(whole) > 1


def test_an_answer_is_repeated_as_sdks_repeat_it(running: Gateway) -> None:
    """With its nulls, annotations and refusals; what a model refused to say is what it said."""
    said = {
        "role": "assistant",
        "content": None,
        "refusal": "No.",
        "annotations": [],
        "audio": None,
    }
    said |= {"function_call": None, "tool_calls": None, "reasoning_content": "Hm."}
    for model in ("openai:gpt-4.1", "claude-sonnet-4-5"):
        response = running.ask(model=model, messages=[*HI, said, *HI])
        assert response.status_code == 200
        assert "No." in json.dumps(running.sent["messages"])
        assert "annotations" not in json.dumps(running.sent["messages"])


@pytest.mark.parametrize("model", ["openai:gpt-4.1", "claude-sonnet-4-5", "gemini-3-pro-preview"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_round_of_tools(running: Gateway, model: str, stream: bool) -> None:
    """Calls, results, answer; what only the provider can read goes back to it, though the client
    never saw it: Gemini refuses a call without its signature."""
    asked = [{"role": "user", "content": "What is the weather in Paris and Rome?"}]
    first = running.ask(model=model, messages=asked, tools=[WEATHER], stream=stream)
    answer = _joined(parts_of(first.text)[:-1]) if stream else first.json()["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    calls = answer["message"]["tool_calls"]
    assert [json.loads(c["function"]["arguments"]) for c in calls] == [
        {"city": "Paris"},
        {"city": "Rome"},
    ]
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "sunny"} for c in calls]
    said = {"role": "assistant", "content": None, "tool_calls": calls}
    last = running.ask(model=model, messages=[*asked, said, *results], tools=[WEATHER])
    assert last.status_code == 200
    assert "sunny" in last.json()["choices"][0]["message"]["content"]
    if "claude" in model:
        assert "signature" in json.dumps(running.sent["messages"])


def _joined(chunks: list[Any]) -> dict[str, Any]:
    """The first choice of a stream, put together."""
    calls: list[dict[str, Any]] = []
    for piece in (p for c in chunks for p in c["choices"][0]["delta"].get("tool_calls", ())):
        if "id" in piece:
            calls.append(piece)
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    finish = chunks[-1]["choices"][0]["finish_reason"]
    return {"finish_reason": finish, "message": {"tool_calls": calls}}


# ---- what is refused -----------------------------------------------------------------------------

_CALL = {"role": "tool", "tool_call_id": "x", "content": "?"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": None}, "model"),
    "messages of text": ({"messages": "Hi"}, "messages"),
    "no messages": ({"messages": []}, "messages"),
    "a message of text": ({"messages": ["Hi"]}, "messages[0]"),
    "an unknown role": ({"messages": [*HI, {"role": "usr"}]}, "messages[1].role"),
    "no content": ({"messages": [*HI, {"role": "user"}]}, "messages[1]"),
    "an orphan": ({"messages": [*HI, _CALL, *HI, *HI]}, "messages[1]"),
    "several answers": ({"n": 2}, "n"),
    "a word for a number": ({"temperature": "hot"}, "temperature"),
    "a number too high": ({"temperature": 9}, "temperature"),
    "no tokens": ({"max_completion_tokens": 0}, "max_completion_tokens"),
    "no tokens, in short": ({"max_tokens": 0}, "max_tokens"),
    "a word for a bool": ({"stream": "yes"}, "stream"),
    "options of no stream": ({"stream_options": {"include_usage": True}}, "stream_options"),
    "unknown options": ({"stream": True, "stream_options": {"x": 1}}, "stream_options"),
    "an unknown field": ({"temprature": 1}, "temprature"),
    "a setting of ours": ({"timeout": 3}, "timeout"),
    "media to be fetched": ({"fetch_media": True}, "fetch_media"),
    "old functions": ({"functions": [{"name": "f"}]}, "functions"),
    "a tool without a name": ({"tools": [{"type": "function"}]}, "tools"),
    "a bad name": ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    "a choice of nothing": ({"tool_choice": "required"}, "tool_choice"),
    "a choice of none there": (
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "x"}},
        },
        "tool_choice",
    ),
    "a choice without a name": (
        {"tools": [WEATHER], "tool_choice": {"type": "function"}},
        "tool_choice",
    ),
    "what the vendor has not": (
        {"model": "claude-sonnet-4-5", "logprobs": True},
        "logprobs",
    ),
    "a form the vendor has not": (
        {"model": "claude-sonnet-4-5", "response_format": {"type": "json_object"}},
        "response_format",
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_a_field_that_cannot_be_is_named(running: Gateway, case: str, stream: bool) -> None:
    """400 in OpenAI's shape, before anything is sent to the provider."""
    body, param = REFUSED[case]
    before = len(running.provider.requests)
    streams = {"stream": True} if stream and "options of no" not in case else {}
    response = running.ask(**{**streams, **body})
    assert (response.status_code, len(running.provider.requests)) == (400, before)
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON in UTF-8"),
        (b"[]", "expected a JSON object"),
        (b'{"messages":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64"),
        (b"{}", "missing required field `model`"),
    ],
)
def test_bodies_that_are_none(running: Gateway, content: bytes, says: str) -> None:
    response = running.post(content=content)
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "tool_choice", "stop", "n", "stream", "metadata"]),
        json_values,
    )
)
def test_no_body_breaks_the_reader(fields: dict[str, Any]) -> None:
    """Any JSON is read, or refused by our own error."""
    body = {"model": "m", "messages": HI, **fields}
    with suppress(RequestError):
        read_body(json.dumps(body).encode()).conversation(reasoning=True)


def test_a_client_that_leaves_in_the_middle_of_its_request(running: Gateway) -> None:
    """It is nothing to the gateway, which goes on."""
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n{{".encode())
    assert running.ask().status_code == 200


def test_only_json_that_says_so(running: Gateway) -> None:
    """A form of another site could send the rest without being asked."""
    response = running.ask(headers={"content-type": "text/plain"})
    assert response.status_code == 415


OTHER = [("GET", "/v1/x", 404), ("PUT", "/v1/models", 405)]


@pytest.mark.parametrize(("method", "path", "status"), OTHER)
def test_other_paths(running: Gateway, method: str, path: str, status: int) -> None:
    response = httpx.request(method, running.url + path, trust_env=False)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


# ---- keys and hosts ------------------------------------------------------------------------------


def test_the_key() -> None:
    """Without it, or with another: 401, on every path."""
    with EmbeddedProvider() as provider:
        app = gateway(models(provider), key="sesame")
        with serving(app) as url:
            running = Gateway(url, provider)
            for headers in ({}, {"authorization": "Bearer sesam"}, {"authorization": "sesame2"}):
                response = running.ask(headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                error = response.json()["error"]
                assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
                assert "sesam" not in error["message"]
            assert httpx.get(url + "/v1/models", trust_env=False).status_code == 401
            assert running.ask(headers={"authorization": "Bearer sesame"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("[::1]:8000", 200),
        ("evil.test", 421),
        ("[", 421),
    ],
)
def test_the_name_under_which_it_is_asked(host: str, status: int) -> None:
    """A page of another site can lead its own name here, but not hide it."""
    with EmbeddedProvider() as provider:
        app = gateway(models(provider), hosts=["localhost", "::1"])
        with serving(app) as url:
            assert Gateway(url, provider).ask(headers={"host": host}).status_code == status


# ---- errors of the provider ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Failure("rate_limit", retry_after=3), 429, "rate_limit_exceeded"),
        (Failure("quota"), 429, "insufficient_quota"),
        (Failure("authentication"), 401, "invalid_api_key"),
        (Failure("context_overflow"), 400, "context_length_exceeded"),
        (Failure("overloaded"), 503, None),
        (Failure("server"), 500, None),
    ],
)
def test_the_provider_says_no(
    failure: Failure, status: int, code: str | None, stream: bool
) -> None:
    """Its status, code and words come through, and whether to ask again."""
    with (
        EmbeddedProvider([Answer(error=failure)]) as provider,
        serving(gateway(models(provider))) as url,
    ):
        response = Gateway(url, provider).ask(stream=stream)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    waits = "3" if failure.retry_after else None
    assert response.headers.get("retry-after") == waits
    worth = failure.kind in ("rate_limit", "overloaded", "server")
    assert response.headers.get("x-should-retry") == (None if worth else "false")


def test_the_provider_is_not_there() -> None:
    """502: it is no fault of the client's."""
    with EmbeddedProvider() as provider:
        app = gateway(models(provider))
    with serving(app) as url:
        response = Gateway(url, provider).ask()
    assert response.status_code == 502
    assert response.json()["error"]["type"] == "server_error"


def test_an_answer_that_breaks_is_an_error_in_the_stream() -> None:
    with gateway_over(Answer("So far", error="overloaded")) as running:
        response = running.ask(stream=True)
    assert response.status_code == 200
    *chunks, last = parts_of(response.text)
    assert "overloaded" in last["error"]["message"]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


# ---- the client leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_request(stream: bool) -> None:
    """Streamed or not, the connection to the provider is closed."""
    body = {"model": "openai:gpt-4.1", "messages": HI, "stream": stream}
    with gateway_over(LONG, first_delay=0 if stream else 60, chunk_delay=0.05) as running:
        with httpx.Client(trust_env=False, timeout=0.5) as client, suppress(httpx.ReadTimeout):
            where = f"{running.url}/v1/chat/completions"
            with client.stream("POST", where, json=body) as answer:
                assert "word" in next(text for text in answer.iter_text() if "word" in text)
        running.provider.wait_for(lambda: running.provider.abandoned == 1)
        running.provider.wait_closed()
