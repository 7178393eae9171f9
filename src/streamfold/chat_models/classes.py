"""The named classes: `ChatModel` with the vendor filled in."""

from __future__ import annotations

from typing import ClassVar

from .base import ChatModel

__all__ = ["ChatAnthropic", "ChatOpenAI"]


class ChatOpenAI(ChatModel):
    """OpenAI, and any server that speaks its API (`base_url=`)."""

    provider: ClassVar[str] = "openai"


class ChatAnthropic(ChatModel):
    """Anthropic."""

    provider: ClassVar[str] = "anthropic"
