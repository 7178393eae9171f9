"""Images, audio, video and documents as Bedrock Converse takes them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Final

from ..coercion import shown
from ..content import Block
from ..errors import ConfigurationError
from .encoding import Turn, other_fields
from .media import decoded_text, media, media_type, unpacked

__all__ = ["DIALECT", "MIME_TYPES", "encode_file", "encode_media", "encode_text", "with_names"]

DIALECT: Final = "Bedrock Converse"

#: The API's word for a mime type. Where several mean the same, the first is what we call it.
FORMATS: Final[dict[str, dict[str, str]]] = {
    "image": {
        "image/png": "png",
        "image/jpeg": "jpeg",
        "image/jpg": "jpeg",
        "image/gif": "gif",
        "image/webp": "webp",
    },
    "video": {
        "video/mp4": "mp4",
        "video/quicktime": "mov",
        "video/x-matroska": "mkv",
        "video/webm": "webm",
        "video/x-flv": "flv",
        "video/mpeg": "mpeg",
        "video/mpg": "mpg",
        "video/x-ms-wmv": "wmv",
        "video/3gpp": "three_gp",
    },
    "audio": {
        "audio/mpeg": "mp3",
        "audio/mp3": "mp3",
        "audio/wav": "wav",
        "audio/x-wav": "wav",
        "audio/wave": "wav",
        "audio/aac": "aac",
        "audio/flac": "flac",
        "audio/ogg": "ogg",
        "audio/opus": "opus",
        "audio/mp4": "mp4",
        "audio/x-m4a": "m4a",
        "audio/m4a": "m4a",
        "audio/webm": "webm",
        "audio/pcm": "pcm",
    },
    "document": {
        "application/pdf": "pdf",
        "text/csv": "csv",
        "application/msword": "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.ms-excel": "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "text/html": "html",
        "text/plain": "txt",
        "text/markdown": "md",
    },
}
#: And back: by kind and the API's word.
MIME_TYPES: Final = {
    (kind, word): mime for kind, words in FORMATS.items() for mime, word in reversed(words.items())
}

_MEDIA_FIELDS: Final = ("url", "base64", "file_id", "mime_type")
_NAMES: Final = ("name", "title", "filename")

#: Fields that our decoders note and other vendors' parts have: they have no place here.
_SILENT: Final = frozenset(
    {
        "block_type",
        "cache_control",
        "detail",
        "error",
        "extra_content",
        "field",
        "index",
        "raw_args",
    }
)


def further_fields(block: Block, turn: Turn, *read: str) -> Block:
    """The further fields of a block. What the caller does not take out, `leave_out` notes."""
    fields = other_fields(block, turn, *read)
    return {k: v for k, v in fields.items() if k not in _SILENT and v is not None}


def leave_out(fields: Block, block: Block, turn: Turn) -> None:
    for name in fields:
        turn.dropped.note(f"{name} of a {block.get('type')} block")


def encode_media(kind: str) -> Callable[[Block, Turn], Block]:
    """The encoder of image, audio or video blocks."""

    def encode(block: Block, turn: Turn) -> Block:
        block = unpacked(block)
        fields = further_fields(block, turn, *_MEDIA_FIELDS, *_NAMES)
        source = _source(block, fields)
        leave_out({k: v for k, v in fields.items() if k not in _NAMES}, block, turn)
        return {kind: {"format": _format(kind, block), "source": source}}

    return encode


def _source(block: Block, fields: Block) -> Block:
    kind, value = media(block, DIALECT, "base64", "url")
    if kind == "base64":
        return {"bytes": value}
    if not value.startswith("s3://"):
        raise ConfigurationError(
            f"the {block.get('type')} block {shown(block)} has a url: {DIALECT} fetches only from "
            "s3://..., so give base64 data and mime_type, or fetch_media=True to have it fetched"
        )
    owner = fields.pop("bucketOwner", None) or fields.pop("bucket_owner", None)
    return {"s3Location": {"uri": value, **({"bucketOwner": owner} if owner else {})}}


def _format(kind: str, block: Block) -> str:
    words = FORMATS[kind]
    if block.get("mime_type") is None and block.get("url"):
        ending = str(block["url"]).rpartition(".")[2].lower()
        block = {**block, "mime_type": MIME_TYPES.get((kind, ending))}
    mime = media_type(block).split(";", 1)[0].strip().lower()
    if mime in words:
        return words[mime]
    if kind == "document" and mime.startswith("text/"):
        return "txt"
    raise ConfigurationError(
        f"the {block.get('type')} block has the mime_type {mime!r}: {DIALECT} takes "
        f"{', '.join(words)}"
    )


# ---- documents -----------------------------------------------------------------------------------


def encode_file(block: Block, turn: Turn) -> Block:
    """A `file` block. Data without a mime type is a PDF."""
    block = unpacked(block)
    if block.get("base64"):
        block = {**block, "mime_type": block.get("mime_type") or "application/pdf"}
    fields = further_fields(block, turn, *_MEDIA_FIELDS)
    source = _source(block, fields)
    return _document(_format("document", block), source, fields, block, turn)


def encode_text(block: Block, turn: Turn) -> Block:
    """A `text-plain` block."""
    block = unpacked(block)
    fields = further_fields(block, turn, *_MEDIA_FIELDS, "text")
    kind, value = media(block, DIALECT, "text", "base64", "url")
    if kind == "url":
        source = _source(block, fields)
    else:
        source = {"text": value if kind == "text" else decoded_text(block)}
    return _document("txt", source, fields, block, turn)


def _document(word: str, source: Block, fields: Block, block: Block, turn: Turn) -> Block:
    """A document must have a name. Ours come from what is in it, so that caches know it again."""
    given = [_clean_name(str(fields.pop(key, ""))) for key in _NAMES]
    name = next((name for name in given if name), None) or f"document-{_digest(source)}"
    sent: Block = {"format": word, "name": name, "source": source}
    for key in ("context", "citations"):
        if key in fields:
            sent[key] = fields.pop(key)
    leave_out(fields, block, turn)
    return {"document": sent}


def _digest(source: Block) -> str:
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()[:8]


def _clean_name(name: str) -> str:
    """Letters, digits, single blanks, hyphens and brackets are allowed; a file's ending is not."""
    name = re.sub(r"\.(pdf|csv|docx?|xlsx?|html?|txt|md)$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"[^\w\s()\[\]-]", "-", name, flags=re.ASCII)
    name = re.sub(r"\s+", " ", name).strip()[:200]
    return name if re.search(r"\w", name, flags=re.ASCII) else ""


def with_names(messages: list[Block]) -> list[Block]:
    """`messages` in which no two documents have the same name, as the API demands."""
    taken: set[str] = set()
    return [
        {**message, "content": [_named_apart(block, taken) for block in message["content"]]}
        for message in messages
    ]


def _named_apart(block: Block, taken: set[str]) -> Block:
    result, document = block.get("toolResult"), block.get("document")
    if isinstance(result, dict) and isinstance(result.get("content"), list):
        content = [_named_apart(b, taken) if isinstance(b, dict) else b for b in result["content"]]
        return {**block, "toolResult": {**result, "content": content}}
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        return block
    name, count = document["name"], 1
    while name in taken:
        count += 1
        name = f"{document['name'][:190]} ({count})"
    taken.add(name)
    return block if count == 1 else {**block, "document": {**document, "name": name}}
