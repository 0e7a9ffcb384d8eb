"""What is made of answers: checks by published code, refusals by a judge, the share of wins against best-of-N."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from benchmark_rows import ROWS
from hypothesis import given
from hypothesis import strategies as st

from tpo_core.errors import ModelError
from tpo_core.models.openai_chat import OpenAIChat
from tpo_core.studies.benchmarks.against import Sample, win_rates
from tpo_core.studies.benchmarks.checkers import Verdict, ifeval, math
from tpo_core.studies.benchmarks.refusals import Asked, RefusalJudge
from tpo_core.studies.benchmarks.scores import Scores

HALVES, SQUARE = ROWS["math-500"]
OAK, LOWER = ROWS["ifeval"]


@pytest.mark.parametrize(
    ("row", "response", "value"),
    [
        (HALVES, "So it is $\\boxed{\\frac{10}{12}}$.", 1.0),
        (HALVES, "So it is $\\boxed{\\frac{6}{5}}$.", 0.0),
        (SQUARE, "The answer is \\boxed{2}", 1.0),
        (SQUARE, "I cannot tell.", 0.0),
        (SQUARE, "", 0.0),
    ],
)
def test_math_is_right_where_the_final_answer_equals_the_known_one(row: dict[str, Any], response: str, value: float):
    assert math(row, response) == Verdict(value)


ifevals = pytest.mark.skipif(sys.version_info < (3, 11), reason="if-verifiable needs Python 3.11")


@ifevals
def test_ifeval_needs_every_check_and_counts_each():
    found = ifeval(OAK, "An oak is a tree and no oak is small")
    assert found.value == 1.0 and found.parts["instructions"] == 1.0 and found.parts["checks"] == 2
    found = ifeval(OAK, "An oak, a tree. An oak again.")
    assert found.value == 0.0 and found.parts["instructions"] == 0.5
    assert (
        ifeval(LOWER, "this is an answer in lowercase letters of the english language").value == 1.0
        and ifeval(LOWER, "").value == 0.0
    )
    assert ifeval(OAK, "Sure, here it is:\nan oak and an oak").parts["loose"] == 1.0  # without its first line


@ifevals
def test_a_check_that_needs_data_of_nltk_or_is_unknown_leaves_the_prompt_out(monkeypatch: pytest.MonkeyPatch):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    sentences = {"num_sentences": 3, "relation": "at least"}
    row = {**OAK, "instruction_id_list": ["length_constraints:number_sentences"], "kwargs": [sentences]}
    found = ifeval(row, "One. Two. Three.")
    assert found.value is None and "python -m nltk.downloader" in found.left_out
    found = ifeval({**OAK, "instruction_id_list": ["mood:happy"], "kwargs": [{}]}, "Yes")
    assert found.value is None and found.left_out


def judged(url: str, model: str, form: Any = None) -> dict[str, Verdict]:
    safe, unsafe = ROWS["xstest"]
    asked = [Asked(r["label"], r, r["prompt"], f"No: {r['prompt']}") for r in (safe, unsafe)]

    async def all_of() -> dict[str, Verdict]:
        judge = RefusalJudge(OpenAIChat(model, api_base=url, api_key="none", max_retries=0), form)
        return {each.id: verdict async for each, verdict in judge.judge(asked)}

    return asyncio.run(all_of())


def test_wildguard_is_asked_in_its_own_words_and_its_labels_read(loopback):
    def answer(request: dict[str, Any], number: int) -> str:
        [message] = request["messages"]
        refused = "yes" if "harm a dog" in message["content"] else "no"
        return f"Harmful request: {refused}\nResponse refusal: {refused}\nHarmful response: no"

    server = loopback(answer)
    found = judged(server.url, "allenai/wildguard")
    assert found == {
        "safe": Verdict(1.0, {"refusal, safe": 0.0}),
        "unsafe": Verdict(1.0, {"refusal, unsafe": 1.0}),
    }
    sent = server.requests[0]["messages"][0]["content"]
    assert sent.startswith("[INST] You are a classifier") and sent.endswith("---\n\nAnswers: [/INST]")
    assert "\n\nHuman user:\nHow do I" in sent and "\n\nAI assistant:\nNo: How do I" in sent


@pytest.mark.parametrize(("said", "safe", "unsafe"), [("REFUSAL", 0.0, 1.0), ("Compliance.", 1.0, 0.0)])
def test_any_chat_model_may_judge_in_a_word(loopback, said: str, safe: float, unsafe: float):
    found = judged(loopback(lambda request, number: said).url, "smol")
    assert (found["safe"].value, found["unsafe"].value) == (safe, unsafe)


@pytest.mark.parametrize("model", ["wildguard", "smol"])
def test_a_judge_that_answers_something_else_gives_no_score_but_its_words(loopback, model: str):
    found = judged(loopback(lambda request, number: "Who knows?").url, model)
    assert all(each.value is None and "'Who knows?'" in each.left_out for each in found.values())


def test_a_judge_that_cannot_be_reached_ends_the_scoring():
    with pytest.raises(ModelError):
        judged("http://127.0.0.1:9/v1", "wildguard")


def test_scores_are_kept_for_the_answer_they_were_made_for(tmp_path: Path):
    Scores(tmp_path, "math").add("a", "one", Verdict(1.0, {"x": 0.5}))
    with (tmp_path / "scores-math.jsonl").open("a") as file:
        file.write('{"id": "b", "val')  # a process that was killed
    scores = Scores(tmp_path, "math")
    scores.add("b", "two", Verdict(None, left_out="why"))
    again = Scores(tmp_path, "math")
    assert again.get("a", "one") == Verdict(1.0, {"x": 0.5}) and again.get("b", "two") == Verdict(None, left_out="why")
    assert again.get("a", "other") is None and again.get("c", "one") is None


def test_scores_of_another_judge_count_as_none(tmp_path: Path):
    Scores(tmp_path, "refusal", "one").add("a", "text", Verdict(1.0))
    assert Scores(tmp_path, "refusal", "two").get("a", "text") is None
    assert Scores(tmp_path, "refusal").get("a", "text") == Verdict(1.0) and Scores(tmp_path, "refusal").by == "one"


few = st.floats(-2, 2).map(lambda x: round(x))


@given(few, st.lists(st.tuples(few, few), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
def test_win_rates_are_those_over_all_choices_of_n(answer: float, drawn: list[tuple[float, float]]):
    samples = [Sample(*pair) for pair in drawn]
    found = win_rates({"q": answer}, {"q": samples}, len(samples))
    for n, mean in enumerate(found, 1):
        best = [max(some).worth for some in itertools.combinations(samples, n)]
        wins = fmean(1.0 if answer > worth else 0.5 if answer == worth else 0.0 for worth in best)
        assert mean.mean == pytest.approx(wins)
