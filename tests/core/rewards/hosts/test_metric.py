"""One reward object, unchanged, in every host: DSPy and its optimizers, LangSmith, openevals, TRL, LangChain."""

import asyncio
import json
import math
import re
import uuid
from datetime import datetime, timezone

import dspy
import pytest
from brevity import Brevity
from dspy.lm15 import Message, Response, Usage
from langchain_core.runnables import RunnableLambda
from langsmith import Client, aevaluate, evaluate
from langsmith.schemas import Example as LangSmithExample

from tpo_core.errors import InvalidInputError, RewardError


class Engine:
    """A DSPy engine that answers from a function of the request's text: no network, the same under any threading."""

    def __init__(self, answer):
        self.answer = answer

    def complete(self, request):
        text = self.answer(str(request.system) + request.messages[-1].text)
        used = Usage(input_tokens=1, output_tokens=1)
        return Response(id=None, model=request.model, message=Message.assistant(text), finish_reason="stop", usage=used)


def lm(answer, name):
    return dspy.LM(f"scripted/{name}", engine=Engine(answer), cache=False)


def answers(*texts):
    """Answer in turn, in the format of DSPy's chat adapter."""
    turn = iter(texts)
    return lambda prompt: f"[[ ## answer ## ]]\n{next(turn)}\n\n[[ ## completed ## ]]"


EXAMPLE = dspy.Example(question="Why?", answer="Because.").with_inputs("question")


def test_in_dspy_evaluate():
    reward = Brevity()
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm(answers("abc", "abcde"), "evaluate")):
        result = dspy.Evaluate(devset=[EXAMPLE, EXAMPLE], metric=reward, num_threads=1, display_progress=False)(program)
    assert [score for *_, score in result.results] == [-3.0, -5.0]
    assert reward.seen[0].prompt == "Why?"


def test_in_evaluate_an_unscorable_answer_is_a_failed_example_and_not_nan():
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm(answers("", "abc"), "unscorable")):
        result = dspy.Evaluate(
            devset=[EXAMPLE, EXAMPLE], metric=Brevity(), num_threads=1, display_progress=False, failure_score=-99.0
        )(program)
    assert [score for *_, score in result.results] == [-99.0, -3.0]


def test_in_gepa_with_score_and_feedback():
    asked = []

    def answer(prompt):
        if "new_instruction" in prompt:
            asked.append(prompt)
            return json.dumps({"new_instruction": "Be brief."})
        return answers("ab" if "Be brief." in prompt else "abcdefgh")(prompt)

    model = lm(answer, "gepa")
    reward = Brevity()
    with dspy.context(lm=model):
        best = dspy.GEPA(
            metric=reward,
            reflection_lm=model,
            max_metric_calls=12,
            num_threads=1,
            failure_score=-99.0,
            perfect_score=0.0,
        ).compile(dspy.Predict("question -> answer"), trainset=[EXAMPLE] * 2, valset=[EXAMPLE] * 2)
    assert best.signature.instructions == "Be brief."
    assert any("shorten 'abcdefgh'" in prompt for prompt in asked)  # the reward's words reached the reflection


def writes(prompt):
    """Fill every field that a DSPy prompt asks for."""
    return "\n".join(f"[[ ## {name} ## ]]\nabc" for name in re.findall(r"`\[\[ ## (\w+) ## \]\]`", prompt))


EXAMPLES = [dspy.Example(question=f"Why {n}?").with_inputs("question") for n in range(8)]


def test_in_evaluate_with_threads():
    reward = Brevity()
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=lm(writes, "threads")):
        result = dspy.Evaluate(devset=EXAMPLES, metric=reward, num_threads=4, display_progress=False)(program)
    assert [score for *_, score in result.results] == [-3.0] * 8
    assert {pair.prompt for pair in reward.seen} == {example.question for example in EXAMPLES}


@pytest.mark.parametrize("optimizer", ["mipro", "simba"])
def test_in_optimizers_that_search(optimizer):
    reward = Brevity().as_metric(mean=-3.0)
    model = lm(writes, optimizer)
    with dspy.context(lm=model):
        if optimizer == "simba":
            simba = dspy.SIMBA(metric=reward, bsize=4, num_candidates=2, max_steps=1, num_threads=2)
            best = simba.compile(dspy.Predict("question -> answer"), trainset=EXAMPLES, seed=0)
        else:
            mipro = dspy.MIPROv2(reward, auto=None, num_candidates=2, prompt_model=model, task_model=model)
            best = mipro.compile(
                dspy.Predict("question -> answer"),
                trainset=EXAMPLES[:4],
                valset=EXAMPLES[4:],
                num_trials=2,
                max_bootstrapped_demos=1,
                max_labeled_demos=0,
                minibatch=False,
            )
        assert best(question="Why?").answer == "abc"
    assert len({pair.prompt for pair in reward.reward.seen}) > 4


def test_in_gepa_with_its_heads_as_objectives():
    def answer(prompt):
        return json.dumps({"new_instruction": "Be brief."}) if "new_instruction" in prompt else answers("abc")(prompt)

    model = lm(answer, "objectives")
    with dspy.context(lm=model):
        best = dspy.GEPA(
            metric=Brevity().as_metric(objectives=True),
            reflection_lm=model,
            max_metric_calls=4,
            num_threads=1,
            track_stats=True,
            gepa_kwargs={"frontier_type": "objective"},
        ).compile(dspy.Predict("question -> answer"), trainset=[EXAMPLE], valset=[EXAMPLE])
    assert best.detailed_results.objective_pareto_front == {"short": -3.0}


def test_in_gepa_an_unscorable_answer_costs_no_round():
    told = Brevity()(EXAMPLE, dspy.Prediction(answer=""), [], "self", [])
    assert "nothing to score" in told.feedback and math.isnan(told.score)


def test_in_best_of_n():
    program = dspy.BestOfN(dspy.Predict("question -> answer"), N=3, reward_fn=Brevity(), threshold=-1.0)
    with dspy.context(lm=lm(answers("abc", "ab", "abcd"), "best")):
        assert program(question="Why?").answer == "ab"


def test_in_refine():
    advice = "[[ ## discussion ## ]]\nlong\n\n[[ ## advice ## ]]\n{'self': 'shorter'}\n\n[[ ## completed ## ]]"
    turn = iter(["abc", "ab"])

    def answer(prompt):
        return advice.replace("'", '"') if "discussion" in prompt else answers(next(turn))(prompt)

    program = dspy.Refine(dspy.Predict("question -> answer"), N=2, reward_fn=Brevity(), threshold=-1.0)
    with dspy.context(lm=lm(answer, "refine")):
        assert program(question="Why?").answer == "ab"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_in_langsmith(asynchronous):
    offline = Client("http://127.0.0.1:9", api_key="none", tracing_sampling_rate=0.0, auto_batch_tracing=False)
    example = LangSmithExample(
        id=uuid.uuid4(),
        dataset_id=uuid.uuid4(),
        created_at=datetime.now(timezone.utc),
        inputs={"question": "Why?"},
        outputs={"answer": "Because."},
    )
    reward = Brevity()
    if asynchronous:

        async def target(inputs: dict) -> dict:
            return {"answer": "abc"}

        results = await aevaluate(
            target, data=[example], evaluators=[reward.aevaluate], upload_results=False, client=offline
        )
        rows = [row async for row in results]
    else:

        def answer(inputs: dict) -> dict:
            return {"answer": "abc"}

        rows = await asyncio.to_thread(
            lambda: list(evaluate(answer, data=[example], evaluators=[reward], upload_results=False, client=offline))
        )
    (found,) = rows[0]["evaluation_results"]["results"]
    assert (found.key, found.score, found.comment) == ("brevity", -3.0, "shorten 'abc'")
    assert reward.seen[0].prompt == "Why?"
    assert reward.seen[0].inputs.reference_outputs == {"answer": "Because."}


async def test_as_an_openevals_evaluator():
    from openevals.types import EvaluatorResult

    reward = Brevity()
    for result in (
        reward(inputs="Why?", outputs="abc", reference_outputs="x"),
        await reward.aevaluate(inputs="Why?", outputs="abc", reference_outputs="x"),
    ):
        assert set(result) <= set(EvaluatorResult.__annotations__)
        assert result == {"key": "brevity", "score": -3.0, "comment": "shorten 'abc'", "metadata": {"short": -3}}


async def test_as_a_langchain_runnable():
    chain = RunnableLambda(lambda text: {"prompt": "Why?", "response": text}) | RunnableLambda(Brevity())
    assert chain.invoke("abc") == -3.0
    assert chain.batch(["a", "ab"]) == [-1.0, -2.0]
    assert await chain.ainvoke("abc") == -3.0


def test_bootstrapping_gets_a_bool_where_a_threshold_is_set(caplog):
    metric = Brevity().as_metric(threshold=-3.0)
    for answer, success in (("abc", True), ("abcd", False)):
        assert metric(EXAMPLE, dspy.Prediction(answer=answer), trace=[]) is success
    assert metric(EXAMPLE, dspy.Prediction(answer="abc")) == -3.0
    assert not caplog.records
    raw = Brevity()
    assert [raw(EXAMPLE, dspy.Prediction(answer="abc"), trace=[]) for _ in range(2)] == [-3.0, -3.0]
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["brevity has no threshold"]


def test_in_bootstrapping_with_a_threshold():
    program = dspy.Predict("question -> answer")
    examples = [dspy.Example(question=q, answer="x").with_inputs("question") for q in ("short?", "long?")]

    def answer(prompt):
        return answers("a" * 9 if "long?" in prompt.rsplit("question", 1)[1] else "ab")(prompt)

    with dspy.context(lm=lm(answer, "bootstrap")):
        metric = Brevity().as_metric(threshold=-3.0)
        best = dspy.BootstrapFewShot(metric=metric, max_labeled_demos=0).compile(program, trainset=examples)
    assert [demo.answer for demo in best.demos] == ["ab"]  # only what reached the threshold is shown as an example


def test_hosts_get_zero_to_one_on_request():
    metric = Brevity().as_metric(mean=-3.0, scale=2.0)
    assert metric(EXAMPLE, dspy.Prediction(answer="abc")) == 0.5
    assert metric(EXAMPLE, dspy.Prediction(answer="a")) == pytest.approx(0.7310585786)
    assert 0.0 <= metric(EXAMPLE, dspy.Prediction(answer="a" * 10**6)) < 1e-9
    assert metric(inputs="q", outputs="abc")["metadata"] == {"short": -3, "reward": -3.0}
    for settings, message in (({"scale": 0}, "scale"), ({"mean": math.nan}, "mean"), ({"threshold": "1"}, "threshold")):
        with pytest.raises(InvalidInputError, match=message):
            Brevity().as_metric(**settings)


def test_an_answer_without_a_reward_is_an_error_and_a_missing_one_too():
    with pytest.raises(RewardError, match="nothing to score"):
        Brevity()(EXAMPLE, dspy.Prediction(answer=""))
    with pytest.raises(InvalidInputError, match="without an answer"):
        Brevity()(EXAMPLE)
    with pytest.raises(InvalidInputError, match="differ in length"):
        Brevity()(prompts=["a"], completions=["a", "b"])


def test_scores_are_plain_floats_that_serialise():
    score = Brevity()(EXAMPLE, dspy.Prediction(answer="abc"))
    assert type(score) is float and json.dumps(score) == "-3.0"


def test_pickers_replace_the_reading():
    metric = Brevity().as_metric(prompt=lambda x: x["a"]["b"], response=lambda y: y.text.upper(), name="mine")
    found = metric(inputs={"a": {"b": "Why?"}}, outputs=dspy.Prediction(text="abc"))
    assert found["key"] == "mine" and found["comment"] == "shorten 'ABC'"
