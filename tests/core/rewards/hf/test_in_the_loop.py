"""A reward model of transformers as the reward of whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dspy
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda

import tpo_dspy
from tpo_core import TPOConfig, Trajectory, run, run_many
from tpo_core.rewards import HFRewardModel
from tpo_core.testing import ScriptedPolicy, SimulatedPolicy
from tpo_langchain import RunnableTPO

Build = Callable[..., Path]


def test_the_trajectory_says_which_prompts_were_cut_and_keeps_the_objectives(build: Build) -> None:
    path = build("someone", id2label={0: "harm", 1: "help"}, num_labels=2)
    reward = HFRewardModel(str(path), label="help", max_tokens=120, on_long="middle")
    policy = ScriptedPolicy(
        sample=["Paris", "Lyon", "city " * 200], update=["The capital city is Paris.", "Paris is it."]
    )
    trajectory = run("What is the capital? " * 40, policy, reward, TPOConfig(width=2, depth=1))
    scored = [c for c in trajectory.candidates if c.reward is not None]
    assert scored and all(c.truncated for c in scored)
    assert all(c.heads["help"] == c.reward and set(c.heads) == {"harm", "help"} for c in scored)
    assert Trajectory.from_json(trajectory.to_json()).best.truncated


def test_a_response_that_does_not_fit_costs_only_itself(build: Build) -> None:
    reward = HFRewardModel(str(build("someone")), max_tokens=120)
    policy = ScriptedPolicy(sample=["Paris", "Lyon", "city " * 200], update=["The capital city is Paris.", "Paris."])
    trajectory = run("What is the capital?", policy, reward, TPOConfig(width=3, depth=1))
    (lost,) = [c for c in trajectory.candidates if c.failure is not None and c.response.startswith("city")]
    assert lost.failure is not None and lost.failure.reason == "unscored" and "takes 120" in lost.failure.message
    assert trajectory.best.reward == max(c.reward for c in trajectory.candidates if c.reward is not None)


def test_many_runs_together_score_as_each_alone(build: Build) -> None:
    path = str(build("someone"))
    queries = [f"What is the capital of France? {'system prompt ' * 30}{i}" for i in range(8)]
    together = run_many(queries, SimulatedPolicy(0.5), HFRewardModel(path), TPOConfig(width=3, depth=1))
    lone = HFRewardModel(path, max_prefix_bytes=0)
    for trajectory in together:
        scored = [c for c in trajectory.candidates if c.reward is not None]
        want = lone.score([trajectory.query] * len(scored), [c.response for c in scored])
        assert [c.reward for c in scored] == pytest.approx(want, abs=1e-4)


def test_both_faces_say_which_prompts_were_cut(build: Build) -> None:
    reward = HFRewardModel(str(build("someone")), max_tokens=120, on_long="middle")
    answers = iter(["Paris", "Lyon"] * 2)

    class Says(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=next(answers))

    refined = tpo_dspy.TPO(Says(), reward, width=2, mode="bon", fields=["answer"])
    says = RunnableLambda(lambda question: next(answers))
    chain = RunnableTPO(
        says, reward=reward, llm=FakeListChatModel(responses=["no"]), width=2, mode="bon", return_trajectory=True
    )
    question = "What is the capital? " * 40
    for trajectory in (refined(question=question).trajectory, chain.invoke(question)):
        assert [c.truncated for c in trajectory.candidates if c.reward is not None] == [True, True]
