"""The pages as text: one self-contained file each, whose script is the only one that may run in it.

Three laws. What a model wrote is data: JSON in a block that is no script, put on the page as text nodes only. The
content security policy names the hashes of our style and script and forbids everything else: the network and, where
the browser knows Trusted Types, markup made from strings. And a page is written as its trajectories arrive: a run of
any length needs the memory of one chunk.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import io
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from tpo_core.masking import hide
from tpo_core.report.entries import Entry, Item
from tpo_core.report.figures import Figures
from tpo_core.report.record import record, row
from tpo_core.report.summary import RunSummary, SummaryTally
from tpo_core.report.text import summary_lines, trajectory_line

if TYPE_CHECKING:
    from tpo_core.trajectory import Trajectory

__all__ = ["Writer", "figures_page", "notebook_frame", "run_page", "trajectory_page", "write_run_page"]

CHUNK = 160_000
"""Characters of JSON packed together: the more, the better they compress; the fewer, the faster a tree opens."""

ROWS = 2000
"""Most queries packed together, however short they are."""

MOST_IN_NOTEBOOK = 4_000_000
"""Characters of a page above which a notebook, which saves what it shows, gets a line instead."""

_SHARED = ("dom.js", "numbers.js", "diff.js", "axes.js", "scatter.js", "candidate.js", "tree.js")
_SCRIPTS = {
    "trajectory": (*_SHARED, "trajectory.js"),
    "study": ("dom.js", "numbers.js", "axes.js", "lines.js", "study.js"),
    "run": (*_SHARED, "bars.js", "curves.js", "tokens.js", "figures.js", "rows.js", "filters.js", "table.js", "run.js"),
}
_STYLES = {
    "trajectory": ("page.css", "tree.css"),
    "run": ("page.css", "tree.css", "run.css"),
    "study": ("page.css", "run.css", "study.css"),
}


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_USED = "\n\u200c\u200d"  # joiners are part of scripts and emoji


class Writer(Protocol):
    """Where a page is written: a file opened as text in UTF-8, or anything else with ``write``."""

    def write(self, text: str, /) -> Any:
        """Take a piece of the page."""


def trajectory_page(trajectory: Trajectory, *, title: str = "Trajectory") -> str:
    """Return the tree of one loop as an HTML page that needs nothing else."""
    data = _embed("trajectory", record(Entry.of(trajectory)))
    return _head("trajectory", title) + data + _foot("trajectory", [trajectory_line(trajectory)])


def notebook_frame(trajectory: Trajectory) -> str:
    """Return the page in a frame: neither can its script reach the notebook, nor a style leak in or out."""
    line, page = trajectory_line(trajectory), trajectory_page(trajectory)
    if len(page) > MOST_IN_NOTEBOOK:
        return f"<p>{_static(line)} Too large to show here: write trajectory.to_html() to a file.</p>"
    frame = (
        '<iframe sandbox="allow-scripts" title="Trajectory" style="width: 100%; height: 640px; border: 0" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )
    return f"<p>{_static(line)}</p>\n{frame}"


def run_page(
    trajectories: Iterable[Item],
    *,
    title: str = "TPO run",
    about: Mapping[str, Any] | None = None,
    trees: int | None = None,
) -> str:
    """Return a run as an HTML page that needs nothing else; ``write_run_page`` tells more."""
    page = io.StringIO()
    write_run_page(page, trajectories, title=title, about=about, trees=trees)
    return page.getvalue()


def write_run_page(
    file: Writer,
    trajectories: Iterable[Item],
    *,
    title: str = "TPO run",
    about: Mapping[str, Any] | None = None,
    trees: int | None = None,
) -> RunSummary:
    """Write a run as an HTML page that needs nothing else, while its trajectories arrive.

    Args:
        file: Opened as text, ``encoding="utf-8"``.
        trajectories: Trajectories, exceptions of queries that failed, or entries with names; read once, never kept.
        title: The page's heading.
        about: What was run, shown under the heading: the model, the reward, settings.
        trees: How many queries keep their trees, from the first on; all by default. The figures and the table have
            every query; a tree of the paper's size is about 7 KB in the page, a line of the table 200 bytes.

    Returns:
        The run's figures, which the page shows.
    """
    tally = SummaryTally()
    file.write(_head("run", title))
    for rows, packed_trees in _chunks(trajectories, tally, trees):
        file.write(_embed("", rows, "rows"))
        packed = base64.b64encode(gzip.compress(f"[{','.join(packed_trees)}]".encode(), 6, mtime=0)).decode()
        file.write(f'<script type="text/plain" class="trees">{packed}</script>\n')
    summary = tally.result()
    file.write(
        _embed("summary", {**summary.to_dict(), "about": {str(k): hide(str(v)) for k, v in (about or {}).items()}})
    )
    file.write(_foot("run", summary_lines(summary)))
    return summary


def figures_page(figures: Figures) -> str:
    """Return tables and charts as an HTML page that needs nothing else."""
    data = {**figures.to_dict(), "about": {str(k): hide(str(v)) for k, v in figures.about.items()}}
    return _head("study", figures.title) + _embed("figures", data) + _foot("study", figures.lines())


def _chunks(items: Iterable[Item], tally: SummaryTally, most: int | None) -> Iterator[tuple[list[Any], list[str]]]:
    """Yield lines of the table with their trees as JSON, enough to be worth packing."""
    rows: list[Any] = []
    trees: list[str] = []
    size = 0
    for place, item in enumerate(items):
        entry = Entry.of(item)
        tally.add(entry)
        rows.append(row(place, entry))
        trees.append(_json(record(entry) if most is None or place < most else {"left_out": most}))
        size += len(trees[-1])
        if size > CHUNK or len(rows) == ROWS:
            yield rows, trees
            rows, trees, size = [], [], 0
    if rows:
        yield rows, trees


def _head(kind: str, title: str) -> str:
    style, script = _assets(kind)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{_static(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f'<header id="head"><h1>{_static(title)}</h1></header>\n'
        '<main id="app" aria-busy="true"><p id="loading">Reading the page …</p></main>\n'
    )


def _foot(kind: str, lines: Iterable[str]) -> str:
    """Return the end of a page: what a reader without scripts sees, and the script."""
    plain = _static("\n".join(lines))
    return f"<noscript><pre>{plain}</pre></noscript>\n<script>{_assets(kind)[1]}</script>\n</body>\n</html>\n"


@lru_cache(maxsize=3)
def _assets(kind: str) -> tuple[str, str]:
    """Return a page's style and script."""
    folder = files("tpo_core.report") / "static"
    style, script = (
        "\n".join((folder / name).read_text(encoding="utf-8") for name in names[kind]) for names in (_STYLES, _SCRIPTS)
    )
    return style, f'"use strict";\n(() => {{\n{script}\n}})();\n'


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embed(name: str, data: Any, kind: str = "") -> str:
    """Return data as a block that no browser runs and no text inside can end."""
    where = f'id="{name}"' if name else f'class="{kind}"'
    return f'<script type="application/json" {where}>{_inert(_json(data))}</script>\n'


def _json(data: Any) -> str:
    """Return ASCII JSON: lone surrogates and marks that reorder text are escapes in it."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _inert(text: str) -> str:
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _static(text: str) -> str:
    """Return text as markup; controls and marks that reorder what is read are replaced."""
    shown = ("\ufffd" if unicodedata.category(c) in _UNSEEN and c not in _USED else c for c in text)
    return html.escape("".join(shown))
