"""The wire dialects that the embedded provider speaks: a file and a row each."""

from __future__ import annotations

from streamfold.testing.answers import Dialect
from streamfold.testing.dialects import anthropic, ollama, openai_chat

__all__ = ["DIALECTS"]

DIALECTS: tuple[Dialect, ...] = (
    openai_chat.DIALECT,
    anthropic.DIALECT,
    ollama.DIALECT,
)
