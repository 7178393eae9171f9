"""What stands between a call and its requests: whose turn it is, and what they use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..chunks import AIMessageChunk
from ..errors import StreamfoldError

__all__ = ["FREE", "Meter", "Turn"]


class Turn(Protocol):
    """One request, from before it is sent until it is over."""

    def answered(self, headers: Mapping[str, str]) -> None:
        """The head of an answer came."""

    def heard(self, batch: Sequence[AIMessageChunk]) -> None:
        """Chunks came."""

    def check(self) -> None:
        """Raise if the answer must not go on. Asked once the chunks were handed over."""

    async def refused(self, error: StreamfoldError) -> None:
        """The request failed."""

    def over(self, error: StreamfoldError | None, *, whole: bool) -> None:
        """The request is over: `whole`, or failed, or else left by its reader."""


class Meter(Protocol):
    """What the requests of one call are measured by."""

    async def turn(self) -> Turn:
        """Wait until the next request may be sent. Raises if it may not."""
        ...


class _Free:
    """The turn of a request that nothing measures."""

    def answered(self, headers: Mapping[str, str]) -> None: ...
    def heard(self, batch: Sequence[AIMessageChunk]) -> None: ...
    def check(self) -> None: ...
    async def refused(self, error: StreamfoldError) -> None: ...
    def over(self, error: StreamfoldError | None, *, whole: bool) -> None: ...


FREE: Turn = _Free()
