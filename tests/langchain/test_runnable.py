"""RunnableTPO around real chains: what is asked, what comes out, what costs what."""

from __future__ import annotations

import threading
from operator import itemgetter
from typing import Any, TypedDict

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tpo_core import GenerationError, InvalidInputError, RewardError, TPOConfig
from tpo_core.testing import ScriptedReward
from tpo_langchain import RunnableTPO

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer in English."), MessagesPlaceholder("history", optional=True), ("user", "{question}")]
)


def longest(prompt: Any, response: str) -> float:
    return len(response)


def checksum(prompt: Any, response: str) -> float:
    return sum(map(ord, response))


def openai(server: Any, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(model="smol", base_url=server.url, api_key="none", max_retries=0, **settings)


def script(messages: Any, number: int) -> str:
    """Samples get longer with each call, updates are longer still."""
    asked = messages[-1].text
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in asked:
            return said
    return f"sample {'x' * number}" if "Rewrite" not in asked else f"an updated answer {'y' * number}"


def test_a_chain_is_sampled_criticised_and_updated(chat: Any) -> None:
    model = chat(answer=script)
    chain = RunnableTPO(PROMPT | model | StrOutputParser(), reward=longest, width=3, depth=2)
    answer = chain.invoke({"question": "how?"})
    assert answer.startswith("an updated answer") and model.calls == 3 + 2 * (2 + 3)


def test_the_line_of_the_readme_works(chat: Any) -> None:
    model = chat(answer=script)
    chain = PROMPT | RunnableTPO(model | StrOutputParser(), reward=longest, llm=model, width=5, depth=2)
    assert chain.invoke({"question": "how?"}).startswith("an updated answer")


def test_one_request_brings_n_samples_where_the_model_has_n(loopback: Any) -> None:
    server = loopback()
    chain = RunnableTPO(PROMPT | openai(server) | StrOutputParser(), reward=checksum, return_trajectory=True)
    trajectory = chain.invoke({"question": "how?"})
    assert [r.get("n") for r in server.requests] == [5, None, None, 5, None, None, 5]
    assert len({c.response for c in trajectory.candidates}) == 15
    assert trajectory.usage.requests == 7 and trajectory.usage.calls == 19


def test_a_reward_that_is_out_in_a_later_round_does_not_cost_the_answer(chat: Any) -> None:
    def out(prompt: Any, response: str) -> float:
        if response.startswith("an updated answer"):
            raise ConnectionError("the reward is out")
        return len(response)

    model = chat(answer=script)
    chain = RunnableTPO(PROMPT | model | StrOutputParser(), reward=out, width=3, depth=2)
    assert chain.invoke({"question": "how?"}) == "sample xx"
    told = RunnableTPO(PROMPT | model | StrOutputParser(), reward=out, width=3, depth=2, return_trajectory=True)
    assert told.invoke({"question": "how?"}).stop_reason == "reward_failed"


@pytest.mark.parametrize("reports", ["all", "first"])
def test_the_tokens_of_a_request_are_those_of_all_its_samples(loopback: Any, reports: Any) -> None:
    said = ["Oak is a hard and heavy wood that lasts.", "Pine is a soft wood, and grows fast.", "Balsa is very light."]
    server = loopback(lambda request, number: said[number % 3], reports=reports)
    chain = RunnableTPO(openai(server), reward=longest, width=3, depth=0, return_trajectory=True)
    usage = chain.invoke("how?").usage
    assert usage.requests == 1 and usage.estimated is (reports == "first")
    assert usage.completion_tokens == pytest.approx(21, rel=0 if reports == "all" else 0.25)  # words, to this server


@pytest.mark.parametrize("manner", ["ignore", "reject"])
def test_a_server_without_n_is_asked_one_by_one_and_remembered(loopback: Any, manner: Any) -> None:
    server = loopback(n=manner)
    chain = RunnableTPO(openai(server) | StrOutputParser(), reward=longest, width=3, depth=0, return_trajectory=True)
    for _ in range(2):
        assert len({c.response for c in chain.invoke("how?").candidates}) == 3
    assert sum(r.get("n") == 3 for r in server.requests) == 1


@pytest.mark.parametrize(
    ("server", "sizes"),
    [({"failures": [429]}, [3, None, None, None, 3]), ({"n": "ignore"}, [3, None, None, None, None, None])],
)
async def test_beside_an_answer_that_is_there_n_is_given_up_only_where_it_is_ignored(
    loopback: Any, server: Any, sizes: Any
) -> None:
    serving = loopback(**server)
    chain = RunnableTPO(openai(serving), reward=checksum, width=4, depth=0, return_trajectory=True)
    for number in range(2):
        refiner = chain.after_first(AIMessage(f"first {number}"))
        trajectory = await refiner.ainvoke("how?") if number else refiner.invoke("how?")
        assert len({c.response for c in trajectory.candidates}) == 4 and not trajectory.failures
    assert [r.get("n") for r in serving.requests] == sizes


@pytest.mark.parametrize("manner", ["honour", "ignore"])
async def test_candidates_stay_distinct_under_an_llm_cache_and_a_second_run_is_free(loopback: Any, manner: Any) -> None:
    server = loopback(n=manner)
    set_llm_cache(InMemoryCache())
    chain = RunnableTPO(PROMPT | openai(server) | StrOutputParser(), reward=checksum, return_trajectory=True)
    await chain.ainvoke({"question": "what?"})  # finds out about n
    server.clear()
    first = await chain.ainvoke({"question": "how?"})
    assert len({c.response for c in first.candidates}) == 15
    asked = len(server.requests)
    second = await chain.ainvoke({"question": "how?"})
    assert len(server.requests) == asked
    assert [c.response for c in second.candidates] == [c.response for c in first.candidates]


def test_a_models_own_cache_is_salted_and_a_model_without_one_is_left_alone(loopback: Any) -> None:
    server = loopback(n="ignore")
    own = openai(server, cache=InMemoryCache())
    off = openai(server, cache=False)
    set_llm_cache(InMemoryCache())
    for model, requests in ((own, 3), (off, 6)):
        server.clear()
        chain = RunnableTPO(model | StrOutputParser(), reward=longest, llm=model, width=3, depth=0)
        chain.invoke("how?")
        chain.invoke("how?")
        assert len([r for r in server.requests if r.get("n") is None]) in (requests, requests - 1)


def test_a_model_that_cannot_be_salted_is_warned_of(chat: Any, caplog: Any) -> None:
    set_llm_cache(InMemoryCache())
    model = chat(answer=script)
    refined = RunnableTPO(lambda text: model.invoke(text).text, reward=longest, llm=model, width=3, depth=0)
    refined.invoke("how?")
    refined.invoke("why?")
    assert model.calls == 2 and caplog.text.count("an LLM cache is set") == 1


async def test_async_asks_what_sync_asks(chat: Any) -> None:
    def answer(messages: Any, number: int) -> str:
        return "updated" if "Rewrite" in messages[-1].text else "sampled"

    both = []
    for asynchronous in (False, True):
        model = chat(answer=answer)
        chain = RunnableTPO(model, reward=longest, mode="revision", width=2, depth=1, return_trajectory=True)
        trajectory = await chain.ainvoke("how?") if asynchronous else chain.invoke("how?")
        both.append(([c.response for c in trajectory.candidates], [m.text for ms in model.log.messages for m in ms]))
    assert both[0] == both[1]


def test_a_message_keeps_its_id_and_tells_the_usage_of_all_calls(chat: Any) -> None:
    message = RunnableTPO(chat(answer=script), reward=longest, width=2, depth=1).invoke("how?")
    assert isinstance(message, AIMessage) and message.id and message.text.startswith("an updated answer")
    assert message.usage_metadata is not None
    assert (message.usage_metadata["input_tokens"], message.usage_metadata["output_tokens"]) == (60, 6)
    told = message.response_metadata["tpo"]
    assert (told["step"], told["calls"], told["stop_reason"]) == (1, 6, "depth") and told["gain"] > 0


def test_history_and_system_prompt_reach_reward_loss_and_update(chat: Any) -> None:
    seen = []

    def reward(prompt: Any, response: str) -> float:
        seen.append(prompt)
        return len(response)

    model = chat(answer=script)
    given = {"question": "and now?", "history": [HumanMessage("hello"), AIMessage("hi there")]}
    RunnableTPO(PROMPT | model | StrOutputParser(), reward=reward, width=2, depth=1).invoke(given)
    assert [m["role"] for m in seen[0]] == ["system", "user", "assistant", "user"]
    for messages in [m for m in model.log.messages if "Compare" in m[-1].text or "Rewrite" in m[-1].text]:
        for words in ("Answer in English.", "hi there", "and now?"):
            assert words in messages[1].text


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("how?", "how?"),
        ([HumanMessage("how?")], "how?"),
        ([("user", "how?")], "how?"),
        (ChatPromptTemplate.from_template("{x}").invoke({"x": "how?"}), "how?"),
        ([SystemMessage("be brief"), HumanMessage("how?")], [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "how?"}]),
    ],
)  # fmt: skip
def test_an_obvious_query_is_found(chat: Any, given: Any, query: Any) -> None:
    chain = RunnableTPO(chat(answer=script), reward=longest, width=1, depth=0, return_trajectory=True)
    assert chain.invoke(given).query == query


@pytest.mark.parametrize("pick", ["text", itemgetter("text"), lambda given: [HumanMessage(given["text"])]])
def test_another_query_is_picked(chat: Any, pick: Any) -> None:
    chain = itemgetter("text") | chat(answer=script)
    refined = RunnableTPO(chain, reward=longest, width=1, depth=0, query=pick, return_trajectory=True)
    assert refined.invoke({"text": "how?", "lang": "en"}).query == "how?"


def test_an_updated_text_goes_through_the_chains_own_parser(chat: Any) -> None:
    def answer(messages: Any, number: int) -> str:
        return '```json\n{"a": [1, 2, 3]}\n```' if "Rewrite" in messages[-1].text else f'{{"a": {number}}}'

    chain = chat(answer=answer) | JsonOutputParser()
    assert RunnableTPO(chain, reward=checksum, width=2, depth=1).invoke("how?") == {"a": [1, 2, 3]}


def test_a_parsed_answer_is_judged_and_rewritten_as_it_was_written(chat: Any) -> None:
    seen = []

    def answer(messages: Any, number: int) -> str:
        return "red, green, blue" if "Rewrite" in messages[-1].text else f"red, {'x' * number}"

    def reward(prompt: Any, response: str) -> float:
        seen.append(response)
        return len(response)

    chain = RunnableTPO(chat(answer=answer) | CommaSeparatedListOutputParser(), reward=reward, width=3, depth=1)
    assert chain.invoke("how?") == ["red", "green", "blue"]
    assert sorted(seen[:3]) == ["red, ", "red, x", "red, xx"]  # on a busy machine threads end in any order
    assert seen[3:] == ["red, green, blue"]


def test_what_the_chain_adds_to_the_answer_survives_with_renderer_and_parser(chat: Any) -> None:
    model = chat(answer=script)
    chain = RunnablePassthrough.assign(docs=lambda _: {"a set"}).assign(
        answer=itemgetter("question") | model | StrOutputParser()
    )
    refined = RunnableTPO(
        chain, reward=longest, llm=model, query="question", width=2, depth=1,
        render=itemgetter("answer"), parser=lambda text, like: {**like, "answer": text},
    )  # fmt: skip
    answer = refined.invoke({"question": "how?"})
    assert answer["docs"] == {"a set"} and answer["answer"].startswith("an updated answer")


class Answer(BaseModel):
    text: str
    score: int


@pytest.mark.parametrize("include_raw", [False, True])
def test_structured_output_is_updated_by_the_same_structured_model(loopback: Any, include_raw: bool) -> None:
    server = loopback()
    chain = openai(server).with_structured_output(Answer, method="json_schema", include_raw=include_raw)
    refined = RunnableTPO(PROMPT | chain, reward=checksum, width=3, return_trajectory=True)
    trajectory = refined.invoke({"question": "how?"})
    values = [c.value["parsed"] if include_raw else c.value for c in trajectory.candidates]
    assert len(values) == 9 and all(isinstance(value, Answer) for value in values), trajectory.failures
    for request in server.requests:
        turns = request["messages"]
        edits = "Rewrite" in turns[-1]["content"] or turns[0]["content"] == "Answer in English."
        assert ("response_format" in request) == edits


class Typed(TypedDict):
    """An answer."""

    text: str


@pytest.mark.parametrize("schema", [Typed, {**Answer.model_json_schema(), "description": "An answer."}])
def test_structured_output_may_be_plain_data(loopback: Any, schema: Any) -> None:
    chain = openai(loopback()).with_structured_output(schema, method="json_schema")
    trajectory = RunnableTPO(chain, reward=checksum, width=2, depth=1, return_trajectory=True).invoke("how?")
    assert len(trajectory.candidates) == 4 and not trajectory.failures
    assert all(isinstance(c.value, dict) and c.value["text"].startswith("text") for c in trajectory.candidates)


def test_what_is_not_text_in_a_message_is_named_in_the_query(chat: Any) -> None:
    model = chat(answer=script)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    given = [HumanMessage([{"type": "text", "text": "what is this?"}, picture])]
    assert RunnableTPO(model, reward=longest, width=2, depth=1).invoke(given).text.startswith("an updated")
    assert "what is this?" in model.log.messages[2][1].text and "[image_url]" in model.log.messages[2][1].text


def test_structured_output_by_tool_calls_is_updated_by_tool_calls(chat: Any) -> None:
    def answer(messages: Any, number: int) -> Any:
        if "Compare" in messages[-1].text or "Turn it into" in messages[-1].text:
            return "fine"
        text = "y" * number if "Rewrite" in messages[-1].text else "x" * number
        return AIMessage("", tool_calls=[{"name": "Answer", "args": {"text": text, "score": 1}, "id": "1"}])

    model = chat(answer=answer)
    chain = PROMPT | model.with_structured_output(Answer)
    best = RunnableTPO(chain, reward=longest, width=2, depth=1).invoke({"question": "how?"})
    assert best == Answer(text="yyyyy", score=1)
    assert [bool(kwargs.get("tools")) for kwargs in model.log.kwargs] == [True, True, False, False, True, True]


def test_settings_of_the_loop_are_sent_only_when_set(chat: Any) -> None:
    for settings, sent in (({}, None), ({"temperature": 0.2}, 0.2), ({"config": TPOConfig(depth=2)}, 0.7)):
        model = chat(answer=script)
        RunnableTPO(model | StrOutputParser(), reward=longest, **{"depth": 0, "width": 1, **settings}).invoke("how?")
        assert model.calls == 1 and model.log.kwargs[0]["temperature"] == sent


def test_a_call_may_have_settings_of_its_own(chat: Any) -> None:
    model = chat(answer=script)
    refined = RunnableTPO(model | StrOutputParser(), reward=longest)
    refined.invoke("how?", {"configurable": {"tpo_width": 2, "tpo_depth": 0}})
    assert model.calls == 2
    refined.with_config(configurable={"tpo_mode": "bon", "tpo_width": 3}).invoke("how?")
    assert model.calls == 5
    refined.invoke("how?", {"configurable": {"tpo_max_calls": 4}})
    assert model.calls == 9
    with pytest.raises(InvalidInputError, match="width"):
        refined.invoke("how?", {"configurable": {"tpo_width": 0}})
    assert model.calls == 9


def test_a_held_out_reward_is_reported(chat: Any) -> None:
    refined = RunnableTPO(chat(answer=script), reward=longest, gold=checksum, width=2, depth=0, return_trajectory=True)
    trajectory = refined.invoke("how?")
    assert trajectory.gold == {c.index: checksum("", c.response) for c in trajectory.candidates}


async def test_max_concurrency_bounds_a_whole_batch(loopback: Any) -> None:
    server = loopback(n="ignore", latency=0.02)
    refined = RunnableTPO(openai(server) | StrOutputParser(), reward=longest, width=3, depth=1)
    answers = refined.batch(["a", "b", "c"], {"max_concurrency": 2})
    assert len(answers) == 3 and server.max_in_flight == 2
    server.clear()
    assert len(await refined.abatch(["a", "b", "c"], {"max_concurrency": 2})) == 3
    assert server.max_in_flight == 2
    server.clear()
    assert sorted(place for place, _ in refined.batch_as_completed(["a", "b", "c"])) == [0, 1, 2]
    assert server.max_in_flight > 2


async def test_one_failed_input_costs_itself(chat: Any) -> None:
    def answer(messages: Any, number: int) -> str:
        if "bad" in messages[-1].text:
            raise ConnectionError("gone")
        return script(messages, number)

    refined = RunnableTPO(chat(answer=answer) | StrOutputParser(), reward=longest, width=2, depth=0)
    good, bad = refined.batch(["good", "bad"], return_exceptions=True)
    assert good.startswith("sample") and isinstance(bad, GenerationError)
    done = [out async for _, out in refined.abatch_as_completed(["good", "bad"], return_exceptions=True)]
    assert {type(out) for out in done} == {type(good), GenerationError}


def test_a_rate_limiter_is_asked_for_every_request(loopback: Any) -> None:
    taken = []

    class Counting(InMemoryRateLimiter):
        def acquire(self, *, blocking: bool = True) -> bool:
            taken.append(blocking)
            return True

    server = loopback(n="ignore")
    model = openai(server, rate_limiter=Counting())
    RunnableTPO(model | StrOutputParser(), reward=longest, width=3, depth=1).invoke("how?")
    assert len(taken) == len(server.requests)


def test_failed_samples_cost_themselves_and_say_why(loopback: Any) -> None:
    said = [
        "fine",
        {"tool_calls": [{"name": "look", "arguments": {}}]},
        {"content": "cut", "finish_reason": "length"},
        "",
    ]
    server = loopback(lambda request, number: said[number])
    refined = RunnableTPO(openai(server) | StrOutputParser(), reward=longest, width=4, depth=0, return_trajectory=True)
    trajectory = refined.invoke("how?")
    assert trajectory.best.response == "fine"
    assert sorted(c.failure.reason for c in trajectory.failures) == ["empty", "length", "tool_call"]


def test_an_unparsable_sample_is_no_candidate(chat: Any) -> None:
    model = chat(answer=lambda messages, number: '{"a": 1}' if number else "no json")
    chain = RunnableTPO(model | JsonOutputParser(), reward=longest, width=2, depth=0, return_trajectory=True)
    trajectory = chain.invoke("how?")
    assert trajectory.best.value == {"a": 1} and [c.failure.reason for c in trajectory.failures] == ["unparsable"]
    assert "\n" not in trajectory.failures[0].failure.message
    assert trajectory.usage.prompt_tokens == 20


def test_a_model_without_system_messages_is_asked_without(chat: Any) -> None:
    def answer(messages: Any, number: int) -> str:
        if isinstance(messages[0], SystemMessage):
            raise ValueError("System role not supported")
        return script(messages, number) + str(number)

    model = chat(answer=answer)
    trajectory = RunnableTPO(model, reward=longest, width=3, depth=1, return_trajectory=True).invoke("how?")
    assert trajectory.steps[0].loss.startswith("a critique") and trajectory.best.step == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"width": 0}, "width"),
        ({"depth": -1}, "depth"),
        ({"reward": None}, "reward"),
        ({"reward": "not a model"}, "reward"),
        ({"llm": "gpt-4o"}, "llm"),
        ({"parser": 3}, "parser"),
        ({"widht": 3}, "widht"),
        ({"prompts": "tuned.json"}, "prompts"),
        ({"config": {"width": 3}}, "config"),
        ({"runnable": 3}, "runnable"),
    ],
)
def test_a_wrong_argument_is_named(chat: Any, arguments: Any, word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        RunnableTPO(**{"runnable": chat(answer=script), "reward": longest, **arguments})


def test_a_chain_without_a_chat_model_needs_llm(chat: Any) -> None:
    chain = RunnableLambda(lambda text: "hello")
    with pytest.raises(InvalidInputError, match="llm="):
        RunnableTPO(chain, reward=longest)
    assert RunnableTPO(chain, reward=longest, mode="bon").invoke("how?") == "hello"
    assert RunnableTPO(chain, reward=longest, llm=chat(answer=script), width=2).invoke("how?") == "hello"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("", "query"),
        ([], "query"),
        ({}, "query"),
        ({"a": "x", "b": "y"}, "query="),
        (3, "query="),
        ({"a": 3}, "query="),
    ],
)
def test_a_wrong_input_is_refused_before_any_call(chat: Any, given: Any, word: str) -> None:
    model = chat(answer=script)
    with pytest.raises(InvalidInputError, match=word):
        RunnableTPO(model | StrOutputParser(), reward=longest).invoke(given)
    assert model.calls == 0


def test_an_output_that_is_not_text_needs_a_renderer_and_a_parser(chat: Any) -> None:
    model = chat(answer=script)
    chain = RunnableLambda(lambda text: {1, 2})
    with pytest.raises(InvalidInputError, match="render="):
        RunnableTPO(chain, reward=longest, llm=model).invoke("how?")
    with pytest.raises(InvalidInputError, match="parser="):
        RunnableTPO(chain, reward=longest, llm=model, render=str).invoke("how?")
    assert model.calls == 0
    assert RunnableTPO(chain, reward=longest, mode="bon", render=str).invoke("how?") == {1, 2}


def test_a_reward_that_fails_raises_with_the_candidates(chat: Any) -> None:
    with pytest.raises(RewardError) as raised:
        RunnableTPO(chat(answer=script), reward=ScriptedReward({}), width=2).invoke("how?")
    assert raised.value.trajectory is not None and len(raised.value.trajectory.candidates) == 4


def test_two_threads_may_call_one_object(chat: Any) -> None:
    refined = RunnableTPO(chat(answer=lambda m, n: m[-1].text), reward=longest, width=2, depth=0)
    answers: dict[str, Any] = {}
    threads = [threading.Thread(target=lambda t=t: answers.update({t: refined.invoke(t).text})) for t in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {t: t for t in "abcd"}
