"""Anthropic Messages: tables of (events, what they mean), oddity by oddity.

Names in quotes are those of the fault catalogue (research/reliability.md).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import bytewise, check_readable, decode, decode_whole, events_of
from strategies import cut_at, pieces_of
from streamfold.deltas import BlockEnd
from streamfold.errors import (
    InvalidRequestError,
    OverloadedError,
    ProviderError,
    RateLimitError,
    ServerError,
    SizeLimitError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.anthropic import Decoder, read_usage

Event = dict[str, Any]
USAGE = {"input_tokens": 5, "output_tokens": 1}
START: Event = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m"}
    | {"content": [], "stop_reason": None, "usage": USAGE},
}
STOP: Event = {"type": "message_stop"}
PING: Event = {"type": "ping"}


def opened(index: int, **block: Any) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def piece(index: int, **delta: Any) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def closed(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None = "end_turn", **usage: int) -> Event:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 7}}


def text(index: int, *parts: str) -> list[Event]:
    """A whole text block."""
    deltas = [piece(index, type="text_delta", text=part) for part in parts]
    return [opened(index, type="text", text=""), *deltas, closed(index)]


def tool(index: int, *parts: str, kind: str = "tool_use", **block: Any) -> list[Event]:
    """A whole tool block; its input comes in `parts`."""
    block = {"id": f"t{index}", "name": "f", "input": {}, **block}
    deltas = [piece(index, type="input_json_delta", partial_json=part) for part in parts]
    return [opened(index, type=kind, **block), *deltas, closed(index)]


def sse(*events: Event | bytes) -> bytes:
    """Events with their names; bytes go as they are."""
    raw = [
        event
        if isinstance(event, bytes)
        else f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for event in events
    ]
    return b"".join(raw)


def streamed(*events: Event | bytes) -> Any:
    """The answer that the events are; byte by byte it is the same."""
    body = sse(*events)
    whole = decode("anthropic", body)
    pieces = decode("anthropic", bytewise(body))
    assert pieces.events == whole.events
    assert repr(pieces.error) == repr(whole.error)
    check_readable(whole)
    return whole


def answer(*events: Event | bytes, reason: str = "end_turn") -> Any:
    """A complete answer around `events`."""
    return streamed(START, *events, end(reason), STOP)


BLOCKS: dict[str, tuple[list[Event], list[dict[str, Any]]]] = {
    "text": (text(0, "Hel", "lo"), [{"type": "text", "text": "Hello"}]),
    "text that came with the start": (
        [opened(0, type="text", text="Hel"), piece(0, type="text_delta", text="lo"), closed(0)],
        [{"type": "text", "text": "Hello"}],
    ),
    "empty text": (text(0, "", ""), []),
    "two text blocks": (
        [*text(0, "a"), *text(1, "b")],
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
    ),
    "blocks that take turns": (
        [
            opened(0, type="text", text=""),
            opened(1, type="text", text=""),
            piece(1, type="text_delta", text="b"),
            piece(0, type="text_delta", text="a"),
            closed(1),
            piece(0, type="text_delta", text="A"),
            closed(0),
        ],
        [{"type": "text", "text": "aA"}, {"type": "text", "text": "b"}],
    ),
    "lone surrogates": (
        text(0, "a\ud83d", "\ude00", "\ud83d", ""),
        [{"type": "text", "text": "a😀\ufffd"}],
    ),
    "thinking and its signature": (
        [
            opened(0, type="thinking", thinking="", signature=""),
            piece(0, type="thinking_delta", thinking="h"),
            piece(0, type="thinking_delta", thinking="m"),
            piece(0, type="signature_delta", signature="c2ln"),
            closed(0),
            *text(1, "so"),
        ],
        [
            {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "c2ln"}},
            {"type": "text", "text": "so"},
        ],
    ),
    "thinking that is kept back but signed": (
        [
            opened(0, type="thinking", thinking="", signature=""),
            piece(0, type="signature_delta", signature="c2ln"),
            closed(0),
        ],
        [{"type": "reasoning", "reasoning": "", "extras": {"signature": "c2ln"}}],
    ),
    "redacted thinking": (
        [opened(0, type="redacted_thinking", data="ZGF0YQ=="), closed(0)],
        [{"type": "reasoning", "reasoning": "", "extras": {"redacted_data": "ZGF0YQ=="}}],
    ),
    "a tool": (
        tool(0, "", '{"x"', ": 1}"),
        [{"type": "tool_call", "id": "t0", "name": "f", "args": {"x": 1}}],
    ),
    "a tool without input": (
        tool(0),
        [{"type": "tool_call", "id": "t0", "name": "f", "args": {}}],
    ),
    "a tool whose input came with its start": (
        tool(0, input={"x": 1}),
        [{"type": "tool_call", "id": "t0", "name": "f", "args": {"x": 1}}],
    ),
    "an input at the start that comes again in pieces": (
        tool(0, '{"x": 2}', input={"x": 1}),
        [{"type": "tool_call", "id": "t0", "name": "f", "args": {"x": 2}}],
    ),
    "a block that was not closed": (
        tool(0, input={"x": 1})[:-1],
        [{"type": "tool_call", "id": "t0", "name": "f", "args": {"x": 1}}],
    ),
    "two tools": (
        [*tool(0, '{"x": 1}'), *tool(1, '{"x": 2}')],
        [
            {"type": "tool_call", "id": "t0", "name": "f", "args": {"x": 1}},
            {"type": "tool_call", "id": "t1", "name": "f", "args": {"x": 2}},
        ],
    ),
    "a tool with fields of its own": (
        tool(0, "{}", caller={"type": "direct"}),
        [
            {
                "type": "tool_call",
                "id": "t0",
                "name": "f",
                "args": {},
                "extras": {"caller": {"type": "direct"}},
            }
        ],
    ),
    "'block-bad-json'": (
        tool(0, "{oops"),
        [
            {
                "type": "invalid_tool_call",
                "id": "t0",
                "name": "f",
                "args": "{oops",
                "error": "the arguments are unreadable: not valid JSON: "
                "JSON is malformed: object keys must be strings (byte 1)",
            }
        ],
    ),
    "a server tool and its result": (
        [
            *tool(0, '{"q"', ': "x"}', kind="server_tool_use", name="web_search"),
            opened(1, type="web_search_tool_result", tool_use_id="t0", content=[{"url": "u"}]),
            closed(1),
        ],
        [
            {
                "type": "server_tool_call",
                "id": "t0",
                "name": "web_search",
                "args": {"q": "x"},
                "extras": {"block_type": "server_tool_use"},
            },
            {
                "type": "server_tool_result",
                "tool_call_id": "t0",
                "status": "success",
                "output": [{"url": "u"}],
                "extras": {"block_type": "web_search_tool_result"},
            },
        ],
    ),
    "a server tool that failed": (
        [
            opened(
                0,
                type="web_search_tool_result",
                tool_use_id="t",
                content={"type": "web_search_tool_result_error", "error_code": "unavailable"},
            ),
            closed(0),
        ],
        [
            {
                "type": "server_tool_result",
                "tool_call_id": "t",
                "status": "error",
                "output": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
                "extras": {"block_type": "web_search_tool_result"},
            }
        ],
    ),
    "an MCP tool and its result": (
        [
            *tool(0, "{}", kind="mcp_tool_use", name="echo", server_name="s"),
            opened(1, type="mcp_tool_result", tool_use_id="t0", is_error=True, content=[]),
            closed(1),
        ],
        [
            {
                "type": "server_tool_call",
                "id": "t0",
                "name": "echo",
                "args": {},
                "extras": {"block_type": "mcp_tool_use", "server_name": "s"},
            },
            {
                "type": "server_tool_result",
                "tool_call_id": "t0",
                "status": "error",
                "output": [],
                "extras": {"block_type": "mcp_tool_result", "is_error": True},
            },
        ],
    ),
    "citations": (
        [
            opened(0, type="text", text="", citations=[]),
            piece(0, type="text_delta", text="a"),
            piece(0, type="citations_delta", citation={"type": "page_location", "cited_text": "c"}),
            piece(
                0,
                type="citations_delta",
                citation={"type": "x", "url": "u", "title": "t", "document_title": "d"},
            ),
            closed(0),
        ],
        [
            {
                "type": "text",
                "text": "a",
                "annotations": [
                    {
                        "type": "citation",
                        "cited_text": "c",
                        "extras": {"native": {"type": "page_location", "cited_text": "c"}},
                    },
                    {
                        "type": "citation",
                        "url": "u",
                        "title": "t",
                        "extras": {
                            "native": {"type": "x", "url": "u", "title": "t", "document_title": "d"}
                        },
                    },
                ],
            }
        ],
    ),
    "a block that nobody knows": (
        [
            opened(0, type="hologram", data="x"),
            piece(0, type="hologram_delta", more="y"),
            closed(0),
            *text(1, "t"),
        ],
        [
            {"type": "non_standard", "value": {"type": "hologram", "data": "x", "more": "y"}},
            {"type": "text", "text": "t"},
        ],
    ),
    "a delta that nobody knows": (
        [
            opened(0, type="text", text=""),
            piece(0, type="mood_delta", mood="good"),
            piece(0, type="text_delta", text="t"),
            closed(0),
        ],
        [{"type": "text", "text": "t", "extras": {"mood_delta": {"mood": "good"}}}],
    ),
    "deltas of another kind": (
        [
            opened(0, type="text", text=""),
            {"type": "content_block_delta", "index": 0, "delta": None},
            {"type": "content_block_delta", "index": 0},
            piece(0, type="text_delta", text="t"),
            closed(0),
            closed(0),
            closed(9),
        ],
        [{"type": "text", "text": "t"}],
    ),
    "pings everywhere": (
        [PING, opened(0, type="text", text=""), PING, piece(0, type="text_delta", text="t"), PING],
        [{"type": "text", "text": "t"}],
    ),
}


@pytest.mark.parametrize(("events", "blocks"), BLOCKS.values(), ids=BLOCKS)
def test_blocks(events: list[Event], blocks: list[dict[str, Any]]) -> None:
    """What becomes of the content blocks, also of those that nobody knows yet."""
    decoded = answer(*events, reason="tool_use")
    assert decoded.error is None
    assert decoded.chunk.content_blocks == blocks
    assert decoded.decoder.done


@pytest.mark.parametrize(
    ("reason", "meant"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("brand_new", "brand_new"),
    ],
)
def test_stop_reasons(reason: str, meant: str) -> None:
    """Normalised, and as it came in the metadata; no other field of the stop is lost."""
    stop = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": "END"}}
    message = streamed(START, *text(0, "t"), stop, STOP).message
    assert message.finish_reason == meant
    assert message.response_metadata["stop_reason"] == reason
    assert message.response_metadata["stop_sequence"] == "END"


def test_metadata_and_usage() -> None:
    """The figures of the end replace those of the start field by field; cached input counts."""
    usage = {
        "input_tokens": 5,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "output_tokens": 1,
        "service_tier": "standard",
    }
    start = {"type": "message_start", "message": {**START["message"], "usage": usage}}
    message = streamed(start, *text(0, "t"), end(output_tokens=7), STOP).message
    assert message.id == "msg_1"
    assert message.usage_metadata == {
        "input_tokens": 125,
        "output_tokens": 7,
        "total_tokens": 132,
        "input_token_details": {"cache_read": 100, "cache_creation": 20},
    }
    meta = message.response_metadata
    assert meta["usage"] == {**usage, "output_tokens": 7}
    assert (meta["id"], meta["model_name"], meta["model_provider"]) == ("msg_1", "m", "anthropic")


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({}, (0, 0, 0, None, None)),
        ({"input_tokens": 5, "output_tokens": 2}, (5, 2, 7, None, None)),
        (
            {"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 0},
            (5, 2, 7, {"cache_read": 0}, None),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 4},
            },
            (5, 9, 14, None, {"reasoning": 4}),
        ),
        (
            {"input_tokens": "5", "output_tokens": None, "cache_read_input_tokens": []},
            (0, 0, 0, None, None),
        ),
        (
            {"input_tokens": 5, "output_tokens": 2, "output_tokens_details": [1]},
            (5, 2, 7, None, None),
        ),
    ],
)
def test_usage(usage: dict[str, Any], read: tuple[Any, ...]) -> None:
    got = read_usage(usage)
    counts = (got["input_tokens"], got["output_tokens"], got["total_tokens"])
    details = (got.get("input_token_details"), got.get("output_token_details"))
    assert (*counts, *details) == read


HALF = [START, opened(0, type="text", text=""), piece(0, type="text_delta", text="Half ")]
HALF.append(piece(0, type="text_delta", text="of it"))


def failed(kind: str, message: str = "why") -> Event:
    return {"type": "error", "error": {"type": kind, "message": message}}


ERRORS: dict[str, tuple[bytes, type[Exception], str]] = {
    "error-mid-stream": (sse(failed("overloaded_error")), OverloadedError, "why"),
    "api error": (sse(failed("api_error")), ServerError, "why"),
    "rate limit": (sse(failed("rate_limit_error")), RateLimitError, "why"),
    "bad request": (sse(failed("invalid_request_error")), InvalidRequestError, "why"),
    "an error of a brand new type": (sse(failed("brand_new")), ServerError, "why"),
    "an error without an object": (b'event: error\ndata: {"message": "m"}\n\n', ServerError, "m"),
    "an error without an event name": (
        b'data: {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}\n\n',
        OverloadedError,
        "m",
    ),
    "delta-for-no-block": (
        sse(piece(7, type="text_delta", text="x")),
        StreamProtocolError,
        "content block 7, which is not open",
    ),
    "a delta for a block that has closed": (
        sse(closed(0), piece(0, type="text_delta", text="x")),
        StreamProtocolError,
        "content block 0, which is not open",
    ),
    "error-plain-text": (b"event: x\ndata: oops\n\n", StreamProtocolError, "not JSON"),
    "bad-utf8": (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"\xff"}}\n\n',
        StreamProtocolError,
        "UTF-8",
    ),
    "json-deep": (b"event: x\ndata: " + b"[" * 200_000 + b"\n\n", SizeLimitError, "json_depth"),
    "half-event-blank": (b'event: ping\ndata: {"type": "pi\n\n', StreamProtocolError, "not JSON"),
    "half-event": (b'event: ping\ndata: {"type": "pi', StreamInterruptedError, "cut off"),
    "clean-end-no-finish": (b"", StreamInterruptedError, "cut off"),
    "the block was closed, but not the message": (
        sse(closed(0)),
        StreamInterruptedError,
        "cut off",
    ),
}


@pytest.mark.parametrize(("rest", "kind", "why"), ERRORS.values(), ids=ERRORS)
def test_errors_after_the_first_half(rest: bytes, kind: type[Exception], why: str) -> None:
    """The error has its class, the text stays, and nothing after it is read."""
    body = sse(*HALF) + rest
    late = sse(piece(0, type="text_delta", text=" late"), end(), STOP)
    for stream in (body, body + late) if kind is not StreamInterruptedError else (body,):
        decoded = decode("anthropic", stream)
        assert type(decoded.error) is kind
        assert why in str(decoded.error)
        assert decoded.message.text == "Half of it"
        assert decoded.message.finish_reason == "error"
        if isinstance(decoded.error, ProviderError):
            assert decoded.error.status == 200
        places = range(0, len(stream), 1 if len(stream) < 20_000 else 99)
        small = cut_at(stream, [*places])
        assert decode("anthropic", small).events == decoded.events
        check_readable(decoded)


def test_the_request_id_of_an_error_is_kept() -> None:
    error = streamed(*HALF, {**failed("api_error"), "request_id": "req_1"}).error
    assert isinstance(error, ProviderError)
    assert (error.request_id, error.type) == ("req_1", "api_error")


@pytest.mark.parametrize("first", [text(0, "a"), [PING, *text(0, "a")], text(0, "a")[1:]])
def test_content_without_a_message_start(first: list[Event]) -> None:
    """'no-message-start': not this dialect; nothing is shown."""
    decoded = streamed(*first, end(), STOP)
    assert isinstance(decoded.error, StreamProtocolError)
    assert decoded.message.text == ""


def test_a_cut_in_the_arguments_makes_the_call_invalid() -> None:
    """'cut-in-tool-args': a half call is never valid; one that closed before it is whole."""
    events = [START, *tool(0, '{"x": 1}'), *tool(1, '{"y": ')[:-1]]
    decoded = streamed(*events)
    assert isinstance(decoded.error, StreamInterruptedError)
    assert [call["args"] for call in decoded.message.tool_calls] == [{"x": 1}]
    (bad,) = decoded.message.invalid_tool_calls
    assert bad["args"] == '{"y": '
    assert "broke off" in (bad["error"] or "")


def test_a_call_cut_by_the_token_limit() -> None:
    message = answer(*tool(0, '{"x": "y'), reason="max_tokens").message
    assert message.tool_calls == []
    assert "token limit" in (message.invalid_tool_calls[0]["error"] or "")


class TestEnd:
    def test_message_stop_missing(self) -> None:
        """The stop reason has come: the answer is whole."""
        decoded = streamed(START, *text(0, "t"), end())
        assert decoded.error is None
        assert (decoded.message.text, decoded.message.finish_reason) == ("t", "stop")

    def test_no_stop_reason_before_message_stop(self) -> None:
        """Whole, but the reason is unknown, never 'stop'."""
        decoded = streamed(START, *text(0, "t"), STOP)
        assert decoded.error is None
        assert decoded.message.finish_reason is None

    def test_the_decoder_says_when_to_stop_reading(self) -> None:
        decoder = Decoder()
        decoder.feed(sse(START, *text(0, "t")))
        assert (decoder.finished, decoder.done) == (False, False)
        decoder.feed(sse(end()))
        assert (decoder.finished, decoder.done) == (True, False)
        decoder.feed(sse(STOP))
        assert (decoder.finished, decoder.done) == (True, True)

    def test_data_after_the_end(self) -> None:
        """'data-after-done'"""
        decoded = streamed(START, *text(0, "t"), end(), STOP, START, *text(0, "no"), b"data: {\n\n")
        assert decoded.error is None
        assert decoded.message.text == "t"

    def test_blocks_end_when_they_are_closed(self) -> None:
        """Whoever watches the events learns of it before the next block begins."""
        decoded = answer(*text(0, "a"), *tool(1, "{}"), *text(2, "b"), reason="tool_use")
        events = [(type(e).__name__, getattr(e, "index", None)) for e in events_of(decoded)]
        ends = [place for place, (name, _) in enumerate(events) if name == BlockEnd.__name__]
        starts = [place for place, (name, _) in enumerate(events) if name == "BlockStart"]
        assert len(ends) == len(starts) == 3
        assert ends[0] < starts[1]
        assert ends[1] < starts[2]


class TestEvents:
    def test_events_that_nobody_knows_are_kept(self) -> None:
        odd = {"type": "brand_new", "value": 1}
        decoded = answer(odd, *text(0, "t"), {**odd, "value": 2})
        meta = decoded.message.response_metadata
        assert meta["unknown_events"] == [odd, {**odd, "value": 2}]

    def test_what_is_no_object_says_nothing(self) -> None:
        junk = b"data: null\n\ndata: 5\n\nevent: ping\ndata: []\n\n"
        assert answer(junk, *text(0, "t")).message.text == "t"

    def test_the_type_may_be_in_the_name_of_the_event_only(self) -> None:
        body = sse(START, *text(0, "t"), end(), STOP)
        named = body.replace(b'"type": "content_block_delta", ', b"")
        assert named != body
        assert decode("anthropic", named).message.text == "t"

    @pytest.mark.parametrize("change", ["crlf", "cr", "bom", "comments", "no space", "no names"])
    def test_framing(self, change: str) -> None:
        body = sse(START, *text(0, "я 😀", "b"), end(), STOP)
        changed = {
            "crlf": body.replace(b"\n", b"\r\n"),
            "cr": body.replace(b"\n", b"\r"),
            "bom": b"\xef\xbb\xbf" + body,
            "comments": b": hi\n\n" + body.replace(b"data:", b": ping\ndata:"),
            "no space": body.replace(b": {", b":{").replace(b"event: ", b"event:"),
            "no names": b"\n".join(x for x in body.split(b"\n") if not x.startswith(b"event")),
        }[change]
        good = decode("anthropic", body)
        for reads in (changed, bytewise(changed)):
            decoded = decode("anthropic", reads)
            assert decoded.events == good.events
            assert decoded.error is None

    def test_new_fields_of_the_message_are_metadata(self) -> None:
        start = {"type": "message_start", "message": {**START["message"], "container": {"id": "c"}}}
        stop = {**end(), "context_management": {"applied": []}}
        meta = streamed(start, *text(0, "t"), stop, STOP).message.response_metadata
        assert meta["container"] == {"id": "c"}
        assert meta["context_management"] == {"applied": []}


class TestWhole:
    @staticmethod
    def body(*content: Any, **more: Any) -> bytes:
        message = {**START["message"], "content": list(content), "stop_reason": "end_turn", **more}
        return json.dumps(message).encode()

    def test_the_input_is_an_object(self) -> None:
        block = {"type": "tool_use", "id": "t", "name": "f", "input": {"x": "я"}}
        message = decode_whole("anthropic", self.body(block, stop_reason="tool_use")).message
        assert message.tool_calls == [
            {"type": "tool_call", "id": "t", "name": "f", "args": {"x": "я"}}
        ]

    @pytest.mark.parametrize("blocks", [[], [{"type": "text", "text": ""}]])
    def test_an_empty_answer_is_one(self, blocks: list[Any]) -> None:
        decoded = decode_whole("anthropic", self.body(*blocks))
        assert decoded.error is None
        assert (decoded.message.text, decoded.message.finish_reason) == ("", "stop")

    def test_blocks_that_are_none(self) -> None:
        decoded = decode_whole("anthropic", self.body(None, 5, {}, {"type": "text", "text": "a"}))
        check_readable(decoded)
        assert decoded.message.text == "a"

    def test_an_error_with_status_200(self) -> None:
        """'json-error-200'"""
        body = json.dumps({**failed("overloaded_error"), "request_id": "r"}).encode()
        error = decode_whole("anthropic", body).error
        assert isinstance(error, OverloadedError)
        assert error.request_id == "r"


_texts = st.text(max_size=4)
_whole_blocks = st.one_of(
    st.lists(_texts, max_size=3).map(lambda parts: ("text", parts)),
    st.lists(_texts, max_size=3).map(lambda parts: ("thinking", parts)),
    st.lists(st.sampled_from(["{", "}", '{"x": 1}', ""]), max_size=3).map(lambda p: ("tool", p)),
)


@given(st.lists(_whole_blocks, max_size=4), st.data())
def test_any_sequence_of_blocks_in_any_cuts(blocks: list[Any], data: st.DataObject) -> None:
    """The same chunks, and text, thinking and arguments whole."""
    events: list[Event] = [START]
    for n, (kind, parts) in enumerate(blocks):
        if kind == "text":
            events += text(n, *parts)
        elif kind == "tool":
            events += tool(n, *parts)
        else:
            deltas = [piece(n, type="thinking_delta", thinking=part) for part in parts]
            events += [opened(n, type="thinking", thinking=""), *deltas, closed(n)]
    body = sse(*events, end("tool_use"), STOP)
    whole = decode("anthropic", body)
    cut = decode("anthropic", data.draw(pieces_of(body)))
    assert cut.events == whole.events
    assert whole.error is None
    said = {kind: [p for k, p in blocks if k == kind] for kind in ("text", "thinking", "tool")}
    assert whole.message.text == "".join("".join(parts) for parts in said["text"])
    assert whole.chunk.reasoning == "".join("".join(parts) for parts in said["thinking"])
    assert [c["args"] for c in whole.chunk.tool_call_chunks] == ["".join(p) for p in said["tool"]]
    check_readable(whole)
