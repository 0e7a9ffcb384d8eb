"""A TPO program in its host: streams, callbacks, traces, settings, deadlines."""

from __future__ import annotations

import asyncio
import contextvars
import doctest
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

import dspy
import pytest
from dspy.streaming import StatusMessage, StatusMessageProvider, StreamListener
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from tpo_core import Progress
from tpo_dspy import TPO

Scripted = Callable[..., dspy.LM]
RULES: list[Any] = [
    ("improved_answer", lambda prompt, number: f"improved {'i' * number}"),
    ("textual_gradient", "Write more."),
    ("textual_loss", "The chosen one says more."),
    ("answer", lambda prompt, number: {"reasoning": "because", "answer": "d" * number}),
]


def longer(prompt: str, response: str) -> float:
    return len(response)


def refined(**settings: Any) -> TPO:
    return TPO(dspy.ChainOfThought("question -> answer"), longer, **{"width": 2, "depth": 1, **settings})


@pytest.fixture(autouse=True)
def lm(scripted: Scripted) -> dspy.LM:
    lm = scripted(RULES)
    dspy.configure(lm=lm, trace=[], adapter=None, callbacks=[], track_usage=False)
    return lm


ROUNDS = [
    "round 0: 2 of 2 samples became candidates, best reward 2",
    "round 1: 2 of 2 samples became candidates, best reward 15",
    "stopped: depth, best reward 15",
]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("deadline", [None, 60.0])
async def test_a_stream_gives_a_status_message_per_round_and_the_answer(is_async: bool, deadline: float | None) -> None:
    streamed = dspy.streamify(refined(deadline=deadline), is_async_program=is_async)
    seen = [item async for item in streamed(question="why?")]
    assert [item.message for item in seen if isinstance(item, StatusMessage)] == ROUNDS
    assert seen[-1].answer.startswith("improved") and len(seen) == 4


async def test_listeners_and_status_providers_do_not_disturb_a_stream() -> None:
    class Provider(StatusMessageProvider):
        def module_start_status_message(self, instance: Any, inputs: Any) -> str | None:
            return "TPO starts" if isinstance(instance, TPO) else None

    program = refined()
    listener = StreamListener("improved_answer", predict=program.update, predict_name="update")
    streamed = dspy.streamify(program, stream_listeners=[listener], status_message_provider=Provider())
    seen = [item async for item in streamed(question="why?")]
    assert [item.message for item in seen[:-1]] == ["TPO starts", *ROUNDS]
    assert seen[-1].answer.startswith("improved")


def test_a_sync_stream_works_too() -> None:
    seen = list(dspy.streamify(refined(), async_streaming=False)(question="why?"))
    assert [item.message for item in seen[:-1]] == ROUNDS


class Tree(BaseCallback):  # type: ignore[misc]
    """Keeps who called whom."""

    def __init__(self) -> None:
        self.nodes: dict[str, tuple[str, str | None]] = {}
        self.ended: dict[str, Any] = {}
        self.lock = threading.Lock()

    def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        with self.lock:
            assert call_id not in self.nodes
            self.nodes[call_id] = (type(instance).__name__, ACTIVE_CALL_ID.get())

    def on_lm_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        self.on_module_start(call_id, instance, inputs)

    def on_module_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
        self.ended[call_id] = outputs if exception is None else exception

    def on_lm_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
        self.on_module_end(call_id, outputs, exception)

    def paths(self) -> list[str]:
        def path(call_id: str | None) -> list[str]:
            if call_id is None:
                return []
            name, parent = self.nodes[call_id]
            return [*path(parent), name]

        return sorted({" ".join(path(call_id)) for call_id in self.nodes})


current: contextvars.ContextVar[str | None] = contextvars.ContextVar("current", default=None)


class Spans(Tree):
    """Keeps the current span in a context variable, as tracing tools do."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, Any] = {}

    def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
        with self.lock:
            self.nodes[call_id] = (type(instance).__name__, current.get())
            self.tokens[call_id] = current.set(call_id)

    def on_module_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
        current.reset(self.tokens[call_id])  # raises in any other context
        super().on_module_end(call_id, outputs, exception)


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("deadline", [None, 60.0])
@pytest.mark.parametrize("kind", [Tree, Spans])
def test_callbacks_see_a_tree(kind: type[Tree], way: str, deadline: float | None) -> None:
    tree = kind()
    program = refined(deadline=deadline)
    with dspy.context(callbacks=[tree]):
        if way == "sync":
            program(question="why?")
        else:
            asyncio.run(program.acall(question="why?"))
    assert tree.paths() == [
        "TPO",
        "TPO Round",
        "TPO Round Gradient",
        "TPO Round Gradient Predict",
        "TPO Round Gradient Predict LM",
        "TPO Round Loss",
        "TPO Round Loss Predict",
        "TPO Round Loss Predict LM",
        "TPO Round Sample",
        "TPO Round Sample ChainOfThought",
        "TPO Round Sample ChainOfThought Predict",
        "TPO Round Sample ChainOfThought Predict LM",
        "TPO Round Score",
        "TPO Round Update",
        "TPO Round Update Predict",
        "TPO Round Update Predict LM",
    ]
    assert tree.ended.keys() == tree.nodes.keys()
    rounds = [tree.ended[call_id] for call_id, (name, _) in tree.nodes.items() if name == "Round"]
    assert [r.step for r in rounds] == [0, 1] and rounds[1].best == 15


def test_a_failing_run_closes_its_round_and_a_failing_callback_costs_nothing() -> None:
    class Broken(Tree):
        def on_module_start(self, call_id: str, instance: Any, inputs: Any) -> None:
            super().on_module_start(call_id, instance, inputs)
            raise RuntimeError("no disk")

    tree = Broken()

    def broken(prompt: str, response: str) -> float:
        raise ValueError("no reward today")

    with dspy.context(callbacks=[tree]), pytest.raises(Exception, match="no reward today"):
        TPO(dspy.Predict("question -> answer"), broken, width=2, depth=1)(question="why?")
    assert tree.ended.keys() == tree.nodes.keys()


def test_the_trace_is_the_path_to_the_answer() -> None:
    program = refined(width=3, depth=2)
    with dspy.context(trace=[]):
        prediction = program(question="why?")
        steps = [(step[0], step[2]) for step in dspy.settings.trace]
    order = [program.program.predict, *[program.loss, program.gradient, program.update] * 2]
    assert [predictor for predictor, _ in steps] == order
    assert steps[-1][1].improved_answer == prediction.answer


def test_the_trace_tells_what_did_not_help() -> None:
    program = TPO(dspy.Predict("question -> answer"), lambda prompt, response: -len(response), width=2, depth=2)
    with dspy.context(trace=[]):
        prediction = program(question="why?")
        steps = [step[0] for step in dspy.settings.trace]
    assert prediction.answer == "d" and steps == program.predictors()


def test_traces_may_be_off_or_short() -> None:
    for settings, length in (({"trace": None}, None), ({"trace": [], "max_trace_size": 2}, 2)):
        with dspy.context(**settings):
            refined()(question="why?")
            assert dspy.settings.trace is None or len(dspy.settings.trace) == length


def test_context_reaches_every_thread_and_ends_with_its_block(lm: dspy.LM, scripted: Scripted) -> None:
    other = scripted(RULES, style="json")
    with dspy.context(lm=other, adapter=dspy.JSONAdapter()):
        refined()(question="why?")
    assert len(other.engine.requests) == 6 and not lm.engine.requests
    refined()(question="why?")
    assert len(lm.engine.requests) == 6


def test_it_runs_in_threads_that_may_not_configure() -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(refined()(question="why?")))
    thread.start()
    thread.join()
    assert answers[0].answer.startswith("improved")


def test_histories_of_the_lm_and_of_the_module_hold_every_call(lm: dspy.LM) -> None:
    program = refined()
    program(question="why?")
    assert len(program.history) == len(lm.history) == 6


async def test_an_async_observer_is_awaited() -> None:
    seen: list[str] = []

    async def observe(progress: Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress.kind)

    await refined(on_progress=observe).acall(question="why?")
    assert seen == ["scored", "loss", "gradient", "scored", "stopped"]


def test_evaluate_and_parallel_take_it_as_any_program() -> None:
    examples = [dspy.Example(question=f"{n}?").with_inputs("question") for n in range(4)]
    evaluate = dspy.Evaluate(devset=examples, metric=lambda e, p: len(p.answer) > 5, num_threads=4)
    assert evaluate(refined()).score == 100.0
    answers = dspy.Parallel(num_threads=2, disable_progress_bar=True)([(refined(), e) for e in examples])
    assert all(p.answer.startswith("improved") for p in answers)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_deadline_returns_the_best_so_far(way: str, scripted: Scripted) -> None:
    release = threading.Event()

    def slow(prompt: str, number: int) -> dict[str, Any]:
        if number > 1:
            release.wait(30)
        return {"reasoning": "r", "answer": "d" * number}

    class Threaded:
        async def complete(self, request: Any) -> Any:
            return await asyncio.to_thread(script.complete, request)

    lm = scripted([("answer", slow)])
    script = lm.engine
    program = refined(width=3, deadline=1.0)
    with dspy.context(lm=lm.copy(async_engine=Threaded())):
        call = program if way == "sync" else lambda **inputs: asyncio.run(_released(program.acall(**inputs), release))
        prediction = call(question="why?")
    release.set()
    assert prediction.answer == "d" and prediction.trajectory.stop_reason == "deadline"
    assert [c.failure.reason for c in prediction.trajectory.failures if c.failure] == ["deadline"] * 2


async def _released(work: Any, release: threading.Event) -> Any:
    try:
        return await work
    finally:
        release.set()  # before the loop closes: it waits for its threads


async def test_a_cancelled_call_leaves_no_task_behind(scripted: Scripted) -> None:
    started = asyncio.Event()

    class Slow:
        async def complete(self, request: Any) -> Any:
            started.set()
            await asyncio.Event().wait()

    lm = scripted(RULES).copy(async_engine=Slow())
    with dspy.context(lm=lm, callbacks=[Tree()]):
        task = asyncio.ensure_future(refined().acall(question="why?"))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
    # Python 3.10 raises a new CancelledError whose context is the one that ended the run
    error = cancelled.value if sys.version_info >= (3, 11) else cancelled.value.__context__
    assert error.trajectory.stop_reason == "cancelled"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    "module", ["adapters", "agents", "best_of_n", "callbacks", "fields", "policy", "rewarded", "tpo"]
)
def test_the_examples_of_docstrings_are_true(module: str) -> None:
    assert doctest.testmod(import_module(f"tpo_dspy.{module}")).failed == 0
