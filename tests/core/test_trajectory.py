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


def test_the_defaults_are_the_paper_s():
    config = TPOConfig()
    assert (config.mode, config.width, config.depth) == ("tpo", 5, 2)
    assert (config.temperature, config.top_p, config.max_response_tokens) == (0.7, 0.95, 2048)
    assert config.samples == 19 and TPOConfig(mode="bon", width=15).samples == 15
