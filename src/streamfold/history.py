"""Conversations made shorter: trimming, filtering, merging and counting messages.

A tool call and its result belong together: none of these functions leaves one without the other.
A result answers the nearest call with its id that comes before it (ids may come again in later
turns), so what belongs together is known by the places of messages, not by ids alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, TypeAlias, cast

import msgspec

from .coercion import coerce_messages
from .errors import ConfigurationError
from .messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from .usage import add_usage

__all__ = [
    "count_tokens_approximately",
    "filter_messages",
    "merge_message_runs",
    "trim_messages",
]

Counter: TypeAlias = Callable[[list[BaseMessage]], int]
Kinds: TypeAlias = str | type[BaseMessage] | Sequence[str | type[BaseMessage]]


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


# ---- counting ------------------------------------------------------------------------------------


def count_tokens_approximately(
    messages: Iterable[Any],
    *,
    chars_per_token: float = 4.0,
    extra_tokens_per_message: float = 3.0,
    count_name: bool = True,
    tokens_per_image: int = 85,
) -> int:
    """A quick estimate of tokens: a quarter of the characters, 3 per message, 85 per image."""
    total = 0.0
    for message in _coerced(messages):
        characters = len(message.role) + (len(message.name or "") if count_name else 0)
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


def _counter(given: Any) -> Counter:
    """`token_counter` as a function of a list of messages."""
    if given == "approximate":
        return count_tokens_approximately
    count: Any = getattr(given, "get_num_tokens_from_messages", given)  # a model has it
    if not callable(count):
        raise ConfigurationError(
            f"token_counter is {given!r:.60}: expected a function, a model or 'approximate'"
        )
    function = cast("Callable[[Any], int]", count)
    if _counts_one(function):
        return lambda messages: sum(map(function, messages))
    return function


def _counts_one(function: Callable[..., Any]) -> bool:
    """Whether a counter says that it takes one message, not a list."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters
    except (NameError, TypeError, ValueError):  # it does not say
        return False
    kind = next((parameter.annotation for parameter in parameters.values()), None)
    return isinstance(kind, type) and issubclass(kind, BaseMessage)


# ---- what belongs together -----------------------------------------------------------------------

#: Messages by their places in the whole conversation, in order; parts of them may stand in.
Placed: TypeAlias = dict[int, BaseMessage]


def _call_ids(message: BaseMessage) -> list[Any]:
    """The ids of the calls in a message, unreadable ones included: they are answered, too."""
    if not isinstance(message, AIMessage):
        return []
    return [call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)]


def _answers(messages: Sequence[BaseMessage]) -> dict[tuple[int, Any], list[int]]:
    """The places of the results of each call; a call is (the place of its message, its id)."""
    asked: dict[Any, int] = {}
    answers: dict[tuple[int, Any], list[int]] = {}
    for place, message in enumerate(messages):
        asked.update(dict.fromkeys(_call_ids(message), place))
        if isinstance(message, ToolMessage):
            call = (asked.get(message.tool_call_id, -1), message.tool_call_id)
            answers.setdefault(call, []).append(place)
    return answers


# ---- filtering -----------------------------------------------------------------------------------


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
    includes = (include_names, include_types, include_ids)

    def wanted(message: BaseMessage) -> bool:
        if (
            (exclude_names and message.name in exclude_names)
            or (exclude_types and _is(message, exclude_types))
            or (exclude_ids and message.id in exclude_ids)
        ):
            return False
        return (
            all(include is None for include in includes)
            or (include_names is not None and message.name in include_names)
            or (include_types is not None and _is(message, include_types))
            or (include_ids is not None and message.id in include_ids)
        )

    def excluded(id: Any) -> bool:
        return exclude_tool_calls is True or id in (exclude_tool_calls or ())

    listed = _coerced(messages)
    kept = {place: message for place, message in enumerate(listed) if wanted(message)}
    answers = _answers(listed)
    lost: set[tuple[int, Any]] = set()
    for call, places in answers.items():
        halved = call[0] not in kept or any(place not in kept for place in places)
        if (call[0] >= 0 and halved) or excluded(call[1]):
            lost.add(call)
            for place in places:
                kept.pop(place, None)
    for place, message in list(kept.items()):
        out = {id for id in _call_ids(message) if (place, id) in lost or excluded(id)}
        if out:
            kept[place] = _without_calls(message, out)
            if not kept[place].content:
                del kept[place]
    return list(kept.values())


def _without_calls(message: BaseMessage, out: Collection[Any]) -> BaseMessage:
    calls = ("tool_call", "invalid_tool_call")
    blocks = [
        block
        for block in message.content_blocks
        if block["type"] not in calls or block.get("id") not in out
    ]
    return msgspec.structs.replace(
        message,
        content=blocks,
        tool_calls=[],  # they are read from the blocks
        invalid_tool_calls=[],
    )


# ---- merging -------------------------------------------------------------------------------------


def merge_message_runs(
    messages: Iterable[Any], *, chunk_separator: str = "\n"
) -> list[BaseMessage]:
    """Messages of one kind that follow each other, merged; tool results are never merged.

    Texts are joined with `chunk_separator`, lists of blocks one after the other. Id, name and
    metadata are those of the first; of answers, the usage is added up and the last finish reason
    holds.
    """
    merged: list[BaseMessage] = []
    for message in _coerced(messages):
        last = merged[-1] if merged else None
        if last is None or last.role != message.role or isinstance(message, ToolMessage):
            merged.append(message)
        else:
            merged[-1] = _merged(last, message, chunk_separator)
    return merged


def _merged(left: BaseMessage, right: BaseMessage, separator: str) -> BaseMessage:
    changes: dict[str, Any] = {
        "content": _joined(left.content, right.content, separator),
        "extras": {**left.extras, **right.extras},
    }
    if isinstance(left, AIMessage) and isinstance(right, AIMessage):
        changes["usage_metadata"] = add_usage(left.usage_metadata, right.usage_metadata)
        changes["finish_reason"] = right.finish_reason or left.finish_reason
        changes["tool_calls"], changes["invalid_tool_calls"] = [], []  # read from the content
    return msgspec.structs.replace(left, **changes)


def _joined(left: Any, right: Any, separator: str) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return f"{left}{separator}{right}" if left and right else left or right
    return [*_listed(left), *_listed(right)]


def _listed(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)


# ---- trimming ------------------------------------------------------------------------------------


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
    text_splitter: Callable[[str], list[str]] | Any = None,
) -> list[BaseMessage]:
    """The first or last messages that fit into `max_tokens`.

    `token_counter`: a function of a list of messages (or of one message, if its annotation says
    so), a model, or "approximate". `include_system` keeps a system message at the beginning (with
    "last"). `start_on` and `end_on`: the kind of message that the result begins or ends with.
    `allow_partial` fills the rest with a part of the next message, cut between its blocks and by
    `text_splitter` (default: at lines). A tool call is kept only with its results.

    Raises ConfigurationError for parameters that do not fit together.
    """
    if strategy not in ("first", "last"):
        raise ConfigurationError(f"strategy is {strategy!r}: expected 'first' or 'last'")
    if strategy == "first" and (start_on is not None or include_system):
        raise ConfigurationError("start_on and include_system go with strategy='last' only")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 0:
        raise ConfigurationError(f"max_tokens is {max_tokens!r}: expected an int of 0 or more")
    split: Any = getattr(text_splitter, "split_text", text_splitter) or _lines
    if not callable(split):
        raise ConfigurationError(f"text_splitter is {text_splitter!r:.60}: expected a function")
    cut = cast("Callable[[str], list[str]]", split) if allow_partial else None
    trimmer = _Trimmer(_coerced(messages), _counter(token_counter), max_tokens, cut)
    if strategy == "first":
        return trimmer.first(end_on)
    return trimmer.last(start_on, end_on, include_system)


def _lines(text: str) -> list[str]:
    *lines, rest = text.split("\n")
    return [*(f"{line}\n" for line in lines), rest]


class _Trimmer:
    def __init__(
        self,
        messages: list[BaseMessage],
        count: Counter,
        budget: int,
        split: Callable[[str], list[str]] | None,
    ) -> None:
        self._messages = messages
        self._answers = _answers(messages)
        self._count = count
        self._budget = budget
        self._split = split

    def first(self, end_on: Kinds | None) -> list[BaseMessage]:
        whole = self._messages
        fits = _most(len(whole), lambda n: self._fit(whole[:n]))
        kept = dict(enumerate(whole[:fits]))
        if fits < len(whole):
            self._fill(kept, [], fits, from_end=False)
        return list(self._fitted(kept, None, end_on).values())

    def last(
        self, start_on: Kinds | None, end_on: Kinds | None, include_system: bool
    ) -> list[BaseMessage]:
        placed = self._fitted(dict(enumerate(self._messages)), None, end_on)
        system: list[BaseMessage] = []
        if include_system and isinstance(placed.get(0), SystemMessage):
            system = [placed.pop(0)]
        places = list(placed)
        fits = _most(
            len(places), lambda n: self._fit([*system, *(placed[p] for p in _last(places, n))])
        )
        kept = {place: placed[place] for place in _last(places, fits)}
        if fits < len(places):
            self._fill(kept, system, places[-fits - 1], from_end=True)
        return [*system, *self._fitted(kept, start_on, end_on).values()]

    def _fit(self, messages: list[BaseMessage]) -> bool:
        return self._count(messages) <= self._budget

    # ---- whole exchanges -------------------------------------------------------------------------

    def _fitted(self, kept: Placed, start_on: Kinds | None, end_on: Kinds | None) -> Placed:
        """`kept` without what must not begin or end it, and with whole exchanges only."""
        before = None
        while before != len(kept):
            before = len(kept)
            kept = self._whole_exchanges(kept)
            places = list(kept)
            while places and start_on is not None and not _is(kept[places[0]], start_on):
                del kept[places.pop(0)]
            while places and end_on is not None and not _is(kept[places[-1]], end_on):
                del kept[places.pop()]
        return kept

    def _whole_exchanges(self, kept: Placed) -> Placed:
        """Without results whose call is gone, and without messages one of whose calls has lost a
        result. A call that was not answered yet stays."""
        torn = {
            asked
            for (asked, _), places in self._answers.items()
            if asked not in kept or any(place not in kept for place in places)
        }
        gone = {
            place
            for (asked, _), places in self._answers.items()
            if asked in torn
            for place in (asked, *places)
        }
        return {place: message for place, message in kept.items() if place not in gone}

    # ---- a part of the next message --------------------------------------------------------------

    def _fill(self, kept: Placed, system: list[BaseMessage], place: int, *, from_end: bool) -> None:
        """As much of the message at `place` as still fits, if parts are allowed."""
        message = self._messages[place]
        if self._split is None or isinstance(message, ToolMessage) or _call_ids(message):
            return
        pieces = self._pieces(message)
        others = [*system, *kept.values()]

        def part(count: int) -> BaseMessage:
            chosen = _last(pieces, count) if from_end else pieces[:count]
            return msgspec.structs.replace(message, content=_put_together(chosen))

        # One piece at a time, not by bisection: how many tokens pieces make is the counter's.
        for count in range(len(pieces) - 1, 0, -1):
            if self._fit([*others, part(count)]):
                ordered = {**kept, place: part(count)}
                kept.clear()
                kept.update(sorted(ordered.items()))
                return

    def _pieces(self, message: BaseMessage) -> list[dict[str, Any]]:
        """Blocks of the content; texts in as many as they are split into."""
        assert self._split is not None
        pieces = []
        for block in _listed(message.content):
            if block.keys() == {"type", "text"} and isinstance(block["text"], str):
                pieces += [{"type": "text", "text": text} for text in self._split(block["text"])]
            else:
                pieces.append(block)
        return pieces


def _put_together(pieces: list[dict[str, Any]]) -> Any:
    """Pieces as content again; neighbouring texts are one."""
    blocks: list[dict[str, Any]] = []
    for piece in pieces:
        if blocks and piece.keys() == blocks[-1].keys() == {"type", "text"}:
            blocks[-1] = {"type": "text", "text": blocks[-1]["text"] + piece["text"]}
        else:
            blocks.append(piece)
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return blocks


def _last(items: list[Any], count: int) -> list[Any]:
    return items[len(items) - count :]


def _most(total: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `total` that fits, by bisection."""
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
