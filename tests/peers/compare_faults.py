"""Every fault of the catalogue through streamfold and through other clients: who survives what.

    python tests/peers/compare_faults.py [--peers-python PATH] [--only CLIENT ...]
                                         [--faults NAME ...] [--read-seconds 0.5]
                                         [--workers 4] [--json FILE]

Method. The server of the tests (tests/net/faults.py) acts a row of the catalogue out in this
process; the client makes its calls in a process forked for them, which is ended after 7 s a call
(fault_process.py); what came of it is judged by one rule for all (fault_judge.py says which). All
clients have the same settings: 2 retries, 0.5 s to read, 2 s to connect, else their defaults;
streamfold also takes the size limits that a row names, since it is alone in having any. Each runs
the dialects that it speaks, async and sync: the catalogue by streams, the faults of whole answers
by whole answers. Rows of endless or huge answers, which keep the machine busy, run after the
others, one at a time. All of it takes about half an hour, most of which is waiting; where other
programs keep the machine busy, limits of half a second may be missed by anyone.

Peers run with `--peers-python`, the interpreter of an environment with openai, anthropic,
langchain-openai and langchain-anthropic; without it, only streamfold runs. The exit code is 1 if
streamfold was wrong anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "net"))

from catalogue import FAULTS, Fault
from fault_clients import CLIENTS, MODES
from fault_judge import ENOUGH, LEFT_OUT, STRANGER, Attempt, Verdict, judge, rows
from faults import Act, FaultServer, Wire
from says import DIALECTS, Dialect

from streamfold import Limits
from streamfold.limits import DEFAULT_LIMITS

__all__ = ["Run", "compare", "table"]

HERE = Path(__file__).resolve().parent
KEY = "canary-7f3a-0123456789-key"
NOT_INHERITED = ("OPENAI_", "ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "STREAMFOLD_")
#: What tests may assert of a request of ours, and what is no fault of others.
OUR_HEADERS = {"accept-encoding": "identity", "accept": "application/json"}


@dataclass(frozen=True)
class Run:
    """One row through one client in one mode."""

    client: str
    mode: str
    dialect: str
    fault: Fault

    @property
    def heavy(self) -> bool:
        """Whether it keeps the machine busy, so that others could miss their limits."""
        name = self.fault.name
        heavy = self.fault.act.__module__ == "catalogue.size" or self.fault.bytes_sent is not None
        return heavy or "bomb" in name or name.endswith("flood")


# ---- one row -------------------------------------------------------------------------------------


def bounded(act: Act) -> Act:
    """The same for any client, and not for ever: after `ENOUGH` bytes there is only silence."""

    async def bounded_act(wire: Wire, say: Dialect) -> None:
        send = wire.send

        async def sent(data: bytes) -> None:
            if wire.server.bytes_sent > ENOUGH:
                await wire.hang()
            await send(data)

        wire.send = sent  # type: ignore[method-assign]
        wire.request = replace(wire.request, headers={**wire.request.headers, **OUR_HEADERS})
        await act(wire, say)

    return bounded_act


def attempt(run: Run, worker: Worker) -> Attempt:
    """Act the row out for one client."""
    say = DIALECTS[run.dialect]
    with FaultServer(bounded(run.fault.act), say) as server:
        calls = worker.run(job_of(run, server.url), server.show)
        asked = server.requests
        return Attempt(
            calls=calls or [],
            hung=calls is None or server.bytes_sent > ENOUGH,
            requests=len(asked),
            pause=asked[1].at - asked[0].at if len(asked) > 1 else None,
            leaked=any(
                KEY in str(request.headers)
                for request in asked
                if request.headers["host"].startswith(STRANGER)
            ),
        )


def job_of(run: Run, url: str, *, warm: bool = False) -> dict[str, Any]:
    say = DIALECTS[run.dialect]
    limits: Limits = run.fault.model.get("limits", DEFAULT_LIMITS)
    return {
        "client": run.client,
        "mode": run.mode,
        "dialect": run.dialect,
        "model": say.model,
        "fields": dict(say.fields),
        "limits": {name: getattr(limits, name) for name in limits.__struct_fields__},
        "calls": run.fault.calls,
        "url": url,
        "key": KEY,
        "warm": warm,
    }


class Worker:
    """A process that runs jobs, one at a time; a context manager. `versions`: of its packages."""

    def __init__(self, python: str, clients: Sequence[str], read_seconds: float) -> None:
        self._command = [python, str(HERE / "fault_process.py"), *clients]
        self._settings = {"read_seconds": read_seconds}

    def __enter__(self) -> Self:
        ends = ("_PROXY", "_API_KEY")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(NOT_INHERITED) and not name.upper().endswith(ends)
        }
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=kept,
        )
        self.versions: dict[str, str] = self._report()["versions"]
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def run(self, job: dict[str, Any], show: Callable[[str], None]) -> list[dict[str, Any]] | None:
        """What the calls of the job came to; None if one of them hung."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(job | self._settings) + "\n")
        self._process.stdin.flush()
        calls: list[dict[str, Any]] = []
        while "over" not in (report := self._report()):
            if "broken" in report:
                raise RuntimeError(f"{job['client']}, {job['mode']}:\n{report['broken']}")
            show(report.get("shown", ""))
            calls = report.get("calls", calls)
        if os.WIFSIGNALED(report["over"]) and os.WTERMSIG(report["over"]) == signal.SIGALRM:
            return None
        if report["over"] != 0:
            raise RuntimeError(f"{job['client']}, {job['mode']}: wait status {report['over']}")
        return calls

    def _report(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended: is everything installed there?")
        report: dict[str, Any] = json.loads(line)
        return report


# ---- all rows ------------------------------------------------------------------------------------


def runs_of(client: str, names: Sequence[str] = ()) -> Iterator[Run]:
    """What a client has to run; with `names`, these rows alone."""
    for mode in CLIENTS[client].modes:
        for fault in rows(mode):
            for dialect in CLIENTS[client].dialects:
                if dialect in fault.dialects and (not names or fault.name in names):
                    yield Run(client, mode, dialect, fault)


@contextmanager
def workers_of(
    python: str, clients: Sequence[str], count: int, read_seconds: float
) -> Iterator[list[Worker]]:
    """Workers that have loaded what their clients load at the first call."""
    ok = FAULTS["ok"]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(python, clients, read_seconds)) for _ in range(count)]
        for client in clients:
            for dialect in CLIENTS[client].dialects:
                with FaultServer(bounded(ok.act), DIALECTS[dialect]) as server:
                    for worker in workers:
                        run = Run(client, MODES[0], dialect, ok)
                        worker.run(job_of(run, server.url, warm=True), server.show)
        yield workers


def compare(
    python: str, clients: Sequence[str], names: Sequence[str], count: int, read_seconds: float
) -> tuple[list[tuple[Run, Attempt, Verdict]], dict[str, str]]:
    """All rows through clients of one interpreter, judged; and the versions of the clients."""
    todo = [run for client in clients for run in runs_of(client, names)]
    with workers_of(python, clients, count, read_seconds) as workers:
        idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            idle.put(worker)
        done = Progress(len(todo))

        def one(run: Run) -> tuple[Run, Attempt, Verdict]:
            worker = idle.get()
            try:
                what = attempt(run, worker)
            finally:
                idle.put(worker)
            done.step()
            return run, what, judge(run.fault, run.dialect, what)

        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(one, [run for run in todo if not run.heavy]))
        found += [one(run) for run in todo if run.heavy]
        return found, workers[0].versions


class Progress:
    """A figure on a terminal, and nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._lock = total, 0, threading.Lock()

    def step(self) -> None:
        with self._lock:
            self._done += 1
            if sys.stderr.isatty():
                end = "\r" if self._done < self._total else "\n"
                print(f"{self._done} of {self._total}", end=end, file=sys.stderr, flush=True)


# ---- the report ----------------------------------------------------------------------------------

NAMED = {"openai": "OpenAI Chat", "responses": "OpenAI Responses", "anthropic": "Anthropic"}
KINDS = ("silent loss", "hang", "foreign", "other")
HEAD = (
    "client",
    "mode",
    *(f"{name}: right" for name in NAMED.values()),
    "silent loss",
    "hang",
    "foreign exception",
    "other",
    "key in a text",
    "key in a pickle",
    "partial kept",
)


def table(found: Sequence[tuple[Run, Attempt, Verdict]]) -> str:
    """A Markdown table, a line for each client and mode."""
    groups: dict[tuple[str, str], list[tuple[Run, Verdict]]] = {}
    for run, _, verdict in found:
        groups.setdefault((CLIENTS[run.client].title, run.mode), []).append((run, verdict))
    lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 2))]
    lines += [(*names, *_cells(group)) for names, group in groups.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(group: Sequence[tuple[Run, Verdict]]) -> Iterator[str]:
    for dialect in NAMED:
        right = [verdict.right for run, verdict in group if run.dialect == dialect]
        yield f"{sum(right)}/{len(right)}" if right else "–"
    kinds = Counter(verdict.kind for _, verdict in group)
    yield from (str(kinds[kind]) for kind in KINDS)
    yield str(sum(verdict.key_in_text for _, verdict in group))
    yield str(sum(verdict.key_in_pickle for _, verdict in group))
    kept = [verdict.kept for _, verdict in group if verdict.kept is not None]
    yield f"{sum(kept)}/{len(kept)}" if kept else "–"


def as_json(run: Run, what: Attempt, verdict: Verdict) -> dict[str, Any]:
    told = {"client": run.client, "mode": run.mode, "dialect": run.dialect}
    for call in what.calls:
        call["text"] = call["text"][:200]
    return {**told, "fault": run.fault.name, **asdict(verdict), **asdict(what)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers-python", help="interpreter of an environment with the peers")
    parser.add_argument("--only", nargs="+", choices=list(CLIENTS), default=list(CLIENTS))
    parser.add_argument("--faults", nargs="+", default=(), help="rows of the catalogue, by name")
    parser.add_argument("--read-seconds", type=float, default=0.5, help="how long silence may last")
    parser.add_argument("--workers", type=int, default=4, help="calls at a time")
    parser.add_argument("--json", type=Path, help="where to write every attempt")
    given = parser.parse_args()
    found: list[tuple[Run, Attempt, Verdict]] = []
    versions: dict[str, str] = {}
    for python, peer in ((sys.executable, False), (given.peers_python, True)):
        clients = [name for name in given.only if CLIENTS[name].peer is peer]
        if python and clients:
            more, told = compare(python, clients, given.faults, given.workers, given.read_seconds)
            found += more
            versions |= told
    print(table(found))
    print(f"\nLeft out for all: {', '.join(f'{name} ({why})' for name, why in LEFT_OUT.items())}.")
    print(f"Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}.")
    if given.json:
        told_all = [as_json(*one) for one in found]
        report = {"versions": versions, "left_out": LEFT_OUT, "attempts": told_all}
        given.json.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    ours = [one for one in found if not CLIENTS[one[0].client].peer and not one[2].right]
    for run, _, verdict in ours:
        where = f"{run.client}, {run.mode}, {run.dialect}, {run.fault.name}"
        print(f"{where}: {verdict.kind}, {verdict.why}", file=sys.stderr)
    return 1 if ours else 0


if __name__ == "__main__":
    sys.exit(main())
