"""Chains that retrieve: critic, editor and reward see what the answering model saw, each answer its own."""

from __future__ import annotations

from itertools import count
from operator import itemgetter
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough, chain
from pydantic import Field

from tpo_core.prompts.rendering import show_query
from tpo_langchain import RunnableTPO, TPOMiddleware

PROMPT = ChatPromptTemplate.from_template("Answer from the context.\n\n{context}\n\nQuestion: {question}")


class Shelf(BaseRetriever):
    """Finds another document each time."""

    found: Any = Field(default_factory=lambda: count(1))

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(f"document {next(self.found)} on {query}")]


def joined(documents: list[Document]) -> str:
    return "\n".join(document.page_content for document in documents)


def script(messages: Any, number: int) -> str:
    """Samples get longer with each call, updates are longer still."""
    asked = messages[-1].text
    if "lower. Compare" in asked or "Turn it into" in asked:
        return "quote the document"
    return f"sample {'x' * number}" if "Rewrite" not in asked else f"an updated answer {'y' * number}"


def rag(model: Any) -> Any:
    return {"context": Shelf() | joined, "question": RunnablePassthrough()} | PROMPT | model | StrOutputParser()


def named(text: Any) -> str:
    shown = text if isinstance(text, str) else show_query(text)
    return shown[shown.index("document ") :][:10]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_critique_update_and_reward_see_what_the_very_answer_was_made_from(chat: Any, asynchronous: bool) -> None:
    scored: list[tuple[Any, str]] = []

    def longest(prompt: Any, response: str) -> float:
        scored.append((prompt, response))
        return len(response)

    model = chat(answer=script)
    refined = RunnableTPO(rag(model), reward=longest, width=3, depth=1, return_trajectory=True)
    trajectory = await refined.ainvoke("why?") if asynchronous else refined.invoke("why?")
    chosen, rejected = trajectory.steps[0].chosen, trajectory.steps[0].rejected
    assert trajectory.query == "why?" and named(chosen.context) != named(rejected.context)
    for candidate in trajectory.candidates[:3]:
        [given] = [
            messages
            for number, messages in enumerate(model.log.messages)
            if script(messages, number) == candidate.response
        ]
        assert candidate.context == given[0].text
    asked = {word: next(m[1].text for m in model.log.messages if word in m[-1].text) for word in ("Compare", "Rewrite")}
    assert named(chosen.context) in asked["Compare"] and named(rejected.context) in asked["Compare"]
    assert named(chosen.context) in asked["Rewrite"] and named(rejected.context) not in asked["Rewrite"]
    assert {c.context for c in trajectory.candidates if not c.fresh} == {chosen.context}
    assert all("document" in prompt and "Question: why?" in prompt for prompt, _ in scored)


@pytest.mark.parametrize("query", [lambda question: question, RunnableLambda(lambda question: question)])
def test_query_says_otherwise(chat: Any, query: Any) -> None:
    seen = []

    def reward(prompt: Any, response: str) -> float:
        seen.append(prompt)
        return len(response)

    refined = RunnableTPO(rag(chat(answer=script)), reward=reward, width=2, depth=1, query=query)
    refined.invoke("why?")
    assert set(seen) == {"why?"}


def test_an_evaluator_gets_the_raw_input(chat: Any) -> None:
    seen = []

    def evaluator(*, inputs: Any, outputs: Any) -> float:
        seen.append(inputs)
        return len(outputs)

    refined = RunnableTPO({"context": itemgetter("q") | Shelf() | joined, "question": itemgetter("q")} | PROMPT
                          | chat(answer=script) | StrOutputParser(), reward=evaluator, width=2, depth=0)  # fmt: skip
    refined.invoke({"q": "why?"})
    assert seen == [{"q": "why?"}] * 2


def test_what_is_shown_is_shortened(chat: Any) -> None:
    model = chat(answer=script)
    long = RunnablePassthrough() | (lambda q: f"{q} {'blah ' * 500}") | model
    RunnableTPO(long, reward=lambda prompt, response: len(response), width=2, depth=1, max_shown_chars=200).invoke("q")
    [update] = {m[1].text for m in model.log.messages if "Rewrite" in m[-1].text}
    assert "characters left out here" in update and len(update) < 1200


def test_an_input_of_several_fields_needs_no_query(chat: Any) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Context: {context}"), MessagesPlaceholder("chat_history"), ("user", "{question}")]
    )
    model = chat(answer=script)
    conversational = RunnablePassthrough.assign(context=itemgetter("question") | Shelf() | joined) | prompt | model
    given = {"question": "and now?", "chat_history": [HumanMessage("hello"), AIMessage("hi there")], "k": 3}
    refined = RunnableTPO(conversational, reward=lambda prompt, response: len(response), width=2, depth=1,
                          return_trajectory=True)  # fmt: skip
    trajectory = refined.invoke(given)
    assert trajectory.query == "question: and now?\n\nchat_history: User: hello\n\nAssistant: hi there"
    [update] = {m[1].text for m in model.log.messages if "Rewrite" in m[-1].text}
    assert all(word in update for word in ("System: Context: document", "hi there", "and now?"))
    assert [turn["role"] for turn in trajectory.best.context] == ["system", "user", "assistant", "user"]


def test_a_model_inside_a_function_and_a_text_model_are_seen_as_well(chat: Any) -> None:
    model = chat(answer=script)

    @chain
    def answer(question: str) -> str:
        found = joined(Shelf().invoke(question))
        return str(model.invoke(PROMPT.invoke({"context": found, "question": question})).text)

    texts = (lambda x: f"{x} with a document 7") | FakeListLLM(responses=["one", "two"])
    for program, start in ((answer, "Answer from"), (texts, "why? with a document 7")):
        refined = RunnableTPO(program, reward=lambda prompt, response: len(response), llm=model, width=2, depth=0,
                              return_trajectory=True)  # fmt: skip
        assert all(c.context.startswith(start) for c in refined.invoke("why?").candidates)


def test_a_chain_that_shows_its_model_no_more_than_the_query_keeps_no_context(chat: Any) -> None:
    simple = ChatPromptTemplate.from_template("Tell: {x}") | chat(answer=script)
    for program, given in ((simple, {"x": "why?"}), (chat(answer=script), "why?")):
        refined = RunnableTPO(program, reward=lambda prompt, response: len(response), return_trajectory=True)
        assert {c.context for c in refined.invoke(given).candidates} == {None}


def test_what_other_middleware_shows_an_agents_model_is_seen(chat: Any) -> None:
    found = count(1)

    @wrap_model_call
    def retrieve(request: Any, handler: Any) -> Any:
        return handler(request.override(messages=[HumanMessage(f"document {next(found)}"), *request.messages]))

    seen = []

    def reward(prompt: Any, response: str) -> float:
        seen.append(named(prompt))
        return len(response)

    agent = create_agent(chat(answer=script), middleware=[TPOMiddleware(reward=reward, width=3, depth=1), retrieve])
    agent.invoke({"messages": [("user", "why?")]})
    assert sorted(seen[:3]) == ["document 1", "document 2", "document 3"]


def test_around_a_whole_agent_its_system_prompt_is_seen(chat: Any) -> None:
    model = chat(answer=script)
    agent = create_agent(model, system_prompt="Answer in rhyme.")
    refined = RunnableTPO(agent, reward=lambda prompt, response: len(response), llm=model, width=2, depth=1)
    refined.invoke({"messages": [("user", "why?")]})
    assert [m[0].text for m in model.log.messages[:2]] == ["Answer in rhyme."] * 2
    assert all("Answer in rhyme." in m[1].text for m in model.log.messages if "Rewrite" in m[-1].text)
