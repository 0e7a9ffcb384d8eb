"""The attention of a row in two calls a layer, however many segments it has: for GPUs.

Flash kernels of variable lengths take sequences laid end to end. One call lets every segment look at itself, one lets
neighbours that follow the same prefix look at it together; their outputs are merged by their log-sum-exps. One call a
segment leaves a GPU idle where responses are short.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tpo_core.rewards.hf.planning import Segment
from tpo_core.rewards.hf.rows import Row, with_prefix

__all__ = ["Kernel", "Spans", "VarlenRow", "flash", "takes_varlen"]


@dataclass(frozen=True)
class Spans:
    """Where sequences laid end to end begin and end.

    Args:
        ends: The cumulated lengths, from 0 on; int32, on the device.
        longest: The largest length.
    """

    ends: Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Iterable[int], device: torch.device) -> Spans:
        """Return those of sequences of these lengths."""
        each = list(lengths)
        ends = list(itertools.accumulate(each, initial=0))
        return cls(torch.tensor(ends, dtype=torch.int32, device=device), max(each, default=0))


Kernel = Callable[[Tensor, Tensor, Tensor, Spans, Spans, bool, "float | None"], "tuple[Tensor, Tensor]"]
"""Takes queries, keys and values (tokens, heads, head size), their spans, whether causal, and the scale; returns
outputs like the queries and log-sum-exps (heads, tokens). What has no keys may get any log-sum-exp."""


def flash(
    q: Tensor, k: Tensor, v: Tensor, queries: Spans, keys: Spans, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor]:
    """Attend with torch's flash kernel for variable lengths; see ``Kernel``."""
    output, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, queries.ends, keys.ends, queries.longest, keys.longest, 0.0, causal, False, scale=scale
    )
    return output, lse


def takes_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether ``flash`` runs there: on CUDA devices of compute capability 8 and up, in 16 bits."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device)[0] >= 8


class VarlenRow(Row):
    """A row whose segments attend together.

    Args:
        segments: What is laid end to end.
        last: The number of the last layer, where only chosen tokens go on.
        device: Where the model is.
        kernel: What attends.
    """

    def __init__(self, segments: Sequence[Segment], last: int, device: torch.device, kernel: Kernel = flash) -> None:
        super().__init__(segments, last, joint=False)
        self._kernel = kernel
        whole = [(segment, segment.length, range(start, end)) for segment, start, end in self._spans]
        places = [
            (segment, 1, range(start, start + p + 1))
            for (segment, start, _), own in zip(self._spans, self._own, strict=True)
            for p in own
        ]
        self._whole, self._places = _Looks(whole, device), _Looks(places, device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Return the attention of each segment to its prefix and itself; see ``Row``."""
        for segment, start, end in self._spans:
            if not segment.follows:  # who follows looks at its own keys here, and leaves them to nobody
                with_prefix(segment, layer, key[:, :, start:end], value[:, :, start:end])
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
        if layer != self._last:
            return self._seen(self._whole, layer, q, k, v, scale)[None]
        output = q.new_zeros(q.shape)
        if self.chosen:
            asking = torch.tensor(self.chosen, device=q.device)
            output[asking] = self._seen(self._places, layer, q[asking], k, v, scale)
        return output[None]

    def _seen(self, looks: _Looks, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
        k, v = (t if looks.asked is None else t[looks.asked] for t in (k, v))
        near, near_lse = self._kernel(q, k, v, looks.queries, looks.keys, True, scale)
        if not looks.prefixes:
            return near
        k, v = looks.kept(layer)
        far, far_lse = self._kernel(q, k, v, looks.followers, looks.before, False, scale)
        if looks.bare is not None:
            far_lse = far_lse.masked_fill(looks.bare, -torch.inf)
        share = torch.sigmoid(near_lse - far_lse).transpose(0, 1)[..., None]
        return far.lerp_(near, share.to(near.dtype))


class _Looks:
    """Which tokens of a row look at which: the same in every layer.

    Args:
        looks: Segments with how many tokens of theirs look, and which tokens of the row those may look at, in order.
        device: Where the model is.
    """

    def __init__(self, looks: Sequence[tuple[Segment, int, range]], device: torch.device) -> None:
        self.queries = Spans.of([asking for _, asking, _ in looks], device)
        self.keys = Spans.of([len(asked) for _, _, asked in looks], device)
        asked = list(itertools.chain(*(asked for _, _, asked in looks)))
        self.asked = None if asked == list(range(len(asked))) else torch.tensor(asked, device=device)
        """The tokens that are looked at; None where they follow each other from the row's start."""
        groups = [list(group) for _, group in itertools.groupby(looks, key=lambda look: _prefix(look[0]))]
        sizes = [sum(asking for _, asking, _ in group) for group in groups]
        starts = [group[0][0].start for group in groups]
        self.followers, self.before = Spans.of(sizes, device), Spans.of(starts, device)
        self.prefixes = [(group[0][0].memory, start) for group, start in zip(groups, starts, strict=True) if start]
        bare = [not start for start, size in zip(starts, sizes, strict=True) for _ in range(size)]
        self.bare = torch.tensor(bare, device=device) if any(bare) else None
        """Which of the tokens that look have no prefix; None where all have one."""

    def kept(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the prefixes, end to end, (tokens, key-value heads, head size)."""
        found = [memory.up_to(layer, start) for memory, start in self.prefixes if memory is not None]
        keys, values = ([t[0].transpose(0, 1) for t in each] for each in zip(*found, strict=True))
        return (keys[0], values[0]) if len(found) == 1 else (torch.cat(keys), torch.cat(values))


def _prefix(segment: Segment) -> tuple[int, int]:
    return (id(segment.memory), segment.start) if segment.start else (0, 0)
