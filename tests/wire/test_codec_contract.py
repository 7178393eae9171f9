"""What every dialect owes: one contract over all of `vendors.DIALECTS`.

A new dialect brings samples (`tests/wire/samples/<dialect>/`, see `REQUIRED`) and is held to all
of this without another line here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import (
    Sample,
    bytewise,
    check_readable,
    decode,
    decode_whole,
    events_of,
    fold,
    json_mutants,
    samples,
    wire,
)
from strategies import cut_at, pieces_of
from streamfold import errors
from streamfold.chunks import TextChunk
from streamfold.deltas import (
    Annotation,
    BlockEnd,
    BlockStart,
    MessageEnd,
    MessageStart,
    ProviderData,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    decode_events,
    encode_events,
)
from streamfold.errors import (
    ProviderError,
    SizeLimitError,
    StreamError,
    StreamfoldError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.limits import Limits
from streamfold.vendors import DIALECTS, dialect
from streamfold.wire.codec import Decoder

#: The answers of which every dialect has a sample: plain text, reasoning, two parallel tool calls
#: after a text, an answer cut by the token limit, and an error in the middle.
REQUIRED = {"text", "reasoning", "tools", "length", "error"}

SAMPLES = samples()
GOOD = [sample for sample in SAMPLES if "error" not in sample.expected]


def ids(sample: Sample) -> str:
    return f"{sample.dialect}-{sample.case}"


each = pytest.mark.parametrize("sample", SAMPLES, ids=ids)
each_good = pytest.mark.parametrize("sample", GOOD, ids=ids)
each_text = pytest.mark.parametrize("sample", samples("text"), ids=ids)
each_dialect = pytest.mark.parametrize("name", DIALECTS)


def saying(decoded: Any, sample: Sample) -> dict[str, Any]:
    """The answer in the form in which samples say what is expected."""
    message, chunk = decoded.message, decoded.chunk
    said: dict[str, Any] = {
        "text": message.text,
        "reasoning": chunk.reasoning,
        "tool_calls": [[c["id"], c["name"], c["args"]] for c in message.tool_calls],
        "invalid": [[c["id"], c["name"], c["args"]] for c in message.invalid_tool_calls],
        "finish_reason": message.finish_reason,
        "model_name": message.response_metadata.get("model_name"),
        "usage_metadata": message.usage_metadata,
    }
    if decoded.error is not None:
        said["error"] = [type(decoded.error).__name__, decoded.error.message]
    for call, wanted in zip(said["tool_calls"], sample.expected.get("tool_calls", ())):
        if wanted[0] is None:  # the wire has none: one was made up
            assert call[0]
            call[0] = None
    return {key: said[key] for key in sample.expected}


class TestSamples:
    @each_dialect
    def test_every_dialect_has_samples(self, name: str) -> None:
        missing = REQUIRED - {sample.case for sample in SAMPLES if sample.dialect == name}
        assert not missing, f"write tests/wire/samples/{name}/{{{','.join(sorted(missing))}}}"

    @each
    def test_the_stream_says_what_is_expected(self, sample: Sample) -> None:
        decoded = decode(sample.dialect, sample.stream)
        assert saying(decoded, sample) == sample.expected
        assert (decoded.error is None) == ("error" not in sample.expected)
        check_readable(decoded)

    @pytest.mark.parametrize("sample", [s for s in GOOD if s.whole], ids=ids)
    def test_the_body_says_the_same_as_the_stream(self, sample: Sample) -> None:
        """Agreement: all but ids and what only a stream can have."""
        whole = decode_whole(sample.dialect, sample.whole or b"")
        stream = decode(sample.dialect, sample.stream)
        assert whole.error is None
        assert saying(whole, sample) == sample.expected
        one, other = whole.message, stream.message
        assert one.content_blocks == other.content_blocks
        assert one.usage_metadata == other.usage_metadata
        assert one.finish_reason == other.finish_reason
        assert one.id == other.id
        timings = {"created_at", "object"}
        keys = one.response_metadata.keys() - timings
        assert keys == other.response_metadata.keys() - timings
        for key in keys:
            assert one.response_metadata[key] == other.response_metadata[key]

    @each_good
    def test_a_model_that_the_wire_does_not_name(self, sample: Sample) -> None:
        """It is the one that was asked; what the wire says goes before that."""
        told = decode(sample.dialect, sample.stream).message.response_metadata.get("model_name")
        decoder = dialect(sample.dialect).Decoder(model="asked")
        streamed = fold([*decoder.feed(sample.stream), *decoder.close()])
        assert streamed.response_metadata["model_name"] == (told or "asked")
        if sample.whole is not None:
            whole = fold(dialect(sample.dialect).Decoder(model="asked").whole(sample.whole))
            assert whole.response_metadata["model_name"] == (told or "asked")

    @pytest.mark.parametrize("sample", [s for s in samples("error") if s.whole], ids=ids)
    def test_an_error_in_a_body_is_the_same_error(self, sample: Sample) -> None:
        decoded = decode_whole(sample.dialect, sample.whole or b"")
        assert isinstance(decoded.error, ProviderError)
        assert saying(decoded, sample)["error"] == sample.expected["error"]


def some(cases: Iterable[Any], most: int = 150) -> list[Any]:
    """All cases in the full matrix; else `most` of them, evenly spread."""
    listed = list(cases)
    if os.environ.get("HYPOTHESIS_PROFILE") == "matrix" or len(listed) <= most:
        return listed
    return [listed[place * len(listed) // most] for place in range(most)]


class TestCuts:
    @each
    def test_every_cut_in_two_gives_the_same_chunks(self, sample: Sample) -> None:
        """One chunk for each event of the wire, wherever the bytes were cut."""
        whole = decode(sample.dialect, sample.stream)
        for place in some(range(len(sample.stream) + 1)):
            decoded = decode(sample.dialect, cut_at(sample.stream, [place]))
            assert decoded.events == whole.events, place
            assert repr(decoded.error) == repr(whole.error), place

    @each
    def test_byte_by_byte(self, sample: Sample) -> None:
        whole = decode(sample.dialect, sample.stream)
        decoded = decode(sample.dialect, bytewise(sample.stream))
        assert decoded.events == whole.events
        assert repr(decoded.error) == repr(whole.error)

    @given(st.sampled_from(SAMPLES), st.data())
    def test_any_cuts(self, sample: Sample, data: st.DataObject) -> None:
        whole = decode(sample.dialect, sample.stream)
        decoded = decode(sample.dialect, data.draw(pieces_of(sample.stream)))
        assert decoded.events == whole.events
        assert repr(decoded.error) == repr(whole.error)

    @each_good
    def test_every_truncation_is_an_error_that_keeps_what_came(self, sample: Sample) -> None:
        """A cut stream is never a short answer; no half call is ever valid. Only once the finish
        reason or the end marker has come is the answer whole."""
        full = decode(sample.dialect, sample.stream).message
        wholes = []
        for end in some(range(len(sample.stream))):
            decoded = decode(sample.dialect, sample.stream[:end])
            message = decoded.message
            assert full.text.startswith(message.text)
            wanted = [call["args"] for call in full.tool_calls]
            assert [call["args"] for call in message.tool_calls] == wanted[
                : len(message.tool_calls)
            ]
            wholes.append(decoded.error is None)
            if decoded.error is None:
                assert message.text == full.text
                assert message.tool_calls == full.tool_calls
                assert message.finish_reason == full.finish_reason
            else:
                assert isinstance(decoded.error, StreamInterruptedError), end
                assert message.finish_reason == "error"
        assert wholes == sorted(wholes), "once whole, an answer stays whole"

    @each_text
    def test_an_event_that_was_not_ended_is_dropped(self, sample: Sample) -> None:
        """Half of an event is not read, even where all of its JSON has arrived but the end."""
        separator = sample.stream[-2:] if sample.stream.endswith(b"\n\n") else b"\n"
        if not sample.stream.endswith(b"\n"):
            pytest.skip("this framing has no blank lines")
        place = sample.stream.index(b'"Hello"')
        end = sample.stream.index(separator, place)
        assert decode(sample.dialect, sample.stream[: end - 2]).message.text == ""
        assert decode(sample.dialect, sample.stream[: end + len(separator)]).message.text == "Hello"


class TestEvents:
    @each
    def test_events_encode_to_json_and_decode(self, sample: Sample) -> None:
        events = events_of(decode(sample.dialect, sample.stream))
        assert decode_events(encode_events(events)) == events

    @each
    def test_no_chunk_is_empty(self, sample: Sample) -> None:
        """An event that carries nothing for the message yields nothing."""
        for chunk in decode(sample.dialect, bytewise(sample.stream)).chunks:
            assert chunk.events

    @each_good
    def test_the_order_of_events(self, sample: Sample) -> None:
        """Start first, the end once and followed by figures only; each block opens once, in the
        order of its number, before its deltas, and ends after them."""
        events = events_of(decode(sample.dialect, sample.stream))
        assert isinstance(events[0], MessageStart)
        kinds = [type(event) for event in events]
        assert kinds.count(MessageStart) == 1
        assert kinds.count(MessageEnd) == 1
        after = set(kinds[kinds.index(MessageEnd) + 1 :])
        assert after <= {UsageReport, ProviderData}
        opened: list[int] = []
        ended: set[int] = set()
        for event in events:
            number = getattr(event, "index", None)
            if isinstance(event, BlockStart):
                assert number not in opened
                opened.append(event.index)  # type: ignore[arg-type]
            elif isinstance(event, BlockEnd):
                assert number in opened
                assert number not in ended
                ended.add(event.index)  # type: ignore[arg-type]
            elif isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta | Annotation):
                assert number in opened
                assert number not in ended
        assert opened == list(range(len(opened)))
        assert ended == set(opened)

    @each_good
    def test_one_chunk_for_each_piece_of_text(self, sample: Sample) -> None:
        chunks = decode(sample.dialect, sample.stream).chunks
        pieces = [e for chunk in chunks for e in chunk.events if isinstance(e, TextDelta)]
        assert len([chunk for chunk in chunks if chunk.text]) == len(pieces)

    @each_dialect
    def test_a_call_without_an_id_gets_one_when_it_starts(self, name: str) -> None:
        """Two answers of the same bytes have calls with ids, and each call its own."""
        sample = next(s for s in SAMPLES if (s.dialect, s.case) == (name, "tools"))
        chunks = decode(name, sample.stream).chunks
        starts = [e for c in chunks for e in c.events if getattr(e, "kind", "") == "tool_call"]
        made = [event.id for event in starts if isinstance(event, BlockStart)]
        assert len(made) == len(set(made)) == 2
        assert all(made)


class TestShortWay:
    """A read of nothing but text takes a short way: to the same chunks."""

    @each
    def test_it_gives_what_the_complete_way_gives(self, sample: Sample) -> None:
        """Event by event, and in reads of a few events."""
        for size in (1, 7, 64, 200, 500, 5000):
            reads = [sample.stream[n : n + size] for n in range(0, len(sample.stream), size)]
            short = decode(sample.dialect, reads)
            complete = decode(sample.dialect, reads, short_way=False)
            assert short.events == complete.events
            assert repr(short.error) == repr(complete.error)

    @given(st.sampled_from(samples("text")), st.data())
    def test_any_texts_in_any_reads(self, sample: Sample, data: st.DataObject) -> None:
        """Escapes, halves of pairs, raw control characters, bytes that are not UTF-8, fields that
        change on the way, other events in between: chunk for chunk the same."""
        framer = dialect(sample.dialect).Decoder.framer_type
        separator = getattr(framer, "separator", None)
        if dialect(sample.dialect).Decoder.text_path is None or separator is None:
            return
        blocks = sample.text.split(separator)[:-1]
        place = next(n for n, block in enumerate(blocks) if b'"Hello"' in block)
        pieces = data.draw(st.lists(_json_strings, min_size=2, max_size=8))
        changed = [blocks[place].replace(b'"Hello"', piece) for piece in pieces]
        for _ in range(data.draw(st.integers(0, 2))):
            where = data.draw(st.integers(0, len(changed)))
            changed.insert(
                where, data.draw(st.sampled_from([*blocks, *_odd_blocks(blocks[place])]))
            )
        stream = [*blocks[: place + 1], *changed, *blocks[place + 1 :]]
        sent = [wire(sample.dialect, block + separator) for block in stream]
        body = b"".join(sent)
        reads = data.draw(st.one_of(pieces_of(body), st.just(sent)))
        short = decode(sample.dialect, reads)
        complete = decode(sample.dialect, reads, short_way=False)
        whole = decode(sample.dialect, body, short_way=False)
        assert short.events == complete.events == whole.events
        assert repr(short.error) == repr(complete.error) == repr(whole.error)

    @each_text
    def test_it_is_taken(self, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else this class would prove nothing."""
        decoder_type = dialect(sample.dialect).Decoder
        if decoder_type.text_path is None:
            pytest.skip("this dialect has no short way")
        complete = 0
        take = decoder_type._frame

        def counting(self: Any, *args: Any) -> None:
            nonlocal complete
            complete += 1
            take(self, *args)

        monkeypatch.setattr(decoder_type, "_frame", counting)
        separator = decoder_type.framer_type.separator
        blocks = sample.text.split(separator)[:-1]
        place = next(n for n, block in enumerate(blocks) if b'"Hello"' in block)
        stream = blocks[: place + 1] + [blocks[place]] * 100 + blocks[place + 1 :]
        decoded = decode(sample.dialect, [wire(sample.dialect, b + separator) for b in stream])
        assert decoded.message.text.count("Hello") == 101
        assert sum(isinstance(chunk, TextChunk) for chunk in decoded.chunks) >= 100
        assert complete <= len(blocks) + 5


_json_strings = st.one_of(
    st.text(max_size=8).map(lambda text: json.dumps(text).encode()),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False).encode()),
    st.sampled_from(
        [
            b'""',
            b'"a\\"b"',
            b'"\\\\"',
            b'"\\ud83d"',
            b'"\\ude00"',
            b'"\\ud83d\\ude00"',
            b'"\\u0000\\n"',
            b'"\xff"',
            b'"a\x01b"',
            b'"a\tb"',
            b'"\\x"',
            b'"unfinished',
            b'"a", "b"',
            b"null",
            b"5",
            b'"\xf0\x9f\x98\x80"',
            '"\u2028\u0085"'.encode(),
        ]
    ),
)


def _odd_blocks(block: bytes) -> list[bytes]:
    """`block` with something else around its text."""
    return [
        block.replace(b'"Hello"', b'"x"').replace(b"1", b"2"),
        block.replace(b'"Hello"', b'"x","new_field":1'),
        block.replace(b'"Hello"', b'"x","refusal":"no"'),
        block.replace(b'"Hello"', b' "x"'),
        block + b" ",
        b": a comment\n" + block,
        block.replace(b"{", b"", 1),
        b"",
    ]


class TestHostileInput:
    """Any bytes at all give chunks or an error of the tree, and what came can be read."""

    @each_dialect
    @given(data=st.data())
    def test_random_bytes(self, name: str, data: st.DataObject) -> None:
        body = data.draw(st.binary(max_size=80))
        check_readable(decode(name, data.draw(pieces_of(body))))
        check_readable(decode_whole(name, body))

    @given(st.sampled_from(SAMPLES), st.data())
    def test_broken_samples(self, sample: Sample, data: st.DataObject) -> None:
        """Bytes changed, left out, doubled, put in; cut anywhere: still the same chunks."""
        body = bytearray(sample.stream)
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(body)))
            end = data.draw(st.integers(place, min(place + 40, len(body))))
            new = data.draw(st.one_of(st.binary(max_size=6), st.just(bytes(body[place:end]) * 2)))
            body[place:end] = new
        whole = decode(sample.dialect, bytes(body))
        check_readable(whole)
        cut = decode(sample.dialect, data.draw(pieces_of(bytes(body))))
        assert cut.events == whole.events
        assert repr(cut.error) == repr(whole.error)

    @each
    def test_payloads_of_other_shapes(self, sample: Sample) -> None:
        """Each value in each JSON payload of a stream replaced by each of a dozen odd ones."""
        wrong = []
        for changed, body in some(stream_mutants(sample.text)):
            try:
                check_readable(decode(sample.dialect, wire(sample.dialect, body)))
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error} <- {changed[:300]!r}")
        assert not wrong, "\n".join(wrong[:3])

    @pytest.mark.parametrize("sample", [s for s in SAMPLES if s.whole], ids=ids)
    def test_bodies_of_other_shapes(self, sample: Sample) -> None:
        """The same for bodies that are not streams; and none is an empty success."""
        wrong = []
        for mutant in some(json_mutants(json.loads(sample.whole or b""))):
            body = json.dumps(mutant).encode()
            try:
                decoded = decode_whole(sample.dialect, body)
                check_readable(decoded)
                assert decoded.error is not None or decoded.chunks
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error} <- {body[:300]!r}")
        assert not wrong, "\n".join(wrong[:3])

    @each_dialect
    @pytest.mark.parametrize(
        "body", [b"", b" ", b"null", b"[]", b"{}", b"5", b'"x"', b"<html>", b'{"a"', b"\xff", b"\0"]
    )
    def test_bodies_without_an_answer(self, name: str, body: bytes) -> None:
        """An error that says what came, never an empty success."""
        decoded = decode_whole(name, body)
        assert isinstance(decoded.error, StreamProtocolError | ProviderError)
        assert decoded.message.text == ""

    @each_dialect
    @pytest.mark.parametrize("body", [b"", b"\n\n", b": ping\n\n"])
    def test_a_stream_of_nothing_is_cut_off(self, name: str, body: bytes) -> None:
        decoded = decode(name, body)
        assert isinstance(decoded.error, StreamError)
        assert decoded.chunks == []


def stream_mutants(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """`stream`, a JSON payload at a time, with a value in it replaced."""
    lines = stream.split(b"\n")
    for place, line in enumerate(lines):
        prefix = b"data: " if line.startswith(b"data: ") else b""
        try:
            payload = json.loads(line.removeprefix(prefix))
        except ValueError:  # an end marker, a line of an object written over several
            continue
        for mutant in json_mutants(payload):
            changed = prefix + json.dumps(mutant).encode()
            yield changed, b"\n".join([*lines[:place], changed, *lines[place + 1 :]])


class TestLimits:
    @each_text
    def test_too_many_bytes_keep_what_came_before(self, sample: Sample) -> None:
        """However the bytes are cut: the same chunks up to the limit, then the error."""
        for limit in range(1, len(sample.stream), 37):
            limits = Limits(message_bytes=limit)
            whole = decode(sample.dialect, sample.stream, limits)
            pieces = decode(sample.dialect, bytewise(sample.stream), limits)
            assert whole.events == pieces.events
            assert repr(whole.error) == repr(pieces.error)
            if not whole.decoder.done:
                assert isinstance(whole.error, SizeLimitError)
                assert "message_bytes" in str(whole.error)

    @each_text
    def test_an_event_that_is_too_large(self, sample: Sample) -> None:
        """The short way has the same limit, and the text before it counts."""
        big = wire(sample.dialect, sample.text.replace(b"!", b"!" * 3000))
        place = big.index(b"!" * 3000)
        limits = Limits(event_bytes=2000)
        ends = [found.end() for found in re.finditer(rb"\n\n|\r\n\r\n|(?<=\})\n", big)]
        cuts = ([], [place - 400], [place], ends, range(len(big)))
        for places in cuts:
            reads = cut_at(big, [*places])
            decoded = decode(sample.dialect, reads, limits)
            assert isinstance(decoded.error, SizeLimitError)
            assert decoded.message.text == sample.expected["text"].removesuffix("!")

    @pytest.mark.parametrize("sample", samples("tools"), ids=ids)
    def test_tool_arguments_that_are_too_large(self, sample: Sample) -> None:
        """Counted in bytes, for each call by itself."""
        sizes = [
            len(json.dumps(args, ensure_ascii=False).encode())
            for _, _, args in sample.expected["tool_calls"]
        ]
        fine = decode(sample.dialect, sample.stream, Limits(tool_args_bytes=max(sizes)))
        assert fine.error is None
        small = decode(sample.dialect, sample.stream, Limits(tool_args_bytes=min(sizes) - 4))
        assert isinstance(small.error, SizeLimitError)
        assert "tool_args_bytes" in str(small.error)
        assert small.message.text == sample.expected["text"]

    @each_text
    def test_json_that_is_too_deep(self, sample: Sample) -> None:
        for depth in (100, 200_000):
            deep = b'"x": ' + b"[" * depth + b"]" * depth + b", "
            place = sample.text.rindex(b"{", 0, sample.text.index(b'"!"'))
            stream = sample.text[: place + 1] + deep + sample.text[place + 1 :]
            decoded = decode(sample.dialect, wire(sample.dialect, stream))
            assert isinstance(decoded.error, SizeLimitError | StreamProtocolError)
            assert decoded.message.text == sample.expected["text"].removesuffix("!")

    @pytest.mark.parametrize("sample", [s for s in samples("text") if s.whole], ids=ids)
    def test_bodies(self, sample: Sample) -> None:
        body = sample.whole or b""
        assert decode_whole(sample.dialect, body, Limits(message_bytes=len(body))).error is None
        large = decode_whole(sample.dialect, body, Limits(message_bytes=len(body) - 1))
        assert isinstance(large.error, SizeLimitError)
        deep = decode_whole(
            sample.dialect, body.replace(b"{", b'{"x":' + b"[" * 99 + b"]" * 99 + b",", 1)
        )
        assert isinstance(deep.error, SizeLimitError)


class TestState:
    @each
    def test_two_answers_at_once_do_not_mix(self, sample: Sample) -> None:
        """A decoder shares nothing with another, interleaved byte for byte."""
        alone = decode(sample.dialect, sample.stream)
        others = [dialect(s.dialect).Decoder() for s in SAMPLES]
        one = dialect(sample.dialect).Decoder()
        one._seed = "seed"
        chunks = []
        for n, byte in enumerate(bytewise(sample.stream)):
            chunks += one.feed(byte)
            for other, from_sample in zip(others, SAMPLES):
                other.feed(from_sample.stream[n : n + 1])
        chunks += one.close()
        assert [chunk.events for chunk in chunks] == alone.events

    @each
    def test_nothing_comes_after_the_end(self, sample: Sample) -> None:
        """After the close, and after a failure, feeding and closing again give nothing."""
        decoder: Decoder = decode(sample.dialect, sample.stream).decoder
        error = decoder.error
        assert decoder.close() == []
        assert decoder.feed(sample.stream) == [] or not decoder.done
        assert decoder.close() == []
        assert decoder.error is error

    @each_good
    def test_what_follows_the_end_marker_is_not_read(self, sample: Sample) -> None:
        """Content and broken JSON behind it change nothing."""
        whole = decode(sample.dialect, sample.stream)
        if not whole.decoder.done:
            pytest.skip("this dialect has no end marker")
        again = decode(sample.dialect, sample.stream + sample.stream + b"data: {broken\n\n")
        assert again.events == whole.events
        assert again.error is None

    @each_dialect
    def test_a_dialect_is_what_the_registry_says(self, name: str) -> None:
        module = dialect(name)
        assert name == module.NAME
        assert issubclass(module.Decoder, Decoder)
        assert callable(module.encode)
        assert isinstance(module.BODY_FIELDS, frozenset)
        assert module.Decoder().model_provider

    @each_dialect
    def test_the_vendors_name_is_on_the_message(self, name: str) -> None:
        sample = next(s for s in SAMPLES if (s.dialect, s.case) == (name, "text"))
        decoder = dialect(name).Decoder(provider="acme")
        chunks = [*decoder.feed(sample.stream), *decoder.close()]
        assert sum(chunks[1:], chunks[0]).response_metadata["model_provider"] == "acme"

    def test_errors_are_of_the_tree(self) -> None:
        """`check_readable` asks for it: this is what it asks for."""
        assert all(
            issubclass(getattr(errors, n), StreamfoldError)
            for n in errors.__all__
            if n[0].isupper()
        )
