"""What one loop did: every candidate, every critique, what it cost and why it stopped. Frozen; JSON round trip."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from tpo_core.errors import InvalidInputError
from tpo_core.records import plain, rebuilt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from tpo_core.values import Candidate, FailureReason, Step, Usage

__all__ = [
    "StopReason",
    "Trajectory",
]

StopReason = Literal[
    "depth", "stop_at", "patience", "max_calls", "max_tokens", "max_dollars", "deadline", "no_contrast",
    "no_candidates", "critic_failed", "reward_failed", "no_expected_gain", "error", "cancelled",
]  # fmt: skip
"""Why a loop ended. ``depth``: it ran all its rounds. The others are budgets, or what could not go on: without contrast
or candidates, or because the critic or the reward model failed; ``no_expected_gain``: nothing that the budget still
pays is expected to raise the best. All of these end with the best so far; ``error`` and
``cancelled`` stand on the trajectory that an exception carries."""


_WEAK: tuple[FailureReason, ...] = ("empty", "placeholder", "tool_call")
"""The failures that are the policy's own doing."""

_ADVICE: Mapping[str, str] = {
    "unparsable": "give an editor that keeps the format, or say the format in the prompt",
    "length": "raise max_response_tokens, or the model's own limit",
    "content_filter": "the provider withholds them",
    "error": "the calls failed: see .failures",
    "missing": "the provider brings fewer than it was asked for",
    "unscored": "the reward gave them no number",
}
"""What to do about the failures that say nothing of the policy."""


FORMAT = 1

_BESIDE = ("best", "gain", "diagnosis", "models", "error")
"""What ``tpo ask --json`` writes beside a trajectory; it follows from it, or is not the trajectory's."""


@dataclass(frozen=True, repr=False)
class Trajectory:
    """Everything one loop did.

    Raises:
        InvalidInputError: ``from_json`` was given something that is no trajectory.

    Example:
        >>> t = Trajectory("hi", (Candidate("a", reward=1.0), Candidate("b", reward=2.0, step=1, index=1)))
        >>> t.best.response, t.gain, Trajectory.from_json(t.to_json()) == t
        ('b', 1.0, True)
    """

    query: Any
    """The prompt: text, or a list of chat messages."""
    candidates: tuple[Candidate, ...] = ()
    """The cache C with the failures, in the order they were made."""
    steps: tuple[Step, ...] = ()
    usage: Usage = field(default_factory=Usage)
    """What the policy, critic and editor cost."""
    reward_usage: Usage = field(default_factory=Usage)
    """What the reward model cost: ``calls`` counts scored pairs."""
    stop_reason: StopReason = "depth"
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds: ``total``, and by task ``sample``, ``loss``, ``gradient``, ``update``, ``score``."""
    seed: int | None = None
    gold: Mapping[int, float] = field(default_factory=dict)
    """Rewards of a held-out reward model by candidate index: reported, never optimised."""

    @property
    def best_or_none(self) -> Candidate | None:
        """Return the best-scored candidate, the earliest of equals, or None when nothing is scored."""
        return _best(self.candidates)

    @property
    def best(self) -> Candidate:
        """Return the best-scored candidate, the earliest of equals.

        Raises:
            InvalidInputError: Nothing is scored (only on a trajectory carried by an error).
        """
        if (best := self.best_or_none) is None:
            raise InvalidInputError("this trajectory has no scored candidate; see .failures")
        return best

    @property
    def initial_best(self) -> Candidate | None:
        """Return the best candidate before any update; None when none of them could be scored."""
        return _best(c for c in self.candidates if c.step == 0)

    @property
    def gain(self) -> float:
        """Return the reward of the best minus that of the best initial sample; 0.0 without one."""
        initial = self.initial_best
        return 0.0 if initial is None else (self.best.reward or 0.0) - (initial.reward or 0.0)

    @property
    def failures(self) -> tuple[Candidate, ...]:
        """Return what was sampled but is no candidate."""
        return tuple(c for c in self.candidates if c.failure is not None)

    @property
    def best_by_step(self) -> tuple[float, ...]:
        """Return the best reward seen up to each round, from round 0: the training curve; it never falls."""
        curve: list[float] = []
        top = float("-inf")
        for number in range(self._last_step + 1):
            top = max([top, *self.rewards(number)])
            curve.append(top)
        return tuple(curve)

    def rewards(self, step: int) -> tuple[float, ...]:
        """Return the rewards of one round's candidates, in the order they were made."""
        return tuple(c.reward for c in self.candidates if c.step == step and c.reward is not None)

    @property
    def diagnosis(self) -> str | None:
        """Return what most updates failed by, or that they score lower, and what to do; None when all is well.

        Only updates that say nothing or score lower make the policy look too weak (``weak_policy``); errors, texts that
        could not be parsed and the like are named as what they are. What a deadline cut off is told by ``stop_reason``.
        """
        return self._diagnosed[0]

    @property
    def weak_policy(self) -> bool:
        """Return whether the policy looks too weak to follow its feedback.

        The paper's section 7.4: below a certain strength a policy's rewards fall as it revises.
        """
        return self._diagnosed[1]

    @property
    def _diagnosed(self) -> tuple[str | None, bool]:
        made = [c for c in self.candidates if not c.fresh]
        updates = [c for c in made if c.failure is None or c.failure.reason != "deadline"]
        scored = [c.reward for c in updates if c.reward is not None]
        if len(updates) < 4 or not (initial := self.rewards(0)):
            return None, False
        if len(scored) < len(updates) / 2:
            lost = [c.failure for c in updates if c.failure is not None]
            often = Counter(failure.reason for failure in lost)
            most = max(lost, key=lambda failure: (often[failure.reason], failure.reason not in _WEAK))
            said = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(most.message.split()))
            what = (
                f"{len(lost)} of {len(updates)} updates were no candidates, {often[most.reason]} of them {most.reason}"
            )
            what += f": {said if len(said) <= 160 else said[:159] + '…'}" if said else ""
            if most.reason not in _WEAK:
                return "; ".join(filter(None, [what, _ADVICE.get(most.reason)])), False
        elif sum(scored) / len(scored) < sum(initial) / len(initial) and self.gain == 0:
            what = f"no update beat the best first sample, and on average they score {_lower(scored, initial)} lower"
        else:
            return None, False
        advice = "give a stronger critic or editor, mix in samples with fresh=, or use mode='bon'"
        return f"{what}; the policy may be too weak to follow its feedback: {advice}", True

    @property
    def _last_step(self) -> int:
        return max((c.step for c in self.candidates), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: everything but the hosts' own objects and exceptions; see ``tpo_core.records``."""
        return {"format": FORMAT, **plain(self)}

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the trajectory as JSON text that every parser takes and UTF-8 can hold."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trajectory:
        """Rebuild a trajectory; ``Candidate.value`` is then the response text."""
        if not isinstance(data, Mapping) or "format" not in data:
            raise InvalidInputError("data is not a trajectory written by to_dict or to_json: it names no format")
        if data["format"] != FORMAT:
            raise InvalidInputError(f"data: format {data['format']!r:.80} is not {FORMAT}, the one this version reads")
        return rebuilt(cls, {name: value for name, value in data.items() if name not in ("format", *_BESIDE)})

    @classmethod
    def from_json(cls, text: str) -> Trajectory:
        """Rebuild a trajectory from ``to_json``'s text."""
        try:
            return cls.from_dict(json.loads(text))
        except InvalidInputError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"text is not JSON: {error}") from error

    def summary(self) -> str:
        """Return the outcome in a line: rewards, gain, tokens, why it stopped; with ``diagnosis`` below, if any."""
        from tpo_core.report import trajectory_line

        return "\n".join(filter(None, [trajectory_line(self), self.diagnosis and f"note: {self.diagnosis}"]))

    def __repr__(self) -> str:
        """Name the best candidate and how many of them and of rounds there were; ``to_json`` writes everything."""
        return (
            f"Trajectory(best={self.best_or_none!r}, candidates={len(self.candidates)}, steps={len(self.steps)}, "
            f"stop_reason={self.stop_reason!r})"
        )

    def to_html(self, *, title: str = "Trajectory") -> str:
        """Return the tree as one HTML page that needs nothing else: rewards, texts, critiques, word by word changes."""
        from tpo_core.report import trajectory_page

        return trajectory_page(self, title=title)

    def _repr_html_(self) -> str:
        """Show the tree in a notebook, in a frame of its own."""
        from tpo_core.report import notebook_frame

        return notebook_frame(self)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw each candidate's reward by round, and the best so far; needs ``pip install "tpo[plot]"``.

        Args:
            ax: Axes to draw on; a new figure's by default.
        """
        from matplotlib import pyplot

        if ax is None:
            ax = pyplot.subplots()[1]
        for fresh, label in ((True, "samples"), (False, "updates")):
            dots = [(c.step, c.reward) for c in self.candidates if c.fresh is fresh and c.reward is not None]
            if dots:
                ax.scatter(*zip(*dots, strict=True), alpha=0.6, label=label)
        ax.plot(range(len(self.best_by_step)), self.best_by_step, label="best so far")
        ax.set_xlabel("round")
        ax.set_ylabel("reward")
        ax.set_xticks(range(self._last_step + 1))
        ax.legend()
        return ax


def _lower(updates: Sequence[float], samples: Sequence[float]) -> str:
    """Return by how much updates score lower than samples: in s, the samples' spread, where they have one."""
    mean = sum(reward / len(samples) for reward in samples)  # rewards may be as large as floats go
    apart = mean - sum(reward / len(updates) for reward in updates)
    s = math.hypot(*(reward - mean for reward in samples)) / math.sqrt(max(1, len(samples) - 1))
    return f"{apart / s:.2g} s (the spread of the samples)" if s > 0 else f"{apart:.3g}"


def _best(candidates: Any) -> Candidate | None:
    scored = [c for c in candidates if c.reward is not None and c.failure is None]
    return max(scored, key=_reward, default=None)  # max keeps the first of equals


_reward: Any = attrgetter("reward")
