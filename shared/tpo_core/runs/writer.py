"""One thread writes; everyone else hands it jobs and waits for the commit that holds them.

What has gathered while the last commit was under way is committed together, so that thousands of waiting callers cost
one commit and a lone caller waits for no one. A receipt is given out before the commit and settled after it: whoever
waited for it knows that the file has what was handed in.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from tpo_core.errors import StoreError
from tpo_core.runs.folder import Origin, explained

__all__ = ["Job", "Receipt", "Writer"]

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], T]
"""What is to be written: runs statements in the writer's transaction, and returns what its receipt gives, or raises it
before the first statement that writes."""

MOST = 4096
"""Jobs in one commit: bounds what a failed commit takes along, and how long the first of them waits."""


class Receipt(Generic[T]):
    """A job's outcome once it is committed: ``wait()`` in a thread, ``await receipt`` in an event loop.

    Who stops waiting does not call back what was handed in.
    """

    __slots__ = ("_gate", "_lock", "_outcome", "_waiting", "_wake")

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake  # the writer, which may sleep until this turn of the event loop is over
        self._lock = threading.Lock()
        self._gate = threading.Lock()  # held until then; who waits takes it and lets it go, one after the other
        self._gate.acquire()
        self._outcome: list[T | Exception] = []
        self._waiting: list[asyncio.Future[None]] = []

    @classmethod
    def of(cls, outcome: T) -> Receipt[T]:
        """Return a receipt for what needs no commit."""
        receipt = cls()
        receipt.settle(outcome)
        return receipt

    @property
    def settled(self) -> bool:
        """Return whether waiting would not wait."""
        return bool(self._outcome)

    def wait(self) -> T:
        """Return the outcome, or raise what the job or the commit raised."""
        if not self._outcome:
            self._wake()
        with self._gate:
            return self._opened()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the event loop."""
        with self._lock:
            if not self._outcome:
                self._waiting.append(waiting := asyncio.get_running_loop().create_future())
        if not self._outcome:
            yield from waiting
        return self._opened()

    def settle(self, outcome: T | Exception) -> list[asyncio.Future[None]]:
        """Give the outcome, and return who waits for it in event loops; the writer's part."""
        with self._lock:
            self._outcome.append(outcome)
        self._gate.release()
        return self._waiting

    def _opened(self) -> T:
        [outcome] = self._outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _wake(waiting: Sequence[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


class Writer:
    """Runs jobs on a connection of its own.

    A job that raises before it has written anything has its error alone. When one raises later, or SQLite itself fails
    (a full disk, a file gone), nothing of that commit is kept, and the writer takes no more: every later receipt has
    the same error.

    Args:
        db: The connection, in autocommit mode; closed at the end.
        path: How errors call the file.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        """Start the thread; it does not outlive the process."""
        self._db, self._path, self._origin = db, path, Origin(path)
        self._jobs: deque[tuple[Job[Any], Receipt[Any]]] = deque()
        self._wakings: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._turn: asyncio.AbstractEventLoop | None = None  # which will wake the writer when its turn is over
        self._open, self._broken = True, cast("StoreError | None", None)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="tpo-store", daemon=True)
        self._thread.start()

    def submit(self, job: Job[T]) -> Receipt[T]:
        """Hand in a job; its receipt is settled when it is committed.

        Raises:
            StoreError: The writer is closed, or its thread is in another process.
        """
        self._origin.check()
        receipt: Receipt[T] = Receipt(self._wake)
        with self._lock:
            if not self._open:
                raise StoreError(f"{self._path} is closed")
            self._jobs.append((job, receipt))
        self._wake_in_turn()
        return receipt

    def close(self) -> None:
        """Commit what was handed in, fold the log into the file and close it."""
        with self._lock:
            self._open = False
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        self._turn = None
        if self._wakings.empty():
            self._wakings.put(None)

    def _wake_in_turn(self) -> None:
        """Wake the writer: now, or once a turn where an event loop runs in this thread."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._wake()
        else:
            if self._turn is not loop:
                self._turn = loop
                loop.call_soon(self._wake)

    def _run(self) -> None:
        while group := self._group():
            self._commit(group)
        with suppress(sqlite3.Error):  # a reader may hold the log; the next one to open the file folds it in
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with suppress(sqlite3.Error):
            self._db.close()

    def _group(self) -> list[tuple[Job[Any], Receipt[Any]]]:
        """Return what has gathered, waiting for something; nothing at the end."""
        while not self._jobs and self._open:
            self._wakings.get()
        return [self._jobs.popleft() for _ in range(min(MOST, len(self._jobs)))]

    def _commit(self, group: list[tuple[Job[Any], Receipt[Any]]]) -> None:
        outcomes: list[Any] = []
        if self._broken is None:
            try:
                with explained(self._path):
                    self._db.execute("BEGIN IMMEDIATE")
                    outcomes = [self._done(job) for job, _ in group]
                    self._db.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - the thread must live to settle what is handed in
                self._broken = error if isinstance(error, StoreError) else StoreError(f"{self._path}: {error!r}")
                self._undo()
        waiting: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
        for place, (_, receipt) in enumerate(group):
            for future in receipt.settle(self._broken or outcomes[place]):
                waiting[future.get_loop()].append(future)
        for loop, futures in waiting.items():  # once for a loop: each call costs a system call
            with suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(_wake, futures)

    def _done(self, job: Job[Any]) -> Any:
        """Run one job; what it raises of its own, with nothing written, is its outcome."""
        before = self._db.total_changes
        try:
            return job(self._db)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:
            if self._db.total_changes != before:
                raise
            return error

    def _undo(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
