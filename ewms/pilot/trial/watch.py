"""A platform that looks at what another one runs: what started, how long it took, what was refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from ewms.pilot.containers import open_platform
from ewms.pilot.containers.base import Container, ContainerSpec, Mount, Platform, Usage
from ewms.pilot.directories import tree_size
from ewms.pilot.errors import root_cause
from ewms.pilot.settings import PilotSettings

Tell = Callable[[str], None]
OpenPlatform = Callable[[PilotSettings], AbstractAsyncContextManager[Platform]]


@attrs.define
class Run:
    """One container."""

    spec: ContainerSpec
    began: float
    ended: float | None = None
    code: int | None = None
    """None: it was killed before it ended, or could not be started."""
    started: bool = False
    usage: Usage = Usage()
    scratch: int = 0
    """Bytes in its /tmp and HOME at the end."""

    @property
    def wall_s(self) -> float:
        """Seconds until it was gone, or until now."""
        return (trio.current_time() if self.ended is None else self.ended) - self.began


@attrs.define
class Watch:
    """What a trial's pilot does with containers."""

    tell: Tell
    label: Callable[[str], str]
    """A container's name, for people."""
    inner: OpenPlatform = open_platform
    platform: str = ""
    """The name of the platform that was chosen."""
    runs: dict[str, Run] = attrs.field(factory=dict)
    refused: BaseException | None = None
    """What ended the pilot."""

    @asynccontextmanager
    async def open(self, settings: PilotSettings) -> AsyncIterator[Platform]:
        """As `open_platform`, with an eye on it."""
        try:
            async with self.inner(settings) as platform:
                self.platform = platform.name
                self.tell(f"containers are run by: {platform.name}")
                yield WatchedPlatform(platform, self)
        except Exception as error:
            self.refused = root_cause(error)
            raise

    async def tell_of_long_ones(self, every: float) -> None:
        """Every so many seconds: which containers still run; for ever."""
        while True:
            await trio.sleep(every)
            for name, run in self.runs.items():
                if run.ended is None:
                    self.tell(f"{self.label(name)}: still running after {run.wall_s:.0f} s")


@attrs.frozen
class WatchedPlatform:
    """See `Platform`."""

    inner: Platform
    watch: Watch

    @property
    def name(self) -> str:
        """The platform's own."""
        return self.inner.name

    @property
    def isolates(self) -> bool:
        """The platform's own."""
        return self.inner.isolates

    def path_inside(self, mount: Mount) -> Path:
        """The platform's own."""
        return self.inner.path_inside(mount)

    async def prepare(self, image: str) -> str:
        """Prepare, and say when it took its time."""
        began = trio.current_time()
        prepared = await self.inner.prepare(image)
        if (took := trio.current_time() - began) > 1:
            self.watch.tell(f"the image {image} was made ready in {took:.0f} s")
        return prepared

    async def check(self, spec: ContainerSpec) -> None:
        """The platform's own; it may choose another one."""
        await self.inner.check(spec)
        if self.inner.name != self.watch.platform:
            self.watch.tell(
                f"containers are run by {self.inner.name}, because {self.watch.platform} does not work here"
            )
            self.watch.platform = self.inner.name

    @asynccontextmanager
    async def start(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        """Run, and note how it went."""
        run = self.watch.runs[spec.name] = Run(spec, trio.current_time())
        label = self.watch.label(spec.name)
        self.watch.tell(f"{label}: started")
        container: Container | None = None
        try:
            async with self.inner.start(spec) as container:
                run.started = True
                yield WatchedContainer(container, run)
        finally:
            run.ended = trio.current_time()
            run.usage = Usage() if container is None else container.usage
            run.scratch = tree_size(spec.scratch)
            self.watch.tell(f"{label}: {_end_of(run)}")


def _end_of(run: Run) -> str:
    if not run.started:
        return "could not be started"
    how = "was killed" if run.code is None else f"ended with exit code {run.code}"
    return f"{how} after {run.wall_s:.1f} s"


@attrs.frozen
class WatchedContainer:
    """See `Container`."""

    inner: Container
    run: Run

    @property
    def usage(self) -> Usage:
        """The container's own."""
        return self.inner.usage

    async def memory(self) -> int | None:
        """The container's own."""
        return await self.inner.memory()

    async def wait(self) -> int:
        """Wait, and note the exit code."""
        self.run.code = await self.inner.wait()
        return self.run.code
