"""A line in the log at least so often, so that a silent log means a dead TMS."""

from typing import NoReturn

import structlog
import trio

from ewms.tms.context import Context

log = structlog.stdlib.get_logger(__name__)


async def run_pulse(ctx: Context) -> NoReturn:
    """Say every `TMS_MAX_LOGGING_INTERVAL` s what there is, and which children show no life."""
    while True:
        await trio.sleep(ctx.settings.max_logging_interval)
        log.info("TMS alive", **ctx.outbox.counts(), stuck=sorted(ctx.pulse.stuck()))
