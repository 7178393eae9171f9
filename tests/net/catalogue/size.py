"""Lines, events, answers, arguments, heads and JSON without bounds."""

from __future__ import annotations

from typing import Any

from faults import Wire
from says import HALF, Dialect, whole

from streamfold.errors import ConnectError, SizeLimitError

from .base import KIB, MIB, NOISY, PIECEWISE, SMALL, SSE, fails, send_half, works

_LARGE: dict[str, Any] = {"model": {"limits": SMALL}, "bytes_sent": 16 * MIB}


@fails("line-unbounded", SizeLimitError, HALF, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.opening())
    while True:
        await wire.part(b"x" * 16 * KIB)


@fails("event-unbounded", SizeLimitError, HALF, **_LARGE, dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    while True:
        await wire.part(b"data: x\n" * 1000)


def _starts_with_half(partial: Any) -> None:
    assert partial.text.startswith(HALF)
    assert len(partial.text) > 256 * KIB


@fails("body-unbounded", SizeLimitError, HALF, check=_starts_with_half, **_LARGE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    while True:
        await wire.part(say.delta("x" * 16 * KIB))


@fails("comments-unbounded", SizeLimitError, HALF, **_LARGE, dialects=NOISY)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    while True:
        await wire.part(say.noise() * 1000)


@fails("tool-args-unbounded", SizeLimitError, "", **_LARGE, dialects=PIECEWISE)
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


@works("event-10-mib", "x" * 10 * MIB, seconds=(0.0, 5.0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*say.start(), say.delta("x" * 10 * MIB), *say.ending()])
    await wire.part(say.marker() or say.noise())
    await wire.end()


@fails("json-deep", SizeLimitError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.garbage(b"[" * 200_000 + b"]" * 200_000))
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
