"""Directories that are used again, once they are as they were when they were made.

To make or to remove a directory waits for the disk's journal, and a task needs seven. So those of a task that succeeded
serve another one: only if nothing is left in them, and no mode, owner, access list or other attribute was changed.
"""

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import attrs

MOST: Final = 16
"""Directories of tasks that wait to be used again."""
_LARGEST: Final = 4096
"""Bytes; a directory that had many entries stays large, and slow."""


class _Look(NamedTuple):
    """What a task may change of a directory, but its content."""

    mode: int
    uid: int
    gid: int
    attributes: tuple[tuple[str, bytes], ...]


@attrs.define
class Reuse:
    """The directories of one pilot's tasks that are free."""

    parts: Sequence[str]
    """Below a task's own directory; all of them are made with it, in the same way."""
    own_modes: Sequence[str] = ()
    """Below it too: whoever makes these sets their modes each time, and is content with those that are there."""
    _free: list[Path] = attrs.field(factory=list, init=False)
    _new: _Look | None = attrs.field(default=None, init=False)

    def take(self) -> Path | None:
        """A free one, which is not free any more."""
        return self._free.pop() if self._free else None

    def made(self, root: Path) -> None:
        """Learn from a task's directory that was just made how a new one looks."""
        if self._new is None:
            with suppress(OSError):
                self._new = _look(str(root))

    def give(self, root: Path) -> bool:
        """Empty the directories of a task and keep them; False, and they have to go, if they are not as new."""
        if self._new is None or len(self._free) >= MOST:
            return False
        try:
            fits = self._emptied(str(root))
        except OSError:
            return False
        if fits:
            self._free.append(root)
        return fits

    def _emptied(self, root: str) -> bool:
        ours = {root, *(f"{root}/{part}" for part in (*self.parts, *self.own_modes))}
        own_modes = {f"{root}/{part}" for part in self.own_modes}
        for path in sorted(ours):
            if path in own_modes and not os.path.lexists(path):
                continue
            if not self._is_as_new(path, any_mode=path in own_modes) or not _emptied(path, ours):
                return False
        return True

    def _is_as_new(self, path: str, *, any_mode: bool) -> bool:
        look = _look(path)
        if look is None or self._new is None:
            return False
        return look == (self._new._replace(mode=look.mode) if any_mode else self._new)


def _look(path: str) -> _Look | None:
    """None: it is no directory, or a large one."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_size > _LARGEST:
        return None
    return _Look(status.st_mode, status.st_uid, status.st_gid, _attributes(path))


def _attributes(path: str) -> tuple[tuple[str, bytes], ...]:
    """Access lists, labels, and what a user may note."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()  # this file system has none
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))


def _emptied(path: str, ours: Iterable[str]) -> bool:
    """Remove the files in a directory; whether none but our directories are left."""
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)  # noqa: PTH108  it is a text
            elif entry.path not in ours:
                return False
    return True
