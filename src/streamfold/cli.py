"""The command line: `ask` streams one answer to the terminal, `demo` shows it all without a key,
`serve` puts OpenAI's API in front of any model, `profiles` says what models can do.

The async engine runs directly, so Ctrl-C cancels the request and closes its connection.
Exit codes: 0; 1 when the call failed; 2 for mistakes in the command or its settings; 130 after
Ctrl-C; 141 when the reader of a pipe has gone.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from itertools import groupby
from typing import Any, Final

import anyio
import msgspec

from . import __version__, demo, init_chat_model
from .chat_models import ChatModel
from .demo import STAGES
from .errors import ConfigurationError, StreamfoldError
from .profiles.command import add_commands
from .terminal import DIM, VISIBLE, AnswerWriter, Screen, Watch, closing

__all__ = ["main"]

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the program's arguments); returns the exit code."""
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what cannot show a letter shows "?"
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
            code = options.run(options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if sys.stderr.isatty():
            print(file=sys.stderr)  # the shell's prompt goes below the "^C"
        return INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer would break the interpreter's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except StreamfoldError as error:
        _complain(f"{type(error).__name__}: {error}")
        return 2 if isinstance(error, ConfigurationError) else 1
    return code or 0


def _complain(text: str) -> None:
    """One line to stderr, whatever is in it."""
    print(f"streamfold: {' '.join(text.split()).translate(VISIBLE)}", file=sys.stderr)


# ---- what may be said ----------------------------------------------------------------------------

_ASK_HELP: Final = """\
examples:
  streamfold ask "Why do parrots talk?" -m openai:gpt-4.1
  streamfold ask "Write a commit message for this." - < changes.diff
  echo "Why do parrots talk?" | streamfold ask -m anthropic:claude-sonnet-4-5 > answer.txt
  streamfold ask "Hello" -m openai:qwen3 --base-url http://localhost:8000/v1
  streamfold ask "Hello" --json | jq -r 'select(.type == "text-delta").text'

On a terminal you see reasoning (dimmed), the answer, tool calls and, in the last line, usage and
times. A pipe or file gets the answer and tool calls as plain text; the last line goes to stderr.

environment:
  STREAMFOLD_MODEL     the model where -m is not given
  STREAMFOLD_BASE_URL  its address, if it is not the provider's own
  OPENAI_API_KEY, ANTHROPIC_API_KEY, ...   the provider's key
  NO_COLOR             set to anything: no colour
"""

_SERVE_HELP: Final = """\
examples:
  streamfold serve -m anthropic:claude-sonnet-4-5
  streamfold serve -m openai:gpt-4.1 -m ollama:llama3.2 --port 9000
  OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=any my-openai-program

environment:
  STREAMFOLD_MODEL      the model where -m is not given
  STREAMFOLD_BASE_URL   its address, if it is not the provider's own
  STREAMFOLD_SERVE_KEY  the key that clients must send, where --key is not given: other users of
                        this machine cannot see it; a must where --host is not this machine
  OPENAI_API_KEY, ANTHROPIC_API_KEY, ...   the providers' keys
"""

_DEMO_HELP: Final = """\
examples:
  streamfold demo
  streamfold demo --provider anthropic
"""

_MAIN_HELP: Final = """\
examples:
  streamfold demo                                         see it work: no key, no network
  streamfold ask "Why do parrots talk?" -m openai:gpt-4.1
  streamfold serve -m anthropic:claude-sonnet-4-5         offer it by OpenAI's API
"""


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _command(argparse.ArgumentParser, _MAIN_HELP)
    parser.prog = "streamfold"
    parser.description = "Stream answers of language models."
    parser.add_argument("--version", action="version", version=f"streamfold {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    ask = _command(commands.add_parser, _ASK_HELP, "ask", help="stream one answer")
    ask.description = "Stream a model's answer to the terminal."
    ask.set_defaults(run=_ask)
    ask.add_argument("prompt", nargs="*", help="what to ask; '-' (or nothing) reads it from stdin")
    ask.add_argument("-m", "--model", metavar="MODEL", help="such as openai:gpt-4.1")
    ask.add_argument("-s", "--system", metavar="TEXT", help="instructions for the model")
    ask.add_argument("--json", action="store_true", help="print each typed event as a JSON line")
    ask.add_argument("--base-url", metavar="URL", help="where the API is")
    ask.add_argument("--max-tokens", type=int, metavar="N", help="the most that is answered")
    ask.add_argument("--temperature", type=float, metavar="T", help="0 is steady, 2 is wild")
    ask.add_argument("--reasoning-effort", metavar="E", help="such as low, medium or high")

    shown = _command(commands.add_parser, _DEMO_HELP, "demo", help="see it work without a key")
    shown.description = (
        "Stream one answer from an embedded provider on this machine, through the same client "
        "and over HTTP; then show the stream as typed events and as a fold."
    )
    shown.set_defaults(run=_demo)
    shown.add_argument("--provider", choices=list(STAGES), default="openai", help="whose API")

    serve = _command(commands.add_parser, _SERVE_HELP, "serve", help="offer models by OpenAI's API")
    serve.description = (
        "Serve /v1/chat/completions and /v1/models over any models, for programs that speak "
        "OpenAI's API. Needs pip install 'streamfold[web]'."
    )
    serve.set_defaults(run=_serve)
    serve.add_argument(
        *("-m", "--model"), action="append", metavar="MODEL", help="may be given more than once"
    )
    serve.add_argument("--base-url", metavar="URL", help="where the models' API is")
    serve.add_argument("--key", metavar="K", help="the key that clients must send; see below")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="default: 127.0.0.1")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any")

    add_commands(commands)
    return parser


def _command(make: Callable[..., Any], epilog: str, *args: Any, **kwargs: Any) -> Any:
    return make(
        *args,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )


# ---- ask -----------------------------------------------------------------------------------------


def _ask(options: argparse.Namespace) -> None:
    model = _model(options)
    prompt = _prompt(options.prompt)
    said = [("system", options.system)] if options.system else []
    show = _show_json if options.json else _show_answer
    anyio.run(show, model, [*said, ("user", prompt)])


def _named(name: str | None, base_url: str | None) -> tuple[str, str | None]:
    """The model that was named, else the environment's, and its address."""
    if not name:
        name = os.environ.get("STREAMFOLD_MODEL")
        base_url = base_url or os.environ.get("STREAMFOLD_BASE_URL") or None
    if not name:
        raise ConfigurationError(
            "no model: give -m PROVIDER:MODEL or set STREAMFOLD_MODEL, for example to "
            "openai:gpt-4.1 (to look around without a key: streamfold demo)"
        )
    return name, base_url


def _model(options: argparse.Namespace) -> ChatModel:
    name, base_url = _named(options.model, options.base_url)
    model: ChatModel = init_chat_model(
        name,
        base_url=base_url,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        reasoning_effort=options.reasoning_effort,
    )
    return model


def _prompt(words: list[str]) -> str:
    """The prompt: the words, with stdin in the place of '-' or of no words at all."""
    if not words and sys.stdin.isatty():
        raise ConfigurationError('no prompt: write streamfold ask "Your question", or pipe it in')
    parts = [" ".join(group) for _, group in groupby(words, key="-".__eq__)]
    prompt = "\n\n".join(_stdin() if part == "-" else part for part in parts or ["-"])
    if not prompt.strip():
        raise ConfigurationError("the prompt is empty")
    return prompt


def _stdin() -> str:
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"stdin is not text in {error.encoding}: {error}") from None


async def _show_json(model: ChatModel, messages: list[tuple[str, str]]) -> None:
    out = sys.stdout.buffer
    async with model, model.astream_message(messages) as stream:
        async for event in stream:
            out.write(msgspec.json.encode(event) + b"\n")
            out.flush()


async def _show_answer(model: ChatModel, messages: list[tuple[str, str]]) -> None:
    screen = Screen(sys.stdout)
    writer, watch = AnswerWriter(screen), Watch()
    async with model, model.astream_message(messages) as stream:
        try:
            async for event in stream:
                watch.see(event)
                writer.take(event)
        finally:
            writer.close()
        message = await stream.message()
    last = screen if screen.terminal else Screen(sys.stderr)
    if screen.terminal:
        screen.line()
    last.line(" · ".join(closing(message, watch)), DIM)


# ---- serve ---------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> None:
    from .integrations.web import serve

    named = [_named(name, options.base_url) for name in options.model or [None]]
    models = {name: init_chat_model(name, base_url=base_url) for name, base_url in named}
    key = options.key or os.environ.get("STREAMFOLD_SERVE_KEY")
    serve(models, host=options.host, port=options.port, key=key)


# ---- demo ----------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> None:
    demo.show(Screen(sys.stdout), options.provider)
