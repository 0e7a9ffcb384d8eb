"""Run the real loop on a simulated policy without threads: thousands of queries in seconds."""

from __future__ import annotations

import time
from typing import Any

from tpo_core.config import TPOConfig
from tpo_core.loop.algorithm import tpo_loop
from tpo_core.loop.effects import Effect, Gather, Generate, Score
from tpo_core.loop.ledger import Ledger
from tpo_core.models.policy import Policy
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt, Reward

__all__ = ["play"]


def play(query: Prompt, policy: Policy, reward: RewardModel, config: TPOConfig) -> Trajectory:
    """Run one loop whose policy and reward answer at once, and never fail."""
    loop = tpo_loop(Ledger(query, None, config, time.monotonic))
    answer: Any = None
    try:
        while True:
            answer = _answer(loop.send(answer), policy, reward)
    except StopIteration as stop:
        found: Trajectory = stop.value
        return found


def _answer(effect: Effect, policy: Policy, reward: RewardModel) -> Any:
    if isinstance(effect, Generate):
        return policy.generate(effect, effect.seeds)
    if isinstance(effect, Gather):
        return [policy.generate(each, each.seeds) for each in effect.effects]
    if isinstance(effect, Score):
        return [Reward(each) for each in reward.score_batch(effect.pairs)]
    return None
