"""A reference that is known at call time: for the reward alone, never for chain, critic or editor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.runnables import Runnable

from tpo_core import InvalidInputError
from tpo_core.pace import Pace
from tpo_core.rewards import FunctionReward, RewardModel
from tpo_core.rewards.concurrency import aeach_sync
from tpo_core.rewards.references import missing_reference
from tpo_core.values import Pair, Reward

if TYPE_CHECKING:
    from tpo_langchain.runnable import RunnableTPO

__all__ = ["Reference", "ReferredReward", "check_reference"]


class Reference:
    """Finds the reference in a chain's input.

    Args:
        pick: The user's ``reference=``: the name of a key, which is then kept from the chain; or a function of the
            input, or a Runnable.
    """

    def __init__(self, pick: Any) -> None:
        """Note where to look."""
        self._pick, self._pace = pick, Pace()

    def told(self, whole: RunnableTPO, given: Any) -> tuple[RunnableTPO, Any]:
        """Return the refiner with its rewards told the reference of this call, and the chain's input.

        Raises:
            InvalidInputError: The input does not have the key.
        """
        if isinstance(self._pick, str):
            known, given = _apart(given, self._pick)
        else:
            known = self._pick.invoke(given) if isinstance(self._pick, Runnable) else self._pick(given)
        return self._telling(whole, known), given

    async def atold(self, whole: RunnableTPO, given: Any) -> tuple[RunnableTPO, Any]:
        """Return as ``told`` does, without blocking."""
        if isinstance(self._pick, str):
            return self.told(whole, given)
        if isinstance(self._pick, Runnable):
            return self._telling(whole, await self._pick.ainvoke(given)), given
        [known] = await aeach_sync(self._pick, [given], 1, self._pace)
        if isinstance(known, Exception):
            raise known
        return self._telling(whole, known), given

    def _telling(self, whole: RunnableTPO, known: Any) -> RunnableTPO:
        called = self._pick if isinstance(self._pick, str) else "reference"
        rewards = {name: reward for name in ("reward", "gold") if (reward := getattr(whole, name)) is not None}
        return whole.model_copy(
            update={name: ReferredReward(reward, known, called) for name, reward in rewards.items()}
        )


def _apart(given: Any, key: str) -> tuple[Any, Any]:
    if not isinstance(given, Mapping) or key not in given:
        raise InvalidInputError(f"reference names the key {key!r}, which the input does not have")
    return given[key], {name: value for name, value in given.items() if name != key}


def check_reference(reward: RewardModel, pick: Any) -> None:
    """Refuse a reward that compares with a reference where none will be known.

    Raises:
        InvalidInputError: It cannot do without, and ``reference=`` is not given.
    """
    if pick is None and isinstance(reward, FunctionReward) and reward.needs_reference:
        raise InvalidInputError(missing_reference(reward.name))


class ReferredReward(RewardModel):
    """A reward model that is told what responses are compared with, for the length of one run."""

    def __init__(self, reward: RewardModel, reference: Any, called: str = "reference") -> None:
        """Wrap a reward; metrics of DSPy's find the reference in their example, as ``called``."""
        self.reward, self.name, self._known = reward, reward.name, {"reference": reference, "reference_name": called}

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score; the checks are the wrapped model's."""
        return self.score_pairs(pairs)

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reference."""
        return self.reward.score_pairs(self._referred(pairs))

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score with the reference, without blocking."""
        return await self.reward.ascore_pairs(self._referred(pairs))

    def _referred(self, pairs: Sequence[Pair]) -> list[Pair]:
        return [replace(pair, **self._known) for pair in pairs]
