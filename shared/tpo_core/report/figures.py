"""Tables and charts of a study as plain data, for a page that draws itself and for text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tpo_core.report.moments import Mean

__all__ = ["Chart", "Figures", "Series", "Table"]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def lines(self) -> Iterator[str]:
        """Yield the table as text, its columns below each other."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        for row in (self.head, *self.rows):
            cells = (
                cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            yield "  ".join(cells).rstrip()


@dataclass(frozen=True)
class Series:
    """A line through means with their intervals."""

    name: str
    means: tuple[Mean, ...]
    """One at each place of the chart's x; without a value where there is none."""


@dataclass(frozen=True)
class Chart:
    """Lines over one axis."""

    title: str
    x: tuple[float, ...]
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """What a page of figures shows, from top to bottom.

    Example:
        >>> figures = Figures("Plans", tables=(Table("Reward", ("plan", "mean"), (("paper", "1.5"),)),))
        >>> print("\\n".join(figures.lines()))
        Reward
        plan   mean
        paper   1.5
    """

    title: str
    about: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    """What the figures cannot show, the weightiest first."""
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()

    def lines(self) -> list[str]:
        """Return tables and warnings as text."""
        found: list[str] = []
        for table in self.tables:
            found += [*([""] if found else []), table.title, *table.lines()]
        return [*found, *(f"note: {warning}" for warning in self.warnings)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)
