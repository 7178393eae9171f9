"""A small HTTP/1.1 server for tests: loopback only, in a thread of its own.

It has its own event loop, so one server serves sync tests, asyncio and trio programs alike,
and a client that hangs or leaves never blocks the server of the test that runs next.

    with LoopbackServer(lambda request: Reply(body=b"hello")) as server:
        httpx.get(server.url)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import orjson

__all__ = ["Fault", "Handler", "LoopbackServer", "Reply", "Request"]

# A request head longer than this is nobody's: real ones stay under 8 KiB.
HEAD_BYTES = 64 * 1024
# Room for a prompt with a few large images; a longer body is a runaway client.
BODY_BYTES = 256 * 1024 * 1024
# A thousand clients connect in one burst in the load tests; the default of 100 would drop SYNs.
BACKLOG = 4096

Ending: TypeAlias = Literal["whole", "cut", "reset", "hang"]


class Request(msgspec.Struct, frozen=True):
    """One request as the server received it.

    `path` is percent-decoded and has no query; `query` keeps the last value of a repeated name;
    `headers` has lower-case names, values of a repeated name joined by ", ".
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body read as JSON. Raises `ValueError` if it is not."""
        return orjson.loads(self.body)


class Reply(msgspec.Struct, frozen=True):
    """One answer for the server to send.

    `body`: bytes, or a list of pieces; every piece is one write, and one chunk if `chunked`.
    `delays`: seconds before each piece, one number for all of them or a list (missing ones
    are 0). `head_delay`: seconds before the status line.
    `chunked`: send with transfer-encoding chunked, otherwise with a content length.
    `end`: what follows the last piece. "whole": a proper end. "cut": the connection closes
    before the announced end. "reset": the same with a TCP reset. "hang": nothing at all until
    the client leaves.
    """

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes | list[bytes] = b""
    delays: float | list[float] = 0.0
    head_delay: float = 0.0
    chunked: bool = False
    end: Ending = "whole"

    def pieces(self) -> list[bytes]:
        """The body as the list of its non-empty pieces."""
        parts = [self.body] if isinstance(self.body, bytes) else self.body
        return [part for part in parts if part]

    def pause(self, index: int) -> float:
        """Seconds to wait before piece `index`."""
        if not isinstance(self.delays, list):
            return self.delays
        return self.delays[index] if index < len(self.delays) else 0.0


Handler: TypeAlias = Callable[[Request], Reply]
#: Makes a reply worse: see `streamfold.testing.faults`.
Fault: TypeAlias = Callable[[Reply], Reply]


class LoopbackServer:
    """Serves `handler`'s replies on 127.0.0.1, on a port the system picks.

    A context manager, sync or async (`async with` works on any backend: starting takes a few
    milliseconds and does not wait on the caller's loop). `handler` is called in the server's
    thread, one request at a time, and must not block; an exception in it becomes a 500 with its
    text and is kept in `failures`. A client that closes its half of the connection has left:
    the reply it was getting stops at once.

    `requests`: every request, in order of arrival (empty with `request_log=False`).
    `connections`, `open_connections`: how many were opened, and how many are open now.
    `abandoned`: how many replies the client left before their end.
    """

    def __init__(self, handler: Handler, *, request_log: bool = True) -> None:
        self.requests: list[Request] = []
        self.failures: list[Exception] = []
        self.connections = 0
        self.open_connections = 0
        self.abandoned = 0
        self._handler = handler
        self._faults: deque[Fault | None] = deque()
        self._request_log = request_log
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._writers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self._port = 0

    @property
    def url(self) -> str:
        """Where the server listens, such as `http://127.0.0.1:12345`."""
        if not self._port:
            raise RuntimeError("the server has not been started")
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start listening. Raises `RuntimeError` if the server runs already."""
        if self._thread is not None:
            raise RuntimeError("the server is already running")
        ready: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="streamfold-loopback", daemon=True
        )
        self._thread.start()
        self._port = ready.result()

    def stop(self) -> None:
        """Close every connection and join the thread. Nothing happens if it is not running."""
        if self._thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def inject(self, *faults: Fault | None) -> None:
        """Spoil the next replies: a fault for each, in this order; None leaves one as it is.

        Further calls add to what is left. The faults there are, and how to write others, is in
        `streamfold.testing.faults`.
        """
        self._faults.extend(faults)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        """Block until `condition()` holds; it is asked anew whenever the server's log changes.

        Raises `TimeoutError` after `timeout` seconds. From async code call it in a worker
        thread (`anyio.to_thread.run_sync`), so that your side of the connection can act.
        """
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"still waiting after {timeout} s; {self._state()}")

    def wait_closed(self, timeout: float = 5.0) -> None:
        """Block until no connection is open. Raises `TimeoutError` after `timeout` seconds."""
        self.wait_for(lambda: self.open_connections == 0, timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()

    # -- the server's thread

    def _run(self, ready: concurrent.futures.Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: concurrent.futures.Future[int]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(self._protocol, "127.0.0.1", 0, backlog=BACKLOG)
        ready.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        await stop_accepting(server)
        await self._drop_connections()
        server.close()
        await server.wait_closed()

    async def _drop_connections(self) -> None:
        """A connection only ever waits for its client, so one without a client ends by itself. One
        that is being accepted is a task of the loop already."""
        this = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not this]:
            for writer in self._writers.values():
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.05)

    def _protocol(self) -> asyncio.Protocol:
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        return _Protocol(
            asyncio.StreamReader(limit=HEAD_BYTES), partial(self._connected, gone), gone
        )

    def _connected(
        self, gone: asyncio.Future[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.get_running_loop().create_task(self._connection(gone, reader, writer))
        self._writers[task] = writer
        task.add_done_callback(self._writers.pop)

    async def _connection(
        self, gone: asyncio.Future[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with self._counted(writer):
            try:
                while await self._exchange(gone, reader, writer):
                    pass
                writer.close()
            except (ConnectionError, asyncio.IncompleteReadError):
                writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @contextlib.contextmanager
    def _counted(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._log(connections=1, open_connections=1)
        try:
            yield
        finally:
            writer.transport.abort()
            self._log(open_connections=-1)

    async def _exchange(
        self, gone: asyncio.Future[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its reply; whether the connection lives on."""
        try:
            request = await _read_request(reader)
        except _BadRequest as error:
            reply, keep = Reply(status=error.status, body=str(error).encode()), False
            bodiless = False
        else:
            reply, keep = self._answer(request), _keeps_alive(request)
            bodiless = request.method == "HEAD"
        keep = keep and reply.end == "whole"
        try:
            await _Sending(gone, writer, reply, keep, bodiless).run()
        except ConnectionError:
            self._log(abandoned=1)
            raise
        return keep

    def _answer(self, request: Request) -> Reply:
        if self._request_log:
            self.requests.append(request)
        self._log()
        try:
            reply = self._handler(request)
            fault = self._faults.popleft() if self._faults else None
            return reply if fault is None else fault(reply)
        except Exception as error:
            self.failures.append(error)
            return Reply(status=500, body=f"the handler failed: {error!r}".encode())

    def _log(self, **changes: int) -> None:
        with self._changed:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)
            self._changed.notify_all()

    def _state(self) -> str:
        return (
            f"{len(self.requests)} requests, {self.connections} connections, "
            f"{self.open_connections} of them open, {self.abandoned} replies abandoned"
        )


async def stop_accepting(server: asyncio.Server) -> None:
    """To be called before `close`, after which asyncio (3.11) drops the connections that it has
    accepted and not begun, without closing them."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # the proactor's loop
        for sock in server.sockets:
            loop.remove_reader(sock.fileno())
    await asyncio.sleep(0)


class _Protocol(asyncio.StreamReaderProtocol):
    """Tells the sender at once that the client has left: while it writes, nobody reads."""

    def __init__(
        self, reader: asyncio.StreamReader, connected: Any, gone: asyncio.Future[None]
    ) -> None:
        super().__init__(reader, connected)
        self._gone = gone

    def eof_received(self) -> bool | None:
        self._leave()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _leave(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)


class _BadRequest(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def _read_request(reader: asyncio.StreamReader) -> Request:
    """Raises `IncompleteReadError` where the client closed instead of asking."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(431, f"the head is longer than {HEAD_BYTES} bytes") from error
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    try:
        method, target, _version = first.split(" ")
    except ValueError as error:
        raise _BadRequest(400, f"not a request line: {first!r}") from error
    headers = _headers(lines)
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    return Request(method, unquote(url.path), query, headers, await _read_body(reader, headers))


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise _BadRequest(400, f"not a header line: {line!r}")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    return await reader.readexactly(_size(headers.get("content-length", "0"), 10, 0))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := _size((await _line(reader)).partition(";")[0], 16, len(body)):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await _line(reader):
        pass  # trailers say nothing that a test asks for
    return bytes(body)


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\n")).decode("latin-1").strip()
    except asyncio.LimitOverrunError as error:
        raise _BadRequest(400, f"a line is longer than {HEAD_BYTES} bytes") from error


def _size(text: str, base: int, so_far: int) -> int:
    try:
        size = int(text.strip(), base)
    except ValueError as error:
        raise _BadRequest(400, f"not a length: {text!r}") from error
    if size < 0 or so_far + size > BODY_BYTES:
        raise _BadRequest(413, f"the body is longer than {BODY_BYTES} bytes")
    return size


def _keeps_alive(request: Request) -> bool:
    return "close" not in request.headers.get("connection", "").lower()


class _Sending:
    """One reply on its way out. Raises `ConnectionError` as soon as the client has left."""

    def __init__(
        self,
        gone: asyncio.Future[None],
        writer: asyncio.StreamWriter,
        reply: Reply,
        keep: bool,
        bodiless: bool,
    ) -> None:
        self._gone = gone
        self._writer = writer
        self._reply = reply
        self._keep = keep
        self._bodiless = bodiless or reply.status in (204, 304)

    async def run(self) -> None:
        pieces = self._reply.pieces()
        await self._pause(self._reply.head_delay)
        await self._write(self._head(sum(map(len, pieces))))
        if not self._bodiless:
            for index, piece in enumerate(pieces):
                await self._pause(self._reply.pause(index))
                await self._write(self._framed(piece))
        await _ENDINGS[self._reply.end](self)

    def _framed(self, piece: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._reply.chunked else piece

    def _head(self, size: int) -> bytes:
        reply = self._reply
        # A reply that ends early announces more than it sends: that is how a client knows.
        promised = size if reply.end == "whole" else size + 1
        framing = (
            {"transfer-encoding": "chunked"} if reply.chunked else {"content-length": str(promised)}
        )
        if reply.status in (204, 304):
            framing = {}
        headers = framing | reply.headers | {"connection": "keep-alive" if self._keep else "close"}
        lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await asyncio.wait([self._gone], timeout=seconds)

    async def _write(self, data: bytes) -> None:
        # The turn of the loop lets other connections act, and lets us see that this one closed.
        # asyncio has set TCP_NODELAY, so each write leaves at once.
        await asyncio.sleep(0)
        if self._gone.done():
            raise ConnectionResetError("the client left")
        self._writer.write(data)
        await self._writer.drain()

    async def _end_whole(self) -> None:
        if self._reply.chunked and not self._bodiless:
            await self._write(b"0\r\n\r\n")

    async def _end_cut(self) -> None:
        """Nothing to send: `_exchange` does not keep the connection."""

    async def _end_reset(self) -> None:
        # Lingering for zero seconds turns the close into a reset.
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _end_hang(self) -> None:
        await self._gone
        raise ConnectionResetError("the client left")


_ENDINGS: dict[Ending, Any] = {
    "whole": _Sending._end_whole,
    "cut": _Sending._end_cut,
    "reset": _Sending._end_reset,
    "hang": _Sending._end_hang,
}


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Overloaded" if status == 529 else "Status"
