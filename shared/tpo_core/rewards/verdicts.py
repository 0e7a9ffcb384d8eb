"""Read a judge's verdict: from the distribution over its answer token, or from the text where there is none.

What cannot be read is None, never a default number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = ["expected_grade", "log_odds", "read_choice", "read_grade"]

Position = Mapping[str, float]
"""The likeliest tokens at one place with their natural-log probabilities."""

_DRESS = " \t\r\n\"'`*_.,:;!()[]{}<>#-▁Ġ"  # what surrounds a word in a token: markdown, quotes, word-start marks
_NUMBER = r"-?\d+(?:\.\d+)?"
_NAMED = re.compile(rf"(?:grade|score|rating|verdict)\W{{0,6}}(?:is|of|:|=)?\W{{0,6}}({_NUMBER})", re.IGNORECASE)
_OUT_OF = re.compile(rf"({_NUMBER})\s*(?:/|out of)\s*{_NUMBER}", re.IGNORECASE)


def log_odds(positions: Sequence[Position], yes: str, no: str) -> float | None:
    """Return ln(p(yes) / p(no)) at the token that answers; spellings in other case, with spaces or marks are summed.

    Where only one of the two is among the likeliest tokens, the other is taken to be as likely as the least of them:
    its probability is at most that, so the result is a bound and never infinite.

    Args:
        positions: The likeliest tokens at each place of the completion, from the first.
        yes: The word for yes, and ``no`` for no.

    Returns:
        The log-odds, or None when neither word is there.
    """
    position = _answering(positions)
    if position is None:
        return None
    for_yes, for_no = _mass(position, yes), _mass(position, no)
    if for_yes is None and for_no is None:
        return None
    least = min(position.values())
    return (least if for_yes is None else for_yes) - (least if for_no is None else for_no)


def expected_grade(positions: Sequence[Position], low: int, high: int) -> float | None:
    """Return the mean grade under the probabilities of the grades at the token that answers.

    The mean of the distribution is a better judge than its mode (arXiv:2503.03064).

    Args:
        positions: As in ``log_odds``.
        low: The lowest grade; grades are single digits, so that each is one token.
        high: The highest grade.

    Returns:
        A number from ``low`` to ``high``, or None when no grade is there.
    """
    position = _answering(positions)
    if position is None:
        return None
    found = {g: m for g in range(low, high + 1) if (m := _mass(position, str(g))) is not None}
    if not found:
        return None
    weights = {g: math.exp(m - max(found.values())) for g, m in found.items()}
    return sum(g * w for g, w in weights.items()) / sum(weights.values())


def read_choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option that the text is, or that it opens or ends with; None when it does neither or both differ.

    In a sentence the case counts and an opening option must stand apart, since "a" is also a word.
    """
    text = _thoughtless(text).strip()
    alone = {o.casefold(): o for o in options}.get(text.strip(_DRESS).casefold())
    if alone is not None:
        return alone
    either = "|".join(map(re.escape, options))
    opens = re.match(rf"\W*({either})\b(?:\s*[^\w\s]|\s*\n|\s+(?:is|wins)\b)", text)
    ends = re.search(rf"\b({either})[^\w?]*\Z", text)
    found = {m[1] for m in (opens, ends) if m}
    return found.pop() if len(found) == 1 else None


def read_grade(text: str, low: float, high: float) -> float | None:
    """Return the grade that a text gives: the last one called a grade or score, else the only number in it.

    Returns:
        A number from ``low`` to ``high``; None when there is none, several, or one outside.
    """
    text = _thoughtless(text)
    named = _NAMED.findall(text)
    numbers = named[-1:] or sorted({float(n) for n in re.findall(_NUMBER, _OUT_OF.sub(r"\1", text))})
    if len(numbers) != 1:
        return None
    grade = float(numbers[0])
    return grade if low <= grade <= high else None


def _thoughtless(text: str) -> str:
    return re.sub(r"\A\s*<think>.*?(?:</think>|\Z)", "", text, flags=re.DOTALL)


def _answering(positions: Sequence[Position]) -> Position | None:
    """Return the first place whose likeliest token is a word: blanks and markdown may come before the answer."""
    return next((p for p in positions if p and max(p, key=p.__getitem__).strip(_DRESS)), None)


def _mass(position: Position, word: str) -> float | None:
    logs = [lp for token, lp in position.items() if token.strip(_DRESS).casefold() == word.casefold()]
    if not logs:
        return None
    top = max(logs)
    return top + math.log(sum(math.exp(lp - top) for lp in logs))
