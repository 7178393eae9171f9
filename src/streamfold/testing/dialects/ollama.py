"""Ollama's chat API, as its server speaks it."""

from __future__ import annotations

import datetime
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
    description: str = ""
    parameters: dict[str, Any] = {}


class _Tool(msgspec.Struct):
    type: str
    function: _Function


class _Message(msgspec.Struct):
    role: str
    content: str | None = ""
    images: list[str] | None = None

    @property
    def text(self) -> str:
        return self.content or ""


class _Options(msgspec.Struct):
    num_predict: int | None = None
    stop: list[str] | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message] = []
    stream: bool | None = None
    options: _Options | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    tools: list[_Tool] | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0


def _read(request: Request) -> Prompt:
    raw = request.json()
    body = msgspec.convert(raw, _Body)
    options = body.options or _Options()
    user = next((m for m in reversed(body.messages) if m.role == "user"), _Message("user"))
    said = [message.text for message in body.messages if message.role != "assistant"]
    limit = options.num_predict
    return Prompt(
        model=body.model,
        seed=fingerprint("ollama", raw),
        user=user.text,
        context="\n".join(said),
        results=_results(body.messages),
        media={"image": len(user.images)} if user.images else {},
        tools=[_client_tool(tool) for tool in body.tools or ()],
        schema=_schema(body.format),
        reasoning=_thinks(body.think),
        max_tokens=None if limit is None or limit < 0 else limit,  # -1 is no limit
        stop=options.stop or [],
        input_tokens=_input_tokens(body, raw.get("tools")),
        stream=body.stream is not False,
        options={
            "logprobs": body.top_logprobs if body.logprobs else None,
            "empty": not body.messages,
        },
    )


def _results(messages: list[_Message]) -> list[str]:
    """The tool messages at the very end of the conversation."""
    results: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        results.insert(0, message.text)
    return results


def _client_tool(tool: _Tool) -> Tool:
    return Tool(tool.function.name, tool.function.description, tool.function.parameters)


def _schema(form: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if form in (None, ""):
        return None
    if isinstance(form, dict):
        return form
    if form != "json":
        raise Rejected("bad_request", f'invalid format: "{form}"; expected "json" or a JSON schema')
    return {}


_LEVELS = ("high", "medium", "low", "max")


def _thinks(think: bool | str | None) -> bool:
    if isinstance(think, str) and think not in _LEVELS:
        expected = '(must be "high", "medium", "low", "max", true, or false)'
        raise Rejected("bad_request", f'invalid think value: "{think}" {expected}')
    return bool(think)


def _input_tokens(body: _Body, tools: Any) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    words = sum(len(tokens(message.text)) for message in body.messages)
    images = sum(len(message.images or ()) for message in body.messages)
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(body.messages) + 4 + definitions + 85 * images


# -- the answer


def _line(prompt: Prompt, place: int, message: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What a line holds and, with all of the message, a body that is not streamed."""
    return {
        "model": prompt.model,
        "created_at": _time(prompt, place),
        "message": {"role": "assistant", "content": "", **message},
        **fields,
    }


def _time(prompt: Prompt, place: int) -> str:
    """When a line was sent, as Go writes it: without the zeros at the end of a fraction."""
    start = datetime.datetime(2026, 1, 1) + datetime.timedelta(
        microseconds=number(prompt.seed, "created", 10**12)
    )
    time = start + datetime.timedelta(microseconds=10_007 * place)
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").removesuffix(".") + "Z"


def _ending(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    usage = answer.counted(prompt)
    load, read = (number(prompt.seed, label, 10**8) for label in ("load", "prompt"))
    spent = 8_000_000 * usage.output
    return {
        "done": True,
        "done_reason": "length" if answer.ending == "length" else "stop",
        "total_duration": load + read + spent,
        "load_duration": load,
        "prompt_eval_count": usage.input,
        "prompt_eval_duration": read,
        "eval_count": usage.output,
        "eval_duration": spent,
    }


def _calls(prompt: Prompt, answer: Answer) -> list[dict[str, Any]]:
    """The calls as they are sent: whole. One that is cut off by the limit never leaves the server;
    a scripted one that is no object at all goes as its text."""
    cut = answer.ending == "length"
    return [
        _wire_call(prompt, call, index)
        for index, call in enumerate(answer.calls)
        if not (cut and isinstance(_arguments(call), str))
    ]


def _wire_call(prompt: Prompt, call: Call, index: int) -> dict[str, Any]:
    id_ = call.id or "call_" + ident(prompt.seed, ("call", index), 8).lower()
    function = {"index": index, "name": call.name, "arguments": _arguments(call)}
    return {"id": id_, "function": function}


def _arguments(call: Call) -> dict[str, Any] | str:
    try:
        value = orjson.loads(call.text)
    except ValueError:
        return call.text
    return value if isinstance(value, dict) else call.text


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    if prompt.options["empty"]:
        return orjson.dumps(_line(prompt, 0, {}, done=True, done_reason="load"))
    message: dict[str, Any] = {"content": answer.text}
    if answer.reasoning:
        message["thinking"] = answer.reasoning
    if calls := _calls(prompt, answer):
        message["tool_calls"] = calls
    fields = _logprobs(prompt, tokens(answer.text), 0)
    last = sum(1 for _ in _messages(prompt, answer))  # it is done when a stream would be
    return orjson.dumps({**_line(prompt, last, message, **_ending(prompt, answer)), **fields})


def _logprobs(prompt: Prompt, words: list[str], start: int) -> dict[str, Any]:
    top = prompt.options["logprobs"]
    if top is None or not words:
        return {}
    entries = [_token_entry(prompt, word, start + n, top) for n, word in enumerate(words)]
    return {"logprobs": entries}


def _token_entry(prompt: Prompt, word: str, place: int, top: int) -> dict[str, Any]:
    chance = -(1 + number(prompt.seed, ("logprob", place), 9_999)) / 20_000
    rivals = [word, *(f"{word}{n}" for n in range(1, top))][:top]
    ranked = [_scored(rival, chance - 2 * n) for n, rival in enumerate(rivals)]
    return {**_scored(word, chance), **({"top_logprobs": ranked} if ranked else {})}


def _scored(word: str, chance: float) -> dict[str, Any]:
    return {"token": word, "logprob": chance, "bytes": list(word.encode())}


def _messages(prompt: Prompt, answer: Answer) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The message of each line but the last, and the fields beside it."""
    for word in tokens(answer.reasoning):
        yield {"thinking": word}, {}
    for place, word in enumerate(tokens(answer.text)):
        yield {"content": word}, _logprobs(prompt, [word], place)
    for call in _calls(prompt, answer):
        yield {"tool_calls": [call]}, {}


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    if prompt.options["empty"]:
        return [_whole(prompt, answer) + b"\n"]
    lines = [
        _line(prompt, place, message, done=False, **fields)
        for place, (message, fields) in enumerate(_messages(prompt, answer))
    ]
    if answer.failure is None:
        lines.append(_line(prompt, len(lines), {}, **_ending(prompt, answer)))
    else:
        lines.append(_error(answer.failure, prompt.model))
    return [orjson.dumps(line) + b"\n" for line in lines]


# -- errors: status and usual message; the body has nothing else

_FAILURES: dict[Kind, tuple[int, str]] = {
    "bad_request": (400, "invalid request"),
    "authentication": (401, "unauthorized"),
    "permission": (403, "this model requires a subscription, upgrade for access"),
    "not_found": (404, "model '{model}' not found"),
    "too_large": (413, "http: request body too large"),
    "context_overflow": (400, "the input length exceeds the maximum context length"),
    "rate_limit": (429, "too many requests"),
    "quota": (429, "you have reached your weekly usage limit, upgrade for higher limits"),
    "server": (500, "model runner has unexpectedly stopped"),
    "overloaded": (503, "server busy, please try again.  maximum pending requests exceeded"),
}


def _error(failure: Failure, model: str) -> dict[str, Any]:
    return {"error": failure.message or _FAILURES[failure.kind][1].format(model=model)}


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    return failure.status or _FAILURES[failure.kind][0], orjson.dumps(_error(failure, model))


DIALECT = Dialect(
    name="ollama",
    route=re.compile(r"/api/chat$"),
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
    stream_type="application/x-ndjson",
)
