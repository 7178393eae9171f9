"""`astream_events`: every run, its place in the tree, and exactly one end of each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest

from streamfold import init_chat_model, runnable, tool
from streamfold.callbacks import BaseCallbackHandler, adispatch_custom_event
from streamfold.chunks import AIMessageChunk
from streamfold.errors import ConfigurationError, ServerError
from streamfold.messages import AIMessage, HumanMessage
from streamfold.testing import Answer, Call, EmbeddedProvider

pytestmark = pytest.mark.anyio

ENDS = ("end", "error", "cancel")


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def model(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    kwargs = {"max_retries": 0, **kwargs}
    return init_chat_model("gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", **kwargs)


async def collected(source: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in source]


async def failing(source: AsyncIterator[Any], error: type[Exception]) -> tuple[list[Any], Any]:
    """What came before the error, and the error."""
    events = []
    try:
        async for event in source:
            events.append(event)
    except error as raised:
        return events, raised
    raise AssertionError(f"{error.__name__} was not raised")


def names(events: list[Any]) -> list[str]:
    """What happened, repetitions of one event in a row as one."""
    found = [f"{event['event']} {event['name']}" for event in events]
    return [name for place, name in enumerate(found) if found[:place][-1:] != [name]]


def assert_sound(events: list[Any]) -> None:
    """Every run starts once, ends once, and nothing of it comes before or after; parents are open
    while their children are."""
    open_runs: list[str] = []
    started, ended = Counter[str](), Counter[str]()
    for event in events:
        id, what = event["run_id"], event["event"].rpartition("_")[2]
        assert set(event) == {
            *("event", "name", "run_id", "parent_ids", "tags", "metadata", "data")
        }
        UUID(id)
        assert set(event["parent_ids"]) <= set(open_runs)
        if what == "start":
            started[id] += 1
            open_runs.append(id)
        elif event["event"] not in ("on_custom_event", "on_retry"):
            assert id in open_runs
        if what in ENDS:
            ended[id] += 1
            open_runs.remove(id)
    assert open_runs == []
    assert set(started.values()) == set(ended.values()) == {1}


async def test_a_model(embedded: EmbeddedProvider) -> None:
    """Start with what the caller passed, chunks, and an end with an AIMessage."""
    config = {"tags": ["t"], "metadata": {"k": 1}, "run_name": "ask"}
    events = await collected(model(embedded).astream_events("hi", config))
    assert_sound(events)
    assert names(events) == [
        "on_chat_model_start ask",
        "on_chat_model_stream ask",
        "on_chat_model_end ask",
    ]
    assert events[0]["data"] == {"input": "hi"}
    chunks = [event["data"]["chunk"] for event in events[1:-1]]
    output = events[-1]["data"]["output"]
    assert type(output) is AIMessage
    assert sum(chunks, AIMessageChunk()).to_message() == output
    assert output == await model(embedded).ainvoke("hi")
    assert all(event["tags"] == ["t"] for event in events)
    assert all(event["metadata"]["k"] == 1 for event in events)
    assert events[0]["metadata"]["ls_provider"] == "openai"


def _texts(data: Any) -> Any:
    return {key: getattr(value, "text", None) for key, value in data.items()}


@pytest.mark.parametrize("nested", [False, True])
async def test_events_are_the_same_whoever_listens_besides(nested: bool) -> None:
    """Alone, the events of a network read are made at once; a handler hears token by token."""
    heard: list[str] = []

    class Handler(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **run: Any) -> None:
            heard.append(token)

    answers = [Answer("one two three four five")] * 2
    found = []
    with EmbeddedProvider(script=answers) as provider:
        asked = model(provider)

        @runnable
        async def app(text: str) -> Any:
            return await asked.ainvoke(text)

        for callbacks in ([], [Handler()]):
            called = app if nested else asked
            events = await collected(called.astream_events("hi", {"callbacks": callbacks}))
            assert_sound(events)
            model_events = [event for event in events if "chat_model" in event["event"]]
            found.append([(e["event"], _texts(e["data"])) for e in model_events])
    alone, besides = found
    assert alone == besides
    texts = [data["chunk"] for what, data in alone if what.endswith("_stream")]
    assert "".join(texts) == "".join(heard) == "one two three four five"
    assert len(texts) == len(heard) > 3


async def test_a_tree_of_functions_tools_and_models(embedded: EmbeddedProvider) -> None:
    """Parents from the root down; nested runs have what the caller passed as their input."""

    @tool
    async def look(city: str) -> str:
        """Look."""
        return str((await model(embedded).ainvoke([HumanMessage(city)])).text)

    @runnable
    async def inner(text: str) -> str:
        return str(await look.ainvoke({"city": text}))

    @runnable
    async def app(text: str) -> str:
        return str(await inner.ainvoke(text)).upper()

    events = await collected(app.astream_events("Oslo", {"tags": ["t"]}))
    assert_sound(events)
    assert names(events) == [
        "on_chain_start app",
        "on_chain_start inner",
        "on_tool_start look",
        "on_chat_model_start ChatOpenAI",
        "on_chat_model_stream ChatOpenAI",
        "on_chat_model_end ChatOpenAI",
        "on_tool_end look",
        "on_chain_stream inner",
        "on_chain_end inner",
        "on_chain_stream app",
        "on_chain_end app",
    ]
    starts = [event for event in events if event["event"].endswith("_start")]
    ids = [event["run_id"] for event in starts]
    assert [event["parent_ids"] for event in starts] == [ids[:n] for n in range(4)]
    assert starts[2]["data"]["input"] == {"city": "Oslo"}
    assert starts[3]["data"]["input"] == [HumanMessage("Oslo")]
    assert all(event["tags"] == ["t"] for event in events)
    assert events[-1]["data"]["output"].isupper()


async def test_sync_functions_and_invoke_inside(embedded: EmbeddedProvider) -> None:
    """The same tree where everything is sync, on the other loop."""

    @tool
    def look(city: str) -> Any:
        """Look."""
        return model(embedded).invoke(city).text

    @runnable
    def app(text: str) -> Any:
        return look.invoke({"city": text})

    events = await collected(app.astream_events("Oslo"))
    assert_sound(events)
    assert names(events) == [
        "on_chain_start app",
        "on_tool_start look",
        "on_chat_model_start ChatOpenAI",
        "on_chat_model_stream ChatOpenAI",
        "on_chat_model_end ChatOpenAI",
        "on_tool_end look",
        "on_chain_stream app",
        "on_chain_end app",
    ]
    assert len(events[2]["parent_ids"]) == 2


async def test_parallel_runs_are_told_apart(embedded: EmbeddedProvider) -> None:
    """By their ids; each has its own end and its own text."""

    @runnable
    async def app(texts: list[str]) -> Any:
        return [answer.text for answer in await model(embedded).abatch(texts)]

    events = await collected(app.astream_events(["a", "b", "c"]))
    assert_sound(events)
    texts: dict[str, str] = {}
    outputs = []
    for event in events:
        if event["event"] == "on_chat_model_stream":
            id = event["run_id"]
            texts[id] = texts.get(id, "") + event["data"]["chunk"].text
        if event["event"] == "on_chat_model_end":
            assert texts[event["run_id"]] == event["data"]["output"].text
            outputs.append(event["data"]["output"].text)
    assert sorted(events[-1]["data"]["output"]) == sorted(outputs)
    assert len(texts) == 3


# ---- ends ----------------------------------------------------------------------------------------


async def test_an_error_is_an_event_and_then_raised() -> None:
    """With what had arrived, also through the runs above."""
    for nested in (False, True):
        async with EmbeddedProvider(script=[Answer("Half an", error="server")]) as provider:
            asked = model(provider)

            @runnable
            async def app(text: str, asked: Any = asked) -> Any:
                return await asked.ainvoke(text)

            source = (app if nested else asked).astream_events("hi")
            events, raised = await failing(source, ServerError)
        assert_sound(events)
        (error,) = [event for event in events if event["event"] == "on_chat_model_error"]
        assert error["data"]["error"] is raised
        assert error["data"]["output"].text == "Half an"
        if nested:
            assert names(events)[-1] == "on_chain_error app"


async def test_an_error_that_is_caught_inside_is_the_inner_runs_only() -> None:
    """The app itself ends well."""
    async with EmbeddedProvider(script=[Answer(error=500)]) as provider:

        @runnable
        async def app(text: str) -> str:
            try:
                await model(provider).ainvoke(text)
            except ServerError:
                return "sorry"
            return "fine"

        events = await collected(app.astream_events("hi"))
    assert_sound(events)
    assert names(events)[-3:] == [
        "on_chat_model_error ChatOpenAI",
        "on_chain_stream app",
        "on_chain_end app",
    ]
    assert events[-1]["data"]["output"] == "sorry"


class Stop(BaseCallbackHandler):
    """Cancels at the first text."""

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        if token:
            self._scope.cancel()


@pytest.mark.parametrize("how", ["break", "scope", "cancel"])
async def test_a_model_that_the_app_leaves_is_cancelled(how: str) -> None:
    """One cancel event with what had arrived; the app goes on."""
    async with EmbeddedProvider(script=["one two three four"], chunk_delay=0.05) as provider:

        @runnable
        async def app(text: str) -> str:
            if how == "scope":
                with anyio.CancelScope() as scope:
                    await model(provider, callbacks=[Stop(scope)]).ainvoke(text)
            elif how == "break":
                async with model(provider).astream(text) as stream:
                    async for chunk in stream:
                        if chunk.text:
                            break
            else:
                async with model(provider).astream_message(text) as message:
                    async for _ in message.text:
                        await message.cancel()
            return "went on"

        with anyio.fail_after(5):
            events = await collected(app.astream_events("hi"))
    assert_sound(events)
    (cancel,) = [event for event in events if event["event"] == "on_chat_model_cancel"]
    assert cancel["data"]["output"].finish_reason == "cancelled"
    assert cancel["data"]["output"].text.startswith("one")
    assert events[-1]["data"]["output"] == "went on"


class Ends(BaseCallbackHandler):
    """The last events that a handler hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("model end")

    def on_llm_cancel(self, **kwargs: Any) -> None:
        self.heard.append("model cancel")

    def on_chain_cancel(self, **kwargs: Any) -> None:
        self.heard.append("chain cancel")

    def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append("chain end")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("how", ["aclose", "scope"])
async def test_leaving_the_events_cancels_every_run(nested: bool, how: str) -> None:
    """Once each, from the inside out; the connection is closed, nothing keeps running."""
    ends = Ends()
    text = "word " * 500
    async with EmbeddedProvider(script=[text], chunk_delay=0.02) as provider:
        asked = model(provider)

        @runnable
        async def app(question: str) -> Any:
            return await asked.ainvoke(question)

        events = (app if nested else asked).astream_events("hi", {"callbacks": [ends]})
        with anyio.move_on_after(5) as scope:
            async for event in events:
                if event["event"] == "on_chat_model_stream":
                    if how == "aclose":
                        break
                    scope.cancel()
        await events.aclose()  # type: ignore[attr-defined]
        await anyio.to_thread.run_sync(provider.wait_closed)
    assert ends.heard == (["model cancel", "chain cancel"] if nested else ["model cancel"])


async def test_a_slow_consumer_that_leaves_is_not_waited_for() -> None:
    """The buffer is full when the consumer goes: the last events of the run do not hang on it."""

    @runnable
    async def app(count: int) -> AsyncIterator[int]:
        for n in range(count):
            yield n

    ends = Ends()
    events = app.astream_events(5000, {"callbacks": [ends]})
    with anyio.fail_after(5):
        async for _ in events:
            await anyio.sleep(0.05)
            break
        await events.aclose()  # type: ignore[attr-defined]
    assert ends.heard == ["chain cancel"]


async def test_a_slow_consumer_slows_the_run() -> None:
    """Events are not made without bound."""
    made = 0

    @runnable
    async def app(count: int) -> AsyncIterator[int]:
        nonlocal made
        for n in range(count):
            made = n
            yield n

    seen = 0
    async for _ in app.astream_events(2000):
        seen += 1
        if seen == 1:
            await anyio.sleep(0.05)
            assert made < 1000
    assert seen == 2003 - 1


# ---- views ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({}, {"app", "look", "ask"}),
        ({"include_names": ["look"]}, {"look"}),
        ({"include_types": ["chat_model"]}, {"ask"}),
        ({"include_types": ["tool", "chain"]}, {"app", "look"}),
        ({"include_tags": ["deep"]}, {"ask"}),
        ({"include_names": ["app"], "include_types": ["tool"]}, {"app", "look"}),
        ({"exclude_names": ["app"]}, {"look", "ask"}),
        ({"exclude_types": ["chat_model"]}, {"app", "look"}),
        ({"exclude_tags": ["deep"]}, {"app", "look"}),
        ({"include_types": ["chain", "tool"], "exclude_names": ["look"]}, {"app"}),
        ({"include_names": []}, set()),
    ],
)
async def test_filters(embedded: EmbeddedProvider, filters: Any, shown: Any) -> None:
    """By name, type and tag; what is left out still counts as a parent."""

    @tool
    async def look(city: str) -> Any:
        """Look."""
        asked = model(embedded).with_config(run_name="ask", tags=["deep"])
        return (await asked.ainvoke(city)).text

    @runnable
    async def app(text: str) -> Any:
        return await look.ainvoke({"city": text})

    events = await collected(app.astream_events("hi", **filters))
    assert {event["name"] for event in events} == shown
    depth = {"app": 0, "look": 1, "ask": 2}
    assert all(len(event["parent_ids"]) == depth[event["name"]] for event in events)


@pytest.mark.parametrize(
    "filters",
    [
        {"include_names": "app"},
        {"exclude_tags": 5},
        {"include_types": ["chat_models"]},
        {"exclude_types": "tool"},
    ],
)
async def test_filters_that_would_match_by_chance_are_refused(
    embedded: EmbeddedProvider, filters: Any
) -> None:
    """A str where a list belongs, and types that there are not; before the request."""
    before = len(embedded.requests)
    for ask in (model(embedded).astream_events, model(embedded).stream_events):
        with pytest.raises(ConfigurationError, match=next(iter(filters))):
            ask("hi", **filters)
    assert len(embedded.requests) == before


async def test_serialized_events_are_json() -> None:
    """Messages, chunks, errors, tool calls and odd objects; and nothing but JSON types."""
    script = [
        Answer("See: ", tool_calls=[Call("look", {"city": "Oslo"})]),
        Answer("Half", error="server"),
    ]
    async with EmbeddedProvider(script=script) as provider:

        @tool
        def look(city: str) -> Any:
            """Look."""
            return {"at": object, 5: {1, 2}, "id": UUID(int=1), "raw": b"x"}

        @runnable
        async def app(text: Any) -> Any:
            asked = model(provider).bind_tools([look])
            first = await asked.ainvoke(text)
            await look.ainvoke(first.tool_calls[0]["args"])
            return await asked.ainvoke(text)

        config = {"metadata": {"when": UUID(int=2), "n": float("nan")}, "tags": ["t"]}
        source = app.astream_events([HumanMessage("hi")], config, serialize=True)
        events, _ = await failing(source, ServerError)
    assert_sound(events)
    assert json.loads(json.dumps(events, allow_nan=False)) == events
    last = events[-1]
    assert last["event"] == "on_chain_error"
    assert last["data"]["error"]["type"] == "ServerError"
    ends = [event for event in events if event["event"] == "on_chat_model_end"]
    assert ends[0]["data"]["output"]["type"] == "ai"
    assert events[0]["data"]["input"] == [HumanMessage("hi").to_dict()]


def test_the_sync_twin_gives_the_same_events(embedded: EmbeddedProvider) -> None:
    """In the same order, filters and all; it may be left early."""

    @runnable
    def app(text: str) -> Any:
        return model(embedded).invoke(text).text

    events = list(app.stream_events("hi"))
    assert_sound(events)

    async def main() -> list[Any]:
        return await collected(app.astream_events("hi"))

    assert names(events) == names(anyio.run(main))
    only = list(app.stream_events("hi", include_types=["chat_model"], serialize=True))
    assert {event["name"] for event in only} == {"ChatOpenAI"}
    for event in app.stream_events("hi"):
        assert event["event"] == "on_chain_start"
        break


async def test_other_versions_are_refused(embedded: EmbeddedProvider) -> None:
    """Before the request."""
    before = len(embedded.requests)
    with pytest.raises(ConfigurationError, match="'v1'"):
        model(embedded).astream_events("hi", version="v1")
    assert len(embedded.requests) == before


async def test_what_cannot_be_sent_is_said_without_an_event(embedded: EmbeddedProvider) -> None:
    """A wrong input never was a run."""
    before = len(embedded.requests)
    with pytest.raises(ConfigurationError):
        await collected(model(embedded).astream_events(5))
    assert len(embedded.requests) == before


async def test_events_inside_a_run_are_nested_in_it(embedded: EmbeddedProvider) -> None:
    """`astream_events` of a model in an app: the app's own watchers see it once."""

    @runnable
    async def app(text: str) -> int:
        return len(await collected(model(embedded).astream_events(text)))

    events = await collected(app.astream_events("hi"))
    assert_sound(events)
    inner = [event for event in events if event["name"] == "ChatOpenAI"]
    assert events[-1]["data"]["output"] == len(inner)


# ---- retries, fallbacks, configurable models -----------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
async def test_retries_are_events_with_their_place(nested: bool) -> None:
    """`on_retry` says which attempt failed, of what, below which run; each attempt is a run."""
    async with EmbeddedProvider(script=[Answer(error=500), "fine"]) as provider:
        retried = model(provider).with_retry(wait_exponential_jitter=False)

        @runnable
        async def app(text: str) -> Any:
            return (await retried.ainvoke(text)).text

        events = await collected((app if nested else retried).astream_events("hi"))
    assert_sound(events)
    (retry,) = [event for event in events if event["event"] == "on_retry"]
    assert retry["data"]["attempt"] == 1
    assert isinstance(retry["data"]["error"], ServerError)
    kinds = [event for event in names(events) if "chat_model" in event]
    assert kinds == [
        "on_chat_model_start ChatOpenAI",
        "on_chat_model_error ChatOpenAI",
        "on_chat_model_start ChatOpenAI",
        "on_chat_model_stream ChatOpenAI",
        "on_chat_model_end ChatOpenAI",
    ]
    assert retry["parent_ids"] == ([events[0]["run_id"]] if nested else [])


@pytest.mark.parametrize("how", ["with_retry", "with_fallbacks"])
@pytest.mark.parametrize("method", ["ainvoke", "astream"])
async def test_a_run_id_is_one_attempts(how: str, method: str) -> None:
    """Of the first: each attempt is a run with an end of its own."""
    id = uuid4()
    async with EmbeddedProvider(script=[Answer(error=500), "fine"]) as provider:
        one = model(provider)
        tried = (
            one.with_retry(wait_exponential_jitter=False)
            if how == "with_retry"
            else one.with_fallbacks([one])
        )

        @runnable
        async def app(text: str) -> None:
            if method == "ainvoke":
                await tried.ainvoke(text, {"run_id": id})
            else:
                await collected(tried.astream(text, {"run_id": id}))

        events = await collected(app.astream_events("hi"))
    assert_sound(events)
    first, second = [e["run_id"] for e in events if e["event"] == "on_chat_model_start"]
    assert first == str(id) != second


async def test_handlers_of_the_model_hear_of_its_retries() -> None:
    """Those that the model was made with, too."""
    heard: list[Any] = []

    class Handler:
        def on_retry(self, state: Any, **kwargs: Any) -> None:
            heard.append((state["attempt"], kwargs["tags"]))

    async with EmbeddedProvider(script=[Answer(error=500), "fine"]) as provider:
        asked = model(provider, callbacks=[Handler()], tags=["t"])
        await asked.with_retry(wait_exponential_jitter=False).ainvoke("hi")
    assert heard == [(1, ["t"])]


async def test_fallbacks_show_both_runs() -> None:
    """The one that failed and the one that answered; what is between them names the second."""
    async with EmbeddedProvider(script=[Answer(error=500), "fine"]) as provider:
        both = model(provider).with_fallbacks([model(provider).with_config(run_name="second")])
        events = await collected(both.astream_events("hi"))
    assert_sound(events)
    assert names(events) == [
        "on_chat_model_start ChatOpenAI",
        "on_chat_model_error ChatOpenAI",
        "on_retry RunnableWithFallbacks",
        "on_chat_model_start second",
        "on_chat_model_stream second",
        "on_chat_model_end second",
    ]


async def test_a_configurable_model(embedded: EmbeddedProvider) -> None:
    """Events of the model that was chosen."""
    asked = init_chat_model(
        configurable_fields=("model",), base_url=f"{embedded.url}/v1", api_key="k"
    )
    events = await collected(
        asked.astream_events("hi", {"configurable": {"model": "openai:gpt-4.1"}})
    )
    assert_sound(events)
    assert names(events)[-1] == "on_chat_model_end ChatOpenAI"
    assert events[0]["parent_ids"] == []


# ---- what events say -----------------------------------------------------------------------------


async def test_the_start_does_not_wait_for_the_answer() -> None:
    """It comes when the request is made, not with the first chunk."""
    async with EmbeddedProvider(script=["late"], first_delay=30) as provider:
        events = model(provider).astream_events("hi")
        with anyio.fail_after(5):
            first = await anext(events)
            await events.aclose()  # type: ignore[attr-defined]
    assert first["event"] == "on_chat_model_start"


async def test_ends_of_nested_runs_say_what_went_in(embedded: EmbeddedProvider) -> None:
    """The root's does not: its caller knows."""

    @tool
    async def look(city: str) -> Any:
        """Look."""
        return (await model(embedded).ainvoke(city)).text

    @runnable
    async def app(text: str) -> Any:
        return await look.ainvoke({"city": text})

    events = await collected(app.astream_events("Oslo"))
    ends = {e["event"]: e["data"] for e in events if e["event"].endswith("_end")}
    assert ends["on_chat_model_end"]["input"] == "Oslo"
    assert ends["on_tool_end"]["input"] == {"city": "Oslo"}
    assert set(ends["on_chain_end"]) == {"output"}


@pytest.mark.parametrize("how", ["error", "cancel"])
async def test_runs_that_do_not_end_well_say_what_they_had(how: str) -> None:
    """A function what it gave, a tool in which call it was."""

    @tool
    async def look(city: str) -> Any:
        """Look."""
        if how == "error":
            raise KeyError(city)
        await anyio.sleep_forever()

    @runnable
    async def steps(text: str) -> AsyncIterator[Any]:
        yield "one "
        yield "two"
        yield await look.ainvoke(
            {"type": "tool_call", "id": "7", "name": "look", "args": {"city": "x"}}
        )

    @runnable
    async def app(text: str) -> None:
        with anyio.move_on_after(0.02):
            with suppress(KeyError):
                await steps.ainvoke(text)

    events = await collected(app.astream_events("hi"))
    assert_sound(events)
    last = {event["event"]: event["data"] for event in events}
    assert last[f"on_tool_{how}"]["tool_call_id"] == "7"
    assert last[f"on_chain_{how}"]["output"] == "one two"
    assert last[f"on_chain_{how}"]["input"] == "hi"


async def test_custom_events_are_in_their_place(embedded: EmbeddedProvider) -> None:
    """Between the events of the run that sends them, and as plain data on request."""

    @runnable
    async def app(text: str) -> str:
        await adispatch_custom_event("note", {"when": UUID(int=1)})
        return text

    events = await collected(app.astream_events("hi", serialize=True))
    assert names(events) == [
        *("on_chain_start app", "on_custom_event note", "on_chain_stream app", "on_chain_end app")
    ]
    assert events[1]["data"] == {"when": str(UUID(int=1))}
    assert events[1]["run_id"] == events[0]["run_id"]


async def test_a_models_own_retries_are_events() -> None:
    """Those of `max_retries`: one run, one start, one end."""
    async with EmbeddedProvider(script=[Answer(error=500), "fine"]) as provider:
        events = await collected(model(provider, max_retries=1).astream_events("hi"))
    assert names(events) == [
        "on_chat_model_start ChatOpenAI",
        "on_retry ChatOpenAI",
        "on_chat_model_stream ChatOpenAI",
        "on_chat_model_end ChatOpenAI",
    ]
    assert len({event["run_id"] for event in events}) == 1
    retry = events[1]["data"]
    assert (retry["attempt"], type(retry["error"])) == (1, ServerError)
    assert 0 < retry["pause"] <= 0.5


async def test_what_contains_itself_can_be_serialized() -> None:
    """So far; then comes its `repr`."""
    ring: list[Any] = []
    ring.append(ring)

    @runnable
    async def app(text: Any) -> Any:
        return {"ring": text}

    events = await collected(app.astream_events(ring, serialize=True))
    shown = json.loads(json.dumps(events))[0]["data"]["input"]
    while isinstance(shown, list):
        (shown,) = shown
    assert shown.startswith("[[[")


# ---- back-pressure across loops ------------------------------------------------------------------


async def test_a_slow_consumer_slows_a_model_on_the_other_loop() -> None:
    """A sync function's model call runs on the portal's loop, and waits there for room."""
    seen = 0

    class Heard(BaseCallbackHandler):
        chunks = 0

        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            self.chunks += 1

    heard = Heard()
    async with EmbeddedProvider(script=["word " * 2000]) as provider:

        @runnable
        def app(text: str) -> Any:
            return model(provider).invoke(text).text

        async for _ in app.astream_events("hi", {"callbacks": [heard]}):
            seen += 1
            if seen == 1:
                await anyio.sleep(0.3)
                assert 0 < heard.chunks < 600
    assert seen > 1500


async def test_a_sync_call_that_blocks_the_consumers_loop_goes_through() -> None:
    """Against all advice: `invoke` in an async function. The consumer cannot make room, so none is
    waited for."""
    text = "word " * 2000
    async with EmbeddedProvider(script=[text]) as provider:

        @runnable
        async def app(question: str) -> Any:
            return model(provider).invoke(question).text

        with anyio.fail_after(20):
            events = await collected(app.astream_events("hi"))
    assert_sound(events)
    assert events[-1]["data"]["output"] == text
