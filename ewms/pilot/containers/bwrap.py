"""Bubblewrap: containers from a directory image for a tenth of Apptainer's CPU time, with the same view for tasks.

What was measured and why it is done so:
- One overlay mount lays a thin layer over the image (`rootlayer.py`): mount points, /etc/passwd, name resolution. Each
  mount costs 0.1 ms, so what can be a file in that layer is no mount.
- Environment and arguments are read from standard input by a shell in the container, after the image's own scripts:
  they are on no command line and in no file, every value arrives exactly, and the image's values do not win over the
  task's.
- So a container can be begun before its event is there: it waits for its standard input. Names of directories may
  change meanwhile, for a mount is of a directory and not of its name.
- `--die-with-parent` is not used: on SIGTERM bubblewrap's outer process dies, and everything would be killed at once;
  so a task has a moment to flush its output. The supervisor (`launcher.py`) leaves nothing behind in any case: it kills
  the first process of the container's PID namespace, and the kernel kills the others.
- `--dev` wants /dev/full, which the /dev of an Apptainer container lacks, so it is made there, as a link to /dev/zero;
  without `--dev` there would be no pseudo terminals.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar, Final

import attrs
import trio

from ewms.pilot.containers import bwrapwords, scratch
from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, ImageUnusable, Mount
from ewms.pilot.containers.begun import BegunContainer, begin, begun_or_new
from ewms.pilot.containers.mounts import checked
from ewms.pilot.containers.processes import Command, Launcher
from ewms.pilot.containers.rootlayer import Account, RootLayers
from ewms.pilot.containers.shellwords import argv, particulars
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
    scratch_names: ClassVar = tuple(scratch.MODES)

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

    async def begin(self, spec: ContainerSpec) -> BegunContainer:
        """See `StartsAhead`."""
        view = await self._view(spec)
        return await begin(self.launcher, self._command(view, spec, None, bwrapwords.RUN_LATER), view.layer)

    def _started(self, spec: ContainerSpec, script: str) -> AbstractAsyncContextManager[Container]:
        async def new() -> Command:
            text = particulars(spec.environment, spec.args)
            return self._command(await self._view(spec), spec, text, script)

        return begun_or_new(self.launcher, spec, new, self._made(spec))

    def _command(self, view: bwrapwords.View, spec: ContainerSpec, stdin: str | None, script: str) -> Command:
        targets = [str(each.target) for each in spec.mounts]
        variables = bwrapwords.runtime_variables(spec.image, self.account.home, targets)
        return Command(
            argv=(self.program, *bwrapwords.arguments(view, variables), *argv(script)),
            env={},
            cwd=Path("/"),
            stdin=stdin,
            stdout=spec.stdout,
            stderr=spec.stderr,
        )

    async def _view(self, spec: ContainerSpec) -> bwrapwords.View:
        mounts = checked(spec.mounts)
        scratch.make(spec.scratch)
        places = bwrapwords.scratch_places(self.account.home)
        targets = self._targets(spec)
        layer = self.layers.made(spec.image, targets)
        if layer is None:  # the image may be on a slow disk
            layer = await trio.to_thread.run_sync(self.layers.make, spec.image, targets)
        own = [Mount(spec.scratch / name, Path(target)) for name, target in places.items()]
        resolved = [attrs.evolve(each, target=layer.targets[str(each.target)]) for each in (*own, *mounts)]
        return bwrapwords.View(image=Path(spec.image), layer=layer.directory, mounts=resolved, home=self.account.home)

    def _made(self, spec: ContainerSpec) -> Path | None:
        """The layer that a container would have which is started now, if it is made already."""
        layer = self.layers.made(spec.image, self._targets(spec))
        return layer.directory if layer else None

    def _targets(self, spec: ContainerSpec) -> frozenset[str]:
        places = bwrapwords.scratch_places(self.account.home)
        return frozenset([*bwrapwords.KERNEL_PLACES, *places.values(), *(str(each.target) for each in spec.mounts)])


@asynccontextmanager
async def open_bwrap(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[BwrapPlatform]:
    """The platform as a pilot's settings want it.

    Raises:
        ContainerError: there is no bubblewrap here.
        SettingsError: a task's environment cannot be given through it.
    """
    program = shutil.which("bwrap", path=settings.path)
    if program is None:
        raise ContainerError(f"`bwrap` was not found (PATH={settings.path})")
    check_names(settings, "bubblewrap")
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
