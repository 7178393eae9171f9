"""Connections by aiohttp: what `transport="aiohttp"` chooses.

An httpx transport over an aiohttp session, for those who run aiohttp already and want one HTTP
stack. It keeps the clock, the fence and the errors of our own connections. aiohttp is asked for one
exchange at a time: it keeps no cookies, follows no redirect, unpacks nothing, reads no environment.

The fence: a kept connection takes a request only if nothing has come on it since the last answer.
That is looked at when it is chosen and again when the request leaves (`_Content`), and what aiohttp
takes for an answer before then is none.

What is different all the same:

===================== ===================================== ========================================
                      ours                                  aiohttp
===================== ===================================== ========================================
event loops           asyncio and trio                      asyncio
proxies               http, https, socks5                   http, https
an answer left early  closes its connection                 the same, unless all of it has come
                                                            already: then the connection is kept
bytes that are no     what came before them is read         so it is, but for what came in the same
HTTP                                                        read as the head: the call fails
two lengths           chunks count, no further request      refused
kept connections      100 in all; the one used last first   all, for 30 s; the one used first first
head of an answer     100 KiB                               32 KiB a line, 128 lines
names of hosts        looked up for each connection         remembered for 10 s
TLS                   small buffers; what came ahead of a   512 KiB of buffers for each connection;
                      damaged record is read                it may be lost
===================== ===================================== ========================================
"""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import anyio
import httpx
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from ..limits import Timeouts
from .backend import is_readable
from .clock import CLOCK, Clock
from .foreign import as_httpx
from .pool import KEPT_SECONDS, MAX_CONNECTIONS
from .streams import socket_options

if TYPE_CHECKING:
    import socket

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import AddrInfoType, Connection
    from aiohttp.tracing import Trace

__all__ = ["AiohttpTransport"]

_LINE_BYTES: Final = 32 * 1024  # of the head of an answer; aiohttp takes 128 of them
_READ_BYTES: Final = 64 * 1024
_NO_LIMITS: Final = Timeouts(connect=None, first_event=None, idle=None)

_Place = tuple[str, str, int | None]


def _place(url: httpx.URL) -> _Place:
    return url.scheme, url.host, url.port


class AiohttpTransport(httpx.AsyncBaseTransport):
    """For one asyncio loop: `proxy` is a URL, `ssl_context` is shared. Raises ValueError for a
    proxy that aiohttp cannot use."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None, proxy: str | None = None) -> None:
        self._proxy = None if proxy is None else yarl.URL(proxy)
        if self._proxy is not None and self._proxy.scheme not in ("http", "https"):
            raise ValueError(f"aiohttp knows http and https proxies, not {self._proxy.scheme}")
        self._connector = _Connector(
            ssl=ssl_context or True,
            limit=MAX_CONNECTIONS,
            keepalive_timeout=KEPT_SECONDS,
            socket_factory=_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
        )
        self._bodies: set[_Body] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        data = await request.aread()
        with anyio.CancelScope() as scope:  # without a deadline until there is a connection
            sent = _Content(data, _place(request.url), CLOCK.get() or Clock(_NO_LIMITS), scope)
            try:
                answer = await self._session.request(
                    request.method,
                    yarl.URL(str(request.url.copy_with(userinfo=b"")), encoded=True),
                    headers=request.headers.multi_items(),
                    data=sent,
                    allow_redirects=False,
                    proxy=self._proxy,
                )
            except Exception as error:
                known = as_httpx(error)
                if known is None:
                    raise
                raise known from error
            if not sent.gone:
                answer.close()
                raise httpx.ReadError(_UNASKED)
            return self._response(answer, sent)
        raise httpx.ReadTimeout("the time limit has passed")

    def _response(self, answer: aiohttp.ClientResponse, sent: _Content) -> httpx.Response:
        body = _Body(answer, sent, self._bodies)
        return httpx.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=body,
            extensions={
                "http_version": b"HTTP/1.1",
                "reason_phrase": (answer.reason or "").encode("ascii", "replace"),
            },
        )

    async def forget(self, hosts: Iterable[str]) -> None:
        """Close the connections to these hosts (`https://host:port`), those in use, too."""
        self._connector.forget({_place(httpx.URL(host)) for host in hosts})

    async def aclose(self) -> None:
        for body in self._bodies:
            body.lose()
        await self._session.close()


# ---- one exchange --------------------------------------------------------------------------------

_UNASKED: Final = "the connection has ended, or an answer came unasked"


class _Content(Payload):
    """The content of a request: it looks at its connection before it lets itself be sent.

    aiohttp hands it to the connector with the request, and sends head and content together, in a
    task of its own: an answer may be there before.
    """

    def __init__(self, data: bytes, place: _Place, clock: Clock, scope: anyio.CancelScope) -> None:
        super().__init__(data)
        self._size = len(data)
        self.place = place
        self.clock = clock
        self.gone = False  # what comes from now on may be its answer
        self.protocol: ResponseHandler
        self._scope = scope
        self._kept = False

    def connected(self, protocol: ResponseHandler, *, kept: bool) -> None:
        """The connection is there; `kept` says whether it has carried another request."""
        self.protocol = protocol
        self._kept = kept
        left = self.clock.left()
        if left is not None:
            self._scope.deadline = anyio.current_time() + left

    async def write(self, writer: AbstractStreamWriter) -> None:
        if self._kept and not _is_silent(self.protocol):
            raise ConnectionError(_UNASKED)
        self.gone = True
        await writer.write(self._value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)


class _Body(httpx.AsyncByteStream):
    """The bytes of an answer, each wait for them within the clock's limit, with aiohttp's
    exceptions as httpx's. It is among `bodies` until it is closed."""

    def __init__(self, answer: aiohttp.ClientResponse, sent: _Content, bodies: set[_Body]) -> None:
        self._answer = answer
        self._content = answer.content
        self._clock = sent.clock
        self._alarm = _Alarm(answer.content)
        self._bodies = bodies
        self._ended = sent.protocol.closed
        if self._ended is None:
            self.lose()
        else:
            self._ended.add_done_callback(self.lose)
        bodies.add(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._content
        try:
            while not content.at_eof():
                left = self._clock.left()
                if left == 0.0:
                    raise aiohttp.SocketTimeoutError("the time limit has passed")
                data = content.read_nowait(_READ_BYTES)
                if not data:
                    self._alarm.set(left)
                    data = await content.read(_READ_BYTES)
                    self._alarm.rest()
                if data:
                    yield data
        except aiohttp.ClientError as error:
            if data := self._unread():
                yield data
            known = as_httpx(error)
            if known is None:
                raise
            raise known from error

    def _unread(self) -> bytes:
        """What came before the connection broke: aiohttp would say only that it broke."""
        if self._content.exception() is None:
            return b""
        self._content.set_exception(None)  # type: ignore[arg-type]
        return self._content.read_nowait()

    def lose(self, ended: object = None) -> None:
        """The connection has ended: the reader gets what came, and an error. Of a framing that it
        cannot read aiohttp says nothing else."""
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(
                aiohttp.ClientPayloadError("the connection ended in the middle of the answer")
            )

    async def aclose(self) -> None:
        if self not in self._bodies:
            return
        self._bodies.discard(self)
        self._alarm.stop()
        if self._ended is not None:
            self._ended.remove_done_callback(self.lose)
        if not self._content.is_eof():
            connection = self._answer.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()  # TLS would wait for the peer's farewell
        self._answer.close()


class _Alarm:
    """Ends a wait for `content` when its time is over. One timer serves many short waits under a
    long limit: going off, it looks whether the wait of that moment has more time."""

    __slots__ = ("_content", "_due", "_loop", "_timer")

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """A wait begins; None is for ever."""
        if seconds is None:
            return
        self._due = due = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > due:
            self.stop()
            self._timer = self._loop.call_at(due, self._ring)

    def rest(self) -> None:
        """The wait is over."""
        self._due = None

    def stop(self) -> None:
        """There is no timer any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        timer, self._timer = self._timer, None
        if self._due is None or timer is None:
            return
        if timer.when() < self._due:
            self._timer = self._loop.call_at(self._due, self._ring)
        else:
            self._content.set_exception(aiohttp.SocketTimeoutError("the time limit has passed"))


# ---- which connection ----------------------------------------------------------------------------


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, within the clock's limit, and with the fence."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._places: weakref.WeakKeyDictionary[ResponseHandler, _Place] = (
            weakref.WeakKeyDictionary()
        )

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        sent = req.body
        assert isinstance(sent, _Content)
        with anyio.fail_after(sent.clock.connect_left()):
            while True:
                connection = await super().connect(req, traces, timeout)
                protocol = connection.protocol
                assert protocol is not None
                kept = protocol in self._places
                if not kept or _is_silent(protocol):
                    break
                connection.close()
        if not kept:
            self._places[protocol] = sent.place
            if protocol.closed is not None:
                protocol.closed.add_done_callback(asyncio.Future.exception)  # it has been seen
        sent.connected(protocol, kept=kept)
        return connection

    def forget(self, places: set[_Place]) -> None:
        """Close all connections to `places`."""
        for protocol, place in list(self._places.items()):
            if place in places and protocol.transport is not None:
                protocol.transport.abort()


def _is_silent(protocol: ResponseHandler) -> bool:
    """Whether nothing has come, neither bytes nor an end, that nobody asked for."""
    transport = protocol.transport
    if transport is None or transport.is_closing() or protocol.should_close:
        return False
    return not is_readable(transport.get_extra_info("socket").fileno())


def _socket(address: AddrInfoType) -> socket.socket:
    import socket

    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    for option in socket_options():
        made.setsockopt(*option)
    return made
