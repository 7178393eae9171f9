"""Replayed exchanges: cutting is lossless, and the wire is what the recording says."""

from __future__ import annotations

import base64
import gzip
import socket
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold.testing import Exchange, Pieces, ReplayServer, cut
from streamfold.testing.replay import Chunking

BODY = 'data: {"a":"я"}\r\n\r\ndata: [DONE]\n\n'.encode()

RECORDING: dict[str, Any] = {
    "request": {"method": "POST", "url": "https://api.example.com/v1/x", "body": {"model": "m"}},
    "response": {
        "status": 200,
        "headers": {
            "Content-Type": "text/event-stream",
            "content-encoding": "gzip",
            "transfer-encoding": "chunked",
            "x-request-id": "req_1",
        },
        "body_text": BODY.decode(),
        "chunk_sizes": [10, len(BODY) - 10],
    },
}

chunkings: st.SearchStrategy[Chunking] = st.one_of(
    st.sampled_from(["recorded", "whole", "bytes"]), st.integers(), st.integers(1, 50).map(Pieces)
)


def chunks_on_the_wire(server: ReplayServer) -> list[int]:
    """The sizes of the HTTP chunks of one reply, read off the socket."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nconnection: close\r\n\r\n")
        with sock.makefile("rb") as wire:
            while wire.readline() != b"\r\n":
                pass
            sizes = []
            while size := int(wire.readline(), 16):
                wire.read(size + 2)
                sizes.append(size)
    return sizes


class TestCut:
    @given(st.binary(max_size=300), chunkings)
    def test_pieces_join_to_the_body_and_none_is_empty(
        self, body: bytes, chunking: Chunking
    ) -> None:
        pieces = cut(body, chunking)
        assert b"".join(pieces) == body
        assert all(pieces)

    @given(st.lists(st.binary(max_size=9), max_size=9))
    def test_recorded_sizes_are_used(self, parts: list[bytes]) -> None:
        body, sizes = b"".join(parts), [len(part) for part in parts]
        assert cut(body, "recorded", sizes) == [part for part in parts if part]

    def test_named_chunkings(self) -> None:
        assert cut(b"abc", "whole", [1, 2]) == [b"abc"]
        assert cut(b"abc", "bytes") == [b"a", b"b", b"c"]
        assert cut(b"abcde", Pieces(2)) == [b"ab", b"cd", b"e"]
        assert cut(b"abc", "recorded") == [b"abc"]

    def test_a_seed_is_reproducible_and_matters(self) -> None:
        body = bytes(range(256)) * 40
        assert cut(body, 7) == cut(body, 7)
        assert len({tuple(cut(body, seed)) for seed in range(20)}) == 20
        assert len(cut(body, 7)) > 1

    def test_random_cuts_reach_everywhere(self) -> None:
        """Over a few seeds every offset of a short body is a cut."""
        offsets = set()
        for seed in range(300):
            position = 0
            for piece in cut(BODY, seed)[:-1]:
                position += len(piece)
                offsets.add(position)
        assert offsets == set(range(1, len(BODY)))

    @pytest.mark.parametrize(
        ("chunking", "sizes", "text"),
        [
            ("recorded", [1], "add up to 1, the body has 3 bytes"),
            ("sideways", None, "'sideways'"),
            (Pieces(0), None, "at least one byte"),
        ],
    )
    def test_mistakes_are_named(self, chunking: Any, sizes: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            cut(b"abc", chunking, sizes)


class TestExchange:
    def test_from_a_text_recording(self) -> None:
        assert Exchange.from_recording(RECORDING) == Exchange(
            status=200,
            headers={
                "content-type": "text/event-stream",
                "transfer-encoding": "chunked",
                "x-request-id": "req_1",
            },
            body=BODY,
            chunk_sizes=[10, len(BODY) - 10],
            request_url="https://api.example.com/v1/x",
            request_body={"model": "m"},
        )

    def test_from_a_binary_recording_without_a_request(self) -> None:
        binary = bytes(range(256))
        response = {"status": 500, "headers": {}, "body_base64": base64.b64encode(binary).decode()}
        assert Exchange.from_recording({"response": response}) == Exchange(500, {}, binary)

    def test_what_is_no_recording(self) -> None:
        with pytest.raises(KeyError, match="body_text"):
            Exchange.from_recording({"response": {"status": 200, "headers": {}}})


class TestServer:
    def test_replays_the_recording(self) -> None:
        with ReplayServer([Exchange.from_recording(RECORDING)]) as server:
            reply = httpx.post(server.url + "/v1/x")
        assert reply.content == BODY
        assert reply.headers["x-request-id"] == "req_1"
        assert reply.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in reply.headers
        assert reply.headers["transfer-encoding"] == "chunked"

    @pytest.mark.parametrize("chunking", ["recorded", "whole", "bytes", 3, Pieces(4)])
    def test_cuts_on_the_wire(self, chunking: Chunking) -> None:
        exchange = Exchange.from_recording(RECORDING)
        with ReplayServer([exchange], chunking=chunking) as server:
            sizes = chunks_on_the_wire(server)
        assert sizes == [len(piece) for piece in cut(BODY, chunking, exchange.chunk_sizes)]

    def test_a_recorded_length_stays_a_length(self) -> None:
        exchange = Exchange(headers={"Content-Length": "999"}, body=b"{}")
        with ReplayServer([exchange], chunking="bytes") as server:
            reply = httpx.post(server.url)
        assert reply.headers["content-length"] == "2"
        assert "transfer-encoding" not in reply.headers

    def test_an_encoded_body_keeps_its_encoding(self) -> None:
        exchange = Exchange(headers={"content-encoding": "gzip"}, body=gzip.compress(BODY))
        with ReplayServer([exchange], chunking="bytes") as server:
            assert httpx.post(server.url).content == BODY

    def test_in_order_each_once(self) -> None:
        exchanges = [Exchange(503, body=b"one"), Exchange(200, body=b"two")]
        with ReplayServer(exchanges) as server:
            assert [httpx.post(server.url).text for _ in exchanges] == ["one", "two"]
            assert server.remaining == 0
            late = httpx.post(server.url + "/late")
        assert late.status_code == 410
        assert "none of its 2 exchanges left for POST /late" in late.json()["error"]["message"]
        assert len(server.requests) == 3

    def test_by_match(self) -> None:
        exchanges = [Exchange(body=name.encode(), request_body={"model": name}) for name in "abc"]
        with ReplayServer(
            exchanges, match=lambda request, exchange: request.json() == exchange.request_body
        ) as server:
            asked = [httpx.post(server.url, json={"model": name}) for name in "cacx"]
        assert [reply.text for reply in asked[:3]] == ["c", "a", "c"]
        assert asked[3].status_code == 410

    @pytest.mark.anyio
    async def test_delays_each_piece(self) -> None:
        exchange = Exchange(body=b"abc")
        async with (
            ReplayServer([exchange], chunking="bytes", delay=0.01) as server,
            httpx.AsyncClient() as client,
            client.stream("POST", server.url) as response,
        ):
            assert [part async for part in response.aiter_raw()] == [b"a", b"b", b"c"]
