"""Following a batch: what is counted, who is shown it, and that nothing of it is left."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamfold import BatchSummary, init_chat_model, runnable, usage_cost
from streamfold.errors import ConfigurationError, InvalidRequestError
from streamfold.testing import Answer, EmbeddedProvider, Usage

MODES = pytest.mark.parametrize("mode", ["asyncio", "trio", "sync"])
METHODS = pytest.mark.parametrize("method", ["batch", "as_completed"])


@pytest.fixture
def provider() -> Iterator[EmbeddedProvider]:
    with EmbeddedProvider() as running:
        yield running


def model_at(provider: EmbeddedProvider, name: str = "openai:gpt-4.1", **fields: Any) -> Any:
    return init_chat_model(name, base_url=provider.url + "/v1", api_key="any", **fields)


def results_of(mode: str, method: str, target: Any, inputs: Any, **kwargs: Any) -> list[Any]:
    found: dict[int, Any] = {}

    async def main() -> None:
        with anyio.fail_after(60):
            if method == "batch":
                found.update(enumerate(await target.abatch(inputs, **kwargs)))
            else:
                async for index, result in target.abatch_as_completed(inputs, **kwargs):
                    found[index] = result

    if mode != "sync":
        anyio.run(main, backend=mode)
    elif method == "batch":
        found.update(enumerate(target.batch(inputs, **kwargs)))
    else:
        found.update(target.batch_as_completed(inputs, **kwargs))
    return [found[index] for index in range(len(found))]


@runnable
async def same(item: Any) -> Any:
    if item == "bad":
        raise LookupError(item)
    return item


# ---- what is counted -----------------------------------------------------------------------------


@MODES
@METHODS
def test_a_summary_at_the_beginning_after_each_and_at_the_end(mode: str, method: str) -> None:
    """Each is one more; only the last is over."""
    seen: list[BatchSummary] = []
    results_of(mode, method, same, ["a", "b", "c"], progress=seen.append)
    assert [(one.done, one.total, one.over) for one in seen] == [
        (0, 3, False),
        (1, 3, False),
        (2, 3, False),
        (3, 3, False),
        (3, 3, True),
    ]
    assert all(one.seconds <= two.seconds for one, two in pairwise(seen))


@MODES
@METHODS
def test_nothing_to_do(mode: str, method: str) -> None:
    seen: list[BatchSummary] = []
    results_of(mode, method, same, [], progress=seen.append)
    assert [(one.done, one.total, one.over) for one in seen] == [(0, 0, True)]


@MODES
@METHODS
def test_failures(mode: str, method: str) -> None:
    """Counted as results, and when they end the batch."""
    seen: list[BatchSummary] = []
    inputs = ["a", "bad", "b", "bad"]
    results_of(mode, method, same, inputs, return_exceptions=True, progress=seen.append)
    assert (seen[-1].done, seen[-1].failed, seen[-1].over) == (2, 2, True)
    seen.clear()
    config = {"max_concurrency": 1}
    with pytest.raises(LookupError):
        results_of(mode, method, same, inputs, config=config, progress=seen.append)
    assert (seen[-1].done, seen[-1].failed, seen[-1].over) == (1, 1, True)


@MODES
@METHODS
def test_tokens_and_cost(mode: str, method: str, provider: EmbeddedProvider) -> None:
    """The sums of what the answers say, at the prices of their models."""
    seen: list[BatchSummary] = []
    answers = results_of(mode, method, model_at(provider), ["a", "b c"], progress=seen.append)
    usages = [answer.usage_metadata for answer in answers]
    last = seen[-1]
    assert last.input_tokens == sum(usage["input_tokens"] for usage in usages)
    assert last.output_tokens == sum(usage["output_tokens"] for usage in usages)
    assert last.tokens == sum(usage["total_tokens"] for usage in usages)
    costs = [usage_cost(answer, provider="openai", model="gpt-4.1") for answer in answers]
    assert None not in costs
    assert last.cost == pytest.approx(sum(cost for cost in costs if cost is not None))


@pytest.mark.anyio
async def test_what_is_not_known_costs_none(provider: EmbeddedProvider) -> None:
    """Never 0: before the first answer, without a price, and with one answer that has none."""
    seen: list[BatchSummary] = []
    known = model_at(provider)
    unknown = model_at(provider, "openai:my-own-model")
    await unknown.abatch(["a"], progress=seen.append)
    assert seen[-1].tokens > 0

    @runnable
    async def either(number: int) -> Any:
        return await (known if number else unknown).ainvoke("a")

    await either.abatch([1, 0], {"max_concurrency": 1}, progress=seen.append)
    costs = [one.cost for one in seen]
    assert costs[:3] == [None] * 3
    assert costs[3] is None
    assert costs[4] is not None
    assert costs[5:] == [None, None]


@MODES
def test_nested_calls_and_retries(mode: str) -> None:
    """What the functions of a batch ask counts, and so does what was asked again."""
    script = [Answer(error=500), "a", Answer(error=429), "b"]
    with EmbeddedProvider(script=script) as provider:
        model = model_at(provider)

        @runnable
        async def ask(item: str) -> str:
            return str((await model.ainvoke(item)).text)

        seen: list[BatchSummary] = []
        config = {"max_concurrency": 1}
        results_of(mode, "batch", ask, ["x", "y"], config=config, progress=seen.append)
    assert (seen[-1].done, seen[-1].retries) == (2, 2)
    assert seen[-1].tokens > 0


def test_what_failed_at_once_counts_nothing() -> None:
    with EmbeddedProvider(script=[Answer(error=400), "fine"]) as provider:
        seen: list[BatchSummary] = []
        with pytest.raises(InvalidRequestError):
            model_at(provider).batch(["a"], progress=seen.append)
    assert (seen[-1].failed, seen[-1].tokens, seen[-1].cost) == (1, 0, None)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["broken", "left"])
async def test_what_failed_in_the_middle_counts(how: str) -> None:
    """A stream that broke, or was left, after some tokens is billed for what the provider has said
    until then: Anthropic names the prompt's tokens at the start."""
    error = "overloaded" if how == "broken" else None
    script = [Answer("one two three", usage=Usage(30, 3), error=error)]
    seen: list[BatchSummary] = []

    @runnable
    async def ask(item: str) -> None:
        async with model.astream(item) as stream:
            async for chunk in stream:
                if chunk.text and how == "left":
                    return

    async with EmbeddedProvider(script=script) as provider:
        model = init_chat_model("claude-sonnet-4-5", base_url=provider.url, api_key="any")
        await ask.abatch(["a"], return_exceptions=True, progress=seen.append)
    assert (seen[-1].done, seen[-1].failed) == ((1, 0) if how == "left" else (0, 1))
    assert seen[-1].input_tokens == 30
    assert seen[-1].cost is not None


def test_what_came_from_a_journal(tmp_path: Path, provider: EmbeddedProvider) -> None:
    """It is done, and cost nothing this time."""
    model, seen = model_at(provider), list[BatchSummary]()
    model.batch(["a", "b"], journal=tmp_path / "j")
    model.batch(["a", "b", "c"], journal=tmp_path / "j", progress=seen.append)
    assert (seen[-1].done, seen[-1].resumed) == (3, 2)
    assert seen[-1].tokens == model.invoke("c").usage_metadata["total_tokens"]


def test_handlers_of_the_caller_hear_as_before(provider: EmbeddedProvider) -> None:
    """Theirs are not replaced; and without progress nobody listens."""
    from streamfold import UsageMetadataCallbackHandler

    handler = UsageMetadataCallbackHandler()
    config = {"callbacks": [handler]}
    model_at(provider).batch(["a"], config, progress=lambda summary: None)
    assert len(handler.usage_metadata) == 1
    assert config == {"callbacks": [handler]}


# ---- the summary itself --------------------------------------------------------------------------

summaries = st.builds(
    BatchSummary,
    done=st.integers(0, 10**6),
    failed=st.integers(0, 10**6),
    total=st.none() | st.integers(2 * 10**6, 10**7),
    input_tokens=st.integers(0, 10**9),
    output_tokens=st.integers(0, 10**9),
    cost=st.none() | st.floats(0, 1e6),
    retries=st.integers(0, 1000),
    seconds=st.floats(0, 1e6),
)


@given(summaries)
def test_every_summary_can_be_shown(summary: BatchSummary) -> None:
    """In one line, with all that there is to say and nothing that there is not."""
    text = str(summary)
    assert "\n" not in text
    assert ("failed" in text) == bool(summary.failed)
    assert ("$" in text) == (summary.cost is not None)
    assert summary.tokens == summary.input_tokens + summary.output_tokens
    left = summary.time_left
    assert (left is None) == (summary.total is None or summary.rate == 0)
    assert left is None or left >= 0


def test_the_line() -> None:
    summary = BatchSummary(
        done=1900,
        failed=100,
        total=4000,
        resumed=1000,
        input_tokens=1000,
        output_tokens=234,
        cost=0.5,
        retries=3,
        seconds=10.0,
    )
    assert str(summary) == (
        "1,900 of 4,000 done, 100 failed, 1,000 from the journal, 1,234 tokens, $0.5000, "
        "3 retries, 10.0 s"
    )
    assert (summary.rate, summary.time_left) == (100.0, 20.0)
    assert str(BatchSummary()) == "0 done, 0.0 s"


# ---- functions that are shown it -----------------------------------------------------------------


@MODES
@METHODS
def test_an_async_function(mode: str, method: str) -> None:
    """It is awaited."""
    seen: list[int] = []

    async def show(summary: BatchSummary) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(summary.done)

    results_of(mode, method, same, ["a", "b"], progress=show)
    assert seen == [0, 1, 2, 2]


@MODES
@METHODS
def test_a_function_that_fails(mode: str, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """Is logged, and the batch goes on."""

    def show(summary: BatchSummary) -> None:
        raise ZeroDivisionError("my mistake")

    with caplog.at_level(logging.WARNING, "streamfold"):
        assert results_of(mode, method, same, ["a"], progress=show) == ["a"]
    assert "my mistake" in caplog.text


@pytest.mark.parametrize("progress", ["yes", 1, 0, [], {}, object()])
def test_what_is_no_progress(progress: Any) -> None:
    called = []
    with pytest.raises(ConfigurationError, match="expected True, False or a function"):
        runnable(called.append).batch(["a"], progress=progress)
    assert called == []


# ---- the bar -------------------------------------------------------------------------------------


@MODES
@METHODS
def test_the_bar(mode: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr: how many of how many, what failed, and what it cost. No thread is left."""
    before = threading.active_count()
    with EmbeddedProvider() as provider:
        model = model_at(provider)
        model.invoke("the portal starts its thread")
        running = threading.active_count()
        results_of(mode, method, model, ["a", "b", "c"], progress=True)
        assert threading.active_count() <= running + 1  # SQLite and sync functions: anyio's worker
    out, err = capsys.readouterr()
    last = err.rstrip("\n").split("\r")[-1]
    assert "100%" in last
    assert "3/3" in last
    assert "tokens, $" in last
    assert out == ""
    assert threading.active_count() <= before + 2


def test_the_bar_of_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a total it counts; failures are named."""

    async def inputs() -> AsyncIterator[str]:
        for item in ["a", "bad", "b"]:
            yield item

    same.batch(inputs(), return_exceptions=True, progress=True)
    last = capsys.readouterr().err.rstrip("\n").split("\r")[-1]
    assert last.startswith("3it [")
    assert last.endswith("1 failed]")


def test_the_bar_goes_on_where_the_journal_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same.batch(range(90), journal=tmp_path / "j")
    same.batch(range(100), journal=tmp_path / "j", progress=True)
    last = capsys.readouterr().err.rstrip("\n").split("\r")[-1]
    assert "100/100" in last
    assert "90 from the journal" in last


def test_tqdm_is_told_by_its_own_variables(tmp_path: Path) -> None:
    """As everywhere else where a bar of tqdm may appear."""
    code = (
        "from streamfold import runnable\n"
        "for _ in range(2):\n"
        "    print(runnable(lambda x: str(x)).batch([1, 2], progress=True, journal='j'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"TQDM_DISABLE": "1", "PYTHONPATH": ":".join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("['1', '2']\n" * 2, "")


@MODES
@METHODS
def test_without_tqdm(mode: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that helps, before anything is asked."""
    called: list[Any] = []
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ConfigurationError, match=r'pip install "streamfold\[progress\]"'):
        results_of(mode, method, runnable(called.append), ["a"], progress=True)
    assert called == []


def test_print_is_a_progress() -> None:
    """Any function of one thing will do."""
    lines = io.StringIO()
    same.batch(["a"], progress=lambda summary: print(summary, file=lines))
    assert lines.getvalue().splitlines()[-1].startswith("1 of 1 done, ")
