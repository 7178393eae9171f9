"""The event view of a run: the same chunks with names, dicts in the shape of event version v2.

Each event has `event`, `name`, `run_id`, `parent_ids` (from the root down), `tags`, `metadata` and
`data`. A run has exactly one last event: end, error or cancel. The events are made by a handler,
`EventSink`; a single model's are handed out by the generator that streams it, anything that nests
runs in a task of its own, with a bounded buffer between.
"""

from __future__ import annotations

import math
import reprlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from uuid import UUID

import anyio
import msgspec
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from .batch import spawn
from .callbacks import ChunksHandler, LLMResult
from .chunks import AIMessageChunk
from .errors import ConfigurationError
from .messages import BaseMessage
from .net import portal

__all__ = ["EventFilter", "EventSink", "checked_version", "inline_events", "plain", "task_events"]

Event: TypeAlias = dict[str, Any]
Keywords: TypeAlias = dict[str, Any]  # what every handler is told of a run

# Events that wait for a slow consumer before the run waits for it.
_AHEAD: Final = 256


#: The types of events, and those that only LangChain has: programs may name them all the same.
_TYPES: Final = (
    *("chat_model", "chain", "tool", "retry", "custom"),
    *("llm", "retriever", "prompt", "parser"),
)


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are shown: all, or those that match an include; never those of an exclude."""

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            value = getattr(self, field)
            if isinstance(value, str) or not isinstance(value, Collection | None):
                raise ConfigurationError(f"{field} is {value!r:.60}: expected a list of strs")
            for kind in (value or ()) if field.endswith("_types") else ():
                if kind not in _TYPES:
                    raise ConfigurationError(
                        f"{field} has {kind!r:.60}: expected some of {', '.join(_TYPES)}"
                    )

    def shows(self, kind: str, name: str, tags: Collection[str]) -> bool:
        included = (self.include_names, self.include_types, self.include_tags)
        if any(one is not None for one in included) and not _matches(included, kind, name, tags):
            return False
        excluded = (self.exclude_names, self.exclude_types, self.exclude_tags)
        return not _matches(excluded, kind, name, tags)


def _matches(
    wanted: tuple[Sequence[str] | None, ...], kind: str, name: str, tags: Collection[str]
) -> bool:
    names, kinds, tagged = wanted
    return (
        name in (names or ()) or kind in (kinds or ()) or any(tag in tags for tag in tagged or ())
    )


class _Open(msgspec.Struct, gc=False):
    """A run that has started and not ended. `common` is in all its events; None hides the run."""

    kind: str
    common: Event | None
    input: Any
    piece: Event | None = None  # an event for a piece of its output, to be copied


class EventSink(ChunksHandler):
    """Makes events of what a handler hears and gives them to `put`, which may give back something
    to be awaited: room for more."""

    wants_tokens = True

    def __init__(self, shown: EventFilter, put: Callable[[Sequence[Event]], Any]) -> None:
        self._shown = shown
        self._put = put
        self._open: dict[UUID, _Open] = {}

    def _start(self, kind: str, input: Any, run: Keywords) -> Any:
        common = self._common(kind, run)
        self._open[run["run_id"]] = _Open(kind, common, input)
        return common and self._put([_event(kind, "start", common, {"input": input})])

    def _more(self, chunks: Sequence[Any], id: UUID) -> Any:
        run = self._open.get(id)
        if run is None or run.common is None:
            return None
        if run.piece is None:
            run.piece = _event(run.kind, "stream", run.common, {})
        events = []
        for chunk in chunks:
            event = run.piece.copy()
            event["data"] = {"chunk": chunk}
            events.append(event)
        return self._put(events)

    def _end(self, what: str, data: dict[str, Any], run: Keywords) -> Any:
        started = self._open.pop(run["run_id"], None)
        if started is None or started.common is None:
            return None
        if started.common["parent_ids"]:  # what the root got, its caller knows
            data["input"] = started.input
        return self._put([_event(started.kind, what, started.common, data)])

    def _common(self, kind: str, run: Keywords) -> Event | None:
        """What all events of a run share; None where they are not shown."""
        if not self._shown.shows(kind, run["name"], run["tags"]):
            return None
        return {
            "name": run["name"],
            "run_id": str(run["run_id"]),
            "parent_ids": run["parent_ids"],
            "tags": run["tags"],
            "metadata": run["metadata"],
        }

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **run: Any
    ) -> Any:
        return self._start("chat_model", run.get("raw_input", messages), run)

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **run: Any) -> Any:
        return self._more((chunk,), run["run_id"])

    def on_llm_chunks(self, chunks: Sequence[Any], run_id: UUID) -> Any:
        return self._more(chunks, run_id)

    def on_llm_end(self, response: LLMResult, **run: Any) -> Any:
        return self._end("end", {"output": _output(response)}, run)

    def on_llm_error(self, error: BaseException, **run: Any) -> Any:
        return self._end("error", {"error": error, "output": _output(run["response"])}, run)

    def on_llm_cancel(self, **run: Any) -> Any:
        return self._end("cancel", {"output": _output(run["response"])}, run)

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **run: Any) -> Any:
        return self._start("chain", inputs, run)

    def on_chain_stream(self, chunk: Any, **run: Any) -> Any:
        return self._more((chunk,), run["run_id"])

    def on_chain_end(self, outputs: Any, **run: Any) -> Any:
        return self._end("end", {"output": outputs}, run)

    def on_chain_error(self, error: BaseException, **run: Any) -> Any:
        return self._end("error", {"error": error, "output": run["outputs"]}, run)

    def on_chain_cancel(self, **run: Any) -> Any:
        return self._end("cancel", {"output": run["outputs"]}, run)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **run: Any) -> Any:
        return self._start("tool", run.get("inputs", input_str), run)

    def on_tool_end(self, output: Any, **run: Any) -> Any:
        return self._end("end", {"output": output}, run)

    def on_tool_error(self, error: BaseException, **run: Any) -> Any:
        return self._end("error", {"error": error, "tool_call_id": run.get("tool_call_id")}, run)

    def on_tool_cancel(self, **run: Any) -> Any:
        return self._end("cancel", {"tool_call_id": run.get("tool_call_id")}, run)

    def on_retry(self, retry_state: Any, **run: Any) -> Any:
        common = self._common("retry", run)
        return common and self._put([{"event": "on_retry", **common, "data": retry_state}])

    def on_custom_event(self, name: str, data: Any, **run: Any) -> Any:
        common = self._common("custom", {**run, "name": name})
        return common and self._put([{"event": "on_custom_event", **common, "data": data}])


def _event(kind: str, what: str, common: Event, data: dict[str, Any]) -> Event:
    return {"event": f"on_{kind}_{what}", **common, "data": data}


def _output(response: Any) -> Any:
    return response.generations[0][0].message if isinstance(response, LLMResult) else None


def checked_version(version: str) -> None:
    """Only v2 is spoken. Raises ConfigurationError for any other."""
    if version != "v2":
        raise ConfigurationError(f"event version {version!r} is unknown: expected 'v2'")


class _Buffer:
    """Events between the tasks of a run and the consumer, who may be in different loops: a sync
    function inside the run calls its models on the portal's loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._consumer = _Waiter()
        self._full: deque[_Waiter] = deque()  # those who wait for room
        self._left = False  # nobody takes any more
        self.over = False

    def put(self, events: Sequence[Event]) -> Awaitable[None] | None:
        if self._left:
            return checkpoint()  # a cancelled run ends here, and its last words wait for nobody
        self._events.extend(events)
        self._consumer.wake()
        return self._room() if len(self._events) > _AHEAD else None

    async def _room(self) -> None:
        while len(self._events) > _AHEAD and not self._left:
            if portal.is_waiting(self._consumer.thread):
                return  # the consumer's thread is blocked by who asks: it would wait for itself
            waiter = _Waiter()
            self._full.append(waiter)
            if len(self._events) > _AHEAD and not self._left:  # it may just have made room
                await waiter.wait()
        if self._left:
            await checkpoint()

    def leave(self) -> None:
        """The consumer is gone: nothing is kept any more."""
        self._left = True
        self._wake_all()

    def _wake_all(self) -> None:
        while self._full:
            self._full.popleft().wake()

    def end(self) -> None:
        self.over = True
        self._consumer.wake()

    async def take(self) -> list[Event]:
        """All events that are there; waits for the first. An empty list is the end."""
        while not self._events and not self.over:
            self._consumer.again()
            if not self._events and not self.over:
                await self._consumer.wait()
        taken = [self._events.popleft() for _ in range(len(self._events))]
        self._wake_all()
        return taken


class _Waiter:
    """A task that waits in its loop to be woken from any thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self._loop: EventLoopToken = current_token()
        self._woken = anyio.Event()

    def again(self) -> None:
        self._woken = anyio.Event()

    async def wait(self) -> None:
        await self._woken.wait()

    def wake(self) -> None:
        if threading.get_ident() == self.thread:
            self._woken.set()
        else:
            portal.post(self._loop, lambda: self._woken.set())


async def task_events(
    run: Callable[[Callable[[Sequence[Event]], Any]], Awaitable[Any]],
) -> AsyncGenerator[Event, None]:
    """The events that ``run(put)`` puts while it runs in a task of its own. Its error is raised
    after the last event; leaving early cancels it."""
    buffer = _Buffer()
    scope, gone = anyio.CancelScope(), anyio.Event()
    failure: list[BaseException] = []

    async def supervised() -> None:
        try:
            with scope:
                await run(buffer.put)
        except Exception as error:
            failure.append(error)
        finally:
            buffer.end()
            gone.set()

    spawn(supervised)
    try:
        while events := await buffer.take():
            for event in events:
                yield event
    finally:
        buffer.leave()
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await gone.wait()
    if failure:
        raise failure[0]


async def inline_events(
    batches: AsyncGenerator[list[Any], None], pending: deque[Event]
) -> AsyncGenerator[Event, None]:
    """The events that appear in `pending` while `batches` is read: no task, no buffer to fill."""
    try:
        async with aclosing(batches):
            async for _ in batches:
                while pending:
                    yield pending.popleft()
    except Exception:
        while pending:
            yield pending.popleft()
        raise
    while pending:
        yield pending.popleft()


_DEEPEST: Final = 64  # containers in containers that plain data has


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON-ready data: messages by `to_dict`, errors by type and text; NaN and
    infinities, for which JSON has no word, are None. What is nested too deep, such as a list that
    contains itself, is a short `repr`."""
    if depth > _DEEPEST:
        return reprlib.repr(value)
    if isinstance(value, AIMessageChunk | BaseMessage):
        return value.to_dict()
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, dict):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    try:
        built = msgspec.to_builtins(value, enc_hook=repr)
    except (TypeError, ValueError):
        return repr(value)
    return plain(built, depth + 1) if isinstance(built, dict | list | float) else built
