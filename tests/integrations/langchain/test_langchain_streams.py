"""What streamfold's chunks become for LangChain: its own chunks, and the events of its typed
stream, add up to the message that streamfold folds, whatever vendor has sent it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

reason = "needs langchain: `make test-langchain` brings it"
pytest.importorskip("langchain_core", reason=reason)
pytest.importorskip("langchain_tests", reason=reason)

from langchain_core.language_models.chat_model_stream import ChatModelStream  # noqa: E402
from langchain_core.messages import AIMessageChunk as LangChainChunk  # noqa: E402
from langchain_core.messages import message_chunk_to_message  # noqa: E402
from langchain_core.messages.ai import add_ai_message_chunks  # noqa: E402
from langchain_tests.utils.stream_lifecycle import assert_valid_event_stream  # noqa: E402

from decoding import Sample, decode, samples  # noqa: E402
from recordings import Body, needs_recordings, params, streams, whole_of  # noqa: E402
from streamfold.chunks import AIMessageChunk, fold_events  # noqa: E402
from streamfold.deltas import (  # noqa: E402
    Annotation,
    MessageEnd,
    Restart,
    TextDelta,
    ToolCallDelta,
)
from streamfold.errors import StreamInterruptedError  # noqa: E402
from streamfold.integrations.langchain import from_langchain, to_langchain  # noqa: E402
from streamfold.integrations.langchain.chunks import Chunks  # noqa: E402
from streamfold.integrations.langchain.events import Events  # noqa: E402
from streamfold.messages import AIMessage  # noqa: E402


def langchain_chunks(
    chunks: Iterable[AIMessageChunk], *, blocks: bool = False
) -> list[LangChainChunk]:
    answer = Chunks(blocks=blocks, calls=True)
    made = [answer.take(chunk) for chunk in chunks]
    return [chunk for chunk in [*made, answer.end()] if chunk is not None]


def langchain_events(chunks: Iterable[AIMessageChunk]) -> list[dict[str, Any]]:
    answer = Events()
    return [event for chunk in chunks for event in answer.take(chunk)] + list(answer.end())


def assembled(events: Iterable[dict[str, Any]]) -> Any:
    stream = ChatModelStream()
    for event in events:
        stream.dispatch(event)
    return stream.output_message


#: What becomes of a call that must not be run.
_AS_CHUNK = {"invalid_tool_call": "tool_call_chunk"}


def check(chunks: list[AIMessageChunk], expected: AIMessage) -> None:
    for blocks in (False, True):
        made = langchain_chunks(chunks, blocks=blocks)
        full = add_ai_message_chunks(made[0], *made[1:])
        assert from_langchain(full) == expected
        assert from_langchain(message_chunk_to_message(full)) == expected
        assert full.text == expected.text
        assert full.usage_metadata == to_langchain(expected).usage_metadata
        assert [c["id"] for c in full.tool_calls] == [c["id"] for c in expected.tool_calls]
        assert [c["args"] for c in full.tool_calls] == [c["args"] for c in expected.tool_calls]
        bad = [call["id"] for call in expected.invalid_tool_calls]
        assert [call["id"] for call in full.invalid_tool_calls] == bad
        assert [chunk.chunk_position for chunk in made] == [None] * (len(made) - 1) + ["last"]
        kinds = [block["type"] for block in full.content_blocks]
        if blocks:
            assert kinds == [_AS_CHUNK.get(b["type"], b["type"]) for b in expected.content_blocks]
    events = langchain_events(chunks)
    assert_valid_event_stream(events)
    whole = assembled(events)
    assert from_langchain(whole) == expected
    assert [b["type"] for b in whole.content] == [b["type"] for b in expected.content_blocks]


@needs_recordings
@pytest.mark.parametrize("recording", params(streams()))
def test_every_recorded_stream_adds_up(recording: Body) -> None:
    decoded = whole_of(recording)
    if decoded.error is not None or not decoded.chunks:
        pytest.skip("the recorded stream brings no whole answer")
    check(decoded.chunks, decoded.message)


@pytest.mark.parametrize("sample", samples(), ids=lambda each: f"{each.dialect}-{each.case}")
def test_every_sample_adds_up(sample: Sample) -> None:
    decoded = decode(sample.dialect, sample.stream)
    if decoded.error is not None:
        pytest.skip("the sample is of an error")
    check(decoded.chunks, decoded.message)


def test_a_stream_that_began_anew_cannot_go_on() -> None:
    """Chunks that are out cannot be taken back: said, and not passed over. Before the first chunk
    there is nothing to take back."""
    restart = AIMessageChunk(events=[Restart()])
    again = AIMessageChunk(events=[TextDelta("again", 0)])
    check([restart, again], (restart + again).to_message())
    with pytest.raises(StreamInterruptedError, match="restart_streams") as raised:
        langchain_chunks([AIMessageChunk(events=[TextDelta("Half", 0)]), restart, again])
    assert raised.value.partial is not None
    assert raised.value.partial.text == "Half"


def test_text_is_a_str_until_there_is_more_than_text() -> None:
    chunks = [
        AIMessageChunk(events=[TextDelta("Look: ", 0)]),
        AIMessageChunk(events=[Annotation({"type": "citation", "url": "https://a.example"}, 0)]),
        AIMessageChunk(events=[TextDelta("this.", 0)]),
        AIMessageChunk(events=[MessageEnd("stop")]),
    ]
    first, second, third, last = langchain_chunks(chunks)
    assert first.content == "Look: "
    assert isinstance(second.content, list)
    assert isinstance(third.content, list)
    assert add_ai_message_chunks(first, second, third, last).text == "Look: this."
    check(chunks, fold_events(e for chunk in chunks for e in chunk.events).to_message())


@pytest.mark.parametrize(
    "raw", ['{"city": "Par', '{"a": [1, 2', '{"a": {"b": 1', "{", "", '{"a": 1,']
)
def test_a_call_that_was_cut_off_is_never_run(raw: str) -> None:
    """LangChain would complete the arguments; the piece that is added keeps it from that."""
    chunks = [
        AIMessageChunk(events=[ToolCallDelta(raw, 0, "c1", "pay")]),
        AIMessageChunk(events=[MessageEnd("length")]),
    ]
    made = langchain_chunks(chunks)
    full = add_ai_message_chunks(*made)
    assert full.tool_calls == []
    (call,) = from_langchain(full).invalid_tool_calls
    assert call["args"] == raw
    assert "token limit" in call["error"]
    (event,) = [e for e in langchain_events(chunks) if e["event"] == "content-block-finish"]
    assert event["content"]["type"] == "invalid_tool_call"
