"""The embedded provider as Gemini's server: by rules, by script, and through a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from streamfold import errors, init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.messages import HumanMessage, ToolMessage
from streamfold.testing import (
    Answer,
    Call,
    EmbeddedProvider,
    Failure,
    LoopbackServer,
    Reply,
    Request,
    Usage,
)

HTTP = httpx.Client(trust_env=False)
LOCATION = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
WEATHER = {"name": "get_weather", "description": "The weather", "parametersJsonSchema": LOCATION}
TOOLS = {"tools": [{"functionDeclarations": [WEATHER]}]}
PARROTS = "Why do parrots talk?"
CITIES = "What is the weather in Boston and Tokyo?"
VERTEX = "/v1/projects/p/locations/l/publishers/google"


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with HTTP:
        yield


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "parts": [{"text": text}]}


def post(
    provider: EmbeddedProvider,
    text: str = PARROTS,
    *,
    method: str = "generateContent",
    model: str = "gemini-3-flash",
    at: str = "/v1beta",
    key: str = "any",
    **body: Any,
) -> httpx.Response:
    url = f"{provider.url}{at}/models/{model}:{method}"
    body = {"contents": [user(text)], **body}
    return HTTP.post(url, json=body, headers={"x-goog-api-key": key})


def whole(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> dict[str, Any]:
    reply = post(provider, text, **body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def events(provider: EmbeddedProvider, text: str = PARROTS, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, the same in both framings."""
    sse = post(provider, text, method="streamGenerateContent?alt=sse", **body)
    assert sse.headers["content-type"] == "text/event-stream"
    *blocks, rest = sse.text.split("\r\n\r\n")
    assert rest == ""
    found = [json.loads(block.removeprefix("data: ")) for block in blocks]
    array = post(provider, text, method="streamGenerateContent", **body)
    assert array.headers["content-type"].startswith("application/json")
    assert array.json() == found
    return found


def parts(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["candidates"][0]["content"]["parts"]
    return found


def said(answers: list[dict[str, Any]], *, thought: bool = False) -> str:
    return "".join(
        part["text"]
        for answer in answers
        for part in parts(answer)
        if "text" in part and bool(part.get("thought")) is thought
    )


def calls(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [part for answer in answers for part in parts(answer)]
    return [part["functionCall"] for part in found if "functionCall" in part]


# ---- the wire ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["/v1beta", VERTEX])
def test_a_stream_says_what_a_body_says(provider: EmbeddedProvider, at: str) -> None:
    asked = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}, "at": at}
    answer = whole(provider, **asked)
    *first, last = streamed = events(provider, **asked)
    for thought in (False, True):
        assert said(streamed, thought=thought) == said([answer], thought=thought) != ""
    assert last["usageMetadata"] == answer["usageMetadata"]
    assert {each["responseId"] for each in streamed} == {answer["responseId"]}
    assert [each["candidates"][0].get("finishReason") for each in streamed[-2:]] == [None, "STOP"]
    signature = parts(answer)[-1]["thoughtSignature"]
    assert parts(last) == [{"text": "", "thoughtSignature": signature}]
    counted = [each["usageMetadata"].get("totalTokenCount") for each in first]
    if at == VERTEX:
        assert set(counted) == {None}
    else:
        assert counted == sorted(counted)


def test_models_of_old_neither_sign_nor_give_ids(provider: EmbeddedProvider) -> None:
    for model, new in (("gemini-2.5-flash", False), ("gemini-3.1-pro", True)):
        answer = whole(provider, CITIES, model=model, **TOOLS)
        first, second = parts(answer)
        assert ("thoughtSignature" in first, "thoughtSignature" in second) == (new, False)
        assert [("id" in call) for call in calls([answer])] == [new, new]


def test_calls(provider: EmbeddedProvider) -> None:
    answer = whole(provider, CITIES, **TOOLS)
    assert [(call["name"], call["args"]) for call in calls([answer])] == [
        ("get_weather", {"location": "Boston"}),
        ("get_weather", {"location": "Tokyo"}),
    ]
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert calls(events(provider, CITIES, **TOOLS)) == calls([answer])


def test_arguments_in_pieces(provider: EmbeddedProvider) -> None:
    calling = {"toolConfig": {"functionCallingConfig": {"streamFunctionCallArguments": True}}}
    found = calls(events(provider, CITIES, **TOOLS, **calling))
    assert [call.get("name") for call in found if "name" in call] == ["get_weather"] * 2
    values = [piece["stringValue"] for call in found for piece in call.get("partialArgs", ())]
    assert values == ["Bosto", "n", "", "Tokyo", ""]
    assert [call for call in found if not call] == [{}, {}]


CHOICES = [
    ({"mode": "NONE"}, []),
    ({"mode": "ANY", "allowedFunctionNames": ["get_weather"]}, ["Boston"]),
    ({"mode": "VALIDATED"}, ["Boston", "Tokyo"]),
]


@pytest.mark.parametrize(("calling", "cities"), CHOICES)
def test_choices(provider: EmbeddedProvider, calling: Any, cities: list[str]) -> None:
    answer = whole(provider, CITIES, **TOOLS, toolConfig={"functionCallingConfig": calling})
    assert [call["args"]["location"] for call in calls([answer])] == cities


def test_names_may_be_in_snake_case(provider: EmbeddedProvider) -> None:
    native = {"type": "OBJECT", "properties": {"my_city": {"type": "STRING"}}}
    declared = {"name": "f", "parameters": {**native, "required": ["my_city"]}}
    answer = whole(
        provider,
        tools=[{"function_declarations": [declared]}],
        system_instruction={"parts": [{"text": "Be brief."}]},
        generation_config={"max_output_tokens": 99},
    )
    assert calls([answer])[0]["args"].keys() == {"my_city"}


def test_formats(provider: EmbeddedProvider) -> None:
    for name in ("responseJsonSchema", "responseSchema"):
        asked = {"responseMimeType": "application/json", name: LOCATION}
        text = said([whole(provider, generationConfig=asked)])
        assert json.loads(text).keys() == {"location"}
    asked = {"responseMimeType": "application/json"}
    assert json.loads(said([whole(provider, generationConfig=asked)])).keys() == {"answer"}


def test_a_search(provider: EmbeddedProvider) -> None:
    search = {"tools": [{"googleSearch": {}}]}
    answer = whole(provider, "Why is the sky «синее»?", **search)
    grounding = answer["candidates"][0]["groundingMetadata"]
    (support,) = grounding["groundingSupports"]
    segment = support["segment"]
    assert said([answer]).encode()[: segment["endIndex"]].decode() == segment["text"]
    assert grounding["webSearchQueries"]
    *_, last = events(provider, "Why is the sky «синее»?", **search)
    assert last["candidates"][0]["groundingMetadata"] == grounding


def test_limits(provider: EmbeddedProvider) -> None:
    cut = whole(provider, generationConfig={"maxOutputTokens": 3})
    assert cut["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert cut["usageMetadata"]["candidatesTokenCount"] == 3
    stopped = whole(provider, generationConfig={"stopSequences": ["parrots"]})
    assert stopped["candidates"][0]["finishReason"] == "STOP"
    assert "parrots" not in said([stopped])
    asked = whole(provider, CITIES, **TOOLS, generationConfig={"maxOutputTokens": 1})
    assert (calls([asked]), asked["candidates"][0]["finishReason"]) == ([], "MAX_TOKENS")


def test_log_probabilities(provider: EmbeddedProvider) -> None:
    asked = {"generationConfig": {"responseLogprobs": True, "logprobs": 2}}
    answer = whole(provider, **asked)
    result = answer["candidates"][0]["logprobsResult"]
    assert "".join(each["token"] for each in result["chosenCandidates"]) == said([answer])
    assert {len(each["candidates"]) for each in result["topCandidates"]} == {2}
    streamed = [each["candidates"][0].get("logprobsResult") for each in events(provider, **asked)]
    chosen = [token for each in streamed if each for token in each["chosenCandidates"]]
    assert chosen == result["chosenCandidates"]


def test_media_and_results(provider: EmbeddedProvider) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA"}}
    file = {"fileData": {"mimeType": "application/pdf", "fileUri": "gs://x/y"}}
    seen = whole(provider, contents=[{"parts": [{"text": "Look"}, image, file]}])
    assert "1 image, 1 file" in said([seen])
    asked = user(CITIES)
    answer = whole(provider, CITIES, **TOOLS)
    results = [
        {
            "functionResponse": {
                "name": call["name"],
                "id": call["id"],
                "response": {"output": "21°"},
            }
        }
        for call in calls([answer])
    ]
    turn = {"role": "user", "parts": results}
    contents = [asked, answer["candidates"][0]["content"], turn]
    assert "21°; 21°" in said([whole(provider, contents=contents, **TOOLS)])


CALLED = {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": {}}}]}
RESULT = {"functionResponse": {"name": "get_weather", "response": {}}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": "x"}, "unknown field"),
    ({"contents": [{"parts": [{"text": "a", "cache_control": {}}]}]}, "unknown field"),
    ({"generationConfig": {"maxTokens": 1}}, "unknown field"),
    ({"contents": "hi"}, "array"),
    ({"contents": []}, "contents is not specified"),
    ({"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
    ({"contents": [{**user("a"), "role": "assistant"}]}, "valid role: user, model"),
    ({"toolConfig": {"functionCallingConfig": {}}}, "without function_declarations"),
    ({**TOOLS, "toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "SOME"),
    (
        {**TOOLS, "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["x"]}}},
        "should be defined functions",
    ),
    ({"tools": [*TOOLS["tools"], {"googleSearch": {}}]}, "include_server_side_tool_invocations"),
    ({"contents": [user("a"), CALLED, user("b")]}, "function response parts is equal"),
    (
        {"contents": [user("a"), CALLED, {"role": "user", "parts": [RESULT]}]},
        "missing a thought_signature",
    ),
    (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 5}}},
        "only one of thinking budget",
    ),
]


@pytest.mark.parametrize(("body", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_what_the_real_api_refuses(
    provider: EmbeddedProvider, body: dict[str, Any], text: str
) -> None:
    url = f"{provider.url}/v1beta/models/gemini-3-flash:generateContent"
    reply = HTTP.post(url, json={"contents": [user("hi")], **body})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert text in error["message"]


def test_what_only_some_models_or_vertex_take(provider: EmbeddedProvider) -> None:
    level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}}
    assert post(provider, model="gemini-2.5-flash", **level).status_code == 400
    assert post(provider, **level).status_code == 200
    both = {"tools": [*TOOLS["tools"], {"googleSearch": {}}]}
    telling = {"toolConfig": {"includeServerSideToolInvocations": True}}
    for at, config, status in (
        ("/v1beta", telling, 200),
        (VERTEX, telling, 400),
        (VERTEX, {}, 200),
    ):
        assert post(provider, at=at, **both, **config).status_code == status


ERRORS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "missing"}, 404, "NOT_FOUND", "models/missing is not found"),
    ({"model": "overloaded"}, 503, "UNAVAILABLE", "overloaded"),
    ({"model": "rate-limited"}, 429, "RESOURCE_EXHAUSTED", "quota"),
    ({"key": "wrong"}, 400, "INVALID_ARGUMENT", "API key not valid"),
]


@pytest.mark.parametrize(("asked", "status", "word", "text"), ERRORS)
def test_errors(
    provider: EmbeddedProvider, asked: dict[str, Any], status: int, word: str, text: str
) -> None:
    for method in ("generateContent", "streamGenerateContent", "streamGenerateContent?alt=sse"):
        reply = post(provider, method=method, **asked)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["status"]) == (status, status, word)
        assert text in error["message"]


def test_a_script() -> None:
    broken = Answer("Half", error=Failure("overloaded", "Come back."), usage=Usage(3, 4))
    malformed = Answer(tool_calls=[Call("f", '{"a')])
    blocked = Answer("No.", finish="content_filter")
    with EmbeddedProvider([broken, broken, malformed, blocked]) as provider:
        sse = post(provider, method="streamGenerateContent?alt=sse").text
        head, bare = sse.split("\r\n\r\n")
        assert said([json.loads(head.removeprefix("data: "))]) == "Half"
        half, error = post(provider, method="streamGenerateContent").json()
        assert error == json.loads(bare)
        assert error["error"]["message"] == "Come back."
        assert half["usageMetadata"]["promptTokenCount"] == 3
        candidate = whole(provider)["candidates"][0]
        assert candidate["finishReason"] == "MALFORMED_FUNCTION_CALL"
        assert whole(provider)["candidates"][0]["finishReason"] == "SAFETY"


# ---- through a model -----------------------------------------------------------------------------

BOUND = {"type": "function", "function": {"name": "get_weather", "parameters": LOCATION}}


def model(provider: EmbeddedProvider, name: str = "gemini-3-flash", **params: Any) -> Any:
    params = {"api_key": "any", "base_url": provider.url + "/v1beta", "max_retries": 0, **params}
    return init_chat_model(f"google_genai:{name}", **params)


@pytest.mark.parametrize("name", ["gemini-3-flash", "gemini-2.5-flash"])
def test_a_model_gets_the_same_by_stream_and_invoke(provider: EmbeddedProvider, name: str) -> None:
    llm = model(provider, name, include_thoughts=True, reasoning_effort="low", logprobs=True)
    message = llm.invoke(PARROTS)
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert sum(llm.stream(PARROTS), AIMessageChunk()).to_message() == message
    sent = json.loads(provider.requests[-1].body)["generationConfig"]
    effort = {"thinkingLevel": "LOW"} if "3" in name else {"thinkingBudget": 1024}
    assert sent == {
        "responseLogprobs": True,
        "thinkingConfig": {"includeThoughts": True, **effort},
    }


@pytest.mark.parametrize("name", ["gemini-3-flash", "gemini-2.5-flash"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_loop(provider: EmbeddedProvider, name: str, streamed: bool) -> None:
    """The second request is one that the API takes: signed, and every call answered."""
    llm = model(provider, name).bind(
        tools=[BOUND, {"type": "web_search"}],
        tool_config={"function_calling_config": {"stream_function_call_arguments": streamed}},
    )
    asked = HumanMessage(CITIES)
    answer = (
        sum(llm.stream([asked]), AIMessageChunk()).to_message() if streamed else llm.invoke([asked])
    )
    assert answer.finish_reason == "tool_calls"
    assert [call["args"]["location"] for call in answer.tool_calls] == ["Boston", "Tokyo"]
    results = [
        ToolMessage(f"sunny in {call['args']['location']}", tool_call_id=call["id"])
        for call in reversed(answer.tool_calls)
    ]
    said = llm.invoke([asked, answer, *results]).text
    assert "sunny in Boston; sunny in Tokyo" in said


def test_calls_of_another_provider(provider: EmbeddedProvider) -> None:
    """They have no signature; a word says so."""
    other = model(provider, "gemini-2.5-flash").bind(tools=[BOUND]).invoke(CITIES)
    results = [ToolMessage("sunny", tool_call_id=call["id"]) for call in other.tool_calls]
    llm = model(provider).bind(tools=[BOUND])
    assert "sunny" in llm.invoke([HumanMessage(CITIES), other, *results]).text


def test_a_search_through_a_model(provider: EmbeddedProvider) -> None:
    llm = model(provider).bind(tools=[{"type": "web_search"}])
    message = llm.invoke(PARROTS)
    kinds = [block["type"] for block in message.content_blocks]
    assert kinds == ["text", "server_tool_call", "server_tool_result"]
    (note,) = message.content_blocks[0]["annotations"]
    assert (note["start_index"], note["end_index"]) == (0, len(message.text))
    assert sum(llm.stream(PARROTS), AIMessageChunk()).to_message() == message
    assert llm.invoke([HumanMessage(PARROTS), message, HumanMessage("And?")]).text


def test_errors_through_a_model(provider: EmbeddedProvider) -> None:
    with pytest.raises(errors.NotFoundError):
        model(provider, "missing").invoke("hi")
    with pytest.raises(errors.AuthenticationError) as wrong:
        list(model(provider, api_key="wrong").stream("hi"))
    assert wrong.value.code == "API_KEY_INVALID"
    with pytest.raises(errors.RateLimitError) as limited:
        model(provider, "rate-limited").invoke("hi")
    assert limited.value.retry_after == 1
    with EmbeddedProvider([Answer("Half", error="overloaded")]) as broken:
        with pytest.raises(errors.OverloadedError) as caught:
            list(model(broken).stream("hi"))
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Half"


def test_a_used_up_quota_is_not_tried_again() -> None:
    with EmbeddedProvider([Answer(error="quota")]) as provider:
        with pytest.raises(errors.RateLimitError) as caught:
            model(provider, max_retries=2).invoke("hi")
        assert not caught.value.retryable
        assert len(provider.requests) == 1


def test_queries_of_the_caller_stand_beside_the_streams(provider: EmbeddedProvider) -> None:
    list(model(provider, default_query={"x": "1"}).stream("hi"))
    assert provider.requests[-1].query == {"alt": "sse", "x": "1"}


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "text/plain"])
@pytest.mark.parametrize("start", ["", "\n ", "\ufeff"])
def test_an_array_is_a_stream_whatever_was_asked_for(kind: str, start: str) -> None:
    """Proxies forget `alt=sse`; the first byte tells."""
    head = {"content": {"parts": [{"text": "Hel"}]}}
    tail = {"content": {"parts": [{"text": "lo"}]}, "finishReason": "STOP"}
    body = start + json.dumps([{"candidates": [each]} for each in (head, tail)])
    broken = start + json.dumps([{"candidates": [head]}, {"error": {"status": "UNAVAILABLE"}}])
    replies = iter([body, body, broken])

    def reply(request: Request) -> Reply:
        data = next(replies).encode()
        pieces = [data[place : place + 9] for place in range(0, len(data), 9)]
        return Reply(headers={"content-type": kind}, body=pieces, chunked=True)

    with LoopbackServer(reply) as server:
        llm = init_chat_model("google_genai:g", base_url=server.url, api_key="k", max_retries=0)
        assert [chunk.text for chunk in llm.stream("hi")] == ["Hel", "lo"]
        assert llm.invoke("hi").text == "Hello"
        with pytest.raises(errors.OverloadedError) as caught:
            llm.invoke("hi")
        assert caught.value.partial.text == "Hel"
