"""What is fuzzed: functions of bytes that raise only if something is wrong.

Each takes any bytes at all, as atheris gives them (``atheris.Setup(argv, TARGETS["sse"])``) and the
driver of this folder does. A target says more than "nothing escapes": cut in two ways, the bytes
must mean the same; what comes out can be read, stored and read back; nothing is kept over a limit.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from decoding import Sample, check_readable, decode, decode_whole, samples, wire
from streamfold.errors import StreamfoldError
from streamfold.json_fields import FieldReader
from streamfold.limits import Limits
from streamfold.net.chunked import ChunkedBody
from streamfold.net.retry import retry_after
from streamfold.partial_json import ObjectScanner, best_reading, nesting, strict_object
from streamfold.secret import redact
from streamfold.vendors import DIALECTS
from streamfold.wire.eventstream import MAX_HEADERS, EventStreamFramer
from streamfold.wire.google_status import status_pause, status_reason
from streamfold.wire.json_array import JSONArrayFramer
from streamfold.wire.ndjson import NDJSONFramer
from streamfold.wire.sse import SSEFramer

__all__ = ["TARGETS", "seeds"]

Target = Callable[[bytes], None]

_LIMIT = 200  # bytes of an event: small, so that the limit is met
_AROUND = {EventStreamFramer: MAX_HEADERS + 16}  # what a framer may hold besides an event
_BYTEWISE = 500  # the longest input that is fed byte by byte


def cut(body: bytes, seed: bytes) -> list[bytes]:
    """`body` in pieces; the seed says where."""
    rng = random.Random(seed)
    places = sorted({rng.randint(0, len(body)) for _ in range(rng.randint(0, 8))})
    return [body[start:end] for start, end in pairwise([0, *places, len(body)])]


# ---- framers -------------------------------------------------------------------------------------


def _framed(kind: Any, pieces: list[bytes], limit: int) -> tuple[list[Any], str]:
    framer = kind(limit)
    frames = []
    for piece in pieces:
        frames += framer.feed(piece)
        assert sum(map(len, framer._held)) <= limit + len(piece) + _AROUND.get(kind, 16)
    rest = framer.close()
    if framer.error is None and rest:
        frames += [framer.read(block) for block in framer.split(rest)]
    assert framer.error is None or isinstance(framer.error, StreamfoldError)
    return [frame for frame in frames if frame is not None], repr(framer.error)


def framer_of(kind: Any) -> Target:
    def target(data: bytes) -> None:
        seed, body = data[:4], data[4:]
        for limit in (_LIMIT, 1 << 20):
            whole = _framed(kind, [body], limit)
            assert _framed(kind, cut(body, seed), limit) == whole
            if len(body) <= _BYTEWISE:
                assert _framed(kind, [bytes([byte]) for byte in body], limit) == whole

    return target


def chunked(data: bytes) -> None:
    """The chunked coding: the same body wherever it was cut, and never more than was sent."""
    seed, body = data[:4], data[4:]

    def read(pieces: list[bytes]) -> tuple[bytes, bool, str]:
        reader, found = ChunkedBody(), b""
        pieces = [*filter(None, pieces), b""]  # a read without bytes is the connection's end
        for place, piece in enumerate(pieces):
            found += reader.feed(piece)
            if reader.done:
                rest = reader.rest + b"".join(pieces[place + 1 :])
                return found, True, rest.decode("latin-1")
            if reader.error is not None:
                break
        return found, False, type(reader.error).__name__ if reader.error else ""

    whole = read([body])
    assert len(whole[0]) <= len(body)
    pieces = read(cut(body, seed))
    assert pieces[1:] == whole[1:]
    assert pieces[0] == whole[0]


# ---- values --------------------------------------------------------------------------------------


def partial_json(data: bytes) -> None:
    """Unfinished JSON: a best reading of any text or a ValueError, a strict one that agrees with
    it, and the fields of any cutting."""
    seed, text = data[:4], data[4:].decode("utf-8", "surrogateescape")
    pieces = [piece.decode("utf-8", "replace") for piece in cut(data[4:], seed)]
    nesting(text, 5)
    try:
        best = best_reading(text)
    except ValueError:
        best = ValueError
    try:
        strict = strict_object(text)
    except ValueError:
        pass
    else:
        assert best == strict or nesting(text, 64) > 20
    joined = "".join(pieces)
    scanner = ObjectScanner()
    steps = [scanner.scan(pieces[: count + 1]) for count in range(len(pieces))]
    assert steps == sorted(steps)  # once closed, always closed
    assert scanner.closed == ObjectScanner().scan([joined])
    one, other = FieldReader(), FieldReader()
    found = one.feed(joined)
    assert [field for piece in pieces for field in other.feed(piece)] == found


def retry_headers(data: bytes) -> None:
    """What servers ask to wait: a finite time ahead, or nothing."""
    text = data.decode("latin-1")
    first, _, second = text.partition("\n")
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for headers in (
        {"retry-after": text},
        {"retry-after-ms": text},
        {"retry-after-ms": first, "retry-after": second},
    ):
        seconds = retry_after(headers, now)
        assert seconds is None or 0 < seconds < float("inf")
    try:
        error = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(error, dict):
        pause = status_pause(error)
        assert pause is None or 0 < pause < float("inf")
        assert isinstance(status_reason(error), str | None)


def secrets(data: bytes) -> None:
    """A key is in no text that was cleaned of it."""
    text = data.decode("utf-8", "replace")
    key = text[:12]
    cleaned = redact(text, [key])
    assert len(key) < 4 or key not in cleaned.replace("***", "")


# ---- decoders ------------------------------------------------------------------------------------


def decoder_of(name: str) -> Target:
    """A dialect: any bytes, cut twice; and as a body that is not a stream."""

    def target(data: bytes) -> None:
        seed, body = data[:4], data[4:]
        whole = decode(name, body)
        check_readable(whole)
        pieces = decode(name, cut(body, seed))
        assert pieces.events == whole.events
        assert repr(pieces.error) == repr(whole.error)
        prefix = decode(name, body[: len(body) // 2])
        check_readable(prefix)
        small = Limits(event_bytes=_LIMIT, message_bytes=2000, tool_args_bytes=50, json_depth=6)
        check_readable(decode(name, cut(body, seed), small))
        if body.lstrip()[:1] in b"{[":
            check_readable(decode_whole(name, body))

    return target


#: What a value may be replaced by, besides other values of the same answer.
_HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "\0", "\ud800", "\udc00", "a" * 3000, "null", "[]", "{}", "{", "\u2028",
    [], [[]], [None], [0], ["x"], [{}], {}, {"": None}, {"type": None}, {"text": 1},
    {"x": {"x": {}}},
    {"type": "text"}, {"type": []}, {"id": {}, "name": [], "arguments": 5, "input": "x"},
]  # fmt: skip


@cache
def _recorded() -> list[tuple[Sample, list[bytes]]]:
    return [(sample, sample.text.split(b"\n")) for sample in samples()]


def payloads(data: bytes) -> None:
    """An answer of some dialect whose payloads have been tampered with: values replaced, swapped,
    left out, doubled, wrapped; events left out, repeated, in another order."""
    rng = random.Random(data)
    sample, lines = rng.choice(_recorded())
    body = wire(sample.dialect, b"\n".join(tampered(rng, lines)))
    whole = decode(sample.dialect, body)
    check_readable(whole)
    for short_way in (True, False):
        pieces = decode(sample.dialect, cut(body, data + b"x"), short_way=short_way)
        assert pieces.events == whole.events, sample.case
        assert repr(pieces.error) == repr(whole.error)
    if sample.whole is not None:
        value = json.loads(sample.whole)
        for _ in range(rng.randint(1, 3)):
            value = _mutated(rng, value, value)
        check_readable(decode_whole(sample.dialect, _dumps(value)))


def tampered(rng: random.Random, lines: list[bytes]) -> Iterator[bytes]:
    """The lines of an answer, with a few of their payloads changed."""
    chosen = {rng.randrange(len(lines)) for _ in range(rng.choice((1, 1, 2, 3, 8)))}
    everything = [_loads(line) for line in lines]
    for place, line in enumerate(lines):
        prefix = b"data: " if line.startswith(b"data: ") else b""
        if place not in chosen or everything[place] is None:
            yield line
            continue
        value = everything[place]
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            value = _mutated(rng, value, rng.choice(everything))
        yield prefix + _dumps(value)
        if rng.random() < 0.1:
            yield b""
            yield line


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line.removeprefix(b"data: "))
    except ValueError:
        return None


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


def _mutated(rng: random.Random, value: Any, other: Any) -> Any:
    """`value` with one node changed; the deeper, the less likely it is the node itself."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return _another(rng, value, other)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        kind = rng.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return {**rest, rng.choice((*value, "new", "type", "index", "")): value[key]}
        return {**value, key: _mutated(rng, value[key], other)}
    place = rng.randrange(len(value))
    kind = rng.random()
    if kind < 0.1:
        return value[:place] + value[place + 1 :]
    if kind < 0.2:
        return [*value, *value]
    return [*value[:place], _mutated(rng, value[place], other), *value[place + 1 :]]


def _another(rng: random.Random, value: Any, other: Any) -> Any:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(_HOSTILE)
    if kind < 0.8:
        return rng.choice(list(_nodes(other)))
    return rng.choice(([value], {"x": value}, {"type": value}, str(value), [value, value]))


def _nodes(value: Any) -> Iterator[Any]:
    yield value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        yield from _nodes(each)


# ---- all of them ---------------------------------------------------------------------------------

TARGETS: dict[str, Target] = {
    "sse": framer_of(SSEFramer),
    "ndjson": framer_of(NDJSONFramer),
    "json_array": framer_of(JSONArrayFramer),
    "eventstream": framer_of(EventStreamFramer),
    "chunked": chunked,
    "partial_json": partial_json,
    "retry_after": retry_headers,
    "secrets": secrets,
    "payloads": payloads,
    **{f"decode_{name}": decoder_of(name) for name in DIALECTS},
}


def seeds(name: str) -> list[bytes]:
    """Where mutation starts: good inputs of a target, and those that once found something."""
    found = sorted((Path(__file__).parent / "found" / name).glob("*"))
    return [*(path.read_bytes() for path in found), *_good(name)]


def _good(name: str) -> Iterator[bytes]:
    dialect = name.removeprefix("decode_")
    for sample in samples():
        if dialect in (sample.dialect, _FRAMINGS.get(sample.dialect, "sse")):
            yield b"seed" + sample.stream
            if dialect == sample.dialect and sample.whole:
                yield b"seed" + sample.whole
        if name == "partial_json" and sample.whole:
            yield b"seed" + sample.whole[:400]
    yield from _FURTHER.get(name, (b"seed",))


_FRAMINGS = {"bedrock": "eventstream", "ollama": "ndjson"}
_FURTHER: dict[str, tuple[bytes, ...]] = {
    "json_array": (b'seed[{"a": [1, "]"]},\r\n{"b": "\\""}\n,{"c": {}}]', b"seed[]"),
    "chunked": (
        b"seed5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK",
        b"seedA;x=1\r\n0123456789\r\n1\r\n!\r\n0\r\nx-trailer: 1\r\n\r\n",
    ),
    "retry_after": (
        b"1",
        b"0.7",
        b"1e400",
        b"-5",
        b"Sun, 01 Mar 2026 12:00:30 GMT",
        b"Sunday, 01-Mar-26 12:00:30 GMT",
        b"Sun Mar  1 12:00:30 2026",
        b"Sun, 01 Mar 2026 13:00:30 +0100",
        b'{"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "3s"}]}',
    ),
    "partial_json": (b'seed{"a": {"b": [1, 2.5e3, "\\ud83d\\ude00", true, null]}, "c": "x',),
    "secrets": (b"sk-proj-0123456789abcdef and again sk-proj-0123456789abcdef",),
}
