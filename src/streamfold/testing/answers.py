"""The values of the embedded provider: what was asked, and what to answer, in no vendor's words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from re import Pattern
from typing import Any, Literal, TypeAlias

import msgspec
import orjson

from streamfold.testing.prose import pieces, tokens
from streamfold.testing.server import Request

__all__ = [
    "Answer",
    "Call",
    "Dialect",
    "Failure",
    "Found",
    "Kind",
    "Prompt",
    "Rejected",
    "Tool",
    "Usage",
    "fingerprint",
    "ident",
    "number",
]

Finish: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "refusal", "pause"]

Kind: TypeAlias = Literal[
    "bad_request",
    "authentication",
    "permission",
    "not_found",
    "too_large",
    "context_overflow",
    "rate_limit",
    "quota",
    "server",
    "overloaded",
]

_KINDS: dict[int, Kind] = {
    401: "authentication",
    403: "permission",
    404: "not_found",
    413: "too_large",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}


class Failure(msgspec.Struct, frozen=True):
    """An error for the provider to answer with, in the vendor's own JSON shape.

    `kind` decides the vendor's type, code, status and usual message. `message` and `status`
    replace theirs where given. `retry_after`: seconds for the `retry-after` header; a rate limit
    without one says 1.
    """

    kind: Kind = "server"
    message: str = ""
    status: int = 0
    retry_after: float | None = None

    @classmethod
    def of_status(cls, status: int) -> Failure:
        """The failure that an HTTP status such as 429 stands for."""
        usual: Kind = "server" if status >= 500 else "bad_request"
        return cls(_KINDS.get(status, usual), status=status)


class Rejected(Exception):
    """Raised while a request is read: it gets `failure` instead of an answer."""

    def __init__(self, kind: Kind, message: str = "") -> None:
        super().__init__(message or kind)
        self.failure = Failure(kind, message)


class Usage(msgspec.Struct, frozen=True):
    """Token counts. `input` includes the cached ones, `output` the reasoning ones."""

    input: int = 0
    output: int = 0
    reasoning: int = 0
    cache_read: int = 0
    cache_creation: int = 0


class Call(msgspec.Struct, frozen=True):
    """A tool call. `args`: the arguments, or their raw text where it is no JSON object."""

    name: str
    args: dict[str, Any] | str = {}
    id: str = ""

    @property
    def text(self) -> str:
        """The arguments as they travel."""
        return (
            self.args if isinstance(self.args, str) else json.dumps(self.args, ensure_ascii=False)
        )


class Found(msgspec.Struct, frozen=True):
    """What a web search on the provider's side asked for and found. The text cites it."""

    query: str
    title: str
    url: str
    excerpt: str


class Answer(msgspec.Struct, frozen=True):
    """What the model says; empty parts are left out.

    `tool_calls`: `Call` values, or dicts of `name`, `args` and perhaps `id`.
    `finish`: normalised; by default "tool_calls" where there are calls, else "stop". With
    "refusal" the text is the refusal. `usage`: by default counted.
    `error`: a `Failure`, a kind such as "overloaded", or an HTTP status. Alone it is the whole
    answer; in a stream that has content it comes after the content, in band.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: list[Call | dict[str, Any]] = []
    finish: Finish | None = None
    usage: Usage | None = None
    error: Failure | Kind | int | None = None
    found: Found | None = None
    stopped_by: str | None = None

    @property
    def calls(self) -> list[Call]:
        """The tool calls, all as `Call` values."""
        return [
            msgspec.convert(call, Call) if isinstance(call, dict) else call
            for call in self.tool_calls
        ]

    @property
    def failure(self) -> Failure | None:
        """The error as a `Failure`."""
        if isinstance(self.error, int):
            return Failure.of_status(self.error)
        return Failure(self.error) if isinstance(self.error, str) else self.error

    @property
    def ending(self) -> Finish:
        """The finish reason, also where none was given."""
        return self.finish or ("tool_calls" if self.tool_calls else "stop")

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say, so that an error is the whole answer."""
        return not (self.text or self.reasoning or self.tool_calls or self.found)

    def counted(self, prompt: Prompt) -> Usage:
        """The usage given, else counted: a token is a word, or five characters of arguments."""
        if self.usage is not None:
            return self.usage
        reasoning = len(tokens(self.reasoning))
        arguments = sum(len(pieces(call.text)) for call in self.calls)
        search = len(tokens(self.found.query)) if self.found else 0
        output = reasoning + len(tokens(self.text)) + arguments + search
        return Usage(prompt.input_tokens, output, reasoning)


class Tool(msgspec.Struct, frozen=True):
    """A client-side tool of the request. `schema`: JSON schema of its arguments."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One request, read. What only its own dialect looks at is in `options`.

    `user`: the last text of the user. `context`: all instructions and user texts.
    `results`: the tool results the conversation ends with. `media`: how many images, files and so
    on came with the last user message.
    `choice`: "none", "auto", "any" or "one", which means the tool named `forced`.
    `schema`: the JSON schema the text must fit; `{}` asks for any JSON object, None for prose.
    """

    model: str
    seed: bytes
    user: str
    context: str = ""
    results: list[str] = []
    media: dict[str, int] = {}
    tools: list[Tool] = []
    choice: Literal["none", "auto", "any", "one"] = "auto"
    forced: str = ""
    parallel: bool = True
    search: bool = False
    schema: dict[str, Any] | None = None
    reasoning: bool = False
    max_tokens: int | None = None
    stop: list[str] = []
    input_tokens: int = 0
    stream: bool = False
    options: dict[str, Any] = {}


def _no_headers(failure: Failure) -> dict[str, str]:
    return {}


class Dialect(msgspec.Struct, frozen=True):
    """How one vendor's API is spoken: a row of `dialects.DIALECTS`.

    `route`: found in the path of a POST that is for this dialect.
    `read(request)`: raises `Rejected`. `whole(prompt, answer)`: the body of an answer that is not
    streamed. `stream(prompt, answer)`: the pieces of one that is.
    `failure(failure, model, request_id)`: status and body. `failure_headers(failure)`: what is
    said of it in headers.
    `request_id`: the name of the header that holds the request id.
    """

    name: str
    route: Pattern[str]
    read: Callable[[Request], Prompt]
    whole: Callable[[Prompt, Answer], bytes]
    stream: Callable[[Prompt, Answer], list[bytes]]
    failure: Callable[[Failure, str, str], tuple[int, bytes]]
    failure_headers: Callable[[Failure], dict[str, str]] = _no_headers
    request_id: str = "x-request-id"
    stream_type: str = "text/event-stream; charset=utf-8"


_HOW_TO_SEND = frozenset({"stream", "stream_options"})
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def fingerprint(dialect: str, body: dict[str, Any]) -> bytes:
    """What ids are made from: equal for equal requests, streamed or not."""
    asked = {key: value for key, value in body.items() if key not in _HOW_TO_SEND}
    text = orjson.dumps([dialect, asked], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=32).digest()


def number(seed: bytes, label: object, bound: int) -> int:
    """A number from 0 to `bound` - 1 that only depends on the arguments."""
    digest = hashlib.blake2b(repr(label).encode(), key=seed, digest_size=32).digest()
    return int.from_bytes(digest, "big") % bound


def ident(seed: bytes, label: object, length: int = 24) -> str:
    """An id of letters and digits that only depends on the arguments."""
    digits, rest = [], number(seed, label, len(_LETTERS) ** length)
    for _ in range(length):
        rest, digit = divmod(rest, len(_LETTERS))
        digits.append(_LETTERS[digit])
    return "".join(digits)
