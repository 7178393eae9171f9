"""What you need to test a program that talks to language models.

No key, no network, and the same answer every time; the program under test runs unchanged:

    from streamfold import init_chat_model
    from streamfold.testing import Answer, EmbeddedProvider

    def test_my_program():
        with EmbeddedProvider(script=["Hello!", Answer(error=429)]) as provider:
            model = init_chat_model("gpt-4.1", base_url=provider.url + "/v1", api_key="any")
            assert my_program(model) == "Hello!"
            assert provider.requests[0].json()["messages"][-1]["content"] == "Hi"

`EmbeddedProvider` answers by rules or by a script, `ReplayServer` with what a real provider once
sent, cut into reads as you like, and `LoopbackServer` with whatever you write. All of them serve
sync, asyncio and trio programs alike, and of each the next replies can be spoilt: cut off, stalled,
slowed down, refused or malformed (`streamfold.testing.faults`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamfold.testing.answers import Answer, Call, Failure, Found, Usage
    from streamfold.testing.embedded import EmbeddedProvider
    from streamfold.testing.replay import Exchange, Pieces, ReplayServer, cut
    from streamfold.testing.server import LoopbackServer, Reply, Request

__all__ = [
    "Answer",
    "Call",
    "EmbeddedProvider",
    "Exchange",
    "Failure",
    "Found",
    "LoopbackServer",
    "Pieces",
    "ReplayServer",
    "Reply",
    "Request",
    "Usage",
    "cut",
]

# Loaded on first use: a server brings asyncio with it.
_HOMES = {
    "Answer": "answers",
    "Call": "answers",
    "Failure": "answers",
    "Found": "answers",
    "Usage": "answers",
    "EmbeddedProvider": "embedded",
    "Exchange": "replay",
    "Pieces": "replay",
    "ReplayServer": "replay",
    "cut": "replay",
    "LoopbackServer": "server",
    "Reply": "server",
    "Request": "server",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
