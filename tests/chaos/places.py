"""The grounds that chaos runs on, with the handles by which they can be hurt: broker, job directory, HTCondor."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing import localqueue
from ewms.testing.broker import PoolUnavailable, RabbitServer, open_rabbitmq
from ewms.testing.grounds import Ground, open_embedded_ground, pool_ground
from ewms.testing.pool import open_pool
from ewms.testing.queues import MqclientQueues
from tests.chaos.depths import Depth, rabbit_depths

Say = Callable[[str], None]
SLOTS: Final = 12
_JOB_DIR_SIZE: Final = "48m"

# A killed pilot's worker runs again, here and at once; the audit's word is needed where a log was harmed.
_SETTINGS: Final = {
    "TMS_MAX_REQUEUES": "1000",
    "TMS_REQUEUE_EXIT_STATUSES": "1 2 3 4 5 6 7 8 9 10 11 70 137 143 255",
    "TMS_AVOID_MACHINE_TIME": "0",
    "TMS_RELEASE_WAIT": "1",
    "TMS_MAX_RELEASES": "1000",
    "TMS_AUDIT_INTERVAL": "5",
    "TMS_SCHEDD_TIMEOUT": "10",
    "TMS_ERROR_WAIT": "1",
}


@attrs.frozen(kw_only=True)
class Place:
    """A ground, and how to get at its parts."""

    ground: Ground
    broker: RabbitServer | None
    """None: the embedded broker."""
    as_root: Callable[[Sequence[str]], Awaitable[bytes]]
    """Run a command on the ground's machine, where its mounts are seen; its output."""
    has_own_mounts: bool
    """Whether its job directory is a small file system of its own."""
    has_htcondor: bool
    seen: Callable[[Path], Path]
    """Where we see a path of the ground's machine."""
    mounts: Path
    """The ground's mounts, as the kernel tells them."""
    sandboxes: Path
    """Where workers have their directories, as we see it."""
    spools: tuple[Path, ...] = ()
    """More places where files may tell too much, as we see them."""

    async def depths(self, queues: Sequence[str]) -> dict[str, Depth] | None:
        """What each queue holds; None: the broker does not say."""
        if self.broker is None:
            known = await localqueue.counts(Path(self.ground.broker_address))
            return {queue: Depth(known[queue].ready if queue in known else 0, None) for queue in queues}
        return await rabbit_depths(self.broker.address, self.broker.token, queues)


@asynccontextmanager
async def open_embedded_place(work_dir: Path, say: Say, _wheel: Path | None) -> AsyncIterator[Place]:
    """The embedded schedd; with RabbitMQ where that can be had, else with the embedded broker."""
    async with AsyncExitStack() as stack:
        rabbit: RabbitServer | None = None
        try:
            (work_dir / "broker-machine").mkdir()
            rabbit = await stack.enter_async_context(open_rabbitmq(work_dir / "broker-machine", progress=say))
        except PoolUnavailable as error:
            say(f"no RabbitMQ here ({error}); the embedded broker is used")
        own_mounts = os.geteuid() == 0
        (work_dir / "jobs").mkdir()
        if own_mounts:
            await _run(["mount", "-t", "tmpfs", "-o", f"size={_JOB_DIR_SIZE},mode=0755", "tmpfs", f"{work_dir}/jobs"])
            stack.push_async_callback(_run, ["umount", "--lazy", f"{work_dir}/jobs"])
        ground = await stack.enter_async_context(open_embedded_ground(work_dir, say, slots=SLOTS))
        yield Place(
            ground=_with(ground, rabbit),
            broker=rabbit,
            as_root=_run,
            has_own_mounts=own_mounts,
            has_htcondor=False,
            seen=lambda path: path,
            mounts=Path("/proc/self/mounts"),
            sandboxes=work_dir / "schedd" / "execute",
        )


@asynccontextmanager
async def open_pool_place(work_dir: Path, say: Say, wheel: Path | None) -> AsyncIterator[Place]:
    """A real pool, with RabbitMQ beside it.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with open_pool(work_dir, progress=say, wheel=wheel, n_cpus=SLOTS) as pool:
        inside = Path(f"/proc/{pool.inside.init_pid}/root")

        async def as_root(argv: Sequence[str]) -> bytes:
            return (await pool.run(list(argv), user="root")).stdout

        def seen(path: Path) -> Path:
            return inside / path.relative_to("/")

        owner = pool.inside.users["ewms"]
        options = f"size={_JOB_DIR_SIZE},mode=0755,uid={owner.uid},gid={owner.gid}"
        await as_root(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(pool.job_dir)])
        yield Place(
            ground=_with(pool_ground(pool, work_dir), pool.broker),
            broker=pool.broker,
            as_root=as_root,
            has_own_mounts=True,
            has_htcondor=True,
            seen=seen,
            mounts=Path(f"/proc/{pool.inside.init_pid}/mounts"),
            sandboxes=inside / "var/lib/condor/execute",
            spools=(inside / "var/spool/condor", inside / "tmp"),
        )


OPENERS: Final = {"embedded": open_embedded_place, "pool": open_pool_place}


def _with(ground: Ground, rabbit: RabbitServer | None) -> Ground:
    ground = attrs.evolve(ground, tms_settings={**ground.tms_settings, **_SETTINGS})
    if rabbit is None or ground.broker_type == "rabbitmq":
        return ground
    return attrs.evolve(
        ground,
        broker_type="rabbitmq",
        broker_address=rabbit.address,
        broker_token=rabbit.token,
        queues=MqclientQueues(rabbit.address, rabbit.token),
    )


async def _run(argv: Sequence[str]) -> bytes:
    return (await trio.run_process(list(argv), capture_stdout=True)).stdout
