"""The TMS as a process that is started again whenever it ends, as systemd would do it."""

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NoReturn

import attrs
import trio

from ewms.testing import outside

_RESTART_S: Final = 1.0
_END_GRACE_S: Final = 30.0


@attrs.define
class TmsKeeper:
    """Runs it; ends that are not our doing are noted."""

    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    wrong_ends: list[str] = attrs.field(factory=list)
    excuse: bool = False
    """While true it may end by itself: a directory that it cannot work in is a reason."""
    _process: trio.Process | None = None
    _sent: set[int] = attrs.field(factory=set)
    """Signals that it got from us since it was started."""
    _ending: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def keep(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start it again and again, until `end`."""
        with self._ending:
            task_status.started()
            await self._keep()

    async def _keep(self) -> NoReturn:
        while True:
            self._sent.clear()
            with self.log.open("ab") as log:
                said = log.tell()
                self._process = await trio.lowlevel.open_process(
                    list(self.command),
                    env={"PATH": os.defpath, **self.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            status = await self._process.wait()
            if not self.excuse and not self._is_ours(status, said_nothing=self.log.stat().st_size == said):
                self.wrong_ends.append(f"the TMS ended by itself, with status {status}; see {self.log}")
            await trio.sleep(_RESTART_S)

    def _is_ours(self, status: int, *, said_nothing: bool) -> bool:
        if signal.SIGKILL in self._sent and status == -signal.SIGKILL:
            return True
        # A Python that has not come to our code yet just ends by the signal.
        return signal.SIGTERM in self._sent and (status == 0 or (status == -signal.SIGTERM and said_nothing))

    @property
    def pids(self) -> list[int]:
        """The TMS and all below it, the TMS first; empty while there is none."""
        if self._process is None or self._process.returncode is not None:
            return []
        below = outside.descendants(self._process.pid) | {self._process.pid}
        found = [each for each in outside.processes() if each.pid in below]
        tms = [each.pid for each in found if each.command_line.rstrip(b"\0").endswith(b"\0tms") and not _joins(each)]
        return [*tms, *(each.pid for each in found if each.pid not in tms and not _joins(each))]

    def signal(self, number: int, pids: Sequence[int]) -> None:
        """Send a signal to some of them, as somebody else would; one may have ended meanwhile."""
        if pids and pids[0] in self.pids[:1]:
            self._sent.add(number)
        for pid in pids:
            outside.send(pid, number)

    async def end(self) -> list[str]:
        """SIGTERM for good; what is wrong about how it ends."""
        self._ending.cancel()
        process = self._process
        if process is None or process.returncode is not None:
            return ["the TMS does not run at the end"]
        with trio.move_on_after(_END_GRACE_S):
            process.send_signal(signal.SIGTERM)
            status = await process.wait()
            return [f"the TMS ended with status {status} after SIGTERM"] if status else []
        process.kill()
        await process.wait()
        return [f"the TMS did not end within {_END_GRACE_S:g} s after SIGTERM"]


def _joins(process: outside.Process) -> bool:
    """The way into a pool, not what is run there."""
    return b"join.py" in process.command_line


@asynccontextmanager
async def kept(keeper: TmsKeeper) -> AsyncIterator[TmsKeeper]:
    """It is kept running while the context lasts."""
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.keep)
        try:
            yield keeper
        finally:
            with trio.CancelScope(shield=True):  # bounded inside
                await keeper.end()
            nursery.cancel_scope.cancel()
