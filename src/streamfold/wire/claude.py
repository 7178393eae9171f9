"""What Claude's models are told, wherever they are served: by Anthropic, Bedrock or Vertex AI."""

from __future__ import annotations

import re
from typing import Any, Final

from ..errors import ConfigurationError

__all__ = ["MAX_CACHE_MARKS", "check_cache_marks", "reasoning_fields"]

#: Claude before 4.6 has a budget to think where later ones have an effort.
_BUDGETED: Final = re.compile(r"claude-(3|[a-z]+-4-([015]\b|20\d\d))")
_BUDGETS: Final = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 32000,
}

#: Breakpoints of the prompt cache in one request: tools, system and messages together.
MAX_CACHE_MARKS: Final = 4


def reasoning_fields(effort: str, model: str, max_tokens: int | None) -> dict[str, Any]:
    """The fields `thinking` and `output_config` that stand for an effort. "none" switches thinking
    off. Raises ConfigurationError for an effort that the model has not."""
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if not _BUDGETED.search(model):
        return {"thinking": {"type": "adaptive"}, "output_config": {"effort": effort}}
    budget = _BUDGETS.get(effort)
    if budget is None:
        raise ConfigurationError(
            f"reasoning_effort is {effort!r}: {model} takes {', '.join(_BUDGETS)} or 'none'"
        )
    if max_tokens is not None:  # it counts towards max_tokens, and 1024 is the least
        budget = max(1024, min(budget, max_tokens - 1))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def check_cache_marks(count: int) -> None:
    """Raise ConfigurationError for more breakpoints of the cache than a request may have."""
    if count > MAX_CACHE_MARKS:
        raise ConfigurationError(
            f"the request has {count} cache breakpoints (cache_control): at most {MAX_CACHE_MARKS} "
            "are taken, tools, system and messages together; cache_prompt() places two"
        )
