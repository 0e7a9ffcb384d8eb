"""What is looked up of the user's program at each call: its predictors, and which of the inputs are its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import dspy
from dspy.predict.parameter import Parameter

from tpo_core.rewards.labelled import Labelled
from tpo_dspy.fields import PRIVILEGED

__all__ = ["labelled", "named_predictors", "predictors_of"]


def named_predictors(program: dspy.Module) -> list[tuple[str, dspy.Predict]]:
    """Return what ``program.named_predictors()`` does, however many calls were made.

    DSPy's own walk goes through the histories of all modules, too, which hold up to 10,000 calls each.
    """
    found: dict[int, tuple[str, Parameter]] = {}
    for name, parameter in _parameters(program):
        found.setdefault(id(parameter), (name, parameter))
    return [(name, parameter) for name, parameter in found.values() if isinstance(parameter, dspy.Predict)]


def _parameters(module: dspy.Module) -> Iterator[tuple[str, Parameter]]:
    if isinstance(module, Parameter):
        yield "self", module
    for name, value in vars(module).items():
        parts = () if name == "history" else _parts(name, value)
        for place, part in parts:
            if isinstance(part, Parameter):
                yield place, part
            elif isinstance(part, dspy.Module) and not getattr(part, "_compiled", False):
                yield from ((f"{place}.{inner}", parameter) for inner, parameter in _parameters(part))


def _parts(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        return ((f"{name}['{key}']", part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ((f"{name}[{place}]", part) for place, part in enumerate(value))
    return ((name, value),)


def predictors_of(program: dspy.Module) -> list[dspy.Predict]:
    """Return the predictors without their names."""
    return [predictor for _, predictor in named_predictors(program)]


def labelled(program: dspy.Module, given: Mapping[str, Any]) -> tuple[dict[str, Any], Labelled]:
    """Return the inputs that are the program's, and an example of them with the rest as labels for the reward."""
    takes = _takes(program)
    inputs = {k: v for k, v in given.items() if takes is None or k in takes}
    return inputs, Labelled(dict(given)).with_inputs(*inputs)


def _takes(program: dspy.Module) -> set[str] | None:
    """Return the names that a program takes; None where that cannot be known."""
    named, more = _named(type(program).forward)
    if not more:
        return set(named)
    signature = getattr(program, "signature", None) or getattr(getattr(program, "predict", None), "signature", None)
    one_of_dspys = type(program).__module__.startswith("dspy.")
    return {*named, *signature.input_fields, *PRIVILEGED} if one_of_dspys and signature is not None else None


@lru_cache
def _named(forward: Any) -> tuple[frozenset[str], bool]:
    """Return the names that a method takes, and whether it takes others, too."""
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    named = frozenset(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)
