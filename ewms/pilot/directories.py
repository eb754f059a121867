"""The pilot's files: `ewms-pilot-data/`, a directory for each task, and how long they stay.

    PARENT/ewms-pilot-data/data-hub/                     shared by all tasks, writable
    PARENT/ewms-pilot-data/RUN/task-io/                  infile-TASKID.EXT, outfile-TASKID.EXT
    PARENT/ewms-pilot-data/RUN/outputs/                  stdoutfile, stderrfile
    PARENT/ewms-pilot-data/RUN/scratch/                  the container's /tmp and HOME; never outlives it
    PARENT/ewms-pilot-data/summary-PILOT.json            what its tasks used, at its end
    PARENT/ewms-pilot-data/init-…/outputs/               the same of the init container

RUN serves one task after the other; what is kept of a task is called TASKID then. Until then only texts have TASKID in
them: Python keeps a table of the names in its `Path` objects, which new names for every event would let grow.

What a task wrote is never trusted: links are not followed and only regular files are read. All is done in small steps
on the local disk and without threads; long removals let other tasks run in between.
"""

import errno
import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from ewms.pilot.errors import BadOutput, DataDirectoryError
from ewms.pilot.reuse import Reuse

log = structlog.stdlib.get_logger(__name__)

_STEP: Final = 200  # directory entries removed before other tasks get their turn
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@attrs.frozen
class RunDirectory:
    """The files of one container run."""

    root: Path
    run_id: str
    """Unique in this pilot."""

    @cached_property
    def scratch(self) -> Path:
        """Room for the container's /tmp and HOME."""
        return self.root / "scratch"

    @cached_property
    def task_io(self) -> Path:
        """What a task's container sees of it; an init container has none."""
        return self.root / "task-io"

    @cached_property
    def stdout(self) -> Path:
        """The container's standard output."""
        return self.root / "outputs" / "stdoutfile"

    @cached_property
    def stderr(self) -> Path:
        """The container's standard error."""
        return self.root / "outputs" / "stderrfile"


@attrs.frozen
class TaskDirectory(RunDirectory):
    """The files of one task."""

    infile_name: str
    outfile_name: str

    @property
    def infile(self) -> str:
        """What the task reads."""
        return f"{self.task_io}/{self.infile_name}"

    @property
    def outfile(self) -> str:
        """What the task may write."""
        return f"{self.task_io}/{self.outfile_name}"


@attrs.define
class Kept:
    """Directories of failed tasks, oldest first, within two limits."""

    max_count: int
    max_bytes: int
    _entries: deque[tuple[Path, int]] = attrs.field(factory=deque)
    _bytes: int = 0

    def add(self, path: Path, size: int) -> list[Path]:
        """Keep `path` of `size` bytes; what must go for it (itself, if it is too large)."""
        self._entries.append((path, size))
        self._bytes += size
        gone = []
        while self._entries and (len(self._entries) > self.max_count or self._bytes > self.max_bytes):
            oldest, freed = self._entries.popleft()
            self._bytes -= freed
            gone.append(oldest)
        return gone


class DataDirectory:
    """`ewms-pilot-data/` of one pilot."""

    def __init__(self, parent: Path, *, kept: Kept) -> None:
        self.root = parent / "ewms-pilot-data"
        self.hub = self.root / "data-hub"
        self._kept = kept
        self.reuse = Reuse(["task-io", "outputs", "scratch"])

    def create(self) -> None:
        """Make it; `DataDirectoryError` if that is not possible."""
        with _pilots_own_fault():
            self.hub.mkdir(parents=True, exist_ok=True)

    def room(self) -> int:
        """Bytes that are free; `DataDirectoryError` if nobody can say."""
        with _pilots_own_fault():
            return shutil.disk_usage(self.root).free

    def new_run(self, run_id: str) -> RunDirectory:
        """Make the directories of a run without events; `DataDirectoryError` if that is not possible."""
        run = RunDirectory(self.root / run_id, run_id)
        _make(run.root, run.stdout.parent, run.scratch)
        return run

    def new_task(self, task_id: str, infile_extension: str, outfile_extension: str) -> TaskDirectory:
        """Make the directories of a task; `DataDirectoryError` if that is not possible."""
        return self.task_of(self.new_spare(), task_id, infile_extension, outfile_extension)

    def new_spare(self) -> RunDirectory:
        """Directories for a task that may not be known yet; `DataDirectoryError` if that is not possible.

        They are those of another task that are free again, or new ones.
        """
        if (free := self.reuse.take()) is not None:
            return RunDirectory(free, free.name)
        name = f"run-{secrets.token_hex(4)}"  # pilots may share a data directory
        spare = RunDirectory(self.root / name, name)
        _make(spare.root, spare.task_io, spare.stdout.parent, spare.scratch)
        self.reuse.made(spare.root)
        return spare

    @staticmethod
    def task_of(spare: RunDirectory, task_id: str, infile_extension: str, outfile_extension: str) -> TaskDirectory:
        """Let a task have the directories of `spare`."""
        return TaskDirectory(
            root=spare.root,
            run_id=task_id,
            infile_name=f"infile-{task_id}{infile_extension}",
            outfile_name=f"outfile-{task_id}{outfile_extension}",
        )

    def write_infile(self, task: TaskDirectory, content: bytes) -> None:
        """Write what the task is to read; `DataDirectoryError` if that is not possible."""
        with _pilots_own_fault(), open(task.infile, "wb") as file:  # noqa: PTH123  it is a text
            file.write(content)

    def write_summary(self, name: str, text: str) -> None:
        """Write what the pilot says of its tasks; a disk that is full by now is only said."""
        try:
            (self.root / f"summary-{name}.json").write_text(text)
        except OSError as error:
            log.warning("cannot write the summary", error=error.strerror)

    async def keep(self, run: RunDirectory) -> None:
        """Keep the files of a failed task, without its scratch, as long as the limits allow."""
        root = await self.keep_unlimited(run)
        for gone in self._kept.add(root, tree_size(root)):
            log.info("removing the files of a failed task, there are too many", task=gone.name)
            await remove_tree(gone)

    async def keep_unlimited(self, run: RunDirectory) -> Path:
        """Keep the files of a run, without its scratch; where they are then: they get its name."""
        named = self.root / run.run_id
        try:
            root = run.root.rename(named)  # first: a large scratch takes longer than there may be time
        except OSError as error:
            log.warning("cannot rename the files of a task", path=str(run.root), task=run.run_id, error=error.strerror)
            root = run.root
        await remove_tree(root / run.scratch.name)
        return root

    async def drop(self, run: RunDirectory) -> None:
        """Remove all of a run; its directories may serve another one."""
        if not self.reuse.give(run.root):
            await remove_tree(run.root)

    async def drop_free(self) -> None:
        """Remove the directories that wait to be used again."""
        while (free := self.reuse.take()) is not None:
            await remove_tree(free)


def read_outfile(path: str | Path, limit: float) -> bytes | None:
    """What a task wrote; None if there is no outfile.

    Raises:
        BadOutput: it is not a regular file (a link could lead to the pilot's own files), too large, or unreadable.
    """
    try:
        fd = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise BadOutput(f"task failed: its outfile cannot be read: {why}") from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise BadOutput("task failed: its outfile is not a regular file")
    with os.fdopen(fd, "rb") as file:
        if status.st_size > limit:
            raise BadOutput(f"task failed: its outfile has {status.st_size} bytes, more than the limit of {limit:.0f}")
        return file.read()


def read_tail(path: Path, size: int) -> str:
    """The last `size` bytes of a task's stdout or stderr as text; "" if there is nothing to read."""
    try:
        fd = os.open(path, _READ_FLAGS)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - size))
        return file.read(size).decode(errors="replace")


def tree_size(root: Path) -> int:
    """Bytes on disk below `root`; links are not followed."""
    total = 0
    todo = [str(root)]
    while todo:
        for entry in _entries(todo.pop()):
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            else:
                total += _blocks(entry)
    return total


def _blocks(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return 0


async def remove_tree(root: Path) -> None:
    """Remove `root` and all below it, also directories that the task made unreadable; what cannot go is said."""
    steps = 0
    todo: list[tuple[str, bool]] = [(str(root), False)]
    while todo:
        path, emptied = todo.pop()
        steps += 1
        if steps % _STEP == 0:
            await trio.lowlevel.checkpoint()
        if emptied:
            _try(os.rmdir, path)
            continue
        todo.append((path, True))
        for entry in _entries(path):
            if entry.is_dir(follow_symlinks=False):
                todo.append((entry.path, False))
            else:
                steps += 1
                _try(os.unlink, entry.path)


def _entries(path: str) -> "list[os.DirEntry[str]]":
    try:
        if os.lstat(path).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(path, stat.S_IRWXU)  # noqa: PTH101  the task closed its own directory
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []  # it is not there, or no directory


def _try(act: Callable[[str], None], path: str) -> None:
    try:
        act(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("cannot remove a task's file", path=path, error=error.strerror)


def _make(*directories: Path) -> None:
    with _pilots_own_fault():
        for each in directories:
            each.mkdir()


@contextmanager
def _pilots_own_fault() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataDirectoryError(f"the pilot's data directory cannot be used: {error}") from error
