"""One TMS per job directory: an exclusive lock on a file in it, inherited by the schedd helpers.

A helper outlives a TMS that was killed, and may still be submitting. It holds the lock until it is gone, too, so that
a new TMS looks into the queue only when nothing can appear there behind its back.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
import trio

log = structlog.stdlib.get_logger(__name__)

_RETRY: Final = 0.5
_REMIND: Final = 60.0


@asynccontextmanager
async def hold_lock(path: Path, *, waits_for: Callable[[str], None] = lambda _: None) -> AsyncIterator[int]:
    """Wait for the lock and hold it; gives the file descriptor that helpers have to inherit.

    `waits_for` is told what it waits for, and "" when it has it.

    Raises:
        OSError: the file cannot be made or opened.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        await _acquire(descriptor, path, waits_for)
        waits_for("")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)  # releases it, unless a helper is still alive


async def _acquire(descriptor: int, path: Path, waits_for: Callable[[str], None]) -> None:
    # No deadline: whoever holds it is the TMS of this directory, and systemd shows that this one waits.
    said_at = -_REMIND
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if trio.current_time() - said_at >= _REMIND:
                said_at = trio.current_time()
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                waits_for(
                    f"another TMS, or a schedd helper of one, in this job directory (started by process {holder})"
                )
                log.warning(
                    "waiting: another TMS, or a schedd helper that it left behind, works in this job directory",
                    lock=str(path),
                    started_by_pid=holder,
                )
            await trio.sleep(_RETRY)
        else:
            return
