"""The gateway, asked by OpenAI's own SDK. What is not installed is skipped (`make test-sdks`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from web_tools import serving

from decoding import decode, events_of, samples
from streamfold import ChatModel, init_chat_model
from streamfold.integrations.web import OpenAIVocabulary, gateway
from streamfold.integrations.web.openai import completion
from streamfold.testing import Answer, EmbeddedProvider

openai = pytest.importorskip("openai")

LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at something.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
HI: Any = [{"role": "user", "content": "Hi"}]
ROWS = {"openai:gpt-4.1": "/v1", "anthropic:claude-sonnet-4-5": "", "cohere:command-a-03-2025": ""}
EVERYTHING = Answer("Let me see.", "Hmm.", [{"name": "look", "args": {"at": "sky"}, "id": "c1"}])


@contextmanager
def asking(*script: Answer | str, key: str = "any", **options: float) -> Iterator[Any]:
    """OpenAI's client, and the provider behind the gateway."""
    with EmbeddedProvider(script, **options) as provider:
        models: dict[str, ChatModel] = {
            name: init_chat_model(name, base_url=provider.url + path, api_key="any", max_retries=0)
            for name, path in ROWS.items()
        }
        with serving(gateway(models, key="any")) as url:
            client = openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
            with closing(client):
                yield client, provider


def test_models() -> None:
    with asking() as (client, _):
        assert [model.id for model in client.models.list()] == list(ROWS)
        assert client.models.retrieve("openai:gpt-4.1").owned_by == "openai"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nobody")


@pytest.mark.parametrize("model", ROWS)
def test_an_answer_streamed_and_whole(model: str) -> None:
    """Text, reasoning, calls, finish reason and usage, by the SDK's own accumulator."""
    with asking(EVERYTHING, EVERYTHING) as (client, _):
        asked: Any = {"model": model, "messages": HI, "tools": [LOOK]}
        whole = client.chat.completions.create(**asked)
        with client.chat.completions.stream(
            **asked, stream_options={"include_usage": True}
        ) as stream:
            seen = [event.type for event in stream]
            full = stream.get_final_completion()
    assert {"content.delta", "content.done", "chunk"} <= set(seen)
    assert "tool_calls.function.arguments.done" in seen
    for answer in (whole, full):
        message = answer.choices[0].message
        assert message.content == "Let me see."
        assert message.reasoning_content == "Hmm."
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"at": "sky"}
        assert (call.type, call.function.name) == ("function", "look")
        assert answer.choices[0].finish_reason == "tool_calls"
    assert whole.usage.total_tokens == full.usage.total_tokens > 0
    assert whole.model == full.model


def test_a_round_of_tools() -> None:
    """The SDK's own messages go back as they came."""
    with asking(EVERYTHING, "Blue.") as (client, provider):
        first = client.chat.completions.create(model="gpt-4.1", messages=HI, tools=[LOOK])
        message = first.choices[0].message
        result = {"role": "tool", "tool_call_id": "c1", "content": "blue"}
        said = client.chat.completions.create(
            model="gpt-4.1", messages=[*HI, message, result], tools=[LOOK]
        )
        sent = provider.requests[-1].json()["messages"]
    assert said.choices[0].message.content == "Blue."
    assert sent[1]["tool_calls"][0]["id"] == "c1"


def test_structured_output() -> None:
    """`parse` gives objects, whoever answers."""
    pydantic = pytest.importorskip("pydantic")
    bird = pydantic.create_model("Bird", name=(str, ...))
    with asking(Answer('{"name": "Polly"}')) as (client, _):
        said = client.chat.completions.parse(model="gpt-4.1", messages=HI, response_format=bird)
    assert said.choices[0].message.parsed.name == "Polly"


def test_a_refusal() -> None:
    with asking(Answer("No.", finish="refusal")) as (client, _):
        said = client.chat.completions.create(model="gpt-4.1", messages=HI)
    assert (said.choices[0].message.refusal, said.choices[0].finish_reason) == ("No.", "stop")


def test_errors_are_the_sdks_own() -> None:
    """By status before the stream, and in it."""
    script = [Answer(error="rate_limit"), Answer(error="overloaded"), Answer("So", error="server")]
    with asking(*script) as (client, _):
        create = client.chat.completions.create
        with pytest.raises(openai.RateLimitError) as limited:
            create(model="gpt-4.1", messages=HI)
        assert limited.value.code == "rate_limit_exceeded"
        with pytest.raises(openai.InternalServerError):
            create(model="gpt-4.1", messages=HI, stream=True)
        stream = create(model="gpt-4.1", messages=HI, stream=True)
        assert next(stream).choices[0].delta.content == "So"
        with pytest.raises(openai.APIError, match="server had an error"):
            next(stream)
        with pytest.raises(openai.NotFoundError):
            create(model="nobody", messages=HI)
        with pytest.raises(openai.BadRequestError) as refused:
            create(model="gpt-4.1", messages=HI, n=2)
        assert refused.value.param == "n"
    with asking(key="wrong") as (client, _), pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_stream_that_is_closed_cancels_the_request() -> None:
    with asking(" ".join(["word"] * 400), chunk_delay=0.02) as (client, provider):
        stream = client.chat.completions.create(model="gpt-4.1", messages=HI, stream=True)
        assert next(stream).choices
        stream.close()
        provider.wait_for(lambda: provider.abandoned == 1)


# ---- OpenAI's schema -----------------------------------------------------------------------------

SAMPLES = {f"{sample.dialect}-{sample.case}": sample for sample in samples()}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_chunk_fits_the_schema(name: str) -> None:
    """The SDK's types, strictly: no field has another type, and none is missing."""
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    answer = decode(SAMPLES[name].dialect, SAMPLES[name].stream)
    vocabulary = OpenAIVocabulary(model="m", include_usage=True)
    payloads = [payload for event in events_of(answer) for payload in vocabulary.feed(event)]
    *chunks, done = [*payloads, *vocabulary.close()]
    assert done == b"[DONE]"
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(chunk, strict=True)
    if answer.error is None:
        whole = completion(answer.message, model="m")
        ChatCompletion.model_validate_json(json.dumps(whole), strict=True)
