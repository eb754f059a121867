"""Container platforms behind one protocol (`base.py`); `open_platform` picks one by the settings and loads only it."""

import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from ewms.pilot.containers.base import ContainerError, Platform
from ewms.pilot.containers.processes import Launcher, open_launcher
from ewms.pilot.settings import PilotSettings

OpenPlatform = Callable[[Launcher, PilotSettings], AbstractAsyncContextManager[Platform]]


@asynccontextmanager
async def _apptainer(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.apptainer import ApptainerPlatform

    yield ApptainerPlatform.from_settings(launcher, settings)


@asynccontextmanager
async def _docker(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.docker import open_docker

    async with open_docker(launcher, settings) as platform:
        yield platform


@asynccontextmanager
async def _process(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.process import ProcessPlatform

    yield ProcessPlatform(launcher, path=settings.path)


PLATFORMS: Final[Mapping[str, OpenPlatform]] = {
    "apptainer": _apptainer,
    "docker": _docker,
    "process": _process,
}
"""The platforms that can be chosen by name."""
AUTOMATIC: Final = ("apptainer", "docker")
"""What `auto` tries, best first; never one without isolation."""


@asynccontextmanager
async def open_platform(settings: PilotSettings) -> AsyncIterator[Platform]:
    """The platform that the settings name, ready to start containers.

    Raises:
        ContainerError: it cannot be used here; the text says what to do.
    """
    name = _chosen(settings.container_platform, settings.path)
    async with open_launcher() as launcher, PLATFORMS[name](launcher, settings) as platform:
        yield platform


def _chosen(wanted: str, path: str) -> str:
    if wanted == "auto":
        for name in AUTOMATIC:
            if shutil.which(name, path=path):
                return name
        raise ContainerError(f"no container runtime was found; `auto` looks for: {', '.join(AUTOMATIC)} (PATH={path})")
    if wanted not in PLATFORMS:
        raise ContainerError(
            f"the container platform {wanted!r} is not available in this version; "
            f"set _EWMS_PILOT_CONTAINER_PLATFORM to one of: {', '.join((*PLATFORMS, 'auto'))}"
        )
    return wanted
