"""OpenAI Responses: what its own wire has, beyond the contract of all dialects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from decoding import Decoded, bytewise, check_readable, decode, decode_whole
from streamfold.chunks import TextChunk
from streamfold.errors import (
    ContentFilterError,
    ContextOverflowError,
    InvalidRequestError,
    OverloadedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    StreamProtocolError,
)
from streamfold.wire.openai_responses import Decoder
from streamfold.wire.template import Template

Body = dict[str, Any]
Event = tuple[str, Body]

USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 2},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 9,
}


def response(output: list[Body] | None = None, status: str = "completed", **fields: Any) -> Body:
    head = {"id": "resp_1", "object": "response", "model": "gpt-x", "status": status}
    return {**head, "error": None, "output": output or [], "usage": USAGE, **fields}


def sse(*events: Event) -> bytes:
    blocks = []
    for number, (kind, fields) in enumerate(events):
        payload = {"type": kind, "sequence_number": number, **fields}
        blocks.append(f"event: {kind}\ndata: {json.dumps(payload)}\n\n")
    return "".join(blocks).encode()


def stream(*events: Event) -> Decoded:
    """The events of a stream (without ``response.``), read whole and byte by byte."""
    named = [(k if k == "error" else f"response.{k}", fields) for k, fields in events]
    body = sse(("response.created", {"response": response(status="in_progress")}), *named)
    whole, bytes_ = decode("openai_responses", body), decode("openai_responses", bytewise(body))
    assert whole.events == bytes_.events
    assert repr(whole.error) == repr(bytes_.error)
    check_readable(whole)
    return whole


def told(index: int, item: Body, *between: Event, added: Body | None = None) -> list[Event]:
    """An item of a stream, from its announcement to its end."""
    first = {**item, "status": "in_progress"} if added is None else added
    at = {"output_index": index, "item_id": item.get("id")}
    return [
        ("output_item.added", {"output_index": index, "item": first}),
        *((kind, {**at, **fields}) for kind, fields in between),
        ("output_item.done", {"output_index": index, "item": item}),
    ]


def completed(*output: Body, **fields: Any) -> Event:
    return "completed", {"response": response(list(output), **fields)}


def whole(*output: Body, **fields: Any) -> Decoded:
    return decode_whole("openai_responses", json.dumps(response(list(output), **fields)).encode())


def both(item: Body, *between: Event, added: Body | None = None) -> Decoded:
    """One item, told in pieces and in a body: the same message. The stream is given back."""
    streamed = stream(*told(0, item, *between, added=added), completed(item))
    assert streamed.error is None
    assert streamed.message == whole(item).message
    return streamed


def blocks(decoded: Decoded) -> list[Body]:
    return decoded.message.content_blocks


def message(*parts: Body, id: str = "msg_1", **fields: Any) -> Body:
    head = {"id": id, "type": "message", "role": "assistant", "status": "completed"}
    return {**head, "content": list(parts), **fields}


def text(text: str, *notes: Body, **fields: Any) -> Body:
    return {"type": "output_text", "text": text, "annotations": list(notes), **fields}


def delta(piece: str, part: int = 0) -> Event:
    return "output_text.delta", {"content_index": part, "delta": piece, "logprobs": []}


# ---- messages ------------------------------------------------------------------------------------


def test_one_plain_text_stays_plain() -> None:
    """The fields of its item are where they do not make a list of the content."""
    item = message(text("Hi you"), phase="final_answer")
    decoded = both(item, delta("Hi"), delta(" you"))
    assert decoded.message.content == "Hi you"
    assert blocks(decoded) == [{"type": "text", "text": "Hi you"}]
    fields = {"id": "msg_1", "phase": "final_answer"}
    assert decoded.message.response_metadata["message_item"] == fields


def test_texts_among_others_have_the_fields_of_their_item() -> None:
    one, two = message(text("a"), text("b")), message(text("c"), id="msg_2", status="incomplete")
    decoded = stream(
        *told(0, one, delta("a"), delta("b", 1)), *told(1, two, delta("c")), completed(one, two)
    )
    assert decoded.message == whole(one, two).message
    assert blocks(decoded) == [
        {"type": "text", "text": "a", "extras": {"id": "msg_1"}},
        {"type": "text", "text": "b", "extras": {"id": "msg_1"}},
        {"type": "text", "text": "c", "extras": {"id": "msg_2", "status": "incomplete"}},
    ]
    assert decoded.message.text == "abc"


def test_texts_of_which_no_piece_came_are_told_at_the_latest_possible() -> None:
    for last in ("output_text.done", "content_part.done", "output_item.done", "completed"):
        item = message(text("late"))
        at = {"output_index": 0, "content_index": 0}
        events = [
            ("output_item.added", {"output_index": 0, "item": {**item, "content": []}}),
            ("output_text.done", {**at, "text": "late"}),
            ("content_part.done", {**at, "part": text("late")}),
            ("output_item.done", {"output_index": 0, "item": item}),
            completed(item),
        ]
        names = [kind for kind, _ in events]
        decoded = stream(*events[:1], *events[names.index(last) :])
        assert decoded.message == whole(item).message
        assert [chunk.text for chunk in decoded.chunks if chunk.text] == ["late"]


def test_an_empty_text_is_no_block() -> None:
    assert blocks(both(message(text("")))) == []


def test_what_only_the_vendor_knows_is_kept() -> None:
    item = message(text("a", new=1), text("b"), extra={"x": 2})
    decoded = both(item, delta("a"), delta("b", 1))
    assert [block["extras"] for block in blocks(decoded)] == [
        {"part": {"new": 1}, "id": "msg_1", "extra": {"x": 2}},
        {"id": "msg_1", "extra": {"x": 2}},
    ]
    item = message({"type": "novelty", "x": 1})
    assert blocks(both(item)) == [
        {
            "type": "non_standard",
            "value": {"type": "novelty", "x": 1},
            "extras": {"id": "msg_1"},
        }
    ]


def test_unknown_fields_of_a_delta_are_kept() -> None:
    decoded = stream(*told(0, message(text("a")), ("output_text.delta", {"delta": "a", "mood": 1})))
    assert decoded.chunk.response_metadata["mood"] == 1


def test_refusals() -> None:
    part = {"type": "refusal", "refusal": "I cannot."}
    at = {"content_index": 0}
    decoded = both(
        message(part),
        ("content_part.added", {**at, "part": {"type": "refusal", "refusal": ""}}),
        ("refusal.delta", {**at, "delta": "I "}),
        ("refusal.delta", {**at, "delta": "cannot."}),
        ("refusal.done", {**at, "refusal": "I cannot."}),
        ("content_part.done", {**at, "part": part}),
    )
    assert blocks(decoded) == [{"type": "non_standard", "value": part, "extras": {"id": "msg_1"}}]
    assert decoded.message.finish_reason == "refusal"
    assert decoded.message.response_metadata["refusal"] == "I cannot."
    assert decoded.message.text == ""


NOTES: list[tuple[str, Body, Body]] = [
    (
        "url",
        {"type": "url_citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2},
        {"type": "citation", "url": "u", "title": "t", "start_index": 1, "end_index": 2},
    ),
    ("bare url", {"type": "url_citation", "url": "u"}, {"type": "citation", "url": "u"}),
    (
        "url with more",
        {"type": "url_citation", "url": "u", "title": None, "score": 1},
        {"type": "citation", "url": "u", "extras": {"score": 1}},
    ),
    (
        "file",
        {"type": "file_citation", "file_id": "f", "filename": "a.pdf", "index": 3},
        {
            "type": "citation",
            "title": "a.pdf",
            "extras": {"type": "file_citation", "file_id": "f", "index": 3},
        },
    ),
    (
        "container file",
        {
            "type": "container_file_citation",
            "container_id": "c",
            "file_id": "f",
            "filename": "a.txt",
            "start_index": 1,
            "end_index": 2,
        },
        {
            "type": "citation",
            "title": "a.txt",
            "start_index": 1,
            "end_index": 2,
            "extras": {"type": "container_file_citation", "container_id": "c", "file_id": "f"},
        },
    ),
    (
        "path",
        {"type": "file_path", "file_id": "f", "index": 1},
        {
            "type": "non_standard_annotation",
            "value": {"type": "file_path", "file_id": "f", "index": 1},
        },
    ),
]


@pytest.mark.parametrize("in_event", [True, False])
@pytest.mark.parametrize(("note", "citation"), [pytest.param(*n[1:], id=n[0]) for n in NOTES])
def test_citations(note: Body, citation: Body, in_event: bool) -> None:
    """Also those that come only with the part as a whole, and none twice."""
    told_of = {"content_index": 0, "annotation_index": 0, "annotation": note}
    item = message(text("abc", note, note))
    events = [("output_text.annotation.added", told_of)] if in_event else []
    done = ("content_part.done", {"content_index": 0, "part": text("abc", note)})
    (block,) = blocks(both(item, delta("abc"), *events, done))
    assert block["annotations"] == [citation, citation]
    assert block["extras"] == {"id": "msg_1"}


def test_log_probabilities() -> None:
    one, two = {"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.2}
    item = message(text("ab", logprobs=[one, two]))
    pieces = [
        ("output_text.delta", {"content_index": 0, "delta": "a", "logprobs": [one]}),
        ("output_text.delta", {"content_index": 0, "delta": "b", "logprobs": [two]}),
    ]
    wanted = {"content": [one, two]}
    assert both(item, *pieces).message.response_metadata["logprobs"] == wanted
    assert both(item, delta("ab")).message.response_metadata["logprobs"] == wanted


# ---- reasoning -----------------------------------------------------------------------------------


def thought(*summary: str, content: Iterable[str] = (), **fields: Any) -> Body:
    parts = [{"type": "summary_text", "text": piece} for piece in summary]
    texts = [{"type": "reasoning_text", "text": piece} for piece in content]
    more = {"content": texts} if texts else {}
    return {"id": "rs_1", "type": "reasoning", "summary": parts, **more, **fields}


def test_each_summary_is_a_block_and_the_first_has_what_is_encrypted() -> None:
    item = thought("One", "Two", encrypted_content="xx", status="completed")
    decoded = both(
        item,
        ("reasoning_summary_part.added", {"summary_index": 0, "part": {"text": ""}}),
        ("reasoning_summary_text.delta", {"summary_index": 0, "delta": "O"}),
        ("reasoning_summary_text.delta", {"summary_index": 0, "delta": "ne"}),
        ("reasoning_summary_text.done", {"summary_index": 0, "text": "One"}),
        ("reasoning_summary_part.done", {"summary_index": 0, "part": {"text": "One"}}),
        ("reasoning_summary_text.done", {"summary_index": 1, "text": "Two"}),
    )
    extras = {"id": "rs_1", "encrypted_content": "xx", "status": "completed"}
    assert blocks(decoded) == [
        {"type": "reasoning", "reasoning": "One", "extras": extras},
        {"type": "reasoning", "reasoning": "Two", "extras": {"id": "rs_1"}},
    ]
    assert decoded.chunk.reasoning == "OneTwo"


def test_reasoning_itself_says_that_it_is_no_summary() -> None:
    decoded = both(
        thought(content=["I think"]),
        ("reasoning_text.delta", {"content_index": 0, "delta": "I "}),
        ("reasoning_text.delta", {"content_index": 0, "delta": "think"}),
        ("reasoning_text.done", {"content_index": 0, "text": "I think"}),
    )
    extras = {"type": "reasoning_text", "id": "rs_1"}
    assert blocks(decoded) == [{"type": "reasoning", "reasoning": "I think", "extras": extras}]


def test_reasoning_without_a_text_is_kept() -> None:
    assert blocks(both(thought())) == [
        {"type": "reasoning", "reasoning": "", "extras": {"id": "rs_1"}}
    ]


def test_what_is_encrypted_anew_at_the_end_counts() -> None:
    item, last = thought("A", "B", encrypted_content="1"), thought("A", "B", encrypted_content="2")
    events = told(0, item, added=thought(encrypted_content="0"))
    decoded = stream(*events, completed(last))
    assert decoded.message == whole(last).message
    assert blocks(decoded)[0]["extras"]["encrypted_content"] == "2"


# ---- calls of the caller's tools -----------------------------------------------------------------


def call(args: str, **fields: Any) -> Body:
    head = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "add"}
    return {**head, "status": "completed", "arguments": args, **fields}


ARGS = '{"a": 1}'
PIECES = [("function_call_arguments.delta", {"delta": piece}) for piece in ('{"a"', ": 1}")]
DONE = ("function_call_arguments.done", {"arguments": ARGS})


@pytest.mark.parametrize("between", [[], [DONE], PIECES, [*PIECES, DONE]])
def test_a_function_call(between: list[Event]) -> None:
    """Its arguments in pieces, whole (LM Studio), or with the item only."""
    decoded = both(call(ARGS), *between, added=call("", status="in_progress"))
    assert decoded.message.tool_calls == [
        {
            "type": "tool_call",
            "id": "call_1",
            "name": "add",
            "args": {"a": 1},
            "extras": {"id": "fc_1"},
        }
    ]
    assert decoded.message.finish_reason == "tool_calls"


def test_further_fields_of_a_call() -> None:
    item = call(ARGS, namespace="math", status="incomplete")
    (block,) = blocks(both(item, *PIECES, added=call("", status="in_progress")))
    assert block["extras"] == {"id": "fc_1", "namespace": "math", "status": "incomplete"}


def test_arguments_cut_by_the_token_limit() -> None:
    item = call('{"a', status="incomplete")
    ends = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    decoded = stream(
        *told(0, item, ("function_call_arguments.delta", {"delta": '{"a'})),
        ("incomplete", {"response": response([item], **ends)}),
    )
    assert decoded.message == whole(item, **ends).message
    assert decoded.message.finish_reason == "length"
    assert decoded.message.invalid_tool_calls[0]["args"] == '{"a'
    assert "token limit" in str(decoded.message.invalid_tool_calls[0]["error"])


@pytest.mark.parametrize("given", ['{"q": "x"}', "free form"])
def test_a_custom_tool_call(given: str) -> None:
    """Free-form input is no JSON object: the raw text is there, marked as unreadable."""
    item = {
        "id": "ctc_1",
        "type": "custom_tool_call",
        "call_id": "call_1",
        "name": "run",
        "input": given,
    }
    pieces = [
        ("custom_tool_call_input.delta", {"delta": piece}) for piece in (given[:4], given[4:])
    ]
    done = ("custom_tool_call_input.done", {"input": given})
    (block,) = blocks(both(item, *pieces, done, added={**item, "input": ""}))
    assert (block["id"], block["name"]) == ("call_1", "run")
    assert block["extras"] == {"type": "custom", "id": "ctc_1"}
    assert block["args"] == (json.loads(given) if given[0] == "{" else given)


def test_parallel_calls_with_one_id_stay_apart() -> None:
    """Bedrock numbers calls anew in each answer; some servers do so in each item."""
    one, two = call('{"a": 1}'), call('{"a": 2}', id="fc_2")
    decoded = stream(
        *told(0, one, added=call("")), *told(1, two, added=call("")), completed(one, two)
    )
    assert [c["args"] for c in decoded.message.tool_calls] == [{"a": 1}, {"a": 2}]


def test_arguments_for_what_is_no_call() -> None:
    for index in (0, 7):
        decoded = stream(
            *told(0, message(text("a")), delta("a")),
            ("function_call_arguments.delta", {"output_index": index, "delta": "{"}),
        )
        assert isinstance(decoded.error, StreamProtocolError)
        assert decoded.message.text == "a"


# ---- calls that the provider defines -------------------------------------------------------------

SERVER_CALLS: list[tuple[str, Body, Body, Body, Any]] = [
    (
        "web_search",
        {"action": {"type": "search", "query": "q"}},
        {"type": "search", "query": "q"},
        {},
        None,
    ),
    (
        "file_search",
        {"queries": ["a", "b"], "results": [{"text": "t"}]},
        {"queries": ["a", "b"]},
        {},
        [{"text": "t"}],
    ),
    ("file_search", {"queries": ["a"], "results": None}, {"queries": ["a"]}, {}, None),
    (
        "code_interpreter",
        {"code": "1+1", "container_id": "c", "outputs": []},
        {"code": "1+1"},
        {"container_id": "c"},
        [],
    ),
    (
        "mcp",
        {"arguments": '{"q": 1}', "name": "ask", "server_label": "wiki", "output": "yes"},
        {"q": 1},
        {"name": "ask", "server_label": "wiki"},
        "yes",
    ),
    ("novel", {"action": {"x": 1}, "y": 2, "output": "o"}, {"x": 1}, {"y": 2}, "o"),
]


@pytest.mark.parametrize(
    ("name", "fields", "args", "extras", "output"),
    [pytest.param(*row, id=f"{row[0]}-{n}") for n, row in enumerate(SERVER_CALLS)],
)
def test_a_call_that_the_provider_ran(
    name: str, fields: Body, args: Body, extras: Body, output: Any
) -> None:
    item = {"id": "x_1", "type": f"{name}_call", "status": "completed", **fields}
    steps = [(f"{name}_call.{step}", {}) for step in ("in_progress", "searching", "completed")]
    decoded = both(item, *steps, added={"id": "x_1", "type": f"{name}_call"})
    called: Body = {"type": "server_tool_call", "id": "x_1", "name": name, "args": args}
    result: Body = {"type": "server_tool_result", "tool_call_id": "x_1", "status": "success"}
    assert blocks(decoded) == [
        {**called, "extras": extras} if extras else called,
        result if output is None else {**result, "output": output},
    ]
    assert decoded.message.finish_reason == "stop"
    assert "unknown_events" not in decoded.message.response_metadata


CLIENT_RUNS: list[tuple[str, Body, Body]] = [
    ("computer", {"action": {"type": "wait"}}, {"type": "wait"}),
    ("computer", {"actions": [{"type": "wait"}]}, {"actions": [{"type": "wait"}]}),
    ("local_shell", {"action": {"command": ["ls"]}}, {"command": ["ls"]}),
    ("shell", {"action": {"commands": ["ls"]}}, {"commands": ["ls"]}),
    ("apply_patch", {"operation": {"type": "delete_file"}}, {"type": "delete_file"}),
    ("tool_search", {"arguments": {"queries": ["x"]}}, {"queries": ["x"]}),
]


@pytest.mark.parametrize(
    ("name", "fields", "args"),
    [pytest.param(*row, id=f"{row[0]}-{n}") for n, row in enumerate(CLIENT_RUNS)],
)
def test_a_call_that_the_caller_may_run(name: str, fields: Body, args: Body) -> None:
    """There is no result yet; the id that a result names is in the extras."""
    item = {"id": "x_1", "type": f"{name}_call", "call_id": "call_1", **fields}
    (block,) = blocks(both(item, added={**item, "status": "in_progress"}))
    assert (block["type"], block["name"], block["id"]) == ("server_tool_call", name, "x_1")
    assert block["args"] == args
    assert block["extras"] == {"call_id": "call_1"}


def test_a_call_that_failed() -> None:
    error = {"type": "http_error", "code": 500}
    item = {"id": "x_1", "type": "mcp_call", "status": "failed", "arguments": "{}", "error": error}
    called, result = blocks(both(item))
    assert called["extras"] == {"status": "failed"}
    assert (result["status"], result["extras"]) == ("error", {"error": error})


def test_arguments_of_an_mcp_call_in_pieces() -> None:
    item = {
        "id": "m",
        "type": "mcp_call",
        "status": "completed",
        "arguments": '{"q":1}',
        "name": "n",
    }
    deltas = [("mcp_call_arguments.delta", {"delta": piece}) for piece in ('{"q"', ":1}")]
    done = ("mcp_call_arguments.done", {"arguments": '{"q":1}'})
    decoded = both(item, *deltas, done, added={**item, "arguments": ""})
    assert blocks(decoded)[0]["args"] == {"q": 1}


def test_code_is_told_as_it_is_written() -> None:
    code = 'print("ā😀\\n")\n'
    item = {"id": "c", "type": "code_interpreter_call", "status": "completed", "code": code}
    deltas = [("code_interpreter_call_code.delta", {"delta": piece}) for piece in code]
    done = ("code_interpreter_call_code.done", {"code": code})
    decoded = both(item, *deltas, done, added={**item, "code": ""})
    assert blocks(decoded)[0]["args"] == {"code": code}
    halfway = sum(decoded.chunks[1:6], decoded.chunks[0])
    (block,) = halfway.content_blocks
    assert (block["type"], block["name"]) == ("server_tool_call_chunk", "code_interpreter")
    assert block["args"] == '{"code":"print'[: len(block["args"])]


def test_a_result_that_is_an_item_of_its_own() -> None:
    called = {
        "id": "sh_1",
        "type": "shell_call",
        "call_id": "call_1",
        "status": "completed",
        "action": {"commands": ["ls"]},
    }
    output = [{"stdout": "a", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
    result = {
        "id": "sho_1",
        "type": "shell_call_output",
        "call_id": "call_1",
        "status": "completed",
        "output": output,
    }
    at = {"command_index": 0}
    decoded = stream(
        *told(
            0,
            called,
            ("shell_call_command.added", {**at, "command": ""}),
            ("shell_call_command.delta", {**at, "delta": "ls"}),
            ("shell_call_command.done", {**at, "command": "ls"}),
        ),
        *told(
            1,
            result,
            ("shell_call_output_content.delta", {**at, "delta": {"stdout": "a"}}),
            ("shell_call_output_content.done", {**at, "output": output}),
        ),
        completed(called, result),
    )
    assert decoded.message == whole(called, result).message
    assert blocks(decoded)[1] == {
        "type": "server_tool_result",
        "tool_call_id": "sh_1",
        "status": "success",
        "output": output,
        "extras": {
            "id": "sho_1",
            "type": "shell_call_output",
            "call_id": "call_1",
            "status": "completed",
        },
    }


def test_images_and_their_sketches() -> None:
    """Each sketch is the image until the next one comes; the message has the last."""
    item = {
        "id": "ig_1",
        "type": "image_generation_call",
        "status": "completed",
        "result": "RklOQUw=",
        "output_format": "webp",
        "revised_prompt": "a cat",
    }
    sketches = [
        (
            "image_generation_call.partial_image",
            {"partial_image_index": n, "partial_image_b64": data, "output_format": "webp"},
        )
        for n, data in enumerate(("QUFB", "QkJC"))
    ]
    steps = [(f"image_generation_call.{step}", {}) for step in ("in_progress", "generating")]
    added = {"id": "ig_1", "type": "image_generation_call", "status": "in_progress"}
    decoded = both(item, *steps, *sketches, added=added)
    image = {"type": "image", "mime_type": "image/webp", "extras": {"id": "ig_1"}}
    assert blocks(decoded) == [
        {
            "type": "server_tool_call",
            "id": "ig_1",
            "name": "image_generation",
            "args": {},
            "extras": {"output_format": "webp", "revised_prompt": "a cat"},
        },
        {**image, "base64": "RklOQUw="},
        {"type": "server_tool_result", "tool_call_id": "ig_1", "status": "success"},
    ]
    shown, seen = decoded.chunks[0], []
    for chunk in decoded.chunks[1:]:
        shown = shown + chunk
        seen += [b["base64"] for b in shown.content_blocks if b["type"] == "image"]
    assert list(dict.fromkeys(seen)) == ["QUFB", "QkJC", "RklOQUw="]


def test_other_items_keep_their_place_and_their_last_form() -> None:
    """The end of an item that was announced may come late, or only with the whole answer."""
    early = {"id": "l_1", "type": "mcp_list_tools", "server_label": "a", "tools": []}
    tools = {**early, "tools": [{"name": "x"}]}
    item = message(text("Hi"))
    decoded = stream(
        ("output_item.added", {"output_index": 0, "item": early}),
        ("mcp_list_tools.in_progress", {"output_index": 0, "item_id": "l_1"}),
        *told(1, item, delta("Hi")),
        completed(tools, item),
    )
    assert decoded.message == whole(tools, item).message
    assert blocks(decoded)[0] == {"type": "non_standard", "value": tools}


def test_audio() -> None:
    decoded = stream(
        ("audio.delta", {"delta": "QUJD"}),
        ("audio.transcript.delta", {"delta": "He"}),
        ("audio.delta", {"delta": "REVG"}),
        ("audio.transcript.delta", {"delta": "llo"}),
        ("audio.transcript.done", {}),
        ("audio.done", {}),
        completed(),
    )
    audio = {"type": "audio", "base64": "QUJDREVG", "extras": {"transcript": "Hello"}}
    assert blocks(decoded) == [audio]


# ---- the answer ----------------------------------------------------------------------------------


def test_metadata_and_figures() -> None:
    decoded = whole(message(text("a")), service_tier="default", tools=[{"x": 1}], novelty=[1])
    metadata = decoded.message.response_metadata
    assert metadata == {
        "id": "resp_1",
        "model_name": "gpt-x",
        "model_provider": "openai",
        "object": "response",
        "status": "completed",
        "finish_reason": "completed",
        "service_tier": "default",
        "novelty": [1],
        "usage": USAGE,
        "message_item": {"id": "msg_1"},
    }
    assert decoded.message.usage_metadata == {
        "input_tokens": 5,
        "output_tokens": 4,
        "total_tokens": 9,
        "input_token_details": {"cache_read": 1, "cache_creation": 2},
        "output_token_details": {"reasoning": 3},
    }


@pytest.mark.parametrize(
    ("fields", "reason", "word"),
    [
        ({}, "stop", "completed"),
        ({"status": None}, "stop", "completed"),
        ({"status": "cancelled"}, "cancelled", "cancelled"),
        ({"status": "queued"}, "queued", "queued"),
        ({"status": "incomplete"}, "incomplete", "incomplete"),
        ({"incomplete_details": {"reason": "content_filter"}}, "content_filter", "content_filter"),
        ({"incomplete_details": {"reason": "steered"}}, "steered", "steered"),
    ],
)
def test_finish_reasons(fields: Body, reason: str, word: str) -> None:
    found = whole(message(text("a")), **fields).message
    assert (found.finish_reason, found.response_metadata["finish_reason"]) == (reason, word)


def test_progress_says_nothing() -> None:
    at = {"output_index": 0, "item_id": "x"}
    quiet = [
        ("queued", {"response": response(status="queued")}),
        ("in_progress", {"response": response(status="in_progress")}),
        ("compaction.compacting", at),
        ("novel_call.brewing", at),
        ("content_part.added", {**at, "content_index": 0, "part": text("")}),
    ]
    assert stream(*quiet).chunks == []


def test_unknown_events_are_kept() -> None:
    decoded = stream(("steer.accepted", {"steer": {"id": "s"}}), completed(message(text("a"))))
    (event,) = decoded.message.response_metadata["unknown_events"]
    assert event["steer"] == {"id": "s"}


def test_an_item_told_under_another_index_is_not_told_again() -> None:
    item = message(text("Hi"))
    decoded = stream(*told(3, item, delta("Hi")), completed(thought(), item))
    assert decoded.message.text == "Hi"
    assert [block["type"] for block in blocks(decoded)] == ["text", "reasoning"]


def test_the_end_marker_of_other_vendors() -> None:
    body = sse(("response.created", {"response": response()}), ("response.completed", {}))
    decoded = decode("openai_responses", body + b"data: [DONE]\n\n")
    assert (decoded.error, decoded.message.finish_reason) == (None, "stop")
    text_only = sse(("response.output_text.delta", {"delta": "a"})) + b"data: [DONE]\n\n"
    decoded = decode("openai_responses", text_only)
    assert (decoded.error, decoded.message.text) == (None, "a")
    assert isinstance(decode("openai_responses", text_only[:-14]).error, StreamInterruptedError)


# ---- errors --------------------------------------------------------------------------------------

HI = told(0, message(text("Hi")), delta("Hi"))[:2]
ERRORS = [
    ("server_error", ServerError, True),
    ("rate_limit_exceeded", RateLimitError, True),
    ("server_is_overloaded", OverloadedError, True),
    ("slow_down", OverloadedError, True),
    ("insufficient_quota", RateLimitError, False),
    ("invalid_prompt", InvalidRequestError, False),
    ("image_too_large", InvalidRequestError, False),
    ("context_length_exceeded", ContextOverflowError, False),
    ("bio_policy", InvalidRequestError, False),
    ("never_heard_of", ServerError, True),
]


@pytest.mark.parametrize("form", ["error", "nested", "failed"])
@pytest.mark.parametrize(("code", "error_type", "retryable"), ERRORS)
def test_errors_in_a_stream(code: str, error_type: type, retryable: bool, form: str) -> None:
    """As an event of their own (Azure nests them), or as the end of the answer; what had come is
    kept, and so are the figures."""
    error = {"code": code, "message": "It broke."}
    last = {
        "error": ("error", error),
        "nested": ("error", {"error": error}),
        "failed": ("failed", {"response": response(status="failed", error=error)}),
    }[form]
    decoded = stream(*HI, last, delta("late"))
    assert type(decoded.error) is error_type
    assert (decoded.error.message, decoded.error.code) == ("It broke.", code)
    assert decoded.error.retryable is retryable
    assert decoded.message.text == "Hi"
    assert decoded.message.finish_reason == "error"
    assert (decoded.message.usage_metadata is not None) == (form == "failed")


def test_an_error_in_a_body() -> None:
    error = {"code": "server_error", "message": "It broke."}
    decoded = whole(message(text("Hi")), status="failed", error=error)
    assert type(decoded.error) is ServerError
    assert decoded.error.model == "gpt-x"
    assert decoded.message.text == "Hi"
    bare = decode_whole("openai_responses", b'{"code": "invalid-argument", "error": "No."}')
    assert (type(bare.error), bare.error and bare.error.message) == (ServerError, "No.")


@pytest.mark.parametrize("code", ["content_filter", "content_policy_violation", "bio_policy"])
def test_a_blocked_prompt(code: str) -> None:
    error = {"code": code, "message": "No."}
    decoded = stream(("failed", {"response": response(status="failed", error=error)}))
    assert type(decoded.error) is ContentFilterError
    assert (decoded.error.code, decoded.error.retryable) == (code, False)


def test_a_filter_without_and_with_an_answer() -> None:
    ends = {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
    assert type(whole(**ends).error) is ContentFilterError
    decoded = stream(*HI, ("incomplete", {"response": response(**ends)}))
    assert decoded.error is None
    assert (decoded.message.text, decoded.message.finish_reason) == ("Hi", "content_filter")


# ---- the short way -------------------------------------------------------------------------------

ORDERS = {
    "first": lambda p, n: {"type": p.pop("type"), "sequence_number": n, **p},
    "before all": lambda p, n: {"sequence_number": n, **p},
    "in the middle": lambda p, n: dict(sorted({**p, "sequence_number": n}.items())),
    "last": lambda p, n: {**p, "sequence_number": n},
}


def counted(order: Any, numbers: Iterable[Any]) -> list[bytes]:
    blocks = []
    for n in numbers:
        payload = {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": f"t{n} ",
            "logprobs": [],
            "obfuscation": "xyzvwq"[: 1 + n % 5],
        }
        data = json.dumps(order(payload, n), separators=(",", ":"))
        blocks.append(f"event: response.output_text.delta\ndata: {data}\n\n".encode())
    return blocks


@pytest.mark.parametrize("reads", ["one by one", "at once"])
@pytest.mark.parametrize("order", ORDERS)
def test_payloads_that_are_counted_take_the_short_way(
    order: str, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = 0
    take = Decoder._frame

    def counting(self: Any, *args: Any) -> None:
        nonlocal complete
        complete += 1
        take(self, *args)

    monkeypatch.setattr(Decoder, "_frame", counting)
    blocks = counted(ORDERS[order], range(8, 208))
    decoder = Decoder()
    chunks = decoder.feed(blocks[0])
    for read in blocks[1:] if reads == "one by one" else [b"".join(blocks[1:])]:
        chunks += decoder.feed(read)
    assert [chunk.text for chunk in chunks] == [f"t{n} " for n in range(8, 208)]
    assert all(type(chunk) is TextChunk for chunk in chunks[1:])
    # The first text opens its block, so it is the second that the template is learnt from.
    assert complete <= (3 if reads == "one by one" else 200)


@pytest.mark.parametrize(
    "number",
    [b"5.0", b'"5"', b"05", b"-5", b"5e1", b"null", b"[5]", b"", b"5,", b'5,"delta":"twice"'],
)
def test_what_is_no_count_goes_the_complete_way(number: bytes) -> None:
    """To the same chunks, or to the same error."""
    plain = counted(ORDERS["last"], range(1, 9))
    odd = plain[5].replace(b'"sequence_number":6', b'"sequence_number":' + number)
    assert odd != plain[5]
    body = [*plain[:5], odd, *plain[5:]]
    short = decode("openai_responses", body)
    complete = decode("openai_responses", body, short_way=False)
    assert short.events == complete.events
    assert repr(short.error) == repr(complete.error)


def learnt(block: bytes, key: str | None = "n") -> Template | None:
    return Template.learn(block, "a", ("t",), b"\n\n", 0, key)


def texts(template: Template, payloads: bytes) -> list[str] | None:
    chunks = template.chunks(payloads)
    return None if chunks is None else [str(chunk.text) for chunk in chunks]


def test_a_template_lets_only_the_number_of_its_key_vary() -> None:
    template = learnt(b'data: {"n":7,"m":7,"t":"a"}')
    assert template is not None
    assert texts(template, b'data: {"n":123,"m":7,"t":"b"}\n\n') == ["b"]
    for other in (
        b'"n":7,"m":8',
        b'"n":07,"m":7',
        b'"n":-7,"m":7',
        b'"n":7.5,"m":7',
        b'"n":,"m":7',
    ):
        assert texts(template, b"data: {" + other + b',"t":"b"}\n\n') is None
    for block in (
        b'{"n":7.0,"t":"a"}',
        b'{"n":true,"t":"a"}',
        b'{"x":{"n":7},"t":"a"}',
        b'{"t":"a"}',
    ):
        fixed = learnt(b"data: " + block)
        assert fixed is not None
        assert texts(fixed, b"data: " + block + b"\n\n") == ["a"]
        assert texts(fixed, b"data: " + block.replace(b"7", b"8") + b"\n\n") in (None, ["a"])
    inner = learnt(b'data: {"n":7,"x":{"n":7},"t":"a"}')
    assert inner is not None
    assert texts(inner, b'data: {"n":8,"x":{"n":7},"t":"b"}\n\n') is None, (
        "which one it is, is not plain"
    )
    unkeyed = learnt(b'data: {"n":7,"t":"a"}', None)
    assert unkeyed is not None
    assert texts(unkeyed, b'data: {"n":8,"t":"a"}\n\n') is None
