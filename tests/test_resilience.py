"""`with_retry` and `with_fallbacks`: again and elsewhere, but never behind the reader's back."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.chunks import AIMessageChunk
from streamfold.deltas import Restart
from streamfold.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    ProviderError,
    RateLimitError,
    ServerError,
)
from streamfold.testing import Answer, EmbeddedProvider

pytestmark = pytest.mark.anyio

BROKEN = Answer("Half an answer", error="server")


def model(provider: EmbeddedProvider, name: str = "gpt-4.1", **kwargs: Any) -> Any:
    kwargs = {"max_retries": 0, "api_key": "k", **kwargs}
    return init_chat_model(name, base_url=f"{provider.url}/v1", model_provider="openai", **kwargs)


async def collected(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


def folded(chunks: list[Any]) -> AIMessageChunk:
    return sum(chunks, AIMessageChunk())


def restarts(chunks: list[Any]) -> list[Restart]:
    return [e for chunk in chunks for e in chunk.events if isinstance(e, Restart)]


# ---- retry ---------------------------------------------------------------------------------------


async def test_the_first_attempt_that_succeeds_counts() -> None:
    """Whole or streamed, and no more requests than needed."""
    script = [Answer(error=500), Answer(error=503), "fine"] * 2
    async with EmbeddedProvider(script=script) as provider:
        retried = model(provider).with_retry(wait_exponential_jitter=False)
        assert (await retried.ainvoke("hi")).text == "fine"
        assert len(provider.requests) == 3
        chunks = await collected(retried.astream("hi"))
        assert folded(chunks).text == "fine"
        assert restarts(chunks) == []
        assert len(provider.requests) == 6


async def test_the_error_of_the_last_attempt_is_raised() -> None:
    """After as many attempts as were allowed."""
    async with EmbeddedProvider(script=[Answer(error=500), Answer(error=429)]) as provider:
        retried = model(provider).with_retry(wait_exponential_jitter=False, stop_after_attempt=2)
        with pytest.raises(RateLimitError):
            await retried.ainvoke("hi")
        assert len(provider.requests) == 2


async def test_only_the_errors_that_were_named_are_tried_again() -> None:
    """The others are raised at once."""
    async with EmbeddedProvider(script=[Answer(error=404)] * 3) as provider:
        retried = model(provider).with_retry(
            retry_if_exception_type=(ServerError,), wait_exponential_jitter=False
        )
        with pytest.raises(NotFoundError):
            await retried.ainvoke("hi")
        with pytest.raises(NotFoundError):
            await collected(retried.astream("hi"))
        assert len(provider.requests) == 2


async def test_a_stream_is_not_tried_again_after_its_first_chunk() -> None:
    """The error is raised, with what had come."""
    async with EmbeddedProvider(script=[BROKEN, "second"]) as provider:
        stream = model(provider).with_retry().astream("hi")
        assert (await anext(stream)).events
        with pytest.raises(ProviderError) as caught:
            await collected(stream)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Half an answer"
        assert len(provider.requests) == 1


async def test_a_restart_voids_what_had_come() -> None:
    """Where it was allowed: the fold of all chunks is the second answer, and says nothing twice."""
    async with EmbeddedProvider(script=[BROKEN, BROKEN, "second"]) as provider:
        retried = model(provider).with_retry(restart_streams=True, wait_exponential_jitter=False)
        chunks = await collected(retried.astream("hi"))
        whole = folded(chunks).to_message()
        assert whole.text == "second"
        assert whole.finish_reason == "stop"
        assert [restart.attempt for restart in restarts(chunks)] == [2, 3]
        assert "ServerError" in restarts(chunks)[0].reason
        async with EmbeddedProvider(script=["second"]) as other:
            alone = await model(other).ainvoke("hi")
        assert whole.usage_metadata == alone.usage_metadata
        assert whole.content == alone.content


async def test_a_restart_reaches_the_message_stream_too() -> None:
    """`astream_message` of a retried model folds to the second answer."""
    async with EmbeddedProvider(script=[BROKEN, "second"]) as provider:
        retried = model(provider).with_retry(restart_streams=True, wait_exponential_jitter=False)
        async with retried.astream_message("hi") as stream:
            message = await stream.message()
    assert message.text == "second"


async def test_leaving_a_retried_stream_makes_no_other_request() -> None:
    """And closes the connection."""
    async with EmbeddedProvider(script=["one two three"] * 3, chunk_delay=0.05) as provider:
        retried = model(provider).with_retry(restart_streams=True)
        async with retried.astream("hi") as stream:
            await anext(stream)
        assert len(provider.requests) == 1


async def test_what_makes_a_new_model_is_done_to_the_model_inside() -> None:
    """bind, bind_tools, with_config and with_structured_output go through; the rest is unknown."""

    @tool
    def look(city: str) -> str:
        """Look."""
        return city

    async with EmbeddedProvider(script=[Answer(error=500), "fine"] * 3) as provider:
        retried = model(provider).with_retry(wait_exponential_jitter=False)
        changed = retried.bind(temperature=0.5).bind_tools([look]).with_config(tags=["t"])
        assert (await changed.ainvoke("hi")).text == "fine"
        assert len(provider.requests) == 2
        assert provider.requests[1].json()["temperature"] == 0.5
        assert provider.requests[1].json()["tools"][0]["function"]["name"] == "look"
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            retried.nonsense  # noqa: B018


async def test_combinations_can_be_copied() -> None:
    """A half-made object does not look for itself without end."""
    async with EmbeddedProvider(script=["fine"] * 2) as provider:
        one = model(provider)
        for combined in (one.with_retry(), one.with_fallbacks([one])):
            assert (await copy.copy(combined).ainvoke("hi")).text == "fine"


async def test_batches_keep_the_limits_of_the_model() -> None:
    """`with_config(max_concurrency=1)` of the model inside counts."""
    active = most = 0

    @runnable
    async def slow(x: int) -> int:
        nonlocal active, most
        import anyio

        active += 1
        most = max(most, active)
        await anyio.sleep(0.005)
        active -= 1
        return x

    one = slow.with_config(max_concurrency=1)
    for combined in (one.with_retry(), one.with_fallbacks([slow])):
        assert await combined.abatch([1, 2, 3]) == [1, 2, 3]
        assert most == 1


@pytest.mark.parametrize(
    "params",
    [{"stop_after_attempt": 0}, {"retry_if_exception_type": "x"}, {"retry_if_exception_type": ()}],
)
async def test_retries_that_cannot_be_are_refused(params: Any) -> None:
    """Said when it is made."""
    async with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError):
            model(provider).with_retry(**params)


# ---- fallbacks -----------------------------------------------------------------------------------


async def test_the_next_is_asked_when_one_fails() -> None:
    """In order, whole or streamed, with the same input and configuration."""
    script = [Answer(error=500), Answer(error=429), "third"] * 2
    async with EmbeddedProvider(script=script) as provider:
        names = ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
        first, *others = [model(provider, name) for name in names]
        chain = first.with_fallbacks(others)
        assert (await chain.ainvoke("hi", temperature=0.5)).text == "third"
        chunks = await collected(chain.astream("hi"))
        assert folded(chunks).text == "third"
        assert restarts(chunks) == []
        asked = [request.json() for request in provider.requests]
    assert [body["model"] for body in asked] == names * 2
    assert all(body["temperature"] == 0.5 for body in asked[:3])


async def test_the_first_error_is_raised_when_all_fail() -> None:
    """It says what went wrong with what was asked for."""
    async with EmbeddedProvider(script=[Answer(error=401), Answer(error=500)] * 2) as provider:
        chain = model(provider).with_fallbacks([model(provider)])
        with pytest.raises(AuthenticationError):
            await chain.ainvoke("hi")
        with pytest.raises(AuthenticationError):
            await collected(chain.astream("hi"))


async def test_only_the_errors_that_were_named_fall_back() -> None:
    """The others are raised at once."""
    async with EmbeddedProvider(script=[Answer(error=404), "second"]) as provider:
        chain = model(provider).with_fallbacks([model(provider)], exceptions_to_handle=ServerError)
        with pytest.raises(NotFoundError):
            await chain.ainvoke("hi")
        assert len(provider.requests) == 1


async def test_a_stream_does_not_fall_back_after_its_first_chunk() -> None:
    """Unless restarts are allowed; then the first half does not count."""
    async with EmbeddedProvider(script=[BROKEN, BROKEN, "second"]) as provider:
        one = model(provider)
        with pytest.raises(ProviderError):
            await collected(one.with_fallbacks([one]).astream("hi"))
        assert len(provider.requests) == 1
        chain = one.with_fallbacks([one], restart_streams=True)
        chunks = await collected(chain.astream("hi"))
    assert folded(chunks).to_message().text == "second"
    assert [restart.attempt for restart in restarts(chunks)] == [2]


async def test_a_fallback_voids_nothing_of_its_own() -> None:
    """Where nothing had been shown there is nothing to void, however the answer is cut."""
    script = [Answer(error=500), "one two three four"]
    async with EmbeddedProvider(script=script, chunk_delay=0.005) as provider:
        one = model(provider)
        for allowed in (False, True):
            provider._script = iter(script)
            chain = one.with_fallbacks([one], restart_streams=allowed)
            chunks = await collected(chain.astream("hi"))
            assert restarts(chunks) == []
            assert folded(chunks).text == "one two three four"


async def test_restarts_of_both_kinds_together() -> None:
    """Retries inside fallbacks: the last answer counts."""
    async with EmbeddedProvider(script=[BROKEN, BROKEN, BROKEN, "last"]) as provider:
        retried = model(provider).with_retry(
            restart_streams=True, stop_after_attempt=2, wait_exponential_jitter=False
        )
        chain = retried.with_fallbacks([retried], restart_streams=True)
        chunks = await collected(chain.astream("hi"))
    assert folded(chunks).to_message().text == "last"
    assert len(restarts(chunks)) == 3


async def test_structured_fallbacks() -> None:
    """A model that answers badly is followed by the next."""
    schema = {
        "title": "answer",
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "required": ["x"],
    }
    async with EmbeddedProvider(script=["not JSON", '{"x": 2}']) as provider:
        chain = model(provider).with_fallbacks([model(provider)]).with_structured_output(schema)
        assert await chain.ainvoke("hi") == {"x": 2}


async def test_no_fallbacks_are_refused() -> None:
    """An empty list is a mistake."""
    async with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match="fallbacks"):
            model(provider).with_fallbacks([])
