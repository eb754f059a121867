"""Directories that are built once and kept: whole or not there, built by one process at a time, old ones removed.

A shelf is a directory of such entries, all of one kind. Who builds holds the shelf's lock; who uses an entry holds a
shared lock on the entry itself, so that nobody removes it. The kernel drops the locks of a process that dies.
"""

import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing.pool.steps import PoolUnavailable, Progress, run_step

KEPT: Final = 2
"""How many entries of a shelf are kept: the newest ones."""

_POLL_S: Final = 0.2
_TELL_EVERY_S: Final = 2
_CLEANUP_S: Final = 60
_SCRATCH_MARK: Final = ".building-"


@attrs.frozen
class Scratch:
    """Where one entry is built."""

    new: Path
    """What becomes the entry; the builder makes this directory."""
    tmp: Path
    """For files that are needed while building; removed afterwards."""
    log: Path
    """What the builder's commands said; kept until the next try."""


Build = Callable[[Scratch], Awaitable[None]]


@asynccontextmanager
async def cached(shelf: Path, key: str, build: Build, *, progress: Progress) -> AsyncIterator[Path]:
    """The directory `shelf/key`, built if it is not there; safe from removal until this context is left."""
    entry = shelf / key
    while True:
        async with _in_use(entry, progress) as is_there:
            if is_there:
                os.utime(entry)
                yield entry
                return
        async with alone(shelf / "lock", f"builds a {shelf.name}", progress=progress):
            if not entry.is_dir():
                await _build(shelf, key, build)
                await _prune(shelf, key, progress)


@asynccontextmanager
async def alone(lock_file: Path, what: str, *, progress: Progress) -> AsyncIterator[None]:
    """Be the only task of any process here; who waits says what the other one does: "builds a pool-root"."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with _opened(os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)) as lock:
        await _take(lock, fcntl.LOCK_EX, what, progress)
        yield


@asynccontextmanager
async def _in_use(entry: Path, progress: Progress) -> AsyncIterator[bool]:
    """Hold an entry; whether it is there to be held."""
    try:
        directory = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    with _opened(directory):
        await _take(directory, fcntl.LOCK_SH, f"builds a {entry.parent.name}", progress)
        yield _is_still(entry, directory)


def _is_still(entry: Path, directory: int) -> bool:
    """Whether the directory that we opened still has its name: it may have been removed before the lock was ours."""
    return entry.is_dir() and os.path.samestat(entry.stat(), os.fstat(directory))


async def _build(shelf: Path, key: str, build: Build) -> None:
    # Not the name that a builder used who was killed: what it had started may still be writing there.
    work = shelf / f"{key}{_SCRATCH_MARK}{os.getpid()}"
    scratch = Scratch(new=work / "new", tmp=work / "tmp", log=shelf / f"{key}.log")
    try:
        await trio.to_thread.run_sync(_remove, work)
        scratch.tmp.mkdir(parents=True)
        scratch.log.write_bytes(b"")
        await build(scratch)
        scratch.new.rename(shelf / key)
    finally:
        with trio.move_on_after(_CLEANUP_S, shield=True):
            await trio.to_thread.run_sync(_remove, work)


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


async def _take(lock: int, kind: int, what: str, progress: Progress) -> None:
    """Wait until the lock is ours, however long another one takes; say so."""
    told_at = trio.current_time()
    while not _try_to_take(lock, kind):
        if trio.current_time() - told_at >= _TELL_EVERY_S:
            progress(f"waiting for another process that {what}")
            told_at = trio.current_time()
        await trio.sleep(_POLL_S)


def _try_to_take(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _prune(shelf: Path, newest: str, progress: Progress) -> None:
    """Remove all entries but the newest ones, and what dead builders left; nothing that is in use."""
    for old in _superfluous(shelf, newest):
        with _opened(os.open(old, os.O_RDONLY | os.O_CLOEXEC)) as directory:
            if _try_to_take(directory, fcntl.LOCK_EX):
                await _remove_entry(old, shelf / f"{newest}.log", progress)
    _remove_logs(shelf, newest)


async def _remove_entry(old: Path, log: Path, progress: Progress) -> None:
    command = ["rm", "-rf", str(_doomed(old))]
    # What a killed builder had started may still write there: then its remains go the next time.
    with suppress(PoolUnavailable):
        await run_step(f"removing an old {old.parent.name}", command, progress=progress, log=log)


def _doomed(old: Path) -> Path:
    # Another name: when the removal is interrupted, what is left must not look like a whole entry.
    return old if _SCRATCH_MARK in old.name else old.rename(f"{old}{_SCRATCH_MARK}{os.getpid()}")


def _superfluous(shelf: Path, newest: str) -> list[Path]:
    found = [path for path in shelf.iterdir() if path.is_dir() and path.name != newest]
    entries = [path for path in found if _SCRATCH_MARK not in path.name]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [*entries[KEPT - 1 :], *(path for path in found if path not in entries)]


def _remove_logs(shelf: Path, newest: str) -> None:
    for log in shelf.glob("*.log"):
        if log.stem != newest and not log.with_suffix("").is_dir():
            log.unlink()


def _remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
