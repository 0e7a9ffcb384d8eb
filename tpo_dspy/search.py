"""One call of BestOfN or Refine: attempts, their rewards, and the books about both."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import dspy

from tpo_core.config import TPOConfig
from tpo_core.drivers.serving import Call, Scoring, Ticket
from tpo_core.errors import RewardError
from tpo_core.loop.effects import Generate
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import Policy
from tpo_core.prompts.rendering import render_fields
from tpo_core.rewards import RewardModel
from tpo_core.rewards.concurrency import aeach, each
from tpo_core.values import Candidate, Completion, Failure, Pair
from tpo_dspy.callbacks import Rounds, ScoreInRound
from tpo_dspy.fields import show
from tpo_dspy.policy import Parts, ProgramPolicy
from tpo_dspy.rewarded import extend_trace, with_trajectory

__all__ = ["Attempts", "Search"]


class Search:
    """One call's attempts, and the books about them."""

    def __init__(self, module: dspy.Module, inputs: dict[str, Any], reward: RewardModel, n: int, replay: bool) -> None:
        """Open the books."""
        self.rounds = Rounds()
        self.inputs = inputs
        example = dspy.Example(inputs).with_inputs(*inputs)
        query = render_fields({k: show(v) for k, v in inputs.items()}) if inputs else ""
        self.books = Ledger(query, example, TPOConfig(mode="bon", width=n), time.monotonic)
        last = (module.predictors() or [None])[-1]
        shape: Any = SimpleNamespace(response=_whole, context={})
        self.parts = Parts(module, shape, None, None, None, lm=getattr(last, "lm", None), forgiving=False)
        self.policy = ProgramPolicy(self.parts, inputs, self.rounds)
        self._reward = ScoreInRound(reward, self.rounds)
        self._salt = 0 if replay else random.SystemRandom().getrandbits(48)
        self._failures: list[Exception] = []

    def attempts(self, numbers: Sequence[int]) -> Attempts:
        """Return the job of making these attempts."""
        # The host's own settings but the temperature, which DSPy's BestOfN puts at 1.
        ask = [Generate("sample", None, None, 1, numbers[0], (self._salt + n,), temperature=1.0) for n in numbers]
        return Attempts(self.policy, tuple(ask))

    def scoring(self, pairs: tuple[Pair, ...]) -> Scoring:
        """Return the job of scoring attempts."""
        return Scoring(self._reward, pairs)

    def enter(self, outcomes: Any) -> list[Candidate]:
        """Enter what came of attempts: a completion or an exception each."""
        if isinstance(outcomes, Exception):
            raise outcomes
        new = []
        for outcome in outcomes:
            completion = _as_completion(outcome)
            self.books.spend(completion.usage, 1)
            if completion.failure is not None:
                self._failed(completion.failure.exception, completion.failure)
            new.append(self.books.add(completion, 0, fresh=True, failure=completion.failure))
        return new

    def enter_rewards(self, pairs: tuple[Pair, ...], rewards: Any) -> None:
        """Enter rewards; what could not be scored is a failed attempt."""
        known = {c.index for c in self.books.candidates if c.failure is not None}
        if isinstance(rewards, Exception):
            cause = rewards.__cause__ if isinstance(rewards.__cause__, Exception) else rewards
            for pair in pairs:
                self._failed(cause, Failure("unscored", str(cause), cause))
                self.books.candidates = [_unscored(c, pair, cause) for c in self.books.candidates]
            return
        self.books.enter_rewards(pairs, rewards)
        for candidate in self.books.candidates:
            if candidate.failure is not None and candidate.index not in known:
                self._failed(None, candidate.failure)

    def check(self, allowed: int) -> Search:
        """Raise the first failure beyond those allowed."""
        if len(self._failures) > allowed:
            raise self._failures[allowed]
        return self

    def reached(self, threshold: float | None) -> Candidate | None:
        """Return the first attempt that reaches the threshold, if there is one."""
        good = (c for c in self.books.scored if threshold is not None and (c.reward or 0.0) >= threshold)
        return next(good, None)

    def answer(self, threshold: float | None) -> Any:
        """Return the answer, and leave its steps in the caller's trace.

        Raises:
            Exception: What the last attempt raised, when none succeeded.
        """
        chosen = self.reached(threshold) or self.books.best
        if chosen is None:
            raise self._failures[-1]
        trajectory = self.books.trajectory("stop_at" if self.reached(threshold) else "depth")
        extend_trace(self.policy.steps_of(chosen))
        return with_trajectory(trajectory, chosen)

    def _failed(self, error: BaseException | None, failure: Failure) -> None:
        told = RewardError(f"an attempt came to nothing ({failure.reason}: {failure.message})")
        self._failures.append(error if isinstance(error, Exception) else told)


@dataclass(eq=False)
class Attempts(Ticket[list[Any]]):
    """Several attempts at once; answered with a completion or an exception each."""

    policy: Policy
    requests: tuple[Generate, ...]

    def call(self) -> list[Completion | Exception]:
        """Make them in threads."""
        return each(lambda job: job.call()[0], self._calls, len(self.requests))

    async def acall(self) -> list[Completion | Exception]:
        """Make them in tasks."""

        async def one(job: Call) -> Completion:
            return (await job.acall())[0]

        return await aeach(one, self._calls, len(self.requests))

    @property
    def _calls(self) -> list[Call]:
        return [Call(self.policy, request, request.seeds) for request in self.requests]


def _whole(value: Any) -> str:
    """Write all fields of a prediction: two attempts are the same only if everything is."""
    return render_fields({k: show(v) for k, v in value.items()}) if isinstance(value, dspy.Prediction) else show(value)


def _as_completion(outcome: Completion | Exception) -> Completion:
    if isinstance(outcome, Exception):
        return Completion(failure=Failure("error", f"{type(outcome).__name__}: {outcome}", outcome))
    return outcome


def _unscored(candidate: Candidate, pair: Pair, cause: Exception) -> Candidate:
    if candidate.response != pair.response or candidate.failure is not None:
        return candidate
    return replace(candidate, failure=Failure("unscored", str(cause), cause))
