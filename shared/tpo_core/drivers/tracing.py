"""Who traces queries and their calls: an integration that has said so here, ``tpo_otel`` for one.

A query is traced from its first request to its end, and each call of the policy and the reward model around the very
call, in its own thread or task, so that whatever the call does is traced inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Protocol, TypeAlias, TypeVar

from tpo_core.config import TPOConfig
from tpo_core.loop.effects import Generate, Progress
from tpo_core.models.policy import Policy
from tpo_core.rewards.base import RewardModel
from tpo_core.trajectory import Trajectory
from tpo_core.values import Completion, Pair, Prompt, Reward

__all__ = [
    "UNTRACED",
    "QueryTrace",
    "ScoringPart",
    "Traced",
    "Tracer",
    "outcome",
    "scored_together",
    "trace_with",
    "traced_query",
]

T_contra = TypeVar("T_contra", contravariant=True)

Traced: TypeAlias = AbstractContextManager[Callable[[T_contra], object]]
"""Stands around one call, and gives a function that is told what the call returned."""

ScoringPart: TypeAlias = "tuple[QueryTrace, RewardModel, Sequence[Pair]]"
"""What one query has in a scoring."""


class QueryTrace(Protocol):
    """One query being traced. Calls are traced from several threads at once."""

    def calling(self, policy: Policy, request: Generate, seeds: Sequence[int]) -> Traced[Sequence[Completion]]:
        """Stand around one call of the policy."""

    def scoring(self, reward: RewardModel, pairs: Sequence[Pair]) -> Traced[Sequence[Reward]]:
        """Stand around one call of the reward model; other queries' pairs may be scored in it, too."""

    def told(self, progress: Progress) -> None:
        """Take what just happened in the loop."""

    def ended(self, trajectory: Trajectory, error: BaseException | None) -> None:
        """Take what came of the query, or what it had when an error, or a cancellation, ended it."""


class Tracer(Protocol):
    """Traces every query of this process."""

    def query(self, query: Prompt, config: TPOConfig, place: int) -> QueryTrace:
        """Begin with a query; called in the thread and context of whoever runs it.

        Args:
            query: What is asked.
            config: Of its loop.
            place: Which of many queries this is.
        """


class _Untraced:
    """Nobody traces."""

    def calling(self, policy: Policy, request: Generate, seeds: Sequence[int]) -> Traced[Sequence[Completion]]:
        return _NOTHING

    def scoring(self, reward: RewardModel, pairs: Sequence[Pair]) -> Traced[Sequence[Reward]]:
        return _NOTHING

    def told(self, progress: Progress) -> None:
        pass

    def ended(self, trajectory: Trajectory, error: BaseException | None) -> None:
        pass


def _ignore(brought: object) -> None:
    pass


_NOTHING: AbstractContextManager[Callable[[object], None]] = nullcontext(_ignore)

UNTRACED: QueryTrace = _Untraced()

_tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """Trace every query that starts from now on with this tracer, in the place of another; None traces no more."""
    global _tracer
    _tracer = tracer


def outcome(trajectory: Trajectory) -> dict[str, float | int | str]:
    """Return what a query came to as attributes of a span; what there is none of is left out."""
    best, initial, usage = trajectory.best_or_none, trajectory.initial_best, trajectory.usage
    told = {
        "tpo.reward": None if best is None else best.reward,
        "tpo.initial_reward": None if initial is None else initial.reward,
        "tpo.gain": None if best is None else trajectory.gain,
        "tpo.calls": usage.calls,
        "tpo.usage.input_tokens": usage.prompt_tokens,
        "tpo.usage.output_tokens": usage.completion_tokens,
        "tpo.stop_reason": trajectory.stop_reason,
    }
    return {name: value for name, value in told.items() if value is not None}


def traced_query(query: Prompt, config: TPOConfig, place: int) -> QueryTrace:
    """Begin to trace a query where somebody traces."""
    return UNTRACED if _tracer is None else _tracer.query(query, config, place)


@contextmanager
def scored_together(parts: Sequence[ScoringPart]) -> Iterator[Callable[[Sequence[Reward]], None]]:
    """Stand around one scoring for each of the queries that have pairs in it; gives what is told all rewards."""
    with ExitStack() as stack:
        tellers = [(stack.enter_context(trace.scoring(reward, pairs)), len(pairs)) for trace, reward, pairs in parts]

        def tell(rewards: Sequence[Reward]) -> None:
            start = 0
            for teller, count in tellers:
                teller(rewards[start : start + count])
                start += count

        yield tell
