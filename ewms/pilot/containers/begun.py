"""Containers that are begun before their task is known: a shell in them waits for it on its standard input."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import attrs

from ewms.pilot.containers.base import Container, ContainerError, ContainerSpec
from ewms.pilot.containers.process import RunningProcess
from ewms.pilot.containers.processes import MOST_FED, Command, Launcher, Process
from ewms.pilot.containers.shellwords import particulars


@attrs.frozen(eq=False)
class BegunContainer:
    """See `Begun`."""

    layer: Path | None
    """What its root is made of, beside the image."""
    process: Process
    _stack: AsyncExitStack

    async def aclose(self) -> None:
        """Leave nothing of it."""
        await self._stack.aclose()


async def begin(launcher: Launcher, command: Command, layer: Path | None = None) -> BegunContainer:
    """Start `command`, whose standard input comes later, and wait until it waits for that.

    Raises:
        ContainerError: it could not be started, or it ended.
    """
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(launcher.run(command))
        await process.until_waiting()
        return BegunContainer(layer, process, stack.pop_all())


@asynccontextmanager
async def begun_or_new(
    launcher: Launcher, spec: ContainerSpec, new: Callable[[], Awaitable[Command]], layer: Path | None = None
) -> AsyncIterator[Container]:
    """Run the container that was begun for `spec`; if none was, or it cannot be used, the command that `new` gives.

    Raises:
        ContainerError: it could not be started.
    """
    async with AsyncExitStack() as stack:
        process = None
        if isinstance(spec.begun, BegunContainer):
            stack.push_async_callback(spec.begun.aclose)
            process = await _gone_on(spec, spec.begun, layer)
        if process is None:
            process = await stack.enter_async_context(launcher.run(await new()))
        yield RunningProcess(process)


async def _gone_on(spec: ContainerSpec, begun: BegunContainer, layer: Path | None) -> Process | None:
    """The container that was begun; None, and it is gone, if it cannot be used."""
    text = particulars(spec.environment, spec.args)
    if len(text) <= MOST_FED and layer == begun.layer:
        with suppress(ContainerError):  # it ended while it waited
            await begun.process.feed(text)
            return begun.process
    await begun.aclose()
    return None
