"""Bedrock Converse requests: what is sent for what was asked.

Every body is also held against AWS's own service model, as botocore has it.
"""

from __future__ import annotations

import base64
import json
import warnings
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from streamfold.errors import ConfigurationError
from streamfold.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from streamfold.wire.bedrock_request import encode
from streamfold.wire.request import ChatRequest

HI = HumanMessage("hi")
CLAUDE = "us.anthropic.claude-sonnet-5"
OLD_CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
SENT_CALL = {"toolUse": {"toolUseId": "c1", "name": "add", "input": {"a": 1}}}
BAD_CALL = {"type": "invalid_tool_call", "name": "f.g", "args": '{"a', "id": "c2", "error": "cut"}
SENT_BAD = {"toolUse": {"toolUseId": "c2", "name": "f_g", "input": {}}}
CACHE = {"type": "ephemeral"}
POINT = {"cachePoint": {"type": "default"}}
HOUR = {"cachePoint": {"type": "default", "ttl": "1h"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
ADD = {"type": "function", "function": {"name": "add", "description": "d", "parameters": SCHEMA}}
SPEC = {"toolSpec": {"name": "add", "description": "d", "inputSchema": {"json": SCHEMA}}}
ONE = ToolMessage("1", tool_call_id="c1", name="add")
TWO = ToolMessage("2", tool_call_id="c2", status="error")
RESULT = {"toolResult": {"toolUseId": "c1", "content": [{"text": "1"}]}}
RESULT_2 = {"toolResult": {"toolUseId": "c2", "content": [{"text": "2"}], "status": "error"}}
PNG = base64.b64encode(b"png").decode()
SENT_IMAGE = {"image": {"format": "png", "source": {"bytes": PNG}}}


@cache
def converse_shape() -> Any:
    loader = botocore.session.Session().get_component("data_loader")
    from botocore.model import ServiceModel

    model = loader.load_service_model("bedrock-runtime", "service-2")
    return ServiceModel(model).operation_model("Converse").input_shape


def check(body: dict[str, Any], model: str) -> None:
    """AWS's own idea of the request."""
    report = ParamValidator().validate({"modelId": model, **with_bytes(body)}, converse_shape())
    assert not report.has_errors(), report.generate_report()


def with_bytes(value: Any) -> Any:
    """JSON has base64 where the service model has bytes."""
    if isinstance(value, dict):
        return {
            k: base64.b64decode(v) if k in ("bytes", "redactedContent") else with_bytes(v)
            for k, v in value.items()
        }
    return [with_bytes(each) for each in value] if isinstance(value, list) else value


def body(*messages: BaseMessage, model: str = CLAUDE, **fields: Any) -> dict[str, Any]:
    request = encode(ChatRequest(model=model, messages=list(messages) or [HI], **fields))
    found: dict[str, Any] = json.loads(request.body)
    check(found, model)
    return found


def sent(*messages: BaseMessage, **fields: Any) -> list[tuple[str, Any]]:
    return [(m["role"], m["content"]) for m in body(*messages, **fields)["messages"]]


def only(*messages: BaseMessage, **fields: Any) -> Any:
    """The one block that is sent."""
    ((_, (block,)),) = sent(*messages, **fields)
    return block


def rows(table: list[Any]) -> list[Any]:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


def text(words: str) -> dict[str, Any]:
    return {"text": words}


# ---- where it goes -------------------------------------------------------------------------------

ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-lite-v1:0"


@pytest.mark.parametrize(
    ("model", "quoted"),
    [
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
        (
            ARN,
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F"
            "us.amazon.nova-lite-v1%3A0",
        ),
        ("a_b-c.d~e", "a_b-c.d~e"),
        ("../x?y#z %", "..%2Fx%3Fy%23z%20%25"),
    ],
)
def test_path(model: str, quoted: str) -> None:
    for stream, verb in ((False, "converse"), (True, "converse-stream")):
        request = encode(ChatRequest(model=model, messages=[HI], stream=stream))
        assert request.path == f"/model/{quoted}/{verb}"
    assert request.headers == {"accept": "application/vnd.amazon.eventstream"}
    assert json.loads(request.body) == {"messages": [{"role": "user", "content": [text("hi")]}]}


# ---- the conversation ----------------------------------------------------------------------------

CALLS = AIMessage("", tool_calls=[CALL, {**CALL, "id": "c2"}])
SENT_CALLS = [SENT_CALL, {"toolUse": {**SENT_CALL["toolUse"], "toolUseId": "c2"}}]

CONVERSATIONS = [
    ("one", [HI], [("user", [text("hi")])]),
    ("roles alternate", [HI, HI, AIMessage("a"), AIMessage("b"), HI],
     [("user", [text("hi"), text("hi")]), ("assistant", [text("a"), text("b")]),
      ("user", [text("hi")])]),
    ("results together", [HI, CALLS, ONE, TWO],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [RESULT, RESULT_2])]),
    ("results first", [HI, CALLS, HI, ONE, SystemMessage("s"), TWO],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [RESULT, RESULT_2, text("hi")])]),
    ("native results stay in their message", [HI, CALLS, HumanMessage([text("x"), RESULT])],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [text("x"), RESULT])]),
    ("empty answers", [HI, AIMessage(""), AIMessage("\n"), HI], [("user", [text("hi")] * 2)]),
    ("blanks join the text before", [HI, AIMessage([text("a"), text(" "), text("\n"), CALL]), ONE],
     [("user", [text("hi")]), ("assistant", [text("a \n"), SENT_CALL]), ("user", [RESULT])]),
    ("blanks join the text after", [HI, AIMessage([text("\n"), text("a")])],
     [("user", [text("hi")]), ("assistant", [text("\na")])]),
    ("blanks with no text near", [HI, AIMessage([text("\n"), CALL, text(" ")]), ONE],
     [("user", [text("hi")]), ("assistant", [SENT_CALL]), ("user", [RESULT])]),
    ("blanks do not cross a call", [HI, AIMessage([text("\n"), CALL, text("a")]), ONE],
     [("user", [text("hi")]), ("assistant", [SENT_CALL, text("a")]), ("user", [RESULT])]),
    ("an empty user message", [HumanMessage("")], [("user", [text("")])]),
    ("an empty result", [HI, CALLS, ToolMessage("", tool_call_id="c1"),
                         ToolMessage([text(" ")], tool_call_id="c2")],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [
         {"toolResult": {"toolUseId": id, "content": [text("(no output)")]}}
         for id in ("c1", "c2")])]),
    ("a result of parts", [HI, CALLS, TWO, ToolMessage(
        [{"type": "text", "text": "t"}, {"json": {"a": 1}},
         {"type": "image", "base64": PNG, "mime_type": "image/png"}], tool_call_id="c1")],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [RESULT_2, {"toolResult": {
         "toolUseId": "c1", "content": [text("t"), {"json": {"a": 1}}, SENT_IMAGE]}}])]),
    ("marks", [HumanMessage([{"type": "text", "text": "a", "cache_control": CACHE}, text("b")],
                            extras={"cache_control": {**CACHE, "ttl": "1h"}})],
     [("user", [text("a"), POINT, text("b"), HOUR])]),
    ("a marked result", [HI, CALLS, TWO, ToolMessage(
        [{"type": "text", "text": "1", "extras": {"cache_control": CACHE}}], tool_call_id="c1")],
     [("user", [text("hi")]), ("assistant", SENT_CALLS), ("user", [RESULT_2, RESULT, POINT])]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "expected"), rows(CONVERSATIONS))
def test_conversation(messages: list[BaseMessage], expected: list[Any]) -> None:
    assert sent(*messages, tools=[ADD]) == expected


SYSTEMS = [
    ("one", [SystemMessage("s"), HI], {}, [text("s")]),
    ("in order", [SystemMessage("a"), HI, SystemMessage("b")], {}, [text("a"), text("b")]),
    ("developer", [SystemMessage("d", extras={"role": "developer"}), HI], {}, [text("d")]),
    ("marked", [SystemMessage("a", extras={"cache_control": CACHE}), HI], {}, [text("a"), POINT]),
    ("native", [SystemMessage([text("a"), POINT]), HI], {}, [text("a"), POINT]),
    ("blank", [SystemMessage("\n"), HI], {}, None),
    ("as a parameter", [SystemMessage("b"), HI], {"system": ["a", POINT]},
     [text("a"), POINT, text("b")]),
    ("as a str", [HI], {"system": "a"}, [text("a")]),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "extra", "expected"), rows(SYSTEMS))
def test_system(messages: list[BaseMessage], extra: dict[str, Any], expected: Any) -> None:
    found = body(*messages, extra=extra)
    assert found.get("system") == expected
    assert {message["role"] for message in found["messages"]} == {"user"}


def test_fields_of_messages_have_no_place() -> None:
    messages = [HumanMessage("hi", name="Bo"), AIMessage("a", extras={"refusal": "no"})]
    with pytest.warns(UserWarning, match="name of a message, refusal of a message"):
        assert sent(*messages) == [("user", [text("hi")]), ("assistant", [text("a")])]


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("functions.add:0", "functions.add:0"),
        ("a|b/c", "a_b_c"),
        ("é" * 3, "___"),
        ("x" * 64, "x" * 64),
    ],
)
def test_ids_of_other_vendors_are_rewritten_alike(id: str, expected: str) -> None:
    call = {**CALL, "id": id}
    _, (_, (use,)), (_, (result,)) = sent(
        HI, AIMessage("", tool_calls=[call]), ToolMessage("1", tool_call_id=id), tools=[ADD]
    )
    assert use["toolUse"]["toolUseId"] == result["toolResult"]["toolUseId"] == expected


def test_long_ids_stay_apart() -> None:
    ids = [f"{'x' * 80}{n}" for n in range(2)]
    calls = AIMessage("", tool_calls=[{**CALL, "id": id} for id in ids])
    results = [ToolMessage("1", tool_call_id=id) for id in ids]
    _, (_, uses), (_, answers) = sent(HI, calls, *results, tools=[ADD])
    sent_ids = [use["toolUse"]["toolUseId"] for use in uses]
    assert [len(id) for id in sent_ids] == [64, 64]
    assert sent_ids == [answer["toolResult"]["toolUseId"] for answer in answers]
    assert len(set(sent_ids)) == 2


# ---- blocks of an answer -------------------------------------------------------------------------

CITATION = {
    "title": "t",
    "sourceContent": [text("c")],
    "location": {"documentChar": {"documentIndex": 0, "start": 0, "end": 1}},
}
SEARCH = {"location": {"searchResultLocation": {"searchResultIndex": 0}}}


def cited(words: str, *natives: Any) -> dict[str, Any]:
    notes = [{"type": "citation", "extras": {"native": native}} for native in natives]
    return {"type": "text", "text": words, "annotations": notes}


def reasoned(words: str, **extras: Any) -> dict[str, Any]:
    return {"type": "reasoning", "reasoning": words, "extras": extras}


def thought(**inner: Any) -> dict[str, Any]:
    return {"reasoningContent": {"reasoningText": inner}}


SERVER_USE = {
    "toolUseId": "s",
    "name": "nova_grounding",
    "input": {"q": 1},
    "type": "server_tool_use",
}
SERVER_RESULT = {
    "toolUseId": "s", "content": [text("x")], "status": "success", "type": "nova_grounding_result"
}  # fmt: skip

ANSWERS = [
    ("signed", reasoned("r", signature="s"), thought(text="r", signature="s")),
    ("signed, without text", reasoned("", signature="s"), thought(text="", signature="s")),
    ("unsigned", reasoned("r"), None),
    ("encrypted", reasoned("", redacted_content="cmVk"),
     {"reasoningContent": {"redactedContent": "cmVk"}}),
    ("encrypted, as Anthropic has it", reasoned("", redacted_data="red"),
     {"reasoningContent": {"redactedContent": base64.b64encode(b"red").decode()}}),
    ("citations", cited("t", CITATION),
     {"citationsContent": {"content": [text("t")], "citations": [CITATION]}}),
    ("citations without text", cited("", CITATION),
     {"citationsContent": {"citations": [CITATION]}}),
    ("citations that cannot return", cited("t", SEARCH), text("t")),
    ("citations of others", {"type": "text", "text": "t", "annotations": [{"type": "citation"}]},
     text("t")),
    ("server tool", {"type": "server_tool_call", "id": "s", "name": "nova_grounding",
                     "args": {"q": 1}, "extras": {"block_type": "server_tool_use"}},
     {"toolUse": SERVER_USE}),
    ("its result", {"type": "server_tool_result", "tool_call_id": "s", "status": "success",
                    "output": [text("x")], "extras": {"block_type": "nova_grounding_result"}},
     {"toolResult": SERVER_RESULT}),
    ("an image", {"type": "image", "base64": PNG, "mime_type": "image/png"},
     {"image": {"format": "png", "source": {"bytes": PNG}}}),
    ("non-standard", {"type": "non_standard", "value": POINT}, POINT),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(ANSWERS))
def test_answer(block: dict[str, Any], expected: Any) -> None:
    found = sent(HI, AIMessage([block, text("x")]), tools=[ADD])[1:]
    assert found == [("assistant", [*([expected] if expected else []), text("x")])]


def by(provider: str, model: str | None, *content: Any) -> AIMessage:
    metadata = {"model_provider": provider, **({"model_name": model} if model else {})}
    return AIMessage(list(content), response_metadata=metadata)


@pytest.mark.parametrize(
    ("model", "said", "kept"),
    [
        (CLAUDE, by("bedrock", None, reasoned("r", signature="s"), text("x")), True),
        (CLAUDE, by("anthropic", "claude-opus-4", reasoned("r", signature="s"), text("x")), True),
        (CLAUDE, by("openai", "gpt-5", reasoned("r", signature="s"), text("x")), False),
        (CLAUDE, by("bedrock", NOVA, reasoned("r", signature="s"), text("x")), False),
        (NOVA, by("anthropic", "claude-opus-4", reasoned("r", signature="s"), text("x")), False),
        (NOVA, by("bedrock", NOVA, reasoned("r"), text("x")), True),
        ("openai.gpt-oss-120b-1:0", by("bedrock", None, reasoned("r"), text("x")), True),
        ("deepseek.r1-v1:0", by("bedrock", None, reasoned("r"), text("x")), False),
        (CLAUDE, by("bedrock", None, reasoned("r"), text("x")), False),
    ],
)
def test_whose_reasoning_goes_back(model: str, said: AIMessage, kept: bool) -> None:
    """It counts for its maker only, and unsigned for few. What another made is left out aloud."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (_, content) = sent(HI, said, model=model, provider="bedrock")[1]
    assert ("reasoningContent" in content[0]) is kept
    foreign = not kept and said.response_metadata.get("model_name") is not None
    assert [("reasoning of another provider" in str(w.message)) for w in caught] == [True] * foreign


def test_what_other_providers_keep_for_themselves() -> None:
    answer = by(
        "anthropic", "claude-x",
        cited("t", {"type": "char_location"}),
        {**CALL, "extras": {"caller": {"type": "direct"}}},
        {"type": "server_tool_call", "id": "s", "name": "web_search", "args": {},
         "extras": {"block_type": "server_tool_use"}},
        {"type": "server_tool_result", "tool_call_id": "s", "status": "success"},
        {"type": "non_standard", "value": {"type": "container_upload"}},
        {"type": "image", "url": "https://x/y.png"},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="web_search of another provider.*container_upload.*image"):
        found = sent(HI, answer, ONE, tools=[ADD], provider="bedrock")
    assert found[1] == ("assistant", [text("t"), SENT_CALL])


def test_unreadable_calls() -> None:
    """Sent with an empty input if a result answers them, else left out."""
    answer = AIMessage([text("x"), BAD_CALL])
    found = sent(HI, answer, TWO, tools=[ADD])
    assert found[1:] == [("assistant", [text("x"), SENT_BAD]), ("user", [RESULT_2])]
    with pytest.warns(UserWarning, match="unreadable tool call without a result"):
        assert sent(HI, answer, tools=[ADD])[1:] == [("assistant", [text("x")])]


# ---- media ---------------------------------------------------------------------------------------

PDF = {"type": "file", "base64": PNG, "mime_type": "application/pdf"}
S3 = {"s3Location": {"uri": "s3://b/k"}}


def document(word: str, name: str, source: Any, **fields: Any) -> dict[str, Any]:
    return {"document": {"format": word, "name": name, "source": source, **fields}}


MEDIA = [
    ("image", {"type": "image", "base64": PNG, "mime_type": "image/jpeg"},
     {"image": {"format": "jpeg", "source": {"bytes": PNG}}}),
    ("image_url", {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{PNG}",
                                                      "detail": "high"}},
     {"image": {"format": "webp", "source": {"bytes": PNG}}}),
    ("image in S3", {"type": "image", "url": "s3://b/k.PNG"},
     {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k.PNG"}}}}),
    ("video in S3", {"type": "video", "url": "s3://b/k", "mime_type": "video/quicktime",
                     "extras": {"bucket_owner": "123456789012"}},
     {"video": {"format": "mov", "source": {
         "s3Location": {"uri": "s3://b/k", "bucketOwner": "123456789012"}}}}),
    ("video", {"type": "video", "base64": PNG, "mime_type": "video/3gpp"},
     {"video": {"format": "three_gp", "source": {"bytes": PNG}}}),
    ("audio", {"type": "audio", "base64": PNG, "mime_type": "audio/mpeg"},
     {"audio": {"format": "mp3", "source": {"bytes": PNG}}}),
    ("input_audio", {"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}},
     {"audio": {"format": "wav", "source": {"bytes": PNG}}}),
    ("pdf", {**PDF, "extras": {"filename": "my report.v2.pdf"}},
     document("pdf", "my report-v2", {"bytes": PNG})),
    ("OpenAI's file", {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG}",
                                                "filename": "a.pdf"}},
     document("pdf", "a", {"bytes": PNG})),
    ("unnamed", PDF, document("pdf", "document-5e1d8cba", {"bytes": PNG})),
    ("unnameable", {**PDF, "name": "Отчёт.pdf"},
     document("pdf", "document-5e1d8cba", {"bytes": PNG})),
    ("text file", {**PDF, "mime_type": "text/x-python; charset=utf-8", "name": "n"},
     document("txt", "n", {"bytes": PNG})),
    ("markdown", {**PDF, "mime_type": "text/markdown", "name": "n"},
     document("md", "n", {"bytes": PNG})),
    ("file in S3", {"type": "file", "url": "s3://b/k", "mime_type": "text/csv", "name": "n"},
     document("csv", "n", S3)),
    ("text", {"type": "text-plain", "text": "t", "title": "n", "context": "c",
              "extras": {"citations": {"enabled": True}}},
     document("txt", "n", {"text": "t"}, context="c", citations={"enabled": True})),
    ("text as data", {"type": "text-plain", "base64": PNG, "title": "n"},
     document("txt", "n", {"text": "png"})),
    ("text in S3", {"type": "text-plain", "url": "s3://b/k", "title": "n"},
     document("txt", "n", S3)),
    ("native", {"image": {"format": "gif", "source": {"bytes": PNG}}},
     {"image": {"format": "gif", "source": {"bytes": PNG}}}),
    ("native, with a type", {"type": "document", "document": {"name": "n", "source": S3}},
     {"document": {"name": "n", "source": S3}}),
    ("guarded", {"guardContent": {"text": {"text": "t", "qualifiers": ["query"]}}},
     {"guardContent": {"text": {"text": "t", "qualifiers": ["query"]}}}),
]  # fmt: skip


@pytest.mark.parametrize(("block", "expected"), rows(MEDIA))
def test_media(block: dict[str, Any], expected: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert only(HumanMessage([block])) == expected


def test_bytes_as_botocore_takes_them() -> None:
    image = {"format": "png", "source": {"bytes": b"png"}}
    assert only(HumanMessage([{"image": image}])) == {
        "image": {"format": "png", "source": {"bytes": PNG}}
    }


def test_no_two_documents_have_the_same_name() -> None:
    """In messages and results alike; the caller's blocks are not changed."""
    native = document("pdf", "a", {"bytes": PNG})
    blocks = [native, {**PDF, "name": "a.pdf"}, PDF, PDF, {**PDF, "name": "a"}]
    answer = AIMessage("", tool_calls=[CALL])
    result = ToolMessage([{**PDF, "name": "a"}], tool_call_id="c1")
    found = sent(HumanMessage(blocks), answer, result, tools=[ADD])
    assert [b["document"]["name"] for b in found[0][1]] == [
        "a", "a (2)", "document-5e1d8cba", "document-5e1d8cba (2)", "a (3)"
    ]  # fmt: skip
    assert found[2][1][0]["toolResult"]["content"][0]["document"]["name"] == "a (4)"
    assert native["document"]["name"] == "a"


def test_fields_of_blocks_without_a_place() -> None:
    blocks = [{**text("a"), "type": "text", "new": 1}, {**PDF, "name": "n", "extras": {"page": 2}}]
    with pytest.warns(UserWarning, match="new of a text block, page of a file block"):
        sent(HumanMessage(blocks))


WRONG_BLOCKS = [
    ("a url", {"type": "image", "url": "https://x/y.png"}, "only from s3://"),
    ("no type", {"type": "image", "base64": PNG}, "mime_type None"),
    ("a type of its own", {"type": "image", "base64": PNG, "mime_type": "image/tiff"},
     "takes image/png, image/jpeg"),
    ("an unknown file", {**PDF, "mime_type": "application/zip"}, "takes application/pdf"),
    ("a file id", {"type": "file", "file_id": "f"}, "base64 or url"),
    ("unknown", {"type": "imge", "x": 1}, "unknown type 'imge'.*non_standard"),
    ("nothing", {"x": 1}, "has no type"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "says"), rows(WRONG_BLOCKS))
def test_blocks_that_cannot_be_sent(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        body(HumanMessage([block]))


def test_a_system_message_has_only_text() -> None:
    with pytest.raises(ConfigurationError, match="system message has a image block"):
        body(SystemMessage([{"type": "image", "base64": PNG, "mime_type": "image/png"}]), HI)


# ---- parameters ----------------------------------------------------------------------------------


def test_inference() -> None:
    found = body(temperature=0.5, top_p=0.9, max_tokens=7, stop=["x"])
    assert found["inferenceConfig"] == {
        "maxTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]
    }  # fmt: skip
    assert body().keys() == {"messages"}


def test_seed_has_no_place() -> None:
    with pytest.warns(UserWarning, match="Bedrock Converse takes no such thing: seed"):
        assert body(seed=1).keys() == {"messages"}


EXTRAS = [
    ("the API's own", {"requestMetadata": {"a": "b"}, "promptVariables": {"x": {"text": "y"}}},
     {"requestMetadata": {"a": "b"}, "promptVariables": {"x": {"text": "y"}}}),
    ("Python's names", {"performance_config": {"latency": "optimized"}, "service_tier": "priority",
                        "request_metadata": {"a": "b"},
                        "additional_model_response_field_paths": ["/usage"]},
     {"performanceConfig": {"latency": "optimized"}, "serviceTier": {"type": "priority"},
      "requestMetadata": {"a": "b"}, "additionalModelResponseFieldPaths": ["/usage"]}),
    ("a guardrail", {"guardrails": {"guardrail_identifier": "i", "guardrailVersion": "1"}},
     {"guardrailConfig": {"guardrailIdentifier": "i", "guardrailVersion": "1"}}),
    ("fields of a model", {"thinking": {"type": "disabled"}, "top_k": 5,
                           "additional_model_request_fields": {"top_k": 6, "x": 1}},
     {"additionalModelRequestFields": {"thinking": {"type": "disabled"}, "top_k": 6, "x": 1}}),
    ("merged", {"inferenceConfig": {"temperature": 0.5}},
     {"inferenceConfig": {"maxTokens": 7, "temperature": 0.5}}),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "expected"), rows(EXTRAS))
def test_extra(extra: dict[str, Any], expected: dict[str, Any]) -> None:
    found = body(extra=extra, max_tokens=7)
    assert found == {
        "messages": found["messages"], "inferenceConfig": {"maxTokens": 7}, **expected
    }  # fmt: skip


EFFORTS = [
    (CLAUDE, "high",
     {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, None),
    (CLAUDE, "none", {"thinking": {"type": "disabled"}}, None),
    ("anthropic.claude-opus-4-6-v1", "low",
     {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, None),
    (OLD_CLAUDE, "high", {"thinking": {"type": "enabled", "budget_tokens": 16384}}, None),
    ("anthropic.claude-opus-4-5-20251101-v1:0", "low",
     {"thinking": {"type": "enabled", "budget_tokens": 2048}}, None),
    ("anthropic.claude-3-7-sonnet-20250219-v1:0", "none", {"thinking": {"type": "disabled"}}, None),
    (NOVA, "low", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, None),
    (NOVA, "none", {"reasoningConfig": {"type": "disabled"}}, None),
    ("openai.gpt-oss-120b-1:0", "low", {"reasoning_effort": "low"}, None),
    ("openai.gpt-5.6", "low", {"reasoning": {"effort": "low"}}, None),
    ("moonshot.kimi-k2-thinking", "high", {"reasoning_effort": "high"}, None),
    ("qwen.qwen3-32b-v1:0", "high", None, {"effort": "high"}),
    (ARN.replace("us.amazon.nova-lite", "x"), "high", None, {"effort": "high"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "effort", "additional", "output"), EFFORTS)
def test_reasoning_effort(model: str, effort: str, additional: Any, output: Any) -> None:
    """In the words of the model's maker; where there are none, in the API's."""
    found = body(model=model, reasoning_effort=effort)
    assert found.get("additionalModelRequestFields") == additional
    assert found.get("outputConfig") == output


def test_what_the_caller_says_of_thinking_wins() -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    found = body(reasoning_effort="low", extra={"thinking": thinking})
    assert found["additionalModelRequestFields"]["thinking"] == thinking


def test_a_budget_stays_below_the_limit() -> None:
    found = body(model=OLD_CLAUDE, reasoning_effort="high", max_tokens=4000)
    assert found["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 3999
    with pytest.raises(ConfigurationError, match="takes minimal, low, medium"):
        body(model=OLD_CLAUDE, reasoning_effort="hard")


def test_nova_thinks_hard_without_limits() -> None:
    with pytest.warns(UserWarning, match="maxTokens with high reasoning effort, temperature with"):
        found = body(model=NOVA, reasoning_effort="high", max_tokens=5, temperature=0, stop=["x"])
    assert found["inferenceConfig"] == {"stopSequences": ["x"]}


def test_the_model_behind_an_arn() -> None:
    found = body(model=ARN, reasoning_effort="low", extra={"base_model_id": CLAUDE})
    assert found["additionalModelRequestFields"]["thinking"] == {"type": "adaptive"}
    assert found.keys() == {"messages", "additionalModelRequestFields"}


def test_json_schema() -> None:
    """As a str, and closed at every level, as the API wants it; the caller's is not changed."""
    inner = {"type": "array", "items": {"type": "object", "properties": {}}}
    schema = {"type": "object", "properties": {"a": inner}, "$defs": {"D": {"type": "object"}}}
    before = json.dumps(schema)
    named = {"name": "n", "description": "d", "schema": schema, "strict": True}
    found = body(response_format={"type": "json_schema", "json_schema": named})["outputConfig"]
    asked = found["textFormat"]["structure"]["jsonSchema"]
    assert found["textFormat"]["type"] == "json_schema"
    assert (asked["name"], asked["description"]) == ("n", "d")
    assert json.loads(asked["schema"]) == {
        "type": "object",
        "properties": {
            "a": {
                "type": "array",
                "items": {"type": "object", "properties": {}, "additionalProperties": False},
            }
        },
        "$defs": {"D": {"type": "object", "additionalProperties": False}},
        "additionalProperties": False,
    }
    assert json.dumps(schema) == before
    assert "outputConfig" not in body(response_format={"type": "text"})


def test_an_open_schema_stays_open() -> None:
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    found = body(response_format={"type": "json_schema", "schema": schema})["outputConfig"]
    assert json.loads(found["textFormat"]["structure"]["jsonSchema"]["schema"]) == schema


@pytest.mark.parametrize("given", [{"type": "json_object"}, {"type": "json_schema"}])
def test_no_free_json(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="no free JSON mode"):
        body(response_format=given)


# ---- tools ---------------------------------------------------------------------------------------

TOOLS = [
    ("OpenAI's", ADD, [SPEC]),
    ("flat", {"type": "function", "name": "add", "description": "d", "parameters": SCHEMA}, [SPEC]),
    ("Anthropic's", {"name": "add", "description": "d", "input_schema": SCHEMA}, [SPEC]),
    ("strict", {**ADD, "function": {**ADD["function"], "strict": True}},  # type: ignore[dict-item]
     [{"toolSpec": {**SPEC["toolSpec"], "strict": True}}]),
    ("bare", {"name": "now"},
     [{"toolSpec": {"name": "now", "inputSchema": {"json": {**SCHEMA, "properties": {}}}}}]),
    ("no empty description", {"name": "add", "description": "", "parameters": SCHEMA},
     [{"toolSpec": {"name": "add", "inputSchema": {"json": SCHEMA}}}]),
    ("marked", {**ADD, "cache_control": CACHE}, [SPEC, POINT]),
    ("native", SPEC, [SPEC]),
    ("system tool", {"systemTool": {"name": "nova_grounding"}},
     [{"systemTool": {"name": "nova_grounding"}}]),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "expected"), rows(TOOLS))
def test_tools(tool: dict[str, Any], expected: list[Any]) -> None:
    assert body(tools=[tool])["toolConfig"] == {"tools": expected}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("web_search", "nova_grounding"),
        ("code_execution", "nova_code_interpreter"),
        ("code_interpreter", "nova_code_interpreter"),
    ],
)
def test_server_tools(kind: str, name: str) -> None:
    found = body(model=NOVA, tools=[{"type": kind}])
    assert found["toolConfig"] == {"tools": [{"systemTool": {"name": name}}]}
    with pytest.raises(ConfigurationError, match="with Amazon Nova"):
        body(tools=[{"type": kind}])


def test_tools_that_only_claude_has() -> None:
    computer = {"type": "computer_20250124", "name": "computer", "display_width_px": 1}
    found = body(tools=[computer, ADD], extra={"anthropic_beta": ["computer-use-2025-01-24"]})
    assert found["toolConfig"] == {"tools": [SPEC]}
    assert found["additionalModelRequestFields"] == {
        "anthropic_beta": ["computer-use-2025-01-24"], "tools": [computer]
    }  # fmt: skip
    forced = body(tools=[computer], tool_choice="computer")
    assert forced["additionalModelRequestFields"] == {
        "tools": [computer], "tool_choice": {"type": "tool", "name": "computer"}
    }  # fmt: skip
    assert "toolConfig" not in forced
    with pytest.raises(ConfigurationError, match="is unknown: on Bedrock expected"):
        body(model=NOVA, tools=[computer])


def test_a_field_of_a_tool_without_a_place() -> None:
    with pytest.warns(UserWarning, match="defer_loading of a tool"):
        assert body(tools=[{**ADD, "defer_loading": True}])["toolConfig"] == {"tools": [SPEC]}


CHOICES = [
    ("auto", "auto", {"auto": {}}),
    ("any", "any", {"any": {}}),
    ("required", "required", {"any": {}}),
    ("true", True, {"any": {}}),
    ("a name", "add", {"tool": {"name": "add"}}),
    ("OpenAI's", {"type": "function", "function": {"name": "add"}}, {"tool": {"name": "add"}}),
    ("Anthropic's", {"type": "tool", "name": "add"}, {"tool": {"name": "add"}}),
    ("Anthropic's any", {"type": "any"}, {"any": {}}),
    ("native", {"any": {}}, {"any": {}}),
    ("native name", {"tool": {"name": "add"}}, {"tool": {"name": "add"}}),
]


@pytest.mark.parametrize(("choice", "expected"), rows(CHOICES))
@pytest.mark.parametrize("tool", [ADD, SPEC], ids=["function", "toolSpec"])
def test_tool_choice(choice: Any, expected: dict[str, Any], tool: dict[str, Any]) -> None:
    found = body(tools=[tool], tool_choice=choice)
    assert found["toolConfig"] == {"tools": [SPEC], "toolChoice": expected}


def test_no_choice_is_no_tools() -> None:
    """The API has no "none": without tools nothing can be called."""
    assert body(tools=[ADD], tool_choice="none").keys() == {"messages"}


WRONG_CHOICES = [
    ("not bound", {"tools": [ADD], "tool_choice": "sub"}, "'sub', which is not bound"),
    ("no tools", {"tool_choice": "any"}, "no tools are bound"),
    ("two at once", {"tools": [ADD], "tool_choice": {"any": {}, "auto": {}}}, "the one key"),
    ("another key", {"tools": [ADD], "tool_choice": {"some": {}}}, "the one key auto"),
    ("thinking", {"tools": [ADD], "tool_choice": "any", "reasoning_effort": "high"},
     "thinking is on"),
    ("thinking, natively", {"tools": [ADD], "tool_choice": "add", "extra": {
        "additionalModelRequestFields": {"thinking": {"type": "enabled"}}}}, "thinking is on"),
    ("one at a time", {"model": NOVA, "tools": [ADD], "parallel_tool_calls": False},
     "only Claude can do that, not us.amazon.nova-2-lite"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), rows(WRONG_CHOICES))
def test_choices_that_cannot_be_had(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        body(**fields)


@pytest.mark.parametrize(
    ("choice", "native", "additional"),
    [
        (None, None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("auto", None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("any", {"any": {}}, {"disable_parallel_tool_use": True}),
        ("add", {"tool": {"name": "add"}}, {"disable_parallel_tool_use": True}),
    ],
)
def test_one_call_at_a_time(choice: Any, native: Any, additional: Any) -> None:
    """What the choice is, is said in one of the two places."""
    found = body(tools=[ADD], tool_choice=choice, parallel_tool_calls=False)
    assert found["toolConfig"].get("toolChoice") == native
    assert found["additionalModelRequestFields"] == {"tool_choice": additional}
    assert body(tools=[ADD], parallel_tool_calls=True)["toolConfig"] == {"tools": [SPEC]}
    assert body(parallel_tool_calls=False).keys() == {"messages"}


@pytest.mark.parametrize("fields", [{}, {"tools": [ADD], "tool_choice": "none"}])
def test_calls_in_the_history_without_tools(fields: dict[str, Any]) -> None:
    """The API takes them only with tools; as text, the model still knows what happened."""
    image = {"type": "image", "base64": PNG, "mime_type": "image/png"}
    result = ToolMessage(
        [{"type": "text", "text": "1"}, {"json": {"b": 2}}, image], tool_call_id="c1"
    )
    with pytest.warns(UserWarning, match=r"without tools \(they are sent as text\)"):
        found = sent(HI, AIMessage([text("x"), CALL]), result, **fields)
    assert found[1:] == [
        ("assistant", [text("x"), text('[Called add with {"a": 1}]')]),
        ("user", [text('[Result: 1 {"b": 2}]'),
                  {"image": {"format": "png", "source": {"bytes": PNG}}}]),
    ]  # fmt: skip


def test_tools_in_the_native_field_are_tools() -> None:
    found = body(HI, AIMessage([CALL]), ONE, extra={"toolConfig": {"tools": [SPEC]}})
    assert found["messages"][1]["content"] == [SENT_CALL]


# ---- caching -------------------------------------------------------------------------------------


def test_cache_control_for_all() -> None:
    """After the instructions, the messages so far, and the tools."""
    found = body(
        SystemMessage("s"), HI, AIMessage("a"), HI,
        tools=[ADD], extra={"cache_control": {**CACHE, "ttl": "1h"}},
    )  # fmt: skip
    assert found["system"] == [text("s"), HOUR]
    assert [m["content"] for m in found["messages"]] == [
        [text("hi")],
        [text("a")],
        [text("hi"), HOUR],
    ]
    assert found["toolConfig"]["tools"] == [SPEC, HOUR]
    assert found.keys() == {"system", "messages", "toolConfig"}


def test_cache_control_on_nova() -> None:
    found = body(
        SystemMessage("s"), HI, model=NOVA, tools=[ADD], extra={"cache_control": {"ttl": "1h"}}
    )
    assert found["system"] == [text("s"), POINT]
    assert found["toolConfig"]["tools"] == [SPEC]


def test_no_more_than_four_cache_points() -> None:
    marked = HumanMessage([text("a"), POINT, text("b"), POINT, text("c"), POINT, text("d")])
    found = body(SystemMessage("s"), marked, tools=[ADD], extra={"cache_control": CACHE})
    assert found["system"] == [text("s"), POINT]
    assert found["messages"][0]["content"][-1] == text("d")
    assert found["toolConfig"]["tools"] == [SPEC]
