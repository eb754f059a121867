"""Watching a container while it runs: the optional limits of a task, and the most memory that it had."""

import os
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot.containers.base import Container
from ewms.pilot.errors import TaskOverLimit
from ewms.pilot.limits import Limits

log = structlog.stdlib.get_logger(__name__)

POLL_S: Final = 1.0
NEAR: Final = 0.9
"""This much of the broker's limit is near to it."""


@attrs.define(kw_only=True)
class Watch:
    """Watches one container."""

    limits: Limits
    outfile: str | None
    streams: tuple[Path, ...]
    exceeded: TaskOverLimit | None = None
    peak_memory: int = 0
    _sizes: tuple[int, ...] = ()
    _changed: float = attrs.field(factory=trio.current_time)

    async def until_exceeded(self, container: Container) -> None:
        """Return when a limit is exceeded; `exceeded` says which."""
        while self.exceeded is None:
            await trio.sleep(POLL_S)
            self.exceeded = await self._look(container)

    async def _look(self, container: Container) -> TaskOverLimit | None:
        limits, output, sizes = self.limits, _size(self.outfile), tuple(map(_size, self.streams))
        if (output, *sizes) != self._sizes:
            self._sizes, self._changed = (output, *sizes), trio.current_time()
        if limits.memory is not None:
            memory = await container.memory() or 0
            self.peak_memory = max(self.peak_memory, memory)
            if memory > limits.memory:
                return TaskOverLimit("Memory", f"used {memory} bytes of memory, more than the limit of {limits.memory}")
        if limits.output is not None and output > limits.output:
            return TaskOverLimit("Output", f"wrote an outfile of more than {limits.output} bytes")
        if limits.streams is not None and max(sizes, default=0) > limits.streams:
            return TaskOverLimit("Output", f"wrote more than {limits.streams} bytes to stdout or stderr")
        if limits.silence is not None and trio.current_time() - self._changed > limits.silence:
            return TaskOverLimit("Silence", f"wrote nothing for {limits.silence:g} s")
        return None


async def wait_and_warn(container: Container, limit: float, run_id: str) -> int:
    """Wait for its end; say it once when it nears the time after which the broker takes its event back."""
    # A scope, and not another task beside each one: the shortest last a few ms.
    with trio.move_on_after(NEAR * limit):
        return await container.wait()
    log.warning(
        "a task nears the time after which the broker takes its event back and gives it to another pilot too; "
        "make tasks shorter, or raise the broker's consumer_timeout (and EWMS_PILOT_CONSUMER_TIMEOUT)",
        task=run_id,
        limit_s=limit,
    )
    return await container.wait()


def _size(path: str | Path | None) -> int:
    try:
        return os.lstat(path).st_size if path else 0
    except OSError:
        return 0  # it is not there yet
