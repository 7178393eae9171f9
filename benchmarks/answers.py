"""What providers stream, event by event, as they write it: for the server of the benchmarks.

Every answer is the same text in `chunks` pieces. What varies from event to event with a provider
varies here: padding, counters, time stamps.
"""

import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

_WORDS = " the| of|ing| stream|,| and| token|\n| answer| is|.| un|fold|ed| 42| “so”| to|s| model| a"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def pieces(chunks: int) -> list[str]:
    """The text of a stream, piece by piece: mostly a word each, as tokens are."""
    words = _WORDS.split("|")
    return [words[i % len(words)] for i in range(chunks)]


# ---- OpenAI --------------------------------------------------------------------------------------


def openai(chunks: int) -> Iterator[bytes]:
    """A Chat Completions stream: role, text, finish reason, usage, end mark."""
    noise = random.Random(0)
    yield _openai({"role": "assistant", "content": "", "refusal": None}, noise)
    for piece in pieces(chunks):
        yield _openai({"content": piece}, noise)
    yield _openai({}, noise, finish="stop")
    yield _openai(None, noise, usage=_openai_usage(chunks))
    yield b"data: [DONE]\n\n"


def _openai(
    delta: dict[str, Any] | None,
    noise: random.Random,
    finish: str | None = None,
    usage: dict[str, Any] | None = None,
) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    payload = {
        "id": "chatcmpl-CMKAuuvC6E26nL6HLZzTrysEvC8Ln",
        "object": "chat.completion.chunk",
        "created": 1763812800,
        "model": "gpt-4.1-2025-04-14",
        "service_tier": "default",
        "system_fingerprint": "fp_cbf1785567",
        "choices": [] if delta is None else [choice],
        "usage": usage,
        "obfuscation": _padding(noise),
    }
    return b"data: " + _json(payload) + b"\n\n"


def openai_whole(chunks: int) -> bytes:
    """The same as one answer that is not streamed."""
    message = {"role": "assistant", "content": "".join(pieces(chunks)), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _json(
        {
            "id": "chatcmpl-CMKAuuvC6E26nL6HLZzTrysEvC8Ln",
            "object": "chat.completion",
            "created": 1763812800,
            "model": "gpt-4.1-2025-04-14",
            "choices": [choice],
            "usage": _openai_usage(chunks),
        }
    )


def _openai_usage(chunks: int) -> dict[str, Any]:
    return {
        "prompt_tokens": 8,
        "completion_tokens": chunks,
        "total_tokens": 8 + chunks,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses(chunks: int) -> Iterator[bytes]:
    """A Responses stream: one message with one text in it; every event is counted."""
    noise = random.Random(0)
    item = {"id": "msg_034c5e93e2fa45ad006a2c2b77483c81", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    text = "".join(pieces(chunks))
    whole = {**part, "text": text}
    done = {**item, "status": "completed", "content": [whole]}
    usage = {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": chunks,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8 + chunks,
    }
    begun = {**item, "status": "in_progress", "content": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress", [], None)},
        {"type": "response.in_progress", "response": _response("in_progress", [], None)},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **at, "part": part},
    ]
    for piece in pieces(chunks):
        more = {"delta": piece, "logprobs": [], "obfuscation": _padding(noise)}
        events.append(
            {"type": "response.output_text.delta", **dict(sorted({**at, **more}.items()))}
        )
    events += [
        {"type": "response.output_text.done", **at, "logprobs": [], "text": text},
        {"type": "response.content_part.done", **at, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": _response("completed", [done], usage)},
    ]
    for number, event in enumerate(events):
        yield _named(event["type"], {**event, "sequence_number": number})


def _response(status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "resp_034c5e93e2fa45ad006a2c2b74c2e4819dafbd93fcd1b49697",
        "object": "response",
        "created_at": 1781279604,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": "gpt-4.1-2025-04-14",
        "output": output,
        "service_tier": "default",
        "usage": usage,
    }


# ---- Anthropic -----------------------------------------------------------------------------------


def anthropic(chunks: int) -> Iterator[bytes]:
    """A Messages stream: one text block between a start and an end."""
    noise = random.Random(0)
    block = {"type": "text", "text": ""}
    yield _anthropic("message_start", noise, message=_anthropic_message())
    yield _anthropic("content_block_start", noise, index=0, content_block=block)
    yield b'event: ping\ndata: {"type": "ping"}\n\n'
    for piece in pieces(chunks):
        delta = {"type": "text_delta", "text": piece}
        yield _anthropic("content_block_delta", noise, index=0, delta=delta)
    yield _anthropic("content_block_stop", noise, index=0)
    yield _anthropic("message_delta", noise, **_anthropic_end(chunks))
    yield _anthropic("message_stop", noise)


def _anthropic(name: str, noise: random.Random, **fields: Any) -> bytes:
    padding = b" " * noise.randint(0, 12)  # theirs, inside the object: it hides the length
    body = _json({"type": name, **fields})[:-1] + padding + b"}"
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


def _anthropic_message() -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5-20250929",
        "id": "msg_011CdD8kd2BCHcbXAHcYxvaf",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": _anthropic_usage(2),
    }


def _anthropic_usage(output: int) -> dict[str, Any]:
    return {
        "input_tokens": 8,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output,
        "service_tier": "standard",
    }


def _anthropic_end(chunks: int) -> dict[str, Any]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 8, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"delta": delta, "usage": {**usage, "output_tokens": chunks}}


# ---- others --------------------------------------------------------------------------------------


def gemini(chunks: int) -> Iterator[bytes]:
    """A streamGenerateContent stream: each event has the usage so far."""
    for number, piece in enumerate(pieces(chunks), 1):
        candidate: dict[str, Any] = {
            "content": {"parts": [{"text": piece}], "role": "model"},
            "index": 0,
        }
        if number == chunks:
            candidate["finishReason"] = "STOP"
        usage = {
            "promptTokenCount": 8,
            "candidatesTokenCount": number,
            "totalTokenCount": 8 + number,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
        }
        payload = {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini-2.5-flash",
            "responseId": "n1P6abvRFaKdz7IPkcuQ2Aw",
        }
        # Theirs are written with a blank after colons and none after commas.
        yield b"data: " + _json(payload, (",", ": ")) + b"\r\n\r\n"


def bedrock(chunks: int) -> Iterator[bytes]:
    """A ConverseStream answer: binary messages with headers and checksums, JSON in them."""
    noise = random.Random(0)
    yield _bedrock("messageStart", noise, role="assistant")
    for piece in pieces(chunks):
        yield _bedrock("contentBlockDelta", noise, contentBlockIndex=0, delta={"text": piece})
    yield _bedrock("contentBlockStop", noise, contentBlockIndex=0)
    yield _bedrock("messageStop", noise, stopReason="end_turn")
    usage = {"inputTokens": 8, "outputTokens": chunks, "totalTokens": 8 + chunks}
    yield _bedrock("metadata", noise, metrics={"latencyMs": 1965}, usage=usage)


def _bedrock(event: str, noise: random.Random, **fields: Any) -> bytes:
    padding = (_LETTERS[26:] + _LETTERS[:26])[: noise.randint(1, 60)]
    payload = _json(dict(sorted({**fields, "p": padding}.items())))
    headers = b"".join(
        bytes([len(name)])
        + name.encode()
        + b"\x07"
        + struct.pack("!H", len(value))
        + value.encode()
        for name, value in (
            (":event-type", event),
            (":content-type", "application/json"),
            (":message-type", "event"),
        )
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack("!I", crc32(prelude)) + headers + payload
    return message + struct.pack("!I", crc32(message))


def ollama(chunks: int) -> Iterator[bytes]:
    """An /api/chat stream: a line each, with the time of day."""
    for number, piece in enumerate(pieces(chunks)):
        yield _ollama(number, piece, done=False)
    counts = {"prompt_eval_count": 8, "eval_count": chunks}
    yield _ollama(chunks, "", done=True, done_reason="stop", total_duration=8633813833, **counts)


def _ollama(number: int, text: str, **more: Any) -> bytes:
    second, micro = divmod(number * 9_591, 1_000_000)
    minute, second = divmod(second, 60)
    payload = {
        "model": "llama3.2",
        "created_at": f"2025-11-22T12:{minute % 60:02}:{second:02}.{micro:06}Z",
        "message": {"role": "assistant", "content": text},
        **more,
    }
    return _json(payload) + b"\n"


def cohere(chunks: int) -> Iterator[bytes]:
    """A v2 chat stream: one text block between a start and an end."""
    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    begun = {"id": "dd27c8d3-34cf-419f-8d3a-0d1247feafc3", "type": "message-start"}
    yield _named("message-start", {**begun, "delta": {"message": empty}})
    yield _cohere("content-start", {"type": "text", "text": ""})
    for piece in pieces(chunks):
        yield _cohere("content-delta", {"text": piece})
    yield _named("content-end", {"type": "content-end", "index": 0})
    tokens = {"input_tokens": 8, "output_tokens": chunks}
    usage = {"billed_units": tokens, "tokens": tokens, "cached_tokens": 0}
    delta = {"finish_reason": "COMPLETE", "usage": usage}
    yield _named("message-end", {"type": "message-end", "delta": delta})
    yield b"data: [DONE]\n\n"


def _cohere(name: str, content: dict[str, Any]) -> bytes:
    return _named(name, {"type": name, "index": 0, "delta": {"message": {"content": content}}})


# ---- writing -------------------------------------------------------------------------------------


def _padding(noise: random.Random) -> str:
    return "".join(noise.choices(_LETTERS, k=noise.randint(2, 14)))


def _named(name: str, payload: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _json(payload) + b"\n\n"


def _json(value: dict[str, Any], separators: tuple[str, str] = (",", ":")) -> bytes:
    return json.dumps(value, separators=separators, ensure_ascii=False).encode()


SSE = "text/event-stream"

#: By what a path ends with: the events, and the type of the body.
ANSWERS: dict[str, tuple[Callable[[int], Iterator[bytes]], str]] = {
    "/chat/completions": (openai, SSE),
    "/responses": (responses, SSE),
    "/messages": (anthropic, SSE),
    ":streamGenerateContent": (gemini, SSE),
    "/converse-stream": (bedrock, "application/vnd.amazon.eventstream"),
    "/api/chat": (ollama, "application/x-ndjson"),
    "/v2/chat": (cohere, SSE),
}
