"""Whether a classifier's score needs no class: it is a linear layer on the hidden state of one token."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import torch
from torch import nn

from tpo_core.rewards.families.pooling import last_read

__all__ = ["reads_one_token"]

_log = logging.getLogger(__name__)


def reads_one_token(model: Any, padding: int | None, device: torch.device) -> bool:
    """Return whether the class's own output is its linear layer's at the token that ``last_read`` names.

    Found out by asking it, on a few tokens some of which are padding: the class is the reference, and some pool in
    another way (by means, say, or at the first token).

    Args:
        model: A model of a class that ends in ``ForSequenceClassification``.
        padding: Its padding token.
        device: Where it runs.
    """
    score, body = getattr(model, "score", None), model.base_model
    if type(score) is not nn.Linear or body is model:  # a quantized layer, for one, holds no plain weights
        return False
    sample = _sample(body.get_input_embeddings().num_embeddings, padding)
    ids = torch.tensor([sample], device=device)
    with torch.inference_mode():
        want = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]  # as tokenizers are called
        every = score(body(input_ids=ids, use_cache=False).last_hidden_state)[0]
    drift = (every[last_read(sample, padding)] - want).abs().max() / every.abs().max()
    if drift < 1e-3:  # it is the same arithmetic in the same precision
        return True
    _log.info("%s does not pool at the last token that is not padding; it is run as a whole", type(model).__name__)
    return False


def _sample(vocabulary: int, padding: int | None) -> list[int]:
    """Return tokens whose last, first and last before padding differ, as far as the vocabulary has such tokens."""
    first, second, third = itertools.islice((i for i in itertools.count() if i != padding), 3)
    if padding is None or not 0 <= padding < vocabulary:
        return [first, second, third]
    return [first, padding, second, third, padding, padding]
