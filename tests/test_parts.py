"""Content parts in the forms of all vendors: as standard blocks, and as requests to each."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest

from streamfold.messages import HumanMessage
from streamfold.parts import portable, standard_block
from streamfold.vendors import DIALECTS, dialect
from streamfold.wire.request import ChatRequest

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
PDF = base64.b64encode(b"%PDF-1.4").decode()
IMAGE = {"type": "image", "base64": PNG, "mime_type": "image/png"}
FILE = {"type": "file", "base64": PDF, "mime_type": "application/pdf"}
LINK = {"type": "image", "url": "https://e.example/a.png"}
NAMED = {"extras": {"filename": "a.pdf"}}
MARK = {"type": "ephemeral"}

#: Whose form, the part, the block.
FORMS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("openai_responses", {"type": "input_text", "text": "hi"}, {"type": "text", "text": "hi"}),
    ("openai_responses", {"type": "output_text", "text": "hi", "annotations": []},
     {"type": "text", "text": "hi", "extras": {"annotations": []}}),
    ("openai_responses", {"type": "input_image", "image_url": LINK["url"]}, LINK),
    ("openai_responses", {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"},
     IMAGE),
    ("openai_responses", {"type": "input_image", "file_id": "f"},
     {"type": "image", "file_id": "f"}),
    ("openai_responses", {"type": "input_file", "filename": "a.pdf",
                          "file_data": f"data:application/pdf;base64,{PDF}"}, FILE | NAMED),
    ("anthropic", {"type": "image", "source": {"type": "base64", "media_type": "image/png",
                                               "data": PNG}}, IMAGE),
    ("anthropic", {"type": "image", "source": {"type": "url", "url": LINK["url"]},
                   "cache_control": MARK}, LINK | {"extras": {"cache_control": MARK}}),
    ("anthropic", {"type": "document", "source": {"type": "file", "file_id": "f"}},
     {"type": "file", "file_id": "f"}),
    ("anthropic", {"type": "document", "title": "a.pdf",
                   "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
     FILE | NAMED),
    ("anthropic", {"type": "document", "title": "T", "citations": {"enabled": True},
                   "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
     {"type": "text-plain", "text": "words", "mime_type": "text/plain", "title": "T",
      "extras": {"citations": {"enabled": True}}}),
    ("gemini", {"text": "hi"}, {"type": "text", "text": "hi"}),
    ("gemini", {"inlineData": {"mimeType": "image/png", "data": PNG}}, IMAGE),
    ("gemini", {"inline_data": {"mime_type": "application/pdf", "data": PDF}}, FILE),
    ("gemini", {"fileData": {"fileUri": "gs://b/a.mp4", "mimeType": "video/mp4"},
                "videoMetadata": {"fps": 1}},
     {"type": "video", "url": "gs://b/a.mp4", "mime_type": "video/mp4",
      "extras": {"videoMetadata": {"fps": 1}}}),
    ("gemini", {"type": "media", "mime_type": "image/png", "data": PNG}, IMAGE),
    ("bedrock", {"image": {"format": "png", "source": {"bytes": base64.b64decode(PNG)}}}, IMAGE),
    ("bedrock", {"type": "image", "image": {"format": "png", "source": {"bytes": PNG}}}, IMAGE),
    ("bedrock", {"document": {"format": "pdf", "name": "a", "source": {"bytes": PDF}}},
     FILE | NAMED),
    ("bedrock", {"document": {"format": "txt", "name": "a", "source": {"text": "words"}}},
     {"type": "text-plain", "text": "words"}),
    ("bedrock", {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://b/v"}}}},
     {"type": "video", "url": "s3://b/v", "mime_type": "video/mp4"}),
    ("", {"type": "image", "source_type": "url", "url": LINK["url"]}, LINK),
    ("", {"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png"}, IMAGE),
    ("", {"type": "file", "source_type": "id", "id": "f"}, {"type": "file", "file_id": "f"}),
    ("", {"type": "file", "source_type": "text", "text": "words", "mime_type": "text/plain"},
     {"type": "text-plain", "text": "words", "mime_type": "text/plain"}),
    ("", {"type": "file", "source_type": "base64", "data": PDF, "mime_type": "application/pdf",
          "filename": "a.pdf"}, FILE | NAMED),
]  # fmt: skip


@pytest.mark.parametrize(("whose", "part", "block"), FORMS)
def test_every_form_reads_as_a_standard_block(whose: str, part: Any, block: Any) -> None:
    before = copy.deepcopy(part)
    assert standard_block(part) == block
    assert HumanMessage([part]).content_blocks == [block]
    assert part == before


@pytest.mark.parametrize(
    "part",
    [
        {"type": "document", "source": {"type": "content", "content": []}},
        {"type": "document", "document": {"data": {"text": "Cohere's"}}},
        {"type": "image", "source": "no mapping"},
        {"type": "video", "video": {"url": "https://e.example/v"}},
        {"inlineData": "no mapping"},
        {"source_type": "odd", "type": "image"},
        {"text": 1},
    ],
)
def test_what_only_looks_like_a_form_stays(part: dict[str, Any]) -> None:
    known = part.get("type") in ("image", "video")
    assert standard_block(part) == (part if known else {"type": "non_standard", "value": part})
    assert portable(part, "Gemini") is part


def request(name: str, part: Any) -> bytes:
    """The body of a request with this part; what the form's own vendor alone knows would be an
    unknown field."""
    models = {"bedrock": "anthropic.claude-sonnet-4-5", "anthropic": "claude-sonnet-4-5"}
    message = HumanMessage([{"type": "text", "text": "?"}, part])
    return dialect(name).encode(ChatRequest(model=models.get(name, "m"), messages=[message])).body


@pytest.mark.parametrize("name", DIALECTS)
def test_an_image_in_any_form_goes_to_every_vendor_as_the_standard_one(name: str) -> None:
    standard = json.loads(request(name, IMAGE))
    images = [(whose, part) for whose, part, block in FORMS if block == IMAGE]
    assert len(images) == 7
    for whose, part in images:
        if whose != name:
            assert json.loads(request(name, part)) == standard


@pytest.mark.parametrize("name", DIALECTS)
def test_the_vendor_itself_gets_the_part_as_it_is(name: str) -> None:
    for whose, part, _ in FORMS:
        if whose == name and "type" not in part and b"bytes" not in repr(part).encode():
            assert json.dumps(part, separators=(",", ":")).encode() in request(name, part)


def test_marks_for_one_vendor_do_not_reach_another() -> None:
    marked = next(part for _, part, _ in FORMS if "cache_control" in part)
    assert b"cache_control" in request("anthropic", marked)
    assert b"cache_control" not in request("openai_chat", marked)
