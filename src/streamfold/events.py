"""The event view of a run: the same chunks with names, dicts in the shape of event version v2.

Each event has `event`, `name`, `run_id`, `parent_ids` (from the root down), `tags`, `metadata` and
`data`. A run has exactly one last event: end, error or cancel. The events are made by a handler,
`EventSink`; a single model's are handed out by the generator that streams it, anything that nests
runs in a task of its own, with a bounded buffer between.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any, Final

import anyio
import msgspec
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from .batch import spawn
from .callbacks import BaseCallbackHandler, LLMResult
from .chunks import AIMessageChunk
from .errors import ConfigurationError
from .messages import BaseMessage

__all__ = ["EventFilter", "EventSink", "checked_version", "inline_events", "plain", "task_events"]

# Events that wait for a slow consumer before the run waits for it.
_AHEAD: Final = 256


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are shown: all, or those that match an include; never those of an exclude."""

    include_names: Sequence[str] | None = None
    include_types: Sequence[str] | None = None
    include_tags: Sequence[str] | None = None
    exclude_names: Sequence[str] | None = None
    exclude_types: Sequence[str] | None = None
    exclude_tags: Sequence[str] | None = None

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


class EventSink(BaseCallbackHandler):
    """Makes events of what a handler hears and gives each to `put`."""

    wants_tokens = True

    def __init__(self, shown: EventFilter, put: Callable[[dict[str, Any]], Any]) -> None:
        self._shown = shown
        self._put = put
        self._parents: dict[Any, list[str]] = {}

    def _above(self, run: dict[str, Any]) -> list[str]:
        parents = self._parents.get(run["run_id"])
        if parents is None:
            above = run["parent_run_id"]
            parents = [] if above is None else [*self._parents.get(above, ()), str(above)]
        return parents

    def _send(self, kind: str, what: str, data: dict[str, Any], run: dict[str, Any]) -> Any:
        id, name, tags = run["run_id"], run["name"], run["tags"]
        parents = self._parents[id] = self._above(run)
        if what in ("end", "error", "cancel"):
            self._parents.pop(id, None)
        if not self._shown.shows(kind, name, tags):
            return None
        return self._put(
            {
                "event": f"on_{kind}_{what}",
                "name": name,
                "run_id": str(id),
                "parent_ids": parents,
                "tags": tags,
                "metadata": run["metadata"],
                "data": data,
            }
        )

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[Any]], **run: Any
    ) -> Any:
        return self._send("chat_model", "start", {"input": run.get("raw_input", messages)}, run)

    def on_llm_new_token(self, token: str, *, chunk: Any = None, **run: Any) -> Any:
        return self._send("chat_model", "stream", {"chunk": chunk}, run)

    def on_llm_end(self, response: LLMResult, **run: Any) -> Any:
        return self._send("chat_model", "end", {"output": _output(response)}, run)

    def on_llm_error(self, error: BaseException, **run: Any) -> Any:
        data = {"error": error, "output": _output(run.get("response"))}
        return self._send("chat_model", "error", data, run)

    def on_llm_cancel(self, **run: Any) -> Any:
        return self._send("chat_model", "cancel", {"output": _output(run.get("response"))}, run)

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **run: Any) -> Any:
        return self._send("chain", "start", {"input": inputs}, run)

    def on_chain_stream(self, chunk: Any, **run: Any) -> Any:
        return self._send("chain", "stream", {"chunk": chunk}, run)

    def on_chain_end(self, outputs: Any, **run: Any) -> Any:
        return self._send("chain", "end", {"output": outputs}, run)

    def on_chain_error(self, error: BaseException, **run: Any) -> Any:
        return self._send("chain", "error", {"error": error}, run)

    def on_chain_cancel(self, **run: Any) -> Any:
        return self._send("chain", "cancel", {}, run)

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, **run: Any) -> Any:
        return self._send("tool", "start", {"input": run.get("inputs", input_str)}, run)

    def on_tool_end(self, output: Any, **run: Any) -> Any:
        return self._send("tool", "end", {"output": output}, run)

    def on_tool_error(self, error: BaseException, **run: Any) -> Any:
        return self._send("tool", "error", {"error": error}, run)

    def on_tool_cancel(self, **run: Any) -> Any:
        return self._send("tool", "cancel", {}, run)

    def on_retry(self, retry_state: Any, **run: Any) -> Any:
        return self._named("on_retry", retry_state, run)

    def on_custom_event(self, name: str, data: Any, **run: Any) -> Any:
        return self._named("on_custom_event", data, {**run, "name": name})

    def _named(self, event: str, data: Any, run: dict[str, Any]) -> Any:
        if not self._shown.shows("custom", run["name"], run["tags"]):
            return None
        return self._put(
            {
                "event": event,
                "name": run["name"],
                "run_id": str(run["run_id"]),
                "parent_ids": self._above(run),
                "tags": run["tags"],
                "metadata": run["metadata"],
                "data": data,
            }
        )


def _output(response: Any) -> Any:
    return response.generations[0][0].message if isinstance(response, LLMResult) else None


def checked_version(version: str) -> None:
    """Only v2 is spoken. Raises ConfigurationError for any other."""
    if version != "v2":
        raise ConfigurationError(f"event version {version!r} is unknown: expected 'v2'")


class _Buffer:
    """Events between the task of a run and the consumer, who may be in different loops: a sync
    function inside the run calls its models on the portal's loop."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque()
        self._home: EventLoopToken = current_token()
        self._thread = threading.get_ident()
        self._news = anyio.Event()
        self._room = anyio.Event()
        self.over = False
        self._left = False  # nobody takes any more

    def put(self, event: dict[str, Any]) -> Awaitable[None] | None:
        if self._left:
            return checkpoint()  # a cancelled run ends here, and its last words wait for nobody
        self._events.append(event)
        if threading.get_ident() == self._thread:
            self._news.set()
            return self._wait() if len(self._events) > _AHEAD else None
        _post(self._home, lambda: self._news.set())
        return None

    async def _wait(self) -> None:
        while len(self._events) > _AHEAD and not self._left:
            self._room = anyio.Event()
            await self._room.wait()
        if self._left:
            await checkpoint()

    def leave(self) -> None:
        """The consumer is gone: nothing is kept any more."""
        self._left = True
        self._room.set()

    def end(self) -> None:
        self.over = True
        self._news.set()

    async def take(self) -> list[dict[str, Any]]:
        """All events that are there; waits for the first. An empty list is the end."""
        while not self._events and not self.over:
            self._news = anyio.Event()
            if not self._events:
                await self._news.wait()
        taken = [self._events.popleft() for _ in range(len(self._events))]
        self._room.set()
        return taken


def _post(token: EventLoopToken, function: Callable[[], Any]) -> None:
    """Have `function` called in the loop of `token`, from any thread, without waiting."""
    native: Any = token.native_token
    soon = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
    soon(function)


async def task_events(
    run: Callable[[Callable[[dict[str, Any]], Any]], Awaitable[Any]],
) -> AsyncGenerator[dict[str, Any], None]:
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
    batches: AsyncGenerator[list[Any], None], pending: deque[dict[str, Any]]
) -> AsyncGenerator[dict[str, Any], None]:
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


def plain(value: Any) -> Any:
    """`value` as JSON-ready data: messages by `to_dict`, errors by type and text; NaN and
    infinities, for which JSON has no word, are None."""
    if isinstance(value, AIMessageChunk | BaseMessage):
        return value.to_dict()
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    try:
        built = msgspec.to_builtins(value, enc_hook=repr)
    except (TypeError, ValueError):
        return repr(value)
    return plain(built) if isinstance(built, dict | list | float) else built
