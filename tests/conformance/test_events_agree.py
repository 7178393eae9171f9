"""One answer, whichever way it is asked for: every recorded exchange gives the same message, or the
same error with the same part of it, as events, as folded chunks, from `ainvoke`, from `ainvoke` in
an app that is streamed, and from `astream_message` with its projections."""

from __future__ import annotations

import types
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest

from recordings import APIS, RECORDINGS, Body, called, model_of, needs_recordings, params
from streamfold import runnable
from streamfold.chunks import AIMessageChunk
from streamfold.errors import StreamfoldError
from streamfold.messages import AIMessage
from streamfold.testing import Exchange, ReplayServer
from streamfold.wire import codec

pytestmark = [needs_recordings, pytest.mark.anyio]


@pytest.fixture(
    scope="module",
    params=["asyncio", pytest.param("trio", marks=pytest.mark.matrix)],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """That both loops read alike is shown by the recordings' own tests; all of this on both is the
    full matrix."""
    return request.param


class Came(NamedTuple):
    """What a call gave: a message, or what had arrived and the error."""

    message: AIMessage | None
    error: StreamfoldError | None


@pytest.fixture(scope="module")
def server() -> Iterator[ReplayServer]:
    """All exchanges; the place of one is in the path of the request."""
    exchanges = [Exchange.from_recording(recording) for recording in RECORDINGS]

    def asked(request: Any, exchange: Exchange) -> bool:
        return exchanges[int(request.path.split("/")[1])] is exchange

    with ReplayServer(exchanges, match=asked) as running:
        yield running


@pytest.fixture(autouse=True)
def _ids_that_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids made up for calls are the same in each decoding of the same answer."""
    fixed = types.SimpleNamespace(
        uuid4=lambda: uuid.UUID(int=1), uuid5=uuid.uuid5, NAMESPACE_OID=uuid.NAMESPACE_OID
    )
    monkeypatch.setattr(codec, "uuid", fixed)


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("recording", params(RECORDINGS))
async def test_all_ways_agree(server: ReplayServer, recording: Body) -> None:
    api = APIS[recording["api"]]
    url = f"{server.url}/{RECORDINGS.index(recording)}"
    folded = Came(*await called(api, url, stream=True))
    assert_same(Came(*await called(api, url, stream=False)), folded)
    async with model_of(api, url) as model:

        @runnable
        async def app(text: str) -> Any:
            return await model.ainvoke(text)

        assert_same(await by_events(model), folded)
        assert_same(await by_events(app), folded)
        await check_projections(model, folded)


async def by_events(asked: Any) -> Came:
    """What the events of the model say; its chunks add up to the message of its last event."""
    events: list[Any] = []
    raised: StreamfoldError | None = None
    try:
        async with aclosing(asked.astream_events("hi")) as source:
            async for event in source:
                events.append(event)
    except StreamfoldError as error:
        raised = error
    first, *chunks, last = (e for e in events if e["event"].startswith("on_chat_model"))
    assert (first["event"], first["data"]) == ("on_chat_model_start", {"input": "hi"})
    assert {e["event"] for e in chunks} <= {"on_chat_model_stream"}
    full = sum((e["data"]["chunk"] for e in chunks), AIMessageChunk())
    output = last["data"]["output"]
    if raised is None:
        assert last["event"] == "on_chat_model_end"
        assert full.to_message() == output
    else:
        assert last["event"] == "on_chat_model_error"
        assert last["data"]["error"] is raised
        assert raised.partial == output
        assert chunks == [] if output is None else full.to_message("error") == output
    return Came(output, raised)


async def check_projections(model: Any, expected: Came) -> None:
    """Readers of one stream, one after the other: each sees all of it."""
    texts: list[str] = []
    thoughts: list[str] = []
    message = raised = None
    again: list[StreamfoldError] = []  # every reader hears what broke it
    async with model.astream_message("hi") as stream:
        try:
            message = await stream.message()
        except StreamfoldError as error:
            raised = error
        for pieces, source in ((texts, stream.text), (thoughts, stream.reasoning)):
            try:
                async for piece in source:
                    pieces.append(piece)
            except StreamfoldError as error:
                again.append(error)
        assert again == ([] if raised is None else [raised, raised])
        calls = [] if raised else [call async for call in stream.tool_calls]
    said = message if raised is None else raised.partial
    assert_same(Came(said, raised), expected)
    if said is not None:
        blocks = said.content_blocks
        assert "".join(texts) == said.text
        assert "".join(thoughts) == "".join(
            b["reasoning"] for b in blocks if b["type"] == "reasoning"
        )
    if message is not None:
        assert calls == message.tool_calls


def assert_same(came: Came, expected: Came) -> None:
    assert came.message == expected.message
    assert type(came.message) is type(expected.message)
    assert type(came.error) is type(expected.error)
    assert str(came.error) == str(expected.error)
