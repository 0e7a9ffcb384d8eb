"""A reward with settings for hosts, which the loop does not want: thresholds, a map to 0..1, readers, objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.calling import is_number
from tpo_core.rewards.hosts.metric import Metric
from tpo_core.values import Pair, Prompt, Reward

__all__ = ["HostMetric", "SettableMetric"]


class SettableMetric(Metric):
    """A reward that also comes with settings for hosts."""

    def as_metric(
        self,
        *,
        threshold: float | None = None,
        mean: float | None = None,
        scale: float = 1.0,
        prompt: Callable[[Any], Prompt] | None = None,
        response: Callable[[Any], str] | None = None,
        objectives: bool = False,
        name: str | None = None,
    ) -> HostMetric:
        """Return this reward with settings for hosts.

        Args:
            threshold: Answer True or False where a host asks yes or no; compared with the mapped reward.
            mean: Map rewards to 0..1 as ``1 / (1 + exp(-(reward - mean) / scale))``; None leaves them raw. The mean and
                the standard deviation of the rewards of typical answers serve well.
            scale: The width of that map, above 0.
            prompt: Reads the prompt out of the host's example, inputs or arguments.
            response: Reads the response out of the host's prediction or outputs.
            objectives: Answer DSPy with a ``Prediction`` that has the reward's heads as ``objective_scores``, for
                ``dspy.GEPA(..., gepa_kwargs={"frontier_type": "objective"})``.
            name: The key under which hosts file the scores.

        Raises:
            InvalidInputError: ``scale`` is not above 0, or another number is not finite.
        """
        if not (is_number(scale) and scale > 0):
            raise InvalidInputError(f"scale must be a number above 0, not {scale!r}")
        for argument, number in {"mean": mean, "threshold": threshold}.items():
            if number is not None and not is_number(number):
                raise InvalidInputError(f"{argument} must be a number, not {number!r}")
        return HostMetric(
            self,
            threshold=threshold,
            mean=mean,
            scale=scale,
            prompt=prompt,
            response=response,
            objectives=objectives,
            name=name,
        )


class HostMetric(SettableMetric):
    """A reward with a threshold, a map to 0..1 or pickers of its own; ``as_metric`` makes it."""

    def __init__(
        self,
        reward: Metric,
        *,
        threshold: float | None,
        mean: float | None,
        scale: float,
        prompt: Callable[[Any], Prompt] | None,
        response: Callable[[Any], str] | None,
        objectives: bool,
        name: str | None,
    ) -> None:
        self.reward = reward
        self.objectives = objectives
        self.name = name or reward.name
        self.threshold = threshold
        self.mean = mean
        self.scale = scale
        self._prompt = prompt
        self._response = response

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reward behind this."""
        return self.reward.score_pairs(pairs)

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reward behind this, without blocking."""
        return await self.reward.ascore_pairs(pairs)

    def read_prompt(self, inputs: Any, outputs: Any) -> Prompt:
        """Read the prompt with the picker that was given."""
        return self._prompt(inputs) if self._prompt else self.reward.read_prompt(inputs, outputs)

    def read_response(self, outputs: Any) -> str:
        """Read the response with the picker that was given."""
        return self._response(outputs) if self._response else self.reward.read_response(outputs)

    def for_host(self, reward: float) -> float:
        """Map a raw reward to 0..1 where a mean was given: the logistic function of its z-score."""
        if self.mean is None:
            return float(reward)
        return 0.5 * (1.0 + math.tanh((reward - self.mean) / (2.0 * self.scale)))  # the logistic, safe from overflow

    def __deepcopy__(self, memo: dict[int, Any]) -> HostMetric:
        """Stay one object, as the reward does."""
        return self
