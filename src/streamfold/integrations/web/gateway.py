"""The gateway: OpenAI's API in front of any model, for local use.

An application of `POST /v1/chat/completions` and `GET /v1/models`. What the models answer is said
in OpenAI's words (`openai.py`), and errors in its shape. An answer with tool calls may hold what
only its provider can read (signatures, encrypted reasoning) and OpenAI's words have no place for;
it is remembered until the results of the calls come, and goes back to the provider as it was.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...chat_models import ChatModel, init_chat_model
from ...chunks import AIMessageChunk, fold_events
from ...coercion import nearest, shown
from ...deltas import ChunkEvent
from ...errors import ConfigurationError, StreamfoldError
from ...messages import AIMessage, BaseMessage
from ...runnables import ChunkStream
from ...vendors import dialect
from .chat_request import ChatBody, RequestError, blamed, for_model, read_body
from .failures import openai_error, refusal_headers, status_of, words
from .openai import OpenAIVocabulary, completion
from .response import HEARTBEAT, StreamResponse, attended

__all__ = ["Models", "gateway"]

#: What is served: names such as "openai:gpt-4.1", or models under names of one's own.
Models: TypeAlias = Sequence[str] | Mapping[str, ChatModel]

#: Room for a prompt with several large images; a longer body is a mistake.
_BODY_BYTES: Final = 64 * 1024 * 1024
#: Answers with tool calls that are remembered.
_REMEMBERED: Final = 1000


def gateway(
    models: Models,
    *,
    key: str | None = None,
    heartbeat: float | None = HEARTBEAT,
    hosts: Iterable[str] | None = None,
) -> Starlette:
    """An ASGI application with OpenAI's `/v1/chat/completions` and `/v1/models` over `models`.

    `models`: names for `init_chat_model`, or a mapping of names to models. A client may leave out
    the provider of a name where that is clear. `key`: what clients have to send as their API key;
    None: whatever they like. `heartbeat`: seconds of silence before a comment is sent in a stream.
    `hosts`: the names under which requests may come (without a port); None: any.

    Raises ConfigurationError for models that cannot be made.
    """
    desk = _Desk(_made(models), heartbeat)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", desk.chat, methods=["POST"]),
            Route("/v1/models", desk.list, methods=["GET"]),
            Route("/v1/models/{id:path}", desk.retrieve, methods=["GET"]),
        ],
        exception_handlers={
            RequestError: _request_error,
            StreamfoldError: _failed,
            HTTPException: _http_error,
            Exception: _failed,
        },
        lifespan=desk.lifespan,
    )
    known = None if hosts is None else frozenset(hosts)
    app.add_middleware(_Guard, key=key, hosts=known)
    return app


def _made(models: Models) -> dict[str, ChatModel]:
    if isinstance(models, str) or not models:
        raise ConfigurationError(
            f"models is {shown(models)}: expected names such as 'openai:gpt-4.1' in a list, or a "
            "mapping of names to models"
        )
    if not isinstance(models, Mapping):
        return {name: init_chat_model(name) for name in models}
    for name, model in models.items():
        if not isinstance(model, ChatModel):
            raise ConfigurationError(f"models[{name!r}] is {shown(model)}: expected a chat model")
    return dict(models)


class _Desk:
    """The endpoints, and the models behind them."""

    def __init__(self, models: dict[str, ChatModel], heartbeat: float | None) -> None:
        self._models = models
        self._heartbeat = heartbeat
        self._memory = _Memory()
        self._since = int(time.time())

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for model in self._models.values():
                await stack.enter_async_context(model)
            yield

    async def list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._told(id) for id in self._models]})

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(self._told(self._find(request.path_params["id"])))

    async def chat(self, request: Request) -> Response:
        body = read_body(await _received(request))
        name = self._find(body.model)
        model = self._models[name]
        asked = _Asked(model, body, self._memory)
        if not body.stream:
            return _Whole(asked, model.model)
        spoken = OpenAIVocabulary(model=model.model, include_usage=body.include_usage)
        return StreamResponse(asked.stream(), spoken, heartbeat=self._heartbeat)

    def _told(self, id: str) -> dict[str, Any]:
        model = self._models[id]
        return {"id": id, "object": "model", "created": self._since, "owned_by": model._vendor.name}

    def _find(self, name: str) -> str:
        """The name under which a model is served; the provider may be left out if it is clear."""
        if name in self._models:
            return name
        short = [id for id in self._models if id.partition(":")[2] == name]
        if len(short) == 1:
            return short[0]
        text = f"The model {shown(name)} is not served here{nearest(name, self._models)}"
        raise RequestError(text, status=404, param="model", code="model_not_found")


# ---- one request ---------------------------------------------------------------------------------


class _Asked:
    """One question to a model. Raises RequestError for what the model does not take, as far as that
    shows before anything is sent."""

    def __init__(self, model: ChatModel, body: ChatBody, memory: _Memory) -> None:
        self._body = body
        self._memory = memory
        takes = dialect(model.dialect).BODY_FIELDS
        self._params = for_model(body.params, takes)
        said = body.conversation(reasoning=model.dialect == "openai_chat")
        self._messages = memory.recall(said)
        self._config = {"metadata": body.metadata} if body.metadata else None
        with self._blaming():
            self._model = model.bind_tools(body.tools, **body.choice) if body.tools else model

    def stream(self) -> AsyncGenerator[AIMessageChunk, None]:
        with self._blaming():
            chunks = self._model.astream(self._messages, self._config, **self._params)
        return self._remembered(chunks)

    async def message(self) -> AIMessage:
        with self._blaming():
            message: AIMessage = await self._model.ainvoke(
                self._messages, self._config, **self._params
            )
        self._memory.keep(message)
        return message

    async def _remembered(self, chunks: ChunkStream) -> AsyncGenerator[AIMessageChunk, None]:
        events: list[ChunkEvent] = []
        async with chunks:
            async for chunk in chunks:
                events.extend(chunk.events)
                yield chunk
        self._memory.keep(fold_events(events).to_message())

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        """What cannot be right in a request is its sender's mistake, and names the field."""
        try:
            yield
        except ConfigurationError as error:
            raise RequestError(str(error), param=blamed(error, self._body)) from error


class _Whole(Response):
    """The answer in one piece. A client that leaves while it is waited for cancels the request."""

    def __init__(self, asked: _Asked, model: str) -> None:
        super().__init__()
        self._asked = asked
        self._model = model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer() -> None:
            message = await self._asked.message()
            response = JSONResponse(completion(message, model=self._model))
            with suppress(OSError):  # so a server may say that the client has gone
                await response(scope, receive, send)

        await attended(receive, answer)


class _Memory:
    """The last answers with tool calls, by the ids of the calls, as they came from the provider."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[Any, ...], AIMessage] = OrderedDict()

    def keep(self, message: AIMessage) -> None:
        if message.tool_calls:
            self._answers[_identity(message)] = message
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)

    def recall(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """The messages, with each answer that was given here as it was."""
        return [
            self._answers.get(_identity(message), message)
            if isinstance(message, AIMessage) and message.tool_calls
            else message
            for message in messages
        ]


def _identity(message: AIMessage) -> tuple[Any, ...]:
    """What makes a client's copy of an answer the same answer."""
    calls = ((call["id"], call["name"], repr(call["args"])) for call in message.tool_calls)
    return (message.text, *calls)


async def _received(request: Request) -> bytes:
    """The body. Only JSON that says so: a page of another site cannot send that without asking."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestError("the content-type is not application/json", status=415)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _BODY_BYTES:
                raise RequestError(f"the body is larger than {_BODY_BYTES} bytes", status=413)
    except ClientDisconnect as error:
        raise RequestError("the client left in the middle of its request") from error
    return bytes(body)


# ---- errors --------------------------------------------------------------------------------------


def _refused(error: RequestError) -> JSONResponse:
    kind = "authentication_error" if error.status == 401 else "invalid_request_error"
    said = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    headers = {"x-should-retry": "false", **error.headers}
    return JSONResponse({"error": said}, error.status, headers)


def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _refused(error)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail}"
    return _refused(RequestError(text, status=error.status_code, headers=error.headers))


def _failed(request: Request, error: Exception) -> Response:
    said = openai_error(error, words(error, None))
    return JSONResponse(said, status_of(error), refusal_headers(error))


# ---- who may ask ---------------------------------------------------------------------------------


class _Guard:
    """Lets in those who have the key and ask under a known name. The name matters where there is no
    key: a page of another site can make its own name lead here, and then read the answers."""

    def __init__(self, app: ASGIApp, key: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            error = self._objection(Headers(scope=scope))
            if error is not None:
                await _refused(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _objection(self, headers: Headers) -> RequestError | None:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return RequestError(f"the host {shown(host)} is not served here", status=421)
        given = headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
        if self._key is None or hmac.compare_digest(given, self._key):
            return None
        return RequestError(
            "Incorrect API key provided: give the one that this gateway was started with",
            status=401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
        )


def _name(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
