"""Running one container to its end within its time: what an event's task and the init container have in common."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.contract import TASK_DATA_DIR
from ewms.pilot import arguments
from ewms.pilot.containers.base import Begun, Container, ContainerSpec, Mount, Platform, Usage
from ewms.pilot.directories import DataDirectory, RunDirectory, TaskDirectory, read_tail
from ewms.pilot.errors import TaskFailed, TaskOverLimit, TaskTimedOut
from ewms.pilot.excerpt import TAIL_BYTES, exception_name, excerpt
from ewms.pilot.limits import Limits
from ewms.pilot.watching import Watch, wait_and_warn

CONTAINER_PREFIX: Final = "ewms-"
"""Before a run's id in the name of its container."""
_HUB_INSIDE: Final = Path(TASK_DATA_DIR, "data-hub")
_IO_INSIDE: Final = Path(TASK_DATA_DIR, "task-io")
VARIABLES: Final[Mapping[str, str]] = {
    "infile": "EWMS_TASK_INFILE",
    "outfile": "EWMS_TASK_OUTFILE",
    "data_hub": "EWMS_TASK_DATA_HUB_DIR",
}
"""What a container is told, and the variable that tells it."""


@attrs.frozen(kw_only=True)
class Recipe:
    """What to run, the same for each run."""

    image: str
    """As the platform prepared it."""
    words: Sequence[str]
    environment: Mapping[str, str]
    timeout: float | None
    limits: Limits = Limits()
    mounts: tuple[Mount, ...]
    """The data hub and the external directories."""


@attrs.frozen
class Paths:
    """Where the container sees its files; an init container has no infile and no outfile."""

    data_hub: str
    infile: str | None = None
    outfile: str | None = None

    @property
    def placeholders(self) -> dict[str, str]:
        """For `arguments.fill`."""
        return {name: path for name, path in attrs.asdict(self).items() if path is not None}

    @property
    def variables(self) -> dict[str, str]:
        """The `EWMS_TASK_…` variables."""
        return {VARIABLES[name]: path for name, path in self.placeholders.items()}


@attrs.define
class Meter:
    """What a container used, whatever its end was."""

    usage: Usage = Usage()

    def read(self, container: Container, watch: Watch) -> None:
        """After the container is gone."""
        self.usage = container.usage
        if watch.peak_memory > (self.usage.peak_memory or 0):
            self.usage = attrs.evolve(self.usage, peak_memory=watch.peak_memory)


async def run(
    platform: Platform,
    recipe: Recipe,
    directory: RunDirectory,
    *,
    mounts: tuple[Mount, ...],
    paths: Paths,
    meter: Meter,
    begun: Begun | None = None,
) -> None:
    """Run one container until it ends or a limit is exceeded; nothing of it is left then.

    Raises:
        TaskFailed: its exit code was not 0.
        TaskTimedOut: it ran for too long.
        TaskOverLimit: it exceeded another of its limits.
        ContainerError: the runtime could not start it.
    """
    spec = attrs.evolve(
        spec_of(recipe, directory, mounts=mounts),
        args=tuple(arguments.fill(recipe.words, paths.placeholders)),
        environment={**recipe.environment, **paths.variables},
        begun=begun,
    )
    code: int | None = None
    exceeded: TaskOverLimit | None = None
    with trio.move_on_after(float("inf") if recipe.timeout is None else recipe.timeout):
        code, exceeded = await _contained(platform, spec, _watch(recipe.limits, directory), meter)
    if exceeded is not None:
        raise exceeded
    if code is None:
        assert recipe.timeout is not None
        raise TaskTimedOut(recipe.timeout)
    if code != 0:
        stderr = read_tail(directory.stderr, TAIL_BYTES)
        raise TaskFailed(code, excerpt(stderr), exception_name(stderr))


def spec_of(recipe: Recipe, directory: RunDirectory, *, mounts: tuple[Mount, ...]) -> ContainerSpec:
    """A container of `recipe` in `directory`, without what is the task's own: arguments and environment."""
    return ContainerSpec(
        name=f"{CONTAINER_PREFIX}{directory.run_id}",
        image=recipe.image,
        args=(),
        environment={},
        mounts=(*recipe.mounts, *mounts),
        stdout=directory.stdout,
        stderr=directory.stderr,
        scratch=directory.scratch,
    )


def hub_mount(data: DataDirectory) -> Mount:
    """The data hub, as every container sees it."""
    return Mount(data.hub.absolute(), _HUB_INSIDE)


def task_io_mount(run: RunDirectory) -> Mount:
    """The directory of infile and outfile, as the task's container sees it."""
    return Mount(run.task_io.absolute(), _IO_INSIDE)


def _watch(limits: Limits, directory: RunDirectory) -> Watch:
    outfile = directory.outfile if isinstance(directory, TaskDirectory) else None
    return Watch(limits=limits, outfile=outfile, streams=(directory.stdout, directory.stderr))


async def _contained(
    platform: Platform, spec: ContainerSpec, watch: Watch, meter: Meter
) -> tuple[int | None, TaskOverLimit | None]:
    """The exit code, or the limit that was exceeded."""
    container: Container | None = None
    code: int | None = None
    try:
        async with platform.start(spec) as container:
            code = await _watched(container, watch, spec.name)
    finally:
        if container is not None:
            meter.read(container, watch)
    return code, watch.exceeded


async def _watched(container: Container, watch: Watch, name: str) -> int | None:
    """The exit code; None when a limit was exceeded before the end."""
    unacked = watch.limits.unacked
    wait = container.wait if unacked is None else partial(wait_and_warn, container, unacked, name)
    if not watch.limits.of_the_task:
        return await wait()
    code: int | None = None

    async def look() -> None:
        await watch.until_exceeded(container)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        code = await wait()
        nursery.cancel_scope.cancel()
    return code
