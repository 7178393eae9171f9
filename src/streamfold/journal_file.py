"""The file of a journal: SQLite, one row an item, held exclusively while a batch runs.

A process that is killed holds nothing any more, and SQLite's write-ahead log brings back all that
was committed. Inputs and keys are not in the file: of inputs there are fingerprints, and of the
parameters that are no plain numbers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from .errors import JournalError
from .stored import described

__all__ = ["JournalFile", "Row"]

_APPLICATION: Final = 0x5F01D42  # SQLite's "application id": whose file this is
_VERSION: Final = 1
_PATIENCE: Final = 1.0  # seconds to wait for a process that is just ending

#: Index, fingerprint of the input, result.
Row = tuple[int, bytes, str]


class JournalFile:
    """Its methods block; they are called one at a time, in any thread. All raise JournalError.

    `last` is the highest index that was there when it was opened, or -1.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._check_place()
        with self._problems():
            self._db = sqlite3.connect(
                path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
        try:
            with self._problems():
                self._begin(described(identity))
                self.last: int = self._value("SELECT coalesce(max(place), -1) FROM items")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Leaves one file, with everything in it."""
        with self._problems():
            self._db.close()

    def check(self, marks: Iterable[bytes]) -> None:
        """Compare the marks of all inputs with those of the items that are there."""
        with self._problems(), closing(self._db.cursor()) as cursor:
            cursor.execute("SELECT place, input FROM items ORDER BY place")
            place, known = cursor.fetchone() or (-1, b"")
            for index, mark in enumerate(marks):
                if index != place:
                    continue
                if mark != known:
                    raise self.other_input(index)
                place, known = cursor.fetchone() or (-1, b"")

    def rows(self, start: int, stop: int) -> list[Row]:
        with self._problems():
            query = "SELECT place, input, output FROM items WHERE place >= ? AND place < ?"
            return self._db.execute(query, (start, stop)).fetchall()

    def write(self, rows: Sequence[Row]) -> None:
        """All rows in one transaction, and on disk when this returns."""
        with self._problems(), self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO items VALUES (?, ?, ?)", rows)

    def other_input(self, index: int) -> JournalError:
        return self.problem(f"is of another batch: there, input {index} was another one")

    def problem(self, what: str) -> JournalError:
        return JournalError(f"the journal {self._path} {what}")

    def _check_place(self) -> None:
        if self._path.is_dir():
            raise self.problem("is a directory: expected the path of a file")
        if not self._path.parent.is_dir():
            raise self.problem("cannot be made: there is no such directory")

    def _begin(self, identity: dict[str, Any]) -> None:
        """Take the file for this run alone, and see whose it is."""
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with self._transaction():
            tables = self._value("SELECT count(*) FROM sqlite_master")
            owner = self._value("PRAGMA application_id")
            version = self._value("PRAGMA user_version")
            if (tables or owner) and owner != _APPLICATION:
                raise self.problem("is the database of another program: expected a file of its own")
            if tables and version != _VERSION:
                raise self.problem(f"has the format {version}: expected {_VERSION}")
            if tables:
                self._compare(identity)
            else:
                self._create(identity)
        # After the look inside: until then it might have been somebody else's.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # committed is on disk, whatever stops

    def _create(self, identity: dict[str, Any]) -> None:
        self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
        self._db.execute(f"PRAGMA user_version = {_VERSION}")
        self._db.execute("CREATE TABLE batch (identity TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE items (place INTEGER PRIMARY KEY, input BLOB NOT NULL, "
            "output TEXT NOT NULL)"
        )
        self._db.execute("INSERT INTO batch VALUES (?)", (json.dumps(identity),))

    def _compare(self, identity: dict[str, Any]) -> None:
        try:
            known = json.loads(self._value("SELECT identity FROM batch"))
        except ValueError as error:
            raise self.problem(f"is damaged: {error}") from None
        names = sorted({*known, *identity})
        differences = [_difference(name, identity, known) for name in names]
        if any(differences):
            raise self.problem(f"is of another batch: {', '.join(filter(None, differences))}")

    def _value(self, query: str) -> Any:
        (value,) = self._db.execute(query).fetchone() or ("",)
        return value

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise

    @contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self.problem(_PROBLEMS.get(_code(error), f"cannot be used: {error}")) from None


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest is finer than is of use here


_IN_USE: Final = "is in use: another run, or another program, holds it"
_PROBLEMS: Final = {
    sqlite3.SQLITE_BUSY: _IN_USE,
    sqlite3.SQLITE_LOCKED: _IN_USE,
    sqlite3.SQLITE_NOTADB: "is not a journal: expected a file that a batch has made, or none",
    sqlite3.SQLITE_READONLY: "cannot be written: the file or its directory is read-only",
    sqlite3.SQLITE_FULL: "cannot be written: the disk is full",
}


def _difference(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> str | None:
    if name in here and name in there and here[name] == there[name]:
        return None
    shown = [_said(side, name) for side in (here, there)]
    if shown[0] == shown[1]:
        return f"{name} differs"
    return f"{name} is {shown[0]}, there {shown[1]}"


def _said(side: Mapping[str, Any], name: str) -> str:
    if name not in side:
        return "not given"
    return "given" if isinstance(side[name], dict) else repr(side[name])
