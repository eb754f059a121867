"""A day log's archive: gzip, one member for each time that the log was archived.

A log that was created again is appended: nothing that was counted disappears. The last bytes of an archive of ours are
an empty member whose extra field says which bytes the archive took last, so that a crash between archiving a log and
removing it doubles nothing. Every gzip reader skips it.
"""

import gzip
import hashlib
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Final, cast

from ewms.tms.expiry import LOG_ARCHIVE_SUFFIX
from ewms.tms.packing import Disk, Member, Packed, Tick, Writer, copy, expect, fingerprint, new_file, set_aside

_TRAILER: Final = struct.Struct("<10sH2sHQ32s2sLL")
_HEADER: Final = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff"  # gzip, deflate, an extra field, no time, any system
_OURS: Final = b"EW"
_EXTRA_BYTES: Final = 40
_NOTHING: Final = b"\x03\x00"  # deflate's empty stream


def pack_log(source: Path, disk: Disk, tick: Tick) -> Packed:
    """Bring a day log's bytes into its archive `….gz`.

    Raises:
        OSError: it did not succeed, e.g. because the disk is full; nothing has changed.
    """
    archive = source.with_name(source.name + LOG_ARCHIVE_SUFFIX)
    before = fingerprint(source)
    packed = Packed(source, archive, before)
    with source.open("rb") as file:
        _check(archive, tick)
        taken = _taken_already(archive, file, tick)
        if archive.exists() and taken == before[0]:
            return packed
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o666
        with new_file(archive, mode, disk) as target:
            if archive.exists():
                with archive.open("rb") as old:
                    copy(old, target.write, tick)
            _append(file, taken, before[0], target, tick)
            expect(source, before)
    return packed


def _check(archive: Path, tick: Tick) -> None:
    """Read an archive that is there already; one that another tool left half-written is set aside."""
    try:
        with gzip.open(archive) as file:
            copy(cast("BinaryIO", file), len, tick)
    except FileNotFoundError:
        return
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        set_aside(archive, error)


def _trailer(size: int, digest: bytes) -> bytes:
    return _TRAILER.pack(_HEADER, _EXTRA_BYTES + 4, _OURS, _EXTRA_BYTES, size, digest, _NOTHING, 0, 0)


def _taken_already(archive: Path, source: BinaryIO, tick: Tick) -> int:
    """How many of the log's first bytes are what the archive took last: this log, if a crash kept it from going."""
    try:
        with archive.open("rb") as file:
            file.seek(-_TRAILER.size, os.SEEK_END)
            end = file.read(_TRAILER.size)
    except OSError:  # no archive, or one that is too small
        return 0
    *_, size, digest, _, _, _ = _TRAILER.unpack(end)
    return size if end == _trailer(size, digest) and _digest(source, size, tick) == digest else 0


def _digest(source: BinaryIO, size: int, tick: Tick) -> bytes:
    """Of a log's first bytes; of all of them if there are not so many."""
    hashed = hashlib.sha256()
    source.seek(0)
    copy(source, hashed.update, tick, size)
    return hashed.digest()


def _append(source: BinaryIO, taken: int, size: int, target: Writer, tick: Tick) -> None:
    source.seek(taken)
    member = Member(target, Path(source.name).name, int(os.fstat(source.fileno()).st_mtime))
    copy(source, member.write, tick, size - taken)
    member.finish()
    target.write(_trailer(size, _digest(source, size, tick)))
