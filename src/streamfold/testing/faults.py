"""Faults for your own tests: what a network or a provider does wrong, on purpose.

    from streamfold.testing import EmbeddedProvider, faults

    def test_my_program_survives():
        with EmbeddedProvider() as provider:
            provider.inject(faults.status(503), None, faults.cut(after=3))
            ...  # the first request fails, the second is answered, the third breaks off

A fault is a function that makes a reply worse, so you may write others; `inject` works on every
server of this package. Faults that have a place (`after`) count the pieces of a reply: the events
of a stream, the reads of a replay. A reply in one piece, such as an answer that is not streamed,
has two: it breaks in its middle.
"""

from __future__ import annotations

from typing import Final

import msgspec
import orjson

from streamfold.testing.server import Ending, Fault, Reply

__all__ = ["Fault", "cut", "malformed", "slow", "stall", "status"]

_FOR_EVER: Final = 3600.0  # seconds; the client's leaving ends every wait


def status(code: int, *, retry_after: float | None = None, message: str = "it broke") -> Fault:
    """Another status instead of the reply, with an error body that all dialects can read.

    `retry_after`: seconds that the server asks to wait, if it does.
    """

    def fault(reply: Reply) -> Reply:
        headers = {"content-type": "application/json"}
        if retry_after is not None:
            headers["retry-after"] = f"{retry_after:g}"
        body = orjson.dumps({"error": {"message": message}})
        return Reply(status=code, headers=headers, body=body)

    return fault


def cut(after: int = 0, *, reset: bool = False) -> Fault:
    """The connection closes after so many pieces, before the announced end; with `reset`, by a TCP
    reset, which may overtake what was sent before."""
    return lambda reply: _ended(reply, after, "reset" if reset else "cut")


def stall(after: int | None = None) -> Fault:
    """Nothing more comes after so many pieces, and the connection stays open. None: not even the
    head of the reply comes."""
    if after is None:
        return lambda reply: msgspec.structs.replace(reply, head_delay=_FOR_EVER)
    return lambda reply: _ended(reply, after, "hang")


def slow(seconds: float) -> Fault:
    """A pause of so many seconds before each piece, and before the head."""
    return lambda reply: msgspec.structs.replace(reply, head_delay=seconds, delays=seconds)


def malformed(after: int = 0, event: bytes = b'data: {"broken": \n\n') -> Fault:
    """What no dialect can read, after so many pieces; then the reply goes on."""

    def fault(reply: Reply) -> Reply:
        pieces = _pieces(reply, after)
        return msgspec.structs.replace(reply, body=[*pieces[:after], event, *pieces[after:]])

    return fault


def _ended(reply: Reply, after: int, end: Ending) -> Reply:
    return msgspec.structs.replace(reply, body=_pieces(reply, after)[:after], end=end)


def _pieces(reply: Reply, after: int) -> list[bytes]:
    """The pieces of a reply; of one alone, its halves, if it is to break after it."""
    pieces = reply.pieces()
    if len(pieces) == 1 and after:
        middle = len(pieces[0]) // 2
        return [pieces[0][:middle], pieces[0][middle:]]
    return pieces
