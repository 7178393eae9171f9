"""The usage in Gemini's events, and the short way through events that have text and usage.

Each event reports the tokens so far, so no two are alike as a `Template` wants them to be. Here the
numbers of the usage are holes, too; what they mean is worked out when somebody asks the chunk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..chunks import AIMessageChunk, NotedChunk, TextChunk
from ..deltas import ChunkEvent, ProviderData, TextDelta, UsageReport
from ..usage import UsageMetadata, make_usage, token_count
from .template import MARK, MARK_JSON, around_text, parsed, strings, value_at

__all__ = ["USAGE_KEY", "CountedUsage", "UsageTemplate", "has_counts", "read_usage"]

USAGE_KEY: Final = b'"usageMetadata"'
_DIGITS: Final = b"0123456789"
_KEEP_DIGITS: Final = bytes(byte if byte in _DIGITS else 0x20 for byte in range(256))
_number: Final = re.compile(rb"[0-9]++")
_scan: Final = json.JSONDecoder().raw_decode
_loads: Final = msgspec.json.Decoder().decode
_integers: Final = msgspec.json.Decoder(list[int]).decode


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


def has_counts(usage: object) -> bool:
    """Whether it tells of tokens. Vertex AI may tell of nothing but the kind of traffic."""
    return isinstance(usage, dict) and ("totalTokenCount" in usage or "promptTokenCount" in usage)


class CountedUsage(msgspec.Struct, gc=False):
    """The usage of one event: the `form` that the events of a stream share, and its numbers."""

    form: bytes
    numbers: list[int]

    def plain(self) -> dict[str, Any]:
        """As it was received."""
        usage: dict[str, Any] = _loads(self.form % tuple(self.numbers))
        return usage

    def events(self) -> list[ChunkEvent]:
        usage = self.plain()
        return [UsageReport(read_usage(usage)), ProviderData({"usage": usage})]


class UsageTemplate:
    """A payload with a hole for its text, which goes to the block `index` of the message, and one
    for each number of the usage that follows."""

    __slots__ = (
        "_between",
        "_form",
        "_head",
        "_index",
        "_last",
        "_same",
        "_seen",
        "_separator",
        "_tail",
    )

    def __init__(
        self,
        around: tuple[bytes, bytes, bytes],
        usage: bytes,
        separator: bytes,
        index: int | None,
        seen: dict[str, Any],
    ) -> None:
        """`around`: what stands before the text, between text and usage, and after both.
        `seen["usage"]` is kept to be the last one reported: what repeats says nothing new."""
        self._head, self._between, self._tail = around
        self._separator = separator
        self._index = index
        self._seen = seen
        self._same = usage.translate(None, _DIGITS)
        self._form = _number.sub(b"%d", usage.replace(b"%", b"%%"))
        self._last = _numbers(usage)

    @classmethod
    def learn(
        cls,
        block: bytes,
        delta: TextDelta,
        path: tuple[str | int, ...],
        separator: bytes,
        seen: dict[str, Any],
    ) -> UsageTemplate | None:
        """The template of `block`, in which the text of `delta` is the value at `path`.

        None where that cannot be proved: marks put in the place of text and usage must turn up
        there when the payload is parsed. Nor where the usage has an escape, or a number that is
        written otherwise than its value: what is made of the form must be what was received.
        """
        head, tail = around_text(block, delta.text)
        between, key, rest = tail.partition(USAGE_KEY)
        between += key + rest[: len(rest) - len(rest.lstrip(b": "))]
        usage, tail = _first_value(tail[len(between) :])
        _, data, start = head.rpartition(b"data: ")
        marked = parsed((start if data else head)[:-1] + MARK_JSON + between[1:] + MARK_JSON + tail)
        if value_at(marked, path) != MARK or value_at(marked, ("usageMetadata",)) != MARK:
            return None
        if b"\\" in usage or b"\n" in usage or not has_counts(parsed(usage)):
            return None
        template = cls((head, between, tail), usage, separator, delta.index, seen)
        return template if template._form % tuple(template._last) == usage else None

    def chunks(self, payloads: bytes) -> list[AIMessageChunk] | None:
        """The chunks of `payloads`, each with its separator; None if one of them is no copy."""
        blocks = payloads.split(self._separator)
        if blocks.pop():
            return None
        head, tail, between = self._head, self._tail, self._between
        raws = [b.removeprefix(head).removesuffix(tail) for b in blocks]
        removed = sum(map(len, blocks)) - sum(map(len, raws))
        if removed != len(blocks) * (len(head) + len(tail)):
            return None
        inner, found, usages = zip(*[raw.rpartition(between) for raw in raws], strict=True)
        joined = b"\n".join(usages)
        if not all(found) or joined.translate(None, _DIGITS) != b"\n".join(
            [self._same] * len(raws)
        ):
            return None
        texts, numbers, size = strings(inner), _numbers(joined), len(self._last)
        if texts is None or "" in texts or len(numbers) != size * len(texts):
            return None
        chunks: list[AIMessageChunk] = []
        index, form, last = self._index, self._form, self._last
        for place, text in enumerate(texts):
            now = numbers[place * size : (place + 1) * size]
            if now == last:
                chunks.append(TextChunk("", text, index))
            else:
                chunks.append(NotedChunk("", text, index, CountedUsage(form, now)))
                last = now
        self._last = last
        self._seen["usage"] = CountedUsage(form, last)
        return chunks


def _numbers(usages: bytes) -> list[int]:
    """The integers in it; none if one is not written as JSON wants it."""
    try:
        return _integers(b"[" + b",".join(usages.translate(_KEEP_DIGITS).split()) + b"]")
    except msgspec.DecodeError:
        return []


def _first_value(data: bytes) -> tuple[bytes, bytes]:
    """The JSON value that `data` begins with, as it stands there, and the rest."""
    try:
        _, end = _scan(data.decode("latin-1"))
    except (ValueError, RecursionError):
        return b"", data
    return data[:end], data[end:]
