"""A run's folder: one SQLite file, held by one process at a time, and what its tables are.

    about         key -> value: the format, the engine's version, the settings and their hash, who holds the folder
    queries       what is asked, by position: id, hash, line of the source, and the rest as JSON
    trajectories  what came of it: figures to search by, and the trajectory as zlib-compressed JSON
    failures      why nothing came of it
    answers       every answered request of the queries without a trajectory; gone with the commit of the trajectory

The file is in WAL mode with ``synchronous=NORMAL``: a commit is in the operating system's hands, so that no killed
process can lose it; a power cut may lose the commits of the last moments, and never damages the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import JSONDecodeError
from pathlib import Path

from tpo_core.errors import StoreError

__all__ = ["FORMAT", "create_tables", "explained", "hold", "open_read_only", "open_to_write", "run_file"]

FORMAT = 1
"""The tables' version, in SQLite's ``user_version``."""

_APPLICATION = 0x74706F72  # "tpor", in SQLite's application_id: tells our files from others

_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE queries (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, hash BLOB NOT NULL, line INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE trajectories (
    position INTEGER PRIMARY KEY REFERENCES queries, at REAL NOT NULL, reward REAL, first_reward REAL,
    stop_reason TEXT NOT NULL, calls INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, reward_tokens INTEGER NOT NULL, seconds REAL NOT NULL, data BLOB NOT NULL
);
CREATE TABLE failures (
    position INTEGER PRIMARY KEY REFERENCES queries, at REAL NOT NULL, error TEXT NOT NULL, message TEXT NOT NULL,
    data BLOB
);
CREATE TABLE answers (
    position INTEGER NOT NULL REFERENCES queries, task TEXT NOT NULL, step INTEGER NOT NULL, seeds TEXT NOT NULL,
    hash BLOB NOT NULL, request TEXT NOT NULL, paid INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (position, task, step, seeds, hash)
);
"""

_ADVICE = {
    "disk is full": "the disk is full; free some space and run the same command again: what was answered is kept",
    "disk i/o": "the disk does not take or give what is asked of it; what was answered before is kept",
    "readonly": "it cannot be written; give a folder of your own, or make this one writable",
    "no space": "the disk is full; free some space and run the same command again: what was answered is kept",
    "permission": "it cannot be written; give a folder of your own, or make this one writable",
    "unable to open": "it cannot be opened or made; is the folder yours to write, and on a disk of this machine?",
    "malformed": "the file is damaged; `sqlite3 FILE .recover` saves what can be read, or start in another folder",
    "not a database": "the file is no run's file, or is damaged; give another folder",
    "locked": "another program holds the file; close it, and run the same command again",
}
"""From a piece of SQLite's message to what to do (its error codes are told from Python 3.11 on only)."""


def run_file(folder: Path) -> Path:
    """Return the path of the run's SQLite file in its folder."""
    return folder / "run.sqlite"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise into one line that says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or str(error)
        reason = " ".join(said.split())  # SQLite quotes what stands in a damaged file, line breaks and all
        advice = next((f"{text} ({reason})" for piece, text in _ADVICE.items() if piece in reason.lower()), reason)
        raise StoreError(f"{path}: {advice}") from error
    except (UnicodeDecodeError, JSONDecodeError) as error:  # of sqlite3, which then cannot even say what is damaged
        raise StoreError(f"{path}: {_ADVICE['malformed']} ({error})") from error


def hold(folder: Path) -> sqlite3.Connection:
    """Make the folder where it is missing and hold it until the connection is closed or this process is gone.

    The lock is SQLite's own, on an empty file beside the run's: it is the operating system's, the same on every
    system, tells two holders in one process apart, is not inherited by children and needs no cleaning up.

    Raises:
        StoreError: Another process (or another store of this one) holds it, or the folder cannot be made or written.
    """
    path = folder / "run.lock"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        with explained(folder):
            lock.execute("BEGIN EXCLUSIVE")
    except StoreError as error:
        lock.close()
        if "locked" in str(error.__cause__):
            raise StoreError(
                f"{folder} is in use{_holder(folder)}; a run's folder takes one process at a time: "
                "wait for that one, stop it, or give another folder"
            ) from None
        raise
    return lock


def _holder(folder: Path) -> str:
    with suppress(StoreError, sqlite3.Error), open_read_only(folder) as db:
        row = db.execute("SELECT value FROM about WHERE key = 'holder'").fetchone()
        return f" by {row[0]}" if row else ""
    return ""


def open_to_write(folder: Path) -> sqlite3.Connection:
    """Open the run's file, or make an empty one; the caller holds the folder.

    Raises:
        StoreError: It cannot be opened or written, or is another program's.
    """
    path = run_file(folder)
    with explained(path):
        db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        with explained(path):
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                _check(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


class Origin:
    """The process that opened a run's file: SQLite's connections cannot be used, nor closed, in one forked from it."""

    def __init__(self, path: Path) -> None:
        """Note this process."""
        self._path, self._process = path, os.getpid()

    @property
    def here(self) -> bool:
        """Return whether this is that process."""
        return self._process == os.getpid()

    def check(self) -> None:
        """Raise where it is not.

        Raises:
            StoreError: It is not.
        """
        if not self.here:
            raise StoreError(
                f"{self._path} was opened in the process that this one was forked from: open its folder here with "
                "RunReader, and leave writing to that one"
            )


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables; part of the caller's transaction."""
    for statement in _TABLES.strip().split(";\n"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {_APPLICATION}")
    db.execute(f"PRAGMA user_version = {FORMAT}")


@contextmanager
def open_read_only(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open a run's file to read, also while a run writes it or where nothing can be written.

    Raises:
        StoreError: There is none, or it cannot be read.
    """
    path = run_file(folder)
    if not path.is_file():
        raise StoreError(f"{folder} holds no run: there is no {path.name} in it")
    with explained(path):
        db = _connect_read_only(path)
    try:
        yield db
    finally:
        db.close()


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open in the usual way; where WAL's own files are missing and cannot be made, as a file that does not change."""
    for mode in ("ro", "ro&immutable=1"):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30, check_same_thread=False)
        try:
            db.isolation_level = None
            _check(db, path)
            return db
        except sqlite3.OperationalError:
            db.close()
            if mode != "ro" or path.with_name(path.name + "-wal").exists():
                raise
        except BaseException:
            db.close()
            raise
    raise AssertionError("unreachable")


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Refuse another program's file, and another format."""
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise StoreError(f"{path} is another program's SQLite file; give another folder")
    if (version := db.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
        raise StoreError(f"{path} has format {version}, and this version reads {FORMAT}; use the version that made it")
