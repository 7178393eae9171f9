"""OpenAI Chat Completions, as the vendor's server speaks it."""

from __future__ import annotations

import re
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

__all__ = ["DATED", "DIALECT"]

_ROUTE = re.compile(r"(?:/deployments/(?P<deployment>[^/]+))?/chat/completions$")

# The API answers with the dated name of a model that was asked for by its alias.
DATED = {
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
}


# -- the request


class _Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    type: str
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


def _read(request: Request) -> Prompt:
    raw = request.json()
    body = msgspec.convert(raw, _Body)
    model = body.model or _deployment(request.path)
    if not model:
        raise Rejected("bad_request", "you must provide a model parameter")
    if not body.messages:
        raise Rejected("bad_request", "Invalid 'messages': empty array. Expected at least 1 item.")
    user = next((m for m in reversed(body.messages) if m.role == "user"), _Message("user"))
    tools = _tools(body)
    choice, forced = _choice(body.tool_choice, tools)
    texts = [_text(message) for message in body.messages]
    return Prompt(
        model=model,
        seed=fingerprint("openai_chat", raw),
        user=_text(user),
        context="\n".join(t for t, m in zip(texts, body.messages) if m.role != "assistant"),
        results=_results(body.messages),
        media=_media(user),
        tools=tools,
        choice=choice,
        forced=forced,
        parallel=body.parallel_tool_calls is not False,
        schema=_schema(body.response_format),
        reasoning=body.reasoning_effort not in (None, "none"),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        input_tokens=_input_tokens(texts, raw.get("tools"), _media(user)),
        stream=bool(body.stream),
        options={
            "usage": bool((body.stream_options or {}).get("include_usage")),
            "obfuscation": (body.stream_options or {}).get("include_obfuscation") is not False,
            "logprobs": (body.top_logprobs or 0) if body.logprobs else None,
            "forced": choice == "one",
        },
    )


def _deployment(path: str) -> str:
    found = _ROUTE.search(path)
    return (found and found["deployment"]) or ""


def _text(message: _Message) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    parts = [part.get("text") for part in message.content if part.get("type") == "text"]
    return "\n".join(part for part in parts if isinstance(part, str))


_MEDIA = {"image_url": "image", "input_audio": "audio clip", "file": "file", "video_url": "video"}


def _media(message: _Message) -> dict[str, int]:
    parts = message.content if isinstance(message.content, list) else []
    kinds = [_MEDIA[part["type"]] for part in parts if part.get("type") in _MEDIA]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _results(messages: list[_Message]) -> list[str]:
    """The tool messages at the very end of the conversation."""
    results: list[str] = []
    for message in reversed(messages):
        if message.role not in ("tool", "function"):
            break
        results.insert(0, _text(message))
    return results


def _tools(body: _Body) -> list[Tool]:
    known = ("function", "custom")
    unknown = next((tool.type for tool in body.tools or [] if tool.type not in known), None)
    if unknown is not None:
        supported = "Supported values are: 'function' and 'custom'."
        raise Rejected("bad_request", f"Invalid value: '{unknown}'. {supported}")
    functions = [tool.function for tool in body.tools or [] if tool.function]
    return [Tool(f.name, f.description or "", f.parameters or {}) for f in functions]


_CHOICES: dict[str, Any] = {"none": "none", "auto": "auto", "required": "any"}


def _choice(choice: str | dict[str, Any] | None, tools: list[Tool]) -> tuple[Any, str]:
    if choice is None:
        return "auto", ""
    if not tools and choice != "none":
        message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are"
        raise Rejected("bad_request", message + " specified.")
    if isinstance(choice, dict):
        name = str((choice.get("function") or {}).get("name", ""))
        if name not in [tool.name for tool in tools]:
            raise Rejected("bad_request", f"Tool choice '{name}' not found in 'tools' parameter.")
        return "one", name
    if choice not in _CHOICES:
        supported = "Supported values are: 'none', 'auto', and 'required'."
        raise Rejected("bad_request", f"Invalid value: '{choice}'. {supported}")
    return _CHOICES[choice], ""


def _schema(form: dict[str, Any] | None) -> dict[str, Any] | None:
    kind = (form or {}).get("type", "text")
    if form is None or kind == "text":
        return None
    if kind == "json_object":
        return {}
    schema = (form.get("json_schema") or {}).get("schema")
    if kind != "json_schema" or not isinstance(schema, dict):
        raise Rejected("bad_request", "Missing required parameter: 'response_format.json_schema'.")
    return schema


def _input_tokens(texts: list[str], tools: Any, media: dict[str, int]) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    words = sum(len(tokens(text)) for text in texts)
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(texts) + 4 + definitions + 85 * sum(media.values())


# -- the answer

_FINISH: dict[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "stop",
    "pause": "stop",
}


def _finish(prompt: Prompt, answer: Answer) -> str:
    # The real API says "stop" when the call was to a function that the caller named.
    if answer.ending == "tool_calls" and prompt.options["forced"]:
        return "stop"
    return _FINISH[answer.ending]


def _head(prompt: Prompt, kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-" + ident(prompt.seed, "message", 29),
        "object": kind,
        "created": 1_750_000_000 + number(prompt.seed, "created", 10_000_000),
        "model": DATED.get(prompt.model, prompt.model),
    }


_TAIL = {"service_tier": "default", "system_fingerprint": "fp_embedded"}


def _usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    usage = answer.counted(prompt)
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _call_id(prompt: Prompt, call: Call, index: int) -> str:
    return call.id or "call_" + ident(prompt.seed, ("call", index), 24)


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    refused = answer.ending == "refusal"
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if not refused and (answer.text or not answer.calls):
        message["content"] = answer.text
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": _call_id(prompt, call, index),
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for index, call in enumerate(answer.calls)
        ]
    message |= {"refusal": answer.text if refused else None, "annotations": []}
    words = [] if refused else tokens(answer.text)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(prompt, words, 0),
        "finish_reason": _finish(prompt, answer),
    }
    body = {**_head(prompt, "chat.completion"), "choices": [choice]}
    body |= {"usage": _usage(prompt, answer), **_TAIL}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _logprobs(prompt: Prompt, words: list[str], start: int) -> dict[str, Any] | None:
    top = prompt.options["logprobs"]
    if top is None or not words:
        return None
    entries = [_token_entry(prompt, word, start + n, top) for n, word in enumerate(words)]
    return {"content": entries, "refusal": None}


def _token_entry(prompt: Prompt, word: str, place: int, top: int) -> dict[str, Any]:
    chance = -(1 + number(prompt.seed, ("logprob", place), 9_999)) / 20_000
    rivals = [word, *(f"{word}{n}" for n in range(1, top))][:top]
    ranked = [_scored(rival, chance - 2 * n) for n, rival in enumerate(rivals)]
    return {**_scored(word, chance), "top_logprobs": ranked}


def _scored(word: str, chance: float) -> dict[str, Any]:
    return {"token": word, "logprob": chance, "bytes": list(word.encode())}


class _Stream:
    """One streamed answer being written: the frames, and what every chunk repeats."""

    def __init__(self, prompt: Prompt, answer: Answer) -> None:
        self.prompt = prompt
        self.answer = answer
        self.frames: list[bytes] = []
        self.noise = ident(prompt.seed, "noise", 48)
        self.common = {**_head(prompt, "chat.completion.chunk"), **_TAIL}

    def frame(self, payload: dict[str, Any]) -> None:
        self.frames.append(b"data: " + orjson.dumps(payload) + b"\n\n")

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
        payload = {**self.common, "choices": choices}
        if self.prompt.options["usage"]:
            payload["usage"] = usage
        if self.prompt.options["obfuscation"]:
            # Noise against guessing the text from the lengths of encrypted records.
            place = len(self.frames)
            payload["obfuscation"] = self.noise[place % 32 :][: self.prompt.seed[place % 32] % 15]
        self.frame(payload)

    def delta(
        self,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        self.chunk([choice])

    def content(self) -> None:
        self.delta(self.opening())
        for word in tokens(self.answer.reasoning):
            self.delta({"content": None, "reasoning_content": word})
        key = "refusal" if self.answer.ending == "refusal" else "content"
        for place, word in enumerate(tokens(self.answer.text)):
            shown = [word] if key == "content" else []
            self.delta({key: word}, _logprobs(self.prompt, shown, place))
        for index, call in enumerate(self.answer.calls):
            self.call(index, call)

    def opening(self) -> dict[str, Any]:
        role: dict[str, Any] = {"role": "assistant"}
        if self.answer.reasoning:
            return role | {"content": None, "reasoning_content": ""}
        if self.answer.calls and not self.answer.text:
            return role | {"content": None}
        return role | {"content": "", "refusal": None}

    def call(self, index: int, call: Call) -> None:
        self.delta(
            {
                "tool_calls": [
                    {
                        "index": index,
                        "id": _call_id(self.prompt, call, index),
                        "type": "function",
                        "function": {"name": call.name, "arguments": ""},
                    }
                ]
            }
        )
        for piece in pieces(call.text):
            self.delta({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def end(self) -> None:
        self.delta({}, finish=_finish(self.prompt, self.answer))
        if self.prompt.options["usage"]:
            self.chunk([], _usage(self.prompt, self.answer))
        self.frames.append(b"data: [DONE]\n\n")


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    stream = _Stream(prompt, answer)
    stream.content()
    if answer.failure is None:
        stream.end()
    else:
        stream.frame(_error(answer.failure, prompt.model))
    return stream.frames


# -- errors: status, type, code, usual message

_FAILURES: dict[Kind, tuple[int, str, str | None, str]] = {
    "bad_request": (400, "invalid_request_error", None, "The request is not valid."),
    "authentication": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: wrong. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    "permission": (
        403,
        "invalid_request_error",
        None,
        "You are not allowed to sample from this model",
    ),
    "not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    "too_large": (413, "invalid_request_error", None, "The request is too large."),
    "context_overflow": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted "
        "in 128001 tokens. Please reduce the length of the messages.",
    ),
    "rate_limit": (
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 1s.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "server": (
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "overloaded": (
        503,
        "server_error",
        None,
        "The engine is currently overloaded, please try again later",
    ),
}


def _error(failure: Failure, model: str) -> dict[str, Any]:
    _status, kind, code, usual = _FAILURES[failure.kind]
    message = failure.message or usual.format(model=model)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    body = orjson.dumps(_error(failure, model), option=orjson.OPT_INDENT_2)
    return failure.status or _FAILURES[failure.kind][0], body


DIALECT = Dialect(
    name="openai_chat",
    route=_ROUTE,
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
)
