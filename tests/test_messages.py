"""Messages are values: they compare, print, pickle, and go through JSON and back."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies as own
from streamfold.chunks import AIMessageChunk
from streamfold.content import data_or_url
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
from streamfold.parts import standard_block

_ids = st.none() | st.text(min_size=1, max_size=4)
_plain = st.text(max_size=6)
_extras = st.fixed_dictionaries({}, optional={"extras": own.json_objects})


def _block(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.fixed_dictionaries({"type": st.just(kind), **fields}), _extras).map(
        lambda parts: {**parts[0], **parts[1]}
    )


_tool_calls = st.builds(
    lambda name, args, id: {"type": "tool_call", "name": name, "args": args, "id": id},
    st.text(min_size=1, max_size=4),
    own.json_objects,
    _ids,
)
_invalid_calls = st.builds(
    lambda args, id: {
        "type": "invalid_tool_call",
        "name": "f",
        "args": args,
        "id": id,
        "error": "e",
    },
    _plain,
    _ids,
)
blocks = st.one_of(
    _block("text", text=_plain),
    _block("reasoning", reasoning=_plain),
    _block("image", url=_plain),
    _block("server_tool_call", id=_plain, name=_plain, args=own.json_objects),
    _block("server_tool_result", tool_call_id=_plain, output=own.json_values),
    _block("non_standard", value=own.json_objects),
    _tool_calls,
    _invalid_calls,
)
_content = _plain | st.lists(blocks, max_size=4)
_common: dict[str, st.SearchStrategy[Any]] = {
    "content": _content,
    "id": _ids,
    "name": _ids,
    "response_metadata": own.json_objects,
    "extras": own.json_objects,
}

messages: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, **_common),
    st.builds(SystemMessage, **_common),
    st.builds(
        ToolMessage,
        **_common,
        tool_call_id=st.text(min_size=1, max_size=4),
        status=st.sampled_from(["success", "error"]),
        artifact=own.json_values,
    ),
    st.builds(
        AIMessage,
        **_common,
        tool_calls=st.lists(_tool_calls, max_size=2),
        invalid_tool_calls=st.lists(_invalid_calls, max_size=2),
        usage_metadata=st.none() | own.usages,
        finish_reason=st.none() | st.sampled_from(["stop", "length"]),
    ),
)


class TestValues:
    @given(st.lists(messages, max_size=4))
    def test_plain_json_and_back(self, sent: list[BaseMessage]) -> None:
        """Through the text of a JSON file: equal messages of the same types."""
        stored = json.loads(json.dumps(messages_to_dict(sent)))
        back = messages_from_dict(stored)
        assert back == sent
        assert [type(message) for message in back] == [type(message) for message in sent]
        assert messages_to_dict(back) == stored

    @given(messages)
    def test_pickle_and_copy(self, message: BaseMessage) -> None:
        for twin in (
            pickle.loads(pickle.dumps(message)),
            copy.copy(message),
            copy.deepcopy(message),
        ):
            assert twin == message
            assert type(twin) is type(message)
            assert repr(twin) == repr(message)

    @given(messages, messages)
    def test_equal_messages_say_the_same(self, one: BaseMessage, other: BaseMessage) -> None:
        if one == other:
            assert one.content_blocks == other.content_blocks
            assert type(one) is type(other)
        else:
            assert one != other

    @given(messages)
    def test_text_is_the_text_blocks_joined(self, message: BaseMessage) -> None:
        texts = [b["text"] for b in message.content_blocks if b["type"] == "text"]
        assert message.text == "".join(texts)

    def test_text_and_one_text_block_are_equal(self) -> None:
        assert HumanMessage("hi") == HumanMessage([{"type": "text", "text": "hi"}])
        assert HumanMessage("hi") == HumanMessage(["hi"])
        assert HumanMessage("hi") != HumanMessage("ho")

    def test_roles_are_never_equal(self) -> None:
        assert HumanMessage("hi") != SystemMessage("hi")
        assert AIMessage("hi") != HumanMessage("hi")
        assert HumanMessage("hi") != "hi"

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"id": "1"}, {"id": "2"}),
            ({"name": "a"}, {}),
            ({"response_metadata": {"a": 1}}, {}),
            ({"extras": {"a": 1}}, {"extras": {"a": 2}}),
            ({"finish_reason": "stop"}, {"finish_reason": "length"}),
            ({"usage_metadata": {"input_tokens": 1}}, {}),
            ({"tool_calls": [{"name": "f", "args": {}, "id": "1"}]}, {}),
        ],
    )
    def test_every_field_counts(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert AIMessage("hi", **one) == AIMessage("hi", **copy.deepcopy(one))
        assert AIMessage("hi", **one) != AIMessage("hi", **other)

    def test_they_are_frozen_and_not_hashable(self) -> None:
        with pytest.raises(AttributeError):
            HumanMessage("hi").id = "1"  # type: ignore[misc]
        with pytest.raises(TypeError):
            hash(HumanMessage("hi"))

    def test_repr_shows_what_is_there(self) -> None:
        assert repr(HumanMessage("hi")) == "HumanMessage('hi')"
        assert repr(AIMessage("hi", id="1", finish_reason="stop")) == (
            "AIMessage('hi', id='1', finish_reason='stop')"
        )

    def test_types_and_roles(self) -> None:
        """`type` is what LangChain calls it, `role` what the vendors do."""
        made = [
            SystemMessage(""),
            HumanMessage(""),
            AIMessage(""),
            ToolMessage("", tool_call_id="1"),
        ]
        assert [m.type for m in made] == ["system", "human", "ai", "tool"]
        assert [m.role for m in made] == ["system", "user", "assistant", "tool"]

    def test_defaults_are_not_shared(self) -> None:
        HumanMessage("a").response_metadata["x"] = 1
        assert HumanMessage("b").response_metadata == {}


class TestContent:
    @pytest.mark.parametrize(
        "content", [None, 5, 1.5, b"bytes", {"type": "text"}, [5], [None], [["a"]]]
    )
    @pytest.mark.parametrize("kind", [HumanMessage, SystemMessage])
    def test_content_of_another_type_is_refused(self, kind: Any, content: Any) -> None:
        """The error names the class and what was expected."""
        with pytest.raises(ConfigurationError, match=rf"{kind.__name__}.content .*expected"):
            kind(content)

    def test_none_is_an_empty_answer(self) -> None:
        """OpenAI's own shape for an answer that is only tool calls."""
        assert AIMessage(None) == AIMessage("")  # type: ignore[arg-type]

    def test_the_callers_list_is_not_the_messages(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "image", "url": "u"}]
        message = HumanMessage(parts)
        parts[0]["text"] = "b"
        parts.append({"type": "text", "text": "c"})
        assert message.text == "a"

    def test_text_only_content_becomes_a_string(self) -> None:
        assert AIMessage([{"type": "text", "text": "a"}, "b"]).content == "ab"
        noted = [{"type": "text", "text": "a", "annotations": [{"type": "citation"}]}]
        assert AIMessage(noted).content == noted

    def test_empty_content_has_no_blocks(self) -> None:
        assert HumanMessage("").content_blocks == []
        assert AIMessage([]).content == ""

    @pytest.mark.parametrize(
        ("part", "block"),
        [
            ({"type": "image_url", "image_url": "u"}, {"type": "image", "url": "u"}),
            (
                {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
                {"type": "image", "url": "u", "extras": {"detail": "low"}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                {"type": "image", "base64": "QUJD", "mime_type": "image/png"},
            ),
            (
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}},
                {"type": "audio", "base64": "QUJD", "mime_type": "audio/mp3"},
            ),
            ({"type": "file", "file": {"file_id": "f"}}, {"type": "file", "file_id": "f"}),
            (
                {"type": "file", "file": {"file_data": "data:a/b;base64,QQ==", "filename": "x"}},
                {"type": "file", "base64": "QQ==", "mime_type": "a/b", "extras": {"filename": "x"}},
            ),
            ({"type": "file", "file_id": "f"}, {"type": "file", "file_id": "f"}),
            ({"type": "odd", "a": 1}, {"type": "non_standard", "value": {"type": "odd", "a": 1}}),
            ({"no": "type"}, {"type": "non_standard", "value": {"no": "type"}}),
            ({"type": ["x"]}, {"type": "non_standard", "value": {"type": ["x"]}}),
        ],
    )
    def test_parts_become_standard_blocks(
        self, part: dict[str, Any], block: dict[str, Any]
    ) -> None:
        before = copy.deepcopy(part)
        assert standard_block(part) == block
        assert part == before
        assert HumanMessage([part]).content_blocks == [block]

    def test_a_url_that_is_not_base64_data_stays_one(self) -> None:
        assert data_or_url("data:text/plain,hi") == {"url": "data:text/plain,hi"}
        assert data_or_url("data:;base64,QQ==") == {
            "base64": "QQ==",
            "mime_type": "application/octet-stream",
        }


CALL = {"type": "tool_call", "name": "f", "args": {"x": 1}, "id": "1"}
BAD = {"type": "invalid_tool_call", "name": "f", "args": "{", "id": "2", "error": "cut off"}


class TestToolCalls:
    def test_calls_are_in_the_content_and_in_the_field(self) -> None:
        """Wherever they were given, and each once."""
        for message in (
            AIMessage("hi", tool_calls=[CALL], invalid_tool_calls=[BAD]),
            AIMessage([{"type": "text", "text": "hi"}, CALL, BAD]),
            AIMessage(
                [{"type": "text", "text": "hi"}, CALL], tool_calls=[CALL], invalid_tool_calls=[BAD]
            ),
        ):
            assert message.tool_calls == [CALL]
            assert message.invalid_tool_calls == [BAD]
            assert message.content == [{"type": "text", "text": "hi"}, CALL, BAD]

    def test_stored_calls_are_there_once(self) -> None:
        """They are in the content; the fields are made of it again."""
        stored = AIMessage("hi", tool_calls=[CALL], invalid_tool_calls=[BAD]).to_dict()
        assert stored.keys() == {"type", "content"}

    def test_equal_calls_without_an_id_are_two_calls(self) -> None:
        call = {"name": "f", "args": {}, "id": None}
        assert len(AIMessage("", tool_calls=[call, call]).tool_calls) == 2

    def test_extras_of_a_call_are_kept(self) -> None:
        call = {**CALL, "extras": {"signature": "s"}}
        message = AIMessage("", tool_calls=[call])
        assert message.tool_calls == [call]
        assert messages_from_dict(messages_to_dict([message])) == [message]
        assert AIMessageChunk(message.content).to_message().tool_calls == [call]

    @pytest.mark.parametrize(
        "call",
        [
            {"name": "f", "args": "{}", "id": "1"},
            {"name": "f", "args": [1]},
            {"args": {}},
            {"name": None, "args": {}},
            {},
            "f",
            None,
        ],
    )
    def test_a_call_that_is_none_is_refused(self, call: Any) -> None:
        with pytest.raises(ConfigurationError, match="tool call"):
            AIMessage("", tool_calls=[call])
        if isinstance(call, dict):
            with pytest.raises(ConfigurationError, match="tool call"):
                AIMessage([{**call, "type": "tool_call"}])

    def test_a_tool_message_names_its_call(self) -> None:
        with pytest.raises(ConfigurationError, match="tool_call_id is empty"):
            ToolMessage("done", tool_call_id="")


class TestFromDict:
    @pytest.mark.parametrize(
        "data",
        [
            {"type": "nonsense", "content": "x"},
            {"content": "x"},
            {"type": None},
            {"type": ["ai"]},
            {"type": "human", "content": 5},
            {"type": "human", "content": "x", "id": 5},
            {"type": "tool", "content": "x"},
            {"type": "tool", "content": "x", "tool_call_id": "1", "status": "odd"},
            {"type": "ai", "content": [{"type": "tool_call"}]},
            {"type": "ai", "data": "x"},
            {"type": "ai", "usage_metadata": []},
            "text",
            None,
            5,
        ],
    )
    def test_what_is_no_stored_message_is_refused(self, data: Any) -> None:
        """With an error of ours, whatever it is."""
        with pytest.raises(ConfigurationError):
            messages_from_dict([data])

    def test_langchains_form_is_read_too(self) -> None:
        """LangChain nests the fields under `data`."""
        stored = {"type": "human", "data": {"content": "hi", "type": "human", "id": "1"}}
        assert messages_from_dict([stored]) == [HumanMessage("hi", id="1")]

    @given(own.json_values)
    def test_anything_at_all_gives_messages_or_an_error_of_ours(self, data: Any) -> None:
        kinds = ("human", "ai", "tool", "system", "AIMessageChunk")
        tagged = [{**data, "type": kind} for kind in kinds] if isinstance(data, dict) else []
        for item in [data, *tagged, *({"type": kind, "data": data} for kind in kinds)]:
            try:
                (message,) = messages_from_dict([item])
            except ConfigurationError:
                continue
            assert isinstance(message, BaseMessage)
