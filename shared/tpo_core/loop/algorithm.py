"""Test-Time Preference Optimization (arXiv:2501.12895), the algorithm and nothing else.

    C  <- score N samples of the policy                                     step 0
    D times:
        y_w, y_l <- best, worst of C                                        chosen, rejected
        L        <- critic(P_loss(x, y_w, y_l))                             TextualLoss
        dL/dy    <- critic(P_grad(x, y_w, L))                               TextualGradient
        C        <- C + scored N samples of editor(P_update(x, y_w, dL/dy)) Update
    answer  <- best of C

Two laws. The loop never calls a model: it yields effects (``loop.effects``) and is sent their answers. And what is
gained is never lost: whatever ends the loop, the best of C is in the ledger's trajectory.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeAlias

from tpo_core.errors import TPOError
from tpo_core.loop.effects import Effect, Progress
from tpo_core.loop.ledger import Ledger
from tpo_core.loop.plans import Plan, plan_round
from tpo_core.loop.requests import make, nothing_error, request, say
from tpo_core.prompts.rendering import fence, shorten, show_query
from tpo_core.prompts.signatures import SelfCritique, TextualGradient, TextualLoss, Update
from tpo_core.trajectory import StopReason, Trajectory
from tpo_core.values import Candidate, Step

__all__ = [
    "Loop",
    "tpo_loop",
]

Loop: TypeAlias = Generator[Effect, Any, Trajectory]
"""Yields effects, is sent their answers, returns the trajectory."""


def tpo_loop(ledger: Ledger) -> Loop:
    """Run the loop for one query as a generator of effects.

    Args:
        ledger: What is asked, how far and how wide; the loop enters there what it gains.

    Returns:
        A generator that returns the Trajectory.

    Raises:
        GenerationError: Not one candidate came of two rounds of sampling; carries the causes.
        RewardError: The reward model failed before it had scored a single candidate, or broke its contract; carries
            the trajectory.
    """
    ledger.start()
    try:
        stop = yield from _begin(ledger)
        if ledger.best is None:
            raise nothing_error(ledger)
        ledger.stop_reason = stop or (yield from _rounds(ledger))
    except TPOError as error:
        error.trajectory = error.trajectory or ledger.trajectory("error")
        raise
    yield Progress("stopped", ledger.steps[-1].number if ledger.steps else 0, text=ledger.stop_reason, best=ledger.best)
    return ledger.trajectory()


def _begin(ledger: Ledger) -> Generator[Effect, Any, StopReason | None]:
    """Ask for the first samples, and once more if nothing came; returns why they are fewer than they should be."""
    width = ledger.config.width
    at_once = ledger.config.samples_at_once or width
    for _ in range(2):
        for asked in range(0, width, at_once):
            yield from _sample(ledger, min(at_once, width - asked), step=0)
            if stop := ledger.exhausted():
                return stop if asked + at_once < width else None
        if ledger.best is not None or ledger.in_vain:
            break
    return None


def _rounds(ledger: Ledger) -> Generator[Effect, Any, StopReason]:
    for number in range(1, ledger.config.rounds + 1):
        if stop := ledger.exhausted() or ("patience" if ledger.stalled(number) else None):
            return stop
        if stop := (yield from _round(ledger, number)):
            return stop
    stop = ledger.exhausted()
    return stop if stop in ("stop_at", "reward_failed") else "depth"


def _round(ledger: Ledger, number: int) -> Generator[Effect, Any, StopReason | None]:
    """Run one round; returns why the loop cannot go on, or None when it can."""
    plan = plan_round(ledger)
    if plan is None:
        yield from _sample(ledger, ledger.config.width, number)
        plan = plan_round(ledger)
        if plan is None or ledger.exhausted():
            ledger.steps.append(Step(number))
            return ledger.exhausted() or "no_contrast"
    if ledger.affordable(3) < 3:  # a loss and a gradient buy nothing without an update after them
        return "max_calls"
    step = yield from _critique(ledger, plan, number)
    ledger.steps.append(step)
    if step.failure is not None or ledger.exhausted():
        return ledger.exhausted() or "critic_failed"
    for _ in range(2):
        if (yield from _improve(ledger, plan, step)):
            return None
        if ledger.exhausted():
            break
    ledger.steps[-1] = replace(step, failure=ledger.failure_of(number))
    return ledger.exhausted() or "no_candidates"


def _critique(ledger: Ledger, plan: Plan, number: int) -> Generator[Effect, Any, Step]:
    """Ask for the textual loss and the textual gradient."""
    step = Step(number, plan.chosen, plan.rejected)
    shown = {"query": _asked(ledger, plan.chosen)}
    chosen = _show(ledger, plan.chosen)
    pair = {"chosen_response": chosen}
    if plan.rejected is not None:
        pair = {"rejected_response": _show(ledger, plan.rejected), **pair}
    signature = TextualLoss if plan.rejected is not None else SelfCritique
    both = {"query": _asked(ledger, plan.chosen, plan.rejected)}
    loss = yield from say(ledger, "loss", signature, {**both, **pair}, number, plan.chosen)
    if loss.failure is not None:
        return replace(step, failure=loss.failure)
    step = replace(step, loss=loss.text)
    yield Progress("loss", number, text=loss.text, round=step, best=ledger.best)
    inputs = {**shown, "chosen_response": chosen, "critique": fence(_short(ledger, loss.text), "critique")}
    gradient = yield from say(ledger, "gradient", TextualGradient, inputs, number, plan.chosen)
    if gradient.failure is not None:
        return replace(step, failure=gradient.failure)
    step = replace(step, gradient=gradient.text)
    yield Progress("gradient", number, text=gradient.text, round=step, best=ledger.best)
    return step


def _improve(ledger: Ledger, plan: Plan, step: Step) -> Generator[Effect, Any, bool]:
    """Ask for the round's updates and fresh samples, and score them; says whether any became a candidate."""
    shown = {
        "query": _asked(ledger, plan.chosen),
        "current_response": fence(_short(ledger, plan.chosen.response)),
        "editing_instructions": fence(_short(ledger, step.gradient), "instructions"),
    }
    updates = request(ledger, "update", Update, shown, plan.updates, step.number, plan.chosen)
    spare = ledger.affordable(plan.updates + plan.fresh) - updates.n
    fresh = request(ledger, "sample", None, ledger.given, min(plan.fresh, spare), step.number)
    return (yield from make(ledger, updates, fresh))


def _sample(ledger: Ledger, n: int, step: int) -> Generator[Effect, Any, bool]:
    """Ask the user's program for samples, and score them."""
    return (yield from make(ledger, request(ledger, "sample", None, ledger.given, n, step)))


def _asked(ledger: Ledger, chosen: Candidate, rejected: Candidate | None = None) -> str:
    """Show what the chosen response answers, as its model saw it; below it the rejected one's, where that differs."""
    text = fence(_short(ledger, show_query(chosen.answers(ledger.query))), "query")
    if rejected is None or rejected.context == chosen.context:
        return text
    other = fence(_short(ledger, show_query(rejected.answers(ledger.query))), "query_of_rejected")
    return f"{text}\n\nThe rejected response was given this instead:\n{other}"


def _show(ledger: Ledger, candidate: Candidate) -> str:
    """Fence a candidate's text, with the reward model's remarks below it where there are any."""
    text = fence(_short(ledger, candidate.response))
    if candidate.feedback:
        text += "\n" + fence(_short(ledger, candidate.feedback), "remarks")
    return text


def _short(ledger: Ledger, text: str) -> str:
    return shorten(text, ledger.config.max_shown_chars)
