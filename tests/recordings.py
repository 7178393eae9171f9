"""The recorded exchanges with every provider, for the tests of `conformance/` and `differential/`.

They lie outside the repository, in the folder that `STREAMFOLD_SHARED` names; without them the
tests that need them are skipped.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from decoding import Decoded, decode, decode_whole
from streamfold import ChatModel, init_chat_model
from streamfold.chunks import AIMessageChunk
from streamfold.errors import StreamfoldError
from streamfold.messages import AIMessage, BaseMessage, messages_from_dict, messages_to_dict

__all__ = [
    "APIS",
    "BY_HAND",
    "JOINED",
    "RECORDINGS",
    "Api",
    "Body",
    "all_stored",
    "answer",
    "answers",
    "body_of",
    "called",
    "errors",
    "model_of",
    "needs_recordings",
    "params",
    "recorded",
    "requests",
    "stored",
    "streams",
    "whole_of",
]

SHARED = Path(
    os.environ.get("STREAMFOLD_SHARED") or Path(__file__).resolve().parents[1].parent / "shared"
)
Body = dict[str, Any]


class Api(NamedTuple):
    """How an API is asked: its dialect, a model, what the base URL ends in, `use_responses_api`."""

    dialect: str
    model: str
    path: str = ""
    responses: bool | None = None


#: Each `api` of the recordings. A new dialect adds a row.
APIS: dict[str, Api] = {
    "openai_chat": Api("openai_chat", "openai:gpt-4.1", "/v1"),
    "openai_responses": Api("openai_responses", "openai:gpt-5", "/v1", True),
    "anthropic_messages": Api("anthropic", "anthropic:claude-sonnet-4-5"),
    "gemini": Api("gemini", "google_genai:gemini-2.5-flash"),
    "ollama_chat": Api("ollama", "ollama:llama3.2"),
    "bedrock_converse": Api("bedrock", "bedrock_converse:amazon.nova-lite-v1:0"),
    "cohere_chat": Api("cohere", "cohere:command-a-03-2025"),
}

#: One file holds four exchanges: its source joined the streams of four requests. It is kept, and
#: its parts are exchanges, too: each is whole, with an id of its own, and what is expected of the
#: file is what the SDK reads from the last.
JOINED = "azure-openai-azure-reasoning-encrypted-content-1-f6b0ecf8"


def _with_parts(recording: Body) -> Iterator[Body]:
    yield recording
    if recording["id"] == JOINED:
        start = "event: response.created\n"
        _, *parts = recording["response"]["body_text"].split(start)
        for number, part in enumerate(parts):
            yield {
                **recording,
                "id": f"{JOINED}-{number}",
                "request": {**recording["request"], "body": None},
                "response": {**recording["response"], "body_text": start + part},
                "expected": recording["expected"] if number == len(parts) - 1 else None,
            }


RECORDINGS: list[Body] = [
    recording
    for path in sorted((SHARED / "recordings").glob("*/*.json"))
    for recording in _with_parts(json.loads(path.read_text(encoding="utf-8")))
]

#: What the vendor's SDK cannot put together: the calls, read by hand from the recorded events.
BY_HAND: dict[str, list[Body]] = {
    "gemini-google-stream-no-args-tool-call-d5fe2c3d": [
        {"name": "read_theme", "args": {}},
        {"name": "read_screen", "args": {"id": "A"}},
        {"name": "read_screen", "args": {"id": "B"}},
        {"name": "read_screen", "args": {"id": "C"}},
    ],
    "vertex-gemini-ai-should-stream-generate-content-enabled-streamfunctioncallarguments-"
    "f7aa0326": [
        {
            "name": "getCurrentWeather",
            "args": {
                "country": "USA",
                "location": "NewYorkCity",
                "purpose": "to know what to wear today",
                "unit": "C",
            },
        }
    ],
    f"{JOINED}-0": [{"name": "calculator", "args": {"a": 12, "b": 7, "op": "add"}}],
    f"{JOINED}-1": [{"name": "calculator", "args": {"a": 19, "b": 3, "op": "multiply"}}],
    f"{JOINED}-2": [{"name": "calculator", "args": {"a": 57, "b": 10, "op": "multiply"}}],
}

needs_recordings = pytest.mark.skipif(not RECORDINGS, reason="the recordings are not there")


def recorded(api: str | None = None) -> list[Body]:
    """The exchanges of one API, or all."""
    return [recording for recording in RECORDINGS if api in (None, recording["api"])]


def answers(api: str | None = None) -> list[Body]:
    """Those that brought an answer."""
    return [r for r in recorded(api) if r["response"]["status"] == 200]


def streams(api: str | None = None) -> list[Body]:
    """Those that brought one as a stream."""
    return [r for r in answers(api) if r["stream"]]


def errors(api: str | None = None) -> list[Body]:
    """Those that the server refused."""
    return [r for r in recorded(api) if r["response"]["status"] != 200]


def requests(api: str) -> list[Body]:
    """Those whose request was recorded, whole."""
    return [r for r in recorded(api) if isinstance(r["request"].get("body"), dict)]


def params(recordings: Iterable[Body]) -> list[Any]:
    """For `parametrize`, each under its own name."""
    return [pytest.param(recording, id=recording["id"]) for recording in recordings]


def body_of(recording: Body) -> bytes:
    """The body of the answer, as it travelled."""
    response = recording["response"]
    if "body_base64" in response:
        return base64.b64decode(response["body_base64"])
    return str(response["body_text"]).encode()


def whole_of(recording: Body) -> Decoded:
    """What the decoder says of the whole body in one piece."""
    read = decode if recording["stream"] else decode_whole
    return read(APIS[recording["api"]].dialect, body_of(recording))


def answer(recording: Body) -> AIMessage:
    """The message, of an answer that is complete."""
    decoded = whole_of(recording)
    assert decoded.error is None
    return decoded.message


def stored(message: AIMessage) -> AIMessage:
    """The message after a round trip through a database."""
    (back,) = all_stored([message])
    assert isinstance(back, AIMessage)
    return back


def all_stored(messages: list[BaseMessage]) -> list[BaseMessage]:
    return messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))


def model_of(api: Api, url: str) -> ChatModel:
    """A model that asks the server at `url`, once."""
    more = {} if api.responses is None else {"use_responses_api": api.responses}
    return init_chat_model(
        api.model, base_url=url + api.path, api_key="test-key", max_retries=0, **more
    )


async def called(
    api: Api, url: str, *, stream: bool
) -> tuple[AIMessage | None, StreamfoldError | None]:
    """What the public API makes of the answer of the server at `url`: the message, or what had
    arrived and the error."""
    async with model_of(api, url) as model:
        try:
            if not stream:
                return await model.ainvoke("hi"), None
            full = AIMessageChunk()
            async with model.astream("hi") as chunks:
                async for chunk in chunks:
                    full = full + chunk
            return full.to_message(), None
        except StreamfoldError as error:
            return error.partial, error
