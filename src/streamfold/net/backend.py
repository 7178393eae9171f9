"""Sockets on asyncio, as httpcore asks for them: `httpcore.AsyncNetworkBackend`, made for streams
of small reads.

A model's answer comes a token per network read, and there the stack below costs more than all that
is done with the token. httpcore's own backend makes a cancel scope and a timer for each read, stops
and starts watching the socket around it, and takes a new buffer of 256 KiB: 16 system calls. Here
the loop goes on watching, all sockets read into one buffer, and a timer is set once and found to be
early or due when it goes off: 3 system calls.

TLS is done on top, by the standard library's `SSLObject` between two memory buffers. asyncio's own
way would keep 512 KiB of buffers for each connection, wait for the peer's farewell when closing,
and lose what it has decrypted ahead of a damaged record.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
import time
from collections.abc import Coroutine, Iterable
from itertools import zip_longest
from typing import Any, Final

import anyio
import httpcore

__all__ = ["AsyncioBackend", "is_readable"]

_READ_BYTES: Final = 64 * 1024  # at a time, as much as httpcore asks for
_AHEAD_BYTES: Final = 256 * 1024  # what may wait for its reader before the socket has to wait
_RACE_SECONDS: Final = 0.25  # the start that one address of a host has over the next (RFC 8305)


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Opens `_Socket`s. One for each event loop: its sockets share a buffer."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_READ_BYTES))

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError or ConnectTimeout."""
        local = None if local_address is None else (local_address, 0)
        return await self._connect(_first_of(host, port, local), timeout, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError or ConnectTimeout."""
        return await self._connect(_at_path(path), timeout, socket_options)

    async def _connect(
        self,
        connecting: Coroutine[Any, Any, socket.socket],
        timeout: float | None,
        options: Iterable[Any] | None,
    ) -> _Socket:
        loop = asyncio.get_running_loop()
        try:
            with anyio.fail_after(timeout):
                sock = await connecting
                try:
                    for option in options or ():
                        sock.setsockopt(*option)
                    _, connected = await loop.create_connection(
                        lambda: _Socket(loop, self._buffer), sock=sock
                    )
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return connected

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Socket(asyncio.BufferedProtocol, httpcore.AsyncNetworkStream):
    """A connected socket: asyncio's end of it and httpcore's in one object.

    One task may read and one may write at a time. The buffer belongs to all sockets of the loop:
    the loop fills it and says so in one go, and what is in it is copied out then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        self._loop = loop
        self._buffer = buffer
        self._transport: Any = None
        self._arrived = bytearray()
        self._held_back = False  # the peer has to wait: the reader does not come along
        self._ended = False  # nothing more will arrive
        self._error: Exception | None = None  # why, where it was not the peer's decision
        self._closed = False  # it was ours
        self._lost: asyncio.Future[None] = loop.create_future()
        self._reading = _Wait(loop, httpcore.ReadTimeout)
        self._writing = _Wait(loop, httpcore.WriteTimeout)
        self._full = False  # what is written has to wait: the peer is not reading

    # ---- httpcore's end --------------------------------------------------------------------------

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has arrived, else what arrives next; b"" at the end. Raises httpcore.ReadError or
        ReadTimeout, after which reading can go on."""
        arrived = self._arrived
        while not arrived:
            if self._closed or self._error is not None:
                raise httpcore.ReadError(str(self._error or "closed")) from self._error
            if self._ended:
                return b""
            await self._reading.wait(timeout)
        data = bytes(arrived) if len(arrived) <= max_bytes else bytes(arrived[:max_bytes])
        del arrived[:max_bytes]
        if self._held_back and len(arrived) < _AHEAD_BYTES:
            self._held_back = False
            self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Returns once the data is on its way. Raises httpcore.WriteError or WriteTimeout."""
        if not buffer:
            return
        self._check_writable()
        self._transport.write(buffer)
        while self._full:
            await self._writing.wait(timeout)
            self._check_writable()

    def _check_writable(self) -> None:
        if self._transport.is_closing():
            raise httpcore.WriteError(str(self._error or "closed")) from self._error

    async def aclose(self) -> None:
        """Close at once: what was written and has not left is dropped."""
        self._closed = True
        self._held_back = False
        self._arrived.clear()
        self._transport.abort()
        self._reading.wake()
        self._writing.wake()
        await asyncio.shield(self._lost)  # the loop's next turn

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises httpcore.ConnectError or ConnectTimeout; the socket is closed then."""
        return await _start_tls(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self._arrived) or self._ended or self._closed or self._has_unread()
        return self._transport.get_extra_info(_EXTRA.get(info, info))

    def _has_unread(self) -> bool:
        """Whether the kernel has what the loop has not seen yet."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        return descriptor < 0 or is_readable(descriptor)

    # ---- asyncio's end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived += self._buffer[:nbytes]
        if not self._held_back and len(self._arrived) >= _AHEAD_BYTES:
            self._held_back = True
            self._transport.pause_reading()
        self._reading.wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._reading.wake()
        return True  # the peer may still read what we write

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._error = exc
        self._held_back = False
        self._full = False
        if not self._lost.done():
            self._lost.set_result(None)
        self._reading.end()
        self._writing.end()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._writing.wake()


_EXTRA: Final = {"client_addr": "sockname", "server_addr": "peername"}

if sys.platform == "win32":

    def is_readable(descriptor: int) -> bool:
        """Whether a read would not wait."""
        return bool(select.select([descriptor], [], [], 0)[0])

else:

    def is_readable(descriptor: int) -> bool:
        """Whether a read would not wait."""
        poll = select.poll()  # unlike select, it takes descriptors above 1023
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))


class _Wait:
    """One task waits until it is woken up or the time is over.

    The timer is not taken back when the wait ends. Going off, it looks whether there is a wait
    whose time is over, and if that has more time it is set anew: a stream of many short waits under
    a long limit touches it hardly ever.
    """

    __slots__ = ("_due", "_loop", "_timeout_error", "_timer", "_waiter")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout_error: type[httpcore.TimeoutException]
    ) -> None:
        self._loop = loop
        self._timeout_error = timeout_error
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    async def wait(self, timeout: float | None) -> None:
        waiter = self._waiter = self._loop.create_future()
        if timeout is None:
            self._due = 0.0
        else:
            self._due = due = self._loop.time() + timeout
            timer = self._timer
            if timer is None or timer.when() > due:
                self._set(due)
        try:
            await waiter
        finally:
            self._waiter = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self) -> None:
        """There will be no further waits."""
        self.wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        timer, self._timer = self._timer, None
        waiter = self._waiter
        if timer is None or waiter is None or waiter.done() or not self._due:
            return
        if timer.when() < self._due:
            self._set(self._due)
        else:
            waiter.set_exception(self._timeout_error("timed out"))


# ---- connecting ----------------------------------------------------------------------------------


async def _first_of(host: str, port: int, local: tuple[str, int] | None) -> socket.socket:
    """A socket that is connected to one of the host's addresses: they start one after the other, as
    soon as the one before has failed or had its time, and the first that succeeds wins (RFC 8305).
    """
    addresses = await _addresses(host, port)
    if len(addresses) == 1:
        return await _open(*addresses[0], local)
    winner: socket.socket | None = None
    errors: list[OSError] = []

    async def enter(family: int, address: Any, over: anyio.Event) -> None:
        nonlocal winner
        try:
            sock = await _open(family, address, local)
        except OSError as error:
            errors.append(error)
        else:
            if winner is not None:
                sock.close()
            winner = winner or sock
            race.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as race:
            for family, address in addresses:
                over = anyio.Event()
                race.start_soon(enter, family, address, over)
                with anyio.move_on_after(_RACE_SECONDS):
                    await over.wait()
    except BaseException:
        if winner is not None:
            winner.close()
        raise
    if winner is None:
        raise OSError("; ".join(map(str, errors)))
    return winner


async def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Family and address of each, IPv6 and IPv4 by turns, in the order that the system prefers."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )  # needs no thread, for it asks nobody
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[tuple[int, Any]]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))
    turns = zip_longest(*families.values())
    return [each for turn in turns for each in turn if each is not None]


async def _open(family: int, address: Any, local: tuple[str, int] | None = None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            sock.bind(local)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _at_path(path: str) -> socket.socket:
    return await _open(socket.AF_UNIX, path)


# ---- TLS -----------------------------------------------------------------------------------------


class _TLSStream(httpcore.AsyncNetworkStream):
    """TLS over any other stream, itself one of TLS if need be (to a server through an https proxy).

    A connection that ends without TLS's farewell has ended, as in httpcore: what is complete says
    the protocol above.
    """

    def __init__(
        self,
        stream: httpcore.AsyncNetworkStream,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None,
    ) -> None:
        if ssl_context.check_hostname and not server_hostname:
            raise ValueError("the TLS context checks names, and there is none to check")
        self._stream = stream
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = ssl_context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )
        self._ended = False
        self._error: ssl.SSLError | None = None  # what arrived cannot be read

    async def handshake(self, deadline: float | None) -> None:
        """Agree on keys. Raises ssl.SSLError besides what the stream raises."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush(_left(deadline))
                await self._receive(_left(deadline))
        await self._flush(_left(deadline))

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if data := self._decrypted(max_bytes):
                return data
            if self._ended:
                return b""
            if self._error is not None:
                raise httpcore.ReadError(str(self._error)) from self._error
            await self._flush(_left(deadline))
            await self._receive(_left(deadline))

    def _decrypted(self, max_bytes: int) -> bytes:
        """All that can be read of what has arrived. Where that meets an end or an error, it says so
        after it."""
        pieces: list[bytes] = []
        while max_bytes and (self._incoming.pending or self._tls.pending() or self._incoming.eof):
            try:
                piece = self._tls.read(max_bytes)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLEOFError:
                piece = b""
            except ssl.SSLError as error:
                self._error = error
                break
            if not piece:
                self._ended = True
                break
            pieces.append(piece)
            max_bytes -= len(piece)
        return b"".join(pieces)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            self._tls.write(buffer)  # into memory: it takes all and never waits
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error
        await self._flush(timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await _start_tls(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:
        if info == "ssl_object":
            return self._tls
        if info == "is_readable" and (
            self._ended or self._error or self._incoming.pending or self._tls.pending()
        ):
            return True
        return self._stream.get_extra_info(info)

    async def _receive(self, timeout: float | None) -> None:
        data = await self._stream.read(_READ_BYTES, timeout)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self, timeout: float | None) -> None:
        if self._outgoing.pending:
            await self._stream.write(self._outgoing.read(), timeout)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


async def _start_tls(
    stream: httpcore.AsyncNetworkStream,
    ssl_context: ssl.SSLContext,
    server_hostname: str | None,
    timeout: float | None,
) -> httpcore.AsyncNetworkStream:
    try:
        secure = _TLSStream(stream, ssl_context, server_hostname)
        await secure.handshake(None if timeout is None else time.monotonic() + timeout)
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await stream.aclose()
        if isinstance(error, httpcore.TimeoutException):
            raise httpcore.ConnectTimeout(str(error)) from error
        if isinstance(error, httpcore.NetworkError | ssl.SSLError):
            raise httpcore.ConnectError(str(error)) from error
        raise
    return secure
