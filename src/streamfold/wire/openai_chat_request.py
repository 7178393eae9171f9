"""Requests in OpenAI Chat Completions, as OpenAI and some twenty other vendors take them.

Reference: https://platform.openai.com/docs/api-reference/chat/create. What is sent:

- Standard blocks as OpenAI's parts, their `extras` merged in; OpenAI's own parts and the value of a
  `non_standard` block as they are. A message of one plain text is sent as a str.
- Reasoning goes back in the field in which it came (``extras["field"]``) and `reasoning_details`
  with it, to the vendor that sent it; OpenAI itself takes none back.
- An unreadable tool call goes back with its raw text if a result answers it; else it is left out,
  because a call without a result is rejected.
- What this API has no place for (server tools of other vendors, ...) is left out with one warning.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ..content import KNOWN_BLOCK_TYPES, Block
from ..messages import AIMessage, BaseMessage, ToolMessage
from .encoding import (
    Dropped,
    ToolChoice,
    Turn,
    encoded,
    function_tool,
    json_bytes,
    json_text,
    merged,
    native_value,
    other_fields,
    read_choice,
    turns,
    unknown_part,
)
from .media import decoded_text, media, media_type, unpacked
from .request import ChatRequest, HTTPRequest

__all__ = ["BODY_FIELDS", "URL_BLOCKS", "encode"]

DIALECT: Final = "Chat Completions"

#: Parts that are passed on as they are: OpenAI's, and those of vendors that speak its dialect.
NATIVE_PARTS: Final = frozenset(
    {
        "audio_url",  # vLLM
        "document_url",  # Mistral
        "image_url",
        "input_audio",
        "reference",  # Mistral
        "refusal",
        "thinking",  # Mistral
        "video_url",  # vLLM, Alibaba, OpenRouter
    }
)


def encode(request: ChatRequest) -> HTTPRequest:
    """The request for ``POST /chat/completions``.

    Quirks: `max_completion_tokens` and `random_seed` send `max_tokens` and `seed` under these
    names, `no_stream_options` leaves out the request for usage figures. Raises ConfigurationError
    for what cannot be sent.
    """
    dropped = Dropped(DIALECT)
    messages = [_message(turn) for turn in turns(request, dropped)]
    body = {"model": request.model, "messages": messages, **_parameters(request)}
    if {"max_tokens", "max_completion_tokens"} & request.extra.keys():
        body.pop(_token_field(request), None)  # sent side by side, the two are an error
    body = merged(body, request.extra, deep=("stream_options",))
    dropped.warn()
    return HTTPRequest(path="/chat/completions", body=json_bytes(body))


# ---- parameters ----------------------------------------------------------------------------------


def _token_field(request: ChatRequest) -> str:
    long = "max_completion_tokens"
    return long if long in request.quirks else "max_tokens"


def _parameters(request: ChatRequest) -> dict[str, Any]:
    fields = {
        "temperature": request.temperature,
        _token_field(request): request.max_tokens,
        "stop": request.stop,
        "top_p": request.top_p,
        "random_seed" if "random_seed" in request.quirks else "seed": request.seed,
        "reasoning_effort": request.reasoning_effort,
        "response_format": request.response_format,
        **_tools(request),
        "stream": request.stream or None,
    }
    if request.stream and request.stream_usage and "no_stream_options" not in request.quirks:
        fields["stream_options"] = {"include_usage": True}
    return {name: value for name, value in fields.items() if value is not None}


def _tools(request: ChatRequest) -> dict[str, Any]:
    choice = read_choice(request)
    fields: dict[str, Any] = {"tool_choice": None if choice is None else _choice(choice)}
    # An empty list is rejected, and so are parallel calls without tools (openai/swarm#30).
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
    if request.tools or request.extra.get("tools"):
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = function_tool(tool)
    if function is None:
        return tool
    if isinstance(tool.get("function"), Mapping):
        return {"type": "function", **tool}
    shape = {
        "name": function.name,
        "description": function.description,
        "parameters": function.parameters,
        "strict": function.strict,
    }
    shape = {key: value for key, value in shape.items() if value is not None}
    return {"type": "function", "function": shape, **function.rest}


def _choice(choice: ToolChoice) -> Any:
    if choice.kind == "native":
        return choice.native
    if choice.kind != "named":
        return choice.kind
    tool = choice.tool or {}
    if function_tool(tool) is not None:
        return {"type": "function", "function": {"name": choice.name}}
    if "custom" in tool:
        return {"type": "custom", "custom": {"name": choice.name}}
    return {"type": tool.get("type")}


# ---- messages ------------------------------------------------------------------------------------


def _message(turn: Turn) -> dict[str, Any]:
    message = turn.message
    if isinstance(message, AIMessage):
        return _assistant(turn)
    # First, so that they may name another role (developer) but not change the content.
    sent: dict[str, Any] = {"role": message.role, **message.extras, **_name(message)}
    if isinstance(message, ToolMessage):
        sent["tool_call_id"] = message.tool_call_id
    sent["content"] = _content(turn)
    return sent


def _name(message: BaseMessage) -> dict[str, Any]:
    return {} if message.name is None else {"name": message.name}


def _content(turn: Turn) -> Any:
    content = turn.message.content
    if isinstance(content, str):
        return content
    parts = [part for block in content if (part := _part(block, turn)) is not None]
    return parts[0]["text"] if len(parts) == 1 and _is_plain(parts[0]) else parts


def _is_plain(part: Block) -> bool:
    return part.keys() == {"type", "text"} and part["type"] == "text"


def _part(block: Block, turn: Turn) -> Block | None:
    """A block as a part of a message that is not the model's; None if it has no place there."""
    kind = block.get("type")
    if kind in NATIVE_PARTS or (kind in ("file", "video") and kind in block):
        return block
    if kind in _PARTS:
        return encoded(_PARTS, block, turn)
    if kind not in KNOWN_BLOCK_TYPES:
        unknown_part(block, DIALECT, NATIVE_PARTS)
    turn.dropped.note(f"{kind} block in a {turn.message.role} message")
    return None


# ---- parts ---------------------------------------------------------------------------------------


def _text(block: Block, turn: Turn) -> Block:
    rest = other_fields(block, turn, "text", "annotations")
    return {"type": "text", "text": block.get("text") or "", **rest}


_MEDIA_FIELDS: Final = ("url", "base64", "file_id", "mime_type")
#: Extras that belong inside the object that holds the data; all others stand beside it.
_INNER: Final = frozenset({"detail", "filename"})


def _wrapped(name: str, inner: Block, block: Block, turn: Turn) -> Block:
    """``{"type": name, name: inner}`` with the block's extras where they belong."""
    rest = other_fields(block, turn, *_MEDIA_FIELDS)
    inside = {key: value for key, value in rest.items() if key in _INNER}
    beside = {key: value for key, value in rest.items() if key not in _INNER}
    return {"type": name, name: {**inside, **inner}, **beside}


def _data_url(block: Block) -> str:
    return f"data:{media_type(block)};base64,{block['base64']}"


def _image(block: Block, turn: Turn) -> Block:
    kind, value = media(block, DIALECT, "url", "base64", "file_id")
    if kind == "file_id":
        return _wrapped("file", {"file_id": value}, block, turn)
    return _wrapped("image_url", {"url": value if kind == "url" else _data_url(block)}, block, turn)


def _video(block: Block, turn: Turn) -> Block:
    kind, value = media(block, DIALECT, "url", "base64")
    return _wrapped("video_url", {"url": value if kind == "url" else _data_url(block)}, block, turn)


_AUDIO_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}


def _audio(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    _, data = media(block, DIALECT, "base64")
    subtype = media_type(block).split("/", 1)[1].split(";", 1)[0]
    inner = {"data": data, "format": _AUDIO_FORMATS.get(subtype, subtype)}
    return _wrapped("input_audio", inner, block, turn)


def _file(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    kind, value = media(block, DIALECT, "base64", "file_id")
    if kind == "file_id":
        return _wrapped("file", {"file_id": value}, block, turn)
    block = {"mime_type": "application/pdf", **block}
    extension = mimetypes.guess_extension(media_type(block)) or ""
    part = _wrapped("file", {"file_data": _data_url(block)}, block, turn)
    part["file"].setdefault("filename", f"document{extension}")  # data without a name is rejected
    return part


def _plain_text(block: Block, turn: Turn) -> Block:
    """A text document: there is no such part, so it is text, after its title and context."""
    kind, value = media(block, DIALECT, "text", "base64", "file_id")
    if kind == "file_id":
        return _wrapped("file", {"file_id": value}, block, turn)
    text = value if kind == "text" else decoded_text(block)
    head = [str(block[key]) for key in ("title", "context") if block.get(key)]
    rest = other_fields(block, turn, *_MEDIA_FIELDS, "text", "title", "context")
    return {"type": "text", "text": "\n\n".join([*head, text]), **rest}


_PARTS: Final[dict[str, Callable[[Block, Turn], Block | None]]] = {
    "text": _text,
    "image": _image,
    "audio": _audio,
    "video": _video,
    "file": _file,
    "text-plain": _plain_text,
    "non_standard": native_value,
}


# ---- what the model said -------------------------------------------------------------------------


class _Answer(msgspec.Struct):
    """An assistant message while its blocks are read."""

    parts: list[Block] = []
    calls: list[Block] = []
    images: list[Block] = []
    fields: dict[str, Any] = {}


def _assistant(turn: Turn) -> dict[str, Any]:
    message, answer = turn.message, _Answer()
    if isinstance(message.content, str):
        text = message.content
        answer.parts = [{"type": "text", "text": text}] if text else []
    else:
        for block in message.content:
            _answer_block(block, turn, answer)
    if turn.own:
        told = getattr(message, "response_metadata", {})
        answer.fields.update({key: told[key] for key in _RETURNED if key in told})
    sent = {"role": message.role, **answer.fields, **message.extras, **_name(message)}
    sent["content"] = _answer_content(answer)
    for key, blocks in (("tool_calls", answer.calls), ("images", answer.images)):
        if blocks:
            sent[key] = blocks
    return sent


#: Fields beside what was said that the vendor wants back: Gemini puts signatures there.
_RETURNED: Final = ("extra_content",)


def _answer_content(answer: _Answer) -> Any:
    """One str if there is only text: it was one stream of text, and many vendors take no list."""
    if all(_is_plain(part) for part in answer.parts):
        text = "".join(part["text"] for part in answer.parts)
        return text or (None if answer.calls or "audio" in answer.fields else "")
    return answer.parts


def _answer_block(block: Block, turn: Turn, answer: _Answer) -> None:
    kind = str(block.get("type"))
    reader = _ANSWER_BLOCKS.get(kind)
    if reader is not None:
        reader(block, turn, answer)
    elif kind in _INPUT_ONLY and kind not in block:
        turn.dropped.note(f"{kind} block in an assistant message")
    elif (part := _part(block, turn)) is not None:
        answer.parts.append(part)


_INPUT_ONLY: Final = frozenset({"video", "file", "text-plain"})


def _reasoning(block: Block, turn: Turn, answer: _Answer) -> None:
    """Reasoning goes back to the vendor that sent it, in the field in which it came."""
    extras = block.get("extras") or {}
    field, text = extras.get("field"), block.get("reasoning") or ""
    if not turn.own:
        turn.dropped.note("reasoning of another provider")
        return
    if field == "thinking" and text:  # Mistral: a part of the content
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
        answer.parts.append(thought)
    elif isinstance(field, str) and text:
        answer.fields[field] = answer.fields.get(field, "") + text
    if extras.get("reasoning_details"):
        details = answer.fields.setdefault("reasoning_details", [])
        details.extend(extras["reasoning_details"])


def _tool_call(block: Block, turn: Turn, answer: _Answer) -> None:
    answer.calls.append(_wire_call(block, json_text(block.get("args") or {}), turn))


def _invalid_call(block: Block, turn: Turn, answer: _Answer) -> None:
    if block.get("id") in turn.answered:
        answer.calls.append(_wire_call(block, block.get("args") or "", turn))
    else:
        turn.dropped.note("unreadable tool call without a result")


def _wire_call(block: Block, args: str, turn: Turn) -> Block:
    extras = dict(block.get("extras") or {}) if turn.own else {}
    kind = extras.pop("type", "function")
    name = block.get("name") or ""
    if kind == "custom":
        call: Block = {"custom": {"name": name, "input": args}}
    else:
        call = {"function": {"name": name, "arguments": args}}
    id = {} if block.get("id") is None else {"id": block["id"]}
    return {**id, "type": kind, **call, **extras}


def _answer_image(block: Block, turn: Turn, answer: _Answer) -> None:
    # They came in `images` (OpenRouter, Vercel); no other vendor takes images of an assistant.
    if turn.own:
        answer.images.append(_image(block, turn))
    else:
        turn.dropped.note("image block in an assistant message")


def _answer_audio(block: Block, turn: Turn, answer: _Answer) -> None:
    transcript = (block.get("extras") or {}).get("transcript")
    if turn.own and block.get("id"):
        answer.fields["audio"] = {"id": block["id"]}
    elif transcript:
        answer.parts.append({"type": "text", "text": transcript})
    else:
        turn.dropped.note("audio block in an assistant message")


_ANSWER_BLOCKS: Final[dict[str, Callable[[Block, Turn, _Answer], None]]] = {
    "reasoning": _reasoning,
    "tool_call": _tool_call,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "image": _answer_image,
    "audio": _answer_audio,
}


#: Fields of the request body, besides the standard parameters, that are sent as they are.
BODY_FIELDS: Final = frozenset(
    "audio frequency_penalty function_call functions logit_bias logprobs modalities moderation n "
    "prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention "
    "safety_identifier service_tier store stream_options top_logprobs user verbosity "
    "web_search_options "
    # fields that servers which speak this dialect add
    "reasoning thinking enable_thinking top_k min_p repetition_penalty top_a safe_prompt "
    "provider plugins transforms models route usage search_parameters search_mode "
    "search_domain_filter return_images return_related_questions include_reasoning "
    "reasoning_format chat_template_kwargs guided_json guided_regex guided_choice "
    "structured_outputs echo safety_model prompt_mode random_seed keep_alive options "
    "min_tokens ignore_eos length_penalty best_of use_beam_search".split()
)

#: Kinds of blocks whose URLs go to the vendor, which fetches them.
URL_BLOCKS: Final[frozenset[str]] = frozenset({"image", "video"})
