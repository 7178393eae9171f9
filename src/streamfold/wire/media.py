"""Media blocks on their way into a request: where their data is, of what type it is, how large.

What a vendor is known to reject is refused here, before the request: data of a type it cannot read,
more bytes than it takes, a URL where it takes only bytes. A URL that the vendor fetches itself is
passed on; streamfold fetches one only for ``fetch_media=True`` (see `streamfold.media`).
"""

from __future__ import annotations

import base64
import re
import reprlib
from collections.abc import Iterable
from typing import Final

from ..coercion import shown
from ..content import Block, data_or_url, is_fetchable, sniff_base64
from ..errors import ConfigurationError
from ..messages import BaseMessage

__all__ = ["decoded_text", "media", "media_type", "refuse_urls", "unpacked"]

MB: Final = 1_000_000
MIB: Final = 1024 * 1024

#: The most bytes that a vendor takes in one block, by dialect and kind of block, where its
#: documentation names a figure; "" is for every other kind.
MAX_BYTES: Final[dict[str, dict[str, int]]] = {
    "Anthropic": {"image": 10 * MIB, "": 32 * MIB},
    "Bedrock Converse": {"image": 3_932_160, "": 25 * MIB},
    "Chat Completions": {"file": 50 * MIB, "image": 50 * MIB},
    "Cohere": {"": 20 * MIB},
    "Gemini": {"": 100 * MIB},
    "Responses": {"": 50 * MIB},
}

#: How base64 begins. (Reading all of a long file costs more than the vendor's refusal.)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_\s-]{0,64}+(?![^A-Za-z0-9+/_\s=-])")

#: Every type of image that some model reads. Anything else is a mistake of the caller's.
IMAGES: Final = frozenset(
    f"image/{name}"
    for name in "avif bmp gif heic heif jpeg jp2 png svg+xml tiff webp x-icon".split()
)
#: What the vendors behind a dialect read, where all of them read the same.
_READABLE: Final = {
    "Anthropic": frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"}),
    "Responses": frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"}),
}


def media(block: Block, dialect: str, *takes: str) -> tuple[str, str]:
    """Which of `takes` (url, base64, ...) a media block has, and its value.

    Raises ConfigurationError if it has none of them, data that is no base64, or more of it than the
    vendor takes.
    """
    for kind in takes:
        if block.get(kind):
            if kind == "base64":
                _check_data(block, dialect)
            return kind, str(block[kind])
    raise ConfigurationError(
        f"the {block.get('type')} block {shown(block)} cannot be sent: {dialect} expects "
        f"{' or '.join(takes)} in it{_about_url(block)}"
    )


def _about_url(block: Block) -> str:
    if not is_fetchable(block.get("url")):
        return ""
    return " and fetches no such URL; fetch_media=True has streamfold fetch it and send the bytes"


def _check_data(block: Block, dialect: str) -> None:
    kind, data = block.get("type"), block["base64"]
    if not isinstance(data, str) or not _BASE64.match(data):
        raise ConfigurationError(
            f"the {kind} block has {reprlib.repr(data)} as its base64: expected base64 text and no "
            "data: before it; image_block(), file_block() and so on make blocks of bytes and files"
        )
    limits = MAX_BYTES.get(dialect, {})
    limit = limits.get(str(kind), limits.get(""))
    size = len(data) * 3 // 4
    if limit is not None and size > limit:
        raise ConfigurationError(
            f"the {kind} block has {size / MB:.1f} MB: {dialect} takes at most "
            f"{limit / MB:.1f} MB in one"
        )


def media_type(block: Block, dialect: str = "") -> str:
    """The mime type of a block's base64 data: as it says, else as the first bytes show.

    Raises ConfigurationError if there is none to be had, and for an image of a type that the
    vendors of `dialect`, or any that there are, cannot read.
    """
    mime_type = block.get("mime_type") or sniff_base64(str(block.get("base64") or ""))
    if not isinstance(mime_type, str) or "/" not in mime_type:
        raise ConfigurationError(
            f"the {block.get('type')} block has base64 data and the mime_type {mime_type!r}: "
            "expected one such as 'image/png', 'audio/wav' or 'application/pdf'"
        )
    return _image_type(mime_type, dialect) if block.get("type") == "image" else mime_type


def _image_type(mime_type: str, dialect: str) -> str:
    name = mime_type.partition(";")[0].strip().lower()
    name = "image/jpeg" if name == "image/jpg" else name
    readable = _READABLE.get(dialect, IMAGES)
    if name not in readable:
        raise ConfigurationError(
            f"the image block has the mime_type {mime_type!r}: {dialect or 'expected'} "
            f"{'reads' if dialect else 'one of'} {', '.join(sorted(readable))}"
        )
    return name


def refuse_urls(messages: Iterable[BaseMessage], provider: str | None) -> None:
    """Raise ConfigurationError if the messages name media by URL, for a vendor that fetches none
    where others of its dialect do."""
    for message in messages:
        for block in message.content_blocks:
            if block.get("type") in _MEDIA and is_fetchable(block.get("url")):
                raise ConfigurationError(
                    f"the {block['type']} block {shown(block)} cannot be sent: {provider} expects "
                    f"base64 in it{_about_url(block)}"
                )


_MEDIA: Final = frozenset({"image", "audio", "video", "file", "text-plain"})


def unpacked(block: Block) -> Block:
    """A block whose url is a data URL, as one with base64 data; any other as it is."""
    data = data_or_url(str(block.get("url") or ""))
    return {**block, **data, "url": None} if "base64" in data else block


def decoded_text(block: Block) -> str:
    """The text in a block's base64 data. Raises ConfigurationError if it is not UTF-8."""
    try:
        return base64.b64decode(block["base64"], validate=True).decode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the {block.get('type')} block has base64 data that is not UTF-8 text: {error}"
        ) from None
