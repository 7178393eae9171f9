"""`StreamResponse`: a stream as server-sent events, for Starlette and FastAPI.

Beside the task that writes there are two more while a response lasts: one waits for the client to
leave, which cancels the others and so closes the connection to the provider; one sends a comment
where nothing else was sent for a while. Nothing is sent before there is something to say or the
first heartbeat is due, so what fails at once has a status of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from ...errors import ConfigurationError, StreamfoldError
from . import sse
from .failures import OnError, words
from .items import Source, items
from .vocabulary import Vocabulary, Word, vocabulary_of

__all__ = ["HEARTBEAT", "Frames", "FramesResponse", "StreamResponse", "attended"]

#: Seconds. Proxies close connections that are silent for a minute (nginx) or half (Heroku's: 55 s).
HEARTBEAT: Final = 15.0

Frames = AsyncGenerator[bytes, None]


class FramesResponse(StreamingResponse):
    """Server-sent events that are bytes already. An exception in the middle becomes an event of the
    vocabulary; one that is not ours is raised as well, for the server's log."""

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: Frames,
        vocabulary: Vocabulary,
        *,
        heartbeat: float | None = HEARTBEAT,
        on_error: OnError | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        if heartbeat is not None and not heartbeat > 0:
            raise ConfigurationError(f"heartbeat is {heartbeat!r}: expected seconds above 0")
        all_headers = {**sse.HEADERS, **vocabulary.headers, **(headers or {})}
        super().__init__(frames, status_code, all_headers, background=background)
        self._frames = frames
        self._vocabulary = vocabulary
        self._heartbeat = heartbeat
        self._on_error = on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Out(send, {"status": self.status_code, "headers": self.raw_headers})
        beat = () if self._heartbeat is None else (partial(out.beat, self._heartbeat),)
        await attended(receive, partial(self._write, out, scope, receive), *beat)
        if self.background is not None:
            await self.background()

    async def _write(self, out: _Out, scope: Scope, receive: Receive) -> None:
        try:
            async with aclosing(self._frames):
                async for frame in self._frames:
                    await out.write(frame)
        except _ClientGoneError:
            raise
        except Exception as error:
            ours = isinstance(error, StreamfoldError)
            text = words(error, self._on_error)
            if not out.started and ours:
                await out.instead(partial(self._refused(error, text), scope, receive))
                return
            if out.started:
                await out.write(sse.events(self._vocabulary.fail(error, text)))
                await out.end()
            if not ours:
                raise
        else:
            await out.end()

    def _refused(self, error: Exception, text: str) -> Response:
        no = self._vocabulary.refuse(error, text)
        return Response(no.body, no.status, no.headers, no.media_type)


class StreamResponse(FramesResponse):
    """A stream as server-sent events::

        return StreamResponse(model.astream(question))

    `source`: what `astream`, `astream_message` and `astream_events` give, or any async iterable of
    chunks, chunk events, messages, tool messages and text. It is closed when the response ends, and
    at once when the client leaves, which cancels the request to the provider.

    `vocabulary`: "events" (our typed chunk events, the default), "openai" (Chat Completions
    chunks) or "vercel" (the UI message stream of `useChat`), or one of the vocabulary objects,
    which have parameters.
    `heartbeat`: after so many seconds of silence a comment is sent; None: never.
    `on_error`: what the client reads of an exception. By default the text of streamfold's errors,
    and "internal error" for any other, which is also raised to the server.

    An error before the first event, and before the first heartbeat, is a response of its own with
    the status of the error; later it is the stream's last event. Raises ConfigurationError for a
    vocabulary or heartbeat that cannot be.
    """

    def __init__(
        self,
        source: Source,
        vocabulary: Word | Vocabulary = "events",
        *,
        heartbeat: float | None = HEARTBEAT,
        on_error: OnError | None = None,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        spoken = vocabulary_of(vocabulary)
        super().__init__(
            _frames(source, spoken),
            spoken,
            heartbeat=heartbeat,
            on_error=on_error,
            status_code=status_code,
            headers=headers,
            background=background,
        )


async def _frames(source: Source, vocabulary: Vocabulary) -> Frames:
    async with aclosing(items(source)) as told:
        async for item in told:
            payloads = vocabulary.feed(item)
            if payloads:
                yield sse.events(payloads)
    yield sse.events(vocabulary.close())


# ---- the connection ------------------------------------------------------------------------------


class _ClientGoneError(Exception):
    """The server says so when something is sent."""


async def attended(
    receive: Receive, work: Callable[[], Awaitable[None]], *beside: Callable[[], Awaitable[None]]
) -> None:
    """Run `work`, with what runs `beside` it, until it is over or the client leaves."""
    failure: Exception | None = None
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async def run(task: Callable[[], Awaitable[None]]) -> None:
            nonlocal failure
            try:
                await task()
            except _ClientGoneError:
                pass
            except Exception as error:  # kept, for a group would wrap it
                failure = error
            group.cancel_scope.cancel()

        group.start_soon(watch)
        for task in beside:
            group.start_soon(run, task)
        await run(work)
    if failure is not None:
        raise failure


class _Out:
    """The way to the client, for two tasks that write."""

    def __init__(self, send: Send, head: Message) -> None:
        self.started = False
        self._send = send
        self._head = head
        self._last = anyio.current_time()
        self._lock = anyio.Lock(fast_acquire=True)

    async def write(self, data: bytes, *, more: bool = True) -> None:
        async with self._lock:
            self._last = anyio.current_time()
            try:
                if not self.started:
                    self.started = True
                    await self._send({"type": "http.response.start", **self._head})
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
            except OSError as error:
                raise _ClientGoneError from error

    async def end(self) -> None:
        await self.write(b"", more=False)

    async def instead(self, response: Callable[[Send], Awaitable[None]]) -> None:
        """Another response, where none has begun."""
        async with self._lock:
            self.started = True
            await response(self._send)

    async def beat(self, seconds: float) -> None:
        """A heartbeat after each `seconds` of silence."""
        while True:
            wait = self._last + seconds - anyio.current_time()
            if wait > 0:
                await anyio.sleep(wait)
            else:
                await self.write(sse.HEARTBEAT)
