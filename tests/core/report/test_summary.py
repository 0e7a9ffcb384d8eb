"""A run in figures: what is counted, what is left out, and what they are said not to show."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import pytest

from tpo_core import Candidate, Failure, GenerationError, Step, TPOConfig, Trajectory, Usage, run_many
from tpo_core.report import Entry, RunSummary, summarize, summary_lines, trajectory_line, write_run_page
from tpo_core.testing import RubricReward, SimulatedPolicy


def loop(*rewards_by_round: list[float | None], stop: str = "depth", **more: object) -> Trajectory:
    """Make a loop of samples, then rounds of updates; None fails."""
    candidates: list[Candidate] = []
    for step, rewards in enumerate(rewards_by_round):
        for reward in rewards:
            failure = Failure("empty") if reward is None else None
            text = f"text {len(candidates)}"
            candidates.append(
                Candidate(text, reward=reward, step=step, fresh=step == 0, failure=failure, index=len(candidates))
            )
    return Trajectory("q", tuple(candidates), stop_reason=stop, **more)  # type: ignore[arg-type]


def test_every_figure_of_a_small_run():
    run = summarize(
        [
            loop([1, 2, None], [3, 4], usage=Usage(7, 5, 10, 20), seconds={"total": 2.0}),
            loop([5, 1], [2, 2], stop="patience", usage=Usage(6, 5, 10, 20)),
            ValueError("no server"),
        ]
    )
    assert (run.queries, run.answered, run.candidates, run.updates) == (3, 2, 9, 4)
    assert run.winners == {"update": 1, "first": 1} and run.update_won.share == 0.5
    assert (run.first_best.mean, run.best.mean, run.gain.mean) == (3.5, 4.5, 1.0)
    assert run.failures == {"empty": 1} and run.errors == {"ValueError": 1}
    assert run.stop_reasons == {"depth": 1, "patience": 1}
    assert run.tokens == 60 and run.usage == Usage(13, 10, 20, 40) and run.seconds.mean == 2.0
    assert run.gains.zero == 1 and sum(run.gains.counts) == 1


def test_an_error_that_carries_a_trajectory_counts_what_was_gained():
    error = GenerationError("nothing")
    error.trajectory = loop([None, None])
    run = summarize([error])
    assert run.errors == {"GenerationError": 1} and run.failures == {"empty": 2} and run.stop_reasons == {}


def test_a_loop_that_ended_early_counts_in_later_rounds_with_what_it_ended_with():
    rounds = summarize([loop([0], [1], [2]), loop([4])]).rounds
    assert [r.best.mean for r in rounds] == [2, 2.5, 3] and [r.best.n for r in rounds] == [2, 2, 2]
    assert [r.best_sample.mean for r in rounds] == [2, 2, 2]
    assert [r.best_update.mean for r in rounds] == [None, 1, 2] and rounds[2].best_update_gain.mean == 2


def test_the_spread_is_that_of_a_round_s_samples_and_updates_apart():
    rounds = summarize([loop([0, 2], [5, 5, 8]), loop([0, 4], [1])]).rounds
    assert rounds[0].samples_sd.mean == pytest.approx((2**0.5 + 8**0.5) / 2) and rounds[0].updates_sd.n == 0
    assert rounds[1].updates_sd.mean == pytest.approx(3**0.5) and rounds[1].updates_sd.n == 1


def test_a_best_update_never_falls_and_the_best_so_far_is_the_better_of_both():
    run = summarize(run_many([f"q{i}" for i in range(20)], SimulatedPolicy(), RubricReward(), TPOConfig(fresh=2)))
    for earlier, later in zip(run.rounds, run.rounds[1:], strict=False):
        assert later.best.mean >= earlier.best.mean >= earlier.best_sample.mean
    assert run.rounds[-1].best.mean == pytest.approx(run.best.mean)
    assert run.rounds[-1].best_gain.mean == pytest.approx(run.gain.mean)


def test_a_run_is_read_once_in_memory_that_does_not_grow_with_it(make):
    class Nowhere:
        def write(self, text: str) -> None:
            pass

    trees = [make(i, words=400) for i in range(20)]

    def peak(queries: int) -> int:
        tracemalloc.start()
        write_run_page(Nowhere(), (replace(trees[i % 20], query=f"q{i}") for i in range(queries)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)
    assert peak(320) < peak(80) + 300_000  # of 9 and 2 MB of text


def test_values_that_are_no_numbers_are_left_out_and_estimated_tokens_are_told():
    odd = loop(
        [1, float("nan"), float("inf")], [2], usage=Usage(1, 1, 5, 5, estimated=True), seconds={"total": float("nan")}
    )
    run = summarize([odd, Entry(odd, name="a")])
    assert run.estimated_tokens == 2 and run.best.mean == 2 and run.seconds.n == 0
    assert any("estimated" in said for said in run.caveats)


def test_without_an_answer_nothing_is_claimed_and_nothing_breaks():
    for items in ([], [ValueError("x")], [Trajectory("q")], [loop([None])]):
        run = summarize(items)
        assert run.gain.mean is None and run.caveats == () and summary_lines(run)[0].startswith("queries:")
    assert "none scored" in trajectory_line(loop([None]))


def said(run: RunSummary, word: str) -> list[str]:
    return [line for line in run.caveats if word in line]


def test_a_reward_that_was_optimised_is_said_to_prove_nothing_unless_a_held_out_one_does():
    plain, held = loop([1, 2], [3]), replace(loop([1, 2], [3]), gold={1: 0.5, 2: 0.75})
    assert said(summarize([plain]), "this run has none")
    gold = summarize([held, held])
    assert (
        gold.gold_gain.mean == 0.25 and said(gold, "held-out reward the gain is +0.25") and not said(gold, "has none")
    )
    worse = summarize([replace(held, gold={1: 0.5, 2: 0.25}), held, held])
    assert said(worse, "which does not show better answers")


def test_best_of_n_is_named_where_sampling_alone_may_gain_as_much():
    small, large = (
        summarize([loop([0, 1, 2], [2 + gain + i % 2], usage=Usage(19)) for i in range(40)]) for gain in (0.01, 9.0)
    )
    assert said(small, "best-of-N may be as good") and not said(large, "may be as good")
    assert said(large, "this estimate speaks for the loop") and said(large, "best-of-N run (mode='bon')")


def test_the_estimate_of_sampling_alone_is_met_by_sampling_alone():
    queries = [f"q{i}" for i in range(300)]
    deaf = summarize(run_many(queries, SimulatedPolicy(follows=0), RubricReward(), TPOConfig(depth=2)))
    calls = deaf.usage.calls // deaf.queries
    more = run_many(queries, SimulatedPolicy(follows=0), RubricReward(), TPOConfig(mode="bon", width=calls))
    firsts = [max(t.rewards(0)[:5]) for t in more]
    measured = sum(t.best.reward - first for t, first in zip(more, firsts, strict=True)) / len(more)
    assert deaf.sampling_gain.mean == pytest.approx(measured, rel=0.2)


def test_longer_answers_and_too_few_queries_are_pointed_at():
    long = loop([1, 2], [3])
    long = replace(long, candidates=(*long.candidates[:2], replace(long.candidates[2], response="word " * 30)))
    assert said(summarize([long]), "1400% longer") and said(summarize([long]), "too few to generalise")
    assert said(summarize([loop([1], [2])] * 40), "about as long") and not said(
        summarize([loop([1], [2])] * 40), "too few"
    )


def grown(words: int, gain: float) -> Trajectory:
    """Make a loop whose answer has so many words, the best first sample ten."""
    made = loop([0.0], [gain])
    texts = ("word " * 10, "word " * words)
    return replace(made, candidates=tuple(replace(c, response=t) for c, t in zip(made.candidates, texts, strict=True)))


def test_the_gain_at_equal_length_stands_beside_the_gain_and_says_where_length_may_explain_it():
    lengths = [11 + number for number in range(40)]
    bought = summarize([grown(words, math.log(words / 10) + 0.1 * (-1) ** words) for words in lengths])
    earned = summarize([grown(words, math.log(words / 10) + 1 + 0.01 * (words % 3)) for words in lengths])
    assert bought.equal_length_gain.mean == pytest.approx(0, abs=0.1) and said(bought, "length may explain it")
    assert earned.equal_length_gain.mean == pytest.approx(1.01, abs=0.02)
    assert said(earned, "at equal length +1") and not said(earned, "length may explain it")


def test_lost_candidates_shortened_prompts_and_weak_policies_are_counted():
    cut = loop([1, 2, None])
    cut = replace(cut, candidates=(replace(cut.candidates[0], truncated=True), *cut.candidates[1:]))
    weak = loop([1, 2], [0, 0, 0, 0])
    failed = replace(weak, steps=(Step(1, failure=Failure("unparsable")),))
    run = summarize([cut, failed, ValueError("x")])
    assert said(run, "1 of 9 candidates failed (11%)") and said(run, "shortened prompt for 1")
    assert said(run, "1 of 3 queries have no scored answer") and said(run, "In 1 query updates said nothing")
    assert run.rounds_failed == {"unparsable": 1} and said(run, "no tokens for 2 queries")


def test_the_lines_for_a_terminal_have_the_figures_and_the_notes():
    lines = summary_lines(summarize([loop([1, 2, None], [3, 4], usage=Usage(7, 5, 1000, 20)), ValueError("x")]))
    assert "queries: 2, 1 answered" in lines and "gain: +2" in lines and "failed candidates: empty 1" in lines
    assert any(line.startswith("tokens: 1,020 (1,000 prompt, 20 completion)") for line in lines)
    assert sum(line.startswith("note: ") for line in lines) >= 3
