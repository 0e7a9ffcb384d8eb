"""Rewards that compare with a reference: known at call time, or refused before a model is called."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Any

import pytest
from dspy.evaluate import answer_exact_match
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from openevals.exact import exact_match
from openevals.llm import create_async_llm_as_judge, create_llm_as_judge
from openevals.prompts import CORRECTNESS_PROMPT, RAG_GROUNDEDNESS_PROMPT
from pydantic import Field

from tpo_core import InvalidInputError, RewardError
from tpo_core.rewards import FunctionReward
from tpo_core.testing import ScriptedReward
from tpo_langchain import RunnableTPO, TPOMiddleware

PROMPT = ChatPromptTemplate.from_template("Answer: {question}")


class Judge(FakeListChatModel):
    """Grades by whether answer and reference say the same, and keeps what it was asked."""

    responses: list[str] = Field(default_factory=lambda: [""])
    asked: list[str] = Field(default_factory=list)

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Any:
        def grade(messages: Any) -> Any:
            self.asked.append(messages[-1]["content"])
            same = re.search(r"(<output>\n|^)sample xx\b", self.asked[-1])
            return {"reasoning": "as it should be", "score": bool(same)}

        return RunnableLambda(grade)


def script(messages: Any, number: int) -> str:
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in messages[-1].text:
            return said
    return f"sample {'x' * number}"


def exact(prompt: Any, response: str, reference: str) -> float:
    return float(response == reference)


REWARDS = {
    "openevals correctness": lambda judge: create_llm_as_judge(prompt=CORRECTNESS_PROMPT, judge=judge),
    "its async form": lambda judge: create_async_llm_as_judge(prompt=CORRECTNESS_PROMPT, judge=judge),
    "a template": lambda judge: create_llm_as_judge(
        prompt=ChatPromptTemplate.from_template("{outputs} {reference_outputs}"), judge=judge
    ),
    "openevals exact match": lambda judge: exact_match,
    "an evaluator": lambda judge: lambda inputs, outputs, reference_outputs: outputs == reference_outputs,
    "a function": lambda judge: exact,
}


@pytest.mark.parametrize("name", REWARDS)
def test_without_a_reference_it_is_refused_before_any_call(chat: Any, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"labels are not known while answering.*RunnableTPO\(.*reference="):
        RunnableTPO(PROMPT | chat(answer=script), reward=REWARDS[name](Judge()))
    with pytest.raises(InvalidInputError, match="labels are not known"):
        RunnableTPO(chat(answer=script), reward=lambda prompt, response: 1.0, gold=REWARDS[name](Judge()))
    with pytest.raises(InvalidInputError, match="labels are not known"):
        TPOMiddleware(reward=REWARDS[name](Judge()))
    with pytest.raises(InvalidInputError, match="labels are not known"):
        FunctionReward(REWARDS[name](Judge())).score("why?", ["because", "well"])


@pytest.mark.parametrize("name", REWARDS)
@pytest.mark.parametrize(
    "pick", ["answer", itemgetter("answer"), RunnableLambda(itemgetter("answer"))], ids=["key", "function", "runnable"]
)
async def test_a_reference_of_the_call_reaches_the_reward_and_nobody_else(chat: Any, name: str, pick: Any) -> None:
    model, judge = chat(answer=script), Judge()
    refined = RunnableTPO(
        PROMPT | model | StrOutputParser(), reward=REWARDS[name](judge), reference=pick, width=3, depth=1
    )
    given = {"question": "why?", "answer": "sample xx"}
    assert refined.invoke(given) == "sample xx"
    model.log.messages.clear()
    assert await refined.ainvoke(given) == "sample xx"
    assert not [m for messages in model.log.messages[:3] for m in messages if "sample xx" in m.text]
    assert given["answer"] == "sample xx" and all("sample xx" in asked for asked in judge.asked[:1])


def test_a_key_is_kept_from_chain_and_query(chat: Any) -> None:
    seen = []
    chain = RunnableLambda(lambda given: seen.append(dict(given)) or given["question"]) | chat(answer=script)
    refined = RunnableTPO(chain, reward=exact, reference="answer", width=1, depth=0, return_trajectory=True)
    trajectory = refined.invoke({"question": "why?", "style": "dry", "answer": "because"})
    assert seen == [{"question": "why?", "style": "dry"}] and trajectory.query == "question: why?\n\nstyle: dry"
    with pytest.raises(InvalidInputError, match="reference names the key 'answer'"):
        refined.invoke({"question": "why?"})
    assert len(seen) == 1


def test_the_held_out_reward_may_compare_as_well(chat: Any) -> None:
    refined = RunnableTPO(
        PROMPT | chat(answer=script) | StrOutputParser(), reward=lambda prompt, response: len(response), gold=exact,
        reference="answer", width=3, depth=0, return_trajectory=True,
    )  # fmt: skip
    trajectory = refined.batch([{"question": "why?", "answer": "sample x"}])[0]
    assert sorted((trajectory.gold or {}).values()) == [0.0, 0.0, 1.0]


def test_around_an_agent_and_inside_one(chat: Any) -> None:
    def longest_known(messages: Any) -> str:
        return "sample xx"

    agent = create_agent(chat(answer=script), middleware=[
        TPOMiddleware(reward=exact, reference=longest_known, width=3, depth=0)])  # fmt: skip
    assert agent.invoke({"messages": [("user", "why?")]})["messages"][-1].text == "sample xx"
    model = chat(answer=script)
    refined = RunnableTPO(create_agent(model), reward=exact, llm=model, reference="answer", width=3, depth=0)
    answer = refined.invoke({"messages": [("user", "why?")], "answer": "sample xx"})
    assert answer["messages"][-1].text == "sample xx"


def test_openevals_groundedness_gets_the_documents_as_its_context(chat: Any) -> None:
    judge = Judge()
    chain = {"context": lambda q: "document 1", "question": RunnablePassthrough()} | ChatPromptTemplate.from_template(
        "{context}\n\n{question}"
    )
    grounded = create_llm_as_judge(prompt=RAG_GROUNDEDNESS_PROMPT, judge=judge)
    refined = RunnableTPO(chain | chat(answer=script), reward=grounded, width=3, depth=0, return_trajectory=True)
    trajectory = refined.invoke("why?")
    assert all("<context>\ndocument 1\n\nwhy?\n</context>" in asked for asked in judge.asked)
    assert trajectory.best.feedback == "as it should be"


def test_what_is_no_way_to_find_one_is_refused(chat: Any) -> None:
    with pytest.raises(InvalidInputError, match="reference must be"):
        RunnableTPO(chat(answer=script), reward=ScriptedReward({}), reference=3)


def by_field(example: Any, pred: Any, trace: Any = None) -> float:
    return float(example.label == pred.response)


def by_key(example: Any, pred: Any, trace: Any = None) -> float:
    return float(example["label"] == pred.response)


@pytest.mark.parametrize("metric", [by_field, by_key])
@pytest.mark.parametrize("given", ["why?", {"question": "why?"}], ids=["text", "mapping"])
def test_a_dspy_metric_whose_label_is_missing_says_so_as_in_dspy(chat: Any, metric: Any, given: Any) -> None:
    program = chat(answer=script) if isinstance(given, str) else PROMPT | chat(answer=script)
    with pytest.raises(
        RewardError, match=r"reads example\.label, which this call lacks .*labels are not known.*LangChain"
    ):
        RunnableTPO(program, metric, width=2, depth=0).invoke(given)


@pytest.mark.parametrize("metric", [by_field, by_key])
def test_a_label_among_the_inputs_of_a_chain_reaches_a_dspy_metric_and_no_prompt(chat: Any, metric: Any) -> None:
    model = chat(answer=script)
    refined = RunnableTPO(PROMPT | model, metric, width=3, depth=0, return_trajectory=True)
    answer = refined.invoke({"question": "why?", "label": "sample xx"})
    assert answer.best.reward == 1.0 and "sample xx" not in str(model.log.messages)


async def test_a_dspy_metric_finds_the_reference_in_its_example(chat: Any) -> None:
    """As in DSPy: ``example.answer`` where the key is ``answer``, the fields of a mapping, or ``example.reference``."""
    model = chat(answer=script)
    chain = PROMPT | model | StrOutputParser()
    given = {"question": "why?", "answer": "sample xx"}

    def by_key(example: Any, pred: Any, trace: Any = None) -> float:
        assert example.question == "why?" and set(example.inputs().keys()) == {"question"}
        return float(example.answer == pred.answer)

    def by_name(example: Any, pred: Any) -> float:
        return float(example.reference == pred.response)

    def of_several(example: Any, pred: Any) -> float:
        return float(example.gold_text == pred.response) + (example.weight - 2)

    def several(given: Any) -> dict[str, Any]:
        return {"gold_text": "sample xx", "weight": 2}

    for metric, pick in (
        (by_key, "answer"),
        (answer_exact_match, "answer"),
        (by_name, itemgetter("answer")),
        (of_several, several),
    ):
        refined = RunnableTPO(chain, reward=metric, reference=pick, width=3, depth=0)
        model.log.messages.clear()
        assert refined.invoke(given) == "sample xx", metric
        model.log.messages.clear()
        assert await refined.ainvoke(given) == "sample xx", metric
