"""Every way in which a connection or an answer is known to break, and what comes of it.

A fault is a row: what the server does (`act`), and what the caller must see. Rows are named as in
the fault catalogue (research/reliability.md). Whatever happens: the error is of our tree, what had
arrived is in `.partial`, nothing keeps running, no connection stays open that should not, and the
key is in no text.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import gc
import gzip
import pickle
import random
import socket
import threading
import time
import traceback
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from faults import DIALECTS, HALF, PIECES, WHOLE, Act, Dialect, FaultServer, Wire, half, rest, whole

from streamfold import AIMessageChunk, Limits, Timeouts, init_chat_model
from streamfold.errors import (
    AuthenticationError,
    ConnectError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RedirectRefusedError,
    RequestTimeoutError,
    ServerError,
    SizeLimitError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.net import clock, portal

KEY = "canary-7f3a-0123456789-key"  # of no vendor's shape: only its value can give it away

QUICK = Timeouts(connect=1.0, first_event=0.25, idle=0.25, total=3.0)
ONCE = {"max_retries": 0}
SLACK = 0.25  # seconds that no call may outlive its limit by (reliability.md, "Time")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row: `act` is what the server does to each request, the rest is what must come of it."""

    name: str
    act: Act
    #: The class of the error, None if the call must succeed.
    error: type[StreamfoldError] | tuple[type[StreamfoldError], ...] | None
    #: The text of the message, or of the error's `.partial`; None: nothing had arrived.
    text: str | None
    requests: int | tuple[int, int]
    #: How long the call takes.
    seconds: tuple[float, float] = (0.0, 2.0)
    #: How long the client waits between its first and its second request.
    pause: tuple[float, float] | None = None
    #: Attributes of the error, or of the message.
    says: dict[str, Any] = field(default_factory=dict)
    #: Parameters of the model.
    model: dict[str, Any] = field(default_factory=dict)
    #: How many connections may be open afterwards, while the loop still runs.
    open: tuple[int, int] = (0, 1)
    dialects: tuple[str, ...] = ("openai", "anthropic")
    calls: int = 1
    connections: int | None = None
    bytes_sent: int | None = None
    check: Callable[[Any], None] | None = None
    #: It takes a second or so: few modes by default.
    slow: bool = False
    #: Holds with a caller's own `http_client` too, whose pool is not ours.
    any_client: bool = True


FAULTS: dict[str, Fault] = {}


def fails(
    name: str,
    error: type[StreamfoldError] | tuple[type[StreamfoldError], ...],
    text: str | None = None,
    **fields: Any,
) -> Callable[[Act], Act]:
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


OPENAI = ("openai",)
ANTHROPIC = ("anthropic",)
FIRST_HALF = {"text": HALF}


async def _half(wire: Wire, say: Dialect) -> None:
    """Head and three deltas, and the client has read them."""
    await wire.head()
    await wire.parts(half(say))
    await wire.shown(HALF)


# ---- truncation ----------------------------------------------------------------------------------


@fails("cut-mid-stream", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)


@fails("reset-mid-stream", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    wire.reset()


@fails("clean-end-no-finish", StreamInterruptedError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.end()


@works("done-without-finish", HALF, says={"finish_reason": None}, dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.marker())
    await wire.end()


@fails("close-delimited-cut", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    for frame in half(say):
        await wire.send(frame)


@fails("half-event", StreamInterruptedError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30])
    await wire.end()


@fails("half-event-blank", StreamProtocolError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30] + b"\n\n")
    await wire.end()


@fails("whole-event-no-blank", StreamInterruptedError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-1])
    await wire.end()


@fails("length-short", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-length": "100000"}, chunked=False)
    await wire.send(b"".join(half(say)))


@fails("bad-chunk-size", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.send(b"zz\r\nhello\r\n")
    await wire.hang()


@fails("half-close", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    wire.half_close()
    await wire.hang()


@fails("empty-body", StreamInterruptedError, requests=3)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.end()


@fails("cut-before-event", StreamInterruptedError, requests=3)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()


@works("cut-before-event-once", requests=2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number == 1:
        await wire.head()
    else:
        await wire.answer(say)


def _call_is_invalid(partial: Any) -> None:
    assert partial.tool_calls == []
    (call,) = partial.invalid_tool_calls
    assert (call["name"], call["args"]) == ("get_weather", '{"city": "Zü')
    assert call["error"]


@fails("cut-in-tool-args", StreamInterruptedError, "", check=_call_is_invalid, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*say.tool_start(), say.tool_delta('{"city": "'), say.tool_delta("Zü")])
    await wire.end()


@works("done-missing")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say)[:-1])
    await wire.end()


@works("no-last-blank-line")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say)[:-1])
    await wire.part(say.marker()[:-1])
    await wire.end()


@works("done-then-hang", seconds=(0.0, 0.4), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say))
    await wire.hang()


@works("finish-then-hang", slow=True, seconds=(0.2, 1.0), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])
    await wire.hang()


@works("finish-then-cut", open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])


@works("finish-then-drip", slow=True, seconds=(0.2, 1.0), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])
    while True:
        await wire.part(b": still here\n\n")
        await wire.pause(0.05)


@works("done-then-drip", seconds=(0.0, 0.6), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say))
    while True:
        await wire.part(b": still here\n\n")
        await wire.pause(0.01)


# ---- errors inside the stream --------------------------------------------------------------------


@fails("error-mid-stream", ServerError, HALF, says={"status": 200, "message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.error(say.server_error))
    await wire.end()


@fails("error-mid-stream-hang", ServerError, HALF, seconds=(0.0, 0.2))
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.error(say.server_error))
    await wire.hang()


@fails("error-first", OverloadedError, requests=3, says={"status": 200, "retryable": True})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.part(say.error("overloaded_error"))
    await wire.end()


@works("error-first-once", requests=2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
        return
    await wire.head()
    await wire.part(say.error("overloaded_error"))
    await wire.end()


@works("error-before-content-once", requests=2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
        return
    await wire.head()
    await wire.parts([*say.start(), say.error("overloaded_error")])
    await wire.end()


@fails("error-first-quota", RateLimitError, requests=1, dialects=OPENAI, says={"retryable": False})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.part(say.error("insufficient_quota"))
    await wire.end()


@fails("error-first-invalid", InvalidRequestError, requests=1, says={"retryable": False})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.part(say.error("invalid_request_error"))
    await wire.end()


@fails("error-named-event", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.frame({"message": "it broke", "code": 500}, "error"))
    await wire.end()


@fails("error-string", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.frame({"error": "it broke"}))
    await wire.end()


@fails("error-beside-choices", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    error = {"message": "it broke", "code": 502}
    await wire.part(say.chunk({"content": ""}, "error", error=error))
    await wire.end()


@fails("error-unframed", StreamInterruptedError, HALF, dialects=OPENAI, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.failure("server_error") + b"\n")
    await wire.end()


@fails("error-plain-text", StreamProtocolError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(b"data: Internal Server Error\n\n")
    await wire.end()


@fails("json-error-200", ServerError, requests=3, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.failure(say.server_error))


@works("json-whole-200")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.whole())


@works("json-whole-200-no-type")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.whole(), kind="")


@fails("json-half-200", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.whole()[:-20])


@fails("json-empty-200", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b"{}")


PAGE = b"<!doctype html><html><title>Sign in</title>" + b"<p>hello</p>" * 1000


@fails("html-200", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="text/html")


@fails("html-200-no-type", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="")


@fails("html-200-as-stream", StreamInterruptedError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="text/event-stream")


@fails("status-204", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
    wire.keep = True


@works("wrong-type")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": "text/plain"})
    await wire.parts(whole(say))
    await wire.end()


@works("no-type")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": ""})
    await wire.parts(whole(say))
    await wire.end()


@works("no-type-comments-first")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": ""})
    await wire.parts([b"\n", b": hello\n\n", *whole(say)])
    await wire.end()


# ---- status --------------------------------------------------------------------------------------

BACKOFF = (0.05, 2.0)
STATUSES = {
    400: (InvalidRequestError, "invalid_request_error"),
    401: (AuthenticationError, "authentication_error"),
    403: (PermissionDeniedError, "permission_error"),
    404: (NotFoundError, "not_found_error"),
    413: (InvalidRequestError, "request_too_large"),
    418: (InvalidRequestError, "teapot"),
    422: (InvalidRequestError, "invalid_request_error"),
    408: (InvalidRequestError, "timeout"),
    409: (InvalidRequestError, "conflict"),
    429: (RateLimitError, "rate_limit_error"),
    500: (ServerError, "server_error"),
    502: (ServerError, "bad_gateway"),
    503: (OverloadedError, "server_error"),
    504: (ServerError, "timeout_error"),
    529: (OverloadedError, "overloaded_error"),
}
RETRIED = (408, 409, 429, 500, 502, 503, 504, 529)


def _status(status: int, headers: dict[str, str] | None = None, *, once: bool = False) -> Act:
    async def act(wire: Wire, say: Dialect) -> None:
        if once and wire.number > 1:
            await wire.answer(say)
            return
        await wire.reply(status, say.failure(STATUSES[status][1]), headers)

    return act


for _code, (_class, _kind) in STATUSES.items():
    _times = 3 if _code in RETRIED else 1
    _says = {"status": _code, "type": _kind, "message": "it broke", "retryable": _times == 3}
    fails(f"http-{_code}", _class, requests=_times, says=_says)(_status(_code))
for _code in RETRIED:
    works(f"http-{_code}-once", requests=2, pause=BACKOFF)(_status(_code, once=True))

for _name, _value, _status_code, _pause in (
    ("inf", "inf", 503, BACKOFF),
    ("overflow", "1e400", 503, BACKOFF),
    ("fraction", "0.4", 429, (0.4, 0.9)),
    ("seconds", "1", 429, (1.0, 1.5)),
    ("past", "Mon, 01 Jan 2001 00:00:00 GMT", 503, (0.0, 2.0)),
    ("zero", "0", 503, (0.0, 2.0)),
    ("garbage", "soon", 503, BACKOFF),
    ("negative", "-5", 503, BACKOFF),
    ("nan", "nan", 503, BACKOFF),
    ("baddate", "Fri, 99 Foo 99999 99:99:99 GMT", 503, BACKOFF),
    ("empty", " ", 503, BACKOFF),
):
    works(f"retry-after-{_name}", requests=2, pause=_pause, slow=_name in ("seconds", "fraction"))(
        _status(_status_code, {"retry-after": _value}, once=True)
    )
works("retry-after-ms", requests=2, pause=(0.2, 0.5))(
    _status(429, {"retry-after-ms": "200", "retry-after": "30"}, once=True)
)


@works("retry-after-date", slow=True, requests=2, pause=(0.5, 3.0), seconds=(0.5, 4.0))
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
        return
    date = email.utils.formatdate(time.time() + 1.9, usegmt=True)  # whole seconds: 0.9 to 1.9
    await wire.reply(503, say.failure("server_error"), {"retry-after": date})


_HUGE = {"requests": 1, "seconds": (0.0, 0.5)}
fails(
    "retry-after-huge", RateLimitError, says={"retry_after": 86400.0, "retryable": True}, **_HUGE
)(_status(429, {"retry-after": "86400"}))
fails("retry-after-61", OverloadedError, says={"retry_after": 61.0}, **_HUGE)(
    _status(503, {"retry-after": "61"})
)
fails(
    "retry-after-past-the-deadline",
    RateLimitError,
    says={"retry_after": 30.0},
    model={"timeout": Timeouts(total=2.0)},
    **_HUGE,
)(_status(429, {"retry-after": "30"}))
fails("should-retry-no", ServerError, requests=1, says={"retryable": False})(
    _status(500, {"x-should-retry": "false"})
)
works("should-retry-yes", requests=2)(_status(400, {"x-should-retry": "true"}, once=True))


@fails("http-429-quota", RateLimitError, requests=1, says={"retryable": False})
async def _(wire: Wire, say: Dialect) -> None:
    message = "Your credit balance is too low" if say.name == "anthropic" else "no money"
    await wire.reply(429, say.failure("insufficient_quota", message))


@fails("http-400-overflow", ContextOverflowError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    message = "prompt is too long: this model's maximum context length is 8192 tokens"
    await wire.reply(400, say.failure("invalid_request_error", message))


@works("http-502-html-once", requests=2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
    else:
        await wire.reply(502, PAGE, kind="text/html")


@fails("http-500-empty", ServerError, requests=3, says={"type": None})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(500, b"", kind="")


@fails("http-500-bad-json", ServerError, requests=3)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(500, say.failure("server_error")[:-10])


@fails("http-400-odd-shape", InvalidRequestError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(400, b'["no", {"such": "thing"}]')


@fails("http-400-deep", InvalidRequestError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(400, b"[" * 60_000)


@fails("http-400-big-int", InvalidRequestError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(400, b'{"error": ' + b"9" * 5000 + b"}")


@fails("http-400-bad-utf8", InvalidRequestError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(400, b'{"error": {"message": "\xff\xfe"}}')


@fails("early-413", InvalidRequestError, requests=1, says={"status": 413}, open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(413, say.failure("request_too_large"), {"connection": "close"})


@fails(
    "http-400-flood",
    InvalidRequestError,
    requests=1,
    says={"status": 400},
    open=(0, 0),
    bytes_sent=16 * 1024 * 1024,
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(400, {"content-type": "application/json"})
    while True:
        await wire.part(b"x" * 65536)


@fails("http-400-stall", InvalidRequestError, requests=1, model={"timeout": QUICK}, open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(400, {"content-type": "application/json"})
    await wire.part(say.failure("invalid_request_error")[:20])
    await wire.hang()


@fails("http-400-gzip-bomb", InvalidRequestError, requests=1)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(400, b"".join(_bomb()), {"content-encoding": "gzip"})


@fails("http-400-cut", InvalidRequestError, requests=1, says={"status": 400}, open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(
        400, {"content-type": "application/json", "content-length": "1000"}, chunked=False
    )
    await wire.send(say.failure("invalid_request_error"))


# ---- redirects -----------------------------------------------------------------------------------


def _redirect(status: int, location: str) -> Act:
    async def act(wire: Wire, say: Dialect) -> None:
        target = location.format(origin=wire.server.origin, path=wire.request.path)
        await wire.reply(status, b"", {"location": target}, kind="")

    return act


for _name, _status_code, _target in (
    ("same-origin", 307, "{origin}/elsewhere"),
    ("loop", 308, "{origin}{path}"),
    ("get", 302, "{origin}/elsewhere"),
    ("relative", 303, "/elsewhere"),
    ("file", 302, "file:///etc/hostname"),
    ("not-a-url", 302, "http://[::bad"),
    ("no-location", 301, ""),
    ("not-modified", 304, ""),
):
    fails(f"redirect-{_name}", RedirectRefusedError, requests=1)(_redirect(_status_code, _target))


# ---- time ----------------------------------------------------------------------------------------

_TIMED: dict[str, Any] = {"model": {"timeout": QUICK}, "open": (0, 0), "slow": True}
_STALLED: dict[str, Any] = {
    "model": {"timeout": QUICK, "max_retries": 1},
    "open": (0, 0),
    "slow": True,
    "requests": 2,
    "seconds": (0.5, 1.0),
    "says": {"limit": "first_event", "seconds": 0.25},
}
_IDLE: dict[str, Any] = {
    **_TIMED,
    "seconds": (0.25, 0.6),
    "says": {"limit": "idle", "seconds": 0.25},
}


@fails("stall-before-head", RequestTimeoutError, **_STALLED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.hang()


@fails("stall-in-head", RequestTimeoutError, **_STALLED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-ty")
    await wire.hang()


@fails("drip-head", RequestTimeoutError, **_STALLED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await wire.send(b"x-more: 1\r\n")
        await wire.pause(0.05)


@works(
    "stall-before-head-once", slow=True, requests=2, model={"timeout": QUICK}, seconds=(0.25, 0.8)
)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number == 1:
        await wire.hang()
    await wire.answer(say)


@fails("stall-before-event", RequestTimeoutError, **_STALLED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.hang()


@fails("drip-before-event", RequestTimeoutError, **_STALLED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    while True:
        await wire.part(b": please wait\n\n")
        await wire.pause(0.05)


@fails("stall-mid-stream", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.hang()


@fails("stall-mid-event", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30])
    await wire.hang()


@fails("drip-comments", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(b": still here\n\n")
        await wire.pause(0.05)


@fails("drip-pings", RequestTimeoutError, HALF, **_IDLE, dialects=ANTHROPIC)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(say.frame({"type": "ping"}))
        await wire.pause(0.05)


@fails("drip-bytes", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(b"data: ")
    while True:
        await wire.part(b"x")
        await wire.pause(0.05)


def _endless_text(partial: Any) -> None:
    assert partial.text.startswith(HALF + "...")


@fails(
    "endless",
    RequestTimeoutError,
    HALF,
    slow=True,
    seconds=(0.5, 0.8),
    says={"limit": "total", "seconds": 0.5, "retryable": False},
    model={"timeout": Timeouts(total=0.5, idle=0.2)},
    check=_endless_text,
)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(say.delta("."))
        await wire.pause(0.02)


@fails(
    "total-covers-retries",
    (OverloadedError, RequestTimeoutError),
    slow=True,
    requests=(2, 6),
    seconds=(0.0, 0.5),
    model={"timeout": Timeouts(total=0.3), "max_retries": 50},
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(503, say.failure("server_error"))


@works(
    "slow-but-fine",
    slow=True,
    model={"timeout": Timeouts(first_event=0.6, idle=0.6)},
    seconds=(0.9, 2.5),
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    for frame in whole(say):
        await wire.pause(0.1)
        await wire.part(frame)
    await wire.end()


# ---- size ----------------------------------------------------------------------------------------

KIB = 1024
MIB = 1024 * 1024
SMALL = Limits(event_bytes=64 * KIB, message_bytes=512 * KIB, tool_args_bytes=8 * KIB)
_LARGE: dict[str, Any] = {"model": {"limits": SMALL}, "bytes_sent": 16 * MIB}


@fails("line-unbounded", SizeLimitError, HALF, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(b"data: ")
    while True:
        await wire.part(b"x" * 16 * KIB)


@fails("event-unbounded", SizeLimitError, HALF, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(b"data: x\n" * 1000)


def _starts_with_half(partial: Any) -> None:
    assert partial.text.startswith(HALF)
    assert len(partial.text) > 256 * KIB


@fails("body-unbounded", SizeLimitError, HALF, check=_starts_with_half, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(say.delta("x" * 16 * KIB))


@fails("comments-unbounded", SizeLimitError, HALF, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    while True:
        await wire.part(b": nothing\n\n" * 1000)


@fails("tool-args-unbounded", SizeLimitError, "", **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*say.tool_start(), say.tool_delta('{"city": "')])
    while True:
        await wire.part(say.tool_delta("x" * KIB))


@fails("json-unbounded", SizeLimitError, requests=1, open=(0, 0), **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": "application/json"})
    await wire.part(b'{"choices": [')
    while True:
        await wire.part(b"{}," * 5000)


@works("many-deltas", "x" * 10_000, seconds=(0.0, 10.0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(say.start())
    for _ in range(100):
        await wire.part(say.delta("x") * 100)
    await wire.parts([*say.ending(), say.marker()])
    await wire.end()


@works("event-1-mib-small-reads", "x" * MIB, seconds=(0.0, 5.0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    event = say.delta("x" * MIB)
    await wire.parts(say.start())
    for start in range(0, len(event), 4 * KIB):
        await wire.part(event[start : start + 4 * KIB])
    await wire.parts([*say.ending(), say.marker()])
    await wire.end()


@fails("json-deep", SizeLimitError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _half(wire, say)
    await wire.part(b"data: " + b"[" * 200_000 + b"]" * 200_000 + b"\n\n")
    await wire.end()


@fails("head-huge", ConnectError, requests=(1, 3), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"x-huge": "x" * MIB})
    await wire.parts(whole(say))
    await wire.end()


@fails("head-many", ConnectError, requests=(1, 3), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={f"x-{number}": "x" for number in range(20_000)})
    await wire.parts(whole(say))
    await wire.end()


# ---- compression ---------------------------------------------------------------------------------


def _deflater(kind: str) -> Any:
    return zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15}[kind])


async def _packed(wire: Wire, frames: list[bytes], kind: str = "gzip") -> Any:
    """`frames`, packed, each flushed out for itself."""
    await wire.head(headers={"content-encoding": kind})
    packer = _deflater(kind)
    for frame in frames:
        await wire.part(packer.compress(frame) + packer.flush(zlib.Z_SYNC_FLUSH))
    return packer


@works("gzip")
async def _(wire: Wire, say: Dialect) -> None:
    assert wire.request.headers["accept-encoding"] == "identity"  # it was not asked for
    packer = await _packed(wire, whole(say))
    await wire.part(packer.flush())
    await wire.end()


@works("deflate")
async def _(wire: Wire, say: Dialect) -> None:
    packer = await _packed(wire, whole(say), "deflate")
    await wire.part(packer.flush())
    await wire.end()


@works("gzip-one-byte-writes")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "gzip"})
    for byte in gzip.compress(b"".join(whole(say))):
        await wire.part(bytes([byte]))
    await wire.end()


@works("gzip-json-whole-200")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, gzip.compress(say.whole()), {"content-encoding": "gzip"})


@works("gzip-empty-pieces")
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "gzip", "content-type": ""})
    data = gzip.compress(b"".join(whole(say)))
    await wire.parts([data[:10], data[10:]])  # the first piece is a header: it unpacks to nothing
    await wire.end()


@fails("gzip-cut", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _packed(wire, half(say))
    await wire.shown(HALF)


@fails("gzip-corrupt", StreamProtocolError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await _packed(wire, half(say))
    await wire.shown(HALF)
    await wire.part(random.Random(1).randbytes(4 * KIB))
    await wire.end()


@fails("gzip-lie", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "gzip"})
    await wire.parts(whole(say))
    await wire.end()


@fails("unknown-encoding", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "br"})
    await wire.parts(whole(say))
    await wire.end()


BOMB = 64 * MIB  # unpacked; a thousandth of it on the wire


@functools.cache
def _bomb() -> list[bytes]:
    packer = _deflater("gzip")
    head = packer.compress(b"data: ") + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush equal input packs to equal output, so one piece does for all.
    piece = packer.compress(b"x" * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    return [head, *[piece] * (BOMB // MIB)]


@fails("gzip-bomb", SizeLimitError, requests=1, open=(0, 0), seconds=(0.0, 3.0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "gzip"})
    await wire.parts(_bomb())
    await wire.end()


# ---- connections ---------------------------------------------------------------------------------

TWICE: dict[str, Any] = {"calls": 2, "requests": 2}


@works("ok", open=(1, 1), connections=1, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


@works("one-byte-writes", model={"timeout": 30})
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    for byte in b"".join(whole(say)):
        await wire.part(bytes([byte]))
    await wire.end()


@works("one-write", open=(1, 1))
async def _(wire: Wire, say: Dialect) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in whole(say))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    await wire.send(head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
    wire.keep = True


@works("with-length", open=(1, 1), connections=1, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b"".join(whole(say)), kind="text/event-stream")


@works("close-delimited", open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await wire.send(b"".join(whole(say)))


@works("early-hints", open=(1, 1), connections=1, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
    await wire.answer(say)


@works("connection-close", open=(0, 0), connections=2, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"connection": "close"})
    await wire.parts(whole(say))
    await wire.end()
    wire.keep = False


@works("close-after-reply", open=(0, 0), connections=2, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)
    wire.keep = False


@works("reset-after-reply", open=(0, 0), connections=2, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)
    wire.keep = False
    if wire.number == 1:
        await wire.shown(WHOLE)
        wire.reset()


@works("stale-keep-alive", calls=2, requests=(2, 3), connections=2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.turn == 1:
        await wire.answer(say)


FORGED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


@works("junk-after-reply", connections=2, any_client=False, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say))
    body = say.whole().replace(WHOLE.encode(), b"FORGED")
    await wire.send(b"0\r\n\r\n" + FORGED % (len(body), body))
    wire.keep = True


@works("junk-after-length", connections=2, any_client=False, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    good, bad = say.whole(), say.whole().replace(WHOLE.encode(), b"FORGED")
    await wire.send(FORGED % (len(good), good) + FORGED % (len(bad), bad))
    wire.keep = True


@works("two-framings", connections=2, any_client=False, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-length": "5"})
    await wire.parts(whole(say))
    await wire.end()


@fails("not-http", ConnectError, requests=(1, 3), open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@fails("cut-before-head", ConnectError, requests=3, open=(0, 0), says={"retryable": True})
async def _(wire: Wire, say: Dialect) -> None:
    """The request is read, then FIN."""


@works("cut-before-head-once", requests=2, pause=BACKOFF)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)


@works("reset-before-head-once", requests=2, pause=BACKOFF)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
    else:
        wire.reset()


@works("cut-in-head-once", requests=2, pause=BACKOFF)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
    else:
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/ev")


# ---- running a row -------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a call came to."""

    message: Any = None
    error: StreamfoldError | None = None
    seconds: float = 0.0


def make_model(fault: Fault, server: FaultServer, **fields: Any) -> Any:
    given = {"api_key": KEY, "base_url": server.url, **fault.model, **fields}
    return init_chat_model(server.say.model, **given)


@contextmanager
def timed(outcome: Outcome) -> Iterator[None]:
    begin = time.monotonic()
    try:
        yield
    except StreamfoldError as error:
        outcome.error = error
    finally:
        outcome.seconds = time.monotonic() - begin


async def stream_once(model: Any, server: FaultServer) -> Outcome:
    outcome, full = Outcome(), AIMessageChunk()
    with timed(outcome):
        async for chunk in model.astream("hi"):
            full = full + chunk
            server.show(full.text)
        outcome.message = full.to_message()
    return outcome


def stream_once_sync(model: Any, server: FaultServer) -> Outcome:
    outcome, full = Outcome(), AIMessageChunk()
    with timed(outcome):
        for chunk in model.stream("hi"):
            full = full + chunk
            server.show(full.text)
        outcome.message = full.to_message()
    return outcome


def tasks_alive() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


def settled(server: FaultServer, fault: Fault) -> None:
    """Wait until the server sees what the client did to its connections."""
    low, high = fault.open
    server.wait_for(lambda: low <= server.open_connections <= high, timeout=0.5)
    gc.collect()  # what was dropped half way warns now


async def in_loop(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The calls of a row in the running loop, and that nothing of them is left in it."""
    return await called(fault, server, make_model(fault, server))


async def by_own_client(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The same through a client that the caller has made."""
    async with httpx.AsyncClient() as client:
        return await called(fault, server, make_model(fault, server, http_client=client))


async def called(fault: Fault, server: FaultServer, model: Any) -> list[Outcome]:
    outcomes = []
    with anyio.fail_after(20):
        for _ in range(fault.calls):
            before = tasks_alive()
            outcomes.append(await stream_once(model, server))
            await anyio.to_thread.run_sync(settled, server, fault)
            await anyio.lowlevel.checkpoint()
            assert tasks_alive() <= before
    return outcomes


async def _portal_tasks() -> int:
    return len(asyncio.all_tasks())


def in_thread(fault: Fault, server: FaultServer) -> list[Outcome]:
    """The same by the sync methods."""
    model = make_model(fault, server)
    outcomes = []
    watchdog = threading.Timer(20, server.stop)
    watchdog.start()
    try:
        for _ in range(fault.calls):
            before = portal.run(_portal_tasks)
            outcomes.append(stream_once_sync(model, server))
            settled(server, fault)
            assert portal.run(_portal_tasks) <= before
    finally:
        watchdog.cancel()
        model.close()
    return outcomes


def run(fault: Fault, server: FaultServer, mode: str) -> list[Outcome]:
    if mode == "sync":
        return in_thread(fault, server)
    backend, _, own = mode.partition("-")
    return anyio.run(by_own_client if own else in_loop, fault, server, backend=backend)


def judge(fault: Fault, server: FaultServer, outcomes: list[Outcome]) -> None:
    """What came of it is what the row says."""
    for outcome in outcomes:
        if outcome.error is not None and fault.error is None:
            raise outcome.error
        expected = fault.error or type(None)
        assert type(outcome.error) in (expected if isinstance(expected, tuple) else (expected,))
        result = outcome.message if outcome.error is None else outcome.error.partial
        if fault.text is None:
            assert result is None
        elif fault.check is None or fault.text == "":
            assert result.text == fault.text
        if outcome.error is not None and result is not None:
            assert result.finish_reason == "error"
        if fault.check is not None:
            fault.check(result)
        said = outcome.message if outcome.error is None else outcome.error
        assert {name: getattr(said, name) for name in fault.says} == fault.says
        low, high = fault.seconds
        if fault.pause is not None:
            low, high = min(low, fault.pause[0]), high + fault.pause[1]
        assert low <= outcome.seconds <= high + SLACK
    bounds = fault.requests if isinstance(fault.requests, tuple) else (fault.requests,) * 2
    assert bounds[0] <= len(server.requests) <= bounds[1]
    if fault.connections is not None:
        assert server.connections == fault.connections
    if fault.bytes_sent is not None:
        assert server.bytes_sent <= fault.bytes_sent
    if fault.pause is not None:
        waited = server.requests[1].at - server.requests[0].at
        assert fault.pause[0] <= waited <= fault.pause[1] + SLACK


def texts_of(error: BaseException, *, with_locals: bool) -> Iterator[str]:
    """All text that an error can be turned into, and that of whatever it stands in a chain with;
    also what the frames of its traceback hold, as crash reporters show it."""
    seen: BaseException | None = error
    while seen is not None:
        yield str(seen)
        yield repr(seen)
        yield repr(seen.args)
        yield repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    yield "".join(traceback.format_exception(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    for frame in shown.stack:
        if with_locals and "/streamfold/" in frame.filename:
            yield repr(frame.locals)
    yield pickle.dumps(error).decode("latin-1")


def no_key_in(
    outcomes: list[Outcome], log: pytest.LogCaptureFixture, *, with_locals: bool = True
) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            texts = texts_of(outcome.error, with_locals=with_locals)
            assert not [text for text in texts if KEY in text]
            again = pickle.loads(pickle.dumps(outcome.error))
            assert (type(again), str(again)) == (type(outcome.error), str(outcome.error))
            assert again.partial == outcome.error.partial
    assert KEY not in log.text


# The modes that always run; all others are the matrix.
DAILY = {
    ("openai", "asyncio"),
    ("openai", "trio"),
    ("openai", "sync"),
    ("anthropic", "asyncio"),
    ("anthropic", "sync"),
}
SLOW = {("openai", "asyncio"), ("openai", "trio"), ("anthropic", "sync")}
#: Where a caller's own client takes another way through our code.
OWN = (
    "body-unbounded cut-mid-stream endless finish-then-hang gzip gzip-corrupt http-400-stall ok "
    "redirect-not-a-url stall-before-head stall-mid-stream"
).split()
MODES = ("asyncio", "trio", "sync", "asyncio-own", "trio-own")


def is_daily(fault: Fault, dialect: str, mode: str) -> bool:
    if mode.endswith("-own"):
        return dialect == "openai" and fault.name in OWN
    return (dialect, mode) in (SLOW if fault.slow else DAILY)


def rows() -> Iterator[Any]:
    """(fault, dialect, mode) of all rows in all modes."""
    for fault in FAULTS.values():
        for dialect in fault.dialects:
            for mode in MODES if fault.any_client else MODES[:3]:
                marks = [] if is_daily(fault, dialect, mode) else [pytest.mark.matrix]
                name = f"{fault.name}-{dialect}-{mode}"
                yield pytest.param(fault, dialect, mode, marks=marks, id=name)


def trial(
    fault: Fault, dialect: str, mode: str, log: pytest.LogCaptureFixture
) -> tuple[FaultServer, list[Outcome]]:
    with FaultServer(fault.act, DIALECTS[dialect]) as server:
        outcomes = run(fault, server, mode)
        judge(fault, server, outcomes)
        no_key_in(outcomes, log)
        if mode != "sync":
            server.wait_open(0)  # the loop has ended, and its connections with it
    return server, outcomes


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "GRACE", 0.3)


@pytest.mark.usefixtures("quick_retries", "short_grace")
@pytest.mark.parametrize(("fault", "dialect", "mode"), list(rows()))
def test_fault(fault: Fault, dialect: str, mode: str, every_log: pytest.LogCaptureFixture) -> None:
    """Each fault ends as its row says, with what had arrived, and leaves nothing behind."""
    trial(fault, dialect, mode, every_log)


# ---- what a row cannot say -----------------------------------------------------------------------

BACKENDS = pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
BOTH = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


@BOTH
@BACKENDS
def test_an_echoed_key_is_nowhere(
    dialect: str, mode: str, every_log: pytest.LogCaptureFixture
) -> None:
    """A 401 that quotes the key in its body and in headers gives it away in no text at all."""

    async def act(wire: Wire, say: Dialect) -> None:
        sent = wire.request.headers.get("authorization") or wire.request.headers["x-api-key"]
        body = say.failure("authentication_error", f"Incorrect API key provided: {sent}. Go away.")
        echo = {"x-echo": sent, "x-request-id": f"req-{KEY}", "www-authenticate": f"Key {KEY}"}
        await wire.reply(401, body, echo)

    fault = Fault(name="", act=act, error=AuthenticationError, text=None, requests=1)
    _, (outcome,) = trial(fault, dialect, mode, every_log)
    assert isinstance(outcome.error, ProviderError)
    assert "Incorrect API key provided: " in str(outcome.error)
    assert outcome.error.request_id == "req-***"
    assert outcome.error.body is not None
    assert "Go away" in outcome.error.body


@BOTH
@pytest.mark.parametrize("shape", ["in-band", "json-200", "text", "html", "redirect", "not-json"])
def test_an_echoed_key_is_nowhere_else_either(
    shape: str, dialect: str, every_log: pytest.LogCaptureFixture
) -> None:
    """Whatever part of an answer quotes the key, no error shows it."""

    async def act(wire: Wire, say: Dialect) -> None:
        if shape == "in-band":
            await wire.head()
            await wire.part(say.error("authentication_error", f"bad key {KEY}"))
        elif shape == "json-200":
            await wire.reply(200, say.failure("authentication_error", f"bad key {KEY}"))
        elif shape == "text":
            await wire.reply(400, f"bad key {KEY}".encode(), kind="text/plain")
        elif shape == "html":
            await wire.reply(200, f"<html>bad key {KEY}</html>".encode(), kind="text/html")
        elif shape == "redirect":
            await wire.reply(302, b"", {"location": f"http://{KEY}.example/{KEY}"})
        else:
            await wire.head()
            await wire.part(f"data: bad key {KEY}\n\n".encode())

    with FaultServer(act, DIALECTS[dialect]) as server:
        fault = Fault(name="", act=act, error=None, text=None, requests=1, model=ONCE)
        (outcome,) = anyio.run(in_loop, fault, server)
        assert outcome.error is not None
        no_key_in([outcome], every_log, with_locals=False)  # they hold the page itself


@pytest.mark.parametrize("mode", ["asyncio", "trio", "sync", "asyncio-own"])
def test_a_redirect_reaches_nobody(mode: str, every_log: pytest.LogCaptureFixture) -> None:
    """Neither key nor prompt goes to another origin, and the error names its host."""

    async def never(wire: Wire, say: Dialect) -> None:
        raise AssertionError("a stranger was asked")

    with FaultServer(never, DIALECTS["openai"]) as stranger:

        async def act(wire: Wire, say: Dialect) -> None:
            location = stranger.origin.replace("127.0.0.1", "localhost") + "/v1/chat/completions"
            await wire.reply(307, b"", {"location": location}, kind="")

        fault = Fault(name="", act=act, error=RedirectRefusedError, text=None, requests=1)
        _, (outcome,) = trial(fault, "openai", mode, every_log)
        assert "localhost" in str(outcome.error)
        assert stranger.connections == 0


@BACKENDS
def test_bytes_that_come_between_calls_answer_nothing(mode: str) -> None:
    """What a server sends on an idle connection is not the answer of the next call."""
    say = DIALECTS["openai"]
    forged = say.whole().replace(WHOLE.encode(), b"FORGED")

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.answer(say)
        if wire.number == 1:
            await wire.shown("first call is over")
            await wire.send(FORGED % (len(forged), forged))
            wire.server.add(forgeries=1)
            await wire.hang()

    with FaultServer(act, say) as server:
        model = init_chat_model(say.model, api_key=KEY, base_url=server.url)

        def between() -> None:
            server.show("first call is over")
            server.wait_for(lambda: server.forgeries == 1)

        async def main() -> list[Any]:
            first = await model.ainvoke("hi")
            await anyio.to_thread.run_sync(between)
            return [first, await model.ainvoke("hi")]

        if mode == "sync":
            messages = [model.invoke("hi")]
            between()
            messages.append(model.invoke("hi"))
            model.close()
        else:
            messages = anyio.run(main, backend=mode)
        assert [message.text for message in messages] == [WHOLE, WHOLE]
        assert server.connections == 2


@pytest.mark.parametrize("compressed", [True, False])
def test_memory_is_bounded(compressed: bool) -> None:
    """64 MiB of one event, packed or not, never take more than the limit and a few MiB."""

    async def act(wire: Wire, say: Dialect) -> None:
        if compressed:
            await wire.head(headers={"content-encoding": "gzip"})
            await wire.parts(_bomb())
        else:
            await wire.head()
            await wire.part(b"data: ")
            for _ in range(64 * 16):
                await wire.part(b"x" * 64 * KIB)

    _bomb()
    with FaultServer(act, DIALECTS["openai"]) as server:
        limits = Limits(event_bytes=2 * MIB)
        fault = Fault(
            name="", act=act, error=SizeLimitError, text=None, requests=1, model={"limits": limits}
        )
        make_model(fault, server)
        tracemalloc.start()
        try:
            (outcome,) = anyio.run(in_loop, fault, server)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert isinstance(outcome.error, SizeLimitError)
        assert peak < 8 * MIB


def test_a_bomb_does_not_block_the_loop() -> None:
    """Other tasks of the loop go on while a compression bomb is refused."""

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.head(headers={"content-encoding": "gzip"})
        await wire.parts(_bomb())

    _bomb()
    fault = Fault(name="", act=act, error=SizeLimitError, text=None, requests=1)
    gaps: list[float] = []
    longest: list[float] = []

    async def main(server: FaultServer) -> None:
        async def tick() -> None:
            while True:
                before = time.perf_counter()
                await anyio.lowlevel.checkpoint()
                gaps.append(time.perf_counter() - before)

        model = make_model(fault, server)
        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            for _ in range(4):
                gaps.clear()
                outcome = await stream_once(model, server)
                assert isinstance(outcome.error, SizeLimitError)
                longest.append(max(gaps))
            group.cancel_scope.cancel()

    with FaultServer(act, DIALECTS["openai"]) as server:
        anyio.run(main, server)
    assert min(longest) < 0.05  # the best of several: other processes only add to it


@pytest.mark.usefixtures("quick_retries")
@BACKENDS
def test_nobody_listens(mode: str) -> None:
    """A refused connection is a ConnectError, after the usual three attempts."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        outcome = call_url(url, mode)
    assert type(outcome.error) is ConnectError
    assert outcome.error.retryable
    assert outcome.seconds >= 0.1  # two pauses


@pytest.mark.usefixtures("quick_retries")
@BACKENDS
def test_no_such_host(mode: str) -> None:
    """A name that does not resolve is a ConnectError."""
    outcome = call_url("https://nobody.invalid/v1", mode, timeout=Timeouts(connect=2.0))
    assert type(outcome.error) is ConnectError


@BACKENDS
def test_connecting_takes_too_long(mode: str) -> None:
    """A connection that does not come about within `connect` seconds is a time-out of that name."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full: further ones wait for an answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        outcome = call_url(url, mode, timeout=Timeouts(connect=0.2), **ONCE)
    assert isinstance(outcome.error, RequestTimeoutError)
    assert (outcome.error.limit, outcome.error.seconds) == ("connect", 0.2)
    assert 0.2 <= outcome.seconds < 0.6


def call_url(url: str, mode: str, **fields: Any) -> Outcome:
    """One call of a model at `url`."""
    model = init_chat_model("openai:gpt-4.1", api_key=KEY, base_url=url, **fields)
    outcome = Outcome()

    async def main() -> None:
        with timed(outcome):
            outcome.message = await model.ainvoke("hi")

    if mode == "sync":
        with timed(outcome):
            outcome.message = model.invoke("hi")
        model.close()
    else:
        anyio.run(main, backend=mode)
    return outcome


# ---- answers that are not streamed ---------------------------------------------------------------

WHOLE_ROWS: dict[str, tuple[Act, type[StreamfoldError] | None, int]] = {}


def _whole_row(name: str, error: type[StreamfoldError] | None, requests: int = 1) -> Any:
    def add(act: Act) -> Act:
        WHOLE_ROWS[name] = (act, error, requests)
        return act

    return add


@_whole_row("ok", None)
async def _(wire: Wire, say: Dialect) -> None:
    assert wire.request.headers["accept"] == "application/json"
    await wire.reply(200, say.whole())


@_whole_row("chunked", None)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": "application/json"})
    await wire.parts([bytes([byte]) for byte in say.whole()])
    await wire.end()


@_whole_row("gzip", None)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, gzip.compress(say.whole()), {"content-encoding": "gzip"})


@_whole_row("no-type", None)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.whole(), kind="")


@_whole_row("streamed-all-the-same", None)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


@_whole_row("once-503", None, 2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number == 1:
        await wire.reply(503, say.failure("server_error"))
    else:
        await wire.reply(200, say.whole())


@_whole_row("cut", StreamInterruptedError, 3)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(
        headers={"content-type": "application/json", "content-length": "9999"}, chunked=False
    )
    await wire.send(say.whole())


@_whole_row("cut-once", None, 2)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.reply(200, say.whole())
        return
    await wire.head(headers={"content-type": "application/json"})
    await wire.part(say.whole()[:50])


@_whole_row("half", StreamProtocolError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.whole()[:-9])


@_whole_row("a-list", StreamProtocolError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b"[" + say.whole() + b"]")


@_whole_row("empty", StreamProtocolError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b"")


@_whole_row("html", StreamProtocolError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="text/html")


@_whole_row("error-200", ServerError, 3)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, say.failure(say.server_error))


@_whole_row("deep", SizeLimitError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)


@_whole_row("drip", RequestTimeoutError, 2)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": "application/json"})
    while True:  # never silent for long, but the whole answer is due within `first_event`
        await wire.part(b" ")
        await wire.pause(0.05)


@_whole_row("flood", SizeLimitError)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": "application/json"})
    while True:
        await wire.part(b" " * 64 * KIB)


@pytest.mark.usefixtures("quick_retries")
@BOTH
@BACKENDS
@pytest.mark.parametrize("name", list(WHOLE_ROWS))
def test_fault_of_a_whole_answer(
    name: str, mode: str, dialect: str, every_log: pytest.LogCaptureFixture
) -> None:
    """`invoke` reports the faults of an answer that comes in one piece as `stream` does."""
    act, error, requests = WHOLE_ROWS[name]
    retries = {"max_retries": requests - 1} if name == "drip" else {}
    say = DIALECTS[dialect]
    with FaultServer(act, say) as server:
        timeout = Timeouts(first_event=0.25 if name == "drip" else 5.0)
        given: Any = {"api_key": KEY, "base_url": server.url, "limits": SMALL, "timeout": timeout}
        model = init_chat_model(say.model, **given, **retries)
        outcome = Outcome()

        async def main() -> None:
            with anyio.fail_after(10), timed(outcome):
                outcome.message = await model.ainvoke("hi")
            await anyio.to_thread.run_sync(gc.collect)

        if mode == "sync":
            with timed(outcome):
                outcome.message = model.invoke("hi")
            model.close()
        else:
            anyio.run(main, backend=mode)
        server.wait_open(0)
        assert type(outcome.error) is (error or type(None))
        if error is None:
            assert outcome.message.text == WHOLE
        assert len(server.requests) == requests
        assert server.bytes_sent < 16 * MIB
        no_key_in([outcome], every_log)
