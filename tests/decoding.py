"""Bytes through a decoder, for the tests of `wire/` and of the recordings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamfold.chunks import AIMessageChunk, fold_events
from streamfold.errors import StreamfoldError
from streamfold.limits import DEFAULT_LIMITS, Limits
from streamfold.messages import AIMessage, message_from_dict
from streamfold.vendors import DIALECTS, dialect
from streamfold.wire.eventstream import EventStreamFramer, encode_message

SAMPLES = Path(__file__).parent / "wire" / "samples"

__all__ = [
    "Decoded",
    "Sample",
    "bytewise",
    "check_readable",
    "decode",
    "decode_whole",
    "events_of",
    "fold",
    "json_mutants",
    "samples",
    "wire",
]


class Decoded(NamedTuple):
    """What came out of a decoder."""

    chunks: list[AIMessageChunk]
    error: StreamfoldError | None
    decoder: Any

    @property
    def events(self) -> list[list[Any]]:
        """The events, chunk for chunk."""
        return [chunk.events for chunk in self.chunks]

    @property
    def chunk(self) -> AIMessageChunk:
        return fold(self.chunks)

    @property
    def message(self) -> AIMessage:
        return self.chunk.to_message("error" if self.error else None)


def fold(chunks: Iterable[AIMessageChunk]) -> AIMessageChunk:
    return sum(chunks, AIMessageChunk())


def events_of(decoded: Decoded) -> list[Any]:
    return [event for chunk in decoded.chunks for event in chunk.events]


def decoder_of(name: str, limits: Limits = DEFAULT_LIMITS, *, short_way: bool = True) -> Any:
    """A decoder whose made-up ids are the same each time; without the short way if asked."""
    decoder = dialect(name).Decoder(limits)
    decoder._seed = "seed"
    if not short_way:
        decoder.text_path = None
    return decoder


def decode(
    name: str,
    reads: bytes | Iterable[bytes],
    limits: Limits = DEFAULT_LIMITS,
    *,
    short_way: bool = True,
) -> Decoded:
    """A stream, read by read, and its end."""
    decoder = decoder_of(name, limits, short_way=short_way)
    chunks: list[AIMessageChunk] = []
    for data in [reads] if isinstance(reads, bytes) else reads:
        chunks += decoder.feed(data)
    chunks += decoder.close()
    return Decoded(chunks, decoder.error, decoder)


def decode_whole(name: str, body: bytes, limits: Limits = DEFAULT_LIMITS) -> Decoded:
    """A body that is not a stream."""
    decoder = decoder_of(name, limits)
    return Decoded(decoder.whole(body), decoder.error, decoder)


def bytewise(body: bytes) -> list[bytes]:
    return [body[n : n + 1] for n in range(len(body))]


class Sample(NamedTuple):
    """One answer of `tests/wire/samples`: as a stream, as one body, and what it says. `text` is the
    stream as the file has it, which is what travels (`stream`) unless the framing is binary."""

    dialect: str
    case: str
    text: bytes
    stream: bytes
    whole: bytes | None
    expected: dict[str, Any]


def samples(*cases: str) -> list[Sample]:
    """The samples of every dialect there is, or those of some cases."""
    found = []
    for name in DIALECTS:
        for path in sorted((SAMPLES / name).glob("*.stream")):
            whole = path.with_suffix(".json")
            sample = Sample(
                name,
                path.stem,
                path.read_bytes(),
                wire(name, path.read_bytes()),
                whole.read_bytes() if whole.exists() else None,
                json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8")),
            )
            if not cases or sample.case in cases:
                found.append(sample)
    return found


def wire(name: str, text: bytes) -> bytes:
    """The `text` of a sample, perhaps changed, as it travels."""
    if dialect(name).Decoder.framer_type is not EventStreamFramer:
        return text
    return b"".join(_message(block) for block in text.split(b"\n\n"))


def _message(block: bytes) -> bytes:
    """A message of an AWS event stream, written as a server-sent event."""
    head, found, data = block.partition(b"data: ")
    if not found:
        return b""
    event = head.rpartition(b"event: ")[2].strip().decode()
    kind, colon, name = event.partition(":")
    if not colon:
        kind, name = "event", event
    headers = {f":{kind}-type": name, ":message-type": kind}
    return encode_message(headers, data)


def check_readable(decoded: Decoded) -> None:
    """Whatever came out can be read, printed, stored as JSON in UTF-8 and read back."""
    assert decoded.error is None or isinstance(decoded.error, StreamfoldError)
    str(decoded.error)
    repr(decoded.error)
    events = events_of(decoded)
    chunk = decoded.chunk
    stored = json.dumps([chunk.to_dict(), decoded.message.to_dict()], ensure_ascii=False)
    stored.encode()
    back, message = (message_from_dict(data) for data in json.loads(stored))
    assert back == chunk
    assert message == decoded.message
    assert isinstance(back, AIMessageChunk)
    assert back.events == events
    assert (chunk.text, chunk.reasoning) == (decoded.message.text, back.reasoning)
    assert fold_events(events) == chunk
    assert isinstance(chunk.tool_calls, list)
    repr(chunk)


ODD_VALUES: list[Any] = [
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "x",
    "\ud800",
    [],
    [None],
    ["x", 1, [], {}],
    {},
    {"type": ["x"], "text": 1, "index": {}, "id": 5, "name": 7, "function": [], "message": []},
]


def json_mutants(value: Any) -> Iterator[Any]:
    """`value` with one of its nodes replaced by something odd, or left out: all of them."""
    yield from ODD_VALUES
    if isinstance(value, dict):
        for key, inner in value.items():
            rest = {k: v for k, v in value.items() if k != key}
            yield rest
            for mutant in json_mutants(inner):
                yield {**value, key: mutant}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for mutant in json_mutants(inner):
                yield [*value[:place], mutant, *value[place + 1 :]]
        yield [*value, *value]
