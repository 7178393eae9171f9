"""LangChain and LangGraph: any streamfold model as a `BaseChatModel`, and messages both ways.

    from langchain.agents import create_agent
    from streamfold import init_chat_model
    from streamfold.integrations.langchain import as_langchain

    agent = create_agent(as_langchain(init_chat_model("anthropic:claude-opus-4-1")), tools=[...])

Needs ``pip install streamfold[langchain]``. What differs from LangChain's own classes is in
`docs/langchain.md`.
"""

from __future__ import annotations

from .messages import from_langchain, to_langchain
from .model import ChatStreamfold, as_langchain

__all__ = ["ChatStreamfold", "as_langchain", "from_langchain", "to_langchain"]
