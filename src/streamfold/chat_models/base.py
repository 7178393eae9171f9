"""`ChatModel`: what users hold in their hands.

A model is a vendor's row and parameters; it has no connections of its own, so it may be used from
several event loops and threads, one after the other or at once. Everything that changes a model
(`bind`, `with_config`, `model_copy`) returns a new one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from ..chunks import AIMessageChunk, fold_events
from ..coercion import coerce_messages
from ..config import RunnableConfig, merge_configs
from ..errors import ConfigurationError
from ..limits import DEFAULT_LIMITS, Limits, Timeouts
from ..messages import AIMessage
from ..net.auth import Key, checked_key
from ..net.clients import Connections
from ..runnables import Runnable
from ..secret import Secret
from ..vendors import Vendor, dialect, vendor
from ..wire.request import ChatRequest
from .parameters import REQUEST, SETTINGS, checked_parameters

if TYPE_CHECKING:  # the HTTP stack is loaded when the first call is made
    from ..net.transport import Call

__all__ = ["ChatModel"]

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters that are not sent, resolved: environment read, values checked."""

    base_url: str
    key: Key | None
    timeouts: Timeouts
    limits: Limits
    max_retries: int
    headers: dict[str, str]
    query: dict[str, str]
    stream_usage: bool
    streaming: bool
    profile: dict[str, Any]


class ChatModel(Runnable):
    """A model of a vendor. Made by `init_chat_model` or by a named class such as `ChatOpenAI`.

    Parameters are the standard ones (model, api_key, temperature, max_tokens, timeout, max_retries,
    stop, top_p, seed, base_url, proxy, rate_limiter, profile, default_headers, http_client,
    model_kwargs, extra_body, reasoning_effort, limits, ...), fields of the vendor's request body,
    and LangChain's names for both. Raises ConfigurationError for values that cannot be right and
    UnknownParameterError for names that nobody knows.
    """

    #: The vendor of a named class.
    provider: ClassVar[str] = ""

    def __init__(self, model: str | None = None, *, provider: str | None = None, **params: Any):
        row = vendor(provider or self.provider)
        if model is not None:
            params = {"model": model, **params}
        self._set(row, checked_parameters(params, row), {}, {}, None)

    def _set(
        self,
        row: Vendor,
        params: dict[str, Any],
        bound: dict[str, Any],
        config: Mapping[str, Any],
        connections: Connections | None,
    ) -> None:
        model = params.get("model")
        if not model:
            raise ConfigurationError(f"model is missing: name one of {row.name}'s models")
        self._vendor = row
        self._dialect = dialect(row.dialect)
        self._params = _with_secret(params, row)
        self._bound = bound
        self._config = merge_configs(config)
        self._settings = _settings(self._params, row)
        self._connections = connections or Connections(
            proxy=params.get("proxy"), http_client=params.get("http_client")
        )

    def _copy(
        self,
        *,
        params: dict[str, Any] | None = None,
        bound: dict[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        copy = object.__new__(type(self))
        changed = self._params if params is None else params
        same_wire = all(changed.get(k) is self._params.get(k) for k in ("proxy", "http_client"))
        copy._set(
            self._vendor,
            changed,
            self._bound if bound is None else bound,
            self._config if config is None else config,
            self._connections if same_wire else None,
        )
        return copy

    # ---- what the model is -----------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The model's name, as the vendor knows it."""
        return str(self._bound.get("model", self._params["model"]))

    model_name = model

    @property
    def profile(self) -> dict[str, Any]:
        """What the model can do, as given by `profile=`."""
        return self._settings.profile

    def __repr__(self) -> str:
        shown = {k: v for k, v in self._params.items() if k not in ("model", "api_key")}
        parts = [repr(self.model), *(f"{k}={v!r}" for k, v in {**shown, **self._bound}.items())]
        name = type(self).__name__
        where = f", provider={self._vendor.name!r}" if name == "ChatModel" else ""
        return f"{name}({', '.join(parts)}{where})"

    # ---- new models from this one ----------------------------------------------------------------

    def bind(self, **kwargs: Any) -> Any:
        """A model that gives `kwargs` to every call. What a call says itself wins."""
        checked = checked_parameters(kwargs, self._vendor, call=True)
        return self._copy(bound={**self._bound, **checked})

    def with_config(self, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """A model whose runs have this configuration; keys may be given as keywords."""
        return self._copy(config=merge_configs(self._config, config, kwargs))

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Any:
        """A copy with some parameters replaced, e.g. ``update={"profile": {...}}``."""
        changed = checked_parameters(update or {}, self._vendor)
        return self._copy(params={**self._params, **changed})

    # ---- calling ---------------------------------------------------------------------------------

    async def ainvoke(
        self,
        input: Any,
        config: Mapping[str, Any] | None = None,
        *,
        stop: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """The model's answer to `input`: a str, a message, or a list of messages, dicts,
        ``(role, content)`` pairs and strs. See `contract` of errors in `streamfold.errors`."""
        from ..net.transport import stream_batches

        call = self._call(input, config, stop, kwargs, stream=self._settings.streaming)
        chunks: list[AIMessageChunk] = []
        async for batch in stream_batches(call):
            chunks.extend(batch)
        return fold_events(event for chunk in chunks for event in chunk.events).to_message()

    def _stream(
        self,
        input: Any,
        config: Mapping[str, Any] | None = None,
        *,
        stop: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Callable[[], AsyncGenerator[list[AIMessageChunk], None]]:
        from ..net.transport import stream_batches

        call = self._call(input, config, stop, kwargs, stream=True)
        return lambda: stream_batches(call)

    def _call(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        stop: Sequence[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
    ) -> Call:
        """All that one call needs, checked; nothing is sent yet."""
        from ..net.transport import Call

        self._run_config(config)
        if stop is not None:
            kwargs = {**kwargs, "stop": stop}
        said = checked_parameters(kwargs, self._vendor, call=True) if kwargs else {}
        params = {**self._params, **self._bound, **said}
        settings = self._settings
        request = self._dialect.encode(self._request(input, params, stream))
        timeouts = settings.timeouts
        if "timeout" in said:
            timeouts = Timeouts.of(said["timeout"])
        limits, name = settings.limits, self._vendor.name
        return Call(
            request=request,
            base_url=settings.base_url,
            decoder=lambda: self._dialect.Decoder(limits, provider=name),
            connections=self._connections,
            timeouts=timeouts,
            limits=limits,
            max_retries=params.get("max_retries", settings.max_retries),
            stream=stream,
            auth=self._vendor.auth,
            key=settings.key,
            headers=settings.headers,
            query=settings.query,
            provider=name,
            model=params["model"],
        )

    def _request(self, input: Any, params: Mapping[str, Any], stream: bool) -> ChatRequest:
        standard = {name: params[name] for name in REQUEST if name in params}
        stop = standard.get("stop")
        if stop is not None:
            standard["stop"] = [stop] if isinstance(stop, str) else list(stop)
        body = {
            name: value
            for name, value in params.items()
            if name not in REQUEST and name not in SETTINGS
        }
        return ChatRequest(
            model=params["model"],
            messages=coerce_messages(input),
            stream=stream,
            stream_usage=params.get("stream_usage", True),
            quirks=self._vendor.quirks,
            provider=self._vendor.name,
            extra={**params.get("model_kwargs", {}), **body, **params.get("extra_body", {})},
            **standard,
        )

    def _run_config(self, config: Mapping[str, Any] | None) -> RunnableConfig:
        return merge_configs(self._config, config)

    # ---- closing ---------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the connections that this model holds in the running loop."""
        await self._connections.aclose()


# ---- resolving parameters ------------------------------------------------------------------------


def _with_secret(params: dict[str, Any], row: Vendor) -> dict[str, Any]:
    """`params` with the key wrapped, so that no repr shows it."""
    key = params.get("api_key")
    if key is None or isinstance(key, Secret) or callable(key):
        return params
    if hasattr(key, "get_secret_value"):  # pydantic's SecretStr
        key = key.get_secret_value()
    if not isinstance(key, str):
        raise ConfigurationError(
            f"api_key is {type(key).__name__}: expected a str or a callable that returns one"
        )
    return {**params, "api_key": checked_key(key, "api_key")}


def _settings(params: Mapping[str, Any], row: Vendor) -> _Settings:
    base_url = _base_url(params, row)
    limits = params.get("limits", DEFAULT_LIMITS)
    if not isinstance(limits, Limits):
        raise ConfigurationError(f"limits is {limits!r}: expected a streamfold.Limits")
    headers = {str(k): str(v) for k, v in params.get("default_headers", {}).items()}
    return _Settings(
        base_url=base_url,
        key=_key(params, row, own_address=base_url == row.base_url),
        timeouts=Timeouts.of(params.get("timeout")),
        limits=limits,
        max_retries=params.get("max_retries", 2),
        headers=headers,
        query={str(k): str(v) for k, v in params.get("default_query", {}).items()},
        stream_usage=params.get("stream_usage", True),
        streaming=params.get("streaming", False),
        profile=dict(params.get("profile", {})),
    )


def _key(params: Mapping[str, Any], row: Vendor, *, own_address: bool) -> Key | None:
    key = params.get("api_key")
    if key is not None:
        return key  # type: ignore[no-any-return]
    for name in row.key_env:
        value = os.environ.get(name)
        if value:
            return checked_key(value, f"the environment variable {name}")
    if row.needs_key and own_address:
        raise ConfigurationError(
            f"the key for {row.name} is missing: set the environment variable "
            f"{' or '.join(row.key_env)}, or give api_key="
        )
    return None


def _base_url(params: Mapping[str, Any], row: Vendor) -> str:
    given, source = params.get("base_url"), "base_url"
    if given is None:
        for name in row.base_url_env:
            if os.environ.get(name):
                given, source = os.environ[name], f"the environment variable {name}"
                break
    if given is None:
        given = row.base_url
    if given is None:
        raise ConfigurationError(f"base_url is missing: {row.name} has no address of its own")
    return _checked_url(given.strip(), source)


def _checked_url(url: str, source: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or any(c <= " " for c in url):
        raise ConfigurationError(
            f"{source} is {url!r}: expected an address such as https://host/path"
        )
    if parts.username or parts.password:
        raise ConfigurationError(f"{source} has a name or password in it: give the key as api_key=")
    if parts.scheme == "http" and host not in _LOOPBACK and not host.startswith("127."):
        warnings.warn(
            f"{source} is plain http to {host}: key and messages can be read on the way",
            stacklevel=2,
        )
    return url.rstrip("/")
