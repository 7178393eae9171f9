"""The parameters of a model: which there are, what else they are called, and what they may be.

Standard parameters mean the same for every vendor. Aliases are the names that LangChain's classes
and the vendors' SDKs use. Fields of a vendor's request body are passed on as they are. Anything
else is an `UnknownParameterError`, with the nearest name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ..budget import Budget
from ..errors import ConfigurationError, UnknownParameterError
from ..limits import Timeouts
from ..vendors import Vendor, dialect

__all__ = ["REQUEST", "SETTINGS", "checked_parameters", "is_setting", "standard_name"]

#: What a model is made with and does not send.
SETTINGS: Final = frozenset(
    {
        "api_key",
        "base_url",
        "budget",
        "callbacks",
        "custom_get_token_ids",
        "default_headers",
        "default_query",
        "disable_streaming",
        "extra_body",
        "fetch_media",
        "http_client",
        "limits",
        "max_in_flight",
        "max_retries",
        "metadata",
        "model",
        "model_kwargs",
        "name",
        "output_version",
        "profile",
        "proxy",
        "rate_limiter",
        "stream_chunk_timeout",
        "stream_usage",
        "streaming",
        "tags",
        "timeout",
        "transport",
        "use_responses_api",
        "verbose",
    }
)

#: What every request may say, whatever the vendor calls it. Also accepted by each call.
REQUEST: Final = frozenset(
    {
        "temperature",
        "max_tokens",
        "stop",
        "top_p",
        "seed",
        "reasoning_effort",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
    }
)

#: Settings that may be given to a call as well.
PER_CALL: Final = frozenset(
    {
        "budget",
        "extra_body",
        "fetch_media",
        "model",
        "stream_usage",
        "streaming",
        "timeout",
        "max_retries",
        "use_responses_api",
    }
)

_ALIASES: Final = {
    "model_name": "model",
    "model_id": "model",
    "max_completion_tokens": "max_tokens",
    "max_tokens_to_sample": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "num_predict": "max_tokens",
    "stop_sequences": "stop",
    "request_timeout": "timeout",
    "default_request_timeout": "timeout",
    "openai_api_key": "api_key",
    "anthropic_api_key": "api_key",
    "openai_api_base": "base_url",
    "anthropic_api_url": "base_url",
    "openai_proxy": "proxy",
    "anthropic_proxy": "proxy",
    "http_async_client": "http_client",
    "stream": "streaming",
}


def checked_parameters(
    given: Mapping[str, Any], vendor: Vendor, *, call: bool = False
) -> dict[str, Any]:
    """`given` under standard names, each value checked. None means "not given" and is left out.

    `call`: the parameters of one call, where only some settings make sense. Raises
    UnknownParameterError and ConfigurationError.
    """
    checked: dict[str, Any] = {}
    for name, value in given.items():
        standard = standard_name(name, vendor, call=call)
        if value is None:
            continue
        if standard in checked and checked[standard] != value:
            raise ConfigurationError(f"{name} and {standard} are the same parameter: give one")
        check = _CHECKS.get(standard)
        if check is not None:
            check(standard, value)
        checked[standard] = value
    return checked


def standard_name(name: str, vendor: Vendor, *, call: bool = False) -> str:
    """What the parameter `name` is called here. Raises UnknownParameterError."""
    standard = vendor.aliases.get(name) or _ALIASES.get(name) or name
    settings = (PER_CALL,) if call else (SETTINGS, vendor.settings)
    known = (*settings, REQUEST, dialect(vendor.dialect).BODY_FIELDS)
    if any(standard in names for names in known):
        return standard
    # The vendor's other dialects are loaded only when asked for.
    further = [dialect(name).BODY_FIELDS for name in vendor.other_dialects]
    if any(standard in names for names in further):
        return standard
    raise _unknown(name, frozenset().union(*known, *further), vendor, call)


def is_setting(name: str, vendor: Vendor) -> bool:
    """Whether a parameter is for this side only and not a field of the request body."""
    return name in SETTINGS or name in vendor.settings


def _unknown(name: str, known: Iterable[str], vendor: Vendor, call: bool) -> UnknownParameterError:
    if call and is_setting(name, vendor):
        return UnknownParameterError(
            f"parameter {name!r} belongs to the model, not to one call: give it when the model is "
            "made, or use model_copy(update={...})"
        )
    near = difflib.get_close_matches(name, [*known, *_ALIASES], n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else "see the README for the parameters there are"
    return UnknownParameterError(
        f"parameter {name!r} is unknown to {vendor.name}: {hint} "
        "(a field that the vendor has and this table has not goes into extra_body={...})"
    )


def _number(low: float, high: float = math.inf) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or math.isnan(value) or not low <= value <= high or math.isinf(value):
            span = f"from {low:g} to {high:g}" if high < math.inf else f"of {low:g} or more"
            raise ConfigurationError(f"{name} is {value!r}: expected a number {span}")

    return check


def _whole(low: int) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ConfigurationError(f"{name} is {value!r}: expected an int of {low} or more")

    return check


def _of(*types: type, what: str) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, types):
            raise ConfigurationError(
                f"{name} is {type(value).__name__} ({value!r}): expected {what}"
            )

    return check


def _stop(name: str, value: Any) -> None:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(s, str) and s for s in items):
        raise ConfigurationError(
            f"{name} is {value!r}: expected a str or a list of strs, not empty"
        )


def _limiter(name: str, value: Any) -> None:
    if not callable(getattr(value, "aacquire", None)):
        raise ConfigurationError(f"{name} is {value!r:.60}: expected an object with aacquire()")


def _budget(name: str, value: Any) -> None:
    if not isinstance(value, Budget):
        raise ConfigurationError(f"{name} is {value!r:.60}: expected a streamfold.Budget")


def _timeout(name: str, value: Any) -> None:
    Timeouts.of(value)


def _proxy(name: str, value: Any) -> None:
    _of(str, what="a URL as a str")(name, value)
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https", "socks5", "socks5h") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        good = False
    if not good:  # it may hold a password, so it is not shown
        raise ConfigurationError(
            f"{name} is not the address of a proxy: expected http://host:port, or https, socks5"
        )


def _seed(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{name} is {value!r}: expected an int")


def _client(name: str, value: Any) -> None:
    if not all(callable(getattr(value, method, None)) for method in ("build_request", "send")):
        raise ConfigurationError(f"{name} is {value!r:.60}: expected an httpx.AsyncClient or alike")
    if not hasattr(value, "aclose"):
        raise ConfigurationError(
            f"{name} is a sync client ({type(value).__name__}): expected an httpx.AsyncClient or "
            "alike, which the sync methods use, too"
        )


def _seconds(name: str, value: Any) -> None:
    try:
        Timeouts(idle=value)
    except ConfigurationError:
        raise ConfigurationError(f"{name} is {value!r}: expected seconds above 0") from None


def _output_version(name: str, value: Any) -> None:
    if value not in ("v1", "responses/v1"):
        raise ConfigurationError(f"{name} is {value!r}: content is always in the blocks of 'v1'")


def _token_ids(name: str, value: Any) -> None:
    if not callable(value):
        raise ConfigurationError(f"{name} is {value!r:.60}: expected a function of a text")


def _disable_streaming(name: str, value: Any) -> None:
    if not isinstance(value, bool) and value not in ("tool_calling", "tool_calls"):
        raise ConfigurationError(f"{name} is {value!r}: expected a bool or 'tool_calling'")


_CHECKS: Final[dict[str, Callable[[str, Any], None]]] = {
    "temperature": _number(0.0, 2.0),
    "top_p": _number(0.0, 1.0),
    "max_tokens": _whole(1),
    "max_retries": _whole(0),
    "max_in_flight": _whole(1),
    "seed": _seed,
    "response_format": _of(Mapping, type, what="a dict or a class with fields"),
    "timeout": _timeout,
    "http_client": _client,
    "stream_chunk_timeout": _seconds,
    "output_version": _output_version,
    "custom_get_token_ids": _token_ids,
    "rate_limiter": _limiter,
    "budget": _budget,
    "stop": _stop,
    "model": _of(str, what="a str"),
    "base_url": _of(str, what="a URL as a str"),
    "proxy": _proxy,
    "transport": _of(str, what="'auto' or 'aiohttp'"),
    "default_headers": _of(dict, what="a dict"),
    "default_query": _of(dict, what="a dict"),
    "model_kwargs": _of(dict, what="a dict"),
    "extra_body": _of(dict, what="a dict"),
    "profile": _of(dict, what="a dict"),
    "reasoning_effort": _of(str, what="a str such as 'low', 'medium' or 'high'"),
    "tools": _of(list, tuple, what="a list"),
    "stream_usage": _of(bool, what="a bool"),
    "streaming": _of(bool, what="a bool"),
    "disable_streaming": _disable_streaming,
    "fetch_media": _of(bool, what="a bool"),
}
