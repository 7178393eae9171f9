"""`@runnable`: functions as runnables, configuration that is inherited, and auto-streaming."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.callbacks import BaseCallbackHandler
from streamfold.config import RunnableConfig
from streamfold.errors import ConfigurationError, RecursionLimitError
from streamfold.runs import current_run
from streamfold.testing import EmbeddedProvider

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
