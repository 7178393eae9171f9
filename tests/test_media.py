"""Media blocks: made from bytes and paths, saved, sent to every vendor, fetched on request."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamfold.net.fetch
from strategies import pieces_of
from streamfold import (
    audio_block,
    file_block,
    image_block,
    init_chat_model,
    save_media,
    video_block,
)
from streamfold.chunks import fold_events
from streamfold.content import sniff_type
from streamfold.deltas import BlockStart, DataDelta
from streamfold.errors import ConfigurationError, ConnectError
from streamfold.media import media_bytes, with_fetched_media
from streamfold.messages import AIMessage, HumanMessage, ToolMessage
from streamfold.net.fetch import Fetched
from streamfold.testing import EmbeddedProvider
from streamfold.vendors import DIALECTS, dialect
from streamfold.wire.request import ChatRequest

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
JPEG = b"\xff\xd8\xff\xe0" + bytes(8)
PDF = b"%PDF-1.7\n" + bytes(8)
WAV = b"RIFF\x10\0\0\0WAVEfmt "
MP4 = b"\0\0\0\x18ftypisom" + bytes(8)
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\x82\x84webm"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---- making blocks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "mime_type"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        (b"\0\0\0\x1cftypheic", "image/heic"),
        (b"\0\0\0\x1cftypavif", "image/avif"),
        (PDF, "application/pdf"),
        (WAV, "audio/wav"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"fLaC\0", "audio/flac"),
        (b"OggS\0", "audio/ogg"),
        (MP4, "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (WEBM, "video/webm"),
        (b"\x1aE\xdf\xa3\xa3B\x86\x81\x01", "video/x-matroska"),
        (b"hello", None),
        (b"", None),
    ],
)
def test_the_type_that_the_data_shows(data: bytes, mime_type: str | None) -> None:
    assert sniff_type(data) == mime_type


@pytest.mark.parametrize(
    ("make", "data", "block"),
    [
        (image_block, PNG, {"type": "image", "mime_type": "image/png"}),
        (audio_block, WAV, {"type": "audio", "mime_type": "audio/wav"}),
        (audio_block, WEBM, {"type": "audio", "mime_type": "audio/webm"}),
        (audio_block, MP4, {"type": "audio", "mime_type": "audio/mp4"}),
        (video_block, MP4, {"type": "video", "mime_type": "video/mp4"}),
        (file_block, PDF, {"type": "file", "mime_type": "application/pdf"}),
        (file_block, PNG, {"type": "file", "mime_type": "image/png"}),
    ],
)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_block_of_bytes(make: Any, data: bytes, block: Any, kind: Any) -> None:
    assert make(kind(data)) == {**block, "base64": b64(data)}


def test_a_block_of_a_path(tmp_path: Path) -> None:
    """What the data shows counts before the name; the name where the data shows nothing."""
    wrong = tmp_path / "photo.png"
    wrong.write_bytes(JPEG)
    assert image_block(wrong)["mime_type"] == "image/jpeg"
    plain = tmp_path / "drawing.SVG"
    plain.write_bytes(b"<svg/>")
    assert image_block(plain)["mime_type"] == "image/svg+xml"
    assert image_block(plain, mime_type="image/png")["mime_type"] == "image/png"
    report = tmp_path / "report.pdf"
    report.write_bytes(PDF)
    assert file_block(report)["extras"] == {"filename": "report.pdf"}
    assert file_block(report, filename="r.pdf")["extras"] == {"filename": "r.pdf"}


def test_a_text_file_is_a_text_document(tmp_path: Path) -> None:
    notes = tmp_path / "notes.md"
    notes.write_bytes(b"\xef\xbb\xbf# \xd0\xaf")
    block = {"type": "text-plain", "mime_type": "text/plain", "text": "# Я", "title": "notes.md"}
    assert file_block(notes) == block
    assert file_block("Я".encode()) == {
        "type": "text-plain",
        "mime_type": "text/plain",
        "text": "Я",
    }


def test_a_block_of_a_url() -> None:
    url = "https://files.example/cat.png"
    assert image_block(url) == {"type": "image", "url": url}
    assert image_block(url, mime_type="image/png", detail="low") == {
        "type": "image",
        "url": url,
        "mime_type": "image/png",
        "extras": {"detail": "low"},
    }
    data = f"data:image/png;base64,{b64(PNG)}"
    assert image_block(data) == {"type": "image", "base64": b64(PNG), "mime_type": "image/png"}


@pytest.mark.parametrize(
    ("make", "source", "words"),
    [
        (image_block, b"", "the image data is empty"),
        (image_block, b"hello", "type of the image data cannot be told"),
        (image_block, PDF, "application/pdf: expected image/"),
        (audio_block, PNG, "image/png: expected audio/"),
        (image_block, MP4, "video/mp4: expected image/"),
        (file_block, b"\0\xff", "cannot be told"),
        (image_block, "cat.png", "is a str: expected a URL; files are given as"),
        (image_block, "/etc/passwd", "expected a URL"),
        (image_block, "file:///etc/passwd", "expected a URL"),
        (image_block, Path("no-such-file.png"), "cannot be read: .*no-such-file.png"),
        (image_block, Path(), "cannot be read"),
        (image_block, 3, "int: expected a path, bytes or a URL"),
    ],
)
def test_what_makes_no_block(make: Any, source: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make(source)


def test_a_text_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xff\xff")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        file_block(path)


# ---- saving --------------------------------------------------------------------------------------


@given(data=st.binary(min_size=1, max_size=60))
def test_what_is_saved_is_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    block = image_block(data, mime_type="image/png")
    assert media_bytes(block) == data
    path = save_media(block, tmp_path_factory.getbasetemp() / "same")
    assert (path.suffix, path.read_bytes()) == (".png", data)


@pytest.mark.parametrize(
    ("block", "target", "name"),
    [
        ({"type": "image", "base64": b64(PNG)}, "cat", "cat.png"),
        ({"type": "image", "base64": b64(PNG), "mime_type": "image/jpeg"}, "cat", "cat.jpg"),
        ({"type": "image", "base64": b64(PNG)}, "cat.bin", "cat.bin"),
        ({"type": "audio", "base64": b64(WAV), "mime_type": "audio/wav"}, "", "audio.wav"),
        ({"type": "image", "url": f"data:image/webp;base64,{b64(PNG)}"}, "", "image.webp"),
        ({"type": "text-plain", "text": "Я", "mime_type": "text/plain", "title": "a"}, "", "a.txt"),
        (
            {"type": "file", "base64": "AA==", "extras": {"filename": "../../x.pdf"}},
            "",
            "_.._x.pdf",
        ),
        ({"type": "file", "base64": "AA==", "extras": {"filename": ".."}}, "", "file"),
    ],
)
def test_where_it_is_saved(tmp_path: Path, block: Any, target: str, name: str) -> None:
    """A name that a provider gave never leads out of the folder."""
    path = save_media(block, tmp_path / target)
    assert path == tmp_path / name
    assert path.read_bytes() == media_bytes(block)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "url": "https://files.example/cat.png"},
        {"type": "image", "file_id": "f"},
        {"type": "image"},
        {"type": "image", "base64": "???"},
    ],
)
def test_what_has_no_data_cannot_be_saved(tmp_path: Path, block: Any) -> None:
    with pytest.raises(ConfigurationError):
        save_media(block, tmp_path)


# ---- arriving ------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=8), max_size=6), st.data())
def test_data_that_came_in_pieces_is_one(pieces: list[bytes], data: st.DataObject) -> None:
    """Each piece may be padded, and the text of all may be cut anywhere."""
    text = "".join(map(b64, pieces))
    cut = data.draw(pieces_of(text))
    events = [BlockStart("audio", 0), *(DataDelta(piece, 0, "audio") for piece in cut)]
    (found,) = fold_events(events).to_message().content_blocks
    assert base64.b64decode(found.get("base64", ""), validate=True) == b"".join(pieces)


# ---- sending -------------------------------------------------------------------------------------

MODELS = {"bedrock": "anthropic.claude-sonnet-4-5", "anthropic": "claude-sonnet-4-5"}


def sent(name: str, *blocks: Any, **fields: Any) -> str:
    """The body of a request with these blocks, as text; a warning is an error."""
    message = HumanMessage([{"type": "text", "text": "?"}, *blocks])
    request = ChatRequest(model=MODELS.get(name, "m"), messages=[message], **fields)
    return dialect(name).encode(request).body.decode()


#: Who takes what, as base64; and what each fetches by its URL.
TAKES = {
    "openai_chat": {"image", "audio", "video", "file", "text"},
    "openai_responses": {"image", "file", "text"},
    "anthropic": {"image", "file", "text"},
    "gemini": {"image", "audio", "video", "file", "text"},
    "ollama": {"image", "text"},
    "bedrock": {"image", "audio", "video", "file", "text"},
    "cohere": {"image", "text"},
}
BLOCKS: dict[str, Any] = {
    "image": image_block(PNG),
    "audio": audio_block(WAV),
    "video": video_block(MP4),
    "file": file_block(PDF, filename="r.pdf"),
    "text": file_block(b"words of a document", filename="n.txt"),
}
DATA = {"image": PNG, "audio": WAV, "video": MP4, "file": PDF}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("name", DIALECTS)
def test_each_vendor_takes_what_it_can_and_refuses_the_rest(name: str, kind: str) -> None:
    if kind in TAKES[name]:
        body = sent(name, BLOCKS[kind])
        assert ("words of a document" if kind == "text" else b64(DATA[kind])) in body
    else:
        with pytest.raises(ConfigurationError, match=f"{kind} block .* cannot be sent"):
            sent(name, BLOCKS[kind])


@pytest.mark.parametrize("name", DIALECTS)
def test_openais_parts_go_to_every_vendor(name: str) -> None:
    url = f"data:image/png;base64,{b64(PNG)}"
    assert b64(PNG) in sent(name, {"type": "image_url", "image_url": {"url": url}})


@pytest.mark.parametrize("kind", ["image", "audio", "video", "file", "text-plain"])
@pytest.mark.parametrize("name", DIALECTS)
def test_a_url_is_passed_on_or_refused_with_the_way_out(name: str, kind: str) -> None:
    """What is passed on is what the dialect says of itself, so that nothing else is fetched."""
    url = "https://files.example/x.pdf"
    if kind in dialect(name).URL_BLOCKS:
        assert url in sent(name, {"type": kind, "url": url})
    else:
        with pytest.raises(ConfigurationError, match=r"fetch_media=True|cannot be sent"):
            sent(name, {"type": kind, "url": url})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ollama", "image"), ("bedrock", "image"), ("bedrock", "file"), ("openai_chat", "audio"),
     ("openai_chat", "file"), ("anthropic", "text-plain"), ("cohere", "text-plain")],
)  # fmt: skip
def test_the_refusal_names_fetch_media(name: str, kind: str) -> None:
    with pytest.raises(ConfigurationError, match="fetch_media=True"):
        sent(name, {"type": kind, "url": "https://files.example/x"})


def test_a_server_that_fetches_nothing_where_others_of_its_dialect_do() -> None:
    model = init_chat_model("lmstudio:m")
    with pytest.raises(ConfigurationError, match=r"lmstudio expects base64.*fetch_media=True"):
        model.invoke([HumanMessage([image_block("https://files.example/cat.png")])])


@pytest.mark.parametrize("name", DIALECTS)
def test_the_data_says_its_type_where_the_block_does_not(name: str) -> None:
    named = sent(name, {"type": "image", "base64": b64(PNG), "mime_type": "image/png"})
    assert sent(name, {"type": "image", "base64": b64(PNG)}) == named


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "ollama"])
@pytest.mark.parametrize("mime_type", ["image/x-unknown", "application/pdf", "png", "audio/wav"])
def test_an_image_of_unknown_type_is_refused(name: str, mime_type: str) -> None:
    with pytest.raises(ConfigurationError, match=r"image block .*mime_type"):
        sent(name, {"type": "image", "base64": "AAAA", "mime_type": mime_type})


@pytest.mark.parametrize(
    ("name", "kind", "megabytes"),
    [("anthropic", "image", 11), ("anthropic", "file", 34), ("bedrock", "image", 4),
     ("openai_chat", "file", 53), ("openai_responses", "image", 53), ("cohere", "image", 21),
     ("gemini", "video", 105)],
)  # fmt: skip
def test_a_file_too_large_for_the_vendor_is_refused(name: str, kind: str, megabytes: int) -> None:
    data = "A" * (megabytes * 1_000_000 * 4 // 3)
    block = {**BLOCKS[kind], "base64": data}
    with pytest.raises(ConfigurationError, match=rf"has {megabytes}\.\d MB: .* takes at most"):
        sent(name, block)


# ---- fetching ------------------------------------------------------------------------------------

FILES = {
    "https://f.example/cat": Fetched(PNG, "text/plain"),  # the data knows better
    "https://f.example/cat.svg": Fetched(b"<svg/>", "image/svg+xml"),
    "https://f.example/raw": Fetched(b"....", "application/octet-stream"),
    "https://f.example/login": Fetched(b"<html>", "text/html"),
    "https://f.example/doc": Fetched(PDF, ""),
    "https://f.example/notes": Fetched("Я".encode(), "text/markdown"),
    "https://f.example/sound": Fetched(WEBM, "video/webm"),
    "https://f.example/empty": Fetched(b"", "image/png"),
}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The web is `FILES`; the list has what was asked of it."""
    asked: list[str] = []

    async def fetch(url: str, **rules: Any) -> Fetched:
        asked.append(url)
        if url not in FILES:
            raise ConnectError(f"nobody at {url}")
        return FILES[url]

    monkeypatch.setattr(streamfold.net.fetch, "fetch", fetch)
    return asked


def block(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "url": f"https://f.example/{name}", **fields}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "data", "mime_type"),
    [
        (block("image", "cat"), PNG, "image/png"),
        (block("image", "cat", mime_type="image/webp"), PNG, "image/png"),
        (block("image", "cat.svg"), b"<svg/>", "image/svg+xml"),
        (block("image", "raw", mime_type="image/jp2"), b"....", "image/jp2"),
        (block("file", "doc"), PDF, "application/pdf"),
        (block("file", "login", mime_type="text/html"), b"<html>", "text/html"),
        (block("text-plain", "notes"), "Я".encode(), "text/markdown"),
        (block("audio", "sound"), WEBM, "audio/webm"),
        ({"type": "image_url", "image_url": {"url": "https://f.example/cat"}}, PNG, "image/png"),
    ],
)
async def test_the_file_takes_the_place_of_its_url(
    fetched: list[str], given: Any, data: bytes, mime_type: str
) -> None:
    message = HumanMessage([{"type": "text", "text": "?"}, {**given, "extras": {"detail": "low"}}])
    (filled,) = await with_fetched_media([message], frozenset())
    found = filled.content[1]
    assert (media_bytes(found), found["mime_type"]) == (data, mime_type)
    assert "url" not in found
    assert found["extras"] == {"detail": "low"}
    assert message.content[1].get("url") == given.get("url")  # the caller's message is as it was


@pytest.mark.anyio
@pytest.mark.parametrize(
    "given",
    [
        block("image", "login"),
        block("image", "login", mime_type="image/png"),
        block("image", "raw"),
        block("image", "doc"),
        block("image", "empty"),
        block("audio", "cat"),
        block("file", "login"),
        block("file", "raw"),
        block("text-plain", "doc"),
    ],
)
async def test_a_file_that_is_not_what_its_block_says(fetched: list[str], given: Any) -> None:
    with pytest.raises(ConfigurationError, match="not to be sent as"):
        await with_fetched_media([HumanMessage([given])], frozenset())


@pytest.mark.anyio
async def test_only_what_must_be_fetched_is_and_once(fetched: list[str]) -> None:
    """Not data, ids, data URLs, other schemes, and what the vendor fetches itself."""
    untouched = [
        {"type": "image", "base64": b64(PNG), "mime_type": "image/png"},
        {"type": "image", "file_id": "f"},
        {"type": "image", "url": f"data:image/png;base64,{b64(PNG)}"},
        {"type": "video", "url": "gs://bucket/v.mp4"},
        {"type": "text", "text": "https://f.example/cat"},
        block("file", "doc"),
    ]
    twice = [block("image", "cat"), block("image", "cat")]
    call = {"name": "f", "args": {}, "id": "c", "type": "tool_call"}
    said = [
        HumanMessage([*untouched, *twice]),
        AIMessage("", tool_calls=[call]),  # type: ignore[list-item]
        ToolMessage([block("image", "cat")], tool_call_id="c"),
        HumanMessage("plain"),
    ]
    filled = await with_fetched_media(said, frozenset({"file"}))
    assert fetched == ["https://f.example/cat"]
    assert filled[0].content[: len(untouched)] == untouched
    assert [b["base64"] for b in filled[0].content[-2:]] == [b64(PNG)] * 2
    assert media_bytes(filled[2].content[0]) == PNG
    assert filled[1] is said[1]
    assert filled[3] is said[3]


@pytest.mark.anyio
async def test_the_first_failure_is_the_error(fetched: list[str]) -> None:
    with pytest.raises(ConnectError, match="nobody at"):
        await with_fetched_media(
            [HumanMessage([block("image", "cat"), block("image", "nowhere")])], frozenset()
        )


@pytest.mark.anyio
async def test_a_model_fetches_when_it_is_told_to(fetched: list[str]) -> None:
    """At construction, by `bind` and per call; streamed or not. The caller's input stays as it is
    in what handlers hear."""
    asked = [HumanMessage([{"type": "text", "text": "?"}, block("image", "cat")])]
    with EmbeddedProvider() as provider:
        model = init_chat_model("ollama:m", base_url=provider.url)
        async with model:
            with pytest.raises(ConfigurationError, match="fetch_media"):
                await model.ainvoke(asked)
            told = init_chat_model("ollama:m", base_url=provider.url, fetch_media=True)
            await told.ainvoke(asked)
            await model.bind(fetch_media=True).ainvoke(asked)
            async for _ in model.astream(asked, fetch_media=True):
                pass
            events = [e async for e in model.astream_events(asked, fetch_media=True)]
            with pytest.raises(ConfigurationError):
                await told.ainvoke(asked, fetch_media=False)
        await told.aclose()
        bodies = [json.loads(request.body) for request in provider.requests]
    assert [body["messages"][0]["images"] for body in bodies] == [[b64(PNG)]] * 4
    assert all("fetch_media" not in body for body in bodies)
    assert events[0]["data"]["input"] == asked
    assert len(fetched) == 4


@pytest.mark.anyio
async def test_what_the_vendor_fetches_is_left_to_it(fetched: list[str]) -> None:
    with EmbeddedProvider() as provider:
        async with init_chat_model(
            "openai:gpt-4.1", base_url=f"{provider.url}/v1", api_key="k", fetch_media=True
        ) as model:
            await model.ainvoke([HumanMessage([block("image", "cat"), block("file", "doc")])])
        (request,) = provider.requests
    assert fetched == ["https://f.example/doc"]
    assert b"https://f.example/cat" in request.body
    assert b64(PDF).encode() in request.body


@pytest.mark.anyio
async def test_nothing_is_fetched_from_this_machine() -> None:
    with EmbeddedProvider() as provider:
        async with init_chat_model("ollama:m", base_url=provider.url, fetch_media=True) as model:
            url = provider.url.replace("http:", "https:")
            with pytest.raises(ConfigurationError, match="public addresses only"):
                await model.ainvoke([HumanMessage([image_block(f"{url}/cat.png")])])
        assert provider.requests == []


def test_fetch_media_is_a_bool() -> None:
    with pytest.raises(ConfigurationError, match="fetch_media is str"):
        init_chat_model("ollama:m", fetch_media="yes")


# ---- images of another provider ------------------------------------------------------------------


@pytest.mark.parametrize("name", DIALECTS)
def test_an_image_that_another_made_goes_to_what_the_user_says_next(name: str) -> None:
    made = AIMessage(
        [{"type": "text", "text": "a cat"}, {**BLOCKS["image"], "id": "i", "extras": {"x": 1}}],
        response_metadata={"model_provider": "elsewhere"},
    )
    said = [HumanMessage("draw"), made, HumanMessage("and now?")]
    request = ChatRequest(model=MODELS.get(name, "m"), messages=said, provider="here")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        body = json.loads(dialect(name).encode(request).body)
    turns = body.get("messages") or body.get("contents") or body["input"]
    assert b64(PNG) not in json.dumps(turns[1])
    assert b64(PNG) in json.dumps(turns[2])
    assert "and now?" in json.dumps(turns[2])
    if name == "gemini":  # takes an image in an answer, whoever made it
        return
    last = msgspec.structs.replace(request, messages=said[:2])
    with pytest.warns(UserWarning, match="image block"):
        assert b64(PNG) not in dialect(name).encode(last).body.decode()
