"""Cohere's answers: what its own wire has, beyond the contract of all dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decoding import Decoded, bytewise, decode, decode_whole
from streamfold.deltas import BlockEnd, ProviderData, TextDelta
from streamfold.errors import ServerError, StreamInterruptedError, StreamProtocolError
from streamfold.wire.cohere import read_usage

Event = dict[str, Any]

START: Event = {
    "type": "message-start",
    "id": "m1",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "citations": []}},
}
USAGE = {"billed_units": {"input_tokens": 4}, "tokens": {"input_tokens": 5, "output_tokens": 6}}


def event(kind: str, /, index: int | None = None, **message: Any) -> Event:
    place = {} if index is None else {"index": index}
    return {"type": kind, **place, "delta": {"message": message}}


def opened(index: int, kind: str) -> Event:
    return event("content-start", index, content={"type": kind, kind: ""})


def piece(index: int, **content: Any) -> Event:
    return event("content-delta", index, content=content)


def ended(index: int) -> Event:
    return {"type": "content-end", "index": index}


def end(reason: str | None = "COMPLETE", **delta: Any) -> Event:
    said = {} if reason is None else {"finish_reason": reason}
    return {"type": "message-end", "delta": {**said, "usage": USAGE, **delta}}


def stream(*events: Event, done: bool = True) -> Decoded:
    """The events after the start, named as the vendor names them."""
    text = "".join(
        f"event: {each.get('type', 'x')}\ndata: {json.dumps(each)}\n\n" for each in (START, *events)
    )
    body = (text + ("data: [DONE]\n\n" if done else "")).encode()
    whole, bytes_ = decode("cohere", body), decode("cohere", bytewise(body))
    assert whole.events == bytes_.events
    assert repr(whole.error) == repr(bytes_.error)
    return whole


def body(message: Any, /, **fields: Any) -> Decoded:
    payload = {"id": "m1", "message": message, "finish_reason": "COMPLETE", "usage": USAGE}
    return decode_whole("cohere", json.dumps({**payload, **fields}).encode())


def call(id: str | None = "c1", name: str | None = "f", arguments: str = "") -> Event:
    said = {"name": name, "arguments": arguments}
    function = {key: value for key, value in said.items() if value is not None}
    return {**({} if id is None else {"id": id}), "type": "function", "function": function}


# ---- text and thinking ---------------------------------------------------------------------------


def test_thinking_and_text_are_blocks() -> None:
    streamed = stream(
        opened(0, "thinking"),
        piece(0, thinking="I "),
        piece(0, thinking="see"),
        ended(0),
        opened(1, "text"),
        piece(1, text="Yes"),
        ended(1),
        end(),
    )
    whole = body(
        {"content": [{"type": "thinking", "thinking": "I see"}, {"type": "text", "text": "Yes"}]}
    )
    for decoded in (streamed, whole):
        assert decoded.message.content == [
            {"type": "reasoning", "reasoning": "I see"},
            {"type": "text", "text": "Yes"},
        ]
        assert decoded.message.id == "m1"
    kinds = [e.kind for events in streamed.events for e in events if isinstance(e, BlockEnd)]
    assert kinds == ["reasoning", "text"]


def test_two_texts_are_two_blocks() -> None:
    decoded = stream(piece(0, text="a"), ended(0), opened(1, "text"), piece(1, text="b"), end())
    pieces = [e for events in decoded.events for e in events if isinstance(e, TextDelta)]
    assert pieces == [TextDelta("a", 0), TextDelta("b", 1)]
    assert decoded.message.text == "ab"


@pytest.mark.parametrize(
    "content",
    [
        {"type": "thinking", "thinking": "x", "text": ""},
        {"type": "thinking", "thinking": "x", "text": None},
        {"thinking": "x"},
    ],
)
def test_a_piece_is_what_its_key_says(content: Any) -> None:
    """Also where nothing announced the block."""
    expected = [{"type": "reasoning", "reasoning": "x"}]
    assert stream(piece(0, **content), end()).message.content == expected
    assert body({"content": [content]}).message.content == expected


def test_content_may_be_a_str() -> None:
    assert body({"content": "a"}).message.text == "a"
    assert body({"content": None}).message.text == ""


def test_content_of_an_unknown_type_is_kept() -> None:
    native = {"type": "picture", "data": "a", "size": 2}
    streamed = stream(
        event("content-start", 0, content={"type": "picture", "data": "a"}),
        event("content-delta", 0, content={"size": 2}),
        ended(0),
        end(),
    )
    for decoded in (streamed, body({"content": [native]})):
        assert decoded.message.content == [{"type": "non_standard", "value": native}]


def test_other_fields_of_a_block_are_extras() -> None:
    content = {"type": "thinking", "thinking": "x", "signature": "s"}
    assert body({"content": [content]}).message.content_blocks[0]["extras"] == {"signature": "s"}
    decoded = stream(piece(0, thinking="x"), piece(0, signature="s"), end())
    assert decoded.message.content_blocks[0]["extras"] == {"signature": "s"}


# ---- citations -----------------------------------------------------------------------------------

SOURCES = [
    {"type": "tool", "id": "t", "tool_output": {"url": "https://x/y", "title": 5}},
    {"type": "document", "id": "d", "document": {"title": "Facts", "text": "Riga."}},
]


def citation(**fields: Any) -> dict[str, Any]:
    return {"start": 0, "end": 4, "text": "Riga", "sources": SOURCES, **fields}


def cited(decoded: Decoded) -> list[Any]:
    return [b.get("annotations") for b in decoded.message.content_blocks if b["type"] == "text"]


NOTE = {
    "type": "citation",
    "start_index": 0,
    "end_index": 4,
    "cited_text": "Riga",
    "url": "https://x/y",
    "extras": {"sources": SOURCES, "type": "TEXT_CONTENT", "content_index": 1},
}


@pytest.mark.parametrize("late", [True, False])
def test_citations_are_annotations_of_their_text(late: bool) -> None:
    """Also those that come after their text has ended."""
    said = event("citation-start", 0, citations=citation(type="TEXT_CONTENT", content_index=1))
    around = [ended(1), said] if late else [said, ended(1)]
    streamed = stream(
        piece(0, thinking="x"),
        opened(1, "text"),
        piece(1, text="Riga"),
        *around,
        {"type": "citation-end", "index": 0},
        end(),
    )
    whole = body(
        {
            "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Riga"}],
            "citations": [citation(type="TEXT_CONTENT", content_index=1)],
        }
    )
    for decoded in (streamed, whole):
        assert cited(decoded) == [[NOTE]]


def test_citations_of_old_models_do_not_say_which_text() -> None:
    decoded = stream(piece(0, text="Riga"), event("citation-start", 0, citations=citation()), end())
    assert [note["extras"] for (note,) in cited(decoded)] == [{"sources": SOURCES}]


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "THINKING_CONTENT", "content_index": 0},
        {"type": "PLAN"},
        {"type": "TEXT_CONTENT", "content_index": 7},
    ],
)
def test_citations_of_anything_else_are_kept_beside(fields: dict[str, Any]) -> None:
    one, two = citation(**fields), citation(**fields, start=1)
    contents = [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "a"}]
    streamed = stream(
        piece(0, thinking="x"),
        piece(1, text="a"),
        event("citation-start", 0, citations=one),
        event("citation-start", 1, citations=two),
        end(),
    )
    for decoded in (streamed, body({"content": contents, "citations": [one, two]})):
        assert decoded.message.response_metadata["citations"] == [one, two]
        assert cited(decoded) == [None]


def test_citations_without_sources() -> None:
    message = body({"content": "Riga", "citations": [{"start": 0, "end": 4}, "odd", None]}).message
    assert message.content_blocks[0]["annotations"] == [
        {"type": "citation", "start_index": 0, "end_index": 4}
    ]


# ---- plans and calls -----------------------------------------------------------------------------


def test_the_tool_plan_grows_in_the_metadata() -> None:
    """It is neither text nor reasoning, and can be watched."""
    pieces = [event("tool-plan-delta", tool_plan=each) for each in ("I will", " look", " it up.")]
    decoded = stream(*pieces, end("TOOL_CALL"))
    told = [
        e.data["tool_plan"]
        for events in decoded.events
        for e in events
        if isinstance(e, ProviderData) and "tool_plan" in e.data
    ]
    assert told == ["I will", "I will look", "I will look it up."]
    message = decoded.message
    assert (message.text, message.content_blocks) == ("", [])
    assert message.response_metadata["tool_plan"] == "I will look it up."
    whole = body({"tool_plan": "I will look it up."}, finish_reason="TOOL_CALL").message
    assert whole.response_metadata == message.response_metadata


@pytest.mark.parametrize("last", [end("TOOL_CALL"), None])
def test_a_long_plan_is_told_less_often_but_whole(last: Event | None) -> None:
    """To tell it anew with each piece would be quadratic."""
    pieces = [event("tool-plan-delta", tool_plan="word ") for _ in range(20_000)]
    text = "".join(
        f"data: {json.dumps(each)}\n\n" for each in (START, *pieces, *([last] if last else []))
    )
    decoded = decode("cohere", (text + "data: [DONE]\n\n").encode())
    assert decoded.error is None
    assert decoded.message.response_metadata["tool_plan"] == "word " * 20_000
    told = [len(json.dumps(chunk.response_metadata)) for chunk in decoded.chunks]
    assert sum(told) < 20 * 100_000


def test_halves_of_a_pair_in_a_plan_are_joined() -> None:
    pieces = [event("tool-plan-delta", tool_plan=each) for each in ("\ud83d", "\ude00")]
    assert stream(*pieces, end()).message.response_metadata["tool_plan"] == "😀"


def test_calls_come_in_pieces_or_whole() -> None:
    streamed = stream(
        event("tool-call-start", 0, tool_calls=call("c1", "f")),
        event("tool-call-delta", 0, tool_calls=call(None, None, '{"a"')),
        event("tool-call-start", 1, tool_calls=call("c2", "f")),
        event("tool-call-delta", 1, tool_calls=call(None, None, '{"b": 2}')),
        event("tool-call-delta", 0, tool_calls=[call(None, None, ": 1}")]),
        {"type": "tool-call-end", "index": 0},
        end("TOOL_CALL"),
    )
    calls = [call("c1", "f", '{"a": 1}'), call("c2", "f", '{"b": 2}')]
    for decoded in (streamed, body({"tool_calls": calls}, finish_reason="TOOL_CALL")):
        assert decoded.message.tool_calls == [
            {"type": "tool_call", "id": "c1", "name": "f", "args": {"a": 1}},
            {"type": "tool_call", "id": "c2", "name": "f", "args": {"b": 2}},
        ]
        assert decoded.message.finish_reason == "tool_calls"


def test_a_call_without_arguments() -> None:
    decoded = stream(event("tool-call-start", 0, tool_calls=call()), end("TOOL_CALL"))
    assert [each["args"] for each in decoded.message.tool_calls] == [{}]


def test_other_fields_of_a_call_are_extras() -> None:
    odd = {**call("c1", "f", "{}"), "mark": 1}
    assert body({"tool_calls": [odd, "x"]}).message.tool_calls[0]["extras"] == {"mark": 1}


def test_a_call_that_is_cut_off_is_invalid() -> None:
    decoded = stream(
        event("tool-call-start", 0, tool_calls=call("c", "f", '{"a')), end("MAX_TOKENS")
    )
    (found,) = decoded.message.invalid_tool_calls
    assert "token limit" in str(found["error"])


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_LIMIT", "length"),
        ("ERROR_TOXIC", "content_filter"),
        ("USER_CANCEL", "cancelled"),
        ("NEW_WORD", "NEW_WORD"),
    ],
)
def test_finish_reasons(reason: str, expected: str) -> None:
    contents = [{"type": "text", "text": "a"}]
    for decoded in (
        stream(piece(0, text="a"), end(reason)),
        body({"content": contents}, finish_reason=reason),
    ):
        assert decoded.message.finish_reason == expected
        assert decoded.message.response_metadata["finish_reason"] == reason


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
@pytest.mark.parametrize("error", ["the server broke", None])
def test_a_failed_generation_is_an_error(reason: str, error: str | None) -> None:
    """With or without a text about it; what came before is kept, with its usage."""
    said = {} if error is None else {"error": error}
    for decoded in (
        stream(piece(0, text="Half"), end(reason, **said)),
        body({"content": "Half"}, finish_reason=reason, **said),
    ):
        assert isinstance(decoded.error, ServerError)
        assert decoded.error.message == (error or f"the generation failed ({reason})")
        assert decoded.error.type == reason
        assert decoded.error.retryable
        assert decoded.message.text == "Half"
        assert decoded.message.usage_metadata is not None


def test_an_error_that_is_no_event() -> None:
    decoded = stream(piece(0, text="Half"), {"message": "internal server error"}, done=False)
    assert isinstance(decoded.error, ServerError)
    assert decoded.error.message == "internal server error"
    assert isinstance(stream({"error": {"message": "no"}}).error, ServerError)
    assert isinstance(body("invalid request").error, ServerError)


def test_the_end_marker_alone_ends_a_stream() -> None:
    assert stream(piece(0, text="a")).error is None
    cut = stream(piece(0, text="a"), done=False)
    assert isinstance(cut.error, StreamInterruptedError)


def test_the_end_of_the_message_ends_a_stream() -> None:
    decoded = stream(piece(0, text="a"), end(), piece(0, text="b"), done=False)
    assert decoded.decoder.done
    assert decoded.message.text == "a"


USAGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"billed_units": {"input_tokens": 1.0, "output_tokens": 2.0}},
        {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
    (
        {
            "billed_units": {"input_tokens": 1, "output_tokens": 2, "search_units": 1},
            "tokens": {"input_tokens": 10, "output_tokens": 20, "reasoning_tokens": 0},
            "cached_tokens": 8.0,
        },
        {
            "input_tokens": 10,
            "output_tokens": 20,
            "total_tokens": 30,
            "input_token_details": {"cache_read": 8},
            "output_token_details": {"reasoning": 0},
        },
    ),
    ({"tokens": 5}, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}),
]


@pytest.mark.parametrize(("usage", "expected"), USAGES)
def test_usage(usage: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read_usage(usage) == expected
    message = body({"content": "a"}, usage=usage).message
    assert message.usage_metadata == expected
    assert message.response_metadata["usage"] == usage


# ---- what else there is --------------------------------------------------------------------------


def test_log_probabilities_add_up() -> None:
    one, two = ({"text": t, "token_ids": [5], "logprobs": [-0.5]} for t in "ab")
    streamed = stream(
        {**piece(0, text="a"), "logprobs": one}, {**piece(0, text="b"), "logprobs": two}, end()
    )
    for decoded in (streamed, body({"content": "ab"}, logprobs=[one, two])):
        assert decoded.message.text == "ab"
        assert decoded.message.response_metadata["logprobs"] == {"content": [one, two]}


def test_what_is_unknown_is_kept() -> None:
    odd = {"type": "weather-report", "sunny": True}
    message = stream(odd, {"type": "debug", "prompt": "<|x|>"}, end(mood="fine")).message
    assert message.response_metadata["unknown_events"] == [odd]
    assert message.response_metadata["prompt"] == "<|x|>"
    assert message.response_metadata["mood"] == "fine"
    whole = body({"content": "a", "mood": "fine"}, prompt="<|x|>").message
    assert whole.response_metadata["prompt"] == "<|x|>"
    assert whole.response_metadata["mood"] == "fine"


def test_a_body_without_a_message_is_no_answer() -> None:
    assert isinstance(decode_whole("cohere", b'{"id": "x"}').error, StreamProtocolError)
