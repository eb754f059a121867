"""Repeat a call to the WMS until it is answered: timeout inside each attempt, backoff between them."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import attrs
import structlog
import trio

from ewms.liveness import beat_here, rest
from ewms.supervision import backoff
from ewms.wms.errors import WMSUnauthorized, WMSUnavailable

log = structlog.stdlib.get_logger(__name__)

T = TypeVar("T")

_LONGEST_RETRY_AFTER: Final = 600.0
"""In s; an answer that asks for more (a mistyped date, say) does not silence the TMS for longer."""


@attrs.frozen
class Retry:
    """How transient faults are retried: waits in s, doubling from `first` to `cap`, with jitter."""

    first: float = 1.0
    cap: float = 60.0
    attempts: int | None = None
    """After so many attempts the last error is raised; None: for as long as the caller's scope lives."""


async def until_answered(call: str, attempt: Callable[[], Awaitable[T]], retry: Retry) -> T:
    """The first answer that `attempt` gets; only `WMSUnavailable` is retried."""
    delays = backoff(retry.first, retry.cap)
    started = trio.current_time()
    for number in itertools.count(1):
        try:
            result = await attempt()
        except WMSUnavailable as error:
            beat_here()
            if number == retry.attempts:
                raise
            pause = max(next(delays), min(error.retry_after or 0.0, _LONGEST_RETRY_AFTER))
            say = log.error if isinstance(error, WMSUnauthorized) else log.warning
            say("WMS call failed, will repeat it", call=call, attempt=number, error=str(error), wait_s=round(pause, 1))
            await rest(pause)
        else:
            beat_here()
            if number > 1:
                away = round(trio.current_time() - started, 1)
                log.info("WMS call succeeded again", call=call, attempts=number, after_s=away)
            return result
    raise AssertionError("unreachable: count() does not end")
