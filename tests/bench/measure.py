"""Side by side: every row runs its contenders alternately, in one run, and keeps each run's figure.

A group is a function that makes rows from a `Setup`. A row's contenders each do the same work once per run and return
one figure in the row's unit; the first contender is ours, the others are what it is compared with. The load of the
machine changes while a bench runs, so what is compared is what ran directly one after the other: a ratio is the median
of each run's own ratio.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import attrs
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Contender = Callable[[], float]
"""Does its work once and returns its figure."""


class CannotRun(Exception):
    """What a group or a contender needs is not on this machine; the text says what."""


@attrs.frozen
class Skipped:
    """Stands for a contender that cannot run here."""

    why: str


@attrs.frozen
class Goal:
    """What ours shall reach: at least, or at most where less is better."""

    bound: float
    beside: str = ""
    """Of our figure divided by this contender's; empty: of our figure itself."""


@attrs.frozen
class Row:
    """One thing measured: ours and what it is compared with."""

    name: str
    unit: str
    """What a figure is in: `events/s`, `ms`, `bytes per job`."""
    contenders: Mapping[str, Contender | Skipped]
    """Name → contender; the first one is ours."""
    goals: Sequence[Goal] = ()
    less_is_better: bool = False


@attrs.frozen
class Setup:
    """What a group makes its rows from."""

    directory: Path
    """Empty; gone after the group."""
    quick: bool
    """Only prove that it works: small inputs, one run."""
    stack: ExitStack
    """What the rows need as long as they are measured (a broker, a pool) is entered here, and left after the group."""
    say: Callable[[str], None]


Group = Callable[[Setup], Sequence[Row]]
"""Raises `CannotRun` if the whole group cannot run on this machine."""


@attrs.frozen
class Measured:
    """A row's figures: of each contender that could run, one for each run."""

    row: Row
    runs: Mapping[str, Sequence[float]]

    @property
    def ours(self) -> str:
        """The name of the first contender."""
        return next(iter(self.row.contenders))

    def median(self, name: str) -> float:
        """A contender's usual figure."""
        return statistics.median(self.runs[name])

    def spread(self, name: str) -> float:
        """(largest - smallest) / median."""
        median = self.median(name)
        return (max(self.runs[name]) - min(self.runs[name])) / median if median else 0.0

    def ratio(self, name: str) -> float:
        """Our figure divided by this contender's: the median of what each run gave."""
        pairs = zip(self.runs[self.ours], self.runs[name], strict=True)
        return statistics.median(ours / theirs if theirs else float("inf") for ours, theirs in pairs)

    def reached(self, goal: Goal) -> float | None:
        """What a goal is about; None where a contender could not run."""
        if self.ours not in self.runs or (goal.beside and goal.beside not in self.runs):
            return None
        return self.ratio(goal.beside) if goal.beside else self.median(self.ours)

    def advantage(self, figure: float, bound: float) -> float:
        """How many times better than `bound` a figure of ours is."""
        better, worse = (bound, figure) if self.row.less_is_better else (figure, bound)
        return better / worse if worse else float("inf")


@attrs.frozen
class Measurement:
    """One group's rows, and what else the machine did meanwhile."""

    group: str
    rows: Sequence[Measured]
    runs: int
    began: datetime
    seconds: float
    load_before: float
    load_after: float
    """Mean number of running processes in the minute before; our own share is about one."""


def measure(group: str, rows: Sequence[Row], runs: int, console: Console) -> Measurement:
    """Run every row's contenders alternately, `runs` times."""
    began, started, load = datetime.now(UTC), time.perf_counter(), os.getloadavg()[0]
    total = runs * sum(len(_able(row)) for row in rows)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)

        def run(row: Row) -> Measured:
            figures: dict[str, list[float]] = {name: [] for name in _able(row)}
            for _ in range(runs):
                for name, contender in _able(row).items():
                    progress.update(task, description=f"{row.name}: {name}")
                    figures[name].append(contender())
                    progress.advance(task)
            return Measured(row, figures)

        measured = [run(row) for row in rows]
    return Measurement(group, measured, runs, began, time.perf_counter() - started, load, os.getloadavg()[0])


def _able(row: Row) -> dict[str, Contender]:
    return {name: each for name, each in row.contenders.items() if not isinstance(each, Skipped)}
