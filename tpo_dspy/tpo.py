"""Test-Time Preference Optimization as a DSPy module around any other module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dspy

from tpo_core.config import Mode, TPOConfig, configured
from tpo_core.drivers.mlflow_span import note_outcome
from tpo_core.drivers.run import arun, run
from tpo_core.drivers.serving import Observer
from tpo_core.errors import InvalidInputError
from tpo_core.rewards import as_reward
from tpo_core.trajectory import Trajectory
from tpo_core.values import Prompt
from tpo_dspy.agents import final_step
from tpo_dspy.callbacks import Rounds, ScoreInRound
from tpo_dspy.fields import bind, pick_query, shape_of
from tpo_dspy.finishing import Finish, derives
from tpo_dspy.policy import Modules, ProgramPolicy
from tpo_dspy.programs import labelled, predictors_of
from tpo_dspy.rewarded import Outside, Rewarded, extend_trace, with_trajectory, without_self
from tpo_dspy.stream import observer

__all__ = ["TPO"]


class TPO(Rewarded):
    """Aligns each answer of a program to a reward while it is being produced.

    A call samples the program ``width`` times, and ``depth`` times has the best answer compared with the worst, the
    critique turned into instructions, and the best answer rewritten by them. The result is the program's own
    Prediction with the highest reward ever seen; its attribute ``trajectory`` (``tpo_trajectory`` where the program has
    a field of that name) holds every candidate and critique.

    The prompts are the predictors ``loss``, ``gradient`` and ``update``: optimizers tune them with the program's own,
    and ``save`` keeps them. The reward is no parameter: it is never copied and never saved.

    Args:
        program: Any module. An agent (``dspy.ReAct``, ``dspy.CodeAct``) is run once, and only its last step repeated.
        reward: What the answers are aligned to: a reward model, a metric, or any callable that ``as_reward`` takes.
        width: Candidates a round; 5 by default.
        depth: Rounds of loss, gradient and update; 2 by default.
        mode: ``tpo``; ``revision`` (no rejected answer in the loss) or ``bon`` (only samples).
        config: All settings at once; what is given beside it wins.
        critic: The LM that writes losses and gradients; the program's own by default.
        editor: The LM that rewrites; the program's own by default.
        gold: A held-out reward, reported in ``trajectory.gold`` and never optimised.
        query: What the critic and the reward model are shown as the question: an input field's name, or a function of
            the call's inputs (a ``dspy.Example``). By default what the program's last predictor was given for the very
            answer, retrieved documents included, and the call's inputs.
        fields: The output fields to refine; by default those of the program's last predictor, reasoning left as it is.
        finish: Makes the Prediction of an update, a function of ``(prediction, inputs)``: the rewritten one's with its
            fields in place, and the call's inputs. By default ``forward`` runs again with its predictors answered from
            the sample's trace, the last one with the update.
        on_progress: Called with each ``Progress`` as it happens.
        max_concurrency: Most requests of one call at once.
        rerun_tools: Let every sample run an agent in full, tools included.
        **settings: Any other field of ``TPOConfig``, such as ``stop_at`` or ``deadline``.

    Raises:
        InvalidInputError: An argument is wrong; the message names it.

    Example:
        >>> refined = TPO(dspy.Predict("question -> answer"), lambda prompt, response: -len(response), width=3)
        >>> [name for name, _ in refined.named_predictors()]
        ['program', 'loss', 'gradient', 'update']
    """

    def __init__(
        self,
        program: dspy.Module,
        reward: Any = None,
        *,
        width: int | None = None,
        depth: int | None = None,
        mode: Mode | None = None,
        config: TPOConfig | None = None,
        critic: Any = None,
        editor: Any = None,
        gold: Any = None,
        query: str | Callable[[Any], Prompt] | None = None,
        fields: Sequence[str] | None = None,
        finish: Finish | None = None,
        on_progress: Observer | None = None,
        max_concurrency: int | None = None,
        rerun_tools: bool = False,
        **settings: Any,
    ) -> None:
        """Check the arguments and make the predictors; no model is called."""
        super().__init__()
        given = {
            name: value for name, value in (("width", width), ("depth", depth), ("mode", mode)) if value is not None
        }
        self.config = configured(config, {**given, **settings})
        if not isinstance(program, dspy.Module):
            raise InvalidInputError(f"program must be a dspy.Module, such as dspy.Predict(...), not {program!r:.80}")
        if query is not None and not isinstance(query, str) and not callable(query):
            raise InvalidInputError(f"query must be an input field's name or a function, not {query!r:.80}")
        if finish is not None and not callable(finish):
            raise InvalidInputError(f"finish must be a function of (prediction, inputs), not {finish!r:.80}")
        self.program = program
        final = final_step(program, rerun_tools)
        self._final = [] if final is None else [_path(program, final)]
        self._shape = shape_of(program, fields, final)
        self._outside = Outside(as_reward(reward), None if gold is None else as_reward(gold), on_progress)
        self._query, self._finish = query, finish
        self._max_concurrency = max_concurrency
        self.loss: Any = None
        self.gradient: Any = None
        self.update: Any = None
        if self.config.rounds:
            contrast, merged = self.config.mode == "tpo", self.config.merged_critique
            self.loss = _predictor(self._shape.loss(contrast=contrast, merged=merged), "critic", critic)
            self.gradient = None if merged else _predictor(self._shape.gradient(), "critic", critic)
            self.update = _predictor(self._shape.update(), "editor", editor)
        self._derives = self.update is not None and final is None and derives(program)

    def forward(self, *args: Any, **kwargs: Any) -> dspy.Prediction:
        """Answer, refined.

        Raises:
            InvalidInputError: The inputs make no query, or no LM is set.
            GenerationError: Not one candidate could be produced; carries the causes and the trajectory.
            RewardError: The reward model failed before anything was scored, or broke its contract; carries the
                trajectory.
        """
        with self._run(args, kwargs) as run_:
            trajectory = run(*run_.args, **run_.kwargs, on_progress=run_.observer(sync=True))
        return run_.result(trajectory)

    async def aforward(self, *args: Any, **kwargs: Any) -> dspy.Prediction:
        """Answer, refined, without blocking the event loop."""
        with self._run(args, kwargs) as run_:
            trajectory = await arun(*run_.args, **run_.kwargs, on_progress=run_.observer(sync=False))
        return run_.result(trajectory)

    @contextmanager
    def _run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[_Run]:
        """Prepare one call, and end its last round whatever happens."""
        own, inputs = labelled(self.program, bind(self.program, args, kwargs))
        query = pick_query(self._query, self._shape, inputs)
        rounds = Rounds()
        policy = ProgramPolicy(self._run_modules(), own, rounds)
        try:
            yield _Run(self, query, inputs, policy, rounds)
        finally:
            rounds.close()

    def _run_modules(self) -> Modules:
        last = (predictors_of(self.program) or [None])[-1]
        lm = getattr(last, "lm", None)
        if self.config.rounds and (lm or dspy.settings.lm or getattr(self.loss, "lm", None)) is None:
            raise InvalidInputError("no LM is set: call dspy.configure(lm=dspy.LM('openai/gpt-4o-mini')) first")
        final = getattr(self.program, self._final[0]) if self._final else None
        return Modules(
            self.program,
            self._shape,
            self.loss,
            self.gradient,
            self.update,
            lm,
            final,
            finish=self._finish,
            contextual=self._query is None,
            derives=self._derives,
        )


class _Run:
    """One call: the driver's arguments, and what becomes of its trajectory."""

    def __init__(self, tpo: TPO, query: Prompt, inputs: Any, policy: ProgramPolicy, rounds: Rounds) -> None:
        outside = tpo._outside
        outside.check()
        self.args = (query, policy, ScoreInRound(outside.reward, rounds), tpo.config)
        self.kwargs: dict[str, Any] = {
            "inputs": inputs,
            "gold": None if outside.gold is None else ScoreInRound(outside.gold, rounds),
            "max_concurrency": tpo._max_concurrency,
        }
        self._policy, self._rounds, self._told = policy, rounds, outside.on_progress

    def observer(self, *, sync: bool) -> Observer | None:
        """Return what is called with progress: the tree of callbacks, a stream that listens, the user's function."""
        return observer(self._rounds.note if self._rounds.heard else None, self._told, sync=sync)

    def result(self, trajectory: Trajectory) -> dspy.Prediction:
        """Return the best candidate's Prediction with the trajectory, and leave its path in the caller's trace."""
        extend_trace(self._policy.path_to(trajectory))
        note_outcome(trajectory)
        return with_trajectory(trajectory, trajectory.best)


def _predictor(signature: type[dspy.Signature], name: str, lm: Any) -> dspy.Predict:
    predictor = dspy.Predict(signature)
    if isinstance(lm, str):
        lm = dspy.LM(lm)
    if lm is not None and not isinstance(lm, dspy.BaseLM):
        raise InvalidInputError(f"{name} must be a dspy.LM or a model string, not {type(lm).__name__}")
    predictor.lm = lm
    return predictor


def _path(program: dspy.Module, part: dspy.Module) -> str:
    return str(next(name for name, value in vars(program).items() if value is part))


# DSPy's metaclass hides a module's own from help() and editors.
TPO.__signature__ = without_self(TPO)
