"""Attention of the tokens after a prefix: to all of the prefix, and causally to themselves.

Tensors are (1, heads, tokens, head size); keys and values may have fewer heads, each serving a group of query heads.
``before`` are the prefix's keys and values. Which way is fastest depends on the device and the dtype.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from tpo_core.rewards.checkpoint import cpu_has

__all__ = ["attend", "masked", "merged", "multiplied"]

Before = tuple[Tensor, Tensor] | None

_LEAST = 32
"""Queries from which on ``multiplied`` is worth its calls."""
_QUERIES, _SCORES = 256, 2**19
"""A block's queries, of all heads of a group, and its scores: 1 MiB, what a core's cache holds."""


def attend(q: Tensor, k: Tensor, v: Tensor, before: Before, scale: float | None) -> Tensor:
    """Return the attention of a segment, or of its last token, to itself and all of what stands before it."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] >= _LEAST and _products_are_fast():
        return multiplied(q, k, v, before, scale)
    if before is not None:
        return (merged if q.device.type == "cpu" else masked)(q, k, v, before, scale)
    grouped = q.shape[1] != k.shape[1]
    causal = q.shape[2] > 1
    return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale, enable_gqa=grouped)


def masked(q: Tensor, k: Tensor, v: Tensor, before: tuple[Tensor, Tensor], scale: float | None) -> Tensor:
    """Attend to the prefix and the segment side by side; on a GPU this mask is one the flash kernels know."""
    k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
    mask = causal_lower_right(q.shape[2], k.shape[2]) if q.shape[2] > 1 else None
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)


def merged(q: Tensor, k: Tensor, v: Tensor, before: tuple[Tensor, Tensor], scale: float | None) -> Tensor:
    """Attend to the prefix and to the segment apart, and merge by their log-sum-exps.

    The prefix is then seen whole, without a mask and without being copied beside the segment; with grouped heads the
    queries of a group are laid end to end, so that its keys need no copies either.
    """
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    heads, groups, tokens = q.shape[1], k.shape[1], q.shape[2]
    far, far_lse = flash(q.reshape(1, groups, -1, q.shape[3]), *before, scale=scale)
    if groups != heads:
        far, far_lse = far.reshape(q.shape), far_lse.reshape(1, heads, tokens)
        k, v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
    near, near_lse = flash(q, k, v, is_causal=tokens > 1, scale=scale)
    return torch.lerp(near, far, torch.sigmoid(far_lse - near_lse)[..., None].to(near.dtype))


def multiplied(q: Tensor, k: Tensor, v: Tensor, before: Before, scale: float | None) -> Tensor:
    """Attend by matrix products and a softmax, for a CPU that multiplies bfloat16 faster than float32.

    torch's flash kernel does not use those products there. Queries and heads are cut into blocks whose scores stay in
    the cache; a block sees no key after its last query, and the mask covers only its own square of the scores. Scores
    are rounded to bfloat16, as in transformers' eager attention; the softmax and the sums are float32 inside.
    """
    if before is not None:
        k, v = torch.cat([before[0], k], 2), torch.cat([before[1], v], 2)
    k, v = k.contiguous(), v.contiguous()
    groups, keys, size = k.shape[1:]
    shared, queries = keys - q.shape[2], q.view(groups, -1, *q.shape[2:])
    output = torch.empty_like(queries)
    scale = size**-0.5 if scale is None else scale
    step = max(1, _QUERIES // queries.shape[1])
    for start in range(0, q.shape[2], step):
        block = queries[:, :, start : start + step]
        tokens, seen = block.shape[2], shared + start + block.shape[2]
        mask = q.new_full((tokens, tokens), -torch.inf).triu_(1)
        several = max(1, _SCORES // (block.shape[1] * tokens * seen))
        for first in range(0, groups, several):
            some = slice(first, first + several)
            rows = block[some].flatten(1, 2)
            seen_keys = k[0, some, :seen].transpose(1, 2)
            scores = torch.baddbmm(q.new_empty(1), rows, seen_keys, beta=0, alpha=scale)
            scores.view(-1, block.shape[1], tokens, seen)[..., seen - tokens :] += mask
            mixed = torch.bmm(scores.softmax(2), v[0, some, :seen])
            output[some, :, start : start + tokens] = mixed.view(-1, block.shape[1], tokens, mixed.shape[2])
    return output.view(q.shape)


@functools.cache
def _products_are_fast() -> bool:
    """Tell whether bfloat16 products are worth writing out; with AMX torch's own kernel uses them."""
    return cpu_has("avx512_bf16") and not cpu_has("amx_bf16")
