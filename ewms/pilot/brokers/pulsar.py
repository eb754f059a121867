"""Apache Pulsar: the shared subscription of a topic, publishing that the broker confirms, reconnecting.

Each queue has a connection of its own, which is made anew with capped, jittered backoff when it is gone; what cannot
get better (a token, a topic that cannot be) is told at once.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from ewms.pilot.brokers.keptsource import kept
from ewms.pilot.brokers.link import client_name, open_link, reach
from ewms.pilot.brokers.pulsaraddress import PulsarAddress, parse_address
from ewms.pilot.brokers.pulsarhello import greet
from ewms.pilot.brokers.pulsarsink import PulsarSink
from ewms.pilot.brokers.pulsarsource import PulsarSource
from ewms.pilot.brokers.pulsarwire import open_consumer, open_producer
from ewms.secret import Secret


@asynccontextmanager
async def connect(address: str, auth_token: Secret, *, give_up_after: float) -> AsyncIterator["Pulsar"]:
    """Find out whether a Pulsar cluster is there and takes us; its queues connect by themselves.

    Raises:
        BrokerRefused: the address is none, or the broker refused us.
        BrokerLost: out of reach for `give_up_after` s.
    """
    where = parse_address(address, auth_token)
    await reach(str(where), partial(greet, where, client_name()), give_up_after)
    yield Pulsar(where, give_up_after)


class Pulsar:
    """See `ewms.pilot.brokers.base.Broker`."""

    def __init__(self, where: PulsarAddress, give_up_after: float) -> None:
        self._where = where
        self._give_up_after = give_up_after

    @asynccontextmanager
    async def source(self, queue: str, *, prefetch: int) -> AsyncIterator[PulsarSource]:
        """Consume `queue`, which is made if need be; leaving hands back what has no verdict."""
        open_wire = partial(open_consumer, self._where, queue, name=client_name())
        async with (
            open_link(str(self._where), open_wire, self._give_up_after) as link,
            kept(PulsarSource(link, queue, prefetch), link.nursery) as source,
        ):
            yield source

    @asynccontextmanager
    async def sink(self, queue: str) -> AsyncIterator[PulsarSink]:
        """Publish to `queue`, which is made if need be."""
        open_wire = partial(open_producer, self._where, queue, name=client_name())
        async with open_link(str(self._where), open_wire, self._give_up_after) as link:
            yield PulsarSink(link, queue)
