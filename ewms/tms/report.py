"""Changed taskforces → batches to the WMS, once per interval; what was not accepted stays on the board.

While the WMS is away nothing is kept for it: each attempt sends what is true then, so that its first news is the
newest. What an attempt without an answer may overwrite later (`doubts.py`) is told once more. What it refuses is given
up only where it accepts other statuses.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NoReturn

import structlog
import trio

from ewms.liveness import rest
from ewms.tms.board import TaskforceReport
from ewms.tms.context import Context
from ewms.tms.outbox import Stage
from ewms.wms.errors import WMSError

log = structlog.stdlib.get_logger(__name__)

MAX_TASKFORCES: Final = 500
MAX_BYTES: Final = 500_000
"""Of one call's body: many a proxy in front of a service stops at 1 MB."""
_ENOUGH: Final = 4
"""So many refusals, and nothing accepted: the WMS is taken to refuse whatever it is sent now."""
_PATIENCE: Final = 3
"""Reports with which a taskforce's statuses are sent and refused, when nothing else is there to be sent."""


def first_batch(reports: Iterable[TaskforceReport]) -> tuple[TaskforceReport, ...]:
    """As many as one call may carry, at least one if there is any (pure)."""
    batch: list[TaskforceReport] = []
    size = 0
    for report in reports:
        size += size_of(report)
        if batch and (size > MAX_BYTES or len(batch) == MAX_TASKFORCES):
            break
        batch.append(report)
    return tuple(batch)


def size_of(report: TaskforceReport) -> int:
    """About how many bytes a report takes in the body of a call."""
    texts = (report.uuid, report.compound_statuses, report.uuid, report.top_task_errors)
    return sum(len(json.dumps(each).encode()) + 4 for each in texts)


async def run_reports(ctx: Context) -> NoReturn:
    """Report for ever, from when it is known what the WMS takes for not completed."""
    await ctx.outbox.reconciled.wait()
    failures, refusals = _Failures(), Refusals()
    async with trio.open_nursery() as completions:
        while True:
            await ctx.fresh.ask()
            if await _Round(ctx, completions, failures, refusals).run():
                ctx.metrics.told_all()
            await rest(ctx.settings.watcher_interval)
    raise AssertionError("unreachable: the loop has no end")


class _Round:
    """Each taskforce that changed is told once, in batches; what changes meanwhile has the next round."""

    def __init__(self, ctx: Context, completions: trio.Nursery, failures: "_Failures", refusals: "Refusals") -> None:
        self._ctx = ctx
        self._completions = completions
        self._failures = failures
        self._refusals = refusals
        self._told: set[str] = set()
        self._refused: list[tuple[Sequence[TaskforceReport], WMSError]] = []
        """Batches that were not halved any further, mostly of one taskforce."""
        self._was_accepted = False

    async def run(self) -> bool:
        """Whether all that had changed was told, or given up."""
        outbox = self._ctx.outbox
        self._tell_again(outbox.doubts.settled(trio.current_time(), self._ctx.settings.settle_time))
        self._ctx.board.forget_all_but(lambda uuid: outbox.stage(uuid) is not Stage.UNKNOWN)
        # Not first again who was refused before: behind too many of them none would come to whom nothing is wrong.
        while await self._send(without=self._refusals.suspects):
            pass
        while await self._send():
            pass
        return self._conclude()

    def _tell_again(self, settled: Sequence[str]) -> None:
        if settled:
            log.info("telling once more what an unanswered call may have overwritten", taskforces=len(settled))
        self._ctx.board.tell_again(settled)

    async def _send(self, *, only: Collection[str] | None = None, without: Collection[str] = ()) -> bool:
        """Send the next batch (of `only` these) until it is accepted or refused; False when there is none."""
        batch: tuple[TaskforceReport, ...] = ()

        def newest() -> Sequence[TaskforceReport]:
            nonlocal batch
            batch = self._next_batch(only, without)
            return batch

        try:
            await self._ctx.outbox.send_statuses(newest)
        except WMSError as error:
            await self._send_halves(batch, error)
        else:
            self._accept(batch)
        return bool(batch)

    def _next_batch(self, only: Collection[str] | None, without: Collection[str]) -> tuple[TaskforceReport, ...]:
        def is_next(uuid: str) -> bool:
            is_due = uuid not in self._told and uuid not in without and (only is None or uuid in only)
            return is_due and self._ctx.outbox.stage(uuid) is Stage.OPEN  # others wait on the board

        batch = first_batch(self._ctx.board.changes(is_next))
        self._failures.tell(batch)
        return batch

    async def _send_halves(self, batch: Sequence[TaskforceReport], error: WMSError) -> None:
        """The WMS refused a batch: halve it, so that one bad entry does not silence all others."""
        # Where it takes none at all, a thousand small calls would be refused, too.
        is_vain = not self._was_accepted and len(self._refused) >= _ENOUGH
        if len(batch) == 1 or is_vain:
            self._refused.append((batch, error))
            self._told.update(report.uuid for report in batch)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            await self._send(only={report.uuid for report in half})

    def _accept(self, batch: Sequence[TaskforceReport]) -> None:
        if batch:
            log.info("statuses reported", taskforces=len(batch))
            # Without anything to say no call was made.
            self._was_accepted |= any(report.compound_statuses or report.top_task_errors for report in batch)
        self._settle(batch)

    def _conclude(self) -> bool:
        """Give up what is itself the reason for its refusal; the rest stays on the board, for the next round."""
        left = self._refused
        alone = [batch[0].uuid for batch, _ in left if len(batch) == 1]
        if self._refusals.are_final(alone, others_accepted=self._was_accepted):
            for batch, error in left:
                if len(batch) == 1:
                    log.error(
                        "the WMS refuses these statuses, giving them up", taskforce=batch[0].uuid, error=str(error)
                    )
                    self._settle(batch)
            left = [(batch, error) for batch, error in left if len(batch) > 1]
        if left:
            log.error(
                "the WMS refuses statuses, sending them again with the next report",
                taskforces=sum(len(batch) for batch, _ in left),
                error=str(left[-1][1]),
            )
        return not left

    def _settle(self, batch: Sequence[TaskforceReport]) -> None:
        outbox = self._ctx.outbox
        self._told.update(report.uuid for report in batch)
        # A stop that began meanwhile is to be told before the last statuses: they are sent again then.
        settled = [report for report in batch if outbox.stage(report.uuid) is not Stage.STOPPING]
        self._ctx.board.accepted(settled, in_doubt=outbox.doubts)
        for report in settled:
            # Nothing is told after the end: as long as something older may overwrite these, they are not the last.
            is_last = report.uuid not in outbox.doubts and outbox.stage(report.uuid) is Stage.OPEN
            if is_last and report.completed_at is not None:
                outbox.set_stage(report.uuid, Stage.ENDING)
                # In a task of its own: it may have to wait for this taskforce's stop, others shall not.
                self._completions.start_soon(outbox.complete, report.uuid, int(report.completed_at))


class Refusals:
    """From one report to the next: are the statuses that the WMS refuses to blame, or is it the WMS? (pure)."""

    def __init__(self) -> None:
        self.suspects: frozenset[str] = frozenset()
        """Each was refused by itself, and nothing was accepted since."""
        self._alone: str | None = None
        self._times = 0

    def are_final(self, refused: Sequence[str], *, others_accepted: bool) -> bool:
        """Whether to give up the statuses of these taskforces (by UUID), each of which was refused by itself.

        A WMS that takes others means these. One that takes none may be at fault itself; only a single taskforce, for
        which nobody else stands witness, is given up in the end, so that the WMS hears at least of its cluster's end.
        """
        alone = refused[0] if len(refused) == 1 else None
        self._times = self._times + 1 if alone == self._alone else 1
        self._alone = alone
        self.suspects = frozenset() if others_accepted or not refused else self.suspects.union(refused)
        return others_accepted or (alone is not None and self._times >= _PATIENCE)


class _Failures:
    """Job factories that stopped by themselves: each is told once (`audit.py` removes them when no job is left)."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, reports: Iterable[TaskforceReport]) -> None:
        for report in reports:
            failure = report.materialization_failure
            if failure is None or report.completed_at is not None:
                self._told.discard(report.uuid)
            elif report.uuid not in self._told:
                self._told.add(report.uuid)
                log.warning(
                    "no further workers: the job factory failed; its cluster is removed when those it has are gone",
                    taskforce=report.uuid,
                    cluster=report.cluster_id,
                    reason=failure,
                )
