"""Read a growing log from where we stopped. Blocking file access; the watcher calls it in a thread."""

import os
from pathlib import Path
from typing import Final

import attrs

from ewms.tms.eventlog.format import cut

BATCH: Final = 1 << 18
"""Bytes read at once: as many as a processor's cache holds with what is made of them (1 MiB takes a fifth longer)."""
LONGEST_EVENT: Final = 16 << 20
"""So many bytes without a terminator are no event that is still being written: they are skipped."""
_KEPT: Final = 200
"""Bytes of a log's beginning, and of the end of what was read, by which it is known again."""
_OVERLAP: Final = 4096


@attrs.frozen
class Position:
    """How far a log was read, and how to know it again: its inode, its first bytes, and those before the offset."""

    offset: int = 0
    inode: int = 0
    head: bytes = b""
    tail: bytes = b""
    again: int = 0
    """As far as this offset the log is read on top of what was read before; 0: it is read for the first time."""


@attrs.frozen
class Piece:
    """What one read gave: whole events, and the position behind them."""

    data: bytes
    position: Position
    more: bool
    """There are further bytes; only a partial event may be left where this is false."""
    replaced: str | None = None
    """Why this is not the file that the position was of; then it was read from its beginning."""
    again: bool = False
    """These events may have been read before."""
    skipped: int = 0
    """Bytes that cannot be an event."""


def read_on(path: Path, position: Position, batch: int = BATCH) -> Piece:
    """Read whole events from `position`; raises OSError.

    A log that shrank, or is another file now, is read from its beginning. So is one that was cut and has grown since:
    HTCondor does not force its log to the disk, and a checkpoint may survive a power cut that the log's end does not.
    """
    with path.open("rb", buffering=0) as file:
        stat = os.fstat(file.fileno())
        replaced = _other_file(position, stat, file.fileno()) if position.offset else None
        if replaced is not None:
            position = Position(again=max(position.offset, position.again))
        file.seek(position.offset)
        data = file.read(batch)
        end = cut(data)
        while not end and len(data) >= batch and len(data) < LONGEST_EVENT:
            further = file.read(len(data))
            if not further:
                break
            data += further
            end = cut(data)
    skipped = 0
    if not end and len(data) >= LONGEST_EVENT:
        skipped = len(data) - _OVERLAP
    behind = position.offset + (end or skipped)
    head = position.head or data[: min(end, _KEPT)]
    tail = (position.tail + data[: end or skipped][-_KEPT:])[-_KEPT:]
    more = behind < stat.st_size and bool(end or skipped)
    known = Position(behind, stat.st_ino, head, tail, position.again)
    return Piece(data[:end], known, more, replaced, again=position.offset < position.again, skipped=skipped)


def _other_file(position: Position, stat: os.stat_result, file: int) -> str | None:
    if stat.st_size < position.offset:
        return "it is shorter than what was read already"
    if stat.st_ino != position.inode:
        return "it is another file (inode)"
    if os.pread(file, len(position.head), 0) != position.head:
        return "its first bytes changed"
    if os.pread(file, len(position.tail), position.offset - len(position.tail)) != position.tail:
        return "the last bytes read changed"
    return None
