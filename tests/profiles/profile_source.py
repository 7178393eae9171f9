"""Models as models.dev has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: What the fixture `source` gives.
Write = Callable[..., str]


def model(**fields: Any) -> dict[str, Any]:
    """A model as models.dev has it."""
    plain = {
        "id": "any",
        "name": "Rocket",
        "attachment": True,
        "reasoning": False,
        "tool_call": True,
        "open_weights": False,
        "release_date": "2026-01-02",
        "last_updated": "2026-02-03",
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "limit": {"context": 1000, "output": 100},
        "cost": {"input": 2, "output": 8.5},
        "family": "rockets",
    }
    return {**plain, **fields}
