"""Has the hot path become more expensive? Instructions, counted without a network, against those
of a stored baseline: the same twice within a per cent, on a busy machine, too.

    python benchmarks/check.py [--tolerance 5] [--update]

A figure depends on the interpreter and its libraries, so the baseline is by Python version and
machine; `--update` writes the one of this machine. Exits with 1 if something costs more than the
baseline and the tolerance, in per cent, allow, and with 0, saying why, where nothing can be said.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import answers
from counter import CPU, Counter
from growth import add_up, text_chunks, tool_chunks
from tables import table

BASELINE = Path(__file__).resolve().parent / "baseline.json"
CHUNKS = 5_000
PIECE = 16 * 1024
RUNS = 5

#: The answers and the modules that read them.
DIALECTS = {
    "openai": "openai_chat",
    "responses": "openai_responses",
    "anthropic": "anthropic",
    "gemini": "gemini",
    "bedrock": "bedrock",
    "ollama": "ollama",
    "cohere": "cohere",
}


def decoding(name: str, reads: Sequence[bytes]) -> Callable[[], object]:
    """One answer from its bytes to the text of its chunks."""
    from importlib import import_module

    decoder_type = import_module(f"streamfold.wire.{DIALECTS[name]}").Decoder

    def run() -> int:
        decoder = decoder_type()
        return sum(len(chunk.text) for data in reads for chunk in decoder.feed(data))

    return run


def unchunking(events: Sequence[bytes]) -> Callable[[], object]:
    """The chunked coding, a chunk for each event."""
    from streamfold.net.chunked import ChunkedBody

    data = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    reads = in_pieces([data])

    def run() -> None:
        body = ChunkedBody()
        for read in reads:
            body.feed(read)

    return run


def in_pieces(events: Sequence[bytes]) -> list[bytes]:
    """The same bytes in reads of 16 KiB."""
    data = b"".join(events)
    return [data[i : i + PIECE] for i in range(0, len(data), PIECE)]


def cases() -> dict[str, tuple[Callable[[], object], int]]:
    """What is counted, and by how much the count is divided."""
    found: dict[str, tuple[Callable[[], object], int]] = {}
    for name in DIALECTS:
        events = list(getattr(answers, name)(CHUNKS))
        found[f"{name}, 16 KiB a read"] = decoding(name, in_pieces(events)), CHUNKS
        found[f"{name}, an event a read"] = decoding(name, events), CHUNKS
    events = list(answers.openai(CHUNKS))
    found["chunked coding"] = unchunking(events), CHUNKS
    words, calls = text_chunks(CHUNKS), tool_chunks(100_000)
    found["adding text"] = lambda: add_up(words).text, CHUNKS
    found["adding a tool call"] = lambda: add_up(calls).tool_calls, len(calls)
    return found


def counted(counter: Counter) -> dict[str, float]:
    """Instructions per chunk of each case: the least of several runs."""
    figures = {}
    for name, (run, chunks) in cases().items():
        run()
        costs = []
        for _ in range(RUNS):
            before = counter.read()
            run()
            costs.append(counter.read() - before)
        figures[name] = round(min(costs) / chunks, 1)
    return figures


def this_machine() -> str:
    """What a baseline is good for."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{platform.python_implementation()} {version}, {sys.platform}, {platform.machine()}"


def report(figures: dict[str, float], base: dict[str, float], tolerance: float) -> list[str]:
    """Print the table; which cases are too expensive."""
    rows, worse = [], []
    for name, cost in figures.items():
        change = 100 * (cost / base[name] - 1) if name in base else 0.0
        known = f"{base[name]:,.0f}" if name in base else "none"
        rows.append([name, f"{cost:,.0f}", known, f"{change:+.1f} %"])
        if change > tolerance:
            worse.append(f"{name}: {change:+.1f} %, more than {tolerance:g} %")
    print(table(["instructions per chunk", "now", "baseline", "change"], rows))
    return worse


def main() -> int:
    """Compare, or update the baseline."""
    parser = argparse.ArgumentParser(description="Whether the hot path costs what it did.")
    parser.add_argument("--tolerance", type=float, default=5.0, metavar="PERCENT")
    parser.add_argument("--update", action="store_true", help="write the baseline of this machine")
    options = parser.parse_args()
    counter = Counter()
    if counter.unit == CPU:
        print(f"Skipped: instructions cannot be counted here ({counter.why}).")
        return 0
    stored: dict[str, Any] = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    machine = this_machine()
    if not options.update and machine not in stored:
        print(f"Skipped: there is no baseline of {machine}; --update makes one.")
        return 0
    figures = counted(counter)
    if options.update:
        stored[machine] = figures
        BASELINE.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    worse = report(figures, stored[machine], options.tolerance)
    print("\n".join(["", *worse]) if worse else "\nThe hot path costs what it did.")
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
