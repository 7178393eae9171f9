"""The journal of a batch: what is finished is on disk, and nothing is asked twice."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pydantic
import pytest

import streamfold
from streamfold import HumanMessage, init_chat_model, journal_file, runnable
from streamfold.errors import ConfigurationError, InvalidRequestError, JournalError
from streamfold.testing import Answer, EmbeddedProvider

SRC = str(Path(streamfold.__file__).parents[1])
MODES = pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
METHODS = pytest.mark.parametrize("method", ["batch", "as_completed"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.sqlite"


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as running:
        yield running


def model_at(provider: EmbeddedProvider, name: str = "openai:gpt-4.1", **fields: Any) -> Any:
    return init_chat_model(name, base_url=provider.url + "/v1", api_key="sk-secret", **fields)


def results_of(mode: str, method: str, target: Any, inputs: Any, **kwargs: Any) -> list[Any]:
    """What a batch gives, in the order of the inputs, in any of the ways to run it."""
    found: dict[int, Any] = {}

    async def main() -> None:
        with anyio.fail_after(60):
            if method == "batch":
                found.update(enumerate(await target.abatch(inputs, **kwargs)))
            else:
                async for index, result in target.abatch_as_completed(inputs, **kwargs):
                    assert index not in found
                    found[index] = result

    if mode != "sync":
        anyio.run(main, backend=mode)
    elif method == "batch":
        found.update(enumerate(target.batch(inputs, **kwargs)))
    else:
        found.update(target.batch_as_completed(inputs, **kwargs))
    return [found[index] for index in range(len(found))]


class Squares:
    """A runnable that counts how often it is asked what; `bad` inputs fail."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.bad: set[int] = set()

        async def square(number: int) -> int:
            self.asked.append(number)
            await anyio.lowlevel.checkpoint()
            if number in self.bad:
                raise LookupError(f"no square of {number}")
            return number * number

        self.runnable: Any = runnable(square)


@pytest.fixture
def squares() -> Squares:
    return Squares()


def rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT place, output FROM items ORDER BY place").fetchall()


# ---- going on ------------------------------------------------------------------------------------


@MODES
@METHODS
def test_a_second_run_asks_nothing(
    mode: str, method: str, provider: EmbeddedProvider, path: Path
) -> None:
    """Results come back equal, whatever they are, and no request is made."""
    inputs = ["one", [HumanMessage("two")], [("user", "three")], {"role": "user", "content": "4"}]
    first = results_of(mode, method, model_at(provider), inputs, journal=path)
    assert len(provider.requests) == 4
    assert results_of(mode, method, model_at(provider), inputs, journal=str(path)) == first
    assert len(provider.requests) == 4


@MODES
@METHODS
def test_after_a_failure_the_rest_is_asked(
    mode: str, method: str, squares: Squares, path: Path
) -> None:
    """What was finished is kept; what failed, and what was not begun, is asked again."""
    squares.bad = {5}
    config = {"max_concurrency": 1}
    with pytest.raises(LookupError):
        results_of(mode, method, squares.runnable, range(10), config=config, journal=path)
    assert squares.asked == [0, 1, 2, 3, 4, 5]
    squares.asked, squares.bad = [], set()
    found = results_of(mode, method, squares.runnable, range(10), journal=path)
    assert found == [n * n for n in range(10)]
    assert sorted(squares.asked) == [5, 6, 7, 8, 9]


@MODES
@METHODS
def test_errors_as_results_are_not_kept(
    mode: str, method: str, squares: Squares, path: Path
) -> None:
    """With `return_exceptions`, too, what failed is asked again the next time."""
    squares.bad = {2, 7}
    found = results_of(
        mode, method, squares.runnable, range(9), return_exceptions=True, journal=path
    )
    assert [n for n, result in enumerate(found) if isinstance(result, LookupError)] == [2, 7]
    squares.asked, squares.bad = [], set()
    found = results_of(mode, method, squares.runnable, range(9), journal=path)
    assert (found, sorted(squares.asked)) == ([n * n for n in range(9)], [2, 7])


def streamed(inputs: list[Any]) -> AsyncIterator[Any]:
    async def source() -> AsyncIterator[Any]:
        for item in inputs:
            yield item

    return source()


@MODES
@METHODS
@pytest.mark.parametrize("make", [iter, streamed], ids=["plain", "async"])
def test_inputs_that_come_as_they_come(
    mode: str, method: str, make: Callable[[Any], Any], squares: Squares, path: Path
) -> None:
    """Each is compared in its turn; more than a window of them."""
    inputs = list(range(700))
    first = results_of(mode, method, squares.runnable, make(inputs[:600]), journal=path)
    again = results_of(mode, method, squares.runnable, make(inputs), journal=path)
    assert again[:600] == first
    assert sorted(squares.asked) == inputs
    other = [*inputs[:650], -1]
    with pytest.raises(JournalError, match="input 650 was another one"):
        results_of(mode, method, squares.runnable, make(other), journal=path)
    assert sorted(squares.asked) == inputs


@pytest.mark.anyio
async def test_on_disk_before_it_is_handed_out(squares: Squares, path: Path) -> None:
    """Whoever has a result may rely on it: another connection could read it back already."""
    held = path.with_name("copy.sqlite")
    async for index, result in squares.runnable.abatch_as_completed(range(5), journal=path):
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{held}{end}")
        assert (index, str(result)) in rows(held)


@pytest.mark.anyio
async def test_leaving_early_keeps_what_was_ready(squares: Squares, path: Path) -> None:
    """After a `break` the file is free again, and the rest goes on."""
    got = []
    async with squares.runnable.abatch_as_completed(range(20), journal=path) as batch:
        async for index, _ in batch:
            got.append(index)
            if len(got) == 5:
                break
    before = len(rows(path))
    assert before >= 5
    squares.asked.clear()
    assert await squares.runnable.abatch(range(20), journal=path) == [n * n for n in range(20)]
    assert len(squares.asked) == 20 - before


@pytest.mark.anyio
async def test_one_file_is_left(squares: Squares, path: Path) -> None:
    """The write-ahead log is gone with the batch."""
    await squares.runnable.abatch(range(5), journal=path)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.anyio
async def test_many_share_a_write(squares: Squares, path: Path) -> None:
    """Items that finish together are one transaction, not one each."""
    statements: list[str] = []
    real = sqlite3.connect

    class Traced(sqlite3.Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.set_trace_callback(statements.append)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **k, factory=Traced))
        await squares.runnable.abatch(range(500), journal=path)
    assert len(rows(path)) == 500
    assert sum(statement == "COMMIT" for statement in statements) < 250


# ---- results of every kind -----------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int = 0
    name: str = ""


class Shape(msgspec.Struct):
    x: int = 0
    name: str = ""


class Place(pydantic.BaseModel):
    x: int = 0
    name: str = ""


SCHEMA = {
    "title": "Thing",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["x", "name"],
}


@pytest.mark.parametrize("schema", [Point, Shape, Place, SCHEMA], ids=str)
@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_results(
    schema: Any, include_raw: bool, provider: EmbeddedProvider, path: Path
) -> None:
    """Objects come back as objects, with `include_raw` together with their messages."""
    model = model_at(provider).with_structured_output(schema, include_raw=include_raw)
    first = model.batch(["a", "b"], journal=path)
    asked = len(provider.requests)
    again = model.batch(["a", "b"], journal=path)
    assert (again, len(provider.requests)) == (first, asked)
    parsed = again[0]["parsed"] if include_raw else again[0]
    assert isinstance(parsed, dict if schema is SCHEMA else schema)


def test_raw_answers_that_did_not_fit(path: Path) -> None:
    """The error of a bad answer is part of the result, and is made again."""
    with EmbeddedProvider(script=["no object at all"]) as provider:
        model = model_at(provider).with_structured_output(Point, include_raw=True)
        (first,) = model.batch(["a"], journal=path)
        (again,) = model.batch(["a"], journal=path)
    assert first["parsed"] is again["parsed"] is None
    assert (again["raw"], str(again["parsing_error"])) == (
        first["raw"],
        str(first["parsing_error"]),
    )


def test_functions_with_annotations(path: Path) -> None:
    """The class of a function's objects is the one that it says it returns."""

    @runnable
    def points(x: int) -> list[Point] | None:
        return [Point(x, "p")]

    assert points.batch([1, 2], journal=path) == points.batch([1, 2], journal=path)
    assert points.batch([1, 2], journal=path)[0] == [Point(1, "p")]


@MODES
def test_results_that_cannot_be_kept(mode: str, path: Path) -> None:
    """The batch ends, says which result of what kind it was, and loses none."""

    @runnable
    async def odd(x: int) -> Any:
        return {x} if x == 2 else x

    config = {"max_concurrency": 1}
    with pytest.raises(JournalError, match=r"result of input 2: set \(\{2\}\)") as caught:
        results_of(mode, "batch", odd, [0, 1, 2, 3], config=config, journal=path)
    assert caught.value.finished == {0: 0, 1: 1, 2: {2}}  # type: ignore[attr-defined]
    assert rows(path) == [(0, "0"), (1, "1")]


def test_combinations(path: Path) -> None:
    """Retries, fallbacks, bound and configurable models are kept as what they ask."""
    with EmbeddedProvider() as provider:
        model = model_at(provider)
        places = [
            model.with_retry(),
            model.with_fallbacks([model_at(provider, "openai:gpt-4.1-mini")]),
            model.bind(temperature=0.5).with_config(tags=["a"]),
            init_chat_model(
                configurable_fields=["model", "model_provider"],
                base_url=provider.url + "/v1",
                api_key="any",
            ),
        ]
        config = {"configurable": {"model": "gpt-4.1", "model_provider": "openai"}}
        for number, target in enumerate(places):
            file = path.with_name(f"{number}.sqlite")
            first = target.batch(["a"], config, journal=file)
            asked = len(provider.requests)
            assert target.batch(["a"], config, journal=file) == first
            assert len(provider.requests) == asked


# ---- another batch -------------------------------------------------------------------------------


class TestOfAnotherBatch:
    """It is refused, with the difference named, and nothing is asked."""

    def refused(self, target: Any, inputs: Any, path: Path, *args: Any, **kwargs: Any) -> str:
        with pytest.raises(JournalError) as caught:
            target.batch(inputs, *args, journal=path, **kwargs)
        assert str(path) in str(caught.value)
        return str(caught.value)

    def test_inputs(self, squares: Squares, path: Path) -> None:
        squares.runnable.batch([1, 2, 3], journal=path)
        squares.asked.clear()
        assert "input 1 was another one" in self.refused(squares.runnable, [1, 5, 3, 4], path)
        assert squares.asked == []

    def test_more_inputs_are_the_same_batch(self, squares: Squares, path: Path) -> None:
        """So are fewer: what there is, is right."""
        squares.runnable.batch([1, 2], journal=path)
        assert squares.runnable.batch([1, 2, 3], journal=path) == [1, 4, 9]
        assert squares.runnable.batch([1], journal=path) == [1]
        assert squares.asked == [1, 2, 3]

    @pytest.mark.parametrize(
        ("other", "says"),
        [
            (
                lambda p: model_at(p, "openai:gpt-4.1-mini"),
                "model is 'gpt-4.1-mini', there 'gpt-4.1'",
            ),
            (lambda p: model_at(p, temperature=0.5), "temperature is 0.5, there not given"),
            (lambda p: model_at(p).bind_tools([SCHEMA]), "tools is given, there not given"),
            (lambda p: model_at(p, model_kwargs={"user": "me"}), "model_kwargs is given"),
            (lambda p: model_at(p).with_structured_output(Point), "schema is given"),
        ],
    )
    def test_model(
        self,
        other: Callable[[Any], Any],
        says: str,
        provider: EmbeddedProvider,
        path: Path,
    ) -> None:
        model_at(provider).batch(["a"], journal=path)
        assert says in self.refused(other(provider), ["a"], path)
        assert len(provider.requests) == 1

    def test_parameters_of_the_call(self, provider: EmbeddedProvider, path: Path) -> None:
        model = model_at(provider)
        model.batch(["a"], journal=path, temperature=0.1, stop=["x"])
        text = self.refused(model, ["a"], path, temperature=0.2, stop=["y"])
        assert "stop differs, temperature is 0.2, there 0.1" in text

    def test_schemas(self, provider: EmbeddedProvider, path: Path) -> None:
        model = model_at(provider)
        model.with_structured_output(SCHEMA).batch(["a"], journal=path)
        other = {**SCHEMA, "required": ["x"]}
        assert "schema differs" in self.refused(model.with_structured_output(other), ["a"], path)

    def test_what_does_not_change_answers(self, provider: EmbeddedProvider, path: Path) -> None:
        """Key, patience, limits, handlers: a batch may go on with others."""
        model_at(provider).batch(["a"], journal=path)
        other = init_chat_model(
            "gpt-4.1",
            base_url=provider.url.replace("127.0.0.1", "localhost") + "/v1",
            api_key="sk-other",
            timeout=5,
            max_retries=0,
            max_in_flight=3,
            default_headers={"x-a": "b"},
            tags=["a"],
        )
        other.batch(["a"], journal=path)
        assert len(provider.requests) == 1

    def test_what_is_configured_for_one_item(self, provider: EmbeddedProvider, path: Path) -> None:
        """A list of configs may choose a model for each: that belongs to the item."""
        model = init_chat_model(
            configurable_fields="any", base_url=provider.url + "/v1", api_key="any"
        )

        def chosen(*names: str) -> list[dict[str, Any]]:
            return [{"configurable": {"model": f"openai:{name}"}} for name in names]

        model.batch(["a", "a"], chosen("gpt-4.1", "gpt-4.1-mini"), journal=path)
        model.batch(["a", "a"], chosen("gpt-4.1", "gpt-4.1-mini"), journal=path)
        assert len(provider.requests) == 2
        assert "input 1" in self.refused(model, ["a", "a"], path, chosen("gpt-4.1", "gpt-4.1"))

    def test_no_key_is_in_it(self, provider: EmbeddedProvider, path: Path) -> None:
        """Nor what was asked: only answers, and what model they are from."""
        tool = {"type": "mcp", "authorization": "sk-tool"}
        model_at(provider).bind(tools=[tool]).batch(["who knows"], journal=path)
        kept = path.read_bytes()
        assert b"sk-" not in kept
        assert b"gpt-4.1" in kept


# ---- what is no journal --------------------------------------------------------------------------


class TestNoJournal:
    """Said by one error, before anything is asked."""

    @pytest.fixture(autouse=True)
    def _no_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(journal_file, "_PATIENCE", 0.05)

    @MODES
    @METHODS
    @pytest.mark.parametrize(
        ("kind", "says"),
        [
            ("directory", "is a directory"),
            ("no directory", "there is no such directory"),
            ("text", "is not a journal"),
            ("half a database", "cannot be used|is not a journal|damaged"),
            ("database", "is the database of another program"),
            ("locked", "is in use"),
            ("format", "has the format 9: expected 1"),
            ("damaged", "is damaged"),
        ],
    )
    def test_refused(
        self, kind: str, says: str, mode: str, method: str, squares: Squares, path: Path
    ) -> None:
        place, holder = path, sqlite3.connect(":memory:")
        if kind == "directory":
            place = path.parent
        elif kind == "no directory":
            place = path.parent / "absent" / "run.sqlite"
        elif kind == "text":
            path.write_text("Dear diary, today I was asked a lot.\n" * 100)
        elif kind == "database":
            with closing(sqlite3.connect(path)) as db:
                db.execute("CREATE TABLE cats (name TEXT)")
        else:
            squares.runnable.batch(range(100), journal=path)
        if kind == "half a database":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif kind == "locked":
            holder = sqlite3.connect(path, isolation_level=None)
            holder.execute("BEGIN EXCLUSIVE")
        elif kind in ("format", "damaged"):
            with closing(sqlite3.connect(path, isolation_level=None)) as db:
                db.execute(
                    "PRAGMA user_version = 9"
                    if kind == "format"
                    else "UPDATE batch SET identity = 'x'"
                )
        squares.asked.clear()
        with closing(holder), pytest.raises(JournalError, match=says):
            results_of(mode, method, squares.runnable, range(3), journal=place)
        assert squares.asked == []
        if kind == "database":
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("cats",)]

    @METHODS
    @pytest.mark.parametrize("given", [3, "", True, b"", object()])
    def test_no_path(self, method: str, given: Any, squares: Squares) -> None:
        with pytest.raises(ConfigurationError, match="expected the path of a file"):
            results_of("sync", method, squares.runnable, [1], journal=given)

    def test_an_empty_file_is_a_new_journal(self, squares: Squares, path: Path) -> None:
        path.touch()
        assert squares.runnable.batch([3], journal=path) == [9]

    @pytest.mark.anyio
    async def test_two_runs_at_once(self, squares: Squares, path: Path) -> None:
        """The second is refused for as long as the first runs."""
        one = {"max_concurrency": 1}
        async with squares.runnable.abatch_as_completed(range(3), one, journal=path) as batch:
            await anext(batch)
            with pytest.raises(JournalError, match="is in use"):
                await squares.runnable.abatch(range(3), journal=path)
        assert await squares.runnable.abatch(range(3), journal=path) == [0, 1, 4]

    @MODES
    @pytest.mark.parametrize("make", [list, iter])
    def test_inputs_without_content(
        self, make: Callable[[Any], Any], mode: str, squares: Squares, path: Path
    ) -> None:
        """What cannot be told from others cannot be found again, and so is not asked."""
        inputs = make([object()])
        with pytest.raises(ConfigurationError, match="input 0 cannot be told from others"):
            results_of(mode, "as_completed", squares.runnable, inputs, journal=path)
        assert squares.asked == []

    @pytest.mark.parametrize(
        "output", ["{", '{"$message": {"type": "ghost"}}', '{"$dict": 5}', '{"$object": {}}']
    )
    def test_an_unreadable_result(self, output: str, squares: Squares, path: Path) -> None:
        squares.runnable.batch([1, 2], journal=path)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE items SET output = ? WHERE place = 1", (output,))
        with pytest.raises(JournalError, match="unreadable result of input 1"):
            squares.runnable.batch([1, 2], journal=path)

    @pytest.mark.anyio
    async def test_the_disk_is_full(self, squares: Squares, path: Path) -> None:
        """A write that fails ends the batch; results are on the error, and earlier ones on disk."""
        real = sqlite3.connect

        def small(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            db = real(*args, **kwargs)
            db.execute("PRAGMA max_page_count = 4")
            return db

        @runnable
        async def wordy(number: int) -> str:
            return "word " * 400

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", small)
            with pytest.raises(JournalError, match="the disk is full") as caught:
                await wordy.abatch(range(50), {"max_concurrency": 1}, journal=path)
        finished: dict[int, str] = caught.value.finished  # type: ignore[attr-defined]
        assert 1 <= len(rows(path)) < len(finished)


def test_a_failed_request_is_its_own_error(path: Path) -> None:
    """With a journal, too, the error is the call's, and has what was finished."""
    with EmbeddedProvider(script=["first", Answer(error=400)]) as provider:
        model = model_at(provider)
        with pytest.raises(InvalidRequestError) as caught:
            model.batch(["a", "b"], {"max_concurrency": 1}, journal=path)
    finished: dict[int, Any] = caught.value.finished  # type: ignore[attr-defined]
    assert [answer.text for answer in finished.values()] == ["first"]
    assert len(rows(path)) == 1


# ---- processes that are stopped ------------------------------------------------------------------

PROGRAM = """
import os, sys, anyio
from streamfold import runnable

asked = open(sys.argv[2], "a", buffering=1)
count, resumed = int(sys.argv[3]), sys.argv[4] == "resumed"

@runnable
async def work(number: int) -> dict:
    await anyio.sleep(0.002)
    print(number, file=asked)
    if number % 20 == 7 and not resumed:
        raise LookupError(number)
    return {"number": number, "square": number ** 2}

async def main():
    async for index, result in work.abatch_as_completed(
        range(count), return_exceptions=True, journal=sys.argv[1]
    ):
        print(index, flush=True)

if resumed or sys.argv[5] != "sync":
    anyio.run(main, backend="asyncio" if sys.argv[5] == "sync" else sys.argv[5])
else:
    for index, result in work.batch_as_completed(
        range(count), return_exceptions=True, journal=sys.argv[1]
    ):
        print(index, flush=True)
"""


def start(path: Path, asked: Path, count: int, *mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(asked), str(count), *mode],
        env={**os.environ, "PYTHONPATH": SRC},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked_in(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=pytest.mark.matrix)], ids=["some", "many"]
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_kill_9_in_the_middle(count: int, backend: str, path: Path, tmp_path: Path) -> None:
    """None is lost and none that is on disk is asked again; what was handed out is on disk."""
    asked = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with start(path, asked[0], count, "new", backend) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(count // 2)]
        process.send_signal(signal.SIGKILL)
        seen += [int(line) for line in process.stdout if line.endswith("\n")]
    failing = {number for number in range(count) if number % 20 == 7}

    with start(path, asked[1], count, "resumed", backend) as process:
        output, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
    assert sorted(map(int, output.split())) == list(range(count))

    again = asked_in(asked[1])
    assert len(again) == len(set(again))
    assert not set(seen) - failing & set(again)
    assert failing & set(asked_in(asked[0])) <= set(again)
    kept = rows(path)
    assert [place for place, _ in kept] == list(range(count))
    assert all(output == f'{{"number":{n},"square":{n * n}}}' for n, output in kept)


@pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
def test_ctrl_c(mode: str, path: Path, tmp_path: Path) -> None:
    """Calls are cancelled at once; the journal keeps the finished ones and is free again."""
    asked = [tmp_path / "first.txt", tmp_path / "second.txt"]
    with start(path, asked[0], 5000, "new", mode) as process:
        assert process.stdout is not None
        seen = {int(process.stdout.readline()) for _ in range(100)}
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        seen |= {int(line) for line in process.stdout if line.endswith("\n")}
        process.wait(20)
        assert time.monotonic() - begin < 10
        assert process.stderr is not None
        assert "KeyboardInterrupt" in process.stderr.read()
    assert len(seen) < 5000
    kept = {place for place, _ in rows(path)}
    assert {number for number in seen if number % 20 != 7} <= kept
    with start(path, asked[1], 300, "resumed", mode) as process:
        output, _ = process.communicate(timeout=60)
    assert len(output.split()) == 300
    assert not kept & set(asked_in(asked[1]))


@pytest.mark.parametrize("method", ["batch", "batch_as_completed"])
def test_the_interrupt_has_what_was_finished(method: str) -> None:
    """In the main thread: the KeyboardInterrupt has `finished`, as errors have."""
    started = threading.Event()

    @runnable
    async def slow(number: int) -> int:
        if number == 3:
            started.set()
            await anyio.sleep(60)
        return number

    def interrupt() -> None:
        started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        list(getattr(slow, method)(range(5), {"max_concurrency": 1}))
    thread.join()
    assert caught.value.finished == {0: 0, 1: 1, 2: 2}  # type: ignore[attr-defined]
