"""The store of a run that may be killed at any moment: what is paid for is in the file before it is used.

Three laws. A receipt that was waited for is a commit that a killed process cannot lose. A trajectory and the end of its
query's answers are one transaction, so that every query is there exactly once. And a folder belongs to one run: other
settings or other prompts are refused, with what differs.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from tpo_core.errors import InvalidInputError, StoreError
from tpo_core.records import repr_without_texts
from tpo_core.runs import statements
from tpo_core.runs.folder import explained, hold, open_to_write, run_file
from tpo_core.runs.items import Item
from tpo_core.runs.reader import Counts, RunReader
from tpo_core.runs.writer import Receipt, Writer
from tpo_core.trajectory import Trajectory

__all__ = ["Admitted", "Answer", "RunStore", "State"]

State = Literal["open", "done", "failed"]
"""``open``: new, or begun by an earlier process."""


HANDED_IN = 1024
"""Queries that may be taken up ahead of the writer."""


@dataclass(frozen=True)
class Admitted:
    """A query with its place in the run."""

    item: Item
    position: int
    state: State

    __repr__ = repr_without_texts("state")


class Answer(NamedTuple):
    """One answered request of an unfinished query, as the file keeps it."""

    position: int
    """Of the query."""
    task: str
    step: int
    seeds: str
    """Which sample: its seed. Of a whole request, a ``=`` and all its seeds. Of a reward, nothing."""
    hash: bytes
    """Of all that was asked: an answer is never given to another request."""
    request: str
    """All seeds of the call that brought it."""
    paid: bool
    """False for what failed and the loop went on past."""
    data: bytes


class RunStore(RunReader):
    """A run's folder, to write; a context manager.

    Get one from ``RunStore.open``. Methods may be called from any thread; those that return a ``Receipt`` have been
    committed when it has been waited for, or awaited.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, RunStore.open(folder, settings={"width": 5}) as store:
        ...     admitted = store.admit(Item("a", "How do bees sleep?"))
        ...     store.counts.open
        1
    """

    @classmethod
    def open(cls, folder: str | Path, *, settings: Mapping[str, Any] | None = None, create: bool = True) -> RunStore:
        """Open a run's folder and hold it until ``close``, or until this process is gone.

        Args:
            folder: Made where it is missing.
            settings: All that decides what the run makes, as JSON, and no keys or passwords: they are kept as they
                are. None takes those of the folder.
            create: Whether a folder without a run starts one.

        Raises:
            StoreError: Another process holds the folder, it belongs to a run with other settings (named one by one),
                or it cannot be read or written.
        """
        path = Path(folder)
        if not create and not run_file(path).is_file():
            raise StoreError(f"{path} holds no run: there is no {run_file(path).name} in it")
        with ExitStack() as opened:
            lock = hold(path)
            opened.callback(lock.close)
            db = open_to_write(path)
            opened.callback(db.close)
            with explained(run_file(path)):
                db.execute("BEGIN IMMEDIATE")
                statements.begin(db, path, settings)
                db.execute("COMMIT")
            store = cls(path, lock, db)
            opened.pop_all()
        return store

    def __init__(self, folder: Path, lock: sqlite3.Connection, db: sqlite3.Connection) -> None:
        """Take what ``open`` opened."""
        super().__init__(folder)
        self._held = lock
        self._handed_in: dict[str, tuple[int, Receipt[None]]] = {}  # queries that may not be committed yet, by id
        self._begun = self.counts
        self._writer = Writer(db, self._path)
        self._next = 0

    def close(self) -> None:
        """Commit what was handed in and let the folder go."""
        if not self._origin.here:
            return
        super().close()  # first: the last to close removes the write-ahead log, which a reader cannot
        self._writer.close()
        self._held.close()

    # -- what is asked ------------------------------------------------------------------------------------------------

    def admit(self, item: Item) -> Admitted:
        """Take up the next query of the source, in the source's order, from its start each time the run is opened.

        One thread feeds a run. The query is handed to the writer before this returns: no answer is committed before it.

        Raises:
            InvalidInputError: An earlier query has the same id.
            StoreError: The run was begun with another query in this place.
        """
        position, state = self._next, _OPEN
        if position >= self._begun.queries:
            self._add(position, item)
        else:
            known = self._rows("SELECT id, hash FROM queries WHERE position = ?", position)
            if not known:
                raise StoreError(f"{self._path} is damaged: the query in place {position} is not there")
            [(id, hash)] = known
            if (id, hash) != (item.id, item.hash):
                self._refuse(position, item, id)
            state = self._state(position)
        self._next += 1
        return Admitted(item, position, state)

    @property
    def counts(self) -> Counts:
        """Return how far the run is, with all that was taken up."""
        for _, receipt in list(self._handed_in.values()):
            receipt.wait()
        return super().counts

    def end_of_source(self) -> None:
        """Tell that the source has been read to its end.

        Raises:
            StoreError: The run was begun with more queries.
        """
        if self._next < self._begun.queries:
            raise self._other(f"it has {self._begun.queries}, and these end after {self._next}")
        self._writer.submit(lambda db: statements.tell(db, "total", str(self._next))).wait()

    def retry_failed(self) -> int:
        """Reopen the queries that failed, before any is taken up; what they paid for is kept. Returns how many."""
        return self._writer.submit(statements.reopen_failed).wait()

    def _add(self, position: int, item: Item) -> None:
        if (line := self._line_of(item.id)) is not None:
            raise statements.duplicate(item, line)
        if self._begun.total is not None:
            raise self._other(f"it has {self._begun.total}, and these go on with line {item.line} ({item.id!r})")
        try:
            data = item.to_bytes()
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"line {item.line}: the row holds what JSON cannot: {error}") from error
        receipt = self._writer.submit(lambda db: statements.insert_query(db, position, item, data))
        self._handed_in[item.id] = (item.line, receipt)

    def _line_of(self, id: str, before: int = sys.maxsize) -> int | None:
        """Return the line of the query with this id, whether it is committed or only handed in."""
        while self._handed_in:
            oldest, (_, receipt) = next(iter(self._handed_in.items()))
            if not receipt.settled and len(self._handed_in) < HANDED_IN:
                break
            receipt.wait()
            del self._handed_in[oldest]
        if id in self._handed_in:
            return self._handed_in[id][0]
        found = self._rows("SELECT line FROM queries WHERE id = ? AND position < ?", id, before)
        return found[0][0] if found else None

    def _state(self, position: int) -> State:
        for state, table in _ENDED.items():
            if self._rows(f"SELECT 1 FROM {table} WHERE position = ?", position):
                return state
        return "open"

    def _refuse(self, position: int, item: Item, id: str) -> NoReturn:
        """Refuse a query that is not the one that stands in its place."""
        if (line := self._line_of(item.id, before=position)) is not None:
            raise statements.duplicate(item, line)
        what = f"has the id {item.id!r}, not {id!r}" if item.id != id else f"({id!r}) asks something else"
        raise self._other(f"line {item.line} {what}")

    def _other(self, what: str) -> StoreError:
        return StoreError(
            f"{self.folder} was begun with other prompts: {what}; give the same prompts, or another folder"
        )

    # -- what is answered ---------------------------------------------------------------------------------------------

    def keep(self, answers: Sequence[Answer]) -> Receipt[None]:
        """Keep answers until their queries' trajectories are committed; of a finished query, nothing is kept."""
        if not answers:
            return Receipt.of(None)
        return self._writer.submit(lambda db: statements.keep(db, answers))

    def answers(self, query: Admitted) -> list[Answer]:
        """Return what an unfinished query was answered by earlier processes."""
        if query.position >= self._begun.queries:
            return []
        return [Answer(*row) for row in self._rows("SELECT * FROM answers WHERE position = ?", query.position)]

    def finish(self, position: int, trajectory: Trajectory) -> Receipt[None]:
        """Commit a query's trajectory; its answers, which are all in it, go in the same transaction."""
        return self._writer.submit(lambda db: statements.finish(db, position, trajectory))

    def fail(self, position: int, error: BaseException) -> Receipt[None]:
        """Commit that a query failed, and why; what it was answered stays, for ``retry_failed``."""
        return self._writer.submit(lambda db: statements.fail(db, position, error))


_OPEN: State = "open"
_ENDED: dict[State, str] = {"done": "trajectories", "failed": "failures"}
