"""A profile by its name: what is found, how, and what is left out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from profile_source import Write, model

from streamfold.profiles import profile, store
from streamfold.profiles.lookup import match
from streamfold.profiles.refresh import refresh


def test_a_profile_says_what_a_model_can_do_and_costs() -> None:
    said = profile("openai", "gpt-4.1")
    assert said["name"] == "GPT-4.1"
    assert said["max_input_tokens"] == 1_047_576
    assert said["max_output_tokens"] == 32_768
    assert said["tool_calling"] is said["structured_output"] is said["image_inputs"] is True
    assert said["audio_inputs"] is said["reasoning_output"] is said["open_weights"] is False
    assert (said["input_price"], said["output_price"], said["cache_read_price"]) == (2.0, 8.0, 0.5)


def test_each_call_gives_a_dict_of_its_own() -> None:
    first = profile("openai", "gpt-5.4")
    first["name"] = "mine"
    first["reasoning_effort_levels"].append("mine")
    first["price_tiers"][0]["above"] = 1
    again = profile("openai", "gpt-5.4")
    assert again["name"] == "GPT-5.4"
    assert "mine" not in again["reasoning_effort_levels"]
    assert again["price_tiers"][0]["above"] == 272_000


@pytest.mark.parametrize(
    ("provider", "name", "id"),
    [
        ("openai", "GPT-4.1 ", "gpt-4.1"),
        ("openai", "openai/gpt-4.1", "gpt-4.1"),
        ("openai", "gpt-4.1-2025-04-14", "gpt-4.1"),
        ("openai", "gpt-4-0613", "gpt-4"),
        ("openai", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("azure_openai", "gpt-4o-2024-08-06", "gpt-4o"),
        ("azure-openai", "gpt-35-turbo-0125", "gpt-3.5-turbo-0125"),
        ("azure_anthropic", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("anthropic", "claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("anthropic", "claude-3-7-sonnet", "claude-3-7-sonnet-20250219"),
        ("anthropic", "claude-sonnet-4-6-20260101", "claude-sonnet-4-6"),
        ("google_genai", "models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("google_genai", "gemini-2.5-pro-preview-05-06", "gemini-2.5-pro"),
        ("google_genai", "gemini-2.0-flash-001", "gemini-2.0-flash"),
        ("google_vertexai", "publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("google_anthropic_vertex", "claude-sonnet-4-5", "claude-sonnet-4-5@20250929"),
        ("google_vertexai", "claude-sonnet-4-6", "claude-sonnet-4-6@default"),
        ("bedrock", "us.anthropic.claude-sonnet-4-6", "us.anthropic.claude-sonnet-4-6"),
        ("bedrock_converse", "anthropic.claude-opus-4-6-v1:0", "anthropic.claude-opus-4-6-v1"),
        ("bedrock", "eu.meta.llama3-3-70b-instruct-v1:0", "meta.llama3-3-70b-instruct-v1:0"),
        ("bedrock", "amazon.nova-lite-v1:0:300k", "amazon.nova-lite-v1:0"),
        (
            "bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-6",
            "us.anthropic.claude-sonnet-4-6",
        ),
        ("mistral", "mistral-large", "mistral-large-latest"),
        ("mistralai", "codestral-2508", "codestral-latest"),
        ("ollama", "gpt-oss:120b-cloud", "gpt-oss:120b"),
        ("ollama", "glm-4.6:cloud", "glm-4.6"),
        ("fireworks", "deepseek-v4-pro", "accounts/fireworks/models/deepseek-v4-pro"),
        ("huggingface", "qwen3-32b", "Qwen/Qwen3-32B"),
        ("openrouter", "openai/gpt-4.1:nitro", "openai/gpt-4.1"),
    ],
)
def test_a_model_is_found_under_its_other_names(provider: str, name: str, id: str) -> None:
    found = match(provider, name)
    assert found is not None
    assert found.id == id


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "o1-preview-2024-09-12"),
        ("openai", "gpt-4o-audio-preview-2024-12-17"),
        ("openai", "gpt-4.1-turbo"),
        ("openai", ""),
        ("openai", "../openai"),
        ("ollama", "llama3:8b"),
        ("huggingface", "someone/Qwen3-32B"),
        ("vllm", "gpt-4.1"),
        ("", "gpt-4.1"),
        ("../openai", "gpt-4.1"),
        (None, "gpt-4.1"),
        ("openai", None),
    ],
)
def test_what_is_not_known_is_an_empty_dict(provider: str, name: str) -> None:
    assert profile(provider, name) == {}


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("mistralai", "mistral-large-2402"),  # an older one than those we know, which differ
        ("bedrock", "apac.anthropic.claude-sonnet-4-5-20250929-v1:0"),  # regions differ
        ("openrouter", "openai/gpt-4.1:nitro"),
        ("huggingface", "moonshotai/Kimi-K2-Instruct-0905:groq"),
    ],
)
def test_prices_that_may_be_others_are_left_out(provider: str, name: str) -> None:
    said = profile(provider, name)
    assert said["tool_calling"] is True
    assert not any("price" in key for key in said)


def test_only_the_file_of_the_provider_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    packaged = store.packaged_bytes

    def reading(file: str) -> bytes:
        read.append(file)
        return packaged(file)

    monkeypatch.setattr(store, "packaged_bytes", reading)
    assert profile("groq", "openai/gpt-oss-120b")
    assert profile("groq", "openai/gpt-oss-20b")
    assert read == ["groq.json"]


def test_files_of_a_folder_count_before_those_of_the_package(
    source: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh("openai", folder, source(openai={"rocket-1": model()}))
    assert profile("openai", "rocket-1") == {}
    monkeypatch.setenv(store.ENV, str(folder))
    assert profile("openai", "rocket-1")["max_input_tokens"] == 1000
    assert profile("openai", "gpt-4.1") == {}
    assert profile("anthropic", "claude-sonnet-4-5")["name"].startswith("Claude")


def test_any_provider_of_the_source_can_have_a_file(
    source: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh("acme-ai", folder, source(acme_ai={"rocket-1": model()}))
    monkeypatch.setenv(store.ENV, str(folder))
    assert profile("acme_ai", "rocket-1")["name"] == "Rocket"


@pytest.mark.parametrize("data", [b"", b"{}", b'{"abilities":[],"columns":[],"models":{"a":[1]}}'])
def test_a_file_that_cannot_be_read_is_logged_and_the_packaged_one_counts(
    data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "openai.json").write_bytes(data)
    monkeypatch.setenv(store.ENV, str(folder))
    with caplog.at_level(logging.WARNING, "streamfold"):
        assert profile("openai", "gpt-4.1")["name"] == "GPT-4.1"
        assert profile("openai", "gpt-4o")
    assert len(caplog.records) == 1
    assert str(folder / "openai.json") in caplog.text
