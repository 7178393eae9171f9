"""A model of every dialect, over one embedded provider."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamfold import init_chat_model
from streamfold.testing import EmbeddedProvider

__all__ = ["DIALECTS", "model_of"]

_MODELS: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "openai_chat": lambda url: ("openai:gpt-4.1", {"base_url": f"{url}/v1"}),
    "openai_responses": lambda url: (
        "openai:gpt-4.1",
        {"base_url": f"{url}/v1", "use_responses_api": True},
    ),
    "anthropic": lambda url: ("anthropic:claude-sonnet-4-5", {"base_url": url}),
    "gemini": lambda url: ("google_genai:gemini-2.5-flash", {"base_url": url}),
    "bedrock": lambda url: (
        "bedrock:anthropic.claude-sonnet-4-5-20250929-v1:0",
        {"base_url": url, "region_name": "us-east-1"},
    ),
    "ollama": lambda url: ("ollama:llama3.1", {"base_url": url}),
    "cohere": lambda url: ("cohere:command-a-03-2025", {"base_url": url}),
}
DIALECTS = list(_MODELS)


def model_of(dialect: str, provider: EmbeddedProvider, **kwargs: Any) -> Any:
    name, address = _MODELS[dialect](provider.url)
    key = {} if dialect == "ollama" else {"api_key": "k"}
    return init_chat_model(name, **address, **key, max_retries=0, **kwargs)
