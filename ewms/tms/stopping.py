"""One stop order: remove the cluster (only when its id and its UUID match) → confirm."""

import time
from collections.abc import Mapping
from contextlib import ExitStack

import structlog
import trio
from structlog.contextvars import bound_contextvars

from ewms.liveness import rest
from ewms.supervision import backoff
from ewms.tms import lookup
from ewms.tms.condor.base import CondorBroken, CondorRefused, CondorUnreachable
from ewms.tms.context import Context
from ewms.tms.decisions import StopOutcome, jobs_met, stop_outcome
from ewms.tms.entries import Entry
from ewms.tms.errors import OrderRefused
from ewms.tms.outbox import Stage
from ewms.tms.submit_language import checked_uuid
from ewms.wms.errors import WMSError
from ewms.wms.models import Phase, Taskforce

log = structlog.stdlib.get_logger(__name__)


async def stop(ctx: Context, uuid: str) -> bool:
    """Carry out the stop of a taskforce, waiting out a schedd that is away; False when it failed or is outdated.

    Raises:
        WMSError: the WMS's answer to a call makes no sense.
    """
    ctx.metrics.orders.inc("stop")
    with ExitStack() as logged_with:
        try:
            checked_uuid(uuid)  # before it becomes a file's name
            async with ctx.outbox.turn(uuid):
                # Fresh, in our turn: the report may have completed the taskforce since the order was fetched.
                taskforce = await ctx.recheck(uuid)
                if taskforce is None or taskforce.phase != Phase.PENDING_STOPPER:
                    log.info("stop order is outdated", taskforce=uuid)
                    await _note_confirmed(ctx, uuid, taskforce)
                    return False
                logged_with.enter_context(bound_contextvars(workflow=taskforce.workflow_id))
                with ctx.outbox.stopping(uuid):
                    await _note_begun(ctx, uuid, taskforce)
                    outcome = await _remove(ctx, uuid, taskforce)
                    await ctx.outbox.confirm_stop(uuid)
                log.info("stop confirmed", taskforce=uuid, cluster=taskforce.cluster_id)
        except OrderRefused as refusal:
            log.error("stop order failed", taskforce=uuid, reason=str(refusal))
            await ctx.wms.stop_failed(uuid, str(refusal))
            return False
        await _go_on(ctx, uuid, taskforce, outcome)
        return True


async def resume_stop(
    ctx: Context, uuid: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Carry on with a stop that an earlier run began; the cluster's end is not told before (started: from now on)."""
    if ctx.outbox.stage(uuid) is Stage.STOPPING:
        task_status.started()
        return  # the WMS has offered it again already
    with ctx.outbox.stopping(uuid):
        task_status.started()
        log.info("an earlier stop goes on", taskforce=uuid)
        try:
            await stop(ctx, uuid)
        except WMSError as error:
            log.error("an earlier stop cannot go on", taskforce=uuid, error=str(error))


async def _note_begun(ctx: Context, uuid: str, taskforce: Taskforce) -> None:
    """From now on the cluster may be gone: whoever comes after us tells the WMS why before it tells that it ended."""
    now = time.time()
    adopted = Entry(
        taskforce_uuid=uuid,
        log_path=taskforce.job_event_log_fpath or "",
        n_workers=taskforce.n_workers or 0,
        intended_at=now,
        cluster_id=taskforce.cluster_id,
        confirmed_at=now,
    )
    await ctx.ledger.update(uuid, default=adopted, stop_began_at=now)


async def _note_confirmed(ctx: Context, uuid: str, taskforce: Taskforce | None) -> None:
    """The WMS took a confirmation of which we had no answer, or which an earlier run did not come to note."""
    entry = await ctx.ledger.peek(uuid)
    if entry is not None and entry.has_open_stop and taskforce is not None and taskforce.phase == Phase.CONDOR_RM:
        await ctx.ledger.update(uuid, stopped_at=time.time())


async def _remove(ctx: Context, uuid: str, taskforce: Taskforce) -> StopOutcome:
    """Remove the cluster until the schedd has answered; raises `OrderRefused` when it is not ours to remove."""
    cluster_id = taskforce.cluster_id
    if cluster_id is None:
        log.warning("stop order without a cluster: nothing to remove", taskforce=uuid)
        return StopOutcome.NOTHING_LEFT
    delays = backoff()
    while True:
        try:
            return await _remove_once(ctx, uuid, cluster_id, taskforce.submit_dict)
        except CondorUnreachable as trouble:
            delay = next(delays)
            log.warning("stop waits for the schedd", taskforce=uuid, error=str(trouble), wait_s=round(delay, 1))
            await rest(delay)
        except (CondorRefused, CondorBroken) as refusal:
            raise OrderRefused(f"cluster {cluster_id} cannot be removed: {refusal}") from refusal


async def _remove_once(ctx: Context, uuid: str, cluster_id: int, submit_dict: Mapping[str, str | int]) -> StopOutcome:
    acted = await ctx.remove(uuid, cluster_id, "the WMS ordered the taskforce's stop")
    if acted.failed and not acted.succeeded:
        raise OrderRefused(f"HTCondor does not let us remove any job of cluster {cluster_id}")
    queued = [] if acted.succeeded else [cluster.cluster_id for cluster in await lookup.in_queue(ctx.schedd, uuid)]
    outcome = stop_outcome(acted.succeeded, cluster_id, queued)
    match outcome:
        case StopOutcome.REMOVED:
            log.info("cluster removed", taskforce=uuid, cluster=cluster_id, jobs=jobs_met(acted.succeeded, submit_dict))
        case StopOutcome.NOTHING_LEFT:
            log.warning(
                "nothing to remove: the cluster has ended, or was never here", taskforce=uuid, cluster=cluster_id
            )
        case StopOutcome.ELSEWHERE:
            raise OrderRefused(
                f"the WMS names cluster {cluster_id}, which is not in the queue, but the queue has {queued} for this"
                f" taskforce; nothing was removed: look at it with condor_q and remove it by hand"
            )
    return outcome


async def _go_on(ctx: Context, uuid: str, taskforce: Taskforce, outcome: StopOutcome) -> None:
    """After the stop: see to it that the taskforce is completed in the end."""
    entry = await ctx.ledger.peek(uuid)
    in_doubt = uuid in ctx.outbox.doubts  # the confirmation may arrive once more: the end is not told at once
    if not in_doubt and entry is not None and entry.completed_at is not None and entry.ended_at is not None:
        # It was completed before the stop was ordered: the confirmation has overwritten that at the WMS.
        await _complete(ctx, uuid, int(entry.ended_at))
    elif not in_doubt and outcome is StopOutcome.NOTHING_LEFT and ctx.caught_up.is_set() and not ctx.board.places(uuid):
        # Neither the queue nor a log knows the cluster: nobody else will ever say that it has ended.
        await _complete(ctx, uuid, int(time.time()))
    elif ctx.outbox.leave_unknown(uuid, Stage.OPEN) and taskforce.cluster_id is not None:
        # A log tells the end, and if none does the audit.
        ctx.board.expect(uuid, taskforce.cluster_id, taskforce.n_workers or 0)


async def _complete(ctx: Context, uuid: str, ended_at: int) -> None:
    ctx.outbox.set_stage(uuid, Stage.ENDING)
    await ctx.outbox.complete(uuid, ended_at)
