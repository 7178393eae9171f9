"""Connections: an httpx transport over httpcore's pool whose waits obey the call's clock.

httpx gives a request one read timeout, fixed before the answer begins. The limits of a call move
(first content, idle, total), so they are kept where the waiting happens: in the network stream,
through httpcore's public `network_backend`. That costs nothing beside the timeout that httpcore
sets around each read anyway, and it serves asyncio and trio alike.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import httpcore
import httpx

from .clock import CLOCK, Clock

__all__ = ["PoolTransport"]

# A connection each for thousands of streams at once: where httpcore queues, it is quadratic.
MAX_CONNECTIONS: Final = 10_000
MAX_KEPT: Final = 100
KEPT_SECONDS: Final = 30.0

# The idle flow that a NAT box has dropped is noticed by the kernel: probe after 60 s, 5 times.
_KEEPALIVE: Final = (
    ("SO_KEEPALIVE", 1),
    ("TCP_KEEPIDLE", 60),
    ("TCP_KEEPINTVL", 60),
    ("TCP_KEEPCNT", 5),
)


def _without_headers(record: logging.LogRecord) -> bool:
    """httpcore logs the headers of an answer for debugging, and a server may echo the key in one:
    those of our calls stay out of the log."""
    if CLOCK.get() is not None and record.getMessage().startswith("receive_response_headers.c"):
        record.msg, record.args = "receive_response_headers.complete (headers are not shown)", ()
    return True


logging.getLogger("httpcore.http11").addFilter(_without_headers)


def _socket_options() -> list[tuple[int, int, int]]:
    import socket

    options = []
    for name, value in _KEEPALIVE:
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        if hasattr(socket, name):  # names differ between systems
            options.append((level, getattr(socket, name), value))
    return options


class _Stream(httpcore.AsyncNetworkStream):
    """A network stream whose waits end when the clock says so: that of the call which is sending,
    else that of the call whose answer is being read. A kept connection still has the last one."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self.clock: Clock | None = None
        self.spent = False  # it must not carry another request

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        clock = CLOCK.get() or self.clock
        if clock is not None:
            timeout = clock.left()
            if timeout == 0.0:
                raise httpcore.ReadTimeout("the time limit has passed")
        data = self._last = await self._stream.read(max_bytes, timeout)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
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
        return _Stream(
            await self._stream.start_tls(ssl_context, server_hostname, _connect(timeout))
        )

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and self.spent:
            return True  # so that the pool drops the connection
        return self._stream.get_extra_info(info)

    def has_unread_record(self) -> bool:
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


class _Backend(httpcore.AsyncNetworkBackend):
    """Opens `_Stream`s over anyio's."""

    def __init__(self) -> None:
        self._anyio: Any = httpcore.AnyIOBackend()
        self._options = _socket_options()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._anyio.connect_tcp(host, port, _connect(timeout), local_address)
        sock = stream.get_extra_info("socket")
        if sock is not None:
            for option in (*self._options, *(socket_options or ())):
                sock.setsockopt(*option)
        return _Stream(stream)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._anyio.connect_unix_socket(path, _connect(timeout)))

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _Content:
    """The body of a request. Not a generator, which would be left half way by a cancellation."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def __aiter__(self) -> _Content:
        return self

    async def __anext__(self) -> bytes:
        data, self._data = self._data, None
        if not data:
            raise StopAsyncIteration
        return data


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer, with httpcore's exceptions as httpx's.

    What has been received beyond its end would answer the next request on the connection: then
    there is no next one.
    """

    def __init__(self, stream: Any, connection: _Stream | None) -> None:
        self._stream = stream
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._stream:
                yield data
            if self._connection is not None and self._has_more():
                self._connection.spent = True
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error)) from error
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error)) from error
        except httpcore.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    def _has_more(self) -> bool:
        try:
            # Of all that httpcore has there is no public way to h11's `trailing_data`.
            more, ended = self._stream._stream._connection._h11_state.trailing_data
        except AttributeError:
            return True  # another httpcore: slow, but safe
        return bool(more) or ended or self._connection.has_unread_record()  # type: ignore[union-attr]

    async def aclose(self) -> None:
        await self._stream.aclose()


# Most specific first: the classes of httpx that stand for those of httpcore.
_EXCEPTIONS: Final[tuple[tuple[type[Exception], type[httpx.RequestError]], ...]] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.ProxyError, httpx.ProxyError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
)


class PoolTransport(httpx.AsyncBaseTransport):
    """The transport of streamfold's own clients: `proxy` is a URL, `ssl_context` is shared."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None, proxy: str | None = None) -> None:
        options: dict[str, Any] = {
            "ssl_context": ssl_context,
            "max_connections": MAX_CONNECTIONS,
            "max_keepalive_connections": MAX_KEPT,
            "keepalive_expiry": KEPT_SECONDS,
            "network_backend": _Backend(),
        }
        self._pool = _proxied(proxy, options) if proxy else httpcore.AsyncConnectionPool(**options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            ),
            headers=request.headers.raw,
            content=_Content(await request.aread()),
            extensions=request.extensions,
        )
        try:
            got = await self._pool.handle_async_request(sent)
        except tuple(known for known, _ in _EXCEPTIONS) as error:
            meant = next(theirs for known, theirs in _EXCEPTIONS if isinstance(error, known))
            raise meant(str(error), request=request) from error
        found = got.extensions.get("network_stream")
        stream = found if isinstance(found, _Stream) else None
        if stream is not None:
            stream.clock = CLOCK.get()
            names = {name.lower() for name, _ in got.headers}
            # Two lengths: read by one of them, a proxy between may go by the other.
            stream.spent = names >= {b"content-length", b"transfer-encoding"}
        return httpx.Response(
            status_code=got.status,
            headers=got.headers,
            stream=_Body(got.stream, stream),
            extensions=got.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def _proxied(proxy: str, options: dict[str, Any]) -> httpcore.AsyncConnectionPool:
    given = httpx.Proxy(proxy)
    url = httpcore.URL(
        scheme=given.url.raw_scheme, host=given.url.raw_host, port=given.url.port, target=b"/"
    )
    if given.url.scheme in ("socks5", "socks5h"):
        return httpcore.AsyncSOCKSProxy(proxy_url=url, proxy_auth=given.raw_auth, **options)
    return httpcore.AsyncHTTPProxy(
        proxy_url=url, proxy_auth=given.raw_auth, proxy_headers=given.headers.raw, **options
    )
