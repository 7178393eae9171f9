"""Fetching media: what is fetched, and that nothing leads into the network of the program."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpcore
import pytest

from streamfold.errors import (
    ConfigurationError,
    ConnectError,
    RedirectRefusedError,
    RequestTimeoutError,
    SizeLimitError,
    StreamInterruptedError,
    TransportError,
)
from streamfold.net.fetch import Network, fetch, is_public

pytestmark = pytest.mark.anyio

PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


def reply(
    body: bytes = PNG, status: str = "200 OK", kind: str = "image/png", more: str = ""
) -> bytes:
    length = f"content-length: {len(body)}\r\n"
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}{more}\r\n".encode() + body


def redirect(where: str, status: str = "302 Found") -> bytes:
    return reply(b"", status, more=f"location: {where}\r\n")


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body


class Internet(Network):
    """Names and addresses as a test says; every connection ends at one server on loopback."""

    schemes = ("https", "http")

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._context = context
        self.names: dict[str, list[list[str]]] = {"files.example": [[PUBLIC]]}
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.received: list[bytes] = []
        self.dead: set[str] = set()

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            return await super().resolve(host, port)
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect(self, address: str, port: int) -> httpcore.AsyncNetworkStream:
        self.connected.append((address, port))
        if address in self.dead:
            raise httpcore.ConnectError("nobody there")
        return await super().connect("127.0.0.1", self._port)

    async def tls(self) -> ssl.SSLContext:
        return self._context or await super().tls()


Pages = dict[str, bytes | Callable[[anyio.abc.ByteStream], Any]]


@asynccontextmanager
async def internet(pages: Pages, certificate: Path | None = None) -> AsyncIterator[Internet]:
    """An internet whose one server has `pages`, by path: what it sends, or a function that does."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    network = Internet(listener.extra(anyio.abc.SocketAttribute.local_port))
    if certificate is not None:
        from anyio.streams.tls import TLSListener

        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate)
        listener = TLSListener(listener, server, standard_compatible=False)
        network._context = ssl.create_default_context(cafile=f"{certificate}.crt")

    async def serve(stream: anyio.abc.ByteStream) -> None:
        async with stream:
            head = b""
            try:
                while b"\r\n\r\n" not in head:
                    head += await stream.receive()
                network.received.append(head)
                page = pages[head.split()[1].decode()]
                await (stream.send(page) if isinstance(page, bytes) else page(stream))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass  # the client has had enough

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield network
        tasks.cancel_scope.cancel()


# ---- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        PUBLIC,
        OTHER,
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",  # NAT64
        "2002:808:808::1",  # 6to4
    ],
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    """
    0.0.0.0 10.0.0.1 127.0.0.1 127.8.8.8 169.254.169.254 172.16.0.1 192.168.0.1 198.18.0.1
    100.64.0.1 100.100.100.200 168.63.129.16 192.0.0.192 192.0.2.1 192.88.99.1 203.0.113.1
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::808:808 fe80::1 fe80::1%eth0 2606:4700::1%eth0 fec0::1 fc00::1 fd00:ec2::254
    ff02::1 100::1 2001:db8::1 3fff::1 5f00::1
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::8.8.8.8
    2002:7f00:1:: 2002:a9fe:a9fe:: 2001:0:4136:e378:8000:63bf:80ff:fffe
    localhost 1.2.3 0x7f000001
    """.split(),
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


# ---- what is fetched -----------------------------------------------------------------------------


async def test_a_file_comes_with_its_type_and_nothing_is_sent_but_the_request() -> None:
    async with internet({"/cat.png?size=1": reply(kind="Image/PNG; q=1")}) as network:
        found = await fetch("http://files.example/cat.png?size=1#part", network=network)
    assert (found.data, found.mime_type) == (PNG, "image/png")
    (request,) = network.received
    names = [line.split(b":")[0].lower() for line in request.strip().split(b"\r\n")[1:]]
    assert sorted(names) == [b"accept", b"accept-encoding", b"host", b"user-agent"]
    assert b"host: files.example\r\n" in request.lower()
    assert b"accept-encoding: identity\r\n" in request.lower()


async def test_the_next_address_where_one_is_dead() -> None:
    async with internet({"/": reply()}) as network:
        network.names["files.example"] = [[OTHER, PUBLIC]]
        network.dead = {OTHER}
        assert (await fetch("http://files.example:8080/", network=network)).data == PNG
    assert network.connected == [(OTHER, 8080), (PUBLIC, 8080)]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    """
    http://127.0.0.1/ http://localhost/ http://2130706433/ http://0x7f.1/ http://0177.0.0.1/
    http://[::1]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[fe80::1]/
    http://169.254.169.254/latest/meta-data/ https://127.0.0.1/ http://127.0.0.1.:80/
    ftp://files.example/x file:///etc/passwd data:image/png;base64,AA== gopher://files.example
    http://user:secret@files.example/ http://user@files.example/ http:/// http://[::1/ cat.png
    http://files.example@127.0.0.1/ http://127.0.0.1\\@files.example/
    """.split(),
)
async def test_a_url_that_is_not_to_be_fetched(url: str) -> None:
    async with internet({}) as network:
        with pytest.raises((ConfigurationError, ConnectError)) as caught:
            await fetch(url, network=network)
    assert network.connected == []
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", [["10.0.0.1"], [PUBLIC, "127.0.0.1"], ["::ffff:10.0.0.1"], []])
async def test_a_name_with_any_address_that_is_not_public(answer: list[str]) -> None:
    async with internet({"/": reply()}) as network:
        network.names["files.example"] = [answer]
        with pytest.raises(ConfigurationError, match="public addresses only") as caught:
            await fetch("http://files.example/", network=network)
    assert network.connected == []
    assert "10.0.0.1" not in str(caught.value)


async def test_a_second_answer_of_the_name_server_changes_nothing() -> None:
    """The connection goes to the address that was checked: the name is asked for once."""
    async with internet({"/": reply()}) as network:
        network.names["files.example"] = [[PUBLIC], ["127.0.0.1"]]
        await fetch("http://files.example/", network=network)
        assert network.asked == ["files.example"]
        assert network.connected == [(PUBLIC, 80)]
        with pytest.raises(ConfigurationError):  # and a second fetch asks and checks again
            await fetch("http://files.example/", network=network)


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
@pytest.mark.parametrize("target", ["/2", "http://cdn.example/?key=s3cr3t", "//[::1]/", "file:/x"])
async def test_redirects_are_refused(status: str, target: str) -> None:
    async with internet({"/": redirect(target, status)}) as network:
        with pytest.raises(RedirectRefusedError, match="not followed") as caught:
            await fetch("http://files.example/", network=network)
    assert len(network.connected) == len(network.received) == 1
    assert "s3cr3t" not in str(caught.value)


async def test_plain_http_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected https"):
        await fetch("http://files.example/", network=Network())


@pytest.mark.parametrize(
    "page",
    [
        reply(bytes(101)),
        chunked(bytes(50), bytes(51)),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(101),
    ],
    ids=["length", "chunked", "until the end"],
)  # fmt: skip
async def test_a_file_that_is_too_large(page: bytes) -> None:
    async with internet({"/": page}) as network:
        with pytest.raises(SizeLimitError, match="larger than the 100 bytes"):
            await fetch("http://files.example/", max_bytes=100, network=network)


async def test_a_file_of_the_largest_size() -> None:
    async with internet({"/": reply(bytes(100))}) as network:
        assert (
            len((await fetch("http://files.example/", max_bytes=100, network=network)).data) == 100
        )


async def test_a_server_that_never_ends() -> None:
    async def drip(stream: anyio.abc.ByteStream) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        while True:
            await stream.send(b"x")
            await anyio.sleep(0.2)

    async with internet({"/": drip}) as network:
        with pytest.raises(RequestTimeoutError) as caught:
            await fetch("http://files.example/", seconds=0.3, network=network)
    assert (caught.value.limit, caught.value.seconds) == ("total", 0.3)


@pytest.mark.parametrize(
    ("page", "error"),
    [
        (reply(status="404 Not Found"), TransportError),
        (reply(status="304 Not Modified"), TransportError),
        (reply(more="content-encoding: gzip\r\n"), TransportError),
        (reply()[:-3], StreamInterruptedError),
        (b"nonsense\r\n\r\n", StreamInterruptedError),
        (b"", StreamInterruptedError),
    ],
    ids=["404", "304", "gzip", "cut off", "nonsense", "nothing"],
)
async def test_an_answer_that_is_no_file(page: bytes, error: type[Exception]) -> None:
    async with internet({"/x?signature=s3cr3t": page}) as network:
        with pytest.raises(error) as caught:
            await fetch("http://files.example/x?signature=s3cr3t", network=network)
    assert "http://files.example/x" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


async def test_nobody_there() -> None:
    async with internet({}) as network:
        network.dead = {PUBLIC}
        with pytest.raises(ConnectError, match=r"files\.example"):
            await fetch("http://files.example/", network=network)
        with pytest.raises(ConnectError):
            await fetch("http://no-such-name.invalid/", network=network)


# ---- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for files.example, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-keyout", f"{path}.key", "-out", f"{path}.crt", "-subj", "/CN=files.example",
         "-addext", "subjectAltName=DNS:files.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


async def test_https_is_checked_by_the_name_though_the_address_is_given(certificate: Path) -> None:
    async with internet({"/": reply()}, certificate) as network:
        assert (await fetch("https://files.example/", network=network)).data == PNG
        assert network.connected == [(PUBLIC, 443)]
        network.names["other.example"] = [[PUBLIC]]
        with pytest.raises(ConnectError, match="certificate"):
            await fetch("https://other.example/", network=network)
