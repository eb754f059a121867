"""Two platforms as one: the first, if its self-check passes on this machine; else the second."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog

from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec, Mount, Platform

log = structlog.stdlib.get_logger(__name__)


class WithFallback:
    """`first`, until its check fails; see `Platform`."""

    def __init__(self, first: Platform, second: Platform) -> None:
        self._platform = first
        self._second = second

    @property
    def name(self) -> str:
        """Of the one in use."""
        return self._platform.name

    @property
    def isolates(self) -> bool:
        """Whether the one in use does."""
        return self._platform.isolates

    async def prepare(self, image: str) -> str:
        """Of the one in use; the other must take what comes out of it, too."""
        return await self._platform.prepare(image)

    def path_inside(self, mount: Mount) -> Path:
        """Of the one in use."""
        return self._platform.path_inside(mount)

    async def check(self, spec: ContainerSpec) -> None:
        """Check the first; if it does not work here, say why, and from now on use the second, if that works."""
        try:
            await self._platform.check(spec)
        except ContainerError as error:
            if self._platform is self._second:
                raise
            log.warning("falling back to another container platform", to=self._second.name, reason=str(error))
            self._platform = self._second
            await self._platform.check(spec)

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """With the one in use."""
        return self._platform.start(spec)
