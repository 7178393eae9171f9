"""`StreamResponse` behind a real server: what is sent, when, and what becomes of the provider."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.routing import Route
from web_tools import in_process, parts_of, read_events, serving

from streamfold import ChatModel, init_chat_model
from streamfold.deltas import TextDelta
from streamfold.errors import ConfigurationError, RateLimitError
from streamfold.integrations.web import StreamResponse
from streamfold.messages import AIMessage
from streamfold.testing import Answer, EmbeddedProvider, Failure

WORDS = ("events", "openai", "vercel")
LONG = " ".join(["word"] * 400)
Endpoint = Callable[[Request], Any]


def app_of(endpoint: Endpoint) -> Starlette:
    async def answer(request: Request) -> Any:
        return endpoint(request)

    return Starlette(routes=[Route("/", answer)])


@contextmanager
def asking(provider: EmbeddedProvider, call: Callable[[ChatModel, str], Any]) -> Iterator[str]:
    """A service that answers `/?as=...` by what `call` makes of a model and the vocabulary."""
    options: dict[str, Any] = {"base_url": provider.url + "/v1", "api_key": "any"}
    model = init_chat_model("openai:gpt-4.1", max_retries=0, **options)
    with serving(app_of(lambda request: call(model, request.query_params["as"]))) as url:
        yield url + "/?as="


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


# ---- what is sent --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["astream", "astream_message"])
def test_a_stream_in_each_vocabulary(method: str) -> None:
    """The same answer three times, with the headers that each vocabulary wants."""

    def call(model: ChatModel, word: Any) -> StreamResponse:
        return StreamResponse(getattr(model, method)("Hi"), word)

    with EmbeddedProvider(["Hi you."] * 3) as provider, asking(provider, call) as url:
        events, openai, vercel = (get(url + word) for word in WORDS)
        provider.wait_for(lambda: len(provider.requests) == 3)
    for response in (events, openai, vercel):
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
    assert vercel.headers["x-vercel-ai-ui-message-stream"] == "v1"
    texts = [part.get("text", "") for part in parts_of(events.text)]
    assert "".join(texts) == "Hi you."
    assert parts_of(events.text)[-1] == {"type": "stream-end"}
    deltas = [chunk["choices"][0]["delta"] for chunk in parts_of(openai.text)[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hi you."
    assert "".join(p.get("delta", "") for p in parts_of(vercel.text)[:-1]) == "Hi you."
    assert parts_of(openai.text)[-1] == parts_of(vercel.text)[-1] == "[DONE]"


def test_a_generator_of_ones_own() -> None:
    """Text, events and whole messages may be yielded; without ids, for nothing is kept."""

    async def source() -> AsyncIterator[Any]:
        yield "One, "
        yield TextDelta("two, ")
        yield AIMessage("three.")

    said: list[str] = []
    background = BackgroundTask(said.append, "after")
    app = app_of(lambda _: StreamResponse(source(), background=background, headers={"x-a": "b"}))
    response = in_process(app)
    assert [e.id for e in read_events(response.text)] == [None] * 5
    assert "".join(p.get("text", "") for p in parts_of(response.text)) == "One, two, three."
    assert (said, response.headers["x-a"]) == (["after"], "b")


def test_a_cancelled_answer_says_so() -> None:
    """The application may stop an answer itself."""

    def call(model: ChatModel, word: Any) -> StreamResponse:
        stream = model.astream_message("Hi")
        stream.cancel()
        return StreamResponse(stream, word)

    with EmbeddedProvider() as provider, asking(provider, call) as url:
        assert parts_of(get(url + "vercel").text)[1:] == [{"type": "abort"}, "[DONE]"]
        assert get(url + "openai").status_code == 502


# ---- what goes wrong -----------------------------------------------------------------------------


def _asked(model: ChatModel, word: Any) -> StreamResponse:
    return StreamResponse(model.astream("Hi"), word)


def test_an_error_before_the_stream_has_its_status() -> None:
    """And what the provider asks to wait."""
    busy = Answer(error=Failure("rate_limit", retry_after=7))
    with EmbeddedProvider([busy] * 3) as provider, asking(provider, _asked) as url:
        events, openai, vercel = (get(url + word) for word in WORDS)
    for response in (events, openai, vercel):
        assert response.status_code == 429
        assert response.headers["retry-after"] == "7"
        assert "x-should-retry" not in response.headers
    assert events.json()["error"]["class"] == "RateLimitError"
    assert events.json()["error"]["retry_after"] == 7
    error = openai.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "rate_limit_exceeded"
    assert vercel.headers["content-type"].startswith("text/plain")
    assert "Rate limit" in vercel.text


def test_an_error_in_the_stream_is_its_last_event() -> None:
    """What was said before it stays."""
    broken = Answer("So far", error="overloaded")
    with EmbeddedProvider([broken] * 3) as provider, asking(provider, _asked) as url:
        events, openai, vercel = (
            parts_of(get(url + word).raise_for_status().text) for word in WORDS
        )
    assert events[-1]["type"] == "stream-error"
    assert events[-1]["error"]["retryable"] is True
    assert "".join(part.get("text", "") for part in events) == "So far"
    assert "overloaded" in openai[-1]["error"]["message"]
    assert "overloaded" in vercel[-2]["errorText"]
    assert vercel[-1] == "[DONE]"


async def _faulty() -> AsyncIterator[str]:
    yield "So far"
    raise ZeroDivisionError("secret")


@pytest.mark.parametrize("word", WORDS)
def test_errors_that_are_not_ours_say_nothing(word: Any) -> None:
    """They end the stream, and the server learns of them."""
    app = app_of(lambda _: StreamResponse(_faulty(), word))
    told = in_process(app, raises=False).text
    assert "internal error" in told
    assert "secret" not in told
    with pytest.raises(ZeroDivisionError):
        in_process(app)


def test_the_application_finds_the_words() -> None:
    """`on_error` makes the text, in a stream and before it."""

    async def refused() -> AsyncIterator[str]:
        raise RateLimitError("no", status=429)
        yield ""

    def words(error: Exception) -> str:
        return f"Sorry: {type(error).__name__}"

    app = app_of(lambda _: StreamResponse(refused(), "vercel", on_error=words))
    response = in_process(app)
    assert (response.status_code, response.text) == (429, "Sorry: RateLimitError")
    app = app_of(lambda _: StreamResponse(_faulty(), "vercel", on_error=words))
    told = in_process(app, raises=False).text
    assert parts_of(told)[-2] == {"type": "error", "errorText": "Sorry: ZeroDivisionError"}


def test_a_wrong_item_is_named() -> None:
    """The stream ends with what it is and what was expected."""

    async def numbers() -> AsyncIterator[Any]:
        yield "One"
        yield 2

    told = in_process(app_of(lambda _: StreamResponse(numbers()))).text
    assert "the stream has a int (2): expected chunks" in parts_of(told)[-1]["error"]["message"]


@pytest.mark.parametrize("heartbeat", [0, -1.0])
def test_a_heartbeat_that_cannot_be(heartbeat: float) -> None:
    with pytest.raises(ConfigurationError, match="heartbeat is"):
        StreamResponse(_faulty(), heartbeat=heartbeat)


# ---- the client leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("method", ["astream", "astream_message", "astream_events"])
def test_a_client_that_leaves_closes_the_providers_connection(word: str, method: str) -> None:
    """The request to the provider is cancelled while its answer is under way."""

    def call(model: ChatModel, word: Any) -> StreamResponse:
        return StreamResponse(getattr(model, method)("Hi"), word)

    with EmbeddedProvider([LONG], chunk_delay=0.02) as provider, asking(provider, call) as url:
        with httpx.stream("GET", url + word, trust_env=False) as answer:
            texts = answer.iter_text()  # dropped, it would close the connection
            assert any("word" in text for text in texts)
            assert provider.open_connections == 1
        provider.wait_for(lambda: provider.abandoned == 1)
        provider.wait_closed()


def test_a_client_that_leaves_before_the_first_word() -> None:
    """Nothing has been sent to it, and so nothing could fail: the server hears that it has gone."""
    with EmbeddedProvider([LONG], first_delay=60) as provider, asking(provider, _asked) as url:
        client = httpx.Client(trust_env=False, timeout=0.5)
        with client, pytest.raises(httpx.ReadTimeout):
            client.get(url + "events")
        provider.wait_for(lambda: provider.abandoned == 1)
        provider.wait_closed()


# ---- heartbeats ----------------------------------------------------------------------------------


def test_silence_is_filled() -> None:
    """Comments come while the provider thinks; an error after them is in the stream."""
    answers = ["Done.", Answer(error="authentication")]

    def call(model: ChatModel, word: Any) -> StreamResponse:
        return StreamResponse(model.astream("Hi"), word, heartbeat=0.05)

    with (
        EmbeddedProvider(answers, first_delay=0.4) as provider,
        asking(provider, call) as url,
    ):
        fine, broken = (get(url + "openai") for _ in range(2))
    assert fine.text.startswith(": heartbeat\n\n: heartbeat\n\n")
    assert parts_of(fine.text)[-1] == "[DONE]"
    assert broken.status_code == 200
    assert "Incorrect API key" in parts_of(broken.text)[-1]["error"]["message"]


def test_a_stream_that_speaks_needs_no_heartbeat() -> None:
    """Only silence counts."""
    release = threading.Event()

    async def talk() -> AsyncIterator[str]:
        for _ in range(20):
            yield "word "
            await anyio.sleep(0.01)
        release.set()

    app = app_of(lambda _: StreamResponse(talk(), heartbeat=5))
    assert ": heartbeat" not in in_process(app).text
    assert release.is_set()


# ---- any server, any loop ------------------------------------------------------------------------


class _Client:
    """The other side of an ASGI application, without a network."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.gone = anyio.Event()
        self.body = anyio.Event()
        self.refuses = False

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.refuses:
            raise OSError("the client has gone")
        self.sent.append(message)
        if message.get("body"):
            self.body.set()


SCOPE = {"type": "http", "asgi": {"spec_version": "2.4"}}


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["receive", "send"])
async def test_both_ways_to_learn_that_a_client_has_gone(how: str) -> None:
    """A server tells it when asked, or by an OSError when something is sent: either cancels the
    source, which is closed by then."""
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            yield "One"
            await client.body.wait()
            if how == "send":
                client.refuses = True
                yield "Two"
            client.gone.set()
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    client = _Client()
    with anyio.fail_after(5):
        await StreamResponse(source())(SCOPE, client.receive, client.send)
    assert closed == [True]
    assert [message["type"] for message in client.sent] == [
        "http.response.start",
        "http.response.body",
    ]


@pytest.mark.anyio
async def test_a_server_that_stops_takes_the_source_along() -> None:
    """Cancellation from outside goes through."""
    closed = anyio.Event()

    async def source() -> AsyncIterator[str]:
        try:
            yield "One"
            await anyio.sleep_forever()
        finally:
            closed.set()

    client = _Client()
    async with anyio.create_task_group() as group:
        group.start_soon(StreamResponse(source()), SCOPE, client.receive, client.send)
        await client.body.wait()
        group.cancel_scope.cancel()
    assert closed.is_set()
