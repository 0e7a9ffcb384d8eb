"""Several reward models as one: where they disagree, be careful."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any, Literal, get_args

from tpo_core.effects import Pair, Reward
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.fanout import Mutex, aeach, each
from tpo_core.rewards.function import as_reward
from tpo_core.trajectory import Usage

__all__ = ["EnsembleReward"]

How = Literal["mean", "min", "weighted", "lcb"]

_PROMPTS = 4096  # prompts whose scales are remembered; a few floats each
_Scale = tuple[float, float]


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
        name: str | None = None,
    ) -> None:
        if isinstance(models, str) or not isinstance(models, Sequence) or len(models) < 2:
            raise InvalidInputError(f"models must be a list of at least two reward models, not {models!r:.80}")
        if how not in get_args(How):
            raise InvalidInputError(f"how must be one of {', '.join(get_args(How))}, not {how!r}")
        if not k >= 0:
            raise InvalidInputError(f"k must be at least 0, not {k}")
        self.models = tuple(as_reward(m) for m in models)
        self.how = how
        self.k = k
        self.normalize = normalize
        self.weights = _weights(weights, len(models), how)
        self.names = _distinct_names([m.name for m in self.models])
        self.name = name or f"{how}({', '.join(self.names)})"
        self.merges = any(m.merges for m in self.models)  # type: ignore[misc]  # as its members would have it
        self._scales: OrderedDict[str, tuple[_Scale, ...]] = OrderedDict()
        self._lock = Mutex()

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score with every member at once; see ``RewardModel``."""
        return self._combined(pairs, each(lambda m: m.score_pairs(pairs), self.models, len(self.models)))

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score with every member at once, without blocking."""
        return self._combined(pairs, await aeach(lambda m: m.ascore_pairs(pairs), self.models, len(self.models)))

    def close(self) -> None:
        """Close every member."""
        for model in self.models:
            model.close()

    def _combined(self, pairs: Sequence[Pair], results: Sequence[list[Reward] | Exception]) -> list[Reward]:
        scores: list[list[Reward]] = []
        for result in results:
            if isinstance(result, Exception):
                raise result
            scores.append(result)
        rows = list(zip(*scores, strict=True))  # one row per response, a score per member
        groups: dict[str, list[int]] = {}
        for i, pair in enumerate(pairs):
            groups.setdefault(pair.prompt if isinstance(pair.prompt, str) else repr(pair.prompt), []).append(i)
        combined: dict[int, Reward] = {}
        for prompt, places in groups.items():
            scales = self._scale(prompt, [rows[i] for i in places])
            combined |= {i: self._reward(rows[i], scales) for i in places}
        return [combined[i] for i in range(len(pairs))]

    def _scale(self, prompt: str, rows: Sequence[tuple[Reward, ...]]) -> tuple[_Scale, ...]:
        """Return each member's mean and deviation for a prompt: found once, then kept."""
        if not self.normalize:
            return ((0.0, 1.0),) * len(self.models)
        with self._lock:
            whole = [row for row in rows if not any(map(math.isnan, row))]
            if prompt not in self._scales:
                if not whole:
                    return ((0.0, 1.0),) * len(self.models)  # nothing here gets a reward anyway
                self._scales[prompt] = tuple(map(_spread, zip(*whole, strict=True)))
            self._scales.move_to_end(prompt)
            if len(self._scales) > _PROMPTS:
                self._scales.popitem(last=False)
            return self._scales[prompt]

    def _reward(self, row: Sequence[Reward], scales: Sequence[_Scale]) -> Reward:
        named = list(zip(self.names, row, strict=True))
        missing = next((f"{n}: {r.failure}" for n, r in named if math.isnan(r)), None)
        z = [(r - mean) / deviation for r, (mean, deviation) in zip(row, scales, strict=True)]
        return Reward(
            math.nan if missing else self._joined(z),
            feedback="\n".join(f"{n}: {r.feedback}" for n, r in named if r.feedback) or None,
            heads={n: float(r) for n, r in named},
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


def _spread(scores: Sequence[float]) -> _Scale:
    mean, deviation = fmean(scores), pstdev(scores)
    return mean, deviation if deviation > 1e-9 * abs(mean) else 1.0  # below that it is rounding, which is no spread


def _weights(weights: Sequence[float] | None, count: int, how: str) -> tuple[float, ...]:
    if (weights is None) == (how == "weighted"):
        raise InvalidInputError("weights go with how='weighted', and with no other")
    if weights is None:
        return ()
    if len(weights) != count or not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
        raise InvalidInputError(f"weights must be {count} numbers, not negative and not all 0; got {list(weights)}")
    return tuple(w / sum(weights) for w in weights)


def _distinct_names(names: Sequence[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n}#{names[:i].count(n) + 1}" for i, n in enumerate(names)]
