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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tpo_core.trajectory import Candidate, Failure, Step, Usage

if TYPE_CHECKING:
    import dspy

__all__ = [
    "Completion",
    "Effect",
    "Gather",
    "Generate",
    "Message",
    "Pair",
    "Progress",
    "Prompt",
    "Reward",
    "Score",
    "Task",
]

Message: TypeAlias = Mapping[str, Any]
"""One chat message: ``role`` and ``content``, as in the OpenAI chat format."""

Prompt: TypeAlias = "str | Sequence[Message]"
"""What a response answers: one user turn, or a whole conversation that ends with it."""

Task = Literal["sample", "loss", "gradient", "update"]
"""Who is asked for what: the policy for a sample, the critic for loss and gradient, the editor for an update."""


@dataclass(frozen=True)
class Completion:
    """One answer to ``Generate``: a text with the host's own object, or the failure that took its place."""

    text: str = ""
    """The response as the critic and the reward model read it."""

    value: Any = field(default=None, compare=False)
    """The host's own object behind the text (a Prediction, a message, a pydantic object); None for plain text."""

    finish_reason: str | None = None
    """The provider's word: ``stop``, ``length``, ``tool_calls``, ...; None where the host does not tell."""

    usage: Usage = field(default_factory=Usage)
    """What the request that made it cost; when one request made several, the first carries it all. Where a driver
    answers, the first completion counts all samples asked, those of failed calls included."""

    failure: Failure | None = None
    """Why there is no response, or why it cannot be a candidate."""

    logprobs: tuple[Mapping[str, float], ...] = field(default=(), compare=False, repr=False)
    """For each leading token, the natural-log probabilities of its likeliest alternatives, where asked for."""


@dataclass(frozen=True)
class Generate:
    """Ask for ``n`` independent samples; answered with ``n`` completions, in any order, failures included."""

    task: Task
    """Which of the four prompts this is."""

    signature: type[dspy.Signature] | None
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


@dataclass(frozen=True)
class Gather:
    """Ask for several things that do not wait for each other; answered with a list of their answers."""

    effects: tuple[Generate, ...]


@dataclass(frozen=True)
class Pair:
    """One thing to score: a response to a prompt, with the host's own objects behind both where there are any."""

    prompt: Prompt
    response: str
    value: Any = field(default=None, compare=False)
    inputs: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Score:
    """Ask for the rewards of responses; answered with one ``Reward`` per pair, in the same order."""

    pairs: tuple[Pair, ...]
    deadline: float | None = None
    """When, on the loop's clock, what is still missing is answered with NaN and failure ``deadline``. None while
    nothing is scored yet: an answer a little late beats none."""


class Reward(float):
    """A reward: a float on any scale, higher is better, with what the reward model said beside it.

    NaN means that this response could not be scored; ``failure`` then says why.

    Example:
        >>> reward = Reward(0.5, feedback="cites no source")
        >>> reward + 1, reward.feedback
        (1.5, 'cites no source')
    """

    feedback: str | None
    """Text for the critic: what the reward model would have liked better."""
    heads: Mapping[str, float]
    """Named objectives behind the score, where the model has them."""
    failure: str | None
    """Why the score is NaN."""
    truncated: bool
    """Whether the model saw a shortened prompt."""
    usage: Usage
    """What scoring cost, where the reward model is itself a language model."""

    def __new__(
        cls,
        value: float,
        *,
        feedback: str | None = None,
        heads: Mapping[str, float] | None = None,
        failure: str | None = None,
        truncated: bool = False,
        usage: Usage | None = None,
    ) -> Reward:
        """Build a float that carries the extras."""
        self = super().__new__(cls, value)
        self.feedback = feedback
        self.heads = dict(heads or {})
        self.failure = failure
        self.truncated = truncated
        self.usage = usage or Usage()
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        """Keep the extras through copy and pickle."""
        return (float(self),), dict(vars(self))


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


Effect: TypeAlias = "Generate | Gather | Score | Progress"
