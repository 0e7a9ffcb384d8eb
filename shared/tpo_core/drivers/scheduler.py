"""Which job of which loop runs when: the same for the sync and the async driver, and nothing is done here.

A driver takes tickets, runs their jobs wherever it likes, gives each back with its outcome, and rings when an alarm is
due. A job whose deadline has passed counts no more, whether it has ended or not. Scorings of a reward model that gains
from large batches go one at a time; what waits meanwhile is merged.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tpo_core.drivers.serving import Job, Late, Line, Outcome, Scoring
from tpo_core.errors import TPOError
from tpo_core.loop.ledger import Ledger
from tpo_core.trajectory import Trajectory

__all__ = ["Desk", "Ticket"]


@dataclass(eq=False)
class _Flight:
    """One line in flight, with the outcomes of its open batch."""

    place: int
    line: Line
    ledger: Ledger
    result: Trajectory | Exception | None = None
    kept: Trajectory | None = None
    """What a line that failed had gained."""
    batch: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    missing: dict[int, Ticket | None] = field(default_factory=dict)
    """The slots without an outcome, each with the job that is to bring it once that is running."""

    @property
    def gained(self) -> Trajectory:
        """Return what there is: the result, or what an error or the end of the run cut off."""
        if isinstance(self.result, Trajectory):
            return self.result
        return self.kept or self.ledger.trajectory("cancelled")


@dataclass(frozen=True, eq=False)
class Ticket:
    """A job to run, and where its outcome belongs."""

    job: Job[Any]
    flight: _Flight
    batch: int
    slot: int
    parts: tuple[Ticket, ...] = ()
    """For a merged scoring: the tickets it answers, in order."""

    @property
    def awaited(self) -> bool:
        """Return whether the outcome is still wanted: its deadline may have passed."""
        if self.parts:
            return any(part.awaited for part in self.parts)
        return self.flight.batch == self.batch and self.slot in self.flight.missing


class Desk:
    """Keeps the lines going.

    Args:
        lines: Each with the ledger its loop writes in.
        limit: Most jobs at once; None for no limit.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        lines: Sequence[tuple[Line, Ledger]],
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the lines; each starts when there is room for its first job, and its deadline counts from there."""
        self._limit, self._clock = limit, clock
        self._jobs: deque[Ticket] = deque()
        self._scorings: deque[Ticket] = deque()
        self._alone: deque[Ticket] = deque()  # scorings whose merger failed
        self._scoring: Ticket | None = None  # the one under way, of those that go one at a time
        self._running = 0
        self._alarms: list[tuple[float, int, int]] = []  # when, place, batch
        self._flights = [_Flight(place, line, ledger) for place, (line, ledger) in enumerate(lines)]
        self._in_flight = len(self._flights)
        self.first_error: Exception | None = None
        self._unstarted = deque(self._flights)

    @property
    def finished(self) -> bool:
        """Return whether every line has its result."""
        return self._in_flight == 0

    @property
    def running(self) -> int:
        """Return how many jobs have been taken and are still awaited."""
        return self._running

    @property
    def results(self) -> list[Any]:
        """Return each line's Trajectory or exception, in order; None while it is in flight."""
        return [flight.result for flight in self._flights]

    def take(self) -> Iterator[Ticket]:
        """Hand out the jobs that may start now."""
        while self._limit is None or self._running < self._limit:
            if self._scoring is None and self._alone:
                ticket = self._alone.popleft()
            elif self._scoring is None and self._scorings:
                ticket = self._merged()
            elif self._jobs:
                ticket = self._jobs.popleft()
            elif self._unstarted:
                self._advance(self._unstarted.popleft(), None)
                continue
            else:
                return
            if ticket.awaited:
                self._start(ticket)
                yield ticket

    def give(self, ticket: Ticket, outcome: Outcome) -> None:
        """Take back a job that has ended; when its deadline had passed, that was done before."""
        if not ticket.awaited:
            return
        self._release(ticket)
        if not ticket.parts:
            self._seat(ticket, outcome)
        elif isinstance(outcome, Exception):
            self._part(ticket)
        else:
            rewards = iter(outcome)
            for part in ticket.parts:
                self._seat(part, [next(rewards) for _ in part.job.pairs])  # type: ignore[attr-defined]

    def alarm(self) -> float | None:
        """Return the seconds until the next deadline, or None."""
        while self._alarms and not self._open(*self._alarms[0][1:]):
            heapq.heappop(self._alarms)
        return max(0.0, self._alarms[0][0] - self._clock()) if self._alarms else None

    def ring(self) -> list[Ticket]:
        """End the batches whose deadline has passed; return the jobs that nobody awaits any more."""
        dropped: list[Ticket] = []
        while self._alarms and self._alarms[0][0] <= self._clock():
            _, place, batch = heapq.heappop(self._alarms)
            flight = self._flights[place]
            if self._open(place, batch):
                running = [ticket for ticket in flight.missing.values() if ticket is not None]
                for slot in flight.missing:
                    flight.outcomes[slot] = Late()
                flight.missing.clear()
                for ticket in running:
                    if not ticket.awaited:
                        self._release(ticket)
                        dropped.append(ticket)
                self._advance(flight, flight.outcomes)
        return dropped

    def abandon(self, error: BaseException) -> None:
        """Close every line still in flight; the error carries what each line has."""
        flying = [flight for flight in self._flights if flight.result is None]
        for flight in flying:
            flight.line.close()
        if len(self._flights) == 1 and flying:
            error.trajectory = flying[0].ledger.trajectory("cancelled")  # type: ignore[attr-defined]
        error.trajectories = tuple(flight.gained for flight in self._flights)  # type: ignore[attr-defined]

    def _advance(self, flight: _Flight, outcomes: Sequence[Outcome] | None) -> None:
        """Send a line its outcomes and queue its next batch, or book its end."""
        try:
            batch = next(flight.line) if outcomes is None else flight.line.send(outcomes)
            while not batch.jobs:
                batch = flight.line.send(())
        except StopIteration as stop:
            flight.result = stop.value
            self._in_flight -= 1
            return
        except Exception as error:  # noqa: BLE001 - the line's own error is its result
            told = error.trajectory if isinstance(error, TPOError) else None
            flight.kept = told or flight.ledger.trajectory("error")
            error.trajectory = flight.kept  # type: ignore[attr-defined]
            flight.result = error
            self.first_error = self.first_error or error
            self._in_flight -= 1
            return
        flight.batch += 1
        flight.outcomes = [None] * len(batch.jobs)
        flight.missing = dict.fromkeys(range(len(batch.jobs)))
        for slot, job in enumerate(batch.jobs):
            shelf = self._scorings if _merges(job) else self._jobs
            shelf.append(Ticket(job, flight, flight.batch, slot))
        if batch.deadline is not None:
            heapq.heappush(self._alarms, (batch.deadline, flight.place, flight.batch))

    def _start(self, ticket: Ticket) -> None:
        """Book a job as running, for every slot that awaits it."""
        self._running += 1
        if _merges(ticket.job):
            self._scoring = ticket
        for part in ticket.parts or (ticket,):
            if part.awaited:
                part.flight.missing[part.slot] = ticket

    def _release(self, ticket: Ticket) -> None:
        """Give back a job's place."""
        self._running -= 1
        if self._scoring is ticket:
            self._scoring = None

    def _part(self, ticket: Ticket) -> None:
        """Let the parts of a merged scoring that failed go each alone: one bad pair must not cost the others theirs."""
        for part in ticket.parts:
            if part.awaited:
                part.flight.missing[part.slot] = None
                self._alone.append(part)

    def _open(self, place: int, batch: int) -> bool:
        return self._flights[place].batch == batch and bool(self._flights[place].missing)

    def _seat(self, ticket: Ticket, outcome: Outcome) -> None:
        if not ticket.awaited:
            return
        flight = ticket.flight
        flight.outcomes[ticket.slot] = outcome
        del flight.missing[ticket.slot]
        if not flight.missing:
            self._advance(flight, flight.outcomes)

    def _merged(self) -> Ticket:
        """Make one scoring of all that wait for the same reward model."""
        reward = self._scorings[0].job.reward  # type: ignore[attr-defined]
        same = [t for t in self._scorings if t.job.reward is reward]  # type: ignore[attr-defined]
        self._scorings = deque(t for t in self._scorings if t.job.reward is not reward)  # type: ignore[attr-defined]
        if len(same) == 1:
            return same[0]
        pairs = tuple(pair for t in same for pair in t.job.pairs)  # type: ignore[attr-defined]
        return Ticket(Scoring(reward, pairs), same[0].flight, same[0].batch, same[0].slot, tuple(same))


def _merges(job: Job[Any]) -> bool:
    return isinstance(job, Scoring) and job.reward.merges
