"""A reward, called: one signature that DSPy, GEPA, BestOfN, Refine, LangSmith, openevals, TRL and LangChain all accept.

dspy.Evaluate, SIMBA, MIPROv2     reward(example, pred)                              -> float
BootstrapFewShot                  reward(example, pred, trace)                       -> float, or bool with a threshold
GEPA                              reward(gold, pred, trace, pred_name, pred_trace)   -> Prediction(score, feedback)
BestOfN, Refine                   reward(args, pred)                                 -> float
LangSmith, openevals              reward(inputs=, outputs=, reference_outputs=)      -> {key, score, comment, metadata}
TRL                               reward(prompts=, completions=)                     -> list[float]
RunnableLambda                    reward({"prompt": ..., "response": ...})           -> float
"""

# The hosts read this signature, so its names are load-bearing. No parameter may be called ``example`` or ``run``
# (LangSmith would inject its own objects by name), all have defaults (or LangSmith counts them), and GEPA binds five
# by place.

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpo_core.errors import InvalidInputError, RewardError
from tpo_core.records import repr_without_texts
from tpo_core.rewards.hosts import reading
from tpo_core.values import Pair, Prompt, Reward

__all__ = ["Metric"]

logger = logging.getLogger(__name__)


class Metric:
    """What makes a reward callable; a reward model inherits it.

    A host is given the raw reward, as the loop is. Hosts that expect numbers between 0 and 1 (percentages in
    ``dspy.Evaluate``, GEPA's perfect score, thresholds) are better served by ``as_metric(mean=, scale=)``.
    """

    name: str = ""
    threshold: float | None = None
    """What counts as success where a host asks yes or no (bootstrapping); None answers with the float."""
    objectives: bool = False
    """Whether DSPy is answered with the heads, too."""
    _told: bool = False

    def score_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score pairs; see ``RewardModel``."""
        raise NotImplementedError

    async def ascore_pairs(self, pairs: Sequence[Pair]) -> list[Reward]:
        """Score pairs without blocking; see ``RewardModel``."""
        raise NotImplementedError

    def read_prompt(self, inputs: Any, outputs: Any) -> Prompt:
        """Read the prompt out of the host's objects; override it for unusual ones."""
        return reading.prompt_of(inputs, outputs)

    def read_response(self, outputs: Any) -> str:
        """Read the response out of the host's object; override it for unusual ones."""
        return reading.response_of(outputs)

    def for_host(self, reward: float) -> float:
        """Map a raw reward to the scale that hosts see; here none."""
        return float(reward)

    if not TYPE_CHECKING:  # a type checker would take it for the name of the class

        @property
        def __name__(self) -> str:
            """Return the name under which hosts file the scores."""
            return self.name

    def __call__(
        self,
        gold: Any = None,
        pred: Any = None,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
        program_trace: Any = None,
        *,
        inputs: Any = None,
        outputs: Any = None,
        reference_outputs: Any = None,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Score one answer (or TRL's batch) and return what the host that called it expects; see the module's table.

        Raises:
            InvalidInputError: No prompt or no response can be read.
            RewardError: The answer could not be scored. Hosts count that as a failed example; a NaN would poison means.
        """
        ask = self._metric_ask(gold, pred, inputs, outputs, reference_outputs, prompts, completions)
        return self._metric_answer(self.score_pairs(ask.pairs), ask, trace, pred_name)

    async def aevaluate(
        self,
        gold: Any = None,
        pred: Any = None,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
        program_trace: Any = None,
        *,
        inputs: Any = None,
        outputs: Any = None,
        reference_outputs: Any = None,
        prompts: Sequence[Any] | None = None,
        completions: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answer as a call does, without blocking."""
        ask = self._metric_ask(gold, pred, inputs, outputs, reference_outputs, prompts, completions)
        return self._metric_answer(await self.ascore_pairs(ask.pairs), ask, trace, pred_name)

    def _metric_ask(
        self, gold: Any, pred: Any, inputs: Any, outputs: Any, reference: Any, prompts: Any, completions: Any
    ) -> _HostCall:
        if completions is not None:
            asked = [None] * len(completions) if prompts is None else prompts
            if len(asked) != len(completions):
                raise InvalidInputError(
                    f"prompts and completions differ in length: {len(asked)} and {len(completions)}"
                )
            return _HostCall("batch", [self._metric_pair(p, c) for p, c in zip(asked, completions, strict=True)])
        if outputs is not None:
            return _HostCall("evaluator", [self._metric_pair(_Inputs.of(inputs, reference), outputs)])
        if pred is None and isinstance(gold, dict) and "response" in gold:
            return _HostCall("value", [self._metric_pair(gold.get("prompt", ""), gold["response"])])
        if pred is None:
            raise InvalidInputError(
                f"{self.name} was called without an answer; call it as reward(example, prediction), "
                "or with {'prompt': ..., 'response': ...}"
            )
        return _HostCall("value", [self._metric_pair(gold, pred)])

    def _metric_pair(self, inputs: Any, outputs: Any) -> Pair:
        prompt = "" if inputs is None else self.read_prompt(inputs, outputs)
        return Pair(prompt, self.read_response(outputs), value=outputs, inputs=inputs)

    def _metric_answer(self, rewards: Sequence[Reward], ask: _HostCall, trace: Any, pred_name: str | None) -> Any:
        if ask.kind == "batch":
            return [self.for_host(r) for r in rewards]
        reward = rewards[0]
        if math.isnan(reward) and pred_name is not None:  # GEPA has its score already, and would lose a whole round
            return _prediction(math.nan, Reward(reward, feedback=f"The answer could not be scored: {reward.failure}"))
        if math.isnan(reward):
            raise RewardError(f"reward model {self.name!r} could not score this answer: {reward.failure}")
        score = self.for_host(reward)
        if ask.kind == "evaluator":
            metadata = {**reward.heads, **({} if score == reward else {"reward": float(reward)})}
            return {"key": self.name, "score": score, "comment": reward.feedback, "metadata": metadata or None}
        if pred_name is not None:  # GEPA asks for words with the trace set: look at this before the trace
            return _prediction(score, reward)
        if trace is not None and self.threshold is not None:
            return score >= self.threshold
        if trace is not None and not self._told:
            self._told = True
            logger.warning(
                "%s has no threshold: bootstrapping takes any score but 0 for a success, unless it was given "
                "a metric_threshold; see as_metric(threshold=)",
                self.name,
            )
        if self.objectives and trace is None:
            return _prediction(score, reward)
        return score  # a plain float: GEPA takes anything with .feedback for a Prediction


@dataclass(frozen=True)
class _HostCall:
    kind: str
    """Who asks: ``value``, ``evaluator`` or ``batch``."""
    pairs: list[Pair]

    __repr__ = repr_without_texts("kind")


class _Inputs(dict[str, Any]):
    """A host's inputs that carry its reference answer along, for rewards that want one."""

    reference_outputs: Any = None

    @classmethod
    def of(cls, inputs: Any, reference: Any) -> Any:
        if reference is None or not isinstance(inputs, dict):
            return inputs
        both = cls(inputs)
        both.reference_outputs = reference
        return both


def _prediction(score: float, reward: Reward) -> Any:
    import dspy

    heads = ", ".join(f"{k} {v:.4g}" for k, v in reward.heads.items())
    said = reward.feedback or f"The answer got a reward of {score:.4g}" + (f" ({heads})." if heads else ".")
    extra = {"objective_scores": dict(reward.heads)} if reward.heads else {}
    return dspy.Prediction(score=score, feedback=said, **extra)
