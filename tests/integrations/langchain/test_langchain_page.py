"""The migration page is true: its code runs, and both sides of its table can be imported."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

reason = "needs langchain: `make test-langchain` brings it"
pytest.importorskip("langchain", reason=reason)
pytest.importorskip("langgraph", reason=reason)

from streamfold.testing import EmbeddedProvider  # noqa: E402

PAGE = (Path(__file__).parents[3] / "docs" / "langchain.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `from (\S+) import (.*?)` \| `from (\S+) import (.*?)` \|$", PAGE, re.M)


def _run(code: str, names: dict[str, Any]) -> None:
    compiled = compile(code, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not compiled.co_flags & inspect.CO_COROUTINE:
        exec(compiled, names)
        return

    async def cell() -> None:
        await eval(compiled, names)

    asyncio.run(cell())


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_the_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    with EmbeddedProvider() as provider:
        for vendor, path in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{vendor}_BASE_URL", provider.url + path)
            monkeypatch.setenv(f"{vendor}_API_KEY", "any")
        for code in BLOCKS:
            _run(code, names)
    printed = capsys.readouterr().out
    assert len(BLOCKS) >= 6
    assert "Sunny in Boston." in printed.replace("|", "")
    for words in (
        "Why do parrots talk?",
        "Why is the sky blue?",
        "How do planes fly?",
        "Inception",
    ):
        assert words in printed


@pytest.mark.parametrize(("old", "names", "new", "ours"), ROWS, ids=[row[1] for row in ROWS])
def test_the_table_is_true(old: str, names: str, new: str, ours: str) -> None:
    assert names == ours
    for module in (old, new):
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue  # a partner's package that is not installed here
        home = importlib.import_module(module)
        for name in names.split(", "):
            assert hasattr(home, name), f"{module} has no {name}"


def test_the_table_has_rows() -> None:
    assert len(ROWS) == PAGE.count("\n| `from ")
