"""The record of a run: JSON, pictures, arithmetic."""

from __future__ import annotations

import json
import pickle
from typing import get_args

import pytest

from tpo_core import Candidate, Failure, InvalidInputError, Step, TPOConfig, Trajectory, Usage
from tpo_core.prompts.reading import refuse
from tpo_core.values import FailureReason, Reward

TRAJECTORY = Trajectory(
    query=[{"role": "user", "content": "hi"}],
    candidates=(
        Candidate("a", reward=-1.5, index=0, heads={"help": 1.0}),
        Candidate("b", reward=0.5, index=1, feedback="nice"),
        Candidate("", failure=Failure("empty", "the response is empty"), index=2),
        Candidate("c", reward=2.0, step=1, fresh=False, index=3),
    ),
    steps=(Step(1, Candidate("b", reward=0.5, index=1), Candidate("a", reward=-1.5), "loss", "gradient"),),
    usage=Usage(6, 6, 10, 20, 5),
    stop_reason="depth",
    seconds={"total": 1.5},
    seed=7,
    gold={3: 0.25},
)


def test_a_trajectory_survives_json():
    assert Trajectory.from_json(TRAJECTORY.to_json(indent=2)) == TRAJECTORY


def test_json_holds_every_field_a_reader_needs():
    data = json.loads(TRAJECTORY.to_json())
    assert data["candidates"][2]["failure"] == {"reason": "empty", "message": "the response is empty"}
    assert data["usage"]["cached_tokens"] == 5 and data["stop_reason"] == "depth" and data["gold"] == {"3": 0.25}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'])
def test_what_is_no_trajectory_is_refused(text):
    with pytest.raises(InvalidInputError, match=r"text|data"):
        Trajectory.from_json(text)


def test_a_reason_that_a_later_version_wrote_is_kept():
    data = TRAJECTORY.to_dict()
    data["candidates"][2]["failure"]["reason"], data["stop_reason"] = "too_warm", "sunset"
    read = Trajectory.from_dict(data)
    assert read.candidates[2].failure.reason == "too_warm" and read.stop_reason == "sunset"
    assert read.diagnosis is None


@pytest.mark.parametrize(
    ("text", "finish_reason"), [("a", "content_filter"), ("a", "length"), ("", None), ("...", None)]
)
def test_what_cannot_be_a_candidate_has_a_listed_reason(text, finish_reason):
    assert refuse(text, finish_reason).reason in get_args(FailureReason)


def test_best_initial_best_gain_and_curve():
    assert TRAJECTORY.best.response == "c" and TRAJECTORY.initial_best.response == "b"
    assert TRAJECTORY.gain == 1.5 and TRAJECTORY.best_by_step == (0.5, 2.0)
    assert TRAJECTORY.rewards(0) == (-1.5, 0.5) and [c.index for c in TRAJECTORY.failures] == [2]


def test_a_trajectory_with_nothing_scored_has_no_best():
    empty = Trajectory("q", (Candidate("", failure=Failure("empty")),))
    assert empty.best_or_none is None and empty.gain == 0
    with pytest.raises(InvalidInputError, match="no scored candidate"):
        _ = empty.best


def test_the_picture_shows_samples_updates_and_the_best_so_far():
    axes = TRAJECTORY.plot()
    assert axes.get_legend_handles_labels()[1] == ["samples", "updates", "best so far"]
    assert axes.get_xlabel() == "round" and axes.get_ylabel() == "reward"


def test_usage_adds_up():
    assert Usage(1, 1, 2, 3, 1) + Usage(calls=2, prompt_tokens=5) == Usage(3, 1, 7, 3, 1)
    assert Usage(prompt_tokens=2, completion_tokens=3).tokens == 5


def test_a_reward_keeps_what_it_carries_through_pickle():
    reward = pickle.loads(pickle.dumps(Reward(1.5, feedback="x", heads={"a": 1.0}, truncated=True)))  # noqa: S301
    assert (reward, reward.feedback, reward.heads, reward.truncated) == (1.5, "x", {"a": 1.0}, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "best"), ("width", 0), ("width", 2.0), ("width", True), ("depth", -1), ("fresh", 5), ("fresh", -1),
        ("samples_at_once", 0),
        ("temperature", -0.1), ("temperature", "hot"), ("top_p", 0), ("top_p", 1.5), ("max_response_tokens", 0),
        ("min_spread", -1), ("min_spread", None), ("min_spread", "a"), ("min_spread", float("nan")),
        ("min_spread", True), ("min_spread", [1]), ("mode", []), ("temperature", True), ("top_p", "a"),
        ("deadline", "a"), ("stop_at", 10**400),
        ("max_calls", 0), ("max_tokens", 0), ("deadline", 0),
        ("deadline", float("nan")), ("stop_at", float("inf")), ("patience", 0), ("max_shown_chars", 3), ("seed", -1),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(InvalidInputError, match=f"^{name} must"):
        TPOConfig(**{name: value})


def test_the_defaults_send_a_temperature_and_leave_the_rest_of_sampling_to_the_host():
    config = TPOConfig()
    assert (config.mode, config.width, config.depth) == ("tpo", 5, 2)
    assert (config.temperature, config.top_p, config.max_response_tokens, config.seed) == (0.7, None, None, None)
    assert config.samples == 19 and TPOConfig(mode="bon", width=15).samples == 15


def test_the_paper_s_settings_are_those_of_its_experiments_and_can_be_changed_one_by_one():
    """Sections 4.2 and 5: D2-N5, N + D(2 + N) calls, N(D + 1) answers; temperature 0.7, top_p 0.95, 2,048 tokens."""
    paper = TPOConfig.paper()
    assert (paper.mode, paper.width, paper.depth, paper.fresh) == ("tpo", 5, 2, 0)
    assert (paper.temperature, paper.top_p, paper.max_response_tokens) == (0.7, 0.95, 2048)
    assert paper.samples == 5 + 2 * (2 + 5) and paper.width * (paper.depth + 1) == 15
    unlimited = (paper.min_spread, paper.max_calls, paper.max_tokens, paper.deadline, paper.stop_at, paper.patience)
    assert unlimited == (0.0, None, None, None, None, None) and paper.max_shown_chars is None
    ultra = TPOConfig.paper(width=20, depth=5)
    assert (ultra.samples, ultra.width * (ultra.depth + 1)) == (20 + 5 * 22, 120) and ultra.top_p == 0.95
    assert TPOConfig.paper(mode="bon", width=30, top_p=None) == TPOConfig(
        mode="bon", width=30, max_response_tokens=2048
    )
    with pytest.raises(InvalidInputError, match="width"):
        TPOConfig.paper(width=0)


def test_a_trajectory_is_short_where_it_is_printed_and_whole_in_json():
    shown = repr(TRAJECTORY)
    assert shown == (
        "Trajectory(best=Candidate(response=<1 characters>, reward=2.0, step=1, fresh=False, index=3), "
        "candidates=4, steps=1, stop_reason='depth')"
    )
    assert repr(Trajectory("q")) == "Trajectory(best=None, candidates=0, steps=0, stop_reason='depth')"
    assert TRAJECTORY.summary().startswith("4 candidates: reward 0.5 to 2 (gain +1.5)")
    assert "<iframe" in TRAJECTORY._repr_html_()
    lost = [Candidate("", failure=Failure("empty"), fresh=False, index=i) for i in range(1, 5)]
    assert "\nnote: 4 of 4 updates" in Trajectory("q", (Candidate("b", reward=0.5), *lost)).summary()


def updated(*failures, samples=(0.5, 1.0)):
    first = [Candidate(str(r), reward=r, index=i) for i, r in enumerate(samples)]
    lost = [Candidate("", failure=f, step=1, fresh=False, index=len(first) + i) for i, f in enumerate(failures)]
    return Trajectory("q", (*first, *lost))


def test_the_diagnosis_names_the_dominant_failure_with_its_count():
    data = Failure("unparsable", "a JSON object was expected")
    trajectory = updated(*[data] * 4, Failure("empty"), Failure("error", "down"))
    assert not trajectory.weak_policy
    assert trajectory.diagnosis.startswith(
        "6 of 6 updates were no candidates, 4 of them unparsable: a JSON object was expected; give an editor"
    )
    said = updated(*[Failure("unparsable", "not\x1b[2J\nJSON " + "x" * 500)] * 4).diagnosis
    assert said.isprintable() and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("reason", sorted(set(get_args(FailureReason)) - {"empty", "placeholder", "tool_call"}))
def test_what_is_not_the_policy_s_doing_is_never_called_its_weakness(reason):
    for others in ([], [Failure("empty")] * 4):  # as many of its own do not make it so
        trajectory = updated(*[Failure(reason, "why")] * 4, *others)
        if reason == "deadline":  # told by stop_reason
            assert trajectory.weak_policy is bool(others) and "deadline" not in str(trajectory.diagnosis)
        else:
            assert not trajectory.weak_policy and f"4 of them {reason}: why; " in trajectory.diagnosis
            assert "weak" not in trajectory.diagnosis


@pytest.mark.parametrize(("samples", "lower"), [((0.0, 2.0), "1.1 s (the spread"), ((1.0, 1.0), "1.5 lower")])
def test_updates_that_score_lower_are_told_in_spreads_of_the_samples(samples, lower):
    first = [Candidate(f"{i}", reward=reward, index=i) for i, reward in enumerate(samples)]
    worse = [Candidate(f"u{i}", reward=-0.5, step=1, fresh=False, index=2 + i) for i in range(4)]
    trajectory = Trajectory("q", (*first, *worse))
    assert lower in trajectory.diagnosis and trajectory.weak_policy


@pytest.mark.parametrize("reason", ["empty", "placeholder", "tool_call"])
def test_updates_that_say_nothing_are_a_weakness_of_the_policy(reason):
    trajectory = updated(*[Failure(reason)] * 3, Failure("error", "down"))
    assert trajectory.weak_policy and "3 of them " + reason in trajectory.diagnosis
