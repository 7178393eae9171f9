"""A caller's own `http_client`: httpx, httpx2, and either over aiohttp.

Whatever it raises and however it reads, what comes out is what our own connections give: the rows
of the fault catalogue hold. What is not installed is skipped (`make test-sdks` has it all).
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from catalogue import FAULTS, Fault
from faults import FaultServer
from says import DIALECTS
from trial import called, judge, make_model, no_key_in

from streamfold import ChatOpenAI, Timeouts, init_chat_model
from streamfold.errors import ConfigurationError, ConnectError, RequestTimeoutError
from streamfold.testing import EmbeddedProvider

Make = Callable[[], Any]


def _httpx2() -> Any:
    return pytest.importorskip("httpx2", reason="httpx2 is not installed").AsyncClient()


def _over_aiohttp() -> Any:
    module = pytest.importorskip("httpx_aiohttp", reason="httpx-aiohttp is not installed")
    return httpx.AsyncClient(transport=module.AiohttpTransport())


def _httpx2_over_aiohttp() -> Any:
    pytest.importorskip("httpx2", reason="httpx2 is not installed")
    module = pytest.importorskip("httpx_aiohttp.httpx2", reason="httpx-aiohttp is not installed")
    return module.Httpx2AiohttpClient()


#: Client: how it is made, and the backends that it runs on.
CLIENTS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "httpx": (httpx.AsyncClient, ("asyncio", "trio")),
    "httpx2": (_httpx2, ("asyncio", "trio")),
    "httpx over aiohttp": (_over_aiohttp, ("asyncio",)),
    "httpx2 over aiohttp": (_httpx2_over_aiohttp, ("asyncio",)),
}
WAYS = [
    pytest.param(make, backend, id=f"{name}-{backend}")
    for name, (make, backends) in CLIENTS.items()
    for backend in backends
]
each_way = pytest.mark.parametrize(("make", "backend"), WAYS)


# ---- what comes of an answer that is right -------------------------------------------------------


@each_way
def test_it_answers_and_streams(make: Make, backend: str) -> None:
    """The same text from both, and the client stays open for its owner."""

    async def run() -> None:
        async with make() as client:
            model = ChatOpenAI("m", api_key="k", base_url=provider.url + "/v1", http_client=client)
            async with model:
                whole = (await model.ainvoke("hi")).text
                pieces = [chunk.text async for chunk in model.astream("hi")]
            assert whole
            assert "".join(pieces) == whole
            assert len(pieces) > 2
            assert not client.is_closed

    with EmbeddedProvider() as provider:
        anyio.run(run, backend=backend)


@each_way
def test_a_stream_left_early_closes_its_connection(make: Make, backend: str) -> None:
    """At once, while the client stays open."""

    async def run() -> None:
        async with make() as client:
            stream = make_model(OK, server, http_client=client).astream("hi")
            async with stream:
                async for _ in stream:
                    break
            await anyio.to_thread.run_sync(server.wait_open, 0)

    with FaultServer(FAULTS["stall-mid-stream"].act, DIALECTS["openai"]) as server:
        anyio.run(run, backend=backend)


@each_way
def test_nobody_listens(make: Make, backend: str) -> None:
    """The address is named, and where it is a server of the user's own, how to start it."""

    async def run() -> None:
        async with make() as client:
            model = init_chat_model("ollama:m", base_url=url, http_client=client, max_retries=0)
            with pytest.raises(ConnectError, match="ollama serve") as caught:
                await model.ainvoke("hi")
            assert url in str(caught.value)
            assert caught.value.retryable

    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    anyio.run(run, backend=backend)


@each_way
def test_a_connection_that_takes_too_long(make: Make, backend: str) -> None:
    """The limit for connecting is the one that is named."""

    async def run() -> None:
        timeouts = Timeouts(connect=0.2)
        async with make() as client:
            model = make_model(OK, full, http_client=client, timeout=timeouts, max_retries=0)
            with pytest.raises(RequestTimeoutError) as caught:
                await model.ainvoke("hi")
            assert caught.value.limit == "connect"

    # A listener whose queue is full answers no further connection.
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        full = SimpleNamespace(say=DIALECTS["openai"], url=f"http://127.0.0.1:{address[1]}/v1")
        anyio.run(run, backend=backend)


@each_way
def test_a_client_that_is_closed(make: Make, backend: str) -> None:
    """An error of ours, before any request."""

    async def run() -> None:
        async with make() as client:
            model = ChatOpenAI("m", api_key="k", base_url=provider.url, http_client=client)
        with pytest.raises(ConfigurationError, match="closed"):
            await model.ainvoke("hi")

    with EmbeddedProvider() as provider:
        anyio.run(run, backend=backend)
        assert provider.requests == []


# ---- what comes of a fault -----------------------------------------------------------------------

OK = FAULTS["ok"]

#: Rows that do not hold over aiohttp, and why.
NOT_OVER_AIOHTTP = {
    "bad-chunk-size": "aiohttp says nothing of it while the connection is open, and waits",
}

#: Where a client takes part in what comes of it. All else is the matrix.
DAILY = (
    "ok cut-before-head cut-mid-stream reset-mid-stream reset-before-head-once half-close gzip "
    "length-short stall-before-head stall-mid-stream not-http http-401 http-429-once "
    "redirect-not-a-url stale-keep-alive connection-close http-502-html-once"
).split()


def test_what_is_daily_is_there() -> None:
    assert set(DAILY) | NOT_OVER_AIOHTTP.keys() <= FAULTS.keys()


def rows() -> Iterator[Any]:
    for fault in FAULTS.values():
        if fault.any_client:
            marks = [] if fault.name in DAILY else [pytest.mark.matrix]
            yield pytest.param(fault, id=fault.name, marks=marks)


@pytest.mark.usefixtures("quick_retries", "short_grace")
# A deadline may end a client while it sends: what it leaves half way is its own.
@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")
@pytest.mark.parametrize("fault", list(rows()))
@pytest.mark.parametrize(("make", "backend"), [way for way in WAYS if "httpx-" not in way.id])
def test_the_catalogue_holds(
    fault: Fault, make: Make, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Row by row, in one dialect of each; those of httpx itself are in `test_faults.py`."""
    if make in (_over_aiohttp, _httpx2_over_aiohttp):
        if fault.name in NOT_OVER_AIOHTTP:
            pytest.skip(NOT_OVER_AIOHTTP[fault.name])
        # It reads ahead: an answer that we end may be over for it, and its connection is kept.
        fault = dataclasses.replace(fault, open=(0, 1))

    async def run() -> Any:
        async with make() as client:
            return await called(fault, server, make_model(fault, server, http_client=client))

    dialect = next(each for each in ("openai", "anthropic", *DIALECTS) if each in fault.dialects)
    with FaultServer(fault.act, DIALECTS[dialect]) as server:
        outcomes = anyio.run(run, backend=backend)
        judge(fault, server, outcomes)
        no_key_in(outcomes, caplog)
