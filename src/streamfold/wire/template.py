"""The short way through a stream: payloads that differ only in their text.

Nearly all payloads of a stream are equal byte for byte but for one JSON string, the next piece of
text. Once a payload has been read completely and gave one piece of text and nothing else, another
one that is the same around the text can give nothing else either. So a template is learnt: the
bytes of such a payload with a hole for the text. A read that consists of nothing but copies of it
is taken apart by one regular expression, and its texts are decoded as one JSON array, both in C.
Anything else goes the complete way, and the template is learnt anew from what that says.

Besides the text, padding may vary that hides its length from those who watch encrypted traffic: a
string of letters and digits with OpenAI (`obfuscation`), blanks before the last brace with
Anthropic. And so may a number that counts the payloads (`sequence_number` with OpenAI's Responses),
for a dialect that never looks at it.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

__all__ = ["Template"]

_loads = msgspec.json.Decoder().decode
_strings = msgspec.json.Decoder(list[str]).decode
_MARK: Final = "\u2702streamfold\u2702"
_MARK_JSON: Final = msgspec.json.encode(_MARK)
#: A JSON string without its quotes; possessive, so it never tries twice.
_TEXT: Final = rb'([^"\\\n]*+(?:\\.[^"\\\n]*+)*+)'
_PADDING_KEYS: Final = (b'"obfuscation":"', b'"p":"')
#: A JSON number that counts.
_COUNT: Final = rb"(?:0|[1-9][0-9]*+)"


class Template:
    """A payload with a hole for its text, which goes to the block `index` of the message."""

    __slots__ = ("_findall", "_match", "_separator", "index")

    def __init__(
        self, head: bytes, tail: bytes, separator: bytes, index: int, counter: bytes = b""
    ) -> None:
        """`separator` ends each payload of a stream. `counter`: a key and its number, in `head` or
        `tail`, of which the number may vary."""
        self.index = index
        self._separator = separator
        ahead = b"(?<=" + re.escape(separator) + b")"
        around = re.escape(head) + _TEXT + _with_padding(tail)
        unit = _with_counter(around, counter) + re.escape(separator)
        self._match = re.compile(unit, re.S).match
        self._findall = re.compile(ahead + unit, re.S).findall

    @classmethod
    def learn(
        cls,
        block: bytes,
        text: str,
        path: tuple[str | int, ...],
        separator: bytes,
        index: int,
        counter_key: str | None = None,
    ) -> Template | None:
        """The template of `block`, in which `text` is the value at `path` of the payload and a
        number that does not matter the one at `counter_key`.

        None where that cannot be proved: the text must be found once, plainly written, and a mark
        put in its place must turn up at `path` when the payload is parsed; likewise the number.
        """
        raw = b'"' + text.encode("utf-8", "replace") + b'"'
        if block.count(raw) != 1 or "\\" in text:
            return None
        head, _, tail = block.partition(raw)
        _, data, start = head.rpartition(b"data: ")
        payload = (start if data else head) + _MARK_JSON + tail
        marked = _parsed(payload)
        if _at(marked, path) != _MARK:
            return None
        counter = b"" if counter_key is None else _counter(payload, marked, counter_key)
        if counter and block.count(counter) != 1:
            return None
        return cls(head + b'"', b'"' + tail, separator, index, counter)

    def texts(self, payloads: bytes) -> list[str] | None:
        """The texts of `payloads`, each with its separator; None if one of them is no copy."""
        first = self._match(payloads)
        if first is None:
            return None
        separator = self._separator
        if first.end() == len(payloads):
            raw = [first[1]]  # a read of its own for each event: the usual thing over a network
        else:
            raw = self._findall(separator + payloads)
            # Each match begins right after a separator and holds one, at its end: as many matches
            # as there are separators leave no byte unread.
            if len(raw) != payloads.count(separator):
                return None
        try:
            return _strings(b'["' + b'","'.join(raw) + b'"]')
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _parsed(payload: bytes) -> Any:
    try:
        return _loads(payload)
    except (msgspec.DecodeError, RecursionError):
        return None


def _counter(payload: bytes, marked: Any, key: str) -> bytes:
    """The `key` of `marked` and its number, as they stand in `payload`; empty if none."""
    number = marked.get(key) if isinstance(marked, dict) else None
    if type(number) is not int or number < 0:
        return b""
    raw, next_one = (b'"%b":%d' % (key.encode(), n) for n in (number, number + 1))
    changed = _parsed(payload.replace(raw, next_one))
    return raw if changed == {**marked, key: number + 1} else b""


def _with_counter(pattern: bytes, counter: bytes) -> bytes:
    """`pattern`, in which the number of the `counter` may vary."""
    key, colon, _ = counter.rpartition(b":")
    return pattern.replace(re.escape(counter), re.escape(key + colon) + _COUNT) if key else pattern


def _with_padding(tail: bytes) -> bytes:
    """A pattern for what comes after the text, in which the padding may vary."""
    if not tail.strip(b'"} '):  # Anthropic: "}      }
        return rb"\"\} *" + re.escape(tail[2:].replace(b" ", b""))
    for key in _PADDING_KEYS:
        before, found, rest = tail.partition(key)
        padding, quote, end = rest.partition(b'"')
        if found and padding.isalnum():
            return re.escape(before + key) + rb"[A-Za-z0-9]*+" + re.escape(quote + end)
    return re.escape(tail)
