"""Anthropic Messages requests: what is sent for what was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire.anthropic_request import DEFAULT_MAX_TOKENS, encode
from streamfold.wire.request import ChatRequest

HI = HumanMessage("hi")
CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
SENT_CALL = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}
BAD_CALL = {"type": "invalid_tool_call", "name": "f.g", "args": '{"a', "id": "c2", "error": "cut"}
CACHE = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
SENT_ADD = {"name": "add", "description": "d", "input_schema": SCHEMA}
PNG = {"type": "base64", "media_type": "image/png", "data": "AA"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "AA"}


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def body(*messages: BaseMessage, **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model="m", messages=list(messages) or [HI], **fields))
    assert request.path == "/v1/messages"
    found: dict[str, Any] = json.loads(request.body)
    return found


def sent(*messages: BaseMessage, **fields: Any) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in body(*messages, **fields)["messages"]]


def rows(table: list[Any]) -> list[Any]:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# ---- the conversation ----------------------------------------------------------------------------

RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "1"}
RESULT_2 = {"type": "tool_result", "tool_use_id": "c2", "content": "2", "is_error": True}
CALLS = AIMessage("", tool_calls=[CALL, {**CALL, "id": "c2"}])
ONE = ToolMessage("1", tool_call_id="c1", name="add")
TWO = ToolMessage("2", tool_call_id="c2", status="error")

CONVERSATIONS = [
    ("one", [HI], [("user", "hi")]),
    ("stay apart", [HI, HI, AIMessage("a"), AIMessage("b")],
     [("user", "hi"), ("user", "hi"), ("assistant", "a"), ("assistant", "b")]),
    ("results together", [HI, CALLS, ONE, TWO],
     [("user", "hi"), ("assistant", [SENT_CALL, {**SENT_CALL, "id": "c2"}]),
      ("user", [RESULT, RESULT_2])]),
    ("results and what follows", [CALLS, ONE, TWO, HI, AIMessage("a"), HI],
     [("assistant", [SENT_CALL, {**SENT_CALL, "id": "c2"}]),
      ("user", [RESULT, RESULT_2, text("hi")]), ("assistant", "a"), ("user", "hi")]),
    ("results first", [CALLS, HI, ONE, SystemMessage("s"), HI, TWO],
     [("assistant", [SENT_CALL, {**SENT_CALL, "id": "c2"}]),
      ("user", [RESULT, RESULT_2, text("hi"), text("hi")])]),
    ("native results", [HumanMessage([text("x"), RESULT]), HI],
     [("user", [RESULT, text("x"), text("hi")])]),
    ("empty answers", [HI, AIMessage(""), AIMessage("\n"), HI], [("user", "hi"), ("user", "hi")]),
    ("blank texts", [AIMessage([text("\n\n"), CALL]), ONE],
     [("assistant", [SENT_CALL]), ("user", [RESULT])]),
    ("blanks between", [AIMessage([text("a"), text(" "), text(""), CALL]), ONE],
     [("assistant", [text("a"), text(" "), SENT_CALL]), ("user", [RESULT])]),
    ("empty user message", [HumanMessage("")], [("user", "")]),
    ("result with parts", [ToolMessage([text(""), text("t"), {"type": "image", "url": "u"}],
                                       tool_call_id="c1")],
     [("user", [{**RESULT, "content": [
         text("t"), {"type": "image", "source": {"type": "url", "url": "u"}}]}])]),
    ("marked result", [ToolMessage("1", tool_call_id="c1", extras={"cache_control": CACHE})],
     [("user", [{**RESULT, "cache_control": CACHE}])]),
    ("marked message", [HumanMessage([text("a"), text("b")], extras={"cache_control": CACHE})],
     [("user", [text("a"), text("b", cache_control=CACHE)])]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), rows(CONVERSATIONS))
def test_conversation(messages: list[BaseMessage], expected: list[Any]) -> None:
    assert sent(*messages) == expected


SYSTEMS = [
    ("one", [SystemMessage("s"), HI], "s"),
    ("in order", [SystemMessage("a"), HI, SystemMessage("b"), HI], [text("a"), text("b")]),
    ("developer", [SystemMessage("d", extras={"role": "developer"}), HI], "d"),
    ("marked", [SystemMessage([text("a", extras={"cache_control": CACHE}), text("b")]), HI],
     [text("a", cache_control=CACHE), text("b")]),
    ("marked as a whole", [SystemMessage("a", extras={"cache_control": CACHE}), HI],
     [text("a", cache_control=CACHE)]),
    ("empty", [SystemMessage(""), HI], None),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), rows(SYSTEMS))
def test_system(messages: list[BaseMessage], expected: Any) -> None:
    found = body(*messages)
    assert found.get("system") == expected
    assert {message["role"] for message in found["messages"]} == {"user"}


def test_fields_of_messages_have_no_place() -> None:
    messages = [HumanMessage("hi", name="Bo"), AIMessage("a", extras={"refusal": "no"})]
    with pytest.warns(UserWarning, match="name of a message, refusal of a message"):
        assert sent(*messages) == [("user", "hi"), ("assistant", "a")]


def test_ids_of_other_vendors_are_rewritten_alike() -> None:
    call = {**CALL, "id": "functions.add:0"}
    (_, content), (_, results) = sent(
        AIMessage("", tool_calls=[call]), ToolMessage("1", tool_call_id="functions.add:0")
    )
    assert content[0]["id"] == results[0]["tool_use_id"] == "functions_add_0"


# ---- blocks of an answer -------------------------------------------------------------------------

CITATION = {"type": "char_location", "cited_text": "c", "document_index": 0}
ANSWERS = [
    ("thinking", {"type": "reasoning", "reasoning": "r", "extras": {"signature": "s"}},
     {"type": "thinking", "thinking": "r", "signature": "s"}),
    ("omitted thinking", {"type": "reasoning", "reasoning": "", "extras": {"signature": "s"}},
     {"type": "thinking", "thinking": "", "signature": "s"}),
    ("redacted", {"type": "reasoning", "reasoning": "", "extras": {"redacted_data": "x"}},
     {"type": "redacted_thinking", "data": "x"}),
    ("unsigned", {"type": "reasoning", "reasoning": "r"}, None),
    ("citations", {"type": "text", "text": "t", "annotations": [
        {"type": "citation", "cited_text": "c", "extras": {"native": CITATION}},
        {"type": "citation", "url": "https://x/y"}]},
     text("t", citations=[CITATION])),
    ("foreign citations", {"type": "text", "text": "t", "annotations": [{"type": "citation"}]},
     text("t")),
    ("marked call", {**CALL, "extras": {"cache_control": CACHE, "caller": {"type": "direct"}}},
     {**SENT_CALL, "cache_control": CACHE, "caller": {"type": "direct"}}),
    ("call from OpenAI", {**CALL, "extras": {"index": 0, "extra_content": {}}}, SENT_CALL),
    ("unreadable call", BAD_CALL, {"type": "tool_use", "id": "c2", "name": "f_g", "input": {}}),
    ("server tool", {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {"q": 1},
                     "extras": {"block_type": "server_tool_use", "caller": {"type": "direct"}}},
     {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1},
      "caller": {"type": "direct"}}),
    ("mcp tool", {"type": "server_tool_call", "id": "s", "name": "ask", "args": {},
                  "extras": {"block_type": "mcp_tool_use", "server_name": "n"}},
     {"type": "mcp_tool_use", "id": "s", "name": "ask", "input": {}, "server_name": "n"}),
    ("server result", {"type": "server_tool_result", "tool_call_id": "s", "status": "success",
                       "output": [{"type": "web_search_result", "page_age": None}],
                       "extras": {"block_type": "web_search_tool_result"}},
     {"type": "web_search_tool_result", "tool_use_id": "s",
      "content": [{"type": "web_search_result", "page_age": None}]}),
    ("mcp result", {"type": "server_tool_result", "tool_call_id": "s", "status": "error",
                    "output": "no", "extras": {"block_type": "mcp_tool_result", "is_error": True}},
     {"type": "mcp_tool_result", "tool_use_id": "s", "content": "no", "is_error": True}),
    ("unknown block", {"type": "non_standard", "value": {"type": "compaction", "content": "c"}},
     {"type": "compaction", "content": "c"}),
    ("native", {"type": "tool_use", "id": "c1", "name": "add", "input": {}},
     {"type": "tool_use", "id": "c1", "name": "add", "input": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(ANSWERS))
def test_block_of_an_answer(block: dict[str, Any], expected: dict[str, Any] | None) -> None:
    message = AIMessage([text("so"), block])
    results = [ToolMessage("r", tool_call_id="c2")] if block is BAD_CALL else []
    content = sent(message, *results)[0][1]
    assert content == ("so" if expected is None else [text("so"), expected])


def test_what_has_no_place_is_left_out_with_one_warning() -> None:
    message = AIMessage(
        [
            text("a"),
            BAD_CALL,
            {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {}},
            {"type": "server_tool_call_chunk", "id": "s", "name": "web_search", "args": "{"},
            {"type": "server_tool_result", "tool_call_id": "s", "status": "success"},
            {"type": "image", "base64": "AA", "mime_type": "image/png"},
            {"type": "audio", "base64": "AA"},
        ]
    )
    with pytest.warns(UserWarning, match="left out, for Anthropic") as caught:
        assert sent(message, HI, seed=1)[0] == ("assistant", "a")
    (warning,) = caught
    for what in ("seed", "web_search", "server tool result", "image", "audio", "without a result"):
        assert what in str(warning.message)


def test_what_only_another_provider_understands_stays_behind() -> None:
    blocks = [
        {"type": "reasoning", "reasoning": "r", "extras": {"signature": "s"}},
        text("a", extras={"x": 1}),
        {"type": "non_standard", "value": {"type": "odd"}},
    ]
    gemini = AIMessage(blocks[:2], response_metadata={"model_provider": "google_genai"})
    with pytest.warns(UserWarning, match="reasoning of another provider"):
        assert sent(gemini, provider="anthropic") == [("assistant", "a")]
    odd = AIMessage(blocks, response_metadata={"model_provider": "google_genai"})
    with pytest.warns(UserWarning, match="odd block of another provider"):
        sent(odd, provider="anthropic")


def test_claude_signs_for_every_cloud() -> None:
    block = {"type": "reasoning", "reasoning": "r", "extras": {"signature": "s"}}
    metadata = {"model_provider": "bedrock", "model_name": "us.anthropic.claude-sonnet-4"}
    message = AIMessage([block], response_metadata=metadata)
    assert sent(message, provider="anthropic")[0][1][0]["type"] == "thinking"


# ---- parts of a user message ---------------------------------------------------------------------

PARTS = [
    ("image url", {"type": "image", "url": "https://x/y", "extras": {"cache_control": CACHE}},
     {"type": "image", "source": {"type": "url", "url": "https://x/y"}, "cache_control": CACHE}),
    ("image base64", {"type": "image", "base64": "AA", "mime_type": "image/png"},
     {"type": "image", "source": PNG}),
    ("image data url", {"type": "image", "url": "data:image/png;base64,AA"},
     {"type": "image", "source": PNG}),
    ("image id", {"type": "image", "file_id": "f"},
     {"type": "image", "source": {"type": "file", "file_id": "f"}}),
    ("OpenAI's image", {"type": "image_url", "image_url": {
        "url": "data:image/png;base64,AA", "detail": "low"}, "cache_control": CACHE},
     {"type": "image", "source": PNG, "cache_control": CACHE}),
    ("OpenAI's file", {"type": "file", "file": {
        "file_data": "data:application/pdf;base64,AA", "filename": "a.pdf"}},
     {"type": "document", "source": PDF, "title": "a.pdf"}),
    ("pdf", {"type": "file", "base64": "AA", "extras": {
        "title": "T", "context": "C", "citations": {"enabled": True}}},
     {"type": "document", "source": PDF, "title": "T", "context": "C",
      "citations": {"enabled": True}}),
    ("pdf url", {"type": "file", "url": "https://x/y"},
     {"type": "document", "source": {"type": "url", "url": "https://x/y"}}),
    ("file id", {"type": "file", "file_id": "f"},
     {"type": "document", "source": {"type": "file", "file_id": "f"}}),
    ("text file", {"type": "file", "base64": "w6k=", "mime_type": "text/csv"},
     {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}}),
    ("plain text", {"type": "text-plain", "text": "t", "title": "T", "mime_type": "text/plain"},
     {"type": "document", "title": "T",
      "source": {"type": "text", "media_type": "text/plain", "data": "t"}}),
    ("plain text id", {"type": "text-plain", "file_id": "f"},
     {"type": "document", "source": {"type": "file", "file_id": "f"}}),
    ("marked text", text("a", extras={"cache_control": CACHE}), text("a", cache_control=CACHE)),
    ("native mark", text("a", cache_control=CACHE), text("a", cache_control=CACHE)),
    ("native image", {"type": "image", "source": PNG}, {"type": "image", "source": PNG}),
    ("native document", {"type": "document", "source": PDF}, {"type": "document", "source": PDF}),
    ("search result", {"type": "search_result", "source": "s", "title": "t", "content": []},
     {"type": "search_result", "source": "s", "title": "t", "content": []}),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(PARTS))
def test_part(block: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(HumanMessage([text("see"), block])) == [("user", [text("see"), expected])]


BAD_PARTS = [
    ("unknown type", {"type": "documnt"}, ["'documnt'", "'document'", "non_standard"]),
    ("no type", {"source": {}}, ["no type"]),
    ("audio", {"type": "audio", "base64": "AA"}, ["audio block", "text, images and documents"]),
    ("OpenAI's audio", {"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}},
     ["audio block"]),
    ("video", {"type": "video", "url": "u"}, ["video block"]),
    ("image without type", {"type": "image", "base64": "AA"}, ["mime_type None"]),
    ("image without data", {"type": "image"}, ["url or base64 or file_id"]),
    ("text url", {"type": "text-plain", "url": "https://x/y"}, ["text or base64 or file_id"]),
    ("half a surrogate", text("\ud83d"), ["messages[0].content", "half a surrogate pair"]),
]  # fmt: skip


@pytest.mark.parametrize(("block", "texts"), rows(BAD_PARTS))
def test_bad_part(block: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        sent(HumanMessage([block]))
    for words in texts:
        assert words in str(caught.value)


BAD_MESSAGES = [
    ("call without id", AIMessage("", tool_calls=[{**CALL, "id": None}]), "the id None"),
    ("image for the system", SystemMessage([{"type": "image", "url": "u"}]), "image block"),
]


@pytest.mark.parametrize(("message", "words"), rows(BAD_MESSAGES))
def test_bad_message(message: BaseMessage, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        sent(message)


# ---- parameters ----------------------------------------------------------------------------------

JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
PARAMETERS = [
    ("none", {}, {}),
    ("all", {"temperature": 0, "top_p": 0.5, "stop": ["x"], "stream": True},
     {"temperature": 0, "top_p": 0.5, "stop_sequences": ["x"], "stream": True}),
    ("max_tokens", {"max_tokens": 5}, {"max_tokens": 5}),
    ("thinking", {"extra": {"thinking": {"type": "enabled", "budget_tokens": 9000}}},
     {"thinking": {"type": "enabled", "budget_tokens": 9000},
      "max_tokens": 9000 + DEFAULT_MAX_TOKENS}),
    ("effort", {"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
    ("format", {"response_format": JSON_SCHEMA},
     {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ("native format", {"response_format": {"type": "json_schema", "schema": SCHEMA}},
     {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ("text format", {"response_format": {"type": "text"}}, {}),
    ("configs merge", {"reasoning_effort": "low", "response_format": JSON_SCHEMA,
                       "extra": {"output_config": {"effort": "max"}}},
     {"output_config": {"effort": "max", "format": {"type": "json_schema", "schema": SCHEMA}}}),
    ("extra wins", {"temperature": 0, "extra": {"temperature": 1, "metadata": {"user_id": "u"}}},
     {"temperature": 1, "metadata": {"user_id": "u"}}),
    ("nothing to choose from", {"tools": [], "tool_choice": "none", "parallel_tool_calls": False},
     {}),
]  # fmt: skip


ADAPTIVE = {"type": "adaptive", "display": "summarized"}


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("claude-opus-4-7", "low", {"output_config": {"effort": "low"}, "thinking": ADAPTIVE}),
        ("claude-sonnet-4-6@default", "max",
         {"output_config": {"effort": "max"}, "thinking": ADAPTIVE}),
        ("claude-haiku-4-5", "low",
         {"thinking": {"type": "enabled", "budget_tokens": 2048},
          "max_tokens": DEFAULT_MAX_TOKENS + 2048}),
        ("claude-3-7-sonnet-latest", "high",
         {"thinking": {"type": "enabled", "budget_tokens": 16384},
          "max_tokens": DEFAULT_MAX_TOKENS + 16384}),
        ("claude-opus-4-7", "none", {"thinking": {"type": "disabled"}}),
        ("claude-haiku-4-5", "none", {"thinking": {"type": "disabled"}}),
        ("some-proxy", "none", {"thinking": {"type": "disabled"}}),
    ],
)  # fmt: skip
def test_effort_is_what_the_model_has(model: str, effort: str, expected: dict[str, Any]) -> None:
    """An effort where there is one, a budget before; and it can be switched off."""
    request = ChatRequest(model=model, messages=[HI], reasoning_effort=effort)
    sent = json.loads(encode(request).body)
    del sent["model"], sent["messages"]
    assert sent == {"max_tokens": DEFAULT_MAX_TOKENS, **expected}


def test_effort_within_the_limit_and_beside_the_callers_own_words() -> None:
    def sent(**fields: Any) -> dict[str, Any]:
        request = ChatRequest(messages=[HI], reasoning_effort="high", **fields)
        found: dict[str, Any] = json.loads(encode(request).body)
        return found

    limited = sent(model="claude-haiku-4-5", max_tokens=5000)
    assert (limited["max_tokens"], limited["thinking"]["budget_tokens"]) == (5000, 4999)
    own = {"type": "enabled", "budget_tokens": 3000}
    assert sent(model="claude-haiku-4-5", extra={"thinking": own})["thinking"] == own
    forced = sent(model="claude-opus-4-7", tools=[ADD], tool_choice="any")
    assert forced["output_config"] == {"effort": "high"}
    assert "thinking" not in forced  # the API takes no forced call with it


def test_an_effort_that_the_model_has_not() -> None:
    request = ChatRequest(model="claude-haiku-4-5", messages=[HI], reasoning_effort="extreme")
    with pytest.raises(ConfigurationError, match="reasoning_effort is 'extreme': claude-haiku-4-5"):
        encode(request)


@pytest.mark.parametrize(("fields", "expected"), rows(PARAMETERS))
def test_parameters(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    found = body(**fields)
    assert (found.pop("model"), found.pop("messages")) == (
        "m",
        [{"role": "user", "content": "hi"}],
    )
    assert found == {"max_tokens": DEFAULT_MAX_TOKENS, **expected}


def test_headers() -> None:
    request = ChatRequest(model="m", messages=[HI], extra={"betas": ["a-1", "b-2"]})
    found = encode(request)
    assert found.headers == {"anthropic-version": "2023-06-01", "anthropic-beta": "a-1,b-2"}
    assert "betas" not in json.loads(found.body)


TOOLS = [
    ("OpenAI", ADD, SENT_ADD),
    ("strict and marked", {**ADD, "function": {**ADD["function"], "strict": True},
                           "cache_control": CACHE},
     {**SENT_ADD, "strict": True, "cache_control": CACHE}),
    ("flat", {"type": "function", "strict": None, **ADD["function"]}, SENT_ADD),
    ("JSON schema", {"title": "add", "description": "d", **SCHEMA}, SENT_ADD),
    ("no parameters", {"name": "f"},
     {"name": "f", "input_schema": {"type": "object", "properties": {}}}),
    ("native", {**SENT_ADD, "type": "custom", "input_examples": [{}]},
     {**SENT_ADD, "input_examples": [{}]}),
    ("server tool", {"type": "web_search_20260209", "name": "web_search", "max_uses": 1},
     {"type": "web_search_20260209", "name": "web_search", "max_uses": 1}),
    ("plain server tool", {"type": "web_search", "max_uses": 1},
     {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "expected"), rows(TOOLS))
def test_tool(tool: dict[str, Any], expected: dict[str, Any]) -> None:
    assert body(tools=[tool])["tools"] == [expected]


SINGLE = {"disable_parallel_tool_use": True}
CHOICES = [
    ("nothing", None, None, None),
    ("auto", "auto", None, {"type": "auto"}),
    ("none", "none", False, {"type": "none"}),
    ("any", "any", None, {"type": "any"}),
    ("required", "required", True, {"type": "any"}),
    ("True", True, None, {"type": "any"}),
    ("name", "add", None, {"type": "tool", "name": "add"}),
    ("server tool", "web_search", None, {"type": "tool", "name": "web_search"}),
    ("OpenAI", {"type": "function", "function": {"name": "add"}}, None,
     {"type": "tool", "name": "add"}),
    ("Anthropic", {"type": "tool", "name": "add", **SINGLE}, None,
     {"type": "tool", "name": "add", **SINGLE}),
    ("single", None, False, {"type": "auto", **SINGLE}),
    ("single any", "any", False, {"type": "any", **SINGLE}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "parallel", "expected"), rows(CHOICES))
def test_tool_choice(choice: Any, parallel: bool | None, expected: Any) -> None:
    tools = [ADD, {"type": "web_search"}]
    found = body(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    assert found.get("tool_choice") == expected


BAD_FIELDS = [
    ("unbound", {"tools": [ADD], "tool_choice": "ad"}, ["not bound", "'add'"]),
    ("no tools", {"tool_choice": "any"}, ["no tools"]),
    ("allowed tools", {"tools": [ADD], "tool_choice": {"type": "allowed_tools"}},
     ["allowed_tools", "auto"]),
    ("thinking and force", {"tools": [ADD], "tool_choice": "add",
                            "extra": {"thinking": {"type": "adaptive"}}},
     ["'add'", "thinking is on"]),
    ("JSON mode", {"response_format": {"type": "json_object"}}, ["json_object", "json_schema"]),
    ("format without schema", {"response_format": {"type": "json_schema"}}, ["schema"]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "texts"), rows(BAD_FIELDS))
def test_bad_fields(fields: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        body(**fields)
    for words in texts:
        assert words in str(caught.value)


def test_a_seed_is_not_dropped_in_silence() -> None:
    with pytest.warns(UserWarning, match="seed"):
        assert "seed" not in body(seed=0)


def test_messages_are_not_changed() -> None:
    message = AIMessage([text("a"), CALL], extras={"cache_control": CACHE})
    before = message.to_dict()
    body(message, ONE, tools=[ADD], tool_choice="auto")
    assert message.to_dict() == before
    assert ADD["function"]["parameters"] == SCHEMA
