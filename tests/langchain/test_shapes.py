"""What people wrap: each works, or is refused with a message that says what to do. The summary prints the table."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel, RunnablePassthrough, chain
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from openevals.exact import exact_match
from pydantic import BaseModel

from tpo_core import TPOError
from tpo_langchain import ChatTPO, RunnableTPO, TPOMiddleware, tpo_node

PROMPT = ChatPromptTemplate.from_template("Tell: {x}")
HISTORY = ChatPromptTemplate.from_messages([("system", "Be brief."), MessagesPlaceholder("history"), ("user", "{x}")])
SETTINGS: dict[str, Any] = {"width": 2, "depth": 1}
X = {"x": "why?"}
ASK = {"messages": [("user", "why?")]}


class Answer(BaseModel):
    text: str


def longest(prompt: Any, response: str) -> float:
    return len(response)


def script(messages: Any, number: int) -> str:
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in messages[-1].text:
            return said
    return f"text {'x' * number}"


def as_json(messages: Any, number: int) -> str:
    said = script(messages, number)
    return f'{{"text": "{said}"}}' if said.startswith("text") else said


def tpo(program: Any, **more: Any) -> RunnableTPO:
    return RunnableTPO(program, **{"reward": longest, **SETTINGS, **more})


def rag(m: Any) -> Any:
    return {"context": lambda q: "document 1", "x": RunnablePassthrough()} | (
        ChatPromptTemplate.from_template("{context}\n{x}") | m | StrOutputParser()
    )


def with_sources(m: Any) -> Any:
    return RunnableParallel(context=lambda given: "document 1", x=itemgetter("x")).assign(
        answer=PROMPT | m | StrOutputParser()
    )


def routed(*models: Any) -> Any:
    first, last = models[0], models[-1]
    return RunnableBranch((lambda given: "why" in given["x"], PROMPT | first), PROMPT | last) | StrOutputParser()


def routing_function(first: Any, last: Any) -> Any:
    return PROMPT | RunnableLambda(lambda asked: first if "why" in asked.to_string() else last) | StrOutputParser()


def decorated(first: Any, last: Any) -> Any:
    @chain
    def answer(given: Any) -> str:
        draft = first.invoke(given["x"])
        return str(last.invoke(draft.text).text)

    return answer


def few_shot(m: Any) -> Any:
    shots = FewShotChatMessagePromptTemplate(
        examples=[{"x": "hi", "y": "hello"}],
        example_prompt=ChatPromptTemplate.from_messages([("user", "{x}"), ("assistant", "{y}")]),
    )
    return ChatPromptTemplate.from_messages([shots, ("user", "{x}")]) | m


def remembering(m: Any) -> Any:
    kept = InMemoryChatMessageHistory()
    inner = HISTORY | tpo(m)
    program = RunnableWithMessageHistory(
        inner, lambda session_id: kept, input_messages_key="x", history_messages_key="history"
    )
    program.invoke(X, {"configurable": {"session_id": "1"}})
    assert len(kept.messages) == 2
    return program.with_config(configurable={"session_id": "1"})


def agent(m: Any, *middleware: Any, **more: Any) -> Any:
    return create_agent(m, middleware=[TPOMiddleware(longest, **SETTINGS), *middleware], **more)


def node(m: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("answer", tpo_node(m, reward=longest, **SETTINGS))
    graph.add_edge(START, "answer")
    return graph.compile()


def remembering_agent(m: Any) -> Any:
    program = agent(m, checkpointer=InMemorySaver()).with_config(configurable={"thread_id": "1"})
    program.invoke(ASK)
    return program


Make = Callable[[Callable[..., Any]], Any]

WORKS: dict[str, tuple[Make, Any]] = {
    "a chat model": (lambda m: tpo(m(script)), "why?"),
    "prompt | model": (lambda m: tpo(PROMPT | m(script)), X),
    "prompt | model | parser": (lambda m: tpo(PROMPT | m(script) | StrOutputParser()), X),
    "prompt | RunnableTPO(model | parser)": (lambda m: PROMPT | tpo(m(script) | StrOutputParser()), X),
    "RunnableTPO | a function": (lambda m: tpo(PROMPT | m(script)) | (lambda message: message.text), X),
    "few-shot prompt": (lambda m: tpo(few_shot(m(script))), X),
    "history in a placeholder": (
        lambda m: tpo(HISTORY | m(script)),
        {**X, "history": [HumanMessage("hello"), AIMessage("hi")]},
    ),
    "RunnableWithMessageHistory around it": (lambda m: remembering(m(script)), X),
    "RAG": (lambda m: tpo(rag(m(script))), "why?"),
    "RAG with several inputs": (
        lambda m: tpo(RunnablePassthrough.assign(x=itemgetter("q")) | PROMPT | m(script)),
        {"q": "why?", "style": "dry"},
    ),
    "RAG that returns its sources": (
        lambda m: tpo(
            with_sources(m(script)), render=itemgetter("answer"), parser=lambda text, out: {**out, "answer": text}
        ),
        X,
    ),
    "JsonOutputParser": (lambda m: tpo(PROMPT | m(as_json) | JsonOutputParser()), X),
    "PydanticOutputParser": (lambda m: tpo(PROMPT | m(as_json) | PydanticOutputParser(pydantic_object=Answer)), X),
    "RunnableBranch of one model": (lambda m: tpo(routed(m(script))), X),
    "RunnableBranch of two, with llm=": (lambda m: tpo(routed(m(script), m(script)), llm=m(script)), X),
    "a routing function, with llm=": (lambda m: tpo(routing_function(m(script), m(script)), llm=m(script)), X),
    "@chain, with llm=": (lambda m: tpo(decorated(m(script), m(script)), llm=m(script)), X),
    "two models in a row": (
        lambda m: tpo(PROMPT | m(script) | (lambda message: {"x": message.text}) | PROMPT | m(script)),
        X,
    ),
    "retries and fallbacks inside": (
        lambda m: tpo(PROMPT | m(script).with_retry().with_fallbacks([m(script)]) | StrOutputParser()),
        X,
    ),
    "retries around it": (lambda m: tpo(PROMPT | m(script)).with_retry(), X),
    "ChatTPO in a chain": (lambda m: PROMPT | ChatTPO(llm=m(script), reward=longest, **SETTINGS), X),
    "an evaluator of (inputs, outputs)": (
        lambda m: tpo(PROMPT | m(script), reward=lambda inputs, outputs: len(inputs["x"] + outputs)),
        X,
    ),
    "openevals exact match, with reference=": (
        lambda m: tpo(PROMPT | m(script) | StrOutputParser(), reward=exact_match, reference="y"),
        {**X, "y": "text "},
    ),
    "a Runnable as reward": (
        lambda m: tpo(PROMPT | m(script), reward=RunnableLambda(lambda pair: len(pair["response"]))),
        X,
    ),
    "an agent": (lambda m: agent(m(script)), ASK),
    "an agent with memory": (lambda m: remembering_agent(m(script)), ASK),
    "an agent with interrupts": (
        lambda m: agent(m(script), HumanInTheLoopMiddleware({"weather": True}), checkpointer=InMemorySaver())
        .with_config(configurable={"thread_id": "1"}),
        ASK,
    ),
    "an agent that summarises": (
        lambda m: agent(m(script), SummarizationMiddleware(m(script), trigger=("messages", 50))),
        ASK,
    ),
    "an agent over ChatTPO": (lambda m: create_agent(ChatTPO(llm=m(script), reward=longest, **SETTINGS)), ASK),
    "around a whole agent": (lambda m: (lambda model: tpo(create_agent(model), llm=model))(m(script)), ASK),
    "a node of a graph": (lambda m: node(m(script)), ASK),
}  # fmt: skip

REFUSED: dict[str, tuple[Make, Any, str]] = {
    "RunnableParallel of two models": (lambda m: tpo(RunnableParallel(a=m(script), b=m(script))), X, "several.*llm="),
    "RunnableBranch of two models": (lambda m: tpo(routed(m(script), m(script))), X, "several.*llm="),
    "a routing function": (lambda m: tpo(routing_function(m(script), m(script))), X, "several.*llm="),
    "@chain of two models": (lambda m: tpo(decorated(m(script), m(script))), X, "several.*llm="),
    "RunnableWithMessageHistory inside it": (
        lambda m: tpo(RunnableWithMessageHistory(m(script), lambda session_id: InMemoryChatMessageHistory())),
        "why?",
        "every sample would write to: wrap it the other way round",
    ),
    "a function without a model": (lambda m: tpo(lambda given: "hello"), X, "no chat model.*llm="),
    "a whole agent without llm=": (lambda m: tpo(create_agent(m(script))), ASK, "llm is missing"),
    "exact match without a reference": (lambda m: tpo(m(script), reward=exact_match), "why?", "labels are not known"),
    "metric= for reward": (lambda m: RunnableTPO(m(script), metric=longest), "why?", "did you mean reward"),
    "an output that is no text": (lambda m: tpo(lambda given: {1, 2}, llm=m(script)), "why?", "render="),
}  # fmt: skip


@pytest.mark.parametrize("shape", WORKS)
def test_a_shape_works(chat: Any, shape: str, record_property: Any) -> None:
    make, given = WORKS[shape]
    answer = make(lambda said: chat(answer=said)).invoke(given)
    record_property("shape", (shape, "works"))
    assert answer or answer == {}


@pytest.mark.parametrize("shape", REFUSED)
def test_a_shape_is_refused_with_what_to_do(chat: Any, shape: str, record_property: Any) -> None:
    make, given, word = REFUSED[shape]
    with pytest.raises(TPOError, match=word) as refused:
        make(lambda said: chat(answer=said)).invoke(given)
    record_property("shape", (shape, f"refused: {refused.value}"))
