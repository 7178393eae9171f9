"""The calls of one client, in a process that may hang: what compare_faults.py runs.

    python fault_process.py CLIENT...

reads a job a line from its standard input and acts each out in a process forked for it, so that
one that hangs or eats memory is ended by a signal and spoils nothing. What comes out is JSON, a
line each: `shown`, the text that the caller has so far; `calls`, what they came to; `over`, how the
process ended. It runs in the interpreter of the clients and imports nothing of this repository but
fault_clients.py, and streamfold where that is the client.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from fault_clients import CLIENTS, SHOWN, Ask, Client, Job, Said, Show, ToldByAnEvent, is_async

__all__ = ["CALL_SECONDS", "act"]

CALL_SECONDS = 7.0  # what takes longer hangs

# ---- what came of a call -------------------------------------------------------------------------


class Log(logging.Handler):
    """All that is logged, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def error_report(error: BaseException, own: tuple[str, ...], key: str, seen: str) -> dict[str, Any]:
    """What an error is, what it gives away, and whether the text so far can be had from it."""
    bases = type(error).__mro__
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "own": any(base.__module__.partition(".")[0] in own for base in bases)
        or isinstance(error, ToldByAnEvent),
        "key_in_text": any(key in text for text in texts_of(error)),
        "key_in_pickle": key.encode() in pickled(error),
        "kept": bool(seen) and reachable(error, seen),
    }


def texts_of(error: BaseException) -> Iterator[str]:
    seen: BaseException | None = error
    while seen is not None:
        yield from (str(seen), repr(seen), repr(seen.args))
        seen = seen.__cause__ or seen.__context__
    yield "".join(traceback.format_exception(error))


def pickled(error: BaseException) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:
        return b""


def reachable(root: object, text: str, depth: int = 4, most: int = 5000) -> bool:
    """Whether `text` is in anything that public attributes and containers lead to from `root`."""
    level, seen = [root], {id(root): root}
    for _ in range(depth):
        following = []
        for thing in (part for parent in level for part in parts_of(parent)):
            if isinstance(thing, str) and text in thing:
                return True
            if id(thing) not in seen and len(seen) < most:
                seen[id(thing)] = thing
                following.append(thing)
        level = following
    return False


def parts_of(thing: object) -> Iterator[object]:
    if isinstance(thing, str | bytes | int | float | type | None):
        return
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, list | tuple | set):
        yield from thing
    else:
        for name in dir(thing):
            if not name.startswith("_") or name in ("__cause__", "__context__"):
                try:
                    part = getattr(thing, name)
                except Exception:  # a property that is not to be had now
                    continue
                if not callable(part):
                    yield part


async def one_call(ask: Ask, client: Client, job: Job, say: Show) -> dict[str, Any]:
    """What one call came to. An alarm ends the process of one that hangs, whatever it does."""
    said, error, log = Said(), None, Log()
    root = logging.getLogger()
    root.addHandler(log)
    signal.setitimer(signal.ITIMER_REAL, CALL_SECONDS)
    try:
        await ask(said, say)
    except BaseException as raised:
        signal.setitimer(signal.ITIMER_REAL, 0)  # what is asked of the error is not the client's
        error = error_report(raised, client.own, job["key"], said.text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        root.removeHandler(log)
    answer = {"finish": said.finish, "usage": said.usage, "invalid": said.invalid}
    return {
        "text": said.text,
        "calls": list(said.calls.values()),
        "error": error,
        "key_in_log": any(job["key"] in line for line in log.lines),
        **answer,
    }


# ---- the process ---------------------------------------------------------------------------------


async def act(job: Job, write: Callable[[Any], None]) -> None:
    """The calls of a job, one after the other through one client; `write` takes what they came
    to."""
    client = CLIENTS[job["client"]]
    ask = client.open(job)

    def show(text: str) -> None:
        if len(text) < SHOWN:
            write({"shown": text})

    calls = []
    for number in range(job["calls"]):
        if number:  # the server may close the connection meanwhile
            await asyncio.sleep(0.2) if is_async(job) else time.sleep(0.2)  # noqa: ASYNC251
        calls.append(await one_call(ask, client, job, show))
    write({"calls": calls})


def run(job: Job, write: Callable[[Any], None]) -> None:
    work = act(job, write)
    if is_async(job):
        asyncio.run(work)
        return
    try:  # a sync client is never suspended: a step is all there is
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("a sync client was suspended")


def forked(job: Job, write: Callable[[Any], None]) -> int:
    """Run the job in a process of its own, and give its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            logging.getLogger().setLevel(logging.DEBUG)
            run(job, write)
            status = 0
        except BaseException:
            write({"broken": traceback.format_exc()})
        finally:
            os._exit(status)  # what a client leaves behind is not measured
    return os.waitpid(pid, 0)[1]


def main(names: list[str]) -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what clients print is no report

    def write(report: Any) -> None:
        out.write(json.dumps(report) + "\n")
        out.flush()

    for name in names:
        importlib.import_module(CLIENTS[name].own[0])
    packages = sorted({package for name in names for package in CLIENTS[name].own})
    write({"versions": {package: version(package) for package in packages}})
    for line in sys.stdin:
        job = json.loads(line)
        if job["warm"]:  # here, not in a fork: what is loaded late is loaded once
            run(job, lambda report: None)
            write({"over": 0})
        else:
            write({"over": forked(job, write)})


if __name__ == "__main__":
    main(sys.argv[1:])
