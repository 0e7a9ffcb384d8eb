"""Test-Time Preference Optimization (arXiv:2501.12895), the algorithm and nothing else.

    C  <- score N samples of the policy                                     step 0
    D times:
        y_w, y_l <- best, worst of C                                        chosen, rejected
        L        <- critic(P_loss(x, y_w, y_l))                             TextualLoss
        dL/dy    <- critic(P_grad(x, y_w, L))                               TextualGradient
        C        <- C + scored N samples of editor(P_update(x, y_w, dL/dy)) Update
    answer  <- best of C

That is the paper's plan; what a round contrasts and samples is a plan's word (``loop.plans``, ``loop.adaptive``).

Two laws. The loop never calls a model: it yields effects (``loop.effects``) and is sent their answers. And what is
gained is never lost: whatever ends the loop, the best of C is in the ledger's trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

from tpo_core.errors import TPOError
from tpo_core.loop.adaptive import adaptive_plan, first_samples
from tpo_core.loop.effects import Effect, Generate, Progress
from tpo_core.loop.learning import learn
from tpo_core.loop.ledger import Ledger
from tpo_core.loop.plans import Contrast, Plan, Repeat, paper_plan
from tpo_core.loop.requests import Question, make, nothing_error, request, say
from tpo_core.prompts.rendering import fence, shorten, show_query
from tpo_core.prompts.signatures import (
    Instructions,
    SelfCritique,
    SelfInstructions,
    TextualGradient,
    TextualLoss,
    Update,
)
from tpo_core.trajectory import StopReason, Trajectory
from tpo_core.values import Candidate, Completion, Step, changed

__all__ = [
    "Loop",
    "tpo_loop",
]

WORDS_A_TOKEN = 0.6
"""Words that fit into a token, with room to spare: about 0.75 in plain English, fewer in lists and other languages."""

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
    adaptive = ledger.config.plan == "adaptive"
    try:
        stop = yield from _begin(ledger, first_samples(ledger) if adaptive else ledger.config.width)
        if ledger.best is None:
            raise nothing_error(ledger)
        ledger.stop_reason = stop or (yield from _rounds(ledger, adaptive_plan if adaptive else paper_plan))
        learn(ledger)
    except TPOError as error:
        error.trajectory = error.trajectory or ledger.trajectory("error")
        raise
    yield Progress("stopped", ledger.steps[-1].step if ledger.steps else 0, text=ledger.stop_reason, best=ledger.best)
    return ledger.trajectory()


def _begin(ledger: Ledger, width: int) -> Generator[Effect, Any, StopReason | None]:
    """Ask for the first samples, and once more if nothing came; returns why they are fewer than they should be."""
    at_once = ledger.config.samples_at_once or width
    for _ in range(2):
        for asked in range(0, width, at_once):
            yield from _sample(ledger, min(at_once, width - asked), step=0)
            if stop := ledger.exhausted():
                return stop if asked + at_once < width else None
        if ledger.best is not None or ledger.in_vain:
            break
    return None


def _rounds(ledger: Ledger, plan: Callable[[Ledger, int], Plan | StopReason]) -> Generator[Effect, Any, StopReason]:
    number = 1
    while True:
        learn(ledger)
        if stop := ledger.exhausted() or ("patience" if ledger.stalled(number) else None):
            return _last(ledger, number, stop)
        planned = plan(ledger, number)
        if not isinstance(planned, Plan):
            return _last(ledger, number, planned)
        if stop := (yield from _round(ledger, planned, number)):
            return stop
        number += planned.final


def _last(ledger: Ledger, number: int, stop: StopReason) -> StopReason:
    """Enter a round that only sampled before the loop ends; return why it ends."""
    if number > ledger.config.rounds and ledger.config.plan == "paper" and stop not in ("stop_at", "reward_failed"):
        return "depth"
    if ledger.of_step(number):
        ledger.steps.append(Step(number))
    return stop


def _round(ledger: Ledger, plan: Plan, number: int) -> Generator[Effect, Any, StopReason | None]:
    """Run one round; returns why the loop cannot go on, or None when it can."""
    paper = ledger.config.plan == "paper"
    if plan.repeat is not None:
        yield from _repeat(ledger, plan.repeat, number)
        return None
    if not plan.contrasts:
        yield from _sample(ledger, plan.fresh, number)
        return None
    least = ledger.config.critique_calls + 1
    if ledger.affordable(least) < least:  # a loss and a gradient buy nothing without an update after them
        return "max_calls"
    first = len(ledger.steps)
    ledger.steps += yield from _critique(ledger, plan, number)
    if all(step.failure is not None for step in ledger.steps[first:]) or ledger.exhausted():
        return ledger.exhausted() or ("critic_failed" if paper else None)
    for _ in range(2):
        if (yield from _improve(ledger, plan, first)):
            return None
        if ledger.exhausted():
            break
    failure = ledger.failure_of(number)
    ledger.steps[first:] = [changed(step, failure=step.failure or failure) for step in ledger.steps[first:]]
    return ledger.exhausted() or ("no_candidates" if paper else None)


def _critique(ledger: Ledger, plan: Plan, number: int) -> Generator[Effect, Any, list[Step]]:
    """Ask for the textual losses and the textual gradients of a round; returns one step per contrast."""
    steps = [Step(number, contrast.chosen, contrast.rejected) for contrast in plan.contrasts]
    losses = yield from say(ledger, "loss", [_loss(ledger, contrast) for contrast in plan.contrasts], number)
    steps = [_told(step, said, "loss") for step, said in zip(steps, losses, strict=True)]
    if ledger.config.merged_critique:
        return (yield from _merged(ledger, steps))
    for step in steps:
        if step.failure is None:
            yield Progress("loss", number, text=step.loss, round=step, best=ledger.best)
    left = [place for place, step in enumerate(steps) if step.failure is None]
    gradients = yield from say(ledger, "gradient", [_gradient(ledger, steps[place]) for place in left], number)
    for place, said in zip(left, gradients, strict=True):
        steps[place] = step = _told(steps[place], said, "gradient")
        if step.failure is None:
            yield Progress("gradient", number, text=step.gradient, round=step, best=ledger.best)
    return steps


def _merged(ledger: Ledger, steps: list[Step]) -> Generator[Effect, Any, list[Step]]:
    """Take what was said for instructions; returns the steps."""
    steps = [changed(step, gradient=step.loss, loss="") for step in steps]
    for step in steps:
        if step.failure is None:
            yield Progress("gradient", step.step, text=step.gradient, round=step, best=ledger.best)
    return steps


def _told(step: Step, said: Completion, name: str) -> Step:
    """Return a step with what the critic said, or with the reason why it said nothing."""
    if said.failure is not None:
        return changed(step, failure=said.failure)
    return changed(step, loss=said.text) if name == "loss" else changed(step, gradient=said.text)


def _loss(ledger: Ledger, contrast: Contrast) -> Question:
    chosen, rejected = contrast.chosen, contrast.rejected
    shown = {"query": _asked(ledger, chosen, rejected)}
    merged = ledger.config.merged_critique
    if rejected is None:
        alone = SelfInstructions if merged else SelfCritique
        return Question(alone, {**shown, "chosen_response": _show(ledger, chosen)}, chosen)
    pair = {"chosen_response": _show(ledger, chosen), "rejected_response": _show(ledger, rejected)}
    return Question(Instructions if merged else TextualLoss, {**shown, **pair}, chosen)


def _gradient(ledger: Ledger, step: Step) -> Question:
    chosen = _parent(step)
    shown = {
        "query": _asked(ledger, chosen),
        "chosen_response": _show(ledger, chosen),
        "critique": fence(_short(ledger, step.loss), "critique"),
    }
    return Question(TextualGradient, shown, chosen)


def _improve(ledger: Ledger, plan: Plan, first: int) -> Generator[Effect, Any, bool]:
    """Ask for the round's updates and fresh samples, and score them; returns whether any became a candidate.

    ``first`` is the place of the round's first step.
    """
    places = [first + i for i, step in enumerate(ledger.steps[first:]) if step.failure is None]
    left = ledger.affordable(sum(plan.contrasts[place - first].updates for place in places) + plan.fresh)
    updates, number = [], ledger.steps[first].step
    for place in places:
        n = min(plan.contrasts[place - first].updates, left)
        updates.append(_update(ledger, ledger.steps[place], n, number))
        left -= n
    if plan.fresh and left:
        updates.append(request(ledger, "sample", None, ledger.given, min(plan.fresh, left), number))
    return (yield from make(ledger, *updates, critiques=dict(enumerate(places))))


def _repeat(ledger: Ledger, repeat: Repeat, number: int) -> Generator[Effect, Any, bool]:
    """Ask for more updates by the instructions of an earlier critique, and score them."""
    update = _update(ledger, ledger.steps[repeat.place], ledger.affordable(repeat.updates), number)
    return (yield from make(ledger, update, critiques={0: repeat.place}))


def _update(ledger: Ledger, step: Step, n: int, number: int) -> Generate:
    parent = _parent(step)
    shown = {
        "query": _asked(ledger, parent),
        "chosen_response": fence(_short(ledger, parent.response)),
        "editing_instructions": _instructions(ledger, step, parent),
    }
    return request(ledger, "update", Update, shown, n, number, parent)


def _instructions(ledger: Ledger, step: Step, parent: Candidate) -> str:
    """Show the instructions; before them what the reward remarked, word for word, and below them the longest length."""
    parts = [fence(_short(ledger, step.gradient), "instructions")]
    if parent.feedback:
        parts.insert(0, fence(_short(ledger, parent.feedback), "remarks"))
    if ledger.config.max_response_tokens is not None:
        parts.append(f"Write no more than {max(1, int(WORDS_A_TOKEN * ledger.config.max_response_tokens))} words.")
    return "\n".join(parts)


def _parent(step: Step) -> Candidate:
    assert step.chosen is not None, "a step that was critiqued has what it is about"
    return step.chosen


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
    """Fence a candidate's text, with the reward model's remarks before it where there are any."""
    text = fence(_short(ledger, candidate.response))
    return fence(_short(ledger, candidate.feedback), "remarks") + "\n" + text if candidate.feedback else text


def _short(ledger: Ledger, text: str) -> str:
    return shorten(text, ledger.config.max_shown_chars)
