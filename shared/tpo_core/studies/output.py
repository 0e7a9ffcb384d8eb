"""What every study writes: a table as CSV, and a figure to draw in."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tpo_core.errors import InvalidInputError
from tpo_core.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure", "write_rows"]


def write_rows(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, of which there is at least one, under the first one's names; the file is replaced whole or not."""
    with replacing(path, "--csv") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(rows[0])
        table.writerows(row.values() for row in rows)


def new_figure() -> Figure:
    """Return an empty figure, which belongs to no window.

    Raises:
        InvalidInputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInputError('--png needs matplotlib: pip install "tpo[plot]"') from error
    return Figure(figsize=(8, 4.5), layout="constrained")
