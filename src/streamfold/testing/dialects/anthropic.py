"""Anthropic Messages, as the vendor's server speaks it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from streamfold.testing.answers import (
    Answer,
    Call,
    Dialect,
    Failure,
    Finish,
    Found,
    Kind,
    Prompt,
    Rejected,
    Tool,
    fingerprint,
    ident,
    number,
)
from streamfold.testing.prose import pieces, tokens
from streamfold.testing.server import Request

__all__ = ["DIALECT"]

# The API answers with the dated name of a model that was asked for by its alias.
_DATED = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-0": "claude-sonnet-4-20250514",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}


# The API itself, and Vertex AI, where the model is in the path.
_ROUTE = re.compile(r"/messages$|/anthropic/models/(?P<model>[^/]+):(?:streamR|r)awPredict$")


# -- the request


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]]


class _Body(msgspec.Struct):
    max_tokens: int
    messages: list[_Message]
    model: str = ""
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


def _read(request: Request) -> Prompt:
    raw = request.json()
    body = msgspec.convert(raw, _Body)
    asked = _ROUTE.search(request.path)
    model = (asked["model"] if asked else None) or body.model
    _check(body, model)
    last = body.messages[-1]
    user = next((m for m in reversed(body.messages) if _says_something(m)), last)
    tools = [Tool(t.name, t.description or "", t.input_schema or {}) for t in _client_tools(body)]
    choice, forced = _choice(body, tools)
    texts = [_text(body.system), *(_text(message.content) for message in body.messages)]
    media = _media(user)
    return Prompt(
        model=model,
        seed=fingerprint("anthropic", raw),
        user=_text(user.content),
        context="\n".join(texts),
        results=[_text(block.get("content")) for block in _blocks(last, "tool_result")],
        media=media,
        tools=tools,
        choice=choice,
        forced=forced,
        parallel=not (body.tool_choice or {}).get("disable_parallel_tool_use"),
        search=any((tool.type or "").startswith("web_search") for tool in body.tools or []),
        schema=_schema(body),
        reasoning=_thinks(body),
        max_tokens=body.max_tokens,
        stop=body.stop_sequences or [],
        input_tokens=_input_tokens(texts, raw.get("tools"), media, body.messages),
        stream=bool(body.stream),
    )


def _check(body: _Body, model: str) -> None:
    """What the real API refuses and clients get wrong."""
    roles = [message.role for message in body.messages]
    wrong = next((role for role in roles if role not in ("user", "assistant")), None)
    forces = (body.tool_choice or {}).get("type") in ("any", "tool")
    complaints = {
        "model: Field required": not model,
        "messages: at least one message is required": not roles,
        f'messages: Unexpected role "{wrong}". The Messages API accepts a top-level `system` '
        "parameter, not as a role.": wrong is not None,
        "max_tokens: Input should be greater than or equal to 1": body.max_tokens < 1,
        "Thinking may not be enabled when tool_choice forces tool use.": forces and _thinks(body),
    }
    for complaint, holds in complaints.items():
        if holds:
            raise Rejected("bad_request", complaint)


def _thinks(body: _Body) -> bool:
    return (body.thinking or {}).get("type") in ("enabled", "adaptive")


def _says_something(message: _Message) -> bool:
    """A user message that is not only tool results."""
    return message.role == "user" and bool(_text(message.content) or _media(message))


def _blocks(message: _Message, kind: str) -> list[dict[str, Any]]:
    content = message.content if isinstance(message.content, list) else []
    return [block for block in content if block.get("type") == kind]


def _text(content: Any) -> str:
    """The text of a string or of a list of blocks, whatever else is in it."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = [b.get("text") for b in content if isinstance(b, dict) and b.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


_MEDIA = {"image": "image", "document": "file"}


def _media(message: _Message) -> dict[str, int]:
    counts = {label: len(_blocks(message, kind)) for kind, label in _MEDIA.items()}
    return {label: count for label, count in counts.items() if count}


def _client_tools(body: _Body) -> list[_Tool]:
    return [tool for tool in body.tools or [] if tool.type in (None, "custom")]


_CHOICES: dict[str, Any] = {"none": "none", "auto": "auto", "any": "any", "tool": "one"}


def _choice(body: _Body, tools: list[Tool]) -> tuple[Any, str]:
    if body.tool_choice is None:
        return "auto", ""
    kind, name = body.tool_choice.get("type"), str(body.tool_choice.get("name", ""))
    if kind not in _CHOICES:
        expected = "'auto', 'any', 'tool', 'none'"
        message = f"tool_choice: Input tag '{kind}' does not match any of the expected tags: "
        raise Rejected("bad_request", message + expected)
    if not body.tools:
        raise Rejected("bad_request", "tool_choice: may only be specified while providing tools.")
    if kind == "tool" and name not in [tool.name for tool in tools]:
        raise Rejected(
            "bad_request", f"tool_choice.name: Tool '{name}' not found in provided tools"
        )
    return _CHOICES[kind], name if kind == "tool" else ""


def _schema(body: _Body) -> dict[str, Any] | None:
    form = (body.output_config or {}).get("format") or body.output_format
    if form is None:
        return None
    schema = form.get("schema")
    if form.get("type") != "json_schema" or not isinstance(schema, dict):
        raise Rejected("bad_request", "output_format.schema: Field required")
    return schema


def _input_tokens(
    texts: list[str], tools: Any, media: dict[str, int], messages: list[_Message]
) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    results = [_text(b.get("content")) for m in messages for b in _blocks(m, "tool_result")]
    words = sum(len(tokens(text)) for text in [*texts, *results])
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(messages) + 4 + definitions + 85 * sum(media.values())


# -- the answer: content blocks, each with the events it is streamed as

_FINISH: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
}


class _Block(msgspec.Struct):
    """`whole`: as it is in a message. `start`: as it begins in a stream; then its `deltas`."""

    whole: dict[str, Any]
    start: dict[str, Any]
    deltas: list[dict[str, Any]] = []


def _content(prompt: Prompt, answer: Answer) -> Iterator[_Block]:
    if answer.reasoning:
        yield _thinking(prompt, answer.reasoning)
    if answer.found:
        yield from _search(prompt, answer.found)
    if answer.text:
        yield _said(prompt, answer.text, answer.found)
    for index, call in enumerate(answer.calls):
        yield _tool_use(prompt, call, index)


def _thinking(prompt: Prompt, reasoning: str) -> _Block:
    signature = _sealed(prompt, "signature", 96)
    deltas = [{"type": "thinking_delta", "thinking": word} for word in tokens(reasoning)]
    deltas.append({"type": "signature_delta", "signature": signature})
    return _Block(
        {"type": "thinking", "thinking": reasoning, "signature": signature},
        {"type": "thinking", "thinking": "", "signature": ""},
        deltas,
    )


def _said(prompt: Prompt, text: str, found: Found | None) -> _Block:
    deltas = [{"type": "text_delta", "text": word} for word in tokens(text)]
    if found is None:
        return _Block({"type": "text", "text": text}, {"type": "text", "text": ""}, deltas)
    citation = {
        "type": "web_search_result_location",
        "cited_text": found.excerpt,
        "url": found.url,
        "title": found.title,
        "encrypted_index": _sealed(prompt, "index", 48),
    }
    return _Block(
        {"citations": [citation], "type": "text", "text": text},
        {"citations": [], "type": "text", "text": ""},
        [{"type": "citations_delta", "citation": citation}, *deltas],
    )


def _search(prompt: Prompt, found: Found) -> Iterator[_Block]:
    ident_ = "srvtoolu_01" + ident(prompt.seed, "search", 22)
    use = {"type": "server_tool_use", "id": ident_, "name": "web_search"}
    query = {"query": found.query}
    yield _Block(use | {"input": query}, use | {"input": {}}, _input_deltas(Call("", query).text))
    result = {
        "type": "web_search_result",
        "title": found.title,
        "url": found.url,
        "encrypted_content": _sealed(prompt, "content", 160),
        "page_age": None,
    }
    results = {"type": "web_search_tool_result", "tool_use_id": ident_, "content": [result]}
    yield _Block(results, results)


def _tool_use(prompt: Prompt, call: Call, index: int) -> _Block:
    ident_ = call.id or "toolu_01" + ident(prompt.seed, ("call", index), 22)
    use = {"type": "tool_use", "id": ident_, "name": call.name}
    # A whole message can only hold an object: arguments that were cut off are lost there.
    args = call.args if isinstance(call.args, dict) else _object(call.args)
    return _Block(use | {"input": args}, use | {"input": {}}, _input_deltas(call.text))


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _input_deltas(text: str) -> list[dict[str, Any]]:
    # The first piece is empty, and so is the only one of a tool without arguments.
    parts = ["", *(pieces(text) if text != "{}" else [])]
    return [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _sealed(prompt: Prompt, label: str, size: int) -> str:
    """Opaque base64, as the vendor signs and encrypts things."""
    noise = number(prompt.seed, label, 256**32).to_bytes(32, "big")
    return base64.b64encode((noise * (size // 32 + 1))[:size]).decode()


def _message(prompt: Prompt) -> dict[str, Any]:
    return {
        "model": _DATED.get(prompt.model, prompt.model),
        "id": "msg_01" + ident(prompt.seed, "message", 22),
        "type": "message",
        "role": "assistant",
    }


def _ending(answer: Answer) -> dict[str, Any]:
    reason = "stop_sequence" if answer.stopped_by else _FINISH[answer.ending]
    return {"stop_reason": reason, "stop_sequence": answer.stopped_by, "stop_details": None}


def _usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """The counts; this vendor's `input_tokens` leaves the cached ones out."""
    usage = answer.counted(prompt)
    counts: dict[str, Any] = {
        "input_tokens": usage.input - usage.cache_read - usage.cache_creation,
        "cache_creation_input_tokens": usage.cache_creation,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": usage.output,
    }
    if answer.reasoning:
        counts["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if answer.found:
        counts["server_tool_use"] = {"web_search_requests": 1, "web_fetch_requests": 0}
    return counts


def _tier(usage: dict[str, Any]) -> dict[str, Any]:
    """What usage says besides the counts wherever it is not the stream's last word."""
    created = usage["cache_creation_input_tokens"]
    split = {"ephemeral_5m_input_tokens": created, "ephemeral_1h_input_tokens": 0}
    return {"cache_creation": split, "service_tier": "standard"}


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    usage = _usage(prompt, answer)
    content = [block.whole for block in _content(prompt, answer)]
    message = {**_message(prompt), "content": content, **_ending(answer)}
    return orjson.dumps({**message, "usage": usage | _tier(usage)})


class _Stream:
    """One streamed answer being written."""

    def __init__(self, prompt: Prompt, answer: Answer) -> None:
        self.prompt = prompt
        self.answer = answer
        self.frames: list[bytes] = []

    def event(self, name: str, **fields: Any) -> None:
        data = orjson.dumps({"type": name, **fields})
        # The real server pads its objects with spaces, against guessing from lengths.
        padding = b" " * (self.prompt.seed[len(self.frames) % 32] % 16)
        self.raw(name, data[:-1] + padding + b"}")

    def raw(self, name: str, data: bytes) -> None:
        self.frames.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def start(self) -> None:
        usage = _usage(self.prompt, self.answer)
        counts = {k: v for k, v in usage.items() if k.startswith(("input", "cache"))}
        unfinished = dict.fromkeys(("stop_reason", "stop_sequence", "stop_details"))
        message = {**_message(self.prompt), "content": [], **unfinished}
        self.event(
            "message_start",
            message={**message, "usage": {**counts, **_tier(usage), "output_tokens": 1}},
        )

    def block(self, index: int, block: _Block) -> None:
        self.event("content_block_start", index=index, content_block=block.start)
        if index == 0:
            self.raw("ping", b'{"type": "ping"}')
        for delta in block.deltas:
            self.event("content_block_delta", index=index, delta=delta)
        self.event("content_block_stop", index=index)

    def end(self) -> None:
        usage = _usage(self.prompt, self.answer)
        self.event("message_delta", delta=_ending(self.answer), usage=usage)
        self.event("message_stop")


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    stream = _Stream(prompt, answer)
    stream.start()
    for index, block in enumerate(_content(prompt, answer)):
        stream.block(index, block)
    if answer.failure is None:
        stream.end()
    else:
        stream.raw("error", orjson.dumps(_error(answer.failure, prompt.model)))
    return stream.frames


# -- errors: status, type, usual message

_FAILURES: dict[Kind, tuple[int, str, str]] = {
    "bad_request": (400, "invalid_request_error", "The request is not valid."),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "permission": (
        403,
        "permission_error",
        "Your API key does not have permission to use the specified resource.",
    ),
    "not_found": (404, "not_found_error", "model: {model}"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "context_overflow": (
        400,
        "invalid_request_error",
        "prompt is too long: 200001 tokens > 200000 maximum",
    ),
    "rate_limit": (
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 50 requests per minute.",
    ),
    "quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "server": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
}


def _error(failure: Failure, model: str) -> dict[str, Any]:
    _status, kind, usual = _FAILURES[failure.kind]
    message = failure.message or usual.format(model=model)
    return {"type": "error", "error": {"type": kind, "message": message}}


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    body = {**_error(failure, model), "request_id": request_id}
    return failure.status or _FAILURES[failure.kind][0], orjson.dumps(body)


DIALECT = Dialect(
    name="anthropic",
    route=_ROUTE,
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
    request_id="request-id",
)
