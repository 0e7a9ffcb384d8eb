"""What ``tpo run`` shows while it goes on: a few lines that change on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tpo_core.runs import Tally

__all__ = ["Live", "figures"]

EVERY = 10.0
"""Seconds between two plain lines."""


def figures(tally: Tally) -> list[str]:
    """Write how far a run is, in four lines or fewer."""
    return [*filter(None, (_queries(tally), _spent(tally), _rewards(tally), _requests(tally)))]


class Live:
    """Shows a run's tally; a context manager.

    Args:
        tally: Is read while the run goes on.
        console: Where to show it; standard error by default, so that standard output stays the command's own.
        quiet: Show nothing.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        tally: Tally,
        console: Console | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Find out where the output goes."""
        from rich.console import Console

        self._tally, self._quiet, self._clock = tally, quiet, clock
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Any = None
        self._said = clock()

    def __enter__(self) -> Live:
        """Begin; on a terminal the lines are drawn anew four times a second."""
        if not self._quiet and self._console.is_terminal:
            import rich.live

            self._live = rich.live.Live(console=self._console, get_renderable=self._drawn, transient=True)
            self._live.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """End; the lines are taken away."""
        if self._live is not None:
            self._live.stop()

    def ended(self) -> None:
        """Say a plain line if it is time; to be called whenever a query has ended."""
        if self._quiet or self._live is not None or self._clock() - self._said < EVERY:
            return
        self._said = self._clock()
        self._console.print("; ".join(figures(self._tally)), markup=False, soft_wrap=True)

    def _drawn(self) -> Any:
        from rich.text import Text

        return Text("\n".join(figures(self._tally)), overflow="ellipsis", no_wrap=True)


def _queries(tally: Tally) -> str:
    of = "" if tally.total is None else f" of {tally.total:,}"
    parts = [f"{tally.all_done:,}{of} done", f"{tally.all_failed:,} failed", f"{tally.on_their_way:,} on their way"]
    if tally.done + tally.failed:
        parts.append(f"{_short((tally.done + tally.failed) / max(tally.seconds, 1e-9))} queries/s")
    if (left := tally.seconds_left) is not None:
        parts.append(f"{_time(left)} left")
    return ", ".join(parts)


def _spent(tally: Tally) -> str:
    tokens = tally.usage.tokens
    parts = [f"{_short(tokens)} tokens", f"{_short(tally.spent.tokens / max(tally.seconds, 1e-9))}/s"]
    if (expected := tally.expected(tokens)) is not None:
        parts.append(f"about {_short(expected)} at the end")
    if (dollars := tally.dollars) is not None:
        parts.append(f"${dollars:,.2f}")
        if (expected := tally.expected(dollars)) is not None:
            parts.append(f"about ${expected:,.2f} at the end")
    return ", ".join(parts)


def _rewards(tally: Tally) -> str:
    if not tally.compared:
        return ""
    first, best = tally.first_best / tally.compared, tally.best / tally.compared
    return f"reward {first:.4g} of the first best, {best:.4g} of the best; {tally.gained / tally.compared:.0%} gained"


def _requests(tally: Tally) -> str:
    limit = "" if tally.limit is None else f", at most {tally.limit:,}"
    return f"{tally.requests_out:,} requests in flight{limit}"


def _short(number: float) -> str:
    """Write a number in three digits and a letter.

    Example:
        >>> _short(1234567), _short(12.3), _short(0.5)
        ('1.23 M', '12.3', '0.5')
    """
    size, letter = next((each for each in _SIZES if number >= each[0]), (1, ""))
    return f"{number / size:.3g} {letter}".rstrip()


_SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _time(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds.

    Example:
        >>> _time(75), _time(3700)
        ('1:15', '1:01:40')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
