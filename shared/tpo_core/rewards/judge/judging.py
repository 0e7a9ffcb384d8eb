"""One question to a judge, and what its answer is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tpo_core.prompts.rendering import show_query
from tpo_core.records import repr_without_texts
from tpo_core.rewards.judge.prompts import Compare, Grade, YesNo, messages
from tpo_core.rewards.judge.verdicts import (
    are_logprobs,
    expected_grade,
    log_odds,
    read_choice,
    read_grade,
    says_tie,
)
from tpo_core.values import Completion, Message, Pair, Reward, Usage

__all__ = ["Answer", "Ask", "combine", "compare", "grade", "yes_or_no"]


@dataclass(frozen=True)
class Ask:
    """One question about one pair."""

    place: int
    """Which pair."""
    head: str
    """The criterion asked about; empty when there is but one."""
    form: Literal["yesno", "grade", "compare"]
    messages: tuple[Message, ...]
    weighed: bool
    """Whether the answer is read from token probabilities rather than from text."""
    scale: tuple[int, int] = (1, 9)
    swapped: bool = False
    """For ``compare``: whether the response being scored is B."""
    judged: str = ""
    """The response, which the judge may quote."""

    __repr__ = repr_without_texts("head", "form", "scale")


@dataclass(frozen=True)
class Answer:
    """What one question brought: a number, or the reason why there is none."""

    ask: Ask
    value: float = math.nan
    failure: str | None = None
    usage: Usage = Usage()  # noqa: RUF009  frozen

    __repr__ = repr_without_texts("failure")

    @classmethod
    def of(cls, ask: Ask, result: Completion | Exception) -> Answer:
        """Read a completion."""
        if isinstance(result, Exception):
            return cls(ask, failure=f"{type(result).__name__}: {result}")
        usage = replace(result.usage, calls=1)  # chat models leave counting to whoever asks
        if result.failure is not None:
            return cls(ask, failure=f"{result.failure.reason}: {result.failure.message}", usage=usage)
        value = _weighed(ask, result) if ask.weighed else _parsed(ask, result)
        if value is not None:
            return cls(ask, value, usage=usage)
        why = ""
        if ask.weighed and not result.logprobs:
            why = ", which came without log-probabilities"
        elif ask.weighed and not are_logprobs(result.logprobs):
            why = ": what came as log-probabilities is above 0"
        elif not ask.weighed and result.finish_reason == "length":
            why = "; it was cut off at max_tokens"
        return cls(ask, failure=f"the judge's answer {result.text!r:.120} cannot be read{why}", usage=usage)


def yes_or_no(place: int, pair: Pair, head: str, question: str, reference: str | None) -> Ask:
    """Ask whether the answer to a question about the response is Yes."""
    said = messages(YesNo, _texts(pair, question, reference))
    return Ask(place, head, "yesno", said, weighed=True, judged=pair.response)


def grade(
    place: int, pair: Pair, head: str, rubric: str, reference: str | None, scale: tuple[int, int], weighed: bool
) -> Ask:
    """Ask for a grade."""
    question = f"Grade the response from {scale[0]} (worst) to {scale[1]} (best) by this rubric: {rubric}\n"
    said = messages(Grade, _texts(pair, question, reference))
    return Ask(place, head, "grade", said, weighed, scale, judged=pair.response)


def compare(place: int, pair: Pair, other: str, question: str, weighed: bool) -> list[Ask]:
    """Ask whether the response beats another, in both orders, since judges favour a place."""
    asks = []
    for swapped in (False, True):
        a, b = (other, pair.response) if swapped else (pair.response, other)
        texts = {"question": question, "query": _query(pair), "response_a": a, "response_b": b}
        said = messages(Compare, texts)
        asks.append(Ask(place, "", "compare", said, weighed, swapped=swapped, judged=pair.response))
    return asks


def combine(answers: Sequence[Answer], spent: Usage) -> Reward:
    """Average the answers about one pair; one that is missing makes the reward NaN.

    Args:
        answers: At least one.
        spent: What was asked about this pair beside these, in vain.
    """
    usage = sum((a.usage for a in answers), spent)
    heads = {a.ask.head: a.value for a in answers if a.ask.head}
    missing = next((a for a in answers if a.failure is not None), None)
    if missing is not None:
        where = f"{missing.ask.head}: " if missing.ask.head else ""
        return Reward(math.nan, heads=heads, failure=where + str(missing.failure), usage=usage)
    unmet = [a.ask.head for a in answers if a.ask.head and a.value < _even(a.ask)]
    feedback = "Not met: " + "; ".join(unmet) if unmet else None
    return Reward(math.fsum(a.value for a in answers) / len(answers), feedback=feedback, heads=heads, usage=usage)


def _even(ask: Ask) -> float:
    """Return the value at which a criterion is neither met nor missed."""
    return sum(ask.scale) / 2 if ask.form == "grade" else 0.0


def _texts(pair: Pair, question: str, reference: str | None) -> dict[str, str | None]:
    return {"question": question, "query": _query(pair), "reference": reference, "response": pair.response}


def _query(pair: Pair) -> str:
    return show_query(pair.prompt) if pair.prompt else "(not given)"


def _weighed(ask: Ask, completion: Completion) -> float | None:
    if ask.form == "grade":
        return expected_grade(completion.logprobs, *ask.scale)
    if ask.form == "yesno":
        return log_odds(completion.logprobs, "Yes", "No")
    return log_odds(completion.logprobs, *(("B", "A") if ask.swapped else ("A", "B")))


def _parsed(ask: Ask, completion: Completion) -> float | None:
    cut = completion.finish_reason == "length"
    if ask.form == "grade":
        return read_grade(completion.text, *ask.scale, judged=ask.judged, cut=cut)
    if says_tie(completion.text):
        return 0.0
    choice = read_choice(completion.text, ("A", "B"), cut=cut)
    return None if choice is None else 1.0 if (choice == "B") is ask.swapped else -1.0
