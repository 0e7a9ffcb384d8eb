"""Test-Time Preference Optimization (arXiv:2501.12895): the shared engine of the DSPy and LangChain plugins."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tpo_core.config import TPOConfig
from tpo_core.config.experience import Experience
from tpo_core.errors import (
    GenerationError,
    InvalidInputError,
    ModelError,
    RewardError,
    StoreError,
    TPOError,
    UnsupportedError,
)
from tpo_core.loop.effects import Progress
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate, Failure, Step, Usage

if TYPE_CHECKING:
    from tpo_core.drivers.run import arun, arun_many, run, run_many
    from tpo_core.drivers.stream import arun_stream, run_stream
    from tpo_core.models.litellm_chat import LiteLLMChat
    from tpo_core.models.openai_chat import OpenAIChat
    from tpo_core.models.policy import ChatPolicy

__all__ = [
    "Candidate",
    "ChatPolicy",
    "Experience",
    "Failure",
    "GenerationError",
    "InvalidInputError",
    "LiteLLMChat",
    "ModelError",
    "OpenAIChat",
    "Progress",
    "RewardError",
    "Step",
    "StoreError",
    "TPOConfig",
    "TPOError",
    "Trajectory",
    "UnsupportedError",
    "Usage",
    "arun",
    "arun_many",
    "arun_stream",
    "run",
    "run_many",
    "run_stream",
]

_HOMES = {  # loaded when first used: they bring dspy along
    "ChatPolicy": "models.policy",
    "LiteLLMChat": "models.litellm_chat",
    "OpenAIChat": "models.openai_chat",
    "arun": "drivers.run",
    "arun_many": "drivers.run",
    "arun_stream": "drivers.stream",
    "run": "drivers.run",
    "run_many": "drivers.run",
    "run_stream": "drivers.stream",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"tpo_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
