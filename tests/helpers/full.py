"""How much of a long test runs: a short form with the suite, all of it where ``TPO_FULL`` is set."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def either(full: T, *, short: T) -> T:
    """Return ``full`` where the environment sets ``TPO_FULL``, else ``short``."""
    return full if os.environ.get("TPO_FULL") else short
