"""Reading and tallying a day's job event log, against HTCondor's own reader and against touching every byte."""

import subprocess
import sys
from pathlib import Path

import daylog
from measure import Goal, Row, Setup, rate

from ewms.tms.eventlog.reader import Position, read_on
from ewms.tms.eventlog.tally import Tally

_JEL = "htcondor2.JobEventLog, iteration only"
_HTCONDORS_READER = """
import sys, time, htcondor2
started = time.perf_counter()
for event in htcondor2.JobEventLog(sys.argv[1]).events(0):
    pass
print(time.perf_counter() - started)
"""


def rows(setup: Setup) -> list[Row]:
    """The rows of this group; the day is written first."""
    path = setup.directory / "day.tms.jel"
    events = daylog.write(path, daylog.Day.of(20_000 if setup.quick else 600_000))
    setup.say(f"a day of {events:,} events, {path.stat().st_size / 1e6:.0f} MB")
    return [
        Row(
            "job event log, read and tallied",
            "events/s",
            {
                "ours": rate(events, lambda: tally(path)),
                _JEL: lambda: events / _htcondors_reader(path),
                "grep -c": rate(events, lambda: grep(path)),
            },
            [Goal(1_000_000), Goal(8, _JEL)],
        )
    ]


def tally(path: Path) -> Tally:
    """All of a log, in the watcher's own batches."""
    result, position, more = Tally(), Position(), True
    while more:
        piece = read_on(path, position)
        result.feed(piece.data)
        position, more = piece.position, piece.more
    return result


def grep(path: Path) -> None:
    """Touch every byte of a log, and count its terminators."""
    subprocess.run(["grep", "-c", r"^\.\.\.$", path], check=True, capture_output=True)


def _htcondors_reader(path: Path) -> float:
    # A process of its own: a second iteration in one process would find warm caches.
    command = [sys.executable, "-c", _HTCONDORS_READER, str(path)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
