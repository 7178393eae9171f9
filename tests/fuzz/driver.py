"""Runs the targets: by atheris where it is installed, else by mutations of its own.

    python tests/fuzz/driver.py --seconds 60            # every target
    python tests/fuzz/driver.py sse payloads --seed 7   # some of them, from another seed

An input that breaks a target is written to ``found/<target>/``, from where the tests replay it.
Without `--atheris` the run is deterministic: the same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from targets import TARGETS, seeds

__all__ = ["inputs", "main"]

#: What grammars here are made of.
_WORDS = (
    b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"data:", b"event: ", b"id:", b"retry: 1", b":",
    b"\xef\xbb\xbf", b"[DONE]", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b"null", b"NaN",
    b"1e999",
    b"\\ud83d", b"\\ude00", b"\\u0000", b"\xff", b"\xe2\x80\xa8", b"\0", b"9" * 30, b"\x1e", b"-",
    b'"type"', b'"index"', b'"error"', b'"text"', b'{"a":' * 8, b"0\r\n\r\n", b"5\r\n", b"GMT",
)  # fmt: skip


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """Seeds of a target, and then mutations of them without end; the same for the same seed."""
    known = seeds(name)
    yield from known
    rng = random.Random(f"{name}/{seed}")
    while True:
        data = bytearray(rng.choice(known))
        for _ in range(rng.choice((1, 1, 2, 3, 5, 9))):
            _mutate(rng, data, known)
        yield bytes(data[:20_000])


def _mutate(rng: random.Random, data: bytearray, known: list[bytes]) -> None:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((0, 1, 1, 2, 4, 16, 64, 400)))
    kind = rng.randrange(7)
    if kind == 0 and start < len(data):
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[start:end] = rng.randbytes(rng.randint(0, 8))
    elif kind == 2:
        del data[start:end]
    elif kind == 3:
        data[start:start] = data[start:end] * rng.choice((1, 1, 2, 20))
    elif kind == 4:
        data[start:end] = rng.choice(_WORDS)
    elif kind == 5:
        other = rng.choice(known)
        place = rng.randint(0, len(other))
        data[start:end] = other[place : place + rng.randint(0, 300)]
    else:
        place = rng.randint(0, len(data))
        data[start:end], data[place:place] = b"", data[start:end]


def run(name: str, seed: int, seconds: float, runs: int | None = None) -> int:
    """How many inputs were tried. The first that breaks the target is kept, and ends the run."""
    last, count = time.monotonic() + seconds, 0
    for data in inputs(name, seed):
        if time.monotonic() > last or count == runs:
            break
        try:
            TARGETS[name](data)
        except Exception:
            path = Path(__file__).parent / "found" / name / hashlib.sha1(data).hexdigest()[:16]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{name}: {path} breaks it", file=sys.stderr)
            raise
        count += 1
    return count


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="default: all of them")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    args = parser.parse_args(argv)
    names = args.targets or list(TARGETS)
    if args.atheris:
        return _by_atheris(names[0], args.seconds)
    broken = 0
    for name in names:
        try:
            count = run(name, args.seed, args.seconds / len(names))
            print(f"{name}: {count} inputs, nothing found")
        except Exception:
            traceback.print_exc()
            broken += 1
    return 1 if broken else 0


def _by_atheris(name: str, seconds: float) -> int:
    import tempfile

    import atheris  # type: ignore[import-not-found]

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for place, data in enumerate(seeds(name)):
            (Path(corpus) / str(place)).write_bytes(data)
        found = Path(__file__).parent / "found" / name
        found.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={seconds:.0f}", "-max_len=20000", f"-artifact_prefix={found}/"]
        options = [sys.argv[0], *limits, corpus]
        atheris.Setup(options, TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
