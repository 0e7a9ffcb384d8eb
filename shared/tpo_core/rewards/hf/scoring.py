"""The scoring engine: pairs in, rewards out, by the fastest forward pass that is right for the model.

It is owned by one worker thread. Conversations of equal tokens are scored once, whoever sent them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from tpo_core.errors import InvalidInputError
from tpo_core.rewards.families.conversation import Conversations, Encoded
from tpo_core.rewards.hf.checkpoint import Loaded
from tpo_core.rewards.hf.heads import HeadScore
from tpo_core.rewards.hf.packed import ATTENTION, PackedForward
from tpo_core.rewards.hf.padded import PaddedForward
from tpo_core.rewards.hf.quiet import set_attention
from tpo_core.rewards.hf.varlen import takes_varlen
from tpo_core.values import Pair, Reward

__all__ = ["Forward", "Scorer", "WindowedForward", "choose_forward"]


class Forward(Protocol):
    """Computes what a head reads."""

    def __call__(self, sequences: Sequence[Encoded], stopped: Callable[[], bool] = ...) -> list[Tensor]:
        """Return each sequence's hidden states at its places, (places, hidden); or its logits, (1, labels).

        Args:
            sequences: Distinct sequences.
            stopped: Asked before every pass; once it says so, the rest is given up with an ``InterruptedError``.
        """


_log = logging.getLogger(__name__)


class Scorer:
    """Scores pairs with one loaded model."""

    def __init__(
        self, loaded: Loaded, conversations: Conversations, forward: Forward, stopped: Callable[[], bool]
    ) -> None:
        self._head = loaded.head
        self._conversations = conversations
        self._forward = forward
        self._stopped = stopped

    def score(self, pairs: Sequence[Pair]) -> list[Reward | Exception]:
        """Return a reward per pair, or why that one has none."""
        encoded = self._conversations.encode(pairs)
        distinct = list({(e.ids, e.kinds): e for e in encoded if isinstance(e, Encoded)}.values())
        if not distinct:
            return [e for e in encoded if isinstance(e, InvalidInputError)]
        with torch.inference_mode():
            outcomes = self._head(self._forward(distinct, self._stopped))
        found = {(e.ids, e.kinds): outcome for e, outcome in zip(distinct, outcomes, strict=True)}
        return [_reward(found[e.ids, e.kinds], e) if isinstance(e, Encoded) else e for e in encoded]


def _reward(outcome: HeadScore, encoded: Encoded) -> Reward:
    score, heads = outcome
    return Reward(score, heads=heads, truncated=encoded.truncated)


class WindowedForward:
    """Packed rows for conversations that fit the model's attention window, padded batches for longer ones."""

    def __init__(self, packed: PackedForward, padded: PaddedForward, window: int, model: Any, usual: str) -> None:
        self._packed = packed
        self._padded = padded
        self._window = window
        self._model = model
        self._usual = usual

    def __call__(self, sequences: Sequence[Encoded], stopped: Callable[[], bool] = lambda: False) -> list[Tensor]:
        """Return the hidden states at each sequence's places; see ``Forward``."""
        found: dict[int, Tensor] = {}
        short = [i for i, s in enumerate(sequences) if len(s.ids) <= self._window]
        if short:
            found.update(zip(short, self._packed([sequences[i] for i in short], stopped), strict=True))
        if long := [i for i in range(len(sequences)) if i not in found]:
            self._model.set_attn_implementation(self._usual)
            try:
                found.update(zip(long, self._padded([sequences[i] for i in long], stopped), strict=True))
            finally:
                self._model.set_attn_implementation(ATTENTION)
        return [found[i] for i in range(len(sequences))]


def choose_forward(loaded: Loaded, max_batch_tokens: int | None, max_prefix_bytes: int) -> Forward:
    """Return packed rows where the model's attention is plain and they prove right on a sample; padded batches else."""
    config = loaded.config.get_text_config()
    sample = _sample(getattr(config, "vocab_size", 100))
    padded = _choose_padded(loaded, max_batch_tokens, sample)
    if not loaded.hidden:
        return padded
    usual = loaded.model.config._attn_implementation
    try:
        window, want = _window(config), _computed(padded, sample)
        packed = PackedForward(loaded, max_batch_tokens, max_prefix_bytes)
        _prove(packed, sample, want, _tolerance(loaded))
    except Exception as error:  # noqa: BLE001 - whatever a model's code cannot do, the plain way can
        _log.info("%s is scored in padded batches, not in packed rows: %s", config.name_or_path, error)
        if loaded.model.config._attn_implementation != usual:
            set_attention(loaded.model, usual)
        return padded
    if takes_varlen(loaded.device, loaded.model.dtype):
        _use_varlen(packed, sample, want, _tolerance(loaded))
    return packed if window == math.inf else WindowedForward(packed, padded, int(window), loaded.model, usual)


def _use_varlen(packed: PackedForward, sample: Sequence[Encoded], want: Tensor, tolerance: float) -> None:
    """Let the segments of a row attend at once, if that proves right: not every build of torch has the kernel."""
    packed.varlen = True
    try:
        _prove(packed, sample, want, tolerance)
    except Exception as error:  # noqa: BLE001 - the way proven before remains
        _log.info("the segments of a row attend one by one: %s", error)
        packed.varlen = False


def _prove(packed: PackedForward, sample: Sequence[Encoded], want: Tensor, tolerance: float) -> None:
    """Compare packed rows with the plain way, twice: the second time on what was kept the first time."""
    drift = max(_drift(_computed(packed, sample), want) for _ in range(2))
    packed.store.clear()
    if not drift < tolerance:
        raise ArithmeticError(f"they are off by {drift:.1e}")


def _choose_padded(loaded: Loaded, max_batch_tokens: int | None, sample: Sequence[Encoded]) -> PaddedForward:
    """Return padded batches where padding moves nothing: some encoders mix neighbours, some classes want their own."""
    together = PaddedForward(loaded, max_batch_tokens)
    if loaded.hidden or loaded.alone:  # causal, and pooled by length: what stands behind cannot matter
        return together
    alone = PaddedForward(replace(loaded, alone=True), max_batch_tokens)
    try:
        if _drift(_computed(together, sample), _computed(alone, sample)) < _tolerance(loaded):
            return together
        _log.info("padding moves scores here; scoring one conversation at a time")
    except Exception as error:  # noqa: BLE001 - the class may want tokens that the sample lacks
        _log.info("padded batches could not be checked here (%s); scoring one conversation at a time", error)
    return alone


def _computed(forward: Forward, sample: Sequence[Encoded]) -> Tensor:
    with torch.inference_mode():
        return torch.cat(forward(sample)).float()


def _drift(got: Tensor, want: Tensor) -> float:
    return float(((got - want).abs().max() / want.abs().max()).item())


def _tolerance(loaded: Loaded) -> float:
    return 1e-3 if loaded.model.dtype == torch.float32 else 0.1


def _window(config: Any) -> float:
    """Return up to how many tokens every layer looks at all tokens before it: infinity mostly.

    Raises:
        NotImplementedError: A layer does something else.
    """
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if getattr(config, "attn_logit_softcapping", None):
        raise NotImplementedError("its attention has soft caps")
    if other := kinds - {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"it has layers of other kinds ({', '.join(sorted(other))})")
    if getattr(config, "use_sliding_window", True) is False:
        return math.inf
    return getattr(config, "sliding_window", None) or math.inf


def _sample(vocabulary: int) -> list[Encoded]:
    """Return sequences, two of which share a prompt, few enough tokens that a large model reads them quickly."""
    prompt = tuple((7 * i + 3) % vocabulary for i in range(17))
    others = [(*prompt, 1, 2, 5, 4), (*prompt, 6, 9, 8), prompt[1:], (5, 4, 2)]
    return [Encoded(ids, 17 if len(ids) > 17 else 0, (len(ids) - 1,)) for ids in others]
