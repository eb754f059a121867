"""Watch the day logs: one child per log reads what is new into the board.

The directory is looked at once per poll, for all logs together; a child wakes only when its log changed, so that a
month of quiet logs costs nothing.
"""

import math
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import structlog
import trio

from ewms.contract import DAY_LOG_SUFFIX
from ewms.liveness import beat_here, part, resting
from ewms.tms.board import Board, day_of
from ewms.tms.eventlog import checkpoint
from ewms.tms.eventlog.checkpoint import Checkpoint
from ewms.tms.eventlog.reader import Piece, Position, read_on
from ewms.tms.expiry import LOG_ARCHIVE_SUFFIX
from ewms.tms.freshness import Freshness, grant
from ewms.tms.sites import Sites

log = structlog.stdlib.get_logger(__name__)

CHECKPOINT_INTERVAL: Final = 30.0
"""Seconds between two checkpoints of one log: what a crash makes us read again."""
_LAST_CHECKPOINT: Final = 10.0
_PIECES: Final = 4
"""That are read at once: some 8,000 events, whose tallying takes some 10 ms."""
_ARCHIVE_SUFFIX: Final = DAY_LOG_SUFFIX + LOG_ARCHIVE_SUFFIX

Stamp = tuple[int, int, int]
"""A file's inode, size and time of change: while they stay, there is nothing to read."""


async def watch_logs(
    directory: Path,
    board: Board,
    *,
    state_dir: Path,
    poll: float = 1.0,
    checkpoint_interval: float = CHECKPOINT_INTERVAL,
    sites: Sites | None = None,
    tell_lag: Callable[[int, float], None] = lambda _size, _since: None,
    fresh: Freshness | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Keep the board true to every `*.tms.jel` in `directory`, for ever; `poll` is in s.

    It reports as started once all that was there has been read. Faults of the file system are said once and waited
    out. `sites` counts where pilots fail, as far as it is read in this run. `tell_lag` is told at each poll how many
    bytes are not read yet, and since when (s) the oldest of them wait. Who asks `fresh` makes it look at once.
    """
    sites, fresh = sites or Sites(), fresh or Freshness()
    watchers: dict[str, _Watcher] = {}
    fault = _Fault()
    started = False
    known = await trio.to_thread.run_sync(checkpoint.known_logs, state_dir)
    async with trio.open_nursery() as nursery:
        while True:
            wish = fresh.begin()
            try:
                stamps, archived = await trio.to_thread.run_sync(_look, directory, abandon_on_cancel=True)
            except OSError as error:
                fault.say("the job event logs cannot be listed", directory=str(directory), error=str(error))
            else:
                fault.gone("the job event logs can be listed again", directory=str(directory))
                for name in sorted((stamps.keys() | known) - watchers.keys()):
                    watchers[name] = _Watcher(directory / name, board, sites, state_dir, checkpoint_interval)
                    if started:
                        nursery.start_soon(watchers[name].run)
                    else:
                        with resting():
                            await nursery.start(watchers[name].run)
                known = frozenset()
                for name, watcher in list(watchers.items()):
                    watcher.look(stamps.get(name), is_archived=name in archived)
                    if watcher.finished():
                        del watchers[name]
                if not started:
                    started = True
                    task_status.started()
            beat_here()
            behind = [watcher.behind() for watcher in watchers.values()]
            tell_lag(sum(size for size, _ in behind), max((since for _, since in behind), default=0))
            if wish is not None:
                nursery.start_soon(grant, wish, [watcher.has_read for watcher in watchers.values()])
            await fresh.wait(poll)


def _look(directory: Path) -> tuple[dict[str, Stamp], set[str]]:
    """The day logs that are there, and those that have an archive."""
    found, archived = {}, set()
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(_ARCHIVE_SUFFIX):
                archived.add(entry.name.removesuffix(LOG_ARCHIVE_SUFFIX))
            elif entry.name.endswith(DAY_LOG_SUFFIX):
                with suppress(OSError):  # it went while we looked, or is a link that leads nowhere; the others count
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):  # opening a pipe would wait for whoever writes to it
                        found[entry.name] = status.st_ino, status.st_size, status.st_mtime_ns
    return found, archived


def _read_some(path: Path, position: Position) -> list[Piece]:
    """Some pieces at a time, because a way to a thread and back is dear; raises OSError."""
    pieces = [read_on(path, position)]
    while pieces[-1].more and len(pieces) < _PIECES:
        pieces.append(read_on(path, pieces[-1].position))
    return pieces


class _Watcher:
    """One log's child."""

    def __init__(self, path: Path, board: Board, sites: Sites, state_dir: Path, checkpoint_interval: float) -> None:
        self._path = path
        self._board = board
        self._sites = sites
        self._checkpoint = checkpoint.checkpoint_path(state_dir, path.name)
        self._interval = checkpoint_interval
        self._position = self._saved = Position()
        self._stamp: Stamp | None = None
        self._is_gone = self._is_done = False
        self._behind_since: float | None = None
        self._news = trio.Event()
        self.has_read = trio.Event()
        """Set while all that a look found was read."""
        self._scope = trio.CancelScope()
        self._reading = _Fault()
        self._saving = _Fault()
        self._said_damaged = False
        self._said_foreign: set[int] = set()

    def look(self, stamp: Stamp | None, *, is_archived: bool) -> None:
        """What the directory says now; None: the log is not there."""
        if stamp is None:
            if not self._is_gone and is_archived:
                log.info("a job event log was archived; what it told stays counted", log=self._path.name)
            elif not self._is_gone:
                log.warning("a job event log is gone; what it told stays counted", log=self._path.name)
            self._is_gone, self._stamp = True, None
        elif stamp != self._stamp or self._reading.is_said:
            self._is_gone, self._stamp = False, stamp
            self._news.set()
            if self.has_read.is_set():
                self.has_read = trio.Event()
            if self._behind_since is None:
                self._behind_since = trio.current_time()

    def behind(self) -> tuple[int, float]:
        """How many bytes are not read yet, and for how long there have been some (s)."""
        if self._stamp is None or self._behind_since is None:
            return 0, 0.0
        return max(0, self._stamp[1] - self._position.offset), trio.current_time() - self._behind_since

    def finished(self) -> bool:
        """The log is gone, its clusters have ended and all of it was reported: the child ends."""
        if not self._is_gone or not self._board.drop(self._path.name):
            return False
        log.info("a job event log that is gone was told to its end", log=self._path.name)
        self._sites.drop(self._path.name)
        self._is_done = True
        self._scope.cancel()
        return True

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Read what is there, then what comes; a checkpoint at least every interval, and at the end."""
        with part(self._path.name), self._scope:
            await self._restore()
            try:
                await self._read_all()
                task_status.started()
                await self._follow()
            finally:
                self.has_read.set()
                with trio.move_on_after(_LAST_CHECKPOINT, shield=True):
                    await self._forget() if self._is_done else await self._save()

    async def _follow(self) -> NoReturn:
        due = trio.current_time()  # the first one at once: reading all again is dear
        while True:
            if not self._news.is_set():
                self.has_read.set()
            with resting(), trio.move_on_at(due if self._position != self._saved else math.inf):
                await self._news.wait()
            if self._news.is_set():
                self._news = trio.Event()
                await self._read_all()
            if trio.current_time() >= due:
                await self._save()
                due = trio.current_time() + self._interval

    async def _read_all(self) -> None:
        more = True
        while more:
            try:
                # A file system that hangs shall not keep us from ending.
                pieces = await trio.to_thread.run_sync(_read_some, self._path, self._position, abandon_on_cancel=True)
            except FileNotFoundError:
                return  # the next look at the directory says so
            except OSError as error:
                self._reading.say("a job event log cannot be read", log=self._path.name, error=str(error))
                return
            self._reading.gone("a job event log can be read again", log=self._path.name)
            for piece in pieces:
                self._take(piece)
            more = pieces[-1].more
            beat_here()
        self._behind_since = None
        self._tell_oddities()

    def _take(self, piece: Piece) -> None:
        # Without an await: a checkpoint always has the tallies and their position.
        if piece.replaced:
            log.warning(
                "a job event log is not the one read so far: read again from its beginning on top of what is known",
                log=self._path.name,
                reason=piece.replaced,
            )
            self._sites.restart(self._path.name)  # else its runs would count twice
        tally = self._board.tally(self._path.name)
        self._sites.tally(self._path.name).take(tally.feed(piece.data, again=piece.again), tally.near)
        tally.damaged += bool(piece.skipped)
        self._position = piece.position

    def _tell_oddities(self) -> None:
        tally = self._board.tally(self._path.name)
        if tally.damaged and not self._said_damaged:
            self._said_damaged = True
            log.warning("a job event log has damaged events", log=self._path.name, damaged=tally.damaged)
        foreign = set(self._board.unnamed(self._path.name)) - self._said_foreign
        if foreign:
            self._said_foreign |= foreign
            log.info("clusters that no taskforce is known for", log=self._path.name, clusters=sorted(foreign))

    async def _restore(self) -> None:
        try:
            saved = await trio.to_thread.run_sync(checkpoint.load, self._checkpoint, day_of(self._path.name))
        except (OSError, ValueError) as error:
            log.warning("a checkpoint cannot be used, reading the whole log", log=self._path.name, error=str(error))
            return
        if saved is not None:
            self._position = self._saved = saved.position
            self._board.restore(self._path.name, saved.tally)
            self._sites.restore(self._path.name, saved.sites)

    async def _save(self) -> None:
        if self._position == self._saved:
            return
        name, position = self._path.name, self._position
        text = checkpoint.dump(Checkpoint(position, self._board.tally(name), self._sites.tally(name)))
        try:
            await trio.to_thread.run_sync(checkpoint.save, self._checkpoint, text)
        except OSError as error:
            self._saving.say("a checkpoint cannot be written", log=self._path.name, error=str(error))
            return
        self._saving.gone("checkpoints can be written again", log=self._path.name)
        self._saved = position

    async def _forget(self) -> None:
        await trio.to_thread.run_sync(partial(self._checkpoint.unlink, missing_ok=True))


class _Fault:
    """A fault that lasts is said once, and once more when it is over."""

    def __init__(self) -> None:
        self.is_said = False

    def say(self, event: str, **facts: object) -> None:
        if not self.is_said:
            log.warning(event, **facts)
        self.is_said = True

    def gone(self, event: str, **facts: object) -> None:
        if self.is_said:
            log.info(event, **facts)
        self.is_said = False
