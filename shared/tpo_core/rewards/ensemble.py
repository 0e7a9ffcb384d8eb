"""Several reward models as one: where they disagree, be careful."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any, Literal, get_args

from tpo_core.cache_keys import made_of
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.base import RewardModel, prompt_key
from tpo_core.rewards.calling import is_number
from tpo_core.rewards.concurrency import aeach, each, is_control_flow
from tpo_core.rewards.function import as_reward
from tpo_core.threads import Mutex
from tpo_core.values import Pair, Reward, Usage

__all__ = ["EnsembleReward"]

logger = logging.getLogger(__name__)

How = Literal["mean", "min", "weighted", "lcb"]

_PROMPTS = 2**16  # prompts whose scales are remembered, more than a batch has in flight; a few floats each


@dataclass(frozen=True)
class _Scale:
    """Where one member's scores of one prompt lie."""

    mean: float
    deviation: float | None = None
    """None while all scores were equal: each is 0 then, whatever the deviation will be."""
    seen: int = 0
    """How many equal scores there were."""

    def after(self, scores: Sequence[float]) -> _Scale:
        """Return the scale once these were seen, too: a deviation that was found stays."""
        if self.deviation is not None:
            return self
        spread = pstdev([self.mean] * self.seen + list(scores))
        some = spread > 1e-9 * abs(self.mean)  # below that it is rounding, which is no spread
        return replace(self, deviation=spread if some else None, seen=self.seen + len(scores))

    def z(self, score: float) -> float:
        """Return a score's distance from the mean in deviations."""
        return (score - self.mean) / (self.deviation or 1.0)


class EnsembleReward(RewardModel):
    """Several reward models as one, against their common failing: an answer that one of them overrates.

    Scores on different scales cannot be added, so each member's are z-scored per prompt first: less their mean, over
    their standard deviation, among the first responses scored together for that prompt (the loop's initial samples).
    That scale is then kept for the prompt, since scores of later rounds are compared with earlier ones. With fewer than
    two responses, or equal scores, the deviation counts as 1.

    ``Reward.heads`` holds each member's own score. A response that one member cannot score has no reward; a member that
    fails altogether fails the ensemble.

    Args:
        models: At least two; anything that ``as_reward`` takes, ensembles included.
        how: ``mean``; ``min``, the most pessimistic member; ``weighted``, by ``weights``; or ``lcb``, the mean less
            ``k`` standard deviations of the members' scores, which distrusts answers they disagree on.
        weights: For ``weighted``: one per model, not negative; only their ratios matter.
        k: For ``lcb``, at least 0.
        normalize: Whether to z-score. False for members that share one scale.
        scales: The mean and the standard deviation of each member's scores of typical answers, to z-score by instead of
            each prompt's own.
        name: How errors and feedback keys call it.

    Raises:
        InvalidInputError: An argument is wrong.

    Example:
        >>> from tpo_core.rewards import FunctionReward
        >>> brief = FunctionReward(lambda prompt, response: -len(response), name="brief")
        >>> polite = FunctionReward(lambda prompt, response: 100 * ("please" in response), name="polite")
        >>> EnsembleReward([brief, polite], how="min").score("Ask.", ["Go.", "Go, please."])
        [-1.0, -1.0]
    """

    def __init__(
        self,
        models: Sequence[Any],
        *,
        how: How = "mean",
        weights: Sequence[float] | None = None,
        k: float = 1.0,
        normalize: bool = True,
        scales: Sequence[tuple[float, float]] | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(models, str) or not isinstance(models, Sequence) or len(models) < 2:
            raise InvalidInputError(f"models must be a list of at least two reward models, not {models!r:.80}")
        if how not in get_args(How):
            raise InvalidInputError(f"how must be one of {', '.join(get_args(How))}, not {how!r}")
        if not (is_number(k) and k >= 0):
            raise InvalidInputError(f"k must be a number of at least 0, not {k!r}")
        self.models = tuple(as_reward(m) for m in models)
        self.how = how
        self.k = k
        self.normalize = normalize
        self.weights = _weights(weights, len(models), how)
        self._fixed = _fixed(scales, len(models), normalize)
        self.names = _distinct_names([m.name for m in self.models])
        self.name = name or f"{how}({', '.join(self.names)})"
        self.merges = any(m.merges for m in self.models)  # type: ignore[misc]  # as its members would have it
        self.merges_up_to = max((m.merges_up_to for m in self.models if m.merges), default=math.inf)
        self._scales: OrderedDict[bytes, tuple[_Scale, ...]] = OrderedDict()
        self._lock = Mutex()
        self._warned = False

    @property
    def cache_key(self) -> str | None:
        """Return the members', with how they are joined; see ``RewardModel``."""
        return made_of(
            "ensemble",
            *[model.cache_key for model in self.models],
            names=self.names,  # they stand in the feedback
            how=self.how,
            k=self.k,
            weights=self.weights,
            normalize=self.normalize,
            scales=self._fixed,
        )

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score with every member at once; see ``RewardModel``."""
        return self._combined(pairs, each(lambda m: m.score_pairs(pairs), self.models, len(self.models)))

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score with every member at once, without blocking."""
        return self._combined(pairs, await aeach(lambda m: m.ascore_pairs(pairs), self.models, len(self.models)))

    def check(self) -> None:
        """Check every member."""
        for model in self.models:
            model.check()

    def close(self) -> None:
        """Close every member."""
        for model in self.models:
            model.close()

    def _combined(self, pairs: Sequence[Pair], results: Sequence[list[Reward] | Exception]) -> list[Reward]:
        errors = [r for r in results if isinstance(r, Exception)]
        if errors:
            raise next((e for e in errors if is_control_flow(e)), errors[0])
        rows = list(zip(*(r for r in results if not isinstance(r, Exception)), strict=True))  # a score per member each
        groups: dict[bytes, list[int]] = {}
        for i, pair in enumerate(pairs):
            groups.setdefault(prompt_key(pair.asked), []).append(i)
        combined: dict[int, Reward] = {}
        for prompt, places in groups.items():
            scales = self._fixed or self._scale(prompt, [rows[i] for i in places])
            combined |= {i: self._reward(rows[i], scales) for i in places}
        return [combined[i] for i in range(len(pairs))]

    def _scale(self, prompt: bytes, rows: Sequence[tuple[Reward, ...]]) -> Sequence[_Scale]:
        """Return each member's scale for a prompt: found as soon as its scores differ, then kept."""
        whole = [row for row in rows if not any(map(math.isnan, row))]
        scores = list(zip(*whole, strict=True)) or [()] * len(self.models)
        with self._lock:
            if prompt not in self._scales and len(whole) < 2:
                self._tell()
            if whole:
                known = self._scales.get(prompt) or [_Scale(fmean(s)) for s in scores]
                self._scales[prompt] = tuple(k.after(s) for k, s in zip(known, scores, strict=True))
                self._scales.move_to_end(prompt)
                if len(self._scales) > _PROMPTS:
                    self._scales.popitem(last=False)
            return self._scales.get(prompt) or _AS_IT_IS * len(self.models)  # where nothing here gets a reward

    def _tell(self) -> None:
        if not self._warned:
            logger.warning("%s scored a prompt's first answer alone, which gives 0; a metric needs scales=", self.name)
        self._warned = True

    def _reward(self, row: Sequence[Reward], scales: Sequence[_Scale]) -> Reward:
        named = list(zip(self.names, row, strict=True))
        missing = next((f"{n}: {r.failure}" for n, r in named if math.isnan(r)), None)
        z = [scale.z(r) for r, scale in zip(row, scales, strict=True)]
        inner = {f"{n}/{head}": value for n, r in named for head, value in r.heads.items()}
        return Reward(
            math.nan if missing else self._joined(z),
            feedback="\n".join(f"{n}: {r.feedback}" for n, r in named if r.feedback) or None,
            heads={n: float(r) for n, r in named} | inner,
            failure=missing,
            truncated=any(r.truncated for r in row),
            usage=sum((r.usage for r in row), Usage()),
        )

    def _joined(self, z: Sequence[float]) -> float:
        if self.how == "min":
            return min(z)
        if self.how == "weighted":
            return math.fsum(w * s for w, s in zip(self.weights, z, strict=True))
        return fmean(z) - (self.k * pstdev(z) if self.how == "lcb" else 0.0)


_AS_IT_IS = (_Scale(0.0, 1.0),)


def _fixed(scales: Any, count: int, normalize: bool) -> Sequence[_Scale]:
    """Return the scales that hold for every prompt; none where each prompt has its own."""
    if scales is None:
        return () if normalize else _AS_IT_IS * count
    if not normalize:
        raise InvalidInputError("give scales or normalize=False, not both")
    if len(scales) != count or not all(len(s) == 2 and all(map(is_number, s)) and s[1] > 0 for s in scales):
        raise InvalidInputError(
            f"scales must be {count} pairs of a mean and a standard deviation above 0; got {scales!r:.80}"
        )
    return [_Scale(float(mean), float(deviation)) for mean, deviation in scales]


def _weights(weights: Sequence[float] | None, count: int, how: str) -> tuple[float, ...]:
    if (weights is None) == (how == "weighted"):
        raise InvalidInputError("weights go with how='weighted', and with no other")
    if weights is None:
        return ()
    if len(weights) != count or not all(is_number(w) and w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
        raise InvalidInputError(f"weights must be {count} numbers, not negative and not all 0; got {list(weights)}")
    return tuple(w / sum(weights) for w in weights)


def _distinct_names(names: Sequence[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n}#{names[:i].count(n) + 1}" for i, n in enumerate(names)]
