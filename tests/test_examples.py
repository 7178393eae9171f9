"""The examples run: without a key, against a provider that is named, and without a warning."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nbclient
import nbformat
import pytest
import uvicorn

from streamfold.testing import Answer, EmbeddedProvider

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = ("async_stream.py", "fold.py", "batch.py")


def _environment(**settings: str) -> dict[str, str]:
    """Ours, with these settings and no other model."""
    kept = {name: value for name, value in os.environ.items() if name != "STREAMFOLD_MODEL"}
    return {**kept, **settings}


def _run(program: str, **settings: str) -> str:
    """What a program prints; it fails on any warning, and stderr stays empty."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / program)],
        capture_output=True,
        text=True,
        env=_environment(**settings),
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_every_program_is_here() -> None:
    """A new example cannot be forgotten."""
    found = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert found == {*PROGRAMS, "service.py", "web.py", "notebook.ipynb", "example_model.py"}


@pytest.mark.parametrize(
    ("program", "sign"),
    [
        ("async_stream.py", "... enough."),
        ("fold.py", "finish: stop"),
        ("batch.py", "failed: the role 'nobody'"),
    ],
)
def test_without_a_key(program: str, sign: str) -> None:
    """Where nothing is set, the embedded provider answers."""
    assert sign in _run(program)


@pytest.mark.parametrize("program", PROGRAMS)
def test_with_a_provider(program: str) -> None:
    """STREAMFOLD_MODEL and STREAMFOLD_BASE_URL choose another one."""
    with EmbeddedProvider() as provider:
        _run(
            program,
            STREAMFOLD_MODEL="anthropic:claude-sonnet-4-5",
            STREAMFOLD_BASE_URL=provider.url,
            ANTHROPIC_API_KEY="any",
        )
        assert {request.path for request in provider.requests} == {"/v1/messages"}
        provider.wait_closed()


def test_notebook() -> None:
    """Each cell runs in a kernel, where a loop is running already."""
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    where = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, timeout=60, resources=where).execute(env=_environment())
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    printed = "".join(output.get("text", "") for output in outputs)
    for word in ("parrots talk", "bright feathers", "planes fly", "dinosaur"):
        assert word in printed


# ---- the service ---------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """Tells when it listens, and where."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self.url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.ready.set()


@contextmanager
def _serving(monkeypatch: pytest.MonkeyPatch, provider: EmbeddedProvider) -> Iterator[str]:
    """The service behind a real server in a thread; gives its address."""
    monkeypatch.setenv("STREAMFOLD_MODEL", "openai:gpt-4.1")
    monkeypatch.setenv("STREAMFOLD_BASE_URL", provider.url + "/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "service", raising=False)
    app = importlib.import_module("service").app
    server = _Server(uvicorn.Config(app, port=0, ws="none", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.ready.wait(10)
        yield server.url
    finally:
        server.should_exit = True
        thread.join(10)
    assert not thread.is_alive()


def _said(body: str) -> str:
    """The text of server-sent events whose data is JSON."""
    lines = [line for line in body.splitlines() if line]
    return "".join(json.loads(line.removeprefix("data: ")) for line in lines)


def test_service_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there; an answer comes as events, and so does what went wrong with it."""
    script = [Answer("Hello\nthere."), Answer("So far", error="authentication")]
    with EmbeddedProvider(script) as provider, _serving(monkeypatch, provider) as url:
        assert "EventSource" in httpx.get(url, trust_env=False).text
        whole, broken = (
            httpx.get(f"{url}/answer?q=Hi", trust_env=False).raise_for_status() for _ in range(2)
        )
    assert whole.headers["content-type"].startswith("text/event-stream")
    assert _said(whole.text) == "Hello\nthere."
    assert _said(broken.text).startswith("So far [")


def test_a_browser_that_leaves_stops_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the client disconnects, the provider's stream is closed before its end."""
    script = [" ".join(["word"] * 400)]
    with (
        EmbeddedProvider(script, chunk_delay=0.02) as provider,
        _serving(monkeypatch, provider) as url,
    ):
        with httpx.stream("GET", f"{url}/answer?q=Hi", trust_env=False) as answer:
            assert "word" in next(answer.iter_text())
        provider.wait_for(lambda: provider.abandoned == 1)
