"""The store: what it keeps, what it refuses, and how it says so."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from tpo_core import Candidate, InvalidInputError, StoreError, Trajectory, Usage
from tpo_core.errors import GenerationError
from tpo_core.runs import Item, RunReader, RunStore, to_do
from tpo_core.runs.store import Answer

DONE = Trajectory(
    "q",
    (Candidate("a", reward=1.0), Candidate("b", reward=3.0, step=1, index=1, fresh=False)),
    usage=Usage(7, 3, 100, 20),
    seconds={"total": 1.5},
)


def answer(position=0, seed=0, text=b"text", task="sample", paid=True):
    return Answer(position, task, 0, str(seed), b"hash", str(seed), paid, text)


def items(*ids, text="ask {}"):
    return [Item(id, text.format(id), {"n": id}, line) for line, id in enumerate(ids, 1)]


def admitted(store, *ids):
    return [store.admit(item) for item in items(*ids)]


def column(folder, query):
    with closing(sqlite3.connect(folder / "run.sqlite")) as db:
        return [row[0] for row in db.execute(query)]


def test_what_was_kept_is_there_when_the_run_goes_on(tmp_path):
    with RunStore.open(tmp_path / "new" / "out", settings={}) as store:
        admitted(store, "a", "b")
        store.keep([answer(seed=1, text=b"one"), answer(seed=2, text=b"two")]).wait()
    with RunStore.open(tmp_path / "new" / "out", settings={}) as store:
        a, b = admitted(store, "a", "b")
        assert {(x.seeds, x.data) for x in store.answers(a)} == {("1", b"one"), ("2", b"two")}
        assert (a.state, b.state, store.answers(b)) == ("open", "open", [])


async def test_receipts_can_be_awaited_by_thousands_at_once(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a")
        receipts = [store.keep([answer(seed=i)]) for i in range(3000)]
        for receipt in reversed(receipts):
            await receipt
            await receipt
            receipt.wait()
    assert column(tmp_path, "SELECT count(*) FROM answers") == [3000]


def test_threads_write_at_once_and_nothing_is_mixed_up(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a")

        def write(task):
            for i in range(100):
                store.keep([answer(seed=i, task=task, text=f"{task}{i}".encode())]).wait()

        threads = [threading.Thread(target=write, args=(f"t{k}",)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with RunStore.open(tmp_path) as store:
        found = store.answers(*admitted(store, "a"))
    assert len(found) == 800 and all(x.data == f"{x.task}{x.seeds}".encode() for x in found)


def test_a_trajectory_takes_the_place_of_its_answers_and_late_ones_are_dropped(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a", "b")
        store.keep([answer(0), answer(1)]).wait()
        store.finish(0, DONE).wait()
        store.keep([answer(0, seed=9)]).wait()
        assert store.counts.done == 1 and store.counts.open == 1
    assert column(tmp_path, "SELECT position FROM answers") == [1]
    with RunReader(tmp_path) as run:
        [done] = run.finished()
    assert done.trajectory == DONE and done.item == items("a")[0]
    assert column(tmp_path, "SELECT completion_tokens FROM trajectories") == [20]
    assert column(tmp_path, "SELECT first_reward FROM trajectories") == [1.0]


def test_a_trajectory_is_committed_once(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a")
        store.finish(0, DONE).wait()
        with pytest.raises(StoreError, match="has its trajectory already"):
            store.finish(0, DONE).wait()
        assert store.admit(Item("b", "the store goes on")).position == 1


def test_failures_keep_their_cause_and_their_answers_until_they_are_tried_again(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a", "b")
        store.keep([answer(0, seed=1), answer(0, seed=2, paid=False)]).wait()
        store.fail(0, GenerationError("nothing came: \ud83d", trajectory=DONE)).wait()
        store.fail(1, ValueError("odd")).wait()
    with RunStore.open(tmp_path) as store:
        assert list(to_do(store, items("a", "b"))) == []
        first, second = store.failed()
        assert (first.error, first.message, first.trajectory) == ("GenerationError", "nothing came: ?", DONE)
        assert (second.error, second.trajectory, second.item.id) == ("ValueError", None, "b")
        assert store.retry_failed() == 2
    with RunStore.open(tmp_path) as store:
        a, _ = to_do(store, items("a", "b"))
        assert [x.seeds for x in store.answers(a)] == ["1"]


def test_a_failure_never_takes_the_place_of_what_was_paid(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a")
        store.keep([answer(text=b"paid")]).wait()
        store.keep([answer(text=b"lost", paid=False)]).wait()
        store.keep([answer(seed=1, text=b"lost", paid=False)]).wait()
        store.keep([answer(seed=1, text=b"paid")]).wait()
    assert column(tmp_path, "SELECT data FROM answers") == [b"paid", b"paid"]


# -- other settings, other prompts ------------------------------------------------------------------------------------


def test_other_settings_are_refused_one_by_one_by_name(tmp_path):
    with RunStore.open(tmp_path, settings={"policy": {"model": "m", "top_p": 0.5}, "width": 5, "seed": None}):
        pass
    with pytest.raises(StoreError) as refused:
        RunStore.open(tmp_path, settings={"policy": {"model": "other", "top_p": 0.5}, "width": 5, "depth": 2})
    told = str(refused.value)
    assert 'policy.model was "m", is "other"' in told and "top_p" not in told and "width" not in told
    assert "depth was not given, is 2" in told and "seed was null, is not given" in told and "\n" not in told


def test_equal_settings_in_another_order_are_the_same_run(tmp_path):
    with RunStore.open(tmp_path, settings={"a": 1, "b": [1, {"c": None}]}) as store:
        assert store.engine.startswith("tpo") and store.settings == {"a": 1, "b": [1, {"c": None}]}
    with RunStore.open(tmp_path, settings={"b": [1, {"c": None}], "a": 1}), RunReader(tmp_path) as run:
        assert run.settings["a"] == 1
    with RunStore.open(tmp_path) as store:
        assert store.settings["a"] == 1


def test_settings_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="settings"):
        RunStore.open(tmp_path, settings={"reward": object()})


@pytest.mark.parametrize(
    ("now", "what"),
    [
        (items("a", "c"), "line 2 has the id 'c', not 'b'"),
        (items("a", "b", text="tell {}"), "line 1 ('a') asks something else"),
        (items("a"), "it has 2, and these end after 1"),
        (items("a", "b", "c"), "it has 2, and these go on with line 3 ('c')"),
        ([*items("a"), Item("b", "ask b", line=2, sampling={"temperature": 0.1})], "line 2 ('b') asks something else"),
    ],
)
def test_other_prompts_are_refused_with_what_differs(tmp_path, now, what):
    with RunStore.open(tmp_path) as store:
        assert len(list(to_do(store, items("a", "b")))) == 2
    with RunStore.open(tmp_path) as store, pytest.raises(StoreError) as refused:
        list(to_do(store, now))
    assert what in str(refused.value) and "other prompts" in str(refused.value)


def test_a_source_that_was_not_read_to_its_end_goes_on(tmp_path):
    with RunStore.open(tmp_path) as store:
        next(to_do(store, items("a", "b", "c")))
        assert store.counts.total is None
    with RunStore.open(tmp_path) as store:
        assert [query.item.id for query in to_do(store, items("a", "b", "c"))] == ["a", "b", "c"]
        assert store.counts.total == 3


@pytest.mark.parametrize("again", [False, True])
def test_an_id_that_was_used_before_is_named_with_both_lines(tmp_path, again):
    if again:
        with RunStore.open(tmp_path) as store:
            admitted(store, "a", "b", "c")
    with (
        RunStore.open(tmp_path) as store,
        pytest.raises(InvalidInputError, match="line 3: the id 'a' was used in line 1"),
    ):
        admitted(store, "a", "b", "a")


@pytest.mark.parametrize("bad", [("", "x"), ("a", ""), ("a", []), ("a", "\ud83d"), ("\ud83d", "x"), (1, "x")])
def test_what_no_server_or_file_takes_is_no_item(bad):
    with pytest.raises(InvalidInputError):
        Item(*bad)


# -- one process at a time --------------------------------------------------------------------------------------------

HOLDER = """
import subprocess, sys
from tpo_core.runs import RunStore
store = RunStore.open(sys.argv[1])
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(StoreError, match=rf"in use by process {holder.pid} on "):
            RunStore.open(tmp_path)
        with RunReader(tmp_path) as run:
            assert run.counts.queries == 0
        holder.kill()
        holder.wait()
        RunStore.open(tmp_path).close()  # while a child of the killed process is alive
    finally:
        holder.kill()
        subprocess.run(["kill", str(child)], check=False)
        holder.communicate()


def test_two_stores_of_one_folder_in_one_process_are_refused_too(tmp_path):
    with RunStore.open(tmp_path), pytest.raises(StoreError, match="in use by process"):
        RunStore.open(tmp_path)
    RunStore.open(tmp_path).close()


def test_a_run_is_read_while_it_goes_on(tmp_path):
    with RunStore.open(tmp_path) as store, RunReader(tmp_path) as run:
        for query in to_do(store, items(*map(str, range(200)))):
            store.finish(query.position, DONE).wait()
            assert run.counts.done == query.position + 1
        assert [done.item.id for done in run.finished()] == [str(i) for i in range(200)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["run.lock", "run.sqlite"]


def test_a_closed_store_says_so(tmp_path):
    store = RunStore.open(tmp_path)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.keep([answer()])


# -- files that are no run --------------------------------------------------------------------------------------------


def test_where_there_is_no_run_it_is_said(tmp_path):
    for opened in (lambda: RunReader(tmp_path), lambda: RunStore.open(tmp_path, create=False)):
        with pytest.raises(StoreError, match=r"holds no run: there is no run\.sqlite"):
            opened()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opened", [RunReader, RunStore.open])
def test_a_file_that_is_no_database_is_named(tmp_path, opened):
    (tmp_path / "run.sqlite").write_bytes(b"no database " * 400)
    with pytest.raises(StoreError, match=r"run\.sqlite: the file is no run's file, or is damaged"):
        opened(tmp_path)
    assert (tmp_path / "run.sqlite").read_bytes() == b"no database " * 400


@pytest.mark.parametrize("opened", [RunReader, RunStore.open])
def test_another_programs_database_is_left_alone(tmp_path, opened):
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="another program's"):
        opened(tmp_path)
    assert column(tmp_path, "SELECT name FROM sqlite_master") == ["theirs"]


@pytest.mark.parametrize("opened", [RunReader, RunStore.open])
def test_another_format_is_refused(tmp_path, opened):
    RunStore.open(tmp_path).close()
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="format 99"):
        opened(tmp_path)


def test_damage_inside_the_file_is_one_line_with_what_to_do(tmp_path):
    with RunStore.open(tmp_path) as store:
        for query in to_do(store, items(*map(str, range(300)))):
            store.finish(query.position, DONE).wait()
    path = tmp_path / "run.sqlite"
    data = bytearray(path.read_bytes())
    for start in range(3 * 4096, len(data), 4096):
        data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged.*\.recover") as error, RunReader(tmp_path) as run:
        list(run.finished())
    assert "\n" not in str(error.value)


def test_a_damaged_trajectory_names_its_query(tmp_path):
    with RunStore.open(tmp_path) as store:
        admitted(store, "a")
        store.finish(0, DONE).wait()
    for data in (b"no zlib", zlib.compress(b"{}"), zlib.compress(b"[]")):
        with sqlite3.connect(tmp_path / "run.sqlite") as db:
            db.execute("UPDATE trajectories SET data = ?", (data,))
        with pytest.raises(StoreError, match="query 'a' cannot be read"), RunReader(tmp_path) as run:
            list(run.finished())


def test_a_folder_that_is_a_file_is_named(tmp_path):
    path = Path(tmp_path / "out")
    path.write_text("")
    with pytest.raises(StoreError, match="out: "):
        RunStore.open(path)


DAMAGE = [
    "DELETE FROM queries WHERE position = 1",
    "UPDATE queries SET data = 5 WHERE position = 1",
    "UPDATE about SET value = '{' WHERE key = 'settings'",
    "UPDATE about SET value = 'many' WHERE key = 'total'",
    "UPDATE sqlite_master SET name = CAST(x'ff' AS TEXT), sql = 'no table' WHERE name = 'answers'",
    "UPDATE sqlite_master SET sql = 'CREATE TABLE about (key [' || char(10) || 'TEXT)' WHERE name = 'about'",
]
"""What a bad disk may leave, as statements."""


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
@pytest.mark.parametrize("how", ["read", "gone on with"])
def test_whatever_is_damaged_is_said_in_one_line_that_names_the_file(tmp_path, damage, how):
    asked = items("a", "b", "c")
    with RunStore.open(tmp_path, settings={"width": 3}) as store:
        for item in asked:
            store.finish(store.admit(item).position, DONE).wait()
        store.end_of_source()
    with closing(sqlite3.connect(tmp_path / "run.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(damage)

    def read():
        with RunReader(tmp_path) as run:
            return run.counts, run.settings, list(run.finished())

    def go_on():
        with RunStore.open(tmp_path, settings={"width": 3}) as store:
            return [store.admit(item) for item in asked]

    try:
        read() if how == "read" else go_on()
    except StoreError as error:
        assert "\n" not in str(error) and "run.sqlite" in str(error)  # noqa: PT017
