"""Rounds with tools at every vendor: calls, results, and what the vendor wants back unchanged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from every_dialect import DIALECTS, model_of
from streamfold import AIMessageChunk, run_tool_calls, tool
from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, messages_from_dict, messages_to_dict
from streamfold.testing import Answer, Call, EmbeddedProvider


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    if city == "Nowhere":
        raise LookupError("no such city")
    return f"{city}: fine"


@tool
def wait(seconds: float) -> str:
    """Wait."""
    return f"waited {seconds:g} s"


ROUND = Answer(
    "Let me see.",
    reasoning="They ask for two things.",
    tool_calls=[
        Call("weather", {"city": "Oslo"}, "call_1"),
        Call("wait", {"seconds": 2}, "call_2"),
    ],
)
#: Models that think on request only, or whose thoughts are signed.
GIVEN: dict[str, dict[str, Any]] = {
    "anthropic": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "bedrock": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "gemini": {"model": "gemini-3-pro-preview"},
}
SIGNED = {"openai_responses", "anthropic", "bedrock", "gemini"}


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def kept_for_the_vendor(message: AIMessage) -> list[str]:
    """Signatures and the ids of items: what rides in `extras`."""
    return [
        text
        for block in message.content_blocks
        for key, text in (block.get("extras") or {}).items()
        if key != "field" and isinstance(text, str)
    ]


@pytest.mark.parametrize("stored", [False, True], ids=["held", "stored"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_round_with_two_calls_and_thoughts(dialect: str, streamed: bool, stored: bool) -> None:
    """The second request has the thoughts, the calls, the results, and what is the vendor's own;
    also after a database."""
    with EmbeddedProvider(script=[ROUND, "It is fine."]) as provider:
        model = model_of(dialect, provider).bind(**GIVEN.get(dialect, {}))
        model = model.bind_tools([weather, wait])
        if streamed:
            asked: AIMessage = sum(model.stream("Well?"), AIMessageChunk())
        else:
            asked = model.invoke("Well?")
        results = run_tool_calls(asked, [weather, wait])
        assert [r.text for r in results] == ["Oslo: fine", "waited 2 s"]
        said = [asked, *results]
        if stored:
            said = messages_from_dict(json.loads(json.dumps(messages_to_dict(said))))
        assert model.invoke([("user", "Well?"), *said]).text == "It is fine."
        sent = list(texts_in(provider.requests[-1].json()))
    kept = kept_for_the_vendor(asked)
    assert bool(kept) is (dialect in SIGNED)
    for text in (*kept, "They ask for two things.", "Let me see.", "Oslo: fine", "waited 2 s"):
        assert text in sent
    for id in ("call_1", "call_2"):
        assert sent.count(id) == 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_calls_that_went_wrong_are_told_to_the_model(dialect: str) -> None:
    """A failure, an unknown tool and unreadable arguments are results like others."""
    calls = [
        Call("weather", {"city": "Nowhere"}, "call_1"),
        Call("unheard", {"x": 1}, "call_2"),
        Call("weather", {"town": "Oslo"}, "call_3"),
    ]
    if dialect not in ("gemini", "ollama"):  # there arguments travel as an object
        calls.append(Call("weather", '{"city": "Os', "call_4"))
    with EmbeddedProvider(script=[Answer(tool_calls=calls), "I see."]) as provider:
        model = model_of(dialect, provider).bind_tools([weather])
        asked = model.invoke("Well?")
        results = run_tool_calls(asked, [weather])
        assert [r.tool_call_id for r in results] == [call.id for call in calls]
        assert {r.status for r in results} == {"error"}
        assert model.invoke([("user", "Well?"), asked, *results]).text == "I see."
        sent = " ".join(texts_in(provider.requests[-1].json()))
    for told in ("no such city", "no tool 'unheard'", "no argument 'town'"):
        assert told in sent


@pytest.mark.parametrize("dialect", DIALECTS)
def test_pieces_of_calls_grow_into_the_calls(dialect: str) -> None:
    """At every step the best reading so far; the last one is the verdict."""
    args = {"city": "A city with a long name, " * 4}
    with EmbeddedProvider(script=[Answer(tool_calls=[Call("weather", args, "c")])]) as provider:
        full = AIMessageChunk()
        seen = []
        for chunk in model_of(dialect, provider).bind_tools([weather]).stream("Well?"):
            full = full + chunk
            seen.append(full.tool_calls)
    cities = [calls[0]["args"].get("city", "") for calls in seen if calls]
    assert cities[-1] == args["city"]
    assert all(args["city"].startswith(city) for city in cities)
    assert full.tool_calls == full.to_message().tool_calls
    assert "".join(c["args"] or "" for c in full.tool_call_chunks).replace(" ", "") == (
        json.dumps(args).replace(" ", "")
    )


# ---- what is bound -------------------------------------------------------------------------------


def plain(x: int) -> int:
    """A function."""
    return x


class Dict(TypedDict):
    x: int


class Struct(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Data:
    x: int


Point = pydantic.create_model("Point", x=(int, ...))
OF_X = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
KINDS = [
    plain,
    tool(plain),
    Point,
    Dict,
    Struct,
    Data,
    {"title": "schema", **OF_X},
    {"name": "bare", "parameters": OF_X},
    {"name": "claude", "input_schema": OF_X},
    {"type": "function", "function": {"name": "openai", "parameters": OF_X}},
]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_kind_of_definition_is_called_at_every_vendor(dialect: str) -> None:
    """All bound at once, but for the two that share a name; the provider reads each schema."""
    names = ["plain", "Point", "Dict", "Struct", "Data", "schema", "bare", "claude", "openai"]
    script = [Answer(tool_calls=[Call(name, {"x": 1})]) for name in names]
    for left_out in (0, 1):
        tools = [kind for place, kind in enumerate(KINDS) if place != left_out]
        with EmbeddedProvider(script=script) as provider:
            model = model_of(dialect, provider).bind_tools(tools)
            called = [model.invoke("x is 1").tool_calls for _ in names]
            sent = list(texts_in(provider.requests[0].json()))
        assert [[call["name"] for call in calls] for calls in called] == [[n] for n in names]
        assert all(sent.count(name) == 1 for name in names)


CHOICES: list[tuple[Any, list[str]]] = [
    ("any", ["weather"]),
    ("required", ["weather"]),
    (True, ["weather"]),
    ("wait", ["wait"]),
    ({"type": "function", "function": {"name": "wait"}}, ["wait"]),
    ({"type": "tool", "name": "wait"}, ["wait"]),
    ("none", []),
    ({"type": "none"}, []),
    ("auto", ["weather"]),
    (None, ["weather"]),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("choice", "called"), CHOICES)
def test_the_choice_of_a_tool_is_obeyed(dialect: str, choice: Any, called: list[str]) -> None:
    """In all its forms, by a provider that calls the first tool unless it is told otherwise; at
    Ollama no call can be forced."""
    with EmbeddedProvider() as provider:
        model = model_of(dialect, provider).bind_tools([weather, wait], tool_choice=choice)
        if dialect == "ollama" and called and choice not in ("auto", None):
            with pytest.raises(ConfigurationError, match="cannot be made to call"):
                model.invoke("Hello!")
            return
        assert [call["name"] for call in model.invoke("Hello!").tool_calls] == called


# ---- what cannot be bound ------------------------------------------------------------------------

LONG = "n" * 65


def named(name: str) -> dict[str, Any]:
    return {"name": name, "description": "d", "parameters": {"type": "object", "properties": {}}}


#: Names, and the dialects whose vendors take them; nobody takes the first ones.
NAMES: list[tuple[str, set[str]]] = [
    ("get weather", set()),
    ("get/weather", set()),
    ("get\nweather", set()),
    ("weather!", set()),
    ("n" * 129, set()),
    ("fs.read", {"gemini", "cohere", "ollama"}),
    (LONG, {"anthropic", "gemini", "cohere", "ollama"}),
    ("погода", {"ollama"}),
    ("get-weather_2", set(DIALECTS)),
]


@pytest.mark.parametrize(("name", "takers"), NAMES, ids=[ascii(n[:12]) for n, _ in NAMES])
def test_names_that_the_vendor_does_not_take(name: str, takers: set[str]) -> None:
    """Refused when they are bound; nothing is sent."""
    with EmbeddedProvider() as provider:
        for dialect in DIALECTS:
            model = model_of(dialect, provider)
            if dialect in takers:
                model.bind_tools([named(name)])
                continue
            with pytest.raises(ConfigurationError, match=r"tool name .* cannot be sent"):
                model.bind_tools([named(name)])
        assert provider.requests == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("tools", "choice", "told"),
    [
        ([weather, named("weather")], None, "two tools are named 'weather'"),
        ([weather], "wether", "did you mean 'weather'"),
        ([weather], {"type": "function", "function": {"name": "wait"}}, "'wait', which is not"),
        ([weather], {"type": "tool", "name": "wait"}, "'wait', which is not bound"),
        ([weather], 5, "tool_choice is 5"),
        ([], "any", "no tools are bound"),
        (weather, None, "expected a list of tools"),
        ([5], None, "not understood"),
        ([lambda x: x], None, "has no annotation"),
        ([{"properties": {}, "type": "object"}], None, "without a title"),
    ],
)
def test_what_cannot_be_bound(dialect: str, tools: Any, choice: Any, told: str) -> None:
    """Typed, and before anything is sent."""
    with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match=told):
            model_of(dialect, provider).bind_tools(tools, tool_choice=choice)
        assert provider.requests == []


#: What a vendor cannot do: refused by the first call at the latest.
CANNOT: list[tuple[str, dict[str, Any], str]] = [
    ("ollama", {"tool_choice": "any"}, "cannot be made to call"),
    ("ollama", {"tool_choice": "weather"}, "cannot be made to call"),
    ("ollama", {"parallel_tool_calls": False}, "Ollama cannot be told so"),
    ("ollama", {"strict": True}, "strict is asked for tool 'weather', but Ollama"),
    ("gemini", {"parallel_tool_calls": False}, "one call at a time"),
    ("cohere", {"parallel_tool_calls": False}, "Cohere cannot be told so"),
]


@pytest.mark.parametrize(("dialect", "asked", "told"), CANNOT)
def test_what_a_vendor_cannot_do_is_an_error_before_the_request(
    dialect: str, asked: dict[str, Any], told: str
) -> None:
    """Never dropped in silence."""
    with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match=told):
            model_of(dialect, provider).bind_tools([weather], **asked).invoke("Well?")
        assert provider.requests == []


def test_a_tool_of_the_provider_can_be_chosen_by_its_type() -> None:
    """As every other tool by its name."""
    with EmbeddedProvider() as provider:
        model = model_of("openai_responses", provider)
        model.bind_tools([{"type": "web_search"}, Point], tool_choice="web_search").invoke("News?")
        assert provider.requests[0].json()["tool_choice"] == {"type": "web_search"}
