"""DSPy's example of one call, which says why the labels that a metric reads are not there."""

from __future__ import annotations

from typing import Any

import dspy

__all__ = ["Labelled"]


class Labelled(dspy.Example):
    """A call's inputs, and what else the call brought for the reward; says why labels are missing otherwise."""

    def __getattr__(self, name: str) -> Any:
        """Return a field."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):
                raise
            raise AttributeError(self._missing(name)) from None

    def __getitem__(self, name: str) -> Any:
        """Return a field."""
        try:
            return super().__getitem__(name)
        except KeyError:
            raise KeyError(self._missing(name)) from None

    def _missing(self, name: str) -> str:
        known = ", ".join(self.keys()) or "nothing"
        return (
            f"the reward reads example.{name}, which this call lacks (it has {known}): labels are not known while "
            "answering. Use a reward that judges without them, or hand what is known to the call: in DSPy "
            f"refined(..., {name}=...), in LangChain the key {name!r} of the input"
        )
