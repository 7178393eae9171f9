"""What a model is made with and does not send: checked once, with the defaults, and with the keys
wrapped so that nothing shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ..errors import ConfigurationError
from ..limits import DEFAULT_LIMITS, Limits, Timeouts
from ..net.auth import checked_headers, checked_key, checked_query
from ..secret import MASK, Secret

__all__ = ["SECRETS", "Settings", "settings_of", "with_secrets", "without_secrets"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that are not sent, checked and with their defaults."""

    timeouts: Timeouts
    limits: Limits
    max_retries: int
    headers: dict[str, str | Secret]
    query: dict[str, str]


#: The parameters that are keys.
SECRETS: Final[tuple[str, ...]] = (
    "api_key",
    "azure_ad_token",
    "aws_secret_access_key",
    "aws_session_token",
)


def with_secrets(params: dict[str, Any]) -> dict[str, Any]:
    """`params` with the keys wrapped, so that no repr shows them."""
    found = {name: _secret(name, params[name]) for name in SECRETS if name in params}
    if "default_headers" in params:
        found["default_headers"] = checked_headers(params["default_headers"], "default_headers")
    return {**params, **found}


def without_secrets(name: str, value: Any) -> Any:
    """A parameter as `repr` shows it."""
    if name in ("default_headers", "default_query") and isinstance(value, Mapping):
        return dict.fromkeys(value, MASK)
    if name == "proxy":
        return re.sub(r"//[^/]*@", f"//{MASK}@", str(value))
    return value


def _secret(name: str, key: Any) -> Any:
    if isinstance(key, Secret) or callable(key):
        return key
    if hasattr(key, "get_secret_value"):  # pydantic's SecretStr
        key = key.get_secret_value()
    if not isinstance(key, str):
        raise ConfigurationError(
            f"{name} is {type(key).__name__}: expected a str or a callable that returns one"
        )
    return checked_key(key, name)


def settings_of(params: Mapping[str, Any]) -> Settings:
    """The settings among `params`. Raises ConfigurationError for what they cannot be."""
    limits = params.get("limits", DEFAULT_LIMITS)
    if not isinstance(limits, Limits):
        raise ConfigurationError(f"limits is {limits!r}: expected a streamfold.Limits")
    timeouts = Timeouts.of(params.get("timeout"))
    if "stream_chunk_timeout" in params:  # LangChain's name for one of the four limits
        timeouts = msgspec.structs.replace(timeouts, idle=params["stream_chunk_timeout"])
    return Settings(
        timeouts=timeouts,
        limits=limits,
        max_retries=params.get("max_retries", 2),
        headers=params.get("default_headers", {}),
        query=checked_query(params.get("default_query", {}), "default_query"),
    )
