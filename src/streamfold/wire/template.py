"""The short way through a stream: payloads that differ only in their text.

Nearly all payloads of a stream are equal byte for byte but for one JSON string, the next piece of
text. Once a payload has been read completely and gave one piece of text and nothing else, another
one that is the same around the text can give nothing else either. So a template is learnt: the
bytes of such a payload with a hole for the text. Of a read that consists of nothing but copies of
it, what is around the texts is compared and taken off, and the texts are decoded as one JSON array,
in C. Anything else goes the complete way, and the template is learnt anew from what that says.

Besides the text, padding may vary that hides its length from those who watch encrypted traffic: a
string of letters and digits with OpenAI (`obfuscation`), blanks before the last brace with
Anthropic. And so may a number that counts the payloads (`sequence_number` with OpenAI's Responses),
for a dialect that never looks at it. These are holes, too.

No regular expression is made of a template: to compile one costs more than a short stream.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ..chunks import AIMessageChunk, TextChunk

__all__ = ["MARK", "MARK_JSON", "Template", "around_text", "parsed", "strings", "value_at"]

_loads = msgspec.json.Decoder().decode
_string_list = msgspec.json.Decoder(list[str]).decode
_numbers = msgspec.json.Decoder(list[int]).decode
#: What is put into a hole for the proof.
MARK: Final = "\u2702streamfold\u2702"
MARK_JSON: Final = msgspec.json.encode(MARK)
#: A JSON string without its quotes; possessive, so it never tries twice.
_is_text: Final = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+', re.S).fullmatch
_BACKSLASH: Final = 0x5C
_PADDING_KEYS: Final = (b'"obfuscation":"', b'"p":"')


#: Tells whether the values that stand in a hole may be there.
Fit = Callable[[Sequence[bytes]], bool]


class _Hole(NamedTuple):
    """What may vary besides the text: `start` to `end` of the bytes before or after it."""

    start: int
    end: int
    fit: Fit


def _are_padding(values: Sequence[bytes]) -> bool:
    joined = b"".join(values)
    return not joined or joined.isalnum()


def _are_blank(values: Sequence[bytes]) -> bool:
    return not b"".join(values).strip(b" ")


def _are_counts(values: Sequence[bytes]) -> bool:
    """Whether they are JSON numbers that count."""
    try:
        return b"".join(values).isdigit() and bool(_numbers(b"[" + b",".join(values) + b"]"))
    except msgspec.DecodeError:
        return False


class Template:
    """A payload with a hole for its text, which goes to the block `index` of the message."""

    __slots__ = ("_after", "_before", "_head", "_index", "_separator", "_tail")

    def __init__(
        self, head: bytes, tail: bytes, separator: bytes, index: int | None, counter: bytes = b""
    ) -> None:
        """`separator` ends each payload of a stream. `counter`: a key and its number, in `head` or
        `tail`, of which the number may vary."""
        self._index = index
        self._separator = separator
        found, tail = _holes_after(tail)
        counts = _counts(head, counter)
        after = sorted([*found, *_counts(tail, counter)])
        # From the outside in: `head`, a hole, what follows it up to the text; and likewise after.
        self._head = head[: counts[0].start] if counts else head
        self._before = [(hole.fit, head[hole.end :]) for hole in counts]
        starts = [0, *(hole.end for hole in after)]
        self._tail = tail[starts[-1] :]
        self._after = [
            (hole.fit, tail[start : hole.start]) for hole, start in zip(after, starts, strict=False)
        ][::-1]

    @classmethod
    def learn(
        cls,
        block: bytes,
        text: str,
        path: tuple[str | int, ...],
        separator: bytes,
        index: int | None,
        counter_key: str | None = None,
    ) -> Template | None:
        """The template of `block`, in which `text` is the value at `path` of the payload and a
        number that does not matter the one at `counter_key`.

        None where that cannot be proved: the text must be found once, plainly written, and a mark
        put in its place must turn up at `path` when the payload is parsed; likewise the number.
        """
        head, tail = around_text(block, text)
        _, data, start = head.rpartition(b"data: ")
        payload = (start if data else head)[:-1] + MARK_JSON + tail[1:]
        marked = parsed(payload)
        if value_at(marked, path) != MARK:
            return None
        counter = b"" if counter_key is None else _counter(payload, marked, counter_key)
        if counter and block.count(counter) != 1:
            return None
        return cls(head, tail, separator, index, counter)

    def chunks(self, payloads: bytes) -> list[AIMessageChunk] | None:
        """The chunks of `payloads`, each with its separator; None if one of them is no copy."""
        texts = self._texts(payloads)
        index = self._index
        return None if texts is None else [TextChunk("", text, index) for text in texts if text]

    def _texts(self, payloads: bytes) -> list[str] | None:
        blocks = payloads.split(self._separator)
        if blocks.pop():
            return None
        head, tail = self._head, self._tail
        raws: Sequence[bytes] = [b.removeprefix(head).removesuffix(tail) for b in blocks]
        around = len(head) + len(tail) + len(self._separator)
        if len(payloads) - sum(map(len, raws)) != len(blocks) * around:
            return None
        for fit, known in self._after:
            raws, found, values = zip(*[raw.rpartition(known) for raw in raws], strict=False)
            if not (all(found) and fit(values)):
                return None
        for fit, known in self._before:
            values, found, raws = zip(*[raw.partition(known) for raw in raws], strict=False)
            if not (all(found) and fit(values)):
                return None
        return strings(raws)


def around_text(block: bytes, text: str) -> tuple[bytes, bytes]:
    """What stands before and after `text`, the quotes included. Both are empty if it is not there
    exactly once, as it is."""
    raw = b'"' + text.encode("utf-8", "replace") + b'"'
    if block.count(raw) != 1 or "\\" in text:
        return b"", b""
    head, _, tail = block.partition(raw)
    return head + b'"', b'"' + tail


def strings(raws: Sequence[bytes]) -> list[str] | None:
    """The strings that `raws` are the insides of; None if one of them is none."""
    joined = b'","'.join(raws)
    plain = _BACKSLASH not in joined and joined.count(b'"') == 2 * (len(raws) - 1)
    if not plain and not all(map(_is_text, raws)):
        return None
    try:
        return _string_list(b'["' + joined + b'"]')
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def value_at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def parsed(payload: bytes) -> Any:
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
    changed = parsed(payload.replace(raw, next_one))
    return raw if changed == {**marked, key: number + 1} else b""


def _counts(around: bytes, counter: bytes) -> list[_Hole]:
    """The hole of the `counter`, if it is here."""
    place = around.find(counter) if counter else -1
    if place < 0:
        return []
    start = place + counter.rindex(b":") + 1
    return [_Hole(start, place + len(counter), _are_counts)]


def _holes_after(tail: bytes) -> tuple[list[_Hole], bytes]:
    """The hole of the padding that follows the text, if there is any; and the tail."""
    if not tail.strip(b'"} '):  # Anthropic: "}      }
        return [_Hole(2, 2, _are_blank)], b'"}' + tail[2:].replace(b" ", b"")
    for key in _PADDING_KEYS:
        place = tail.find(key)
        start = place + len(key)
        end = tail.find(b'"', start)
        if place >= 0 and tail[start:end].isalnum():
            return [_Hole(start, end, _are_padding)], tail
    return [], tail
