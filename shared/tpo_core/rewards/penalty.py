"""A price on length: reward models, judges above all, tend to like long answers for being long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.calling import is_number
from tpo_core.rewards.function import as_reward
from tpo_core.values import Pair, Reward

__all__ = ["LengthPenalty"]


class LengthPenalty(RewardModel):
    """A reward less a price for every word, or character, beyond a free length.

    The form is ``reward - price * max(0, length - free)``. Words are what white space separates; count characters where
    answers are in a language that is written without spaces. ``Reward.heads`` holds
    the reward before the price (``reward``), the ``length``, and whatever heads the reward has. A response that pays is
    told so in its feedback, so that the critic can ask for a shorter one.

    Choose the price in the reward's own units: for a reward model whose scores of good and bad answers differ by 4, a
    ``per_word`` of 0.01 lets 400 words outweigh that difference.

    Args:
        reward: Anything that ``as_reward`` takes.
        per_word: The price of a word; or
        per_character: the price of a character. Give one of the two, above 0.
        free: How many words or characters cost nothing.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: An argument is wrong.

    Example:
        >>> from tpo_core.rewards import FunctionReward
        >>> same = FunctionReward(lambda prompt, response: 1.0)
        >>> LengthPenalty(same, per_word=0.5, free=1).score("q", ["yes", "yes it is"])
        [1.0, 0.0]
    """

    def __init__(
        self,
        reward: Any,
        *,
        per_word: float | None = None,
        per_character: float | None = None,
        free: int = 0,
        name: str | None = None,
    ) -> None:
        if (per_word is None) == (per_character is None):
            raise InvalidInputError("give per_word or per_character, one of them")
        price = per_character if per_word is None else per_word
        if price is None or not (is_number(price) and price > 0):
            raise InvalidInputError(
                f"{'per_character' if per_word is None else 'per_word'} must be above 0, not {price!r}"
            )
        if not (is_number(free) and free >= 0):
            raise InvalidInputError(f"free must be at least 0, not {free!r}")
        self.reward = as_reward(reward)
        self.price = price
        self.free = free
        self.unit = "character" if per_word is None else "word"
        self.name = name or self.reward.name
        self.merges = self.reward.merges  # type: ignore[misc]  # as the reward would have it
        self.merges_up_to = self.reward.merges_up_to

    @property
    def cache_key(self) -> str | None:
        """Return the reward's, with the price; see ``RewardModel``."""
        return made_of("penalty", self.reward.cache_key, price=self.price, free=self.free, unit=self.unit)

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score, then take the price off; see ``RewardModel``."""
        return self._priced(pairs, self.reward.score_pairs(pairs))

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score without blocking, then take the price off."""
        return self._priced(pairs, await self.reward.ascore_pairs(pairs))

    def check(self) -> None:
        """Check the reward."""
        self.reward.check()

    def close(self) -> None:
        """Close the reward."""
        self.reward.close()

    def _priced(self, pairs: Sequence[Pair], rewards: Sequence[Reward]) -> list[Reward]:
        return [self._one(pair.response, reward) for pair, reward in zip(pairs, rewards, strict=True)]

    def _one(self, response: str, reward: Reward) -> Reward:
        length = len(response) if self.unit == "character" else len(response.split())
        over = max(0, length - self.free)
        told = f"It is {length} {self.unit}s long; every {self.unit} beyond {self.free} lowers its reward."
        return Reward(
            reward - self.price * over,
            feedback="\n".join(filter(None, [reward.feedback, told if over else None])) or None,
            heads={**reward.heads, "reward": float(reward), "length": float(length)},
            failure=reward.failure,
            truncated=reward.truncated,
            usage=reward.usage,
        )
