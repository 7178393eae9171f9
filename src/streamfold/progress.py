"""How a batch is going: a `BatchSummary` after every item, for a bar or for a program of one's own.

What is spent is heard by a handler that all calls of the batch get, nested ones included. A batch
that nobody follows has none of this.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio
import msgspec

from .callbacks import BaseCallbackHandler, LLMResult
from .errors import ConfigurationError

__all__ = ["BatchSummary", "NoProgress", "Progress", "progress_for"]

log = logging.getLogger("streamfold")


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How far a batch is, or how it ended (`over`).

    `done` are answered, `failed` raised an error, `total` is None where nobody knows how many there
    will be. Of those done, `resumed` came from the journal. Tokens, retries and `cost` (US dollars,
    None where a price is not known) are what this run used, failed and nested calls included.
    `str()` gives all of it in one line.
    """

    done: int = 0
    failed: int = 0
    total: int | None = None
    resumed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None
    retries: int = 0
    seconds: float = 0.0
    over: bool = False

    @property
    def tokens(self) -> int:
        """Input and output tokens."""
        return self.input_tokens + self.output_tokens

    @property
    def rate(self) -> float:
        """Items per second, those from the journal not counted."""
        asked = self.done + self.failed - self.resumed
        return asked / self.seconds if self.seconds > 0 else 0.0

    @property
    def time_left(self) -> float | None:
        """Seconds until the end at this rate; None if that cannot be known yet."""
        if self.total is None or not self.rate:
            return None
        return (self.total - self.done - self.failed) / self.rate

    @property
    def details(self) -> str:
        """What there is to say besides how many are done and how fast."""
        said = [
            f"{self.failed:,} failed" * bool(self.failed),
            f"{self.resumed:,} from the journal" * bool(self.resumed),
            f"{self.tokens:,} tokens" * bool(self.tokens),
            "" if self.cost is None else f"${self.cost:,.4f}",
            f"{self.retries:,} retries" * bool(self.retries),
        ]
        return ", ".join(filter(None, said))

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        said = [f"{self.done:,}{of} done", self.details, f"{self.seconds:.1f} s"]
        return ", ".join(filter(None, said))


#: What `progress=` may be: a bar, none, or a function of the summary, sync or async.
Wanted: TypeAlias = bool | Callable[[BatchSummary], Any]


def progress_for(wanted: Wanted, total: int | None) -> Progress | NoProgress:
    """What follows a batch of `total` items. Raises ConfigurationError for what cannot."""
    if wanted is False or wanted is None:
        return NoProgress()
    if wanted is True:
        return Progress(_Bar(total), total)
    if not callable(wanted):
        raise ConfigurationError(
            f"progress is {wanted!r:.60}: expected True, False or a function of a BatchSummary"
        )
    return Progress(wanted, total)


class NoProgress:
    """For a batch that nobody follows."""

    handlers: tuple[Any, ...] = ()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc_info: object) -> None:
        pass

    def count(self, *, failed: bool = False, resumed: bool = False) -> None:
        pass

    async def show(self) -> None:
        pass

    async def end(self) -> None:
        pass


class Progress:
    """Counts, and shows what it has counted: at the beginning of the ``async with`` block, when it
    is told to, and at the end. `handlers` are for the config of every call."""

    def __init__(self, show: Callable[[BatchSummary], Any], total: int | None) -> None:
        self._show = show
        self._total = total
        self._tally = _Tally()
        self._done = self._failed = self._resumed = 0
        self._start = time.monotonic()
        self.handlers = (self._tally,)

    async def __aenter__(self) -> None:
        self._start = time.monotonic()
        await self.show()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.end()

    def count(self, *, failed: bool = False, resumed: bool = False) -> None:
        """One more is over."""
        self._failed += failed
        self._done += not failed
        self._resumed += resumed

    async def end(self) -> None:
        """The batch is over, however it ended."""
        with anyio.CancelScope(shield=True):
            await self.show(over=True)

    async def show(self, *, over: bool = False) -> None:
        """Say how things stand."""
        summary = BatchSummary(
            done=self._done,
            failed=self._failed,
            total=self._total,
            resumed=self._resumed,
            seconds=time.monotonic() - self._start,
            over=over,
            **self._tally.spent(),
        )
        try:
            result = self._show(summary)
            if inspect.isawaitable(result):
                await result
        except Exception:  # as with handlers: hours of work do not end for a line on a screen
            log.warning("error in the progress function of a batch", exc_info=True)


class _Tally(BaseCallbackHandler):
    """What all calls have used so far. They may be in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = [0, 0]
        self._cost: float | None = None
        self._all_known = True
        self._retries = 0

    def spent(self) -> dict[str, Any]:
        """As fields of a `BatchSummary`."""
        with self._lock:
            return {
                "input_tokens": self._tokens[0],
                "output_tokens": self._tokens[1],
                "cost": self._cost if self._all_known else None,
                "retries": self._retries,
            }

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self._add(response, kwargs["metadata"])

    def on_llm_error(
        self, error: BaseException, *, response: LLMResult | None = None, **kwargs: Any
    ) -> None:
        if response is not None:  # what had come is billed, too
            self._add(response, kwargs["metadata"])

    def on_llm_cancel(self, *, response: LLMResult | None = None, **kwargs: Any) -> None:
        if response is not None:
            self._add(response, kwargs["metadata"])

    def on_retry(self, retry_state: Any, **kwargs: Any) -> None:
        with self._lock:
            self._retries += 1

    def _add(self, response: LLMResult, asked: dict[str, Any]) -> None:
        price = response.cost(asked)
        usage = response.generations[0][0].message.usage_metadata or {}
        with self._lock:
            self._tokens[0] += usage.get("input_tokens", 0)
            self._tokens[1] += usage.get("output_tokens", 0)
            if price is None:
                self._all_known = False
            else:
                self._cost = (self._cost or 0.0) + price


class _Bar:
    """A bar of tqdm, in the terminal or in the notebook: on stderr, and as tqdm's own environment
    variables say."""

    def __init__(self, total: int | None) -> None:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise ConfigurationError(
                'progress=True needs tqdm: pip install "streamfold[progress]"'
            ) from None
        # Without the watchdog thread of tqdm's own, which would outlive the batch.
        self._tqdm: Any = type("Bar", (tqdm,), {"monitor_interval": 0})
        self._total = total
        self._bar: Any = None
        self._resumed = 0

    def __call__(self, summary: BatchSummary) -> None:
        bar = self._bar
        if bar is None:
            bar = self._bar = self._tqdm(total=self._total, miniters=1)
        if not bar.disable:  # then it has no such fields
            from_journal = summary.resumed - self._resumed
            self._resumed = summary.resumed
            for field in ("initial", "last_print_n", "n"):  # so that the rate is that of the calls
                setattr(bar, field, getattr(bar, field) + from_journal)
        bar.set_postfix_str(summary.details, refresh=False)
        bar.update(summary.done + summary.failed - bar.n)
        if summary.over:
            bar.close()
