"""Content blocks: the parts of a message, as plain dicts of one shape for every provider.

Every block has a `type`. Optional on every block: `id`, and `extras`, which holds what only one
provider knows (signatures, item ids, cache marks) and is sent back to it unchanged. Images, audio,
video and files carry one of `url`, `base64` (with `mime_type`) or `file_id`.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "KNOWN_BLOCK_TYPES",
    "AudioBlock",
    "Block",
    "Citation",
    "ContentBlock",
    "FileBlock",
    "ImageBlock",
    "InvalidToolCall",
    "NonStandardBlock",
    "PlainTextBlock",
    "ReasoningBlock",
    "ServerToolCall",
    "ServerToolCallChunk",
    "ServerToolResult",
    "TextBlock",
    "ToolCall",
    "ToolCallChunk",
    "VideoBlock",
    "data_or_url",
    "is_fetchable",
    "sniff_base64",
    "sniff_type",
    "whole_base64",
]

Block: TypeAlias = dict[str, Any]


class Citation(TypedDict, total=False):
    """A note on a text block: where a statement comes from. Indexes count characters."""

    type: Literal["citation"]
    id: str
    url: str
    title: str
    start_index: int
    end_index: int
    cited_text: str
    extras: dict[str, Any]


class _Block(TypedDict):
    id: NotRequired[str]
    index: NotRequired[int | str]
    extras: NotRequired[dict[str, Any]]


class TextBlock(_Block):
    """Visible text."""

    type: Literal["text"]
    text: str
    annotations: NotRequired[list[Citation | dict[str, Any]]]


class ReasoningBlock(_Block):
    """Thinking text; a signature or encrypted form is in `extras`."""

    type: Literal["reasoning"]
    reasoning: str


class ToolCall(TypedDict):
    """A call of one of the caller's tools, complete and readable."""

    name: str
    args: dict[str, Any]
    id: str | None
    type: Literal["tool_call"]
    extras: NotRequired[dict[str, Any]]


class ToolCallChunk(TypedDict):
    """A piece of a tool call that is still arriving; `args` is raw JSON text."""

    name: str | None
    args: str | None
    id: str | None
    index: int | str | None
    type: Literal["tool_call_chunk"]


class InvalidToolCall(TypedDict):
    """A call that must not be run: `args` is the raw text and `error` says why."""

    name: str | None
    args: str | None
    id: str | None
    error: str | None
    type: Literal["invalid_tool_call"]


class ServerToolCall(_Block):
    """A call that the provider runs itself (web search, code execution, ...)."""

    type: Literal["server_tool_call"]
    name: str
    args: dict[str, Any]


class ServerToolCallChunk(_Block):
    """A piece of a server tool call that is still arriving."""

    type: Literal["server_tool_call_chunk"]
    name: NotRequired[str]
    args: NotRequired[str]


class ServerToolResult(_Block):
    """What a server tool gave."""

    type: Literal["server_tool_result"]
    tool_call_id: str
    status: Literal["success", "error"]
    output: NotRequired[Any]


class _Media(_Block):
    url: NotRequired[str]
    base64: NotRequired[str]
    file_id: NotRequired[str]
    mime_type: NotRequired[str]


class ImageBlock(_Media):
    type: Literal["image"]


class AudioBlock(_Media):
    type: Literal["audio"]


class VideoBlock(_Media):
    type: Literal["video"]


class FileBlock(_Media):
    type: Literal["file"]


class PlainTextBlock(_Media):
    """A text document given as such; one of `text`, `url`, `base64`, `file_id`."""

    type: Literal["text-plain"]
    text: NotRequired[str]
    title: NotRequired[str]
    context: NotRequired[str]


class NonStandardBlock(_Block):
    """A block that only its provider knows, as it came; sent back as it is."""

    type: Literal["non_standard"]
    value: dict[str, Any]


ContentBlock = (
    TextBlock
    | ReasoningBlock
    | ToolCall
    | ToolCallChunk
    | InvalidToolCall
    | ServerToolCall
    | ServerToolCallChunk
    | ServerToolResult
    | ImageBlock
    | AudioBlock
    | VideoBlock
    | FileBlock
    | PlainTextBlock
    | NonStandardBlock
)

KNOWN_BLOCK_TYPES: Final = frozenset(
    {
        "text",
        "reasoning",
        "tool_call",
        "tool_call_chunk",
        "invalid_tool_call",
        "server_tool_call",
        "server_tool_call_chunk",
        "server_tool_result",
        "image",
        "audio",
        "video",
        "file",
        "text-plain",
        "non_standard",
    }
)


def data_or_url(url: str) -> Block:
    """The fields of a media block for a URL; a base64 data URL is taken apart."""
    if url.startswith("data:") and ";base64," in url:
        head, data = url.split(";base64,", 1)
        return {"base64": data, "mime_type": head[5:] or "application/octet-stream"}
    return {"url": url}


def whole_base64(text: str) -> str:
    """Pieces of base64 that were joined, as one: each may have had padding of its own."""
    if "=" not in text.rstrip("="):
        return text
    try:
        data = b"".join(base64.b64decode(piece) for piece in re.findall("[^=]+=*", text))
    except ValueError:
        return text  # it is not base64, and no matter of ours
    return base64.b64encode(data).decode()


def is_fetchable(url: object) -> bool:
    """Whether a block's `url` is one of the web, which anybody could fetch."""
    return isinstance(url, str) and url[:8].lower().startswith(("http://", "https://"))


#: How files begin: the first pattern that matches says the type.
_SIGNATURES: Final = (
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"BM....\0\0\0\0", "image/bmp"),
    (rb"II\*\0|MM\0\*", "image/tiff"),
    (rb"....ftypavif", "image/avif"),
    (rb"....ftyp(heic|heix|hevc)", "image/heic"),
    (rb"....ftyp(mif1|msf1)", "image/heif"),
    (rb"%PDF-", "application/pdf"),
    (rb"RIFF....WAVE", "audio/wav"),
    (rb"ID3|\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),
    (rb"fLaC", "audio/flac"),
    (rb"OggS", "audio/ogg"),
    (rb"FORM....AIF[FC]", "audio/aiff"),
    (rb"....ftypM4A", "audio/mp4"),
    (rb"....ftypqt", "video/quicktime"),
    (rb"....ftyp3g", "video/3gpp"),
    (rb"....ftyp", "video/mp4"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "video/webm"),
    (rb"\x1aE\xdf\xa3", "video/x-matroska"),
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"FLV\x01", "video/x-flv"),
    (rb"\0\0\x01[\xb3\xba]", "video/mpeg"),
)
_BEGINNINGS: Final = tuple((re.compile(what, re.DOTALL), mime) for what, mime in _SIGNATURES)


def sniff_type(data: bytes) -> str | None:
    """The mime type that the first bytes of a file show; None if they show none."""
    return next((mime for begins, mime in _BEGINNINGS if begins.match(data)), None)


def sniff_base64(data: str) -> str | None:
    """The same for base64 text."""
    try:
        return sniff_type(base64.b64decode(data[:128], validate=True))
    except ValueError:
        return None
