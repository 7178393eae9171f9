"""The messages of a request to Google Gemini, as its contents and parts.

- System messages, wherever they stand, in order as the top-level `systemInstruction`.
- What the model said as a `model` content, all else as `user` contents. Tool results that follow
  one another are one content, in the order of their calls: calls may have no ids, and are then
  told apart by their order. The id of a call goes back only if it came from the provider or the
  caller, not if the decoder made it up.
- A result that is a JSON object as it is, any other under `output`, or `error` for a failed call.
  Its images and files follow the results, for only some models take them inside.
- Standard blocks as Gemini's parts, others translated, Gemini's own parts (dicts without a
  `type`) as they are. Signatures and the like come from `extras`, where the decoder put them.
- Calls of an answer that have no signature, for they were made elsewhere, get the word that Google
  gives out for this case: Gemini 3 and later reject them otherwise.
- An unreadable tool call is sent with empty arguments if a result answers it, else left out.
- What this API has no place for is left out with one warning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from ..coercion import shown
from ..content import KNOWN_BLOCK_TYPES, Block
from ..errors import ConfigurationError
from ..messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from .encoding import Dropped, Turn, encoded, native_value, other_fields, turns, unknown_part
from .media import decoded_text, media, media_type, unpacked
from .request import ChatRequest

__all__ = ["DIALECT", "conversation", "is_before_3"]

DIALECT: Final = "Gemini"

#: Gemini's own parts: dicts without a `type` that have one of these.
NATIVE_PARTS: Final = frozenset(
    {
        "codeExecutionResult",
        "code_execution_result",
        "executableCode",
        "executable_code",
        "fileData",
        "file_data",
        "functionCall",
        "function_call",
        "functionResponse",
        "function_response",
        "inlineData",
        "inline_data",
        "text",
        "thoughtSignature",
        "thought_signature",
        "toolCall",
        "tool_call",
        "toolResponse",
        "tool_response",
    }
)


def is_before_3(model: str) -> bool:
    """Whether a model is from before levels of thinking, and before signatures were asked for."""
    return _BEFORE_3.match(model) is not None


_BEFORE_3: Final = re.compile(r"(models/)?(gemini-(1|2|robotics-er-1)|gemma)", re.I)


# ---- messages ------------------------------------------------------------------------------------


def _called(messages: Iterable[BaseMessage]) -> dict[str, tuple[int, str]]:
    """The calls of the conversation, by id: the place and the name of each."""
    found: dict[str, tuple[int, str]] = {}
    for message in messages:
        if isinstance(message, AIMessage):
            calls = (*message.tool_calls, *message.invalid_tool_calls, *_native_calls(message))
            for call in calls:
                found[str(call.get("id"))] = (len(found), _clean(call.get("name")))
    return found


def _native_calls(message: AIMessage) -> Iterator[Mapping[str, Any]]:
    for block in message.content if isinstance(message.content, list) else ():
        call = block.get("functionCall") or block.get("function_call")
        if isinstance(call, Mapping):
            yield call


def _clean(name: Any) -> str:
    """A name that the API takes: letters, digits and a few signs, up to 128 of them."""
    return re.sub(r"[^a-zA-Z0-9_.:-]", "_", str(name or "unknown"))[:128]


def conversation(request: ChatRequest, dropped: Dropped) -> tuple[list[Block], list[Block]]:
    """The parts of the system instruction, and the contents."""
    called = _called(request.messages)
    needs_signature = not is_before_3(request.model)
    system: list[Block] = []
    contents: list[Block] = []
    for is_result, run in groupby(turns(request, dropped), key=_is_result):
        if is_result:
            contents.append({"role": "user", "parts": _results(run, called)})
            continue
        for turn in run:
            parts = _parts(turn)
            if isinstance(turn.message, SystemMessage):
                system.extend(_system(parts))
            elif isinstance(turn.message, AIMessage):
                if parts:
                    said = _signed(parts) if needs_signature else parts
                    contents.append({"role": "model", "parts": said})
            else:
                contents.append({"role": "user", "parts": parts})
    return system, contents


def _is_result(turn: Turn) -> bool:
    return isinstance(turn.message, ToolMessage)


def _parts(turn: Turn) -> list[Block]:
    message = turn.message
    if not isinstance(message, ToolMessage):
        name = () if message.name is None else ("name",)
        _note_fields({*message.extras, *name} - {"role"}, turn)
    if isinstance(message.content, str):
        return [{"text": message.content}] if message.content or not _by_model(turn) else []
    return [sent for block in message.content if (sent := _part(block, turn)) is not None]


def _note_fields(names: Iterable[str], turn: Turn) -> None:
    """Fields of a message that Gemini's messages have not."""
    for name in sorted(names):
        turn.dropped.note(f"{name} of a message")


def _by_model(turn: Turn) -> bool:
    return isinstance(turn.message, AIMessage)


def _system(parts: list[Block]) -> list[Block]:
    for part in parts:
        if "text" not in part:
            raise ConfigurationError(
                f"a system message has the part {shown(part)}: Gemini takes only text there"
            )
    return [part for part in parts if part["text"]]


#: Google's word for a call that was not made by the model that reads it
#: (https://ai.google.dev/gemini-api/docs/thought-signatures).
_NO_SIGNATURE: Final = "skip_thought_signature_validator"
_SIGNATURES: Final = ("thoughtSignature", "thought_signature")


def _signed(parts: list[Block]) -> list[Block]:
    """The parts of an answer with a signature on the first call, if none of the calls has one."""
    calls = [place for place, part in enumerate(parts) if "functionCall" in part]
    if not calls or any(key in parts[place] for place in calls for key in _SIGNATURES):
        return parts
    first = {**parts[calls[0]], "thoughtSignature": _NO_SIGNATURE}
    return [*parts[: calls[0]], first, *parts[calls[0] + 1 :]]


# ---- tool results --------------------------------------------------------------------------------

#: An id that the decoder made up: the provider never saw it.
_MADE_UP: Final = re.compile(r"(call|srv)_[0-9a-f]{24}")


def _wire_id(id: Any) -> Block:
    return {} if not id or _MADE_UP.fullmatch(str(id)) else {"id": id}


#: Fields of a result that may come in the `extras` of a tool message.
_RESULT_FIELDS: Final = frozenset({"scheduling", "willContinue", "parts"})


def _results(run: Iterable[Turn], called: Mapping[str, tuple[int, str]]) -> list[Block]:
    """The results of one turn, each with its text, and after them what else they hold."""
    results: list[tuple[int, Block]] = []
    attached: list[Block] = []
    for turn in run:
        message, parts = turn.message, _parts(turn)
        if not isinstance(message, ToolMessage):
            continue
        place, name = called.get(message.tool_call_id, (-1, message.name))
        if not name:
            raise ConfigurationError(
                f"the tool message {shown(message.content)} answers {message.tool_call_id!r}: "
                "Gemini wants the name of the tool, so expected a call of that id before it, or a "
                "name in the message"
            )
        text = "".join(str(part["text"]) for part in parts if "text" in part)
        attached.extend(part for part in parts if "text" not in part)
        extras = {k: v for k, v in message.extras.items() if k in _RESULT_FIELDS}
        _note_fields(message.extras.keys() - extras.keys(), turn)
        response = {"name": name, "response": _response(text, message), **extras}
        results.append(
            (place, {"functionResponse": {**_wire_id(message.tool_call_id), **response}})
        )
    return [result for _, result in sorted(results, key=lambda pair: pair[0])] + attached


def _response(text: str, message: ToolMessage) -> Block:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if message.status == "error":
        return {"error": value if isinstance(value, dict) else text}
    return value if isinstance(value, dict) else {"output": text}


# ---- parts ---------------------------------------------------------------------------------------


def _part(block: Block, turn: Turn) -> Block | None:
    """A block as a part; None if it has no place in the request."""
    kind = block.get("type")
    if kind is None and not NATIVE_PARTS.isdisjoint(block):
        return block
    if kind in _BLOCKS:
        return encoded(_BLOCKS, block, turn)
    if kind not in KNOWN_BLOCK_TYPES:
        unknown_part(block, DIALECT, NATIVE_PARTS)
    turn.dropped.note(f"{kind} block")
    return None


#: Fields that other vendors' parts have, and what our own decoders note: never sent.
_FOREIGN: Final = frozenset(
    {
        "block_type",
        "cache_control",
        "caller",
        "citations",
        "detail",
        "error",
        "extra_content",
        "field",
        "filename",
        "raw_args",
        "signature",
        "transcript",
    }
)


def _wrapped(name: str, inner: Block, block: Block, turn: Turn, *read: str) -> Block:
    """``{name: inner}`` with the block's extras: beside it, or in it if they are under its name."""
    rest = other_fields(block, turn, *read)
    inside = rest.pop(name, None)
    beside = {key: value for key, value in rest.items() if key not in _FOREIGN}
    return {name: {**inner, **(inside if isinstance(inside, Mapping) else {})}, **beside}


def _text(block: Block, turn: Turn) -> Block | None:
    rest = other_fields(block, turn, "text", "annotations")
    rest = {key: value for key, value in rest.items() if key not in _FOREIGN}
    text = block.get("text") or ""
    # The API rejects an empty text of the model, unless a signature came with it.
    return {"text": text, **rest} if text or rest or not _by_model(turn) else None


def _reasoning(block: Block, turn: Turn) -> Block | None:
    """Thoughts go back to where they came from."""
    if not turn.own:
        turn.dropped.note("reasoning of another provider")
        return None
    if not _by_model(turn):
        return None
    rest = other_fields(block, turn, "reasoning")
    rest = {key: value for key, value in rest.items() if key not in _FOREIGN}
    text = block.get("reasoning") or ""
    return {"text": text, "thought": True, **rest} if text or rest else None


def _function_call(block: Block, turn: Turn) -> Block:
    call = {**_wire_id(block.get("id")), "name": _clean(block.get("name"))}
    args = block.get("args") or {}
    sent = _wrapped("functionCall", {**call, "args": args}, block, turn, "name", "args")
    return {key: value for key, value in sent.items() if key not in ("type", "index")}


def _invalid_call(block: Block, turn: Turn) -> Block | None:
    if block.get("id") not in turn.answered:
        turn.dropped.note("unreadable tool call without a result")
        return None
    return _function_call({**block, "args": {}}, turn)


def _server_call(block: Block, turn: Turn) -> Block | None:
    native = _native_kind(block, turn)
    if native not in ("executableCode", "toolCall"):
        return None
    args = block.get("args") or {}
    inner = args if native == "executableCode" else {"args": args}
    inner = {**inner, **_wire_id(block.get("id"))}
    return _wrapped(native, inner, block, turn, "name", "args")


def _server_result(block: Block, turn: Turn) -> Block | None:
    native = _native_kind(block, turn)
    if native not in ("codeExecutionResult", "toolResponse"):
        return None
    field = "output" if native == "codeExecutionResult" else "response"
    inner = {**_wire_id(block.get("tool_call_id"))}
    if "output" in block:
        inner[field] = block["output"]
    return _wrapped(native, inner, block, turn, "tool_call_id", "status", "output")


def _native_kind(block: Block, turn: Turn) -> Any:
    """The part it was. What `groundingMetadata` told of was none, and there is nothing to send."""
    native = (block.get("extras") or {}).get("block_type")
    if native is None or not turn.own:
        turn.dropped.note(f"{block['type']} block of another provider")
        return None
    return native


# ---- media ---------------------------------------------------------------------------------------

_MEDIA_FIELDS: Final = ("url", "base64", "file_id", "mime_type")
_FILES: Final = "https://generativelanguage.googleapis.com/v1beta/"

#: Types of files that Gemini reads, by the ends of their names.
_TYPES: Final = {
    "aac": "audio/aac",
    "flac": "audio/flac",
    "gif": "image/gif",
    "heic": "image/heic",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "m4a": "audio/mp4",
    "mov": "video/quicktime",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
}


def _media(block: Block, turn: Turn) -> Block:
    block = unpacked(block)
    kind, value = media(block, DIALECT, "base64", "url", "file_id")
    if kind == "base64":
        inline = {"mimeType": media_type(block), "data": value}
        return _wrapped("inlineData", inline, block, turn, *_MEDIA_FIELDS)
    if kind == "file_id" and value.startswith("files/"):
        value = _FILES + value
    file = {"fileUri": value}
    end = value.partition("?")[0].rpartition(".")[2].lower()
    mime_type = block.get("mime_type") or _TYPES.get(end)
    if mime_type:
        file = {"mimeType": mime_type, **file}
    return _wrapped("fileData", file, block, turn, *_MEDIA_FIELDS)


def _file(block: Block, turn: Turn) -> Block:
    return _media({"mime_type": "application/pdf", **block} if "base64" in block else block, turn)


def _plain_text(block: Block, turn: Turn) -> Block:
    """A text document: text after its title and context, unless it is a file elsewhere."""
    block = unpacked(block)
    kind, value = media(block, DIALECT, "text", "base64", "url", "file_id")
    if kind in ("url", "file_id"):
        return _media({"mime_type": "text/plain", **block}, turn)
    text = value if kind == "text" else decoded_text(block)
    head = [str(block[key]) for key in ("title", "context") if block.get(key)]
    return {"text": "\n\n".join([*head, text])}


def _langchain_media(block: Block, turn: Turn) -> Block:
    """LangChain's own form for Gemini: ``{"type": "media", "mime_type", "data" or "file_uri"}``."""
    names = {"data": "base64", "file_uri": "url"}
    return _media({names.get(key, key): value for key, value in block.items()}, turn)


_BLOCKS: Final[dict[str, Callable[[Block, Turn], Block | None]]] = {
    "text": _text,
    "reasoning": _reasoning,
    "tool_call": _function_call,
    "invalid_tool_call": _invalid_call,
    "tool_call_chunk": _invalid_call,
    "server_tool_call": _server_call,
    "server_tool_result": _server_result,
    "image": _media,
    "audio": _media,
    "video": _media,
    "file": _file,
    "text-plain": _plain_text,
    "media": _langchain_media,
    "non_standard": native_value,
}
