"""Every recorded exchange with every provider, by the public API and straight into the decoder.

What each must say is computed by the vendor's own SDK (`expected`), never by us. Over loopback HTTP
each is sent whole, in the pieces in which it was recorded and cut at random, on asyncio and trio;
without HTTP it is fed byte by byte, at many cuts, cut short, and by both ways of the decoder. The
recordings lie outside the repository; without them these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import random
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from decoding import Decoded, check_readable, decode, decode_whole, events_of
from streamfold import init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.deltas import BlockEnd, BlockStart, MessageEnd, MessageStart
from streamfold.errors import (
    AuthenticationError,
    ContextOverflowError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.messages import AIMessage
from streamfold.testing import Exchange, ReplayServer, cut
from streamfold.vendors import dialect
from streamfold.wire import codec

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[2].parent / "shared"
)
Body = dict[str, Any]


class Api(NamedTuple):
    """How an API is asked: its dialect, a model, what the base URL ends in, `use_responses_api`."""

    dialect: str
    model: str
    path: str = ""
    responses: bool | None = None


#: Each `api` of the recordings. A new dialect adds a row.
APIS: dict[str, Api] = {
    "openai_chat": Api("openai_chat", "openai:gpt-4.1", "/v1"),
    "openai_responses": Api("openai_responses", "openai:gpt-5", "/v1", True),
    "anthropic_messages": Api("anthropic", "anthropic:claude-sonnet-4-5"),
    "gemini": Api("gemini", "google_genai:gemini-2.5-flash"),
    "ollama_chat": Api("ollama", "ollama:llama3.2"),
    "bedrock_converse": Api("bedrock", "bedrock_converse:amazon.nova-lite-v1:0"),
    "cohere_chat": Api("cohere", "cohere:command-a-03-2025"),
}

RECORDINGS: list[Body] = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
]
EXCHANGES = [Exchange.from_recording(recording) for recording in RECORDINGS]
PLACES = {recording["id"]: place for place, recording in enumerate(RECORDINGS)}

_OPENROUTER = "openrouter-google-gemini-2-5-flash-lite-object-streaming-f59fa0cb"
_JOINED = "azure-openai-azure-reasoning-encrypted-content-1-f6b0ecf8"

#: Fields of exchanges that are wrong in the corpus ("*": all of them), each with its proof.
WRONG: dict[tuple[str, str], str] = {
    (_OPENROUTER, "tool_calls"): (
        "the oracle joins pieces by index alone (its name says: 'accumulator: RuntimeError: "
        "repeated id/name'); here each piece under index 0 has an id of its own and is a closed "
        "object, and calls with different ids never fuse"
    ),
    (_OPENROUTER, "usage"): (
        "the figures come in an event after the error that ends the answer; `expected` is to hold "
        "what came before it"
    ),
    (_JOINED, "*"): (
        "the source joined the streams of four requests in one body: four `response.created` and "
        "four `response.completed` with an id each; the SDK reads the last, an answer is the first"
    ),
}

pytestmark = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def params(recordings: list[Body]) -> list[Any]:
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


KNOWN = [r for r in RECORDINGS if r["api"] in APIS]
ANSWERS = [r for r in KNOWN if r["response"]["status"] == 200]
STREAMS = [r for r in ANSWERS if r["stream"]]
REFUSED = [r for r in KNOWN if r["response"]["status"] != 200]
each_stream = pytest.mark.parametrize("recording", params(STREAMS))


def test_every_api_is_in_the_table() -> None:
    assert {recording["api"] for recording in RECORDINGS} == APIS.keys()


def test_what_is_called_wrong_is_there() -> None:
    assert {id for id, _ in WRONG} <= PLACES.keys()


@pytest.fixture(autouse=True)
def _ids_that_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids made up for calls are the same in each decoding of the same answer."""
    fixed = types.SimpleNamespace(
        uuid4=lambda: uuid.UUID(int=1), uuid5=uuid.uuid5, NAMESPACE_OID=uuid.NAMESPACE_OID
    )
    monkeypatch.setattr(codec, "uuid", fixed)


# ---- what is expected ----------------------------------------------------------------------------


def said(message: AIMessage) -> Body:
    """A message in the terms of `expected`."""
    meta = message.response_metadata
    blocks = message.content_blocks
    calls: list[Body] = []
    for block in blocks:
        if block["type"] == "tool_call":
            calls.append({key: block[key] for key in ("id", "name", "args")})
        elif block["type"] == "invalid_tool_call":
            call = {key: block[key] for key in ("id", "name")}
            calls.append({**call, "args": None, "args_raw": block["args"]})
    reasoning = "".join(b["reasoning"] for b in blocks if b["type"] == "reasoning")
    return {
        "text": message.text,
        "reasoning": reasoning or None,
        "tool_calls": calls,
        "server_tool_calls": [b["name"] for b in blocks if b["type"] == "server_tool_call"],
        "stop_reason": meta.get("finish_reason", meta.get("stop_reason")),
        "usage": meta.get("usage"),
        "model": meta.get("model_name"),
        "refusal": meta.get("refusal"),
    }


def check(recording: Body, message: AIMessage) -> None:
    """`message` says what is expected of the recording, but for what is wrong there."""
    expected = recording["expected"]
    wrong = {field for id, field in WRONG if id == recording["id"]}
    if expected is None or "*" in wrong:  # None: the SDK fails on it, `oracle_error` says why
        return
    wanted = {**expected, "reasoning": expected["reasoning"] or None}
    wanted["tool_calls"] = [dict(call) for call in expected["tool_calls"]]
    found = said(message)
    for mine, call in zip(found["tool_calls"], wanted["tool_calls"]):
        if call["id"] is None:  # the wire has none, so one is made up
            assert mine["id"]
            call["id"] = mine["id"]
        custom = call.pop("custom", False)
        if custom and is_object(call["args_raw"]):
            # The input of a custom tool is given raw there; as it is an object, ours is read.
            call["args"] = json.loads(call.pop("args_raw"))
    if recording["api"] == "bedrock_converse" and wanted["usage"]:
        # botocore leaves out what is empty or not in its model of the API.
        found["usage"] = {k: v for k, v in found["usage"].items() if k in wanted["usage"]}
    compared = [field for field in found if field not in wrong]
    assert {f: found[f] for f in compared} == {f: wanted.get(f) for f in compared}
    count = COUNTS.get(recording["api"])
    if count is not None and expected["usage"] and "usage" not in wrong:
        assert message.usage_metadata == count(expected["usage"])


def is_object(raw: str) -> bool:
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _usage(into: int, out: int, total: int, read: Body, made: Body) -> Body:
    """Counts, and those details that were reported."""
    usage: Body = {"input_tokens": into, "output_tokens": out, "total_tokens": total}
    for name, details in (("input", read), ("output", made)):
        known = {key: value for key, value in details.items() if value is not None}
        if known:
            usage[f"{name}_token_details"] = known
    return usage


def _count_openai(raw: Body) -> Body:
    """OpenAI's figures and its followers', counted in another way than in the library."""
    read, made = (raw.get(f"{kind}_tokens_details") or {} for kind in ("prompt", "completion"))
    hidden = made.get("reasoning_tokens") or 0
    out, total = raw["completion_tokens"], raw["total_tokens"]
    if hidden and raw["prompt_tokens"] + out + hidden == total:
        out += hidden  # xAI: reasoning is in the total only
    cached = read.get("cached_tokens")
    for other in ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"):
        cached = raw.get(other) if cached is None else cached
    created = read.get("cache_write_tokens")
    created = raw.get("cache_creation_input_tokens") if created is None else created
    kinds = ("audio", "image", "video", "text")
    return _usage(
        raw["prompt_tokens"],
        out,
        total,
        {"cache_read": cached, "cache_creation": created}
        | {kind: read.get(f"{kind}_tokens") for kind in kinds},
        {"reasoning": made.get("reasoning_tokens")}
        | {kind: made.get(f"{kind}_tokens") for kind in kinds},
    )


def _count_anthropic(raw: Body) -> Body:
    read, made = raw.get("cache_read_input_tokens"), raw.get("cache_creation_input_tokens")
    into = raw["input_tokens"] + (read or 0) + (made or 0)
    thought = (raw.get("output_tokens_details") or {}).get("thinking_tokens")
    details = {"cache_read": read, "cache_creation": made}
    out = raw["output_tokens"]
    return _usage(into, out, into + out, details, {"reasoning": thought})


COUNTS: dict[str, Callable[[Body], Body]] = {
    "openai_chat": _count_openai,
    "anthropic_messages": _count_anthropic,
}


def check_error(recording: Body, error: StreamfoldError | None) -> None:
    """The error is the vendor's: its class, its words and the status it came with."""
    wanted = (recording["expected"] or {}).get("error")
    if wanted is None:
        assert error is None, error
        return
    assert isinstance(error, ProviderError)
    assert error.status == wanted["status"]
    assert wanted["message"][:200] in f"{error.message} {error.body}"
    if not str(wanted.get("type")).isdigit():  # two have the status there
        assert error.type == wanted.get("type")
    if wanted.get("code") is not None and error.code is not None:
        assert error.code == str(wanted["code"])


# ---- over HTTP -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[Any], ReplayServer]]:
    """A server for each way of cutting; the first part of the path says which exchange is meant."""
    running: dict[Any, ReplayServer] = {}

    def server(chunking: Any) -> ReplayServer:
        if chunking not in running:

            def match(request: Any, exchange: Exchange) -> bool:
                return exchange is EXCHANGES[int(request.path.split("/")[1])]

            running[chunking] = ReplayServer(EXCHANGES, chunking=chunking, match=match)
            running[chunking].__enter__()
        return running[chunking]

    yield server
    for started in running.values():
        started.__exit__(None, None, None)


async def called(
    recording: Body, server: ReplayServer
) -> tuple[AIMessage | None, StreamfoldError | None]:
    """The answer, or what had arrived and the error."""
    api = APIS[recording["api"]]
    url = f"{server.url}/{PLACES[recording['id']]}{api.path}"
    more = {} if api.responses is None else {"use_responses_api": api.responses}
    model = init_chat_model(api.model, base_url=url, api_key="test-key", max_retries=0, **more)
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


async def replayed(recording: Body, server: ReplayServer) -> None:
    """Over HTTP the exchange says what is expected, and what the decoder says without HTTP."""
    message, error = await called(recording, server)
    check_error(recording, error)
    if error is None:
        assert message is not None
    check(recording, message or AIMessage(""))
    if message is not None:
        direct = whole_of(recording).message
        assert comparable(message) == comparable(direct)


def comparable(message: AIMessage) -> Body:
    """All of a message but what its vendor's row says: the name, and the model that was asked."""
    fields = message.to_dict()
    named = ("model_provider", "model_name")
    meta = {k: v for k, v in fields.pop("response_metadata", {}).items() if k not in named}
    return {**fields, "response_metadata": meta}


def cuttings(recording: Body, seeds: int) -> list[Any]:
    """The ways in which an exchange is sent."""
    if not recording["stream"]:
        return ["whole"]
    recorded = ["recorded"] if recording["response"].get("chunk_sizes") else []
    return ["whole", *recorded, *range(1, seeds + 1)]


@pytest.mark.anyio
@pytest.mark.parametrize("recording", params(ANSWERS))
async def test_over_http(recording: Body, servers: Any) -> None:
    """Every answer: a stream folded, a body as it is; whole, as recorded, and cut at random."""
    for chunking in cuttings(recording, 1):
        await replayed(recording, servers(chunking))


@pytest.mark.matrix
@pytest.mark.anyio
@each_stream
async def test_over_http_in_many_cuts(recording: Body, servers: Any) -> None:
    """The same at twenty seeds, and in pieces of one byte where that is not too long."""
    small = len(EXCHANGES[PLACES[recording["id"]]].body) < 10_000
    for chunking in [*(["bytes"] if small else []), *range(1, 21)]:
        await replayed(recording, servers(chunking))


CLASSES: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}


@pytest.mark.anyio
@pytest.mark.parametrize("recording", params(REFUSED))
async def test_errors_over_http(recording: Body, servers: Any) -> None:
    """Every HTTP error is the class of its status, and holds the vendor's words."""
    message, error = await called(recording, servers("whole"))
    assert message is None
    status = recording["response"]["status"]
    assert isinstance(error, ProviderError)
    kind = CLASSES.get(status, InvalidRequestError)
    if "API key not valid" in error.message:
        kind = AuthenticationError  # Google says so with a 400
    assert isinstance(error, kind)
    assert error.status == status
    assert error.provider == APIS[recording["api"]].model.partition(":")[0]
    check_error(recording, error)
    if "maximum" in error.message and "tokens" in error.message:
        assert isinstance(error, ContextOverflowError)


# ---- straight into the decoder -------------------------------------------------------------------


def body_of(recording: Body) -> bytes:
    response = recording["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    return str(response["body_text"]).encode()


def whole_of(recording: Body) -> Decoded:
    """The whole body in one piece."""
    read = decode if recording["stream"] else decode_whole
    return read(APIS[recording["api"]].dialect, body_of(recording))


def one_event_a_read(recording: Body) -> list[bytes]:
    """The body, cut behind every blank line (or line, where a line is an event)."""
    body = body_of(recording).replace(b"\r\n", b"\n")
    separator = getattr(
        dialect(APIS[recording["api"]].dialect).Decoder.framer_type, "separator", b""
    )
    if not isinstance(separator, bytes) or not separator:
        return cut(body, 1)
    *events, rest = body.split(separator)
    return [*(event + separator for event in events), rest]


@pytest.mark.parametrize("recording", params(ANSWERS))
def test_it_can_be_stored_and_read_back(recording: Body) -> None:
    """Chunk and message, as JSON in UTF-8; and it says what is expected."""
    decoded = whole_of(recording)
    check_readable(decoded)
    check(recording, decoded.message)
    check_error(recording, decoded.error)


@each_stream
def test_cuts_do_not_matter(recording: Body) -> None:
    """Byte by byte, as recorded and at random cuts: the same chunks, event for event."""
    name, body = APIS[recording["api"]].dialect, body_of(recording)
    whole = whole_of(recording)
    sizes = recording["response"].get("chunk_sizes")
    ways = [cut(body, "bytes"), cut(body, 11), cut(body, 12)]
    if sizes:
        ways.append(cut(body, "recorded", sizes))
    for reads in ways:
        decoded = decode(name, reads)
        assert decoded.events == whole.events
        assert repr(decoded.error) == repr(whole.error)


@pytest.mark.matrix
@each_stream
def test_many_cuts_do_not_matter(recording: Body) -> None:
    """The same at a hundred seeds, by both ways of the decoder."""
    name, body = APIS[recording["api"]].dialect, body_of(recording)
    whole = whole_of(recording)
    for seed in range(100):
        decoded = decode(name, cut(body, seed), short_way=seed % 2 == 0)
        assert decoded.events == whole.events
        assert repr(decoded.error) == repr(whole.error)


@each_stream
def test_the_short_way_gives_what_the_complete_way_gives(recording: Body) -> None:
    """Chunk for chunk, where it is taken most: in reads of an event, and of several."""
    name = APIS[recording["api"]].dialect
    reads = one_event_a_read(recording)
    threes = [b"".join(reads[n : n + 3]) for n in range(0, len(reads), 3)]
    for way in (reads, threes):
        short, complete = decode(name, way), decode(name, way, short_way=False)
        assert short.events == complete.events
        assert repr(short.error) == repr(complete.error)


@each_stream
def test_as_many_events_as_were_sent(recording: Body) -> None:
    """No chunk for nothing: at most one for each data event, and one for the end."""
    expected = recording["expected"]
    chunks = whole_of(recording).chunks
    if expected is not None and expected["n_events"] is not None:
        assert len(chunks) <= expected["n_events"] + 1
    if expected is not None and (expected["text"] or expected["tool_calls"]):
        assert chunks


@each_stream
def test_the_order_of_events(recording: Body) -> None:
    """One start, one end; blocks open once, in the order of their numbers, and all end."""
    decoded = whole_of(recording)
    if decoded.error is not None:
        return
    events = events_of(decoded)
    kinds = [type(event) for event in events]
    assert kinds[0] is MessageStart
    assert MessageEnd in kinds
    opened = [event.index for event in events if isinstance(event, BlockStart)]
    numbers = list(dict.fromkeys(opened))
    assert numbers == sorted(n for n in numbers if n is not None)
    ended = [event.index for event in events if isinstance(event, BlockEnd)]
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(opened)


@each_stream
def test_the_laws_hold_for_what_was_recorded(recording: Body) -> None:
    """However the chunks are grouped and whatever is read in between, the sum is the same."""
    chunks = whole_of(recording).chunks
    total = sum(chunks, AIMessageChunk())
    rng = random.Random(recording["id"])
    for _ in range(3):
        groups: list[AIMessageChunk] = []
        left = list(chunks)
        while left:
            size = rng.randint(1, max(1, len(left)))
            groups.append(sum(left[:size], AIMessageChunk()))
            left = left[size:]
            _ = groups[-1].text, groups[-1].tool_calls
        grouped = sum(groups, AIMessageChunk())
        assert grouped == total
        assert grouped.to_message() == total.to_message()
        assert grouped.events == total.events


@each_stream
def test_a_stream_that_is_cut_short(recording: Body) -> None:
    """Behind any of its events: what came is kept, no half call is valid, and it is an error until
    the finish reason or the end marker is there."""
    name, whole = APIS[recording["api"]].dialect, whole_of(recording)
    if whole.error is not None:
        return
    full = whole.message
    reads = one_event_a_read(recording)
    rng = random.Random(recording["id"])
    for count in sorted(rng.sample(range(len(reads)), min(len(reads), 12))):
        decoded = decode(name, b"".join(reads[:count]))
        message = decoded.message
        assert full.text.startswith(message.text)
        known = [call["args"] for call in full.tool_calls]
        assert all(call["args"] in known for call in message.tool_calls)
        assert isinstance(
            decoded.error, StreamInterruptedError | StreamProtocolError | ProviderError | None
        )
        if decoded.error is None:
            assert message.text == full.text
            assert message.tool_calls == full.tool_calls
