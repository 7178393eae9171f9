"""What an answer costs: the sums by hand, whose prices count, and when nobody knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streamfold.messages import AIMessage
from streamfold.profiles import profile, usage_cost

PRICES = {
    "input_price": 2.0,
    "output_price": 10.0,
    "cache_read_price": 0.5,
    "cache_write_price": 2.5,
    "reasoning_price": 3.0,
    "input_audio_price": 40.0,
    "output_audio_price": 80.0,
}
PLAIN = {"input_price": 2.0, "output_price": 10.0}


def usage(into: int, out: int, *, read: Any = None, told: Any = None) -> Any:
    made: dict[str, Any] = {"input_tokens": into, "output_tokens": out, "total_tokens": into + out}
    if read is not None:
        made["input_token_details"] = read
    if told is not None:
        made["output_token_details"] = told
    return made


@pytest.mark.parametrize(
    ("used", "prices", "dollars"),
    [
        # 1000 x 2 + 500 x 10 = 7000 millionths
        (usage(1000, 500), PLAIN, 0.007),
        # 600 x 2 + 300 x 0.5 + 100 x 2.5 + 500 x 10 = 6600
        (usage(1000, 500, read={"cache_read": 300, "cache_creation": 100}), PRICES, 0.0066),
        # 900 x 2 + 100 x 40 + 450 x 10 + 50 x 80 = 14,300
        (usage(1000, 500, read={"audio": 100}, told={"audio": 50}), PRICES, 0.0143),
        # 1000 x 2 + 400 x 3 + 100 x 10 = 4200
        (usage(1000, 500, told={"reasoning": 400}), PRICES, 0.0042),
        # reasoning without a price of its own is output: 1000 x 2 + 500 x 10
        (usage(1000, 500, told={"reasoning": 400}), PLAIN, 0.007),
        # details of 0 need no price, other details are part of the rest
        (usage(1000, 500, read={"cache_read": 0, "audio": 0, "image": 90}), PLAIN, 0.007),
        # LangChain's way to count writes: 900 x 2 + 100 x 2.5 + 500 x 10 = 7050
        (
            usage(1000, 500, read={"cache_creation": 0, "ephemeral_5m_input_tokens": 100}),
            PRICES,
            0.00705,
        ),
        # what is kept for an hour costs twice the input: 600 x 2 + 300 x 2.5 + 100 x 4 + 500 x 10
        (
            usage(1000, 500, read={"cache_creation": 400, "ephemeral_1h_input_tokens": 100}),
            PRICES,
            0.00735,
        ),
        # LangChain's way to count both: 600 x 2 + 300 x 2.5 + 100 x 4 + 500 x 10
        (
            usage(
                1000,
                500,
                read={
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 300,
                    "ephemeral_1h_input_tokens": 100,
                },
            ),
            PRICES,
            0.00735,
        ),
        # only input, and no price of output
        (usage(1000, 0), {"input_price": 2.0}, 0.002),
        # known to be free
        (usage(1000, 500), {"input_price": 0.0, "output_price": 0.0}, 0.0),
    ],
)
def test_the_sum(used: Any, prices: dict[str, float], dollars: float) -> None:
    assert usage_cost(used, profile=prices) == pytest.approx(dollars)
    assert usage_cost(AIMessage("", usage_metadata=used), profile=prices) == pytest.approx(dollars)


TIERED = {
    **PLAIN,
    "cache_read_price": 0.5,
    "price_tiers": [
        {"above": 1000, "input_price": 4.0, "output_price": 15.0},
        {"above": 200, "input_price": 3.0, "output_price": 12.0},
    ],
}


@pytest.mark.parametrize(
    ("used", "dollars"),
    [
        (usage(200, 10), 0.0005),  # 200 x 2 + 10 x 10
        (usage(201, 10), 0.000723),  # 201 x 3 + 10 x 12
        (usage(2000, 10), 0.00815),  # 2000 x 4 + 10 x 15
        (usage(100, 10, read={"cache_read": 50}), 0.000225),  # 50 x 2 + 50 x 0.5 + 10 x 10
        (usage(300, 10, read={"cache_read": 50}), None),  # what the tier says of caching is unknown
    ],
)
def test_above_a_size_all_prices_are_the_tiers(used: Any, dollars: float | None) -> None:
    cost = usage_cost(used, profile=TIERED)
    assert cost == (None if dollars is None else pytest.approx(dollars))


@pytest.mark.parametrize(
    ("used", "prices"),
    [
        (None, PLAIN),
        ({}, PLAIN),
        (usage(0, 0), PLAIN),
        (usage(1000, 500), {}),
        (usage(1000, 500), {"max_input_tokens": 10}),
        (usage(1000, 500), {"input_price": 2.0}),
        (usage(1000, 500, read={"cache_read": 1}), PLAIN),
        (usage(1000, 500, read={"cache_creation": 1}), PLAIN),
        (usage(1000, 500, read={"audio": 1}), PLAIN),
        (usage(1000, 500, told={"audio": 1}), PLAIN),
        (usage(100, 500, read={"cache_read": 60, "audio": 60}), PRICES),
        (usage(9, 5, read={"cache_creation": 1, "ephemeral_1h_input_tokens": 2}), PRICES),
        (usage(1000, 500, read={"priority": 1000}), PRICES),
        (usage(1000, 500, told={"flex_reasoning": 5}), PRICES),
    ],
)
def test_what_is_not_known_is_none_and_never_0(used: Any, prices: dict[str, float]) -> None:
    assert usage_cost(used, profile=prices) is None
    assert usage_cost(AIMessage("", usage_metadata=used), profile=prices) is None


@pytest.mark.parametrize("metadata", [{"service_tier": "priority"}, {"speed": "fast"}])
def test_tiers_of_service_with_other_prices_are_not_known(metadata: dict[str, str]) -> None:
    said = {"model_name": "gpt-4.1", "model_provider": "openai", **metadata}
    message = AIMessage("", usage_metadata=usage(10, 5), response_metadata=said)
    assert usage_cost(message) is None


def answer(model: str, provider: str = "openai") -> AIMessage:
    said = {"model_name": model, "model_provider": provider, "service_tier": "default"}
    return AIMessage("", usage_metadata=usage(1_000_000, 0), response_metadata=said)


def test_the_model_that_answered_is_priced() -> None:
    assert usage_cost(answer("gpt-4.1")) == 2.0
    assert usage_cost(answer("gpt-4.1-2025-04-14")) == 2.0
    assert usage_cost(answer("claude-sonnet-4-5-20250929", "anthropic")) == 3.0
    asked: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-4o",
        "profile": profile("openai", "gpt-4o"),
    }
    assert usage_cost(answer("gpt-4.1"), **asked) == 2.0


def test_else_the_model_asked_for() -> None:
    asked: dict[str, Any] = {"provider": "openai", "model": "gpt-4o"}
    assert usage_cost(answer("nobody-knows"), **asked) == 2.5
    assert usage_cost(AIMessage("", usage_metadata=usage(1_000_000, 0)), **asked) == 2.5
    assert usage_cost(usage(1_000_000, 0), **asked) == 2.5
    assert usage_cost(answer("nobody-knows"), profile=profile("openai", "gpt-4o")) == 2.5


def test_nobody_known_is_none() -> None:
    assert usage_cost(answer("nobody-knows")) is None
    assert usage_cost(answer("gpt-4.1", "vllm")) is None
    assert usage_cost(usage(10, 5)) is None
    assert usage_cost(AIMessage("hi")) is None


def test_prices_of_the_callers_own_count_before_ours() -> None:
    mine = profile("openai", "gpt-4o") | {"input_price": 7.0}
    assert usage_cost(answer("gpt-4o-2024-08-06"), profile=mine, provider="openai") == 7.0
    asked: dict[str, Any] = {"provider": "openai", "model": "gpt-4o"}
    assert usage_cost(answer("gpt-4o-2024-08-06"), profile=mine, **asked) == 7.0


def test_a_profile_without_prices_hides_none() -> None:
    asked: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-4.1",
        "profile": {"max_input_tokens": 10},
    }
    assert usage_cost(answer("gpt-4.1"), **asked) == 2.0


def test_prices_that_nobody_published_are_not_0() -> None:
    assert usage_cost(answer("qwen/qwen3-coder-30b", "lmstudio")) is None
    assert usage_cost(answer("nvidia/nv-embed-v1", "nvidia")) is None
    assert usage_cost(answer("openai/gpt-oss-20b:free", "openrouter")) == 0.0


def test_messages_of_other_libraries_will_do() -> None:
    message = SimpleNamespace(
        usage_metadata=usage(1_000_000, 0),
        response_metadata={"model_name": "gpt-4.1", "model_provider": "openai"},
    )
    assert usage_cost(message) == 2.0
