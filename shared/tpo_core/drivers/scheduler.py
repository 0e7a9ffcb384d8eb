"""Which ticket of which run is out when: the same for the sync and the async driver, and nothing is called here.

A driver takes tickets, makes their calls wherever it likes, and gives each back with its outcome; when an alarm is due
it says so. A ticket is in one of these states, and the rules are all there is:

    queued   its run waits for it; it goes out when fewer than ``limit`` tickets are out
    out      a driver makes its call
    merged   a scoring of a reward model that gains from large batches: such scorings go out one at a time for each
             model, and those that wait meanwhile go out as one, up to the size that gains; the first to come are in
             the first, so that their loops go on while the others' responses are scored. One of that size goes out
             before the model is free, which then waits for nobody. If one fails, each goes out again, alone
    late     its deadline has passed: its outcome is ``Late``, its place is free at once, and what its call returns,
             if it ever does, is dropped
    resting  with an adaptive limit: its call (of the policy, or of a reward model that merges, which nobody else would
             repeat) met an overload, and goes out again when the server has been left alone
    ended    it has its outcome; when all tickets of a batch have theirs, its run goes on

A query starts when there is room for its first ticket, and its deadline counts from there.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tpo_core.drivers.adaptive import TRIES, AdaptiveLimit
from tpo_core.drivers.outcomes import Done, Late, Raised
from tpo_core.drivers.serving import Batch, Call, Scoring, Served, Ticket
from tpo_core.drivers.tracing import ScoringPart
from tpo_core.errors import TPOError
from tpo_core.loop.ledger import Ledger
from tpo_core.models.refusals import overloaded, rest_of
from tpo_core.records import repr_without_texts
from tpo_core.trajectory import Trajectory

__all__ = ["Refused", "Run", "Scheduler"]


class Run:
    """One query on its way: its ledger, its loop, and the tickets it waits for.

    Args:
        ledger: Of the query; it has the trajectory so far at any moment.
        served: Its loop, served; see ``serve``.
        place: Which of many queries this is.
    """

    def __init__(self, ledger: Ledger, served: Served[Trajectory], place: int = 0) -> None:
        """Note it all; nothing has started."""
        self.ledger, self.place = ledger, place
        self.result: Trajectory | Exception | None = None
        """What came of it; None while it is on its way."""
        self.batch: Batch | None = None
        self.missing: set[Ticket[Any]] = set()
        """The tickets of ``batch`` without an outcome."""
        self._gained: Trajectory | None = None
        self._served = served

    def advance(self) -> bool:
        """Go on to the next batch, and return whether there is one; else there is the result."""
        try:
            self.batch = next(self._served)
            while not self.batch.tickets:
                self.batch = next(self._served)
        except StopIteration as stop:
            self.result = stop.value
        except Exception as error:  # noqa: BLE001 - the run's own error is its result
            told = error.trajectory if isinstance(error, TPOError) else None
            self._gained = told or self.ledger.trajectory("error")
            error.trajectory = self._gained  # type: ignore[attr-defined]
            self.result = error
        else:
            self.missing = set(self.batch.tickets)
            return True
        self.batch = None
        return False

    @property
    def gained(self) -> Trajectory:
        """Return what there is: the result, or what an error or the end of all runs cut off."""
        if isinstance(self.result, Trajectory):
            return self.result
        return self._gained or self.ledger.trajectory("cancelled")

    def close(self) -> None:
        """Stop here; what was gained stays."""
        self._served.close()


class Refused(Run):
    """A query that cannot be run: it has ended where it would start.

    Args:
        error: Says why.
        place: As of a ``Run``.
    """

    def __init__(self, error: Exception, place: int) -> None:
        """Note why."""
        self.result, self.place = error, place
        self._gained = Trajectory("", stop_reason="error")

    def advance(self) -> bool:
        """Be at the end."""
        return False

    def close(self) -> None:
        """Do nothing."""


@dataclass(eq=False)
class _Merged(Scoring):
    """One scoring made of several."""

    parts: tuple[Scoring, ...] = ()

    __repr__ = repr_without_texts("reward")

    @property
    def traced_parts(self) -> Sequence[ScoringPart]:
        """Return what each of those queries has in it."""
        return [(part.trace, part.reward, part.pairs) for part in self.parts]


class Scheduler:
    """Keeps runs going.

    Args:
        runs: Taken one by one, as there is room; None where the next is not there yet.
        limit: Most tickets out at once; None for no limit. With an ``AdaptiveLimit``, a call of the policy, or of a
            reward model that merges, that meets an overload goes out again, without its run's knowledge, until it has
            been tried ``TRIES`` times.
        window: Most runs on their way at once; None for no limit.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        runs: Iterable[Run | None],
        limit: int | AdaptiveLimit | None = None,
        window: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the runs; none of them starts before ``take``."""
        self._unstarted = iter(runs)
        self._window, self._clock = window, clock
        self._adaptive = limit if isinstance(limit, AdaptiveLimit) else None
        self._limit = None if isinstance(limit, AdaptiveLimit) else limit
        self._tries: dict[Ticket[Any], int] = {}
        self._sent: dict[Ticket[Any], float] = {}
        self._queued: deque[Ticket[Any]] = deque()
        self._scorings: dict[int, deque[Scoring]] = {}  # those that merge, by their reward model
        self._scored_now: Counter[int] = Counter()
        self._out: set[Ticket[Any]] = set()
        self._owners: dict[Ticket[Any], Run] = {}
        self._wholes: dict[Ticket[Any], _Merged] = {}
        self._alarms: list[tuple[float, int, Run, Batch]] = []
        self._on_their_way: set[Run] = set()
        self._ended: deque[Run] = deque()
        self._numbers = itertools.count()  # so that no two alarms compare by what follows
        self._more, self._waits, self._asks = True, False, True

    @property
    def waits(self) -> bool:
        """Return whether more could go out by itself: a run that was not there yet, or what rests."""
        return self._waits or self._rests

    @property
    def finished(self) -> bool:
        """Return whether every run has ended and was handed out."""
        over = not self._on_their_way if self._asks else not (self._out or self._queued or self._scorings)
        return over and not self._more and not self._ended

    @property
    def out(self) -> int:
        """Return how many tickets are out and still awaited."""
        return len(self._out)

    @property
    def is_at_one(self) -> bool:
        """Return whether nothing more can go out before all that is out has come back."""
        return len(self._out) == 1 or not (self._more or self.waits or self._queued or len(self._on_their_way) > 1)

    def ended(self) -> Iterator[Run]:
        """Hand out the runs that have ended since."""
        while self._ended:
            yield self._ended.popleft()

    def take(self) -> Iterator[Ticket[Any]]:
        """Hand out the tickets whose calls may be made now, starting runs as there is room."""
        self._waits = False
        while self._has_room():
            if (ticket := self._next()) is not None:
                self._out.add(ticket)
                if self._adaptive is not None:
                    self._sent[ticket] = self._clock()
                yield ticket
            elif not self._start():
                return

    def give(self, ticket: Ticket[Any], outcome: Done[Any] | Raised) -> None:
        """Take a ticket back whose call has ended."""
        if not self.awaits(ticket):
            return
        sent = self._free(ticket)
        if self._adaptive is not None and self._again(ticket, outcome, sent):
            return
        if not isinstance(ticket, _Merged):
            self._end(ticket, outcome)
            return
        rewards = iter(outcome.value) if isinstance(outcome, Done) else None
        for part in ticket.parts:
            if rewards is not None:
                self._end(part, Done([next(rewards) for _ in part.pairs]))
            elif part in self._owners:
                part.alone = True  # one bad pair must not cost the other runs theirs
                del self._wholes[part]
                self._queue(part)

    def awaits(self, ticket: Ticket[Any]) -> bool:
        """Return whether a ticket that is out is still awaited: its deadline may have passed."""
        return ticket in self._out

    def alarm(self) -> float | None:
        """Return the seconds until the next deadline or the end of a rest, or None."""
        while self._alarms and not _is_open(*self._alarms[0][2:]):
            heapq.heappop(self._alarms)
        moments = [self._alarms[0][0]] if self._alarms else []
        if self._adaptive is not None and self._rests:
            moments.append(self._adaptive.rests_until)
        return max(0.0, min(moments) - self._clock()) if moments else None

    def expire(self) -> list[Ticket[Any]]:
        """End the batches whose deadline has passed, and return the tickets that were out and are awaited no more."""
        dropped: list[Ticket[Any]] = []
        while self._alarms and self._alarms[0][0] <= self._clock():
            _, _, run, batch = heapq.heappop(self._alarms)
            if _is_open(run, batch):
                dropped += [late for ticket in list(run.missing) if (late := self._give_up(ticket)) is not None]
        return dropped

    def stop_asking(self) -> None:
        """Let no run start and no call of a policy go out from now on; what is out comes back and is scored."""
        self._more = self._asks = False

    def close(self) -> list[Run]:
        """Stop every run on its way; return those, and those that have ended and were not handed out."""
        stopped = [*self._on_their_way, *self._ended]
        for run in self._on_their_way:
            run.close()
        self._on_their_way.clear()
        self._ended.clear()
        self._more = False
        return stopped

    @property
    def _rests(self) -> bool:
        return self._adaptive is not None and not self._adaptive.allowed

    def _has_room(self) -> bool:
        limit = self._limit if self._adaptive is None else self._adaptive.allowed
        return limit is None or len(self._out) < limit

    def _again(self, ticket: Ticket[Any], outcome: Done[Any] | Raised, sent: float) -> bool:
        """Let a call that met an overload wait to go out once more; returns whether it does."""
        assert self._adaptive is not None
        if isinstance(outcome, Done):
            if isinstance(ticket, Call):
                self._adaptive.succeeded()
            return False
        if not (isinstance(ticket, Call) or _merges(ticket)) or not overloaded(outcome.error):
            return False
        self._adaptive.overloaded(sent, rest_of(outcome.error))
        parts = ticket.parts if isinstance(ticket, _Merged) else (ticket,)
        awaited = [part for part in parts if part in self._owners]
        for part in awaited:
            self._tries[part] = self._tries.get(part, 1) + 1
        if not awaited or any(self._tries[part] > TRIES for part in awaited):
            return False
        for part in reversed(awaited):
            self._wholes.pop(part, None)
            self._queue(part, first=True)
        return True

    def _start(self) -> bool:
        if not self._more or (self._window is not None and len(self._on_their_way) >= self._window):
            return False
        try:
            run = next(self._unstarted)
        except StopIteration:
            self._more = False
            return False
        if run is None:
            self._waits = True
            return False
        self._on_their_way.add(run)
        self._advance(run)
        return True

    def _advance(self, run: Run) -> None:
        if not run.advance():
            self._on_their_way.discard(run)
            self._ended.append(run)
            return
        assert run.batch is not None
        for ticket in run.batch.tickets:
            self._owners[ticket] = run
            self._queue(ticket)
        if run.batch.deadline is not None:
            heapq.heappush(self._alarms, (run.batch.deadline, next(self._numbers), run, run.batch))

    def _queue(self, ticket: Ticket[Any], first: bool = False) -> None:
        queue: deque[Any] = self._queued
        if isinstance(ticket, Scoring) and ticket.reward.merges:
            queue = self._scorings.setdefault(id(ticket.reward), deque())
        queue.appendleft(ticket) if first else queue.append(ticket)

    def _next(self) -> Ticket[Any] | None:
        """Return the next ticket to go out; scorings first, since loops wait for them with nothing else to do."""
        for key in [key for key in self._scorings if self._takes(key)]:
            if (scoring := self._merged(key)) is not None:
                self._scored_now[key] += 1
                return scoring
        while self._queued:
            if (ticket := self._queued.popleft()) in self._owners and (self._asks or not isinstance(ticket, Call)):
                return ticket
        return None

    def _takes(self, key: int) -> bool:
        """Return whether a reward model takes what waits: it has nothing to do, or one scoring and this one is full."""
        if self._scored_now[key] != 1:
            return not self._scored_now[key]
        waiting = self._scorings[key]
        sizes = itertools.accumulate(len(pair.response) for part in waiting for pair in part.pairs)
        return any(size >= waiting[0].reward.merges_up_to for size in sizes)

    def _merged(self, key: int) -> Scoring | None:
        """Make one scoring of those that wait for a reward model, up to its size or to one that must go alone."""
        waiting = self._scorings[key]
        parts: list[Scoring] = []
        room = waiting[0].reward.merges_up_to
        while waiting and not (parts and (waiting[0].alone or parts[0].alone or room <= 0)):
            if (part := waiting.popleft()) in self._owners:
                parts.append(part)
                room -= sum(len(pair.response) for pair in part.pairs)
        if not waiting:
            del self._scorings[key]
        if len(parts) < 2:
            return parts[0] if parts else None
        whole = _Merged(parts[0].reward, tuple(pair for part in parts for pair in part.pairs), parts=tuple(parts))
        self._wholes.update(dict.fromkeys(parts, whole))
        return whole

    def _end(self, ticket: Ticket[Any], outcome: Done[Any] | Raised) -> None:
        self._wholes.pop(ticket, None)
        self._tries.pop(ticket, None)
        if (run := self._owners.pop(ticket, None)) is None:
            return
        ticket.outcome = outcome
        run.missing.discard(ticket)
        if not run.missing:
            self._advance(run)

    def _give_up(self, ticket: Ticket[Any]) -> Ticket[Any] | None:
        """Let a late ticket's run go on; return what was out for it and is awaited by nobody else, its place freed."""
        whole = self._wholes.get(ticket)
        self._end(ticket, Raised(Late()))
        late = ticket if whole is None else whole
        if late not in self._out or (whole is not None and any(part in self._owners for part in whole.parts)):
            return None
        self._free(late)
        return late

    def _free(self, ticket: Ticket[Any]) -> float:
        """Free a ticket's place; returns when it was sent, with an adaptive limit."""
        self._out.discard(ticket)
        if isinstance(ticket, Scoring) and ticket.reward.merges:
            self._scored_now[id(ticket.reward)] -= 1
        return self._sent.pop(ticket, 0.0)


def _merges(ticket: Ticket[Any]) -> bool:
    return isinstance(ticket, Scoring) and ticket.reward.merges


def _is_open(run: Run, batch: Batch) -> bool:
    return run.batch is batch and bool(run.missing)
