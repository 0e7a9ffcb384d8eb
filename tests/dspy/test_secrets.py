"""Keys of DSPy's language models stand in no error, traceback or record of a refined program."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import dspy
import pytest

import tpo_dspy
from echo import KEY, PASSWORD, TOKEN, check_nothing_leaks, echoing, everything_said
from tpo_core import GenerationError, RewardError
from tpo_core.rewards import JudgeReward

BASES = ["http://WHERE/v1", f"http://me:{quote(PASSWORD, safe='')}@WHERE/v1", f"http://WHERE/v1?key={TOKEN}"]


def lm_at(where: str, base: str) -> dspy.LM:
    headers = {"X-API-Key": KEY, "X-Tier": "tier-canary"}
    base = base.replace("WHERE", where)
    return dspy.LM("openai/smol", api_base=base, api_key=KEY, num_retries=0, extra_headers=headers, cache=False)


def shorter(prompt: Any, response: str) -> float:
    return -len(response)


@pytest.mark.parametrize("base", BASES)
async def test_a_refined_program_leaks_nothing_of_its_language_models(
    base: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with echoing(400) as where, dspy.context(lm=lm_at(where, base)):
        program = tpo_dspy.TPO(dspy.Predict("question -> answer"), shorter, mode="bon", width=2)
        with pytest.raises(GenerationError) as caught:
            program(question="why?")
        with pytest.raises(GenerationError) as acaught:
            await program.acall(question="why?")
        with pytest.raises(Exception) as best:
            tpo_dspy.BestOfN(dspy.Predict("question -> answer"), 2, shorter, 0.0)(question="why?")
    said = [everything_said(error.value) for error in (caught, acaught, best)]
    check_nothing_leaks(*said, repr(program), caplog.text, *capfd.readouterr())


def test_a_language_model_of_a_predictor_s_own_and_a_judge_leak_nothing() -> None:
    with echoing(400) as where:
        predict = dspy.Predict("question -> answer")
        predict.lm = lm_at(where, BASES[0])
        with pytest.raises(GenerationError, match="you sent") as caught:
            tpo_dspy.TPO(predict, shorter, mode="bon", width=2)(question="why?")
        with pytest.raises(RewardError, match="you sent") as judged:
            JudgeReward(lm_at(where, BASES[0])).score("why?", ["a"])
    check_nothing_leaks(everything_said(caught.value), everything_said(judged.value))
