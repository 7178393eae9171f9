"""Recorded conversations: the answer to one request, folded and sent back, is in the next one.

The pairs are found among the recordings: the second request begins with all that the first said,
and goes on with what the first was answered. What its client sent back must be in what we send
back, value for value; we may send more of the answer than that client kept (ids, reasoning).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Final

import pytest

from recordings import APIS, Body, answers, body_of, needs_recordings, requests, stored, whole_of
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from streamfold.vendors import dialect
from streamfold.wire.request import ChatRequest

pytestmark = needs_recordings

#: Where a request has its messages, and what the model said among them is called.
_MESSAGES: Final = {"openai_responses": "input", "gemini": "contents"}
_BY_MODEL: Final = ("assistant", "model", "reasoning", "function_call")


def messages_of(recording: Body) -> list[Body]:
    body = recording["request"].get("body")
    key = _MESSAGES.get(recording["api"], "messages")
    found = body.get(key) if isinstance(body, dict) else None
    return found if isinstance(found, list) else []


def said_next(first: Body, second: Body) -> list[Body]:
    """What the model said between the two requests; nothing if they are no pair."""
    before, after = messages_of(first), messages_of(second)
    if not before or first["provider"] != second["provider"] or after[: len(before)] != before:
        return []
    rest = after[len(before) :]
    return list(takewhile(lambda m: (m.get("role") or m.get("type")) in _BY_MODEL, rest))


def is_answer_of(message: AIMessage, said: list[Body]) -> bool:
    """Whether it was this answer: other requests begin alike and were answered otherwise."""
    text = json.dumps(said, ensure_ascii=False)
    ids = [json.dumps(call["id"]) for call in message.tool_calls]
    names = [json.dumps(call["name"]) for call in message.tool_calls]
    values = [v for call in message.tool_calls for v in call["args"].values() if isinstance(v, str)]
    words = [json.dumps(each, ensure_ascii=False)[1:-1] for each in (message.text, *values)]
    has_ids = "functionCall" not in text  # Gemini's calls may come without
    return all(each in text for each in (*names, *words, *(ids if has_ids else ())))


def pairs() -> Iterator[Any]:
    for api in APIS:
        seconds = requests(api)
        for first in answers(api):
            following = [(second, said) for second in seconds if (said := said_next(first, second))]
            if not following:
                continue
            decoded = whole_of(first)
            for second, said in following:
                if decoded.error is None and is_answer_of(decoded.message, said):
                    name = f"{first['id']}..{second['id'][-8:]}"
                    yield pytest.param(first, decoded.message, said, second, id=name)


PAIRS: Final = list(pairs())


def sent_back(api: str, answer: AIMessage, second: Body) -> list[Body]:
    """What the next request to the same model holds of the answer, after a database."""
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in answer.tool_calls]
    said: list[BaseMessage] = [HumanMessage("hi"), stored(answer), *results]
    model = second["request"]["body"].get("model") or APIS[api].model.partition(":")[2]
    url = second["request"]["url"]
    if "/models/" in url:  # Gemini has it in the path
        model = url.partition("/models/")[2].partition(":")[0]
    request = ChatRequest(model=model, messages=said)
    body = json.loads(dialect(APIS[api].dialect).encode(request).body)
    found: list[Body] = body[_MESSAGES.get(api, "messages")]
    return [m for m in found if (m.get("role") or m.get("type")) in _BY_MODEL]


def plain(value: Any) -> Any:
    """A value as it is meant: no nulls and empty lists, arguments as data, a text as a str."""
    if isinstance(value, dict):
        kept = {k: plain(v) for k, v in value.items() if v not in (None, [], "", {})}
        if isinstance(kept.get("arguments"), str):
            kept["arguments"] = json.loads(kept["arguments"])
        if kept.get("type") in ("message", "output_text", "text", "input_text", "function"):
            del kept["type"]
        if kept.get("thought") is False:
            del kept["thought"]
        if "reasoning" in kept:  # one thing under two names
            kept.setdefault("reasoning_content", kept.pop("reasoning"))
        return kept
    if isinstance(value, list):
        parts = [plain(each) for each in value]
        texts = [
            p["text"] for p in parts if isinstance(p, dict) and p.keys() <= {"text", "annotations"}
        ]
        return "".join(texts) if parts and len(texts) == len(parts) else parts
    return value


def missing(recorded: Any, ours: Any, place: str = "") -> list[str]:
    """Where something recorded is not in ours, or is something else there."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return [
            each
            for key, value in recorded.items()
            for each in missing(value, ours.get(key), f"{place}.{key}")
        ]
    if isinstance(recorded, list) and isinstance(ours, list) and len(recorded) == len(ours):
        return [
            each
            for n, value in enumerate(recorded)
            for each in missing(value, ours[n], f"{place}[{n}]")
        ]
    return [] if recorded == ours else [f"{place}: {recorded!r}, ours {ours!r}"]


def test_there_are_pairs() -> None:
    """Tool round trips, and thinking round trips, in several APIs."""
    kinds = {
        (pair.values[0]["api"], "reasoning" in {b["type"] for b in pair.values[1].content_blocks})
        for pair in PAIRS
    }
    assert len(PAIRS) >= 10
    assert kinds >= {
        ("openai_chat", False),
        ("openai_chat", True),
        ("openai_responses", True),
        ("gemini", False),  # its thought is a signature alone
    }


@pytest.mark.parametrize(("first", "answer", "said", "second"), PAIRS)
def test_the_answer_is_in_the_next_request(
    first: Body, answer: AIMessage, said: list[Body], second: Body
) -> None:
    ours = sent_back(first["api"], answer, second)
    for theirs, item in zip(said, ours, strict=False):
        # An item is sealed anew in each event that has it; any of the seals opens it.
        if theirs.get("encrypted_content") and item.get("encrypted_content"):
            assert item["encrypted_content"] in body_of(first).decode()
            assert theirs["encrypted_content"] in body_of(first).decode()
            item["encrypted_content"] = theirs["encrypted_content"]
    assert missing(plain(said), plain(ours)) == []
