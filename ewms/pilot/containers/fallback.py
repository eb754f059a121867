"""Two platforms as one: the first, if it opens and its self-check passes on this machine; else the second."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog

from ewms.pilot.containers.base import Begun, Container, ContainerError, ContainerSpec, Mount, Platform, StartsAhead

log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def open_with_fallback(
    first: AbstractAsyncContextManager[Platform], second: AbstractAsyncContextManager[Platform]
) -> AsyncIterator[Platform]:
    """Both, or the second alone, where the first does not open.

    Raises:
        ContainerError: the second does not open.
    """
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(second)
        try:
            platform = WithFallback(await stack.enter_async_context(first), platform)
        except ContainerError as error:
            _say(platform, error)
        yield platform


def _say(to: Platform, reason: ContainerError) -> None:
    log.warning("falling back to another container platform", to=to.name, reason=str(reason))


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
            _say(self._second, error)
            self._platform = self._second
            await self._platform.check(spec)

    @property
    def scratch_names(self) -> Sequence[str]:
        """Of the one in use, if that can start ahead."""
        return self._platform.scratch_names if isinstance(self._platform, StartsAhead) else ()

    async def begin(self, spec: ContainerSpec) -> Begun:
        """With the one in use; see `StartsAhead`."""
        if not isinstance(self._platform, StartsAhead):
            raise ContainerError(f"{self.name} cannot start ahead")
        return await self._platform.begin(spec)

    def start(self, spec: ContainerSpec) -> AbstractAsyncContextManager[Container]:
        """With the one in use."""
        return self._platform.start(spec)
