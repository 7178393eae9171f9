"""The pieces of Bedrock Converse answers: server tool results as they arrive, citations, usage."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from ..usage import UsageMetadata, make_usage

__all__ = [
    "Result",
    "at",
    "dicts",
    "is_count",
    "joined_base64",
    "others",
    "read_citation",
    "read_usage",
    "texts",
]


def others(block: dict[str, Any], *read: str) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k not in read and v is not None}


def at(value: Any, *path: str) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def is_text(item: Any) -> bool:
    return isinstance(item, dict) and item.keys() == {"text"} and isinstance(item["text"], str)


def dicts(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


def texts(parts: Any) -> str:
    """The texts of ``[{"text": ...}, ...]``, joined."""
    return "".join(part["text"] for part in dicts(parts) if is_text(part))


def read_citation(native: dict[str, Any]) -> dict[str, Any]:
    """A citation block. The native citation is kept in `extras`, to be sent back as it came: its
    places count in the cited document, not in the text of the answer."""
    source = native.get("source")
    is_link = isinstance(source, str) and source.startswith(("https://", "http://"))
    found = {
        "url": at(native, "location", "web", "url") or (source if is_link else None),
        "title": native.get("title"),
        "cited_text": texts(native.get("sourceContent")) or None,
    }
    shown = {key: value for key, value in found.items() if value is not None}
    return {"type": "citation", **shown, "extras": {"native": native}}


def joined_base64(pieces: list[str]) -> str:
    try:
        return base64.b64encode(
            b"".join(base64.b64decode(p, validate=True) for p in pieces)
        ).decode()
    except binascii.Error:
        return "".join(pieces)


def read_usage(usage: dict[str, Any], thinking_tokens: Any = None) -> UsageMetadata:
    """Bedrock counts what was read from the cache and written to it apart from `inputTokens`; here
    the sum includes it. (AWS, "Prompt caching": total input tokens = inputTokens +
    cacheReadInputTokens + cacheWriteInputTokens.) Some models' figures have other names."""
    read = _count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    into = (_count(usage, "inputTokens") or 0) + (read or 0) + (written or 0)
    return make_usage(
        into,
        _count(usage, "outputTokens"),
        input_details={"cache_read": read, "cache_creation": written, **_for_an_hour(usage)},
        output_details={"reasoning": thinking_tokens if is_count(thinking_tokens) else None},
    )


def _for_an_hour(usage: dict[str, Any]) -> dict[str, int]:
    """How much of what went into the cache stays there for an hour: it has a price of its own."""
    details = usage.get("cacheDetails")
    hours = (
        [d for d in details if isinstance(d, dict) and d.get("ttl") == "1h"]
        if isinstance(details, list)
        else []
    )
    hour = sum(_count(detail, "inputTokens") or 0 for detail in hours)
    return {"ephemeral_1h_input_tokens": hour} if hour else {}


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(usage: dict[str, Any], *names: str) -> int | None:
    return next((usage[name] for name in names if is_count(usage.get(name))), None)


class Result:
    """A server tool result as it arrives: shown with its first content, and again at its end if
    there was more."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self._content: list[Any] = []
        self.shown = False
        self.changed = True

    def add(self, items: list[Any]) -> None:
        for item in items:
            last = self._content[-1] if self._content else None
            if last is not None and is_text(item) and is_text(last):
                self._content[-1] = {"text": last["text"] + item["text"]}
            else:
                self._content.append(item)
        self.changed = True

    def data(self) -> dict[str, Any]:
        fields = self._fields
        extras = others(fields, "toolUseId", "content", "status", "type")
        if fields.get("type"):
            extras["block_type"] = fields["type"]
        shown = {
            "tool_call_id": fields.get("toolUseId"),
            "status": "error" if fields.get("status") == "error" else "success",
            "output": list(self._content),
        }
        return {**shown, "extras": extras} if extras else shown
