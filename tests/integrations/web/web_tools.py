"""What the tests of the web share: a real server in a thread, a reader of server-sent events."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import anyio
import httpx
import orjson
import uvicorn

__all__ = ["Sent", "in_process", "parts_of", "read_events", "serving"]


class Sent(NamedTuple):
    """One event: its id, and its data as JSON (or as text, for ``[DONE]``)."""

    id: str | None
    data: Any


def read_events(body: str) -> list[Sent]:
    """The events of a body; it is whole, and has nothing in it but ids, data and comments."""
    assert body.endswith("\n\n")
    events = []
    for block in body.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        assert fields.keys() <= {"id", "data"}
        if fields:
            data = fields["data"]
            events.append(Sent(fields.get("id"), data if data == "[DONE]" else orjson.loads(data)))
    return events


def parts_of(body: str) -> list[Any]:
    """The data of the events."""
    return [event.data for event in read_events(body)]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """`app` behind a real server on a port of its own; gives its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        config = uvicorn.Config(app, ws="none", log_level="critical", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def in_process(app: Any, path: str = "/", *, raises: bool = True) -> httpx.Response:
    """The answer of `app` to a GET, without a server. `raises`: what the app raises, comes here."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return anyio.run(get)
