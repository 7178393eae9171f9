"""Recorded provider answers, served again: whole, as they came, or cut anywhere.

exchange = Exchange.from_recording(json.loads(path.read_text()))
with ReplayServer([exchange], chunking="bytes") as server:
    model = init_chat_model("gpt-4.1", base_url=server.url + "/v1", api_key="any")
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal, TypeAlias

import msgspec
import orjson

from streamfold.testing.server import LoopbackServer, Reply, Request

__all__ = ["Chunking", "Exchange", "Pieces", "ReplayServer", "cut"]


class Pieces(msgspec.Struct, frozen=True):
    """A chunking: pieces of `size` bytes, the last one shorter."""

    size: int


Chunking: TypeAlias = Literal["recorded", "whole", "bytes"] | int | Pieces
"""How a body is cut into writes.

"recorded": as it once arrived, where that is known, else whole. "whole": one piece. "bytes": byte
by byte. An int: random cuts, the same for the same number. `Pieces(n)`: n bytes each.
"""


class Exchange(msgspec.Struct, frozen=True):
    """One recorded answer, and what was asked where that is known.

    `body` is what is sent, so `headers` may name a content encoding only if `body` has it.
    `chunk_sizes`: the byte lengths of the pieces in which it once arrived, or None.
    `request_url`, `request_body` (the JSON, parsed): for `match`; "" and None where unknown.
    """

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    chunk_sizes: list[int] | None = None
    request_url: str = ""
    request_body: Any = None

    @classmethod
    def from_recording(cls, recording: Mapping[str, Any]) -> Exchange:
        """Read the JSON of a recording: `{"request": {...}, "response": {...}}`.

        The response holds `status`, `headers`, `body_text` or `body_base64`, and perhaps
        `chunk_sizes`. Its body was recorded after content decoding, so a `content-encoding`
        among the headers is dropped. Raises `KeyError` where a part is missing.
        """
        response, request = recording["response"], recording.get("request") or {}
        headers = {name.lower(): value for name, value in response["headers"].items()}
        headers.pop("content-encoding", None)
        return cls(
            status=response["status"],
            headers=headers,
            body=_body(response),
            chunk_sizes=response.get("chunk_sizes"),
            request_url=request.get("url") or "",
            request_body=request.get("body"),
        )


def _body(response: Mapping[str, Any]) -> bytes:
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    text: str = response["body_text"]
    return text.encode("utf-8")


def cut(body: bytes, chunking: Chunking, sizes: Sequence[int] | None = None) -> list[bytes]:
    """Cut `body` into non-empty pieces that join to it again; no piece for an empty body.

    `sizes` are the recorded ones, used by "recorded" alone. Raises `ValueError` where they do not
    add up to the body, or where `chunking` is none of the known ones.
    """
    if not body:
        return []
    lengths = _lengths(chunking, len(body), sizes)
    pieces, start = [], 0
    for length in lengths:
        if start >= len(body):
            break
        pieces.append(body[start : start + length])
        start += length
    return [piece for piece in pieces if piece]


def _lengths(chunking: Chunking, total: int, sizes: Sequence[int] | None) -> Iterable[int]:
    """Piece lengths that reach at least `total`."""
    if isinstance(chunking, Pieces):
        if chunking.size < 1:
            raise ValueError(f"pieces have at least one byte, not {chunking.size}")
        return repeat(chunking.size)
    if isinstance(chunking, int):
        return _random_lengths(chunking)
    if chunking not in _NAMED:
        raise ValueError(f"chunking is one of {', '.join(_NAMED)}, an int or Pieces: {chunking!r}")
    return _NAMED[chunking](total, sizes)


def _random_lengths(seed: int) -> Iterator[int]:
    # Both single bytes (cuts inside UTF-8 and CRLF) and long runs (several events at once).
    rng = random.Random(seed)
    while True:
        yield rng.randint(1, rng.choice((1, 4, 32, 256, 2048)))


def _recorded(total: int, sizes: Sequence[int] | None) -> Iterable[int]:
    if sizes is None:
        return [total]
    if sum(sizes) != total:
        raise ValueError(f"the recorded sizes add up to {sum(sizes)}, the body has {total} bytes")
    return sizes


_NAMED: dict[str, Callable[[int, Sequence[int] | None], Iterable[int]]] = {
    "recorded": _recorded,
    "whole": lambda total, sizes: [total],
    "bytes": lambda total, sizes: repeat(1),
}

# What describes the connection of the recording and not what we send; ours are set anew.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "trailer"})


class ReplayServer(LoopbackServer):
    """Answers with recorded exchanges, in their order, each once.

    `chunking`: how bodies are cut into writes; see `Chunking`. `delay`: seconds before each
    piece. `match(request, exchange)`: instead of the order, each request gets the first exchange
    it holds for, as often as it is asked. A request that nothing is left for gets a 410, whose
    message says so and which clients do not retry.

    Everything else is `LoopbackServer`'s: `url`, `requests`, `wait_closed()` and so on.
    """

    def __init__(
        self,
        exchanges: Iterable[Exchange],
        *,
        chunking: Chunking = "recorded",
        delay: float = 0.0,
        match: Callable[[Request, Exchange], bool] | None = None,
    ) -> None:
        super().__init__(self._replay)
        self._exchanges = list(exchanges)
        self._chunking: Chunking = chunking
        self._delay = delay
        self._match = match
        self._next = 0

    @property
    def remaining(self) -> int:
        """How many exchanges have not been given out in order."""
        return len(self._exchanges) - self._next

    def _replay(self, request: Request) -> Reply:
        exchange = self._in_order() if self._match is None else self._matching(request)
        if exchange is None:
            return _nothing_left(request, len(self._exchanges))
        headers = {n.lower(): v for n, v in exchange.headers.items() if n.lower() not in _FRAMING}
        return Reply(
            status=exchange.status,
            headers=headers,
            body=cut(exchange.body, self._chunking, exchange.chunk_sizes),
            delays=self._delay,
            chunked="content-length" not in {name.lower() for name in exchange.headers},
        )

    def _in_order(self) -> Exchange | None:
        if self.remaining == 0:
            return None
        self._next += 1
        return self._exchanges[self._next - 1]

    def _matching(self, request: Request) -> Exchange | None:
        match = self._match
        assert match is not None
        return next((e for e in self._exchanges if match(request, e)), None)


def _nothing_left(request: Request, total: int) -> Reply:
    message = f"the replay has none of its {total} exchanges left for {request.method} "
    error = {"message": message + request.path, "type": "replay_exhausted"}
    return Reply(
        status=410,
        headers={"content-type": "application/json"},
        body=orjson.dumps({"error": error}),
    )
