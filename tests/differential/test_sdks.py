"""The same bytes through the vendor's SDK and through streamfold say the same.

That is: text, reasoning, tool calls, finish reason, figures and errors. Every recorded exchange and
the samples of `wire/samples` are served over loopback HTTP to both. Where the two differ,
`DIFFERENT` says why. The SDKs are the dependency group `sdks` (`make test-sdks`); what is not
installed is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import anyio
import pytest
from sdks import READERS, Call, Said

from decoding import samples
from recordings import APIS, JOINED, RECORDINGS, Api, called
from streamfold.errors import StreamfoldError
from streamfold.messages import AIMessage
from streamfold.testing import Exchange, ReplayServer

_ERROR_IN_200 = (
    "the body of a 200 is an error: the SDK looks at the status alone and takes the body for an "
    "answer without fields; here it is an error with the vendor's words"
)
_PARTIAL_ARGS = (
    "arguments come in pieces (`partialArgs`), which the SDK hands over as they are, each as a "
    "call without a name; its documentation has the caller join them, here the decoder does"
)
_OWN_LISTS = (
    "Mistral's `content` is a list of parts while it thinks and a str afterwards; OpenAI's types "
    "know strs only, and the accumulator joins what it gets by `index`, which parts have not"
)
_NO_INDEX = (
    "the accumulator fails: lists in a delta must have an `index` for it, and this vendor's have "
    "none; the pieces are plain in the body"
)
_BLOCKED = (
    "a prompt that was blocked is an empty answer with `prompt_feedback` for the SDK; here it is a "
    "ContentFilterError, as the contract says, without a message where nothing was said"
)
_OPENROUTER = "openrouter-google-gemini-2-5-flash-lite-object-streaming-f59fa0cb"

#: Where the two differ: the exchange and what of it ("*": the SDK raises an exception), and why.
DIFFERENT: dict[tuple[str, str], str] = {
    ("openai_chat-error-whole", "*"): _ERROR_IN_200,
    ("anthropic-error-whole", "*"): _ERROR_IN_200,
    ("ollama-error-whole", "*"): _ERROR_IN_200,
    ("bedrock-error-whole", "*"): _ERROR_IN_200,
    ("cohere-error-whole", "*"): _ERROR_IN_200,
    ("gemini-error-whole", "error"): _ERROR_IN_200,
    ("openai_responses-error-whole", "finish"): (
        "the status `failed` is not the end of a message here but an error, which says more"
    ),
    ("openai_responses-error-stream", "*"): (
        "the SDK does not raise for an `error` event but hands it over, and no response follows"
    ),
    ("gemini-error-stream", "error"): (
        "the SDK takes the status from the body's `code`; here `status` is HTTP's, which was 200"
    ),
    ("cohere-error-stream", "text"): "the SDK reads on behind the error, where nothing is due",
    ("cohere-error-stream", "finish"): "the reason ERROR is the type of the error here",
    ("gemini-blocked-stream", "error"): _BLOCKED,
    ("gemini-blocked-whole", "error"): _BLOCKED,
    ("gemini-blocked-whole", "usage"): _BLOCKED,
    ("anthropic-length-stream", "tool_calls"): (
        "the SDK closes arguments that were cut off and shows what could be read; here they stay "
        "as they came, in `invalid_tool_calls`, because half a call must not be run"
    ),
    ("gemini-length-stream", "tool_calls"): _PARTIAL_ARGS,
    ("gemini-partial_args-stream", "tool_calls"): _PARTIAL_ARGS,
    ("gemini-google-stream-no-args-tool-call-d5fe2c3d", "tool_calls"): _PARTIAL_ARGS,
    (
        "vertex-gemini-ai-should-stream-generate-content-enabled-streamfunctioncallarguments-"
        "f7aa0326",
        "tool_calls",
    ): _PARTIAL_ARGS,
    ("groq-groq-model-web-search-tool-stream-c5b3dfc5", "usage"): (
        "Groq's figures are in a field of its own, `x_groq.usage`, which OpenAI's SDK does not read"
    ),
    ("mistral-mistral-reasoning-70882187", "text"): _OWN_LISTS,
    ("mistral-mistral-reasoning-70882187", "reasoning"): _OWN_LISTS,
    (
        "mistral-mistral-hybrid-reasoning-streams-thinking-separately-from-content-6a93dfdd",
        "text",
    ): _OWN_LISTS,
    (
        "mistral-mistral-hybrid-reasoning-streams-thinking-separately-from-content-6a93dfdd",
        "reasoning",
    ): _OWN_LISTS,
    ("mistral-mistral-reasoning-fca70c7c", "*"): _OWN_LISTS,
    (
        "mistral-ing-chat-completions-with-tool-call-response-emits-expected-spans-true-0ba5a11b",
        "*",
    ): _NO_INDEX,
    ("openrouter-openrouter-streaming-reasoning-b772eac9", "*"): _NO_INDEX,
    (_OPENROUTER, "tool_calls"): (
        "all calls come under index 0, each whole and with an id of its own; the accumulator joins "
        "them, ids included, into one, and calls with different ids never fuse here"
    ),
    **{
        (JOINED, field): (
            "the recording joined the streams of four requests in one body; the SDK reads to the "
            "end of the body, here the answer ends at its `response.completed`"
        )
        for field in ("text", "reasoning", "tool_calls", "usage")
    },
}


class Case(NamedTuple):
    """An answer as it is served, and how it is asked for. `to_sdk`: what the SDK gets instead."""

    id: str
    api: Api
    stream: bool
    exchange: Exchange
    to_sdk: Exchange


#: What a stream is served as.
STREAM_TYPES = {
    "bedrock": "application/vnd.amazon.eventstream",
    "ollama": "application/x-ndjson",
}


def _recorded() -> Iterator[Case]:
    for recording in RECORDINGS:
        exchange = Exchange.from_recording(recording)
        api, stream = APIS[recording["api"]], recording["stream"]
        yield Case(recording["id"], api, stream, exchange, _as_events(exchange, api, stream))


def _samples() -> Iterator[Case]:
    by_dialect = {api.dialect: api for api in APIS.values()}
    for sample in samples():
        api, name = by_dialect[sample.dialect], f"{sample.dialect}-{sample.case}"
        kind = STREAM_TYPES.get(sample.dialect, "text/event-stream")
        bodies = [(f"{name}-stream", True, kind, sample.stream)]
        if sample.whole is not None:
            bodies.append((f"{name}-whole", False, "application/json", sample.whole))
        for id, stream, kind, body in bodies:
            exchange = Exchange(headers={"content-type": kind}, body=body)
            yield Case(id, api, stream, exchange, _as_events(exchange, api, stream))


def _as_events(exchange: Exchange, api: Api, stream: bool) -> Exchange:
    """Gemini streams a JSON array to who does not ask for events; its SDK always asks for them."""
    if api.dialect != "gemini" or not stream or not exchange.body.startswith(b"["):
        return exchange
    payloads = json.loads(exchange.body)
    body = b"".join(b"data: %b\r\n\r\n" % json.dumps(payload).encode() for payload in payloads)
    return Exchange(exchange.status, {"content-type": "text/event-stream"}, body)


CASES = [*_samples(), *_recorded()]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server of all of them; the first two parts of the path say which is meant, and for whom."""

    def match(request: Any, exchange: Exchange) -> bool:
        _, who, number, *_ = request.path.split("/")
        case = CASES[int(number)]
        return exchange is (case.to_sdk if who == "sdk" else case.exchange)

    exchanges = [exchange for case in CASES for exchange in (case.exchange, case.to_sdk)]
    with ReplayServer(exchanges, chunking="whole", match=match) as server:
        yield server.url


def test_what_is_called_different_is_there() -> None:
    """In the samples, and in the recordings if they are here."""
    known = {case.id for case in CASES}
    fields = {"*", *Said.__struct_fields__}
    assert {field for _, field in DIFFERENT} <= fields
    if RECORDINGS:
        assert {id for id, _ in DIFFERENT} <= known


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("number", [pytest.param(n, id=case.id) for n, case in enumerate(CASES)])
def test_both_say_the_same(number: int, url: str) -> None:
    """Field by field; what `DIFFERENT` names does differ, so that nothing in it goes stale."""
    case = CASES[number]
    module, read = READERS[case.api.dialect]
    pytest.importorskip(module, reason=f"the vendor's SDK is not installed: {module}")
    different = {field for id, field in DIFFERENT if id == case.id}
    theirs_at, ours_at = (f"{url}/{who}/{number}" for who in ("sdk", "us"))
    if "*" in different:
        with pytest.raises(Exception):  # noqa: B017 (whatever the SDK fails with)
            read(theirs_at, case.stream)
        return
    theirs = read(theirs_at, case.stream)
    ours = said(*anyio.run(lambda: called(case.api, ours_at, stream=case.stream)))
    align(ours, theirs)
    found = {field for field in Said.__struct_fields__ if field not in different}
    assert {f: getattr(ours, f) for f in found} == {f: getattr(theirs, f) for f in found}
    for field in different:
        assert getattr(ours, field) != getattr(theirs, field), f"{field} does not differ any more"


def said(message: AIMessage | None, error: StreamfoldError | None) -> Said:
    """The message of streamfold in the terms of the SDKs."""
    message = message or AIMessage("")
    meta, blocks = message.response_metadata, message.content_blocks
    kinds = ("tool_call", "invalid_tool_call")
    return Said(
        text=message.text,
        reasoning="".join(b["reasoning"] for b in blocks if b["type"] == "reasoning"),
        tool_calls=[Call(b["id"], b["name"], b["args"]) for b in blocks if b["type"] in kinds],
        finish=meta.get("finish_reason", meta.get("stop_reason")),
        usage=meta.get("usage"),
        error=None if error is None else (getattr(error, "status", None), str(error.message)),
    )


def align(ours: Said, theirs: Said) -> None:
    """Take out what says nothing: ids that were made up where the wire has none, figures that are
    null, and those that the SDK has no field for."""
    for mine, call in zip(ours.tool_calls, theirs.tool_calls):
        if call.id is None:
            assert mine.id
            mine.id = None
    theirs.usage, usage = without_nulls(theirs.usage), without_nulls(ours.usage)
    known = theirs.usage if usage and theirs.usage else {}
    ours.usage = {k: v for k, v in usage.items() if k in known} if known else usage


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
