"""Attention of the tokens after a prefix: to all of the prefix, and causally to themselves.

Tensors are (1, heads, tokens, head size); keys and values may have fewer heads, each serving a group of query heads.
The queries are those of the last tokens of the keys. Which way is fastest depends on the device and the dtype.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right

from tpo_core.rewards.hf.checkpoint import cpu_has

__all__ = ["attend", "joins", "looked_up", "masked", "merged", "multiplied"]

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

_LEAST = 32
"""Queries from which on ``multiplied`` is worth its calls."""
_QUERIES, _SCORES = 256, 2**20
"""A block's queries, of all heads of a group, and its scores: 2 MiB, about what a core's cache holds."""
_FEW = 1024
"""Keys up to which blocks are halved, because what a block computes in vain is a larger part of it."""


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Return the attention of a segment, or of its last token, to itself and all of what stands before it."""
    tokens, on_cpu = q.shape[2], q.device.type == "cpu"
    if on_cpu and tokens == 1:
        return looked_up(q, k, v, scale)
    if on_cpu and tokens >= _LEAST and not joins(q.device, q.dtype):
        return multiplied(q, k, v, scale)
    if (shared := k.shape[2] - tokens) and on_cpu:
        prefix, own = ((k[:, :, part], v[:, :, part]) for part in (slice(shared), slice(shared, None)))
        return merged(q, prefix, own, [tokens], scale)
    if shared:
        return masked(q, k, v, scale)
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1, scale=scale, enable_gqa=grouped)


def joins(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether segments behind one prefix are best attended together, by ``merged``."""
    return device.type == "cpu" and not (dtype == torch.bfloat16 and _products_are_fast())


def masked(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Attend at once; on a GPU this mask is one the flash kernels know."""
    mask = causal_lower_right(q.shape[2], k.shape[2]) if q.shape[2] > 1 else None
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=grouped)


def looked_up(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Attend with one query, for a CPU, whose flash kernel prepares more than one query needs."""
    rows = q.reshape(1, k.shape[1], -1, q.shape[3])
    scores = rows @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)
    return (scores.softmax(3) @ v).view(q.shape)


def merged(
    q: Tensor, prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], lengths: Sequence[int], scale: float | None
) -> Tensor:
    """Attend to a prefix and to each segment apart, and merge by their log-sum-exps.

    The prefix is then seen whole and without a mask, and by all segments at once: with more queries the kernel takes
    larger blocks, and every core has as much to do.

    Args:
        q: The queries of segments laid end to end.
        prefix: The keys and values before all of them.
        own: The keys and values of the segments.
        lengths: The segments' tokens.
        scale: What scores are multiplied by.
    """
    output, far = _unmasked(q, *prefix, scale)
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) if t.shape[1] != q.shape[1] else t for t in own)
    parts = (torch.split(t, list(lengths), 2) for t in (output, far, q, k, v))
    for seen, seen_lse, *part in zip(*parts, strict=True):
        near, near_lse = _flash(*part, is_causal=part[0].shape[2] > 1, scale=scale)
        seen.lerp_(near, torch.sigmoid(near_lse - seen_lse)[..., None].to(near.dtype))
    return output


def _unmasked(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Return the attention of all queries to all keys, and its log-sum-exps.

    With grouped heads the queries of a group are laid end to end, token by token, so that its keys need no copies.
    """
    _, heads, tokens, size = q.shape
    groups = k.shape[1]
    if groups == heads:
        output, lse = _flash(q, k, v, scale=scale)
        return output, lse
    rows = q.view(groups, -1, tokens, size).transpose(1, 2).reshape(1, groups, -1, size)
    output, lse = _flash(rows, k, v, scale=scale)
    output = output.view(groups, tokens, -1, size).permute(1, 0, 2, 3).reshape(1, tokens, heads, size).transpose(1, 2)
    return output, lse.view(groups, tokens, -1).transpose(1, 2).reshape(1, heads, tokens)


def multiplied(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    """Attend by matrix products and a softmax, for a CPU that multiplies bfloat16 faster than float32.

    torch's flash kernel does not use those products there. Queries and heads are cut into blocks whose scores stay in
    the cache; a block sees no key after its last query, and the mask covers only its own square of the scores. Scores
    are rounded to bfloat16, as in transformers' eager attention; the softmax and the sums are float32 inside.
    """
    k, v = (t if t.stride(2) == t.shape[3] else t.contiguous() for t in (k, v))
    groups, keys, size = k.shape[1:]
    shared, queries = keys - q.shape[2], q.reshape(groups, -1, *q.shape[2:])
    output = torch.empty_like(queries)
    scale = size**-0.5 if scale is None else scale
    parts = -(-q.shape[2] * queries.shape[1] // (_QUERIES if keys > _FEW else _QUERIES // 2))
    step = -(-q.shape[2] // parts)
    space = q.new_empty(max(_SCORES, queries.shape[1] * step * keys))
    masks = q.new_full((step, step), -torch.inf).triu_(1)
    for start in range(0, q.shape[2], step):
        block = queries[:, :, start : start + step]
        tokens, seen = block.shape[2], shared + start + block.shape[2]
        several = max(1, _SCORES // (block.shape[1] * tokens * seen))
        for first in range(0, groups, several):
            some = slice(first, first + several)
            rows = block[some].flatten(1, 2)
            scores = space[: rows.shape[0] * rows.shape[1] * seen].view(*rows.shape[:2], seen)
            columns = k[0, some, :seen].contiguous().transpose(1, 2)  # products of scattered keys cost more than a copy
            if rows.shape[0] == 1:  # and a batch of one costs more than a matrix
                scores[0].addmm_(rows[0], columns[0], beta=0, alpha=scale)
            else:
                scores.baddbmm_(rows, columns, beta=0, alpha=scale)
            scores.view(-1, block.shape[1], tokens, seen)[..., seen - tokens :] += masks[:tokens, :tokens]
            torch.softmax(scores, 2, out=scores)
            output[some, :, start : start + tokens] = torch.bmm(scores, v[0, some, :seen]).view(-1, *block.shape[1:])
    return output.view(q.shape)


@functools.cache
def _products_are_fast() -> bool:
    """Return whether bfloat16 products are worth writing out; with AMX torch's own kernel uses them."""
    return cpu_has("avx512_bf16") and not cpu_has("amx_bf16")
