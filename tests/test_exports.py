"""The public names: they exist, they load lazily, and every list of them says the same."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import streamfold

SRC = Path(streamfold.__file__).parent


def public_modules() -> list[str]:
    """Every module of the package without a leading underscore in its name."""
    found = pkgutil.walk_packages([str(SRC)], "streamfold.")
    return [m.name for m in found if not any(p.startswith("_") for p in m.name.split("."))]


def loaded(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] == "streamfold":
            raise
        pytest.skip(f"{missing.name} is not installed")


def lazy_modules() -> list[str]:
    """The packages that load their names on first use."""
    return [
        "streamfold" if path.parent == SRC else f"streamfold.{path.parent.relative_to(SRC)}"
        for path in sorted(SRC.rglob("__init__.py"))
        if "_HOMES" in path.read_text(encoding="utf-8")
    ]


def imported_for_types(path: Path, package: str) -> dict[str, str]:
    """Name -> module inside `package`, of the imports under ``if TYPE_CHECKING``."""
    found: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for statement in node.body:
                assert isinstance(statement, ast.ImportFrom)
                home = (statement.module or "").removeprefix(f"{package}.")
                found |= {alias.asname or alias.name: home for alias in statement.names}
    return found


def python(code: str) -> Any:
    """What a fresh interpreter prints for `code`, read as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", lazy_modules())
class TestLazyPackages:
    def test_every_name_is_there(self, name: str) -> None:
        module = loaded(name)
        for public in module.__all__:
            assert getattr(module, public) is not None
        assert set(module.__all__) <= set(dir(module))

    def test_the_lists_agree(self, name: str) -> None:
        """What type checkers see, what loads, and `__all__` are the same names."""
        module = loaded(name)
        homes = vars(module)["_HOMES"]
        assert imported_for_types(Path(str(module.__file__)), name) == homes
        assert sorted(module.__all__) == sorted(homes)

    def test_each_name_is_public_where_it_lives(self, name: str) -> None:
        module = loaded(name)
        for public, home in vars(module)["_HOMES"].items():
            where = importlib.import_module(f"{name}.{home}")
            assert getattr(where, public) is getattr(module, public)
            assert public in where.__all__

    def test_a_name_that_is_not_there_is_an_attribute_error(self, name: str) -> None:
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = loaded(name).no_such_name


@pytest.mark.parametrize("name", public_modules())
def test_all_of_a_module_resolves(name: str) -> None:
    """`from module import *` works: every name in `__all__` exists, once."""
    module = loaded(name)
    names = list(getattr(module, "__all__", []))
    assert len(names) == len(set(names))
    for public in names:
        assert hasattr(module, public), public


def test_importing_streamfold_imports_nothing_heavy() -> None:
    """Names load when they are first used: the import itself costs a dictionary."""
    seen = python(
        "import sys; before = set(sys.modules); import streamfold, json; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    heavy = {
        "httpx",
        "httpcore",
        "httpx_sse",
        "msgspec",
        "orjson",
        "jiter",
        "anyio",
        "asyncio",
        "ssl",
    }
    assert not heavy & {name.split(".")[0] for name in seen}
    assert [name for name in seen if name.startswith("streamfold")] == ["streamfold"]


def test_messages_need_no_network_library() -> None:
    """The values can be used where nothing is called: in a worker that only reads messages."""
    seen = python(
        "import sys, json; from streamfold import AIMessage, AIMessageChunk, HumanMessage; "
        "AIMessageChunk('a') + AIMessageChunk('b'); HumanMessage('hi'); "
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not {"httpx", "httpcore", "httpx_sse", "anyio", "ssl"} & set(seen)


def test_a_model_can_be_made_and_shown_without_warnings() -> None:
    """In an interpreter where a warning is an error, from the top-level names alone."""
    shown = python(
        "import json; from streamfold import *; "
        "model = init_chat_model('gpt-4.1', api_key='k' * 20); print(json.dumps(repr(model)))"
    )
    assert shown == "ChatOpenAI('gpt-4.1')"


def test_the_version_is_the_packages() -> None:
    import tomllib

    project = tomllib.loads((SRC.parents[1] / "pyproject.toml").read_text())["project"]
    assert streamfold.__version__ == project["version"]
