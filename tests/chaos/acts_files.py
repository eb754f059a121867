"""Faults of the file system that the job directory is on, and of the day's job event log."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from ewms.contract import DAY_LOG_SUFFIX
from ewms.testing.hanging import hanging_file
from tests.chaos.schedule import Timed
from tests.chaos.system import NotDone, System

_FILLER: Final = "filler"
_STUCK: Final = f"2020-01-01{DAY_LOG_SUFFIX}"
_TORN: Final = b"005 (0001.000.000) 2026-0"
_PIECE: Final = bytes(1 << 16)


@asynccontextmanager
async def full_disk(system: System, fault: Timed) -> AsyncIterator[None]:
    """Not a byte is left where the job event logs and the TMS's own state are."""
    filler = _job_dir(system) / _FILLER
    with system.harming_log():
        system.tms.excuse = True
        try:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(_PIECE)
            yield
        finally:
            filler.unlink(missing_ok=True)
            system.tms.excuse = False


@asynccontextmanager
async def read_only(system: System, fault: Timed) -> AsyncIterator[None]:
    """Nothing can be written there any more, but what is open already."""
    path = str(system.place.ground.job_dir)
    with system.harming_log():
        system.tms.excuse = True
        await system.place.as_root(["mount", "--bind", path, path])
        await system.place.as_root(["mount", "-o", "remount,bind,ro", path])
        yield
        await system.place.as_root(["umount", "--lazy", path])
        system.tms.excuse = False


@asynccontextmanager
async def torn_log(system: System, fault: Timed) -> AsyncIterator[None]:
    """The beginning of an event that never came to its end stands in the log; nothing else of it is lost."""
    with _log(system).open("ab") as file:
        file.write(_TORN)
    yield


@asynccontextmanager
async def truncated_log(system: System, fault: Timed) -> AsyncIterator[None]:
    """Half of the log is cut off."""
    log = _log(system)
    with system.harming_log():
        os.truncate(log, log.stat().st_size // 2)
    yield


@asynccontextmanager
async def replaced_log(system: System, fault: Timed) -> AsyncIterator[None]:
    """Another file with the same content has the log's name, as after a restore or a careless editor."""
    log = _log(system)
    with system.harming_log():
        copy = log.with_name("copy")
        shutil.copyfile(log, copy)
        owner = log.stat()
        os.chown(copy, owner.st_uid, owner.st_gid)
        copy.chmod(owner.st_mode & 0o777)
        copy.rename(log)
    yield


@asynccontextmanager
async def stuck_log(system: System, fault: Timed) -> AsyncIterator[None]:
    """Opening one of the logs does not return, as on a file server that hangs."""
    with hanging_file(_job_dir(system) / _STUCK):
        yield


def _job_dir(system: System) -> Path:
    return system.place.seen(system.place.ground.job_dir)


def _log(system: System) -> Path:
    """The log that was written to last."""
    logs = [path for path in _job_dir(system).glob(f"*{DAY_LOG_SUFFIX}") if path.is_file()]
    if not logs:
        raise NotDone("no log")
    return max(logs, key=lambda path: path.stat().st_mtime)
