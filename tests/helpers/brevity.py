"""A reward that needs nothing, for tests of the hosts that call one."""

from tpo_core.rewards import RewardModel
from tpo_core.values import Reward


class Brevity(RewardModel):
    """Minus the length of the response; refuses to score an empty one."""

    def __init__(self):
        self.name = "brevity"
        self.seen = []

    def score_batch(self, pairs):
        self.seen += pairs
        return [
            Reward(-len(p.response), feedback=f"shorten {p.response!r}", heads={"short": -len(p.response)})
            if p.response
            else Reward(float("nan"), failure="nothing to score")
            for p in pairs
        ]
