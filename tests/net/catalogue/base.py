"""What a row of the catalogue is, and the words in which rows are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from faults import Act, Wire
from says import DIALECTS, HALF, WHOLE, Dialect, half

from streamfold import Limits, Timeouts
from streamfold.errors import StreamfoldError

__all__ = [
    "ALL",
    "ANTHROPIC",
    "BACKOFF",
    "FAULTS",
    "KIB",
    "MARKED",
    "MIB",
    "NOISY",
    "OPENAI",
    "PAGE",
    "PIECEWISE",
    "QUICK",
    "SMALL",
    "SSE",
    "TWICE",
    "Fault",
    "fails",
    "send_all",
    "send_half",
    "works",
]

#: Which dialects a fault applies to.
ALL = tuple(DIALECTS)
OPENAI = ("openai",)
ANTHROPIC = ("anthropic",)
SSE = tuple(say.name for say in DIALECTS.values() if say.framing == "sse")
#: Those that have something to send that says nothing: comments, blank lines.
NOISY = tuple(name for name in ALL if name != "bedrock")
#: Those whose tool calls come in pieces.
PIECEWISE = tuple(name for name in ALL if name not in ("gemini", "ollama"))
#: Those with an end of their own after the finish reason.
MARKED = ("openai", "anthropic", "cohere")

KIB = 1024
MIB = 1024 * 1024
QUICK = Timeouts(connect=1.0, first_event=0.25, idle=0.25, total=3.0)
SMALL = Limits(event_bytes=64 * KIB, message_bytes=512 * KIB, tool_args_bytes=8 * KIB)
BACKOFF = (0.05, 2.0)
TWICE: dict[str, Any] = {"calls": 2, "requests": 2}
PAGE = b"<!doctype html><html><title>Sign in</title>" + b"<p>hello</p>" * 1000

Errors = type[StreamfoldError] | tuple[type[StreamfoldError], ...]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row: `act` is what the server does to each request, the rest is what must come of it."""

    name: str
    act: Act
    #: The class of the error, None if the call must succeed.
    error: Errors | None
    #: The text of the message, or of the error's `.partial`; None: nothing had arrived.
    text: str | None
    requests: int | tuple[int, int]
    #: How long the call takes.
    seconds: tuple[float, float] = (0.0, 2.0)
    #: How long the client waits between its first and its second request.
    pause: tuple[float, float] | None = None
    #: Attributes of the error, or of the message. The `type` of an error is a kind, for which each
    #: dialect has its word.
    says: dict[str, Any] = field(default_factory=dict)
    #: Parameters of the model.
    model: dict[str, Any] = field(default_factory=dict)
    #: How many connections may be open afterwards, while the loop still runs.
    open: tuple[int, int] = (0, 1)
    dialects: tuple[str, ...] = ALL
    calls: int = 1
    connections: int | None = None
    bytes_sent: int | None = None
    #: More to be asserted of the message or of what had arrived.
    check: Callable[[Any], None] | None = None
    #: It takes a second or so: few modes by default.
    slow: bool = False
    #: Holds with a caller's own `http_client` too, whose pool is not ours.
    any_client: bool = True
    #: The transport reads ahead: an answer that we leave may be over, and its connection kept.
    read_ahead: bool = False


FAULTS: dict[str, Fault] = {}


def fails(name: str, error: Errors, text: str | None = None, **fields: Any) -> Callable[[Act], Act]:
    """A row that ends in `error`; with `text`, it broke after that text had arrived."""
    if text is not None:
        fields.setdefault("open", (0, 0))
        fields.setdefault("requests", 1)
    return _row(name, error=error, text=text, **fields)


def works(name: str, text: str = WHOLE, **fields: Any) -> Callable[[Act], Act]:
    """A row that the caller does not notice."""
    fields.setdefault("requests", 1)
    fields["says"] = {"finish_reason": "stop", **fields.get("says", {})}
    return _row(name, error=None, text=text, **fields)


def _row(name: str, **fields: Any) -> Callable[[Act], Act]:
    def add(act: Act) -> Act:
        assert name not in FAULTS
        FAULTS[name] = Fault(name=name, act=act, **fields)
        return act

    return add


async def send_all(wire: Wire, frames: list[bytes]) -> None:
    """An answer of these frames, a chunk and a write each, on a connection that lives on."""
    await wire.head()
    await wire.parts(frames)
    await wire.end()


async def send_half(wire: Wire, say: Dialect) -> None:
    """Head and three deltas, and the client has read them."""
    await wire.head()
    await wire.parts(half(say))
    await wire.shown(HALF)
