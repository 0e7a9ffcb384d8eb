"""What a run took, beside the training that it stands in for."""

from __future__ import annotations

import pytest

from tpo_core import InvalidInputError, Usage
from tpo_core.report import RunSummary, cost_lines, parameters


def test_the_papers_own_figures_come_out():
    tokens = round(9.3e15 / (2 * 70e9))  # of a query, by the paper's count
    [operations, training, _] = cost_lines(RunSummary(1, usage=Usage(19, 7, tokens // 2, tokens - tokens // 2)), 70e9)
    assert operations.startswith("operations: 9.3 PFLOP a query, 9.3 PFLOP in all")
    assert "72,840 PFLOP" in training and "a query takes 0.0128 %" in training and "7,832 queries" in training


def test_a_reward_models_tokens_count_where_both_are_known():
    run = RunSummary(2, usage=Usage(4, 4, 1000, 1000), reward_usage=Usage(prompt_tokens=4000))
    assert "operations: 0.016 PFLOP a query, 0.032 PFLOP" in cost_lines(run, 8e9)[0]
    assert "operations: 0.02 PFLOP a query, 0.04 PFLOP" in cost_lines(run, 8e9, 1e9)[0]


def test_best_of_n_at_the_same_tokens_is_as_many_samples_as_the_tokens_buy():
    assert "N of about 20," in cost_lines(RunSummary(1, usage=Usage(10, 10, 1000, 1000)), 8e9)[-1]


def test_a_run_without_tokens_says_so_with_zeros_and_nothing_is_divided_by_them():
    [line] = cost_lines(RunSummary(), 8e9)
    assert line == "operations: 0 PFLOP a query, 0 PFLOP in all (2 x 8e+09 parameters x 0 tokens)"


@pytest.mark.parametrize("text", ["", "big", "-8B", "0", "8G", "nan"])
def test_what_is_no_number_of_parameters_is_refused(text: str):
    with pytest.raises(InvalidInputError, match="write 8B, 135M or 7e10"):
        parameters(text)
