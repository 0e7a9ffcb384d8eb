"""A candidate keeps what it was made from: critique, update and reward see that, each candidate its own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tpo_core import TPOConfig, Trajectory, run
from tpo_core.loop.algorithm import tpo_loop
from tpo_core.loop.effects import Gather, Generate, Score
from tpo_core.loop.ledger import Ledger
from tpo_core.rewards import EnsembleReward, FunctionReward
from tpo_core.testing import ScriptedPolicy
from tpo_core.values import Candidate, Completion, Reward

SUNNY = [{"role": "system", "content": "Use the documents."}, {"role": "user", "content": "Document: sunny. Weather?"}]


class Contexts:
    """Feeds a loop samples with contexts; rewards by (context, response)."""

    def __init__(self, *samples: Completion, rewards: dict[Any, float] | None = None) -> None:
        self.samples, self.rewards = list(samples), rewards or {}
        self.asked: list[Generate] = []
        self.scored: list[tuple[Any, str]] = []

    def run(self, query: Any = "Weather?", **settings: Any) -> Trajectory:
        config = TPOConfig(**{"width": len(self.samples), "depth": 1, **settings})
        loop = tpo_loop(Ledger(query, None, config, time.monotonic))
        try:
            effect = next(loop)
            while True:
                effect = loop.send(self.answer(effect))
        except StopIteration as stop:
            return stop.value

    def answer(self, effect: Any) -> Any:
        if isinstance(effect, Gather):
            return [self.answer(e) for e in effect.effects]
        if isinstance(effect, Generate):
            self.asked.append(effect)
            return self.samples if effect.task == "sample" else [Completion(f"{effect.task} text")] * effect.n
        if isinstance(effect, Score):
            self.scored += [(p.prompt, p.response) for p in effect.pairs]
            return [Reward(self.rewards.get(p.prompt, 0.5)) for p in effect.pairs]
        return None

    def shown(self, task: str) -> str:
        return next(r.inputs["query"] for r in self.asked if r.task == task)


def two() -> Contexts:
    return Contexts(
        Completion("It is fine.", context="Document: rain. Weather?"),
        Completion("It is sunny.", context="Document: sun. Weather?"),
        rewards={"Document: rain. Weather?": 0.0, "Document: sun. Weather?": 1.0},
    )


def test_critique_and_update_see_what_the_chosen_answered():
    fed = two()
    fed.run()
    for task in ("loss", "gradient", "update"):
        assert fed.shown(task).startswith("<query>\nDocument: sun. Weather?\n</query>")
    assert "rain" not in fed.shown("gradient") + fed.shown("update")


def test_the_loss_is_shown_what_the_rejected_answered_where_that_differs():
    fed = two()
    fed.run()
    assert fed.shown("loss").endswith("<query_of_rejected>\nDocument: rain. Weather?\n</query_of_rejected>")
    same = Contexts(Completion("a", context="Document"), Completion("bb", context="Document"))
    same.run(mode="revision")
    assert "rejected" not in same.shown("loss")


def test_one_text_made_from_two_contexts_is_scored_for_each_and_keeps_both_rewards():
    fed = Contexts(
        Completion("It is fine.", context="rain"),
        Completion("It is fine.", context="sun"),
        Completion("It is fine.", context="sun"),
        rewards={"rain": 0.0, "sun": 1.0},
    )
    trajectory = fed.run()
    assert fed.scored[:2] == [("rain", "It is fine."), ("sun", "It is fine.")]
    assert trajectory.rewards(0) == (0.0, 1.0, 1.0) and trajectory.best.context == "sun"


def test_an_update_answers_what_its_parent_answered():
    fed = two()
    update = next(c for c in fed.run().candidates if not c.fresh)
    assert update.context == "Document: sun. Weather?" and fed.scored[-1] == (update.context, "update text")


@pytest.mark.parametrize("context", [None, "Weather?", "", " ", [], [{"role": "system", "content": "Be brief."}]])
def test_a_context_that_is_the_query_or_shows_nothing_is_none(context):
    fed = Contexts(Completion("a", context=context), Completion("bb"))
    assert [c.context for c in fed.run(mode="revision").candidates] == [None] * 4
    assert {prompt for prompt, _ in fed.scored} == {"Weather?"}


def test_a_context_is_fenced_and_shortened_like_the_query():
    fed = Contexts(Completion("a", context=f"</query>{'x' * 500}"), Completion("b", context="short"))
    fed.rewards = {f"</query>{'x' * 500}": 1.0}
    fed.run(max_shown_chars=200)
    assert fed.shown("update").startswith("<query-2>\n</query>xxx") and "left out here" in fed.shown("update")


@pytest.mark.parametrize("context", ["Document: rain. Weather?", SUNNY])
def test_contexts_are_written_and_read_back(context):
    trajectory = Trajectory("Weather?", (Candidate("a", "a", reward=1.0, context=context),))
    assert Trajectory.from_json(trajectory.to_json()) == trajectory
    assert trajectory.best.answers("Weather?") == context


def test_the_held_out_reward_sees_the_context_too():
    seen: list[Any] = []
    gold = FunctionReward(lambda prompt, response: seen.append(prompt) or 1.0)
    policy = ScriptedPolicy(sample=[Completion("a", context=SUNNY), Completion("b", context=SUNNY)])
    run("Weather?", policy, lambda prompt, response: 0.5, TPOConfig(width=2, depth=0), gold=gold)
    assert seen == [SUNNY, SUNNY]


def test_an_ensemble_compares_the_candidates_of_a_query_whatever_each_was_made_from():
    ensemble = EnsembleReward([FunctionReward(lambda prompt, response: len(response))] * 2)
    samples = [Completion("a", context="rain"), Completion("bbb", context="sun")]
    trajectory = run("Weather?", ScriptedPolicy(sample=samples), ensemble, TPOConfig(width=2, depth=0))
    assert trajectory.best.response == "bbb" and trajectory.best.reward > trajectory.candidates[0].reward
