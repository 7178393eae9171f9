"""Refreshing: what is written, what counts before what, and that a failure leaves all as it was."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from profile_source import Write, model

from streamfold.errors import (
    ConfigurationError,
    RedirectRefusedError,
    RequestTimeoutError,
    SizeLimitError,
    StreamfoldError,
    TransportError,
)
from streamfold.profiles import models_dev, provider_names, store
from streamfold.profiles.augmentations import FILE
from streamfold.profiles.refresh import Refreshed, refresh


def one(provider: str, folder: Path, source: str) -> Refreshed:
    [done] = refresh(provider, folder, source)
    return done


def written(folder: Path, provider: str = "openai") -> dict[str, Any]:
    return dict(store.table(provider, str(folder)))


def test_a_model_of_models_dev_becomes_a_profile(source: Write, folder: Path) -> None:
    rocket = model(
        reasoning=True,
        status="beta",
        temperature=False,
        structured_output=True,
        limit={"context": 1000, "input": 900, "output": 100},
        reasoning_options=[{"type": "toggle"}, {"type": "effort", "values": ["low", None, "high"]}],
        cost={
            "input": 2,
            "output": 8.5,
            "cache_read": 0.25,
            "cache_write": 0,
            "reasoning": 9,
            "input_audio": 4,
            "output_audio": 5,
            "tiers": [{"input": 3, "output": 9, "tier": {"size": 500, "type": "context"}}],
        },
    )
    refresh("cerebras", folder, source(cerebras={"rocket-1": rocket}))
    assert written(folder, "cerebras") == {
        "rocket-1": {
            "name": "Rocket",
            "status": "beta",
            "release_date": "2026-01-02",
            "last_updated": "2026-02-03",
            "open_weights": False,
            "max_input_tokens": 900,
            "max_output_tokens": 100,
            "text_inputs": True,
            "image_inputs": True,
            "pdf_inputs": False,
            "audio_inputs": False,
            "video_inputs": False,
            "text_outputs": True,
            "image_outputs": False,
            "audio_outputs": False,
            "video_outputs": False,
            "reasoning_output": True,
            "reasoning_effort_levels": ["low", "high"],
            "tool_calling": True,
            "tool_choice": True,  # ours
            "structured_output": True,
            "attachment": True,
            "temperature": False,
            "input_price": 2.0,
            "output_price": 8.5,
            "cache_read_price": 0.25,
            "reasoning_price": 9.0,
            "input_audio_price": 4.0,
            "output_audio_price": 5.0,
            "price_tiers": [{"above": 500, "input_price": 3.0, "output_price": 9.0}],
        }
    }


@pytest.mark.parametrize(
    ("id", "cost", "prices"),
    [
        ("m", None, {}),
        ("m", {"input": 0, "output": 0}, {}),  # 0 is how models.dev writes "not known"
        ("m:free", {"input": 0, "output": 0}, {"input_price": 0.0, "output_price": 0.0}),
        ("m", {"input": 1, "output": 2, "tiers": [{"tier": {"size": 9, "type": "hour"}}]}, {}),
        (
            "m",
            {"input": 1, "output": 2, "context_over_200k": {"input": 3}},
            {
                "input_price": 1.0,
                "output_price": 2.0,
                "price_tiers": [{"above": 200_000, "input_price": 3.0}],
            },
        ),
    ],
)
def test_only_prices_that_are_known(
    id: str, cost: Any, prices: dict[str, Any], source: Write, folder: Path
) -> None:
    refresh("openai", folder, source(openai={id: model(cost=cost)}))
    said = written(folder)[id]
    assert {key: value for key, value in said.items() if "price" in key} == prices


def test_limits_of_0_are_not_known(source: Write, folder: Path) -> None:
    none = model(limit={"context": 0, "output": 0})
    refresh("openai", folder, source(openai={"m": none}))
    assert not {"max_input_tokens", "max_output_tokens"} & written(folder)["m"].keys()


def test_names_of_models_dev_and_of_vendors_mean_the_same_file(source: Write, folder: Path) -> None:
    path = source(amazon_bedrock={"m": model()})
    names = ("bedrock", "bedrock_converse", "bedrock-converse", "amazon-bedrock")
    assert {one(name, folder, path).path for name in names} == {str(folder / "bedrock.json")}


def test_several_providers_of_models_dev_may_fill_one_file(source: Write, folder: Path) -> None:
    path = source(
        google_vertex={"a": model(name="A")}, google_vertex_anthropic={"a": model(), "b": model()}
    )
    assert one("google_vertexai", folder, path).models == 2
    assert written(folder, "google_vertexai")["a"]["name"] == "A"


def test_all_refreshes_every_file(folder: Path, tmp_path: Path) -> None:
    ids = {id for filling in store.SOURCES.values() for id in filling}
    path = tmp_path / "api.json"
    path.write_text(json.dumps({id: {"models": {"m": model()}} for id in ids}))
    done = refresh("all", folder, str(path))
    assert [each.provider for each in done] == provider_names()
    assert sorted(os.listdir(folder)) == sorted(f"{name}.json" for name in provider_names())


# ---- what changed --------------------------------------------------------------------------------


def test_it_says_what_changed(source: Write, folder: Path) -> None:
    first = one("openai", folder, source(openai={"a": model(), "b": model()}))
    assert (first.first, first.models, first.added) == (True, 2, ["a", "b"])
    changed = model(limit={"context": 2000, "output": 100}, cost={"input": 2})
    again = one("openai", folder, source(openai={"b": changed, "c": model()}))
    assert not again.first
    assert (again.added, again.removed) == (["c"], ["a"])
    assert again.changed == {"b": {"max_input_tokens": (1000, 2000), "output_price": (8.5, None)}}
    same = one("openai", folder, source(openai={"b": changed, "c": model()}))
    assert (same.added, same.removed, same.changed) == ([], [], {})


def test_a_broken_old_file_is_replaced_and_reported(source: Write, folder: Path) -> None:
    (folder / "openai.json").write_text("{")
    done = one("openai", folder, source(openai={"a": model()}))
    assert done.first
    assert "openai.json" in done.warnings[0]
    assert list(written(folder)) == ["a"]


def test_what_is_read_afterwards_is_new(
    source: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.ENV, str(folder))
    for name in ("One", "Two"):
        refresh("openai", folder, source(openai={"m": model(name=name)}))
        assert store.table("openai")["m"]["name"] == name


# ---- augmentations -------------------------------------------------------------------------------


def augment(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)


def test_augmentations_of_the_folder_count_before_all(source: Write, folder: Path) -> None:
    augment(
        folder,
        """
        provider = "openai"
        [overrides]
        temperature = true
        max_output_tokens = 7
        [overrides."rocket-*"]
        max_output_tokens = 8
        tool_choice = false
        [overrides."rocket-1"]
        max_output_tokens = 9
        input_price = 3
        mine = "true, false and null"
        [overrides.new]
        name = "New"
        """,
    )
    text_only = model(modalities={"input": ["text"], "output": ["text"]})
    models = {"rocket-1": model(), "rocket-2": model(), "car": text_only}
    done = one("openai", folder, source(openai=models))
    said = written(folder)
    assert [said[id].get("max_output_tokens") for id in models] == [9, 8, 7]
    assert [said[id]["tool_choice"] for id in models] == [False, False, True]
    assert said["rocket-1"]["mine"] == "true, false and null"
    assert isinstance(said["rocket-1"]["input_price"], float)
    assert said["new"] == {"name": "New", "temperature": True, "max_output_tokens": 7}
    assert done.models == 4
    assert "'mine'" in done.warnings[0]


def test_what_needs_something_else_is_said_of_models_that_have_it(
    source: Write, folder: Path
) -> None:
    augment(
        folder,
        """
        [overrides]
        image_tool_message = true
        reasoning_effort_default = "low"
        [overrides."word"]
        image_tool_message = true
        """,
    )
    blind = model(modalities={"input": ["text"], "output": ["text"]})
    effort = model(reasoning_options=[{"type": "effort", "values": ["low"]}])
    refresh("upstage", folder, source(upstage={"see": effort, "blind": blind, "word": blind}))
    said = written(folder, "upstage")
    assert said["see"]["image_tool_message"] is True
    assert said["see"]["reasoning_effort_default"] == "low"
    assert not said["blind"].get("image_tool_message")
    assert "reasoning_effort_default" not in said["blind"]
    assert said["word"]["image_tool_message"] is True


def test_one_file_may_speak_of_several_providers(source: Write, folder: Path) -> None:
    augment(
        folder,
        """
        [openai.overrides]
        name = "theirs"
        [mistral.overrides."m"]
        name = "ours"
        """,
    )
    path = source(openai={"m": model()}, mistral={"m": model()}, groq={"m": model()})
    for provider in ("openai", "mistralai", "groq"):
        refresh(provider, folder, path)
    names = [written(folder, p)["m"]["name"] for p in ("openai", "mistralai", "groq")]
    assert names == ["theirs", "ours", "Rocket"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[overrides", "is not TOML"),
        ("\xff", "is not TOML"),
        ("overrides = 1", "overrides is 1"),
        ("provider = 1", "provider is 1"),
        ("[override]\ntool_calling = true", "'override' is unknown"),
        ("[overrides]\ntool_calling = 1", r"\$.tool_calling"),
        ("[overrides]\ninput_price = nan", r"\$.input_price"),
        ("[overrides]\ninput_price = -1", r"\$.input_price"),
        ('[overrides."m"]\nmax_input_tokens = "many"', r'overrides."m".*\$.max_input_tokens'),
    ],
)
def test_augmentations_that_cannot_be_right(
    text: str, reason: str, source: Write, folder: Path
) -> None:
    (folder / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=reason):
        refresh("openai", folder, source(openai={"m": model()}))
    assert os.listdir(folder) == [FILE]


# ---- failures ------------------------------------------------------------------------------------


@pytest.fixture
def kept(source: Write, folder: Path) -> Iterator[Path]:
    """A folder with an old file, which must be the same afterwards."""
    refresh("openai", folder, source(openai={"old": model()}))
    before = (folder / "openai.json").read_bytes()
    yield folder
    assert (folder / "openai.json").read_bytes() == before
    assert os.listdir(folder) == ["openai.json"]


def test_an_unknown_provider_suggests_the_nearest(kept: Path, source: Write) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'openai'"):
        refresh("opnai", kept, source(openai={"m": model()}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not an api.json"),
        ("<html>", "is not an api.json"),
        ("[]", "is not an api.json"),
        ("{}", "no providers"),
        ('{"groq": {}}', "no provider 'openai'"),
        ('{"openai": {}}', "'openai'.*models"),
        ('{"openai": {"models": {}}}', "no models"),
        ('{"openai": {"models": {"m": {}}}}', "openai: model 'm'.*`name`"),
        ('{"openai": {"models": {"m": 1}}}', "openai: model 'm'"),
        ('{"openai": {"models": {"m": {"name": "x"', "is not an api.json"),
    ],
)
def test_a_source_of_another_shape(text: str, reason: str, kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        refresh("openai", kept, str(path))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"limit": {"context": "many", "output": 1}}, r"model 'bad'.*int.*\$.limit.context"),
        ({"tool_call": "yes"}, r"model 'bad'.*bool.*\$.tool_call"),
        ({"cost": {"input": -1, "output": 1}}, r"model 'bad'.*\$.cost.input"),
        ({"name": "\x1b[2J"}, "model 'bad'.*not printable"),
    ],
)
def test_one_bad_model_is_named_with_its_field(
    fields: dict[str, Any], reason: str, kept: Path, source: Write
) -> None:
    path = source(openai={"good": model(), "bad": model(**fields)})
    with pytest.raises(ConfigurationError, match=reason):
        refresh("openai", kept, path)


def test_a_folder_that_is_none(source: Write, tmp_path: Path) -> None:
    path = source(openai={"m": model()})
    for place in (tmp_path / "nowhere", path):
        with pytest.raises(ConfigurationError, match="is not a folder"):
            refresh("openai", place, path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["nothing.json", ""])
def test_a_source_that_cannot_be_read(name: str, kept: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        refresh("openai", kept, str(tmp_path / name))


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_disk_that_fails(
    broken: str, kept: Path, source: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = source(openai={"m": model()})
    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(StreamfoldError, match="No space left on device"):
            refresh("openai", kept, path)


def test_one_bad_provider_among_all_leaves_every_file(
    kept: Path, source: Write, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="'azure'"):
        refresh("all", kept, source(openai={"m": model()}))


def test_a_source_that_is_too_large(
    kept: Path, source: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models_dev, "_MAX_BYTES", 100)
    with pytest.raises(SizeLimitError, match="more than 100 bytes"):
        refresh("openai", kept, source(openai={"m": model()}))


# ---- downloads -----------------------------------------------------------------------------------


class _Answers(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        body = json.dumps({"openai": {"models": {"m": model()}}}).encode()
        status, headers = 200, {}
        if self.path == "/moved":
            status, headers, body = 302, {"location": "/api.json"}, b""
        elif self.path == "/away":
            status, headers, body = 302, {"location": "https://example.com/api.json"}, b""
        elif self.path == "/circle":
            status, headers, body = 302, {"location": "/circle"}, b""
        elif self.path == "/missing":
            status, body = 404, b"no"
        elif self.path == "/cut":
            headers = {"content-length": str(len(body) + 9)}
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client may have seen enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/api.json", "/moved"])
def test_a_source_may_be_a_url(path: str, url: str, folder: Path) -> None:
    assert one("openai", folder, url + path).models == 1


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        ("/away", RedirectRefusedError, "another host, example.com"),
        ("/circle", RedirectRefusedError, "more than 3 redirects"),
        ("/missing", StreamfoldError, "status 404"),
        ("/cut", TransportError, "could not be downloaded"),
    ],
)
def test_downloads_that_fail(
    path: str, error: type[Exception], reason: str, url: str, kept: Path
) -> None:
    with pytest.raises(error, match=reason):
        refresh("openai", kept, url + path)


def test_a_download_is_bounded(url: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(models_dev, "_MAX_BYTES", 100)
        with pytest.raises(SizeLimitError):
            refresh("openai", kept, url + "/api.json")
    monkeypatch.setattr(models_dev, "_SECONDS", 1e-9)
    with pytest.raises(RequestTimeoutError):
        refresh("openai", kept, url + "/api.json")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://example.com/api.json", "expected a file or an https URL"),
        ("ftp://example.com/api.json", "expected a file or an https URL"),
        ("https://", "expected a file or an https URL"),
        ("https://exa mple.com:port/", "is not a URL"),
    ],
)
def test_addresses_that_are_not_asked(address: str, reason: str, kept: Path) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        refresh("openai", kept, address)


def test_a_password_in_the_address_is_refused_and_not_shown(kept: Path) -> None:
    with pytest.raises(ConfigurationError, match="name or password") as caught:
        refresh("openai", kept, "https://me:hunter2@example.com/api.json")
    assert "hunter2" not in str(caught.value)
