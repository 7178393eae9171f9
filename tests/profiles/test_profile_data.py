"""The data of the package: all that the vendors need, valid, small, and as `refresh` writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import streamfold.profiles
from streamfold.profiles import ModelProfile, provider_names
from streamfold.profiles.augmentations import FILE, ours
from streamfold.profiles.keys import ABILITIES, KEYS
from streamfold.profiles.store import Table, packaged_bytes, table
from streamfold.vendors import vendor_names

DATA = Path(streamfold.profiles.__file__).with_name("data")
#: Servers that serve whatever their owner loads.
WITHOUT = {"vllm", "llama_cpp"}


def test_every_vendor_has_profiles() -> None:
    assert {name for name in vendor_names() if not table(name)} == WITHOUT


def test_no_file_is_missing_and_none_is_left_over() -> None:
    names = {path.name for path in DATA.iterdir() if path.is_file()}
    assert names == {f"{name}.json" for name in provider_names()} | {FILE, "LICENSE"}


def test_the_data_is_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.is_file()) <= 300 * 1024


@pytest.mark.parametrize("provider", provider_names())
def test_every_profile_is_valid(provider: str) -> None:
    for id, said in table(provider).items():
        assert said.keys() <= set(KEYS), id
        assert msgspec.convert(said, ModelProfile) == said
        assert {"name", "text_inputs", "text_outputs", "tool_calling", "attachment"} <= said.keys()
        assert said.get("reasoning_effort_default") in [
            None,
            *said.get("reasoning_effort_levels", ()),
        ]
        assert not (said.get("tool_choice") and not said["tool_calling"]), id


@pytest.mark.parametrize("provider", provider_names())
def test_the_files_are_as_refresh_writes_them(provider: str) -> None:
    read = table(provider)
    assert Table.of(read).encode() == packaged_bytes(f"{provider}.json")


@pytest.mark.parametrize("provider", provider_names())
def test_our_augmentations_are_in_the_data(provider: str) -> None:
    read = table(provider)
    assert ours(provider).apply(read, add=False) == dict(read)
    assert ours(provider).unknown_keys() == []
    assert ours(provider).models.keys() <= read.keys()


def test_a_table_keeps_what_it_is_given() -> None:
    profiles: dict[str, dict[str, Any]] = {
        "b": {"name": "B", "tool_calling": True, "input_price": 1.5, "mine": {"deep": [1]}},
        "a": {"tool_calling": False, "status": "beta"},
        "c": {},
    }
    read = Table.decode(Table.of(profiles).encode())
    assert dict(read) == profiles
    assert list(read) == ["a", "b", "c"]


def test_the_keys_of_the_contract_are_there() -> None:
    wanted = """name status release_date last_updated open_weights max_input_tokens text_inputs
        image_inputs image_url_inputs pdf_inputs audio_inputs video_inputs image_tool_message
        pdf_tool_message max_output_tokens reasoning_output reasoning_effort_levels
        reasoning_effort_default text_outputs image_outputs audio_outputs video_outputs tool_calling
        tool_choice tool_call_streaming mid_conversation_system_messages mid_conversation_tools
        structured_output attachment temperature input_price output_price cache_read_price
        cache_write_price reasoning_price input_audio_price output_audio_price price_tiers"""
    assert set(KEYS) == set(wanted.split())
    assert "tool_calling" in ABILITIES
    assert "name" not in ABILITIES
