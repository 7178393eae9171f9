"""The embedded provider: both dialects, streamed and whole, by rules and by script."""

from __future__ import annotations

import asyncio
import datetime
import enum
import json
import re
import resource
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from streamfold.testing import Answer, Call, EmbeddedProvider, Failure, Found, Usage
from streamfold.testing.examples import example
from streamfold.testing.prose import nouns, pieces, tokens

PARROTS = "Почему у попугаев красочные перья?"
CITIES = "Какая погода в Бостоне и Токио?"

LOCATION = {
    "type": "object",
    "properties": {"location": {"type": "string"}},
    "required": ["location"],
}
MOVIE = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "year": {"type": "integer"},
        "rating": {"type": "number", "maximum": 10},
        "cast": {"type": "array", "items": {"$ref": "#/$defs/Actor"}},
        "genre": {"enum": ["drama", "comedy"]},
        "budget": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
    },
    "required": ["title", "year", "rating", "cast", "genre"],
    "$defs": {
        "Actor": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "role": {"type": "string"}},
            "required": ["name", "role"],
        }
    },
}


# One client for all tests: making one costs more than a request.
HTTP = httpx.Client(trust_env=False)


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    with HTTP:
        yield


@pytest.fixture(scope="module")
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as provider:
        yield provider


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def frames(reply: httpx.Response) -> list[tuple[str, str]]:
    """The server-sent events of a reply, as (event, data)."""
    found = re.findall(r"(?:event: (.+)\n)?data: (.+)\n\n", reply.text)
    assert "".join(f"event: {e}\ndata: {d}\n\n" if e else f"data: {d}\n\n" for e, d in found) == (
        reply.text
    )
    return found


class OpenAI:
    """Calls of the Chat Completions dialect, and what a client makes of the answers."""

    path = "/v1/chat/completions"
    text = staticmethod(lambda text: {"type": "text", "text": text})
    image: ClassVar = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    errors = ("missing", 404), ("overloaded", 503), ("rate-limited", 429)

    def __init__(self, provider: EmbeddedProvider) -> None:
        self.provider = provider

    def post(self, **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {body.pop('key', 'any')}"}
        body = {"model": "gpt-test", "messages": user(PARROTS), **body}
        return HTTP.post(self.provider.url + self.path, json=body, headers=headers)

    def whole(self, **body: Any) -> dict[str, Any]:
        reply = self.post(**body)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        choice = answer["choices"][0]
        return {
            "id": answer["id"],
            "model": answer["model"],
            "created": answer["created"],
            "message": choice["message"],
            "text": choice["message"]["content"] or "",
            "reasoning": choice["message"].get("reasoning_content", ""),
            "calls": [
                (call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in choice["message"].get("tool_calls", [])
            ],
            "finish": choice["finish_reason"],
            "logprobs": choice["logprobs"],
            "usage": answer["usage"],
        }

    def chunks(self, **body: Any) -> list[dict[str, Any]]:
        options = {"include_usage": True}
        reply = self.post(**{"stream": True, "stream_options": options, **body})
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        *chunks, (_, last) = frames(reply)
        assert last == "[DONE]"
        return [json.loads(data) for _, data in chunks]

    def folded(self, **body: Any) -> dict[str, Any]:
        """The stream, put together as a client would; the same keys as `whole`."""
        chunks = self.chunks(**body)
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        heads = {(c["id"], c["model"], c["created"]) for c in chunks}
        assert len(heads) == 1
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        deltas = [choice["delta"] for choice in choices]
        assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
        calls: dict[int, list[str]] = {}
        for delta in deltas:
            for part in delta.get("tool_calls", []):
                call = calls.setdefault(part["index"], ["", "", ""])
                call[0] += part.get("id", "")
                call[1] += part["function"].get("name", "")
                call[2] += part["function"]["arguments"]
        logprobs = [e for c in choices if c["logprobs"] for e in c["logprobs"]["content"]]
        (id_, model, created), *_ = heads
        return {
            "id": id_,
            "model": model,
            "created": created,
            "text": "".join(delta.get("content") or "" for delta in deltas),
            "reasoning": "".join(delta.get("reasoning_content") or "" for delta in deltas),
            "calls": [tuple(calls[index]) for index in sorted(calls)],
            "finish": choices[-1]["finish_reason"],
            "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
            "usage": chunks[-1]["usage"],
        }

    def tool(self, name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
        function = {"name": name, "description": description, "parameters": schema}
        return {"type": "function", "function": function}

    def form(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema},
            }
        }

    def results(self, *texts: str) -> list[dict[str, Any]]:
        return [{"role": "tool", "tool_call_id": "x", "content": text} for text in texts]

    thinking: ClassVar = {"reasoning_effort": "low"}
    finishes: ClassVar = {"stop": "stop", "length": "length", "calls": "tool_calls"}

    def choice(self, kind: str) -> dict[str, Any]:
        return {
            "any": {"tool_choice": "required"},
            "none": {"tool_choice": "none"},
            "single": {"parallel_tool_calls": False},
        }.get(kind) or {"tool_choice": {"type": "function", "function": {"name": kind}}}


class Anthropic:
    """The same for the Messages dialect."""

    path = "/v1/messages"
    text = staticmethod(lambda text: {"type": "text", "text": text})
    image: ClassVar = {
        "type": "image",
        "source": {"type": "url", "url": "https://example.com/x.png"},
    }
    errors = ("missing", 404), ("overloaded", 529), ("rate-limited", 429)

    def __init__(self, provider: EmbeddedProvider) -> None:
        self.provider = provider

    def post(self, **body: Any) -> httpx.Response:
        headers = {"x-api-key": body.pop("key", "any")}
        body = {"model": "claude-test", "max_tokens": 999, "messages": user(PARROTS), **body}
        return HTTP.post(self.provider.url + self.path, json=body, headers=headers)

    def whole(self, **body: Any) -> dict[str, Any]:
        reply = self.post(**body)
        assert reply.status_code == 200, reply.text
        return self.read(reply.json())

    def events(self, **body: Any) -> list[dict[str, Any]]:
        events = []
        for name, data in frames(self.post(stream=True, **body)):
            payload = json.loads(data)
            assert payload["type"] == name
            events.append(payload)
        return events

    def folded(self, **body: Any) -> dict[str, Any]:
        events = self.events(**body)
        assert [e["type"] for e in events[:1] + events[-2:]] == [
            "message_start",
            "message_delta",
            "message_stop",
        ]
        message, content = events[0]["message"], []
        for event in events:
            if event["type"] == "content_block_start":
                assert event["index"] == len(content)
                content.append({**event["content_block"], "raw": ""})
            elif event["type"] == "content_block_delta":
                self.apply(content[event["index"]], event["delta"])
        for block in content:
            raw = block.pop("raw")
            if "input" in block:
                block["input"] = json.loads(raw or "{}")
        last = events[-2]
        usage = {**message["usage"], **last["usage"]}
        return self.read({**message, "content": content, **last["delta"], "usage": usage})

    def apply(self, block: dict[str, Any], delta: dict[str, Any]) -> None:
        kind, value = delta["type"], list(delta.values())[1]
        if kind == "citations_delta":
            block["citations"] = [*block["citations"], value]
        else:
            key = {"input_json_delta": "raw"}.get(kind, kind.removesuffix("_delta"))
            block[key] += value

    def read(self, message: dict[str, Any]) -> dict[str, Any]:
        blocks = message["content"]
        assert (message["type"], message["role"]) == ("message", "assistant")
        return {
            "id": message["id"],
            "model": message["model"],
            "content": blocks,
            "text": "".join(block["text"] for block in blocks if block["type"] == "text"),
            "reasoning": "".join(b["thinking"] for b in blocks if b["type"] == "thinking"),
            "calls": [
                (b["id"], b["name"], json.dumps(b["input"], ensure_ascii=False))
                for b in blocks
                if b["type"] == "tool_use"
            ],
            "finish": message["stop_reason"],
            "stopped_by": message["stop_sequence"],
            "usage": message["usage"],
        }

    def tool(self, name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
        return {"name": name, "description": description, "input_schema": schema}

    def form(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}

    def results(self, *texts: str) -> list[dict[str, Any]]:
        blocks = [{"type": "tool_result", "tool_use_id": "x", "content": text} for text in texts]
        return [{"role": "user", "content": blocks}]

    thinking: ClassVar = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    finishes: ClassVar = {"stop": "end_turn", "length": "max_tokens", "calls": "tool_use"}

    def choice(self, kind: str) -> dict[str, Any]:
        return {
            "any": {"tool_choice": {"type": "any"}},
            "none": {"tool_choice": {"type": "none"}},
            "single": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        }.get(kind) or {"tool_choice": {"type": "tool", "name": kind}}


Client = OpenAI | Anthropic


@pytest.fixture(params=[OpenAI, Anthropic])
def client(request: pytest.FixtureRequest, provider: EmbeddedProvider) -> Client:
    made: Client = request.param(provider)
    return made


def arguments(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, json.loads(args)) for _, name, args in answer["calls"]]


class TestAnyDialect:
    """What holds in every dialect alike."""

    CASES: ClassVar = {
        "text": lambda c: {},
        "reasoning": lambda c: c.thinking,
        "tools": lambda c: {"messages": user(CITIES), "tools": [c.tool("get_weather", LOCATION)]},
        "no arguments": lambda c: {"tools": [c.tool("now", {"type": "object", "properties": {}})]},
        "structured": lambda c: {"messages": user("About the film Inception"), **c.form(MOVIE)},
        "reasoning and tools": lambda c: {**c.thinking, "tools": [c.tool("look", LOCATION)]},
    }

    @pytest.mark.parametrize("case", CASES)
    def test_a_stream_says_what_the_whole_answer_says(self, client: Client, case: str) -> None:
        body = self.CASES[case](client)
        whole, folded = client.whole(**body), client.folded(**body)
        assert {key: whole[key] for key in folded if key != "usage"} == {
            key: folded[key] for key in folded if key != "usage"
        }
        assert whole["usage"] == folded["usage"]

    def test_the_same_request_gets_the_same_answer(self, client: Client) -> None:
        assert client.whole() == client.whole()
        assert client.whole()["id"] != client.whole(messages=user("Else?"))["id"]

    def test_text_is_about_the_prompt_in_its_language(self, client: Client) -> None:
        assert PARROTS in client.whole()["text"]
        assert not re.search("[a-z]", client.whole()["text"])
        english = client.whole(messages=user("Why do parrots talk?"))["text"]
        assert "Why do parrots talk?" in english
        assert not re.search("[а-я]", english)

    def test_the_last_user_text_counts(self, client: Client) -> None:
        turns = [
            *user("First thing"),
            {"role": "assistant", "content": "Hm."},
            {"role": "user", "content": [client.text("Second"), client.text("thing")]},
        ]
        text = client.whole(messages=turns)["text"]
        assert "Second thing" in text
        assert "First" not in text

    def test_parallel_calls_one_for_each_proper_noun(self, client: Client) -> None:
        answer = client.whole(messages=user(CITIES), tools=[client.tool("get_weather", LOCATION)])
        assert arguments(answer) == [
            ("get_weather", {"location": "Бостоне"}),
            ("get_weather", {"location": "Токио"}),
        ]
        assert len({id_ for id_, _, _ in answer["calls"]}) == 2
        assert answer["finish"] == client.finishes["calls"]
        assert answer["text"] == ""

    def test_at_most_four_calls(self, client: Client) -> None:
        prompt = user("Weather in Rome, Oslo, Bonn, Kyiv, Riga and Bern?")
        answer = client.whole(messages=prompt, tools=[client.tool("get_weather", LOCATION)])
        assert [args["location"] for _, args in arguments(answer)] == [
            "Rome",
            "Oslo",
            "Bonn",
            "Kyiv",
        ]

    @pytest.mark.parametrize("kind", ["single", "get_weather"])
    def test_one_call_where_only_one_is_wanted(self, client: Client, kind: str) -> None:
        tools = [client.tool("get_time", LOCATION), client.tool("get_weather", LOCATION, "погода")]
        answer = client.whole(messages=user(CITIES), tools=tools, **client.choice(kind))
        assert arguments(answer) == [("get_weather", {"location": "Бостоне"})]

    def test_calls_that_would_be_the_same_are_one(self, client: Client) -> None:
        tools = [client.tool("now", {"type": "object", "properties": {}})]
        answer = client.whole(messages=user(CITIES), tools=tools)
        assert arguments(answer) == [("now", {})]

    def test_the_tool_nearest_to_the_prompt_is_called(self, client: Client) -> None:
        tools = [
            client.tool("first", LOCATION, "Получить население в заданном месте"),
            client.tool("second", LOCATION, "Получить погоду в заданном месте"),
        ]
        assert client.whole(messages=user(CITIES), tools=tools)["calls"][0][1] == "second"
        assert client.whole(messages=user("Ну?"), tools=tools)["calls"][0][1] == "first"

    def test_a_forced_tool_is_called(self, client: Client) -> None:
        tools = [client.tool("one", LOCATION), client.tool("two", LOCATION)]
        assert client.whole(tools=tools, **client.choice("two"))["calls"][0][1] == "two"

    def test_no_call_where_none_is_wanted(self, client: Client) -> None:
        answer = client.whole(tools=[client.tool("one", LOCATION)], **client.choice("none"))
        assert answer["calls"] == []
        assert PARROTS in answer["text"]

    def test_tool_results_are_quoted(self, client: Client) -> None:
        tools = [client.tool("get_weather", LOCATION)]
        turns = [*user(CITIES), {"role": "assistant", "content": "..."}]
        turns += client.results("Солнечно в Бостоне.", "Дождь.")
        answer = client.whole(messages=turns, tools=tools)
        assert "Солнечно в Бостоне.; Дождь." in answer["text"]
        assert answer["finish"] == client.finishes["stop"]
        again = client.whole(messages=[*turns, *user("А в Риме?")], tools=tools)
        assert arguments(again) == [("get_weather", {"location": "Риме"})]

    def test_a_call_that_must_be_is_made_after_results_too(self, client: Client) -> None:
        turns = [*user(CITIES), {"role": "assistant", "content": "..."}, *client.results("ok")]
        tools = [client.tool("get_weather", LOCATION)]
        assert client.whole(messages=turns, tools=tools, **client.choice("any"))["calls"]

    def test_structured_output_fits_the_schema(self, client: Client) -> None:
        answer = client.whole(messages=user("Details of the film Inception"), **client.form(MOVIE))
        value = json.loads(answer["text"])
        assert value["title"] == "Inception"
        assert isinstance(value["year"], int)
        assert 0 <= value["rating"] <= 10
        assert all({"name", "role"} == set(actor) for actor in value["cast"])
        assert value["cast"]
        assert value["genre"] == "drama"
        assert "budget" not in value

    def test_structured_output_after_tools(self, client: Client) -> None:
        tools = [client.tool("get_weather", LOCATION)]
        body = {"tools": tools, **client.form(LOCATION)}
        assert client.whole(messages=user(CITIES), **body)["calls"]
        turns = [*user(CITIES), {"role": "assistant", "content": "..."}, *client.results("ok")]
        text = client.whole(messages=turns, **body)["text"]
        assert json.loads(text) == {"location": "Бостоне"}

    def test_reasoning_comes_when_asked_for(self, client: Client) -> None:
        assert client.whole()["reasoning"] == ""
        answer = client.whole(**client.thinking)
        assert PARROTS in answer["reasoning"]
        assert answer["text"] == client.whole()["text"]

    def test_deltas_are_words(self, client: Client) -> None:
        text = client.whole()["text"]
        assert "".join(tokens(text)) == text
        assert len(tokens(text)) >= len(text.split())
        assert max(map(len, tokens(text))) <= 13

    @pytest.mark.parametrize("limit", [1, 5])
    def test_the_token_limit_cuts(self, client: Client, limit: int) -> None:
        full, cut = client.whole(), client.whole(max_tokens=limit)
        assert cut["text"] == "".join(tokens(full["text"])[:limit])
        assert cut["finish"] == client.finishes["length"]
        assert client.folded(max_tokens=limit)["text"] == cut["text"]

    def test_a_limit_that_is_just_enough_does_not_cut(self, client: Client) -> None:
        exact = len(tokens(client.whole()["text"]))
        assert client.whole(max_tokens=exact)["finish"] == client.finishes["stop"]
        assert client.whole(max_tokens=exact - 1)["finish"] == client.finishes["length"]

    def test_reasoning_uses_the_limit_up_first(self, client: Client) -> None:
        answer = client.whole(max_tokens=4, **client.thinking)
        assert len(tokens(answer["reasoning"])) == 4
        assert answer["text"] == ""

    @pytest.mark.parametrize(("what", "label"), [(1, "1 image."), (3, "3 images.")])
    def test_images_are_noticed(self, client: Client, what: int, label: str) -> None:
        content = [client.text("What is it?"), *[client.image] * what]
        assert label in client.whole(messages=[{"role": "user", "content": content}])["text"]

    def test_errors_have_their_status(self, client: Client) -> None:
        for model, status in client.errors:
            for stream in (False, True):
                reply = client.post(model=model, stream=stream)
                assert reply.status_code == status
                assert reply.json()["error"]["message"]
        assert client.post(model="rate-limited").headers["retry-after"] == "1"
        assert "retry-after" not in client.post(model="overloaded").headers

    def test_only_the_wrong_key_is_wrong(self, client: Client) -> None:
        assert client.post(key="wrong").status_code == 401
        assert client.post(key="whatever").status_code == 200
        body = {"model": "m", "max_tokens": 9, "messages": user("Hi")}
        assert HTTP.post(client.provider.url + client.path, json=body).status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"model": "m", "max_tokens": 1, "messages": []}',
            b'{"model": "m", "max_tokens": 1, "messages": "hi"}',
            b'{"model": "m", "max_tokens": 1, "messages": [{"content": "x"}]}',
            b'{"max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}',
        ],
    )
    def test_what_cannot_be_read_is_a_400(self, client: Client, body: bytes) -> None:
        reply = HTTP.post(client.provider.url + client.path, content=body)
        assert reply.status_code == 400
        assert reply.json()["error"]["type"] == "invalid_request_error"
        assert client.provider.failures == []

    def test_a_forced_tool_must_be_given(self, client: Client) -> None:
        tools = [client.tool("one", LOCATION)]
        assert client.post(tools=tools, **client.choice("two")).status_code == 400
        assert client.post(**client.choice("two")).status_code == 400

    def test_the_version_may_be_left_out(self, client: Client) -> None:
        body = {"model": "m", "max_tokens": 9, "messages": user("Hi")}
        path = client.path.removeprefix("/v1")
        assert HTTP.post(client.provider.url + path, json=body).status_code == 200

    def test_every_reply_has_a_request_id_of_its_own(self, client: Client) -> None:
        name = {OpenAI: "x-request-id", Anthropic: "request-id"}[type(client)]
        replies = [client.post(), client.post(max_tokens=3), client.post(model="missing")]
        replies += [client.post(model="overloaded")]
        assert len({reply.headers[name] for reply in replies}) == 4


class TestOpenAIChat:
    @pytest.fixture
    def client(self, provider: EmbeddedProvider) -> OpenAI:
        return OpenAI(provider)

    def test_the_shape_of_a_text_stream(self, client: OpenAI) -> None:
        first, *middle, last, usage = client.chunks(max_tokens=2)
        assert first["choices"] == [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ]
        assert [chunk["choices"][0]["delta"] for chunk in middle] == [
            {"content": word} for word in tokens(client.whole(max_tokens=2)["text"])
        ]
        assert last["choices"][0]["delta"] == {}
        assert last["choices"][0]["finish_reason"] == "length"
        assert usage["choices"] == []
        assert all(chunk["usage"] is None for chunk in [first, *middle, last])

    def test_usage_is_streamed_on_request_only(self, client: OpenAI) -> None:
        chunks = client.chunks(stream_options=None)
        assert not any("usage" in chunk for chunk in chunks)
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"

    def test_noise_can_be_turned_off(self, client: OpenAI) -> None:
        assert all("obfuscation" in chunk for chunk in client.chunks())
        options = {"include_obfuscation": False}
        assert not any("obfuscation" in chunk for chunk in client.chunks(stream_options=options))

    def test_the_shape_of_a_tool_stream(self, client: OpenAI) -> None:
        body = {"messages": user(CITIES), "tools": [client.tool("get_weather", LOCATION)]}
        first, *middle, last, _ = client.chunks(**body)
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": None}
        parts = [part for c in middle for part in c["choices"][0]["delta"]["tool_calls"]]
        opening = [part for part in parts if "id" in part]
        assert [(p["index"], p["type"], p["function"]) for p in opening] == [
            (0, "function", {"name": "get_weather", "arguments": ""}),
            (1, "function", {"name": "get_weather", "arguments": ""}),
        ]
        assert [p["function"]["arguments"] for p in parts if p["index"] == 1][:3] == [
            "",
            '{"loc',
            "ation",
        ]
        assert last["choices"][0]["finish_reason"] == "tool_calls"

    def test_a_call_by_name_finishes_with_stop(self, client: OpenAI) -> None:
        body = {"tools": [client.tool("one", LOCATION)], **client.choice("one")}
        assert client.whole(**body)["finish"] == client.folded(**body)["finish"] == "stop"
        body |= client.choice("any")
        assert client.whole(**body)["finish"] == "tool_calls"

    def test_calls_are_cut_by_the_limit(self, client: OpenAI) -> None:
        body = {"messages": user(CITIES), "tools": [client.tool("get_weather", LOCATION)]}
        answer = client.whole(**body, max_tokens=3)
        assert [args for _, _, args in answer["calls"]] == ['{"location": "Б']
        assert answer["finish"] == "length"
        assert client.folded(**body, max_tokens=3)["calls"] == answer["calls"]

    def test_either_name_of_the_limit(self, client: OpenAI) -> None:
        assert client.whole(max_completion_tokens=3)["text"] == client.whole(max_tokens=3)["text"]

    def test_no_reasoning_with_effort_none(self, client: OpenAI) -> None:
        assert client.whole(reasoning_effort="none")["reasoning"] == ""

    def test_stop_words_cut_the_text(self, client: OpenAI) -> None:
        answer = client.whole(messages=user("one two"), stop=[" two", "absent"])
        assert answer["text"].endswith("one")
        assert answer["finish"] == "stop"
        assert client.whole(messages=user("one two"), stop=" two")["text"] == answer["text"]

    def test_usage_adds_up(self, client: OpenAI) -> None:
        answer = client.whole(reasoning_effort="low")
        usage, details = answer["usage"], answer["usage"]["completion_tokens_details"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert details["reasoning_tokens"] == len(tokens(answer["reasoning"]))
        assert usage["completion_tokens"] == (
            len(tokens(answer["reasoning"])) + len(tokens(answer["text"]))
        )
        assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
        assert client.whole(messages=user("Привет"))["usage"]["prompt_tokens"] == 8

    def test_log_probabilities(self, client: OpenAI) -> None:
        answer = client.whole(logprobs=True, top_logprobs=2)
        entries = answer["logprobs"]["content"]
        assert "".join(entry["token"] for entry in entries) == answer["text"]
        assert all(bytes(entry["bytes"]).decode() == entry["token"] for entry in entries)
        assert all(entry["logprob"] < 0 for entry in entries)
        assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
        assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
        assert client.folded(logprobs=True, top_logprobs=2)["logprobs"] == answer["logprobs"]
        assert client.whole(logprobs=True)["logprobs"]["content"][0]["top_logprobs"] == []
        assert client.whole()["logprobs"] is None

    def test_json_mode(self, client: OpenAI) -> None:
        mode = {"response_format": {"type": "json_object"}}
        assert PARROTS in json.loads(client.whole(**mode)["text"])["answer"]
        told = user(f"Use {{braces}} and this schema: {json.dumps(LOCATION)}. What about Rome?")
        assert json.loads(client.whole(messages=told, **mode)["text"]) == {"location": "Rome"}
        assert client.whole(response_format={"type": "text"})["text"] == client.whole()["text"]

    def test_server_tools_are_refused(self, client: OpenAI) -> None:
        reply = client.post(tools=[{"type": "web_search"}])
        assert reply.status_code == 400
        assert "Invalid value: 'web_search'" in reply.json()["error"]["message"]

    def test_the_dated_name_answers(self, client: OpenAI) -> None:
        assert client.whole(model="gpt-4o-mini")["model"] == "gpt-4o-mini-2024-07-18"
        assert client.whole(model="my-model")["model"] == "my-model"

    def test_a_deployment_path_names_the_model(self, provider: EmbeddedProvider) -> None:
        url = f"{provider.url}/openai/deployments/mine/chat/completions?api-version=1"
        reply = HTTP.post(url, json={"messages": user("Hi")}, headers={"api-key": "any"})
        assert reply.json()["model"] == "mine"
        assert HTTP.post(url, json={}, headers={"api-key": "wrong"}).status_code == 401

    def test_the_shape_of_an_error(self, client: OpenAI) -> None:
        assert client.post(model="missing").json() == {
            "error": {
                "message": "The model `missing` does not exist or you do not have access to it.",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_found",
            }
        }


class TestAnthropic:
    SEARCH: ClassVar = {"type": "web_search_20250305", "name": "web_search"}

    @pytest.fixture
    def client(self, provider: EmbeddedProvider) -> Anthropic:
        return Anthropic(provider)

    def test_the_shape_of_a_text_stream(self, client: Anthropic) -> None:
        start, opening, ping, *deltas, closing, end, stop = client.events(max_tokens=2)
        assert start["message"]["content"] == []
        assert start["message"]["stop_reason"] is None
        assert start["message"]["usage"]["output_tokens"] == 1
        assert start["message"]["usage"]["cache_read_input_tokens"] == 0
        assert opening == {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        }
        assert ping == {"type": "ping"}
        assert [delta["delta"] for delta in deltas] == [
            {"type": "text_delta", "text": word}
            for word in tokens(client.whole(max_tokens=2)["text"])
        ]
        assert closing == {"type": "content_block_stop", "index": 0}
        assert end["delta"] == {
            "stop_reason": "max_tokens",
            "stop_sequence": None,
            "stop_details": None,
        }
        assert end["usage"]["output_tokens"] == 2
        assert stop == {"type": "message_stop"}

    def test_thinking_is_signed(self, client: Anthropic) -> None:
        thinking, text = client.whole(**client.thinking)["content"]
        assert thinking["type"] == "thinking"
        assert len(thinking["signature"]) == 128
        assert text["type"] == "text"
        events = client.events(**client.thinking)
        deltas = [e["delta"]["type"] for e in events if e["type"] == "content_block_delta"]
        kinds = list(dict.fromkeys(deltas))
        assert kinds == ["thinking_delta", "signature_delta", "text_delta"]
        assert client.whole(thinking={"type": "adaptive"})["reasoning"]
        assert not client.whole(thinking={"type": "disabled"})["reasoning"]

    def test_tool_input_comes_in_pieces(self, client: Anthropic) -> None:
        body = {"messages": user(CITIES), "tools": [client.tool("get_weather", LOCATION)]}
        events = client.events(**body)
        starts = [e["content_block"] for e in events if e["type"] == "content_block_start"]
        assert [(s["type"], s["name"], s["input"]) for s in starts] == [
            ("tool_use", "get_weather", {})
        ] * 2
        parts = [e["delta"]["partial_json"] for e in events if e["type"] == "content_block_delta"]
        assert parts[:3] == ["", '{"loc', "ation"]

    def test_stop_sequences_are_named(self, client: Anthropic) -> None:
        answer = client.whole(messages=user("one two"), stop_sequences=[" two"])
        assert answer["text"].endswith("one")
        assert (answer["finish"], answer["stopped_by"]) == ("stop_sequence", " two")
        assert client.folded(messages=user("one two"), stop_sequences=[" two"])["stopped_by"]

    def test_web_search(self, client: Anthropic) -> None:
        body = {"messages": user("Good news?"), "tools": [self.SEARCH]}
        answer = client.whole(**body)
        use, result, text = answer["content"]
        assert (use["type"], use["name"]) == ("server_tool_use", "web_search")
        assert use["input"] == {"query": "Good news"}
        assert result["type"] == "web_search_tool_result"
        assert result["tool_use_id"] == use["id"]
        page = result["content"][0]
        citation = text["citations"][0]
        assert citation["type"] == "web_search_result_location"
        assert (citation["url"], citation["title"]) == (page["url"], page["title"])
        assert answer["usage"]["server_tool_use"]["web_search_requests"] == 1
        assert client.folded(**body)["content"] == answer["content"]

    def test_usage_adds_up(self, client: Anthropic) -> None:
        answer = client.whole(**client.thinking)
        usage = answer["usage"]
        thought = len(tokens(answer["reasoning"]))
        assert usage["output_tokens_details"] == {"thinking_tokens": thought}
        assert usage["output_tokens"] == thought + len(tokens(answer["text"]))
        assert usage["cache_read_input_tokens"] == usage["cache_creation_input_tokens"] == 0

    def test_the_older_place_of_the_schema(self, client: Anthropic) -> None:
        form = {"type": "json_schema", "schema": LOCATION}
        text = client.whole(messages=user("Go to Rome"), output_format=form)["text"]
        assert json.loads(text) == {"location": "Rome"}

    @pytest.mark.parametrize(
        ("body", "complaint"),
        [
            ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
            ({"max_tokens": 0}, "max_tokens"),
            ({"max_tokens": None}, "max_tokens"),
            (
                {
                    "tools": [{"name": "t", "input_schema": {}}],
                    "tool_choice": {"type": "any"},
                    "thinking": {"type": "enabled", "budget_tokens": 1024},
                },
                "Thinking may not be enabled",
            ),
        ],
    )
    def test_what_the_vendor_refuses(
        self, client: Anthropic, body: dict[str, Any], complaint: str
    ) -> None:
        reply = client.post(**body)
        assert reply.status_code == 400
        assert complaint in reply.json()["error"]["message"]

    def test_the_shape_of_an_error(self, client: Anthropic) -> None:
        reply = client.post(model="missing")
        assert reply.json() == {
            "type": "error",
            "error": {"type": "not_found_error", "message": "model: missing"},
            "request_id": reply.headers["request-id"],
        }


class TestScript:
    def test_is_given_out_in_order_and_then_the_rules_hold(self) -> None:
        with EmbeddedProvider(["one", Answer("two", reasoning="hm")]) as provider:
            openai, anthropic = OpenAI(provider), Anthropic(provider)
            assert openai.whole()["text"] == "one"
            answer = anthropic.folded()
            assert (answer["text"], answer["reasoning"]) == ("two", "hm")
            assert PARROTS in openai.whole()["text"]
            assert [request.path for request in provider.requests] == [
                openai.path,
                anthropic.path,
                openai.path,
            ]

    def test_is_exact(self) -> None:
        with EmbeddedProvider(["a b c d"] * 2) as provider:
            assert OpenAI(provider).whole(max_tokens=1, stop=["b"])["text"] == "a b c d"
            assert Anthropic(provider).whole(max_tokens=1)["finish"] == "end_turn"

    def test_rejected_requests_take_nothing(self) -> None:
        with EmbeddedProvider(["one"]) as provider:
            assert OpenAI(provider).post(key="wrong").status_code == 401
            assert OpenAI(provider).post(messages=[]).status_code == 400
            assert OpenAI(provider).whole()["text"] == "one"

    def test_tool_calls_as_values_or_dicts(self) -> None:
        calls = [Call("f", {"x": 1}, "call_1"), {"name": "g", "args": {}, "type": "tool_call"}]
        with EmbeddedProvider([Answer(tool_calls=calls), Answer(tool_calls=calls)]) as provider:
            for client in (OpenAI(provider), Anthropic(provider)):
                answer = client.folded()
                assert arguments(answer) == [("f", {"x": 1}), ("g", {})]
                assert answer["calls"][0][0] == "call_1"
                assert answer["finish"] == client.finishes["calls"]

    def test_broken_arguments_travel_as_they_are(self) -> None:
        answer = Answer(tool_calls=[Call("f", '{"x": ')], finish="length")
        with EmbeddedProvider([answer, answer]) as provider:
            openai = OpenAI(provider).folded()
            assert (openai["calls"][0][2], openai["finish"]) == ('{"x": ', "length")
            assert Anthropic(provider).whole()["content"][0]["input"] == {}

    def test_usage_is_taken_over(self) -> None:
        usage = Usage(input=100, output=50, reasoning=20, cache_read=30, cache_creation=10)
        with EmbeddedProvider([Answer("x", usage=usage)] * 2) as provider:
            openai = OpenAI(provider).whole()["usage"]
            anthropic = Anthropic(provider).whole()["usage"]
        assert (openai["prompt_tokens"], openai["completion_tokens"]) == (100, 50)
        assert openai["prompt_tokens_details"]["cached_tokens"] == 30
        assert openai["completion_tokens_details"]["reasoning_tokens"] == 20
        assert anthropic["input_tokens"] == 60
        assert anthropic["cache_read_input_tokens"] == 30
        assert anthropic["cache_creation_input_tokens"] == 10

    def test_a_refusal(self) -> None:
        with EmbeddedProvider([Answer("I can't.", finish="refusal")] * 3) as provider:
            whole = OpenAI(provider).whole()
            assert whole["message"]["refusal"] == "I can't."
            assert (whole["text"], whole["finish"]) == ("", "stop")
            deltas = [c["choices"][0]["delta"] for c in OpenAI(provider).chunks()[:-1]]
            assert "".join(d.get("refusal") or "" for d in deltas) == "I can't."
            assert Anthropic(provider).whole()["finish"] == "refusal"

    def test_a_search(self) -> None:
        found = Found("q", "Title", "https://example.com/", "words")
        with EmbeddedProvider([Answer("See.", found=found)]) as provider:
            use, _, text = Anthropic(provider).whole()["content"]
        assert use["input"] == {"query": "q"}
        assert text["citations"][0]["cited_text"] == "words"

    @pytest.mark.parametrize(
        ("error", "status", "retry_after"),
        [
            (429, 429, "1"),
            (418, 418, None),
            (502, 502, None),
            ("overloaded", 503, None),
            ("context_overflow", 400, None),
            (Failure("rate_limit", "slow", retry_after=0.5), 429, "0.5"),
            (Failure("overloaded", "busy", status=529), 529, None),
        ],
    )
    @pytest.mark.parametrize("stream", [True, False])
    def test_errors(self, error: Any, status: int, retry_after: str | None, stream: bool) -> None:
        with EmbeddedProvider([Answer(error=error), "fine"]) as provider:
            reply = OpenAI(provider).post(stream=stream)
            assert reply.status_code == status
            assert reply.headers.get("retry-after") == retry_after
            if isinstance(error, Failure):
                assert reply.json()["error"]["message"] == error.message
            assert OpenAI(provider).whole()["text"] == "fine"

    def test_an_error_in_mid_stream(self) -> None:
        answer = Answer("so far", error="overloaded")
        with EmbeddedProvider([answer] * 3) as provider:
            *_, (_, last) = frames(OpenAI(provider).post(stream=True))
            assert json.loads(last)["error"]["type"] == "server_error"
            *_, (name, last) = frames(Anthropic(provider).post(stream=True))
            assert name == "error"
            assert json.loads(last)["error"] == {
                "type": "overloaded_error",
                "message": "Overloaded",
            }
            assert OpenAI(provider).post().status_code == 503


class TestProvider:
    def test_other_paths_are_unknown(self, provider: EmbeddedProvider) -> None:
        reply = HTTP.get(provider.url + "/v1/chat/completions")
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "unknown_url"
        assert HTTP.post(provider.url + "/v1/messages/batches", json={}).status_code == 404

    def test_no_log_on_request(self) -> None:
        with EmbeddedProvider(request_log=False) as provider:
            OpenAI(provider).whole()
            assert provider.requests == []

    @pytest.mark.parametrize("slow", [{"first_delay": 60.0}, {"chunk_delay": 60.0}])
    def test_a_slow_stream_can_be_left(self, slow: dict[str, float]) -> None:
        with EmbeddedProvider(**slow) as provider:
            body = {"model": "m", "messages": user("Hi"), "stream": True}
            with pytest.raises(httpx.ReadTimeout):
                HTTP.post(provider.url + OpenAI.path, json=body, timeout=0.1)
            provider.wait_closed(2)
            assert provider.abandoned == 1

    def test_the_first_event_does_not_wait_for_the_second(self) -> None:
        body = {"model": "m", "messages": user("Hi"), "stream": True}
        with (
            EmbeddedProvider(chunk_delay=60.0) as provider,
            HTTP.stream("POST", provider.url + OpenAI.path, json=body) as response,
        ):
            assert b'"role":"assistant"' in next(response.iter_raw())

    @pytest.mark.anyio
    async def test_serves_any_backend(self) -> None:
        async with EmbeddedProvider() as provider, httpx.AsyncClient() as client:
            body = {"model": "m", "messages": user("Hi")}
            reply = await client.post(provider.url + OpenAI.path, json=body)
        assert "Hi" in reply.json()["choices"][0]["message"]["content"]

    def test_a_thousand_streams_at_once(self) -> None:
        # Two descriptors a stream, because both ends are in this process.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        count = min(1000, (hard - 200) // 2) if hard > 0 else 1000
        try:
            with EmbeddedProvider(request_log=False, chunk_delay=0.001) as provider:
                replies = asyncio.run(many_streams(provider, count))
                assert provider.connections == count
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert all(reply.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for reply in replies)
        assert all(f"number {n}".encode() in reply for n, reply in enumerate(replies))


async def many_streams(provider: EmbeddedProvider, count: int) -> list[bytes]:
    """All streams are open before the first one is read to its end."""
    everyone = asyncio.Barrier(count)

    async def one(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(provider.url[17:]))
        # The model's name is in every event, so a mix-up of streams would show.
        body = json.dumps({"model": f"number {number}", "messages": user("Hi"), "stream": True})
        head = f"POST {OpenAI.path} HTTP/1.1\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n{body}".encode())
        received = await reader.readuntil(b"\r\n\r\n")
        await everyone.wait()
        received += await reader.read()
        writer.close()
        await writer.wait_closed()
        return received

    return await asyncio.gather(*(one(number) for number in range(count)))


class TestWords:
    @given(st.text())
    def test_tokens_and_pieces_join_again(self, text: str) -> None:
        assert "".join(tokens(text)) == text
        assert "".join(pieces(text)) == text

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("What's the weather in San Francisco and Boston?", ["San Francisco", "Boston"]),
            ("что больше в 2024 Лос-Анджелес или Нью-Йорк", ["Лос-Анджелес", "Нью-Йорк"]),
            ("Tell me. Now I want Rome's best; and Rome again, I'm sure.", ["Rome"]),
            ("Предоставьте детали о фильме Inception", ["Inception"]),
            ("Boston", ["Boston"]),
            ("Расскажи шутку", []),
            ("", []),
        ],
    )
    def test_proper_nouns(self, text: str, expected: list[str]) -> None:
        assert nouns(text) == expected


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(msgspec.Struct, tag="leaf"):
    value: int


class Node(msgspec.Struct, tag="node"):
    left: Node | Leaf
    right: Node | Leaf


class Person(msgspec.Struct):
    name: Annotated[str, Meta(min_length=20, max_length=25)]
    age: Annotated[int, Meta(ge=18, lt=20)]
    share: Annotated[float, Meta(gt=0, lt=0.5)]
    friends: list[Person]
    tags: Annotated[list[str], Meta(min_length=5)]
    scores: dict[str, float]
    colours: set[Colour]
    kind: Literal["a", "b"]
    maybe: int | None
    born: datetime.date
    seen: Annotated[datetime.datetime, Meta(tz=True)]
    key: uuid.UUID
    place: tuple[float, float]
    tree: Node | Leaf
    mail: Annotated[str, Meta(pattern=r"^[^@]+@[^@]+$")]
    nickname: str = ""


class TestExamples:
    @pytest.mark.parametrize("text", ["", "Ann is 19", "Ann is -7.5 and 1e5", "blue b"])
    def test_fits_a_rich_schema(self, text: str) -> None:
        """msgspec writes the schema of a type, and judges the example."""
        value = example(msgspec.json.schema(Person), nouns=nouns(text), text=text)
        person = msgspec.convert(value, Person, strict=True)
        assert len(person.tags) == 5
        assert "nickname" not in value

    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"const": None}, None),
            ({"type": ["null", "integer"]}, 3),
            ({"enum": ["small", "large"]}, "large"),
            ({"type": "integer", "multipleOf": 7, "minimum": 10}, 14),
            ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [3]),
            ({"type": "array", "items": False}, []),
            ({"type": "array", "prefixItems": [{"const": 1}, {"const": "x"}]}, [1, "x"]),
            ({"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}, [True, False]),
            ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
            ({"type": "object", "additionalProperties": {"type": "integer"}}, {"key": 3}),
            ({"type": "string", "pattern": "^[A-Z]{3}$"}, "ABC"),
            ({"type": "string", "maxLength": 2}, "Ro"),
            ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 5}}}, 5),
            ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 3),
            ({}, "Rome"),
            (True, "Rome"),
        ],
    )
    def test_small_schemas(self, schema: Any, value: Any) -> None:
        assert example(schema, nouns=["Rome"], text="3 large ones in Rome") == value

    def test_numbers_of_the_prompt_are_used_once(self) -> None:
        schema = {
            "properties": {"a": {"type": "integer"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        }
        assert example(schema, nouns=[], text="add 2 and 3.5") == {"a": 2, "b": 3.5}

    def test_a_schema_without_an_end_does_not_hang(self) -> None:
        endless = {"properties": {"self": {"$ref": "#"}}, "required": ["self"]}
        assert "self" in example(endless, nouns=[], text="")
        assert example({"$ref": "#"}, nouns=[], text="x") is not None
