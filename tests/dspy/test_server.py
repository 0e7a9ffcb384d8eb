"""Against a real OpenAI-compatible server on loopback, through DSPy's own client."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dspy
import pytest

from loopback import LoopbackServer
from tpo_dspy import TPO

Start = Callable[..., LoopbackServer]


def answer(request: dict[str, Any], number: int) -> str:
    prompt = str(request["messages"])
    if "improved_answer" in prompt:
        return "improved " + "i" * number
    if "textual_" in prompt:
        return f"remark {number}"
    return f"[[ ## reasoning ## ]]\nr\n\n[[ ## answer ## ]]\n{'d' * (number + 1)}"


def longer(prompt: str, response: str) -> float:
    return len(response)


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_chain_of_thought_with_the_cache_on_gives_n_distinct_candidates(loopback: Start, way: str) -> None:
    server = loopback(answer=answer)
    lm = dspy.LM(f"openai/distinct-{way}", api_base=server.url, api_key="none", cache=True)
    refined = TPO(dspy.ChainOfThought("question -> answer"), longer, width=5, depth=1)
    with dspy.context(lm=lm):
        call = (lambda: refined(question="why?")) if way == "sync" else None
        prediction = call() if call else await refined.acall(question="why?")
        again = call() if call else await refined.acall(question="why?")
    responses = [c.response for c in prediction.trajectory.candidates]
    assert len(set(responses)) == 10 and again.answer == prediction.answer
    assert len(server.requests) == 12 and all("rollout_id" not in str(r) for r in server.requests)
    assert {r["temperature"] for r in server.requests} == {0.7}
    assert prediction.trajectory.usage.requests == 12 and prediction.trajectory.usage.completion_tokens > 0


def test_evaluate_with_16_threads_has_every_sample_in_flight_at_once(loopback: Start) -> None:
    barrier = threading.Barrier(16 * 3, timeout=60)  # broken unless all first samples of all examples wait together

    def meet(request: dict[str, Any], number: int) -> str:
        if "textual_" not in str(request["messages"]) and "improved_" not in str(request["messages"]):
            barrier.wait()
        return answer(request, number)

    server = loopback(answer=meet)
    lm = dspy.LM("openai/meet", api_base=server.url, api_key="none", cache=False)
    examples = [dspy.Example(question=f"{n}?").with_inputs("question") for n in range(16)]
    program = TPO(dspy.ChainOfThought("question -> answer"), longer, width=3, depth=1)
    with dspy.context(lm=lm):
        score = dspy.Evaluate(devset=examples, metric=lambda e, p: p.trajectory.gain > 0, num_threads=16)(program).score
    assert score == 100.0 and server.max_in_flight >= 48 and len(server.requests) == 16 * 8


def test_a_failing_server_costs_samples_and_not_the_answer(loopback: Start) -> None:
    server = loopback(answer=answer, failures=[400, 0, 400])
    lm = dspy.LM("openai/failing", api_base=server.url, api_key="none", cache=False, num_retries=0)
    with dspy.context(lm=lm):
        trajectory = TPO(dspy.ChainOfThought("question -> answer"), longer, width=4, depth=0)(question="?").trajectory
    assert len(trajectory.failures) == 2 and trajectory.best.reward is not None
    assert all("injected failure" in c.failure.message for c in trajectory.failures if c.failure)


def test_a_program_refined_in_json_mode_sends_a_schema_only_for_its_own_fields(loopback: Start) -> None:
    server = loopback()
    lm = dspy.LM("openai/gpt-4o-mini", api_base=server.url, api_key="none", cache=False)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        prediction = TPO(dspy.Predict("question -> answer"), longer, width=2, depth=1, mode="revision")(question="?")
    assert ["response_format" in r for r in server.requests] == [True, True, False, False, False, False]
    assert prediction.trajectory.gain > 0 and not prediction.trajectory.failures
