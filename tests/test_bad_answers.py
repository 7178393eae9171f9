"""Answers that cannot be right, of every dialect.

An error of the tree with the status, the vendor's type and words, and what had arrived; or, where
nothing is lost, the answer all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from decoding import Sample, samples, wire
from recordings import APIS, Api, model_of
from streamfold import errors, init_chat_model
from streamfold.errors import (
    ContentFilterError,
    NotFoundError,
    OverloadedError,
    ProviderError,
    ServerError,
    StreamfoldError,
    StreamProtocolError,
)
from streamfold.messages import AIMessage, AIMessageChunk
from streamfold.testing import Exchange, ReplayServer
from streamfold.vendors import DIALECTS
from streamfold.wire.eventstream import encode_message

BY_DIALECT = {api.dialect: api for api in APIS.values()}
TEXTS = {sample.dialect: sample for sample in samples("text")}
BROKEN = {sample.dialect: sample for sample in samples("error")}

each_dialect = pytest.mark.parametrize("dialect", DIALECTS)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["invoke", "stream"])

STREAM_TYPES = {
    "bedrock": "application/vnd.amazon.eventstream",
    "ollama": "application/x-ndjson",
}


def streamed(dialect: str, body: bytes) -> Exchange:
    kind = STREAM_TYPES.get(dialect, "text/event-stream")
    return Exchange(headers={"content-type": kind}, body=body)


def replied(body: Any, status: int = 200, **headers: str) -> Exchange:
    """A body that is not a stream."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = {"content-type": "application/json"}
    return Exchange(status=status, headers={**kind, **headers}, body=data)


def asked(model: Any, stream: bool) -> AIMessage:
    if not stream:
        message: AIMessage = model.invoke("hi")
        return message
    full: AIMessage = sum(model.stream("hi"), AIMessageChunk()).to_message()
    return full


def answer(api: Api, exchange: Exchange, *, stream: bool) -> AIMessage:
    with ReplayServer([exchange]) as server, model_of(api, server.url) as model:
        return asked(model, stream)


def refused(api: Api, exchange: Exchange, *, stream: bool) -> StreamfoldError:
    with pytest.raises(StreamfoldError) as caught:
        answer(api, exchange, stream=stream)
    return caught.value


# ---- a model that the vendor does not have -------------------------------------------------------


class Missing(NamedTuple):
    """What a vendor answers, with 404, for a model that it does not have."""

    body: Any
    says: str
    type: str | None
    headers: Mapping[str, str] = MappingProxyType({})


MISSING: dict[str, Missing] = {
    "openai_chat": Missing(
        {"error": {
            "message": "The model `m` does not exist or you do not have access to it.",
            "type": "invalid_request_error", "param": None, "code": "model_not_found"}},
        "`m` does not exist", "invalid_request_error"),
    "openai_responses": Missing(
        {"error": {"message": "The requested model 'm' does not exist.",
                   "type": "invalid_request_error", "param": "model", "code": "model_not_found"}},
        "'m' does not exist", "invalid_request_error"),
    "anthropic": Missing(
        {"type": "error", "error": {"type": "not_found_error", "message": "model: m"},
         "request_id": "req_1"},
        "model: m", "not_found_error"),
    "gemini": Missing(
        {"error": {"code": 404, "message": "models/m is not found for API version v1beta",
                   "status": "NOT_FOUND"}},
        "models/m is not found", "NOT_FOUND"),
    "ollama": Missing({"error": "model 'm' not found"}, "model 'm' not found", None),
    "bedrock": Missing(
        {"message": "Could not resolve the foundation model from the provided model identifier."},
        "Could not resolve the foundation model", "ResourceNotFoundException",
        {"x-amzn-errortype": "ResourceNotFoundException:http://internal.amazon.com/"}),
    "cohere": Missing(
        {"id": "x", "message": "model 'm' not found, make sure the correct model ID was used"},
        "model 'm' not found", None),
}  # fmt: skip


@both_ways
@each_dialect
def test_a_model_that_is_not_there(dialect: str, stream: bool) -> None:
    """The vendor's words, and which model was asked for; it is asked once."""
    missing = MISSING[dialect]
    exchanges = [replied(missing.body, 404, **missing.headers)] * 2
    api = BY_DIALECT[dialect]
    with ReplayServer(exchanges) as server:
        with model_of(api, server.url) as model, pytest.raises(NotFoundError) as caught:
            asked(model.model_copy(update={"max_retries": 2}), stream)
        assert len(server.requests) == 1
    error = caught.value
    assert missing.says in str(error)
    assert (error.status, error.type) == (404, missing.type)
    assert error.model == api.model.partition(":")[2]
    assert error.partial is None


# ---- another form than was asked for -------------------------------------------------------------


@each_dialect
def test_json_where_a_stream_was_asked(dialect: str) -> None:
    """An answer all the same, in one piece."""
    sample, api = TEXTS[dialect], BY_DIALECT[dialect]
    assert sample.whole is not None
    exchange = replied(sample.whole)
    assert answer(api, exchange, stream=True) == answer(api, exchange, stream=False)


@each_dialect
def test_a_stream_where_json_was_asked(dialect: str) -> None:
    """An answer all the same, folded."""
    sample, api = TEXTS[dialect], BY_DIALECT[dialect]
    exchange = streamed(dialect, sample.stream)
    message = answer(api, exchange, stream=False)
    assert message == answer(api, exchange, stream=True)
    assert message.text == sample.expected["text"]


PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Wi-Fi</body></html>"


@both_ways
@each_dialect
@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/json", ""])
def test_a_web_page(dialect: str, stream: bool, kind: str) -> None:
    """Of a proxy, a portal or a wrong address, whatever it says that it is."""
    exchange = Exchange(headers={"content-type": kind} if kind else {}, body=PAGE)
    error = refused(BY_DIALECT[dialect], exchange, stream=stream)
    assert isinstance(error, StreamProtocolError)
    assert error.partial is None
    assert "<!doctype html>" in str(error) or "web page" in str(error)


@both_ways
@each_dialect
def test_a_web_page_of_a_gateway(dialect: str, stream: bool) -> None:
    """A 502 is the server's error, and may be tried again."""
    exchange = Exchange(status=502, headers={"content-type": "text/html"}, body=PAGE)
    error = refused(BY_DIALECT[dialect], exchange, stream=stream)
    assert isinstance(error, ServerError)
    assert (error.status, error.retryable, error.partial) == (502, True, None)
    assert "Sign in" in str(error)
    assert error.body == PAGE.decode()


# ---- errors inside an answer ---------------------------------------------------------------------


def error_alone(sample: Sample) -> bytes:
    """The stream of a sample without all that comes before its error."""
    end = b"\n" if sample.dialect == "ollama" else b"\n\n"
    parts = sample.text.split(end)
    words = sample.expected["error"][1].encode()
    return wire(sample.dialect, b"".join(part + end for part in parts if words in part))


@both_ways
@each_dialect
def test_an_error_before_anything_was_said(dialect: str, stream: bool) -> None:
    sample = BROKEN[dialect]
    kind, words = sample.expected["error"]
    error = refused(BY_DIALECT[dialect], streamed(dialect, error_alone(sample)), stream=stream)
    assert type(error) is getattr(errors, kind)
    assert isinstance(error, ProviderError)
    assert (error.status, error.message, error.partial) == (200, words, None)
    assert error.retryable


@both_ways
@each_dialect
def test_an_error_after_something_was_said(dialect: str, stream: bool) -> None:
    """The same class, and what had arrived."""
    sample = BROKEN[dialect]
    kind, words = sample.expected["error"]
    error = refused(BY_DIALECT[dialect], streamed(dialect, sample.stream), stream=stream)
    assert type(error) is getattr(errors, kind)
    assert error.message == words
    assert error.partial is not None
    assert (error.partial.text, error.partial.finish_reason) == ("Half an", "error")


def frame(payload: Any, **headers: str) -> bytes:
    return encode_message({f":{k.replace('_', '-')}": v for k, v in headers.items()},
                          json.dumps(payload).encode())  # fmt: skip


HALF = frame({"contentBlockIndex": 0, "delta": {"text": "Half an"}},
             message_type="event", event_type="contentBlockDelta")  # fmt: skip
EXCEPTIONS = [
    ("throttlingException", "RateLimitError"),
    ("modelStreamErrorException", "ServerError"),
    ("internalServerException", "ServerError"),
    ("serviceUnavailableException", "OverloadedError"),
    ("validationException", "InvalidRequestError"),
]


@both_ways
@pytest.mark.parametrize("before", [b"", HALF], ids=["first", "after text"])
@pytest.mark.parametrize(("type", "kind"), EXCEPTIONS)
def test_an_exception_frame(type: str, kind: str, before: bytes, stream: bool) -> None:
    """Bedrock's exceptions, each with its class, type and words."""
    body = before + frame({"message": "It broke."}, message_type="exception", exception_type=type)
    error = refused(BY_DIALECT["bedrock"], streamed("bedrock", body), stream=stream)
    assert error.__class__.__name__ == kind
    assert isinstance(error, ProviderError)
    assert (error.type, error.message) == (type, "It broke.")
    assert (error.partial and error.partial.text) == ("Half an" if before else None)


@both_ways
@pytest.mark.parametrize("before", [b"", HALF], ids=["first", "after text"])
@pytest.mark.parametrize("place", [9, 20, -6, -1])
def test_a_checksum_that_is_wrong(before: bytes, place: int, stream: bool) -> None:
    """A bit of Bedrock's frame has changed on the way: in the lengths, headers, data or sum."""
    broken = bytearray(HALF)
    broken[place] ^= 1
    exchange = streamed("bedrock", before + bytes(broken))
    error = refused(BY_DIALECT["bedrock"], exchange, stream=stream)
    assert isinstance(error, StreamProtocolError)
    assert "checksum" in str(error).lower()
    assert (error.partial and error.partial.text) == ("Half an" if before else None)


# ---- what Gemini says of an answer that is none --------------------------------------------------

GEMINI = BY_DIALECT["gemini"]
USAGE = {"promptTokenCount": 4, "totalTokenCount": 4}


def gemini(*payloads: dict[str, Any], stream: bool) -> Exchange:
    if not stream:
        (payload,) = payloads
        return replied(payload)
    body = b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in payloads)
    return streamed("gemini", body)


@both_ways
@pytest.mark.parametrize("told", [None, "It is about parrots."])
def test_a_blocked_prompt(told: str | None, stream: bool) -> None:
    feedback = {"blockReason": "PROHIBITED_CONTENT"} | (
        {"blockReasonMessage": told} if told else {}
    )
    payload = {"promptFeedback": feedback, "usageMetadata": USAGE, "modelVersion": "m"}
    error = refused(GEMINI, gemini(payload, stream=stream), stream=stream)
    assert isinstance(error, ContentFilterError)
    assert (error.status, error.type, error.retryable) == (200, "PROHIBITED_CONTENT", False)
    assert error.message == (told or "the prompt was blocked: PROHIBITED_CONTENT")


@both_ways
@pytest.mark.parametrize("said", ["", "Half an"])
@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"])
def test_a_call_that_went_wrong(reason: str, said: str, stream: bool) -> None:
    """The model wrote a call that Gemini cannot read: no answer, and another try may go well."""
    words = "Malformed function call: print(default_api.f(a=1)"
    candidate: dict[str, Any] = {"finishReason": reason, "finishMessage": words, "index": 0}
    if said:
        candidate["content"] = {"role": "model", "parts": [{"text": said}]}
    payload = {"candidates": [candidate], "usageMetadata": USAGE, "modelVersion": "m"}
    error = refused(GEMINI, gemini(payload, stream=stream), stream=stream)
    assert isinstance(error, ServerError)
    assert (error.status, error.type, error.message) == (200, reason, words)
    assert error.retryable
    assert ((error.partial and error.partial.text) or "") == said


@both_ways
@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "BLOCKLIST", "SPII"])
def test_an_answer_that_a_filter_ended(reason: str, stream: bool) -> None:
    """It is a message, with that reason."""
    candidate = {
        "content": {"role": "model", "parts": [{"text": "Once "}]},
        "finishReason": reason,
    }
    message = answer(GEMINI, gemini({"candidates": [candidate]}, stream=stream), stream=stream)
    assert (message.text, message.finish_reason) == ("Once ", "content_filter")
    assert message.response_metadata["finish_reason"] == reason


# ---- statuses and codes that mean a filter, or no room -------------------------------------------

AZURE = {"error": {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content "
    "management policy.", "type": None, "param": "prompt", "code": "content_filter", "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation"}}}  # fmt: skip

FILTERED: list[tuple[str, int, Any, type[ProviderError], str]] = [
    ("openai:gpt-4.1", 400, AZURE, ContentFilterError, "content management policy"),
    ("cohere:command-r", 498, {"message": "a denied token"}, ContentFilterError, "a denied token"),
    ("groq:llama", 498, {"error": {"message": "no capacity"}}, OverloadedError, "no capacity"),
]


@both_ways
@pytest.mark.parametrize(("name", "status", "body", "kind", "words"), FILTERED)
def test_what_a_status_means(
    name: str, status: int, body: Any, kind: type[ProviderError], words: str, stream: bool
) -> None:
    """A blocked prompt is one whoever blocks it; a vendor's own status has the vendor's meaning."""
    with ReplayServer([replied(body, status)]) as server:
        model = init_chat_model(name, base_url=server.url, api_key="k", max_retries=0)
        with pytest.raises(kind, match=words) as caught:
            asked(model, stream)
        model.close()
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.retryable == (kind is OverloadedError)
