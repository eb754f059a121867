"""Ask the schedd, now and then, whether the clusters that the log takes for living are still in its queue.

The log is the truth about jobs, but it can lose its end: a full disk, a deleted file, a damaged event. A cluster that
two audits in a row do not find in the queue has ended, whatever the log lacks. And a job factory that failed by itself
stays in the queue for ever with no job: it is removed, with its reason.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final, NoReturn

import attrs
import structlog

from ewms.contract import TASKFORCE_ATTRIBUTE
from ewms.liveness import rest
from ewms.tms.board import TaskforceReport
from ewms.tms.condor.base import Ad, CondorError
from ewms.tms.context import Context
from ewms.tms.outbox import Stage

log = structlog.stdlib.get_logger(__name__)

_OURS: Final = f"{TASKFORCE_ATTRIBUTE} =!= undefined && ProcId =?= undefined"
_PROJECTION: Final = (TASKFORCE_ATTRIBUTE, "ClusterId", "JobsPresent")


@attrs.frozen
class Queued:
    """A taskforce's cluster in the queue."""

    cluster_id: int
    n_jobs: int | None
    """Jobs of it that are in the queue; None: the schedd does not say."""


def queued_by_taskforce(ads: Iterable[Ad]) -> dict[str, Queued]:
    """Cluster ads → taskforces (pure)."""
    found: dict[str, Queued] = {}
    for ad in ads:
        uuid, cluster_id, n_jobs = (ad.get(name) for name in _PROJECTION)
        if isinstance(uuid, str) and isinstance(cluster_id, int):
            found[uuid] = Queued(cluster_id, n_jobs if isinstance(n_jobs, int) else None)
    return found


def hopeless(reports: Iterable[TaskforceReport], queued: Mapping[str, Queued]) -> list[TaskforceReport]:
    """Reports of factories that failed and have no job left (pure)."""
    found = []
    for report in reports:
        cluster = queued.get(report.uuid)
        if report.materialization_failure is not None and cluster == Queued(report.cluster_id, 0):
            found.append(report)
    return found


async def run_audits(ctx: Context) -> NoReturn:
    """Audit for ever; a schedd that does not answer says nothing about any cluster."""
    await ctx.outbox.reconciled.wait()
    missed: frozenset[str] = frozenset()
    while True:
        await rest(ctx.settings.audit_interval)
        living = ctx.outbox.in_stage(Stage.OPEN)  # before the question: what is confirmed meanwhile is not missing
        try:
            queued = queued_by_taskforce(await ctx.schedd.query(_OURS, _PROJECTION, cluster_ads=True))
            await _remove_hopeless(ctx, living, queued)
        except CondorError as error:
            log.warning("audit skipped, the schedd gives no answer", error=str(error))
            continue
        missing = frozenset(uuid for uuid in living if uuid not in queued)
        for uuid in sorted(missing & missed):
            await _end(ctx, uuid)
        missed = missing


async def _remove_hopeless(ctx: Context, living: Iterable[str], queued: Mapping[str, Queued]) -> None:
    reports = [report for uuid in living if (report := ctx.board.report(uuid)) is not None]
    for report in hopeless(reports, queued):
        reason = f"its job factory failed: {report.materialization_failure}"
        log.error("removing a cluster without jobs", taskforce=report.uuid, cluster=report.cluster_id, reason=reason)
        await ctx.remove(report.uuid, report.cluster_id, reason)


async def _end(ctx: Context, uuid: str) -> None:
    report = ctx.board.report(uuid)
    if ctx.outbox.stage(uuid) is not Stage.OPEN or (report is not None and report.completed_at is not None):
        return  # its end is on its way to the WMS
    log.warning("the log does not tell the end of a cluster that is not in the queue any more", taskforce=uuid)
    if not ctx.board.places(uuid):
        ctx.outbox.set_stage(uuid, Stage.ENDING)
        await ctx.outbox.complete(uuid, int(time.time()))
    else:
        ctx.board.ended(uuid, int(time.time()))
