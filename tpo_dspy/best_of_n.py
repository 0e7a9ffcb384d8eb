"""Drop-in for ``dspy.BestOfN``: the same arguments and answers, all attempts at once, with the engine's budgets."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dspy

from tpo_core.config import TPOConfig
from tpo_core.drivers.run import arun, run
from tpo_core.drivers.serving import Observer
from tpo_core.errors import InvalidInputError
from tpo_core.rewards import FunctionReward, RewardModel, as_reward
from tpo_core.rewards.calling import find_kind
from tpo_dspy.callbacks import Rounds
from tpo_dspy.fields import bind
from tpo_dspy.rewarded import Outside, Rewarded, without_self
from tpo_dspy.search import AttemptPolicy, Search

__all__ = ["BestOfN"]


def _reward_of(reward_fn: Any) -> RewardModel:
    """Read a host's ``reward_fn(args, pred)``, whatever its parameters are called; the rest as ``as_reward`` does."""
    special = any(hasattr(reward_fn, name) for name in ("score", "score_pairs", "invoke"))
    if special or isinstance(reward_fn, dspy.Module) or not callable(reward_fn) or inspect.isclass(reward_fn):
        return as_reward(reward_fn)
    try:
        kind = find_kind(reward_fn)
    except InvalidInputError:
        kind = "args"
    if kind == "pair" and not _names_pair(reward_fn):
        kind = "args"
    return FunctionReward(reward_fn, kind=kind)


def _names_pair(fn: Callable[..., Any]) -> bool:
    return list(inspect.signature(fn).parameters)[:2] in (["prompt", "response"], ["query", "response"])


class BestOfN(Rewarded):
    """Runs a module up to N times and returns the prediction with the highest reward.

    Args:
        module: What to run.
        N: Most attempts.
        reward_fn: Called with the inputs as a dict and the Prediction; returns a number, or ``(number, feedback)``.
            Also any reward model, a metric, a function of ``(prompt, response)``, or one of lists of both that scores
            all attempts against each other.
        threshold: The first attempt that reaches it is the answer; None takes the best of N.
        fail_count: Failed attempts that one call may have; the next one is raised. All N by default; when no attempt
            succeeds at all, the last failure is raised.
        max_concurrency: Attempts at once, N by default; 1 stops asking as soon as ``threshold`` is reached.
        replay: Number the attempts from 0, so that DSPy's cache answers the same call with the same attempts; by
            default each call draws anew.
        max_calls: Budget: most calls of one answer, N by default; the best so far is returned, as for the next two.
        max_tokens: Budget: start no attempt once this many prompt and completion tokens are reported.
        deadline: Budget: seconds from the first attempt to the answer.
        gold: A held-out reward, read as ``reward_fn`` is; reported in ``trajectory.gold`` and never optimised.
        on_progress: Called with each ``Progress`` as it happens.

    Raises:
        InvalidInputError: An argument is wrong; the message names it.
    """

    _read = staticmethod(_reward_of)

    def __init__(
        self,
        module: dspy.Module,
        N: int,
        reward_fn: Any,
        threshold: float | None,
        fail_count: int | None = None,
        *,
        max_concurrency: int | None = None,
        replay: bool = False,
        max_calls: int | None = None,
        max_tokens: int | None = None,
        deadline: float | None = None,
        gold: Any = None,
        on_progress: Observer | None = None,
    ) -> None:
        """Check the arguments."""
        super().__init__()
        if not isinstance(module, dspy.Module):
            raise InvalidInputError(f"module must be a dspy.Module, not {module!r:.80}")
        for name, value, least in (("N", N, 1), ("fail_count", fail_count, 0), ("max_concurrency", max_concurrency, 1)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InvalidInputError(f"{name} must be an integer of at least {least}, not {value!r}")
        self.module, self.N, self.threshold = module, N, threshold
        self.fail_count = N if fail_count is None else fail_count
        self.max_concurrency = max_concurrency or N
        self.replay = replay
        self.max_calls, self.max_tokens, self.deadline = max_calls, max_tokens, deadline
        self._outside = Outside(self._read(reward_fn), None if gold is None else self._read(gold), on_progress)
        self._config()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the best prediction; its attributes ``reward`` and ``trajectory`` say what it was chosen for.

        Raises:
            Exception: What an attempt raised, where ``fail_count`` allows no more or none of the N succeeded.
            GenerationError: A budget ended the search before an attempt succeeded; carries the causes.
        """
        with self._search(args, kwargs) as search:
            trajectory = run(*search.args, **search.kwargs, on_progress=search.observer(sync=True))
        return search.answer(trajectory)

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the best prediction without blocking the event loop."""
        with self._search(args, kwargs) as search:
            trajectory = await arun(*search.args, **search.kwargs, on_progress=search.observer(sync=False))
        return search.answer(trajectory)

    @contextmanager
    def _search(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Search]:
        """Prepare one call, and end its round whatever happens."""
        self._outside.check()
        rounds = Rounds()
        policy = self._policy(bind(self.module, args, kwargs), rounds)
        try:
            yield Search(policy, rounds, self._outside, self._config(), self.fail_count, self.max_concurrency)
        finally:
            rounds.close()

    def _policy(self, inputs: dict[str, Any], rounds: Rounds) -> AttemptPolicy:
        return AttemptPolicy(self.module, inputs, rounds, replay=self.replay)

    def _config(self) -> TPOConfig:
        return TPOConfig(
            mode="bon",
            width=self.N,
            samples_at_once=min(self.max_concurrency, self.N),
            temperature=1.0,  # as in DSPy's own; the rest is the host's settings
            stop_at=_finite(self.threshold),
            max_calls=self._calls if self.max_calls is None else self.max_calls,
            max_tokens=self.max_tokens,
            deadline=self.deadline,
        )

    @property
    def _calls(self) -> int:
        """Return the calls of N attempts: with no more, none that failed is made again in silence."""
        return self.N


def _finite(threshold: Any) -> float | None:
    """Return a threshold as a finite reward; None where no reward reaches it."""
    if threshold is None:
        return None
    try:
        number = float(threshold)
    except (TypeError, ValueError):
        raise InvalidInputError(f"threshold must be a number or None, not {threshold!r:.80}") from None
    return max(number, -sys.float_info.max) if number < math.inf else None


BestOfN.__signature__ = without_self(BestOfN)
