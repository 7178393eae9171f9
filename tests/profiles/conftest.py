"""A small api.json, folders, and no settings of the developer's shell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from profile_source import Write

from streamfold.profiles import store


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(store.ENV, raising=False)
    store.forget()
    yield
    store.forget()


@pytest.fixture
def source(tmp_path: Path) -> Write:
    """Write an api.json: ``source(openai={"model": {...}})`` gives its path."""

    def write(**providers: dict[str, Any]) -> str:
        shaped = {name.replace("_", "-"): {"models": models} for name, models in providers.items()}
        path = tmp_path / "api.json"
        path.write_text(json.dumps(shaped))
        return str(path)

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "profiles"
    made.mkdir()
    return made
