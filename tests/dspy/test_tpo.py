"""tpo_dspy.TPO around a program: answers get better, types are kept, caches cannot collapse the samples."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pydantic
import pytest

from tpo_core import GenerationError, InvalidInputError
from tpo_dspy import TPO

Scripted = Callable[..., dspy.LM]


def draft(prompt: str, number: int) -> dict[str, Any]:
    return {"reasoning": "because", "answer": "d" * number}


RULES: list[Any] = [
    ("improved_answer", lambda prompt, number: f"improved {'i' * number}"),
    ("textual_gradient", "Write more."),
    ("textual_loss", "The chosen one says more."),
    ("answer", draft),
]


def longer(prompt: str, response: str) -> float:
    return len(response)


@pytest.fixture
def lm(scripted: Scripted) -> dspy.LM:
    lm = scripted(RULES)
    dspy.configure(lm=lm, trace=[], adapter=None, callbacks=[], track_usage=False)
    return lm


def cot() -> dspy.Module:
    return dspy.ChainOfThought("question -> answer")


def test_the_answer_is_the_programs_own_prediction_with_the_highest_reward(lm: dspy.LM) -> None:
    prediction = TPO(cot(), longer, width=3, depth=2)(question="why?")
    assert type(prediction) is dspy.Prediction
    assert prediction.keys() == ["reasoning", "answer"]
    assert prediction.answer.startswith("improved") and prediction.reasoning == "because"
    trajectory = prediction.trajectory
    assert trajectory.best.response == prediction.answer
    assert [len(trajectory.rewards(step)) for step in range(3)] == [3, 3, 3]
    assert trajectory.steps[0].loss == "The chosen one says more." and trajectory.gain > 0
    assert trajectory.usage.calls == trajectory.usage.requests == 13
    assert trajectory.usage.prompt_tokens == 130 and trajectory.usage.completion_tokens == 39


def test_dspys_cache_gives_distinct_samples_and_replays_a_call_for_nothing(lm: dspy.LM) -> None:
    refined = TPO(cot(), longer, width=4, depth=1)
    first = refined(question="why?")
    responses = [c.response for c in first.trajectory.candidates]
    assert len(set(responses)) == len(responses) == 8
    asked = len(lm.engine.requests)
    assert refined(question="why?").answer == first.answer
    assert len(lm.engine.requests) == asked


def test_samples_are_drawn_as_configured_and_told_nothing_else(lm: dspy.LM) -> None:
    TPO(cot(), longer, width=2, depth=0, temperature=0.3, top_p=0.5, max_response_tokens=77, seed=9)(question="why?")
    drawn = [r.config for r in lm.engine.requests]
    assert [(c.temperature, c.top_p, c.max_tokens) for c in drawn] == [(0.3, 0.5, 77)] * 2
    assert len({c.seed for c in drawn}) == 2 and None not in {c.seed for c in drawn}


def test_by_default_only_a_temperature_is_set_and_reasoning_models_are_left_alone(scripted: Scripted) -> None:
    plain, reasoning = scripted(RULES), scripted(RULES, max_completion_tokens=20000)
    for lm in (plain, reasoning):
        with dspy.context(lm=lm):
            TPO(cot(), longer, width=1, depth=0)(question="why?")
    drawn = [lm.engine.requests[0].config for lm in (plain, reasoning)]
    assert [(c.temperature, c.top_p, c.max_tokens) for c in drawn] == [(0.7, None, None), (None, None, 20000)]


def test_a_predictors_own_settings_and_the_lms_lower_limit_win(scripted: Scripted) -> None:
    lm = scripted(RULES, max_tokens=50)
    with dspy.context(lm=lm):
        TPO(dspy.ChainOfThought("question -> answer", temperature=0.0), longer, width=2, depth=0)(question="why?")
    assert [(r.config.temperature, r.config.max_tokens) for r in lm.engine.requests] == [(0.0, 50)] * 2


def test_predictors_with_an_lm_of_their_own_vary_too_and_are_not_changed(scripted: Scripted) -> None:
    own = scripted(RULES)
    program = cot()
    program.set_lm(own)
    refined = TPO(program, longer, width=3, depth=1)
    trajectory = refined(question="why?").trajectory
    assert len({c.response for c in trajectory.candidates}) == 6
    assert program.predict.lm is own and program.predict.config == {} and len(own.history) == 8


def test_a_program_that_calls_the_lm_itself_varies_too(lm: dspy.LM) -> None:
    class Direct(dspy.Module):
        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(answer=dspy.settings.lm(f"answer {question}")[0])

    trajectory = TPO(Direct(), longer, width=3, depth=0, fields=["answer"])("why?").trajectory
    assert len({c.response for c in trajectory.candidates}) == 3 and len(lm.history) == 3


class City(pydantic.BaseModel):
    name: str
    people: int


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (Literal["no", "yes"], "no", "yes"),
        (list[str], ["a"], ["a", "b"]),
        (dict[str, int], {"a": 1}, {"a": 22}),
        (City, {"name": "A", "people": 1}, {"name": "Aa", "people": 2}),
        (int, 3, 44),
    ],
)
def test_typed_outputs_stay_typed(scripted: Scripted, kind: Any, first: Any, second: Any) -> None:
    rules = [*RULES[1:3], ("improved_verdict", {"improved_verdict": second}), ("verdict", {"verdict": first})]
    signature = dspy.Signature("question -> verdict").with_updated_fields("verdict", type_=kind)
    with dspy.context(lm=scripted(rules)):
        prediction = TPO(dspy.Predict(signature), longer, width=2, depth=1, mode="revision")(question="why?")
    expected = pydantic.TypeAdapter(kind).validate_python(second)
    assert prediction.verdict == expected and type(prediction.verdict) is type(expected)


def test_fields_chooses_what_is_rewritten(scripted: Scripted) -> None:
    better = {"improved_reasoning": "thought twice", "improved_answer": "a much longer answer"}
    rules = [("improved_reasoning", better), *RULES[1:]]
    with dspy.context(lm=scripted(rules)):
        refined = TPO(cot(), longer, width=2, depth=1, fields=["reasoning", "answer"])
        prediction = refined(question="why?")
    assert prediction.reasoning == "thought twice"
    assert prediction.trajectory.candidates[0].response.startswith("reasoning: because\n\nanswer: d")


def test_the_critic_and_the_editor_know_the_programs_instructions(lm: dspy.LM) -> None:
    signature = dspy.Signature("question -> answer", "Answer like a pirate.")
    refined = TPO(dspy.Predict(signature), longer, width=2, depth=1)
    for predictor in (refined.loss, refined.gradient, refined.update):
        assert predictor.signature.instructions.endswith("fulfil:\nAnswer like a pirate.")
    assert list(refined.update.signature.output_fields) == ["improved_answer"]


@pytest.mark.parametrize("text", ["plain words", "<improved_answer>plain words</improved_answer>"])
def test_a_weak_models_update_without_markers_is_read_whole(scripted: Scripted, text: str) -> None:
    lm = scripted([("improved_answer", text), *RULES[1:]])
    with dspy.context(lm=lm):
        prediction = TPO(cot(), lambda prompt, response: response == "plain words", width=2, depth=1)(question="why?")
    assert prediction.trajectory.stop_reason == "no_contrast"  # the rewards of the drafts are equal
    with dspy.context(lm=lm):
        prediction = TPO(cot(), longer, width=2, depth=1)(question="why?")
    assert prediction.answer == "plain words"


def test_a_weak_models_samples_without_markers_are_read_whole_and_asked_for_once(scripted: Scripted) -> None:
    lm = scripted([("improved_answer", "no markers here either"), *RULES[1:3], ("answer", lambda p, n: "plain " * n)])
    with dspy.context(lm=lm):
        trajectory = TPO(dspy.Predict("question -> answer"), longer, width=3, depth=1)(question="why?").trajectory
    assert not trajectory.failures and len(lm.engine.requests) == 8
    assert {c.response for c in trajectory.candidates[:3]} == {"plain", "plain plain", "plain plain plain"}


@pytest.mark.parametrize(
    ("text", "reason"), [("", "empty"), ("{improved_answer}", "placeholder"), ("[improved answer]", "placeholder")]
)
def test_what_is_no_answer_is_no_candidate(scripted: Scripted, text: str, reason: str) -> None:
    with dspy.context(lm=scripted([("improved_answer", text), *RULES[1:]], cache=False)):
        trajectory = TPO(cot(), longer, width=2, depth=1)(question="why?").trajectory
    assert {c.failure.reason for c in trajectory.failures} <= {reason, "placeholder"} and trajectory.failures
    assert trajectory.best.response.startswith("d") and trajectory.stop_reason == "no_candidates"


def test_an_answer_cut_off_at_the_token_limit_is_no_candidate(scripted: Scripted) -> None:
    with dspy.context(lm=scripted(RULES, finish="length")), pytest.raises(GenerationError, match="max_response_tokens"):
        TPO(cot(), longer, width=2, depth=1)(question="why?")


def test_an_unreadable_sample_costs_only_itself(scripted: Scripted) -> None:
    def sometimes(prompt: str, number: int) -> Any:
        return draft(prompt, number) if number > 2 else {"nonsense": "x"}

    with dspy.context(lm=scripted([*RULES[:3], ("answer", sometimes)]), adapter=dspy.JSONAdapter()):
        lm = scripted([*RULES[:3], ("answer", sometimes)], style="json")
        with dspy.context(lm=lm):
            trajectory = TPO(cot(), longer, width=4, depth=0)(question="why?").trajectory
    assert sorted(c.failure.reason if c.failure else "" for c in trajectory.candidates) == ["", "", *["unparsable"] * 2]


def test_critic_and_editor_can_be_other_models(lm: dspy.LM, scripted: Scripted) -> None:
    critic, editor = scripted(RULES), scripted(RULES)
    TPO(cot(), longer, width=2, depth=1, critic=critic, editor=editor)(question="why?")
    assert [len(model.engine.requests) for model in (lm, critic, editor)] == [2, 2, 2]


def test_modes_are_one_loop(lm: dspy.LM) -> None:
    assert TPO(cot(), longer, width=3, mode="bon").loss is None
    TPO(cot(), longer, width=3, mode="bon")(question="why?")
    assert len(lm.engine.requests) == 3
    revised = TPO(cot(), longer, width=1, depth=1, mode="revision")(question="why not?")
    assert revised.answer.startswith("improved") and revised.trajectory.steps[0].rejected is None


@pytest.mark.parametrize("merged", [False, True])
def test_where_none_is_worse_the_critic_is_not_told_of_a_rejected_response(
    lm: dspy.LM, caplog: pytest.LogCaptureFixture, merged: bool
) -> None:
    settings = {"plan": "adaptive", "max_calls": 19, "stop_at": 1.0, "merged_critique": merged}
    refined = TPO(cot(), lambda prompt, response: 0.5, **settings)
    with caplog.at_level(logging.WARNING, "dspy"):
        trajectory = refined(question="why?").trajectory
    critiques = [step for step in trajectory.steps if step.chosen]
    assert critiques and all(step.rejected is None and step.gradient for step in critiques)
    assert lm.engine.asked("chosen_response") and not lm.engine.asked("rejected_response")
    assert not [record for record in caplog.records if "Not all input fields" in record.getMessage()]


def test_loss_and_gradient_may_be_one_predictor(lm: dspy.LM) -> None:
    refined = TPO(cot(), longer, width=2, depth=1, merged_critique=True)
    assert [name for name, _ in refined.named_predictors()] == ["program.predict", "loss", "update"]
    trajectory = refined(question="why?").trajectory
    assert trajectory.steps[0].gradient == "Write more." and trajectory.usage.calls == refined.config.samples == 5


def test_a_metric_sees_the_hosts_own_objects(lm: dspy.LM) -> None:
    seen: list[Any] = []

    def metric(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
        seen.append((example, pred))
        return len(pred.answer)

    TPO(cot(), metric, width=2, depth=0)(question="why?")
    example, prediction = seen[0]
    assert example.inputs().toDict() == {"question": "why?"} and prediction.reasoning == "because"


def test_a_held_out_metric_is_reported_and_never_optimised(lm: dspy.LM) -> None:
    def gold(example: dspy.Example, pred: dspy.Prediction, trace: Any = None) -> float:
        return len(example.question) - len(pred.answer)

    trajectory = TPO(cot(), longer, width=2, depth=1, gold=gold)(question="why?").trajectory
    assert trajectory.gold == {c.index: 4.0 - len(c.response) for c in trajectory.candidates}
    assert trajectory.gold[trajectory.best.index] == min(trajectory.gold.values())


def test_a_compiled_program_stays_frozen_and_is_refined(lm: dspy.LM) -> None:
    examples = [dspy.Example(question="why?").with_inputs("question")]
    compiled = dspy.BootstrapFewShot(metric=lambda e, p, t=None: True).compile(cot(), trainset=examples)
    refined = TPO(compiled, longer, width=2, depth=1)
    assert [name for name, _ in refined.named_predictors()] == ["loss", "gradient", "update"]
    assert refined(question="why?").answer.startswith("improved")


def test_the_prompts_can_be_replaced_as_long_as_their_answers_fit(lm: dspy.LM) -> None:
    refined = TPO(cot(), longer, width=2, depth=1)
    refined.update = dspy.ChainOfThought("chosen_response, editing_instructions -> improved_answer")
    lm.engine.rules[0] = ("improved_answer", {"reasoning": "r", "improved_answer": "thought through"})
    refined.loss = dspy.ChainOfThought(refined.loss.signature)
    lm.engine.rules.insert(1, ("`reasoning` (str): \n2. `textual_loss`", {"reasoning": "r", "textual_loss": "so"}))
    prediction = refined(question="why?")
    assert prediction.answer == "thought through" and prediction.trajectory.steps[0].loss == "so"
    refined.update = dspy.Predict("chosen_response -> verse")
    lm.engine.rules.insert(0, ("verse", "a verse"))
    with pytest.raises(InvalidInputError, match="improved_answer"):
        refined(question="why?")


def test_batch_parallel_threads_and_tasks_do_not_disturb_each_other(lm: dspy.LM) -> None:
    refined = TPO(cot(), longer, width=2, depth=1)
    examples = [dspy.Example(question=f"{n}?").with_inputs("question") for n in range(6)]
    batch = refined.batch(examples, num_threads=4, disable_progress_bar=True)

    async def together() -> list[dspy.Prediction]:
        return await asyncio.gather(*(refined.acall(**e.inputs()) for e in examples))

    for prediction, example in zip([*batch, *asyncio.run(together())], [*examples, *examples], strict=True):
        assert prediction.trajectory.query == example.question and prediction.answer.startswith("improved")


async def test_async_asks_what_sync_asks(scripted: Scripted) -> None:
    sync, asynchronous = scripted(RULES), scripted(RULES)
    with dspy.context(lm=sync):
        await asyncio.to_thread(TPO(cot(), longer, width=2, depth=2), question="why?")
    with dspy.context(lm=asynchronous):
        prediction = await TPO(cot(), longer, width=2, depth=2).acall(question="why?")
    assert prediction.answer.startswith("improved")
    assert sync.engine.asked("improved_answer") == asynchronous.engine.asked("improved_answer") == 4
    assert len(sync.engine.prompts) == len(asynchronous.engine.prompts) == 10


async def test_a_sync_program_and_an_async_reward_work_in_async_calls(lm: dspy.LM) -> None:
    class Sync(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            return self.answer(question=question)

    async def reward(prompt: str, response: str) -> float:
        await asyncio.sleep(0)
        return len(response)

    assert (await TPO(Sync(), reward, width=2, depth=1).acall(question="why?")).answer.startswith("improved")


def test_usage_of_all_children_is_summed(lm: dspy.LM) -> None:
    dspy.configure(track_usage=True)
    prediction = TPO(cot(), longer, width=3, depth=1)(question="why?")
    [usage] = prediction.get_lm_usage().values()
    assert usage["prompt_tokens"] == 80 and usage["completion_tokens"] == 24
    assert TPO(cot(), longer, width=3, depth=1)(question="why?").get_lm_usage() == {}  # from the cache


def test_a_call_leaves_the_module_and_the_settings_as_they_were(lm: dspy.LM) -> None:
    refined = TPO(cot(), longer, width=2, depth=1)
    before = (refined.dump_state(), dict(vars(refined)), lm.kwargs.copy(), dspy.settings.adapter, dspy.settings.lm)
    refined(question="why?")
    after = (refined.dump_state(), dict(vars(refined)), lm.kwargs.copy(), dspy.settings.adapter, dspy.settings.lm)
    after[1]["history"] = before[1]["history"]
    assert before == after


def test_state_is_saved_and_loaded_and_the_reward_is_not_part_of_it(lm: dspy.LM, tmp_path: Any) -> None:
    refined = TPO(cot(), longer, width=2, depth=1)
    refined.loss.signature = refined.loss.signature.with_instructions("Compare them well.")
    refined.update.demos = [dspy.Example(query="q", chosen_response="r", improved_answer="better")]
    refined.save(tmp_path / "state.json")
    again = TPO(cot(), longer, width=2, depth=1)
    again.load(tmp_path / "state.json")
    assert again.loss.signature.instructions == "Compare them well."
    assert again.update.demos[0]["improved_answer"] == "better"
    assert [n for n, _ in again.named_predictors()] == ["program.predict", "loss", "gradient", "update"]


class LockedReward:
    """A reward that cannot be pickled or deep-copied."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, prompt: str, response: str) -> float:
        with self.lock:
            return len(response)


def test_the_whole_program_is_saved_without_its_reward(lm: dspy.LM, tmp_path: Any) -> None:
    reward = LockedReward()
    refined = TPO(cot(), reward, width=2, depth=1, on_progress=lambda progress: None)
    refined.save(tmp_path / "program", save_program=True)
    loaded = dspy.load(str(tmp_path / "program"), allow_pickle=True)
    assert loaded.config == refined.config
    with pytest.raises(InvalidInputError, match=r"set program\.reward"):
        loaded(question="why?")
    loaded.reward = reward
    assert loaded(question="why?").answer.startswith("improved")


def test_copies_share_the_reward_and_not_the_prompts(lm: dspy.LM) -> None:
    refined = TPO(cot(), LockedReward(), width=2, depth=1)
    for copied in (refined.deepcopy(), refined.reset_copy()):
        assert copied.reward is refined.reward and copied.loss is not refined.loss
        assert copied.program is not refined.program
        assert copied(question="why?").answer.startswith("improved")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TPO("question -> answer", longer), "program"),
        (lambda: TPO(cot(), None), "reward"),
        (lambda: TPO(cot(), longer, width=0), "width"),
        (lambda: TPO(cot(), longer, depth=-1), "depth"),
        (lambda: TPO(cot(), longer, widht=3), "widht"),
        (lambda: TPO(cot(), longer, config={"width": 3}), "config"),
        (lambda: TPO(cot(), longer, critic=3), "critic"),
        (lambda: TPO(cot(), longer, editor=3), "editor"),
        (lambda: TPO(cot(), longer, query=3), "query"),
        (lambda: TPO(cot(), longer, fields="answer"), "fields"),
        (lambda: TPO(cot(), longer)(question=" "), "query"),
        (lambda: TPO(cot(), longer)(), "query"),
        (lambda: TPO(cot(), longer, query="topic")(question="why?"), "query"),
        (lambda: TPO(cot(), longer)("why?"), "keyword"),
    ],
)
def test_bad_input_names_the_argument(lm: dspy.LM, make: Callable[[], Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        make()


def test_a_sample_without_the_fields_costs_only_itself(lm: dspy.LM) -> None:
    class Sometimes(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question: str) -> dspy.Prediction:
            prediction = self.answer(question=question)
            return prediction if len(prediction.answer) > 1 else dspy.Prediction(error="too short")

    trajectory = TPO(Sometimes(), longer, width=3, depth=0)(question="why?").trajectory
    assert len(trajectory.failures) == 1 and trajectory.best.response == "ddd"
    with pytest.raises(GenerationError, match=r"fields names reply.*it has answer.*fields="):
        TPO(dspy.Predict("question -> answer"), longer, fields=["reply"])(question="why?")


def test_without_an_lm_the_error_says_what_to_do() -> None:
    with dspy.context(lm=None), pytest.raises(InvalidInputError, match=r"dspy\.configure"):
        TPO(cot(), longer)(question="why?")
