"""Many streams at once, for long, over a provider that fails now and then: nothing may pile up.

    python tests/soak/soak.py --streams 1000 --seconds 600 --faults 0.05

The provider is a process of its own. It spoils a share of its replies: refused, cut, reset, stalled
or malformed. Printed are the calls by how they ended, the time to the first chunk, and memory,
descriptors and tasks over time. The exit code is 1 if anything leaked or was not what was said.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression, quantiles
from typing import Any

from streamfold import Timeouts, init_chat_model
from streamfold.errors import StreamfoldError
from streamfold.testing import EmbeddedProvider, faults

__all__ = ["Report", "soak"]

DELAY = 0.4  # seconds that the provider takes for each chunk
SPREAD = 10.0  # seconds over which the streams begin
PROMPT = "Tell me about Zürich in a few sentences"
FAULTS = (
    lambda rng: faults.status(rng.choice((429, 500, 503)), retry_after=0.05),
    lambda rng: faults.cut(after=rng.randint(0, 20)),
    lambda rng: faults.cut(after=rng.randint(0, 20), reset=True),
    lambda rng: faults.stall(after=rng.randint(0, 20)),
    lambda rng: faults.malformed(after=rng.randint(0, 20)),
)


# ---- the provider --------------------------------------------------------------------------------


def serve(share: float, seed: int) -> None:
    """Serve until the standard input ends; the first line printed is the address."""
    rng = random.Random(seed)

    class Failing(EmbeddedProvider):
        def _respond(self, request: Any) -> Any:
            self.inject(rng.choice(FAULTS)(rng) if rng.random() < share else None)
            return super()._respond(request)

    with Failing(chunk_delay=DELAY, request_log=False) as provider:
        print(provider.url, flush=True)
        sys.stdin.read()


# ---- the client ----------------------------------------------------------------------------------


@dataclass
class Report:
    """What a run came to. Times in seconds, memory in MiB, a moment is (time, memory, descriptors,
    tasks)."""

    ends: Counter[str] = field(default_factory=Counter)
    first_chunks: list[float] = field(default_factory=list)
    moments: list[tuple[float, float, int, int]] = field(default_factory=list)
    left: tuple[int, int] = (0, 0)  # descriptors and tasks that stayed when all was over

    @property
    def slope(self) -> float:
        """MiB per minute that memory grew in the second half."""
        half = self.moments[len(self.moments) // 2 :]
        if len(half) < 3:
            return 0.0
        return linear_regression([m[0] for m in half], [m[1] for m in half]).slope * 60

    @property
    def problems(self) -> list[str]:
        """What must not be, in words."""
        strangers = [name for name in self.ends if name.startswith(("wrong", "foreign"))]
        found = [f"{self.ends[name]} calls ended as {name}" for name in strangers]
        if self.left[0] > 0:
            found.append(f"{self.left[0]} descriptors were left open")
        if self.left[1] > 0:
            found.append(f"{self.left[1]} tasks were left")
        return found

    def __str__(self) -> str:
        cuts = quantiles(self.first_chunks, n=100) if len(self.first_chunks) > 1 else [0.0] * 99
        lines = [f"{count:>9,}  {name}" for name, count in self.ends.most_common()]
        p50, p99 = cuts[49] * 1000, cuts[98] * 1000
        lines.append(f"first chunk, over the provider's own time: p50 {p50:.0f}, p99 {p99:.0f} ms")
        last = self.moments[-1] if self.moments else (0.0, 0.0, 0, 0)
        lines.append(
            f"at the end of the load: {last[1]:.0f} MiB ({self.slope:+.2f} MiB a minute), "
            f"{last[2]} descriptors, {last[3]} tasks"
        )
        lines.append(f"afterwards: {self.left[0]} descriptors and {self.left[1]} tasks more")
        return "\n".join(lines)


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _calls(
    model: Any, begin_at: float, until: float, report: Report, expected: list[str]
) -> None:
    await asyncio.sleep(begin_at - time.monotonic())
    while (begin := time.monotonic()) < until:
        text, first = "", True
        try:
            async for chunk in model.astream(PROMPT):
                if first:
                    report.first_chunks.append(time.monotonic() - begin - DELAY)
                    first = False
                text += chunk.text
            expected[:] = expected or [text]
            report.ends["whole" if text == expected[0] else "wrong text"] += 1
        except StreamfoldError as error:
            kept = error.partial.text if error.partial is not None else ""
            good = kept == text and (not expected or expected[0].startswith(text))
            report.ends[type(error).__name__ if good else "wrong partial"] += 1
        except Exception as error:
            report.ends[f"foreign {type(error).__name__}"] += 1


async def _load(url: str, streams: int, seconds: float, report: Report) -> None:
    limits = Timeouts(connect=10.0, first_event=10.0, idle=2.0)
    model = init_chat_model("openai:gpt-4.1", base_url=url + "/v1", api_key="any", timeout=limits)
    tasks, descriptors = len(asyncio.all_tasks()), _descriptors()
    expected: list[str] = []
    start = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for place in range(streams):
            begin_at = start + min(SPREAD, seconds / 4) * place / streams
            group.create_task(_calls(model, begin_at, start + seconds, report, expected))
        while (now := time.monotonic() - start) < seconds:
            report.moments.append((now, _memory(), _descriptors(), len(asyncio.all_tasks())))
            await asyncio.sleep(min(1.0, seconds / 20))
    await model.aclose()
    for _ in range(50):
        await asyncio.sleep(0.02)
        if _descriptors() <= descriptors and len(asyncio.all_tasks()) <= tasks:
            break
    gc.collect()
    report.left = (_descriptors() - descriptors, len(asyncio.all_tasks()) - tasks)


def soak(streams: int, seconds: float, share: float, seed: int = 0) -> Report:
    """Run `streams` calls at a time for so many seconds, against a process of its own that spoils
    a `share` of its replies."""
    report = Report()
    command = [sys.executable, __file__, "--serve", "--faults", str(share), "--seed", str(seed)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        try:
            asyncio.run(_load(url, streams, seconds, report))
        finally:
            process.stdin.close()
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--faults", type=float, default=0.05, help="share of spoilt replies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each stream has a descriptor
    if args.serve:
        serve(args.faults, args.seed)
        return 0
    report = soak(args.streams, args.seconds, args.faults, args.seed)
    print(report)
    for problem in report.problems:
        print(f"wrong: {problem}")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
