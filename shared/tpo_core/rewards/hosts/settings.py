"""A reward with settings for hosts, which the loop does not want: thresholds, a map to 0..1, readers, objectives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tpo_core.rewards.hosts.metric import Metric
from tpo_core.values import Pair, Prompt, Reward

__all__ = ["HostMetric"]


class HostMetric(Metric):
    """A reward with a threshold, a map to 0..1 or pickers of its own; ``Metric.as_metric`` makes it."""

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
