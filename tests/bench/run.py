"""`nox -s bench`: ours against references, side by side in one run."""

import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import endtoend_rows
import eventlog_rows
import machine
import pilot_rows
import results
import tms_rows
from measure import CannotRun, Group, Measurement, Setup, measure
from rich.console import Console

GROUPS: dict[str, Group] = {
    "eventlog": eventlog_rows.rows,
    "tms": tms_rows.rows,
    "pilot": pilot_rows.throughput,
    "pilotcost": pilot_rows.cost,
    "endtoend": endtoend_rows.rows,
}


@click.command()
@click.option("--quick", is_flag=True, help="Small inputs, one run: proves that the bench works, measures nothing.")
@click.option("--group", "groups", multiple=True, type=click.Choice(sorted(GROUPS)), help="Only these; default all.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1), help="How often each contender runs.")
@click.option(
    "--runs-of",
    multiple=True,
    type=(click.Choice(sorted(GROUPS)), click.IntRange(1)),
    metavar="GROUP N",
    help="Another number for one group: a run of endtoend takes 20 minutes.",
)
@click.option("--out", default="bench.json", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--docs",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Put these groups' tables and plots into this Markdown file (docs/performance.md).",
)
def main(
    *,
    quick: bool,
    groups: tuple[str, ...],
    runs: int,
    runs_of: tuple[tuple[str, int], ...],
    out: Path,
    docs: Path | None,
) -> None:
    """Measure, show tables, and keep every run in a JSON file."""
    console = Console()
    command = shlex.join(["nox", "-s", "bench", "--", *sys.argv[1:]])
    # Before the first table goes into the docs: that alone would make the version a dirty one.
    facts = machine.facts()
    done: list[Measurement] = []
    for group in groups or tuple(GROUPS):
        try:
            measurement = run_group(group, quick, 1 if quick else dict(runs_of).get(group, runs), console)
        except CannotRun as reason:
            if os.environ.get("EWMS_TEST_REQUIRED"):  # as `.ci/run` sets it: what is skipped proves nothing
                raise
            console.print(f"{group}: skipped: {reason}")
            continue
        done.append(measurement)
        results.show(measurement, console)
        # After each group: what was measured stays when a later one is interrupted.
        results.save(done, facts, out)
        if docs is not None:
            results.publish([measurement], facts, command, docs)
    console.print(f"all runs: {out}")


def run_group(group: str, quick: bool, runs: int, console: Console) -> Measurement:
    """One group from its preparation to its end; raises `CannotRun`."""
    with tempfile.TemporaryDirectory(prefix="ewms-bench-") as directory, ExitStack() as stack:
        console.print(f"preparing {group}")
        setup = Setup(Path(directory), quick, stack, lambda text: console.print(f"  {text}"))
        return measure(group, GROUPS[group](setup), runs, console)


if __name__ == "__main__":
    main()
