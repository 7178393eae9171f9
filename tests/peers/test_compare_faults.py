"""The comparison of faults: its rule on outcomes that are made up, and the command itself.

Peers run where `make faults-peers` has installed them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compare_faults import Run, table
from fault_clients import MODES
from fault_judge import LEFT_OUT, MAY_FAIL, MORE_REQUESTS, NOT_CHECKED, Attempt, judge, rows
from says import HALF, WHOLE

HERE = Path(__file__).resolve().parent
PEERS = HERE.parents[1] / ".venv-peers" / "bin" / "python"

ROWS = {fault.name: fault for mode in MODES for fault in rows(mode)}


def error(**fields: Any) -> dict[str, Any]:
    clean = {"key_in_text": False, "key_in_pickle": False, "kept": False}
    return {"type": "vendor.Broken", "own": True, **clean, **fields}


def said(text: str = WHOLE, **fields: Any) -> dict[str, Any]:
    nothing = {"calls": [], "invalid": [], "usage": None, "error": None, "key_in_log": False}
    return {"text": text, "finish": "stop", **nothing, **fields}


def called(args: Any) -> dict[str, Any]:
    call = {"id": "call_1", "name": "get_weather", "args": args}
    return said("", finish="tool_calls", calls=[call])


def once(call: dict[str, Any], requests: int = 1, **seen: Any) -> Attempt:
    return Attempt(calls=[call], requests=requests, **seen)


FORGED = said("FORGED" * 9)
TOLD = said("", error=error())
TOLD_LATE = said(HALF, error=error())
FOREIGN = said(HALF, error=error(type="json.decoder.JSONDecodeError", own=False))
ECHOED = said("", error=error(key_in_text=True))
NAN = '{"city": "Zürich", "days": NaN}'

#: The row, what came of it, and what that is.
OUTCOMES: dict[str, tuple[str, Attempt, str]] = {
    "whole": ("gzip", once(said()), "right"),
    "short": ("gzip", once(said(HALF)), "silent loss"),
    "empty": ("gzip", once(said("")), "silent loss"),
    "other finish": ("gzip", once(said(finish="length")), "other"),
    "refused": ("gzip", once(TOLD), "other"),
    "foreign": ("gzip", once(FOREIGN), "foreign"),
    "hung": ("gzip", Attempt(calls=[], requests=1, hung=True), "hang"),
    "asked twice": ("gzip", once(said(), 2), "other"),
    "second lost": ("ok", Attempt(calls=[said(), said("")], requests=2), "silent loss"),
    "forged": ("junk-after-reply", Attempt(calls=[said(), FORGED], requests=2), "other"),
    "told": ("cut-mid-stream", once(TOLD_LATE), "right"),
    "not told": ("cut-mid-stream", once(said(HALF)), "silent loss"),
    "raw": ("cut-mid-stream", once(FOREIGN), "foreign"),
    "asked again": ("cut-mid-stream", once(TOLD_LATE, 2), "other"),
    "may fail": ("big-int", once(TOLD_LATE), "right"),
    "may fail, but not so": ("big-int", once(FOREIGN), "foreign"),
    "late, but whole": ("finish-then-hang", once(said(error=error())), "right"),
    "late and short": ("finish-then-hang", once(TOLD_LATE), "other"),
    "gave up": ("http-503", once(TOLD), "right"),
    "three times": ("http-503", once(TOLD, 3), "right"),
    "four times": ("http-503", once(TOLD, 4), "other"),
    "in vain": ("http-400", once(TOLD, 2), "other"),
    "waited": ("retry-after-ms", once(said(), 2, pause=0.3), "right"),
    "did not wait": ("retry-after-ms", once(said(), 2, pause=0.1), "other"),
    "text of a call": ("tool-nan-args", once(called(NAN)), "right"),
    "damaged call": ("tool-nan-args", once(called({"city": "Zürich"})), "other"),
    "no arguments": ("tool-empty-args", once(called("")), "right"),
    "echoed": ("http-401-echo", once(ECHOED), "other"),
    "sent away": ("redirect-other-origin", once(TOLD, 2, leaked=True), "other"),
}


@pytest.mark.parametrize("name", list(OUTCOMES))
def test_the_rule(name: str) -> None:
    """Each outcome is what it is called, whoever it is of."""
    row, attempt, kind = OUTCOMES[name]
    verdict = judge(ROWS[row], "openai", attempt)
    assert verdict.kind == kind, verdict.why
    assert verdict.key_in_text == (name in ("echoed", "sent away"))


def test_responses_have_no_finish_reason() -> None:
    attempt = once(said(finish="completed"))
    assert judge(ROWS["gzip"], "responses", attempt).right
    assert not judge(ROWS["gzip"], "openai", attempt).right


def test_what_is_kept_counts_where_something_had_arrived() -> None:
    cut = ROWS["cut-mid-stream"]

    def kept(text: str, **fields: Any) -> bool | None:
        return judge(cut, "openai", once(said(text, **fields))).kept

    assert kept(HALF, error=error(kept=True)) is True
    assert kept(HALF, error=error()) is False
    assert kept("", error=error()) is None
    assert kept(HALF) is None


def test_allowances_are_of_rows_that_exist() -> None:
    """A row that goes takes its allowance along; what is left out is judged for nobody."""
    assert MAY_FAIL | NOT_CHECKED | set(MORE_REQUESTS) <= set(ROWS)
    assert not set(LEFT_OUT) & set(ROWS)


def test_the_table_has_every_verdict() -> None:
    """Right and wrong add up to all."""
    cut = ROWS["cut-mid-stream"]
    found = []
    run = Run("openai", MODES[0], "openai", cut)
    for call in (said(HALF, error=error(kept=True)), said(HALF), FOREIGN):
        found.append((run, once(call), judge(cut, "openai", once(call))))
    cells = table(found).splitlines()[-1].strip("| ").split(" | ")
    assert cells[:5] == ["openai SDK", "async stream", "1/3", "–", "–"]
    assert cells[5:] == ["1", "0", "1", "0", "0", "0", "1/2"]


# ---- the command ---------------------------------------------------------------------------------


def run_command(path: Path, *arguments: str) -> list[dict[str, Any]]:
    report = path / "report.json"
    patient = ("--workers", "1", "--read-seconds", "5")  # the machine may be busy with other tests
    command = [sys.executable, str(HERE / "compare_faults.py"), *patient]
    done = subprocess.run(
        [*command, "--json", str(report), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    attempts: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["attempts"]
    return attempts


def test_streamfold_survives(tmp_path: Path) -> None:
    """A fault of each kind, through the very command, in all its modes and dialects."""
    names = "ok cut-mid-stream tool-plain http-401-echo error-first-once whole-half".split()
    attempts = run_command(tmp_path, "--only", "streamfold", "--faults", *names)
    assert {one["fault"] for one in attempts} == set(names)
    assert len(attempts) == (len(names) - 1) * 2 * 3 + 2 * 3
    assert all(one["kind"] == "right" for one in attempts)
    assert {one["kept"] for one in attempts if one["fault"] == "cut-mid-stream"} == {True}


@pytest.mark.skipif(not PEERS.exists(), reason="`make faults-peers` has not installed the peers")
@pytest.mark.parametrize("client", ["openai", "anthropic", "anthropic-helper"])
def test_peers_take_part(client: str, tmp_path: Path) -> None:
    """A peer gets a good answer right: what it gets wrong is no fault of the command."""
    where = ("--peers-python", str(PEERS), "--only", client)
    attempts = run_command(tmp_path, *where, "--faults", "ok", "tool-plain", "whole-ok")
    assert attempts
    assert all(one["kind"] == "right" for one in attempts)
