"""A loopback server that streams pre-rendered answers, in a process of its own.

`http://127.0.0.1:PORT/<framing>/<chunks>` stands for a provider's address: which provider answers
is told by the end of the path (answers.py). The framings:

    burst   HTTP chunks of 16 KiB that cut events where they please
    event   one HTTP chunk per event, many per write to the socket
    paced   one HTTP chunk per event, a write of its own each, 1 ms apart by an absolute schedule
    slow    the same, 40 ms apart, for very many streams at once
    whole   an answer of OpenAI's that is not streamed

Run as a program it prints its port and stops at the end of standard input, so with its parent.
"""

import asyncio
import contextlib
import functools
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from answers import ANSWERS, openai_whole

BURST_BYTES = 16 * 1024
WRITE_BYTES = 256 * 1024
PACE_SECONDS = 0.001
SLOW_SECONDS = 0.040
BACKLOG = 8_192

_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "Date: Sat, 22 Nov 2025 12:00:00 GMT\r\n"
    "Content-Type: {}\r\n"
    "Cache-Control: no-cache\r\n"
    "Connection: keep-alive\r\n"
    "X-Request-Id: req_0123456789abcdef0123456789abcdef\r\n"
    "{}\r\n\r\n"
)
_END_OF_CONVERSATION = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
_PATH = re.compile(r"/(\w+)/(\d+)(/.+)")


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def _burst(events: Sequence[bytes]) -> list[bytes]:
    chunks = [_http_chunk(part) for part in _cut(b"".join(events), BURST_BYTES)]
    return _cut(b"".join(chunks) + b"0\r\n\r\n", WRITE_BYTES)


def _event(events: Sequence[bytes]) -> list[bytes]:
    return _cut(b"".join(map(_http_chunk, events)) + b"0\r\n\r\n", WRITE_BYTES)


def _apart(events: Sequence[bytes]) -> list[bytes]:
    return [*map(_http_chunk, events), b"0\r\n\r\n"]


_FRAMINGS = {"burst": _burst, "event": _event, "paced": _apart, "slow": _apart}


@functools.cache
def _render(framing: str, chunks: int, api: str) -> list[bytes]:
    """What to write to the socket, write by write; the head comes first."""
    events, kind = ANSWERS[api]
    if framing == "whole":
        body = openai_whole(chunks)
        return [_head("application/json", f"Content-Length: {len(body)}") + body]
    head = _head(kind, "Transfer-Encoding: chunked")
    return [head, *_FRAMINGS[framing](list(events(chunks)))]


def _head(kind: str, length: str) -> bytes:
    return _HEAD.format(kind, length).encode()


def _route(head: bytes) -> tuple[str, int, str] | None:
    """`(framing, chunks, api)` of a request, `None` if there is no such path."""
    found = _PATH.match(head.split(b" ", 2)[1].decode("ascii").partition("?")[0])
    if found is None or found[1] not in (*_FRAMINGS, "whole"):
        return None
    api = next((end for end in ANSWERS if found[3].endswith(end)), None)
    return None if api is None else (found[1], int(found[2]), api)


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
    await _PACES.get(route[0], _pour)(writes, writer)


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


async def _crawl(writes: Sequence[bytes], writer: asyncio.StreamWriter) -> None:
    start = time.monotonic()
    for i, data in enumerate(writes):
        await asyncio.sleep(start + i * SLOW_SECONDS - time.monotonic())
        writer.write(data)
    await writer.drain()


_PACES = {"paced": _pace, "slow": _crawl}


async def _main() -> None:
    server = await asyncio.start_server(_converse, "127.0.0.1", 0, backlog=BACKLOG)
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
