"""Spans of queries in OpenTelemetry's own SDK, kept in memory: what is inside what, and what they say."""

from __future__ import annotations

import asyncio
import json
import pkgutil
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instant_lm import instant_lm
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

import tpo_dspy
import tpo_otel
from echo import KEY, check_nothing_leaks, echoing
from tpo_core import GenerationError, InvalidInputError, OpenAIChat, RewardError, arun, run, run_many
from tpo_core.rewards import FunctionReward, RewardModel
from tpo_core.testing import ScriptedPolicy
from tpo_core.values import Reward


class Length(RewardModel):
    """The longer the better; says so."""

    name, merges = "length", True

    def score_batch(self, pairs: Any) -> Any:
        return [Reward(len(pair.response), feedback="a canary remark") for pair in pairs]


class Spans:
    """The finished spans."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider, self._exporter = provider, exporter

    def all(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def shape(self, root: ReadableSpan | None = None) -> Any:
        """Write what is below a span as nested names; by default below the only one without a parent."""
        if root is None:
            [root] = [span for span in self.all() if span.parent is None]
        below = [s for s in self.all() if s.parent is not None and s.parent.span_id == root.context.span_id]
        return (root.name, [self.shape(span) for span in below]) if below else root.name

    def said(self) -> str:
        return "\n".join(span.to_json() for span in self._exporter.get_finished_spans())


@pytest.fixture
def spans() -> Iterator[Spans]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tpo_otel.instrument(provider)
    yield Spans(provider, exporter)
    tpo_otel.uninstrument()


def policy() -> ScriptedPolicy:
    return ScriptedPolicy(sample=["a canary", "a longer canary"], loss=["canary"], gradient=["canary"])


QUERY = "invoke_workflow tpo"
FIRST = ("tpo.round", ["tpo.sample", "tpo.sample", "tpo.score"])
SECOND = ("tpo.round", ["tpo.loss", "tpo.gradient", "tpo.update", "tpo.update", "tpo.score"])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_is_a_tree_of_rounds_and_calls(spans: Spans, asynchronous: bool) -> None:
    settings: Any = {"width": 2, "depth": 1, "stop_at": 1e9}
    if asynchronous:
        trajectory = asyncio.run(arun("which canary?", policy(), Length(), **settings))
    else:
        trajectory = run("which canary?", policy(), Length(), **settings)
    assert spans.shape() == (QUERY, [FIRST, SECOND])
    [query], rounds = spans.named(QUERY), spans.named("tpo.round")
    told: Any = query.attributes
    assert told["gen_ai.operation.name"] == "invoke_workflow" and told["tpo.width"] == 2
    assert told["tpo.reward"] == trajectory.best.reward and told["tpo.gain"] == trajectory.gain
    assert told["tpo.calls"] == 6 and told["tpo.stop_reason"] == "depth"
    assert [dict(r.attributes or {})["tpo.step"] for r in rounds] == [0, 1]
    assert sorted(rounds[0].attributes["tpo.rewards"]) == [8, 15]  # type: ignore[index]
    score = spans.named("tpo.score")[0]
    assert score.attributes["tpo.reward_model"] == "length"  # type: ignore[index]
    assert [e.attributes["gen_ai.evaluation.score.value"] for e in score.events] == list(  # type: ignore[index]
        score.attributes["tpo.rewards"]  # type: ignore[index]
    )
    check_nothing_leaks(spans.said())


def test_the_names_are_those_of_the_semantic_conventions(spans: Spans, loopback: Any) -> None:
    model = OpenAIChat("openai/smol", api_base=loopback().url, api_key="none")
    run("how?", model, Length(), width=3, depth=1, temperature=0.5, max_response_tokens=40, seed=7)
    known = {value for name, value in vars(gen_ai_attributes).items() if name.isupper()}
    if "gen_ai.workflow.name" not in known:
        pytest.skip("these conventions are older than the names")
    used = {name for span in spans.all() for name in span.attributes or {}} | {
        name for span in spans.all() for event in span.events for name in event.attributes or {}
    }
    assert {name for name in used if not name.startswith("tpo.")} <= known
    told = dict(spans.named("tpo.sample")[0].attributes or {})
    assert told == {
        "tpo.task": "sample", "tpo.step": 0, "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "smol", "gen_ai.request.choice.count": 3, "gen_ai.request.temperature": 0.5,
        "gen_ai.request.max_tokens": 40, "gen_ai.request.seed": told["gen_ai.request.seed"],
        "gen_ai.usage.input_tokens": told["gen_ai.usage.input_tokens"],
        "gen_ai.usage.output_tokens": told["gen_ai.usage.output_tokens"],
        "gen_ai.response.finish_reasons": ("stop",) * 3,
    }  # fmt: skip
    assert told["gen_ai.usage.input_tokens"] > 0 and spans.named("tpo.sample")[0].kind is trace.SpanKind.CLIENT


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_behind_litellm_each_request_is_a_query(spans: Spans, loopback: Any, asynchronous: bool) -> None:
    import litellm

    from tpo_litellm import register

    asked: Any = {
        "model": "tpo/openai/smol", "messages": [{"role": "user", "content": "which canary?"}], "api_key": KEY,
        "api_base": loopback().url, "tpo_width": 2, "tpo_depth": 0,
    }  # fmt: skip
    register(Length())
    try:
        if asynchronous:
            await litellm.acompletion(**asked)
        else:
            await asyncio.to_thread(litellm.completion, **asked)
    finally:
        litellm.custom_provider_map = []
    [query], [sample] = spans.named(QUERY), spans.named("tpo.sample")
    assert spans.shape(query) == (QUERY, [("tpo.round", ["tpo.sample", "tpo.score"])])
    assert sample.attributes["gen_ai.request.model"] == "smol"  # type: ignore[index]
    assert sample.attributes["gen_ai.request.choice.count"] == 2  # type: ignore[index]
    check_nothing_leaks(spans.said())


def test_what_a_call_traces_is_inside_its_span_and_the_query_inside_the_caller_s(spans: Spans) -> None:
    tracer = spans.provider.get_tracer("client")

    def score(prompt: Any, response: str) -> float:
        with tracer.start_as_current_span("of the client"):
            return len(response)

    with tracer.start_as_current_span("of the caller"):
        run("how?", policy(), FunctionReward(score), width=2, depth=0)
    scored = ("tpo.score", ["of the client", "of the client"])
    assert spans.shape() == ("of the caller", [(QUERY, [("tpo.round", ["tpo.sample", "tpo.sample", scored])])])


def test_each_of_many_queries_is_a_trace_of_its_own_with_its_own_rewards(spans: Spans) -> None:
    queries = [f"q{number}" for number in range(8)]
    many = ScriptedPolicy(sample=lambda request, seed: "s" * (1 + len(request.inputs) + seed))
    trajectories = run_many(queries, many, Length(), width=2, depth=1, max_concurrency=4)
    roots = spans.named(QUERY)
    assert sorted(root.attributes["tpo.place"] for root in roots) == list(range(8))  # type: ignore[index]
    for root in roots:
        assert spans.shape(root) == (QUERY, [FIRST, SECOND])
        own = [s for s in spans.named("tpo.score") if s.context.trace_id == root.context.trace_id]
        scored = sorted(reward for span in own for reward in span.attributes["tpo.rewards"])  # type: ignore
        place: Any = root.attributes["tpo.place"]  # type: ignore[index]
        assert set(scored) == {c.reward for c in trajectories[place].candidates}


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 4), depth=st.integers(0, 2), kind=st.sampled_from(["paper", "adaptive"]), bad=st.booleans())
def test_every_span_ends_inside_its_query(width: int, depth: int, kind: Any, bad: bool) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans(provider, exporter)
    tpo_otel.instrument(provider)
    samples = ["a", RuntimeError("lost"), "bbb", "cc"] if bad else ["a", "bbb", "cc"]
    try:
        run("q", ScriptedPolicy(sample=samples), Length(), width=width, depth=depth, plan=kind, max_calls=30)
    finally:
        tpo_otel.uninstrument()
    [root] = spans.named(QUERY)
    assert {span.context.trace_id for span in spans.all()} == {root.context.trace_id}
    assert all(s.start_time >= root.start_time and (s.end_time or 0) <= (root.end_time or 0) for s in spans.all())
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_failures_are_told_by_their_kind_alone(spans: Spans) -> None:
    with pytest.raises(GenerationError):
        run("how?", ScriptedPolicy(sample=[RuntimeError("a canary")]), Length(), width=2, depth=0)
    [query] = spans.named(QUERY)
    assert query.status.status_code is trace.StatusCode.ERROR
    assert query.attributes["error.type"] == "GenerationError"  # type: ignore[index]
    assert spans.named("tpo.sample")[0].attributes["error.type"] == "RuntimeError"  # type: ignore[index]
    check_nothing_leaks(spans.said())


def test_a_failed_scoring_and_rewards_that_are_none(spans: Spans) -> None:
    with pytest.raises(RewardError):
        run("how?", policy(), lambda prompt, response: 1 / 0, width=2, depth=0)
    assert spans.named(QUERY)[0].attributes["error.type"] == "RewardError"  # type: ignore[index]
    run("how?", policy(), lambda prompt, response: float("nan") if "longer" in response else 1.0, width=2, depth=0)
    told = dict(spans.named("tpo.score")[-1].attributes or {})
    assert told["tpo.rewards"] == (1.0,) and told["tpo.unscored"] == 1


def test_one_query_s_failed_scoring_is_not_another_s(spans: Spans) -> None:
    class Picky(Length):
        def score_batch(self, pairs: Any) -> Any:
            if any("q3" in str(pair.prompt) for pair in pairs):
                raise RuntimeError("a canary")
            return super().score_batch(pairs)

    many = ScriptedPolicy(sample=lambda request, seed: "s" * (1 + seed))
    queries = [f"q{number}" for number in range(6)]
    ended = run_many(queries, many, Picky(), width=2, depth=0, return_exceptions=True)
    assert [isinstance(result, RewardError) for result in ended] == [query == "q3" for query in queries]
    for root in spans.named(QUERY):
        own = [s for s in spans.named("tpo.score") if s.context.trace_id == root.context.trace_id]
        failed = root.attributes["tpo.place"] == 3  # type: ignore[index]
        assert (own[-1].status.status_code is trace.StatusCode.ERROR) is failed
        assert ("error.type" in (root.attributes or {})) is failed
    check_nothing_leaks(spans.said())


def test_a_held_out_reward_is_the_query_s_own(spans: Spans) -> None:
    trajectory = run("how?", policy(), Length(), gold=lambda prompt, response: -len(response), width=2, depth=0)
    assert spans.shape() == (QUERY, [FIRST, "tpo.score"])
    told: Any = spans.named(QUERY)[0].attributes
    assert told["tpo.gold_reward"] == trajectory.gold[trajectory.best.index] == -15


async def test_a_cancelled_query_has_ended(spans: Spans) -> None:
    begun = asyncio.Event()

    class Hanging(ScriptedPolicy):
        async def agenerate(self, request: Any, seeds: Any) -> Any:
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(arun("how?", Hanging(), Length(), width=1, depth=0))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [query] = spans.named(QUERY)
    assert query.attributes["tpo.stop_reason"] == "cancelled"  # type: ignore[index]
    assert query.status.status_code is trace.StatusCode.UNSET


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_texts_are_there_where_asked_and_keys_never(spans: Spans, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "environment":
        monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    tpo_otel.instrument(spans.provider, capture_content=True if way == "argument" else None)
    with echoing(400) as where, pytest.raises(GenerationError):
        run("how?", OpenAIChat("openai/smol", api_base=f"http://{where}/v1", api_key=KEY), Length(), width=2, depth=0)
    assert "you sent" in spans.said()
    check_nothing_leaks(spans.said())
    run("which one?", policy(), Length(), width=2, depth=1)
    [query] = [span for span in spans.named(QUERY) if span.attributes["tpo.stop_reason"] == "depth"]  # type: ignore
    told: Any = query.attributes
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "which one?"}]}
    ]
    assert "a longer canary" in told["gen_ai.output.messages"]
    assert "which one?" in spans.named("tpo.loss")[0].attributes["gen_ai.input.messages"]  # type: ignore
    assert any("a canary remark" in str(event.attributes) for s in spans.named("tpo.score") for event in s.events)


def test_opentelemetry_s_command_finds_it(spans: Spans) -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    [where] = re.findall(r'^\[project.entry-points.opentelemetry_instrumentor\]\ntpo = "(.*)"$', project, re.MULTILINE)
    instrumentor = pkgutil.resolve_name(where)()
    instrumentor.uninstrument()
    run("how?", policy(), Length(), width=1, depth=0)
    assert spans.all() == []
    instrumentor.instrument(tracer_provider=spans.provider, skip_dep_check=True)
    run("how?", policy(), Length(), width=1, depth=0)
    assert len(spans.named(QUERY)) == 1


def test_nothing_is_traced_unless_asked(spans: Spans) -> None:
    tpo_otel.uninstrument()
    run("how?", policy(), Length(), width=2, depth=0)
    assert spans.all() == []
    with pytest.raises(InvalidInputError, match="tracer_provider"):
        tpo_otel.instrument("jaeger")  # type: ignore[arg-type]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_dspy_program_s_spans_are_its_requests_callbacks_or_not(spans: Spans, asynchronous: bool) -> None:
    tracer = spans.provider.get_tracer("client")

    class Traced(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            with tracer.start_as_current_span("of the program"):
                return self.answer(question=question)

    class Callback(dspy.utils.callback.BaseCallback):  # type: ignore[misc]
        pass

    program = tpo_dspy.TPO(Traced(), lambda prompt, response: len(response), width=3, depth=0)
    for callbacks in ([], [Callback()]):
        with dspy.context(lm=instant_lm(), callbacks=callbacks):
            if asynchronous:
                await program.acall(question="which canary?")
            else:
                await asyncio.to_thread(program, question="which canary?")
    for root in spans.named(QUERY):
        inside = [("tpo.sample", ["of the program"])] * 3
        assert spans.shape(root) == (QUERY, [("tpo.round", [*inside, "tpo.score"])])
    assert len(spans.named(QUERY)) == 2
    check_nothing_leaks(spans.said())


async def test_a_chain_s_spans_are_its_requests(spans: Spans) -> None:
    from langchain_core.runnables import RunnableLambda

    from tpo_langchain import RunnableTPO

    tracer = spans.provider.get_tracer("client")
    lock, number = threading.Lock(), iter(range(100))

    def answer(question: str) -> str:
        with tracer.start_as_current_span("of the chain"), lock:
            return f"canary {'x' * next(number)}"

    refined = RunnableTPO(RunnableLambda(answer), reward=lambda prompt, response: len(response), mode="bon", width=3)
    await asyncio.to_thread(refined.invoke, "which canary?")
    await refined.ainvoke("which canary?")
    assert len(spans.named(QUERY)) == 2
    for root in spans.named(QUERY):
        inside = [("tpo.sample", ["of the chain"])] * root.attributes["tpo.candidates"]  # type: ignore
        assert spans.shape(root)[1][0] == ("tpo.round", [*inside[:3], "tpo.score"])
    check_nothing_leaks(spans.said())
