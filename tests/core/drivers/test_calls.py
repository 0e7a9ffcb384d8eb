"""Which calls answer a request for n samples, whatever the provider does; and that none goes uncounted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import GenerationError, ModelError, TPOConfig, arun, arun_many, run, run_many
from tpo_core.drivers.calls import Calls, Late
from tpo_core.drivers.outcomes import Done, Raised
from tpo_core.loop.effects import Generate
from tpo_core.models.refusals import lasts, may_pass, may_refuse_n, refuses_n, status_of
from tpo_core.rewards import RewardModel
from tpo_core.testing import FlakyPolicy, RubricReward, SimulatedPolicy
from tpo_core.values import Completion, Usage


class Length(RewardModel):
    def score_batch(self, pairs):
        return [len(p.response) for p in pairs]


class Status(Exception):
    def __init__(self, status_code: int, message: str = "") -> None:
        super().__init__(message)
        self.status_code = status_code


REFUSED, BUSY, INVALID = Status(400, "n must be 1"), Status(429, "slow down"), Status(400, "invalid request")


class Forgetful(dict):
    """What is found out about a model, forgotten at once: each query is the first one."""

    def __setitem__(self, key, value):
        pass


def asked(*outcomes, n=5, spare=None, takes_n=None, calls=None):
    """Answer a request from a list of outcomes, one per call: how many completions, or what it raises."""
    request = Generate("sample", None, "q", n, 0, tuple(range(n)), spare=spare)
    known = {} if takes_n is None else {"sample": takes_n}
    calls, script, sizes = Calls(request, known), list(outcomes), []
    while due := calls.due():
        sizes += [len(seeds) for seeds in due]
        came = [script.pop(0) if script else 1 for _ in due]
        calls.take(due, [Raised(c) if isinstance(c, Exception) else Done([Completion("x")] * c) for c in came])
    done = calls.completions()
    assert len(done) == n and sum((c.usage for c in done), Usage()) == Usage(sum(sizes), len(sizes))
    assert spare is None or sum(sizes) <= n + spare
    return sizes, [c.failure.reason if c.failure else None for c in done], known.get("sample")


WELL = [None] * 5


@pytest.mark.parametrize(
    ("outcomes", "sizes", "learnt"),
    [
        ([5], [5], True),
        ([1], [5, 1, 1, 1, 1], False),
        ([3], [5, 1, 1], None),  # a short answer says nothing about n
        ([0], [5, 1, 1, 1, 1, 1], None),
        ([REFUSED], [5, 1, 1, 1, 1, 1], False),
        ([INVALID], [5, 1, 1, 1, 1, 1], False),  # the same request passes for one: it was about n
        ([BUSY], [5, 1, 1, 1, 1, 1], None),
        ([BUSY, BUSY], [5, 1, 1, 1, 1, 1, 1], None),
        ([BUSY, BUSY, BUSY], [5, 1, 1, 1, 1, 1, 1, 1], None),
        ([TimeoutError(), 1, 1, BUSY], [5, 1, 1, 1, 1, 1, 1], None),  # made once more
        ([REFUSED, BUSY, 1, 1, 1, BUSY], [5, 1, 1, 1, 1, 1, 1, 1], False),
    ],
)
def test_a_request_is_answered_in_full_whatever_its_first_calls_come_to(outcomes, sizes, learnt):
    assert asked(*outcomes) == (sizes, WELL, learnt)


@pytest.mark.parametrize("takes_n", [True, None])
def test_what_passes_is_not_learnt_from(takes_n):
    assert asked(BUSY, takes_n=takes_n)[2] is takes_n
    assert asked(3, takes_n=takes_n)[2] is takes_n
    assert asked(REFUSED, takes_n=takes_n)[2] is False


@pytest.mark.parametrize("error", [BUSY, ConnectionError("down"), ValueError("odd")])
def test_where_a_call_for_n_and_three_single_ones_fail_the_rest_shares_their_failure(error):
    assert asked(*[error] * 20, n=8) == ([8, 1, 1, 1], ["error"] * 8, None)


@pytest.mark.parametrize("error", [Status(401), Status(404)])
def test_a_provider_that_serves_nobody_is_asked_only_once(error):
    assert asked(*[error] * 20, n=8) == ([8], ["error"] * 8, None)


def test_what_the_provider_will_never_serve_is_asked_only_twice():
    assert asked(*[INVALID] * 20, n=8) == ([8, 1], ["error"] * 8, None)


def test_without_n_every_call_fails_for_itself_and_only_what_may_pass_is_made_again():
    boom = ValueError("boom")
    assert asked(*[BUSY] * 20, takes_n=False) == ([1] * 5, ["error"] * 5, False)
    assert asked(1, boom, 1, 1, 1, takes_n=False) == ([1] * 5, [None, "error", None, None, None], False)
    assert asked(1, BUSY, BUSY, 1, 1, 1, BUSY, takes_n=False) == ([1] * 7, [None, None, "error", None, None], False)
    assert asked(1, 0, 1, 1, 1, takes_n=False) == ([1] * 5, [None, "missing", None, None, None], False)


def test_nothing_is_asked_after_the_deadline():
    assert asked(Late()) == ([5], ["deadline"] * 5, None)
    assert asked(1, BUSY, Late(), 1, 1, takes_n=False)[:2] == ([1] * 5, [None, "error", "deadline", None, None])
    assert asked(2, Late(), Late(), Late())[1] == [None, None, "deadline", "deadline", "deadline"]


@pytest.mark.parametrize(
    ("outcomes", "spare", "takes_n", "sizes"),
    [
        ([], 0, None, [1] * 5),  # a refusal could not be made up for
        ([], 4, None, [1] * 5),
        ([REFUSED], 5, None, [5, 1, 1, 1, 1, 1]),
        ([3], 0, True, [5]),
        ([BUSY], 2, True, [5, 1, 1]),
        ([1, BUSY, 1, 1, 1], 0, False, [1] * 5),
        ([1, BUSY, BUSY, 1, 1], 1, False, [1] * 6),
    ],
)
def test_no_more_is_asked_than_the_request_may_spend(outcomes, spare, takes_n, sizes):
    assert asked(*outcomes, spare=spare, takes_n=takes_n)[0] == sizes


def test_one_busy_moment_or_one_short_answer_does_not_turn_n_off():
    for first, topped_up in ((BUSY, 5), (3, 2)):
        policy = Chaos([first, *[9] * 20], {})
        for _ in range(2):
            assert len(run("q", policy, Length(), TPOConfig(mode="bon", width=5)).candidates) == 5
        assert policy.sizes == [5, *[1] * topped_up, 5] and policy.takes_n == {"sample": True}


@pytest.mark.parametrize("takes_n", [{}, Forgetful()], ids=["remembering", "forgetting"])
def test_with_a_third_of_the_calls_failing_a_fifth_malformed_and_n_refused_every_query_is_answered(takes_n):
    policy = FlakyPolicy(SimulatedPolicy(), failing=0.3, malformed=0.2, refuses_n=True)
    policy.takes_n = takes_n
    config = TPOConfig(width=5, depth=1)
    trajectories = run_many([f"query {i}" for i in range(1000)], policy, RubricReward(), config)
    assert all(t.best.reward is not None for t in trajectories)
    assert sum(t.usage.calls for t in trajectories) == policy.asked


async def test_a_flaky_policy_fails_alike_in_every_driver():
    def one():
        return FlakyPolicy(SimulatedPolicy(), failing=0.3, malformed=0.3, refuses_n=True, seed=3)

    queries, config = [f"query {i}" for i in range(20)], TPOConfig(width=3, depth=2)
    rows = await arun_many(queries, one(), RubricReward(), config, return_exceptions=True, max_concurrency=1)
    again = [run(query, policy, RubricReward(), config) for policy in [one()] for query in queries]
    assert [r.candidates for r in rows] == [r.candidates for r in again]


class Chaos:
    """A policy whose calls end as a list of outcomes says, in the order in which they come; keeps their sizes."""

    fatal = ()

    def __init__(self, outcomes, takes_n):
        self.outcomes, self.takes_n = outcomes, dict(takes_n)
        self.sizes: list[int] = []
        self.lock = threading.Lock()

    def generate(self, request, seeds):
        with self.lock:
            outcome = self.outcomes[len(self.sizes) % len(self.outcomes)]
            self.sizes.append(len(seeds))
        if isinstance(outcome, Exception):
            raise outcome
        return [Completion(f"{request.task} {seed}") for seed in seeds[:outcome]]

    async def agenerate(self, request, seeds):
        return self.generate(request, seeds)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 2, 9, REFUSED, BUSY, INVALID, ValueError("odd")]), min_size=1, max_size=12),
    st.dictionaries(st.sampled_from(["sample", "update"]), st.booleans()),
    st.integers(1, 30),
    st.integers(1, 6),
    st.integers(0, 1),
    st.booleans(),
)
async def test_no_more_samples_are_asked_than_max_calls_and_every_one_is_counted(
    outcomes, takes_n, max_calls, width, fresh, sync
):
    policy = Chaos(outcomes, takes_n)
    config = TPOConfig(width=width, depth=2, fresh=min(fresh, width - 1), max_calls=max_calls)
    try:
        given = ("q", policy, Length(), config)
        trajectory = run(*given) if sync else await arun(*given)
    except GenerationError as error:
        trajectory = error.trajectory
    assert sum(policy.sizes) <= max_calls
    assert (trajectory.usage.calls, trajectory.usage.requests) == (sum(policy.sizes), len(policy.sizes))


def test_three_samples_are_what_a_budget_of_three_buys_where_n_is_refused():
    policy = FlakyPolicy(SimulatedPolicy(), refuses_n=True)
    trajectory = run("q", policy, RubricReward(), TPOConfig(width=3, depth=2, max_calls=3))
    assert policy.asked == trajectory.usage.calls == 3 == len(trajectory.candidates)
    assert not trajectory.failures and trajectory.stop_reason == "max_calls"


# -- what exceptions say ----------------------------------------------------------------------------------------------


def unsupported(params: str) -> Exception:
    import litellm

    message = (
        f"ollama does not support parameters: {params}, for model=x. To drop these, set `litellm.drop_params=True`"
    )
    return litellm.UnsupportedParamsError(message=message, llm_provider="ollama", model="x")


@pytest.mark.parametrize(
    "error",
    [
        Status(400, "n must be 1"),
        Status(422, "Input should be less than or equal to 1: n = 5"),
        Status(400, "Error code: 400 - {'error': {'message': \"Field 'n': Value must be between 1 <= value <= 4\"}}"),
        Status(400, "'n' : number must be at most 1"),
        TypeError("Messages.create() got an unexpected keyword argument 'n'"),
        ValueError("n is not supported"),
        NotImplementedError("this model does not support n > 1"),
        unsupported("['n']"),
    ],
    ids=str,
)
def test_a_refusal_of_n_is_known_by_what_it_says(error):
    assert refuses_n(error) and not may_pass(error)
    wrapped = ModelError("m cannot be used")
    wrapped.__cause__ = error
    assert refuses_n(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        Status(429, "n must be 1"), Status(500, "n must be 1"), Status(400, "max_tokens must be 1"),
        Status(400, r"a\nmust not\n"), ValueError("in = 3"), ConnectionError("GET http://host/?n=5"),
        unsupported("['top_k']"), Late(),
    ],
    ids=str,
)  # fmt: skip
def test_other_errors_are_no_refusal_of_n(error):
    assert not refuses_n(error)


def test_a_status_is_found_wherever_a_client_keeps_it():
    class Response:
        status_code = 503

    class Held(Exception):
        response = Response()

    class Code(Exception):
        code = 429

    class Word(Exception):
        code = "rate_limit"

    assert [status_of(e) for e in (Status(400), Held(), Code(), Word(), ValueError())] == [400, 503, 429, None, None]


def test_exceptions_raised_from_each_other_are_read_once():
    first, second = ValueError("odd"), ValueError("other")
    first.__cause__, second.__cause__ = second, first
    assert status_of(first) is None and not refuses_n(first) and not may_pass(first)


def test_what_may_pass_and_what_lasts_exclude_each_other():
    passing = [Status(s) for s in (408, 409, 425, 429, 500, 502, 503, 529)] + [ConnectionError(), TimeoutError()]
    lasting = [Status(s) for s in (400, 401, 403, 404, 413, 422)]
    assert all(may_pass(e) and not lasts(e) for e in passing) and all(lasts(e) and not may_pass(e) for e in lasting)
    assert not any(may_pass(e) or lasts(e) for e in (ValueError(), KeyError("a"), ModelError("none")))
    assert [may_refuse_n(e) for e in (INVALID, BUSY, ValueError())] == [True, False, False]
