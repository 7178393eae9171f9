"""What the seven dialects say on the wire: the payloads that the acts of a fault are made of.

One answer, the same in all: `PIECES` as text, perhaps a call of `get_weather`, an ending. A
`Dialect` writes its frames; which model speaks it and where it listens is on the class.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

from streamfold.wire.eventstream import encode_message

__all__ = ["DIALECTS", "HALF", "PIECES", "WHOLE", "Dialect", "half", "rest", "whole"]

PIECES = ("Grüße ", "aus ", "Zürich", " — ", "all is ", "well 🌊")
HALF = "".join(PIECES[:3])
WHOLE = "".join(PIECES)


def dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


class Dialect:
    """One dialect. Frames are bytes that end where the dialect ends an event."""

    name: ClassVar[str]
    #: What `init_chat_model` takes, and the path of the server's address.
    model: ClassVar[str]
    prefix: ClassVar[str] = ""
    fields: ClassVar[Mapping[str, Any]] = {}
    #: How events are framed (`sse`, `ndjson`, `frames`), and the content type of a stream.
    framing: ClassVar[str] = "sse"
    kind: ClassVar[str] = "text/event-stream; charset=utf-8"
    #: The dialect's own words for kinds of errors.
    words: ClassVar[Mapping[str, str | None]] = {}
    server_error: ClassVar[str] = "server_error"

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        name = f"event: {event}\n".encode() if event else b""
        return name + b"data: " + dump(payload) + b"\n\n"

    def word(self, kind: str) -> str | None:
        """What the `type` of an error of this kind says."""
        return self.words.get(kind, kind)

    def noise(self) -> bytes:
        """What keeps a connection busy and says nothing."""
        return b": still here\n\n"

    def opening(self) -> bytes:
        """How an event begins that will never end."""
        return b"data: "

    def garbage(self, text: bytes) -> bytes:
        """An event that is not this dialect's."""
        return b"data: " + text + b"\n\n"

    def raw(self, content: bytes) -> bytes:
        """A delta whose text is these bytes of JSON."""
        return self.delta("@").replace(b'"@"', content)

    def start(self) -> list[bytes]:
        raise NotImplementedError

    def delta(self, text: str) -> bytes:
        raise NotImplementedError

    def tool_start(self) -> list[bytes]:
        raise NotImplementedError

    def tool_delta(self, args: str) -> bytes:
        raise NotImplementedError

    def ending(self, reason: str = "stop") -> list[bytes]:
        """The finish reason and the figures."""
        raise NotImplementedError

    def marker(self) -> bytes:
        """The end marker; nothing where the ending is one."""
        return b""

    def error(self, kind: str, message: str = "it broke") -> bytes:
        """An error inside a stream."""
        return self.frame(json.loads(self.failure(kind, message)))

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        """The body of a failed request."""
        raise NotImplementedError

    def whole(self) -> bytes:
        """The answer as one JSON body."""
        raise NotImplementedError


class OpenAI(Dialect):
    """Chat Completions."""

    name = "openai"
    model = "openai:gpt-4.1"
    prefix = "/v1"
    top: ClassVar[Mapping[str, Any]] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "gpt-4.1",
    }

    def chunk(self, delta: Any, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return self.frame({**self.top, "choices": [choice], **more})

    def start(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def delta(self, text: str) -> bytes:
        return self.chunk({"content": text})

    def tool_start(self) -> list[bytes]:
        function = {"name": "get_weather", "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        return [self.chunk({"role": "assistant", "tool_calls": [call]})]

    def tool_delta(self, args: str) -> bytes:
        return self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": args}}]})

    def ending(self, reason: str = "stop") -> list[bytes]:
        usage = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
        return [self.chunk({}, reason), self.frame({**self.top, "choices": [], "usage": usage})]

    def marker(self) -> bytes:
        return b"data: [DONE]\n\n"

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        code = kind if kind == "insufficient_quota" else None
        return dump({"error": {"message": message, "type": kind, "param": None, "code": code}})

    def whole(self) -> bytes:
        message = {"role": "assistant", "content": WHOLE}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return dump({**self.top, "object": "chat.completion", "choices": [choice]})


class Responses(Dialect):
    """OpenAI Responses."""

    name = "responses"
    model = "openai:gpt-4.1"
    prefix = "/v1"
    fields: ClassVar[Mapping[str, Any]] = {"use_responses_api": True}
    response: ClassVar[Mapping[str, Any]] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "gpt-4.1",
        "status": "in_progress",
        "error": None,
        "output": [],
    }
    message: ClassVar[Mapping[str, Any]] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
    }

    def event(self, kind: str, **fields: Any) -> bytes:
        return self.frame({"type": kind, "sequence_number": 0, **fields}, kind)

    def start(self) -> list[bytes]:
        item = {**self.message, "status": "in_progress", "content": []}
        return [
            self.event("response.created", response=dict(self.response)),
            self.event("response.output_item.added", item=item, output_index=0),
        ]

    def delta(self, text: str) -> bytes:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        return self.event("response.output_text.delta", delta=text, logprobs=[], **place)

    def tool_start(self) -> list[bytes]:
        call = {"id": "fc_1", "type": "function_call", "status": "in_progress"}
        call |= {"call_id": "call_1", "name": "get_weather", "arguments": ""}
        return [
            self.event("response.created", response=dict(self.response)),
            self.event("response.output_item.added", item=call, output_index=0),
        ]

    def tool_delta(self, args: str) -> bytes:
        kind = "response.function_call_arguments.delta"
        return self.event(kind, item_id="fc_1", output_index=0, delta=args)

    def ended(self) -> dict[str, Any]:
        usage = {"input_tokens": 3, "output_tokens": 6, "total_tokens": 9}
        return {**self.response, "status": "completed", "usage": usage}

    def ending(self, reason: str = "stop") -> list[bytes]:
        return [self.event("response.completed", response=self.ended())]

    def error(self, kind: str, message: str = "it broke") -> bytes:
        return self.event("error", code=kind, message=message, param=None)

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return OpenAI().failure(kind, message)

    def whole(self) -> bytes:
        content = [{"type": "output_text", "text": WHOLE, "annotations": []}]
        return dump({**self.ended(), "output": [{**self.message, "content": content}]})


class Anthropic(Dialect):
    """Messages."""

    name = "anthropic"
    model = "anthropic:claude-sonnet-4-5"
    server_error = "api_error"
    top: ClassVar[Mapping[str, Any]] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
    }

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        return super().frame(payload, event or payload["type"])

    def message_start(self) -> bytes:
        message = {**self.top, "content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": 3, "output_tokens": 1}
        return self.frame({"type": "message_start", "message": message})

    def block(self, index: int, block: Any) -> bytes:
        return self.frame({"type": "content_block_start", "index": index, "content_block": block})

    def piece(self, delta: dict[str, Any], index: int = 0) -> bytes:
        return self.frame({"type": "content_block_delta", "index": index, "delta": delta})

    def start(self) -> list[bytes]:
        return [self.message_start(), self.block(0, {"type": "text", "text": ""})]

    def delta(self, text: str) -> bytes:
        return self.piece({"type": "text_delta", "text": text})

    def tool(self, index: int, id: str, name: str) -> bytes:
        return self.block(index, {"type": "tool_use", "id": id, "name": name, "input": {}})

    def tool_start(self) -> list[bytes]:
        return [self.message_start(), self.tool(0, "toolu_1", "get_weather")]

    def tool_delta(self, args: str, index: int = 0) -> bytes:
        return self.piece({"type": "input_json_delta", "partial_json": args}, index)

    def stop(self, index: int) -> bytes:
        return self.frame({"type": "content_block_stop", "index": index})

    def finish(self, reason: str) -> bytes:
        delta = {"stop_reason": reason, "stop_sequence": None}
        return self.frame({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 6}})

    def ending(self, reason: str = "stop") -> list[bytes]:
        reasons = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
        return [self.stop(0), self.finish(reasons.get(reason, reason))]

    def marker(self) -> bytes:
        return self.frame({"type": "message_stop"})

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return dump({"type": "error", "error": {"type": kind, "message": message}})

    def whole(self) -> bytes:
        content = [{"type": "text", "text": WHOLE}]
        usage = {"input_tokens": 3, "output_tokens": 6}
        ends = {"stop_reason": "end_turn", "stop_sequence": None}
        return dump({**self.top, "content": content, "usage": usage, **ends})


class Gemini(Dialect):
    """`streamGenerateContent`."""

    name = "gemini"
    model = "google_genai:gemini-2.5-flash"
    prefix = "/v1beta"
    server_error = "INTERNAL"
    words: ClassVar[Mapping[str, str | None]] = {
        "overloaded_error": "UNAVAILABLE",
        "invalid_request_error": "INVALID_ARGUMENT",
        "authentication_error": "UNAUTHENTICATED",
    }
    codes: ClassVar[Mapping[str | None, int]] = {
        "INTERNAL": 500,
        "UNAVAILABLE": 503,
        "INVALID_ARGUMENT": 400,
        "UNAUTHENTICATED": 401,
    }

    def chunk(self, parts: list[Any], **more: Any) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": parts}, **more}
        return {
            "candidates": [candidate],
            "modelVersion": "gemini-2.5-flash",
            "responseId": "r_1",
        }

    def start(self) -> list[bytes]:
        return []

    def delta(self, text: str) -> bytes:
        return self.frame(self.chunk([{"text": text}]))

    def figures(self) -> dict[str, Any]:
        return {"promptTokenCount": 3, "candidatesTokenCount": 6, "totalTokenCount": 9}

    def ending(self, reason: str = "stop") -> list[bytes]:
        last = self.chunk([{"text": ""}], finishReason=reason.upper())
        return [self.frame({**last, "usageMetadata": self.figures()})]

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        word = self.word(kind)
        code = self.codes.get(word, 500)
        return dump({"error": {"code": code, "message": message, "status": word}})

    def whole(self) -> bytes:
        answer = self.chunk([{"text": WHOLE}], finishReason="STOP")
        return dump({**answer, "usageMetadata": self.figures()})


class Bedrock(Dialect):
    """Converse: binary frames with checksums."""

    name = "bedrock"
    model = "bedrock_converse:anthropic.claude-sonnet-4-5-20250929-v1:0"
    fields: ClassVar[Mapping[str, Any]] = {"region_name": "us-east-1"}
    framing = "frames"
    kind = "application/vnd.amazon.eventstream"
    server_error = "internalServerException"
    words: ClassVar[Mapping[str, str | None]] = {
        "overloaded_error": "serviceUnavailableException",
        "invalid_request_error": "validationException",
        "authentication_error": "accessDeniedException",
    }

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        kind, _, name = (event or "unknown").rpartition(":")
        kind = kind or "event"
        headers = {":message-type": kind, f":{kind}-type": name}
        return encode_message({**headers, ":content-type": "application/json"}, dump(payload))

    def opening(self) -> bytes:
        """A frame that says it is 64 MiB long; its checksum is right."""
        lengths = struct.pack("!II", 64 << 20, 0)
        return lengths + struct.pack("!I", zlib.crc32(lengths))

    def garbage(self, text: bytes) -> bytes:
        return encode_message({":message-type": "event", ":event-type": "contentBlockDelta"}, text)

    def raw(self, content: bytes) -> bytes:
        return self.garbage(b'{"contentBlockIndex": 0, "delta": {"text": %b}}' % content)

    def start(self) -> list[bytes]:
        return [self.frame({"role": "assistant"}, "messageStart")]

    def piece(self, delta: dict[str, Any]) -> bytes:
        return self.frame({"contentBlockIndex": 0, "delta": delta}, "contentBlockDelta")

    def delta(self, text: str) -> bytes:
        return self.piece({"text": text})

    def tool_start(self) -> list[bytes]:
        tool = {"toolUse": {"name": "get_weather", "toolUseId": "tooluse_1"}}
        opened = {"contentBlockIndex": 0, "start": tool}
        return [*self.start(), self.frame(opened, "contentBlockStart")]

    def tool_delta(self, args: str) -> bytes:
        return self.piece({"toolUse": {"input": args}})

    def ending(self, reason: str = "stop") -> list[bytes]:
        reasons = {"stop": "end_turn", "tool_calls": "tool_use"}
        usage = {"inputTokens": 3, "outputTokens": 6, "totalTokens": 9}
        return [
            self.frame({"contentBlockIndex": 0}, "contentBlockStop"),
            self.frame({"stopReason": reasons[reason]}, "messageStop"),
            self.frame({"usage": usage, "metrics": {"latencyMs": 1}}, "metadata"),
        ]

    def error(self, kind: str, message: str = "it broke") -> bytes:
        return self.frame({"message": message}, f"exception:{self.word(kind)}")

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return dump({"message": message, "__type": f"aws#{self.word(kind)}"})

    def whole(self) -> bytes:
        message = {"role": "assistant", "content": [{"text": WHOLE}]}
        usage = {"inputTokens": 3, "outputTokens": 6, "totalTokens": 9}
        return dump({"output": {"message": message}, "stopReason": "end_turn", "usage": usage})


class Ollama(Dialect):
    """Chat of a local server: a JSON object per line."""

    name = "ollama"
    model = "ollama:llama3.2"
    framing = "ndjson"
    kind = "application/x-ndjson"

    def frame(self, payload: Any, event: str | None = None) -> bytes:
        return dump(payload) + b"\n"

    def word(self, kind: str) -> str | None:
        return None

    def noise(self) -> bytes:
        return b"\n"

    def opening(self) -> bytes:
        return b'{"model": "'

    def garbage(self, text: bytes) -> bytes:
        return text + b"\n"

    def line(self, content: str, **more: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": content}
        return {"model": "llama3.2", "created_at": "2026-01-01T00:00:00Z", "message": message} | {
            "done": False,
            **more,
        }

    def start(self) -> list[bytes]:
        return []

    def delta(self, text: str) -> bytes:
        return self.frame(self.line(text))

    def ended(self, content: str, reason: str) -> bytes:
        figures = {"prompt_eval_count": 3, "eval_count": 6}
        return dump(self.line(content, done=True, done_reason=reason, **figures))

    def ending(self, reason: str = "stop") -> list[bytes]:
        return [self.ended("", reason) + b"\n"]

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return dump({"error": message})

    def whole(self) -> bytes:
        return self.ended(WHOLE, "stop")


class Cohere(Dialect):
    """Chat, version 2."""

    name = "cohere"
    model = "cohere:command-a-03-2025"

    def word(self, kind: str) -> str | None:
        return None

    def event(self, kind: str, delta: Any = None, **more: Any) -> bytes:
        told = {} if delta is None else {"delta": delta}
        return self.frame({"type": kind, **told, **more}, kind)

    def start(self) -> list[bytes]:
        message = {"role": "assistant", "content": [], "tool_calls": []}
        opened = {"message": {"content": {"type": "text", "text": ""}}}
        return [
            self.event("message-start", {"message": message}, id="c1"),
            self.event("content-start", opened, index=0),
        ]

    def delta(self, text: str) -> bytes:
        return self.event("content-delta", {"message": {"content": {"text": text}}}, index=0)

    def tool_start(self) -> list[bytes]:
        function = {"name": "get_weather", "arguments": ""}
        call = {"id": "call_1", "type": "function", "function": function}
        opened = self.event("tool-call-start", {"message": {"tool_calls": call}}, index=0)
        return [self.start()[0], opened]

    def tool_delta(self, args: str) -> bytes:
        piece = {"message": {"tool_calls": {"function": {"arguments": args}}}}
        return self.event("tool-call-delta", piece, index=0)

    def usage(self) -> dict[str, Any]:
        return {"tokens": {"input_tokens": 3, "output_tokens": 6}}

    def ending(self, reason: str = "stop") -> list[bytes]:
        words: ClassVar[Mapping[str, str | None]] = {"stop": "COMPLETE", "tool_calls": "TOOL_CALL"}
        end = {"finish_reason": words[reason], "usage": self.usage()}
        return [self.event("content-end", index=0), self.event("message-end", end)]

    def marker(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self, kind: str, message: str = "it broke") -> bytes:
        return self.event("message-end", {"finish_reason": "ERROR", "error": message})

    def failure(self, kind: str, message: str = "it broke") -> bytes:
        return dump({"id": "c1", "message": message})

    def whole(self) -> bytes:
        message = {"role": "assistant", "content": [{"type": "text", "text": WHOLE}]}
        return dump(
            {"id": "c1", "message": message, "finish_reason": "COMPLETE", "usage": self.usage()}
        )


DIALECTS: dict[str, Any] = {
    say.name: say
    for say in (OpenAI(), Responses(), Anthropic(), Gemini(), Bedrock(), Ollama(), Cohere())
}


def half(say: Dialect) -> list[bytes]:
    """The frames of an answer up to its third delta."""
    return [*say.start(), *(say.delta(piece) for piece in PIECES[:3])]


def rest(say: Dialect) -> list[bytes]:
    """The frames after `half`, up to the finish reason and the figures."""
    return [*(say.delta(piece) for piece in PIECES[3:]), *say.ending()]


def whole(say: Dialect) -> list[bytes]:
    """All frames of an answer."""
    marker = say.marker()
    return [*half(say), *rest(say), *([marker] if marker else [])]
