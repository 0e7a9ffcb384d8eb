"""RunnableTPO is a Runnable as langchain-core expects one: schemas, settings, streams, traces, drawing, leaving."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableField, RunnableBranch, RunnableLambda, RunnableSequence
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI

from tpo_core import GenerationError, InvalidInputError, Trajectory
from tpo_core.testing import ScriptedReward
from tpo_langchain import RunnableTPO, TunedPrompt

PROMPT = ChatPromptTemplate.from_messages([("system", "Answer in English."), ("user", "{question}")])


def longest(prompt: Any, response: str) -> float:
    return len(response)


def script(messages: Any, number: int) -> str:
    asked = messages[-1].text
    for word, said in (("lower. Compare", "a critique"), ("Turn it into", "instructions")):
        if word in asked:
            return said
    return f"sample {'x' * number}" if "Rewrite" not in asked else f"an updated answer {'y' * number}"


@pytest.fixture
def refined(chat: Any) -> RunnableTPO:
    return RunnableTPO(PROMPT | chat(answer=script) | StrOutputParser(), reward=longest, width=2, depth=1)


# -- schemas, settings, decorators ----------------------------------------------------------------------------------


def test_schemas_are_those_of_what_is_wrapped(refined: RunnableTPO) -> None:
    inner = refined.runnable
    assert refined.InputType is inner.InputType and refined.OutputType is inner.OutputType is str
    assert refined.get_input_jsonschema() == inner.get_input_jsonschema()
    assert refined.get_output_jsonschema() == inner.get_output_jsonschema()
    assert refined.get_name() == "RunnableTPO"


def test_settings_are_configurable_under_their_own_names_or_yours(refined: RunnableTPO) -> None:
    ids = {spec.id for spec in refined.config_specs}
    assert {"tpo_width", "tpo_depth", "tpo_mode", "tpo_max_calls", "tpo_deadline"} <= ids
    mine = refined.configurable_fields(width=ConfigurableField(id="tpo_width"), depth=ConfigurableField(id="rounds"))
    assert {spec.id for spec in mine.config_specs} == ids | {"rounds"}
    model: Any = refined.runnable.steps[1]  # type: ignore[attr-defined]
    mine.invoke({"question": "how?"}, {"configurable": {"tpo_width": 4, "rounds": 0}})
    assert model.calls == 4
    assert {s.id for s in (refined | RunnableTPO(refined, reward=longest, llm=model)).config_specs} == ids


def test_models_inside_may_be_configurable_too(chat: Any) -> None:
    model = chat(answer=script).configurable_alternatives(
        ConfigurableField(id="llm"), default_key="one", other=chat(answer=lambda m, n: f"other {n}")
    )
    refined = RunnableTPO(model | StrOutputParser(), reward=longest, width=2)
    assert "llm" in {spec.id for spec in refined.config_specs}
    assert refined.invoke("how?", {"configurable": {"llm": "other"}}).startswith("other")


def test_retry_and_fallbacks_go_around_it(chat: Any) -> None:
    attempts = []

    def flaky(messages: Any, number: int) -> str:
        attempts.append(number)
        if len(attempts) <= 4:
            raise ConnectionError("gone")
        return "there"

    refined = RunnableTPO(chat(answer=flaky) | StrOutputParser(), reward=longest, width=2, depth=0)
    assert refined.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).invoke("how?") == "there"
    broken = RunnableTPO(RunnableLambda(lambda _: 1 / 0), reward=longest, mode="bon")
    assert broken.with_fallbacks([RunnableLambda(lambda _: "instead")]).invoke("how?") == "instead"
    with pytest.raises(GenerationError, match="ZeroDivisionError") as raised:
        broken.invoke("how?")
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_what_is_bound_goes_to_the_wrapped_runnable(chat: Any) -> None:
    model = chat(answer=script)
    RunnableTPO(model, reward=longest, width=1, depth=0).bind(stop=["end"], flavour=1).invoke("how?")
    assert model.log.kwargs[0]["flavour"] == 1


def test_it_is_a_tool(refined: RunnableTPO) -> None:
    tool = refined.as_tool(name="answerer", description="Answers well.")
    assert tool.args["question"] and tool.invoke({"question": "how?"}).startswith("an updated answer")


def test_its_graph_shows_the_loop_and_its_prompts(refined: RunnableTPO) -> None:
    graph = refined.get_graph()
    names = {node.name for node in graph.nodes.values()}
    assert {"ChatPromptTemplate", "Chat"} <= names
    ids = [i for i in graph.nodes if i.startswith("tpo:")]
    assert ids == ["tpo:score", "tpo:loss", "tpo:gradient", "tpo:update"]
    assert graph.first_node() is not None and graph.last_node() is not None
    assert "tpo" in graph.draw_mermaid()
    turns = [prompt.messages for prompt in refined.get_prompts()]  # type: ignore[attr-defined]
    assert turns[0][0].prompt.template == "Answer in English." and len(turns) == 4
    assert "Rewrite" in turns[3][-1].prompt.template
    assert (PROMPT | refined).get_graph().draw_mermaid()


def test_its_graph_and_its_requests_have_one_critique_where_that_is_merged(chat: Any) -> None:
    model = chat(answer=script)
    merged = RunnableTPO(model, reward=longest, width=2, depth=1, merged_critique=True)
    assert [i for i in merged.get_graph().nodes if i.startswith("tpo:")] == ["tpo:score", "tpo:loss", "tpo:update"]
    merged.invoke("how?")
    assert [any(word in m[-1].text for word in ("From that", "Rewrite")) for m in model.log.messages[2:]] == [True] * 3


def test_prompts_may_be_said_in_other_words(chat: Any) -> None:
    model = chat(answer=script)
    words = {
        "loss": TunedPrompt("Compare them kindly.", ({"chosen_response": "a", "textual_loss": "fine"},)),
        "update": TunedPrompt("Rewrite it in verse."),
    }
    refined = RunnableTPO(model, reward=longest, width=2, depth=1, prompts=words)
    refined.invoke("how?")
    loss, update = model.log.messages[2], model.log.messages[4]
    assert loss[0].text == "Compare them kindly." and loss[2].text == "fine" and len(loss) == 4
    assert "\n\nRewrite it in verse.\n\n" in update[1].text and "Rewrite a response" not in update[1].text


# -- leaving the process --------------------------------------------------------------------------------------------


def test_it_is_written_and_read_where_its_parts_allow() -> None:
    model = ChatOpenAI(model="smol", api_key="none", base_url="http://127.0.0.1:1/v1")
    refined = RunnableTPO(PROMPT | model | StrOutputParser(), reward="http://127.0.0.1:1/score", width=3)
    text = dumps(refined)
    trusted = [RunnableTPO, RunnableSequence, ChatPromptTemplate, ChatOpenAI, StrOutputParser, *PROMPT.messages]
    settings: Any = {
        "valid_namespaces": ["tpo_langchain", "langchain_openai"],
        "allowed_objects": [t if isinstance(t, type) else type(t) for t in [*trusted, PROMPT.messages[0].prompt]],  # type: ignore[union-attr]
        "secrets_map": {"OPENAI_API_KEY": "none"},
    }
    read = loads(text, **settings)
    assert isinstance(read, RunnableTPO) and read.width == 3 and read.depth == 2
    assert dumps(read) == text
    with pytest.raises(NotImplementedError):
        loads(dumps(RunnableTPO(model, reward=longest)), **settings)


def test_it_is_pickled_where_its_parts_allow_and_says_which_does_not() -> None:
    model = FakeListChatModel(responses=["one", "three"])
    refined = RunnableTPO(PROMPT | model | StrOutputParser(), reward=longest, width=2, depth=0)
    read = pickle.loads(pickle.dumps(refined))  # noqa: S301
    assert read.invoke({"question": "how?"}) == "three" and read.width == 2
    with pytest.raises(TypeError, match="its reward cannot"):
        pickle.dumps(RunnableTPO(model, reward=lambda prompt, response: 1.0))
    assert refined.model_copy().invoke({"question": "how?"}) == "three"


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_the_final_answer_is_streamed_in_chunks(refined: RunnableTPO) -> None:
    chunks = list(refined.stream({"question": "how?"}))
    assert len(chunks) > 2 and "".join(chunks).startswith("an updated answer")
    achunks = [chunk async for chunk in (refined | RunnableLambda(str.upper)).astream({"question": "how?"})]
    assert "".join(achunks).startswith("AN UPDATED ANSWER")
    through = [c async for c in (RunnableLambda(lambda x: {"question": x}) | refined).astream("how?")]
    assert len(through) > 2


async def test_a_message_is_streamed_as_message_chunks(chat: Any) -> None:
    refined = RunnableTPO(chat(answer=script), reward=longest, width=2, depth=1)
    chunks = [chunk async for chunk in refined.astream("how?")]
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks) and len(chunks) > 2
    whole = sum(chunks[1:], chunks[0])
    assert whole.text.startswith("an updated answer") and whole.usage_metadata["input_tokens"] == 60
    assert {chunk.id for chunk in chunks} == {whole.id} and whole.response_metadata["tpo"]["calls"] == 6


# -- traces -----------------------------------------------------------------------------------------------------------


SHAPE = ["tpo:sample"] * 2 + ["tpo:score", "tpo:loss", "tpo:gradient"] + ["tpo:update"] * 2 + ["tpo:score"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_every_call_is_a_child_of_the_run(refined: RunnableTPO, tree: Any, way: str) -> None:
    given = {"question": "how?"}
    run_id = uuid4()
    refined = refined.model_copy(update={"trace_trajectory": True})
    config: Any = {"callbacks": [tree], "tags": ["mine"], "metadata": {"user": 7}, "run_name": "root", "run_id": run_id}
    await {
        "invoke": lambda: asyncio.to_thread(refined.invoke, given, config),
        "ainvoke": lambda: refined.ainvoke(given, config),
        "stream": lambda: asyncio.to_thread(lambda: list(refined.stream(given, config))),
        "astream": lambda: _drain(refined.astream(given, config)),
        "batch": lambda: asyncio.to_thread(refined.batch, [given], config),
    }[way]()
    root = tree.root
    assert root.name == "root" and root.id == run_id
    assert [run.name for run in root.child_runs] == SHAPE
    assert all("mine" in run.tags and run.metadata["user"] == 7 for run in root.child_runs)
    sample, loss = tree.named("tpo:sample")[0], tree.named("tpo:loss")[0]
    assert [run.name for run in sample.child_runs] == ["ChatPromptTemplate", "Chat", "StrOutputParser"]
    assert [run.name for run in loss.child_runs] == ["Chat"]
    assert "tpo:round:0" in sample.tags and "tpo:round:1" in loss.tags
    assert "nostream" in sample.child_runs[1].tags
    score = tree.named("tpo:score")[0]
    assert set(score.inputs) == {"prompt", "responses"} and len(score.outputs["output"]) == 2
    assert root.metadata["tpo"]["calls"] == 6
    assert isinstance(Trajectory.from_dict(root.metadata["tpo_trajectory"]), Trajectory)


async def _drain(chunks: Any) -> None:
    async for _ in chunks:
        pass


def test_one_request_with_n_is_one_child(loopback: Any, tree: Any) -> None:
    model = ChatOpenAI(model="smol", base_url=loopback().url, api_key="none")
    chain = (PROMPT | model.with_config(tags=["inner"]) | StrOutputParser()).with_config(tags=["outer"])
    for wrapped, names in (
        (chain.bound, ["ChatPromptTemplate", "ChatOpenAI", *["StrOutputParser"] * 3]),
        (chain, ["ChatPromptTemplate", "ChatOpenAI", "StrOutputParser"]),  # what is bound around it is kept
    ):
        tree.roots.clear()
        RunnableTPO(wrapped, reward=longest, width=3, depth=0).invoke({"question": "how?"}, {"callbacks": [tree]})
        sample = tree.named("tpo:sample")[0]
        assert [run.name for run in sample.child_runs] == names
        assert "inner" in sample.child_runs[1].tags


async def test_events_are_a_tree_with_one_custom_event_per_turn_of_the_loop(refined: RunnableTPO) -> None:
    events = [e async for e in refined.astream_events({"question": "how?"}, version="v2")]
    starts = [e for e in events if e["event"] == "on_chain_start"]
    root = starts[0]["run_id"]
    children = [e["name"] for e in starts if e["parent_ids"] == [root]]
    assert children == SHAPE
    custom = [e for e in events if e["event"] == "on_custom_event"]
    assert [e["name"] for e in custom] == ["tpo:scored", "tpo:loss", "tpo:gradient", "tpo:scored", "tpo:stopped"]
    assert all(e["parent_ids"] == [] and e["run_id"] == root for e in custom)
    assert custom[0]["data"]["step"] == 0 and len(custom[0]["data"]["candidates"]) == 2
    assert custom[1]["data"]["text"] == "a critique" and custom[-1]["data"]["text"] == "depth"
    chunks = [e["data"]["chunk"] for e in events if e["event"] == "on_chain_stream" and e["run_id"] == root]
    assert "".join(chunks).startswith("an updated answer")


def test_a_reward_that_is_a_runnable_is_traced_under_its_scoring(chat: Any, tree: Any) -> None:
    judge = RunnableLambda(lambda pair: len(pair["response"]), name="judge")
    RunnableTPO(chat(answer=script), reward=judge, width=2, depth=0).invoke("how?", {"callbacks": [tree]})
    [score] = tree.named("tpo:score")
    assert [run.name for run in score.child_runs] == ["judge"] * 2


def test_an_error_ends_the_run_with_an_error(chat: Any, tree: Any) -> None:
    refined = RunnableTPO(chat(answer=script), reward=ScriptedReward({}), width=2)
    with pytest.raises(Exception, match="scored none"):
        refined.invoke("how?", {"callbacks": [tree]})
    assert "scored none" in tree.root.error


async def test_cancelling_reaches_the_calls_under_way(chat: Any, tree: Any) -> None:
    all_started, started, stopped = asyncio.Event(), [], []

    async def slow(text: str) -> str:
        started.append(text)
        if len(started) == 3:
            all_started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(text)
            raise
        return text

    refined = RunnableTPO(RunnableLambda(lambda x: x, slow), reward=longest, mode="bon", width=3)
    task = asyncio.create_task(refined.ainvoke("how?", {"callbacks": [tree]}))
    await all_started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped == ["how?"] * 3 and tree.root.error


def test_what_comes_out_of_a_nested_one_is_refined_twice(chat: Any) -> None:
    model = chat(answer=script)
    inner = RunnableTPO(model, reward=longest, width=2, depth=0)
    message = RunnableTPO(inner, reward=longest, llm=model, width=2, depth=0).invoke("how?")
    assert isinstance(message, AIMessage) and model.calls == 4


def test_a_critic_whose_prompt_has_no_place_for_the_loops_messages_is_refused_before_any_call(chat: Any) -> None:
    model = chat(answer=script)
    history = ChatPromptTemplate([("placeholder", "{history}"), ("human", "{question}")])
    for prompt in (history, PROMPT):
        for name in ("llm", "critic", "editor"):
            with pytest.raises(
                InvalidInputError, match=rf"{name} begins with a prompt .*MessagesPlaceholder\('messages'"
            ):
                RunnableTPO(model, longest, **{name: prompt | model})
    assert model.calls == 0
    kind = ChatPromptTemplate([("system", "Be kind."), MessagesPlaceholder("messages")])
    RunnableTPO(model, longest, critic=kind | model, width=2, depth=1).invoke("how?")
    assert any(turns[0].text == "Be kind." and len(turns) > 2 for turns in model.log.messages)


@pytest.mark.parametrize("where", ["itself", "bound", "in a sequence", "in a branch", "in a function"])
def test_a_history_that_every_sample_would_write_to_is_refused_before_any_call(chat: Any, where: str) -> None:
    model, kept = chat(answer=script), InMemoryChatMessageHistory()
    remembering = RunnableWithMessageHistory(model, lambda session_id: kept)

    def answer(given: Any) -> Any:
        return remembering.invoke(given)

    program: Any = {
        "itself": remembering,
        "bound": remembering.with_config(configurable={"session_id": "1"}).with_retry(),
        "in a sequence": PROMPT | remembering | StrOutputParser(),
        "in a branch": RunnableBranch((lambda given: True, remembering), remembering),
        "in a function": RunnableLambda(answer),
    }[where]
    for name in ("llm", "critic", "editor"):
        with pytest.raises(InvalidInputError, match=f"{name} holds a RunnableWithMessageHistory.*chat model itself"):
            RunnableTPO(model, longest, **{name: remembering})
    with pytest.raises(InvalidInputError, match=r"other way round, RunnableWithMessageHistory\(prompt \| RunnableTPO"):
        RunnableTPO(program, longest, llm=model)
    assert model.calls == 0 and kept.messages == []
