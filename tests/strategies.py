"""Hypothesis strategies for chunk events and chunks, JSON values and cuts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from streamfold.chunks import AIMessageChunk, NotedChunk, TextChunk, fold_events
from streamfold.deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    ChunkEvent,
    DataDelta,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from streamfold.fold import MERGE_MODES

__all__ = [
    "chunk_events",
    "chunks",
    "cut_at",
    "cuts",
    "json_objects",
    "json_values",
    "metadata",
    "pieces_of",
    "tool_pieces",
    "usages",
]

# No NaN: it is not equal to itself, and these values are compared.
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(max_size=5), json_values, max_size=4)

# Names with a declared merge mode, a field that vendors use, and any name at all.
_fields = st.sampled_from(
    [*MERGE_MODES, "system_fingerprint", "temperature", "extras", "index", "type"]
) | st.text(max_size=5)
metadata = st.dictionaries(_fields, json_values, max_size=4)

_indexes = st.none() | st.integers(0, 2)
_texts = st.text(max_size=6) | st.sampled_from(["\ud83d", "\ude00", "я", "😀", "e\u0301"])
# Decoders join the halves of surrogate pairs before they make a `TextChunk`.
_whole_texts = st.text(max_size=6) | st.sampled_from(["я", "😀", "e\u0301"])
_ids = st.none() | st.sampled_from(["a", "b", ""])
_names = st.none() | st.sampled_from(["get", "put", ""])
_args = st.sampled_from(
    ["", "{", "}", "{}", '{"x"', ": 1", ': "', "я", '"}', "[", "]", "\\", "NaN"]
)
_kinds = st.sampled_from(["tool_call", "server_tool_call"])

usages = st.fixed_dictionaries(
    {},
    optional={
        "input_tokens": st.integers(0, 9),
        "output_tokens": st.integers(0, 9),
        "total_tokens": st.integers(0, 9),
        "input_token_details": st.dictionaries(
            st.sampled_from(["audio", "cache_read"]), st.integers(0, 9)
        ),
        "output_token_details": st.dictionaries(
            st.sampled_from(["audio", "reasoning"]), st.integers(0, 9)
        ),
    },
)

tool_pieces = st.builds(
    ToolCallDelta,
    args=_args,
    index=_indexes,
    id=_ids,
    name=_names,
    kind=_kinds,
    fallback_id=st.none() | st.just("made-up"),
)

chunk_events: st.SearchStrategy[ChunkEvent] = st.one_of(
    st.builds(TextDelta, _texts, _indexes),
    st.builds(ReasoningDelta, _texts, _indexes),
    tool_pieces,
    st.builds(
        BlockStart,
        st.sampled_from(["text", "reasoning", "image", "non_standard", "tool_call", "made-up"]),
        _indexes,
        id=_ids,
        name=_names,
        data=metadata,
    ),
    st.builds(BlockEnd, st.sampled_from(["text", "tool_call"]), _indexes),
    st.builds(DataDelta, st.sampled_from(["", "QUJD", "REVG"]), _indexes),
    st.builds(Annotation, json_objects, _indexes),
    st.builds(UsageReport, usages, st.sampled_from(["delta", "total", "final"])),
    st.builds(
        ProviderData,
        metadata,
        _indexes,
        st.none() | st.sampled_from(["text", "reasoning", "tool_call", "image"]),
    ),
    st.builds(MessageStart, id=_ids, model=_names, provider=_names, name=_names),
    st.builds(MessageEnd, st.none() | st.sampled_from(["stop", "length", "tool_calls", "odd"])),
)


class _Note:
    """What a `NotedChunk` was told besides its text."""

    def __init__(self, events: list[ChunkEvent]) -> None:
        self._events = events

    def events(self) -> list[ChunkEvent]:
        return self._events


def _no_text(event: ChunkEvent) -> bool:
    return not isinstance(event, TextDelta | BlockStart)


#: Chunks in every form there is: empty, one piece of text, one with a note, a view of a log, made
#: of events.
chunks: st.SearchStrategy[AIMessageChunk] = st.one_of(
    st.builds(AIMessageChunk),
    st.builds(TextChunk, text=_whole_texts, index=_indexes),
    st.builds(
        NotedChunk,
        text=_whole_texts,
        index=_indexes,
        note=st.lists(chunk_events.filter(_no_text), max_size=2).map(_Note),
    ),
    st.lists(chunk_events, max_size=5).map(fold_events),
    st.lists(chunk_events, max_size=5).map(lambda events: AIMessageChunk(events=events)),
    st.lists(chunk_events, min_size=1, max_size=5).map(
        lambda events: sum((AIMessageChunk(events=[e]) for e in events), AIMessageChunk())
    ),
)


@st.composite
def cuts(draw: st.DrawFn, length: int) -> list[int]:
    """Places, in order, at which something of `length` is cut; the same place twice is allowed."""
    return sorted(draw(st.lists(st.integers(0, length), max_size=min(length + 1, 12))))


def cut_at(whole: Any, places: list[int]) -> list[Any]:
    """`whole` (bytes or str) cut at `places`."""
    bounds = [0, *places, len(whole)]
    return [whole[a:b] for a, b in pairwise(bounds)]


@st.composite
def pieces_of(draw: st.DrawFn, whole: Any) -> list[Any]:
    """`whole` cut anywhere, some pieces empty."""
    return cut_at(whole, draw(cuts(len(whole))))
