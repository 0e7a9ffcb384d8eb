"""Checks that a reader can repeat by eye, as a reward: words to use, length, form, as in IFEval (arXiv:2311.07911).

The reward is the share of checks that a response meets; those that it does not meet are its feedback, by name, so that
the critic knows what to ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.concurrency import settle
from tpo_core.values import Pair, Reward

__all__ = [
    "Check",
    "ChecksReward",
    "avoids",
    "bullets",
    "ends_with",
    "is_json",
    "matches",
    "paragraphs",
    "sentences",
    "starts_with",
    "uses",
    "words",
]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+\S", re.MULTILINE)


@dataclass(frozen=True)
class Check:
    """One thing that a response must do.

    Example:
        >>> Check("names a year", lambda response: any(word.isdigit() for word in response.split()))("In 1923.")
        False
    """

    name: str
    """What is asked for, as the critic and a reader are told: ``uses the word "oil"``."""
    test: Callable[[str], Any]
    """Given a response, returns whether it does."""
    known: bool = False
    """Whether the name alone tells what is tested, so that answers may be cached under it."""

    def __call__(self, response: str) -> bool:
        """Return whether a response meets the check."""
        return bool(self.test(response))


Checks: TypeAlias = "Sequence[Check] | Mapping[str, Callable[[str], Any]]"


class ChecksReward(RewardModel):
    """The share of checks that a response meets, from 0 to 1; its feedback names those that it does not.

    Args:
        checks: A list of ``Check``, or functions of the response by name; or a function of the ``Pair`` that returns
            either, where each query has checks of its own (a benchmark's prompts, say).
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: There are no checks, two have one name, or one is something else.

    Example:
        >>> reward = ChecksReward([uses("oil"), words(most=5), sentences(1)])
        >>> [score] = reward.score("How do I care for a table?", ["Rub it with linseed oil twice a year."])
        >>> round(score, 2), score.feedback
        (0.67, 'not met: has at most 5 words')
    """

    def __init__(self, checks: Checks | Callable[[Pair], Checks], *, name: str = "checks") -> None:
        self._of_pair = checks if callable(checks) else None
        self._checks = () if callable(checks) else _read(checks)
        self.name = name

    @property
    def cache_key(self) -> str | None:
        """Return the checks' names, where these tell what is tested; see ``RewardModel``."""
        known = self._of_pair is None and all(check.known for check in self._checks)
        return made_of("checks", names=[check.name for check in self._checks]) if known else None

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Check each response; one whose check raises costs only itself."""
        return settle([self._outcome(pair) for pair in pairs], self.name)

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Check each response; checks are quick, and run where the caller is unless they depend on the pair."""
        return self.score_batch(pairs) if self._of_pair is None else await super().ascore_batch(pairs)

    def _outcome(self, pair: Pair) -> Reward | Exception:
        try:
            checks = self._checks if self._of_pair is None else _read(self._of_pair(pair))
            met = {check.name: float(check(pair.response)) for check in checks}
        except Exception as error:  # noqa: BLE001 - a check may be anybody's code
            return error
        failed = [name for name, passed in met.items() if not passed]
        return Reward(
            sum(met.values()) / len(met), feedback=f"not met: {'; '.join(failed)}" if failed else None, heads=met
        )


def uses(*wanted: str) -> Check:
    """Ask for words or phrases, in any case."""
    return _known(f"uses {_quoted(wanted)}", lambda text: all(_has(text, word) for word in wanted))


def avoids(*unwanted: str) -> Check:
    """Ask for none of some words or phrases."""
    return _known(f"avoids {_quoted(unwanted)}", lambda text: not any(_has(text, word) for word in unwanted))


def words(exactly: int | None = None, *, least: int | None = None, most: int | None = None) -> Check:
    """Ask for a number of words."""
    return _counted("word", lambda text: len(_WORD.findall(text)), exactly, least, most)


def sentences(exactly: int | None = None, *, least: int | None = None, most: int | None = None) -> Check:
    """Ask for a number of sentences: what ends in a full stop, a question mark or an exclamation mark."""
    return _counted("sentence", lambda text: len(_SENTENCE_END.findall(text)), exactly, least, most)


def paragraphs(exactly: int | None = None, *, least: int | None = None, most: int | None = None) -> Check:
    """Ask for a number of paragraphs, with blank lines between them."""
    return _counted("paragraph", lambda text: len([p for p in text.split("\n\n") if p.strip()]), exactly, least, most)


def bullets(exactly: int | None = None, *, least: int | None = None, most: int | None = None) -> Check:
    """Ask for a number of list items: lines that begin with a dash, a star or a number."""
    return _counted("list item", lambda text: len(_BULLET.findall(text)), exactly, least, most)


def starts_with(start: str) -> Check:
    """Ask for a beginning, in any case."""
    return _known(f'starts with "{start}"', lambda text: text.strip().casefold().startswith(start.casefold()))


def ends_with(end: str) -> Check:
    """Ask for an ending, in any case."""
    return _known(f'ends with "{end}"', lambda text: text.strip().casefold().endswith(end.casefold()))


def matches(pattern: str, name: str) -> Check:
    """Ask for something that a regular expression finds; ``name`` says it in words."""
    found = re.compile(pattern)
    return Check(name, lambda text: found.search(text) is not None)


def is_json() -> Check:
    """Ask for JSON and nothing else."""
    return _known("is JSON and nothing else", _is_json)


def _known(name: str, test: Callable[[str], Any]) -> Check:
    return Check(name, test, known=True)


def _counted(unit: str, count: Callable[[str], int], exactly: int | None, least: int | None, most: int | None) -> Check:
    if (exactly is None) == (least is None and most is None):
        raise InvalidInputError(f"give a number of {unit}s, or least= or most=")
    low, high = (least, most) if exactly is None else (exactly, exactly)
    if exactly is not None:
        told = f"exactly {exactly}"
    else:
        told = " and ".join(f"{w} {n}" for w, n in (("at least", least), ("at most", most)) if n is not None)
    one = (exactly or most or least) == 1
    name = f"has {told} {unit}{'' if one else 's'}"
    return _known(name, lambda text: (low or 0) <= count(text) <= (high if high is not None else len(text)))


def _has(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _quoted(texts: Sequence[str]) -> str:
    if not texts:
        raise InvalidInputError("give at least one word")
    return ", ".join(f'"{text}"' for text in texts)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _read(checks: Any) -> tuple[Check, ...]:
    read = [Check(k, v) for k, v in checks.items()] if isinstance(checks, Mapping) else list(checks)
    if not read:
        raise InvalidInputError("checks is empty; give at least one Check, or a function by its name")
    for check in read:
        if not isinstance(check, Check) or not callable(check.test):
            raise InvalidInputError(f"checks must hold Check objects, or functions by name, not {check!r:.80}")
    names = [check.name for check in read]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidInputError(f"checks has two called {twice!r}; each needs a name of its own")
    return tuple(read)
