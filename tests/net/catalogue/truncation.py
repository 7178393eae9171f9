"""Answers that end too early, or do not end."""

from __future__ import annotations

from typing import Any

from faults import Wire
from says import HALF, PIECES, Dialect, half, rest, whole

from streamfold.errors import StreamInterruptedError, StreamProtocolError

from .base import ALL, MARKED, NOISY, OPENAI, PIECEWISE, SSE, fails, send_half, works

#: Those whose last event ends the answer, and those after whose finish reason figures may trail.
ENDED = tuple(name for name in ALL if name != "gemini")
TRAILING = ("openai", "anthropic", "gemini")


@fails("cut-mid-stream", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)


@fails("reset-mid-stream", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    wire.reset()


@fails("clean-end-no-finish", StreamInterruptedError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.end()


@works("done-without-finish", HALF, says={"finish_reason": None}, dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.marker())
    await wire.end()


@fails("close-delimited-cut", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.old_head()
    for frame in half(say):
        await wire.send(frame)


@fails("half-event", StreamInterruptedError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30])
    await wire.end()


@fails("half-event-blank", StreamProtocolError, HALF, dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-30] + b"\n\n")
    await wire.end()


@fails("half-payload", StreamProtocolError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.garbage(b'{"half": "of a pay'))
    await wire.end()


@fails("whole-event-no-blank", StreamInterruptedError, HALF, open=(0, 1), dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.delta(PIECES[3])[:-1])
    await wire.end()


@fails("length-short", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head(headers={"content-length": "100000"}, chunked=False)
    await wire.send(b"".join(half(say)))


@fails("bad-chunk-size", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.send(b"zz\r\nhello\r\n")
    await wire.hang()


@fails("half-close", StreamInterruptedError, HALF)
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
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


@fails(
    "cut-in-tool-args",
    StreamInterruptedError,
    "",
    check=_call_is_invalid,
    open=(0, 1),
    dialects=PIECEWISE,
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*say.tool_start(), say.tool_delta('{"city": "'), say.tool_delta("Zü")])
    await wire.end()


@works("done-missing", dialects=MARKED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say)[:-1])
    await wire.end()


@works("no-last-blank-line", dialects=MARKED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say)[:-1])
    await wire.part(say.marker()[:-1])
    await wire.end()


@works("done-then-hang", seconds=(0.0, 0.4), open=(0, 0), dialects=ENDED)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say))
    await wire.hang()


@works("finish-then-hang", slow=True, seconds=(0.2, 1.0), open=(0, 0), dialects=TRAILING)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])
    await wire.hang()


@works("finish-then-cut", open=(0, 0))
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])


@works("finish-then-drip", slow=True, seconds=(0.2, 1.0), open=(0, 0), dialects=TRAILING)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts([*half(say), *rest(say)])
    while True:
        await wire.part(say.noise())
        await wire.pause(0.05)


@works(
    "done-then-drip",
    seconds=(0.0, 0.6),
    open=(0, 0),
    dialects=tuple(name for name in ENDED if name in NOISY),
)
async def _(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(whole(say))
    while True:
        await wire.part(say.noise())
        await wire.pause(0.01)
