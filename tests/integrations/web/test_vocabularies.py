"""Items of a stream in three vocabularies: nothing is lost that the vocabulary has a word for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import decode, decode_whole, events_of, samples
from strategies import chunk_events
from streamfold.chunks import AIMessageChunk
from streamfold.deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ReasoningDelta,
    Restart,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    decode_events,
)
from streamfold.errors import ConfigurationError, StreamInterruptedError
from streamfold.integrations.web import EventsVocabulary, OpenAIVocabulary, VercelVocabulary
from streamfold.integrations.web.openai import completion
from streamfold.integrations.web.sse import events as sse_events
from streamfold.integrations.web.sse import json_line
from streamfold.integrations.web.vocabulary import vocabulary_of
from streamfold.messages import AIMessage, ToolMessage
from streamfold.usage import make_usage

USAGE = UsageReport(make_usage(5, 7, output_details={"reasoning": 2}))
CALL = [
    BlockStart("tool_call", 0, id="c1", name="look"),
    ToolCallDelta('{"at": ', 0),
    ToolCallDelta('"sky"}', 0),
    BlockEnd("tool_call", 0),
]


def told(vocabulary: Any, items: Iterable[Any]) -> list[Any]:
    """The payloads of a whole stream, as data."""
    payloads = [payload for item in items for payload in vocabulary.feed(item)]
    payloads += vocabulary.close()
    return [p.decode() if p == b"[DONE]" else json.loads(p) for p in payloads]


# ---- any events ----------------------------------------------------------------------------------


@given(st.lists(chunk_events, max_size=12))
def test_no_events_break_a_vocabulary(events: list[ChunkEvent]) -> None:
    """Whatever a provider says, each vocabulary has JSON for it, and keeps its own grammar."""
    told(EventsVocabulary(), events)
    check_openai(told(OpenAIVocabulary(include_usage=True), events))
    check_vercel(told(VercelVocabulary(include_usage=True), events))


def check_openai(payloads: list[Any]) -> None:
    """The grammar of a stream of chunks: one role, one finish reason, one id; `[DONE]` last."""
    *chunks, done = payloads
    assert done == "[DONE]"
    assert len({(c["id"], c["created"], c["object"]) for c in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [c["delta"].get("role") for c in choices] == ["assistant", *[None] * (len(choices) - 1)]
    assert [c["finish_reason"] is None for c in choices] == [*[True] * (len(choices) - 1), False]
    assert all((chunk["usage"] is None) == bool(chunk["choices"]) for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks[:-1])


def check_vercel(payloads: list[Any]) -> None:
    """The grammar of the UI message stream, as `processUIMessageStream` of the SDK demands it."""
    *parts, done = payloads
    assert done == "[DONE]"
    assert parts[0]["type"] == "start"
    assert parts[-1]["type"] in ("finish", "abort")
    open_ids: set[tuple[str, str]] = set()
    calls: set[str] = set()
    steps = 0
    for part in parts:
        kind, _, what = part["type"].partition("-")
        if kind in ("text", "reasoning"):
            key = (kind, part["id"])
            assert (key in open_ids) is (what != "start")
            (open_ids.discard if what == "end" else open_ids.add)(key)
        elif part["type"] == "tool-input-start":
            calls.add(part["toolCallId"])
        elif kind == "tool":
            assert part["toolCallId"] in calls
        elif what == "step":
            steps += 1 if kind == "start" else -1
            assert steps in (0, 1)
    assert not open_ids
    assert steps == 0


# ---- answers of every dialect --------------------------------------------------------------------

ANSWERS = {f"{s.dialect}-{s.case}": decode(s.dialect, s.stream) for s in samples()}
WHOLE = {name: answer for name, answer in ANSWERS.items() if answer.error is None}


@pytest.mark.parametrize("name", ANSWERS)
def test_events_are_sent_as_they_are(name: str) -> None:
    """The typed events of an answer come back equal, and in their order."""
    events = events_of(ANSWERS[name])
    vocabulary = EventsVocabulary()
    payloads = [payload for event in events for payload in vocabulary.feed(event)]
    assert decode_events(b"[" + b",".join(payloads) + b"]") == events


def _round(message: AIMessage) -> dict[str, Any]:
    """What both sides of OpenAI's vocabulary can say."""
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    return {
        "reasoning": "".join(b.get("reasoning", "") for b in message.content_blocks),
        "calls": [(call["id"], call["name"], call["args"]) for call in calls],
        "usage": message.usage_metadata and message.usage_metadata["total_tokens"],
        "finish": message.finish_reason,
    }


def _said_in_openais_words(message: AIMessage) -> dict[str, Any]:
    expected = _round(message)
    refused = message.finish_reason == "refusal" and "refusal" not in message.response_metadata
    odd = {"pause": "tool_calls" if message.tool_calls else "stop"}
    expected["finish"] = (
        "content_filter" if refused else odd.get(str(message.finish_reason), message.finish_reason)
    )
    return expected


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("form", ["stream", "whole"])
def test_openais_words_say_the_same(name: str, form: str) -> None:
    """An answer of any provider, told in OpenAI's words and read by an OpenAI client."""
    answer = WHOLE[name]
    if form == "stream":
        vocabulary = OpenAIVocabulary(model="m", include_usage=True)
        payloads = [p for event in events_of(answer) for p in vocabulary.feed(event)]
        again = decode("openai_chat", sse_events([*payloads, *vocabulary.close()]))
    else:
        again = decode_whole("openai_chat", json_line(completion(answer.message, model="m")))
    assert again.error is None
    assert again.message.text == answer.message.text
    assert _round(again.message) == _said_in_openais_words(answer.message)


@pytest.mark.parametrize("name", WHOLE)
def test_vercels_parts_say_the_same(name: str) -> None:
    """The parts of an answer put together are its text, reasoning and calls."""
    message, parts = WHOLE[name].message, told(VercelVocabulary(), events_of(WHOLE[name]))
    check_vercel(parts)
    assert _joined(parts, "reasoning-delta") == _round(message)["reasoning"]
    refusal = message.response_metadata.get("refusal")
    assert _joined(parts, "text-delta") == message.text + (refusal or "")
    ours = [p for p in parts[:-1] if p["type"].startswith("tool-input-") and not _executed(p)]
    read = [(p["toolCallId"], p["toolName"], p["input"]) for p in ours if "input" in p]
    assert read == _round(message)["calls"]


def _executed(part: dict[str, Any]) -> bool:
    return bool(part.get("providerExecuted"))


def _joined(parts: list[Any], kind: str) -> str:
    return "".join(part["delta"] for part in parts[:-1] if part["type"] == kind)


# ---- single words --------------------------------------------------------------------------------


def test_vercels_parts_to_the_letter() -> None:
    """One answer with everything, as the SDK's documentation has it."""
    items: list[Any] = [
        MessageStart(id="m1", model="x"),
        ReasoningDelta("Hm.", 0),
        TextDelta("Look: ", 1),
        Annotation({"type": "citation", "url": "https://a.test", "title": "A"}, 1),
        BlockEnd("text", 1),
        *(msgspec.structs.replace(event, index=2) for event in CALL),
        BlockStart("image", 3, data={"mime_type": "image/png"}),
        DataDelta("QUJD", 3, "image"),
        USAGE,
        MessageEnd("tool_calls"),
        ToolMessage("blue", tool_call_id="c1"),
        ToolMessage("nobody asked", tool_call_id="c9"),
        MessageStart(id="m2", model="x"),
        TextDelta("It is blue.", 0),
        USAGE,
        MessageEnd("stop"),
    ]
    assert told(VercelVocabulary(message_id="u1", include_usage=True), items) == [
        {"type": "start", "messageId": "u1"},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Hm."},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "Look: "},
        {"type": "source-url", "sourceId": "source-3", "url": "https://a.test", "title": "A"},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "c1", "toolName": "look"},
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '{"at": '},
        {"type": "tool-input-delta", "toolCallId": "c1", "inputTextDelta": '"sky"}'},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {
            "type": "tool-input-available",
            "toolCallId": "c1",
            "toolName": "look",
            "input": {"at": "sky"},
        },
        {"type": "file", "url": "data:image/png;base64,QUJD", "mediaType": "image/png"},
        {"type": "tool-output-available", "toolCallId": "c1", "output": "blue"},
        {"type": "finish-step"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-4"},
        {"type": "text-delta", "id": "text-4", "delta": "It is blue."},
        {"type": "text-end", "id": "text-4"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {
                "usage": {"inputTokens": 10, "outputTokens": 14, "totalTokens": 24}
            },
        },
        "[DONE]",
    ]


def test_calls_that_cannot_be_run_are_errors() -> None:
    """Arguments that were cut off are shown as they came, with the reason."""
    parts = told(VercelVocabulary(), [*CALL[:2], MessageEnd("length")])
    assert parts[-4] == {
        "type": "tool-input-error",
        "toolCallId": "c1",
        "toolName": "look",
        "input": '{"at": ',
        "errorText": "the arguments were cut off by the token limit",
    }
    assert parts[-2] == {"type": "finish", "finishReason": "length"}


def test_tools_of_the_provider() -> None:
    """Their calls and results say that nobody has to run them."""
    items = [
        BlockStart("server_tool_call", 0, id="s1", name="search"),
        ToolCallDelta('{"q": "x"}', 0, kind="server_tool_call"),
        BlockStart("server_tool_result", 1, data={"tool_call_id": "s1", "output": [1]}),
        MessageEnd("stop"),
    ]
    named = {"toolCallId": "s1", "toolName": "search", "providerExecuted": True}
    parts = told(VercelVocabulary(), items)
    assert parts[4] == {"type": "tool-input-available", **named, "input": {"q": "x"}}
    result = {"type": "tool-output-available", "toolCallId": "s1", "output": [1]}
    assert parts[5] == {**result, "providerExecuted": True}


def test_an_agents_run_is_one_conversation() -> None:
    """Of `astream_events`, what models said and what tools gave."""
    chunk = AIMessageChunk(events=[*CALL, MessageEnd("tool_calls")])
    result = ToolMessage("blue", tool_call_id="c1")
    events = [
        {"event": "on_chain_start", "data": {"input": "?"}},
        {"event": "on_chat_model_stream", "data": {"chunk": chunk}},
        {"event": "on_tool_end", "data": {"output": result}},
        {"event": "on_tool_error", "data": {"error": OSError("no"), "tool_call_id": "c1"}},
    ]
    types = [part["type"] for part in told(VercelVocabulary(), events)[:-1]]
    assert "tool-output-available" in types
    assert "tool-output-error" in types
    plain = {"type": "tool", "content": "blue", "tool_call_id": "c1"}
    assert told(EventsVocabulary(), [result])[0] == plain
    whole = told(EventsVocabulary(), events)
    assert [event.get("event") for event in whole[:-1]] == [e["event"] for e in events]
    assert whole[1]["data"]["chunk"]["type"] == "AIMessageChunk"


def test_refusals_of_openai() -> None:
    """The words of a refusal are its own field; a vendor without words says why it stopped."""
    refusal = BlockStart("non_standard", 0, data={"value": {"type": "refusal", "refusal": "No."}})
    worded = told(OpenAIVocabulary(), [refusal, MessageEnd("refusal")])
    assert worded[0]["choices"][0]["delta"]["refusal"] == "No."
    assert worded[-2]["choices"][0]["finish_reason"] == "stop"
    silent = told(OpenAIVocabulary(), [TextDelta("I "), MessageEnd("refusal")])
    assert silent[-2]["choices"][0]["finish_reason"] == "content_filter"


def test_images_and_citations_of_openai() -> None:
    """They are where OpenAI's and OpenRouter's clients look for them."""
    items = [
        TextDelta("See", 0),
        Annotation({"type": "citation", "url": "https://a.test", "title": "A"}, 0),
        BlockStart("image", 1, data={"base64": "QUJD", "mime_type": "image/png"}),
        MessageEnd("stop"),
    ]
    deltas = [c["choices"][0]["delta"] for c in told(OpenAIVocabulary(), items)[:-1]]
    (note,) = deltas[1]["annotations"]
    assert note["url_citation"]["url"] == "https://a.test"
    url = {"url": "data:image/png;base64,QUJD"}
    assert deltas[2]["images"] == [{"type": "image_url", "image_url": url}]


@pytest.mark.parametrize("reason", ["error", "cancelled"])
def test_an_answer_that_broke_off_is_no_short_answer(reason: str) -> None:
    """OpenAI has no finish reason for it, so it is an error."""
    with pytest.raises(StreamInterruptedError):
        told(OpenAIVocabulary(), [TextDelta("So "), MessageEnd(reason)])
    with pytest.raises(StreamInterruptedError):
        completion(AIMessage("So ", finish_reason="error"))
    last = told(VercelVocabulary(), [TextDelta("So "), MessageEnd(reason)])[-2]
    assert last == ({"type": "abort"} if reason == "cancelled" else last)
    assert last.get("finishReason") == (None if reason == "cancelled" else "error")


@pytest.mark.parametrize("make", [OpenAIVocabulary, VercelVocabulary])
def test_a_restart_cannot_be_told(make: Any) -> None:
    """What was sent cannot be taken back; before that there is nothing to take back."""
    fine = told(make(), [Restart(), TextDelta("All.")])
    assert "All." in json.dumps(fine)
    with pytest.raises(StreamInterruptedError, match="began anew"):
        told(make(), [TextDelta("So "), Restart(reason="it broke")])


@pytest.mark.parametrize("given", ["vercal", None, 3])
def test_an_unknown_vocabulary(given: Any) -> None:
    """It is named, with those there are."""
    with pytest.raises(ConfigurationError, match="'events', 'openai', 'vercel'"):
        vocabulary_of(given)
