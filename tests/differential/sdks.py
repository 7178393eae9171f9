"""What each vendor's own SDK reads from an answer, in one form.

A reader asks the server at `url`, puts a stream together as the SDK does (by its own helper where
it has one), and gives what it says. Nothing of streamfold is used here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import msgspec

__all__ = ["READERS", "Call", "Said"]

Body = dict[str, Any]


class Call(msgspec.Struct):
    """A tool call. `id` is None where the wire has none; `args` are raw where they are not JSON."""

    id: str | None
    name: str
    args: Any


class Said(msgspec.Struct):
    """What an answer says. `error`: the HTTP status and the vendor's words; the rest is then what
    came before it. `finish` and `usage` are the vendor's own."""

    text: str = ""
    reasoning: str = ""
    tool_calls: list[Call] = []
    finish: str | None = None
    usage: Body | None = None
    error: tuple[int | None, str] | None = None


def args_of(text: str | None) -> Any:
    """Arguments that come as JSON; what cannot be read stays raw."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


# ---- openai --------------------------------------------------------------------------------------


def _openai(url: str) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=url + "/v1", api_key="test-key", max_retries=0)


def _openai_error(error: Any) -> tuple[int | None, str]:
    """Of an HTTP error the words of its body; in a stream there is no status but the answer's."""
    body = error.body
    said = body.get("message") or body.get("detail") if isinstance(body, dict) else body
    return getattr(error, "status_code", 200), str(said or error.message)


def openai_chat(url: str, stream: bool) -> Said:
    """`ChatCompletionStreamState` puts streams together, and keeps fields that it does not know."""
    from openai import APIError
    from openai.lib.streaming.chat import ChatCompletionStreamState

    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    state = ChatCompletionStreamState()
    try:
        with _openai(url) as client:
            if not stream:
                return _completion(client.chat.completions.create(**ask))
            with client.chat.completions.create(**ask, stream=True) as chunks:
                for chunk in chunks:
                    state.handle_chunk(chunk)
    except APIError as error:
        said = Said() if _is_empty(state) else _completion(state.current_completion_snapshot)
        said.error = _openai_error(error)
        return said
    return _completion(state.current_completion_snapshot)


def _is_empty(state: Any) -> bool:
    try:
        return state.current_completion_snapshot is None
    except AssertionError:
        return True


def _completion(completion: Any) -> Said:
    choice = next((one for one in completion.choices if one.index == 0), None)
    if choice is None:
        return Said(usage=_dumped(completion.usage))
    if choice.message is None:
        return Said(finish=choice.finish_reason, usage=_dumped(completion.usage))
    message, extra = choice.message, choice.message.model_extra or {}
    calls = []
    for call in message.tool_calls or ():
        if call.type == "custom":
            calls.append(Call(call.id, call.custom.name, args_of(call.custom.input)))
        else:
            calls.append(Call(call.id, call.function.name, args_of(call.function.arguments)))
    return Said(
        text=message.content or "",
        reasoning=extra.get("reasoning_content") or extra.get("reasoning") or "",
        tool_calls=calls,
        finish=choice.finish_reason,
        usage=_dumped(completion.usage),
    )


def _dumped(usage: Any) -> Body | None:
    return None if usage is None else usage.model_dump(mode="json", exclude_none=True)


def openai_responses(url: str, stream: bool) -> Said:
    """The response that the last event of a stream holds."""
    from openai import APIError

    ask: Any = {"model": "m", "input": "hi"}
    response = None
    try:
        with _openai(url) as client:
            if not stream:
                return _response(client.responses.create(**ask))
            with client.responses.create(**ask, stream=True) as events:
                for event in events:
                    response = getattr(event, "response", None) or response
    except APIError as error:
        return Said(error=_openai_error(error))
    return _response(response)


def _response(response: Any) -> Said:
    said = Said(text=response.output_text, usage=_dumped(response.usage), finish=response.status)
    if response.incomplete_details is not None:
        said.finish = response.incomplete_details.reason
    if response.error is not None:
        said.error = (200, response.error.message)
    for item in response.output:
        if item.type == "reasoning":
            parts = item.summary or item.content or ()
            said.reasoning += "".join(part.text for part in parts)
        elif item.type == "function_call":
            said.tool_calls.append(Call(item.call_id, item.name, args_of(item.arguments)))
        elif item.type == "custom_tool_call":
            said.tool_calls.append(Call(item.call_id, item.name, args_of(item.input)))
    return said


# ---- anthropic -----------------------------------------------------------------------------------


def anthropic(url: str, stream: bool) -> Said:
    """`beta.messages.stream` puts streams together; the beta has all kinds of blocks."""
    from anthropic import Anthropic, APIError

    ask: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    message = None
    try:
        with Anthropic(base_url=url, api_key="test-key", max_retries=0) as client:
            if not stream:
                return _anthropic_message(client.beta.messages.create(**ask))
            with client.beta.messages.stream(**ask) as events:
                for _ in events:
                    message = events.current_message_snapshot
    except APIError as error:
        said = Said() if message is None else _anthropic_message(message)
        body: Any = error.body if isinstance(error.body, dict) else {}
        words = (body.get("error") or {}).get("message") or error.message
        said.error = (getattr(error, "status_code", 200), words)
        return said
    return _anthropic_message(message)


def _anthropic_message(message: Any) -> Said:
    blocks = message.content
    return Said(
        text="".join(block.text for block in blocks if block.type == "text"),
        reasoning="".join(block.thinking for block in blocks if block.type == "thinking"),
        tool_calls=[
            Call(block.id, block.name, block.input) for block in blocks if block.type == "tool_use"
        ],
        finish=message.stop_reason,
        usage=_dumped(message.usage),
    )


# ---- google-genai --------------------------------------------------------------------------------


def gemini(url: str, stream: bool) -> Said:
    """The SDK gives the pieces of a stream; all that is done here is to join texts."""
    from google import genai
    from google.genai import errors, types

    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    said = Said()
    with genai.Client(api_key="test-key", http_options=options) as client:
        ask: Any = {"model": "gemini-x", "contents": "hi"}
        try:
            if stream:
                for piece in client.models.generate_content_stream(**ask):
                    _add_gemini(said, piece)
            else:
                _add_gemini(said, client.models.generate_content(**ask))
        except errors.APIError as error:
            said.error = (error.code, error.message or "")
    return said


def _add_gemini(said: Said, answer: Any) -> None:
    if answer.usage_metadata is not None:
        dumped = answer.usage_metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
        said.usage = {**(said.usage or {}), **dumped}
    for candidate in (answer.candidates or ())[:1]:
        if candidate.finish_reason is not None:
            said.finish = candidate.finish_reason.value
        for part in (candidate.content and candidate.content.parts) or ():
            if part.function_call is not None:
                call = part.function_call
                said.tool_calls.append(Call(call.id, call.name, call.args or {}))
            elif part.text and part.thought:
                said.reasoning += part.text
            elif part.text:
                said.text += part.text


# ---- ollama --------------------------------------------------------------------------------------


def ollama(url: str, stream: bool) -> Said:
    from ollama import Client, ResponseError

    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    said = Said()
    try:
        with Client(host=url) as client:
            answer: Any = client.chat(**ask, stream=stream)
            for piece in answer if stream else [answer]:
                _add_ollama(said, piece)
    except ResponseError as error:
        said.error = (200 if error.status_code == -1 else error.status_code, error.error)
    return said


def _add_ollama(said: Said, piece: Any) -> None:
    message = piece.message
    said.text += message.content or ""
    said.reasoning += message.thinking or ""
    for call in message.tool_calls or ():
        said.tool_calls.append(Call(None, call.function.name, dict(call.function.arguments)))
    said.finish = piece.done_reason or said.finish
    counts = {name: piece[name] for name in _OLLAMA_COUNTS if piece.get(name) is not None}
    said.usage = counts or said.usage


_OLLAMA_COUNTS = ("prompt_eval_count", "eval_count")


# ---- botocore ------------------------------------------------------------------------------------


def bedrock(url: str, stream: bool) -> Said:
    """The pieces of a stream as botocore decodes them, joined by their block's number."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import ClientError, EventStreamError

    session = botocore.session.Session()
    client = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}),
    )
    ask: Any = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    said, blocks = Said(), dict[int, Body]()
    try:
        if not stream:
            answer = client.converse(**ask)
            said.finish, said.usage = answer["stopReason"], answer["usage"]
            return _with_blocks(said, answer["output"]["message"]["content"])
        with closing(client.converse_stream(**ask)["stream"]) as events:
            for event in events:
                _add_bedrock(said, blocks, event)
    except EventStreamError as error:
        said.error = (200, error.response["Error"]["Message"])
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        said.error = (status, error.response["Error"]["Message"])
    finally:
        client.close()
    return _with_blocks(said, [blocks[number] for number in sorted(blocks)])


def _add_bedrock(said: Said, blocks: dict[int, Body], event: Body) -> None:
    ((kind, payload),) = event.items()
    if kind == "contentBlockStart":
        start = payload["start"]
        blocks[payload["contentBlockIndex"]] = {key: dict(v) for key, v in start.items()}
    elif kind == "contentBlockDelta":
        block = blocks.setdefault(payload["contentBlockIndex"], {})
        for key, value in payload["delta"].items():
            if key == "text":
                block["text"] = block.get("text", "") + value
            elif key == "toolUse":
                use = block["toolUse"]
                use["input"] = use.get("input", "") + value["input"]
            elif key == "reasoningContent" and "text" in value:
                inner = block.setdefault(key, {"reasoningText": {"text": ""}})["reasoningText"]
                inner["text"] += value["text"]
    elif kind == "messageStop":
        said.finish = payload["stopReason"]
    elif kind == "metadata":
        said.usage = payload["usage"]


def _with_blocks(said: Said, blocks: Iterable[Body]) -> Said:
    for block in blocks:
        use = block.get("toolUse")
        cited = block.get("citationsContent", {}).get("content", ())
        said.text += block.get("text", "") + "".join(part["text"] for part in cited)
        reasoning = block.get("reasoningContent", {}).get("reasoningText", {})
        said.reasoning += reasoning.get("text", "")
        if use is not None and use.get("type") != "server_tool_use":
            given = use.get("input", "")
            args = args_of(given) if isinstance(given, str) else given
            said.tool_calls.append(Call(use["toolUseId"], use["name"], args))
    return said


# ---- cohere --------------------------------------------------------------------------------------


def cohere(url: str, stream: bool) -> Said:
    import httpx
    from cohere import ClientV2, UserChatMessageV2
    from cohere.core.api_error import ApiError

    ask: Any = {
        "model": "m",
        "messages": [UserChatMessageV2(content="hi")],
        "request_options": {"max_retries": 0},
    }
    said = Said()
    try:
        with httpx.Client() as http:
            client = ClientV2(api_key="test-key", base_url=url, httpx_client=http)
            if stream:
                _add_cohere(said, client.chat_stream(**ask))
            else:
                _take_cohere(said, client.chat(**ask))
    except ApiError as error:
        body: Any = error.body if isinstance(error.body, dict) else {}
        said.error = (error.status_code, body.get("message") or str(error.body))
    return said


def _take_cohere(said: Said, answer: Any) -> None:
    said.finish, said.usage = answer.finish_reason, _dumped_v1(answer.usage)
    for part in answer.message.content or ():
        said.text += getattr(part, "text", "")
        said.reasoning += getattr(part, "thinking", "")
    for call in answer.message.tool_calls or ():
        function = call.function
        said.tool_calls.append(Call(call.id, function.name, args_of(function.arguments)))


def _dumped_v1(usage: Any) -> Body | None:
    return None if usage is None else json.loads(usage.json(exclude_none=True))


def _add_cohere(said: Said, events: Iterator[Any]) -> None:
    for event in events:
        delta = getattr(event, "delta", None)
        if event.type in ("content-start", "content-delta"):
            content = delta.message.content
            said.text += getattr(content, "text", None) or ""
            said.reasoning += getattr(content, "thinking", None) or ""
        elif event.type == "tool-call-start":
            call = delta.message.tool_calls
            said.tool_calls.append(Call(call.id, call.function.name, call.function.arguments or ""))
        elif event.type == "tool-call-delta":
            said.tool_calls[-1].args += delta.message.tool_calls.function.arguments
        elif event.type == "message-end":
            said.finish, said.usage = delta.finish_reason, _dumped_v1(delta.usage)
            if delta.error:
                said.error = (200, delta.error)
    for call in said.tool_calls:
        call.args = args_of(call.args)


#: By dialect: the module that must be there, and the reader.
READERS: dict[str, tuple[str, Callable[[str, bool], Said]]] = {
    "openai_chat": ("openai", openai_chat),
    "openai_responses": ("openai", openai_responses),
    "anthropic": ("anthropic", anthropic),
    "gemini": ("google.genai", gemini),
    "ollama": ("ollama", ollama),
    "bedrock": ("botocore", bedrock),
    "cohere": ("cohere", cohere),
}
