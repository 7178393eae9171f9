"""Server-sent events as bytes, by the WHATWG rules (html.spec.whatwg.org, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

__all__ = ["HEADERS", "HEARTBEAT", "event", "events", "json_line"]

#: A comment: it keeps proxies from closing a connection that is silent, and no client reads it.
HEARTBEAT: Final = b": heartbeat\n\n"

#: Neither a cache nor nginx may hold events back.
HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


_encode: Final = msgspec.json.Encoder(enc_hook=repr).encode


def json_line(value: Any) -> bytes:
    """`value` as JSON, the `data` of an event. What UTF-8 has no bytes for (half a surrogate pair,
    in a chunk that was made by hand) is escaped, so that the other half may follow."""
    try:
        return _encode(value)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(msgspec.to_builtins(value, enc_hook=repr)).encode()


def event(data: bytes, id: str | None = None) -> bytes:
    """One event. `data` is a line, as JSON is."""
    if id is None:
        return b"data: %b\n\n" % data
    return b"id: %b\ndata: %b\n\n" % (id.encode(), data)


def events(payloads: Iterable[bytes]) -> bytes:
    """Several events, without ids."""
    return b"".join(map(event, payloads))
