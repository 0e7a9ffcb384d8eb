"""Reward models that run here, from the Hugging Face hub or a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tpo_core.errors import InvalidInputError, ModelError
from tpo_core.rewards.base import RewardModel
from tpo_core.rewards.families.table import Family, Steps, family_named, find_family
from tpo_core.rewards.hf.worker import Worker
from tpo_core.values import Pair, Reward

if TYPE_CHECKING:
    import torch

__all__ = ["HFRewardModel"]


CHARACTERS_A_TOKEN = 4
"""Of English, about."""


class HFRewardModel(RewardModel):
    """Scores responses with a reward model on this machine, as its authors mean it to score.

    Known families (see ``docs/reward-models.md``) are matched by name; anything else is read as a sequence classifier.
    Scores are raw: no sigmoid, no softmax, unless the family's score is a probability. Any number of threads and event
    loops may ask at once; one thread owns the model, merges what waits, and computes each prompt once for all responses
    to it, over all rounds.

    Args:
        model: ``org/name`` or a folder, with safetensors weights.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; by default the accelerator there is.
        dtype: ``float32``, ``bfloat16`` or ``float16``; by default the checkpoint's where the device is fast in it.
        trust_remote_code: Allow code from the repository, where the family needs it.
        max_tokens: The longest conversation taken; by default what the tokenizer and the config allow.
        on_long: ``error`` refuses a longer one; ``middle`` cuts the middle out of the prompt and says so in
            ``Reward.truncated``. A response is never cut.
        family: The family's name, or an entry of your own, where the name does not tell.
        label: Which label is the score, for classifiers with several.
        steps: How a process reward model makes one score of its steps: ``min`` (the default), ``mean``, ``last`` or
            ``prod``.
        chat_template: A Jinja template instead of the tokenizer's.
        keep_thinking: Score the reasoning before an answer (``<think>...</think>``) with it; by default it is left out.
        revision: Branch, tag or commit.
        model_kwargs: More arguments for ``from_pretrained`` (a ``quantization_config``, say).
        max_batch_tokens: Tokens per forward pass; the default suits the device.
        max_prefix_bytes: Memory for the keys and values of prompts; 1 GiB by default, 0 keeps none.

    Raises:
        InvalidInputError: An argument is wrong, or the model needs code that was not allowed.
        ModelError: The model cannot be found or loaded, or ``pip install "tpo[hf]"`` is missing.
    """

    merges: ClassVar[bool] = True

    def __init__(
        self,
        model: str | PathLike[str],
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        trust_remote_code: bool = False,
        max_tokens: int | None = None,
        on_long: Literal["error", "middle"] = "error",
        family: str | Family | None = None,
        label: str | int | None = None,
        steps: Literal["min", "mean", "last", "prod"] | None = None,
        chat_template: str | None = None,
        keep_thinking: bool = False,
        revision: str | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        max_batch_tokens: int | None = None,
        max_prefix_bytes: int = 2**30,
    ) -> None:
        if not isinstance(model, (str, PathLike)):
            raise InvalidInputError(f"model must be a name or a folder, not {type(model).__name__}")
        if on_long not in ("error", "middle"):
            raise InvalidInputError(f"on_long {on_long!r} is not known; give 'error' or 'middle'")
        for name, number in (("max_tokens", max_tokens), ("max_batch_tokens", max_batch_tokens)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise InvalidInputError(f"{name} must be a number of tokens, at least 1, not {number!r}")
        if not isinstance(max_prefix_bytes, int) or max_prefix_bytes < 0:
            raise InvalidInputError(f"max_prefix_bytes must be a number of bytes, at least 0, not {max_prefix_bytes!r}")
        self.name = str(model)
        self.family = _family(family, self.name, steps)
        if self.family.refused:
            raise InvalidInputError(f"{self.name} ({self.family.name}) {self.family.refused}")
        _need_extra()
        from tpo_core.rewards.hf.hub import only_here

        here = only_here(self.name, revision)  # before torch is imported: a wrong name is said at once
        from tpo_core.rewards.hf.checkpoint import Source
        from tpo_core.rewards.hf.setup import Setup

        setup = Setup(
            Source(
                self.name,
                self.family,
                trust_remote_code,
                revision,
                label,
                dict(model_kwargs or {}),
                told=family is not None,
                offline=here,
            ),
            device=device,
            dtype=dtype,
            max_tokens=max_tokens,
            on_long=on_long,
            chat_template=chat_template,
            keep_thinking=keep_thinking,
            max_batch_tokens=max_batch_tokens,
            max_prefix_bytes=max_prefix_bytes,
        )
        self._setup = setup
        self._worker = Worker(setup, name=f"reward {self.name}")
        self._worker.submit([]).result()  # loads now, so that a wrong name or argument is an error here
        self.merges_up_to = CHARACTERS_A_TOKEN * setup.row_tokens

    @property
    def cache_key(self) -> str | None:
        """Return the checkpoint's, with how it is read; see ``RewardModel``."""
        return self._setup.cache_key

    def score_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score pairs; blocks until they are done."""
        return _answers(self._worker.submit(pairs).result())

    async def ascore_batch(self, pairs: Sequence[Pair]) -> Sequence[float]:
        """Score pairs without blocking the event loop."""
        answers: list[Reward | Exception] = await asyncio.wrap_future(self._worker.submit(pairs))
        return _answers(answers)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the thread and the weights behind; another process loads its own when it is first asked."""
        return {k: v for k, v in vars(self).items() if k != "_worker"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew."""
        vars(self).update(state)
        self._worker = Worker(self._setup, name=f"reward {self.name}")

    def close(self) -> None:
        """End the worker thread and free the model; the next call loads it again."""
        self._worker.close()


def _answers(answers: Sequence[Reward | Exception]) -> list[Reward]:
    """Return rewards; a pair that could not be scored costs only itself, unless none could."""
    failures = [a for a in answers if isinstance(a, Exception)]
    if failures and len(failures) == len(answers):
        raise failures[0]
    return [Reward(float("nan"), failure=str(a)) if isinstance(a, Exception) else a for a in answers]


def _family(given: str | Family | None, name: str, steps: Any) -> Family:
    named = find_family(name) if given is None else given
    family = named if isinstance(named, Family) else family_named(named)
    if steps is None:
        return family
    if not isinstance(family.head, Steps) or steps not in ("min", "mean", "last", "prod"):
        raise InvalidInputError(f"steps {steps!r}: give min, mean, last or prod, and only for a process reward model")
    return replace(family, head=replace(family.head, reduce=steps))


def _need_extra() -> None:
    """Raise where a package is missing, without importing what takes seconds."""
    missing = [name for name in ("torch", "transformers", "safetensors") if find_spec(name) is None]
    if missing:
        raise ModelError(f'a reward model on this machine needs `pip install "tpo[hf]"`: no {", ".join(missing)} here')
