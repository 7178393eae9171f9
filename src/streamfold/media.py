"""Images, audio, video and files as content blocks: made from bytes and paths, saved, fetched.

from pathlib import Path
message = HumanMessage([{"type": "text", "text": "What is this?"}, image_block(Path("cat.png"))])

for block in answer.content_blocks:
    if block["type"] == "image":
        save_media(block, "cat.png")
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from .coercion import shown
from .content import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    PlainTextBlock,
    VideoBlock,
    data_or_url,
    is_fetchable,
    sniff_type,
)
from .errors import ConfigurationError
from .messages import BaseMessage
from .parts import standard_block

__all__ = [
    "MediaSource",
    "audio_block",
    "file_block",
    "image_block",
    "media_bytes",
    "save_media",
    "video_block",
    "with_fetched_media",
]

#: A file as a path or as its bytes, or a URL (https, data, gs, s3) as a str.
MediaSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"


# ---- making blocks -------------------------------------------------------------------------------


def image_block(source: MediaSource, *, mime_type: str | None = None, **extras: Any) -> ImageBlock:
    """An image as a content block, its data as base64, or a URL as it is.

    The mime type is what `mime_type` says, else what the first bytes show, else what the file's
    name ends in. `extras` are fields that one vendor knows, such as ``detail="low"`` or
    ``cache_control={"type": "ephemeral"}``. Raises ConfigurationError for what cannot be read, is
    empty, or is no image.
    """
    return cast("ImageBlock", _block("image", source, mime_type, extras))


def audio_block(source: MediaSource, *, mime_type: str | None = None, **extras: Any) -> AudioBlock:
    """Audio as a content block; see `image_block`."""
    return cast("AudioBlock", _block("audio", source, mime_type, extras))


def video_block(source: MediaSource, *, mime_type: str | None = None, **extras: Any) -> VideoBlock:
    """A video as a content block; see `image_block`."""
    return cast("VideoBlock", _block("video", source, mime_type, extras))


def file_block(
    source: MediaSource,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    **extras: Any,
) -> FileBlock | PlainTextBlock:
    """A PDF or another document as a content block; see `image_block`. The name of the file goes
    along, for some vendors show it to the model. A text file (UTF-8) becomes a `text-plain` block
    with its text, which every vendor takes."""
    data, found, name = _read("file", source, mime_type)
    name = filename or name
    if data is not None and found.startswith("text/"):
        text = _text(data, found)
        title = {"title": name} if name else {}
        block: Block = {"type": "text-plain", "mime_type": "text/plain", "text": text, **title}
        return cast("PlainTextBlock", _with_extras(block, extras))
    extras = {"filename": name, **extras} if name else extras
    return cast("FileBlock", _with_extras(_data_block("file", source, data, found), extras))


def _block(kind: str, source: MediaSource, mime_type: str | None, extras: Block) -> Block:
    data, found, _ = _read(kind, source, mime_type)
    return _with_extras(_data_block(kind, source, data, found), extras)


def _data_block(kind: str, source: MediaSource, data: bytes | None, mime_type: str) -> Block:
    named = {"mime_type": mime_type} if mime_type else {}
    if data is None:
        return {"type": kind, **data_or_url(str(source)), **named}
    return {"type": kind, "base64": base64.b64encode(data).decode(), **named}


def _with_extras(block: Block, extras: Block) -> Block:
    return {**block, "extras": extras} if extras else block


def _read(kind: str, source: MediaSource, mime_type: str | None) -> tuple[bytes | None, str, str]:
    """The bytes (None for a URL), the mime type and the name of what is given."""
    if isinstance(source, str):
        return None, _checked_url(kind, source, mime_type), ""
    name = ""
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, os.PathLike):
        name = Path(source).name
        data = _file_bytes(kind, source)
    else:
        raise ConfigurationError(
            f"the {kind} {shown(source)} is {type(source).__name__}: expected a path, bytes or a "
            "URL"
        )
    what = f"{kind} {name!r}" if name else f"{kind} data"
    if not data:
        raise ConfigurationError(f"the {what} is empty")
    return data, mime_type or _type_of(kind, what, data, name), name


def _file_bytes(kind: str, path: os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the {kind} cannot be read: {error}") from None


def _checked_url(kind: str, url: str, mime_type: str | None) -> str:
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() not in ("http", "https", "data", "gs", "s3"):
        # Not a path: a str may come from anybody, and then it would open any file.
        raise ConfigurationError(
            f"the {kind} {shown(url)} is a str: expected a URL; files are given as "
            "pathlib.Path(...), data as bytes"
        )
    return mime_type or ""


def _type_of(kind: str, what: str, data: bytes, name: str) -> str:
    """The mime type that the data shows, else its name. It must be one of this kind."""
    seen = sniff_type(data)
    found = seen or _type_by_name(name) or (_text_type(data) if kind == "file" else None)
    if found is None:
        raise ConfigurationError(f"the type of the {what} cannot be told: give mime_type=")
    if kind == "file" or found.startswith(f"{kind}/") or _is_ambiguous(kind, found):
        return _as_kind(kind, found)
    raise ConfigurationError(f"the {what} is {found}: expected {kind}/..., or give mime_type=")


#: What the standard library does not know, or calls otherwise on some systems.
_TYPES: Final = {
    ".aac": "audio/aac",
    ".csv": "text/csv",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".flac": "audio/flac",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".m4a": "audio/mp4",
    ".md": "text/markdown",
    ".mkv": "video/x-matroska",
    ".mp3": "audio/mpeg",
    ".opus": "audio/opus",
    ".wav": "audio/wav",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def _type_by_name(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0]


def _text_type(data: bytes) -> str | None:
    try:
        return "text/plain" if "\0" not in data.decode() else None
    except UnicodeDecodeError:
        return None


#: Containers of audio and video alike.
_CONTAINERS: Final = frozenset({"webm", "mp4", "ogg", "3gpp"})


def _is_ambiguous(kind: str, found: str) -> bool:
    family, _, name = found.partition("/")
    return name in _CONTAINERS and {kind, family} <= {"audio", "video"}


def _as_kind(kind: str, found: str) -> str:
    return f"{kind}/{found.partition('/')[2]}" if _is_ambiguous(kind, found) else found


def _text(data: bytes, mime_type: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the file is called {mime_type}, but it is not UTF-8: {error}"
        ) from None


# ---- reading blocks ------------------------------------------------------------------------------


def media_bytes(block: Mapping[str, Any]) -> bytes:
    """The data of a block: of its base64, its data URL, or its text.

    Raises ConfigurationError for a block without data: the files of URLs and ids are elsewhere.
    """
    fields = {**block, **data_or_url(str(block.get("url") or ""))}
    if isinstance(fields.get("base64"), str):
        try:
            return base64.b64decode(fields["base64"], validate=True)
        except binascii.Error as error:
            raise ConfigurationError(
                f"the {block.get('type')} block has data that is not base64: {error}"
            ) from None
    if isinstance(fields.get("text"), str):
        return str(fields["text"]).encode()
    raise ConfigurationError(f"the block {shown(block)} has no data: expected base64 or text in it")


def save_media(block: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the data of a block to a file, and return the file's path.

    A path without a suffix gets that of the block's type; into a folder the file goes under the
    block's own name or kind. Raises ConfigurationError for a block without data, OSError where it
    cannot be written.
    """
    data = media_bytes(block)
    target = Path(path)
    if target.is_dir():
        target = target / _safe_name(block)
    if not target.suffix:
        target = target.with_name(target.name + _suffix(block, data))
    target.write_bytes(data)
    return target


def _safe_name(block: Mapping[str, Any]) -> str:
    """The name that the block has for a file. A provider said it: no way out of the folder."""
    extras = block.get("extras") or {}
    name = str(block.get("title") or extras.get("filename") or block.get("type") or "file")
    name = "".join(c if c.isalnum() or c in " ._-" else "_" for c in name).strip(" .")
    return name[:100] or "file"


def _suffix(block: Mapping[str, Any], data: bytes) -> str:
    given = block.get("mime_type") or data_or_url(str(block.get("url") or "")).get("mime_type")
    mime_type = str(given or sniff_type(data) or "").partition(";")[0]
    ours = next((suffix for suffix, known in _TYPES.items() if known == mime_type), None)
    return ours or mimetypes.guess_extension(mime_type) or ""


# ---- fetching ------------------------------------------------------------------------------------

_KINDS: Final = frozenset({"image", "audio", "video", "file", "text-plain"})
_AT_ONCE: Final = 8


async def with_fetched_media(
    messages: Sequence[BaseMessage], passed_on: frozenset[str], **rules: Any
) -> list[BaseMessage]:
    """`messages` with the files of their URLs in them, except for kinds of blocks whose URLs are
    `passed_on`, for the vendor fetches those itself. Each URL is fetched once.

    `rules` are those of `net.fetch.fetch`, whose errors are raised; ConfigurationError where a file
    is not what its block says.
    """
    import anyio

    from .net.fetch import fetch

    wanted = {
        (str(block["url"]), block["type"]): block
        for message in messages
        for block in map(standard_block, _parts(message))
        if _needs_bytes(block, passed_on)
    }
    if not wanted:
        return list(messages)
    limiter = anyio.CapacityLimiter(_AT_ONCE)
    found: dict[tuple[str, str], Block] = {}
    failures: list[Exception] = []

    async def get(key: tuple[str, str], block: Block) -> None:
        try:
            async with limiter:
                file = await fetch(key[0], **rules)
            found[key] = _fetched(block, file.data, file.mime_type)
        except Exception as error:
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for key, block in wanted.items():
            tasks.start_soon(get, key, block)
    if failures:
        raise failures[0]

    def filled(part: Any) -> Any:
        block = standard_block(part)
        data = found.get((str(block.get("url")), str(block.get("type"))))
        return part if data is None else {**_without_url(block), **data}

    return [_changed(message, filled) for message in messages]


def _parts(message: BaseMessage) -> list[Any]:
    return message.content if isinstance(message.content, list) else []


def _needs_bytes(block: Block, passed_on: frozenset[str]) -> bool:
    kind = block.get("type")
    if kind not in _KINDS or block.get("base64") or not is_fetchable(block.get("url")):
        return False
    if kind == "file" and str(block.get("mime_type")).startswith("text/"):
        kind = "text-plain"  # what fetches a document reads PDF
    return kind not in passed_on


def _without_url(block: Block) -> Block:
    return {key: value for key, value in block.items() if key != "url"}


def _changed(message: BaseMessage, change: Callable[[Any], Any]) -> BaseMessage:
    import msgspec

    parts = _parts(message)
    changed = [change(part) for part in parts]
    if all(new is old for new, old in zip(changed, parts, strict=True)):
        return message
    return msgspec.structs.replace(message, content=changed)


#: What servers say that do not know what they send.
_ANYTHING: Final = frozenset(
    {"", "application/octet-stream", "binary/octet-stream", "application/ogg", "application/mp4"}
)


def _fetched(block: Block, data: bytes, sent_as: str) -> Block:
    """The data as fields of its block, if it is what the block says."""
    from .net.fetch import shown_url

    kind, own = str(block["type"]), str(block.get("mime_type") or "")
    named = own if sent_as in _ANYTHING else sent_as
    seen = sniff_type(data) or ""
    for mime_type in (_as_kind(kind, seen), _as_kind(kind, named)):
        if data and mime_type and _fits(kind, mime_type, own):
            return {"base64": base64.b64encode(data).decode(), "mime_type": mime_type}
    raise ConfigurationError(
        f"the {kind} at {shown_url(block['url'])} is {seen or sent_as or 'of no known type'}, "
        f"{len(data)} bytes: not to be sent as {own or kind}"
    )


def _fits(kind: str, mime_type: str, own: str) -> bool:
    if kind == "text-plain":
        return mime_type.startswith("text/") or mime_type in ("application/json", "application/xml")
    if kind == "file":  # a web page is what stands where a file was
        return mime_type == own or (mime_type not in _ANYTHING and mime_type != "text/html")
    return mime_type.startswith(f"{kind}/")
