"""The usage in Gemini's events, and the short way through events that have text and usage.

Each event reports the tokens so far, so no two are alike as a `Template` wants them to be. Here the
numbers of the usage are holes, too; what they mean is worked out when somebody asks the chunk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from ..chunks import AIMessageChunk, NotedChunk, TextChunk
from ..deltas import ChunkEvent, ProviderData, TextDelta, UsageReport
from ..usage import UsageMetadata, make_usage, token_count
from .template import MARK, MARK_JSON, around_text, parsed, strings, value_at

__all__ = ["USAGE_KEY", "CountedUsage", "UsageTemplate", "has_counts", "read_usage"]

USAGE_KEY: Final = b'"usageMetadata"'
_DIGITS: Final = b"0123456789"
#: So many events tell which of their numbers change.
_ENOUGH: Final = 8
#: Longer than any usage is; a number of thousands of digits cannot be read.
_LONGEST: Final = 2000
_number: Final = re.compile(rb"[0-9]++")
_scan: Final = json.JSONDecoder().raw_decode
_loads: Final = msgspec.json.Decoder().decode
_has_leading_zero: Final = re.compile(rb"(?<![0-9])0[0-9]").search


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
    """A usage as it was received: `varying`, and what is `around` it in many events alike."""

    around: tuple[bytes, bytes]
    varying: bytes

    def plain(self) -> dict[str, Any]:
        usage: dict[str, Any] = _loads(self.varying.join(self.around))
        return usage

    def events(self) -> list[ChunkEvent]:
        usage = self.plain()
        return [UsageReport(read_usage(usage)), ProviderData({"usage": usage})]

    def narrowed(self, others: Sequence[bytes]) -> CountedUsage:
        """The same, varying only from the first number that is another one in one of the `others`
        to the last."""
        places = [match.span() for match in _number.finditer(self.varying)]
        columns = zip(*(_number.findall(each) for each in (self.varying, *others)), strict=True)
        there = [place for place, column in zip(places, columns, strict=True) if len({*column}) > 1]
        if not there:
            return self
        (start, _), (_, end) = there[0], there[-1]
        before, after = self.around
        part = self.varying
        return CountedUsage((before + part[:start], part[end:] + after), part[start:end])


class UsageTemplate:
    """A payload with a hole for its text, which goes to the block `index` of the message, and one
    for each number of the usage that follows; once several have been seen, only for numbers that
    change."""

    def __init__(
        self,
        around: tuple[bytes, bytes, bytes],
        usage: CountedUsage,
        separator: bytes,
        index: int | None,
        seen: dict[str, Any],
    ) -> None:
        """`around`: what stands before the text, between text and usage, and after both.
        `seen["usage"]` is kept to be the last one reported: what repeats says nothing new."""
        self._around = around
        self._separator = separator
        self._index = index
        self._seen = seen
        self._is_narrow = False
        self._take(usage)

    def _take(self, usage: CountedUsage) -> None:
        self._usage = usage.around
        self._last = usage.varying
        self._same = usage.varying.translate(None, _DIGITS)
        # What would stand there if a number were missing, and if it began with a zero.
        pieces = [piece or b"\n" for piece in _number.split(usage.varying)]
        self._gaps = [one[-1:] + two[:1] for one, two in pairwise(pieces)]
        self._zeros = {piece[-1:] + b"0" for piece in pieces[:-1]}

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
        there when the payload is parsed. Nor where the usage has an escape or a line end, for then
        it is not plain what is a number.
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
        whole = CountedUsage((b"", b""), usage)
        template = cls((head, between, tail), whole, separator, delta.index, seen)
        return template if template._are_copies([usage]) else None

    def chunks(self, payloads: bytes) -> list[AIMessageChunk] | None:
        """The chunks of `payloads`, each with its separator; None if one of them is no copy."""
        holes = self._holes(payloads)
        if holes is None:
            return None
        texts, usages = holes
        index, around = self._index, self._usage
        chunks: list[AIMessageChunk] = [
            TextChunk("", text, index)
            if usage == before
            else NotedChunk("", text, index, CountedUsage(around, usage))
            for text, usage, before in zip(texts, usages, (self._last, *usages), strict=False)
        ]
        self._last = usages[-1]
        self._seen["usage"] = last = CountedUsage(around, usages[-1])
        if not self._is_narrow and len(usages) >= _ENOUGH:
            self._is_narrow = True
            self._take(last.narrowed(usages))
        return chunks

    def _holes(self, payloads: bytes) -> tuple[list[str], Sequence[bytes]] | None:
        """The text of each payload, and what varies in its usage."""
        blocks = payloads.split(self._separator)
        if blocks.pop():
            return None
        head, between, tail = self._around
        between, tail = between + self._usage[0], self._usage[1] + tail
        raws = [b.removeprefix(head).removesuffix(tail) for b in blocks]
        around = len(head) + len(tail) + len(self._separator)
        if len(payloads) - sum(map(len, raws)) != len(blocks) * around:
            return None
        inner, found, usages = zip(*[raw.rpartition(between) for raw in raws], strict=True)
        if not (all(found) and self._are_copies(usages)):
            return None
        texts = strings(inner)
        return None if texts is None or "" in texts else (texts, usages)

    def _are_copies(self, usages: Sequence[bytes]) -> bool:
        """Whether they differ from what is known in nothing but the values of numbers."""
        joined = b"\n".join((b"", *usages, b""))
        same = b"\n".join((b"", *[self._same] * len(usages), b""))
        if joined.translate(None, _DIGITS) != same or max(map(len, usages)) > _LONGEST:
            return False
        if any(gap in joined for gap in self._gaps):
            return False
        maybe = any(zero in joined for zero in self._zeros)  # it is 0, in most cases
        return not (maybe and _has_leading_zero(joined))


def _first_value(data: bytes) -> tuple[bytes, bytes]:
    """The JSON value that `data` begins with, as it stands there, and the rest."""
    try:
        _, end = _scan(data.decode("latin-1"))
    except (ValueError, RecursionError):
        return b"", data
    return data[:end], data[end:]
