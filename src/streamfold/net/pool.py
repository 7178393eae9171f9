"""Connections: an httpx transport over httpcore's connections, with a pool that scales.

httpcore's own pool looks at all its connections whenever a request begins or ends, so a thousand
streams at once cost a million looks. Here the connections are httpcore's, with its proxies and its
TLS, and which of them takes a request is decided by looking at one or two.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import anyio
import httpcore
import httpx

from .chunked import ChunkedBody
from .clock import CLOCK
from .streams import Backend, Stream

__all__ = ["PoolTransport"]

MAX_CONNECTIONS: Final = 10_000  # in use at once; further requests wait for one of them to end
MAX_KEPT: Final = 100  # not in use
KEPT_SECONDS: Final = 30.0


def _without_headers(record: logging.LogRecord) -> bool:
    """httpcore logs the headers of an answer for debugging, and a server may echo the key in one:
    those of our calls stay out of the log."""
    if CLOCK.get() is not None and record.getMessage().startswith("receive_response_headers.c"):
        record.msg, record.args = "receive_response_headers.complete (headers are not shown)", ()
    return True


logging.getLogger("httpcore.http11").addFilter(_without_headers)


# ---- which connection ----------------------------------------------------------------------------

_Place = tuple[bytes, bytes, int]


class _Pool:
    """Connections in use, and those that wait for a request: of these the one used last goes first,
    so that the others can expire."""

    def __init__(self, connections: httpcore.AsyncConnectionPool) -> None:
        self._create = connections.create_connection
        self._used: dict[httpcore.AsyncConnectionInterface, _Place] = {}
        self._kept: dict[httpcore.AsyncConnectionInterface, _Place] = {}  # the oldest first
        self._kept_at: dict[_Place, list[httpcore.AsyncConnectionInterface]] = {}
        self._closed = False
        self._room = anyio.Semaphore(MAX_CONNECTIONS, fast_acquire=True)

    async def take(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """A connection for one request, to be given back. Raises httpcore.PoolTimeout."""
        await self._enter()
        place = (origin.scheme, origin.host, origin.port)
        connection = None
        try:
            while connection is None and place in self._kept_at:
                kept = self._kept_at[place][-1]
                self._forget(kept)
                if kept.is_available() and not kept.has_expired():
                    connection = kept
                else:
                    await _close(kept)
            connection = connection or self._create(origin)
        except BaseException:
            self._room.release()
            raise
        self._used[connection] = place
        return connection

    async def give_back(self, connection: httpcore.AsyncConnectionInterface) -> None:
        """Its request is over: it is kept if it can carry another one."""
        place = self._used.pop(connection, None)
        if place is None:  # the pool was closed while this one was being opened or read
            await _close(connection)
            return
        self._room.release()
        if connection.is_idle() and not self._closed:
            self._kept[connection] = place
            self._kept_at.setdefault(place, []).append(connection)
        else:
            await _close(connection)
        while self._kept:
            oldest = next(iter(self._kept))
            if len(self._kept) <= MAX_KEPT and not oldest.has_expired():
                break
            self._forget(oldest)
            await _close(oldest)

    async def aclose(self) -> None:
        """Close all connections, those in use, too. None is kept from now on: a request may have
        found this pool just before."""
        self._closed = True
        await self._drop([*self._used, *self._kept])

    async def forget(self, origin: httpcore.Origin) -> None:
        """Close all connections to `origin`, those in use, too."""
        place = (origin.scheme, origin.host, origin.port)
        used = [each for each, its_place in self._used.items() if its_place == place]
        await self._drop([*used, *self._kept_at.get(place, ())])

    async def _drop(self, connections: list[httpcore.AsyncConnectionInterface]) -> None:
        for each in connections:
            if each in self._kept:
                self._forget(each)
            else:
                del self._used[each]
                self._room.release()
        for each in connections:
            await _close(each)

    async def _enter(self) -> None:
        try:
            self._room.acquire_nowait()
        except anyio.WouldBlock:
            clock = CLOCK.get()
            try:
                with anyio.fail_after(clock.connect_left() if clock is not None else None):
                    await self._room.acquire()
            except TimeoutError:
                raise httpcore.PoolTimeout(
                    f"all of {MAX_CONNECTIONS} connections are in use"
                ) from None

    def _forget(self, kept: httpcore.AsyncConnectionInterface) -> None:
        place = self._kept.pop(kept)
        there = self._kept_at[place]
        there.remove(kept)
        if not there:
            del self._kept_at[place]


async def _close(connection: httpcore.AsyncConnectionInterface) -> None:
    with anyio.CancelScope(shield=True):
        await connection.aclose()


# ---- one exchange --------------------------------------------------------------------------------


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

    def __init__(
        self,
        got: httpcore.Response,
        stream: Stream | None,
        connection: httpcore.AsyncConnectionInterface,
        pool: _Pool,
    ) -> None:
        self._got: Any = got.stream
        self._stream = stream
        self._connection = connection
        self._pool = pool
        self._chunked = False
        self._closed = False
        if stream is not None:
            fields = {name.lower(): value for name, value in got.headers}
            lengths = fields.keys() & {b"content-length", b"transfer-encoding"}
            bare = got.status in (204, 304)
            self._chunked = b"transfer-encoding" in lengths and not bare
            given = int(fields[b"content-length"]) if lengths == {b"content-length"} else None
            stream.expect(0 if bare else given)
            stream.clock = CLOCK.get()
            # Two lengths: read by one of them, a proxy between may go by the other.
            stream.spent = len(lengths) == 2

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = self._stream
        try:
            if self._chunked and stream is not None:
                body = ChunkedBody()
                while not body.done:
                    # Popped, for nothing here may hold the bytes while their reader is busy.
                    data = [body.feed(await stream.receive())]
                    if data[0]:
                        yield data.pop()
                    if body.error is not None:
                        raise body.error
                stream.end_chunks(body.rest)
            async for rest in self._got:
                yield rest
            if stream is not None and stream.has_more():
                stream.spent = True
        except httpcore.NetworkError as error:
            raise httpx.ReadError(str(error)) from error
        except httpcore.TimeoutException as error:
            raise httpx.ReadTimeout(str(error)) from error
        except httpcore.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        with anyio.CancelScope(shield=True):
            await self._got.aclose()
            await self._pool.give_back(self._connection)


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
            "keepalive_expiry": KEPT_SECONDS,
            "network_backend": Backend(),
        }
        self._pool = _Pool(
            _proxied(proxy, options) if proxy else httpcore.AsyncConnectionPool(**options)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=_wire_url(url),
            headers=request.headers.raw,
            content=_Content(await request.aread()),
            extensions=request.extensions,
        )
        try:
            connection, got = await self._send(sent)
        except tuple(known for known, _ in _EXCEPTIONS) as error:
            meant = next(theirs for known, theirs in _EXCEPTIONS if isinstance(error, known))
            raise meant(str(error), request=request) from error
        stream = got.extensions.get("network_stream")
        return httpx.Response(
            status_code=got.status,
            headers=got.headers,
            stream=_Body(
                got, stream if isinstance(stream, Stream) else None, connection, self._pool
            ),
            extensions=got.extensions,
        )

    async def _send(
        self, request: httpcore.Request
    ) -> tuple[httpcore.AsyncConnectionInterface, httpcore.Response]:
        connection = await self._pool.take(request.url.origin)
        try:
            return connection, await connection.handle_async_request(request)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.aclose()
                await self._pool.give_back(connection)
            raise

    async def forget(self, hosts: Iterable[str]) -> None:
        """Close the connections to these hosts (`https://host:port`), those in use, too."""
        for host in hosts:
            await self._pool.forget(_wire_url(httpx.URL(host)).origin)

    async def aclose(self) -> None:
        await self._pool.aclose()


def _wire_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(
        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
    )


def _proxied(proxy: str, options: dict[str, Any]) -> httpcore.AsyncConnectionPool:
    given = httpx.Proxy(proxy)
    url = httpcore.URL(
        scheme=given.url.raw_scheme, host=given.url.raw_host, port=given.url.port, target=b"/"
    )
    if given.url.scheme in ("socks5", "socks5h"):
        return httpcore.AsyncSOCKSProxy(proxy_url=url, proxy_auth=given.raw_auth, **options)
    if given.url.scheme == "https":
        options = {**options, "proxy_ssl_context": options["ssl_context"]}
    return httpcore.AsyncHTTPProxy(
        proxy_url=url, proxy_auth=given.raw_auth, proxy_headers=given.headers.raw, **options
    )
