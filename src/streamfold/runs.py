"""A run: one execution of a model, tool or runnable, its place in the tree of runs, and who hears
of it.

The run that is going on is in a context variable, so what is called inside finds its parent; tags,
metadata, callbacks and `configurable` are inherited by it, the name and the id are not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any, Final
from uuid import UUID, uuid4

from .callbacks import ChatGeneration, LLMResult, handlers_of, notify
from .chunks import AIMessageChunk, TextChunk, fold_events
from .config import RunnableConfig, merge_configs
from .errors import RecursionLimitError, StreamfoldError
from .messages import AIMessage

__all__ = ["Run", "begin", "current_run", "inherited", "inside", "watched"]

DEFAULT_DEPTH: Final = 25

_current: ContextVar[Run | None] = ContextVar("streamfold_run", default=None)


class Run:
    """One run. `handlers` hear of it; `config` is what nested runs inherit."""

    __slots__ = ("config", "handlers", "id", "kind", "name", "parent", "parent_ids")

    def __init__(self, kind: str, name: str, config: RunnableConfig, parent: Run | None) -> None:
        self.kind = kind
        self.name = config.get("run_name") or name
        given = config.get("run_id")
        self.id: UUID = given if isinstance(given, UUID) else UUID(given) if given else uuid4()
        self.parent = parent
        self.parent_ids: list[str] = []
        if parent is not None:
            self.parent_ids = [*parent.parent_ids, str(parent.id)]
        self.config = config
        self.handlers = handlers_of(config.get("callbacks"))

    @property
    def keywords(self) -> dict[str, Any]:
        """What every handler is told."""
        return {
            "run_id": self.id,
            "parent_run_id": self.parent.id if self.parent is not None else None,
            "tags": list(self.config.get("tags", ())),
            "metadata": dict(self.config.get("metadata", {})),
            "name": self.name,
        }

    async def tell(self, method: str, *args: Any, **kwargs: Any) -> None:
        """Call a method of the handlers."""
        if self.handlers:
            await notify(self.handlers, method, *args, **self.keywords, **kwargs)

    @property
    def wants_tokens(self) -> bool:
        """Whether somebody wants to hear the tokens of a call that is not streamed."""
        return any(getattr(handler, "wants_tokens", False) for handler in self.handlers)


def current_run() -> Run | None:
    """The run that is going on here."""
    return _current.get()


def begin(
    kind: str, name: str, config: Mapping[str, Any] | None, *, counts: bool = False
) -> Run | None:
    """The run for a call with `config`, as a child of the one that is going on.

    None if nobody listens, unless it `counts`: runnables are counted for `recursion_limit`.
    """
    parent = _current.get()
    merged = merge_configs(inherited(parent), config)
    run = Run(kind, name, merged, parent)
    if counts:
        limit = merged.get("recursion_limit", DEFAULT_DEPTH)
        if len(run.parent_ids) >= limit:
            raise RecursionLimitError(
                f"runnables are nested {len(run.parent_ids) + 1} deep: "
                f"recursion_limit is {limit} (config={{'recursion_limit': ...}} raises it)"
            )
        return run
    return run if run.handlers else None


def inherited(parent: Run | None) -> RunnableConfig:
    """What runs nested in `parent` take over from its configuration."""
    if parent is None:
        return {}
    kept = ("tags", "metadata", "callbacks", "configurable", "recursion_limit", "max_concurrency")
    return {key: parent.config[key] for key in kept if key in parent.config}  # type: ignore[literal-required,return-value]


@contextmanager
def inside(run: Run) -> Iterator[None]:
    """What is called in this block is nested in `run`."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


async def watched(
    run: Run,
    batches: AsyncGenerator[list[AIMessageChunk], None],
    messages: list[Any],
    raw_input: Any,
    serialized: dict[str, Any],
) -> AsyncGenerator[list[AIMessageChunk], None]:
    """`batches`, while the handlers of `run` hear of every chunk and of exactly one end: done,
    failed or cancelled."""
    await run.tell("on_chat_model_start", serialized, [messages], raw_input=raw_input)
    received: list[AIMessageChunk] = []
    keywords = run.keywords
    try:
        async with aclosing(batches):
            async for batch in batches:
                received.extend(batch)
                for chunk in batch:
                    await notify(
                        run.handlers, "on_llm_new_token", chunk.text, chunk=chunk, **keywords
                    )
                yield batch
    except Exception as error:
        await run.tell("on_llm_error", error, response=_result(_partial(error, received)))
        raise
    except BaseException:
        # Cancelled, or left by its reader: what is to be awaited here would be cancelled, too.
        import anyio

        with anyio.CancelScope(shield=True):
            await run.tell("on_llm_cancel", response=_result(_folded(received, "cancelled")))
        raise
    message = _folded(received, None)
    await run.tell("on_llm_end", _result(message))


def _partial(error: Exception, received: list[AIMessageChunk]) -> AIMessage | None:
    if isinstance(error, StreamfoldError) and error.partial is not None:
        return error.partial
    return _folded(received, "error")


def _folded(received: list[AIMessageChunk], reason: str | None) -> AIMessage | None:
    if not received:
        return None
    items = [i for c in received for i in ((c,) if c.__class__ is TextChunk else c.events)]
    return fold_events(items).to_message(reason)


def _result(message: AIMessage | None) -> LLMResult | None:
    return None if message is None else LLMResult([[ChatGeneration(message)]])
