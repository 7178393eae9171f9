"""Conversations made shorter: trimming, filtering, merging and counting messages.

A tool call and its result belong together: none of these functions leaves one without the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, cast

import msgspec

from .coercion import coerce_messages
from .errors import ConfigurationError
from .messages import AIMessage, BaseMessage, SystemMessage, ToolMessage

__all__ = [
    "count_tokens_approximately",
    "filter_messages",
    "merge_message_runs",
    "trim_messages",
]

Counter = Callable[[list[BaseMessage]], int]
Kinds = str | type[BaseMessage] | Sequence[str | type[BaseMessage]]


def count_tokens_approximately(
    messages: Iterable[Any],
    *,
    chars_per_token: float = 4.0,
    extra_tokens_per_message: float = 3.0,
    tokens_per_image: int = 85,
) -> int:
    """A quick estimate of tokens: a quarter of the characters, 3 per message, 85 per image."""
    total = 0.0
    for message in _coerced(messages):
        characters = len(message.role) + len(message.name or "")
        for block in message.content_blocks:
            if block["type"] == "image":
                total += tokens_per_image
            elif block["type"] in ("text", "reasoning"):
                characters += len(block.get("text") or block.get("reasoning") or "")
            else:
                characters += len(msgspec.json.encode(block, enc_hook=str))
        if isinstance(message, ToolMessage):
            characters += len(message.tool_call_id)
        total += math.ceil(characters / chars_per_token) + extra_tokens_per_message
    return math.ceil(total)


def _coerced(messages: Iterable[Any]) -> list[BaseMessage]:
    """Messages of any form; none are an empty list."""
    listed = list(messages)
    return list(coerce_messages(listed, orphan_results=True)) if listed else []


def _is(message: BaseMessage, kinds: Kinds) -> bool:
    listed = [kinds] if isinstance(kinds, str | type) else kinds
    return any(
        isinstance(message, kind)
        if isinstance(kind, type)
        else kind in (message.type, message.role)
        for kind in listed
    )


def filter_messages(
    messages: Iterable[Any],
    *,
    include_names: Sequence[str] | None = None,
    exclude_names: Sequence[str] | None = None,
    include_types: Kinds | None = None,
    exclude_types: Kinds | None = None,
    include_ids: Sequence[str] | None = None,
    exclude_ids: Sequence[str] | None = None,
    exclude_tool_calls: bool | Sequence[str] | None = None,
) -> list[BaseMessage]:
    """The messages that match one of the includes (all, without any) and none of the excludes.
    Where only a call or only its result matches, the other is left out, too.

    `exclude_tool_calls`: True drops all calls with their results, a list those with these ids.
    """
    kept = []
    listed = _coerced(messages)
    for message in listed:
        if exclude_names and message.name in exclude_names:
            continue
        if exclude_types and _is(message, exclude_types):
            continue
        if exclude_ids and message.id in exclude_ids:
            continue
        included = (
            (include_types is None and include_names is None and include_ids is None)
            or (include_names is not None and message.name in include_names)
            or (include_types is not None and _is(message, include_types))
            or (include_ids is not None and message.id in include_ids)
        )
        if included:
            kept.append(message)
    kept = _in_pairs(kept, listed)
    return _without_calls(kept, exclude_tool_calls) if exclude_tool_calls else kept


def _calls(messages: Iterable[BaseMessage]) -> set[Any]:
    """The ids of all calls, unreadable ones included: they are answered, too."""
    return {
        call["id"]
        for message in messages
        if isinstance(message, AIMessage)
        for call in (*message.tool_calls, *message.invalid_tool_calls)
    }


def _results(messages: Iterable[BaseMessage]) -> set[Any]:
    return {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}


def _in_pairs(kept: list[BaseMessage], whole: list[BaseMessage]) -> list[BaseMessage]:
    """`kept` without the calls and results whose other half was in `whole` and is gone."""
    halved = (_calls(whole) & _results(whole)) - (_calls(kept) & _results(kept))
    return _without_calls(kept, halved) if halved else kept


def _without_calls(
    messages: list[BaseMessage], excluded: bool | Collection[Any]
) -> list[BaseMessage]:
    def out(id: Any) -> bool:
        return excluded is True or id in excluded  # type: ignore[operator,unused-ignore]

    kept: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage) and out(message.tool_call_id):
            continue
        if isinstance(message, AIMessage) and any(map(out, _calls([message]))):
            message = _without_blocks(message, out)
            if not message.content:
                continue
        kept.append(message)
    return kept


def _without_blocks(message: AIMessage, out: Callable[[Any], bool]) -> AIMessage:
    calls = ("tool_call", "invalid_tool_call")
    blocks = [
        block
        for block in message.content_blocks
        if block["type"] not in calls or not out(block.get("id"))
    ]
    return msgspec.structs.replace(message, content=blocks, tool_calls=[], invalid_tool_calls=[])


def merge_message_runs(
    messages: Iterable[Any], *, chunk_separator: str = "\n"
) -> list[BaseMessage]:
    """Messages of one kind that follow each other, merged; tool results are never merged.

    Texts are joined with `chunk_separator`, lists of blocks one after the other.
    """
    merged: list[BaseMessage] = []
    for message in _coerced(messages):
        last = merged[-1] if merged else None
        mergeable = last is not None and type(last) is type(message)
        if not mergeable or isinstance(message, ToolMessage):
            merged.append(message)
            continue
        assert last is not None
        content = _joined(last.content, message.content, chunk_separator)
        merged[-1] = msgspec.structs.replace(last, content=content)
    return merged


def _joined(left: Any, right: Any, separator: str) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return f"{left}{separator}{right}" if left and right else left or right
    return [*_listed(left), *_listed(right)]


def _listed(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)


def trim_messages(
    messages: Iterable[Any],
    *,
    max_tokens: int,
    token_counter: Counter | Literal["approximate"] | Any = "approximate",
    strategy: Literal["first", "last"] = "last",
    allow_partial: bool = False,
    end_on: Kinds | None = None,
    start_on: Kinds | None = None,
    include_system: bool = False,
    text_splitter: Callable[[str], list[str]] | None = None,
) -> list[BaseMessage]:
    """The first or last messages that fit into `max_tokens`.

    `token_counter`: a function of a list of messages, or "approximate". `include_system` keeps a
    system message at the beginning (with "last"). `start_on` and `end_on`: the kind of message that
    the result begins or ends with. `allow_partial` fills the rest with a part of the next message,
    cut by `text_splitter` (default: at lines). A tool call is kept only with its results.

    Raises ConfigurationError for parameters that do not fit together.
    """
    if strategy not in ("first", "last"):
        raise ConfigurationError(f"strategy is {strategy!r}: expected 'first' or 'last'")
    if strategy == "first" and (start_on is not None or include_system):
        raise ConfigurationError("start_on and include_system go with strategy='last' only")
    count: Any = token_counter
    if token_counter == "approximate":
        count = count_tokens_approximately
    if not callable(count):
        raise ConfigurationError(
            f"token_counter is {token_counter!r:.60}: expected a function or 'approximate'"
        )
    listed = _coerced(messages)
    split = text_splitter or (lambda text: text.splitlines(keepends=True))
    trimmer = _Trimmer(cast("Counter", count), max_tokens, split if allow_partial else None)
    if strategy == "first":
        return trimmer.first(listed, end_on)
    return trimmer.last(listed, start_on, end_on, include_system)


class _Trimmer:
    def __init__(
        self, count: Counter, budget: int, split: Callable[[str], list[str]] | None
    ) -> None:
        self._count = count
        self._budget = budget
        self._split = split

    def first(self, messages: list[BaseMessage], end_on: Kinds | None) -> list[BaseMessage]:
        fits = self._longest(messages, lambda n: messages[:n])
        kept = messages[:fits]
        if self._split is not None and fits < len(messages):
            kept += self._part(kept, messages[fits], from_end=False)
        return _fitted(kept, messages, None, end_on)

    def last(
        self,
        messages: list[BaseMessage],
        start_on: Kinds | None,
        end_on: Kinds | None,
        include_system: bool,
    ) -> list[BaseMessage]:
        whole = messages
        messages = _fitted(messages, whole, None, end_on)
        system: list[BaseMessage] = []
        if include_system and messages and isinstance(messages[0], SystemMessage):
            system, messages = messages[:1], messages[1:]
        total = len(messages)
        fits = self._longest(messages, lambda n: system + messages[total - n :])
        kept = messages[total - fits :]
        if self._split is not None and fits < total:
            kept = self._part(system + kept, messages[total - fits - 1], from_end=True) + kept
        return system + _fitted(kept, whole, start_on, end_on)

    def _longest(
        self, messages: list[BaseMessage], part: Callable[[int], list[BaseMessage]]
    ) -> int:
        """The most messages whose part fits, by bisection."""
        low, high = 0, len(messages)
        while low < high:
            middle = (low + high + 1) // 2
            if self._count(part(middle)) <= self._budget:
                low = middle
            else:
                high = middle - 1
        return low

    def _part(
        self, kept: list[BaseMessage], message: BaseMessage, *, from_end: bool
    ) -> list[BaseMessage]:
        """As much of the text of `message` as still fits beside `kept`."""
        assert self._split is not None
        if isinstance(message, ToolMessage) or not isinstance(message.content, str):
            return []
        pieces = self._split(message.content)
        for size in range(len(pieces) - 1, 0, -1):
            text = "".join(pieces[-size:] if from_end else pieces[:size])
            part = msgspec.structs.replace(message, content=text)
            if self._count([*kept, part]) <= self._budget:
                return [part]
        return []


def _fitted(
    kept: list[BaseMessage], whole: list[BaseMessage], start_on: Kinds | None, end_on: Kinds | None
) -> list[BaseMessage]:
    """`kept` without what must not begin or end it, and with whole exchanges only."""
    before = None
    while before != len(kept):
        before = len(kept)
        kept = _whole_calls(kept, whole)
        while kept and start_on is not None and not _is(kept[0], start_on):
            kept = kept[1:]
        while kept and end_on is not None and not _is(kept[-1], end_on):
            kept = kept[:-1]
    return kept


def _whole_calls(kept: list[BaseMessage], whole: list[BaseMessage]) -> list[BaseMessage]:
    """Without results whose call is gone, and without messages one of whose calls has lost its
    result. A call that was not answered yet stays."""
    answered, lost = _results(whole), _results(whole) - _results(kept)
    torn = [m for m in kept if isinstance(m, AIMessage) and _calls([m]) & answered & lost]
    there = [m for m in kept if not any(m is other for other in torn)]
    calls = _calls(there)
    return [m for m in there if not isinstance(m, ToolMessage) or m.tool_call_id in calls]
