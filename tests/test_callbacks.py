"""Handlers: who is told what, in which order, and what their errors do."""

from __future__ import annotations

import contextvars
import dataclasses
import gc
import io
import json
import logging
import re
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import anyio
import httpx
import pytest

from streamfold import Tool, callbacks, init_chat_model, runnable, tool
from streamfold.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    ConsoleCallbackHandler,
    UsageMetadataCallbackHandler,
    adispatch_custom_event,
    dispatch_custom_event,
    get_usage_metadata_callback,
)
from streamfold.errors import ConfigurationError, ServerError, StreamfoldError
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


@pytest.mark.parametrize("bad", ["log", 5, object(), [object()], {"on_llm_end": print}, iter(())])
def test_what_has_no_method_of_a_handler_is_refused(embedded: EmbeddedProvider, bad: Any) -> None:
    """Instead of never being called; where it is given, and before anything is sent."""
    before = len(embedded.requests)
    asked = model(embedded)
    for give in (
        lambda: asked.invoke("hi", {"callbacks": bad}),
        lambda: asked.with_config(callbacks=bad),
        lambda: model(embedded, callbacks=bad),
        lambda: asked.with_fallbacks([asked]).batch(["hi"], {"callbacks": bad}),
    ):
        with pytest.raises(ConfigurationError, match="handler"):
            give()
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


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:Async generator")  # trio's word on every loop that is left
async def test_a_closed_stream_is_over_though_its_loop_was_left() -> None:
    """`aclose` waits for what leaving the loop has begun."""
    log = Log()
    async with EmbeddedProvider(script=["one two three"], chunk_delay=0.05) as provider:
        async with aclosing(model(provider).astream("hi", {"callbacks": [log]})) as stream:
            async for _ in stream:
                break
        assert log.names[-1] == "on_llm_cancel"
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


@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
def test_the_callers_own_prices_count(way: str) -> None:
    """Those of a `profile=`, before the ones that come with the package."""
    usage = UsageMetadataCallbackHandler()
    summaries: list[Any] = []
    script = [Answer("a", usage=Usage(1_000_000, 1_000_000))]
    with EmbeddedProvider(script=script) as provider:
        own = model(provider).model_copy(update={"profile": {"input_price": 1, "output_price": 4}})
        if way == "batch":
            own.batch(["a"], {"callbacks": [usage]}, progress=summaries.append)
            assert summaries[-1].cost == pytest.approx(5.0)
        else:
            answer = getattr(own, way)("a", {"callbacks": [usage]})
            assert way == "invoke" or list(answer)
    assert usage.cost == {NAME: pytest.approx(5.0)}


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


@pytest.mark.anyio
async def test_usage_of_a_stream_that_broke_counts() -> None:
    """As far as the provider had reported it: Anthropic names the prompt's tokens at the start."""
    usage = UsageMetadataCallbackHandler()
    script = [Answer("one two three", usage=Usage(30, 3), error="overloaded")]
    async with EmbeddedProvider(script=script) as provider:
        with pytest.raises(StreamfoldError):
            async for _ in claude(provider).astream("hi", {"callbacks": [usage]}):
                pass
    ((name, counted),) = usage.usage_metadata.items()
    assert name.startswith("claude-sonnet-4-5")
    assert counted["input_tokens"] == 30
    assert repr(usage) == f"UsageMetadataCallbackHandler({usage.usage_metadata!r})"


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


@pytest.mark.anyio
async def test_the_context_manager_may_be_left_elsewhere(embedded: EmbeddedProvider) -> None:
    """In another task than it was entered in, as generators of fixtures and services are."""

    async def service() -> AsyncIterator[UsageMetadataCallbackHandler]:
        with get_usage_metadata_callback() as usage:
            yield usage

    generator = service()
    heard: list[UsageMetadataCallbackHandler] = []

    async def enter() -> None:
        heard.append(await anext(generator))
        await model(embedded).ainvoke("hi")

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
    assert await anext(generator, None) is None
    assert NAME in heard[0].usage_metadata
    assert callbacks.handlers_of(None) == ()


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


# ---- every handler hears every start and one end -------------------------------------------------


class Strict(BaseCallbackHandler):
    """Raises where it is told to, and means it."""

    raise_error = True

    def __init__(self, *methods: str) -> None:
        for method in methods:
            setattr(self, method, self._refuse)

    def _refuse(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("not allowed")


async def read(called: Any, config: Any) -> None:
    if isinstance(called, Tool):
        await called.ainvoke({"text": "hi"}, config)
    else:
        async for _ in called.astream("hi", config):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize("strict_first", [True, False])
@pytest.mark.parametrize("kind", ["model", "function", "tool"])
@pytest.mark.parametrize("when", ["start", "token", "end", "error"])
async def test_a_strict_handler_leaves_no_other_without_an_end(
    embedded: EmbeddedProvider, strict_first: bool, kind: str, when: str
) -> None:
    """Whichever of them comes first, and wherever it raises."""

    @runnable
    async def function(text: str) -> str:
        if when == "error":
            raise KeyError(text)
        return text

    @tool
    async def look(text: str) -> str:
        """Look."""
        if when == "error":
            raise KeyError(text)
        return text

    failing = EmbeddedProvider(script=[Answer(error=400)] * 2)
    async with failing:
        asked = model(failing if when == "error" else embedded)
        called: Any = {"model": asked, "function": function, "tool": look}[kind]
        words = {
            "model": ("on_chat_model_start", "on_llm"),
            "function": ("on_chain_start", "on_chain"),
        }
        begun, stem = words.get(kind, ("on_tool_start", "on_tool"))
        tokens = {"model": "on_llm_new_token", "function": "on_chain_stream"}.get(kind, begun)
        bad = {"start": begun, "token": tokens, "end": f"{stem}_end", "error": f"{stem}_error"}[
            when
        ]
        log, strict = Log(), Strict(bad)
        handlers = [strict, log] if strict_first else [log, strict]
        with pytest.raises((RuntimeError, KeyError, StreamfoldError)) as caught:
            await read(called, {"callbacks": handlers})
    # What failed first is what is raised, and the handler's own error is logged.
    assert (caught.type is RuntimeError) is (when != "error")
    heard = [name for name, _, _ in log.heard]
    assert heard[0] == begun
    ends = [name for name in heard if name in (f"{stem}_end", f"{stem}_error", f"{stem}_cancel")]
    assert ends == [f"{stem}_end" if when == "end" else f"{stem}_error"]
    assert heard[-1] == ends[0]


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["on_chain_start", "on_chain_stream", "on_chain_end"])
async def test_a_run_cancelled_inside_a_handler_ends_for_all(method: str) -> None:
    """A handler that waits for ever: those after it hear the same, and then one end."""
    log = Log()

    class Hangs(AsyncCallbackHandler):
        pass

    async def hang(*args: Any, **kwargs: Any) -> None:
        await anyio.sleep_forever()

    hangs = Hangs()
    setattr(hangs, method, hang)

    @runnable
    async def function(text: str) -> str:
        return text

    with anyio.move_on_after(0.05) as scope:
        await function.ainvoke("hi", {"callbacks": [hangs, log]})
    assert scope.cancelled_caught
    heard = [name for name, _, _ in log.heard]
    assert method in heard
    ends = [name for name in heard if name in ("on_chain_end", "on_chain_cancel", "on_chain_error")]
    assert ends == ["on_chain_end" if method == "on_chain_end" else "on_chain_cancel"]


# ---- who is a handler ----------------------------------------------------------------------------


def test_a_class_is_no_handler(embedded: EmbeddedProvider) -> None:
    """Somebody forgot to make one of it."""
    before = len(embedded.requests)
    with pytest.raises(ConfigurationError, match=r"is a class: expected a handler, Log\(\)"):
        model(embedded).invoke("hi", {"callbacks": [Log]})
    assert len(embedded.requests) == before


def test_handlers_are_told_apart_by_identity(embedded: EmbeddedProvider) -> None:
    """Two that compare equal are two; one that is given twice hears once."""

    @dataclasses.dataclass(eq=True)
    class Counts:
        heard: int = 0

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.heard += 1

    one, two = Counts(), Counts()
    asked = model(embedded, callbacks=[one, one]).with_config(callbacks=[two])
    asked.invoke("hi", {"callbacks": [one]})
    assert (one.heard, two.heard) == (1, 1)


def test_a_handler_of_texts_hears_the_start_as_text(embedded: EmbeddedProvider) -> None:
    """`on_llm_start` instead of `on_chat_model_start`, for who has only that."""
    prompts: list[Any] = []

    class Texts(BaseCallbackHandler):
        def on_llm_start(self, serialized: Any, texts: list[str], **kwargs: Any) -> None:
            prompts.append(texts)

    model(embedded).invoke([("system", "be nice"), ("user", "hi")], {"callbacks": [Texts()]})
    assert prompts == [["System: be nice\nHuman: hi"]]


def test_handlers_say_what_they_do_not_want(embedded: EmbeddedProvider) -> None:
    """By the flags that LangChain's handlers have."""

    @tool
    def look(city: str) -> str:
        """Look."""
        return str(model(embedded).invoke(city).text)

    @runnable
    def app(text: str) -> Any:
        return look.invoke({"city": text})

    for flag, stem in (
        ("ignore_llm", "on_llm"),
        ("ignore_chat_model", "on_chat"),
        ("ignore_chain", "on_chain"),
        ("ignore_agent", "on_tool"),
    ):
        log, deaf = Log(), Log()
        setattr(deaf, flag, True)
        app.invoke("hi", {"callbacks": [log, deaf]})
        left_out = [name for name, _, _ in log.heard if name.startswith(stem)]
        assert left_out
        assert [n for n, _, _ in deaf.heard] == [n for n, _, _ in log.heard if n not in left_out]


# ---- custom events -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_custom_events_go_to_the_handlers_of_the_run() -> None:
    """Sync and async, with the place of the run that sends them."""
    log = Log()

    @runnable
    async def waits(text: str) -> None:
        await adispatch_custom_event("a", {"n": 1})

    @runnable
    def plain(text: str) -> None:
        dispatch_custom_event("b", 2)

    for app in (waits, plain):
        await app.ainvoke("hi", {"callbacks": [log], "tags": ["t"]})
    sent = [heard for heard in log.heard if heard[0] == "on_custom_event"]
    assert [args for _, args, _ in sent] == [("a", {"n": 1}), ("b", 2)]
    starts = [kw["run_id"] for name, _, kw in log.heard if name == "on_chain_start"]
    assert [kw["run_id"] for _, _, kw in sent] == starts
    assert all(kw["tags"] == ["t"] for _, _, kw in sent)


@pytest.mark.anyio
async def test_a_custom_event_outside_of_a_run_is_an_error() -> None:
    """It would be lost."""
    with pytest.raises(ConfigurationError, match="outside of a run"):
        await adispatch_custom_event("a", 1)


# ---- the console and the log ---------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_console_shows_every_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Errors, cancels, retries and custom events, on standard error, without colour where that is
    no terminal; nothing of a run is kept."""
    console = ConsoleCallbackHandler()

    @runnable
    async def app(text: str) -> Any:
        await adispatch_custom_event("note", {"n": 1})
        with anyio.move_on_after(0.02):
            await waits.ainvoke("x")
        return (await asked.ainvoke(text)).text

    @runnable
    async def waits(text: str) -> None:
        await anyio.sleep_forever()

    script = [Answer(error=500), Answer("Line\none\x1b[2J" + "word " * 100, usage=Usage(3, 5))]
    async with EmbeddedProvider(script=script) as provider:
        asked = model(provider).with_retry(wait_exponential_jitter=False)
        await app.ainvoke("hi", {"callbacks": [console]})
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert "\x1b" not in err
    assert [line.replace("(", ":").split(":")[0].rstrip() for line in lines] == [
        "▶ run app",
        "  • note",
        "  ▶ run waits",
        "  ■ waits",
        "  ▶ model ChatOpenAI",
        "  ✗ ChatOpenAI",
        "  ↻ ChatOpenAI again in 0.00 s",
        "  ▶ model ChatOpenAI",
        "  ✓ ChatOpenAI",
        "✓ app",
    ]
    assert "3 → 5 tokens" in lines[-2]
    assert all(len(line) <= 100 for line in lines)
    assert console._started == {}


@pytest.mark.anyio
async def test_the_console_shows_tools_and_what_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    """Each end of a tool, a run that fails, and a model's stream that is left."""
    console = ConsoleCallbackHandler()

    @tool
    async def works(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    @tool
    async def breaks(city: str) -> str:
        """Know no city."""
        raise OSError("no such city")

    @tool
    async def hangs(city: str) -> str:
        """Never answer."""
        await anyio.sleep_forever()
        raise AssertionError

    @runnable
    async def app(text: str) -> None:
        await works.ainvoke({"city": text})
        with anyio.move_on_after(0.02):
            await hangs.ainvoke({"city": text})
        async with model(provider).astream(text) as stream:
            await anext(aiter(stream))
        await breaks.ainvoke({"city": text})

    async with EmbeddedProvider(script=["one two three"], chunk_delay=0.05) as provider:
        with pytest.raises(OSError, match="no such city"):
            await app.ainvoke("Rome", {"callbacks": [console]})
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r" \(\d+\.\d\d s\)", "", line) for line in lines] == [
        "▶ run app: Rome",
        '  ▶ tool works: {"city":"Rome"}',
        "  ✓ works: sunny in Rome",
        '  ▶ tool hangs: {"city":"Rome"}',
        "  ■ hangs: cancelled",
        "  ▶ model ChatOpenAI: Rome",
        "  ■ ChatOpenAI: cancelled",
        '  ▶ tool breaks: {"city":"Rome"}',
        "  ✗ breaks: OSError: no such city",
        "✗ app: OSError: no such city",
    ]
    assert console._started == {}


def test_the_console_keeps_to_its_width(embedded: EmbeddedProvider) -> None:
    """Wide letters count as two columns."""
    for text, columns in (("x" * 90, 1), ("漢" * 90, 2)):
        lines: list[str] = []
        console = ConsoleCallbackHandler(lines.append, width=40)
        model(embedded).invoke(text, {"callbacks": [console]})
        head = "▶ model ChatOpenAI: "
        assert lines[0] == head + text[: (40 - 1 - len(head)) // columns] + "…"


def test_the_console_has_colour_on_a_terminal(
    embedded: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless `NO_COLOR` is set."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    for no_color, coloured in (("", True), ("1", False)):
        screen = Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        monkeypatch.setenv("NO_COLOR", no_color)
        model(embedded).invoke("hi", {"callbacks": [ConsoleCallbackHandler()]})
        first = screen.getvalue().splitlines()[0]
        assert first == ("\x1b[36m▶\x1b[0m" if coloured else "▶") + " model ChatOpenAI: hi"


KEY = "sk-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.anyio
async def test_requests_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Status, seconds and retries at INFO, requests and ends at DEBUG; no key, prompt or answer."""
    script = [Answer(error=500), "The answer.", Answer(f"echo {KEY}", error="server"), "one two"]
    with caplog.at_level(logging.DEBUG, "streamfold"):
        async with EmbeddedProvider(script=script, chunk_delay=0.01) as provider:
            asked = init_chat_model(
                "gpt-4.1", base_url=f"{provider.url}/v1", api_key=KEY, max_retries=1
            )
            await asked.ainvoke("the prompt")
            with pytest.raises(StreamfoldError):
                [chunk async for chunk in asked.astream("the prompt")]
            async with asked.astream("the prompt") as stream:
                await anext(stream)
    said = [
        (r.levelname, re.sub(r"[0-9.]+ s|(?<=request )\S+|127[^,]+", "-", r.getMessage()))
        for r in caplog.records
        if r.name == "streamfold"
    ]
    texts = [f"{level} {text.partition(', ')[0]}" for level, text in said]
    assert texts == [
        "DEBUG openai gpt-4.1: POST -",
        "INFO openai gpt-4.1: status 500 after -",
        texts[2],
        texts[3],
        "DEBUG openai gpt-4.1: POST -",
        "INFO openai gpt-4.1: status 200 after -",
        "DEBUG openai gpt-4.1: answer complete after -",
        "DEBUG openai gpt-4.1: POST -",
        "INFO openai gpt-4.1: status 200 after -",
        texts[9],
        "DEBUG openai gpt-4.1: POST -",
        "INFO openai gpt-4.1: status 200 after -",
        "DEBUG openai gpt-4.1: answer left after -",
    ]
    assert texts[2].startswith("INFO openai gpt-4.1: ServerError after -")
    assert texts[3].startswith("INFO openai: attempt 1 failed (ServerError)")
    assert texts[9].startswith("INFO openai gpt-4.1: ServerError after -")
    for secret in (KEY, "the prompt", "The answer", "one two"):
        assert secret not in caplog.text


# ---- what it costs when nobody listens -----------------------------------------------------------


def answer_of(chunks: int) -> httpx.MockTransport:
    """A server that sends an answer of so many chunks in one piece."""

    def event(delta: Any, finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1"}
        payload = json.dumps({**head, "choices": [choice]}, separators=(",", ":"))
        return f"data: {payload}\n\n"

    start, end = event({"role": "assistant", "content": ""}), event({}, "stop")
    body = f"{start}{event({'content': 'word '}) * chunks}{end}data: [DONE]\n\n"
    headers = {"content-type": "text/event-stream"}
    return httpx.MockTransport(lambda request: httpx.Response(200, headers=headers, text=body))


async def calls_of(chunks: int, config: Any = None, *, how: str = "astream") -> int:
    """How many functions are called, Python's and C's, while an answer is streamed."""
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    async def read(text: str) -> None:
        pipe = asked._stream(text)() if how == "pipe" else asked.astream(text, config)
        sys.setprofile(profile)
        try:
            async for _ in pipe:
                pass
        finally:
            sys.setprofile(None)

    async with httpx.AsyncClient(transport=answer_of(chunks)) as client:
        asked = init_chat_model("gpt-4.1", api_key="k", http_client=client, max_retries=0)
        await asked.ainvoke("hi", stream=True)  # what is learnt once
        await (runnable(read).ainvoke("hi") if how == "inside" else read("hi"))
    return count


async def per_chunk(**how: Any) -> float:
    few, many = 100, 500
    return (await calls_of(many, **how) - await calls_of(few, **how)) / (many - few)


@pytest.mark.anyio
async def test_a_chunk_costs_no_call_more_where_nobody_listens() -> None:
    """`astream` is the pipe and one step of a generator for each chunk: at first, after handlers
    have been used, and inside a runnable. Who hears tokens pays for them, and nobody else."""
    # A list that grows asks for memory now and then; nothing else may be different.
    bare = pytest.approx(await per_chunk(how="pipe") + 1, abs=0.05)
    assert await per_chunk() == bare
    with get_usage_metadata_callback():
        usage = await per_chunk()
    log = Log()
    tokens = await per_chunk(config={"callbacks": [log]})
    assert len([name for name, _, _ in log.heard if name == "on_llm_new_token"]) > 600
    assert usage < tokens
    assert await per_chunk() == bare
    assert await per_chunk(how="inside") == bare
