"""Prompt caching: breakpoints for the vendors that want to be told what to keep.

Most vendors cache the beginning of a prompt by themselves, and usage shows it (`cache_read`).
Claude's models (at Anthropic, Bedrock, Vertex AI, OpenRouter) keep what a breakpoint follows:

    model.invoke(cache_prompt(messages))

The mark is the field ``cache_control`` in the `extras` of a message, and means all up to its end.
Each dialect says it in its own way (a field of the last block, a cache point), and those that need
no telling leave it out, so the same messages may go to any vendor. A block or a tool may be marked
by hand as well: ``{"type": "text", "text": ..., "cache_control": {"type": "ephemeral"}}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

from msgspec.structs import replace

from .coercion import MessageInput, coerce_messages
from .errors import ConfigurationError
from .messages import BaseMessage, SystemMessage

__all__ = ["CACHE_MARK", "cache_prompt"]

#: The field of a message's `extras` that marks the end of what is to be cached.
CACHE_MARK: Final = "cache_control"

_LIFETIMES: Final = ("5m", "1h")


def cache_prompt(
    messages: MessageInput, *, ttl: Literal["5m", "1h"] = "5m", min_messages: int = 0
) -> list[BaseMessage]:
    """`messages` with breakpoints of the prompt cache: after the system messages that they begin
    with (tools come before those and are cached with them) and after the last message.

    Call it anew for each turn, with the whole conversation: breakpoints that it placed before are
    moved, so that there are never more than two. Those on blocks stay. `ttl` is how long the cache
    lives, five minutes or an hour. Below `min_messages` messages nothing is marked. The input is
    not changed. Raises ConfigurationError for another lifetime or a number that is none.
    """
    if ttl not in _LIFETIMES:
        raise ConfigurationError(f"ttl is {ttl!r}: expected one of {', '.join(_LIFETIMES)}")
    if not isinstance(min_messages, int) or isinstance(min_messages, bool) or min_messages < 0:
        raise ConfigurationError(f"min_messages is {min_messages!r}: expected an int of 0 or more")
    said = [_without_mark(message) for message in coerce_messages(messages, orphan_results=True)]
    if len(said) < min_messages:
        return said
    mark = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    for place in {_head(said) - 1, len(said) - 1} - {-1}:
        said[place] = replace(said[place], extras={**said[place].extras, CACHE_MARK: mark})
    return said


def _head(messages: Sequence[BaseMessage]) -> int:
    """How many system messages the conversation begins with."""
    for place, message in enumerate(messages):
        if not isinstance(message, SystemMessage):
            return place
    return len(messages)


def _without_mark(message: BaseMessage) -> BaseMessage:
    if CACHE_MARK not in message.extras:
        return message
    extras: dict[str, Any] = {k: v for k, v in message.extras.items() if k != CACHE_MARK}
    return replace(message, extras=extras)
