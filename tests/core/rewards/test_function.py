"""Any callable is a reward: its shape is found, its answers are read, its failures stay with their pair."""

import asyncio
import contextvars
import functools
import math
import threading

import dspy
import numpy as np
import pytest
from dspy.evaluate import SemanticF1
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt
from openevals.exact import exact_match
from openevals.llm import create_llm_as_judge

from tpo_core.effects import Pair
from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.rewards import EnsembleReward, FunctionReward, RewardModel, as_reward


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


def test_a_reward_model_is_itself_and_an_object_with_score_is_asked_in_batches():
    class Scorer:
        calls = 0

        def score(self, prompts, responses):
            self.calls += 1
            return [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]

    scorer = Scorer()
    reward = as_reward(scorer)
    assert isinstance(reward, RewardModel) and as_reward(reward) is reward
    assert as_reward(reward.as_metric(threshold=1.0)) is reward
    assert reward.score("q", ["a", "bb", "a"]) == [2.0, 3.0, 2.0]
    assert scorer.calls == 1


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


def test_a_function_that_writes_in_its_prompt_spoils_nobody_elses():
    def rude(prompt, response):
        prompt[0]["content"] = response
        prompt.append({"role": "user", "content": "!"})
        return len(prompt)

    chat = [{"role": "user", "content": "hi"}]
    assert FunctionReward(rude).score([chat, chat], ["a", "b"]) == [2.0, 2.0]
    assert chat == [{"role": "user", "content": "hi"}]


def test_evaluator_results_become_heads():
    (reward,) = FunctionReward(lambda p, r: [{"key": "a", "score": 1}, {"key": "b", "score": 0}]).score("q", ["x"])
    assert reward.heads == {"a": 1.0, "b": 0.0}


def test_a_dspy_metric_sees_the_hosts_example_and_prediction():
    def metric(example, pred, trace=None):
        return float(example.answer == pred.answer)

    example = dspy.Example(question="2+2?", answer="4").with_inputs("question")
    pairs = [Pair("2+2?", a, value=dspy.Prediction(answer=a), inputs=example) for a in ("4", "5")]
    assert FunctionReward(metric).score_pairs(pairs) == [1.0, 0.0]


def test_a_dspy_metric_gets_fields_built_from_text_where_the_host_has_none():
    def metric(example, pred, trace=None):
        return len(example.question) + len(pred.answer)

    assert FunctionReward(metric, fields=("question", "answer")).score("ab", ["cde"]) == [5.0]


def test_openevals_and_runnables_are_called_in_their_own_way():
    pairs = [Pair("q", "x", value="x", inputs=None)]
    assert FunctionReward(lambda *, inputs, outputs: inputs + outputs == "qx").score_pairs(pairs) == [1.0]
    chain = RunnableLambda(lambda d: d["prompt"] + d["response"]) | RunnableLambda(len)
    assert FunctionReward(chain).score("ab", ["c", "cd"]) == [3.0, 4.0]


async def test_what_a_chain_writes_for_a_reward_stays_out_of_an_agents_stream():
    chain = RunnableLambda(lambda d: d["response"]) | RunnableLambda(lambda x, config: "nostream" in config["tags"])
    assert FunctionReward(chain).score("q", ["a"]) == await FunctionReward(chain).ascore("q", ["a"]) == [1.0]


def test_evaluators_are_given_the_text_of_messages():
    turn = [{"role": "user", "content": "q"}]
    for inputs in (ChatPromptValue(messages=[HumanMessage("q")]), [HumanMessage("q")], None):
        pair = Pair(turn, "x", value=AIMessage("x"), inputs=inputs)
        assert FunctionReward(lambda *, inputs, outputs: inputs == turn and outputs == "x").score_pairs([pair]) == [1.0]
    reward = FunctionReward(lambda *, outputs: exact_match(outputs=outputs, reference_outputs="x"))
    assert reward.score_pairs([pair]) == [1.0]


def test_the_real_judges_of_openevals_and_dspy_are_rewards():
    class Model(GenericFakeChatModel):
        def with_structured_output(self, schema, **kwargs):
            return RunnableLambda(lambda asked: {"reasoning": "it is brief", "score": 0.75})

    judge = create_llm_as_judge(prompt="{inputs} {outputs}", judge=Model(messages=iter([])), continuous=True)
    (reward,) = as_reward(judge).score("q", ["a"])
    assert reward == 0.75 and reward.feedback == "it is brief"
    assert FunctionReward(SemanticF1(), fields=("question", "response")).kind == "metric"


def test_a_trl_function_is_called_by_name():
    def reward(prompts, completions, **kwargs):
        return [float(len(p) + len(c)) for p, c in zip(prompts, completions, strict=True)]

    assert FunctionReward(reward).score("ab", ["c"]) == [3.0]
    assert FunctionReward(lambda completions, **kwargs: [1.0] * len(completions)).score("q", ["a", "b"]) == [1.0, 1.0]


async def async_length(prompt, response):
    await asyncio.sleep(0)
    return len(response)


def test_async_functions_serve_sync_callers_on_one_lasting_loop():
    loops = set()

    async def reward(prompt, response):
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return len(response)

    model = FunctionReward(reward)
    assert [model.score("q", ["a", "bb"]) for _ in range(3)] == [[1.0, 2.0]] * 3
    assert len(loops) == 1


async def test_sync_and_async_callers_get_the_same_from_sync_and_async_functions():
    for fn in (async_length, lambda prompt, response: len(response)):
        model = FunctionReward(fn)
        assert await model.ascore("q", ["a", "bb"]) == [1.0, 2.0]
        assert model.score("q", ["a", "bb"]) == [1.0, 2.0]  # from inside a running loop, too


def test_async_rewards_may_call_sync_scores_of_async_rewards():
    inner = FunctionReward(async_length)

    async def outer(prompt, response):
        return inner.score(prompt, [response])[0] + 1

    assert FunctionReward(outer).score("q", ["abc"]) == [4.0]


def test_async_rewards_may_wait_for_threads_that_await_async_rewards():
    members = [FunctionReward(async_length), FunctionReward(lambda prompt, response: async_length(prompt, response))]

    async def outer(prompt, response):
        return EnsembleReward(members, normalize=False).score(prompt, [response, response + "x"])[1]

    scores = []
    thread = threading.Thread(target=lambda: scores.extend(FunctionReward(outer).score("q", ["abc"])), daemon=True)
    thread.start()
    thread.join(20)  # it would wait for itself for ever
    assert scores == [4.0]


mark = contextvars.ContextVar("mark", default="unset")


def test_several_pairs_are_scored_at_once_and_see_the_callers_context():
    meet = threading.Barrier(3, timeout=10)

    def reward(prompt, response):
        meet.wait()  # passes only when all three are under way together
        return 1.0 if mark.get() == "set" else 0.0

    token = mark.set("set")
    try:
        assert FunctionReward(reward).score("q", ["a", "b", "c"]) == [1.0] * 3

        async def awaited(prompt, response):
            return mark.get() == "set"

        assert FunctionReward(awaited).score("q", ["a", "b"]) == [1.0, 1.0]  # on the background loop, too
    finally:
        mark.reset(token)


def broken_on_b(prompt, response):
    if response == "b":
        raise KeyError("no such rubric")
    return 1.0


async def test_a_pair_that_raises_costs_only_itself():
    for rewards in (
        FunctionReward(broken_on_b).score("q", ["a", "b", "c"]),
        await FunctionReward(broken_on_b).ascore("q", ["a", "b", "c"]),
    ):
        assert rewards[0] == rewards[2] == 1.0
        assert math.isnan(rewards[1]) and "KeyError" in rewards[1].failure


def test_when_every_pair_raises_the_error_names_the_reward_and_the_cause():
    with pytest.raises(RewardError, match=r"'broken_on_b' failed on all 1 calls.*no such rubric") as caught:
        FunctionReward(broken_on_b).score("q", ["b"])
    assert isinstance(caught.value.__cause__, KeyError)


async def test_the_hosts_control_flow_passes_through():
    def interrupts(prompt, response):
        raise GraphInterrupt(())

    with pytest.raises(GraphInterrupt):
        FunctionReward(interrupts).score("q", ["a", "b"])
    with pytest.raises(GraphInterrupt):
        await FunctionReward(interrupts).ascore("q", ["a", "b"])

    def leaves(prompt, response):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(leaves).score("q", ["a", "b"])


@pytest.mark.parametrize("leaves", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_an_async_reward_reaches_the_caller_and_the_loop_goes_on(leaves):
    async def exits(prompt, response):
        raise leaves

    with pytest.raises(leaves):
        FunctionReward(exits).score("q", ["a", "b"])
    assert FunctionReward(async_length).score("q", ["a", "b"]) == [1.0, 1.0]


def test_a_batch_of_the_wrong_length_is_an_error_that_names_the_reward():
    def short(prompts, responses):
        return [1.0]

    with pytest.raises(RewardError, match="'short' returned 1 rewards for 2"):
        FunctionReward(short).score("q", ["a", "b"])
    with pytest.raises(RewardError, match="'short' returned float"):
        FunctionReward(lambda prompts, responses: 1.0, name="short").score("q", ["a", "b"])


@pytest.mark.parametrize("answer", [{1: 2}, {1.0}, "1", 1.0])
def test_a_reward_model_that_returns_no_list_is_an_error_and_not_a_number(answer):
    class Odd(RewardModel):
        def score_batch(self, pairs):
            return answer

    with pytest.raises(RewardError, match=f"'Odd' returned {type(answer).__name__}, not a list"):
        Odd().score("q", ["a"])
