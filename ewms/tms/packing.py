"""Into an archive and out of the way: a temporary file, synced, renamed; what is archived is removed later.

Everything here is synchronous and may take long: `tick(bytes)` is called at least for each MiB, and may raise to stop
it. Whatever is raised, no half file is left.
"""

import contextlib
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import attrs
import structlog

from ewms.tms.expiry import DAMAGED_SUFFIX, RETIRED_SUFFIX
from ewms.tms.files import sync_directory

log = structlog.stdlib.get_logger(__name__)

Tick = Callable[[int], None]
Fingerprint = tuple[int, int]

CHUNK: Final = 1 << 20
_LEVEL: Final = 6
_GZIP: Final = b"\x1f\x8b\x08"
_HAS_NAME: Final = 8
_ANY_SYSTEM: Final = b"\x00\xff"
_SIZE_MODULUS: Final = 1 << 32


class SourceChanged(OSError):
    """The log or directory changed while it was archived: somebody needs it after all."""


class Disk:
    """The calls that change the disk; a test puts a full one in its place."""

    def create(self, path: Path, mode: int) -> BinaryIO:
        """A new file that has `mode` from its first byte on."""
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")

    def write(self, file: BinaryIO, data: bytes) -> None:
        """Write all of it."""
        file.write(data)

    def publish(self, file: BinaryIO, temporary: Path, final: Path) -> None:
        """Make the file durable under its final name."""
        file.flush()
        os.fsync(file.fileno())
        temporary.replace(final)
        sync_directory(final.parent)

    def remove(self, path: Path) -> None:
        """Remove a file or a directory with all that is in it."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@attrs.frozen
class Packed:
    """A source that is in its archive; it is still there itself."""

    source: Path
    archive: Path
    fingerprint: Fingerprint
    """Of the source as it was archived: bytes or paths, and the newest change in ns."""


def drop(packed: Packed, disk: Disk) -> None:
    """Remove a source that is in its archive.

    Raises:
        SourceChanged: it is not what was archived any more; it stays, and its archive too.
        OSError: it could not be removed.
    """
    source = packed.source
    expect(source, packed.fingerprint)
    if source.is_dir():
        # Renamed first: after a crash in the middle, half a directory must not pass for a whole one.
        retired = source.with_name(f".{source.name}{RETIRED_SUFFIX}")
        if retired.exists():
            disk.remove(retired)
        source.rename(retired)
        source = retired
    disk.remove(source)
    sync_directory(source.parent)


def fingerprint(path: Path) -> Fingerprint:
    """Of a log: its size and last change; of a directory: how many paths, itself included, and their newest change."""
    if not path.is_dir():
        status = path.lstat()
        return status.st_size, status.st_mtime_ns
    times = [each.lstat().st_mtime_ns for each in paths_in(path)]
    return len(times), max(times)


def expect(source: Path, expected: Fingerprint) -> None:
    """Raise `SourceChanged` if the source has another fingerprint by now."""
    if fingerprint(source) != expected:
        raise SourceChanged(f"{source.name} has changed since it was looked at")


def paths_in(directory: Path) -> list[Path]:
    """The directory and everything in it; symbolic links are not followed."""
    found = [directory]
    for root, directories, files in os.walk(directory, onerror=_raise):
        found += [Path(root, name) for name in (*directories, *files)]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


class Writer:
    """A file that is written through the disk."""

    def __init__(self, file: BinaryIO, disk: Disk) -> None:
        self._file = file
        self._disk = disk
        self._position = 0

    def write(self, data: bytes) -> int:
        self._disk.write(self._file, data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position


class Member:
    """One gzip member at the end of a file; what is written to it is compressed.

    The standard library's own one writes its last bytes when it is closed or collected, which a full disk refuses, and
    then again, in a destructor. This one writes only when it is told to, and what was not finished is just dropped.
    """

    def __init__(self, target: Writer, name: str = "", mtime: int = 0) -> None:
        """`name` and `mtime` (epoch s) are what `gunzip -N` gives back."""
        self._target = target
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        self._position = 0
        ending = name.encode("latin-1", "replace") + b"\0" if name else b""
        flags = bytes([_HAS_NAME if ending else 0])
        target.write(_GZIP + flags + struct.pack("<L", mtime % _SIZE_MODULUS) + _ANY_SYSTEM + ending)

    def write(self, data: bytes) -> int:
        self._crc = zlib.crc32(data, self._crc)
        self._position += len(data)
        if compressed := self._deflate.compress(data):
            self._target.write(compressed)
        return len(data)

    def finish(self) -> None:
        """Write the end."""
        end = struct.pack("<LL", self._crc, self._position % _SIZE_MODULUS)
        self._target.write(self._deflate.flush() + end)

    def tell(self) -> int:
        return self._position


@contextlib.contextmanager
def new_file(final: Path, mode: int, disk: Disk) -> Iterator[Writer]:
    """A temporary file beside `final` that takes its name if all went well, and else is gone."""
    temporary = final.with_name(f".{final.name}.new")
    temporary.unlink(missing_ok=True)  # left by a crash
    file = disk.create(temporary, mode)
    try:
        with file:
            yield Writer(file, disk)
            disk.publish(file, temporary, final)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()  # a full disk refuses the last bytes here once more
        temporary.unlink(missing_ok=True)
        raise


def set_aside(archive: Path, reason: BaseException) -> None:
    """Rename an archive that cannot be read: appending to it would make the new part unreadable, too."""
    aside = archive.with_name(archive.name + DAMAGED_SUFFIX)
    archive.replace(aside)
    log.error("archive is damaged, set aside, a new one is begun", file=str(aside), error=str(reason))


def copy(source: BinaryIO, write: Callable[[bytes], object], tick: Tick, size: int | None = None) -> None:
    """Copy what is left of a file, or `size` bytes of it if there are so many: it may grow faster than we read."""
    while size != 0 and (chunk := source.read(CHUNK if size is None else min(CHUNK, size))):
        tick(len(chunk))
        write(chunk)
        if size is not None:
            size -= len(chunk)
