"""`stream_fields`: the fields of an answer, each as it is complete."""

from __future__ import annotations

import json
from typing import Any

import anyio.to_thread
import pydantic
import pytest

from every_dialect import model_of
from streamfold import init_chat_model, json_fields
from streamfold.errors import ConfigurationError, ProviderError, StructuredOutputError
from streamfold.messages import AIMessage
from streamfold.testing import Answer, Call, EmbeddedProvider


class Movie(pydantic.BaseModel):
    title: str
    year: int
    tags: list[str] = []


UP = {"title": "Up", "year": 2009, "tags": ["balloons", "dog"]}
FIELDS = [
    (("title",), "Up"),
    (("year",), 2009),
    (("tags", 0), "balloons"),
    (("tags", 1), "dog"),
    (("tags",), ["balloons", "dog"]),
]
METHODS = {
    "json_schema": Answer(json.dumps(UP)),
    "function_calling": Answer(tool_calls=[Call("other", {"x": 1}), Call("Movie", UP)]),
    "json_mode": Answer(f"```json\n{json.dumps(UP, indent=2)}\n```"),
}


def openai(provider: EmbeddedProvider, **kwargs: Any) -> Any:
    return model_of("openai_chat", provider, **kwargs)


@pytest.mark.anyio
@pytest.mark.parametrize("method", METHODS)
async def test_each_field_then_the_validated_object(method: Any) -> None:
    """Async and sync, by every method; another call beside the right one does not matter."""
    async with EmbeddedProvider(script=[METHODS[method]] * 2) as provider:
        model = openai(provider).with_structured_output(Movie, method=method)
        found = [pair async for pair in model.astream_fields("Up?")]
        assert found == [*FIELDS, ((), Movie.model_validate(UP))]
        assert await anyio.to_thread.run_sync(lambda: list(model.stream_fields("Up?"))) == found


@pytest.mark.anyio
async def test_fields_through_retries_and_fallbacks() -> None:
    """What fails before the first field is tried again or elsewhere, async and sync."""
    async with EmbeddedProvider(script=[Answer(error=400), json.dumps(UP)] * 4) as provider:
        model = openai(provider).with_structured_output(Movie)
        patient = model.with_retry(wait_exponential_jitter=False)
        for wrapped in (patient, model.with_fallbacks([model])):
            found = [pair async for pair in wrapped.astream_fields("Up?")]
            assert found == [*FIELDS, ((), Movie.model_validate(UP))]
            stream = wrapped.stream_fields("Up?")
            assert await anyio.to_thread.run_sync(list, stream) == found


def test_fields_of_what_is_no_object() -> None:
    model = init_chat_model("openai:gpt-4.1", api_key="k").with_retry()
    with pytest.raises(ConfigurationError, match="after with_structured_output"):
        list(model.stream_fields("hi"))


@pytest.mark.anyio
async def test_a_field_does_not_wait_for_those_after_it() -> None:
    """The first is there while the answer still comes; leaving closes the connection."""
    text = json.dumps({"title": "Up", "year": 1, "tags": ["word " * 2000]})
    async with EmbeddedProvider(script=[text], chunk_delay=0.01) as provider:
        model = openai(provider).with_structured_output(Movie)
        async with model.astream_fields("Up?") as stream:
            with anyio.fail_after(5):
                assert await anext(stream) == (("title",), "Up")
        await anyio.to_thread.run_sync(provider.wait_closed)
        assert provider.abandoned == 1


def until_error(model: Any) -> tuple[list[Any], Exception]:
    """The fields of an answer, and what they end with."""
    found = []
    try:
        for pair in model.stream_fields("Up?"):
            found.append(pair)
    except Exception as error:
        return found, error
    pytest.fail("nothing was raised")


BAD = [
    (Answer('{"title": "Up", "year": "soon", "tags": []}'), "does not fit", 3),
    (Answer('{"title": "Up", "ye', finish="length"), "max_tokens", 1),
    (Answer('{"title": "Up", year: 2009}'), "not JSON", 1),
    (Answer("No way.", finish="refusal"), "refused: No way", 0),
    (Answer("[1, 2]"), "expected an object", 0),
    (Answer('{"tags":' + "[" * 10_000), "nested deeper than 64", 0),
]


@pytest.mark.parametrize(("answer", "told", "count"), BAD)
def test_a_bad_answer_is_an_error_after_its_fields(answer: Answer, told: str, count: int) -> None:
    """With the message; with `include_raw` the last pair has it."""
    with EmbeddedProvider(script=[answer] * 2) as provider:
        model = openai(provider).with_structured_output(Movie)
        found, error = until_error(model)
        assert len(found) == count
        assert isinstance(error, StructuredOutputError)
        assert told in str(error)
        assert isinstance(error.raw, AIMessage)
        both = openai(provider).with_structured_output(Movie, include_raw=True)
        path, last = list(both.stream_fields("Up?"))[-1]
    assert path == ()
    assert last["parsed"] is None
    assert told in str(last["parsing_error"])


def test_what_breaks_the_stream_breaks_the_fields() -> None:
    """The provider's error, after what had come."""
    with EmbeddedProvider(script=[Answer(json.dumps(UP)[:30], error="overloaded")]) as provider:
        found, error = until_error(openai(provider).with_structured_output(Movie))
    assert found == FIELDS[:2]
    assert isinstance(error, ProviderError)


def test_a_model_chosen_at_run_time_streams_fields_as_well() -> None:
    """The operation is queued, the call goes to the chosen model."""
    with EmbeddedProvider(script=[json.dumps(UP)]) as provider:
        chosen = init_chat_model(
            base_url=f"{provider.url}/v1", api_key="k", configurable_fields=["model"]
        )
        model = chosen.with_structured_output(Movie)
        config = {"configurable": {"model": "openai:gpt-4.1"}}
        assert list(model.stream_fields("Up?", config))[:-1] == FIELDS


def test_an_answer_that_is_not_streamed_has_fields_too() -> None:
    """They come all at once."""
    with EmbeddedProvider(script=[json.dumps(UP)]) as provider:
        model = openai(provider, disable_streaming=True).with_structured_output(Movie)
        assert list(model.stream_fields("Up?"))[:-1] == FIELDS


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_long_answer_is_decoded_once(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of five thousand words in thousands of pieces."""
    decoded = 0
    real = json_fields._decode

    def counting(token: str) -> Any:
        nonlocal decoded
        decoded += len(token)
        return real(token)

    monkeypatch.setattr(json_fields, "_decode", counting)
    value = {"title": "word " * 5_000, "year": 1}
    answer = Answer(json.dumps(value))
    if method == "function_calling":
        answer = Answer(tool_calls=[Call("Movie", value)])
    with EmbeddedProvider(script=[answer]) as provider:
        model = openai(provider).with_structured_output(Movie, method=method)
        *fields, (_, last) = model.stream_fields("Up?")
    assert last.title == value["title"]
    assert fields == [(("title",), value["title"]), (("year",), 1)]
    assert decoded < 1.1 * len(json.dumps(value))
