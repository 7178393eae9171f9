"""What `useChat` sends, read as messages: the conversation, and what cannot be read by name."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import json_values
from streamfold.errors import ConfigurationError
from streamfold.integrations.web import messages_from_ui
from streamfold.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage


def _tool(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {"type": f"tool-{name}", "toolCallId": name, "state": state, "input": {}, **more}


def test_a_conversation() -> None:
    """Steps are messages of their own, each followed by the results of its calls."""
    ours = {"streamfold": {"provider": "anthropic", "extras": {"signature": "s"}}}
    messages = [
        {"role": "system", "parts": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "text": "Look:"},
                {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,QUJD"},
                {
                    "type": "file",
                    "mediaType": "application/pdf",
                    "url": "https://a.test/a.pdf",
                    "filename": "a.pdf",
                },
                {"type": "data-mood", "data": 1},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {"type": "step-start"},
                {"type": "reasoning", "text": "Hm.", "providerMetadata": ours},
                {"type": "text", "text": "I look."},
                _tool("look", "output-available", output={"sky": "blue"}, input={"at": "sky"}),
                _tool("ask", "output-error", errorText="no"),
                _tool("buy", "output-denied"),
                _tool("wait", "input-available"),
                _tool("half", "input-streaming"),
                _tool("search", "output-available", output=1, providerExecuted=True),
                {"type": "source-url", "sourceId": "1", "url": "https://a.test"},
                {"type": "step-start"},
                {
                    **_tool("again", "output-available", output="text"),
                    "type": "dynamic-tool",
                    "toolName": "again",
                    "callProviderMetadata": ours,
                },
                {"type": "step-start"},
                {"type": "text", "text": "It is blue."},
            ],
        },
    ]
    call = {"type": "tool_call", "args": {}}
    metadata = {"model_provider": "anthropic"}
    assert messages_from_ui(messages) == [
        SystemMessage("Be brief."),
        HumanMessage(
            [
                {"type": "text", "text": "Look:"},
                {"type": "image", "mime_type": "image/png", "base64": "QUJD"},
                {
                    "type": "file",
                    "mime_type": "application/pdf",
                    "url": "https://a.test/a.pdf",
                    "extras": {"filename": "a.pdf"},
                },
            ]
        ),
        AIMessage(
            [
                {"type": "reasoning", "reasoning": "Hm.", "extras": {"signature": "s"}},
                {"type": "text", "text": "I look."},
                {**call, "name": "look", "id": "look", "args": {"at": "sky"}},
                {**call, "name": "ask", "id": "ask"},
                {**call, "name": "buy", "id": "buy"},
            ],
            response_metadata=metadata,
        ),
        ToolMessage('{"sky":"blue"}', tool_call_id="look"),
        ToolMessage("no", tool_call_id="ask", status="error"),
        ToolMessage("The user did not allow it.", tool_call_id="buy", status="error"),
        AIMessage(
            [{**call, "name": "again", "id": "again", "extras": {"signature": "s"}}],
            response_metadata=metadata,
        ),
        ToolMessage("text", tool_call_id="again"),
        AIMessage("It is blue."),
    ]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ("Hi", "expected a list of UI messages"),
        (["Hi"], r"messages\[0\] is 'Hi'"),
        ([{"role": "robot", "parts": []}], "expected an object with a role"),
        ([{"role": [], "parts": []}], "expected an object with a role"),
        ([{"role": "user", "content": "Hi"}], r"messages\[0\].parts is None"),
        ([{"role": "user", "parts": ["Hi"]}], r"messages\[0\].parts\[0\] is 'Hi'"),
        ([{"role": "user", "parts": [{"type": "text"}]}], "and text as a string"),
        ([{"role": "assistant", "parts": [{"type": "tool-x"}]}], "and toolCallId as a string"),
    ],
)
def test_what_cannot_be_read_is_named(messages: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        messages_from_ui(messages)


_types = st.sampled_from(["text", "reasoning", "file", "tool-x", "dynamic-tool", "step-start"])
_keys = st.sampled_from(
    "text url mediaType filename toolCallId toolName state input output errorText "
    "providerMetadata callProviderMetadata providerExecuted".split()
)
_values = json_values | st.sampled_from(["output-available", "output-error", "data:a;base64,AA"])
_parts = st.builds(
    lambda kind, fields: {**fields, "type": kind}, _types, st.dictionaries(_keys, _values)
)
_messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "parts": st.lists(_parts, max_size=4),
    }
)


@given(st.lists(_messages, max_size=3) | json_values)
def test_no_message_breaks_the_reader(messages: Any) -> None:
    """It comes from a client: it is read, or refused by our own error."""
    with suppress(ConfigurationError):
        messages_from_ui(messages)
