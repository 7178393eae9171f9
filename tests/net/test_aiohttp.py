"""`transport="aiohttp"`: what is chosen, and what aiohttp would do otherwise.

That the faults, the recordings and the life of connections come to the same over it, the tests of
those show (`asyncio-aiohttp` among the modes of the catalogue, the fixture `transport`).
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest
from catalogue import FAULTS
from catalogue.connections import FORGED
from faults import Act, FaultServer, Wire
from says import DIALECTS, HALF, WHOLE, Dialect, half, whole
from trial import stream_once

from streamfold import Timeouts, init_chat_model
from streamfold.errors import (
    ConfigurationError,
    ConnectError,
    RequestTimeoutError,
    StreamInterruptedError,
    UnknownParameterError,
)
from streamfold.net import clients

aiohttp_transport = pytest.importorskip("streamfold.net.aiohttp_transport")

SAY = DIALECTS["openai"]
URL = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": False}


def model_at(url: str = URL, **fields: Any) -> Any:
    given = {"api_key": "key", "base_url": url, "transport": "aiohttp", "timeout": 10, **fields}
    return init_chat_model(SAY.model, **given)


async def text_of(stream: Any, pause: float = 0.0) -> str:
    """All of it, by a reader who takes his time over each chunk."""
    text = ""
    async for chunk in stream:
        text += chunk.text
        await anyio.sleep(pause)
    return text


async def fine(wire: Wire, say: Dialect) -> None:
    await wire.answer(say)


async def endless(wire: Wire, say: Dialect) -> None:
    await wire.head()
    await wire.parts(half(say))
    while True:
        await wire.part(say.delta("."))
        await wire.pause(0.001)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(fine, SAY) as running:
        yield running


# ---- choosing it ---------------------------------------------------------------------------------


class TestChoosing:
    @pytest.mark.parametrize("name", ["aiohttpp", "", "httpx", 3])
    def test_an_unknown_name(self, name: Any) -> None:
        """It is an error when the model is made, which says what there is."""
        with pytest.raises(ConfigurationError, match=r"transport is .*'auto' or 'aiohttp'"):
            model_at(transport=name)

    def test_a_package_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is an error when the model is made, with the command that installs it."""
        monkeypatch.setattr(clients, "find_spec", lambda name: None)
        with pytest.raises(ConfigurationError, match=r"pip install 'streamfold\[aiohttp\]'"):
            model_at()
        assert model_at(transport="auto").invoke is not None

    def test_a_client_as_well(self) -> None:
        """Two ways to connect are a contradiction; the default is not one of them."""
        import httpx

        with pytest.raises(ConfigurationError, match="give one"):
            model_at(http_client=httpx.AsyncClient())
        model_at(http_client=httpx.AsyncClient(), transport="auto")

    def test_it_belongs_to_the_model(self) -> None:
        """A copy may have another one; a call may not."""
        model = model_at()
        assert "transport='aiohttp'" in repr(model)
        assert model.bind(temperature=0)._connections is model._connections
        copy = model.model_copy(update={"transport": "auto"})
        assert copy._connections is not model._connections
        with pytest.raises(UnknownParameterError, match="belongs to the model"):
            model.invoke("hi", transport="auto")

    def test_on_trio(self, server: FaultServer) -> None:
        """aiohttp runs on asyncio only: an error before any request."""
        with pytest.raises(ConfigurationError, match="asyncio only"):
            anyio.run(model_at(server.url).ainvoke, "hi", backend="trio")
        assert server.connections == 0

    def test_a_proxy_that_it_has_not(self) -> None:
        """aiohttp knows no SOCKS; the password of the proxy is not shown."""
        with pytest.raises(ConfigurationError, match="http and https proxies") as caught:
            model_at(proxy="socks5://user:canary@127.0.0.1:9").invoke("hi")
        assert "canary" not in str(caught.value)

    @pytest.mark.anyio
    async def test_one_client_for_all_models_of_a_loop(self, server: FaultServer) -> None:
        """Those that chose it share connections among themselves, and with no others."""
        one, two, other = model_at(server.url), model_at(server.url), model_at(transport="auto")
        client = await one._connections.client(server.url)
        assert await two._connections.client(server.url) is client
        assert await other._connections.client(server.url) is not client
        for model in (one, two, one):
            assert (await model.ainvoke("hi")).text == WHOLE
        assert server.connections == 1
        for model in (one, two, other):
            await model.aclose()
        assert client.is_closed
        await anyio.to_thread.run_sync(server.wait_open, 0)

    def test_by_the_sync_methods(self, server: FaultServer) -> None:
        """As by the async ones: one connection, closed with the model."""
        with model_at(server.url) as model:
            assert model.invoke("hi").text == WHOLE
            assert "".join(chunk.text for chunk in model.stream("hi")) == WHOLE
            assert server.connections == 1
        server.wait_open(0)


# ---- what is sent --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_address_goes_out_as_it_is(server: FaultServer) -> None:
    """Nothing in it is unquoted: a signature of AWS covers the path as it was written."""
    async with model_at(server.url + "/a%3A0/b%2Fc", default_query={"x": "1:2"}) as model:
        await model.ainvoke("hi")
    path, _, query = server.requests[0].path.partition("?")
    assert path == "/v1/a%3A0/b%2Fc/chat/completions"
    assert query in ("x=1:2", "x=1%3A2")


@pytest.mark.anyio
async def test_a_large_request(server: FaultServer) -> None:
    """It is sent whole, without a warning that it was sent in one piece."""
    text = "x" * 3_000_000
    async with model_at(server.url) as model:
        assert (await model.ainvoke(text)).text == WHOLE
    assert server.requests[0].json()["messages"][0]["content"] == text


@pytest.mark.anyio
async def test_a_password_of_the_proxy_is_not_shown() -> None:
    """Nor is it sent to anybody but the proxy, which here refuses."""

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.reply(407, b"no", kind="text/plain")

    with FaultServer(act, SAY) as server:
        proxy = server.origin.replace("//", "//user:canary-password@")
        model = model_at("https://api.invalid/v1", proxy=proxy, max_retries=0)
        async with model:
            with pytest.raises(ConnectError, match="407") as caught:
                await model.ainvoke("hi")
        assert server.requests[0].method == "CONNECT"
        assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")
        assert "canary" not in str(caught.value) + repr(vars(caught.value)) + repr(model)


# ---- the fence -----------------------------------------------------------------------------------


async def forge(wire: Wire, say: Dialect) -> None:
    """After the first answer another one comes that nobody has asked for."""
    await wire.answer(say)
    if wire.number == 1:
        forged = say.whole().replace(WHOLE.encode(), b"FORGED")
        await wire.shown("the first call is over")
        await wire.send(FORGED % (len(forged), forged))
        wire.server.add(forgeries=1)
        await wire.hang()


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    "blind", [(), (0,), (1,)], ids=["seeing", "chosen-blindly", "sent-blindly"]
)
async def test_an_answer_that_came_unasked(
    blind: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers nothing, whether it is there when the connection is chosen, or comes just before
    the request leaves."""
    looks, look = iter(range(9)), aiohttp_transport._is_silent
    monkeypatch.setattr(
        aiohttp_transport, "_is_silent", lambda protocol: next(looks) in blind or look(protocol)
    )
    with FaultServer(forge, SAY) as server:
        async with model_at(server.url) as model:
            assert (await model.ainvoke("hi")).text == WHOLE
            server.show("the first call is over")
            await anyio.to_thread.run_sync(server.wait_for, lambda: server.forgeries == 1)
            assert (await model.ainvoke("hi")).text == WHOLE
        assert server.connections == 2


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["junk-after-reply", "junk-after-length", "ended-twice"])
async def test_what_comes_after_an_answer(name: str) -> None:
    """It is the answer to nothing: the connection takes no other request."""
    with FaultServer(FAULTS[name].act, SAY) as server:
        async with model_at(server.url, timeout=5) as model:
            for _ in range(2):
                outcome = await stream_once(model, server)
                assert outcome.message.text == WHOLE
        assert server.connections == 2


# ---- waiting, and the end ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_has_come_is_not_lost() -> None:
    """A reader who is slow gets what came before the connection broke."""

    async def act(wire: Wire, say: Dialect) -> None:
        await wire.head()
        *first, last = half(say)
        await wire.parts(first)
        await wire.shown("it has begun")
        await wire.part(last)

    with FaultServer(act, SAY) as server:
        stream = model_at(server.url).astream("hi")
        await anext(stream)
        server.show("it has begun")
        await anyio.to_thread.run_sync(server.wait_open, 0)
        await anyio.sleep(0.05)  # the loop has seen all of it
        with pytest.raises(StreamInterruptedError) as caught:
            await text_of(stream)
        assert caught.value.partial.text == HALF


@pytest.mark.anyio
async def test_a_reader_who_takes_his_time_is_not_timed_out() -> None:
    """Only waiting counts; and then to the moment."""
    with FaultServer(FAULTS["stall-mid-stream"].act, SAY) as server:
        model = model_at(server.url, timeout=Timeouts(first_event=5.0, idle=0.2), max_retries=0)
        with pytest.raises(RequestTimeoutError) as caught:
            await text_of(model.astream("hi"), pause=0.3)
        assert (caught.value.limit, caught.value.seconds) == ("idle", 0.2)
        assert caught.value.partial.text == HALF


@pytest.mark.anyio
@pytest.mark.parametrize("others", [0, 1])
async def test_a_stream_ends_when_its_model_is_closed(others: int) -> None:
    """Its reader gets an error at once, whether the client goes on for another host or not."""
    with FaultServer(FAULTS["stall-mid-stream"].act, SAY) as server:
        models = [model_at(server.url), *(model_at() for _ in range(others))]
        for model in models:
            await model._connections.client(model.base_url)
        stream = models[0].astream("hi")
        await anext(stream)
        with anyio.fail_after(2):
            await models[0].aclose()
            with pytest.raises(StreamInterruptedError):
                await text_of(stream)
        await anyio.to_thread.run_sync(server.wait_open, 0)
        for model in models:
            await model.aclose()


@pytest.mark.anyio
async def test_connecting_does_not_count_as_waiting_for_content(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that takes long to look up is a matter of `connect`."""

    async def slow(*args: Any, **kwargs: Any) -> Any:
        await anyio.sleep(30)

    monkeypatch.setattr("aiohttp.TCPConnector._resolve_host", slow)
    model = model_at(server.url, timeout=Timeouts(connect=0.2, first_event=0.1), max_retries=0)
    with pytest.raises(RequestTimeoutError) as caught:
        await model.ainvoke("hi")
    assert (caught.value.limit, caught.value.seconds) == ("connect", 0.2)
    await model.aclose()


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a server of this host, and of a client that trusts it."""
    import trustme

    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    return ours, theirs


def secure(act: Act, contexts: Any, monkeypatch: pytest.MonkeyPatch) -> FaultServer:
    monkeypatch.setattr(clients, "_tls", contexts[0])
    return FaultServer(act, SAY, tls=contexts[1])


@pytest.mark.anyio
async def test_left_early_over_tls(contexts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is closed at once, and does not wait for the server's farewell."""
    with secure(endless, contexts, monkeypatch) as server:
        async with model_at(server.url) as model:
            stream = model.astream("hi")
            async with stream:
                await anext(stream)
            await anyio.to_thread.run_sync(server.wait_open, 0, 1.0)


def test_it_closes_with_its_loop(contexts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept connections and the session, over TLS too, without a warning."""
    with warnings.catch_warnings(), secure(fine, contexts, monkeypatch) as server:
        warnings.simplefilter("error")
        model = model_at(server.url)
        for _ in range(2):

            async def main() -> None:
                for _ in range(3):
                    assert (await model.ainvoke("hi")).text == WHOLE

            anyio.run(main)
            server.wait_open(0)
        assert server.connections == 2


# ---- what is different all the same --------------------------------------------------------------


@pytest.mark.anyio
async def test_an_answer_with_junk_after_it_in_the_same_read() -> None:
    """aiohttp drops what it has read so far of a read in which it finds no HTTP: the call fails,
    where our own connections have the answer."""

    async def act(wire: Wire, say: Dialect) -> None:
        body = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in whole(say))
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        await wire.send(head + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n" * 2)

    with FaultServer(act, SAY) as server:
        for transport, error in (("auto", None), ("aiohttp", ConnectError)):
            async with model_at(server.url, transport=transport, max_retries=0) as model:
                if error is None:
                    assert (await model.ainvoke("hi")).text == WHOLE
                    continue
                with pytest.raises(error):
                    await model.ainvoke("hi")
