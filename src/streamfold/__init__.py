"""streamfold: an async-first streaming client for language models.

Provider bytes become typed chunks, and chunks add up to messages. Names load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .budget import Budget as Budget
    from .caching import cache_prompt as cache_prompt
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
    from .config import RunnableConfig as RunnableConfig
    from .console import ConsoleCallbackHandler as ConsoleCallbackHandler
    from .errors import ToolException as ToolException
    from .functions import runnable as runnable
    from .limits import Limits as Limits
    from .limits import Timeouts as Timeouts
    from .media import audio_block as audio_block
    from .media import file_block as file_block
    from .media import image_block as image_block
    from .media import save_media as save_media
    from .media import video_block as video_block
    from .messages import AIMessage as AIMessage
    from .messages import HumanMessage as HumanMessage
    from .messages import SystemMessage as SystemMessage
    from .messages import ToolMessage as ToolMessage
    from .messages import messages_from_dict as messages_from_dict
    from .messages import messages_to_dict as messages_to_dict
    from .net.tokens import azure_token_provider as azure_token_provider
    from .net.tokens import google_token_provider as google_token_provider
    from .profiles import usage_cost as usage_cost
    from .progress import BatchSummary as BatchSummary
    from .rate_limiters import InMemoryRateLimiter as InMemoryRateLimiter
    from .rate_limiters import RateLimiter as RateLimiter
    from .rate_limiters import RedisRateLimiter as RedisRateLimiter
    from .rate_limiters import TokenRateLimiter as TokenRateLimiter
    from .runs import adispatch_custom_event as adispatch_custom_event
    from .runs import dispatch_custom_event as dispatch_custom_event
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
    "Budget": "budget",
    "BatchSummary": "progress",
    "ChatAnthropic": "chat_models",
    "ChatBedrock": "chat_models",
    "ChatBedrockConverse": "chat_models",
    "ChatGoogleGenerativeAI": "chat_models",
    "ChatHuggingFace": "chat_models",
    "ChatModel": "chat_models",
    "ChatOllama": "chat_models",
    "ChatOpenAI": "chat_models",
    "ChatVertexAI": "chat_models",
    "ConsoleCallbackHandler": "console",
    "HuggingFaceEndpoint": "chat_models",
    "HumanMessage": "messages",
    "InMemoryRateLimiter": "rate_limiters",
    "Limits": "limits",
    "RateLimiter": "rate_limiters",
    "RedisRateLimiter": "rate_limiters",
    "RunnableConfig": "config",
    "SystemMessage": "messages",
    "Timeouts": "limits",
    "TokenRateLimiter": "rate_limiters",
    "Tool": "tools",
    "ToolException": "errors",
    "ToolMessage": "messages",
    "UsageMetadataCallbackHandler": "callbacks",
    "Vendor": "vendors",
    "adispatch_custom_event": "runs",
    "arun_tool_calls": "tools",
    "audio_block": "media",
    "azure_token_provider": "net.tokens",
    "cache_prompt": "caching",
    "dispatch_custom_event": "runs",
    "file_block": "media",
    "get_usage_metadata_callback": "callbacks",
    "google_token_provider": "net.tokens",
    "image_block": "media",
    "init_chat_model": "chat_models",
    "messages_from_dict": "messages",
    "messages_to_dict": "messages",
    "register_provider": "vendors",
    "run_tool_calls": "tools",
    "runnable": "functions",
    "save_media": "media",
    "tool": "tools",
    "usage_cost": "profiles",
    "video_block": "media",
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
