"""Streams on the web, with Starlette or FastAPI: ``pip install 'streamfold[web]'``.

- `StreamResponse`: any stream as server-sent events, in one of three vocabularies.
- `KeptStreams`: the same for streams that a client can resume by `Last-Event-ID`.
- `EventsVocabulary`, `OpenAIVocabulary`, `VercelVocabulary`: the vocabularies, where their
  parameters are wanted; `messages_from_ui` reads what `useChat` sends.
- `gateway`: an application with OpenAI's `/v1/chat/completions` and `/v1/models` over any models;
  `serve` runs it (``streamfold serve`` on the command line).
"""

from __future__ import annotations

from ...errors import ConfigurationError

try:
    import starlette as starlette
except ImportError as error:
    raise ConfigurationError(
        f"streamfold.integrations.web needs {error.name}: pip install 'streamfold[web]'"
    ) from error

from .events import EventsVocabulary
from .failures import Refusal
from .gateway import gateway
from .items import Item, Source
from .kept import KeptStreams
from .openai import OpenAIVocabulary
from .response import StreamResponse
from .serve import serve
from .ui_messages import messages_from_ui
from .vercel import VercelVocabulary
from .vocabulary import Vocabulary

__all__ = [
    "EventsVocabulary",
    "Item",
    "KeptStreams",
    "OpenAIVocabulary",
    "Refusal",
    "Source",
    "StreamResponse",
    "VercelVocabulary",
    "Vocabulary",
    "gateway",
    "messages_from_ui",
    "serve",
]
