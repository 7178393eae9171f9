"""Handlers: who is told what, in which order, and what their errors do."""

from __future__ import annotations

import contextvars
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from streamfold import callbacks, init_chat_model, runnable
from streamfold.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    ConsoleCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from streamfold.errors import ConfigurationError, ServerError
from streamfold.messages import AIMessage, HumanMessage
from streamfold.testing import Answer, EmbeddedProvider, Usage

NAME = "gpt-4.1-2025-04-14"  # the model that answers when gpt-4.1 is asked


def model(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model(
        "gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", max_retries=0, **kwargs
    )


def claude(provider: EmbeddedProvider) -> Any:
    return init_chat_model("claude-sonnet-4-5", base_url=provider.url, api_key="k", max_retries=0)


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


class Log(BaseCallbackHandler):
    """All that was heard: method, arguments, keywords."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        return lambda *args, **kwargs: self.heard.append((name, args, kwargs))

    @property
    def names(self) -> list[str]:
        found = [name for name, _, _ in self.heard]
        return [name for place, name in enumerate(found) if found[:place][-1:] != [name]]


def test_langchains_signatures(embedded: EmbeddedProvider) -> None:
    """Positional and keyword arguments as programs written for LangChain expect them."""
    log = Log()
    config = {"callbacks": [log], "tags": ["t"], "metadata": {"k": 1}, "run_name": "ask"}
    chunks = list(model(embedded).stream("hi", config))
    assert log.names == ["on_chat_model_start", "on_llm_new_token", "on_llm_end"]
    _, (serialized, messages), start = log.heard[0]
    assert serialized["name"] == "ChatOpenAI"
    assert messages == [[HumanMessage("hi")]]
    assert isinstance(start["run_id"], UUID)
    assert start["parent_run_id"] is None
    assert (start["tags"], start["name"]) == (["t"], "ask")
    assert start["metadata"] == {
        "k": 1,
        "ls_provider": "openai",
        "ls_model_name": "gpt-4.1",
        "ls_model_type": "chat",
    }
    tokens = [(args[0], kwargs["chunk"]) for _, args, kwargs in log.heard[1:-1]]
    assert [text for text, _ in tokens] == [chunk.text for chunk in chunks]
    assert [chunk for _, chunk in tokens] == chunks
    _, (response,), end = log.heard[-1]
    message = response.generations[0][0].message
    assert isinstance(message, AIMessage)
    assert message == sum(chunks[1:], chunks[0]).to_message()
    assert response.generations[0][0].text == message.text
    assert len({kwargs["run_id"] for _, _, kwargs in log.heard}) == 1
    assert end["name"] == "ask"


@pytest.mark.anyio
async def test_handlers_are_called_in_order_and_awaited(embedded: EmbeddedProvider) -> None:
    """Sync and async ones, one after the other."""
    order: list[str] = []

    class First(AsyncCallbackHandler):
        async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            await anyio.sleep(0.01)
            order.append("first")

    class Second(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            order.append("second")

    await model(embedded).ainvoke("hi", {"callbacks": [First(), Second()]})
    await model(embedded, callbacks=[Second()]).ainvoke("hi", {"callbacks": [First()]})
    assert order == ["first", "second", "second", "first"]


def test_errors_in_handlers_are_logged(
    embedded: EmbeddedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """They stop neither the run nor the other handlers."""

    class Bad(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("bad start")

        async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("bad end")

    log = Log()
    with caplog.at_level(logging.WARNING, "streamfold"):
        assert model(embedded).invoke("hi", {"callbacks": [Bad(), log]}).text
    assert log.names[0] == "on_chat_model_start"
    assert log.names[-1] == "on_llm_end"
    assert [record.getMessage() for record in caplog.records] == [
        "error in Bad.on_chat_model_start",
        "error in Bad.on_llm_end",
    ]


def test_raise_error_stops_the_run(embedded: EmbeddedProvider) -> None:
    """Where the handler says so."""

    class Strict(BaseCallbackHandler):
        raise_error = True

        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("not allowed")

    before = len(embedded.requests)
    with pytest.raises(RuntimeError, match="not allowed"):
        model(embedded).invoke("hi", {"callbacks": [Strict()]})
    assert len(embedded.requests) == before


@pytest.mark.parametrize("bad", ["log", 5, object(), [object()], {"on_llm_end": print}])
def test_what_has_no_method_of_a_handler_is_refused(embedded: EmbeddedProvider, bad: Any) -> None:
    """Instead of never being called."""
    before = len(embedded.requests)
    with pytest.raises(ConfigurationError, match="handler"):
        model(embedded).invoke("hi", {"callbacks": bad})
    assert len(embedded.requests) == before


def test_any_object_with_one_method_is_a_handler(embedded: EmbeddedProvider) -> None:
    """No base class is needed, and a handler may be given without a list."""

    class Only:
        ended = 0

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.ended += 1

    only = Only()
    model(embedded).invoke("hi", {"callbacks": only})
    assert only.ended == 1


def test_errors_bring_what_had_arrived() -> None:
    """`on_llm_error` has the partial answer; nothing else comes after it."""
    log = Log()
    script = [Answer("Half an", error="overloaded")]
    with EmbeddedProvider(script=script) as provider, pytest.raises(ServerError) as caught:
        list(model(provider).stream("hi", {"callbacks": [log]}))
    assert log.names == ["on_chat_model_start", "on_llm_new_token", "on_llm_error"]
    _, (error,), kwargs = log.heard[-1]
    assert error is caught.value
    assert kwargs["response"].generations[0][0].message.text == "Half an"


def test_errors_before_any_content_bring_none() -> None:
    """There is nothing to bring."""
    log = Log()
    with EmbeddedProvider(script=[Answer(error=500)]) as provider, pytest.raises(ServerError):
        model(provider).invoke("hi", {"callbacks": [log]})
    assert log.names == ["on_chat_model_start", "on_llm_error"]
    assert log.heard[-1][2]["response"] is None


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["leave", "scope"])
async def test_a_stream_that_is_left_is_one_cancel(how: str) -> None:
    """With what had arrived, marked as cancelled."""
    log = Log()
    async with EmbeddedProvider(script=["one two three"], chunk_delay=0.05) as provider:
        with anyio.move_on_after(5) as scope:
            async with model(provider).astream("hi", {"callbacks": [log]}) as stream:
                async for chunk in stream:
                    if chunk.text:
                        if how == "leave":
                            await stream.aclose()
                            break
                        scope.cancel()
    assert log.names == ["on_chat_model_start", "on_llm_new_token", "on_llm_cancel"]
    message = log.heard[-1][2]["response"].generations[0][0].message
    assert "one two three".startswith(message.text.strip())
    assert message.text
    assert message.finish_reason == "cancelled"


def test_tokens_are_heard_on_request_only(embedded: EmbeddedProvider) -> None:
    """`wants_tokens` makes `invoke` stream; the caller still gets one message."""

    class Tokens(Log):
        wants_tokens = True

    log, tokens = Log(), Tokens()
    model(embedded).invoke("hi", {"callbacks": [log]})
    assert (
        "stream" not in embedded.requests[-1].json() or not embedded.requests[-1].json()["stream"]
    )
    answer = model(embedded).invoke("hi", {"callbacks": [tokens]})
    assert embedded.requests[-1].json()["stream"] is True
    texts = [args[0] for name, args, _ in tokens.heard if name == "on_llm_new_token"]
    assert "".join(texts) == answer.text
    assert len(texts) > 3


# ---- usage ---------------------------------------------------------------------------------------


def test_usage_is_summed_by_the_model_that_answered(embedded: EmbeddedProvider) -> None:
    """Nothing but usage in it; invoke and stream count the same."""
    usage = UsageMetadataCallbackHandler()
    one = model(embedded).invoke("hi", {"callbacks": [usage]})
    list(model(embedded).stream("hi", {"callbacks": [usage]}))
    two = claude(embedded).invoke("hi", {"callbacks": [usage]})
    assert set(usage.usage_metadata) == {NAME, two.response_metadata["model_name"]}
    total = usage.usage_metadata[NAME]
    assert total["total_tokens"] == 2 * one.usage_metadata["total_tokens"]
    assert total.keys() == one.usage_metadata.keys()
    assert usage.usage_metadata[two.response_metadata["model_name"]] == two.usage_metadata


def test_usage_cannot_be_changed_from_outside(embedded: EmbeddedProvider) -> None:
    """What is handed out is a copy."""
    usage = UsageMetadataCallbackHandler()
    model(embedded).invoke("hi", {"callbacks": [usage]})
    before = usage.usage_metadata[NAME]["total_tokens"]
    usage.usage_metadata[NAME]["total_tokens"] = 0
    usage.usage_metadata.clear()
    assert usage.usage_metadata[NAME]["total_tokens"] == before


def test_cost_is_money_or_none() -> None:
    """By the price of the model that answered; unknown models have no price, never 0."""
    usage = UsageMetadataCallbackHandler()
    script = [Answer("a", usage=Usage(1_000_000, 1_000_000))] * 3
    with EmbeddedProvider(script=script) as provider:
        model(provider).batch(["a", "b"], {"callbacks": [usage]})
        other = init_chat_model(
            "gpt-none", base_url=f"{provider.url}/v1", api_key="k", model_provider="openai"
        )
        other.invoke("c", {"callbacks": [usage]})
    assert usage.cost[NAME] == pytest.approx(2 * (2.0 + 8.0))
    (unknown,) = (cost for name, cost in usage.cost.items() if name != NAME)
    assert unknown is None


@pytest.mark.anyio
async def test_usage_of_a_stream_that_was_left_counts() -> None:
    """What the provider had reported until then, it bills."""
    usage = UsageMetadataCallbackHandler()
    async with EmbeddedProvider(script=["one two three"], chunk_delay=0.05) as provider:
        stream = claude(provider).astream("hi", {"callbacks": [usage]})
        while not (await anext(stream)).text:
            pass
        await stream.aclose()
    (counted,) = usage.usage_metadata.values()
    assert counted["input_tokens"] > 0


def test_the_context_manager_hears_every_run_inside(embedded: EmbeddedProvider) -> None:
    """Models, nested runs and batches; nothing before or after."""

    @runnable
    async def app(text: str) -> Any:
        return await model(embedded).ainvoke(text)

    with get_usage_metadata_callback() as usage:
        assert usage.usage_metadata == {}
        one = app.invoke("hi")
        model(embedded).batch(["hi", "hi"])
        list(model(embedded).stream("hi"))
    model(embedded).invoke("hi")
    assert usage.usage_metadata[NAME]["total_tokens"] == 4 * one.usage_metadata["total_tokens"]


@pytest.mark.anyio
async def test_the_context_manager_in_tasks_and_threads(embedded: EmbeddedProvider) -> None:
    """Tasks started inside, worker threads, and threads that were given the context; another
    task at the same time hears its own only."""
    tokens: list[int] = []

    async def alone() -> None:
        with get_usage_metadata_callback() as usage:
            answer = await model(embedded).ainvoke("something else entirely")
        tokens.append(usage.usage_metadata[NAME]["total_tokens"])
        assert tokens[-1] == answer.usage_metadata["total_tokens"]

    with get_usage_metadata_callback() as usage:
        answer = await model(embedded).ainvoke("hi")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(model(embedded).ainvoke, "hi")
        await anyio.to_thread.run_sync(model(embedded).invoke, "hi")
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(model(embedded).invoke, "hi"))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    async with anyio.create_task_group() as group:
        group.start_soon(alone)
        group.start_soon(alone)
    assert usage.usage_metadata[NAME]["total_tokens"] == 6 * answer.usage_metadata["total_tokens"]
    assert len(tokens) == 2


def test_nested_context_managers_both_hear(embedded: EmbeddedProvider) -> None:
    """The outer one hears what the inner one hears; a handler given twice hears once."""
    with get_usage_metadata_callback() as outer:
        with get_usage_metadata_callback() as inner:
            model(embedded).invoke("hi", {"callbacks": [inner]})
        model(embedded).invoke("hi")
    one = inner.usage_metadata[NAME]["total_tokens"]
    assert outer.usage_metadata[NAME]["total_tokens"] == 2 * one


def test_nothing_is_left_behind() -> None:
    """After a hundred entries, errors included, no handler is kept."""
    left = []

    def enter() -> None:
        with get_usage_metadata_callback() as usage:
            left.append(weakref.ref(usage))
            raise KeyError

    for _ in range(100):
        with pytest.raises(KeyError):
            enter()
    gc.collect()
    assert callbacks.handlers_of(None) == ()
    assert [ref() for ref in left if ref() is not None] == []


def test_the_console_shows_a_tree(embedded: EmbeddedProvider) -> None:
    """One line at the beginning and one at the end of each run, indented by depth."""
    lines: list[str] = []

    @runnable
    def app(text: str) -> Any:
        return model(embedded).invoke(text)

    console = ConsoleCallbackHandler(lines.append)
    app.invoke("hi", {"callbacks": [console]})
    assert [line.split(":")[0].split("(")[0].strip() for line in lines] == [
        "▶ run app",
        "▶ model ChatOpenAI",
        "✓ ChatOpenAI",
        "✓ app",
    ]
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 2, 0]
