"""Cohere's chat API, version 2, as the vendor's server speaks it."""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec
import orjson

from streamfold.testing.answers import (
    Answer,
    Call,
    Dialect,
    Failure,
    Finish,
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


# -- the request


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | None = None
    response_format: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    documents: list[str | dict[str, Any]] | None = None
    logprobs: bool | None = None


def _read(request: Request) -> Prompt:
    raw = request.json()
    body = msgspec.convert(raw, _Body)
    _check(body)
    user = next((m for m in reversed(body.messages) if m.role == "user"), _Message("user"))
    texts = [_text(message) for message in body.messages]
    said = (t for t, m in zip(texts, body.messages) if m.role != "assistant")
    media = _media(user, body)
    return Prompt(
        model=body.model,
        seed=fingerprint("cohere", raw),
        user=_text(user),
        context="\n".join(said),
        results=_results(body.messages),
        media=media,
        tools=[_client_tool(tool.function) for tool in body.tools or ()],
        choice=_CHOICES[body.tool_choice],
        schema=_schema(body.response_format),
        reasoning=(body.thinking or {}).get("type") == "enabled",
        max_tokens=body.max_tokens,
        stop=body.stop_sequences or [],
        input_tokens=_input_tokens(texts, raw.get("tools"), media),
        stream=bool(body.stream),
        options={
            "logprobs": bool(body.logprobs),
            "documents": [_document(document) for document in body.documents or ()],
        },
    )


_ROLES = ("user", "assistant", "system", "tool")
_CHOICES: dict[str | None, Any] = {None: "auto", "REQUIRED": "any", "NONE": "none"}


def _check(body: _Body) -> None:
    """What the real API refuses and clients get wrong."""
    wrong = next((m.role for m in body.messages if m.role not in _ROLES), None)
    empty = any(m.role == "assistant" and not (m.content or m.tool_calls) for m in body.messages)
    complaints = {
        "invalid request: list of messages must be nonempty": not body.messages,
        f"invalid request: '{wrong}' is not a valid role": wrong is not None,
        "invalid request: an assistant message must have either content or tool_calls": empty,
        f"invalid request: tool_choice '{body.tool_choice}' must be REQUIRED or NONE": (
            body.tool_choice not in _CHOICES
        ),
        "invalid request: tool_choice REQUIRED needs tools": (
            body.tool_choice == "REQUIRED" and not body.tools
        ),
    }
    for complaint, holds in complaints.items():
        if holds:
            raise Rejected("bad_request", complaint)


def _text(message: _Message) -> str:
    """The text of a message; documents in a tool result are told as their fields."""
    if not isinstance(message.content, list):
        return message.content or ""
    texts = [part.get("text") for part in message.content if part.get("type") == "text"]
    held = [part["document"] for part in message.content if part.get("type") == "document"]
    documents = [" ".join(map(str, document.get("data", {}).values())) for document in held]
    return "\n".join(text for text in [*texts, *documents] if isinstance(text, str))


def _media(user: _Message, body: _Body) -> dict[str, int]:
    parts = user.content if isinstance(user.content, list) else []
    images = sum(part.get("type") == "image_url" for part in parts)
    counts = {"image": images, "file": len(body.documents or ())}
    return {kind: count for kind, count in counts.items() if count}


def _results(messages: list[_Message]) -> list[str]:
    """The tool messages at the very end of the conversation."""
    results: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        results.insert(0, _text(message))
    return results


def _client_tool(function: _Function) -> Tool:
    return Tool(function.name, function.description or "", function.parameters or {})


def _schema(form: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = (form or {}).get("type", "text")
    if form is None or kind == "text":
        return None
    if kind != "json_object":
        raise Rejected("bad_request", f"invalid request: response_format type '{kind}' is unknown")
    return form.get("json_schema") or form.get("schema") or {}


def _document(document: str | dict[str, Any]) -> dict[str, Any]:
    """A document as citations hold it."""
    if isinstance(document, str):
        return {"id": "doc:0", "text": document}
    data = document.get("data") or {}
    return {"id": document.get("id", "doc:0"), **(data if isinstance(data, dict) else {})}


def _input_tokens(texts: list[str], tools: Any, media: dict[str, int]) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    words = sum(len(tokens(text)) for text in texts)
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(texts) + 4 + definitions + 85 * sum(media.values())


# -- the answer

_FINISH: dict[Finish, str] = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
    "refusal": "COMPLETE",
    "pause": "COMPLETE",
}


def _ident(prompt: Prompt) -> str:
    return str(uuid.UUID(int=number(prompt.seed, "message", 2**128)))


def _ending(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    usage = answer.counted(prompt)
    counts = {"input_tokens": usage.input, "output_tokens": usage.output}
    if answer.reasoning:
        counts["reasoning_tokens"] = usage.reasoning
    billed = {"input_tokens": usage.input, "output_tokens": usage.output}
    return {
        "finish_reason": "STOP_SEQUENCE" if answer.stopped_by else _FINISH[answer.ending],
        "usage": {
            "billed_units": billed,
            "tokens": counts,
            "cached_tokens": usage.cache_read,
        },
    }


def _plan(answer: Answer) -> str:
    """What a model that does not think says before it calls."""
    if answer.reasoning or not answer.calls:
        return ""
    names = dict.fromkeys(call.name for call in answer.calls)
    return f"I will use {' and '.join(names)} to answer."


def _citation(prompt: Prompt, answer: Answer) -> dict[str, Any] | None:
    """The first word of the text, as found in the first document or by the search."""
    found, words = answer.found, tokens(answer.text)
    held = prompt.options["documents"][:1]
    if found is not None:
        held = [{"id": "web:0", "title": found.title, "url": found.url, "text": found.excerpt}]
    if not held or not words:
        return None
    sources = [
        {"type": "document", "id": document["id"], "document": document} for document in held
    ]
    place = 1 if answer.reasoning else 0
    span = {"start": 0, "end": len(words[0]), "text": words[0]}
    return {**span, "sources": sources, "type": "TEXT_CONTENT", "content_index": place}


def _contents(answer: Answer) -> list[tuple[str, str]]:
    said = [("thinking", answer.reasoning), ("text", answer.text)]
    return [(kind, text) for kind, text in said if text]


def _call(prompt: Prompt, call: Call, index: int, arguments: str) -> dict[str, Any]:
    id_ = call.id or f"{call.name}_{ident(prompt.seed, ('call', index), 12).lower()}"
    function = {"name": call.name, "arguments": arguments}
    return {"id": id_, "type": "function", "function": function}


def _logprob(prompt: Prompt, word: str, place: int) -> dict[str, Any]:
    chance = -(1 + number(prompt.seed, ("logprob", place), 9_999)) / 20_000
    return {"text": word, "token_ids": [number(prompt.seed, word, 250_000)], "logprobs": [chance]}


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    message: dict[str, Any] = {"role": "assistant"}
    if plan := _plan(answer):
        message["tool_plan"] = plan
    if contents := _contents(answer):
        message["content"] = [{"type": kind, kind: text} for kind, text in contents]
    if answer.calls:
        calls = enumerate(answer.calls)
        message["tool_calls"] = [_call(prompt, call, index, call.text) for index, call in calls]
    if citation := _citation(prompt, answer):
        message["citations"] = [citation]
    body = {"id": _ident(prompt), "message": message, **_ending(prompt, answer)}
    if prompt.options["logprobs"]:
        words = enumerate(tokens(answer.text))
        body["logprobs"] = [_logprob(prompt, word, place) for place, word in words]
    return orjson.dumps(body)


class _Stream:
    """One streamed answer being written."""

    def __init__(self, prompt: Prompt, answer: Answer) -> None:
        self.prompt = prompt
        self.answer = answer
        self.frames: list[bytes] = []

    def event(self, name: str, **fields: Any) -> None:
        data = orjson.dumps({"type": name, **fields})
        self.frames.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def message(self, name: str, message: dict[str, Any], **fields: Any) -> None:
        self.event(name, **fields, delta={"message": message})

    def start(self) -> None:
        empty = {"content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        message = {"role": "assistant", **empty}
        self.message("message-start", message, id=_ident(self.prompt))

    def content(self, index: int, kind: str, text: str) -> None:
        self.message("content-start", {"content": {"type": kind, kind: ""}}, index=index)
        wanted = kind == "text" and self.prompt.options["logprobs"]
        citation = _citation(self.prompt, self.answer) if kind == "text" else None
        for place, word in enumerate(tokens(text)):
            fields = {"logprobs": _logprob(self.prompt, word, place)} if wanted else {}
            self.message("content-delta", {"content": {kind: word}}, index=index, **fields)
            if citation is not None and place == 0:
                self.message("citation-start", {"citations": citation}, index=0)
                self.event("citation-end", index=0)
        self.event("content-end", index=index)

    def call(self, index: int, call: Call) -> None:
        opening = _call(self.prompt, call, index, "")
        self.message("tool-call-start", {"tool_calls": opening}, index=index)
        for piece in pieces(call.text):
            delta = {"tool_calls": {"function": {"arguments": piece}}}
            self.message("tool-call-delta", delta, index=index)
        self.event("tool-call-end", index=index)

    def end(self) -> None:
        failure = self.answer.failure
        if failure is None:
            self.event("message-end", delta=_ending(self.prompt, self.answer))
        else:
            text = _error_text(failure, self.prompt.model)
            self.event("message-end", delta={"finish_reason": "ERROR", "error": text})
        self.frames.append(b"data: [DONE]\n\n")


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    stream = _Stream(prompt, answer)
    stream.start()
    for word in tokens(_plan(answer)):
        stream.message("tool-plan-delta", {"tool_plan": word})
    for index, (kind, text) in enumerate(_contents(answer)):
        stream.content(index, kind, text)
    for index, call in enumerate(answer.calls):
        stream.call(index, call)
    stream.end()
    return stream.frames


# -- errors: status and usual message

_FAILURES: dict[Kind, tuple[int, str]] = {
    "bad_request": (400, "invalid request"),
    "authentication": (401, "invalid api token"),
    "permission": (403, "you do not have permission to use this model"),
    "not_found": (
        404,
        "model '{model}' not found, make sure the correct model ID was used and that you have "
        "access to the model.",
    ),
    "too_large": (413, "request body too large"),
    "context_overflow": (
        400,
        "too many tokens: size limit exceeded by 1 tokens. Try using shorter or fewer inputs. The "
        "limit for this model is 128000 tokens.",
    ),
    "rate_limit": (
        429,
        "You are using a Trial key, which is limited to 20 API calls / minute. You can continue to "
        "use the Trial key for free or upgrade to a Production key with higher rate limits.",
    ),
    "quota": (429, "You are using a Trial key, which is limited to 1000 API calls / month."),
    "server": (500, "internal server error, this has been reported to our developers"),
    "overloaded": (503, "the service is overloaded, please try again later"),
}


def _error_text(failure: Failure, model: str) -> str:
    return failure.message or _FAILURES[failure.kind][1].format(model=model)


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    body = {"id": request_id.removeprefix("req_"), "message": _error_text(failure, model)}
    return failure.status or _FAILURES[failure.kind][0], orjson.dumps(body)


DIALECT = Dialect(
    name="cohere",
    route=re.compile(r"/v2/chat$"),
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
)
