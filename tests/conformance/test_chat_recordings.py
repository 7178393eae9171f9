"""Every recorded exchange of Chat Completions and Anthropic Messages, through the public API.

Each is replayed over loopback HTTP, whole, as it was recorded and cut at random, on asyncio and
trio, and fed straight into the decoder byte by byte; it must say what the vendor's SDK makes of it.
The recordings lie outside the repository; without them these tests are skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from streamfold import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    StreamfoldError,
)
from streamfold.messages import AIMessage
from streamfold.testing import Exchange, ReplayServer, cut
from streamfold.wire import anthropic, openai_chat

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]

#: api -> how it is asked: the model, the path of the base URL, the decoder
APIS: dict[str, tuple[str, str, Any]] = {
    "openai_chat": ("openai:gpt-4.1", "/v1", openai_chat.Decoder),
    "anthropic_messages": ("anthropic:claude-sonnet-4-5", "", anthropic.Decoder),
}

RECORDINGS = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    if (recording := json.loads(path.read_text(encoding="utf-8")))["api"] in APIS
]

#: Exchanges whose expectation is wrong in one field, and the proof.
WRONG: dict[tuple[str, str], str] = {
    ("openrouter-google-gemini-2-5-flash-lite-object-streaming-f59fa0cb", "tool_calls"): (
        "the oracle joins pieces by index alone; these have index 0 and different ids each, and "
        "each holds a closed object: 'accumulator: RuntimeError: repeated id/name' in its name"
    ),
    ("openrouter-google-gemini-2-5-flash-lite-object-streaming-f59fa0cb", "usage"): (
        "the figures come after the error that ends the answer; `expected` is to hold what came "
        "before it"
    ),
}

CLASSES = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


ANSWERS = [r for r in RECORDINGS if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if r["stream"]]
WHOLE = [r for r in ANSWERS if not r["stream"]]
REFUSED = [r for r in RECORDINGS if r["response"]["status"] != 200]


# ---- what is compared ------------------------------------------------------------------------


def seen(message: AIMessage) -> Body:
    """A message in the terms of `expected`."""
    metadata = message.response_metadata
    blocks = message.content_blocks
    calls = [
        {"id": call["id"], "name": call["name"], "args": call["args"]}
        for call in message.tool_calls
    ]
    calls += [
        {"id": bad["id"], "name": bad["name"], "args": None, "args_raw": bad["args"]}
        for bad in message.invalid_tool_calls
    ]
    reasoning = "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")
    return {
        "text": message.text,
        "reasoning": reasoning or None,
        "tool_calls": calls,
        "server_tool_calls": [b["name"] for b in blocks if b["type"] == "server_tool_call"],
        "stop_reason": metadata.get("finish_reason", metadata.get("stop_reason")),
        "usage": metadata.get("usage"),
        "model": metadata.get("model_name"),
        "refusal": metadata.get("refusal"),
    }


def check(recording: Body, message: AIMessage | None) -> None:
    """`message` says what is expected of the recording, but for what is wrong there."""
    expected = recording["expected"]
    found = seen(message if message is not None else AIMessage(""))
    for field, value in found.items():
        if (recording["id"], field) in WRONG:
            continue
        wanted = expected.get(field)
        if field == "reasoning":
            wanted = wanted or None
        if field == "tool_calls":
            wanted = [dict(call) for call in wanted]
            for call, mine in zip(wanted, value, strict=True):
                if call["id"] is None:  # the wire has none, so one is made up
                    assert mine["id"]
                    call["id"] = mine["id"]
        assert value == wanted, field
    if expected["usage"] and message is not None:
        check_usage(expected["usage"], message, recording["id"])


def check_usage(raw: Body, message: AIMessage, id: str) -> None:
    """The normalised figures, counted here in another way."""
    if (id, "usage") in WRONG:
        return
    usage = message.usage_metadata
    assert usage is not None
    if "input_tokens" in raw:  # Anthropic: cached tokens are apart
        cached = [raw.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation")]
        assert usage["input_tokens"] == raw["input_tokens"] + sum(cached)
        assert usage["output_tokens"] == raw["output_tokens"]
        return
    details = raw.get("completion_tokens_details") or {}
    hidden = details.get("reasoning_tokens") or 0
    apart = raw["prompt_tokens"] + raw["completion_tokens"] + hidden == raw["total_tokens"]
    assert usage["input_tokens"] == raw["prompt_tokens"]
    assert usage["output_tokens"] == raw["completion_tokens"] + (hidden if apart else 0)
    assert usage["total_tokens"] == raw["total_tokens"]


# ---- over HTTP -------------------------------------------------------------------------------


async def answer(recording: Body, url: str) -> tuple[AIMessage | None, StreamfoldError | None]:
    """The folded answer, or what had arrived and the error."""
    name, path, _ = APIS[recording["api"]]
    model = init_chat_model(name, base_url=url + path, api_key="test-key", max_retries=0)
    async with model:
        try:
            if not recording["stream"]:
                return await model.ainvoke("hi"), None
            full = AIMessageChunk()
            async with model.astream("hi") as stream:
                async for chunk in stream:
                    full = full + chunk
            return full.to_message(), None
        except StreamfoldError as error:
            return error.partial, error


def check_answer(recording: Body, chunking: Any, backend: str) -> None:
    with ReplayServer([Exchange.from_recording(recording)], chunking=chunking) as server:
        message, error = anyio.run(answer, recording, server.url, backend=backend)
    wanted = recording["expected"]["error"]
    if wanted is None:
        assert error is None, error
    else:
        assert isinstance(error, ProviderError)
        assert error.status == wanted["status"]
        assert error.type == wanted["type"]
        assert error.message == wanted["message"]
    check(recording, message)


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_over_http(recording: Body) -> None:
    """Every answer, in the pieces in which it was recorded, on asyncio."""
    check_answer(recording, "recorded", "asyncio")


@pytest.mark.parametrize("recording", params(STREAMS))
def test_cut_at_random_over_http(recording: Body) -> None:
    """Every stream, cut at random, on trio."""
    check_answer(recording, len(recording["id"]), "trio")


@pytest.mark.matrix
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("chunking", ["whole", "bytes", 1, 2, 3])
@pytest.mark.parametrize("recording", params(STREAMS))
def test_every_cut_over_http(recording: Body, chunking: Any, backend: str) -> None:
    """Every stream in every way of cutting, on both backends."""
    if chunking == "bytes" and len(recording["response"]["body_text"]) > 20_000:
        chunking = 4  # a write per byte takes seconds there, and shows no more
    check_answer(recording, chunking, backend)


@pytest.mark.parametrize("recording", params(REFUSED))
def test_errors(recording: Body) -> None:
    """Every HTTP error is the class of its status, with the vendor's type and message."""
    with ReplayServer([Exchange.from_recording(recording)]) as server:
        message, error = anyio.run(answer, recording, server.url)
    wanted = recording["expected"]["error"]
    assert message is None
    assert isinstance(error, ProviderError)
    assert error.status == recording["response"]["status"]
    assert isinstance(error, CLASSES.get(error.status, InvalidRequestError))
    if wanted and wanted.get("message"):
        assert wanted["message"][:200] in f"{error.message} {error.body}"
    if wanted and isinstance(wanted.get("type"), str):  # one vendor has a number there
        assert error.type == wanted["type"]


# ---- straight into the decoder ---------------------------------------------------------------


def decoded(recording: Body, chunking: Any) -> tuple[Any, list[Any]]:
    decoder = APIS[recording["api"]][2]()
    decoder._seed = "the same for all"  # calls without an id get one made of it
    body = recording["response"]["body_text"].encode()
    chunks = [chunk for piece in cut(body, chunking) for chunk in decoder.feed(piece)]
    return decoder, [*chunks, *decoder.close()]


@pytest.mark.parametrize("recording", params(STREAMS))
def test_any_cut_gives_the_same_chunks(recording: Body) -> None:
    """Byte by byte and at seeded cuts, the chunks are those of the whole, event for event."""
    whole, chunks = decoded(recording, "whole")
    for chunking in ("bytes", 1, 2, 3):
        decoder, again = decoded(recording, chunking)
        assert [chunk.events for chunk in again] == [chunk.events for chunk in chunks]
        assert type(decoder.error) is type(whole.error)
    folded = sum(chunks, AIMessageChunk())
    if whole.error is None:
        check(recording, folded.to_message())
