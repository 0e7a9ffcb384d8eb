"""What passes between the parts: prompts, completions, rewards, candidates, and what they cost. Frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from tpo_core.records import repr_without_texts

__all__ = [
    "NO_USAGE",
    "Candidate",
    "Completion",
    "Failure",
    "FailureReason",
    "Message",
    "Pair",
    "Prompt",
    "Reward",
    "Step",
    "Usage",
    "changed",
]

FailureReason = Literal[
    "error", "empty", "placeholder", "length", "content_filter", "unparsable", "tool_call", "deadline", "missing",
    "unscored",
]  # fmt: skip
"""Why something is no candidate. What was sampled: ``empty``, a ``placeholder``, cut off at its ``length``, withheld by
a ``content_filter``, ``unparsable``, or a ``tool_call``. What was not: the call raised an ``error``, had not ended at
the ``deadline``, or brought no completion (``missing``). And ``unscored``: the reward model gave it no number."""


@dataclass(frozen=True)
class Usage:
    """Samples, requests and tokens, as the provider reports them; unreported tokens count 0. Adds up with ``+``."""

    calls: int = 0
    """Samples asked for, also by requests that failed or brought fewer."""
    requests: int = 0
    """Requests made, failed ones included; fewer than calls where one request asks for several samples."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens the provider read from its cache (part of ``prompt_tokens``)."""
    estimated: bool = False
    """Whether some completion tokens are an estimate: the provider reported one choice of several."""

    __repr__ = repr_without_texts()

    @property
    def tokens(self) -> int:
        """Return prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def total(cls, usages: Iterable[Usage]) -> Usage:
        """Return the sum of several; most of one request's are empty, and those cost nothing."""
        total = None
        for usage in usages:
            if usage is not NO_USAGE:
                total = usage if total is None else total + usage
        return NO_USAGE if total is None else total

    def __add__(self, other: Usage) -> Usage:
        """Sum field by field."""
        if other is NO_USAGE:
            return self
        return Usage(
            self.calls + other.calls,
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.estimated or other.estimated,
        )


NO_USAGE = Usage()
"""What costs nothing: the same object wherever nothing is reported."""

D = TypeVar("D")


def changed(value: D, **fields: Any) -> D:
    """Return a copy of a frozen value with other fields: ``dataclasses.replace``, at a fifth of its time.

    For classes without ``__post_init__``: nothing is checked.
    """
    copy = object.__new__(type(value))
    vars(copy).update(vars(value), **fields)
    return copy


@dataclass(frozen=True)
class Failure:
    """Why something is no candidate."""

    reason: FailureReason
    """Which kind; a trajectory read from JSON keeps whatever it says."""
    message: str = ""
    exception: BaseException | None = field(default=None, compare=False, repr=False, metadata={"written": False})
    """The exception behind it; not part of the JSON."""
    lasting: bool = field(default=False, compare=False, repr=False, metadata={"written": False})
    """Whether asking again is in vain: a key is missing or refused, or there is no such model; not part of the JSON."""

    __repr__ = repr_without_texts("reason", "message")


@dataclass(frozen=True)
class Candidate:
    """One response, scored or with the reason why it is not a candidate."""

    response: str
    """The text, as the critic and the reward model read it."""
    value: Any = field(default=None, compare=False, metadata={"written": False, "read_from": "response"})
    """The host's own object (a Prediction, a message, a pydantic object); the text itself where there is none."""
    reward: float | None = None
    """Its reward, or None when it has none; see ``failure``."""
    step: int = 0
    """The round that made it; 0 is before any update."""
    failure: Failure | None = None
    """Why it is not a candidate; None when it is one."""
    feedback: str | None = None
    """What the reward model said beside the score."""
    heads: Mapping[str, float] = field(default_factory=dict)
    """Named objectives of the reward, where the model has them."""
    truncated: bool = False
    """Whether the reward model saw a shortened prompt."""
    fresh: bool = True
    """Whether it is a sample of the program itself rather than an update."""
    index: int = 0
    """Its place in ``Trajectory.candidates``."""
    context: Any = None
    """What it answers, as the answering model saw it (text or chat messages): with the documents that were retrieved,
    say. An update has its parent's. None where that is the query itself."""

    critique: int | None = None
    """The place in ``Trajectory.steps`` of the critique that an update was made from; its ``chosen`` is the parent.
    None for a fresh sample."""

    __repr__ = repr_without_texts("heads")

    def answers(self, query: Prompt) -> Prompt:
        """Return what it answers: its own context, or the query."""
        return query if self.context is None else self.context


@dataclass(frozen=True)
class Step:
    """One critique of a round: what was contrasted, what was said about it, what came of it.

    The paper's rounds have one each; another plan's may have several, or none where it only samples.
    """

    step: int
    """The round, as in ``Candidate.step``: 1 for the first after the initial samples."""
    chosen: Candidate | None = None
    """y_w: in the paper's plan the best of all candidates so far; None for a round that had no contrast."""
    rejected: Candidate | None = None
    """y_l: in the paper's plan the worst of all candidates so far; None where the chosen was critiqued alone."""
    loss: str = ""
    """The textual loss: why the chosen beats the rejected."""
    gradient: str = ""
    """The textual gradient: what the next version should do."""
    failure: Failure | None = None
    """Why no candidates came of it: what befell the critique, or most of the updates; None when any did."""

    __repr__ = repr_without_texts()


Message: TypeAlias = Mapping[str, Any]
"""One chat message: ``role`` and ``content``, as in the OpenAI chat format."""


Prompt: TypeAlias = "str | Sequence[Message]"
"""What a response answers: one user turn, or a whole conversation that ends with it."""


@dataclass(frozen=True)
class Completion:
    """One answer to ``Generate``: a text with the host's own object, or the failure that took its place."""

    text: str = ""
    """The response as the critic and the reward model read it."""

    value: Any = field(default=None, compare=False)
    """The host's own object behind the text (a Prediction, a message, a pydantic object); None for plain text."""

    finish_reason: str | None = None
    """The provider's word: ``stop``, ``length``, ``tool_calls``, ...; None where the host does not tell."""

    usage: Usage = NO_USAGE
    """What the request that made it cost; when one request made several, the first carries it all. Where a driver
    answers, the first completion counts all samples asked, those of failed calls included."""

    failure: Failure | None = None
    """Why there is no response, or why it cannot be a candidate."""

    context: Any = None
    """What the answering model saw, where that is more than the query: text or chat messages; ``Candidate.context``."""

    logprobs: tuple[Mapping[str, float], ...] = field(default=(), compare=False, repr=False)
    """For each leading token, the natural-log probabilities of its likeliest alternatives, where asked for."""

    __repr__ = repr_without_texts("finish_reason")


@dataclass(frozen=True)
class Pair:
    """One thing to score: a response to a prompt, with the host's own objects behind both where there are any."""

    prompt: Prompt
    """What the response answers, as the answering model saw it."""
    response: str
    value: Any = field(default=None, compare=False)
    inputs: Any = field(default=None, compare=False)
    query: Prompt | None = field(default=None, compare=False)
    """What was asked, where the prompt is more than that: responses to one query may have seen other documents each."""
    reference: Any = field(default=None, compare=False)
    """What the response is compared with, where the caller knows that; None where nobody does."""
    reference_name: str = field(default="reference", compare=False)
    """What the caller calls the reference: the key of the call's input that held it."""

    __repr__ = repr_without_texts()

    @property
    def asked(self) -> Prompt:
        """Return what was asked: the same for all candidates of a loop, whatever their prompts are."""
        return self.prompt if self.query is None else self.query


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
        self.usage = usage or NO_USAGE
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[float], dict[str, Any]]:
        """Keep the extras through copy and pickle."""
        return (float(self),), dict(vars(self))
