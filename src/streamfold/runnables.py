"""`Runnable`: the methods by which everything here is called, async first.

A runnable has `ainvoke` and `_stream`; the rest follows from these two. The sync methods run the
async ones on the portal's loop: there is no second engine to keep in step.
"""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import anyio

from .batch import Batch, BatchStream, Configs, Inputs, in_hand
from .chunks import AIMessageChunk
from .config import merge_configs
from .errors import ConfigurationError, StreamInterruptedError
from .events import EventFilter, EventSink, checked_version, plain, task_events
from .json_fields import Field
from .message_stream import MessageStream
from .net import portal
from .progress import BatchSummary
from .stored import Stored

__all__ = ["ChunkStream", "FieldStreams", "Runnable"]

T = TypeVar("T")


class Runnable:
    """Call it with `invoke`, `stream` and `batch`, or their async twins with an `a` before."""

    _config: Mapping[str, Any] = {}  # what `with_config` gave it

    async def ainvoke(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        raise NotImplementedError

    def _stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[AIMessageChunk], None]]:
        """Check the call; return what starts it: chunks, a list for each network read."""
        raise NotImplementedError

    def _field_stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[], AsyncGenerator[list[Any], None]]:
        """`_stream`, for the fields of an object."""
        raise ConfigurationError(
            f"{type(self).__name__} gives no objects: stream_fields comes after "
            "with_structured_output"
        )

    @property
    def _grows(self) -> bool:
        """Whether each item of a stream stands for all that has come."""
        return False

    async def aclose(self) -> None:
        """Give back what this object holds in the running loop."""

    # ---- combinators -----------------------------------------------------------------------------

    def with_retry(
        self,
        *,
        retry_if_exception_type: Any = (Exception,),
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: Mapping[str, float] | None = None,
        stop_after_attempt: int = 3,
        restart_streams: bool = False,
    ) -> Any:
        """A runnable that is tried up to `stop_after_attempt` times, if it fails with one of the
        exceptions named (a class, or several).

        The pause between attempts is random and doubles, up to 8 seconds, or what the server asks
        for; `exponential_jitter_params` (`initial`, `max`, `exp_base`, `jitter`, in seconds)
        changes it, and without `wait_exponential_jitter` there is none.

        A stream is tried again only before its first chunk, unless `restart_streams`: then a chunk
        with a `Restart` event voids what had come (partial objects of structured output begin anew
        by themselves; a stream of other items has the event among them). What is no use to try
        again is not: a ConfigurationError, a budget that is used up.
        """
        from .resilience import RunnableRetry

        return RunnableRetry(
            self,
            retry_if_exception_type=retry_if_exception_type,
            wait_exponential_jitter=wait_exponential_jitter,
            exponential_jitter_params=exponential_jitter_params,
            stop_after_attempt=stop_after_attempt,
            restart_streams=restart_streams,
        )

    def with_fallbacks(
        self,
        fallbacks: Sequence[Any],
        *,
        exceptions_to_handle: Any = (Exception,),
        restart_streams: bool = False,
    ) -> Any:
        """A runnable that asks each of `fallbacks` in turn when this one fails with one of
        `exceptions_to_handle` (a class, or several); all get the same input and configuration.

        Streams as in `with_retry`. Handlers and events are told by `on_retry`, whose state has the
        name of who is asked now as `fallback`. A budget that is used up ends it, unless
        BudgetExceededError is named. Raises the first error if all fail, and ConfigurationError for
        fallbacks that are none.
        """
        from .resilience import RunnableWithFallbacks

        if not isinstance(fallbacks, list | tuple):
            raise ConfigurationError(
                f"fallbacks is {type(fallbacks).__name__}: expected a list of runnables"
            )
        return RunnableWithFallbacks(
            [self, *fallbacks],
            exceptions_to_handle=exceptions_to_handle,
            restart_streams=restart_streams,
        )

    # ---- async -----------------------------------------------------------------------------------

    def astream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> ChunkStream:
        """The answer chunk by chunk: ``async for chunk in model.astream("hi")``.

        Leaving the loop early closes the connection. Keep the stream in a variable and it is also
        an async context manager and has `aclose()`.
        """
        return ChunkStream(self._stream(input, config, **kwargs))

    def astream_message(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> MessageStream:
        """The answer as an object: ``async with model.astream_message("hi") as stream``, then
        iterate it for typed events, or its `text`, `reasoning`, `tool_calls`; `message()` has the
        result and `cancel()` ends it."""
        return MessageStream(self._stream(input, config, **kwargs))

    async def abatch(
        self,
        inputs: Inputs,
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[BatchSummary], Any] = False,
        journal: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """The answers to many inputs, in their order.

        - `inputs`: a list or any iterable, async or not. One that waits should be async: a plain
          generator runs on the event loop. An async generator is closed at the end.
        - `config`: for all calls, or a list with one for each; its `max_concurrency` (default 64)
          is how many calls are in flight at once, and how many inputs are taken ahead.
        - `return_exceptions`: errors take the answers' places. Otherwise the first one cancels the
          other calls and is raised, with the answers that were ready in its `finished` (a dict by
          index).
        - `progress`: True shows a bar on stderr (tqdm, ``streamfold[progress]``); a function, sync
          or async, is called with a `BatchSummary` at the beginning, after every item, and at the
          end, when it is `over`.
        - `journal`: the path of a file in which every answer is on disk as soon as it is there. The
          same batch with the same journal goes on where it was interrupted, however that was; items
          that failed are asked again.

        Raises ConfigurationError, before any request, for what cannot be a batch; JournalError for
        a journal of other inputs, another model or other parameters, or one that is in use.
        """
        batch = self._batch(inputs, config, return_exceptions, progress, journal, kwargs)
        return await batch.collect()

    def abatch_as_completed(
        self,
        inputs: Inputs,
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[BatchSummary], Any] = False,
        journal: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> BatchStream:
        """``(index, answer)`` of many inputs as they become ready. Parameters as in `abatch`.

        Leaving the loop cancels the calls that still run. A consumer that takes its time slows the
        calls down: no more answers wait for it than calls may be in flight. So a million inputs
        from a generator need the memory of a few; then `finished` of an error has only what was not
        handed out.
        """
        batch = self._batch(inputs, config, return_exceptions, progress, journal, kwargs)
        return BatchStream(batch)

    def _batch(
        self,
        inputs: Inputs,
        config: Configs,
        return_exceptions: bool,
        progress: bool | Callable[[BatchSummary], Any],
        journal: str | os.PathLike[str] | None,
        kwargs: Mapping[str, Any],
    ) -> Batch:
        return Batch(
            self,
            inputs,
            config,
            return_exceptions=return_exceptions,
            progress=progress,
            journal=journal,
            kwargs=kwargs,
        )

    def _stored(self, config: Mapping[str, Any], kwargs: Mapping[str, Any]) -> Stored:
        """How a journal keeps what this answers when it is called so."""
        return Stored(identity={"runnable": type(self).__name__, **kwargs})

    def astream_events(
        self,
        input: Any,
        config: Mapping[str, Any] | None = None,
        *,
        version: str = "v2",
        serialize: bool = False,
        include_names: Sequence[str] | None = None,
        include_types: Sequence[str] | None = None,
        include_tags: Sequence[str] | None = None,
        exclude_names: Sequence[str] | None = None,
        exclude_types: Sequence[str] | None = None,
        exclude_tags: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[dict[str, Any]]:
        """The run and all runs nested in it, as events (see `events.py`).

        `serialize` makes every event JSON-ready data. The filters go by run name, by type
        (`chat_model`, `chain`, `tool`, `retry`, `custom`) and by tag. Every run has one last event:
        end, error or cancel; an error is raised after its event.
        """
        checked_version(version)
        shown = EventFilter(
            include_names=include_names,
            include_types=include_types,
            include_tags=include_tags,
            exclude_names=exclude_names,
            exclude_types=exclude_types,
            exclude_tags=exclude_tags,
        )
        events = self._events(input, config, shown, kwargs)
        return _plain_events(events) if serialize else events

    def _events(
        self,
        input: Any,
        config: Mapping[str, Any] | None,
        shown: EventFilter,
        kwargs: Mapping[str, Any],
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Events of a run that may nest others: it runs in a task of its own."""

        async def run(put: Callable[[Sequence[dict[str, Any]]], Any]) -> None:
            listening = merge_configs(config, {"callbacks": [EventSink(shown, put)]})
            async with aclosing(self._stream(input, listening, **kwargs)()) as batches:
                async for _ in batches:
                    pass

        return task_events(run)

    # ---- sync ------------------------------------------------------------------------------------

    def stream_events(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Iterator[dict[str, Any]]:
        """`astream_events` as a plain iterator."""
        events = self.astream_events(input, config, **kwargs)  # what is wrong is said at once
        return portal.iterate(lambda: _singly(events))

    def invoke(self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        """`ainvoke`, waited for. Works in scripts, notebooks and threads; Ctrl-C cancels."""
        return portal.run(lambda: self.ainvoke(input, config, **kwargs))

    def stream(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """`astream` as a plain iterator: ``for chunk in model.stream("hi")``."""
        return portal.iterate(self._stream(input, config, **kwargs))

    def batch(
        self,
        inputs: Inputs,
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[BatchSummary], Any] = False,
        journal: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """`abatch`, waited for. Ctrl-C cancels the calls, and the KeyboardInterrupt has `finished`,
        too. A plain generator is run to its end first, in this thread."""
        listed = in_hand(inputs)
        batch = self._batch(listed, config, return_exceptions, progress, journal, kwargs)
        with _interrupted(batch):
            return portal.run(batch.collect)

    def batch_as_completed(
        self,
        inputs: Inputs,
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        progress: bool | Callable[[BatchSummary], Any] = False,
        journal: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """`abatch_as_completed` as a plain iterator. A generator of inputs runs on the event loop
        of the sync methods, in its thread. Ctrl-C as in `batch`, while the next answer is waited
        for; elsewhere in the loop it is as any other way to leave it."""
        batch = self._batch(inputs, config, return_exceptions, progress, journal, kwargs)
        return _as_completed(batch)

    def close(self) -> None:
        """`aclose` for the connections of the sync methods."""
        portal.run(self.aclose)

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@contextmanager
def _interrupted(batch: Batch) -> Iterator[None]:
    """A KeyboardInterrupt takes along what was finished, as errors do."""
    try:
        yield
    except KeyboardInterrupt as error:
        error.finished = batch.finished  # type: ignore[attr-defined]
        raise


def _as_completed(batch: Batch) -> Iterator[tuple[int, Any]]:
    with _interrupted(batch):
        yield from portal.iterate(lambda: _singly(BatchStream(batch)))


async def _plain_events(
    events: AsyncGenerator[dict[str, Any], None],
) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(events):
        async for event in events:
            yield {**event, "data": plain(event["data"]), "metadata": plain(event["metadata"])}


async def _singly(source: Any) -> AsyncGenerator[list[Any], None]:
    async with aclosing(source):
        async for item in source:
            yield [item]


class FieldStreams(Runnable):
    """A runnable whose answers may be objects, which come field by field."""

    def astream_fields(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> AsyncIterator[Field]:
        """The fields of the object as they become complete: ``(path, value)``.

        `path` is a tuple of keys and list indexes, such as ``("cast", 0, "name")``. A field comes
        once its value is complete: a text with its closing quote, an object or a list after all
        that is in it. The last pair has the empty path and the whole object, validated (with
        `include_raw` the dict with `raw`, `parsed` and `parsing_error`); what comes before is as
        the model wrote it. Where a stream is begun anew (`restart_streams`), so are the fields.

        Raises StructuredOutputError at the end, with the message in `raw`, for an answer that does
        not fit, and ConfigurationError where there is no `with_structured_output`.
        """
        return ChunkStream(self._field_stream(input, config, **kwargs))  # type: ignore[return-value]

    def stream_fields(
        self, input: Any, config: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> Iterator[Field]:
        """`astream_fields` as a plain iterator."""
        return portal.iterate(self._field_stream(input, config, **kwargs))


class ChunkStream:
    """An async iterator of chunks. Iterating hands out one generator, so a chunk costs no more
    than it must; the object itself adds `aclose` and ``async with``.

    The generator then belongs to the ``async for`` alone: leaving the loop drops and so closes it,
    even where the stream is kept in a variable. Inside ``async with`` it stays open to the end of
    the block, and another loop goes on where the last one was left. Whoever takes chunks by hand
    (`anext`) and goes away before the end has to close it: else a ResourceWarning says so.
    """

    _by_hand = False

    def __init__(self, start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]]) -> None:
        self._state = _State()
        self._chunks: AsyncGenerator[AIMessageChunk, None] | None = _flat(start, self._state)
        self._handed_out = weakref.ref(self._chunks)
        self._entered: AsyncGenerator[AIMessageChunk, None] | None = None

    def __aiter__(self) -> AsyncGenerator[AIMessageChunk, None]:
        chunks, self._chunks = self._live(), None
        return chunks

    async def __anext__(self) -> AIMessageChunk:
        self._chunks = self._live()
        self._by_hand = True
        return await anext(self._chunks)

    def _live(self) -> AsyncGenerator[AIMessageChunk, None]:
        return self._handed_out() or _nothing_more(self._state)

    async def aclose(self) -> None:
        """Close the connection; nothing more comes. After a loop that was left, wait until that has
        closed it."""
        chunks = self._handed_out()
        if chunks is not None:
            await chunks.aclose()
        elif self._state.open:
            closed = self._state.closed = anyio.Event()
            with anyio.move_on_after(portal.CLOSE_WAIT, shield=True):
                await closed.wait()
        self._state.ended = True

    async def __aenter__(self) -> ChunkStream:
        self._entered = self._live()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
        self._entered = None

    def __del__(self) -> None:
        chunks = self._chunks if self._by_hand else None
        unfinished = getattr(chunks, "ag_frame", None) is not None  # None, too, for no chunks
        if unfinished and not sys.is_finalizing():
            warnings.warn(
                "a stream was dropped in the middle and never closed: use `async with` or aclose()",
                ResourceWarning,
                stacklevel=2,
            )


class _State:
    """How far a stream is: `ended` by itself or closed by hand, `open` while its generator is not
    closed, `closed` for who waits for that."""

    ended = open = False
    closed: anyio.Event | None = None


async def _nothing_more(state: _State) -> AsyncGenerator[AIMessageChunk, None]:
    if not state.ended:
        raise StreamInterruptedError(
            "this stream was left in the middle and is closed: to leave a loop and go on in "
            "another, use `async with` on the stream"
        )
    return
    yield


async def _flat(
    start: Callable[[], AsyncGenerator[list[AIMessageChunk], None]], state: _State
) -> AsyncGenerator[AIMessageChunk, None]:
    """The chunks of all batches."""
    state.open = True
    try:
        async with aclosing(start()) as batches:
            async for batch in batches:
                for chunk in batch:
                    yield chunk
        state.ended = True
    except Exception:
        state.ended = True
        raise
    finally:
        state.open = False
        if state.closed is not None:
            state.closed.set()
