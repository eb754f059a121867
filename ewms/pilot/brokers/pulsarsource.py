"""Consuming from one topic on Pulsar: each free place is one request for one message, so nothing is hoarded.

The broker takes back what a consumer holds when its connection is gone, and counts only what was given back in so many
words; so a hand-back is counted like a rejection.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

import attrs
import trio

from ewms.pilot.brokers.base import Delivery
from ewms.pilot.brokers.keptsource import KeptSource
from ewms.pilot.brokers.link import Link, WireLost
from ewms.pilot.brokers.pulsarsink import MESSAGE_ID
from ewms.pilot.brokers.pulsarwire import ConsumerWire, Incoming


@attrs.define(eq=False)
class Held:
    """A message that the broker gave us and that has no verdict yet."""

    wire: ConsumerWire
    message: Incoming
    given_out: bool = False


class PulsarSource(KeptSource):
    """See `ewms.pilot.brokers.base.Source`."""

    def __init__(self, link: Link[ConsumerWire], queue: str, prefetch: int) -> None:
        super().__init__()
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._held: set[Held] = set()
        self._changed = trio.Event()

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self._queue

    async def _consume_for_ever(self) -> None:
        while not self._stopped:
            wire = await self._link.wire()
            self._listens(yes=True)
            try:
                await self._consume(wire)
            finally:
                self._listens(yes=False)

    async def _consume(self, wire: ConsumerWire) -> None:
        self._link.nursery.start_soon(self._tell_when, wire.closed)
        with suppress(WireLost):
            while not self._stopped and not wire.closed.is_set():
                if len(self._held) < self._prefetch:
                    await self._take(wire, await wire.receive())
                else:
                    await self._changed.wait()
        if not self._stopped:
            self._held.clear()
            self._drop_pushed()

    async def _take(self, wire: ConsumerWire, message: Incoming) -> None:
        if self._stopped:
            await wire.nack(message)
            return
        held = Held(wire, message)
        self._held.add(held)
        delivery = Delivery(
            body=message.body,
            queue=self._queue,
            message_id=message.properties.get(MESSAGE_ID, message.position),
            headers=message.properties,
            returned=message.returned,
            tag=held,
        )
        self._pushed.send_nowait(delivery)

    async def _tell_when(self, event: trio.Event) -> None:
        await event.wait()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def receive(self) -> Delivery:
        """Wait for the next delivery of a living connection."""
        while True:
            delivery = await self._next_pushed()
            if self.holds(delivery):
                delivery.tag.given_out = True
                return delivery

    def holds(self, delivery: Delivery) -> bool:
        """Whether it is without a verdict, and its connection lives."""
        held: Held = delivery.tag
        return held in self._held and not held.wire.closed.is_set()

    async def ack(self, delivery: Delivery) -> bool:
        """Sent means done: one that gets lost within 0.1 s means a redelivery."""
        return await self._verdict(delivery, ConsumerWire.ack)

    async def reject(self, delivery: Delivery) -> bool:
        """Have it delivered again, soon."""
        return await self._verdict(delivery, ConsumerWire.nack)

    async def hand_back(self, delivery: Delivery) -> bool:
        """Have it delivered again, soon; Pulsar counts this delivery too."""
        return await self._verdict(delivery, ConsumerWire.nack)

    async def _verdict(self, delivery: Delivery, give: Callable[[ConsumerWire, Incoming], Awaitable[None]]) -> bool:
        if not self.holds(delivery):
            await trio.lowlevel.checkpoint()
            return False
        return await self._settle(delivery.tag, give)

    async def _settle(self, held: Held, give: Callable[[ConsumerWire, Incoming], Awaitable[None]]) -> bool:
        self._held.discard(held)
        self._tell()
        try:
            await give(held.wire, held.message)
        except WireLost:
            return False
        return True

    async def stop(self) -> None:
        """Take nothing more, and hand back what was not given out.

        One message may have been asked for: the broker cannot be told otherwise, so it is handed back when it comes.
        """
        self._stopped = True
        self._tell()
        for held in list(self._held):
            if not held.given_out:
                await self._settle(held, ConsumerWire.nack)

    async def close(self) -> None:
        """Hold nothing any more: the connection, which is closed next, takes everything back."""
        self._held.clear()
        await trio.lowlevel.checkpoint()
