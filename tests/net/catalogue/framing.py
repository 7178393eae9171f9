"""Good answers in every shape that the framing allows, and a few that it does not."""

from __future__ import annotations

import itertools
import json

from faults import Wire
from says import HALF, PIECES, WHOLE, Dialect, dump, half, rest, whole

from .base import ALL, KIB, MARKED, NOISY, OPENAI, SSE, send_all, works

EOLS = (b"\n", b"\r\n", b"\r")
BOM = b"\xef\xbb\xbf"
LINES = NOISY  # whose events are lines of text


@works("split-utf8")
async def _(wire: Wire, say: Dialect) -> None:
    """Cut before every continuation byte of UTF-8."""
    await wire.head()
    piece = b""
    for number in b"".join(whole(say)):
        if 0x80 <= number < 0xC0:
            await wire.part(piece)
            piece = b""
        piece += bytes([number])
    await wire.part(piece)
    await wire.end()


@works("eol-mixed", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    eols = itertools.cycle(EOLS)
    await send_all(wire, [frame.replace(b"\n", next(eols)) for frame in whole(say)])


@works("eol-crlf", dialects=LINES)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [frame.replace(b"\n", b"\r\n") for frame in whole(say)])


@works("eol-cr", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [frame.replace(b"\n", b"\r") for frame in whole(say)])


@works("eol-crlf-split", dialects=LINES)
async def _(wire: Wire, say: Dialect) -> None:
    """Every CR and its LF in writes of their own."""
    await wire.head()
    for frame in whole(say):
        for line in frame.split(b"\n")[:-1]:
            await wire.part(line + b"\r")
            await wire.part(b"\n")
    await wire.end()


def _with_text_first(say: Dialect) -> list[bytes]:
    """An answer whose first event has text already, where that is possible."""
    return whole(say)[1:] if say.name == "openai" else whole(say)


@works("bom", dialects=LINES)
async def _(wire: Wire, say: Dialect) -> None:
    first, *others = _with_text_first(say)
    await send_all(wire, [BOM + first, *others])


@works("bom-split", dialects=LINES)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [BOM[:1], BOM[1:2], BOM[2:], *_with_text_first(say)])


@works("empty-events", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    nothing = b"\n\n\nevent: message\n\nid: 7\n\nevent: error\nid: 8\n\n"
    await send_all(wire, [part for frame in whole(say) for part in (nothing, frame)])


@works("unicode-separators", HALF + "a\u2028b\u2029c\x85d\x0be\x0cf" + "".join(PIECES[3:]))
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*half(say), say.delta("a\u2028b\u2029c\x85d\x0be\x0cf"), *rest(say)])


@works("data-after-done", dialects=tuple(name for name in ALL if name != "gemini"))
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*whole(say), say.delta("more"), say.garbage(b'{"broken')])


@works("comments", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    inside = [frame.replace(b"data:", b": inside\ndata:") for frame in whole(say)]
    await send_all(wire, [b": first\n", *(part for f in inside for part in (b":\n\n", f))])


@works("comment-flood", dialects=NOISY)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*[say.noise() * 1000] * 20, *whole(say)])


@works("no-space", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    frames = whole(say)
    frames = [f.replace(b"data: ", b"data:").replace(b"event: ", b"event:") for f in frames]
    await send_all(wire, frames)


@works("two-spaces", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [frame.replace(b"data: ", b"data:  ") for frame in whole(say)])


def _pretty(frame: bytes) -> bytes:
    """The same event, its JSON over many lines."""
    head, _, data = frame.partition(b"data: ")
    if not data.startswith(b"{"):
        return frame
    text = json.dumps(json.loads(data), ensure_ascii=False, indent=1)
    return head + b"".join(f"data: {line}\n".encode() for line in text.split("\n")) + b"\n"


@works("multi-line-data", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [_pretty(frame) for frame in whole(say)])


@works("unknown-fields", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    fields = b"id: a\0b\nretry: soon\nretry: 10\nid: 7\nwhatever: 1\nnothing\n"
    await send_all(wire, [fields + frame for frame in whole(say)])


@works("field-without-colon", dialects=SSE)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [frame.replace(b"data: {", b"data\ndata: {") for frame in whole(say)])


@works("named-events", dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [b"event: message\n" + frame for frame in whole(say)])


@works("done-tight", dialects=OPENAI)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*whole(say)[:-1], b"data:[DONE]  \n\n"])


@works("done-twice", dialects=MARKED)
async def _(wire: Wire, say: Dialect) -> None:
    await send_all(wire, [*whole(say), say.marker(), say.marker()])


@works("array-of-json", dialects=("gemini",))
async def _(wire: Wire, say: Dialect) -> None:
    """One JSON array, of which every byte comes by itself."""
    payloads = [json.loads(frame.removeprefix(b"data: ")) for frame in whole(say)]
    await wire.head(headers={"content-type": "application/json"})
    await wire.parts([bytes([byte]) for byte in dump(payloads)])
    await wire.end()


@works("small-pieces", WHOLE + "x" * 64 * KIB)
async def _(wire: Wire, say: Dialect) -> None:
    """Frames and pieces of frames do not come together."""
    body = b"".join([*half(say), *rest(say)[:3], say.delta("x" * 64 * KIB), *rest(say)[3:]])
    body += say.marker()
    await send_all(wire, [body[place : place + 777] for place in range(0, len(body), 777)])
