"""The zones of `architecture.md`: a zone imports only from the zones before it, and a core that
speaks protocols does nothing else. Imports are read from the source, those in functions too."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = "streamfold"

#: The zones from the bottom to the top, and the modules (or packages) of each.
ZONES: dict[str, tuple[str, ...]] = {
    "values": (
        "errors",
        "secret",
        "content",
        "parts",
        "messages",
        "deltas",
        "chunks",
        "fold",
        "tool_calls",
        "partial_json",
        "json_fields",
        "usage",
        "limits",
        "coercion",
        "history",
        "caching",
        "display",
    ),
    "wire": ("wire",),
    "net": ("net",),
    "runs": (
        "config",
        "callbacks",
        "console",
        "runnables",
        "functions",
        "runs",
        "batch",
        "journal",
        "journal_file",
        "progress",
        "stored",
        "events",
        "message_stream",
        "rate_limiters",
        "budget",
        "metering",
        "profiles",
        "resilience",
    ),
    "models": (
        "vendors",
        "addresses",
        "chat_models",
        "media",
        "tools",
        "tool_definitions",
        "structured",
        "schema",
    ),
    "edges": ("testing", "integrations", "terminal", "demo", "cli", "__main__"),
    "names": ("__init__",),  # the package itself: it names everything, lazily
}
RANK = {zone: rank for rank, zone in enumerate(ZONES)}
ZONE_OF = {module: zone for zone, modules in ZONES.items() for module in modules}

#: What a zone may import that is neither streamfold nor the standard library.
LIBRARIES = {
    "values": {"msgspec", "orjson", "jiter"},
    "wire": {"msgspec", "orjson", "jiter", "httpx", "httpx_sse", "botocore"},
}
#: Libraries that do IO, read clocks or wait: not for zones that are pure.
IMPURE = {"asyncio", "anyio", "trio", "selectors", "socket", "ssl", "subprocess", "time", "sched"}


#: Libraries that one integration is for: nothing else imports them.
ONLY_IN = {
    "langchain_core": f"{PACKAGE}.integrations.langchain",
    "starlette": f"{PACKAGE}.integrations.web",
    "uvicorn": f"{PACKAGE}.integrations.web",
}


class Import(NamedTuple):
    """One import statement: where it is, and the full names of what it may load."""

    path: Path
    line: int
    names: tuple[str, ...]
    lazy: bool  # inside a function


def imports(path: Path, module: str) -> Iterator[Import]:
    """Every import in a file, relative names made absolute."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                names = tuple(alias.name for alias in child.names)
                yield Import(path, child.lineno, names, lazy)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    parents = package.split(".")
                    parents = parents[: len(parents) - child.level + 1]
                    base = ".".join([*parents, *([base] if base else [])])
                # `from .x import y`: y may be a module of the package x.
                names = tuple(f"{base}.{alias.name}" for alias in child.names)
                yield Import(path, child.lineno, names, lazy)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, lazy or inside)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), lazy=False)


def modules(src: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((src / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(src).with_suffix("").parts)
        yield path, ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def own(module: str) -> str:
    """The part of a full name that says the zone: `streamfold.wire.sse` is in `wire`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def target(name: str) -> str:
    """The same for the name of an import, which may end in a class or a function."""
    part = own(name)
    return part if part in ZONE_OF else "__init__"


def crossings(src: Path) -> list[str]:
    """Every import that goes up, as `path:line: zone imports module (zone)`."""
    found = []
    for path, module in modules(src):
        zone = ZONE_OF.get(own(module))
        if zone is None:
            found.append(
                f"{path.relative_to(src)}: {own(module)!r} is in no zone of tests/test_layers.py"
            )
            continue
        for statement in imports(path, module):
            for name in statement.names:
                if name.split(".")[0] != PACKAGE:
                    continue
                other = ZONE_OF[target(name)]
                if RANK[other] > RANK[zone] and not (other == "names" and zone == "edges"):
                    where = f"{path.relative_to(src)}:{statement.line}"
                    found.append(f"{where}: {zone} imports {name} ({other})")
    return found


def foreign(src: Path) -> list[str]:
    """Every import of a library that the zone of its file has no business with."""
    found = []
    for path, module in modules(src):
        zone = ZONE_OF.get(own(module), "")
        allowed = LIBRARIES.get(zone)
        if allowed is None:
            continue
        for statement in imports(path, module):
            for name in statement.names:
                top = name.split(".")[0]
                known = top in sys.stdlib_module_names or top in (PACKAGE, *allowed)
                if top in IMPURE or not known:
                    found.append(f"{path.relative_to(src)}:{statement.line}: {zone} imports {top}")
    return found


def test_no_import_goes_up() -> None:
    """A zone imports only from itself and from the zones before it."""
    assert crossings(SRC) == []


def test_the_core_imports_only_what_it_may() -> None:
    """Values and wire are pure: no IO, no clock, no waiting, no library beyond their few."""
    assert foreign(SRC) == []


def test_the_core_never_awaits() -> None:
    """No coroutine in values and wire."""
    found = []
    for path, module in modules(SRC):
        if ZONE_OF.get(own(module)) in LIBRARIES:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
            found += [f"{path}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, kinds)]
    assert found == []


def test_testing_stands_alone() -> None:
    """`streamfold.testing` loads nothing else of streamfold, unless a function needs it."""
    found = [
        f"{path.relative_to(SRC)}:{statement.line}: {name}"
        for path, module in modules(SRC)
        if own(module) == "testing"
        for statement in imports(path, module)
        for name in statement.names
        if not statement.lazy and name.split(".")[0] == PACKAGE and target(name) != "testing"
    ]
    assert found == []


def test_an_integration_alone_imports_its_library() -> None:
    """Whoever does not use it need not have it."""
    found = [
        f"{path.relative_to(SRC)}:{statement.line}: {name}"
        for path, module in modules(SRC)
        for statement in imports(path, module)
        for name in statement.names
        if not module.startswith(ONLY_IN.get(name.split(".")[0], module))
    ]
    assert found == []


def test_the_zones_name_only_what_could_be() -> None:
    """No module is in two zones."""
    named = [module for zone in ZONES.values() for module in zone]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("file", "source", "crossing"),
    [
        ("fold.py", "from .net import pool", "fold.py:1: values imports streamfold.net.pool (net)"),
        ("fold.py", "def f():\n    from . import vendors", "fold.py:2: values imports"),
        ("fold.py", "import streamfold.wire.sse as s", "fold.py:1: values imports"),
        (
            "fold.py",
            "from streamfold import AIMessage",
            "streamfold.AIMessage (names)",
        ),
        ("wire/sse.py", "from ..net.pool import x", "wire/sse.py:1: wire imports"),
        ("wire/sse.py", "class A:\n  async def f(s):\n    import streamfold.cli", "sse.py:3: wire"),
        ("net/__init__.py", "from ..batch import x", "net/__init__.py:1: net imports"),
        ("brand_new.py", "", "'brand_new' is in no zone"),
    ],
)
def test_a_crossing_is_found_and_named(
    tmp_path: Path, file: str, source: str, crossing: str
) -> None:
    """The reader of imports sees relative, absolute, nested and renamed ones."""
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    (found,) = crossings(tmp_path)
    assert crossing in found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wire/sse.py", "from ..errors import x\nfrom .codec import y\nfrom . import codec"),
        ("net/__init__.py", "from . import pool\nfrom .. import errors\nimport httpx"),
        ("cli.py", "from streamfold import init_chat_model"),
    ],
)
def test_imports_downwards_are_fine(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert crossings(tmp_path) == []


def test_foreign_libraries_are_found(tmp_path: Path) -> None:
    path = tmp_path / PACKAGE / "fold.py"
    path.parent.mkdir(parents=True)
    path.write_text("import re\nimport msgspec\nimport anyio\ndef f():\n    import requests")
    assert foreign(tmp_path) == [
        "streamfold/fold.py:3: values imports anyio",
        "streamfold/fold.py:5: values imports requests",
    ]
