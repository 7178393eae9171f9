"""Messages both ways: nothing is lost, whichever side they come from, also through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

reason = "needs langchain: `make test-langchain` brings it"
pytest.importorskip("langchain_core", reason=reason)

from langchain_core import messages as lc  # noqa: E402
from langchain_core.load import dumpd, load  # noqa: E402

from recordings import answer, answers, needs_recordings, params  # noqa: E402
from strategies import json_objects, usages  # noqa: E402
from streamfold.chunks import AIMessageChunk  # noqa: E402
from streamfold.errors import ConfigurationError  # noqa: E402
from streamfold.integrations.langchain import from_langchain, to_langchain  # noqa: E402
from streamfold.messages import (  # noqa: E402
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"
)

texts = st.text(min_size=1, max_size=8)
ids = st.none() | st.sampled_from(["a", "b"])
extras = st.fixed_dictionaries({}, optional={"extras": json_objects.filter(bool)})
call_ids = st.sampled_from(["c1", "c2", "c3"])


def block(kind: str, **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    known = st.fixed_dictionaries({"type": st.just(kind), **keys})
    return st.builds(lambda known, more: {**known, **more}, known, extras)


text_blocks = block("text", text=texts)
rich_blocks = st.one_of(
    block("text", text=texts, id=st.just("msg_1")),
    block("text", text=texts, annotations=st.just([{"type": "citation", "url": "https://a.b"}])),
    block("reasoning", reasoning=st.text(max_size=5)),
    block("image", base64=st.just("iVBORw0KGgo="), mime_type=st.just("image/png")),
    block("audio", url=st.just("https://a.b/c.wav")),
    block("file", file_id=st.just("file-1")),
    block("server_tool_call", id=st.just("s1"), name=texts, args=json_objects),
    block("server_tool_result", tool_call_id=st.just("s1"), status=st.just("success")),
    block("non_standard", value=json_objects),
)
calls = block("tool_call", name=texts, args=json_objects, id=call_ids)
invalid_calls = block("invalid_tool_call", name=texts, args=texts, id=call_ids, error=texts)
metadata = st.dictionaries(st.sampled_from(["finish_reason", "id", "x"]), texts, max_size=2)
providers = st.fixed_dictionaries(
    {},
    optional={"model_provider": st.sampled_from(["openai", "anthropic", "google_genai", "acme"])},
)
common: dict[str, st.SearchStrategy[Any]] = {
    "id": ids,
    "name": ids,
    "response_metadata": st.builds(lambda a, b: {**a, **b}, metadata, providers),
    "extras": json_objects,
}
input_content = st.text(max_size=8) | st.lists(text_blocks | rich_blocks, max_size=3)
whole_usages = usages.map(
    lambda usage: {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, **usage}
)
answers_of_any_kind = st.builds(
    AIMessage,
    st.text(max_size=8)
    | st.lists(text_blocks | calls | invalid_calls, max_size=3)
    | st.lists(text_blocks | rich_blocks | calls | invalid_calls, max_size=4),
    usage_metadata=st.none() | whole_usages,
    finish_reason=st.none() | st.sampled_from(["stop", "length", "tool_calls"]),
    **common,
)
any_message: st.SearchStrategy[BaseMessage] = st.one_of(
    answers_of_any_kind,
    st.builds(HumanMessage, input_content, **common),
    st.builds(SystemMessage, input_content, **common),
    st.builds(
        ToolMessage,
        input_content,
        tool_call_id=call_ids,
        status=st.sampled_from(["success", "error"]),
        artifact=st.none() | json_objects,
        **common,
    ),
)


def stored(message: lc.BaseMessage) -> Any:
    """Through a checkpointer, or any other JSON."""
    return load(json.loads(json.dumps(dumpd(message))), allowed_objects="messages")


@given(any_message)
def test_there_and_back(message: BaseMessage) -> None:
    there = to_langchain(message)
    assert from_langchain(there) == message
    assert from_langchain(stored(there)) == message
    assert there.text == message.text
    assert there.id == message.id


@given(answers_of_any_kind)
def test_an_answer_reads_the_same_on_both_sides(message: AIMessage) -> None:
    there: Any = to_langchain(message)
    assert [call["args"] for call in there.tool_calls] == [c["args"] for c in message.tool_calls]
    assert len(there.invalid_tool_calls) == len(message.invalid_tool_calls)
    assert there.usage_metadata == message.usage_metadata
    shown = [b["type"] for b in there.content_blocks if b.get("text") != ""]
    kinds = [b["type"] for b in message.content_blocks]
    if isinstance(there.content, str):
        kinds = [kind for kind in kinds if kind != "invalid_tool_call"]
    assert shown == kinds


@needs_recordings
@pytest.mark.parametrize("recording", params(answers()))
def test_every_recorded_answer_comes_back(recording: Any) -> None:
    try:
        message = answer(recording)
    except AssertionError:
        pytest.skip("the recording has an error")
    assert from_langchain(stored(to_langchain(message))) == message


# ---- LangChain's own -----------------------------------------------------------------------------

CALL = {"name": "f", "args": {"x": 1}, "id": "c1", "type": "tool_call"}
THEIRS = [
    lc.HumanMessage("hi", id="1", name="Ann"),
    lc.HumanMessage([{"type": "text", "text": "hi"}], additional_kwargs={"a": 1}),
    lc.HumanMessage("hi", example=True),
    lc.SystemMessage("be brief", additional_kwargs={"__openai_role__": "developer"}),
    lc.ToolMessage("5", tool_call_id="c1", artifact={"rows": [1]}, status="error", name="f"),
    lc.AIMessage("hi", response_metadata={"model_name": "m"}, additional_kwargs={"refusal": None}),
    lc.AIMessage("", tool_calls=[CALL]),
    lc.AIMessage("hi", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    lc.AIMessage(
        [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "hi"}],
        response_metadata={"output_version": "v1", "model_provider": "anthropic"},
    ),
    lc.ChatMessage("hi", role="developer"),
    lc.ChatMessage("hi", role="user"),
]


@pytest.mark.parametrize("message", THEIRS, ids=lambda each: type(each).__name__)
def test_back_and_there(message: lc.BaseMessage) -> None:
    assert to_langchain(from_langchain(message)) == message


def test_what_only_langchain_knows_is_not_sent() -> None:
    """`extras` are fields of the request; LangChain's additional_kwargs are not."""
    message = lc.HumanMessage("hi", additional_kwargs={"tool_calls": [], "x": 1})
    assert from_langchain(message).extras == {}


def test_a_developer_stays_one() -> None:
    message = lc.SystemMessage("be brief", additional_kwargs={"__openai_role__": "developer"})
    assert from_langchain(message).extras == {"role": "developer"}
    assert to_langchain(SystemMessage("x", extras={"role": "developer"})).additional_kwargs == {
        "__openai_role__": "developer"
    }


NATIVE = [
    (
        "anthropic",
        [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        ],
        ["reasoning", "text", "tool_call"],
    ),
    (
        "openai",
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
            },
            {"type": "text", "text": "I look.", "id": "msg_1"},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'},
        ],
        ["reasoning", "text", "tool_call"],
    ),
]


@pytest.mark.parametrize(("provider", "content", "kinds"), NATIVE, ids=["anthropic", "openai"])
def test_answers_of_langchains_own_models_are_read(
    provider: str, content: list[Any], kinds: list[str]
) -> None:
    """A conversation that began with ChatAnthropic or ChatOpenAI goes on here."""
    message = lc.AIMessage(
        content, tool_calls=[CALL], response_metadata={"model_provider": provider}
    )
    ours: Any = from_langchain(message)
    assert [b["type"] for b in ours.content_blocks] == kinds
    assert ours.text == "I look."
    assert [(call["id"], call["args"]) for call in ours.tool_calls] == [("c1", {"x": 1})]


def test_native_blocks_without_a_provider_are_read_too() -> None:
    message = lc.AIMessage(NATIVE[0][1], tool_calls=[CALL])
    ours = from_langchain(message)
    assert [b["type"] for b in ours.content_blocks] == NATIVE[0][2]
    assert ours.content_blocks[0]["extras"] == {"signature": "s"}


def test_a_text_that_was_edited_is_not_undone() -> None:
    """What was kept beside a text serves only the text that it came with."""
    cut = AIMessage([{"type": "text", "text": "secret", "extras": {"signature": "s"}}, CALL])
    there: Any = to_langchain(cut)
    there.content = ""
    assert from_langchain(there).text == ""
    rich = AIMessageChunk("secret").to_message()
    message = lc.AIMessage(
        "***", additional_kwargs={"streamfold": {"content": rich.content_blocks}}
    )
    assert from_langchain(message).text == "***"


REASONED = [{"type": "reasoning", "reasoning": "hm"}, CALL]
SIGNED = [{**CALL, "extras": {"signature": "s"}}]
LATE = [{"type": "text", "text": "hi"}, CALL, {"type": "text", "text": "!"}]


@pytest.mark.parametrize("content", [[CALL], REASONED, SIGNED, LATE])
def test_calls_that_a_person_edited_stay_edited(content: list[Any]) -> None:
    """Human-in-the-loop: the arguments are changed in LangChain's list before the tool is run."""
    there: Any = to_langchain(AIMessage(content))
    if content is LATE:  # as a stream leaves it
        kept = {"streamfold": {"content": content}}
        there = lc.AIMessage("hi!", tool_calls=[CALL], additional_kwargs=kept)
    there.tool_calls = [{**CALL, "args": {"x": 2}}]
    back: Any = from_langchain(there)
    assert [call["args"] for call in back.tool_calls] == [{"x": 2}]
    assert [b["type"] for b in back.content_blocks] == [b["type"] for b in content]
    if content is SIGNED:
        assert back.tool_calls[0]["extras"] == {"signature": "s"}


def test_what_is_no_message_is_an_error() -> None:
    for message in (lc.RemoveMessage(id="1"), lc.FunctionMessage("5", name="f")):
        with pytest.raises(ConfigurationError, match=type(message).__name__):
            from_langchain(message)
