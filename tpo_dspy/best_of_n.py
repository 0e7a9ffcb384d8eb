"""Drop-in for ``dspy.BestOfN``: the same arguments and answers, all attempts at once, none of its faults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import dspy

from tpo_core.drivers.serving import Ticket
from tpo_core.errors import InvalidInputError
from tpo_core.rewards import FunctionReward, RewardModel, as_reward
from tpo_core.rewards.calling import find_kind
from tpo_dspy.fields import bind
from tpo_dspy.rewarded import Outside, Rewarded
from tpo_dspy.search import Search

__all__ = ["BestOfN", "Steps"]

Steps = Generator[Ticket[Any], Any, Any]
"""A search: yields what is to be done, is sent what came of it, returns the answer."""


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
        self._outside = Outside(self._read(reward_fn))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the best prediction; its attributes ``reward`` and ``trajectory`` say what it was chosen for."""
        search = self._search(args, kwargs)
        steps, outcome = self._steps(search), None
        try:
            while True:
                outcome = _outcome(steps.send(outcome))
        except StopIteration as end:
            return end.value
        finally:
            search.rounds.close()

    async def aforward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the best prediction without blocking the event loop."""
        search = self._search(args, kwargs)
        steps, outcome = self._steps(search), None
        try:
            while True:
                outcome = await _aoutcome(steps.send(outcome))
        except StopIteration as end:
            return end.value
        finally:
            search.rounds.close()

    def _steps(self, search: Search) -> Steps:
        for start in range(0, self.N, self.max_concurrency):
            wave = range(start, min(start + self.max_concurrency, self.N))
            new = search.enter((yield search.attempts(wave)))
            if pairs := search.books.unscored(new):
                search.enter_rewards(pairs, (yield search.scoring(pairs)))
            if search.check(self.fail_count).reached(self.threshold):
                break
            if wave.stop < self.N:
                yield from self._learn(search, wave.stop)
        return search.answer(self.threshold)

    def _learn(self, search: Search, attempt: int) -> Steps:
        """Do something between attempts; nothing here."""
        yield from ()

    def _search(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Search:
        self._outside.check()
        return Search(self.module, bind(self.module, args, kwargs), self._outside.reward, self.N, self.replay)


def _outcome(ticket: Ticket[Any]) -> Any:
    try:
        return ticket.call()
    except Exception as error:  # noqa: BLE001 - the search decides what it costs
        return error


async def _aoutcome(ticket: Ticket[Any]) -> Any:
    try:
        return await ticket.acall()
    except Exception as error:  # noqa: BLE001 - the search decides what it costs
        return error
