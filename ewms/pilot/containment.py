"""Running one container to its end within its time: what an event's task and the init container have in common."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

from ewms.pilot import arguments
from ewms.pilot.containers.base import ContainerSpec, Mount, Platform
from ewms.pilot.directories import RunDirectory, read_tail
from ewms.pilot.errors import TaskFailed, TaskTimedOut
from ewms.pilot.excerpt import TAIL_BYTES, exception_name, excerpt

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


async def run(
    platform: Platform, recipe: Recipe, directory: RunDirectory, *, name: str, mounts: tuple[Mount, ...], paths: Paths
) -> None:
    """Run one container until it ends or its time is over; nothing of it is left then.

    Raises:
        TaskFailed: its exit code was not 0.
        TaskTimedOut: it ran for too long.
        ContainerError: the runtime could not start it.
    """
    spec = ContainerSpec(
        name=name,
        image=recipe.image,
        args=tuple(arguments.fill(recipe.words, paths.placeholders)),
        environment={**recipe.environment, **paths.variables},
        mounts=(*recipe.mounts, *mounts),
        stdout=directory.stdout,
        stderr=directory.stderr,
        scratch=directory.scratch,
    )
    code: int | None = None
    with trio.move_on_after(float("inf") if recipe.timeout is None else recipe.timeout):
        async with platform.start(spec) as container:
            code = await container.wait()
    if code is None:
        assert recipe.timeout is not None
        raise TaskTimedOut(recipe.timeout)
    if code != 0:
        stderr = read_tail(directory.stderr, TAIL_BYTES)
        raise TaskFailed(code, excerpt(stderr), exception_name(stderr))
