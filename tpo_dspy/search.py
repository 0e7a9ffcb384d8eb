"""One call of BestOfN or Refine: its attempts as samples of the loop in mode ``bon``, and what their failures cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import dspy

from tpo_core.config import TPOConfig
from tpo_core.drivers.mlflow_span import note_outcome
from tpo_core.drivers.serving import Observer
from tpo_core.errors import RewardError
from tpo_core.loop.effects import Generate, Progress
from tpo_core.masking import masked
from tpo_core.prompts.rendering import render_fields
from tpo_core.rewards import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate, Completion, Pair, Reward
from tpo_dspy.callbacks import Rounds, ScoreInRound
from tpo_dspy.fields import show
from tpo_dspy.policy import Modules, ProgramPolicy
from tpo_dspy.programs import predictors_of
from tpo_dspy.rewarded import Outside, extend_trace, with_trajectory
from tpo_dspy.stream import observer

__all__ = ["AttemptPolicy", "Search"]


class AttemptPolicy(ProgramPolicy):
    """Answers each request for a sample with one run of the module."""

    def __init__(self, module: dspy.Module, inputs: dict[str, Any], rounds: Rounds, *, replay: bool) -> None:
        """Take what one call was given; ``replay`` numbers the attempts from 0, for DSPy's cache."""
        last = (predictors_of(module) or [None])[-1]
        shape: Any = SimpleNamespace(response=_whole, context={})
        self.lm = getattr(last, "lm", None)
        super().__init__(Modules(module, shape, None, None, None, lm=self.lm, forgiving=False), inputs, rounds)
        self.inputs = inputs
        self.attempts: list[Candidate] = []
        """The attempts so far, in order, with their rewards."""
        self._salt = 0 if replay else random.SystemRandom().getrandbits(48)

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run the module once."""
        return _parsed(super().generate(request, self._salted(seeds)))

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Run the module once, without blocking."""
        return _parsed(await super().agenerate(request, self._salted(seeds)))

    def _salted(self, seeds: Sequence[int]) -> list[int]:
        return [self._salt + seed for seed in seeds]


class Search:
    """One call: the driver's arguments, the failures that are allowed, and the answer.

    Args:
        policy: Makes the attempts.
        rounds: Of the call.
        outside: Reward, gold reward and observer.
        config: Of the loop; its ``width`` is the most attempts.
        fail_count: Failed attempts that are allowed.
        max_concurrency: Most requests at once.
    """

    def __init__(
        self,
        policy: AttemptPolicy,
        rounds: Rounds,
        outside: Outside,
        config: TPOConfig,
        fail_count: int,
        max_concurrency: int,
    ) -> None:
        """Prepare the call; nothing is asked yet."""
        inputs = policy.inputs
        query = render_fields({k: show(v) for k, v in inputs.items()}) if inputs else ""
        self._policy, self._rounds, self._config, self._fail_count = policy, rounds, config, fail_count
        self._told = outside.on_progress
        self._reward = _ScoreAttempts(outside.reward, rounds)
        self._failures: list[Exception] = []
        self.args = (query, policy, self._reward, config)
        self.kwargs: dict[str, Any] = {
            "inputs": dspy.Example(inputs).with_inputs(*inputs),
            "gold": None if outside.gold is None else ScoreInRound(outside.gold, rounds),
            "max_concurrency": max_concurrency,
        }

    def observer(self, *, sync: bool) -> Observer | None:
        """Return what counts the failures, and tells the callbacks, a stream that listens and the user's function."""
        return observer(self._note, self._told, sync=sync)

    def answer(self, trajectory: Trajectory) -> Any:
        """Return the first attempt that reaches the threshold, else the best; its steps go to the caller's trace."""
        mark = self._config.stop_at
        reached = (c for c in trajectory.candidates if mark is not None and c.reward is not None and c.reward >= mark)
        chosen = next(reached, trajectory.best)
        extend_trace(self._policy.steps_of(chosen))
        note_outcome(trajectory)
        return with_trajectory(trajectory, chosen)

    def _note(self, progress: Progress) -> None:
        """Take what came of attempts.

        Raises:
            Exception: What the first failed attempt beyond those allowed raised, or the last when all N have failed.
        """
        self._rounds.note(progress)
        if progress.kind != "scored":
            return
        self._policy.attempts += progress.candidates
        self._failures += [self._error(c) for c in progress.candidates if c.failure is not None]
        if len(self._failures) > self._fail_count:
            raise self._failures[self._fail_count]
        if progress.best is None and len(self._failures) >= self._config.width:
            raise self._failures[-1]

    def _error(self, candidate: Candidate) -> Exception:
        failure = candidate.failure
        assert failure is not None
        error = failure.exception or self._reward.raised.get(candidate.response)
        if isinstance(error, Exception):
            return error
        return RewardError(f"an attempt came to nothing ({failure.reason}: {failure.message})")


class _ScoreAttempts(ScoreInRound):
    """A reward model whose error costs the attempts that it was to score, and no more."""

    def __init__(self, reward: RewardModel, rounds: Rounds) -> None:
        super().__init__(reward, rounds)
        self.raised: dict[str, Exception] = {}
        """What was raised instead of a reward, by response."""

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        try:
            return super().score_pairs(pairs)
        except Exception as error:  # noqa: BLE001 - `fail_count` decides what it costs
            return self._unscored(pairs, error)

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        try:
            return await super().ascore_pairs(pairs)
        except Exception as error:  # noqa: BLE001 - `fail_count` decides what it costs
            return self._unscored(pairs, error)

    def _unscored(self, pairs: Sequence[Pair], error: Exception) -> list[Reward]:
        cause = masked(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        self.raised |= dict.fromkeys((pair.response for pair in pairs), cause)
        return [Reward(float("nan"), failure=f"{type(cause).__name__}: {cause}") for _ in pairs]


def _parsed(completions: Sequence[Completion]) -> list[Completion]:
    """Leave out why a completion ended: an attempt whose fields could be read counts, also where it was cut off."""
    return [replace(completion, finish_reason=None) for completion in completions]


def _whole(value: Any) -> str:
    """Write all fields of a prediction: two attempts are the same only if everything is."""
    return render_fields({k: show(v) for k, v in value.items()}) if isinstance(value, dspy.Prediction) else show(value)
