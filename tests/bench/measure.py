"""Side by side: every row runs its contenders alternately, in one run, and gives medians, spread and ratios."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Contender = Callable[[], float]
"""Does its work once and returns how many seconds it took."""


@attrs.frozen
class Row:
    """One thing measured: ours and its references, all doing the same `units` of work."""

    name: str
    unit: str
    units: int
    contenders: Mapping[str, Contender]
    """Name → contender; the first one is ours."""


@attrs.frozen
class Result:
    """What one contender of one row reached."""

    row: str
    contender: str
    unit: str
    rates: Sequence[float]
    """Units per second of each run."""

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """(largest - smallest) / median."""
        return (max(self.rates) - min(self.rates)) / self.median


def timed(work: Callable[[], object]) -> Contender:
    """A contender whose whole work counts."""

    def run() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return run


def measure(rows: Sequence[Row], runs: int, console: Console) -> list[Result]:
    """Run every row's contenders alternately, `runs` times."""
    results = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=runs * sum(len(row.contenders) for row in rows))
        for row in rows:
            rates: dict[str, list[float]] = {name: [] for name in row.contenders}
            for _ in range(runs):
                for name, contender in row.contenders.items():
                    progress.update(task, description=f"{row.name}: {name}")
                    rates[name].append(row.units / contender())
                    progress.advance(task)
            results += [Result(row.name, name, row.unit, each) for name, each in rates.items()]
    return results


def show(results: Sequence[Result], console: Console) -> None:
    """The table, with each contender's ratio to the row's first one."""
    table = Table("row", "contender", "median /s", "spread", "ours is", title="ours against the references, one run")
    ours = 0.0
    seen = ""
    for result in results:
        if result.row != seen:
            seen, ours = result.row, result.median
        ratio = "" if result.median == ours else f"{ours / result.median:.2f} x"
        table.add_row(
            result.row, result.contender, f"{result.median:,.0f} {result.unit}", f"{result.spread:.0%}", ratio
        )
    console.print(table)


def save(results: Sequence[Result], path: Path) -> None:
    """`bench.json`: all runs, with the machine that they were made on."""
    machine = {"python": platform.python_version(), "kernel": platform.release(), "processor": platform.machine()}
    rows = [attrs.asdict(result) | {"median": result.median, "spread": result.spread} for result in results]
    path.write_text(json.dumps({"machine": machine, "results": rows}, indent=1))
