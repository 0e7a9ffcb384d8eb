"""The one shape of a reward, and the checks every kind shares.

A kind implements ``score_batch`` (and ``ascore_batch`` where it can wait without a thread). Everything else (input
checks, scoring identical pairs once, counting the answers) stands here, once.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from tpo_core.errors import InvalidInputError, RewardContractError, RewardError, TPOError
from tpo_core.masking import hidden_errors
from tpo_core.rewards.concurrency import is_control_flow
from tpo_core.rewards.hosts.settings import SettableMetric
from tpo_core.threads import in_thread
from tpo_core.values import Pair, Prompt, Reward

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RewardModel", "make_pairs", "prompt_key"]


class RewardModel(SettableMetric, ABC):
    """Scores responses to prompts: one float per pair, same order, higher is better, any scale.

    Subclasses implement ``score_batch``. The same object, called, is a metric in DSPy, GEPA, BestOfN, Refine, LangSmith
    and openevals (see ``Metric``). It is shared, never copied: a deep copy of it is itself.

    Example:
        >>> class Brevity(RewardModel):
        ...     def score_batch(self, pairs):
        ...         return [-len(p.response) for p in pairs]
        >>> Brevity().score(["hi", "hi"], ["hello", "hey"])
        [-5.0, -3.0]
    """

    merges: ClassVar[bool] = False
    """Whether one large batch is cheaper than several small ones at once: drivers then merge the requests of the loops
    they run. True for a model on this machine; False for functions and servers, which overlap instead."""

    merges_up_to: float = math.inf
    """Characters of responses from which on a merged batch takes no further request: it would be no cheaper a response,
    and every loop in it waits for all of it."""

    name: str = ""
    """How errors, traces and feedback keys call it; the class name by default."""

    @property
    def cache_key(self) -> str | None:
        """Return what a cache of whole answers knows this reward by; None, the default, keeps them out of it.

        It is the same text in every process for the same model and settings, and another wherever scores may differ; no
        secret can be read in it. A subclass whose scores follow from its settings may have one.
        """
        return None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the kind a name."""
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score pairs that were checked and hold no duplicates.

        Args:
            pairs: At least one; mixed prompts are allowed.

        Returns:
            One float per pair, same order. A ``Reward`` may carry feedback; NaN means this one could not be scored.
        """

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score without blocking the event loop; by default ``score_batch`` in a thread."""
        return await in_thread(self.score_batch, pairs)

    def score(self, prompts: Prompt | Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Score responses.

        Args:
            prompts: One prompt per response, or a single string for all. A prompt is a string or a list of chat
                messages.
            responses: At least one text.

        Returns:
            One float per response, same order, higher is better, any scale. Each is a ``Reward``.

        Raises:
            InvalidInputError: The arguments are empty, of different lengths or not text.
            RewardError: The model failed or returned another number of rewards.
        """
        return list(self.score_pairs(make_pairs(prompts, responses)))

    async def ascore(self, prompts: Prompt | Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Score responses without blocking; see ``score``."""
        return list(await self.ascore_pairs(make_pairs(prompts, responses)))

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score pairs that carry the host's own objects; identical pairs are scored once. Drivers call this."""
        distinct, places = _distinct(pairs)
        with self._named_errors():
            rewards = self.score_batch(distinct) if distinct else ()
        return self._checked(rewards, distinct, places)

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score pairs without blocking; see ``score_pairs``."""
        distinct, places = _distinct(pairs)
        with self._named_errors():
            rewards = await self.ascore_batch(distinct) if distinct else ()
        return self._checked(rewards, distinct, places)

    def check(self) -> None:
        """Find out, before anything is paid for, whether the model can be reached and asked; drivers call this first.

        A kind that can fail as a whole overrides it; by default nothing is found out.

        Raises:
            RewardError: It can not; likewise ``ModelError``.
        """

    async def acheck(self) -> None:
        """Find out without blocking; see ``check``."""
        if type(self).check is not RewardModel.check:  # else there is nothing to wait for, and no thread to hand it to
            await in_thread(self.check)

    @property
    def origin(self) -> RewardModel:
        """Return the reward that a user made: itself, unless it stands for another."""
        return self

    def close(self) -> None:
        """Give back what the model holds (threads, connections, memory); it may be used again."""

    def __enter__(self) -> Self:
        """Close at the end of a ``with`` block."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Close."""
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> RewardModel:
        """Stay one object: hosts deep-copy programs, and weights or connections must not follow."""
        return self

    def __repr__(self) -> str:
        """Name the kind and the model."""
        kind = type(self).__name__
        return f"{kind}()" if self.name == kind else f"{kind}({self.name!r})"

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Say whose error it is, of those that do not say so and are no host's control flow; mask all of them."""
        with hidden_errors():
            try:
                yield
            except Exception as error:
                if isinstance(error, TPOError) or is_control_flow(error):
                    raise
                raise RewardError(f"reward model {self.name!r} raised {type(error).__name__}: {error}") from error

    def _checked(self, rewards: Sequence[float], distinct: Sequence[Pair], places: Sequence[int]) -> list[Reward]:
        if not isinstance(rewards, Iterable) or isinstance(rewards, (str, bytes, Mapping, Set)):
            raise RewardContractError(
                f"reward model {self.name!r} returned {type(rewards).__name__}, not a list of floats"
            )
        rewards = list(rewards)
        if len(rewards) != len(distinct):
            raise RewardContractError(
                f"reward model {self.name!r} returned {len(rewards)} rewards for {len(distinct)} responses; "
                "it must return one float per response, in the same order"
            )
        lifted = [self._lifted(r) for r in rewards]
        return [lifted[i] for i in places]

    def _lifted(self, reward: Any) -> Reward:
        if isinstance(reward, Reward) and math.isfinite(reward):
            return reward
        try:
            value = float(reward)
        except (TypeError, ValueError):
            return Reward(math.nan, failure=f"{type(reward).__name__} is not a number")
        if isinstance(reward, Reward):
            return Reward(math.nan, **{**vars(reward), "failure": reward.failure or f"the reward is {value}"})
        return Reward(value) if math.isfinite(value) else Reward(math.nan, failure=f"the reward is {value}")


def make_pairs(prompts: Prompt | Sequence[Prompt], responses: Sequence[str]) -> list[Pair]:
    """Check and pair prompts with responses; a single string serves every response.

    Raises:
        InvalidInputError: Empty, mismatched or not text; the message names the argument.
    """
    if isinstance(responses, str) or not isinstance(responses, Sequence):
        raise InvalidInputError(f"responses must be a list of texts, not {type(responses).__name__}")
    if not responses:
        raise InvalidInputError("responses is empty; give at least one response to score")
    shared = isinstance(prompts, str)
    if not shared and not isinstance(prompts, Sequence):
        raise InvalidInputError(f"prompts must be a string or a list of prompts, not {type(prompts).__name__}")
    if not shared and len(prompts) != len(responses):
        raise InvalidInputError(f"prompts and responses differ in length: {len(prompts)} and {len(responses)}")
    each: Iterable[Any] = [prompts] * len(responses) if shared else prompts
    return [
        Pair(_prompt(p, i), _text(r, f"responses[{i}]")) for i, (p, r) in enumerate(zip(each, responses, strict=True))
    ]


def prompt_key(prompt: Prompt) -> bytes:
    """Return what a prompt is remembered by: short, and the same for equal prompts."""
    text = prompt if isinstance(prompt, str) else repr(prompt)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _prompt(prompt: Any, place: int) -> Prompt:
    name = f"prompts[{place}]"
    if isinstance(prompt, str):
        return _text(prompt, name)
    if not isinstance(prompt, Sequence) or not prompt:
        raise InvalidInputError(f"{name} must be a string or a non-empty list of chat messages, not {prompt!r:.80}")
    for message in prompt:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise InvalidInputError(f"{name} holds {message!r:.80}; a chat message is a dict with role and content")
        if isinstance(message["content"], str):
            _text(message["content"], name)
    return prompt


def _text(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} must be text, not {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInputError(f"{name} holds a lone surrogate, which no tokenizer or server can take") from None
    return text


def _distinct(pairs: Sequence[Pair]) -> tuple[list[Pair], list[int]]:
    """Return the distinct pairs, and for each pair its place among them."""
    seen: dict[tuple[str, str, int], int] = {}
    distinct: list[Pair] = []
    places: list[int] = []
    for pair in pairs:
        prompt = pair.prompt if isinstance(pair.prompt, str) else repr(pair.prompt)
        place = seen.setdefault((prompt, pair.response, id(pair.inputs)), len(distinct))
        if place == len(distinct):
            distinct.append(pair)
        places.append(place)
    return distinct, places
