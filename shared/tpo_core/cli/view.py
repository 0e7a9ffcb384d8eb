"""What ``tpo ask`` shows while it happens, and at the end. Model text is shown as text: no markup, no escapes."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tpo_core.cli.text import clean
from tpo_core.config import TPOConfig
from tpo_core.loop.effects import Progress
from tpo_core.trajectory import Trajectory
from tpo_core.values import Candidate

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Quiet", "Show", "View"]

_NEXT = {"scored": "comparing the best with the worst", "loss": "writing instructions", "gradient": "rewriting"}


class View(Protocol):
    """Where a run is shown."""

    def __enter__(self) -> View:
        """Begin."""

    def __exit__(self, *exc: Any) -> None:
        """End, whatever happened."""

    def open(self, query: str, model: str, reward: Any, config: TPOConfig) -> None:
        """Show what is about to happen."""

    def note(self, lines: Sequence[str]) -> None:
        """Say which better models there are."""

    def busy(self, doing: str) -> None:
        """Say what is being waited for."""

    def progress(self, progress: Progress) -> None:
        """Show what just happened."""

    def close(self, trajectory: Trajectory) -> None:
        """Show the outcome."""


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Quiet:
        """Begin."""
        return self

    def __exit__(self, *exc: object) -> None:
        """End."""

    def open(self, query: str, model: str, reward: Any, config: TPOConfig) -> None:
        """Show nothing."""

    def note(self, lines: Sequence[str]) -> None:
        """Show nothing."""

    def busy(self, doing: str) -> None:
        """Show nothing."""

    def progress(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self, trajectory: Trajectory) -> None:
        """Show nothing."""


class Show:
    """Shows a run on a terminal as it goes on; plain lines where the output is not a terminal.

    Args:
        console: Where to show it; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Find out where the output goes."""
        from rich.console import Console

        self._console = console or Console(highlight=False)
        self._status: Any = None
        self._config = TPOConfig()

    def __enter__(self) -> Show:
        """Start the line that says what is going on, on a terminal."""
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the line away."""
        if self._status is not None:
            self._status.stop()

    def open(self, query: str, model: str, reward: Any, config: TPOConfig) -> None:
        """Show the query and the settings."""
        self._config = config
        self._line(query, style="bold")
        self._line(
            f"{model}, reward {getattr(reward, 'name', reward)}, "
            f"{config.mode} with width {config.width} and depth {config.rounds}: up to {config.samples} samples",
            style="dim",
        )

    def note(self, lines: Sequence[str]) -> None:
        """Say which better models there are; where there is none, how to name one."""
        self._line("This is the embedded model, which is very small; none is used unless you name it.", style="yellow")
        for line in lines or ["others: --api-base URL of an OpenAI-compatible server, --model provider/name"]:
            self._line(line, style="yellow", indent=2)

    def busy(self, doing: str) -> None:
        """Say what is being waited for."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(clean(f"{doing} ...")))

    def progress(self, progress: Progress) -> None:
        """Show a round's answers with their rewards, the critique, or the instructions."""
        if progress.kind == "scored":
            title = "first answers" if progress.step == 0 else f"round {progress.step}: new answers"
            self._heading(title)
            for candidate in sorted(progress.candidates, key=_rank):
                self._candidate(candidate, progress.best)
            self.busy(_NEXT["scored"] if progress.step < self._config.rounds else "finishing")
        elif progress.kind in ("loss", "gradient"):
            self._heading(f"round {progress.step}: {self._written(progress)}")
            self._line(progress.text.strip(), style="italic", indent=2)
            self.busy(_NEXT[progress.kind])

    def _written(self, progress: Progress) -> str:
        """Name what the critic wrote; where a round has several critiques, by the rewards of what they compare."""
        chosen, rejected = (progress.round.chosen, progress.round.rejected) if progress.round else (None, None)
        about = ""
        if chosen is not None and (self._config.critiques > 1 or self._config.plan == "adaptive"):
            about = f" ({chosen.reward:+.2f}" + (f" over {rejected.reward:+.2f})" if rejected is not None else ")")
        if progress.kind == "gradient":
            return f"instructions{about}"
        if rejected is None:
            return f"what {'this answer' if about else 'the best'} lacks{about}"
        return f"why the one is better than the other{about}" if about else "why the best is better than the worst"

    def close(self, trajectory: Trajectory) -> None:
        """Show the first best answer beside the final one, and what it cost."""
        best, first = trajectory.best, trajectory.initial_best
        if first is None or first.index == best.index:
            self._heading(f"answer (reward {best.reward:+.2f}; no later answer scored higher)")
            self._line(best.response)
            self._remarks(best)
        elif self._console.is_terminal and self._console.width >= 60:
            self._beside(first, best)
        else:
            self._heading(f"first best (reward {first.reward:+.2f})")
            self._line(first.response)
            self._remarks(first)
            self._heading(f"final answer (reward {best.reward:+.2f}, gain {trajectory.gain:+.2f})")
            self._line(best.response)
            self._remarks(best)
        self._console.print()
        self._line(_cost(trajectory), style="dim")
        if trajectory.diagnosis:
            self._line(f"note: {trajectory.diagnosis}", style="yellow")

    def _beside(self, first: Candidate, best: Candidate) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        gain = (best.reward or 0.0) - (first.reward or 0.0)
        table = Table(box=SIMPLE_HEAD, expand=True, padding=(0, 1))
        table.add_column(f"first best (reward {first.reward:+.2f})", ratio=1)
        table.add_column(f"final answer (reward {best.reward:+.2f}, gain {gain:+.2f})", ratio=1, style="green")
        table.add_row(Text(clean(first.response)), Text(clean(best.response)))
        if first.feedback or best.feedback:
            remarks = [Text(clean(c.feedback or ""), style="dim") for c in (first, best)]
            table.add_row(*remarks)
        self._console.print(table)

    def _candidate(self, candidate: Candidate, best: Candidate | None) -> None:
        text = " ".join(candidate.response.split())
        if candidate.failure is not None:
            reason = f"{candidate.failure.reason}: {candidate.failure.message}".rstrip(": ")
            text = _cut(f"not a candidate ({reason}) {text}", self._console.width * 2)
            self._line(f"   ---  {text}", style="dim", indent=2)
            return
        mark = "*" if best is not None and candidate.index == best.index else " "
        kind = "" if candidate.fresh or candidate.step == 0 else "rewritten: "
        self._line(f"{mark} {candidate.reward:+.2f}  {kind}{text}", style="green" if mark == "*" else "", indent=2)
        self._remarks(candidate, indent=11)

    def _remarks(self, candidate: Candidate, indent: int = 0) -> None:
        """Show what the reward said beside the number, where it said anything."""
        if candidate.feedback:
            told = _cut(" ".join(candidate.feedback.split()), self._console.width * 2)
            self._line(told, style="dim", indent=indent)

    def _heading(self, text: str) -> None:
        self._console.print()
        self._line(text, style="bold cyan")

    def _line(self, text: str, style: str = "", indent: int = 0) -> None:
        from rich.padding import Padding
        from rich.text import Text

        shown = Text(clean(text), style=style)
        if self._console.is_terminal:
            self._console.print(Padding(shown, (0, 0, 0, indent)))
        else:
            shown.plain = "\n".join(" " * indent + line for line in shown.plain.splitlines())
            self._console.print(shown, soft_wrap=True)


def _rank(candidate: Candidate) -> float:
    return -candidate.reward if candidate.reward is not None else float("inf")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 4] + " ..."


def _cost(trajectory: Trajectory) -> str:
    used, judged = trajectory.usage, trajectory.reward_usage
    parts = [f"{used.calls} samples", f"{'about ' if used.estimated else ''}{used.tokens:,} tokens"]
    if judged.tokens:
        parts.append(f"{judged.tokens:,} tokens of the judge")
    parts.append(f"{trajectory.seconds.get('total', 0.0):.0f} s")
    if trajectory.stop_reason != "depth":
        parts.append(f"stopped by {trajectory.stop_reason}")
    return ", ".join(parts)
