"""Look at what is in the job directory; blocking, to be called in a thread."""

import os
from pathlib import Path

import structlog

from ewms.tms.expiry import Found, Kind, kind_of
from ewms.tms.packing import Tick

log = structlog.stdlib.get_logger(__name__)


def survey(directory: Path, threshold: float, tick: Tick) -> list[Found]:
    """What of ours is in the job directory, the oldest first; what cannot be looked into is told and left out.

    Whether anything in a taskforce's directory changed after `threshold` (epoch s) is all that is asked of it.

    Raises:
        OSError: the directory cannot be listed.
    """
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            tick(0)
            is_directory = entry.is_dir(follow_symlinks=False)
            kind = None if entry.is_symlink() else kind_of(entry.name, is_directory=is_directory)
            if kind is None:
                continue
            try:
                found.append(Found(entry.name, kind, _changed_at(Path(entry.path), kind, threshold, tick)))
            except OSError as error:
                log.warning("cannot look into it, it is left alone", file=entry.name, error=str(error))
    return sorted(found, key=lambda each: (each.changed_at, each.name))


def _changed_at(path: Path, kind: Kind, threshold: float, tick: Tick) -> float:
    status = path.lstat()
    if kind is Kind.LOG:
        return status.st_mtime
    if kind is Kind.DIRECTORY:
        return _newest_change(path, threshold, tick)
    return max(status.st_mtime, status.st_ctime)  # some tools give an archive its source's time


def _newest_change(directory: Path, threshold: float, tick: Tick) -> float:
    newest = directory.lstat().st_mtime
    for root, directories, files in os.walk(directory, onerror=_raise):
        if newest > threshold:
            break
        tick(0)
        newest = max([newest, *(Path(root, name).lstat().st_mtime for name in (*directories, *files))])
    return newest


def _raise(error: OSError) -> None:
    raise error
