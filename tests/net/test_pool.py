"""Which connection takes a request: reuse, limits, proxies, and what it costs to decide."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpcore
import httpx
import pytest
import trustme
from anyio.streams.tls import TLSListener
from faults import FaultServer, Wire
from says import DIALECTS, Dialect

from streamfold.limits import Timeouts
from streamfold.net import pool
from streamfold.net.clock import CLOCK, Clock
from streamfold.net.pool import PoolTransport
from streamfold.net.streams import Backend

pytestmark = pytest.mark.anyio

SAY = DIALECTS["openai"]
AUTHORITY = trustme.CA()


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


async def fine(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


async def held(wire: Wire, say: Dialect) -> None:
    """The head, and no more until the client has left."""
    await wire.head()
    await wire.hang()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(fine, SAY) as running:
        yield running


@pytest.fixture
def holding() -> Iterator[FaultServer]:
    with FaultServer(held, SAY) as running:
        yield running


@contextlib.asynccontextmanager
async def client(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = PoolTransport(ssl_context=client_context(), **options)
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as made:
        yield made


async def ask(made: httpx.AsyncClient, server: FaultServer) -> str:
    response = await made.post(server.origin + "/v1/chat/completions", content=b"{}")
    return response.text


async def at_once(made: httpx.AsyncClient, server: FaultServer, count: int) -> None:
    """`count` streams that are all open at the same time."""
    async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as group:

        async def open_one() -> None:
            url = server.origin + "/v1/chat/completions"
            await stack.enter_async_context(made.stream("POST", url, content=b"{}"))

        for _ in range(count):
            group.start_soon(open_one)


async def test_calls_in_a_row_use_one_connection(server: FaultServer) -> None:
    async with client() as made:
        for _ in range(300):
            assert (await ask(made, server)).endswith("data: [DONE]\n\n")
    assert server.connections == 1


async def test_calls_at_once_have_a_connection_each(server: FaultServer) -> None:
    """They are kept for the next ones, as many as are allowed."""
    async with client() as made:
        await at_once(made, server, 20)
        assert server.connections == 20
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, made, server)


async def test_the_oldest_of_too_many_go(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_KEPT", 3)

    async def all_together(made: httpx.AsyncClient) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, made, server)

    async with client() as made:
        await all_together(made)
        await anyio.to_thread.run_sync(server.wait_for, lambda: 1 <= server.open_connections <= 3)
    await anyio.to_thread.run_sync(server.wait_open, 0)


async def test_what_was_kept_too_long_is_closed(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where newer connections take all the requests."""
    monkeypatch.setattr(pool, "KEPT_SECONDS", 0.2)
    async with client() as made:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask, made, server)
        many = server.connections
        await anyio.sleep(0.3)
        await ask(made, server)
        assert server.connections == many + 1
        await anyio.to_thread.run_sync(server.wait_open, 1)


async def test_deciding_costs_the_same_among_many(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request looks at one or two connections, however many there are."""
    looks = 0
    for name in ("is_available", "is_idle", "has_expired", "is_closed"):
        look = getattr(httpcore.AsyncHTTPConnection, name)

        def counting(self: Any, look: Any = look) -> Any:
            nonlocal looks
            looks += 1
            return look(self)

        monkeypatch.setattr(httpcore.AsyncHTTPConnection, name, counting)
    async with client() as made, anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(ask, made, server)
    assert looks <= 200 * 6


async def test_no_room(holding: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit a request waits for one to end, in turn, and no longer than it may take to
    connect."""
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 1)
    url = holding.origin + "/v1/chat/completions"
    order: list[int] = []

    async with client() as made, anyio.create_task_group() as group:

        async def later(number: int) -> None:
            async with made.stream("POST", url, content=b"{}"):
                order.append(number)

        async with made.stream("POST", url, content=b"{}"):
            CLOCK.set(Clock(Timeouts(connect=0.1)))
            with pytest.raises(httpx.PoolTimeout, match="1 connections"):
                await made.post(url, content=b"{}")
            CLOCK.set(None)
            for number in range(3):
                group.start_soon(later, number)
                await anyio.wait_all_tasks_blocked()
            assert order == []
    assert order == [0, 1, 2]
    await anyio.to_thread.run_sync(holding.wait_open, 0)


async def test_a_call_that_fails_gives_its_place_back(
    holding: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, cancelled while it waits or reads: the next one has room."""
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 1)
    url = holding.origin + "/v1/chat/completions"
    async with client() as made:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await made.post("http://127.0.0.1:9/v1", content=b"{}")
            with anyio.move_on_after(0.05):
                await made.post(url, content=b"{}")
            with anyio.move_on_after(0.05):
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(ask, made, holding)
        async with made.stream("POST", url, content=b"{}") as response:
            assert response.status_code == 200
    await anyio.to_thread.run_sync(holding.wait_open, 0)


async def test_closing_ends_what_is_open(holding: FaultServer) -> None:
    """A client that is closed leaves no connection, used or not; whoever reads is told."""
    url = holding.origin + "/v1/chat/completions"
    async with client() as made:
        async with made.stream("POST", url, content=b"{}") as response:

            async def read() -> None:
                with pytest.raises(httpx.HTTPError):
                    await response.aread()

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.wait_all_tasks_blocked()
                await made.aclose()
        await anyio.to_thread.run_sync(holding.wait_open, 0)


async def test_a_request_that_finds_a_closed_pool_leaves_nothing(server: FaultServer) -> None:
    """It may have taken the pool from the model just before that was closed."""
    transport = PoolTransport(ssl_context=client_context())
    await transport.aclose()
    url = server.origin + "/v1/chat/completions"
    response = await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
    assert (await response.aread()).endswith(b"data: [DONE]\n\n")
    await response.aclose()
    await anyio.to_thread.run_sync(server.wait_open, 0)


async def test_closing_while_a_connection_is_opened(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that then stands belongs to nobody but its request, which closes it."""
    connected, go_on = anyio.Event(), anyio.Event()
    connect = Backend.connect_tcp

    async def slowly(*args: Any, **kwargs: Any) -> Any:
        stream = await connect(*args, **kwargs)
        connected.set()
        await go_on.wait()
        return stream

    monkeypatch.setattr(Backend, "connect_tcp", slowly)
    async with client() as made, anyio.create_task_group() as group:
        group.start_soon(ask, made, server)
        await connected.wait()
        await made.aclose()
        go_on.set()
    await anyio.to_thread.run_sync(server.wait_open, 0)


# ---- proxies -------------------------------------------------------------------------------------


class Proxy:
    """A proxy for CONNECT: `asked` are the heads that it got."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def __call__(self, near: anyio.abc.ByteStream) -> None:
        async with near:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await near.receive()
            self.asked.append(head)
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as far:
                await near.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                async with anyio.create_task_group() as group:
                    group.start_soon(self._pump, near, far)
                    await self._pump(far, near)
                    group.cancel_scope.cancel()

    async def _pump(self, source: Any, target: Any) -> None:
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, ssl.SSLError):
            async for data in source:
                await target.send(data)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_through_a_proxy(scheme: str) -> None:
    """TLS to the server in a tunnel, which may itself be in TLS; and the tunnel is used again."""
    proxy = Proxy()
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if scheme == "https":
        listener = TLSListener(listener, server_context(), standard_compatible=False)
    with FaultServer(fine, SAY, tls=server_context()) as server:
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, proxy)
            async with client(proxy=f"{scheme}://127.0.0.1:{port}") as made:
                for _ in range(3):
                    assert (await ask(made, server)).endswith("data: [DONE]\n\n")
            group.cancel_scope.cancel()
        assert server.connections == 1
    assert len(proxy.asked) == 1
    assert proxy.asked[0].startswith(b"CONNECT 127.0.0.1:")


async def test_interim_answers() -> None:
    """Heads that come before that of the answer are passed over, however they are cut."""

    async def act(wire: Wire, say: Dialect) -> None:
        early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        body = say.whole()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        for byte in early + early[:1]:
            await wire.send(bytes([byte]))
        await wire.send(early[1:] + head + body)
        wire.keep = True

    with FaultServer(act, SAY) as server:
        async with client() as made:
            for _ in range(2):
                assert (await ask(made, server)) == SAY.whole().decode()
        assert server.connections == 1


async def test_an_answer_that_comes_unasked() -> None:
    """What a connection has received since its last answer is never the next one's answer."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    count = 0

    async def serve(stream: anyio.abc.SocketStream) -> None:
        nonlocal count
        count += 1
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
        async with stream:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    await stream.receive()
                    await stream.send(answer + b"true")
                    await anyio.sleep(0.02)
                    await stream.send(answer + b"fake")

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        async with client() as made:
            for _ in range(3):
                response = await made.post(f"http://127.0.0.1:{port}/", content=b"{}")
                assert response.text == "true"
                await anyio.sleep(0.1)
        group.cancel_scope.cancel()
    assert count == 3
