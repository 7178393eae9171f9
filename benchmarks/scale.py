"""How the cost of a chunk, and of a stream, grows: from a thousand chunks to a million, and from
one stream to five thousand at once.

    python benchmarks/scale.py [--peers-python PATH] [--json FILE] [--most SECONDS]

Measured as in run.py, each figure once: what a chunk costs in one long stream (HTTP chunks of
16 KiB), and what a stream of 50 chunks, one in 40 ms, costs among others that run at the same
time. Where the next size would take a contender more than some `--most` seconds, its column ends.
`plot.py` makes a picture of the JSON.
"""

import argparse
import json
import os
import platform
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import server
from counter import CPU
from run import Driver, Scenario
from tables import table

CHUNKS = (1_000, 10_000, 100_000, 1_000_000)
STREAMS = (1, 10, 100, 1_000, 5_000)
EACH = 50  # chunks of one stream among many
WHO = ("streamfold", "floor", "openai", "langchain_openai")


@dataclass(frozen=True)
class Point:
    """One figure: of `who`, at so many chunks or streams. `cost` is per chunk or per stream, in
    instructions or, where they cannot be counted, in microseconds of CPU time; `memory` in MiB."""

    who: str
    at: int
    cost: float
    cpu_us: float
    memory: float


def of_chunks(driver: Driver, root: str, most: float) -> list[Point]:
    """What a chunk costs in one stream of ever more."""
    return [
        point
        for who in WHO
        for point in _until(
            driver, root, who, [Scenario("", "", "burst", size, ()) for size in CHUNKS], 1, most
        )
    ]


def of_streams(driver: Driver, root: str, most: float) -> list[Point]:
    """What a stream costs among ever more."""
    return [
        point
        for who in WHO
        for point in _until(
            driver,
            root,
            who,
            [Scenario("", "", "slow", EACH, (), streams=n) for n in STREAMS],
            EACH,
            most,
        )
    ]


def _until(
    driver: Driver, root: str, who: str, scenarios: Sequence[Scenario], per: int, most: float
) -> list[Point]:
    points: list[Point] = []
    for scenario in scenarios:
        figure = driver.stream(root, scenario, who)
        if figure.remark:
            print(f"  {who}: {figure.remark}", file=sys.stderr)
            break
        at = scenario.streams if per > 1 else scenario.chunks
        points.append(Point(who, at, figure.cost * per, figure.cpu_us * per, figure.memory))
        print(f"  {who}: {at:,} done", file=sys.stderr)
        if 10 * figure.cpu_us * scenario.units > most * 1e6:
            break
    return points


def shown(title: str, points: Sequence[Point], unit: str) -> str:
    """A table: a row for each size, and of each contender its cost (and memory, MiB)."""
    people = [who for who in WHO if any(point.who == who for point in points)]
    found = {(point.who, point.at): point for point in points}
    rows = [
        [f"{at:,}", *(_cell(found.get((who, at)), unit) for who in people)]
        for at in sorted({point.at for point in points})
    ]
    return f"## {title}\n\n{table(['', *people], rows)}\n"


def _cell(point: Point | None, unit: str) -> str:
    if point is None:
        return "-"
    cost = f"{point.cost:,.0f} us" if unit == CPU else f"{point.cost / 1e3:,.1f} k"
    return f"{cost}, {point.cpu_us:,.1f} us, {point.memory:,.0f} MiB"


def main() -> int:
    """Measure, print, and write the figures where they are wanted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--peers-python", metavar="PATH", help="interpreter that has the peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--most", type=float, default=60.0, metavar="SECONDS")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each stream has a descriptor
    driver = Driver(options.peers_python)
    unit = driver.counter.unit
    with server.running() as root:
        chunks = of_chunks(driver, root, options.most)
        streams = of_streams(driver, root, options.most)
    counted = "CPU time" if unit == CPU else "user instructions"
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} CPUs; {counted}, CPU time, memory\n"
    )
    print(shown("a chunk, in one stream of so many", chunks, unit))
    print(shown(f"a stream of {EACH} chunks, among so many at once", streams, unit))
    if options.json:
        kept = {"unit": unit, "each": EACH, "chunks": chunks, "streams": streams}
        text = json.dumps(kept, default=asdict, indent=1)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
