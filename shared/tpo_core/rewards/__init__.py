"""Reward models: what an answer is aligned to. Each kind loads its libraries when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpo_core.rewards.base import RewardModel
from tpo_core.values import Pair, Reward

if TYPE_CHECKING:
    from tpo_core.rewards.checks import Check as Check
    from tpo_core.rewards.checks import ChecksReward as ChecksReward
    from tpo_core.rewards.ensemble import EnsembleReward as EnsembleReward
    from tpo_core.rewards.function import FunctionReward as FunctionReward
    from tpo_core.rewards.function import as_reward as as_reward
    from tpo_core.rewards.hf.model import HFRewardModel as HFRewardModel
    from tpo_core.rewards.judge.model import JudgeReward as JudgeReward
    from tpo_core.rewards.penalty import LengthPenalty as LengthPenalty
    from tpo_core.rewards.remote.model import RemoteRewardModel as RemoteRewardModel
    from tpo_core.rewards.verifiable.code import CodeTestsReward as CodeTestsReward
    from tpo_core.rewards.verifiable.schema import JSONSchemaReward as JSONSchemaReward
    from tpo_core.rewards.verifiable.translation import ChrFReward as ChrFReward
    from tpo_core.rewards.verifiable.translation import RoundTripReward as RoundTripReward

__all__ = [
    "Check",
    "ChecksReward",
    "ChrFReward",
    "CodeTestsReward",
    "EnsembleReward",
    "FunctionReward",
    "HFRewardModel",
    "JSONSchemaReward",
    "JudgeReward",
    "LengthPenalty",
    "Pair",
    "RemoteRewardModel",
    "Reward",
    "RewardModel",
    "RoundTripReward",
    "as_reward",
]

_HOMES = {
    "Check": "checks",
    "ChecksReward": "checks",
    "ChrFReward": "verifiable.translation",
    "CodeTestsReward": "verifiable.code",
    "EnsembleReward": "ensemble",
    "FunctionReward": "function",
    "HFRewardModel": "hf.model",
    "JSONSchemaReward": "verifiable.schema",
    "JudgeReward": "judge.model",
    "LengthPenalty": "penalty",
    "RemoteRewardModel": "remote.model",
    "RoundTripReward": "verifiable.translation",
    "as_reward": "function",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tpo_core.rewards.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
