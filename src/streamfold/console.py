"""`ConsoleCallbackHandler`: runs as they happen, as a tree with timings, for whoever debugs."""

from __future__ import annotations

import os
import shutil
import sys
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

import msgspec

from .callbacks import BaseCallbackHandler, LLMResult
from .messages import AIMessage

__all__ = ["ConsoleCallbackHandler"]

_PLAIN_WIDTH: Final = 100  # columns where there is no terminal to ask

#: How a line begins, and its colour (ANSI) on a terminal: by what it says of a run.
_MARKS: Final = {
    "start": ("▶", "36"),
    "end": ("✓", "32"),
    "error": ("✗", "31"),
    "cancel": ("■", "33"),
    "retry": ("↻", "33"),
    "event": ("•", "2"),
}


class _Started(msgspec.Struct, frozen=True):
    depth: int
    at: float


class ConsoleCallbackHandler(BaseCallbackHandler):
    """Prints a line when a run starts and one when it ends, indented by its depth, with the seconds
    it took and the tokens it used.

    `write` takes each line; by default they go to standard error, in colour if that is a terminal
    (and `NO_COLOR` is not set). `width` is the columns of a line, by default those of the terminal.
    One handler may be used by several threads and event loops at once.
    """

    def __init__(
        self, write: Callable[[str], Any] | None = None, *, width: int | None = None
    ) -> None:
        self._write = write
        self._width = width
        self._started: dict[str, _Started] = {}

    # ---- lines -----------------------------------------------------------------------------------

    def _begin(self, kind: str, shown: Any, run: dict[str, Any]) -> None:
        depth = self._depth(run)
        self._started[str(run["run_id"])] = _Started(depth, time.perf_counter())
        self._line("start", depth, f"{kind} {run['name']}", shown)

    def _end(self, how: str, shown: Any, run: dict[str, Any], more: str = "") -> None:
        started = self._started.pop(str(run["run_id"]), None)
        if started is not None:
            seconds = time.perf_counter() - started.at
            self._line(how, started.depth, f"{run['name']} ({seconds:.2f} s{more})", shown)

    def _failed(self, error: BaseException, run: dict[str, Any]) -> None:
        self._end("error", f"{type(error).__name__}: {error}", run)

    def _depth(self, run: dict[str, Any]) -> int:
        return sum(id in self._started for id in run["parent_ids"])

    def _within(self, run: dict[str, Any]) -> int:
        """The depth of what happens in a run, or below it where it is none of its own."""
        return self._depth(run) + (str(run["run_id"]) in self._started)

    def _line(self, how: str, depth: int, head: str, shown: Any) -> None:
        mark, colour = _MARKS[how]
        text = shown if isinstance(shown, str) else repr(shown)
        line = f"{'  ' * depth}{mark} {head}"
        line = _cut(f"{line}: {_one_line(text)}" if text else line, self._columns())
        if self._write is not None:
            self._write(line)
            return
        if _in_colour():
            line = line.replace(mark, f"\x1b[{colour}m{mark}\x1b[0m", 1)
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def _columns(self) -> int:
        if self._width is not None:
            return self._width
        on_terminal = self._write is None and sys.stderr.isatty()
        return shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if on_terminal else _PLAIN_WIDTH

    # ---- what is heard ---------------------------------------------------------------------------

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **run: Any
    ) -> None:
        self._begin("model", messages[0][-1].text if messages and messages[0] else "", run)

    def on_llm_end(self, response: LLMResult | None, **run: Any) -> None:
        message = response.generations[0][0].message if response is not None else AIMessage("")
        calls = ", ".join(f"{call['name']}({call['args']})" for call in message.tool_calls)
        self._end("end", message.text or calls, run, _tokens(message))

    def on_llm_error(self, error: BaseException, **run: Any) -> None:
        self._failed(error, run)

    def on_llm_cancel(self, **run: Any) -> None:
        self._end("cancel", "cancelled", run)

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **run: Any) -> None:
        self._begin("run", inputs, run)

    def on_chain_end(self, outputs: Any, **run: Any) -> None:
        self._end("end", outputs, run)

    def on_chain_error(self, error: BaseException, **run: Any) -> None:
        self._failed(error, run)

    def on_chain_cancel(self, **run: Any) -> None:
        self._end("cancel", "cancelled", run)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **run: Any) -> None:
        self._begin("tool", input_str, run)

    def on_tool_end(self, output: Any, **run: Any) -> None:
        self._end("end", output, run)

    def on_tool_error(self, error: BaseException, **run: Any) -> None:
        self._failed(error, run)

    def on_tool_cancel(self, **run: Any) -> None:
        self._end("cancel", "cancelled", run)

    def on_retry(self, retry_state: Any, **run: Any) -> None:
        error = retry_state["error"]
        again = f"{run['name']} again in {retry_state['pause']:.2f} s"
        head = f"then {retry_state['fallback']}" if "fallback" in retry_state else again
        self._line("retry", self._within(run), head, f"{type(error).__name__}: {error}")

    def on_custom_event(self, name: str, data: Any, **run: Any) -> None:
        self._line("event", self._within(run), name, data)


def _tokens(message: AIMessage) -> str:
    usage = message.usage_metadata
    if usage is None:
        return ""
    return f", {usage.get('input_tokens', 0)} → {usage.get('output_tokens', 0)} tokens"


def _in_colour() -> bool:
    dumb = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not dumb and sys.stderr.isatty()


def _one_line(text: str) -> str:
    """`text` on one line. What a model says must not move the cursor either."""
    head = " ".join(text[:2000].split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in head)


def _cut(line: str, columns: int) -> str:
    """`line` in at most `columns`; letters that are two columns wide count as two."""
    ends = list(accumulate(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line))
    if not ends or ends[-1] <= columns:
        return line
    return line[: bisect_right(ends, columns - 1)] + "…"
