"""The writer's thread: when it is woken, and that it always is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tpo_core.runs.writer import Receipt, Writer


@pytest.fixture
def statements() -> list[str]:
    return []


@pytest.fixture
def writer(tmp_path: Path, statements: list[str]) -> Iterator[Writer]:
    db = sqlite3.connect(tmp_path / "file", isolation_level=None, check_same_thread=False)
    db.execute("CREATE TABLE numbers (number)")
    db.set_trace_callback(statements.append)
    with closing(Writer(db, tmp_path / "file")) as opened:
        yield opened


def insert(writer: Writer, number: int) -> Receipt[int]:
    def job(db: sqlite3.Connection) -> int:
        db.execute("INSERT INTO numbers VALUES (?)", (number,))
        return number

    return writer.submit(job)


async def test_what_one_turn_of_an_event_loop_hands_in_is_one_commit(writer: Writer, statements: list[str]) -> None:
    for turn in range(3):
        receipts = [insert(writer, number) for number in range(50)]
        assert [await receipt for receipt in receipts] == list(range(50))
        assert statements.count("COMMIT") == turn + 1


async def test_who_waits_within_the_turn_wakes_the_writer(writer: Writer) -> None:
    earlier = insert(writer, 1)
    assert insert(writer, 2).wait() == 2
    assert earlier.settled


def test_what_was_handed_in_by_an_event_loop_that_ended_is_written(writer: Writer) -> None:
    async def hand_in() -> Receipt[int]:
        receipt = insert(writer, 1)
        asyncio.get_running_loop().stop()  # before its next turn
        return receipt

    loop = asyncio.new_event_loop()
    task = loop.create_task(hand_in())
    loop.run_forever()
    loop.close()
    assert task.result().wait() == 1

    async def hand_in_another() -> int:
        return await insert(writer, 2)

    assert asyncio.run(hand_in_another()) == 2


def test_what_was_handed_in_is_written_before_it_is_closed(writer: Writer, tmp_path: Path) -> None:
    async def hand_in() -> Receipt[int]:
        insert(writer, 1)
        return insert(writer, 2)

    receipt = asyncio.run(hand_in())
    writer.close()
    assert receipt.settled
    with closing(sqlite3.connect(tmp_path / "file")) as db:
        assert db.execute("SELECT number FROM numbers").fetchall() == [(1,), (2,)]
