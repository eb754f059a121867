"""One run of one event's task: its directory and infile, the container, the outfile."""

import math
import sys
from contextlib import AsyncExitStack
from itertools import count
from typing import Final, TextIO

import attrs
import structlog
import trio

from ewms.pilot import containment, events
from ewms.pilot.containers.base import Begun, Mount, Platform
from ewms.pilot.directories import DataDirectory, RunDirectory, TaskDirectory, read_outfile, read_tail, tree_size
from ewms.pilot.errors import BadEvent, DataDirectoryError, TaskError
from ewms.pilot.output import say
from ewms.pilot.resources import Resources, Used, megabytes
from ewms.pilot.settings import PilotSettings, extension
from ewms.pilot.spares import Spares
from ewms.pilot.stopping import Stopping
from ewms.pilot.tally import last_line
from ewms.secret import redact

log = structlog.stdlib.get_logger(__name__)

DUMP_BYTES: Final = 64 * 1024
"""So much of the end of a task's stdout, and of its stderr, is copied to the pilot's own."""
CLEANING_LIMIT_S: Final = 5.0
"""For removing a run's files when the pilot has no more time."""
_ID_CHARS: Final = 16


class Interrupted(Exception):
    """The grace was over before the task was."""


@attrs.frozen(kw_only=True)
class Tasks:
    """Runs tasks, each in a container and a directory of its own."""

    settings: PilotSettings
    pilot_id: str
    platform: Platform
    recipe: containment.Recipe
    data: DataDirectory
    spares: Spares
    stopping: Stopping
    resources: Resources = attrs.field(factory=Resources)
    _numbers: "count[int]" = attrs.field(factory=lambda: count(1), init=False)

    async def run(self, event: events.Event, afterwards: AsyncExitStack) -> bytes | None:
        """Run one task; what its outfile holds, None if there is none.

        What nobody waits for (removing its files, telling that it succeeded) is left to `afterwards`.

        Raises:
            TaskError: it failed; its files are kept, its stdout and stderr are shown.
            Interrupted: it was killed because the pilot has to go.
            ContainerError: the runtime could not start it.
            DataDirectoryError: its files could not be made.
        """
        infile = _infile_of(event, self.settings)
        task, begun = self.spares.task(
            # Pilots may share a data directory, and an event may come twice.
            f"{_file_name_part(event.event_id)}-{self.pilot_id.rpartition('-')[2]}-{next(self._numbers)}",
            extension(self.settings.infile_ext),
            extension(self.settings.outfile_ext),
        )
        run = _Run(task)
        afterwards.push_async_callback(self._clean, run)
        if begun is not None:
            afterwards.push_async_callback(begun.aclose)
        try:
            self.data.write_infile(task, infile)
            output = await self._contained(run, begun)
        except TaskError as error:
            run.failed = True
            self._check_room(task, error)
            used = self._count(run)
            log.info("task failed", task=task.run_id, **used.as_dict(), error=last_line(redact(str(error))))
            raise
        except Interrupted:
            log.info("task stopped", task=task.run_id, **run.used().as_dict())
            raise
        else:
            run.wall_s = trio.current_time() - run.began
            afterwards.callback(self._tell_success, run)
            return output
        finally:
            if run.failed or self.settings.dump_task_output:
                dump(task)

    def _check_room(self, task: TaskDirectory, error: TaskError) -> None:
        """Raise `DataDirectoryError` if the disk is full, and not by this task alone."""
        if self.data.room() + tree_size(task.root) < self.settings.min_free_disk:
            raise DataDirectoryError(f"the disk is full ({self.data.room()} bytes are free): {error}") from error

    def _tell_success(self, run: "_Run") -> None:
        log.info("task done", task=run.task.run_id, **self._count(run).as_dict())

    def _count(self, run: "_Run") -> Used:
        used = run.used()
        self.resources.add(used)
        return used

    async def _contained(self, run: "_Run", begun: Begun | None) -> bytes | None:
        task, io = run.task, containment.task_io_mount(run.task)
        with self.stopping.task() as scope:
            await containment.run(
                self.platform,
                self.recipe,
                task,
                mounts=(io,),
                paths=self._paths(task, io),
                meter=run.meter,
                begun=begun,
            )
        if scope.cancelled_caught:
            raise Interrupted
        return read_outfile(task.outfile, min(events.MAX_DATA_BYTES, self.recipe.limits.output or math.inf))

    def _paths(self, task: TaskDirectory, io: Mount) -> containment.Paths:
        inside = self.platform.path_inside(io)
        return containment.Paths(
            infile=f"{inside}/{task.infile_name}",
            outfile=f"{inside}/{task.outfile_name}",
            data_hub=str(self.platform.path_inside(containment.hub_mount(self.data))),
        )

    async def _clean(self, run: "_Run") -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
            if run.failed:
                await self.data.keep(run.task)
            elif self.settings.keep_all_task_files:
                await self.data.keep_unlimited(run.task)
            else:
                await self.data.drop(run.task)


@attrs.define
class _Run:
    """One run, and how it went."""

    task: TaskDirectory
    meter: containment.Meter = attrs.field(factory=containment.Meter)
    began: float = attrs.field(factory=trio.current_time)
    wall_s: float | None = None
    """None as long as it has not succeeded."""
    failed: bool = False

    def used(self) -> Used:
        """What it used until it succeeded, or until now."""
        memory = self.meter.usage.peak_memory
        return Used(
            wall_s=trio.current_time() - self.began if self.wall_s is None else self.wall_s,
            cpu_s=self.meter.usage.cpu_s,
            memory_mb=None if memory is None else megabytes(memory),
            scratch_mb=megabytes(tree_size(self.task.scratch) + tree_size(self.task.task_io)),
        )


def dump(run: RunDirectory) -> None:
    """Copy the end of a run's stdout and stderr to the pilot's own."""
    for name, path, stream in (("stdout", run.stdout, sys.stdout), ("stderr", run.stderr, sys.stderr)):
        _dump_one(f"{name} of {run.run_id}", read_tail(path, DUMP_BYTES), stream)


def _dump_one(title: str, text: str, stream: TextIO) -> None:
    if text.strip():
        say(f"--- {title}\n{redact(text).rstrip()}\n--- end of {title}\n", stream)


def _infile_of(event: events.Event, settings: PilotSettings) -> bytes:
    try:
        return events.infile_bytes(event.data, extension(settings.infile_ext))
    except events.EventError as error:
        raise BadEvent(f"task failed: {error}") from error


def _file_name_part(text: str) -> str:
    """As much of a foreign id as can stand in a file name."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text[:_ID_CHARS])
