"""Chat models: `init_chat_model`, the class that all models are of, and the named classes."""

from __future__ import annotations

from .base import ChatModel
from .classes import (
    AzureChatOpenAI,
    ChatAnthropic,
    ChatBedrock,
    ChatBedrockConverse,
    ChatGoogleGenerativeAI,
    ChatHuggingFace,
    ChatOllama,
    ChatOpenAI,
    ChatVertexAI,
    HuggingFaceEndpoint,
)
from .init import init_chat_model

__all__ = [
    "AzureChatOpenAI",
    "ChatAnthropic",
    "ChatBedrock",
    "ChatBedrockConverse",
    "ChatGoogleGenerativeAI",
    "ChatHuggingFace",
    "ChatModel",
    "ChatOllama",
    "ChatOpenAI",
    "ChatVertexAI",
    "HuggingFaceEndpoint",
    "init_chat_model",
]
