"""Where the statements of a Gemini answer come from, as citations on its text blocks.

`groundingMetadata` has the sources (`groundingChunks`) and which piece of text each supports
(`groundingSupports`); `citationMetadata` has pieces of text that are taken from somewhere. Both
give places as bytes of UTF-8, counted over all the text of the answer (the documentation says over
one part of it, and names the part in no recorded answer). So a place counts where the piece of
text found there is the one that is given along with it; else that piece is looked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

__all__ = ["cite", "merged_grounding"]

Fields = dict[str, Any]
Place = tuple[int, int]  # first character and the one after the last, over all the text


def merged_grounding(old: Fields, new: Mapping[str, Any]) -> Fields:
    """What is known after another event: lists grow, or come again with more in them."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if isinstance(before, list) and isinstance(value, list) and value[: len(before)] != before:
            value = [*before, *value]
        merged[key] = value
    return merged


def cite(
    grounding: Mapping[str, Any], taken: Mapping[str, Any], texts: Mapping[int, str]
) -> Iterator[tuple[int, Fields]]:
    """Each citation and the number of the text block it belongs to.

    `grounding` and `taken` are `groundingMetadata` and `citationMetadata`, `texts` the text blocks
    of the answer in order. Nothing can be cited where there is none.
    """
    if not texts:
        return
    notes = [*_supported(grounding), *_taken(taken)]
    starts = list(accumulate(map(len, texts.values()), initial=0))
    numbers = list(texts)
    for (note, _), place in zip(notes, _places([segment for _, segment in notes], texts)):
        if place is None:
            yield numbers[-1], note
            continue
        start, end = place
        block = min(bisect_right(starts, start), len(numbers)) - 1
        offset, length = starts[block], starts[block + 1] - starts[block]
        where = {"start_index": start - offset, "end_index": min(end - offset, length)}
        yield numbers[block], {**note, **where}


# ---- what there is to cite -----------------------------------------------------------------------

#: The kinds of sources, and the fields that the standard citation has for what they say.
_SOURCES: Final = ("web", "retrievedContext", "maps", "image")
_NAMES: Final = {"uri": "url", "sourceUri": "url", "title": "title", "text": "cited_text"}


def _supported(grounding: Mapping[str, Any]) -> Iterator[tuple[Fields, Fields]]:
    """A citation for each source of each supported segment."""
    chunks = _dicts(grounding.get("groundingChunks"), keep_places=True)
    for support in _dicts(grounding.get("groundingSupports")):
        scores = support.get("confidenceScores")
        for nth, index in enumerate(support.get("groundingChunkIndices") or ()):
            if not isinstance(index, int) or not 0 <= index < len(chunks):
                continue
            extras: Fields = {"grounding_chunk_index": index}
            if isinstance(scores, list) and nth < len(scores):
                extras["confidence_score"] = scores[nth]
            segment = support.get("segment")
            yield _citation(_source(chunks[index]), extras), _fields(segment)


def _source(chunk: Fields) -> Fields:
    return next((chunk[kind] for kind in _SOURCES if isinstance(chunk.get(kind), dict)), {})


def _taken(citations: Mapping[str, Any]) -> Iterator[tuple[Fields, Fields]]:
    """A citation for each piece that was taken from somewhere. The two APIs name the list apart."""
    for name in ("citations", "citationSources"):
        for taken in _dicts(citations.get(name)):
            where: Fields = {key: taken[key] for key in ("startIndex", "endIndex") if key in taken}
            source = {key: value for key, value in taken.items() if key not in where}
            yield _citation(source, {}), where


def _citation(source: Fields, extras: Fields) -> Fields:
    named = {_NAMES[key]: value for key, value in source.items() if value and key in _NAMES}
    extras = {**extras, **{key: value for key, value in source.items() if key not in _NAMES}}
    return {"type": "citation", **named, **({"extras": extras} if extras else {})}


def _dicts(value: Any, *, keep_places: bool = False) -> list[Fields]:
    """The objects of a list; what is none is left out, or an empty one in its place."""
    items = value if isinstance(value, list) else []
    return [_fields(item) for item in items if keep_places or isinstance(item, dict)]


def _fields(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


# ---- where it is cited ---------------------------------------------------------------------------


def _places(segments: list[Fields], texts: Mapping[int, str]) -> list[Place | None]:
    """The place of each segment in characters; None where it cannot be told."""
    text = "".join(texts.values())
    data = text.encode("utf-8", "replace")
    spans = [_span(segment, len(data)) for segment in segments]
    characters = _characters(data, {byte for span in spans if span for byte in span})
    return [
        _place(segment, span and (characters[span[0]], characters[span[1]]), text)
        for segment, span in zip(segments, spans)
    ]


def _span(segment: Fields, size: int) -> Place | None:
    """First byte and the one after the last. A first byte of 0 is left out on the wire."""
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end <= size:
        return None
    return start, end


def _characters(data: bytes, places: set[int]) -> dict[int, int]:
    """How many characters begin before each of `places`, which count bytes; in one pass."""
    counts: dict[int, int] = {}
    before = characters = 0
    for place in sorted(places):
        characters += len(data[before:place].translate(None, _CONTINUED))
        counts[place] = characters
        before = place
    return counts


#: The bytes of UTF-8 that begin no character.
_CONTINUED: Final = bytes(range(0x80, 0xC0))


def _place(segment: Fields, place: Place | None, text: str) -> Place | None:
    said = segment.get("text")
    if not isinstance(said, str) or not said:
        return place
    if place is not None and text[slice(*place)] == said:
        return place
    start = text.find(said)
    return None if start < 0 else (start, start + len(said))
