"""Bring up a whole pool, or only its broker: get what is missing, enter, start, check, and leave nothing behind."""

import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from ewms.secret import Secret
from ewms.testing.pool.condor import apptainer_version, condor_version, start_condor
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.images import image, service_image
from ewms.testing.pool.namespace import Namespace, open_namespace
from ewms.testing.pool.nats import NatsServer, start_nats
from ewms.testing.pool.places import default_cache_dir, opened_to_all
from ewms.testing.pool.rabbitmq import RabbitServer, start_rabbitmq
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.sites import Needs, RootPython, debian_version, site
from ewms.testing.pool.steps import Progress, in_parallel
from ewms.testing.pool.surroundings import check_surroundings
from ewms.testing.pool.wheels import running_wheel

_USER: Final = "ewms"
_PILOT_IMAGE: Final = "/images/ewms-pilot"
_TASK_IMAGE: Final = "/images/task:1"
_WORKER_IMAGE: Final = "/images/worker:1"
_TMS_IMAGE: Final = "/images/ewms-task-management-service"


@attrs.frozen
class Versions:
    """What runs in a pool, as the running things say; empty for what does not."""

    condor: str
    apptainer: str
    rabbitmq: str


@attrs.frozen(kw_only=True)
class Pool:
    """A healthy HTCondor pool on this machine."""

    versions: Versions
    python: str
    """An interpreter inside that has `ewms[tms]`."""
    job_dir: Path
    """The ordinary user's; the same path inside and outside."""
    logs: Path
    """HTCondor's and RabbitMQ's own logs."""
    pilot_image_base: str
    pilot_tag: str
    """The pilot image is `pilot_image_base:pilot_tag`."""
    task_image: str
    """Runs its arguments; has a shell, coreutils and Python."""
    worker_image: str
    """Runs `./job.sh`, a file that came with the job; has Python."""
    broker: RabbitServer | None
    inside: Namespace

    @property
    def broker_address(self) -> str:
        """Where the pool's RabbitMQ is; the password is `broker_token`."""
        assert self.broker is not None, "this pool was opened without RabbitMQ"
        return self.broker.address

    @property
    def broker_token(self) -> Secret:
        """The password for `broker_address`."""
        assert self.broker is not None, "this pool was opened without RabbitMQ"
        return self.broker.token

    def command(
        self, argv: Sequence[str], *, user: str = _USER, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> list[str]:
        """The command line that runs `argv` inside; see `Namespace.command`."""
        return self.inside.command(argv, user=user, env=env, cwd=cwd)

    async def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command inside to its end; see `Namespace.run`."""
        return await self.inside.run(argv, **options)


@asynccontextmanager
async def open_pool(
    work_dir: Path,
    *,
    progress: Progress,
    n_cpus: int = 8,
    cache_dir: Path | None = None,
    rabbitmq: bool = True,
    wheel: Path | None = None,
    extra_config: str = "",
) -> AsyncIterator[Pool]:
    """A real HTCondor pool on this machine, with RabbitMQ beside it, while the context lasts.

    The first time, it gets a few hundred MB of Debian packages and keeps them under `cache_dir` (the user's cache
    directory by default). `work_dir` becomes readable for everybody who can walk there, so that jobs can use it.
    `wheel` is installed for the TMS and in the pilot image; without it, the package as it runs here is.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with AsyncExitStack() as stack:
        kit = _Kit(await _prepared(work_dir), cache_dir or default_cache_dir(), progress, stack)
        assembly = _Assembly(
            kit, wheel or running_wheel(work_dir), n_cpus=n_cpus, rabbitmq=rabbitmq, extra_config=extra_config
        )
        await in_parallel(assembly.machine, assembly.images)
        yield await assembly.pool()


@asynccontextmanager
async def open_tms_image(
    pool: Pool, work_dir: Path, *, progress: Progress, cache_dir: Path | None = None, wheel: Path | None = None
) -> AsyncIterator[str]:
    """The TMS's image, as a directory in `pool`; its path there, which has the form of the production one: `…:TAG`.

    `wheel` is the package in it; without one, the package as it runs here is. It is not part of every pool, because
    few tests need it.

    Raises:
        PoolUnavailable: it could not be built.
    """
    async with AsyncExitStack() as stack:
        kit = _Kit(work_dir, cache_dir or default_cache_dir(), progress, stack)
        root = await kit.root("tms-root")
        packages = await kit.site(RootPython.of(root), Needs.of_lock("tms"), wheel or running_wheel(work_dir))
        built = await kit.service_image("tms", root, packages, pool.inside)
        path = f"{_TMS_IMAGE}:local-{built.name}"
        await pool.inside.bind(built, path)
        yield path


@asynccontextmanager
async def open_rabbitmq(
    work_dir: Path, *, progress: Progress, cache_dir: Path | None = None, extra_config: str = ""
) -> AsyncIterator[RabbitServer]:
    """The pool's RabbitMQ, without the pool; `extra_config` is more lines for its `rabbitmq.conf`.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with _pool_machine(work_dir, progress, cache_dir) as (inside, logs):
        yield await start_rabbitmq(inside, logs, progress, extra_config)


@asynccontextmanager
async def open_nats(
    work_dir: Path, *, progress: Progress, cache_dir: Path | None = None, extra_config: str = ""
) -> AsyncIterator[NatsServer]:
    """A NATS server with JetStream; `extra_config` is more lines for its configuration file.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    async with _pool_machine(work_dir, progress, cache_dir) as (inside, logs):
        yield await start_nats(inside, logs, progress, extra_config)


@asynccontextmanager
async def _pool_machine(
    work_dir: Path, progress: Progress, cache_dir: Path | None
) -> AsyncIterator[tuple[Namespace, Path]]:
    """The pool's machine with nothing running, and where its logs go."""
    async with AsyncExitStack() as stack:
        kit = _Kit(await _prepared(work_dir), cache_dir or default_cache_dir(), progress, stack)
        yield await kit.enter(await kit.root("pool-root")), kit.logs


@attrs.frozen
class _Kit:
    """What everything is got with; what it gets stays until the stack is left."""

    work_dir: Path
    cache_dir: Path
    progress: Progress
    stack: AsyncExitStack

    @property
    def logs(self) -> Path:
        return self.work_dir / "logs"

    async def root(self, name: str) -> Path:
        return await self.stack.enter_async_context(
            root_filesystem(name, cache_dir=self.cache_dir, progress=self.progress)
        )

    async def site(self, python: RootPython, needs: Needs, wheel: Path) -> Path:
        return await self.stack.enter_async_context(
            site(python, needs, wheel, cache_dir=self.cache_dir, progress=self.progress)
        )

    async def enter(self, root: Path) -> Namespace:
        visible = [self.cache_dir, containers_dir()]
        return await self.stack.enter_async_context(open_namespace(root, self.work_dir, visible=visible))

    async def image(self, name: str, root: Path, inside: Namespace) -> Path:
        return await self.stack.enter_async_context(
            image(name, {"root": root}, inside=inside, cache_dir=self.cache_dir, progress=self.progress)
        )

    async def service_image(self, name: str, root: Path, site: Path, inside: Namespace) -> Path:
        return await self.stack.enter_async_context(
            service_image(name, root, site, inside=inside, cache_dir=self.cache_dir, progress=self.progress)
        )


@attrs.define
class _Assembly:
    """A pool on its way up: the machine and its images, which meet inside the namespace."""

    kit: _Kit
    wheel: Path
    n_cpus: int
    rabbitmq: bool
    extra_config: str
    broker: RabbitServer | None = None
    pilot_tag: str = ""
    _entered: trio.Event = attrs.field(factory=trio.Event)
    _inside: Namespace = attrs.field(init=False)
    _root: Path = attrs.field(init=False)

    async def machine(self) -> None:
        self._root = await self.kit.root("pool-root")
        self._inside = await self.kit.enter(self._root)
        self._entered.set()
        await in_parallel(self._start_condor, self._start_rabbitmq, self._install_tms)

    async def _start_condor(self) -> None:
        await start_condor(
            self._inside,
            self.kit.logs,
            n_cpus=self.n_cpus,
            extra_config=self.extra_config,
            progress=self.kit.progress,
        )

    async def _start_rabbitmq(self) -> None:
        if self.rabbitmq:
            self.broker = await start_rabbitmq(self._inside, self.kit.logs, self.kit.progress)

    async def _install_tms(self) -> None:
        python = RootPython.of(self._root)
        # Client and daemons of two versions may not be able to talk: FS authentication failed between 25 and 23.
        series = debian_version(self._root, "condor").rpartition(".")[0]
        needs = Needs.of_extra("tms", self.wheel, f"htcondor~={series}.0")
        site_dir = await self.kit.site(python, needs, self.wheel)
        await self._inside.bind(site_dir, python.site_dir)

    async def images(self) -> None:
        root = await self.kit.root("pilot-root")
        packages = await self.kit.site(RootPython.of(root), Needs.of_lock("pilot"), self.wheel)
        await self._entered.wait()
        inside = self._inside
        await inside.bind(await self.kit.image("task", root, inside), _TASK_IMAGE)
        await inside.bind(await self.kit.image("worker", root, inside), _WORKER_IMAGE)
        pilot = await self.kit.service_image("pilot", root, packages, inside)
        self.pilot_tag = f"local-{pilot.name}"
        await inside.bind(pilot, f"{_PILOT_IMAGE}:{self.pilot_tag}")

    async def pool(self) -> Pool:
        return Pool(
            versions=Versions(
                condor=await condor_version(self._inside),
                apptainer=await apptainer_version(self._inside),
                rabbitmq=self.broker.version if self.broker else "",
            ),
            python="/usr/bin/python3",
            job_dir=await self._job_dir(),
            logs=self.kit.logs,
            pilot_image_base=_PILOT_IMAGE,
            pilot_tag=self.pilot_tag,
            task_image=_TASK_IMAGE,
            worker_image=_WORKER_IMAGE,
            broker=self.broker,
            inside=self._inside,
        )

    async def _job_dir(self) -> Path:
        path = self.kit.work_dir / "jobs"
        await self._inside.run(
            ["install", "--directory", f"--owner={_USER}", f"--group={_USER}", str(path)], user="root"
        )
        return path


async def _prepared(work_dir: Path) -> Path:
    await check_surroundings()
    opened_to_all(work_dir)
    return work_dir
