"""Structured output: the answer as an object of a type, or an error that says why not."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import anyio.to_thread
import msgspec
import pydantic
import pytest
import typing_extensions

from streamfold import init_chat_model, structured
from streamfold.errors import ConfigurationError, RateLimitError, StructuredOutputError
from streamfold.messages import AIMessage
from streamfold.testing import Answer, Call, EmbeddedProvider

METHODS = ["json_schema", "function_calling", "json_mode"]


class Genre(enum.Enum):
    DRAMA = "drama"
    COMEDY = "comedy"


class Actor(pydantic.BaseModel):
    name: str
    role: str = "?"


class Movie(pydantic.BaseModel):
    """A film."""

    title: str = pydantic.Field(description="its name")
    year: int
    genre: Genre = Genre.DRAMA
    cast: list[Actor] | None = None


class MovieDict(TypedDict):
    """A film."""

    title: Annotated[str, ..., "its name"]
    year: Annotated[int, ..., "when"]
    lead: NotRequired[Person]


class Person(typing_extensions.TypedDict):
    name: Annotated[str, ..., "who"]


class OtherDict(typing_extensions.TypedDict):
    """A film."""

    title: Annotated[str, ..., "its name"]
    year: int


@dataclasses.dataclass
class MovieData:
    title: str
    year: int
    next: MovieData | None = None


class MovieStruct(msgspec.Struct):
    title: str
    year: int
    kind: Literal["film", "series"] = "film"


MOVIE_JSON = {
    "title": "movie",
    "type": "object",
    "description": "A film.",
    "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["title", "year"],
}
FUNCTION = {
    "name": "movie",
    "description": "A film.",
    "parameters": {key: MOVIE_JSON[key] for key in ("type", "properties", "required")},
}
GIVEN = {"title": "Up", "year": 2009}
SCHEMAS: list[tuple[Any, Any]] = [
    (Movie, Movie(title="Up", year=2009)),
    (MovieDict, GIVEN),
    (OtherDict, GIVEN),
    (MovieData, MovieData("Up", 2009)),
    (MovieStruct, MovieStruct("Up", 2009)),
    (MOVIE_JSON, GIVEN),
    (FUNCTION, GIVEN),
    ({"type": "function", "function": FUNCTION}, GIVEN),
]
NAMES = ["pydantic", "typeddict", "extensions", "dataclass", "struct", "json", "bare", "function"]


def openai(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model(
        "gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", max_retries=0, **kwargs
    )


def anthropic(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return init_chat_model(
        "claude-sonnet-4-5", base_url=provider.url, api_key="k", max_retries=0, **kwargs
    )


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def answers(method: str, value: Any, name: str) -> Answer:
    """`value` in the way that `method` has it."""
    text = value if isinstance(value, str) else json.dumps(value)
    if method == "function_calling":
        return Answer(tool_calls=[Call(name, text if isinstance(value, str) else value)])
    return Answer(text)


def name_of(schema: Any) -> str:
    return schema.__name__ if isinstance(schema, type) else "movie"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("schema", "expected"), SCHEMAS, ids=NAMES)
def test_every_schema_by_every_method(schema: Any, expected: Any, method: str) -> None:
    """Classes come back as instances, TypedDicts and JSON schemas as dicts; streams end so, too."""
    script = [answers(method, GIVEN, name_of(schema))] * 2
    with EmbeddedProvider(script=script) as provider:
        model = openai(provider).with_structured_output(schema, method=method)
        got = model.invoke("Up?")
        assert got == expected
        assert type(got) is type(expected)
        last = list(model.stream("Up?"))[-1]
        assert last == expected
        assert type(last) is type(expected)
        sent = provider.requests[0].json()
    if method == "json_schema":
        assert sent["response_format"]["type"] == "json_schema"
        assert sent["response_format"]["json_schema"]["name"] == name_of(schema)
    elif method == "json_mode":
        assert sent["response_format"] == {"type": "json_object"}
    else:
        assert sent["tools"][0]["function"]["name"] == name_of(schema)
        assert sent["tool_choice"]["function"]["name"] == name_of(schema)


@pytest.mark.parametrize("make", [openai, anthropic])
@pytest.mark.parametrize(("schema", "expected"), SCHEMAS, ids=NAMES)
def test_a_provider_that_keeps_to_the_schema_satisfies_it(
    embedded: EmbeddedProvider, make: Any, schema: Any, expected: Any
) -> None:
    """By the default method, nulls of strict mode included."""
    got = make(embedded).with_structured_output(schema).invoke("Tell of the film Up.")
    assert type(got) is type(expected)


def test_the_default_method_follows_the_profile(embedded: EmbeddedProvider) -> None:
    """Else the dialect: schema for OpenAI, a tool call for Anthropic."""
    asked = [
        (openai(embedded), "response_format"),
        (anthropic(embedded, profile={}), "tools"),
        (openai(embedded, profile={"structured_output": False, "tool_calling": True}), "tools"),
    ]
    for model, field in asked:
        model.with_structured_output(MOVIE_JSON).invoke("Up?")
        assert field in embedded.requests[-1].json()


@pytest.mark.parametrize(
    ("schema", "strict", "told"),
    [(Movie, None, True), (Movie, True, True), (Movie, False, False)],
)
def test_strictness_is_told(
    embedded: EmbeddedProvider, schema: Any, strict: Any, told: bool
) -> None:
    """Strict wherever the schema allows it, unless told otherwise."""
    openai(embedded).with_structured_output(schema, strict=strict).invoke("Up?")
    sent = embedded.requests[-1].json()["response_format"]["json_schema"]
    assert sent["strict"] is told
    assert sent["description"] == "A film."
    assert ("genre" in sent["schema"]["required"]) is told


def test_free_form_schemas_are_not_strict(embedded: EmbeddedProvider) -> None:
    """They go out as they are, or are refused where strictness was asked for."""

    class Free(pydantic.BaseModel):
        data: dict[str, int]

    openai(embedded).with_structured_output(Free).invoke("Up?")
    sent = embedded.requests[-1].json()["response_format"]["json_schema"]
    assert sent["strict"] is False
    for method in ("json_schema", "function_calling"):
        with pytest.raises(ConfigurationError, match="strict"):
            openai(embedded).with_structured_output(Free, method=method, strict=True)
    with pytest.raises(ConfigurationError, match="json_mode"):
        openai(embedded).with_structured_output(Movie, method="json_mode", strict=True)


def test_wrong_schemas_and_methods_are_refused(embedded: EmbeddedProvider) -> None:
    """Before any request."""
    with pytest.raises(ConfigurationError, match="schema is"):
        openai(embedded).with_structured_output(int)
    with pytest.raises(ConfigurationError, match="method is 'xml'"):
        openai(embedded).with_structured_output(Movie, method="xml")


# ---- bad answers ---------------------------------------------------------------------------------

BAD: list[tuple[str, Answer, str]] = [
    ("json_schema", Answer("I cannot say."), "not JSON"),
    ("json_schema", Answer(""), "not JSON"),
    ("json_schema", Answer('{"title": "Up", "year": NaN}'), "not JSON"),
    ("json_schema", Answer("[1]"), "expected an object"),
    ("json_schema", Answer('{"title": "Up"}'), "does not fit"),
    ("json_schema", Answer('{"title": "Up", "year": "soon"}'), "does not fit"),
    ("json_schema", Answer('{"title": "U', finish="length"), "max_tokens"),
    ("json_schema", Answer("No way.", finish="refusal"), "refused: No way"),
    ("json_schema", Answer('{"ti', finish="content_filter"), "content filter"),
    ("json_mode", Answer("{'title': 'Up'}"), "not JSON"),
    ("function_calling", Answer("I would rather talk."), "did not call 'Movie'"),
    ("function_calling", Answer(tool_calls=[Call("Film", GIVEN)]), "did not call 'Movie'"),
    ("function_calling", Answer(tool_calls=[Call("Movie", '{"title": ')]), "unreadable"),
    (
        "function_calling",
        Answer(tool_calls=[Call("Movie", '{"title": ')], finish="length"),
        "max_tokens",
    ),
    ("function_calling", Answer(tool_calls=[Call("Movie", {"title": 1})]), "does not fit"),
]


@pytest.mark.parametrize(("method", "answer", "told"), BAD)
def test_a_bad_answer_is_an_error_with_the_message(method: str, answer: Answer, told: str) -> None:
    """Never None in silence: from invoke, from stream, and as `parsing_error` where asked for."""
    with EmbeddedProvider(script=[answer] * 4) as provider:
        model = openai(provider).with_structured_output(Movie, method=method)
        with pytest.raises(StructuredOutputError, match=told) as caught:
            model.invoke("Up?")
        assert isinstance(caught.value.raw, AIMessage)
        assert (
            answer.tool_calls or answer.finish == "refusal" or caught.value.raw.text == answer.text
        )
        with pytest.raises(StructuredOutputError, match=told):
            list(model.stream("Up?"))
        both = openai(provider).with_structured_output(Movie, method=method, include_raw=True)
        for got in (both.invoke("Up?"), list(both.stream("Up?"))[-1]):
            assert got["parsed"] is None
            assert isinstance(got["raw"], AIMessage)
            assert told in str(got["parsing_error"])


def test_include_raw_has_the_message_and_the_object() -> None:
    """And no error."""
    with EmbeddedProvider(script=[json.dumps(GIVEN)]) as provider:
        model = openai(provider).with_structured_output(Movie, include_raw=True)
        got = model.invoke("Up?")
    assert got["parsed"] == Movie(title="Up", year=2009)
    assert got["raw"].usage_metadata["output_tokens"] > 0
    assert got["parsing_error"] is None


def test_include_raw_does_not_swallow_errors_of_the_provider() -> None:
    """Only a bad answer is a parsing error."""
    with EmbeddedProvider(script=[Answer(error=429)]) as provider:
        model = openai(provider).with_structured_output(Movie, include_raw=True)
        with pytest.raises(RateLimitError):
            model.invoke("Up?")


@pytest.mark.parametrize(
    "text",
    ['```json\n{"title": "Up", "year": 2009}\n```', '\n```\n{"title":"Up","year":2009}```\n'],
)
def test_fenced_json_is_read(text: str) -> None:
    """Models without a JSON mode of their own like to fence it."""
    with EmbeddedProvider(script=[text, text]) as provider:
        model = openai(provider).with_structured_output(MOVIE_JSON, method="json_mode")
        assert model.invoke("Up?") == GIVEN
        assert list(model.stream("Up?"))[-1] == GIVEN


def test_another_call_beside_the_right_one_does_not_matter() -> None:
    """The call of the schema's name is the answer."""
    calls = [Call("other", {"x": 1}), Call("Movie", GIVEN)]
    with EmbeddedProvider(script=[Answer(tool_calls=calls)] * 2) as provider:
        model = openai(provider).with_structured_output(Movie, method="function_calling")
        assert model.invoke("Up?") == Movie(title="Up", year=2009)
        items = list(model.stream("Up?"))
    assert items[-1] == Movie(title="Up", year=2009)
    assert {"x": 1} not in items


def test_nulls_of_strict_mode_are_defaults() -> None:
    """Optional fields are answered with null and take their defaults, nested ones too."""
    answer = {"title": "Up", "year": 1, "genre": None, "cast": [{"name": "Ed", "role": None}]}
    with EmbeddedProvider(script=[json.dumps(answer)]) as provider:
        got = openai(provider).with_structured_output(Movie).invoke("Up?")
    assert got == Movie(title="Up", year=1, cast=[Actor(name="Ed")])


def test_recursive_objects() -> None:
    """A class that holds itself."""
    answer = {"title": "A", "year": 1, "next": {"title": "B", "year": 2, "next": None}}
    with EmbeddedProvider(script=[json.dumps(answer)]) as provider:
        got = openai(provider).with_structured_output(MovieData).invoke("Up?")
        sent = provider.requests[0].json()["response_format"]["json_schema"]
    assert got == MovieData("A", 1, MovieData("B", 2))
    assert sent["strict"] is True
    assert sent["schema"]["type"] == "object"


# ---- streaming -----------------------------------------------------------------------------------


def grows(before: Any, after: Any) -> bool:
    """Whether `after` continues `before`."""
    if isinstance(before, dict):
        return isinstance(after, dict) and all(
            key in after and grows(item, after[key]) for key, item in before.items()
        )
    if isinstance(before, list):
        return len(before) <= len(after) and all(map(grows, before, after))
    if isinstance(before, str):
        return isinstance(after, str) and after.startswith(before)
    return before == after or isinstance(before, int | float)


@pytest.mark.anyio
@pytest.mark.parametrize("method", METHODS)
async def test_partial_objects_grow_and_end_with_the_object(method: str) -> None:
    """Dicts, each a continuation of the one before, then the validated instance."""
    value = {
        "title": "A long title " * 5,
        "year": 1999,
        "genre": "comedy",
        "cast": [{"name": f"Actor {n}", "role": "lead"} for n in range(5)],
    }
    script = [answers(method, value, "Movie")]
    async with EmbeddedProvider(script=script, chunk_delay=0.001) as provider:
        model = openai(provider).with_structured_output(Movie, method=method)
        items = [item async for item in model.astream("Up?")]
    *partial, last = items
    assert last == Movie.model_validate(value)
    assert len(partial) > 5
    assert all(isinstance(item, dict) for item in partial)
    assert all(map(grows, partial, partial[1:]))
    assert grows(partial[-1], json.loads(last.model_dump_json()))


@pytest.mark.anyio
async def test_the_answer_is_parsed_a_bounded_number_of_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is parsed in all is a small multiple of the answer, however many pieces it has."""
    lengths: list[int] = []
    real = structured.best_reading

    def counted(raw: str) -> Any:
        lengths.append(len(raw))
        return real(raw)

    monkeypatch.setattr(structured, "best_reading", counted)
    value = {"title": "word " * 4000, "year": 1}
    text = json.dumps(value)
    async with EmbeddedProvider(script=[text]) as provider:
        model = openai(provider).with_structured_output(MOVIE_JSON, method="json_schema")
        items = [item async for item in model.astream("Up?")]
    assert items[-1] == value
    assert sum(lengths) < 12 * len(text)
    assert len(lengths) < 120


@pytest.mark.anyio
async def test_leaving_the_stream_closes_the_connection() -> None:
    """Early, after a partial object."""
    text = json.dumps({"title": "word " * 2000, "year": 1})
    async with EmbeddedProvider(script=[text], chunk_delay=0.01) as provider:
        model = openai(provider).with_structured_output(MOVIE_JSON)
        async with model.astream("Up?") as stream:
            assert await anext(stream) is not None
        await anyio.to_thread.run_sync(provider.wait_closed)
        assert provider.abandoned == 1


def test_events_are_those_of_the_model() -> None:
    """The model's own events, one end."""
    with EmbeddedProvider(script=[json.dumps(GIVEN)]) as provider:
        model = openai(provider).with_structured_output(Movie)
        events = list(model.stream_events("Up?"))
    names = [event["event"] for event in events]
    assert names[0] == "on_chat_model_start"
    assert names[-1] == "on_chat_model_end"
    assert set(names[1:-1]) == {"on_chat_model_stream"}


def test_configuration_reaches_the_model() -> None:
    """`with_config`, `bind` and the config of a call."""
    heard: list[Any] = []

    class Handler:
        def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
            heard.append((kwargs["tags"], kwargs["name"]))

    with EmbeddedProvider(script=[json.dumps(GIVEN)] * 3) as provider:
        model = openai(provider).with_structured_output(Movie)
        changed = model.with_config(tags=["a"], callbacks=[Handler()]).bind(temperature=0.5)
        changed.invoke("Up?", {"tags": ["b"], "run_name": "film"})
        assert heard == [(["a", "b"], "film")]
        assert provider.requests[0].json()["temperature"] == 0.5
        model.invoke("Up?")
        assert len(heard) == 1


def test_batches_of_objects() -> None:
    """In order, errors in their places where asked for, limits of `with_config` kept."""
    with EmbeddedProvider(script=[json.dumps(GIVEN), "no"]) as provider:
        model = openai(provider).with_structured_output(MOVIE_JSON)
        one = model.with_config(max_concurrency=1)
        got = one.batch(["a", "b"], return_exceptions=True)
    assert got[0] == GIVEN
    assert isinstance(got[1], StructuredOutputError)


def test_a_restarted_stream_ends_with_the_second_answer() -> None:
    """What came before the restart does not count."""
    first = Answer(json.dumps(GIVEN)[:12], error="overloaded")
    script = [first, json.dumps({"title": "Second", "year": 2})]
    with EmbeddedProvider(script=script) as provider:
        retried = openai(provider).with_retry(restart_streams=True, wait_exponential_jitter=False)
        model = retried.with_structured_output(MOVIE_JSON)
        items = list(model.stream("Up?"))
    assert items[-1] == {"title": "Second", "year": 2}
