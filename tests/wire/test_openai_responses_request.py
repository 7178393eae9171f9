"""OpenAI Responses requests: what is sent for what was asked, and which calls need this API."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire import openai_chat_request
from streamfold.wire.openai_responses_request import BODY_FIELDS, encode, use_responses
from streamfold.wire.request import ChatRequest

Body = dict[str, Any]

HI = HumanMessage("hi")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
OWN_ADD = {"type": "function", "name": "add", "parameters": SCHEMA}
SENT_ADD = {**OWN_ADD, "description": "d", "strict": False}
#: What the decoder says of an answer over this API.
MADE = {"model_provider": "openai", "object": "response"}


def body(*messages: BaseMessage, **fields: Any) -> Body:
    request = encode(ChatRequest(model="m", messages=list(messages) or [HI], **fields))
    assert request.path == "/responses"
    found: Body = json.loads(request.body)
    return found


def sent(*messages: BaseMessage, **fields: Any) -> list[Body]:
    found: list[Body] = body(*messages, **fields)["input"]
    return found


def answer(*content: Body, made: Body = MADE, **fields: Any) -> list[Body]:
    """The items that are sent for an answer with these blocks, its calls answered."""
    message = AIMessage(list(content), response_metadata=made, **fields)
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    results = [ToolMessage("r", tool_call_id=str(call["id"])) for call in calls]
    items = sent(message, *results, HI, provider="openai")
    return items[: len(items) - len(results) - 1]


def rows(table: list[Any]) -> list[Any]:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


# ---- messages that are not the model's -----------------------------------------------------------

MESSAGES = [
    ("human", HI, {"role": "user", "content": "hi"}),
    ("system", SystemMessage("s"), {"role": "system", "content": "s"}),
    (
        "developer",
        SystemMessage("s", extras={"role": "developer"}),
        {"role": "developer", "content": "s"},
    ),
    (
        "one text",
        HumanMessage([{"type": "text", "text": "hi"}]),
        {"role": "user", "content": "hi"},
    ),
    (
        "texts",
        HumanMessage([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
        },
    ),
]


@pytest.mark.parametrize(("message", "wanted"), rows(MESSAGES))
def test_messages(message: BaseMessage, wanted: Body) -> None:
    assert sent(message) == [wanted]


def test_a_name_has_no_place() -> None:
    with pytest.warns(UserWarning, match="name of a message"):
        assert sent(HumanMessage("hi", name="Bo")) == [{"role": "user", "content": "hi"}]


PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,AAAA"
PARTS = [
    ("text", {"type": "text", "text": "a"}, {"type": "input_text", "text": "a"}),
    (
        "text with a mark",
        {"type": "text", "text": "a", "extras": {"prompt_cache_breakpoint": {"mode": "explicit"}}},
        {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ),
    ("image url", {"type": "image", "url": "u"}, {"type": "input_image", "image_url": "u"}),
    (
        "image data",
        {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
        {"type": "input_image", "image_url": PNG},
    ),
    ("image id", {"type": "image", "file_id": "f"}, {"type": "input_image", "file_id": "f"}),
    (
        "Chat's image",
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "input_image", "image_url": PNG, "detail": "low"},
    ),
    ("file url", {"type": "file", "url": "u"}, {"type": "input_file", "file_url": "u"}),
    ("file id", {"type": "file", "file_id": "f"}, {"type": "input_file", "file_id": "f"}),
    (
        "file data",
        {"type": "file", "base64": "AAAA", "extras": {"filename": "a.pdf"}},
        {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
    ),
    (
        "file without a name",
        {"type": "file", "base64": "AAAA"},
        {"type": "input_file", "file_data": PDF, "filename": "document.pdf"},
    ),
    (
        "Chat's file",
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
        {"type": "input_file", "file_data": PDF, "filename": "a.pdf"},
    ),
    (
        "plain text",
        {"type": "text-plain", "text": "x", "title": "T", "context": "C"},
        {"type": "input_text", "text": "T\n\nC\n\nx"},
    ),
    (
        "plain text in base64",
        {"type": "text-plain", "base64": "aGk=", "mime_type": "text/plain"},
        {"type": "input_text", "text": "hi"},
    ),
    ("plain text url", {"type": "text-plain", "url": "u"}, {"type": "input_file", "file_url": "u"}),
    ("own", {"type": "input_image", "image_url": "u"}, {"type": "input_image", "image_url": "u"}),
    (
        "non-standard",
        {"type": "non_standard", "value": {"type": "novel", "x": 1}},
        {"type": "novel", "x": 1},
    ),
]


@pytest.mark.parametrize(("part", "wanted"), rows(PARTS))
def test_parts(part: Body, wanted: Body) -> None:
    (item,) = sent(HumanMessage([part, {"type": "text", "text": "?"}]))
    assert item["content"] == [wanted, {"type": "input_text", "text": "?"}]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"type": "audio", "base64": "A", "mime_type": "audio/wav"}, "audio block"),
        ({"type": "input_audio", "input_audio": {"data": "A", "format": "wav"}}, "audio block"),
        ({"type": "video", "url": "u"}, "video block"),
        ({"type": "image"}, "url or base64 or file_id"),
        ({"type": "image", "base64": "A"}, "mime_type"),
        ({"type": "input_imge"}, "did you mean 'input_image'.*non_standard"),
        ({"x": 1}, "has no type"),
    ],
)
def test_parts_that_cannot_be_sent(part: Body, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        sent(HumanMessage([part]))


def test_items_among_the_parts_stand_on_their_own() -> None:
    approval = {"type": "mcp_approval_response", "approval_request_id": "r", "approve": True}
    text = {"type": "text", "text": "Go on"}
    said = {"role": "user", "content": "Go on"}
    assert sent(HumanMessage([approval])) == [approval]
    assert sent(HumanMessage([text, approval, text])) == [said, approval, said]
    value = {"type": "non_standard", "value": approval}
    assert sent(HumanMessage([value, text])) == [approval, said]


def test_blocks_without_a_place_are_left_out_with_one_warning() -> None:
    call = {"type": "tool_call", "name": "f", "args": {}, "id": "c"}
    with pytest.warns(UserWarning, match="tool_call block in a user message") as caught:
        assert sent(HumanMessage([call, {"type": "text", "text": "a"}]))[0]["content"] == "a"
    assert len(caught) == 1


# ---- answers -------------------------------------------------------------------------------------

TEXT = {"type": "output_text", "text": "a", "annotations": []}
CALL = {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "c1"}
SENT_CALL = {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a":1}'}
RAN = {"type": "server_tool_call", "name": "web_search", "args": {"type": "search"}, "id": "ws"}
SENT_RAN = {
    "type": "web_search_call",
    "id": "ws",
    "status": "completed",
    "action": {"type": "search"},
}


def of(id: str, **fields: Any) -> Body:
    return {"extras": {"id": id, **fields}}


def said(text: str, **fields: Any) -> Body:
    head = {"type": "message", "role": "assistant", "status": "completed"}
    return {**head, "content": [{**TEXT, "text": text}], **fields}


def thought(text: str = "", **extras: Any) -> Body:
    return {"type": "reasoning", "reasoning": text, "extras": extras}


ANSWERS: list[tuple[str, list[Body], list[Body]]] = [
    ("text", [{"type": "text", "text": "a"}], [{"role": "assistant", "content": "a"}]),
    (
        "texts without an id",
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"role": "assistant", "content": "ab"}],
    ),
    (
        "text of an item",
        [{"type": "text", "text": "a", **of("m", phase="commentary")}],
        [said("a", id="m", phase="commentary")],
    ),
    (
        "texts of one item, and of another",
        [
            {"type": "text", "text": "a", **of("m")},
            {"type": "text", "text": "b", **of("m")},
            {"type": "text", "text": "c", **of("n", status="incomplete")},
        ],
        [
            said("a", id="m", content=[TEXT, {**TEXT, "text": "b"}]),
            said("c", id="n", status="incomplete"),
        ],
    ),
    (
        "further fields of a part",
        [{"type": "text", "text": "a", **of("m", part={"x": 1})}],
        [said("a", id="m", content=[{**TEXT, "x": 1}])],
    ),
    ("no text at all", [{"type": "text", "text": ""}], []),
    (
        "reasoning",
        [thought("A", id="rs", encrypted_content="x"), thought("B", id="rs"), CALL],
        [
            {
                "type": "reasoning",
                "id": "rs",
                "encrypted_content": "x",
                "summary": [
                    {"type": "summary_text", "text": "A"},
                    {"type": "summary_text", "text": "B"},
                ],
            },
            SENT_CALL,
        ],
    ),
    (
        "reasoning itself",
        [thought("A", id="rs", type="reasoning_text"), CALL],
        [
            {
                "type": "reasoning",
                "id": "rs",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": "A"}],
            },
            SENT_CALL,
        ],
    ),
    (
        "items with one id",  # xAI names them after the answer
        [thought(id="rs", encrypted_content="x"), thought(id="rs", encrypted_content="y"), CALL],
        [
            {"type": "reasoning", "id": "rs", "encrypted_content": "x", "summary": []},
            {"type": "reasoning", "id": "rs", "encrypted_content": "y", "summary": []},
            SENT_CALL,
        ],
    ),
    ("reasoning of nobody", [thought("A"), CALL], [SENT_CALL]),
    ("reasoning that nothing follows", [CALL, thought("A", id="rs")], [SENT_CALL]),
    (
        "call of an item",
        [{**CALL, **of("fc", namespace="n")}],
        [{**SENT_CALL, "id": "fc", "status": "completed", "namespace": "n"}],
    ),
    (
        "custom call",
        [{**CALL, **of("ctc", type="custom")}],
        [
            {
                "type": "custom_tool_call",
                "id": "ctc",
                "status": "completed",
                "call_id": "c1",
                "name": "add",
                "input": '{"a":1}',
            }
        ],
    ),
    (
        "unreadable call",
        [{"type": "invalid_tool_call", "name": "add", "args": '{"a', "id": "c1", "error": "cut"}],
        [{**SENT_CALL, "arguments": '{"a'}],
    ),
    ("server call", [RAN], [SENT_RAN]),
    (
        "server call and its result",
        [
            {
                "type": "server_tool_call",
                "name": "code_interpreter",
                "args": {"code": "1"},
                "id": "ci",
                "extras": {"container_id": "c", "status": "failed"},
            },
            {
                "type": "server_tool_result",
                "tool_call_id": "ci",
                "status": "error",
                "output": [{"type": "logs"}],
            },
        ],
        [
            {
                "type": "code_interpreter_call",
                "id": "ci",
                "status": "failed",
                "code": "1",
                "container_id": "c",
                "outputs": [{"type": "logs"}],
            }
        ],
    ),
    (
        "arguments that are text",
        [
            {
                "type": "server_tool_call",
                "name": "mcp",
                "args": {"q": 1},
                "id": "m",
                "extras": {"name": "ask", "server_label": "w"},
            },
            {
                "type": "server_tool_result",
                "tool_call_id": "m",
                "status": "error",
                "extras": {"error": {"code": 1}},
            },
        ],
        [
            {
                "type": "mcp_call",
                "id": "m",
                "status": "completed",
                "arguments": '{"q":1}',
                "name": "ask",
                "server_label": "w",
                "error": {"code": 1},
            }
        ],
    ),
    (
        "arguments that cannot be read",
        [
            {
                "type": "server_tool_call",
                "name": "mcp",
                "args": {},
                "id": "m",
                "extras": {"raw_args": '{"q', "error": "why"},
            }
        ],
        [{"type": "mcp_call", "id": "m", "status": "completed", "arguments": '{"q'}],
    ),
    (
        "result that is an item",
        [
            {
                "type": "server_tool_result",
                "tool_call_id": "sh",
                "status": "success",
                "output": [1],
                "extras": {"type": "shell_call_output", "call_id": "c"},
            }
        ],
        [{"type": "shell_call_output", "call_id": "c", "output": [1]}],
    ),
    (
        "image that was made",
        [
            {"type": "server_tool_call", "name": "image_generation", "args": {}, "id": "ig"},
            {"type": "image", "base64": "AA", "mime_type": "image/png", **of("ig")},
            {"type": "server_tool_result", "tool_call_id": "ig", "status": "success"},
        ],
        [{"type": "image_generation_call", "id": "ig", "status": "completed", "result": "AA"}],
    ),
    (
        "refusal",
        [{"type": "non_standard", "value": {"type": "refusal", "refusal": "no"}, **of("m")}],
        [said("", id="m", content=[{"type": "refusal", "refusal": "no"}])],
    ),
    (
        "other items",
        [{"type": "non_standard", "value": {"type": "compaction", "id": "c"}}],
        [{"type": "compaction", "id": "c"}],
    ),
    (
        "own items and parts",
        [
            {"type": "reasoning", "id": "rs", "summary": []},
            {"type": "output_text", "text": "a", "annotations": [{"type": "file_path"}]},
            SENT_CALL,
        ],
        [
            {"type": "reasoning", "id": "rs", "summary": []},
            {"role": "assistant", "content": [{**TEXT, "annotations": [{"type": "file_path"}]}]},
            SENT_CALL,
        ],
    ),
    (
        "what was heard",
        [{"type": "audio", "base64": "AA", "extras": {"transcript": "Hello"}}],
        [{"role": "assistant", "content": "Hello"}],
    ),
]


@pytest.mark.parametrize(("content", "wanted"), rows(ANSWERS))
def test_answers(content: list[Body], wanted: list[Body]) -> None:
    assert answer(*content) == wanted


def test_a_plain_answer_with_its_item() -> None:
    message = AIMessage("a", response_metadata={**MADE, "message_item": {"id": "m", "phase": "p"}})
    assert sent(message, provider="openai") == [said("a", id="m", phase="p")]
    assert sent(message, provider="xai") == [{"role": "assistant", "content": "a"}]
    spoken = AIMessage("a", extras={"phase": "final_answer"})
    wanted = {"role": "assistant", "content": "a", "phase": "final_answer"}
    assert sent(spoken) == [wanted]


def test_citations_go_back() -> None:
    notes = [
        {"type": "citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2},
        {"type": "citation", "title": "a.pdf", "extras": {"type": "file_citation", "index": 3}},
        {"type": "non_standard_annotation", "value": {"type": "file_path"}},
        {"type": "citation", "cited_text": "of another API"},
    ]
    (item,) = answer({"type": "text", "text": "a", "annotations": notes, **of("m")})
    assert item["content"][0]["annotations"] == [
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2},
        {"type": "file_citation", "filename": "a.pdf", "index": 3},
        {"type": "file_path"},
    ]


FOREIGN = [
    ("another provider", {"model_provider": "anthropic"}),
    ("Chat Completions of the same", {"model_provider": "openai"}),
    ("Responses of another", {**MADE, "model_provider": "xai"}),
]


@pytest.mark.parametrize("made", rows(FOREIGN))
def test_answers_of_others_are_plain(made: Body) -> None:
    content = [
        thought("A", id="rs", encrypted_content="x"),
        {"type": "text", "text": "a", "annotations": [{"type": "citation", "url": "u"}], **of("m")},
        {**CALL, **of("fc")},
        {"type": "non_standard", "value": {"type": "novel"}},
        RAN,
    ]
    with pytest.warns(UserWarning, match="novel block.*server tool call web_search"):
        assert answer(*content, made=made) == [{"role": "assistant", "content": "a"}, SENT_CALL]


def test_what_this_api_said_is_plain_to_the_other() -> None:
    """The ids of items are fields that Chat Completions does not know."""
    content = [
        thought("A", id="rs"),
        {"type": "text", "text": "a", **of("m", phase="p")},
        {**CALL, **of("fc")},
    ]
    message = AIMessage(content, response_metadata=MADE)
    request = ChatRequest(
        model="m", messages=[message, ToolMessage("r", tool_call_id="c1")], provider="openai"
    )
    with pytest.warns(UserWarning, match="left out, .*: reasoning of another provider"):
        first = json.loads(openai_chat_request.encode(request).body)["messages"][0]
    function = {"name": "add", "arguments": '{"a":1}'}
    assert first == {
        "role": "assistant",
        "content": "a",
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }


def test_reasoning_that_the_server_did_not_keep() -> None:
    """It cannot be found again, and what followed it is not taken under its id without it."""
    made = {**MADE, "store": False}
    content = [thought(id="rs"), {"type": "text", "text": "a", **of("m")}, {**CALL, **of("fc")}]
    assert answer(*content, made=made) == [{"role": "assistant", "content": "a"}, SENT_CALL]
    kept = [thought(id="rs", encrypted_content="x"), {"type": "text", "text": "a", **of("m")}]
    assert answer(*kept, made=made) == [
        {"type": "reasoning", "id": "rs", "encrypted_content": "x", "summary": []},
        said("a", id="m"),
    ]


def test_calls_without_an_id_or_an_answer() -> None:
    with pytest.raises(ConfigurationError, match="'add' has the id None"):
        sent(AIMessage([{**CALL, "id": None}]))
    bad = {"type": "invalid_tool_call", "name": "f", "args": "{", "id": "c", "error": "cut"}
    with pytest.warns(UserWarning, match="unreadable tool call"):
        assert sent(AIMessage([bad]), HI) == [{"role": "user", "content": "hi"}]


# ---- tool results --------------------------------------------------------------------------------


def result(call: Body, content: Any, **fields: Any) -> Body:
    """The item of a result of `call`."""
    id = call.get("call_id") or call["id"]
    message = ToolMessage(content, tool_call_id=id, **fields)
    items = sent(AIMessage([call], response_metadata=MADE), message, provider="openai")
    assert len(items) == 2
    return items[1]


def called(name: str, **args: Any) -> Body:
    """A call that the caller is to run, as the decoder tells it."""
    block = {"type": "server_tool_call", "name": name, "args": args, "id": "x_1"}
    return {**block, "extras": {"call_id": "c1"}, "call_id": "c1"}


IMAGE = {"type": "image", "url": "u"}
RESULTS: list[tuple[str, Body, Any, Body, Body]] = [
    ("function", CALL, "r", {}, {"type": "function_call_output", "call_id": "c1", "output": "r"}),
    (
        "parts",
        CALL,
        [{"type": "text", "text": "r"}, IMAGE],
        {},
        {
            "type": "function_call_output",
            "call_id": "c1",
            "output": [
                {"type": "input_text", "text": "r"},
                {"type": "input_image", "image_url": "u"},
            ],
        },
    ),
    (
        "further fields",
        CALL,
        "r",
        {"extras": {"id": "fco"}},
        {"type": "function_call_output", "call_id": "c1", "output": "r", "id": "fco"},
    ),
    (
        "custom",
        {**CALL, "extras": {"type": "custom"}},
        "r",
        {},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "r"},
    ),
    (
        "computer",
        called("computer", type="wait"),
        [IMAGE],
        {},
        {
            "type": "computer_call_output",
            "call_id": "c1",
            "output": {"type": "computer_screenshot", "image_url": "u"},
        },
    ),
    (
        "local shell",
        called("local_shell", type="exec"),
        "out",
        {},
        {"type": "local_shell_call_output", "id": "c1", "output": "out"},
    ),
    (
        "shell",
        called("shell", commands=["ls"]),
        "out",
        {},
        {
            "type": "shell_call_output",
            "call_id": "c1",
            "output": [
                {"stdout": "out", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}
            ],
        },
    ),
    (
        "shell that failed",
        called("shell", commands=["ls"]),
        "bad",
        {"status": "error"},
        {
            "type": "shell_call_output",
            "call_id": "c1",
            "output": [
                {"stdout": "", "stderr": "bad", "outcome": {"type": "exit", "exit_code": 1}}
            ],
        },
    ),
    (
        "patch",
        called("apply_patch", type="delete_file"),
        "done",
        {"status": "error"},
        {
            "type": "apply_patch_call_output",
            "call_id": "c1",
            "status": "failed",
            "output": "done",
        },
    ),
    (
        "own item",
        called("tool_search", queries=["x"]),
        [{"type": "tool_search_output", "execution": "client", "tools": []}],
        {},
        {"type": "tool_search_output", "call_id": "c1", "execution": "client", "tools": []},
    ),
]


@pytest.mark.parametrize(("call", "content", "fields", "wanted"), rows(RESULTS))
def test_results(call: Body, content: Any, fields: Body, wanted: Body) -> None:
    assert result(call, content, **fields) == wanted


def test_a_result_by_the_id_of_the_item() -> None:
    call = {**called("computer", type="wait"), "call_id": None}
    item = result({**call, "id": "x_1"}, [IMAGE])
    assert (item["type"], item["call_id"]) == ("computer_call_output", "c1")


def test_a_result_whose_call_the_server_has() -> None:
    """With `previous_response_id` the call is not in the request."""
    (item,) = sent(ToolMessage("r", tool_call_id="c9"), extra={"previous_response_id": "resp_1"})
    assert item == {"type": "function_call_output", "call_id": "c9", "output": "r"}


def test_results_that_are_none() -> None:
    with pytest.raises(ConfigurationError, match="no image"):
        result(called("computer", type="wait"), "text")
    with pytest.raises(ConfigurationError, match="tool_search_output"):
        result(called("tool_search", queries=["x"]), "text")


# ---- parameters ----------------------------------------------------------------------------------

FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
SENT_FORMAT = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
PARAMETERS: list[tuple[str, Body, Body]] = [
    ("nothing", {}, {}),
    ("sampling", {"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
    ("tokens", {"max_tokens": 5}, {"max_output_tokens": 5}),
    (
        "tokens twice",
        {"max_tokens": 5, "extra": {"max_output_tokens": 6}},
        {"max_output_tokens": 6},
    ),
    ("stream", {"stream": True}, {"stream": True}),
    ("effort", {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    (
        "effort and summary",
        {"reasoning_effort": "low", "extra": {"reasoning": {"summary": "auto"}}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ),
    ("schema", {"response_format": FORMAT}, {"text": {"format": SENT_FORMAT}}),
    (
        "schema without a name",
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"text": {"format": {"type": "json_schema", "name": "response", "schema": SCHEMA}}},
    ),
    ("own schema", {"response_format": SENT_FORMAT}, {"text": {"format": SENT_FORMAT}}),
    (
        "JSON mode and verbosity",
        {"response_format": {"type": "json_object"}, "extra": {"verbosity": "low"}},
        {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    ),
    (
        "text",
        {"response_format": {"type": "text"}, "extra": {"text": {"verbosity": "low"}}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}},
    ),
    (
        "log probabilities",
        {"extra": {"logprobs": True, "top_logprobs": 3, "include": ["x"]}},
        {"include": ["x", "message.output_text.logprobs"], "top_logprobs": 3},
    ),
    ("no log probabilities", {"extra": {"logprobs": False}}, {}),
    ("stream options", {"extra": {"stream_options": {"include_usage": True}}}, {}),
    (
        "own stream options",
        {"extra": {"stream_options": {"include_usage": True, "include_obfuscation": False}}},
        {"stream_options": {"include_obfuscation": False}},
    ),
    (
        "own fields",
        {"extra": {"store": False, "previous_response_id": "r", "instructions": "i"}},
        {"store": False, "previous_response_id": "r", "instructions": "i"},
    ),
]


@pytest.mark.parametrize(("fields", "wanted"), rows(PARAMETERS))
def test_parameters(fields: Body, wanted: Body) -> None:
    found = body(**fields)
    assert {k: v for k, v in found.items() if k not in ("model", "input")} == wanted


def test_what_the_api_has_not() -> None:
    with pytest.raises(ConfigurationError, match=r"no stop words.*use_responses_api=False"):
        body(stop=["x"])
    with pytest.warns(UserWarning, match="seed"):
        assert "seed" not in body(seed=1)


def test_nothing_is_said_of_what_can_be_sent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body(HI, tools=[ADD], stop=[], temperature=1.0)


CUSTOM = {"type": "custom", "name": "run", "format": {"type": "text"}}
GRAMMAR = {"syntax": "lark", "definition": "x"}
TOOLS: list[tuple[str, Body, Body]] = [
    ("function", ADD, SENT_ADD),
    ("own form", OWN_ADD, OWN_ADD),
    (
        "strict",
        {"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}},
        {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True},
    ),
    (
        "bare",
        {"name": "f"},
        {
            "type": "function",
            "name": "f",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ),
    (
        "of Anthropic",
        {"name": "f", "input_schema": SCHEMA},
        {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False},
    ),
    (
        "further fields",
        {**ADD, "defer_loading": True},
        {**SENT_ADD, "defer_loading": True},
    ),
    ("server tool", {"type": "web_search"}, {"type": "web_search"}),
    ("custom", CUSTOM, CUSTOM),
    (
        "custom of Chat Completions",
        {
            "type": "custom",
            "custom": {"name": "run", "format": {"type": "grammar", "grammar": GRAMMAR}},
        },
        {"type": "custom", "name": "run", "format": {"type": "grammar", **GRAMMAR}},
    ),
]


@pytest.mark.parametrize(("tool", "wanted"), rows(TOOLS))
def test_tools(tool: Body, wanted: Body) -> None:
    assert body(tools=[tool])["tools"] == [wanted]


BOUND = [ADD, CUSTOM, {"type": "web_search"}, {"type": "mcp", "server_label": "w"}]
CHOICES: list[tuple[str, Any, Any]] = [
    ("auto", "auto", "auto"),
    ("none", "none", "none"),
    ("any", "any", "required"),
    ("true", True, "required"),
    ("name", "add", {"type": "function", "name": "add"}),
    ("custom name", "run", {"type": "custom", "name": "run"}),
    ("server tool", "web_search", {"type": "web_search"}),
    ("server", "mcp", {"type": "mcp", "server_label": "w"}),
    (
        "of Chat Completions",
        {"type": "function", "function": {"name": "add"}},
        {"type": "function", "name": "add"},
    ),
    ("own form", {"type": "function", "name": "add"}, {"type": "function", "name": "add"}),
    ("own server tool", {"type": "file_search"}, {"type": "file_search"}),
    (
        "allowed tools of Chat Completions",
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "add"}}],
            },
        },
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "add"}]},
    ),
    (
        "custom of Chat Completions",
        {"type": "custom", "custom": {"name": "run"}},
        {"type": "custom", "name": "run"},
    ),
]


@pytest.mark.parametrize(("choice", "wanted"), rows(CHOICES))
def test_tool_choice(choice: Any, wanted: Any) -> None:
    assert body(tools=BOUND, tool_choice=choice)["tool_choice"] == wanted


def test_choices_that_cannot_be_right() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'add'"):
        body(tools=BOUND, tool_choice="ad")
    with pytest.raises(ConfigurationError, match="no tools are bound"):
        body(tool_choice="any")
    assert "tool_choice" not in body(tool_choice="auto")


def test_parallel_calls() -> None:
    assert body(tools=[ADD], parallel_tool_calls=False)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in body(parallel_tool_calls=False)


# ---- which API -----------------------------------------------------------------------------------

CALLS: list[tuple[Body, list[Any] | None, bool]] = [
    ({}, None, False),
    (
        {"model": "gpt-4.1", "temperature": 1, "store": True, "reasoning_effort": "low"},
        [ADD],
        False,
    ),
    ({"model": "gpt-4.1"}, [OWN_ADD], False),
    ({"model": "gpt-4.1"}, [{"name": "f"}], False),
    ({"model": "gpt-4.1"}, [len], False),
    ({"model": "gpt-4.1"}, [{"type": "custom", "custom": {"name": "run"}}], False),
    ({"model": "gpt-4.1"}, [CUSTOM], True),
    ({"model": "gpt-4.1"}, [ADD, {"type": "web_search"}], True),
    ({"model": "gpt-4.1", "tools": [{"type": "mcp"}]}, None, True),
    ({"model": "gpt-4.1", "previous_response_id": "r"}, None, True),
    ({"model": "gpt-4.1", "previous_response_id": None}, None, False),
    ({"model": "gpt-4.1", "include": ["x"]}, None, True),
    ({"model": "gpt-4.1", "reasoning": {"summary": "auto"}}, None, True),
    ({"model": "gpt-4.1", "truncation": "auto"}, None, True),
    ({"model": "gpt-4.1", "text": {"verbosity": "low"}}, None, True),
    ({"model": "codex-mini-latest"}, None, True),
    ({"model": "gpt-5.1-codex-max"}, None, True),
    ({"model": "o1-pro"}, None, True),
    ({"model": "o3-pro-2025-06-10"}, None, True),
    ({"model": "gpt-5-pro"}, None, True),
    ({"model": "openai/gpt-5.2-pro"}, None, True),
    ({"model": "o4-mini-deep-research"}, None, True),
    ({"model": "computer-use-preview"}, None, True),
    ({"model": "gpt-5-professor"}, None, False),
    ({"model": "gpt-5-mini"}, [ADD], False),
    ({"model": "gpt-5.4"}, None, False),
    ({"model": "gpt-5.4"}, [ADD], True),
    ({"model": "gpt-5.6-luna"}, [ADD], True),
    ({"model": "gpt-5.6", "reasoning_effort": "none"}, [ADD], False),
]


@pytest.mark.parametrize(("params", "tools", "wanted"), CALLS)
def test_which_calls_need_this_api(params: Body, tools: Any, wanted: bool) -> None:
    assert use_responses(params, tools) is wanted


def test_parameters_that_decide_are_known() -> None:
    decisive = "previous_response_id include reasoning truncation text conversation background"
    assert set(decisive.split()) <= BODY_FIELDS
