"""The floor: the least that a client on httpx can do, written by hand.

`aiter_bytes`, a cut at the ends of events, one typed decode per event of only the fields that are
read, one list append. No limits, no time-outs of its own, no errors, no end check, nothing kept but
text. A library is measured by how little it adds to this.
"""

from collections.abc import Awaitable, Callable
from struct import Struct
from zlib import crc32

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


class _ResponsesEvent(msgspec.Struct, gc=False):
    type: str
    delta: str = ""


class _Part(msgspec.Struct, gc=False):
    text: str = ""


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct, gc=False):
    content: _Content = msgspec.field(default_factory=_Content)
    finishReason: str | None = None


class _Generated(msgspec.Struct, gc=False):
    candidates: list[_Candidate] = []


class _Message(msgspec.Struct, gc=False):
    content: str = ""


class _Line(msgspec.Struct, gc=False):
    message: _Message
    done: bool = False


class _CohereContent(msgspec.Struct, gc=False):
    text: str = ""


class _CohereMessage(msgspec.Struct, gc=False):
    content: _CohereContent | list[None] = msgspec.field(default_factory=_CohereContent)


class _CohereDelta(msgspec.Struct, gc=False):
    message: _CohereMessage = msgspec.field(default_factory=_CohereMessage)


class _CohereEvent(msgspec.Struct, gc=False):
    type: str
    delta: _CohereDelta | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_response = msgspec.json.Decoder(_ResponsesEvent).decode
_decode_generated = msgspec.json.Decoder(_Generated).decode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_cohere = msgspec.json.Decoder(_CohereEvent).decode
_prelude = Struct("!III").unpack_from
_checksum = Struct("!I").unpack_from


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


def read_responses(data: bytes, parts: list[str]) -> bytes:
    """The same for OpenAI's Responses."""
    *blocks, rest = data.split(b"\n\n")
    for block in blocks:
        event = _decode_response(block[block.index(b"\ndata: ") + 7 :])
        if event.type == "response.output_text.delta":
            parts.append(event.delta)
    return rest


def read_gemini(data: bytes, parts: list[str]) -> bytes:
    """The same for Gemini's events, whose lines end in CR and LF."""
    *blocks, rest = data.split(b"\r\n\r\n")
    for block in blocks:
        for candidate in _decode_generated(block[6:]).candidates:
            for part in candidate.content.parts:
                parts.append(part.text)
    return rest


def read_bedrock(data: bytes, parts: list[str]) -> bytes:
    """The same for Bedrock's binary messages, whose two checksums are part of reading them."""
    place, size = 0, len(data)
    while size - place >= 12:
        total, headers, checksum = _prelude(data, place)
        if crc32(data[place : place + 8]) != checksum:
            raise ValueError("damaged")
        if size - place < total:
            break
        delta = None
        start, end = place + 12 + headers, place + total - 4
        if crc32(data[place:end]) != _checksum(data, end)[0]:
            raise ValueError("damaged")
        if data.find(b"contentBlockDelta", place, start) > 0:
            delta = _decode_bedrock(data[start:end]).delta
        if delta is not None and delta.text:
            parts.append(delta.text)
        place += total
    return data[place:]


class _BedrockEvent(msgspec.Struct, gc=False):
    delta: _TextDelta | None = None


_decode_bedrock = msgspec.json.Decoder(_BedrockEvent).decode


def read_ollama(data: bytes, parts: list[str]) -> bytes:
    """The same for Ollama's lines."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        content = _decode_line(line).message.content
        if content:
            parts.append(content)
    return rest


def read_cohere(data: bytes, parts: list[str]) -> bytes:
    """The same for Cohere's events."""
    *blocks, rest = data.split(b"\n\n")
    for block in blocks:
        if not block.startswith(b"event: content-delta"):
            continue
        delta = _decode_cohere(block[block.index(b"\ndata: ") + 7 :]).delta
        if delta is not None and isinstance(delta.message.content, _CohereContent):
            parts.append(delta.message.content.text)
    return rest


def stream(url: str, read: Read) -> Callable[[], Awaitable[int]]:
    """A function that reads one stream and gives the length of its text."""
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=2_000), timeout=60)

    async def run() -> int:
        parts: list[str] = []
        rest = b""
        async with client.stream("POST", url, json=_BODY) as response:
            async for data in response.aiter_bytes():
                rest = read(rest + data, parts)
        return len("".join(parts))

    return run


class _WholeMessage(msgspec.Struct, gc=False):
    message: _Delta


class _Whole(msgspec.Struct, gc=False):
    choices: list[_WholeMessage]


_decode_whole = msgspec.json.Decoder(_Whole).decode


def ask(url: str) -> Callable[[], Awaitable[int]]:
    """A function that asks for one answer that is not streamed."""
    client = httpx.AsyncClient()

    async def run() -> int:
        response = await client.post(url, json=_BODY)
        return len(_decode_whole(response.content).choices[0].message.content or "")

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
