"""What came of a call: a value or an error, never one in the shape of the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from tpo_core.records import repr_without_texts

__all__ = ["Done", "Late", "Raised"]

T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """What a call returned."""

    value: T

    __repr__ = repr_without_texts()


@dataclass(frozen=True)
class Raised:
    """What a call raised; the run that asked decides what that costs."""

    error: Exception


class Late(Exception):
    """What a call that had not ended at its deadline is said to have raised."""
