"""The ledger of one loop: the cache C of candidates, what was spent, and whether a budget is used up.

The loop writes here and decides by what it reads; a driver that must stop early takes the trajectory so far.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from tpo_core.config import TPOConfig
from tpo_core.config.experience import Evidence
from tpo_core.errors import InvalidInputError
from tpo_core.loop.effects import Task
from tpo_core.prompts.rendering import show_query
from tpo_core.trajectory import StopReason, Trajectory
from tpo_core.values import NO_USAGE, Candidate, Completion, Failure, Pair, Prompt, Reward, Step, Usage, changed

__all__ = ["Ledger"]


class Ledger:
    """What one loop has and has spent; one per loop, never shared."""

    def __init__(self, query: Prompt, inputs: Any, config: TPOConfig, clock: Callable[[], float]) -> None:
        """Open the ledger; refuse what is no query."""
        show_query(query)
        self.query = query
        self.inputs = inputs
        self.config = config
        self.candidates: list[Candidate] = []
        self.best: Candidate | None = None
        """y_w: the best of all, the earliest of equals."""
        self.worst: Candidate | None = None
        """y_l: the worst of all, the earliest of equals."""
        self.steps: list[Step] = []
        self.usage = Usage()
        self.reward_usage = Usage()
        self.stop_reason: StopReason = "depth"
        self.reward_failed = False
        """Whether the reward model raised: nothing more can be scored."""
        self._clock = clock
        self._started = clock()
        self._seconds: dict[str, float] = {}
        first = (config.seed or 0) * 1_000_003  # far apart, so that two seeds' samples never share a number
        self._next_seed = {"sample": first, "other": first + 500_000}
        self._rewards: dict[Any, Reward] = {}  # finite ones only: what failed is asked again when its text comes back
        self._gained = 0  # the round in which the best last became better
        self.spent: dict[str, Usage] = {}
        """What each task cost."""
        self.explored = 0.0
        """What was planned only to learn, as it counts against the budget."""
        self.told = Evidence()
        """What the configuration's ``experience`` has from this loop."""

    @property
    def given(self) -> Any:
        """Return what the user's program takes: the inputs, or the query where there are none."""
        return self.query if self.inputs is None else self.inputs

    # -- time and budgets ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Count time, and the deadline, from here."""
        self._started = self._clock()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the ledger was opened."""
        return self._clock() - self._started

    def clocked(self, task: str, since: float) -> None:
        """Enter the time from ``since`` (an earlier ``elapsed``) to now under a task."""
        self._seconds[task] = self._seconds.get(task, 0.0) + self.elapsed - since

    def affordable(self, calls: int) -> int:
        """Return how many of ``calls`` samples the call budget still allows."""
        return calls if self.config.max_calls is None else max(0, min(calls, self.config.max_calls - self.usage.calls))

    def exhausted(self) -> StopReason | None:
        """Return the reason to stop before asking for anything more, or None."""
        config, best = self.config, self.best
        if config.stop_at is not None and best is not None and (best.reward or 0.0) >= config.stop_at:
            return "stop_at"
        if self.reward_failed:
            return "reward_failed"
        if config.deadline is not None and self.elapsed >= config.deadline:
            return "deadline"
        if config.max_tokens is not None and self.priced(self.usage + self.reward_usage) >= config.max_tokens:
            return "max_tokens"
        if config.max_calls is not None and self.usage.calls >= config.max_calls:
            return "max_calls"
        return None

    @property
    def in_vain(self) -> bool:
        """Return whether asking again is in vain: every sample failed so that the next would, too."""
        return bool(self.candidates) and all(c.failure is not None and c.failure.lasting for c in self.candidates)

    def priced(self, usage: Usage) -> float:
        """Return what a usage counts against ``max_tokens``."""
        return usage.completion_tokens + self.config.prompt_price * usage.prompt_tokens

    def stalled(self, number: int) -> bool:
        """Return whether, before round ``number``, ``patience`` rounds have gone by without a better best."""
        patience = self.config.patience
        return patience is not None and self.best is not None and number - 1 - self._gained >= patience

    @property
    def deadline(self) -> float | None:
        """Return when the deadline is, on the clock, or None without one."""
        return None if self.config.deadline is None else self._started + self.config.deadline

    def next_seeds(self, n: int, task: Task) -> tuple[int, ...]:
        """Return ``n`` numbers that no other sample of this loop has.

        The program's own samples are numbered apart: two plans with one seed share them, whatever else they ask for.
        """
        kind = "sample" if task == "sample" else "other"
        start = self._next_seed[kind]
        self._next_seed[kind] += n
        return tuple(range(start, start + n))

    def spare(self, calls: int) -> int | None:
        """Return how many samples the call budget still allows beyond ``calls``; None without a budget."""
        return None if self.config.max_calls is None else max(0, self.config.max_calls - self.usage.calls - calls)

    def spend(self, usage: Usage, calls: int, task: str = "sample") -> None:
        """Enter what was asked: at least ``calls`` samples, more where ``usage`` says that calls failed."""
        usage = usage if usage.calls >= calls else changed(usage, calls=calls)
        self.spent[task] = usage + self.spent.get(task, NO_USAGE)
        self.usage += usage

    # -- the cache ----------------------------------------------------------------------------------------------------

    def add(
        self,
        completion: Completion,
        step: int,
        *,
        fresh: bool,
        failure: Failure | None,
        parent: Candidate | None = None,
        critique: int | None = None,
    ) -> Candidate:
        """Enter a completion as a candidate without a reward yet, or with the reason why it is none.

        What an update answers is what its ``parent`` answered, unless the completion says otherwise. ``critique`` is
        the place of its critique in ``steps``.
        """
        context = completion.context if completion.context is not None or parent is None else parent.context
        candidate = Candidate(
            response=completion.text,
            value=completion.text if completion.value is None else completion.value,
            step=step,
            failure=failure,
            fresh=fresh,
            critique=critique,
            index=len(self.candidates),
            context=None if context is None or context == self.query or not _shows(context) else context,
        )
        self.candidates.append(candidate)
        return candidate

    def unscored(self, candidates: Sequence[Candidate]) -> tuple[Pair, ...]:
        """Return one pair per distinct response, to what it answers, that has no reward yet."""
        new = {key: c for c in candidates if c.failure is None and (key := _key(c.context, c)) not in self._rewards}
        query, inputs = self.query, self.inputs
        return tuple([Pair(c.answers(query), c.response, c.value, inputs, query) for c in new.values()])

    def enter_rewards(
        self, pairs: Sequence[Pair], rewards: Sequence[Reward], cause: BaseException | None = None
    ) -> None:
        """Enter rewards, and give them to every candidate with that response, earlier ones without a reward included.

        Args:
            pairs: What was scored.
            rewards: One per pair, same order; a candidate whose reward is not finite is quarantined.
            cause: The exception behind rewards that are not finite, if there is one.
        """
        before = self.best
        odd: dict[Any, Failure] = {}
        self.reward_usage += changed(Usage.total(reward.usage for reward in rewards), calls=len(rewards))
        for pair, reward in zip(pairs, rewards, strict=True):
            if math.isfinite(reward):
                self._rewards[self._key(pair)] = reward
            else:
                odd[self._key(pair)] = Failure("unscored", reward.failure or f"the reward is {float(reward)}", cause)
        self.candidates = [c if c.reward is not None else self._rewarded(c, odd) for c in self.candidates]
        scored = self.scored
        self.best = max(scored, key=_OF_SCORED, default=None)
        self.worst = min(scored, key=_OF_SCORED, default=None)
        if self.best is not None and (before is None or _reward(self.best) > _reward(before)):
            self._gained = self.candidates[-1].step

    def _rewarded(self, candidate: Candidate, odd: Mapping[Any, Failure]) -> Candidate:
        """Return one without a reward with it, or with the reason why it has none, which ``odd`` has by its key."""
        if candidate.failure is not None and candidate.failure.reason != "unscored":
            return candidate
        key = _key(candidate.context, candidate)
        reward = self._rewards.get(key)
        if reward is None:
            return changed(candidate, failure=odd[key]) if key in odd else candidate
        return changed(
            candidate,
            failure=None,
            reward=float(reward),
            feedback=reward.feedback,
            heads=reward.heads,
            truncated=reward.truncated,
        )

    def _key(self, pair: Pair) -> Any:
        return _key(None if pair.prompt == self.query else pair.prompt, pair)

    def of_step(self, step: int) -> tuple[Candidate, ...]:
        """Return one round's candidates, failures included."""
        return tuple(c for c in self.candidates if c.step == step)

    def failure_of(self, step: int) -> Failure | None:
        """Return why a round's samples failed: a failure of the kind that most of them have."""
        failures = [c.failure for c in self.of_step(step) if c.failure is not None]
        often = Counter(failure.reason for failure in failures)
        return max(failures, key=lambda failure: often[failure.reason], default=None)

    @property
    def scored(self) -> list[Candidate]:
        """Return the candidates with a reward, in the order they were made."""
        return [c for c in self.candidates if c.reward is not None]

    def has_contrast(self) -> bool:
        """Return whether the best beats the worst by more than ``min_spread``."""
        best, worst = self.best, self.worst
        return best is not None and worst is not None and _reward(best) - _reward(worst) > self.config.min_spread

    def trajectory(self, stop_reason: StopReason | None = None) -> Trajectory:
        """Return all of it, frozen."""
        return Trajectory(
            query=self.query,
            candidates=tuple(self.candidates),
            steps=tuple(self.steps),
            usage=self.usage,
            reward_usage=self.reward_usage,
            stop_reason=stop_reason or self.stop_reason,
            seconds={"total": self.elapsed, **self._seconds},
            seed=self.config.seed,
        )


def _key(context: Prompt | None, scored: Candidate | Pair) -> Any:
    """Return what a reward is kept under: the response, and what it answers where that is not the query."""
    return (
        scored.response
        if context is None
        else (scored.response, context if isinstance(context, str) else repr(context))
    )


def _shows(context: Prompt) -> bool:
    """Return whether a context has any text; one that has none is as good as none."""
    try:
        return bool(show_query(context))
    except InvalidInputError:
        return False


_OF_SCORED: Any = attrgetter("reward")
"""The reward of a candidate that has one."""


def _reward(candidate: Candidate) -> float:
    return candidate.reward if candidate.reward is not None else -math.inf
