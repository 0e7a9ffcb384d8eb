"""``tpo study modes|depth|width|stability``: paired with sampling alone, resumed, written, and honest about it."""

from __future__ import annotations

import csv
import math
import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpo_core import Candidate
from tpo_core.cli.main import main
from tpo_core.runs import RunReader
from tpo_core.studies.arms import NONE, STUDIES, Arm, Study, sampling
from tpo_core.studies.intervals import Estimate, at_equal_length, mean_of
from tpo_core.studies.scaling import Outcome, compared, points, warnings

ONE_ARM = Study("one round", (Arm("tpo", {"width": 2, "depth": 1}),))


def candidates(rewards: list[float], step: int, words: int = 3, start: int = 0) -> tuple[Candidate, ...]:
    return tuple(
        Candidate("w " * words, reward=reward, step=step, fresh=step == 0, index=start + place)
        for place, reward in enumerate(rewards)
    )


def outcomes(query: str, ours: list[list[float]], none: list[float], words: int = 3) -> list[Outcome]:
    """Return an arm whose tokens pay for as many samples as ``none`` has."""
    rounds = tuple(candidates(rewards, step, words) for step, rewards in enumerate(ours))
    return [
        Outcome("tpo", query, 0, rounds, calls=6, tokens=10.0 * len(none)),
        Outcome(NONE, query, 0, (candidates(none, 0),), calls=len(none), tokens=10.0 * len(none)),
    ]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_a_mean_lies_in_its_interval_and_comes_out_alike_again(values):
    found = mean_of(values)
    assert found == mean_of(values) and found.low - 1e-9 <= found.value <= found.high + 1e-9


def test_an_interval_holds_the_true_mean_about_as_often_as_it_says():
    draw = random.Random(0)
    spans = [mean_of([draw.gauss(1.0, 2.0) for _ in range(40)]) for _ in range(60)]
    assert sum(s.low <= 1.0 <= s.high for s in spans) >= 50


def test_what_length_explains_is_not_left_at_equal_length():
    draw = random.Random(1)
    longer = [draw.gauss(0.5, 0.3) for _ in range(200)]
    bought = at_equal_length([2 * x for x in longer], longer)
    earned = at_equal_length([2 * x + 1 + draw.gauss(0, 0.1) for x in longer], longer)
    assert bought.value == pytest.approx(0, abs=1e-9) and earned.value == pytest.approx(1, abs=0.1)
    assert at_equal_length([1.0, 3.0], [0.2, 0.2]).value == 2.0


def test_each_round_is_held_against_as_many_samples_and_as_many_tokens_of_sampling():
    played = outcomes("a", [[1.0, 2.0], [3.0, 5.0]], [1.0, 2.0, 4.0, 0.0, 6.0, 1.0])
    found = {(p.arm, p.round): p for p in points(ONE_ARM, played)}
    first, last = found["tpo", 0], found["tpo", 1]
    assert (first.best.value, last.best.value, last.samples, last.tokens) == (2.0, 5.0, 4, 60.0)
    assert first.over_samples.value == 0.0 and first.over_tokens.value == 0.0
    assert last.over_samples.value == 1.0  # the best of four samples is 4
    assert last.over_tokens.value == -1.0 and last.win_rate.value == 0.0  # that of six is 6
    assert last.mean.value == 4.0 and last.sd.value == pytest.approx(math.sqrt(2))
    assert found[NONE, 1].best.value == 4.0 and found[NONE, 1].over_tokens is None


def test_seeds_of_one_query_count_as_one_and_what_an_arm_lacks_is_left_out_of_all():
    played = outcomes("a", [[1.0], [2.0]], [1.0]) + outcomes("b", [[3.0], [4.0]], [3.0])
    again = [Outcome(o.arm, o.query, 1, o.rounds, o.calls, o.tokens) for o in played[:2]]
    alone = outcomes("c", [[1.0], [2.0]], [1.0])[:1]
    found = points(ONE_ARM, played + again + alone)
    assert {p.queries for p in found} == {2} and found[1].best.value == 3.0
    assert points(ONE_ARM, alone) == []


def test_warnings_name_best_of_n_length_and_few_queries():
    worse = points(ONE_ARM, outcomes("a", [[1.0], [2.0]], [1.0, 4.0]))
    assert any("best-of-N for as many tokens is better" in said for said in warnings(ONE_ARM, worse))
    played = []
    for number in range(40):
        words = 6 + 3 * number  # of none's three
        played += outcomes(f"{number}", [[0.0], [math.log(words / 3)]], [0.0], words=words)
    bought = warnings(ONE_ARM, points(ONE_ARM, played), left_out=2)
    assert any("length may explain" in said for said in bought) and "2 queries" in bought[-1]
    assert not any("few" in said for said in bought) and "optimised" in bought[0]


def test_a_held_out_reward_is_of_the_answers_that_are_held_against_each_other_and_says_what_a_gain_is():
    played = outcomes("a", [[1.0], [2.0, 5.0]], [1.0, 2.0, 4.0], words=6)
    played += outcomes("b", [[1.0], [2.0, 6.0]], [1.0, 2.0, 3.0], words=6)
    pairs = compared(ONE_ARM, played)
    assert {(query, len(response.split())) for query, response in pairs} == {(q, n) for q in "ab" for n in (3, 6)}
    for sign, verdict in ((1.0, "confirms"), (-1.0, "likes"), (0.0, "does not show")):
        held = {answer: sign * len(pair.response.split()) for answer, pair in pairs.items()}
        found = points(ONE_ARM, played, held)
        assert [p.held_out.value for p in found if p.arm == "tpo"][-1] == 3 * sign
        said = warnings(ONE_ARM, found)
        assert verdict in said[0] and not any("does not prove" in each for each in said)
    even = outcomes("a", [[1.0], [2.0]], [2.0], words=6)
    longer = {answer: float(len(pair.response)) for answer, pair in compared(ONE_ARM, even).items()}
    assert "alone shows" in warnings(ONE_ARM, points(ONE_ARM, even, longer))[0]  # there is no gain to confirm
    some = points(ONE_ARM, played, {answer: 1.0 for answer in pairs if answer[0] == "a"})
    assert some[1].held_out is not None  # of the query that has both
    assert all(point.held_out is None for point in points(ONE_ARM, played))


GOLD = """
from pathlib import Path
def gold(prompt, response):
    with (Path(__file__).parent / "asked").open("a") as file:
        file.write("x")
    return -float(len(response))
"""


def test_a_study_is_held_against_a_reward_that_was_not_optimised_and_keeps_what_it_said(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(GOLD)
    command = ["study", "depth", "--queries", "3", "--quiet", "--gold", f"{tmp_path / 'mine.py'}:gold"]
    command += ["-o", str(tmp_path / "kept"), "--csv", str(tmp_path / "t.csv")]
    assert main(command) == 0
    said, asked = capsys.readouterr().out, len((tmp_path / "asked").read_text())
    assert "held-out" in said and "the held-out one" in said
    rows = [row for row in csv.DictReader((tmp_path / "t.csv").open()) if row["arm"] == "tpo"]
    assert all(float(r["held_out_low"]) <= float(r["held_out"]) <= float(r["held_out_high"]) for r in rows)
    assert main(command) == 0
    assert capsys.readouterr().out == said and len((tmp_path / "asked").read_text()) == asked
    assert main(["study", "depth", "--queries", "1", "--gold", "judge"]) == 2
    assert "--gold" in capsys.readouterr().err


def test_sampling_gets_the_tokens_of_the_dearest_arm_or_its_calls_where_none_are_told():
    assert sampling(25.0, 7, prompt_price=0.5)["max_tokens"] == 25
    assert sampling(0, 7, prompt_price=1) == {"mode": "bon", "width": 7}


class _Cells(HTMLParser):
    """Counts cells and collects the addresses a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.loads = 0, []

    def handle_starttag(self, tag, attrs):
        self.cells += tag == "td"
        self.loads += [value for name, value in attrs if name in ("src", "href")]


@pytest.mark.parametrize("what", sorted(STUDIES))
def test_a_study_is_written_and_its_command_again_asks_nothing_and_prints_the_same(what, tmp_path, capsys):
    files = {kind: tmp_path / f"study.{kind}" for kind in ("csv", "png", "html")}
    command = ["study", what, "--queries", "2", "--seed", "5", "-o", str(tmp_path / "kept"), "--quiet"]
    for kind, file in files.items():
        command += [f"--{kind}", str(file)]
    assert main(command) == 0
    said, table = capsys.readouterr().out, files["csv"].read_text()
    with RunReader(tmp_path / "kept" / "arms") as kept:
        assert kept.counts.done == 2 * len(STUDIES[what].arms)
        ended = [each.at for each in kept.finished()]
    assert main(command) == 0
    assert capsys.readouterr().out == said and files["csv"].read_text() == table
    with RunReader(tmp_path / "kept" / "arms") as kept:
        assert [each.at for each in kept.finished()] == ended
    rows = list(csv.DictReader(table.splitlines()))
    assert {row["arm"] for row in rows} >= {arm.name for arm in STUDIES[what].arms}
    assert all(float(row["best_low"]) <= float(row["best"]) <= float(row["best_high"]) for row in rows)
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    page = _Cells()
    page.feed(files["html"].read_text())
    assert page.cells == 11 * len(rows) and all(re.match("data:image/png", load) for load in page.loads)
    assert "optimised" in said and "few" in said


def test_feedback_pays_for_a_policy_that_follows_it(capsys):
    assert main(["study", "modes", "--queries", "6", "--quiet"]) == 0
    tpo = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("tpo ")]
    assert float(tpo[-1][2]) > float(tpo[0][2]) + 1  # the best so far, after the last round and before any


def test_another_study_s_folder_and_wrong_arguments_are_refused(tmp_path, capsys):
    kept = str(tmp_path / "kept")
    assert main(["study", "depth", "--queries", "1", "-o", kept, "--quiet"]) == 0
    assert main(["study", "width", "--queries", "1", "-o", kept, "--quiet"]) == 1
    assert "other prompts" in capsys.readouterr().err
    assert main(["study", "width", "--seeds", "0"]) == 2
    assert main(["study", "plans", "--model", "x"]) == 2


def test_estimates_are_compared_by_value():
    assert Estimate(1.0, 0.0, 2.0) == Estimate(1.0, 0.0, 2.0)
