"""What vendors of Chat Completions want back goes back on the next turn, and to nobody else.

Gemini's signatures (`extra_content`), OpenRouter's `reasoning_details`, and reasoning under any of
its names: whole and streamed, and after a round trip through a database.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from decoding import decode, decode_whole
from streamfold.messages import AIMessage, HumanMessage, ToolMessage, message_from_dict
from streamfold.wire import openai_chat
from streamfold.wire.request import ChatRequest

SIGNED = {"google": {"thought_signature": "c2ln"}}
DETAILS = [{"type": "reasoning.encrypted", "data": "x", "id": "r1", "format": "f", "index": 0}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

#: Name, and the fields of a message that come and go back.
MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("a signed call", {"content": None, "tool_calls": [{**CALL, "extra_content": SIGNED}]}),
    ("a signed text", {"content": "hi", "extra_content": SIGNED}),
    ("details of reasoning", {"content": "hi", "reasoning": "r", "reasoning_details": DETAILS}),
    ("details alone", {"content": "hi", "reasoning_details": DETAILS}),
    ("DeepSeek's reasoning", {"content": "hi", "reasoning_content": "r"}),
    ("reasoning before a call", {"content": None, "reasoning_content": "r", "tool_calls": [CALL]}),
]
each = pytest.mark.parametrize("came", [pytest.param(fields, id=name) for name, fields in MESSAGES])


def whole(came: dict[str, Any]) -> AIMessage:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **came}}
    body = {"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}
    return decode_whole("openai_chat", json.dumps(body).encode()).message


def streamed(came: dict[str, Any]) -> AIMessage:
    """A field an event."""
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for key, value in came.items():
        if key == "tool_calls":
            value = [{**call, "index": place} for place, call in enumerate(value)]
        deltas.append({key: value})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [{"id": "1", "model": "m", "choices": [choice]} for choice in choices]
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    return decode("openai_chat", body + b"data: [DONE]\n\n").message


def sent_back(message: AIMessage, provider: str) -> dict[str, Any]:
    """The assistant message that the next request to `provider` holds."""
    stored = message_from_dict(json.loads(json.dumps(message.to_dict())))
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in message.tool_calls]
    request = ChatRequest(
        model="m", messages=[HumanMessage("hi"), stored, *results], provider=provider
    )
    sent: dict[str, Any] = json.loads(openai_chat.encode(request).body)["messages"][1]
    return sent


@each
@pytest.mark.parametrize("read", [whole, streamed])
def test_it_goes_back_as_it_came(came: dict[str, Any], read: Any) -> None:
    assert sent_back(read(came), "openai") == {"role": "assistant", **came}


@each
def test_it_goes_to_nobody_else(came: dict[str, Any]) -> None:
    """Another vendor gets the text and the calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sent = sent_back(whole(came), "groq")
    plain = {"content": came["content"]}
    if "tool_calls" in came:
        plain["tool_calls"] = [CALL]
    assert sent == {"role": "assistant", **plain}
