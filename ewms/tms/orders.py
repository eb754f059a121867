"""Poll the WMS for orders: starts and stops are two children, so that neither waits for the other."""

import time
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

import structlog
import trio

from ewms.tms.context import Context
from ewms.tms.starting import settle, start
from ewms.tms.stopping import stop
from ewms.wms.errors import WMSError, WMSMalformed
from ewms.wms.models import StartOrder, Taskforce

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T", StartOrder, Taskforce)

_KEEP_ENTRIES: Final = 90 * 86400.0
"""For how long the ledger remembers what is over, in s."""


async def run_starts(ctx: Context) -> NoReturn:
    """Settle what an earlier run left, then carry out start orders for ever, one at a time."""
    await _settle_leftovers(ctx)
    await _poll(ctx, lambda: ctx.wms.next_start_order(ctx.schedd_name), lambda o: start(ctx, o), ctx.wms.start_failed)


async def run_stops(ctx: Context) -> NoReturn:
    """Carry out stop orders for ever, one at a time."""
    await _poll(ctx, lambda: ctx.wms.next_stop_order(ctx.schedd_name), lambda o: stop(ctx, o), ctx.wms.stop_failed)


async def _poll(
    ctx: Context,
    fetch: Callable[[], Awaitable[T | None]],
    carry_out: Callable[[T], Awaitable[bool]],
    tell_failed: Callable[[str, str], Awaitable[None]],
) -> NoReturn:
    while True:
        try:
            order = await fetch()
            if order is None:
                await trio.sleep(ctx.settings.outer_loop_wait)
            elif not await carry_out(order):
                await trio.sleep(ctx.settings.error_wait)
        except WMSError as error:
            log.error("order cannot be understood or answered, going on", error=str(error))
            await _tell(error, tell_failed)
            await trio.sleep(ctx.settings.error_wait)


async def _tell(error: WMSError, tell_failed: Callable[[str, str], Awaitable[None]]) -> None:
    """A malformed order counts as a failed attempt, where it says whose it is."""
    if not isinstance(error, WMSMalformed) or error.taskforce_uuid is None:
        return
    try:
        await tell_failed(error.taskforce_uuid, str(error))
    except WMSError as refusal:
        log.error("the WMS does not take the failure of an order either", error=str(refusal))


async def _settle_leftovers(ctx: Context) -> None:
    try:
        forgotten = await ctx.ledger.prune(time.time() - _KEEP_ENTRIES)
        entries = await ctx.ledger.entries()
    except OSError as error:
        log.error("ledger cannot be read, starts are looked up one by one", error=str(error))
        return
    log.info("ledger read", taskforces=len(entries), forgotten=forgotten)
    for entry in entries:
        if entry.is_unsettled:
            try:
                await settle(ctx, entry)
            except WMSError as error:
                log.error("an earlier start cannot be settled", taskforce=entry.taskforce_uuid, error=str(error))
