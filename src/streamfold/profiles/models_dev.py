"""What models.dev knows: its api.json, read strictly, and its models as profiles."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..errors import (
    ConfigurationError,
    RedirectRefusedError,
    RequestTimeoutError,
    SizeLimitError,
    StreamfoldError,
    TransportError,
)
from .keys import Price

if TYPE_CHECKING:
    import httpx

__all__ = ["URL", "models_of", "providers_in", "read"]

#: Where models.dev serves its data.
URL: Final = "https://models.dev/api.json"

_MAX_BYTES: Final = 64 * 1024 * 1024  # some thirty times what it has today
_SECONDS: Final = 30.0
_MAX_REDIRECTS: Final = 3
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


# ---- the shape -----------------------------------------------------------------------------------


class _Cost(msgspec.Struct):
    input: Price | None = None
    output: Price | None = None
    reasoning: Price | None = None
    cache_read: Price | None = None
    cache_write: Price | None = None
    input_audio: Price | None = None
    output_audio: Price | None = None


class _TierSize(msgspec.Struct):
    size: int
    type: str = "context"


class _Tier(_Cost, kw_only=True):
    tier: _TierSize


class _ModelCost(_Cost):
    tiers: list[_Tier] = []
    context_over_200k: _Cost | None = None  # how tiers were written before 2026


class _Limit(msgspec.Struct):
    context: int
    output: int
    input: int | None = None


class _Modalities(msgspec.Struct):
    input: list[str]
    output: list[str]


class _ReasoningOption(msgspec.Struct):
    type: str
    values: list[str | None] = []


class _Model(msgspec.Struct):
    name: str
    limit: _Limit
    modalities: _Modalities
    reasoning: bool
    tool_call: bool
    attachment: bool
    open_weights: bool
    release_date: str
    last_updated: str
    temperature: bool | None = None
    structured_output: bool | None = None
    status: str | None = None
    cost: _ModelCost | None = None
    reasoning_options: list[_ReasoningOption] = []


class _Provider(msgspec.Struct):
    models: dict[str, msgspec.Raw]


_read_all: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_provider: Final = msgspec.json.Decoder(_Provider).decode
_read_model: Final = msgspec.json.Decoder(_Model).decode


def providers_in(data: bytes, source: str) -> dict[str, msgspec.Raw]:
    """The providers of an api.json, unread. Raises ConfigurationError if it is none."""
    try:
        providers = _read_all(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source} is not an api.json of models.dev: {error}") from error
    if not providers:
        raise ConfigurationError(f"{source} has no providers")
    return providers


def models_of(provider: str, raw: msgspec.Raw, source: str) -> dict[str, dict[str, Any]]:
    """The profiles of a provider's models, by id.

    Raises ConfigurationError, with the model and the field, for anything that is not as expected.
    """
    try:
        models = _read_provider(raw).models
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: provider {provider!r}: {error}") from error
    if not models:
        raise ConfigurationError(f"{source}: provider {provider!r} has no models")
    return {id: _profile(id, model, f"{source}: {provider}") for id, model in models.items()}


def _profile(id: str, raw: msgspec.Raw, where: str) -> dict[str, Any]:
    try:
        model = _read_model(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{where}: model {id!r}: {error}") from error
    if not id.strip() or not (id + model.name).isprintable():
        raise ConfigurationError(f"{where}: model {id!r}: the id or name is not printable text")
    return {key: value for key, value in _said(id, model) if value is not None}


# ---- models as profiles --------------------------------------------------------------------------

_INPUTS: Final = ("text", "image", "pdf", "audio", "video")
_OUTPUTS: Final = ("text", "image", "audio", "video")


def _said(id: str, model: _Model) -> Iterator[tuple[str, Any]]:
    yield "name", model.name
    yield "status", model.status
    yield "release_date", model.release_date
    yield "last_updated", model.last_updated
    yield "open_weights", model.open_weights
    # 0 is how models.dev writes a limit that it does not know.
    yield "max_input_tokens", model.limit.input or model.limit.context or None
    yield "max_output_tokens", model.limit.output or None
    for kind in _INPUTS:
        yield f"{kind}_inputs", kind in model.modalities.input
    for kind in _OUTPUTS:
        yield f"{kind}_outputs", kind in model.modalities.output
    yield "reasoning_output", model.reasoning
    yield "reasoning_effort_levels", _efforts(model)
    yield "tool_calling", model.tool_call
    yield "structured_output", model.structured_output
    yield "attachment", model.attachment
    yield "temperature", model.temperature
    if model.cost is not None:
        yield from _prices(model.cost, free=id.endswith(":free"))


def _efforts(model: _Model) -> list[str] | None:
    values = (v for o in model.reasoning_options if o.type == "effort" for v in o.values)
    return list(dict.fromkeys(v for v in values if v is not None)) or None


def _prices(cost: _ModelCost, *, free: bool) -> Iterator[tuple[str, Any]]:
    tiers = list(cost.tiers)
    if any(tier.tier.type != "context" for tier in tiers):
        return  # priced by something that usage does not tell
    if cost.context_over_200k is not None and not tiers:
        old = msgspec.structs.asdict(cost.context_over_200k)
        tiers = [_Tier(tier=_TierSize(size=200_000), **old)]
    yield from _price_list(cost, free=free)
    yield "price_tiers", [_tier(tier) for tier in tiers] or None


def _tier(tier: _Tier) -> dict[str, Any]:
    return {"above": tier.tier.size, **dict(_price_list(tier, free=False))}


def _price_list(cost: _Cost, *, free: bool) -> Iterator[tuple[str, float]]:
    """The prices that are known. models.dev also writes 0 for models whose price nobody published
    (trials, routers, machines of one's own): 0 counts only where the id says that it is free."""
    for field, key in _PRICE_NAMES.items():
        price = getattr(cost, field)
        if price or (free and price is not None):
            yield key, float(price)


_PRICE_NAMES: Final = {
    "input": "input_price",
    "output": "output_price",
    "cache_read": "cache_read_price",
    "cache_write": "cache_write_price",
    "reasoning": "reasoning_price",
    "input_audio": "input_audio_price",
    "output_audio": "output_audio_price",
}


# ---- reading a file or a URL ---------------------------------------------------------------------


def read(source: str) -> bytes:
    """The bytes of a file, or of what an https URL (or http on this machine) leads to.

    A download may take 30 seconds and follows redirects within its host only. Both may have 64 MiB.
    Raises ConfigurationError for a source that cannot be right, TransportError for the network.
    """
    if "://" not in source:
        return _read_file(os.path.expanduser(source))
    import httpx

    try:
        return _download(httpx.URL(source))
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{source} is not a URL: {error}") from error
    except httpx.TimeoutException as error:
        raise _too_slow(source) from error
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise TransportError(f"{source} could not be downloaded: {reason}") from error


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"the source {path} cannot be read: {reason}") from error
    if len(data) > _MAX_BYTES:
        raise _too_large(path)
    return data


def _download(url: httpx.URL) -> bytes:
    import httpx

    _check(url)
    deadline = time.monotonic() + _SECONDS
    with httpx.Client(timeout=_SECONDS) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            with client.stream("GET", url, headers={"accept-encoding": "gzip"}) as response:
                if response.next_request is None:
                    return _body(response, deadline)
                url = _same_host(url, response.next_request.url)
    raise RedirectRefusedError(f"{url}: more than {_MAX_REDIRECTS} redirects")


def _check(url: httpx.URL) -> None:
    if url.userinfo:
        raise ConfigurationError("the source has a name or password in it: give it without")
    local = url.scheme == "http" and url.host in _LOOPBACK
    if not url.host or not (local or url.scheme == "https"):
        raise ConfigurationError(f"the source is {url}: expected a file or an https URL")


def _same_host(old: httpx.URL, new: httpx.URL) -> httpx.URL:
    if (old.scheme, old.host, old.port) != (new.scheme, new.host, new.port):
        raise RedirectRefusedError(f"{old} redirects to another host, {new.host}: not followed")
    return new


def _body(response: httpx.Response, deadline: float) -> bytes:
    if response.status_code != 200:
        raise StreamfoldError(f"{response.url} answered with status {response.status_code}")
    data = bytearray()
    for piece in response.iter_bytes():
        data += piece
        if len(data) > _MAX_BYTES:
            raise _too_large(str(response.url))
        if time.monotonic() > deadline:
            raise _too_slow(str(response.url))
    return bytes(data)


def _too_large(source: str) -> SizeLimitError:
    return SizeLimitError(f"{source} has more than {_MAX_BYTES} bytes: that is no api.json")


def _too_slow(source: str) -> RequestTimeoutError:
    return RequestTimeoutError(f"{source} took longer than {_SECONDS:g} s", seconds=_SECONDS)
