"""``streamfold demo``: one answer of the embedded provider through the real client, over HTTP, and
then the same stream as typed events, as a fold, and as a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import anyio

from . import __version__, init_chat_model
from .chat_models import ChatModel
from .chunks import AIMessageChunk
from .deltas import (
    BlockEnd,
    BlockStart,
    ChunkEvent,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from .messages import AIMessage
from .terminal import (
    BOLD,
    CYAN,
    DIM,
    GREEN,
    AnswerWriter,
    Screen,
    Watch,
    seconds_text,
    usage_line,
)

__all__ = ["STAGES", "show"]


class _Stage(NamedTuple):
    """A provider of the demo: its model and where its API is on the embedded server."""

    model: str
    path: str
    api: str
    params: Mapping[str, Any] = MappingProxyType({})


STAGES: Final = {
    "openai": _Stage("openai:gpt-4.1", "/v1", "OpenAI Chat Completions"),
    "openai-responses": _Stage(
        "openai:gpt-4.1", "/v1", "OpenAI Responses", {"use_responses_api": True}
    ),
    "anthropic": _Stage("anthropic:claude-sonnet-4-5", "", "Anthropic Messages"),
    "google": _Stage("google_genai:gemini-2.5-flash", "/v1beta", "Gemini"),
    "bedrock": _Stage("bedrock_converse:anthropic.claude-sonnet-4", "", "Bedrock Converse"),
    "ollama": _Stage("ollama:llama3.2", "", "Ollama"),
    "cohere": _Stage("cohere:command-a", "", "Cohere"),
}

_QUESTION: Final = "Do I need a coat in Lisbon?"
_REASONING: Final = "That depends on the weather. I cannot see it, but a tool can."
_TEXT: Final = "Let me look at the weather there before I send you out in a coat."
_PER_SECOND: Final = 40  # events, for eyes to follow


def show(screen: Screen, provider: str) -> None:
    """The demo with the API of `provider`, one of `STAGES`."""
    anyio.run(_show_demo, screen, STAGES[provider])


async def _show_demo(screen: Screen, stage: _Stage) -> None:
    from .testing import Answer, Call, EmbeddedProvider

    answer = Answer(_TEXT, _REASONING, [Call("get_weather", {"city": "Lisbon", "days": 1})])
    delay = 1 / _PER_SECOND if screen.terminal else 0.0
    async with EmbeddedProvider([answer, answer], chunk_delay=delay) as provider:
        url = provider.url + stage.path
        model = init_chat_model(stage.model, base_url=url, api_key="none", **stage.params)
        async with model:
            _show_opening(screen, stage, provider.url)
            chunks, watch = await _stream_once(screen, model)
            invoked = await model.ainvoke(_QUESTION)
    _show_events(screen, chunks)
    full = _show_fold(screen, [chunk for _, chunk in chunks])
    _show_message(screen, full, watch, invoked)


def _show_opening(screen: Screen, stage: _Stage, url: str) -> None:
    screen.line(f"streamfold {__version__}", BOLD)
    screen.line(f"Embedded provider: {stage.api} on {url}", DIM)
    screen.line("No key, no network: the client is the real one, the answer is made up.", DIM)
    _heading(screen, "The stream", f'async for chunk in model.astream("{_QUESTION}")')


async def _stream_once(
    screen: Screen, model: ChatModel
) -> tuple[list[tuple[float, AIMessageChunk]], Watch]:
    writer, watch = AnswerWriter(screen, indent="  "), Watch()
    chunks = []
    async with model.astream(_QUESTION) as stream:
        async for chunk in stream:
            chunks.append((watch.now, chunk))
            for event in chunk.events:
                watch.see(event)
                writer.take(event)
    writer.close()
    return chunks, watch


def _heading(screen: Screen, title: str, code: str = "") -> None:
    screen.line()
    screen.write(title, BOLD)
    screen.line("   " + code if code else "", DIM)
    screen.line()


def _show_events(screen: Screen, chunks: list[tuple[float, AIMessageChunk]]) -> None:
    """The events as a table, a row for each run of events of one kind and block."""
    timed = [(at, event) for at, chunk in chunks for event in chunk.events]
    _heading(screen, "The same stream as typed events", "chunk.events")
    screen.line(f"  {'ms':>5}  {'n':>3}  {'event':<16} {'block':<6} holds", DIM)
    for (tag, index), run in groupby(timed, key=lambda item: _kind(item[1])):
        group = list(run)
        block = "" if index is None else str(index)
        screen.write(f"  {group[0][0] * 1000:5.0f}  {len(group):3}  ")
        screen.write(f"{tag:<16} ", _STYLES.get(tag, ""))
        holds = _holds([event for _, event in group])
        screen.line(f"{block:<6} {_head(holds, screen.width - 40)}")


def _kind(event: ChunkEvent) -> tuple[str, int | None]:
    return str(event.__struct_config__.tag), getattr(event, "index", None)


_STYLES: Final = {"text-delta": GREEN, "reasoning-delta": DIM, "tool-call-delta": CYAN}


def _holds(run: list[ChunkEvent]) -> str:
    """What the events of a run say, in a few words."""
    match run[0]:
        case TextDelta() | ReasoningDelta():
            return repr(_joined(run, "text"))
        case ToolCallDelta():
            return repr(_joined(run, "args"))
        case MessageStart(model=model):
            return f"{model} answers"
        case BlockStart(kind, name=name):
            return f"{kind} {name}" if name else kind
        case BlockEnd(kind):
            return kind
        case UsageReport(usage):
            return usage_line(usage)
        case MessageEnd(finish_reason):
            return str(finish_reason)
        case ProviderData(data):
            return ", ".join(data)
    return ""


def _joined(run: list[ChunkEvent], field: str) -> str:
    return "".join(getattr(event, field) for event in run)


def _show_fold(screen: Screen, chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """The growing message, at some of its steps; what it came to."""
    _heading(screen, "The same stream as a fold", "full = full + chunk")
    screen.line(f"  {'chunks':>6}  full", DIM)
    full = AIMessageChunk()
    shown = set(_steps(chunks))
    for count, chunk in enumerate(chunks, 1):
        full = full + chunk
        if count - 1 in shown:
            name, value, style = _front(full)
            screen.write(f"  {count:6}  ")
            screen.write(f"{name:<12}", style)
            screen.line(_tail(value, screen.width - 22))
    return full


def _steps(chunks: list[AIMessageChunk]) -> Iterator[int]:
    """Three steps of reasoning, three of text, and each of the tool call."""
    for kind, most in ((ReasoningDelta, 3), (TextDelta, 3), (ToolCallDelta, 99)):
        having = [
            number
            for number, chunk in enumerate(chunks)
            if any(isinstance(event, kind) for event in chunk.events)
        ]
        count = min(most, len(having))
        yield from (having[(part + 1) * len(having) // count - 1] for part in range(count))


def _front(full: AIMessageChunk) -> tuple[str, str, str]:
    """What a growing message is just saying: its name, its value, and how it is shown."""
    if full.tool_calls:
        return ".tool_calls", ", ".join(_calls(full)), CYAN
    if full.text:
        return ".text", repr(full.text), GREEN
    return ".reasoning", repr(full.reasoning), DIM


def _calls(message: AIMessage) -> Iterator[str]:
    for call in message.tool_calls:
        arguments = ", ".join(f"{name}={value!r}" for name, value in call["args"].items())
        yield f"{call['name']}({arguments})"


def _show_message(screen: Screen, full: AIMessageChunk, watch: Watch, invoked: AIMessage) -> None:
    _heading(screen, "The message it came to")
    same = full.to_message() == invoked
    rows = {
        "text": repr(full.text),
        "reasoning": repr(full.reasoning),
        "tool calls": ", ".join(_calls(full)),
        "finish": str(full.finish_reason),
        "usage": usage_line(full.usage_metadata),
        "first token": f"after {seconds_text(watch.first or 0.0)}",
        "ainvoke": "gives an equal message" if same else "gives another message",
    }
    for name, value in rows.items():
        screen.write(f"  {name:<13}", DIM)
        screen.line(_head(value, screen.width - 15))
    screen.line()
    screen.write("Next: ", BOLD)
    screen.line('export OPENAI_API_KEY=... && streamfold ask "Hello" -m openai:gpt-4.1')


def _head(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[-max(1, width - 1) :]
