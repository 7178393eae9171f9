"""Statuses, the pauses that servers ask for, and redirects."""

from __future__ import annotations

import email.utils
import time

from faults import Act, Wire
from says import Dialect

from streamfold import Timeouts
from streamfold.errors import (
    AuthenticationError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RedirectRefusedError,
    ServerError,
)

from .base import BACKOFF, MIB, PAGE, QUICK, fails, works
from .compression import bomb

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


@fails(
    "http-429-quota",
    RateLimitError,
    requests=1,
    says={"retryable": False},
    dialects=("openai", "responses", "anthropic"),
)
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
    bytes_sent=16 * MIB,
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
    await wire.reply(400, b"".join(bomb(say)), {"content-encoding": "gzip"})


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
