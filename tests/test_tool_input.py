"""What is no tool, what are no arguments, and which calls of a message are run."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from every_dialect import model_of
from streamfold import AIMessageChunk, ToolException, run_tool_calls, tool
from streamfold.chunks import fold_events
from streamfold.deltas import MessageEnd, ToolCallDelta
from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage
from streamfold.testing import EmbeddedProvider
from streamfold.tools import Tool, tool_definition


@tool
def weather(city: str, days: float = 1) -> str:
    """The weather of a city."""
    return f"{city}: {days:g}"


def plus(a: int, b: int = 0) -> int:
    """Add numbers."""
    return a + b


def deep(levels: int) -> Any:
    return functools.reduce(lambda inner, _: [inner], range(levels), 1)


# ---- what is no tool -----------------------------------------------------------------------------


def undocumented(x: int) -> int:
    return x


def unannotated(x, y: int = 0):  # type: ignore[no-untyped-def]
    """Do it."""


NO_TOOLS: list[tuple[Any, str]] = [
    (undocumented, "'undocumented' has no description"),
    (unannotated, r"'x' of unannotated\(\) has no annotation"),
    (lambda: 1, "no description|cannot be sent"),
    (functools.partial(undocumented, x=1), "'undocumented' has no description"),
]


@pytest.mark.parametrize(("function", "told"), NO_TOOLS)
def test_functions_that_tell_the_model_too_little(function: Any, told: str) -> None:
    """Decorated or bound as they are: refused at once, by name."""
    for make in (tool, tool_definition):
        with pytest.raises(ConfigurationError, match=told):
            make(function)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"response_format": "both"}, "response_format is 'both'"),
        ({"args_schema": int}, "args_schema is"),
    ],
)
def test_options_that_cannot_be_right(options: Any, told: str) -> None:
    """The value and what was expected."""
    with pytest.raises(ConfigurationError, match=told):
        tool(**options)(plus)


@pytest.mark.parametrize("name", ["get weather", "a/b", "a\nb", "<lambda>", "n" * 129])
def test_names_that_no_vendor_takes(name: str) -> None:
    """Known when the tool is made."""
    with pytest.raises(ConfigurationError, match="tool name"):
        tool(name)(plus)
    with pytest.raises(ConfigurationError, match="expected a name"):
        tool(5)(plus)  # type: ignore[call-overload]


@pytest.mark.parametrize("strict", [None, True])
def test_a_schema_nested_without_end_is_no_schema(strict: Any) -> None:
    """Ten thousand levels, in a dict: an error of ours."""
    schema: Any = {"type": "string"}
    for _ in range(10_000):
        schema = {"type": "array", "items": schema}
    given = {"title": "f", "type": "object", "properties": {"a": schema}}
    with pytest.raises(ConfigurationError, match="'f' is nested deeper than 100 levels"):
        tool_definition(given, strict=strict)


# ---- definitions ---------------------------------------------------------------------------------


def test_a_class_without_a_docstring_has_no_description() -> None:
    """Its fields speak for it; an empty text is not sent."""
    function = tool_definition(pydantic.create_model("Point", x=(int, ...)))["function"]
    assert "description" not in function


def test_a_partial_function_is_a_tool() -> None:
    """Under the name of the function."""
    bound = Tool(functools.partial(plus, b=5))
    assert (bound.name, bound.description) == ("plus", "Add numbers.")
    assert bound.invoke({"a": 1}) == 6


@pytest.mark.parametrize(
    "given",
    [
        {
            "name": "f",
            "description": "d",
            "parameters": {"type": "object", "properties": {"a": {}}},
        },
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
        {"type": "web_search"},
        {"googleSearch": {}},
    ],
)
def test_dicts_go_out_as_they_are(given: dict[str, Any]) -> None:
    """The vendor's own and OpenAI's."""
    assert tool_definition(given) == given


@pytest.mark.parametrize(
    "given",
    [
        {"name": "f", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}},
        {"title": "f", "type": "object", "properties": {"a": {"type": "string"}}},
        {
            "type": "function",
            "cache": 1,
            "function": {
                "name": "f",
                "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
            },
        },
    ],
)
def test_dicts_become_strict_where_that_is_asked_for(given: dict[str, Any]) -> None:
    """In whatever form; what else they say stays. One that says so itself is ready."""
    definition = tool_definition(given, strict=True)
    function = definition["function"]
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["a"]
    assert function["parameters"]["additionalProperties"] is False
    assert definition.get("cache") == given.get("cache")
    assert tool_definition(definition, strict=True) == definition
    assert tool_definition(given, strict=False)["function"]["strict"] is False


# ---- arguments -----------------------------------------------------------------------------------

NESTED = deep(10_000)
BAD_ARGS: list[tuple[Any, str]] = [
    ({"city": "Oslo", "days": float("nan")}, "'days' of 'weather' is no JSON: nan is no JSON"),
    ({"city": "Oslo", "days": float("inf")}, "'days' of 'weather' is no JSON: inf is no JSON"),
    ({"city": NESTED}, "'city' of 'weather' is no JSON: nested deeper than 64 levels"),
    (["Oslo"], "expected an object"),
    (NESTED, "expected an object"),
    ("Oslo", "expected an object"),
    (None, "expected an object"),
]


@pytest.mark.parametrize(("args", "told"), BAD_ARGS, ids=range(len(BAD_ARGS)))
def test_arguments_that_json_cannot_hold(args: Any, told: str) -> None:
    """They come from outside: refused with the place, and as a message on request."""
    call = {"type": "tool_call", "name": "weather", "args": args, "id": "c"}
    with pytest.raises(ToolException, match=told):
        weather.invoke(call)
    patient = tool(handle_validation_error=True)(weather.function)
    message = patient.invoke(call)
    assert message.status == "error"
    assert told.split(": ")[-1] in message.text


class Model(pydantic.BaseModel):
    """By pydantic."""

    a: int
    b: int = 0


class Struct(msgspec.Struct):
    """By msgspec."""

    a: int
    b: int = 0


@dataclasses.dataclass
class Data:
    """By dataclasses."""

    a: int
    b: int = 0


class Dict(TypedDict, total=False):
    """By typing."""

    a: int
    b: int


class Open(pydantic.BaseModel, extra="allow"):
    a: int
    b: int = 0


@pytest.mark.parametrize("schema", [Model, Struct, Data, Dict])
def test_further_arguments_are_refused_by_every_kind_of_schema(schema: Any) -> None:
    """As by a signature: what a model makes up is told to it."""

    @tool(args_schema=schema)
    def show(**kwargs: Any) -> Any:
        """Show."""
        return kwargs

    assert show.invoke({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(ToolException, match="'show' has no argument 'c'"):
        show.invoke({"a": 1, "c": 3})


def test_further_arguments_where_the_schema_has_room_for_them() -> None:
    """`extra="allow"`, and a field under its alias or its name."""

    class Aliased(pydantic.BaseModel, populate_by_name=True):
        a: int = pydantic.Field(alias="A")

    def show(**kwargs: Any) -> Any:
        """Show."""
        return kwargs

    assert tool(args_schema=Open)(show).invoke({"a": 1, "c": 3})["a"] == 1
    aliased = tool(args_schema=Aliased)(show)
    assert aliased.invoke({"A": 1}) == aliased.invoke({"a": 1}) == {"a": 1}


# ---- which calls are run -------------------------------------------------------------------------


def test_results_are_in_the_order_of_the_message() -> None:
    """Unreadable calls in their place among the others."""
    events = [
        ToolCallDelta('{"city": ', 0, id="1", name="weather"),
        ToolCallDelta('{"a": 1}', 1, id="2", name="plus"),
        ToolCallDelta("[]", 2, id="3", name="plus"),
        ToolCallDelta('{"a": 2, "b": 3}', 3, id="4", name="plus"),
        MessageEnd("tool_calls"),
    ]
    results = run_tool_calls(fold_events(events).to_message(), [weather, plus])
    assert [(r.tool_call_id, r.status) for r in results] == [
        ("1", "error"),
        ("2", "success"),
        ("3", "error"),
        ("4", "success"),
    ]
    assert [r.text for r in results][1::2] == ["1", "5"]


def test_half_a_call_is_not_run() -> None:
    """A chunk whose stream was left shows the best reading; running is for what has arrived."""
    half = fold_events([ToolCallDelta('{"city": "Os', 0, id="1", name="weather")])
    assert half.tool_calls[0]["args"] == {"city": "Os"}
    (result,) = run_tool_calls(half, [weather])
    assert result.status == "error"
    assert "cut off" in result.text
    whole = half + AIMessageChunk(tool_call_chunks=[{"args": 'lo"}', "index": 0}])
    (result,) = run_tool_calls(whole, [weather])
    assert result.text == "Oslo: 1"


def test_what_was_bound_can_be_given() -> None:
    """Functions run as tools do; classes and the provider's tools have no code to run."""
    calls = [
        {"name": "plus", "args": {"a": 1, "b": 1}, "id": "1"},
        {"name": "Model", "args": {"a": 1}, "id": "2"},
    ]
    message = AIMessage("", tool_calls=calls)
    results = run_tool_calls(message, [plus, Model, {"type": "web_search"}])
    assert [r.text for r in results] == ["2", "there is no tool 'Model'; there are plus"]
    with pytest.raises(ConfigurationError, match="expected an AIMessage"):
        run_tool_calls("plus(1)", [plus])  # type: ignore[arg-type]


def test_tools_may_be_given_to_one_call() -> None:
    """Without binding them."""
    with EmbeddedProvider() as provider:
        model = model_of("openai_chat", provider)
        model.invoke("Weather in Oslo?", tools=[weather, plus])
        model.bind(tools=[weather, plus]).invoke("Weather in Oslo?")
        one, two = (json.loads(request.body)["tools"] for request in provider.requests)
    assert one == two
    assert [t["function"]["name"] for t in one] == ["weather", "plus"]
