"""Packed answers, which nobody asked for."""

from __future__ import annotations

import functools
import gzip
import random
import zlib
from typing import Any

from faults import Wire
from says import HALF, Dialect, half, whole

from streamfold.errors import SizeLimitError, StreamInterruptedError, StreamProtocolError

from .base import KIB, MIB, fails, works


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
def bomb(say: Dialect) -> list[bytes]:
    packer = _deflater("gzip")
    head = packer.compress(say.opening()) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush equal input packs to equal output, so one piece does for all.
    piece = packer.compress(b"x" * MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    return [head, *[piece] * (BOMB // MIB)]


@fails("gzip-bomb", SizeLimitError, requests=1, open=(0, 0), seconds=(0.0, 3.0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-encoding": "gzip"})
    await wire.parts(bomb(say))
    await wire.end()
