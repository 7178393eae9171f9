"""Payloads that vendors and servers like theirs have been seen to send."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from faults import Wire
from says import HALF, PIECES, WHOLE, Dialect, half, rest, whole

from streamfold.errors import StreamProtocolError

from .base import ALL, ANTHROPIC, OPENAI, fails, send_all, send_half, works

REST = "".join(PIECES[3:])


def _between(name: str, make: Callable[[Any], list[bytes]], text: str = WHOLE, **row: Any) -> None:
    """A row that is not noticed: odd frames in the middle of an answer."""

    async def act(wire: Wire, say: Dialect) -> None:
        await send_all(wire, [*half(say), *make(say), *rest(say), say.marker()])

    works(name, text, **{"dialects": OPENAI, **row})(act)


_between("choices-empty", lambda say: [say.frame({**say.top, "choices": []})])
_between("choices-null", lambda say: [say.frame({**say.top, "choices": None})])
_between("choices-missing", lambda say: [say.frame(say.top)])
_between("delta-null", lambda say: [say.chunk(None)])
_between("delta-missing", lambda say: [say.frame({**say.top, "choices": [{"index": 0}]})])
_between(
    "not-an-object",
    lambda say: [say.garbage(text) for text in (b"[]", b"null", b"42", b'"text"')],
    dialects=ALL,
)
_between(
    "index-as-string",
    lambda say: [
        say.frame({**say.top, "created": 1.5, "choices": [{"index": "0", "delta": {}}]}),
    ],
)
_between(
    "big-int",
    lambda say: [say.chunk({}).replace(b"1700000000", b"9" * 4000)],
)
_between("nul-raw", lambda say: [say.raw(b'"a\x00b"')], HALF + "a\x00b" + REST)
_between(
    "nul-escaped",
    lambda say: [say.raw(b'"a\\u0000b"')],
    HALF + "a\x00b" + REST,
    dialects=ALL,
)
_between(
    "lone-surrogate",
    lambda say: [say.raw(b'"\\ud83c"'), say.raw(b'"\\udf0a"')],
    HALF + "🌊" + REST,
    dialects=ALL,
)
_between("content-null", lambda say: [say.chunk({"role": "assistant", "content": None})])
_between(
    "tool-calls-null", lambda say: [say.chunk({"tool_calls": None}), say.chunk({"tool_calls": []})]
)
_between("usage-null", lambda say: [say.chunk({"content": ""}, usage=None)])
_between(
    "unknown-keys",
    lambda say: [say.chunk({"new": {"x": [1]}}, other=[None]), say.frame({**say.top, "new": 1})],
)
_between(
    "nan",
    lambda say: [say.chunk({}).replace(b"1700000000", b"NaN"), say.raw(b'"", "x": -Infinity')],
)
_between(
    "unknown-event",
    lambda say: [say.frame({"type": "something_new", "x": {"y": 1}}, "something_new")],
    dialects=("responses", "anthropic", "gemini", "bedrock", "cohere"),
)
_between(
    "unknown-delta",
    lambda say: [
        say.piece({"type": "new_delta", "x": 1}),
        say.block(1, {"type": "new_block", "x": 1}),
        say.piece({"type": "new_delta", "x": 2}, 1),
        say.stop(1),
    ],
    dialects=ANTHROPIC,
)


def _reasoned(message: Any) -> None:
    (block,) = [b for b in message.content_blocks if b["type"] == "reasoning"]
    assert block["reasoning"] == "let me see"
    assert message.text == WHOLE


_between(
    "reasoning",
    lambda say: [
        say.chunk({"reasoning_content": "let me "}),
        say.chunk({"reasoning_content": "see"}),
    ],
    check=_reasoned,
)


@works("pings", dialects=ANTHROPIC)
async def _(wire: Wire, say: Dialect) -> None:
    ping = say.frame({"type": "ping"})
    await send_all(wire, [part for frame in whole(say) for part in (ping, frame, ping)])


@works("bare-chunks", dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(
        wire,
        [
            *(say.frame({"choices": [{"delta": {"content": piece}}]}) for piece in PIECES),
            say.frame({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
            say.marker(),
        ],
    )


@works("two-choices", dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    """Only the first of several answers is this message's."""

    def second(frame: bytes) -> bytes:
        return frame.replace(b'"index": 0', b'"index": 1').replace("Zürich".encode(), b"Geneva")

    frames = whole(say)[:-2]
    await send_all(wire, [part for frame in frames for part in (frame, second(frame))])


@fails("bad-utf8", StreamProtocolError, HALF, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    await send_half(wire, say)
    await wire.part(say.raw(b'"a\xffb"'))
    await wire.end()


def _usage(message: Any) -> None:
    usage = message.usage_metadata
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3, 6, 9)


@works("usage-last", dialects=OPENAI, check=_usage)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, whole(say))


@works("usage-running", dialects=OPENAI, check=_usage)
async def _(wire: Wire, say: Any) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    start, *deltas = half(say)
    running = [say.frame({**json.loads(d[6:]), "usage": usage}) for d in deltas]
    await send_all(wire, [start, *running, *rest(say), say.marker()])


@works("finish-with-content", dialects=OPENAI)
async def _(wire: Wire, say: Any) -> None:
    pieces = [say.delta(piece) for piece in PIECES[:-1]]
    await send_all(wire, [*pieces, say.chunk({"content": PIECES[-1]}, "stop"), say.marker()])


@works("finish-twice", dialects=OPENAI)
async def _(wire: Wire, say: Any) -> None:
    await send_all(wire, [*half(say), *rest(say), say.chunk({}, "stop"), say.marker()])


@works("finish-unknown", dialects=OPENAI + ANTHROPIC, says={"finish_reason": "eos"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*half(say), *rest(say)[:3], *say.ending("eos"), say.marker()])


@works("finish-length", dialects=OPENAI + ANTHROPIC, says={"finish_reason": "length"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*half(say), *rest(say)[:3], *say.ending("length"), say.marker()])


@works("finish-filter", dialects=OPENAI, says={"finish_reason": "content_filter"})
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*half(say), *rest(say)[:3], *say.ending("content_filter"), say.marker()])


@fails("no-message-start", StreamProtocolError, requests=(1, 3), dialects=ANTHROPIC)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, whole(say)[1:])


@fails("delta-for-no-block", StreamProtocolError, HALF, dialects=ANTHROPIC, open=(0, 1))
async def _(wire: Wire, say: Any) -> None:
    await send_half(wire, say)
    await wire.part(say.piece({"type": "text_delta", "text": "lost"}, 7))
    await wire.end()
