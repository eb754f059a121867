"""A taskforce directory's archive: a compressed tar, without the envfile.

The envfile holds queue tokens, and nobody needs it after the cluster is gone. The archive is private all the same, for
the workers' output is in it.
"""

import gzip
import stat
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final, cast

from ewms.contract import ENVFILE_NAME
from ewms.tms.expiry import DIRECTORY_ARCHIVE_SUFFIX
from ewms.tms.packing import Disk, Member, Packed, Tick, copy, expect, fingerprint, new_file, paths_in, set_aside

_PRIVATE: Final = 0o600


def pack_directory(source: Path, disk: Disk, tick: Tick) -> Packed:
    """Bring a directory into its archive `….tar.gz`, together with what an earlier archive has of it.

    Raises:
        OSError: it did not succeed, e.g. because the disk is full; nothing has changed.
    """
    archive = source.with_name(source.name + DIRECTORY_ARCHIVE_SUFFIX)
    before = fingerprint(source)
    paths = paths_in(source)
    _check(archive, tick)
    with new_file(archive, _PRIVATE, disk) as target:
        member = Member(target)
        with tarfile.open(fileobj=cast("BinaryIO", member), mode="w") as tar:  # it only ever writes to it
            _add_old(tar, archive, {str(path.relative_to(source.parent)) for path in paths}, tick)
            for path in paths:
                _add(tar, path, source.parent, tick)
        member.finish()
        expect(source, before)
    return Packed(source, archive, before)


def _check(archive: Path, tick: Tick) -> None:
    """Read an archive that is there already; one that another tool left half-written is set aside."""
    try:
        with gzip.open(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tick(member.size)
            copy(cast("BinaryIO", file), len, tick)  # to its end: its checksum stands there
    except FileNotFoundError:
        return
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        set_aside(archive, error)


def _is_secret(name: str) -> bool:
    return ENVFILE_NAME in name  # its temporary file, too


def _add(tar: tarfile.TarFile, path: Path, parent: Path, tick: Tick) -> None:
    tick(0)
    if _is_secret(path.name) or stat.S_ISSOCK(path.lstat().st_mode):
        return
    info = tar.gettarinfo(path, str(path.relative_to(parent)))
    if not info.isreg():
        tar.addfile(info)
        return
    with path.open("rb") as file:
        tar.addfile(info, _ticking(file, tick))


def _add_old(tar: tarfile.TarFile, archive: Path, newer: set[str], tick: Tick) -> None:
    """What an earlier archive has and the directory has not: it was archived before, and created again."""
    if not archive.exists():
        return
    with tarfile.open(archive, "r:gz") as old:
        for member in old:
            if member.name in newer or _is_secret(member.name):
                continue
            data = old.extractfile(member) if member.isreg() else None
            tar.addfile(member, _ticking(cast("BinaryIO", data), tick) if data else None)


class _Ticking:
    def __init__(self, file: BinaryIO, tick: Tick) -> None:
        self._file = file
        self._tick = tick

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._tick(len(data))
        return data


def _ticking(file: BinaryIO, tick: Tick) -> BinaryIO:
    """The file, with a tick for each read."""
    return cast("BinaryIO", _Ticking(file, tick))
