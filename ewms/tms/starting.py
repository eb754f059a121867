"""One start order: find → prepare → re-check → submit → confirm, and on from wherever a crash fell between."""

import math
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from structlog.contextvars import bound_contextvars

from ewms.contract import day_log_name
from ewms.liveness import rest, resting
from ewms.supervision import backoff
from ewms.tms import lookup
from ewms.tms.condor.base import CondorBroken, CondorError, CondorRefused, CondorUnreachable
from ewms.tms.context import Context
from ewms.tms.decisions import Cluster, Standing, as_intended, choose, must_look_back, standing, standing_after_404
from ewms.tms.entries import Entry
from ewms.tms.errors import OrderRefused
from ewms.tms.files import TROUBLES_OF_THE_MACHINE, write_atomically
from ewms.tms.inspection import inspect_submission
from ewms.tms.outbox import Stage
from ewms.tms.submission import Submission, build
from ewms.tms.submit_language import checked_uuid
from ewms.tms.today import today
from ewms.wms.errors import WMSNotFound, WMSRefused
from ewms.wms.models import Phase, StartOrder

log = structlog.stdlib.get_logger(__name__)

_SUBMIT_MARGIN: Final = 30.0
PATIENCE: Final = 60.0
"""For how long, in s, a start is tried again that HTCondor refuses to look at, or that the helper fails at.

HTCondor may be in the middle of an upgrade."""


async def start(ctx: Context, order: StartOrder) -> bool:
    """Carry out a start order, waiting out a schedd or a disk that is away; False when the order failed.

    Raises:
        WMSError: the WMS's answer to a call makes no sense.
    """
    uuid = order.taskforce.taskforce_uuid
    ctx.metrics.orders.inc("start")
    with bound_contextvars(workflow=order.taskforce.workflow_id):
        async with ctx.outbox.turn(uuid):
            ctx.outbox.keep_hidden(uuid, [each.auth_token for each in order.mqprofiles if each.auth_token])
            try:
                return await _try(ctx, order)
            except OrderRefused as refusal:
                await _fail(ctx, uuid, str(refusal))
                return False


async def settle(ctx: Context, entry: Entry) -> None:
    """After a restart: an unconfirmed start goes on when the WMS offers it again; one that it withdrew is removed.

    Raises:
        CondorError, OrderRefused: it cannot be settled; the next start looks at it again.
    """
    uuid = entry.taskforce_uuid

    async def attempt() -> None:
        await _judge(ctx, uuid, await _find(ctx, uuid, entry, entry.intended_at))

    async with ctx.outbox.turn(uuid):
        await _persist(ctx, uuid, "an earlier start waits", attempt)


async def _try(ctx: Context, order: StartOrder) -> bool:
    """Attempt it while there is hope; False: what came of it is not known. Raises `OrderRefused` when it failed."""
    uuid = order.taskforce.taskforce_uuid
    try:
        await _persist(ctx, uuid, "start waits, it will look again", partial(_attempt, ctx, order))
    except (CondorRefused, CondorBroken) as failure:
        await _give_up(ctx, order, failure)
        return False
    return True


async def _persist(ctx: Context, uuid: str, event: str, attempt: Callable[[], Awaitable[None]]) -> None:
    """Attempt it until it succeeds, waiting out a schedd or a disk that is away; meanwhile it is seen to wait.

    Raises:
        CondorRefused, CondorBroken: as the last attempt did, after `PATIENCE` s of such answers.
    """
    delays = backoff()
    failing_since = math.inf
    try:
        while True:
            try:
                await attempt()
            except (CondorError, OSError) as trouble:
                if isinstance(trouble, (CondorRefused, CondorBroken)):
                    failing_since = min(failing_since, trio.current_time())
                    if trio.current_time() - failing_since >= PATIENCE:
                        raise
                delay = next(delays)
                log.warning(event, taskforce=uuid, error=str(trouble), wait_s=round(delay, 1))
                ctx.waiting[uuid] = str(trouble)
            else:
                return
            await rest(delay)
    finally:
        ctx.waiting.pop(uuid, None)


async def _give_up(ctx: Context, order: StartOrder, failure: CondorError) -> None:
    """Raise `OrderRefused`, but only when it is known that no cluster has come of it."""
    uuid = order.taskforce.taskforce_uuid
    try:
        entry = await ctx.ledger.read(uuid)
        if entry is not None:
            if await _find(ctx, uuid, entry, order.taskforce.timestamp) is not None:
                return  # the WMS offers it again, and then it is confirmed
            await _note_unsubmitted(ctx, uuid)
    except (CondorError, OSError) as trouble:
        log.error(
            "start failed, but the WMS is not told: there may be a cluster, and nobody says",
            taskforce=uuid,
            reason=str(failure),
            error=str(trouble),
        )
        return
    raise OrderRefused(f"it cannot be started on this access point: {failure}") from failure


async def _attempt(ctx: Context, order: StartOrder) -> None:
    uuid = checked_uuid(order.taskforce.taskforce_uuid)
    entry = await ctx.ledger.read(uuid)
    cluster = await _find(ctx, uuid, entry, order.taskforce.timestamp)
    submission = None if cluster else await _prepare(ctx, order, entry)
    if await _judge(ctx, uuid, cluster) is not Standing.WANTED:
        return
    if submission is not None:
        cluster = await _submit(ctx, submission)
    assert cluster is not None
    await _confirm(ctx, uuid, cluster)


# --- find ---


async def _find(ctx: Context, uuid: str, entry: Entry | None, ordered_at: float) -> Cluster | None:
    """The taskforce's cluster, if there is one; more than one cannot stay.

    Raises:
        OrderRefused: a log that may know it cannot be read.
    """
    former = entry.former_clusters if entry is not None else ()
    if entry is not None and entry.withdrawn_at is not None:
        found = await lookup.in_queue(ctx.schedd, uuid, former)
    elif entry is not None and entry.cluster_id is not None:
        return Cluster(entry.cluster_id, entry.log_path, entry.n_workers, dict(entry.submit_dict))
    elif must_look_back(entry, ordered_at, ctx.ledger.created_at):
        found = await _look_back(ctx, uuid, entry.log_path if entry is not None else "", former)
    else:
        found = await lookup.in_queue(ctx.schedd, uuid)
    # An entry that was damaged does not know which of them was withdrawn: the WMS knows which one it confirmed.
    taskforce = await ctx.recheck(uuid) if len(found) > 1 else None
    kept, extra = choose(found, taskforce.cluster_id if taskforce is not None else None)
    for each in extra:
        log.error("taskforce has a second cluster, removing it", taskforce=uuid, cluster=each.cluster_id)
        await _remove(ctx, uuid, each.cluster_id, "a second cluster of its taskforce")
    if kept is not None:
        log.info("found the taskforce's cluster, not submitting another", taskforce=uuid, cluster=kept.cluster_id)
        ctx.metrics.submits.inc("found")
        return as_intended(kept, entry)
    return None


async def _look_back(ctx: Context, uuid: str, log_path: str, former: Collection[int]) -> list[Cluster]:
    """Queue first, then history, then log: a job goes into the history before it leaves the queue."""
    found = await lookup.in_queue(ctx.schedd, uuid, former)
    if found:
        return found
    found = await ctx.history.clusters(uuid, former)
    if found:
        return found
    if log_path:
        return await lookup.in_log(Path(log_path), uuid, former)
    # An earlier tool's, or an entry that is damaged: any log of the directory may know it. A history that knows nothing
    # is no proof: HTCondor looks through its last 50,000 jobs only, and finds none in files that are not there.
    with resting():
        await ctx.caught_up.wait()
    return [
        Cluster(cluster_id, str(ctx.settings.job_dir / log_name), 0)
        for log_name, cluster_id in ctx.board.places(uuid)
        if cluster_id not in former
    ]


async def _judge(ctx: Context, uuid: str, cluster: Cluster | None) -> Standing:
    """Re-check with the WMS, and finish here when the order is withdrawn or the cluster is confirmed already."""
    taskforce = await ctx.recheck(uuid)
    found = standing(taskforce, cluster.cluster_id if cluster else None)
    if found is Standing.WITHDRAWN:
        await _withdraw(ctx, uuid, cluster)
    elif found is Standing.CONFIRMED and cluster is not None and taskforce is not None:
        is_over = taskforce.phase == Phase.CONDOR_COMPLETE  # an earlier run said so: not to be told again
        await _note_confirmed(ctx, uuid, cluster, Stage.UNKNOWN if is_over else Stage.OPEN)
    return found


# --- submit ---


async def _prepare(ctx: Context, order: StartOrder, entry: Entry | None) -> Submission:
    """Build and check what to submit; envfile and intent are on disk when this returns."""
    log_path = Path(entry.log_path) if entry and entry.log_path else ctx.settings.job_dir / day_log_name(today())
    submission = build(order, ctx.settings, log_path, ctx.avoided())
    await inspect_submission(ctx.schedd, order, submission, ctx.settings.job_dir)
    entry = Entry(
        taskforce_uuid=submission.taskforce_uuid,
        log_path=str(log_path),
        n_workers=submission.n_workers,
        intended_at=time.time(),
        submit_dict=submission.description,
        withdrawn_clusters=entry.former_clusters if entry is not None else (),
    )
    try:
        await trio.to_thread.run_sync(_write_envfile, submission)
        await ctx.ledger.write(entry)
    except OSError as error:
        if error.errno in TROUBLES_OF_THE_MACHINE:
            raise
        raise OrderRefused(f"the access point cannot prepare the taskforce: {error}") from error
    return submission


async def _submit(ctx: Context, submission: Submission) -> Cluster:
    """Submit and record; a shutdown in between waits for both, up to a deadline."""
    uuid = submission.taskforce_uuid
    ctx.outbox.set_stage(uuid, Stage.STARTING)
    # The submit may have to wait for another call of the same helper.
    limit = 2 * ctx.settings.schedd_timeout + _SUBMIT_MARGIN
    with trio.move_on_after(limit, shield=True):
        try:
            submitted = await ctx.schedd.submit(submission.description, count=submission.n_workers)
        except CondorRefused as refusal:
            await trio.to_thread.run_sync(submission.envfile_path.unlink)  # noqa: ASYNC120  shielded
            await _note_unsubmitted(ctx, uuid)  # noqa: ASYNC120  shielded
            raise OrderRefused(f"HTCondor refused the submit: {refusal}") from refusal
        cluster = Cluster(
            submitted.cluster_id, str(submission.log_path), submission.n_workers, dict(submission.description)
        )
        await ctx.ledger.update(uuid, cluster_id=cluster.cluster_id)
        ctx.metrics.submits.inc("submitted")
        log.info("cluster submitted", taskforce=uuid, cluster=cluster.cluster_id, workers=cluster.n_workers)
        return cluster
    raise CondorUnreachable(f"the submit did not end within {limit:g} s")


async def _note_unsubmitted(ctx: Context, uuid: str) -> None:
    """Nothing was submitted; which clusters are former ones is still to be known."""
    entry = await ctx.ledger.read(uuid)
    if entry is not None and entry.withdrawn_clusters:
        await ctx.ledger.update(uuid, withdrawn_at=time.time())
    else:
        await ctx.ledger.forget(uuid)


def _write_envfile(submission: Submission) -> None:
    submission.envfile_path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(submission.envfile_path, submission.envfile.encode(), 0o600)


# --- confirm ---


async def _confirm(ctx: Context, uuid: str, cluster: Cluster) -> None:
    ctx.outbox.set_stage(uuid, Stage.STARTING)
    ctx.board.expect(uuid, cluster.cluster_id, cluster.n_workers)
    try:
        await ctx.wms.confirm_start(
            uuid,
            cluster_id=cluster.cluster_id,
            n_workers=cluster.n_workers,
            submit_dict=cluster.submit_dict,
            job_event_log_fpath=cluster.log_path,
        )
    except WMSNotFound:
        if standing_after_404(await ctx.recheck(uuid), cluster.cluster_id) is Standing.WITHDRAWN:
            await _withdraw(ctx, uuid, cluster)
            return
    except WMSRefused as refusal:
        # It will be refused again, and the WMS would never order its stop.
        await _withdraw(ctx, uuid, cluster)  # noqa: ASYNC120  cancelled, the next start of the TMS withdraws it
        raise OrderRefused(str(refusal)) from refusal
    await _note_confirmed(ctx, uuid, cluster, Stage.OPEN)


async def _note_confirmed(ctx: Context, uuid: str, cluster: Cluster, stage: Stage) -> None:
    ctx.board.expect(uuid, cluster.cluster_id, cluster.n_workers)
    ctx.outbox.set_stage(uuid, stage)
    await _note(ctx, uuid, cluster, confirmed_at=time.time())
    log.info("taskforce confirmed", taskforce=uuid, cluster=cluster.cluster_id)


async def _withdraw(ctx: Context, uuid: str, cluster: Cluster | None) -> None:
    """The WMS does not want the taskforce (any more): nothing of it may stay."""
    if cluster is not None:
        log.warning("start was withdrawn, its cluster is removed", taskforce=uuid, cluster=cluster.cluster_id)
        if await _remove(ctx, uuid, cluster.cluster_id, "its taskforce was withdrawn before it was confirmed"):
            await _note(ctx, uuid, cluster, withdrawn_at=time.time())
    else:
        log.info("start was withdrawn, nothing was submitted", taskforce=uuid)
        await ctx.ledger.update(uuid, withdrawn_at=time.time())
    ctx.outbox.set_stage(uuid, Stage.UNKNOWN)


async def _remove(ctx: Context, uuid: str, cluster_id: int, reason: str) -> bool:
    """Remove it; False when HTCondor says no, which is for an operator then: others shall not wait for that."""
    try:
        acted = await ctx.remove(uuid, cluster_id, reason)
    except (CondorRefused, CondorBroken) as refusal:
        error = str(refusal)
    else:
        if acted.succeeded or not acted.failed:
            return True
        error = "HTCondor does not let us remove any job of it"
    log.error(
        "a cluster that must not stay cannot be removed: use condor_rm; the next start of the TMS tries it again",
        taskforce=uuid,
        cluster=cluster_id,
        error=error,
    )
    return False


async def _note(ctx: Context, uuid: str, cluster: Cluster, **changes: float) -> None:
    """Note it in the entry; an adopted cluster gets one of its own."""
    adopted = Entry(
        taskforce_uuid=uuid,
        log_path=cluster.log_path,
        n_workers=cluster.n_workers,
        intended_at=time.time(),
        cluster_id=cluster.cluster_id,
    )
    await ctx.ledger.update(uuid, default=adopted, cluster_id=cluster.cluster_id, **changes)


async def _fail(ctx: Context, uuid: str, reason: str) -> None:
    """Tell the WMS why; nothing was submitted."""
    log.error("start order failed", taskforce=uuid, reason=reason)
    ctx.metrics.submits.inc("refused")
    ctx.outbox.set_stage(uuid, Stage.UNKNOWN)
    await ctx.wms.start_failed(uuid, reason)
