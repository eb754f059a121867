"""Run a for-ever child, and start it again after faults that are expected.

A bug is not supervised away: what is not named as expected passes through, ends the service with its traceback, and
systemd starts it again into a correct state.
"""

import random
from collections.abc import Awaitable, Callable, Iterator
from typing import NoReturn

import structlog
import trio

log = structlog.stdlib.get_logger(__name__)


def backoff(first: float = 1.0, cap: float = 60.0, jitter: float = 0.5) -> Iterator[float]:
    """Waiting times in s: doubling from `first` to `cap`, each shortened at random by up to `jitter` of itself."""
    delay = first
    while True:
        yield delay * (1 - jitter * random.random())  # noqa: S311  spreads load, guards nothing
        delay = min(cap, delay * 2)


async def keep_running(
    name: str,
    child: Callable[[], Awaitable[NoReturn]],
    *,
    expected: tuple[type[Exception], ...],
    first: float = 1.0,
    cap: float = 60.0,
) -> NoReturn:
    """Run `child` for ever; after an `expected` error log it, wait with backoff, and run it again.

    A run that lasted longer than `cap` s starts the backoff anew.
    """
    delays = backoff(first, cap)
    while True:
        started = trio.current_time()
        try:
            await child()
        except expected as error:
            if trio.current_time() - started > cap:
                delays = backoff(first, cap)
            delay = next(delays)
            log.warning(
                "child failed, starting it again",
                child=name,
                error=str(error),
                wait_s=round(delay, 1),
            )
            await trio.sleep(delay)
        else:
            raise AssertionError(f"{name} returned, but it must run for ever")
