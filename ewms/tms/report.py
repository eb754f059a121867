"""Changed taskforces → one batch to the WMS per interval; what was not accepted stays on the board."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn

import attrs
import structlog
import trio

from ewms.tms.board import TaskforceReport
from ewms.tms.context import Context
from ewms.tms.liveness import beat_here
from ewms.tms.outbox import Stage
from ewms.wms.errors import WMSError

log = structlog.stdlib.get_logger(__name__)

_BATCH: Final = 500
"""Taskforces in one call: bounds the size of its body."""


@attrs.frozen
class Plan:
    """What to do with the changed taskforces; those in neither list wait on the board."""

    send: tuple[TaskforceReport, ...]
    drop: tuple[TaskforceReport, ...]
    """The WMS lists them as completed, or does not know them."""


def plan(reports: Iterable[TaskforceReport], stage: Callable[[str], Stage]) -> Plan:
    """Sort reports by what may be sent about their taskforces (pure)."""
    by_stage: dict[Stage, list[TaskforceReport]] = {each: [] for each in Stage}
    for report in reports:
        by_stage[stage(report.uuid)].append(report)
    return Plan(tuple(by_stage[Stage.OPEN]), tuple(by_stage[Stage.UNKNOWN]))


async def run_reports(ctx: Context) -> NoReturn:
    """Report for ever, from when it is known what the WMS takes for not completed."""
    await ctx.outbox.reconciled.wait()
    async with trio.open_nursery() as completions:
        while True:
            await _round(ctx, completions)
            ctx.metrics.told_all()
            beat_here()
            await trio.sleep(ctx.settings.watcher_interval)
    raise AssertionError("unreachable: the loop has no end")


async def _round(ctx: Context, completions: trio.Nursery) -> None:
    planned = plan(ctx.board.changed(), ctx.outbox.stage)
    ctx.board.accepted(planned.drop)
    for start in range(0, len(planned.send), _BATCH):
        batch = planned.send[start : start + _BATCH]
        await _send(ctx, batch)
        ctx.board.accepted(batch)
        for report in batch:
            if report.completed_at is not None and ctx.outbox.stage(report.uuid) is Stage.OPEN:
                ctx.outbox.set_stage(report.uuid, Stage.ENDING)
                # In a task of its own: it may have to wait for this taskforce's stop, others shall not.
                completions.start_soon(_complete, ctx, report.uuid, int(report.completed_at))


async def _send(ctx: Context, batch: Sequence[TaskforceReport]) -> None:
    """Send a batch; when the WMS refuses it, halve it, so that one bad entry does not silence all others."""
    statuses = {report.uuid: report.compound_statuses for report in batch if report.compound_statuses}
    errors = {report.uuid: report.top_task_errors for report in batch if report.top_task_errors}
    try:
        await ctx.outbox.send_statuses(statuses, errors)
    except WMSError as error:
        if len(batch) == 1:
            log.error("the WMS refuses these statuses, giving them up", taskforce=batch[0].uuid, error=str(error))
            return
        middle = len(batch) // 2
        await _send(ctx, batch[:middle])
        await _send(ctx, batch[middle:])
    else:
        log.info("statuses reported", taskforces=len(batch))


async def _complete(ctx: Context, uuid: str, ended_at: int) -> None:
    try:
        await ctx.outbox.complete(uuid, ended_at)
    except WMSError as error:
        log.error("the WMS does not take the taskforce's end, giving up", taskforce=uuid, error=str(error))
