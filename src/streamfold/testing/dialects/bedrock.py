"""Amazon Bedrock Converse, as the vendor's server speaks it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from itertools import pairwise
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

_ROUTE = re.compile(r"/model/(?P<model>.+)/converse(?P<stream>-stream)?$")
_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


# -- the request


class _Message(msgspec.Struct):
    role: str
    content: list[dict[str, Any]]


class _Inference(msgspec.Struct, frozen=True):
    maxTokens: int | None = None
    temperature: float | None = None
    topP: float | None = None
    stopSequences: list[str] | None = None


class _ToolConfig(msgspec.Struct):
    tools: list[dict[str, Any]]
    toolChoice: dict[str, dict[str, Any]] | None = None


class _Body(msgspec.Struct):
    messages: list[_Message]
    system: list[dict[str, Any]] = []
    inferenceConfig: _Inference = _Inference()
    toolConfig: _ToolConfig | None = None
    additionalModelRequestFields: dict[str, Any] = {}
    outputConfig: dict[str, Any] = {}


def _read(request: Request) -> Prompt:
    asked = _ROUTE.search(request.path)
    assert asked is not None
    if "Credential=wrong/" in request.headers.get("authorization", ""):
        raise Rejected("authentication")
    raw = request.json()
    body = msgspec.convert(raw, _Body)
    _check(body)
    last = body.messages[-1]
    user = next((m for m in reversed(body.messages) if _says_something(m)), last)
    tools = _tools(body)
    choice, forced = _choice(body, tools)
    texts = [_text(body.system), *(_text(message.content) for message in body.messages)]
    media = _media(user)
    results = [_text(result.get("content")) for result in _parts(last, "toolResult")]
    return Prompt(
        model=asked["model"],
        seed=fingerprint("bedrock", {**raw, "model": asked["model"]}),
        user=_text(user.content),
        context="\n".join(texts),
        results=results,
        media=media,
        tools=tools,
        choice=choice,
        forced=forced,
        parallel=not _single(body),
        search="nova_grounding" in _system_tools(body),
        schema=_schema(body),
        reasoning=_thinks(body),
        max_tokens=body.inferenceConfig.maxTokens,
        stop=body.inferenceConfig.stopSequences or [],
        input_tokens=_input_tokens(texts, raw.get("toolConfig"), media, body.messages),
        stream=asked["stream"] is not None,
    )


def _check(body: _Body) -> None:
    """What the real API refuses and clients get wrong."""
    roles = [message.role for message in body.messages]
    blank = next(_blanks(body), None)
    uses_tools = any(_parts(m, kind) for m in body.messages for kind in ("toolUse", "toolResult"))
    complaints = {
        "The messages field is required. Add messages and try again.": not roles,
        "A conversation must start with a user message. Try again with a conversation that starts "
        "with a user message.": roles[:1] != ["user"],
        "A conversation must alternate between user and assistant roles. Make sure the "
        "conversation alternates between user and assistant roles and try again.": any(
            one == two for one, two in pairwise(roles)
        ),
        f"The text field in the ContentBlock object at {blank} is blank. Add text to the text "
        "field, and try again.": blank is not None,
        "The toolConfig field must be defined when using toolUse and toolResult content "
        "blocks.": uses_tools and body.toolConfig is None,
        "Thinking may not be enabled when tool_choice forces tool use.": _forces(body)
        and _thinking(body).get("type") in ("enabled", "adaptive"),
    }
    for complaint, holds in complaints.items():
        if holds:
            raise Rejected("bad_request", complaint)


def _blanks(body: _Body) -> Iterator[str]:
    for place, message in enumerate(body.messages):
        for number_, block in enumerate(message.content):
            if isinstance(block.get("text"), str) and not block["text"].strip():
                yield f"messages.{place}.content.{number_}"


def _forces(body: _Body) -> bool:
    choice = body.toolConfig.toolChoice if body.toolConfig else None
    return bool(choice) and "auto" not in (choice or {})


def _thinking(body: _Body) -> dict[str, Any]:
    thinking = body.additionalModelRequestFields.get("thinking")
    return thinking if isinstance(thinking, dict) else {}


def _thinks(body: _Body) -> bool:
    fields = body.additionalModelRequestFields
    nova = (fields.get("reasoningConfig") or {}).get("type") == "enabled"
    asked = (
        fields.get("reasoning_effort") or fields.get("reasoning") or body.outputConfig.get("effort")
    )
    return nova or _thinking(body).get("type") in ("enabled", "adaptive") or bool(asked)


def _says_something(message: _Message) -> bool:
    """A user message that is not only tool results."""
    return message.role == "user" and bool(_text(message.content) or _media(message))


def _parts(message: _Message, key: str) -> list[dict[str, Any]]:
    return [block[key] for block in message.content if isinstance(block.get(key), dict)]


def _text(content: Any) -> str:
    """The text of a list of blocks, whatever else is in it."""
    texts = [_block_text(block) for block in content or () if isinstance(block, dict)]
    return "\n".join(text for text in texts if text)


def _block_text(block: dict[str, Any]) -> str:
    if "json" in block:
        return orjson.dumps(block["json"]).decode()
    if "citationsContent" in block:
        return _text(block["citationsContent"].get("content"))
    if "guardContent" in block:
        return _text([block["guardContent"].get("text")])
    text = block.get("text")
    return text if isinstance(text, str) else ""


_MEDIA = {"image": "image", "document": "file", "video": "video", "audio": "audio"}


def _media(message: _Message) -> dict[str, int]:
    counts = {label: len(_parts(message, kind)) for kind, label in _MEDIA.items()}
    return {label: count for label, count in counts.items() if count}


def _tools(body: _Body) -> list[Tool]:
    specs = [tool.get("toolSpec") for tool in (body.toolConfig.tools if body.toolConfig else [])]
    return [
        Tool(spec["name"], spec.get("description", ""), spec["inputSchema"]["json"])
        for spec in specs
        if spec
    ]


def _system_tools(body: _Body) -> list[str]:
    tools = body.toolConfig.tools if body.toolConfig else []
    return [tool["systemTool"]["name"] for tool in tools if "systemTool" in tool]


def _choice(body: _Body, tools: list[Tool]) -> tuple[Any, str]:
    choice = (body.toolConfig and body.toolConfig.toolChoice) or {"auto": {}}
    kind, fields = next(iter(choice.items()))
    if kind not in ("auto", "any", "tool"):
        raise Rejected("bad_request", f"Unknown parameter in toolConfig.toolChoice: {kind}")
    if kind != "tool":
        return kind, ""
    name = str(fields.get("name", ""))
    if name not in [tool.name for tool in tools]:
        raise Rejected("bad_request", f"The tool {name} in toolChoice is not in the toolConfig.")
    return "one", name


def _single(body: _Body) -> bool:
    choice = body.additionalModelRequestFields.get("tool_choice")
    return isinstance(choice, dict) and bool(choice.get("disable_parallel_tool_use"))


def _schema(body: _Body) -> dict[str, Any] | None:
    form = body.outputConfig.get("textFormat")
    if form is None:
        return None
    try:
        schema = orjson.loads(form["structure"]["jsonSchema"]["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise Rejected("bad_request", "The value at outputConfig.textFormat is invalid.") from error
    return schema if isinstance(schema, dict) else None


def _input_tokens(
    texts: list[str], tools: Any, media: dict[str, int], messages: list[_Message]
) -> int:
    """Words, three tokens for each message, four for the request, 85 for each picture."""
    results = [_text(r.get("content")) for m in messages for r in _parts(m, "toolResult")]
    words = sum(len(tokens(text)) for text in [*texts, *results])
    definitions = len(pieces(orjson.dumps(tools).decode())) if tools else 0
    return words + 3 * len(messages) + 4 + definitions + 85 * sum(media.values())


# -- the answer: content blocks, each with the events it is streamed as

_FINISH: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "guardrail_intervened",
    "refusal": "content_filtered",
    "pause": "pause_turn",
}


class _Block(msgspec.Struct):
    """`whole`: as it is in a message. `start`, if it has one, and `deltas`: as it is streamed."""

    whole: dict[str, Any]
    deltas: list[dict[str, Any]] = []
    start: dict[str, Any] | None = None


def _content(prompt: Prompt, answer: Answer) -> Iterator[_Block]:
    if answer.reasoning:
        yield _thought(prompt, answer.reasoning)
    if answer.found:
        yield from _search(prompt, answer.found)
    if answer.text:
        yield _Block({"text": answer.text}, [{"text": word} for word in tokens(answer.text)])
    if answer.found:
        citation = {"location": {"web": {"url": answer.found.url, "domain": "example.com"}}}
        cited = {"citations": [citation], "content": []}
        yield _Block({"citationsContent": cited}, [{"citation": citation}])
    for index, call in enumerate(answer.calls):
        yield _tool_use(prompt, call, index)


def _thought(prompt: Prompt, reasoning: str) -> _Block:
    deltas: list[dict[str, Any]] = [{"text": word} for word in tokens(reasoning)]
    inner = {"text": reasoning}
    if "claude" in prompt.model:  # the others do not sign
        noise = number(prompt.seed, "signature", 256**32).to_bytes(32, "big")
        inner["signature"] = base64.b64encode(noise * 3).decode()
        deltas.append({"signature": inner["signature"]})
    whole = {"reasoningContent": {"reasoningText": inner}}
    return _Block(whole, [{"reasoningContent": delta} for delta in deltas])


def _search(prompt: Prompt, found: Found) -> Iterator[_Block]:
    use = {
        "name": "nova_grounding",
        "toolUseId": _use_id(prompt, "search"),
        "type": "server_tool_use",
    }
    query = {"query": found.query}
    yield _Block({"toolUse": {**use, "input": query}}, _inputs(Call("", query)), {"toolUse": use})
    result = {
        "status": "success",
        "toolUseId": use["toolUseId"],
        "type": "nova_grounding_result",
    }
    output = [{"text": "[HIDDEN]"}]
    yield _Block(
        {"toolResult": {**result, "content": output}},
        [{"toolResult": output}],
        {"toolResult": result},
    )


def _tool_use(prompt: Prompt, call: Call, index: int) -> _Block:
    use = {"name": call.name, "toolUseId": call.id or _use_id(prompt, index)}
    # A whole message can only hold an object: arguments that were cut off are lost there.
    args = call.args if isinstance(call.args, dict) else {}
    return _Block({"toolUse": {**use, "input": args}}, _inputs(call), {"toolUse": use})


def _use_id(prompt: Prompt, label: object) -> str:
    return "tooluse_" + ident(prompt.seed, ("call", label), 22)


def _inputs(call: Call) -> list[dict[str, Any]]:
    # The first piece is empty, and so is the only one of a tool without arguments.
    parts = ["", *(pieces(call.text) if call.text != "{}" else [])]
    return [{"toolUse": {"input": part}} for part in parts]


def _ending(answer: Answer) -> str:
    return "stop_sequence" if answer.stopped_by else _FINISH[answer.ending]


def _figures(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """Metrics and usage; this vendor's `inputTokens` leaves the cached ones out."""
    usage = answer.counted(prompt)
    counts = {
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_creation,
        "inputTokens": usage.input - usage.cache_read - usage.cache_creation,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output,
    }
    latency = 200 + number(prompt.seed, "latency", 2_000)
    return {"metrics": {"latencyMs": latency}, "usage": counts}


def _whole(prompt: Prompt, answer: Answer) -> bytes:
    message = {"content": [b.whole for b in _content(prompt, answer)], "role": "assistant"}
    ending = {"output": {"message": message}, "stopReason": _ending(answer)}
    return orjson.dumps({**_figures(prompt, answer), **ending}, option=orjson.OPT_SORT_KEYS)


class _Stream:
    """One streamed answer being written."""

    def __init__(self, prompt: Prompt) -> None:
        self.seed = prompt.seed
        self.frames: list[bytes] = []

    def event(self, name: str, **fields: Any) -> None:
        # The real server pads its objects, against guessing from lengths.
        padding = _ALPHABET[: 1 + self.seed[len(self.frames) % 32] % len(_ALPHABET)]
        data = orjson.dumps({**fields, "p": padding}, option=orjson.OPT_SORT_KEYS)
        self.message("event", ":event-type", name, data)

    def message(self, kind: str, header: str, name: str, data: bytes) -> None:
        headers = {header: name, ":content-type": "application/json", ":message-type": kind}
        from streamfold.wire.eventstream import encode_message  # only when a stream is asked for

        self.frames.append(encode_message(headers, data))

    def block(self, index: int, block: _Block) -> None:
        if block.start is not None:
            self.event("contentBlockStart", contentBlockIndex=index, start=block.start)
        for delta in block.deltas:
            self.event("contentBlockDelta", contentBlockIndex=index, delta=delta)
        self.event("contentBlockStop", contentBlockIndex=index)


def _stream(prompt: Prompt, answer: Answer) -> list[bytes]:
    stream = _Stream(prompt)
    stream.event("messageStart", role="assistant")
    for index, block in enumerate(_content(prompt, answer)):
        stream.block(index, block)
    if answer.failure is None:
        stream.event("messageStop", stopReason=_ending(answer))
        stream.event("metadata", **_figures(prompt, answer))
    else:
        name = _IN_STREAMS.get(answer.failure.kind, "modelStreamErrorException")
        _, body = _failure(answer.failure, prompt.model, "")
        stream.message("exception", ":exception-type", name, body)
    return stream.frames


# -- errors: status, type, usual message

_IN_STREAMS: dict[Kind, str] = {
    "bad_request": "validationException",
    "context_overflow": "validationException",
    "rate_limit": "throttlingException",
    "quota": "throttlingException",
    "server": "internalServerException",
    "overloaded": "serviceUnavailableException",
}

_FAILURES: dict[Kind, tuple[int, str, str]] = {
    "bad_request": (400, "ValidationException", "The request is not valid."),
    "authentication": (
        403,
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    "permission": (
        403,
        "AccessDeniedException",
        "You don't have access to the model with the specified model ID.",
    ),
    "not_found": (404, "ResourceNotFoundException", "Could not resolve the foundation model."),
    "too_large": (413, "RequestEntityTooLargeException", "The request is too large."),
    "context_overflow": (400, "ValidationException", "Input is too long for requested model."),
    "rate_limit": (
        429,
        "ThrottlingException",
        "Too many requests, please wait before trying again.",
    ),
    "quota": (
        400,
        "ServiceQuotaExceededException",
        "Your request exceeds the service quota for your account.",
    ),
    "server": (
        500,
        "InternalServerException",
        "The system encountered an unexpected error during processing. Try your request again.",
    ),
    "overloaded": (
        503,
        "ServiceUnavailableException",
        "Bedrock is unable to process your request.",
    ),
}


def _failure(failure: Failure, model: str, request_id: str) -> tuple[int, bytes]:
    status, _, usual = _FAILURES[failure.kind]
    return failure.status or status, orjson.dumps({"message": failure.message or usual})


def _failure_headers(failure: Failure) -> dict[str, str]:
    """The type of an error is in a header only."""
    name = _FAILURES[failure.kind][1]
    return {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/com.amazon.bedrock/"}


DIALECT = Dialect(
    name="bedrock",
    route=_ROUTE,
    read=_read,
    whole=_whole,
    stream=_stream,
    failure=_failure,
    failure_headers=_failure_headers,
    request_id="x-amzn-requestid",
    stream_type="application/vnd.amazon.eventstream",
)
