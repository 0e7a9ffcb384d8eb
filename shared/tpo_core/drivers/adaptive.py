"""How many requests a server takes at once, found out while it answers: one more a round, half where it is too much.

Additive increase and multiplicative decrease, as TCP does it: several clients of one server come to equal shares.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tpo_core.errors import InvalidInputError

__all__ = ["AdaptiveLimit"]

FIRST_REST = 0.5
LONGEST_REST = 60.0
"""Seconds without new requests after the first overload in a row, doubled for each further one, and at most; a
server's own ``Retry-After`` takes their place."""

TRIES = 8
"""How often a request goes out until the server's overload is its answer: two minutes and a half of rests."""


class AdaptiveLimit:
    """The most requests at once, as it changes. A scheduler asks it; not safe for several threads.

    Args:
        most: Is never exceeded, and is where it begins.
        clock: Seconds, monotonic; the scheduler's.

    Example:
        >>> limit = AdaptiveLimit(8, clock=lambda: 0.0)
        >>> limit.overloaded(sent=0.0, rest=3.0), limit.allowed, limit.rests_until
        (None, 0, 3.0)
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with ``most``."""
        if most < 1:
            raise InvalidInputError(f"the most requests at once must be at least 1, not {most}")
        self.most, self._clock = most, clock
        self._limit, self._in_a_row = float(most), 0
        self._halved = float("-inf")
        self.rests_until = float("-inf")
        """When, on the clock, requests may go out again."""

    @property
    def now(self) -> int:
        """Return the limit, whether it rests or not."""
        return max(1, int(self._limit))

    @property
    def allowed(self) -> int:
        """Return how many requests may be out now: none while the server is left alone."""
        return 0 if self._clock() < self.rests_until else self.now

    def succeeded(self) -> None:
        """Take that a request was answered: as many answers as the limit raise it by one."""
        self._in_a_row = 0
        self._limit = min(float(self.most), self._limit + 1 / self._limit)

    def overloaded(self, sent: float, rest: float | None = None) -> None:
        """Take that a request met an overload, or no answer in time.

        Args:
            sent: When it went out. Of those that were out together, the first halves the limit.
            rest: Seconds that the server asked for.
        """
        now = self._clock()
        if sent >= self._halved:
            self._limit, self._halved = max(1.0, self._limit / 2), now
            self._in_a_row += 1
            wait = min(LONGEST_REST, FIRST_REST * 2 ** (self._in_a_row - 1))
            self.rests_until = max(self.rests_until, now + (wait if rest is None else rest))
        elif rest is not None:
            self.rests_until = max(self.rests_until, now + rest)
