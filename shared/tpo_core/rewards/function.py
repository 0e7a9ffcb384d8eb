"""Any callable as a reward: a function of prompt and response, a host's metric, a LangChain Runnable, an evaluator."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, get_args

from tpo_core.cache_keys import function_key, made_of
from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.pace import Pace
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.calling import Kind, Takes, arguments, as_rewards, find_kind, lift
from tpo_core.rewards.concurrency import aeach, aeach_sync, each, settle
from tpo_core.rewards.hosts.settings import HostMetric
from tpo_core.rewards.portal import portal
from tpo_core.values import Pair, Reward

__all__ = ["FunctionReward", "as_reward"]


class FunctionReward(RewardModel):
    """A callable as a reward model. Its shape is found from its signature, once, at construction.

    ============= =========================================================== ====================================
    ``kind``      called as                                                   found by
    ============= =========================================================== ====================================
    ``pair``      ``fn(prompt, response)``, ``fn(..., reference)``            two parameters; the default
    ``response``  ``fn(response)``                                            one needed parameter of that name
    ``batch``     ``fn(prompts, responses) -> list``, ``fn(responses)``,      plural names, or list annotations
                  TRL's ``fn(prompts=, completions=, **kwargs) -> list``
    ``metric``    ``fn(example, pred, trace=None)``, a ``dspy.Module``        ``example`` or ``gold`` first, ``trace``
    ``args``      ``fn(args, pred)``, BestOfN's reward_fn                     ``args`` first
    ``evaluator`` ``fn(inputs=, outputs=, reference_outputs=)``, openevals    a parameter called ``outputs``
    ``runnable``  ``fn.invoke({"prompt": ..., "response": ...})``             ``invoke`` and ``ainvoke``
    ============= =========================================================== ====================================

    It may be async (sync callers then await it on one background event loop) and may return a number, ``(number,
    feedback)``, a mapping with ``score`` and ``comment`` or ``feedback``, a ``dspy.Prediction(score=, feedback=)`` or a
    list of evaluator results (averaged, each a head). Anything else is no reward: NaN, with the reason. Several pairs
    are scored at once, in threads that see the caller's context variables, or where the caller is once the function has
    shown that it is quick and waits for nothing (``tpo_core.pace``). A pair that raises costs only itself.

    Where names tell that a function takes the response first, or needs something else, it is refused rather than called
    the wrong way round. Nameless parameters, ``(a, b)``, are taken to be prompt and response. TRL's functions are given
    completions as texts, whatever the prompts are.

    Args:
        fn: The callable.
        name: How errors, traces and feedback keys call it; by default the callable's own name.
        kind: One of the above, where the signature does not tell.
        fields: For ``metric`` and ``args``: the names of the fields that are built from prompt and response where the
            host has no Example, arguments or Prediction of its own.
        workers: How many calls of one scoring may run at once.
        cache_key: What tells it from other callables, a version of yours, say: answers aligned to it may then be cached
            whole. By default a function at the top of a module goes by its name and its module's source; a lambda, a
            function inside a function and an object go by nothing, unless they have a ``cache_key`` of their own.

    Raises:
        InvalidInputError: ``fn`` is not callable, or its signature fits no kind or several.

    Example:
        >>> FunctionReward(lambda prompt, response: -len(response)).score("hi", ["hello", "hey"])
        [-5.0, -3.0]
    """

    def __init__(
        self,
        fn: Any,
        *,
        name: str | None = None,
        kind: Kind | None = None,
        fields: tuple[str, str] = ("prompt", "response"),
        workers: int = 8,
        cache_key: str | None = None,
    ) -> None:
        if cache_key is not None and not isinstance(cache_key, str):
            raise InvalidInputError(f"cache_key must be text, not {type(cache_key).__name__}")
        if not isinstance(workers, int) or workers < 1:
            raise InvalidInputError(f"workers must be a whole number of at least 1, not {workers!r}")
        if kind is not None and kind not in get_args(Kind):
            raise InvalidInputError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
        if isinstance(fields, str) or len(fields) != 2 or not all(isinstance(f, str) for f in fields):
            raise InvalidInputError(f"fields must be two names, of the prompt's and the response's, not {fields!r}")
        self.kind = find_kind(fn) if kind is None else kind
        self.name = name or getattr(fn, "__name__", None) or getattr(fn, "name", None) or type(fn).__name__
        self.fn = fn
        self._fields = fields
        self._workers = workers
        self._cache_key = cache_key
        self._takes = Takes.of(fn.invoke if self.kind == "runnable" else fn)
        self._pace = Pace()
        self._call = fn.invoke if self.kind == "runnable" else fn
        self._acall = fn.ainvoke if self.kind == "runnable" else _async_form(fn)

    @property
    def needs_reference(self) -> bool:
        """Return whether it compares with a reference and cannot do without; see ``Pair.reference``."""
        return self.kind in ("pair", "evaluator") and self._takes.needs_reference

    @property
    def cache_key(self) -> str | None:
        """Return what tells the function from others, and how it is called; see ``RewardModel``."""
        own = function_key(self.fn) if self._cache_key is None else made_of("callable", self._cache_key)
        return made_of("function", own, kind=self.kind, fields=self._fields)

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Call the function for each pair, at once; see ``RewardModel``."""
        if self._acall is not None and self.kind != "runnable" and _is_async(self.fn):
            return portal.run(self._ascore(pairs))
        if self.kind == "batch":
            return self._whole(each(self._called, [pairs], 1, self._pace))
        return settle(each(self._one, pairs, self._workers, self._pace), self.name)

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Await the function for each pair, at once; a sync function runs in threads, unless it is quick."""
        if self._acall is not None:
            return await self._ascore(pairs)
        if self.kind == "batch":
            return self._whole(await aeach_sync(self._called, [pairs], 1, self._pace))
        return settle(await aeach_sync(self._one, pairs, self._workers, self._pace), self.name)

    async def _ascore(self, pairs: Sequence[Pair]) -> Sequence[float]:
        if self.kind == "batch":
            args, kwargs = self._arguments(pairs)
            return as_rewards(await self._awaited(args, kwargs), self.name)
        return settle(await aeach(self._aone, pairs, self._workers), self.name)

    def _arguments(self, pairs: Sequence[Pair]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return arguments(self.kind, self._takes, pairs, self._fields, self.name)

    def _called(self, pairs: Sequence[Pair]) -> Any:
        args, kwargs = self._arguments(pairs)
        try:
            return _waited(self._call(*args, **kwargs))
        except AttributeError as error:
            self._explain(error)
            raise

    def _explain(self, error: AttributeError) -> None:
        """Say of an attribute that a text lacks which shape is given the host's own object."""
        if self.kind in ("pair", "response", "batch") and isinstance(getattr(error, "obj", None), str):
            raise AttributeError(
                f"{error}: it was given texts; the program's own Prediction is given to (example, pred, trace=None), "
                "any host's own output to (inputs, outputs)"
            ) from error

    def _whole(self, found: Sequence[Any]) -> Sequence[float]:
        [answer] = found
        if isinstance(answer, Exception):
            raise answer
        return as_rewards(answer, self.name)

    def _one(self, pair: Pair) -> Reward:
        return lift(self._called([pair]))

    async def _aone(self, pair: Pair) -> Reward:
        args, kwargs = self._arguments([pair])
        return lift(await self._awaited(args, kwargs))

    async def _awaited(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self._acall is None:
            raise RewardError(f"reward {self.name!r} has no async form")
        try:
            return await self._acall(*args, **kwargs)
        except AttributeError as error:
            self._explain(error)
            raise


def as_reward(thing: Any) -> RewardModel:
    """Make a reward model of whatever was given as one.

    A ``RewardModel`` is itself; an object with ``score(prompts, responses)`` is asked in batches; ``"org/name"`` is a
    transformers sequence classifier; ``"http://..."`` is a server; any other callable or Runnable is a
    ``FunctionReward``.

    Raises:
        InvalidInputError: It is none of these.
    """
    if isinstance(thing, RewardModel):
        return thing
    if isinstance(thing, HostMetric):  # settings for hosts; the loop wants the raw reward
        return as_reward(thing.reward)
    if isinstance(thing, str):
        return _named(thing)
    score = getattr(thing, "score", None)
    if callable(score) and not inspect.isclass(thing):
        return FunctionReward(score, name=getattr(thing, "name", None) or type(thing).__name__, kind="batch")
    if callable(thing) or hasattr(thing, "invoke"):
        return FunctionReward(thing)
    raise InvalidInputError(
        f"reward must be a RewardModel, a callable, a Runnable, a model name or a URL, not {type(thing).__name__}"
    )


def _named(text: str) -> RewardModel:
    if text.startswith(("http://", "https://")):
        from tpo_core.rewards.remote.model import RemoteRewardModel

        return RemoteRewardModel(text)
    if text.count("/") >= 1 and not any(c.isspace() for c in text):
        from tpo_core.rewards.hf.model import HFRewardModel

        return HFRewardModel(text)
    raise InvalidInputError(
        f"reward {text!r:.80} is neither a model name (org/name), a local folder (./name) nor a URL (http://...)"
    )


def _is_async(fn: Any) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _async_form(fn: Any) -> Any:
    if _is_async(fn):
        return fn
    # A dspy.Module is awaited through acall, which works only where the module has aforward.
    return fn.acall if hasattr(fn, "acall") and hasattr(fn, "aforward") else None


def _waited(answer: Any) -> Any:
    """Return what a plain function answered, also where it handed back a coroutine."""
    if isinstance(answer, (float, int, str)) or not inspect.isawaitable(answer):
        return answer
    return portal.run(_settled(answer))


async def _settled(answer: Any) -> Any:
    return await answer
