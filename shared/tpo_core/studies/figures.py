"""A study's points as CSV, as a figure and as one HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tpo_core.errors import InvalidInputError
from tpo_core.studies.arms import NONE, Study
from tpo_core.studies.intervals import Estimate
from tpo_core.studies.output import new_figure, write_rows
from tpo_core.studies.scaling import Point
from tpo_core.writing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw", "table", "write_csv", "write_html", "write_png"]

COLUMNS = (
    "arm", "round", "best", "round's mean", "round's sd", "samples", "tokens", "- bon, equal samples",
    "- bon, equal tokens", "win rate", "at equal length", "held-out",
)  # fmt: skip

_ESTIMATES = {"best", "mean", "sd", "over_samples", "over_tokens", "win_rate", "at_equal_length", "held_out"}

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #8884; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
@media (prefers-color-scheme: dark) {{ body {{ background: #161616; color: #ddd }} }}
</style></head><body>
<h1>{title}</h1>
<p>{about}</p>
{picture}
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<ul>{notes}</ul>
</body></html>
"""


def table(points: Sequence[Point]) -> tuple[Sequence[str], list[list[str]]]:
    """Return the names of the columns and one row per point; of a held-out reward only where there is one."""
    rows = [_cells(point) for point in points]
    if any(point.held_out is not None for point in points):
        return COLUMNS, rows
    return COLUMNS[:-1], [row[:-1] for row in rows]


def _cells(point: Point) -> list[str]:
    return [
        point.arm,
        str(point.round),
        _span(point.best),
        _span(point.mean),
        _span(point.sd),
        f"{point.samples:.1f}",
        f"{point.tokens:,.0f}",
        _span(point.over_samples, sign=True),
        _span(point.over_tokens, sign=True),
        _span(point.win_rate),
        _span(point.at_equal_length, sign=True),
        _span(point.held_out, sign=True),
    ]


def write_csv(path: str, points: Sequence[Point]) -> None:
    """Write one line per point; an interval's ends in columns of their own."""
    write_rows(path, [_flat(asdict(point)) for point in points])


def write_png(path: str, study: Study, points: Sequence[Point]) -> None:
    """Draw the study.

    Raises:
        InvalidInputError: matplotlib is not installed.
    """
    draw(study, points).savefig(path, format="png", dpi=110)


def write_html(path: str, title: str, about: str, study: Study, points: Sequence[Point], notes: Sequence[str]) -> None:
    """Write one page that needs nothing else; without matplotlib it has no figure."""
    names, cells = table(points)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "\n".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    page = _PAGE.format(
        title=html.escape(title),
        about=html.escape(about),
        picture=_picture(study, points),
        head=head,
        rows=rows,
        notes="".join(f"<li>{html.escape(note)}</li>" for note in notes),
    )
    with replacing(path, "--html") as file:
        file.write(page)


def draw(study: Study, points: Sequence[Point]) -> Figure:
    """Return the figure: what the study shows by round, or by arm.

    Raises:
        InvalidInputError: matplotlib is not installed.
    """
    figure = new_figure()
    ax = figure.subplots()
    if study.by_round:
        _draw_rounds(ax, study, points)
    else:
        _draw_arms(ax, points)
    ax.set_title(study.question)
    ax.legend()
    return figure


def _draw_rounds(ax: Any, study: Study, points: Sequence[Point]) -> None:
    for arm in dict.fromkeys(point.arm for point in points):
        mine = [(p.round, e) for p in points if p.arm == arm and (e := getattr(p, study.shown)) is not None]
        x, y = [n for n, _ in mine], [e.value for _, e in mine]
        [line] = ax.plot(x, y, marker="o", label="none (sampling alone)" if arm == NONE else arm)
        ax.fill_between(x, [e.low for _, e in mine], [e.high for _, e in mine], alpha=0.15, color=line.get_color())
    if study.shown == "best":
        name = study.arms[0].name
        alike = {p.round: p.best.value - o.value for p in points if p.arm == name and (o := p.over_tokens) is not None}
        label = f"best-of-N for as many tokens as {name}"
        ax.plot(list(alike), list(alike.values()), linestyle="--", color="grey", label=label)
    ax.set_xlabel("round")
    ax.set_xticks(sorted({point.round for point in points}))
    ax.set_ylabel("best reward so far" if study.shown == "best" else "standard deviation of a round's rewards")


def _draw_arms(ax: Any, points: Sequence[Point]) -> None:
    sides = (("over_samples", "for as many samples"), ("over_tokens", "for as many tokens"))
    for place, (name, label) in enumerate(sides):
        found = [getattr(point, name) for point in points]
        x, y = [n + 0.12 * (2 * place - 1) for n in range(len(found))], [e.value for e in found]
        ends = [[e.value - e.low for e in found], [e.high - e.value for e in found]]
        ax.errorbar(x, y, yerr=ends, fmt="o", capsize=4, label=label)
    ax.axhline(0, color="grey", linewidth=0.8)
    ax.set_xticks(range(len(points)), [point.arm for point in points])
    ax.set_ylabel("best reward less best-of-N's")


def _picture(study: Study, points: Sequence[Point]) -> str:
    try:
        figure = draw(study, points)
    except InvalidInputError:
        return ""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    said = html.escape(study.question)
    return f'<p><img alt="{said}" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"></p>'


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if name in _ESTIMATES:
            ends = value or {"value": None, "low": None, "high": None}
            found |= {name: ends["value"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}
        else:
            found[name] = value
    return found


def _span(estimate: Estimate | None, *, sign: bool = False) -> str:
    if estimate is None:
        return ""
    value = f"{estimate.value:+.3g}" if sign else f"{estimate.value:.3g}"
    return f"{value} ({estimate.low:.3g} to {estimate.high:.3g})"
