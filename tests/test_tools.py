"""Tools: what the model is told of them, what they accept, and what comes out of a call."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import threading
from typing import Annotated, Any, Literal, TypedDict

import anyio
import anyio.to_thread
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import ToolException, arun_tool_calls, init_chat_model, run_tool_calls, tool
from streamfold.callbacks import BaseCallbackHandler
from streamfold.config import RunnableConfig
from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, ToolMessage
from streamfold.runs import current_run
from streamfold.testing import Answer, Call, EmbeddedProvider
from streamfold.tools import Tool, tool_definition


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


class Place(msgspec.Struct):
    city: str
    country: str = "?"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Person(pydantic.BaseModel):
    """Somebody."""

    name: str
    age: int = pydantic.Field(ge=0)


PICTURE = {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"}


class Search(TypedDict):
    """Look something up."""

    query: Annotated[str, ..., "what to look for"]
    limit: int


@tool
def weather(city: str, days: int = 1) -> str:
    """The weather of a city.

    Args:
        city: where,
            by its name
        days: how many
    """
    return f"{city}:{days}"


def call(name: str, args: Any, id: str = "c1") -> dict[str, Any]:
    return {"type": "tool_call", "name": name, "args": args, "id": id}


class Log(BaseCallbackHandler):
    """What was heard, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.heard.append(("start", kwargs["inputs"]))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.heard.append(("end", output))

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(("error", error))

    def on_tool_cancel(self, **kwargs: Any) -> None:
        self.heard.append(("cancel", None))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


# ---- what the model is told ----------------------------------------------------------------------


def test_a_bare_decorator_reads_the_function() -> None:
    """Name, description and schema come from the signature and the docstring."""
    assert (weather.name, weather.description) == ("weather", "The weather of a city.")
    assert weather.schema == {
        "type": "object",
        "properties": {
            "city": {"description": "where, by its name", "type": "string"},
            "days": {"description": "how many", "type": "integer", "default": 1},
        },
        "required": ["city"],
    }
    assert weather.args == weather.schema["properties"]


def test_the_decorator_takes_a_name_and_options() -> None:
    """`@tool("name", description=...)` and `@tool(description=...)` say it themselves."""

    @tool("find", description="Finds.")
    def one(q: str) -> str:
        return q

    @tool(description="Finds too.")
    async def two(q: str) -> str:
        return q

    assert (one.name, one.description) == ("find", "Finds.")
    assert (two.name, two.description) == ("two", "Finds too.")


def test_a_tool_is_still_its_function() -> None:
    """Calling a tool directly calls the function, unvalidated."""
    assert weather("Oslo", days=2) == "Oslo:2"
    assert weather.__name__ == "weather"


def test_a_tool_without_a_description_is_refused() -> None:
    """The model chooses by the description, so one is needed."""
    with pytest.raises(ConfigurationError, match="no description"):

        @tool
        def silent(x: int) -> int:
            return x


def test_a_name_as_a_keyword() -> None:
    assert tool(name="other", description="Named.")(Place).name == "other"


def test_what_does_not_say_its_arguments_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"int\(\) does not say which arguments"):
        tool_definition(int)


def test_positional_only_parameters_are_refused() -> None:
    """A model calls with names."""
    with pytest.raises(ConfigurationError, match="positional-only"):

        @tool
        def odd(x: int, /) -> int:
            """Odd."""
            return x


def test_an_annotation_that_is_not_defined_is_a_configuration_error() -> None:
    """The name that is missing is told, not a bare NameError."""
    with pytest.raises(ConfigurationError, match="Nowhere"):

        @tool
        def lost(x: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
            """Lost."""
            return 1


def test_an_argument_without_a_json_schema_is_refused_by_name() -> None:
    """The argument is named."""
    with pytest.raises(ConfigurationError, match="sock"):

        @tool
        def raw(sock: threading.Thread) -> int:
            """Raw."""
            return 1


def test_rich_annotations_become_schema() -> None:
    """Annotated texts and bounds, Literal, enums, optional and nested classes are all told."""

    @tool
    def rich(
        a: Annotated[str, "the a"],
        b: Annotated[int, msgspec.Meta(ge=1, le=9, description="the b")],
        c: Literal["x", "y"],
        d: Unit,
        e: Place,
        f: list[Point] | None = None,
        g: dict[str, float] | None = None,
    ) -> str:
        """Rich."""
        return ""

    props = rich.args
    assert props["a"] == {"type": "string", "description": "the a"}
    assert props["b"] == {"type": "integer", "minimum": 1, "maximum": 9, "description": "the b"}
    assert props["c"] == {"type": "string", "enum": ["x", "y"]}
    assert props["d"] == {"type": "string", "enum": ["c", "f"]}
    assert props["e"] == {"$ref": "#/$defs/Place"}
    assert props["f"]["anyOf"][0] == {"type": "array", "items": {"$ref": "#/$defs/Point"}}
    assert set(rich.schema["$defs"]) == {"Place", "Point"}
    assert rich.schema["required"] == ["a", "b", "c", "d", "e"]


def test_pydantic_field_constraints_in_annotations_count() -> None:
    """`Annotated[int, Field(ge=1)]` is told to the model and checked."""

    @tool
    def page(n: Annotated[int, pydantic.Field(ge=1, description="which")]) -> int:
        """A page."""
        return n

    assert page.args["n"] == {"type": "integer", "minimum": 1, "description": "which"}
    assert page.invoke({"n": 3}) == 3
    with pytest.raises(ToolException, match="'n'"):
        page.invoke({"n": 0})


def test_injected_and_variadic_parameters_are_not_told() -> None:
    """`config`, `*args` and `**kwargs` are none of the model's business."""

    @tool
    def quiet(x: int, *args: int, config: RunnableConfig, **kwargs: int) -> int:
        """Quiet."""
        return x

    assert list(quiet.args) == ["x"]


@pytest.mark.parametrize(
    ("schema", "given", "got"),
    [
        (Person, {"name": "A", "age": 1}, {"name": "A", "age": 1}),
        (Place, {"city": "Rome"}, {"city": "Rome", "country": "?"}),
        (Point, {"x": 1}, {"x": 1, "y": 0}),
        (Search, {"query": "q", "limit": 2}, {"query": "q", "limit": 2}),
    ],
)
def test_args_schema_takes_every_kind_of_class(schema: Any, given: Any, got: Any) -> None:
    """The function gets the fields of the validated object, defaults filled in."""

    @tool(args_schema=schema)
    def show(**kwargs: Any) -> Any:
        """Show."""
        return kwargs

    assert show.invoke(given) == got
    assert set(show.args) == set(got)
    missing = dict(given)
    missing.popitem()
    with pytest.raises(ToolException):
        show.invoke({} if schema is not Search else missing)


def test_args_schema_may_be_json_schema() -> None:
    """Unknown and missing arguments are refused, the rest is passed on."""
    schema = {
        "type": "object",
        "description": "By schema.",
        "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["q"],
    }

    @tool(args_schema=schema)
    def show(q: str, n: int = 0) -> Any:
        return q, n

    assert show.description == "By schema."
    assert show.invoke({"q": "a", "n": 2}) == ("a", 2)
    for bad in ({}, {"q": "a", "x": 1}):
        with pytest.raises(ToolException):
            show.invoke(bad)


@pytest.mark.parametrize(
    "bad",
    [{"q": 5}, {"q": "a", "n": "two"}, {"q": "a", "n": 1.5}, {"q": "a", "tags": "x"}],
)
def test_json_schema_arguments_of_the_wrong_type_are_refused(bad: Any) -> None:
    """Arguments are validated before the function runs, also where only a JSON schema is given."""
    schema = {
        "type": "object",
        "properties": {
            "q": {"type": "string"},
            "n": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }
    ran = []

    @tool(args_schema=schema)
    def show(**kwargs: Any) -> None:
        """Show."""
        ran.append(kwargs)

    show.invoke({"q": "a", "n": None, "tags": ["b"]})
    show.invoke({"q": "a", "n": 3})
    assert len(ran) == 2
    with pytest.raises(ToolException):
        show.invoke(bad)
    assert len(ran) == 2


def test_an_args_schema_of_another_kind_is_refused() -> None:
    """A list is no schema."""
    with pytest.raises(ConfigurationError, match="args_schema"):
        tool(args_schema=[1])(lambda x: x)


# ---- calling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "lacks the argument 'city'"),
        ({"city": "Oslo", "country": "no"}, "no argument 'country'"),
        ({"city": 5}, "argument 'city'"),
        ({"city": "Oslo", "days": "three"}, "argument 'days'"),
        ({"city": None}, "argument 'city'"),
        ({"city": "Oslo", "days": float("nan")}, "argument 'days'"),
        ({"city": ["Oslo"]}, "argument 'city'"),
    ],
)
def test_arguments_are_checked_before_the_function_runs(args: Any, told: str) -> None:
    """What does not fit is a ToolException that names the argument; the function never runs."""
    ran = []

    @tool
    def weather(city: str, days: int = 1) -> None:
        """Weather."""
        ran.append(city)

    with pytest.raises(ToolException, match=told):
        weather.invoke(args)
    with pytest.raises(ToolException):
        weather.invoke(call("weather", args))
    assert ran == []


def test_arguments_arrive_as_the_types_of_the_signature() -> None:
    """Enums, Structs, dataclasses and pydantic models are made of the model's JSON."""

    @tool
    def typed(unit: Unit, place: Place, points: list[Point], who: Person) -> Any:
        """Typed."""
        return unit, place, points, who

    args = {
        "unit": "f",
        "place": {"city": "Rome"},
        "points": [{"x": 1}],
        "who": {"name": "A", "age": 3},
    }
    assert typed.invoke(args) == (
        Unit.FAHRENHEIT,
        Place("Rome"),
        [Point(1)],
        Person(name="A", age=3),
    )


def test_a_value_alone_is_the_only_argument() -> None:
    """`tool.invoke("text")` works where there is one argument, and only there."""

    @tool
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert shout.invoke("a") == "A"
    with pytest.raises(ToolException, match="expected a dict"):
        weather.invoke("Oslo")


@pytest.mark.parametrize("typed", [True, False])
def test_a_tool_call_gives_a_tool_message_with_its_id(typed: bool) -> None:
    """With `type`, and without it as the guide prints calls."""
    given = call("weather", {"city": "Oslo"}, "id-7")
    if not typed:
        del given["type"]
    message = weather.invoke(given)
    assert message == ToolMessage("Oslo:1", tool_call_id="id-7", name="weather")


def test_arguments_named_like_a_call_are_arguments() -> None:
    """A tool whose own arguments are `name`, `args` and `id` is not fooled."""

    @tool
    def register(name: str, args: str, id: str) -> str:
        """Register."""
        return name + args + id

    assert register.invoke({"name": "a", "args": "b", "id": "c"}) == "abc"


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("text", "text"),
        ({"a": [1]}, '{"a":[1]}'),
        (None, "null"),
        (Place("Rome", "IT"), '{"city":"Rome","country":"IT"}'),
        (Person(name="A", age=1), '{"name":"A","age":1}'),
        ([Person(name="A", age=1), Unit.CELSIUS], '[{"name":"A","age":1},"c"]'),
        ({"who": Person(name="A", age=1)}, '{"who":{"name":"A","age":1}}'),
        (Unit.CELSIUS, "c"),
        (datetime.date(2025, 1, 2), "2025-01-02"),
        ([{"type": "text", "text": "x"}], [{"type": "text", "text": "x"}]),
        (PICTURE, [PICTURE]),
        ([{"type": "house", "rooms": 3}], '[{"type":"house","rooms":3}]'),
        ({"type": "text", "rows": 3}, '{"type":"text","rows":3}'),
        ([], "[]"),
        (threading.get_ident, str(threading.get_ident)),
    ],
)
def test_results_become_content(result: Any, content: Any) -> None:
    """Text and content blocks stay as they are; the rest becomes JSON, or its text."""

    @tool
    def give() -> Any:
        """Give."""
        return result

    message = give.invoke(call("give", {}))
    assert message.content == content
    assert give.invoke({}) is result


def test_content_and_artifact() -> None:
    """The content goes to the model, the artifact stays with the program."""

    @tool(response_format="content_and_artifact")
    def both() -> Any:
        """Both."""
        return "seen", {"rows": 3}

    message = both.invoke(call("both", {}))
    assert (message.content, message.artifact) == ("seen", {"rows": 3})
    assert both.invoke({}) == "seen"


def test_content_without_its_artifact_is_one_error_event() -> None:
    """A tool that promises a pair and returns none fails, with exactly one terminal event."""

    @tool(response_format="content_and_artifact")
    def half() -> Any:
        """Half."""
        return "only"

    log = Log()
    with pytest.raises(ConfigurationError, match="artifact"):
        half.invoke(call("half", {}), {"callbacks": [log]})
    assert log.names == ["start", "error"]


@pytest.mark.parametrize(
    ("handler", "content"),
    [(True, "no luck"), ("sorry", "sorry"), (lambda error: f"<{error}>", "<no luck>")],
)
def test_tool_errors_become_messages_on_request(handler: Any, content: str) -> None:
    """True gives the error's own text, a str is said instead, a function makes the text."""

    @tool(handle_tool_error=handler)
    def fails() -> str:
        """Fails."""
        raise ToolException("no luck")

    message = fails.invoke(call("fails", {}))
    assert (message.content, message.status) == (content, "error")


def test_tool_errors_are_raised_by_default_and_other_errors_always() -> None:
    """`handle_tool_error` is for ToolException; a bug stays a bug."""

    @tool
    def fails() -> str:
        """Fails."""
        raise ToolException("no luck")

    @tool(handle_tool_error=True)
    def broken() -> str:
        """Broken."""
        raise KeyError("bug")

    with pytest.raises(ToolException, match="no luck"):
        fails.invoke(call("fails", {}))
    with pytest.raises(KeyError):
        broken.invoke(call("broken", {}))


@pytest.mark.parametrize("handler", [True, "wrong arguments", lambda error: "made"])
def test_validation_errors_become_messages_on_request(handler: Any) -> None:
    """The function does not run, the model gets a text with status error."""
    ran = []

    @tool(handle_validation_error=handler)
    def strict(n: int) -> None:
        """Strict."""
        ran.append(n)

    message = strict.invoke(call("strict", {"n": "x"}))
    assert message.status == "error"
    assert message.content
    assert ran == []


def test_callbacks_hear_start_and_one_end() -> None:
    """Start has the arguments, end the output, error the error."""

    @tool
    def fails(n: int) -> str:
        """Fails."""
        raise KeyError(n)

    log = Log()
    weather.invoke({"city": "Oslo"}, {"callbacks": [log]})
    with pytest.raises(KeyError):
        fails.invoke({"n": 1}, {"callbacks": log})
    with pytest.raises(ToolException):
        fails.invoke({"n": "x"}, {"callbacks": log})
    assert log.names == ["start", "end", "start", "error", "start", "error"]
    assert log.heard[0] == ("start", {"city": "Oslo"})
    assert log.heard[1] == ("end", "Oslo:1")


def test_a_function_with_config_gets_what_nested_runs_inherit() -> None:
    """Tags, metadata and callbacks come along; the name and the id of the run do not."""

    @tool
    def look(config: RunnableConfig) -> Any:
        """Look."""
        return dict(config)

    config = {
        "tags": ["t"],
        "metadata": {"k": 1},
        "run_name": "mine",
        "run_id": "12345678-1234-1234-1234-123456789abc",
    }
    assert look.invoke({}, config) == {"tags": ["t"], "metadata": {"k": 1}}


def test_sync_functions_leave_the_loop_alone_and_know_their_run() -> None:
    """A sync tool runs in a thread, inside its run."""

    @tool
    def where() -> Any:
        """Where."""
        run = current_run()
        assert run is not None
        return threading.get_ident(), run.name

    async def main() -> None:
        ident, name = await where.ainvoke({})
        assert ident != threading.get_ident()
        assert name == "where"

    anyio.run(main)


@pytest.mark.anyio
async def test_async_tools_are_cancelled_with_one_cancel_event() -> None:
    """A tool that is cancelled says so to its handlers, once."""
    log = Log()

    @tool
    async def slow() -> None:
        """Slow."""
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01):
        await slow.ainvoke({}, {"callbacks": [log]})
    assert log.names == ["start", "cancel"]


def test_callables_of_every_kind_can_be_tools() -> None:
    """Objects with `__call__`, bound methods and functions that return awaitables."""

    class Adder:
        """Adds."""

        async def __call__(self, a: int) -> int:
            """Adds one."""
            return a + 1

        def method(self, a: int) -> int:
            """Adds two."""
            return a + 2

    adder = Adder()
    assert Tool(adder, name="adder").invoke({"a": 1}) == 2
    assert tool(adder.method).invoke({"a": 1}) == 3


# ---- the calls of a message ----------------------------------------------------------------------


@pytest.mark.anyio
async def test_calls_run_at_once_and_results_keep_their_order() -> None:
    """The first call waits for the last one, and still comes first."""
    last = anyio.Event()

    @tool
    async def step(n: int) -> int:
        """A step."""
        if n == 2:
            last.set()
        await last.wait()
        return n

    calls = [{"name": "step", "args": {"n": n}, "id": f"i{n}"} for n in range(3)]
    with anyio.fail_after(5):
        results = await arun_tool_calls(AIMessage("", tool_calls=calls), [step])
    assert [(r.tool_call_id, r.content) for r in results] == [("i0", "0"), ("i1", "1"), ("i2", "2")]


def test_each_call_has_its_own_error() -> None:
    """Unknown tools, bad arguments, failures and unreadable calls become messages for the model;
    the others run all the same."""

    @tool
    def boom() -> None:
        """Boom."""
        raise RuntimeError("broke")

    message = AIMessage(
        "",
        tool_calls=[
            {"name": "weather", "args": {"city": "Oslo"}, "id": "1"},
            {"name": "nope", "args": {}, "id": "2"},
            {"name": "weather", "args": {"town": 1}, "id": "3"},
            {"name": "boom", "args": {}, "id": "4"},
        ],
        invalid_tool_calls=[
            {"name": "weather", "args": '{"city": NaN}', "id": "5", "error": "not valid JSON"}
        ],
    )
    results = run_tool_calls(message, [weather, boom])
    assert [r.tool_call_id for r in results] == list("12345")
    assert [r.status for r in results] == ["success"] + ["error"] * 4
    told = [r.text for r in results]
    assert "'nope'" in told[1]
    assert "weather" in told[1]
    assert "'town'" in told[2]
    assert "broke" in told[3]
    assert "not valid JSON" in told[4]


def test_no_calls_no_results() -> None:
    """A message without calls gives an empty list."""
    assert run_tool_calls(AIMessage("hi"), [weather]) == []


@pytest.mark.anyio
async def test_cancelling_the_calls_ends_all_of_them() -> None:
    """Nothing keeps running."""
    ended = []

    @tool
    async def slow(n: int) -> None:
        """Slow."""
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(n)

    calls = [{"name": "slow", "args": {"n": n}, "id": str(n)} for n in range(3)]
    with anyio.move_on_after(0.02):
        await arun_tool_calls(AIMessage("", tool_calls=calls), [slow])
    assert sorted(ended) == [0, 1, 2]


# ---- definitions and bind_tools ------------------------------------------------------------------


def plus(a: int, b: int = 0) -> int:
    """Add numbers."""
    return a + b


PLUS_SCHEMA = {
    "title": "plus_schema",
    "description": "Add.",
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
}
NESTED = {
    "type": "function",
    "function": {"name": "nested", "description": "d", "parameters": {"type": "object"}},
}
FLAT = {"name": "flat", "description": "d", "parameters": {"type": "object", "properties": {}}}
ANTHROPIC = {"name": "native", "description": "d", "input_schema": {"type": "object"}}

KINDS: list[tuple[Any, str, str]] = [
    (weather, "weather", "city"),
    (plus, "plus", "a"),
    (Person, "Person", "name"),
    (Search, "Search", "query"),
    (Place, "Place", "city"),
    (Point, "Point", "x"),
    (PLUS_SCHEMA, "plus_schema", "a"),
    (NESTED, "nested", ""),
    (FLAT, "flat", ""),
    (ANTHROPIC, "native", ""),
]


@pytest.fixture(scope="module")
def provider() -> Any:
    with EmbeddedProvider() as server:
        yield server


def openai(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model("gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", **kwargs)


def anthropic(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model("claude-sonnet-4-5", base_url=provider.url, api_key="k", **kwargs)


def body(provider: EmbeddedProvider) -> Any:
    return provider.requests[-1].json()


@pytest.mark.parametrize(("given", "name", "argument"), KINDS)
def test_every_kind_of_definition_is_sent_to_openai(
    provider: EmbeddedProvider, given: Any, name: str, argument: str
) -> None:
    """As a function with a name, a description and an object schema."""
    openai(provider).bind_tools([given]).invoke("hi")
    (sent,) = body(provider)["tools"]
    assert sent["type"] == "function"
    assert sent["function"]["name"] == name
    assert sent["function"]["parameters"]["type"] == "object"
    assert not argument or argument in sent["function"]["parameters"]["properties"]


@pytest.mark.parametrize(("given", "name", "argument"), KINDS)
def test_every_kind_of_definition_is_sent_to_anthropic(
    provider: EmbeddedProvider, given: Any, name: str, argument: str
) -> None:
    """As a tool with an input schema."""
    anthropic(provider).bind_tools([given]).invoke("hi")
    (sent,) = body(provider)["tools"]
    assert sent["name"] == name
    assert sent["input_schema"]["type"] == "object"
    assert not argument or argument in sent["input_schema"]["properties"]


def test_tools_of_the_provider_are_passed_on(provider: EmbeddedProvider) -> None:
    """A dict that is no function goes out as it is."""
    native = {"type": "web_search_20250305", "name": "web_search", "max_uses": 2}
    anthropic(provider).bind_tools([native, weather]).invoke("hi")
    assert body(provider)["tools"][0] == native


CHOICES: list[tuple[Any, Any, Any]] = [
    ("auto", "auto", {"type": "auto"}),
    ("any", "required", {"type": "any"}),
    ("required", "required", {"type": "any"}),
    (True, "required", {"type": "any"}),
    ("none", "none", {"type": "none"}),
    (
        "weather",
        {"type": "function", "function": {"name": "weather"}},
        {"type": "tool", "name": "weather"},
    ),
    (
        {"type": "function", "function": {"name": "weather"}},
        {"type": "function", "function": {"name": "weather"}},
        {"type": "tool", "name": "weather"},
    ),
    (
        {"type": "tool", "name": "weather"},
        {"type": "function", "function": {"name": "weather"}},
        {"type": "tool", "name": "weather"},
    ),
]


@pytest.mark.parametrize(("choice", "to_openai", "to_anthropic"), CHOICES)
def test_tool_choice_is_said_in_the_words_of_the_vendor(
    provider: EmbeddedProvider, choice: Any, to_openai: Any, to_anthropic: Any
) -> None:
    """All spellings, both vendors."""
    openai(provider).bind_tools([weather], tool_choice=choice).invoke("hi")
    assert body(provider)["tool_choice"] == to_openai
    anthropic(provider).bind_tools([weather], tool_choice=choice).invoke("hi")
    assert body(provider)["tool_choice"] == to_anthropic


@pytest.mark.parametrize("choice", ["wether", {"type": "function", "function": {"name": "wether"}}])
def test_a_choice_that_is_not_bound_is_refused_before_the_request(
    provider: EmbeddedProvider, choice: Any
) -> None:
    """Never silently dropped; a near name is suggested for a str."""
    before = len(provider.requests)
    for make in (openai, anthropic):
        with pytest.raises(ConfigurationError, match="wether"):
            make(provider).bind_tools([weather], tool_choice=choice).invoke("hi")
    with pytest.raises(ConfigurationError, match="did you mean 'weather'"):
        openai(provider).bind_tools([weather], tool_choice="wether")
    assert len(provider.requests) == before


def test_two_tools_of_one_name_are_refused(provider: EmbeddedProvider) -> None:
    """The provider could not tell them apart."""
    with pytest.raises(ConfigurationError, match="'weather'"):
        openai(provider).bind_tools([weather, {**FLAT, "name": "weather"}])


def test_parallel_tool_calls_can_be_turned_off(provider: EmbeddedProvider) -> None:
    """Each vendor has its own word for it."""
    openai(provider).bind_tools([weather], parallel_tool_calls=False).invoke("hi")
    assert body(provider)["parallel_tool_calls"] is False
    anthropic(provider).bind_tools([weather], parallel_tool_calls=False).invoke("hi")
    assert body(provider)["tool_choice"]["disable_parallel_tool_use"] is True


def test_strict_tools_have_strict_schemas(provider: EmbeddedProvider) -> None:
    """Every property required, optional ones nullable, nothing further allowed."""
    openai(provider).bind_tools([weather], strict=True).invoke("hi")
    (sent,) = body(provider)["tools"]
    assert sent["function"]["strict"] is True
    assert sent["function"]["parameters"]["required"] == ["city", "days"]
    assert sent["function"]["parameters"]["additionalProperties"] is False


def test_nulls_that_strict_mode_demands_are_taken_back() -> None:
    """A strict model says null for what it leaves out; the default then applies."""
    assert weather.invoke(call("weather", {"city": "Oslo", "days": None})).content == "Oslo:1"


def test_what_cannot_be_strict_is_refused() -> None:
    """An object of any shape has no strict schema."""

    @tool
    def free(data: dict[str, Any]) -> None:
        """Free."""

    with pytest.raises(ConfigurationError, match="strict"):
        tool_definition(free, strict=True)


def test_what_is_no_tool_is_refused(provider: EmbeddedProvider) -> None:
    """A number is no tool."""
    with pytest.raises(ConfigurationError, match="not understood"):
        openai(provider).bind_tools([5])


def test_bind_tools_leaves_the_model_alone(provider: EmbeddedProvider) -> None:
    """A new model is returned."""
    model = openai(provider)
    model.bind_tools([weather])
    model.invoke("hi")
    assert "tools" not in body(provider)


@pytest.mark.parametrize("make", [openai, anthropic])
def test_a_whole_round_with_a_tool(make: Any) -> None:
    """Call, result, answer: the ids match on the wire."""
    script = [Answer(tool_calls=[Call("weather", {"city": "Oslo"}, "call_1")]), "It is fine."]
    with EmbeddedProvider(script=script) as provider:
        model = make(provider).bind_tools([weather])
        asked = model.invoke("Weather in Oslo?")
        results = run_tool_calls(asked, [weather])
        answer = model.invoke([("user", "Weather in Oslo?"), asked, *results])
        assert answer.text == "It is fine."
        sent = provider.requests[-1].json()["messages"][-1]
    assert "call_1" in json.dumps(sent)
    assert "Oslo:1" in json.dumps(sent)


# ---- any arguments -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(args=st.dictionaries(st.sampled_from(["city", "days", "x"]), JSON, max_size=3) | JSON)
def test_any_arguments_fit_or_are_a_tool_exception(args: Any) -> None:
    """Validation never fails in another way, and what passes has the types of the signature."""
    try:
        kwargs = weather.validated(args)
    except ToolException:
        return
    assert isinstance(kwargs["city"], str)
    assert isinstance(kwargs.get("days", 1), int)


@pytest.mark.anyio
async def test_the_stream_of_a_tool_is_its_result() -> None:
    """In one piece, whether it is read here or in a thread."""

    @tool
    def double(number: int) -> int:
        """Double it."""
        return 2 * number

    assert [item async for item in double.astream({"number": 2})] == [4]
    assert await anyio.to_thread.run_sync(lambda: list(double.stream({"number": 2}))) == [4]
