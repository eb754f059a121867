"""What a Docker container uses: looked at while it runs, because the daemon keeps nothing for afterwards.

Its processes are found by its id in their cgroups' names, without asking the daemon; where they cannot be seen from
here (a daemon on another machine, another PID namespace), nothing is known.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import attrs
import trio

from ewms.pilot.containers.base import Usage
from ewms.pilot.containers.treememory import parent_of, tree_cpu, tree_memory

FIRST_LOOK_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 1.0
_GROWTH: Final = 1.5
_ID_CHARS: Final = 64


@attrs.define
class Meter:
    """Looks at one container."""

    id_file: Path
    """Where the client writes the container's id."""
    usage: Usage = Usage()
    """As of the last look; the peak is that of all looks."""
    _first: int | None = None
    """The container's first process."""

    async def look_for_ever(self) -> NoReturn:
        """Look, often at first and then every second."""
        interval = FIRST_LOOK_S
        while True:
            await trio.sleep(interval)
            await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            interval = min(LONGEST_INTERVAL_S, interval * _GROWTH)

    async def memory(self) -> int | None:
        """Bytes that it has now; None if it is not seen."""
        return await trio.to_thread.run_sync(self._memory, abandon_on_cancel=True)

    def kill(self) -> bool:
        """Kill its first process, and with that all of it, without the daemon's help; whether there was one."""
        first = _first_process(_read(self.id_file))
        if first is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        return True

    def _look(self) -> None:
        memory = self._memory()
        if memory is not None and self._first is not None:
            self.usage = Usage(tree_cpu(self._first), max(memory, self.usage.peak_memory or 0))

    def _memory(self) -> int | None:
        if self._first is None:
            self._first = _first_process(_read(self.id_file))
        if self._first is None:
            return None
        # 0: it has ended.
        return tree_memory(self._first) or None


def _first_process(container: str) -> int | None:
    """The process of a container whose parent is not one; None if none is seen."""
    if len(container) != _ID_CHARS:
        return None  # its client has not written it yet
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if container in _read(path / "cgroup")]
    return next((pid for pid in pids if parent_of(pid) not in pids), None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
