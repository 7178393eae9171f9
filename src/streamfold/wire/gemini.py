"""Google Gemini, as the Gemini API and Vertex AI answer in it.

Reference: https://ai.google.dev/api/generate-content, the types of the vendor's SDK and the
recordings. A stream is SSE, or one JSON array, of `GenerateContentResponse` objects; a body that
is not streamed is one such object, and all of them are read by the same code. A stream has no end
marker: it ends after the finish reason. An error that comes in a stream of SSE stands there as
bare JSON.

What becomes of the parts of the first candidate:

- Text, and text that is a `thought`: text and reasoning blocks. Parts that follow one another are
  one block, for in a stream they are pieces of one; in a whole body a part with a signature of its
  own stays apart.
- `functionCall`: a tool call, with an id made up where it has none. Arguments that come as
  `partialArgs` are written as JSON text.
- `inlineData`, `fileData`: an image, audio, video or file block. Raw audio that comes in pieces is
  one block.
- `executableCode` and `codeExecutionResult`, `toolCall` and `toolResponse`: server tool calls and
  their results, with the native kind in ``extras["block_type"]``.
- Anything else is `non_standard`.

What is beside these in a part, its `thoughtSignature` above all, is in the block's `extras` under
its own name; fields inside of `functionCall` and the like that are not read are there under that
word. Searches and read pages that `groundingMetadata` and `urlContextMetadata` tell of are server
tool calls with results, if no part told of them; citations are annotations (`gemini_grounding`).

Fields of the answer that are not read by name are in `response_metadata`, in snake case.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ..chunks import AIMessageChunk
from ..deltas import Annotation, ProviderData, TextDelta, UsageReport, join_text
from ..errors import ContentFilterError, StreamProtocolError
from .codec import Decoder as BaseDecoder
from .codec import args_text, text_or_none
from .gemini_grounding import cite, merged_grounding
from .gemini_request import BODY_FIELDS, URL_BLOCKS, encode
from .gemini_usage import USAGE_KEY, CountedUsage, UsageTemplate, has_counts, read_usage
from .json_array import JSONArrayFramer
from .partial_args import ArgsWriter
from .sse import Frame, SSEFramer

__all__ = ["BODY_FIELDS", "NAME", "URL_BLOCKS", "Decoder", "encode"]

NAME: Final = "gemini"

#: Finish reasons, normalised. A word that is not listed is kept as it came.
FINISH_REASONS: Final = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "LANGUAGE": "error",
    "IMAGE_OTHER": "error",
    "NO_IMAGE": "error",
}
#: These say that the generation failed: what came before it is no answer.
_FAILURES: Final = frozenset(
    {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL"}
    | {"TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"}
)

#: Fields of a candidate that name sources.
_SOURCE_FIELDS: Final = ("groundingMetadata", "citationMetadata", "urlContextMetadata")
_READ_FIELDS: Final = frozenset(
    {"candidates", "usageMetadata", "modelVersion", "responseId", "promptFeedback", "error"}
)
_READ_CANDIDATE_FIELDS: Final = frozenset(
    {"content", "finishReason", "index", "avgLogprobs", "logprobsResult"} | set(_SOURCE_FIELDS)
)
_BOM: Final = b"\xef\xbb\xbf"
#: What an event may say besides its text, if the next one says the same with other numbers.
_USAGE: Final[list[list[type]]] = [[], [UsageReport, ProviderData]]


class _Framer(SSEFramer):
    """Server-sent events, and errors that stand among them as bare JSON."""

    __slots__ = ()

    def _odd(self, block: bytes) -> Frame | None:
        if block.lstrip().startswith(b"{"):
            return Frame(None, block)
        return super()._odd(block)

    def close(self) -> bytes:
        rest = b"".join(self._held)
        super().close()
        return rest + b"\n\n" if rest.lstrip().startswith(b"{") else b""


class Decoder(BaseDecoder):
    """The state of one `generateContent` answer."""

    framer_type = _Framer
    provider: ClassVar[str] = "google_genai"
    text_path = ("candidates", 0, "content", "parts", 0, "text")
    array_streams = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: bytes | None = b""  # the first bytes, until they tell the framing
        self._seen: dict[str, Any] = {}  # metadata as last reported: what repeats says nothing new
        self._is_whole = False
        self._run: tuple[str, int] | None = None  # the block that further parts of its kind join
        self._runs = 0
        self._signed: set[tuple[str, int]] = set()
        self._audio_type = ""
        self._rest_of_audio = b""
        self._calls = 0
        self._args: ArgsWriter | None = None  # of a call whose arguments are arriving
        self._server_calls: dict[str, str] = {}  # name -> id of the last one
        self._reads: list[list[AIMessageChunk]] = []  # what has been said, for citations
        self._chunks: list[AIMessageChunk] = []  # of the read at hand
        self._sources: dict[str, dict[str, Any]] = {}  # what the answer rests on
        self._stop_reason: str | None = None

    def feed(self, data: bytes) -> list[AIMessageChunk]:
        if self._head is not None:
            data = self._framed(self._head + data)
        return super().feed(data)

    def _framed(self, head: bytes) -> bytes:
        """The first byte tells the framing: an array, else SSE. Nothing until it is there."""
        start = head.removeprefix(_BOM).lstrip()
        if not start or _BOM.startswith(head):
            # Of blanks, one is kept: what follows them is no byte-order mark.
            self._head = head if _BOM.startswith(head[:3]) else b" "
            return b""
        self._head = None
        if start.startswith(b"["):
            self._framer = JSONArrayFramer(self.limits.event_bytes)
        return start

    def _take(self, complete: bytes) -> list[AIMessageChunk]:
        chunks = super()._take(complete)
        if chunks:
            self._reads.append(chunks)
        self._chunks = []
        return chunks

    def _learn(self, block: bytes, chunk: AIMessageChunk) -> None:
        if not has_counts(self._seen.get("usage")) or USAGE_KEY not in block:
            super()._learn(block, chunk)
            return
        text, *rest = chunk.events
        if self.text_path and isinstance(text, TextDelta) and list(map(type, rest)) in _USAGE:
            self._lessons += 1
            self._template = UsageTemplate.learn(
                block, text, self.text_path, self._framer.separator, self._seen
            )

    def _frame(self, frame: Frame, chunks: list[AIMessageChunk]) -> None:
        self._chunks = chunks
        super()._frame(frame, chunks)

    def _event(self, event: str | None, payload: Any) -> None:
        if not isinstance(payload, dict):
            return  # null, a number: it says nothing
        self.start(
            text_or_none(payload.get("responseId")), text_or_none(payload.get("modelVersion"))
        )
        self._report(payload, _READ_FIELDS)
        error = payload.get("error")
        candidates = payload.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if isinstance(candidate, dict) and not candidate.get("index"):
                self._candidate(candidate, broken=bool(error))
        self._usage(payload.get("usageMetadata"))
        if payload.get("promptFeedback"):
            self._feedback(payload["promptFeedback"])
        if error:
            self.fail(self.provider_failure(error, model=payload.get("modelVersion")))

    def _whole(self, payload: dict[str, Any]) -> None:
        self._is_whole = True
        self._event(None, payload)
        if self.error is None and not self.finished and payload.get("candidates"):
            self._end(None)  # the body is whole, even where it gives no reason

    def _finish_up(self) -> None:
        if not self.finished:
            self._end(None)
        else:
            self._cite()  # sources may trail the finish reason

    # ---- what an event holds ---------------------------------------------------------------------

    def _candidate(self, candidate: dict[str, Any], *, broken: bool) -> None:
        """The first candidate. In a `broken` event, one with an error, its end does not count."""
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._part(part)
        self._report(candidate, _READ_CANDIDATE_FIELDS)
        self._logprobs(candidate)
        self._take_sources(candidate)
        reason = text_or_none(candidate.get("finishReason"))
        if reason in _FAILURES and not broken:
            told = text_or_none(candidate.get("finishMessage"))
            text = told or f"the generation failed ({reason})"
            self.fail(self.provider_failure({"message": text, "type": reason}))
        elif reason and not broken and (self._visible or reason != self._stop_reason):
            self._end(reason)

    def _end(self, reason: str | None) -> None:
        self._stop_reason = reason
        self._end_run()
        self._cite()
        meant = FINISH_REASONS.get(reason, reason) if reason else None
        if meant == "stop" and self._calls:
            meant = "tool_calls"
        self.finish(meant, {"finish_reason": reason} if reason else None)

    def _report(self, fields: Mapping[str, Any], read: frozenset[str] = frozenset()) -> None:
        """Metadata, but for what is `read` elsewhere, that is new since it was last reported; it
        travels with the next content."""
        seen = self._seen
        rest = [key for key in fields if key not in read]
        new = {k: fields[k] for k in rest if fields[k] is not None and fields[k] != seen.get(k)}
        if new:
            seen.update(new)
            self.metadata({_snake(key): value for key, value in new.items()}, visible=False)

    def _usage(self, usage: Any) -> None:
        """Running totals. Vertex AI gives none before the end, only the kind of traffic."""
        seen = self._seen.get("usage")
        if isinstance(seen, CountedUsage):
            seen = self._seen["usage"] = seen.plain()
        if not isinstance(usage, dict) or not usage or usage == seen:
            return
        self._seen["usage"] = usage
        counts = has_counts(usage)
        if counts:
            self.usage(read_usage(usage))
        self.metadata({"usage": usage}, visible=counts)

    def _logprobs(self, candidate: dict[str, Any]) -> None:
        result = candidate.get("logprobsResult")
        logprobs = dict(result) if isinstance(result, dict) else {}
        if candidate.get("avgLogprobs") is not None:
            logprobs["avgLogprobs"] = candidate["avgLogprobs"]
        if logprobs:
            self.metadata({"logprobs": logprobs})

    def _feedback(self, feedback: Any) -> None:
        """A prompt that is blocked before anything was said is an error, else the end of it."""
        self._report({"promptFeedback": feedback})
        reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
        if not reason:
            return
        if self._blocks or self.finished:
            if not self.finished:
                self._end(str(reason))
            return
        text = text_or_none(feedback.get("blockReasonMessage"))
        self.fail(
            ContentFilterError(
                join_text([text or f"the prompt was blocked: {reason}"]),
                status=200,
                type=join_text([str(reason)]),
                body=json.dumps(feedback),
                provider=self.model_provider or None,
            )
        )

    # ---- parts -----------------------------------------------------------------------------------

    def _part(self, part: dict[str, Any]) -> None:
        kind = next((key for key in _PARTS if part.get(key) is not None), "text")
        value = part.get(kind)
        if value is None and part.keys() <= _MARKS:
            value = ""  # a signature alone
        if not isinstance(value, str if kind == "text" else dict):
            self._end_run()
            self.block("non_standard", {"value": part})
            return
        extras = {k: v for k, v in part.items() if k != kind and v not in (None, False)}
        _PARTS[kind](self, value, extras)

    def _text(self, text: str, extras: dict[str, Any]) -> None:
        kind = "reasoning" if extras.pop("thought", False) else "text"
        if not text and not extras:
            return
        key = self._join(kind, apart=bool(self._is_whole and extras))
        if kind == "text":
            self.text(text, key)
        else:
            self.reasoning(text, key)
        if extras:
            self.block_data(kind, extras, key)
            self._signed.add((kind, key))

    def _join(self, kind: str, *, apart: bool = False) -> int:
        """The block that a part of this kind joins: the one before it, or a new one. A block that
        has its signature takes nothing more."""
        if self._run is None or self._run[0] != kind or apart or self._run in self._signed:
            self._end_run()
            self._runs += 1
            self._run = (kind, self._runs)
        return self._run[1]

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._flush_audio(run)
            # Text stays open: citations on it come at the end.
            if run[0] != "text":
                self.end_block(*run)

    def _function_call(self, call: dict[str, Any], extras: dict[str, Any]) -> None:
        """A call, or the next piece of one: such pieces have neither name nor id."""
        self._end_run()
        name, id = text_or_none(call.get("name")), text_or_none(call.get("id"))
        args = self._args
        if args is None or name:
            if not call and not extras:
                return  # it ends what is over
            args = ArgsWriter()
            self._calls += 1
        whole = call.get("args") if not args.started else None
        more = bool(call.get("willContinue")) and not whole
        self._args = args if more else None
        try:
            text = args_text(whole) if whole else args.write(call.get("partialArgs"))
            if not (more or whole):
                text += args.close()
        except ValueError as error:
            self.fail(StreamProtocolError(f"the arguments of a tool call are unreadable: {error}"))
            return
        extras |= _inner("functionCall", call, "name", "id", "args", "partialArgs", "willContinue")
        self.tool_call(index=self._calls, id=id, name=name, args=text, extras=extras or None)

    def _inline_data(self, blob: dict[str, Any], extras: dict[str, Any]) -> None:
        mime_type, data = str(blob.get("mimeType") or ""), blob.get("data")
        extras |= _inner("inlineData", blob, "mimeType", "data")
        if _RAW_AUDIO.match(mime_type) and not extras and isinstance(data, str):
            self._raw_audio(mime_type, data)
            return
        self._media(mime_type, {"base64": data} if isinstance(data, str) else {}, extras)

    def _file_data(self, file: dict[str, Any], extras: dict[str, Any]) -> None:
        extras |= _inner("fileData", file, "mimeType", "fileUri")
        self._media(str(file.get("mimeType") or ""), {"url": file.get("fileUri")}, extras)

    def _media(self, mime_type: str, data: dict[str, Any], extras: dict[str, Any]) -> None:
        self._end_run()
        kind = mime_type.split("/", 1)[0]
        if mime_type:
            data["mime_type"] = mime_type
        if extras:
            data["extras"] = extras
        self.block(kind if kind in ("image", "audio", "video") else "file", data)

    def _raw_audio(self, mime_type: str, data: str) -> None:
        """Samples without a head: pieces of them make one recording. Base64 only adds up in
        threes of bytes, so what is left over waits for the next piece."""
        try:
            samples = base64.b64decode(data, validate=True)
        except binascii.Error:
            self._media(mime_type, {"base64": data}, {})
            return
        key = self._join("audio", apart=mime_type != self._audio_type)
        if ("audio", key) not in self._open:
            self._audio_type = mime_type
            self.block("audio", {"mime_type": mime_type}, key=key)
        samples = self._rest_of_audio + samples
        whole = len(samples) - len(samples) % 3
        self._rest_of_audio = samples[whole:]
        self.data(base64.b64encode(samples[:whole]).decode(), "audio", key)

    def _flush_audio(self, run: tuple[str, int]) -> None:
        rest, self._rest_of_audio = self._rest_of_audio, b""
        if rest:
            self.data(base64.b64encode(rest).decode(), *run)

    # ---- server tools ----------------------------------------------------------------------------

    def _executable_code(self, code: dict[str, Any], extras: dict[str, Any]) -> None:
        args = {key: value for key, value in code.items() if key != "id"}
        self._server_call("code_execution", code.get("id"), args, "executableCode", extras)

    def _code_result(self, result: dict[str, Any], extras: dict[str, Any]) -> None:
        self._server_result(
            "code_execution",
            result.get("id"),
            result.get("output"),
            "codeExecutionResult",
            extras | _inner("codeExecutionResult", result, "id", "output"),
            failed=result.get("outcome") != "OUTCOME_OK",
        )

    def _tool_call(self, call: dict[str, Any], extras: dict[str, Any]) -> None:
        extras |= _inner("toolCall", call, "id", "args")
        name = _tool_name(call)
        self._server_call(name, call.get("id"), call.get("args") or {}, "toolCall", extras)

    def _tool_response(self, response: dict[str, Any], extras: dict[str, Any]) -> None:
        extras |= _inner("toolResponse", response, "id", "response")
        name, output = _tool_name(response), response.get("response")
        self._server_result(name, response.get("id"), output, "toolResponse", extras)

    def _server_call(
        self, name: str, id: Any, args: Any, native: str, extras: dict[str, Any]
    ) -> None:
        self._end_run()
        known = text_or_none(id) or self._made_up_id("server_tool_call", self._blocks)
        self._server_calls[name] = known
        self.tool_call(
            index=self._blocks,
            id=known,
            name=name,
            args=args_text(args),
            kind="server_tool_call",
            extras={"block_type": native, **extras},
        )

    def _server_result(
        self,
        name: str,
        id: Any,
        output: Any,
        native: str,
        extras: dict[str, Any],
        *,
        failed: bool = False,
    ) -> None:
        self._end_run()
        data = {
            "tool_call_id": text_or_none(id) or self._server_calls.get(name, ""),
            "status": "error" if failed else "success",
            "extras": {"block_type": native, **extras},
        }
        self.block("server_tool_result", data if output is None else {**data, "output": output})

    # ---- sources ---------------------------------------------------------------------------------

    def _take_sources(self, candidate: dict[str, Any]) -> None:
        """What the answer rests on. It is read when all of the text is there."""
        for field in _SOURCE_FIELDS:
            source = candidate.get(field)
            if isinstance(source, dict) and source:
                merged = merged_grounding(self._sources.get(field, {}), source)
                self._sources[field] = merged
                self._report({field: merged})

    def _cite(self) -> None:
        """Citations on the text, and the server tools that only the sources tell of."""
        sources, self._sources = self._sources, {}
        grounding, taken, pages = (sources.get(field, {}) for field in _SOURCE_FIELDS)
        if grounding or taken:
            for number, citation in cite(grounding, taken, self._texts()):
                self._add(Annotation(citation, number))
        queries = [
            query
            for field in ("webSearchQueries", "imageSearchQueries")
            for query in _list(grounding, field)
            if query
        ]
        if queries and "google_search" not in self._server_calls:
            found = _list(grounding, "groundingChunks")
            self._told("google_search", {"queries": queries}, found, "groundingMetadata")
        read = [page for page in _list(pages, "urlMetadata") if isinstance(page, dict)]
        if read and "url_context" not in self._server_calls:
            urls = [page.get("retrievedUrl") for page in read]
            self._told("url_context", {"urls": urls}, read, "urlContextMetadata")

    def _told(self, name: str, args: dict[str, Any], output: Any, source: str) -> None:
        self._server_call(name, None, args, source, {})
        self._server_result(name, None, output, source, {})

    def _texts(self) -> dict[int, str]:
        """The text blocks so far, from the chunks that were made of them."""
        texts: dict[int, list[str]] = {}
        said = (chunk for chunks in (*self._reads, self._chunks) for chunk in chunks)
        for events in (*(chunk.events for chunk in said), self._events):
            for event in events:
                if isinstance(event, TextDelta) and event.index is not None:
                    texts.setdefault(event.index, []).append(event.text)
        return {number: "".join(pieces) for number, pieces in texts.items()}


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []


def _snake(name: str) -> str:
    return _CAPITAL.sub(r"_\1", name).lower()


_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])")


def _inner(native: str, value: dict[str, Any], *read: str) -> dict[str, Any]:
    """The fields of a part's value that are not read, under the name of the value."""
    rest = {key: each for key, each in value.items() if key not in read}
    return {native: rest} if rest else {}


_TOOL_NAMES: Final = {"GOOGLE_SEARCH_WEB": "google_search", "GOOGLE_SEARCH_IMAGE": "google_search"}


def _tool_name(call: dict[str, Any]) -> str:
    kind = str(call.get("toolType") or "")
    return _TOOL_NAMES.get(kind, kind.lower())


#: Audio without a head of its own, whose samples may be cut anywhere.
_RAW_AUDIO: Final = re.compile(r"audio/(l16|l24|pcm)\b", re.I)

_PARTS: Final[dict[str, Any]] = {
    "text": Decoder._text,
    "functionCall": Decoder._function_call,
    "inlineData": Decoder._inline_data,
    "fileData": Decoder._file_data,
    "executableCode": Decoder._executable_code,
    "codeExecutionResult": Decoder._code_result,
    "toolCall": Decoder._tool_call,
    "toolResponse": Decoder._tool_response,
}
#: Fields of a part of text.
_MARKS: Final = frozenset({"text", "thought", "thoughtSignature"})
