"""The usage in Gemini's events, and the short way through events that have text and usage.

Each event reports the tokens so far, so no two are alike. Those that hold one piece of text, the
usage, and what every event repeats, are read by a typed decoder, and their usage is worked out when
somebody asks the chunk for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from ..chunks import AIMessageChunk, NotedChunk, TextChunk
from ..deltas import ChunkEvent, ProviderData, UsageReport
from ..usage import UsageMetadata, make_usage, token_count

__all__ = ["read_usage", "short_chunks"]


def read_usage(usage: Mapping[str, Any]) -> UsageMetadata:
    """Gemini counts what its own tools read, and what it thinks, apart from prompt and answer."""
    used, thoughts = usage.get("toolUsePromptTokenCount"), usage.get("thoughtsTokenCount")
    into = {"cache_read": usage.get("cachedContentTokenCount"), "tool_use": used}
    out = {"reasoning": thoughts}
    for details, found in ((into, "promptTokensDetails"), (out, "candidatesTokensDetails")):
        items = usage.get(found)
        for item in items if isinstance(items, list) else ():
            details[str(item.get("modality")).lower()] = item.get("tokenCount")
    return make_usage(
        (token_count(usage.get("promptTokenCount")) or 0) + (token_count(used) or 0),
        (token_count(usage.get("candidatesTokenCount")) or 0) + (token_count(thoughts) or 0),
        usage.get("totalTokenCount"),
        input_details=into,
        output_details=out,
    )


# An event with a field that is not known here, or with another type of value, is not short.


class _Count(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    modality: str | UnsetType = UNSET
    tokenCount: int | UnsetType = UNSET


class _Usage(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The usage so far: as events, when somebody asks for them."""

    # In the order in which they come: the decoder tries the next one first.
    promptTokenCount: int | UnsetType = UNSET
    candidatesTokenCount: int | UnsetType = UNSET
    totalTokenCount: int | UnsetType = UNSET
    cachedContentTokenCount: int | UnsetType = UNSET
    trafficType: str | UnsetType = UNSET
    promptTokensDetails: tuple[_Count, ...] | UnsetType = UNSET
    cacheTokensDetails: tuple[_Count, ...] | UnsetType = UNSET
    candidatesTokensDetails: tuple[_Count, ...] | UnsetType = UNSET
    thoughtsTokenCount: int | UnsetType = UNSET

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return found

    def events(self) -> list[ChunkEvent]:
        usage = self.plain()
        return [UsageReport(read_usage(usage)), ProviderData({"usage": usage})]


class _Part(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    text: str


class _Content(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    parts: tuple[_Part]
    role: str = ""


class _Candidate(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: _Content
    index: Literal[0] = 0


class _Event(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    candidates: tuple[_Candidate]
    usageMetadata: _Usage | None = None
    modelVersion: str = ""
    createTime: str | None = None
    responseId: str = ""


_decode = msgspec.json.Decoder(_Event).decode


def short_chunks(
    payloads: Sequence[bytes], index: int, seen: dict[str, Any]
) -> list[AIMessageChunk] | None:
    """The chunks of events with a piece of text for the block `index`; None if not all of them are
    short ones.

    `seen["usage"]` is the usage as it was last reported: what repeats says nothing new.
    """
    try:
        events = [_decode(payload) for payload in payloads]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    chunks: list[AIMessageChunk] = []
    known: _Usage | None = None  # the last one, once it has been compared with `seen`
    created = seen.get("createTime")
    for event in events:
        text, usage = event.candidates[0].content.parts[0].text, event.usageMetadata
        if not text or (event.createTime is not None and event.createTime != created):
            return None
        if known is None and usage is not None and usage.plain() == seen.get("usage"):
            known = usage
        if usage is None or usage == known:
            chunks.append(TextChunk("", text, index))
        elif usage.totalTokenCount is UNSET:
            return None
        else:
            chunks.append(NotedChunk("", text, index, usage))
            known = usage
    if known is not None:
        seen["usage"] = known.plain()
    return chunks
