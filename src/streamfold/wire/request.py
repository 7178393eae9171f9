"""What to ask, in no provider's words, and what to send, in HTTP's."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from ..errors import ConfigurationError
from ..messages import BaseMessage

__all__ = ["ChatRequest", "HTTPRequest", "path_segment"]


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a model. None means "not said": the provider's default.

    `tools`, `tool_choice` and `response_format` are in the shapes of OpenAI Chat Completions, or
    the vendor's own (`raw` fields of a dialect pass through `extra`); each dialect translates.
    `extra` holds further fields of the request body; they win over what the dialect wrote.
    `provider` is who is asked, as `model_provider` names it: what an answer of another provider
    holds for that provider alone (reasoning, extras) is then not sent. None: all of it is.
    """

    model: str
    messages: list[BaseMessage]
    stream: bool = False
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    top_p: float | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    stream_usage: bool = True
    provider: str | None = None
    quirks: frozenset[str] = frozenset()
    extra: dict[str, Any] = {}


class HTTPRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What goes over the wire: `path` is appended to the base URL, `body` is JSON bytes.

    `headers` are the dialect's own (API version and the like), not credentials.
    """

    path: str
    body: bytes
    headers: dict[str, str] = {}


def path_segment(value: str, name: str) -> str:
    """`value` as one segment of a path, whatever is in it. Raises ConfigurationError for what no
    quoting keeps in its place: nothing, and dots alone, which mean another segment."""
    if value in ("", ".", ".."):
        raise ConfigurationError(f"{name} is {value!r}: expected a name")
    return quote(value, safe="")
