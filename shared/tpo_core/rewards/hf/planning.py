"""Who is computed with whom: sequences to rows of segments.

A row is one forward pass over segments laid end to end, with no padding. A segment is what is left of a sequence after
the longest prefix whose keys and values are known, or will be by then: the first response to a prompt computes the
prompt as well and leaves its keys and values to the others, in the same row or a later one, and to later calls. What is
longer than a row is cut, and its parts find each other's keys and values like any others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tpo_core.rewards.families.conversation import Encoded
from tpo_core.rewards.hf.prefixes import Prefix, PrefixStore, shared_length

__all__ = ["Segment", "cut", "plan_rows"]


@dataclass(frozen=True, eq=False)
class Segment:
    """The part of one sequence that is computed."""

    index: int
    """Which sequence it belongs to."""
    sequence: Encoded
    start: int
    """The first token that is computed."""
    end: int
    """The token after the last."""
    memory: Prefix | None
    """Where the keys and values before it stand and its own go; None when there are none and nobody needs them."""
    takes: Prefix | None = None
    """Whose keys and values before it are copied to the memory first."""

    @property
    def length(self) -> int:
        """Return how many tokens are computed."""
        return self.end - self.start

    @property
    def fills(self) -> bool:
        """Return whether it computes a part of a prefix that others count on."""
        return self.memory is not None and self.start < len(self.memory.ids)

    @property
    def follows(self) -> bool:
        """Return whether it is all that follows a whole prefix, so that none of its keys is needed again."""
        memory = self.memory
        return memory is not None and 0 < len(memory.ids) == self.start and self.end == len(self.sequence.ids)

    @property
    def needs_room(self) -> bool:
        """Return whether it looks at tokens behind the prefix, which the next response overwrites."""
        return self.memory is not None and self.start > len(self.memory.ids)


def plan_rows(
    sequences: Sequence[Encoded], store: PrefixStore, *, budget: int, most: int, least: int
) -> Iterator[list[Segment]]:
    """Yield rows in the order they must run.

    Args:
        sequences: Distinct sequences.
        store: Where prefixes are found, and new ones kept.
        budget: Tokens per row; a longer segment is a row of its own.
        most: Tokens per segment; what is longer is cut.
        least: Tokens a prefix must have to be worth sharing.
    """
    rows: list[list[Segment]] = []
    alone: list[Segment] = []
    for group in _groups(sequences):
        segments = _segments(group, sequences, store, least)
        if len(segments) > 1 or segments[0].memory is not None:
            _extend(rows, segments, budget, most)
        else:
            alone += segments
    _extend(rows, alone, budget, most)
    yield from rows


def cut(segment: Segment, size: int) -> list[Segment]:
    """Return a segment in parts of at most so many tokens."""
    if segment.length <= size:
        return [segment]
    memory = segment.memory or Prefix((), room=segment.end)
    starts = range(segment.start, segment.end, size)
    parts = [replace(segment, start=s, end=min(s + size, segment.end), memory=memory, takes=None) for s in starts]
    return [replace(parts[0], takes=segment.takes), *parts[1:]]


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
    longest = len(sequences[group[0]].ids)
    for index in group:
        sequence = sequences[index]
        memory, shared = store.find(sequence.ids, sequence.places)
        if fresh is not None and shared < (own := _usable(fresh, sequence)):
            memory, shared = fresh, own
        takes = None
        whole = memory is None or shared == len(memory.ids)  # behind a part of a prefix there is no room
        if fresh is None and sequence.stem - shared >= (least if whole else 1):
            inside = tuple(p for p in sequence.places if p < sequence.stem)
            takes, memory = memory, Prefix(sequence.ids[: sequence.stem], inside, longest)
            fresh = memory
            store.add(fresh)
        elif not whole:
            takes, memory = memory, Prefix((), room=len(sequence.ids))
        elif memory is not None:
            store.reserve(memory, longest)
        segments.append(Segment(index, sequence, shared, len(sequence.ids), memory, takes))
    return segments


def _usable(prefix: Prefix, sequence: Encoded) -> int:
    """Return how many tokens of a prefix a sequence can take over; see ``PrefixStore.find``."""
    shared = min(shared_length(prefix.ids, sequence.ids), len(sequence.ids) - 1)
    return min([shared, *(p for p in sequence.places if p not in prefix.places)])


def _extend(rows: list[list[Segment]], segments: Sequence[Segment], budget: int, most: int) -> None:
    """Add segments to the last row while the budget lasts, then to new ones, in order."""
    for segment in (part for whole in segments for part in cut(whole, most)):
        last = rows[-1] if rows else []
        if last and not last[-1].needs_room and sum(s.length for s in last) + segment.length <= budget:
            last.append(segment)
        else:
            rows.append([segment])
