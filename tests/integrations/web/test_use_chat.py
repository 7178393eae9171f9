"""`useChat` of Vercel's AI SDK, from npm, against a service here: it checks every part it reads.

Skipped where npm is absent or cannot install it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from web_tools import serving

from streamfold import ChatModel, init_chat_model
from streamfold.integrations.web import (
    KeptStreams,
    StreamResponse,
    VercelVocabulary,
    messages_from_ui,
)
from streamfold.testing import Answer, EmbeddedProvider

VERSION = "6.0.326"
HERE = Path(__file__).parent
HOME = HERE.parents[1] / "peers" / "node" / "ai_sdk"
TOOL: Any = {
    "type": "function",
    "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}},
}
EVERYTHING = Answer("Let me see.", "Hmm.", [{"name": "look", "args": {"at": "sky"}, "id": "c1"}])


@pytest.fixture(scope="session")
def program() -> Path:
    """The script, next to the SDK, which is installed when it is first needed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    if not (HOME / "node_modules" / "ai").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(HOME)]
        done = subprocess.run(
            [*command, f"ai@{VERSION}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"npm could not install ai: {done.stderr[-200:]}")
    return Path(shutil.copy(HERE / "use_chat.mjs", HOME))


@contextmanager
def service(model: ChatModel, **options: Any) -> Iterator[str]:
    """The address of a chat, as the SDK's documentation has it."""
    kept = KeptStreams()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with kept, model:
            yield

    async def chat(request: Request) -> Any:
        body = await request.json()
        messages = messages_from_ui(body["messages"])
        words = VercelVocabulary(include_usage=True)
        if options.get("kept"):
            start = lambda: model.astream(messages)  # noqa: E731
            return kept.response(request, start, words, key=body["id"])
        return StreamResponse(model.astream(messages), words, heartbeat=0.05)

    async def again(request: Request) -> Any:
        return kept.resume(request.path_params["id"], "vercel")

    routes = [
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/chat/{id}/stream", again),
    ]
    with serving(Starlette(routes=routes, lifespan=lifespan)) as url:
        yield url + "/api/chat"


def talk(program: Path, url: str, *commands: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", str(program), url, *commands],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def model_of(provider: EmbeddedProvider, name: str = "openai:gpt-4.1", **more: Any) -> ChatModel:
    path = {"openai": "/v1", "google_genai": "/v1beta"}.get(name.partition(":")[0], "")
    more = {"base_url": provider.url + path, "api_key": "any", "max_retries": 0, **more}
    return init_chat_model(name, **more)


def test_a_conversation(program: Path) -> None:
    """Text with its usage; the second question is sent with the first answer."""
    with (
        EmbeddedProvider(["Hi you.", "Bye."], first_delay=0.2) as provider,
        service(model_of(provider)) as url,
    ):
        said = talk(program, url, "Hello", "See you")
        sent = provider.requests[-1].json()["messages"]
    assert (said["status"], said["error"]) == ("ready", None)
    assert [message["role"] for message in said["messages"]] == ["user", "assistant"] * 2
    assert said["messages"][1]["parts"] == [
        {"type": "step-start"},
        {"type": "text", "text": "Hi you.", "state": "done"},
    ]
    assert said["messages"][1]["metadata"]["usage"]["outputTokens"] > 0
    assert {each["finishReason"] for each in said["finished"]} == {"stop"}
    assert [(m["role"], m["content"]) for m in sent] == [
        ("user", "Hello"),
        ("assistant", "Hi you."),
        ("user", "See you"),
    ]


@pytest.mark.parametrize(
    "name", ["openai:gpt-4.1", "anthropic:claude-sonnet-4-5", "google_genai:gemini-3-pro-preview"]
)
def test_a_round_of_tools(program: Path, name: str) -> None:
    """Reasoning, a call, its result from the browser, and the answer. What only the provider can
    read has been there and back: Gemini refuses a call without its signature."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    more = {"thinking": thinking, "max_tokens": 4096} if "claude" in name else {}
    with EmbeddedProvider([EVERYTHING, "It is blue."]) as provider:
        model = model_of(provider, name, **more).bind_tools([TOOL])
        with service(model) as url:
            said = talk(program, url, "Look!", "continue")
        sent = json.dumps(provider.requests[-1].json())
    assert said["error"] is None
    _, answer = said["messages"]
    assert [part["type"] for part in answer["parts"]] == [
        *("step-start", "reasoning", "text", "tool-look"),
        *("step-start", "text"),
    ]
    call = answer["parts"][3]
    assert (call["input"], call["output"]) == ({"at": "sky"}, {"sky": "blue"})
    assert answer["parts"][-1]["text"] == "It is blue."
    assert "blue" in sent
    if "claude" in name:
        assert '"signature"' in sent


def test_errors(program: Path) -> None:
    """Before the stream and in it, `useChat` has the words."""
    script = [Answer(error="authentication"), Answer("So far", error="overloaded")]
    with EmbeddedProvider(script) as provider, service(model_of(provider)) as url:
        refused, broken = (talk(program, url, "Hello") for _ in range(2))
    assert (refused["status"], broken["status"]) == ("error", "error")
    assert "Incorrect API key" in refused["error"]
    assert "overloaded" in broken["error"]
    assert broken["messages"][1]["parts"][1]["text"] == "So far"


def test_stop(program: Path) -> None:
    """The button cancels the request to the provider; what was said stays."""
    long = " ".join(["word"] * 400)
    with (
        EmbeddedProvider([long], chunk_delay=0.02) as provider,
        service(model_of(provider)) as url,
    ):
        said = talk(program, url, "stop", "Hello")
        provider.wait_for(lambda: provider.abandoned == 1)
        provider.wait_closed()
    assert said["finished"][0]["isAbort"] is True
    assert said["messages"][1]["parts"][1]["text"].startswith("word")


def test_resume(program: Path) -> None:
    """A page that is loaded anew goes on with the answer that is under way, from its beginning."""
    long = " ".join(["word"] * 60)
    with (
        EmbeddedProvider([long], chunk_delay=0.02) as provider,
        service(model_of(provider), kept=True) as url,
    ):
        assert talk(program, url, "resume")["messages"] == []
        talk(program, url, "stop", "Hello")
        said = talk(program, url, "resume")
        assert len(provider.requests) == 1
    assert said["messages"][-1]["parts"][-1]["text"] == long
