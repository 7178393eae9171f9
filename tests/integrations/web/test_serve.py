"""`streamfold serve`: a gateway in a process of its own, and what it refuses to start with."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from streamfold.cli import main
from streamfold.errors import ConfigurationError
from streamfold.integrations.web import serve
from streamfold.testing import EmbeddedProvider

HI = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Hi"}]}


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[str, Any]]:
    """The command, once it serves: its address and its process."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "streamfold", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[^ ]+", process.stdout.readline())
        assert found is not None, process.communicate(timeout=10)
        yield found.group(), process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_it_serves_until_it_is_interrupted() -> None:
    """It says where it is; Ctrl-C ends it, and a stream under way with it, at once and quietly."""
    long = " ".join(["word"] * 4000)
    with (
        EmbeddedProvider(["Hello.", long], chunk_delay=0.02) as provider,
        running(
            *("-m", "openai:gpt-4.1", "--base-url", provider.url + "/v1"),
            OPENAI_API_KEY="any",
            STREAMFOLD_SERVE_KEY="sesame",
        ) as (url, process),
    ):
        headers = {"authorization": "Bearer sesame"}
        assert url.startswith("http://127.0.0.1:")
        with httpx.Client(trust_env=False, headers=headers, base_url=url) as client:
            assert client.get("/models").json()["data"][0]["id"] == "openai:gpt-4.1"
            said = client.post("/chat/completions", json=HI).json()
            assert said["choices"][0]["message"]["content"] == "Hello."
            where = {"host": "evil.test"}
            assert client.get("/models", headers=where).status_code == 421
            assert httpx.get(url + "/models", trust_env=False).status_code == 401
            with client.stream("POST", "/chat/completions", json={**HI, "stream": True}) as answer:
                next(answer.iter_text())
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=20)
        provider.wait_closed()
        assert provider.abandoned == 1
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_the_model_of_the_environment() -> None:
    with (
        EmbeddedProvider(["Hello."]) as provider,
        running(
            STREAMFOLD_MODEL="openai:gpt-4.1",
            STREAMFOLD_BASE_URL=provider.url + "/v1",
            OPENAI_API_KEY="any",
        ) as (url, _),
    ):
        said = httpx.post(url + "/chat/completions", json=HI, trust_env=False).json()
    assert said["choices"][0]["message"]["content"] == "Hello."


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMFOLD_MODEL", raising=False)
    monkeypatch.delenv("STREAMFOLD_SERVE_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no model: give -m PROVIDER:MODEL"),
        (["-m", "nobody:x"], "nobody"),
        (["-m", "openai:gpt-4.1", "--host", "0.0.0.0"], "give a key that clients must send"),
        (["-m", "openai:gpt-4.1", "--port", "70000"], "port is 70000: expected"),
        (["-m", "openai:gpt-4.1", "--host", "no.such.host.test", "--key", "k"], "cannot listen"),
    ],
)
def test_what_it_does_not_start_with(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in the command is one line on stderr, and the exit code 2."""
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert (out, err.count("\n")) == ("", 1)


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "-m", "openai:gpt-4.1", "--port", port]) == 2
    assert f"cannot listen on 127.0.0.1, port {port}" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_what_is_not_installed_is_named(missing: str) -> None:
    """With the command that installs it."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from streamfold.cli import main; "
        "sys.exit(main(['serve', '-m', 'openai:gpt-4.1']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert f"needs {missing}: pip install 'streamfold[web]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_from_a_program() -> None:
    with pytest.raises(ConfigurationError, match="give a key"):
        serve(["openai:gpt-4.1"], host="0.0.0.0")
