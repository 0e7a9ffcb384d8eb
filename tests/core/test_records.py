"""A trajectory as JSON: strict, in UTF-8, the same when it is read again, and refused when it is something else."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpo_core import Candidate, Failure, InvalidInputError, Step, Trajectory, Usage

TEXTS = st.text(st.characters(), max_size=20) | st.text("\ud83d\ude00\udfff\\u$a", max_size=8)
FLOATS = st.floats() | st.integers(-5, 5).map(float)
NAMED = st.dictionaries(TEXTS, FLOATS, max_size=3)
JSON_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | FLOATS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("$float"), inner, max_size=3),
    max_leaves=8,
)
FAILURES = st.none() | st.builds(Failure, st.sampled_from(["error", "empty"]), TEXTS)
CANDIDATES = st.builds(
    lambda response, **rest: Candidate(response, response, **rest),
    TEXTS,
    reward=st.none() | FLOATS,
    step=st.integers(0, 9),
    failure=FAILURES,
    feedback=st.none() | TEXTS,
    heads=NAMED,
    truncated=st.booleans(),
    fresh=st.booleans(),
    index=st.integers(0, 99),
)
STEPS = st.builds(Step, st.integers(1, 9), st.none() | CANDIDATES, st.none() | CANDIDATES, TEXTS, TEXTS, FAILURES)
USAGES = st.builds(Usage, st.integers(0, 10**20), st.integers(0, 9), st.integers(0, 9))
TRAJECTORIES = st.builds(
    Trajectory,
    TEXTS | st.lists(st.fixed_dictionaries({"role": TEXTS, "content": JSON_DATA}), max_size=2),
    st.lists(CANDIDATES, max_size=3).map(tuple),
    st.lists(STEPS, max_size=2).map(tuple),
    USAGES,
    USAGES,
    st.sampled_from(["depth", "deadline"]),
    seconds=NAMED,
    seed=st.none() | st.integers(0, 2**70),
    gold=st.dictionaries(st.integers(0, 9), FLOATS, max_size=2),
)
WHOLE = Trajectory(
    [{"role": "user", "content": "hi"}],
    (Candidate("a", reward=1.0, failure=Failure("empty", "none"), feedback="f", heads={"h": 1.0}),),
    (Step(1, Candidate("a"), Candidate("b"), "loss", "gradient"),),
    seconds={"total": 1.0},
    seed=1,
    gold={0: 1.0},
).to_dict()


@settings(max_examples=300)
@given(TRAJECTORIES)
def test_any_texts_and_numbers_survive_strict_json_in_utf_8(trajectory: Trajectory) -> None:
    text = trajectory.to_json()
    orjson.loads(text.encode("utf-8"))  # refuses NaN, infinities and halves of surrogate pairs
    json.dumps(trajectory.to_dict(), allow_nan=False)
    again = Trajectory.from_json(text)
    assert repr(again) == repr(trajectory)  # in which NaN equals itself, and -0.0 is not 0.0
    assert again.to_json() == text


def test_what_json_lacks_is_written_in_a_form_that_a_reader_can_tell() -> None:
    trajectory = Trajectory("q", (Candidate("cut \\ \ud83d", reward=math.nan, heads={"a": -math.inf}),))
    [candidate] = json.loads(trajectory.to_json())["candidates"]
    assert candidate["response"] == {"$text": "cut \\u005c \\ud83d"}
    assert candidate["reward"] == {"$float": "nan"} and candidate["heads"] == {"a": {"$float": "-inf"}}


def test_a_file_with_bare_nan_from_an_earlier_version_is_still_read() -> None:
    data = {**WHOLE, "gold": {"0": math.nan}}
    assert math.isnan(Trajectory.from_json(json.dumps(data)).gold[0])


def test_fields_with_a_default_may_be_missing_from_what_an_earlier_version_wrote() -> None:
    data = copy.deepcopy(WHOLE)
    del data["usage"]["cached_tokens"], data["candidates"][0]["fresh"]
    assert Trajectory.from_dict(data) == Trajectory.from_dict(WHOLE)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every value in some data."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@settings(max_examples=300)
@given(st.sampled_from(places(WHOLE)), JSON_DATA)
def test_a_value_of_a_wrong_type_at_any_place_is_refused_or_read_and_never_breaks(place: Any, value: Any) -> None:
    data: Any = {"": copy.deepcopy(WHOLE)}
    at, key = data, ""
    for step in place:
        at, key = at[key], step
    at[key] = value
    for read in (Trajectory.from_dict, lambda d: Trajectory.from_json(json.dumps(d))):
        try:
            trajectory = read(data[""])
        except InvalidInputError:
            continue
        assert isinstance(trajectory, Trajectory)
        _ = trajectory.best_or_none, trajectory.failures, trajectory.usage.tokens, trajectory.to_json()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("candidates", 0, "reward"), "high", r"data\.candidates\[0\]\.reward must be of type int, not 'high'"),
        (("candidates", 0, "response"), 5, r"candidates\[0\]\.response must be of type str, not 5"),
        (("candidates", 0, "failure"), "empty", r"failure must be of type Mapping"),
        (("candidates",), {}, r"data\.candidates must be of type list"),
        (("usage", "calls"), True, r"usage\.calls must be of type int"),
        (("steps", 0, "chosen", "step"), 1.5, r"steps\[0\]\.chosen\.step must be of type int"),
        (("gold",), {"first": 1.0}, r"gold has the key"),
        (("seconds", "total"), None, r"seconds\['total'\]"),
        (("usage", "dollars"), 1, r"data\.usage has the field 'dollars', which no Usage has"),
        (("candidates", 0, "reward"), {"$float": "high"}, r"\$float"),
        (("candidates", 0, "reward"), 10**400, r"candidates\[0\]\.reward must be of type float"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(place: Any, value: Any, message: str) -> None:
    data: Any = copy.deepcopy(WHOLE)
    at = data
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with pytest.raises(InvalidInputError, match=message):
        Trajectory.from_dict(data)


@pytest.mark.parametrize("text", [None, 5, b"\xff", "[" * 100_000, "1" * 5000, '"\ud800"'])
def test_what_is_no_json_is_refused(text: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"text|data"):
        Trajectory.from_json(text)
