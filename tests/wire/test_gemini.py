"""Gemini's answers: what its own wire has, beyond the contract of all dialects."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import Decoded, bytewise, check_readable, decode, decode_whole, samples
from streamfold.chunks import TextChunk
from streamfold.deltas import (
    BlockEnd,
    BlockStart,
    DataDelta,
    ReasoningDelta,
    TextDelta,
    UsageReport,
)
from streamfold.errors import (
    AuthenticationError,
    ContentFilterError,
    OverloadedError,
    RateLimitError,
    SizeLimitError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.limits import Limits
from streamfold.wire.gemini import FINISH_REASONS, Decoder, read_usage

HEAD = {"modelVersion": "gemini-x", "responseId": "r_1"}
SIGNED = {"thoughtSignature": "c2ln"}


def event(*parts: Any, reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """An event of one candidate; `fields` are the candidate's own."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, **fields}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], **HEAD}


def text(text: str, **fields: Any) -> dict[str, Any]:
    return {"text": text, **fields}


def call(name: str, args: Any = None, **fields: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **({} if args is None else {"args": args})}, **fields}


STOP = event(text(""), reason="STOP")


def stream(*events: Any) -> Decoded:
    """A stream, however framed and cut."""
    sse = b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in events)
    array = b"[" + b",\r\n".join(json.dumps(each).encode() for each in events) + b"]"
    found = decode("gemini", sse)
    for reads in (bytewise(sse), array, bytewise(array)):
        other = decode("gemini", reads)
        assert other.events == found.events
        assert repr(other.error) == repr(found.error)
    return found


def whole(value: Any) -> Decoded:
    return decode_whole("gemini", json.dumps(value).encode())


def blocks(decoded: Decoded) -> list[dict[str, Any]]:
    assert decoded.error is None
    return decoded.message.content_blocks


def sample_blocks(case: str) -> list[dict[str, Any]]:
    (sample,) = [each for each in samples(case) if each.dialect == "gemini"]
    return blocks(decode("gemini", sample.stream))


# ---- text and thoughts ---------------------------------------------------------------------------


def test_pieces_that_follow_one_another_are_one_block() -> None:
    decoded = stream(
        event(text("I ", thought=True)),
        event(text("think", thought=True)),
        event(text("so")),
        event(text("."), text("")),
        STOP,
    )
    assert blocks(decoded) == [
        {"type": "reasoning", "reasoning": "I think"},
        {"type": "text", "text": "so."},
    ]
    kinds = [e for c in decoded.chunks for e in c.events if isinstance(e, BlockStart | BlockEnd)]
    assert kinds[:3] == [
        BlockStart("reasoning", 0),
        BlockEnd("reasoning", 0),
        BlockStart("text", 1),
    ]


def test_a_new_run_is_a_new_block() -> None:
    decoded = stream(
        event(text("a"), text("b", thought=True), text("c"), call("f", {}), text("d")), STOP
    )
    found = [(b["type"], b.get("text", b.get("reasoning"))) for b in blocks(decoded)]
    assert found == [
        ("text", "a"),
        ("reasoning", "b"),
        ("text", "c"),
        ("tool_call", None),
        ("text", "d"),
    ]


def test_a_signature_joins_the_text_that_streamed_before_it() -> None:
    """And closes it: what has its signature takes nothing more."""
    decoded = stream(event(text("a")), event(text("b", **SIGNED)), event(text("c")), STOP)
    assert blocks(decoded) == [
        {"type": "text", "text": "ab", "extras": SIGNED},
        {"type": "text", "text": "c"},
    ]
    decoded = stream(event(text("a", thought=True)), event(text("", thought=True, **SIGNED)), STOP)
    assert blocks(decoded) == [{"type": "reasoning", "reasoning": "a", "extras": SIGNED}]


def test_in_a_whole_body_a_signed_part_stays_apart() -> None:
    decoded = whole(event(text("a"), text("b", **SIGNED), text("c"), text("d"), reason="STOP"))
    assert blocks(decoded) == [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b", "extras": SIGNED},
        {"type": "text", "text": "cd"},
    ]


@pytest.mark.parametrize("part", [{"text": "", **SIGNED}, SIGNED, {"text": None, **SIGNED}])
def test_a_signature_alone_is_kept(part: dict[str, Any]) -> None:
    decoded = stream(event(call("f", {})), event(part, reason="STOP"))
    assert blocks(decoded)[1] == {"type": "text", "text": "", "extras": SIGNED}
    assert decoded.message.text == ""


def test_text_that_says_nothing_else_is_a_text_chunk() -> None:
    decoded = stream(event(text("a")), event(text("b")), event(text("c")), STOP)
    assert [type(chunk) is TextChunk for chunk in decoded.chunks] == [False, True, True, False]


def test_only_the_first_candidate_is_the_message() -> None:
    second = {"index": 1, "content": {"parts": [text("other")]}, "finishReason": "STOP"}
    decoded = stream(
        {**event(text("a"), index=0), "candidates": [*event(text("a"))["candidates"], second]}, STOP
    )
    assert decoded.message.text == "a"


def test_unknown_parts_and_parts_of_odd_shapes_are_kept() -> None:
    odd = [{"hologram": {"x": 1}}, {"functionCall": "f"}, {"text": 5}, {"inlineData": []}]
    decoded = stream(event(*odd, "no part"), STOP)
    assert blocks(decoded) == [{"type": "non_standard", "value": part} for part in odd]


# ---- calls ---------------------------------------------------------------------------------------


def test_calls() -> None:
    decoded = stream(
        event(call("a", {"x": 1.5}, **SIGNED), call("a", {"x": 1.5})),
        event(
            {"functionCall": {"id": "fc", "name": "b", "args": {}, "new": 1}, "partMetadata": {}}
        ),
        event(call("c"), reason="STOP"),
    )
    first, second, third, fourth = blocks(decoded)
    assert first["extras"] == SIGNED
    assert (first["args"], second["args"]) == ({"x": 1.5}, {"x": 1.5})
    assert first["id"] != second["id"]
    assert third == {
        "type": "tool_call",
        "id": "fc",
        "name": "b",
        "args": {},
        "extras": {"functionCall": {"new": 1}, "partMetadata": {}},
    }
    assert (fourth["name"], fourth["args"]) == ("c", {})
    assert decoded.message.finish_reason == "tool_calls"
    assert decoded.message.response_metadata["finish_reason"] == "STOP"


def test_a_call_is_whole_even_if_the_token_limit_follows() -> None:
    decoded = stream(event(call("f")), event(reason="MAX_TOKENS"))
    assert [c["args"] for c in decoded.message.tool_calls] == [{}]
    assert decoded.message.finish_reason == "length"


def piece(*values: Any, more: bool = True, **fields: Any) -> dict[str, Any]:
    partial = {"partialArgs": list(values)} if values else {}
    return {"functionCall": {**fields, **partial, **({"willContinue": True} if more else {})}}


def test_arguments_in_pieces_can_be_read_while_they_come() -> None:
    decoded = stream(
        event(piece(name="f")),
        event(piece({"jsonPath": "$.a.b", "stringValue": "ab", "willContinue": True})),
        event(
            piece({"jsonPath": "$.a.b", "stringValue": "c"}, {"jsonPath": "$.n", "numberValue": 1})
        ),
        event(piece(more=False), reason="STOP"),
    )
    read = []
    for place in range(len(decoded.chunks)):
        so_far = sum(decoded.chunks[: place + 1][1:], decoded.chunks[0])
        read.append(so_far.tool_calls[0]["args"])
    assert read == [
        {},
        {"a": {"b": "ab"}},
        {"a": {"b": "abc"}, "n": 1},
        {"a": {"b": "abc"}, "n": 1},
    ]


def test_interleaved_calls_in_pieces() -> None:
    """A name begins the next call, whether or not the one before it was ended."""
    decoded = stream(
        event(piece(name="f", id="1")),
        event(piece({"jsonPath": "$.a", "boolValue": True})),
        event(piece(more=False)),
        event(piece(more=False)),
        event(piece(name="g", id="2"), call("h", {"x": 1}), reason="STOP"),
    )
    calls = [(c["id"], c["name"], c["args"]) for c in decoded.message.tool_calls]
    assert calls[0] == ("1", "f", {"a": True})
    assert calls[-1][1:] == ("h", {"x": 1})
    assert len(calls) == 3
    assert decoded.message.invalid_tool_calls == []


def test_whole_arguments_of_a_call_that_says_it_goes_on() -> None:
    decoded = stream(event(piece(name="f", args={"a": 1})), event(piece(more=False)), STOP)
    assert [c["args"] for c in decoded.message.tool_calls] == [{"a": 1}]
    assert decoded.message.invalid_tool_calls == []


@pytest.mark.parametrize("path", ["$.a", "$.b[1]", "$", "b", 5, None])
def test_pieces_that_make_no_object_are_an_error(path: Any) -> None:
    decoded = stream(
        event(text("so")),
        event(piece({"jsonPath": "$.a", "numberValue": 1}, name="f")),
        event(piece({"jsonPath": path, "numberValue": 2})),
        STOP,
    )
    assert isinstance(decoded.error, StreamProtocolError)
    assert "arguments" in str(decoded.error)
    assert decoded.message.text == "so"
    assert decoded.message.tool_calls == []
    check_readable(decoded)


# ---- media ---------------------------------------------------------------------------------------


def test_media_blocks() -> None:
    image, audio, file, unknown = sample_blocks("media")
    assert image == {
        "type": "image",
        "base64": "iVBORw0KGgo=",
        "mime_type": "image/png",
        "extras": SIGNED,
    }
    assert audio["mime_type"] == "audio/L16;codec=pcm;rate=24000"
    assert base64.b64decode(audio["base64"]) == bytes(range(50))
    assert file == {
        "type": "file",
        "mime_type": "application/pdf",
        "url": "https://x.example/a.pdf",
    }
    assert unknown == {"type": "non_standard", "value": {"hologram": {"x": 1}}}


def audio(samples: bytes, mime_type: str = "audio/pcm;rate=24000") -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(samples).decode()}}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_pieces_of_raw_audio_add_up(size: int) -> None:
    samples = bytes(range(40))
    pieces = [audio(samples[n : n + size]) for n in range(0, 40, size)]
    decoded = stream(*(event(each) for each in pieces), STOP)
    (block,) = blocks(decoded)
    assert base64.b64decode(block["base64"], validate=True) == samples
    assert block == blocks(whole(event(*pieces, reason="STOP")))[0]
    deltas = [e.data for c in decoded.chunks for e in c.events if isinstance(e, DataDelta)]
    assert len(deltas) >= 40 // size // 3


def test_audio_of_another_kind_or_with_a_head_is_another_block() -> None:
    other = audio(b"abcd", "audio/pcm;rate=16000")
    wav = audio(b"RIFF", "audio/wav")
    decoded = stream(event(audio(b"ab"), other, wav, wav, {**audio(b"c"), **SIGNED}), STOP)
    found = [base64.b64decode(block["base64"]) for block in blocks(decoded)]
    assert found == [b"ab", b"abcd", b"RIFF", b"RIFF", b"c"]


def test_audio_that_is_no_base64_is_kept_as_it_came() -> None:
    bad = {"inlineData": {"mimeType": "audio/pcm", "data": "a*b"}}
    assert blocks(stream(event(bad), STOP))[0]["base64"] == "a*b"


# ---- server tools --------------------------------------------------------------------------------


def test_code_and_tools_that_the_server_ran() -> None:
    code, ran, search, found, said = sample_blocks("code")
    assert (code["name"], code["args"]) == (
        "code_execution",
        {"language": "PYTHON", "code": "print(6*7)"},
    )
    assert code["extras"] == {"block_type": "executableCode", **SIGNED}
    assert ran["tool_call_id"] == code["id"]
    assert (ran["status"], ran["output"]) == ("success", "42\n")
    assert (search["name"], search["id"]) == ("google_search", "t_1")
    assert search["args"] == {"queries": ["42"]}
    assert (found["tool_call_id"], found["output"]) == ("t_1", {"search_suggestions": "<b>"})
    assert said["text"] == "It is 42."


def test_code_that_failed() -> None:
    failed = {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "NameError"}}
    (block,) = blocks(stream(event(failed), STOP))
    assert (block["status"], block["output"]) == ("error", "NameError")
    assert block["extras"]["codeExecutionResult"] == {"outcome": "OUTCOME_FAILED"}


def test_searches_and_pages_that_only_the_sources_tell_of() -> None:
    said, search, found, read, pages = sample_blocks("server_tools")
    assert (search["name"], search["args"]) == ("google_search", {"queries": ["rain riga"]})
    assert found["tool_call_id"] == search["id"]
    assert found["output"][0] == {"web": {"uri": "https://x.example", "title": "X"}}
    assert (read["name"], read["args"]) == ("url_context", {"urls": ["https://x.example"]})
    assert pages["tool_call_id"] == read["id"]
    assert said["annotations"] == [
        {
            "type": "citation",
            "url": "https://x.example",
            "title": "X",
            "start_index": 10,
            "end_index": 19,
            "extras": {"grounding_chunk_index": 0, "confidence_score": 0.5},
        },
        {
            "type": "citation",
            "url": "gs://b/y",
            "title": "Y",
            "cited_text": "Rain.",
            "start_index": 10,
            "end_index": 19,
            "extras": {"grounding_chunk_index": 1, "confidence_score": 0.25},
        },
    ]
    assert said["text"][10:19] == "it rains."


def cited(*parts: Any, segment: Any, **more: Any) -> list[tuple[int, Any, Any, str]]:
    """Where an answer of these parts is cited: block, first and last character, and the text."""
    grounding = {
        "groundingChunks": [{"web": {"uri": "u"}}],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
        **more,
    }
    decoded = stream(event(*parts), event(reason="STOP", groundingMetadata=grounding))
    return [
        (number, note.get("start_index"), note.get("end_index"), block["text"])
        for number, block in enumerate(blocks(decoded))
        for note in block.get("annotations", ())
    ]


def test_places_count_bytes_over_all_of_the_text() -> None:
    parts = text("é1"), call("f", {}), text("é2 é3")
    assert cited(*parts, segment={"endIndex": 3, "text": "é1"}) == [(0, 0, 2, "é1")]
    segment = {"startIndex": 7, "endIndex": 10, "text": "é3"}
    assert cited(*parts, segment=segment) == [(2, 3, 5, "é2 é3")]
    # without the text to compare it with, the place is taken at its word
    assert cited(*parts, segment={"startIndex": 7, "endIndex": 10}) == [(2, 3, 5, "é2 é3")]


def test_a_place_that_does_not_fit_is_looked_for() -> None:
    """As in an answer whose places count in one part of it."""
    parts = text("abc", thought=True), text("one"), call("f", {}), text("two")
    segment = {"partIndex": 3, "startIndex": 0, "endIndex": 3, "text": "two"}
    assert cited(*parts, segment=segment) == [(3, 0, 3, "two")]
    for lost in ({"endIndex": 3, "text": "nowhere"}, {"startIndex": 2, "endIndex": 99}, {}, None):
        assert cited(*parts, segment=lost) == [(3, None, None, "two")]


def test_text_taken_from_elsewhere_is_cited() -> None:
    taken = {"startIndex": 1, "endIndex": 3, "uri": "u", "license": "MIT"}
    for name in ("citations", "citationSources"):
        decoded = stream(event(text("abcd"), reason="STOP", citationMetadata={name: [taken]}))
        assert blocks(decoded)[0]["annotations"] == [
            {
                "type": "citation",
                "url": "u",
                "start_index": 1,
                "end_index": 3,
                "extras": {"license": "MIT"},
            }
        ]


def test_sources_may_come_bit_by_bit_or_again_and_again() -> None:
    one, two = ({"web": {"uri": uri}} for uri in "ab")
    support = {"segment": {"endIndex": 2, "text": "hi"}, "groundingChunkIndices": [0, 1]}
    events = [
        [{"groundingChunks": [one]}, {"groundingChunks": [two]}, {"groundingSupports": [support]}],
        [
            {"groundingChunks": [one]},
            {"groundingChunks": [one, two], "groundingSupports": [support]},
        ],
    ]
    for metadata in events:
        decoded = stream(
            *(event(text("hi"[n : n + 1]), groundingMetadata=m) for n, m in enumerate(metadata)),
            STOP,
        )
        assert [note["url"] for note in blocks(decoded)[0]["annotations"]] == ["a", "b"]
        kept = decoded.message.response_metadata["grounding_metadata"]
        assert kept == {"groundingChunks": [one, two], "groundingSupports": [support]}


def test_citations_count_text_that_took_the_short_way() -> None:
    pieces = [event(text(f"é{n}")) for n in range(50)]
    said = "".join(f"é{n}" for n in range(50))
    place = said.index("é42")
    segment = {"startIndex": len(said[:place].encode()), "text": "é42"}
    segment["endIndex"] = segment["startIndex"] + 4
    grounding = {
        "groundingChunks": [{"web": {"uri": "u"}}],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0, 7, "x"]}],
    }
    decoded = stream(*pieces, event(reason="STOP", groundingMetadata=grounding))
    (note,) = blocks(decoded)[0]["annotations"]
    assert (note["start_index"], note["end_index"]) == (place, place + 3)


# ---- ends, metadata, usage -----------------------------------------------------------------------


@pytest.mark.parametrize("reason", [*FINISH_REASONS, "OTHER", "NEW_WORD"])
def test_finish_reasons(reason: str) -> None:
    for decoded in (stream(event(text("a"), reason=reason)), whole(event(reason=reason))):
        assert decoded.error is None
        assert decoded.message.finish_reason == FINISH_REASONS.get(reason, reason)
        assert decoded.message.response_metadata["finish_reason"] == reason


def test_an_answer_that_a_filter_ended_is_a_message() -> None:
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "HIGH", "blocked": True}]
    decoded = whole({"candidates": [{"finishReason": "SAFETY", "safetyRatings": ratings}]})
    assert decoded.error is None
    assert (decoded.message.text, decoded.message.finish_reason) == ("", "content_filter")
    assert decoded.message.response_metadata["safety_ratings"] == ratings


BLOCKED = {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": [{"probability": "HIGH"}]}}


def test_a_blocked_prompt_is_an_error() -> None:
    for decoded in (stream(BLOCKED), whole(BLOCKED)):
        error = decoded.error
        assert isinstance(error, ContentFilterError)
        assert (error.status, error.type, error.retryable) == (200, "SAFETY", False)
        assert json.loads(error.body or "") == BLOCKED["promptFeedback"]
    message = {"blockReason": "OTHER", "blockReasonMessage": "Not this."}
    assert stream({"promptFeedback": message}).error.message == "Not this."  # type: ignore[union-attr]


def test_a_prompt_that_is_blocked_later_ends_the_answer() -> None:
    decoded = stream(event(text("Once ")), BLOCKED)
    assert decoded.error is None
    assert decoded.message.text == "Once "
    assert decoded.message.finish_reason == "content_filter"


def test_feedback_that_blocks_nothing_is_metadata() -> None:
    decoded = stream({"promptFeedback": {"safetyRatings": []}}, event(text("a"), reason="STOP"))
    assert decoded.message.response_metadata["prompt_feedback"] == {"safetyRatings": []}


def test_a_finish_reason_in_every_event_ends_nothing_early() -> None:
    """As models of old sent it: the text is all there, and the last reason counts."""
    decoded = stream(
        event(text("a"), reason="STOP"), event(text("b"), reason="STOP"), event(reason="STOP")
    )
    assert decoded.message.text == "ab"
    assert decoded.message.finish_reason == "stop"
    assert len(decoded.chunks) == 2  # the last one says nothing new


def test_sources_may_trail_the_finish_reason() -> None:
    grounding = {
        "groundingChunks": [{"web": {"uri": "u"}}],
        "groundingSupports": [{"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}],
        "webSearchQueries": ["q"],
    }
    decoded = stream(event(text("a"), reason="STOP"), event(groundingMetadata=grounding))
    said, search, _ = blocks(decoded)
    assert said["annotations"][0]["url"] == "u"
    assert search["name"] == "google_search"


def test_metadata_is_reported_once_and_in_snake_case() -> None:
    ratings = [{"category": "c", "probability": "LOW"}]
    head = {"createTime": "t", "newField": {"a": 1}}
    decoded = stream(
        *({**event(text("a"), safetyRatings=ratings, tokenCount=3), **head} for _ in range(4)),
        {**event(reason="STOP", finishMessage="done"), **head},
    )
    assert decoded.message.response_metadata == {
        "id": "r_1",
        "model_name": "gemini-x",
        "model_provider": "google_genai",
        "create_time": "t",
        "new_field": {"a": 1},
        "safety_ratings": ratings,
        "token_count": 3,
        "finish_message": "done",
        "finish_reason": "STOP",
    }
    assert [len(chunk.events) for chunk in decoded.chunks][2:4] == [1, 1]


def test_logprobs_are_joined() -> None:
    def result(token: str) -> dict[str, Any]:
        return {"chosenCandidates": [{"token": token}], "topCandidates": [{"candidates": []}]}

    decoded = stream(
        event(text("a"), logprobsResult=result("a")),
        event(text("b"), logprobsResult=result("b"), avgLogprobs=-0.5, reason="STOP"),
    )
    assert decoded.message.response_metadata["logprobs"] == {
        "chosenCandidates": [{"token": "a"}, {"token": "b"}],
        "topCandidates": [{"candidates": []}, {"candidates": []}],
        "avgLogprobs": -0.5,
    }


def test_usage() -> None:
    """Input holds what the server's tools read, output the thoughts; zeros are kept."""
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 0,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 4,
        "totalTokenCount": 22,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 7},
            {"modality": "IMAGE", "tokenCount": 3},
        ],
        "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 3}],
        "trafficType": "ON_DEMAND",
    }
    assert read_usage(usage) == {
        "input_tokens": 15,
        "output_tokens": 7,
        "total_tokens": 22,
        "input_token_details": {"cache_read": 0, "tool_use": 5, "text": 7, "image": 3},
        "output_token_details": {"reasoning": 4, "audio": 3},
    }
    assert read_usage({"promptTokenCount": 2}) == {
        "input_tokens": 2,
        "output_tokens": 0,
        "total_tokens": 2,
    }


def test_figures_are_running_totals() -> None:
    def counted(tokens: int) -> dict[str, Any]:
        return {"usageMetadata": {"promptTokenCount": 2, "candidatesTokenCount": tokens}}

    decoded = stream(
        *({**event(text("a")), **counted(n)} for n in (1, 2, 3)), {**STOP, **counted(3)}
    )
    totals = [chunk.usage_metadata for chunk in decoded.chunks]
    assert [t["output_tokens"] for t in totals if t is not None] == [1, 2, 3]
    assert decoded.message.usage_metadata is not None
    assert decoded.message.usage_metadata["total_tokens"] == 5
    # what has come by the time a stream breaks counts
    cut = decode(
        "gemini", b"data: %b\n\n" % json.dumps({**event(text("a")), **counted(1)}).encode()
    )
    assert isinstance(cut.error, StreamInterruptedError)
    assert cut.message.usage_metadata is not None


def test_a_kind_of_traffic_is_no_figure() -> None:
    traffic = {"usageMetadata": {"trafficType": "ON_DEMAND"}}
    decoded = stream({**HEAD, **traffic}, {**event(text("a")), **traffic}, event(reason="STOP"))
    assert len(decoded.chunks) == 2  # by itself it is nothing to show
    assert decoded.message.usage_metadata is None
    assert decoded.message.response_metadata["usage"] == {"trafficType": "ON_DEMAND"}


# ---- errors and framing --------------------------------------------------------------------------

OVERLOADED = {"error": {"code": 503, "message": "Overloaded.", "status": "UNAVAILABLE"}}


def test_an_error_among_the_events() -> None:
    decoded = stream(event(text("half")), OVERLOADED, event(text("late")), STOP)
    assert isinstance(decoded.error, OverloadedError)
    assert (decoded.error.status, decoded.error.type) == (200, "UNAVAILABLE")
    assert decoded.error.retryable
    assert decoded.message.text == "half"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_an_error_as_bare_json_in_a_stream_of_events(indent: Any, end: str) -> None:
    bare = (json.dumps(OVERLOADED, indent=indent) + end).encode()
    body = b"data: %b\r\n\r\n" % json.dumps(event(text("half"))).encode() + bare
    for reads in (body, bytewise(body)):
        decoded = decode("gemini", reads)
        assert isinstance(decoded.error, OverloadedError)
        assert decoded.message.text == "half"


def test_half_an_error_is_a_cut_stream() -> None:
    decoded = decode("gemini", json.dumps(OVERLOADED).encode()[:-5])
    assert isinstance(decoded.error, StreamProtocolError | StreamInterruptedError)


def test_an_error_with_content_keeps_both() -> None:
    """The end of an event that brings an error does not count."""
    decoded = stream(event(text("a")), {**event(text("b"), reason="STOP"), **OVERLOADED})
    assert isinstance(decoded.error, OverloadedError)
    assert decoded.message.text == "ab"
    assert decoded.message.finish_reason == "error"


def test_an_error_says_when_to_come_back_and_what_was_wrong() -> None:
    rpc = "type.googleapis.com/google.rpc."
    retry = {"@type": rpc + "RetryInfo", "retryDelay": "7.5s"}
    error = {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": [retry]}
    decoded = stream({"error": error})
    assert isinstance(decoded.error, RateLimitError)
    assert (decoded.error.retry_after, decoded.error.code) == (7.5, "429")
    info = {"@type": rpc + "ErrorInfo", "reason": "API_KEY_INVALID"}
    error = {"code": 400, "message": "m", "status": "INVALID_ARGUMENT", "details": [info]}
    decoded = stream({"error": error})
    assert isinstance(decoded.error, AuthenticationError)
    assert decoded.error.code == "API_KEY_INVALID"


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("head", [b"", b" \r\n", BOM, BOM + b"\n"])
def test_the_first_byte_tells_the_framing(head: bytes) -> None:
    array = head + json.dumps([event(text("a")), STOP], indent=1).encode()
    sse = head + b"".join(
        b"data: %b\n\n" % json.dumps(e).encode() for e in (event(text("a")), STOP)
    )
    for body in (array, sse):
        for reads in (body, bytewise(body)):
            decoded = decode("gemini", reads)
            assert decoded.error is None
            assert decoded.message.text == "a"


def test_an_array_that_breaks_off_is_a_cut_stream() -> None:
    body = json.dumps([event(text("a")), event(text("b"))]).encode()
    for cut in (body[:-1], body[:-9], body):  # its end is no finish reason
        decoded = decode("gemini", cut)
        assert isinstance(decoded.error, StreamInterruptedError)
        assert decoded.message.text.startswith("a")
    decoded = decode("gemini", json.dumps([event(text("a")), STOP]).encode()[:-1])
    assert decoded.error is None  # the finish reason suffices


def test_an_element_that_is_too_large() -> None:
    body = json.dumps([event(text("a")), event(text("b" * 500)), STOP]).encode()
    for reads in (body, bytewise(body)):
        decoded = decode("gemini", reads, Limits(event_bytes=300))
        assert isinstance(decoded.error, SizeLimitError)
        assert decoded.message.text == "a"


def test_the_array_takes_the_short_way() -> None:
    body = b"[%b]" % b",\r\n".join(json.dumps(event(text("a"))).encode() for _ in range(99))
    decoder = Decoder()
    frames = 0
    take = decoder._frame

    def counting(frame: Any, chunks: Any) -> None:
        nonlocal frames
        frames += 1
        take(frame, chunks)

    decoder._frame = counting  # type: ignore[method-assign]
    reads = [body[n : n + 500] for n in range(0, len(body), 500)]
    chunks = [chunk for data in reads for chunk in decoder.feed(data)]
    assert sum(chunk.text == "a" for chunk in chunks) == 99
    assert frames < 12


def counted(text: str, usage: Any, **fields: Any) -> bytes:
    return (
        b"data: %b\n\n"
        % json.dumps({**event({"text": text}), "usageMetadata": usage, **fields}).encode()
    )


def usage_at(n: int) -> dict[str, Any]:
    """As Vertex AI tells it: there are details, and what stays the same stands between."""
    return {
        "promptTokenCount": 8,
        "candidatesTokenCount": n,
        "totalTokenCount": 108 + n,
        "trafficType": "ON_DEMAND",
        "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": n}],
        "thoughtsTokenCount": 100,
    }


def both_ways(reads: Any) -> Decoded:
    """Short and complete, which must say the same."""
    short = decode("gemini", reads)
    complete = decode("gemini", reads, short_way=False)
    assert short.events == complete.events
    assert repr(short.error) == repr(complete.error)
    return short


@pytest.mark.parametrize("per_read", [1, 3, 20])
def test_events_that_count_tokens_take_the_short_way(
    monkeypatch: pytest.MonkeyPatch, per_read: int
) -> None:
    """What changes may be told at once or bit by bit; the last usage is that of the message."""
    events = [counted("a", usage_at(n)) for n in (*range(1, 60), *range(99, 130))]
    events[40] = counted("b", {**usage_at(70), "thoughtsTokenCount": 101})
    reads = [b"".join(events[n : n + per_read]) for n in range(0, len(events), per_read)]
    both_ways([*reads, b"data: %b\n\n" % json.dumps(STOP).encode()])
    frames = 0
    take = Decoder._frame

    def counting(self: Decoder, frame: Any, chunks: Any) -> None:
        nonlocal frames
        frames += 1
        take(self, frame, chunks)

    monkeypatch.setattr(Decoder, "_frame", counting)
    decoder = Decoder()
    chunks = [chunk for data in reads for chunk in decoder.feed(data)]
    assert frames <= 3 * per_read
    assert len(chunks) == 90
    assert all(chunk.usage_metadata for chunk in chunks)
    message = sum(chunks[1:], chunks[0])
    assert message.usage_metadata["output_tokens"] == 229
    assert message.response_metadata["usage"] == usage_at(129)


@pytest.mark.parametrize(
    "number",
    ["7.5", '"7"', "07", "-7", "7e5", "0", "null", "[7]", "", "7,", "7 7", "9" * 5000, "7}]"],
)
@pytest.mark.parametrize("key", ["promptTokenCount", "totalTokenCount", "thoughtsTokenCount"])
@pytest.mark.parametrize("place", [1, 30])
def test_what_is_no_count_is_what_it_is_by_the_complete_way(
    key: str, number: str, place: int
) -> None:
    events = [counted("a", usage_at(n)) for n in range(1, 50)]
    value = usage_at(place + 1)[key]
    odd = events[place].replace(f'"{key}": {value}'.encode(), f'"{key}": {number}'.encode())
    assert odd != events[place]
    events[place] = odd
    for size in (1, 7, 49):
        both_ways([b"".join(events[n : n + size]) for n in range(0, 49, size)])


@pytest.mark.parametrize("size", [1, 4, 40])
@pytest.mark.parametrize("empty", [{}, None, {"trafficType": "ON_DEMAND"}])
def test_usage_that_repeats_says_nothing_new(empty: Any, size: int) -> None:
    again = [1, 1, 2, 2, 3, 3, 3, 3, 4]
    told = [usage_at(n) for n in again]
    events = [counted("a", usage) for usage in (*told, *[empty] * 4, *told[-1:] * 4, *told)]
    decoded = both_ways([b"".join(events[n : n + size]) for n in range(0, len(events), size)])
    reports = [e for chunk in decoded.chunks for e in chunk.events if type(e) is UsageReport]
    assert len(reports) == 8 + bool(empty)  # kinds of traffic have no count, but are news


usages = st.fixed_dictionaries(
    {},
    optional={
        "promptTokenCount": st.integers(0, 12),
        "candidatesTokenCount": st.integers(0, 12) | st.just("5") | st.floats(0, 3, width=16),
        "totalTokenCount": st.integers(0, 12) | st.none(),
        "trafficType": st.sampled_from(["a", "b1", "c\n2", "%d", "%", '"']),
        "promptTokensDetails": st.lists(
            st.fixed_dictionaries({"modality": st.just("TEXT"), "tokenCount": st.integers(0, 2)}),
            max_size=2,
        ),
    },
)


@given(
    events=st.lists(
        st.builds(counted, st.sampled_from(["a", "b", "", '"', "\ud83d", "\n", "5"]), usages)
        | st.builds(counted, st.just("a"), st.builds(usage_at, st.integers(0, 200))),
        min_size=1,
        max_size=30,
    ),
    size=st.integers(1, 12),
)
def test_any_usage_is_told_as_by_the_complete_way(events: list[bytes], size: int) -> None:
    both_ways([b"".join(events[n : n + size]) for n in range(0, len(events), size)])


def test_every_event_becomes_one_chunk() -> None:
    decoded = stream(
        event(text("a", thought=True)), event(text("b"), text("c")), event(call("f", {})), STOP
    )
    kinds = [[type(e) for e in chunk.events] for chunk in decoded.chunks]
    assert len(kinds) == 4
    assert ReasoningDelta in kinds[0]
    assert kinds[1].count(TextDelta) == 2
