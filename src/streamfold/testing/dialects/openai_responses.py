"""OpenAI Responses, as the vendor's server speaks it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from streamfold.testing.answers import (
    Answer,
    Call,
    Dialect,
    Found,
    Prompt,
    Rejected,
    Tool,
    fingerprint,
    ident,
    number,
)
from streamfold.testing.dialects.openai_chat import DATED
from streamfold.testing.dialects.openai_chat import DIALECT as CHAT
from streamfold.testing.prose import pieces, tokens
from streamfold.testing.server import Request

__all__ = ["DIALECT"]

Item = dict[str, Any]

# -- the request


class _Body(msgspec.Struct):
    input: str | list[Item]
    model: str = ""
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    tools: list[Item] | None = None
    tool_choice: str | Item | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    store: bool | None = None
    previous_response_id: str | None = None


# Parameters of Chat Completions that clients send here by mistake.
_MOVED = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
_UNKNOWN = ("stop", "seed", "n", "logprobs", "frequency_penalty", "presence_penalty", "logit_bias")


def _read(request: Request) -> Prompt:
    raw = request.json()
    _check_parameters(raw)
    body = msgspec.convert(raw, _Body)
    if not body.model:
        raise Rejected("bad_request", "Missing required parameter: 'model'.")
    items = _items(body)
    said = [item for item in items if item.get("role") in ("system", "developer", "user")]
    user = next((item for item in reversed(said) if item["role"] == "user"), {})
    tools = _tools(body)
    choice, forced = _choice(body.tool_choice, tools)
    texts = [body.instructions or "", *(_text(item) for item in items)]
    return Prompt(
        model=body.model,
        seed=fingerprint("openai_responses", raw),
        user=_text(user),
        context="\n".join([body.instructions or "", *map(_text, said)]),
        results=_results(items),
        media=_media(user),
        tools=tools,
        choice=choice,
        forced=forced,
        parallel=body.parallel_tool_calls is not False,
        search=any(str(tool["type"]).startswith("web_search") for tool in body.tools or []),
        schema=_schema(body),
        reasoning=(body.reasoning or {}).get("effort") not in (None, "none"),
        max_tokens=body.max_output_tokens,
        input_tokens=_input_tokens(texts, raw.get("tools"), _media(user)),
        stream=bool(body.stream),
        options={
            "asked": {name: raw[name] for name in _ECHOED if raw.get(name) is not None},
            "obfuscation": (body.stream_options or {}).get("include_obfuscation") is not False,
            "logprobs": (body.top_logprobs or 0)
            if _includes(body, "message.output_text.")
            else None,
            "encrypted": _includes(body, "reasoning.encrypted_content"),
        },
    )


def _includes(body: _Body, what: str) -> bool:
    return any(name.startswith(what) for name in body.include or [])


def _check_parameters(raw: Any) -> None:
    for name in raw if isinstance(raw, dict) else ():
        if name in _MOVED:
            message = f"Unsupported parameter: '{name}'. In the Responses API, this parameter has "
            raise Rejected("bad_request", f"{message}moved to '{_MOVED[name]}'.")
        if name in _UNKNOWN:
            raise Rejected("bad_request", f"Unknown parameter: '{name}'.")


_PARTS = ("input_text", "input_image", "input_file", "output_text", "refusal")
_ROLES = ("assistant", "system", "developer", "user")


def _items(body: _Body) -> list[Item]:
    """The input, checked for what the real API refuses and clients get wrong."""
    if isinstance(body.input, str):
        return [{"role": "user", "content": body.input}]
    if not body.input:
        raise Rejected("bad_request", "Invalid 'input': empty array. Expected at least 1 item.")
    for place, item in enumerate(body.input):
        if "role" in item:
            _one_of(item["role"], _ROLES)
            content = item.get("content")
            for part in content if isinstance(content, list) else ():
                _one_of(part.get("type"), _PARTS)
        elif not item.get("type"):
            raise Rejected("bad_request", f"Missing required parameter: 'input[{place}].type'.")
    _check_calls(body)
    _check_reasoning(body.input)
    return body.input


def _one_of(value: Any, supported: tuple[str, ...]) -> None:
    if value not in supported:
        names = [f"'{name}'" for name in supported]
        listed = f"{', '.join(names[:-1])}, and {names[-1]}"
        raise Rejected("bad_request", f"Invalid value: '{value}'. Supported values are: {listed}.")


def _check_calls(body: _Body) -> None:
    """Every call has its output, and every output its call, unless the server has the rest."""
    called = _ids(body.input, "_call")
    answered = _ids(body.input, "_call_output")
    if body.previous_response_id is None:
        for id_ in [one for one in answered if one not in called]:
            message = f"No tool call found for function call output with call_id {id_}."
            raise Rejected("bad_request", message)
    for id_ in [one for one in called if one not in answered]:
        raise Rejected("bad_request", f"No tool output found for function call {id_}.")


def _ids(items: Any, ending: str) -> list[str]:
    kinds = (f"function{ending}", f"custom_tool{ending}")
    return [str(item.get("call_id")) for item in items if item.get("type") in kinds]


def _check_reasoning(items: list[Item]) -> None:
    following = [*items[1:], {"role": "user"}]
    for item, next_one in zip(items, following):
        if item.get("type") != "reasoning":
            continue
        if "summary" not in item:
            raise Rejected("bad_request", "Missing required parameter: 'input.summary'.")
        if next_one.get("role") in ("system", "developer", "user"):
            message = f"Item '{item.get('id')}' of type 'reasoning' was provided without its "
            raise Rejected("bad_request", f"{message}required following item.")


def _text(item: Item) -> str:
    content = item.get("content", item.get("output"))
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


_MEDIA = {"input_image": "image", "input_file": "file"}


def _media(item: Item) -> dict[str, int]:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    kinds = [_MEDIA[part["type"]] for part in parts if part.get("type") in _MEDIA]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _results(items: list[Item]) -> list[str]:
    """The outputs of calls at the very end of the conversation."""
    results: list[str] = []
    for item in reversed(items):
        if not str(item.get("type")).endswith("_call_output"):
            break
        results.insert(0, _text(item))
    return results


def _tools(body: _Body) -> list[Tool]:
    functions = []
    for place, tool in enumerate(body.tools or []):
        if tool.get("type") in ("function", "custom") and not isinstance(tool.get("name"), str):
            raise Rejected("bad_request", f"Missing required parameter: 'tools[{place}].name'.")
        if not isinstance(tool.get("type"), str):
            raise Rejected("bad_request", f"Missing required parameter: 'tools[{place}].type'.")
        if tool["type"] == "function":
            functions.append(tool)
    return [
        Tool(f["name"], f.get("description") or "", f.get("parameters") or {}) for f in functions
    ]


_CHOICES: dict[str, Any] = {"none": "none", "auto": "auto", "required": "any"}


def _choice(choice: str | Item | None, tools: list[Tool]) -> tuple[Any, str]:
    if choice is None:
        return "auto", ""
    if isinstance(choice, str):
        _one_of(choice, tuple(_CHOICES))
        return _CHOICES[choice], ""
    if choice.get("type") == "allowed_tools":
        return _CHOICES.get(str(choice.get("mode")), "auto"), ""
    if choice.get("type") != "function":
        return "none", ""  # a tool of the provider's
    name = str(choice.get("name", ""))
    if name not in [tool.name for tool in tools]:
        raise Rejected("bad_request", f"Tool choice '{name}' not found in 'tools' parameter.")
    return "one", name


def _schema(body: _Body) -> dict[str, Any] | None:
    form = (body.text or {}).get("format") or {"type": "text"}
    if form.get("type") in ("text", "json_object"):
        return None if form["type"] == "text" else {}
    for name in ("name", "schema"):
        if form.get(name) is None:
            raise Rejected("bad_request", f"Missing required parameter: 'text.format.{name}'.")
    schema: Any = form["schema"]
    return dict(schema)


def _input_tokens(texts: list[str], tools: Any, media: dict[str, int]) -> int:
    """Words, three tokens for each item, four for the request, 85 for each picture."""
    words = sum(len(tokens(text)) for text in texts)
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * (len(texts) - 1) + 4 + definitions + 85 * sum(media.values())


# -- the answer: output items, each with the events it is streamed as

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_p",
    "user",
)


class _Streamed(msgspec.Struct):
    """`item`: as it is in the answer. `added`: as it begins. `events`: names and fields between."""

    item: Item
    added: Item
    events: list[tuple[str, Item]] = []


def _output(prompt: Prompt, answer: Answer) -> Iterator[_Streamed]:
    cut = answer.ending in _INCOMPLETE
    if answer.reasoning:
        yield _reasoning(prompt, answer.reasoning)
    if answer.found:
        yield _search(prompt, answer.found)
    if answer.text or not (answer.calls or answer.reasoning or answer.found):
        yield _message(prompt, answer, cut and not answer.calls)
    for index, call in enumerate(answer.calls):
        yield _call(prompt, call, index, cut and index == len(answer.calls) - 1)


def _reasoning(prompt: Prompt, reasoning: str) -> _Streamed:
    item: Item = {"id": "rs_" + ident(prompt.seed, "reasoning", 48), "type": "reasoning"}
    if prompt.options["encrypted"]:
        item["encrypted_content"] = "gAAAAA" + ident(prompt.seed, "encrypted", 120)
    part = {"type": "summary_text", "text": reasoning}
    at = {"summary_index": 0}
    name = "reasoning_summary"
    events: list[tuple[str, Item]] = [
        (f"{name}_part.added", {**at, "part": {**part, "text": ""}}),
        *((f"{name}_text.delta", {**at, "delta": word}) for word in tokens(reasoning)),
        (f"{name}_text.done", {**at, "text": reasoning}),
        (f"{name}_part.done", {**at, "part": part}),
    ]
    return _Streamed({**item, "summary": [part]}, {**item, "summary": []}, events)


def _search(prompt: Prompt, found: Found) -> _Streamed:
    item = {"id": "ws_" + ident(prompt.seed, "search", 48), "type": "web_search_call"}
    action = {"type": "search", "query": found.query}
    steps = [f"web_search_call.{step}" for step in ("in_progress", "searching", "completed")]
    return _Streamed(
        {**item, "status": "completed", "action": action},
        {**item, "status": "in_progress"},
        [(step, {}) for step in steps],
    )


def _message(prompt: Prompt, answer: Answer, cut: bool) -> _Streamed:
    item: Item = {"id": "msg_" + ident(prompt.seed, "message", 48), "type": "message"}
    at = {"content_index": 0}
    kind = "refusal" if answer.ending == "refusal" else "output_text"
    empty, part, key = _parts(prompt, answer, kind)
    events: list[tuple[str, Item]] = [("content_part.added", {**at, "part": empty})]
    for place, word in enumerate(tokens(answer.text)):
        scored = {} if kind == "refusal" else {"logprobs": _logprobs(prompt, [word], place)}
        events.append((f"{kind}.delta", {**at, "delta": word, **scored}))
    notes = part.get("annotations", [])
    for place, note in enumerate(notes):
        told = {"annotation_index": place, "annotation": note}
        events.append(("output_text.annotation.added", {**at, **told}))
    scored = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
    events.append((f"{kind}.done", {**at, key: answer.text, **scored}))
    events.append(("content_part.done", {**at, "part": part}))
    status = "incomplete" if cut else "completed"
    item = {**item, "status": status, "content": [part], "role": "assistant"}
    return _Streamed(item, {**item, "status": "in_progress", "content": []}, events)


def _parts(prompt: Prompt, answer: Answer, kind: str) -> tuple[Item, Item, str]:
    """The only part of a message, empty and whole, and the key of its text."""
    if kind == "refusal":
        return {"type": kind, "refusal": ""}, {"type": kind, "refusal": answer.text}, kind
    found, notes = answer.found, []
    if found:
        cited = {"url": found.url, "title": found.title}
        span = {"start_index": 0, "end_index": len(answer.text)}
        notes = [{"type": "url_citation", **span, **cited}]
    empty: Item = {"type": kind, "annotations": [], "logprobs": [], "text": ""}
    scored = _logprobs(prompt, tokens(answer.text), 0)
    part = {"type": kind, "annotations": notes, "logprobs": scored, "text": answer.text}
    return empty, part, "text"


def _call(prompt: Prompt, call: Call, index: int, cut: bool) -> _Streamed:
    item = {
        "id": "fc_" + ident(prompt.seed, ("item", index), 48),
        "type": "function_call",
        "status": "incomplete" if cut else "completed",
        "arguments": call.text,
        "call_id": call.id or "call_" + ident(prompt.seed, ("call", index), 24),
        "name": call.name,
    }
    name = "function_call_arguments"
    events = [(f"{name}.delta", {"delta": piece}) for piece in pieces(call.text)]
    events.append((f"{name}.done", {"arguments": call.text}))
    return _Streamed(item, {**item, "status": "in_progress", "arguments": ""}, events)


def _logprobs(prompt: Prompt, words: list[str], start: int) -> list[Item]:
    top = prompt.options["logprobs"]
    if top is None:
        return []
    return [_token_entry(prompt, word, start + n, top) for n, word in enumerate(words)]


def _token_entry(prompt: Prompt, word: str, place: int, top: int) -> Item:
    chance = -(1 + number(prompt.seed, ("logprob", place), 9_999)) / 20_000
    rivals = [word, *(f"{word}{n}" for n in range(1, top))][:top]
    ranked = [_scored(rival, chance - 2 * n) for n, rival in enumerate(rivals)]
    return {**_scored(word, chance), "top_logprobs": ranked}


def _scored(word: str, chance: float) -> Item:
    return {"bytes": list(word.encode()), "logprob": chance, "token": word}


def _response(prompt: Prompt, status: str, **fields: Any) -> Item:
    """The answer as a whole, with what was asked, as this API always tells it."""
    created = 1_750_000_000 + number(prompt.seed, "created", 10_000_000)
    return {
        "id": "resp_" + ident(prompt.seed, "response", 48),
        "object": "response",
        "created_at": created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        **dict.fromkeys(("instructions", "max_output_tokens", "previous_response_id", "user")),
        "model": DATED.get(prompt.model, prompt.model),
        "output": [],
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "metadata": {},
        **prompt.options["asked"],
        **fields,
    }


def _final(prompt: Prompt, answer: Answer, output: list[Item]) -> Item:
    reason = _INCOMPLETE.get(answer.ending)
    return _response(
        prompt,
        "incomplete" if reason else "completed",
        incomplete_details={"reason": reason} if reason else None,
        output=output,
        usage=_usage(prompt, answer),
    )


def _usage(prompt: Prompt, answer: Answer) -> Item:
    usage = answer.counted(prompt)
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cache_write_tokens": usage.cache_creation,
            "cached_tokens": usage.cache_read,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    output = [streamed.item for streamed in _output(prompt, answer)]
    body = _final(prompt, answer, output)
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


class _Stream:
    """One streamed answer being written."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.frames: list[bytes] = []
        self.noise = ident(prompt.seed, "noise", 48)

    def event(self, name: str, **fields: Any) -> None:
        place = len(self.frames)
        if name.endswith(".delta") and self.prompt.options["obfuscation"]:
            # Noise against guessing the text from the lengths of encrypted records.
            fields["obfuscation"] = self.noise[place % 32 :][: self.prompt.seed[place % 32] % 15]
        payload = {**fields, "sequence_number": place}
        data = orjson.dumps({"type": name, **dict(sorted(payload.items()))})
        self.frames.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def item(self, index: int, streamed: _Streamed) -> None:
        at = {"output_index": index, "item_id": streamed.item["id"]}
        self.event("response.output_item.added", output_index=index, item=streamed.added)
        for name, fields in streamed.events:
            self.event(f"response.{name}", **at, **fields)
        self.event("response.output_item.done", output_index=index, item=streamed.item)


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    stream = _Stream(prompt)
    for name in ("created", "in_progress"):
        stream.event(f"response.{name}", response=_response(prompt, "in_progress"))
    output = list(_output(prompt, answer))
    for index, streamed in enumerate(output):
        stream.item(index, streamed)
    if answer.failure is not None:
        error = orjson.loads(CHAT.failure(answer.failure, prompt.model, "")[1])["error"]
        code = error["code"] or error["type"]
        stream.event("error", code=code, message=error["message"], param=None)
        return stream.frames
    final = _final(prompt, answer, [streamed.item for streamed in output])
    stream.event(f"response.{final['status']}", response=final)
    return stream.frames


DIALECT = Dialect(
    name="openai_responses",
    route=re.compile(r"/responses$"),
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=CHAT.failure,
)
