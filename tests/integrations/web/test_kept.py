"""`KeptStreams`: who comes back goes on where it was, and who stays away is let go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import Route
from web_tools import parts_of, read_events, serving

from streamfold import init_chat_model
from streamfold.errors import ConfigurationError
from streamfold.integrations.web import KeptStreams
from streamfold.testing import Answer, EmbeddedProvider

LONG = " ".join(["word"] * 40)


@contextmanager
def service(provider: EmbeddedProvider, streams: KeptStreams, **options: Any) -> Iterator[str]:
    """`/` answers and resumes; `/again` resumes by the key "chat"."""
    options_of_model: dict[str, Any] = {"base_url": provider.url + "/v1", "api_key": "any"}
    model = init_chat_model("openai:gpt-4.1", max_retries=0, **options_of_model)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with streams:
            yield

    async def answer(request: Request) -> Any:
        return streams.response(request, lambda: model.astream("Hi"), **options)

    async def again(request: Request) -> Any:
        return streams.resume("chat", options.get("vocabulary", "events"))

    routes = [Route("/", answer), Route("/again", again)]
    with serving(Starlette(routes=routes, lifespan=lifespan)) as url:
        yield url


def get(url: str, last: str | None = None) -> httpx.Response:
    headers = {} if last is None else {"last-event-id": last}
    return httpx.get(url, headers=headers, trust_env=False)


def first_events(url: str, count: int) -> str:
    """Read the beginning of a stream and leave; the body as far as it was read."""
    body = ""
    with httpx.stream("GET", url, trust_env=False) as response:
        for text in response.iter_text():
            body += text
            if body.count("\n\n") >= count:
                break
    return body[: body.rindex("\n\n") + 2]


@pytest.mark.parametrize("vocabulary", ["events", "openai", "vercel"])
def test_a_client_that_comes_back_misses_nothing(vocabulary: str) -> None:
    """Cut anywhere, the parts are the whole, from one request to the provider."""
    with (
        EmbeddedProvider([LONG], chunk_delay=0.005) as provider,
        service(provider, KeptStreams(), vocabulary=vocabulary) as url,
    ):
        sent = read_events(first_events(url, 5))
        for count in (3, 8):
            last = sent[-1].id
            with httpx.stream(
                "GET", url, headers={"last-event-id": str(last)}, trust_env=False
            ) as response:
                body = ""
                for text in response.iter_text():
                    body += text
                    if body.count("\n\n") >= count:
                        break
            sent += read_events(body[: body.rindex("\n\n") + 2])
        sent += read_events(get(url, sent[-1].id).text)
        assert len(provider.requests) == 1
        assert get(url, sent[-1].id).status_code == 204
    key = str(sent[0].id).rpartition(":")[0]
    assert [event.id for event in sent] == [f"{key}:{n + 1}" for n in range(len(sent))]
    text = "".join(
        {
            "events": lambda data: data.get("text", ""),
            "openai": lambda data: data["choices"][0]["delta"].get("content", ""),
            "vercel": lambda data: data.get("delta", ""),
        }[vocabulary](event.data)
        for event in sent
        if event.data != "[DONE]"
    )
    assert text == LONG


def test_a_client_that_stays_away_is_let_go() -> None:
    """After the grace the request to the provider is cancelled, and the stream is gone."""
    with (
        EmbeddedProvider([LONG], chunk_delay=0.05) as provider,
        service(provider, KeptStreams(grace=0.2)) as url,
    ):
        last = read_events(first_events(url, 3))[-1].id
        assert provider.open_connections == 1
        provider.wait_for(lambda: provider.abandoned == 1)
        provider.wait_closed()
        gone = get(url, last)
    assert gone.status_code == 410
    assert "no longer kept" in gone.text


def test_the_service_that_stops_lets_all_go() -> None:
    with EmbeddedProvider([LONG], chunk_delay=0.05) as provider:
        with service(provider, KeptStreams(grace=60)) as url:
            first_events(url, 3)
        provider.wait_closed()
        assert provider.abandoned == 1


@pytest.mark.parametrize("last", ["nonsense", "a:b", "chat:99", "chat:", ":1", "chat:1²"])
def test_ids_that_nobody_gave_out(last: str) -> None:
    """They are gone, or never were: no new request is made for them."""
    with (
        EmbeddedProvider(["Hi."]) as provider,
        service(provider, KeptStreams(), key="chat") as url,
    ):
        assert len(read_events(get(url).text)) < 99
        headers = {"last-event-id": last.encode()}
        response = httpx.get(url, headers=headers, trust_env=False)
        assert response.status_code in (410, 204)
        assert len(provider.requests) == 1


def test_a_stream_is_resumed_by_its_key() -> None:
    """As `useChat` does it: the whole stream again, or 204 where there is none."""
    with (
        EmbeddedProvider([LONG], chunk_delay=0.005) as provider,
        service(provider, KeptStreams(), key="chat", vocabulary="vercel") as url,
    ):
        assert get(url + "/again").status_code == 204
        first_events(url, 3)
        again = get(url + "/again")
        assert len(provider.requests) == 1
    assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert parts_of(again.text)[0] == {"type": "start"}
    assert parts_of(again.text)[-1] == "[DONE]"


def test_an_error_before_the_first_event_has_its_status() -> None:
    """And one in the middle is an event with an id, like the others."""
    broken = [Answer(error="authentication"), Answer("So far", error="overloaded")]
    with EmbeddedProvider(broken) as provider, service(provider, KeptStreams()) as url:
        assert get(url).status_code == 401
        sent = read_events(get(url).text)
        assert sent[-1].data["type"] == "stream-error"
        assert get(url, sent[-2].id).text.count("id: ") == 1


# ---- bounds, without a server --------------------------------------------------------------------

pytestmark = pytest.mark.anyio


def _request(last: str | None = None) -> HTTPConnection:
    headers = [] if last is None else [(b"last-event-id", last.encode())]
    return HTTPConnection({"type": "http", "headers": headers})


class _Source:
    """Says numbers, and how far it got."""

    def __init__(self, count: int) -> None:
        self.said = 0
        self._count = count

    async def __aiter__(self) -> AsyncIterator[str]:
        for number in range(self._count):
            self.said = number + 1
            yield str(number)


async def _read(response: Any, enough: Callable[[bytes], bool]) -> bytes:
    """Call the response as a server does, until enough was read; then the client leaves."""
    body = b""
    gone = anyio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal body
        body += message.get("body", b"")
        if enough(body):
            gone.set()
            await anyio.sleep_forever()

    await response({"type": "http"}, receive, send)
    return body


async def test_the_provider_is_read_half_a_buffer_ahead() -> None:
    """Nobody reads: the source waits. The buffer holds no more than it may."""
    source = _Source(100)
    async with KeptStreams(max_events=10) as streams:
        response = streams.response(_request(), lambda: source)
        await anyio.wait_all_tasks_blocked()
        assert source.said == 6  # five are in the buffer, the sixth waits
        body = await _read(response, lambda body: b'"42"' in body)
        last = body.decode().rpartition("id: ")[2].split("\n")[0]
        await anyio.wait_all_tasks_blocked()
        key, _, number = last.rpartition(":")
        early = streams.response(_request(f"{key}:1"), lambda: source)
        assert early.status_code == 410
        rest = await _read(streams.response(_request(last), lambda: source), lambda _: False)
    assert f"id: {key}:{int(number) + 1}\n".encode() in rest
    assert b'"99"' in rest


async def test_the_oldest_that_nobody_reads_is_dropped() -> None:
    """There are no more streams than there may be."""
    async with KeptStreams(max_streams=2) as streams:
        for key in "abc":
            streams.response(_request(), lambda: _Source(1), key=key)
        found = {key: streams.resume(key).status_code for key in "abc"}
    assert found == {"a": 204, "b": 200, "c": 200}


async def test_a_stream_can_be_cancelled() -> None:
    """Its source is closed, and its readers end."""

    async def source() -> AsyncIterator[str]:
        try:
            yield "One"
            await anyio.sleep_forever()
        finally:
            closed.set()

    closed = anyio.Event()
    async with KeptStreams() as streams:
        response = streams.response(_request(), source, key="k")
        await anyio.wait_all_tasks_blocked()
        assert streams.cancel("k") is True
        with anyio.fail_after(5):
            assert b"One" in await _read(response, lambda _: False)
        assert streams.cancel("k") is False
    assert closed.is_set()


async def test_a_reader_that_is_too_slow_is_told() -> None:
    """Of two readers the fast one decides how far the buffer is."""
    async with KeptStreams(max_events=4) as streams:
        fast = streams.response(_request(), lambda: _Source(50), key="k")
        slow = streams.resume("k")
        stop, done = anyio.Event(), anyio.Event()
        body = b""

        async def send(message: Any) -> None:
            nonlocal body
            body += message.get("body", b"")
            if not done.is_set():
                stop.set()
                await done.wait()

        async def read_slowly() -> None:
            await slow({"type": "http"}, anyio.sleep_forever, send)

        async with anyio.create_task_group() as group:
            group.start_soon(read_slowly)
            await stop.wait()
            assert b"stream-end" in await _read(fast, lambda _: False)
            done.set()
    assert b"this client reads too slowly" in body


async def test_what_cannot_be() -> None:
    """Settings, keys and a store that is not open are named."""
    for name, value in (("grace", -1), ("max_events", 1), ("max_streams", 0)):
        with pytest.raises(ConfigurationError, match=f"{name} is {value}"):
            KeptStreams(**{name: value})
    streams = KeptStreams()
    with pytest.raises(ConfigurationError, match="not open"):
        streams.response(_request(), lambda: _Source(1))
    async with streams:
        for key in ("", "a\nb", "ключ", " a"):
            with pytest.raises(ConfigurationError, match="printable ASCII"):
                streams.response(_request(), lambda: _Source(1), key=key)
        streams.response(_request(), lambda: _Source(1), key="k")
        with pytest.raises(ConfigurationError, match="under way"):
            streams.response(_request(), lambda: _Source(1), key="k")
