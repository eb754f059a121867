"""The machine that pilots are measured on: Apptainer, the task image and the installed package, RabbitMQ beside it.

It is the root file system that pilot images start from, entered like the pool's; no HTCondor runs, so that nothing but
the pilot and its containers uses the processors. Beside it is the PyPI package `ewms-pilot`, where this machine has the
Python that it needs.
"""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import platformdirs

from ewms.testing.broker import RabbitServer, open_rabbitmq
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.images import image
from ewms.testing.pool.namespace import Namespace, User, open_namespace
from ewms.testing.pool.pypi import PypiPilot, pypi_pilot
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.sites import Needs, RootPython, site
from ewms.testing.pool.steps import PoolUnavailable, Progress
from ewms.testing.pool.wheels import running_wheel

TASK_IMAGE: Final = "/images/task:1"
PYTHON: Final = "/usr/bin/python3"

_USER: Final = "ewms"
_WHO: Final = User(21000, 21000, "/home/ewms")
_ADD_USER: Final = (
    f"echo {_USER}:x:{_WHO.uid}:{_WHO.gid}::{_WHO.home}:/bin/sh >> /etc/passwd;"
    f"echo {_USER}:x:{_WHO.gid}: >> /etc/group; install -d -o {_WHO.uid} -g {_WHO.gid} {_WHO.home}"
)


@attrs.frozen(kw_only=True)
class PilotMachine:
    """Where pilots run, as an ordinary user."""

    inside: Namespace
    rabbit: RabbitServer
    directory: Path
    """The ordinary user's; the same path inside and outside."""
    pypi: PypiPilot | None
    why_no_pypi: str = ""

    def command(self, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> list[str]:
        """The command line that runs `argv` inside as the ordinary user; see `Namespace.command`."""
        return self.inside.command(argv, env=env, cwd=str(cwd or self.directory))

    def new_directory(self, name: str) -> Path:
        """An empty directory of the ordinary user's."""
        path = self.directory / name
        path.mkdir()
        self.own(path)
        return path

    @staticmethod
    def own(directory: Path) -> None:
        """Give a directory and all below it to the ordinary user."""
        for path in (directory, *directory.rglob("*")):
            os.chown(path, _WHO.uid, _WHO.gid)


@asynccontextmanager
async def open_pilot_machine(work_dir: Path, *, progress: Progress) -> AsyncIterator[PilotMachine]:
    """Enter it, and start RabbitMQ.

    Raises:
        PoolUnavailable: with the one condition that failed.
    """
    cache_dir = platformdirs.user_cache_path("ewms-htcondor")
    broker_dir, machine_dir = work_dir / "broker", work_dir / "pilots"
    for directory in (work_dir, broker_dir, machine_dir, machine_dir / "logs"):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    async with AsyncExitStack() as stack:
        rabbit = await stack.enter_async_context(open_rabbitmq(broker_dir, progress=progress))
        root = await stack.enter_async_context(root_filesystem("pilot-root", cache_dir=cache_dir, progress=progress))
        python = RootPython.of(root)
        wheel = running_wheel(machine_dir)
        packages = await stack.enter_async_context(
            site(python, Needs.of_extra("pilot", wheel), wheel, cache_dir=cache_dir, progress=progress)
        )
        pypi, why = await _pypi(stack, cache_dir, progress)
        visible = [cache_dir, containers_dir(), Path(__file__).parent, *([pypi.prefix] if pypi else [])]
        inside = await stack.enter_async_context(open_namespace(root, machine_dir, visible=visible))
        await inside.run(["/bin/sh", "-e", "-c", _ADD_USER], user="root")
        inside = attrs.evolve(inside, users={**inside.users, _USER: _WHO})
        task_image = await stack.enter_async_context(
            image("task", {"root": root}, inside=inside, cache_dir=cache_dir, progress=progress)
        )
        await inside.bind(packages, python.site_dir)
        await inside.bind(task_image, TASK_IMAGE)
        if pypi:
            await pypi.show(inside)
        directory = machine_dir / "work"
        directory.mkdir()
        PilotMachine.own(directory)
        yield PilotMachine(inside=inside, rabbit=rabbit, directory=directory, pypi=pypi, why_no_pypi=why)


async def _pypi(stack: AsyncExitStack, cache_dir: Path, progress: Progress) -> tuple[PypiPilot | None, str]:
    """The PyPI package, or why it is not there."""
    try:
        return await stack.enter_async_context(pypi_pilot(cache_dir=cache_dir, progress=progress)), ""
    except PoolUnavailable as error:
        return None, str(error)
