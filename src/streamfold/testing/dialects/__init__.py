"""The wire dialects that the embedded provider speaks: a file and a row each."""

from __future__ import annotations

from streamfold.testing.answers import Dialect
from streamfold.testing.dialects import (
    anthropic,
    bedrock,
    cohere,
    gemini,
    ollama,
    openai_chat,
    openai_responses,
)

__all__ = ["DIALECTS"]

DIALECTS: tuple[Dialect, ...] = (
    openai_chat.DIALECT,
    openai_responses.DIALECT,
    anthropic.DIALECT,
    gemini.DIALECT,
    bedrock.DIALECT,
    ollama.DIALECT,
    cohere.DIALECT,
)
