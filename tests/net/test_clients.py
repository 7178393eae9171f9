"""HTTP clients: one per loop, closed with it, never shared across; proxies; TLS."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from faults import FaultServer, Wire
from says import DIALECTS, WHOLE, Dialect

import streamfold
from streamfold import init_chat_model
from streamfold.errors import ConnectError, StreamfoldError
from streamfold.net.clients import Connections, proxy_from_environment
from streamfold.net.streams import Backend

pytestmark = pytest.mark.usefixtures("transport")

SAY = DIALECTS["openai"]
URL = "http://127.0.0.1:9/v1"
SRC = str(Path(streamfold.__file__).parents[1])


async def fine(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(fine, SAY) as running:
        yield running


def model_at(url: str, **fields: Any) -> Any:
    return init_chat_model(SAY.model, **{"api_key": "key", "base_url": url, **fields})


# ---- loops ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_one_client_for_all_models_of_a_loop() -> None:
    """Models share connections; plain http and https have a client each."""
    one, two = Connections(), Connections()
    client = await one.client(URL)
    assert await two.client("http://elsewhere.example/") is client
    secure = await one.client("https://api.example/")
    assert secure is not client
    assert await two.client("https://other.example/") is secure
    assert await one.client(URL) is client
    await one.aclose()
    assert not client.is_closed  # another model still uses it
    assert secure.is_closed is False
    await two.aclose()
    assert client.is_closed
    assert secure.is_closed
    assert await one.client(URL) is not client  # a closed model can be used again
    await one.aclose()


@pytest.mark.anyio
async def test_a_model_that_is_gone_uses_nothing() -> None:
    """A dropped model does not keep the connections of the others open."""
    client = await Connections().client(URL)  # dropped at once
    one = Connections()
    assert await one.client(URL) is client
    await one.aclose()
    assert client.is_closed


def test_a_closed_model_leaves_no_connection_to_its_host(server: FaultServer) -> None:
    """The client goes on for the models of other hosts; those of one host share connections."""
    with FaultServer(fine, SAY) as elsewhere:
        one, two, other = model_at(server.url), model_at(server.url), model_at(elsewhere.url)
        for model in (one, two, other):
            model.invoke("hi")
        one.close()
        assert (server.open_connections, elsewhere.open_connections) == (
            1,
            1,
        )
        two.close()
        server.wait_open(0)
        assert elsewhere.open_connections == 1
        assert two.invoke("again").text == WHOLE  # a closed model can be used again
        server.wait_open(1)
        other.close()
        two.close()
        elsewhere.wait_open(0)
        server.wait_open(0)


@pytest.mark.anyio
async def test_a_stream_ends_when_its_model_is_closed(server: FaultServer) -> None:
    """As it does where no other model keeps the client open."""
    other = Connections()
    await other.client("http://elsewhere.example/")
    model = model_at(server.url)
    stream = model.astream("hi")
    await anext(stream)
    await model.aclose()
    await anyio.to_thread.run_sync(server.wait_open, 0)
    await stream.aclose()
    await other.aclose()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_closes_with_its_loop(server: FaultServer, backend: str) -> None:
    """When the loop ends, so do its connections, without anybody asking."""
    model = model_at(server.url)

    async def main() -> httpx.AsyncClient:
        await model.ainvoke("hi")
        await anyio.to_thread.run_sync(server.wait_open, 1)
        return await model._connections.client(server.url)

    first = anyio.run(main, backend=backend)
    assert first.is_closed
    server.wait_open(0)
    assert anyio.run(main, backend=backend) is not first
    server.wait_open(0)
    assert server.connections == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_loops_one_after_the_other_leave_nothing(server: FaultServer, backend: str) -> None:
    """A program may run a loop for each of its requests, and close no model."""
    model = model_at(server.url)
    clients = []

    async def main() -> None:
        await model.ainvoke("hi")
        clients.append(weakref.ref(await model._connections.client(server.url)))

    for _ in range(5):
        anyio.run(main, backend=backend)
    gc.collect()
    assert [client() for client in clients] == [None] * 5


def test_loops_at_once_share_nothing(server: FaultServer, transport: str) -> None:
    """One model in four loops has four clients, and every loop reuses its own connection."""
    model = model_at(server.url)
    together = threading.Barrier(4, timeout=10)
    backends = ("asyncio", "trio") if transport == "auto" else ("asyncio",)

    async def main() -> httpx.AsyncClient:
        for _ in range(5):
            assert (await model.ainvoke("hi")).text == WHOLE
        together.wait()
        return await model._connections.client(server.url)

    def run(number: int) -> Any:
        return anyio.run(main, backend=backends[number % len(backends)])

    with ThreadPoolExecutor(4) as pool:
        clients = list(pool.map(run, range(4)))
    assert len({id(client) for client in clients}) == 4
    assert len(server.requests) == 20
    assert server.connections == 4
    server.wait_open(0)


@pytest.mark.anyio
async def test_cookies_are_not_kept() -> None:
    """What a server sets for one model is not sent with the requests of another."""

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.reply(200, say.whole(), {"set-cookie": "who=me; Path=/"})

    with FaultServer(act, SAY) as server:
        for model in (model_at(server.url), model_at(server.url)):
            async with model:
                for _ in range(2):
                    assert (await model.ainvoke("hi")).text == WHOLE
        assert [asked for asked in server.requests if "cookie" in asked.headers] == []


@pytest.mark.anyio
async def test_the_callers_own_client_stays_open(server: FaultServer) -> None:
    """It is used as it is, and closing it is the caller's business."""
    seen: list[httpx.Request] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request)

    async with httpx.AsyncClient(event_hooks={"request": [hook]}) as client:
        async with model_at(server.url, http_client=client) as model:
            assert (await model.ainvoke("hi")).text == WHOLE
        assert not client.is_closed
        assert len(seen) == 1


@pytest.mark.anyio
async def test_the_callers_own_client_is_closed(server: FaultServer) -> None:
    """A client that its owner has closed is an error of ours, before any request."""
    async with httpx.AsyncClient() as client:
        model = model_at(server.url, http_client=client)
    with pytest.raises(StreamfoldError, match="closed"):
        await model.ainvoke("hi")
    assert server.requests == []


@pytest.mark.anyio
async def test_the_kernel_watches_idle_connections(server: FaultServer) -> None:
    """A flow that a NAT box has forgotten is noticed: probes after 60 s, five of them
    (catalogue L13)."""
    stream = await Backend().connect_tcp("127.0.0.1", int(server.origin.rpartition(":")[2]))
    sock = stream.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 60
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 5
    await anyio.to_thread.run_sync(server.wait_open, 1)
    await stream.aclose()
    await anyio.to_thread.run_sync(server.wait_open, 0)


# ---- proxies -------------------------------------------------------------------------------------


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize(
    ("variables", "url", "proxy"),
    [
        ({}, "https://api.example/v1", None),
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.example/v1", "http://p:1"),
        ({"https_proxy": "http://p:1"}, "https://api.example/v1", "http://p:1"),
        ({"HTTPS_PROXY": "p:1"}, "https://api.example/v1", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1"}, "http://api.example/v1", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://api.example/v1", "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "https://api.example/v1", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example"}, "https://api.example/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"}, "https://api.example/", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://api.example/", None),
        (
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.example"},
            "https://api.example/",
            "http://p:1",
        ),
        ({"HTTPS_PROXY": ""}, "https://api.example/v1", None),
    ],
)
def test_proxy_variables(
    no_proxies: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxy: str | None
) -> None:
    """The usual variables are read as curl reads them."""
    for name, value in variables.items():
        no_proxies.setenv(name, value)
    assert proxy_from_environment(url) == proxy


@pytest.mark.anyio
@pytest.mark.parametrize("given", ["parameter", "variable"])
async def test_calls_go_through_the_proxy(
    server: FaultServer, no_proxies: pytest.MonkeyPatch, given: str
) -> None:
    """A proxy, given or named by the environment, gets the request for the far host."""
    if given == "variable":
        no_proxies.setenv("HTTP_PROXY", server.origin)
        model = model_at("http://127.0.0.2:9/v1")
    else:
        model = model_at("http://127.0.0.2:9/v1", proxy=server.origin)
    async with model:
        for _ in range(3):
            assert (await model.ainvoke("hi")).text == WHOLE
    assert server.requests[0].path == "http://127.0.0.2:9/v1/chat/completions"
    assert server.connections == 1
    await anyio.to_thread.run_sync(server.wait_open, 0)


@pytest.mark.anyio
async def test_proxy_credentials_go_to_the_proxy_only(
    server: FaultServer, no_proxies: pytest.MonkeyPatch
) -> None:
    """Name and password of the proxy's URL are sent to it, and shown nowhere."""
    proxy = server.origin.replace("//", "//user:canary-password@")
    async with model_at("http://127.0.0.2:9/v1", proxy=proxy) as model:
        await model.ainvoke("hi")
        assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")
        assert "canary-password" not in repr(model)


@pytest.mark.anyio
async def test_https_through_a_proxy_that_refuses(
    no_proxies: pytest.MonkeyPatch,
) -> None:
    """A proxy that does not let us through is a ConnectError, and the key never left."""

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.reply(403, b"no", kind="text/plain")

    with FaultServer(act, SAY) as server:
        model = model_at("https://api.invalid/v1", proxy=server.origin, max_retries=0)
        async with model:
            with pytest.raises(ConnectError, match="403"):
                await model.ainvoke("hi")
        assert [request.method for request in server.requests] == ["CONNECT"]
        assert "authorization" not in server.requests[0].headers


# ---- TLS -----------------------------------------------------------------------------------------

NEEDS_OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split()
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(str(path) + ".crt").read_bytes())
    return path


@contextlib.contextmanager
def secure_server(certificate: Path, act: Any) -> Iterator[FaultServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultServer(act, SAY, tls=context) as server:
        yield server


@NEEDS_OPENSSL
@pytest.mark.anyio
async def test_a_certificate_that_nobody_knows(certificate: Path) -> None:
    """TLS is verified: the key is not sent to a server that cannot prove its name."""
    with secure_server(certificate, fine) as server:
        async with model_at(server.url, max_retries=0) as model:
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await model.ainvoke("hi")
        assert server.requests == []


@NEEDS_OPENSSL
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_connections_are_reused_over_tls(certificate: Path, backend: str, transport: str) -> None:
    """Calls in a row share one TLS connection; one with bytes left in it is not used again."""

    async def act(wire: Wire, say: Dialect) -> None:
        if wire.number < 5:
            await wire.answer(say)
            return
        # The forged answer comes in the same segment, in a record of its own.
        forged = say.whole().replace(WHOLE.encode(), b"FORGED")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        good = say.whole()
        wire.write(head % len(good) + good, head % len(forged) + forged)
        wire.keep = True

    code = f"""
        import anyio
        from streamfold import init_chat_model

        async def main():
            chosen = {{"api_key": "key", "base_url": URL, "transport": {transport!r}}}
            model = init_chat_model({SAY.model!r}, **chosen)
            for _ in range(6):
                print((await model.ainvoke("hi")).text)

        anyio.run(main, backend={backend!r})
    """
    with secure_server(certificate, act) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                "-c",
                f"URL = {server.url!r}\n" + textwrap.dedent(code),
            ],
            env={**os.environ, "PYTHONPATH": SRC, "SSL_CERT_FILE": f"{certificate}.crt"},
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.stderr.decode() == ""
        assert done.stdout.decode().splitlines() == [WHOLE] * 6
        assert len(server.requests) == 6
        assert server.connections == 2
