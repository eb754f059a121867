"""A real systemd in a pool: it is PID 1 of a namespace of its own, and sees the files and daemons of the pool.

The units of the packages in the root are not started: HTCondor runs already. One kill ends all of it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing.pool.cgroups import own_cgroup
from ewms.testing.pool.data import containers_dir
from ewms.testing.pool.namespace import Namespace
from ewms.testing.pool.steps import PoolUnavailable, last_line

CGROUP_PREFIX: Final = "ewms-booted-"

_BOOT_DEADLINE_S: Final = 60
_END_DEADLINE_S: Final = 20
_POLL_S: Final = 0.1


@attrs.frozen
class Booted:
    """What systemd runs, and how to ask it."""

    inside: Namespace
    """What runs here is none of systemd's units; `systemctl` works."""

    async def systemctl(self, *words: str, check: bool = True) -> str:
        """What `systemctl` says; raises `CommandFailed` where it fails and `check` is set."""
        done = await self.inside.run(["systemctl", "--no-pager", *words], user="root", check=check)
        return (done.stdout or done.stderr).decode()

    async def property(self, unit: str, name: str) -> str:
        """One property of a unit, such as `ActiveState`."""
        return (await self.systemctl("show", f"--property={name}", "--value", unit)).strip()

    async def journal(self, unit: str) -> str:
        """All that a unit, and systemd about it, logged so far."""
        done = await self.inside.run(["journalctl", "--no-pager", "--output=cat", f"--unit={unit}"], user="root")
        return done.stdout.decode(errors="replace")


@asynccontextmanager
async def boot_systemd(inside: Namespace, log: Path) -> AsyncIterator[Booted]:
    """Boot it in the namespace of a pool; what it says before there is a journal goes to the file `log`.

    Raises:
        PoolUnavailable: it does not come up.
    """
    boot = ["unshare", "--mount", "--", "sh", str(containers_dir() / "pool" / "boot.sh")]
    with own_cgroup(CGROUP_PREFIX) as cgroup, log.open("ab") as output:
        process = await inside.spawn([*boot, cgroup], user="root", log=output)
        try:
            with trio.move_on_after(_BOOT_DEADLINE_S) as limit:
                booted = await _come_up(process, inside)
            if limit.cancelled_caught or booted is None:
                raise PoolUnavailable(f"systemd does not come up: {last_line(log)} (its log: {log})")
            yield booted
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_DEADLINE_S):
                await _end(process)


async def _come_up(process: trio.Process, inside: Namespace) -> Booted | None:
    """Wait until the first units run; None when it ended before."""
    while process.poll() is None:
        if init_pid := _init_below(process.pid):
            booted = Booted(attrs.evolve(inside, init_pid=init_pid))
            if await booted.systemctl("is-active", "sysinit.target", check=False) == "active\n":
                return booted
        await trio.sleep(_POLL_S)
    return None


async def _end(process: trio.Process) -> None:
    """Kill it, and with it all that it runs; nothing of it is there any more when this returns."""
    init_pid = _init_below(process.pid)
    with ExitStack() as stack, suppress(ProcessLookupError):
        init = os.pidfd_open(init_pid) if init_pid else None
        process.kill()
        await process.wait()
        if init is not None:
            stack.callback(os.close, init)
            await trio.lowlevel.wait_readable(init)


def _init_below(pid: int) -> int | None:
    """The process below `pid` that is PID 1 in its namespace, if there is one yet."""
    for child in _children(pid):
        found = child if _is_init(child) else _init_below(child)
        if found:
            return found
    return None


def _children(pid: int) -> list[int]:
    with suppress(OSError):  # it has ended meanwhile
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _is_init(pid: int) -> bool:
    with suppress(OSError):
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
        return any(row.startswith("NSpid:") and row.split()[-1] == "1" for row in rows)
    return False
