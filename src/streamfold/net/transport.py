"""One call of a model over the network: send, check, decode, and try again while nothing was shown.

`stream_batches` is the engine under every method: it yields lists of chunks, one list for each
network read that completed any. All exceptions of the HTTP stack are mapped here, once; whatever
leaves is an error of the tree that carries what had arrived.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import httpx
import msgspec

from ..chunks import AIMessageChunk, Received
from ..errors import (
    ConfigurationError,
    ConnectError,
    ProviderError,
    RedirectRefusedError,
    SizeLimitError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
    TransportError,
    provider_error,
)
from ..limits import Limits, Timeouts
from ..secret import Secret, redact
from ..wire.codec import Decoder, error_fields
from ..wire.google_status import status_pause
from ..wire.request import HTTPRequest
from .auth import Key, Signer, auth_headers, revealed
from .clients import Connections
from .clock import CLOCK, Clock
from .foreign import as_httpx
from .in_flight import InFlight
from .log import exchange, log
from .meter import FREE, Meter, Turn
from .retry import (
    budget_of,
    pause_before,
    retry_after,
    should_retry_header,
)

__all__ = ["Call", "stream_batches"]

T = TypeVar("T")

_PIECE: Final = 64 * 1024  # bytes that decompression makes at a time
_CLOSE_SECONDS: Final = 2.0  # the longest that closing a connection may take


def _new_idempotency_key() -> str:
    return f"streamfold-{os.urandom(16).hex()}"


class Call(msgspec.Struct, kw_only=True):
    """Everything that one call needs. `decoder` makes the state for one attempt; `start_hint` says
    how to start the server, where it is one that users run themselves; `idempotency_key` is the
    same in all attempts, so that a server which knows such keys acts once."""

    request: HTTPRequest
    base_url: str
    decoder: Callable[[], Decoder]
    connections: Connections
    timeouts: Timeouts
    limits: Limits
    max_retries: int = 2
    stream: bool = True
    auth: str | None = None
    key: Key | None = None
    headers: dict[str, str | Secret] = {}
    query: dict[str, str] = {}
    provider: str = ""
    model: str = ""
    start_hint: str = ""
    statuses: dict[int, str] = {}  # of this vendor alone: the word for what each means
    meter: Meter | None = None  # asked before every request, and told what it used
    in_flight: InFlight | None = None
    tell_retry: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    idempotency_key: str = msgspec.field(default_factory=_new_idempotency_key)


def stream_batches(call: Call) -> AsyncGenerator[list[AIMessageChunk], None]:
    """The chunks of one call, a list per network read. Raises errors of the tree, with `.partial`.

    Failures before the first chunk are retried as `retry.py` says.
    """
    return _tries(call) if call.in_flight is None else _in_turn(call, call.in_flight)


async def _in_turn(call: Call, in_flight: InFlight) -> AsyncGenerator[list[AIMessageChunk], None]:
    """The same once there is a place for the call, which it holds until it is closed."""
    clock = Clock(call.timeouts)
    await _within_total(clock, in_flight.acquire())
    try:
        async with aclosing(_tries(call, clock)) as batches:
            async for batch in batches:
                yield batch
    finally:
        in_flight.release()


async def _tries(
    call: Call, clock: Clock | None = None
) -> AsyncGenerator[list[AIMessageChunk], None]:
    clock = clock or Clock(call.timeouts)
    received = Received()
    budget = budget_of(call.connections, call.base_url)
    attempt = cost = 0
    while True:
        turn: Turn = FREE
        failure: StreamfoldError | None = None
        whole = False
        try:
            if call.meter is not None:
                turn = await _within_total(clock, call.meter.turn())
            async with aclosing(_attempt(call, clock, turn)) as batches:
                async for batch in batches:
                    received.extend(batch)
                    turn.heard(batch)
                    yield batch
                    turn.check()
            whole = True
            budget.earn(cost)
            return
        except StreamfoldError as error:
            failure = error
            await turn.refused(error)
            if received:
                error.partial = received.to_message("error")
                raise
            pause = pause_before(error, attempt, call.max_retries, clock.total_left())
            if pause is None:
                raise
            cost = budget.spend(error)
            if not cost:
                log.info("%s: too many calls have failed to try this one again", call.provider)
                raise
            log.info(
                "%s: attempt %d failed (%s); again in %.2f s",
                call.provider,
                attempt + 1,
                type(error).__name__,
                pause,
            )
            attempt += 1
            if call.tell_retry is not None:
                await call.tell_retry({"attempt": attempt, "error": error, "pause": pause})
        finally:
            turn.over(failure, whole=whole)
        await anyio.sleep(pause)


async def _attempt(
    call: Call, clock: Clock, turn: Turn
) -> AsyncGenerator[list[AIMessageChunk], None]:
    auth: dict[str, str] = {}
    secrets: list[str] = []
    decoder = call.decoder()
    response: httpx.Response | None = None
    source: AsyncIterator[bytes] | None = None
    reads: AsyncIterator[bytes] | None = None
    failure: StreamfoldError | None = None
    whole = False
    logged = exchange(call.provider, call.model)
    try:
        clock.send()
        auth, secrets = await _within_total(clock, auth_headers(call.auth, call.key))
        given, hidden = revealed(call.headers)
        auth = {**given, **auth}
        secrets.extend(hidden)
        logged.sent(call.base_url.rstrip("/") + call.request.path, len(call.request.body))
        response = await _send(call, clock, auth, secrets)
        logged.answered(response.status_code, _request_id(response, secrets))
        turn.answered(response.headers)
        source = aiter(response.stream)  # type: ignore[arg-type]
        reads = _reads(call, clock, response, source)
        if not 200 <= response.status_code < 204:
            raise await _status_error(call, response, reads)
        async with aclosing(_decoded(call, clock, response, reads, decoder)) as batches:
            async for batch in batches:
                clock.content()
                yield batch
        failure = decoder.error
        whole = failure is None
    except StreamfoldError as error:
        failure = error
    except httpx.HTTPError as error:
        failure = _map(error, call, clock, answered=response is not None)
    except httpx.InvalidURL as error:
        failure = ConfigurationError(f"base_url {call.base_url!r} is not a URL: {error}")
    finally:
        if failure is not None:
            _finish_error(failure, call, response, secrets)
        auth.clear()  # a traceback shows what this frame held
        secrets.clear()
        logged.over(failure, whole=whole)
        if response is not None:
            with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                await response.aclose()
                if isinstance(reads, AsyncGenerator) and reads is not source:
                    await reads.aclose()
                await _run_out(source)
    if failure is not None:
        # Raised here, out of reach of the foreign exception, which holds the request and its key.
        raise failure


async def _within_total(clock: Clock, awaitable: Awaitable[T]) -> T:
    """Await what is not ours (a limiter, a token) until the whole call must be over."""
    left = clock.total_left()
    with anyio.move_on_after(None if left == math.inf else left):
        return await awaitable
    raise clock.error()


async def _run_out(source: AsyncIterator[bytes] | None) -> None:
    """Let the generators of the HTTP stack come to their end: on a closed connection they do at
    once. Dropped half way they would be finished by the garbage collector, with warnings."""
    with suppress(Exception):
        while source is not None:
            await anext(source)


# ---- sending -------------------------------------------------------------------------------------


async def _send(
    call: Call, clock: Clock, auth: dict[str, str], secrets: list[str]
) -> httpx.Response:
    url = call.base_url.rstrip("/") + call.request.path
    if call.query:  # not by `params=`, which takes the place of a query that the path has
        url = str(httpx.URL(url).copy_merge_params(call.query))
    client = await call.connections.client(url)
    if getattr(client, "is_closed", False):
        raise ConfigurationError("http_client is closed: expected a client that is still open")
    request = client.build_request(
        "POST",
        url,
        content=call.request.body,
        headers={
            "content-type": "application/json",
            "accept": "text/event-stream" if call.stream else "application/json",
            "accept-encoding": "identity",
            "idempotency-key": call.idempotency_key,
            **call.request.headers,
            **auth,
        },
        timeout=_httpx_timeout(clock),
    )
    if isinstance(call.key, Signer):
        signed = (request.method, str(request.url), request.headers, call.request.body)
        signature, hidden = await _limited(clock, call.key.sign, *signed)
        secrets.extend(hidden)
        request.headers.update(signature)
    if call.connections.own_client is not None:
        send = client.send
        answer: httpx.Response = await _limited(
            clock, send, request, stream=True, follow_redirects=False
        )
        return answer
    token = CLOCK.set(clock)
    try:
        return await client.send(request, stream=True)
    finally:
        CLOCK.reset(token)


def _httpx_timeout(clock: Clock) -> tuple[float | None, float | None, float | None, None]:
    """Connect, read, write and pool, for a caller's own client; our own connections ask the clock.
    A tuple, because not every client knows httpx's type."""
    left = clock.left()
    return clock.connect_left(), left, left, None


async def _limited(clock: Clock, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Await ``function()`` within the clock's limit, where the connection does not watch it."""
    try:
        with anyio.fail_after(clock.left()):
            return await function(*args, **kwargs)
    except TimeoutError:
        raise httpx.ReadTimeout("the time limit has passed") from None
    except Exception as error:
        known = as_httpx(error)
        if known is None:
            raise
        raise known from None


# ---- reading -------------------------------------------------------------------------------------


async def _decoded(
    call: Call,
    clock: Clock,
    response: httpx.Response,
    reads: AsyncIterator[bytes],
    decoder: Decoder,
) -> AsyncGenerator[list[AIMessageChunk], None]:
    """The chunks of a 200 answer. Ends when the answer does, or when `decoder.error` is set."""
    kind = response.headers.get("content-type", "").lower()
    head, streamed = await _peek(reads, kind, decoder)
    if not streamed:
        chunks = decoder.whole(await _rest(head, reads, call.limits))
        if chunks and (decoder.error is None or any(chunk.content for chunk in chunks)):
            yield chunks
        return
    if chunks := decoder.feed(head):
        yield chunks
    if decoder.error is None and not decoder.done:
        waiting = False
        try:
            async for data in reads:
                chunks = decoder.feed(data)
                del data  # nothing here may hold it while its reader is busy
                if chunks:
                    yield chunks
                if decoder.error is not None or decoder.done:
                    break
                if decoder.finished and (chunks or not waiting):
                    clock.finished()
                    waiting = True
        except httpx.HTTPError:
            if not decoder.finished:
                raise
            # The answer is whole; what might have trailed it did not come.
    if decoder.done:
        await _drain(reads, clock)
    elif chunks := decoder.close():
        yield chunks


async def _peek(reads: AsyncIterator[bytes], kind: str, decoder: Decoder) -> tuple[bytes, bool]:
    """The first bytes of the body, and whether it is a stream: by its type, else by its look."""
    if any(name in kind for name in decoder.stream_types):
        return b"", True
    if "json" in kind and not decoder.array_streams:
        return b"", False
    head = b""
    async for data in reads:
        head += data
        if len(head) > _PIECE or head.strip():  # blanks without end tell nothing
            break
    start = head.lstrip().removeprefix(b"\xef\xbb\xbf")[:1]
    if start == b"<" or "html" in kind:
        raise StreamProtocolError(
            f"the server answered with a web page, not with a model's answer: {_shown(head)}"
        )
    if start == b"[":
        return head, decoder.array_streams
    return head, start != b"{" and "json" not in kind


async def _rest(head: bytes, reads: AsyncIterator[bytes], limits: Limits) -> bytes:
    pieces, size = [head], len(head)
    async for data in reads:
        pieces.append(data)
        size += len(data)
        if size > limits.message_bytes:
            raise SizeLimitError(
                f"the answer is larger than Limits.message_bytes ({limits.message_bytes} bytes)"
            )
    return b"".join(pieces)


async def _drain(reads: AsyncIterator[bytes], clock: Clock) -> None:
    """Read to the end of the body, if it is due, so that the connection can be used again."""
    clock.draining()
    try:
        async for _ in reads:
            pass
    except (httpx.HTTPError, StreamfoldError):
        pass  # the answer is complete; the connection will be closed instead


def _reads(
    call: Call, clock: Clock, response: httpx.Response, source: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """The body as it arrives, unpacked if the server packed it unasked."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if call.connections.own_client is not None:
        source = _Watched(source, clock)
    return source if encoding in ("", "identity") else _inflated(source, encoding)


async def _inflated(source: AsyncIterator[bytes], encoding: str) -> AsyncGenerator[bytes, None]:
    if encoding not in _WINDOWS:
        raise StreamProtocolError(
            f"the answer has content-encoding {encoding!r}, which was not asked for"
        )
    inflater = zlib.decompressobj(_WINDOWS[encoding])
    async for data in source:
        try:
            while data:
                yield inflater.decompress(data, _PIECE)
                data = inflater.unconsumed_tail
                if data:  # a read that unpacks to very much must not keep the loop to itself
                    await anyio.lowlevel.checkpoint()
        except zlib.error as error:
            raise StreamProtocolError(f"the answer is not valid {encoding}: {error}") from None


_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class _Watched:
    """`source`, each read within the clock's limit: for clients that do not ask the clock."""

    def __init__(self, source: AsyncIterator[bytes], clock: Clock) -> None:
        self._source = source
        self._clock = clock

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> bytes:
        data = await _limited(self._clock, anext, self._source, None)
        if data is None:
            raise StopAsyncIteration
        return data  # type: ignore[no-any-return]


# ---- errors --------------------------------------------------------------------------------------


async def _status_error(
    call: Call, response: httpx.Response, reads: AsyncIterator[bytes]
) -> StreamfoldError:
    """The error for a status that brings no answer."""
    status = response.status_code
    if 300 <= status < 400:
        return _redirect_error(f"{status} with", response.headers.get("location", ""))
    if status < 300:
        return StreamProtocolError(
            f"the server answered {status} without a message", retryable=True
        )
    body = await _error_body(call, reads)
    message, type, code, body_id, pause = _vendor_error(body)
    error = provider_error(
        message or response.reason_phrase or "no message",
        status=status,
        type=type or response.headers.get("x-amzn-errortype", "").partition(":")[0] or None,
        code=code,
        means=call.statuses.get(status),
        decision=should_retry_header(response.headers),
        body=body.decode("utf-8", "replace"),
        request_id=body_id,
    )
    error.retry_after = retry_after(response.headers) or pause
    return error


def _redirect_error(what: str, location: str) -> RedirectRefusedError:
    try:
        host = httpx.URL(location).host or "the same host"
    except httpx.InvalidURL:
        host = "what is not a URL"
    return RedirectRefusedError(
        f"the server answered {what} a redirect to {host}: it is not followed, "
        "because key and prompt would go along; set base_url to where the API is"
    )


async def _error_body(call: Call, reads: AsyncIterator[bytes]) -> bytes:
    """The body of an error, up to the limit; what has come counts even if it breaks off."""
    body = b""
    try:
        async for data in reads:
            body += data
            if len(body) >= call.limits.error_body_bytes:
                break
    except (httpx.HTTPError, StreamfoldError):
        pass
    return body[: call.limits.error_body_bytes]


def _vendor_error(
    body: bytes,
) -> tuple[str, str | None, str | None, str | None, float | None]:
    """Message, type, code, request id and the pause asked for, from an error body of any shape."""
    text = body.decode("utf-8", "replace").strip()
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return text, None, None, None, None
    if isinstance(payload, list) and payload:
        payload = payload[0]  # Gemini wraps it in an array
    if not isinstance(payload, dict):
        return text, None, None, None, None
    error = payload.get("error") or payload
    message, type, code = error_fields(error)
    found = payload.get("request_id")
    return message, type, code, found if isinstance(found, str) else None, status_pause(error)


_REQUEST_IDS: Final = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")


def _request_id(response: httpx.Response, secrets: list[str]) -> str | None:
    """The vendor's name for the request, as it is in the headers."""
    found = (response.headers.get(name) for name in _REQUEST_IDS)
    return next((redact(id, secrets) for id in found if id), None)


def _finish_error(
    error: StreamfoldError, call: Call, response: httpx.Response | None, secrets: list[str]
) -> None:
    """Whose error it is, and no key in any of its texts."""
    error.args = tuple(redact(a, secrets) if isinstance(a, str) else a for a in error.args)
    if isinstance(error, ProviderError):
        error.provider = error.provider or call.provider
        error.model = error.model or call.model
        for field in ("body", "type", "code", "request_id"):
            value = getattr(error, field)
            if isinstance(value, str):
                setattr(error, field, redact(value, secrets))
        if error.request_id is None and response is not None:
            error.request_id = _request_id(response, secrets)
    if isinstance(error, StreamInterruptedError):
        error.retryable = True


def _map(error: httpx.HTTPError, call: Call, clock: Clock, *, answered: bool) -> StreamfoldError:
    """An exception of the HTTP stack as an error of the tree."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return clock.error(connecting=True)
    if isinstance(error, httpx.TimeoutException):
        return clock.error()
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        # Its text quotes the header or URL at fault, which may be a key.
        return ConfigurationError("the request cannot be sent: a URL or header of it is not valid")
    if isinstance(error, httpx.DecodingError):
        return StreamProtocolError(f"the answer cannot be decompressed ({text})")
    if isinstance(error, httpx.RemoteProtocolError) and "location header" in text:
        # httpx looks at redirects that it is not to follow, and cannot read this one.
        return _redirect_error("with", "http://[")
    if isinstance(error, httpx.ConnectError):
        where = f"{_place(call)} ({text}){_hint(call)}"
        return ConnectError(f"no connection to {where}", retryable=True)
    if isinstance(error, httpx.ProxyError):
        return ConnectError(f"no connection ({text})", retryable=True)
    if answered:
        return StreamInterruptedError(f"the connection broke in the middle of the answer ({text})")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return ConnectError(f"the connection broke before an answer came ({text})", retryable=True)
    return TransportError(text, retryable=True)


def _place(call: Call) -> str:
    """Where the call went: the address without a path."""
    url = httpx.URL(call.base_url)
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _hint(call: Call) -> str:
    return f": is the server running? start it with `{call.start_hint}`" if call.start_hint else ""


def _shown(data: bytes) -> str:
    return repr(data[:80].decode("utf-8", "replace"))
