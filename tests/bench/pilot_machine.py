"""The machine that pilots are measured on: Apptainer, the task image and the installed package, RabbitMQ beside it.

It is the root file system that pilot images start from, entered like the pool's; no HTCondor runs, so that nothing but
the pilot and its containers uses the processors. Beside it is the PyPI package `ewms-pilot`, where this machine has the
Python that it needs; that Python is shown inside, and the package goes into a directory of the bench's own.
"""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import platformdirs

from ewms.testing.broker import RabbitServer, open_rabbitmq
from ewms.testing.pool.cache import Scratch, cached
from ewms.testing.pool.data import containers_dir, digest
from ewms.testing.pool.images import image
from ewms.testing.pool.namespace import Namespace, User, open_namespace
from ewms.testing.pool.rootfs import root_filesystem
from ewms.testing.pool.sites import RootPython, site
from ewms.testing.pool.steps import PoolUnavailable, Progress, run_step
from ewms.testing.pool.wheels import running_wheel

TASK_IMAGE: Final = "/images/task:1"
PYTHON: Final = "/usr/bin/python3"

_USER: Final = "ewms"
_WHO: Final = User(21000, 21000, "/home/ewms")
_ADD_USER: Final = (
    f"echo {_USER}:x:{_WHO.uid}:{_WHO.gid}::{_WHO.home}:/bin/sh >> /etc/passwd;"
    f"echo {_USER}:x:{_WHO.gid}: >> /etc/group; install -d -o {_WHO.uid} -g {_WHO.gid} {_WHO.home}"
)
_PYPI: Final = ("ewms-pilot[rabbitmq]==1.0.5", "htcondor<25")
"""It imports the bindings of version 1, which newer wheels do not have."""
_PYPI_PYTHON: Final = "3.12"
"""That release takes this one only."""


@attrs.frozen
class PypiPilot:
    """The PyPI package, and how to run it inside."""

    python: str
    environment: Mapping[str, str]


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
        python, prefix = RootPython.of(root), _python_prefix()
        packages = await stack.enter_async_context(
            site(python, "pilot", running_wheel(machine_dir), cache_dir=cache_dir, progress=progress)
        )
        inside = await stack.enter_async_context(
            open_namespace(root, machine_dir, visible=[cache_dir, containers_dir(), Path(__file__).parent, *prefix])
        )
        await inside.run(["/bin/sh", "-e", "-c", _ADD_USER], user="root")
        inside = attrs.evolve(inside, users={**inside.users, _USER: _WHO})
        task_image = await stack.enter_async_context(
            image("task", {"root": root}, inside=inside, cache_dir=cache_dir, progress=progress)
        )
        await inside.bind(packages, python.site_dir)
        await inside.bind(task_image, TASK_IMAGE)
        pypi, why = await _pypi(prefix, inside, stack, cache_dir, progress)
        directory = machine_dir / "work"
        directory.mkdir()
        PilotMachine.own(directory)
        yield PilotMachine(inside=inside, rabbit=rabbit, directory=directory, pypi=pypi, why_no_pypi=why)


async def _pypi(
    prefixes: Sequence[Path], inside: Namespace, stack: AsyncExitStack, cache_dir: Path, progress: Progress
) -> tuple[PypiPilot | None, str]:
    """The PyPI package, or why it is not there."""
    if not prefixes:
        return None, f"{_PYPI[0]} needs Python {_PYPI_PYTHON}, which is not on this machine"
    (prefix,) = prefixes

    async def build(scratch: Scratch) -> None:
        command = [str(prefix / "bin" / f"python{_PYPI_PYTHON}"), "-m", "pip", "install", "-qq", "--root-user-action"]
        await run_step(
            f"getting {_PYPI[0]}",
            [*command, "ignore", "--target", str(scratch.new), *_PYPI],
            progress=progress,
            log=scratch.log,
        )

    shelf = cache_dir / "bench-pypi"
    try:
        packages = await stack.enter_async_context(cached(shelf, digest(*_PYPI, str(prefix)), build, progress=progress))
    except PoolUnavailable as error:
        return None, str(error)
    await inside.bind(prefix, "/opt/python")
    await inside.bind(packages, "/opt/ewms-pilot")
    environment = {"PYTHONPATH": "/opt/ewms-pilot", "LD_LIBRARY_PATH": "/opt/python/lib"}
    return PypiPilot(f"/opt/python/bin/python{_PYPI_PYTHON}", environment), ""


def _python_prefix() -> list[Path]:
    """Where the Python of the PyPI package is installed on this machine: pyenv's, or one of the PATH; or nowhere."""
    name = f"python{_PYPI_PYTHON}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [*sorted(pyenv.glob(f"{_PYPI_PYTHON}.*/bin/{name}")), *filter(None, [shutil.which(name)])]
    for candidate in found:
        ask = [str(candidate), "-I", "-c", "import sys; print(sys.base_prefix)"]
        done = subprocess.run(ask, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return [Path(done.stdout.strip())]
    return []
