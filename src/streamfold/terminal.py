"""What the command line writes to: a terminal or a pipe, and an answer on it as it arrives."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from typing import Any, Final, TextIO

from .deltas import BlockStart, ChunkEvent, DataDelta, ReasoningDelta, TextDelta, ToolCallDelta
from .messages import AIMessage

__all__ = [
    "BOLD",
    "CYAN",
    "DIM",
    "GREEN",
    "VISIBLE",
    "AnswerWriter",
    "Screen",
    "Watch",
    "closing",
    "seconds_text",
    "usage_line",
]

BOLD, DIM, CYAN, GREEN = "1", "2", "36", "32"

# Control characters as pictures: what a model says must not move the cursor or retitle the window.
VISIBLE: Final[dict[int, int | None]] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x7F, 0xA0), 0xFFFD),
    ord("\r"): None,
}


class Screen:
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
            text = text.translate(VISIBLE)
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


class AnswerWriter:
    """Shows typed events as an answer that grows: reasoning, text and tool calls in sections."""

    def __init__(self, screen: Screen, indent: str = "") -> None:
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


class Watch:
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


def closing(message: AIMessage, watch: Watch) -> Iterator[str]:
    """The parts of the last line: who answered, at what cost, how fast."""
    if message.finish_reason not in ("stop", "tool_calls", None):
        yield f"ended by {message.finish_reason}"
    if name := message.response_metadata.get("model_name"):
        yield str(name)
    yield usage_line(message.usage_metadata or {})
    if watch.first is not None:
        yield f"first token after {seconds_text(watch.first)}"
    yield f"{seconds_text(watch.now)} in all"


def usage_line(usage: Any) -> str:
    if not usage:
        return "no usage reported"
    cached = usage.get("input_token_details", {}).get("cache_read")
    reasoning = usage.get("output_token_details", {}).get("reasoning")
    into = f"{usage['input_tokens']} tokens in" + (f" ({cached} cached)" if cached else "")
    out = f"{usage['output_tokens']} out" + (f" ({reasoning} reasoning)" if reasoning else "")
    return f"{into}, {out}"


def seconds_text(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"
