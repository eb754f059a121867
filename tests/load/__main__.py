"""`nox -s load`: much of everything, for some minutes, and whether memory and open files stay what they are.

Examples:
    nox -s load                                   every part; RabbitMQ is a real one, and needs root
    nox -s load -- --part log --part taskforces
    nox -s load -- --tiny                         proves that it works, measures nothing
    nox -s load -- --docs docs/reliability.md     puts table and plot into the page

Parts: `taskforces` (1,000 of 100 workers through the WMS stand-in, a schedd in memory, virtual time), `log` (a day log
of 1 GB that grows while it is watched), `broker` (a million events in one queue), `pilots` (50 on this machine).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import machine

from tests.load import daylogs, pilots
from tests.load.sampling import Sample, Series, heard
from tests.marked import put, table

PATIENCE_S: Final = 3600
AS_A_SERVICE: Final = {"MALLOC_ARENA_MAX": "2"}
"""As the TMS's unit of systemd has it."""
ALLOWED_MB: Final = 10.0
"""Of each process: more growth than this is told as growth."""


def taskforces(tiny: bool, _seconds: float) -> Series:
    """Waves of taskforces; each wave should leave nothing."""
    waves, each, workers = (2, 5, 5) if tiny else (20, 50, 100)
    samples = _told_by("tests.load.taskforces", str(waves), str(each), str(workers))
    what = f"{waves * each:,} taskforces of {workers} workers, {each} at a time"
    return Series("taskforces", what, "taskforces", samples, settled=each * waves / 5)


def log(tiny: bool, _seconds: float) -> Series:
    """A growing day log; half of it belongs to the beginning, when its jobs come into being."""
    size = 1_000_000 if tiny else 1_000_000_000
    with tempfile.TemporaryDirectory(prefix="ewms-load-") as name:
        directory = Path(name)
        (directory / daylogs.NAME).touch()
        writer = threading.Thread(target=daylogs.write, args=(directory, size))
        writer.start()
        try:
            samples = _told_by("tests.load.daylogs", name)
        finally:
            writer.join()
    what = f"a day log of {size / 1e9:g} GB that grows while it is watched"
    return Series("log", what, "GB read", samples, settled=size / 1e9 / 2)


def _told_by(module: str, *arguments: str) -> list[Sample]:
    """The samples of a part that is a process of its own."""
    command = [sys.executable, "-m", module, *arguments]
    environ = os.environ | AS_A_SERVICE
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=PATIENCE_S, env=environ)
    return heard(done.stdout)


def broker(tiny: bool, seconds: float) -> Series:
    """As many of a million events as there is time for."""
    return _pilots("broker", pilots.Load(2, 1_000 if tiny else 1_000_000, seconds))


def fifty(tiny: bool, seconds: float) -> Series:
    """Many pilots; memory and descriptors are those of all together."""
    return _pilots("pilots", pilots.Load(3 if tiny else 50, 300 if tiny else 100_000, seconds))


def _pilots(part: str, load: pilots.Load) -> Series:
    outcome = pilots.run(load)
    seen = f"{outcome.connections} connections; {outcome.outputs:,} events done once, {outcome.left:,} left, 0 lost"
    what = f"{load.pilots} pilots on a queue of {load.events:,} events"
    return Series(part, what, "events", outcome.samples, outcome.samples[-1].done / 4, load.pilots, seen)


PARTS: Final[Mapping[str, Callable[[bool, float], Series]]] = {
    "taskforces": taskforces,
    "log": log,
    "broker": broker,
    "pilots": fifty,
}


def row(series: Series) -> tuple[str, ...]:
    """What the table says of a part."""
    memory, files = series.growth()
    last: Sample = series.samples[-1]
    return (
        series.what,
        f"{last.done:,.6g} {series.unit} in {last.at:,.0f} s",
        f"{max(each.memory for each in series.samples) / series.processes:,.1f}",
        f"{memory / series.processes:+,.1f}",
        f"{max(each.files for each in series.samples) / series.processes:,.4g}",
        f"{files / series.processes:+,.2g}",
        series.seen,
    )


HEADINGS: Final = ("part", "done", "most MB", "MB grown", "most descriptors", "grown", "besides")


def draw(every: Sequence[Series], path: Path) -> None:
    """One picture for each part: memory and descriptors over the work that was done."""
    # Imported here: who only measures needs no plotting library.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4 * len(every)), layout="constrained")
    for axes, series in zip(figure.subplots(len(every), squeeze=False)[:, 0], every, strict=True):
        done = [each.done for each in series.samples]
        axes.plot(done, [each.memory for each in series.samples], color="tab:blue")
        axes.set_ylabel("MB", color="tab:blue", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.axvline(series.settled, color="black", linewidth=0.6, linestyle=":")
        axes.set_title(series.what, fontsize=9)
        axes.set_xlabel(series.unit, fontsize=8)
        files = axes.twinx()
        files.plot(done, [each.files for each in series.samples], color="tab:orange")
        files.set_ylabel("descriptors", color="tab:orange", fontsize=8)
        files.set_ylim(bottom=0)
    figure.savefig(path, metadata={"Date": None})


def publish(every: Sequence[Series], command: str, page: Path) -> None:
    """Put table and plot between the page's marks `<!-- load: begin -->` and `<!-- load: end -->`."""
    picture = page.with_name(f"{page.stem}-load.svg")
    draw(every, picture)
    facts = ", ".join(f"{name} {value}" for name, value in machine.facts().items())
    shown = f"![Memory and descriptors over the work done]({picture.name})"
    put(page, "load", f"`{command}` · {facts}\n\n{table(HEADINGS, [row(each) for each in every])}\n{shown}\n")


def main(argv: Sequence[str]) -> int:
    """The command; 1 if something grew."""
    parser = argparse.ArgumentParser(
        prog="nox -s load --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only this one; may be repeated")
    parser.add_argument("--seconds", type=float, default=300.0, help="for pilots and broker, at most (default: 300)")
    parser.add_argument("--tiny", action="store_true", help="small inputs: proves that it works")
    parser.add_argument("--out", type=Path, default=Path("load.json"), help="all samples (default: load.json)")
    parser.add_argument(
        "--add", type=Path, action="append", default=[], help="samples of an earlier run, to be shown too"
    )
    parser.add_argument("--docs", type=Path, help="put table and plot into this page")
    options = parser.parse_args(argv)
    every = [_load(each) for path in options.add for each in json.loads(path.read_text())]
    for name in options.part or ([] if options.add else PARTS):
        print(f"{name} …", flush=True)
        series = PARTS[name](options.tiny, 20.0 if options.tiny else options.seconds)
        every.append(series)
        print(
            "  " + " · ".join(f"{head}: {cell}" for head, cell in zip(HEADINGS, row(series), strict=True)), flush=True
        )
    options.out.write_text(json.dumps([attrs.asdict(each) for each in every]))
    if options.docs is not None:
        publish(every, "nox -s load", options.docs)
    return int(not options.tiny and any(_grew(each) for each in every))


def _load(saved: dict[str, object]) -> Series:
    samples = [Sample(**each) for each in saved.pop("samples")]  # type: ignore[attr-defined]
    return Series(**saved, samples=samples)  # type: ignore[arg-type]


def _grew(series: Series) -> bool:
    memory, files = series.growth()
    return memory > ALLOWED_MB * series.processes or files > series.processes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
