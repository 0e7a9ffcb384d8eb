"""Who is computed with whom: sequences to rows of segments.

A row is one forward pass over segments laid end to end, with no padding. A segment is what is left of a sequence after
the longest prefix whose keys and values are known, or will be by then: the first response to a prompt computes the
prompt as well and leaves its keys and values to the others, in the same row or a later one, and to later calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tpo_core.rewards.conversation import Encoded
from tpo_core.rewards.prefixes import Prefix, PrefixStore, shared_length

__all__ = ["Segment", "plan_rows"]


@dataclass(frozen=True, eq=False)
class Segment:
    """The part of one sequence that is computed."""

    index: int
    """Which sequence it belongs to."""
    sequence: Encoded
    prefix: Prefix | None
    """Whose keys and values stand in for the leading tokens."""
    shared: int
    """How many leading tokens that is."""
    leaves: Prefix | None
    """The entry this segment fills."""

    @property
    def length(self) -> int:
        """Return how many tokens are computed."""
        return len(self.sequence.ids) - self.shared


def plan_rows(sequences: Sequence[Encoded], store: PrefixStore, *, budget: int, least: int) -> Iterator[list[Segment]]:
    """Yield rows in the order they must run.

    Args:
        sequences: Distinct sequences.
        store: Where prefixes are found, and new ones kept.
        budget: Tokens per row; a longer segment is a row of its own.
        least: Tokens a prefix must have to be worth sharing.
    """
    rows: list[list[Segment]] = []
    alone: list[Segment] = []
    for group in _groups(sequences):
        segments = _segments(group, sequences, store, least)
        if len(segments) > 1 or segments[0].prefix or segments[0].leaves:
            _extend(rows, segments, budget)
        else:
            alone += segments
    _extend(rows, alone, budget)
    yield from rows


def _groups(sequences: Sequence[Encoded]) -> list[list[int]]:
    """Group sequences by their prompts' tokens; longest prompts and, within them, longest sequences first."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, sequence in enumerate(sequences):
        groups.setdefault(sequence.ids[: sequence.stem], []).append(index)
    for members in groups.values():
        members.sort(key=lambda i: -len(sequences[i].ids))
    return sorted(groups.values(), key=lambda members: -len(sequences[members[0]].ids))


def _segments(group: Sequence[int], sequences: Sequence[Encoded], store: PrefixStore, least: int) -> list[Segment]:
    segments: list[Segment] = []
    fresh: Prefix | None = None
    for index in group:
        sequence = sequences[index]
        prefix, shared = store.find(sequence.ids, sequence.places)
        if fresh is not None and shared < (own := _usable(fresh, sequence)):
            prefix, shared = fresh, own
        leaves = None
        if fresh is None and sequence.stem - shared >= least:
            inside = tuple(p for p in sequence.places if p < sequence.stem)
            leaves = fresh = Prefix(sequence.ids[: sequence.stem], inside)
            store.add(fresh)
        segments.append(Segment(index, sequence, prefix, shared, leaves))
    return segments


def _usable(prefix: Prefix, sequence: Encoded) -> int:
    """Return how many tokens of a prefix a sequence can take over; see ``PrefixStore.find``."""
    shared = min(shared_length(prefix.ids, sequence.ids), len(sequence.ids) - 1)
    return min([shared, *(p for p in sequence.places if p not in prefix.places)])


def _extend(rows: list[list[Segment]], segments: Sequence[Segment], budget: int) -> None:
    """Add segments to the last row while the budget lasts, then to new ones, in order."""
    for segment in segments:
        if rows and sum(s.length for s in rows[-1]) + segment.length <= budget:
            rows[-1].append(segment)
        else:
            rows.append([segment])
