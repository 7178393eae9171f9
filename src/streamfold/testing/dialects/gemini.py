"""Google Gemini, as the Gemini API and Vertex AI speak it."""

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

_ROUTE = re.compile(
    r"(?P<vertex>/publishers/google)?/(?:models|tunedModels)/(?P<model>[^/:]+)"
    r":(?P<stream>streamG|g)enerateContent$"
)
#: Models that sign what they say, and want it back.
_SIGNS = re.compile(r"gemini-([3-9]|flash|pro)")


# -- the request: names in camel or in snake case, and no other ones


class _Known(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class _Part(_Known):
    text: str | None = None
    thought: bool = False
    thought_signature: str | None = None
    inline_data: dict[str, Any] | None = None
    file_data: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    function_response: dict[str, Any] | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None
    video_metadata: dict[str, Any] | None = None
    media_resolution: Any = None


class _Content(_Known):
    parts: list[_Part] = []
    role: str | None = None

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.parts if part.text and not part.thought)

    @property
    def calls(self) -> list[_Part]:
        return [part for part in self.parts if part.function_call is not None]

    @property
    def results(self) -> list[dict[str, Any]]:
        return [p.function_response for p in self.parts if p.function_response is not None]


class _Thinking(_Known):
    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: str | None = None


class _Config(_Known):
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    response_modalities: list[str] = []
    response_logprobs: bool = False
    logprobs: int = 0
    thinking_config: _Thinking = msgspec.field(default_factory=_Thinking)
    media_resolution: str | None = None
    speech_config: dict[str, Any] | None = None
    image_config: dict[str, Any] | None = None


class _Declaration(_Known):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None
    behavior: str | None = None
    response: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None


class _Tool(_Known):
    function_declarations: list[_Declaration] = []
    google_search: dict[str, Any] | None = None
    google_search_retrieval: dict[str, Any] | None = None
    google_maps: dict[str, Any] | None = None
    code_execution: dict[str, Any] | None = None
    url_context: dict[str, Any] | None = None
    file_search: dict[str, Any] | None = None
    computer_use: dict[str, Any] | None = None


class _Calling(_Known):
    mode: str = "AUTO"
    allowed_function_names: list[str] = []
    stream_function_call_arguments: bool = False


class _ToolConfig(_Known):
    function_calling_config: _Calling | None = None
    retrieval_config: dict[str, Any] | None = None
    include_server_side_tool_invocations: bool = False


class _Body(_Known):
    contents: list[_Content] = []
    system_instruction: _Content = msgspec.field(default_factory=_Content)
    tools: list[_Tool] = []
    tool_config: _ToolConfig = msgspec.field(default_factory=_ToolConfig)
    generation_config: _Config = msgspec.field(default_factory=_Config)
    safety_settings: list[dict[str, Any]] = []
    cached_content: str | None = None
    labels: dict[str, str] = {}
    service_tier: str | None = None
    store: bool | None = None

    @property
    def functions(self) -> list[_Declaration]:
        return [each for tool in self.tools for each in tool.function_declarations]

    @property
    def server_tools(self) -> set[str]:
        names = set(_Tool.__struct_fields__) - {"function_declarations"}
        return {name for name in names for tool in self.tools if getattr(tool, name) is not None}


#: What holds the caller's own names.
_VALUES = frozenset({"args", "response", "parameters", "labels", "partMetadata"})


def _camel(value: Any) -> Any:
    """`value` with all names that are the API's in camel case."""
    if isinstance(value, list):
        return [_camel(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = {re.sub("_([a-z])", lambda m: m[1].upper(), key): v for key, v in value.items()}
    return {
        key: each if key in _VALUES or key.endswith("Schema") else _camel(each)
        for key, each in named.items()
    }


def _read(request: Request) -> Prompt:
    found = _ROUTE.search(request.path)
    assert found is not None
    raw = request.json()
    body = msgspec.convert(_camel(raw), _Body)
    model, config = found["model"], body.generation_config
    _check(body, model, on_vertex=found["vertex"] is not None)
    tools = [_client_tool(declared) for declared in body.functions]
    calling = body.tool_config.function_calling_config or _Calling()
    choice, forced = _choice(calling)
    said = [content for content in body.contents if content.role != "model"]
    user = next((c for c in reversed(said) if not c.results), _Content())
    texts = [body.system_instruction.text, *(content.text for content in body.contents)]
    media = _media(user)
    return Prompt(
        model=model,
        seed=fingerprint("gemini", {"model": model, **raw}),
        user=user.text,
        context="\n".join([texts[0], *(content.text for content in said)]),
        results=_results(body.contents),
        media=media,
        tools=tools,
        choice=choice,
        forced=forced,
        search="google_search" in body.server_tools,
        schema=_schema(config),
        reasoning=config.thinking_config.include_thoughts,
        max_tokens=config.max_output_tokens,
        stop=config.stop_sequences,
        input_tokens=_input_tokens(texts, body, raw.get("tools"), media),
        stream=found["stream"] == "streamG",
        options={
            "array": request.query.get("alt") != "sse",
            "vertex": found["vertex"] is not None,
            "signs": _SIGNS.match(model) is not None,
            "partial": calling.stream_function_call_arguments,
            "logprobs": config.logprobs if config.response_logprobs else None,
            "stream_type": "text/event-stream"
            if request.query.get("alt") == "sse"
            else "application/json; charset=UTF-8",
        },
    )


def _check(body: _Body, model: str, *, on_vertex: bool) -> None:
    """What the real API refuses and clients get wrong."""
    roles = {content.role for content in body.contents} - {"user", "model", "function", None}
    config, thinking = body.tool_config, body.generation_config.thinking_config
    calling = config.function_calling_config
    names = [function.name for function in body.functions]
    allowed = calling.allowed_function_names if calling else []
    telling = config.include_server_side_tool_invocations
    mixed = names and body.server_tools and not telling
    complaints = {
        "* GenerateContentRequest.contents: contents is not specified\n": not body.contents,
        "* GenerateContentRequest.contents.parts: contents.parts must not be empty.\n": not all(
            content.parts for content in body.contents
        ),
        "Please use a valid role: user, model.": roles,
        "Function calling config is set without function_declarations.": calling and not names,
        "* GenerateContentRequest.tool_config.function_calling_config.allowed_function_names: "
        "allowed_function_names should be defined functions.\n": set(allowed) - set(names),
        "Please enable tool_config.include_server_side_tool_invocations to use Built-in tools with "
        "Function calling.": mixed and not on_vertex,
        'Invalid JSON payload received. Unknown name "includeServerSideToolInvocations" at '
        "'tool_config': Cannot find field.": telling and on_vertex,
        "Please ensure that the number of function response parts is equal to the number of "
        "function call parts of the function call turn.": not _answered(body.contents),
        "Function call is missing a thought_signature in functionCall parts.": (
            _SIGNS.match(model) and not _signed(body.contents)
        ),
        "Thinking level is not supported for this model.": (
            thinking.thinking_level and not _SIGNS.match(model)
        ),
        "You can only set only one of thinking budget and thinking level.": (
            thinking.thinking_level and thinking.thinking_budget is not None
        ),
    }
    for complaint, holds in complaints.items():
        if holds:
            raise Rejected("bad_request", complaint)


def _answered(contents: list[_Content]) -> bool:
    """Whether as many results follow each turn of calls."""
    following = [*contents[1:], _Content()]
    return all(
        len(content.calls) == len(after.results) for content, after in zip(contents, following)
    )


def _signed(contents: list[_Content]) -> bool:
    """Whether the first call of each step since the user's last words has its signature."""
    last = max((n for n, c in enumerate(contents) if c.role != "model" and c.text), default=0)
    steps = [content.calls for content in contents[last:] if content.calls]
    return all(calls[0].thought_signature for calls in steps)


def _client_tool(declared: _Declaration) -> Tool:
    schema = declared.parameters_json_schema or _lower(declared.parameters or {})
    return Tool(declared.name, declared.description, schema)


def _lower(schema: Any) -> Any:
    """Gemini's own form of a schema has the types in capitals."""
    if isinstance(schema, list):
        return [_lower(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: each.lower() if key == "type" and isinstance(each, str) else _lower(each)
        for key, each in schema.items()
    }


def _choice(calling: _Calling) -> tuple[Any, str]:
    if calling.mode == "ANY" and len(calling.allowed_function_names) == 1:
        return "one", calling.allowed_function_names[0]
    modes = {"AUTO": "auto", "VALIDATED": "auto", "ANY": "any", "NONE": "none"}
    if calling.mode not in modes:
        where = "'tool_config.function_calling_config.mode'"
        raise Rejected("bad_request", f'Invalid value at {where}: "{calling.mode}"')
    return modes[calling.mode], ""


def _schema(config: _Config) -> dict[str, Any] | None:
    if config.response_json_schema is not None:
        return config.response_json_schema
    if config.response_schema is not None:
        schema: dict[str, Any] = _lower(config.response_schema)
        return schema
    return {} if config.response_mime_type == "application/json" else None


def _results(contents: list[_Content]) -> list[str]:
    """The results that the conversation ends with."""
    results = contents[-1].results if contents else []
    return [_result(result.get("response") or {}) for result in results]


def _result(response: dict[str, Any]) -> str:
    value = response.get("output", response.get("error", response))
    return value if isinstance(value, str) else orjson.dumps(value).decode()


_MEDIA = {"image": "image", "audio": "audio clip", "video": "video"}


def _media(content: _Content) -> dict[str, int]:
    found = [part.inline_data or part.file_data for part in content.parts]
    types = [str(data.get("mimeType", "")).partition("/")[0] for data in found if data is not None]
    kinds = [_MEDIA.get(kind, "file") for kind in types]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _input_tokens(texts: list[str], body: _Body, tools: Any, media: dict[str, int]) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    results = [_result(r.get("response") or {}) for c in body.contents for r in c.results]
    words = sum(len(tokens(text)) for text in [*texts, *results])
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(body.contents) + 4 + definitions + 85 * sum(media.values())


# -- the answer

_FINISH: dict[Finish, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
    "refusal": "SAFETY",
    "pause": "STOP",
}


def _signature(prompt: Prompt, label: object) -> dict[str, Any]:
    if not prompt.options["signs"]:
        return {}
    noise = number(prompt.seed, label, 256**32).to_bytes(32, "big")
    return {"thoughtSignature": base64.b64encode(noise * 3).decode()}


def _wire_calls(prompt: Prompt, answer: Answer) -> list[dict[str, Any]]:
    """The calls, whole, the first one signed. One whose arguments are no object, for it was cut
    off or scripted so, never leaves the server."""
    good = [(call, args) for call in answer.calls if (args := _arguments(call)) is not None]
    return [
        {
            "functionCall": {"name": call.name, "args": args, **_call_id(prompt, call, index)},
            **(_signature(prompt, "call") if index == 0 else {}),
        }
        for index, (call, args) in enumerate(good)
    ]


def _arguments(call: Call) -> dict[str, Any] | None:
    try:
        value = orjson.loads(call.text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _call_id(prompt: Prompt, call: Call, index: int) -> dict[str, str]:
    if not call.id and not prompt.options["signs"]:
        return {}
    return {"id": call.id or ident(prompt.seed, ("call", index), 8).lower()}


def _parts(prompt: Prompt, answer: Answer) -> list[dict[str, Any]]:
    """The parts of an answer that is not streamed."""
    parts: list[dict[str, Any]] = []
    calls = _wire_calls(prompt, answer)
    if answer.reasoning:
        parts.append({"text": answer.reasoning, "thought": True})
    if answer.text:
        parts.append({"text": answer.text, **({} if calls else _signature(prompt, "text"))})
    return parts + calls


def _streamed_parts(prompt: Prompt, answer: Answer) -> Iterator[list[dict[str, Any]]]:
    """The parts of each event but the last."""
    for word in tokens(answer.reasoning):
        yield [{"text": word, "thought": True}]
    for word in tokens(answer.text):
        yield [{"text": word}]
    for part in _wire_calls(prompt, answer):
        if prompt.options["partial"]:
            yield from _in_pieces(part)
        else:
            yield [part]


def _in_pieces(part: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """A call whose arguments come value by value, texts five characters at a time."""
    call = dict(part["functionCall"])
    leaves = list(_leaves(call.pop("args"), "$"))
    more = {"willContinue": True} if leaves else {}
    yield [{**part, "functionCall": {**call, **more}}]
    for piece in leaves:
        yield [{"functionCall": {"partialArgs": [piece], **more}}]
    if leaves:
        yield [{"functionCall": {}}]


def _leaves(value: Any, path: str) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            step = f".{key}" if key.isidentifier() else f"[{orjson.dumps(key).decode()}]"
            yield from _leaves(each, path + step)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, f"{path}[{index}]")
    elif isinstance(value, str):
        for piece in pieces(value):
            yield {"jsonPath": path, "stringValue": piece, "willContinue": True}
        yield {"jsonPath": path, "stringValue": ""}
    else:
        kinds = {bool: "boolValue", int: "numberValue", float: "numberValue"}
        kind = kinds.get(type(value))
        yield {"jsonPath": path, **({kind: value} if kind else {"nullValue": "NULL_VALUE"})}


def _event(
    prompt: Prompt, parts: list[dict[str, Any]], usage: dict[str, Any], **fields: Any
) -> dict[str, Any]:
    """What an event holds and, with all of the parts, a body that is not streamed."""
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if not prompt.options["vertex"]:
        candidate["index"] = 0
    return {
        "candidates": [{**candidate, **fields}],
        "usageMetadata": usage,
        "modelVersion": prompt.model,
        "responseId": ident(prompt.seed, "response", 22),
    }


def _ending(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """What the candidate of the last event says beside its parts."""
    malformed = [call.text for call in answer.calls if _arguments(call) is None]
    reason = _FINISH[answer.ending]
    if malformed and answer.ending != "length":
        reason = "MALFORMED_FUNCTION_CALL"
    fields: dict[str, Any] = {"finishReason": reason}
    if reason == "MALFORMED_FUNCTION_CALL":
        fields["finishMessage"] = f"Malformed function call: {malformed[0]}"
    if answer.found:
        fields["groundingMetadata"] = _grounding(answer.text, answer.found)
    return fields


def _grounding(text: str, found: Found) -> dict[str, Any]:
    segment = {"endIndex": len(text.encode()), "text": text}
    return {
        "searchEntryPoint": {"renderedContent": f"<div>{found.query}</div>"},
        "groundingChunks": [{"web": {"uri": found.url, "title": found.title}}],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}] if text else [],
        "webSearchQueries": [found.query],
    }


def _usage(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    usage = answer.counted(prompt)
    fields: dict[str, Any] = {"promptTokenCount": usage.input}
    counts = {
        "candidatesTokenCount": usage.output - usage.reasoning,
        "cachedContentTokenCount": usage.cache_read,
        "thoughtsTokenCount": usage.reasoning,
    }
    fields |= {name: count for name, count in counts.items() if count}  # zeros are left out
    fields["totalTokenCount"] = usage.input + usage.output
    fields["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.input}]
    return fields | ({"trafficType": "ON_DEMAND"} if prompt.options["vertex"] else {})


def _running(prompt: Prompt, answer: Answer, spent: int) -> dict[str, Any]:
    """The figures in the middle of a stream: Vertex AI gives none."""
    if prompt.options["vertex"]:
        return {"trafficType": "ON_DEMAND"}
    usage = answer.counted(prompt)
    thought = min(spent, usage.reasoning)
    counts = {
        "promptTokenCount": usage.input,
        "candidatesTokenCount": spent - thought,
        "thoughtsTokenCount": thought,
        "totalTokenCount": usage.input + spent,
    }
    return {name: count for name, count in counts.items() if count}


def _logprobs(prompt: Prompt, words: list[str], start: int) -> dict[str, Any]:
    top = prompt.options["logprobs"]
    if top is None or not words:
        return {}
    chosen = [_scored(prompt, word, start + n, 0) for n, word in enumerate(words)]
    rivals = [
        [_scored(prompt, f"{word}{rank or ''}", start + n, rank) for rank in range(top)]
        for n, word in enumerate(words)
    ]
    result: dict[str, Any] = {"chosenCandidates": chosen}
    if top:
        result["topCandidates"] = [{"candidates": candidates} for candidates in rivals]
    return {"logprobsResult": result}


def _scored(prompt: Prompt, word: str, place: int, rank: int) -> dict[str, Any]:
    chance = -(1 + number(prompt.seed, ("logprob", place), 9_999)) / 20_000
    return {"token": word, "logProbability": chance - 2 * rank}


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    fields = {**_ending(prompt, answer), **_logprobs(prompt, tokens(answer.text), 0)}
    body = _event(prompt, _parts(prompt, answer), _usage(prompt, answer), **fields)
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _events(prompt: Prompt, answer: Answer) -> Iterator[dict[str, Any]]:
    place = 0
    for spent, parts in enumerate(_streamed_parts(prompt, answer), 1):
        fields = {}
        if parts[0].keys() == {"text"}:
            fields = _logprobs(prompt, [parts[0]["text"]], place)
            place += 1
        yield _event(prompt, parts, _running(prompt, answer, spent), **fields)
    if answer.failure is None:
        calls = _wire_calls(prompt, answer)
        mark = _signature(prompt, "text") if answer.text and not calls else {}
        usage = _usage(prompt, answer)
        yield _event(prompt, [{"text": "", **mark}], usage, **_ending(prompt, answer))
    else:
        yield _error(answer.failure, prompt.model)


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    events = list(_events(prompt, answer))
    if not prompt.options["array"]:
        return [_sent(event) for event in events]
    indented = [orjson.dumps(event, option=orjson.OPT_INDENT_2) for event in events]
    first, *rest = indented
    return [b"[" + first, *(b"\n,\r\n" + each for each in rest), b"\n]"]


def _sent(event: dict[str, Any]) -> bytes:
    if "error" in event:  # it stands there as it is, as if it were the body
        return orjson.dumps(event, option=orjson.OPT_INDENT_2)
    return b"data: " + orjson.dumps(event) + b"\r\n\r\n"


# -- errors: status, its word, usual message, reason or quota

_FAILURES: dict[Kind, tuple[int, str, str]] = {
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "authentication": (
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
    ),
    "permission": (403, "PERMISSION_DENIED", "The caller does not have permission"),
    "not_found": (
        404,
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or is not supported for "
        "generateContent. Call ModelService.ListModels to see the list of available models and "
        "their supported methods.",
    ),
    "too_large": (
        400,
        "INVALID_ARGUMENT",
        "Request payload size exceeds the limit: 20971520 bytes.",
    ),
    "context_overflow": (
        400,
        "INVALID_ARGUMENT",
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "rate_limit": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "quota": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "server": (500, "INTERNAL", "An internal error has occurred. Please retry."),
    "overloaded": (
        503,
        "UNAVAILABLE",
        "The model is overloaded. Please try again later.",
    ),
}
_QUOTAS: dict[Kind, str] = {"rate_limit": "PerMinute", "quota": "PerDay"}


def _details(failure: Failure) -> Iterator[dict[str, Any]]:
    known = "type.googleapis.com/google.rpc."
    if failure.kind == "authentication":
        domain = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        yield {"@type": known + "ErrorInfo", **domain}
    if failure.kind in _QUOTAS:
        quota = f"GenerateRequests{_QUOTAS[failure.kind]}PerProjectPerModel-FreeTier"
        yield {"@type": known + "QuotaFailure", "violations": [{"quotaId": quota}]}
    wait = failure.retry_after or (1 if failure.kind in _QUOTAS else None)
    if wait is not None:
        yield {"@type": known + "RetryInfo", "retryDelay": f"{wait:g}s"}


def _error(failure: Failure, model: str) -> dict[str, Any]:
    status, word, usual = _FAILURES[failure.kind]
    message = failure.message or usual.format(model=model)
    error = {"code": failure.status or status, "message": message, "status": word}
    details = list(_details(failure))
    return {"error": {**error, **({"details": details} if details else {})}}


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    body = orjson.dumps(_error(failure, model), option=orjson.OPT_INDENT_2)
    return failure.status or _FAILURES[failure.kind][0], body


DIALECT = Dialect(
    name="gemini",
    route=_ROUTE,
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
)
