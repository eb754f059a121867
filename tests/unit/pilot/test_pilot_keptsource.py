"""What a source keeps of connections that are gone: nothing, however often that happens while nobody receives."""

import gc
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from ewms.pilot.brokers import amqpwire, pulsarwire
from ewms.pilot.brokers.base import Delivery
from ewms.pilot.brokers.keptsource import KeptSource, kept
from ewms.pilot.brokers.link import WireLost
from ewms.pilot.brokers.pulsarsource import PulsarSource
from ewms.pilot.brokers.rabbitsource import RabbitSource

PREFETCH = 3
LIFE_S = 60


@attrs.define(eq=False)
class FakeWire:
    """A connection, or a channel, that is gone after a minute."""

    closed: trio.Event = attrs.field(factory=trio.Event)

    def lose(self) -> None:
        self.closed.set()

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class FakeChannel(FakeWire):
    """RabbitMQ's: pushes as much as may be without a verdict."""

    consumer_ended: trio.Event = attrs.field(factory=trio.Event)
    reason: str = "lost"

    async def open_channel(self, *, publisher_confirms: bool) -> "FakeChannel":
        await trio.lowlevel.checkpoint()
        return self

    async def declare(self, queue: str, *, passive: bool) -> None:
        await trio.lowlevel.checkpoint()

    async def consume(self, queue: str, prefetch: int, on_message: Callable[[amqpwire.Incoming], None]) -> str:
        await trio.lowlevel.checkpoint()
        for number in range(1, prefetch + 1):
            on_message(amqpwire.Incoming(b"x", None, {}, redelivered=True, delivery_tag=number))
        return "tag"

    async def stop_consuming(self, consumer_tag: str) -> None:
        raise WireLost(self.reason)

    def lose(self) -> None:
        self.closed.set()
        self.consumer_ended.set()


@attrs.define(eq=False)
class FakeConsumer(FakeWire):
    """Pulsar's: has always one more message."""

    async def receive(self) -> pulsarwire.Incoming:
        await trio.lowlevel.checkpoint()
        return pulsarwire.Incoming(body=b"x", properties={}, position="1:2", returned=0, message=None)


@attrs.define
class FakeLink:
    """Has a new connection whenever the last one is gone."""

    nursery: trio.Nursery
    make: Callable[[], FakeWire]
    give_up_after: float = 1000
    made: int = 0

    async def wire(self) -> FakeWire:
        await trio.lowlevel.checkpoint()
        self.made += 1
        wire = self.make()
        self.nursery.start_soon(self._lose, wire)
        return wire

    async def _lose(self, wire: FakeWire) -> None:
        await trio.sleep(LIFE_S)
        wire.lose()


def deliveries() -> int:
    gc.collect()
    return sum(isinstance(each, Delivery) for each in gc.get_objects())


@pytest.mark.parametrize(("kind", "make"), [(RabbitSource, FakeChannel), (PulsarSource, FakeConsumer)])
async def test_a_busy_pilot_on_a_bad_network_keeps_no_more_than_it_may_have(
    autojump_clock: MockClock, kind: Callable[[Any, str, int], KeptSource], make: Callable[[], FakeWire]
) -> None:
    """Its tasks take a day, the connection is lost each minute, and each time the broker pushes again."""
    before = deliveries()
    async with trio.open_nursery() as nursery:
        link = FakeLink(nursery, make)
        async with kept(kind(link, "in", PREFETCH), nursery) as source:
            await trio.sleep(1000 * LIFE_S)
            assert link.made > 500
            assert source.listening_since is not None
            assert deliveries() - before <= PREFETCH
        nursery.cancel_scope.cancel()
