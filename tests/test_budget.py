"""Budgets: what calls may use together, checked before they are sent and while they answer."""

from __future__ import annotations

import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamfold import Budget, init_chat_model, runnable, usage_cost
from streamfold.budget import Charge, budgets_here
from streamfold.errors import (
    BudgetExceededError,
    ConfigurationError,
    ServerError,
    StreamfoldError,
)
from streamfold.testing import Answer, EmbeddedProvider

LONG = "one two three four five six seven eight nine ten " * 40
TOKENS = math.ceil(len(LONG) / 4)


def model(provider: EmbeddedProvider, name: str = "gpt-4.1", **params: Any) -> Any:
    params = {"base_url": f"{provider.url}/v1", "api_key": "k", "max_retries": 0, **params}
    return init_chat_model(name, model_provider="openai", **params)


# ---- arithmetic ----------------------------------------------------------------------------------


@example([(0, [], cents) for cents in (76, 80, 80, 62, 62, 77, 13)] + [(50, [], 0)])  # rounding
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.lists(st.integers(0, 80), max_size=3), st.integers(0, 80)),
        max_size=30,
    )
)
def test_what_is_used_is_the_sum_of_what_each_used(
    requests: list[tuple[int, list[int], int]],
) -> None:
    """Whatever was estimated on the way; and no request begins beyond the limit."""
    budget = Budget(max_tokens=500, max_cost=5)
    used = 0
    for estimate, steps, final in requests:
        if used + estimate > 500:
            with pytest.raises(BudgetExceededError) as caught:
                Charge(budget, estimate, estimate / 100)
            error = caught.value
            assert (error.limit, error.maximum, error.tokens) == ("max_tokens", 500, used)
            continue
        charge = Charge(budget, estimate, estimate / 100)
        for step in steps:
            charge.set(step, step / 100)
            assert budget.tokens == used + step
        charge.close(final, final / 100)
        used += final
        assert budget.tokens == used
        assert budget.cost == pytest.approx(used / 100)
        assert budget.remaining.tokens == max(500 - used, 0)
        assert budget.remaining.cost == pytest.approx(max(5 - used / 100, 0))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": "10"},
        {"max_cost": 0},
        {"max_cost": -0.1},
        {"max_cost": float("nan")},
        {"max_cost": float("inf")},
    ],
)
def test_budgets_that_cannot_be_are_refused(params: Any) -> None:
    """Said when it is made."""
    with pytest.raises(ConfigurationError, match=next(iter(params), "max_tokens")):
        Budget(**params)


def test_a_budget_must_be_one() -> None:
    """A number is no budget: nobody could read what is used of it."""
    with EmbeddedProvider() as provider, pytest.raises(ConfigurationError, match="Budget"):
        model(provider, budget=1000)


# ---- before sending ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_does_not_fit_is_not_sent() -> None:
    """By an estimate of the input; where the answer cannot be stopped, with `max_tokens`."""
    budget = Budget(max_tokens=100)
    async with EmbeddedProvider(script=["fine"]) as provider:
        one = model(provider, budget=budget)
        with pytest.raises(BudgetExceededError, match="100 tokens") as caught:
            await one.ainvoke("word " * 200)
        assert caught.value.limit == "max_tokens"
        assert caught.value.partial is None
        with pytest.raises(BudgetExceededError):
            await one.ainvoke("hi", max_tokens=500, streaming=False)
        assert provider.requests == []
        assert budget.tokens == 0
        await one.ainvoke("hi", max_tokens=500)
        assert [request.json()["stream"] for request in provider.requests] == [True]


@pytest.mark.anyio
async def test_an_unknown_price_is_an_error_before_the_request() -> None:
    """Only where money is limited; prices of one's own are prices."""
    async with EmbeddedProvider(script=["fine"] * 3) as provider:
        one = model(provider, "gpt-nobody-knows")
        with pytest.raises(ConfigurationError, match="gpt-nobody-knows"):
            await one.ainvoke("hi", budget=Budget(max_cost=1))
        assert provider.requests == []
        tokens = Budget(max_tokens=1000)
        await one.ainvoke("hi", budget=tokens)
        assert tokens.tokens > 0
        assert tokens.cost is None
        prices = {"input_price": 1_000_000.0, "output_price": 0.0}
        money = Budget(max_cost=100)
        answer = await one.model_copy(update={"profile": prices}).ainvoke("hi", budget=money)
        assert money.cost == answer.usage_metadata["input_tokens"]


# ---- what was used -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_reported_usage_is_what_counts() -> None:
    """The tokens of every answer, and their price; whole or streamed."""
    budget = Budget(max_tokens=100_000, max_cost=1)
    async with EmbeddedProvider() as provider:
        one = model(provider, budget=budget)
        first = await one.ainvoke("hi")
        assert budget.tokens == first.usage_metadata["total_tokens"]
        assert budget.cost == pytest.approx(usage_cost(first))
        second = await one.ainvoke("hi", streaming=False)
        async for _ in one.astream("hi"):
            pass
    assert first.usage_metadata == second.usage_metadata
    assert budget.tokens == 3 * first.usage_metadata["total_tokens"]
    assert budget.cost == pytest.approx(3 * usage_cost(first))
    assert budget.remaining.tokens == 100_000 - budget.tokens


@pytest.mark.anyio
async def test_failed_attempts_count_as_far_as_they_came() -> None:
    """What was refused costs nothing; what broke off or was left, what had come."""
    script = [Answer(error=500), Answer(LONG, error="server"), LONG]
    budget = Budget(max_tokens=100_000, max_cost=1)
    async with EmbeddedProvider(script=script, chunk_delay=0.001) as provider:
        one = model(provider, budget=budget)
        with pytest.raises(ServerError):
            await one.ainvoke("hi")
        assert (budget.tokens, budget.cost) == (0, 0)
        with pytest.raises(ServerError):
            await one.ainvoke("hi")
        assert budget.tokens == pytest.approx(TOKENS, abs=20)
        before = budget.tokens
        async with one.astream("hi") as stream:
            async for _ in stream:
                if budget.tokens > before + 100:
                    break
        assert before + 100 < budget.tokens < before + 250
        assert budget.cost > 0


# ---- while the answer comes ----------------------------------------------------------------------

WAYS: dict[str, Callable[[Any], Any]] = {
    "ainvoke": lambda m: m.ainvoke("hi"),
    "astream": lambda m: drained(m.astream("hi")),
    "abatch": lambda m: m.abatch(["hi"]),
    "astream_events": lambda m: drained(m.astream_events("hi")),
    "astream_message": lambda m: message_of(m),
    "structured": lambda m: m.with_structured_output({"title": "a", "type": "object"}).ainvoke("h"),
    "retry": lambda m: m.with_retry().ainvoke("hi"),
    "retry stream": lambda m: drained(m.with_retry(restart_streams=True).astream("hi")),
    "fallbacks": lambda m: m.with_fallbacks([m]).ainvoke("hi"),
    "fallbacks stream": lambda m: drained(
        m.with_fallbacks([m], restart_streams=True).astream("hi")
    ),
}


async def drained(source: Any) -> None:
    async for _ in source:
        pass


async def message_of(one: Any) -> Any:
    async with one.astream_message("hi") as stream:
        return await stream.message()


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_is_stopped_when_the_budget_is_passed(way: str) -> None:
    """In the middle, with what had come; and nothing else is tried."""
    budget = Budget(max_tokens=120)
    async with EmbeddedProvider(script=[LONG] * 3, chunk_delay=0.001) as provider:
        with pytest.raises(BudgetExceededError) as caught:
            await WAYS[way](model(provider, budget=budget))
        await anyio.to_thread.run_sync(provider.wait_closed)
        assert len(provider.requests) == 1
    partial = caught.value.partial
    assert partial is not None
    assert LONG.startswith(partial.text)
    assert 300 < len(partial.text) < len(LONG) / 2
    assert 120 < budget.tokens < 250
    assert caught.value.tokens == budget.tokens
    assert pickle.loads(pickle.dumps(caught.value)).limit == "max_tokens"


@pytest.mark.anyio
async def test_money_is_watched_while_the_answer_comes() -> None:
    """By the prices of the profile."""
    prices = {"input_price": 0.0, "output_price": 1_000_000.0}
    budget = Budget(max_cost=50)
    async with EmbeddedProvider(script=[LONG], chunk_delay=0.001) as provider:
        with pytest.raises(BudgetExceededError, match=r"\$50") as caught:
            await model(provider, budget=budget, profile=prices).ainvoke("hi")
    assert caught.value.limit == "max_cost"
    assert 50 < budget.cost < 150


@pytest.mark.anyio
async def test_what_is_known_only_at_the_end_is_an_error_too() -> None:
    """With the whole answer: it is paid for."""
    budget = Budget(max_tokens=50)
    async with EmbeddedProvider(script=[LONG]) as provider:
        with pytest.raises(BudgetExceededError) as caught:
            await model(provider, budget=budget).ainvoke("hi", streaming=False)
    assert caught.value.partial.text == LONG
    assert caught.value.partial.usage_metadata["total_tokens"] == budget.tokens


@pytest.mark.anyio
async def test_an_estimate_does_not_overrule_what_was_reported() -> None:
    """Long words are few tokens: once the figures are there, they count."""
    text = "Donaudampfschiffahrtsgesellschaft" * 40
    async with EmbeddedProvider(script=[text] * 2) as provider:
        used = (await model(provider).ainvoke("hi")).usage_metadata["total_tokens"]
        assert used < len(text) / 4
        budget = Budget(max_tokens=used)
        await model(provider, budget=budget).ainvoke("hi", streaming=False)
        assert budget.tokens == used


# ---- one budget for many -------------------------------------------------------------------------


@pytest.mark.anyio
async def test_retries_and_fallbacks_share_it() -> None:
    """Of several models: the second is not asked with what the first has left of nothing."""
    budget = Budget(max_tokens=TOKENS + 60)
    script = [Answer(LONG, error="server"), Answer(LONG, error="server"), LONG]
    async with EmbeddedProvider(script=script) as provider:
        first, second = (model(provider, name, budget=budget) for name in ("gpt-4.1", "gpt-4o"))
        chain = first.with_retry(wait_exponential_jitter=False).with_fallbacks([second])
        with pytest.raises(BudgetExceededError):
            await chain.ainvoke("hi")
        assert len(provider.requests) == 2


@pytest.mark.anyio
async def test_a_fallback_may_be_for_an_exceeded_budget() -> None:
    """If the error is named: on to a model that has a budget of its own, or none."""
    async with EmbeddedProvider(script=["cheap"]) as provider:
        spent = model(provider, budget=Budget(max_tokens=1))
        other = model(provider, "gpt-4o-mini")
        with pytest.raises(BudgetExceededError):
            await spent.with_fallbacks([other]).ainvoke("hi")
        chain = spent.with_fallbacks([other], exceptions_to_handle=BudgetExceededError)
        assert (await chain.ainvoke("hi")).text == "cheap"


@pytest.mark.anyio
async def test_calls_at_once_know_of_each_other() -> None:
    """All are stopped once they have passed it together."""
    budget = Budget(max_tokens=300)
    async with EmbeddedProvider(script=[LONG] * 8, chunk_delay=0.002) as provider:
        one = model(provider, budget=budget)
        answers = await one.abatch(["hi"] * 8, return_exceptions=True)
    assert all(isinstance(answer, BudgetExceededError) for answer in answers)
    assert 300 < budget.tokens < 1000


def test_threads_share_it() -> None:
    """What is used is the sum of what all of them used."""
    budget = Budget(max_tokens=1_000_000, max_cost=100)
    used = []
    with EmbeddedProvider() as provider:
        one = model(provider, budget=budget)

        def work() -> None:
            used.extend(one.invoke("hi").usage_metadata["total_tokens"] for _ in range(5))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(used) == 20
    assert budget.tokens == sum(used)


# ---- how it is given -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_budget_for_a_model_a_call_or_a_block() -> None:
    """A call has all that apply to it, each once."""
    mine, calls, block = (Budget(max_tokens=100_000) for _ in range(3))
    async with EmbeddedProvider() as provider:
        one = model(provider, budget=mine)

        @runnable
        async def twice(text: str) -> str:
            await one.ainvoke(text)
            return (await one.ainvoke(text)).text

        tokens = (await one.ainvoke("hi")).usage_metadata["total_tokens"]
        await one.ainvoke("hi", budget=calls)
        assert (mine.tokens, calls.tokens) == (tokens, tokens), "the call's own wins"
        await one.bind(budget=calls).ainvoke("hi")
        assert calls.tokens == 2 * tokens
        with block, mine:
            await twice.ainvoke("hi")
        assert (mine.tokens, block.tokens) == (3 * tokens, 2 * tokens)
        await one.ainvoke("hi")
        assert block.tokens == 2 * tokens
    assert budgets_here(None) == ()


def test_a_block_around_sync_calls() -> None:
    """The sync methods know of it, in a runnable's thread as well."""
    budget = Budget(max_tokens=100_000)
    with EmbeddedProvider() as provider:
        one = model(provider)

        @runnable
        def ask(text: str) -> str:
            return str(one.invoke(text).text)

        tokens = one.invoke("hi").usage_metadata["total_tokens"]
        with budget:
            one.invoke("hi")
            list(one.stream("hi"))
            one.batch(["hi", "hi"])
            ask.invoke("hi")
    assert budget.tokens == 5 * tokens


@pytest.mark.anyio
async def test_a_block_left_by_an_error_is_left() -> None:
    """Nothing of it stays behind."""
    with pytest.raises(StreamfoldError), Budget(max_tokens=1), Budget(max_tokens=2):
        async with EmbeddedProvider() as provider:
            await model(provider).ainvoke("hi")
    assert budgets_here(None) == ()
