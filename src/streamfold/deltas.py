"""Typed chunk events: the only language between the wire and the chunk.

Every dialect is translated into these; chunks, events and usage read nothing else. They are
frozen msgspec Structs, so they compare, hash their scalars, encode to JSON with a `type` tag and
decode back: ``decode_events(encode_events(events)) == events``.

`index` numbers the content blocks of a message in the order in which they opened. None means
"the newest block of this kind" and is for messages built by hand; codecs always give a number.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .usage import UsageMetadata

__all__ = [
    "Annotation",
    "BlockEnd",
    "BlockStart",
    "ChunkEvent",
    "DataDelta",
    "MessageEnd",
    "MessageStart",
    "ProviderData",
    "ReasoningDelta",
    "Restart",
    "TextDelta",
    "ToolCallDelta",
    "UsageReport",
    "decode_events",
    "encode_events",
    "join_text",
]


class _Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type"):
    pass


class MessageStart(_Event, frozen=True, gc=False, tag="message-start"):
    """The answer begins. The first non-empty value of each field stays."""

    id: str | None = None
    model: str | None = None  # the model that answers, as the provider names it
    provider: str | None = None
    name: str | None = None


class BlockStart(_Event, frozen=True, gc=False, tag="block-start"):
    """A content block opens. `kind` is the block's `type`.

    Blocks that come whole (images, server tool results, ...) have all their keys in `data`.
    `id` and `name` belong to tool calls.
    """

    kind: str
    index: int | None = None
    id: str | None = None
    name: str | None = None
    data: dict[str, Any] = {}


class TextDelta(_Event, frozen=True, gc=False, tag="text-delta"):
    """A piece of visible text."""

    text: str
    index: int | None = None


class ReasoningDelta(_Event, frozen=True, gc=False, tag="reasoning-delta"):
    """A piece of reasoning (thinking, summary) text."""

    text: str
    index: int | None = None


class ToolCallDelta(_Event, frozen=True, gc=False, tag="tool-call-delta"):
    """A piece of a tool call. `args` is raw JSON text; `kind` tells whose tool it is.

    Which call a piece belongs to is decided as `tool_calls.CallBook` says. `fallback_id` becomes
    the call's id if this piece opens a call and no id came with it.
    """

    args: str = ""
    index: int | None = None
    id: str | None = None
    name: str | None = None
    kind: Literal["tool_call", "server_tool_call"] = "tool_call"
    fallback_id: str | None = None


class DataDelta(_Event, frozen=True, gc=False, tag="data-delta"):
    """A piece of base64 data of an image, audio, video or file block."""

    data: str
    index: int | None = None
    kind: str = "audio"


class Annotation(_Event, frozen=True, gc=False, tag="annotation"):
    """A citation or another note on a text block."""

    annotation: dict[str, Any]
    index: int | None = None


class BlockEnd(_Event, frozen=True, gc=False, tag="block-end"):
    """A content block is complete."""

    kind: str
    index: int | None = None


class UsageReport(_Event, frozen=True, gc=False, tag="usage"):
    """Token counts. Only deltas add; a total or final figure replaces what came before."""

    usage: UsageMetadata
    mode: Literal["delta", "total", "final"] = "total"


class MessageEnd(_Event, frozen=True, gc=False, tag="message-end"):
    """The answer is complete. `finish_reason` is the normalised one (see `AIMessage`)."""

    finish_reason: str | None = None


class ProviderData(_Event, frozen=True, gc=False, tag="provider-data"):
    """What only this provider says. Without `kind` it joins `response_metadata`, by the merge
    modes declared there; with `kind` and `index` it joins the `extras` of that block."""

    data: dict[str, Any]
    index: int | None = None
    kind: str | None = None


class Restart(_Event, frozen=True, gc=False, tag="restart"):
    """The answer begins anew (attempt number `attempt`, for `reason`): what came before is void."""

    attempt: int = 2
    reason: str = ""


ChunkEvent = (
    MessageStart
    | BlockStart
    | TextDelta
    | ReasoningDelta
    | ToolCallDelta
    | DataDelta
    | Annotation
    | BlockEnd
    | UsageReport
    | MessageEnd
    | ProviderData
    | Restart
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[list[ChunkEvent]] = msgspec.json.Decoder(list[ChunkEvent])


def encode_events(events: list[ChunkEvent] | tuple[ChunkEvent, ...]) -> bytes:
    """A JSON array of the events."""
    return _encoder.encode(events)


def decode_events(data: bytes | str) -> list[ChunkEvent]:
    """The events that `encode_events` wrote."""
    return _decoder.decode(data)


def join_text(parts: list[str]) -> str:
    """The parts as one text in which the halves of a surrogate pair, if cut apart, are joined; a
    half that stands alone becomes U+FFFD, so that the text can be encoded."""
    text = parts[0] if len(parts) == 1 else "".join(parts)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
