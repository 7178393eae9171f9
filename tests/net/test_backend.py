"""Sockets on asyncio: what httpcore is promised, against real peers on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpcore
import pytest
import trustme

from streamfold.net import backend
from streamfold.net.backend import AsyncioBackend

pytestmark = pytest.mark.anyio

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LONG = 30.0  # seconds: a wait that is not to end by the clock
SHORT = 0.05

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Any:
    """A socket that nobody closed warns when it is collected, and warnings are errors."""
    yield
    gc.collect()


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def closing(handler: Handler) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.transport.abort()

    return serve


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a peer that treats each connection by `handler`, and closes it then."""
    server = await asyncio.start_server(closing(handler), "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def connected(
    handler: Handler, tls: ssl.SSLContext | None = None
) -> AsyncIterator[httpcore.AsyncNetworkStream]:
    async with serving(handler, tls) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        if tls is not None:
            stream = await stream.start_tls(client_context(), "localhost", LONG)
        try:
            yield stream
        finally:
            await stream.aclose()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(LONG)


async def read_exactly(stream: httpcore.AsyncNetworkStream, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = await stream.read(min(size - len(got), 65536), LONG)
        assert data
        got += data
    return got


both = pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])


def tls_if(secure: bool) -> ssl.SSLContext | None:
    return server_context() if secure else None


# ---- reading and writing -------------------------------------------------------------------------


@both
async def test_there_and_back(secure: bool) -> None:
    async with connected(echo, tls_if(secure)) as stream:
        await stream.write(b"hello", LONG)
        assert await stream.read(65536, LONG) == b"hello"
        await stream.write(b"", LONG)
        await stream.write(b"more", LONG)
        assert await read_exactly(stream, 2) == b"mo"
        assert await read_exactly(stream, 2) == b"re"


@both
async def test_much_data(secure: bool) -> None:
    """More than all buffers hold, both ways at once."""
    data = bytes(range(256)) * 16_384  # 4 MiB
    async with connected(echo, tls_if(secure)) as stream, anyio.create_task_group() as group:
        group.start_soon(stream.write, data, LONG)
        assert await read_exactly(stream, len(data)) == data


async def test_connections_share_a_buffer_and_nothing_else() -> None:
    sockets = AsyncioBackend()

    async def talk(port: int, letter: bytes) -> None:
        stream = await sockets.connect_tcp("127.0.0.1", port, LONG)
        for size in (1, 1000, 100_000):
            await stream.write(letter * size, LONG)
            assert await read_exactly(stream, size) == letter * size
        await stream.aclose()

    async with serving(echo) as port, anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(talk, port, bytes([65 + n]))


async def test_what_it_says_of_itself() -> None:
    async with connected(echo) as stream:
        sock = stream.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.get_extra_info("client_addr") == sock.getsockname()
        assert stream.get_extra_info("server_addr") == sock.getpeername()
        assert stream.get_extra_info("ssl_object") is None
        assert stream.get_extra_info("something else") is None


async def test_a_path() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        server = await asyncio.start_unix_server(closing(echo), path)
        stream = await AsyncioBackend().connect_unix_socket(path, LONG)
        await stream.write(b"hello", LONG)
        assert await read_exactly(stream, 5) == b"hello"
        await stream.aclose()
        server.close()


async def test_the_peer_waits_for_a_slow_reader() -> None:
    """What nobody reads stays with the peer: the buffer is bounded, and nothing is lost."""
    size = 64 << 20
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        writer.close()
        await writer.wait_closed()  # what is left in its buffer goes, too

    async with connected(pour) as stream:
        before = -1
        while before != sent:  # until it gets no further
            before = sent
            await anyio.sleep(SHORT)
        assert sent < size
        held = len(stream._arrived)  # type: ignore[attr-defined]
        assert held < backend._AHEAD_BYTES + backend._READ_BYTES
        got = 0
        while data := await stream.read(65536, LONG):
            got += len(data)
        assert got == size


# ---- waiting -------------------------------------------------------------------------------------


@both
async def test_a_wait_that_is_too_long(secure: bool) -> None:
    """It ends by the clock; what comes later is read later."""
    go = asyncio.Event()

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(b"late")
        await asyncio.sleep(LONG)

    async with connected(late, tls_if(secure)) as stream:
        for _ in range(3):
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(65536, SHORT)
        go.set()
        assert await read_exactly(stream, 4) == b"late"


async def test_the_timer_follows_the_limits() -> None:
    """One timer serves waits under long and short limits, in any order, and none."""
    async with connected(echo) as stream:
        for limit in (LONG, 1.0, None, LONG, 1.0):
            await stream.write(b"x", LONG)
            assert await stream.read(1, limit) == b"x"
        for limit in (SHORT, 2 * SHORT):
            start = anyio.current_time()
            with pytest.raises(httpcore.ReadTimeout):
                await stream.read(1, limit)
            assert limit - 0.01 <= anyio.current_time() - start < limit + 5
        await stream.write(b"x", LONG)
        assert await stream.read(1, None) == b"x"
        with anyio.move_on_after(3 * SHORT):  # the old timer goes off, and means nothing
            await stream.read(1, None)
            pytest.fail("there was nothing to read")


async def test_many_short_waits_set_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(echo) as stream:
        loop = asyncio.get_running_loop()
        count, call_at = 0, loop.call_at

        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            return call_at(*args, **kwargs)

        monkeypatch.setattr(loop, "call_at", counting)
        for _ in range(100):
            await stream.write(b"x", None)
            assert await stream.read(1, LONG) == b"x"
        assert count <= 1


@both
async def test_a_cancelled_wait_loses_nothing(secure: bool) -> None:
    async with connected(echo, tls_if(secure)) as stream:
        for _ in range(3):
            with anyio.move_on_after(SHORT) as scope:
                await stream.read(1, LONG)
            assert scope.cancelled_caught
        await stream.write(b"abc", LONG)
        assert await read_exactly(stream, 3) == b"abc"


async def test_a_peer_that_does_not_read() -> None:
    """Writing waits for it, by the clock."""
    async with connected(hang) as stream:
        with pytest.raises(httpcore.WriteTimeout):
            await stream.write(b"x" * (64 << 20), SHORT)


# ---- ends ----------------------------------------------------------------------------------------


@both
async def test_the_peer_closes(secure: bool) -> None:
    """Its last bytes come first; then the end, however often one asks."""

    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async with connected(bye, tls_if(secure)) as stream:
        assert await read_exactly(stream, 3) == b"bye"
        assert await stream.read(65536, LONG) == b""
        assert await stream.read(65536, LONG) == b""
        assert stream.get_extra_info("is_readable")


@both
async def test_the_connection_is_reset(secure: bool) -> None:
    """What came before stays readable; then it is an error, of reading and of writing."""
    go = asyncio.Event()

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        await writer.drain()
        await go.wait()
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with connected(reset, tls_if(secure)) as stream:
        assert await read_exactly(stream, 4) == b"last"
        go.set()
        assert await read_exactly(stream, 6) == b" words"
        with pytest.raises(httpcore.ReadError, match="reset"):
            await stream.read(65536, LONG)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x", LONG)


async def test_a_peer_that_has_said_all_may_still_listen() -> None:
    """A connection half closed by the peer carries what we write."""
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        assert await reader.readexactly(5) == b"hello"
        heard.set()

    async with connected(listen) as stream:
        assert await stream.read(65536, LONG) == b""
        await stream.write(b"hello", LONG)
        await asyncio.wait_for(heard.wait(), LONG)


@both
async def test_closing(secure: bool) -> None:
    """At once, also where the peer does not answer, and twice; whoever waits is told."""
    async with connected(hang, tls_if(secure)) as stream:

        async def waits() -> None:
            with pytest.raises(httpcore.ReadError):
                await stream.read(65536, LONG)

        async with anyio.create_task_group() as group:
            group.start_soon(waits)
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                await stream.aclose()
                await stream.aclose()
        with pytest.raises(httpcore.ReadError):
            await stream.read(65536, LONG)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x", LONG)
        assert stream.get_extra_info("is_readable")


async def test_whether_something_has_come() -> None:
    """It is seen before the loop has looked: in the kernel, in the buffer, and the end."""
    sock = socket.create_server(("127.0.0.1", 0))
    stream = await AsyncioBackend().connect_tcp(*sock.getsockname(), LONG)
    peer, _ = sock.accept()
    assert not stream.get_extra_info("is_readable")
    peer.sendall(b"x")
    assert stream.get_extra_info("is_readable")
    await anyio.sleep(SHORT)
    assert stream.get_extra_info("is_readable")
    assert await stream.read(1, LONG) == b"x"
    assert not stream.get_extra_info("is_readable")
    peer.close()
    assert stream.get_extra_info("is_readable")
    await stream.aclose()
    sock.close()


# ---- connecting ----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def addresses(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    async def lookup(host: str, port: int) -> Any:
        return [(socket.AF_INET, address) for address in found]

    monkeypatch.setattr(backend, "_addresses", lookup)


def stalling(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Connecting to `port` never ends."""
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        await (asyncio.sleep(LONG) if address[1] == port else connect(sock, address))

    monkeypatch.setattr(loop, "sock_connect", sock_connect)


async def test_nobody_listens() -> None:
    with pytest.raises(httpcore.ConnectError, match="Connect call failed"):
        await AsyncioBackend().connect_tcp("127.0.0.1", free_port(), LONG)


async def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    with pytest.raises(httpcore.ConnectError, match="not known"):
        await AsyncioBackend().connect_tcp("nowhere.invalid", 80, LONG)


async def test_a_connection_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    stalling(monkeypatch, port)
    with pytest.raises(httpcore.ConnectTimeout):
        await AsyncioBackend().connect_tcp("127.0.0.1", port, SHORT)


async def test_the_next_address_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that stalls does not keep the others from being tried, one that fails even less;
    the first that answers wins."""
    dead, stalled = free_port(), free_port()
    stalling(monkeypatch, stalled)
    async with serving(echo) as port:
        order = (dead, stalled, port)
        addresses(monkeypatch, *(("127.0.0.1", each) for each in order))
        with anyio.fail_after(5):
            stream = await AsyncioBackend().connect_tcp("host", 80, LONG)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
        await stream.aclose()


async def test_every_address_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """All their reasons are told."""
    one, two = free_port(), free_port()
    addresses(monkeypatch, ("127.0.0.1", one), ("127.0.0.1", two))
    with pytest.raises(httpcore.ConnectError, match=rf"{one}.*; .*{two}"):
        await AsyncioBackend().connect_tcp("host", 80, LONG)


async def test_addresses_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The families take turns, in the system's order; a literal asks nobody."""
    six = [(socket.AF_INET6, 0, 0, "", (f"::{n}", 80, 0, 0)) for n in range(3)]
    four = [(socket.AF_INET, 0, 0, "", ("127.0.0.1", 80))]

    async def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        return [*six, *four]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = await backend._addresses("host.invalid", 80)
    assert [address[0] for _, address in found] == ["::0", "127.0.0.1", "::1", "::2"]
    assert await backend._addresses("127.0.0.1", 80) == [(socket.AF_INET, ("127.0.0.1", 80))]


async def test_cancelled_at_any_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far connecting has got, no socket is left (a forgotten one warns)."""
    dead = free_port()
    async with serving(echo, server_context()) as port:
        addresses(monkeypatch, ("127.0.0.1", dead), ("127.0.0.1", port))
        context = client_context()
        for turns in range(40):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def connect() -> None:
                        stream = await AsyncioBackend().connect_tcp("host", 80, LONG)
                        try:
                            stream = await stream.start_tls(context, "localhost", LONG)
                        finally:
                            with anyio.CancelScope(shield=True):
                                await stream.aclose()

                    group.start_soon(connect)
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    scope.cancel()
        gc.collect()


# ---- TLS -----------------------------------------------------------------------------------------


async def test_tls_says_who_it_is() -> None:
    async with connected(echo, server_context()) as stream:
        tls = stream.get_extra_info("ssl_object")
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
        assert tls.getpeercert()
        assert stream.get_extra_info("socket") is not None


@pytest.mark.parametrize("name", ["elsewhere.example", None], ids=["name", "no-name"])
async def test_another_host(name: str | None) -> None:
    """The certificate is for another name: no connection, and the socket is closed."""
    async with serving(echo, server_context()) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        with pytest.raises(httpcore.ConnectError if name else ValueError, match="name"):
            await stream.start_tls(client_context(), name, LONG)
        with pytest.raises(httpcore.ReadError):
            await stream.read(1, LONG)


async def test_a_server_without_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with serving(plain) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        with pytest.raises(httpcore.ConnectError):
            await stream.start_tls(client_context(), "localhost", LONG)


@pytest.mark.parametrize("how", ["hangs", "closes"])
async def test_a_handshake_that_comes_to_nothing(how: str) -> None:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        if how == "hangs":
            await asyncio.sleep(LONG)

    expected = httpcore.ConnectTimeout if how == "hangs" else httpcore.ConnectError
    async with serving(act) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, LONG)
        with pytest.raises(expected):
            await stream.start_tls(client_context(), "localhost", 4 * SHORT)


@contextlib.asynccontextmanager
async def relaying(port: int, spoil: Callable[[bytes, int], bytes]) -> AsyncIterator[int]:
    """The port of a relay to `port` that may `spoil` what comes back, by read and its number."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)

        async def forth() -> None:
            while data := await reader.read(65536):
                ours.write(data)

        forward = asyncio.ensure_future(forth())
        number = 0
        try:
            while data := await theirs.read(65536):
                number += 1
                writer.write(spoil(data, number))
                await writer.drain()
        finally:
            forward.cancel()
            ours.transport.abort()

    async with serving(relay) as relayed:
        yield relayed


async def test_a_damaged_record() -> None:
    """What was decrypted before it comes out; then it is an error, however often one asks."""
    spoiled = False

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        writer.write(b"good")
        await writer.drain()
        writer.write(b"bad")
        await asyncio.sleep(LONG)

    def spoil(data: bytes, number: int) -> bytes:
        """The record of "bad", which is the last one that comes together with that of "good"."""
        if not spoiled:
            return data
        return data[:-1] + bytes([data[-1] ^ 1])

    async with serving(says, server_context()) as port, relaying(port, spoil) as relayed:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", relayed, LONG)
        stream = await stream.start_tls(client_context(), "localhost", LONG)
        await stream.write(b"g", LONG)
        await anyio.sleep(SHORT)  # the server's session tickets have passed by then
        spoiled = True
        await stream.write(b"o", LONG)
        got: list[bytes] = []

        async def read_on() -> None:
            while True:
                got.append(await stream.read(65536, LONG))

        with pytest.raises(httpcore.ReadError):
            await read_on()
        assert got in ([], [b"good"])
        with pytest.raises(httpcore.ReadError):
            await stream.read(65536, LONG)
        await stream.aclose()


async def test_tls_without_a_farewell() -> None:
    """The end of the connection is the end: whether the answer is whole says its framing."""
    async with connected(echo, server_context()) as stream:
        await stream.write(b"hello", LONG)
        assert await read_exactly(stream, 5) == b"hello"
        stream.get_extra_info("socket").shutdown(socket.SHUT_RD)
        assert await stream.read(65536, LONG) == b""


async def test_tls_in_tls() -> None:
    """To a server through an https proxy."""

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()

        back = asyncio.ensure_future(pump(theirs, writer))
        try:
            await pump(reader, ours)
        finally:
            back.cancel()
            ours.transport.abort()

    async with serving(echo, server_context()) as port, connected(proxy, server_context()) as outer:
        inner = await outer.start_tls(client_context(), "localhost", LONG)
        data = bytes(range(256)) * 1024
        await inner.write(data, LONG)
        assert await read_exactly(inner, len(data)) == data
        await inner.aclose()
