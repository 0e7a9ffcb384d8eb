"""Loss and gradient in one request: the same loop with one wait less a round."""

from __future__ import annotations

from typing import Any

import pytest

from tpo_core import InvalidInputError, TPOConfig, Trajectory
from tpo_core.loop.algorithm import tpo_loop
from tpo_core.loop.effects import Gather, Generate, Score
from tpo_core.loop.ledger import Ledger
from tpo_core.prompts.rendering import render
from tpo_core.prompts.signatures import Instructions, SelfInstructions
from tpo_core.values import Completion, Reward


def play(config: TPOConfig) -> tuple[Trajectory, list[Generate]]:
    """Run a loop whose answers get longer, and whose reward is their length."""
    asked: list[Generate] = []

    def answer(effect: Any) -> Any:
        if isinstance(effect, Gather):
            return [answer(each) for each in effect.effects]
        if isinstance(effect, Generate):
            asked.append(effect)
            return [Completion(f"{effect.task} {'x' * (len(asked) + place)}") for place in range(effect.n)]
        return [Reward(len(pair.response)) for pair in effect.pairs] if isinstance(effect, Score) else None

    loop, told = tpo_loop(Ledger("query", None, config, lambda: 0.0)), None
    try:
        while True:
            told = answer(loop.send(told))
    except StopIteration as stop:
        return stop.value, asked


@pytest.mark.parametrize(("mode", "signature"), [("tpo", Instructions), ("revision", SelfInstructions)])
def test_a_round_asks_for_instructions_and_updates(mode: Any, signature: Any) -> None:
    config = TPOConfig(width=2, depth=2, mode=mode, merged_critique=True)
    trajectory, asked = play(config)
    assert [request.task for request in asked] == ["sample", "loss", "update", "loss", "update"]
    assert asked[1].signature is signature and trajectory.usage.calls == config.samples == 8
    for step in trajectory.steps:
        assert step.loss == "" and step.gradient.startswith("loss x")
    assert trajectory.steps[0].gradient in asked[2].inputs["editing_instructions"]


def test_the_instructions_begin_as_the_update_does() -> None:
    _, (_, critique, update) = play(TPOConfig(width=2, depth=1, merged_critique=True))
    first, second = (render(r.signature, r.inputs)[1]["content"] for r in (critique, update))
    shared = second[: second.index("# Editing instructions")]
    assert critique.inputs["chosen_response"] in shared and first.startswith(shared)


@pytest.mark.parametrize("calls", [3, 4, 5])
def test_no_critique_is_paid_for_that_leaves_no_update(calls: int) -> None:
    trajectory, asked = play(TPOConfig(width=2, depth=2, merged_critique=True, max_calls=calls))
    assert [request.task for request in asked] == ["sample", "loss", "update"][: 1 if calls == 3 else 3]
    assert trajectory.usage.calls <= calls and trajectory.best.response


def test_an_adaptive_plan_critiques_in_one_request_too() -> None:
    _, asked = play(TPOConfig(plan="adaptive", merged_critique=True, max_calls=40))
    assert "gradient" not in {request.task for request in asked}


def test_the_fast_preset_ends_after_a_round_without_a_gain() -> None:
    assert TPOConfig.fast(width=3).merged_critique and TPOConfig.fast(patience=None).patience is None
    with pytest.raises(InvalidInputError, match="merged_critique must be True or False"):
        TPOConfig(merged_critique="yes")  # type: ignore[arg-type]
