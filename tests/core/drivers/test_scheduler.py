"""Which ticket is out when, step by step, with a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from tpo_core import TPOConfig
from tpo_core.drivers.adaptive import TRIES, AdaptiveLimit
from tpo_core.drivers.outcomes import Done, Late, Raised
from tpo_core.drivers.scheduler import Run, Scheduler
from tpo_core.drivers.serving import Batch, Scoring, Telling
from tpo_core.loop.effects import Progress
from tpo_core.loop.ledger import Ledger
from tpo_core.testing import ScriptedReward
from tpo_core.trajectory import Trajectory
from tpo_core.values import Pair, Reward

REWARD = ScriptedReward({}, merges=True)
SCORED = Done([Reward(1)])
TOLD = Done(None)


def served(*batches: Batch) -> Generator[Batch, None, Trajectory]:
    yield from batches
    return Trajectory("q")


def scheduler_of(now: list[float], *loops: Generator[Batch, None, Trajectory], **settings: Any) -> Scheduler:
    def clock() -> float:
        return now[0]

    runs = [Run(Ledger("q", None, TPOConfig(), clock), loop, place) for place, loop in enumerate(loops)]
    return Scheduler(runs, clock=clock, **settings)


def telling(n: int = 1, deadline: float | None = None) -> Batch:
    return Batch(tuple(Telling(print, Progress("loss", 1)) for _ in range(n)), deadline)


def scoring(response: str = "a", deadline: float | None = None) -> Batch:
    return Batch((Scoring(REWARD, (Pair("q", response),)),), deadline)


def test_a_ticket_gives_its_place_back_once_at_its_deadline_or_at_its_end():
    now = [0.0]
    scheduler = scheduler_of(now, served(telling(2, 1.0), telling()), served(telling()), limit=2)
    ended, hung = scheduler.take()
    assert scheduler.out == 2 and list(scheduler.take()) == []
    scheduler.give(ended, TOLD)
    now[0] = 2.0
    assert scheduler.expire() == [hung] and scheduler.out == 0
    assert len(list(scheduler.take())) == 2 == scheduler.out
    scheduler.give(hung, TOLD)
    assert scheduler.out == 2 and not scheduler.finished


def test_the_outcome_of_a_ticket_that_hung_is_late_and_stays_so():
    now, batch = [0.0], telling(1, 1.0)
    scheduler = scheduler_of(now, served(batch))
    [hung] = scheduler.take()
    now[0] = 1.0
    scheduler.expire()
    scheduler.give(hung, TOLD)
    [ticket] = batch.tickets
    assert isinstance(ticket.ended, Raised) and isinstance(ticket.ended.error, Late)


def test_scorings_that_wait_for_a_reward_model_that_merges_go_out_as_one():
    scheduler = scheduler_of([0.0], *[served(scoring(text)) for text in "abc"])
    [first] = scheduler.take()
    scheduler.give(first, SCORED)
    [merged] = scheduler.take()
    assert [pair.response for pair in merged.pairs] == ["b", "c"]
    scheduler.give(merged, Done([Reward(1), Reward(2)]))
    assert len(list(scheduler.ended())) == 3 and scheduler.finished


def test_a_merged_scoring_takes_no_more_than_gains_and_those_who_came_first():
    reward = ScriptedReward({}, merges=True)
    reward.merges_up_to = 5
    batches = [Batch((Scoring(reward, (Pair("q", text), Pair("q", ""))),)) for text in ("a", "bb", "ccc", "d", "e" * 9)]
    scheduler = scheduler_of([0.0], *map(served, batches))
    out = list(scheduler.take())
    went = []
    while out:  # one is scored, and one that is full waits for its turn
        went.append("".join(pair.response for pair in out[0].pairs))
        scheduler.give(out[0], Done([Reward(1)] * len(out[0].pairs)))
        out = [*out[1:], *scheduler.take()]
        assert len(out) <= 2
    assert len(list(scheduler.ended())) == 5 and scheduler.finished
    assert went == ["a", "bbccc", "deeeeeeeee"]


def test_a_merged_scoring_that_meets_an_overload_goes_out_again_as_one():
    now = [0.0]
    limit = AdaptiveLimit(8, clock=lambda: now[0])
    scheduler = scheduler_of(now, *[served(scoring(text)) for text in "abcd"], limit=limit)
    [first] = scheduler.take()
    scheduler.give(first, SCORED)
    [merged] = scheduler.take()
    scheduler.give(merged, Raised(TimeoutError()))
    assert list(scheduler.take()) == [] and scheduler.waits and limit.now == 4
    now[0] += scheduler.alarm() or 0.0
    [again] = scheduler.take()
    assert [pair.response for pair in again.pairs] == ["b", "c", "d"]
    scheduler.give(again, Done([Reward(1)] * 3))
    assert len(list(scheduler.ended())) == 4 and scheduler.finished


def test_an_overload_of_scorings_that_does_not_end_is_their_answer_at_last():
    now, sizes = [0.0], []
    limit = AdaptiveLimit(8, clock=lambda: now[0])
    batches = [scoring(text) for text in "abcd"]
    scheduler = scheduler_of(now, *map(served, batches), limit=limit)
    [first] = scheduler.take()
    scheduler.give(first, SCORED)
    while not scheduler.finished:
        for ticket in scheduler.take():
            sizes.append(len(ticket.pairs))
            scheduler.give(ticket, Raised(TimeoutError()))
        for run in scheduler.ended():
            assert isinstance(run.result, Trajectory)
        now[0] += scheduler.alarm() or 0.0
    assert sizes == [3] * TRIES + [1] * 3
    assert all(isinstance(batch.tickets[0].ended.error, TimeoutError) for batch in batches[1:])


def test_a_scoring_that_was_merged_and_now_hangs_alone_gives_its_place_back_at_its_deadline():
    now = [0.0]
    scheduler = scheduler_of(now, *[served(scoring(text, 1.0)) for text in "abc"])
    [first] = scheduler.take()
    scheduler.give(first, SCORED)
    [merged] = scheduler.take()
    scheduler.give(merged, Raised(ValueError("one of them is bad")))
    [alone] = scheduler.take()
    now[0] = 2.0
    assert scheduler.expire() == [alone] and scheduler.out == 0


def test_what_was_merged_and_failed_goes_out_again_one_at_a_time():
    scheduler = scheduler_of([0.0], *[served(scoring(text)) for text in "abcd"])
    [first] = scheduler.take()
    scheduler.give(first, SCORED)
    [merged] = scheduler.take()
    scheduler.give(merged, Raised(ValueError("one of them is bad")))
    for text in "bcd":
        [alone] = scheduler.take()
        assert [pair.response for pair in alone.pairs] == [text]
        scheduler.give(alone, SCORED if text != "c" else Raised(ValueError("this one")))
    assert len(list(scheduler.ended())) == 4 and scheduler.finished


def test_a_merged_scoring_gives_its_place_back_when_the_last_loop_awaits_it_no_more():
    now = [0.0]
    loops = [served(scoring()), served(scoring("b", 1.0)), served(scoring("c", 2.0))]
    scheduler = scheduler_of(now, *loops, served(telling(), scoring()))
    first, told = scheduler.take()
    scheduler.give(first, SCORED)
    [merged] = scheduler.take()
    scheduler.give(told, TOLD)
    now[0] = 1.5
    assert scheduler.expire() == [] and list(scheduler.take()) == []
    now[0] = 2.5
    assert scheduler.expire() == [merged] and scheduler.out == 0
    [last] = scheduler.take()
    scheduler.give(merged, Done([Reward(1), Reward(1)]))
    assert scheduler.out == 1 and list(scheduler.take()) == []
    scheduler.give(last, SCORED)
    assert len(list(scheduler.ended())) == 4 and scheduler.finished


def test_a_scoring_that_nobody_awaits_any_more_does_not_hold_up_the_next():
    now = [0.0]
    loops = [served(scoring()), served(scoring("late", 1.0)), served(telling(), scoring("c"))]
    scheduler = scheduler_of(now, *loops)
    first, told = scheduler.take()
    now[0] = 2.0
    scheduler.expire()
    scheduler.give(first, SCORED)
    assert list(scheduler.take()) == []
    scheduler.give(told, TOLD)
    [last] = scheduler.take()
    assert [pair.response for pair in last.pairs] == ["c"]


def test_different_reward_models_do_not_wait_for_each_other():
    other = ScriptedReward({}, merges=True)
    scheduler = scheduler_of([0.0], served(scoring()), served(Batch((Scoring(other, (Pair("q", "b"),)),))))
    assert [ticket.pairs[0].response for ticket in scheduler.take()] == ["a", "b"]


def test_a_window_bounds_how_many_queries_are_on_their_way():
    started = []

    def watched(place: int) -> Generator[Batch, None, Trajectory]:
        started.append(place)
        yield telling()
        return Trajectory("q")

    scheduler = scheduler_of([0.0], *[watched(place) for place in range(3)], window=2)
    first, _ = scheduler.take()
    assert started == [0, 1]
    scheduler.give(first, TOLD)
    assert len(list(scheduler.take())) == 1 and started == [0, 1, 2]
