"""Nothing is lost: a conversation comes back from JSON as it was and makes the same request, and a
vendor that takes over in the middle gets all that it can take, and says what it cannot."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoding import Sample, decode, decode_whole, samples
from recordings import answers, needs_recordings, params, whole_of
from strategies import json_objects, usages
from streamfold.errors import ConfigurationError
from streamfold.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from streamfold.vendors import DIALECTS, dialect
from streamfold.wire.request import ChatRequest

MODELS = {
    "anthropic": "claude-sonnet-4-5",
    "bedrock": "anthropic.claude-sonnet-4-5",
    "gemini": "gemini-3-pro",
    "openai_responses": "gpt-5",
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def request(name: str, said: list[BaseMessage], provider: str | None) -> ChatRequest:
    model = MODELS.get(name, "m")
    return ChatRequest(model=model, messages=said, provider=provider, tools=[TOOL])


def body_and_warnings(
    name: str, said: list[BaseMessage], provider: str | None
) -> tuple[bytes, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        body = dialect(name).encode(request(name, said, provider)).body
    return body, [str(warning.message) for warning in caught]


# ---- through JSON --------------------------------------------------------------------------------

texts = st.text(max_size=8)
ids = st.sampled_from(["c1", "c2", "call_0123456789abcdef01234567"])
base64s = st.sampled_from(["iVBORw0KGgo=", "JVBERi0=", "UklGRg==", "0K8="])
extras = st.fixed_dictionaries(
    {},
    optional={
        "extras": st.fixed_dictionaries(
            {},
            optional={
                "signature": texts,
                "thoughtSignature": texts,
                "redacted_data": texts,
                "encrypted_content": texts,
                "block_type": st.sampled_from(
                    ["server_tool_use", "web_search_tool_result", "executableCode", "toolResponse"]
                ),
                "field": st.sampled_from(["reasoning", "reasoning_content", "thinking"]),
                "cache_control": st.just({"type": "ephemeral"}),
                "id": texts,
                "filename": texts,
                "odd": json_objects,
            },
        )
    },
)


def blocks_of(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    made = st.fixed_dictionaries({"type": st.just(kind), **fields})
    return st.builds(lambda block, more: {**block, **more}, made, extras)


def media_of(kind: str, mime_type: str) -> st.SearchStrategy[Any]:
    sources = st.one_of(
        st.builds(lambda data: {"base64": data, "mime_type": mime_type}, base64s),
        st.builds(lambda data: {"url": f"data:{mime_type};base64,{data}"}, base64s),
        st.just({"url": "https://files.example/x"}),
        st.just({"file_id": "file-1"}),
    )
    return st.builds(lambda source, more: {"type": kind, **source, **more}, sources, extras)


citations = st.lists(
    st.builds(
        lambda url, native: {"type": "citation", "url": url, "extras": {"native": native}},
        texts,
        json_objects,
    ),
    max_size=2,
)
user_blocks = st.one_of(
    blocks_of("text", text=texts),
    media_of("image", "image/png"),
    media_of("audio", "audio/wav"),
    media_of("video", "video/mp4"),
    media_of("file", "application/pdf"),
    blocks_of("text-plain", text=texts, mime_type=st.just("text/plain"), title=texts),
    st.just(
        {"type": "image_url", "image_url": {"url": "https://files.example/x", "detail": "low"}}
    ),
    blocks_of("non_standard", value=json_objects),
)
answer_blocks = st.one_of(
    blocks_of("text", text=texts, annotations=citations),
    blocks_of("reasoning", reasoning=texts),
    blocks_of("tool_call", name=st.just("f"), args=json_objects, id=ids),
    blocks_of("invalid_tool_call", name=texts, args=texts, id=ids, error=texts),
    blocks_of("server_tool_call", name=st.just("web_search"), args=json_objects, id=ids),
    blocks_of(
        "server_tool_result", tool_call_id=ids, status=st.just("success"), output=json_objects
    ),
    media_of("image", "image/png"),
    media_of("audio", "audio/wav"),
    blocks_of("non_standard", value=json_objects),
)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "model_provider": st.sampled_from(["here", "elsewhere"]),
        "model_name": st.sampled_from(["claude-x", "gpt-x"]),
        "object": st.just("response"),
        "logprobs": json_objects,
    },
)
names = st.none() | texts
said = st.one_of(
    st.builds(SystemMessage, texts | st.lists(user_blocks, max_size=2), name=names),
    st.builds(
        HumanMessage,
        texts | st.lists(user_blocks, max_size=3),
        id=names,
        name=names,
        extras=st.just({}) | st.just({"cache_control": {"type": "ephemeral"}}),
    ),
    st.builds(
        AIMessage,
        texts | st.lists(answer_blocks, max_size=4),
        id=names,
        response_metadata=metadata,
        usage_metadata=st.none() | usages,
        finish_reason=st.sampled_from([None, "stop", "length"]),
    ),
    st.builds(
        ToolMessage,
        texts | st.lists(user_blocks, max_size=2),
        tool_call_id=ids,
        status=st.sampled_from(["success", "error"]),
        artifact=st.none() | json_objects,
    ),
)
conversations = st.lists(said, min_size=1, max_size=4)


def stored(messages: list[BaseMessage]) -> list[BaseMessage]:
    return messages_from_dict(json.loads(json.dumps(messages_to_dict(messages))))


def outcome(name: str, messages: list[BaseMessage]) -> Any:
    """What comes of a request: its bytes and warnings, or why there is none."""
    try:
        return body_and_warnings(name, messages, "here")
    except ConfigurationError as error:
        return str(error)


@given(conversations)
def test_any_conversation_comes_back_from_json_as_it_was(messages: list[BaseMessage]) -> None:
    back = stored(messages)
    assert back == messages
    assert [type(message) for message in back] == [type(message) for message in messages]
    assert stored(back) == back


@pytest.mark.parametrize("name", DIALECTS)
@given(conversations)
def test_and_makes_the_same_request(name: str, messages: list[BaseMessage]) -> None:
    """For every vendor, byte for byte; or it is refused for the same reason."""
    assert outcome(name, stored(messages)) == outcome(name, messages)


@pytest.mark.parametrize("name", DIALECTS)
@given(conversations)
def test_encoding_changes_no_message_and_warns_once_at_most(
    name: str, messages: list[BaseMessage]
) -> None:
    before = messages_to_dict(stored(messages))
    found = outcome(name, messages)
    assert messages_to_dict(messages) == before
    assert isinstance(found, str) or len(found[1]) <= 1


# ---- to another vendor ---------------------------------------------------------------------------


def check_taken_over(message: AIMessage, name: str) -> None:
    """Another vendor gets the text, the calls and the images of an answer, and one warning that
    names all that it does not get."""
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    results = [ToolMessage("done", tool_call_id=str(call["id"])) for call in calls]
    body, warned = body_and_warnings(
        name, [HumanMessage("hi"), message, *results, HumanMessage("go on")], "elsewhere"
    )
    data = json.loads(body)
    everything = json.dumps(data, ensure_ascii=False)
    for block in message.content_blocks:
        if block["type"] == "text" and block["text"].strip():
            assert as_json(block["text"].strip()) in everything
        if block["type"] == "tool_call":
            assert f'"{block["name"]}"' in everything
        if block["type"] == "image" and block.get("base64"):
            assert block["base64"] in everything
    assert len(warned) <= 1
    said = warned[0] if warned else ""
    kinds = {block["type"] for block in message.content_blocks}
    stays = "reasoning" in kinds and not _reads_claudes(name, message)
    assert ("reasoning of another provider" in said) is stays
    for kind in kinds & {"server_tool_call", "server_tool_result", "non_standard"}:
        assert re.search(_NOTES[kind], said), (kind, said)


_NOTES = {
    "server_tool_call": r"server.tool.call",
    "server_tool_result": r"server.tool.result",
    "non_standard": r"block of another provider",
}


def _reads_claudes(name: str, message: AIMessage) -> bool:
    """Claude's seals hold wherever Claude is served."""
    model = str(message.response_metadata.get("model_name"))
    return "claude" in model and "claude" in MODELS.get(name, "")


def as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


ALL = [sample for sample in samples() if sample.expected.get("error") is None]


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("sample", ALL, ids=[f"{s.dialect}-{s.case}" for s in ALL])
def test_a_sample_of_each_dialect_taken_over_by_each(sample: Sample, name: str) -> None:
    decoded = decode(sample.dialect, sample.stream)
    assert decoded.error is None
    check_taken_over(decoded.message, name)
    if sample.whole is not None:
        check_taken_over(decode_whole(sample.dialect, sample.whole).message, name)


@needs_recordings
@pytest.mark.parametrize("recording", params(answers()))
def test_every_recorded_answer_taken_over_by_each(recording: Any) -> None:
    decoded = whole_of(recording)
    if decoded.error is None:
        for name in DIALECTS:
            check_taken_over(decoded.message, name)


@pytest.mark.parametrize("name", DIALECTS)
def test_signatures_that_stay_behind_are_named(name: str) -> None:
    call = {"type": "tool_call", "name": "f", "args": {}, "id": "c1"}
    signed = AIMessage(
        [{**call, "extras": {"thoughtSignature": "SEALED"}}],
        response_metadata={"model_provider": "here", "model_name": "gemini-3"},
    )
    talk = [HumanMessage("hi"), signed, ToolMessage("r", tool_call_id="c1")]
    body, warned = body_and_warnings(name, talk, "elsewhere")
    assert b"SEALED" not in body
    assert ["signatures of another provider" in warning for warning in warned] == [True]


PAST = {
    "openai_chat": [],
    "openai_responses": ["audio"],
    "anthropic": ["audio"],
    "gemini": [],
    "bedrock": ["file"],
    "ollama": ["image", "audio", "file"],
    "cohere": ["audio", "file"],
}


@pytest.mark.parametrize("name", DIALECTS)
def test_media_of_the_past_that_a_vendor_cannot_take_is_left_out_aloud(name: str) -> None:
    """What was said to another model no longer stops the conversation; what is said now does."""
    fetched = {"url": "https://e.example/x.png"}
    where = fetched if "image" in PAST[name] else {"base64": "iVBORw0KGgo="}
    media: list[dict[str, Any]] = [
        {"type": "image", **where},
        {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"},
        {"type": "file", "file_id": "file-1"},
    ]
    said = HumanMessage([{"type": "text", "text": "look"}, *media])
    answer = AIMessage("seen", response_metadata={"model_provider": "here"})
    body, warned = body_and_warnings(name, [said, answer, HumanMessage("and?")], "elsewhere")
    assert all(word in body.decode() for word in ("look", "seen", "and?"))
    assert len(warned) == bool(PAST[name])
    for kind in PAST[name]:
        assert f"{kind} block of an earlier user message" in warned[0]
        assert f"[{kind}]" in body.decode()
    if PAST[name]:
        with pytest.raises(ConfigurationError, match=r"cannot be sent|has a url"):
            body_and_warnings(name, [answer, said], "elsewhere")


def test_two_names_of_one_vendor_are_one() -> None:
    block = {"type": "server_tool_result", "tool_call_id": "s", "status": "success", "output": [],
             "extras": {"block_type": "nova_grounding_result"}}  # fmt: skip
    answer = AIMessage([block], response_metadata={"model_provider": "bedrock"})
    talk = [HumanMessage("hi"), answer, HumanMessage("go on")]
    body, warned = body_and_warnings("bedrock", talk, "bedrock_converse")
    assert b"nova_grounding_result" in body
    assert warned == []
