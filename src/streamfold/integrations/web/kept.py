"""Streams that outlive a connection, so that a client can come back and go on where it was.

    streams = KeptStreams()

    @asynccontextmanager
    async def lifespan(app):
        async with streams:
            yield

    async def answer(request):
        question = request.query_params["q"]
        return streams.response(request, lambda: model.astream(question))

Each event has an id of two parts, ``key:number``. A browser's EventSource that lost the connection
asks the same address again with the last one in `Last-Event-ID`, and gets what came after it: from
a buffer of the last `max_events` events, and then from the provider, whose answer went on meanwhile
as far as the buffer had room. A client that stays away for `grace` seconds has left: its stream is
dropped, and the request to the provider cancelled.

The buffers are in this process: with several workers, requests of one client must reach the same.
"""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from itertools import islice
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from ...coercion import shown
from ...errors import ConfigurationError, StreamfoldError, StreamInterruptedError
from . import sse
from .failures import OnError, words
from .items import Source, items
from .response import HEARTBEAT, Frames, FramesResponse
from .vocabulary import Vocabulary, Word, vocabulary_of

__all__ = ["KeptStreams"]

_log: Final = logging.getLogger("streamfold.web")


class KeptStreams:
    """The streams of an application that can be resumed. An async context manager: they run in it,
    and end with it.

    `grace`: seconds that a stream is kept while nobody reads it. `max_events`: how many of its last
    events can be resumed from; the provider is read no more than half of that ahead of the client.
    `max_streams`: beyond so many, those that nobody has read for longest are dropped.
    """

    def __init__(
        self, *, grace: float = 30.0, max_events: int = 2048, max_streams: int = 1000
    ) -> None:
        given = {"grace": grace, "max_events": max_events, "max_streams": max_streams}
        for (name, value), low in zip(given.items(), (0, 2, 1), strict=True):
            if not value >= low:
                raise ConfigurationError(f"{name} is {value!r}: expected {low} or more")
        self._grace = grace
        self._max_events = max_events
        self._max_streams = max_streams
        self._streams: dict[str, _Kept] = {}  # those that were left last are last
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> KeptStreams:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        assert self._group is not None
        group, self._group = self._group, None
        group.cancel_scope.cancel()
        self._streams.clear()
        return await group.__aexit__(*exc_info)

    def response(
        self,
        request: HTTPConnection,
        start: Callable[[], Source],
        vocabulary: Word | Vocabulary = "events",
        *,
        key: str | None = None,
        heartbeat: float | None = HEARTBEAT,
        on_error: OnError | None = None,
    ) -> Response:
        """The rest of the stream that the request's `Last-Event-ID` names; where it names none, a
        new one of what `start` gives.

        A stream that has been read to its end is answered with 204, which ends an EventSource; one
        that is gone, or whose buffer begins later, with 410. `key` names the stream for `resume`;
        by default it is random, and whoever knows it may read. `vocabulary`, `heartbeat` and
        `on_error` as in `StreamResponse`. Raises ConfigurationError for a key that cannot stand in
        an id or is in use.
        """
        spoken = vocabulary_of(vocabulary)
        last = request.headers.get("last-event-id")
        if not last:
            kept = self._keep(start, spoken, key, on_error)
            return self._respond(kept, 0, spoken, heartbeat, on_error)
        name, _, number = last.rpartition(":")
        known = self._streams.get(name)
        if known is None or not number.isascii() or not number.isdecimal():
            return _gone(f"the stream of event {shown(last)} is no longer kept")
        after = int(number[:18])
        if known.over and after >= known.count:
            return Response(status_code=204)
        if not known.has(after):
            return _gone(f"what follows event {shown(last)} is no longer kept")
        return self._respond(known, after, spoken, heartbeat, on_error)

    def resume(
        self,
        key: str,
        vocabulary: Word | Vocabulary = "events",
        *,
        heartbeat: float | None = HEARTBEAT,
        on_error: OnError | None = None,
    ) -> Response:
        """The stream `key` from its beginning, or 204 where there is none: what `useChat` with
        ``resume: true`` asks for. It is for the application to know who may read it."""
        kept = self._streams.get(key)
        if kept is None or not kept.has(0):
            return Response(status_code=204)
        return self._respond(kept, 0, vocabulary_of(vocabulary), heartbeat, on_error)

    def cancel(self, key: str) -> bool:
        """Drop the stream `key` and cancel its request; its readers come to their end. Whether
        there was one. (A client that leaves is waited for.)"""
        kept = self._streams.get(key)
        if kept is not None:
            self._drop(kept)
        return kept is not None

    def _respond(
        self,
        kept: _Kept,
        after: int,
        vocabulary: Vocabulary,
        heartbeat: float | None,
        on_error: OnError | None,
    ) -> Response:
        frames = self._read(kept, after)
        return FramesResponse(frames, vocabulary, heartbeat=heartbeat, on_error=on_error)

    def _keep(
        self,
        start: Callable[[], Source],
        vocabulary: Vocabulary,
        key: str | None,
        on_error: OnError | None,
    ) -> _Kept:
        if self._group is None:
            raise ConfigurationError("these KeptStreams are not open: use `async with` around them")
        key = secrets.token_urlsafe(16) if key is None else key
        if not (key.isascii() and key.isprintable() and key.strip() == key != ""):
            raise ConfigurationError(f"key is {shown(key)}: expected printable ASCII characters")
        if key in self._streams and not self._streams[key].over:
            raise ConfigurationError(f"key is {shown(key)}: a stream of this key is under way")
        source = start()
        kept = self._streams[key] = _Kept(key, self._max_events, vocabulary, on_error)
        self._group.start_soon(kept.run, source)
        self._left(kept)  # until it is read
        excess = len(self._streams) - self._max_streams
        unread = [each for each in self._streams.values() if not each.readers and each is not kept]
        for each in unread[: max(0, excess)]:
            self._drop(each)
        return kept

    async def _read(self, kept: _Kept, after: int) -> Frames:
        kept.readers += 1
        try:
            async with aclosing(kept.read(after)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            kept.readers -= 1
            if not kept.readers:
                self._left(kept)

    def _left(self, kept: _Kept) -> None:
        """Nobody reads it: its time runs."""
        kept.left += 1
        if self._streams.get(kept.key) is kept and self._group is not None:
            self._streams[kept.key] = self._streams.pop(kept.key)
            self._group.start_soon(self._expire, kept, kept.left)

    async def _expire(self, kept: _Kept, left: int) -> None:
        await anyio.sleep(self._grace)
        if not kept.readers and kept.left == left:
            self._drop(kept)

    def _drop(self, kept: _Kept) -> None:
        kept.scope.cancel()
        if self._streams.get(kept.key) is kept:
            del self._streams[kept.key]


def _gone(text: str) -> Response:
    return PlainTextResponse(text, 410)


class _Kept:
    """One stream: its last frames, the task that fills them and those who read.

    Frames are numbered from 1. `count` have come, the first `_dropped` are no longer there.
    """

    def __init__(
        self, key: str, max_events: int, vocabulary: Vocabulary, on_error: OnError | None
    ) -> None:
        self.key = key
        self.count = 0
        self.readers = 0
        self.left = 0  # how often the last reader has left
        self.over = False
        self.scope = anyio.CancelScope()
        self._max_events = max_events
        self._vocabulary = vocabulary
        self._on_error = on_error
        self._frames: deque[bytes] = deque()
        self._dropped = 0
        self._given = 0
        self._error: Exception | None = None
        self._news, self._room = anyio.Event(), anyio.Event()

    def has(self, after: int) -> bool:
        """Whether all frames after this one are there, or will be."""
        return self._dropped <= after <= self.count

    async def run(self, source: Source) -> None:
        """Read the source to its end."""
        try:
            with self.scope:
                await self._fill(source)
        finally:
            self.over = True
            self._tell()

    async def _fill(self, source: Source) -> None:
        try:
            async with aclosing(items(source)) as told:
                async for item in told:
                    await self._put(self._vocabulary.feed(item))
            await self._put(self._vocabulary.close())
        except Exception as error:
            if not isinstance(error, StreamfoldError):
                _log.exception("a kept stream failed")
            if self.count:
                await self._put(self._vocabulary.fail(error, words(error, self._on_error)))
            else:
                self._error = error

    async def _put(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            while self.count - self._given >= self._max_events // 2:
                self._room = anyio.Event()
                await self._room.wait()
            self.count += 1
            self._frames.append(sse.event(payload, f"{self.key}:{self.count}"))
            if len(self._frames) > self._max_events:
                self._frames.popleft()
                self._dropped += 1
        if payloads:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def read(self, after: int) -> Frames:
        """The frames after this one, those that are there in one piece. Raises what broke the
        source before its first frame, and StreamInterruptedError for a reader who was too slow."""
        while True:
            if after < self._dropped:
                raise StreamInterruptedError(
                    "the events that come next are no longer kept: this client reads too slowly"
                )
            if after < self.count:
                frames = b"".join(islice(self._frames, after - self._dropped, None))
                after = self.count
                self._given = max(self._given, after)
                self._room.set()
                yield frames
            elif not self.over:
                await self._news.wait()
            elif self._error is not None:
                raise self._error
            else:
                return
