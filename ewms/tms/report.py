"""Changed taskforces → batches to the WMS, once per interval; what was not accepted stays on the board.

While the WMS is away nothing is kept for it: each attempt sends what is true then, so that its first news is the
newest. What an attempt without an answer may overwrite later (`doubts.py`) is told once more.
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
    failures = _Failures()
    async with trio.open_nursery() as completions:
        while True:
            await ctx.fresh.ask()
            await _Round(ctx, completions, failures).run()
            ctx.metrics.told_all()
            await rest(ctx.settings.watcher_interval)
    raise AssertionError("unreachable: the loop has no end")


class _Round:
    """Each taskforce that changed is told once, in batches; what changes meanwhile has the next round."""

    def __init__(self, ctx: Context, completions: trio.Nursery, failures: "_Failures") -> None:
        self._ctx = ctx
        self._completions = completions
        self._failures = failures
        self._told: set[str] = set()

    async def run(self) -> None:
        outbox = self._ctx.outbox
        self._tell_again(outbox.doubts.settled(trio.current_time(), self._ctx.settings.settle_time))
        self._ctx.board.forget_all_but(lambda uuid: outbox.stage(uuid) is not Stage.UNKNOWN)
        while await self._send():
            pass

    def _tell_again(self, settled: Sequence[str]) -> None:
        if settled:
            log.info("telling once more what an unanswered call may have overwritten", taskforces=len(settled))
        self._ctx.board.tell_again(settled)

    async def _send(self, only: Collection[str] | None = None) -> bool:
        """Send the next batch (of `only` these) until it is accepted or refused; False when there is none."""
        batch: tuple[TaskforceReport, ...] = ()

        def newest() -> Sequence[TaskforceReport]:
            nonlocal batch
            batch = self._next_batch(only)
            return batch

        try:
            await self._ctx.outbox.send_statuses(newest)
        except WMSError as error:
            await self._send_halves(batch, error)
        else:
            self._accept(batch)
        return bool(batch)

    def _next_batch(self, only: Collection[str] | None) -> tuple[TaskforceReport, ...]:
        def is_next(uuid: str) -> bool:
            is_due = uuid not in self._told and (only is None or uuid in only)
            return is_due and self._ctx.outbox.stage(uuid) is Stage.OPEN  # others wait on the board

        batch = first_batch(self._ctx.board.changes(is_next))
        self._failures.tell(batch)
        return batch

    async def _send_halves(self, batch: Sequence[TaskforceReport], error: WMSError) -> None:
        """The WMS refused a batch: halve it, so that one bad entry does not silence all others."""
        if len(batch) == 1:
            log.error("the WMS refuses these statuses, giving them up", taskforce=batch[0].uuid, error=str(error))
            self._settle(batch)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            await self._send({report.uuid for report in half})

    def _accept(self, batch: Sequence[TaskforceReport]) -> None:
        if batch:
            log.info("statuses reported", taskforces=len(batch))
        self._settle(batch)

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
