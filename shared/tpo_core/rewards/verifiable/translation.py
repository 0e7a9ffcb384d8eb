"""Translations: by chrF beside a reference, where there is one, or by what they say once translated back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.prompts.rendering import show_query
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.concurrency import each, settle
from tpo_core.values import Pair, Reward

__all__ = ["ChrFReward", "RoundTripReward"]

_SHOWN = 300


class ChrFReward(RewardModel):
    """chrF of a translation beside its reference (Popović 2015), from 0 to 100, by ``sacrebleu``.

    For a development set, where references are known; never for an answer that is being written, of which they would
    be the answer. There ``RoundTripReward`` or a judge has to do.

    Args:
        references: By the query's text, or a function of the ``Pair``; by default ``Pair.reference``. One text or
            several.
        word_order: 2 for chrF++.
        name: How errors and feedback keys call it.

    Example:
        >>> reward = ChrFReward({"Translate: The cat sleeps.": "Die Katze schläft."})
        >>> scores = reward.score("Translate: The cat sleeps.", ["Die Katze schläft.", "Der Hund."])
        >>> scores[0], scores[1] < 30
        (100.0, True)
    """

    def __init__(
        self,
        references: Mapping[str, Any] | Callable[[Pair], Any] | None = None,
        *,
        word_order: int = 0,
        name: str = "chrf",
    ) -> None:
        self._metric = _chrf(word_order)
        self._references = references
        self.name = name

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Compare each; see ``RewardModel``."""
        return settle([self._outcome(pair) for pair in pairs], self.name)

    def _outcome(self, pair: Pair) -> Reward | Exception:
        try:
            found = _looked_up(self._references, pair, pair.reference)
        except Exception as error:  # noqa: BLE001 - a function may be anybody's
            return error
        if not found:
            return RewardError(f"no reference is known for this query, of {len(show_query(pair.asked))} characters")
        return Reward(self._metric(pair.response, [found] if isinstance(found, str) else list(found)))


class RoundTripReward(RewardModel):
    """chrF of the source beside the translation translated back, from 0 to 100: it needs no reference.

    What comes back is its feedback, so that the critic sees what was lost. A translation that keeps the source's words
    would come back perfect: one with ``copied`` chrF or more beside the source gets 0.

    Args:
        back: Translates a text back into the source's language: another model than the policy, which would repeat its
            own mistakes.
        source: The text to be translated, by the query's text, or a function of the ``Pair``; by default the query.
        copied: From which chrF beside the source on a translation is none.
        workers: How many are translated back at once.
        name: How errors and feedback keys call it.

    Example:
        >>> words = {"Die Katze schläft.": "The cat sleeps.", "Der Hund schläft.": "The dog sleeps."}
        >>> reward = RoundTripReward(words.__getitem__)
        >>> good, bad, none = reward.score("The cat sleeps.", [*words, "The cat sleeps."])
        >>> good, 30 < bad < 90, bad.feedback, none
        (100.0, True, 'translated back it says: The dog sleeps.', 0.0)
    """

    def __init__(
        self,
        back: Callable[[str], str],
        *,
        source: Mapping[str, str] | Callable[[Pair], str] | None = None,
        copied: float = 80.0,
        workers: int = 8,
        name: str = "round trip",
    ) -> None:
        if not callable(back):
            raise InvalidInputError(f"back must be a function of a text, not {type(back).__name__}")
        if not 0 < copied <= 100:
            raise InvalidInputError(f"copied must be above 0 and at most 100, not {copied!r}")
        self._back, self._source, self._copied, self._workers = back, source, copied, workers
        self._metric = _chrf(0)
        self.name = name

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Translate each back; see ``RewardModel``."""
        return settle(each(self._one, pairs, self._workers), self.name)

    def _one(self, pair: Pair) -> Reward:
        source = _looked_up(self._source, pair, show_query(pair.asked))
        if not source:
            raise RewardError(f"no source is known for this query, of {len(show_query(pair.asked))} characters")
        if self._metric(pair.response, [source]) >= self._copied:
            return Reward(0.0, feedback="is the source itself, not a translation")
        again = self._back(pair.response)
        told = again if len(again) <= _SHOWN else f"{again[: _SHOWN - 3]}..."
        score = self._metric(again, [source])
        return Reward(score, feedback=None if again == source else f"translated back it says: {told}")


def _looked_up(known: Mapping[str, Any] | Callable[[Pair], Any] | None, pair: Pair, otherwise: Any) -> Any:
    if known is None:
        return otherwise
    return known(pair) if callable(known) else known.get(show_query(pair.asked))


def _chrf(word_order: int) -> Callable[[str, Sequence[str]], float]:
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise InvalidInputError('chrF needs sacrebleu: pip install "tpo[tasks]"') from error
    metric = CHRF(word_order=word_order)
    return lambda text, references: round(float(metric.sentence_score(text, list(references)).score), 6)
