"""What the loop may ask for, and what it is answered.

The loop is a generator. It yields one of four effects and is sent the answer:

    Generate  ->  list[Completion], exactly ``n`` of them, failures included
    Gather    ->  one answer per Generate inside, same order; they may run at the same time
    Score     ->  list[Reward], one per response, same order
    Progress  ->  None

Whoever answers (a driver with a DSPy program, one with a LangChain chain, a test by hand) may also raise at the line
that asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tpo_core.records import repr_without_texts
from tpo_core.values import Candidate, Pair, Step

if TYPE_CHECKING:
    from tpo_core.prompts.signatures import Signature

__all__ = [
    "Effect",
    "Gather",
    "Generate",
    "Progress",
    "Score",
    "Task",
]

Task = Literal["sample", "loss", "gradient", "update"]
"""Who is asked for what: the policy for a sample, the critic for loss and gradient, the editor for an update."""


@dataclass(frozen=True)
class Generate:
    """Ask for ``n`` independent samples; answered with ``n`` completions, in any order, failures included."""

    task: Task
    """Which of the four prompts this is."""

    signature: Signature | None
    """The declarative prompt, or None for ``sample``: the user's own program is its own prompt."""

    inputs: Any
    """The signature's input fields as text ready to show; for ``sample``, whatever the user's program takes."""

    n: int
    """How many samples."""

    step: int
    """The round: 0 before any update."""

    seeds: tuple[int, ...]
    """One number per sample, unlike any other of the same loop: a rollout id, a cache salt, or a provider's seed."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    parent: Candidate | None = None
    """For ``loss``, ``gradient`` and ``update``: the chosen candidate."""
    send_seed: bool = False
    """Whether the user asked for reproducible samples: a provider that takes a seed is then sent one."""
    deadline: float | None = None
    """When, on the loop's clock, what is still missing is answered with failure ``deadline``."""
    spare: int | None = None
    """How many samples beyond ``n`` may be asked where calls fail or bring too little; None for as many as it takes."""

    __repr__ = repr_without_texts("task", "signature")


@dataclass(frozen=True)
class Gather:
    """Ask for several things that do not wait for each other; answered with a list of their answers."""

    effects: tuple[Generate, ...]

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class Score:
    """Ask for the rewards of responses; answered with one ``Reward`` per pair, in the same order."""

    pairs: tuple[Pair, ...]
    deadline: float | None = None
    """When, on the loop's clock, what is still missing is answered with NaN and failure ``deadline``. None while
    nothing is scored yet: an answer a little late beats none."""

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class Progress:
    """Tell an observer what just happened; answered with None.

    ``kind`` is ``scored`` (``candidates`` of this round have their rewards), ``loss`` and ``gradient`` (``text`` was
    written about ``chosen`` and ``rejected``) or ``stopped`` (``text`` is the stop reason).
    """

    kind: Literal["scored", "loss", "gradient", "stopped"]
    step: int
    candidates: tuple[Candidate, ...] = ()
    text: str = ""
    round: Step | None = None
    """The round under way, for ``loss`` and ``gradient``."""
    best: Candidate | None = None
    """The best candidate so far."""
    place: int = 0
    """Which loop, where many run together: the place of its query."""

    __repr__ = repr_without_texts("kind")


Effect: TypeAlias = "Generate | Gather | Score | Progress"
