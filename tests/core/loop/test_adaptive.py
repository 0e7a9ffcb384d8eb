"""The adaptive plan in the loop: budgets, ties, contrasts, failures, and what it learns."""

from __future__ import annotations

import copy
import math
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import Experience, InvalidInputError, TPOConfig, Trajectory, run, run_many
from tpo_core.config.experience import Evidence
from tpo_core.loop.adaptive import EXPLORED_FIRST, EXPLORED_SHARE, UNKNOWN
from tpo_core.loop.ledger import Ledger
from tpo_core.loop.plans import contrasts
from tpo_core.prompts.signatures import SelfCritique
from tpo_core.studies.plans import budget
from tpo_core.studies.playing import play
from tpo_core.studies.worlds import WORLDS, WorldPolicy, WorldReward
from tpo_core.testing import FlakyPolicy, RubricReward, ScriptedPolicy, ScriptedReward, SimulatedPolicy
from tpo_core.values import Completion, Failure, Reward, Usage

QUERIES = [f"query {i}" for i in range(30)]


def adaptive(**given) -> TPOConfig:
    return TPOConfig(**{"plan": "adaptive", "max_calls": 19, "seed": 1, **given})


def played(policy, config: TPOConfig, queries=QUERIES) -> list[Trajectory]:
    return run_many(queries, policy, RubricReward(), config, max_concurrency=1)


def mean(trajectories) -> float:
    return sum(t.best.reward for t in trajectories) / len(trajectories)


def test_it_beats_sampling_where_the_policy_follows_and_is_sampling_where_it_does_not():
    for follows, ahead in ((0.9, True), (0.0, False)):
        plans = played(SimulatedPolicy(follows), adaptive())
        sampled = played(SimulatedPolicy(follows), adaptive(mode="bon"))
        assert (mean(plans) > mean(sampled) + 1) is ahead
        late = sum(len(t.steps) for t in plans[15:])
        assert (late > 1) is ahead  # one may be a trial


def test_what_is_learned_is_shared_saved_and_read_again():
    config = adaptive()
    played(SimulatedPolicy(), config)
    seen = config.experience.evidence
    assert seen.critiques > 10 and seen.sample.usable > 30
    again = Experience.from_json(config.experience.to_json())
    assert again.evidence == seen and pickle.loads(pickle.dumps(again)).evidence == seen  # noqa: S301
    assert copy.deepcopy(config).experience is config.experience
    first = run("another", SimulatedPolicy(), RubricReward(), adaptive(experience=again))
    assert any(step.step == 1 and step.chosen for step in first.steps)


@pytest.mark.parametrize("world", ["deaf", "harmful", "heavy tails"])
def test_an_unknown_policy_is_tried_in_its_first_queries_for_less_than_a_query_s_budget(world):
    law, experience = next(each for each in WORLDS if each.name == world), Experience()
    tokens = budget()
    config = TPOConfig(plan="adaptive", experience=experience, seed=1, max_tokens=tokens, prompt_price=0.2)
    for number in range(6):
        play(f"query {number}", WorldPolicy(law), WorldReward(law), config)
    seen = experience.evidence
    assert 1 <= seen.critiques <= UNKNOWN + 1
    assert seen.explored <= EXPLORED_FIRST * tokens + EXPLORED_SHARE * seen.spent


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "x": "a"}', '{"format":1,"critiques":-1}']
)
def test_what_is_no_experience_is_refused(text):
    with pytest.raises(InvalidInputError):
        Experience.from_json(text)


def test_a_wrong_plan_or_experience_is_refused():
    with pytest.raises(InvalidInputError, match="plan"):
        TPOConfig(plan="best")
    with pytest.raises(InvalidInputError, match="experience"):
        TPOConfig(experience={})


def test_evidence_that_is_not_finite_is_left_out():
    experience = Experience()
    experience.add(Evidence(xx=math.inf))
    assert experience.evidence == Evidence()


def test_the_same_queries_one_after_the_other_give_the_same_trajectories():
    first, second = (played(SimulatedPolicy(), adaptive()) for _ in range(2))
    assert [t.candidates for t in first] == [t.candidates for t in second]


@given(calls=st.integers(1, 30), width=st.integers(1, 7), follows=st.sampled_from([0.0, 0.9]))
@settings(max_examples=20, deadline=None)
def test_it_never_asks_more_than_its_calls_and_starts_with_few(calls, width, follows):
    t = run("query", SimulatedPolicy(follows), RubricReward(), adaptive(max_calls=calls, width=width))
    assert t.usage.calls <= calls
    assert sum(c.step == 0 for c in t.candidates) <= width
    for place, step in enumerate(t.steps):
        updates = [c for c in t.candidates if c.critique == place]
        assert step.chosen is None or all(c.step >= step.step and not c.fresh for c in updates)


def test_instructions_that_did_well_are_followed_again_without_another_critique():
    policy = ScriptedPolicy(
        sample=lambda request, seed: f"s{seed % 7}",
        gradient=["Say more."],
        update=lambda request, seed: f"better {seed % 10}",
    )
    reward = ScriptedReward({f"better {n}": 1.5 + 0.1 * n for n in range(10)} | {f"s{n}": 0.1 * n for n in range(7)})
    experience = Experience()
    played(SimulatedPolicy(), adaptive(experience=experience))
    t = run("query", policy, reward, adaptive(experience=experience, max_calls=30))
    repeats = [c for c in t.candidates if c.critique is not None and c.step > t.steps[c.critique].step]
    assert repeats and not any(c.fresh for c in repeats)
    asked = [r.inputs for r in policy.requests if r.task == "update"]
    place = repeats[0].critique
    assert asked.count(asked[place]) > 1  # word for word
    assert {r.step for r in policy.requests if r.task == "loss"}.isdisjoint(c.step for c in repeats)


def test_it_plans_with_the_tokens_that_are_left():
    policy = ScriptedPolicy(sample=lambda request, seed: Completion(f"{seed}", usage=Usage(0, 1, 50, 100)))
    reward = ScriptedReward({}, default=1.0)
    t = run("query", policy, reward, adaptive(mode="bon", max_calls=None, max_tokens=1000, prompt_price=0))
    assert t.usage.completion_tokens == 1000 and t.stop_reason == "max_tokens"
    t = run("query", policy, reward, adaptive(mode="bon", max_calls=None, max_tokens=1000))
    assert 850 < t.usage.tokens <= 1000


def test_a_tie_is_not_the_end():
    policy = ScriptedPolicy(sample=[f"s{n}" for n in range(3)], update=["a", "perfect"])
    reward = ScriptedReward({"perfect": 1.0}, default=0.5)
    t = run("query", policy, reward, adaptive(stop_at=1.0))
    assert t.best.response == "perfect" and t.stop_reason == "stop_at"
    assert {r.signature for r in policy.requests if r.task == "loss"} == {SelfCritique}


def test_no_two_critiques_of_a_round_have_one_contrast():
    ledger = Ledger("query", None, adaptive(), time.monotonic)
    for n in range(6):
        ledger.add(Completion(f"r{n}"), 0, fresh=True, failure=None)
    pairs = ledger.unscored(ledger.candidates)
    ledger.enter_rewards(pairs, [Reward(n) for n in range(6)])
    found = [(c.chosen.response, c.rejected.response) for c in contrasts(ledger, 4, 2)]
    assert found[0] == ("r5", "r0") and len(set(found)) == 4
    assert all(rejected in ("r0", "r1", "r2") for _, rejected in found)


def test_a_critic_that_fails_is_not_asked_again_and_sampling_goes_on():
    policy = ScriptedPolicy(sample=lambda request, seed: f"s{seed}", loss=[Failure("error", "down")])
    experience = Experience()
    played(SimulatedPolicy(), adaptive(experience=experience))
    t = run("query", policy, ScriptedReward({}, default=1.0), adaptive(experience=experience, max_calls=30))
    rounds = {r.step for r in policy.requests if r.task == "loss"}
    assert len(rounds) == 1 and t.usage.calls > 20


def test_a_policy_that_fails_after_the_first_samples_ends_the_loop():
    policy = ScriptedPolicy(
        sample=lambda request, seed: f"s{seed}" if request.step == 0 else Failure("error", "down"),
        update=[Failure("error", "down")],
    )
    t = run("query", policy, ScriptedReward({}, default=1.0), adaptive(max_calls=None, max_tokens=10**6))
    assert t.stop_reason in ("no_candidates", "depth")


@given(failing=st.floats(0, 0.6), malformed=st.floats(0, 0.6), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_it_ends_whatever_fails(failing, malformed, seed):
    policy = FlakyPolicy(SimulatedPolicy(), failing=failing, malformed=malformed, seed=seed)
    config = adaptive(max_calls=None, max_tokens=800, prompt_price=0)
    [t] = run_many(["query"], policy, RubricReward(), config, return_exceptions=True)
    assert isinstance(t, Exception) or t.stop_reason


def test_the_paper_s_plan_adds_to_an_experience_and_is_not_changed_by_it():
    experience = Experience()
    plain = played(SimulatedPolicy(), TPOConfig(seed=1), QUERIES[:5])
    told = played(SimulatedPolicy(), TPOConfig(seed=1, experience=experience), QUERIES[:5])
    assert [t.candidates for t in told] == [t.candidates for t in plain]
    assert experience.evidence.critiques == 10 and experience.evidence.update.usable == 50
