"""The command killed with SIGKILL at every kind of moment: each query once in the end, and nothing paid twice.

It is killed 12 times, 50 times where ``TPO_FULL`` is set; each start takes a second or two.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import run_command
from full import either

from loopback import LoopbackServer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of POSIX")

KILLS = either(50, short=12)
CONCURRENCY = 8
REWARD = """
import os, signal
calls = 0

def score(prompt, response):
    global calls
    calls += 1
    if calls == int(os.environ.get("KILL_AT_SCORE", "-1")):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(sum(map(ord, response)))
"""

Key = tuple[int, int]
"""A request's query and its first seed, which no other request of the query has."""


class Server(LoopbackServer):
    """Notes what it is asked, and kills the process that asks when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda request, number: f"answer {number}")
        self.asked: list[Key] = []
        self.pid, self.at, self.delay, self.signal = 0, -1, 0.0, signal.SIGKILL
        self._noting = threading.Lock()

    def arrive(self, request: dict[str, Any]) -> int:
        text = " ".join(message["content"] for message in request["messages"])
        with self._noting:
            self.asked.append((int(re.findall(r"question (\d+)\?", text)[0]), request["seed"]))
            if len(self.asked) == self.at:
                threading.Timer(self.delay, os.kill, (self.pid, self.signal)).start()
        return super().arrive(request)


def processes() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")  # one import for all of them
    context.set_forkserver_preload(["run_command"])
    return context


def kept(folder: Path) -> tuple[set[Key], Counter[int]]:
    """Return the requests whose answers the file has, and the queries that are done, after SQLite's own check."""
    with closing(sqlite3.connect(folder / "out" / "run.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set(), Counter()
        rows = db.execute("SELECT position, request FROM answers WHERE paid AND task != 'score'").fetchall()
        done = Counter(position for (position,) in db.execute("SELECT position FROM trajectories"))
    return {(position, int(seeds.split()[0])) for position, seeds in rows}, done


def test_whenever_the_command_is_killed_each_query_is_there_once_and_nothing_is_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the server of processes finds what it imports
    context = processes()
    moments, queries = random.Random(13), 3 * KILLS
    lines = [json.dumps({"prompt": f"question {n}?"}) + "\n" for n in range(queries)]
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "prompts.jsonl").write_text("".join(lines))
    paid: set[Key] = set()
    done: Counter[int] = Counter()
    killed = Counter[str]()
    with Server() as server:
        for attempt in range(KILLS + 1):
            kind = "never" if attempt == KILLS else ("asked", "answered", "scored", "answered")[attempt % 4]
            before = len(server.asked)
            server.at = before + moments.randrange(1, 24) if kind in ("asked", "answered") else -1
            server.delay = moments.uniform(0.0, 0.02) if kind == "answered" else 0.0
            at_score = moments.randrange(1, 16) if kind == "scored" else -1
            arguments = (str(tmp_path), server.url, CONCURRENCY, at_score)
            process = context.Process(target=run_command.command, args=arguments)
            process.start()
            server.pid = process.pid or 0
            process.join(120)
            assert process.exitcode in (-signal.SIGKILL, 0), f"{kind}: the command ended with {process.exitcode}"
            killed[kind] += process.exitcode != 0
            for key in server.asked[before:]:
                assert key not in paid, f"{key} was asked again, and its answer was in the file"
                assert key[0] not in done, f"query {key[0]} was asked again, and was done"
            paid, done = kept(tmp_path)
            assert max(done.values(), default=1) == 1
    assert not paid and set(done) == set(range(queries))
    assert sum(killed.values()) >= KILLS * 3 // 4 and all(killed[kind] for kind in ("asked", "answered", "scored"))
    again = len(server.asked) - len(set(server.asked))
    assert again <= CONCURRENCY * sum(killed.values())  # what was in flight, and nothing else


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_stop_says_so_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: signal.Signals
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / "mine.py").write_text(REWARD)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"question {n}?"}) + "\n" for n in range(12)))
    with Server() as server:
        server.signal, server.at, codes = stop, 20, []
        for _ in range(2):
            process = processes().Process(target=run_command.command, args=(str(tmp_path), server.url, CONCURRENCY, -1))
            process.start()
            server.pid = process.pid or 0
            process.join(120)
            codes.append(process.exitcode)
    assert codes == [130, 0] and set(kept(tmp_path)[1]) == set(range(12))
