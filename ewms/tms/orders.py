"""Poll the WMS for orders: starts and stops are two children, so that neither waits for the other."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Literal, NoReturn, TypeVar

import structlog
import trio

from ewms.liveness import rest
from ewms.supervision import backoff
from ewms.tms.condor.base import CondorError
from ewms.tms.context import Context
from ewms.tms.errors import OrderRefused
from ewms.tms.postponed import Postponed
from ewms.tms.starting import settle, start
from ewms.tms.stopping import stop
from ewms.wms.errors import WMSError, WMSMalformed
from ewms.wms.models import Phase, StartOrder

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE: Final = 600.0
"""Between orders that cannot be understood or answered, in s."""
_LONGEST_POSTPONEMENT: Final = 3600.0
"""Of a stop order that failed, in s: each try is an entry in the taskforce's log at the WMS."""


async def run_starts(ctx: Context) -> NoReturn:
    """Settle what an earlier run left, then carry out start orders for ever, one at a time."""
    await _settle_leftovers(ctx)
    await _poll(ctx, partial(_next_start, ctx), partial(_start, ctx))


async def run_stops(ctx: Context) -> NoReturn:
    """Carry out stop orders for ever, one at a time; one that fails waits longer each time, and holds up no other."""
    postponed = Postponed(ctx.settings.error_wait, _LONGEST_POSTPONEMENT, trio.current_time)
    await _poll(ctx, partial(_next_stop, ctx), partial(_stop_when_due, ctx, postponed))


async def _poll(
    ctx: Context, fetch: Callable[[], Awaitable[T | None]], carry_out: Callable[[T], Awaitable[bool]]
) -> NoReturn:
    """Fetch and carry out for ever; `carry_out` says whether there may be a next order at once."""
    settings = ctx.settings
    pauses = backoff(settings.error_wait, _LONGEST_PAUSE)
    while True:
        try:
            order = await fetch()
            if order is None:
                await rest(settings.outer_loop_wait)
            elif not await carry_out(order):
                await rest(settings.error_wait)
            pauses = backoff(settings.error_wait, _LONGEST_PAUSE)
        except WMSError as error:
            pause = next(pauses)
            log.error("order cannot be understood or answered, going on", error=str(error), wait_s=round(pause, 1))
            await rest(pause)


# --- starts ---


async def _next_start(ctx: Context) -> StartOrder | WMSMalformed | None:
    """The next one, or what is wrong with it, where that much can be read that it says whose it is."""
    try:
        return await ctx.wms.next_start_order(ctx.schedd_name)
    except WMSMalformed as error:
        if error.taskforce_uuid is None:
            raise
        return error


async def _start(ctx: Context, order: StartOrder | WMSMalformed) -> bool:
    """Carry it out; whatever the WMS makes impossible counts as a failed attempt: it is not to be in others' way."""
    if isinstance(order, WMSMalformed):
        return await _fail(ctx, str(order.taskforce_uuid), order)
    try:
        return await start(ctx, order)
    except WMSError as error:
        return await _fail(ctx, order.taskforce.taskforce_uuid, error)


async def _fail(ctx: Context, uuid: str, error: WMSError) -> Literal[False]:
    log.error("start order cannot be understood or answered", taskforce=uuid, error=str(error))
    await ctx.wms.start_failed(uuid, str(error))
    return False


# --- stops ---


async def _next_stop(ctx: Context) -> str | None:
    """The taskforce of the next stop order."""
    try:
        order = await ctx.wms.next_stop_order(ctx.schedd_name)
    except WMSMalformed as error:
        if error.taskforce_uuid is None:
            raise
        return error.taskforce_uuid  # looking at it again will say what is wrong with it
    return None if order is None else order.taskforce_uuid


async def _stop_when_due(ctx: Context, postponed: Postponed, uuid: str) -> bool:
    # The WMS offers the same order until it is confirmed.
    wait = postponed.wait(uuid)
    if wait <= 0:
        return await _try_to_stop(ctx, postponed, uuid)
    for other in await _all_stops(ctx):
        if postponed.wait(other) <= 0:
            await _try_to_stop(ctx, postponed, other)
    await rest(min(wait, ctx.settings.outer_loop_wait))
    return True


async def _try_to_stop(ctx: Context, postponed: Postponed, uuid: str) -> bool:
    wait = postponed.fail(uuid)  # unless it succeeds, whatever happens
    try:
        stopped = await stop(ctx, uuid)
    except WMSError as error:
        log.error("stop order cannot be understood or answered", taskforce=uuid, error=str(error))
        await ctx.wms.stop_failed(uuid, str(error))
        stopped = False
    if stopped:
        postponed.succeed(uuid)
    else:
        log.info("stop order is looked at again later", taskforce=uuid, wait_s=round(wait, 1))
    return stopped


async def _all_stops(ctx: Context) -> list[str]:
    query = {"schedd": ctx.schedd_name, "phase": Phase.PENDING_STOPPER.value}
    return [each["taskforce_uuid"] for each in await ctx.wms.query_taskforces(query, ["taskforce_uuid"])]


# --- after a restart ---


async def _settle_leftovers(ctx: Context) -> None:
    try:
        entries = await ctx.ledger.entries()
    except OSError as error:
        log.error("ledger cannot be read, starts are looked up one by one", error=str(error))
        return
    log.info("ledger read", taskforces=len(entries))
    for entry in entries:
        if entry.is_unsettled:
            try:
                await settle(ctx, entry)
            except (WMSError, CondorError, OrderRefused) as error:
                log.error(
                    "an earlier start cannot be settled, the next start of the TMS looks at it again",
                    taskforce=entry.taskforce_uuid,
                    error=str(error),
                )
