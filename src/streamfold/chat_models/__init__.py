"""Chat models: `init_chat_model`, the class that all models are of, and the named classes."""

from __future__ import annotations

from .base import ChatModel
from .classes import ChatAnthropic, ChatOpenAI
from .init import init_chat_model

__all__ = ["ChatAnthropic", "ChatModel", "ChatOpenAI", "init_chat_model"]
