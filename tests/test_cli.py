"""The command line, against the embedded provider: what is seen, where it goes, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from streamfold import AIMessageChunk, __version__
from streamfold.cli import main
from streamfold.deltas import ChunkEvent
from streamfold.testing import Answer, Call, EmbeddedProvider

ESCAPE = "\x1b"
LONG = " ".join(["word"] * 400)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, and nothing of what the developer's shell says."""
    monkeypatch.delenv("STREAMFOLD_MODEL", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")


Serve = Callable[..., EmbeddedProvider]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start an embedded provider with a script; the environment leads to it."""
    running: list[EmbeddedProvider] = []

    def start(*script: Answer | str, **options: float) -> EmbeddedProvider:
        provider = EmbeddedProvider(script, **options)
        provider.start()
        running.append(provider)
        monkeypatch.setenv("STREAMFOLD_MODEL", "openai:gpt-4.1")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url + "/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.url)
        return provider

    yield start
    for provider in running:
        provider.stop()


def _stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def _last_request(provider: EmbeddedProvider) -> dict[str, object]:
    body: dict[str, object] = provider.requests[-1].json()
    return body


# ---- ask, read by a program ----------------------------------------------------------------------


def test_a_pipe_gets_the_answer_and_nothing_else(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reasoning, usage and colour do not reach a pipe; the usage line goes to stderr."""
    serve(Answer("They learn\nfrom us.", "hmm"))
    assert main(["ask", "Why do parrots talk?"]) == 0
    out, err = capsys.readouterr()
    assert out == "They learn\nfrom us.\n"
    assert err.startswith("gpt-4.1")
    assert "tokens in" in err
    assert "first token after" in err
    assert err.count("\n") == 1
    assert ESCAPE not in out + err


def test_tool_calls_are_shown(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Each call has a line of its own, after the text."""
    calls = [Call("look", {"at": "sky"}), Call("look", {"at": "sea"})]
    serve(Answer("Looking.", tool_calls=calls))
    assert main(["ask", "Look!"]) == 0
    assert capsys.readouterr().out == ('Looking.\n\n→ look({"at": "sky"})\n→ look({"at": "sea"})\n')


def test_json_lines_are_the_typed_events(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line decodes to an event, and together they fold to the message."""
    serve(Answer("Hello there.", "hmm", [Call("look", {"at": "sky"})]))
    assert main(["ask", "Hi", "--json"]) == 0
    out, err = capsys.readouterr()
    events = [msgspec.json.decode(line, type=ChunkEvent) for line in out.splitlines()]
    full = AIMessageChunk(events=events)
    assert (full.text, full.reasoning) == ("Hello there.", "hmm")
    assert full.tool_calls[0]["args"] == {"at": "sky"}
    assert full.finish_reason == "tool_calls"
    assert full.usage_metadata
    assert err == ""


def test_options_reach_the_request(serve: Serve) -> None:
    """Every option says what it says to the provider."""
    provider = serve()
    options = ["--system", "Be brief.", "--max-tokens", "9", "--temperature", "0.5"]
    assert main(["ask", "Hi", *options, "--reasoning-effort", "low"]) == 0
    body = _last_request(provider)
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]
    assert (body["max_completion_tokens"], body["temperature"]) == (9, 0.5)
    assert body["reasoning_effort"] == "low"


def test_model_and_address_by_option(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """-m and --base-url win over the environment."""
    provider = serve("Bonjour.")
    arguments = ["-m", "anthropic:claude-sonnet-4-5", "--base-url", provider.url]
    assert main(["ask", "Hi", *arguments]) == 0
    assert provider.requests[-1].path == "/v1/messages"
    assert capsys.readouterr().out == "Bonjour.\n"


def test_address_from_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """STREAMFOLD_BASE_URL belongs to STREAMFOLD_MODEL."""
    provider = serve()
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("STREAMFOLD_BASE_URL", provider.url + "/v1")
    assert main(["ask", "Hi"]) == 0
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ([], "piped in"),
        (["-"], "piped in"),
        (["Sum", "up", "this."], "Sum up this."),
        (["Sum", "up:", "-"], "Sum up:\n\npiped in"),
        (["-", "That is all."], "piped in\n\nThat is all."),
    ],
)
def test_the_prompt_is_words_and_stdin(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, words: list[str], prompt: str
) -> None:
    """A dash, or no words at all, stands for what is piped in."""
    provider = serve()
    _stdin(monkeypatch, "piped in\n")
    assert main(["ask", *words]) == 0
    assert _last_request(provider)["messages"] == [{"role": "user", "content": prompt}]


# ---- ask, when it goes wrong ---------------------------------------------------------------------


def _fails(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that ends with `code`."""
    assert main(arguments) == code
    err = capsys.readouterr().err
    assert err.startswith("streamfold: ")
    assert err.count("\n") == 1
    return err


def test_a_terminal_without_words_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody would see that a prompt is expected."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    text = _fails(["ask", "--model", "gpt-4.1"], 2, capsys)
    assert "no prompt" in text


def test_what_is_piped_in_must_be_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"caf\xe9"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    text = _fails(["ask", "--model", "gpt-4.1"], 2, capsys)
    assert "stdin is not text in utf-8" in text


def test_no_model_says_what_to_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model the message names the option, the variable and the demo."""
    line = _fails(["ask", "Hi"], 2, capsys)
    assert "-m" in line
    assert "STREAMFOLD_MODEL" in line
    assert "streamfold demo" in line


def test_no_key_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing key is a matter of settings."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "OPENAI_API_KEY" in _fails(["ask", "Hi", "-m", "gpt-4.1"], 2, capsys)


@pytest.mark.parametrize(
    "arguments",
    [["-m", "nobody:nothing"], ["-m", "gpt-4.1", "--temperature", "7"], ["-m", "gpt-4.1", ""]],
)
def test_settings_that_cannot_be_right(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are exit code 2, and nothing is sent."""
    words = [] if arguments[-1] == "" else ["Hi"]
    _fails(["ask", *words, *arguments], 2, capsys)


def test_a_provider_error_is_one_line(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Its class and the vendor's words, without a traceback."""
    serve(Answer(error="authentication"))
    assert "AuthenticationError" in _fails(["ask", "Hi"], 1, capsys)


def test_an_error_after_content_keeps_the_content(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """What had arrived stays on stdout, with its line ended."""
    serve(Answer("So far so", error="overloaded"))
    assert main(["ask", "Hi"]) == 1
    out, err = capsys.readouterr()
    assert out == "So far so\n"
    assert "overloaded" in err


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Library warnings come out as a line, without a piece of source code."""
    address = serve().url.replace("127.0.0.1", "0.0.0.0") + "/v1"
    assert main(["ask", "Hi", "--base-url", address]) == 0
    warning, _usage = capsys.readouterr().err.splitlines()
    assert warning.startswith("streamfold: warning: base_url is plain http")


# ---- as a process --------------------------------------------------------------------------------

COMMAND = [sys.executable, "-W", "error", "-m", "streamfold"]


def test_ctrl_c_stops_the_request(serve: Serve) -> None:
    """SIGINT ends the program with 130, and the provider sees the connection close."""
    provider = serve(LONG, chunk_delay=0.05)
    process = subprocess.Popen(
        [*COMMAND, "ask", "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(4) == "word"
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        assert process.wait(10) == 130
        assert time.monotonic() - sent < 5
        assert process.stderr.read() == ""
    provider.wait_closed()
    assert provider.abandoned == 1


def test_a_reader_that_leaves_stops_the_request(serve: Serve) -> None:
    """`streamfold ask ... | head -c 4` ends quietly, and so does the request."""
    provider = serve(LONG, chunk_delay=0.01)
    process = subprocess.Popen(
        [*COMMAND, "ask", "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4)
        process.stdout.close()
        assert process.wait(10) == 141
        assert process.stderr.read() == ""
    provider.wait_closed()
    assert provider.abandoned == 1


def _on_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal of 80 columns is sent."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
    )
    os.close(theirs)
    seen = bytearray()
    while data := _read(ours):
        seen += data
    os.close(ours)
    assert process.wait(10) == 0
    return seen.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""


def test_a_terminal_shows_everything(serve: Serve) -> None:
    """Reasoning is dimmed, tool calls are shown, and the last line has usage and times."""
    serve(Answer("Looking.", "hmm", [Call("look", {"at": "sky"})]))
    lines = _on_terminal("ask", "Hi").splitlines()
    assert lines[0] == "\x1b[2mhmm\x1b[0m"
    assert lines[2] == "Looking."
    assert "look(" in lines[4]
    assert lines[4].endswith("\x1b[36m)\x1b[0m")
    assert "tokens in" in lines[-1]
    assert "first token after" in lines[-1]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(serve: Serve, environment: dict[str, str]) -> None:
    """Without colour reasoning is told by a word."""
    serve(Answer("Looking.", "hmm"))
    seen = _on_terminal("ask", "Hi", **environment)
    assert ESCAPE not in seen
    assert seen.startswith("[thinking] hmm\n\nLooking.\n\n")


def test_a_model_cannot_control_the_terminal(serve: Serve) -> None:
    """Control characters of an answer are shown as pictures."""
    serve(Answer("a\x1b]0;title\x07b\x9bc\tд"))
    assert "a␛]0;title␇b\ufffdc" in _on_terminal("ask", "Hi")


def test_version_and_help() -> None:
    """`python -m streamfold` has both, and help shows examples."""
    run = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"streamfold {__version__}\n"
    for arguments in (["--help"], ["ask", "--help"], ["demo", "--help"]):
        run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
        assert "examples:\n  streamfold " in run.stdout


# ---- demo ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_demo(provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The demo streams, shows events and fold, and ends with a message equal to `ainvoke`'s."""
    assert main(["demo", "--provider", provider]) == 0
    out, err = capsys.readouterr()
    assert '→ get_weather({"city": "Lisbon", "days": 1})' in out
    for event in ("message-start", "reasoning-delta", "text-delta", "tool-call-delta", "usage"):
        assert f" {event} " in out
    assert "get_weather(city='Lisbon', days=1)" in out
    assert "gives an equal message" in out
    assert "tokens in" in out
    assert ESCAPE not in out
    assert max(map(len, out.splitlines())) <= 100
    assert err == ""


def test_demo_on_a_terminal() -> None:
    """It fits the terminal it is shown on."""
    seen = _on_terminal("demo", NO_COLOR="1")
    assert "The same stream as a fold" in seen
    assert max(map(len, seen.splitlines())) <= 80
