"""`with_retry` and `with_fallbacks`: again and elsewhere, but never behind the reader's back."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
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
from streamfold.testing import Answer, EmbeddedProvider, Failure

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


async def test_combinations_show_what_they_are_made_of() -> None:
    """And no key."""
    async with EmbeddedProvider() as provider:
        one = model(provider, api_key="sk-secret")
        shown = repr(one.with_fallbacks([one.with_retry(stop_after_attempt=7)]))
    assert shown == f"RunnableWithFallbacks({one!r}, RunnableRetry({one!r}, stop_after_attempt=7))"
    assert "sk-secret" not in shown


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


# ---- whatever is tried again ---------------------------------------------------------------------

SCHEMA = {
    "title": "answer",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "string"}},
    "required": ["x", "y"],
}
BROKEN_JSON = Answer('{"x": 1, "y": "aaaa bbbb', error="server")
JSON = '{"x": 2, "y": "cccc dddd eeee"}'


def wrapped(one: Any, how: str) -> Any:
    """`one` with retries or fallbacks that may begin a stream anew."""
    if how == "retry":
        return one.with_retry(restart_streams=True, wait_exponential_jitter=False)
    return one.with_fallbacks([one], restart_streams=True)


def asking(one: Any) -> Any:
    """A function that streams what the model says."""

    @runnable
    async def ask(text: str) -> AsyncIterator[Any]:
        async for chunk in one.astream(text):
            yield chunk

    return ask


@tool
def search(query: str) -> str:
    """Search."""
    return query


KINDS: dict[str, Any] = {
    "model": lambda one: one,
    "bound": lambda one: one.bind(temperature=0),
    "tools": lambda one: one.bind_tools([search], tool_choice="none"),
    "configured": lambda one: one.with_config(tags=["t"]),
    "configurable": lambda one: configurable(one),
    "function": asking,
}


def configurable(one: Any) -> Any:
    return init_chat_model(
        "gpt-4.1",
        base_url=one.base_url,
        api_key="k",
        max_retries=0,
        configurable_fields=["temperature"],
    )


@pytest.mark.parametrize("how", ["retry", "fallbacks"])
@pytest.mark.parametrize("kind", KINDS)
async def test_everything_can_be_tried_again(kind: str, how: str) -> None:
    """Whole, streamed, and streamed anew after its first chunk; events as well."""
    script = [Answer(error=500), "fine", Answer(error=503), "fine", BROKEN, "second", BROKEN, "end"]
    async with EmbeddedProvider(script=script) as provider:
        again = wrapped(KINDS[kind](model(provider)), how)
        if kind == "function":
            chunks = await collected(again.astream("hi"))
            assert folded(chunks).text == "fine"
        else:
            assert (await again.ainvoke("hi")).text == "fine"
        chunks = await collected(again.astream("hi"))
        assert (folded(chunks).text, restarts(chunks)) == ("fine", [])
        chunks = await collected(again.astream("hi"))
        assert folded(chunks).to_message().text == "second"
        assert len(restarts(chunks)) == 1
        events = await collected(again.astream_events("hi"))
        assert len(provider.requests) == 8
    told = [event["event"] for event in events]
    assert told.count("on_chat_model_start") == 2
    assert told.count("on_chat_model_error") == told.count("on_chat_model_end") == 1
    assert told.count("on_retry") == 1
    (ended,) = (event for event in events if event["event"] == "on_chat_model_end")
    assert ended["data"]["output"].text == "end"


@pytest.mark.parametrize("how", ["retry", "fallbacks"])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("chosen", [True, False])
async def test_structured_streams_begin_anew_by_themselves(
    how: str, inside: bool, chosen: bool
) -> None:
    """Objects and nothing else: those of the second answer follow those of the first."""
    async with EmbeddedProvider(script=[BROKEN_JSON, JSON] * 2) as provider:
        one = configurable(model(provider)) if chosen else model(provider)
        if inside:
            again = wrapped(one.with_structured_output(SCHEMA), how)
        else:
            again = wrapped(one, how).with_structured_output(SCHEMA)
        items = await collected(again.astream("hi"))
        assert await again.ainvoke("hi") == {"x": 2, "y": "cccc dddd eeee"}
    assert all(isinstance(item, dict) for item in items)
    assert {"x": 1} in items or any(item.get("x") == 1 for item in items)
    assert items[-1] == {"x": 2, "y": "cccc dddd eeee"}


async def test_a_bad_object_is_tried_again() -> None:
    """An answer that does not fit is a failure like any other, also at the end of a stream."""
    async with EmbeddedProvider(script=["no object", JSON] * 2) as provider:
        again = wrapped(model(provider).with_structured_output(SCHEMA), "retry")
        assert (await again.ainvoke("hi"))["x"] == 2
        assert (await collected(again.astream("hi")))[-1]["x"] == 2


@pytest.mark.parametrize("how", ["retry", "fallbacks"])
async def test_other_items_get_the_event_itself(how: str) -> None:
    """Where items are neither chunks nor the whole so far, only the event can tell."""
    calls = 0

    @runnable
    async def words(text: str) -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        yield f"first {calls}"
        if calls == 1:
            raise ServerError("broken")
        yield "last"

    items = await collected(wrapped(words, how).astream("hi"))
    assert items == ["first 1", Restart(attempt=2, reason="ServerError: broken"), "first 2", "last"]


async def test_who_answers_is_told() -> None:
    """By the event that announces the next, by the model's own events, and in the message."""
    script = [Answer(error=500), Answer("Half", error="server"), "third"]
    async with EmbeddedProvider(script=script) as provider:
        first, *others = (model(provider, n) for n in ("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"))
        chain = first.with_fallbacks([others[0], others[1].with_retry()], restart_streams=True)
        config = {"tags": ["mine"], "metadata": {"user": 7}}
        events = await collected(chain.astream_events("hi", config))
        script_again = [Answer(error=500), "second"]
        provider._script = iter(script_again)
        message = folded(await collected(chain.astream("hi"))).to_message()
    told = [event for event in events if event["event"] == "on_retry"]
    assert [event["data"]["fallback"] for event in told] == ["gpt-4.1-mini", "gpt-4.1-nano"]
    assert [type(event["data"]["error"]) for event in told] == [ServerError, ServerError]
    starts = [event for event in events if event["event"] == "on_chat_model_start"]
    names = ["gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"]
    assert [event["metadata"]["ls_model_name"] for event in starts] == names
    assert all(event["tags"] == ["mine"] and event["metadata"]["user"] == 7 for event in starts)
    assert message.response_metadata["model_name"].startswith("gpt-4.1-mini")


@pytest.mark.parametrize("method", ["ainvoke", "astream"])
async def test_a_configuration_that_cannot_be_is_nobodys_to_answer(method: str) -> None:
    """It is wrong for all of them, even where it is of no more use to the second."""
    async with EmbeddedProvider() as provider:
        both = model(provider).with_fallbacks([model(provider)])

        async def call() -> None:
            called = getattr(both, method)("hi", {"run_id": "no uuid"})
            await (called if method == "ainvoke" else collected(called))

        with pytest.raises(ConfigurationError, match="run_id") as caught:
            await call()
        assert not getattr(caught.value, "__notes__", None)
        assert not provider.requests


async def test_what_the_fallbacks_did_is_in_the_notes() -> None:
    """Of the first error, which is the one raised."""
    async with EmbeddedProvider(script=[Answer(error=401), Answer(error=429)]) as provider:
        with pytest.raises(AuthenticationError) as caught:
            await model(provider).with_fallbacks([model(provider)]).ainvoke("hi")
    (note,) = caught.value.__notes__
    assert "RateLimitError" in note


async def test_pauses_as_they_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By LangChain's parameters; by the server's word, where it has one."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    limited = Answer(error=Failure("rate_limit", retry_after=3))
    params = {"initial": 2, "exp_base": 3, "max": 10, "jitter": 0}
    async with EmbeddedProvider(script=[Answer(error=500)] * 4 + [limited, "fine"]) as provider:
        one = model(provider).with_retry(exponential_jitter_params=params, stop_after_attempt=6)
        monkeypatch.setattr("streamfold.resilience.anyio.sleep", sleep)
        assert (await one.bind(temperature=0).ainvoke("hi")).text == "fine"
    assert pauses == [2, 6, 10, 10, 3]


@pytest.mark.parametrize(
    "params",
    [
        {"stop_after_attempt": True},
        {"stop_after_attempt": 1.5},
        {"retry_if_exception_type": (BaseException,)},
        {"retry_if_exception_type": []},
        {"exponential_jitter_params": {"initial": -1}},
        {"exponential_jitter_params": {"max": float("nan")}},
        {"exponential_jitter_params": {"multiplier": 1}},
        {"exponential_jitter_params": 3},
    ],
)
async def test_other_retries_that_cannot_be_are_refused(params: Any) -> None:
    """Cancellation is nothing to try again after, and a pause is a number of seconds."""
    async with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError):
            model(provider).with_retry(**params)


@pytest.mark.parametrize("fallbacks", [[], (), "gpt-4.1", None, ["gpt-4.1"], [None], [print]])
async def test_fallbacks_that_are_none_are_refused(fallbacks: Any) -> None:
    """Said when they are given, and by what they are."""
    async with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match="fallback"):
            model(provider).with_fallbacks(fallbacks)


async def test_several_exceptions_may_be_named_in_a_list() -> None:
    """As well as in a tuple, or one alone."""
    async with EmbeddedProvider(script=[Answer(error=404), "second"]) as provider:
        one = model(provider)
        chain = one.with_fallbacks([one], exceptions_to_handle=[ServerError, NotFoundError])
        assert (await chain.ainvoke("hi")).text == "second"


async def test_cancellation_is_no_failure() -> None:
    """It ends an attempt and makes no other."""
    async with EmbeddedProvider(first_delay=5) as provider:
        one = model(provider)
        for asked, combined in enumerate((one.with_retry(), one.with_fallbacks([one])), 1):
            async with anyio.create_task_group() as group:
                group.start_soon(combined.ainvoke, "hi")
                there = partial(lambda count: len(provider.requests) == count, asked)
                await anyio.to_thread.run_sync(provider.wait_for, there)
                group.cancel_scope.cancel()
        assert len(provider.requests) == 2


@pytest.mark.parametrize("wrap", ["retry", "fallbacks"])
async def test_closing_it_closes_what_it_wraps(wrap: str) -> None:
    """All the models, not only the one that answered: what comes next needs new connections."""
    async with EmbeddedProvider() as first, EmbeddedProvider() as second:
        models = [model(first), model(second)]
        if wrap == "retry":
            wrapped = [each.with_retry() for each in models]
        else:
            wrapped = [models[0].with_fallbacks(models[1:])]
        for each in models * 2:
            await each.ainvoke("hi")
        assert (first.connections, second.connections) == (1, 1)
        for one in wrapped:
            await one.aclose()
        for each in models:
            await each.ainvoke("hi")
        assert (first.connections, second.connections) == (2, 2)
        for one in wrapped:
            await one.aclose()
