"""The attention of a row: each of its segments looks at its prefix and at itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from tpo_core.rewards.hf.attention import attend, merged
from tpo_core.rewards.hf.planning import Segment

__all__ = ["Row", "with_prefix"]


class Row:
    """The segments of one forward pass, as the attention of every layer sees them.

    Args:
        segments: What is laid end to end.
        last: The number of the last layer, where only chosen tokens go on.
        joint: Whether segments that follow one prefix look at it together.
    """

    def __init__(self, segments: Sequence[Segment], last: int, *, joint: bool) -> None:
        ends = list(itertools.accumulate(s.length for s in segments))
        self._last = last
        self._spans = [(segment, end - segment.length, end) for segment, end in zip(segments, ends, strict=True)]
        self._joint = joint
        self._runs = _runs(segments) if joint else [[s] for s in segments]
        self._own = [[p - s.start for p in sorted(s.sequence.places) if s.start <= p < s.end] for s in segments]
        self.chosen = [start + p for (_, start, _), own in zip(self._spans, self._own, strict=True) for p in own]
        """The tokens of the row that heads read."""
        self.longest = max(len(s.sequence.ids) for s in segments)
        """Tokens of the longest conversation."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """Return the attention of each segment to its prefix and itself.

        Args:
            layer: The layer's number.
            query: (1, heads, tokens, head size).
            key: (1, key-value heads, tokens, head size), and likewise ``value``.
            scale: What scores are multiplied by.

        Returns:
            (1, tokens, heads, head size); in the last layer zeros where nobody looks.
        """
        if layer == self._last:
            return self._chosen_alone(layer, query, key, value, scale)
        lengths = [sum(s.length for s in run) for run in self._runs]
        parts = zip(self._runs, *(torch.split(t, lengths, 2) for t in (query, key, value)), strict=True)
        found = [self._attended(run, layer, q, k, v, scale).transpose(1, 2) for run, q, k, v in parts]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def _attended(
        self, run: Sequence[Segment], layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float | None
    ) -> Tensor:
        memory = run[0].memory
        if self._joint and memory is not None and run[0].follows:
            return merged(q, memory.kept(layer), (k, v), [s.length for s in run], scale)
        (segment,) = run
        return attend(q, *with_prefix(segment, layer, k, v), scale)

    def _chosen_alone(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        output = torch.zeros_like(query)
        for (segment, start, end), own in zip(self._spans, self._own, strict=True):
            q, k, v, out = (t[:, :, start:end] for t in (query, key, value, output))
            k, v = with_prefix(segment, layer, k, v)
            for p in own:
                seen = segment.start + p + 1
                out[:, :, p : p + 1] = attend(q[:, :, p : p + 1], k[:, :, :seen], v[:, :, :seen], scale)
        return output.transpose(1, 2)


def _runs(segments: Sequence[Segment]) -> list[list[Segment]]:
    """Return segments one by one, but those together that follow each other and the same prefix."""
    runs: list[list[Segment]] = []
    for segment in segments:
        if segment.follows and runs and runs[-1][0].follows and runs[-1][0].memory is segment.memory:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def with_prefix(segment: Segment, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return a segment's keys and values behind those of its prefix."""
    if (memory := segment.memory) is None:
        return k, v
    if segment.takes is not None:
        memory.take(layer, segment.takes, segment.start)
    return memory.write(layer, segment.start, k, v)
