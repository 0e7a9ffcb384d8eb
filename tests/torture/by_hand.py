"""Schedules of faults fed by hand: the scheduler and the loops as they are, and the clock, calls and answers are ours.

Nothing waits and nothing runs at the same time, so a schedule takes about a millisecond and a seed brings it back.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from faults import FaultyChat, FaultyReward

from tpo_core import TPOConfig
from tpo_core.drivers.adaptive import AdaptiveLimit
from tpo_core.drivers.outcomes import Done, Raised
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Call, Models, Ticket, serve
from tpo_core.errors import RewardContractError, TPOError
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import ChatModel, ChatPolicy
from tpo_core.rewards import RewardModel
from tpo_core.trajectory import Trajectory

__all__ = ["by_hand", "schedule"]

MOST_CALLS = 5_000
"""Calls of one schedule: whatever fails, it ends before."""

SLOWEST = 3.0
"""Seconds of what ends. The first scoring of a query has no deadline: an answer a little late beats none."""


def schedule(seed: int, seen: Counter[str]) -> None:
    """Run some queries by a schedule of faults, and check what must hold whatever happens."""
    draw = random.Random(seed)
    config, limit = _config(draw), draw.choice([None, 1, 3, 8])
    chat = FaultyChat(draw, draw.choice([0.0, 0.3, 0.9]), draw.choice([0.0, 0.2, 0.8]), draw.choice(NS))
    reward = FaultyReward(draw, draw.choice([0.0, 0.0, 0.3]), draw.choice([0.0, 0.1, 0.6]), draw.random() < 0.5)
    hand = _Hand(draw, limit)
    alone = draw.random() < 0.5
    runs = []
    for place in range(1 if alone else draw.randrange(2, 5)):
        ledger = Ledger(f"query {place}", None, config, hand.clock)
        runs.append(Run(ledger, serve(ledger, Models(ChatPolicy(chat), reward), place), place))
    adaptive = limit is not None and draw.random() < 0.3
    hand.drive(Scheduler(runs, AdaptiveLimit(limit, hand.clock) if adaptive else limit, clock=hand.clock))
    for run in runs:
        seen[_checked(run, config, hand)] += 1
    if alone and not adaptive:  # what goes out again by itself is not the loop's to count
        spent = runs[0].gained.usage.calls
        late = config.deadline is not None  # what still waited to go out counts, too
        assert spent == chat.asked or (late and spent > chat.asked), f"{chat.asked} samples were asked, {spent} counted"


def by_hand(
    draw: random.Random, queries: Sequence[str], chat: ChatModel, reward: RewardModel, config: TPOConfig
) -> list[Trajectory | Exception | None]:
    """Run queries with nothing that waits, and return how each ended."""
    hand = _Hand(draw, None)
    ledgers = [Ledger(query, None, config, hand.clock) for query in queries]
    runs = [Run(ledger, serve(ledger, Models(ChatPolicy(chat), reward))) for ledger in ledgers]
    hand.drive(Scheduler(runs, clock=hand.clock))
    return [run.result for run in runs]


NS = ("taken", "taken", "one", "other", "refused")


def _config(draw: random.Random) -> TPOConfig:
    def maybe(*values: Any) -> Any:
        return draw.choice([None, None, *values])

    width = draw.randrange(1, 6)
    return TPOConfig(
        mode=draw.choice(["tpo", "tpo", "revision", "bon"]),
        plan=draw.choice(["paper", "paper", "adaptive"]),
        width=width,
        depth=draw.randrange(4),
        fresh=(fresh := draw.randrange(width)),
        critiques=draw.choice([1, 1, draw.randrange(1, width - fresh + 1)]),
        samples_at_once=maybe(1, 2),
        max_calls=maybe(1, 2, 7, 30),
        max_tokens=maybe(1, 200, 2000),
        deadline=maybe(0.5, 5.0),
        stop_at=maybe(0.0, 9.0),
        patience=maybe(1),
        min_spread=draw.choice([0.0, 2.0]),
        max_shown_chars=maybe(64),
        seed=maybe(7),
    )


class _Hand:
    """Makes the calls of a scheduler one by one, each of which takes a time that is drawn; some never end."""

    def __init__(self, draw: random.Random, limit: int | None) -> None:
        self._draw, self._limit = draw, limit
        self._now, self.calls = 0.0, 0
        self._slow = draw.choice([0.0, 0.3])
        self._hangs = draw.choice([0.0, 0.0, 0.1])

    def clock(self) -> float:
        return self._now

    def drive(self, scheduler: Scheduler) -> None:
        """Go on until all have ended; a call that hangs without a deadline ends after an hour."""
        coming: list[tuple[float, int, Ticket[Any], Any]] = []
        while True:
            for ticket in scheduler.take():
                if isinstance(ticket, Call) and ticket.request.deadline is not None:
                    assert self._now < ticket.request.deadline, "a request went out after its deadline"
                heapq.heappush(coming, (self._now + self._time(ticket), self.calls, ticket, self._outcome(ticket)))
                self.calls += 1
                assert self.calls < MOST_CALLS, "it does not end"
            assert self._limit is None or scheduler.out <= self._limit
            for _ in scheduler.ended():
                pass
            if scheduler.finished:
                return
            alarm = scheduler.alarm()
            moments = [*([self._now + alarm] if alarm is not None else []), *(entry[0] for entry in coming[:1])]
            assert moments, "nothing is out, nothing is due, and it has not ended"
            self._now = max(self._now, min(moments))
            while coming and coming[0][0] <= self._now:
                _, _, ticket, outcome = heapq.heappop(coming)
                scheduler.give(ticket, outcome)
            scheduler.expire()

    def _time(self, ticket: Ticket[Any]) -> float:
        if isinstance(ticket, Call) and self._draw.random() < self._hangs:
            return 3600.0
        return self._draw.uniform(0.5, SLOWEST) if self._draw.random() < self._slow else self._draw.uniform(0.0, 0.1)

    @staticmethod
    def _outcome(ticket: Ticket[Any]) -> Done[Any] | Raised:
        try:
            return Done(ticket.call())
        except Exception as error:
            return Raised(error)


def _checked(run: Run, config: TPOConfig, hand: _Hand) -> str:
    """Check one query's end; returns how it ended."""
    result, gained = run.result, run.gained
    assert isinstance(result, (Trajectory, TPOError)), f"ended with {result!r}"
    if isinstance(result, TPOError):
        broken = isinstance(result, RewardContractError)  # a fault of the reward's code is raised, whatever was gained
        assert str(result) and (broken or gained.best_or_none is None), f"{result!r} in place of an answer"
    best, first = gained.best_or_none, gained.initial_best
    scored = [c.reward for c in gained.candidates if c.reward is not None]
    assert (best is None) == (not scored) and (best is None or best.reward == max(scored))
    assert first is None or (best is not None and (best.reward or 0.0) >= (first.reward or 0.0))
    assert config.max_calls is None or gained.usage.calls <= config.max_calls, "max_calls was exceeded"
    told = len(scored) + len(gained.failures)
    assert told == len(gained.candidates) or isinstance(result, RewardContractError)
    if config.deadline is not None and best is not None:
        assert gained.seconds["total"] <= config.deadline + 2 * SLOWEST, "the deadline was not kept"
    assert Trajectory.from_json(gained.to_json()) == gained
    return type(result).__name__ if isinstance(result, TPOError) else gained.stop_reason
