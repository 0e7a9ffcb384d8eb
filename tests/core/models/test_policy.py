"""A policy made of chat models reads samples, critiques and updates alike."""

from __future__ import annotations

from typing import Any

import pytest
from judges import Judge

from tpo_core import ChatPolicy, TPOConfig, run
from tpo_core.prompts.rendering import fence
from tpo_core.rewards import FunctionReward
from tpo_core.values import Completion

LENGTH = FunctionReward(lambda prompt, response: len(response))


def thinking(form: str) -> Judge:
    """Return a model that reasons before each answer, in this form."""

    def answer(shown: str, logprobs: int) -> Completion:
        said = "editing" if "Rewrite" in shown else "judging" if "the response" in shown else "answering"
        return Completion(form.format(f"{said} {'x' * len(chat.shown)}"), finish_reason="stop")

    chat = Judge(answer)
    return chat


@pytest.mark.parametrize("form", ["<think>first, {{x}}</think>\n{}", "first\n</think>\n\n{}", "</think>\n{}"])
def test_reasoning_is_read_away_from_samples_critiques_and_updates(form: str) -> None:
    trajectory = run("hi", ChatPolicy(thinking(form)), LENGTH, TPOConfig(width=2, depth=1))
    texts = [c.response for c in trajectory.candidates] + [trajectory.steps[0].loss, trajectory.steps[0].gradient]
    assert len(texts) == 6 and not trajectory.failures
    assert all(text.split()[0] in ("editing", "judging", "answering") for text in texts)


def test_a_sample_without_reasoning_stays_as_it_was_written() -> None:
    said = "\n  an answer with <response> and </think> inside \n"
    policy = ChatPolicy(Judge(lambda shown, logprobs: Completion(said)))
    assert run("hi", policy, LENGTH, TPOConfig(mode="bon", width=1)).best.response == said


@pytest.mark.parametrize("form", ["<response>\n{}\n</response>", "# Rewrite\n<response>\n{}", "{}\n\n# Query\n{query}"])
def test_what_an_update_repeats_of_its_prompt_is_no_part_of_it(form: str) -> None:
    def answer(shown: str, logprobs: int) -> Any:
        text = "a long and better answer" if "Rewrite" in shown else "answer" + "!" * len(chat.shown)
        return Completion(form.format(text, query=fence("hi", "query")) if "Rewrite" in shown else text)

    chat = Judge(answer)
    assert run("hi", ChatPolicy(chat), LENGTH, TPOConfig(width=2, depth=1)).best.response == "a long and better answer"
