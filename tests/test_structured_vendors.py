"""Structured output at every vendor: the same objects, asked for in each vendor's words."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pydantic
import pytest

from every_dialect import DIALECTS, model_of
from streamfold.errors import ConfigurationError, StructuredOutputError
from streamfold.schema import Inexpressible
from streamfold.testing import Answer, Call, EmbeddedProvider


class Actor(pydantic.BaseModel):
    name: str
    role: str | None = None


class Movie(pydantic.BaseModel):
    """A film."""

    title: str = pydantic.Field(description="its name", max_length=40)
    year: int = pydantic.Field(ge=1888)
    cast: list[Actor]
    budget: float | None = None


class Open(pydantic.BaseModel):
    """With parts of any shape."""

    data: dict[str, int]


@dataclasses.dataclass
class Chain:
    value: int
    next: Chain | None = None


UP = {"title": "Up", "year": 2009, "cast": [{"name": "Ed", "role": "Carl"}], "budget": None}
ANSWER = {
    "json_schema": Answer(json.dumps(UP)),
    "json_mode": Answer(json.dumps(UP)),
    "function_calling": Answer(tool_calls=[Call("Movie", UP)]),
}
#: Which fields of the request hold the schema, for each way to ask for it.
_ASKED: dict[tuple[str, str], Any] = {
    ("openai_chat", "json_schema"): lambda b: b["response_format"]["json_schema"]["schema"],
    ("openai_chat", "function_calling"): lambda b: b["tools"][0]["function"]["parameters"],
    ("openai_responses", "json_schema"): lambda b: b["text"]["format"]["schema"],
    ("openai_responses", "function_calling"): lambda b: b["tools"][0]["parameters"],
    ("anthropic", "json_schema"): lambda b: b["output_config"]["format"]["schema"],
    ("anthropic", "function_calling"): lambda b: b["tools"][0]["input_schema"],
    ("gemini", "json_schema"): lambda b: b["generationConfig"]["responseJsonSchema"],
    ("gemini", "function_calling"): lambda b: b["tools"][0]["functionDeclarations"][0][
        "parametersJsonSchema"
    ],
    ("bedrock", "json_schema"): lambda b: json.loads(
        b["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"]
    ),
    ("bedrock", "function_calling"): lambda b: b["toolConfig"]["tools"][0]["toolSpec"][
        "inputSchema"
    ]["json"],
    ("ollama", "json_schema"): lambda b: b["format"],
    ("ollama", "function_calling"): lambda b: b["tools"][0]["function"]["parameters"],
    ("cohere", "json_schema"): lambda b: b["response_format"]["json_schema"],
    ("cohere", "function_calling"): lambda b: b["tools"][0]["function"]["parameters"],
}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_vendor_answers_with_objects(dialect: str, method: Any) -> None:
    """Whole, streamed, and field by field; the schema is where the vendor looks for it."""
    with EmbeddedProvider(script=[ANSWER[method]] * 3) as provider:
        model = model_of(dialect, provider).with_structured_output(Movie, method=method)
        whole = model.invoke("Up?")
        assert whole == Movie.model_validate(UP)
        assert list(model.stream("Up?"))[-1] == whole
        *fields, last = model.stream_fields("Up?")
        assert last == ((), whole)
        assert (("cast", 0, "name"), "Ed") in fields
        assert fields[-1] == (("budget",), None)
        sent = _ASKED[dialect, method](provider.requests[0].json())
    assert list(sent["properties"]) == ["title", "year", "cast", "budget"]
    assert sent["properties"]["title"]["description"].startswith("its name")


@pytest.mark.parametrize(
    "dialect", ["openai_chat", "openai_responses", "gemini", "ollama", "cohere"]
)
def test_json_mode(dialect: str) -> None:
    """Where the vendor has one."""
    with EmbeddedProvider(script=[ANSWER["json_mode"]] * 2) as provider:
        model = model_of(dialect, provider).with_structured_output(Movie, method="json_mode")
        assert model.invoke("Up, as JSON?") == Movie.model_validate(UP)
        assert list(model.stream("Up, as JSON?"))[-1] == Movie.model_validate(UP)


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
def test_json_mode_where_there_is_none(dialect: str) -> None:
    """An error before the request."""
    with EmbeddedProvider() as provider:
        model = model_of(dialect, provider).with_structured_output(Movie, method="json_mode")
        with pytest.raises(ConfigurationError, match="no free JSON mode"):
            model.invoke("Up?")
        assert provider.requests == []


WORDS = [
    ("openai_chat", {"minimum": 1888}, True),
    ("anthropic", {"description": "{minimum: 1888}"}, False),
    ("bedrock", {"description": "{minimum: 1888}"}, False),
    ("gemini", {"minimum": 1888}, False),
    ("cohere", {"description": "{minimum: 1888}"}, False),
    ("ollama", {"minimum": 1888}, False),
]


@pytest.mark.parametrize(("dialect", "year", "complete"), WORDS)
def test_the_schema_is_in_the_words_of_the_vendor(
    dialect: str, year: dict[str, Any], complete: bool
) -> None:
    """What it has no keyword for is told; only OpenAI wants every property."""
    with EmbeddedProvider(script=[ANSWER["json_schema"]]) as provider:
        model = model_of(dialect, provider)
        model.with_structured_output(Movie, method="json_schema").invoke("Up?")
        sent = _ASKED[dialect, "json_schema"](provider.requests[0].json())
    assert year.items() <= sent["properties"]["year"].items()
    assert ("budget" in sent["required"]) is complete


@pytest.mark.parametrize("dialect", ["anthropic", "bedrock"])
@pytest.mark.parametrize(
    ("schema", "told"),
    [(Open, r"'Open' .*`\$\.data` is an object of any shape"), (Chain, "recursive")],
)
def test_a_schema_that_the_vendor_cannot_express(dialect: str, schema: Any, told: str) -> None:
    """Asked for by that method, an error that says which part; else it becomes a tool."""
    value = {"data": {"a": 1}} if schema is Open else {"value": 1, "next": {"value": 2}}
    answer = Answer(tool_calls=[Call(schema.__name__, value)])
    with EmbeddedProvider(script=[answer]) as provider:
        model = model_of(dialect, provider, profile={"structured_output": True})
        with pytest.raises(Inexpressible, match=told):
            model.with_structured_output(schema, method="json_schema")
        with pytest.raises(Inexpressible, match=told):
            model.with_structured_output(schema, strict=True)
        assert provider.requests == []
        got = model.with_structured_output(schema).invoke("x")
    assert got in (Open(data={"a": 1}), Chain(1, Chain(2)))


def test_without_tools_there_is_no_other_way() -> None:
    """The profile says that the model cannot call any."""
    with EmbeddedProvider() as provider:
        able = {"structured_output": True, "tool_calling": False}
        with pytest.raises(Inexpressible):
            model_of("anthropic", provider, profile=able).with_structured_output(Open)


# ---- calls that cannot be forced -----------------------------------------------------------------

THINKING = {"type": "enabled", "budget_tokens": 1024}
UNFORCED = [
    ("ollama", {}),
    ("anthropic", {"thinking": THINKING}),
    ("anthropic", {"thinking": {"type": "adaptive"}}),
    ("anthropic", {"reasoning_effort": "low"}),
    ("bedrock", {"thinking": THINKING}),
    ("bedrock", {"reasoning_effort": "low"}),
    ("openai_chat", {"profile": {"tool_choice": False, "tool_calling": True}}),
]


@pytest.mark.parametrize(("dialect", "given"), UNFORCED)
def test_where_a_call_cannot_be_forced_the_model_is_trusted(
    dialect: str, given: dict[str, Any]
) -> None:
    """The tool is bound without a choice; an answer without the call is an error, never None."""
    script = [ANSWER["function_calling"], "I would rather talk."]
    with EmbeddedProvider(script=script) as provider:
        model = model_of(dialect, provider, **given)
        asked = model.with_structured_output(Movie, method="function_calling")
        assert asked.invoke("Up?") == Movie.model_validate(UP)
        body = provider.requests[0].json()
        assert "tool_choice" not in body
        assert "toolChoice" not in body.get("toolConfig", {})
        with pytest.raises(StructuredOutputError, match="did not call 'Movie'") as caught:
            asked.invoke("Up?")
    assert caught.value.raw.text == "I would rather talk."


def test_a_forced_choice_stays_an_error_where_it_was_asked_for() -> None:
    """`bind_tools` says what it is told or nothing."""
    with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match="cannot be made to call"):
            model_of("ollama", provider).bind_tools([Movie], tool_choice="Movie").invoke("Up?")
        assert provider.requests == []


# ---- a class as response_format ------------------------------------------------------------------


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_class_as_response_format_asks_for_the_same(dialect: str) -> None:
    """Bound, with tools or for one call; the answer is then the message."""
    with EmbeddedProvider(script=[ANSWER["json_schema"]] * 3) as provider:
        model = model_of(dialect, provider)
        model.with_structured_output(Movie, method="json_schema").invoke("Up?")
        assert model.bind(response_format=Movie).invoke("Up?").text == ANSWER["json_schema"].text
        model.invoke("Up?", response_format=Movie)
        first, *others = (request.json() for request in provider.requests)
        assert others == [first, first]


@pytest.mark.parametrize("given", ["json", 5, int])
def test_what_is_no_response_format(given: Any) -> None:
    with EmbeddedProvider() as provider:
        with pytest.raises(ConfigurationError, match=r"response_format is|schema is"):
            model_of("openai_chat", provider).invoke("x", response_format=given)
        assert provider.requests == []
