"""A server that misbehaves on purpose.

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
from typing import Any, Self

from says import Dialect, whole

from streamfold.testing.server import stop_accepting

__all__ = ["Act", "Asked", "FaultServer", "Wire"]

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

    def write(self, *data: bytes) -> None:
        """Bytes as they are, which leave together; over TLS each in a record of its own."""
        self._link.writer.writelines(data)
        self.server.add(bytes_sent=sum(map(len, data)))

    async def head(
        self, status: int = 200, headers: dict[str, str] | None = None, *, chunked: bool = True
    ) -> None:
        """Status line and headers; a stream of the dialect, in chunks, unless told otherwise."""
        fields = {"content-type": self.server.say.kind}
        if chunked:
            fields["transfer-encoding"] = "chunked"
        fields.update(headers or {})
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{k}: {v}" for k, v in fields.items() if v)]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def old_head(self) -> None:
        """The head of an answer of HTTP/1.0, which ends when the connection does."""
        await self.send(f"HTTP/1.0 200 OK\r\ncontent-type: {self.server.say.kind}\r\n\r\n".encode())

    async def part(self, data: bytes) -> None:
        """One HTTP chunk, in one write; of nothing there is none, for it would be the last."""
        if data:
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
        self.whole = False  # the answer sent last: the connection it came on lives on
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
        await stop_accepting(server)
        this = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not this]:
            for link in self.links.values():
                link.writer.transport.abort()
            for task in others:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)
        server.close()

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
        self.whole = wire.keep
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
