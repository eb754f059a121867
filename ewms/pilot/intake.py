"""Taking events: a free slot first, then the next event of any queue.

Each queue has a puller that waits until its event is wanted; whoever waits longest comes next, so that a full queue
does not starve the others. An event that was received but not begun when intake is cancelled is handed back.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

import attrs
import structlog
import trio

from ewms.pilot.brokers.base import Delivery, Source
from ewms.pilot.stopping import Reason
from ewms.pilot.work import give

log = structlog.stdlib.get_logger(__name__)

Handle = Callable[[Source, Delivery], Awaitable[None]]
Item = tuple[Source, Delivery]


@attrs.define(kw_only=True)
class Intake:
    """Takes events from its sources and starts `handle` for each in the in-flight nursery."""

    sources: Sequence[Source]
    slots: int
    first_timeout: float
    """s to wait for the first event."""
    timeout: float
    """s to wait for each further one, while there is room for it and every broker is in reach."""
    handle: Handle
    on_first: Callable[[], None]
    """Called when the first event came."""
    latest_begin: Callable[[], float] = lambda: math.inf
    """After this moment (of Trio's clock) no event is taken; asked for each one."""

    async def run(self, in_flight: trio.Nursery) -> Reason:
        """Take events until none came for the timeout, or until it is too late; cancelling it is the other way out."""
        send, receive = trio.open_memory_channel[Item](0)
        async with trio.open_nursery() as pullers:
            for source in self.sources:
                pullers.start_soon(self._pull, source, send)
            reason = await self._take(receive, in_flight)
            pullers.cancel_scope.cancel()
        return reason

    async def _take(self, items: trio.MemoryReceiveChannel[Item], in_flight: trio.Nursery) -> Reason:
        free = trio.Semaphore(self.slots)
        timeout, is_first = self.first_timeout, True
        while True:
            await free.acquire()
            latest = self.latest_begin()
            item = await self._next(items, timeout, latest)
            if item is None:
                return Reason.LEASE if trio.current_time() >= latest else Reason.NO_EVENT
            # No checkpoint between receiving and starting: an event in between would belong to nobody.
            in_flight.start_soon(self._one, *item, free)
            if is_first:
                timeout, is_first = self.timeout, False
                self.on_first()

    async def _next(self, items: trio.MemoryReceiveChannel[Item], patience: float, latest: float) -> Item | None:
        """The next event; None if none came for `patience` s in which all brokers were in reach, or by `latest`."""
        began = trio.current_time()
        while True:
            now = trio.current_time()
            listening = (source.listening_since for source in self.sources)
            until = min(latest, patience + max(began, *(now if since is None else since for since in listening)))
            if now >= until:
                return None
            with trio.move_on_at(until):
                return await items.receive()

    async def _one(self, source: Source, delivery: Delivery, free: trio.Semaphore) -> None:
        try:
            await self.handle(source, delivery)
        finally:
            free.release()

    async def _pull(self, source: Source, items: trio.MemorySendChannel[Item]) -> NoReturn:
        while True:
            delivery = await source.receive()
            try:
                await items.send((source, delivery))
            except trio.Cancelled:
                await give(source.hand_back, delivery)  # noqa: ASYNC102  it is shielded inside
                raise
