"""`docs/web.md` and `examples/web.py` run: every block of code, and what the services answer."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from web_tools import parts_of, read_events, serving

from streamfold.testing import EmbeddedProvider

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```",
    (ROOT / "docs" / "web.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
UI = {"messages": [{"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
HI = {"model": "parrot", "messages": [{"role": "user", "content": "Hi"}]}


def _asked(url: str, path: str, **options: Any) -> httpx.Response:
    method = "POST" if "json" in options else "GET"
    response = httpx.request(method, url + path, trust_env=False, timeout=20, **options)
    return response.raise_for_status()


def test_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs after those above it; the service of each answers."""
    names: dict[str, Any] = {}
    said: list[str] = []
    asks: dict[str, dict[str, Any]] = {
        "/answer?q=Hi": {},
        "/agent?q=Weather in Paris?": {},
        "/api/chat": {"json": UI},
        "/v1/chat/completions": {"json": HI, "headers": {"authorization": "Bearer sesame"}},
    }
    with EmbeddedProvider() as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url + "/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        for code in BLOCKS:
            exec(compile(code, "docs/web.md", "exec", dont_inherit=True), names)
            if "app = " not in code:
                continue
            with serving(names["app"]) as url:
                for path, options in asks.items():
                    if f'"{path.partition("?")[0]}"' in code or (
                        "gateway(" in code and "v1" in path
                    ):
                        said.append(_asked(url, path, **options).text)
    first, _, agent, chat, kept, completion = said
    assert parts_of(first)[-1] == {"type": "stream-end"}
    types = [part["type"] for part in parts_of(agent)[:-1]]
    assert types.count("start-step") == 2
    assert types.index("tool-output-available") < types.index("finish-step")
    assert "Sunny in Paris." in agent
    assert parts_of(chat)[-2] == {"type": "finish", "finishReason": "stop"}
    assert all(event.id for event in read_events(kept))
    assert '"chat.completion"' in completion


def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page is there, and its three ways to ask answer."""
    with EmbeddedProvider(["One.", "Two.", "Three."]) as provider:
        monkeypatch.setenv("STREAMFOLD_MODEL", "openai:gpt-4.1")
        monkeypatch.setenv("STREAMFOLD_BASE_URL", provider.url + "/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.syspath_prepend(str(ROOT / "examples"))
        monkeypatch.delitem(sys.modules, "web", raising=False)
        with serving(importlib.import_module("web").app) as url:
            assert "EventSource" in _asked(url, "/").text
            assert '"One."' in _asked(url, "/answer?q=Hi").text
            assert '"Two."' in _asked(url, "/api/chat", json=UI).text
            said = _asked(url, "/v1/chat/completions", json=HI).json()
    assert said["choices"][0]["message"]["content"] == "Three."
