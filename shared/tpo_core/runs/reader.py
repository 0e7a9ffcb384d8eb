"""What a run's folder holds, read while the run goes on or after it: its settings, what it made, what failed.

Reading takes no lock and keeps no transaction open between pages, so that it never holds up the run.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tpo_core.errors import InvalidInputError, StoreError
from tpo_core.loop.effects import Task
from tpo_core.records import repr_without_texts
from tpo_core.runs.codec import completion_from_bytes
from tpo_core.runs.folder import Origin, explained, open_read_only, run_file
from tpo_core.runs.items import Item
from tpo_core.trajectory import Trajectory
from tpo_core.values import Usage

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Counts", "Failed", "Finished", "RunReader", "pack", "unpack"]

PAGE = 64
"""Trajectories read at once."""


@dataclass(frozen=True)
class Counts:
    """How far a run is."""

    queries: int
    """Taken up so far."""
    done: int
    failed: int
    total: int | None
    """How many the source holds; None until it has been read to its end."""

    @property
    def open(self) -> int:
        """Return how many are neither done nor failed."""
        return self.queries - self.done - self.failed


@dataclass(frozen=True)
class Finished:
    """A query with its trajectory."""

    position: int
    item: Item
    trajectory: Trajectory
    at: float
    """When it ended, in seconds since 1970."""

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class Failed:
    """A query that came to nothing."""

    position: int
    item: Item
    error: str
    """The exception's name."""
    message: str
    trajectory: Trajectory | None
    """What was gained until then, where the exception carried it."""
    at: float

    __repr__ = repr_without_texts("error", "message")


class RunReader:
    """A run's folder, to read.

    Args:
        folder: Where ``tpo run`` wrote.

    Raises:
        StoreError: It holds no run, or one that cannot be read; from every method.

    Example:
        >>> RunReader("/no/such/folder")
        Traceback (most recent call last):
        ...
        tpo_core.errors.StoreError: /no/such/folder holds no run: there is no run.sqlite in it
    """

    def __init__(self, folder: str | Path) -> None:
        """Open it."""
        self.folder = Path(folder)
        self._path = run_file(self.folder)
        self._origin = Origin(self._path)
        self._closing = ExitStack()
        self._reading = self._closing.enter_context(open_read_only(self.folder))
        self._lock = threading.Lock()

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return the settings that the run was made with."""
        with self._readable("what is said of its settings"):
            settings: Mapping[str, Any] = json.loads(self._about("settings") or "{}")
        return settings

    @property
    def engine(self) -> str:
        """Return the version of this package that made the run."""
        return self._about("engine") or ""

    @property
    def counts(self) -> Counts:
        """Return how far the run is."""
        [(queries, done, failed)] = self._rows(
            "SELECT (SELECT count(*) FROM queries), (SELECT count(*) FROM trajectories), "
            "(SELECT count(*) FROM failures)"
        )
        with self._readable("how many prompts it has"):
            total = self._about("total")
            return Counts(queries, done, failed, None if total is None else int(total))

    @property
    def spent(self) -> Usage:
        """Return what was paid for so far, queries on their way included; a reward model's tokens are among the
        prompt's."""
        [(calls, prompt, completion, reward)] = self._rows(
            "SELECT sum(calls), sum(prompt_tokens), sum(completion_tokens), sum(reward_tokens) FROM trajectories"
        )
        spent = Usage(calls or 0, 0, (prompt or 0) + (reward or 0), completion or 0)
        for (data,) in self._rows(f"SELECT data FROM answers WHERE paid AND task IN {get_args(Task)}"):
            with self._readable("an answer"):
                spent += replace(completion_from_bytes(data).usage, calls=1)
        return spent

    def finished(self) -> Iterator[Finished]:
        """Yield the queries that have a trajectory, in the order of the source."""
        query = "SELECT position, id, line, q.data, t.data, at FROM queries q JOIN trajectories t USING (position)"
        for position, id, line, item, trajectory, at in self._pages(query):
            with self._readable(f"query {id!r}"):
                finished = Finished(position, Item.from_bytes(id, line, item), unpack(trajectory), at)
            yield finished

    def failed(self) -> Iterator[Failed]:
        """Yield the queries that failed, in the order of the source."""
        query = (
            "SELECT position, id, line, q.data, error, message, f.data, at "
            "FROM queries q JOIN failures f USING (position)"
        )
        for position, id, line, item, error, message, data, at in self._pages(query):
            with self._readable(f"query {id!r}"):
                gained = None if data is None else unpack(data)
                failed = Failed(position, Item.from_bytes(id, line, item), error, message, gained, at)
            yield failed

    def close(self) -> None:
        """Close the file."""
        if self._origin.here:
            self._closing.close()

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close."""
        self.close()

    def _about(self, key: str) -> str | None:
        rows = self._rows("SELECT value FROM about WHERE key = ?", key)
        return rows[0][0] if rows else None

    def _pages(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield a query's rows by position, a page at a time."""
        after = -1
        while page := self._rows(f"{query} WHERE position > ? ORDER BY position LIMIT {PAGE}", after):
            yield from page
            after = page[-1][0]

    def _rows(self, query: str, *values: Any) -> list[Any]:
        self._origin.check()
        with self._lock, explained(self._path):
            return self._reading.execute(query, values).fetchall()

    @contextmanager
    def _readable(self, what: str) -> Iterator[None]:
        try:
            yield
        except (zlib.error, InvalidInputError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{self._path} is damaged: {what} cannot be read ({error})") from error


def pack(trajectory: Trajectory) -> bytes:
    """Return a trajectory as compressed JSON."""
    return zlib.compress(trajectory.to_json().encode())


def unpack(data: bytes) -> Trajectory:
    """Read what ``pack`` wrote."""
    return Trajectory.from_json(zlib.decompress(data).decode())
