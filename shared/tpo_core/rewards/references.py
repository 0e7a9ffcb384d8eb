"""Rewards that compare with a reference: what is known of that before they are called, and what is said without one."""

from __future__ import annotations

import inspect
from string import Formatter
from typing import Any

__all__ = ["REFERENCES", "missing_reference", "template_fields"]

REFERENCES = frozenset({"reference", "reference_outputs"})
"""Names under which callables take a reference."""


def template_fields(fn: Any) -> frozenset[str]:
    """Return the fields that the prompt of an openevals judge is filled with; none for any other callable.

    The judge's signature takes anything: its prompt alone, which it closes over, tells what it needs.
    """
    if not (inspect.isfunction(fn) and (fn.__module__ or "").startswith("openevals.")):
        return frozenset()
    prompt = inspect.getclosurevars(fn).nonlocals.get("prompt")
    if not isinstance(prompt, str):
        return frozenset(getattr(prompt, "input_variables", ()))  # a LangChain prompt template's
    try:
        return frozenset(name for _, name, _, _ in Formatter().parse(prompt) if name)
    except ValueError:  # braces of another kind; the judge itself will say so
        return frozenset()


def missing_reference(name: str) -> str:
    """Return what to say where a reward needs a reference and there is none."""
    return (
        f"reward {name!r} compares with a reference, and labels are not known while answering: use a reward that "
        "judges without one, or hand over what is known: RunnableTPO(..., reference=) a key of the input or a function "
        "of it; in DSPy refined(..., reference_outputs=...)"
    )
