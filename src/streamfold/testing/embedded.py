"""A provider inside the test: no key, no network, and the same answer every time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import msgspec
import orjson

from streamfold.testing.answers import (
    Answer,
    Dialect,
    Failure,
    Kind,
    Prompt,
    Rejected,
    ident,
)
from streamfold.testing.dialects import DIALECTS
from streamfold.testing.plan import plan
from streamfold.testing.server import LoopbackServer, Reply, Request

__all__ = ["EmbeddedProvider"]

_WRONG_KEY = "wrong"
_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")

# Models that exist to fail.
_FAILING_MODELS: dict[str, Kind] = {
    "missing": "not_found",
    "overloaded": "overloaded",
    "rate-limited": "rate_limit",
}

_WORTH_A_RETRY = frozenset({"rate_limit", "server", "overloaded"})


class EmbeddedProvider(LoopbackServer):
    """Speaks the vendors' wire protocols on a loopback port, streamed and whole.

        with EmbeddedProvider() as provider:
            model = init_chat_model("gpt-4.1", base_url=provider.url + "/v1", api_key="any")

    `POST .../chat/completions` (OpenAI; also Azure's deployment paths), `POST .../responses`
    (OpenAI) and `POST .../messages` (Anthropic), with or without `/v1`: OpenAI clients take
    `provider.url + "/v1"` as their base URL, Anthropic clients `provider.url`. `POST /api/chat`
    (Ollama), `POST /v2/chat` (Cohere).
    `POST /model/.../converse` and `/converse-stream` (Bedrock).
    `POST .../models/...:generateContent` and `:streamGenerateContent` (Gemini, on Vertex AI too):
    clients take `provider.url + "/v1beta"`. It refuses what the real API refuses: unknown fields,
    calls without their results or, with Gemini 3 and later, without a signature.

    `script`: answers to give out first, one a call, in order: `Answer` values, or strings for
    their text. They are sent as they are: limits and stop words do not apply. Rejected requests
    take none. `chunk_delay`: seconds before each event of a stream but the first. `first_delay`:
    seconds before every answer begins. `request_log=False` keeps no `requests`. The rest is
    `LoopbackServer`'s: `url`, `requests`, `connections`, `wait_closed()` and so on.

    The rules after the script; equal requests get equal answers, ids too, streamed or not:

    - Text: a few sentences about the last user text, in Russian where it has Cyrillic letters;
      a token is a word of up to twelve characters, and a delta is a token. Images and files are
      counted in it ("1 image").
    - Tools, unless the choice is "none" or (with "auto") the conversation ends with tool
      results: calls of the tool whose name and description are nearest to the prompt, else the
      first; one for each proper noun of the prompt, at most four; only one if parallel calls are
      off, a tool is forced, or the arguments would be the same. Arguments fit the tool's schema
      (see `examples.example`) and come in pieces of five characters.
    - Structured output: JSON that fits the schema. JSON mode: fits the first JSON schema that the
      messages contain, else `{"answer": ...}`.
    - Tool results at the end: a text that quotes them.
    - A web search tool (Anthropic, OpenAI Responses, Gemini): a search, its result, and a text
      that cites it.
    - Reasoning before the answer where `reasoning_effort`, the effort of `reasoning` (OpenAI; not
      "none"), `thinking` (Anthropic; enabled or adaptive) or `includeThoughts` (Gemini) asks for
      it, always with its text. Log probabilities where asked for (OpenAI, Gemini).
    - Usage: tokens of the texts, three more a message and four a request, 85 an image, and five
      characters of tool definitions or arguments are a token. Nothing is ever cached.
    - The token limit cuts reasoning, text and arguments, in this order; stop words cut the text.
    - Errors in the vendor's shape: the key "wrong" (401, Gemini 400), the models "missing" (404),
      "overloaded" (503, Anthropic 529) and "rate-limited" (429, retry-after 1), and requests
      that cannot be read (400). Every other key is accepted, and none as well.
    """

    def __init__(
        self,
        script: Iterable[Answer | str] | None = None,
        *,
        chunk_delay: float = 0.0,
        first_delay: float = 0.0,
        request_log: bool = True,
    ) -> None:
        super().__init__(self._respond, request_log=request_log)
        # One thread calls the handler, so an iterator is all the bookkeeping there is.
        self._script: Iterator[Answer | str] = iter(list(script or ()))
        self._chunk_delay = chunk_delay
        self._first_delay = first_delay

    def _respond(self, request: Request) -> Reply:
        dialect = next((d for d in DIALECTS if d.route.search(request.path)), None)
        if dialect is None or request.method != "POST":
            return _unknown(request)
        try:
            prompt = _read(dialect, request)
        except Rejected as rejected:
            return self._failed(dialect, rejected.failure, _model(dialect, request), request.body)
        answer = self._next_answer(prompt)
        if answer.failure is not None and (answer.is_empty or not prompt.stream):
            return self._failed(dialect, answer.failure, prompt.model, prompt.seed)
        return (
            self._streamed(dialect, prompt, answer)
            if prompt.stream
            else self._whole(dialect, prompt, answer)
        )

    def _next_answer(self, prompt: Prompt) -> Answer:
        scripted = next(self._script, None)
        if scripted is None:
            return plan(prompt)
        return Answer(scripted) if isinstance(scripted, str) else scripted

    def _streamed(self, dialect: Dialect, prompt: Prompt, answer: Answer) -> Reply:
        events = dialect.stream(prompt, answer)
        kind = prompt.options.get("stream_type", dialect.stream_type)
        return Reply(
            headers=_headers(dialect, prompt.seed, kind),
            body=events,
            delays=[0.0] + [self._chunk_delay] * (len(events) - 1),
            head_delay=self._first_delay,
            chunked=True,
        )

    def _whole(self, dialect: Dialect, prompt: Prompt, answer: Answer) -> Reply:
        return Reply(
            headers=_headers(dialect, prompt.seed, "application/json"),
            body=dialect.whole(prompt, answer),
            head_delay=self._first_delay,
        )

    def _failed(self, dialect: Dialect, failure: Failure, model: str, seed: bytes) -> Reply:
        headers = _headers(dialect, seed, "application/json")
        status, body = dialect.failure(failure, model, headers[dialect.request_id])
        headers |= dialect.failure_headers(failure)
        headers["x-should-retry"] = "true" if failure.kind in _WORTH_A_RETRY else "false"
        wait = failure.retry_after
        if wait is None and failure.kind == "rate_limit":
            wait = 1
        if wait is not None:
            headers["retry-after"] = f"{wait:g}"
        return Reply(status=status, headers=headers, body=body, head_delay=self._first_delay)


def _read(dialect: Dialect, request: Request) -> Prompt:
    if _key(request) == _WRONG_KEY:
        raise Rejected("authentication")
    try:
        prompt = dialect.read(request)
    except msgspec.ValidationError as error:
        raise Rejected("bad_request", str(error)) from error
    except ValueError as error:
        raise Rejected(
            "bad_request", "We could not parse the JSON body of your request."
        ) from error
    if prompt.model in _FAILING_MODELS:
        raise Rejected(_FAILING_MODELS[prompt.model])
    return prompt


def _key(request: Request) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    named = (request.headers.get(name, "") for name in _KEY_HEADERS)
    return next((key for key in (bearer, *named) if key), request.query.get("key", ""))


def _model(dialect: Dialect, request: Request) -> str:
    """The model that a rejected request names, for the error's message."""
    found = dialect.route.search(request.path)
    in_path = found.groupdict().get("model") if found else None
    if in_path:
        return in_path
    try:
        body = request.json()
    except ValueError:
        return ""
    return str(body.get("model", "")) if isinstance(body, dict) else ""


def _headers(dialect: Dialect, seed: bytes, content_type: str) -> dict[str, str]:
    request_id = "req_" + ident(blake2b(seed, digest_size=32).digest(), "request", 24)
    return {"content-type": content_type, dialect.request_id: request_id}


def _unknown(request: Request) -> Reply:
    message = f"Unknown request URL: {request.method} {request.path}."
    error = {"message": message, "type": "invalid_request_error", "code": "unknown_url"}
    return Reply(
        status=404,
        headers={"content-type": "application/json"},
        body=orjson.dumps({"error": {**error, "param": None}}),
    )
