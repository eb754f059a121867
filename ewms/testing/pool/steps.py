"""Steps of a set-up that take their time: each says what it is doing, and fails with one clear line."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from ewms.groups import told_as
from ewms.pilot.containers.base import ContainerError
from ewms.pilot.containers.processes import Command, open_launcher

Progress = Callable[[str], None]

_TELL_EVERY_S: Final = 2
_LOOK_EVERY_S: Final = 0.25
_END_GRACE_S: Final = 5
_LONGEST_LINE: Final = 160
_READ_BYTES: Final = 16384
# The launcher's own files are new ones; this appends. It also says that a program is not there.
_LOGGED: Final = 'exec "$@" >> "$0" 2>&1'
# As apt and mmdebstrap, pip, and Apptainer have them.
_ERROR_MARKS: Final = ("E: ", "ERROR: ", "FATAL: ")


class PoolUnavailable(Exception):
    """No real pool here; the text is one line that names the condition that failed, and what to do."""


class PythonMissing(PoolUnavailable):
    """A Python that only other people's software needs, and that no file of this project can install."""


async def run_step(
    what: str, argv: Sequence[str], *, progress: Progress, log: Path, env: Mapping[str, str] | None = None
) -> None:
    """Run one command to its end; its output goes to the end of `log`, its newest line to `progress`.

    However it, or this process, ends (kill -9, too), nothing that it started lives on. `env` is its whole environment,
    ours by default.

    Raises:
        PoolUnavailable: it failed; with the line of its output that says why.
    """
    with log.open("ab") as output:
        start = output.tell()
    command = Command(
        argv=("/bin/sh", "-c", _LOGGED, str(log), *argv),
        env=os.environ if env is None else env,
        cwd=Path.cwd(),
        stdout=Path(os.devnull),
        stderr=Path(os.devnull),
        term_wait=_END_GRACE_S,
    )
    with told_as(ContainerError, lambda errors: PoolUnavailable(f"{what} failed: {errors[0]}")):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, what, log, start, progress)
            async with open_launcher() as launcher, launcher.run(command) as process:
                ended = await process.wait()
            nursery.cancel_scope.cancel()
    if ended.code:
        why = complaint(log, start) or f"exit status {ended.code}"
        raise PoolUnavailable(f"{what} failed: {why} (all of its output: {log})")


async def in_parallel(*steps: Callable[[], Awaitable[None]]) -> None:
    """Run all of `steps`; the first PoolUnavailable cancels the others and is raised, alone."""
    with told_as(PoolUnavailable, lambda errors: errors[0]):
        async with trio.open_nursery() as nursery:
            for step in steps:
                nursery.start_soon(step)


async def _tell(what: str, log: Path, start: int, progress: Progress) -> None:
    started = trio.current_time()
    told, told_at = "", -float(_TELL_EVERY_S)
    while True:
        now = trio.current_time()
        line = last_line(log, start).removeprefix("I: ")
        if line != told or now - told_at >= _TELL_EVERY_S:
            progress(f"{what} ({now - started:.0f} s)" + (f": {line}" if line else ""))
            told, told_at = line, now
        await trio.sleep(_LOOK_EVERY_S)


def last_line(log: Path, start: int = 0) -> str:
    """The last line that says something, of what stands in `log` after byte `start`."""
    return next(iter(reversed(_last_lines(log, start))), "")


def complaint(log: Path, start: int = 0) -> str:
    """Why a command failed: the first line of its output that tools mark as an error, else the last line.

    The first, because what follows is mostly about the consequences.
    """
    lines = _last_lines(log, start)
    return next((line for line in lines if line.startswith(_ERROR_MARKS)), "") or next(iter(reversed(lines)), "")


def _last_lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(start, stream.tell() - _READ_BYTES))
        text = stream.read().decode(errors="replace")
    return [line.strip()[:_LONGEST_LINE] for line in text.splitlines() if line.strip()]
