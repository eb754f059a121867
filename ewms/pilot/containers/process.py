"""No container at all: the task's arguments are run directly. For development on machines without a runtime.

The image's name is ignored, mounts are not made (a task is told the host's own paths), and a task can read and write
whatever the pilot can.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import structlog
import trio

from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, Mount, Usage
from ewms.pilot.containers.processes import Command, Launcher, Process
from ewms.pilot.containers.treememory import tree_memory

log = structlog.stdlib.get_logger(__name__)


class ProcessPlatform:
    """Runs tasks as plain processes; see `Platform`."""

    name = "process"
    isolates = False

    def __init__(self, launcher: Launcher, *, path: str) -> None:
        self._launcher = launcher
        self._path = path

    async def prepare(self, image: str) -> str:
        """Nothing to prepare; says once that there is no isolation."""
        log.warning("tasks run WITHOUT isolation, as plain processes; the image is not used", image=image)
        return image

    def path_inside(self, mount: Mount) -> Path:
        """There is no inside: the host's own path."""
        return mount.source

    async def check(self, spec: ContainerSpec) -> None:
        """Run its command."""
        async with self._start(spec) as container:
            await container.wait()

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """Run the arguments as a command."""
        return self._start(spec)

    @asynccontextmanager
    async def _start(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        if not spec.args:
            raise ContainerError("the process platform runs the task's arguments as a command, but there are none")
        program = shutil.which(spec.args[0], path=self._path)
        if program is None:
            # In a container it would be the task's failure, and not the runtime's.
            spec.stdout.touch()
            spec.stderr.write_text(f"{spec.args[0]}: not found, or not executable (PATH={self._path})\n")
            yield NotFound()
            return
        command = Command(
            argv=(program, *spec.args[1:]),
            env={"PATH": self._path, "HOME": str(spec.scratch), "TMPDIR": str(spec.scratch)} | dict(spec.environment),
            cwd=spec.scratch,
            stdout=spec.stdout,
            stderr=spec.stderr,
        )
        async with self._launcher.run(command) as process:
            yield RunningProcess(process)


class NotFound:
    """A container whose program is not there; see `Container`."""

    usage = Usage()

    async def memory(self) -> int | None:
        """It has none."""
        return None

    async def wait(self) -> int:
        """The exit code of shells for that."""
        await trio.lowlevel.checkpoint()
        return 127


class RunningProcess:
    """A container that is one process tree; see `Container`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._most_memory = 0

    @property
    def usage(self) -> Usage:
        """Of its whole tree, as far as its processes waited for each other; memory also as it was seen."""
        ended = self._process.exit
        return Usage(ended.cpu_s, max(ended.max_rss, self._most_memory)) if ended else Usage()

    async def memory(self) -> int | None:
        """Of its whole tree."""
        memory = await trio.to_thread.run_sync(tree_memory, self._process.pid, abandon_on_cancel=True)
        self._most_memory = max(self._most_memory, memory)
        return memory

    async def wait(self) -> int:
        """Wait until it and all its descendants are gone; its exit code."""
        return (await self._process.wait()).code
