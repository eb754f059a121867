"""After a restart: learn which taskforces the WMS takes for not completed, and what an earlier run left half done."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

import attrs
import structlog
import trio

from ewms.liveness import rest
from ewms.supervision import backoff
from ewms.tms.context import Context
from ewms.tms.entries import Entry
from ewms.tms.outbox import OpenTaskforce, Stage
from ewms.tms.postponed import Postponed
from ewms.wms.errors import WMSError
from ewms.wms.models import Phase
from ewms.wms.raw import completion_time

log = structlog.stdlib.get_logger(__name__)

_PROJECTION: Final = ("taskforce_uuid", "cluster_id", "n_workers", "top_task_errors")
_AT_ONCE: Final = 500
"""Taskforces that one question names."""
_LONGEST_POSTPONEMENT: Final = 86400.0
"""Between two times that the WMS hears of an end that it does not take, in s."""


@attrs.frozen
class Leftovers:
    """UUIDs of taskforces of which the ledger does not know the outcome."""

    stops: tuple[str, ...]
    """Removed perhaps, and the WMS does not know it."""
    ends: tuple[str, ...]
    """The WMS does not list them as open: it may have taken their end."""


def leftovers(entries: Iterable[Entry], open_taskforces: Collection[str]) -> Leftovers:
    """What the ledger and the WMS's list leave open (pure)."""
    entries = list(entries)
    return Leftovers(
        tuple(each.taskforce_uuid for each in entries if each.has_open_stop and each.taskforce_uuid in open_taskforces),
        tuple(
            each.taskforce_uuid for each in entries if each.has_open_end and each.taskforce_uuid not in open_taskforces
        ),
    )


async def reconcile(ctx: Context) -> Leftovers:
    """Ask until it is answered, and tell outbox and board; returns then."""
    delays = backoff()
    query = {"schedd": ctx.schedd_name, "phase": {"$ne": Phase.CONDOR_COMPLETE.value}}
    entries = await _entries(ctx)  # before the question: what is confirmed meanwhile is in the answer
    while True:
        try:
            listed = await ctx.wms.query_taskforces(query, _PROJECTION)
        except WMSError as error:
            delay = next(delays)
            log.error("the WMS does not say which taskforces are open", error=str(error), wait_s=round(delay, 1))
            await rest(delay)
        else:
            adopt(ctx, listed)
            return leftovers(entries, {each["taskforce_uuid"] for each in listed})


async def _entries(ctx: Context) -> list[Entry]:
    try:
        return await ctx.ledger.entries()
    except OSError as error:
        log.error("ledger cannot be read, what an earlier run left half done is not known", error=str(error))
        return []


def adopt(ctx: Context, listed: list[dict[str, Any]]) -> None:
    """Take over what the WMS lists."""
    for each in listed:
        if each.get("cluster_id") is not None:
            ctx.board.expect(each["taskforce_uuid"], each["cluster_id"], each.get("n_workers") or 0)
    ctx.outbox.adopt(
        OpenTaskforce(each["taskforce_uuid"], each.get("cluster_id"), has_errors=bool(each.get("top_task_errors")))
        for each in listed
    )
    log.info("open taskforces taken over from the WMS", taskforces=len(listed), **ctx.outbox.counts())


# --- ends ---


async def note_ends(ctx: Context, uuids: Sequence[str]) -> None:
    """Note what the WMS takes for completed; an earlier run was killed before it could."""
    for start in range(0, len(uuids), _AT_ONCE):
        query = {
            "taskforce_uuid": {"$in": uuids[start : start + _AT_ONCE]},
            "phase": Phase.CONDOR_COMPLETE.value,
        }
        try:
            completed = await ctx.wms.query_taskforces(query, ["taskforce_uuid", "phase_change_log"])
        except WMSError as error:
            log.error("the WMS does not say which taskforces it takes for completed", error=str(error))
            return
        for each in completed:
            log.info("an earlier run completed the taskforce", taskforce=each["taskforce_uuid"])
            await ctx.ledger.update(each["taskforce_uuid"], ended_at=ended_at(each), completed_at=time.time())


def ended_at(taskforce: Mapping[str, Any]) -> int:
    """When the cluster ended, as the WMS was told (epoch s; pure), or else now."""
    told = completion_time(taskforce)
    return int(time.time() if told is None else told)


async def retry_refused_ends(ctx: Context) -> NoReturn:
    """Tell the WMS again of ends that it did not take: after an audit's interval, then after twice that, and so on."""
    interval = ctx.settings.audit_interval
    postponed = Postponed(interval, max(interval, _LONGEST_POSTPONEMENT), trio.current_time)
    while True:
        await rest(interval)
        for uuid in ctx.outbox.in_stage(Stage.REFUSED):
            if postponed.wait(uuid) <= 0:
                postponed.fail(uuid)  # unless it succeeds
                await _retry_end(ctx, uuid)


async def _retry_end(ctx: Context, uuid: str) -> None:
    try:
        taskforce = await ctx.recheck(uuid)
    except WMSError as error:
        log.error("the WMS does not say what has become of a taskforce", taskforce=uuid, error=str(error))
        return
    if taskforce is not None and taskforce.phase == Phase.CONDOR_COMPLETE:
        await ctx.outbox.note_completed(uuid, int(time.time()))  # somebody has put it right
    else:
        await ctx.outbox.complete_again(uuid)
