"""Before the first event: can this machine run tasks at all? What fails here costs no event, and speaks of the machine.

The container runtime, the image, the data directory and the brokers are looked at as they are opened, each with its own
error; here is what only a trial can show: a container starts, and there is room for its files.
"""

import secrets
from typing import Final

import structlog
import trio

from ewms.pilot.containers.base import ContainerError, ContainerSpec, Platform
from ewms.pilot.containment import CONTAINER_PREFIX, Recipe
from ewms.pilot.directories import DataDirectory
from ewms.pilot.errors import SelfCheckFailed

log = structlog.stdlib.get_logger(__name__)

CHECK_LIMIT_S: Final = 120.0
"""For the start of one container: the first one reads the image from a cold disk."""
CLEANING_LIMIT_S: Final = 5.0


async def self_check(platform: Platform, recipe: Recipe, data: DataDirectory, *, min_free: int) -> None:
    """See that a container of the task's image starts here, and that `min_free` bytes are free.

    Raises:
        SelfCheckFailed: this machine is not fit for tasks.
    """
    if (room := data.room()) < min_free:
        raise SelfCheckFailed(f"self-check: only {room} bytes are free in {data.root}, {min_free} are wanted")
    began = trio.current_time()
    run = data.new_run(f"check-{secrets.token_hex(4)}")
    spec = ContainerSpec(
        name=f"{CONTAINER_PREFIX}{run.run_id}",
        image=recipe.image,
        args=("true",),
        environment={},
        mounts=recipe.mounts,
        stdout=run.stdout,
        stderr=run.stderr,
        scratch=run.scratch,
    )
    try:
        await _start(platform, spec)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEANING_LIMIT_S):
            await data.drop(run)
    took = round(trio.current_time() - began, 2)
    log.info("self-check passed", platform=platform.name, container_s=took, free_bytes=room)


async def _start(platform: Platform, spec: ContainerSpec) -> None:
    with trio.move_on_after(CHECK_LIMIT_S) as limit:
        try:
            await platform.check(spec)
        except ContainerError as error:
            raise SelfCheckFailed(f"self-check: no container starts here: {error}") from error
    if limit.cancelled_caught:
        raise SelfCheckFailed(f"self-check: no container started within {CHECK_LIMIT_S:g} s")
