"""Mutants: how much of the kernel could be wrong without a test that fails.

    python tests/mutants/driver.py                     # every mutant: `make mutants`
    python tests/mutants/driver.py --sample 120        # so many of each file, drawn by --seed
    python tests/mutants/driver.py fold.py ndjson.py   # of these files only

mutmut changes one thing of one function at a time and runs the tests that reach that function. What
is changed, and which tests count, says `[tool.mutmut]` in pyproject.toml, alone. All of it happens
in a copy of the tree, below build/mutants. A mutant that makes a test fail, or run past its time,
is killed; the others are named at the end, equivalent ones too, and `mutmut show` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code
from mutmut.utils.format_utils import get_mutant_name

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]
COPY = ROOT / "build" / "mutants"
_LEAST = 85.0  # per cent of a file's mutants


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="ends of their paths; default: all there are")
    parser.add_argument("--sample", type=int, default=0, help="mutants of each file; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    files = [f for f in settings["only_mutate"] if f.endswith(tuple(args.files or [""]))]
    mutants = {file: _mutants(file, args.sample, args.seed) for file in files}
    _copy()
    _run([name for names in mutants.values() for name in names], args.workers)
    sys.exit(_report(mutants))


def _mutants(file: str, sample: int, seed: int) -> list[str]:
    """The names of a file's mutants; the same ones for the same seed."""
    made = mutate_file_contents(file, (ROOT / file).read_text()).mutant_names
    names = sorted(get_mutant_name(Path(file), name) for name in made)
    return random.Random(seed).sample(names, sample) if 0 < sample < len(names) else names


def _copy() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", COPY)
    passed = shutil.ignore_patterns("__pycache__", "node_modules")
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, COPY / folder, ignore=passed)


def _run(names: list[str], workers: int) -> None:
    # The same examples for every mutant. Tests that start a process see the package as it is.
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutants"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(workers), *names]
    with (COPY / "log.txt").open("wb") as log:
        ran = subprocess.run(command, cwd=COPY, env=environment, stdout=log, stderr=log)
    if ran.returncode:
        sys.exit(f"mutmut did not run; see {COPY / 'log.txt'}")


def _report(mutants: dict[str, list[str]]) -> int:
    """Print the score of each file and the names of the survivors; 1 if a score is too low."""
    survivors: list[str] = []
    low = False
    for file, names in mutants.items():
        codes = json.loads((COPY / "mutants" / f"{file}.meta").read_text())["exit_code_by_key"]
        alive = [n for n in names if status_by_exit_code[codes[n]] not in ("killed", "timeout")]
        survivors += alive
        killed = len(names) - len(alive)
        score = 100 * killed / len(names)
        low = low or score < _LEAST
        print(f"{file:40} {killed:4} of {len(names):4} killed {score:6.1f} %")
    print(*survivors, sep="\n")
    return int(low)


if __name__ == "__main__":
    main()
