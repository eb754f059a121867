"""Taking events: a free slot first, then the next event of any queue.

Each queue has a puller that waits until its event is wanted; whoever waits longest comes next, so that a full queue
does not starve the others. An event that was received but not begun when intake is cancelled is handed back. One that
is not run here (parked, say) and comes round again counts as none: it would keep an idle pilot alive.
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

Handle = Callable[[Source, Delivery, Callable[[], None]], Awaitable[None]]
"""Works on a delivery to its verdict; calls the function unless it only comes round again."""
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
    _free: trio.Semaphore = attrs.field(init=False)
    _idle_since: float = attrs.field(init=False)
    """When the last event came that counts, or when there was room again after that."""

    def __attrs_post_init__(self) -> None:
        self._free = trio.Semaphore(self.slots)

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
        timeout, is_first = self.first_timeout, True
        self._idle_since = trio.current_time()
        while True:
            await self._free.acquire()
            latest = self.latest_begin()
            item = await self._next(items, timeout, latest)
            if item is None:
                return Reason.LEASE if trio.current_time() >= latest else Reason.NO_EVENT
            # No checkpoint between receiving and starting: an event in between would belong to nobody.
            in_flight.start_soon(self._one, *item)
            if is_first:
                timeout, is_first, self._idle_since = self.timeout, False, trio.current_time()
                self.on_first()

    async def _next(self, items: trio.MemoryReceiveChannel[Item], patience: float, latest: float) -> Item | None:
        """The next event; None if none came for `patience` s in which all brokers were in reach, or by `latest`."""
        while True:
            now = trio.current_time()
            listening = (source.listening_since for source in self.sources)
            since = max(self._idle_since, *(now if since is None else since for since in listening))
            until = min(latest, patience + since)
            if now >= until:
                return None
            with trio.move_on_at(until):
                return await items.receive()

    async def _one(self, source: Source, delivery: Delivery) -> None:
        counted = False

        def counts() -> None:
            nonlocal counted
            counted = True
            self._idle_since = trio.current_time()

        try:
            await self.handle(source, delivery, counts)
        finally:
            if counted and self._free.statistics().tasks_waiting:
                self._idle_since = trio.current_time()
            self._free.release()

    async def _pull(self, source: Source, items: trio.MemorySendChannel[Item]) -> NoReturn:
        while True:
            delivery = await source.receive()
            try:
                await items.send((source, delivery))
            except trio.Cancelled:
                await give(source.hand_back, delivery)  # noqa: ASYNC102  it is shielded inside
                raise
