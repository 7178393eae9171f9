"""`ChatModel`: what users hold in their hands.

A model is a vendor's row and parameters; it has no connections of its own, so it may be used from
several event loops and threads, one after the other or at once. Everything that changes a model
(`bind`, `with_config`, `model_copy`) returns a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from ..addresses import Address, UnusableVariableError, resolve
from ..budget import budgets_here
from ..chunks import AIMessageChunk, fold_events
from ..coercion import coerce_messages
from ..config import merge_configs
from ..errors import ConfigurationError, UnknownParameterError
from ..events import EventFilter, EventSink, inline_events
from ..limits import Timeouts
from ..messages import AIMessage, BaseMessage
from ..net.clients import Connections
from ..net.in_flight import InFlight
from ..runnables import Runnable
from ..runs import Run, begin, watched
from ..secret import Secret
from ..stored import Stored
from ..vendors import Vendor, dialect, vendor
from ..wire.codec import Dialect
from ..wire.request import ChatRequest
from .parameters import REQUEST, checked_parameters, is_setting, standard_name
from .settings import SECRETS, settings_of, with_secrets, without_secrets

if TYPE_CHECKING:  # the HTTP stack is loaded when the first call is made
    from ..metering import CallMeter
    from ..net.transport import Call

__all__ = ["ChatModel"]


#: With these the provider has the beginning of the conversation, calls included.
_CONTINUED: Final = frozenset({"previous_response_id", "conversation"})
#: Settings that are part of the request all the same.
_SENT: Final = frozenset({"model", "model_kwargs", "extra_body"})
#: Settings that say how to connect.
_WIRE: Final = ("proxy", "http_client", "transport")


class ChatModel(Runnable):
    """A model of a vendor. Made by `init_chat_model` or by a named class such as `ChatOpenAI`.

    Parameters are the standard ones (model, api_key, temperature, max_tokens, timeout, max_retries,
    stop, top_p, seed, base_url, proxy, rate_limiter, budget, profile, default_headers, http_client,
    transport, model_kwargs, extra_body, reasoning_effort, limits, fetch_media, ...), fields of the
    request, and LangChain's names for both. `transport` is "auto" (the default: our own), or
    "aiohttp", with the extra of that name and on asyncio only. `max_in_flight` is how many calls of
    this model may be under way at once, over all batches, threads, event loops and copies by `bind`
    and the like; a stream counts until it is closed. Raises ConfigurationError for values that
    cannot be right and UnknownParameterError for names that nobody knows.
    """

    #: The vendor of a named class.
    provider: ClassVar[str] = ""

    if TYPE_CHECKING:  # every parameter can be read; these are the ones that all vendors share
        temperature: float | None
        max_tokens: int | None
        max_retries: int | None
        timeout: float | Timeouts | None
        stop: str | Sequence[str] | None
        top_p: float | None
        seed: int | None
        reasoning_effort: str | None
        api_key: Secret | Callable[[], Any] | None
        base_url: str | None
        proxy: str | None
        default_headers: dict[str, str] | None
        model_kwargs: dict[str, Any] | None
        extra_body: dict[str, Any] | None
        rate_limiter: Any
    else:

        def __getattr__(self, name: str) -> Any:
            """A parameter as it was given, under any of its names; None if it was not given."""
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                standard = standard_name(name, self._vendor)
            except UnknownParameterError as error:
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}"
                ) from error
            return self._bound.get(standard, self._params.get(standard))

    def __init__(
        self, model: str | None = None, *, model_provider: str | None = None, **params: Any
    ) -> None:
        row = vendor(model_provider or self.provider)
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
        in_flight: InFlight | None = None,
        addresses: dict[str, Address] | None = None,
    ) -> None:
        if not params.get("model"):
            deployment = params.get("azure_deployment")
            if not deployment:
                raise ConfigurationError(f"model is missing: name one of {row.name}'s models")
            params = {**params, "model": deployment}
        self._vendor = row
        self._params = with_secrets(params)
        self._bound = bound
        inherited = ("callbacks", "tags", "metadata")
        own: dict[str, Any] = {name: params[name] for name in inherited if name in params}
        self._config = merge_configs(own, config)
        self._settings = settings_of(self._params)
        self._profile: dict[str, Any] | None = None
        self._addresses = {} if addresses is None else addresses
        with suppress(UnusableVariableError):
            self._address(row.dialect)  # what is missing is said now, not at the first call
        self._connections = connections or Connections(**{name: params.get(name) for name in _WIRE})
        limit = params.get("max_in_flight")
        self._in_flight = in_flight or (None if limit is None else InFlight(limit))

    def _copy(
        self,
        *,
        params: dict[str, Any] | None = None,
        bound: dict[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        copy = object.__new__(type(self))
        changed = self._params if params is None else params
        same_wire = all(changed.get(k) is self._params.get(k) for k in _WIRE)
        same_limit = changed.get("max_in_flight") == self._params.get("max_in_flight")
        # Credentials that were looked for once are kept with the address.
        settings = ("api_key", "base_url", "model", *self._vendor.settings)
        same_address = all(changed.get(k) is self._params.get(k) for k in settings)
        copy._set(
            self._vendor,
            changed,
            self._bound if bound is None else bound,
            self._config if config is None else config,
            self._connections if same_wire else None,
            self._in_flight if same_limit else None,
            self._addresses if same_address else None,
        )
        return copy

    # ---- what the model is -----------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The model's name, as the vendor knows it."""
        return str(self._bound.get("model", self._params["model"]))

    model_name = model

    @property
    def model_provider(self) -> str:
        """The vendor's name, as `init_chat_model` takes it."""
        return self._vendor.name

    @property
    def dialect(self) -> str:
        """The name of the API that the model speaks, as `wire/` calls it."""
        return self._vendor.dialect

    @property
    def profile(self) -> dict[str, Any]:
        """What the model can do, and its prices: as `profile=` said, else from the data that comes
        with the package; empty for models that it does not know. This model's own dict."""
        if self._profile is None:
            from ..profiles import profile

            given = self._params.get("profile")
            found = profile(self._vendor.name, self.model) if given is None else given
            self._profile = dict(found)
        return self._profile

    def __repr__(self) -> str:
        shown = {k: v for k, v in self._params.items() if k not in ("model", *SECRETS)}
        shown = {k: without_secrets(k, v) for k, v in {**shown, **self._bound}.items()}
        parts = [repr(self.model), *(f"{k}={v!r}" for k, v in shown.items())]
        name = type(self).__name__
        where = f", provider={self._vendor.name!r}" if name == "ChatModel" else ""
        return f"{name}({', '.join(parts)}{where})"

    # ---- new models from this one ----------------------------------------------------------------

    def bind(self, **kwargs: Any) -> Any:
        """A model that gives `kwargs` to every call. What a call says itself wins."""
        checked = checked_parameters(kwargs, self._vendor, call=True)
        return self._copy(bound={**self._bound, **checked})

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """A model that may call `tools`: `@tool` objects, functions, classes with fields, JSON
        schemas, or the provider's own dicts such as ``{"type": "web_search"}``.

        `tool_choice`: "auto", "any" or "required", "none", a tool's name, or the vendor's dict.
        Raises ConfigurationError for a name that is not bound or used twice.
        """
        from ..tool_definitions import bound_tools

        definitions = bound_tools(
            tools,
            tool_choice,
            strict=strict,
            vendor=self._vendor.name,
            dialect=self.dialect,
        )
        said: dict[str, Any] = {"tools": definitions, **kwargs}
        if tool_choice is not None:
            said["tool_choice"] = tool_choice
        if parallel_tool_calls is not None:
            said["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(**said)

    def with_structured_output(
        self,
        schema: Any,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] | None = None,
        include_raw: bool = False,
        strict: bool | None = None,
    ) -> Any:
        """A runnable that answers with objects of `schema`: a pydantic model, dataclass or msgspec
        Struct (validated instances), a TypedDict or JSON schema (dicts).

        `method` is chosen by the profile if it is not given. `include_raw` gives a dict with `raw`,
        `parsed` and `parsing_error` and raises nothing for a bad answer; else that is a
        StructuredOutputError with the message. `stream` gives growing dicts and then the object,
        `stream_fields` each field as it is complete.
        """
        from ..structured import structured

        return structured(self, schema, method, include_raw, strict)

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
        run = begin("chat_model", type(self).__name__, merge_configs(self._config, config))
        stream = self._streams(kwargs, run)
        batches = self._source(input, config, stop, kwargs, stream=stream, run=run)()
        if run is not None:
            batches = self._watched(run, batches, input, kwargs, tokens=stream)
        chunks: list[AIMessageChunk] = []
        async for batch in batches:
            chunks.extend(batch)
        return fold_events(event for chunk in chunks for event in chunk.events).to_message()

    def _stream(
        self,
        input: Any,
        config: Mapping[str, Any] | None = None,
        *,
        stop: Sequence[str] | None = None,
        starts: bool = False,
        **kwargs: Any,
    ) -> Callable[[], AsyncGenerator[list[AIMessageChunk], None]]:
        run = begin("chat_model", type(self).__name__, merge_configs(self._config, config))
        stream = not self._streams_never(kwargs)
        source = self._source(input, config, stop, kwargs, stream=stream, run=run)
        if run is None:
            return source
        return lambda: self._watched(run, source(), input, kwargs, tokens=True, starts=starts)

    def _events(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        shown: EventFilter,
        kwargs: Mapping[str, Any],
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A model nests nothing: its events come from the generator that streams it."""
        pending: deque[dict[str, Any]] = deque()
        sink = EventSink(shown, pending.extend)
        listening = merge_configs(config, {"callbacks": [sink]})
        return inline_events(self._stream(input, listening, starts=True, **kwargs)(), pending)

    def _streams(self, kwargs: Mapping[str, Any], run: Run | None) -> bool:
        """Whether a call for one message streams under the hood: as the model or the call was told,
        else if somebody wants to hear the tokens, or a budget to stop them."""
        if self._streams_never(kwargs):
            return False
        told = self._told("streaming", kwargs)
        if told is True or (run is not None and run.wants_tokens):
            return True
        return bool(budgets_here(self._told("budget", kwargs)))

    def _streams_never(self, kwargs: Mapping[str, Any]) -> bool:
        disabled = self._told("disable_streaming", kwargs)
        if disabled is True or self._told("streaming", kwargs) is False:
            return True
        return bool(disabled and self._told("tools", kwargs))

    def _told(self, name: str, kwargs: Mapping[str, Any]) -> Any:
        """A parameter of a call: its own, else the model's."""
        said = checked_parameters(kwargs, self._vendor, call=True) if kwargs else kwargs
        for params in (said, self._bound, self._params):
            value = params.get(name)
            if value is not None:
                return value
        return None

    def _watched(
        self,
        run: Run,
        batches: AsyncGenerator[list[AIMessageChunk], None],
        input: Any,
        kwargs: Mapping[str, Any],
        *,
        tokens: bool,
        starts: bool = False,
    ) -> AsyncGenerator[list[AIMessageChunk], None]:
        model = self._told("model", kwargs)
        asked = {name: self._told(name, kwargs) for name in ("temperature", "max_tokens")}
        run.config["metadata"] = {
            "ls_provider": self._vendor.name,
            "ls_model_name": model,
            "ls_model_type": "chat",
            **{f"ls_{name}": value for name, value in asked.items() if value is not None},
            **run.config.get("metadata", {}),
        }
        serialized = {"name": type(self).__name__, "model": model}
        messages = coerce_messages(input, orphan_results=True)
        profile = self._told("profile", kwargs)
        heard = {"tokens": tokens, "starts": starts, "profile": profile}
        return watched(run, batches, messages, input, serialized, **heard)

    def _source(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        stop: Sequence[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
        run: Run | None,
    ) -> Callable[[], AsyncGenerator[list[AIMessageChunk], None]]:
        """What starts one call. All that can be wrong with it is said now, unless it must first
        fetch the media that its messages name."""
        from ..net.transport import stream_batches

        if {**self._params, **self._bound, **kwargs}.get("fetch_media"):
            messages = coerce_messages(input, orphan_results=True)
            return lambda: self._with_media(messages, config, stop, kwargs, stream=stream, run=run)
        call = self._call(input, config, stop, kwargs, stream=stream, run=run)
        return lambda: stream_batches(call)

    async def _with_media(
        self,
        messages: list[BaseMessage],
        config: Mapping[str, Any] | None,
        stop: Sequence[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
        run: Run | None,
    ) -> AsyncGenerator[list[AIMessageChunk], None]:
        from ..media import with_fetched_media
        from ..net.transport import stream_batches

        spoken = self._spoken({**self._params, **self._bound, **kwargs})
        passed_on = frozenset() if "no_urls" in self._vendor.quirks else spoken.URL_BLOCKS
        messages = await with_fetched_media(messages, passed_on)
        call = self._call(messages, config, stop, kwargs, stream=stream, run=run)
        async with aclosing(stream_batches(call)) as batches:
            async for batch in batches:
                yield batch

    def _call(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        stop: Sequence[str] | None,
        kwargs: Mapping[str, Any],
        *,
        stream: bool,
        run: Run | None,
    ) -> Call:
        """All that one call needs, checked; nothing is sent yet."""
        from ..net.transport import Call

        merge_configs(self._config, config)  # what cannot be right is said before anything else
        if stop is not None:
            kwargs = {**kwargs, "stop": stop}
        params = self._merged(kwargs)
        settings = self._settings
        spoken = self._spoken(params)
        address = self._address(spoken.NAME)
        asked = self._request(input, params, stream)
        request = spoken.encode(asked)
        limits, name = settings.limits, self._vendor.name
        return Call(
            request=request,
            base_url=address.base_url,
            decoder=lambda: spoken.Decoder(limits, provider=name, model=asked.model),
            connections=self._connections,
            timeouts=Timeouts.of(params["timeout"]) if "timeout" in params else settings.timeouts,
            limits=limits,
            max_retries=params.get("max_retries", settings.max_retries),
            stream=stream,
            auth=address.auth,
            key=address.key,
            headers={**address.headers, **settings.headers},
            query={**address.query, **settings.query},
            provider=name,
            model=params["model"],
            start_hint=self._vendor.start_hint,
            statuses=self._vendor.statuses,
            meter=self._meter(params, asked),
            in_flight=self._in_flight,
            tell_retry=None if run is None else partial(run.tell, "on_retry"),
        )

    def _meter(self, params: Mapping[str, Any], request: ChatRequest) -> CallMeter | None:
        """What limits this call's requests, if something does."""
        limiter, budgets = params.get("rate_limiter"), budgets_here(params.get("budget"))
        if limiter is None and not budgets:
            return None
        from ..metering import CallMeter
        from ..profiles import usage_cost

        provider, model = self._vendor.name, request.model
        own = self.profile if budgets and model == self.model else params.get("profile")
        price = partial(usage_cost, profile=own, provider=provider, model=model)
        return CallMeter(limiter, budgets, request, price)

    def _spoken(self, params: Mapping[str, Any]) -> Dialect:
        """The dialect of one call: a few vendors have two, and some parameters need the second."""
        row = self._vendor
        if "openai_responses" not in row.other_dialects:
            return dialect(row.dialect)
        chosen = params.get("use_responses_api")
        if chosen is None:
            from ..wire.openai_responses_request import use_responses

            chosen = use_responses(params, params.get("tools"))
        return dialect("openai_responses" if chosen else row.dialect)

    def _address(self, dialect_name: str) -> Address:
        address = self._addresses.get(dialect_name)
        if address is None:
            address = resolve(self._vendor, self._params, dialect_name)
            self._addresses[dialect_name] = address
        return address

    def _request(self, input: Any, params: Mapping[str, Any], stream: bool) -> ChatRequest:
        standard = {name: params[name] for name in REQUEST if name in params}
        stop = standard.get("stop")
        if stop is not None:
            standard["stop"] = [stop] if isinstance(stop, str) else list(stop)
        body = {
            name: value
            for name, value in params.items()
            if name not in REQUEST and not is_setting(name, self._vendor)
        }
        return ChatRequest(
            model=params["model"],
            messages=coerce_messages(input, orphan_results=not _CONTINUED.isdisjoint(params)),
            stream=stream,
            stream_usage=params.get("stream_usage", True),
            quirks=self._vendor.quirks,
            provider=self._vendor.name,
            extra={**params.get("model_kwargs", {}), **body, **params.get("extra_body", {})},
            **standard,
        )

    def _merged(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of one call under their standard names; tools and forms as definitions."""
        said = checked_parameters(kwargs, self._vendor, call=True) if kwargs else {}
        params = {**self._params, **self._bound, **said}
        tools = params.get("tools")
        if tools and not all(isinstance(each, Mapping) for each in tools):
            from ..tool_definitions import bound_tools

            params["tools"] = bound_tools(tools, vendor=self._vendor.name, dialect=self.dialect)
        if isinstance(form := params.get("response_format"), type):
            from ..structured import Target, response_format

            params["response_format"] = response_format(Target(form), self.dialect)
        return params

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        """Answers depend on what is sent, and not on where to, with which key or how patiently."""
        params = self._merged(kwargs)
        sent = {
            name: value
            for name, value in params.items()
            if name in _SENT or not is_setting(name, self._vendor)
        }
        return Stored(identity={"provider": self._vendor.name, **sent})

    # ---- counting --------------------------------------------------------------------------------

    def get_num_tokens(self, text: str) -> int:
        """About how many tokens `text` has, reckoned here: a quarter of its characters, or what
        `custom_get_token_ids` finds in it."""
        custom = self._params.get("custom_get_token_ids")
        return -(-len(text) // 4) if custom is None else len(custom(text))

    def get_num_tokens_from_messages(self, messages: Sequence[Any]) -> int:
        """About how many tokens `messages` have: `count_tokens_approximately`. No vendor is asked
        and no tokenizer loaded; after a call, `usage_metadata` has the exact figures."""
        from ..history import count_tokens_approximately

        return count_tokens_approximately(messages)

    # ---- closing ---------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the connections that this model holds in the running loop."""
        await self._connections.aclose()
