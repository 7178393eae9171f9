"""A server that misbehaves on purpose, and what the two dialects say on it.

A fault is an async function `act(wire, say)`: `wire` is one request on one connection, with raw
control over what goes out; `say` writes the payloads of a dialect. The server has a thread and an
event loop of its own, so it serves sync, asyncio and trio tests alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, Self

__all__ = ["DIALECTS", "HALF", "PIECES", "WHOLE", "Anthropic", "FaultServer", "OpenAI", "Wire"]

PIECES = ("Grüße ", "aus ", "Zürich", " — ", "all is ", "well 🌊")
HALF = "".join(PIECES[:3])
WHOLE = "".join(PIECES)


# ---- what the dialects say -----------------------------------------------------------------------


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


class OpenAI:
    """Chat Completions."""

    name: ClassVar[str] = "openai"
    model: ClassVar[str] = "openai:gpt-4.1"
    prefix: ClassVar[str] = "/v1"
    server_error: ClassVar[str] = "server_error"

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        name = f"event: {event}\n".encode() if event else b""
        return name + b"data: " + _dump(payload) + b"\n\n"

    def chunk(self, delta: Any, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self.frame({**_OPENAI_TOP, "choices": [choice], **more})

    def start(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def delta(self, text: str) -> bytes:
        return self.chunk({"content": text})

    def tool_start(self) -> list[bytes]:
        function = {"name": "get_weather", "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        return [self.chunk({"role": "assistant", "tool_calls": [call]})]

    def tool_delta(self, args: str) -> bytes:
        return self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": args}}]})

    def ending(self, reason: str = "stop") -> list[bytes]:
        usage = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
        return [self.chunk({}, reason), self.frame({**_OPENAI_TOP, "choices": [], "usage": usage})]

    def marker(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self, kind: str, message: str = "it broke") -> bytes:
        return self.frame(json.loads(self.failure(kind, message)))

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        code = kind if kind == "insufficient_quota" else None
        return _dump({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def whole(self) -> bytes:
        message = {"role": "assistant", "content": WHOLE}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return _dump({**_OPENAI_TOP, "object": "chat.completion", "choices": [choice]})


class Anthropic:
    """Messages."""

    name: ClassVar[str] = "anthropic"
    model: ClassVar[str] = "anthropic:claude-sonnet-4-5"
    prefix: ClassVar[str] = ""
    server_error: ClassVar[str] = "api_error"

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        return f"event: {event or payload['type']}\ndata: ".encode() + _dump(payload) + b"\n\n"

    def start(self) -> list[bytes]:
        opened = {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        }
        return [self._message_start(), self.frame(opened)]

    def _message_start(self) -> bytes:
        message = {**_ANTHROPIC_TOP, "content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": 3, "output_tokens": 1}
        return self.frame({"type": "message_start", "message": message})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return self.frame({"type": "content_block_delta", "index": 0, "delta": delta})

    def delta(self, text: str) -> bytes:
        return self._delta({"type": "text_delta", "text": text})

    def tool_start(self) -> list[bytes]:
        block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
        opened = {"type": "content_block_start", "index": 0, "content_block": block}
        return [self._message_start(), self.frame(opened)]

    def tool_delta(self, args: str) -> bytes:
        return self._delta({"type": "input_json_delta", "partial_json": args})

    def ending(self, reason: str = "end_turn") -> list[bytes]:
        delta = {"stop_reason": reason, "stop_sequence": None}
        end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 6}}
        return [self.frame({"type": "content_block_stop", "index": 0}), self.frame(end)]

    def marker(self) -> bytes:
        return self.frame({"type": "message_stop"})

    def error(self, kind: str, message: str = "it broke") -> bytes:
        return self.frame(json.loads(self.failure(kind, message)))

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return _dump({"type": "error", "error": {"type": kind, "message": message}})

    def whole(self) -> bytes:
        content = [{"type": "text", "text": WHOLE}]
        usage = {"input_tokens": 3, "output_tokens": 6}
        ends = {"stop_reason": "end_turn", "stop_sequence": None}
        return _dump({**_ANTHROPIC_TOP, "content": content, "usage": usage, **ends})


_OPENAI_TOP = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "gpt-4.1",
}
_ANTHROPIC_TOP = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
}

Dialect = OpenAI | Anthropic
DIALECTS: dict[str, Dialect] = {"openai": OpenAI(), "anthropic": Anthropic()}


def half(say: Dialect) -> list[bytes]:
    """The frames of an answer up to its third delta."""
    return [*say.start(), *(say.delta(piece) for piece in PIECES[:3])]


def rest(say: Dialect) -> list[bytes]:
    """The frames after `half`, up to the finish reason and the figures."""
    return [*(say.delta(piece) for piece in PIECES[3:]), *say.ending()]


def whole(say: Dialect) -> list[bytes]:
    """All frames of an answer."""
    return [*half(say), *rest(say), say.marker()]


# ---- one request ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request as it came, and when (`time.monotonic`)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One request on its connection. Every method that sends raises ConnectionError once the
    client has left. The connection is closed after the act unless a whole answer was sent."""

    def __init__(self, server: FaultServer, link: _Link, request: Asked, number: int) -> None:
        self.request = request
        self.server = server
        #: Which request this is: of the server, and of its connection. Both count from 1.
        self.number = number
        self.turn = link.turns
        self.keep = False
        self._link = link

    async def send(self, data: bytes) -> None:
        """Bytes as they are, in one write."""
        await asyncio.sleep(0)  # lets the loop see that the client left
        if self._link.gone.done():
            raise ConnectionResetError("the client left")
        self._link.writer.write(data)
        self.server.add(bytes_sent=len(data))
        await self._link.writer.drain()

    def write(self, data: bytes) -> None:
        """Bytes as they are; they may leave together with what is written next."""
        self._link.writer.write(data)
        self.server.add(bytes_sent=len(data))

    async def head(
        self, status: int = 200, headers: dict[str, str] | None = None, *, chunked: bool = True
    ) -> None:
        """Status line and headers; an event stream in chunks unless told otherwise."""
        fields = {"content-type": "text/event-stream; charset=utf-8"}
        if chunked:
            fields["transfer-encoding"] = "chunked"
        fields.update(headers or {})
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in fields.items() if v)]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def part(self, data: bytes) -> None:
        """One HTTP chunk, in one write."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def parts(self, frames: list[bytes]) -> None:
        for data in frames:
            await self.part(data)

    async def end(self) -> None:
        """The last HTTP chunk: the body is complete, the connection lives on."""
        await self.send(b"0\r\n\r\n")
        self.keep = True

    async def reply(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
    ) -> None:
        """A whole answer under a content length."""
        fields = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in fields.items() if v)]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        self.keep = "close" not in fields.get("connection", "")

    async def answer(self, say: Dialect) -> None:
        """A correct stream, in chunks."""
        await self.head()
        await self.parts(whole(say))
        await self.end()

    async def pause(self, seconds: float) -> None:
        """Wait; the client's leaving ends it."""
        await asyncio.wait([self._link.gone], timeout=seconds)
        if self._link.gone.done():
            raise ConnectionResetError("the client left")

    async def hang(self) -> None:
        """Nothing at all until the client leaves."""
        await self.pause(60)

    async def shown(self, text: str) -> None:
        """Wait until the test says that the client's reader has `text` (`FaultServer.show`)."""
        while text not in self.server.shown:
            await self.pause(0.002)

    def reset(self) -> None:
        """Close with a TCP reset."""
        sock: socket.socket = self._link.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._link.writer.transport.abort()

    def half_close(self) -> None:
        """Close the sending side only."""
        self._link.writer.write_eof()


Act = Callable[[Wire, Dialect], Awaitable[None]]


# ---- the server ----------------------------------------------------------------------------------


class _Link(asyncio.StreamReaderProtocol):
    """A connection: its streams, and `gone`, which is done once the client has left."""

    def __init__(self, server: FaultServer) -> None:
        self.reader = asyncio.StreamReader()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turns = 0
        self.writer: asyncio.StreamWriter
        self._server = server
        super().__init__(self.reader, self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        task = asyncio.get_running_loop().create_task(self._server.serve(self))
        self._server.links[task] = self
        task.add_done_callback(self._server.links.pop)

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)


class FaultServer:
    """Acts a fault out on every request. A context manager; `url` is what a model takes.

    `requests`: what was asked. `connections`, `open_connections`, `bytes_sent`: counts. `left`:
    when clients left before an act was over. `failures`: what broke in an act, by mistake.
    """

    def __init__(self, act: Act, say: Dialect, *, tls: ssl.SSLContext | None = None) -> None:
        self.say = say
        self.tls = tls
        self.requests: list[Asked] = []
        self.connections = 0
        self.open_connections = 0
        self.bytes_sent = 0
        self.forgeries = 0
        self.left: list[float] = []
        self.shown = ""
        self.failures: list[BaseException] = []
        self.links: dict[asyncio.Task[None], _Link] = {}
        self._act = act
        self._changed = threading.Condition()
        self._port: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def origin(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._port.result()}"

    @property
    def url(self) -> str:
        """The base URL for a model of the server's dialect."""
        return self.origin + self.say.prefix

    def __enter__(self) -> Self:
        self._thread.start()
        self._port.result(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self.failures:
            raise self.failures[0]

    def stop(self) -> None:
        """Reset every connection and end the thread."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def show(self, text: str) -> None:
        """Tell acts that wait in `Wire.shown` what the client's reader has."""
        self.shown = text

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Block until `condition()` holds; asked anew whenever a count changes."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(
                    f"not within {timeout} s: {len(self.requests)} requests, {self.connections} "
                    f"connections, {self.open_connections} of them open, {len(self.left)} left"
                )

    def wait_open(self, count: int, timeout: float = 5.0) -> None:
        """Block until `count` connections are open."""
        self.wait_for(lambda: self.open_connections == count, timeout)

    # ---- the server's thread

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Link(self), "127.0.0.1", 0, backlog=1024, ssl=self.tls
        )
        self._port.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()
        for _ in range(3):  # connections that have been accepted, and not yet begun
            await asyncio.sleep(0)
        for task, link in list(self.links.items()):
            link.writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self.links, return_exceptions=True)

    async def serve(self, link: _Link) -> None:
        """One connection, request by request."""
        self.add(connections=1, open_connections=1)
        number = self.connections
        try:
            while await self._exchange(link, number):
                pass
            link.writer.close()
            with contextlib.suppress(OSError):
                await link.writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            link.writer.transport.abort()
            self.add(open_connections=-1)

    async def _exchange(self, link: _Link, number: int) -> bool:
        request = await self._request(link, number)
        link.turns += 1
        with self._changed:
            self.requests.append(request)
            wire = Wire(self, link, request, len(self.requests))
            self._changed.notify_all()
        try:
            await self._act(wire, self.say)
        except ConnectionError:
            with self._changed:
                self.left.append(time.monotonic())
                self._changed.notify_all()
            raise
        return wire.keep

    async def _request(self, link: _Link, number: int) -> Asked:
        head = await link.reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        body = await link.reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(method, path, headers, body, time.monotonic(), number)

    def add(self, **changes: int) -> None:
        with self._changed:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)
            self._changed.notify_all()
