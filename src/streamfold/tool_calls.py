"""Which call a piece of a tool call belongs to, and what a call's arguments are worth.

Providers number, name and identify the pieces of parallel calls in every way there is: one index
for all, no index, the id on the first piece or on each, the name repeated. `CallBook` is the one
state machine that sorts them, for codecs and for chunks added by hand alike:

- a different id, index or name opens a new call;
- a piece with neither id nor index continues the call opened last;
- the same name again, without an id, opens a new call once the arguments are a closed object;
- after the message has ended, a piece with an id opens a new call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from .deltas import join_text
from .partial_json import ObjectScanner, best_reading, strict_object

__all__ = ["Call", "CallBook", "judge", "read_unfinished"]

# Ends after which a call without arguments is whole. After any other (the token limit, a filter, a
# broken stream) empty arguments may just not have arrived.
_NORMAL_ENDS: Final = frozenset({"stop", "tool_calls", "pause"})
_BAD_NAME: Final = re.compile(r"[\x00-\x1f\x7f/\\]")


class Call:
    """One tool call as it arrives. `number` is the place of its block in the message."""

    __slots__ = (
        "_known",
        "_scanner",
        "fallback_id",
        "id",
        "index",
        "name",
        "number",
        "parts",
        "turn",
    )

    def __init__(self, number: int, turn: int) -> None:
        self.number = number
        self.turn = turn
        self.id: str | None = None
        self.fallback_id: str | None = None
        self.index: int | str | None = None
        self.name: str | None = None
        self.parts: list[str] = []
        self._scanner: ObjectScanner | None = None
        # What was asked last of the arguments that have arrived, and the answer.
        self._known: tuple[Any, Any] | None = None

    @property
    def raw(self) -> str:
        """The arguments that have arrived, as text. Joined once per reading."""
        if len(self.parts) > 1 and self._scanner is None:
            self.parts = ["".join(self.parts)]
        return join_text(self.parts)

    def closed(self) -> bool:
        """Whether the arguments so far are a closed object."""
        if self._scanner is None:
            self._scanner = ObjectScanner()
        return self._scanner.scan(self.parts)

    def take(self, id: str | None, index: int | str | None, name: str | None, args: str) -> None:
        """Add a piece. The first non-empty id, index and name stay."""
        if id and not self.id:
            self.id = id
        if index is not None and self.index is None:
            self.index = index
        if name and not self.name:
            self.name = name
        if args:
            self.parts.append(args)
            self._known = None

    def reading(self) -> dict[str, Any] | None:
        """The best reading of the arguments so far: parsed once, until more of them arrive."""
        return _copied(self._answer(_SO_FAR, lambda: read_unfinished(self.raw)))

    def verdict(self, finish_reason: str | None) -> tuple[dict[str, Any] | None, str | None]:
        """What `judge` says of the arguments: parsed once for each end that they may have."""
        args, error = self._answer(
            (finish_reason, self.name), lambda: judge(self.raw, self.name, finish_reason)
        )
        return _copied(args), error

    def _answer(self, asked: Any, find: Callable[[], Any]) -> Any:
        if self._known is None or self._known[0] != asked:
            self._known = (asked, find())
        return self._known[1]


_SO_FAR: Final = "so far"


def _copied(args: dict[str, Any] | None) -> dict[str, Any] | None:
    """For a reader who may change it: the containers anew, the texts shared."""
    return msgspec.to_builtins(args)  # type: ignore[no-any-return]


class CallBook:
    """The calls of a message, and the rule that gives each piece its call."""

    __slots__ = ("_by_id", "_by_index", "_turn", "calls")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_index: dict[int | str, Call] = {}
        self._by_id: dict[str, Call] = {}
        self._turn = 0

    def end_message(self) -> None:
        """The message has ended: a piece with an id that comes after this is a new call."""
        self._turn += 1

    def find(self, id: str | None, index: int | str | None, name: str | None) -> Call | None:
        """The call that a piece continues, or None if it opens a new one."""
        call = self._candidate(id, index, name)
        if call is None or (id and call.turn != self._turn):
            return None
        if name and call.name:
            if name != call.name:
                return None
            if not (id and call.id) and call.parts and call.closed():
                return None
        return call

    def _candidate(self, id: str | None, index: int | str | None, name: str | None) -> Call | None:
        if id:
            known = self._by_id.get(id)
            if known is not None and (index is None or known.index is None or known.index == index):
                return known
            near = self._by_index.get(index) if index is not None else self._last()
            return near if near is not None and not near.id and not near.closed() else None
        if index is None:
            return self._last()
        call = self._by_index.get(index)
        if call is None and not name:
            last = self._last()
            return last if last is not None and last.index is None else None
        return call

    def _last(self) -> Call | None:
        return self.calls[-1] if self.calls else None

    def place(self, id: str | None, index: int | str | None, name: str | None, args: str) -> Call:
        """Give a piece to its call, which is opened if there is none yet."""
        call = self.find(id, index, name) or self.open(len(self.calls))
        call.take(id, index, name, args)
        self.note(call)
        return call

    def open(self, number: int) -> Call:
        """Start a new call; `take` must follow, then `note`."""
        call = Call(number, self._turn)
        self.calls.append(call)
        return call

    def note(self, call: Call) -> None:
        """Remember by what the call can be found; the newest call under an index has it."""
        if call.id:
            self._by_id[call.id] = call
        if call.index is not None:
            self._by_index[call.index] = call


def judge(
    raw: str, name: str | None, finish_reason: str | None
) -> tuple[dict[str, Any] | None, str | None]:
    """The verdict on a finished call: its arguments, or None and the reason why it is invalid.

    Judged from the message alone: one JSON object, or nothing at all after a normal finish, and a
    name without control characters and slashes. A closed object is complete whatever ended it.
    """
    if not name:
        return None, "the call has no name"
    if _BAD_NAME.search(name):
        return None, f"the name {name!r} has control characters or slashes"
    if not raw.strip():
        if finish_reason in _NORMAL_ENDS:
            return {}, None
        return None, _cut_off(finish_reason)
    try:
        return strict_object(raw), None
    except ValueError as error:
        if finish_reason not in _NORMAL_ENDS and _could_go_on(raw):
            return None, _cut_off(finish_reason)
        return None, f"the arguments are unreadable: {error}"


def _could_go_on(raw: str) -> bool:
    if ObjectScanner().scan([raw]):
        return False  # an object has closed, and it is not all there is
    try:
        best_reading(raw)
    except ValueError:
        return False
    return True


def _cut_off(finish_reason: str | None) -> str:
    why = {
        "length": "by the token limit",
        "content_filter": "by a content filter",
        "refusal": "by a refusal",
        "cancelled": "when the stream was cancelled",
    }.get(finish_reason or "", "because the stream broke off")
    return f"the arguments were cut off {why}"


def read_unfinished(raw: str) -> dict[str, Any] | None:
    """The best reading of arguments that are still arriving; None if they can be no object."""
    if not raw.strip():
        return {}
    try:
        value = best_reading(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
