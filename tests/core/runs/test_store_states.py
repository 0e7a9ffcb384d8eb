"""The store against a model of it in memory, through any order of writing, ending, trying again and going on."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tpo_core import Candidate, Trajectory
from tpo_core.runs import Item, RunReader, RunStore
from tpo_core.runs.store import Answer


class Store(RuleBasedStateMachine):
    """``self.answers`` and ``self.state`` are what the folder must hold, by position."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = RunStore.open(self.folder, settings={"width": 5})
        self.answers: list[dict] = []
        self.state: list[str] = []

    def teardown(self):
        self.store.close()
        shutil.rmtree(self.folder)

    @rule()
    def admit(self):
        query = self.store.admit(self.item(len(self.state)))
        assert (query.position, query.state) == (len(self.state), "open")
        self.answers.append({})
        self.state.append("open")

    @precondition(lambda self: self.state)
    @rule(data=st.data(), seeds=st.lists(st.integers(0, 3), min_size=1), text=st.binary(max_size=3), paid=st.booleans())
    def keep(self, data, seeds, text, paid):
        place = self.place(data)
        self.store.keep([Answer(place, "sample", 0, str(s), b"h", str(s), paid, text) for s in seeds]).wait()
        for seed in seeds:
            if self.state[place] != "done" and (paid or str(seed) not in self.answers[place]):
                self.answers[place][str(seed)] = (paid, text)

    @precondition(lambda self: "done" not in self.state or len(set(self.state)) > 1)
    @rule(data=st.data())
    def finish(self, data):
        left = [place for place, state in enumerate(self.state) if state != "done"]
        if left:
            place = data.draw(st.sampled_from(left))
            self.store.finish(place, self.trajectory(place)).wait()
            self.state[place], self.answers[place] = "done", {}

    @precondition(lambda self: "open" in self.state)
    @rule(data=st.data())
    def fail(self, data):
        place = data.draw(st.sampled_from([place for place, state in enumerate(self.state) if state == "open"]))
        self.store.fail(place, ValueError(str(place))).wait()
        self.state[place] = "failed"

    @rule()
    def retry(self):
        assert self.store.retry_failed() == self.state.count("failed")
        for place, state in enumerate(self.state):
            if state == "failed":
                self.state[place] = "open"
                self.answers[place] = {s: (paid, text) for s, (paid, text) in self.answers[place].items() if paid}

    @rule()
    def go_on(self):
        self.store.close()
        self.store = RunStore.open(self.folder, settings={"width": 5})
        queries = [self.store.admit(self.item(place)) for place in range(len(self.state))]
        assert [query.state for query in queries] == self.state
        for query in queries:
            kept = {a.seeds: (bool(a.paid), a.data) for a in self.store.answers(query)}
            assert kept == self.answers[query.position]

    @invariant()
    def every_query_is_there_exactly_once(self):
        counts = self.store.counts
        assert (counts.queries, counts.done, counts.failed) == (
            len(self.state),
            self.state.count("done"),
            self.state.count("failed"),
        )
        with RunReader(self.folder) as run:
            assert [f.position for f in run.failed()] == [p for p, state in enumerate(self.state) if state == "failed"]
            done = {f.position: f.trajectory for f in run.finished()}
        assert done == {p: self.trajectory(p) for p, state in enumerate(self.state) if state == "done"}

    def place(self, data):
        return data.draw(st.integers(0, len(self.state) - 1))

    @staticmethod
    def item(place):
        return Item(str(place), f"ask {place}", line=place + 1)

    @staticmethod
    def trajectory(place):
        return Trajectory(f"ask {place}", (Candidate(f"answer {place}", reward=float(place), value=f"answer {place}"),))


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
