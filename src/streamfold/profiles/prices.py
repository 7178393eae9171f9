"""What an answer costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .lookup import price_list
from .lookup import profile as profile_of

__all__ = ["usage_cost"]

#: Answers of these service tiers have prices of their own, which profiles do not hold.
_OTHER_PRICES: Final = ("priority", "flex", "batch", "scale", "reserved")
_MILLION: Final = 1_000_000


def usage_cost(
    message_or_usage: Any,
    *,
    profile: Mapping[str, Any] | None = None,
    provider: str | None = None,
    model: str | None = None,
) -> float | None:
    """What a message (or a `usage_metadata` dict) costs in US dollars; None if that is not known.

    `profile`, `provider` and `model` are those of the model that was asked. The prices are those
    of the model that answered (`model_name` and `model_provider` in the message's
    `response_metadata`); where none are known, those of the model asked for. Prices in `profile`
    that are not the ones we ship for `model` are the caller's own, and count before all others.

    The sum, each price per million tokens:

        cache_read                                                       x cache_read_price
        cache_creation but for those                                     x cache_write_price
        of them for an hour (ephemeral_1h_input_tokens)                  x twice the input_price
        audio in                                                         x input_audio_price
        the rest of input_tokens                                         x input_price
        reasoning                                                        x reasoning_price, if any
        audio out                                                        x output_audio_price
        the rest of output_tokens                                        x output_price

    (The figure for an hour is Anthropic's, whose models alone have such caches.)

    Above the size of a tier in `price_tiers`, measured in input_tokens, all prices are the tier's.

    None where a price of tokens that were used is missing, where no tokens were reported, where
    the details exceed their total, and for service tiers that have other prices. The cost of a
    message that broke off or was cancelled is that of the tokens which were reported until then
    (see `usage_is_partial`). Fees per request, search or tool are not in it.
    """
    usage, metadata = _read(message_or_usage)
    if not usage or _has_other_prices(usage, metadata):
        return None
    for prices in _profiles(metadata, profile, provider, model):
        if "input_price" in prices or "output_price" in prices:
            return _cost(usage, prices)
    return None


def _read(given: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """The usage and the metadata of a message; a dict is usage itself."""
    if isinstance(given, Mapping):
        return given, {}
    usage = getattr(given, "usage_metadata", None)
    return usage, getattr(given, "response_metadata", None) or {}


def _profiles(
    metadata: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    provider: str | None,
    model: str | None,
) -> Iterator[Mapping[str, Any]]:
    """The profiles that may have the prices, the most fitting one first."""
    answered = metadata.get("model_name")
    maker = metadata.get("model_provider") or provider
    shipped = profile_of(provider or maker or "", model or "")
    if given is not None and price_list(given) != price_list(shipped):
        yield given
    yield profile_of(maker or "", answered or "")
    yield shipped


def _has_other_prices(usage: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    if metadata.get("service_tier") in _OTHER_PRICES or metadata.get("speed") == "fast":
        return True
    details = {**_details(usage, "input"), **_details(usage, "output")}
    return any(count and key.startswith(_OTHER_PRICES) for key, count in details.items())


def _details(usage: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    return usage.get(f"{side}_token_details") or {}


def _cost(usage: Mapping[str, Any], prices: Mapping[str, Any]) -> float | None:
    total = 0.0
    tokens = _tokens(usage)
    prices = _tier(prices, usage.get("input_tokens") or 0)
    if not any(tokens.values()):
        return None
    for key, count in tokens.items():
        price = prices.get(key)
        if price is None and key in _INSTEAD:
            other, factor = _INSTEAD[key]
            price = prices[other] * factor if other in prices else None
        if count < 0 or (count and price is None):
            return None
        total += count * (price or 0.0)
    return total / _MILLION


#: What is paid where a profile has no price of its own, or cannot have: that many times another.
_INSTEAD: Final = {
    "reasoning_price": ("output_price", 1.0),
    "cache_write_1h_price": ("input_price", 2.0),
}


def _tokens(usage: Mapping[str, Any]) -> dict[str, int]:
    """How many tokens each price is for. A negative number: the details exceed their total."""
    into, out = _details(usage, "input"), _details(usage, "output")
    read, audio_in = into.get("cache_read") or 0, into.get("audio") or 0
    # LangChain counts writes by lifetime, and then has `cache_creation` at 0.
    hour, minutes = (into.get(f"ephemeral_{life}_input_tokens") or 0 for life in ("1h", "5m"))
    written = into.get("cache_creation") or hour + minutes
    reasoning, audio_out = out.get("reasoning") or 0, out.get("audio") or 0
    return {
        "input_price": (usage.get("input_tokens") or 0) - read - written - audio_in,
        "cache_read_price": read,
        "cache_write_price": written - hour,
        "cache_write_1h_price": hour,
        "input_audio_price": audio_in,
        "output_price": (usage.get("output_tokens") or 0) - reasoning - audio_out,
        "reasoning_price": reasoning,
        "output_audio_price": audio_out,
    }


def _tier(prices: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """The prices for an input of this size."""
    above = [tier for tier in prices.get("price_tiers") or () if size > tier["above"]]
    return max(above, key=lambda tier: tier["above"]) if above else prices
