"""The keys and values of prompts, computed once and kept for every response to them, within a memory budget.

Mostly bookkeeping over token ids: nothing here computes. An entry is announced when its computation is planned, and
filled while that runs; whoever is planned after it may count on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
from tpo_core.records import repr_without_texts

__all__ = ["Prefix", "PrefixStore", "shared_length"]


@dataclass(eq=False)
class Prefix:
    """The leading tokens of a conversation with their keys and values, and room behind them.

    What comes after the prefix is written into that room, so that attention finds both in one piece without copying
    the prefix; the next response overwrites it.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...] = ()
    """Positions among them whose final hidden states are kept, for heads that read the prompt."""
    room: int = 0
    """Tokens there is space for, the prefix's own included."""
    keys: dict[int, Tensor] = field(default_factory=dict)
    """By layer, (1, key-value heads, room, head size)."""
    values: dict[int, Tensor] = field(default_factory=dict)
    states: dict[int, Tensor] = field(default_factory=dict)
    """By place, (hidden,)."""

    __repr__ = repr_without_texts()

    def write(self, layer: int, start: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (1, key-value heads, tokens, head size) at ``start``; return all up to their end."""
        return _written(self.keys, layer, start, key, self.room), _written(self.values, layer, start, value, self.room)

    def kept(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the prefix's own keys and values."""
        return self.up_to(layer, len(self.ids))

    def up_to(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the first tokens, also of those behind the prefix."""
        return self.keys[layer][:, :, :tokens], self.values[layer][:, :, :tokens]

    def take(self, layer: int, other: Prefix, tokens: int) -> None:
        """Copy another's first tokens."""
        self.write(layer, 0, other.keys[layer][:, :, :tokens], other.values[layer][:, :, :tokens])


def _written(kept: dict[int, Tensor], layer: int, start: int, new: Tensor, room: int) -> Tensor:
    tokens = new.shape[2]
    end = start + tokens
    space = kept.get(layer)
    if space is None or space.shape[2] < max(end, room):
        larger = new.new_empty(1, new.shape[1], max(end, room), new.shape[3])
        if space is not None:
            larger[:, :, :start] = space[:, :, :start]
        kept[layer] = space = larger
    space.narrow(2, start, tokens).copy_(new)
    return space.narrow(2, 0, end)


class PrefixStore:
    """Finds the longest kept prefix of a conversation; forgets the least recently used.

    Args:
        max_bytes: The memory that entries may take.
        bytes_per_token: What a token's keys and values take, over all layers.
        least: Shorter prefixes are not looked for.
    """

    def __init__(self, max_bytes: int, bytes_per_token: int, least: int) -> None:
        self._max_tokens = max_bytes // max(bytes_per_token, 1)
        self._least = least
        self._tokens = 0
        self._entries: OrderedDict[Prefix, None] = OrderedDict()
        self._by_start: dict[tuple[int, ...], list[Prefix]] = {}

    @property
    def tokens(self) -> int:
        """Return how many tokens' keys and values there is room for."""
        return self._tokens

    def find(self, ids: Sequence[int], places: Iterable[int]) -> tuple[Prefix | None, int]:
        """Return the entry that shares the most leading tokens, and how many; ``(None, 0)`` when there is none.

        At least the last token is left over, and every place within what is shared is one that the entry kept.
        """
        best, longest = None, 0
        for entry in self._by_start.get(tuple(ids[: self._least]), ()):
            shared = min(shared_length(entry.ids, ids), len(ids) - 1)
            shared = min([shared, *(p for p in places if p not in entry.places)])
            if shared >= self._least and shared > longest:
                best, longest = entry, shared
        if best is not None:
            self._entries.move_to_end(best)
        return best, longest

    def add(self, entry: Prefix) -> None:
        """Keep an entry, and forget old ones that no longer fit beside it; one that never fits is not kept."""
        if entry.room > self._max_tokens:
            return
        self._entries[entry] = None
        self._by_start.setdefault(entry.ids[: self._least], []).append(entry)
        self._tokens += entry.room
        self._shrink()

    def reserve(self, entry: Prefix, tokens: int) -> None:
        """Give an entry room for as many tokens."""
        if tokens <= entry.room:
            return
        if entry in self._entries:
            if tokens > self._max_tokens:
                self.drop(entry)
            else:
                self._entries.move_to_end(entry)
                self._tokens += tokens - entry.room
        entry.room = tokens
        self._shrink()

    def _shrink(self) -> None:
        while self._tokens > self._max_tokens:
            self.drop(next(iter(self._entries)))

    def drop(self, entry: Prefix) -> None:
        """Forget an entry."""
        if entry in self._entries:
            del self._entries[entry]
            start = entry.ids[: self._least]
            self._by_start[start].remove(entry)
            if not self._by_start[start]:
                del self._by_start[start]
            self._tokens -= entry.room

    def clear(self) -> None:
        """Forget everything."""
        for entry in list(self._entries):
            self.drop(entry)


def shared_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading tokens two sequences share.

    Example:
        >>> shared_length((1, 2, 3), (1, 2, 4, 5))
        2
    """
    low, high = 0, min(len(one), len(other))
    while low < high:  # slices compare at C speed, so a search by halves beats a loop over tokens
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
