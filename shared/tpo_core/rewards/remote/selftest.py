"""What a reward server must show before its scores are used: raw numbers that tell answers apart."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core.errors import UnsupportedError
from tpo_core.values import Pair

__all__ = ["PROBES", "SelfTest", "check_alike", "check_scores", "shown"]

_log = logging.getLogger(__name__)

# Unlike enough that raw rewards differ, and do not all fall between 0 and 1.
PROBES = (
    Pair("What is the capital of France?", "The capital of France is Paris, on the river Seine."),
    Pair("What is the capital of France?", "asdf qwer zxcv"),
    Pair("How long do I boil an egg?", "Six minutes in boiling water for a soft yolk, ten for a hard one."),
    Pair("How long do I boil an egg?", "Go away, you idiot."),
)
"""A good and a bad answer to one question, then to another."""


@dataclass(frozen=True)
class SelfTest:
    """What one replica showed."""

    url: str
    """Where it is, without the user, password and query of its URL."""
    server: str
    """Its kind; see ``tpo_core.rewards.remote.servers``."""
    model: str
    scores: tuple[float, ...]
    """Of a good and a bad answer to one question, then to another."""
    reads_padding: bool | None = None
    """Whether it reads the score at a last token that is the tokenizer's padding token, as vLLM does. Where the model's
    config names the same token, transformers' own class reads the token before. None where no answer ends with it."""

    @property
    def prefers_good(self) -> bool:
        """Return whether both good answers beat the bad ones: false for most models that are no reward models."""
        return self.scores[0] > self.scores[1] and self.scores[2] > self.scores[3]


def shown(url: str, server: str, model: str, scores: Sequence[float]) -> SelfTest:
    """Return what a replica showed by its scores of ``PROBES`` and, maybe, of the first one without its padding."""
    probes, cut = tuple(scores[: len(PROBES)]), scores[len(PROBES) :]
    noise = (max(probes) - min(probes)) / 20  # engines and number formats differ by several hundredths of the spread
    found = SelfTest(url, server, model, probes, abs(cut[0] - probes[0]) > noise if cut else None)
    if found.reads_padding:
        _log.warning(
            "reward server %s reads the score at the last token, even where that is the tokenizer's padding token; if "
            "the model's config has that pad_token_id, too (TRL's default), its class in transformers reads the token "
            "before, and the scores differ",
            url,
        )
    return found


def check_alike(shown: Sequence[SelfTest]) -> None:
    """Refuse replicas that score the same answers differently: their rewards are compared with each other.

    A quarter of the spread is let pass: engines and number formats differ by several hundredths of it.

    Raises:
        UnsupportedError: Two replicas differ by more, or are not of one kind.
    """
    for one, other in itertools.pairwise(shown):
        if one.server != other.server:
            raise UnsupportedError(
                f"reward server {one.url} is of the kind {one.server} and {other.url} of {other.server}; "
                "replicas must serve one model in one way"
            )
        apart = max(abs(a - b) for a, b in zip(one.scores, other.scores, strict=True))
        if apart > (max(one.scores) - min(one.scores)) / 4:
            raise UnsupportedError(
                f"reward servers {one.url} and {other.url} score the same answers up to {apart:.3g} apart; "
                "replicas must serve one model in one way"
            )


def check_scores(scores: Sequence[float], url: str) -> None:
    """Refuse scores of unlike answers that no raw reward head would give.

    Raises:
        UnsupportedError: They are squashed to 0..1, all equal, or not finite.
    """
    shown = ", ".join(f"{s:.4g}" for s in scores)
    if not all(math.isfinite(s) for s in scores):
        raise UnsupportedError(f"reward server {url} failed its self-test: scores that are not finite ({shown})")
    if len(set(scores)) == 1:
        raise UnsupportedError(
            f"reward server {url} failed its self-test: it scores good and bad answers alike ({shown}); "
            "is this a softmax over one label, or not a reward model?"
        )
    if all(0.0 <= s <= 1.0 for s in scores):
        raise UnsupportedError(
            f"reward server {url} failed its self-test: it squashes scores to 0..1 ({shown}), where good answers can "
            "no longer be told apart. Serve raw logits, or give raw=False if the model's own scale is 0..1"
        )
