"""Worlds whose law is known: policies that follow feedback, ignore it, are harmed by it, and rewards that mislead.

A response is three numbers: its true worth, the reward it gets, and what of that is not worth at all. In units of the
spread of fresh samples, with m the query's own mean:

    fresh sample      worth = m + t                                       t: normal, or Student's with 4 degrees
    update            worth = m + beta (parent's - m) + delta + critique + child
    reward            min(worth, m + ceiling) + noise + the bonus that each update adds

Everything is drawn from the query, the seed and what the prompt shows, so the same requests get the same answers.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tpo_core.loop.effects import Generate, Task
from tpo_core.prompts.rendering import show_query
from tpo_core.rewards.base import RewardModel
from tpo_core.values import Completion, Pair, Prompt, Usage

__all__ = ["TOKENS", "WORLDS", "World", "WorldGold", "WorldPolicy", "WorldReward", "world_mean"]

TOKENS: Mapping[Task, tuple[int, int]] = {
    "sample": (50, 100),
    "loss": (320, 80),
    "gradient": (260, 60),
    "update": (260, 100),
}
"""Prompt and completion tokens of each request."""


@dataclass(frozen=True)
class World:
    """One law of what responses are worth."""

    name: str
    beta: float = 0.0
    """How much of its parent's advantage an update keeps."""
    delta: float = 0.0
    """What an update gains beside that."""
    critique_sd: float = 0.4
    """How much critiques differ: what all updates of one have in common."""
    child_sd: float = 0.6
    """How much updates of one critique differ."""
    heavy: bool = False
    """Whether fresh samples and updates have Student's tails (4 degrees of freedom, variance 1)."""
    ceiling: float = math.inf
    """The highest reward, above the mean of fresh samples."""
    noise: float = 0.0
    """The spread of the reward about the worth."""
    bonus: float = 0.0
    """What every update adds to the reward and not to the worth."""


WORLDS = (
    World("deaf", 0.0, 0.0, 0.0, 1.0),
    World("harmful", 0.3, -0.8),
    World("neutral", 0.8, 0.0, 0.3, 0.4),
    World("follows", 0.95, 0.6, 0.4, 0.5),
    World("ceiling", 0.95, 0.6, 0.4, 0.5, ceiling=2.0),
    World("heavy tails", 0.4, 0.0, 0.4, 0.6, heavy=True),
    World("noisy reward", 0.8, 0.2, 0.4, 0.5, noise=0.6),
    World("hackable reward", 0.8, -0.3, 0.3, 0.4, bonus=0.8),
)
"""The worlds of ``tpo study plans``."""


def world_mean(query: Prompt) -> float:
    """Return m: what a query's fresh samples are worth on average."""
    return _mean_of(show_query(query))


@lru_cache(maxsize=1024)
def _mean_of(query: str) -> float:
    return _draw("mean", query).gauss(0.0, 1.0)


class WorldPolicy:
    """Answers by a world's law.

    Example:
        >>> from tpo_core import TPOConfig, run
        >>> trajectory = run("query", WorldPolicy(WORLDS[3]), WorldReward(WORLDS[3]), TPOConfig(depth=3))
        >>> trajectory.best.step > 0
        True
    """

    fatal: tuple[type[Exception], ...] = ()

    def __init__(self, world: World, seed: int = 0) -> None:
        """Take the law; another seed is another policy."""
        self.world, self._seed = world, seed
        self.takes_n: MutableMapping[Task, bool] = {}

    def generate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer from the prompt and the seed alone."""
        prompt_tokens, completion_tokens = TOKENS[request.task]
        usage = Usage(0, 1, prompt_tokens, completion_tokens)
        return [Completion(self._text(request, seed), finish_reason="stop", usage=usage) for seed in seeds]

    async def agenerate(self, request: Generate, seeds: Sequence[int]) -> list[Completion]:
        """Answer as ``generate`` does."""
        return self.generate(request, seeds)

    def _text(self, request: Generate, seed: int) -> str:
        draw = _draw(self._seed, seed, request.task, request.inputs)
        if request.task == "sample":
            return self._response(world_mean(request.inputs) + self._deviation(draw), 0.0, draw)
        if request.task == "loss":
            return f"critique {draw.gauss(0.0, self.world.critique_sd)!r}"
        if request.task == "gradient":
            return _numbered("critique", request.inputs["critique"])[0]
        return self._update(request.inputs, draw)

    def _update(self, inputs: Mapping[str, str], draw: random.Random) -> str:
        world = self.world
        mean = world_mean("\n".join(inputs["query"].splitlines()[1:-1]))
        worth, _, bonus = _numbers(inputs["chosen_response"])
        critique = float(_numbered("critique", inputs["editing_instructions"])[1])
        kept = mean + world.beta * (worth - mean) + world.delta + critique
        return self._response(kept + world.child_sd * self._deviation(draw), bonus + world.bonus, draw)

    def _deviation(self, draw: random.Random) -> float:
        """Draw a number of mean 0 and variance 1."""
        if not self.world.heavy:
            return draw.gauss(0.0, 1.0)
        return draw.gauss(0.0, 1.0) / math.sqrt(draw.gammavariate(2.0, 2.0) / 4) / math.sqrt(2)

    def _response(self, worth: float, bonus: float, draw: random.Random) -> str:
        return f"{worth!r} {draw.gauss(0.0, self.world.noise)!r} {bonus!r}"


class WorldReward(RewardModel):
    """What a world's reward model sees of a response."""

    def __init__(self, world: World) -> None:
        """Take the law."""
        self.world = world

    def score_batch(self, pairs: Sequence[Pair]) -> list[float]:
        """Grade."""
        return [self._reward(pair) for pair in pairs]

    def _reward(self, pair: Pair) -> float:
        worth, noise, bonus = _numbers(pair.response)
        return min(worth + noise + bonus, world_mean(pair.prompt) + self.world.ceiling)


class WorldGold(WorldReward):
    """What a response is truly worth: to be reported, never optimised."""

    def _reward(self, pair: Pair) -> float:
        return min(_numbers(pair.response)[0], world_mean(pair.prompt) + self.world.ceiling)


def _numbers(text: str) -> tuple[float, float, float]:
    first, second, third = re.findall(r"-?\d[\d.e+-]*", text)[:3]
    return float(first), float(second), float(third)


def _numbered(word: str, text: str) -> tuple[str, str]:
    """Return a word with the number behind it, and the number."""
    found = re.search(rf"{word} (\S+)", text)
    return (found[0], found[1]) if found else (f"{word} 0.0", "0.0")


def _draw(*about: Any) -> random.Random:
    digest = hashlib.blake2b(repr(about).encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big"))
