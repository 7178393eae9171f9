"""Real LangGraph agents with a streamfold model: their tokens, their tools and their memory."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

reason = "needs langgraph and langchain: `make test-langchain` brings them"
pytest.importorskip("langgraph", reason=reason)
pytest.importorskip("langchain", reason=reason)
pytest.importorskip("pytest_asyncio", reason=reason)

from langchain.agents import create_agent  # noqa: E402
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.graph import END, START, StateGraph, add_messages  # noqa: E402
from langgraph.prebuilt import ToolNode  # noqa: E402
from pydantic import BaseModel  # noqa: E402
from typing_extensions import TypedDict  # noqa: E402

from streamfold import init_chat_model  # noqa: E402
from streamfold.errors import OverloadedError  # noqa: E402
from streamfold.integrations.langchain import as_langchain  # noqa: E402
from streamfold.testing import Answer, Call, EmbeddedProvider  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)

VENDORS = [
    pytest.param(("openai:gpt-4.1", "/v1"), id="openai"),
    pytest.param(("anthropic:claude-opus-4-1", ""), id="anthropic"),
    pytest.param(("google_genai:gemini-3-pro", "/v1beta"), id="gemini"),
]
ASKED = {"messages": [HumanMessage("What is the weather in Rome?")]}


def script() -> list[Answer]:
    """A call, then what the model says of its result."""
    call = Call("get_weather", {"city": "Rome"})
    return [Answer(text="I look.", tool_calls=[call]), Answer("It is sunny in Rome.")]


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"Sunny in {city}."


def model_at(provider: EmbeddedProvider, vendor: tuple[str, str], **more: Any) -> Any:
    name, path = vendor
    model = init_chat_model(name, base_url=provider.url + path, api_key="any", **more)
    return as_langchain(model)


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def graph_of(model: Any) -> Any:
    """A node that asks the model and one that runs the tools."""
    bound = model.bind_tools([get_weather])

    async def ask(state: State) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    def done(state: State) -> str:
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", done, ["tools", END])
    graph.add_edge("tools", "ask")
    return graph.compile()


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("make", [graph_of, lambda m: create_agent(m, tools=[get_weather])])
async def test_an_agent_shows_its_tokens(make: Any, vendor: tuple[str, str]) -> None:
    with EmbeddedProvider(script=script()) as provider:
        agent = make(model_at(provider, vendor))
        parts = [part async for part in agent.astream(ASKED, stream_mode="messages")]
    chunks = [chunk for chunk, _ in parts if isinstance(chunk, AIMessageChunk)]
    assert "".join(chunk.text for chunk in chunks) == "I look.It is sunny in Rome."
    assert len([chunk for chunk in chunks if chunk.text]) > 4
    assert [c["name"] for chunk in chunks for c in chunk.tool_call_chunks if c["name"]] == [
        "get_weather"
    ]
    tools = [message for message, _ in parts if message.type == "tool"]
    assert [message.content for message in tools] == ["Sunny in Rome."]


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_agent_runs_its_tools(vendor: tuple[str, str]) -> None:
    with EmbeddedProvider(script=script()) as provider:
        agent = create_agent(model_at(provider, vendor), tools=[get_weather])
        done = agent.invoke(ASKED)["messages"]
        assert len(provider.requests) == 2
    assert [message.type for message in done] == ["human", "ai", "tool", "ai"]
    assert done[-1].text == "It is sunny in Rome."
    assert len({message.id for message in done}) == 4


@pytest.mark.parametrize("vendor", VENDORS)
async def test_events_of_an_agent(vendor: tuple[str, str]) -> None:
    with EmbeddedProvider(script=script()) as provider:
        agent = create_agent(model_at(provider, vendor), tools=[get_weather])
        events = [event async for event in agent.astream_events(ASKED, version="v2")]
    said = [e["data"]["chunk"].text for e in events if e["event"] == "on_chat_model_stream"]
    assert "".join(said) == "I look.It is sunny in Rome."
    names = [e["event"] for e in events if e["event"].startswith(("on_chat_model", "on_tool"))]
    for name, times in {"on_chat_model_start": 2, "on_chat_model_end": 2, "on_tool_end": 1}.items():
        assert names.count(name) == times


async def test_the_typed_stream_of_an_agent() -> None:
    """LangGraph's `version="v3"` hears the model's own events, through the graph."""
    with EmbeddedProvider(script=script()) as provider:
        agent = create_agent(
            model_at(provider, ("anthropic:claude-opus-4-1", "")), tools=[get_weather]
        )
        run = await agent.astream_events(ASKED, version="v3")
        said = [await message.text async for message in run.messages]
        state = await run.output()
    assert said == ["I look.", "It is sunny in Rome."]
    assert state["messages"][-1].text == "It is sunny in Rome."


async def test_a_conversation_is_kept_and_goes_on() -> None:
    """Through a checkpointer nothing that the vendor wants back is lost."""
    first = Answer(
        text="I look.", reasoning="Well.", tool_calls=[Call("get_weather", {"city": "A"})]
    )
    vendor = ("anthropic:claude-opus-4-1", "")
    with EmbeddedProvider(script=[first, "Sunny.", "As I said."]) as provider:
        agent = create_agent(
            model_at(provider, vendor), tools=[get_weather], checkpointer=InMemorySaver()
        )
        config: Any = {"configurable": {"thread_id": "1"}}
        await agent.ainvoke(ASKED, config)
        await agent.ainvoke({"messages": "Sure?"}, config)
        sent = provider.requests[2].json()["messages"]
    assert [block["type"] for block in sent[1]["content"]] == ["thinking", "text", "tool_use"]
    assert sent[1]["content"][0]["signature"]


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    sunny: bool


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_agent_answers_with_an_object(vendor: tuple[str, str]) -> None:
    with EmbeddedProvider() as provider:
        agent = create_agent(model_at(provider, vendor), response_format=Weather)
        assert isinstance(agent.invoke(ASKED)["structured_response"], Weather)


async def test_a_failure_reaches_the_caller_of_the_graph() -> None:
    with EmbeddedProvider(script=[Answer(error="overloaded")]) as provider:
        agent = graph_of(model_at(provider, ("openai:gpt-4.1", "/v1"), max_retries=0))
        with pytest.raises(OverloadedError) as raised:
            await agent.ainvoke(ASKED)
    assert raised.value.status == 503


async def test_a_cut_off_call_is_not_run() -> None:
    """The token limit ended the call in the middle of its arguments: LangChain would complete them
    and run the tool."""
    ran: list[str] = []

    @tool
    def pay(amount: str) -> str:
        """Pay."""
        ran.append(amount)
        return "paid"

    cut = Answer(tool_calls=[Call("pay", '{"amount": "1')], finish="length")
    with EmbeddedProvider(script=[cut]) as provider:
        agent = create_agent(model_at(provider, ("openai:gpt-4.1", "/v1")), tools=[pay])
        parts = [part async for part in agent.astream(ASKED, stream_mode=["messages", "values"])]
    last = parts[-1][1]["messages"][-1]
    assert isinstance(last, AIMessage)
    assert last.tool_calls == []
    assert [call["name"] for call in last.invalid_tool_calls] == ["pay"]
    assert ran == []
