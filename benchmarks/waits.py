"""How long runs take by the scheduler's own rules, in simulated seconds: the same on any machine, and at once.

A request takes as long as the longest of the samples it asks for, each log-normal about one second; its spread is the
deviation of the logarithm. The reward model takes a time for each response and scores one batch at a time. Two tables:

    scorings   seconds of 16 and 64 queries whose scorings are merged, all that wait or no more than one query's, beside
               the ideal: the longer of the seven requests that a query makes and of the reward model's work
    settings   seconds of a query, its share of those of D2-N5, and what the setting does to the reward, in spreads of
               fresh samples, in the worlds where updates help least and most. Each sample is a request of its own.
               quorum: a round goes on with four of five samples. overlap: each response is scored when it comes

    python benchmarks/waits.py [--queries 40] [--runs 6]
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tpo_core import TPOConfig, Trajectory
from tpo_core.drivers.outcomes import Done, Late, Raised
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Call, Models, Scoring, Ticket, serve
from tpo_core.loop.ledger import Ledger
from tpo_core.studies.worlds import WORLDS, World, WorldPolicy, WorldReward, world_mean

RESPONSES, REQUESTS = 15, 7  # of a query


@dataclass(frozen=True)
class Case:
    """How calls take their time."""

    spread: float = 0.0
    scoring: float = 0.0
    """Seconds a response."""
    at_once: bool = True
    """Whether one request asks for all samples of a round."""
    merges: bool = True
    merges_up_to: float = float("inf")
    quorum: int = 5
    overlap: bool = False


class Simulation:
    """Runs queries together on a clock of its own.

    Args:
        world: Answers and rewards.
        case: How long that takes.
    """

    def __init__(self, world: World, case: Case) -> None:
        """Begin at zero."""
        self.now, self.case = 0.0, case
        self._policy, reward = WorldPolicy(world), WorldReward(world)
        self._policy.takes_n = dict.fromkeys(("sample", "update"), case.at_once)
        vars(reward)["merges"], reward.merges_up_to = case.merges, case.merges_up_to
        self._models = Models(self._policy, reward)
        self._free = 0.0  # when the reward model has nothing more to do
        self._scored: dict[str, float] = {}  # when a response has its reward, with overlap
        self._out: list[tuple[float, int, Ticket[Any], Done[Any]]] = []
        self._numbers = itertools.count()

    def run(self, queries: Sequence[str], config: TPOConfig) -> list[Trajectory]:
        """Return what comes of queries that start together; ``now`` is then when the last of them ends."""
        ledgers = [Ledger(query, None, config, lambda: self.now) for query in queries]
        runs = [Run(ledger, serve(ledger, self._models, place), place) for place, ledger in enumerate(ledgers)]
        scheduler, ended = Scheduler(runs, clock=lambda: self.now), list[Run]()
        while not scheduler.finished:
            for ticket in scheduler.take():
                outcome = Done(ticket.call())
                heapq.heappush(self._out, (self._ends(ticket), next(self._numbers), ticket, outcome))
            ended += scheduler.ended()
            if self._out:
                self.now, _, ticket, outcome = heapq.heappop(self._out)
                self._give(scheduler, runs, ticket, outcome)
        return [run.gained for run in sorted(ended, key=lambda run: run.place)]

    def _ends(self, ticket: Ticket[Any]) -> float:
        if isinstance(ticket, Call):
            draw = random.Random(repr((ticket.request.task, ticket.request.inputs, ticket.seeds)))
            return self.now + max(draw.lognormvariate(0.0, self.case.spread) for _ in ticket.seeds)
        assert isinstance(ticket, Scoring)
        if self.case.overlap:
            return max(self._scored.get(pair.response, 0.0) for pair in ticket.pairs)
        self._free = max(self._free, self.now) + self.case.scoring * len(ticket.pairs)
        return self._free

    def _give(self, scheduler: Scheduler, runs: Sequence[Run], ticket: Ticket[Any], outcome: Done[Any]) -> None:
        batch = next((run.batch for run in runs if ticket in run.missing), None)
        if isinstance(ticket, Call) and ticket.request.task in ("sample", "update") and scheduler.awaits(ticket):
            for completion in outcome.value:
                self._free = max(self._free, self.now) + self.case.scoring * self.case.overlap
                self._scored[completion.text] = self._free
        scheduler.give(ticket, outcome)
        if batch is not None and len(batch.tickets) - len(open_ := [t for t in batch.tickets if t.outcome is None]) >= (
            self.case.quorum
        ):
            for late in open_:
                scheduler.give(late, Raised(Late()))


def scorings() -> None:
    """Print what merging does."""
    print(f"{'queries':>7} {'s a response':>12} {'scoring s':>9} {'all that wait':>13} {'one query':>9} ideal / each")
    for count, scoring in itertools.product((16, 64), (0.01, 0.02, 0.05)):
        queries, ideal = [f"0 0 {n}" for n in range(count)], max(REQUESTS, count * RESPONSES * scoring)
        took = []
        for most in (float("inf"), 1.0):
            simulation = Simulation(WORLDS[3], Case(scoring=scoring, merges_up_to=most))
            simulation.run(queries, TPOConfig(seed=1))
            took.append(simulation.now)
        shares = "  ".join(f"{ideal / seconds:.2f}" for seconds in took)
        print(f"{count:7} {scoring:12} {count * RESPONSES * scoring:9.1f} {took[0]:13.2f} {took[1]:9.2f} {shares}")


SETTINGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "D2-N5": ({}, {}),
    "quorum": ({"quorum": 4}, {}),
    "overlap": ({"overlap": True}, {}),
    "merged critique": ({}, {"merged_critique": True}),
}


def settings(queries: int, runs: int) -> None:
    """Print what each setting does to a query that runs by itself."""
    for world, spread, scoring in itertools.product((WORLDS[0], WORLDS[3]), (0.5, 1.0), (0.01, 0.1)):
        plain: list[tuple[float, float]] = []
        print(f"{world.name}, spread {spread}, {scoring} s a response")
        for name, (case, config) in SETTINGS.items():
            found = []
            for run, number in itertools.product(range(runs), range(queries)):
                query = f"0 {run} {number}"
                simulation = Simulation(world, Case(spread, scoring, at_once=False, merges=False, **case))
                [trajectory] = simulation.run([query], TPOConfig(seed=run, **config))
                found.append((simulation.now, (trajectory.best.reward or 0.0) - world_mean(query)))
            plain = plain or found
            took = fmean(t for t, _ in found)
            share = took / fmean(t for t, _ in plain)
            gains = [mine - other for (_, mine), (_, other) in zip(found, plain, strict=True)]
            error = 1.96 * stdev(gains) / len(gains) ** 0.5
            print(f"  {name:16} {took:6.2f} s {share:6.0%}   reward {fmean(gains):+.3f} ± {error:.3f}", flush=True)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--runs", type=int, default=6)
    args = parser.parse_args()
    scorings()
    settings(args.queries, args.runs)


if __name__ == "__main__":
    main()
