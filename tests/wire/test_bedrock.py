"""Bedrock's answers: what its own wire has, beyond the contract of all dialects."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from decoding import Decoded, bytewise, decode, decode_whole, events_of
from streamfold.deltas import BlockEnd, BlockStart, ToolCallDelta
from streamfold.errors import (
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.bedrock_pieces import read_usage
from streamfold.wire.eventstream import encode_message

Json = dict[str, Any]
USAGE = {"inputTokens": 5, "outputTokens": 6, "totalTokens": 11}
FIGURES = {"metrics": {"latencyMs": 7}, "usage": USAGE}


def event(name: str, **fields: Any) -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return encode_message(headers, json.dumps({**fields, "p": "abc"}).encode())


def start(index: int, **fields: Any) -> bytes:
    return event("contentBlockStart", contentBlockIndex=index, start=fields)


def delta(index: int, **fields: Any) -> bytes:
    return event("contentBlockDelta", contentBlockIndex=index, delta=fields)


def stop(index: int) -> bytes:
    return event("contentBlockStop", contentBlockIndex=index)


BEGIN = event("messageStart", role="assistant")
END = event("messageStop", stopReason="end_turn") + event("metadata", **FIGURES)


def stream(*messages: bytes, begin: bytes = BEGIN, end: bytes = END) -> Decoded:
    body = begin + b"".join(messages) + end
    whole, pieces = decode("bedrock", body), decode("bedrock", bytewise(body))
    assert whole.events == pieces.events
    assert repr(whole.error) == repr(pieces.error)
    return whole


def body(*content: Any, reason: Any = "end_turn", **fields: Any) -> Decoded:
    message = {"role": "assistant", "content": list(content)}
    answer = {**FIGURES, "output": {"message": message}, "stopReason": reason, **fields}
    return decode_whole("bedrock", json.dumps(answer).encode())


def blocks(decoded: Decoded) -> list[Any]:
    assert decoded.error is None
    return decoded.message.content_blocks


# ---- blocks: as they are streamed, and whole -----------------------------------------------------

THOUGHT = {"type": "reasoning", "reasoning": "I see"}
CITATION = {
    "title": "Policy",
    "source": "https://x.example/policy",
    "sourceContent": [{"text": "20 "}, {"text": "days"}],
    "location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 7}},
}
WEB = {"location": {"web": {"url": "https://y.example", "domain": "y.example"}}}
CITED = {
    "type": "citation",
    "url": "https://x.example/policy",
    "title": "Policy",
    "cited_text": "20 days",
    "extras": {"native": CITATION},
}
CITED_WEB = {"type": "citation", "url": "https://y.example", "extras": {"native": WEB}}
CODE = {"toolUseId": "t1", "name": "nova_code_interpreter", "type": "server_tool_use"}
RESULT = {"toolUseId": "t1", "status": "error", "type": "nova_code_interpreter_result"}
OUTPUT = [{"json": {"exitCode": 1}}]
PNG = base64.b64encode(b"0123456789").decode()

BLOCKS = [
    (
        "reasoning in pieces",
        [delta(0, reasoningContent={"text": "I "}), delta(0, reasoningContent={"text": "see"}),
         delta(0, reasoningContent={"signature": "sig"})],
        {"reasoningContent": {"reasoningText": {"text": "I see", "signature": "sig"}}},
        {**THOUGHT, "extras": {"signature": "sig"}},
    ),
    (
        "reasoning of models that do not sign",
        [delta(0, reasoningContent={"text": "I see"})],
        {"reasoningContent": {"reasoningText": {"text": "I see"}}},
        THOUGHT,
    ),
    (
        "a signature alone",
        [delta(0, reasoningContent={"signature": "sig"})],
        {"reasoningContent": {"reasoningText": {"text": "", "signature": "sig"}}},
        {"type": "reasoning", "reasoning": "", "extras": {"signature": "sig"}},
    ),
    (
        "a signature in pieces",
        [delta(0, reasoningContent={"text": "I see"}),
         delta(0, reasoningContent={"signature": "si"}),
         delta(0, reasoningContent={"signature": "g"})],
        {"reasoningContent": {"reasoningText": {"text": "I see", "signature": "sig"}}},
        {**THOUGHT, "extras": {"signature": "sig"}},
    ),
    (
        "encrypted reasoning in pieces, each base64 of its own",
        [delta(0, reasoningContent={"redactedContent": base64.b64encode(piece).decode()})
         for piece in (b"0123", b"45", b"6789")],
        {"reasoningContent": {"redactedContent": PNG}},
        {"type": "reasoning", "reasoning": "", "extras": {"redacted_content": PNG}},
    ),
    (
        "what nobody knows yet of reasoning",
        [delta(0, reasoningContent={"text": "I see"}), delta(0, reasoningContent={"new": 1})],
        {"reasoningContent": {"reasoningText": {"text": "I see"}, "new": 1}},
        {**THOUGHT, "extras": {"new": 1}},
    ),
    (
        "cited text",
        [delta(0, citation=CITATION), delta(0, text="20 d"), delta(0, text="ays."),
         delta(0, citation=WEB)],
        {"citationsContent": {"citations": [CITATION, WEB],
                              "content": [{"text": "20 d"}, {"text": "ays."}]}},
        {"type": "text", "text": "20 days.", "annotations": [CITED, CITED_WEB]},
    ),
    (
        "citations without text",
        [delta(0, citation=WEB)],
        {"citationsContent": {"citations": [WEB], "content": []}},
        {"type": "text", "text": "", "annotations": [CITED_WEB]},
    ),
    (
        "a tool call",
        [start(0, toolUse={"toolUseId": "t1", "name": "add", "type": "tool_use"}),
         delta(0, toolUse={"input": ""}), delta(0, toolUse={"input": '{"a":'}),
         delta(0, toolUse={"input": "1}"})],
        {"toolUse": {"toolUseId": "t1", "name": "add", "input": {"a": 1}, "type": "tool_use"}},
        {"type": "tool_call", "id": "t1", "name": "add", "args": {"a": 1}},
    ),
    (
        "a tool call without arguments",
        [start(0, toolUse={"toolUseId": "t1", "name": "now"}), delta(0, toolUse={"input": ""})],
        {"toolUse": {"toolUseId": "t1", "name": "now", "input": {}}},
        {"type": "tool_call", "id": "t1", "name": "now", "args": {}},
    ),
    (
        "a server tool call",
        [start(0, toolUse=CODE), delta(0, toolUse={"input": '{"snippet":"1"}'})],
        {"toolUse": {**CODE, "input": {"snippet": "1"}}},
        {"type": "server_tool_call", "id": "t1", "name": "nova_code_interpreter",
         "args": {"snippet": "1"}, "extras": {"block_type": "server_tool_use"}},
    ),
    (
        "its result",
        [start(0, toolResult=RESULT), delta(0, toolResult=OUTPUT)],
        {"toolResult": {**RESULT, "content": OUTPUT}},
        {"type": "server_tool_result", "tool_call_id": "t1", "status": "error", "output": OUTPUT,
         "extras": {"block_type": "nova_code_interpreter_result"}},
    ),
    (
        "a result in pieces",
        [start(0, toolResult=RESULT), delta(0, toolResult=[{"text": "one "}]),
         delta(0, toolResult=[{"text": "two"}, *OUTPUT])],
        {"toolResult": {**RESULT, "content": [{"text": "one two"}, *OUTPUT]}},
        {"type": "server_tool_result", "tool_call_id": "t1", "status": "error",
         "output": [{"text": "one two"}, *OUTPUT],
         "extras": {"block_type": "nova_code_interpreter_result"}},
    ),
    (
        "a result without content",
        [start(0, toolResult={"toolUseId": "t1"})],
        {"toolResult": {"toolUseId": "t1", "content": []}},
        {"type": "server_tool_result", "tool_call_id": "t1", "status": "success", "output": []},
    ),
    (
        "an image in pieces, each base64 of its own",
        [start(0, image={"format": "jpeg"}),
         *(delta(0, image={"source": {"bytes": base64.b64encode(piece).decode()}})
           for piece in (b"0", b"1234", b"56", b"789"))],
        {"image": {"format": "jpeg", "source": {"bytes": PNG}}},
        {"type": "image", "mime_type": "image/jpeg", "base64": PNG},
    ),
    (
        "an image in S3",
        [start(0, image={"format": "png"}),
         delta(0, image={"source": {"s3Location": {"uri": "s3://b/k.png"}}})],
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k.png"}}}},
        {"type": "image", "mime_type": "image/png", "url": "s3://b/k.png"},
    ),
    (
        "an image that failed",
        [start(0, image={"format": "png"}), delta(0, image={"error": {"message": "no"}})],
        {"image": {"format": "png", "error": {"message": "no"}}},
        {"type": "image", "mime_type": "image/png", "extras": {"error": {"message": "no"}}},
    ),
]  # fmt: skip
rows = [pytest.param(*row[1:], id=row[0]) for row in BLOCKS]


@pytest.mark.parametrize(("messages", "native", "expected"), rows)
def test_blocks(messages: list[bytes], native: Json, expected: Json) -> None:
    """Streamed and whole, a block says the same."""
    (block,) = blocks(stream(*messages, stop(0)))
    assert {k: v for k, v in block.items() if k != "type"} == {
        k: v for k, v in expected.items() if k != "type"
    }
    assert block["type"] == expected["type"]
    assert blocks(body(native)) == [block]


@pytest.mark.parametrize(("messages", "native", "expected"), rows)
def test_blocks_that_were_not_stopped(messages: list[bytes], native: Json, expected: Json) -> None:
    """The end of the message ends them."""
    assert blocks(stream(*messages)) == blocks(stream(*messages, stop(0)))


@pytest.mark.parametrize(
    ("kind", "word", "mime"),
    [
        ("audio", "mp3", "audio/mpeg"),
        ("video", "mov", "video/quicktime"),
        ("image", "x", "image/x"),
    ],
)
def test_other_media(kind: str, word: str, mime: str) -> None:
    block = {kind: {"format": word, "source": {"bytes": PNG}}}
    assert blocks(body(block)) == [{"type": kind, "mime_type": mime, "base64": PNG}]


def test_data_that_is_not_base64_is_kept_as_it_came() -> None:
    image = {"image": {"format": "png", "source": {"bytes": "a*b"}}}
    assert blocks(body(image))[0]["base64"] == "a*b"
    sealed = [delta(0, reasoningContent={"redactedContent": piece}) for piece in ("*", "b")]
    assert blocks(stream(*sealed))[0]["extras"] == {"redacted_content": "*b"}


@pytest.mark.parametrize(
    "block", [{"searchResult": {"source": "s"}}, {"newBlock": [1]}, {"text": 5}, {"toolUse": "x"}]
)
def test_blocks_nobody_knows_are_kept_as_they_came(block: Json) -> None:
    assert blocks(body(block)) == [{"type": "non_standard", "value": block}]


def test_events_nobody_knows_are_kept_as_they_came() -> None:
    decoded = stream(
        event("newEvent", a=1), start(0, newBlock={"b": 2}), delta(0, text="a"), delta(0, new=[3])
    )
    assert blocks(decoded) == [{"type": "text", "text": "a"}]
    assert decoded.message.response_metadata["unknown_events"] == [
        {"newEvent": {"a": 1, "p": "abc"}},
        {
            "contentBlockStart": {
                "contentBlockIndex": 0,
                "start": {"newBlock": {"b": 2}},
                "p": "abc",
            }
        },
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"new": [3]}, "p": "abc"}},
    ]


def test_padding_is_not_metadata() -> None:
    assert stream(delta(0, text="a")).message.response_metadata == {
        "model_provider": "bedrock",
        "stop_reason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 7},
    }


def test_a_tool_call_ends_when_its_block_stops() -> None:
    """Not only with the message: whoever watches may run it then."""
    use = start(0, toolUse={"toolUseId": "t1", "name": "add"})
    decoded = stream(use, delta(0, toolUse={"input": "{}"}), stop(0), delta(1, text="a"))
    kinds = [type(e).__name__ for e in events_of(decoded)]
    calls = [e for e in events_of(decoded) if isinstance(e, BlockStart | BlockEnd | ToolCallDelta)]
    assert kinds.index("BlockEnd") < kinds.index("TextDelta")
    assert [(type(e).__name__, e.index) for e in calls] == [
        ("BlockStart", 0),
        ("ToolCallDelta", 0),
        ("BlockEnd", 0),
        ("BlockStart", 1),
        ("BlockEnd", 1),
    ]


def test_parallel_calls_are_told_apart_by_their_index() -> None:
    """Also where their pieces alternate."""
    decoded = stream(
        start(0, toolUse={"toolUseId": "a", "name": "f"}),
        start(1, toolUse={"toolUseId": "b", "name": "f"}),
        delta(1, toolUse={"input": '{"n":'}),
        delta(0, toolUse={"input": '{"n":'}),
        delta(0, toolUse={"input": "0}"}),
        delta(1, toolUse={"input": "1}"}),
    )
    calls = decoded.message.tool_calls
    assert [(c["id"], c["args"]) for c in calls] == [("a", {"n": 0}), ("b", {"n": 1})]


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "error"),
        ("malformed_tool_use", "error"),
        ("a_new_one", "a_new_one"),
    ],
)
def test_finish_reasons(reason: str, expected: str) -> None:
    ended = event("messageStop", stopReason=reason) + event("metadata", **FIGURES)
    for decoded in (stream(delta(0, text="a"), end=ended), body({"text": "a"}, reason=reason)):
        assert decoded.message.finish_reason == expected
        assert decoded.message.response_metadata["stop_reason"] == reason


@pytest.mark.parametrize("reason", ["guardrail_intervened", "content_filtered"])
def test_a_blocked_prompt_without_an_answer(reason: str) -> None:
    ended = event("messageStop", stopReason=reason) + event("metadata", **FIGURES)
    for decoded in (stream(end=ended), body(reason=reason)):
        assert isinstance(decoded.error, ContentFilterError)
        assert (decoded.error.type, decoded.error.provider) == (reason, "bedrock")
        assert decoded.chunks == []


def test_the_end_of_the_figures_is_the_end() -> None:
    """Nothing is waited for after `metadata`; before it, the answer is whole already."""
    assert stream(delta(0, text="a")).decoder.done
    without = stream(delta(0, text="a"), end=event("messageStop", stopReason="end_turn"))
    assert (without.error, without.decoder.done) == (None, False)
    turned = event("metadata", **FIGURES) + event("messageStop", stopReason="end_turn")
    other = stream(delta(0, text="a"), end=turned)
    assert (other.message, other.decoder.done) == (stream(delta(0, text="a")).message, True)


def test_a_stream_without_an_end_is_cut_off() -> None:
    decoded = stream(delta(0, text="a"), stop(0), end=b"")
    assert isinstance(decoded.error, StreamInterruptedError)
    assert decoded.message.text == "a"


NOTES = {
    "serviceTier": {"type": "priority"},
    "performanceConfig": {"latency": "optimized"},
    "trace": {"promptRouter": {"invokedModelId": "anthropic.claude-x"}},
}


def test_notes_of_the_service() -> None:
    extra = {"additionalModelResponseFields": {"stop_sequence": "|"}}
    ended = event("messageStop", stopReason="end_turn", **extra)
    streamed = stream(delta(0, text="a"), end=ended + event("metadata", **FIGURES, **NOTES))
    whole = body({"text": "a"}, **extra, **NOTES)
    assert whole.message == streamed.message
    assert whole.message.response_metadata == {
        "model_provider": "bedrock",
        "model_name": "anthropic.claude-x",
        "stop_reason": "end_turn",
        "usage": USAGE,
        "metrics": {"latencyMs": 7},
        "service_tier": "priority",
        "performanceConfig": NOTES["performanceConfig"],
        "trace": NOTES["trace"],
        **extra,
    }


# ---- usage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}, (3, 4, 7, None)),
        # Cached tokens are counted apart; the sum includes them.
        (
            {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 5,
             "cacheWriteInputTokens": 6, "totalTokens": 18},
            (14, 4, 18, {"cache_read": 5, "cache_creation": 6}),
        ),
        (
            {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 0, "totalTokens": 7},
            (3, 4, 7, {"cache_read": 0}),
        ),
        (
            {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokenCount": 2,
             "cacheWriteInputTokenCount": 1, "totalTokens": 10},
            (6, 4, 10, {"cache_read": 2, "cache_creation": 1}),
        ),
        ({"outputTokens": None}, (0, 0, 0, None)),
    ],
)  # fmt: skip
def test_usage(usage: Json, expected: tuple[Any, ...]) -> None:
    into, out, total, details = expected
    counts = {"input_tokens": into, "output_tokens": out, "total_tokens": total}
    assert read_usage(usage) == (
        counts if details is None else {**counts, "input_token_details": details}
    )


def test_thinking_tokens_where_claude_was_asked_for_them() -> None:
    usage = {"usage": {"output_tokens_details": {"thinking_tokens": 4}}}
    ended = event("messageStop", stopReason="end_turn", additionalModelResponseFields=usage)
    streamed = stream(delta(0, text="a"), end=ended + event("metadata", **FIGURES))
    for decoded in (streamed, body({"text": "a"}, additionalModelResponseFields=usage)):
        assert decoded.message.usage_metadata == {
            "input_tokens": 5,
            "output_tokens": 6,
            "total_tokens": 11,
            "output_token_details": {"reasoning": 4},
        }


# ---- errors --------------------------------------------------------------------------------------


def exception(name: str, **payload: Any) -> bytes:
    headers = {":exception-type": name, ":message-type": "exception"}
    return encode_message(headers, json.dumps(payload).encode())


EXCEPTIONS = [
    ("throttlingException", {"message": "slow"}, RateLimitError, True),
    ("modelNotReadyException", {"message": "wait"}, RateLimitError, True),
    ("validationException", {"message": "bad"}, InvalidRequestError, False),
    ("validationException", {"message": "Input is too long for requested model."},
     ContextOverflowError, False),
    ("accessDeniedException", {"message": "no"}, PermissionDeniedError, False),
    ("resourceNotFoundException", {"message": "no"}, NotFoundError, False),
    ("serviceUnavailableException", {"message": "busy"}, OverloadedError, True),
    ("internalServerException", {"message": "oops"}, ServerError, True),
    ("modelStreamErrorException", {"message": "oops"}, ServerError, True),
    ("modelStreamErrorException", {"message": "oops", "originalStatusCode": 529},
     OverloadedError, True),
    ("modelStreamErrorException", {"message": "oops", "originalStatusCode": 400},
     InvalidRequestError, False),
    ("modelTimeoutException", {"message": "late"}, InvalidRequestError, True),
    ("ThrottlingException", {"Message": "slow"}, RateLimitError, True),
    ("aNewException", {"message": "oops"}, ServerError, True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "payload", "kind", "retryable"), EXCEPTIONS)
@pytest.mark.parametrize("after", ["", "Half an"])
def test_exceptions(
    name: str, payload: Json, kind: type[ProviderError], retryable: bool, after: str
) -> None:
    """Before content and after it: the class, the vendor's words, and what had come."""
    content = [delta(0, text=after)] if after else []
    decoded = stream(*content, exception(name, **payload), delta(0, text=" late"), end=END)
    error = decoded.error
    assert type(error) is kind
    assert isinstance(error, ProviderError)
    assert (error.status, error.type, error.provider) == (200, name, "bedrock")
    assert error.message == (payload.get("message") or payload["Message"])
    assert error.retryable is retryable
    assert (decoded.message.text, len(decoded.chunks)) == (after, len(content))


@pytest.mark.parametrize(
    ("payload", "message"),
    [(b"", "internalServerException"), (b"oops, not JSON", "oops, not JSON")],
)
def test_an_exception_whose_payload_is_no_json(payload: bytes, message: str) -> None:
    headers = {":exception-type": "internalServerException", ":message-type": "exception"}
    error = stream(encode_message(headers, payload)).error
    assert isinstance(error, ServerError)
    assert message in error.message


def test_an_error_message() -> None:
    """The other kind of failure: its text is in a header."""
    headers = {
        ":error-code": "ThrottlingException",
        ":error-message": "slow",
        ":message-type": "error",
    }
    error = stream(delta(0, text="a"), encode_message(headers, b"")).error
    assert isinstance(error, RateLimitError)
    assert (error.type, error.message) == ("ThrottlingException", "slow")


def test_an_error_in_a_body() -> None:
    answer = {"__type": "com.amazon.coral.service#ThrottlingException", "Message": "slow"}
    error = decode_whole("bedrock", json.dumps(answer).encode()).error
    assert isinstance(error, RateLimitError)
    assert (error.type, error.message) == ("ThrottlingException", "slow")


@pytest.mark.parametrize("part", ["prelude", "headers", "payload", "checksum"])
def test_a_damaged_message(part: str) -> None:
    """What came before it counts, and it is not taken for text."""
    good, bad = delta(0, text="good"), bytearray(delta(0, text="bad"))
    place = {"prelude": 2, "headers": 20, "payload": len(bad) - 10, "checksum": len(bad) - 1}[part]
    bad[place] ^= 1
    decoded = stream(good, bytes(bad), delta(0, text="more"))
    assert isinstance(decoded.error, StreamProtocolError)
    assert "checksum" in str(decoded.error)
    assert decoded.message.text == "good"
