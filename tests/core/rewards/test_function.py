"""Any callable is a reward: its shape is found, its answers are read, its failures stay with their pair."""

import asyncio
import contextvars
import math
import threading

import dspy
import pytest
from dspy.evaluate import SemanticF1
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from langgraph.errors import GraphInterrupt
from openevals.exact import exact_match
from openevals.llm import create_llm_as_judge

from tpo_core.errors import RewardError
from tpo_core.rewards import EnsembleReward, FunctionReward, RewardModel, as_reward
from tpo_core.values import Pair


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


def test_a_function_that_writes_in_its_prompt_spoils_nobody_elses():
    def rude(prompt, response):
        prompt[0]["content"] = response
        prompt.append({"role": "user", "content": "!"})
        return len(prompt)

    chat = [{"role": "user", "content": "hi"}]
    assert FunctionReward(rude).score([chat, chat], ["a", "b"]) == [2.0, 2.0]
    assert chat == [{"role": "user", "content": "hi"}]


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
