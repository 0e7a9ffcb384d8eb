"""What a killed process or a full disk takes along: nothing that was acknowledged."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import run_writer

from tpo_core import StoreError
from tpo_core.runs import Item, RunReader, RunStore
from tpo_core.runs.store import Answer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")  # one import for all of them
    context.set_forkserver_preload(["run_writer"])
    return context


@contextmanager
def writing(processes, target, folder, argument):
    """Start a process that is killed at the end; gives it and the pipe that it tells into."""
    fifo = folder.with_suffix(".fifo")
    if not fifo.exists():
        os.mkfifo(fifo)
    process = processes.Process(target=target, args=(str(folder), str(fifo), argument), daemon=True)
    process.start()
    try:
        with fifo.open() as lines:
            yield process, lines
    finally:
        process.kill()
        process.join()


def entries(folder):
    """Return the answers and the trajectories that the file has, after SQLite's own check of it."""
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        answers = Counter(db.execute("SELECT position, CAST(seeds AS INTEGER) FROM answers"))
        return answers, Counter(row[0] for row in db.execute("SELECT position FROM trajectories"))


def test_nothing_acknowledged_is_lost_and_nothing_doubled_whenever_the_process_is_killed(processes, tmp_path):
    folder, moments = tmp_path / "out", random.Random(4)
    acknowledged, done, total = set(), set(), 0
    for attempt in range(20):
        with writing(processes, run_writer.write_until_killed, folder, attempt) as (process, lines):
            for _ in range(moments.randrange(120)):  # 0: while it opens the file
                if not (line := lines.readline()):
                    break
                note(line, acknowledged, done)
            os.kill(process.pid, signal.SIGKILL)
            for line in lines:  # what it told before it was killed
                note(line, acknowledged, done)
        if not (folder / "run.sqlite").exists():
            continue
        answers, trajectories = entries(folder)
        assert max(answers.values(), default=1) == max(trajectories.values(), default=1) == 1
        assert done <= set(trajectories)
        assert all(position in trajectories or (position, seed) in answers for position, seed in acknowledged)
        assert not {position for position, _ in answers} & set(trajectories)
        total = max(total, len(trajectories))
    assert len(acknowledged) > 200 and total > 0


def note(line, acknowledged, done):
    what, *numbers = line.split()
    if what == "answer":
        where = tuple(map(int, numbers))
        assert where not in acknowledged, "an answer that was kept was asked again"
        acknowledged.add(where)
    elif what == "done":
        done.add(int(numbers[0]))


def test_a_file_that_may_not_grow_is_one_line_and_nothing_is_lost(processes, tmp_path):
    folder = tmp_path / "out"
    with writing(processes, run_writer.write_until_full, folder, 1_000_000) as (_, lines):
        *told, error = lines.read().splitlines()
    assert error.startswith("error ") and "run.sqlite" in error and "what was answered" in error
    kept, _ = entries(folder)
    assert len(told) > 50 and all(tuple(map(int, line.split()[1:])) in kept for line in told)
    with RunStore.open(folder) as store:  # with room again, it goes on
        assert len(store.answers(store.admit(Item("a", "ask")))) == len(kept)


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def answer(seed):
    return Answer(0, "sample", 0, str(seed), b"h", str(seed), True, b"text" * 300)


def test_a_full_disk_is_one_line_and_nothing_is_lost(small_disk):
    folder, kept = small_disk / "out", []

    def fill(store):
        while True:
            store.keep([answer(len(kept))]).wait()
            kept.append(len(kept))

    with RunStore.open(folder) as store:
        store.admit(Item("a", "ask"))
        with pytest.raises(StoreError) as error:
            fill(store)
        with pytest.raises(StoreError, match="disk is full"):  # no more is paid for
            store.keep([answer(len(kept))]).wait()
    assert "the disk is full; free some space" in str(error.value) and "\n" not in str(error.value)
    assert set(entries(folder)[0]) >= {(0, seed) for seed in kept}


def test_a_disk_without_room_for_the_file_is_one_line(small_disk):
    (small_disk / "ballast").write_bytes(b"x" * ((1 << 20) - 4096))
    with pytest.raises(StoreError, match=r"disk is full|cannot be opened or made"):
        RunStore.open(small_disk / "out")


def test_a_read_only_folder_is_one_line_and_can_still_be_read(small_disk):
    with RunStore.open(small_disk / "out") as store:
        store.admit(Item("a", "ask"))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for opened in (lambda: RunStore.open(small_disk / "out"), lambda: RunStore.open(small_disk / "new")):
        with pytest.raises(StoreError) as error:
            opened()
        assert "\n" not in str(error.value) and str(small_disk) in str(error.value)
    with RunReader(small_disk / "out") as run:
        assert run.counts.queries == 1


def in_a_fork(function):
    """Run a function in a forked process; returns what it returned or raised, as text."""
    receiving, sending = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(sending, repr(function()).encode())
        except BaseException as error:
            os.write(sending, str(error).encode())
        finally:
            os._exit(0)
    os.close(sending)
    os.waitpid(child, 0)
    with open(receiving) as told:
        return told.read()


def as_someone_else(function):
    """Run a function in a child of another user than root; returns what it raised, as text."""

    def other():
        if os.geteuid() == 0:
            os.setuid(65534)
        return function()

    return in_a_fork(other)


def test_a_folder_of_someone_else_is_one_line_and_can_be_read():
    with TemporaryDirectory() as name:
        folder = Path(name) / "out"
        with RunStore.open(folder) as store:
            store.admit(Item("a", "ask"))
        Path(name).chmod(0o755)
        (folder / "run.sqlite").chmod(0o444)
        folder.chmod(0o555)
        for place in (folder, folder / "new"):
            told = as_someone_else(lambda place=place: RunStore.open(place))
            assert told.startswith(str(folder)) and "make this one writable" in told and "\n" not in told
        assert as_someone_else(lambda: RunReader(folder).counts.queries) == "1"
        folder.chmod(0o755)


def test_a_forked_process_neither_writes_reads_nor_closes_what_its_parent_opened(tmp_path):
    with RunStore.open(tmp_path) as store:
        store.admit(Item("a", "ask"))
        assert "forked from" in in_a_fork(lambda: store.admit(Item("b", "ask")))
        assert "forked from" in in_a_fork(lambda: store.counts)
        assert "is in use" in in_a_fork(lambda: RunStore.open(tmp_path))
        assert in_a_fork(store.close) == "None"
        store.admit(Item("b", "ask"))
        assert store.counts.queries == 2
        assert in_a_fork(lambda: RunReader(tmp_path).counts.queries) == "2"
