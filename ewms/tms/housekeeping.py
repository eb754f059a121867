"""Old day logs and taskforce directories → archives → gone; never while a job that the schedd knows needs them.

A round: let the ledger forget what has long been over, or was deleted at the WMS, look at the directory, ask the schedd
what it needs (no answer: nothing is done, said once), ask the WMS about logs that are only old enough if no open
taskforce is in them, delete old archives (that makes room), then archive in small batches. Before the sources of a
batch are removed the schedd is asked once more, for archiving may take long. A fault with one file is told and leaves
the others alone; a full disk ends the round, the next one tries again.
"""

import errno
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.liveness import beat_here, rest
from ewms.tms.condor.base import CondorError, JobQueue
from ewms.tms.context import Context
from ewms.tms.deleted import KnowsTaskforces, forget_deleted
from ewms.tms.directory_archive import pack_directory
from ewms.tms.expiry import NEEDED_ATTRIBUTES, Expiries, Found, InUse, Kind, Verdict, in_use, sort_out
from ewms.tms.ledger import Ledger
from ewms.tms.log_archive import pack_log
from ewms.tms.metrics import Metrics
from ewms.tms.packing import Disk, Packed, drop
from ewms.tms.settings import Settings
from ewms.tms.survey import survey
from ewms.wms.errors import WMSError
from ewms.wms.models import Phase

log = structlog.stdlib.get_logger(__name__)

BATCH: Final = 10
"""Files that are archived before their sources are removed: bounds the room that is needed twice."""
PROGRESS_INTERVAL: Final = 30.0
KEEP_ENTRIES: Final = 90 * 86400.0
"""For how long the ledger remembers what is over, in s."""
ENTRIES: Final = 1000
"""Entries that one round forgets at most: each is a file."""
_WMS_PATIENCE: Final = 60.0
"""In s: housekeeping does not wait out an outage of the WMS."""
_FIRST_ROUND_PATIENCE: Final = 5.0
_TICKS_PER_BEAT: Final = 256
"""A beat from a thread costs some 0.1 ms."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PACK: Final = {Kind.LOG: pack_log, Kind.DIRECTORY: pack_directory}


@attrs.define
class Done:
    """What one round did, in numbers of files."""

    archived: int = 0
    deleted: int = 0
    needed: int = 0
    """Old enough, but a living cluster, an unsettled start or an open taskforce needs them."""
    failed: int = 0


async def run_housekeeping(ctx: Context, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
    """Keep house for ever; started means that the first round is over, or takes its time."""
    house = Housekeeper(ctx.settings, ctx.schedd, ctx.wms, ctx.ledger, tell=partial(_count, ctx.metrics))

    async def keep() -> None:
        with ctx.pulse.child("housekeeping"):
            await house.run(first)

    async with trio.open_nursery() as nursery:
        first = trio.Event()
        nursery.start_soon(keep)
        with trio.move_on_after(_FIRST_ROUND_PATIENCE):
            await first.wait()
        task_status.started()
    raise AssertionError("unreachable: a housekeeper does not end")


class Housekeeper:
    """Keeps one job directory in order. `clock` gives epoch s, for files bear the time of day."""

    def __init__(
        self,
        settings: Settings,
        schedd: JobQueue,
        wms: KnowsTaskforces,
        ledger: Ledger,
        *,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.time,
        tell: Callable[[Done], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._directory = settings.job_dir
        self._schedd = schedd
        self._wms = wms
        self._ledger = ledger
        self._disk = disk or Disk()
        self._clock = clock
        self._tell = tell
        self._said_silence = False

    async def run(self, first: trio.Event) -> NoReturn:
        """A round at every interval; `first` is set after the first one."""
        while True:
            done = await self.once()
            if done is not None:
                self._tell(done)
            first.set()
            await rest(self._settings.file_manager_interval)

    async def once(self) -> Done | None:
        """One round; None when nothing could be decided, because the schedd (or the disk) does not answer."""
        await self._prune_ledger()
        await self._forget_deleted()
        try:
            found = await trio.to_thread.run_sync(self._survey)
        except OSError as error:
            log.error("job directory cannot be listed", directory=str(self._directory), error=str(error))
            return None
        used = await self._in_use()
        if used is None:
            return None
        sorted_out = sort_out(found, used, self._expiries(), self._clock())
        free, occupied = await self._ask_wms(sorted_out[Verdict.ASK])
        done = Done(needed=len(sorted_out[Verdict.NEEDED]) + len(occupied))
        ripe = [*sorted_out[Verdict.ACT], *free]
        await self._delete([each for each in ripe if each.kind not in _PACK], done)
        await self._archive([each for each in ripe if each.kind in _PACK], done)
        log.info("housekeeping done", **attrs.asdict(done))
        return done

    async def _prune_ledger(self) -> None:
        try:
            forgotten = await self._ledger.prune(self._clock() - KEEP_ENTRIES, at_most=ENTRIES)
        except OSError as error:
            log.warning("old entries of the ledger cannot be removed, it is tried again next time", error=str(error))
            return
        if forgotten:
            log.info("the ledger forgot what has long been over", taskforces=forgotten)

    async def _forget_deleted(self) -> None:
        before = self._clock() - KEEP_ENTRIES
        try:
            with trio.fail_after(_WMS_PATIENCE):
                forgotten = await forget_deleted(self._ledger, self._schedd, self._wms, before, at_most=ENTRIES)
        except (WMSError, CondorError, OSError, trio.TooSlowError) as error:
            log.info("whether old taskforces are over is not known, it is asked again", error=str(error) or "timeout")
            return
        if forgotten:
            log.info("the ledger forgot taskforces that the WMS deleted", taskforces=forgotten)

    # --- what is there, and who needs it ---

    def _survey(self) -> list[Found]:
        ticks = itertools.count(1)

        def tick(_size: int) -> None:
            trio.from_thread.check_cancelled()
            if next(ticks) % _TICKS_PER_BEAT == 0:
                trio.from_thread.run_sync(beat_here)

        return survey(self._directory, self._clock() - self._settings.taskforce_dirs_expiry, tick)

    async def _in_use(self) -> InUse | None:
        try:
            ads = await self._schedd.query("ProcId =?= undefined", NEEDED_ATTRIBUTES, cluster_ads=True)
            entries = await self._ledger.entries()
            used = await trio.to_thread.run_sync(in_use, ads, entries, self._is_ours)
        except (CondorError, OSError) as error:
            if not self._said_silence:
                log.warning("nobody says which files are needed, housekeeping waits", error=str(error))
            self._said_silence = True
            return None
        if self._said_silence:
            log.info("housekeeping goes on")
        self._said_silence = False
        return used

    def _is_ours(self, path: str) -> bool:
        """Whether a log's path leads into the job directory; one that cannot be seen from here counts."""
        try:
            return (Path(path).parent).samefile(self._directory)
        except OSError:
            return True

    async def _ask_wms(self, logs: Sequence[Found]) -> tuple[list[Found], list[Found]]:
        """Logs without an open taskforce, and the others; without an answer nothing is known to be free."""
        if not logs:
            return [], []
        paths = [str(self._directory / each.name) for each in logs]
        query = {"job_event_log_fpath": {"$in": paths}, "phase": {"$ne": Phase.CONDOR_COMPLETE.value}}
        try:
            with trio.fail_after(_WMS_PATIENCE):
                # Nothing else is asked for: what makes no sense in another field must not hide that its log is in use.
                listed = await self._wms.query_taskforces(query, ["job_event_log_fpath"])
        except (WMSError, trio.TooSlowError) as error:
            log.warning(
                "the WMS does not say which logs are in use, they are kept",
                logs=len(logs),
                error=str(error) or "timeout",
            )
            return [], list(logs)
        open_paths = {each.get("job_event_log_fpath") for each in listed}
        free = [each for each, path in zip(logs, paths, strict=True) if path not in open_paths]
        return free, [each for each in logs if each not in free]

    def _expiries(self) -> Expiries:
        return Expiries(
            log_short=self._settings.log_expiry_short,
            log_long=self._settings.log_expiry_long,
            log_archive=self._settings.log_archive_expiry,
            directory=self._settings.taskforce_dirs_expiry,
            directory_archive=self._settings.taskforce_archive_expiry,
        )

    # --- doing it ---

    async def _delete(self, old: Sequence[Found], done: Done) -> None:
        for each in old:
            try:
                await trio.to_thread.run_sync(self._disk.remove, self._directory / each.name)
            except OSError as error:
                _tell_failure(each.name, error, done)
            else:
                done.deleted += 1
                log.info("deleted", file=each.name, what=each.kind.value)

    async def _archive(self, old: Sequence[Found], done: Done) -> None:
        for start in range(0, len(old), BATCH):
            batch = old[start : start + BATCH]
            packed, is_full = await self._pack_all(batch, done)
            await self._drop(packed, done)
            if is_full:
                log.warning("the disk is full, housekeeping ends this round", left=len(old) - start - len(packed))
                return

    async def _pack_all(self, batch: Sequence[Found], done: Done) -> tuple[list[tuple[Found, Packed]], bool]:
        """What could be archived, and whether the disk is full."""
        packed = []
        for each in batch:
            try:
                packed.append((each, await self._pack(each)))
            except OSError as error:
                _tell_failure(each.name, error, done)
                if error.errno in _FULL:
                    return packed, True
        return packed, False

    async def _pack(self, found: Found) -> Packed:
        """Archive in a thread that ends when we are cancelled, and say from time to time how far it is."""
        read = 0

        def tick(size: int) -> None:
            nonlocal read
            read += size
            trio.from_thread.check_cancelled()

        pack = partial(_PACK[found.kind], self._directory / found.name, self._disk, tick)
        outcome: Packed | OSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_progress, found.name, lambda: read)
            try:
                outcome = await trio.to_thread.run_sync(pack)
            except OSError as error:  # out of the nursery, which would wrap it
                outcome = error
            nursery.cancel_scope.cancel()
        if isinstance(outcome, Packed):
            return outcome
        assert outcome is not None
        raise outcome

    async def _tell_progress(self, name: str, read: Callable[[], int]) -> NoReturn:
        before = 0
        while True:
            await trio.sleep(PROGRESS_INTERVAL)
            if read() > before:  # else its disk may hang
                beat_here()
            before = read()
            log.info("still archiving", file=name, read_mb=round(before / 1e6))

    async def _drop(self, packed: Sequence[tuple[Found, Packed]], done: Done) -> None:
        """Remove what is in its archive, unless somebody began to need it meanwhile (or the schedd fell silent)."""
        used = await self._in_use() if packed else None
        for found, each in packed:
            if used is None or used.needs(found):
                log.warning("archived, but not removed: it may be needed again", file=found.name)
                done.needed += 1
                continue
            try:
                await trio.to_thread.run_sync(drop, each, self._disk)
            except OSError as error:
                _tell_failure(found.name, error, done)
            else:
                done.archived += 1
                log.info("archived", file=found.name, archive=each.archive.name)


def _count(metrics: Metrics, done: Done) -> None:
    metrics.files.inc("archived", done.archived)
    metrics.files.inc("deleted", done.deleted)
    metrics.files.inc("failed", done.failed)


def _tell_failure(name: str, error: OSError, done: Done) -> None:
    done.failed += 1
    log.warning("housekeeping failed for a file, it is tried again next time", file=name, error=str(error))
