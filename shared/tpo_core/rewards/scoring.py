"""The scoring engine: pairs in, rewards out, by whichever forward pass is right and fastest for the model.

It is owned by one worker thread. Conversations of equal tokens are scored once, whoever sent them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tpo_core.effects import Pair, Reward
from tpo_core.errors import InvalidInputError
from tpo_core.rewards.checkpoint import Loaded
from tpo_core.rewards.conversation import Conversations, Encoded
from tpo_core.rewards.padded import PaddedForward

__all__ = ["Scorer"]


class Scorer:
    """Scores pairs with one loaded model."""

    def __init__(self, loaded: Loaded, conversations: Conversations, *, max_batch_tokens: int | None = None) -> None:
        self._loaded = loaded
        self._conversations = conversations
        self._forward = PaddedForward(loaded, max_batch_tokens)

    def score(self, pairs: Sequence[Pair]) -> list[Reward | Exception]:
        """Return a reward per pair, or why that one has none."""
        encoded = self._conversations.encode(pairs)
        distinct = list({e.ids: e for e in encoded if isinstance(e, Encoded)}.values())
        if not distinct:
            return [e for e in encoded if isinstance(e, InvalidInputError)]
        with torch.inference_mode():
            outcomes = self._loaded.head(self._forward(distinct))
        by_ids = dict(zip((e.ids for e in distinct), outcomes, strict=True))
        return [
            Reward(by_ids[e.ids][0], heads=by_ids[e.ids][1], truncated=e.truncated) if isinstance(e, Encoded) else e
            for e in encoded
        ]
