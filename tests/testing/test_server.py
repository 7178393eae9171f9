"""The loopback server: framing, endings, logs, and that nothing outlives it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import textwrap
import threading
import time

import anyio
import anyio.to_thread
import httpx
import pytest

from streamfold.testing import LoopbackServer, Reply, Request


def echo(request: Request) -> Reply:
    return Reply(body=request.body or request.path.encode())


def exchange(server: LoopbackServer, data: bytes) -> bytes:
    """Send raw bytes, return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as sock:
        sock.settimeout(5)
        sock.sendall(data)
        received = b""
        while part := sock.recv(65536):
            received += part
    return received


CLOSE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class TestRequests:
    def test_reads_every_part(self) -> None:
        with LoopbackServer(echo) as server:
            httpx.post(
                server.url + "/a%20b/c?x=1&y=&x=2",
                json={"k": "я"},
                headers=[("X-A", "1"), ("x-a", "2")],
            )
        request = server.requests[0]
        assert (request.method, request.path) == ("POST", "/a b/c")
        assert request.query == {"x": "2", "y": ""}
        assert request.headers["x-a"] == "1, 2"
        assert request.json() == {"k": "я"}

    def test_reads_a_chunked_body_with_trailers(self) -> None:
        body = b"3;name=value\r\nabc\r\nA\r\n0123456789\r\n0\r\ntrailer: x\r\n\r\n"
        head = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        with LoopbackServer(echo) as server:
            assert exchange(server, head + body).endswith(b"\r\n\r\nabc0123456789")

    def test_a_streamed_upload_arrives_whole(self) -> None:
        with LoopbackServer(echo) as server:
            reply = httpx.post(server.url, content=(b"x" * 50_000 for _ in range(4)))
        assert len(reply.content) == 200_000

    def test_expect_is_ignored(self) -> None:
        with LoopbackServer(echo) as server:
            reply = httpx.post(server.url, content=b"hi", headers={"expect": "100-continue"})
        assert reply.content == b"hi"

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        first = CLOSE.replace(b"close", b"keep-alive").replace(b"GET /", b"GET /one")
        with LoopbackServer(echo) as server:
            received = exchange(server, first + CLOSE.replace(b"GET /", b"GET /two"))
        assert re.findall(rb"\r\n\r\n/(one|two)", received) == [b"one", b"two"]

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\ncontent-length: many\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 413),
            (b"GET / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
            (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
            (b"GET / HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        ],
    )
    def test_what_is_no_request_is_refused(self, data: bytes, status: int) -> None:
        with LoopbackServer(echo) as server:
            assert exchange(server, data).startswith(b"HTTP/1.1 %d " % status)
            assert server.requests == []

    def test_the_log_can_be_turned_off(self) -> None:
        with LoopbackServer(echo, request_log=False) as server:
            assert httpx.get(server.url + "/x").text == "/x"
            assert server.requests == []


class TestReplies:
    def test_a_body_has_a_content_length(self) -> None:
        with LoopbackServer(lambda _: Reply(201, {"x-a": "b"}, [b"he", b"", b"llo"])) as server:
            lines = exchange(server, CLOSE).split(b"\r\n")
        head = [b"HTTP/1.1 201 Created", b"content-length: 5", b"x-a: b", b"connection: close"]
        assert lines == [*head, b"", b"hello"]

    def test_each_piece_is_a_chunk(self) -> None:
        with LoopbackServer(lambda _: Reply(body=[b"he", b"", b"llo"], chunked=True)) as server:
            received = exchange(server, CLOSE)
        assert received.partition(b"\r\n\r\n")[2] == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"

    @pytest.mark.parametrize("chunked", [True, False])
    def test_pieces_leave_at_once(self, chunked: bool) -> None:
        reply = Reply(body=[b"one", b"two"], delays=[0, 30], chunked=chunked)
        with (
            LoopbackServer(lambda _: reply) as server,
            httpx.stream("GET", server.url) as response,
        ):
            assert next(response.iter_raw()) == b"one"

    def test_delays_are_kept(self) -> None:
        reply = Reply(body=[b"a", b"b", b"c"], delays=0.02, head_delay=0.05)
        with LoopbackServer(lambda _: reply) as server:
            httpx.get(server.url)  # the client's own start-up is not to be measured
            start = time.monotonic()
            httpx.get(server.url)
        assert 0.11 <= time.monotonic() - start < 5

    def test_head_and_no_content_have_no_body(self) -> None:
        replies = iter([Reply(body=b"hello"), Reply(204, chunked=True), Reply(body=b"after")])
        with LoopbackServer(lambda _: next(replies)) as server, httpx.Client() as client:
            assert client.head(server.url).headers["content-length"] == "5"
            assert client.get(server.url).status_code == 204
            assert client.get(server.url).text == "after"
            assert server.connections == 1

    def test_a_connection_is_kept_alive(self) -> None:
        with LoopbackServer(echo) as server, httpx.Client() as client:
            for _ in range(3):
                client.get(server.url)
            assert (server.connections, server.open_connections) == (1, 1)

    def test_a_connection_is_closed_on_request(self) -> None:
        with LoopbackServer(echo) as server, httpx.Client() as client:
            client.get(server.url, headers={"connection": "close"})
            client.get(server.url)
            assert server.connections == 2

    def test_a_failing_handler_is_a_500(self) -> None:
        def fail(request: Request) -> Reply:
            raise LookupError("no such luck")

        with LoopbackServer(fail) as server:
            reply = httpx.get(server.url)
        assert reply.status_code == 500
        assert "no such luck" in reply.text
        assert isinstance(server.failures[0], LookupError)

    @pytest.mark.parametrize("chunked", [True, False])
    @pytest.mark.parametrize(
        ("end", "error"), [("cut", httpx.RemoteProtocolError), ("reset", httpx.ReadError)]
    )
    def test_a_reply_can_end_badly(self, end: str, error: type[Exception], chunked: bool) -> None:
        reply = Reply(body=[b"some", b"thing"], chunked=chunked, end=end)  # type: ignore[arg-type]
        with LoopbackServer(lambda _: reply) as server:
            received: list[bytes] = []
            with httpx.stream("GET", server.url) as response, pytest.raises(error):
                received.extend(response.iter_raw())
            server.wait_closed()
        assert b"".join(received) == b"something"
        assert server.abandoned == 0


class TestLeaving:
    """A client that goes away stops the reply it was getting."""

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(body=[b"x", b"y"], delays=[0, 60], chunked=True),
            Reply(body=[b"x"], chunked=True, end="hang"),
            Reply(body=[b"x" * 65536] * 4000, chunked=True),
            Reply(body=[b"x"] * 500_000, chunked=True),
        ],
        ids=["between pieces", "hanging", "against a full buffer", "in full flow"],
    )
    def test_in_mid_reply(self, reply: Reply) -> None:
        with LoopbackServer(lambda _: reply) as server:
            with httpx.stream("GET", server.url) as response:
                parts = response.iter_raw()  # dropping it would close the response
                next(parts)
                assert server.open_connections == 1
            start = time.monotonic()
            server.wait_closed(5)
            assert time.monotonic() - start < 2
            assert server.abandoned == 1

    def test_before_the_head(self) -> None:
        with LoopbackServer(lambda _: Reply(head_delay=60)) as server:
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(server.url, timeout=0.05)
            server.wait_closed(2)
            assert server.abandoned == 1

    def test_between_requests(self) -> None:
        with LoopbackServer(echo) as server:
            with httpx.Client() as client:
                client.get(server.url)
            server.wait_closed(2)
            assert server.abandoned == 0

    def test_waiting_gives_up(self) -> None:
        with LoopbackServer(echo) as server, httpx.Client() as client:
            client.get(server.url)
            with pytest.raises(TimeoutError, match="1 of them open"):
                server.wait_closed(0.01)

    def test_waiting_for_a_request(self) -> None:
        with LoopbackServer(echo) as server:
            thread = threading.Thread(target=httpx.get, args=(server.url + "/late",))
            thread.start()
            server.wait_for(lambda: bool(server.requests))
            thread.join()
            assert server.requests[0].path == "/late"


class TestLife:
    def test_has_no_url_before_it_starts(self) -> None:
        with pytest.raises(RuntimeError, match="not been started"):
            _ = LoopbackServer(echo).url

    def test_starts_once(self) -> None:
        with LoopbackServer(echo) as server, pytest.raises(RuntimeError, match="already"):
            server.start()

    def test_stops_twice_and_starts_again(self) -> None:
        server = LoopbackServer(echo)
        for _ in range(2):
            server.start()
            assert httpx.get(server.url + "/x").text == "/x"
            server.stop()
            server.stop()

    def test_nobody_listens_afterwards(self) -> None:
        with LoopbackServer(echo) as server:
            pass
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)

    def test_stops_in_mid_reply(self) -> None:
        """Neither a hanging reply nor an idle connection holds the end up."""
        before = threading.active_count()
        with httpx.Client() as client:
            with LoopbackServer(lambda _: Reply(body=b"x", chunked=True, end="hang")) as server:
                request = client.build_request("GET", server.url)
                response = client.send(request, stream=True)
                parts = response.iter_raw()
                assert next(parts) == b"x"
            assert threading.active_count() == before
            assert server.open_connections == 0
            with pytest.raises(httpx.TransportError):
                next(parts)
            response.close()

    def test_leaves_no_warning(self) -> None:
        script = """
            import gc, socket, threading
            from streamfold.testing import LoopbackServer, Reply
            with LoopbackServer(lambda r: Reply(body=b"x", chunked=True, end="hang")) as server:
                port = int(server.url.rpartition(":")[2])
                idle, busy = (socket.create_connection(("127.0.0.1", port)) for _ in range(2))
                busy.sendall(b"GET / HTTP/1.1\\r\\n\\r\\n")
                assert busy.recv(1)
            idle.close(), busy.close()
            gc.collect()
            assert threading.active_count() == 1
        """
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.anyio
    async def test_serves_any_backend(self) -> None:
        reply = Reply(body=[b"a", b"b"], delays=[0, 60], chunked=True)
        async with LoopbackServer(lambda _: reply) as server, httpx.AsyncClient() as client:
            with anyio.fail_after(10):
                request = client.build_request("GET", server.url)
                response = await client.send(request, stream=True)
                assert response.status_code == 200
                await response.aclose()
                await anyio.to_thread.run_sync(server.wait_closed)
            assert server.abandoned == 1


def test_importing_the_package_does_not_load_a_server() -> None:
    script = "import sys, streamfold.testing; sys.exit('streamfold.testing.server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_public_name_is_there() -> None:
    import streamfold.testing as package

    assert {name: getattr(package, name).__name__ for name in package.__all__} == {
        name: name for name in package.__all__
    }
    assert sorted(package.__all__) == sorted(package._HOMES)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense
