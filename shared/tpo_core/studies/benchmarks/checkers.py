"""Answers checked by published code: IFEval's instructions by if-verifiable, MATH's answers by math-verify."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tpo_core.errors import InvalidInputError
from tpo_core.studies.benchmarks.entries import Scored

__all__ = ["CHECKERS", "WEIGHT", "Checker", "Verdict", "checker", "ifeval", "math"]


WEIGHT = "checks"
"""The part that says how many checks the shares of instructions are of."""


@dataclass(frozen=True)
class Verdict:
    """What is made of one answer."""

    value: float | None
    """The score, higher is better; None where the answer could not be scored."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Other figures of it, by name, each averaged over the queries that have it. Shares of ``instructions`` count as
    many times as ``WEIGHT`` says."""
    left_out: str = ""
    """Why there is no score."""


Checker = Callable[[Mapping[str, Any], str], Verdict]
"""Scores a response to a benchmark's row."""

_FAULTS = (ArithmeticError, AssertionError, AttributeError, OSError, RuntimeError, TypeError, ValueError)
"""What a checker may raise over an answer that it was not written for; it then has no score, rather than 0."""

_NEEDS = 'scoring {} needs {}: pip install "tpo[bench]"'


def math(row: Mapping[str, Any], response: str) -> Verdict:
    """Return 1.0 where the response's final answer equals the row's ``answer``, else 0.0."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise InvalidInputError(_NEEDS.format("math-500", "math-verify")) from error
    # Its time-outs are alarms, which only the main thread has.
    main = threading.current_thread() is threading.main_thread()
    seconds: Any = 5 if main else None
    try:
        wanted = parse(f"${row['answer']}$", parsing_timeout=seconds)
        found = parse(response, parsing_timeout=seconds)
        return Verdict(float(verify(wanted, found, timeout_seconds=seconds)))
    except _FAULTS as error:
        return Verdict(None, left_out=f"math-verify: {_first_line(error)}")


def ifeval(row: Mapping[str, Any], response: str) -> Verdict:
    """Return 1.0 where the response passes every check of its prompt, strictly, else 0.0.

    The parts are the shares of checks that pass (``instructions``), and both figures once more as the benchmark counts
    them loosely: without a first or last line and without asterisks. A prompt whose checks need NLTK's data where it
    is not installed is left out.
    """
    try:
        from if_verifiable import IFEvalSample, evaluate_output_for_sample
        from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT
        from langdetect import DetectorFactory
    except ImportError as error:
        raise InvalidInputError(
            _NEEDS.format("ifeval", "if-verifiable, for which Python must be 3.11 or later")
        ) from error
    if DetectorFactory.seed is None:
        DetectorFactory.seed = 0  # else one text may be English in one run and Dutch in the next
    names = list(row["instruction_id_list"])
    if unknown := [name for name in names if name not in INSTRUCTION_DICT]:
        return Verdict(None, left_out=f"if-verifiable does not know the check {unknown[0]}")
    sample = IFEvalSample(row["key"], row["prompt"], names, [dict(each or {}) for each in row["kwargs"]])
    try:
        _, scores = evaluate_output_for_sample("ifeval", sample, response)
    except LookupError:
        return Verdict(None, left_out="a check needs data of NLTK: python -m nltk.downloader punkt punkt_tab")
    except _FAULTS as error:
        return Verdict(None, left_out=f"if-verifiable: {_first_line(error)}")
    loose = {"loose": scores.binary_loose, "instructions loose": scores.partial_loose}
    return Verdict(scores.binary_strict, {WEIGHT: len(names), "instructions": scores.partial_strict, **loose})


CHECKERS: Mapping[Scored, Checker] = {"math": math, "ifeval": ifeval}


def checker(scored: Scored) -> Checker | None:
    """Return what checks a benchmark's answers here; None where no program does.

    Raises:
        InvalidInputError: Its package is not installed.
    """
    found = CHECKERS.get(scored)
    if found is not None:
        found({"answer": "1", "key": 0, "prompt": "?", "instruction_id_list": [], "kwargs": []}, "1")
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
