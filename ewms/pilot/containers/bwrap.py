"""Bubblewrap: containers from a directory image for a tenth of Apptainer's CPU time, with the same view for tasks.

What was measured and why it is done so:
- One overlay mount lays a thin layer over the image (`rootlayer.py`): mount points, /etc/passwd, name resolution. Each
  mount costs 0.1 ms, so what can be a file in that layer is no mount.
- The environment is read from standard input by a shell in the container, after the image's own scripts: it is on no
  command line and in no file, every value arrives exactly, and the image's values do not win over the task's.
- `--die-with-parent` is not used: on SIGTERM bubblewrap's outer process dies, and everything would be killed at once;
  so a task has a moment to flush its output. The supervisor (`launcher.py`) leaves nothing behind in any case: it kills
  the first process of the container's PID namespace, and the kernel kills the others.
- `--dev` wants /dev/full, which the /dev of an Apptainer container lacks, so it is made there, as a link to /dev/zero;
  without `--dev` there would be no pseudo terminals.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final

import attrs
import trio

from ewms.pilot.containers import bwrapwords
from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, ImageUnusable, Mount
from ewms.pilot.containers.mounts import checked
from ewms.pilot.containers.process import RunningProcess
from ewms.pilot.containers.processes import Command, Launcher
from ewms.pilot.containers.rootlayer import Account, RootLayers
from ewms.pilot.containers.variables import check_names
from ewms.pilot.directories import read_tail
from ewms.pilot.settings import PilotSettings

_TAIL: Final = 2000
_FULL: Final = Path("/dev/full")


@attrs.frozen(kw_only=True)
class BwrapPlatform:
    """Runs containers with bubblewrap; see `Platform`."""

    name: ClassVar = "bwrap"
    isolates: ClassVar = True

    launcher: Launcher
    program: str
    account: Account
    layers: RootLayers

    async def prepare(self, image: str) -> str:
        """The directory's absolute path: a container is started from the root."""
        directory = Path(image).absolute()  # noqa: ASYNC240  one look, once in a pilot's life
        if directory.is_dir():
            return str(directory)
        raise ImageUnusable(
            f"the image {image} is not a directory, and bubblewrap starts directory images only; make one with "
            f"`apptainer build --sandbox DIRECTORY {image}`, or set _EWMS_PILOT_CONTAINER_PLATFORM=apptainer"
        )

    def path_inside(self, mount: Mount) -> Path:
        """The mount's target."""
        return mount.target

    async def check(self, spec: ContainerSpec) -> None:
        """Start one, and let it see that it is a container of the kind that it is to be."""
        async with self._started(spec, bwrapwords.CHECK) as container:
            code = await container.wait()
        if code != 0:
            said = read_tail(spec.stderr, _TAIL).strip()
            raise ContainerError(f"bubblewrap ended with exit code {code}: {said}")

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """Run one container."""
        return self._started(spec, bwrapwords.RUN)

    @asynccontextmanager
    async def _started(self, spec: ContainerSpec, script: str) -> AsyncIterator[Container]:
        mounts = checked(spec.mounts)
        own = bwrapwords.scratch_mounts(spec.scratch, self.account.home)
        for mount, mode in own:
            mount.source.mkdir(exist_ok=True)
            mount.source.chmod(mode)
        view = await self._view(Path(spec.image), [*(mount for mount, _ in own), *mounts])
        variables = bwrapwords.runtime_variables(spec.image, self.account.home, [str(each.target) for each in mounts])
        command = Command(
            argv=(self.program, *bwrapwords.arguments(view, variables), "/bin/sh", "-c", script, "sh", *spec.args),
            env={},
            cwd=Path("/"),
            stdin=bwrapwords.assignments(spec.environment),
            stdout=spec.stdout,
            stderr=spec.stderr,
        )
        async with self.launcher.run(command) as process:
            yield RunningProcess(process)

    async def _view(self, image: Path, mounts: list[Mount]) -> bwrapwords.View:
        targets = frozenset(map(PurePosixPath, [*bwrapwords.KERNEL_PLACES, *(str(each.target) for each in mounts)]))
        layer = self.layers.made(image, targets)
        if layer is None:  # the image may be on a slow disk
            layer = await trio.to_thread.run_sync(self.layers.make, image, targets)
        resolved = [attrs.evolve(each, target=Path(layer.targets[PurePosixPath(each.target)])) for each in mounts]
        return bwrapwords.View(image=image, layer=layer.directory, mounts=resolved, home=self.account.home)


@asynccontextmanager
async def open_bwrap(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[BwrapPlatform]:
    """The platform as a pilot's settings want it.

    Raises:
        ContainerError: there is no bubblewrap here, or a task's environment cannot be given through it.
    """
    program = shutil.which("bwrap", path=settings.path)
    if program is None:
        raise ContainerError(f"`bwrap` was not found (PATH={settings.path})")
    check_names([*settings.task_env_json, *settings.init_env_json], "bubblewrap")
    account = Account.of_this_process()
    _have_full()
    # Beside the data: a cleaner of /tmp must not take them from a pilot that runs for days.
    layers = RootLayers(account, (settings.data_dir_parent or Path.cwd()).absolute())
    try:
        yield BwrapPlatform(launcher=launcher, program=program, account=account, layers=layers)
    finally:
        layers.remove()


def _have_full() -> None:
    """Let there be a /dev/full, which bubblewrap insists on; the /dev of the pilot's own container has none."""
    try:
        if not _FULL.exists():
            _FULL.symlink_to("zero")
    except OSError as error:
        raise ContainerError(f"bubblewrap needs {_FULL}, which is not there ({error})") from error
