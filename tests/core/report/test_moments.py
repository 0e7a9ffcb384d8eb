"""Means, shares and histograms of streams against the standard library."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tpo_core.report.histograms import HistogramTally
from tpo_core.report.moments import Line, Moments, Share, expected_maximum, unbiased_sd

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def moments(values: list[float]) -> Moments:
    found = Moments()
    for value in values:
        found.add(value)
    return found


def line(points: list[tuple[float, float]]) -> Line:
    found = Line()
    for x, y in points:
        found.add(x, y)
    return found


@given(st.lists(NUMBERS, min_size=2, max_size=50), st.lists(NUMBERS, max_size=50))
def test_merged_moments_are_those_of_both_streams(one, other):
    both = moments(one).merged(moments(other)).result()
    assert both.n == len(one) + len(other)
    assert both.mean == pytest.approx(statistics.fmean(one + other), rel=1e-9, abs=1e-6)
    assert both.sd == pytest.approx(statistics.stdev(one + other), rel=1e-6, abs=1e-4)


@pytest.mark.parametrize(("n", "t"), [(2, 12.706), (3, 4.303), (4, 3.182), (6, 2.571), (11, 2.228), (1001, 1.962)])
def test_the_interval_is_student_s(n, t):
    mean = moments([float(i % 2) for i in range(n)]).result()
    assert (mean.high - mean.mean) / (mean.sd / math.sqrt(n)) == pytest.approx(t, rel=2e-3)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-10, 10)), min_size=3, max_size=40))
def test_the_line_is_that_of_least_squares(points):
    x, y = [p[0] for p in points], [p[1] for p in points]
    assume(statistics.pvariance(x) > 1e-3)
    found = line(points).intercept()
    slope, at_zero = statistics.linear_regression(x, y)
    noise = sum((b - at_zero - slope * a) ** 2 for a, b in points) / max(1, len(x) - 2)
    error = math.sqrt(noise * (1 / len(x) + statistics.fmean(x) ** 2 / (len(x) * statistics.pvariance(x))))
    assert found.mean == pytest.approx(at_zero, abs=1e-6)
    if len(x) == 12:
        assert (found.high - found.mean) == pytest.approx(2.228 * error, rel=2e-3, abs=1e-6)


def test_a_line_that_is_not_known_has_no_intercept():
    for points in ([], [(0.0, 1.0), (1.0, 2.0)], [(1.0, 2.0)] * 5, [(0.0, 1e308), (1.0, -1e308), (2.0, 1e308)]):
        assert line(points).intercept().mean is None


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert (moments([2.0]).result().mean, moments([2.0]).result().low) == (2.0, None)
    assert moments([]).result().mean is None and Share.build(0, 0).share is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_share_lies_in_its_interval_within_0_and_1(count, rest):
    share = Share.build(count, count + rest)
    if share.of:
        assert 0 <= share.low <= share.share + 1e-12 and share.share - 1e-12 <= share.high <= 1


@given(st.lists(st.floats(-1e18, 1e18, allow_nan=False) | st.integers(-50, 50).map(lambda k: k / 10), max_size=120))
def test_a_histogram_counts_every_value_once_in_bins_of_a_readable_width(values):
    tally = HistogramTally(most=40)
    for value in values:
        tally.add(value)
    found = tally.result(bins=12)
    assert found.zero + found.below + found.above + sum(found.counts) == len(values)
    assert found.zero == sum(value == 0 for value in values) and len(found.counts) <= 12
    assert f"{found.width:e}"[0] in "125" and float(f"{found.width:.0e}") == found.width


def test_a_value_on_an_edge_opens_its_bin_and_a_far_one_does_not_flatten_the_rest():
    tally = HistogramTally()
    for value in [0.1, 0.2, 0.3] * 100 + [1e6]:
        tally.add(value)
    found = tally.result(bins=4)
    assert found.counts == (0, 100, 100, 100) and (found.start, found.width, found.above) == (0.0, 0.1, 1)


def test_the_expected_maximum_and_the_unbiased_sd_are_those_of_the_tables():
    assert expected_maximum(10) == pytest.approx(1.53875, abs=1e-5)  # Harter 1961
    assert expected_maximum(100) == pytest.approx(2.50759, abs=1e-5)
    assert unbiased_sd([-1, 1]) == pytest.approx(math.sqrt(2) / 0.797885, rel=1e-5)  # c4(2)
