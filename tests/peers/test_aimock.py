"""An independent mock server, npm's @copilotkit/aimock, driven in every dialect that it speaks.

Skipped where npm is absent or cannot install it. What it does unlike the vendors is listed in
`DEVIATIONS`, with the reason.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from streamfold import init_chat_model
from streamfold.errors import ProviderError, RateLimitError, StreamfoldError
from streamfold.messages import AIMessageChunk

VERSION = "1.43.0"
HOME = Path(__file__).parent / "node"

GREETING = "Hello! Zürich 🌍 awaits."

FIXTURES: dict[str, Any] = {
    "fixtures": [
        {"match": {"userMessage": "say hello"}, "response": {"content": GREETING}},
        {
            "match": {"userMessage": "call the tool"},
            "response": {
                "toolCalls": [
                    {"name": "get_weather", "arguments": {"city": "Zürich", "days": 3}},
                    {"name": "get_time", "arguments": {"tz": "UTC"}},
                ]
            },
        },
        {
            "match": {"userMessage": "too many"},
            "response": {
                "error": {"message": "Rate limit reached", "type": "rate_limit_error"},
                "status": 429,
            },
        },
        {
            "match": {"userMessage": "cut it"},
            "response": {"content": "word " * 200},
            "disconnectAfterMs": 200,
            "latency": 10,
            "chunkSize": 5,
        },
    ]
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("get_weather", "get_time")
]


class Way(NamedTuple):
    """How a dialect reaches the server: the model, the path of the base URL, and parameters."""

    model: str
    path: str
    params: Mapping[str, Any] = MappingProxyType({})


WAYS = {
    "openai_chat": Way("openai:gpt-4.1", "/v1"),
    "openai_responses": Way("openai:gpt-4.1", "/v1", {"use_responses_api": True}),
    "anthropic": Way("anthropic:claude-sonnet-4-5", ""),
    "gemini": Way("google_genai:gemini-2.5-flash", "/v1beta"),
    "bedrock": Way("bedrock_converse:anthropic.claude-3-5-sonnet-20240620-v1:0", ""),
    "ollama": Way("ollama:llama3.2", ""),
    "cohere": Way("cohere:command-r", ""),
}

#: What it does unlike the vendors: (dialect, what) -> why the test looks away.
DEVIATIONS: dict[tuple[str, str], str] = {
    ("gemini", "finish"): "it ends tool calls with FUNCTION_CALL; Gemini has no such word and says "
    "STOP (FinishReason in the API reference), which we report as tool_calls",
}


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The server on a free port, installed next to this file when it is first needed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    binary = HOME / "node_modules" / ".bin" / "llmock"
    if not binary.exists():
        HOME.mkdir(exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(HOME)]
        done = subprocess.run(
            [*command, f"@copilotkit/aimock@{VERSION}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"npm could not install aimock: {done.stderr[-200:]}")
    fixtures = HOME / "fixtures.json"
    fixtures.write_text(json.dumps(FIXTURES), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(binary), "-p", str(port), "-f", str(fixtures), "--log-level", "silent"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(url, timeout=1)
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    pytest.skip("aimock did not start")


@pytest.fixture(params=WAYS)
def model(request: pytest.FixtureRequest, server: str) -> Iterator[Any]:
    """A model of each dialect that asks the server; nothing is retried."""
    way = WAYS[request.param]
    made = init_chat_model(
        way.model, base_url=server + way.path, api_key="test-key", max_retries=0, **way.params
    )
    yield made
    made.close()


def _deviates(request: pytest.FixtureRequest, what: str) -> bool:
    return (request.node.callspec.params["model"], what) in DEVIATIONS


def test_text_whole(model: Any) -> None:
    """The answer of `invoke` is the text, and it is finished."""
    message = model.invoke("say hello")
    assert message.text == GREETING
    assert message.finish_reason == "stop"


def test_text_streamed(model: Any) -> None:
    """The stream comes in several chunks that fold to the same text."""
    chunks = list(model.stream("say hello"))
    full = sum(chunks, AIMessageChunk())
    assert full.text == GREETING
    assert full.finish_reason == "stop"
    assert len([chunk for chunk in chunks if chunk.text]) > 1


def test_tools(request: pytest.FixtureRequest, model: Any) -> None:
    """Parallel tool calls come apart, whole and streamed, each with an id."""
    bound = model.bind_tools(TOOLS)
    whole = bound.invoke("call the tool")
    streamed = sum(bound.stream("call the tool"), AIMessageChunk()).to_message()
    for message in (whole, streamed):
        calls = [(call["name"], call["args"]) for call in message.tool_calls]
        weather = ("get_weather", {"city": "Zürich", "days": 3})
        assert calls == [weather, ("get_time", {"tz": "UTC"})]
        if not _deviates(request, "finish"):
            assert message.finish_reason == "tool_calls"
        ids = [call["id"] for call in message.tool_calls]
        assert all(ids)
        assert len(set(ids)) == 2


def test_rate_limit(model: Any) -> None:
    """A 429 is a RateLimitError with the server's message, streamed or not."""
    with pytest.raises(RateLimitError, match="Rate limit reached") as whole:
        model.invoke("too many")
    with pytest.raises(RateLimitError) as streamed:
        list(model.stream("too many"))
    assert isinstance(whole.value, ProviderError)
    assert streamed.value.status == 429


def test_cut_stream(model: Any) -> None:
    """A stream that the server cuts is an error that has what had arrived, never a short answer."""
    texts: list[str] = []

    def read() -> None:
        for chunk in model.stream("cut it"):
            texts.append(chunk.text)

    with pytest.raises(StreamfoldError) as caught:
        read()
    assert texts
    assert caught.value.partial is not None
    assert caught.value.partial.text == "".join(texts)
