"""How much streaming through this library costs, against the least that it could cost.

    python benchmarks/run.py [--rounds 5] [--quick] [--only NAME ...]
                             [--peers-python PATH] [--json FILE] [--check]

Method. One loopback server in a process of its own sends pre-rendered bytes (server.py). Each
contender (contenders.py) runs in a fresh process: one warm-up stream, then one measured stream, in
one event loop, reading the text of every chunk. Rounds are interleaved, so that a change in the
machine's load meets all contenders alike. The figure is the median over the rounds, in user
instructions where the kernel lets them be counted, else in CPU time (counter.py); a ratio is the
median of the ratios round by round. `floor` is the same stream read by hand (floor.py), and goals
are set on ratios to it, since those carry over from one machine to the next.

Import is the cost of `python -c "import X"` less that of a bare interpreter.

Instructions do not see system calls: the `paced` scenarios need a look at the CPU columns too.
What is not installed is reported as absent. Peers (other libraries) run with `--peers-python`, the
interpreter of an environment with openai, anthropic, langchain-openai and langchain-anthropic.
The exit code is 0 even if a goal is missed; with `--check` it is 1 unless every goal is met.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import server
from answers import pieces
from contenders import CONTENDERS, PROVIDERS
from counter import CPU, Counter, cpu_us, describe
from tables import table, verdict

HERE = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 600
NOT_INHERITED = ("OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "PYTHONDONTWRITE")


@dataclass(frozen=True)
class Entry:
    """One row: who, compared with whom, and the most that the ratio should be."""

    name: str
    base: str
    goal: float | None = None


@dataclass(frozen=True)
class Scenario:
    """One table. `framing` is empty for imports. `streams` run at once, or, if less than 0, one
    after the other."""

    name: str
    title: str
    framing: str
    chunks: int
    entries: tuple[Entry, ...]
    streams: int = 1

    @property
    def units(self) -> int:
        """What a figure is divided by: chunks, or requests where those do not stream."""
        if self.framing == "whole":
            return abs(self.streams)
        return self.chunks * abs(self.streams)


def _streams(name: str, title: str, chunks: int, goal: float) -> Scenario:
    entries = (
        Entry("floor", "floor"),
        Entry("floor_lines", "floor"),
        Entry("streamfold", "floor", goal),
        Entry("streamfold_fold", "floor"),
        Entry("streamfold_aiohttp", "floor"),
        Entry("openai", "floor"),
        Entry("langchain_openai", "floor"),
        Entry("floor_anthropic", "floor_anthropic"),
        Entry("streamfold_anthropic", "floor_anthropic", goal),
        Entry("anthropic", "floor_anthropic"),
        Entry("langchain_anthropic", "floor_anthropic"),
    )
    return Scenario(name, title, name, chunks, entries)


def _sync(framing: str, title: str, chunks: int) -> Scenario:
    entries = (
        Entry("streamfold", "streamfold"),
        Entry("streamfold_sync", "streamfold", 1.2),
        Entry("floor", "floor"),
        Entry("floor_sync", "floor"),
    )
    return Scenario(f"sync-{framing}", title, framing, chunks, entries)


def _dialects() -> Scenario:
    entries = [
        Entry(f"{who}_{provider}", f"floor_{provider}", 1.6 if who == "streamfold" else None)
        for provider in PROVIDERS
        if provider not in ("openai", "anthropic")
        for who in ("floor", "streamfold")
    ]
    title = "the other dialects, HTTP chunks of 16 KiB"
    return Scenario("dialects", title, "burst", 20_000, tuple(entries))


LISTENING = (
    Entry("streamfold_pipe", "streamfold_pipe"),
    Entry("streamfold", "streamfold_pipe", 1.02),
    Entry("streamfold_events", "streamfold", 2.0),
)
AT_ONCE = (
    Entry("floor", "floor"),
    Entry("streamfold", "floor", 0.2),
    Entry("streamfold_aiohttp", "floor"),
)
SMALL = (
    Entry("floor_ask", "floor_ask"),
    Entry("streamfold_ask", "floor_ask", 1.1),
    Entry("streamfold_aiohttp_ask", "floor_ask"),
)

LIBRARIES = "httpx, httpx_sse, msgspec, orjson, anyio, jiter"
STREAMFOLD_MODEL = 'import streamfold; streamfold.init_chat_model("openai:gpt-4.1", api_key="x")'


@dataclass(frozen=True)
class Import:
    """What a row of the import table runs."""

    code: str
    peer: bool = False


IMPORTS = {
    "libraries": Import(f"import {LIBRARIES}"),
    "streamfold": Import("import streamfold"),
    "streamfold_model": Import(STREAMFOLD_MODEL),
    "openai": Import("import openai", peer=True),
    "anthropic": Import("import anthropic", peer=True),
    "langchain_openai": Import("from langchain_openai import ChatOpenAI", peer=True),
    "langchain_anthropic": Import("from langchain_anthropic import ChatAnthropic", peer=True),
}

SCENARIOS = (
    _streams("burst", "one response in HTTP chunks of 16 KiB", 20_000, 1.5),
    _streams("event", "one HTTP chunk per event, as fast as they go", 20_000, 0.35),
    _streams("paced", "one event per millisecond, each a read of its own", 3_000, 0.40),
    _dialects(),
    Scenario("listening", "who listens, HTTP chunks of 16 KiB", "burst", 20_000, LISTENING),
    Scenario("at-once", "1,000 streams at once, 40 ms per event", "slow", 100, AT_ONCE, 1_000),
    Scenario("small", "small answers, 500 one after another", "whole", 10, SMALL, -500),
    _sync("burst", "sync iteration, HTTP chunks of 16 KiB", 20_000),
    _sync("paced", "sync iteration, one event per millisecond", 3_000),
    Scenario(
        "import",
        f"import, less a bare interpreter; libraries: {LIBRARIES}",
        "",
        1,
        tuple(
            Entry(name, "libraries", 1.15 if name.startswith("streamfold") else None)
            for name in IMPORTS
        ),
    ),
)


@dataclass(frozen=True)
class Figure:
    """One measurement of one contender: per chunk, or of an import. `memory` is what the run took
    on top of the most that was in use before, in MiB."""

    cost: float = 0.0
    cpu_us: float = 0.0
    memory: float = 0.0
    remark: str = ""  # why there is no figure


Measure = Callable[[str], Figure]


@dataclass(frozen=True)
class Row:
    """A contender's result over all rounds; without figures if there is a remark."""

    name: str
    base: str
    goal: float | None
    remark: str = ""
    cost: float = 0.0
    cpu_us: float = 0.0
    memory: float = 0.0
    ratio: float = 0.0
    cpu_ratio: float = 0.0
    rounds: list[Figure] = field(default_factory=list)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, `None` if there is none."""
        if self.goal is None:
            return None
        return not self.remark and self.ratio <= self.goal


def interleaved(names: Sequence[str], rounds: int, measure: Measure) -> dict[str, list[Figure]]:
    """Measure each name once a round; a name that gives no figure is not tried again."""
    figures: dict[str, list[Figure]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name in names:
            if not _remark(figures[name]):
                _progress(f"round {number}: {name}")
                figures[name].append(measure(name))
    _progress("")
    return figures


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"{text:<40}", end="\r", file=sys.stderr, flush=True)


def rows(entries: Sequence[Entry], figures: Mapping[str, list[Figure]]) -> list[Row]:
    """The table's rows from the figures of all rounds."""
    return [_row(entry, figures[entry.name], figures[entry.base]) for entry in entries]


def _row(entry: Entry, own: list[Figure], base: list[Figure]) -> Row:
    head = (entry.name, entry.base, entry.goal)
    if remark := _remark(own):
        return Row(*head, remark)
    if remark := _remark(base):
        return Row(*head, f"no ratio, because {entry.base} is {remark}")
    return Row(
        *head,
        cost=statistics.median(f.cost for f in own),
        cpu_us=statistics.median(f.cpu_us for f in own),
        memory=statistics.median(f.memory for f in own),
        ratio=statistics.median(f.cost / b.cost for f, b in zip(own, base, strict=True)),
        cpu_ratio=statistics.median(f.cpu_us / b.cpu_us for f, b in zip(own, base, strict=True)),
        rounds=own,
    )


def _remark(figures: Sequence[Figure]) -> str:
    return figures[-1].remark if figures else ""


class Driver:
    """Runs contenders in processes of their own, with the interpreter that each one needs."""

    def __init__(self, peers_python: str | None) -> None:
        self.counter = Counter()
        self._pythons = {False: sys.executable, True: peers_python or sys.executable}

    def stream(self, root: str, scenario: Scenario, name: str) -> Figure:
        """One stream of `scenario` read by the contender `name`."""
        python = self._pythons[CONTENDERS[name].peer]
        url = f"{root}/{scenario.framing}/{scenario.chunks}"
        command = [python, str(HERE / "contenders.py"), name, url, str(scenario.streams)]
        done = _run(command)
        if done.returncode:
            return Figure(remark=f"failed: {_last_line(done.stderr)}")
        result = json.loads(done.stdout.splitlines()[-1])
        if "absent" in result:
            return Figure(remark=f"absent: {result['absent']}")
        expected = abs(scenario.streams) * sum(map(len, pieces(scenario.chunks)))
        if result["size"] != expected:
            return Figure(remark=f"failed: read {result['size']} characters of {expected}")
        units = scenario.units
        return Figure(result["cost"] / units, result["cpu_us"] / units, result["memory"])

    def imports(self, name: str) -> Figure:
        """The row `name` of `IMPORTS`, less a bare interpreter of the same kind."""
        python = self._pythons[IMPORTS[name].peer]
        bare = self._python(python, "pass")
        whole = self._python(python, IMPORTS[name].code)
        cost, cpu = whole.cost - bare.cost, whole.cpu_us - bare.cpu_us
        return Figure(cost, cpu, remark=whole.remark)

    def _python(self, python: str, code: str) -> Figure:
        cost, cpu = self.counter.read(), cpu_us()
        done = _run([python, "-P", "-c", code])
        if done.returncode:
            reason = _last_line(done.stderr)
            absent = reason.startswith(("ModuleNotFoundError", "ImportError"))
            return Figure(remark=f"{'absent' if absent else 'failed'}: {reason}")
        return Figure(self.counter.read() - cost, cpu_us() - cpu)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=_environment(),
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def _environment() -> dict[str, str]:
    """Ours, without what could redirect, trace or slow a contender."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(NOT_INHERITED) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONHASHSEED": "0"}


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:120]


def measured(driver: Driver, scenario: Scenario, rounds: int) -> list[Row]:
    """Run all rounds of a scenario."""
    names = list(dict.fromkeys(n for entry in scenario.entries for n in (entry.base, entry.name)))
    if not scenario.framing:
        interleaved(names, 1, driver.imports)  # compiles what has no bytecode yet
        return rows(scenario.entries, interleaved(names, rounds, driver.imports))
    with server.running() as root:
        figures = interleaved(names, rounds, lambda name: driver.stream(root, scenario, name))
    return rows(scenario.entries, figures)


def report(scenario: Scenario, results: Sequence[Row], unit: str) -> str:
    """The scenario's table under its title."""
    counted = {True: "CPU", False: "instr"}[unit == CPU]
    if scenario.framing:
        what = "request" if scenario.framing == "whole" else "chunk"
        head = [f"{'us' if unit == CPU else 'k'} {counted}/{what}", f"CPU us/{what}"]
        title = f"{scenario.name}: {scenario.title}; {scenario.chunks:,} chunks"
        scales = (1.0 if unit == CPU else 1e3, 1.0)
    else:
        head = [f"{'ms' if unit == CPU else 'M'} {counted}", "CPU ms"]
        title = f"{scenario.name}: {scenario.title}"
        scales = (1e3 if unit == CPU else 1e6, 1e3)
    head = ["contender", *head, "MiB", "ratio", "ratio (CPU)", "to", "goal", "met"]
    return f"## {title}\n\n" + table(head, [_cells(row, *scales) for row in results]) + "\n"


def _cells(row: Row, cost_scale: float, cpu_scale: float) -> list[str]:
    if row.remark:
        return [row.name, row.remark]
    return [
        row.name,
        f"{row.cost / cost_scale:.1f}",
        f"{row.cpu_us / cpu_scale:.1f}",
        f"{row.memory:.1f}" if row.memory else "",
        f"{row.ratio:.2f}",
        f"{row.cpu_ratio:.2f}",
        row.base,
        f"<= {row.goal:g}" if row.goal else "",
        verdict(row.ratio, row.goal),
    ]


def summary(results: Mapping[str, Sequence[Row]]) -> tuple[bool, str]:
    """Whether every goal is met, and the lines that say so."""
    goals = [(name, row) for name, found in results.items() for row in found if row.goal]
    missed = [f"  {name} / {row.name}: {_shortfall(row)}" for name, row in goals if not row.met]
    unknown = sum(bool(row.remark) for _, row in goals)
    if not goals:
        return True, "No goal is set on what was measured."
    counts = f"{len(goals) - len(missed)} met, {len(missed) - unknown} missed, {unknown} unknown"
    return not missed, "\n".join([f"Goals: {counts}.", *missed])


def _shortfall(row: Row) -> str:
    return row.remark or f"MISSED, {row.ratio:.2f} times {row.base}, the goal is {row.goal:g}"


def selected(only: Sequence[str], quick: bool) -> list[Scenario]:
    """The scenarios to run: `only` names scenarios, contenders or both."""
    chosen = {scenario.name for scenario in SCENARIOS} & set(only)
    people = set(only) - chosen
    found = [_narrowed(s, people, quick) for s in SCENARIOS if not chosen or s.name in chosen]
    return [scenario for scenario in found if scenario.entries]


def _narrowed(scenario: Scenario, people: set[str], quick: bool) -> Scenario:
    wanted = [entry for entry in scenario.entries if not people or entry.name in people]
    bases = {entry.base for entry in wanted}
    kept = tuple(e for e in scenario.entries if e in wanted or e.name in bases)
    shorter = quick and scenario.framing and scenario.streams == 1
    chunks = scenario.chunks // 4 if shorter else scenario.chunks
    return replace(scenario, chunks=chunks, entries=kept)


def _arguments() -> argparse.Namespace:
    names = {s.name for s in SCENARIOS} | {e.name for s in SCENARIOS for e in s.entries}
    parser = argparse.ArgumentParser(description="What a streamed chunk costs.")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 3")
    parser.add_argument("--quick", action="store_true", help="a quarter of the chunks")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        choices=sorted(names),
        help=f"scenarios, contenders or both, of: {', '.join(sorted(names))}",
    )
    parser.add_argument("--peers-python", metavar="PATH", help="interpreter that has the peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--check", action="store_true", help="exit 1 unless all goals are met")
    return parser.parse_args()


def _as_json(results: Mapping[str, Sequence[Row]], unit: str) -> dict[str, Any]:
    return {
        "unit": unit,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "scenarios": {
            name: [{**asdict(row), "met": row.met} for row in found]
            for name, found in results.items()
        },
    }


def main() -> int:
    """Run what the command line asks for."""
    options = _arguments()
    rounds = options.rounds or (3 if options.quick else 5)
    driver = Driver(options.peers_python)
    unit = driver.counter.unit
    print(f"Python {platform.python_version()}, {rounds} rounds, {os.cpu_count()} CPUs")
    print(describe(unit, driver.counter.why) + "\n")
    results = {}
    for scenario in selected(options.only, options.quick):
        results[scenario.name] = measured(driver, scenario, rounds)
        print(report(scenario, results[scenario.name], unit), flush=True)
    met, sentence = summary(results)
    print(sentence)
    if options.json:
        options.json.write_text(json.dumps(_as_json(results, unit), indent=2) + "\n")
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
