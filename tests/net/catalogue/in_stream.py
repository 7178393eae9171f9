"""Errors in the place of an answer, or in the middle of one; and what is no answer."""

from __future__ import annotations

from faults import Wire
from says import HALF, Dialect, whole

from streamfold.errors import (
    InvalidRequestError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    StreamProtocolError,
)

from .base import ALL, OPENAI, PAGE, SSE, fails, send_half, works

#: Those whose errors inside a stream say what kind of error it is.
TELLING = tuple(name for name in ALL if name not in ("ollama", "cohere"))


@fails("error-mid-stream", ServerError, HALF, says={"status": 200, "message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.error(say.server_error))
    await wire.end()


@fails("error-mid-stream-hang", ServerError, HALF, seconds=(0.0, 0.2))
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.error(say.server_error))
    await wire.hang()


@fails(
    "error-first",
    (OverloadedError, ServerError),
    requests=3,
    says={"status": 200, "retryable": True},
)
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


@fails(
    "error-first-invalid",
    InvalidRequestError,
    requests=1,
    says={"retryable": False},
    dialects=TELLING,
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.part(say.error("invalid_request_error"))
    await wire.end()


@fails("error-named-event", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.frame({"message": "it broke", "code": 500}, "error"))
    await wire.end()


@fails("error-string", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.frame({"error": "it broke"}))
    await wire.end()


@fails("error-beside-choices", ServerError, HALF, dialects=OPENAI, says={"message": "it broke"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    error = {"message": "it broke", "code": 502}
    await wire.part(say.chunk({"content": ""}, "error", error=error))
    await wire.end()


@fails("error-unframed", StreamInterruptedError, HALF, dialects=OPENAI, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.failure("server_error") + b"\n")
    await wire.end()


@fails("error-plain-text", StreamProtocolError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.garbage(b"Internal Server Error"))
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


@fails("html-200", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="text/html")


@fails("html-200-no-type", StreamProtocolError, requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind="")


@fails("html-200-as-stream", (StreamInterruptedError, StreamProtocolError), requests=(1, 3))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, PAGE, kind=say.kind)


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


@works("no-type-comments-first", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-type": ""})
    await wire.parts([b"\n", b": hello\n\n", *whole(say)])
    await wire.end()
