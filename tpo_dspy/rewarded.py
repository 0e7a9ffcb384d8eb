"""What a module uses but does not own: its reward and its observer are shared, never copied and never saved."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dspy

from tpo_core.drivers.serving import Observer
from tpo_core.errors import InvalidInputError
from tpo_core.rewards import RewardModel, as_reward
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate

__all__ = ["LostReward", "Outside", "Rewarded", "extend_trace", "with_trajectory", "without_self"]


class LostReward(RewardModel):
    """Stands where a reward was when the program was saved."""

    def __init__(self, name: str) -> None:
        """Remember which reward it was."""
        self.name = name

    def score_batch(self, pairs: Sequence[Any]) -> Sequence[float]:
        """Say what to do.

        Raises:
            InvalidInputError: Always.
        """
        raise InvalidInputError(f"reward {self.name!r} was not saved with the program: set program.reward = ... again")


@dataclass(frozen=True)
class Outside:
    """What a module uses but does not own."""

    reward: RewardModel
    gold: RewardModel | None = None
    on_progress: Observer | None = None

    def check(self) -> None:
        """Raise where the reward was lost.

        Raises:
            InvalidInputError: The program was loaded, and its reward has not been set again.
        """
        if isinstance(self.reward, LostReward):
            self.reward.score_batch(())


class Rewarded(dspy.Module):
    """A module with a reward: copies share it, and whole-program saving leaves it out."""

    _outside: Outside
    _read: Callable[[Any], RewardModel] = staticmethod(as_reward)
    """Makes a reward model of what is given as one."""

    @property
    def reward(self) -> RewardModel:
        """Return the reward model; set it anew after ``dspy.load``."""
        return self._outside.reward

    @reward.setter
    def reward(self, reward: Any) -> None:
        self._outside = replace(self._outside, reward=self._read(reward))

    def __deepcopy__(self, memo: dict[int, Any]) -> Rewarded:
        """Copy the program and the predictors; the reward and the observer stay the same objects."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        memo[id(self._outside)] = self._outside
        new.__setstate__({k: copy.deepcopy(v, memo) for k, v in super().__getstate__().items()})
        return new

    def __copy__(self) -> Rewarded:
        """Copy the module alone."""
        new = type(self).__new__(type(self))
        new.__setstate__(dict(super().__getstate__()))
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what must not be saved."""
        lost = Outside(LostReward(self._outside.reward.name))
        return {**super().__getstate__(), "_outside": lost}


def with_trajectory(trajectory: Trajectory, chosen: Candidate) -> Any:
    """Return a copy of a candidate's Prediction with its reward and the trajectory as attributes.

    They stand beside its fields and not among them. A field of the same name stays what it is (an agent's
    ``trajectory``); ``tpo_trajectory`` is always there. What is no Prediction is returned as it is.
    """
    prediction = chosen.value
    if not isinstance(prediction, dspy.Prediction):
        return prediction
    result = copy.copy(prediction)
    result._store = dict(prediction._store)
    vars(result)["tpo_trajectory"] = trajectory
    for name, value in (("trajectory", trajectory), ("reward", chosen.reward)):
        if name not in result:
            vars(result)[name] = value
    return result


def without_self(module: type[dspy.Module]) -> inspect.Signature:
    """Return the arguments with which a module is made."""
    signature = inspect.signature(module.__init__)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def extend_trace(steps: Sequence[Any]) -> None:
    """Add steps to the caller's trace, within its size."""
    trace, most = dspy.settings.trace, dspy.settings.max_trace_size
    if trace is not None and most > 0:
        trace.extend(steps)
        del trace[:-most]
