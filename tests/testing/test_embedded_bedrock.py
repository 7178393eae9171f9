"""The embedded provider as Amazon Bedrock: AWS's own SDK reads it, and so do we."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from streamfold.chat_models import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.errors import (
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamfoldError,
)
from streamfold.messages import AIMessage, HumanMessage, ToolMessage
from streamfold.testing import Answer, EmbeddedProvider, Failure

CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
NOVA = "amazon.nova-2-lite-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
SPEC = {
    "toolSpec": {
        "name": "get_weather",
        "description": "The weather in a city",
        "inputSchema": {"json": WEATHER["parameters"]},
    }
}
ASK = [{"role": "user", "content": [{"text": "Weather in Paris and Rome?"}]}]


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as found:
        yield found


@contextmanager
def sdk(provider: EmbeddedProvider, key: str = "AKIAEXAMPLE") -> Iterator[Any]:
    session = botocore.session.Session()
    session.set_credentials(key, "secret")
    client = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=provider.url,
        config=Config(retries={"max_attempts": 0}),
    )
    try:
        yield client
    finally:
        client.close()


def events_of(client: Any, **asked: Any) -> tuple[list[Any], Exception | None]:
    """The events of a stream, and what ended it."""
    events: list[Any] = []
    with closing(client.converse_stream(**asked)["stream"]) as stream:
        try:
            events.extend(stream)
        except EventStreamError as error:
            return events, error
    return events, None


def ours(provider: EmbeddedProvider, name: str = CLAUDE, **params: Any) -> Any:
    fields = {"base_url": provider.url, "api_key": "any", "max_retries": 0, **params}
    return init_chat_model(name, model_provider="bedrock", **fields)


# ---- AWS's SDK -----------------------------------------------------------------------------------


def test_the_sdk_reads_an_answer(provider: EmbeddedProvider) -> None:
    """With the fields that its service model demands, on the path it asks."""
    with sdk(provider) as client:
        answer = client.converse(modelId=ARN, messages=ASK, toolConfig={"tools": [SPEC]})
    uses = [block["toolUse"] for block in answer["output"]["message"]["content"]]
    assert [(use["name"], use["input"]) for use in uses] == [
        ("get_weather", {"city": "Paris"}),
        ("get_weather", {"city": "Rome"}),
    ]
    assert answer["stopReason"] == "tool_use"
    usage = answer["usage"]
    assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"] > 0
    assert answer["metrics"]["latencyMs"] > 0
    assert provider.requests[0].path == f"/model/{ARN}/converse"


def test_the_sdk_reads_a_stream(provider: EmbeddedProvider) -> None:
    """Its events add up to the answer that is not streamed, ids included."""
    asked = {
        "modelId": CLAUDE,
        "messages": ASK,
        "toolConfig": {"tools": [SPEC]},
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    }
    with sdk(provider) as client:
        whole = client.converse(**asked)["output"]["message"]["content"]
        events, _ = events_of(client, **asked)
    names = [name for event in events for name in event]
    assert (names[0], names[-2:]) == ("messageStart", ["messageStop", "metadata"])
    blocks: dict[int, Any] = {}
    for event in events:
        if "contentBlockStart" in event:
            use = event["contentBlockStart"]["start"]["toolUse"]
            blocks[event["contentBlockStart"]["contentBlockIndex"]] = {**use, "input": ""}
        delta = event.get("contentBlockDelta")
        if delta and "toolUse" in delta["delta"]:
            blocks[delta["contentBlockIndex"]]["input"] += delta["delta"]["toolUse"]["input"]
        elif delta:
            inner = blocks.setdefault(delta["contentBlockIndex"], {})
            for key, piece in delta["delta"]["reasoningContent"].items():
                inner[key] = inner.get(key, "") + piece
    thought, *uses = blocks.values()
    assert {"reasoningContent": {"reasoningText": thought}} == whole[0]
    assert [{"toolUse": {**use, "input": json.loads(use["input"])}} for use in uses] == whole[1:]


def test_the_sdk_reads_a_search(provider: EmbeddedProvider) -> None:
    with sdk(provider) as client:
        answer = client.converse(
            modelId=NOVA,
            messages=[{"role": "user", "content": [{"text": "News of Rīga?"}]}],
            toolConfig={"tools": [{"systemTool": {"name": "nova_grounding"}}]},
        )
    content = answer["output"]["message"]["content"]
    use, result, said, cited = content
    assert use["toolUse"]["type"] == "server_tool_use"
    assert result["toolResult"]["toolUseId"] == use["toolUse"]["toolUseId"]
    assert said["text"]
    assert cited["citationsContent"]["citations"][0]["location"]["web"]["url"].startswith(
        "https://"
    )


@pytest.mark.parametrize(
    ("failure", "name", "status"),
    [
        ("rate_limit", "ThrottlingException", 429),
        ("overloaded", "ServiceUnavailableException", 503),
        ("server", "InternalServerException", 500),
        ("not_found", "ResourceNotFoundException", 404),
        ("context_overflow", "ValidationException", 400),
    ],
)
def test_the_sdk_reads_errors(failure: Any, name: str, status: int) -> None:
    """As the exceptions it has for them, before an answer and inside a stream."""
    script = [Answer(error=failure), Answer("Half an", error=failure)]
    with EmbeddedProvider(script) as provider, sdk(provider) as client:
        with pytest.raises(ClientError) as caught:
            client.converse(modelId=CLAUDE, messages=ASK)
        events, error = events_of(client, modelId=CLAUDE, messages=ASK)
    response = caught.value.response
    assert response["Error"]["Code"] == name
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert response["ResponseMetadata"]["RequestId"]
    deltas = [event.get("contentBlockDelta", {}).get("delta", {}) for event in events]
    assert "".join(delta.get("text", "") for delta in deltas) == "Half an"
    assert error is not None


def test_the_sdk_is_refused_with_the_wrong_key(provider: EmbeddedProvider) -> None:
    refused = pytest.raises(ClientError, match="UnrecognizedClientException")
    with sdk(provider, key="wrong") as client, refused:
        client.converse(modelId=CLAUDE, messages=ASK)


# ---- our models ----------------------------------------------------------------------------------


def streamed(model: Any, *args: Any, **kwargs: Any) -> AIMessage:
    return sum(model.stream(*args, **kwargs), AIMessageChunk()).to_message()


CASES: list[tuple[str, dict[str, Any], str]] = [
    (CLAUDE, {}, "Hello there"),
    (CLAUDE, {"reasoning_effort": "low"}, "Hello there"),
    (NOVA, {"reasoning_effort": "low"}, "Привет"),
    ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "low"}, "Hello"),
    (CLAUDE, {"tools": [WEATHER]}, "Weather in Paris and Rome?"),
    (CLAUDE, {"tools": [WEATHER], "parallel_tool_calls": False}, "Weather in Paris and Rome?"),
    (CLAUDE, {"tools": [WEATHER], "tool_choice": "get_weather"}, "Weather in Paris and Rome?"),
    (CLAUDE, {"tools": [WEATHER], "tool_choice": "none"}, "Weather in Paris and Rome?"),
    (NOVA, {"tools": [{"type": "web_search"}]}, "News of Rīga"),
    (CLAUDE, {"max_tokens": 5}, "Tell me more"),
    (CLAUDE, {"stop": ["there"]}, "Hello there"),
    (
        CLAUDE,
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": WEATHER["parameters"]},
            }
        },
        "Weather in Paris",
    ),
]


@pytest.mark.parametrize(("name", "params", "prompt"), CASES)
def test_streamed_and_whole_agree(
    provider: EmbeddedProvider, name: str, params: dict[str, Any], prompt: str
) -> None:
    model = ours(provider, name)
    whole = model.invoke(prompt, **params)
    assert streamed(model, prompt, **params) == whole
    assert whole.content_blocks
    paths = [request.path for request in provider.requests]
    assert paths == [f"/model/{name}/converse", f"/model/{name}/converse-stream"]


def test_what_comes_of_the_parameters(provider: EmbeddedProvider) -> None:
    model = ours(provider)
    parallel = model.invoke("Weather in Paris and Rome?", tools=[WEATHER])
    assert [call["args"] for call in parallel.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    single = model.invoke("Weather in Paris and Rome?", tools=[WEATHER], parallel_tool_calls=False)
    assert len(single.tool_calls) == 1
    none = model.invoke("Weather in Paris?", tools=[WEATHER], tool_choice="none")
    assert (none.tool_calls, none.finish_reason) == ([], "stop")
    thought = model.invoke("Hello", reasoning_effort="low").content_blocks[0]
    assert thought["type"] == "reasoning"
    assert thought["extras"]["signature"]
    assert model.invoke("Tell me more", max_tokens=5).finish_reason == "length"
    cut = model.invoke("Hello there", stop=["there"])
    assert cut.response_metadata["stop_reason"] == "stop_sequence"
    asked = {"type": "json_schema", "json_schema": {"schema": WEATHER["parameters"]}}
    found = json.loads(model.invoke("Weather in Paris", response_format=asked).text)
    assert found == {"city": "Paris"}


def test_a_conversation_with_tools_goes_on(provider: EmbeddedProvider) -> None:
    """Reasoning, calls and results go back, and the server takes them."""
    model = ours(provider)
    asked = HumanMessage("Weather in Paris and Rome?")
    answer = model.invoke([asked], tools=[WEATHER], reasoning_effort="low")
    results = [
        ToolMessage("" if n else "Sunny", tool_call_id=str(call["id"]))
        for n, call in enumerate(answer.tool_calls)
    ]
    last = model.invoke([asked, answer, *results], tools=[WEATHER])
    assert "Sunny" in last.text
    sent = provider.requests[-1].json()["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert sent[1]["content"][0]["reasoningContent"]["reasoningText"]["signature"]
    with pytest.warns(UserWarning, match="sent as text"):
        assert model.invoke([asked, answer, *results]).text


def test_a_search_goes_back(provider: EmbeddedProvider) -> None:
    model = ours(provider, NOVA)
    tools = [{"type": "web_search"}]
    answer = streamed(model, "News of Rīga?", tools=tools)
    kinds = [block["type"] for block in answer.content_blocks]
    assert kinds == ["server_tool_call", "server_tool_result", "text", "text"]
    assert answer.content_blocks[3]["annotations"][0]["url"].startswith("https://")
    model.invoke([HumanMessage("News of Rīga?"), answer, HumanMessage("More")], tools=tools)
    sent = provider.requests[-1].json()["messages"][1]["content"]
    assert [next(iter(block)) for block in sent] == [
        "toolUse",
        "toolResult",
        "text",
        "citationsContent",
    ]


FAILURES: list[tuple[Any, type[ProviderError]]] = [
    ("bad_request", InvalidRequestError),
    ("authentication", PermissionDeniedError),
    ("permission", PermissionDeniedError),
    ("not_found", NotFoundError),
    ("too_large", InvalidRequestError),
    ("context_overflow", ContextOverflowError),
    ("rate_limit", RateLimitError),
    ("quota", InvalidRequestError),
    ("server", ServerError),
    ("overloaded", OverloadedError),
]


@pytest.mark.parametrize(("kind", "expected"), FAILURES)
def test_errors(kind: Any, expected: type[ProviderError]) -> None:
    refused = pytest.raises(ProviderError)
    with EmbeddedProvider([Answer(error=Failure(kind))]) as provider, refused as caught:
        ours(provider).invoke("hi")
    error = caught.value
    assert type(error) is expected
    assert error.type is not None
    assert error.type.endswith("Exception")
    assert error.request_id


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rate_limit", RateLimitError),
        ("overloaded", OverloadedError),
        ("server", ServerError),
        ("context_overflow", ContextOverflowError),
        ("authentication", ServerError),
    ],
)
def test_errors_in_streams(kind: Any, expected: type[ProviderError]) -> None:
    with EmbeddedProvider([Answer("Half an", error=kind)]) as provider:
        chunks = []
        with pytest.raises(ProviderError) as caught:
            chunks.extend(ours(provider).stream("hi"))
        assert type(caught.value) is expected
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Half an"


def test_an_error_before_content_is_tried_again() -> None:
    """An overload in the stream is as good as one before it, while nothing was shown."""
    with EmbeddedProvider([Answer(error="overloaded"), "Fine"]) as provider:
        assert streamed(ours(provider, max_retries=1), "hi").text == "Fine"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages field is required"),
    ({"messages": [{"role": "assistant", "content": [{"text": "a"}]}]}, "start with a user"),
    ({"messages": [*ASK, *ASK]}, "must alternate"),
    ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "messages.0.content.0 is blank"),
    (
        {"messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "x"}}]}]},
        "toolConfig field must be defined",
    ),
    ({"messages": ASK, "toolConfig": {"tools": [SPEC], "toolChoice": {"none": {}}}}, "toolChoice"),
    (
        {"messages": ASK, "toolConfig": {"tools": [SPEC], "toolChoice": {"tool": {"name": "x"}}}},
        "not in the toolConfig",
    ),
    (
        {
            "messages": ASK,
            "toolConfig": {"tools": [SPEC], "toolChoice": {"any": {}}},
            "additionalModelRequestFields": {"thinking": {"type": "adaptive"}},
        },
        "Thinking may not be enabled",
    ),
    ({"messages": ASK, "outputConfig": {"textFormat": {"type": "json_schema"}}}, "textFormat"),
    ({"messages": "x"}, "Expected `array`"),
]


@pytest.mark.parametrize(("body", "says"), REFUSED)
def test_what_the_real_api_refuses(
    provider: EmbeddedProvider, body: dict[str, Any], says: str
) -> None:
    import httpx

    answer = httpx.post(f"{provider.url}/model/{CLAUDE}/converse", json=body)
    assert answer.status_code == 400
    assert answer.headers["x-amzn-errortype"].startswith("ValidationException:")
    assert says in answer.json()["message"]


def test_every_failure_is_of_the_tree(provider: EmbeddedProvider) -> None:
    for model in ("missing", "overloaded", "rate-limited"):
        with pytest.raises(StreamfoldError):
            ours(provider, model).invoke("hi")
