"""Worlds, and plans against each other in them."""

from __future__ import annotations

import csv
import math
import time
from dataclasses import replace
from statistics import fmean, pstdev

import pytest

from tpo_core import TPOConfig, run
from tpo_core.cli.main import main
from tpo_core.studies.plans import Difference, Requirement, Row, budget, play_run, requirements, rows
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import WORLDS, WorldGold, WorldPolicy, WorldReward, world_mean

FOLLOWS = next(world for world in WORLDS if world.name == "follows")


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
@pytest.mark.parametrize("plan", ["paper", "adaptive"])
def test_playing_without_threads_is_what_run_does(world, plan):
    policy, reward = WorldPolicy(world), WorldReward(world)
    given = {"plan": plan, "max_tokens": budget(), "prompt_price": 0.2}
    played = play("query", policy, reward, TPOConfig(**given))
    ran = run("query", policy, reward, TPOConfig(**given))
    assert replace(played, seconds={}, usage=ran.usage) == replace(ran, seconds={})
    assert played.usage.tokens == ran.usage.tokens


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_samples_and_updates_obey_the_world_s_law(world):
    policy, reward, gold = WorldPolicy(world), WorldReward(world), WorldGold(world)
    fresh, left, above = [], [], 0
    for number in range(300):
        t = play(f"q{number}", policy, reward, TPOConfig(width=4, depth=1, seed=number))
        mean = world_mean(t.query)
        worth = [gold.score(t.query, [c.response])[0] - mean for c in t.candidates]
        fresh += [w for w, c in zip(worth, t.candidates, strict=True) if c.fresh]
        parent = worth[t.steps[0].chosen.index] if t.steps[0].chosen else 0.0
        left += [w - world.beta * parent - world.delta for w, c in zip(worth, t.candidates, strict=True) if not c.fresh]
        above += sum((c.reward or 0.0) > mean + world.ceiling + 1e-9 for c in t.candidates)
    assert above == 0 and fmean(fresh) == pytest.approx(0, abs=0.1)
    if world.ceiling == math.inf:
        assert fmean(left) == pytest.approx(0, abs=0.12)
        assert pstdev(left) == pytest.approx(math.hypot(world.critique_sd, world.child_sd), rel=0.15)
        assert pstdev(fresh) == pytest.approx(1, rel=0.15)


def test_a_run_has_all_arms_and_the_same_seed_gives_the_same_numbers():
    first = play_run(FOLLOWS, 6, 0, 1)
    assert first == play_run(FOLLOWS, 6, 0, 1) and [p.arm for p in first] == ["bon", "paper", "adaptive"]
    assert all(p.tokens < 1.02 * budget() + 60 for p in first)
    [row] = rows([*first, *play_run(FOLLOWS, 6, 0, 2)])
    assert row.queries == 12 and row.over_bon.mean == pytest.approx(row.adaptive - row.bon)
    assert row.over_bon.low < row.over_bon.mean < row.over_bon.high


def test_the_command_prints_and_writes_the_table(tmp_path, capsys):
    file = tmp_path / "plans.csv"
    started = time.monotonic()
    assert main(["study", "plans", "--runs", "2", "--queries", "2", "--world", "follows", "--csv", str(file)]) == 0
    assert time.monotonic() - started < 120
    [row] = csv.DictReader(file.open())
    assert row["world"] == "follows" and float(row["over_bon_low"]) <= float(row["over_bon_high"])
    assert row["queries"] == "4"
    assert "over best-of-N by at least +0.3: " in capsys.readouterr().out
    noisy = ["study", "plans", "--runs", "2", "--queries", "2", "--world", "noisy reward", "--csv", str(file)]
    assert main(noisy) == 0
    assert [row["queries"] for row in csv.DictReader(file.open())] == ["12"]  # rewards vary most: three times the runs
    assert main(["study", "plans", "--world", "nowhere"]) == 2
    assert main(["study", "plans", "--runs", "1"]) == 2


@pytest.mark.parametrize(
    ("mean", "low", "verdict"), [(0.1, -0.02, "met"), (-0.01, -0.05, "mean only"), (-0.03, -0.2, "not met")]
)
def test_a_verdict_is_read_from_the_interval_s_lower_end(mean, low, verdict):
    assert Requirement("over best-of-N", Difference(mean, low, 0.2), -0.02).verdict == verdict


def test_more_is_required_where_the_policy_follows():
    ahead = Difference(1.0, 0.9, 1.1)
    row = Row("deaf", 10, 0.0, 0.0, 0.0, ahead, ahead, ahead, ahead, 1.0)
    assert [each.least for each in requirements(row)] == [-0.02, -0.02, 0.0]
    assert [each.least for each in requirements(replace(row, world="follows"))] == [0.3, 0.3, 0.0]
