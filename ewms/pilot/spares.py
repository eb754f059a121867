"""Containers that are begun before their events come, where the platform can do that.

Between two containers of a slot are a publish, its confirm, an ack and the next delivery. Meanwhile the next container
is begun: an event waits for the rest of a start only.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot.containers.base import Begun, ContainerError, Platform, StartsAhead
from ewms.pilot.containment import Recipe, spec_of, task_io_mount
from ewms.pilot.directories import DataDirectory, RunDirectory, TaskDirectory
from ewms.pilot.errors import DataDirectoryError

log = structlog.stdlib.get_logger(__name__)

MOST: Final = 4
"""Containers that wait at the same time; each has three processes, with Apptainer 8 MB of its own."""
CLEANING_LIMIT_S: Final = 5.0


@attrs.frozen
class Spare:
    """A container that waits for its task."""

    directory: RunDirectory
    begun: Begun


@attrs.define
class Spares:
    """As many of them as there are slots, up to `MOST`."""

    platform: Platform
    recipe: Recipe
    data: DataDirectory
    slots: int
    _ready: deque[Spare] = attrs.field(factory=deque, init=False)
    _taken: trio.Event = attrs.field(factory=trio.Event, init=False)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Have them made, as long as the context lasts; leaving leaves nothing of those that were not taken."""
        if not isinstance(self.platform, StartsAhead) or not self.platform.scratch_names:
            yield
            return
        self.data.reuse.own_modes = [f"scratch/{name}" for name in self.platform.scratch_names]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, self.platform)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
                    await self._drop_all()

    def task(self, task_id: str, infile_extension: str, outfile_extension: str) -> tuple[TaskDirectory, Begun | None]:
        """A task's directories, and the container that was begun for it, if one was.

        Raises:
            DataDirectoryError: there can be no such directories.
        """
        if not self._ready:
            return self.data.new_task(task_id, infile_extension, outfile_extension), None
        spare = self._ready.popleft()
        self._taken.set()
        return self.data.task_of(spare.directory, task_id, infile_extension, outfile_extension), spare.begun

    async def _keep(self, platform: StartsAhead) -> None:
        while True:
            self._taken = trio.Event()
            while len(self._ready) < min(self.slots, MOST):
                spare = await self._made(platform)
                if spare is None:
                    break  # tried again when the next one is taken; without any, tasks start anew and say why
                self._ready.append(spare)
            await self._taken.wait()

    async def _made(self, platform: StartsAhead) -> Spare | None:
        directory: RunDirectory | None = None
        begun: Begun | None = None
        try:
            directory = self.data.new_spare()
            begun = await platform.begin(spec_of(self.recipe, directory, mounts=(task_io_mount(directory),)))
            return Spare(directory, begun)
        except (ContainerError, DataDirectoryError) as error:
            log.debug("no container was begun ahead", error=str(error))
            return None
        finally:
            if directory is not None and begun is None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
                    await self.data.drop(directory)

    async def _drop_all(self) -> None:
        while self._ready:
            spare = self._ready.popleft()
            await spare.begun.aclose()
            await self.data.drop(spare.directory)
