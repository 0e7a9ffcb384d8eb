"""Settings as keyword arguments, and what hosts call by other names."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import dspy
import pytest

import tpo_dspy
from tpo_core import InvalidInputError, TPOConfig, Trajectory, arun, arun_many, arun_stream, run, run_many, run_stream
from tpo_core.testing import ScriptedPolicy


def longer(prompt: str, response: str) -> float:
    return len(response)


def policy() -> ScriptedPolicy:
    return ScriptedPolicy(sample=["a", "bb", "ccc"], update=["dddd"])


async def streamed(*args: Any, **kwargs: Any) -> list[Trajectory]:
    return [trajectory async for _, trajectory in arun_stream(*args, **kwargs)]


def test_every_run_takes_fields_of_the_config_as_arguments_beside_it() -> None:
    config = TPOConfig(width=3, depth=1)
    made = [
        run("q", policy(), longer, config, width=2),
        asyncio.run(arun("q", policy(), longer, config, width=2)),
        *run_many(["q"], policy(), longer, config, width=2),
        *asyncio.run(arun_many(["q"], policy(), longer, config, width=2)),
        *(trajectory for _, trajectory in run_stream(["q"], policy(), longer, config, width=2)),
        *asyncio.run(streamed(["q"], policy(), longer, config, width=2)),
    ]
    assert [len(t.rewards(0)) for t in made] == [2] * 6 and {len(t.steps) for t in made} == {1}
    assert config.width == 3 and [step.step for step in made[0].steps] == [1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"widht": 2}, "unknown argument widht; did you mean width"),
        ({"metric": longer}, "metric is called reward here"),
        ({"reward_fn": longer}, "reward_fn is called reward here"),
        ({"zzz": 1}, "the settings are mode"),
        ({}, "reward must be a RewardModel"),
    ],
)
def test_what_is_no_setting_is_refused_with_what_may_be_meant(given: dict[str, Any], said: str) -> None:
    reward = {} if not given or longer in given.values() else {"reward": longer}
    with pytest.raises(InvalidInputError, match=said):
        run("q", policy(), **reward, **given)
    with pytest.raises(InvalidInputError, match=said):
        run_stream(["q"], policy(), **reward, **given)
    with pytest.raises(InvalidInputError, match=said):
        tpo_dspy.TPO(dspy.Predict("question -> answer"), **reward, **given)


@pytest.mark.parametrize("module", [tpo_dspy.TPO, tpo_dspy.BestOfN, tpo_dspy.Refine])
def test_help_shows_the_arguments_of_a_module(module: type[dspy.Module]) -> None:
    names = list(inspect.signature(module).parameters)
    assert "self" not in names and ({"program", "reward"} <= set(names) or {"module", "reward_fn"} <= set(names))
