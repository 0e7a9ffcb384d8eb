"""The plain forward pass: padded batches of sequences of similar length, for every kind of model.

Sequences are padded on the right and pooled by their own lengths, so neither the padding side nor the padding token
(which may be missing, or be the very token that ends a response) can move a score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tpo_core.rewards.families.conversation import Encoded
from tpo_core.rewards.hf.checkpoint import Loaded

__all__ = ["PaddedForward"]


class PaddedForward:
    """Runs a whole model, or a body, over padded batches.

    Args:
        loaded: The model.
        max_batch_tokens: Tokens of a batch, padding included; by default 256 on a CPU, where larger batches lose, and
            16384 elsewhere.
    """

    def __init__(self, loaded: Loaded, max_batch_tokens: int | None = None) -> None:
        self._loaded = loaded
        self._budget = max_batch_tokens or (256 if loaded.device.type == "cpu" else 16384)

    def __call__(self, sequences: Sequence[Encoded], stopped: Callable[[], bool] = lambda: False) -> list[Tensor]:
        """Return the hidden states at each sequence's places, (places, hidden); or its logits; see ``Forward``."""
        order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i].ids))
        found: dict[int, Tensor] = {}
        for batch in self._batches(order, sequences):
            if stopped():
                raise InterruptedError("the model was closed while it was scoring")
            found.update(zip(batch, self._run([sequences[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(sequences))]

    def _batches(self, order: Sequence[int], sequences: Sequence[Encoded]) -> list[list[int]]:
        """Cut the order, longest first, so that no batch pads by more than a quarter or passes the budget."""
        batches: list[list[int]] = []
        for i in order:
            length = len(sequences[i].ids)
            longest = len(sequences[batches[-1][0]].ids) if batches else 0
            full = not batches or (len(batches[-1]) + 1) * longest > self._budget or length < 0.75 * longest
            if full or self._loaded.alone:
                batches.append([i])
            else:
                batches[-1].append(i)
        return batches

    def _run(self, batch: Sequence[Encoded]) -> list[Tensor]:
        lengths = [len(e.ids) for e in batch]
        own = getattr(self._loaded.config, "pad_token_id", None)  # some classes look for their own padding
        pad = self._filled([e.ids for e in batch], own if isinstance(own, int) and own >= 0 else 0)
        device = self._loaded.device
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        if not self._loaded.hidden:
            kinds = {"token_type_ids": self._filled([e.kinds for e in batch])} if batch[0].kinds else {}
            logits: Tensor = self._loaded.model(input_ids=pad, attention_mask=mask.long().to(device), **kinds).logits
            return [row.reshape(1, -1) for row in logits]
        kwargs = {} if len(set(lengths)) == 1 else {"attention_mask": mask.to(device)}
        states = self._loaded.model(input_ids=pad, use_cache=False, **kwargs).last_hidden_state
        return [row[list(e.places)] for row, e in zip(states, batch, strict=True)]

    def _filled(self, rows: Sequence[Sequence[int]], fill: int = 0) -> Tensor:
        """Return rows of numbers as one tensor, filled up on the right."""
        filled = torch.full((len(rows), max(map(len, rows))), fill)
        for row, numbers in zip(filled, rows, strict=True):
            row[: len(numbers)] = torch.tensor(numbers)
        return filled.to(self._loaded.device)
