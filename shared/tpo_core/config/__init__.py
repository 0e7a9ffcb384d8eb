"""How far and how wide one loop searches, and when it stops."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from tpo_core.config.experience import Experience
from tpo_core.errors import InvalidInputError, nearest

__all__ = ["REWARD_NAMES", "Mode", "PlanName", "TPOConfig", "configured"]

Mode = Literal["tpo", "revision", "bon"]
PlanName = Literal["paper", "adaptive"]

_MOST = sys.float_info.max


@dataclass(frozen=True, kw_only=True)
class TPOConfig:
    """Settings of one loop: as wide and deep as in the paper's main results (arXiv:2501.12895, section 5) by default.

    A query costs ``width + depth * (2 + width)`` samples of the policy: 5 + 2 * 7 = 19 by default. Of the sampling
    settings only a temperature is sent unless more is given; ``TPOConfig.paper()`` has all of the paper's.

    Raises:
        InvalidInputError: A value is out of its range; the message names the argument.

    Example:
        >>> TPOConfig(width=3, depth=1).samples
        8
    """

    mode: Mode = "tpo"
    """``tpo``; ``revision`` critiques the best alone, without a rejected response; ``bon`` only samples (depth 0)."""

    plan: PlanName = "paper"
    """``paper``: each round ``width`` updates from one critique of the best against the worst, ``depth`` times.
    ``adaptive``: each round the critiques, updates and fresh samples that are expected to raise the best most for what
    is left of ``max_tokens``, else of ``max_calls``, else of as many calls as the paper's plan makes. ``width`` is then
    the most samples at first and the most fresh ones a round, and ``depth`` only sets that last budget. It learns from
    query to query what updates are worth: see ``experience``."""

    width: int = 5
    """N, candidates a round, at least 1 (D2-N5 is the paper's main setting)."""

    depth: int = 2
    """D, rounds of loss, gradient and update; 0 is best-of-N."""

    fresh: int = 0
    """How many of a round's ``width`` candidates are new samples of the program instead of updates (0 in the paper).
    Weak policies gain from a mix: updates raise the mean reward, fresh samples keep its spread."""

    critiques: int = 1
    """How many critiques a round has, each of a contrast of its own (1 in the paper), or as many as there are contrasts
    to the best two. They share the round's updates, which then differ more than those that follow the same
    instructions; each more costs two requests a round."""

    merged_critique: bool = False
    """Whether the textual loss and the textual gradient are one request (``Instructions``): of a round's three requests
    that wait for each other two are left. The paper has two prompts. The task is then ``loss``, ``Step.gradient`` has
    what was said, and ``Step.loss`` is empty."""

    samples_at_once: int | None = None
    """How many of the first ``width`` samples are asked before they are scored and the budgets and ``stop_at`` looked
    at; None asks them all at once. 1 asks one after the other."""

    temperature: float | None = 0.7
    """Sampling temperature, the paper's; None leaves the host's own."""

    top_p: float | None = None
    """Nucleus sampling; None leaves the host's own. Some providers (Anthropic) refuse it beside a temperature."""

    max_response_tokens: int | None = None
    """Most tokens in one response; a response cut off there is not a candidate. None leaves the host's own: models that
    think need room for it."""

    min_spread: float = 0.0
    """A round whose best and worst rewards differ by no more than this has no contrast and is not critiqued."""

    max_calls: int | None = None
    """Budget: most samples asked of the policy, critic and editor together."""

    max_tokens: int | None = None
    """Budget: start nothing new once this many prompt and completion tokens are reported; see ``prompt_price``."""

    prompt_price: float = 1.0
    """What a prompt token counts against ``max_tokens``, where a completion token counts 1."""

    deadline: float | None = None
    """Budget: seconds from the first request to the answer."""

    stop_at: float | None = None
    """Stop as soon as a reward reaches this."""

    patience: int | None = None
    """Stop after this many rounds in a row without a better best."""

    max_shown_chars: int | None = None
    """Longest text shown to the critic and editor in one piece; what is longer loses its middle, and the text says so.
    None shows everything."""

    seed: int | None = None
    """Makes the samples' seeds reproducible; sent to providers that take one. None sends none, and numbers the
    samples from zero so that a host's response cache can replay a run but never collapse two samples."""

    experience: Experience | None = field(default=None, compare=False, repr=False)
    """What is learned of the policy, critic, editor and reward: shared by all runs that are given it, and grown by
    them. ``plan="adaptive"`` starts one where none is given; the paper's plan adds to it and reads nothing."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.plan not in get_args(PlanName):
            raise InvalidInputError(f"plan must be one of {get_args(PlanName)}, not {self.plan!r}")
        if self.experience is None and self.plan == "adaptive":
            object.__setattr__(self, "experience", Experience())
        if not isinstance(self.experience, (Experience, type(None))):
            raise InvalidInputError(f"experience must be an Experience, or None, not {type(self.experience).__name__}")
        if self.mode not in get_args(Mode):
            raise InvalidInputError(f"mode must be one of {get_args(Mode)}, not {self.mode!r}")
        if not isinstance(self.merged_critique, bool):
            raise InvalidInputError(f"merged_critique must be True or False, not {self.merged_critique!r:.80}")
        _check_int("width", self.width, 1, optional=False)
        _check_int("depth", self.depth, 0, optional=False)
        _check_int("fresh", self.fresh, 0, optional=False)
        if self.fresh >= self.width:
            raise InvalidInputError(f"fresh must be less than width ({self.width}), not {self.fresh}; see mode='bon'")
        _check_int("critiques", self.critiques, 1, optional=False)
        if self.critiques > self.width - self.fresh:
            made = f"the updates of a round ({self.width - self.fresh}: width - fresh)"
            raise InvalidInputError(f"critiques must be at most {made}, not {self.critiques}")
        for name in ("samples_at_once", "max_response_tokens", "max_calls", "max_tokens", "patience"):
            _check_int(name, getattr(self, name), 1)
        _check_int("max_shown_chars", self.max_shown_chars, 64)
        _check_int("seed", self.seed, 0)
        _check_float("temperature", self.temperature, lambda x: x >= 0, "a number of at least 0, or None")
        _check_float("top_p", self.top_p, lambda x: 0 < x <= 1, "a number in (0, 1], or None")
        _check_float("deadline", self.deadline, lambda x: x > 0, "a positive number of seconds, or None")
        _check_float("stop_at", self.stop_at, lambda x: True, "a finite reward, or None")
        _check_float("prompt_price", self.prompt_price, lambda x: x >= 0, "a number of at least 0", optional=False)
        _check_float("min_spread", self.min_spread, lambda x: x >= 0, "a number of at least 0", optional=False)

    @classmethod
    def paper(cls, **settings: Any) -> TPOConfig:
        """Return the settings of the paper's experiments (arXiv:2501.12895, section 5), with others in their place.

        D2-N5 at temperature 0.7 and top_p 0.95, at most 2,048 tokens a response.

        Args:
            **settings: Fields of ``TPOConfig``.

        Example:
            >>> TPOConfig.paper(width=20, depth=5).top_p  # its widest search
            0.95
        """
        paper = {"width": 5, "depth": 2, "temperature": 0.7, "top_p": 0.95, "max_response_tokens": 2048}
        return cls(**{**paper, **settings})

    @classmethod
    def fast(cls, **settings: Any) -> TPOConfig:
        """Return settings that take fewer requests one after the other than the paper's, with others in their place.

        D2-N5 with a merged critique, which ends after a round without a gain: five waits at most instead of seven.
        What that costs in reward is in the documents, under "What to expect" of runs at scale.

        Args:
            **settings: Fields of ``TPOConfig``.

        Example:
            >>> TPOConfig.fast().samples, TPOConfig.paper().samples
            (17, 19)
        """
        return cls(**{"merged_critique": True, "patience": 1, **settings})

    @property
    def rounds(self) -> int:
        """Return the rounds of the paper's plan: ``depth``, or 0 in mode ``bon``."""
        return 0 if self.mode == "bon" else self.depth

    @property
    def samples(self) -> int:
        """Return the samples one query costs by the paper's plan when nothing fails or stops early: N + D * (2 + N).

        With a merged critique one less a round; with more critiques than one, as many times the 2.
        """
        return self.width + self.rounds * (self.critiques * self.critique_calls + self.width)

    @property
    def critique_calls(self) -> int:
        """Return the requests of one critique: the textual loss and the textual gradient, or both in one."""
        return 1 if self.merged_critique else 2


def configured(config: TPOConfig | None, settings: Mapping[str, Any]) -> TPOConfig:
    """Return a config with single settings in its place; ``TPOConfig()`` where none is given.

    Raises:
        InvalidInputError: ``config`` is something else, or a name is no setting; the message says which may be meant.
    """
    if config is not None and not isinstance(config, TPOConfig):
        raise InvalidInputError(f"config must be a TPOConfig, not {type(config).__name__}")
    config = config or TPOConfig()
    if not settings:
        return config
    known = [f.name for f in fields(TPOConfig)]
    for name in settings:
        if name in REWARD_NAMES:
            raise InvalidInputError(f"{name} is called reward here: give reward=, or the reward in its place")
        if name not in known:
            hint = nearest(name, known) or f"; the settings are {', '.join(known)}"
            raise InvalidInputError(f"unknown argument {name}{hint}")
    return replace(config, **settings)


REWARD_NAMES = (
    "metric", "reward_fn", "reward_function", "reward_model", "reward_func", "reward_funcs", "evaluator", "scorer",
)  # fmt: skip
"""What rewards are called elsewhere."""


def _check_int(name: str, value: Any, least: int, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        tail = ", or None" if optional else ""
        raise InvalidInputError(f"{name} must be an integer of at least {least}{tail}, not {value!r}")


def _check_float(name: str, value: Any, ok: Callable[[float], bool], what: str, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not -_MOST <= value <= _MOST or not ok(value):  # NaN is neither
        raise InvalidInputError(f"{name} must be {what}, not {value!r:.80}")
