"""A run: one execution of a model, tool or runnable, its place in the tree of runs, and who hears
of it.

The run that is going on is in a context variable, so what is called inside finds its parent; a
config that is passed on by hand says it, too. Tags, metadata, callbacks and `configurable` are
inherited by nested runs, the name and the id are not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from uuid import UUID, uuid4

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from .callbacks import (
    ChatGeneration,
    ChunksHandler,
    Listener,
    LLMResult,
    handlers_of,
    listeners,
    notify,
)
from .chunks import AIMessageChunk, Received
from .config import DEFAULT_CONCURRENCY, Inherited, RunnableConfig, merge_configs
from .errors import ConfigurationError, RecursionLimitError, StreamfoldError
from .messages import AIMessage
from .net import portal

__all__ = [
    "Run",
    "adispatch_custom_event",
    "begin",
    "current_run",
    "dispatch_custom_event",
    "in_thread",
    "inherited",
    "inside",
    "told",
    "watched",
]

T = TypeVar("T")

DEFAULT_DEPTH: Final = 25

_current: ContextVar[Run | None] = ContextVar("streamfold_run", default=None)


class Run:
    """One run. `handlers` hear of it; `config` is what nested runs inherit; `streamed` says that
    somebody reads it, or a run above it, as a stream."""

    __slots__ = ("config", "handlers", "id", "kind", "name", "parent", "parent_ids", "streamed")

    def __init__(
        self, kind: str, name: str, config: RunnableConfig, parent: Run | None, streamed: bool
    ) -> None:
        self.kind = kind
        self.name = config.get("run_name") or name
        given = config.get("run_id")
        self.id: UUID = given if isinstance(given, UUID) else UUID(given) if given else uuid4()
        self.parent = parent
        self.parent_ids: list[str] = []
        self.streamed = streamed
        if parent is not None:
            self.parent_ids = [*parent.parent_ids, str(parent.id)]
            self.streamed = streamed or parent.streamed
        self.config = config
        self.handlers = handlers_of(config.get("callbacks"))

    @property
    def keywords(self) -> dict[str, Any]:
        """What every handler is told."""
        return {
            "run_id": self.id,
            "parent_run_id": self.parent.id if self.parent is not None else None,
            "parent_ids": list(self.parent_ids),
            "tags": list(self.config.get("tags", ())),
            "metadata": dict(self.config.get("metadata", {})),
            "name": self.name,
        }

    def listeners(self, method: str) -> tuple[Listener, ...]:
        """Who hears of `method`, found once for the many times it is told."""
        return listeners(self.handlers, method)

    async def tell(self, method: str, *args: Any, last: bool = False, **more: Any) -> None:
        """Call a method of the handlers. See `notify`."""
        if hearing := self.listeners(method):
            await notify(hearing, args, {**self.keywords, **more}, last=last)

    @property
    def wants_tokens(self) -> bool:
        """Whether somebody wants to hear the tokens of a call that is not streamed: a handler that
        says so, or, where a run above is read as a stream, any that hears them."""
        if any(getattr(handler, "wants_tokens", False) for handler in self.handlers):
            return True
        return self.streamed and bool(self.listeners("on_llm_new_token"))


def current_run() -> Run | None:
    """The run that is going on here."""
    return _current.get()


def begin(
    kind: str,
    name: str,
    config: Mapping[str, Any] | None,
    *,
    counts: bool = False,
    streamed: bool = False,
) -> Run | None:
    """The run for a call with `config`, as a child of the one that is going on, or of the one that
    `config` was handed to.

    None if nobody listens, unless it `counts`: runnables are counted for `recursion_limit`.
    """
    given = config.get("callbacks") if config else None
    parent = getattr(given, "run", None) or _current.get()
    merged = merge_configs(inherited(parent), config)
    run = Run(kind, name, merged, parent, streamed)
    if counts:
        limit = merged.get("recursion_limit", DEFAULT_DEPTH)
        if len(run.parent_ids) >= limit:
            raise RecursionLimitError(
                f"runnables are nested {len(run.parent_ids) + 1} deep: "
                f"recursion_limit is {limit} (config={{'recursion_limit': ...}} raises it)"
            )
        return run
    return run if run.handlers else None


_INHERITED: Final = ("tags", "metadata", "configurable", "recursion_limit", "max_concurrency")


def inherited(parent: Run | None) -> RunnableConfig:
    """What runs nested in `parent` take over from its configuration."""
    if parent is None:
        return {}
    config: dict[str, Any] = {k: v for k, v in parent.config.items() if k in _INHERITED}
    if parent.handlers:
        config["callbacks"] = Inherited(parent.handlers, parent)
    return config  # type: ignore[return-value]


@contextmanager
def inside(run: Run) -> Iterator[None]:
    """What is called in this block is nested in `run`."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


# ---- what handlers are told ----------------------------------------------------------------------


class Outcome:
    """What a run has come to, for its last word: `result` when it is done, else `partial` of the
    error (None: it was cancelled), as keywords."""

    result: Any = None

    def __init__(self, partial: Callable[[Exception | None], dict[str, Any]]) -> None:
        self.partial = partial


#: By the kind of a run: how its start and its three ends are called.
_WORDS: Final = {
    "chat_model": ("on_chat_model_start", "on_llm_end", "on_llm_error", "on_llm_cancel"),
    "chain": ("on_chain_start", "on_chain_end", "on_chain_error", "on_chain_cancel"),
    "tool": ("on_tool_start", "on_tool_end", "on_tool_error", "on_tool_cancel"),
}


@asynccontextmanager
async def told(
    run: Run,
    *start: Any,
    partial: Callable[[Exception | None], dict[str, Any]] = lambda error: {},
    **more: Any,
) -> AsyncIterator[Outcome]:
    """The handlers of `run` hear its start, and exactly one end when the block is left: done,
    failed or cancelled, whatever handlers raise in between."""
    begun, done, failed, cancelled = _WORDS[run.kind]
    outcome = Outcome(partial)
    try:
        await run.tell(begun, *start, **more)
        yield outcome
    except Exception as error:
        await run.tell(failed, error, last=True, **outcome.partial(error))
        raise
    except BaseException:
        # Cancelled, or left by its reader: what is to be awaited here would be cancelled, too.
        with anyio.CancelScope(shield=True):
            await run.tell(cancelled, last=True, **outcome.partial(None))
        raise
    await run.tell(done, outcome.result)


async def watched(
    run: Run,
    batches: AsyncGenerator[list[AIMessageChunk], None],
    messages: list[Any],
    raw_input: Any,
    serialized: dict[str, Any],
    *,
    tokens: bool,
    starts: bool = False,
    profile: Mapping[str, Any] | None = None,
) -> AsyncGenerator[list[AIMessageChunk], None]:
    """`batches`, while the handlers of `run` hear of its start, of every chunk if it is to be heard
    as `tokens`, and of its end. With `starts`, an empty batch follows the start. `profile`: what
    the caller said of the model."""
    received = Received()

    def partial(error: Exception | None) -> dict[str, Any]:
        return {"response": _result(_partial(error, received), profile)}

    begun = told(run, serialized, [messages], partial=partial, raw_input=raw_input)
    async with begun as outcome, aclosing(batches):
        if starts:
            yield []
        hear = _hearing(run) if tokens else None
        async for batch in batches:
            received.extend(batch)
            if hear is not None:
                await hear(batch)
            yield batch
        outcome.result = _result(received.to_message(None), profile)


def _hearing(run: Run) -> Callable[[list[AIMessageChunk]], Awaitable[None]] | None:
    """What tells the handlers of `run` about the chunks of a network read, one by one, or at once
    if each of them has a method for that. None if nobody listens."""
    told = run.listeners("on_llm_new_token")
    at_once = [(one, one.on_llm_chunks) for one, _ in told if isinstance(one, ChunksHandler)]
    keywords = run.keywords

    async def all_of(chunks: list[AIMessageChunk]) -> None:
        await notify(at_once, (chunks, run.id), {})

    async def each_of(chunks: list[AIMessageChunk]) -> None:
        for chunk in chunks:
            keywords["chunk"] = chunk  # each call gets a copy
            await notify(told, (chunk.text,), keywords)

    if not told:
        return None
    return all_of if len(at_once) == len(told) else each_of


def _partial(error: Exception | None, received: Received) -> AIMessage | None:
    if isinstance(error, StreamfoldError) and error.partial is not None:
        return error.partial
    return received.to_message("cancelled" if error is None else "error")


def _result(message: AIMessage | None, profile: Mapping[str, Any] | None) -> LLMResult | None:
    if message is None:
        return None
    return LLMResult([[ChatGeneration(message)]], profile=profile)


async def adispatch_custom_event(
    name: str, data: Any, *, config: Mapping[str, Any] | None = None
) -> None:
    """Send an event of your own from inside a runnable or tool: handlers hear `on_custom_event`,
    and it shows in `astream_events`. `config`: the run's, where the context does not say it.

    Raises ConfigurationError outside of any run.
    """
    run = getattr((config or {}).get("callbacks"), "run", None) or current_run()
    if run is None:
        raise ConfigurationError(
            f"custom event {name!r} was sent outside of a run: send it from inside a @runnable "
            "or @tool, or pass that run's config"
        )
    keywords = run.keywords
    del keywords["name"]  # the name is the event's
    await notify(run.listeners("on_custom_event"), (name, data), keywords)


def dispatch_custom_event(name: str, data: Any, *, config: Mapping[str, Any] | None = None) -> None:
    """`adispatch_custom_event`, for sync functions."""
    portal.run(lambda: adispatch_custom_event(name, data, config=config))


# ---- sync functions ------------------------------------------------------------------------------

#: Threads for the sync functions of one depth at a time, in this event loop.
_threads: RunVar[dict[int, anyio.CapacityLimiter]] = RunVar("streamfold_threads")


async def in_thread(
    run: Run, function: Callable[..., T], *args: Any, owner: portal.Owner | None = None
) -> T:
    """Call a sync function of `run` in a thread. If this is cancelled, so are the calls of sync
    methods that the function waits for (and all of `owner`, if steps of a generator share one); it
    is then left to itself.

    Each depth has threads of its own: functions that wait for nested ones never keep those from
    getting a thread.
    """
    try:
        limiters = _threads.get()
    except LookupError:
        limiters = {}
        _threads.set(limiters)
    limiter = limiters.setdefault(len(run.parent_ids), anyio.CapacityLimiter(DEFAULT_CONCURRENCY))
    async with portal.owned(owner):
        return await anyio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=limiter
        )
