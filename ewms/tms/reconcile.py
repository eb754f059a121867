"""After a restart: learn which taskforces the WMS takes for not completed."""

from typing import Any, Final

import structlog
import trio

from ewms.supervision import backoff
from ewms.tms.context import Context
from ewms.tms.outbox import OpenTaskforce
from ewms.wms.errors import WMSError
from ewms.wms.models import Phase

log = structlog.stdlib.get_logger(__name__)

_PROJECTION: Final = ("taskforce_uuid", "cluster_id", "n_workers", "top_task_errors")


async def reconcile(ctx: Context) -> None:
    """Ask until it is answered, and tell outbox and board; returns then."""
    delays = backoff()
    query = {"schedd": ctx.schedd_name, "phase": {"$ne": Phase.CONDOR_COMPLETE.value}}
    while True:
        try:
            listed = await ctx.wms.query_taskforces(query, _PROJECTION)
        except WMSError as error:
            delay = next(delays)
            log.error("the WMS does not say which taskforces are open", error=str(error), wait_s=round(delay, 1))
            await trio.sleep(delay)
        else:
            adopt(ctx, listed)
            return


def adopt(ctx: Context, listed: list[dict[str, Any]]) -> None:
    """Take over what the WMS lists."""
    known = [each for each in listed if isinstance(each.get("taskforce_uuid"), str)]
    for each in known:
        if each.get("cluster_id") is not None:
            ctx.board.expect(each["taskforce_uuid"], each["cluster_id"], each.get("n_workers") or 0)
    ctx.outbox.adopt(
        OpenTaskforce(each["taskforce_uuid"], each.get("cluster_id"), has_errors=bool(each.get("top_task_errors")))
        for each in known
    )
    log.info("open taskforces taken over from the WMS", taskforces=len(known), **ctx.outbox.counts())
