"""`ewms pilot try`: a real pilot, once, on its author's machine, with files as events and the embedded broker.

What runs is the pilot itself, mounts, environment, placeholders and limits included. Around it stand: `plan.py`, which
makes its settings; `watch.py`, which looks at its containers; `found.py`, which gathers what became of each event;
`advice.py` and `show.py`, which say it (pure); and `run.py`, which does all that in its order.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import trio

from ewms import logs
from ewms.pilot.directories import read_tail, remove_tree
from ewms.pilot.errors import ExitStatus
from ewms.pilot.settings import PilotSettings, read, without_effect
from ewms.pilot.trial.plan import OF_A_TRIAL, Plan, TriedEvent, environ_of, missing_images, pairs, read_events
from ewms.pilot.trial.run import run
from ewms.settings import SettingsError

_LOG_TAIL = 4096

__all__ = ["Plan", "main", "pairs"]


def main(plan: Plan, paths: Sequence[Path], environ: Mapping[str, str], *, keep: bool) -> int:
    """Try `plan` on the events in `paths`, print what happened; the exit status.

    Raises:
        SettingsError: with a line for each problem; nothing was run then.
    """
    terminal = sys.stdout

    def say(line: str) -> None:
        print(line, file=terminal, flush=True)

    with _directory(keep=keep) as directory:
        tried, production, settings = _read(plan, paths, environ, directory)
        for line in without_effect(environ):
            say(f"please note: {line}")
        log = directory / "pilot.log"
        # The pilot's own words go there: they are for operators.
        with log.open("w") as stream, redirect_stdout(stream), redirect_stderr(stream):
            logs.configure(settings.cl_log.upper(), settings.cl_log_third_party.upper(), stream=stream)
            status = trio.run(run, settings, production, tried, directory, say)
        if status is ExitStatus.BUG:
            say(read_tail(log, _LOG_TAIL))
        if keep:
            say(f"All files are in {directory}; the pilot's own log is {log}")
    return status


def _read(
    plan: Plan, paths: Sequence[Path], environ: Mapping[str, str], directory: Path
) -> tuple[list[TriedEvent], PilotSettings, PilotSettings]:
    """The events, and the settings in production and here; all that is wrong with them is told at once."""
    problems: list[str] = []
    tried: list[TriedEvent] = []
    try:
        tried = read_events(paths)
    except SettingsError as error:
        problems += error.problems
    try:
        as_in_production = environ_of(plan, environ, directory)
        problems += missing_images(plan, as_in_production)
        production, settings = read(as_in_production), read({**as_in_production, **OF_A_TRIAL})
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from error
    if problems:
        raise SettingsError(problems)
    return tried, production, settings


@contextmanager
def _directory(*, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="ewms-try-")).resolve()
    try:
        yield directory
    finally:
        if not keep:
            trio.run(remove_tree, directory)
