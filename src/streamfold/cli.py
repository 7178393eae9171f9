"""The command line: `ask` streams one answer to the terminal, `demo` shows it all without a key.

Both run the async engine directly, so Ctrl-C cancels the request and closes its connection.
Exit codes: 0; 1 when the call failed; 2 for mistakes in the command or its settings; 130 after
Ctrl-C; 141 when the reader of a pipe has gone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from itertools import groupby
from typing import Any, Final, NamedTuple, TextIO

import anyio
import msgspec

from . import __version__, init_chat_model
from .chat_models import ChatModel
from .chunks import AIMessageChunk
from .deltas import (
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from .errors import ConfigurationError, StreamfoldError
from .messages import AIMessage

__all__ = ["main"]

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE

BOLD, DIM, CYAN, GREEN = "1", "2", "36", "32"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the program's arguments); returns the exit code."""
    options = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what cannot show a letter shows "?"
            stream.reconfigure(errors="replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _complain(f"warning: {message}")
            options.run(options)
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
    return 0


def _complain(text: str) -> None:
    """One line to stderr, whatever is in it."""
    print(f"streamfold: {' '.join(text.split()).translate(_VISIBLE)}", file=sys.stderr)


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

_DEMO_HELP: Final = """\
examples:
  streamfold demo
  streamfold demo --provider anthropic
"""

_MAIN_HELP: Final = """\
examples:
  streamfold demo                                         see it work: no key, no network
  streamfold ask "Why do parrots talk?" -m openai:gpt-4.1
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

    demo = _command(commands.add_parser, _DEMO_HELP, "demo", help="see it work without a key")
    demo.description = (
        "Stream one answer from an embedded provider on this machine, through the same client "
        "and over HTTP; then show the stream as typed events and as a fold."
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--provider", choices=list(_STAGES), default="openai", help="whose API")
    return parser


def _command(make: Callable[..., Any], epilog: str, *args: Any, **kwargs: Any) -> Any:
    return make(
        *args,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **kwargs,
    )


# ---- where it is written -------------------------------------------------------------------------

# Control characters as pictures: what a model says must not move the cursor or retitle the window.
_VISIBLE: Final[dict[int, int | None]] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD),
    ord("\r"): None,
}


class _Screen:
    """Text out: with colour and safe to look at on a terminal, as it is elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self.terminal = out.isatty()
        self.colour = self.terminal and _colour_wanted()
        self._out = out
        self._line_start = True

    def write(self, text: str, style: str = "") -> None:
        """Write at once; `style` is an ANSI number, used only where there is colour."""
        if not text:
            return
        self._line_start = text.endswith("\n")
        if self.terminal:
            text = text.translate(_VISIBLE)
        self._out.write(f"\x1b[{style}m{text}\x1b[0m" if style and self.colour else text)
        self._out.flush()

    def line(self, text: str = "", style: str = "") -> None:
        self.write(text, style)
        self.write("\n")

    def new_line(self) -> None:
        """Go to the start of a line, unless we are there."""
        if not self._line_start:
            self.write("\n")

    @property
    def width(self) -> int:
        return min(shutil.get_terminal_size((88, 24)).columns, 100)


def _colour_wanted() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _AnswerWriter:
    """Shows typed events as an answer that grows: reasoning, text and tool calls in sections."""

    def __init__(self, screen: _Screen, indent: str = "") -> None:
        self._screen = screen
        self._indent = indent
        self._section: tuple[str, int | None] = ("", None)

    def take(self, event: ChunkEvent) -> None:
        match event:
            case TextDelta(text):
                self._say("text", None, text)
            case ReasoningDelta(text) if self._screen.terminal:
                self._say("reasoning", None, text, DIM)
            case BlockStart(kind, index, name=name) if kind in ("tool_call", "server_tool_call"):
                self._say(kind, index, f"→ {name or '?'}(", CYAN)
            case ToolCallDelta(args, index, kind=kind):
                self._say(kind, index, args, CYAN)

    def close(self) -> None:
        """End the last section and its line."""
        self._enter("", None)

    def _say(self, kind: str, index: int | None, text: str, style: str = "") -> None:
        if not text:
            return
        if (kind, index) != self._section:
            self._enter(kind, index)
        self._screen.write(text.replace("\n", "\n" + self._indent), style)

    def _enter(self, kind: str, index: int | None) -> None:
        before, self._section = self._section[0], (kind, index)
        if before.endswith("tool_call"):
            self._screen.write(")", CYAN)
        self._screen.new_line()
        if kind and before and not (kind == before and kind.endswith("tool_call")):
            self._screen.line()
        if kind:
            self._screen.write(self._indent)
        if kind == "reasoning" and not self._screen.colour:
            self._screen.write("[thinking] ")


# ---- ask -----------------------------------------------------------------------------------------


def _ask(options: argparse.Namespace) -> None:
    model = _model(options)
    prompt = _prompt(options.prompt)
    said = [("system", options.system)] if options.system else []
    show = _show_json if options.json else _show_answer
    anyio.run(show, model, [*said, ("user", prompt)])


def _model(options: argparse.Namespace) -> ChatModel:
    name, base_url = options.model, options.base_url
    if not name:
        name = os.environ.get("STREAMFOLD_MODEL")
        base_url = base_url or os.environ.get("STREAMFOLD_BASE_URL") or None
    if not name:
        raise ConfigurationError(
            "no model: give -m PROVIDER:MODEL or set STREAMFOLD_MODEL, for example to "
            "openai:gpt-4.1 (to look around without a key: streamfold demo)"
        )
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
    screen = _Screen(sys.stdout)
    writer, watch = _AnswerWriter(screen), _Watch()
    async with model, model.astream_message(messages) as stream:
        try:
            async for event in stream:
                watch.see(event)
                writer.take(event)
        finally:
            writer.close()
        message = await stream.message()
    last = screen if screen.terminal else _Screen(sys.stderr)
    if screen.terminal:
        screen.line()
    last.line(" · ".join(_closing(message, watch)), DIM)


class _Watch:
    """Seconds since it was made, and until the first content."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.first: float | None = None

    @property
    def now(self) -> float:
        return time.perf_counter() - self._start

    def see(self, event: ChunkEvent) -> None:
        if self.first is None and isinstance(event, _CONTENT):
            self.first = self.now


_CONTENT: Final = (TextDelta, ReasoningDelta, ToolCallDelta, DataDelta, BlockStart)


def _closing(message: AIMessage, watch: _Watch) -> Iterator[str]:
    """The parts of the last line: who answered, at what cost, how fast."""
    if message.finish_reason not in ("stop", "tool_calls", None):
        yield f"ended by {message.finish_reason}"
    if name := message.response_metadata.get("model_name"):
        yield str(name)
    yield _usage(message.usage_metadata or {})
    if watch.first is not None:
        yield f"first token after {_seconds(watch.first)}"
    yield f"{_seconds(watch.now)} in all"


def _usage(usage: Any) -> str:
    if not usage:
        return "no usage reported"
    cached = usage.get("input_token_details", {}).get("cache_read")
    reasoning = usage.get("output_token_details", {}).get("reasoning")
    into = f"{usage['input_tokens']} tokens in" + (f" ({cached} cached)" if cached else "")
    out = f"{usage['output_tokens']} out" + (f" ({reasoning} reasoning)" if reasoning else "")
    return f"{into}, {out}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


# ---- demo ----------------------------------------------------------------------------------------


class _Stage(NamedTuple):
    """A provider of the demo: its model and where its API is on the embedded server."""

    model: str
    path: str
    api: str


_STAGES: Final = {
    "openai": _Stage("openai:gpt-4.1", "/v1", "OpenAI Chat Completions"),
    "anthropic": _Stage("anthropic:claude-sonnet-4-5", "", "Anthropic Messages"),
}

_QUESTION: Final = "Do I need a coat in Lisbon?"
_REASONING: Final = "That depends on the weather. I cannot see it, but a tool can."
_TEXT: Final = "Let me look at the weather there before I send you out in a coat."
_PER_SECOND: Final = 40  # events, for eyes to follow


def _demo(options: argparse.Namespace) -> None:
    anyio.run(_show_demo, _Screen(sys.stdout), _STAGES[options.provider])


async def _show_demo(screen: _Screen, stage: _Stage) -> None:
    from .testing import Answer, Call, EmbeddedProvider

    answer = Answer(_TEXT, _REASONING, [Call("get_weather", {"city": "Lisbon", "days": 1})])
    delay = 1 / _PER_SECOND if screen.terminal else 0.0
    async with EmbeddedProvider([answer, answer], chunk_delay=delay) as provider:
        model = init_chat_model(stage.model, base_url=provider.url + stage.path, api_key="none")
        async with model:
            _show_opening(screen, stage, provider.url)
            chunks, watch = await _stream_once(screen, model)
            invoked = await model.ainvoke(_QUESTION)
    _show_events(screen, chunks)
    full = _show_fold(screen, [chunk for _, chunk in chunks])
    _show_message(screen, full, watch, invoked)


def _show_opening(screen: _Screen, stage: _Stage, url: str) -> None:
    screen.line(f"streamfold {__version__}", BOLD)
    screen.line(f"Embedded provider: {stage.api} on {url}", DIM)
    screen.line("No key, no network: the client is the real one, the answer is made up.", DIM)
    _heading(screen, "The stream", f'async for chunk in model.astream("{_QUESTION}")')


async def _stream_once(
    screen: _Screen, model: ChatModel
) -> tuple[list[tuple[float, AIMessageChunk]], _Watch]:
    writer, watch = _AnswerWriter(screen, indent="  "), _Watch()
    chunks = []
    async with model.astream(_QUESTION) as stream:
        async for chunk in stream:
            chunks.append((watch.now, chunk))
            for event in chunk.events:
                watch.see(event)
                writer.take(event)
    writer.close()
    return chunks, watch


def _heading(screen: _Screen, title: str, code: str = "") -> None:
    screen.line()
    screen.write(title, BOLD)
    screen.line("   " + code if code else "", DIM)
    screen.line()


def _show_events(screen: _Screen, chunks: list[tuple[float, AIMessageChunk]]) -> None:
    """The events as a table, a row for each run of events of one kind and block."""
    timed = [(at, event) for at, chunk in chunks for event in chunk.events]
    _heading(screen, "The same stream as typed events", "chunk.events")
    screen.line(f"  {'ms':>5}  {'n':>3}  {'event':<16} {'block':<6} holds", DIM)
    for (tag, index), run in groupby(timed, key=lambda item: _kind(item[1])):
        group = list(run)
        block = "" if index is None else str(index)
        screen.write(f"  {group[0][0] * 1000:5.0f}  {len(group):3}  ")
        screen.write(f"{tag:<16} ", _STYLES.get(tag, ""))
        holds = _holds([event for _, event in group])
        screen.line(f"{block:<6} {_head(holds, screen.width - 40)}")


def _kind(event: ChunkEvent) -> tuple[str, int | None]:
    return str(event.__struct_config__.tag), getattr(event, "index", None)


_STYLES: Final = {"text-delta": GREEN, "reasoning-delta": DIM, "tool-call-delta": CYAN}


def _holds(run: list[ChunkEvent]) -> str:
    """What the events of a run say, in a few words."""
    match run[0]:
        case TextDelta() | ReasoningDelta():
            return repr(_joined(run, "text"))
        case ToolCallDelta():
            return repr(_joined(run, "args"))
        case MessageStart(model=model):
            return f"{model} answers"
        case BlockStart(kind, name=name):
            return f"{kind} {name}" if name else kind
        case BlockEnd(kind):
            return kind
        case UsageReport(usage):
            return _usage(usage)
        case MessageEnd(finish_reason):
            return str(finish_reason)
        case ProviderData(data):
            return ", ".join(data)
    return ""


def _joined(run: list[ChunkEvent], field: str) -> str:
    return "".join(getattr(event, field) for event in run)


def _show_fold(screen: _Screen, chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """The growing message, at some of its steps; what it came to."""
    _heading(screen, "The same stream as a fold", "full = full + chunk")
    screen.line(f"  {'chunks':>6}  full", DIM)
    full = AIMessageChunk()
    shown = set(_steps(chunks))
    for count, chunk in enumerate(chunks, 1):
        full = full + chunk
        if count - 1 in shown:
            name, value, style = _front(full)
            screen.write(f"  {count:6}  ")
            screen.write(f"{name:<12}", style)
            screen.line(_tail(value, screen.width - 22))
    return full


def _steps(chunks: list[AIMessageChunk]) -> Iterator[int]:
    """Three steps of reasoning, three of text, and each of the tool call."""
    for kind, most in ((ReasoningDelta, 3), (TextDelta, 3), (ToolCallDelta, 99)):
        having = [
            number
            for number, chunk in enumerate(chunks)
            if any(isinstance(event, kind) for event in chunk.events)
        ]
        count = min(most, len(having))
        yield from (having[(part + 1) * len(having) // count - 1] for part in range(count))


def _front(full: AIMessageChunk) -> tuple[str, str, str]:
    """What a growing message is just saying: its name, its value, and how it is shown."""
    if full.tool_calls:
        return ".tool_calls", ", ".join(_calls(full)), CYAN
    if full.text:
        return ".text", repr(full.text), GREEN
    return ".reasoning", repr(full.reasoning), DIM


def _calls(message: AIMessage) -> Iterator[str]:
    for call in message.tool_calls:
        arguments = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
        yield f"{call['name']}({arguments})"


def _show_message(screen: _Screen, full: AIMessageChunk, watch: _Watch, invoked: AIMessage) -> None:
    _heading(screen, "The message it came to")
    same = full.to_message() == invoked
    rows = {
        "text": repr(full.text),
        "reasoning": repr(full.reasoning),
        "tool calls": ", ".join(_calls(full)),
        "finish": str(full.finish_reason),
        "usage": _usage(full.usage_metadata),
        "first token": f"after {_seconds(watch.first or 0.0)}",
        "ainvoke": "gives an equal message" if same else "gives another message",
    }
    for name, value in rows.items():
        screen.write(f"  {name:<13}", DIM)
        screen.line(_head(value, screen.width - 15))
    screen.line()
    screen.write("Next: ", BOLD)
    screen.line('export OPENAI_API_KEY=... && streamfold ask "Hello" -m openai:gpt-4.1')


def _head(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[-max(1, width - 1) :]
