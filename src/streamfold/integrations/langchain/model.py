"""`ChatStreamfold`: any streamfold model as LangChain's `BaseChatModel`.

It asks the streamfold model and turns what comes into LangChain's values; LangChain does the rest
(callbacks, caching, `astream_events`, batches). The async methods await in the caller's loop, on
asyncio, without a thread; the sync ones are streamfold's own. Errors are streamfold's, as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from operator import itemgetter
from typing import Any, Final, Literal, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage as LangChainAnswer
from langchain_core.messages import BaseMessage as LangChainMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from pydantic import ConfigDict, Field

from ...chat_models import ChatModel, init_chat_model
from ...chat_models.configurable import ConfigurableModel
from ...coercion import shown
from ...errors import ConfigurationError
from ...history import count_tokens_approximately
from ...messages import AIMessage
from ...structured import structured
from .chunks import Chunks
from .events import Events
from .messages import from_langchain, to_langchain
from .structured import Reader, as_schema
from .tools import as_tool, has_server_tools

__all__ = ["ChatStreamfold", "as_langchain"]


def as_langchain(model: Any, **fields: Any) -> ChatStreamfold:
    """`model` as a chat model of LangChain.

    `model`: any streamfold model (with retries, fallbacks, or configurable, too), or the name of
    one, as `init_chat_model` takes it. `fields`: those of every LangChain model (`callbacks`,
    `tags`, `metadata`, `cache`, `rate_limiter`, `disable_streaming`, `output_version`, `profile`,
    ...); all others are parameters of the streamfold model. Raises ConfigurationError.
    """
    return ChatStreamfold(model, **fields)


_BOUND_TOGETHER: Final = ("tool_choice", "parallel_tool_calls", "strict")


class ChatStreamfold(BaseChatModel):
    """A streamfold model as a chat model of LangChain: see `as_langchain`.

    It is made of the same arguments: ``ChatStreamfold("openai:gpt-4.1", temperature=0)``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str
    """The model's name, as its vendor knows it."""

    runnable: Any = Field(repr=False, exclude=True)
    """The streamfold model."""

    streaming: bool = False
    """Whether `invoke` streams under the hood; given as False, `stream` does not either."""

    def __init__(self, model: Any = None, **given: Any) -> None:
        own = set(type(self).model_fields)
        limiter = given.get("rate_limiter")
        if limiter is not None and not isinstance(limiter, BaseRateLimiter):
            own.remove("rate_limiter")  # it is one of streamfold's
        fields = {name: value for name, value in given.items() if name in own}
        params = {name: value for name, value in given.items() if name not in own}
        if "profile" in fields:
            params["profile"] = fields["profile"]
        params = {name: value for name, value in params.items() if value not in (None, [])}
        model = params.pop("model_name", None) if model is None else model
        runnable = _runnable(model, params)
        super().__init__(**{**fields, "model": _base(runnable).model, "runnable": runnable})

    @property
    def model_name(self) -> str:
        """The model's name: what LangChain's agents look at."""
        return self.model

    @property
    def _llm_type(self) -> str:
        return "streamfold"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What tracing shows, and caching goes by. Without secrets: they are hidden in the repr."""
        return {"model": self.model, "streamfold": repr(self.runnable)}

    def _resolve_model_profile(self) -> ModelProfile | None:
        known = ModelProfile.__annotations__
        found = {key: value for key, value in _base(self.runnable).profile.items() if key in known}
        return cast(ModelProfile, found) if found else None

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        said = {
            name: kwargs.get(name, getattr(_base(self.runnable), name))
            for name in ("temperature", "max_tokens", "stop")
        }
        params: dict[str, Any] = {
            "ls_provider": _base(self.runnable).model_provider,
            "ls_model_name": kwargs.get("model", self.model),
            "ls_model_type": "chat",
            **{f"ls_{name}": value for name, value in said.items() if value is not None},
        }
        if stop:
            params["ls_stop"] = stop
        return cast(LangSmithParams, params)

    # ---- calling ---------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, said = self._called(stop, kwargs)
        return _result(model.invoke(_input(messages), **said))

    async def _agenerate(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        model, said = self._called(stop, kwargs)
        return _result(await model.ainvoke(_input(messages), **said))

    def _stream(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        model, said = self._called(stop, kwargs)
        answer = self._chunks(model)
        with closing(model.stream(_input(messages), **said)) as chunks:
            for chunk in chunks:
                if (made := answer.take(chunk)) is not None:
                    yield ChatGenerationChunk(message=made)
        if (made := answer.end()) is not None:
            yield ChatGenerationChunk(message=made)

    async def _astream(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        model, said = self._called(stop, kwargs)
        answer = self._chunks(model)
        async with aclosing(model.astream(_input(messages), **said)) as chunks:
            async for chunk in chunks:
                if (made := answer.take(chunk)) is not None:
                    yield ChatGenerationChunk(message=made)
        if (made := answer.end()) is not None:
            yield ChatGenerationChunk(message=made)

    def _stream_chat_model_events(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[dict[str, Any]]:
        """What LangChain asks for the typed stream of a model that has one of its own."""
        model, said = self._called(stop, kwargs)
        answer = Events()
        with closing(model.stream(_input(messages), **said)) as chunks:
            for chunk in chunks:
                yield from answer.take(chunk)
        yield from answer.end()

    async def _astream_chat_model_events(
        self,
        messages: list[LangChainMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        model, said = self._called(stop, kwargs)
        answer = Events()
        async with aclosing(model.astream(_input(messages), **said)) as chunks:
            async for chunk in chunks:
                for event in answer.take(chunk):
                    yield event
        for event in answer.end():
            yield event

    def _called(self, stop: list[str] | None, kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The streamfold model for one call, its tools bound, and what is said to it besides."""
        said = {name: value for name, value in kwargs.items() if value is not None}
        if stop:
            said["stop"] = stop
        tools = said.pop("tools", None)
        if not tools:
            return self.runnable, said
        bound = {name: said.pop(name) for name in _BOUND_TOGETHER if name in said}
        return self.runnable.bind_tools([as_tool(tool) for tool in tools], **bound), said

    def _chunks(self, model: Any) -> Chunks:
        tools = _base(model).tools or ()
        blocks = self.output_version == "v1" or has_server_tools(tools)
        return Chunks(blocks=blocks, calls=bool(tools))

    # ---- new models from this one ----------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, LangChainAnswer]:
        """A model that may call `tools`: LangChain's and streamfold's tools, functions, classes
        with fields, JSON schemas, and dicts of the provider.

        `tool_choice`, `parallel_tool_calls` and `strict` as in streamfold's `bind_tools`; other
        keywords go to every call. What cannot be is a ConfigurationError of the call, before its
        request.
        """
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return self.bind(tools=[as_tool(tool) for tool in tools], **kwargs)

    def with_structured_output(
        self,
        schema: Any,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """A runnable that answers with objects of `schema`, by streamfold's rules: classes come
        back as validated instances, and what does not fit is a StructuredOutputError, or, with
        `include_raw`, the `parsing_error` beside `raw` and `parsed`. `kwargs` go to every call."""
        known, convert = as_schema(schema)
        asked = structured(_AsOne(self.runnable), known, method, False, strict)
        model = self.model_copy(update={"runnable": asked.model}).bind(
            ls_structured_output_format={"kwargs": {"method": asked.method}, "schema": schema},
            **kwargs,
        )
        reader: Runnable[Any, Any] = Reader(asked, known, convert)
        if not include_raw:
            return model | reader
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | reader, parsing_error=lambda _: None
        )
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks(
            [failed], exception_key="parsing_error"
        )

    # ---- counting --------------------------------------------------------------------------------

    def get_num_tokens(self, text: str) -> int:
        """About how many tokens `text` has; no tokenizer is loaded and no vendor asked."""
        if self.custom_get_token_ids is not None:
            return len(self.custom_get_token_ids(text))
        return int(_base(self.runnable).get_num_tokens(text))

    def get_num_tokens_from_messages(
        self, messages: Sequence[LangChainMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """About how many tokens `messages` have, by streamfold's `count_tokens_approximately`."""
        return count_tokens_approximately(_input(messages))


# ---- the streamfold model ------------------------------------------------------------------------


def _runnable(model: Any, params: dict[str, Any]) -> Any:
    if isinstance(model, str):
        return init_chat_model(model, **params)
    if isinstance(model, ConfigurableModel):
        model = model.model()
    base = _base(model)
    if not params:
        return model
    if model is not base:
        raise ConfigurationError(
            f"parameters ({', '.join(params)}) are given for {shown(model)}: give them to the "
            "model inside"
        )
    return base.model_copy(update=params)


def _base(runnable: Any) -> Any:
    """The model inside its retries and fallbacks: the first that is asked."""
    while not isinstance(runnable, ChatModel):
        inner = getattr(runnable, "bound", None)
        inner = next(iter(getattr(runnable, "runnables", ())), None) if inner is None else inner
        if inner is None:
            raise ConfigurationError(
                f"model is {shown(runnable)}: expected a streamfold model, or the name of one"
            )
        runnable = inner
    return runnable


class _AsOne:
    """A model with retries or fallbacks as `structured` wants it: bound as a whole, and known by
    the model inside."""

    def __init__(self, runnable: Any) -> None:
        self._config = runnable._config
        self.bind = runnable.bind
        self.bind_tools = runnable.bind_tools
        self._inside = _base(runnable)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inside, name)


# ---- values --------------------------------------------------------------------------------------


def _input(messages: Sequence[LangChainMessage]) -> list[Any]:
    return [from_langchain(message) for message in messages]


def _result(answer: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=to_langchain(answer))])
