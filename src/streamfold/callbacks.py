"""Handlers: who is told what happens in a run, and how.

A handler has any of the methods of `BaseCallbackHandler`, sync or async, with the signatures that
LangChain's handlers have. Handlers are called in order, and all of them are told, whatever one of
them does. An error in one is logged and goes no further, unless the handler says
`raise_error = True`. Without handlers nothing here is called, and a chunk costs no more.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from .errors import ConfigurationError
from .messages import AIMessage
from .usage import UsageMetadata, add_usage

if TYPE_CHECKING:
    from uuid import UUID

    from .console import ConsoleCallbackHandler
    from .runs import adispatch_custom_event, dispatch_custom_event

__all__ = [
    "AsyncCallbackHandler",
    "BaseCallbackHandler",
    "ChatGeneration",
    "ChunksHandler",
    "ConsoleCallbackHandler",
    "LLMResult",
    "UsageMetadataCallbackHandler",
    "adispatch_custom_event",
    "dispatch_custom_event",
    "get_usage_metadata_callback",
]

log = logging.getLogger("streamfold")


class ChatGeneration(msgspec.Struct, frozen=True):
    """One answer of a model."""

    message: AIMessage

    @property
    def text(self) -> str:
        return self.message.text


class LLMResult(msgspec.Struct, frozen=True):
    """What `on_llm_end` gets: ``response.generations[0][0].message`` is the answer."""

    generations: list[list[ChatGeneration]]
    llm_output: dict[str, Any] | None = None
    profile: Mapping[str, Any] | None = None  # what the caller said of the model that was asked

    def cost(self, asked: Mapping[str, Any]) -> float | None:
        """What the answer costs in US dollars; None if that is not known. `asked`: the metadata of
        the run."""
        from .profiles import usage_cost

        return usage_cost(
            self.generations[0][0].message,
            profile=self.profile,
            provider=asked.get("ls_provider"),
            model=asked.get("ls_model_name"),
        )


class BaseCallbackHandler:
    """Override what you want to hear. The keywords of every method include `run_id`,
    `parent_run_id`, `parent_ids` (strs, from the root down), `tags`, `metadata` and `name`.

    Of every run you hear one start and exactly one end: end, error or cancel.
    """

    #: Whether an error in this handler stops the run.
    raise_error: bool = False
    #: Whether `ainvoke` streams under the hood so that `on_llm_new_token` hears the tokens.
    wants_tokens: bool = False
    #: Kinds of runs that this handler does not want to hear of (`ignore_agent`: tools).
    ignore_llm: bool = False
    ignore_chat_model: bool = False
    ignore_chain: bool = False
    ignore_agent: bool = False
    ignore_retry: bool = False
    ignore_custom_event: bool = False

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **kwargs: Any
    ) -> Any:
        """A model is about to be asked; `messages` holds the one conversation."""

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> Any:
        """The same as text, for handlers that have no `on_chat_model_start` of their own."""

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> Any:
        """A chunk of a streamed answer came; `token` is its text."""

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> Any:
        """The model has answered."""

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> Any:
        """The model failed; the keyword `response` has what had arrived, or None."""

    def on_llm_cancel(self, **kwargs: Any) -> Any:
        """The call was cancelled or left; the keyword `response` has what had arrived, or None."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> Any:
        """A runnable begins."""

    def on_chain_stream(self, chunk: Any, **kwargs: Any) -> Any:
        """A runnable gave an item; one that is no generator gives one."""

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> Any:
        """A runnable is done."""

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> Any:
        """A runnable failed; the keyword `outputs` has what it had given, or None."""

    def on_chain_cancel(self, **kwargs: Any) -> Any:
        """A runnable was cancelled; the keyword `outputs` has what it had given, or None."""

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> Any:
        """A tool begins; the keyword `inputs` has its arguments."""

    def on_tool_end(self, output: Any, **kwargs: Any) -> Any:
        """A tool is done."""

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> Any:
        """A tool failed; the keyword `tool_call_id` says in which call, or is None."""

    def on_tool_cancel(self, **kwargs: Any) -> Any:
        """A tool was cancelled; the keyword `tool_call_id` says in which call, or is None."""

    def on_retry(self, retry_state: Any, **kwargs: Any) -> Any:
        """A call failed and is made again; `retry_state` has `attempt`, `error` and `pause`."""

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> Any:
        """A runnable sent an event of its own: see `adispatch_custom_event`."""


class AsyncCallbackHandler(BaseCallbackHandler):
    """The same, for handlers whose methods are async: override them with ``async def``."""


class ChunksHandler(BaseCallbackHandler):
    """For what must cost little per chunk: where all who hear the tokens of a run are of this kind,
    they hear of those of a network read at once, instead of `on_llm_new_token` for each."""

    def on_llm_chunks(self, chunks: Sequence[Any], run_id: UUID) -> Any:
        """The chunks of one network read."""
        raise NotImplementedError


# ---- who listens ---------------------------------------------------------------------------------

#: Every method, and what it does where nobody overrides it: nothing.
_SILENT: Final = {name: f for name, f in vars(BaseCallbackHandler).items() if name[:3] == "on_"}
#: The flag by which a handler says that it does not want to hear a method.
_IGNORE: Final = {
    "on_chat_model_start": "ignore_chat_model",
    "on_retry": "ignore_retry",
    "on_custom_event": "ignore_custom_event",
    "on_llm": "ignore_llm",
    "on_chain": "ignore_chain",
    "on_tool": "ignore_agent",
}

_ambient: ContextVar[tuple[Any, ...]] = ContextVar("streamfold_handlers", default=())


def handlers_of(callbacks: Any) -> tuple[Any, ...]:
    """The handlers in a config's `callbacks`, and those that the context adds; each once."""
    found = (*_listed(callbacks), *_ambient.get())
    return tuple({id(handler): handler for handler in found}.values())


def _listed(callbacks: Any) -> tuple[Any, ...]:
    if callbacks is None:
        return ()
    return tuple(callbacks) if isinstance(callbacks, Iterable) else (callbacks,)


def check_handlers(callbacks: Any) -> None:
    """Raise ConfigurationError for what has none of a handler's methods."""
    for handler in _listed(callbacks):
        _check_handler(handler)


def _check_handler(handler: Any) -> None:
    if isinstance(handler, type):
        raise ConfigurationError(
            f"callback {handler!r:.80} is a class: expected a handler, {handler.__name__}()"
        )
    if not any(callable(getattr(handler, name, None)) for name in _SILENT):
        raise ConfigurationError(
            f"callback {handler!r:.80} has none of the methods of a handler: "
            f"expected one of {', '.join(_SILENT)}"
        )


Listener = tuple[Any, Callable[..., Any]]


def listeners(handlers: Iterable[Any], method: str) -> tuple[Listener, ...]:
    """Those of `handlers` that do something when they hear `method`, each with what they do."""
    found = ((handler, _heard(handler, method)) for handler in handlers)
    return tuple((handler, hear) for handler, hear in found if hear is not None)


def _heard(handler: Any, method: str) -> Callable[..., Any] | None:
    flag = _IGNORE.get(method) or _IGNORE["_".join(method.split("_", 2)[:2])]
    if getattr(handler, flag, False):
        return None
    hear = getattr(handler, method, None)
    if hear is not None and getattr(hear, "__func__", None) is not _SILENT[method]:
        return hear  # type: ignore[no-any-return]
    if method == "on_chat_model_start":
        as_text = _heard(handler, "on_llm_start")
        return None if as_text is None else _start_as_text(as_text)
    return None


def _start_as_text(hear: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hear)
    def start(serialized: Any, messages: Sequence[Sequence[Any]], **kwargs: Any) -> Any:
        prompts = [
            "\n".join(f"{_SPEAKERS.get(m.type, m.type)}: {m.text}" for m in conversation)
            for conversation in messages
        ]
        return hear(serialized, prompts, **kwargs)

    return start


_SPEAKERS: Final = {"human": "Human", "ai": "AI", "system": "System", "tool": "Tool"}


# ---- telling them --------------------------------------------------------------------------------


async def notify(
    told: Sequence[Listener], args: Sequence[Any], kwargs: Mapping[str, Any], *, last: bool = False
) -> None:
    """Call all of `told`, in order, and await what is to be awaited.

    What a handler with `raise_error` raises is raised once all of them have heard; `last` says that
    the run fails or is cancelled anyway, and then it is logged, too.
    """
    failure: Exception | None = None
    for place, (handler, hear) in enumerate(told):
        try:
            result = hear(*args, **kwargs)
            if result is not None and inspect.isawaitable(result):
                await result
        except Exception as error:
            if getattr(handler, "raise_error", False) and not last:
                failure = failure or error
            else:
                what = getattr(hear, "__name__", "a method")
                log.warning("error in %s.%s", type(handler).__name__, what, exc_info=True)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):  # the others hear of it all the same
                await notify(told[place + 1 :], args, kwargs, last=True)
            raise
    if failure is not None:
        raise failure


# ---- usage ---------------------------------------------------------------------------------------


class UsageMetadataCallbackHandler(BaseCallbackHandler):
    """Adds up the tokens of all runs it hears of.

    `usage_metadata` has an entry per model that answered; `cost` is their price in US dollars by
    the profiles, per model, with None where a price is not known.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage: dict[str, UsageMetadata] = {}
        self._cost: dict[str, float | None] = {}

    @property
    def usage_metadata(self) -> dict[str, UsageMetadata]:
        """Summed usage by model name, and nothing else."""
        with self._lock:
            return {name: usage.copy() for name, usage in self._usage.items()}

    @property
    def cost(self) -> dict[str, float | None]:
        """US dollars by model name; None where the price of a model is not known."""
        with self._lock:
            return dict(self._cost)

    def on_llm_end(self, response: LLMResult | None, **kwargs: Any) -> None:
        if response is not None:
            self._add(response, kwargs.get("metadata") or {})

    def on_llm_error(
        self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        self.on_llm_end(response, **kwargs)  # what the provider has counted so far, it bills

    def on_llm_cancel(self, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        self.on_llm_end(response, **kwargs)

    def _add(self, response: LLMResult, asked: Mapping[str, Any]) -> None:
        """Count an answer; where a wire does not name the model, the one that was asked did it."""
        message = response.generations[0][0].message
        name = message.response_metadata.get("model_name") or asked.get("ls_model_name")
        usage = message.usage_metadata
        if not name or usage is None:
            return
        price = response.cost(asked)
        with self._lock:
            self._usage[name] = add_usage(self._usage.get(name), usage) or usage
            before = self._cost.get(name, 0.0)
            self._cost[name] = None if price is None or before is None else before + price

    def __repr__(self) -> str:
        return f"UsageMetadataCallbackHandler({self.usage_metadata!r})"


@contextmanager
def get_usage_metadata_callback(name: str = "") -> Iterator[UsageMetadataCallbackHandler]:
    """A usage handler for every run inside the ``with`` block, also in tasks and threads that are
    started there with its context. Nothing of it is left afterwards."""
    handler = UsageMetadataCallbackHandler()
    _ambient.set((*_ambient.get(), handler))
    try:
        yield handler
    finally:  # not by a token: a generator may be closed in another context than it began in
        _ambient.set(tuple(other for other in _ambient.get() if other is not handler))


# What stands on this module and is a name of it for users all the same: looked up late.
_LATE: Final = {
    "ConsoleCallbackHandler": "console",
    "adispatch_custom_event": "runs",
    "dispatch_custom_event": "runs",
}


def __getattr__(name: str) -> Any:
    home = _LATE.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__package__}.{home}"), name)
