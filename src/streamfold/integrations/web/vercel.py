"""The vocabulary of Vercel's AI SDK: the UI message stream, which `useChat` reads.

Reference: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol and `ui-message-chunks.ts` of the npm
package `ai` (version 6). One message of a model is a step; a tool's result belongs to the step of
its call. What a text, a reasoning or a call is made of stays in the order in which it came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from ...chunks import fold_events
from ...content import Block, sniff_base64
from ...deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    Restart,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from ...errors import StreamInterruptedError
from ...messages import ToolMessage
from ...tool_calls import Call
from .failures import Refusal, refusal_headers, status_of
from .items import Calls, Item, Tally, parts
from .openai import refusal_text
from .sse import json_line
from .ui_messages import NAMESPACE

__all__ = ["VercelVocabulary"]

Part = dict[str, Any]

_FINISH: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "error": "error",
}
_MEDIA: Final = frozenset({"image", "audio", "video", "file"})
#: Where a block says nothing of its type and its data shows none.
_USUAL_TYPES: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}


class VercelVocabulary:
    """Parts of the UI message stream.

    `message_id`: the id that the message gets on the other side; without it `useChat` makes one, or
    goes on with the message that it sent. `include_usage`: the message's metadata has ``usage``
    with `inputTokens`, `outputTokens` and `totalTokens`. A result of a tool is told if its call
    came in this stream.

    What only the provider can read (signatures, encrypted reasoning) travels in `providerMetadata`;
    `useChat` sends it back with the conversation, and `messages_from_ui` reads it.
    """

    headers: ClassVar[Mapping[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    def __init__(self, *, message_id: str | None = None, include_usage: bool = False) -> None:
        self._message_id = message_id
        self._include_usage = include_usage
        self._tally = Tally()
        self._calls = Calls()
        self._unread: dict[str, tuple[Call, str, int | None]] = {}  # open calls, kinds, indexes
        self._told: set[str] = set()  # the ids of all calls
        self._open: dict[tuple[str, int | None], str] = {}  # texts and reasoning, and their ids
        self._extras: dict[tuple[str, int | None], dict[str, Any]] = {}  # of blocks
        self._provider: str | None = None
        self._media: list[ChunkEvent] = []
        self._numbers = 0
        self._started = self._in_step = self._ended = False
        self._finish = "stop"

    def feed(self, item: Item) -> list[bytes]:
        told: list[Part] = []
        for part in parts(item):
            reader = _READERS.get(type(part))
            if reader is not None:
                told.extend(reader(self, part))
        return self._begun(told) if told else []

    def close(self) -> list[bytes]:
        told = [*self._end_message(self._finish)]
        if self._in_step:
            told.append({"type": "finish-step"})
        return [*self._begun([*told, self._last()]), b"[DONE]"]

    def _last(self) -> Part:
        if self._finish == "cancelled":
            return {"type": "abort"}
        last: Part = {"type": "finish", "finishReason": _FINISH.get(self._finish, "other")}
        usage = self._tally.total()
        if self._include_usage and usage is not None:
            last["messageMetadata"] = {"usage": _usage(usage)}
        return last

    def fail(self, error: Exception, text: str) -> list[bytes]:
        return [*self._begun([{"type": "error", "errorText": text}]), b"[DONE]"]

    def refuse(self, error: Exception, text: str) -> Refusal:
        """As text: `useChat` takes the body for the message of its error."""
        body, headers = text.encode(errors="replace"), refusal_headers(error)
        return Refusal(status_of(error), body, "text/plain; charset=utf-8", headers)

    def _begun(self, told: list[Part]) -> list[bytes]:
        if not self._started:
            self._started = True
            named = {} if self._message_id is None else {"messageId": self._message_id}
            told = [{"type": "start", **named}, *told]
        return [json_line(part) for part in told]

    # ---- steps -----------------------------------------------------------------------------------

    def _step(self) -> Iterable[Part]:
        """The beginning of a step, if what comes is the first of a message."""
        if self._ended and self._in_step:
            self._ended = self._in_step = False
            self._tally.next_message()
            yield {"type": "finish-step"}
        if not self._in_step:
            self._in_step = True
            yield {"type": "start-step"}

    def _message_start(self, event: MessageStart) -> Iterable[Part]:
        yield from self._step()
        self._provider = event.provider or self._provider

    def _message_end(self, event: MessageEnd) -> Iterable[Part]:
        self._finish, self._ended = event.finish_reason or "stop", True
        yield from self._end_message(self._finish)
        self._calls.end_message()

    def _end_message(self, reason: str) -> Iterable[Part]:
        for kind, index in list(self._open):
            yield from self._close(kind, index)
        for id in list(self._unread):
            yield from self._read_call(id, reason)
        blocks = fold_events(self._media).content_blocks
        self._media.clear()
        yield from filter(None, map(_file, blocks))
        self._extras.clear()

    def _restart(self, event: Restart) -> Iterable[Part]:
        if self._started:
            raise StreamInterruptedError(
                f"the answer broke and began anew ({event.reason}), after a part of it was sent"
            )
        self._tally = Tally()
        return ()

    # ---- texts -----------------------------------------------------------------------------------

    def _text(self, event: TextDelta) -> Iterable[Part]:
        return self._delta("text", event)

    def _reasoning(self, event: ReasoningDelta) -> Iterable[Part]:
        return self._delta("reasoning", event)

    def _delta(self, kind: str, event: TextDelta | ReasoningDelta) -> Iterable[Part]:
        if event.text:
            yield from self._begin(kind, event.index)
            id = self._open[kind, event.index]
            yield {"type": f"{kind}-delta", "id": id, "delta": event.text}

    def _begin(self, kind: str, index: int | None) -> Iterable[Part]:
        if (kind, index) not in self._open:
            yield from self._step()
            self._numbers += 1
            id = self._open[kind, index] = f"{kind}-{self._numbers}"
            yield {"type": f"{kind}-start", "id": id}

    def _close(self, kind: str, index: int | None) -> Iterable[Part]:
        id = self._open.pop((kind, index))
        yield {"type": f"{kind}-end", "id": id, **self._metadata(kind, index)}

    def _block_end(self, event: BlockEnd) -> Iterable[Part]:
        if (event.kind, event.index) in self._open:
            yield from self._close(event.kind, event.index)

    def _provider_data(self, event: ProviderData) -> Iterable[Part]:
        if event.kind is None:
            return
        self._extras.setdefault((event.kind, event.index), {}).update(event.data)
        if event.kind == "reasoning":  # it may have no text at all, and is wanted back
            yield from self._begin("reasoning", event.index)

    def _metadata(self, kind: str, index: int | None) -> Part:
        extras = self._extras.pop((kind, index), None)
        if not extras:
            return {}
        return {"providerMetadata": {NAMESPACE: {"provider": self._provider, "extras": extras}}}

    def _annotation(self, event: Annotation) -> Iterable[Part]:
        note = event.annotation
        self._numbers += 1
        source: Part = {"sourceId": str(note.get("id") or f"source-{self._numbers}")}
        title = note.get("title")
        if note.get("url"):
            titled = {"title": str(title)} if title else {}
            yield {"type": "source-url", **source, "url": str(note["url"]), **titled}
        elif title:
            yield {
                **source,
                "type": "source-document",
                "mediaType": "text/plain",
                "title": str(title),
            }

    # ---- blocks and calls ------------------------------------------------------------------------

    def _block_start(self, event: BlockStart) -> Iterable[Part]:
        extras = event.data.get("extras")
        if isinstance(extras, Mapping) and event.kind not in _MEDIA:
            yield from self._provider_data(ProviderData(dict(extras), event.index, event.kind))
        if event.kind in ("tool_call", "server_tool_call"):
            yield from self._call(event)
        elif event.kind == "server_tool_result":
            data = event.data
            yield from self._result(data.get("tool_call_id"), data.get("output"), data, True)
        elif event.kind in _MEDIA:
            yield from self._step()
            self._media.append(event)
        elif (refusal := refusal_text(event.data)) is not None:
            yield from self._delta("text", TextDelta(refusal, event.index))

    def _data(self, event: DataDelta) -> Iterable[Part]:
        self._media.append(event)
        return ()

    def _call(self, event: BlockStart | ToolCallDelta) -> Iterable[Part]:
        call, is_new = self._calls.take(event)
        id, ours = str(call.id), event.kind == "tool_call"
        if is_new:
            yield from self._step()
            self._unread[id] = call, event.kind, event.index
            self._told.add(id)
            yield {"type": "tool-input-start", **_named(call, ours)}
        if isinstance(event, ToolCallDelta) and event.args:
            yield {"type": "tool-input-delta", "toolCallId": id, "inputTextDelta": event.args}
        elif isinstance(event, BlockStart) and "args" in event.data:  # it comes whole
            del self._unread[id]
            input = event.data["args"]
            yield {"type": "tool-input-available", **_named(call, ours), "input": input}

    def _read_call(self, id: str, reason: str) -> Iterable[Part]:
        """The arguments of an open call, all of which have come."""
        call, kind, index = self._unread.pop(id)
        args, error = call.verdict(reason)
        named = {**_named(call, kind == "tool_call"), **self._metadata(kind, index)}
        if error is None:
            yield {"type": "tool-input-available", **named, "input": args}
        else:
            yield {"type": "tool-input-error", **named, "input": call.raw, "errorText": error}

    def _tool_message(self, message: ToolMessage) -> Iterable[Part]:
        said = {"status": message.status}
        return self._result(message.tool_call_id, message.content, said, False)

    def _result(
        self, id: Any, output: Any, said: Mapping[str, Any], executed: bool
    ) -> Iterable[Part]:
        if not isinstance(id, str) or id not in self._told:
            return  # the other side knows no such call, and would break
        if id in self._unread:
            yield from self._read_call(id, "stop")
        common = {"toolCallId": id, **({"providerExecuted": True} if executed else {})}
        if said.get("status") == "error":
            text = output if isinstance(output, str) else json_line(output).decode()
            yield {"type": "tool-output-error", **common, "errorText": text}
        else:
            yield {"type": "tool-output-available", **common, "output": output}

    def _usage_report(self, event: UsageReport) -> Iterable[Part]:
        self._tally.take(event)
        return ()


_READERS: Final[dict[type, Callable[[VercelVocabulary, Any], Iterable[Part]]]] = {
    MessageStart: VercelVocabulary._message_start,
    ProviderData: VercelVocabulary._provider_data,
    TextDelta: VercelVocabulary._text,
    ReasoningDelta: VercelVocabulary._reasoning,
    BlockStart: VercelVocabulary._block_start,
    ToolCallDelta: VercelVocabulary._call,
    DataDelta: VercelVocabulary._data,
    Annotation: VercelVocabulary._annotation,
    BlockEnd: VercelVocabulary._block_end,
    UsageReport: VercelVocabulary._usage_report,
    MessageEnd: VercelVocabulary._message_end,
    Restart: VercelVocabulary._restart,
    ToolMessage: VercelVocabulary._tool_message,
}


def _named(call: Call, ours: bool) -> Part:
    executed = {} if ours else {"providerExecuted": True}
    return {"toolCallId": call.id, "toolName": call.name or "", **executed}


def _file(block: Block) -> Part | None:
    """A media block; None for one that only its provider can read."""
    data, kind = block.get("base64"), block["type"]
    mime = block.get("mime_type") or (sniff_base64(data) if data else None)
    mime = str(mime or _USUAL_TYPES.get(kind, "application/octet-stream"))
    url = f"data:{mime};base64,{data}" if data else block.get("url")
    return {"type": "file", "url": str(url), "mediaType": mime} if url else None


def _usage(usage: Mapping[str, Any]) -> Part:
    keys = {"inputTokens": "input_tokens", "outputTokens": "output_tokens"}
    return {
        ours: usage.get(key, 0) for ours, key in {**keys, "totalTokens": "total_tokens"}.items()
    }
