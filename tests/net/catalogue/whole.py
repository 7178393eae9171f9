"""Faults of answers that are asked for in one piece."""

from __future__ import annotations

import gzip
from typing import Any

from faults import Act, Wire
from says import Dialect

from streamfold.errors import (
    RequestTimeoutError,
    ServerError,
    SizeLimitError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
)

from .base import KIB, PAGE

__all__ = ["WHOLE_ROWS"]

#: By name: what the server does, the class of the error (None: it works), and how many requests.
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
