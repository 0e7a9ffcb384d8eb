"""The models of a run in Ray actors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tpo_core.cli.run_models import RunModels
from tpo_core.loop.effects import Generate, Task
from tpo_core.records import repr_without_texts
from tpo_core.values import Completion

if TYPE_CHECKING:
    from tpo_core.rewards.base import RewardModel
    from tpo_core.runs import Item

__all__ = ["RayModels", "processors"]

_CARRIED = ("TPO_", "OPENAI_", "LITELLM_", "HF_")
_CARRIED_ENDS = ("_API_KEY", "_API_BASE", "_BASE_URL")
"""Variables of the environment that say where models are and by which key: actors are given them."""


@dataclass(frozen=True)
class _Command:
    """What an actor needs to find what the command names: its arguments, and where it was given."""

    arguments: Mapping[str, Any]
    folder: str
    environment: Mapping[str, str]

    __repr__ = repr_without_texts("folder")  # Ray may log it, and the environment holds keys

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Command:
        names = [n for n in os.environ if n.startswith(_CARRIED) or n.endswith(_CARRIED_ENDS)]
        given = {name: value for name, value in vars(args).items() if not callable(value)}
        return cls(given, os.getcwd(), {name: os.environ[name] for name in names})

    def models(self) -> RunModels:
        """Find them in this process, which is an actor's, and ends with it."""
        os.environ.update(self.environment)
        with suppress(OSError):  # another machine may lack the folder, and nothing may be named by its path
            os.chdir(self.folder)
        return RunModels(argparse.Namespace(**self.arguments), ExitStack())


class _Answering:
    """What the actors that answer hold: a policy for each model that a query may name."""

    def __init__(self, command: _Command) -> None:
        self._models = command.models()
        self.takes_n: MutableMapping[Task, bool] = self._models.answering(None).takes_n
        self._models.load()

    async def agenerate(self, request: Generate, seeds: Sequence[int], model: str | None) -> Sequence[Completion]:
        """Ask."""
        completions: Sequence[Completion] = await self._models.answering(model).agenerate(request, seeds)
        return completions


def _scoring(command: _Command) -> RewardModel:
    """Return what the actors that score hold: a reward model that can score."""
    reward = command.models().reward
    reward.check()
    return reward


class RayModels:
    """Who answers and who scores, in actors; the command's own process makes no call but to find out names.

    Args:
        args: Of the command.
        opened: Ends the actors, and a Ray that was started here.

    Raises:
        InvalidInputError: Ray is not installed, or an option is out of its range.
        ModelError: The cluster cannot be reached, or has no room. What an actor says is wrong is raised, too.
    """

    def __init__(self, args: argparse.Namespace, opened: ExitStack) -> None:
        """Start the actors, and wait until they have found their models."""
        from tpo_core.runs.ray import RayActors, RayReward, connected

        self._here = RunModels(args, opened)
        self.model, self.embedded = self._here.model, self._here.embedded
        command, scoring = _Command.of(args), args.ray_reward_actors
        cpus = processors(args.ray_actors, scoring)
        ray = opened.enter_context(connected(args.ray_address, cpus=cpus))
        room = int(ray.cluster_resources().get("CPU", 1)) - scoring
        gpus = args.ray_reward_gpus
        self._scoring = opened.enter_context(RayActors(partial(_scoring, command), scoring, num_gpus=gpus))
        answering = RayActors(partial(_Answering, command), args.ray_actors or max(1, room), num_cpus=1)
        self._answering = opened.enter_context(answering)
        self.reward: RewardModel = RayReward(self._scoring)
        self._policies: dict[str | None, Any] = {}

    def policy(self, item: Item) -> Any:
        """Return the policy of a query."""
        from tpo_core.runs.ray import RayPolicy

        if (name := self._here.named_by(item)) not in self._policies:
            self._policies[name] = RayPolicy(self._answering, name)
        return self._policies[name]


def processors(answering: int | None, scoring: int) -> int:
    """Return how many processors a Ray on this machine is to count, so that the actors have room."""
    return max(os.cpu_count() or 1, (answering or 1) + scoring)
