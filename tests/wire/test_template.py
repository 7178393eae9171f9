"""The short way must not be learnt from a payload that says more than its text."""

from __future__ import annotations

import pytest

from streamfold.wire import openai_chat

HEAD = b'data: {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {'
TAIL = b"}}]}\n\n"
END = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("field", "key", "value"),
    [
        (b'"refusal": "no"', "refusal", "nonono"),
        (b'"reasoning_details": [{"type": "t", "index": 0, "text": "a"}]', None, "aaa"),
    ],
)
def test_what_is_kept_for_the_end_is_kept_from_every_payload(
    field: bytes, key: str | None, value: str
) -> None:
    """Payloads that differ only in their text, each with a piece that shows at the end only."""
    decoder = openai_chat.Decoder()
    pieces = [HEAD + b'"content": "Hello"' + TAIL]
    pieces += [HEAD + b'"content": "x%d", ' % n + field + TAIL for n in range(3)]
    chunks = [chunk for piece in [*pieces, END] for chunk in decoder.feed(piece)]
    message = sum(chunks[1:], chunks[0]).to_message()
    assert message.text == "Hellox0x1x2"
    if key is not None:
        assert message.response_metadata[key] == value
    else:
        blocks = [b for b in message.content_blocks if b["type"] == "reasoning"]
        assert blocks[0]["extras"]["reasoning_details"][0]["text"] == value
