"""The journal of a batch: an SQLite file in which every finished item is on disk before anybody is
told of it, so that a batch that was interrupted goes on where it was.

Items that finish while others are being written share the next write, and so its one wait for the
disk. The file itself, and SQLite with it, is in `journal_file.py`, loaded when there is one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from .errors import ConfigurationError, JournalError
from .stored import Stored

if TYPE_CHECKING:
    from .journal_file import JournalFile, Row

__all__ = ["MISSING", "Journal", "NoJournal", "checked_path", "opened"]

T = TypeVar("T")

#: What `recall` gives for an item that is not in the journal.
MISSING: Final = object()

_WINDOW: Final = 256  # results read from the file at a time


def checked_path(journal: Any) -> Path | None:
    """The path of a journal; None is none. Raises ConfigurationError for what is no path."""
    if journal is None:
        return None
    if not isinstance(journal, str | os.PathLike) or not os.fspath(journal):
        raise ConfigurationError(f"journal is {journal!r:.60}: expected the path of a file")
    return Path(os.fsdecode(journal)).absolute()


@asynccontextmanager
async def opened(path: Path, stored: Stored) -> AsyncIterator[Journal]:
    """The journal at `path`, made if it is not there, for as long as the block lasts. Raises
    JournalError if it cannot be used for answers of this identity."""
    from .journal_file import JournalFile

    # A limit of its own, so that functions that keep every other thread busy cannot hold it up.
    threads = anyio.CapacityLimiter(1)
    file = await anyio.to_thread.run_sync(JournalFile, path, stored.identity, limiter=threads)
    try:
        yield Journal(file, stored, threads)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(file.close, limiter=threads)


class NoJournal:
    """For a batch without a journal: nothing is known, and nothing is kept."""

    async def recall(self, index: int, mark: Callable[[], bytes]) -> Any:
        return MISSING

    async def save(self, index: int, mark: Callable[[], bytes], result: Any) -> None:
        pass


class Journal:
    """A journal that is open. A `mark` is the fingerprint of an input."""

    def __init__(self, file: JournalFile, stored: Stored, threads: anyio.CapacityLimiter) -> None:
        self._file = file
        self._stored = stored
        self._threads = threads
        self._group = _Group()
        self._writing = anyio.Lock()
        self._window: dict[int, Row] = {}
        self._next = 0  # the first index that no window has covered yet

    async def check(self, marks: Iterable[bytes]) -> None:
        """Compare all inputs with the journal. Raises JournalError if one was another."""
        await self._thread(self._file.check, marks)

    async def recall(self, index: int, mark: Callable[[], bytes]) -> Any:
        """The result of an item that is in the journal, else `MISSING`. Items are asked for once,
        in their order. Raises JournalError if its input was another one."""
        known = mark()  # one that has none must not be asked
        if index >= self._next and index <= self._file.last:
            rows = await self._thread(self._file.rows, index, index + _WINDOW)
            self._window = {row[0]: row for row in rows}
            self._next = index + _WINDOW
        row = self._window.pop(index, None)
        if row is None:
            return MISSING
        if row[1] != known:
            raise self._file.other_input(index)
        try:
            return self._stored.read(row[2])
        except (TypeError, ValueError) as error:
            text = f"has an unreadable result of input {index}: {error}"
            raise self._file.problem(text) from None

    async def save(self, index: int, mark: Callable[[], bytes], result: Any) -> None:
        """Returns once the result is on disk; being cancelled does not keep it from getting there.
        Raises JournalError if it cannot."""
        try:
            text = self._stored.write(result)
        except (TypeError, ValueError) as error:
            raise self._file.problem(f"cannot keep the result of input {index}: {error}") from None
        group = self._group
        group.rows.append((index, mark(), text))
        with anyio.CancelScope(shield=True):
            async with self._writing:
                if not group.written:  # those who came meanwhile are in it, too
                    self._group = _Group()
                    await group.write(lambda rows: self._thread(self._file.write, rows))
        if group.error is not None:
            raise group.error

    async def _thread(self, function: Callable[..., T], *args: Any) -> T:
        return await anyio.to_thread.run_sync(function, *args, limiter=self._threads)


class _Group:
    """Rows that are written together."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.written = False
        self.error: JournalError | None = None

    async def write(self, write: Callable[[list[Row]], Any]) -> None:
        self.written = True
        try:
            await write(self.rows)
        except JournalError as error:
            self.error = error
