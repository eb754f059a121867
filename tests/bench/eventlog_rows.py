"""Reading and tallying job event logs, against HTCondor's own reader and against touching every byte."""

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import daylog
from children import DAY, LOG, Result, figures, living
from figures import Figures
from measure import Contender, Goal, Row, Setup

from ewms.tms.board import Board
from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.reader import Position
from ewms.tms.report import first_batch
from ewms.tms.sites import SiteTally

_JEL = "htcondor2.JobEventLog, iteration only"
_HTCONDORS_READER = """
import sys, time, htcondor2
started = time.process_time()
for event in htcondor2.JobEventLog(sys.argv[1]).events(0):
    pass
print(time.process_time() - started)
"""
_PER_SECOND = "events/s of one core"
"""Time on the processor counts: these are not slower, only later, when others use the machine."""


def rows(setup: Setup) -> list[Row]:
    """The rows of this group; their logs are written first."""
    path = setup.directory / "day.tms.jel"
    events = daylog.write(path, daylog.Day.of(20_000 if setup.quick else 600_000))
    setup.say(f"a day of {events:,} events, {path.stat().st_size / 1e6:.0f} MB")

    def read(*sites: str) -> Contender:
        # In a process of its own, as its references: this one has a large heap and a progress bar.
        return lambda: events / figures("read", path, *sites)["on the processor"]

    return [
        Row(
            "job event log, read and tallied",
            _PER_SECOND,
            {
                # As a TMS does it.
                "ours: statuses, errors, and failures by site and host": read("sites"),
                "ours, statuses and errors only": read(),
                _JEL: lambda: events / _htcondors_reader(path),
                "grep -c": lambda: events / grep(path),
            },
            [Goal(1_000_000), Goal(8, _JEL)],
        ),
        *_first_reports(setup),
        *_memory(setup),
        *_one_change(setup),
    ]


def grep(path: Path) -> float:
    """Touch every byte of a log, and count its terminators; the seconds on the processor."""
    return _child(["grep", "-c", r"^\.\.\.$", str(path)])["on the processor"]


def _child(command: Sequence[str]) -> Result:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after, passed = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    used = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return {"passed": passed, "on the processor": used}


def _htcondors_reader(path: Path) -> float:
    # A process of its own: a second iteration in one process would find warm caches.
    command = [sys.executable, "-c", _HTCONDORS_READER, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


# --- a start ---


def _first_reports(setup: Setup) -> list[Row]:
    directory = setup.directory / "large"
    directory.mkdir()
    events = daylog.write(directory / LOG, daylog.Day.of(20_000 if setup.quick else 10_000_000))
    size = (directory / LOG).stat().st_size
    setup.say(f"a large day of {events:,} events, {size / 1e6:.0f} MB")

    def start(*, anew: bool) -> Result:
        for path in directory.iterdir():
            if path.name != LOG and anew:
                shutil.rmtree(path)
        # The child imports the WMS's stand-in, too; so its imports do not count, but what a TMS imports does.
        imports = _child([sys.executable, "-c", "import ewms.tms.service"])
        return {clock: imports[clock] + each for clock, each in figures("first_report", directory).items()}

    def row(what: str, work: Figures, goal: float) -> Row:
        name = f"from the start of a TMS to its first report, {events:,} events, {what}"
        contenders = {"ours": work["passed"], "ours, time on the processor": work["on the processor"]}
        return Row(name, "s", contenders, [Goal(goal)], less_is_better=True)

    return [
        row("no checkpoint", Figures(lambda: start(anew=True)), 12),
        row("checkpoint", Figures(lambda: start(anew=False)), 1),
    ]


# --- memory ---


def _memory(setup: Setup) -> list[Row]:
    jobs = 20_000 if setup.quick else 200_000
    work = Figures(lambda: figures("memory", jobs))
    return [
        Row(name, "bytes", {"ours": work[which]}, goals, less_is_better=True)
        for name, which, goals in (
            ("memory of a living job, beyond the base", "living", [Goal(120)]),
            ("memory that an ended job leaves, its cluster gone", "ended", []),
        )
    ]


# --- one job of a million ---


def _one_change(setup: Setup) -> list[Row]:
    jobs = 20_000 if setup.quick else 1_000_000
    board, sites = Board(), SiteTally()
    result = board.tally(LOG)
    for piece in living(jobs):
        sites.take(result.feed(piece), DAY)
    board.accepted(board.changed())
    result.dump(), sites.dump()

    def change(number: int) -> None:
        event = ("004", "Job was evicted.") if number % 2 else ("001", "Job executing on host: <x>")
        data = f"{event[0]} (201.007.000) {DAY} 11:00:00Z {event[1]}\n...\n".encode()
        sites.take(result.feed(data), DAY)

    def report() -> None:
        batch = first_batch(board.changes())
        assert len(batch) == 1
        json.dumps({each.uuid: [each.compound_statuses, each.top_task_errors] for each in batch})
        board.accepted(batch)

    def save() -> None:
        path = setup.directory / "checkpoint"
        checkpoint.save(path, checkpoint.dump(checkpoint.Checkpoint(Position(), result, sites)))

    return [
        Row(
            f"one changed job among {jobs:,}: from its line to the body of the report, CPU",
            "ms",
            {"ours": _cpu(change, report, rounds=200)},
            [Goal(1)],
            less_is_better=True,
        ),
        Row(
            f"one changed job among {jobs:,}: its checkpoint, CPU",
            "ms",
            {"ours": _cpu(change, save, rounds=10)},
            less_is_better=True,
        ),
    ]


def _cpu(change: Callable[[int], None], work: Callable[[], None], *, rounds: int) -> Contender:
    def run() -> float:
        started = time.process_time()
        for number in range(rounds):
            change(number)
            work()
        return 1000 * (time.process_time() - started) / rounds

    return run
