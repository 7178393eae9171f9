"""streamfold: an async-first streaming client for language models.

Provider bytes become typed chunks, and chunks add up to messages. Names load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callbacks import AsyncCallbackHandler as AsyncCallbackHandler
    from .callbacks import BaseCallbackHandler as BaseCallbackHandler
    from .callbacks import UsageMetadataCallbackHandler as UsageMetadataCallbackHandler
    from .callbacks import get_usage_metadata_callback as get_usage_metadata_callback
    from .chat_models import AzureChatOpenAI as AzureChatOpenAI
    from .chat_models import ChatAnthropic as ChatAnthropic
    from .chat_models import ChatBedrock as ChatBedrock
    from .chat_models import ChatBedrockConverse as ChatBedrockConverse
    from .chat_models import ChatGoogleGenerativeAI as ChatGoogleGenerativeAI
    from .chat_models import ChatHuggingFace as ChatHuggingFace
    from .chat_models import ChatModel as ChatModel
    from .chat_models import ChatOllama as ChatOllama
    from .chat_models import ChatOpenAI as ChatOpenAI
    from .chat_models import ChatVertexAI as ChatVertexAI
    from .chat_models import HuggingFaceEndpoint as HuggingFaceEndpoint
    from .chat_models import init_chat_model as init_chat_model
    from .chunks import AIMessageChunk as AIMessageChunk
    from .errors import ToolException as ToolException
    from .functions import runnable as runnable
    from .limits import Limits as Limits
    from .limits import Timeouts as Timeouts
    from .messages import AIMessage as AIMessage
    from .messages import HumanMessage as HumanMessage
    from .messages import SystemMessage as SystemMessage
    from .messages import ToolMessage as ToolMessage
    from .messages import messages_from_dict as messages_from_dict
    from .messages import messages_to_dict as messages_to_dict
    from .net.tokens import azure_token_provider as azure_token_provider
    from .net.tokens import google_token_provider as google_token_provider
    from .profiles import usage_cost as usage_cost
    from .rate_limiters import InMemoryRateLimiter as InMemoryRateLimiter
    from .rate_limiters import RateLimiter as RateLimiter
    from .rate_limiters import TokenRateLimiter as TokenRateLimiter
    from .tools import Tool as Tool
    from .tools import arun_tool_calls as arun_tool_calls
    from .tools import run_tool_calls as run_tool_calls
    from .tools import tool as tool
    from .vendors import Vendor as Vendor
    from .vendors import register_provider as register_provider

__version__ = "0.1.0"

_HOMES = {
    "AIMessage": "messages",
    "AIMessageChunk": "chunks",
    "AsyncCallbackHandler": "callbacks",
    "AzureChatOpenAI": "chat_models",
    "BaseCallbackHandler": "callbacks",
    "ChatAnthropic": "chat_models",
    "ChatBedrock": "chat_models",
    "ChatBedrockConverse": "chat_models",
    "ChatGoogleGenerativeAI": "chat_models",
    "ChatHuggingFace": "chat_models",
    "ChatModel": "chat_models",
    "ChatOllama": "chat_models",
    "ChatOpenAI": "chat_models",
    "ChatVertexAI": "chat_models",
    "HuggingFaceEndpoint": "chat_models",
    "HumanMessage": "messages",
    "InMemoryRateLimiter": "rate_limiters",
    "Limits": "limits",
    "RateLimiter": "rate_limiters",
    "SystemMessage": "messages",
    "Timeouts": "limits",
    "TokenRateLimiter": "rate_limiters",
    "Tool": "tools",
    "ToolException": "errors",
    "ToolMessage": "messages",
    "UsageMetadataCallbackHandler": "callbacks",
    "Vendor": "vendors",
    "arun_tool_calls": "tools",
    "azure_token_provider": "net.tokens",
    "get_usage_metadata_callback": "callbacks",
    "google_token_provider": "net.tokens",
    "init_chat_model": "chat_models",
    "messages_from_dict": "messages",
    "messages_to_dict": "messages",
    "register_provider": "vendors",
    "run_tool_calls": "tools",
    "runnable": "functions",
    "tool": "tools",
    "usage_cost": "profiles",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
