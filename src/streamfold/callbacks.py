"""Handlers: who is told what happens in a run, and how.

A handler has any of the methods of `BaseCallbackHandler`, sync or async, with the signatures that
LangChain's handlers have. Handlers are called in order. An error in one is logged and goes no
further, unless the handler says `raise_error = True`. Without handlers nothing here is called, and
a chunk costs no more.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID

import msgspec

from .errors import ConfigurationError
from .messages import AIMessage
from .usage import UsageMetadata, add_usage

__all__ = [
    "AsyncCallbackHandler",
    "BaseCallbackHandler",
    "ChatGeneration",
    "ConsoleCallbackHandler",
    "LLMResult",
    "UsageMetadataCallbackHandler",
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


class BaseCallbackHandler:
    """Override what you want to hear. The keywords of every method include `run_id`,
    `parent_run_id`, `tags`, `metadata` and `name`."""

    #: Whether an error in this handler stops the run.
    raise_error: bool = False
    #: Whether `ainvoke` streams under the hood so that `on_llm_new_token` hears the tokens.
    wants_tokens: bool = False

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **kwargs: Any
    ) -> Any:
        """A model is about to be asked; `messages` holds the one conversation."""

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **kwargs: Any) -> Any:
        """A chunk came; `token` is its text."""

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> Any:
        """The model has answered."""

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> Any:
        """The model failed; the keyword `response` has what had arrived, or None."""

    def on_llm_cancel(self, **kwargs: Any) -> Any:
        """The call was cancelled or left; the keyword `response` has what had arrived, or None."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> Any:
        """A runnable begins."""

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> Any:
        """A runnable is done."""

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> Any:
        """A runnable failed."""

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> Any:
        """A tool begins; the keyword `inputs` has its arguments."""

    def on_tool_end(self, output: Any, **kwargs: Any) -> Any:
        """A tool is done."""

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> Any:
        """A tool failed."""

    def on_retry(self, retry_state: Any, **kwargs: Any) -> Any:
        """A call failed and is made again; `retry_state` has `attempt`, `error` and `pause`."""

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> Any:
        """A runnable sent an event of its own."""


class AsyncCallbackHandler(BaseCallbackHandler):
    """The same, for handlers whose methods are async: override them with ``async def``."""


_METHODS: Final = tuple(name for name in vars(BaseCallbackHandler) if name.startswith("on_"))
_ambient: ContextVar[tuple[Any, ...]] = ContextVar("streamfold_handlers", default=())


def handlers_of(callbacks: Any) -> tuple[Any, ...]:
    """The handlers in a config's `callbacks`, and those that the context adds.

    Raises ConfigurationError for what has none of a handler's methods.
    """
    if callbacks is None:
        found: tuple[Any, ...] = ()
    elif isinstance(callbacks, Iterable):
        found = tuple(callbacks)
    else:
        found = (callbacks,)
    for handler in found:
        if not any(callable(getattr(handler, name, None)) for name in _METHODS):
            raise ConfigurationError(
                f"callback {handler!r:.80} has none of the methods of a handler: "
                f"expected one of {', '.join(_METHODS[:4])}, ..."
            )
    ambient = tuple(handler for handler in _ambient.get() if handler not in found)
    return found + ambient


async def notify(handlers: Iterable[Any], method: str, *args: Any, **kwargs: Any) -> None:
    """Call `method` of each handler, in order, and await what is to be awaited."""
    for handler in handlers:
        function = getattr(handler, method, None)
        if function is None:
            continue
        try:
            result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                await result
        except Exception:
            if getattr(handler, "raise_error", False):
                raise
            log.warning("error in %s.%s", type(handler).__name__, method, exc_info=True)


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
        for answers in response.generations if response is not None else ():
            for generation in answers:
                self._add(generation.message, kwargs.get("metadata") or {})

    def on_llm_error(
        self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        self.on_llm_end(response, **kwargs)  # what the provider has counted so far, it bills

    def on_llm_cancel(self, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        self.on_llm_end(response, **kwargs)

    def _add(self, message: AIMessage, asked: Mapping[str, Any]) -> None:
        """Count `message`; where a wire does not name the model, the one that was asked did it."""
        model, usage = asked.get("ls_model_name"), message.usage_metadata
        name = message.response_metadata.get("model_name") or model
        if not name or usage is None:
            return
        price = _price_of(message, asked.get("ls_provider"), model)
        with self._lock:
            self._usage[name] = add_usage(self._usage.get(name), usage) or usage
            before = self._cost.get(name, 0.0)
            self._cost[name] = None if price is None or before is None else before + price

    def __repr__(self) -> str:
        return f"UsageMetadataCallbackHandler({self.usage_metadata!r})"


def _price_of(message: AIMessage, provider: str | None, model: str | None) -> float | None:
    from .profiles import usage_cost

    return usage_cost(message, provider=provider, model=model)


@contextmanager
def get_usage_metadata_callback(name: str = "") -> Iterator[UsageMetadataCallbackHandler]:
    """A usage handler for every run inside the ``with`` block, also in tasks and threads that are
    started there with its context. Nothing of it is left afterwards."""
    handler = UsageMetadataCallbackHandler()
    token = _ambient.set((*_ambient.get(), handler))
    try:
        yield handler
    finally:
        _ambient.reset(token)


class ConsoleCallbackHandler(BaseCallbackHandler):
    """Prints runs as they happen, as a tree with timings. `write` takes each line."""

    def __init__(self, write: Any = print) -> None:
        self._write = write
        self._started: dict[UUID, tuple[int, float]] = {}

    def _begin(self, kind: str, shown: str, kwargs: dict[str, Any]) -> None:
        parent = self._started.get(kwargs["parent_run_id"]) if kwargs["parent_run_id"] else None
        depth = parent[0] + 1 if parent else 0
        self._started[kwargs["run_id"]] = (depth, time.perf_counter())
        self._write(f"{'  ' * depth}▶ {kind} {kwargs.get('name')}: {shown}")

    def _end(self, mark: str, shown: str, kwargs: dict[str, Any]) -> None:
        depth, start = self._started.pop(kwargs["run_id"], (0, time.perf_counter()))
        seconds = time.perf_counter() - start
        self._write(f"{'  ' * depth}{mark} {kwargs.get('name')} ({seconds:.2f} s): {shown}")

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **kwargs: Any
    ) -> None:
        self._begin("model", _short(messages[0][-1].text if messages[0] else ""), kwargs)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self._end("✓", _short(response.generations[0][0].text), kwargs)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._end("✗", f"{type(error).__name__}: {_short(str(error))}", kwargs)

    def on_llm_cancel(self, **kwargs: Any) -> None:
        self._end("■", "cancelled", kwargs)

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **kwargs: Any) -> None:
        self._begin("run", _short(repr(inputs)), kwargs)

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self._end("✓", _short(repr(outputs)), kwargs)

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self._end("✗", f"{type(error).__name__}: {_short(str(error))}", kwargs)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **kwargs: Any) -> None:
        self._begin("tool", _short(input_str), kwargs)

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self._end("✓", _short(repr(output)), kwargs)

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self._end("✗", f"{type(error).__name__}: {_short(str(error))}", kwargs)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 70 else text[:69] + "…"
