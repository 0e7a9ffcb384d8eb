"""How the loop asks: requests as large as the budgets allow, answers entered in the ledger, what is new scored."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from tpo_core.errors import (
    GenerationError,
    InvalidInputError,
    RewardContractError,
    RewardError,
    TPOError,
    UnsupportedError,
)
from tpo_core.loop.effects import Effect, Gather, Generate, Progress, Score, Task
from tpo_core.loop.ledger import Ledger
from tpo_core.masking import masked
from tpo_core.prompts.reading import refuse
from tpo_core.records import repr_without_texts
from tpo_core.values import Candidate, Completion, Failure, Pair, Reward, Usage, changed

if TYPE_CHECKING:
    from tpo_core.prompts.signatures import Signature

logger = logging.getLogger(__name__)

__all__ = ["Question", "make", "nothing_error", "request", "say"]


def request(
    ledger: Ledger,
    task: Task,
    signature: Signature | None,
    inputs: Any,
    n: int,
    step: int,
    parent: Candidate | None = None,
) -> Generate:
    """Write a request as large as the call budget allows."""
    config, n = ledger.config, ledger.affordable(n)
    return Generate(
        task,
        signature,
        inputs,
        n,
        step,
        ledger.next_seeds(n, task),
        config.temperature,
        config.top_p,
        config.max_response_tokens,
        parent,
        send_seed=config.seed is not None,
        deadline=ledger.deadline,
    )


def make(
    ledger: Ledger, *requests: Generate, critiques: Mapping[int, int] | None = None
) -> Generator[Effect, Any, bool]:
    """Ask, enter the answers in the ledger, the failed ones with their reasons, and score what is new.

    Args:
        ledger: Of this loop.
        *requests: For samples and updates of one round.
        critiques: For a request of updates, by its place here, that of its critique in the ledger's steps.

    Returns:
        Whether any of them became a candidate.
    """
    places = [(critiques or {}).get(place) for place, r in enumerate(requests) if r.n > 0]
    requests = tuple(r for r in requests if r.n > 0)
    answers = yield from ask(ledger, *requests)
    new = [
        ledger.add(
            c,
            r.step,
            fresh=r.task == "sample",
            failure=c.failure or refuse(c.text, c.finish_reason),
            parent=r.parent,
            critique=critique,
        )
        for r, completions, critique in zip(requests, answers, places, strict=True)
        for c in completions
    ]
    yield from score(ledger, new)
    now = tuple(ledger.candidates[c.index] for c in new)
    yield Progress("scored", requests[0].step if requests else 0, now, best=ledger.best)
    return any(c.reward is not None for c in now)


def ask(ledger: Ledger, *requests: Generate) -> Generator[Effect, Any, list[Sequence[Completion]]]:
    """Yield requests that can run at once, and book what they cost; they share what the call budget has to spare."""
    spare, since = ledger.spare(sum([r.n for r in requests])), ledger.elapsed
    if spare is not None:
        requests = tuple(changed(r, spare=spare // len(requests)) for r in requests)
    answers: list[Sequence[Completion]] = []
    try:
        if len(requests) == 1:
            answers = [(yield requests[0])]
        elif requests:
            answers = yield Gather(requests)
    except TPOError:
        raise
    except Exception as raised:  # noqa: BLE001 - whatever was raised here cost these samples and nothing else
        error = masked(raised)
        lost = Completion(failure=Failure("error", f"{type(error).__name__}: {error}", error))
        answers = [[lost] * request.n for request in requests]
    for task in dict.fromkeys([request.task for request in requests]):
        ledger.clocked(task, since)
    for request, completions in zip(requests, answers, strict=True):
        ledger.spend(Usage.total([c.usage for c in completions]), request.n, request.task)
    return answers


def score(ledger: Ledger, new: Sequence[Candidate]) -> Generator[Effect, Any, None]:
    """Have the responses scored that have no reward yet.

    A reward model that raises ends the loop with the best so far, where there is one; a wrong use of it is an error.
    """
    pairs, since = ledger.unscored(new), ledger.elapsed
    rewards: Sequence[Reward] = ()
    if ledger.best is not None and ledger.exhausted() == "deadline":
        rewards = [Reward(nan, failure="deadline: it came too late to be scored")] * len(pairs)
    elif pairs:
        try:
            rewards = yield Score(pairs, deadline=None if ledger.best is None else ledger.deadline)
        except (InvalidInputError, UnsupportedError, RewardContractError):
            raise
        except Exception as error:  # noqa: BLE001 - raised again where nothing is scored
            _lost(ledger, pairs, error)
            return
        finally:
            ledger.clocked("score", since)
    if len(rewards) != len(pairs):
        raise RewardContractError(f"the reward model returned {len(rewards)} rewards for {len(pairs)} responses")
    ledger.enter_rewards(pairs, rewards)


def _lost(ledger: Ledger, pairs: Sequence[Pair], error: Exception) -> None:
    """Enter what could not be scored because the reward model raised; without a best so far that is an error."""
    error = masked(error)
    what = f"{type(error).__name__}: {error}"
    ledger.enter_rewards(pairs, [Reward(nan, failure=what)] * len(pairs), error)
    ledger.reward_failed = True
    if ledger.best is not None:
        logger.warning("the reward model failed, and the best answer so far is returned: %s", what)
    elif isinstance(error, TPOError):
        raise error
    else:
        raise RewardError(f"the reward model raised {what}") from error


_UNASKED = Completion(failure=Failure("empty", "the call budget is used up"))


@dataclass(frozen=True)
class Question:
    """What the critic is asked about one candidate."""

    signature: Signature
    inputs: dict[str, str]
    about: Candidate

    __repr__ = repr_without_texts("signature")


def say(
    ledger: Ledger, task: Task, questions: Sequence[Question], step: int
) -> Generator[Effect, Any, list[Completion]]:
    """Ask the critic all questions at once, and once more those that nothing came of; returns one answer each.

    A critique cut short is still a critique.
    """
    said = [_UNASKED] * len(questions)
    for _ in range(2):
        left = [place for place, answer in enumerate(said) if answer.failure is not None]
        left = left[: ledger.affordable(len(left))]
        if not left:
            break
        again = [questions[place] for place in left]
        asked = [request(ledger, task, q.signature, q.inputs, 1, step, q.about) for q in again]
        for place, [completion] in zip(left, (yield from ask(ledger, *asked)), strict=True):
            failure = completion.failure or refuse(completion.text)
            said[place] = completion if failure is completion.failure else changed(completion, failure=failure)
        if ledger.exhausted():
            break
    return said


def nothing_error(ledger: Ledger) -> GenerationError | RewardError:
    trajectory = ledger.trajectory("deadline" if ledger.exhausted() == "deadline" else "no_candidates")
    failures = [c.failure for c in ledger.candidates if c.failure is not None]
    reasons: dict[str, int] = {}
    for failure in failures:
        label = f"{failure.reason}: {failure.message}" if failure.message else failure.reason
        reasons[label] = reasons.get(label, 0) + 1
    told = "; ".join(f"{count} x {label}" for label, count in reasons.items())
    if any(f.reason == "unscored" for f in failures):
        return RewardError(
            f"the reward model scored none of {len(ledger.candidates)} candidates ({told})", trajectory=trajectory
        )
    # The exception of a parser quotes what it could not read: a model's text is shown in no traceback.
    causes = tuple(f.exception for f in failures if f.exception is not None and f.reason != "unparsable")
    error = GenerationError(
        f"not one of {len(ledger.candidates)} samples became a candidate ({told or 'the deadline passed'})",
        trajectory=trajectory,
        causes=causes,
    )
    error.__cause__ = causes[0] if causes else None
    return error
