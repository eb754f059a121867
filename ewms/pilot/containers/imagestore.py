"""The converted images on one machine, shared by all pilots of one user: who uses them, and when they go.

IMAGES/KEY/            a directory image: whole, or not there; each pilot that uses it has a shared lock on it
IMAGES/KEY.lock        held by who makes or removes the image; what it was made from is written in it, and its time is
                       when the image was used last
IMAGES/KEY.making-*/   a conversion at work: what it makes, the runtime's temporary files and its cache, on one disk
IMAGES/KEY.going-*/    a removal at work

The kernel frees a lock when its pilot dies. What a killed pilot left half made or half removed goes with the next look.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

from ewms.pilot.containers.base import ImageUnusable
from ewms.pilot.directories import remove_tree, tree_size

log = structlog.stdlib.get_logger(__name__)

LIMIT_S: Final = 3600.0
"""For one conversion, and as long for another pilot's."""
TELL_S: Final = 10.0
"""How often a conversion, or the wait for one, says how far it is."""
_LOCK_POLL_S: Final = 0.5
_KEY_CHARS: Final = 16
_MAKE: Final = os.O_RDWR | os.O_CREAT


@attrs.frozen(kw_only=True)
class About:
    """What is known of a converted image; its text is in the lock file."""

    source: str
    digest: str = ""
    """Of what the registry had under that name then; "" for a file, or where it is not known."""
    converted: float = 0.0
    """When (s since the epoch)."""
    bytes: int = 0
    """On disk."""


@attrs.frozen(kw_only=True)
class Keeping:
    """How long images stay that no pilot uses."""

    unused_s: float
    total_bytes: int

    def is_surplus(self, *, unused_s: float, total_bytes: int) -> bool:
        """Whether an image has to go that was last used so long ago, when all of them have so many bytes."""
        return unused_s > self.unused_s or total_bytes > self.total_bytes


@attrs.frozen(kw_only=True)
class ImageStore:
    """All the images in one directory."""

    root: Path
    keeping: Keeping
    _used: dict[Path, int] = attrs.field(factory=dict, init=False)
    """Images that this pilot uses → the file descriptor that has the lock."""

    @asynccontextmanager
    async def locked(self, source: str) -> AsyncIterator[Path]:
        """Hold the image of `source` against every other pilot that would make or remove it; where it is, or will be.

        Raises:
            ImageUnusable: another pilot had it for too long.
            OSError: there can be no such directory, or others could put images of theirs there.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(self.root)
        place = self.root / key_of(source)
        async with locked(_lock_of(place), source):
            for left in self._leftovers(place.name):
                await _remove_leftover(left)
            yield place

    def use(self, place: Path) -> None:
        """Let nobody remove the image, from now on until `close`; for who has it locked."""
        if place not in self._used:
            self._used[place] = fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_SH)
        os.utime(_lock_of(place))

    def close(self) -> None:
        """Use none of them any more."""
        while self._used:
            place, fd = self._used.popitem()
            with contextlib.suppress(OSError):
                os.utime(_lock_of(place))
            os.close(fd)

    def write_about(self, place: Path, about: About) -> None:
        """For who has the image locked."""
        _lock_of(place).write_text(json.dumps(attrs.asdict(about)))

    def read_about(self, place: Path) -> About | None:
        """What is known of an image; None if nothing is."""
        try:
            values: Any = json.loads(_lock_of(place).read_text())
            return About(**values)
        except (OSError, ValueError, TypeError):
            return None  # it was made before this was written, or the pilot was killed in between

    async def prune(self) -> None:
        """Remove the images that nobody uses and that are not to stay, the longest unused first."""
        for left in self._leftovers("*"):
            with _held(_lock_of(left), _MAKE) as mine:
                if mine:
                    await _remove_leftover(left)
        found = [(self._last_used(place), place, self._size(place)) for place in self._places()]
        total = sum(size for _, _, size in found)
        for last_used, place, size in sorted(found):
            unused_s = time.time() - last_used
            if self.keeping.is_surplus(unused_s=unused_s, total_bytes=total) and await self._remove_unused(place):
                total -= size
                log.info("removed a converted image", path=str(place), unused_s=round(unused_s), bytes=size)

    def _places(self) -> list[Path]:
        return [path for path in self.root.iterdir() if path.is_dir() and not path.suffix]

    def _last_used(self, place: Path) -> float:
        lock = _lock_of(place)
        if not lock.exists():
            lock.touch(mode=0o600)  # a cleaner took it: as if the image was used now
        return lock.stat().st_mtime

    def _size(self, place: Path) -> int:
        about = self.read_about(place)
        return about.bytes if about else tree_size(place)

    async def _remove_unused(self, place: Path) -> bool:
        """Whether it was removed: not if a pilot uses, makes or removes it."""
        with _held(_lock_of(place), _MAKE) as mine:
            if not mine:
                return False
            with _held(place) as unused:
                if not unused:
                    return False
                going = place.with_suffix(f".going-{secrets.token_hex(4)}")
                os.rename(place, going)  # noqa: PTH104  from here on it is not there for anybody
            await remove_tree(going)
            _lock_of(place).unlink()
        return True

    def _leftovers(self, key: str) -> list[Path]:
        """Of conversions and removals, at work or not."""
        return [*self.root.glob(f"{key}.making-*"), *self.root.glob(f"{key}.going-*")]


def _check_owner(root: Path) -> None:
    # Its name can be guessed, and everybody can make directories beside it: who made it first could choose our images.
    status = root.stat()
    if {root.lstat().st_uid, status.st_uid} != {os.getuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "others can write there, or have made it", str(root))


async def _remove_leftover(path: Path) -> None:
    log.warning("removing what a killed pilot left of an image", path=str(path))
    await remove_tree(path)


def key_of(source: str) -> str:
    """The name of an image's directory: another one for a file that was replaced."""
    try:
        status = Path(source).stat()
    except OSError:
        identity = source  # in a registry
    else:
        identity = f"{source}\0{status.st_size}\0{status.st_mtime_ns}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:_KEY_CHARS]


@asynccontextmanager
async def locked(path: Path, source: str) -> AsyncIterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it when this process dies.

    Raises:
        ImageUnusable: another pilot had it for too long.
    """
    began = told = trio.current_time()
    while True:
        with _held(path, _MAKE) as mine:
            if mine:
                yield
                return
        now = trio.current_time()
        if now - began > LIMIT_S:
            raise ImageUnusable(f"another pilot has not converted the image {source} within {LIMIT_S:g} s")
        if now - told >= TELL_S:
            log.info("waiting for another pilot that converts the image", image=source)
            told = now
        await trio.sleep(_LOCK_POLL_S)


@contextmanager
def _held(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Hold an exclusive lock on a file or directory, if it is there and nobody else has a lock on it."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _try_to_lock(fd) and _is_still(path, fd)
    finally:
        os.close(fd)


def _try_to_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # somebody has it, or this file system cannot lock it: then nobody removes it
    return True


def _is_still(path: Path, fd: int) -> bool:
    """Whether `path` is what was opened, and not a new one after that was removed."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _lock_of(place: Path) -> Path:
    return place.with_suffix(".lock")
