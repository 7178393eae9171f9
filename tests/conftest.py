"""What all tests share: two async backends, Hypothesis profiles, an environment without keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

# Machines that run several jobs at once make wall-clock deadlines lie.
_QUIET: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}
settings.register_profile("default", max_examples=50, **_QUIET)
settings.register_profile("matrix", max_examples=2000, **_QUIET)
# Of a mutant, only whether it is found matters: the same examples for each, and none made smaller.
settings.register_profile(
    "mutants",
    max_examples=50,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    **_QUIET,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("trio", {}), id="trio"),
    ],
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Async tests (`pytestmark = pytest.mark.anyio`) run on both backends."""
    return request.param


@pytest.fixture(params=["auto", pytest.param("aiohttp", marks=pytest.mark.matrix)])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How models connect that do not say it: in the matrix by each transport of ours, on asyncio,
    where all of them run."""
    if request.param != "auto":
        pytest.importorskip(request.param)
        if "trio" in str(request.node.callspec.params.values()):
            pytest.skip(f"{request.param} runs on asyncio only")
        monkeypatch.setattr(
            "streamfold.net.clients._checked_transport",
            lambda name, client: name or (request.param if client is None else "auto"),
        )
    return request.param


@pytest.fixture(scope="session", autouse=True)
def _no_keys_and_no_proxies() -> Iterator[None]:
    """Tests see neither the developer's keys and addresses nor a proxy."""
    ends = ("_API_KEY", "_API_KEYS", "_AUTH_TOKEN", "_BASE_URL", "_API_BASE", "_ENDPOINT", "_PROXY")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().endswith(ends):
                patch.delenv(name)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The full matrix runs where it is asked for: ``-m matrix``."""
    if "matrix" in (config.getoption("markexpr") or ""):
        return
    kept, left = [], []
    for item in items:
        (left if item.get_closest_marker("matrix") else kept).append(item)
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = kept
