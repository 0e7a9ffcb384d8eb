"""Optimizers compile a TPO program, its loss, gradient and update prompts with the rest, and it gets better.

The scripted model answers better where its prompt carries the word that a good instruction has, or a worked example.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from tpo_core.rewards import as_reward
from tpo_dspy import TPO
from tpo_langchain import load_prompts

Scripted = Callable[..., dspy.LM]
HINT = "CONCRETELY"
NAMES = ["program.predict", "loss", "gradient", "update"]


def skill(prompt: str, field: str) -> int:
    """Say how well the model was told: 2 for the hint in its instructions, 1 for a worked example."""
    shown = prompt.count(f"[[ ## {field} ## ]]") - 2  # the format's own description, and the reminder at the end
    return 2 * (HINT in prompt) + (shown > 0)


def told(field: str, words: str) -> Any:
    return (field, lambda prompt, number: f"{words} {'well ' * skill(prompt, field)}")


RULES: list[Any] = [
    (
        "improved_answer",
        lambda p, n: f"improved {'good ' * (skill(p, 'improved_answer') + p.count('well'))}{'.' * n}",
    ),
    told("textual_gradient", "rewrite it"),
    told("textual_loss", "it is better"),
    ("answer", lambda p, n: {"reasoning": "r", "answer": f"draft {'good ' * skill(p, 'answer')}{'.' * n}"}),
]


def goodness(prompt: str, response: str) -> tuple[float, str]:
    good = response.count("good")
    return good + len(response) / 1e4, f"It says good only {good} times."


EXAMPLES = [dspy.Example(question=f"question {n}?").with_inputs("question") for n in range(4)]


def metric(reward: Any) -> Any:
    return lambda example, pred, trace=None: math.floor(reward(example, pred))


def mean(program: dspy.Module, reward: Any) -> float:
    evaluate = dspy.Evaluate(devset=EXAMPLES, metric=metric(reward), num_threads=2, display_progress=False)
    return float(evaluate(program).score)


@pytest.fixture
def reward() -> Any:
    return as_reward(goodness)


@pytest.fixture
def refined(scripted: Scripted, reward: Any) -> TPO:
    dspy.configure(lm=scripted(RULES), adapter=None, callbacks=[], track_usage=False, trace=[])
    return TPO(dspy.ChainOfThought("question -> answer"), reward, width=2, depth=1)


def tuned(program: dspy.Module) -> set[str]:
    return {name for name, p in program.named_predictors() if HINT in p.signature.instructions or p.demos}


def check(program: Any, refined: TPO, reward: Any, tmp_path: Any) -> None:
    """A gain, the one reward, and a state that carries both over."""
    gain = mean(program, reward)
    assert gain > mean(refined, reward)
    assert program.reward is refined.reward is reward
    program.save(tmp_path / "tuned.json")
    program.save(tmp_path / "tuned", save_program=True)
    prompts = load_prompts(tmp_path / "tuned.json")
    assert {task: prompt.instructions for task, prompt in prompts.items()} == {
        name: predictor.signature.instructions.split("\n\nThe task that")[0]
        for name, predictor in program.named_predictors()
        if name in ("loss", "gradient", "update")
    }
    for loaded in (refined.reset_copy(), dspy.load(str(tmp_path / "tuned"), allow_pickle=True)):
        loaded.load(tmp_path / "tuned.json")
        loaded.reward = reward
        assert mean(loaded, reward) == gain


def test_bootstrap_few_shot_gives_every_predictor_worked_examples(refined: TPO, reward: Any, tmp_path: Any) -> None:
    optimizer = dspy.BootstrapFewShot(metric=metric(reward), max_bootstrapped_demos=2, max_labeled_demos=0)
    refined.program.predict.signature = refined.program.predict.signature.with_instructions(f"Answer {HINT}.")
    compiled = optimizer.compile(refined, trainset=EXAMPLES)
    demos = {name: len(predictor.demos) for name, predictor in compiled.named_predictors()}
    assert demos == dict.fromkeys(NAMES, 2)
    assert all(demo["augmented"] for p in compiled.predictors() for demo in p.demos)
    check(compiled, refined, reward, tmp_path)


def test_gepa_hears_the_rewards_words_about_each_predictor(
    refined: TPO, reward: Any, tmp_path: Any, scripted: Scripted
) -> None:
    reflection = scripted([("", {"new_instruction": f"Do it {HINT}."})], style="json")
    optimizer = dspy.GEPA(
        metric=reward,
        max_metric_calls=60,
        reflection_lm=reflection,
        reflection_minibatch_size=2,
        num_threads=2,
        perfect_score=100.0,
        component_selector="all",
    )
    compiled = optimizer.compile(refined, trainset=EXAMPLES, valset=EXAMPLES)
    assert tuned(compiled) == set(NAMES)
    assert all(re.search(r"It says good only \d times", prompt) for prompt in reflection.engine.prompts)
    check(compiled, refined, reward, tmp_path)


def test_miprov2_proposes_better_prompts(refined: TPO, reward: Any, tmp_path: Any, scripted: Scripted) -> None:
    pytest.importorskip("optuna", reason="MIPROv2 needs optuna")
    proposals = scripted([("", lambda p, n: dict.fromkeys(_output_fields(p), f"Do it {HINT}."))])
    optimizer = dspy.MIPROv2(
        metric=metric(reward),
        prompt_model=proposals,
        auto=None,
        num_candidates=3,
        max_bootstrapped_demos=0,
        max_labeled_demos=0,
        num_threads=2,
        seed=1,
    )
    compiled = optimizer.compile(refined, trainset=EXAMPLES, valset=EXAMPLES, num_trials=8, minibatch=False)
    assert tuned(compiled) & {"loss", "gradient", "update"}
    check(compiled, refined, reward, tmp_path)


def test_simba_learns_from_its_better_and_worse_runs(
    refined: TPO, reward: Any, tmp_path: Any, scripted: Scripted
) -> None:
    advice = scripted(
        [("module_advice", {"discussion": "so", "module_advice": dict.fromkeys(NAMES, f"Do it {HINT}.")})]
    )
    lm = dspy.settings.lm
    lm.engine.rules[0] = ("improved_answer", lambda p, n: f"improved {'good ' * (p.count('well') + n % 5)}{'.' * n}")
    optimizer = dspy.SIMBA(
        metric=metric(reward), bsize=4, num_candidates=3, max_steps=2, max_demos=1, prompt_model=advice, num_threads=2
    )
    compiled = optimizer.compile(refined, trainset=EXAMPLES, seed=1)
    assert tuned(compiled) == set(NAMES)
    check(compiled, refined, reward, tmp_path)


def _output_fields(prompt: str) -> list[str]:
    outputs = prompt.split("Your output fields are:")[1].split("All interactions")[0]
    return re.findall(r"`(\w+)`", outputs)
