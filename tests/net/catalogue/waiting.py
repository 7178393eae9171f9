"""Silence, drips and endless answers: the time limits."""

from __future__ import annotations

from typing import Any

from faults import Wire
from says import HALF, PIECES, Dialect, whole

from streamfold import Timeouts
from streamfold.errors import OverloadedError, RequestTimeoutError

from .base import ANTHROPIC, NOISY, QUICK, fails, send_half, works

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


@fails("drip-before-event", RequestTimeoutError, **_STALLED, dialects=NOISY)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    while True:
        await wire.part(say.noise())
        await wire.pause(0.05)


@fails("stall-mid-stream", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.hang()


@fails("stall-mid-event", RequestTimeoutError, HALF, **_IDLE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30])
    await wire.hang()


@fails("drip-comments", RequestTimeoutError, HALF, **_IDLE, dialects=NOISY)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    while True:
        await wire.part(say.noise())
        await wire.pause(0.05)


@fails("drip-pings", RequestTimeoutError, HALF, **_IDLE, dialects=ANTHROPIC)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    while True:
        await wire.part(say.frame({"type": "ping"}))
        await wire.pause(0.05)


@fails("drip-bytes", RequestTimeoutError, HALF, **_IDLE, dialects=NOISY)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.opening())
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
    await send_half(wire, say)
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
    seconds=(0.5, 2.5),
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    for frame in whole(say):
        await wire.pause(0.1)
        await wire.part(frame)
    await wire.end()
