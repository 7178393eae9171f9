"""The floor: the least that a client on httpx can do, written by hand.

`aiter_bytes`, a split at blank lines, one typed decode per event of only the fields that are read,
one list append. No limits, no time-outs of its own, no errors, no end check, nothing kept but text.
A library is measured by how little it adds to this.
"""

from collections.abc import Awaitable, Callable

import httpx
import msgspec

Read = Callable[[bytes, list[str]], bytes]


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]


class _TextDelta(msgspec.Struct, gc=False):
    text: str | None = None
    stop_reason: str | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    delta: _TextDelta | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def read_openai(data: bytes, parts: list[str]) -> bytes:
    """Append the text of all whole events in `data` to `parts`; give back the unfinished rest."""
    *blocks, rest = data.split(b"\n\n")
    for block in blocks:
        payload = block[6:]
        if payload == b"[DONE]":
            break
        for choice in _decode_chunk(payload).choices:
            if choice.delta.content:
                parts.append(choice.delta.content)
    return rest


def read_openai_lines(data: bytes, parts: list[str]) -> bytes:
    """The same, looking at every line: a little more than the least, for comparison."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        if not line.startswith(b"data: "):
            continue
        payload = line[6:]
        if payload == b"[DONE]":
            break
        for choice in _decode_chunk(payload).choices:
            if choice.delta.content:
                parts.append(choice.delta.content)
    return rest


def read_anthropic(data: bytes, parts: list[str]) -> bytes:
    """The same for Anthropic's events, which have an `event:` line before the data."""
    *blocks, rest = data.split(b"\n\n")
    for block in blocks:
        delta = _decode_event(block[block.index(b"\ndata: ") + 7 :]).delta
        if delta is not None and delta.text:
            parts.append(delta.text)
    return rest


def stream(url: str, read: Read) -> Callable[[], Awaitable[int]]:
    """A function that reads one stream and gives the length of its text."""
    client = httpx.AsyncClient()

    async def run() -> int:
        parts: list[str] = []
        rest = b""
        async with client.stream("POST", url, json=_BODY) as response:
            async for data in response.aiter_bytes():
                rest = read(rest + data, parts)
        return len("".join(parts))

    return run


def stream_sync(url: str, read: Read) -> Callable[[], int]:
    """The same on httpx's sync client."""
    client = httpx.Client()

    def run() -> int:
        parts: list[str] = []
        rest = b""
        with client.stream("POST", url, json=_BODY) as response:
            for data in response.iter_bytes():
                rest = read(rest + data, parts)
        return len("".join(parts))

    return run


_BODY = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": True}
