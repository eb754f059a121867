"""Directories that are built once and kept: whole or not there, built by one process at a time, old ones removed.

A shelf is a directory of such entries, all of one kind. An entry in use holds a shared lock, so that nobody removes it;
the kernel drops the locks of a process that dies.
"""

import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from ewms.testing.pool.steps import Progress

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
    with _lock_file(shelf, key) as lock:
        while True:
            await _take(lock, fcntl.LOCK_SH, entry, progress)
            if entry.is_dir():
                break
            fcntl.flock(lock, fcntl.LOCK_UN)
            await _take(lock, fcntl.LOCK_EX, entry, progress)
            if not entry.is_dir():
                await _build(shelf, key, build)
                await trio.to_thread.run_sync(_prune, shelf, entry)
            fcntl.flock(lock, fcntl.LOCK_UN)
        os.utime(entry)
        yield entry


async def _build(shelf: Path, key: str, build: Build) -> None:
    # The lock is ours: what is half-built for this key was left by a builder that died.
    await trio.to_thread.run_sync(_remove_scratches, shelf, key)
    work = shelf / f"{key}{_SCRATCH_MARK}{os.getpid()}"
    scratch = Scratch(new=work / "new", tmp=work / "tmp", log=shelf / f"{key}.log")
    try:
        scratch.tmp.mkdir(parents=True)
        scratch.log.write_bytes(b"")
        await build(scratch)
        scratch.new.rename(shelf / key)
    finally:
        with trio.move_on_after(_CLEANUP_S, shield=True):
            await trio.to_thread.run_sync(_remove, work)


@contextmanager
def _lock_file(shelf: Path, key: str) -> Iterator[int]:
    shelf.mkdir(parents=True, exist_ok=True)
    # Lock files are never removed: two processes could then hold locks on two files of one name.
    lock = os.open(shelf / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield lock
    finally:
        os.close(lock)


async def _take(lock: int, kind: int, entry: Path, progress: Progress) -> None:
    """Wait until the lock is ours, however long another builder takes; say so."""
    told_at = trio.current_time()
    while not _try_to_take(lock, kind):
        if trio.current_time() - told_at >= _TELL_EVERY_S:
            progress(f"waiting for another process that builds {entry.parent.name}")
            told_at = trio.current_time()
        await trio.sleep(_POLL_S)


def _try_to_take(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prune(shelf: Path, newest: Path) -> None:
    """Remove all entries but the newest ones, and what dead builders left; not what somebody uses."""
    entries = [path for path in shelf.iterdir() if path.is_dir() and path != newest and _SCRATCH_MARK not in path.name]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for old in entries[KEPT - 1 :]:
        _if_unused(shelf, old.name, lambda old=old: _remove(old))  # type: ignore[misc]
    for left in shelf.glob(f"*{_SCRATCH_MARK}*"):
        key = left.name.split(_SCRATCH_MARK)[0]
        if key != newest.name:
            _if_unused(shelf, key, lambda key=key: _remove_scratches(shelf, key))  # type: ignore[misc]


def _if_unused(shelf: Path, key: str, action: Callable[[], None]) -> None:
    with _lock_file(shelf, key) as lock:
        if _try_to_take(lock, fcntl.LOCK_EX):
            action()


def _remove_scratches(shelf: Path, key: str) -> None:
    for left in shelf.glob(f"{key}{_SCRATCH_MARK}*"):
        _remove(left)


def _remove(directory: Path) -> None:
    # A builder that is being killed may still write: then its remains go at the next pruning.
    shutil.rmtree(directory, ignore_errors=True)
