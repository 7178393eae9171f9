"""Content parts in the forms that vendors and libraries have for them, read as standard blocks.

A vendor takes its own parts as they are; for any other they are said in the standard form, so that
a conversation may go on elsewhere.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .content import KNOWN_BLOCK_TYPES, Block, data_or_url

__all__ = ["portable", "standard_block"]


def standard_block(part: Block) -> Block:
    """A content part as a standard block: known forms are translated, standard blocks stay, and
    what is neither is wrapped as `non_standard`."""
    for form in _FORMS:
        block = form.read(part)
        if block is not None:
            return block
    kind = part.get("type")
    known = isinstance(kind, str) and kind in KNOWN_BLOCK_TYPES
    return part if known else {"type": "non_standard", "value": part}


def portable(part: Block, dialect: str) -> Block:
    """A content part as `dialect` may get it: in a form that is not its own, as a standard block
    without the fields that only the vendor of that form knows; any other as it is."""
    for form in _FORMS:
        block = form.read(part)
        if block is not None:
            return part if dialect in form.native else _kept(block, form.keeps)
    return part


def _kept(block: Block, keeps: frozenset[str] | None) -> Block:
    if keeps is None or "extras" not in block:
        return block
    extras = {key: value for key, value in block["extras"].items() if key in keeps}
    bare = {key: value for key, value in block.items() if key != "extras"}
    return _with_extras(bare, extras)


def _with_extras(block: Block, extras: Block) -> Block:
    return {**block, "extras": extras} if extras else block


def _others(part: Block, *read: str) -> Block:
    """The fields of a part that are not `read`, as extras."""
    rest = {key: value for key, value in part.items() if key not in ("type", "extras", *read)}
    return {**rest, **(part.get("extras") or {})}


# ---- OpenAI --------------------------------------------------------------------------------------


def _openai_chat(part: Block) -> Block | None:
    kind = part.get("type")
    if kind == "image_url":
        return _from_image_url(part)
    if kind == "input_audio":
        return _from_input_audio(part)
    if kind == "file" and isinstance(part.get("file"), Mapping):
        return _from_file_part(part)
    return None


def _from_image_url(part: Block) -> Block:
    image = part.get("image_url")
    fields = dict(image) if isinstance(image, Mapping) else {"url": image}
    block = {"type": "image", **data_or_url(str(fields.pop("url", "")))}
    return _with_extras(block, {**fields, **_others(part, "image_url")})


def _from_input_audio(part: Block) -> Block:
    audio = dict(part.get("input_audio") or {})
    block = {"type": "audio", "base64": audio.pop("data", "")}
    block["mime_type"] = f"audio/{audio.pop('format', 'wav')}"
    return _with_extras(block, {**audio, **_others(part, "input_audio")})


def _from_file_part(part: Block) -> Block:
    file = dict(part["file"])
    block: Block = {"type": "file"}
    if "file_id" in file:
        block["file_id"] = file.pop("file_id")
    if "file_data" in file:
        block |= data_or_url(str(file.pop("file_data")))
    return _with_extras(block, {**file, **_others(part, "file")})


def _openai_responses(part: Block) -> Block | None:
    kind = part.get("type")
    if kind in ("input_text", "output_text"):
        block: Block = {"type": "text", "text": part.get("text")}
    elif kind == "input_image":
        block = {"type": "image", **_where(part, "image_url")}
    elif kind == "input_file":
        block = {"type": "file", **_where(part, "file_data", "file_url")}
    else:
        return None
    read = ("text", "image_url", "file_data", "file_url", "file_id")
    return _with_extras(block, _others(part, *read))


def _where(part: Block, *urls: str) -> Block:
    url = next((part[name] for name in urls if part.get(name)), None)
    return {"file_id": part.get("file_id")} if url is None else data_or_url(str(url))


# ---- Anthropic -----------------------------------------------------------------------------------

#: What a source says, by its type, and where it says it.
_SOURCES: Final = {
    "base64": {"data": "base64", "media_type": "mime_type"},
    "url": {"url": "url"},
    "file": {"file_id": "file_id"},
    "text": {"data": "text", "media_type": "mime_type"},
}


def _anthropic(part: Block) -> Block | None:
    kind, source = part.get("type"), part.get("source")
    if kind not in ("image", "document") or not isinstance(source, Mapping):
        return None
    fields = _SOURCES.get(str(source.get("type")))
    if fields is None:
        return None  # a document of blocks
    said = {ours: source[theirs] for theirs, ours in fields.items() if theirs in source}
    extras = _others(part, "source")
    if "text" in said:
        named = {key: extras.pop(key) for key in ("title", "context") if extras.get(key)}
        return _with_extras({"type": "text-plain", **said, **named}, extras)
    if extras.get("title"):
        extras["filename"] = extras.pop("title")
    return _with_extras({"type": "image" if kind == "image" else "file", **said}, extras)


# ---- Gemini and Bedrock --------------------------------------------------------------------------


def _gemini(part: Block) -> Block | None:
    data: Mapping[str, Any]
    if part.get("type") == "media":
        name, data = "", part
    else:
        names = ("inlineData", "inline_data", "fileData", "file_data")
        name = next((name for name in names if "type" not in part and name in part), "")
        data = part.get(name, {})
        if not name or not isinstance(data, Mapping):
            return None
    mime_type = data.get("mimeType") or data.get("mime_type")
    uri = data.get("fileUri") or data.get("file_uri")
    where = {"url": uri} if uri else {"base64": _base64(data.get("data"))}
    typed = {"mime_type": mime_type} if mime_type else {}
    read = (name, "data", "mime_type", "mimeType", "file_uri", "fileUri")
    return _with_extras({"type": _kind_of(mime_type), **where, **typed}, _others(part, *read))


def _kind_of(mime_type: Any) -> str:
    kind = str(mime_type).partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "file"


def _bedrock(part: Block) -> Block | None:
    kinds = ("image", "document", "video", "audio")
    kind = next((kind for kind in kinds if isinstance(part.get(kind), Mapping)), None)
    if kind is None or part.get("type", kind) != kind:
        return None
    inner = dict(part[kind])
    source, ending = inner.pop("source", None), inner.pop("format", None)
    if not isinstance(source, Mapping):
        return None
    where = _bedrock_source(source)
    mime_type = mimetypes.guess_type(f"x.{ending}")[0]
    if "text" in where:
        return {"type": "text-plain", **where}
    if kind == "document" and "name" in inner:
        inner["filename"] = f"{inner.pop('name')}.{ending}"
    typed = {"mime_type": mime_type} if mime_type else {}
    block = {"type": "file" if kind == "document" else kind, **where, **typed}
    return _with_extras(block, {**inner, **_others(part, kind)})


def _bedrock_source(source: Mapping[str, Any]) -> Block:
    location = source.get("s3Location")
    if isinstance(location, Mapping):
        return {"url": location.get("uri")}
    if "text" in source:
        return {"text": source["text"]}
    return {"base64": _base64(source.get("bytes"))}


def _base64(data: Any) -> Any:
    return base64.b64encode(data).decode() if isinstance(data, bytes) else data


def _bare_text(part: Block) -> Block | None:
    """The text of both."""
    if "type" in part or not isinstance(part.get("text"), str):
        return None
    return _with_extras({"type": "text", "text": part["text"]}, _others(part, "text"))


# ---- LangChain before its 1.0 --------------------------------------------------------------------

_OLD: Final = {"url": "url", "base64": "data", "id": "id", "text": "text"}
_NEW: Final = {"url": "url", "base64": "base64", "id": "file_id", "text": "text"}


def _old_langchain(part: Block) -> Block | None:
    source = part.get("source_type")
    if not isinstance(source, str) or source not in _OLD:
        return None
    typed = {"mime_type": part["mime_type"]} if part.get("mime_type") else {}
    kind = "text-plain" if source == "text" else part.get("type")
    block = {"type": kind, _NEW[source]: part.get(_OLD[source]), **typed}
    return _with_extras(block, _others(part, "source_type", "mime_type", _OLD[source]))


# ---- all of them ---------------------------------------------------------------------------------


class _Form(NamedTuple):
    """`read` gives None for a part of another form. `native`: the dialects that take it as it is.
    `keeps`: the extras that any vendor may see; None: all."""

    read: Callable[[Block], Block | None]
    native: frozenset[str]
    keeps: frozenset[str] | None = frozenset({"filename"})


_FORMS: Final = (
    _Form(_openai_chat, frozenset({"Chat Completions"}), None),
    _Form(_openai_responses, frozenset({"Responses"}), frozenset({"filename", "detail"})),
    _Form(_anthropic, frozenset({"Anthropic"})),
    _Form(_gemini, frozenset({"Gemini"})),
    _Form(_bedrock, frozenset({"Bedrock Converse"})),
    _Form(_bare_text, frozenset({"Gemini", "Bedrock Converse"})),
    _Form(_old_langchain, frozenset(), frozenset({"filename", "cache_control"})),
)
