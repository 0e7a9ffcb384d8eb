"""BestOfN and Refine: what DSPy's own do, and each fault that was reported of them, absent."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from hanging import hang

import tpo_dspy
from tpo_core import InvalidInputError, RewardError

Scripted = Callable[..., dspy.LM]
BOTH = [tpo_dspy.BestOfN, tpo_dspy.Refine]
ADVICE = {"blame": "self", "advice": {"answer": "Say more."}}
RULES: list[Any] = [
    ("blame", ADVICE),
    ("answer", lambda prompt, number: {"answer": "good " * ("Say more." in prompt) + "d" * number}),
]


class Counted(dspy.Module):
    """Counts its runs, and fails in the first few of them."""

    def __init__(self, failing: int = 0) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")
        self.failing, self.runs = failing, 0
        self.lock = threading.Lock()

    def forward(self, question: str) -> dspy.Prediction:
        with self.lock:
            self.runs += 1
            fails = self.runs <= self.failing
        if fails:
            raise ValueError("deliberately failing")
        return self.answer(question=question)

    async def aforward(self, question: str) -> dspy.Prediction:
        return await self.answer.acall(question=question)


@pytest.fixture(autouse=True)
def lm(scripted: Scripted) -> dspy.LM:
    lm = scripted(RULES)
    dspy.configure(lm=lm, trace=[], adapter=None, callbacks=[], track_usage=False)
    return lm


def length(args: dict[str, Any], pred: dspy.Prediction) -> float:
    assert args == {"question": "why?"}
    return len(pred.answer)


# -- what DSPy's own do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_the_best_of_n_attempts_is_returned_when_none_reaches_the_threshold(kind: Any) -> None:
    module = Counted()
    prediction = kind(module=module, N=3, reward_fn=length, threshold=99.0)(question="why?")
    assert type(prediction) is dspy.Prediction and module.runs == 3
    assert prediction.reward == len(prediction.answer) == max(c.reward for c in prediction.trajectory.candidates)


def test_refine_stops_at_the_first_attempt_that_reaches_the_threshold() -> None:
    module = Counted()
    assert tpo_dspy.Refine(module, 3, length, threshold=1.0)(question="why?").answer == "d"
    assert module.runs == 1


def test_best_of_n_returns_the_first_attempt_that_reaches_the_threshold(scripted: Scripted) -> None:
    prediction = tpo_dspy.BestOfN(Counted(), 4, length, threshold=0.5)(question="why?")
    assert prediction.answer == prediction.trajectory.candidates[0].value.answer
    module = Counted()
    with dspy.context(lm=scripted(RULES)):
        one_by_one = tpo_dspy.BestOfN(module, 4, length, threshold=2.0, max_concurrency=1)
        assert one_by_one(question="why?").answer == "dd"
    assert module.runs == 2


@pytest.mark.parametrize("kind", BOTH)
def test_when_every_attempt_fails_the_failure_is_raised(kind: Any) -> None:
    with pytest.raises(ValueError, match="deliberately"):
        kind(module=Counted(failing=9), N=3, reward_fn=lambda _, __: 1.0, threshold=0.0)(question="why?")


@pytest.mark.parametrize("kind", BOTH)
def test_one_failure_more_than_allowed_is_raised(kind: Any) -> None:
    module = Counted(failing=2)
    with pytest.raises(ValueError, match="deliberately"):
        kind(module=module, N=3, reward_fn=lambda _, __: 1.0, threshold=0.0, fail_count=1)(question="why?")
    if kind is tpo_dspy.Refine:
        assert module.runs == 2
    assert kind(Counted(failing=2), 3, lambda _, __: 1.0, 0.0, fail_count=2)(question="why?").answer


def test_refine_advises_each_predictor_by_name_and_the_answer_gets_better(
    lm: dspy.LM, caplog: pytest.LogCaptureFixture
) -> None:
    prediction = tpo_dspy.Refine(Counted(), 2, length, threshold=99)(question="why?")
    assert not caplog.records  # DSPy warns of an int where a float is said
    assert prediction.answer.startswith("good ")
    asked = next(p for p in lm.engine.prompts if "`blame`" in p)
    assert "def length" in asked and "class Counted" in asked and "Instructions: Given the fields" in asked


# -- what was reported -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_10312_the_failure_budget_is_each_calls_own(kind: Any) -> None:
    module = Counted(failing=12)
    best = kind(module, 3, lambda _, __: 1.0, 0.0)
    before = {k: v for k, v in vars(best).items() if k != "history"}
    for _ in range(4):
        with pytest.raises(ValueError, match="deliberately"):
            best(question="why?")
    module.failing = 14
    assert best(question="why?").answer and best.fail_count == 3
    assert {k: v for k, v in vars(best).items() if k != "history"} == before
    assert kind(Counted(failing=1), 3, lambda _, __: 1.0, 0.0, fail_count=0).fail_count == 0


@pytest.mark.parametrize("kind", BOTH)
async def test_9235_it_can_be_awaited_and_so_can_its_reward(kind: Any) -> None:
    async def reward(args: dict[str, Any], pred: dspy.Prediction) -> float:
        await asyncio.sleep(0)
        return len(pred.answer)

    prediction = await kind(Counted(), 2, reward, 99.0).acall(question="why?")
    assert prediction.reward == len(prediction.answer)


def test_9252_the_rewards_words_reach_the_advice(lm: dspy.LM) -> None:
    def reward(args: dict[str, Any], pred: dspy.Prediction) -> tuple[float, str]:
        return len(pred.answer), "It names no source."

    tpo_dspy.Refine(Counted(), 2, reward, 99.0)(question="why?")
    assert "It names no source." in next(p for p in lm.engine.prompts if "`blame`" in p)


@pytest.mark.parametrize("kind", BOTH)
def test_9239_the_winning_score_is_on_the_result(kind: Any) -> None:
    prediction = kind(Counted(), 2, length, 99.0)(question="why?")
    assert prediction.reward == len(prediction.answer) and prediction.keys() == ["answer"]


def test_8661_attempts_can_be_scored_against_each_other() -> None:
    seen: list[int] = []

    def ranked(prompts: list[str], responses: list[str]) -> list[float]:
        seen.append(len(responses))
        return [sorted(responses, key=len).index(r) / len(responses) for r in responses]

    prediction = tpo_dspy.BestOfN(Counted(), 4, ranked, threshold=None)(question="why?")
    assert seen == [4] and prediction.reward == 0.75 and prediction.answer == "dddd"


def test_8745_each_call_draws_anew_unless_it_is_to_be_replayed(lm: dspy.LM) -> None:
    best, replayed = (tpo_dspy.BestOfN(Counted(), 3, length, 99.0, replay=replay) for replay in (False, True))
    assert best(question="why?").answer != best(question="why?").answer
    assert len({p.answer for p in (replayed(question="why?") for _ in range(2))}) == 1
    assert len(lm.engine.requests) == 9


def test_10456_an_explicit_temperature_of_zero_is_kept(lm: dspy.LM) -> None:
    tpo_dspy.BestOfN(dspy.Predict("question -> answer", temperature=0.0), 2, length, 99.0)(question="why?")
    tpo_dspy.BestOfN(dspy.Predict("question -> answer"), 2, length, 99.0)(question="why?")
    assert [r.config.temperature for r in lm.engine.requests] == [0.0, 0.0, 1.0, 1.0]


# -- faults seen in its source -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_a_nan_reward_is_never_chosen_and_never_turns_into_none(kind: Any) -> None:
    def sometimes(args: Any, pred: dspy.Prediction) -> float:
        return math.nan if pred.answer == "d" else 1.0

    assert kind(Counted(), 2, sometimes, 99.0)(question="why?").reward == 1.0
    with pytest.raises(RewardError, match="nan"):
        kind(Counted(), 2, lambda args, pred: math.nan, 99.0)(question="why?")


@pytest.mark.parametrize("kind", BOTH)
def test_a_reward_that_raises_costs_one_attempt(kind: Any) -> None:
    def picky(args: Any, pred: dspy.Prediction) -> float:
        if pred.answer == "d":
            raise KeyError("no score for this one")
        return 1.0

    assert kind(Counted(), 2, picky, 99.0)(question="why?").reward == 1.0
    with pytest.raises(ZeroDivisionError):
        kind(Counted(), 2, lambda args, pred: 1 / 0, 99.0)(question="why?")


@pytest.mark.parametrize("kind", BOTH)
def test_predictors_with_different_lms_work(kind: Any, scripted: Scripted) -> None:
    class Two(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = dspy.Predict("question -> answer")
            self.second = dspy.Predict("question -> answer")
            self.first.lm, self.second.lm = scripted(RULES), scripted(RULES)

        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=self.first(question=question).answer + self.second(question=question).answer)

    module = Two()
    assert kind(module, 2, length, 99.0)(question="why?").reward >= 3
    assert len(module.first.lm.engine.requests) == 2


def test_advice_tells_predictors_of_equal_signatures_apart(lm: dspy.LM, scripted: Scripted) -> None:
    class Twice(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = dspy.Predict("question -> answer")
            self.second = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            first = self.first(question=question).answer
            return dspy.Prediction(answer=first, last=self.second(question=question).answer)

    advice = {"blame": "second", "advice": {"second": "Say more."}}
    with dspy.context(lm=scripted([("blame", advice), *RULES[1:]]), trace=[]):
        prediction = tpo_dspy.Refine(Twice(), 2, lambda args, pred: len(pred.last), 99.0)(question="why?")
        inputs = [step[1] for step in dspy.settings.trace]
    assert not prediction.answer.startswith("good") and prediction.last.startswith("good")
    assert inputs == [{"question": "why?"}] * 2  # no hint is left in the trace


def test_a_reward_and_a_module_without_source_are_no_obstacle() -> None:
    names: dict[str, Any] = {"dspy": dspy}
    exec(
        "class Typed(dspy.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.answer = dspy.Predict('question -> answer')\n"
        "    def forward(self, question):\n        return self.answer(question=question)\n"
        "def reward(args, pred):\n    return len(pred.answer)\n",
        names,
    )
    assert tpo_dspy.Refine(names["Typed"](), 2, names["reward"], 99.0)(question="why?").answer.startswith("good")


@pytest.mark.parametrize("kind", BOTH)
def test_programs_are_saved_without_their_reward(kind: Any, tmp_path: Any) -> None:
    best = kind(dspy.Predict("question -> answer"), 2, length, 99.0)
    best.save(tmp_path / "program", save_program=True)
    loaded = dspy.load(str(tmp_path / "program"), allow_pickle=True)
    with pytest.raises(InvalidInputError, match=r"set program\.reward"):
        loaded(question="why?")
    loaded.reward = length
    assert loaded(question="why?").reward > 0 and best.deepcopy().reward is best.reward


def test_the_trajectory_counts_attempts_and_advice() -> None:
    usage = tpo_dspy.Refine(Counted(), 3, length, 99.0)(question="why?").trajectory.usage
    assert usage.calls == usage.requests == 5 and usage.prompt_tokens == 50


@pytest.mark.parametrize("kind", BOTH)
def test_a_trace_may_be_off(kind: Any) -> None:
    with dspy.context(trace=None):
        assert kind(Counted(), 2, length, 99.0)(question="why?").answer


def test_optimizers_find_the_predictors_of_the_best_attempt() -> None:
    best = tpo_dspy.BestOfN(Counted(), 3, length, 99.0)
    compiled = dspy.BootstrapFewShot(metric=lambda e, p, t=None: True, max_labeled_demos=0).compile(
        best, trainset=[dspy.Example(question="why?").with_inputs("question")]
    )
    assert [(name, len(p.demos)) for name, p in compiled.named_predictors()] == [("module.answer", 1)]
    refine = tpo_dspy.Refine(Counted(), 2, length, 99.0)
    assert [name for name, _ in refine.named_predictors()] == ["module.answer", "feedback"]


def test_attempts_run_at_once(scripted: Scripted) -> None:
    barrier = threading.Barrier(4, timeout=5)

    def together(prompt: str, number: int) -> dict[str, Any]:
        barrier.wait()
        return {"answer": "d" * number}

    with dspy.context(lm=scripted([("answer", together)])):
        assert tpo_dspy.BestOfN(Counted(), 4, length, 99.0)(question="why?").reward == 4


def test_threads_share_one_object_without_disturbing_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    best = tpo_dspy.BestOfN(Counted(), 2, lambda _, pred: len(pred.answer), 99.0)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: best(question=f"{n}?"), range(8)))
    assert all(a.reward == len(a.answer) for a in answers) and capsys.readouterr().out == ""


# -- the engine's budgets, gold and observer -------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "asked", "attempts"), [(tpo_dspy.BestOfN, 4, 4), (tpo_dspy.Refine, 4, 2)])
def test_max_calls_counts_attempts_and_advice(kind: Any, asked: int, attempts: int, lm: dspy.LM) -> None:
    trajectory = kind(Counted(), 8, length, 99.0, max_calls=4)(question="why?").trajectory
    assert trajectory.usage.calls <= asked and len(lm.engine.requests) <= asked
    assert len(trajectory.candidates) >= attempts


@pytest.mark.parametrize("budget", range(1, 8))
def test_refine_never_asks_for_more_than_max_calls_and_spends_the_last_on_an_attempt(budget: int, lm: dspy.LM) -> None:
    trajectory = tpo_dspy.Refine(Counted(), 9, length, 99.0, max_calls=budget)(question="why?").trajectory
    assert trajectory.usage.calls == len(lm.engine.requests) == budget and trajectory.stop_reason == "max_calls"
    assert len(trajectory.candidates) == budget // 2 + 1


def test_max_tokens_starts_no_further_attempt() -> None:
    best = tpo_dspy.BestOfN(Counted(), 9, length, 99.0, max_concurrency=1, max_tokens=25)
    trajectory = best(question="why?").trajectory
    assert trajectory.stop_reason == "max_tokens" and len(trajectory.candidates) < 9


@pytest.mark.parametrize("kind", BOTH)
def test_a_deadline_ends_with_the_best_so_far(kind: Any, scripted: Scripted) -> None:
    release = threading.Event()
    rules = [("blame", ADVICE), ("answer", lambda _, number: {"answer": "d"} if number == 1 else hang(release))]
    try:
        with dspy.context(lm=scripted(rules)):
            prediction = kind(Counted(), 2, length, 99.0, deadline=1.0)(question="why?")
    finally:
        release.set()
    assert prediction.answer == "d" and prediction.reward == 1.0


@pytest.mark.parametrize("kind", BOTH)
def test_gold_is_reported_and_the_observer_is_told(kind: Any) -> None:
    told: list[str] = []
    best = kind(
        Counted(), 2, length, None, gold=lambda args, pred: -len(pred.answer), on_progress=lambda p: told.append(p.kind)
    )
    prediction = best(question="why?")
    best_gold = prediction.trajectory.gold[prediction.trajectory.best.index]
    assert best_gold == -prediction.reward and told[0] == "scored" and told[-1] == "stopped"


@pytest.mark.parametrize("kind", BOTH)
def test_what_an_attempt_raised_carries_the_trajectory(kind: Any) -> None:
    with pytest.raises(ValueError, match="deliberately") as caught:
        kind(Counted(failing=9), 3, length, 0.0, fail_count=0)(question="why?")
    assert caught.value.trajectory.candidates[0].failure is not None  # type: ignore[attr-defined]


@pytest.mark.parametrize("threshold", [math.inf, math.nan])
def test_a_threshold_that_no_reward_reaches_takes_the_best(threshold: float) -> None:
    assert tpo_dspy.BestOfN(Counted(), 3, length, threshold)(question="why?").reward == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"module": "question -> answer"}, "module"),
        ({"N": 0}, "N"),
        ({"fail_count": -1}, "fail_count"),
        ({"reward_fn": 3}, "reward"),
        ({"threshold": "high"}, "threshold"),
        ({"max_calls": 0}, "max_calls"),
        ({"deadline": -1}, "deadline"),
        ({"gold": 3}, "reward"),
    ],
)
@pytest.mark.parametrize("kind", BOTH)
def test_bad_arguments_are_named(kind: Any, arguments: dict[str, Any], named: str) -> None:
    good: dict[str, Any] = {"module": Counted(), "N": 2, "reward_fn": length, "threshold": 1.0}
    with pytest.raises(InvalidInputError, match=named):
        kind(**{**good, **arguments})
