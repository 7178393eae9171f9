"""Ollama's answers: what its own wire has, beyond the contract of all dialects."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from decoding import Decoded, bytewise, decode, decode_whole
from streamfold.chunks import TextChunk
from streamfold.errors import (
    NotFoundError,
    ServerError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.ollama import Decoder, read_usage

HEAD = {"model": "llama3", "created_at": "2025-08-20T13:48:23.24606Z"}
DONE = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 9,
    "load_duration": 2,
    "prompt_eval_count": 15,
    "prompt_eval_duration": 3,
    "eval_count": 50,
    "eval_duration": 4,
}
WEATHER = {"name": "weather", "arguments": {"city": "Riga"}}
PNG = "iVBORw0KGgoAAAANSUhEUg=="


def line(done: bool = False, /, *, head: Any = HEAD, **message: Any) -> dict[str, Any]:
    end = DONE if done else {"done": False}
    return {**head, "message": {"role": "assistant", "content": "", **message}, **end}


def stream(*lines: dict[str, Any], end: str = "\n") -> Decoded:
    body = "".join(json.dumps(each) + end for each in lines).encode()
    whole, bytes_ = decode("ollama", body), decode("ollama", bytewise(body))
    assert whole.events == bytes_.events
    assert repr(whole.error) == repr(bytes_.error)
    return whole


def body(value: dict[str, Any]) -> Decoded:
    return decode_whole("ollama", json.dumps(value).encode())


def calls(decoded: Decoded) -> list[tuple[str, Any]]:
    return [(call["name"], call["args"]) for call in decoded.message.tool_calls]


# ---- what is said --------------------------------------------------------------------------------


def test_thinking_is_a_block_of_its_own_before_the_text() -> None:
    """Also in a body, where `content` comes first."""
    streamed = stream(line(thinking="I "), line(thinking="see"), line(content="Yes"), line(True))
    whole = body(line(True, content="Yes", thinking="I see"))
    for decoded in (streamed, whole):
        assert decoded.message.content == [
            {"type": "reasoning", "reasoning": "I see"},
            {"type": "text", "text": "Yes"},
        ]


TIMINGS = {
    "created_at": HEAD["created_at"],
    "done_reason": "stop",
    "total_duration": 9,
    "load_duration": 2,
    "prompt_eval_count": 15,
    "prompt_eval_duration": 3,
    "eval_count": 50,
    "eval_duration": 4,
}


def test_counts_and_timings() -> None:
    message = stream(line(content="a"), line(True)).message
    assert message.usage_metadata == {"input_tokens": 15, "output_tokens": 50, "total_tokens": 65}
    assert message.response_metadata == {
        "model_provider": "ollama",
        "model_name": "llama3",
        "finish_reason": "stop",
        "usage": {k: v for k, v in TIMINGS.items() if k not in ("created_at", "done_reason")},
        **TIMINGS,
    }


def test_the_time_of_the_last_line_counts() -> None:
    early = line(content="a", head={**HEAD, "created_at": "2025-01-01T00:00:00Z"})
    assert (
        stream(early, early, line(True)).message.response_metadata["created_at"]
        == (HEAD["created_at"])
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_eval_count": 3, "eval_count": 4}, (3, 4, 7)),
        ({"eval_count": 4}, (0, 4, 4)),
        ({"prompt_eval_count": 3.0, "eval_count": None}, (3, 0, 3)),
    ],
)
def test_usage(usage: dict[str, Any], expected: tuple[int, int, int]) -> None:
    assert tuple(read_usage(usage).values()) == expected


def test_no_counts_no_usage() -> None:
    loaded = {**HEAD, "message": {"role": "assistant", "content": ""}, "done": True}
    assert body({**loaded, "done_reason": "load"}).message.usage_metadata is None


@pytest.mark.parametrize(
    ("reason", "with_call", "expected"),
    [
        ("stop", False, "stop"),
        ("stop", True, "tool_calls"),
        ("length", False, "length"),
        ("length", True, "length"),
        ("load", False, "stop"),
        ("unload", False, "stop"),
        ("timeout", False, "timeout"),
    ],
)
def test_finish_reasons(reason: str, with_call: bool, expected: str) -> None:
    message = {"tool_calls": [{"function": WEATHER}]} if with_call else {"content": "a"}
    for decoded in (
        stream(line(**message), {**line(True), "done_reason": reason}),
        body({**line(True, **message), "done_reason": reason}),
    ):
        assert decoded.message.finish_reason == expected
        assert decoded.message.response_metadata["finish_reason"] == reason
        assert decoded.message.response_metadata["done_reason"] == reason


def test_done_without_a_reason_is_done() -> None:
    """As the first servers had it."""
    last = {k: v for k, v in line(True).items() if k != "done_reason"}
    decoded = stream(line(content="a"), last)
    assert decoded.error is None
    assert decoded.decoder.done
    assert "finish_reason" not in decoded.message.response_metadata


def test_the_last_line_may_hold_the_last_piece() -> None:
    assert stream(line(content="a"), line(True, content="b")).message.text == "ab"


def test_log_probabilities_add_up() -> None:
    one, two = ({"token": t, "logprob": -0.5, "bytes": [97]} for t in "ab")
    decoded = stream(
        {**line(content="a"), "logprobs": [one]},
        {**line(content="b"), "logprobs": [two]},
        line(True),
    )
    whole = body({**line(True, content="ab"), "logprobs": [one, two]})
    for message in (decoded.message, whole.message):
        assert message.text == "ab"
        assert message.response_metadata["logprobs"] == {"content": [one, two]}


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [(PNG, "image/png"), ("/9j/4AAQ", "image/jpeg"), ("UklGRg", "image/webp"), ("AAAA", None)],
)
def test_images(data: str, mime_type: str | None) -> None:
    expected = {"type": "image", "base64": data}
    if mime_type is not None:
        expected["mime_type"] = mime_type
    assert stream(line(images=[data]), line(True)).message.content == [expected]


def test_what_is_unknown_is_kept() -> None:
    """Of a line and of a message; said once, however often it comes."""
    odd = {**line(content="a", mood="fine"), "remote_model": "big", "remote_host": "https://x"}
    decoded = stream(odd, odd, {**line(True), "remote_model": "big"})
    metadata = decoded.message.response_metadata
    assert (metadata["remote_model"], metadata["remote_host"], metadata["mood"]) == (
        "big",
        "https://x",
        "fine",
    )
    told = [e for events in decoded.events for e in events if "mood" in getattr(e, "data", {})]
    assert len(told) == 1


# ---- tool calls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, None])
@pytest.mark.parametrize("together", [True, False])
def test_whole_calls_never_fuse(index: int | None, together: bool) -> None:
    """Twice the same function, with the same index or none, in one line or two."""
    function = {**WEATHER, "index": index} if index is not None else WEATHER
    call = {"function": function}
    pieces = [[call, call]] if together else [[call], [call]]
    decoded = stream(*(line(tool_calls=each) for each in pieces), line(True))
    assert calls(decoded) == [("weather", {"city": "Riga"})] * 2
    made = [call["id"] for call in decoded.message.tool_calls]
    assert len(set(made)) == 2
    assert all(made)


def test_equal_ids_do_not_fuse_calls_either() -> None:
    call = {"id": "call_1", "function": WEATHER}
    decoded = stream(line(tool_calls=[call]), line(tool_calls=[call]), line(True))
    assert calls(decoded) == [("weather", {"city": "Riga"})] * 2


def test_an_id_that_is_sent_is_kept() -> None:
    decoded = stream(line(tool_calls=[{"id": "call_x", "function": WEATHER}]), line(True))
    assert [call["id"] for call in decoded.message.tool_calls] == ["call_x"]


def test_made_up_ids_are_those_of_the_answer() -> None:
    """Read twice they are the same; another answer has others."""

    def made(time: str) -> str:
        decoder = Decoder()
        lines = (line(tool_calls=[{"function": WEATHER}]), line(True))
        text = "".join(json.dumps({**each, "created_at": time}) + "\n" for each in lines)
        message = sum(decoder.feed(text.encode())[1:], Decoder().feed(text.encode())[0])
        return str(message.tool_calls[0]["id"])

    assert made("2025-01-01T00:00:00.5Z") == made("2025-01-01T00:00:00.5Z")
    assert made("2025-01-01T00:00:00.5Z") != made("2025-01-01T00:00:00.6Z")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, {}), ({"a": {"b": [1]}}, {"a": {"b": [1]}}), ('{"a":1}', {"a": 1}), (None, {})],
)
def test_arguments(arguments: Any, expected: Any) -> None:
    """An object; a str from servers that copy OpenAI."""
    call = {"function": {"name": "f", "arguments": arguments}}
    assert calls(stream(line(tool_calls=[call]), line(True))) == [("f", expected)]


def test_calls_that_cannot_be_read() -> None:
    odd = [
        {"function": {"arguments": {}}},
        {"function": {"name": "f", "arguments": "[1]"}},
        {"function": {"name": "a/b", "arguments": {}}},
        "f",
    ]
    message = stream(line(tool_calls=odd), line(True)).message
    assert message.tool_calls == []
    errors = [str(call["error"]) for call in message.invalid_tool_calls]
    for error, expected in zip(errors, ("no name", "an array", "slashes"), strict=True):
        assert expected in error


def test_other_fields_of_a_call_are_extras() -> None:
    call = {"type": "function", "function": {**WEATHER, "index": 1, "strict": True}}
    found = stream(line(tool_calls=[call]), line(True)).message.tool_calls[0]
    assert found["extras"] == {"type": "function", "function": {"strict": True}}


# ---- framing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_line_ends(end: str) -> None:
    decoded = stream(line(content="a"), line(content="b"), line(True), end=end)
    assert decoded.message.text == "ab"
    assert decoded.error is None


def test_the_last_line_may_lack_its_newline() -> None:
    text = json.dumps(line(content="a")) + "\n" + json.dumps(line(True))
    assert decode("ollama", text.encode()).error is None
    cut = decode("ollama", text[:-1].encode())
    assert isinstance(cut.error, StreamInterruptedError)
    assert cut.message.text == "a"


def test_lines_of_a_stream_whose_type_was_lost() -> None:
    """A proxy calls it application/json: the lines are read all the same, also indented bodies."""
    text = "".join(json.dumps(each) + "\n" for each in (line(content="a"), line(True, content="b")))
    assert decode_whole("ollama", text.encode()).message.text == "ab"
    assert decode_whole("ollama", text.encode()).error is None
    indented = json.dumps(line(True, content="ab"), indent=1)
    assert decode_whole("ollama", indented.encode()).message.text == "ab"


def test_nothing_is_read_after_the_end() -> None:
    decoded = stream(line(content="a"), line(True), line(content="b"))
    assert decoded.message.text == "a"
    assert decoded.decoder.feed(b"{broken\n") == []


# ---- errors --------------------------------------------------------------------------------------


def test_an_error_in_the_stream() -> None:
    decoded = stream(line(content="a"), {"error": "model runner has unexpectedly stopped"})
    assert isinstance(decoded.error, ServerError)
    assert decoded.error.retryable
    assert decoded.error.message == "model runner has unexpectedly stopped"
    assert decoded.message.text == "a"


def test_an_error_that_says_its_status() -> None:
    decoded = stream({"error": "model 'x' not found", "status": 404})
    assert isinstance(decoded.error, NotFoundError)
    assert not decoded.error.retryable
    assert isinstance(body({"error": {"message": "no", "code": 404}}).error, NotFoundError)


def test_a_body_without_a_message_is_no_answer() -> None:
    assert isinstance(body({"status": "success"}).error, StreamProtocolError)


def test_a_body_that_does_not_say_done_is_whole() -> None:
    answer = {k: v for k, v in line(content="a").items() if k != "done"}
    decoded = body({**answer, "_debug_info": {"rendered_template": "t"}})
    assert decoded.error is None
    assert decoded.message.text == "a"
    assert decoded.message.response_metadata["_debug_info"] == {"rendered_template": "t"}


# ---- the short way -------------------------------------------------------------------------------


def timed(place: int, **message: Any) -> dict[str, Any]:
    return line(head={**HEAD, "created_at": f"2025-08-20T13:48:23.{place:06}Z"}, **message)


def test_lines_of_text_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each has its own time; reads with anything else in them do not."""
    frames: list[bytes] = []
    frame = Decoder._frame
    monkeypatch.setattr(
        Decoder, "_frame", lambda self, f, c: (frames.append(f.data), frame(self, f, c))[1]
    )
    lines = [timed(n, content=f"{n} é\n") for n in range(50)]
    text = [json.dumps(each).encode() + b"\n" for each in lines]
    end = json.dumps(line(True)).encode() + b"\n"
    reads = [text[0], b"".join(text[1:30]), b"".join(text[30:40]) + text[40][:9]]
    decoded = decode("ollama", [*reads, text[40][9:] + b"".join(text[41:]), end])
    assert [len(frames), frames[0], frames[-1]] == [2, text[0][:-1], end[:-1]]
    assert decoded.message.text == "".join(each["message"]["content"] for each in lines)
    assert sum(isinstance(chunk, TextChunk) for chunk in decoded.chunks) == 49


ODD_LINES: list[bytes] = [
    json.dumps(line(True)).encode(),
    json.dumps({**HEAD, "message": {"role": "assistant", "content": "x"}, "done": True}).encode(),
    json.dumps(line(content="x", thinking="y")).encode(),
    json.dumps(line(thinking="y")).encode(),
    json.dumps(line(content="")).encode(),
    json.dumps(line(tool_calls=[{"function": WEATHER}])).encode(),
    json.dumps({**line(content="x"), "logprobs": [{"token": "x"}]}).encode(),
    json.dumps({**line(content="x"), "error": "no"}).encode(),
    json.dumps({**line(content="x"), "new": 1}).encode(),
    json.dumps(line(content="\ud83d")).encode(),
    json.dumps(line(content="\ude00")).encode(),
    json.dumps(line(content="x"), indent=1).encode(),
    json.dumps(line(content="x")).encode() * 2,
    json.dumps(line(content="x")).encode().replace(b'"x"', b'"\xff"'),
    json.dumps(line(content="x")).encode().replace(b'"x"', b'"\x01"'),
    json.dumps(line(content=None)).encode(),
    json.dumps({**line(content="x"), "model": None}).encode(),
    json.dumps(line(content="x", role="tool")).encode(),
    b"",
    b"[1]",
    b"null",
    b"{",
]


def test_the_short_way_gives_what_the_complete_way_gives() -> None:
    """With odd lines anywhere among those of text, and reads cut anywhere."""
    dice = random.Random(7)
    for _ in range(400):
        lines = [json.dumps(timed(n, content=f"{n}")).encode() for n in range(dice.randint(1, 12))]
        for _ in range(dice.randint(0, 2)):
            lines.insert(dice.randint(0, len(lines)), dice.choice(ODD_LINES))
        text = b"".join(each + b"\n" for each in lines)
        places = sorted(dice.randint(0, len(text)) for _ in range(dice.randint(0, 4)))
        reads = [text[a:b] for a, b in zip([0, *places], [*places, len(text)])]
        short = decode("ollama", reads)
        complete = decode("ollama", reads, short_way=False)
        assert short.events == complete.events
        assert repr(short.error) == repr(complete.error)
