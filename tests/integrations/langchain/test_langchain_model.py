"""A streamfold model in LangChain's hands: what LangChain's own programs do with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

import pytest

reason = "needs langchain: `make test-langchain` brings it"
pytest.importorskip("langchain_core", reason=reason)
pytest.importorskip("pytest_asyncio", reason=reason)

from langchain_core.callbacks import (  # noqa: E402
    AsyncCallbackHandler,
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
)
from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage  # noqa: E402
from langchain_core.output_parsers import StrOutputParser  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402
from langchain_core.rate_limiters import InMemoryRateLimiter  # noqa: E402
from langchain_core.tools import InjectedToolArg, tool  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from typing_extensions import TypedDict  # noqa: E402

import streamfold  # noqa: E402
from streamfold import init_chat_model  # noqa: E402
from streamfold.errors import (  # noqa: E402
    ConfigurationError,
    RateLimitError,
    StructuredOutputError,
    UnknownParameterError,
)
from streamfold.integrations.langchain import ChatStreamfold, as_langchain  # noqa: E402
from streamfold.testing import Answer, Call, EmbeddedProvider, Found, Usage  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)

VENDORS = [("openai:gpt-4.1", "/v1"), ("anthropic:claude-opus-4-1", "")]


def model_at(provider: EmbeddedProvider, vendor: tuple[str, str] = VENDORS[0], **more: Any) -> Any:
    name, path = vendor
    return init_chat_model(name, base_url=provider.url + path, api_key="any", **more)


@tool
def get_weather(city: str, token: Annotated[str, InjectedToolArg] = "") -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


# ---- making one ----------------------------------------------------------------------------------


def test_a_model_is_wrapped_or_made() -> None:
    ours = init_chat_model("openai:gpt-4.1", api_key="any", temperature=0.5, max_tokens=7)
    wrapped = as_langchain(ours, tags=["a"])
    assert isinstance(wrapped, BaseChatModel)
    assert wrapped.runnable is ours
    assert wrapped.tags == ["a"]
    made = ChatStreamfold("openai:gpt-4.1", api_key="any", temperature=0.5, max_tokens=7)
    assert repr(made.runnable) == repr(ours)
    for model in (wrapped, made):
        assert model.model_name == "gpt-4.1"
        assert model.profile["tool_calling"] is True
        assert model._get_ls_params()["ls_provider"] == "openai"
        assert model._get_ls_params()["ls_temperature"] == 0.5
        assert model._get_ls_params()["ls_max_tokens"] == 7


def test_what_cannot_be_a_model_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="expected a streamfold model"):
        as_langchain(object())
    with pytest.raises(UnknownParameterError, match="temprature"):
        as_langchain("openai:gpt-4.1", api_key="any", temprature=0)
    with pytest.raises(ConfigurationError, match="give them to the model inside"):
        as_langchain(init_chat_model("gpt-4.1", api_key="any").with_retry(), temperature=0)


def test_keys_are_not_shown() -> None:
    model = as_langchain("openai:gpt-4.1", api_key="sk-very-secret-key")
    shown = repr(model) + str(model) + str(model.asdict()) + str(model._serialized)
    assert "secret" not in shown


def test_parameters_of_a_ready_model_make_a_new_one() -> None:
    ours = init_chat_model("openai:gpt-4.1", api_key="any")
    assert as_langchain(ours, temperature=0.1).runnable.temperature == 0.1
    assert ours.temperature is None


def test_rate_limiters_of_both_sides_are_taken() -> None:
    theirs = InMemoryRateLimiter(requests_per_second=1)
    assert as_langchain("openai:gpt-4.1", api_key="any", rate_limiter=theirs).rate_limiter is theirs
    ours = streamfold.InMemoryRateLimiter(requests_per_second=1)
    model = as_langchain("openai:gpt-4.1", api_key="any", rate_limiter=ours)
    assert model.rate_limiter is None
    assert model.runnable.rate_limiter is ours


def test_a_configurable_model_answers_by_its_default() -> None:
    ours = init_chat_model("openai:gpt-4.1", api_key="any", configurable_fields=["model"])
    assert as_langchain(ours).model_name == "gpt-4.1"


def test_retries_and_fallbacks_come_along() -> None:
    script = [Answer(error=500), "Second.", Answer(error=500), Answer(error=500), "Other."]
    with EmbeddedProvider(script=script) as provider:
        ours = model_at(provider, max_retries=0)
        retried = as_langchain(ours.with_retry(wait_exponential_jitter=False))
        assert retried.invoke("hi").text == "Second."
        other = model_at(provider, VENDORS[1], max_retries=0)
        model = as_langchain(ours.with_fallbacks([ours, other])).bind_tools([get_weather])
        assert model.invoke("hi").text == "Other."
        assert [bool(r.json()["tools"]) for r in provider.requests[2:]] == [True] * 3


# ---- calling -------------------------------------------------------------------------------------


def test_a_chain_of_langchain() -> None:
    with EmbeddedProvider(script=["Hello, Ann!"] * 2) as provider:
        prompt = ChatPromptTemplate.from_messages(
            [("system", "Be kind."), ("human", "I am {name}")]
        )
        chain = prompt | as_langchain(model_at(provider)) | StrOutputParser()
        assert chain.invoke({"name": "Ann"}) == "Hello, Ann!"
        assert "".join(chain.stream({"name": "Ann"})) == "Hello, Ann!"
        said = provider.requests[0].json()["messages"]
        assert [m["role"] for m in said] == ["system", "user"]


@pytest.mark.parametrize("vendor", VENDORS, ids=["openai", "anthropic"])
def test_all_ways_give_one_message(vendor: tuple[str, str]) -> None:
    answer = Answer(
        text="Look.",
        reasoning="Well.",
        tool_calls=[Call("get_weather", {"city": "Rome"}), Call("get_weather", {"city": "Pisa"})],
        usage=Usage(input=9, output=7, reasoning=2, cache_read=4),
    )
    with EmbeddedProvider(script=[answer] * 3) as provider:
        model = as_langchain(model_at(provider, vendor)).bind_tools([get_weather])
        whole = model.invoke("hi")
        first, *others = model.stream("hi")
        folded = sum(others, first)
        typed = model.stream_events("hi", version="v3").output
    assert [b["type"] for b in whole.content_blocks] == ["reasoning", "text"] + ["tool_call"] * 2
    for message in (folded, typed):
        assert message.tool_calls == whole.tool_calls
        assert message.usage_metadata == whole.usage_metadata
        assert message.id == whole.id
        assert message.additional_kwargs == whole.additional_kwargs
        assert dict(message.response_metadata) == whole.response_metadata
        bare = [{k: v for k, v in b.items() if k != "index"} for b in message.content_blocks]
        assert bare == whole.content_blocks
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["input_token_details"]["cache_read"] == 4
    assert whole.response_metadata["model_name"]
    assert {"finish_reason", "stop_reason"} & whole.response_metadata.keys()


def test_tool_results_go_back_whole() -> None:
    answers = [Answer(tool_calls=[Call("get_weather", {"city": "Rome"}, "call_1")]), "Sunny."]
    with EmbeddedProvider(script=answers) as provider:
        model = as_langchain(model_at(provider)).bind_tools([get_weather])
        called = model.invoke("Weather in Rome?")
        result = get_weather.invoke(called.tool_calls[0])
        assert isinstance(result, ToolMessage)
        assert model.invoke([HumanMessage("Weather in Rome?"), called, result]).text == "Sunny."
        asked, told = provider.requests[1].json()["messages"][1:]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == called.tool_calls[0]["id"]
    assert told["content"] == "Sunny in Rome."


def test_arguments_that_langchain_injects_are_not_the_models() -> None:
    with EmbeddedProvider() as provider:
        as_langchain(model_at(provider)).bind_tools([get_weather]).invoke("hi")
        (definition,) = provider.requests[0].json()["tools"]
    assert list(definition["function"]["parameters"]["properties"]) == ["city"]


def test_tools_of_every_kind_are_told() -> None:
    @streamfold.tool
    def ours(city: str) -> str:
        """Streamfold's."""
        return city

    def plain(city: str) -> str:
        """A function."""
        return city

    class Fields(BaseModel):
        """A class."""

        city: str

    marked = get_weather.model_copy(update={"extras": {"cache_control": {"type": "ephemeral"}}})
    search = {"type": "web_search_20250305", "name": "web_search"}
    with EmbeddedProvider() as provider:
        model = as_langchain(model_at(provider, VENDORS[1]))
        model.bind_tools([marked, ours, plain, Fields, search], tool_choice="plain").invoke("hi")
        body = provider.requests[0].json()
    names = ["get_weather", "ours", "plain", "Fields", "web_search"]
    assert [told["name"] for told in body["tools"]] == names
    assert body["tools"][0]["cache_control"] == {"type": "ephemeral"}
    assert body["tool_choice"] == {"type": "tool", "name": "plain"}


def test_a_choice_that_cannot_be_is_an_error_before_the_request() -> None:
    with EmbeddedProvider() as provider:
        model = as_langchain(model_at(provider)).bind_tools([get_weather], tool_choice="nothing")
        with pytest.raises(ConfigurationError, match="nothing"):
            model.invoke("hi")
        assert provider.requests == []


def test_what_a_call_says_is_sent() -> None:
    with EmbeddedProvider() as provider:
        model = as_langchain(model_at(provider)).bind(temperature=0.25)
        model.invoke("hi", stop=["you"], model="gpt-4.1-mini", seed=7)
        body = provider.requests[0].json()
    assert {k: body[k] for k in ("stop", "model", "seed", "temperature")} == {
        "stop": ["you"],
        "model": "gpt-4.1-mini",
        "seed": 7,
        "temperature": 0.25,
    }


def test_errors_come_as_they_are() -> None:
    with EmbeddedProvider(script=[Answer(error=429), Answer(text="Half", error=500)]) as provider:
        model = as_langchain(model_at(provider, max_retries=0))
        with pytest.raises(RateLimitError) as raised:
            model.invoke("hi")
        assert raised.value.retry_after == 1
        with pytest.raises(streamfold.errors.ServerError) as broken:
            list(model.stream("hi"))
        assert broken.value.partial is not None
        assert broken.value.partial.text == "Half"


def test_server_tools_and_citations_are_blocks() -> None:
    found = Found("news", "About", "https://example.com/a", "An article.")
    with EmbeddedProvider(script=[Answer(text="It says so.", found=found)] * 2) as provider:
        model = as_langchain(model_at(provider, VENDORS[1]))
        search = model.bind_tools([{"type": "web_search_20250305", "name": "web_search"}])
        whole = search.invoke("news?")
        first, *others = search.stream("news?")
    kinds = ["server_tool_call", "server_tool_result", "text"]
    for message in (whole, sum(others, first)):
        assert [b["type"] for b in message.content_blocks] == kinds
        assert message.content_blocks[0]["args"] == {"query": "news"}
        assert message.content_blocks[2]["annotations"][0]["url"] == "https://example.com/a"
    assert all(isinstance(chunk.content, list) for chunk in (first, *others))


def test_tokens_are_counted_without_a_tokenizer() -> None:
    model = as_langchain("openai:gpt-4.1", api_key="any")
    assert model.get_num_tokens("eight ch") == 2
    assert model.get_num_tokens_from_messages([HumanMessage("eight ch")]) > 2


# ---- structured output ---------------------------------------------------------------------------


class Film(BaseModel):
    """A film."""

    title: str
    year: int


class FilmDict(TypedDict):
    """A film."""

    title: str
    year: int


@pytest.mark.parametrize("method", [None, "json_schema", "function_calling"])
@pytest.mark.parametrize("vendor", VENDORS, ids=["openai", "anthropic"])
def test_objects_grow_and_come_out_whole(vendor: tuple[str, str], method: Any) -> None:
    with EmbeddedProvider() as provider:
        model = as_langchain(model_at(provider, vendor))
        film = model.with_structured_output(Film, method=method).invoke("Inception")
        assert isinstance(film, Film)
        (once,) = model.with_structured_output(Film, method=method).stream("Inception")
        assert once == film
        schema = Film.model_json_schema()
        *growing, last = model.with_structured_output(schema, method=method).stream("Inception")
        assert last == film.model_dump()
        assert growing
        assert all(set(part) <= set(last) for part in growing)
        typed = model.with_structured_output(FilmDict, method=method).invoke("Inception")
        assert typed == last


def test_a_bad_answer_is_an_error_and_never_none() -> None:
    with EmbeddedProvider(script=['{"title": 1}'] * 3) as provider:
        model = as_langchain(model_at(provider)).with_structured_output(Film, method="json_schema")
        with pytest.raises(StructuredOutputError) as raised:
            model.invoke("hi")
        assert raised.value.raw is not None
        assert raised.value.raw.text == '{"title": 1}'
        with pytest.raises(StructuredOutputError):
            list(model.stream("hi"))
        both = as_langchain(model_at(provider)).with_structured_output(
            Film, method="json_schema", include_raw=True
        )
        said = both.invoke("hi")
    assert isinstance(said["raw"], AIMessage)
    assert said["parsed"] is None
    assert isinstance(said["parsing_error"], StructuredOutputError)


async def test_structured_output_async() -> None:
    with EmbeddedProvider() as provider:
        model = as_langchain(model_at(provider)).with_structured_output(Film, include_raw=True)
        said = await model.ainvoke("Inception")
        assert isinstance(said["parsed"], Film)
        assert said["parsing_error"] is None
        parts = [part async for part in model.astream("Inception")]
        assert parts[-1].get("parsed", parts[-1])


# ---- async ---------------------------------------------------------------------------------------


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "run_in_executor", refuse)


@pytest.mark.usefixtures("no_threads")
async def test_async_needs_no_thread() -> None:
    before = set(threading.enumerate())
    with EmbeddedProvider() as provider:
        served = set(threading.enumerate())
        model = as_langchain(model_at(provider))
        await model.ainvoke("hi")
        assert [chunk async for chunk in model.astream("hi")]
        stream = await model.astream_events("hi", version="v3")
        assert (await stream.output).text
        assert [event async for event in model.astream_events("hi", version="v2")]
        await model.abatch(["a", "b"])
        assert await model.with_structured_output(Film).ainvoke("Inception")
        assert set(threading.enumerate()) == served
        await model.runnable.aclose()
    assert set(threading.enumerate()) <= before | served


async def test_leaving_a_stream_closes_the_request() -> None:
    with EmbeddedProvider(chunk_delay=0.05) as provider:
        model = as_langchain(model_at(provider))
        async with aclosing(model.astream("Tell me much")) as stream:
            async for _ in stream:
                break
        await asyncio.to_thread(provider.wait_closed, 5)


async def test_cancelling_closes_the_request() -> None:
    with EmbeddedProvider(chunk_delay=0.05) as provider:
        model = as_langchain(model_at(provider))
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in model.astream("Tell me much"):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(provider.wait_closed, 5)


def test_leaving_a_sync_stream_closes_the_request() -> None:
    with EmbeddedProvider(chunk_delay=0.05) as provider:
        stream = as_langchain(model_at(provider)).stream("Tell me much")
        next(stream)
        stream.close()
        provider.wait_closed(5)


# ---- callbacks and events ------------------------------------------------------------------------


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[Any] = []
        self.ends: list[Any] = []
        self.errors: list[Any] = []

    def on_llm_new_token(self, token: Any, **kw: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kw: Any) -> None:
        self.ends.append(response.generations[0][0].message)

    def on_llm_error(self, error: Any, **kw: Any) -> None:
        self.errors.append(error)


class HeardAsync(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.tokens: list[Any] = []

    async def on_llm_new_token(self, token: Any, **kw: Any) -> None:
        self.tokens.append(token)


def test_handlers_of_langchain_hear_it() -> None:
    heard, usage = Heard(), UsageMetadataCallbackHandler()
    with EmbeddedProvider(script=["One two three.", Answer(error=400)]) as provider:
        model = as_langchain(model_at(provider))
        list(model.stream("hi", config={"callbacks": [heard, usage]}))
        with pytest.raises(streamfold.errors.InvalidRequestError):
            model.invoke("hi", config={"callbacks": [heard]})
    assert "".join(heard.tokens) == "One two three."
    assert len(heard.tokens) > 3
    assert [end.text for end in heard.ends] == ["One two three."]
    assert heard.ends[0].usage_metadata["output_tokens"] > 0
    assert [type(error).__name__ for error in heard.errors] == ["InvalidRequestError"]
    assert usage.usage_metadata["gpt-4.1-2025-04-14"]["total_tokens"] > 0


async def test_async_handlers_hear_the_tokens_of_ainvoke() -> None:
    heard = HeardAsync()
    with EmbeddedProvider(script=["One two three."]) as provider:
        model = as_langchain(model_at(provider), streaming=True)
        assert (await model.ainvoke("hi", config={"callbacks": [heard]})).text == "One two three."
    assert "".join(heard.tokens) == "One two three."


async def test_events_v2() -> None:
    with EmbeddedProvider(script=["One two three."]) as provider:
        model = as_langchain(model_at(provider))
        events = [event async for event in model.astream_events("hi", version="v2")]
    names = [event["event"] for event in events]
    assert names[0] == "on_chat_model_start"
    assert names[-1] == "on_chat_model_end"
    assert set(names[1:-1]) == {"on_chat_model_stream"}
    tokens = [event["data"]["chunk"].text for event in events[1:-1]]
    assert "".join(tokens) == events[-1]["data"]["output"].text == "One two three."
    assert events[0]["metadata"]["ls_provider"] == "openai"


async def test_events_v3_have_every_projection() -> None:
    answer = Answer(text="Look.", reasoning="Well.", tool_calls=[Call("f", {"a": 1}, "c1")])

    async def joined(pieces: AsyncIterator[str]) -> str:
        return "".join([piece async for piece in pieces])

    with EmbeddedProvider(script=[answer]) as provider:
        model = as_langchain(model_at(provider, VENDORS[1])).bind_tools(
            [
                {
                    "name": "f",
                    "input_schema": {"type": "object", "properties": {}},
                    "description": "F",
                }
            ]
        )
        stream = await model.astream_events("hi", version="v3")
        assert await joined(stream.reasoning) == "Well."
        assert await joined(stream.text) == "Look."
        pieces = [piece async for piece in stream.tool_calls]
        assert "".join(piece["args"] for piece in pieces) == '{"a": 1}'
        assert {piece["name"] for piece in pieces} == {"f"}
        message = await stream.output
    assert [call["args"] for call in message.tool_calls] == [{"a": 1}]
    assert message.content_blocks[0]["extras"]["signature"]


def test_streaming_can_be_switched_off() -> None:
    with EmbeddedProvider() as provider:
        (once,) = as_langchain(model_at(provider), disable_streaming=True).stream("hi")
        assert once.text
        assert "stream" not in provider.requests[0].json()
