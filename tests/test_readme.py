"""The README runs: its Python blocks, in their order and in one session, as a reader would."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any, Final

import pytest

from streamfold.cli import main
from streamfold.testing import EmbeddedProvider

README: Final = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_ten_lines_stream_something() -> None:
    """The first thing that a reader sees streams."""
    top = "\n".join(README.splitlines()[:10])
    assert "```python" in top
    assert ".astream(" in top


def _run(code: str, names: dict[str, Any]) -> None:
    """Run a block as a script or, if it awaits outside a function, as a notebook cell."""
    compiled = compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if not compiled.co_flags & inspect.CO_COROUTINE:
        exec(compiled, names)
        return

    async def cell() -> None:
        await eval(compiled, names)

    asyncio.run(cell())


def test_the_code_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each block runs after those above it, and the answers are printed."""
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    with EmbeddedProvider() as provider:
        for vendor, path in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{vendor}_BASE_URL", provider.url + path)
            monkeypatch.setenv(f"{vendor}_API_KEY", "any")
        for code in BLOCKS:
            _run(code, names)
    assert len(BLOCKS) >= 8
    printed = capsys.readouterr().out
    for words in ("Why do parrots talk?", "Why is the sky blue?", "How do planes fly?", "dinosaur"):
        assert words in printed
    assert "reasoning The user says" in printed
    assert "According to the tools: Sunny in Boston.; Sunny in Tokyo." in printed
    assert "Inception" in printed
    assert "\n('year',) " in printed
    assert "\n() Movie(" in printed
    assert "19 squared" in printed
    assert "it broke" not in printed


def test_the_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands and make targets that are shown are there."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    for target in set(
        re.findall(r"\bmake ([a-z-]+)\b", " ".join(re.findall(r"[`$] ?make [a-z-]+", README)))
    ):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in set(re.findall(r"^\$ streamfold (\w+)", README, re.MULTILINE)):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    capsys.readouterr()
