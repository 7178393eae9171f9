"""Connections that are cut, kept, reused or forged."""

from __future__ import annotations

from faults import Wire
from says import WHOLE, Dialect, rest, whole

from streamfold.errors import ConnectError

from .base import BACKOFF, TWICE, fails, send_half, works


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
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {say.kind}\r\n".encode()
    await wire.send(head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n")
    wire.keep = True


@works("with-length", open=(1, 1), connections=1, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.reply(200, b"".join(whole(say)), kind=say.kind)


@works("close-delimited", open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.old_head()
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


@works("ended-twice", connections=2, any_client=False, **TWICE)
async def _(wire: Wire, say: Dialect) -> None:
    if wire.number > 1:
        await wire.answer(say)
        return
    await send_half(wire, say)
    await wire.parts(rest(say))
    await wire.send(b"0\r\n\r\n0\r\n\r\n")
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
