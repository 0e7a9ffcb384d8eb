"""What the store writes: each function is part of one transaction of the caller's."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from tpo_core.errors import InvalidInputError, StoreError, TPOError
from tpo_core.masking import hide
from tpo_core.runs.folder import create_tables
from tpo_core.runs.items import Item
from tpo_core.runs.reader import pack
from tpo_core.trajectory import Trajectory

__all__ = ["begin", "duplicate", "fail", "finish", "insert_query", "keep", "reopen_failed", "tell"]

_KEEP = (
    "WITH new (position, task, step, seeds, hash, request, paid, data) AS (VALUES {rows}) "
    "INSERT OR {conflict} INTO answers SELECT * FROM new "
    "WHERE NOT EXISTS (SELECT 1 FROM trajectories WHERE position = new.position)"  # back after its deadline
)
_ROW, _AT_ONCE = "(?, ?, ?, ?, ?, ?, ?, ?)", 100  # rows: older releases of SQLite take 999 values in a statement
_PAID = 6


def begin(db: sqlite3.Connection, folder: Path, settings: Mapping[str, Any] | None) -> None:
    """Make the tables of a new run, or check that this is the run that is there."""
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        if settings is not None:
            _check_settings(db, folder, settings)
    else:
        create_tables(db)
        text = _json(settings or {})
        told = {"engine": _engine(), "created": str(time.time()), "settings": text, "settings_hash": _hash(text)}
        for key, value in told.items():
            tell(db, key, value)
    tell(db, "holder", f"process {os.getpid()} on {socket.gethostname()}")


def tell(db: sqlite3.Connection, key: str, value: str) -> None:
    """Write a line about the run."""
    db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))


def _check_settings(db: sqlite3.Connection, folder: Path, settings: Mapping[str, Any]) -> None:
    told = dict(db.execute("SELECT key, value FROM about WHERE key IN ('settings', 'settings_hash')"))
    if told["settings_hash"] == _hash(text := _json(settings)):
        return
    then, now = dict(_flat(json.loads(told["settings"]))), dict(_flat(json.loads(text)))
    differ = [key for key in {**then, **now} if then.get(key, _NONE) != now.get(key, _NONE)]
    changes = "; ".join(f"{key} was {then.get(key, _NONE)}, is {now.get(key, _NONE)}" for key in differ)
    raise StoreError(f"{folder} was begun with other settings ({changes}); go on with those, or give another folder")


_NONE = "not given"


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each setting with its whole name, ``policy.model``, and its value as JSON."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def _json(settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(settings, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"settings must be what JSON can hold: {error}") from error


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _engine() -> str:
    try:
        return f"tpo {version('tpo')}"
    except PackageNotFoundError:  # run from a checkout
        return "tpo"


def insert_query(db: sqlite3.Connection, position: int, item: Item, data: bytes) -> None:
    """Take up a query."""
    db.execute("INSERT INTO queries VALUES (?, ?, ?, ?, ?)", (position, item.id, item.hash, item.line, data))


def duplicate(item: Item, line: int) -> InvalidInputError:
    """Return the error of a query whose id was used before."""
    return InvalidInputError(f"line {item.line}: the id {item.id!r} was used in line {line}; give each line its own")


def keep(db: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    """Keep answers of unfinished queries; a failure never takes the place of what was paid.

    Many rows go in one statement: around each, the writer's thread gives the interpreter away and has to get it back.
    """
    for paid, of_kind in groupby(rows, key=itemgetter(_PAID)):
        left = list(of_kind)
        while now := left[:_AT_ONCE]:
            statement = _KEEP.format(rows=", ".join([_ROW] * len(now)), conflict="REPLACE" if paid else "IGNORE")
            db.execute(statement, [value for row in now for value in row])
            left = left[_AT_ONCE:]


def finish(db: sqlite3.Connection, position: int, trajectory: Trajectory) -> None:
    """Enter a trajectory; the query's answers and an earlier failure go."""
    if db.execute("SELECT 1 FROM trajectories WHERE position = ?", (position,)).fetchone():
        raise StoreError(f"the query in place {position} has its trajectory already")
    best, first, usage = trajectory.best_or_none, trajectory.initial_best, trajectory.usage
    figures = (
        time.time(),
        None if best is None else best.reward,
        None if first is None else first.reward,
        trajectory.stop_reason,
        usage.calls,
        usage.prompt_tokens,
        usage.completion_tokens,
        trajectory.reward_usage.tokens,
        trajectory.seconds.get("total", 0.0),
    )
    marks = ", ".join("?" * (len(figures) + 2))
    db.execute(f"INSERT INTO trajectories VALUES ({marks})", (position, *figures, pack(trajectory)))
    db.execute("DELETE FROM answers WHERE position = ?", (position,))
    db.execute("DELETE FROM failures WHERE position = ?", (position,))


def fail(db: sqlite3.Connection, position: int, error: BaseException) -> None:
    """Enter why a query came to nothing; its answers stay."""
    gained = error.trajectory if isinstance(error, TPOError) else None
    said = hide(str(error)).encode("utf-8", "replace").decode()
    row = (position, time.time(), type(error).__name__, said, None if gained is None else pack(gained))
    db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", row)


def reopen_failed(db: sqlite3.Connection) -> int:
    """Forget that queries failed, and which of their requests did; what they paid for stays."""
    db.execute("DELETE FROM answers WHERE NOT paid AND position IN (SELECT position FROM failures)")
    return db.execute("DELETE FROM failures").rowcount
