"""The embedded provider in OpenAI Responses: by rules, by script, and through a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import pytest

from streamfold import ChatOpenAI, errors
from streamfold.chunks import AIMessageChunk
from streamfold.messages import HumanMessage, ToolMessage
from streamfold.testing import Answer, Call, EmbeddedProvider, Failure, Found, Usage

HTTP = httpx.Client(trust_env=False)
LOCATION = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
WEATHER = {"type": "function", "name": "get_weather", "parameters": LOCATION, "strict": False}
PARROTS = "Why do parrots talk?"
CITIES = "What is the weather in Boston and Tokyo?"
Body = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with HTTP:
        yield


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def post(provider: EmbeddedProvider, input: Any = PARROTS, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {body.pop('key', 'any')}"}
    body = {"model": "gpt-test", "input": input, **body}
    return HTTP.post(provider.url + "/v1/responses", json=body, headers=headers)


def whole(provider: EmbeddedProvider, input: Any = PARROTS, **body: Any) -> Body:
    reply = post(provider, input, **body)
    assert reply.status_code == 200, reply.text
    found: Body = reply.json()
    return found


def events(provider: EmbeddedProvider, input: Any = PARROTS, **body: Any) -> list[Body]:
    reply = post(provider, input, stream=True, **body)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        event, data = block.split("\n")
        payload = json.loads(data.removeprefix("data: "))
        assert event == f"event: {payload['type']}"
        found.append(payload)
    assert [payload["sequence_number"] for payload in found] == list(range(len(found)))
    return found


def folded(told: list[Body]) -> list[Body]:
    """The items of a stream, put together from their pieces alone."""
    items: dict[int, Body] = {}
    for event in told:
        kind, index = event["type"].removeprefix("response."), event.get("output_index")
        if kind == "output_item.added":
            items[index] = json.loads(json.dumps(event["item"]))
        elif kind == "content_part.added":
            items[index]["content"].append(dict(event["part"]))
        elif kind == "reasoning_summary_part.added":
            items[index]["summary"].append(dict(event["part"]))
        elif kind.endswith(".delta"):
            field, place = FIELDS[kind]
            inner = items[index]
            if place:
                inner = inner[place][event[f"{place}_index"]]
            inner[field] += event["delta"]
            if event.get("logprobs"):
                inner["logprobs"] = [*inner["logprobs"], *event["logprobs"]]
        elif kind == "output_text.annotation.added":
            part = items[index]["content"][event["content_index"]]
            part["annotations"] = [*part["annotations"], event["annotation"]]
    return list(items.values())


FIELDS = {
    "output_text.delta": ("text", "content"),
    "refusal.delta": ("refusal", "content"),
    "reasoning_summary_text.delta": ("text", "summary"),
    "function_call_arguments.delta": ("arguments", ""),
}


# ---- the wire ------------------------------------------------------------------------------------

FORM = {"format": {"type": "json_schema", "name": "x", "schema": LOCATION}}
CASES: dict[str, Body] = {
    "text": {},
    "reasoning": {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]},
    "tools": {"input": CITIES, "tools": [WEATHER]},
    "search": {"tools": [{"type": "web_search"}]},
    "structured": {"text": FORM},
    "log probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "all": {"input": CITIES, "tools": [WEATHER], "reasoning": {"effort": "low"}},
}


@pytest.mark.parametrize("case", CASES)
def test_a_stream_says_what_a_body_says(provider: EmbeddedProvider, case: str) -> None:
    answer, told = whole(provider, **CASES[case]), events(provider, **CASES[case])
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    assert told[-1]["type"] == "response.completed"
    assert told[-1]["response"] == answer
    done = [e["item"] for e in told if e["type"] == "response.output_item.done"]
    assert done == answer["output"]
    pieces = [{k: v for k, v in item.items() if k not in ("status", "action")} for item in done]
    assert [{k: v for k, v in i.items() if k != "status"} for i in folded(told)] == pieces
    ids = {event["item_id"] for event in told if "item_id" in event}
    assert ids == {item["id"] for item in done}


def test_the_answer_says_what_was_asked(provider: EmbeddedProvider) -> None:
    answer = whole(provider, instructions="Be brief.", temperature=0.5, store=False, text=FORM)
    assert (answer["object"], answer["status"], answer["error"]) == ("response", "completed", None)
    assert answer["id"].startswith("resp_")
    assert (answer["instructions"], answer["temperature"]) == ("Be brief.", 0.5)
    assert (answer["store"], answer["text"]) == (False, FORM)
    assert whole(provider, model="gpt-4.1")["model"] == "gpt-4.1-2025-04-14"
    assert whole(provider) == whole(provider)
    assert whole(provider)["id"] != whole(provider, "Else?")["id"]


def test_items(provider: EmbeddedProvider) -> None:
    thought, one, two = whole(provider, **CASES["all"])["output"]
    assert (thought["type"], thought["summary"][0]["type"]) == ("reasoning", "summary_text")
    assert "encrypted_content" not in thought
    assert [json.loads(c["arguments"]) for c in (one, two)] == [
        {"location": "Boston"},
        {"location": "Tokyo"},
    ]
    assert one["id"].startswith("fc_")
    assert one["call_id"].startswith("call_")
    assert one["call_id"] != two["call_id"]
    search, message = whole(provider, **CASES["search"])["output"]
    assert search["action"]["query"] == "Why do parrots talk"
    (note,) = message["content"][0]["annotations"]
    text = message["content"][0]["text"]
    assert (note["start_index"], note["end_index"]) == (0, len(text))


def test_padding(provider: EmbeddedProvider) -> None:
    def padded(**body: Any) -> set[bool]:
        deltas = [e for e in events(provider, **body) if e["type"].endswith(".delta")]
        return {"obfuscation" in delta for delta in deltas}

    assert padded() == {True}
    assert padded(stream_options={"include_obfuscation": False}) == {False}


def test_limits(provider: EmbeddedProvider) -> None:
    cut = whole(provider, max_output_tokens=3)
    assert (cut["status"], cut["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert cut["output"][0]["status"] == "incomplete"
    assert cut["usage"]["output_tokens"] == 3
    assert events(provider, max_output_tokens=3)[-1]["type"] == "response.incomplete"
    (call,) = whole(provider, CITIES, tools=[WEATHER], max_output_tokens=2)["output"]
    assert call["status"] == "incomplete"
    assert call["arguments"] == '{"location'


def test_choices(provider: EmbeddedProvider) -> None:
    def names(**body: Any) -> list[str]:
        output = whole(provider, CITIES, tools=[WEATHER], **body)["output"]
        return [item["type"] for item in output]

    assert names(tool_choice="none") == ["message"]
    assert names(tool_choice="required") == ["function_call"] * 2
    assert names(parallel_tool_calls=False) == ["function_call"]
    assert names(tool_choice={"type": "function", "name": "get_weather"}) == ["function_call"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": []}
    assert names(tool_choice=allowed) == ["function_call"] * 2


def test_results_and_media(provider: EmbeddedProvider) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "Rain"}
    said = [{"role": "user", "content": "Weather?"}, call, output]
    (message,) = whole(provider, said, tools=[WEATHER])["output"]
    assert "Rain" in message["content"][0]["text"]
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": "u"}]
    (message,) = whole(provider, [{"role": "user", "content": parts}])["output"]
    assert "1 image" in message["content"][0]["text"]
    assert whole(provider, [output], previous_response_id="resp_1")["output"]


USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
REJECTED: list[tuple[Body, str]] = [
    ({"messages": []}, "'messages'. In the Responses API, this parameter has moved to 'input'"),
    ({"max_tokens": 5}, "moved to 'max_output_tokens'"),
    ({"response_format": {}}, "moved to 'text.format'"),
    ({"stop": ["x"]}, "Unknown parameter: 'stop'"),
    ({"model": ""}, "Missing required parameter: 'model'"),
    ({"input": []}, "empty array"),
    ({"input": 5}, "Expected `str | array`"),
    ({"input": [{"content": "hi"}]}, "'input[0].type'"),
    ({"input": [{"role": "tool", "content": "x"}]}, "Invalid value: 'tool'. Supported values"),
    ({"input": [{**USER, "content": [{"type": "text", "text": "x"}]}]}, "Invalid value: 'text'"),
    ({"input": [USER, CALL]}, "No tool output found for function call c."),
    (
        {"input": [USER, {"type": "function_call_output", "call_id": "c", "output": ""}]},
        "No tool call found for function call output with call_id c.",
    ),
    ({"input": [{"type": "reasoning", "id": "rs"}, USER]}, "'input.summary'"),
    (
        {"input": [{"type": "reasoning", "id": "rs", "summary": []}, USER]},
        "Item 'rs' of type 'reasoning' was provided without its required following item",
    ),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "'tools[0].name'"),
    ({"tools": [{"name": "f"}]}, "'tools[0].type'"),
    ({"tools": [WEATHER], "tool_choice": "get_weather"}, "Invalid value: 'get_weather'"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "g"}}, "'g' not found"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "'text.format.name'"),
]


@pytest.mark.parametrize(("body", "said"), REJECTED)
def test_what_the_real_api_refuses(provider: EmbeddedProvider, body: Body, said: str) -> None:
    reply = post(provider, **body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (400, "invalid_request_error")
    assert said in error["message"]


@pytest.mark.parametrize(
    ("model", "status"), [("missing", 404), ("overloaded", 503), ("rate-limited", 429)]
)
def test_models_that_fail(provider: EmbeddedProvider, model: str, status: int) -> None:
    reply = post(provider, model=model)
    assert reply.status_code == status
    assert reply.json()["error"].keys() == {"message", "type", "param", "code"}
    assert post(provider, key="wrong").status_code == 401


# ---- through a model -----------------------------------------------------------------------------


def model(provider: EmbeddedProvider, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(
        "gpt-test",
        base_url=provider.url + "/v1",
        api_key="any",
        max_retries=0,
        use_responses_api=True,
        **fields,
    )


class TestThroughAModel:
    FOUND: ClassVar = Found("q", "T", "https://example.com", "x")
    SCRIPT: ClassVar[dict[str, Answer]] = {
        "text": Answer("Привет, мир!"),
        "reasoning": Answer("Yes.", reasoning="Let me think."),
        "calls": Answer("Wait.", tool_calls=[Call("f", {"a": 1}, "call_x"), Call("g")]),
        "search": Answer("Found it.", found=FOUND),
        "refusal": Answer("I will not.", finish="refusal"),
        "filter": Answer("Half", finish="content_filter"),
        "usage": Answer("Hi", usage=Usage(9, 8, 7, 6)),
    }

    @pytest.mark.parametrize("case", SCRIPT)
    def test_a_stream_folds_to_the_whole_answer(self, case: str) -> None:
        answer = self.SCRIPT[case]
        with EmbeddedProvider([answer, answer]) as provider:
            asked = model(provider)
            whole = asked.invoke("hi")
            streamed = sum(asked.stream("hi"), AIMessageChunk()).to_message()
        assert streamed == whole
        refused = case == "refusal"
        assert whole.text == ("" if refused else answer.text)
        finish = {"calls": "tool_calls", "filter": "content_filter", "refusal": "refusal"}
        assert whole.finish_reason == finish.get(case, "stop")
        if case == "usage":
            assert whole.usage_metadata == {
                "input_tokens": 9,
                "output_tokens": 8,
                "total_tokens": 17,
                "input_token_details": {"cache_read": 6, "cache_creation": 0},
                "output_token_details": {"reasoning": 7},
            }

    def test_a_conversation_with_reasoning_and_tools(self, provider: EmbeddedProvider) -> None:
        """The server refuses a history in which an item is missing or out of place."""
        asked = model(provider, reasoning_effort="low").bind(tools=[WEATHER])
        said: list[Any] = [HumanMessage(CITIES)]
        answer = asked.invoke(said)
        said += [answer, *(ToolMessage("Rain", tool_call_id=c["id"]) for c in answer.tool_calls)]
        final = asked.invoke(said)
        assert "Rain; Rain" in final.text
        sent = provider.requests[-1].json()["input"]
        assert [item.get("type", item.get("role")) for item in sent] == [
            "user",
            "reasoning",
            *["function_call"] * 2,
            *["function_call_output"] * 2,
        ]
        assert asked.invoke([*said, final, HumanMessage("Thanks")]).finish_reason == "tool_calls"

    def test_errors_in_a_stream(self) -> None:
        script = [Answer("Half an", error=Failure("rate_limit"))]
        with EmbeddedProvider(script) as provider, pytest.raises(errors.RateLimitError) as caught:
            list(model(provider).stream("hi"))
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Half an"

    def test_a_search_through_the_api_that_has_it(self, provider: EmbeddedProvider) -> None:
        """A server tool is enough: nobody has to name the API."""
        asked = ChatOpenAI("gpt-4.1-mini", base_url=provider.url + "/v1", api_key="any")
        answer = asked.bind(tools=[{"type": "web_search"}]).invoke(PARROTS)
        call, result, text = answer.content_blocks
        assert call.keys() == {"type", "id", "name", "args"}
        assert call["args"] == {"type": "search", "query": "Why do parrots talk"}
        status = {"tool_call_id": call["id"], "status": "success"}
        assert result == {"type": "server_tool_result", **status}
        (note,) = text["annotations"]
        assert note.keys() == {"type", "url", "title", "start_index", "end_index"}
        assert provider.requests[-1].path == "/v1/responses"
