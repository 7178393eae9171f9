"""Does `full = full + chunk` stay linear? Counts, not times, so that the answer is the same twice.

    python benchmarks/growth.py [--check]

Chunks are made first; then the loop that adds them up is counted, and after it the reading of the
result. A cost per chunk that does not grow with the number of chunks is what is wanted: the
largest size may cost 1.2 times the smallest one of a thousand chunks or more.
"""

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from counter import CPU, Counter, describe
from tables import table, verdict

TEXT_CHUNKS = (1_000, 10_000, 50_000)
ARGUMENT_BYTES = (10_000, 100_000, 1_000_000)
PIECE = 20
GOAL = 1.2
SETTLED = 1_000  # fewer chunks than that: the fixed costs show


@dataclass(frozen=True)
class Growth:
    """One size: what adding and then reading cost, each per chunk."""

    label: str
    chunks: int
    add: float
    read: float


def text_chunks(count: int) -> list[Any]:
    """`count` chunks of a word each."""
    from streamfold.messages import AIMessageChunk

    return [AIMessageChunk(content="word ") for _ in range(count)]


def tool_chunks(size: int) -> list[Any]:
    """One tool call whose arguments are `size` bytes of JSON in pieces of 20 characters."""
    from streamfold.messages import AIMessageChunk

    arguments = json.dumps({"text": "x" * (size - 12)})
    pieces = [arguments[i : i + PIECE] for i in range(0, len(arguments), PIECE)]
    calls = [{"name": None, "args": piece, "id": None, "index": 0} for piece in pieces]
    calls[0] |= {"name": "write", "id": "call_1"}
    return [AIMessageChunk(tool_call_chunks=[call]) for call in calls]


def add_up(chunks: Sequence[Any]) -> Any:
    """The loop that users write."""
    full = chunks[0]
    for chunk in chunks[1:]:
        full = full + chunk
    return full


def text_length(full: Any) -> int:
    """Reads the text."""
    return len(full.text)


def arguments_length(full: Any) -> int:
    """Reads the tool call, which parses its arguments once."""
    return len(full.tool_calls[0]["args"]["text"])


def measure(
    counter: Counter, label: str, chunks: Sequence[Any], read: Callable[[Any], int], length: int
) -> Growth:
    """Add up `chunks` and read the result, which must have `length`."""
    gc.collect()
    before = counter.read()
    full = add_up(chunks)
    between = counter.read()
    got = read(full)
    after = counter.read()
    if got != length:
        raise SystemExit(f"{label}: {got} characters came out of {length}")
    count = len(chunks)
    return Growth(label, count, (between - before) / count, (after - between) / count)


def text_growth(counter: Counter) -> list[Growth]:
    """Adding up text."""
    return [
        measure(counter, f"text, {n:,} chunks", text_chunks(n), text_length, 5 * n)
        for n in TEXT_CHUNKS
    ]


def argument_growth(counter: Counter) -> list[Growth]:
    """Adding up tool arguments."""
    return [
        measure(counter, f"arguments, {n:,} B", tool_chunks(n), arguments_length, n - 12)
        for n in ARGUMENT_BYTES
    ]


def ratios(found: Sequence[Growth]) -> list[float]:
    """Cost per chunk relative to the smallest size that is large enough to compare with."""
    base = next(growth.add for growth in found if growth.chunks >= SETTLED)
    return [growth.add / base for growth in found]


def _rows(found: Sequence[Growth]) -> list[list[str]]:
    return [
        [
            growth.label,
            f"{growth.chunks:,}",
            f"{growth.add:.2f}" if growth.add < 10 else f"{growth.add:,.0f}",
            f"{growth.read:.2f}" if growth.read < 10 else f"{growth.read:,.0f}",
            f"{ratio:.2f}",
            f"<= {GOAL}" if growth is found[-1] else "",
            verdict(ratio, GOAL if growth is found[-1] else None),
        ]
        for growth, ratio in zip(found, ratios(found), strict=True)
    ]


def _warm_up(counter: Counter) -> None:
    measure(counter, "warm-up", text_chunks(100), text_length, 500)
    measure(counter, "warm-up", tool_chunks(1_000), arguments_length, 988)


def main() -> int:
    """Measure both kinds and print one table."""
    parser = argparse.ArgumentParser(description="Whether adding chunks up stays linear.")
    parser.add_argument("--check", action="store_true", help="exit 1 unless it does")
    check = parser.parse_args().check
    counter = Counter()
    print(describe(counter.unit, counter.why) + "\n")
    try:
        _warm_up(counter)
    except ImportError as error:
        print(f"streamfold is absent: {error}")
        return int(check)
    kinds = [text_growth(counter), argument_growth(counter)]
    unit = "us" if counter.unit == CPU else "instr"
    head = ["what", "chunks", f"{unit}/add", f"{unit} to read/chunk", "ratio", "goal", "met"]
    print(table(head, [row for found in kinds for row in _rows(found)]))
    met = all(ratios(found)[-1] <= GOAL for found in kinds)
    print("\nAdding up is linear." if met else "\nAdding up is NOT linear.")
    return int(check and not met)


if __name__ == "__main__":
    sys.exit(main())
