"""`nox -s bench`: ours against references, side by side in one run."""

import tempfile
from pathlib import Path

import click
import eventlog_rows
import tms_rows
from measure import Row, measure, save, show
from rich.console import Console

GROUPS = {"eventlog": eventlog_rows.rows, "tms": tms_rows.rows}


@click.command()
@click.option("--quick", is_flag=True, help="Small inputs, one run: proves that the bench works, measures nothing.")
@click.option("--group", "groups", multiple=True, type=click.Choice(sorted(GROUPS)), help="Only these; default all.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1))
@click.option("--out", default="bench.json", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(quick: bool, groups: tuple[str, ...], runs: int, out: Path) -> None:
    """Measure, show a table, and keep every run in a JSON file."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="ewms-bench-") as directory:
        rows: list[Row] = []
        for group in groups or sorted(GROUPS):
            console.print(f"preparing {group}")
            rows += GROUPS[group](Path(directory), quick=quick)
        results = measure(rows, 1 if quick else runs, console)
    show(results, console)
    save(results, out)
    console.print(f"all runs: {out}")


if __name__ == "__main__":
    main()
