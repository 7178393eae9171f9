"""AWS event streams: lengths and checksums that are wrong, and exceptions between the frames."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from faults import Wire
from says import HALF, PIECES, Dialect

from streamfold.errors import (
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    SizeLimitError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.eventstream import encode_message

from .base import QUICK, SMALL, fails, send_half

FRAMES = ("bedrock",)


def _broken(
    name: str, error: Any, change: Callable[[bytes], bytes], *, end: bool = True, **row: Any
) -> None:
    """A row: half an answer, and then a frame that `change` has been at."""

    async def act(wire: Wire, say: Any) -> None:
        await send_half(wire, say)
        await wire.part(change(say.delta(PIECES[3])))
        if end:
            await wire.end()
        else:
            await wire.hang()

    fails(name, error, HALF, dialects=FRAMES, **{"open": (0, 1), **row})(act)


def _flipped(place: int) -> Callable[[bytes], bytes]:
    def flip(frame: bytes) -> bytes:
        damaged = bytearray(frame)
        damaged[place] ^= 0x10
        return bytes(damaged)

    return flip


def _announcing(total: int, headers: int) -> Callable[[bytes], bytes]:
    """A frame whose lengths are these; the checksum of the prelude is right."""

    def announce(frame: bytes) -> bytes:
        lengths = struct.pack("!II", total, headers)
        return lengths + struct.pack("!I", zlib.crc32(lengths)) + frame[12:]

    return announce


# A flipped bit is found whatever it hits: lengths, their checksum, headers, payload, the last sum.
for _where, _place in {
    "total-length": 2,
    "headers-length": 6,
    "prelude-crc": 9,
    "header-name": 14,
    "header-value": 30,
    "payload": -20,
    "message-crc": -2,
}.items():
    _broken(f"frame-flipped-{_where}", StreamProtocolError, _flipped(_place), end=False)

_broken("frame-length-zero", StreamProtocolError, _announcing(0, 0), end=False)
_broken("frame-length-short", StreamProtocolError, _announcing(15, 0), end=False)
_broken("frame-headers-too-long", StreamProtocolError, _announcing(64, 60), end=False)
_broken(
    "frame-too-large",
    SizeLimitError,
    _announcing(0xFFFF_FFFF, 0),
    end=False,
    seconds=(0.0, 0.5),
)
_broken(
    "frame-over-the-limit",
    SizeLimitError,
    _announcing(65 * 1024, 0),
    end=False,
    model={"limits": SMALL},
)
_broken("frame-cut", StreamInterruptedError, lambda frame: frame[:40])
_broken("frame-cut-in-prelude", StreamInterruptedError, lambda frame: frame[:7])
_broken("frame-junk", StreamProtocolError, lambda frame: b"\0" * 64, end=False)
_broken(
    "frame-stalls",
    RequestTimeoutError,
    lambda frame: frame[:40],
    end=False,
    open=(0, 0),
    model={"timeout": QUICK},
    slow=True,
    says={"limit": "idle"},
)
_broken(
    "frame-of-text",
    StreamProtocolError,
    lambda frame: encode_message(
        {":message-type": "event", ":event-type": "contentBlockDelta"}, b"Internal Server Error"
    ),
)

#: Exceptions between the frames, the class of each, and whether it is worth another attempt.
_EXCEPTIONS: dict[str, tuple[Any, bool]] = {
    "internalServerException": (ServerError, True),
    "modelStreamErrorException": (ServerError, True),
    "serviceUnavailableException": (OverloadedError, True),
    "throttlingException": (RateLimitError, True),
    "validationException": (InvalidRequestError, False),
    "accessDeniedException": (PermissionDeniedError, False),
    "aNewException": (ServerError, True),
}


def _exception(name: str, error: Any, again: bool) -> None:
    says = {"message": "it broke", "retryable": again}

    @fails(f"exception-{name}", error, HALF, dialects=FRAMES, open=(0, 1), says=says)
    async def _(wire: Wire, say: Dialect) -> None:
        await send_half(wire, say)
        await wire.part(say.error(name))
        await wire.end()

    first = {"requests": 3 if again else 1, "says": says}

    @fails(f"exception-first-{name}", error, dialects=FRAMES, **first)
    async def _(wire: Wire, say: Dialect) -> None:
        await wire.head()
        await wire.part(say.error(name))
        await wire.end()


for _name, (_class, _again) in _EXCEPTIONS.items():
    _exception(_name, _class, _again)


@fails("error-frame", ServerError, HALF, dialects=FRAMES, open=(0, 1))
async def _(wire: Wire, say: Dialect) -> None:
    """An error that is in the headers alone."""
    await send_half(wire, say)
    headers = {":message-type": "error", ":error-code": "500", ":error-message": "it broke"}
    await wire.part(encode_message(headers, b""))
    await wire.end()
