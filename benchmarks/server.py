"""A loopback server that streams pre-rendered answers, in a process of its own.

    /<framing>/<chunks>/v1/chat/completions     as OpenAI sends them
    /<framing>/<chunks>/v1/messages             as Anthropic sends them

so that `http://127.0.0.1:PORT/burst/20000/v1` is a base URL for any OpenAI client, and
`http://127.0.0.1:PORT/burst/20000` for any Anthropic client. The framings:

    burst   HTTP chunks of 16 KiB that cut events where they please
    event   one HTTP chunk per event, many per write to the socket
    paced   one HTTP chunk per event, a write of its own each, 1 ms apart by an absolute schedule

Run as a program it prints its port and stops at the end of standard input, so with its parent.
"""

import asyncio
import contextlib
import functools
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

BURST_BYTES = 16 * 1024
WRITE_BYTES = 256 * 1024
PACE_SECONDS = 0.001

_WORDS = " the| of|ing| stream|,| and| token|\n| answer| is|.| un|fold|ed| 42| “so”| to|s| model| a"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Date: Sat, 22 Nov 2025 12:00:00 GMT\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Connection: keep-alive\r\n"
    b"X-Request-Id: req_0123456789abcdef0123456789abcdef\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_END_OF_CONVERSATION = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def pieces(chunks: int) -> list[str]:
    """The text of a stream, piece by piece: mostly a word each, as tokens are."""
    words = _WORDS.split("|")
    return [words[i % len(words)] for i in range(chunks)]


def openai_events(chunks: int) -> list[bytes]:
    """A Chat Completions stream: role, text, finish reason, usage, end mark."""
    noise = random.Random(0)
    events = [_openai({"role": "assistant", "content": "", "refusal": None}, noise)]
    events += [_openai({"content": piece}, noise) for piece in pieces(chunks)]
    events.append(_openai({}, noise, finish="stop"))
    events.append(_openai(None, noise, usage=_openai_usage(chunks)))
    return [*events, b"data: [DONE]\n\n"]


def anthropic_events(chunks: int) -> list[bytes]:
    """A Messages stream: one text block between a start and an end."""
    noise = random.Random(0)
    return [
        _anthropic("message_start", noise, message=_anthropic_message()),
        _anthropic("content_block_start", noise, index=0, content_block=_text_block()),
        b'event: ping\ndata: {"type": "ping"}\n\n',
        *(_anthropic_text(piece, noise) for piece in pieces(chunks)),
        _anthropic("content_block_stop", noise, index=0),
        _anthropic("message_delta", noise, **_anthropic_end(chunks)),
        _anthropic("message_stop", noise),
    ]


def _openai(
    delta: dict[str, Any] | None,
    noise: random.Random,
    finish: str | None = None,
    usage: dict[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    payload = {
        "id": "chatcmpl-CMKAuuvC6E26nL6HLZzTrysEvC8Ln",
        "object": "chat.completion.chunk",
        "created": 1763812800,
        "model": "gpt-4.1-2025-04-14",
        "service_tier": "default",
        "system_fingerprint": "fp_cbf1785567",
        "choices": [] if delta is None else [choice],
        "usage": usage,
        "obfuscation": "".join(noise.choices(_LETTERS, k=noise.randint(2, 14))),
    }
    return b"data: " + _json(payload) + b"\n\n"


def _openai_usage(chunks: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 8,
        "completion_tokens": chunks,
        "total_tokens": 8 + chunks,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _anthropic(name: str, noise: random.Random, **fields: Any) -> bytes:
    padding = b" " * noise.randint(0, 12)  # theirs, inside the object: it hides the length
    body = _json({"type": name, **fields})[:-1] + padding + b"}"
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


def _anthropic_text(piece: str, noise: random.Random) -> bytes:
    delta = {"type": "text_delta", "text": piece}
    return _anthropic("content_block_delta", noise, index=0, delta=delta)


def _anthropic_message() -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5-20250929",
        "id": "msg_011CdD8kd2BCHcbXAHcYxvaf",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _anthropic_usage(2),
    }


def _anthropic_usage(output: int) -> dict[str, Any]:
    return {
        "input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _anthropic_end(chunks: int) -> dict[str, Any]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 8, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"delta": delta, "usage": {**usage, "output_tokens": chunks}}


def _text_block() -> dict[str, str]:
    return {"type": "text", "text": ""}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def _burst(events: Sequence[bytes]) -> list[bytes]:
    chunks = [_http_chunk(part) for part in _cut(b"".join(events), BURST_BYTES)]
    return _cut(b"".join(chunks) + b"0\r\n\r\n", WRITE_BYTES)


def _event(events: Sequence[bytes]) -> list[bytes]:
    return _cut(b"".join(map(_http_chunk, events)) + b"0\r\n\r\n", WRITE_BYTES)


def _paced(events: Sequence[bytes]) -> list[bytes]:
    return [*map(_http_chunk, events), b"0\r\n\r\n"]


_EVENTS = {"chat/completions": openai_events, "messages": anthropic_events}
_FRAMINGS = {"burst": _burst, "event": _event, "paced": _paced}


@functools.cache
def _render(framing: str, chunks: int, api: str) -> list[bytes]:
    """What to write to the socket, write by write."""
    return _FRAMINGS[framing](_EVENTS[api](chunks))


def _route(head: bytes) -> tuple[str, int, str] | None:
    """`(framing, chunks, api)` of a request, `None` if there is no such path."""
    path = head.split(b" ", 2)[1].decode("ascii").partition("?")[0]
    parts = path.split("/", 4)
    if len(parts) != 5 or parts[1] not in _FRAMINGS or parts[4] not in _EVENTS:
        return None
    return parts[1], int(parts[2]), parts[4]


def _body_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection. asyncio has set TCP_NODELAY on it."""
    with contextlib.suppress(*_END_OF_CONVERSATION):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_body_length(head))
            await _answer(_route(head), writer)
    writer.close()


async def _answer(route: tuple[str, int, str] | None, writer: asyncio.StreamWriter) -> None:
    if route is None:
        writer.write(_NOT_FOUND)
        return
    writes = _render(*route)
    writer.write(_HEAD)
    await (_pace(writes, writer) if route[0] == "paced" else _pour(writes, writer))


async def _pour(writes: Sequence[bytes], writer: asyncio.StreamWriter) -> None:
    for data in writes:
        writer.write(data)
        await writer.drain()


async def _pace(writes: Sequence[bytes], writer: asyncio.StreamWriter) -> None:
    """The sleep is in a thread: asyncio rounds waits up to whole milliseconds, and catches up."""
    start = time.monotonic()
    for i, data in enumerate(writes):
        delay = start + i * PACE_SECONDS - time.monotonic()
        await asyncio.to_thread(time.sleep, max(delay, 0))
        writer.write(data)
    await writer.drain()


async def _main() -> None:
    server = await asyncio.start_server(_converse, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Run the server in a process of its own; gives its root URL."""
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


if __name__ == "__main__":
    asyncio.run(_main())
