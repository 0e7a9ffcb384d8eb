"""The one error tree of the project.

TPOError                     anything that went wrong here; carries what was gained so far
├── InvalidInputError        an argument is wrong (also a ValueError); raised before any model is called
├── GenerationError          not one candidate could be produced; carries every cause
├── RewardError              the reward model raised, or scored nothing
│   └── RewardContractError  it returned something else than one reward per response
├── StoreError               a run's folder cannot be used: taken, of another run, full, read-only or damaged
├── UnsupportedError         a provider lacks something that was asked for (log-probabilities, say)
└── ModelError               a model cannot be found, loaded or reached
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory
    from tpo_core.values import Candidate

__all__ = [
    "GenerationError",
    "InvalidInputError",
    "ModelError",
    "RewardContractError",
    "RewardError",
    "StoreError",
    "TPOError",
    "UnsupportedError",
    "carry",
    "nearest",
]


class TPOError(Exception):
    """Base of every error raised by this project."""

    trajectory: Trajectory | None
    """What was gained before the error, or None when nothing had started."""

    trajectories: tuple[Trajectory, ...] = ()
    """When it ended a run: one per query, in their order, finished or cut off; see its ``stop_reason``. Whatever else
    ends a run (an interrupt, a cancellation, the host's own exceptions) carries the same two."""

    def __init__(self, message: str, *, trajectory: Trajectory | None = None) -> None:
        super().__init__(message)
        self.trajectory = trajectory

    @property
    def best(self) -> Candidate | None:
        """Return the best candidate scored before the error, if there is one."""
        return self.trajectory.best_or_none if self.trajectory is not None else None


class InvalidInputError(TPOError, ValueError):
    """An argument is wrong; the message names it and says what to do."""


class GenerationError(TPOError):
    """Not one candidate could be produced."""

    causes: tuple[BaseException, ...]
    """The exceptions behind the failures, in the order they happened."""

    def __init__(
        self, message: str, *, trajectory: Trajectory | None = None, causes: tuple[BaseException, ...] = ()
    ) -> None:
        super().__init__(message, trajectory=trajectory)
        self.causes = causes


class RewardError(TPOError):
    """The reward model raised, broke its contract, or scored nothing."""


class RewardContractError(RewardError):
    """The reward model returned something else than one reward per response: a fault of its code, not an outage."""


class StoreError(TPOError):
    """A run's folder cannot be used: another process has it, it belongs to another run, or it cannot be written."""


class UnsupportedError(TPOError):
    """A provider lacks something that was asked for."""


class ModelError(TPOError):
    """A model cannot be found, loaded or reached."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return, for a message's end, the question whether a known name like this one is meant; nothing if none is."""
    from difflib import get_close_matches  # only errors need it

    meant = get_close_matches(name, list(known), 1)
    return f"; did you mean {meant[0]}?" if meant else ""


def carry(error: BaseException, trajectories: tuple[Trajectory, ...]) -> None:
    """Put what queries had on the error that ended them: as ``trajectories``, and a single one as ``trajectory``.

    Errors that are not of this project, an interrupt or a host's control flow, get the same attributes.
    """
    error.trajectories = trajectories  # type: ignore[attr-defined]
    if len(trajectories) == 1 and getattr(error, "trajectory", None) is None:
        error.trajectory = trajectories[0]  # type: ignore[attr-defined]
