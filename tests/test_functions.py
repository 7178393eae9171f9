"""`@runnable`: functions as runnables, configuration that is inherited, and auto-streaming."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.callbacks import BaseCallbackHandler
from streamfold.config import RunnableConfig
from streamfold.errors import ConfigurationError, RecursionLimitError
from streamfold.messages import AIMessage
from streamfold.runs import current_run
from streamfold.testing import EmbeddedProvider, LoopbackServer, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def model(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model("gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", **kwargs)


class Starts(BaseCallbackHandler):
    """The keywords of every start."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append(kwargs)

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append(kwargs)

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append(kwargs)


async def collected(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


# ---- kinds of functions --------------------------------------------------------------------------


async def test_functions_of_every_kind() -> None:
    """Sync, async and generators of both kinds: invoke gives the result, stream the items."""

    @runnable
    def plain(x: int) -> int:
        return x + 1

    @runnable(name="second")
    async def waits(x: int) -> int:
        return x + 1

    @runnable
    def steps(x: int) -> Iterator[int]:
        yield x
        yield 1

    @runnable
    async def asteps(x: int) -> AsyncIterator[int]:
        yield x
        yield 1

    for function in (plain, waits, steps, asteps):
        assert await function.ainvoke(1) == 2
    assert await collected(plain.astream(1)) == [2]
    assert await collected(steps.astream(1)) == [1, 1]
    assert await collected(asteps.astream(1)) == [1, 1]
    assert waits.name == "second"
    assert plain(1) == 2
    assert await plain.abatch([1, 2]) == [2, 3]


def test_the_sync_methods_do_the_same() -> None:
    """From a script, and inside another runnable."""

    @runnable
    async def inner(x: int) -> int:
        return x * 2

    @runnable
    def outer(x: int) -> int:
        return int(inner.invoke(x)) + 1

    assert outer.invoke(2) == 5
    assert list(outer.stream(2)) == [5]
    assert outer.batch([1, 2]) == [3, 5]


async def test_items_that_cannot_be_added_are_a_list() -> None:
    """Dicts, for one; no items are None."""

    @runnable
    async def dicts(x: int) -> AsyncIterator[dict[str, int]]:
        for n in range(x):
            yield {"n": n}

    assert await dicts.ainvoke(2) == [{"n": 0}, {"n": 1}]
    assert await dicts.ainvoke(1) == {"n": 0}
    assert await dicts.ainvoke(0) is None


async def test_sync_functions_do_not_block_the_loop() -> None:
    """They run in a thread."""

    @runnable
    def where(x: int) -> int:
        return threading.get_ident()

    assert await where.ainvoke(1) != threading.get_ident()


async def test_what_is_no_function_is_refused() -> None:
    """Said when it is decorated."""
    with pytest.raises(ConfigurationError, match="expected a function"):
        runnable(5)  # type: ignore[call-overload]


async def test_a_stream_that_is_left_closes_the_generator() -> None:
    """Its `finally` runs, at once."""
    closed = []

    @runnable
    async def steps(x: int) -> AsyncIterator[int]:
        try:
            while True:
                yield x
        finally:
            closed.append(x)

    async with steps.astream(1) as stream:
        assert await anext(stream) == 1
    assert closed == [1]


# ---- inheritance ---------------------------------------------------------------------------------


async def test_what_nested_runs_inherit(embedded: EmbeddedProvider) -> None:
    """Tags, metadata, callbacks and `configurable`; neither the name nor the id."""
    starts = Starts()
    seen: list[Any] = []

    @runnable
    async def inner(text: str, config: RunnableConfig) -> Any:
        seen.append(dict(config))
        return await model(embedded, tags=["own"]).ainvoke(text, {"metadata": {"b": 2}})

    @runnable
    async def app(text: str) -> Any:
        return await inner.ainvoke(text)

    id = uuid4()
    config = {
        "run_name": "root",
        "run_id": id,
        "tags": ["t"],
        "metadata": {"a": 1},
        "callbacks": [starts],
        "configurable": {"user": "u"},
    }
    await app.ainvoke("hi", config)
    root, nested, asked = starts.heard
    assert [run["name"] for run in starts.heard] == ["root", "inner", "ChatOpenAI"]
    assert root["run_id"] == id
    assert nested["parent_run_id"] == id
    assert asked["parent_run_id"] == nested["run_id"]
    assert len({run["run_id"] for run in starts.heard}) == 3
    assert nested["tags"] == ["t"]
    assert asked["tags"] == ["t", "own"]
    assert asked["metadata"] | {"a": 1, "b": 2} == asked["metadata"]
    assert seen[0]["configurable"] == {"user": "u"}


async def test_passing_the_config_on_changes_nothing(embedded: EmbeddedProvider) -> None:
    """No handler hears twice, no tag is doubled, the id and the name stay with their run."""
    starts = Starts()

    @runnable
    async def app(text: str, config: RunnableConfig) -> Any:
        return await model(embedded).ainvoke(text, config)

    config = {"run_name": "root", "run_id": uuid4(), "tags": ["t"], "callbacks": [starts]}
    await app.ainvoke("hi", config)
    assert [run["name"] for run in starts.heard] == ["root", "ChatOpenAI"]
    assert starts.heard[1]["tags"] == ["t"]
    assert starts.heard[1]["run_id"] != starts.heard[0]["run_id"]


async def test_a_batch_with_a_run_id_gives_it_to_one_run(embedded: EmbeddedProvider) -> None:
    """An id is one run's; the others have their own."""
    starts = Starts()
    id = UUID(int=7)
    await model(embedded).abatch(["a", "b", "c"], {"run_id": id, "callbacks": [starts]})
    ids = [run["run_id"] for run in starts.heard]
    assert len(set(ids)) == 3
    assert id in ids


async def test_siblings_do_not_see_each_other(embedded: EmbeddedProvider) -> None:
    """Runs side by side have the same parent."""
    starts = Starts()

    @runnable
    async def app(text: str) -> None:
        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(model(embedded).ainvoke, f"{text} {n}")

    await app.ainvoke("hi", {"callbacks": starts})
    assert {run["parent_run_id"] for run in starts.heard[1:]} == {starts.heard[0]["run_id"]}


async def test_the_context_is_clean_afterwards(embedded: EmbeddedProvider) -> None:
    """Also after an error, and between the items of a generator."""

    @runnable
    async def fails(x: int) -> None:
        raise KeyError(x)

    @runnable
    async def steps(x: int) -> AsyncIterator[Any]:
        yield current_run()
        yield current_run()

    with pytest.raises(KeyError):
        await fails.ainvoke(1)
    async for run in steps.astream(1):
        assert run.name == "steps"
        assert current_run() is None
    assert current_run() is None


async def test_sync_functions_call_models_inside(embedded: EmbeddedProvider) -> None:
    """`model.invoke` in the thread of a sync runnable is a nested run."""
    starts = Starts()

    @tool
    def ask(text: str) -> str:
        """Ask."""
        return str(model(embedded).invoke(text).text)

    @runnable
    def app(text: str) -> Any:
        return ask.invoke({"text": text})

    assert await app.ainvoke("hi", {"callbacks": [starts]})
    assert [run["name"] for run in starts.heard] == ["app", "ask", "ChatOpenAI"]
    ids = [run["run_id"] for run in starts.heard]
    assert [run["parent_run_id"] for run in starts.heard] == [None, *ids[:2]]


@pytest.mark.parametrize("limit", [None, 3])
async def test_recursion_is_limited(limit: int | None) -> None:
    """To 25 by default; the error says how to raise it."""
    depth = 0

    @runnable
    async def again(x: int) -> Any:
        nonlocal depth
        depth += 1
        return await again.ainvoke(x)

    with pytest.raises(RecursionLimitError, match="recursion_limit"):
        await again.ainvoke(1, {"recursion_limit": limit} if limit else None)
    assert depth == (limit or 25)


@pytest.mark.parametrize(
    "config",
    [
        {"recursion_limit": 0},
        {"max_concurrency": 0},
        {"max_concurrency": True},
        {"tag": ["a"]},
        "tags",
    ],
)
async def test_configurations_are_checked(embedded: EmbeddedProvider, config: Any) -> None:
    """Unknown keys and impossible values are said before anything is sent."""
    before = len(embedded.requests)
    with pytest.raises(ConfigurationError):
        await model(embedded).ainvoke("hi", config)
    assert len(embedded.requests) == before


async def test_with_config_is_joined_with_the_config_of_the_call(
    embedded: EmbeddedProvider,
) -> None:
    """Tags are joined, metadata merged by key, the call's last; the model stays as it was."""
    starts = Starts()
    plain = model(embedded)
    changed = plain.with_config(
        tags=["a", "b"], metadata={"k": 1, "l": 1}, run_name="named", callbacks=[starts]
    )
    await changed.ainvoke("hi", {"tags": ["b", "c"], "metadata": {"k": 2}})
    await changed.ainvoke("hi", {"callbacks": [starts], "run_name": "call"})
    await plain.ainvoke("hi")
    first, second = starts.heard
    assert first["tags"] == ["a", "b", "c"]
    assert (first["metadata"]["k"], first["metadata"]["l"]) == (2, 1)
    assert (first["name"], second["name"]) == ("named", "call")


async def test_tools_have_a_configuration_too() -> None:
    """`with_config` makes another tool; the first stays as it was."""
    starts = Starts()

    @tool
    async def double(number: int) -> int:
        """Twice the number."""
        return 2 * number

    changed = double.with_config(tags=["a"], run_name="named", callbacks=[starts])
    assert await changed.ainvoke({"number": 2}, {"tags": ["b"]}) == 4
    assert await double.ainvoke({"number": 3}) == 6
    (started,) = starts.heard
    assert (started["name"], started["tags"]) == ("named", ["a", "b"])


# ---- auto-streaming ------------------------------------------------------------------------------


def streamed(provider: EmbeddedProvider) -> bool:
    return bool(provider.requests[-1].json().get("stream"))


async def test_models_inside_a_streamed_app_stream(embedded: EmbeddedProvider) -> None:
    """`ainvoke` inside `astream_events` streams under the hood and still returns one message."""
    kinds = []

    @runnable
    async def app(text: str) -> Any:
        answer = await model(embedded).ainvoke(text)
        kinds.append(type(answer).__name__)
        return answer.text

    plain = await app.ainvoke("hi")
    assert not streamed(embedded)
    events = await collected(app.astream_events("hi"))
    assert streamed(embedded)
    assert kinds == ["AIMessage", "AIMessage"]
    tokens = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == plain
    assert len(tokens) > 3


@pytest.mark.parametrize(
    ("params", "tools", "expected"),
    [
        ({}, False, True),
        ({"disable_streaming": True}, False, False),
        ({"disable_streaming": "tool_calling"}, False, True),
        ({"disable_streaming": "tool_calling"}, True, False),
        ({"streaming": False}, False, False),
    ],
)
async def test_streaming_flags_go_before_auto_streaming(
    embedded: EmbeddedProvider, params: Any, tools: bool, expected: bool
) -> None:
    """What the model was told wins."""
    asked = model(embedded, **params)
    if tools:
        asked = asked.bind_tools([{"name": "f", "description": "d", "parameters": {}}])

    @runnable
    async def app(text: str) -> Any:
        return (await asked.ainvoke(text)).id

    await collected(app.astream_events("hi"))
    assert streamed(embedded) is expected


async def test_streaming_true_streams_without_an_audience(embedded: EmbeddedProvider) -> None:
    """And `disable_streaming` keeps `astream` from it: the answer comes as a whole."""
    await model(embedded, streaming=True).ainvoke("hi")
    assert streamed(embedded)
    for disabled in (True, "tool_calling"):
        asked = model(embedded, disable_streaming=disabled).bind_tools(
            [{"name": "f", "description": "d", "parameters": {}}]
        )
        chunks = await collected(asked.astream("hi"))
        assert not streamed(embedded)
        assert sum(chunks[1:], chunks[0]).tool_calls


async def test_an_explicit_stream_obeys_the_flags(embedded: EmbeddedProvider) -> None:
    """`streaming=False` and `disable_streaming` hold for `astream`, too, which then gives the
    answer as a whole; what a call says wins over what the model was made with."""
    for params in ({"streaming": False}, {"disable_streaming": True}):
        chunks = await collected(model(embedded, **params).astream("hi"))
        assert not streamed(embedded)
        whole = sum(chunks[1:], chunks[0]).to_message()
        assert whole == await model(embedded).ainvoke("hi")
    for made, called in ((None, True), (False, True), (None, False), (True, False)):
        asked = model(embedded) if made is None else model(embedded, streaming=made)
        await asked.ainvoke("hi", stream=called)
        assert streamed(embedded) is called
    await collected(model(embedded).bind(stream=False).astream("hi"))
    assert not streamed(embedded)


@pytest.mark.parametrize("bad", ["tools", 1, "true"])
async def test_what_disables_streaming_is_checked(embedded: EmbeddedProvider, bad: Any) -> None:
    """When the model is made."""
    with pytest.raises(ConfigurationError, match="disable_streaming"):
        model(embedded, disable_streaming=bad)


async def test_a_streamed_app_streams_its_models_for_who_hears_tokens(
    embedded: EmbeddedProvider,
) -> None:
    """`astream` of the app, and a handler with `on_llm_new_token`: the inner `ainvoke` streams, at
    any depth and through sync calls. Where nobody hears tokens, it does not."""
    tokens: list[str] = []

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            tokens.append(token)

    @runnable
    def inner(text: str) -> Any:
        return model(embedded).invoke(text).text

    @runnable
    async def app(text: str) -> AsyncIterator[Any]:
        yield await inner.ainvoke(text)

    (said,) = await collected(app.astream("hi", {"callbacks": [Tokens()]}))
    assert streamed(embedded)
    assert "".join(tokens) == said
    assert len(tokens) > 3
    tokens.clear()
    await app.ainvoke("hi", {"callbacks": [Tokens()]})
    assert not streamed(embedded)
    assert tokens == []
    await collected(app.astream("hi", {"callbacks": [Starts()]}))
    assert not streamed(embedded)


# ---- more kinds of functions ---------------------------------------------------------------------


class Counter:
    """Methods and objects that can be called."""

    def __init__(self) -> None:
        self.step = 2

    @runnable
    def plain(self, x: int) -> int:
        return x + self.step

    @runnable(name="other")
    async def waits(self, x: int) -> int:
        return x + self.step


async def test_methods_and_objects_that_can_be_called() -> None:
    """A decorated method is bound to its object; an object is as its `__call__` is."""
    counter = Counter()
    assert await counter.plain.ainvoke(1) == 3
    assert counter.plain(1) == 3
    assert await counter.waits.ainvoke(1) == 3
    assert counter.waits.name == "other"
    counter.step = 3
    assert await counter.plain.ainvoke(1) == 4

    class Waits:
        async def __call__(self, x: int) -> int:
            return x + threading.get_ident()

    class Steps:
        async def __call__(self, x: int) -> AsyncIterator[int]:
            yield x
            yield x

    async def add(y: int, x: int) -> int:
        return x + y

    assert await runnable(Waits()).ainvoke(0) == threading.get_ident()
    assert await collected(runnable(Steps()).astream(1)) == [1, 1]
    assert await runnable(functools.partial(add, 2), name="add").ainvoke(1) == 3


async def test_a_generator_of_chunks_adds_up_to_a_message(embedded: EmbeddedProvider) -> None:
    """As a model's own `ainvoke` does."""

    @runnable
    async def app(text: str) -> AsyncIterator[Any]:
        async for chunk in model(embedded).astream(text):
            yield chunk

    answer = await app.ainvoke("hi")
    assert type(answer) is AIMessage
    assert answer == await model(embedded).ainvoke("hi")
    assert (await app.astream_message("hi").message()) == answer


async def test_a_stream_of_something_else_is_no_message() -> None:
    """Said by the first reader."""

    @runnable
    async def app(text: str) -> AsyncIterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match="streams int"):
        await app.astream_message("hi").message()


async def test_a_sync_generator_that_is_left_is_closed() -> None:
    """Its `finally` runs, in a thread, before the stream is closed."""
    closed = []

    @runnable
    def steps(x: int) -> Iterator[int]:
        try:
            while True:
                yield x
        finally:
            closed.append(threading.get_ident())

    async with steps.astream(1) as stream:
        assert await anext(stream) == 1
    assert closed
    assert closed[0] != threading.get_ident()


async def test_a_long_stream_is_not_kept_where_nobody_listens() -> None:
    """Its items go when they have been read."""
    kept: list[weakref.ref[Any]] = []

    class Item:
        pass

    @runnable
    async def steps(count: int) -> AsyncIterator[Any]:
        for _ in range(count):
            item = Item()
            kept.append(weakref.ref(item))
            yield item
            del item

    async for _ in steps.astream(100):
        assert sum(ref() is not None for ref in kept) < 4


# ---- threads -------------------------------------------------------------------------------------


async def test_nested_sync_functions_always_get_a_thread() -> None:
    """Many at once, each waiting for the next: none keeps the one it waits for from a thread."""
    wide = 64
    everybody = threading.Barrier(wide)

    @runnable
    def deep(x: int) -> int:
        return x + 1

    @runnable
    def middle(x: int) -> int:
        return int(deep.invoke(x))

    @runnable
    def outer(x: int) -> int:
        everybody.wait(timeout=20)  # all of them have their thread before one goes on
        return int(middle.invoke(x))

    with anyio.fail_after(30):
        assert await outer.abatch(list(range(wide))) == list(range(1, wide + 1))


async def test_a_cancelled_sync_function_takes_its_calls_along() -> None:
    """Its thread cannot be stopped, but the request that it waits for is, and it makes no other."""
    text = "word " * 400
    thread_over = threading.Event()
    said: list[Any] = []

    async with EmbeddedProvider(script=[text, "never"], chunk_delay=0.02) as provider:
        asked = model(provider)

        @runnable
        def app(question: str) -> Any:
            try:
                for _ in range(2):
                    try:
                        asked.invoke(question)
                    except RuntimeError as error:
                        said.append(str(error))
            finally:
                thread_over.set()

        starts = Starts()
        with anyio.move_on_after(10) as scope:
            async for event in app.astream_events("hi", {"callbacks": [starts]}):
                if event["event"] == "on_chat_model_stream":
                    scope.cancel()
        await anyio.to_thread.run_sync(provider.wait_closed)
        await anyio.to_thread.run_sync(thread_over.wait)
        assert len(provider.requests) == 1
    assert said == ["the run that made this call was cancelled"] * 2
    assert [run["name"] for run in starts.heard] == ["app", "ChatOpenAI"]


async def test_a_sync_generator_takes_the_stream_it_waits_for_along() -> None:
    """Which it had begun in an earlier step, and which says nothing more."""
    thread_over = threading.Event()
    starts = Starts()
    said = b'data: {"choices": [{"index": 0, "delta": {"content": "one"}}]}\n\n'
    reply = Reply(headers={"content-type": "text/event-stream"}, body=[said], end="hang")
    async with LoopbackServer(lambda request: reply) as server:
        asked = init_chat_model("gpt-4.1", base_url=server.url, api_key="k")

        @runnable
        def app(question: str) -> Iterator[str]:
            try:
                for chunk in asked.stream(question):
                    yield chunk.text
            finally:
                thread_over.set()

        with anyio.fail_after(10):
            async with app.astream("hi", {"callbacks": [starts]}) as stream:
                assert await anext(stream) == "one"
                with anyio.move_on_after(0.2):
                    await anext(stream)
            await anyio.to_thread.run_sync(server.wait_closed)
            await anyio.to_thread.run_sync(thread_over.wait)
    assert [run["name"] for run in starts.heard] == ["app", "ChatOpenAI"]


async def test_a_config_that_is_passed_on_says_where_runs_belong(
    embedded: EmbeddedProvider,
) -> None:
    """In a thread of the program's own, which has no context of ours."""
    starts = Starts()

    @runnable
    def app(text: str, config: RunnableConfig) -> None:
        asked = model(embedded)
        changed = {**config, "tags": [*config["tags"], "more"]}
        thread = threading.Thread(target=asked.invoke, args=(text, changed))
        thread.start()
        thread.join()

    await app.ainvoke("hi", {"callbacks": [starts], "tags": ["t"]})
    root, nested = starts.heard
    assert nested["parent_run_id"] == root["run_id"]
    assert nested["parent_ids"] == [str(root["run_id"])]
    assert nested["tags"] == ["t", "more"]
