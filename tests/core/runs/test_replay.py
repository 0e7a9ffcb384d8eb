"""A query that was stopped goes on where it stood, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
from collections import Counter
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import (
    GenerationError,
    InvalidInputError,
    RewardError,
    StoreError,
    TPOConfig,
    TPOError,
    arun,
    run,
    run_many,
)
from tpo_core.loop.effects import Generate
from tpo_core.prompts.signatures import TextualGradient, TextualLoss
from tpo_core.rewards import RewardModel
from tpo_core.runs import Item, ReplayPolicy, ReplayReward, RunStore, UnderWay, to_do
from tpo_core.runs.codec import (
    completion_from_bytes,
    completion_to_bytes,
    pair_hash,
    request_hash,
    reward_from_bytes,
    reward_to_bytes,
)
from tpo_core.testing import ScriptedPolicy, ScriptedReward
from tpo_core.values import Candidate, Completion, Failure, Pair, Reward, Usage

# -- bytes ------------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=()), max_size=20) | st.just("\ud83d\ude00")
numbers = st.floats() | st.integers(-(2**60), 2**60)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
usages = st.builds(Usage, *[st.integers(0, 2**40)] * 5)
completions = st.builds(
    Completion,
    texts,
    json_values,
    st.none() | texts,
    usages,
    st.none() | st.builds(Failure, texts, texts),
    logprobs=st.lists(st.dictionaries(texts, st.floats(), max_size=2), max_size=2).map(tuple),
    context=st.none() | texts,
)
rewards = st.builds(
    Reward,
    st.floats(),
    feedback=st.none() | texts,
    heads=st.dictionaries(texts, st.floats(), max_size=2),
    failure=st.none() | texts,
    truncated=st.booleans(),
    usage=usages,
)


def same(a, b):
    """Return whether two are alike to the last bit: NaN is NaN, and -0.0 is not 0.0."""
    return repr(a) == repr(b)


@given(completions)
def test_a_completion_is_read_as_it_was_written(completion):
    read = completion_from_bytes(completion_to_bytes(completion))
    for field in fields(Completion):
        assert same(getattr(read, field.name), getattr(completion, field.name))


@given(rewards)
def test_a_reward_is_read_as_it_was_written(reward):
    read = reward_from_bytes(reward_to_bytes(reward))
    assert same(float(read), float(reward)) and same(vars(read), vars(reward))


@pytest.mark.parametrize("value", [object(), (1, 2), {1: "a"}, [{"a": b"bytes"}], type("Text", (str,), {})("x")])
def test_a_hosts_own_object_is_refused_before_it_is_changed(value):
    with pytest.raises(InvalidInputError, match="keeps text and JSON only"):
        completion_to_bytes(Completion("text", value))


REQUEST = Generate("update", TextualLoss, {"query": "q"}, 5, 1, (3, 4), 0.7, 0.9, 100, Candidate("a", reward=1.0))


@pytest.mark.parametrize(
    "change",
    [
        {"task": "loss"},
        {"signature": TextualGradient},
        {"signature": None},
        {"inputs": {"query": "other"}},
        {"inputs": "q"},
        {"step": 2},
        {"temperature": 0.8},
        {"top_p": None},
        {"max_tokens": 101},
        {"parent": Candidate("b", reward=1.0)},
        {"parent": None},
        {"send_seed": True},
    ],
)
def test_a_request_that_asks_anything_else_has_another_hash(change):
    assert request_hash(replace(REQUEST, **change)) != request_hash(REQUEST)


def test_a_request_asks_the_same_under_another_clock_for_other_samples():
    assert request_hash(replace(REQUEST, n=1, seeds=(9,), deadline=3.0)) == request_hash(REQUEST)


@pytest.mark.parametrize("name", ["prompt", "response", "value", "inputs"])
def test_a_pair_with_anything_else_in_it_has_another_hash(name):
    pair = Pair("prompt", "response", "value", {"answer": "inputs"})
    assert pair_hash(replace(pair, **{name: "other"})) != pair_hash(pair) == pair_hash(replace(pair))


def test_inputs_that_have_no_json_are_refused_by_name():
    with pytest.raises(InvalidInputError, match="object is not JSON"):
        request_hash(replace(REQUEST, inputs={"image": object()}))


# -- runs that are stopped ---------------------------------------------------------------------------------------------


class Killed(TPOError):
    """Stands for the end of the process: fatal to the run, whoever raises it."""


class World:
    """A policy and a reward model that never say the same thing twice, may fail, and know what they were paid for."""

    def __init__(self, seed, n, trouble):
        self.draw, self.n, self.trouble = random.Random(seed), n, trouble
        self.paid, self.scored, self.replies = Counter(), Counter(), []
        self.until = math.inf

    def step(self):
        """Pass a moment: the last one kills."""
        self.until -= 1
        if self.until < 0:
            raise Killed("the end")
        if self.draw.random() < self.trouble:
            raise ConnectionError(f"trouble {self.draw.random()}")

    def policy(self):
        world = self

        class Policy(ScriptedPolicy):
            fatal = (Killed,)

            def generate(self, request, seeds):
                world.step()
                answered = seeds if world.n != "ignored" else seeds[:1]
                replies = {(request.task, request.step, seed): world.reply() for seed in answered}
                world.paid.update(asked for asked, reply in replies.items() if reply.failure is None)
                return list(replies.values())

        policy = Policy()
        policy.takes_n = {"refused": dict.fromkeys(policy.takes_n, False)}.get(self.n, {})
        return policy

    def reply(self):
        text = f"reply {self.draw.getrandbits(60)}"
        self.replies.append(text)
        if self.draw.random() < self.trouble / 2:
            return Completion(failure=Failure("error", "told, not raised"))
        return Completion(text, finish_reason=self.draw.choice(["stop", "stop", "length"]), usage=Usage(0, 0, 5, 2))

    def reward(self):
        world = self

        class Reward(RewardModel):
            def score_batch(self, pairs):
                world.step() if world.trouble == 0 else None
                world.scored.update(pair.response for pair in pairs)
                return [world.draw.random() for _ in pairs]

        return Reward()


def goes_on(folder, world, config, use=run):
    """Run the query as far as the world lasts; returns the trajectory, or None when it was killed."""
    with RunStore.open(folder, settings={"width": config.width}) as store:
        under_way = UnderWay(store)
        for query in to_do(store, [Item("a", "How do bees sleep?")]):
            answers = under_way.begin(query)
            policy = ReplayPolicy(world.policy(), answers)
            try:
                trajectory = use(query.item.prompt, policy, ReplayReward(world.reward(), under_way), config)
            except Killed:
                return None
            except (GenerationError, RewardError) as error:
                answers.fail(error).wait()
                return error
            answers.finish(trajectory).wait()
        return next(store.finished()).trajectory


def awaited(*args):
    return asyncio.run(arun(*args))


def one_by_one(*args):
    return run(*args, max_concurrency=1)  # no thread is left that is paid after the end


modes = st.sampled_from(["tpo", "revision"])
budgets = st.none() | st.integers(3, 30)
configs = st.builds(TPOConfig, width=st.integers(2, 4), depth=st.integers(1, 3), mode=modes, max_calls=budgets)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["honoured", "ignored", "refused"]),
    st.sampled_from([0.0, 0.3, 0.5]),
    configs,
    st.lists(st.integers(0, 12) | st.integers(5, 25), min_size=1, max_size=6),
    st.sampled_from([one_by_one, awaited]),
)
def test_a_query_that_is_stopped_any_number_of_times_pays_for_nothing_twice(seed, n, trouble, config, stops, use):
    world = World(seed, n, trouble)
    with tempfile.TemporaryDirectory() as folder:
        for world.until in [*stops, math.inf]:
            if (result := goes_on(folder, world, config, use)) is not None:
                break
        assert max(world.paid.values(), default=0) <= 1, "an answer was paid for twice"
        assert max(world.scored.values(), default=0) <= 1, "a response was scored twice"
        trajectory = getattr(result, "trajectory", result)
        said = {c.response for c in trajectory.candidates if c.response}
        assert said <= set(world.replies)
        if not trouble:
            assert trajectory.usage.completion_tokens == 2 * world.paid.total()
            assert n == "ignored" or trajectory.usage.calls == world.paid.total()


@pytest.mark.parametrize("n", ["honoured", "ignored", "refused"])
@pytest.mark.parametrize("trouble", [0.0, 0.3])
def test_a_query_that_is_replayed_whole_is_the_same_and_asks_nothing(tmp_path, n, trouble):
    world, config = World(11, n, trouble), TPOConfig(width=4, depth=3)
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        [query] = to_do(store, [Item("a", "How do bees sleep?")])
        policy, reward = ReplayPolicy(world.policy(), under_way.begin(query)), ReplayReward(world.reward(), under_way)
        first = run("How do bees sleep?", policy, reward, config)
    with RunStore.open(tmp_path) as store:
        world.until = 0 if trouble == 0 else math.inf  # trouble at the very end was not gone past, and is asked again
        paid = world.paid.copy()
        under_way = UnderWay(store)
        [query] = to_do(store, [Item("a", "How do bees sleep?")])
        policy, reward = ReplayPolicy(world.policy(), under_way.begin(query)), ReplayReward(world.reward(), under_way)
        second = run("How do bees sleep?", policy, reward, config)
    if trouble == 0:
        if n == "ignored":  # found out again in the last request: samples asked for, and not made
            assert second.usage == replace(first.usage, calls=second.usage.calls)
            second = replace(second, usage=first.usage)
        assert replace(first, seconds={}) == replace(second, seconds={})
        assert world.paid == paid
    else:
        assert max(world.paid.values()) == 1 and second.steps[0] == first.steps[0]


def test_failures_that_the_loop_went_on_past_are_replayed_word_by_word(tmp_path):
    def first(request, seed):
        return ConnectionError("busy") if seed == 1 else f"sample {seed}"

    config, reward = TPOConfig(width=3, depth=1), ScriptedReward({"sample 0": 0, "sample 2": 1, "an update": 2})
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        inner = ScriptedPolicy(first, update=[Killed("now")])
        inner.fatal = (Killed,)
        policy = ReplayPolicy(inner, under_way.begin(store.admit(Item("a", "q"))))
        with pytest.raises(Killed):
            run("q", policy, ReplayReward(reward, under_way), config)
    inner = ScriptedPolicy(lambda request, seed: "never asked")
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        policy = ReplayPolicy(inner, under_way.begin(store.admit(Item("a", "q"))))
        trajectory = run("q", policy, ReplayReward(reward, under_way), config)
    assert trajectory.candidates[1].failure == Failure("error", "ConnectionError: busy")
    assert {request.task for request in inner.requests} == {"update"} and trajectory.best.response == "an update"


def test_a_failure_that_nothing_came_after_is_asked_again(tmp_path):
    def busy(request, seed):
        return ConnectionError("busy")

    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        policy = ReplayPolicy(ScriptedPolicy(busy), under_way.begin(store.admit(Item("a", "q"))))
        with pytest.raises(GenerationError):
            run("q", policy, ScriptedReward({}), TPOConfig(width=2, depth=0))
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        policy = ReplayPolicy(ScriptedPolicy(), under_way.begin(store.admit(Item("a", "q"))))
        assert run("q", policy, ScriptedReward({}, 1.0), TPOConfig(width=2, depth=0)).best.response == "a sample"


def test_an_answer_is_never_given_to_another_request(tmp_path):
    for temperature in (0.1, 0.2):
        inner = ScriptedPolicy()
        with RunStore.open(tmp_path) as store:
            policy = ReplayPolicy(inner, UnderWay(store).begin(store.admit(Item("a", "q"))))
            run("q", policy, ScriptedReward({}, 1.0), TPOConfig(width=2, depth=0, temperature=temperature))
        assert len(inner.requests) == 2


@pytest.mark.parametrize("use", [run, awaited])
def test_two_queries_with_one_prompt_keep_their_own(tmp_path, use):
    scored = Counter()

    class Counting(RewardModel):
        def score_batch(self, pairs):
            scored.update(pair.response for pair in pairs)
            return [len(pair.response) for pair in pairs]

    items = [Item("a", "same"), Item("b", "same")]
    for again in range(2):
        with RunStore.open(tmp_path) as store:
            under_way = UnderWay(store)
            begun = [under_way.begin(query) for query in to_do(store, items)]
            for answers in begun:
                id = answers.query.item.id
                policy = ReplayPolicy(ScriptedPolicy(lambda request, seed, id=id: f"{id} says {seed}"), answers)
                reward = ReplayReward(Counting(), under_way)
                trajectory = use("same", policy, reward, TPOConfig(width=2, depth=0))
                assert [c.response for c in trajectory.candidates] == [f"{id} says 0", f"{id} says 1"]
                if again:
                    answers.finish(trajectory).wait()
            assert [done.item.id for done in store.finished()] == (["a", "b"] if again else [])
    assert set(scored.values()) == {1} and len(scored) == 4


def test_what_cannot_be_scored_is_asked_again_unless_the_loop_went_on(tmp_path):
    asked = []

    class Odd(RewardModel):
        def score_batch(self, pairs):
            asked.extend(pair.response for pair in pairs)
            return [math.nan if pair.response == "odd" else 1.0 for pair in pairs]

    for _ in range(2):
        with RunStore.open(tmp_path) as store:
            under_way = UnderWay(store)
            under_way.begin(store.admit(Item("a", "q")))
            ReplayReward(Odd(), under_way).score("q", ["odd", "even"])
    assert asked == ["odd", "even", "odd"]


def test_rewards_of_many_loops_are_still_merged(tmp_path):
    reward = ScriptedReward({}, 1.0, merges=True)
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        for query in to_do(store, [Item(str(i), f"q{i}") for i in range(20)]):
            under_way.begin(query)
        run_many([f"q{i}" for i in range(20)], ScriptedPolicy(), ReplayReward(reward, under_way), TPOConfig(depth=0))
    assert len(reward.batches) < 20


def test_a_second_reward_model_is_kept_apart(tmp_path):
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        under_way.begin(store.admit(Item("a", "q")))
        assert ReplayReward(ScriptedReward({}, 1.0), under_way).score("q", ["x"]) == [1.0]
        assert ReplayReward(ScriptedReward({}, 2.0), under_way, task="gold").score("q", ["x"]) == [2.0]
    with RunStore.open(tmp_path) as store:
        under_way = UnderWay(store)
        under_way.begin(store.admit(Item("a", "q")))
        assert ReplayReward(ScriptedReward({}), under_way, task="gold").score("q", ["x"]) == [2.0]


@pytest.mark.parametrize("use", [run, awaited])
def test_a_store_that_takes_no_more_ends_the_run(tmp_path, use):
    store = RunStore.open(tmp_path)
    under_way = UnderWay(store)
    policy = ReplayPolicy(ScriptedPolicy(), under_way.begin(store.admit(Item("a", "q"))))
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        use("q", policy, ReplayReward(ScriptedReward({}, 1.0), under_way), TPOConfig(width=2))


def test_a_wrapped_policy_is_itself_in_all_else(tmp_path):
    inner = ScriptedPolicy()
    with RunStore.open(tmp_path) as store:
        policy = ReplayPolicy(inner, UnderWay(store).begin(store.admit(Item("a", "q"))))
        assert policy.requests is inner.requests and policy.takes_n is inner.takes_n
        with pytest.raises(AttributeError):
            _ = policy.nothing
