"""A run's queries answered, as many at once as there is room for, each kept as it ends.

Three laws. A query's own failure costs that query alone. What would fail every query alike (a folder that cannot be
written, a server that is gone) ends the run, and leaves the queries on their way open for the next process. And a
budget that is used up ends each query on its way with the best it has.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import inf

from tpo_core.config import TPOConfig
from tpo_core.drivers.adaptive import AdaptiveLimit
from tpo_core.drivers.driving import adrive
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Models, serve
from tpo_core.errors import GenerationError, ModelError, RewardError, StoreError
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import Policy
from tpo_core.records import repr_without_texts
from tpo_core.rewards.base import RewardModel
from tpo_core.runs.admission import to_do
from tpo_core.runs.answers import Answers, UnderWay
from tpo_core.runs.items import Item
from tpo_core.runs.metering import Budget, Metered, Tally
from tpo_core.runs.replay import ReplayPolicy, ReplayReward
from tpo_core.runs.store import Admitted, RunStore
from tpo_core.runs.writer import Receipt
from tpo_core.trajectory import StopReason, Trajectory

__all__ = ["Ended", "Engine"]

PER_REQUEST = 2
"""Queries on their way for each request that may be out."""

IN_A_ROW = 3
"""Queries that fail by a model that cannot be used, one after the other, until the run ends: what befalls all of them
must not be written down as the failure of each."""

UNSETTLED = 256
"""Ended queries whose commit is not waited for yet."""


@dataclass(frozen=True)
class Ended:
    """A query that has ended."""

    query: Admitted
    result: Trajectory | Exception

    __repr__ = repr_without_texts()


class Engine:
    """Answers the queries of a run.

    Args:
        store: The run's, open.
        policy: Gives the policy of a query; queries may name models of their own.
        reward: Scores all of them.
        config: Of every query, but for what it sets for itself.
        tally: Counts.
        budget: Of the whole run.
        limit: Most requests at once: fewer go out while a server has too much to do.
    """

    def __init__(
        self,
        store: RunStore,
        policy: Callable[[Item], Policy],
        reward: RewardModel,
        config: TPOConfig,
        tally: Tally,
        limit: int,
        budget: Budget | None = None,
    ) -> None:
        """Take the parts; nothing is asked yet."""
        self._budget = budget or Budget()
        self._scheduler: Scheduler | None = None
        self.used_up: StopReason | None = None
        """Which limit of the budget has ended the run."""
        self._store, self._policy, self._config, self.tally = store, policy, config, tally
        self._under_way = UnderWay(store)
        self._reward = ReplayReward(reward, self._under_way)
        self._metered: dict[int, Metered] = {}
        self._going: dict[int, tuple[Admitted, Answers]] = {}
        self._receipts: deque[Receipt[None]] = deque()
        self._doubtful: list[_Doubt] = []
        self._limit = AdaptiveLimit(limit)

    async def answer(self, items: Iterable[Item]) -> AsyncGenerator[Ended, None]:
        """Answer what is neither done nor failed, and yield each query as it ends.

        Args:
            items: The run's queries from the start of their source.

        Raises:
            InvalidInputError: A line of the source cannot be used.
            StoreError: The folder cannot be written, or was begun with other prompts.
            ModelError: A model cannot be used: several queries in a row failed by it. Likewise RewardError.
            GenerationError: Likewise.
        """
        scheduler = self._scheduler = Scheduler(self._runs(items), self._limit, PER_REQUEST * self._limit.most)
        alarm = self._set_alarm()
        try:
            async with aclosing(adrive(scheduler)) as ended:
                async for run in ended:
                    self.tally.limit = self._limit.now
                    yield self._end(run)
                    await self._settle(UNSETTLED)
            for run in scheduler.close():
                self._cut_short(run)
        finally:
            scheduler.close()
            if alarm is not None:
                alarm.cancel()
        if self._doubtful and not self.tally.done:
            raise self._doubtful[0].trouble
        self._clear()
        await self._settle(0)

    def _runs(self, items: Iterable[Item]) -> Iterator[Run]:
        self._check_budget()
        if self.used_up is None:
            for query in to_do(self._store, items):
                yield self._begin(query)

    def _set_alarm(self) -> asyncio.TimerHandle | None:
        if self._budget.seconds is None:
            return None
        left = max(0.0, self._budget.seconds - self.tally.seconds)
        return asyncio.get_running_loop().call_later(left, self._check_budget)

    def _check_budget(self) -> None:
        """Let nothing more be asked for once the budget is used up."""
        if self.used_up is None and (reason := self._budget.used_up(self.tally)) is not None:
            self.used_up = reason
            if self._scheduler is not None:
                self._scheduler.stop_asking()

    def _cut_short(self, run: Run) -> None:
        """End a query with the best it has; one that has none stays open."""
        _, answers = self._going.pop(run.place)
        if self.used_up is not None and run.ledger.best is not None:
            self._keep(answers, run.ledger.trajectory(self.used_up))

    def _begin(self, query: Admitted) -> Run:
        item = query.item
        answers = self._under_way.begin(query)
        self._going[query.position] = query, answers
        self.tally.on_their_way = len(self._going)
        policy = self._policy(item)
        metered = self._metered.setdefault(id(policy), Metered(policy, self.tally, self._check_budget))
        config = replace(self._config, **item.sampling) if item.sampling else self._config
        ledger = Ledger(item.prompt, None, config, time.monotonic)
        models = Models(ReplayPolicy(metered, answers), self._reward)
        return Run(ledger, serve(ledger, models, query.position), query.position)

    def _end(self, run: Run) -> Ended:
        query, answers = self._going.pop(run.place)
        self.tally.on_their_way = len(self._going)
        result = run.result
        assert result is not None
        if isinstance(result, StoreError):
            raise result
        if (trouble := _trouble(result)) is None:
            if isinstance(result, Trajectory):
                self._clear(self.tally.answered)
            self._keep(answers, result)
        else:
            self._doubtful.append(_Doubt(answers, result, trouble, self.tally.clock()))
            if len(self._doubtful) >= IN_A_ROW:
                raise trouble
        return Ended(query, result)

    def _keep(self, answers: Answers, result: Trajectory | Exception) -> None:
        if isinstance(result, Trajectory):
            self._receipts.append(answers.finish(result))
            self.tally.finish(result)
        else:
            self._receipts.append(answers.fail(result))
            self.tally.fail()

    def _clear(self, answered: float = inf) -> None:
        """Let what befell queries be their own: another one has ended well.

        Args:
            answered: When a request went out that a model has answered. A query that failed by a model since then stays
                in doubt: the other may have had its answers before the model was gone.
        """
        certain = [
            doubt for doubt in self._doubtful if isinstance(doubt.trouble, RewardError) or doubt.since < answered
        ]
        self._doubtful = [each for each in self._doubtful if each not in certain]
        for each in certain:
            self._keep(each.answers, each.result)

    async def _settle(self, most: int) -> None:
        """Wait for commits, but for the latest."""
        while len(self._receipts) > most or (self._receipts and self._receipts[0].settled):
            await self._receipts.popleft()


@dataclass(frozen=True, eq=False)
class _Doubt:
    """A query that failed by what may befall every other, too."""

    answers: Answers
    result: Trajectory | Exception
    trouble: Exception
    since: float

    __repr__ = repr_without_texts()


_TROUBLES: Mapping[str, type[Exception]] = {
    "critic_failed": ModelError,
    "no_candidates": ModelError,
    "reward_failed": Exception,
}
"""For a loop that could not go on, what may befall every other, too."""


def _trouble(result: Trajectory | Exception) -> Exception | None:
    """Return what may befall every query alike: that a model or the reward model cannot be used."""
    if isinstance(result, Trajectory):
        failures = [step.failure for step in result.steps[-1:]] + [c.failure for c in result.candidates[-1:]]
        causes = [failure.exception for failure in failures if failure is not None]
        kinds = _TROUBLES.get(result.stop_reason, ())
        return next((cause for cause in causes if isinstance(cause, kinds)), None)
    if isinstance(result, GenerationError):
        return result if result.causes and all(isinstance(cause, ModelError) for cause in result.causes) else None
    return result if isinstance(result, (ModelError, RewardError)) else None
