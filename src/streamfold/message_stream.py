"""`MessageStream`: one answer, read as typed events, as text, as tool calls, or as a whole.

Readers are independent: each sees the answer from its beginning, and one that is cancelled or gives
up takes nothing from the others. So the answer is read by a task of its own, which reads on when a
reader needs more than has come, and no further.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing
from typing import Any

import anyio
from anyio.lowlevel import current_token

from .batch import spawn
from .chunks import AIMessageChunk, fold_events
from .content import ToolCall
from .deltas import ChunkEvent, ReasoningDelta, TextDelta
from .errors import ConfigurationError
from .messages import AIMessage
from .net.portal import post

__all__ = ["MessageStream"]

Start = Callable[[], AsyncGenerator[list[AIMessageChunk], None]]


class MessageStream:
    """An answer while it arrives. Several readers may iterate it and its projections at once: each
    sees everything from the beginning. The events are kept once, for all of them.

    It is an async context manager; leaving it closes the connection.
    """

    def __init__(self, start: Start) -> None:
        self._pump = _Pump(start)

    async def __aenter__(self) -> MessageStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._pump.close()

    def __aiter__(self) -> AsyncIterator[ChunkEvent]:
        return _Reader(self, lambda event: event)

    @property
    def text(self) -> AsyncIterator[str]:
        """The visible text, piece by piece."""
        return _Reader(self, lambda e: e.text if isinstance(e, TextDelta) else None)

    @property
    def reasoning(self) -> AsyncIterator[str]:
        """The reasoning text, piece by piece."""
        return _Reader(self, lambda e: e.text if isinstance(e, ReasoningDelta) else None)

    @property
    def tool_calls(self) -> AsyncIterator[ToolCall]:
        """The tool calls that are complete and readable, once the answer has ended."""
        return _Calls(self)

    async def message(self) -> AIMessage:
        """The whole answer, once it has arrived. After `cancel`, what had arrived, with
        ``finish_reason="cancelled"``. Raises what broke the stream."""
        events = self._pump.events
        while await self._pump.more(len(events)):
            pass
        return fold_events(events).to_message("cancelled" if self._pump.cancelled else None)

    def cancel(self) -> Awaitable[None]:
        """Stop the answer: the connection is closed, and every reader comes to its end. It is
        cancelled at once; await what comes back to wait until the connection is closed."""
        self._pump.stop()
        return _Closing(self._pump)

    def __del__(self) -> None:
        self._pump.drop()


class _Pump:
    """The events that have come, and the task that reads on. It begins with the first demand."""

    def __init__(self, start: Start) -> None:
        self.events: list[ChunkEvent] = []
        self.cancelled = False
        self._source = start()
        self._over = False
        self._error: Exception | None = None
        self._scope: anyio.CancelScope | None = None  # around the task, once there is one
        self._demand = self._news = self._gone = self._loop = _NONE

    async def more(self, seen: int) -> bool:
        """Whether there are events after the first `seen`; waits for them. Raises what broke the
        stream, to each who comes so far."""
        while len(self.events) <= seen:
            if self._error is not None:
                raise self._error
            if self._over:
                return False
            if self._scope is None:
                self._scope = anyio.CancelScope()
                self._demand, self._news, self._gone = (anyio.Event() for _ in range(3))
                self._loop = current_token()
                spawn(self._run, self._scope)
            self._demand.set()
            await self._news.wait()
        return True

    async def _run(self, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                async with aclosing(self._source):
                    await self._read()
        except Exception as error:
            self._error = error
        finally:
            self.cancelled = scope.cancelled_caught
            self._over = True
            self._news.set()
            self._gone.set()

    async def _read(self) -> None:
        async for batch in self._source:
            for chunk in batch:
                if not isinstance(chunk, AIMessageChunk):
                    raise ConfigurationError(
                        f"astream_message reads message chunks, and this runnable streams "
                        f"{type(chunk).__name__}: use astream"
                    )
                self.events.extend(chunk.events)
            self._demand = anyio.Event()
            self._news.set()
            self._news = anyio.Event()
            await self._demand.wait()

    def stop(self) -> None:
        """Cancel the answer, if it is not over."""
        if self._scope is not None:
            self._scope.cancel()
        elif not self._over:
            self.cancelled = self._over = True

    async def close(self) -> None:
        """The same, and wait until its connection is closed."""
        self.stop()
        if self._scope is None:
            await self._source.aclose()
        else:
            with anyio.CancelScope(shield=True):
                await self._gone.wait()

    def drop(self) -> None:
        """The same, without waiting: nobody can read any more."""
        if self._scope is not None and not self._over:
            post(self._loop, self._scope.cancel)  # the garbage collector runs in any thread


class _Closing:
    """The end of a cancelled answer, for those who wait for it."""

    def __init__(self, pump: _Pump) -> None:
        self._pump = pump

    def __await__(self) -> Generator[Any, Any, None]:
        return self._pump.close().__await__()


_NONE: Any = None


class _Reader:
    """What `pick` makes of the events, from the first one on; None is left out. Not a generator:
    leaving it half way must cost nothing."""

    def __init__(self, stream: MessageStream, pick: Callable[[ChunkEvent], Any]) -> None:
        self._stream = stream
        self._pick = pick
        self._seen = 0

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> Any:
        pump = self._stream._pump
        while self._seen < len(pump.events) or await pump.more(self._seen):
            picked = self._pick(pump.events[self._seen])
            self._seen += 1
            if picked is not None:
                return picked
        raise StopAsyncIteration


class _Calls:
    """The tool calls of a stream, once it is over."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream
        self._calls: Iterator[ToolCall] | None = None

    def __aiter__(self) -> _Calls:
        return self

    async def __anext__(self) -> ToolCall:
        if self._calls is None:
            self._calls = iter((await self._stream.message()).tool_calls)
        call = next(self._calls, None)
        if call is None:
            raise StopAsyncIteration
        return call
