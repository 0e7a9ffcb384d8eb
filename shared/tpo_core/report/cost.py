"""What a run's answers took in tokens and operations, beside the training that they stand in for."""

from __future__ import annotations

import re

from tpo_core.errors import InvalidInputError
from tpo_core.report.summary import RunSummary

__all__ = ["cost_lines", "parameters"]

PAPER_PARAMETERS = 70e9
PAPER_DPO = 72_840e15
"""Operations of one epoch of DPO on 64,000 pairs for the paper's policy of 70B parameters (arXiv:2501.12895, section
7.3), beside 9.3e15 for a query; both grow with the parameters."""

_UNITS = {"": 1.0, "M": 1e6, "B": 1e9, "T": 1e12}


def parameters(text: str) -> float:
    """Read a number of parameters.

    Raises:
        InvalidInputError: It is none.

    Example:
        >>> parameters("8B"), parameters("135M"), parameters("7e10")
        (8000000000.0, 135000000.0, 70000000000.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([MBT]?)\s*", text, re.IGNORECASE)
    if found is None or not (number := float(found[1]) * _UNITS[found[2].upper()]) > 0:
        raise InvalidInputError(f"{text!r:.40} is no number of parameters; write 8B, 135M or 7e10")
    return number


def cost_lines(run: RunSummary, policy: float, reward: float | None = None) -> list[str]:
    """Write what a query and the run took, one figure a line.

    Operations are ``2 * parameters * tokens``, as the paper counts them: prompt and completion alike, whatever a cache
    saved.

    Args:
        run: Its figures.
        policy: Parameters of the policy, and of critic and editor with it.
        reward: Parameters of the reward model; its tokens count only where it reports them.

    Example:
        >>> from tpo_core import Usage
        >>> run = RunSummary(queries=2, usage=Usage(calls=38, prompt_tokens=10_000, completion_tokens=15_000))
        >>> cost_lines(run, 8e9)[0]
        'operations: 0.2 PFLOP a query, 0.4 PFLOP in all (2 x 8e+09 parameters x 25,000 tokens)'
    """
    queries = max(1, run.queries)
    operations = 2 * policy * run.usage.tokens
    told = f"2 x {policy:.3g} parameters x {run.usage.tokens:,} tokens"
    if reward is not None and run.reward_usage.tokens:
        operations += 2 * reward * run.reward_usage.tokens
        told += f" + 2 x {reward:.3g} x {run.reward_usage.tokens:,} of the reward model"
    training = PAPER_DPO * policy / PAPER_PARAMETERS
    each = operations / queries
    lines = [f"operations: {_peta(each)} a query, {_peta(operations)} in all ({told})"]
    if operations:
        lines.append(
            f"beside one epoch of DPO on 64,000 pairs, {_peta(training)} at this size by the paper's count: "
            f"a query takes {100 * each / training:.3g} %, the run {100 * operations / training:.3g} %; "
            f"it equals {training / each:,.0f} queries"
        )
    if run.usage.calls and run.usage.completion_tokens:
        samples = run.usage.tokens / queries / (run.usage.completion_tokens / run.usage.calls)
        length = "if a sample is as long as a call here"
        lines.append(f"beside best-of-N at the same tokens: N of about {samples:.0f}, {length}")
    return lines


def _peta(operations: float) -> str:
    number = operations / 1e15
    return f"{number:,.0f} PFLOP" if number >= 1000 else f"{number:.3g} PFLOP"
