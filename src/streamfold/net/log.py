"""What is logged of each request: to the logger `streamfold`, by the standard `logging`.

DEBUG: a request is sent; its answer is complete, or was left. INFO: the status and when it came;
what failed, and what is tried again. Never a header, a prompt or an answer, and no key: of a URL
only host and path, and errors come here with their keys removed.
"""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import urlsplit

from ..errors import StreamfoldError

__all__ = ["QUIET", "Exchange", "exchange", "log"]

log: Final = logging.getLogger("streamfold")


class Exchange:
    """One request and its answer, as they are logged. This one logs nothing."""

    def sent(self, url: str, size: int) -> None:
        """A request of `size` bytes goes out."""

    def answered(self, status: int, request_id: str | None) -> None:
        """The headers of the answer are there."""

    def over(self, failure: StreamfoldError | None, *, whole: bool) -> None:
        """It failed, the answer is `whole`, or its reader has left it."""


class _Logged(Exchange):
    def __init__(self, provider: str, model: str) -> None:
        self._who = f"{provider} {model}".strip()
        self._begun = time.perf_counter()

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self._begun

    def sent(self, url: str, size: int) -> None:
        parts = urlsplit(url)
        where = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        log.debug("%s: POST %s%s, %d bytes", self._who, where, parts.path, size)

    def answered(self, status: int, request_id: str | None) -> None:
        named = f", request {request_id}" if request_id else ""
        log.info("%s: status %d after %.3f s%s", self._who, status, self._seconds, named)

    def over(self, failure: StreamfoldError | None, *, whole: bool) -> None:
        if failure is not None:
            kind = type(failure).__name__
            log.info("%s: %s after %.3f s: %s", self._who, kind, self._seconds, failure)
        else:
            end = "complete" if whole else "left"
            log.debug("%s: answer %s after %.3f s", self._who, end, self._seconds)


QUIET: Final = Exchange()


def exchange(provider: str, model: str) -> Exchange:
    """The log of one request that begins now. Whether anybody reads it is decided here, once."""
    return _Logged(provider, model) if log.isEnabledFor(logging.INFO) else QUIET
