"""Container platforms behind one protocol (`base.py`); `open_platform` picks one by the settings and loads only it."""

import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from ewms.pilot.containers.base import ContainerError, Platform
from ewms.pilot.containers.processes import Launcher, open_launcher
from ewms.pilot.settings import PilotSettings

OpenPlatform = Callable[[Launcher, PilotSettings], AbstractAsyncContextManager[Platform]]


@asynccontextmanager
async def _apptainer(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.apptainer import ApptainerPlatform

    platform = ApptainerPlatform.from_settings(launcher, settings)
    try:
        yield platform
    finally:
        platform.converter.store.close()


@asynccontextmanager
async def _bwrap(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.bwrap import open_bwrap

    async with open_bwrap(launcher, settings) as platform:
        yield platform


@asynccontextmanager
async def _docker(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.docker import open_docker

    async with open_docker(launcher, settings) as platform:
        yield platform


@asynccontextmanager
async def _process(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.process import ProcessPlatform

    yield ProcessPlatform(launcher, path=settings.path)


@asynccontextmanager
async def _bwrap_or_apptainer(launcher: Launcher, settings: PilotSettings) -> AsyncIterator[Platform]:
    from ewms.pilot.containers.fallback import open_with_fallback

    async with open_with_fallback(_bwrap(launcher, settings), _apptainer(launcher, settings)) as platform:
        yield platform


PLATFORMS: Final[Mapping[str, OpenPlatform]] = {
    "apptainer": _apptainer,
    "bwrap": _bwrap,
    "docker": _docker,
    "process": _process,
}
"""The platforms that can be chosen by name."""
AUTOMATIC: Final[Sequence[tuple[tuple[str, ...], OpenPlatform]]] = (
    (("bwrap", "apptainer"), _bwrap_or_apptainer),
    (("apptainer",), _apptainer),
    (("bwrap",), _bwrap),
    (("docker",), _docker),
)
"""What `auto` tries, best first, and the programs that each needs; never one without isolation."""


@asynccontextmanager
async def open_platform(settings: PilotSettings) -> AsyncIterator[Platform]:
    """The platform that the settings name, ready to start containers.

    Raises:
        ContainerError: it cannot be used here; the text says what to do.
    """
    wanted = settings.container_platform
    opener = _automatic(settings) if wanted == "auto" else PLATFORMS[wanted]
    async with open_launcher() as launcher, opener(launcher, settings) as platform:
        yield platform


def _automatic(settings: PilotSettings) -> OpenPlatform:
    here = {name for name in ("apptainer", "bwrap", "docker") if shutil.which(name, path=settings.path)}
    if not all(Path(image).is_dir() for image in (settings.task_image, settings.init_image) if image):
        here.discard("bwrap")  # it starts directory images only
    for programs, opener in AUTOMATIC:
        if here.issuperset(programs):
            return opener
    raise ContainerError(
        "no container runtime was found; `auto` looks for: bwrap (for directory images), apptainer, docker "
        f"(PATH={settings.path})"
    )
