"""How each client is called: one stream or one whole answer, said as plain data.

Each is used as its guide says. Where a guide leaves something to the caller, it is done here to the
client's advantage: fields that may be missing are allowed for, arguments that come as text are
handed on as text (the judge reads them as strictly as it must), an error told by an event counts as
raised. Imports are inside the functions, since no environment has all clients.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

__all__ = [
    "CLIENTS",
    "MODES",
    "SHOWN",
    "Ask",
    "Client",
    "Job",
    "Said",
    "Show",
    "ToldByAnEvent",
    "is_async",
]

CONNECT_SECONDS, RETRIES = 2.0, 2
MODES = ("async stream", "sync stream", "async whole", "sync whole")
PROMPT = "hi"
MESSAGES = [{"role": "user", "content": PROMPT}]
#: No act waits for more text than this, in characters.
SHOWN = 200

Job = dict[str, Any]
Show = Callable[[str], None]


@dataclass
class Said:
    """What one call has said so far. Arguments are an object, or text where that is what the client
    hands out."""

    text: str = ""
    finish: str | None = None
    calls: dict[Any, dict[str, Any]] = field(default_factory=dict)
    invalid: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, int] | None = None

    def add_call(self, place: Any, id: Any, name: Any, args: Any) -> None:
        """A piece of the call at `place`: pieces of arguments are joined, the rest is said once."""
        call = self.calls.setdefault(place, {"id": None, "name": None, "args": ""})
        call["id"], call["name"] = call["id"] or id, call["name"] or name
        if isinstance(args, str) and isinstance(call["args"], str):
            call["args"] += args
        elif args is not None:
            call["args"] = args


class ToldByAnEvent(Exception):
    """The client said by an event that the answer broke."""


Add = Callable[[Said, Any], None]
Ask = Callable[[Said, Show], Awaitable[None]]


def of(thing: Any, name: str) -> Any:
    return getattr(thing, name, None)


async def items(source: Any) -> AsyncIterator[Any]:
    """The items of an iterable of either kind; of a sync one without ever being suspended."""
    if hasattr(source, "__aiter__"):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


async def value_of(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


# ---- openai --------------------------------------------------------------------------------------


def chat_chunk(said: Said, chunk: Any) -> None:
    """Tool calls are joined by index, as in the guide to function calling."""
    if usage := of(chunk, "usage"):
        said.usage = figures(usage.prompt_tokens, usage.completion_tokens)
    for choice in of(chunk, "choices") or ():
        if of(choice, "index") in (0, None):
            said.finish = of(choice, "finish_reason") or said.finish
            chat_message(said, of(choice, "delta"))


def chat_message(said: Said, message: Any) -> None:
    said.text += of(message, "content") or ""
    for call in of(message, "tool_calls") or ():
        function = of(call, "function")
        said.add_call(of(call, "index"), of(call, "id"), of(function, "name"), function.arguments)


def chat_whole(said: Said, answer: Any) -> None:
    for choice in (of(answer, "choices") or ())[:1]:
        said.finish = choice.finish_reason
        chat_message(said, choice.message)


def response_event(said: Said, event: Any) -> None:
    kind = of(event, "type")
    if kind in ("error", "response.failed"):
        raise ToldByAnEvent(str(event))
    if kind == "response.output_text.delta":
        said.text += event.delta
    elif kind == "response.output_item.added" and of(event.item, "type") == "function_call":
        said.add_call(event.output_index, event.item.call_id, event.item.name, event.item.arguments)
    elif kind == "response.function_call_arguments.delta":
        said.add_call(event.output_index, None, None, event.delta)


def response_whole(said: Said, answer: Any) -> None:
    for item in of(answer, "output") or ():
        for part in of(item, "content") or ():
            said.text += of(part, "text") or ""


def figures(given: int, made: int) -> dict[str, int]:
    return {"input_tokens": given, "output_tokens": made, "total_tokens": given + made}


def open_openai(job: Job) -> Ask:
    import openai

    client = (openai.AsyncOpenAI if is_async(job) else openai.OpenAI)(
        api_key=job["key"],
        base_url=job["url"],
        max_retries=RETRIES,
        timeout=openai.Timeout(job["read_seconds"], connect=CONNECT_SECONDS),
    )
    if job["dialect"] == "responses":
        create = partial(client.responses.create, model="gpt-4.1", input=PROMPT)
        return asking(job, create, response_event, response_whole)
    create = partial(client.chat.completions.create, model="gpt-4.1", messages=MESSAGES)
    return asking(job, create, chat_chunk, chat_whole)


# ---- anthropic -----------------------------------------------------------------------------------


def messages_event(said: Said, event: Any) -> None:
    kind = of(event, "type")
    if kind == "message_delta":
        said.finish = event.delta.stop_reason
    elif kind == "content_block_start" and of(event.content_block, "type") == "tool_use":
        said.add_call(event.index, event.content_block.id, event.content_block.name, None)
    elif kind == "content_block_delta":
        said.text += of(event.delta, "text") or ""
        if of(event.delta, "type") == "input_json_delta":
            said.add_call(event.index, None, None, event.delta.partial_json)


def messages_whole(said: Said, answer: Any) -> None:
    said.finish = of(answer, "stop_reason")
    said.text = ""
    for place, block in enumerate(of(answer, "content") or ()):
        if of(block, "type") == "tool_use":
            said.add_call(place, block.id, block.name, block.input)
        said.text += of(block, "text") or ""


def anthropic_client(job: Job) -> Any:
    import anthropic

    return (anthropic.AsyncAnthropic if is_async(job) else anthropic.Anthropic)(
        api_key=job["key"],
        base_url=job["url"],
        max_retries=RETRIES,
        timeout=anthropic.Timeout(job["read_seconds"], connect=CONNECT_SECONDS),
    )


CLAUDE: dict[str, Any] = {"model": "claude-sonnet-4-5", "messages": MESSAGES, "max_tokens": 1024}


def open_anthropic(job: Job) -> Ask:
    create = partial(anthropic_client(job).messages.create, **CLAUDE)
    return asking(job, create, messages_event, messages_whole)


def open_anthropic_helper(job: Job) -> Ask:
    client = anthropic_client(job)

    async def read(stream: Any, said: Said, show: Show) -> None:
        async for event in items(stream):
            if of(event, "type") == "text":
                said.text += event.text
                show(said.text)
        messages_whole(said, await value_of(stream.get_final_message()))

    async def ask(said: Said, show: Show) -> None:
        if is_async(job):
            async with client.messages.stream(**CLAUDE) as stream:
                await read(stream, said, show)
        else:
            with client.messages.stream(**CLAUDE) as stream:
                await read(stream, said, show)

    return ask


# ---- LangChain, and streamfold, which is called alike --------------------------------------------


def open_langchain_openai(job: Job) -> Ask:
    import openai
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model="gpt-4.1",
        api_key=job["key"],
        base_url=job["url"],
        max_retries=RETRIES,
        timeout=openai.Timeout(job["read_seconds"], connect=CONNECT_SECONDS),
        stream_usage=True,
        use_responses_api=job["dialect"] == "responses",
    )
    return chatting(job, model, joined_by_langchain)


def open_langchain_anthropic(job: Job) -> Ask:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(
        model="claude-sonnet-4-5",
        api_key=job["key"],
        base_url=job["url"],
        max_retries=RETRIES,
        timeout=job["read_seconds"],  # it takes one figure for all
        max_tokens=1024,
    )
    return chatting(job, model, joined_by_langchain)


def joined_by_langchain(chunks: list[Any]) -> Any:
    from langchain_core.messages.ai import add_ai_message_chunks
    from langchain_core.messages.utils import message_chunk_to_message

    return message_chunk_to_message(add_ai_message_chunks(*chunks))


def open_streamfold(job: Job) -> Ask:
    from streamfold import Limits, Timeouts, init_chat_model

    read = job["read_seconds"]
    model = init_chat_model(
        job["model"],
        api_key=job["key"],
        base_url=job["url"],
        max_retries=RETRIES,
        timeout=Timeouts(connect=CONNECT_SECONDS, first_event=read, idle=read),
        limits=Limits(**job["limits"]),
        **job["fields"],
    )
    return chatting(job, model, joined_by_streamfold)


def joined_by_streamfold(chunks: list[Any]) -> Any:
    full, *others = chunks
    for chunk in others:
        full = full + chunk
    return full.to_message()


def chatting(job: Job, model: Any, join: Callable[[list[Any]], Any]) -> Ask:
    """Calls of a chat model: chunks that add up, messages with `tool_calls`."""

    async def stream(said: Said, show: Show) -> None:
        chunks, texts = [], []
        try:
            async for chunk in items((model.astream if is_async(job) else model.stream)(PROMPT)):
                chunks.append(chunk)
                texts.append(str(chunk.text))
                if len(texts) < SHOWN:
                    show("".join(texts))
        finally:
            said.text = "".join(texts)
        if chunks:
            chat_answer(said, join(chunks))

    async def whole(said: Said, show: Show) -> None:
        answer = await value_of((model.ainvoke if is_async(job) else model.invoke)(PROMPT))
        chat_answer(said, answer)

    return stream if is_stream(job) else whole


FINISH = ("finish_reason", "stop_reason", "status")


def chat_answer(said: Said, message: Any) -> None:
    said.text = str(message.text)
    meta = message.response_metadata
    named = (meta[name] for name in FINISH if name in meta)
    said.finish = of(message, "finish_reason") or next(named, None)
    said.calls = dict(enumerate(dict(call) for call in message.tool_calls))
    said.invalid = [dict(call) for call in message.invalid_tool_calls]
    said.usage = message.usage_metadata and dict(message.usage_metadata)


# ---- the clients ---------------------------------------------------------------------------------


def is_async(job: Job) -> bool:
    return str(job["mode"]).startswith("async")


def is_stream(job: Job) -> bool:
    return str(job["mode"]).endswith("stream")


def asking(job: Job, create: Callable[..., Any], add: Add, add_whole: Add) -> Ask:
    """Calls of a vendor's SDK by its `create`, whose events are added up one by one."""

    async def stream(said: Said, show: Show) -> None:
        async for event in items(await value_of(create(stream=True))):
            add(said, event)
            show(said.text)

    async def whole(said: Said, show: Show) -> None:
        add_whole(said, await value_of(create()))

    return stream if is_stream(job) else whole


@dataclass(frozen=True)
class Client:
    """`own`: the packages whose exceptions are its hierarchy, the client's first."""

    title: str
    own: tuple[str, ...]
    dialects: tuple[str, ...]
    open: Callable[[Job], Ask]
    modes: tuple[str, ...] = MODES
    peer: bool = True


OPENAI = ("openai", "responses")
CLIENTS = {
    "streamfold": Client(
        "streamfold", ("streamfold",), (*OPENAI, "anthropic"), open_streamfold, peer=False
    ),
    "openai": Client("openai SDK", ("openai",), OPENAI, open_openai),
    "anthropic": Client("anthropic SDK", ("anthropic",), ("anthropic",), open_anthropic),
    "anthropic-helper": Client(
        "anthropic SDK, helper",
        ("anthropic",),
        ("anthropic",),
        open_anthropic_helper,
        modes=MODES[:2],
    ),
    "langchain-openai": Client(
        "langchain-openai",
        ("langchain_openai", "langchain_core", "openai"),
        OPENAI,
        open_langchain_openai,
    ),
    "langchain-anthropic": Client(
        "langchain-anthropic",
        ("langchain_anthropic", "langchain_core", "anthropic"),
        ("anthropic",),
        open_langchain_anthropic,
    ),
}
