"""Chat Completions: tables of (what a vendor sends, what it means), oddity by oddity.

Names in quotes are those of the fault catalogue (research/reliability.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import bytewise, check_readable, decode, decode_whole, events_of
from strategies import cut_at, pieces_of
from streamfold.deltas import MessageEnd
from streamfold.errors import (
    OverloadedError,
    ProviderError,
    RateLimitError,
    ServerError,
    SizeLimitError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.openai_chat import Decoder, read_usage

Payload = dict[str, Any] | bytes | str
STOP: Payload = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
CALLS: Payload = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
HALF = ["Half ", "of ", "it"]
DONE = b"data: [DONE]\n\n"


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def texts(*parts: str) -> list[Payload]:
    return [delta(content=part) for part in parts]


def tool(*calls: dict[str, Any]) -> dict[str, Any]:
    return delta(tool_calls=list(calls))


def call(
    args: Any = None, index: int | None = None, id: str | None = None, name: str | None = None
) -> dict[str, Any]:
    """A tool call, or a piece of one, with only the keys that are given."""
    function = {"name": name, "arguments": args}
    made: dict[str, Any] = {"function": {k: v for k, v in function.items() if v is not None}}
    if id is not None:
        made |= {"id": id, "type": "function"}
    return made if index is None else {"index": index, **made}


def sse(payloads: Iterable[Payload], end: bytes = DONE) -> bytes:
    """Payloads as events; bytes and strings go as they are."""
    lines = []
    for payload in payloads:
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        raw = payload.encode("utf-8", "surrogatepass") if isinstance(payload, str) else payload
        lines.append(b"data: " + raw + b"\n\n")
    return b"".join(lines) + end


def streamed(*payloads: Payload, end: bytes = DONE) -> Any:
    """The answer that `payloads` are; byte by byte it is the same."""
    body = sse(payloads, end)
    whole = decode("openai_chat", body)
    pieces = decode("openai_chat", bytewise(body))
    assert pieces.events == whole.events
    assert repr(pieces.error) == repr(whole.error)
    check_readable(whole)
    return whole


def said(decoded: Any, expected: dict[str, Any]) -> dict[str, Any]:
    """The answer, as far as `expected` asks."""
    message, chunk = decoded.message, decoded.chunk
    got = {
        "text": message.text,
        "reasoning": chunk.reasoning,
        "calls": [(c["name"], c["args"]) for c in message.tool_calls],
        "ids": [c["id"] for c in message.tool_calls],
        "invalid": [(c["name"], c["args"]) for c in message.invalid_tool_calls],
        "finish": message.finish_reason,
        "usage": message.usage_metadata,
        "blocks": message.content_blocks,
        "meta": {key: message.response_metadata.get(key) for key in expected.get("meta", {})},
    }
    return {key: got[key] for key in expected}


HELLO = texts("Hello")

PAYLOADS: dict[str, tuple[list[Payload], dict[str, Any]]] = {
    "choices-empty": ([*HELLO, {"choices": []}, STOP], {"text": "Hello", "finish": "stop"}),
    "choices-null": ([*HELLO, {"choices": None}, STOP], {"text": "Hello", "finish": "stop"}),
    "choices-missing": ([*HELLO, {"id": "x"}, STOP], {"text": "Hello", "finish": "stop"}),
    "delta-null": (
        [*HELLO, {"choices": [{"index": 0, "delta": None}]}, STOP],
        {"text": "Hello", "finish": "stop"},
    ),
    "delta-missing": (
        [*HELLO, {"choices": [{"index": 0, "finish_reason": "stop"}]}],
        {"text": "Hello", "finish": "stop"},
    ),
    "not-an-object": (
        ["[]", "null", "42", '"x"', *HELLO, "[1]", STOP],
        {"text": "Hello", "finish": "stop"},
    ),
    "choices of another kind": (
        [{"choices": {}}, {"choices": "x"}, {"choices": [None, 5, "x"]}, *HELLO, STOP],
        {"text": "Hello"},
    ),
    "index-as-string": (
        [
            {"created": 1.5, "choices": [{"index": "0", "delta": {"content": "a"}}]},
            {"choices": [{"index": "1", "delta": {"content": "no"}}]},
            {"choices": [{"delta": {"content": "b"}}]},
            STOP,
        ],
        {"text": "ab"},
    ),
    "nul-raw": (
        [b'{"choices":[{"index":0,"delta":{"content":"a\x00b\tc"}}]}', STOP],
        {"text": "a\0b\tc"},
    ),
    "lone-surrogate": ([*texts("a\ud83d", "\ude00b"), STOP], {"text": "a😀b"}),
    "half a pair that is never joined": ([*texts("a\ud83d", "b"), STOP], {"text": "a\ufffdb"}),
    "half a pair at the end": ([*texts("a\ud83d"), STOP], {"text": "a\ufffd"}),
    "second half first": ([*texts("\ude00", "\ud83d", "\ude00"), STOP], {"text": "\ufffd😀"}),
    "half a pair, then an empty piece": ([*texts("\ud83d", "", "\ude00"), STOP], {"text": "😀"}),
    "two-choices": (
        [
            {"choices": [{"index": 1, "delta": {"content": "x"}}]},
            {
                "choices": [
                    {"index": 0, "delta": {"content": "a"}},
                    {"index": 1, "delta": {"content": "y"}, "finish_reason": "length"},
                ]
            },
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
            delta(content="b"),
            STOP,
        ],
        {"text": "ab", "finish": "stop"},
    ),
    "bare-chunks": (
        [{"choices": [{"delta": {"content": "a"}}]}, {"choices": [{"finish_reason": "stop"}]}],
        {"text": "a", "finish": "stop"},
    ),
    "finish-length": (
        [*HELLO, delta("length")],
        {"text": "Hello", "finish": "length", "meta": {"finish_reason": "length"}},
    ),
    "finish-filter": (
        [*HELLO, delta("content_filter")],
        {"text": "Hello", "finish": "content_filter"},
    ),
    "the finish reason comes with the last text": (
        [delta("stop", content="Hi")],
        {"text": "Hi", "finish": "stop"},
    ),
    "a vendor's own finish reason": (
        [*HELLO, delta("eos")],
        {"finish": "eos", "meta": {"finish_reason": "eos"}},
    ),
    "Mistral's full context": ([*HELLO, delta("model_length")], {"finish": "length"}),
    "the finish reason again and again": (
        [*HELLO, STOP, STOP, STOP],
        {"text": "Hello", "finish": "stop", "meta": {"finish_reason": "stop"}},
    ),
    "another finish reason later": ([*HELLO, CALLS, STOP], {"finish": "stop"}),
    "an empty finish reason is none": (
        [delta("", content="a"), STOP],
        {"text": "a", "finish": "stop"},
    ),
    "text in empty pieces only": ([*texts("", "", ""), STOP], {"text": "", "blocks": []}),
    "content null": ([delta(content=None, role="assistant"), STOP], {"text": "", "blocks": []}),
    "refusal": (
        [delta(refusal="I "), delta(refusal="cannot."), STOP],
        {
            "text": "",
            "finish": "refusal",
            "meta": {"refusal": "I cannot.", "finish_reason": "stop"},
            "blocks": [
                {"type": "non_standard", "value": {"type": "refusal", "refusal": "I cannot."}}
            ],
        },
    ),
    "a refusal with a pair cut in two": (
        [delta(refusal="no \ud83d"), delta(refusal="\ude00"), STOP],
        {"meta": {"refusal": "no 😀"}},
    ),
    "metadata": (
        [
            {
                "id": "c1",
                "model": "m",
                "created": 5,
                "system_fingerprint": "f",
                **delta(content="a"),
            },
            {
                "id": "c2",
                "model": "n",
                "created": 6,
                "system_fingerprint": "g",
                **delta(content="b"),
            },
            STOP,
        ],
        {
            "text": "ab",
            "meta": {"id": "c1", "model_name": "m", "created": 5, "system_fingerprint": "g"},
        },
    ),
    "fields that nobody knows": (
        [{"citations": ["u"], **delta(content="a", weight=3)}, STOP],
        {"text": "a", "meta": {"citations": ["u"], "weight": 3}},
    ),
    "padding says nothing": (
        [{"obfuscation": "abc", "p": "abcd", "object": "x", **delta(content="a")}, STOP],
        {"meta": {"obfuscation": None, "p": None, "object": None}},
    ),
    "log probabilities are joined": (
        [
            {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]},
            {"choices": [{"delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}}]},
            {"choices": [{"delta": {"content": "c"}, "logprobs": None}]},
            STOP,
        ],
        {"text": "abc", "meta": {"logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}},
    ),
    "text after the finish reason still counts": ([*texts("a"), STOP, *texts("b")], {"text": "ab"}),
}


@pytest.mark.parametrize(("payloads", "expected"), PAYLOADS.values(), ids=PAYLOADS)
def test_payloads(payloads: list[Payload], expected: dict[str, Any]) -> None:
    """Group payload: what is odd, and what it means all the same."""
    decoded = streamed(*payloads)
    assert decoded.error is None
    assert said(decoded, expected) == expected


REASONING: dict[str, tuple[list[Payload], str, str]] = {
    "reasoning_content": (
        [delta(reasoning_content="a"), delta(reasoning_content="b"), *texts("t")],
        "ab",
        "reasoning_content",
    ),
    "reasoning": ([delta(reasoning="a"), delta(reasoning="b"), *texts("t")], "ab", "reasoning"),
    "both, the same": (
        [*(delta(reasoning=p, reasoning_content=p) for p in ("a", "b")), *texts("t")],
        "ab",
        "reasoning",
    ),
    "empty reasoning beside the text": (
        [delta(reasoning_content="ab", content=""), delta(reasoning_content="", content="t")],
        "ab",
        "reasoning_content",
    ),
    "reasoning beside the text of one delta": (
        [delta(content="t", reasoning_content="ab")],
        "ab",
        "reasoning_content",
    ),
    "Mistral's thinking parts": (
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]),
            delta(content=[{"type": "thinking", "thinking": "b"}, {"type": "text", "text": "t"}]),
        ],
        "ab",
        "thinking",
    ),
    "reasoning null and of another kind": (
        [
            delta(reasoning=None, reasoning_content=None),
            delta(reasoning=5),
            delta(reasoning="ab"),
            *texts("t"),
        ],
        "ab",
        "reasoning",
    ),
    "a pair cut in two": (
        [delta(reasoning="\ud83d"), delta(reasoning="\ude00"), *texts("t")],
        "😀",
        "reasoning",
    ),
}


@pytest.mark.parametrize(("payloads", "reasoning", "field"), REASONING.values(), ids=REASONING)
def test_reasoning(payloads: list[Payload], reasoning: str, field: str) -> None:
    """Every field that vendors use; the one it came in is kept, to be sent back in."""
    decoded = streamed(*payloads, STOP)
    assert decoded.error is None
    assert decoded.message.content_blocks == [
        {"type": "reasoning", "reasoning": reasoning, "extras": {"field": field}},
        {"type": "text", "text": "t"},
    ]


def test_reasoning_details_are_joined_and_kept() -> None:
    """OpenRouter's structured reasoning, with its signature, as it wants it back."""
    piece = {"type": "reasoning.text", "index": 0, "format": "x"}
    details = [
        {**piece, "text": "a"},
        {**piece, "text": "b"},
        {**piece, "text": "", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "d"},
    ]
    payloads = [delta(reasoning=d.get("text", ""), reasoning_details=[d]) for d in details]
    (block, text) = streamed(*payloads, *texts("t"), STOP).message.content_blocks
    assert block["reasoning"] == "ab"
    assert block["extras"]["reasoning_details"] == [
        {**piece, "text": "ab", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "d"},
    ]
    assert text == {"type": "text", "text": "t"}


X1, Y2 = '{"x": 1}', '{"y": 2}'

TOOLS: dict[str, tuple[list[Payload], dict[str, Any]]] = {
    "pieces under an index": (
        [tool(call("", 0, "a", "f")), tool(call('{"x"', 0)), tool(call(": 1}", 0)), CALLS],
        {"calls": [("f", {"x": 1})], "ids": ["a"], "finish": "tool_calls"},
    ),
    "two calls in one delta": (
        [tool(call(X1, 0, "a", "f"), call(Y2, 1, "b", "g")), CALLS],
        {"calls": [("f", {"x": 1}), ("g", {"y": 2})], "ids": ["a", "b"]},
    ),
    "tool-no-index": (
        [tool(call(X1, None, "a", "f")), tool(call(Y2, None, "b", "f")), CALLS],
        {"calls": [("f", {"x": 1}), ("f", {"y": 2})], "ids": ["a", "b"]},
    ),
    "two calls without an index in one delta": (
        [tool(call(X1, None, "a", "f"), call(Y2, None, "b", "f")), CALLS],
        {"calls": [("f", {"x": 1}), ("f", {"y": 2})], "ids": ["a", "b"]},
    ),
    "tool-no-index-fragments": (
        [tool(call('{"x"', None, "a", "f")), tool(call(": ")), tool(call("1}")), CALLS],
        {"calls": [("f", {"x": 1})], "ids": ["a"]},
    ),
    "tool-same-index": (
        [tool(call(X1, 0, "a", "f")), tool(call(Y2, 0, "b", "f")), CALLS],
        {"calls": [("f", {"x": 1}), ("f", {"y": 2})], "ids": ["a", "b"]},
    ),
    "the same index, and the second goes on": (
        [
            tool(call(X1, 0, "a", "f")),
            tool(call('{"y"', 0, "b", "f")),
            tool(call(": 2}", 0)),
            CALLS,
        ],
        {"calls": [("f", {"x": 1}), ("f", {"y": 2})]},
    ),
    "the same index, each with a finish reason": (
        [
            delta("tool_calls", tool_calls=[call(X1, 0, "a", "f")]),
            delta("tool_calls", tool_calls=[call(Y2, 0, "b", "f")]),
        ],
        {"calls": [("f", {"x": 1}), ("f", {"y": 2})], "ids": ["a", "b"]},
    ),
    "tool-index-gap": (
        [tool(call(X1, 1, "a", "f")), tool(call(Y2, 5, "b", "g")), CALLS],
        {"calls": [("f", {"x": 1}), ("g", {"y": 2})]},
    ),
    "tool-repeated-id": (
        [*(tool(call(part, 0, "a", "f")) for part in ('{"x"', ": 1", "}")), CALLS],
        {"calls": [("f", {"x": 1})], "ids": ["a"]},
    ),
    "the name in every piece, no id": (
        [*(tool(call(part, 0, None, "f")) for part in ('{"x"', ": 1", "}")), CALLS],
        {"calls": [("f", {"x": 1})]},
    ),
    "empty ids and names in the later pieces": (
        [tool(call('{"x"', 0, "a", "f")), tool(call(": 1}", 0, "", "")), CALLS],
        {"calls": [("f", {"x": 1})], "ids": ["a"]},
    ),
    "tool-bad-json": (
        [tool(call('{"x": oops}', 0, "a", "f")), CALLS],
        {"calls": [], "invalid": [("f", '{"x": oops}')], "finish": "tool_calls"},
    ),
    "tool-nan-args": (
        [tool(call('{"x": NaN}', 0, "a", "f")), CALLS],
        {"calls": [], "invalid": [("f", '{"x": NaN}')]},
    ),
    "tool-array-args": (
        [tool(call("[1]", 0, "a", "f")), CALLS],
        {"invalid": [("f", "[1]")], "calls": []},
    ),
    "tool-two-objects": (
        [tool(call(X1 + X1, 0, "a", "f")), CALLS],
        {"calls": [], "invalid": [("f", X1 + X1)]},
    ),
    "two objects in two pieces": (
        [tool(call(X1, 0, "a", "f")), tool(call(X1, 0)), CALLS],
        {"calls": [], "invalid": [("f", X1 + X1)]},
    ),
    "tool-empty-args": ([tool(call("", 0, "a", "f")), CALLS], {"calls": [("f", {})]}),
    "arguments null": (
        [
            delta(
                tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}]
            ),
            CALLS,
        ],
        {"calls": [("f", {})]},
    ),
    "no arguments at all": ([tool(call(None, 0, "a", "f")), CALLS], {"calls": [("f", {})]}),
    "tool-object-args": (
        [tool(call({"x": [1, None, "я"]}, 0, "a", "f")), CALLS],
        {"calls": [("f", {"x": [1, None, "я"]})]},
    ),
    "arguments that are an object with NaN": (
        [json.dumps(tool(call({"x": float("nan")}, 0, "a", "f"))), CALLS],
        {"calls": [], "invalid": [("f", '{"x":NaN}')]},
    ),
    "arguments in a string within a string": (
        [tool(call(json.dumps(X1), 0, "a", "f")), CALLS],
        {"calls": [], "invalid": [("f", json.dumps(X1))]},
    ),
    "cut by the token limit": (
        [tool(call('{"x": "y', 0, "a", "f")), delta("length")],
        {"calls": [], "invalid": [("f", '{"x": "y')], "finish": "length"},
    ),
    "closed before the token limit": (
        [tool(call(X1, 0, "a", "f"), call('{"y', 1, "b", "g")), delta("length")],
        {"calls": [("f", {"x": 1})], "invalid": [("g", '{"y')]},
    ),
    "no arguments and the token limit": (
        [tool(call("", 0, "a", "f")), delta("length")],
        {"calls": [], "invalid": [("f", "")]},
    ),
    "a name with slashes": (
        [tool(call("{}", 0, "a", "../f")), CALLS],
        {"calls": [], "invalid": [("../f", "{}")]},
    ),
    "a name with control characters": (
        [tool(call("{}", 0, "a", "f\n")), CALLS],
        {"calls": [], "invalid": [("f\n", "{}")]},
    ),
    "no name": ([tool(call("{}", 0, "a")), CALLS], {"calls": [], "invalid": [(None, "{}")]}),
    "a piece with nothing in it": (
        [tool(call("", 0)), tool({"index": 1}), tool(call("{}", 0, "a", "f")), CALLS],
        {"calls": [("f", {})], "invalid": []},
    ),
    "text between pieces": (
        [tool(call('{"x"', 0, "a", "f")), *texts("t"), tool(call(": 1}", 0)), CALLS],
        {"calls": [("f", {"x": 1})], "text": "t"},
    ),
    "a pair cut in two": (
        [tool(call('{"x": "\ud83d', 0, "a", "f")), tool(call('\ude00"}', 0)), CALLS],
        {"calls": [("f", {"x": "😀"})]},
    ),
    "the old function call": (
        [
            delta(function_call={"name": "f", "arguments": ""}),
            delta(function_call={"arguments": '{"x"'}),
            delta(function_call={"arguments": ": 1}"}),
            delta("function_call"),
        ],
        {"calls": [("f", {"x": 1})], "finish": "tool_calls"},
    ),
    "tool calls of another kind": (
        [delta(tool_calls=None), delta(tool_calls=[]), delta(tool_calls=["x", None]), *HELLO, STOP],
        {"calls": [], "invalid": [], "text": "Hello"},
    ),
    "calls of the second choice are not ours": (
        [
            {"choices": [{"index": 1, "delta": {"tool_calls": [call(X1, 0, "a", "f")]}}]},
            *HELLO,
            STOP,
        ],
        {"calls": [], "invalid": []},
    ),
    "large and deep arguments": (
        [tool(call('{"x": ' + "[" * 40 + "]" * 40 + "}", 0, "a", "f")), CALLS],
        {"calls": [("f", json.loads('{"x": ' + "[" * 40 + "]" * 40 + "}"))]},
    ),
}


@pytest.mark.parametrize(("payloads", "expected"), TOOLS.values(), ids=TOOLS)
def test_tools(payloads: list[Payload], expected: dict[str, Any]) -> None:
    """Group tools: parallel calls never fuse, no half call is valid, no name is doubled."""
    decoded = streamed(*payloads)
    assert decoded.error is None
    assert said(decoded, expected) == expected
    ids = [c["id"] for c in [*decoded.message.tool_calls, *decoded.message.invalid_tool_calls]]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "beside",
    [
        {"refusal": "no"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "r", "index": 0}]},
        {"audio": {"transcript": "la"}},
    ],
)
def test_what_is_collected_beside_text_is_not_lost_in_a_hurry(beside: dict[str, Any]) -> None:
    """Equal payloads, each a read of its own, that have more in them than their text."""
    payloads = [delta(content="x"), *(delta(content="x", **beside) for _ in range(5)), STOP]
    reads = [sse([payload], b"") for payload in payloads]
    quick = decode("openai_chat", reads)
    assert quick.events == decode("openai_chat", reads, short_way=False).events
    assert quick.events == decode("openai_chat", b"".join(reads)).events


def test_a_custom_tool_keeps_its_kind() -> None:
    """Its input is free text: an invalid call, raw, with the type that says so."""
    piece = {"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "free text"}}
    message = streamed(tool(piece), CALLS).message
    (block,) = message.content_blocks
    assert (block["type"], block["args"]) == ("invalid_tool_call", "free text")
    assert block["extras"] == {"type": "custom"}


def test_what_only_the_vendor_knows_about_a_call_is_kept() -> None:
    """Gemini's signature rides in `extra_content`."""
    piece = {**call(X1, 0, "a", "f"), "extra_content": {"google": {"thought_signature": "s"}}}
    (made,) = streamed(tool(piece), CALLS).message.tool_calls
    assert made["extras"] == {"extra_content": {"google": {"thought_signature": "s"}}}


@pytest.mark.parametrize(
    ("opening", "args"), [({}, "{}"), ({"function": {"name": ""}}, ""), ({"function": {}}, '{"a":')]
)
def test_a_name_may_come_after_the_call_has_begun(opening: dict[str, Any], args: str) -> None:
    """With its arguments or before them; and what is known of the call says so from then on."""
    name = {"index": 0, "function": {"name": "look", "arguments": args}}
    rest = {"index": 0, "function": {"arguments": {"{}": "", "": "{}", '{"a":': "1}"}[args]}}
    pieces = [tool({"index": 0, "id": "c1", "type": "function", **opening}), tool(name), tool(rest)]
    decoded = streamed(*pieces, CALLS)
    (made,) = decoded.message.tool_calls
    assert (made["name"], made["id"]) == ("look", "c1")
    assert made["args"] == ({"a": 1} if args == '{"a":' else {})
    assert not decoded.message.invalid_tool_calls


ERROR = {"message": "The server had an error", "type": "server_error", "code": None}

ERRORS: dict[str, tuple[bytes, type[Exception], str]] = {
    "error-mid-stream": (sse([{"error": ERROR}]), ServerError, "The server had an error"),
    "error-named-event": (
        b'event: error\ndata: {"message": "no room", "code": 503}\n\n',
        OverloadedError,
        "no room",
    ),
    "a named event that is no object": (b"event: error\ndata: 42\n\n", ServerError, "42"),
    "error-string": (sse([{"error": "it broke"}]), ServerError, "it broke"),
    "error-beside-choices": (
        sse([{**delta("error", content=""), "error": ERROR}]),
        ServerError,
        "The server had an error",
    ),
    "error-unframed": (b'{"error": {"message": "x"}}\n\n', StreamInterruptedError, "cut off"),
    "error-plain-text": (b"data: Internal Server Error\n\n", StreamProtocolError, "not JSON"),
    "a status as the code": (sse([{"error": {"message": "m", "code": 429}}]), RateLimitError, "m"),
    "the message one level down": (
        sse([{"error": {"message": {"message": "deep", "type": "overloaded_error"}}}]),
        OverloadedError,
        "deep",
    ),
    "an error without a message": (sse([{"error": {"code": 500}}]), ServerError, '{"code": 500}'),
    "an error that is a list": (sse([{"error": ["a"]}]), ServerError, '["a"]'),
    "bad-utf8": (
        sse([b'{"choices":[{"delta":{"content":"a\xffb"}}]}']),
        StreamProtocolError,
        "UTF-8",
    ),
    "big-int": (
        sse([b'{"created":' + b"1" * 5000 + b',"choices":[]}']),
        StreamProtocolError,
        "not JSON",
    ),
    "json-deep": (sse(["[" * 200_000 + "]" * 200_000]), SizeLimitError, "json_depth"),
    "half-event-blank": (b'data: {"choices":[{"del\n\n', StreamProtocolError, "not JSON"),
    "half-event": (b'data: {"choices":[{"del', StreamInterruptedError, "cut off"),
    "whole-event-no-blank": (sse(texts(" late"), b"")[:-1], StreamInterruptedError, "cut off"),
    "clean-end-no-finish": (b"", StreamInterruptedError, "neither a finish reason"),
}


@pytest.mark.parametrize(("rest", "kind", "why"), ERRORS.values(), ids=ERRORS)
def test_errors_after_the_first_half(rest: bytes, kind: type[Exception], why: str) -> None:
    """Groups in-stream error, truncation and payload: the error has its class, the text stays,
    and nothing after it is read."""
    first = sse(texts(*HALF), b"")
    late = sse(texts(" late"), b"") if kind is not StreamInterruptedError else b""
    for body in (first + rest, first + rest + late):
        decoded = decode("openai_chat", body)
        assert type(decoded.error) is kind
        assert why in str(decoded.error)
        assert decoded.message.text == "Half of it"
        assert decoded.message.finish_reason == "error"
        if isinstance(decoded.error, ProviderError):
            assert decoded.error.status == 200
            assert decoded.error.provider == "openai"
        small = bytewise(body) if len(body) < 20_000 else cut_at(body, [*range(0, len(body), 99)])
        assert decode("openai_chat", small).events == decoded.events
        check_readable(decoded)


@pytest.mark.parametrize("error", [ERROR, "it broke", {"message": "x", "type": "overloaded_error"}])
def test_an_error_as_the_first_event(error: Any) -> None:
    """'error-first': nothing was shown, so it may be tried again."""
    decoded = streamed({"error": error})
    assert isinstance(decoded.error, ProviderError)
    assert decoded.error.retryable
    assert decoded.message.text == ""


def test_an_error_does_not_end_the_calls_before_it() -> None:
    """'cut-in-tool-args': a half call is invalid, a closed one is whole."""
    decoded = streamed(tool(call(X1, 0, "a", "f"), call('{"y', 1, "b", "g")), {"error": ERROR})
    assert said(decoded, {"calls": 0, "invalid": 0}) == {
        "calls": [("f", {"x": 1})],
        "invalid": [("g", '{"y')],
    }
    assert "broke off" in (decoded.message.invalid_tool_calls[0]["error"] or "")


BOM = b"\xef\xbb\xbf"
GOOD = sse([*texts("Hel", "lo я 😀"), STOP])

FRAMINGS: dict[str, bytes] = {
    "eol-crlf": GOOD.replace(b"\n", b"\r\n"),
    "eol-cr": GOOD.replace(b"\n", b"\r"),
    "eol-mixed": GOOD.replace(b"}\n\n", b"}\r\n\n", 1).replace(b"}\n\n", b"}\r\r", 1),
    "bom": BOM + GOOD,
    "comments": b": hi\n\n" + GOOD.replace(b"data: {", b": ping\ndata: {") + b": bye\n\n",
    "comment-flood": b": ping\n\n" * 20_000 + GOOD,
    "empty-events": b"\n\n\n\nevent: ping\n\nid: 7\n\n" + GOOD.replace(b"\n\n", b"\n\n\n\n\n"),
    "no-space": GOOD.replace(b"data: ", b"data:"),
    "two-spaces": GOOD.replace(b"data: {", b"data:  {"),
    "multi-line-data": GOOD.replace(b', "', b',\ndata: "'),
    "unknown-fields": GOOD.replace(b"data: {", b"id: 1\nid: \0\nretry: x\nfoo: bar\ndata: {"),
    "field-without-colon": GOOD.replace(b"data: {", b"data\ndata: {"),
    "named-events": GOOD.replace(b"data: {", b"event: message\ndata: {"),
    "events with another name": GOOD.replace(b"data: {", b"event: chunk\ndata: {"),
    "done-tight": GOOD.replace(b"data: [DONE]", b"data:[DONE]  "),
    "done-twice": GOOD + DONE + DONE,
    "done-missing": GOOD.removesuffix(DONE),
    "no-last-blank-line": GOOD.removesuffix(b"\n"),
    "data-after-done": GOOD + sse([*texts("no"), b"{broken"]),
    "blanks around the JSON": GOOD.replace(b"data: {", b"data:   \t{").replace(b"}\n", b"} \n"),
    "U+2028 and its like in the JSON": GOOD.replace(b", ", b" ,"),
}


@pytest.mark.parametrize("body", FRAMINGS.values(), ids=FRAMINGS)
def test_framing(body: bytes) -> None:
    """Group framing: the same answer, chunk for chunk, however it is framed and cut."""
    good = decode("openai_chat", GOOD)
    for reads in (body, bytewise(body), [body[n : n + 7] for n in range(0, len(body), 7)]):
        decoded = decode("openai_chat", reads)
        assert decoded.error is None
        assert decoded.events == good.events
    assert good.message.text == "Hello я 😀"


def test_line_separators_in_strings_are_text() -> None:
    """'unicode-separators'"""
    odd = "a\u2028b\u2029c\u0085d\x0be"
    raw = json.dumps(delta(content=odd), ensure_ascii=False)
    raw = raw.replace("\\u000b", "\x0b")
    assert streamed(raw, STOP).message.text == odd


class TestDone:
    def test_a_repeated_finish_reason_ends_the_message_once(self) -> None:
        ends = [e for e in events_of(streamed(*HELLO, STOP, STOP)) if isinstance(e, MessageEnd)]
        assert ends == [MessageEnd("stop")]

    def test_an_end_marker_without_a_finish_reason(self) -> None:
        """'done-without-finish': whole, but the reason is unknown, never 'stop'."""
        decoded = streamed(*texts(*HALF))
        assert decoded.error is None
        assert decoded.message.text == "Half of it"
        assert decoded.message.finish_reason is None

    def test_a_call_without_a_finish_reason_is_judged_by_itself(self) -> None:
        decoded = streamed(tool(call(X1, 0, "a", "f"), call("", 1, "b", "g")))
        assert said(decoded, {"calls": 0, "invalid": 0}) == {
            "calls": [("f", {"x": 1})],
            "invalid": [("g", "")],
        }

    def test_nothing_but_the_end_marker(self) -> None:
        """No error of the wire: an empty answer, as the vendor says."""
        decoded = streamed()
        assert decoded.message.text == ""
        assert decoded.decoder.done

    def test_the_decoder_says_when_to_stop_reading(self) -> None:
        """'done-then-hang', 'finish-then-hang': `finished` at the reason, `done` at the marker."""
        decoder = Decoder()
        decoder.feed(sse(texts("a"), b""))
        assert (decoder.finished, decoder.done) == (False, False)
        decoder.feed(sse([STOP], b""))
        assert (decoder.finished, decoder.done) == (True, False)
        decoder.feed(DONE)
        assert (decoder.finished, decoder.done) == (True, True)


FINAL: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


class TestUsage:
    def test_it_comes_last_without_choices(self) -> None:
        decoded = streamed(*HELLO, STOP, {"choices": [], "usage": FINAL})
        assert decoded.message.usage_metadata == {
            "input_tokens": 5,
            "output_tokens": 7,
            "total_tokens": 12,
        }
        assert decoded.message.response_metadata["usage"] == FINAL

    def test_it_comes_with_the_finish_reason(self) -> None:
        decoded = streamed(*HELLO, {**delta("stop"), "usage": FINAL})
        assert decoded.message.response_metadata["usage"] == FINAL

    def test_running_totals_are_not_added(self) -> None:
        """Reported with every piece: the last one counts, and one that repeats says nothing."""
        running = [
            {**delta(content="x"), "usage": {**FINAL, "completion_tokens": n}} for n in (1, 2, 2, 3)
        ]
        decoded = streamed(*running, STOP)
        assert (decoded.message.usage_metadata or {})["output_tokens"] == 3
        assert decoded.message.response_metadata["usage"]["completion_tokens"] == 3

    @pytest.mark.parametrize("nothing", [None, {}, [], "x", 5])
    def test_what_is_no_usage_is_none(self, nothing: Any) -> None:
        decoded = streamed({**delta(content="x"), "usage": nothing}, STOP)
        assert decoded.message.usage_metadata is None
        assert "usage" not in decoded.message.response_metadata

    def test_groq_puts_it_elsewhere(self) -> None:
        decoded = streamed(*HELLO, {**delta("stop"), "x_groq": {"id": "r", "usage": FINAL}})
        assert decoded.message.response_metadata["usage"] == FINAL

    @pytest.mark.parametrize(
        ("usage", "read"),
        [
            ({}, (0, 0, 0, None, None)),
            ({"prompt_tokens": 1, "completion_tokens": 2}, (1, 2, 3, None, None)),
            ({"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}, (1, 2, 3, None, None)),
            (
                {
                    **FINAL,
                    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 1},
                    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 2},
                },
                (5, 7, 12, {"cache_read": 0, "audio": 1}, {"reasoning": 0, "audio": 2}),
            ),
            ({**FINAL, "prompt_cache_hit_tokens": 4}, (5, 7, 12, {"cache_read": 4}, None)),
            ({**FINAL, "cached_tokens": 3}, (5, 7, 12, {"cache_read": 3}, None)),
            ({**FINAL, "prompt_tokens_details": None}, (5, 7, 12, None, None)),
            # xAI counts reasoning in the total only: `output_tokens` includes it all the same.
            (
                {**FINAL, "total_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 8}},
                (5, 15, 20, None, {"reasoning": 8}),
            ),
            ({"prompt_tokens": "5", "completion_tokens": None}, (0, 0, 0, None, None)),
            ({"prompt_tokens": True, "completion_tokens": 1.5}, (0, 0, 0, None, None)),
        ],
    )
    def test_the_figures(self, usage: dict[str, Any], read: tuple[Any, ...]) -> None:
        """Detail keys only as the vendor reports them, reported zeros kept."""
        got = read_usage(usage)
        counts = (got["input_tokens"], got["output_tokens"], got["total_tokens"])
        details = (got.get("input_token_details"), got.get("output_token_details"))
        assert (*counts, *details) == read


class TestParts:
    """Content that is a list: Mistral, and models that answer with more than text."""

    def test_text_in_parts(self) -> None:
        decoded = streamed(
            delta(content=[{"type": "text", "text": "a"}, "b", {"type": "text", "text": "c"}]),
            delta(content=[]),
            delta(content="d"),
            STOP,
        )
        assert decoded.message.content == "abcd"

    def test_parts_that_nobody_knows_are_kept(self) -> None:
        part = {"type": "reference", "reference_ids": [1]}
        decoded = streamed(delta(content=[{"type": "text", "text": "a"}, part, 5]), STOP)
        assert decoded.message.content_blocks == [
            {"type": "text", "text": "a"},
            {"type": "non_standard", "value": part},
        ]

    def test_images(self) -> None:
        """OpenRouter's `images`; a data URL is taken apart, the caller's payload left alone."""
        part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
        image = {"type": "image", "base64": "QUJD", "mime_type": "image/png"}
        decoded = streamed(delta(content="a", images=[part]), delta(content=[part]), STOP)
        assert decoded.message.content_blocks == [{"type": "text", "text": "a"}, image, image]

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "text", "text": 5},
            {"type": ["x"]},
            {"type": "tool_call", "extras": 5},
            {"type": "image", "extras": "x", "base64": 1},
            {},
        ],
    )
    def test_images_that_are_none_are_kept_and_can_be_read(self, part: Any) -> None:
        check_readable(streamed(delta(content="a", images=[part, None, 5]), STOP))

    def test_audio(self) -> None:
        """Data and transcript come in pieces, the id and the expiry once."""
        decoded = streamed(
            delta(audio={"id": "au_1", "transcript": "Hel"}),
            delta(audio={"data": "QU"}),
            delta(audio={"data": "JD", "transcript": "lo"}),
            delta(audio={"expires_at": 9}),
            STOP,
        )
        (block,) = decoded.message.content_blocks
        assert (block["type"], block["base64"], block["id"]) == ("audio", "QUJD", "au_1")
        assert block["extras"]["transcript"] == "Hello"

    def test_citations(self) -> None:
        note = {"url": "https://x.example", "title": "X", "start_index": 0, "end_index": 1}
        decoded = streamed(
            delta(content="a", annotations=[{"type": "url_citation", "url_citation": note}]),
            delta(annotations=[{"type": "odd"}, 5]),
            STOP,
        )
        (block,) = decoded.message.content_blocks
        assert block["annotations"] == [
            {"type": "citation", **note},
            {"type": "non_standard_annotation", "value": {"type": "odd"}},
        ]


class TestWhole:
    """A body that is not streamed: `message` where a chunk has `delta`."""

    @staticmethod
    def body(message: Any, finish: Any = "stop", **more: Any) -> bytes:
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()

    def test_calls_have_no_index(self) -> None:
        """Their place is it: also two of the same name without an id."""
        calls = [call(X1, None, None, "f"), call(Y2, None, None, "f")]
        message = decode_whole(
            "openai_chat", self.body({"tool_calls": calls}, "tool_calls")
        ).message
        assert [c["args"] for c in message.tool_calls] == [{"x": 1}, {"y": 2}]
        assert len({c["id"] for c in message.tool_calls}) == 2

    def test_an_unknown_or_missing_finish_reason(self) -> None:
        for reason in (None, ""):
            decoded = decode_whole("openai_chat", self.body({"content": "a"}, reason))
            assert decoded.error is None
            assert decoded.message.finish_reason is None
            assert decoded.message.text == "a"

    def test_only_the_first_choice(self) -> None:
        choices = [{"index": n, "message": {"content": c}} for n, c in enumerate("abc")]
        body = json.dumps({"choices": choices[::-1]}).encode()
        assert decode_whole("openai_chat", body).message.text == "a"

    def test_delta_beside_message(self) -> None:
        """Perplexity sends both: in a body the message counts, in a stream the delta."""
        choice = {"index": 0, "message": {"content": "all"}, "delta": {"content": "a"}}
        body = json.dumps({"choices": [{**choice, "finish_reason": "stop"}]}).encode()
        assert decode_whole("openai_chat", body).message.text == "all"
        assert streamed({"choices": [choice]}, STOP).message.text == "a"

    @pytest.mark.parametrize("choices", [[], None, [None], [{"index": 1, "message": {}}], {}])
    def test_a_body_without_a_choice_is_no_answer(self, choices: Any) -> None:
        body = json.dumps({"id": "c", "choices": choices}).encode()
        decoded = decode_whole("openai_chat", body)
        assert isinstance(decoded.error, StreamProtocolError)

    def test_an_empty_message_is_an_answer(self) -> None:
        decoded = decode_whole("openai_chat", self.body({"role": "assistant", "content": ""}))
        assert decoded.error is None
        assert (decoded.message.text, decoded.message.finish_reason) == ("", "stop")


_parts = st.text(max_size=5)
_deltas = st.one_of(
    st.builds(lambda t: delta(content=t), _parts),
    st.builds(lambda t: delta(reasoning_content=t), _parts),
    st.builds(
        lambda a, i, id, n: tool(call(a, i, id, n)),
        st.sampled_from(["", "{", "}", "{}", '{"x": 1}', '"']),
        st.none() | st.integers(0, 2),
        st.none() | st.sampled_from(["a", "b"]),
        st.none() | st.sampled_from(["f", "g"]),
    ),
    st.builds(lambda u: {"choices": [], "usage": {"prompt_tokens": u}}, st.integers(0, 9)),
    st.sampled_from([STOP, CALLS, {"choices": []}, {"error": None}]),
)


@given(st.lists(_deltas, max_size=8), st.data())
def test_any_sequence_of_deltas_in_any_cuts(payloads: list[Payload], data: st.DataObject) -> None:
    """The same chunks, the same verdicts, and text and arguments whole."""
    body = sse(payloads)
    whole = decode("openai_chat", body)
    cut = decode("openai_chat", data.draw(pieces_of(body)))
    assert cut.events == whole.events
    assert whole.error is None
    deltas = [c["delta"] for p in payloads for c in p.get("choices", ())]  # type: ignore[union-attr]
    assert whole.message.text == "".join(d.get("content") or "" for d in deltas)
    assert whole.chunk.reasoning == "".join(d.get("reasoning_content") or "" for d in deltas)
    args = [c["function"]["arguments"] for d in deltas for c in d.get("tool_calls", ())]
    seen = [c["args"] or "" for c in whole.chunk.tool_call_chunks]
    assert sorted("".join(seen)) == sorted("".join(args))
    check_readable(whole)
