"""Our own vocabulary: the typed chunk events as JSON, one in each server-sent event.

What a program on the other side needs to know:

- `data` is a chunk event with its `type` (`text-delta`, `tool-call-delta`, ...), as `encode_events`
  writes it; a tool's result is a message with the type `tool`; an event of `astream_events` is the
  dict that ``serialize=True`` gives, with `event`.
- The last one is ``{"type": "stream-end"}`` or ``{"type": "stream-error", "error": {...}}``, whose
  error has `class`, `message`, `status`, `retryable` and `retry_after` (seconds or null). A stream
  that ends with neither was cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ...events import plain
from ...messages import ToolMessage
from .failures import Refusal, refusal_headers, status_of
from .items import Item
from .sse import json_line

__all__ = ["EventsVocabulary"]


class EventsVocabulary:
    """Typed chunk events."""

    headers: ClassVar[Mapping[str, str]] = {}

    def feed(self, item: Item) -> list[bytes]:
        if isinstance(item, ToolMessage):
            return [json_line(plain(item))]
        return [json_line(plain(item) if isinstance(item, Mapping) else item)]

    def close(self) -> list[bytes]:
        return [b'{"type":"stream-end"}']

    def fail(self, error: Exception, text: str) -> list[bytes]:
        return [json_line({"type": "stream-error", "error": _described(error, text)})]

    def refuse(self, error: Exception, text: str) -> Refusal:
        body = json_line({"error": _described(error, text)})
        return Refusal(status_of(error), body, "application/json", refusal_headers(error))


def _described(error: Exception, text: str) -> dict[str, Any]:
    return {
        "class": type(error).__name__,
        "message": text,
        "status": status_of(error),
        "retryable": getattr(error, "retryable", False),
        "retry_after": getattr(error, "retry_after", None),
    }
