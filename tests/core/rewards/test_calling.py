"""How a callable wants to be called is found from its signature, or asked for; its answer is read, or is no reward."""

import functools
import math

import dspy
import numpy as np
import pytest
from langchain_core.runnables import RunnableLambda
from openevals.exact import exact_match

from tpo_core.errors import InvalidInputError
from tpo_core.rewards import FunctionReward, as_reward


def pair(prompt, response): ...


def typed_batch(asked: list[str], given: list[str]): ...


def trl(completions, **kwargs): ...


def gepa(gold, pred, trace=None, pred_name=None, pred_trace=None): ...


def best_of_n(args, pred): ...


def evaluator(*, inputs, outputs, reference_outputs=None): ...


def plain(a, b): ...


def response(response): ...


class Module(dspy.Module):
    def forward(self, example, pred, trace=None): ...


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (pair, "pair"),
        (plain, "pair"),
        (functools.partial(lambda scale, q, a: 1.0, 2), "pair"),
        (typed_batch, "batch"),
        (trl, "batch"),
        (gepa, "metric"),
        (Module(), "metric"),
        (best_of_n, "args"),
        (lambda prompt, response, trace=None: 1.0, "pair"),
        (lambda completions, prompts, **kwargs: [1.0], "batch"),
        (evaluator, "evaluator"),
        (exact_match, "evaluator"),
        (response, "response"),
        (lambda text, language="en": 1.0, "response"),
        (RunnableLambda(lambda d: 1.0), "runnable"),
    ],
)
def test_the_kind_is_found_from_the_signature(fn, kind):
    assert FunctionReward(fn).kind == kind


@pytest.mark.parametrize(
    "fn",
    [
        len,
        print,
        lambda *a: 1.0,
        lambda x: 1.0,
        lambda a, b, c: 1,
        lambda run, example: 1.0,
        lambda x, pred: 1.0,
        lambda response, prompt: 1.0,  # called as (prompt, response) it would score the prompt
        lambda responses, prompts: [1.0],
        lambda output, expected=None, **kwargs: 1.0,  # autoevals'
        lambda completions, solution, **kwargs: [1.0],  # a column of a data set
        lambda prompt, response, *, budget: 1.0,
    ],
)
def test_an_ambiguous_signature_is_an_error_that_says_kind(fn):
    with pytest.raises(InvalidInputError, match=r"kind="):
        FunctionReward(fn)


def test_kind_overrides_the_signature():
    assert FunctionReward(len, kind="response").score("q", ["abc"]) == [3.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "batches"}, "kind must be one of"),
        ({"fields": "question"}, "fields must be two names"),
        ({"fields": ("question",)}, "fields must be two names"),
        ({"workers": 0}, "workers"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        FunctionReward(pair, **settings)


@pytest.mark.parametrize("thing", [3, None, dict, object()])
def test_what_is_no_reward_is_refused_by_name(thing):
    with pytest.raises(InvalidInputError, match=r"(reward|fn) must be"):
        as_reward(thing)


def test_a_name_that_is_no_model_is_refused():
    with pytest.raises(InvalidInputError, match="org/name"):
        as_reward("helpfulness")


@pytest.mark.parametrize(
    ("answer", "score", "feedback"),
    [
        (True, 1.0, None),
        ((2, "why"), 2.0, "why"),
        ({"score": 3, "comment": "why"}, 3.0, "why"),
        ({"score": 0.0, "feedback": "why"}, 0.0, "why"),
        (dspy.Prediction(score=4.0, feedback="why"), 4.0, "why"),
        ([{"key": "a", "score": 1, "comment": "x"}, {"key": "b", "score": 0}], 0.5, "a: x"),
        ("7.5", 7.5, None),
        ([0.5], 0.5, None),
        (np.float32(0.5), 0.5, None),
        (np.array(0.5), 0.5, None),
    ],
)
def test_every_form_of_answer_is_read(answer, score, feedback):
    (reward,) = FunctionReward(lambda prompt, response: answer).score("q", ["a"])
    assert (float(reward), reward.feedback) == (score, feedback)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "good",
        {"verdict": 1},
        float("inf"),
        float("nan"),
        [],
        [1.0, 2.0],
        (1.0, 2.0),
        np.ones(2),
        (x for x in "a"),
    ],
)
def test_an_unreadable_answer_is_nan_with_a_reason(answer):
    (reward,) = FunctionReward(lambda prompt, response: answer).score("q", ["a"])
    assert math.isnan(reward) and reward.failure


def test_a_function_of_lists_that_is_called_with_texts_is_found_out():
    (reward,) = FunctionReward(lambda ps, rs: [float(len(r)) for r in rs]).score("q", ["abc"])
    assert math.isnan(reward) and "kind='batch'" in reward.failure


@pytest.mark.parametrize(
    "fn",
    [
        lambda prompts, responses: np.array([[1.0], [2.0]]),  # a column, as models return
        lambda prompts, responses: (1, np.float64(2)),
        lambda responses: [1.0, 2.0],
        lambda prompts, responses: later(prompts, responses),
    ],
)
async def test_every_form_of_batch_is_read(fn):
    reward = FunctionReward(fn)
    assert reward.score("q", ["a", "b"]) == await reward.ascore("q", ["a", "b"]) == [1.0, 2.0]


async def later(prompts, responses):
    return [1.0, 2.0]


def test_evaluator_results_become_heads():
    (reward,) = FunctionReward(lambda p, r: [{"key": "a", "score": 1}, {"key": "b", "score": 0}]).score("q", ["x"])
    assert reward.heads == {"a": 1.0, "b": 0.0}
