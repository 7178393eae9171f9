"""Every recorded exchange with every provider, by the public API and straight into the decoder.

What each must say is computed by the vendor's own SDK (`expected`), never by us. Over loopback HTTP
each is sent whole, in the pieces in which it was recorded and cut at random, on asyncio and trio;
without HTTP it is fed byte by byte, at many cuts, cut short, and by both ways of the decoder. What
holds for one dialect only is in the files next to this one.
"""

from __future__ import annotations

import json
import random
import types
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from decoding import check_readable, decode, events_of
from recordings import (
    APIS,
    BY_HAND,
    JOINED,
    RECORDINGS,
    Body,
    answers,
    body_of,
    called,
    errors,
    model_of,
    needs_recordings,
    params,
    requests,
    streams,
    whole_of,
)
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

EXCHANGES = [Exchange.from_recording(recording) for recording in RECORDINGS]
PLACES = {recording["id"]: place for place, recording in enumerate(RECORDINGS)}

_OPENROUTER = "openrouter-google-gemini-2-5-flash-lite-object-streaming-f59fa0cb"

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
    (JOINED, "*"): (
        "the source joined the streams of four requests in one body: four `response.created` and "
        "four `response.completed` with an id each; the SDK reads the last, an answer is the first"
    ),
}

pytestmark = needs_recordings
each_stream = pytest.mark.parametrize("recording", params(streams()))
each_answer = pytest.mark.parametrize("recording", params(answers()))


def test_every_api_is_in_the_table() -> None:
    assert {recording["api"] for recording in RECORDINGS} == APIS.keys()


def test_what_is_called_wrong_is_there() -> None:
    assert {id for id, _ in WRONG} <= PLACES.keys()


def test_all_exchanges_are_there() -> None:
    """As many of each API as the corpus says: answers as streams, whole ones, and errors."""
    counts = {
        api: (len(streams(api)), len(answers(api)) - len(streams(api)), len(errors(api)))
        for api in APIS
    }
    assert counts == {
        "openai_chat": (98, 46, 16),
        "openai_responses": (34 + 4, 17, 7),
        "anthropic_messages": (26, 12, 5),
        "gemini": (22, 9, 5),
        "ollama_chat": (8, 4, 1),
        "bedrock_converse": (12, 5, 4),
        "cohere_chat": (4, 2, 1),
    }
    assert {r["id"] for r in answers() if r["expected"] is None} == BY_HAND.keys()
    asked = {api: len(requests(api)) for api in APIS}
    assert asked == {
        "openai_chat": 145,
        "openai_responses": 47,
        "anthropic_messages": 41,
        "gemini": 33,
        "ollama_chat": 10,
        "bedrock_converse": 21,
        "cohere_chat": 6,
    }


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
        "media_out": [b.get("mime_type") for b in blocks if b["type"] in MEDIA],
    }


MEDIA = ("image", "audio", "video")


def check(recording: Body, message: AIMessage) -> None:
    """`message` says what is expected of the recording, but for what is wrong there."""
    expected = recording["expected"]
    wrong = {field for id, field in WRONG if id == recording["id"]}
    if expected is None:  # the SDK fails on it, `oracle_error` says why
        check_by_hand(recording, message)
        return
    if "*" in wrong:
        return
    wanted = {"media_out": [], **expected, "reasoning": expected["reasoning"] or None}
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
    ids = [call["id"] for call in message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert "unknown_events" not in message.response_metadata
    if recording["api"] == "bedrock_converse" and wanted["usage"]:
        # botocore leaves out what is empty or not in its model of the API.
        found["usage"] = {k: v for k, v in found["usage"].items() if k in wanted["usage"]}
    if recording["api"] != "gemini":
        del found["media_out"]  # it is told of Gemini's only
    compared = [field for field in found if field not in wrong]
    assert {f: found[f] for f in compared} == {f: wanted.get(f) for f in compared}
    if expected["usage"] and "usage" not in wrong:
        assert message.usage_metadata == COUNTS[recording["api"]](expected["usage"])
    if expected["error"] is None:
        assert message.finish_reason == finish_of(recording["api"], expected)


def check_by_hand(recording: Body, message: AIMessage) -> None:
    calls = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
    assert calls == BY_HAND[recording["id"]]
    assert not message.invalid_tool_calls
    assert message.finish_reason == "tool_calls"
    usage = message.response_metadata["usage"]
    assert message.usage_metadata == COUNTS[recording["api"]](usage)


def finish_of(api: str, expected: Body) -> str | None:
    """The normalised finish reason."""
    raw = expected["stop_reason"]
    if expected.get("refusal"):
        return "refusal"
    if expected["tool_calls"] and raw in _STOPS.get(api, ()):
        return "tool_calls"
    return FINISHED[api][raw] if raw else None


#: Where the vendor has one word for an answer that is complete, calls or not.
_STOPS = {"openai_responses": ("completed",), "gemini": ("STOP",), "ollama_chat": ("stop",)}

FINISHED: dict[str, dict[str, str]] = {
    "openai_chat": {
        "stop": "stop",
        "eos": "eos",  # what nobody documents stays as it is
        "length": "length",
        "tool_calls": "tool_calls",
        "content_filter": "content_filter",
    },
    "openai_responses": {"completed": "stop", "max_output_tokens": "length"},
    "anthropic_messages": {
        "end_turn": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
        "refusal": "refusal",
    },
    "gemini": {"STOP": "stop", "MAX_TOKENS": "length"},
    "ollama_chat": {"stop": "stop", "length": "length"},
    "bedrock_converse": {
        "end_turn": "stop",
        "max_tokens": "length",
        "tool_use": "tool_calls",
        "guardrail_intervened": "content_filter",
    },
    "cohere_chat": {"COMPLETE": "stop", "MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"},
}


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


def _count_responses(raw: Body) -> Body:
    read, made = (raw.get(f"{kind}_tokens_details") or {} for kind in ("input", "output"))
    return _usage(
        raw["input_tokens"],
        raw["output_tokens"],
        raw["total_tokens"],
        {"cache_read": read.get("cached_tokens"), "cache_creation": read.get("cache_write_tokens")},
        {"reasoning": made.get("reasoning_tokens")},
    )


def _count_gemini(raw: Body) -> Body:
    """Prompt and tool results are read; thoughts are written."""
    into = raw.get("promptTokenCount", 0) + raw.get("toolUsePromptTokenCount", 0)
    out = raw.get("candidatesTokenCount", 0) + raw.get("thoughtsTokenCount", 0)

    def kinds(name: str) -> Body:
        return {each["modality"].lower(): each["tokenCount"] for each in raw.get(name, ())}

    return _usage(
        into,
        out,
        raw["totalTokenCount"],
        {"cache_read": raw.get("cachedContentTokenCount")}
        | {"tool_use": raw.get("toolUsePromptTokenCount")}
        | kinds("promptTokensDetails"),
        {"reasoning": raw.get("thoughtsTokenCount")} | kinds("candidatesTokensDetails"),
    )


def _count_ollama(raw: Body) -> Body:
    into, out = raw["prompt_eval_count"], raw["eval_count"]
    return _usage(into, out, into + out, {}, {})


def _count_bedrock(raw: Body) -> Body:
    read, made = raw.get("cacheReadInputTokens"), raw.get("cacheWriteInputTokens")
    into = raw["inputTokens"] + (read or 0) + (made or 0)
    details = {"cache_read": read, "cache_creation": made}
    return _usage(into, raw["outputTokens"], raw["totalTokens"], details, {})


def _count_cohere(raw: Body) -> Body:
    tokens = raw["tokens"]
    into, out = int(tokens["input_tokens"]), int(tokens["output_tokens"])
    return _usage(
        into,
        out,
        into + out,
        {"cache_read": raw.get("cached_tokens")},
        {"reasoning": tokens.get("reasoning_tokens")},
    )


COUNTS: dict[str, Callable[[Body], Body]] = {
    "openai_chat": _count_openai,
    "openai_responses": _count_responses,
    "anthropic_messages": _count_anthropic,
    "gemini": _count_gemini,
    "ollama_chat": _count_ollama,
    "bedrock_converse": _count_bedrock,
    "cohere_chat": _count_cohere,
}


def check_error(recording: Body, error: StreamfoldError | None) -> None:
    """The error is the vendor's: its class, its words and the status it came with."""
    wanted = (recording["expected"] or {}).get("error")
    if wanted is None:
        assert error is None, error
        return
    assert isinstance(error, ProviderError)
    assert error.status == wanted["status"]
    assert error.message == wanted["message"]
    if not str(wanted.get("type")).isdigit():  # three have the status there
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


def url_of(recording: Body, server: ReplayServer) -> str:
    return f"{server.url}/{PLACES[recording['id']]}"


async def replayed(recording: Body, server: ReplayServer) -> None:
    """Over HTTP the exchange says what is expected, and what the decoder says without HTTP."""
    api, url = APIS[recording["api"]], url_of(recording, server)
    message, error = await called(api, url, stream=recording["stream"])
    check_error(recording, error)
    if error is None:
        assert message is not None
        check_model(recording, message)
    check(recording, message or AIMessage(""))
    if message is not None:
        direct = whole_of(recording).message
        assert comparable(message) == comparable(direct)


def check_model(recording: Body, message: AIMessage) -> None:
    """Where the wire names no model, the one that was asked has answered."""
    if whole_of(recording).message.response_metadata.get("model_name") is None:
        asked = APIS[recording["api"]].model.partition(":")[2]
        assert message.response_metadata.pop("model_name") == asked


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
@pytest.mark.usefixtures("transport")
@each_answer
async def test_over_http(recording: Body, servers: Any) -> None:
    """Every answer: a stream folded, a body as it is; whole, as recorded, and cut at random."""
    for chunking in cuttings(recording, 1):
        await replayed(recording, servers(chunking))


@pytest.mark.anyio
@pytest.mark.parametrize("transport", ["aiohttp"], indirect=True)
@pytest.mark.parametrize("recording", params(answers()[::20]))
async def test_over_aiohttp(recording: Body, servers: Any, transport: str) -> None:
    """Some of them by the other transport; the matrix has them all."""
    await replayed(recording, servers("whole"))


@pytest.mark.usefixtures("transport")
@each_answer
def test_by_the_sync_methods(recording: Body, servers: Any) -> None:
    """`invoke` and `stream` say what the decoder says."""
    whole = whole_of(recording)
    if whole.error is not None:
        return
    with model_of(APIS[recording["api"]], url_of(recording, servers("whole"))) as model:
        if recording["stream"]:
            message = sum(model.stream("hi"), AIMessageChunk()).to_message()
        else:
            message = model.invoke("hi")
    assert comparable(message) == comparable(whole.message)


@pytest.mark.matrix
@pytest.mark.anyio
@pytest.mark.usefixtures("transport")
@each_stream
async def test_over_http_in_many_cuts(recording: Body, servers: Any) -> None:
    """The same at twenty seeds, and in pieces of one byte where that is not too long."""
    small = len(EXCHANGES[PLACES[recording["id"]]].body) < 20_000
    for chunking in [*(["bytes"] if small else []), *range(1, 21)]:
        await replayed(recording, servers(chunking))


REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
CLASSES: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitError,
}


@pytest.mark.anyio
@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("recording", params(errors()))
async def test_errors_over_http(recording: Body, stream: bool, servers: Any) -> None:
    """Every HTTP error is the class of its status, and holds the vendor's words."""
    api, url = APIS[recording["api"]], url_of(recording, servers("whole"))
    message, error = await called(api, url, stream=stream)
    assert message is None
    status = recording["response"]["status"]
    assert isinstance(error, ProviderError)
    kind = CLASSES.get(status, InvalidRequestError)
    if "API key not valid" in error.message:
        kind = AuthenticationError  # Google says so with a 400
    assert isinstance(error, kind)
    assert error.status == status
    assert error.retryable == (status == 429)
    headers = recording["response"]["headers"]
    known = [headers[name] for name in REQUEST_IDS if name in headers]
    if known and known[0] != "<REQUEST_ID>":  # scrubbed in the headers, and not in the body
        assert error.request_id == known[0]
    assert error.provider == APIS[recording["api"]].model.partition(":")[0]
    check_error(recording, error)
    if "maximum" in error.message and "tokens" in error.message:
        assert isinstance(error, ContextOverflowError)


# ---- straight into the decoder -------------------------------------------------------------------


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


@each_answer
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
    ways = [cut(body, "bytes"), *(cut(body, seed) for seed in range(1, 6))]
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


#: What begins the end of an answer: a stream that stops before it is broken.
ENDS = {
    "openai_responses": b'"status":',
    "gemini": b"finishReason",
    "ollama_chat": b'"done":true',
    "cohere_chat": b"finish_reason",
    "anthropic_messages": b"message_delta",
}


@each_stream
def test_a_stream_without_its_end(recording: Body) -> None:
    """Without the finish reason it is an error, however much came."""
    if recording["api"] not in ENDS or recording["id"] == JOINED:
        return
    body, end = body_of(recording), ENDS[recording["api"]]
    if whole_of(recording).error is None:
        decoded = decode(APIS[recording["api"]].dialect, body[: body.rindex(end)])
        assert isinstance(decoded.error, StreamInterruptedError)
