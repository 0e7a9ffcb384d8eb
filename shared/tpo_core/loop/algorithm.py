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

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeAlias

from tpo_core.config import TPOConfig
from tpo_core.errors import TPOError
from tpo_core.loop.effects import Effect, Progress
from tpo_core.loop.ledger import Ledger
from tpo_core.loop.plans import Plan, plan_round
from tpo_core.loop.requests import make, nothing_error, request, say
from tpo_core.prompts.rendering import fence, shorten, show_query
from tpo_core.prompts.signatures import SelfCritique, TextualGradient, TextualLoss, Update
from tpo_core.trajectory import StopReason, Trajectory
from tpo_core.values import Candidate, Prompt, Step

__all__ = [
    "Loop",
    "tpo_loop",
]

Loop: TypeAlias = Generator[Effect, Any, Trajectory]
"""Yields effects, is sent their answers, returns the trajectory."""


def tpo_loop(
    query: Prompt,
    config: TPOConfig | None = None,
    *,
    inputs: Any = None,
    ledger: Ledger | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Loop:
    """Run the loop for one query as a generator of effects.

    Args:
        query: What the response answers, as the critic and the reward model read it.
        config: Width, depth, mode and budgets; ``TPOConfig()`` by default.
        inputs: What the user's program takes, handed back in ``Generate.inputs`` of task ``sample``;
            the query by default.
        ledger: Books to write in, for a driver that wants the trajectory at any moment.
        clock: Seconds, monotonic.

    Returns:
        A generator that returns the Trajectory.

    Raises:
        InvalidInputError: The query is empty or is not a prompt; raised here, before anything is asked.
        GenerationError: Not one candidate came of two rounds of sampling; carries the causes.
        RewardError: The reward model failed before it had scored a single candidate, or broke its contract; carries
            the trajectory.
    """
    show_query(query)
    config = config or TPOConfig()
    books = ledger or Ledger(query, inputs, config, clock)
    return _run(books, query if inputs is None else inputs)


def _run(books: Ledger, inputs: Any) -> Loop:
    books.start()
    try:
        for _ in range(2):
            yield from _sample(books, inputs, books.config.width, step=0)
            if books.best is not None or books.exhausted():
                break
        if books.best is None:
            raise nothing_error(books)
        books.stop_reason = yield from _rounds(books, inputs)
    except TPOError as error:
        error.trajectory = error.trajectory or books.trajectory("error")
        raise
    yield Progress("stopped", books.steps[-1].number if books.steps else 0, text=books.stop_reason, best=books.best)
    return books.trajectory()


def _rounds(books: Ledger, inputs: Any) -> Generator[Effect, Any, StopReason]:
    for number in range(1, books.config.rounds + 1):
        if stop := books.exhausted() or ("patience" if books.stalled(number) else None):
            return stop
        if stop := (yield from _round(books, inputs, number)):
            return stop
    stop = books.exhausted()
    return stop if stop in ("stop_at", "reward_failed") else "depth"


def _round(books: Ledger, inputs: Any, number: int) -> Generator[Effect, Any, StopReason | None]:
    """Run one round; returns why the loop cannot go on, or None when it can."""
    plan = plan_round(books)
    if plan is None:
        yield from _sample(books, inputs, books.config.width, number)
        plan = plan_round(books)
        if plan is None or books.exhausted():
            books.steps.append(Step(number))
            return books.exhausted() or "no_contrast"
    if books.affordable(3) < 3:  # a loss and a gradient buy nothing without an update after them
        return "max_calls"
    step = yield from _critique(books, plan, number)
    books.steps.append(step)
    if step.failure is not None or books.exhausted():
        return books.exhausted() or "critic_failed"
    for _ in range(2):
        if (yield from _improve(books, inputs, plan, step)):
            return None
        if books.exhausted():
            break
    books.steps[-1] = replace(step, failure=books.failure_of(number))
    return books.exhausted() or "no_candidates"


def _critique(books: Ledger, plan: Plan, number: int) -> Generator[Effect, Any, Step]:
    """Ask for the textual loss and the textual gradient."""
    step = Step(number, plan.chosen, plan.rejected)
    shown = {"query": _asked(books, plan.chosen)}
    chosen = _show(books, plan.chosen)
    pair = {"chosen_response": chosen}
    if plan.rejected is not None:
        pair = {"rejected_response": _show(books, plan.rejected), **pair}
    signature = TextualLoss if plan.rejected is not None else SelfCritique
    both = {"query": _asked(books, plan.chosen, plan.rejected)}
    loss = yield from say(books, "loss", signature, {**both, **pair}, number, plan.chosen)
    if loss.failure is not None:
        return replace(step, failure=loss.failure)
    step = replace(step, loss=loss.text)
    yield Progress("loss", number, text=loss.text, round=step, best=books.best)
    inputs = {**shown, "chosen_response": chosen, "critique": fence(_short(books, loss.text), "critique")}
    gradient = yield from say(books, "gradient", TextualGradient, inputs, number, plan.chosen)
    if gradient.failure is not None:
        return replace(step, failure=gradient.failure)
    step = replace(step, gradient=gradient.text)
    yield Progress("gradient", number, text=gradient.text, round=step, best=books.best)
    return step


def _improve(books: Ledger, inputs: Any, plan: Plan, step: Step) -> Generator[Effect, Any, bool]:
    """Ask for the round's updates and fresh samples, and score them; says whether any became a candidate."""
    shown = {
        "query": _asked(books, plan.chosen),
        "current_response": fence(_short(books, plan.chosen.response)),
        "editing_instructions": fence(_short(books, step.gradient), "instructions"),
    }
    updates = request(books, "update", Update, shown, plan.updates, step.number, plan.chosen)
    spare = books.affordable(plan.updates + plan.fresh) - updates.n
    fresh = request(books, "sample", None, inputs, min(plan.fresh, spare), step.number)
    return (yield from make(books, updates, fresh))


def _sample(books: Ledger, inputs: Any, n: int, step: int) -> Generator[Effect, Any, bool]:
    """Ask the user's program for samples, and score them."""
    return (yield from make(books, request(books, "sample", None, inputs, n, step)))


def _asked(books: Ledger, chosen: Candidate, rejected: Candidate | None = None) -> str:
    """Show what the chosen response answers, as its model saw it; below it the rejected one's, where that differs."""
    text = fence(_short(books, show_query(chosen.answers(books.query))), "query")
    if rejected is None or rejected.context == chosen.context:
        return text
    other = fence(_short(books, show_query(rejected.answers(books.query))), "query_of_rejected")
    return f"{text}\n\nThe rejected response was given this instead:\n{other}"


def _show(books: Ledger, candidate: Candidate) -> str:
    """Fence a candidate's text, with the reward model's remarks below it where there are any."""
    text = fence(_short(books, candidate.response))
    if candidate.feedback:
        text += "\n" + fence(_short(books, candidate.feedback), "remarks")
    return text


def _short(books: Ledger, text: str) -> str:
    return shorten(text, books.config.max_shown_chars)
