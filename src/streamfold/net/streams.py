"""Network streams as our connections use them: httpcore's, with a clock and a fence.

The clock: httpx gives a request one read timeout, fixed before the answer begins. The limits of a
call move (first content, idle, total), so they are kept where the waiting happens, through
httpcore's public `network_backend`.

The fence: what a connection has received beyond the end of an answer would be taken for the answer
to its next request. So the head of an answer is cut off from what follows; of its body httpcore
sees what belongs to it and no more; and a connection that has more than that takes no other
request. It also gives the body to those who take chunks apart faster than httpcore does.
"""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from .clock import CLOCK, Clock

__all__ = ["Backend", "Stream", "is_asyncio", "socket_options"]

_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_LAST_CHUNK: Final = b"0\r\n\r\n"
_READ_BYTES: Final = 64 * 1024

# The idle flow that a NAT box has dropped is noticed by the kernel: probe after 60 s, 5 times.
_KEEPALIVE: Final = (
    ("SO_KEEPALIVE", 1),
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPINTVL", 60),
    ("TCP_KEEPCNT", 5),
)


def socket_options() -> list[tuple[int, int, int]]:
    import socket

    options = []
    for name, value in _KEEPALIVE:
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):  # names differ between systems
            options.append((level, getattr(socket, name), value))
    return options


class Stream(httpcore.AsyncNetworkStream):
    """Waits end when the clock says so: that of the call which is sending, else that of the call
    whose answer is being read. A kept connection still has the last one.

    httpcore writes a request and reads the head of the answer; `expect` tells where its body ends.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self.clock: Clock | None = None
        self.spent = False  # it must not carry another request
        self._asking = False  # a request goes out, its head has not come
        self._used = False  # it has carried a request
        self._ended = False  # the peer has said that it will send no more
        self._unsent = b""
        self._held = b""  # received, and not shown yet
        self._tail = b""  # the last bytes of a head that is not complete
        self._left: int | None = None  # bytes of the body that httpcore may see; None is no limit

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """For httpcore: the head of an answer, or what is left of its body."""
        if not self._asking and self._left == 0:
            return b""
        data = await self.receive(max_bytes, timeout)
        if self._asking:
            return self._head(data)
        if self._left is not None:
            self._held = data[self._left :] + self._held
            data = data[: self._left]
            self._left -= len(data)
        return data

    async def receive(self, max_bytes: int = _READ_BYTES, timeout: float | None = None) -> bytes:
        """What comes next, whatever it belongs to; b"" at the end of the connection."""
        if self._held:
            data, self._held = self._held, b""
            return data
        if self._unsent:
            await self.write(b"", timeout)
        clock = CLOCK.get() or self.clock
        if clock is not None:
            timeout = clock.left()
            if timeout == 0.0:
                raise httpcore.ReadTimeout("the time limit has passed")
        data = await self._stream.read(max_bytes, timeout)
        if not data:
            self._ended = True
        return data

    def _head(self, data: bytes) -> bytes:
        if not self._tail and not data.startswith(b"H"):
            return data  # the answer of a SOCKS proxy, say: nothing that has a blank line
        seen = self._tail + data
        end = _BLANK_LINE.search(seen)
        if end is None:
            self._tail = seen[-2:]
            return data
        place = end.end() - len(self._tail)
        self._tail = b""  # where this was an interim answer, another head follows
        self._held = data[place:] + self._held
        return data[:place]

    def expect(self, body: int | None) -> None:
        """The head was that of the answer, and its body has `body` bytes; None is all that comes
        until the connection ends, or until `end_chunks`."""
        self._asking = False
        self._left = body

    def end_chunks(self, rest: bytes) -> None:
        """The body, which came in chunks, has been read by `receive`, and `rest` came after it. An
        empty one is left for httpcore to read."""
        self._held = _LAST_CHUNK + rest + self._held
        self._left = len(_LAST_CHUNK)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not self._asking:
            # httpcore has looked, but let other tasks run since.
            if self._used and self.get_extra_info("is_readable"):
                raise httpcore.ReadError("the connection has ended, or an answer came unasked")
            self._asking = self._used = True
            self._tail = b""
            self._unsent = buffer  # the head of a request: it leaves together with the body
            return
        buffer, self._unsent = self._unsent + buffer, b""
        clock = CLOCK.get() or self.clock
        await self._stream.write(buffer, clock.left() if clock is not None else timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await self._stream.start_tls(ssl_context, server_hostname, _connect(timeout)))

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and (self.spent or self._held):
            return True  # so that the pool drops the connection
        return self._stream.get_extra_info(info)

    def has_more(self) -> bool:
        """After the answer: whether something came that does not belong to it."""
        return bool(self._held) or self._ended or self._has_unread_record()

    def _has_unread_record(self) -> bool:
        """Whether TLS holds data, or its end, that nobody has read."""
        tls = self._stream.get_extra_info("ssl_object")
        try:
            return tls is not None and isinstance(tls.read(1), bytes)
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError):
            return True


def _connect(timeout: float | None) -> float | None:
    clock = CLOCK.get()
    return clock.connect_left() if clock is not None else timeout


class Backend(httpcore.AsyncNetworkBackend):
    """Opens `Stream`s: on asyncio over our own sockets, on trio over httpcore's. For one loop."""

    def __init__(self) -> None:
        self._sockets: Any = None  # httpcore's base class promises less than its backends take
        self._options = socket_options()

    def _backend(self) -> Any:
        if self._sockets is None:
            if is_asyncio():
                from .backend import AsyncioBackend

                self._sockets = AsyncioBackend()
            else:
                self._sockets = httpcore.AnyIOBackend()
        return self._sockets

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._backend().connect_tcp(host, port, _connect(timeout), local_address)
        sock = stream.get_extra_info("socket")
        if sock is not None:
            for option in (*self._options, *(socket_options or ())):
                sock.setsockopt(*option)
        return Stream(stream)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        return Stream(await self._backend().connect_unix_socket(path, _connect(timeout)))

    async def sleep(self, seconds: float) -> None:
        await self._backend().sleep(seconds)


def is_asyncio() -> bool:
    """Trio brings sniffio along; where it is not loaded there is no trio."""
    sniffio = sys.modules.get("sniffio")
    return sniffio is None or sniffio.current_async_library() == "asyncio"
