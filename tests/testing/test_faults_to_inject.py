"""Faults that users inject into the servers of their own tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from streamfold import AIMessageChunk, Timeouts, init_chat_model
from streamfold.errors import (
    ConnectError,
    OverloadedError,
    RateLimitError,
    RequestTimeoutError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.net import retry
from streamfold.testing import EmbeddedProvider, Exchange, ReplayServer, Reply, faults

MODELS = {
    "openai": ("openai:gpt-4.1", "/v1", {}),
    "responses": ("openai:gpt-4.1", "/v1", {"use_responses_api": True}),
    "anthropic": ("anthropic:claude-sonnet-4-5", "", {}),
    "gemini": ("google_genai:gemini-2.5-flash", "/v1beta", {}),
    "bedrock": ("bedrock_converse:amazon.nova-lite-v1:0", "", {"region_name": "us-east-1"}),
    "ollama": ("ollama:llama3.2", "", {}),
    "cohere": ("cohere:command-a-03-2025", "", {}),
}
WORDS = "one two three four five six seven"
each_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(scope="module", autouse=True)
def _no_model_stays() -> Iterator[None]:
    """Those in the tracebacks of errors would keep the connections of the sync methods."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_LONGEST", 0.06)


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider(script=[WORDS] * 9) as provider:
        yield provider


def model_of(provider: Any, name: str = "openai", **fields: Any) -> Any:
    model, prefix, own = MODELS[name]
    return init_chat_model(model, api_key="any", base_url=provider.url + prefix, **own, **fields)


def streamed(model: Any) -> tuple[str, StreamfoldError | None]:
    """What a stream gave, and how it ended."""
    full, failure = AIMessageChunk(), None
    try:
        for chunk in model.stream("hi"):
            full = full + chunk
    except StreamfoldError as error:
        failure = error
    model.close()
    if failure is not None:
        assert (failure.partial.text if failure.partial is not None else "") == full.text
    return full.text, failure


@each_model
@pytest.mark.parametrize("reset", [False, True])
def test_cut(provider: EmbeddedProvider, name: str, reset: bool) -> None:
    """The answer breaks off; what had come before is there."""
    provider.inject(faults.cut(after=5, reset=reset))
    text, error = streamed(model_of(provider, name, max_retries=0))
    assert type(error) in (
        (StreamInterruptedError, ConnectError) if reset else (StreamInterruptedError,)
    )
    assert WORDS.startswith(text)
    assert text != WORDS
    assert reset or text


@each_model
def test_stall(provider: EmbeddedProvider, name: str) -> None:
    """Nothing more comes, in the middle of the answer or from its beginning."""
    provider.inject(faults.stall(after=5), faults.stall())
    model = model_of(provider, name, timeout=Timeouts(first_event=0.3, idle=0.2), max_retries=0)
    text, error = streamed(model)
    assert isinstance(error, RequestTimeoutError)
    assert error.limit == "idle"
    assert text
    text, error = streamed(model)
    assert isinstance(error, RequestTimeoutError)
    assert (text, error.limit) == ("", "first_event")


def test_slow(provider: EmbeddedProvider) -> None:
    """Slowness alone is no error, unless a limit says so."""
    provider.inject(faults.slow(0.01), faults.slow(0.02))
    assert streamed(model_of(provider)) == (WORDS, None)
    text, error = streamed(model_of(provider, timeout=Timeouts(total=0.08)))
    assert isinstance(error, RequestTimeoutError)
    assert error.limit == "total"
    assert text != WORDS


@each_model
def test_status(provider: EmbeddedProvider, name: str) -> None:
    """Refusals, one after the other, with a message that every dialect reads."""
    provider.inject(faults.status(503, message="too much"), faults.status(429, retry_after=61))
    with pytest.raises(RateLimitError, match="it broke") as caught:
        model_of(provider, name).invoke("hi")
    assert caught.value.retry_after == 61
    assert len(provider.requests) == 2
    provider.inject(faults.status(503, message="too much"))
    with pytest.raises(OverloadedError, match="too much"):
        model_of(provider, name, max_retries=0).invoke("hi")
    assert model_of(provider, name).invoke("hi").text == WORDS


@each_model
def test_malformed(provider: EmbeddedProvider, name: str) -> None:
    """An event that cannot be read ends the answer, after what had come."""
    provider.inject(faults.malformed(after=5))
    text, error = streamed(model_of(provider, name))
    assert isinstance(error, StreamProtocolError)
    assert WORDS.startswith(text)
    assert text


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.cut(after=1), StreamInterruptedError),
        (faults.malformed(after=1), StreamProtocolError),
        (faults.stall(after=1), RequestTimeoutError),
    ],
)
def test_an_answer_in_one_piece_breaks_in_the_middle(
    provider: EmbeddedProvider, fault: faults.Fault, expected: type[StreamfoldError]
) -> None:
    """The faults of `invoke` are those of `stream`."""
    provider.inject(fault)
    with pytest.raises(expected):
        model_of(provider, timeout=0.3, max_retries=0).invoke("hi")


def test_each_reply_has_its_turn(provider: EmbeddedProvider) -> None:
    """None leaves a reply alone; what is injected later comes later; then all is well again."""
    model = model_of(provider, max_retries=0)
    provider.inject(None, faults.status(500))
    provider.inject(faults.status(401))
    seen = []
    for _ in range(5):
        try:
            seen.append(model.invoke("hi").text)
        except StreamfoldError as error:
            seen.append(getattr(error, "status", None))
    assert seen == [WORDS, 500, 401, WORDS, WORDS]


def test_a_replay_breaks_like_the_rest() -> None:
    """Pieces are the reads of a replay; a fault may be any function of a reply."""
    body = b'{"choices": [{"message": {"role": "assistant", "content": "hello"}}]}'
    exchange = Exchange(headers={"content-type": "application/json"}, body=body)

    def twice(reply: Reply) -> Reply:
        return Reply(body=reply.pieces() * 2)

    with ReplayServer([exchange] * 3) as server:
        server.inject(faults.cut(), twice)
        model = model_of(server, max_retries=0)
        with pytest.raises(StreamInterruptedError):
            model.invoke("hi")
        with pytest.raises(StreamProtocolError):
            model.invoke("hi")
        assert model.invoke("hi").text == "hello"
        model.close()
