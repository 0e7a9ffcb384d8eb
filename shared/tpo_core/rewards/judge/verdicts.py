"""Read a judge's verdict: from the distribution over its answer token, or from the text where there is none.

What cannot be read is None, never a default number. A text is read strictly: a judge that says more than its verdict
also says what the verdict is not ("A is worse"), and quotes the response, which may contain a verdict of its own. Every
reader takes time linear in the text, whatever it holds.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence

from tpo_core.prompts.modeltext import after_reasoning

__all__ = ["are_logprobs", "expected_grade", "log_odds", "read_choice", "read_grade", "says_tie"]

Position = Mapping[str, float]
"""The likeliest tokens at one place with their natural-log probabilities."""

_DRESS = " \t\r\n\"'`*_.,:;!()[]{}<>#-▁Ġ"  # what surrounds a word in a token: markdown, quotes, word-start marks
_FLOOR = -50.0  # servers write -9999 or -inf for a token that is not among the likeliest
_ROUNDING = 1e-6  # how far listed probabilities can be off
_MOST = 0.01  # what is above 0 by more than rounding is no log-probability
_LEAST_MASS = 0.01  # below it the judge was about to say something else: the share that G-Eval's readers drop, too

_NUMBER = r"-?\d+(?:\.\d+)?"
_GRADE = rf"({_NUMBER})(?:\s*(?:/|out of)\s*({_NUMBER}))?"
_NAMED = rf"(?:grade|score|rating|verdict)[^\w-]{{0,6}}(?:is|of)?[^\w-]{{0,6}}{_GRADE}"
_GRADES, _NAMED_GRADES = re.compile(_GRADE, re.IGNORECASE), re.compile(_NAMED, re.IGNORECASE)

_CUES = {":", "is", "are", "prefer", "choose", "pick", "select", "verdict", "answer", "winner", "choice"}
_BETTER = r"(?:is|are)\s+(?:\w+\s+){0,2}?(?:better|best|superior|stronger|preferable|winner)\b|wins\b"
_CONTRARY = re.compile(r"\b(?:worse|worst|weaker|inferior|los\w+|less|not|never|neither|nor|no)\b|n['’]t\b", re.I)
_TIE = re.compile(
    r"\W*(?:(?:the )?(?:verdict|answer)\W+)?(?:it['’]?s |it is |they are |both are |both responses are )?"
    r"(?:an? )?(?:tie|tied|draw|equal|equally good)\W*",
    re.IGNORECASE,
)


def are_logprobs(positions: Sequence[Position]) -> bool:
    """Return whether all that is listed can be logarithms of probabilities; some servers send raw scores."""
    return not any(isinstance(lp, (int, float)) and lp > _MOST for p in positions for lp in p.values())


def log_odds(positions: Sequence[Position], yes: str, no: str) -> float | None:
    """Return ln(p(yes) / p(no)) at the token that answers; spellings in other case, with spaces or marks are summed.

    Where only one of the two is among the likeliest tokens, the other is taken to be as likely as it can be: as the
    least of them, or as all that is not listed, whichever is less. So the result is a bound and never infinite.

    Args:
        positions: The likeliest tokens at each place of the completion, from the first.
        yes: The word for yes, and ``no`` for no.

    Returns:
        The log-odds, or None when the two words together have less than a hundredth of the probability.
    """
    position, _ = _answering(positions)
    masses = [_mass(position, yes), _mass(position, no)]
    if sum(math.exp(m) for m in masses if m is not None) < _LEAST_MASS:
        return None
    rest = math.log(max(1.0 - sum(map(math.exp, position.values())), _ROUNDING))
    unlisted = min(min(position.values()), rest)
    for_yes, for_no = (unlisted if m is None else m for m in masses)
    return for_yes - for_no


def expected_grade(positions: Sequence[Position], low: int, high: int) -> float | None:
    """Return the mean grade under the probabilities of the grades at the token that answers.

    The mean of the distribution is a better judge than its mode (arXiv:2503.03064).

    Args:
        positions: As in ``log_odds``.
        low: The lowest grade; grades are single digits, so that each is one token.
        high: The highest grade.

    Returns:
        A number from ``low`` to ``high``, or None when the grades together have less than a hundredth of the
        probability, or when what was written is a number off the scale (a 1 that is the first digit of 10, say).
    """
    position, after = _answering(positions)
    found = {g: m for g in range(low, high + 1) if (m := _mass(position, str(g))) is not None}
    weights = {g: math.exp(m) for g, m in found.items()}
    if sum(weights.values()) < _LEAST_MASS:
        return None
    written = _word(_likeliest(position))
    if written.isdecimal() and (int(written) not in found or _likeliest(after)[:1].isdecimal()):
        return None
    return sum(g * w for g, w in weights.items()) / sum(weights.values())


def read_choice(text: str, options: Sequence[str], *, cut: bool = False) -> str | None:
    """Return the option that the text is, opens or ends with as a verdict, or calls better; None where these differ.

    In a sentence the case counts, since "a" is also a word.

    Args:
        text: What the judge wrote.
        options: What it could choose, as single words.
        cut: Whether the text broke off at the token limit: then only its opening counts.
    """
    text = _thoughtless(text).strip()
    plain = {o.casefold(): o for o in options}
    either = "|".join(map(re.escape, options))
    first, *more = text.splitlines() or [""]
    if (alone := plain.get(first.strip(_DRESS).casefold())) is not None:
        found = {alone}
    else:
        found = set(re.findall(rf"\A\W*({either})\b\s*(?:[^\w\s?]|\Z)", text))
        headings = re.findall(rf"^[^\w\n]*({either})\b[^\w\n]*:", "\n".join(more), re.MULTILINE)
        found = set() if set(headings) - found else found  # each is spoken of in its turn
    if not cut:
        better = re.compile(rf"\b({either})\s+(?:{_BETTER})")
        for sentence in filter(None, re.split(r"(?<=[.!?])\s|\n", text)):
            contrary = _CONTRARY.search(sentence)
            until = contrary.end() if contrary else math.inf  # what comes after it may be about the other
            found |= {m[1] for m in better.finditer(sentence) if m.end() < until}
        last = re.split(r"(?<=[.!?])\s+(?=\w)|\n", text)[-1]
        if (ending := _named_at_the_end(last)) in options and not _CONTRARY.search(re.split("[,;]", last)[-1]):
            found.add(ending)
    return found.pop() if len(found) == 1 else None


def _named_at_the_end(sentence: str) -> str:
    """Return the last word, where it stands for all of the sentence or after what announces a verdict."""
    *before, last = re.findall(r"\w+|[:?]", sentence) or [""]  # word by word: patterns run away on "::::"
    while before and before[-1].casefold() in ("the", "response", "option"):
        before.pop()
    return last if not before or before[-1].casefold() in _CUES else ""


def says_tie(text: str) -> bool:
    """Return whether a text is the verdict that neither of two is better."""
    return _TIE.fullmatch(_thoughtless(text)) is not None


def read_grade(text: str, low: float, high: float, *, judged: str = "", cut: bool = False) -> float | None:
    """Return the grade that a text gives: the last one called a grade or score, else the only number in it.

    Args:
        text: What the judge wrote.
        low: The lowest grade, and ``high`` the highest.
        judged: The response. What a judge writes beside its verdict may quote it, so a grade that stands there in the
            same words does not count.
        cut: Whether the text broke off at the token limit: then only its opening counts.

    Returns:
        A number from ``low`` to ``high``; None when there is none, several, one outside, or one of another scale
        ("4 out of 5" where 9 is the highest).
    """
    text = _thoughtless(text)
    opening = re.match(rf"\W*?(?:(?:the|my|final)\s+)*(?:{_NAMED}|{_GRADE})(?![\w/])", text, re.IGNORECASE)
    whole = opening is not None and not re.search(r"\w", text[opening.end() :])
    if cut or whole:
        if opening is None or (cut and opening.end() == len(text) and high > 9):  # 1, or the beginning of 10
            return None
        found = [(opening[1] or opening[3], opening[2] or opening[4])]
    elif _NAMED_GRADES.search(text):
        theirs = sorted(m[0].casefold() for m in _NAMED_GRADES.finditer(judged))
        own = (m for m in _NAMED_GRADES.finditer(text) if not _quotes(m, theirs))
        found = [(m[1], m[2]) for m in deque(own, maxlen=1)]
    else:
        found = [(m[1], m[2]) for m in _GRADES.finditer(text)]
    grades = {float(g) for g, _ in found}
    if len(grades) != 1 or any(of is not None and float(of) != high for _, of in found):
        return None
    grade = grades.pop()
    return grade if low <= grade <= high else None


def _thoughtless(text: str) -> str:
    return after_reasoning(text) or ""


def _quotes(match: re.Match[str], grades: Sequence[str]) -> bool:
    """Return whether one of the grades, which are sorted, begins with these words."""
    words = match[0].casefold()
    at = bisect_left(grades, words)
    return at < len(grades) and grades[at].startswith(words)


def _answering(positions: Sequence[Position]) -> tuple[Position, Position]:
    """Return the first place whose likeliest token is a word, and the place after it.

    Blanks and markdown may come before the answer. Nothing is read from numbers that are no log-probabilities.
    """
    if not are_logprobs(positions):
        return {}, {}
    listed = [
        {t: min(lp, 0.0) for t, lp in p.items() if isinstance(lp, (int, float)) and lp > _FLOOR} for p in positions
    ]
    for place, position in enumerate(listed):
        if _word(_likeliest(position)):
            return position, listed[place + 1] if place + 1 < len(listed) else {}
    return {}, {}


def _likeliest(position: Position) -> str:
    return max(position, key=position.__getitem__, default="")


def _mass(position: Position, word: str) -> float | None:
    logs = [lp for token, lp in position.items() if _word(token) == word.casefold()]
    return math.log(sum(map(math.exp, logs))) if logs else None


def _word(token: str) -> str:
    return unicodedata.normalize("NFKC", token).strip(_DRESS).casefold()  # full-width letters and digits are the same
