"""Many calls at once: order, limits, failures, results as they come, and leaving early."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

import streamfold
from streamfold import Timeouts, ToolMessage, init_chat_model, runnable, tool
from streamfold.config import merge_configs
from streamfold.errors import (
    ConfigurationError,
    InvalidRequestError,
    RateLimitError,
    RequestTimeoutError,
)
from streamfold.net import transport
from streamfold.testing import LoopbackServer, Reply, Request

SRC = str(Path(streamfold.__file__).parents[1])
MODES = pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
METHODS = pytest.mark.parametrize("method", ["batch", "as_completed"])


class Echo(LoopbackServer):
    """Answers a question with itself; some words have a meaning.

    "hang" is never answered, "fail" is a 400, "late" waits until `release` is called. `most` is
    how many requests it was busy with at once.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(self._respond)
        self._delay = delay
        self.most = 0

    def _respond(self, request: Request) -> Reply:
        self.most = max(self.most, self.open_connections)
        text = request.json()["messages"][-1]["content"]
        delay = float(text.split()[1]) if text.startswith("wait ") else self._delay
        if "fail" in text:
            failure = b'{"error": {"message": "as you wish"}}'
            return Reply(status=400, body=failure, head_delay=delay)
        if "limited" in text:
            return Reply(status=429, body=b'{"error": {"code": "insufficient_quota"}}')
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return Reply(
            headers={"content-type": "application/json"},
            body=[json.dumps({"choices": [choice]}).encode()],
            head_delay=delay,
            end="hang" if "hang" in text else "whole",
        )


@pytest.fixture
def server() -> Iterator[Echo]:
    with Echo() as running:
        yield running


def model_at(server: LoopbackServer, **fields: Any) -> Any:
    return init_chat_model("openai:gpt-4.1", base_url=server.url + "/v1", api_key="any", **fields)


def run(mode: str, model: Any, inputs: Any, config: Any = None, **kwargs: Any) -> list[str]:
    """The texts of `batch`, or the errors' class names."""

    async def main() -> list[Any]:
        with anyio.fail_after(60):
            return list(await model.abatch(inputs, config, **kwargs))

    if mode == "sync":
        with model:
            found = model.batch(inputs, config, **kwargs)
    else:
        found = anyio.run(main, backend=mode)
    return [shown(one) for one in found]


def pairs(
    mode: str, model: Any, inputs: Any, config: Any = None, **kwargs: Any
) -> list[tuple[int, str]]:
    """The same of `batch_as_completed`, with the indexes, in the order of arrival."""
    found = []

    async def main() -> None:
        with anyio.fail_after(60):
            async for index, one in model.abatch_as_completed(inputs, config, **kwargs):
                found.append((index, shown(one)))

    if mode == "sync":
        with model:
            for index, one in model.batch_as_completed(inputs, config, **kwargs):
                found.append((index, shown(one)))
    else:
        anyio.run(main, backend=mode)
    return found


def texts_of(method: str, *args: Any, **kwargs: Any) -> list[str]:
    """What either method gives, in the order of the inputs."""
    if method == "batch":
        return run(*args, **kwargs)
    return [text for _, text in sorted(pairs(*args, **kwargs))]


def shown(answer: Any) -> str:
    return type(answer).__name__ if isinstance(answer, Exception) else str(answer.text)


def tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        import trio

        return trio.lowlevel.current_statistics().tasks_living


async def settle(server: LoopbackServer, before: int) -> None:
    """All connections are closed and all tasks gone, within half a second."""
    await anyio.to_thread.run_sync(server.wait_for, lambda: server.open_connections == 0, 0.5)
    for _ in range(50):
        if tasks() <= before:
            break
        await anyio.lowlevel.checkpoint()
    assert tasks() <= before


# ---- results -------------------------------------------------------------------------------------


@MODES
@METHODS
def test_answers_in_the_order_of_the_inputs(server: Echo, mode: str, method: str) -> None:
    """Each input has its answer, whatever the order in which they come."""
    inputs = [f"wait {0.1 - number / 100} {number}" for number in range(10)]
    assert texts_of(method, mode, model_at(server), inputs) == inputs


@MODES
@METHODS
@pytest.mark.parametrize("inputs", [[], ()])
def test_nothing_to_do(server: Echo, mode: str, method: str, inputs: Any) -> None:
    """No input, no answer, no request."""
    assert texts_of(method, mode, model_at(server), inputs) == []
    assert server.connections == 0


@MODES
@METHODS
def test_one(server: Echo, mode: str, method: str) -> None:
    """One is a batch, too."""
    assert texts_of(method, mode, model_at(server), ["a"]) == ["a"]


@MODES
def test_as_completed_gives_the_fast_ones_first(server: Echo, mode: str) -> None:
    """Answers come as they are ready, with the index of their input."""
    inputs = ["wait 0.3 a", "wait 0 b", "wait 0.15 c"]
    assert [index for index, _ in pairs(mode, model_at(server), inputs)] == [1, 2, 0]


@MODES
@METHODS
def test_parameters_of_all_calls(server: Echo, mode: str, method: str) -> None:
    """Further parameters go to every call."""
    texts_of(method, mode, model_at(server), ["a", "b"], temperature=0.25)
    assert [request.json()["temperature"] for request in server.requests] == [0.25, 0.25]


@MODES
@METHODS
def test_every_shape_of_input(server: Echo, mode: str, method: str) -> None:
    """An input of a batch is whatever a call takes."""
    inputs = ["a", {"role": "user", "content": "b"}, [("user", "c")]]
    assert texts_of(method, mode, model_at(server), inputs) == ["a", "b", "c"]


# ---- the limit -----------------------------------------------------------------------------------


@MODES
@METHODS
@pytest.mark.parametrize("limit", [1, 3])
def test_max_concurrency(mode: str, method: str, limit: int) -> None:
    """No more calls than that are in flight at once, and no fewer."""
    with Echo(delay=0.02) as server:
        inputs = [str(number) for number in range(12)]
        config = {"max_concurrency": limit}
        assert texts_of(method, mode, model_at(server), inputs, config) == inputs
        assert server.most == server.connections == limit


@MODES
@METHODS
@pytest.mark.parametrize("how", ["with_config", "list"])
def test_max_concurrency_from_elsewhere(mode: str, method: str, how: str) -> None:
    """The limit may be the model's own, or that of the first of many configs."""
    with Echo(delay=0.02) as server:
        model, config = model_at(server), None
        if how == "with_config":
            model = model.with_config(max_concurrency=2)
        else:
            config = [{"max_concurrency": 2}] * 6
        texts_of(method, mode, model, ["a"] * 6, config)
        assert server.most == 2


@MODES
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_nested_batch_has_the_limit_of_the_run_around_it(mode: str, by_hand: bool) -> None:
    """Whether the function passes its config on or not; what the nested call says itself wins."""
    with Echo(delay=0.02) as server:
        model = model_at(server)

        @runnable
        async def app(own: dict[str, Any] | None, config: Any) -> None:
            await model.abatch(["a"] * 8, merge_configs(config if by_hand else None, own))

        app.invoke(None, {"max_concurrency": 2})
        assert server.most == 2
        app.with_config(max_concurrency=1).invoke({"max_concurrency": 4})
        assert server.most == 4


@pytest.mark.anyio
@pytest.mark.parametrize(("config", "most"), [(None, 64), ({"max_concurrency": None}, 80)])
async def test_the_usual_limit(server: Echo, config: Any, most: int) -> None:
    """Without a limit of the caller's, 64 calls are in flight; with None there is no limit."""
    async with anyio.create_task_group() as group:
        group.start_soon(model_at(server).abatch, ["hang"] * 80, config)
        await anyio.to_thread.run_sync(server.wait_for, lambda: len(server.requests) >= most)
        await anyio.wait_all_tasks_blocked()
        assert len(server.requests) == most
        group.cancel_scope.cancel()


# ---- failures ------------------------------------------------------------------------------------


@MODES
@METHODS
def test_a_failure_ends_the_batch(server: Echo, mode: str, method: str) -> None:
    """The first failure is raised at once: the others are cancelled, their connections closed, and
    what was ready is on the error."""
    inputs = ["a", "hang 1", "wait 0.2 fail", "hang 2", "b"]
    begin = time.monotonic()
    with pytest.raises(InvalidRequestError, match="as you wish") as caught:
        texts_of(method, mode, model_at(server), inputs)
    assert time.monotonic() - begin < 1.0
    server.wait_for(lambda: server.open_connections == 0, 0.5)
    finished: dict[int, Any] = caught.value.finished  # type: ignore[attr-defined]
    assert {index: answer.text for index, answer in finished.items()} == {0: "a", 4: "b"}
    assert server.abandoned == 2


@MODES
@METHODS
def test_a_failure_ends_what_has_not_begun(server: Echo, mode: str, method: str) -> None:
    """Calls that wait for their turn are not made any more."""
    config = {"max_concurrency": 1}
    with pytest.raises(InvalidRequestError) as caught:
        texts_of(method, mode, model_at(server), ["a", "fail", "b", "c"], config)
    assert len(server.requests) == 2
    assert list(caught.value.finished) == [0]  # type: ignore[attr-defined]


@MODES
@METHODS
def test_failures_in_the_place_of_answers(server: Echo, mode: str, method: str) -> None:
    """With `return_exceptions` every input has an answer or an error, and all are made."""
    inputs = ["a", "fail", "b", "limited"]
    found = texts_of(method, mode, model_at(server), inputs, return_exceptions=True)
    assert found == ["a", "InvalidRequestError", "b", "RateLimitError"]


@MODES
def test_errors_as_results_are_whole(server: Echo, mode: str) -> None:
    """An error that takes an answer's place is the error that a call would have raised."""
    model = model_at(server)

    async def main() -> list[Any]:
        return list(await model.abatch(["limited"], return_exceptions=True))

    if mode == "sync":
        with model:
            (error,) = model.batch(["limited"], return_exceptions=True)
    else:
        (error,) = anyio.run(main, backend=mode)
    assert isinstance(error, RateLimitError)
    assert (error.status, error.code, error.retryable) == (429, "insufficient_quota", False)


@MODES
def test_results_before_a_failure_are_handed_out(server: Echo, mode: str) -> None:
    """Whoever takes results as they come has those that came before the failure."""
    found: list[int] = []
    model = model_at(server)

    async def main() -> None:
        async for index, _ in model.abatch_as_completed(["a", "wait 0.2 fail", "b"]):
            found.append(index)

    def sync() -> None:
        with model:
            for index, _ in model.batch_as_completed(["a", "wait 0.2 fail", "b"]):
                found.append(index)

    with pytest.raises(InvalidRequestError):
        sync() if mode == "sync" else anyio.run(main, backend=mode)
    assert sorted(found) == [0, 2]


# ---- bad input -----------------------------------------------------------------------------------


@MODES
@METHODS
@pytest.mark.parametrize(
    ("inputs", "config", "says"),
    [
        (["a", "b"], [{}], "list of 1 for 2 inputs"),
        (["a"], [{}, {}], "list of 2 for 1 inputs"),
        ([], [{}], "list of 1 for 0 inputs"),
        (["a", "b"], [{}, {"tag": []}], "did you mean 'tags'"),
        (["a"], {"max_concurency": 3}, "did you mean 'max_concurrency'"),
        (["a"], {"max_concurrency": 0}, "max_concurrency is 0"),
        (["a"], {"max_concurrency": True}, "max_concurrency is True"),
        (["a"], {"callbacks": [3]}, "callback 3 has none of the methods"),
        (["a", "b"], [{}, {"callbacks": [Echo]}], "is a class"),
        (["a"], "fast", "config is str"),
        ("a", None, "expected a list"),
        ({"a": 1}, None, "expected a list"),
        (None, None, "expected a list"),
    ],
)
def test_what_cannot_be_a_batch(
    server: Echo, mode: str, method: str, inputs: Any, config: Any, says: str
) -> None:
    """It is an error before any request, for every way to call, and never a result."""
    with pytest.raises(ConfigurationError) as caught:
        texts_of(method, mode, model_at(server), inputs, config, return_exceptions=True)
    assert says in str(caught.value)
    assert server.connections == 0


# ---- leaving early -------------------------------------------------------------------------------


class TestLeaving:
    @pytest.mark.anyio
    @pytest.mark.parametrize("kept", [False, True])
    async def test_break(self, server: Echo, kept: bool) -> None:
        """Breaking out of the loop ends all calls at once, also where the batch is kept."""
        model, before, held = model_at(server), tasks(), []

        def batch() -> Any:
            made = model.abatch_as_completed(["a", "hang 1", "hang 2"])
            if kept:
                held.append(made)
            return made

        async for index, _ in batch():
            assert index == 0
            break
        await model.aclose()
        await settle(server, before)
        for made in held:
            assert [pair async for pair in made] == []
            await made.aclose()

    @pytest.mark.anyio
    async def test_async_with(self, server: Echo) -> None:
        """As a context manager it is over when the block is."""
        model, before = model_at(server), tasks()
        async with model.abatch_as_completed(["a", "hang 1"]) as batch:
            assert (await anext(batch))[0] == 0
        await model.aclose()
        await settle(server, before)

    @pytest.mark.anyio
    async def test_an_error_in_the_loop(self, server: Echo) -> None:
        """An exception of the consumer ends the calls, too."""
        model, before = model_at(server), tasks()

        async def consume() -> None:
            async for _ in model.abatch_as_completed(["a", "hang 1"]):
                raise LookupError("enough")

        with pytest.raises(LookupError, match="enough"):
            await consume()
        gc.collect()
        await model.aclose()
        await settle(server, before)

    @pytest.mark.anyio
    @METHODS
    async def test_cancel(self, server: Echo, method: str) -> None:
        """Cancelling the caller cancels the calls."""
        model, before = model_at(server), tasks()

        async def call() -> None:
            if method == "batch":
                await model.abatch(["hang"] * 5)
            else:
                async for _ in model.abatch_as_completed(["hang"] * 5):
                    pass

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await anyio.to_thread.run_sync(server.wait_for, lambda: len(server.requests) == 5)
            group.cancel_scope.cancel()
        await settle(server, before)
        assert server.abandoned == 5

    @pytest.mark.anyio
    async def test_never_begun(self, server: Echo) -> None:
        """A batch that nobody reads calls nothing."""
        batch = model_at(server).abatch_as_completed(["a"])
        await batch.aclose()
        del batch
        assert server.connections == 0

    @pytest.mark.parametrize("leave", ["break", "close", "error"])
    def test_sync(self, server: Echo, leave: str) -> None:
        """The sync loop is over when all calls are."""
        model = model_at(server)

        def read() -> None:
            batch = model.batch_as_completed(["a", "hang 1", "hang 2"])
            for _ in batch:
                if leave == "error":
                    raise LookupError
                break
            if leave == "close":
                batch.close()

        with contextlib.suppress(LookupError):
            read()
        model.close()
        server.wait_for(lambda: server.open_connections == 0, 0.5)
        assert server.abandoned == 2

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_the_loop_ends_first(self, server: Echo, backend: str) -> None:
        """A batch that is kept beyond the end of its loop has ended with it."""
        model, held = model_at(server), []

        async def main() -> None:
            batch = model.abatch_as_completed(["a", "hang 1"])
            held.append(batch)
            await anext(batch)

        anyio.run(main, backend=backend)
        server.wait_for(lambda: server.open_connections == 0, 0.5)
        held.clear()
        gc.collect()


# ---- surroundings --------------------------------------------------------------------------------


@MODES
@METHODS
def test_calls_see_the_context_of_the_caller(server: Echo, mode: str, method: str) -> None:
    """Context variables of the caller hold in every call, as they would in one of his own."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    def key() -> str:
        seen.append(user.get())
        return "any"

    model = init_chat_model("openai:gpt-4.1", base_url=server.url + "/v1", api_key=key)
    token = user.set("somebody")
    try:
        texts_of(method, mode, model, ["a", "b"])
    finally:
        user.reset(token)
    assert seen == ["somebody"] * 2


def test_needs_no_trio(server: Echo) -> None:
    """Without trio, and without what comes with it, batches work on asyncio."""
    code = f"""
import sys
sys.modules.update(trio=None, sniffio=None)
from streamfold import init_chat_model
model = init_chat_model("openai:gpt-4.1", base_url={server.url + "/v1"!r}, api_key="any")
print(len(model.batch(["a", "b"])), len(list(model.batch_as_completed(["a", "b"]))))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": SRC},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["2", "2"], "")


def test_batches_of_many_threads(server: Echo) -> None:
    """Sync batches of several threads run at once and do not mix."""
    found: dict[int, list[str]] = {}
    with model_at(server) as model:

        def one(number: int) -> None:
            inputs = [f"{number} {index}" for index in range(10)]
            found[number] = [answer.text for answer in model.batch(inputs)]

        threads = [threading.Thread(target=one, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert found == {n: [f"{n} {index}" for index in range(10)] for n in range(5)}


@pytest.mark.matrix
@MODES
@METHODS
def test_a_thousand(server: Echo, mode: str, method: str) -> None:
    """A large batch is only more of the same."""
    inputs = [str(number) for number in range(1000)]
    assert texts_of(method, mode, model_at(server), inputs) == inputs
    assert server.connections <= 64


# ---- inputs that come as they come ---------------------------------------------------------------


def counted(count: int, pulled: list[int]) -> Iterator[str]:
    for number in range(count):
        pulled.append(number)
        yield str(number)


async def counted_async(count: int, pulled: list[int]) -> AsyncIterator[str]:
    try:
        for item in counted(count, pulled):
            await anyio.lowlevel.checkpoint()
            yield item
    finally:
        pulled.append(-1)


SOURCES = pytest.mark.parametrize("source", [counted, counted_async])


@MODES
@METHODS
@SOURCES
def test_inputs_from_generators(server: Echo, mode: str, method: str, source: Any) -> None:
    """They are as good as a list; an async one is closed at the end."""
    pulled: list[int] = []
    found = texts_of(method, mode, model_at(server), source(100, pulled))
    assert found == [str(number) for number in range(100)]
    assert pulled == [*range(100), *([-1] if source is counted_async else [])]


@MODES
@METHODS
@pytest.mark.parametrize("inputs", [range(5), {0, 1, 2, 3, 4}, dict.fromkeys(range(5)).keys()])
def test_any_iterable(mode: str, method: str, inputs: Any) -> None:
    """What can be iterated over is a batch."""
    found = results(method, mode, runnable(lambda number: number), inputs)
    assert found == [0, 1, 2, 3, 4]


def results(method: str, mode: str, target: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """What either method gives, in the order of the inputs."""
    found: dict[int, Any] = {}

    async def main() -> None:
        with anyio.fail_after(60):
            if method == "batch":
                found.update(enumerate(await target.abatch(inputs, *args, **kwargs)))
            else:
                async for index, one in target.abatch_as_completed(inputs, *args, **kwargs):
                    found[index] = one

    if mode != "sync":
        anyio.run(main, backend=mode)
    elif method == "batch":
        found.update(enumerate(target.batch(inputs, *args, **kwargs)))
    else:
        found.update(target.batch_as_completed(inputs, *args, **kwargs))
    return [found[index] for index in range(len(found))]


@MODES
@METHODS
def test_tools_and_structured_models(server: Echo, mode: str, method: str, tmp_path: Path) -> None:
    """Whatever can be called can be called for many inputs, with a journal, too."""

    @tool
    def double(number: int) -> int:
        """Twice as much."""
        return number * 2

    call = {"name": "double", "args": {"number": 3}, "id": "c1", "type": "tool_call"}
    inputs = [{"number": 1}, 2, call]
    found = results(method, mode, double, inputs, journal=tmp_path / "tools")
    assert found == [2, 4, ToolMessage("6", tool_call_id="c1", name="double")]
    assert results(method, mode, double, inputs, journal=tmp_path / "tools") == found

    schema = {"title": "Any", "type": "object", "properties": {"a": {"type": "integer"}}}
    model = model_at(server).with_structured_output(schema, method="json_mode")
    assert results(method, mode, model, ['{"a": 1}', '{"a": 2}']) == [{"a": 1}, {"a": 2}]


@pytest.mark.anyio
@SOURCES
@pytest.mark.parametrize("limit", [1, 3])
async def test_no_input_before_its_turn(source: Any, limit: int) -> None:
    """As many inputs are out as calls may be in flight, also if the consumer takes its time."""
    pulled: list[int] = []
    same = runnable(echo)
    taken = 0
    async for _ in same.abatch_as_completed(source(8, pulled), {"max_concurrency": limit}):
        taken += 1
        await anyio.wait_all_tasks_blocked()
        assert len([number for number in pulled if number >= 0]) <= taken + limit
    assert taken == 8


async def echo(item: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return item


@pytest.mark.anyio
@SOURCES
async def test_a_break_leaves_the_rest_of_the_inputs(source: Any) -> None:
    """Nobody pulls what nobody asks for; an async generator is closed."""
    pulled: list[int] = []
    same = runnable(echo)
    async with same.abatch_as_completed(source(1000, pulled), {"max_concurrency": 2}) as batch:
        async for _ in batch:
            break
    assert len(pulled) <= 5
    assert (pulled[-1] == -1) == (source is counted_async)


@MODES
@METHODS
@pytest.mark.parametrize("how", ["plain", "async"])
def test_inputs_that_fail(mode: str, method: str, how: str) -> None:
    """An error of the inputs is raised as it is, after the calls were cancelled."""
    ended: list[str] = []

    @runnable
    async def hang(item: str) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(item)
        raise AssertionError

    def plain() -> Iterator[str]:
        yield "a"
        yield "b"
        raise LookupError("no more")

    async def slowly() -> AsyncIterator[str]:
        for item in plain():
            await anyio.sleep(0.01)
            yield item

    with pytest.raises(LookupError, match="no more"):
        results(method, mode, hang, slowly() if how == "async" else plain())
    expected = [] if (mode, method, how) == ("sync", "batch", "plain") else ["a", "b"]
    assert sorted(ended) == expected


def test_a_generator_runs_in_the_thread_it_belongs_to(server: Echo) -> None:
    """The rows of a database, say, may be read only where it was opened."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db, model_at(server) as model:
        db.execute("CREATE TABLE questions AS SELECT 'a' AS text UNION SELECT 'b'")
        rows = db.execute("SELECT text FROM questions ORDER BY text")
        assert [shown(one) for one in model.batch(text for (text,) in rows)] == ["a", "b"]


@MODES
@METHODS
def test_a_config_list_needs_a_number_of_inputs(mode: str, method: str) -> None:
    """For a generator, one config holds for all; a list cannot be matched with it."""
    with pytest.raises(ConfigurationError, match="whose number is not known"):
        results(method, mode, runnable(echo), counted_async(2, []), [{}, {}])
    given = {"tags": ["a"], "run_id": "12345678123456781234567812345678"}
    assert results(method, mode, runnable(echo), counted_async(2, []), given) == ["0", "1"]


async def wordy(number: int) -> str:
    """300 bytes, which nobody may keep."""
    return f"{number} " * 50


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


@pytest.mark.anyio
async def test_flat_memory() -> None:
    """The memory of a batch does not depend on how many inputs there are."""
    count, seen, early = 1_500, 0, 0
    tracemalloc.start()
    try:
        async for _index, _text in runnable(wordy).abatch_as_completed(numbers(count)):
            seen += 1
            if seen == count // 10:
                early, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == count
    assert peak < early + 50_000  # 33 bytes each


@pytest.mark.matrix
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_million(backend: str) -> None:
    """The same, as the operating system sees it."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def main() -> None:
        count, seen, early = 1_000_000, 0, 0
        async for _index, _text in runnable(wordy).abatch_as_completed(numbers(count)):
            seen += 1
            if seen == count // 10:
                early = resident()
        assert seen == count
        assert resident() < early + 20_000_000

    anyio.run(main, backend=backend)


@MODES
def test_results_on_the_error_of_a_stream_of_inputs(mode: str) -> None:
    """Where nobody knows how many there will be, it has those that were not handed out."""

    @runnable
    async def fail_at_30(item: str) -> str:
        await anyio.lowlevel.checkpoint()
        if item == "30":
            raise LookupError(item)
        return item

    handed: dict[int, str] = {}

    async def main() -> None:
        async for index, one in fail_at_30.abatch_as_completed(counted_async(100, [])):
            handed[index] = one

    def sync() -> None:
        handed.update(fail_at_30.batch_as_completed(counted_async(100, [])))

    with pytest.raises(LookupError) as caught:
        sync() if mode == "sync" else anyio.run(main, backend=mode)
    left: dict[int, str] = caught.value.finished  # type: ignore[attr-defined]
    assert not handed.keys() & left.keys()
    assert {**handed, **left}.keys() >= set(range(30))
    assert 30 not in {**handed, **left}


# ---- the limit of a model ------------------------------------------------------------------------


@MODES
def test_max_in_flight_holds_over_nested_batches(mode: str) -> None:
    """Batches in batches, copies and structured models share the places of one model."""
    with Echo(delay=0.02) as server:
        model = model_at(server, max_in_flight=3)
        copies = [model, model.bind(temperature=0.5), model.with_config(tags=["a"])]

        @runnable
        async def inner(number: int) -> list[str]:
            copy = copies[number % 3]
            return [shown(one) for one in await copy.abatch([f"{number} {n}" for n in range(5)])]

        found = results("batch", mode, inner, range(6))
        assert found == [[f"{number} {n}" for n in range(5)] for number in range(6)]
        assert server.most == 3


def test_max_in_flight_holds_over_threads_and_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model, three kinds of loops at once, and no more than its places are ever taken."""
    tries, lock = transport._tries, threading.Lock()
    busy: list[int] = [0, 0]

    async def counting(call: Any, clock: Any = None) -> AsyncIterator[Any]:
        with lock:
            busy[0] += 1
            busy[1] = max(busy)
        try:
            async with contextlib.aclosing(tries(call, clock)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            with lock:
                busy[0] -= 1

    monkeypatch.setattr(transport, "_tries", counting)
    with Echo(delay=0.01) as server:
        model = model_at(server, max_in_flight=2)

        async def main() -> None:
            await model.abatch(["a"] * 6)
            await model.aclose()

        modes = [(anyio.run, (main,), {"backend": name}) for name in ("asyncio", "trio")]
        calls: list[Any] = [*modes, *modes, (model.batch, (["a"] * 6,), {})]
        threads = [threading.Thread(target=f, args=a, kwargs=k) for f, a, k in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        model.close()
        assert len(server.requests) == 30
    assert busy == [0, 2]


@pytest.mark.anyio
async def test_a_stream_counts_until_it_is_closed(server: Echo) -> None:
    """Its place is free again when it is left, and not before."""
    model = model_at(server, max_in_flight=1)
    async with model.astream("hang") as stream, anyio.create_task_group() as group:
        group.start_soon(anext, stream)
        await anyio.to_thread.run_sync(server.wait_for, lambda: len(server.requests) == 1)
        with anyio.move_on_after(0.05) as scope:
            await model.ainvoke("a")
        assert scope.cancelled_caught
        assert len(server.requests) == 1
        group.cancel_scope.cancel()
    with anyio.fail_after(5):
        assert (await model.ainvoke("b")).text == "b"
    await model.aclose()


@pytest.mark.anyio
async def test_the_wait_for_a_place_is_part_of_the_call(server: Echo) -> None:
    """The total limit of a call holds while it waits for the others."""
    patient = model_at(server, max_in_flight=1)
    hasty = patient.bind(timeout=Timeouts(total=0.05))
    async with anyio.create_task_group() as group:
        group.start_soon(patient.ainvoke, "hang")
        await anyio.to_thread.run_sync(server.wait_for, lambda: len(server.requests) == 1)
        with pytest.raises(RequestTimeoutError) as caught:
            await hasty.ainvoke("a")
        assert caught.value.limit == "total"
        group.cancel_scope.cancel()
    await patient.aclose()
    assert len(server.requests) == 1


@pytest.mark.anyio
async def test_a_loop_that_is_blocked_is_not_waited_for(server: Echo) -> None:
    """A sync method among async ones: the places that its loop has, or is to get, are not given
    back before it is done."""
    model = model_at(server, max_in_flight=1, timeout=Timeouts(total=5))
    async with anyio.create_task_group() as group, model.astream("a") as stream:
        await anext(stream)
        assert model.invoke("b").text == "b"
        group.start_soon(model.ainvoke, "c")
        await anyio.wait_all_tasks_blocked()
        assert len(server.requests) == 2
        await stream.aclose()  # the place goes to a task that has not heard of it yet
        assert [shown(one) for one in model.batch(["d", "e"])] == ["d", "e"]
    await model.aclose()
    model.close()


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "many"])
def test_no_number_of_places(server: Echo, limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_in_flight is"):
        model_at(server, max_in_flight=limit)
    with pytest.raises(ConfigurationError, match="belongs to the model"):
        model_at(server).bind(max_in_flight=2)


def test_another_limit_is_another_queue(server: Echo) -> None:
    """A copy with a limit of its own does not share places; one with the same does."""
    model = model_at(server, max_in_flight=2)
    assert model.model_copy(update={"temperature": 1})._in_flight is model._in_flight
    assert model.model_copy(update={"max_in_flight": 3})._in_flight.size == 3


# ---- many, and some of them cancelled ------------------------------------------------------------


@pytest.mark.anyio
async def test_nothing_is_left_of_many() -> None:
    """500 batches at once, left, cancelled and failing at random, leave no task and no place."""
    rng = random.Random(7)
    before, running = tasks(), 0

    @runnable
    async def work(item: tuple[float, float]) -> float:
        nonlocal running
        pause, fate = item
        running += 1
        try:
            await anyio.sleep(pause)
            if fate < 0.1:
                raise LookupError(fate)
            return fate
        finally:
            running -= 1

    @runnable
    async def nested(given: tuple[Any, bool]) -> Any:
        inputs, keep = given
        return await work.abatch(inputs, return_exceptions=keep)

    def items() -> list[tuple[float, float]]:
        return [(rng.random() / 50, rng.random()) for _ in range(rng.randrange(1, 6))]

    async def one(way: int) -> None:
        inputs, keep = items(), rng.random() < 0.5
        with anyio.move_on_after(rng.random() / 20), contextlib.suppress(LookupError):
            if way == 0:
                await work.abatch(inputs, return_exceptions=keep)
            elif way == 1:
                async for _ in work.abatch_as_completed(inputs, return_exceptions=keep):
                    if rng.random() < 0.3:
                        break
            else:
                await nested.abatch([(inputs, keep)] * 2)

    async with anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(one, number % 3)
    gc.collect()
    for _ in range(100):
        if running == 0 and tasks() <= before:
            break
        await anyio.sleep(0.01)
    assert (running, max(tasks(), before)) == (0, before)
